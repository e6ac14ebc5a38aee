//! Every layout of recordings: a synthetic film is written with the layout's own conventions, worked out here once
//! more, and must come back as it was. Golden numbers and broken files are tested beside the readers.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use camera::sequence;
use image::{ImageBuffer, Luma};
use nalgebra::{Matrix3, Matrix4, Rotation3, UnitQuaternion, Vector4};
use serde_json::json;
use training_data::formats::{Pictures, open, open_realestate};
use training_data::synth::{self, SynthSequence};
use training_data::{Clip, Error, PartSize, Sequence, Spacing, SplitConfig, WindowSource, parse_source, split};

/// Frames of the film.
const FRAMES: usize = 7;

fn film() -> SynthSequence {
    synth::sequence(3, 5, FRAMES, (64, 48))
}

/// Camera to world, optical axes.
fn camera_to_world(film: &SynthSequence, frame: usize) -> Matrix4<f64> {
    Matrix4::from_row_slice(&film.world_from_camera[frame].to_matrix_row_major())
}

fn world_to_camera(film: &SynthSequence, frame: usize) -> Matrix4<f64> {
    camera_to_world(film, frame).try_inverse().unwrap()
}

/// The quaternion of a matrix's rotation: x, y, z, w.
fn quaternion(matrix: &Matrix4<f64>) -> [f64; 4] {
    let rotation: Matrix3<f64> = matrix.fixed_view::<3, 3>(0, 0).into_owned();
    let q = UnitQuaternion::from_rotation_matrix(&Rotation3::from_matrix_unchecked(rotation));
    [q.i, q.j, q.k, q.w]
}

