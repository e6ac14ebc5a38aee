//! What the pipeline asks of a model, and the shipped model behind it.
//!
//! The pipeline knows only [`Estimator`], so that its threads, drops and failures are tested with fakes that answer in
//! microseconds, or never.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use geometry::{Intrinsics, WINDOW, WindowTrajectory};
use image::RgbImage;
use model::answer::budget::Budget;
use model::answer::fill::{Fill, Part};
use model::answer::measured::Measured;
use model::memory;
use model::pose_head::{self, PoseHead, WindowPoses};
use model::weights::manifest::ScaleErrors;
use model::{AnswerOptions, Cost, EgoModel, FrameEmbedding, Mode};

use crate::config::{Ask, ModelConfig};
use crate::solve::weights::Weights;

/// Why there is no answer. An answer that makes no sense is not an error: see [`Estimate::trajectory`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This one image cannot be read; others can.
    #[error("the model cannot read this image: {0}")]
    Image(String),
    /// The model is broken; no further window will do better.
    #[error("the model failed: {0}")]
    Model(#[from] model::Error),
    /// Its files were changed since it was loaded.
    #[error("{0}")]
    Weights(String),
    /// The same, for a model that is not [`EgoModel`].
    #[error("the model failed: {0}")]
    Other(String),
}

/// Passes of a model for one answer, and what it was spared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// Passes behind the prompt.
    pub passes: usize,
    /// Passes that were not needed, since what came next had been read ahead.
    pub passes_saved: usize,
    /// Tokens of the prompt that the last one had begun with too, so that they were not read again.
    pub prompt_tokens_reused: usize,
}

/// What the model says of one window.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// The answer in words.
    pub text: String,
    /// Tokens of the answer.
    pub tokens: usize,
    /// How many of them the program wrote in place of the model.
    pub filled: usize,
    /// What the model was asked for that, and what it was spared.
    pub work: Work,
    /// The parts of the answer that it wrote: they are no evidence of what the model sees.
    pub by_program: Vec<Part>,
    /// The poses, or why the text holds none.
    pub trajectory: Result<WindowTrajectory, String>,
    /// Intrinsics of the pixel grid that the text's reasoning speaks of; `None` where it was not asked to reason.
    pub grid: Option<Intrinsics>,
    /// Standard deviations that the model itself states of the positions of frames 1 to 4, of each axis, in the unit of the
    /// poses; `None` where it states none.
    pub position_stddev: Option<[f64; WINDOW - 1]>,
}

/// Reads frames one by one and windows of five.
pub trait Estimator: Send {
    /// What the model keeps of a frame; windows that share the frame share it.
    type Frame: Send + Sync + 'static;

    /// Reads one frame.
    fn encode(&mut self, image: &RgbImage, intrinsics: &Intrinsics) -> Result<Self::Frame, Error>;

    /// How far the lengths that it says are off, where that is known.
    fn scale_errors(&self) -> Option<ScaleErrors> {
        None
    }

    /// The files that it was loaded from, where there are any.
    fn weights(&self) -> Option<Arc<Weights>> {
        None
    }

    /// Answers for one window.
    fn estimate(&mut self, frames: [&Self::Frame; WINDOW]) -> Result<Estimate, Error>;

    /// Whether it writes what a program measured of a window in place of the model.
    fn takes_measured(&self) -> bool {
        false
    }

    /// As [`Self::estimate`], of a window that a program measured.
    fn estimate_measured(&mut self, frames: [&Self::Frame; WINDOW], _: Measured) -> Result<Estimate, Error> {
        self.estimate(frames)
    }
}

/// The vision-language model.
#[derive(Debug)]
pub struct EgoEstimator {
    model: EgoModel,
    asked: Asked,
    scale_errors: Option<ScaleErrors>,
    weights: Arc<Weights>,
}

/// How the model is asked.
#[derive(Debug)]
enum Asked {
    Answer(AnswerOptions),
    PoseHead(PoseHead),
}

impl EgoEstimator {
    /// What a longest answer of a mode takes, for a window.
    pub fn cost(&self, frames: [&EgoFrame; WINDOW], mode: Mode) -> Result<Cost, Error> {
        Ok(self.model.cost(&frames.map(|frame| &frame.embedding), mode)?)
    }

    /// Bytes of the cache that so many tokens take.
    pub fn cache_bytes(&self, tokens: usize) -> u64 {
        let network = self.model.network();
        memory::cache_bytes(network.config(), tokens, network.dtype().size_in_bytes())
    }

    /// Loads the weights; `stop` makes an answer under way end early. A pose head's one pass is too short for that.
    pub fn load(config: &ModelConfig, stop: Arc<AtomicBool>) -> Result<Self, Error> {
        let device = model::device(&config.device)?;
        // Before they are read: what happens to them meanwhile is seen.
        let folders = [Some(config.weights.as_path()), config.adapter.as_deref()];
        let weights = Arc::new(Weights::of(folders.into_iter().flatten()));
        let model = EgoModel::load_adapted(&config.weights, config.adapter.as_deref(), &device)?;
        let asked = match config.mode {
            Ask::Answer(mode) => Asked::Answer(AnswerOptions {
                mode,
                max_tokens: Budget::Tokens(model.budget(config.max_tokens, mode)?),
                stop: Some(stop),
                constrained: config.constrained,
                fill: config.fill,
                speculate: config.speculate,
                ..AnswerOptions::default()
            }),
            Ask::PoseHead => {
                Asked::PoseHead(PoseHead::load(&config.weights, config.adapter.as_deref(), model.network())?)
            }
        };
        // An adapter has a manifest of its own, since it is what was trained last.
        let scale_errors = ScaleErrors::of(config.adapter.as_deref().unwrap_or(&config.weights))?;
        Ok(Self { model, asked, scale_errors, weights })
    }
}

