use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use geometry::Stamp;
use mcap::WriteOptions;
use mcap::records::{MessageHeader, op};

use super::{Damage, Entry, Error, FileWriter, Place, bag, read_at, scan};
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

/// A file of nine messages, each in a chunk of its own.
fn in_chunks() -> Vec<u8> {
    let mut writer = super::Writer::new(Vec::new()).unwrap();
    for number in 0..9 {
        writer.write(&entry(number)).unwrap();
        writer.flush().unwrap();
    }
    writer.finish().unwrap()
}

/// Files of a bag.
fn files(path: &Path) -> Result<Vec<PathBuf>, Error> {
    Ok(bag::open(path)?.files)
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
    let whole = in_chunks();
    let mut counts = Vec::new();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let mut count = 0;
        let damage = scan(&path, |_| {
            count += 1;
            Ok::<(), Error>(())
        });
        match damage {
            // Also where all messages are there: a file without its end is not known to be whole.
            Ok(damage) => assert!(damage.is_some_and(|d| d.path() == path), "{length}: {count}"),
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
        files(dir.path()).map_err(|e| e.to_string())
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
        let error = files(dir.path()).unwrap_err().to_string();
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
        assert_eq!(files(&place).unwrap(), std::slice::from_ref(&path));
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
    assert_eq!(files(dir.path()).unwrap(), std::slice::from_ref(&plain));
    fs::remove_file(&plain).unwrap();
    let error = files(dir.path()).unwrap_err().to_string();
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
    let error = files(dir.path()).unwrap_err().to_string();
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
    let Some(Damage::Broken { offset, reason, .. }) = scan(&path, |_| Ok::<(), Error>(())).unwrap() else {
        panic!("expected damage")
    };
    assert_eq!(offset, 8);
    assert!(reason.contains("unknown channel 7"), "{reason}");
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

/// Where each record of a file begins, what it is, and its bytes with its head.
fn records(file: &[u8]) -> Vec<(usize, u8, usize)> {
    let (mut at, mut found) = (mcap::MAGIC.len(), Vec::new());
    while at + mcap::MAGIC.len() < file.len() {
        let length = u64::from_le_bytes(file[at + 1..at + 9].try_into().unwrap()) as usize;
        found.push((at, file[at], 9 + length));
        at += 9 + length;
    }
    found
}

/// What is told of a file, and the bytes of the messages that are read of it.
fn read(file: &[u8]) -> Result<(Option<Damage>, Vec<Vec<u8>>), Error> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mcap");
    fs::write(&path, file).unwrap();
    let mut found = Vec::new();
    let damage = scan(&path, |message| {
        found.push(message.data.to_vec());
        Ok::<(), Error>(())
    })?;
    Ok((damage, found))
}

/// Where the damage begins that is told of a file, and the words.
fn damage(file: &[u8]) -> (u64, String) {
    let told = read(file).unwrap().0;
    let Some(Damage::Broken { offset, .. }) = told else { panic!("expected damage, got {told:?}") };
    (offset, told.map(|told| told.to_string()).unwrap_or_default())
}

#[test]
fn no_byte_of_a_file_changes_in_silence() {
    let whole = in_chunks();
    let (damage, messages) = read(&whole).unwrap();
    assert_eq!((damage, messages.len()), (None, 9));
    for place in 0..whole.len() {
        let mut changed = whole.clone();
        changed[place] ^= 1 << (place % 8);
        match read(&changed) {
            Ok((damage, found)) => {
                assert!(damage.is_some(), "byte {place}: nothing is told");
                assert!(
                    messages.starts_with(&found),
                    "byte {place}: another message is let in: {damage:?}, {} of them",
                    found.len()
                );
            }
            Err(error) => assert!(place < 8 && matches!(error, Error::NotMcap { .. }), "byte {place}: {error}"),
        }
    }
}

#[test]
fn a_chunk_that_became_another_kind_is_damage_where_it_is() {
    let whole = in_chunks();
    let records = records(&whole);
    let chunks: Vec<usize> = records.iter().filter(|(_, kind, _)| *kind == op::CHUNK).map(|(at, ..)| *at).collect();
    let end = records.iter().find(|(_, kind, _)| *kind == op::DATA_END).unwrap().0;
    assert_eq!(chunks.len(), 9);
    for (before, place) in chunks.into_iter().enumerate() {
        for kind in (0..=u8::MAX).filter(|kind| *kind != op::CHUNK) {
            let mut changed = whole.clone();
            changed[place] = kind;
            let (offset, words) = damage(&changed);
            assert_eq!(offset, place as u64, "kind {kind:#04x}: {words}");
            assert!(words.contains("as the file's own index says"), "{words}");
            assert_eq!(read(&changed).unwrap().1.len(), before, "kind {kind:#04x}");
            // Of a file whose writer was killed nothing says where chunks are, but what follows them is told not to belong there.
            let (damage, found) = read(&changed[..end]).unwrap();
            let Some(Damage::Broken { offset, .. }) = damage else { panic!("kind {kind:#04x}: nothing is told") };
            assert!((offset as usize) < end, "kind {kind:#04x}: only the end of the file is missed");
            // What has become a message may pass for one, which is not what its type says.
            let most = before + usize::from(kind == op::MESSAGE);
            assert!((before..=most).contains(&found.len()), "kind {kind:#04x}: {} of {before}", found.len());
        }
    }
}

#[test]
fn a_file_that_does_not_end_behind_its_messages_is_told() {
    let whole = in_chunks();
    let records = records(&whole);
    let place = |kind: u8| records.iter().rev().find(|(_, found, _)| *found == kind).unwrap().0;
    let (data_end, footer) = (place(op::DATA_END), place(op::FOOTER));
    let all = |file: &[u8]| read(file).unwrap().1.len() == 9;
    // The record that ends the messages, as any other kind; its own place is told, or where the summary is taken for messages.
    for kind in (0..=u8::MAX).filter(|kind| *kind != op::DATA_END) {
        let mut changed = whole.clone();
        changed[data_end] = kind;
        let (offset, words) = damage(&changed);
        assert!(offset as usize >= data_end && all(&changed), "kind {kind:#04x}: {words}");
    }
    // Cut behind them, something appended, a footer that is none, and messages that end too early.
    let mut early = whole.clone();
    early[records[2].0] = op::DATA_END;
    let mut no_footer = whole.clone();
    no_footer[footer] = op::SUMMARY_OFFSET;
    for file in [&whole[..footer], &whole[..whole.len() - 1], &[&whole[..], b"more"].concat(), &no_footer] {
        let (offset, words) = damage(file);
        assert_eq!(offset as usize, data_end, "{words}");
        assert!(words.contains("not the file's own end") && all(file), "{words}");
    }
    let (offset, words) = damage(&early);
    assert_eq!(offset as usize, records[2].0, "{words}");
}

/// Nine messages outside of chunks.
fn loose(options: WriteOptions) -> Vec<u8> {
    let mut writer = options.use_chunks(false).create(Cursor::new(Vec::new())).unwrap();
    let schema = writer.add_schema("geometry_msgs/msg/PoseStamped", "ros2msg", b"").unwrap();
    let channel_id = writer.add_channel(schema, "/pose", "cdr", &BTreeMap::new()).unwrap();
    for number in 0..9 {
        let time = 1_700_000_000_123_456_789 + number;
        let header = MessageHeader { channel_id, sequence: 7, log_time: time, publish_time: time };
        writer.write_to_known_channel(&header, &entry(number as i64).data).unwrap();
    }
    writer.finish().unwrap();
    writer.into_inner().into_inner()
}

#[test]
fn a_message_that_became_another_kind_is_told_also_where_no_checksum_is() {
    let whole = loose(WriteOptions::new().calculate_data_section_crc(false));
    let records = records(&whole);
    let messages: Vec<usize> = records.iter().filter(|(_, kind, _)| *kind == op::MESSAGE).map(|(at, ..)| *at).collect();
    let expected: Vec<Vec<u8>> = (0..9).map(|number| entry(number).data).collect();
    let (told, found) = read(&whole).unwrap();
    assert!(told.is_none() && found == expected && messages.len() == 9, "{told:?}");
    let mut counted = 0;
    for kind in (0..=u8::MAX).filter(|kind| *kind != op::MESSAGE) {
        let mut changed = whole.clone();
        changed[messages[4]] = kind;
        match read(&changed).unwrap().0 {
            // One that may be there: what is missed is a message of those that the file counts.
            Some(Damage::Missing { expected, got, topic, .. }) => {
                assert_eq!((expected, got, topic), (9, 8, None), "kind {kind:#04x}");
                counted += 1;
            }
            Some(Damage::Broken { offset, .. }) => assert_eq!(offset as usize, messages[4], "kind {kind:#04x}"),
            None => panic!("kind {kind:#04x}: nothing is told"),
        }
    }
    assert!((1..9).contains(&counted), "{counted}");
    // With a checksum over all of it, what a message says is held too.
    let mut changed = loose(WriteOptions::new());
    changed[messages[4] + 60] ^= 1;
    let (_, words) = damage(&changed);
    assert!(words.contains("the checksum") && words.contains("of all that is in front of it"), "{words}");
}

#[test]
fn records_of_a_writer_s_own_are_left_out_where_the_index_says_that_they_are_no_chunks() {
    let mut writer = WriteOptions::new().create(Cursor::new(Vec::new())).unwrap();
    let schema = writer.add_schema("geometry_msgs/msg/PoseStamped", "ros2msg", b"").unwrap();
    let channel_id = writer.add_channel(schema, "/pose", "cdr", &BTreeMap::new()).unwrap();
    for time in 0..2 {
        let header = MessageHeader { channel_id, sequence: 0, log_time: time, publish_time: time };
        writer.write_to_known_channel(&header, b"message").unwrap();
        writer.write_private_record(0x81, b"ours", Default::default()).unwrap();
    }
    writer.finish().unwrap();
    let whole = writer.into_inner().into_inner();
    let (told, found) = read(&whole).unwrap();
    assert_eq!((told, found.len()), (None, 2));
    let (place, ..) = records(&whole).into_iter().find(|(_, kind, _)| *kind == 0x81).unwrap();
    // Without the index, it may be a chunk.
    let (offset, words) = damage(&whole[..whole.len() - 9]);
    assert_eq!(offset as usize, place, "{words}");
    assert!(words.contains("a record of messages, got one of kind 0x81"), "{words}");
}

#[test]
fn what_a_length_asks_for_is_judged_before_there_is_room_made_for_it() {
    let change = |file: &[u8], at: usize, bytes: &[u8]| [&file[..at], bytes, &file[at + bytes.len()..]].concat();
    let whole = in_chunks();
    let (chunk, ..) = records(&whole).into_iter().find(|(_, kind, _)| *kind == op::CHUNK).unwrap();
    for size in [200_u64 << 20, 1 << 40, u64::MAX] {
        let (offset, words) = damage(&change(&whole, chunk + 9 + 16, &size.to_le_bytes()));
        assert_eq!(offset as usize, chunk, "{words}");
        assert!(words.contains("unpacks to at most") && words.contains(&format!("says {size}")), "{words}");
    }
    // Names of four gigabytes, of a compression and of types.
    let (offset, words) = damage(&change(&whole, chunk + 9 + 28, &u32::MAX.to_le_bytes()));
    assert!(offset as usize == chunk && words.contains("a text in it is longer"), "{words}");
    let plain = loose(WriteOptions::new());
    for (kind, lengths) in [(op::SCHEMA, &[2_usize][..]), (op::CHANNEL, &[4, 4 + 4 + 5, 4 + 4 + 5 + 4 + 3][..])] {
        let (place, ..) = records(&plain).into_iter().find(|(_, found, _)| *found == kind).unwrap();
        for at in lengths {
            let (offset, words) = damage(&change(&plain, place + 9 + at, &u32::MAX.to_le_bytes()));
            assert_eq!(offset as usize, place, "{words}");
            assert!(words.contains("a text in it is longer"), "{words}");
        }
    }
    // A blank picture is a message like any other, however little it takes.
    let mut writer = super::Writer::new(Vec::new()).unwrap();
    let blank = Entry { data: vec![0; 50 << 20], ..entry(0) };
    writer.write(&blank).unwrap();
    let file = writer.finish().unwrap();
    assert!(file.len() < 100_000, "{}", file.len());
    let (told, found) = read(&file).unwrap();
    assert!(told.is_none() && found == [blank.data], "{told:?}");
}

#[test]
fn a_bag_that_counts_more_messages_than_its_files_have_is_told_by_topic() {
    let dir = tempfile::tempdir().unwrap();
    let topic = |name: &str, count: i64| {
        format!("    - topic_metadata:\n        name: {name}\n        type: x\n      message_count: {count}\n")
    };
    let text = format!(
        "rosbag2_bagfile_information:\n  storage_identifier: mcap\n  message_count: 19\n  topics_with_message_count:\n{}{}{}  \
         relative_file_paths:\n    - a.mcap\n    - b.mcap\n",
        topic("/even", 10),
        topic("/odd", 8),
        topic("/none", 1)
    );
    fs::write(dir.path().join("metadata.yaml"), text).unwrap();
    write(&dir.path().join("a.mcap"), 0..9);
    write(&dir.path().join("b.mcap"), 0..8);
    let bag = bag::open(dir.path()).unwrap();
    let mut read: BTreeMap<String, u64> = BTreeMap::new();
    for file in &bag.files {
        let damage = scan(file, |message| {
            *read.entry(message.channel.topic.clone()).or_default() += 1;
            Ok::<(), Error>(())
        });
        assert_eq!(damage.unwrap(), None);
    }
    let missing: Vec<String> = bag.missing(&read).iter().map(ToString::to_string).collect();
    let expected = [
        "counts 10 messages of /even, and 9 can be read".to_owned(),
        "counts 1 messages of /none, and 0 can be read".to_owned(),
    ];
    assert_eq!(missing, expected);
    assert!(bag.missing(&read).iter().all(|damage| damage.path().ends_with("metadata.yaml")));
}
