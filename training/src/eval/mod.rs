//! Judges weights, or an estimator that needs none, on a source of windows.

mod steps;

use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use geometry::{SceneScale, Summary, Transform, WINDOW, WindowErrors, WindowTrajectory};
use model::chain;
use model::{AnswerOptions, Device, EgoModel, Mode};
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::data::{WindowSample, parse_source};
use crate::nano::{read_json, write_json};
pub use steps::{StepErrors, StepSummary};

/// Seed of the bootstrap.
const BOOTSTRAP_SEED: u64 = 0;

/// What gives the poses.
pub enum Estimator {
    /// A checkpoint folder.
    Weights(Box<EgoModel>, AnswerOptions),
    /// The camera never moves.
    Identity,
    /// The camera goes on as from frame 0 to frame 1 of the ground truth: a bound for extrapolation, not a contender.
    ConstantVelocity,
}

impl Estimator {
    /// Loads a checkpoint folder.
    ///
    /// # Errors
    /// Those of [`EgoModel::load`].
    pub fn weights(dir: &Path, adapter: Option<&Path>, options: AnswerOptions) -> Result<Self> {
        let model = EgoModel::load_adapted(dir, adapter, &Device::Cpu).with_context(|| dir.display().to_string())?;
        Ok(Self::Weights(Box::new(model), options))
    }

    /// By name: `identity` or `constant-velocity`.
    ///
    /// # Errors
    /// Another name.
    pub fn named(name: &str) -> Result<Self> {
        match name {
            "identity" => Ok(Self::Identity),
            "constant-velocity" => Ok(Self::ConstantVelocity),
            other => bail!("--estimator: expected identity or constant-velocity, got {other}"),
        }
    }

    fn estimate(&self, sample: &WindowSample) -> Result<Outcome> {
        let start = Instant::now();
        let mut seconds = 0.0;
        let mut parses = [true; 2];
        let mut step_errors = StepErrors::default();
        let (trajectory, text, steps) = match self {
            Self::Identity => (Some(WindowTrajectory::identity()), None, None),
            Self::ConstantVelocity => {
                let step = *sample.ground_truth.anchor_from_camera[1].isometry();
                let mut poses = [Transform::identity(); WINDOW];
                for i in 1..WINDOW {
                    poses[i] = Transform::from_isometry(poses[i - 1].isometry() * step);
                }
                (Some(WindowTrajectory::new(poses)?), None, None)
            }
            Self::Weights(model, options) => {
                let patches = sample
                    .images
                    .iter()
                    .map(|image| model.preprocess(image, &sample.intrinsics))
                    .collect::<model::Result<Vec<_>>>()?;
                let frames = patches.iter().map(|p| model.encode(p)).collect::<model::Result<Vec<_>>>()?;
                let frames: Vec<_> = frames.iter().collect();
                let answer = model.answer(&frames, options)?;
                seconds = start.elapsed().as_secs_f64();
                // Where an answer parses, so would one under the grammar: only the others are asked for again.
                let other = |o: &AnswerOptions| AnswerOptions { constrained: !o.constrained, ..o.clone() };
                let own = answer.trajectory.is_ok();
                parses = match (options.constrained, own) {
                    (false, true) => [true, true],
                    (false, false) => [false, model.answer(&frames, &other(options))?.trajectory.is_ok()],
                    (true, own) => [model.answer(&frames, &other(options))?.trajectory.is_ok(), own],
                };
                let steps = (options.mode == Mode::FullChain).then(|| {
                    let parsed = chain::parse(&answer.text);
                    step_errors = StepErrors::new(&parsed, sample, &patches[0].intrinsics);
                    parsed.steps()
                });
                (answer.trajectory.ok(), Some(answer.text), steps)
            }
        };
        let scale = SceneScale { metric: sample.metric, median_depth: sample.median_depth };
        let errors = trajectory.map(|t| WindowErrors::new(&sample.ground_truth, &t, scale));
        Ok(Outcome { id: sample.id.clone(), errors, text, steps, step_errors, parses, seconds })
    }
}

struct Outcome {
    id: String,
    errors: Option<WindowErrors>,
    text: Option<String>,
    steps: Option<[bool; 5]>,
    step_errors: StepErrors,
    /// Without and with the grammar.
    parses: [bool; 2],
    seconds: f64,
}

