//! Settings of GRPO.

use std::path::Path;

use anyhow::{Result, ensure};
use model::Mode;
use model::answer::budget::Budget;
use model::answer::fill::Fill;
use serde::{Deserialize, Serialize};

use crate::student::Adapter;
use crate::trainer::config::{OptimizerConfig, RunConfig, read};

/// `config/training/*grpo.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How much, where, how often; an example is a prompt, whose group of answers stays together.
    pub run: RunConfig,
    /// AdamW and its learning rate.
    pub optimizer: OptimizerConfig,
    /// The objective.
    pub grpo: GrpoConfig,
    /// What is asked about.
    pub data: DataConfig,
    /// The hold-out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval: Option<EvalConfig>,
    /// Train an adapter beside the weights of `--init`, which stay as they are and are the reference; all weights
    /// without it, and a copy of them is the reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<Adapter>,
}

/// `[grpo]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrpoConfig {
    /// What is asked for: the whole chain, or the poses alone.
    pub mode: Mode,
    /// Answers of a prompt, whose rewards are compared with one another.
    pub group_size: usize,
    /// At which answers are sampled; probabilities are judged at the same.
    pub temperature: f64,
    /// After which an answer is given up: a parse failure, whatever it says.
    pub max_tokens: Budget,
    /// What the program writes of an answer: no part of the loss. All that is left to the policy is then drawn under the grammar.
    #[serde(default)]
    pub fill: Fill,
    /// Weight of the divergence from the reference; at 0 there is no reference.
    pub kl_weight: f64,
    /// How far the ratio of probabilities may be from 1 before it earns no more.
    pub clip: f64,
    /// Optimizer steps on the same answers.
    pub updates: usize,
    /// What the mean is over.
    pub normalisation: Normalisation,
    /// Answers of a group that go through the decoder at once: fewer take less memory and more time.
    pub chunk: usize,
    /// Batches of rollouts from one that is written to `rollouts/` to the next; 0 for none.
    pub rollouts_every: usize,
}

/// What the mean of the loss is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalisation {
    /// Tokens of an answer, then answers (GRPO): tokens of a long answer count less.
    Sequence,
    /// All tokens of the step alike (DAPO, Yu et al. 2025, eq. 8).
    Token,
}

/// `[data]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// As `--data` of the other verbs: see [`training_data::parse_source`]. Gone through in another order each epoch.
    pub windows: String,
}

/// `[eval]`: windows that are never trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalConfig {
    /// As `[data]` has them.
    pub windows: String,
    /// At which the one answer a window is sampled, with the same seeds each time; 0 for the likeliest tokens.
    #[serde(default)]
    pub temperature: f64,
}

impl Config {
    pub(super) fn check(&self) -> Result<()> {
        self.run.check()?;
        self.optimizer.check()?;
        let g = &self.grpo;
        for (key, least, got) in [("group_size", 2, g.group_size), ("updates", 1, g.updates), ("chunk", 1, g.chunk)] {
            ensure!(got >= least, "grpo.{key}: expected at least {least}, got {got}");
        }
        // Nothing else has a place for it.
        ensure!(
            g.fill != Fill::Measured || g.mode == Mode::FullChain,
            "grpo.mode: expected full_chain, since grpo.fill is measured, got {}",
            g.mode.name()
        );
        let eval_temperature = self.eval.as_ref().map_or(0.0, |eval| eval.temperature);
        for (key, fine, expected, got) in [
            ("grpo.temperature", g.temperature > 0.0, "over 0", g.temperature),
            ("grpo.kl_weight", g.kl_weight >= 0.0, "at least 0", g.kl_weight),
            ("grpo.clip", g.clip > 0.0 && g.clip < 1.0, "between 0 and 1", g.clip),
            ("eval.temperature", eval_temperature >= 0.0, "at least 0", eval_temperature),
        ] {
            ensure!(fine && got.is_finite(), "{key}: expected {expected}, got {got}");
        }
        // A checkpoint within the updates of one batch of rollouts would lose them.
        ensure!(
            self.run.save_every.is_multiple_of(g.updates),
            "run.save_every: expected a multiple of grpo.updates = {}, got {}",
            g.updates,
            self.run.save_every
        );
        // Answers are sampled without it, so that even the first update would be on another policy's.
        let dropout = self.lora.as_ref().map_or(0.0, |lora| lora.dropout);
        ensure!(dropout <= 0.0, "lora.dropout: expected 0, got {dropout}");
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

    fn shipped(name: &str) -> Config {
        read_config(&path_of(name)).unwrap()
    }

    #[test]
    fn the_shipped_config_has_the_numbers_of_the_paper() {
        let config = shipped("grpo.toml");
        let g = &config.grpo;
        // EgoReasoner, section 3.4.
        let got = [g.temperature, g.kl_weight, config.optimizer.learning_rate, config.run.epochs];
        assert!(got.iter().zip([0.7, 0.01, 1e-6, 1.0]).all(|(a, b)| (a - b).abs() < 1e-12), "{got:?}");
        assert_eq!((g.group_size, g.mode), (4, Mode::FullChain));
        // Not published.
        assert!((g.clip - 0.2).abs() < 1e-12, "{}", g.clip);
        assert_eq!((g.updates, g.normalisation), (1, Normalisation::Sequence));
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        let error = |change: fn(&mut Config)| {
            let mut config = shipped("nano-grpo.toml");
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        type Change = fn(&mut Config);
        let cases: [(Change, &str); 8] = [
            (|c| c.grpo.fill = Fill::Measured, "grpo.mode: expected full_chain, since grpo.fill is measured"),
            (|c| c.grpo.group_size = 1, "grpo.group_size: expected at least 2, got 1"),
            (|c| c.grpo.temperature = 0.0, "grpo.temperature"),
            (|c| c.grpo.kl_weight = f64::NAN, "grpo.kl_weight"),
            (|c| c.grpo.clip = 1.0, "grpo.clip"),
            (
                |c| (c.grpo.updates, c.run.save_every) = (3, 50),
                "run.save_every: expected a multiple of grpo.updates = 3",
            ),
            (|c| c.lora.iter_mut().for_each(|lora| lora.dropout = 0.05), "lora.dropout"),
            (|c| c.eval.iter_mut().for_each(|eval| eval.temperature = -1.0), "eval.temperature"),
        ];
        for (change, part) in cases {
            let text = error(change);
            assert!(text.contains(part), "{text}");
        }
    }
}
