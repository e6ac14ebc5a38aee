use std::fs;
use std::path::Path;

use geometry::Stamp;

use super::{Entry, Error, FileWriter, Place, bag, read_at, scan};
use crate::cdr::encode;
use crate::ros::{Header, Pose, PoseStamped, Type};

fn entry(number: i64) -> Entry {
    let pose = Pose { position: [number as f64, 0.0, 0.0], orientation_xyzw: [0.0, 0.0, 0.0, 1.0] };
    let stamp = Stamp::from_nanos(number);
    let data = encode(&PoseStamped { header: Header::new(stamp, "map"), pose }, 0);
    let topic = if number % 2 == 0 { "/even" } else { "/odd" };
    Entry { topic: topic.to_owned(), message_type: Type::PoseStamped, log_time: stamp, publish_time: stamp, data }
}

fn write(path: &Path, numbers: std::ops::Range<i64>) {
    let mut writer = FileWriter::create(path).unwrap();
    numbers.for_each(|number| writer.write(&entry(number)).unwrap());
    writer.finish().unwrap();
}

#[test]
fn messages_come_back_in_order_and_again_by_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mcap");
    write(&path, 0..9);
    let mut found = Vec::new();
    let damage = scan(&path, |message| {
        assert!(message.channel.is_cdr() && message.channel.message_type() == Some(Type::PoseStamped));
        found.push((message.channel.topic.clone(), message.log_time, message.place, message.data.to_vec()));
        Ok::<(), Error>(())
    });
    assert_eq!(damage.unwrap(), None);
    assert_eq!(found.len(), 9);
    for ((topic, log_time, place, data), number) in found.into_iter().zip(0..) {
        let expected = entry(number);
        assert_eq!((topic, log_time), (expected.topic, expected.log_time));
        assert_eq!(data, expected.data);
        assert_eq!(read_at(&path, place).unwrap(), expected.data);
    }
    for place in [Place { offset: 8, number: 0 }, Place { offset: 9, number: 0 }, Place { offset: 1 << 40, number: 0 }]
    {
        assert!(matches!(read_at(&path, place), Err(Error::Message { .. })), "{place:?}");
    }
}

#[test]
fn a_file_that_was_cut_is_read_as_far_as_it_goes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mcap");
    let mut writer = super::Writer::new(Vec::new()).unwrap();
    for number in 0..9 {
        writer.write(&entry(number)).unwrap();
        writer.flush().unwrap();
    }
    let whole = writer.finish().unwrap();
    let mut counts = Vec::new();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let mut count = 0;
        let damage = scan(&path, |_| {
            count += 1;
            Ok::<(), Error>(())
        });
        match damage {
            Ok(damage) => assert!(count == 9 || damage.is_some_and(|d| d.path == path), "{length}: {count}"),
            Err(error) => assert!(length < 8 && matches!(error, Error::NotMcap { .. }), "{length}: {error}"),
        }
        counts.push(count);
    }
    assert!(counts.is_sorted() && counts.last() == Some(&9), "{counts:?}");
}

#[test]
fn a_bag_s_files_are_those_of_its_list_in_its_order() {
    let dir = tempfile::tempdir().unwrap();
    let metadata = |text: &str| fs::write(dir.path().join("metadata.yaml"), text).unwrap();
    let list = |storage: &str, mode: &str, names: &str| {
        metadata(&format!(
            "rosbag2_bagfile_information:\n  version: 9\n  storage_identifier: {storage}\n  compression_mode: {mode}\n  \
             relative_file_paths:\n{names}"
        ));
        bag::files(dir.path()).map_err(|e| e.to_string())
    };
    let names = "    - drive_2.mcap\n    - old/drive_10.mcap\n";
    assert!(list("mcap", "\"\"", names).unwrap_err().contains("\"drive_2.mcap\", which is not"));
    for name in ["drive_10.mcap", "drive_2.mcap", "other.mcap"] {
        write(&dir.path().join(name), 0..1);
    }
    let expected = ["drive_2.mcap", "drive_10.mcap"].map(|name| dir.path().join(name)).to_vec();
    assert_eq!(list("mcap", "\"\"", names), Ok(expected.clone()));
    assert_eq!(list("mcap", "NONE", names), Ok(expected));
    assert!(bag::is_recording(dir.path()) && bag::is_recording(&dir.path().join("other.mcap")));
    assert!(!bag::is_recording(&dir.path().join("metadata.yaml")));
    for (got, part) in [
        (list("sqlite3", "\"\"", names), "storage_identifier: expected mcap (`ros2 bag convert`"),
        (list("mcap", "MESSAGE", names), "compression_mode: expected none"),
        (list("mcap", "\"\"", "    []\n"), "relative_file_paths: expected a list"),
    ] {
        let error = got.unwrap_err();
        assert!(error.contains("metadata.yaml") && error.contains(part), "{error}");
    }
    for (text, part) in [("", "got nothing"), ("a: [", "YAML")] {
        metadata(text);
        let error = bag::files(dir.path()).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}
