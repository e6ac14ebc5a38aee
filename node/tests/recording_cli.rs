//! `node record` and `node replay FILE` as a person meets them.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use camera::message::{CameraInfoMessage, ImageMessage, ImagePayload};
use camera::recording::{FileWriter, Writer};
use geometry::Stamp;
use node::config::Config;
use node::ros::message::Input;
use node::tools::recording::{Recording, entry_of_input};

mod common;
use common::{repository, tiny_weights};

const PERIOD: i64 = 100_000_000;

fn node(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_node"));
    command.args(args).current_dir(repository()).env_remove("RUST_LOG").env_remove("ROS_DOMAIN_ID");
    command
}

fn output(args: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = node(args).output().unwrap();
    let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert!(!stderr.contains("panicked"), "{stderr}");
    (status.code(), stdout, stderr)
}

/// Frames, each a ramp of grey, on the topics of the config that is shipped.
fn write(file: &Path, frames: i64) {
    let config = Config::load(&repository().join("config/node.toml"), &[]).unwrap();
    let mut writer = FileWriter::create(file).unwrap();
    for input in inputs(frames) {
        let heard = if let Input::Image(image) = &input { image.stamp } else { Stamp::default() };
        writer.write(&entry_of_input(&input, &config.topics, heard)).unwrap();
    }
    writer.finish().unwrap();
}

/// A CameraInfo, and the frames of a ramp.
fn inputs(frames: i64) -> Vec<Input> {
    let info = CameraInfoMessage {
        frame_id: "eye".to_owned(),
        width: 64,
        height: 48,
        k: [60.0, 0.0, 32.0, 0.0, 60.0, 24.0, 0.0, 0.0, 1.0],
        ..CameraInfoMessage::default()
    };
    let images = (0..frames).map(|i| {
        let payload = ImagePayload::Raw {
            width: 64,
            height: 48,
            encoding: "mono8".to_owned(),
            is_bigendian: false,
            step: 64,
            data: (0..64 * 48).map(|at| 20 * i as u8 + (at % 64) as u8).collect(),
        };
        Input::Image(ImageMessage { stamp: Stamp::from_nanos(i * PERIOD), frame_id: "eye".to_owned(), payload })
    });
    std::iter::once(Input::CameraInfo(info)).chain(images).collect()
}

#[test]
fn two_processes_play_a_recording_to_the_same_bytes_and_say_what_it_comes_to() {
    let dir = tempfile::tempdir().unwrap();
    let [weights, file, a, b] = ["w", "in.mcap", "a.mcap", "b.mcap"].map(|name| dir.path().join(name));
    tiny_weights(&weights);
    write(&file, 8);
    let key = format!("model.weights={}", weights.display());
    let rest = ["--set", &key, "--set", "window.hop=1", "--set", "odometry.source=model"];
    let [file_arg, a_arg, b_arg] = [&file, &a, &b].map(|path| path.to_str().unwrap());
    for out in [a_arg, b_arg] {
        let args = [&["replay", file_arg, "--out", out][..], &rest].concat();
        let (code, stdout, stderr) = output(&args);
        assert_eq!(code, Some(0), "{stderr}");
        for part in ["no ground truth; 4 windows answered", "parse 0.000", "frames_used 8", "written: "] {
            assert!(stdout.contains(part), "`{part}` is not in: {stdout}");
        }
    }
    assert!(std::fs::read(&a).unwrap() == std::fs::read(&b).unwrap(), "two replays differ");

    // Without --out, of a file that is cut, and of one that is too short.
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&a, &bytes[..bytes.len() - 100]).unwrap();
    let (code, stdout, stderr) = output(&[&["replay", a_arg][..], &rest].concat());
    assert_eq!(code, Some(0), "the index alone is gone: {stderr}");
    assert!(stdout.contains("not the file's own end") && stdout.contains("frames_used 8"), "{stdout}");
    std::fs::write(&a, &bytes[..200]).unwrap();
    let (code, stdout, stderr) = output(&[&["replay", a_arg][..], &rest].concat());
    assert_eq!(code, Some(1), "{stdout}");
    assert!(stderr.contains("a.mcap") && stderr.contains("cannot be read from byte"), "{stderr}");
    write(&b, 3);
    let (code, _, stderr) = output(&[&["replay", b_arg][..], &rest].concat());
    assert_eq!(code, Some(1));
    assert!(stderr.contains("/camera/image_raw: expected at least 5 images for a window, got 3"), "{stderr}");

    let (code, _, stderr) = output(&[&["replay", file_arg, "--out", file_arg][..], &rest].concat());
    assert_eq!(code, Some(1));
    assert!(stderr.contains("cannot replace the recording"), "{stderr}");
    assert_eq!(std::fs::read(&file).unwrap(), bytes);
    // Nor a file of a bag, of which the folder is named.
    let metadata = "rosbag2_bagfile_information:\n  relative_file_paths:\n    - in.mcap\n";
    std::fs::write(dir.path().join("metadata.yaml"), metadata).unwrap();
    let bag = dir.path().to_str().unwrap();
    let (code, _, stderr) = output(&[&["replay", bag, "--out", file_arg][..], &rest].concat());
    assert_eq!(code, Some(1));
    assert!(stderr.contains("cannot replace the recording"), "{stderr}");
    assert_eq!(std::fs::read(&file).unwrap(), bytes);
}