/// Rows of a matrix as text, the first `rows` of them.
fn rows(matrix: &Matrix4<f64>, rows: usize) -> String {
    let row = |r: usize| (0..4).map(|c| matrix[(r, c)].to_string()).collect::<Vec<_>>().join(" ");
    (0..rows).map(row).collect::<Vec<_>>().join("\n")
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn write_image(film: &SynthSequence, frame: usize, path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    film.images[frame].save(path).unwrap();
}

/// Depth in steps; 0, for none, where it is too far for them.
fn steps(film: &SynthSequence, frame: usize, per_metre: f32) -> Vec<u16> {
    let steps = film.depth[frame].iter().map(|metres| (metres * per_metre).round());
    steps.map(|step| if step > 65_535.0 { 0 } else { step as u16 }).collect()
}

/// Each value `times` times in both directions.
fn write_depth(steps: &[u16], times: u32, path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let value = |x: u32, y: u32| Luma([steps[(y / times * 64 + x / times) as usize]]);
    ImageBuffer::from_fn(64 * times, 48 * times, value).save(path).unwrap();
}

/// Frames `range` of the film, as they were; `per_metre` is what depth was rounded to, 0 for none.
fn check(sequence: &Sequence, film: &SynthSequence, range: std::ops::Range<usize>, per_metre: f32) {
    assert_eq!(sequence.frames(), range.len());
    let (k, expected) = (sequence.intrinsics(), &film.intrinsics);
    let pairs = [(k.fx, expected.fx), (k.fy, expected.fy), (k.cx, expected.cx), (k.cy, expected.cy)];
    assert!(pairs.iter().all(|(a, b)| (a - b).abs() < 1e-9), "{k:?}, not {expected:?}");
    assert_eq!((k.width, k.height), (64, 48));
    for (index, frame) in range.enumerate() {
        let (got, expected) = (sequence.world_from_camera(index).unwrap(), film.world_from_camera[frame]);
        assert!((got.translation() - expected.translation()).norm() < 1e-9, "frame {index}");
        assert!((got.rotation_matrix() - expected.rotation_matrix()).norm() < 1e-9, "frame {index}");
        assert_eq!(sequence.load_image(index).unwrap(), film.images[frame], "frame {index}");
        let depth = sequence.load_depth(index).unwrap();
        assert_eq!(depth.is_some(), per_metre > 0.0, "frame {index}");
        for (got, step) in depth.iter().flatten().zip(steps(film, frame, per_metre)) {
            assert!((got * per_metre - f32::from(step)).abs() < 0.02, "frame {index}");
        }
    }
}

/// `CLIP.txt` in one folder, pictures in another.
fn write_realestate(film: &SynthSequence, poses: &Path, clip: &str, video: &str) -> Vec<i64> {
    let k = &film.intrinsics;
    let mut text = format!("https://www.youtube.com/watch?v={video}\n");
    let times: Vec<i64> = (0..FRAMES as i64).map(|i| 158_692_025 + 266_933 * i).collect();
    for (frame, time) in times.iter().enumerate() {
        let matrix = rows(&world_to_camera(film, frame), 3).replace('\n', " ");
        // From the corner of the first pixel, in widths and heights.
        let (cx, cy) = ((k.cx + 0.5) / 64.0, (k.cy + 0.5) / 48.0);
        writeln!(text, "{time} {} {} {cx} {cy} 0.0 0.0 {matrix}", k.fx / 64.0, k.fy / 48.0).unwrap();
    }
    write(&poses.join(format!("{clip}.txt")), &text);
    times
}

#[test]
fn realestate_comes_back_from_frames() {
    let (film, directory) = (film(), tempfile::tempdir().unwrap());
    let (poses, frames) = (directory.path().join("poses"), directory.path().join("frames"));
    for (frame, time) in write_realestate(&film, &poses, "b", "QShWPZxTDoE").iter().enumerate() {
        write_image(&film, frame, &frames.join(format!("b/{time}.png")));
    }
    write_realestate(&film, &poses, "a", "_ca03xP_KUU");
    let opened = open_realestate(&poses, &Pictures::Frames(frames.clone())).unwrap();
    assert_eq!(opened.sequences.len(), 1);
    check(&opened.sequences[0], &film, 0..FRAMES, 0.0);
    assert!(opened.skipped[0].what.ends_with("a.txt") && opened.skipped[0].why.contains("folder of the clip's frames"));

    let source = parse_source(&format!("re10k:{},frames={},every=2", poses.display(), frames.display())).unwrap();
    assert_eq!((source.len(), source.skipped().len(), source.sources()), (2, 1, vec!["QShWPZxTDoE".to_owned()]));
    let sample = source.sample(1).unwrap();
    assert_eq!((sample.id.as_str(), sample.source.as_str(), sample.metric), ("b-s1-2", "QShWPZxTDoE", false));
    assert_eq!(sample.stamps[4].nanos, (158_692_025 + 266_933 * 6) * 1000);
    assert_eq!(sample.frames.unwrap()[0], frames.join(format!("b/{}.png", 158_692_025 + 266_933 * 2)));
    assert!(sample.depth.is_none() && sample.images[4] == film.images[6]);
    assert!(source.only(&["_ca03xP_KUU".to_owned()]).is_empty());
}

#[cfg(unix)]
#[test]
fn realestate_is_cut_from_videos_and_kept() {
    let (film, directory) = (film(), tempfile::tempdir().unwrap());
    let [poses, videos, cache] = ["poses", "videos", "cache"].map(|name| directory.path().join(name));
    let times = write_realestate(&film, &poses, "b", "QShWPZxTDoE");
    write_realestate(&film, &poses, "a", "_ca03xP_KUU");
    write(&videos.join("QShWPZxTDoE.webm"), "");
    let pictures = |frame: usize| videos.join(format!("QShWPZxTDoE.webm.frames/{frame}.jpg"));
    (0..FRAMES).for_each(|frame| write_image(&film, frame, &pictures(frame)));
    let text = format!("re10k:{},videos={},cache={}", poses.display(), videos.display(), cache.display());

    let missing = parse_source(&format!("{text},ffmpeg=/nowhere/ffmpeg")).unwrap_err();
    assert!(matches!(missing, Error::Program { .. }) && missing.to_string().contains("ffmpeg=PATH"), "{missing}");
    let fake = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/ffmpeg.sh");
    let text = format!("{text},ffmpeg={}", fake.display());
    let source = parse_source(&text).unwrap();
    assert!(source.skipped()[0].why.contains("_ca03xP_KUU.mp4, .mkv or .webm"), "{:?}", source.skipped());
    let sample = source.sample(2).unwrap();
    for (image, frame) in sample.images.iter().zip(2..) {
        assert_eq!(*image, image::open(pictures(frame)).unwrap().into_rgb8());
    }
    assert_eq!(sample.frames.unwrap()[4], cache.join(format!("b/{}.jpg", times[6])));
    assert_eq!(fs::read_dir(&cache).unwrap().count(), 1, "nothing half-done is left");

    // What is cut needs neither the program nor the video.
    fs::remove_dir_all(&videos).unwrap();
    assert_eq!(parse_source(&text.replace("ffmpeg.sh", "none.sh")).unwrap().len(), 3);

    // A video that ends early.
    fs::remove_file(poses.join("a.txt")).unwrap();
    fs::remove_dir_all(&cache).unwrap();
    write(&videos.join("QShWPZxTDoE.webm"), "");
    (0..4).for_each(|frame| write_image(&film, frame, &pictures(frame)));
    let short = parse_source(&text).unwrap_err();
    assert!(matches!(short, Error::Cut { expected: FRAMES, got: 4, .. }), "{short}");
    assert_eq!(fs::read_dir(&cache).unwrap().count(), 0);
}

#[test]
fn tum_comes_back() {
    let (film, directory) = (film(), tempfile::tempdir().unwrap());
    let (mut images, mut depths, mut poses) = (String::from("# images\n"), String::new(), String::from("# poses\n"));
    for frame in 0..FRAMES {
        writeln!(images, "1305031102.{frame}75304 rgb/{frame}.png").unwrap();
        writeln!(depths, "1305031102.{frame}60000 depth/{frame}.png").unwrap();
        let pose = camera_to_world(&film, frame);
        let [x, y, z, w] = quaternion(&pose);
        let t = pose.column(3);
        writeln!(poses, "1305031102.{frame}79 {} {} {} {x} {y} {z} {w}", t[0], t[1], t[2]).unwrap();
        write_image(&film, frame, &directory.path().join(format!("rgb/{frame}.png")));
        write_depth(&steps(&film, frame, 5000.0), 1, &directory.path().join(format!("depth/{frame}.png")));
    }
    let k = &film.intrinsics;
    write(&directory.path().join("calibration.txt"), &format!("{} {} {} {}\n", k.fx, k.fy, k.cx, k.cy));
    write(&directory.path().join("depth.txt"), &depths);
    write(&directory.path().join("groundtruth.txt"), &poses);
    write(&directory.path().join("rgb.txt"), &images);
    let opened = open(directory.path()).unwrap();
    check(&opened.sequences[0], &film, 0..FRAMES, 5000.0);
    assert!(opened.sequences[0].metric() && opened.skipped.is_empty());
    assert_eq!(opened.sequences[0].stamps()[2].nanos, 1_305_031_102_275_304_000);

    // An image with no pose near it is left out, and no window goes across.
    write(&directory.path().join("rgb.txt"), &images.replace("1305031102.275304", "1305031102.225"));
    let opened = open(directory.path()).unwrap();
    assert_eq!(opened.skipped[0].what.split_once(": ").unwrap().1, "1 of 7 frames");
    assert_eq!((opened.sequences[0].frames(), opened.sequences[0].windows(1).count()), (6, 0));
}

#[test]
fn scannet_comes_back_without_lost_frames() {
    let (film, directory) = (film(), tempfile::tempdir().unwrap());
    let place = |name: String| directory.path().join(name);
    for frame in 0..FRAMES {
        let pose = if frame == 5 { Matrix4::from_element(f64::NEG_INFINITY) } else { camera_to_world(&film, frame) };
        write(&place(format!("pose/{frame}.txt")), &rows(&pose, 4));
        write_image(&film, frame, &place(format!("color/{frame}.png")));
        write_depth(&steps(&film, frame, 1000.0), 2, &place(format!("depth/{frame}.png")));
    }
    let k = &film.intrinsics;
    let text = format!("{} 0 {} 0\n0 {} {} 0\n0 0 1 0\n0 0 0 1\n", k.fx, k.cx, k.fy, k.cy);
    write(&place("intrinsic/intrinsic_color.txt".to_owned()), &text);
    let mut sequence = open(directory.path()).unwrap().sequences.remove(0);
    assert_eq!((sequence.frames(), sequence.windows(1).collect::<Vec<_>>()), (6, vec![[0, 1, 2, 3, 4]]));
    assert!(sequence.frame(5).unwrap().gap_before && sequence.metric());
    write(&place("pose/5.txt".to_owned()), &rows(&camera_to_world(&film, 5), 4));
    sequence = open(directory.path()).unwrap().sequences.remove(0);
    check(&sequence, &film, 0..FRAMES, 1000.0);
    assert_eq!(sequence.windows(1).count(), 3);
}

#[test]
fn nerfstudio_comes_back_one_sequence_a_camera() {
    let (film, directory) = (film(), tempfile::tempdir().unwrap());
    let k = &film.intrinsics;
    let mut frames = Vec::new();
    // Numbers across 10, against their order, and the last two frames of another camera.
    for frame in (0..FRAMES).rev() {
        let optical_from_opengl = Matrix4::from_diagonal(&Vector4::new(1.0, -1.0, -1.0, 1.0));
        let matrix = camera_to_world(&film, frame) * optical_from_opengl;
        let rows: Vec<Vec<f64>> = (0..4).map(|r| (0..4).map(|c| matrix[(r, c)]).collect()).collect();
        let folder = if frame < 5 { "left" } else { "right" };
        write_image(&film, frame, &directory.path().join(format!("{folder}/r_{}.png", frame + 7)));
        write_depth(&steps(&film, frame, 500.0), 1, &directory.path().join(format!("depth/{frame}.png")));
        frames.push(json!({
            "file_path": format!("{folder}/r_{}.png", frame + 7), "transform_matrix": rows,
            "depth_file_path": format!("depth/{frame}.png"),
        }));
    }
    let text = json!({
        "camera_model": "OPENCV", "fl_x": k.fx, "fl_y": k.fy, "cx": k.cx + 0.5, "cy": k.cy + 0.5, "w": 64, "h": 48,
        "k1": 0.0, "p1": 0, "applied_transform": [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0]],
        "depth_unit_scale_factor": 0.002, "frames": frames,
    });
    write(&directory.path().join("transforms.json"), &text.to_string());
    let sequences = open(directory.path()).unwrap().sequences;
    assert_eq!(sequences.len(), 2);
    check(&sequences[0], &film, 0..5, 500.0);
    check(&sequences[1], &film, 5..FRAMES, 500.0);
    assert_eq!(sequences[0].source(), sequences[1].source());
    assert!(sequences[0].name().ends_with("-0") && sequences[1].name().ends_with("-1"));
}

