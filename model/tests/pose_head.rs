//! The pose head on the shipped weights, with random heads: what is asked, its files, what it refuses, and beside which
//! weights.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use geometry::{Intrinsics, Transform, WINDOW};
use image::{Rgb, RgbImage};
use model::pose_head::{ASKED, FILES, FramePose, PoseHeadConfig, copy, folder};
use model::weights::gguf::{Recipe, export};
use model::weights::identity;
use model::{EgoModel, FrameEmbedding, PoseHead};

const TENSORS: &str = "model.safetensors";
const CONFIG: PoseHeadConfig =
    PoseHeadConfig { full_pose: true, hidden: 8, unit: 0.25, tilt_unit_deg: 10.0, log_variance: [-7.0, 5.0], bins: 36 };

fn weights() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/nano")
}

fn nano() -> EgoModel {
    EgoModel::load(&weights(), &Device::Cpu).unwrap()
}

/// A folder with the weights alone.
fn beside_nano() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(weights().join(TENSORS), dir.path().join(TENSORS)).unwrap();
    dir
}

/// Stripes that move to the left.
fn frames(model: &EgoModel) -> [FrameEmbedding; WINDOW] {
    let intrinsics = Intrinsics::new(150.0, 150.0, 80.0, 48.0, 160, 96).unwrap();
    std::array::from_fn(|i| {
        let image = RgbImage::from_fn(160, 96, |x, y| {
            let bright = ((x + 3 * i as u32) / 12 + y / 12).is_multiple_of(2);
            Rgb(if bright { [200, 180, 160] } else { [40, 60, 80] })
        });
        model.encode(&model.preprocess(&image, &intrinsics).unwrap()).unwrap()
    })
}

/// Tensors of heads: waves of different lengths, as random ones would be.
fn tensors(width: usize, config: &PoseHeadConfig) -> HashMap<String, Tensor> {
    let (h, axes, tilts) = (config.hidden, if config.full_pose { 3 } else { 2 }, 2 * usize::from(config.full_pose));
    let shapes: [(&str, Vec<usize>); 11] = [
        ("pos", vec![1, width]),
        ("ori", vec![1, width]),
        ("frame", vec![ASKED, width]),
        ("position.fc1.weight", vec![h, width]),
        ("position.fc1.bias", vec![h]),
        ("position.fc2.weight", vec![2 * axes, h]),
        ("position.fc2.bias", vec![2 * axes]),
        ("orientation.fc1.weight", vec![h, width]),
        ("orientation.fc1.bias", vec![h]),
        ("orientation.fc2.weight", vec![config.bins + 2 * tilts, h]),
        ("orientation.fc2.bias", vec![config.bins + 2 * tilts]),
    ];
    let of = |(k, (name, shape)): (usize, (&str, Vec<usize>))| {
        let wave = |i: usize| ((i as f32 + 1.0) * (1.3 + 0.17 * k as f32)).sin() * 0.3;
        let count: usize = shape.iter().product();
        let values: Vec<f32> = (0..count).map(wave).collect();
        (name.to_owned(), Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
    };
    shapes.into_iter().enumerate().map(of).collect()
}

fn width(model: &EgoModel) -> usize {
    model.network().config().text_config.hidden_size
}

fn head(model: &EgoModel, config: PoseHeadConfig, tensors: HashMap<String, Tensor>) -> PoseHead {
    PoseHead::new(config, width(model), &VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu)).unwrap()
}

/// A folder with weights and heads.
fn saved(model: &EgoModel, config: PoseHeadConfig) -> tempfile::TempDir {
    let dir = beside_nano();
    head(model, config, tensors(width(model), &config)).save(dir.path(), None).unwrap();
    dir
}

fn refused(dir: &Path, model: &EgoModel) -> String {
    PoseHead::load(dir, None, model.network()).unwrap_err().to_string()
}

