//! What must hold of a run however it is cut: micro-batches, threads, stops; and that it learns at all.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Tensor;
use model::Device;
use model::answer::budget::Budget;
use model::autograd::recompute::Recomputation;
use model::weights::manifest::{Manifest, Point, Stage};
use serde_json::Value;
use training::nano::config::{Config, read_config};
use training::nano::{self, Nano};
use training::sft::{self, EvalConfig};
use training::student::{Adapter, Shape, Student};
use training::trainer::{self, Finished, Job, Objective, Settings, Share, Sources};

fn shipped(name: &str) -> Config {
    read_config(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/training").join(name)).unwrap()
}

fn config(steps: usize) -> Config {
    let mut config = shipped("nano-3-all.toml");
    // Heads as nano has them, each of them narrow.
    config.shape = Some(Shape { heads: 4, kv_heads: 2, vision_heads: 4, deepstack: vec![1], ..Shape::tiny() });
    (config.run.steps, config.run.batch, config.run.micro_batch, config.run.workers) = (steps, 4, 1, 1);
    (config.run.log_every, config.run.save_every) = (1, 100);
    config.nano.flow_layer = 0;
    config.eval = None;
    config
}

fn variables(run: &Path, steps: usize) -> HashMap<String, Tensor> {
    let path = run.join(format!("checkpoints/step-{steps:06}/variables.safetensors"));
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

/// Largest difference relative to the largest value, over all variables.
fn difference(a: &HashMap<String, Tensor>, b: &HashMap<String, Tensor>) -> f32 {
    assert_eq!(a.len(), b.len());
    let largest = |t: &Tensor| t.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    let of = |(name, t): (&String, &Tensor)| largest(&(t - &b[name]).unwrap()) / largest(t).max(1e-6);
    a.iter().map(of).fold(0.0, f32::max)
}

/// What the manifest of a run says of its first stage.
fn stage(run: &Path) -> Stage {
    Manifest::of(run).unwrap().expect("a manifest").stages.swap_remove(0)
}

fn curve(run: &Path) -> Vec<Point> {
    let curve = stage(run).curve;
    assert!(!curve.is_empty());
    curve
}

#[test]
fn a_step_is_the_same_however_it_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let mut steps = config(3);
    steps.sft.full_chain_every = 2; // Responses of many lengths.
    let run = |name: &str, micro_batch: usize, workers: usize| {
        let mut config = steps.clone();
        (config.run.batch, config.run.micro_batch, config.run.workers) = (8, micro_batch, workers);
        let out = dir.path().join(name);
        nano::run(&config, None, &out, &Job::default()).unwrap();
        (variables(&out, 3), curve(&out))
    };
    let norm = |t: &Tensor| t.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
    let whole = run("1x8", 8, 1);
    let size: f32 = whole.0.values().map(norm).sum();
    for (name, micro_batch, workers) in [("8x1", 1, 1), ("4x2 on two threads", 2, 2)] {
        let parts = run(name, micro_batch, workers);
        for step in 0..3 {
            let loss = |curve: &[Point]| curve[step].term("loss").unwrap();
            let (a, b) = (loss(&whole.1), loss(&parts.1));
            assert!((a - b).abs() < 1e-4 * a, "{name}, step {step}: {a} {b}");
        }
        // Over all variables at once: where a gradient is as good as zero, AdamW's first steps follow its rounding.
        let far: f32 = whole.0.iter().map(|(n, t)| norm(&(t - &parts.0[n]).unwrap())).sum();
        assert!((far / size).sqrt() < 1e-3, "{name}: {}", (far / size).sqrt());
    }
}

#[test]
fn gradients_of_one_batch_are_those_of_its_parts() {
    let mut config = config(1);
    config.sft.full_chain_every = 1;
    let student = Student::new(config.shape.as_ref().unwrap(), 1).unwrap();
    let objective = Nano::new(&config, &student).unwrap();
    let whole = objective.batch(0, &[0, 1, 2, 3]).unwrap();
    let totals = objective.counts(&whole);
    let gradients = |batch: &<Nano<'_> as Objective>::Batch| {
        let share = objective.loss(batch, &totals, None).unwrap();
        let store = share.loss.unwrap().backward().unwrap();
        let named = training::student::named(&student.variables);
        named.into_iter().filter_map(|(n, v)| Some((n, store.get(&v)?.clone()))).collect::<HashMap<_, _>>()
    };
    let expected = gradients(&whole);
    let mut sums: HashMap<String, Tensor> = HashMap::new();
    for example in &whole {
        for (name, gradient) in gradients(&vec![example.clone()]) {
            let sum = match sums.remove(&name) {
                Some(sum) => (sum + gradient).unwrap(),
                None => gradient,
            };
            sums.insert(name, sum);
        }
    }
    let far = difference(&expected, &sums);
    assert!(far < 1e-4, "{far}");
}

