use super::super::{Error, Spacing, WindowSource, parse_source};
use super::Sequence;
use crate::synth;
use camera::sequence as files;
use image::RgbImage;
use serde_json::{Value, json};
use std::path::Path;

/// A written synthetic film of seven frames; `change` may spoil the JSON.
pub(in super::super) fn written(directory: &Path, change: impl FnOnce(&mut Value)) -> synth::SynthSequence {
    let film = synth::sequence(3, 5, 7, (64, 48));
    std::fs::create_dir_all(directory.join("frames")).unwrap();
    std::fs::create_dir_all(directory.join("depth")).unwrap();
    for (i, image) in film.images.iter().enumerate() {
        let extension = if i % 2 == 0 { "png" } else { "jpg" };
        image.save(directory.join(format!("frames/{i:06}.{extension}"))).unwrap();
        let steps = film.depth[i].iter().map(|d| (d * 1000.0).round() as u16).collect();
        let steps: image::ImageBuffer<image::Luma<u16>, Vec<u16>> =
            image::ImageBuffer::from_raw(64, 48, steps).unwrap();
        steps.save(directory.join(format!("depth/{i:06}.png"))).unwrap();
    }
    let k = film.intrinsics;
    let poses: Vec<_> = film.world_from_camera.iter().map(|pose| pose.to_matrix_row_major().to_vec()).collect();
    let mut text = json!({
        "name": "film", "width": 64, "height": 48, "metric": true, "num_frames": 7, "timestamps": null,
        "intrinsics": {"fx": k.fx, "fy": k.fy, "cx": k.cx, "cy": k.cy},
        "pose_convention": "camera_to_world", "camera_axes": "opencv (x right, y down, z forward)",
        "notes": "a field that nobody reads", "poses": poses,
    });
    change(&mut text);
    std::fs::write(directory.join("sequence.json"), text.to_string()).unwrap();
    film
}

fn error_of(change: impl FnOnce(&mut Value)) -> String {
    let directory = tempfile::tempdir().unwrap();
    written(directory.path(), change);
    let error = Sequence::open(directory.path()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("sequence.json"), "{text}");
    text
}

#[test]
fn what_was_written_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let film = written(directory.path(), |_| ());
    let sequence = Sequence::open(directory.path()).unwrap();
    assert_eq!((sequence.frames(), sequence.name(), sequence.metric()), (7, "film", true));
    assert_eq!(sequence.stamps()[3].nanos, 300_000_000);
    assert_eq!(sequence.load_image(2).unwrap(), film.images[2]);
    for i in 0..7 {
        let (got, expected) = (sequence.world_from_camera(i).unwrap(), film.world_from_camera[i]);
        assert!((got.translation() - expected.translation()).norm() < 1e-12);
        assert!(got.rotation().angle_to(&expected.rotation()) < 1e-9);
    }
    let depth = sequence.load_depth(4).unwrap().unwrap();
    assert!(depth.iter().zip(&film.depth[4]).all(|(a, b)| (a - b).abs() <= 5.1e-4));
    assert_eq!(sequence.windows(1).collect::<Vec<_>>(), [[0, 1, 2, 3, 4], [1, 2, 3, 4, 5], [2, 3, 4, 5, 6]]);
    assert_eq!(sequence.windows(2).count() + sequence.windows(0).count(), 0);
    assert!(matches!(sequence.load_image(7), Err(Error::Index { expected: 7, got: 7, .. })));

    let source = parse_source(&format!("{},every=2", directory.path().display())).unwrap();
    let sample = source.sample(1).unwrap();
    assert_eq!((source.len(), sample.id.as_str(), sample.frame_indices), (2, "film-s1-2", [2, 3, 4, 5, 6]));
    let anchored = film.world_from_camera[2].inverse() * film.world_from_camera[6];
    let moved = sample.ground_truth.anchor_from_camera()[4].translation() - anchored.translation();
    assert!(moved.norm() < 1e-9 && sample.depth.is_some() && sample.median_depth.is_some());
    assert_eq!((sample.source.as_str(), sample.stamps[1].nanos), ("film", 300_000_000));
    assert!(sample.frames.unwrap()[1].ends_with("frames/000003.jpg"));
}

