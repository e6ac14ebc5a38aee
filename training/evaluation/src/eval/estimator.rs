//! What gives the poses.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use geometry::{Transform, WINDOW, WindowTrajectory};
use model::answer::chain;
use model::answer::fill::Fill;
use model::{AnswerOptions, Device, EgoModel, Mode};
use odometry::window::{Carried, Prior, Refusal};

use super::calibration::Sigmas;
use super::covariance::Claim;
use super::files::{Answers, TumFolder, TumTrajectory};
use super::question::{Question, parts};
use super::steps::StepErrors;
use crate::measured::{self, grey, pictures};
use training_data::WindowSample;
use training_data::endpoint::{Endpoint, Sampling, turn};

/// What gives the poses.
pub enum Estimator {
    /// A checkpoint folder.
    Weights(Box<EgoModel>, AnswerOptions),
    /// The camera never moves.
    Identity,
    /// The camera goes on as from frame 0 to frame 1 of the ground truth: a bound for extrapolation, not a contender.
    ConstantVelocity,
    /// Another program's poses, a file a window.
    TumFolder(TumFolder),
    /// Another program's poses, one file of a whole trajectory.
    TumTrajectory(TumTrajectory),
    /// Tracked points and their adjustment: no weights, and no scale.
    Tracks,
    /// An earlier run's texts.
    Answers(Answers),
    /// A model that is served elsewhere.
    Endpoint(Box<Endpoint>, Question),
    /// Tracked points, with another estimator's poses as what is believed before they are looked at.
    Refined(Box<Estimator>, Sigmas),
}

/// An estimator's answer for one window.
#[derive(Debug, Default)]
pub(super) struct Estimate {
    /// The poses; `None` where there is no answer, or it does not parse.
    pub trajectory: Option<WindowTrajectory>,
    /// What a model wrote.
    pub text: Option<String>,
    /// Which steps of a chain parse, where one was asked for.
    pub steps: Option<[bool; 5]>,
    /// Their errors.
    pub step_errors: StepErrors,
    /// Width and height of the pixel grid that a chain's pixels are of.
    pub grid: Option<[u32; 2]>,
    /// Whether the poses parse without and with the grammar.
    pub parses: [bool; 2],
    /// Time that the answer took, where it is known.
    pub seconds: Option<f64>,
    /// The poses of the frames in reverse order, anchored at what was the last; where they were asked for.
    pub backwards: Option<WindowTrajectory>,
    /// Whether an endpoint cut the answer off at the limit of tokens.
    pub cut: bool,
    /// Why there is no answer, where an endpoint failed.
    pub error: Option<String>,
    /// Why the pictures tell no poses, in one word.
    pub refusal: Option<&'static str>,
    /// What the poses stand on, where pictures were adjusted.
    pub carried: Option<Carried>,
    /// The covariance that came with them.
    pub claim: Option<Claim>,
}

/// A window answered three times.
pub(super) struct Three {
    /// By the estimator alone.
    pub model: Estimate,
    /// By tracked points alone.
    pub program: Estimate,
    /// By tracked points with the estimator's poses as a prior; without them the same as `program`.
    pub both: Estimate,
}

impl Estimate {
    pub(super) fn poses(trajectory: Option<&WindowTrajectory>) -> Self {
        Self { trajectory: trajectory.copied(), parses: [trajectory.is_some(); 2], ..Self::default() }
    }
}

impl Estimator {
    /// Loads a checkpoint folder onto a device.
    ///
    /// # Errors
    /// Those of [`EgoModel::load`].
    pub fn weights(dir: &Path, adapter: Option<&Path>, device: &Device, options: AnswerOptions) -> Result<Self> {
        let model = EgoModel::load_adapted(dir, adapter, device).with_context(|| dir.display().to_string())?;
        model.budget(options.max_tokens, options.mode)?;
        Ok(Self::Weights(Box::new(model), options))
    }

    /// [`Estimator::asked`] with the default [`Question`].
    ///
    /// # Errors
    /// Those of [`Estimator::asked`].
    pub fn named(name: &str) -> Result<Self> {
        Self::asked(name, Question::default())
    }

    /// By name: `identity`, `constant-velocity`, `tracks` ([`odometry::window`]), `tum:PATH` (see [`TumFolder`] and
    /// [`TumTrajectory`]), `answers:FILE` (see [`Answers`]) or `openai:URL[#MODEL]` (see [`Endpoint`]), which alone
    /// needs the question.
    ///
    /// # Errors
    /// Another name; a file or folder that cannot be read; those of [`Endpoint::parse`].
    pub fn asked(name: &str, question: Question) -> Result<Self> {
        if let Some(url) = name.strip_prefix("openai:") {
            let endpoint = Endpoint::parse(url).context("--estimator")?;
            return Ok(Self::Endpoint(Box::new(endpoint), question));
        }
        if let Some(path) = name.strip_prefix("tum:") {
            let path = Path::new(path);
            return match path.is_dir() {
                true => TumFolder::open(path).map(Self::TumFolder),
                false => TumTrajectory::open(path).map(Self::TumTrajectory),
            };
        }
        if let Some(path) = name.strip_prefix("answers:") {
            return Answers::open(Path::new(path)).map(Self::Answers);
        }
        match name {
            "identity" => Ok(Self::Identity),
            "constant-velocity" => Ok(Self::ConstantVelocity),
            "tracks" => Ok(Self::Tracks),
            other => {
                bail!(
                    "--estimator: expected identity, constant-velocity, tracks, tum:PATH, answers:FILE or openai:URL[#MODEL], \
                     got {other}"
                )
            }
        }
    }