#[test]
fn colmap_comes_back() {
    let (film, directory) = (film(), tempfile::tempdir().unwrap());
    let k = &film.intrinsics;
    let mut images = String::from("# Image list with two lines of data per image:\n");
    for frame in (0..FRAMES).rev() {
        let pose = world_to_camera(&film, frame);
        let [x, y, z, w] = quaternion(&pose);
        let t = pose.column(3);
        let name = format!("frame_{}.png", frame + 95);
        writeln!(images, "{} {w} {x} {y} {z} {} {} {} 1 {name}\n1.0 2.0 -1", frame + 1, t[0], t[1], t[2]).unwrap();
        write_image(&film, frame, &directory.path().join("dense/images").join(name));
    }
    let camera = format!("1 PINHOLE 64 48 {} {} {} {}\n", k.fx, k.fy, k.cx + 0.5, k.cy + 0.5);
    write(&directory.path().join("dense/sparse/cameras.txt"), &camera);
    write(&directory.path().join("dense/sparse/images.txt"), &images);
    // What it was undistorted from.
    write(&directory.path().join("sparse/0/cameras.txt"), "1 SIMPLE_RADIAL 64 48 50 32 24 0.1\n");
    for path in [directory.path().to_path_buf(), directory.path().join("dense")] {
        check(&open(&path).unwrap().sequences[0], &film, 0..FRAMES, 0.0);
    }
}