/// Files of a sensor of twelve bits, the first of them darker than ten: each in the range so far, as on the robot.
#[test]
fn pngs_of_twelve_bits_are_stretched_by_what_came_before() {
    let directory = tempfile::tempdir().unwrap();
    written(directory.path(), |_| ());
    let pattern = |x: u32, y: u32| ((x * 4 + y) % 256) as u16;
    for (frame, factor) in [(0, 4), (2, 16), (4, 4)] {
        let pixel = |x, y| image::Luma([pattern(x, y) * factor]);
        let image = image::ImageBuffer::<image::Luma<u16>, Vec<u16>>::from_fn(64, 48, pixel);
        image.save(directory.path().join(format!("frames/{frame:06}.png"))).unwrap();
    }
    let source = parse_source(&directory.path().display().to_string()).unwrap();
    let WindowSource::Recorded { sequences, .. } = &source else { panic!("not recorded") };
    for (frame, divisor) in [(0, 1), (2, 1), (4, 4)] {
        let image = sequences[0].load_image(frame).unwrap();
        let wanted = (pattern(63, 3) / divisor) as u8;
        assert_eq!(image.get_pixel(63, 3).0, [wanted; 3], "frame {frame}");
    }
}

/// Width and height of another image than the matrix is of.
#[test]
fn a_camera_that_is_hard_to_believe_is_named() {
    let directory = tempfile::tempdir().unwrap();
    written(directory.path(), |_| ());
    assert_eq!(Sequence::open(directory.path()).unwrap().doubts(), Vec::<String>::new());
    written(directory.path(), |text| text["intrinsics"]["cx"] = json!(18.0));
    let doubts = Sequence::open(directory.path()).unwrap().doubts();
    assert!(
        doubts.len() == 1 && doubts[0].contains("camera principal point: expected one at 0.3 to 0.7"),
        "{doubts:?}"
    );
    assert!(doubts[0].contains("got (18.0, ") && doubts[0].contains("of 64 x 48 pixels"), "{doubts:?}");
}