#[test]
fn a_chunk_that_became_something_else_is_told_with_the_images_that_are_left() {
    let dir = tempfile::tempdir().unwrap();
    let [weights, file, bag] = ["w", "in.mcap", "bag"].map(|name| dir.path().join(name));
    tiny_weights(&weights);
    // The CameraInfo and each image in a chunk of its own.
    let config = Config::load(&repository().join("config/node.toml"), &[]).unwrap();
    let mut writer = Writer::new(Vec::new()).unwrap();
    for (i, input) in (0..).zip(inputs(9)) {
        writer.write(&entry_of_input(&input, &config.topics, Stamp::from_nanos(i * PERIOD))).unwrap();
        writer.flush().unwrap();
    }
    let whole = writer.finish().unwrap();
    let summary = mcap::Summary::read(&whole).unwrap().unwrap();
    let mut chunks: Vec<u64> = summary.chunk_indexes.iter().map(|index| index.chunk_start_offset).collect();
    chunks.sort_unstable();
    let mut changed = whole.clone();
    changed[chunks[7] as usize] = mcap::records::op::MESSAGE_INDEX;
    std::fs::write(&file, &changed).unwrap();
    let key = format!("model.weights={}", weights.display());
    let rest = ["--set", &key, "--set", "window.hop=1", "--set", "odometry.source=model"];
    let (code, stdout, stderr) = output(&[&["replay", file.to_str().unwrap()][..], &rest].concat());
    assert_eq!(code, Some(0), "{stderr}");
    let told = format!("in.mcap: cannot be read from byte {} on: expected a chunk", chunks[7]);
    for part in [told.as_str(), "the 6 images that can be are played", "frames_used 6"] {
        assert!(stdout.contains(part), "`{part}` is not in: {stdout}");
    }
    // A bag whose list counts what its files do not have.
    std::fs::create_dir(&bag).unwrap();
    std::fs::write(bag.join("a.mcap"), &whole).unwrap();
    let list = format!(
        "rosbag2_bagfile_information:\n  relative_file_paths:\n    - a.mcap\n  topics_with_message_count:\n    - \
         topic_metadata:\n        name: {}\n      message_count: 20\n",
        config.topics.image
    );
    std::fs::write(bag.join("metadata.yaml"), list).unwrap();
    let (code, stdout, stderr) = output(&[&["replay", bag.to_str().unwrap()][..], &rest].concat());
    assert_eq!(code, Some(0), "{stderr}");
    let told = format!("metadata.yaml: counts 20 messages of {}, and 9 can be read", config.topics.image);
    assert!(stdout.contains(&told), "`{told}` is not in: {stdout}");
}

#[test]
fn a_replay_from_which_nothing_comes_fails_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let [weights, file, empty] = ["w", "in.mcap", "empty"].map(|name| dir.path().join(name));
    tiny_weights(&weights);
    std::fs::create_dir(&empty).unwrap();
    let key = format!("model.weights={}", weights.display());
    let replay =
        |input: &Path| output(&["replay", input.to_str().unwrap(), "--set", &key, "--set", "odometry.source=model"]);
    for (input, part) in [
        (dir.path().join("nowhere"), "nowhere: expected a file or folder, got a path at which there is nothing"),
        (empty, "empty: expected a folder with sequence.json or the folder of a rosbag2"),
    ] {
        let (code, _, stderr) = replay(&input);
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains(part), "`{part}` is not in: {stderr}");
    }

    // Images that are cut short, each of them.
    let config = Config::load(&repository().join("config/node.toml"), &[]).unwrap();
    let mut writer = FileWriter::create(&file).unwrap();
    for i in 0..6 {
        let (encoding, stamp) = ("mono8".to_owned(), Stamp::from_nanos(i * PERIOD));
        let payload =
            ImagePayload::Raw { width: 64, height: 48, encoding, is_bigendian: false, step: 64, data: vec![7; 10] };
        let image = Input::Image(ImageMessage { stamp, frame_id: "eye".to_owned(), payload });
        writer.write(&entry_of_input(&image, &config.topics, stamp)).unwrap();
    }
    writer.finish().unwrap();
    let (code, stdout, stderr) = replay(&file);
    assert_eq!(code, Some(1), "{stdout}");
    for part in ["/camera/image_raw: no pose came out of 6 images", "frames_dropped_decode 6", "= 3072 bytes, got 10"] {
        assert!(stderr.contains(part), "`{part}` is not in: {stderr}");
    }
}