#[test]
fn a_run_that_was_stopped_goes_on_as_if_it_never_had_been() {
    let dir = tempfile::tempdir().unwrap();
    let (base, whole, parts) = (dir.path().join("base"), dir.path().join("whole"), dir.path().join("parts"));
    let mut config = config(4).plain();
    Student::new(config.shape.as_ref().unwrap(), 0).unwrap().save(&base).unwrap();
    config.eval = Some(EvalConfig { shards: None, examples: 2, answers: 0, max_tokens: Budget::Auto });
    config.run.eval_every = 1;
    // With dropout, which has to go on where it was.
    config.lora = Some(Adapter { r: 4, alpha: 8.0, dropout: 0.3, targets: vec!["q_proj".into(), "up_proj".into()] });
    let run = |out: &PathBuf, job: &Job| sft::run(&config, Some(&base), out, job).unwrap();
    assert_eq!(run(&whole, &Job::default()), Finished::Done);
    let stopped = Job::default();
    stopped.stop.store(true, Ordering::Relaxed);
    assert_eq!(run(&parts, &stopped), Finished::Stopped { steps: 1 });
    assert!(!parts.join("adapter_model.safetensors").exists(), "a run that is not done has no result");
    stopped.stop.store(true, Ordering::Relaxed);
    let again = Job { resume: true, ..stopped };
    assert_eq!(run(&parts, &again), Finished::Stopped { steps: 2 });
    assert_eq!(run(&parts, &Job { resume: true, ..Job::default() }), Finished::Done);
    let (a, b) = (variables(&whole, 4), variables(&parts, 4));
    for (name, tensor) in &a {
        let bits = |t: &Tensor| {
            t.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        assert_eq!(bits(tensor), bits(&b[name]), "{name}");
    }
    assert_eq!(curve(&whole), curve(&parts), "losses and all");
    for out in [&whole, &parts] {
        model::EgoModel::load_adapted(&base, Some(&out.join("best")), &Device::Cpu).unwrap();
        assert_eq!(std::fs::read_dir(out.join("checkpoints")).unwrap().count(), if out == &whole { 1 } else { 2 });
    }
    // A checkpoint is what would be deployed, and curves are there for TensorBoard.
    model::EgoModel::load_adapted(&base, Some(&parts.join("checkpoints/step-000002")), &Device::Cpu).unwrap();
    assert!(std::fs::read_dir(parts.join("events")).unwrap().count() >= 3);

    let error = |config: &sft::Config, out: &Path, resume: bool| {
        let job = Job { resume, ..Job::default() };
        format!("{:#}", sft::run(config, Some(&base), out, &job).unwrap_err())
    };
    assert!(error(&config, &parts, false).contains("--resume"), "a run is not overwritten");
    assert!(error(&config, &dir.path().join("none"), true).contains("expected checkpoints"));
    let mut other = config.clone();
    other.optimizer.learning_rate = 1.0;
    let message = error(&other, &parts, true);
    assert!(message.contains("optimizer.learning_rate"), "{message}");
}

#[test]
fn a_checkpoint_that_is_not_what_was_written_is_refused_and_the_whole_one_before_it_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(3);
    (config.run.save_every, config.run.keep) = (1, 3);
    let run = |resume: bool| nano::run(&config, None, dir.path(), &Job { resume, ..Job::default() });
    assert_eq!(run(false).unwrap(), Finished::Done);
    assert_eq!(run(true).unwrap(), Finished::Done, "a place at the end is no place behind it");
    let [first, second, newest] =
        ["step-000001", "step-000002", "step-000003"].map(|name| dir.path().join("checkpoints").join(name));
    // What is said of the newest, once one of its files is another.
    let refused = |file: &str, bytes: Option<&[u8]>, says: &str| {
        let path = newest.join(file);
        let whole = std::fs::read(&path).unwrap();
        match bytes {
            Some(bytes) => std::fs::write(&path, bytes).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let error = format!("{:#}", run(true).unwrap_err());
        std::fs::write(&path, whole).unwrap();
        assert!(error.contains(path.to_str().unwrap()) && error.contains(says), "{file}: {error}");
    };
    let way_on = "step-000003 is damaged; the newest whole checkpoint before it is step-000002: to go on from there";
    let mut files = Vec::new();
    below(&newest, &mut files);
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let names: Vec<String> = files.iter().map(name).collect();
    for name in ["optimizer.safetensors", "variables.safetensors", "model.safetensors", "state.json", "manifest.json"] {
        assert!(names.iter().any(|other| other == name), "{names:?}");
    }
    for name in &names {
        let mut bytes = std::fs::read(newest.join(name)).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        refused(name, Some(bytes.as_slice()), way_on);
    }
    refused("optimizer.safetensors", None, way_on);
    // Files of two steps in one folder.
    for name in ["optimizer.safetensors", "variables.safetensors", "state.json"] {
        refused(name, Some(std::fs::read(second.join(name)).unwrap().as_slice()), way_on);
    }
    // Every digest may be right, and the folder another step's.
    let (aside, moved) = (dir.path().join("aside"), second.join("model.safetensors"));
    std::fs::rename(&newest, &aside).unwrap();
    std::fs::rename(&second, &newest).unwrap();
    let error = format!("{:#}", run(true).unwrap_err());
    assert!(error.contains("before it is step-000001") && error.contains("expected the folder step-000002"), "{error}");
    std::fs::rename(&newest, &second).unwrap();
    std::fs::rename(&aside, &newest).unwrap();
    // A place behind the end was taken for the end.
    let mut state: Value = serde_json::from_slice(&std::fs::read(newest.join("state.json")).unwrap()).unwrap();
    state["state"]["step"] = 7.into();
    refused("state.json", Some(state.to_string().as_bytes()), "expected at most the settings' 3 steps, got 7");

    // The one before it may be damaged too, and none be left.
    std::fs::write(&moved, "").unwrap();
    refused("optimizer.safetensors", Some(b"".as_slice()), "before it is step-000001");
    std::fs::remove_file(first.join("state.json")).unwrap();
    refused("optimizer.safetensors", Some(b"".as_slice()), "no checkpoint before it is whole");
}

#[test]
fn a_run_goes_on_from_the_checkpoint_before_a_damaged_one_as_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(3);
    config.run.save_every = 1;
    let run = |resume: bool| nano::run(&config, None, dir.path(), &Job { resume, ..Job::default() });
    assert_eq!(run(false).unwrap(), Finished::Done);
    let (whole, newest) = (variables(dir.path(), 3), dir.path().join("checkpoints/step-000003"));
    std::fs::write(newest.join("optimizer.safetensors"), "").unwrap();
    let error = format!("{:#}", run(true).unwrap_err());
    assert!(error.contains("rename the damaged folder to step-000003.damaged, and --resume again"), "{error}");
    std::fs::rename(&newest, newest.with_extension("damaged")).unwrap();
    assert_eq!(run(true).unwrap(), Finished::Done);
    let far = difference(&whole, &variables(dir.path(), 3));
    assert!(far <= 0.0, "{far}");
}

