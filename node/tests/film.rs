//! `node replay FILM`: with a program in ffmpeg's place that says what a test has prepared, and with ffmpeg itself where it is.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use camera::optics::UseFixed;
use camera::recording::scan;
use node::config::Config;
use node::ros::message::Input;
use node::ros::transport::Topics;
use node::tools::film::{self, Film, Lens, Taken};
use node::tools::page::Page;
use node::tools::recording::{Error, Recording};
use node::tools::report::Report;
use tempfile::TempDir;

/// Microseconds of a film whose rate is unsteady, as a phone's is.
const UNSTEADY: [i64; 12] =
    [0, 33_333, 66_667, 133_333, 166_667, 200_000, 300_000, 333_333, 366_667, 400_000, 466_667, 500_000];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn topics() -> Topics {
    Config::load(&repository().join("config/node.toml"), &[]).unwrap().topics.resolved().unwrap()
}

fn frame(index: usize) -> PathBuf {
    repository().join(format!("tests/data/amazon_box/frames/{index:06}.jpg"))
}

/// What ffmpeg says of pictures at these times, of 640 x 480 pixels.
fn words(micros: &[i64]) -> String {
    let mut words = "[info]   Duration: 00:00:00.53, start: 0.000000, bitrate: 803 kb/s\n".to_owned();
    for (n, pts) in micros.iter().enumerate() {
        let line = format!("n: {n:3} pts:{pts:7} pts_time:0 fmt:yuvj420p sar:1/1 s:640x480 i:P");
        writeln!(words, "[Parsed_showinfo_2 @ 0xcfbfe00] [info] {line}").unwrap();
    }
    words
}

/// What it writes of so many.
fn pictures(count: usize) -> Vec<u8> {
    let mut stream = b"--ffmpeg\r\n".to_vec();
    for index in 0..count {
        let jpeg = std::fs::read(frame(index)).unwrap();
        stream.extend(format!("Content-type: image/jpeg\r\nContent-length: {}\r\n\r\n", jpeg.len()).bytes());
        stream.extend(jpeg);
        stream.extend(b"\r\n--ffmpeg\r\n");
    }
    stream
}

/// A folder with a film that nothing but the stand-in reads.
struct Fake {
    dir: TempDir,
    status: i32,
}

