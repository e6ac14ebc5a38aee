//! The evaluation on estimators whose errors are known beforehand, through the files that it reads and writes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use geometry::{Stamp, Stamped, Transform, WindowTrajectory, tum};
use image::RgbImage;
use nalgebra::Isometry3;
use serde_json::{Value, json};
use training_data::synth;
use training_data::{WindowSample, parse_source};
use training_evaluation::eval::{self, Args, Estimator, Report};

mod compare;
mod egoreasoner;
mod report;
mod texts;
mod tracks;
mod trajectories;

/// Six windows, of which the cheapest that show anything.
const DATA: &str = "synth:seed=5,windows=6,size=64x48";

fn samples(data: &str) -> Vec<WindowSample> {
    let source = parse_source(data).unwrap();
    (0..source.len()).map(|index| source.sample(index).unwrap()).collect()
}

/// A file for each window, with the stamps of its frames or with 0 to 4 seconds.
fn write_tum(folder: &Path, data: &str, counted: bool, change: impl Fn(&WindowTrajectory) -> WindowTrajectory) {
    std::fs::create_dir_all(folder).unwrap();
    for sample in samples(data) {
        let poses = *change(&sample.ground_truth).anchor_from_camera();
        let stamp = |i: usize| if counted { Stamp::from_nanos(i as i64 * 1_000_000_000) } else { sample.stamps[i] };
        let poses: Vec<_> = poses.iter().enumerate().map(|(i, &value)| Stamped { stamp: stamp(i), value }).collect();
        tum::write(&folder.join(format!("{}.tum", sample.id)), &poses).unwrap();
    }
}

/// A report as its file has it, which reads as the report that it was.
fn filed(report: &Report, out: &Path) -> Value {
    let text = std::fs::read_to_string(out.join("report.json")).unwrap();
    assert_eq!(&serde_json::from_str::<Report>(&text).unwrap(), report);
    serde_json::from_str(&text).unwrap()
}

fn run(name: &str, data: &str, out: &Path) -> Value {
    filed(&eval::run(&Estimator::named(name).unwrap(), name, data, out).unwrap(), out)
}

fn tum_of(folder: &Path) -> String {
    format!("tum:{}", folder.display())
}

fn args(estimator: &str, data: &str, out: &Path) -> Args {
    Args {
        weights: None,
        estimator: Some(estimator.to_owned()),
        data: data.to_owned(),
        mode: model::Mode::AnswerOnly,
        adapter: None,
        device: "cpu".to_owned(),
        constrained: false,
        film: false,
        stride: 1,
        refine: false,
        rows: false,
        record: false,
        max_tokens: model::answer::budget::Budget::Auto,
        fill: model::answer::fill::Fill::None,
        speculate: true,
        up_to_scale: false,
        reversed: false,
        covariance: None,
        concurrency: 4,
        explain: false,
        out: out.to_path_buf(),
    }
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A value as it is after writing and reading.
fn written(value: &impl serde::Serialize) -> Value {
    serde_json::from_str(&serde_json::to_string(value).unwrap()).unwrap()
}

/// The lines of answers.jsonl.
fn answers(out: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(out.join("answers.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn median(report: &Value, name: &str) -> f64 {
    report["summary"][name]["median"]["value"].as_f64().unwrap()
}

/// A recorded sequence of these images and camera-to-world poses, without times and depth.
fn record(folder: &Path, images: &[RgbImage], poses: &[Isometry3<f64>]) {
    std::fs::create_dir_all(folder.join("frames")).unwrap();
    for (i, image) in images.iter().enumerate() {
        image.save(folder.join(format!("frames/{i:06}.png"))).unwrap();
    }
    let matrix = |pose: &Isometry3<f64>| {
        let pose: Transform<geometry::World, geometry::Camera> = Transform::from_isometry_unchecked(*pose);
        pose.to_matrix_row_major().to_vec()
    };
    let text = json!({
        "name": "film", "width": 64, "height": 48, "metric": true, "num_frames": poses.len(), "timestamps": null,
        "intrinsics": {"fx": 60.0, "fy": 60.0, "cx": 31.5, "cy": 23.5},
        "pose_convention": "camera_to_world", "camera_axes": "opencv (x right, y down, z forward)",
        "poses": poses.iter().map(matrix).collect::<Vec<_>>(),
    });
    std::fs::write(folder.join("sequence.json"), text.to_string()).unwrap();
}

/// Seven frames, three windows.
fn film(folder: &Path) -> synth::SynthSequence {
    let film = synth::sequence(3, 5, 7, (64, 48));
    let poses: Vec<_> = film.world_from_camera.iter().map(|pose| *pose.isometry()).collect();
    record(folder, &film.images, &poses);
    film
}
