//! `manifest.json` beside a folder of weights, both ways: how they were made, what was measured of them, and what whoever
//! runs them is to believe of their answers.
//!
//! A file of an earlier version lacks keys: what they would say is not known then. Keys that are not known here are kept as
//! they are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use geometry::WINDOW;
use geometry::metrics::Interval;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Error;

/// Name of the file.
pub const FILE: &str = "manifest.json";

/// All that a manifest says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Manifest {
    /// How the weights were made, the first stage first.
    pub stages: Vec<Stage>,
    /// Numbers that are trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<usize>,
    /// What the weights were trained on, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Under which they may be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// What `training eval --record` measured, by the text of the source of windows.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub measured: BTreeMap<String, Measured>,
    /// How far lengths are off, from the same verb.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<MeasuredScale>,
    /// How far poses are off, from the same verb.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub covariance: Option<Covariance>,
    /// What is not known here.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// A stage of training.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stage {
    /// Its name.
    pub stage: String,
    /// Its settings, resolved, and what it read: each stage has a form of its own, which is compared and never looked into.
    pub config: Value,
    /// Of the sources, where they were a git checkout.
    pub commit: Option<String>,
    /// The folder of weights that it began with.
    pub init: Option<PathBuf>,
    /// Processes that shared the work.
    pub ranks: Option<usize>,
    /// Steps that were done.
    pub steps_done: usize,
    /// Examples of all steps; windows, in a file of an earlier version.
    #[serde(alias = "windows_seen")]
    pub examples_seen: Option<u64>,
    /// Tokens that went through the model.
    pub tokens_seen: Option<u64>,
    /// Time that it took.
    pub seconds: f64,
    /// What was logged of the steps.
    pub curve: Vec<Point>,
    /// Figures on the hold-out.
    pub evaluations: Vec<Point>,
    /// The best on the hold-out.
    pub best: Option<Best>,
    /// What is not known here.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// What was logged at a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Steps that were done.
    pub step: usize,
    /// By the names that the stage's objective gives them; nothing for what was no number.
    #[serde(flatten)]
    pub terms: BTreeMap<String, Option<f64>>,
}

impl Point {
    /// Of these terms.
    pub fn new<'a>(step: usize, terms: impl IntoIterator<Item = (&'a str, f64)>) -> Self {
        let terms = terms.into_iter().map(|(name, value)| (name.to_owned(), Some(value).filter(|v| v.is_finite())));
        Self { step, terms: terms.collect() }
    }

    /// A term; `None` where there is none of that name, or it was no number.
    pub fn term(&self, name: &str) -> Option<f64> {
        self.terms.get(name).copied().flatten()
    }
}

/// The best on the hold-out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Steps that were done.
    pub step: usize,
    /// What it is the best by.
    pub loss: f64,
}

/// The main figures of an evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Whether the answers were written under the grammar.
    #[serde(default)]
    pub constrained_decoding: bool,
    /// Windows that were judged.
    pub windows: usize,
    /// Windows that could not be read.
    #[serde(default)]
    pub unreadable: usize,
    /// Share of the windows whose answer parses.
    pub final_parse: f64,
    /// The same of what the grammar would let through.
    pub final_parse_constrained: Option<f64>,
    /// Median rotation error, degrees.
    pub rre_deg_median: Option<Interval>,
    /// Median direction error, degrees.
    pub tde_deg_median: Option<Interval>,
    /// Median translation error, scene units.
    pub rte_abs_median: Option<Interval>,
    /// Area under the curve up to 30 degrees.
    pub auc_30: Option<Interval>,
}

/// How far the lengths that weights say are off, as `log(said / true)`: `training eval` measures it, and
/// `--record` writes it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScaleErrors {
    /// Standard deviation among the windows of a film: it averages out.
    pub noise: f64,
    /// Root mean square of the films' medians, as they would be of many windows: it does not.
    pub bias: f64,
}

/// [`ScaleErrors`], and what they were measured on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeasuredScale {
    /// How far lengths are off.
    #[serde(flatten)]
    pub errors: ScaleErrors,
    /// Windows that they are of.
    pub windows: Option<usize>,
    /// Films that these are of.
    pub films: Option<usize>,
    /// The text of the source of windows.
    pub data: Option<String>,
}

/// How far the poses of frames 1 to 4 are off on each axis, in the keys of `[covariance]` of `config/node.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Covariance {
    /// Standard deviations of positions.
    pub position_stddev_metres: [f64; WINDOW - 1],
    /// Standard deviations of rotations.
    pub rotation_stddev_degrees: [f64; WINDOW - 1],
    /// The text of the source of windows.
    pub data: Option<String>,
}