#[test]
fn heads_say_the_same_before_and_after_their_files_bit_for_bit() {
    let model = nano();
    let (frames, dir) = (frames(&model), saved(&model, CONFIG));
    let said =
        |head: &PoseHead, frames: &[FrameEmbedding; WINDOW]| model.poses(head, &frames.each_ref()).unwrap().unwrap();
    let before = said(&head(&model, CONFIG, tensors(width(&model), &CONFIG)), &frames);
    let loaded = PoseHead::load(dir.path(), None, model.network()).unwrap();
    assert_eq!(said(&loaded, &frames), before);

    // What the node would do with it: copied by an export, found where the adapter is.
    let copied = beside_nano();
    copy(folder(Path::new("/weights"), Some(dir.path())), copied.path()).unwrap();
    assert_eq!(said(&PoseHead::load(copied.path(), None, model.network()).unwrap(), &frames), before);
    let none = tempfile::tempdir().unwrap();
    copy(copied.path(), copied.path()).unwrap();
    assert_eq!(said(&PoseHead::load(copied.path(), None, model.network()).unwrap(), &frames), before);
    copy(none.path(), copied.path()).unwrap();
    assert!(PoseHead::load(copied.path(), None, model.network()).is_err(), "those of other weights are gone");
    assert_eq!(folder(Path::new("/weights"), None), Path::new("/weights"));

    let trajectory = before.trajectory();
    assert_eq!(trajectory.anchor_from_camera()[0], Transform::identity());
    for (i, frame) in before.frames.iter().enumerate() {
        let again = FramePose::of(&trajectory.anchor_from_camera()[i + 1]);
        assert!((again.position - frame.pose.position).norm() < 1e-12 && (again.yaw - frame.pose.yaw).abs() < 1e-9);
        // Bounds of the log variance: exp(-3.5) and exp(2.5) units.
        assert!(frame.stddev.iter().all(|s| (0.0075..3.05).contains(s)), "{frame:?}");
        assert!(before.frames[..i].iter().all(|other| other != frame), "frames have tokens of their own");
    }
    let text = before.to_string();
    assert!(text.lines().count() == WINDOW && text.contains("\nFrame 4: x ") && text.contains(" deg"), "{text}");

    // The frames are looked at, in their order.
    let mut backwards = frames.clone();
    backwards.reverse();
    assert_ne!(said(&loaded, &backwards), before);
    // Whoever asks five frames of a window gets an error for four.
    let four: Vec<&FrameEmbedding> = frames[..4].iter().collect();
    let error = model.poses(&loaded, &four).unwrap_err().to_string();
    assert!(error.contains("frames: expected 5, got 4"), "{error}");
}

#[test]
fn heads_beside_other_weights_are_refused_and_beside_an_export_of_theirs_are_not() {
    let (model, dir) = (nano(), tempfile::tempdir().unwrap());
    let of_nano = saved(&model, CONFIG);
    let [quantized, other] = ["quantized", "other"].map(|name| dir.path().join(name));
    export(&weights(), None, Recipe::Q8_0, &quantized).unwrap();
    copy(of_nano.path(), &quantized).unwrap();
    let small = EgoModel::load(&quantized, &Device::Cpu).unwrap();
    PoseHead::load(&quantized, None, small.network()).unwrap();

    // One tensor moves.
    let mut moved = candle_core::safetensors::load(weights().join(TENSORS), &Device::Cpu).unwrap();
    let norm = moved.get_mut("model.language_model.norm.weight").unwrap();
    *norm = norm.affine(1.01, 0.0).unwrap();
    std::fs::create_dir(&other).unwrap();
    candle_core::safetensors::save(&moved, other.join(TENSORS)).unwrap();
    copy(of_nano.path(), &other).unwrap();
    let error = refused(&other, &model);
    let json = other.join(FILES[0]);
    assert!(error.contains(&format!("{}: weights: expected those that the heads", json.display())), "{error}");
    let identities = [&weights(), &other].map(|dir| identity(dir, None).unwrap());
    let [expected, got] = identities.each_ref().map(|identity| error.find(identity.as_str()).unwrap());
    assert!(expected < got && error.contains(&format!("got {}, ", other.display())), "{error}");

    // Heads beside an adapter, then beside this one on other weights: both folders are named.
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/qwen3vl/adapter");
    let adapter = tempfile::tempdir().unwrap();
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        std::fs::copy(fixture.join(name), adapter.path().join(name)).unwrap();
    }
    let adapter = adapter.path();
    head(&model, CONFIG, tensors(width(&model), &CONFIG)).save(&weights(), Some(adapter)).unwrap();
    PoseHead::load(&weights(), Some(adapter), model.network()).unwrap();
    PoseHead::load(&quantized, Some(adapter), model.network()).unwrap();
    let error = PoseHead::load(&other, Some(adapter), model.network()).unwrap_err().to_string();
    let both = format!("got {} with the adapter {}, ", other.display(), adapter.display());
    assert!(error.contains(adapter.join(FILES[0]).to_str().unwrap()) && error.contains(&both), "{error}");
    // Nor are they those of the weights alone.
    copy(adapter, &quantized).unwrap();
    assert!(refused(&quantized, &model).contains("weights: expected"));
}

