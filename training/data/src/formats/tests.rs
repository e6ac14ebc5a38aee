//! Golden poses and cameras in each layout's own words, derived by hand, and files that are wrong.
//!
//! All golden files tell of one camera. It stands at (1, 2, 3) of the world and looks along the world's +x with its y
//! axis down the world's +y; right-handed, so its x axis is y cross z = (0, 1, 0) x (1, 0, 0) = (0, 0, -1). The axes
//! are the columns of the rotation of camera to world. Its image has 64 x 48 pixels, focal lengths 32 and 36, and its
//! principal point in the very middle: (31.5, 23.5) from the centre of the first pixel, (32, 24) from the corner.

use super::{Opened, Pictures, natural, open, open_all, open_realestate};
use crate::{Error, Sequence};
use image::RgbImage;
use std::path::Path;
use tempfile::TempDir;

const WORLD_FROM_CAMERA: [f64; 16] = [0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 2.0, -1.0, 0.0, 0.0, 3.0, 0.0, 0.0, 0.0, 1.0];
const CAMERA: [f64; 4] = [32.0, 36.0, 31.5, 23.5];

/// A folder with these files; the text of a `.png` is its size.
fn written(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        if name.ends_with(".png") {
            let (width, height) = text.split_once('x').unwrap_or(("64", "48"));
            RgbImage::new(width.parse().unwrap(), height.parse().unwrap()).save(path).unwrap();
        } else {
            std::fs::write(path, text).unwrap();
        }
    }
    directory
}

fn check_golden(sequence: &Sequence, camera: [f64; 4]) {
    let near = |got: &[f64], expected: &[f64]| got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12);
    let got = sequence.world_from_camera(0).unwrap().to_matrix_row_major();
    assert!(near(&got, &WORLD_FROM_CAMERA), "{got:?}");
    let k = sequence.intrinsics();
    assert!(near(&[k.fx, k.fy, k.cx, k.cy], &camera), "{k:?}");
    assert_eq!((k.width, k.height), (64, 48));
    assert_eq!(sequence.load_image(0).unwrap().dimensions(), (64, 48));
}

#[track_caller]
fn check_error(result: Result<Opened, Error>, parts: &[&str]) {
    let text = result.unwrap_err().to_string();
    assert!(parts.iter().all(|part| text.contains(part)), "{text}: lacks one of {parts:?}");
}

/// The files, one of them with other text.
fn spoiled<'a>(files: &[(&'a str, &'a str)], name: &'a str, text: &'a str) -> TempDir {
    let mut files: Vec<_> = files.iter().copied().filter(|(file, _)| *file != name).collect();
    files.push((name, text));
    written(&files)
}

const TAIL: &str = "0 0 -1 3 0 1 0 -2 1 0 0 -1";

fn realestate(text: &str) -> Result<Opened, Error> {
    let directory =
        written(&[("poses/clip.txt", text), ("frames/clip/1000000.png", ""), ("frames/clip/2000000.png", "")]);
    let opened = open_realestate(&directory.path().join("poses"), &Pictures::Frames(directory.path().join("frames")));
    if let Ok(opened) = &opened {
        check_golden(&opened.sequences[0], CAMERA);
    }
    opened
}

#[test]
fn realestate_golden() {
    // World to camera is [R^T | -R^T c]: the axes are its rows, and -R^T c = -(-3, 2, 1) = (3, -2, -1).
    // 0.5 x 64 = 32, 0.75 x 48 = 36; the middle is 0.5 x 64 - 0.5 = 31.5.
    let text = format!("https://www.youtube.com/watch?v=QShWPZxTDoE\n1000000 0.5 0.75 0.5 0.5 0 0 {TAIL}\n");
    let opened = realestate(&text).unwrap();
    let sequence = &opened.sequences[0];
    assert_eq!((sequence.name(), sequence.source(), sequence.metric()), ("clip", "QShWPZxTDoE", false));
    assert_eq!((sequence.frames(), sequence.stamps()[0].nanos), (1, 1_000_000_000));
    assert!(opened.skipped.is_empty() && sequence.load_depth(0).unwrap().is_none());
}

