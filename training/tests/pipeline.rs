//! The stages one after another on a model that is too small to learn anything: what one writes, the next reads.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use geometry::metrics::Statistic;
use model::answer::budget::Budget;
use model::weights::manifest::Manifest;
use model::{AnswerOptions, Device, EgoModel};
use training::nano::config::{Config, read_config};
use training::student::{Adapter, Shape, Student};
use training::trainer::stage::{self, Stage};
use training::trainer::{Finished, Job};
use training::{nano, sft};
use training_data::chains::write;
use training_evaluation::eval::{self, Estimator};

fn configs() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/training")
}

/// Heads as nano has them, each of them narrow.
fn shape() -> Shape {
    Shape { heads: 4, kv_heads: 2, vision_heads: 4, deepstack: vec![1], ..Shape::tiny() }
}

fn tiny(steps: usize) -> Config {
    let mut config = read_config(&configs().join("nano-2-poses.toml")).unwrap();
    config.run.steps = steps;
    (config.run.batch, config.run.micro_batch) = (2, 1);
    (config.run.log_every, config.run.save_every) = (1, steps);
    config.sft.full_chain_every = 2;
    config.nano.flow_layer = 0;
    config.nano.frozen_layers = 0;
    config.nano.flow_weight = 0.5;
    config.nano.pose_weight = 1.0;
    config.eval = Some(sft::EvalConfig { shards: None, examples: 2, answers: 1, max_tokens: Budget::Auto });
    config.shape = Some(shape());
    config
}

fn train(config: &Config, init: Option<&Path>, out: &Path) {
    assert_eq!(nano::run(config, init, out, &Job::default()).unwrap(), Finished::Done);
}

#[test]
fn sft_writes_a_checkpoint_that_the_node_and_eval_read_and_sft_goes_on_from() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second, report) = (dir.path().join("a"), dir.path().join("b"), dir.path().join("eval"));
    // The trainer fails where any variable is left without a gradient.
    train(&tiny(2), None, &first);
    // The second run leaves the lower layers and the vision tower alone.
    let mut upper = tiny(1);
    (upper.nano.frozen_layers, upper.nano.flow_weight) = (1, 0.0);
    train(&upper, Some(&first), &second);
    let weights = |dir: &Path| candle_core::safetensors::load(dir.join("model.safetensors"), &Device::Cpu).unwrap();
    let (before, after) = (weights(&first), weights(&second));
    for (name, moves) in [("visual.pos_embed", false), ("layers.0.mlp.up_proj", false), ("layers.1.mlp.up_proj", true)]
    {
        let (name, old) = before.iter().find(|(n, _)| n.contains(name)).unwrap();
        let bits = |t: &candle_core::Tensor| t.flatten_all().unwrap().to_vec1::<half::f16>().unwrap();
        assert_eq!(bits(old) != bits(&after[name]), moves, "{name}");
    }
    let stages = Manifest::of(&second).unwrap().unwrap().stages;
    let steps: Vec<usize> = stages.iter().map(|stage| stage.steps_done).collect();
    assert_eq!(steps, [2, 1], "a checkpoint tells of all its stages");
    assert!(stages[1].curve[0].term("loss").unwrap() > 0.0);
    // The next stage goes on with the heads of the one before, where it has them too.
    let heads = |dir: &Path| candle_core::safetensors::load(dir.join("aux_heads.safetensors"), &Device::Cpu).unwrap();
    let mut still = tiny(1);
    still.optimizer.learning_rate = 1e-12;
    let third = dir.path().join("c");
    train(&still, Some(&first), &third);
    let difference = (&heads(&first)["aux.pose.weight"] - &heads(&third)["aux.pose.weight"]).unwrap();
    assert!(difference.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap() < 1e-6);
    EgoModel::load(&second, &Device::Cpu).unwrap();
    let options = AnswerOptions::default();
    let estimator = Estimator::weights(&second, None, &Device::Cpu, options).unwrap();
    let got = eval::run(&estimator, "tiny", "synth:seed=5,windows=3", &report).unwrap();
    assert_eq!(got.summary.windows, 3, "windows that do not parse are counted, not dropped");
    assert_eq!(got.final_parse.to_bits(), 0, "two steps teach nothing");
    assert!(report.join("report.json").is_file() && report.join("answers.jsonl").is_file());
}

#[test]
fn the_displacement_stage_trains_the_mlps_below_its_head_alone() {
    let dir = tempfile::tempdir().unwrap();
    let weights = |dir: &Path| candle_core::safetensors::load(dir.join("model.safetensors"), &Device::Cpu).unwrap();
    // A rate and a decay at which everything that moves at all moves beyond the rounding to f16; two steps, since the
    // head begins with zeros and lets no gradient through in the first.
    let mut config = tiny(2);
    (config.nano.flow_only_steps, config.nano.pose_weight, config.eval) = (2, 0.0, None);
    (config.optimizer.learning_rate, config.optimizer.warmup_share, config.optimizer.weight_decay) = (0.05, 0.0, 0.5);
    let (start, end) = (dir.path().join("start"), dir.path().join("end"));
    Student::new(&shape(), config.run.seed).unwrap().save(&start).unwrap();
    train(&config, Some(&start), &end);
    let (before, after) = (weights(&start), weights(&end));
    let bits = |t: &candle_core::Tensor| t.flatten_all().unwrap().to_vec1::<half::f16>().unwrap();
    for (name, tensor) in &before {
        let trained = name.contains("layers.0.mlp") || name.contains("layers.0.post_attention");
        assert_eq!(bits(tensor) != bits(&after[name]), trained, "{name}");
    }
}

