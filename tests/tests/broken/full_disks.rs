//! A disk that is full, and has room again: errors name the file, nothing that is half written has its final name, and what
//! was begun is gone on with.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use camera::message::{CameraInfoMessage, ImageMessage, ImagePayload};
use camera::recording::{Entry, Error, FileWriter, scan};
use geometry::Stamp;
use node::config::Config;
use node::ros::message::Input;
use node::ros::transport::{Ends, Topics};
use node::supervision::Watch;
use node::tools::recording::{Recorder, entry_of_input};
use tests::root;

use crate::common::tiny_weights;
use crate::disk::{Disk, PAGE, on_small_disk};
use crate::files::{assert_same, assert_whole_or_absent, size};
use crate::programs::{end, node, run, run_config, succeed, training};
use crate::rounds::{Draw, rounds};

/// What the system says.
const FULL: &str = "No space left on device";
/// Of what would fill the disk exactly: the most that there is.
const MOST: f64 = 0.9;
const PERIOD: i64 = 100_000_000;
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs out of room at some place or other, and then has enough of it.
fn assert_recovers(disk: &Disk, undisturbed: &Path, short: u64, command: &dyn Fn(&Path) -> Command) {
    let out = disk.path().join("out");
    rounds(short, |round| {
        let room = MOST * Draw::new(round).share() * size(undisturbed) as f64;
        disk.empty(room as u64);
        let (succeeded, said) = end(&mut command(&out));
        let what = format!("round {round}, room for {room:.0} bytes");
        assert!(!succeeded, "{what}: {said}");
        assert!(said.contains(FULL) && said.contains(out.to_str().unwrap()), "{what}: no file is named: {said}");
        assert_whole_or_absent(undisturbed, &out, &what);
        disk.grow();
        succeed(&mut command(&out));
        assert_same(undisturbed, &out, &what);
    });
}

#[test]
#[ignore = "needs the programs of cargo xtask"]
fn a_run_names_the_file_and_goes_on_when_there_is_room() {
    on_small_disk("full_disks::a_run_names_the_file_and_goes_on_when_there_is_room", |disk| {
        let dir = tempfile::tempdir().unwrap();
        let config = run_config(&dir.path().join("run.toml"), 2, None);
        let undisturbed = dir.path().join("undisturbed");
        succeed(&mut run(&config, &undisturbed));
        assert_recovers(disk, &undisturbed, 3, &|out| run(&config, out));
    });
}

#[test]
#[ignore = "needs the programs of cargo xtask"]
fn an_export_names_the_file_and_leaves_none_that_is_half_written() {
    on_small_disk("full_disks::an_export_names_the_file_and_leaves_none_that_is_half_written", |disk| {
        let dir = tempfile::tempdir().unwrap();
        for format in ["gguf", "safetensors"] {
            let export = |out: &Path| {
                let mut command = training(&["export", "--format", format, "--type", "f16", "--weights"]);
                command.arg(root().join("model/weights/nano")).arg("--out").arg(out);
                command
            };
            let undisturbed = dir.path().join(format);
            succeed(&mut export(&undisturbed));
            assert_recovers(disk, &undisturbed, 2, &export);
        }
    });
}

/// An image of noise, so that nothing packs it.
fn image(number: i64, (width, height): (u32, u32)) -> Input {
    let data = Draw::new(number as u64).bytes((width * height) as usize);
    let encoding = "mono8".to_owned();
    let payload = ImagePayload::Raw { width, height, encoding, is_bigendian: false, step: width, data };
    let stamp = Stamp::from_nanos((number + 1) * PERIOD);
    Input::Image(ImageMessage { stamp, frame_id: "eye".to_owned(), payload })
}

fn topics() -> Topics {
    Config::load(&root().join("config/node.toml"), &[]).unwrap().topics.resolved().unwrap()
}

