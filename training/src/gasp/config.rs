//! Settings of GASP.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};

pub use crate::depth::DepthConfig;
use crate::student::Adapter;
use crate::trainer::config::{OptimizerConfig, RunConfig, read};

/// `config/training/*gasp.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How much, where, how often.
    pub run: RunConfig,
    /// AdamW and its learning rate.
    pub optimizer: OptimizerConfig,
    /// The objective.
    pub gasp: GaspConfig,
    /// Sets of frames.
    pub data: DataConfig,
    /// Language among them.
    pub mix: MixConfig,
    /// The hold-out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval: Option<EvalConfig>,
    /// Train an adapter beside the weights of `--init`, which stay as they are; all weights without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<Adapter>,
}

/// What a match is told from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Negatives {
    /// Tokens of all other frames that do not show the same point: section 5.1 without the anchor's own frame and the other matches.
    AllFrames,
    /// Tokens of all frames, the anchor's own among them, but for the anchor (section 5.1 to the letter): the point's places in third
    /// frames are negatives too.
    AllPatches,
    /// Tokens of the target frame alone (Eq. 5 to the letter).
    TargetFrame,
}

/// `[gasp]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GaspConfig {
    /// Decoder layers with a head, counted from 0: `all`, or numbers and ranges as `0-3+8`.
    pub layers: String,
    /// Width e of an embedding.
    pub width: usize,
    /// Temperature of the similarities.
    pub tau: f64,
    /// Weight of the correspondence term.
    pub correspondence_weight: f64,
    /// Weight of the depth term.
    pub depth_weight: f64,
    /// What a match is told from.
    pub negatives: Negatives,
    /// Most anchors of a set, each with all its matches; a bound on memory.
    pub anchors: usize,
    /// Smallest share of an anchor's pixels that must have depth, for the depth term.
    pub min_known: f64,
    /// Largest deviation of the depth in an anchor, as a share of its mean, for the depth term.
    pub max_spread: f64,
    /// Of the language term: width of the Gaussian over the tokens of neighbouring numbers; 0 for plain targets.
    #[serde(default)]
    pub number_sigma: f64,
    /// Of the language term: weight of the digits behind the third decimal.
    #[serde(default = "unit")]
    pub tail_weight: f32,
}

/// `[data]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Source of the films, as `--data` of eval: a set is drawn around the first frame of a window.
    pub sets: String,
    /// Fewest frames of a set.
    pub fewest: usize,
    /// Most frames of a set.
    pub most: usize,
    /// How far from the anchor the others may be, frames of the recording.
    pub reach: usize,
    /// Widths and heights that frames are brought to, pixels, whole tokens a side: every set is learned from on each of these grids,
    /// one after another. Without any, what the model's processor makes of them.
    #[serde(default)]
    pub sizes: Vec<[u32; 2]>,
    /// Depth of recordings that have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<DepthConfig>,
}

/// `[mix]`: the language examples of the stream, against forgetting; where there are both kinds, they take turns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MixConfig {
    /// Every n-th example of the stream is one.
    pub every: u64,
    /// Instructions: a JSON file in the layout of LLaVA-Video-178K.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instruct: Option<PathBuf>,
    /// Where its images and videos lie; its own folder without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<PathBuf>,
    /// Most frames of a video of the instructions.
    #[serde(default = "eight")]
    pub video_frames: usize,
    /// Most pixels of an image of the instructions.
    #[serde(default = "quarter_megapixel")]
    pub image_pixels: u64,
    /// Windows with the poses that answer them: a source as `--data` of eval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub windows: Option<String>,
}

/// `[eval]`: what is never trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalConfig {
    /// Source of the sets.
    pub sets: String,
    /// Sets, and language examples.
    pub examples: usize,
    /// As `mix.instruct`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instruct: Option<PathBuf>,
    /// As `mix.windows`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub windows: Option<String>,
}

fn unit() -> f32 {
    1.0
}

fn eight() -> usize {
    8
}

fn quarter_megapixel() -> u64 {
    1 << 18
}

impl Config {
    /// # Errors
    /// A key out of bounds, with its name.
    pub fn check(&self) -> Result<()> {
        self.run.check()?;
        self.optimizer.check()?;
        self.gasp.check()?;
        self.data.check()?;
        let (mix, step) = (&self.mix, self.run.batch as u64 * self.run.log_every as u64);
        ensure!(
            mix.instruct.is_some() || mix.windows.is_some(),
            "mix: expected instruct, windows or both, since the total has a language term"
        );
        ensure!(mix.every >= 2, "mix.every: expected at least 2, got {}", mix.every);
        // The loop takes a variable that had no gradient by then for one that an operation cut off.
        ensure!(mix.every <= step, "mix.every: expected at most run.batch x run.log_every = {step}, got {}", mix.every);
        ensure!(mix.video_frames > 0, "mix.video_frames: expected at least 1");
        if let Some(eval) = &self.eval {
            ensure!(eval.examples > 0, "eval.examples: expected at least 1");
        }
        Ok(())
    }
}