impl Fake {
    fn new(words: &str, pictures: &[u8], status: i32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in [("words", words.as_bytes()), ("pictures", pictures), ("f.mp4", b"a film")] {
            std::fs::write(dir.path().join(name), bytes).unwrap();
        }
        Self { dir, status }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Exit status, standard output and standard error of a replay.
    fn replay(&self, input: &Path, arguments: &[&str], programs: &Path) -> (Option<i32>, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_node"));
        command.current_dir(repository()).env_remove("RUST_LOG").env("PATH", programs);
        command.env("FAKE_WORDS", self.path("words")).env("FAKE_PICTURES", self.path("pictures"));
        command.env("FAKE_STATUS", self.status.to_string());
        command.args(["replay", "--set", "model.weights=", "--set", "odometry.source=tracks", "--out"]);
        let output = command.arg(self.path("out")).arg(input).args(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        assert!(!stderr.contains("panicked"), "{stderr}");
        (output.status.code(), stdout, stderr)
    }
}

/// The folder of the stand-in.
fn stand_in() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/film")
}

fn page(file: &Path) -> Page {
    let html = std::fs::read_to_string(file).unwrap();
    let (_, rest) = html.split_once("<script id=\"data\" type=\"application/json\">").unwrap();
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

/// Nanoseconds of the images of a recording, and fx, width and height of its first camera.
fn images(file: &Path) -> (Vec<i64>, (f64, u32, u32)) {
    let (recording, topics) = (Recording::open(file).unwrap(), topics());
    let camera = recording.camera(&topics, UseFixed::Never).unwrap();
    let (mut stamps, mut infos) = (Vec::new(), Vec::new());
    camera
        .play(|heard, input| {
            match input.unwrap() {
                Input::Image(image) => {
                    assert_eq!(heard, image.stamp);
                    stamps.push(image.stamp.nanos);
                }
                Input::CameraInfo(info) => infos.push((info.k[0], info.width, info.height)),
                Input::Odometry(_) | Input::Followed(_) => {}
            }
            Ok::<(), Error>(())
        })
        .unwrap();
    (stamps, infos[0])
}

#[test]
fn a_film_becomes_a_recording_a_path_and_a_page_at_its_own_times() {
    let fake = Fake::new(&words(&UNSTEADY), &pictures(12), 0);
    let (code, stdout, stderr) = fake.replay(&fake.path("f.mp4"), &["--fov", "55"], &stand_in());
    assert_eq!(code, Some(0), "{stderr}");
    let out = fake.path("out");
    for part in ["written: ", "page: ", "no ground truth"] {
        assert!(stdout.contains(part), "`{part}` is not in: {stdout}");
    }
    let (stamps, (fx, width, height)) = images(&out.join("film.mcap"));
    assert_eq!(stamps, UNSTEADY.map(|micros| micros * 1000));
    assert!((fx - 320.0 / 27.5_f64.to_radians().tan()).abs() < 1e-9 && (width, height) == (640, 480), "{fx}");
    let (mut odometries, topic) = (Vec::new(), topics().odometry);
    scan(&out.join("film.mcap"), |message| {
        odometries.extend((message.channel.topic == topic).then_some(message.channel.is_own()));
        Ok::<(), Error>(())
    })
    .unwrap();
    assert_eq!(odometries, [true; 12], "what came out is in the same file, and is marked");
    let tum = std::fs::read_to_string(out.join("odometry.tum")).unwrap();
    let lines: Vec<&str> = tum.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines.len(), 12);
    let last: f64 = lines[11].split_whitespace().next().unwrap().parse().unwrap();
    assert!((last - 0.5).abs() < 1e-6, "{last}");

    let page = page(&out.join("page.html"));
    let report: Report = serde_json::from_str(&std::fs::read_to_string(out.join("report.json")).unwrap()).unwrap();
    assert_eq!(page.report, report, "the page's numbers are the report's");
    assert_eq!(page.report.odometry.as_ref().map(|film| (film.poses, film.frames)), Some((12, 12)));
    assert_eq!((page.poses.len(), page.moments.len(), page.title.as_str()), (12, 12, "f.mp4"));
    for (moment, micros) in page.moments.iter().zip(UNSTEADY) {
        assert!((moment.t - micros as f64 * 1e-6).abs() < 1e-9, "{} at {micros}", moment.t);
        assert!(moment.picture.is_some() && !moment.state.status.is_empty());
    }
    let picture = page.moments[11].picture.as_ref().unwrap();
    assert!(picture.tracks.len() > 20, "{}", picture.tracks.len());
    assert!(picture.tracks.iter().any(|[x, y, x_before, y_before]| (x, y) != (x_before, y_before)), "nothing moved");
    assert!(!out.join("film.images.mcap").exists(), "the first recording is not left behind");
}

#[test]
fn a_recording_has_a_page_too_and_a_lens_is_for_films_alone() {
    let fake = Fake::new(&words(&UNSTEADY), &pictures(12), 0);
    let (code, _, stderr) = fake.replay(&fake.path("f.mp4"), &["--intrinsics", "615,615,299,247"], &stand_in());
    assert_eq!(code, Some(0), "{stderr}");
    let film = fake.path("film.mcap");
    std::fs::rename(fake.path("out/film.mcap"), &film).unwrap();
    let first = page(&fake.path("out/page.html"));
    std::fs::remove_dir_all(fake.path("out")).unwrap();
    let again = fake.path("again.html");
    let (code, stdout, stderr) = fake.replay(&film, &["--report", again.to_str().unwrap()], &fake.path("nothing"));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("again.html"), "{stdout}");
    let again = page(&again);
    assert_eq!(again.poses, first.poses, "the film's recording is the film");
    assert_eq!(again.moments, first.moments);

    for input in [film, repository().join("tests/data/amazon_box")] {
        let (code, _, stderr) = fake.replay(&input, &["--fov", "60"], &stand_in());
        assert_eq!(code, Some(1));
        assert!(stderr.contains("expected a film for --fov and --intrinsics"), "{stderr}");
    }
}

