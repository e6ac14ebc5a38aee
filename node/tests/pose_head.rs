//! `model.mode = "pose_head"` on a tiny model with heads of waves: five poses, a report, and what is refused.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use candle_core::{Device, Tensor};
use geometry::{Intrinsics, Stamp, Transform};
use image::{Rgb, RgbImage};
use model::pose_head::FILES;
use node::config::{Config, ModelConfig, TrustRules};
use node::solve::estimator::{EgoEstimator, Estimate, Estimator, missing_heads};
use node::trust::Judge;
use serde_json::json;

mod common;
use common::{repository, tiny_weights};

/// Decoder's width of the tiny model, and the heads' own.
const WIDTH: usize = 64;
const HIDDEN: usize = 4;

/// The files as `training situation` wrote them before they said beside which weights.
fn heads(dir: &Path, value: impl Fn(usize) -> f32) {
    let shapes: [(&str, &[usize]); 11] = [
        ("pos", &[1, WIDTH]),
        ("ori", &[1, WIDTH]),
        ("frame", &[4, WIDTH]),
        ("position.fc1.weight", &[HIDDEN, WIDTH]),
        ("position.fc1.bias", &[HIDDEN]),
        ("position.fc2.weight", &[6, HIDDEN]),
        ("position.fc2.bias", &[6]),
        ("orientation.fc1.weight", &[HIDDEN, WIDTH]),
        ("orientation.fc1.bias", &[HIDDEN]),
        ("orientation.fc2.weight", &[36 + 4, HIDDEN]),
        ("orientation.fc2.bias", &[36 + 4]),
    ];
    let tensor = |shape: &[usize]| {
        let count: usize = shape.iter().product();
        let values: Vec<f32> = (0..count).map(&value).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    };
    let tensors: HashMap<&str, Tensor> = shapes.into_iter().map(|(name, shape)| (name, tensor(shape))).collect();
    candle_core::safetensors::save(&tensors, dir.join(FILES[1])).unwrap();
    let config = json!({
        "version": 1, "full_pose": true, "hidden": HIDDEN, "unit": 0.25, "tilt_unit_deg": 10.0,
        "log_variance": [-7.0, 5.0], "bins": 36,
    });
    std::fs::write(dir.join(FILES[0]), config.to_string()).unwrap();
}

fn wave(i: usize) -> f32 {
    (1.7 * (i as f32 + 1.0)).sin() * 0.2
}

/// Settings of a node on `weights`, with those of node.toml for the rest.
fn settings(weights: &Path) -> (ModelConfig, TrustRules) {
    let overrides = [("model.weights", weights.to_str().unwrap()), ("model.mode", "pose_head")];
    let overrides = overrides.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let config = Config::load(&repository().join("config/node.toml"), &overrides).unwrap();
    (config.model.unwrap(), config.trust)
}

fn load(weights: &Path) -> Result<EgoEstimator, node::solve::estimator::Error> {
    EgoEstimator::load(&settings(weights).0, Arc::new(AtomicBool::new(false)))
}

fn estimate(weights: &Path) -> Estimate {
    let mut estimator = load(weights).unwrap();
    let intrinsics = Intrinsics::new(60.0, 60.0, 32.0, 24.0, 64, 48).unwrap();
    let frames: [_; 5] = std::array::from_fn(|i| {
        let image = RgbImage::from_fn(64, 48, |x, y| Rgb([(4 * x) as u8, (5 * y) as u8, 40 * i as u8]));
        estimator.encode(&image, &intrinsics).unwrap()
    });
    estimator.estimate(frames.each_ref()).unwrap()
}

