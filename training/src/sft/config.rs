//! Settings of SFT.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::nano::Shape;
use crate::synth::SynthConfig;

/// `config/training/*.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Seed of weights and data.
    pub seed: u64,
    /// Optimizer steps.
    pub steps: usize,
    /// Steps at the beginning that train the displacement head and what is below it alone, on prompts without response.
    pub flow_only_steps: usize,
    /// Windows a micro-batch; each worker takes one a step.
    pub micro_batch: usize,
    /// Threads, and micro-batches a step.
    pub workers: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: usize,
    /// Learning rate at the end, as a share of the peak.
    pub final_share: f64,
    /// AdamW's.
    pub weight_decay: f64,
    /// Largest norm of the gradient.
    pub max_grad_norm: f64,
    /// Every n-th step is on full chains, the others on answers alone; 0 for never.
    pub full_chain_every: usize,
    /// Windows a micro-batch of full chains.
    pub full_chain_micro_batch: usize,
    /// Width of the Gaussian over the tokens of neighbouring numbers; 0 for plain targets.
    pub number_sigma: f64,
    /// Weight of the digits behind the third decimal.
    pub tail_weight: f32,
    /// Decoder layers that stay as they are, and the vision tower with them; 0 trains everything.
    pub frozen_layers: usize,
    /// Weight of the displacement head; 0 for none.
    pub flow_weight: f64,
    /// Decoder layer that the head reads.
    pub flow_layer: usize,
    /// Weight of a linear head that reads each pose where its line begins; 0 for none.
    pub pose_weight: f64,
    /// Keep only the inputs of decoder layers on the way forward, and compute the rest again on the way back.
    #[serde(default)]
    pub checkpointing: bool,
    /// Train an adapter beside the weights of `--init`, which stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<Adapter>,
    /// Steps between log lines.
    pub log_every: usize,
    /// Steps between checkpoints.
    pub save_every: usize,
    /// What synthetic windows are drawn from.
    pub synth: SynthConfig,
    /// The model, where it is made anew; not needed beside `--init`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Shape>,
}

/// A LoRA adapter to train.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adapter {
    /// Rank.
    pub r: usize,
    /// Scale is alpha / r.
    pub alpha: f64,
    /// Share of each adapted layer's input that the adapter does not see in a step.
    #[serde(default)]
    pub dropout: f64,
    /// Ends of the paths of the modules that it sits beside, such as `q_proj`.
    pub targets: Vec<String>,
}

impl Config {
    pub(super) fn check(&self) -> Result<()> {
        ensure!(self.steps > 0 && self.micro_batch > 0 && self.workers > 0, "steps, micro_batch, workers: at least 1");
        ensure!(
            self.full_chain_every == 0 || self.full_chain_micro_batch > 0,
            "full_chain_micro_batch: at least 1 where full_chain_every is not 0"
        );
        ensure!(self.log_every > 0 && self.save_every > 0, "log_every, save_every: at least 1");
        ensure!(self.lora.is_none() || self.frozen_layers == 0, "frozen_layers: expected 0 beside lora");
        ensure!(self.learning_rate > 0.0, "learning_rate: over 0");
        match &self.shape {
            Some(shape) => self.fits(shape.layers),
            None => Ok(()),
        }
    }

    /// Layer numbers against a decoder of `layers` layers.
    pub(super) fn fits(&self, layers: usize) -> Result<()> {
        for (key, number) in [("frozen_layers", self.frozen_layers), ("flow_layer", self.flow_layer)] {
            ensure!(number < layers, "{key}: expected less than the decoder's {layers} layers, got {number}");
        }
        Ok(())
    }

    /// Linear warm-up, then a cosine down to `final_share`.
    pub(super) fn learning_rate_at(&self, step: usize) -> f64 {
        let warm = (step + 1) as f64 / self.warmup_steps.max(1) as f64;
        if warm < 1.0 {
            return self.learning_rate * warm;
        }
        let done =
            (step - self.warmup_steps.min(step)) as f64 / (self.steps - self.warmup_steps.min(self.steps - 1)) as f64;
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos());
        self.learning_rate * (self.final_share + (1.0 - self.final_share) * cosine)
    }
}

/// Reads a config.
///
/// # Errors
/// A file that is missing, a key that is unknown, missing or out of bounds, with its name.
pub fn read_config(path: &Path) -> Result<Config> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let config: Config = toml::from_str(&text).with_context(|| path.display().to_string())?;
    config.check().with_context(|| path.display().to_string())?;
    Ok(config)
}
