//! Settings of nano's stages.

use std::path::Path;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::sft::{self, DataConfig, EvalConfig, SftConfig};
use crate::student::Shape;
use crate::trainer::config::{OptimizerConfig, RunConfig, read};

/// `config/training/nano-1-motion.toml` and the two behind it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How much, where, how often.
    pub run: RunConfig,
    /// AdamW and its learning rate.
    pub optimizer: OptimizerConfig,
    /// The objective that is helped along.
    pub sft: SftConfig,
    /// What helps.
    pub nano: NanoConfig,
    /// What is learned from.
    pub data: DataConfig,
    /// The hold-out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval: Option<EvalConfig>,
    /// The model, where it is made anew; not needed beside `--init`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Shape>,
}

/// `[nano]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NanoConfig {
    /// Width of the Gaussian over the tokens of neighbouring numbers; 0 for plain targets.
    pub number_sigma: f64,
    /// Weight of the digits behind the third decimal.
    pub tail_weight: f32,
    /// Decoder layers that stay as they are, and the vision tower with them; 0 trains everything.
    pub frozen_layers: usize,
    /// Steps at the beginning that train the displacement head and what is below it alone, on prompts without response.
    pub flow_only_steps: usize,
    /// Weight of the displacement head; 0 for none.
    pub flow_weight: f64,
    /// Decoder layer that the head reads.
    pub flow_layer: usize,
    /// Weight of a linear head that reads each pose where its line begins; 0 for none.
    pub pose_weight: f64,
}

impl Config {
    /// The same without what helps.
    pub fn plain(&self) -> sft::Config {
        let Self { run, optimizer, sft, data, eval, shape, .. } = self.clone();
        sft::Config { run, optimizer, sft, data, eval, lora: None, shape }
    }

    pub(super) fn check(&self) -> Result<()> {
        self.plain().check()?;
        let n = &self.nano;
        for (key, got) in [
            ("number_sigma", n.number_sigma),
            ("tail_weight", f64::from(n.tail_weight)),
            ("flow_weight", n.flow_weight),
            ("pose_weight", n.pose_weight),
        ] {
            ensure!(got >= 0.0 && got.is_finite(), "nano.{key}: expected at least 0, got {got}");
        }
        ensure!(n.flow_only_steps == 0 || n.flow_weight > 0.0, "nano.flow_only_steps: expected flow_weight over 0");
        ensure!(self.data.shards.is_none() || n.flow_weight <= 0.0, "nano.flow_weight: shards have no displacements");
        match &self.shape {
            Some(shape) => self.fits(shape.layers),
            None => Ok(()),
        }
    }

    /// Layer numbers against a decoder of `layers` layers.
    pub(super) fn fits(&self, layers: usize) -> Result<()> {
        for (key, number) in [("frozen_layers", self.nano.frozen_layers), ("flow_layer", self.nano.flow_layer)] {
            ensure!(number < layers, "nano.{key}: expected less than the decoder's {layers} layers, got {number}");
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

    type Edit = fn(&mut NanoConfig, f64);

    #[test]
    fn a_weight_that_is_none_is_named() {
        let shipped = read_config(&path_of("nano-1-motion.toml")).unwrap();
        let edits: [(&str, Edit); 4] = [
            ("number_sigma", |nano, value| nano.number_sigma = value),
            ("tail_weight", |nano, value| nano.tail_weight = value as f32),
            ("flow_weight", |nano, value| nano.flow_weight = value),
            ("pose_weight", |nano, value| nano.pose_weight = value),
        ];
        for (key, edit) in edits {
            for value in [-0.5, f64::NAN, f64::INFINITY] {
                let mut config = shipped.clone();
                edit(&mut config.nano, value);
                let problem = config.check().unwrap_err().to_string();
                assert_eq!(problem, format!("nano.{key}: expected at least 0, got {value}"));
            }
        }
    }
}
