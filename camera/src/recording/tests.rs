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

/// `entry`, its message packed as rosbag2 packs it.
fn packed(number: i64) -> Entry {
    let plain = entry(number);
    Entry { data: zstd::encode_all(&plain.data[..], 3).unwrap(), ..plain }
}

#[test]
fn messages_that_rosbag2_packed_one_by_one_are_read_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let metadata = "rosbag2_bagfile_information:\n  storage_identifier: mcap\n  compression_format: zstd\n  \
                    compression_mode: MESSAGE\n  relative_file_paths:\n    - a.mcap\n";
    fs::write(dir.path().join("metadata.yaml"), metadata).unwrap();
    let path = dir.path().join("a.mcap");
    let mut writer = FileWriter::create(&path).unwrap();
    (0..4).for_each(|number| writer.write(&packed(number)).unwrap());
    // One whose packing is broken is no message, and takes no other with it.
    let broken = Entry { data: packed(4).data[..9].to_vec(), ..packed(4) };
    writer.write(&broken).unwrap();
    writer.finish().unwrap();
    // The list itself is as good as its folder.
    for place in [dir.path().to_owned(), dir.path().join("metadata.yaml")] {
        assert_eq!(bag::files(&place).unwrap(), std::slice::from_ref(&path));
    }
    let mut found = Vec::new();
    let damage = scan(&path, |message| {
        found.push((message.place, message.data.to_vec()));
        Ok::<(), Error>(())
    });
    assert_eq!((damage.unwrap(), found.len()), (None, 5));
    for ((place, data), number) in found[..4].iter().zip(0..) {
        assert_eq!(*data, entry(number).data);
        assert_eq!(read_at(&path, *place).unwrap(), entry(number).data);
    }
    assert!(crate::cdr::decode::<PoseStamped>(&found[4].1).is_err());
}

#[test]
fn files_that_rosbag2_packed_are_refused_until_they_are_unpacked() {
    let dir = tempfile::tempdir().unwrap();
    let metadata = "rosbag2_bagfile_information:\n  storage_identifier: mcap\n  compression_format: zstd\n  \
                    compression_mode: FILE\n  relative_file_paths:\n    - drive_0.mcap.zstd\n";
    fs::write(dir.path().join("metadata.yaml"), metadata).unwrap();
    let (plain, zipped) = (dir.path().join("drive_0.mcap"), dir.path().join("drive_0.mcap.zstd"));
    write(&plain, 0..3);
    fs::write(&zipped, zstd::encode_all(&fs::read(&plain).unwrap()[..], 3).unwrap()).unwrap();
    assert_eq!(bag::files(dir.path()).unwrap(), std::slice::from_ref(&plain));
    fs::remove_file(&plain).unwrap();
    let error = bag::files(dir.path()).unwrap_err().to_string();
    for part in ["metadata.yaml", "compression_mode", "zstd -d", "ros2 bag convert", "got FILE packed by zstd"] {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
    // The file by its own name, without the list.
    assert!(bag::is_recording(&zipped));
    let error = scan(&zipped, |_| Ok::<(), Error>(())).unwrap_err().to_string();
    assert!(error.contains("drive_0.mcap.zstd") && error.contains("zstd has packed"), "{error}");
}

#[test]
fn files_of_other_kinds_are_told_by_name() {
    let dir = tempfile::tempdir().unwrap();
    for (name, content, part) in [
        ("a.db3", &b"SQLite format 3\0 and so on"[..], "sqlite3, of which `ros2 bag convert`"),
        ("a.bag", &b"#ROSBAG V2.0\n and so on"[..], "ROS 1, of which `rosbags-convert`"),
        ("a.mcap", &b"something else entirely"[..], "another kind"),
    ] {
        let path = dir.path().join(name);
        fs::write(&path, content).unwrap();
        assert!(bag::is_recording(&path), "{name}");
        let error = scan(&path, |_| Ok::<(), Error>(())).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("expected an MCAP file") && error.contains(part), "{error}");
    }
    // A bag whose recorder was killed has no list.
    let error = bag::files(dir.path()).unwrap_err().to_string();
    assert!(error.contains("ros2 bag reindex") && error.contains("none beside a.bag, a.db3, a.mcap"), "{error}");
}

#[test]
fn a_message_of_a_channel_that_nobody_described_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mcap");
    // A record: what it is, its length, and then of a message channel, number, two times and two bytes.
    let body = [&7_u16.to_le_bytes()[..], &[0; 4 + 8 + 8], &[0, 1]].concat();
    let record = [&[5][..], &(body.len() as u64).to_le_bytes(), &body].concat();
    fs::write(&path, [mcap::MAGIC, &record].concat()).unwrap();
    let damage = scan(&path, |_| Ok::<(), Error>(())).unwrap().unwrap();
    assert_eq!(damage.offset, 8);
    assert!(damage.reason.contains("unknown channel 7"), "{damage}");
}

#[test]
fn what_the_node_says_is_marked_in_its_own_recordings_and_known_by_name_in_others() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mcap");
    let mut writer = FileWriter::create(&path).unwrap().own(["/odd".to_owned()]);
    for number in 0..2 {
        writer.write(&entry(number)).unwrap();
    }
    for topic in ["/robot1/ego/odometry", "/ego/pose", "/lego/odometry"] {
        writer.write(&Entry { topic: topic.to_owned(), ..entry(2) }).unwrap();
    }
    writer.finish().unwrap();
    let mut own = Vec::new();
    scan(&path, |message| {
        own.push((message.channel.topic.clone(), message.channel.is_own()));
        Ok::<(), Error>(())
    })
    .unwrap();
    let expected = [
        ("/even", false),
        ("/odd", true),
        ("/robot1/ego/odometry", true),
        ("/ego/pose", true),
        ("/lego/odometry", false),
    ];
    assert_eq!(own, expected.map(|(topic, is_own)| (topic.to_owned(), is_own)));
}
