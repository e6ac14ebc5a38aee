//! What is left to read of a run: its curves as pictures, and the manifest.

use std::path::Path;

use anyhow::{Context, Result};
use model::weights::manifest::{self, Manifest, Point, Stage};

use super::{Objective, Run, Terms};
use crate::student::parameters;
use training_data::json::write;
use training_evaluation::curves::{Curve, curves};

impl<O: Objective> Run<'_, O> {
    /// `curves/TERM.png`: each term over the steps, on what is trained on and on the hold-out.
    pub(super) fn draw(&self) -> Result<()> {
        let folder = self.out.join("curves");
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let of = |points: &[Point], term: &str| -> Vec<(f64, f64)> {
            points.iter().filter_map(|point| Some((point.step as f64, point.term(term)?))).collect()
        };
        let mut names: Vec<&str> = <O::Terms as Terms>::NAMES.to_vec();
        names.extend(self.state.evaluations.iter().take(1).flat_map(|point| point.terms.keys()).map(String::as_str));
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
        let (settings, state) = (self.settings, &self.state);
        // What was measured of the weights before is not of these.
        let before = settings.init.map(Manifest::of).transpose()?.flatten();
        let mut stages = before.map(|manifest| manifest.stages).unwrap_or_default();
        stages.push(Stage {
            stage: settings.stage.to_owned(),
            config: settings.config.clone(),
            commit: commit(),
            init: settings.init.map(Path::to_owned),
            ranks: Some(settings.job.collective.size()),
            steps_done: state.step,
            examples_seen: Some(state.examples),
            tokens_seen: Some(state.tokens),
            seconds: state.seconds.round(),
            curve: state.curve.clone(),
            evaluations: state.evaluations.clone(),
            best: state.best,
            ..Stage::default()
        });
        let parameters = Some(parameters(&self.student.variables));
        write(&dir.join(manifest::FILE), &Manifest { parameters, stages, ..Manifest::default() })
    }
}

/// The commit of the sources, where they are a git checkout.
fn commit() -> Option<String> {
    let mut git = std::process::Command::new("git");
    git.args(["describe", "--always", "--dirty", "--abbrev=40"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = git.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
