//! Settings of SFT.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::nano::Shape;
use crate::student::Adapter;
use crate::trainer::config::{OptimizerConfig, RunConfig, read};
use training_data::synth::SynthConfig;

/// `config/training/*.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How much, where, how often.
    pub run: RunConfig,
    /// AdamW and its learning rate.
    pub optimizer: OptimizerConfig,
    /// The objective.
    pub sft: SftConfig,
    /// What is learned from.
    pub data: DataConfig,
    /// The hold-out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval: Option<EvalConfig>,
    /// Train an adapter beside the weights of `--init`, which stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<Adapter>,
    /// The model, where it is made anew; not needed beside `--init`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Shape>,
}

/// `[sft]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SftConfig {
    /// Every n-th step is on full chains, the others on answers alone; 0 for never.
    pub full_chain_every: usize,
    /// Width of the Gaussian over the tokens of neighbouring numbers; 0 for plain targets.
    #[serde(default)]
    pub number_sigma: f64,
    /// Weight of the digits behind the third decimal.
    #[serde(default = "unit")]
    pub tail_weight: f32,
    /// Decoder layers that stay as they are, and the vision tower with them; 0 trains everything.
    #[serde(default)]
    pub frozen_layers: usize,
    /// Steps at the beginning that train the displacement head and what is below it alone, on prompts without response.
    #[serde(default)]
    pub flow_only_steps: usize,
    /// Weight of the displacement head; 0 for none.
    #[serde(default)]
    pub flow_weight: f64,
    /// Decoder layer that the head reads.
    #[serde(default)]
    pub flow_layer: usize,
    /// Weight of a linear head that reads each pose where its line begins; 0 for none.
    #[serde(default)]
    pub pose_weight: f64,
}

/// `[data]`: shards, or windows that are drawn as training goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Folder of `training chains`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shards: Option<PathBuf>,
    /// What synthetic windows are drawn from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub synth: Option<SynthConfig>,
}

/// `[eval]`: windows that are never trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalConfig {
    /// Folder of `training chains` with other videos; synthetic windows of another stream without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shards: Option<PathBuf>,
    /// Examples whose loss is taken.
    pub examples: usize,
    /// Of these, windows that are answered, for the share that parses.
    pub answers: usize,
    /// Tokens after which an answer is given up.
    pub max_tokens: usize,
}

fn unit() -> f32 {
    1.0
}

impl Config {
    pub(super) fn check(&self) -> Result<()> {
        self.run.check()?;
        self.optimizer.check()?;
        let s = &self.sft;
        for (key, got) in [
            ("number_sigma", s.number_sigma),
            ("tail_weight", f64::from(s.tail_weight)),
            ("flow_weight", s.flow_weight),
            ("pose_weight", s.pose_weight),
        ] {
            ensure!(got >= 0.0 && got.is_finite(), "sft.{key}: expected at least 0, got {got}");
        }
        ensure!(self.lora.is_none() || s.frozen_layers == 0, "sft.frozen_layers: expected 0 beside lora");
        ensure!(s.flow_only_steps == 0 || s.flow_weight > 0.0, "sft.flow_only_steps: expected flow_weight over 0");
        ensure!(
            self.data.shards.is_some() != self.data.synth.is_some(),
            "data: expected one of shards and synth, got {}",
            if self.data.shards.is_some() { "both" } else { "none" }
        );
        ensure!(self.data.shards.is_none() || s.flow_weight <= 0.0, "sft.flow_weight: shards have no displacements");
        if let Some(eval) = &self.eval {
            ensure!(eval.examples > 0, "eval.examples: expected at least 1");
            ensure!(eval.answers <= eval.examples, "eval.answers: expected at most eval.examples = {}", eval.examples);
            ensure!(
                eval.shards.is_some() || self.data.synth.is_some(),
                "eval.shards: expected a folder, since data.shards is one"
            );
        }
        match &self.shape {
            Some(shape) => self.fits(shape.layers),
            None => Ok(()),
        }
    }

    /// Layer numbers against a decoder of `layers` layers.
    pub(super) fn fits(&self, layers: usize) -> Result<()> {
        for (key, number) in [("frozen_layers", self.sft.frozen_layers), ("flow_layer", self.sft.flow_layer)] {
            ensure!(number < layers, "sft.{key}: expected less than the decoder's {layers} layers, got {number}");
        }
        Ok(())
    }
}

/// Reads a config.
///
/// # Errors
/// A file that is missing, a key that is unknown, missing or out of bounds, with its name.
pub fn read_config(path: &Path) -> Result<Config> {
    read(path, Config::check)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trainer::config::path_of;

    type Edit = fn(&mut SftConfig, f64);

    #[test]
    fn a_weight_that_is_none_is_named() {
        let shipped = read_config(&path_of("nano-1-motion.toml")).unwrap();
        let edits: [(&str, Edit); 4] = [
            ("number_sigma", |sft, value| sft.number_sigma = value),
            ("tail_weight", |sft, value| sft.tail_weight = value as f32),
            ("flow_weight", |sft, value| sft.flow_weight = value),
            ("pose_weight", |sft, value| sft.pose_weight = value),
        ];
        for (key, edit) in edits {
            for value in [-0.5, f64::NAN, f64::INFINITY] {
                let mut config = shipped.clone();
                edit(&mut config.sft, value);
                let problem = config.check().unwrap_err().to_string();
                assert_eq!(problem, format!("sft.{key}: expected at least 0, got {value}"));
            }
        }
    }
}
