//! Settings of the stage.

use std::path::Path;

use anyhow::{Result, ensure};
use model::pose_head::PoseHeadConfig;
use serde::{Deserialize, Serialize};

use crate::depth::DepthConfig;
use crate::student::{Adapter, Shape};
use crate::trainer::config::{OptimizerConfig, RunConfig, read};

/// `config/training/*situation.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How much, where, how often.
    pub run: RunConfig,
    /// AdamW and its learning rate.
    pub optimizer: OptimizerConfig,
    /// The answer, which must not be unlearned.
    pub text: TextConfig,
    /// Where on the ground plane each vision token's surface lies.
    pub layout: LayoutConfig,
    /// Where each frame was taken.
    pub situation: SituationConfig,
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

/// `[text]`: next-token loss on the poses, asked for as in `answer_only`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextConfig {
    /// Weight of the loss; 0 spares the second pass over the prompt.
    pub weight: f64,
    /// As `sft.number_sigma`.
    pub number_sigma: f64,
    /// As `sft.tail_weight`.
    pub tail_weight: f32,
}

/// `[layout]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayoutConfig {
    /// Weight of the loss; 0 for no head.
    pub weight: f64,
    /// Width of the head's inner layer.
    pub hidden: usize,
    /// Scene units that the head calls 1.
    pub unit: f64,
    /// Bounds of the log variances, of coordinates in `unit`s.
    pub log_variance: [f64; 2],
}

/// `[situation]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SituationConfig {
    /// Weight of all that follows.
    pub weight: f64,
    /// Weight of the yaw's loss beside the position's.
    pub orientation_weight: f64,
    /// Weight of the loss of pitch and roll beside the position's; idle without `full_pose`.
    pub tilt_weight: f64,
    /// Whether `<Pos>` also says y, and `<Ori>` pitch and roll: without, no pose of six degrees of freedom comes out.
    pub full_pose: bool,
    /// Width of the heads' inner layers.
    pub hidden: usize,
    /// Scene units that the position head calls 1.
    pub unit: f64,
    /// Degrees that the orientation head calls 1, of pitch and roll.
    pub tilt_unit_deg: f64,
    /// Bounds of the log variances, of positions in `unit`s and of tilts in `tilt_unit_deg`s.
    pub log_variance: [f64; 2],
    /// Parts that the circle is cut into for the yaw.
    pub bins: usize,
    /// Width of the wrapped Gaussian around the true yaw, in bins.
    pub bin_sigma: f64,
    /// Whether the vision tower stays as it is, its merger included.
    pub freeze_vision: bool,
}

/// `[data]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// As `--data` of `training eval`.
    pub source: String,
    /// Windows, spread evenly over the source, whose mean pose and mean layout are what the heads have to beat.
    pub sample: u64,
    /// Depth of windows that have none, those of the hold-out too: without, they teach all but the layout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<DepthConfig>,
}

/// `[eval]`: windows that are never trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalConfig {
    /// As `data.source`, of other videos.
    pub source: String,
    /// Windows, spread evenly over the source.
    pub windows: u64,
}

impl SituationConfig {
    /// What the node has to know of the heads.
    pub(super) fn pose_head(&self) -> PoseHeadConfig {
        PoseHeadConfig {
            full_pose: self.full_pose,
            hidden: self.hidden,
            unit: self.unit,
            tilt_unit_deg: self.tilt_unit_deg,
            log_variance: self.log_variance,
            bins: self.bins,
        }
    }
}

impl Config {
    pub(super) fn check(&self) -> Result<()> {
        self.run.check()?;
        self.optimizer.check()?;
        self.data.depth.as_ref().map_or(Ok(()), DepthConfig::check)?;
        let (text, layout, situation) = (&self.text, &self.layout, &self.situation);
        let weight = |v: f64| v >= 0.0 && v.is_finite();
        let positive = |v: f64| v > 0.0 && v.is_finite();
        for (key, fine, expected, got) in [
            ("text.weight", weight(text.weight), "at least 0", text.weight),
            ("text.number_sigma", weight(text.number_sigma), "at least 0", text.number_sigma),
            ("text.tail_weight", text.tail_weight > 0.0, "over 0", f64::from(text.tail_weight)),
            ("layout.weight", weight(layout.weight), "at least 0", layout.weight),
            ("layout.unit", positive(layout.unit), "over 0", layout.unit),
            ("situation.weight", positive(situation.weight), "over 0", situation.weight),
            (
                "situation.orientation_weight",
                positive(situation.orientation_weight),
                "over 0",
                situation.orientation_weight,
            ),
            ("situation.tilt_weight", positive(situation.tilt_weight), "over 0", situation.tilt_weight),
            ("situation.unit", positive(situation.unit), "over 0", situation.unit),
            ("situation.tilt_unit_deg", positive(situation.tilt_unit_deg), "over 0", situation.tilt_unit_deg),
            (
                "situation.bin_sigma",
                positive(situation.bin_sigma) && situation.bin_sigma <= situation.bins as f64 / 4.0,
                "over 0 and at most a quarter of situation.bins",
                situation.bin_sigma,
            ),
        ] {
            ensure!(fine, "{key}: expected {expected}, got {got}");
        }
        for (key, least, got) in [
            ("layout.hidden", 1, layout.hidden as u64),
            ("situation.hidden", 1, situation.hidden as u64),
            ("situation.bins", 4, situation.bins as u64),
            ("data.sample", 1, self.data.sample),
            ("eval.windows", 1, self.eval.as_ref().map_or(1, |eval| eval.windows)),
        ] {
            ensure!(got >= least, "{key}: expected at least {least}, got {got}");
        }
        for (key, [low, high]) in
            [("layout.log_variance", layout.log_variance), ("situation.log_variance", situation.log_variance)]
        {
            ensure!(low < high, "{key}: expected the lower bound first, got [{low}, {high}]");
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

    fn read(name: &str) -> Config {
        read_config(&path_of(name)).unwrap()
    }

    #[test]
    fn the_configs_have_the_weights_of_the_notes() {
        for name in ["situation.toml", "nano-situation.toml"] {
            let config = read(name);
            let (layout, situation) = (&config.layout, &config.situation);
            let weights = [layout.weight, situation.weight, situation.orientation_weight, situation.bins as f64];
            assert!(weights.iter().zip([0.05, 0.075, 3.5, 36.0]).all(|(a, b)| (a - b).abs() < 1e-12), "{name}");
        }
    }

    #[test]
    fn keys_out_of_bounds_are_named() {
        type Edit = fn(&mut Config);
        let edits: [(&str, Edit); 6] = [
            ("situation.unit", |c| c.situation.unit = 0.0),
            ("situation.bin_sigma", |c| c.situation.bin_sigma = 10.0),
            ("situation.log_variance", |c| c.situation.log_variance = [5.0, -7.0]),
            ("layout.weight", |c| c.layout.weight = f64::NAN),
            ("text.weight", |c| c.text.weight = -1.0),
            ("eval.windows", |c| c.eval = Some(EvalConfig { source: String::new(), windows: 0 })),
        ];
        for (key, edit) in edits {
            let mut config = read("nano-situation.toml");
            edit(&mut config);
            let error = config.check().unwrap_err().to_string();
            assert!(error.starts_with(key), "{key}: {error}");
        }
    }
}
