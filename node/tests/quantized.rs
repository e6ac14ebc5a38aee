//! The node on what a robot gets: quantized weights, with an adapter beside them.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use model::lora::{Lora, LoraConfig, Targets};
use model::weights::gguf::{Recipe, export};
use model::{Config, Device};
use nalgebra::{Quaternion, UnitQuaternion};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The first `frames` frames of the box.
fn sequence(dir: &Path, frames: usize) {
    let from = repository().join("tests/data/amazon_box");
    let text = std::fs::read_to_string(from.join("sequence.json")).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json["num_frames"] = frames.into();
    for key in ["poses", "timestamps"] {
        if let Some(all) = json[key].as_array_mut() {
            all.truncate(frames);
        }
    }
    std::fs::create_dir_all(dir.join("frames")).unwrap();
    std::fs::write(dir.join("sequence.json"), json.to_string()).unwrap();
    let mut names: Vec<_> = std::fs::read_dir(from.join("frames")).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    for name in &names[..frames] {
        std::fs::copy(name, dir.join("frames").join(name.file_name().unwrap())).unwrap();
    }
}

/// Orientations and positions that a replay writes.
fn replay(sequence: &Path, weights: &Path, adapter: Option<&Path>) -> Vec<(UnitQuaternion<f64>, [f64; 3])> {
    let out = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_node"));
    command.current_dir(repository()).arg("replay").arg(sequence).arg("--out").arg(out.path());
    command.args([
        "--set",
        "window.hop=4",
        "--set",
        "odometry.source=model",
        "--set",
        &format!("model.weights={}", weights.display()),
    ]);
    if let Some(adapter) = adapter {
        command.args(["--set", &format!("model.adapter={}", adapter.display())]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tum = std::fs::read_to_string(out.path().join("trajectory.tum")).unwrap();
    tum.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let v: Vec<f64> = line.split(' ').map(|v| v.parse().unwrap()).collect();
            (UnitQuaternion::from_quaternion(Quaternion::new(v[7], v[4], v[5], v[6])), [v[1], v[2], v[3]])
        })
        .collect()
}

/// An adapter of one layer whose change is `size` everywhere.
fn adapter(dir: &Path, size: f32) {
    let text = Config::from_dir(&repository().join("model/weights/nano")).unwrap().text_config;
    let module = "model.language_model.layers.0.mlp.up_proj".to_owned();
    let full = |value: f32, dims: (usize, usize)| candle_core::Tensor::full(value, dims, &Device::Cpu).unwrap();
    let pair = (full(1.0, (1, text.hidden_size)), full(size, (text.intermediate_size, 1)));
    let config = LoraConfig::new(1, 1.0, Targets::Names(vec!["up_proj".to_owned()]));
    Lora::new(config, BTreeMap::from([(module, pair)])).unwrap().save(dir).unwrap();
}

#[test]
fn a_quantized_checkpoint_answers_as_its_twin_and_its_adapter_matters() {
    let dir = tempfile::tempdir().unwrap();
    let [data, quantized, none, some] = ["data", "q8_0", "none", "some"].map(|name| dir.path().join(name));
    sequence(&data, 9);
    let nano = repository().join("model/weights/nano");
    export(&nano, None, Recipe::Q8_0, &quantized).unwrap();
    assert!(quantized.join("model.gguf").is_file() && !quantized.join("model.safetensors").exists());
    let whole = replay(&data, &nano, None);
    let small = replay(&data, &quantized, None);
    assert_eq!((whole.len(), small.len()), (9, 9));
    for (i, (a, b)) in whole.iter().zip(&small).enumerate() {
        let degrees = a.0.angle_to(&b.0).to_degrees();
        let metres = a.1.iter().zip(&b.1).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
        assert!(degrees < 1.0 && metres < 0.05, "pose {i}: {degrees} deg, {metres} m apart");
    }
    adapter(&none, 0.0);
    adapter(&some, 0.02);
    assert_eq!(replay(&data, &quantized, Some(&none)), small, "an adapter of zeros changes nothing");
    assert_ne!(replay(&data, &quantized, Some(&some)), small, "an adapter is used");
}