impl GaspConfig {
    fn check(&self) -> Result<()> {
        // Any number of layers will do: whether the model has them shows when it is there.
        self.layers(1 << 12)?;
        ensure!(self.width > 0 && self.anchors > 0, "gasp.width, gasp.anchors: expected at least 1");
        let share = |v: f64| (0.0..=1.0).contains(&v);
        let weight = |v: f64| v >= 0.0 && v.is_finite();
        for (key, fine, expected, got) in [
            // exp(-2 / tau) must stay a normal number of f32.
            ("tau", (0.03..=10.0).contains(&self.tau), "0.03 to 10", self.tau),
            ("correspondence_weight", weight(self.correspondence_weight), "at least 0", self.correspondence_weight),
            ("depth_weight", weight(self.depth_weight), "at least 0", self.depth_weight),
            ("min_known", share(self.min_known), "0 to 1", self.min_known),
            ("max_spread", weight(self.max_spread), "at least 0", self.max_spread),
            ("number_sigma", weight(self.number_sigma), "at least 0", self.number_sigma),
            ("tail_weight", weight(self.tail_weight.into()), "at least 0", self.tail_weight.into()),
        ] {
            ensure!(fine, "gasp.{key}: expected {expected}, got {got}");
        }
        Ok(())
    }

    /// Numbers of the layers with a head, ascending, in a decoder of `depth` layers.
    ///
    /// # Errors
    /// A text that is none, a layer that is not there.
    pub fn layers(&self, depth: usize) -> Result<Vec<usize>> {
        if self.layers == "all" {
            return Ok((0..depth).collect());
        }
        let mut layers = std::collections::BTreeSet::new();
        for part in self.layers.split('+') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Ok(first), Ok(last)) = (first.trim().parse::<usize>(), last.trim().parse::<usize>()) else {
                bail!("gasp.layers: expected all, or numbers and ranges as 0-3+8, got {:?}", self.layers);
            };
            ensure!(first <= last && last < depth, "gasp.layers: expected layers of 0 to {}, got {part}", depth - 1);
            layers.extend(first..=last);
        }
        Ok(layers.into_iter().collect())
    }
}

impl DataConfig {
    fn check(&self) -> Result<()> {
        ensure!(
            (2..=self.most).contains(&self.fewest),
            "data.fewest: expected 2 to data.most = {}, got {}",
            self.most,
            self.fewest
        );
        self.depth.as_ref().map_or(Ok(()), DepthConfig::check)
    }

    /// Width and height of each grid, at least one; nothing for that of the model's processor.
    pub fn grids(&self) -> Vec<Option<(u32, u32)>> {
        let sizes: Vec<_> = self.sizes.iter().map(|&[width, height]| Some((width, height))).collect();
        if sizes.is_empty() { vec![None] } else { sizes }
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
    fn the_shipped_ones_say_what_was_decided() {
        let config = shipped("gasp.toml");
        let g = &config.gasp;
        for (got, expected) in [
            (g.tau, 0.07),
            (g.correspondence_weight, 1.0),
            (g.depth_weight, 0.1),
            (g.min_known, 0.5),
            (g.max_spread, 0.25),
            // Section 5.1.
            (config.optimizer.learning_rate, 1e-4),
            (config.optimizer.heads_rate, 4.0),
            (config.optimizer.max_grad_norm, 1.0),
        ] {
            assert!((got - expected).abs() < 1e-12, "{got} {expected}");
        }
        assert_eq!((g.width, g.layers(36).unwrap().len(), g.negatives), (256, 36, Negatives::AllFrames));
        assert_eq!((config.data.fewest, config.data.most, config.data.reach), (8, 24, 48));
        // 8 x 8 and 24 x 24 tokens of 32 pixels.
        assert_eq!(config.data.grids(), [Some((256, 256)), Some((768, 768))]);
        let lora = config.lora.unwrap();
        assert!(lora.r == 128 && (lora.alpha - 256.0).abs() < 1e-12);
        let nano = shipped("nano-gasp.toml");
        assert_eq!((nano.lora, nano.run.device.as_str()), (None, "cpu"));
    }

    #[test]
    fn layers_are_numbers_and_ranges() {
        let of = |text: &str, depth| GaspConfig { layers: text.to_owned(), ..shipped("gasp.toml").gasp }.layers(depth);
        assert_eq!(of("all", 3).unwrap(), [0, 1, 2]);
        assert_eq!(of("5", 6).unwrap(), [5]);
        assert_eq!(of("8 + 0-2+2", 9).unwrap(), [0, 1, 2, 8]);
        for (text, depth) in [("6", 6), ("", 6), ("3-1", 6), ("2,3", 6), ("-1", 6), ("1-", 6)] {
            assert!(of(text, depth).unwrap_err().to_string().contains("gasp.layers"), "{text}");
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        let error = |change: &dyn Fn(&mut Config)| {
            let mut config = shipped("gasp.toml");
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        assert!(error(&|c| c.gasp.tau = 0.0).contains("gasp.tau"));
        assert!(error(&|c| c.gasp.depth_weight = f64::NAN).contains("gasp.depth_weight"));
        assert!(error(&|c| c.gasp.layers = "some".to_owned()).contains("gasp.layers"));
        assert!(error(&|c| c.data.fewest = 1).contains("data.fewest"));
        assert!(error(&|c| c.mix.every = 1).contains("mix.every"));
        assert!(error(&|c| c.mix.every = 1 << 40).contains("mix.every"));
        assert!(error(&|c| (c.mix.instruct, c.mix.windows) = (None, None)).contains("mix: expected"));
    }
}
