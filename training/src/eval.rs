//! Judges weights, or an estimator that needs none, on a source of windows.

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
use crate::nano::write_json;

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
                let frames = sample
                    .images
                    .iter()
                    .map(|image| model.encode(&model.preprocess(image, &sample.intrinsics)?))
                    .collect::<model::Result<Vec<_>>>()?;
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
                let steps = (options.mode == Mode::FullChain).then(|| chain::parse(&answer.text).steps());
                (answer.trajectory.ok(), Some(answer.text), steps)
            }
        };
        let scale = SceneScale { metric: sample.metric, median_depth: sample.median_depth };
        let errors = trajectory.map(|t| WindowErrors::new(&sample.ground_truth, &t, scale));
        Ok(Outcome { id: sample.id.clone(), errors, text, steps, parses, seconds })
    }
}

struct Outcome {
    id: String,
    errors: Option<WindowErrors>,
    text: Option<String>,
    steps: Option<[bool; 5]>,
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

/// The figures of a report that a person reads first.
pub fn table(report: &Value) -> String {
    let number =
        |pointer: &str| report.pointer(pointer).and_then(Value::as_f64).map_or("-".to_owned(), |v| format!("{v:.3}"));
    let mut text = format!(
        "{} on {}\n{} windows, final_parse {} ({} under the grammar)\n",
        report["estimator"].as_str().unwrap_or_default(),
        report["data"].as_str().unwrap_or_default(),
        report["summary"]["windows"],
        number("/final_parse"),
        number("/final_parse_constrained"),
    );
    text.push_str("                median [95 %]                mean\n");
    for (name, unit) in [
        ("rre_deg", "deg"),
        ("tde_deg", "deg"),
        ("rte_abs", "scene units"),
        ("rte_rel", ""),
        ("mag_log", ""),
        ("ate", "scene units"),
        ("ate_sim3", "scene units"),
    ] {
        let of = |what: &str, part: &str| number(&format!("/summary/{name}/{what}/{part}"));
        text.push_str(&format!(
            "{name:<10} {:>8} [{}, {}] {:>12}  {unit}\n",
            of("median", "value"),
            of("median", "low"),
            of("median", "high"),
            of("mean", "value"),
        ));
    }
    for name in ["auc_5", "auc_10", "auc_30"] {
        text.push_str(&format!("{name:<10} {:>8}\n", number(&format!("/summary/{name}/value"))));
    }
    text
}
