//! Checkpoints of a run: `checkpoints/step-000200/` holds the variables in f32, AdamW's moments, the place in the run,
//! and the model as it would be deployed. A folder has its name only once it is whole, and `state.json` a digest of each
//! file beside it and of itself: what has changed since is not gone on with.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, bail, ensure};
use candle_core::{Device, Tensor, Var};
use model::output;
use model::weights::manifest::{Best, Point};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::optimizer::AdamW;
use training_data::digest;
use training_data::json::{read, write};

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
    pub curve: Vec<Point>,
    /// Figures on the hold-out.
    pub evaluations: Vec<Point>,
}

/// `state.json`
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    state: State,
    /// Steps of AdamW.
    optimizer_steps: usize,
    /// What the run was made with.
    config: Value,
    /// SHA-256 of each file beside it, by name.
    files: BTreeMap<String, String>,
    /// SHA-256 of all the above.
    digest: String,
}

impl Stored {
    /// That of all but itself.
    fn own_digest(&self) -> String {
        let Self { state, optimizer_steps, config, files, .. } = self;
        let all = json!({"state": state, "optimizer_steps": optimizer_steps, "config": config, "files": files});
        digest::of(all.to_string().as_bytes())
    }

    /// Whether it says what was written, and lies where it was written.
    fn check(&self, dir: &Path) -> Result<()> {
        let (path, own) = (dir.join(STATE), self.own_digest());
        ensure!(
            self.digest == own,
            "{}: expected the digest {own} of what it says, got {}",
            path.display(),
            self.digest
        );
        let (step, name) = (self.state.step, folder_name(self.state.step));
        ensure!(dir.ends_with(&name), "{}: expected the folder {name}, since {step} steps are done", path.display());
        Ok(())
    }

    /// Compares a file with its digest.
    fn compare(&self, path: &Path, got: &str) -> Result<()> {
        let name = name_of(path);
        let expected = self.files.get(&name).with_context(|| format!("{STATE}: no digest of {name}"))?;
        ensure!(expected == got, "{}: expected SHA-256 {expected}, as {STATE} says, got {got}", path.display());
        Ok(())
    }

    /// Compares all files beside it but some.
    fn compare_all(&self, dir: &Path, but: &[&str]) -> Result<()> {
        for name in self.files.keys().filter(|name| !but.contains(&name.as_str())) {
            let path = dir.join(name);
            self.compare(&path, &digest::of_file(&path)?)?;
        }
        Ok(())
    }

    /// Tensors of a file that has its digest; read once, so that what is compared is what is used.
    fn tensors(&self, path: &Path) -> Result<HashMap<String, Tensor>> {
        let place = || path.display().to_string();
        let bytes = std::fs::read(path).with_context(place)?;
        self.compare(path, &digest::of(&bytes))?;
        candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).with_context(place)
    }
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
    let whole = run.join(FOLDER).join(folder_name(state.step));
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
    let (state, config, files) = (state.clone(), config.clone(), digests(&part)?);
    let mut stored = Stored { state, optimizer_steps: optimizer.steps, config, files, digest: String::new() };
    stored.digest = stored.own_digest();
    write(&part.join(STATE), &stored)?;
    if whole.exists() {
        std::fs::remove_dir_all(&whole).with_context(|| whole.display().to_string())?;
    }
    std::fs::rename(&part, &whole).with_context(|| whole.display().to_string())
}

fn folder_name(step: usize) -> String {
    format!("step-{step:06}")
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// What is in a folder.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read =
        || -> std::io::Result<Vec<PathBuf>> { std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect() };
    read().with_context(|| folder.display().to_string())
}

/// Digests of the files in a folder, by name.
fn digests(folder: &Path) -> Result<BTreeMap<String, String>> {
    let of = |path: PathBuf| Ok((name_of(&path), digest::of_file(&path)?));
    entries(folder)?.into_iter().map(of).collect()
}

/// Checkpoints in their folder, oldest first.
fn all(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for path in entries(folder)? {
        if let Some(step) = name_of(&path).strip_prefix("step-").and_then(|step| step.parse::<usize>().ok()) {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// The newest checkpoint of a run.
pub(super) fn newest(run: &Path) -> Result<Option<PathBuf>> {
    Ok(all(&run.join(FOLDER))?.pop())
}

/// Deletes all but the newest `keep`.
pub(super) fn prune(run: &Path, keep: usize) -> Result<()> {
    let all = all(&run.join(FOLDER))?;
    for old in &all[..all.len().saturating_sub(keep)] {
        std::fs::remove_dir_all(old).with_context(|| old.display().to_string())?;
    }
    Ok(())
}

/// Sets the variables and the optimizer to a checkpoint's, of a run that ends with step `end`.
///
/// # Errors
/// Files that are missing, broken or not those that were written, with what there is to go on from instead; a place behind
/// the end; other settings, variables of other names or shapes.
pub(super) fn load(
    dir: &Path,
    end: usize,
    config: &Value,
    variables: &[(String, Var)],
    optimizer: &mut AdamW,
) -> Result<State> {
    let damaged = |error: Error| error.context(way_on(dir));
    let path = dir.join(STATE);
    let stored: Stored = read(&path).map_err(damaged)?;
    let done = stored.state.step;
    ensure!(done <= end, "--resume: {}: expected at most the settings' {end} steps, got {done}", path.display());
    stored.check(dir).map_err(damaged)?;
    same(&stored.config, config, "").with_context(|| format!("--resume: {}", dir.display()))?;
    stored.compare_all(dir, &[VARIABLES, MOMENTS]).map_err(damaged)?;
    let read = |file: &str| stored.tensors(&dir.join(file)).map_err(damaged);
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
    optimizer.steps = stored.optimizer_steps;
    Ok(stored.state)
}

/// What to do about a damaged checkpoint. The one before it is never taken in silence: the steps since are lost.
fn way_on(dir: &Path) -> String {
    let whole = |dir: &Path| -> Result<()> {
        let stored: Stored = read(&dir.join(STATE))?;
        stored.check(dir)?;
        stored.compare_all(dir, &[])
    };
    let others = dir.parent().and_then(|folder| all(folder).ok()).unwrap_or_default();
    let before =
        others.iter().rev().skip_while(|other| other.as_path() != dir).skip(1).find(|other| whole(other).is_ok());
    let name = name_of(dir);
    match before {
        Some(before) => format!(
            "--resume: {} is damaged; the newest whole checkpoint before it is {}: to go on from there, rename the \
             damaged folder to {name}.damaged, and --resume again",
            dir.display(),
            name_of(before)
        ),
        None => format!(
            "--resume: {} is damaged, and no checkpoint before it is whole: begin anew with another --out",
            dir.display()
        ),
    }
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