#[test]
fn a_window_has_five_poses_with_their_own_sigma_and_no_text_is_decoded() {
    let dir = tempfile::tempdir().unwrap();
    tiny_weights(dir.path());
    heads(dir.path(), wave);
    let estimate = estimate(dir.path());
    let poses = estimate.trajectory.as_ref().unwrap().anchor_from_camera();
    assert_eq!(poses[0], Transform::identity());
    assert!(poses[1..].iter().all(|pose| pose.translation().norm() > 1e-6 && pose.rotation().angle() > 1e-6));
    assert!(estimate.tokens == 0 && estimate.grid.is_none(), "no reasoning is to be checked");
    assert!(estimate.text.contains("\nFrame 4: x "), "{}", estimate.text);
    let stated = estimate.position_stddev.unwrap();
    assert!(stated.iter().all(|stddev| stddev.is_finite() && *stddev > 0.0), "{stated:?}");

    // It goes the way of every answer, and what it says of itself is told.
    let mut rules = settings(dir.path()).1;
    rules.sanity.max_step_radians = 4.0;
    let stamps = std::array::from_fn(|i| Stamp::from_nanos(100_000_000 * i as i64));
    let judged = Judge::new(&rules).answer(0, &stamps, &estimate, 1.0, false);
    let largest = stated.into_iter().fold(0.0, f64::max);
    assert_eq!(judged.evidence.unwrap().stated_stddev_metres, Some(largest));
    let poses = judged.poses.unwrap();
    assert_eq!(poses.push.poses.len(), 5);
    let configured = rules.covariance.position_stddev_metres;
    for (i, covariance) in poses.covariances[1..].iter().enumerate() {
        let expected = configured[i].max(stated[i]).powi(2);
        assert!((covariance[0] - expected).abs() < 1e-12, "frame {}: {} {expected}", i + 1, covariance[0]);
    }
}

#[test]
fn weights_without_heads_and_heads_that_are_broken_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    tiny_weights(dir.path());
    let refused = || load(dir.path()).err().unwrap().to_string();
    let [json, tensors] = FILES.map(|name| dir.path().join(name));
    assert!(refused().contains(json.to_str().unwrap()), "{}", refused());
    assert_eq!(missing_heads(&settings(dir.path()).0), FILES.map(|name| dir.path().join(name)));
    heads(dir.path(), wave);
    assert!(missing_heads(&settings(dir.path()).0).is_empty());
    heads(dir.path(), |i| if i == 3 { f32::NAN } else { wave(i) });
    let error = refused();
    assert!(error.contains(tensors.to_str().unwrap()) && error.contains("finite numbers, got NaN"), "{error}");
    std::fs::remove_file(&tensors).unwrap();
    assert!(refused().contains(tensors.to_str().unwrap()), "{}", refused());
}

#[test]
fn the_doctor_finds_the_heads_or_says_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    tiny_weights(dir.path());
    let doctor = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_node"));
        command.current_dir(repository()).env_remove("RUST_LOG").env_remove("ROS_DOMAIN_ID");
        command.args(["doctor", "--set", "model.mode=pose_head", "--set"]);
        let output = command.arg(format!("model.weights={}", dir.path().display())).output().unwrap();
        let [text, log] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        (output.status.code(), text, log)
    };
    let (code, text, _) = doctor();
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("FAIL  pose head") && text.contains(FILES[0]) && text.contains("-> take the weights"),
        "{text}"
    );
    heads(dir.path(), wave);
    let (code, text, log) = doctor();
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("OK    pose head") && text.contains("OK    answer"), "{text}");
    let json = dir.path().join(FILES[0]);
    let unknown = "the heads do not say which weights they were trained beside";
    assert!(log.lines().any(|line| line.contains("WARN") && line.contains(unknown)), "{log}");
    assert!(log.contains(json.to_str().unwrap()), "{log}");

    // Those that say it: as they should be, then beside other weights.
    let say = |weights: &str| {
        let mut stored: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
        stored["weights"] = json!(weights);
        std::fs::write(&json, stored.to_string()).unwrap();
    };
    say(&model::weights::identity(dir.path(), None).unwrap());
    let (code, text, log) = doctor();
    assert!(code == Some(0) && !log.contains(unknown), "{text}{log}");
    say("0123456789abcdef0123456789abcdef");
    let (code, text, _) = doctor();
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("trained beside, 0123456789abcdef") && text.contains(json.to_str().unwrap()), "{text}");
}