#[test]
fn a_folder_of_recordings_goes_without_the_bad_ones() {
    let (film, directory) = (film(), tempfile::tempdir().unwrap());
    let k = &film.intrinsics;
    for name in ["c", "a", "b"] {
        let folder = directory.path().join(name);
        (0..FRAMES).for_each(|frame| write_image(&film, frame, &folder.join(format!("frames/{frame:06}.png"))));
        let poses: Vec<_> = film.world_from_camera.iter().map(|pose| pose.to_matrix_row_major().to_vec()).collect();
        let text = json!({
            "name": if name == "a" { "film" } else { name }, "width": 64, "height": 48, "metric": true,
            "num_frames": if name == "b" { 8 } else { FRAMES }, "poses": poses,
            "intrinsics": {"fx": k.fx, "fy": k.fy, "cx": k.cx, "cy": k.cy},
            "pose_convention": "camera_to_world", "camera_axes": "opencv",
        });
        write(&folder.join("sequence.json"), &text.to_string());
    }
    write(&directory.path().join("README.md"), "a file that is no recording");
    fs::create_dir(directory.path().join("notes")).unwrap();
    let source = parse_source(&format!("{},stride=1", directory.path().display())).unwrap();
    let WindowSource::Recorded { sequences, spacing, .. } = &source else { panic!("not recorded") };
    assert_eq!((sequences.len(), *spacing, source.len()), (2, Spacing::Stride(1), 6));
    assert_eq!((sequences[0].name(), sequences[1].name()), ("film", "c"));
    let skipped: Vec<&str> = source.skipped().iter().map(|s| s.what.rsplit('/').next().unwrap()).collect();
    assert_eq!(skipped, ["b", "notes"]);
    assert!(source.skipped()[0].why.contains("8 with 7 poses"));

    // A split takes all of a source's windows or none.
    let config: SplitConfig = serde_json::from_value(json!({"split": [{"name": "x", "count": 1}]})).unwrap();
    assert_eq!(config.parts[0].size, PartSize::Count(1));
    let names = source.sources();
    let clips: Vec<Clip<'_>> = names.iter().map(|name| Clip { source: name, name, windows: 3 }).collect();
    let kept = split(&clips, &config, 0).unwrap()["x"].sources.clone();
    let part = source.only(&kept);
    let ids: BTreeSet<String> = (0..part.len()).map(|i| part.sample(i).unwrap().source).collect();
    assert_eq!((part.len(), ids.into_iter().collect::<Vec<_>>()), (3, kept));

    // One bad window is not the end of the others.
    fs::write(directory.path().join("a/frames/000000.png"), "no picture").unwrap();
    let source = parse_source(&directory.path().display().to_string()).unwrap();
    let bad = source.sample(0).unwrap_err().to_string();
    assert!(bad.contains("000000.png") && source.sample(1).is_ok(), "{bad}");
    for name in ["a", "c"] {
        fs::remove_file(directory.path().join(name).join("frames/000002.png")).unwrap();
    }
    let first = parse_source(&directory.path().display().to_string()).unwrap_err();
    assert!(
        matches!(first, Error::Sequence(sequence::Error::MissingFrame { index: 2, .. }))
            && first.to_string().contains("a/frames"),
        "{first}"
    );
}

