//! What the pipeline asks of a model, and the shipped model behind it.
//!
//! The pipeline knows only [`Estimator`], so that its threads, drops and failures are tested with fakes that answer in
//! microseconds, or never.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use geometry::{Intrinsics, WINDOW, WindowTrajectory};
use image::RgbImage;
use model::{AnswerOptions, EgoModel, FrameEmbedding, Mode};

use crate::config::ModelConfig;

/// Why there is no answer. An answer that makes no sense is not an error: see [`Estimate::trajectory`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This one image cannot be read; others can.
    #[error("the model cannot read this image: {0}")]
    Image(String),
    /// The model is broken; no further window will do better.
    #[error("the model failed: {0}")]
    Model(#[from] model::Error),
    /// The same, for a model that is not [`EgoModel`].
    #[error("the model failed: {0}")]
    Other(String),
}

/// What the model says of one window.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// The answer in words.
    pub text: String,
    /// Tokens of the answer.
    pub tokens: usize,
    /// The poses, or why the text holds none.
    pub trajectory: Result<WindowTrajectory, String>,
    /// Intrinsics of the pixel grid that the text's reasoning speaks of; `None` where it was not asked to reason.
    pub grid: Option<Intrinsics>,
}

/// Reads frames one by one and windows of five.
pub trait Estimator: Send {
    /// What the model keeps of a frame; windows that share the frame share it.
    type Frame: Send + Sync + 'static;

    /// Reads one frame.
    fn encode(&mut self, image: &RgbImage, intrinsics: &Intrinsics) -> Result<Self::Frame, Error>;

    /// Answers for one window.
    fn estimate(&mut self, frames: [&Self::Frame; WINDOW]) -> Result<Estimate, Error>;
}

/// The vision-language model.
#[derive(Debug)]
pub struct EgoEstimator {
    model: EgoModel,
    options: AnswerOptions,
}

impl EgoEstimator {
    /// Loads the weights; `stop` makes an answer under way end early.
    pub fn load(config: &ModelConfig, stop: Arc<AtomicBool>) -> Result<Self, Error> {
        let device = model::device(&config.device)?;
        let model = EgoModel::load_adapted(&config.weights, config.adapter.as_deref(), &device)?;
        let options = AnswerOptions {
            mode: config.mode,
            max_tokens: config.max_tokens,
            stop: Some(stop),
            constrained: config.constrained,
            ..AnswerOptions::default()
        };
        Ok(Self { model, options })
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

    fn encode(&mut self, image: &RgbImage, intrinsics: &Intrinsics) -> Result<EgoFrame, Error> {
        let patches = self.model.preprocess(image, intrinsics).map_err(|e| match e {
            // A strip of pixels, for example, that has no size on the model's grid.
            model::Error::Input { .. } | model::Error::Geometry(_) => Error::Image(e.to_string()),
            other => Error::Model(other),
        })?;
        Ok(EgoFrame { embedding: self.model.encode(&patches)?, grid: patches.intrinsics })
    }

    fn estimate(&mut self, frames: [&EgoFrame; WINDOW]) -> Result<Estimate, Error> {
        let answer = self.model.answer(&frames.map(|frame| &frame.embedding), &self.options)?;
        Ok(Estimate {
            text: answer.text,
            tokens: answer.ids.len(),
            trajectory: answer.trajectory.map_err(|e| e.to_string()),
            grid: (self.options.mode == Mode::FullChain).then_some(frames[0].grid),
        })
    }
}

/// What a folder of weights must hold, as far as files go: those that are missing. GGUF files bring all of it.
pub fn missing_files(weights: &Path) -> Vec<&'static str> {
    let entries = std::fs::read_dir(weights).into_iter().flatten().flatten();
    if entries.map(|entry| entry.path()).any(|path| path.extension().is_some_and(|e| e == "gguf")) {
        return Vec::new();
    }
    let all = ["config.json", "tokenizer.json", "preprocessor_config.json"];
    let mut missing: Vec<&str> = all.into_iter().filter(|name| !weights.join(name).is_file()).collect();
    let tensors = ["model.safetensors", "model.safetensors.index.json"];
    if !tensors.iter().any(|name| weights.join(name).is_file()) {
        missing.push(tensors[0]);
    }
    missing
}