/// Every file and folder below a folder.
fn below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            below(&path, found);
        }
        found.push(path);
    }
}

#[test]
fn all_files_of_a_run_and_an_export_may_be_read_by_whom_the_umask_says() {
    let dir = tempfile::tempdir().unwrap();
    let [base, run, plain, gguf, settings] =
        ["base", "run", "plain", "gguf", "sft.toml"].map(|name| dir.path().join(name).to_str().unwrap().to_owned());
    let mut config = config(1).plain();
    Student::new(config.shape.as_ref().unwrap(), 0).unwrap().save(Path::new(&base)).unwrap();
    // What an export takes along is no more private than what it makes.
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(Path::new(&base).join("tokenizer.json"), private).unwrap();
    config.shape = None;
    config.lora = Some(Adapter { r: 4, alpha: 8.0, dropout: 0.0, targets: vec!["q_proj".into()] });
    config.eval = Some(EvalConfig { shards: None, examples: 1, answers: 0, max_tokens: Budget::Auto });
    std::fs::write(&settings, toml::to_string(&config).unwrap()).unwrap();
    let training = |arguments: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", "umask 027 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_training")]);
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    training(&["sft", "--config", &settings, "--init", &base, "--out", &run]);
    for (format, out) in [("safetensors", &plain), ("gguf", &gguf)] {
        training(&["export", "--weights", &base, "--adapter", &run, "--format", format, "--out", out]);
    }
    let mut found = Vec::new();
    [&run, &plain, &gguf].iter().for_each(|folder| below(Path::new(folder), &mut found));
    for path in &found {
        let (mode, folder) = (std::fs::metadata(path).unwrap().permissions().mode() & 0o777, path.is_dir());
        assert_eq!(mode, if folder { 0o750 } else { 0o640 }, "{}: {mode:o}", path.display());
    }
    for name in ["run/adapter_model.safetensors", "run/checkpoints/step-000001/optimizer.safetensors"] {
        assert!(found.contains(&dir.path().join(name)), "{name}");
    }
    for name in ["plain/model.safetensors", "gguf/mmproj.gguf", "gguf/tokenizer.json"] {
        assert!(found.contains(&dir.path().join(name)), "{name}");
    }
}