#[test]
fn what_a_split_must_not_cut_is_the_scene_or_the_video_or_the_name() {
    for (scene, url, expected) in [
        (None, None, "film"),
        (None, Some("https://www.youtube.com/watch?v=a-Un_comk5k&t=3"), "a-Un_comk5k"),
        (None, Some("https://example.org/film"), "film"),
        (Some("kitchen"), Some("https://youtu.be/a-Un_comk5k"), "kitchen"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        written(directory.path(), |json| {
            json["scene"] = json!(scene);
            json["url"] = json!(url);
        });
        assert_eq!(Sequence::open(directory.path()).unwrap().source(), expected);
    }
}

#[test]
fn timestamps_are_taken_and_checked() {
    let directory = tempfile::tempdir().unwrap();
    written(directory.path(), |json| json["timestamps"] = json!([1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0]));
    assert_eq!(Sequence::open(directory.path()).unwrap().stamps()[1].nanos, 1_500_000_000);
    assert!(error_of(|json| json["timestamps"] = json!([1.0, 1.0, 2.0, 2.5, 3.0, 3.5, 4.0])).contains("timestamps"));
    assert!(error_of(|json| json["timestamps"] = json!([1.0])).contains("1 times"));
}

#[test]
fn bad_poses_name_the_file_and_the_frame() {
    let not_a_rotation = error_of(|json| json["poses"][3][0] = json!(1.7));
    assert!(not_a_rotation.contains("frame 3"), "{not_a_rotation}");
    let null = error_of(|json| json["poses"][2][7] = Value::Null);
    assert!(null.contains("frame 2") && null.contains("NaN"), "{null}");
    let short = error_of(|json| json["poses"][5] = json!([1.0, 0.0]));
    assert!(short.contains("2 in pose 5"), "{short}");
    let count = error_of(|json| json["num_frames"] = json!(8));
    assert!(count.contains("8 with 7 poses"), "{count}");
    assert!(error_of(|json| json["intrinsics"]["fx"] = json!(0.0)).contains("fx"));
    assert!(error_of(|json| json["pose_convention"] = json!("world_to_camera")).contains("expected camera_to_world"));
    assert!(error_of(|json| json["metric"] = json!("yes")).contains("boolean"));
}

#[test]
fn a_nan_as_python_writes_it_is_found() {
    let directory = tempfile::tempdir().unwrap();
    written(directory.path(), |json| json["poses"][6][3] = json!("HERE"));
    let path = directory.path().join("sequence.json");
    let text = std::fs::read_to_string(&path).unwrap().replace("\"HERE\"", "NaN");
    std::fs::write(&path, text).unwrap();
    let error = Sequence::open(directory.path()).unwrap_err();
    assert!(matches!(error, Error::Sequence(files::Error::Pose { index: 6, .. })), "{error}");
}

#[test]
fn bad_images_name_the_file_and_the_frame() {
    let directory = tempfile::tempdir().unwrap();
    written(directory.path(), |_| ());
    let frames = directory.path().join("frames");
    for name in ["000001.jpg", "000002.png"] {
        let bytes = std::fs::read(frames.join(name)).unwrap();
        std::fs::write(frames.join(name), &bytes[..bytes.len() * 2 / 3]).unwrap();
    }
    RgbImage::new(10, 10).save(frames.join("000004.png")).unwrap();
    let sequence = Sequence::open(directory.path()).unwrap();
    for (index, name) in [(1, "000001.jpg"), (2, "000002.png"), (4, "000004.png")] {
        let text = sequence.load_image(index).unwrap_err().to_string();
        assert!(text.contains(name) && text.contains(&format!("frame {index}")), "{text}");
    }
    std::fs::remove_file(frames.join("000003.jpg")).unwrap();
    assert!(matches!(
        Sequence::open(directory.path()),
        Err(Error::Sequence(files::Error::MissingFrame { index: 3, .. }))
    ));
}

#[test]
fn sources_parse_or_say_what_is_wrong() {
    let source = parse_source("synth:seed=9001,windows=500").unwrap();
    assert!(matches!(source, WindowSource::Synth { seed: 9001, windows: 500, size: (320, 240), .. }));
    let sample = parse_source("synth:seed=1,windows=2,size=64x48").unwrap().sample(1).unwrap();
    assert_eq!((sample.id.as_str(), sample.images[0].dimensions(), sample.metric), ("synth-1-1", (64, 48), true));
    let sample = parse_source("synth:seed=1,windows=2,size=64x48,stratum=dark").unwrap().sample(1).unwrap();
    assert_eq!((sample.id.as_str(), sample.source.as_str()), ("synth-dark-1-1", "synth-1"));
    assert!(matches!(source.sample(500), Err(Error::Index { expected: 500, got: 500, .. })));
    for (spec, part) in [
        ("synth:seed=x,windows=5", "seed"),
        ("synth:seed=1", "windows=N"),
        ("synth:seed=1,windows=0", "windows=N"),
        ("synth:seed=1,windows=2,size=4x4", "WIDTHxHEIGHT"),
        ("synth:seed=1,windows=2,speed=3", "speed=3"),
        ("synth:seed=1,windows=2,stratum=foggy", "a stratum: blur, dark, noise"),
        ("synth:seed=1,films=2,frames=9", "films=N and frames=N are for films"),
        ("/nowhere/at/all", "/nowhere/at/all"),
        ("/nowhere,stride=0", "above 0"),
    ] {
        let text = parse_source(spec).unwrap_err().to_string();
        assert!(text.contains(part), "{spec}: {text}");
    }
}

/// The shared recordings.
#[test]
#[ignore = "needs ../shared/data"]
fn shared_sequences_open() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/real");
    let source = WindowSource::recorded(&root, Spacing::Stride(1), 1).unwrap();
    let WindowSource::Recorded { sequences, .. } = &source else { panic!("not recorded") };
    assert!(sequences.len() >= 2 && source.len() > 100);
    let sample = source.sample(0).unwrap();
    assert_eq!(sample.images[0].width(), sample.intrinsics.width);
}
