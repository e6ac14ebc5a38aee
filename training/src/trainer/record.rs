//! What is left to read of a run: its curves as pictures, and the manifest.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Objective, Run};
use crate::student::parameters;
use training_data::json::{read_json, write_json};
use training_evaluation::curves::{Curve, curves};

impl<O: Objective> Run<'_, O> {
    /// `curves/TERM.png`: each term over the steps, on what is trained on and on the hold-out.
    pub(super) fn draw(&self) -> Result<()> {
        let folder = self.out.join("curves");
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let of = |points: &[Value], term: &str| -> Vec<(f64, f64)> {
            points.iter().filter_map(|point| Some((point["step"].as_f64()?, point[term].as_f64()?))).collect()
        };
        let evaluated = self.state.evaluations.first().and_then(Value::as_object);
        let mut names: Vec<&str> = self.objective.terms().to_vec();
        names.extend(evaluated.into_iter().flat_map(|point| point.keys()).map(String::as_str));
        names.retain(|name| *name != "step");
        names.sort_unstable();
        names.dedup();
        for term in names {
            let drawn = [("training", &self.state.curve), ("hold-out", &self.state.evaluations)]
                .map(|(name, points)| Curve { name: name.to_owned(), points: of(points, term) });
            let drawn: Vec<Curve> = drawn.into_iter().filter(|curve| !curve.points.is_empty()).collect();
            if !drawn.is_empty() {
                curves(&folder.join(format!("{term}.png")), self.settings.stage, ("step", term), &drawn)?;
            }
        }
        Ok(())
    }

    /// `manifest.json`: how the weights beside it were made, stage after stage.
    pub(super) fn manifest(&self, dir: &Path) -> Result<()> {
        let mut stages = self.settings.init.map(stages).transpose()?.unwrap_or_default();
        let state = &self.state;
        stages.push(json!({
            "stage": self.settings.stage, "config": self.settings.config, "commit": commit(),
            "init": self.settings.init, "ranks": self.settings.job.collective.size(),
            "steps_done": state.step, "examples_seen": state.examples, "tokens_seen": state.tokens,
            "seconds": state.seconds.round(), "curve": state.curve, "evaluations": state.evaluations, "best": state.best,
        }));
        let parameters = parameters(&self.student.variables);
        write_json(&dir.join("manifest.json"), &json!({ "parameters": parameters, "stages": stages }))
    }
}

/// What a checkpoint's manifest says of how it was made.
fn stages(dir: &Path) -> Result<Vec<Value>> {
    let path = dir.join("manifest.json");
    if !path.is_file() {
        return Ok(Vec::new());
    }
    Ok(read_json(&path)?["stages"].as_array().cloned().unwrap_or_default())
}

/// The commit of the sources, where they are a git checkout.
fn commit() -> Option<String> {
    let mut git = std::process::Command::new("git");
    git.args(["describe", "--always", "--dirty", "--abbrev=40"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = git.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