#[test]
fn numbers_that_are_none_are_no_pose() {
    let model = nano();
    let frames = frames(&model);
    for (name, what) in
        [("position.fc2.bias", "position"), ("orientation.fc2.bias", "yaw"), ("pos", "position"), ("frame", "position")]
    {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut tensors = tensors(width(&model), &CONFIG);
            let damaged = tensors.get_mut(name).unwrap();
            *damaged = Tensor::full(bad, damaged.dims(), &Device::Cpu).unwrap();
            let head = head(&model, CONFIG, tensors.clone());
            // A value, not an error of the model.
            let reason = model.poses(&head, &frames.each_ref()).unwrap().unwrap_err().to_string();
            assert!(reason.contains(what) && reason.contains("of frame 1: expected finite"), "{name}: {reason}");

            let dir = saved(&model, CONFIG);
            candle_core::safetensors::save(&tensors, dir.path().join(FILES[1])).unwrap();
            let error = refused(dir.path(), &model);
            assert!(error.contains(FILES[1]) && error.contains(name) && error.contains("finite numbers"), "{error}");
        }
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let model = nano();
    let whole = saved(&model, CONFIG);
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(whole.path().join(FILES[0])).unwrap()).unwrap();
    assert_eq!((&json["version"], &json["bins"]), (&serde_json::json!(1), &serde_json::json!(36)));
    let rows = [
        ("version", serde_json::json!(2), "version: expected 1, got 2"),
        ("version", serde_json::Value::Null, "version: expected 1, got null"),
        ("bins", serde_json::json!(2), "bins: expected from 4 to 65536, got 2"),
        ("bins", serde_json::json!(u64::MAX), "bins: expected from 4 to 65536"),
        ("hidden", serde_json::json!(0), "hidden: expected from 1"),
        ("unit", serde_json::json!(-1.0), "unit: expected a finite number above 0, got -1"),
        ("log_variance", serde_json::json!([5.0, -7.0]), "log_variance: expected the lower bound first"),
        ("tilt_unit_deg", serde_json::json!("ten"), "invalid type"),
        ("full_pose", serde_json::json!(false), "full_pose: expected true"),
    ];
    for (key, value, wanted) in rows {
        let dir = saved(&model, CONFIG);
        let mut json = json.clone();
        json[key] = value;
        std::fs::write(dir.path().join(FILES[0]), json.to_string()).unwrap();
        let error = refused(dir.path(), &model);
        assert!(error.contains(FILES[0]) && error.contains(wanted), "{key}: {error}");
    }
    for file in FILES {
        let dir = saved(&model, CONFIG);
        std::fs::remove_file(dir.path().join(file)).unwrap();
        assert!(refused(dir.path(), &model).contains(file), "{file}");
    }
    // Heads of the ground plane are trained, and written, but are no poses.
    let planar = PoseHeadConfig { full_pose: false, ..CONFIG };
    assert!(refused(saved(&model, planar).path(), &model).contains("full_pose: expected true"));
    // Heads of a model of another width.
    let dir = saved(&model, CONFIG);
    let other = tensors(width(&model) + 8, &CONFIG);
    candle_core::safetensors::save(&other, dir.path().join(FILES[1])).unwrap();
    let error = refused(dir.path(), &model);
    let shapes = [width(&model), width(&model) + 8].map(|d| format!("[1, {d}]"));
    assert!(error.contains(FILES[1]) && shapes.iter().all(|shape| error.contains(shape)), "{error}");
    let mut fewer = tensors(width(&model), &CONFIG);
    fewer.remove("ori").unwrap();
    candle_core::safetensors::save(&fewer, dir.path().join(FILES[1])).unwrap();
    assert!(refused(dir.path(), &model).contains("cannot find tensor ori"));
}
