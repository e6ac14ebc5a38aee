//! Settings of SFT.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use model::answer::budget::Budget;

use crate::student::{Adapter, Shape};
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
    /// After which an answer is given up.
    pub max_tokens: Budget,
}

impl Config {
    pub(crate) fn check(&self) -> Result<()> {
        self.run.check()?;
        self.optimizer.check()?;
        ensure!(
            self.data.shards.is_some() != self.data.synth.is_some(),
            "data: expected one of shards and synth, got {}",
            if self.data.shards.is_some() { "both" } else { "none" }
        );
        if let Some(eval) = &self.eval {
            ensure!(eval.examples > 0, "eval.examples: expected at least 1");
            ensure!(eval.answers <= eval.examples, "eval.answers: expected at most eval.examples = {}", eval.examples);
            ensure!(
                eval.shards.is_some() || self.data.synth.is_some(),
                "eval.shards: expected a folder, since data.shards is one"
            );
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

    #[test]
    fn the_shipped_config_has_the_numbers_of_the_paper() {
        // EgoReasoner, section 3.3; the hold-out of section 4.1.
        let config = read_config(&path_of("sft.toml")).unwrap();
        let (run, optimizer, lora) = (&config.run, &config.optimizer, config.lora.unwrap());
        let got = [run.epochs, optimizer.learning_rate, optimizer.warmup_share, lora.alpha, lora.dropout];
        assert!(got.iter().zip([1.0, 1e-4, 0.1, 32.0, 0.05]).all(|(a, b)| (a - b).abs() < 1e-12), "{got:?}");
        assert_eq!((run.batch, lora.r, config.sft.full_chain_every), (24, 16, 1));
        assert_eq!(lora.targets, ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]);
        assert_eq!(config.eval.unwrap().examples, 60);
    }
}