#[test]
fn an_adapter_is_trained_beside_plain_and_quantized_weights_and_read_by_the_model() {
    use model::weights::gguf::{Recipe, export};
    let dir = tempfile::tempdir().unwrap();
    let (base, quantized) = (dir.path().join("base"), dir.path().join("gguf"));
    Student::new(&shape(), 0).unwrap().save(&base).unwrap();
    export(&base, None, Recipe::Q8_0, &quantized).unwrap();
    let mut config = tiny(3).plain();
    (config.sft.full_chain_every, config.run.checkpointing) = (0, true);
    config.lora = Some(Adapter { r: 4, alpha: 8.0, dropout: 0.1, targets: vec!["q_proj".into(), "down_proj".into()] });
    for (name, weights) in [("plain", &base), ("quantized", &quantized)] {
        let out = dir.path().join(name);
        assert_eq!(sft::run(&config, Some(weights), &out, &Job::default()).unwrap(), Finished::Done);
        let adapter = model::lora::Lora::load(&out, candle_core::DType::F32, &Device::Cpu).unwrap();
        assert_eq!(adapter.names().count(), 4, "two modules in two layers");
        let moved = adapter.change("model.language_model.layers.1.mlp.down_proj", &[48, 64]).unwrap().unwrap();
        assert!(moved.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap() > 0.0, "{name}: B is still zero");
        assert!(!out.join("model.safetensors").exists(), "{name}: the base is not written again");
        EgoModel::load_adapted(weights, Some(&out), &Device::Cpu).unwrap();
    }
    let error = format!("{:#}", sft::run(&config, None, dir.path(), &Job::default()).unwrap_err());
    assert!(error.contains("--init"), "{error}");
}

#[test]
fn the_same_seed_gives_the_same_weights() {
    let dir = tempfile::tempdir().unwrap();
    let weights = |name: &str| {
        let out = dir.path().join(name);
        train(&tiny(1), None, &out);
        candle_core::safetensors::load(out.join("model.safetensors"), &Device::Cpu).unwrap()
    };
    let (a, b) = (weights("a"), weights("b"));
    assert_eq!(a.len(), b.len());
    for (name, tensor) in &a {
        let bits = |t: &candle_core::Tensor| t.flatten_all().unwrap().to_vec1::<half::f16>().unwrap();
        assert_eq!(bits(tensor), bits(&b[name]), "{name}");
    }
}

#[test]
fn identity_is_right_about_its_own_errors() {
    let dir = tempfile::tempdir().unwrap();
    let report = eval::run(&Estimator::Identity, "identity", "synth:seed=5,windows=20", dir.path()).unwrap();
    let median = |statistic: &Statistic| statistic.median.unwrap().value;
    assert!((report.final_parse - 1.0).abs() < 1e-12);
    assert!((median(&report.summary.tde_deg) - 90.0).abs() < 1e-12, "no direction counts as 90 degrees");
    assert!((median(&report.summary.rte_rel) - 1.0).abs() < 1e-12);
}

/// What a stage says of a hold-out that is trained on.
fn refused<S: Stage>(stage: &S, init: Option<&Path>, source: &str) {
    let out = tempfile::tempdir().unwrap();
    let error = format!("{:#}", stage::run(stage, init, out.path(), &Job::default()).unwrap_err());
    let named = error.contains("eval: expected videos and scenes that are not trained on") && error.contains(source);
    assert!(named, "{}: {error}", S::NAME);
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0, "{}: nothing is begun", S::NAME);
}

#[test]
fn no_stage_trains_on_what_it_holds_out() {
    let dir = tempfile::tempdir().unwrap();
    let (base, shards) = (dir.path().join("base"), dir.path().join("chains"));
    let student = Student::new(&shape(), 0).unwrap();
    student.save(&base).unwrap();
    let max_pixels = shape().max_pixels;
    let data = "synth:seed=77,windows=3,size=160x96";
    write::run(&write::Chains {
        data: data.to_owned(),
        out: shards.clone(),
        seed: 0,
        max_pixels,
        per_shard: 8,
        shard: "0/1".parse().unwrap(),
        workers: Some(1),
        depth_weights: None,
        depth_side: 140,
        depth_device: "cpu".to_owned(),
        max_residual: 0.1,
        prose_url: None,
        prose_cache: None,
    })
    .unwrap();
    let mut chains = tiny(1).plain();
    chains.data.shards = Some(shards.clone());
    chains.data.synth = None;
    chains.eval = Some(sft::EvalConfig { shards: Some(shards), examples: 1, answers: 1, max_tokens: Budget::Auto });
    refused(&chains, None, "synth-77");

    let mut grpo = training::grpo::read_config(&configs().join("nano-grpo.toml")).unwrap();
    grpo.lora = None;
    (grpo.data.windows, grpo.eval.as_mut().unwrap().windows) = (data.to_owned(), data.to_owned());
    refused(&grpo, Some(&base), "synth-77");

    let mut gasp = training::gasp::read_config(&configs().join("nano-gasp.toml")).unwrap();
    gasp.eval.as_mut().unwrap().examples = 1;
    // What is looked at is each kind: windows of language among the sets of the other part.
    gasp.eval.as_mut().unwrap().windows = Some(gasp.data.sets.clone());
    refused(&gasp, Some(&base), "synth-11");

    let mut situation = training::situation::read_config(&configs().join("nano-situation.toml")).unwrap();
    situation.shape = Some(shape());
    (situation.data.source, situation.eval.as_mut().unwrap().source) = (data.to_owned(), data.to_owned());
    refused(&situation, None, "synth-77");
}

