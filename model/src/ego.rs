//! Frames in, five poses out: the model as the node and the evaluation use it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{DType, Device, Tensor};
use geometry::{Intrinsics, WINDOW, WindowTrajectory};
use image::RgbImage;

use crate::chain::{self, ParseError};
use crate::nn::Kernels;
use crate::processor::{Patches, Processor};
use crate::prompt::{self, Mode};
use crate::qwen3_vl::{Embedded, Qwen3Vl};
use crate::text::last;
use crate::tokenizer::{IM_START, IMAGE_PAD, Tokenizer, VIDEO_PAD, VISION_END, VISION_START};
use crate::vision::Grid;
use crate::{Error, Result};

/// A checkpoint with all that it needs to answer.
#[derive(Debug)]
pub struct EgoModel {
    model: Qwen3Vl,
    tokenizer: Tokenizer,
    processor: Processor,
    device: Device,
    /// Added to the logits: -inf for tokens that only a prompt may hold.
    ban: Tensor,
}

/// One frame as the decoder reads it. Frames do not depend on their neighbours: overlapping windows share them.
#[derive(Debug, Clone)]
pub struct FrameEmbedding {
    tokens: Tensor,         // [n, d]
    deepstack: Vec<Tensor>, // [n, d] each
    grid: Grid,
    intrinsics: Intrinsics,
}

/// How to answer.
#[derive(Debug, Clone)]
pub struct AnswerOptions {
    /// How much reasoning to write.
    pub mode: Mode,
    /// Tokens after which an unfinished answer is given up.
    pub max_tokens: usize,
    /// Set from outside to give up at the next token.
    pub stop: Option<Arc<AtomicBool>>,
}

impl Default for AnswerOptions {
    fn default() -> Self {
        Self { mode: Mode::AnswerOnly, max_tokens: 2048, stop: None }
    }
}

/// What the model wrote, and what it means.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The text as decoded.
    pub text: String,
    /// The final poses, where the text holds them.
    pub trajectory: Result<WindowTrajectory, ParseError>,
    /// Tokens written.
    pub tokens: usize,
}

impl EgoModel {
    /// Loads a checkpoint folder: config.json, model.safetensors, tokenizer.json, preprocessor_config.json.
    ///
    /// # Errors
    /// Any of them missing, broken, or in disagreement with another.
    pub fn load(dir: &Path, device: &Device) -> Result<Self> {
        let dtype = if device.is_cpu() { DType::F32 } else { DType::BF16 };
        let model = Qwen3Vl::load(dir, Kernels::Fused, dtype, device)?;
        let tokenizer = Tokenizer::from_dir(dir, model.config())?;
        let processor = Processor::from_dir(dir, &model.config().vision_config)?;
        Self::new(model, tokenizer, processor, device)
    }

    /// From parts at hand.
    ///
    /// # Errors
    /// A tensor operation's.
    pub fn new(model: Qwen3Vl, tokenizer: Tokenizer, processor: Processor, device: &Device) -> Result<Self> {
        let mut ban = vec![0f32; model.config().text_config.vocab_size];
        for token in [IMAGE_PAD, VIDEO_PAD, VISION_START, VISION_END, IM_START] {
            if let Some(slot) = tokenizer.id(token).and_then(|id| ban.get_mut(id as usize)) {
                *slot = f32::NEG_INFINITY;
            }
        }
        let ban = Tensor::new(ban, device)?;
        Ok(Self { model, tokenizer, processor, device: device.clone(), ban })
    }

    /// Resizes and cuts a frame.
    ///
    /// # Errors
    /// Intrinsics of another size than the image's, an image that can't be resized.
    pub fn preprocess(&self, image: &RgbImage, intrinsics: &Intrinsics) -> Result<Patches> {
        self.processor.patches(image, intrinsics, &self.device)
    }

    /// Runs the vision tower on one frame.
    ///
    /// # Errors
    /// Patches of another shape than the tower's.
    pub fn encode(&self, patches: &Patches) -> Result<FrameEmbedding> {
        let dtype = self.dtype();
        let output = self.model.visual().forward(&patches.values.to_dtype(dtype)?.unsqueeze(0)?, patches.grid)?;
        Ok(FrameEmbedding {
            tokens: output.tokens.squeeze(0)?,
            deepstack: output.deepstack.iter().map(|d| d.squeeze(0)).collect::<candle_core::Result<_>>()?,
            grid: patches.grid,
            intrinsics: patches.intrinsics,
        })
    }

