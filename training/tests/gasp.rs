//! GASP and its analysis on a model that is too small to learn anything: what one writes, the other reads.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use candle_core::DType;
use model::lora::Lora;
use model::weights::manifest::Manifest;
use model::{Device, EgoModel};
use serde_json::Value;
use training::gasp::analyse::{self, Args};
use training::gasp::sweep::sweep;
use training::gasp::tracks;
use training::gasp::{self, Config, FIGURES};
use training::student::{Adapter, Shape, Student};
use training::trainer::{Finished, Job};
use training_data::json::read_json;

fn base(dir: &Path) -> PathBuf {
    let base = dir.join("base");
    Student::new(&Shape::tiny(), 0).unwrap().save(&base).unwrap();
    base
}

fn tiny() -> Config {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/training/nano-gasp.toml");
    let mut config = gasp::read_config(&path).unwrap();
    (config.run.steps, config.run.batch, config.run.micro_batch, config.run.workers) = (2, 2, 1, 2);
    (config.run.log_every, config.run.eval_every, config.run.save_every) = (1, 1, 2);
    (config.data.fewest, config.data.most, config.data.sizes) = (3, 3, vec![[128, 96]]);
    config.eval.as_mut().unwrap().examples = 1;
    let targets = ["q_proj", "v_proj", "down_proj"].map(str::to_owned).to_vec();
    config.lora = Some(Adapter { r: 2, alpha: 4.0, dropout: 0.1, targets });
    config
}

fn arguments(weights: &Path, adapter: Option<&Path>, out: &Path) -> Args {
    Args {
        weights: weights.to_owned(),
        adapter: adapter.map(Path::to_owned),
        data: "synth:seed=6,windows=3".to_owned(),
        frames: 4,
        pairs: 3,
        size: Some([128, 96]),
        any_grid: true,
        tau: 0.07,
        depth_weights: None,
        seed: 0,
        device: "cpu".to_owned(),
        out: out.to_owned(),
    }
}

#[test]
fn an_adapter_is_trained_with_heads_that_the_analysis_reads_and_the_export_leaves_out() {
    let dir = tempfile::tempdir().unwrap();
    let (base, out) = (base(dir.path()), dir.path().join("gasp"));
    // The loop fails where a variable is left without a gradient.
    assert_eq!(gasp::run(&tiny(), &base, &out, &Job::default()).unwrap(), Finished::Done);
    let stage = Manifest::of(&out).unwrap().unwrap().stages.pop().unwrap();
    assert_eq!((stage.stage.as_str(), stage.steps_done), ("gasp", 2));
    for name in FIGURES {
        assert!(stage.evaluations[1].term(name).is_some(), "{name}: {:?}", stage.evaluations);
    }
    let heads = candle_core::safetensors::load(out.join("aux_heads.safetensors"), &Device::Cpu).unwrap();
    assert_eq!(heads.len(), 2 * 4);
    assert!(heads.keys().all(|name| name.starts_with("aux.gasp.")));

    let merged = dir.path().join("merged");
    model::weights::merge(&base, Some(&out), DType::F16, &merged).unwrap();
    let weights = candle_core::safetensors::load(merged.join("model.safetensors"), &Device::Cpu).unwrap();
    assert!(weights.keys().all(|name| !name.contains("aux")));
    EgoModel::load(&merged, &Device::Cpu).unwrap();

    let report = dir.path().join("report");
    let text = analyse::run(&arguments(&base, Some(&out), &report)).unwrap();
    assert!(text.contains("| layer | qk | qk_rope | head |"), "{text}");
    let written = read_json(&report.join("report.json")).unwrap();
    assert_eq!(written["layers"].as_array().map(Vec::len), Some(2 * 3));
    let share = |value: &Value| value.as_f64().is_some_and(|value| (0.0..=1.0).contains(&value));
    assert!(written["layers"].as_array().unwrap().iter().all(|row| share(&row["pck"])), "{written}");
    assert!(share(&written["chance"]) && written["tokens"] == serde_json::json!([4, 3]));
    for name in ["pck.csv", "distance.csv", "pck.png", "confidence.png", "distance.png", "relative.png"] {
        assert!(report.join(name).is_file(), "{name}");
    }
    // The same again, and without heads where there are none.
    assert_eq!(analyse::run(&arguments(&base, Some(&out), &report)).unwrap(), text);
    let without = analyse::run(&arguments(&base, None, &report)).unwrap();
    assert!(without.contains("| layer | qk | qk_rope |\n"), "{without}");
    let coarse = Args { any_grid: false, ..arguments(&base, None, &report) };
    let error = analyse::run(&coarse).unwrap_err().to_string();
    assert!(error.contains("12 tokens a side, got 4 x 3"), "{error}");
}