/// A drive of eight images.
fn drive(file: &Path) {
    let topics = topics();
    let mut writer = FileWriter::create(file).unwrap();
    let info = CameraInfoMessage {
        frame_id: "eye".to_owned(),
        width: 64,
        height: 48,
        k: [60.0, 0.0, 32.0, 0.0, 60.0, 24.0, 0.0, 0.0, 1.0],
        ..CameraInfoMessage::default()
    };
    writer.write(&entry_of_input(&Input::CameraInfo(info), &topics, Stamp::from_nanos(PERIOD))).unwrap();
    for number in 0..8 {
        let stamp = Stamp::from_nanos((number + 1) * PERIOD);
        writer.write(&entry_of_input(&image(number, (64, 48)), &topics, stamp)).unwrap();
    }
    writer.finish().unwrap();
}

#[test]
#[ignore = "needs the programs of cargo xtask"]
fn a_replay_leaves_what_was_there_before_and_a_recording_nothing() {
    on_small_disk("full_disks::a_replay_leaves_what_was_there_before_and_a_recording_nothing", |disk| {
        let dir = tempfile::tempdir().unwrap();
        let [weights, film, undisturbed] = ["w", "in.mcap", "undisturbed.mcap"].map(|name| dir.path().join(name));
        tiny_weights(&weights);
        drive(&film);
        let weights = format!("model.weights={}", weights.display());
        let replay = |out: &Path| {
            let mut command = node(&["replay", "--set", &weights, "--set", "window.hop=1"]);
            command.args(["--set", "odometry.source=model"]).arg(&film).arg("--out").arg(out);
            command
        };
        succeed(&mut replay(&undisturbed));
        let [out, recording] = ["out.mcap", "recording.mcap"].map(|name| disk.path().join(name));
        disk.empty(2 * PAGE);
        std::fs::write(&out, "precious").unwrap();
        disk.fill();
        let mut record = node(&["record", "--set", &weights, "--out"]);
        for (command, file) in [(&mut replay(&out), &out), (record.arg(&recording), &recording)] {
            let (succeeded, said) = end(command);
            assert!(!succeeded && said.contains(FULL) && said.contains(file.to_str().unwrap()), "{said}");
        }
        assert_eq!(std::fs::read_to_string(&out).unwrap(), "precious");
        assert!(!recording.exists(), "a file that says nothing would keep the next recording from its name");
        disk.empty(1 << 20);
        succeed(&mut replay(&out));
        assert_eq!(std::fs::read(&out).unwrap(), std::fs::read(&undisturbed).unwrap());
    });
}

/// Images that are four in a chunk and three in a mebibyte.
const LARGE: (u32, u32) = (1280, 960);

/// Records eight large images to the end.
fn record(file: &Path) -> Result<u64, Error> {
    let mut recorder = Recorder::create(file, &topics())?;
    let (_, output) = crossbeam::channel::bounded(1);
    let stop = Arc::new(AtomicBool::new(false));
    let watch = Watch::new(Arc::clone(&stop));
    let ends = Ends { input: Box::new(|_| {}), call: Box::new(|_| {}), graph: Box::new(|_| {}), output, stop, watch };
    let tapped = recorder.tap(ends).unwrap();
    (0..8).for_each(|number| (tapped.input)(image(number, LARGE)));
    drop(tapped);
    recorder.finish(PATIENCE).map(|recorded| recorded.written)
}

#[test]
fn a_recorder_keeps_what_was_written_and_says_what_was_not() {
    on_small_disk("full_disks::a_recorder_keeps_what_was_written_and_says_what_was_not", |disk| {
        let [full, next] = ["full.mcap", "next.mcap"].map(|name| disk.path().join(name));
        // More than a chunk, less than all.
        disk.empty(7 << 20);
        let error = record(&full).unwrap_err();
        assert!(error.to_string().contains("full.mcap") && error.to_string().contains(FULL), "{error}");
        let Error::Write { written, lost, .. } = error else { panic!("{error}") };
        assert!((1..8).contains(&written) && written + lost == 8, "{written} and {lost}");
        let mut kept = 0;
        let damage = scan(&full, |message| {
            let stamp = Stamp::from_nanos(0);
            let Entry { data, .. } = entry_of_input(&image(kept, LARGE), &topics(), stamp);
            assert!(message.data == data, "image {kept}");
            kept += 1;
            Ok::<(), Error>(())
        });
        assert!(damage.unwrap().is_some(), "the end is missing");
        assert_eq!(kept as u64, written);
        disk.grow();
        assert_eq!(record(&next).unwrap(), 8);
    });
}