#[test]
fn realestate_says_what_is_wrong_and_where() {
    let address = "https://www.youtube.com/watch?v=QShWPZxTDoE";
    let good = format!("0.5 0.75 0.5 0.5 0 0 {TAIL}");
    for (text, parts) in [
        (format!("{good}\n{good}\n"), ["clip.txt:1", "18 columns"]),
        (format!("{address}\n{good}\n"), ["clip.txt:2", "18 columns"]),
        (format!("{address}\n1000000 0.5 0.75 0.5 0.5 0 0 1.7 {}\n", &TAIL[2..]), ["clip.txt:2", "rigid"]),
        (format!("{address}\n1000000 0.5 0.75 0.5 0.5 0 0 nan {}\n", &TAIL[2..]), ["clip.txt:2", "NaN"]),
        (format!("{address}\n\n1000000 0.5 0.75 0.5 0.5 0.1 0 {TAIL}\n"), ["clip.txt:3", "undistort"]),
        (format!("{address}\n1000000 {good}\n2000000 0.6 0.75 0.5 0.5 0 0 {TAIL}\n"), ["clip.txt:3", "one camera"]),
        (format!("{address}\n1000000 {good}\n1000000 {good}\n"), ["clip.txt:3", "later time"]),
        (format!("{address}\n1.5 {good}\n"), ["clip.txt:2", "microseconds"]),
        (format!("{address}\n1000000 0,5 0.75 0.5 0.5 0 0 {TAIL}\n"), ["clip.txt:2", "0,5"]),
        (format!("{address}\n"), ["clip.txt:2", "end of the file"]),
        (format!("a film\n1000000 {good}\n"), ["clip.txt:1", "YouTube"]),
        (format!("{address}\n3000000 {good}\n"), ["clip.txt", "3000000.jpg"]),
        (String::new(), ["clip.txt:1", "YouTube"]),
    ] {
        check_error(realestate(&text), &parts);
    }
    let two = realestate(&format!("{address}\n1000000 {good}\n1500000 {good}\n2000000 {good}\n")).unwrap();
    let sequence = &two.sequences[0];
    assert_eq!((sequence.frames(), sequence.frame(1).unwrap().gap_before), (2, true));
    assert_eq!(two.skipped[0].what, "clip: 1 of 3 frames");
    let text = format!("{address}\n1000000 {good}\n");
    let directory = written(&[("poses/clip.txt", text.as_str()), ("poses/notes.md", "")]);
    let nowhere = Pictures::Frames(directory.path().join("frames"));
    check_error(open_realestate(&directory.path().join("poses"), &nowhere), &["clip", "folder of the clip's frames"]);
    check_error(open_realestate(&directory.path().join("none.txt"), &nowhere), &["none.txt"]);
}

const COLMAP: [(&str, &str); 3] = [
    ("sparse/0/cameras.txt", "# CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]\n7 PINHOLE 64 48 32 36 32 24\n"),
    // World to camera has the axes as rows: [[0, 0, -1], [0, 1, 0], [1, 0, 0]], a turn of -90 degrees about y, whose
    // quaternion is (cos 45, 0, -sin 45, 0), scalar first; the translation is (3, -2, -1) as above.
    (
        "sparse/0/images.txt",
        "# two lines an image\n3 0.7071067811865476 0 -0.7071067811865476 0 3 -2 -1 7 left wall.png\n1.5 2.5 -1\n",
    ),
    ("images/left wall.png", ""),
];

#[test]
fn colmap_golden() {
    let directory = written(&COLMAP);
    let sequence = open(directory.path()).unwrap().sequences.remove(0);
    check_golden(&sequence, CAMERA);
    assert!(!sequence.metric() && sequence.source() == sequence.name());
    let simple = spoiled(&COLMAP, "sparse/0/cameras.txt", "7 SIMPLE_PINHOLE 64 48 40 32 24\n");
    check_golden(&open(simple.path()).unwrap().sequences[0], [40.0, 40.0, 31.5, 23.5]);
}