#[test]
fn the_page_of_a_sequence_has_its_truth_and_the_numbers_of_its_report() {
    let fake = Fake::new("", &[], 0);
    let file = fake.path("page.html");
    let sequence = repository().join("tests/data/amazon_box");
    let (code, stdout, stderr) = fake.replay(&sequence, &["--report", file.to_str().unwrap()], &stand_in());
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("page.html"), "{stdout}");
    let bytes = std::fs::metadata(&file).unwrap().len();
    assert!(bytes < 5_000_000 / 300 * 50, "{bytes} bytes for 50 images");
    let page = page(&file);
    let report = std::fs::read_to_string(fake.path("out/report.json")).unwrap();
    assert_eq!(page.report, serde_json::from_str::<Report>(&report).unwrap());
    let film = page.report.odometry.as_ref().unwrap();
    assert_eq!((page.poses.len(), page.truth.len(), page.scale), (50, 50, film.scale));
    assert_eq!(page.unit, "m");
    // One scale apart, the two paths that are drawn are one.
    let scale = page.scale.unwrap();
    let (drawn, truth) = (page.poses[49].position.map(|value| value * scale), page.truth[49]);
    let (off, length) = (0..3).fold((0.0, 0.0), |(off, length): (f64, f64), axis| {
        (off.hypot(drawn[axis] - truth[axis]), length.hypot(truth[axis]))
    });
    assert!(off < 0.2 * length, "{off} of {length}");
}

#[test]
fn bad_films_are_named_and_leave_nothing_behind() {
    let (all, lens) = (words(&UNSTEADY), &["--fov", "55"][..]);
    let mut cut_picture = pictures(12);
    cut_picture.truncate(cut_picture.len() - 1000);
    let no_video = "[fatal] Stream map '' matches no streams.\n[error] Error parsing options\n";
    let hevc = "[fatal] Decoder (codec hevc) not found for input stream #0:0\n";
    let (short, untimed) = (words(&UNSTEADY[..3]), words(&UNSTEADY[..11]));
    /// What ffmpeg says, the pictures that it gives, its status; options; what is said of it.
    type Bad<'a> = (&'a str, Vec<u8>, i32, &'a [&'a str], &'a str);
    let rows: [Bad<'_>; 8] = [
        (&all, pictures(12), 0, &[], "expected --fov DEGREES"),
        (no_video, Vec::new(), 1, lens, "expected a film with a stream of pictures"),
        ("[in#0 @ 0x5] [error] moov atom not found\n", Vec::new(), 1, lens, "in its words: moov atom not found"),
        (hevc, Vec::new(), 1, lens, "Decoder (codec hevc) not found"),
        (&short, pictures(3), 0, lens, "expected at least 5 images for a window, got 3"),
        (&all, cut_picture, 1, lens, "f.mp4: ffmpeg: "),
        (&untimed, pictures(12), 0, lens, "a picture without a time"),
        (&all, pictures(12), 0, &["--intrinsics", "500,500,20,20"], "640 x 480 pixels: "),
    ];
    for (words, pictures, status, arguments, expected) in rows {
        let fake = Fake::new(words, &pictures, status);
        let (code, _, stderr) = fake.replay(&fake.path("f.mp4"), arguments, &stand_in());
        assert_eq!(code, Some(1), "{expected}: {stderr}");
        assert!(stderr.contains(expected) && stderr.contains("f.mp4"), "`{expected}` is not in: {stderr}");
        let left: Vec<_> = std::fs::read_dir(fake.path("out")).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "{expected}: {left:?}");
    }
    let fake = Fake::new(&all, &pictures(12), 0);
    let (code, _, stderr) = fake.replay(&fake.path("f.mp4"), lens, &fake.path("nothing"));
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("ffmpeg: not found on PATH") && stderr.contains("apt-get install ffmpeg"), "{stderr}");
    for arguments in [["--fov", "200"], ["--intrinsics", "1,2,3"]] {
        let (code, _, stderr) = fake.replay(&fake.path("f.mp4"), &arguments, &stand_in());
        assert_eq!(code, Some(2), "{arguments:?}: {stderr}");
    }
}

