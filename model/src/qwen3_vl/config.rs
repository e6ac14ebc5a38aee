//! `config.json` of a Qwen3-VL checkpoint. Unknown fields are fine: the file belongs to the checkpoint.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Epsilon of the vision tower's layer norms: no config states it.
pub(crate) const LAYER_NORM_EPS: f32 = 1e-6;

/// The whole model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// `["Qwen3VLForConditionalGeneration"]`.
    #[serde(default)]
    pub architectures: Vec<String>,
    /// `qwen3_vl`.
    pub model_type: String,
    /// The language model.
    pub text_config: TextConfig,
    /// The vision tower.
    pub vision_config: VisionConfig,
    /// Id that stands where an image's embeddings go.
    pub image_token_id: u32,
    /// The same for videos; never used as input here, and never sampled.
    pub video_token_id: u32,
    /// Opens an image.
    pub vision_start_token_id: u32,
    /// Closes an image.
    pub vision_end_token_id: u32,
    /// Whether the output head is the input embedding.
    #[serde(default)]
    pub tie_word_embeddings: bool,
}

/// The decoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextConfig {
    /// Width d.
    pub hidden_size: usize,
    /// Width of the SwiGLU.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Epsilon of every RMSNorm.
    pub rms_norm_eps: f64,
    /// Longest context the checkpoint was made for.
    pub max_position_embeddings: usize,
    /// Base of the rotary frequencies, where the file states it here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_theta: Option<f64>,
    /// M-RoPE sections, older name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<Rope>,
    /// M-RoPE sections and base, newer name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_parameters: Option<Rope>,
}

/// Rotary embedding of the decoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rope {
    /// How many of the head's frequencies follow time, height and width.
    pub mrope_section: [usize; 3],
    /// Base of the frequencies, where the file states it here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_theta: Option<f64>,
    /// Qwen3-VL interleaves the sections; the other layout is not supported.
    #[serde(default = "yes")]
    pub mrope_interleaved: bool,
    /// `default`.
    #[serde(default = "default_rope")]
    pub rope_type: String,
}

fn yes() -> bool {
    true
}

fn default_rope() -> String {
    "default".to_owned()
}

/// The vision tower.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VisionConfig {
    /// Blocks.
    pub depth: usize,
    /// Width.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Heads.
    pub num_heads: usize,
    /// Colour channels.
    #[serde(default = "three")]
    pub in_channels: usize,
    /// Side of a patch, pixels.
    pub patch_size: usize,
    /// Side of the square of patches that becomes one token.
    pub spatial_merge_size: usize,
    /// Frames a patch spans; a still image is repeated.
    pub temporal_patch_size: usize,
    /// Width of what goes to the decoder.
    pub out_hidden_size: usize,
    /// Entries of the learned position grid, a square number.
    pub num_position_embeddings: usize,
    /// Blocks whose output is added to the decoder's first layers.
    pub deepstack_visual_indexes: Vec<usize>,
}

fn three() -> usize {
    3
}

