//! What a stage of training is made of, and its way from the settings to the last step, which is the same for all.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, bail};
use serde::Serialize;
use serde_json::json;

use super::config::{OptimizerConfig, RunConfig};
use super::objective::{Objective, Sources};
use super::{Finished, Job, Settings};
use crate::student::{Adapter, Shape, Student};

/// Settings of a stage.
pub trait Stage: Serialize {
    /// Its name in the manifest.
    const NAME: &'static str;

    /// What it minimises.
    type Objective<'a>: Objective
    where
        Self: 'a;

    /// `[run]` and `[optimizer]`.
    fn common(&self) -> (&RunConfig, &OptimizerConfig);

    /// The shape of a model that starts from nothing, and the adapter that is trained beside one that does not.
    fn student(&self) -> (Option<&Shape>, Option<&Adapter>);

    /// # Errors
    /// A key out of bounds, with its name.
    fn check(&self) -> Result<()>;

    /// Opens the data, reads the hold-out, and adds heads to the student: new ones, or those that `init` has.
    ///
    /// # Errors
    /// Data that can't be read, settings that do not fit the model.
    fn objective<'a>(&'a self, student: &'a Student, init: Option<&Path>) -> Result<Self::Objective<'a>>;
}

/// Runs a stage; see [`super::run`] for what it writes.
///
/// # Errors
/// Settings out of bounds, data or a checkpoint that can't be read, a hold-out of videos or scenes that are trained on,
/// and those of [`super::run`].
pub fn run<S: Stage>(stage: &S, init: Option<&Path>, out: &Path, job: &Job) -> Result<Finished> {
    stage.check()?;
    let ((run, optimizer), (shape, adapter)) = (stage.common(), stage.student());
    let student = Student::open(init, shape, adapter, run.seed, &job.device)?;
    let objective = stage.objective(&student, init)?;
    apart(&objective.sources())?;
    let config = json!({"settings": stage, "inputs": objective.inputs()});
    let settings = Settings { stage: S::NAME, run, optimizer, config, init, job };
    super::run(&objective, &student, &settings, out)
}

/// Makes sure that nothing is trained on that is held out.
fn apart(sources: &Sources) -> Result<()> {
    let trained: BTreeSet<&str> = sources.trained.iter().map(String::as_str).collect();
    let both: Vec<&str> = sources.held_out.iter().map(String::as_str).filter(|s| trained.contains(s)).collect();
    match both.first() {
        None => Ok(()),
        Some(first) => bail!(
            "eval: expected videos and scenes that are not trained on, got {} that are, such as {first}",
            both.len()
        ),
    }
}