/// Evaluates every window of `source` and writes `report.json` and `answers.jsonl` to `out`.
///
/// # Errors
/// A source or weights that can't be read; a window that can't be read ends the run with its name.
pub fn run(estimator: &Estimator, label: &str, source: &str, out: &Path) -> Result<Value> {
    let windows = parse_source(source)?;
    if windows.is_empty() {
        bail!("{source}: no windows");
    }
    std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let outcomes = (0..windows.len())
        .into_par_iter()
        .map(|i| {
            let sample = windows.sample(i)?;
            estimator.estimate(&sample).with_context(|| sample.id.clone())
        })
        .collect::<Result<Vec<_>>>()?;
    let errors: Vec<Option<WindowErrors>> = outcomes.iter().map(|o| o.errors.clone()).collect();
    let summary = Summary::new(&errors, BOOTSTRAP_SEED);
    let step_errors: Vec<StepErrors> = outcomes.iter().map(|o| o.step_errors.clone()).collect();
    let share = |n: usize| n as f64 / outcomes.len() as f64;
    let step_parse: Option<Vec<f64>> = outcomes
        .iter()
        .any(|o| o.steps.is_some())
        .then(|| (0..5).map(|k| share(outcomes.iter().filter(|o| o.steps.is_some_and(|s| s[k])).count())).collect());
    let mut seconds: Vec<f64> = outcomes.iter().map(|o| o.seconds).collect();
    seconds.sort_by(f64::total_cmp);
    let report = json!({
        "estimator": label,
        "data": source,
        "constrained_decoding": matches!(estimator, Estimator::Weights(_, o) if o.constrained),
        "final_parse": share(outcomes.iter().filter(|o| o.parses[0]).count()),
        "final_parse_constrained": share(outcomes.iter().filter(|o| o.parses[1]).count()),
        "step_parse": step_parse,
        "latency_ms_median": seconds.get(seconds.len() / 2).map(|s| s * 1e3),
        "summary": summary,
        "step_errors": steps::summary(&step_errors, BOOTSTRAP_SEED),
    });
    write_json(&out.join("report.json"), &report)?;
    let path = out.join("answers.jsonl");
    let file = std::fs::File::create(&path).with_context(|| path.display().to_string())?;
    let mut file = std::io::BufWriter::new(file);
    for outcome in &outcomes {
        let line = json!({
            "id": outcome.id, "answer": outcome.text, "seconds": outcome.seconds,
            "rre_deg": outcome.errors.as_ref().map(|e| e.rre_deg),
            "tde_deg": outcome.errors.as_ref().and_then(|e| e.tde_deg),
        });
        writeln!(file, "{line}")?;
    }
    file.flush()?;
    Ok(report)
}

/// Writes a report's main figures into a manifest, under `measured` and the name of the data.
///
/// # Errors
/// A manifest that is missing, broken or can't be written.
pub fn record(report: &Value, manifest: &Path) -> Result<()> {
    let mut all = read_json(manifest)?;
    let summary = &report["summary"];
    let data = report["data"].as_str().unwrap_or_default();
    if !all["measured"].is_object() {
        all["measured"] = json!({});
    }
    all["measured"][data] = json!({
        "constrained_decoding": report["constrained_decoding"],
        "windows": summary["windows"],
        "final_parse": report["final_parse"],
        "final_parse_constrained": report["final_parse_constrained"],
        "rre_deg_median": summary["rre_deg"]["median"],
        "tde_deg_median": summary["tde_deg"]["median"],
        "rte_abs_median": summary["rte_abs"]["median"],
        "auc_30": summary["auc_30"],
    });
    write_json(manifest, &all)
}

/// The figures of a report that a person reads first.
pub fn table(report: &Value) -> String {
    let number =
        |pointer: &str| report.pointer(pointer).and_then(Value::as_f64).map_or("-".to_owned(), |v| format!("{v:.3}"));
    let mut text = format!(
        "{} on {}\n{} windows, final_parse {} ({} under the grammar), {} of {} pairs still\n",
        report["estimator"].as_str().unwrap_or_default(),
        report["data"].as_str().unwrap_or_default(),
        report["summary"]["windows"],
        number("/final_parse"),
        number("/final_parse_constrained"),
        report["summary"]["still_pairs"],
        report["summary"]["pairs"],
    );
    if let Some(parse) = report["step_parse"].as_array() {
        let shares: Vec<String> = parse.iter().map(|v| format!("{:.3}", v.as_f64().unwrap_or(0.0))).collect();
        text.push_str(&format!("step_parse {}\n", shares.join(" ")));
    }
    text.push_str("                  median [95 %]                mean [95 %]\n");
    for (table, name, unit) in [
        ("summary", "rre_deg", "deg"),
        ("summary", "tde_deg", "deg"),
        ("summary", "rte_abs", "scene units"),
        ("summary", "rte_rel", ""),
        ("summary", "mag_log", ""),
        ("summary", "ate", "scene units"),
        ("summary", "ate_sim3", "scene units"),
        ("step_errors", "epipolar_px", "step 1, px"),
        ("step_errors", "depth_abs_rel", "step 2"),
        ("step_errors", "point_rel", "step 3"),
        ("step_errors", "own_rre_deg", "step 4 from its own points, deg"),
        ("step_errors", "printed_rre_deg", "step 4 as printed, deg"),
    ] {
        if report[table][name].is_null() {
            continue;
        }
        let of = |what: &str| {
            let part = |part: &str| number(&format!("/{table}/{name}/{what}/{part}"));
            format!("{:>8} [{}, {}]", part("value"), part("low"), part("high"))
        };
        text.push_str(&format!("{name:<16} {:<28} {:<28} {unit}\n", of("median"), of("mean")));
    }
    text.push_str(&format!("tde <= 15 deg    {:>8}\n", number("/summary/tde_within_15_share")));
    for name in ["auc_5", "auc_10", "auc_30"] {
        let part = |part: &str| number(&format!("/summary/{name}/{part}"));
        text.push_str(&format!("{name:<16} {:>8} [{}, {}]\n", part("value"), part("low"), part("high")));
    }
    text
}