/// What the vision-language model keeps of a frame.
#[derive(Debug)]
pub struct EgoFrame {
    embedding: FrameEmbedding,
    /// Intrinsics of the pixel grid that the model saw.
    grid: Intrinsics,
}

impl Estimator for EgoEstimator {
    type Frame = EgoFrame;

    fn scale_errors(&self) -> Option<ScaleErrors> {
        self.scale_errors
    }

    fn weights(&self) -> Option<Arc<Weights>> {
        Some(Arc::clone(&self.weights))
    }

    fn encode(&mut self, image: &RgbImage, intrinsics: &Intrinsics) -> Result<EgoFrame, Error> {
        let patches = self.model.preprocess(image, intrinsics).map_err(|e| match e {
            // A strip of pixels, for example, that has no size on the model's grid.
            model::Error::Input { .. } | model::Error::Geometry(_) => Error::Image(e.to_string()),
            other => Error::Model(other),
        })?;
        Ok(EgoFrame { embedding: self.model.encode(&patches)?, grid: patches.intrinsics })
    }

    fn takes_measured(&self) -> bool {
        matches!(&self.asked, Asked::Answer(options) if options.fill == Fill::Measured)
    }

    fn estimate_measured(&mut self, frames: [&EgoFrame; WINDOW], measured: Measured) -> Result<Estimate, Error> {
        match &self.asked {
            Asked::Answer(options) => {
                self.answered(frames, &AnswerOptions { measured: Some(Arc::new(measured)), ..options.clone() })
            }
            Asked::PoseHead(_) => self.estimate(frames),
        }
    }

    fn estimate(&mut self, frames: [&EgoFrame; WINDOW]) -> Result<Estimate, Error> {
        let embeddings = frames.map(|frame| &frame.embedding);
        match &self.asked {
            Asked::Answer(options) => self.answered(frames, options),
            Asked::PoseHead(head) => {
                let poses = self.model.poses(head, &embeddings)?.map_err(|e| e.to_string());
                Ok(Estimate {
                    text: poses.as_ref().map_or_else(Clone::clone, ToString::to_string),
                    tokens: 0,
                    filled: 0,
                    work: Work::default(),
                    by_program: Vec::new(),
                    trajectory: poses.as_ref().map(WindowPoses::trajectory).map_err(Clone::clone),
                    grid: None,
                    // The covariance is the same along all axes.
                    position_stddev: poses.ok().map(|poses| poses.frames.map(|frame| frame.stddev.max())),
                })
            }
        }
    }
}

impl EgoEstimator {
    fn answered(&self, frames: [&EgoFrame; WINDOW], options: &AnswerOptions) -> Result<Estimate, Error> {
        let answer = self.model.answer(&frames.map(|frame| &frame.embedding), options)?;
        let work =
            Work { passes: answer.passes, passes_saved: answer.drafted.saved, prompt_tokens_reused: answer.reused };
        Ok(Estimate {
            text: answer.text,
            tokens: answer.ids.len(),
            filled: answer.filled,
            work,
            by_program: answer.by_program,
            trajectory: answer.trajectory.map_err(|e| e.to_string()),
            grid: (options.mode == Mode::FullChain).then_some(frames[0].grid),
            position_stddev: None,
        })
    }
}

/// Where the pose head of these weights lies.
fn heads_folder(config: &ModelConfig) -> &Path {
    pose_head::folder(&config.weights, config.adapter.as_deref())
}

/// The files of the pose head that are missing.
pub fn missing_heads(config: &ModelConfig) -> Vec<PathBuf> {
    let files = pose_head::FILES.map(|name| heads_folder(config).join(name));
    files.into_iter().filter(|path| !path.is_file()).collect()
}

/// What a folder of weights must hold, as far as files go: those that are missing. GGUF files bring all of it.
pub fn missing_files(weights: &Path) -> Vec<&'static str> {
    let entries = std::fs::read_dir(weights).into_iter().flatten().flatten();
    if entries.map(|entry| entry.path()).any(|path| path.extension().is_some_and(|e| e == "gguf")) {
        return Vec::new();
    }
    let lacks = |name: &&str| !weights.join(name).is_file();
    let mut missing: Vec<&str> = ["config.json", "tokenizer.json"].into_iter().filter(lacks).collect();
    // Where transformers 4 and 5 keep the image processor; whether the second holds it is asked when it is read.
    if ["preprocessor_config.json", "processor_config.json"].iter().all(lacks) {
        missing.push("preprocessor_config.json or processor_config.json");
    }
    let tensors = ["model.safetensors", "model.safetensors.index.json"];
    if !tensors.iter().any(|name| weights.join(name).is_file()) {
        missing.push(tensors[0]);
    }
    missing
}