    fn dtype(&self) -> DType {
        if self.device.is_cpu() { DType::F32 } else { DType::BF16 }
    }

    /// Answers for a window of five frames, greedily.
    ///
    /// # Errors
    /// Another number of frames, frames of different cameras, or a prompt longer than the model's context. An answer
    /// that makes no sense is not an error.
    pub fn answer(&self, frames: &[&FrameEmbedding], options: &AnswerOptions) -> Result<Answer> {
        let Some(first) = frames.first() else {
            return Err(Error::Input { what: "frames", expected: WINDOW.to_string(), got: "0".to_owned() });
        };
        if frames.iter().any(|f| f.intrinsics != first.intrinsics) {
            return Err(Error::Input {
                what: "frames",
                expected: "one camera and one size".to_owned(),
                got: "several".to_owned(),
            });
        }
        let config = self.model.config();
        let grids: Vec<Grid> = frames.iter().map(|f| f.grid).collect();
        let merge = config.vision_config.spatial_merge_size;
        let prompt =
            prompt::window(&self.tokenizer, config.image_token_id, merge, options.mode, &first.intrinsics, &grids)?;
        let images = Tensor::cat(&frames.iter().map(|f| &f.tokens).collect::<Vec<_>>(), 0)?;
        let deepstack = (0..first.deepstack.len())
            .map(|k| Tensor::cat(&frames.iter().map(|f| &f.deepstack[k]).collect::<Vec<_>>(), 0))
            .collect::<candle_core::Result<Vec<_>>>()?;
        let embedded = self.model.embed_batch(&prompt.ids, 1, &images, &deepstack)?;

        let mut cache = self.model.cache(prompt.ids.len() + options.max_tokens);
        let mut hidden = self.model.decode(&embedded, &prompt.positions, Some(&mut cache))?;
        let mut written: Vec<u32> = Vec::new();
        let stopped = || options.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed));
        while written.len() < options.max_tokens && !stopped() {
            let logits = self.model.logits(&last(&hidden)?)?.squeeze(0)?.to_dtype(DType::F32)?;
            let Some(token) = argmax(&(logits + &self.ban)?)? else { break };
            if token == self.tokenizer.end || token == self.tokenizer.pad {
                break;
            }
            let place = prompt.next + written.len() as u32;
            written.push(token);
            let embeddings = self.model.embed(&Tensor::new(&[token], &self.device)?)?.unsqueeze(0)?;
            let step = Embedded { embeddings, deepstack: Vec::new() };
            hidden = self.model.decode(&step, &[[place; 3]], Some(&mut cache))?;
        }
        let text = self.tokenizer.decode(&written)?;
        let trajectory = chain::parse_poses(&text);
        Ok(Answer { text, trajectory, tokens: written.len() })
    }

    /// The network.
    pub fn network(&self) -> &Qwen3Vl {
        &self.model
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The image processor.
    pub fn processor(&self) -> &Processor {
        &self.processor
    }
}

/// Index of the largest logit; `None` where they are not numbers, so that an answer ends instead of being made up.
fn argmax(logits: &Tensor) -> Result<Option<u32>> {
    let values = logits.to_vec1::<f32>()?;
    let mut best: Option<(usize, f32)> = None;
    for (i, &v) in values.iter().enumerate() {
        if v.is_nan() {
            return Ok(None);
        }
        if best.is_none_or(|(_, b)| v > b) {
            best = Some((i, v));
        }
    }
    Ok(best.filter(|(_, v)| v.is_finite()).map(|(i, _)| i as u32))
}

/// The device of a config value: `cpu`, `cuda` or `cuda:N`.
///
/// # Errors
/// Another name, or a GPU that this build or this machine has not.
pub fn device(name: &str) -> Result<Device> {
    let ordinal = match name {
        "cpu" => return Ok(Device::Cpu),
        "cuda" => Some(0),
        other => other.strip_prefix("cuda:").and_then(|n| n.parse().ok()),
    };
    let Some(ordinal) = ordinal else {
        return Err(Error::Input { what: "device", expected: "cpu, cuda or cuda:N".to_owned(), got: name.to_owned() });
    };
    if !candle_core::utils::cuda_is_available() {
        return Err(Error::Input {
            what: "device",
            expected: "cpu, since this binary is built without the feature cuda".to_owned(),
            got: name.to_owned(),
        });
    }
    Ok(Device::new_cuda(ordinal)?)
}
