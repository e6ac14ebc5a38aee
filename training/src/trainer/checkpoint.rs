//! Checkpoints of a run: `checkpoints/step-000200/` holds the variables in f32, AdamW's moments, the place in the run,
//! and the model as it would be deployed. A folder has its name only once it is whole.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use candle_core::{Device, Tensor, Var};
use model::output;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::optimizer::AdamW;
use training_data::json::{read_json, write_json};

const FOLDER: &str = "checkpoints";
const VARIABLES: &str = "variables.safetensors";
const MOMENTS: &str = "optimizer.safetensors";
const STATE: &str = "state.json";
/// Settings that may differ from those of the checkpoint: they say how a run is looked at or where it runs.
const FREE: [&str; 7] = ["log_every", "eval_every", "save_every", "keep", "workers", "device", "checkpointing"];

/// The place in a run. Learning rate, data and randomness follow from the step and the settings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    /// Steps that are done.
    pub step: usize,
    /// Number of the next example of the stream.
    pub examples: u64,
    /// Tokens that went through the model.
    pub tokens: u64,
    /// Time that it took.
    pub seconds: f64,
    /// The best on the hold-out.
    pub best: Option<Best>,
    /// What was logged.
    pub curve: Vec<Value>,
    /// Figures on the hold-out.
    pub evaluations: Vec<Value>,
}

/// The best on the hold-out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Best {
    pub step: usize,
    pub loss: f64,
}

/// Writes a checkpoint. `model` writes what would be deployed.
pub(super) fn save(
    run: &Path,
    state: &State,
    config: &Value,
    variables: &[(String, Var)],
    optimizer: &AdamW,
    model: &dyn Fn(&Path) -> Result<()>,
) -> Result<()> {
    let whole = run.join(FOLDER).join(format!("step-{:06}", state.step));
    let part = whole.with_extension("part");
    if part.exists() {
        std::fs::remove_dir_all(&part).with_context(|| part.display().to_string())?;
    }
    std::fs::create_dir_all(&part).with_context(|| part.display().to_string())?;
    model(&part)?;
    let values: HashMap<String, Tensor> = variables.iter().map(|(n, v)| (n.clone(), v.as_tensor().clone())).collect();
    output::tensors(&values, None, &part.join(VARIABLES))?;
    let mut moments = HashMap::new();
    for ((name, _), (mean, square)) in variables.iter().zip(&optimizer.moments) {
        moments.insert(format!("{name}.mean"), mean.clone());
        moments.insert(format!("{name}.square"), square.clone());
    }
    output::tensors(&moments, None, &part.join(MOMENTS))?;
    write_json(&part.join(STATE), &json!({"state": state, "optimizer_steps": optimizer.steps, "config": config}))?;
    if whole.exists() {
        std::fs::remove_dir_all(&whole).with_context(|| whole.display().to_string())?;
    }
    std::fs::rename(&part, &whole).with_context(|| whole.display().to_string())
}

/// Whole checkpoints of a run, oldest first.
fn all(run: &Path) -> Result<Vec<PathBuf>> {
    let folder = run.join(FOLDER);
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry.with_context(|| folder.display().to_string())?.path();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if let Some(step) = name.strip_prefix("step-").and_then(|step| step.parse::<usize>().ok()) {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// The newest checkpoint of a run.
pub(super) fn newest(run: &Path) -> Result<Option<PathBuf>> {
    Ok(all(run)?.pop())
}

/// Deletes all but the newest `keep`.
pub(super) fn prune(run: &Path, keep: usize) -> Result<()> {
    let all = all(run)?;
    for old in &all[..all.len().saturating_sub(keep)] {
        std::fs::remove_dir_all(old).with_context(|| old.display().to_string())?;
    }
    Ok(())
}

/// Sets the variables and the optimizer to a checkpoint's.
///
/// # Errors
/// Files that are missing or broken, other settings, variables of other names or shapes.
pub(super) fn load(dir: &Path, config: &Value, variables: &[(String, Var)], optimizer: &mut AdamW) -> Result<State> {
    let stored = read_json(&dir.join(STATE))?;
    same(&stored["config"], config, "").with_context(|| format!("--resume: {}", dir.display()))?;
    let state: State =
        serde_json::from_value(stored["state"].clone()).with_context(|| dir.join(STATE).display().to_string())?;
    let read = |file: &str| {
        let path = dir.join(file);
        candle_core::safetensors::load(&path, &Device::Cpu).with_context(|| path.display().to_string())
    };
    let (values, mut moments) = (read(VARIABLES)?, read(MOMENTS)?);
    ensure!(
        values.len() == variables.len(),
        "{}: expected {} variables, got {}",
        dir.join(VARIABLES).display(),
        variables.len(),
        values.len()
    );
    for ((name, var), pair) in variables.iter().zip(&mut optimizer.moments) {
        let Some(value) = values.get(name) else { bail!("{}: {name} is missing", dir.join(VARIABLES).display()) };
        var.set(&value.to_device(var.device())?).with_context(|| name.clone())?;
        let mut moment = |which: &str| {
            let key = format!("{name}.{which}");
            let tensor =
                moments.remove(&key).with_context(|| format!("{}: {key} is missing", dir.join(MOMENTS).display()))?;
            ensure!(tensor.dims() == var.dims(), "{key}: expected {:?}, got {:?}", var.dims(), tensor.dims());
            Ok(tensor.to_device(var.device())?)
        };
        *pair = (moment("mean")?, moment("square")?);
    }
    let steps = stored["optimizer_steps"].as_u64();
    let steps = steps.with_context(|| format!("{}: optimizer_steps: expected a number", dir.join(STATE).display()))?;
    optimizer.steps = steps as usize;
    Ok(state)
}

/// Whether settings are those of the checkpoint, key by key.
fn same(old: &Value, new: &Value, path: &str) -> Result<()> {
    if let (Value::Object(a), Value::Object(b)) = (old, new) {
        for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
            if !FREE.contains(&key.as_str()) {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                same(old.get(key).unwrap_or(&Value::Null), new.get(key).unwrap_or(&Value::Null), &path)?;
            }
        }
        return Ok(());
    }
    ensure!(old == new, "{path}: the checkpoint was made with {old}, now it is {new}");
    Ok(())
}