#[test]
fn a_run_goes_on_behind_steps_that_trained_what_is_frozen_since() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(3);
    (config.nano.flow_only_steps, config.nano.flow_weight, config.nano.frozen_layers) = (2, 0.5, 1);
    let job = Job::default();
    job.stop.store(true, Ordering::Relaxed);
    let run = |job: &Job| nano::run(&config, None, dir.path(), job).unwrap();
    assert_eq!(run(&job), Finished::Stopped { steps: 1 });
    let again = Job { resume: true, ..job };
    assert_eq!(run(&again), Finished::Stopped { steps: 2 });
    // The MLP below the displacement head has no gradient any more, and that is no cut.
    assert_eq!(run(&again), Finished::Done);
}

#[test]
fn one_batch_is_learned_by_heart() {
    /// The same examples in every step.
    struct Same<'a>(Nano<'a>);
    impl Objective for Same<'_> {
        type Batch = <Nano<'static> as Objective>::Batch;
        type Terms = <Nano<'static> as Objective>::Terms;
        fn inputs(&self) -> serde_json::Value {
            self.0.inputs()
        }
        fn sources(&self) -> Sources {
            self.0.sources()
        }
        fn batch(&self, _: usize, examples: &[u64]) -> anyhow::Result<Self::Batch> {
            self.0.batch(0, &examples.iter().map(|k| k % 2).collect::<Vec<_>>())
        }
        fn counts(&self, batch: &Self::Batch) -> Self::Terms {
            self.0.counts(batch)
        }
        fn loss(
            &self,
            batch: &Self::Batch,
            totals: &Self::Terms,
            c: Option<&Recomputation>,
        ) -> anyhow::Result<Share<Self::Terms>> {
            self.0.loss(batch, totals, c)
        }
        fn tokens(&self, batch: &Self::Batch) -> usize {
            self.0.tokens(batch)
        }
        fn describe(&self, batch: &Self::Batch) -> Value {
            self.0.describe(batch)
        }
        fn trains(&self, step: usize, variable: &str) -> bool {
            self.0.trains(step, variable)
        }
    }
    let mut config = config(300);
    (config.run.batch, config.run.micro_batch, config.run.workers) = (2, 1, 2);
    (config.nano.number_sigma, config.nano.tail_weight, config.nano.pose_weight) = (0.0, 1.0, 0.0);
    (config.optimizer.learning_rate, config.optimizer.warmup_share, config.run.log_every) = (4e-3, 0.05, 10);
    let student = Student::new(config.shape.as_ref().unwrap(), 2).unwrap();
    let objective = Same(Nano::new(&config, &student).unwrap());
    let settings = Settings {
        stage: "sft",
        run: &config.run,
        optimizer: &config.optimizer,
        config: Value::Null,
        init: None,
        job: &Job::default(),
    };
    let dir = tempfile::tempdir().unwrap();
    trainer::run(&objective, &student, &settings, dir.path()).unwrap();
    let curve = curve(dir.path());
    let loss = |at: usize| curve[at].term("loss").unwrap();
    assert!(loss(0) > 2.0 && loss(29) < 0.05, "{} -> {}", loss(0), loss(29));
}