    /// Whether answers were written under the grammar.
    pub(super) fn constrained(&self) -> bool {
        match self {
            Self::Weights(_, options) => options.constrained,
            Self::Answers(answers) => answers.constrained(),
            Self::Refined(model, _) => model.constrained(),
            _ => false,
        }
    }

    /// Whether answers are looked up in files.
    pub(super) fn is_in_files(&self) -> bool {
        matches!(self, Self::TumFolder(_) | Self::TumTrajectory(_) | Self::Answers(_))
    }

    /// Whether a model answers on a GPU.
    pub(super) fn is_on_gpu(&self) -> bool {
        match self {
            Self::Weights(model, _) => !model.network().device().is_cpu(),
            Self::Refined(model, _) => model.is_on_gpu(),
            _ => false,
        }
    }

    /// The endpoint that is asked, if one is.
    pub(super) fn endpoint(&self) -> Option<(&Endpoint, &Question)> {
        match self {
            Self::Endpoint(endpoint, question) => Some((endpoint, question)),
            Self::Refined(model, _) => model.endpoint(),
            _ => None,
        }
    }

    /// Answers for one window, and backwards too where `reversed` (weights only).
    pub(super) fn estimate(&self, sample: &WindowSample, reversed: bool) -> Result<Estimate> {
        match self {
            Self::Identity => Ok(Estimate::poses(Some(&WindowTrajectory::identity()))),
            Self::ConstantVelocity => Ok(Estimate::poses(Some(&constant_velocity(&sample.ground_truth)))),
            Self::Tracks => adjusted(&greys(sample)?, sample, None),
            Self::Refined(model, sigmas) => Ok(three(model, sigmas, sample)?.both),
            Self::TumFolder(folder) => {
                let poses = folder.window(&sample.id, &sample.stamps)?;
                Ok(Estimate { seconds: folder.seconds(&sample.id), ..Estimate::poses(poses.as_ref()) })
            }
            Self::TumTrajectory(file) => Ok(Estimate::poses(file.window(&sample.stamps).as_ref())),
            Self::Answers(answers) => Ok(again(answers, sample)),
            Self::Endpoint(endpoint, question) => ask(endpoint, question, sample),
            Self::Weights(model, options) => answer(model, options, sample, reversed),
        }
    }
}

/// A camera that goes on as from frame 0 to frame 1.
pub(super) fn constant_velocity(truth: &WindowTrajectory) -> WindowTrajectory {
    let step = *truth.anchor_from_camera()[1].isometry();
    let mut window = WindowTrajectory::identity();
    for i in 1..WINDOW {
        let last = *window.anchor_from_camera()[i - 1].isometry();
        window.later_mut()[i - 1] = Transform::from_isometry_unchecked(last * step);
    }
    window
}

/// A window answered by an estimator, by tracks, and by both together; the estimator is asked once.
pub(super) fn three(model: &Estimator, sigmas: &Sigmas, sample: &WindowSample) -> Result<Three> {
    let model = model.estimate(sample, false)?;
    let greys = greys(sample)?;
    let program = adjusted(&greys, sample, None)?;
    let prior = model.trajectory.as_ref().map(|trajectory| sigmas.prior(trajectory));
    let mut both = adjusted(&greys, sample, prior.as_ref())?;
    both.seconds = both.seconds.map(|own| own + model.seconds.unwrap_or(0.0));
    both.text.clone_from(&model.text);
    Ok(Three { model, program, both })
}

fn greys(sample: &WindowSample) -> Result<Vec<odometry::Grey>> {
    Ok(sample.images.iter().map(grey).collect::<Result<Vec<_>, _>>()?)
}

/// The exact window of a sample's pictures; the time is from grey pictures to poses.
fn adjusted(greys: &[odometry::Grey], sample: &WindowSample, prior: Option<&Prior>) -> Result<Estimate> {
    let start = Instant::now();
    let pictures = pictures(greys, &sample.intrinsics, &sample.stamps)?;
    let solved = odometry::window::solve(&pictures, prior)?;
    let seconds = Some(start.elapsed().as_secs_f64());
    Ok(match solved {
        Ok(solved) => Estimate {
            seconds,
            carried: Some(solved.carried),
            claim: Some(Claim::of(&solved)),
            ..Estimate::poses(Some(&solved.trajectory))
        },
        Err(refusal) => Estimate { seconds, refusal: Some(reason(&refusal)), ..Estimate::default() },
    })
}