/// The shared RealEstate10K files against the shared recordings of the same clips.
#[test]
#[ignore = "needs ../shared/data"]
fn shared_realestate_poses_are_those_of_the_recordings() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let (poses, relative) = (root.join("re10k_poses"), root.join("re10k_poses_relative"));
    // The recordings number their frames; the format calls them by their times.
    let directory = tempfile::tempdir().unwrap();
    let recording = |clip: &str| open(&root.join(format!("real/re10k_{clip}"))).unwrap().sequences.remove(0);
    let mut clips: Vec<PathBuf> = fs::read_dir(&poses).unwrap().map(|entry| entry.unwrap().path()).collect();
    clips.sort();
    for path in &clips {
        let clip = path.file_stem().unwrap().to_str().unwrap();
        let folder = directory.path().join(clip);
        fs::create_dir(&folder).unwrap();
        let recording = recording(clip);
        for index in 0..recording.frames() {
            let frame = recording.frame(index).unwrap();
            fs::copy(frame.image.file().unwrap(), folder.join(format!("{}.jpg", frame.stamp.nanos / 1000))).unwrap();
        }
    }
    let opened = open_realestate(&poses, &Pictures::Frames(directory.path().to_path_buf())).unwrap();
    assert_eq!((opened.sequences.len(), opened.skipped.len()), (clips.len(), 0), "{:?}", opened.skipped);
    for sequence in &opened.sequences {
        let recording = recording(sequence.name());
        assert_eq!((sequence.source(), sequence.stamps()), (recording.source(), recording.stamps()));
        for index in 0..recording.frames() {
            let (got, expected) =
                (sequence.world_from_camera(index).unwrap(), recording.world_from_camera(index).unwrap());
            assert!((got.translation() - expected.translation()).norm() < 1e-6, "{}: {index}", sequence.name());
            assert!((got.rotation_matrix() - expected.rotation_matrix()).norm() < 1e-6, "{}: {index}", sequence.name());
        }
        // The recordings took cx W as it was, from the corner: half a pixel more.
        let (k, other) = (sequence.intrinsics(), recording.intrinsics());
        assert!((k.fx - other.fx).abs() < 1e-6 && (k.fy - other.fy).abs() < 1e-6);
        assert!((k.cx + 0.5 - other.cx).abs() < 1e-6 && (k.cy + 0.5 - other.cy).abs() < 1e-6);
        assert_eq!(sequence.load_image(3).unwrap(), recording.load_image(3).unwrap());
    }
    let nowhere = Pictures::Frames(directory.path().to_path_buf());
    let other = open_realestate(&relative, &nowhere).unwrap_err();
    assert!(matches!(other, Error::Line { line: 1, .. }) && other.to_string().contains("18 columns"), "{other}");
}