#[test]
fn shards_are_gone_through_once_an_epoch_and_learned_from() {
    use training_data::chains::write;
    let dir = tempfile::tempdir().unwrap();
    let chains = |name: &str, seed: u64| {
        let out = dir.path().join(name);
        let data = format!("synth:seed={seed},windows=6,size=64x48");
        let arguments =
            ["chains", "--data", &data, "--out", out.to_str().unwrap(), "--max-pixels", "3072", "--per-shard", "4"];
        let options = <Arguments as clap::Parser>::parse_from(arguments).options;
        assert!(write::run(&options).unwrap().counts.written > 3);
        out
    };
    #[derive(clap::Parser)]
    struct Arguments {
        #[command(flatten)]
        options: write::Chains,
    }
    let (train, hold_out) = (chains("train", 1), chains("hold-out", 2));
    let mut config = config(0);
    (config.run.epochs, config.run.batch, config.run.workers) = (2.0, 2, 2);
    config.data = sft::DataConfig { shards: Some(train.clone()), synth: None };
    config.eval = Some(EvalConfig { shards: Some(hold_out), examples: 3, answers: 1, max_tokens: Budget::Auto });
    config.sft.full_chain_every = 1;
    config.nano.pose_weight = 0.0;
    let student = Student::new(config.shape.as_ref().unwrap(), 3).unwrap();
    let objective = Nano::new(&config, &student).unwrap();
    let samples = objective.epoch().unwrap();
    let ids: Vec<String> = (0..2 * samples).map(|k| objective.batch(0, &[k]).unwrap()[0].id.clone()).collect();
    let unique = |ids: &[String]| ids.iter().collect::<std::collections::BTreeSet<_>>().len() as u64;
    let (first, second) = ids.split_at(samples as usize);
    assert_eq!((unique(first), unique(second), unique(&ids)), (samples, samples, samples));
    assert!((0..samples).all(|k| objective.length(k) > 500), "the longer the later in a step");
    drop(objective);

    let out = dir.path().join("run");
    nano::run(&config, None, &out, &Job::default()).unwrap();
    let stage = stage(&out);
    assert_eq!(stage.steps_done as u64, samples, "two epochs, two a step");
    assert_eq!((stage.ranks, stage.examples_seen, stage.init), (Some(1), Some(2 * samples), None));
    let data = &stage.config["inputs"]["data"];
    assert_eq!(data["samples"], samples);
    assert_eq!(data["sha256"].as_str().unwrap().len(), 64);
    let figures = &stage.evaluations[0];
    assert!(figures.term("loss").unwrap() > 0.0 && figures.term("parse") == Some(0.0), "{figures:?}");

    // A shard that is not what was made is not trained on.
    let shard = train.join("chains-000000.tar");
    let whole = std::fs::read(&shard).unwrap();
    let mut altered = whole.clone();
    altered[512] ^= 1;
    std::fs::write(&shard, altered).unwrap();
    let error = format!("{:#}", nano::run(&config, None, &dir.path().join("altered"), &Job::default()).unwrap_err());
    assert!(error.contains("chains-000000.tar: expected SHA-256 "), "{error}");
    std::fs::write(&shard, whole).unwrap();

    // Chains of another grid are none of this model's.
    let shape = config.shape.as_mut().unwrap();
    (shape.min_pixels, shape.max_pixels) = (8 * 1024, 9 * 1024);
    let error = format!("{:#}", nano::run(&config, None, &dir.path().join("b"), &Job::default()).unwrap_err());
    assert!(error.contains("64x32") || error.contains("the model would see"), "{error}");
    std::fs::remove_file(train.join("manifest.json")).unwrap();
    let error = format!("{:#}", nano::run(&config, None, &dir.path().join("c"), &Job::default()).unwrap_err());
    assert!(error.contains("manifest.json"), "{error}");
}

