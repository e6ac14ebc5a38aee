//! Judges weights, or an estimator that needs none, on a source of windows.
//!
//! Made for a reader who does not believe it: every window counts, every figure has an interval, the poses themselves
//! are written in a format that other tools read, and what a camera that never moves would get stands beside it.
//! Metrics are those of [`geometry::metrics`]; none is computed anew here.

mod align;
mod calibration;
mod compare;
mod covariance;
mod coverage;
mod egoreasoner;
mod estimator;
mod figures;
mod files;
mod film;
mod plot;
mod question;
mod report;
mod rows;
mod scale;
mod steps;
mod strata;

use std::collections::{BTreeMap, HashSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use geometry::{Anchor, Camera, SceneScale, Stamp, Stamped, Transform, WINDOW, WindowErrors, WindowTrajectory, tum};
use model::answer::budget::Budget;
use model::answer::fill::Fill;
use model::weights::manifest::{self, Covariance, Manifest, Measured, MeasuredScale, ScaleErrors};
use model::{AnswerOptions, Mode};
use rayon::prelude::*;

pub use calibration::{Calibration, Sigmas};
pub use compare::{CompareArgs, Comparison, Difference, Side, compare};
pub use covariance::{FilmCoverage, Invented, OwnCoverage};
pub use coverage::Coverage;
pub use egoreasoner::{TablesArgs, egoreasoner};
use estimator::Estimate;
pub use estimator::Estimator;
pub use figures::Adjusted;
pub use files::{Answers, TumFolder, TumTrajectory};
use files::{JudgedLine, Said, WrittenLine};
pub use film::{AllFilms, FilmFigures, FilmReport, FilmWindows, Millis, Over, PathFigures, RefusedFrames};
pub use question::Question;
pub use report::{Asked, Failures, Report, Reversed, Scale, StratumRow, Unreadable, table, tables};
pub use rows::{Against, Group, Mark, Row, Rows, Versus};
pub use scale::ScaleFigures;
pub use steps::{StepErrors, StepSummary};
use training_data::json;
use training_data::synth::Stratum;
use training_data::{Skipped, WindowSample, WindowSource, parse_source};

/// Windows at a time where a GPU answers: one is read or rendered while another is answered. Each takes memory of the GPU.
const GPU_WINDOWS: usize = 2;
/// Seed of the bootstrap.
const BOOTSTRAP_SEED: u64 = 0;

/// The arguments of the verb `eval`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Checkpoint folder.
    #[arg(long, required_unless_present = "estimator")]
    pub weights: Option<PathBuf>,
    /// In place of weights: identity, constant-velocity, tracks, tum:PATH (a folder with ID.tum for each window, or one file of
    /// a whole trajectory, camera to world), answers:FILE (the answers.jsonl of an earlier run) or openai:URL[#MODEL]
    /// (an OpenAI-compatible endpoint, as http://127.0.0.1:8000/v1#qwen; its key is read from OPENAI_API_KEY).
    #[arg(long, conflicts_with = "weights")]
    pub estimator: Option<String>,
    /// synth:seed=9001,windows=500, or a folder with a sequence.json, or a folder of such folders. With --film
    /// synth:seed=9001,films=4,frames=200, or such a folder.
    #[arg(long)]
    pub data: String,
    /// Judge whole films, a pose a frame, in place of windows (--estimator tracks alone), and beside them the windows that
    /// the stream of poses gives.
    #[arg(long, requires = "estimator", conflicts_with_all = ["covariance", "up_to_scale", "explain", "refine", "rows"])]
    pub film: bool,
    /// Frames from one frame of a film's window to the next, 1 to 8.
    #[arg(long, default_value_t = 1, requires = "film")]
    pub stride: usize,
    /// Judge the exact window of the pictures with the estimator's poses as a prior, and write rows.md, where the
    /// estimator alone and the program alone stand beside it. The prior's covariance is that of --covariance, or of the
    /// manifest of the weights.
    #[arg(long, conflicts_with_all = ["record", "reversed"])]
    pub refine: bool,
    /// Judge the estimator, and write the rows of --refine.
    #[arg(long, conflicts_with_all = ["record", "reversed"])]
    pub rows: bool,
    /// answer_only or full_chain.
    #[arg(long, default_value = "answer_only")]
    pub mode: Mode,
    /// LoRA adapter folder to put beside the weights.
    #[arg(long, requires = "weights")]
    pub adapter: Option<PathBuf>,
    /// Where the weights answer: cpu, cuda or cuda:N.
    #[arg(long, default_value = "cpu", requires = "weights")]
    pub device: String,
    /// Write only what follows the grammar of answers.
    #[arg(long)]
    pub constrained: bool,
    /// What the program writes of an answer: none; arithmetic, which is all that the grammar determines and steps 3 and 4; or
    /// measured, which is also the points of step 1 and the exact poses of the tracks in the unit of the model's depths
    #[arg(long, default_value = "none", requires = "weights")]
    pub fill: Fill,
    /// Whether tokens that the answer before makes likely are read ahead, which is faster and chooses the same.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, requires = "weights")]
    pub speculate: bool,
    /// Write the figures into the manifest.json of the weights.
    #[arg(long, requires = "weights", conflicts_with_all = ["adapter", "up_to_scale"])]
    pub record: bool,
    /// Tokens after which an answer is given up: "auto" is what the longest one of --mode takes with the tokenizer of the weights,
    /// and with --estimator a token a byte of it
    #[arg(long, default_value_t)]
    pub max_tokens: Budget,
    /// For estimators that cannot know lengths: multiply each window's translations by the one factor that brings them
    /// nearest to the truth. The report says so.
    #[arg(long)]
    pub up_to_scale: bool,
    /// Ask for each window backwards too, and report how far the two answers disagree.
    #[arg(long, requires = "weights")]
    pub reversed: bool,
    /// The node's config whose `[covariance]` is judged against the errors, and believed by --refine: config/node.toml.
    #[arg(long)]
    pub covariance: Option<PathBuf>,
    /// Requests at a time to an endpoint.
    #[arg(long, default_value_t = 4)]
    pub concurrency: usize,
    /// Tell an endpoint the form of the answer, of --mode full_chain with geometric hints for each step, and the unit of the data:
    /// for models that were not trained on it.
    #[arg(long, requires = "estimator")]
    pub explain: bool,
    /// Folder of report.json, tables.md, errors.png, answers.jsonl and tum/.
    #[arg(long, default_value = "runs/eval")]
    pub out: PathBuf,
}