impl Manifest {
    /// The manifest in this folder; `None` where there is none.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that can't be read, [`Error::Json`] for one that is no manifest.
    pub fn of(folder: &Path) -> Result<Option<Self>, Error> {
        let path = folder.join(FILE);
        if path.is_file() { crate::json::read_json(&path).map(Some) } else { Ok(None) }
    }
}

impl ScaleErrors {
    /// What the manifest in this folder says; `None` where there is no manifest, or it says nothing.
    ///
    /// # Errors
    /// Those of [`Manifest::of`]; [`Error::Config`] for errors that are no standard deviations.
    pub fn of(folder: &Path) -> Result<Option<Self>, Error> {
        let errors = Manifest::of(folder)?.and_then(|manifest| manifest.scale).map(|scale| scale.errors);
        let is_good = |errors: &Self| [errors.noise, errors.bias].iter().all(|v| v.is_finite() && *v > 0.0);
        match errors {
            Some(errors) if !is_good(&errors) => Err(Error::Config {
                key: "scale of manifest.json",
                expected: "noise and bias, finite numbers above 0".to_owned(),
                got: format!("{errors:?}"),
            }),
            errors => Ok(errors),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), text).unwrap();
        dir
    }

    /// A key that is misspelt in a struct would be one that is not known, and what it says would be nothing.
    #[test]
    fn every_key_of_the_shipped_manifest_has_a_field() {
        let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/nano");
        let manifest = Manifest::of(&nano).unwrap().unwrap();
        assert!(manifest.other.is_empty(), "{:?}", manifest.other.keys());
        for stage in &manifest.stages {
            assert!(stage.other.is_empty(), "{:?}", stage.other.keys());
            assert!(stage.examples_seen.is_some() && !stage.curve.is_empty());
        }
        // What was read is written again, number by number.
        let file: Value = crate::json::read_json(&nano.join(FILE)).unwrap();
        let again = serde_json::to_value(&manifest).unwrap();
        for key in ["data", "licence", "parameters", "scale"] {
            assert_eq!(again[key], file[key], "{key}");
        }
        let (stages, before) = (again["stages"].as_array().unwrap(), file["stages"].as_array().unwrap());
        assert_eq!(stages.len(), before.len());
        for (stage, before) in stages.iter().zip(before) {
            for key in ["stage", "config", "curve", "steps_done"] {
                assert_eq!(stage[key], before[key], "{key}");
            }
        }
        for (data, before) in file["measured"].as_object().unwrap() {
            for (key, value) in before.as_object().unwrap() {
                assert_eq!(again["measured"][data][key], *value, "{data}: {key}");
            }
        }
    }

    #[test]
    fn what_an_older_file_lacks_is_nothing_and_what_is_not_known_is_kept() {
        let dir = written(r#"{"stages": [{"stage": "sft", "steps_done": 3, "windows_seen": 12}], "notes": ["mine"]}"#);
        let manifest = Manifest::of(dir.path()).unwrap().unwrap();
        let stage = &manifest.stages[0];
        assert_eq!((stage.steps_done, stage.examples_seen, stage.tokens_seen), (3, Some(12), None));
        assert!(manifest.scale.is_none() && manifest.measured.is_empty() && stage.best.is_none());
        assert_eq!(serde_json::to_value(&manifest).unwrap()["notes"][0], "mine");
        assert_eq!(Manifest::of(&dir.path().join("none")).unwrap(), None);
    }

    #[test]
    fn a_term_that_was_no_number_is_read_as_none() {
        let point = Point::new(5, [("loss", 0.25), ("depth", f64::NAN)]);
        let text = serde_json::to_string(&point).unwrap();
        assert_eq!(text, r#"{"step":5,"depth":null,"loss":0.25}"#);
        let read: Point = serde_json::from_str(&text).unwrap();
        assert_eq!((&read, read.term("loss"), read.term("depth")), (&point, Some(0.25), None));
        assert!(serde_json::from_str::<Point>(r#"{"loss": 1}"#).is_err(), "a point without a step is none");
    }

    #[test]
    fn a_manifest_that_is_none_is_an_error_with_its_file_and_errors_of_the_scale_are_over_zero() {
        let broken = written(r#"{"stages": [], "scale": {"nois": 0.5, "bias": 0.6}}"#);
        let error = ScaleErrors::of(broken.path()).unwrap_err().to_string();
        assert!(error.contains(FILE) && error.contains("noise"), "{error}");
        let zero = written(r#"{"scale": {"noise": 0.0, "bias": 0.6}}"#);
        assert!(ScaleErrors::of(zero.path()).unwrap_err().to_string().contains("above 0"));
        let good = written(r#"{"scale": {"noise": 0.5, "bias": 0.6, "windows": 3}}"#);
        assert_eq!(ScaleErrors::of(good.path()).unwrap(), Some(ScaleErrors { noise: 0.5, bias: 0.6 }));
        assert_eq!(ScaleErrors::of(written("{}").path()).unwrap(), None);
    }
}
