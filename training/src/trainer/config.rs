//! Settings that every stage of training has.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// `[run]`: how much, where, and how often it is looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Seed of weights, data and dropout.
    pub seed: u64,
    /// Optimizer steps; 0 takes them from `epochs`.
    #[serde(default)]
    pub steps: usize,
    /// Passes over the data, where `steps` is 0.
    #[serde(default)]
    pub epochs: f64,
    /// Examples of a step, over all ranks and micro-batches.
    pub batch: usize,
    /// Examples that go through the model at once.
    pub micro_batch: usize,
    /// Threads of a rank that each take micro-batches; 1 on a GPU.
    #[serde(default = "one")]
    pub workers: usize,
    /// `cpu`, `cuda` or `cuda:N`; with several ranks on a machine, `cuda` is the GPU of the local rank.
    #[serde(default = "cpu")]
    pub device: String,
    /// Keep only the inputs of decoder layers on the way forward, and compute the rest again on the way back.
    #[serde(default)]
    pub checkpointing: bool,
    /// Steps between log lines and points of the curves.
    pub log_every: usize,
    /// Steps between looks at the hold-out; 0 for none but the last.
    #[serde(default)]
    pub eval_every: usize,
    /// Steps between checkpoints.
    pub save_every: usize,
    /// Checkpoints that are kept; older ones are deleted.
    #[serde(default = "two")]
    pub keep: usize,
}

/// `[optimizer]`: AdamW under a cosine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Share of the steps in which the rate rises to its peak.
    pub warmup_share: f64,
    /// Rate at the end, as a share of the peak.
    #[serde(default)]
    pub final_share: f64,
    /// Rate of heads beside the model, as a multiple of the model's.
    #[serde(default = "unit")]
    pub heads_rate: f64,
    /// Decay of the mean gradient.
    pub beta_1: f64,
    /// Decay of the mean squared gradient.
    pub beta_2: f64,
    /// Decoupled decay of matrices.
    pub weight_decay: f64,
    /// Largest norm of the gradient.
    pub max_grad_norm: f64,
}

/// Reads the settings of a stage, which `check` finds fit or not.
///
/// # Errors
/// A file that is missing, a key that is unknown, missing or out of bounds, with its name.
pub(crate) fn read<C: DeserializeOwned>(path: &Path, check: impl Fn(&C) -> Result<()>) -> Result<C> {
    let read = || -> Result<C> {
        let text = std::fs::read_to_string(path)?;
        let config: C = toml::from_str(&text)?;
        check(&config)?;
        Ok(config)
    };
    read().with_context(|| path.display().to_string())
}

/// Where a config that is shipped lies.
#[cfg(test)]
pub(crate) fn path_of(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/training").join(name)
}

fn one() -> usize {
    1
}

fn two() -> usize {
    2
}

fn unit() -> f64 {
    1.0
}

fn cpu() -> String {
    "cpu".to_owned()
}

impl RunConfig {
    /// # Errors
    /// A key out of bounds, with its name.
    pub fn check(&self) -> Result<()> {
        ensure!(self.steps > 0 || self.epochs > 0.0, "run.steps: expected at least 1, or run.epochs over 0");
        ensure!(self.steps == 0 || self.epochs <= 0.0, "run.steps, run.epochs: expected one of them");
        for (key, value) in [
            ("batch", self.batch),
            ("micro_batch", self.micro_batch),
            ("workers", self.workers),
            ("log_every", self.log_every),
            ("save_every", self.save_every),
            ("keep", self.keep),
        ] {
            ensure!(value > 0, "run.{key}: expected at least 1");
        }
        ensure!(
            self.batch.is_multiple_of(self.micro_batch),
            "run.batch: expected a multiple of run.micro_batch = {}, got {}",
            self.micro_batch,
            self.batch
        );
        ensure!(
            self.device == "cpu" || self.workers == 1,
            "run.workers: expected 1 on {}, got {}",
            self.device,
            self.workers
        );
        Ok(())
    }

    /// Optimizer steps over data of `epoch` examples.
    ///
    /// # Errors
    /// Epochs over a stream without end.
    pub fn steps(&self, epoch: Option<u64>) -> Result<usize> {
        match epoch {
            _ if self.steps > 0 => Ok(self.steps),
            Some(examples) => Ok(((self.epochs * examples as f64 / self.batch as f64).ceil() as usize).max(1)),
            None => anyhow::bail!("run.epochs: the data has no end; expected run.steps"),
        }
    }
}

impl OptimizerConfig {
    /// # Errors
    /// A key out of bounds, with its name.
    pub fn check(&self) -> Result<()> {
        let share = |v: f64| (0.0..=1.0).contains(&v);
        let decay = |v: f64| (0.0..1.0).contains(&v);
        let positive = |v: f64| v > 0.0 && v.is_finite();
        for (key, fine, expected, got) in [
            ("learning_rate", positive(self.learning_rate), "over 0", self.learning_rate),
            ("warmup_share", share(self.warmup_share), "0 to 1", self.warmup_share),
            ("final_share", share(self.final_share), "0 to 1", self.final_share),
            ("heads_rate", positive(self.heads_rate), "over 0", self.heads_rate),
            ("beta_1", decay(self.beta_1), "0 to below 1", self.beta_1),
            ("beta_2", decay(self.beta_2), "0 to below 1", self.beta_2),
            ("weight_decay", self.weight_decay >= 0.0, "at least 0", self.weight_decay),
            ("max_grad_norm", positive(self.max_grad_norm), "over 0", self.max_grad_norm),
        ] {
            ensure!(fine, "optimizer.{key}: expected {expected}, got {got}");
        }
        Ok(())
    }

    /// Rate of one of `steps` steps: a linear rise, then a cosine down to `final_share`.
    pub fn rate_at(&self, step: usize, steps: usize) -> f64 {
        let warmup = (self.warmup_share * steps as f64).round();
        let warm = (step + 1) as f64 / warmup.max(1.0);
        if warm < 1.0 {
            return self.learning_rate * warm;
        }
        let done = (step as f64 - warmup).max(0.0) / (steps as f64 - warmup).max(1.0);
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos());
        self.learning_rate * (self.final_share + (1.0 - self.final_share) * cosine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_to_its_peak_and_falls_to_its_end() {
        let optimizer = OptimizerConfig {
            learning_rate: 1e-4,
            warmup_share: 0.1,
            final_share: 0.05,
            heads_rate: 1.0,
            beta_1: 0.9,
            beta_2: 0.999,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
        };
        optimizer.check().unwrap();
        let rates: Vec<f64> = (0..200).map(|step| optimizer.rate_at(step, 200)).collect();
        let peak = rates.iter().copied().fold(0.0, f64::max);
        assert!((peak - 1e-4).abs() < 1e-12 && (rates[19] - peak).abs() < 1e-12);
        assert!(rates[..20].windows(2).all(|w| w[0] < w[1]) && rates[21..].windows(2).all(|w| w[0] > w[1]));
        assert!(rates[0] > 0.0 && (rates[199] - 5e-6).abs() < 1e-7, "{}", rates[199]);
    }
}