#[test]
fn a_loss_that_is_no_number_ends_the_run_and_its_batch_is_kept() {
    struct Bad<'a>(Nano<'a>, AtomicBool);
    impl Objective for Bad<'_> {
        type Batch = <Nano<'static> as Objective>::Batch;
        type Terms = <Nano<'static> as Objective>::Terms;
        fn inputs(&self) -> serde_json::Value {
            self.0.inputs()
        }
        fn sources(&self) -> Sources {
            self.0.sources()
        }
        fn batch(&self, step: usize, examples: &[u64]) -> anyhow::Result<Self::Batch> {
            self.1.store(step == 1, Ordering::Relaxed);
            self.0.batch(step, examples)
        }
        fn counts(&self, batch: &Self::Batch) -> Self::Terms {
            self.0.counts(batch)
        }
        fn loss(
            &self,
            batch: &Self::Batch,
            totals: &Self::Terms,
            c: Option<&Recomputation>,
        ) -> anyhow::Result<Share<Self::Terms>> {
            let mut share = self.0.loss(batch, totals, c)?;
            if self.1.load(Ordering::Relaxed) {
                share.loss = share.loss.map(|loss| (loss * f64::NAN).unwrap());
            }
            Ok(share)
        }
        fn tokens(&self, batch: &Self::Batch) -> usize {
            self.0.tokens(batch)
        }
        fn describe(&self, batch: &Self::Batch) -> Value {
            self.0.describe(batch)
        }
    }
    let config = config(3);
    let student = Student::new(config.shape.as_ref().unwrap(), 0).unwrap();
    let objective = Bad(Nano::new(&config, &student).unwrap(), AtomicBool::new(false));
    let (run, optimizer, job) = (&config.run, &config.optimizer, &Job::default());
    let settings = Settings { stage: "sft", run, optimizer, config: Value::Null, init: None, job };
    let dir = tempfile::tempdir().unwrap();
    let error = format!("{:#}", trainer::run(&objective, &student, &settings, dir.path()).unwrap_err());
    assert!(error.contains("step 1") && error.contains("NaN"), "{error}");
    let kept: Value = serde_json::from_slice(&std::fs::read(dir.path().join("nan-step-1.json")).unwrap()).unwrap();
    assert!(kept["batches"][0][0]["response"].as_str().unwrap().contains("<poses>"), "{kept}");
    assert!(!dir.path().join("model.safetensors").exists());
}

#[test]
fn bad_settings_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = |change: fn(&mut Config)| {
        let mut config = config(1);
        change(&mut config);
        format!("{:#}", nano::run(&config, None, dir.path(), &Job::default()).unwrap_err())
    };
    for (change, part) in [
        (
            (|c| c.run.micro_batch = 3) as fn(&mut Config),
            "run.batch: expected a multiple of run.micro_batch = 3, got 4",
        ),
        (|c| c.run.epochs = 1.0, "run.steps, run.epochs"),
        (|c| (c.run.steps, c.run.epochs) = (0, 1.0), "the data has no end"),
        (|c| c.run.save_every = 0, "run.save_every"),
        (|c| c.optimizer.beta_2 = 1.0, "optimizer.beta_2: expected 0 to below 1, got 1"),
        (|c| c.nano.flow_layer = 7, "nano.flow_layer: expected less than the decoder's 2 layers, got 7"),
        (|c| c.data.synth = None, "data: expected one of shards and synth, got none"),
        (|c| c.nano.flow_only_steps = 1, "nano.flow_only_steps"),
    ] {
        let got = error(change);
        assert!(got.contains(part), "{got}");
    }
}
