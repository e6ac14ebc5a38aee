//! The programs as a person starts them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tests::process::from_environment;
use tests::root;

/// A run that is over in a second, saves each step, and is the same however many cores there are.
const SMALL: &str = "
[run]
batch = 4
micro_batch = 1
workers = 1
log_every = 1
save_every = 1
[nano]
flow_layer = 0
[shape]
hidden_size = 48
layers = 2
heads = 4
kv_heads = 2
intermediate_size = 64
vision_hidden_size = 32
vision_depth = 2
vision_heads = 4
vision_intermediate_size = 32
deepstack = [1]
min_pixels = 1024
max_pixels = 3072
";

/// `training` with these arguments.
pub fn training(arguments: &[&str]) -> Command {
    let mut command = Command::new(from_environment("EGOREASONER_TRAINING"));
    command.args(arguments).env("RAYON_NUM_THREADS", "1");
    command
}

/// `node` with these arguments.
pub fn node(arguments: &[&str]) -> Command {
    let mut command = Command::new(from_environment("EGOREASONER_NODE"));
    command.args(arguments).env_remove("ROS_DOMAIN_ID");
    command
}

/// Lets a program come to its end by itself: whether it succeeded, and all that it said. A panic, a signal and a status of
/// another kind fail the test.
pub fn end(command: &mut Command) -> (bool, String) {
    command.current_dir(root()).env("NO_COLOR", "1").env_remove("RUST_LOG").stdin(Stdio::null());
    let Output { status, stdout, stderr } = command.output().unwrap();
    let said = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(matches!(status.code(), Some(0 | 1)) && !said.contains("panicked"), "{status}: {said}");
    (status.success(), said)
}

/// Lets a program come to its end, which must be a good one.
pub fn succeed(command: &mut Command) {
    let (succeeded, said) = end(command);
    assert!(succeeded, "{said}");
}

/// Settings of a small run; its windows are drawn, or those of a folder of shards.
pub fn run_config(file: &Path, steps: i64, shards: Option<&Path>) -> PathBuf {
    let shipped = std::fs::read_to_string(root().join("config/training/nano-3-all.toml")).unwrap();
    let mut config: toml::Table = shipped.parse().unwrap();
    config.remove("eval");
    lay_over(&mut config, SMALL.parse().unwrap());
    lay_over(&mut config, format!("[run]\nsteps = {steps}\n").parse().unwrap());
    if let Some(shards) = shards {
        config.remove("data");
        let shards = toml::Value::String(shards.to_str().unwrap().to_owned());
        lay_over(&mut config, "[sft]\nfull_chain_every = 1\n[nano]\npose_weight = 0.0\n".parse().unwrap());
        let data: toml::Table = [("shards".to_owned(), shards)].into_iter().collect();
        config.insert("data".to_owned(), toml::Value::Table(data));
    }
    std::fs::write(file, toml::to_string(&config).unwrap()).unwrap();
    file.to_owned()
}

fn lay_over(below: &mut toml::Table, above: toml::Table) {
    for (key, value) in above {
        match value {
            toml::Value::Table(above) => {
                let table = below.entry(key).or_insert_with(|| toml::Value::Table(toml::Table::new()));
                lay_over(table.as_table_mut().unwrap(), above);
            }
            value => drop(below.insert(key, value)),
        }
    }
}

/// Begins a run, or goes on with it where it has a checkpoint.
pub fn run(config: &Path, out: &Path) -> Command {
    let mut command = training(&["nano", "--config"]);
    command.arg(config).arg("--out").arg(out);
    let mut saved = std::fs::read_dir(out.join("checkpoints")).into_iter().flatten();
    if saved.any(|entry| entry.unwrap().path().extension().is_none()) {
        command.arg("--resume");
    }
    command
}
