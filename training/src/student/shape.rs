//! A model that starts from nothing: its sizes, its config, and what its vocabulary must hold.

use anyhow::{Context, Result};
use model::qwen3_vl::config::{Config, Rope, TextConfig, VisionConfig};
use model::tokenizer::{IM_END, IM_START, IMAGE_PAD, Tokenizer, VIDEO_PAD, VISION_END, VISION_START};
use serde::{Deserialize, Serialize};
use training_data::prose;

/// Sizes of a small model of the Qwen3-VL architecture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Width of the decoder.
    pub hidden_size: usize,
    /// Layers of the decoder.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of the decoder's MLP.
    pub intermediate_size: usize,
    /// Width of the vision tower.
    pub vision_hidden_size: usize,
    /// Blocks of the vision tower.
    pub vision_depth: usize,
    /// Heads of the vision tower.
    pub vision_heads: usize,
    /// Width of the vision tower's MLP.
    pub vision_intermediate_size: usize,
    /// Blocks whose output is added to the decoder's first layers.
    pub deepstack: Vec<usize>,
    /// Fewest pixels of a frame after resizing.
    pub min_pixels: u64,
    /// Most pixels of a frame after resizing.
    pub max_pixels: u64,
}

impl Shape {
    /// The shape that tests train: too small to learn anything, so that a step takes no time.
    pub fn tiny() -> Self {
        Self {
            hidden_size: 48,
            layers: 2,
            heads: 2,
            kv_heads: 1,
            intermediate_size: 64,
            vision_hidden_size: 32,
            vision_depth: 2,
            vision_heads: 2,
            vision_intermediate_size: 32,
            deepstack: vec![0],
            min_pixels: 1024,
            max_pixels: 3 * 1024,
        }
    }
}

/// Side of the learned position grid.
const POSITION_SIDE: usize = 12;

/// The model's config for a vocabulary of `vocab_size` tokens.
pub(super) fn config(shape: &Shape, vocab_size: usize, tokenizer: &Tokenizer) -> Result<Config> {
    let head_dim = shape.hidden_size / shape.heads;
    let third = head_dim / 6;
    let id = |token: &str| tokenizer.id(token).with_context(|| format!("no token {token}"));
    Ok(Config {
        architectures: vec!["Qwen3VLForConditionalGeneration".to_owned()],
        model_type: "qwen3_vl".to_owned(),
        text_config: TextConfig {
            hidden_size: shape.hidden_size,
            intermediate_size: shape.intermediate_size,
            num_hidden_layers: shape.layers,
            num_attention_heads: shape.heads,
            num_key_value_heads: shape.kv_heads,
            head_dim,
            vocab_size,
            rms_norm_eps: 1e-6,
            max_position_embeddings: 4096,
            // Windows are a few hundred tokens: slow frequencies would be wasted.
            rope_theta: Some(100.0),
            rope_scaling: Some(Rope {
                mrope_section: [head_dim / 2 - 2 * third, third, third],
                rope_theta: None,
                mrope_interleaved: true,
                rope_type: "default".to_owned(),
            }),
            rope_parameters: None,
        },
        vision_config: VisionConfig {
            depth: shape.vision_depth,
            hidden_size: shape.vision_hidden_size,
            intermediate_size: shape.vision_intermediate_size,
            num_heads: shape.vision_heads,
            in_channels: 3,
            patch_size: 16,
            spatial_merge_size: 2,
            temporal_patch_size: 2,
            out_hidden_size: shape.hidden_size,
            num_position_embeddings: POSITION_SIDE * POSITION_SIDE,
            deepstack_visual_indexes: shape.deepstack.clone(),
        },
        image_token_id: id(IMAGE_PAD)?,
        video_token_id: id(VIDEO_PAD)?,
        vision_start_token_id: id(VISION_START)?,
        vision_end_token_id: id(VISION_END)?,
        tie_word_embeddings: true,
    })
}

/// Words that the vocabulary must hold beside the numbers: those of the prompt and of the chain.
pub(super) fn corpus() -> Vec<String> {
    let mut corpus = prose::corpus();
    corpus.extend(
        [
            "user\nfx fy cx cy size\n",
            " fx fy cx cy size",
            "Frame : ",
            "\nReason in five steps, then give the poses of the five frames.",
            "Give the poses of the five frames.",
            "assistant\n",
            " R t | p",
            IM_START,
            IM_END,
        ]
        .map(str::to_owned),
    );
    corpus
}
