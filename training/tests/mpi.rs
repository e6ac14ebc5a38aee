//! Two ranks under mpirun: the run of one process, and the end of the job when one of them dies.
#![cfg(feature = "mpi")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use candle_core::Tensor;
use model::Device;
use model::answer::budget::Budget;
use model::weights::manifest::{Manifest, Stage};
use training::nano::config::read_config;
use training::sft::EvalConfig;
use training::student::{Adapter, Shape, Student};

/// A base, and settings of an adapter beside it.
fn prepare(dir: &Path, steps: usize) -> (PathBuf, PathBuf) {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/training/nano-3-all.toml");
    let mut config = read_config(&shipped).unwrap().plain();
    // Heads as nano has them, each of them narrow.
    let shape = Shape { heads: 4, kv_heads: 2, vision_heads: 4, deepstack: vec![1], ..Shape::tiny() };
    config.shape = None;
    let base = dir.join("base");
    Student::new(&shape, 0).unwrap().save(&base).unwrap();
    (config.run.steps, config.run.batch, config.run.micro_batch, config.run.workers) = (steps, 4, 1, 1);
    (config.run.log_every, config.run.save_every) = (1, 2);
    config.eval = Some(EvalConfig { shards: None, examples: 2, answers: 0, max_tokens: Budget::Auto });
    config.lora = Some(Adapter { r: 4, alpha: 8.0, dropout: 0.2, targets: vec!["q_proj".into(), "up_proj".into()] });
    let path = dir.join("sft.toml");
    std::fs::write(&path, toml::to_string(&config).unwrap()).unwrap();
    (base, path)
}

fn command(ranks: usize, base: &Path, config: &Path, out: &Path) -> Command {
    let binary = env!("CARGO_BIN_EXE_training");
    let mut command = match ranks {
        1 => Command::new(binary),
        _ => {
            let mut command = Command::new("mpirun");
            command.args([
                "--allow-run-as-root",
                "--oversubscribe",
                "--bind-to",
                "none",
                "-n",
                &ranks.to_string(),
                binary,
            ]);
            command
        }
    };
    command.args(["sft", "--config"]).arg(config).arg("--init").arg(base).arg("--out").arg(out);
    command.stdin(Stdio::null());
    command
}

fn variables(run: &Path, steps: usize) -> HashMap<String, Tensor> {
    let path = run.join(format!("checkpoints/step-{steps:06}/variables.safetensors"));
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn two_ranks_are_one_process_with_the_same_batch() {
    let dir = tempfile::tempdir().unwrap();
    let (base, config) = prepare(dir.path(), 4);
    let run = |ranks: usize| {
        let out = dir.path().join(format!("ranks-{ranks}"));
        let output = command(ranks, &base, &config, &out).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        (variables(&out, 4), Manifest::of(&out).unwrap().unwrap().stages.swap_remove(0))
    };
    let ((one, alone), (two, together)) = (run(1), run(2));
    assert_eq!((alone.ranks, together.ranks), (Some(1), Some(2)));
    for step in 0..4 {
        let loss = |stage: &Stage| stage.curve[step].term("loss").unwrap();
        let (a, b) = (loss(&alone), loss(&together));
        assert!((a - b).abs() < 1e-5 * a, "step {step}: {a} {b}");
    }
    let norm = |t: &Tensor| t.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
    let size: f32 = one.values().map(norm).sum();
    let far: f32 = one.iter().map(|(n, t)| norm(&(t - &two[n]).unwrap())).sum();
    assert!((far / size).sqrt() < 1e-3, "{}", (far / size).sqrt());
}

#[test]
fn a_rank_that_dies_ends_the_job_and_the_last_checkpoint_is_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let (base, config) = prepare(dir.path(), 100_000);
    let out = dir.path().join("run");
    let job = command(2, &base, &config, &out).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while !out.join("checkpoints/step-000004").is_dir() {
        assert!(Instant::now() < deadline, "no checkpoint");
        std::thread::sleep(Duration::from_millis(50));
    }
    let rank = children(job.id()).pop().unwrap();
    assert!(Command::new("kill").args(["-9", &rank.to_string()]).status().unwrap().success());
    let output = job.wait_with_output().unwrap();
    assert!(!output.status.success());
    let said = said(&output);
    assert!(said.contains("signal 9") || said.contains("Killed"), "{said}");

    let text = std::fs::read_to_string(&config).unwrap();
    let newest = std::fs::read_dir(out.join("checkpoints"))
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_prefix("step-")?.parse::<usize>().ok());
    let newest = newest.max().unwrap();
    // The rate follows from the number of steps, so that number stays; a signal ends the run instead.
    assert!(text.contains("steps = 100000"));
    let mut again = command(1, &base, &config, &out);
    let again = again.arg("--resume").stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    while !out.join(format!("checkpoints/step-{:06}", newest + 2)).is_dir() {
        assert!(Instant::now() < deadline, "no further checkpoint");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(Command::new("kill").args(["-TERM", &again.id().to_string()]).status().unwrap().success());
    let output = again.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "stopped, with a checkpoint");
}

/// Processes whose parent is `parent`.
fn children(parent: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name in brackets may hold spaces; state and parent follow it.
        let parent_of = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
        if parent_of == Some(parent) {
            found.push(pid);
        }
    }
    found
}