/// Six recordings of four scenes, two windows each.
fn scenes(all: &Path) {
    for (scene, take) in [("a", 0), ("a", 1), ("b", 0), ("c", 0), ("d", 0), ("d", 1)] {
        let name = format!("{scene}{take}");
        let folder = all.join(&name);
        std::fs::create_dir_all(folder.join("frames")).unwrap();
        for i in 0..6 {
            image::RgbImage::new(16, 12).save(folder.join(format!("frames/{i:06}.png"))).unwrap();
        }
        let poses: Vec<_> = (0..6)
            .map(|i| vec![1.0, 0., 0., 0.1 * f64::from(i), 0., 1., 0., 0., 0., 0., 1., 0., 0., 0., 0., 1.])
            .collect();
        let json = serde_json::json!({
            "name": name, "scene": scene, "width": 16, "height": 12, "metric": true, "num_frames": 6, "timestamps": null,
            "intrinsics": {"fx": 12, "fy": 12, "cx": 7.5, "cy": 5.5}, "pose_convention": "camera_to_world",
            "camera_axes": "opencv", "poses": poses,
        });
        std::fs::write(folder.join("sequence.json"), json.to_string()).unwrap();
    }
}

/// The stage `split` and the key `part`: a part in windows reads these alone, as many as were asked for, under any spacing that
/// has them; another is refused.
#[test]
fn a_part_in_windows_has_those_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let (data, out, config) = (dir.path().join("all"), dir.path().join("split.json"), dir.path().join("split.toml"));
    scenes(&data);
    let parts = "seed = 3\n[[split]]\nname = \"test\"\nwindows = 2\nper_source = 1\n\
                 [[split]]\nname = \"train\"\nwindows = 3\nclips = 2\nper_clip = 2\n";
    fs::write(&config, parts).unwrap();
    let lines = training_data::stage::split::run(data.to_str().unwrap(), &config, &out).unwrap();
    assert!(lines.contains("test: 2 sources, 2 sequences, 12 frames, 2 of their windows"), "{lines}");
    assert!(lines.contains("2 sequences, 12 frames, 3 of their windows"), "{lines}");
    let file: training_data::SplitFile = training_data::json::read(&out).unwrap();
    let samples = |keys: &str, part: &str| {
        let source = parse_source(&format!("{}{keys},part={}:{part}", data.display(), out.display()))?;
        (0..source.len()).map(|i| source.sample(i)).collect::<Result<Vec<_>, Error>>()
    };
    let mut sources = BTreeSet::new();
    for (part, windows) in [("test", 2), ("train", 3)] {
        let read = samples("", part).unwrap();
        let ids: BTreeSet<String> = read.iter().map(|sample| sample.id.clone()).collect();
        assert_eq!((read.len(), ids.len()), (windows, windows), "{part}");
        let listed: BTreeSet<String> = file.parts[part].windows.iter().flatten().cloned().collect();
        assert_eq!(ids, listed, "{part}");
        let own: BTreeSet<String> = read.into_iter().map(|sample| sample.source).collect();
        assert!(sources.is_disjoint(&own), "{part}: a scene in two parts");
        sources.extend(own);
    }
    // Of a recording that gives both its windows there is one alone.
    let other = samples(",every=2", "train").unwrap_err().to_string();
    assert!(other.contains("every window that the part lists") && other.contains("of 3 of"), "{other}");
    // As many as are not there.
    fs::write(&config, parts.replace("windows = 3\nclips = 2", "windows = 9\nclips = 4")).unwrap();
    let few = format!("{:#}", training_data::stage::split::run(data.to_str().unwrap(), &config, &out).unwrap_err());
    assert!(few.contains("train") && few.contains("expected"), "{few}");
}