/// Keys of a table, dotted, without those of tables in lists.
fn keys_of(table: &toml::Table, at: &str, found: &mut BTreeSet<String>) {
    for (key, value) in table {
        let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
        match value {
            toml::Value::Table(inner) => keys_of(inner, &path, found),
            _ => drop(found.insert(path)),
        }
    }
}

/// What the file writes, against what its settings are.
fn assert_written<C: serde::Serialize>(path: &Path, config: &C) {
    let (mut written, mut meant) = (BTreeSet::new(), BTreeSet::new());
    keys_of(&std::fs::read_to_string(path).unwrap().parse().unwrap(), "", &mut written);
    keys_of(&toml::Table::try_from(config).unwrap(), "", &mut meant);
    // What a generator draws from is a sheet of its own, of which a config names what it changes.
    let lacking: Vec<&String> = meant.difference(&written).filter(|key| !key.starts_with("data.synth.")).collect();
    assert!(lacking.is_empty(), "{} does not write {lacking:?}", path.display());
}

#[test]
fn every_shipped_config_is_one_and_writes_every_key() {
    let mut read = 0;
    for entry in std::fs::read_dir(configs()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name == "split.toml" {
            training_data::stage::split::read_config(&path).unwrap();
        } else if name.ends_with("grpo.toml") {
            assert_written(&path, &training::grpo::read_config(&path).unwrap());
        } else if name.ends_with("gasp.toml") {
            assert_written(&path, &training::gasp::read_config(&path).unwrap());
        } else if name.ends_with("situation.toml") {
            assert_written(&path, &training::situation::read_config(&path).unwrap());
        } else if name.contains("nano-") {
            assert_written(&path, &read_config(&path).unwrap());
        } else {
            assert_written(&path, &sft::read_config(&path).unwrap());
        }
        read += 1;
    }
    assert!(read >= 3);
}

#[test]
fn an_unknown_key_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sft.toml");
    std::fs::write(&path, "[run]\nseed = 1\nbatches = 3\n").unwrap();
    let error = format!("{:#}", sft::read_config(&path).unwrap_err());
    assert!(error.contains("sft.toml") && error.contains("batches"), "{error}");
}

/// `training nano` of a run that logs each step.
fn nano_process(dir: &Path, steps: usize) -> Command {
    let config = dir.join("nano.toml");
    std::fs::write(&config, toml::to_string(&tiny(steps)).unwrap()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_training"));
    command.args(["nano", "--config"]).arg(&config).arg("--out").arg(dir.join("run")).env("RUST_LOG", "info");
    command
}

#[test]
fn a_run_whose_log_cannot_be_written_goes_on() {
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    let closed = || std::io::pipe().unwrap().1;
    for log in [Stdio::from(full()), Stdio::from(closed())] {
        let dir = tempfile::tempdir().unwrap();
        let status = nano_process(dir.path(), 2).stderr(log).status().unwrap();
        assert_eq!(status.code(), Some(0));
        assert!(dir.path().join("run/model.safetensors").is_file());
    }
}

#[test]
fn a_result_that_nobody_reads_ends_a_verb_quietly() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_training"));
    command.args(["bench", "roofs", "--published"]).stdout(std::io::pipe().unwrap().1);
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), stderr.as_str()), (Some(1), ""));
}

#[test]
fn a_terminal_that_closes_ends_a_run_with_a_checkpoint() {
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let mask = own.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    if u64::from_str_radix(mask.trim(), 16).unwrap() & 1 == 1 {
        // Started by nohup, which its children inherit: there SIGHUP is to change nothing.
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut child = nano_process(dir.path(), 100_000).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("step=1")), "{:?}", child.wait());
    // What a terminal sends, and then its shell.
    for _ in 0..2 {
        assert!(Command::new("kill").args(["-HUP", &child.id().to_string()]).status().unwrap().success());
    }
    let begun = Instant::now();
    let rest: Vec<String> = lines.collect();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130), "{rest:?}");
    assert!(begun.elapsed() < Duration::from_secs(60));
    assert!(std::fs::read_dir(dir.path().join("run/checkpoints")).unwrap().next().is_some(), "{rest:?}");
}