#[test]
fn colmap_says_what_is_wrong_and_where() {
    let (cameras, images) = ("sparse/0/cameras.txt", "sparse/0/images.txt");
    let line = "3 0.7071067811865476 0 -0.7071067811865476 0 3 -2 -1 7 left wall.png";
    let twice = format!("{line}\n{line}\n");
    for (name, text, parts) in [
        (cameras, "7 OPENCV 64 48 32 36 32 24 0.1 0 0 0\n", ["cameras.txt:1", "image_undistorter"]),
        (cameras, "#\n7 PINHOLE 64 48 32 32 24\n", ["cameras.txt:2", "3 columns behind"]),
        (cameras, "7 PINHOLE 64 48 0 36 32 24\n", ["cameras.txt:1", "fx"]),
        (cameras, "7 PINHOLE\n", ["cameras.txt:1", "2 columns"]),
        (cameras, "8 PINHOLE 64 48 32 36 32 24\n", ["images.txt:2", "id of a camera"]),
        (images, "3 0.7 0 -0.7 0 3 -2 -1 7\n", ["images.txt:1", "9 columns"]),
        (images, "3 0.5 0 -0.5 0 3 -2 -1 7 left wall.png\n\n", ["images.txt:1", "norm"]),
        (images, "3 nan 0 -0.7 0 3 -2 -1 7 left wall.png\n\n", ["images.txt:1", "NaN"]),
        (images, twice.as_str(), ["images.txt:2", "2-D points"]),
        (images, "3 1 0 0 0 3 -2 -1 7 right wall.png\n\n", ["frame 0", "right wall.png"]),
        (images, "# none\n", ["images.txt", "at least one image"]),
    ] {
        check_error(open(spoiled(&COLMAP, name, text).path()), &parts);
    }
    check_error(open(written(&[("sparse/0/cameras.bin", "")]).path()), &["model_converter"]);
}

/// OpenGL's camera looks along its -z with y up: against the columns above, the second and third change their sign.
const MATRIX: &str = "[[0, 0, -1, 1], [0, -1, 0, 2], [-1, 0, 0, 3], [0, 0, 0, 1]]";

fn transforms(camera: &str, frame: &str) -> String {
    format!("{{{camera} \"frames\": [{{\"file_path\": \"./images/a.png\", {frame}}}]}}")
}

fn nerfstudio(camera: &str, frame: &str) -> TempDir {
    written(&[("transforms.json", &transforms(camera, frame)), ("images/a.png", "")])
}