/// A refusal without its numbers, to be counted by.
fn reason(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::FewTracks { .. } => "few_tracks",
        Refusal::FewPoints { .. } => "few_points",
        Refusal::NoStart => "no_start",
    }
}

fn answer(model: &EgoModel, options: &AnswerOptions, sample: &WindowSample, reversed: bool) -> Result<Estimate> {
    let start = Instant::now();
    let patches = sample
        .images
        .iter()
        .map(|image| model.preprocess(image, &sample.intrinsics))
        .collect::<model::Result<Vec<_>>>()?;
    let frames = patches.iter().map(|p| model.encode(p)).collect::<model::Result<Vec<_>>>()?;
    let frames: Vec<_> = frames.iter().collect();
    let measured = match options.fill {
        Fill::Measured => measured::of_images(&sample.images, &sample.intrinsics, &sample.stamps)?,
        Fill::None | Fill::Arithmetic => None,
    };
    let answer = model.answer(&frames, &AnswerOptions { measured, ..options.clone() })?;
    let seconds = start.elapsed().as_secs_f64();
    // Where an answer parses, so would one under the grammar: only the others are asked for again.
    let other = |o: &AnswerOptions| AnswerOptions { constrained: !o.constrained, fill: Fill::None, ..o.clone() };
    let own = answer.trajectory.is_ok();
    let parses = match (options.constrained, own) {
        (false, true) => [true, true],
        (false, false) => [false, model.answer(&frames, &other(options))?.trajectory.is_ok()],
        (true, own) => [model.answer(&frames, &other(options))?.trajectory.is_ok(), own],
    };
    let backwards = if reversed {
        let frames: Vec<_> = frames.iter().rev().copied().collect();
        model.answer(&frames, options)?.trajectory.ok()
    } else {
        None
    };
    let mut estimate = Estimate {
        trajectory: answer.trajectory.ok(),
        parses,
        seconds: Some(seconds),
        backwards,
        ..Estimate::default()
    };
    if options.mode == Mode::FullChain {
        let grid = &patches[0].intrinsics;
        let parsed = chain::parse(&answer.text);
        estimate.step_errors = StepErrors::new(&parsed, sample, grid);
        estimate.steps = Some(parsed.steps());
        estimate.grid = Some([grid.width, grid.height]);
    }
    estimate.text = Some(answer.text);
    Ok(estimate)
}

/// An answer that was written before, parsed again.
fn again(answers: &Answers, sample: &WindowSample) -> Estimate {
    let Some(line) = answers.line(&sample.id) else { return Estimate::default() };
    let Some(text) = &line.answer else {
        return Estimate { seconds: line.seconds, ..Estimate::default() };
    };
    let parsed = chain::parse(text);
    let trajectory = parsed.trajectory.as_ref().ok().copied();
    // Which of the two this text is of is known; of the other there is what that run found.
    let own = trajectory.is_some();
    let mut parses = line.parses.unwrap_or([own; 2]);
    parses[usize::from(line.constrained)] = own;
    let grid = line.grid.map(|[width, height]| sample.intrinsics.rescale(width, height));
    Estimate {
        trajectory,
        steps: (grid.is_some() || text.contains("<step1>")).then(|| parsed.steps()),
        // Pixels of a grid that nobody knows have no errors.
        step_errors: grid.map(|grid| StepErrors::new(&parsed, sample, &grid)).unwrap_or_default(),
        grid: line.grid,
        parses,
        seconds: line.seconds,
        text: Some(text.clone()),
        ..Estimate::default()
    }
}

/// An endpoint's answer to the frames as they are stored; none where it fails.
fn ask(endpoint: &Endpoint, question: &Question, sample: &WindowSample) -> Result<Estimate> {
    let messages = turn(&parts(question, sample)?);
    let sampling = Sampling { temperature: 0.0, seed: 0, max_tokens: question.most_tokens() };
    let reply = match endpoint.chat(&messages, &sampling) {
        Ok(reply) => reply,
        Err(error) => {
            let error = format!("{error:#}");
            tracing::warn!(window = sample.id, "no answer: {error}");
            return Ok(Estimate { error: Some(error), ..Estimate::default() });
        }
    };
    let parsed = chain::parse(&reply.text);
    let trajectory = parsed.trajectory.as_ref().ok().copied();
    let (seconds, cut) = (Some(reply.seconds), reply.finish_reason == "length");
    let mut estimate = Estimate { seconds, cut, ..Estimate::poses(trajectory.as_ref()) };
    if question.mode == Mode::FullChain {
        let grid = &sample.intrinsics;
        estimate.step_errors = StepErrors::new(&parsed, sample, grid);
        estimate.steps = Some(parsed.steps());
        estimate.grid = Some([grid.width, grid.height]);
    }
    estimate.text = Some(reply.text);
    Ok(estimate)
}