/// The same of whole sources: no video is in two parts, and each part reads its own windows alone.
#[test]
fn parts_of_a_split_share_no_video() {
    let dir = tempfile::tempdir().unwrap();
    scenes(&dir.path().join("all"));
    let config = dir.path().join("split.toml");
    std::fs::write(
        &config,
        "seed = 3\n[[split]]\nname = \"test\"\ncount = 1\n[[split]]\nname = \"train\"\nshare = 1.0\n",
    )
    .unwrap();
    let (data, out) = (dir.path().join("all"), dir.path().join("split.json"));
    let lines = training_data::stage::split::run(data.to_str().unwrap(), &config, &out).unwrap();
    let file: training_data::SplitFile = training_data::json::read(&out).unwrap();
    assert_eq!((file.stage.as_str(), file.parts["train"].frames + file.parts["test"].frames), ("split", 36));
    assert!(file.parts["train"].sequences.iter().all(|sequence| sequence.sha256.len() == 64));
    assert!(lines.contains("test: 1 sources") && lines.contains("train: 3 sources"), "{lines}");
    let windows = |part: &str| {
        let source = parse_source(&format!("{},part={}:{part}", data.display(), out.display())).unwrap();
        (0..source.len()).map(|i| source.sample(i).unwrap().source).collect::<Vec<_>>()
    };
    let (test, train) = (windows("test"), windows("train"));
    assert_eq!(test.len() + train.len(), 12, "two windows a sequence, none lost");
    let set = |all: &[String]| all.iter().cloned().collect::<BTreeSet<_>>();
    assert!(set(&test).is_disjoint(&set(&train)));
    assert_eq!((set(&test).len(), set(&train).len()), (1, 3));
    let missing = parse_source(&format!("{},part={}:nothing", data.display(), out.display())).unwrap_err().to_string();
    assert!(missing.contains("nothing") && missing.contains("a part that the stage split wrote"), "{missing}");
}