#[test]
fn of_a_film_that_is_cut_what_is_there_is_played_and_that_is_an_error() {
    let words = words(&UNSTEADY).replace("00:00:00.53", "00:00:02.00") + "[mp4 @ 0x5] [error] partial file\n";
    let fake = Fake::new(&words, &pictures(12), 0);
    let (code, stdout, stderr) = fake.replay(&fake.path("f.mp4"), &["--fov", "55"], &stand_in());
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stdout.contains("ffmpeg says \"partial file\""), "{stdout}");
    assert!(stderr.contains("expected pictures for 2.0 s, got the last at 0.5 s"), "{stderr}");
    assert_eq!(page(&fake.path("out/page.html")).poses.len(), 12);
}

/// Makes a film of the bundled frames; whether ffmpeg takes these words.
fn make(film: &Path, before: &[&str], input: &str, behind: &[&str]) -> bool {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-nostdin", "-y"]).args(before).args(["-i", input]).args(behind);
    command.arg(film).status().unwrap().success()
}

fn take(film: &Path, file: &Path) -> Result<Taken, film::Error> {
    let (topics, stop) = (topics(), AtomicBool::new(false));
    let film = Film { path: film, lens: Lens::Fov(55.0), topics: &topics, least: 5, stop: &stop };
    film::take(&film, file, &mut |_, share| assert!(share.is_none_or(|share| (0.0..=1.1).contains(&share))))
}

#[test]
#[ignore = "needs ffmpeg"]
fn ffmpeg_gives_a_film_s_own_times_turned_as_it_says_and_tells_of_bad_ones() {
    let dir = tempfile::tempdir().unwrap();
    let [unsteady, steady, turned, sound, cut, file] =
        ["unsteady.mkv", "steady.mp4", "turned.mp4", "sound.mkv", "cut.mp4", "out.mcap"]
            .map(|name| dir.path().join(name));
    let frames = repository().join("tests/data/amazon_box/frames/%06d.jpg");
    let frames = frames.to_str().unwrap();

    let filter = "setpts=(N+5*floor(N/10))/25/TB";
    let slow = ["-frames:v", "30", "-vf", filter, "-c:v", "mjpeg", "-q:v", "3"];
    assert!(make(&unsteady, &["-framerate", "25"], frames, &slow));
    let taken = take(&unsteady, &file).unwrap();
    assert_eq!((taken.images, taken.said, taken.cut), (30, None, None));
    let expected: Vec<i64> = (0..30).map(|n| (n + 5 * (n / 10)) * 40_000_000).collect();
    assert_eq!(images(&file).0, expected);

    let quick = ["-frames:v", "30", "-c:v", "mpeg4", "-q:v", "3", "-movflags", "+faststart"];
    assert!(make(&steady, &["-framerate", "30"], frames, &quick));
    take(&steady, &file).unwrap();
    let (stamps, camera) = images(&file);
    for (n, stamp) in (0..).zip(stamps) {
        assert!((stamp - n * 1_000_000_000 / 30).abs() < 2_000, "{n}: {stamp}");
    }
    assert_eq!((camera.1, camera.2), (640, 480));

    // Older versions say it in another way.
    let steady_name = steady.to_str().unwrap();
    let is_turned = make(&turned, &["-display_rotation", "90"], steady_name, &["-c", "copy"])
        || make(&turned, &[], steady_name, &["-c", "copy", "-metadata:s:v:0", "rotate=90"]);
    assert!(is_turned);
    take(&turned, &file).unwrap();
    let (fx, width, height) = images(&file).1;
    assert_eq!((width, height), (480, 640), "turned");
    assert!((fx - camera.0).abs() < 1e-9, "and the lens is the same: {fx}");

    assert!(make(&sound, &["-f", "lavfi"], "sine=d=1", &["-c:a", "pcm_s16le"]));
    assert!(matches!(take(&sound, &file), Err(film::Error::NoVideo { .. })));
    let whole = std::fs::read(&steady).unwrap();
    std::fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    let taken = take(&cut, &file).unwrap();
    assert!(taken.images < 20 && taken.said.is_some() && taken.cut.is_some(), "{taken:?}");
    std::fs::write(&cut, &whole[..40]).unwrap();
    assert!(matches!(take(&cut, &file), Err(film::Error::Unreadable { .. })));
}