/// What the verb `eval` has to say.
#[derive(Debug, Clone)]
pub struct Done {
    /// The figures that a person reads first.
    pub text: String,
    /// Whether every window could be read and asked for.
    pub complete: bool,
}

impl Done {
    /// The exit status: 1 where a window could not be read, or the request for it failed.
    pub fn status(&self) -> ExitCode {
        if self.complete { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// The verb `eval`; windows run side by side, one thread each.
///
/// # Errors
/// Those of [`run_with`]; weights or files of an estimator that cannot be read.
pub fn main(args: &Args) -> Result<Done> {
    if args.film {
        return film::main(args);
    }
    let options = AnswerOptions {
        mode: args.mode,
        max_tokens: args.max_tokens,
        // What is filled in follows the grammar.
        constrained: args.constrained || args.fill != Fill::None,
        fill: args.fill,
        speculate: args.speculate,
        ..AnswerOptions::default()
    };
    let (judged, label) = match (&args.weights, &args.estimator) {
        (Some(dir), _) => {
            let device = model::device(&args.device).context("--device")?;
            (Estimator::weights(dir, args.adapter.as_deref(), &device, options)?, dir.display().to_string())
        }
        (None, Some(name)) => {
            let question = Question { mode: args.mode, max_tokens: args.max_tokens, explain: args.explain };
            (Estimator::asked(name, question)?, name.clone())
        }
        (None, None) => bail!("expected --weights or --estimator"),
    };
    let sigmas = args.covariance.as_deref().map(Sigmas::of_node).transpose()?;
    let settings = Settings {
        up_to_scale: args.up_to_scale,
        reversed: args.reversed,
        sigmas,
        ..Settings::new(&label, &args.data)
    };
    // A thread waits for its request.
    let threads = match judged.endpoint() {
        Some(_) => args.concurrency.max(1),
        None if judged.is_on_gpu() => GPU_WINDOWS,
        None => std::thread::available_parallelism()?.get(),
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    if args.refine || args.rows {
        let sigmas = believed(args, sigmas)?;
        let judged = rows::Judged { model: judged, sigmas, headline: args.refine };
        return pool.install(|| rows::run(&judged, &settings, &args.out));
    }
    let report = pool.install(|| run_with(&judged, &settings, &args.out))?;
    if let (true, Some(dir)) = (args.record, &args.weights) {
        record(&report, &dir.join(manifest::FILE))?;
    }
    Ok(done(&report))
}

/// The covariance of a prior.
fn believed(args: &Args, given: Option<Sigmas>) -> Result<Sigmas> {
    if let Some(sigmas) = given {
        return Ok(sigmas);
    }
    let of_weights = match &args.weights {
        Some(dir) => Sigmas::of_weights(dir)?,
        None => None,
    };
    of_weights.context(
        "--refine, --rows: expected --covariance config/node.toml, or a covariance in the manifest of the weights, which \
         eval --record writes",
    )
}

/// What the verb says of a report.
fn done(report: &Report) -> Done {
    let mut text = table(report);
    let failures = report.errors.as_ref().filter(|errors| errors.count > 0);
    if let Some(Failures { count, texts }) = failures {
        let first = texts.keys().next().map_or("see report.json", String::as_str);
        text.push_str(&format!("{count} windows have no answer since their requests failed: {first}\n"));
    }
    Done { text, complete: report.unreadable.count == 0 && failures.is_none() }
}

/// What [`run_with`] judges, and how.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a> {
    /// Name of the estimator in the report.
    pub label: &'a str,
    /// Text of the source of windows: see [`parse_source`].
    pub source: &'a str,
    /// Multiply each window's translations by one least-squares factor to the truth before they are judged.
    pub up_to_scale: bool,
    /// Have each window answered backwards too; weights only.
    pub reversed: bool,
    /// Standard deviations to be judged against the errors.
    pub sigmas: Option<Sigmas>,
}

impl<'a> Settings<'a> {
    /// At the estimate's own scale, forwards.
    pub fn new(label: &'a str, source: &'a str) -> Self {
        Self { label, source, up_to_scale: false, reversed: false, sigmas: None }
    }
}

/// One window, judged.
struct Outcome {
    id: String,
    /// The film that it is of.
    film: String,
    /// Whether its lengths are metres.
    metric: bool,
    stamps: [Stamp; WINDOW],
    truth: WindowTrajectory,
    /// Poses as given, whatever the scale that they are judged at.
    estimate: Estimate,
    errors: Option<WindowErrors>,
    /// What the translations were multiplied by.
    factor: Option<f64>,
    /// Errors of a camera that never moves.
    still: WindowErrors,
    strata: Vec<&'static str>,
    /// What the generator was asked for.
    synth: Option<Stratum>,
    /// The answer backwards against the answer forwards, turned around.
    residual: Option<WindowErrors>,
}

/// [`run_with`] at the scale as given, forwards alone.
///
/// # Errors
/// Those of [`run_with`].
pub fn run(estimator: &Estimator, label: &str, source: &str, out: &Path) -> Result<Report> {
    run_with(estimator, &Settings::new(label, source), out)
}

/// Evaluates every window of a source and returns the report. Writes to `out`:
/// * `report.json`: all figures;
/// * `tables.md`: headline, steps of chains and strata, as Markdown;
/// * `errors.png`: how RRE and TDE are distributed, with a camera that never moves beside it;
/// * `answers.jsonl`: a line a window, what [`compare`] and the estimator `answers:` read;
/// * `tum/ID.tum` for each answered window and `tum/ID.gt.tum` for every one: `anchor_from_camera` at the frames'
///   stamps, as given where [`Settings::up_to_scale`].
///
/// A window that cannot be read is named in the log and in the report under `unreadable`, and the others go on. One for
/// which an endpoint fails has no answer, and is counted in the report under `errors`. One whose pictures tell no poses has
/// none either, and is counted under `refusals`: that is a result, also where it is so of every window.
///
/// But for times the report is the same on any number of threads.
///
/// # Errors
/// A source that cannot be read, without a window, or with two of one name; not one window that can be read; an
/// estimator that fails, an endpoint for every window; a file that cannot be written.
pub fn run_with(estimator: &Estimator, settings: &Settings<'_>, out: &Path) -> Result<Report> {
    let Settings { source, .. } = settings;
    ensure!(
        !settings.reversed || matches!(estimator, Estimator::Weights(..)),
        "only weights can be asked for a window backwards"
    );
    let windows = parse_source(source)?;
    if windows.is_empty() {
        bail!("{source}: no windows");
    }
    let judged = (0..windows.len())
        .into_par_iter()
        .map(|index| judge(estimator, settings, &windows, index))
        .collect::<Result<Vec<_>>>()?;
    let (outcomes, unreadable) = parted(judged);
    let origin = Origin { skipped: windows.skipped(), truth: windows.truth() };
    finish(estimator, settings, &outcomes, &unreadable, &origin, out)
}

/// What a report says of where its windows are from.
struct Origin<'a> {
    skipped: &'a [Skipped],
    /// Whose word the poses are, where recordings leave a choice.
    truth: Vec<String>,
}

/// The windows that were judged, and those that could not be read.
fn parted<T>(judged: Vec<Result<T, Unreadable>>) -> (Vec<T>, Vec<Unreadable>) {
    let (mut outcomes, mut unreadable) = (Vec::new(), Vec::new());
    for window in judged {
        match window {
            Ok(outcome) => outcomes.push(outcome),
            Err(window) => unreadable.push(window),
        }
    }
    (outcomes, unreadable)
}

/// Makes the report of the windows and writes all files.
fn finish(
    estimator: &Estimator,
    settings: &Settings<'_>,
    outcomes: &[Outcome],
    unreadable: &[Unreadable],
    origin: &Origin<'_>,
    out: &Path,
) -> Result<Report> {
    let Settings { source, .. } = settings;
    if let (true, Some(first)) = (outcomes.is_empty(), unreadable.first()) {
        bail!("{source}: not one of {} windows can be read: {}", unreadable.len(), first.error);
    }
    let mut ids = HashSet::new();
    for outcome in outcomes {
        ensure!(ids.insert(outcome.id.as_str()), "{source}: two windows are called {}", outcome.id);
    }
    let failed: Vec<&str> = outcomes.iter().filter_map(|o| o.estimate.error.as_deref()).collect();
    if let (true, Some(first)) = (failed.len() == outcomes.len(), failed.first()) {
        bail!("not one of {} windows has an answer: {first}", failed.len());
    }
    let has_none = |o: &Outcome| o.estimate.trajectory.is_none() && o.estimate.text.is_none();
    if let (true, Some(first)) = (estimator.is_in_files() && outcomes.iter().all(has_none), outcomes.first()) {
        let [from, .., to] = first.stamps.map(|stamp| stamp.nanos as f64 * 1e-9);
        bail!(
            "{}: expected answers to the windows of {source}, got one to none of {}; the first is called {} and is from \
             {from:.3} to {to:.3} s",
            settings.label,
            outcomes.len(),
            first.id
        );
    }
    if outcomes.iter().all(|o| o.errors.is_none()) {
        let told = estimator.endpoint().is_none_or(|(_, question)| question.explain);
        let hint = if told { "" } else { "; a model that was not trained on the form needs --explain" };
        tracing::warn!(estimator = settings.label, "not one window has an answer that parses{hint}");
    }
    let cut = outcomes.iter().filter(|o| o.estimate.cut && o.errors.is_none()).count();
    if cut > 0 {
        tracing::warn!("{cut} answers do not parse since they were cut off at the limit of tokens: raise --max-tokens");
    }
    let mut report = Report::new(estimator, settings, outcomes, unreadable, origin);
    if let Some((endpoint, question)) = estimator.endpoint() {
        let mut texts = BTreeMap::<String, usize>::new();
        for text in &failed {
            *texts.entry((*text).to_owned()).or_default() += 1;
        }
        report.errors = Some(Failures { count: failed.len(), texts });
        report.endpoint = Some(Asked {
            model: endpoint.model().to_owned(),
            mode: question.mode,
            max_tokens: question.most_tokens(),
            explained: question.explain,
        });
    }
    write(estimator, settings, outcomes, &report, out)?;
    Ok(report)
}

fn judge(
    estimator: &Estimator,
    settings: &Settings<'_>,
    windows: &WindowSource,
    index: u64,
) -> Result<Result<Outcome, Unreadable>> {
    let sample = match read(windows, index) {
        Ok(sample) => sample,
        Err(window) => return Ok(Err(window)),
    };
    let estimate = estimator.estimate(&sample, settings.reversed).with_context(|| sample.id.clone())?;
    Ok(Ok(Known::new(&sample, windows.stratum()).judged(estimate, settings.up_to_scale)))
}

fn read(windows: &WindowSource, index: u64) -> Result<WindowSample, Unreadable> {
    windows.sample(index).map_err(|error| {
        let error = error.to_string();
        tracing::warn!(index, "window cannot be read: {error}");
        Unreadable { index, error }
    })
}

/// What is known of a window whatever answers it.
struct Known {
    id: String,
    film: String,
    stamps: [Stamp; WINDOW],
    truth: WindowTrajectory,
    scale: SceneScale,
    still: WindowErrors,
    strata: Vec<&'static str>,
    synth: Option<Stratum>,
}

impl Known {
    fn new(sample: &WindowSample, synth: Option<Stratum>) -> Self {
        let scale = SceneScale { metric: sample.metric, median_depth: sample.median_depth };
        let still = WindowErrors::new(&sample.ground_truth, &WindowTrajectory::identity(), scale);
        let strata = strata::labels(sample, &still);
        let (id, stamps, truth) = (sample.id.clone(), sample.stamps, sample.ground_truth);
        // Each synthetic window is of a scene of its own.
        let film = if sample.frames.is_some() { sample.source.clone() } else { id.clone() };
        Self { id, film, stamps, truth, scale, still, strata, synth }
    }

    /// The window with an answer to it; translations are fitted to the truth by one factor where `up_to_scale`.
    fn judged(&self, estimate: Estimate, up_to_scale: bool) -> Outcome {
        let (errors, factor) = match &estimate.trajectory {
            None => (None, None),
            Some(poses) if up_to_scale => {
                let (errors, factor) = align::errors(&self.truth, poses, self.scale);
                (Some(errors), Some(factor))
            }
            Some(poses) => (Some(WindowErrors::new(&self.truth, poses, self.scale)), None),
        };
        let residual = match (&estimate.trajectory, &estimate.backwards) {
            (Some(forwards), Some(backwards)) => Some(residual(forwards, backwards, self.scale)),
            _ => None,
        };
        Outcome {
            id: self.id.clone(),
            film: self.film.clone(),
            metric: self.scale.metric,
            stamps: self.stamps,
            truth: self.truth,
            estimate,
            errors,
            factor,
            still: self.still.clone(),
            strata: self.strata.clone(),
            synth: self.synth,
            residual,
        }
    }
}

impl Outcome {
    /// All that the window is called by: the labels of [`strata`], and that of the generator.
    fn labels(&self) -> Vec<String> {
        let synth = self.synth.map(strata::synth_label);
        self.strata.iter().map(|label| (*label).to_owned()).chain(synth).collect()
    }

    /// Its line of `answers.jsonl`.
    fn line(&self, constrained: bool) -> WrittenLine {
        let (Estimate { text, seconds, refusal, parses, grid, .. }, errors) = (&self.estimate, self.errors.as_ref());
        let judged = JudgedLine {
            id: self.id.clone(),
            parsed: errors.is_some(),
            rre_deg: errors.map(|e| e.rre_deg),
            tde_deg: errors.and_then(|e| e.tde_deg),
            rte_abs: errors.map(|e| e.rte_abs),
            rte_rel: errors.and_then(|e| e.rte_rel),
            mag_log: errors.and_then(|e| e.mag_log),
            ate: errors.map(|e| e.ate),
            ate_sim3: errors.map(|e| e.ate_sim3),
            moving_pairs: Some(WINDOW - 1 - self.still.still_pairs),
            steps: self.estimate.steps,
            strata: self.labels(),
        };
        let said = Said {
            answer: text.clone(),
            seconds: *seconds,
            refusal: refusal.map(str::to_owned),
            parses: Some(*parses),
            constrained,
            grid: *grid,
        };
        WrittenLine { judged, said }
    }
}

/// What is left of the answer to the frames in reverse order behind the answer to them as they are: no error where the
/// two undo each other.
fn residual(forwards: &WindowTrajectory, backwards: &WindowTrajectory, scale: SceneScale) -> WindowErrors {
    WindowErrors::new(&forwards.reversed(), backwards, scale)
}

fn write(
    estimator: &Estimator,
    settings: &Settings<'_>,
    outcomes: &[Outcome],
    report: &Report,
    out: &Path,
) -> Result<()> {
    let folder = out.join("tum");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    json::write(&out.join("report.json"), report)?;
    let path = out.join("tables.md");
    std::fs::write(&path, tables(report)).with_context(|| path.display().to_string())?;
    plot::errors(&out.join("errors.png"), settings.label, outcomes)?;
    let path = out.join("answers.jsonl");
    let file = std::fs::File::create(&path).with_context(|| path.display().to_string())?;
    let mut file = std::io::BufWriter::new(file);
    for outcome in outcomes {
        let Outcome { estimate, .. } = outcome;
        let line = serde_json::to_value(outcome.line(estimator.constrained()))?;
        writeln!(file, "{line}").with_context(|| path.display().to_string())?;
        let given = folder.join(files::file_name(&outcome.id, "tum"));
        match &estimate.trajectory {
            Some(poses) => write_tum(&given, poses, &outcome.stamps)?,
            // What an earlier run left is no answer of this one.
            None if given.is_file() => std::fs::remove_file(&given).with_context(|| given.display().to_string())?,
            None => (),
        }
        write_tum(&folder.join(files::file_name(&outcome.id, "gt.tum")), &outcome.truth, &outcome.stamps)?;
    }
    file.flush().with_context(|| path.display().to_string())
}

fn write_tum(path: &Path, window: &WindowTrajectory, stamps: &[Stamp; WINDOW]) -> Result<()> {
    let pose = |(&stamp, &value): (&Stamp, &Transform<Anchor, Camera>)| Stamped { stamp, value };
    let poses: Vec<_> = stamps.iter().zip(window.anchor_from_camera()).map(pose).collect();
    tum::write(path, &poses)?;
    Ok(())
}

/// Writes a report's main figures into a manifest, under `measured` and the name of the data.
///
/// # Errors
/// A manifest that is missing, broken or can't be written.
pub fn record(report: &Report, manifest: &Path) -> Result<()> {
    let mut all: Manifest = json::read(manifest)?;
    let Report { summary, data, .. } = report;
    let measured = Measured {
        constrained_decoding: report.constrained_decoding,
        windows: summary.windows,
        unreadable: report.unreadable.count,
        final_parse: report.final_parse,
        final_parse_constrained: Some(report.final_parse_constrained),
        rre_deg_median: summary.rre_deg.median,
        tde_deg_median: summary.tde_deg.median,
        rte_abs_median: summary.rte_abs.median,
        auc_30: summary.auc_30,
    };
    all.measured.insert(data.clone(), measured);
    // What the node believes of their lengths.
    if let Some(ScaleFigures { noise, bias, windows, films }) = report.scale_errors {
        all.scale = Some(MeasuredScale {
            errors: ScaleErrors { noise, bias },
            windows: Some(windows),
            films: Some(films),
            data: Some(data.clone()),
        });
    }
    // What `--refine` believes of these weights.
    if let Some(Calibration { supported, .. }) = &report.calibration {
        all.covariance = Some(Covariance {
            position_stddev_metres: supported.position,
            rotation_stddev_degrees: supported.rotation_deg,
            data: Some(data.clone()),
        });
    }
    json::write(manifest, &all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nalgebra::{Isometry3, Vector3};

    #[test]
    fn answers_that_undo_each_other_leave_nothing_and_others_what_they_disagree_by() {
        let step = Isometry3::new(Vector3::new(0.02, -0.01, 0.1), Vector3::new(0.01, 0.05, -0.02));
        let mut poses = [Transform::identity(); WINDOW];
        for i in 1..WINDOW {
            poses[i] = Transform::from_isometry_unchecked(poses[i - 1].isometry() * step);
        }
        let forwards = WindowTrajectory::new(poses).unwrap();
        let scale = SceneScale { metric: true, median_depth: None };
        let none = residual(&forwards, &forwards.reversed(), scale);
        assert!(none.rre_deg < 1e-9 && none.tde_deg.unwrap() < 1e-6 && none.rte_abs < 1e-12, "{none:?}");
        // One who walks forwards whichever way the film runs is wrong by the whole motion, twice.
        let same = residual(&forwards, &forwards, scale);
        let angle = step.rotation.angle().to_degrees();
        assert!((same.pairs[0].rre_deg - 2.0 * angle).abs() < 1e-6, "{same:?}");
        assert!(same.tde_deg.unwrap() > 150.0, "{same:?}");
    }
}