#[test]
fn a_recording_replaces_no_file_and_ends_as_one_on_a_signal() {
    let dir = tempfile::tempdir().unwrap();
    let (weights, file) = (dir.path().join("w"), dir.path().join("out.mcap"));
    tiny_weights(&weights);
    let key = format!("model.weights={}", weights.display());
    let file_arg = file.to_str().unwrap();
    let args = ["record", "--out", file_arg, "--set", &key, "--set", "node.domain_id=78"];
    std::fs::write(&file, "precious").unwrap();
    let (code, _, stderr) = output(&args);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("out.mcap") && stderr.contains("replaces none"), "{stderr}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    std::fs::remove_file(&file).unwrap();

    let mut child =
        node(&args).args(["--set", "diagnostics.period_millis=100"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let ready = lines.by_ref().map_while(Result::ok).any(|line| line.contains("ready"));
    assert!(ready, "{:?}", child.wait());
    // Until a chunk is on the disk: a beginning is shorter.
    let begun = Instant::now();
    while std::fs::metadata(&file).unwrap().len() < 200 {
        assert!(begun.elapsed() < Duration::from_secs(20), "nothing is recorded");
        std::thread::sleep(Duration::from_millis(50));
    }
    let sent = Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status().unwrap();
    assert!(sent.success());
    let status = child.wait().unwrap();
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    assert!(rest.iter().any(|line| line.contains("recorded")), "{rest:?}");
    // The file is whole, but no camera spoke.
    assert_eq!(status.code(), Some(1), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("out.mcap: no image came on /camera/image_raw")), "{rest:?}");
    let recording = Recording::open(&file).unwrap();
    assert_eq!(recording.damage(), []);
    let summary = mcap::Summary::read(&std::fs::read(&file).unwrap()).unwrap().unwrap();
    assert!(summary.channels.values().any(|channel| channel.topic == "/diagnostics"));
}

#[test]
fn a_replay_that_cannot_look_for_signals_ends_within_two_seconds_and_its_file_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let [weights, file, out] = ["w", "in.mcap", "out.mcap"].map(|name| dir.path().join(name));
    tiny_weights(&weights);
    write(&file, 8);
    // It waits for room in a pipe that nobody reads.
    let (_reader, mut pipe) = std::io::pipe().unwrap();
    pipe.write_all(&[b'x'; 1 << 16]).unwrap();
    let key = format!("model.weights={}", weights.display());
    let [file, out_arg] = [&file, &out].map(|path| path.to_str().unwrap());
    let mut child = node(&["replay", file, "--out", out_arg, "--texts", "--set", &key, "--set", "window.hop=1"])
        .args(["--set", "odometry.source=model", "--set", "diagnostics.period_millis=100"])
        .stdout(pipe)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("answered")), "{:?}", child.wait());
    let begun = Instant::now();
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let status = child.wait().unwrap();
    let rest: Vec<String> = lines.collect();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}: {rest:?}", begun.elapsed());
    assert_eq!(status.code(), Some(1), "{rest:?}");
    assert!(rest.iter().any(|line| line == "node: stopped before the end of the sequence"), "{rest:?}");
    assert_eq!(Recording::open(&out).unwrap().damage(), []);
    let summary = mcap::Summary::read(&std::fs::read(&out).unwrap()).unwrap().unwrap();
    assert!(summary.channels.values().any(|channel| channel.topic == "/diagnostics"));
}

#[test]
fn weights_that_are_written_to_under_a_running_node_are_an_error_of_its_status() {
    let dir = tempfile::tempdir().unwrap();
    let (weights, file) = (dir.path().join("w"), dir.path().join("out.mcap"));
    tiny_weights(&weights);
    let key = format!("model.weights={}", weights.display());
    let args = ["record", "--out", file.to_str().unwrap(), "--set", &key, "--set", "node.domain_id=75"];
    let mut child = node(&args).args(["--set", "diagnostics.period_millis=50"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.by_ref().map_while(Result::ok).any(|line| line.contains("ready")), "{:?}", child.wait());
    let model = std::fs::File::options().append(true).open(weights.join("model.safetensors"));
    model.unwrap().write_all(&[0]).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    child.wait().unwrap();
    let mut told = 0;
    let words = b"model.safetensors: expected the ";
    camera::recording::scan::<camera::recording::Error>(&file, |message| {
        let is_told = message.data.windows(words.len()).any(|part| part == words);
        told += usize::from(message.channel.topic == "/diagnostics" && is_told);
        Ok(())
    })
    .unwrap();
    assert!(told > 0, "no report tells of it");
}