#[test]
fn nerfstudio_golden() {
    let camera =
        r#""fl_x": 32, "fl_y": 36.0, "cx": 32.0, "cy": 24, "w": 64, "h": 48.0, "k1": 0, "applied_scale": 0.5,"#;
    let matrix = format!("\"transform_matrix\": {MATRIX}");
    let directory = nerfstudio(camera, &matrix);
    check_golden(&open(directory.path()).unwrap().sequences[0], CAMERA);
    // At the frame, over what stands at the top.
    let own = nerfstudio(r#""fl_x": 99, "w": 64, "h": 48,"#, &format!("\"fl_x\": 32, \"fl_y\": 36, {matrix}"));
    check_golden(&open(own.path()).unwrap().sequences[0], CAMERA);
    // instant-ngp: 90 degrees over 64 pixels are 32 / tan 45 = 32; sizes from the image, extensions left out, 3 rows.
    let angle = std::f64::consts::FRAC_PI_2;
    let text = transforms(&format!("\"camera_angle_x\": {angle},"), &matrix.replace(", [0, 0, 0, 1]]", "]"));
    let blender = written(&[("transforms.json", &text.replace("a.png", "a")), ("images/a.png", "")]);
    check_golden(&open(blender.path()).unwrap().sequences[0], [32.0, 32.0, 31.5, 23.5]);
}

#[test]
fn nerfstudio_says_what_is_wrong_and_where() {
    let camera = r#""fl_x": 32, "fl_y": 36, "w": 64, "h": 48,"#;
    let matrix = format!("\"transform_matrix\": {MATRIX}");
    for (camera, frame, parts) in [
        (r#""w": 64, "h": 48,"#, matrix.clone(), ["transforms.json: fl_x", "camera_angle_x"]),
        (camera, matrix.replace("-1, 1]", "-1.7, 1]"), ["frame 0", "R^T R"]),
        (camera, matrix.replace("-1, 1]", "NaN, 1]"), ["frame 0", "NaN"]),
        (camera, matrix.replace("[0, -1, 0, 2]", "[0, -1, 0]"), ["15 numbers in 4 rows", "frame 0"]),
        (camera, format!("\"k1\": 0.02, {matrix}"), ["k1", "undistort"]),
        (camera, format!("\"p2\": \"x\", {matrix}"), ["p2", "a number"]),
        (camera, format!("\"camera_model\": \"OPENCV_FISHEYE\", {matrix}"), ["camera_model", "undistort"]),
        (camera, format!("\"depth_unit_scale_factor\": 0, {matrix}"), ["depth_unit_scale_factor", "above 0"]),
        (camera, format!("\"h\": 48.5, {matrix}"), ["h: expected", "48.5"]),
        (camera, format!("\"cx\": 1000, {matrix}"), ["transforms.json", "cx"]),
        (camera, "\"no\": 0".to_owned(), ["transforms.json", "transform_matrix"]),
    ] {
        check_error(open(nerfstudio(camera, &frame).path()), &parts);
    }
    let text = transforms(camera, &matrix);
    check_error(open(written(&[("transforms.json", &text)]).path()), &["frame 0", "a.png"]);
    let small = written(&[("transforms.json", &text), ("images/a.png", "32x24")]);
    let error = open(small.path()).unwrap().sequences[0].load_image(0).unwrap_err().to_string();
    assert!(error.contains("a.png") && error.contains("64 x 48") && error.contains("32 x 24"), "{error}");
}

/// A `transforms.json` of 640 x 480 with a frame for each of these focal lengths, and its images.
fn focal_lengths(lengths: &[f64]) -> TempDir {
    let matrix: serde_json::Value = serde_json::from_str(MATRIX).unwrap();
    let name = |index: usize| format!("images/{index}.png");
    let frames: Vec<_> = lengths
        .iter()
        .enumerate()
        .map(|(i, f)| serde_json::json!({"file_path": name(i), "fl_x": f, "fl_y": f, "transform_matrix": matrix}))
        .collect();
    let text = serde_json::json!({"w": 640, "h": 480, "cx": 320, "cy": 240, "frames": frames}).to_string();
    let images: Vec<String> = (0..lengths.len()).map(name).collect();
    let mut files: Vec<(&str, &str)> = images.iter().map(|image| (image.as_str(), "")).collect();
    files.push(("transforms.json", &text));
    written(&files)
}

#[test]
fn nerfstudio_frames_whose_cameras_are_as_good_as_one_make_windows() {
    let lengths: Vec<f64> = (0..15).map(|i| 614.8 + 0.8 * f64::from(i) / 14.0).collect();
    let opened = open(focal_lengths(&lengths).path()).unwrap();
    let [sequence] = opened.sequences.as_slice() else { panic!("{} sequences", opened.sequences.len()) };
    let k = sequence.intrinsics();
    assert!((k.fx - 615.2).abs() + (k.fy - 615.2).abs() + (k.cx - 319.5).abs() < 1e-9, "{k:?}");
    assert_eq!((sequence.frames(), sequence.windows(1).count()), (15, 11));
    // Half of 640 pixels, 0.4 of 615.2 away.
    assert!(opened.skipped[0].why.starts_with("15 that differ by at most 0.21 px"), "{:?}", opened.skipped);
    // A pixel at the edge of 640, and a bit more: 320 (f / 615.2 - 1) = 1 where f is 617.12.
    let apart = |off: f64| focal_lengths(&[615.2 - off, 615.2 + off, 615.2 - off, 615.2 + off, 615.2]);
    assert_eq!(open(apart(1.9).path()).unwrap().sequences[0].frames(), 5);
    check_error(open(apart(1.95).path()), &["transforms.json: cameras", "3 cameras for 5 frames, up to 1.0 px"]);
}

#[test]
fn cameras_that_differ_are_counted_where_none_has_frames_for_a_window() {
    let zoom: Vec<f64> = (0..15).map(|i| 600.0 + 5.0 * f64::from(i)).collect();
    check_error(open(focal_lengths(&zoom).path()), &["transforms.json: cameras", "15 cameras for 15 frames", "1/640"]);
    // Those of a rig, which are near one another too.
    let rig: Vec<f64> = (0..10).map(|i| if i % 2 == 0 { 614.8 } else { 615.6 }).collect();
    let opened = open(focal_lengths(&rig).path()).unwrap();
    let frames: Vec<usize> = opened.sequences.iter().map(Sequence::frames).collect();
    assert_eq!((frames, opened.skipped.len()), (vec![5, 5], 0));
    // One camera that has enough, and a few frames of others.
    let mixed = [600.0, 600.0, 600.0, 600.0, 600.0, 700.0, 800.0];
    let opened = open(focal_lengths(&mixed).path()).unwrap();
    assert_eq!((opened.sequences[0].frames(), opened.sequences[0].windows(1).count()), (5, 1));
    assert!(opened.skipped[0].what.ends_with("2 of 7 frames"), "{:?}", opened.skipped);
    assert_eq!(opened.skipped[0].why, "2 cameras have fewer than 5 frames each");

    let camera = |i: usize, f: f64| format!("{i} PINHOLE 64 48 {f} {f} 32 24\n");
    let model = |step: f64| {
        let cameras: String = (0..5).map(|i| camera(i, 32.0 + step * i as f64)).collect();
        let images: String = (0..5).map(|i| format!("{i} 1 0 0 0 {i} 0 0 {i} {i}.png\n\n")).collect();
        let names: Vec<String> = (0..5).map(|i| format!("images/{i}.png")).collect();
        let mut files = vec![("sparse/0/cameras.txt", cameras.as_str()), ("sparse/0/images.txt", images.as_str())];
        files.extend(names.iter().map(|name| (name.as_str(), "")));
        written(&files)
    };
    let sequences = open(model(0.01).path()).unwrap().sequences;
    assert!(sequences.len() == 1 && (sequences[0].intrinsics().fx - 32.02).abs() < 1e-9);
    check_error(open(model(1.0).path()), &["cameras.txt: cameras", "5 cameras for 5 frames"]);
}

#[test]
fn nerfstudio_keys_that_change_what_a_ray_or_a_depth_is_are_not_read_over() {
    let camera = r#""fl_x": 32, "fl_y": 36, "w": 64, "h": 48,"#;
    let matrix = format!("\"transform_matrix\": {MATRIX}");
    let depth = r#""depth_file_path": "depth/a.png""#;
    for (common, frame, parts) in [
        ("", r#""k5": 0.1"#, ["k5: expected 0", "undistort"]),
        (
            r#""distortion_params": [0.1, 0, 0, 0],"#,
            r#""colmap_im_id": 1"#,
            ["distortion_params: expected none", "0.1"],
        ),
        (r#""from_mitsuba": true,"#, r#""colmap_im_id": 1"#, ["from_mitsuba: expected none", "true"]),
        (r#""rolling_shutter": [0, 0, 0.03, 0],"#, r#""colmap_im_id": 1"#, ["rolling_shutter: expected none", "0.03"]),
        (r#""is_fisheye": 1,"#, r#""colmap_im_id": 1"#, ["is_fisheye: expected false", "got 1"]),
        (r#""camera_angle_x": 0.8,"#, r#""colmap_im_id": 1"#, ["camera_angle_x: expected the angle of fl_x", "75.7"]),
        (r#""applied_scale": -1,"#, r#""colmap_im_id": 1"#, ["applied_scale: expected a number above 0", "-1"]),
        (r#""integer_depth_scale": 0.001,"#, depth, ["integer_depth_scale", "depth_unit_scale_factor"]),
        // The camera of an image of twice the size, and one in shares of the width.
        ("", r#""cx": 60, "cy": 45"#, ["transforms.json: intrinsics: cx", "another size"]),
        ("", r#""fl_x": 0.5, "fl_y": 0.5"#, ["transforms.json: intrinsics: fx", "other units"]),
    ] {
        let frame = format!("{frame}, {matrix}");
        check_error(open(nerfstudio(&format!("{camera} {common}"), &frame).path()), &parts);
    }
    let common = format!(
        "{camera} \"aabb_scale\": 16, \"applied_transform\": [[1, 0, 0, 0]], \"orientation_override\": \"none\", \
         \"rolling_shutter\": [0, 0, 0], \"ply_file_path\": \"a.ply\", \"k5\": 0, \"fps\": 30,"
    );
    let frame = format!("\"mask_path\": \"m.png\", \"depth_path\": \"d.png\", \"sharpness\": 9.5, {matrix}");
    let directory = nerfstudio(&common, &frame);
    let opened = open(directory.path()).unwrap();
    check_golden(&opened.sequences[0], CAMERA);
    let told: Vec<&str> = opened.skipped.iter().map(|s| s.what.split_once(": ").unwrap().1).collect();
    assert_eq!(told, ["mask_path of transforms.json", "depth_path, fps of transforms.json"]);
    // Poses were scaled by 0.5, so a step of 2 mm is one of 1 mm of theirs.
    let common = format!("{camera} \"applied_scale\": 0.5, \"depth_unit_scale_factor\": 0.002,");
    let opened = open(nerfstudio(&common, &format!("{depth}, {matrix}")).path()).unwrap();
    let step = opened.sequences[0].frame(0).unwrap().depth.as_ref().unwrap().units_per_step;
    assert!((step - 0.001).abs() < 1e-9, "{step}");
}

const TUM: [(&str, &str); 4] = [
    ("rgb.txt", "# timestamp filename\n1305031102.175304 rgb/a.png\n"),
    // Camera to world is a turn of +90 degrees about y: (0, sin 45, 0, cos 45), scalar last.
    ("groundtruth.txt", "# t\n1305031102.1758 1 2 3 0 0.7071067811865476 0 0.7071067811865476\n"),
    ("calibration.txt", "# fx fy cx cy\n32 36 31.5 23.5\n"),
    ("rgb/a.png", ""),
];

#[test]
fn tum_golden() {
    let directory = written(&TUM);
    let sequence = open(directory.path()).unwrap().sequences.remove(0);
    check_golden(&sequence, CAMERA);
    assert_eq!((sequence.metric(), sequence.stamps()[0].nanos), (true, 1_305_031_102_175_304_000));
}

#[test]
fn tum_has_the_published_cameras() {
    for (name, fx, cy, notes) in [("freiburg1_desk", 517.3, 255.3, 1), ("freiburg3_long_office", 535.4, 247.6, 0)] {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join(format!("rgbd_dataset_{name}"));
        let parts = written(&[TUM[0], TUM[1], ("rgb/a.png", "640x480")]);
        std::fs::rename(parts.path(), &folder).unwrap();
        let opened = open(&folder).unwrap();
        let k = opened.sequences[0].intrinsics();
        assert!((k.fx - fx).abs() + (k.cy - cy).abs() < 1e-12 && k.width == 640);
        assert_eq!(opened.skipped.len(), notes, "{:?}", opened.skipped);
        RgbImage::new(64, 48).save(folder.join("rgb/a.png")).unwrap();
        check_error(open(&folder), &["calibration.txt", "64 x 48"]);
    }
}

#[test]
fn tum_says_what_is_wrong_and_where() {
    for (name, text, parts) in [
        ("rgb.txt", "# t\n1305031102,175304 rgb/a.png\n", ["rgb.txt:2", "timestamp"]),
        ("rgb.txt", "1305031102.175304 rgb/b.png\n", ["frame 0", "rgb/b.png"]),
        ("rgb.txt", "1305031102.196 rgb/a.png\n", ["groundtruth.txt", "20 ms"]),
        ("groundtruth.txt", "\n1305031102.1758 1 2 3 0 0.5 0 0.5\n", ["groundtruth.txt:2", "norm"]),
        ("groundtruth.txt", "1305031102.1758 1 2 3 0 nan 0 0.5\n", ["groundtruth.txt:1", "NaN"]),
        ("groundtruth.txt", "1305031102.1758 1 2 3\n", ["groundtruth.txt:1", "4 words"]),
        ("calibration.txt", "32 36 31.5 23.5 0.1\n", ["calibration.txt:1", "5 columns"]),
        ("calibration.txt", "#\n525 525 319.5 239.5\n", ["calibration.txt", "cx"]),
        ("calibration.txt", "320 360 64 48\n", ["calibration.txt", "another size"]),
    ] {
        check_error(open(spoiled(&TUM, name, text).path()), &parts);
    }
    check_error(open(written(&TUM[..2]).path()), &["rgb/a.png"]);
    check_error(open(written(&[TUM[0], TUM[3]]).path()), &["groundtruth.txt"]);
    check_error(open(written(&[TUM[0], TUM[1], TUM[3]]).path()), &["calibration.txt", "freiburg1"]);
}

const SCANNET: [(&str, &str); 5] = [
    ("intrinsic/intrinsic_color.txt", "32 0 31.5 0\n0 36 23.5 0\n0 0 1 0\n0 0 0 1\n"),
    ("pose/7.txt", "0 0 1 1\n0 1 0 2\n-1 0 0 3\n0 0 0 1\n"),
    ("color/7.png", ""),
    ("pose/10.txt", "-inf -inf -inf -inf\n-inf -inf -inf -inf\n-inf -inf -inf -inf\n-inf -inf -inf -inf\n"),
    ("color/10.png", ""),
];

#[test]
fn scannet_golden() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("scene0042_01");
    std::fs::rename(written(&SCANNET).path(), &folder).unwrap();
    let opened = open(&folder).unwrap();
    let sequence = &opened.sequences[0];
    check_golden(sequence, CAMERA);
    assert_eq!((sequence.name(), sequence.source(), sequence.frames()), ("scene0042_01", "scene0042", 1));
    assert_eq!((sequence.metric(), sequence.stamps()[0].nanos), (true, 233_333_333));
    assert_eq!(opened.skipped[0].what, "scene0042_01: 1 of 2 frames");
}

#[test]
fn scannet_says_what_is_wrong_and_where() {
    let k = "intrinsic/intrinsic_color.txt";
    for (name, text, parts) in [
        ("pose/7.txt", "0 0 1 1 0 1 0 2 -1 0 0 3 0 0 0", ["pose/7.txt:1", "15 words"]),
        ("pose/7.txt", "0 0 1.7 1 0 1 0 2 -1 0 0 3 0 0 0 1", ["7.txt: pose of frame 7", "R^T R"]),
        ("pose/7.txt", "0 0 1 1 0 1 0 2 -1 0 0 3 0 0 1 1", ["pose of frame 7", "last row"]),
        ("pose/7.txt", SCANNET[3].1, ["color", "finite pose"]),
        (k, "320 0 315 0 0 360 235 0 0 0 1 0 0 0 0 1", ["intrinsic_color.txt", "cx"]),
        (k, "64 0 63.5 0 0 72 47.5 0 0 0 1 0 0 0 0 1", ["intrinsic_color.txt", "another size"]),
        (k, "32 1 31.5 0 0 36 23.5 0 0 0 1 0 0 0 0 1", ["intrinsic_color.txt:1", "skew"]),
    ] {
        check_error(open(spoiled(&SCANNET, name, text).path()), &parts);
    }
    check_error(open(written(&[SCANNET[0], SCANNET[2], ("pose/8.txt", "")]).path()), &["pose/7.txt"]);
    check_error(open(written(&[SCANNET[1], SCANNET[2]]).path()), &["intrinsic_color.txt"]);
}

#[test]
fn what_has_no_layout_says_what_was_looked_for() {
    let empty = tempfile::tempdir().unwrap();
    for path in [empty.path(), Path::new("/nowhere/at/all")] {
        check_error(open(path), &[&path.display().to_string(), "sequence.json", "transforms.json", "cameras.txt"]);
        check_error(open_all(path), &[&path.display().to_string(), "sequence.json"]);
    }
    check_error(open_all(Path::new("/nowhere/at/all")), &["got a path at which there is nothing"]);
    check_error(open_all(empty.path()), &["got nothing of the kind"]);
    let old = empty.path().join("old.db3");
    std::fs::write(&old, b"SQLite format 3\0 and so on").unwrap();
    check_error(open_all(&old), &["old.db3", "sqlite3", "ros2 bag convert"]);
    check_error(open_all(empty.path()), &["old.db3", "sqlite3", "ros2 bag convert"]);
    std::fs::remove_file(old).unwrap();
    std::fs::create_dir(empty.path().join("images")).unwrap();
    check_error(open_all(empty.path()), &["folder with sequence.json"]);
}

#[test]
fn names_sort_as_numbers_do() {
    let mut names = ["r_10", "r_2", "frame_00012.png", "frame_3.png", "r_2b", "7", "r_"];
    names.sort_by_key(|name| natural(name));
    assert_eq!(names, ["7", "frame_3.png", "frame_00012.png", "r_", "r_2", "r_2b", "r_10"]);
}