impl Config {
    /// Reads and checks `dir/config.json`.
    ///
    /// # Errors
    /// A file that is missing, is not JSON, lacks a field, or asks for what this implementation has not.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let config: Self = crate::json::read_json(&dir.join("config.json"))?;
        config.check()?;
        Ok(config)
    }

    /// Checks the relations that the layers rely on.
    ///
    /// # Errors
    /// [`Error::Config`] with the key.
    pub fn check(&self) -> Result<()> {
        let fail = |key, expected: &str, got: String| Err(Error::Config { key, expected: expected.to_owned(), got });
        let (t, v) = (&self.text_config, &self.vision_config);
        if self.model_type != "qwen3_vl" {
            return fail("model_type", "qwen3_vl", self.model_type.clone());
        }
        for (key, n) in [
            ("text_config.hidden_size", t.hidden_size),
            ("text_config.num_attention_heads", t.num_attention_heads),
            ("text_config.num_key_value_heads", t.num_key_value_heads),
            ("text_config.vocab_size", t.vocab_size),
            ("text_config.max_position_embeddings", t.max_position_embeddings),
            ("vision_config.num_heads", v.num_heads),
            ("vision_config.patch_size", v.patch_size),
            ("vision_config.spatial_merge_size", v.spatial_merge_size),
            ("vision_config.temporal_patch_size", v.temporal_patch_size),
            ("vision_config.num_position_embeddings", v.num_position_embeddings),
        ] {
            if n == 0 {
                return fail(key, "at least 1", "0".to_owned());
            }
        }
        // Far beyond any model, and small enough that no product of them overflows.
        for (key, n, most) in [
            ("text_config.hidden_size", t.hidden_size, 1 << 17),
            ("text_config.intermediate_size", t.intermediate_size, 1 << 20),
            ("text_config.num_hidden_layers", t.num_hidden_layers, 1 << 10),
            ("text_config.num_attention_heads", t.num_attention_heads, 1 << 12),
            ("text_config.num_key_value_heads", t.num_key_value_heads, 1 << 12),
            ("text_config.head_dim", t.head_dim, 1 << 12),
            ("text_config.vocab_size", t.vocab_size, 1 << 24),
            ("text_config.max_position_embeddings", t.max_position_embeddings, 1 << 30),
            ("vision_config.depth", v.depth, 1 << 10),
            ("vision_config.hidden_size", v.hidden_size, 1 << 16),
            ("vision_config.intermediate_size", v.intermediate_size, 1 << 20),
            ("vision_config.num_heads", v.num_heads, 1 << 12),
            ("vision_config.in_channels", v.in_channels, 1 << 8),
            ("vision_config.patch_size", v.patch_size, 1 << 10),
            ("vision_config.spatial_merge_size", v.spatial_merge_size, 1 << 4),
            ("vision_config.temporal_patch_size", v.temporal_patch_size, 1 << 4),
            ("vision_config.out_hidden_size", v.out_hidden_size, 1 << 17),
            ("vision_config.num_position_embeddings", v.num_position_embeddings, 1 << 24),
        ] {
            if n > most {
                return fail(key, &format!("at most {most}"), n.to_string());
            }
        }
        if !t.num_attention_heads.is_multiple_of(t.num_key_value_heads) {
            return fail(
                "text_config.num_key_value_heads",
                "a divisor of num_attention_heads",
                format!("{} for {}", t.num_key_value_heads, t.num_attention_heads),
            );
        }
        let Some(rope) = t.rope() else {
            return fail("text_config.rope_scaling", "an object with mrope_section", "nothing".to_owned());
        };
        let half = rope.mrope_section.iter().try_fold(0usize, |sum, n| sum.checked_add(*n));
        if half.and_then(|half| half.checked_mul(2)) != Some(t.head_dim) {
            return fail(
                "text_config.rope_scaling.mrope_section",
                "three sections that add up to head_dim / 2",
                format!("{:?} for {}", rope.mrope_section, t.head_dim),
            );
        }
        if !rope.mrope_interleaved || rope.rope_type != "default" {
            return fail(
                "text_config.rope_scaling",
                "interleaved sections of the default type",
                format!("interleaved {}, type {}", rope.mrope_interleaved, rope.rope_type),
            );
        }
        if t.theta().is_none_or(|theta| !theta.is_finite() || theta <= 1.0) {
            return fail("text_config.rope_theta", "a number over 1", format!("{:?}", t.theta()));
        }
        if !v.hidden_size.is_multiple_of(4 * v.num_heads) {
            return fail(
                "vision_config.hidden_size",
                "a multiple of four times num_heads",
                format!("{} for {}", v.hidden_size, v.num_heads),
            );
        }
        if v.position_side().pow(2) != v.num_position_embeddings {
            return fail("vision_config.num_position_embeddings", "a square", v.num_position_embeddings.to_string());
        }
        if v.out_hidden_size != t.hidden_size {
            return fail(
                "vision_config.out_hidden_size",
                "text_config.hidden_size",
                format!("{} for {}", v.out_hidden_size, t.hidden_size),
            );
        }
        if v.deepstack_visual_indexes.len() > t.num_hidden_layers
            || v.deepstack_visual_indexes.iter().any(|&i| i >= v.depth)
        {
            return fail(
                "vision_config.deepstack_visual_indexes",
                "block numbers, no more than the decoder has layers",
                format!("{:?}", v.deepstack_visual_indexes),
            );
        }
        Ok(())
    }
}

impl TextConfig {
    /// The rotary section under either of its names.
    pub fn rope(&self) -> Option<&Rope> {
        self.rope_scaling.as_ref().or(self.rope_parameters.as_ref())
    }

    /// Base of the rotary frequencies, wherever the file states it.
    pub fn theta(&self) -> Option<f64> {
        self.rope_theta.or_else(|| self.rope().and_then(|r| r.rope_theta))
    }
}

impl VisionConfig {
    /// Side of the learned position grid.
    pub fn position_side(&self) -> usize {
        self.num_position_embeddings.isqrt()
    }

    /// Length of a flattened patch: channel, time, row, column.
    pub fn patch_dim(&self) -> usize {
        self.in_channels * self.temporal_patch_size * self.patch_size.pow(2)
    }
}