/// The paper's Figure 3 on the same sequences for all models.
#[test]
fn models_are_judged_beside_each_other_on_the_tracks_of_held_out_sequences() {
    let dir = tempfile::tempdir().unwrap();
    let (base, out) = (base(dir.path()), dir.path().join("tracks"));
    let other = dir.path().join("other");
    Student::new(&Shape::tiny(), 7).unwrap().save(&other).unwrap();
    let model = |name: &str, weights: &Path| tracks::Model {
        name: name.to_owned(),
        weights: weights.to_owned(),
        adapter: None,
    };
    let args = tracks::Args {
        models: vec![model("baseline", &base), model("again", &base), model("other", &other)],
        data: "synth:seed=6,windows=9".to_owned(),
        sequences: 3,
        frames: 4,
        size: Some([128, 96]),
        any_grid: true,
        tau: 0.07,
        depth_weights: None,
        seed: 0,
        device: "cpu".to_owned(),
        out: out.clone(),
    };
    let text = tracks::run(&args).unwrap();
    assert!(text.contains("other: 3 sequences, 0 left out, 4 x 3 tokens"), "{text}");
    let report = read_json(&out.join("report.json")).unwrap();
    let models = report["models"].as_array().unwrap();
    // Two layers, before the rotary embedding and behind it.
    assert_eq!(models[0]["layers"].as_array().map(Vec::len), Some(4));
    assert_eq!(
        (&models[0]["layers"], &models[0]["chance"]),
        (&models[1]["layers"], &models[1]["chance"]),
        "one model twice"
    );
    assert_ne!(models[0]["layers"], models[2]["layers"]);
    assert_eq!(models[0]["chance"], models[2]["chance"], "the same sequences");
    for row in models.iter().flat_map(|model| model["layers"].as_array().unwrap()) {
        assert!(row["pck"]["mean"].as_f64().is_some_and(|pck| (0.0..=1.0).contains(&pck)), "{row}");
        assert_eq!(row["pck"]["sequences"], 3, "{row}");
    }
    for name in ["layers.csv", "distances.csv", "figure.png"] {
        assert!(out.join(name).is_file(), "{name}");
    }
    let error = tracks::run(&tracks::Args { any_grid: false, ..args.clone() }).unwrap_err();
    assert!(format!("{error:#}").contains("12 tokens a side, got 4 x 3"), "{error:#}");
    let error = tracks::run(&tracks::Args { frames: 26, ..args }).unwrap_err().to_string();
    assert!(error.contains("--frames: expected 2 to 25, got 26"), "{error}");
}

#[test]
fn a_sweep_trains_each_combination_once_and_puts_them_in_one_table() {
    let dir = tempfile::tempdir().unwrap();
    let (base, out, path) = (base(dir.path()), dir.path().join("sweep"), dir.path().join("tiny.toml"));
    let mut config = tiny();
    (config.run.steps, config.run.save_every) = (1, 1);
    std::fs::write(&path, toml::to_string(&config).unwrap()).unwrap();
    let go = |settings: &str, resume: bool| {
        sweep(&path, settings, &base, &out, &Job { resume, ..Job::default() }).map(|(finished, table)| {
            assert_eq!(finished, Finished::Done);
            table
        })
    };
    let table = go("lora.r=2,4; gasp.layers=0", false).unwrap();
    let rows: Vec<&str> = table.lines().collect();
    assert!(rows.len() == 4 && rows[2].starts_with("| 2 | 0 | ") && rows[3].starts_with("| 4 | 0 | "), "{table}");
    assert_eq!(std::fs::read_to_string(out.join("sweep.md")).unwrap(), table);
    assert_eq!(std::fs::read_to_string(out.join("sweep.csv")).unwrap().lines().count(), 3);
    let adapter = Lora::load(&out.join("lora.r=4_gasp.layers=0"), DType::F32, &Device::Cpu).unwrap();
    assert!(adapter.config().r == 4 && (adapter.config().lora_alpha - 8.0).abs() < 1e-9);
    assert_eq!(go("lora.r=2,4; gasp.layers=0", true).unwrap(), table, "done already");
    let error = format!("{:#}", go("lora.r=2; gasp.layers=5", false).unwrap_err());
    assert!(error.contains("gasp.layers"), "{error}");
}
