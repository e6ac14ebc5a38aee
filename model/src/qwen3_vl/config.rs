//! `config.json` of a Qwen3-VL checkpoint, as transformers 4 and 5 write it. Keys that ask for other arithmetic are refused.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::foreign::{Keys, Only, folder, short};
use crate::json::read_json;
use crate::{Error, Result};

/// Epsilon of the vision tower's layer norms: no config states it.
pub(crate) const LAYER_NORM_EPS: f32 = 1e-6;

const KEYS: Keys = Keys {
    known: &[
        "_attn_implementation_autoset",
        "_name_or_path",
        "architectures",
        "attn_implementation",
        "bos_token_id",
        "chunk_size_feed_forward",
        "dtype",
        "eos_token_id",
        // Written at the top for DeepSpeed.
        "hidden_size",
        "id2label",
        "image_token_id",
        "initializer_range",
        "label2id",
        "pad_token_id",
        "return_dict",
        "text_config",
        "tie_word_embeddings",
        "torch_dtype",
        "transformers_version",
        "unsloth_fixed",
        "unsloth_version",
        "use_cache",
        "video_token_id",
        "vision_config",
        "vision_end_token_id",
        "vision_start_token_id",
        "vocab_size",
    ],
    only: &[
        ("auto_map", Only::Off),
        ("compression_config", Only::Off),
        ("is_encoder_decoder", Only::Off),
        ("model_type", Only::Word(&["qwen3_vl"])),
        ("pruned_heads", Only::Off),
        ("quantization_config", Only::Off),
    ],
};
const TEXT: Keys = Keys {
    known: &[
        "_name_or_path",
        "architectures",
        "attention_dropout",
        "bos_token_id",
        "dtype",
        "eos_token_id",
        "head_dim",
        "hidden_size",
        "initializer_range",
        "intermediate_size",
        "max_position_embeddings",
        // Which layers' windows slide, where any does.
        "max_window_layers",
        "num_attention_heads",
        "num_hidden_layers",
        "num_key_value_heads",
        "pad_token_id",
        "layer_types",
        "return_dict",
        "rms_norm_eps",
        "rope_parameters",
        "rope_scaling",
        "rope_theta",
        "sliding_window",
        "tie_word_embeddings",
        "torch_dtype",
        "transformers_version",
        "use_cache",
        "vocab_size",
    ],
    only: &[
        ("attention_bias", Only::Off),
        ("attention_multiplier", Only::Number(1.0)),
        ("attn_logit_softcapping", Only::Off),
        ("embedding_multiplier", Only::Number(1.0)),
        ("final_logit_softcapping", Only::Off),
        ("hidden_act", Only::Word(&["silu", "swish"])),
        ("logits_scaling", Only::Number(1.0)),
        ("mlp_bias", Only::Off),
        ("model_type", Only::Word(&["qwen3_vl_text", "qwen3_vl"])),
        ("moe_intermediate_size", Only::Off),
        ("num_experts", Only::Off),
        ("num_experts_per_tok", Only::Off),
        ("partial_rotary_factor", Only::Number(1.0)),
        ("pruned_heads", Only::Off),
        ("quantization_config", Only::Off),
        ("residual_multiplier", Only::Number(1.0)),
        ("use_bidirectional_attention", Only::Off),
        ("use_sliding_window", Only::Off),
    ],
};
const ROPE: Keys = Keys {
    known: &["mrope_section", "rope_theta"],
    only: &[
        ("mrope_interleaved", Only::On),
        ("partial_rotary_factor", Only::Number(1.0)),
        ("rope_type", Only::Word(&["default"])),
        // The older name, under which Qwen2-VL said that there are sections.
        ("type", Only::Word(&["default", "mrope"])),
    ],
};
const VISION: Keys = Keys {
    known: &[
        "architectures",
        "deepstack_visual_indexes",
        "depth",
        "dtype",
        "hidden_size",
        "in_channels",
        "initializer_range",
        "intermediate_size",
        "num_heads",
        "num_position_embeddings",
        "out_hidden_size",
        "patch_size",
        "rope_parameters",
        "spatial_merge_size",
        "temporal_patch_size",
        "torch_dtype",
        "transformers_version",
    ],
    only: &[
        ("fullatt_block_indexes", Only::Off),
        ("hidden_act", Only::Word(&["gelu_pytorch_tanh"])),
        ("layer_norm_eps", Only::Number(1e-6)),
        ("model_type", Only::Word(&["qwen3_vl_vision", "qwen3_vl"])),
        ("pruned_heads", Only::Off),
        ("quantization_config", Only::Off),
        ("window_size", Only::Off),
    ],
};
const VISION_ROPE: Keys = Keys {
    known: &[],
    only: &[("rope_theta", Only::Number(10_000.0)), ("rope_type", Only::Word(&["axial", "default"]))],
};

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
        folder(dir)?;
        let path = dir.join("config.json");
        let file: Map<String, Value> = read_json(&path)?;
        let tied = stated(&path, &file)?;
        let config: Self = read_json(&path)?;
        let config = Self { tie_word_embeddings: tied, ..config };
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
        if !(t.rms_norm_eps > 0.0 && t.rms_norm_eps < 1e-2) {
            return fail("text_config.rms_norm_eps", "a small number over 0", t.rms_norm_eps.to_string());
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

/// Checks what a file says beside the fields that are read, and says whether the head is the input embedding: the file says
/// so at the top, in `text_config`, or in both.
fn stated(path: &Path, file: &Map<String, Value>) -> Result<bool> {
    let none = Map::new();
    let part = |of: &Map<String, Value>, key: &str| of.get(key).and_then(Value::as_object).cloned();
    KEYS.check(path, "", file)?;
    let text = part(file, "text_config").unwrap_or_default();
    TEXT.check(path, "text_config.", &text)?;
    if let Some(window) = text.get("sliding_window").filter(|window| !window.is_null())
        && text.get("use_sliding_window") != Some(&Value::Bool(false))
    {
        return Err(key(path, "text_config.sliding_window", "nothing, or use_sliding_window = false", short(window)));
    }
    let layers = text.get("layer_types").and_then(Value::as_array);
    if let Some(layer) = layers.into_iter().flatten().find(|layer| *layer != "full_attention") {
        return Err(key(path, "text_config.layer_types", "full_attention alone", short(layer)));
    }
    let (scaling, parameters) = (part(&text, "rope_scaling"), part(&text, "rope_parameters"));
    for (rope, place) in [(&scaling, "text_config.rope_scaling."), (&parameters, "text_config.rope_parameters.")] {
        ROPE.check(path, place, rope.as_ref().unwrap_or(&none))?;
    }
    // transformers 4 takes the one, transformers 5 the other.
    let ropes = [Some(&text), scaling.as_ref(), parameters.as_ref()];
    for name in ["rope_theta", "mrope_section"] {
        let mut values = ropes.iter().flatten().filter_map(|rope| rope.get(name)).filter(|value| !value.is_null());
        if let Some(first) = values.next()
            && let Some(other) = values.find(|other| !same(first, other))
        {
            let got = format!("{} and {}", short(first), short(other));
            return Err(key(path, &format!("text_config: {name}"), "one value, wherever it stands", got));
        }
    }
    let vision = part(file, "vision_config").unwrap_or_default();
    VISION.check(path, "vision_config.", &vision)?;
    let rope = part(&vision, "rope_parameters").unwrap_or_default();
    VISION_ROPE.check(path, "vision_config.rope_parameters.", &rope)?;
    let [top, inner] = [file, &text].map(|object| object.get("tie_word_embeddings").and_then(Value::as_bool));
    match (top, inner) {
        (Some(top), Some(inner)) if top != inner => {
            let got = format!("{top} and {inner}");
            Err(key(path, "tie_word_embeddings", "the same at the top and in text_config", got))
        }
        _ => Ok(top.or(inner).unwrap_or(false)),
    }
}

fn same(a: &Value, b: &Value) -> bool {
    a == b || a.as_f64().is_some_and(|a| b.as_f64().is_some_and(|b| (a - b).abs() <= 1e-9 * a.abs()))
}

fn key(path: &Path, key: &str, expected: &str, got: String) -> Error {
    Error::Key { path: path.to_owned(), key: key.to_owned(), expected: expected.to_owned(), got }
}

impl TextConfig {
    /// The rotary section under either of its names.
    pub fn rope(&self) -> Option<&Rope> {
        self.rope_scaling.as_ref().or(self.rope_parameters.as_ref())
    }

    /// Base of the rotary frequencies, wherever the file states it.
    pub fn theta(&self) -> Option<f64> {
        let mut ropes = [&self.rope_scaling, &self.rope_parameters].into_iter().flatten();
        self.rope_theta.or_else(|| ropes.find_map(|rope| rope.rope_theta))
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What [`Config::from_dir`] says of the tiny checkpoint's file with a change.
    fn with(change: &dyn Fn(&mut Value)) -> Result<Config> {
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/qwen3vl/tiny/config.json");
        let (mut file, dir): (Value, _) = (read_json(&tiny).unwrap(), tempfile::tempdir().unwrap());
        change(&mut file);
        std::fs::write(dir.path().join("config.json"), file.to_string()).unwrap();
        Config::from_dir(dir.path())
    }

    #[test]
    fn a_config_that_asks_for_other_arithmetic_is_refused_by_name() {
        for (place, value, words) in [
            ("/model_type", json!("qwen2_5_vl"), "model_type: expected qwen3_vl, got qwen2_5_vl"),
            ("/quantization_config", json!({"quant_method": "fp8"}), "quantization_config: expected nothing, got {"),
            ("/text_config/hidden_act", json!("gelu"), "text_config.hidden_act: expected silu or swish, got gelu"),
            ("/text_config/attention_bias", json!(true), "text_config.attention_bias: expected false, got true"),
            ("/text_config/sliding_window", json!(4096), "text_config.sliding_window: expected nothing"),
            (
                "/text_config/use_sliding_window",
                json!(true),
                "text_config.use_sliding_window: expected false, got true",
            ),
            (
                "/text_config/layer_types",
                json!(["sliding_attention"]),
                "text_config.layer_types: expected full_attention",
            ),
            ("/text_config/num_experts", json!(8), "text_config.num_experts: expected 0 or nothing, got 8"),
            ("/text_config/final_logit_softcapping", json!(30.0), "final_logit_softcapping: expected 0 or nothing"),
            (
                "/text_config/rope_scaling",
                json!({"type": "yarn", "factor": 4.0, "mrope_section": [4, 2, 2]}),
                "text_config.rope_scaling.type: expected default or mrope, got yarn",
            ),
            (
                "/text_config/rope_parameters/rope_type",
                json!("yarn"),
                "text_config.rope_parameters.rope_type: expected default, got yarn",
            ),
            ("/text_config/rope_parameters/partial_rotary_factor", json!(0.5), "partial_rotary_factor: expected 1"),
            ("/text_config/rope_theta", json!(1e4), "text_config: rope_theta: expected one value"),
            ("/text_config/tie_word_embeddings", json!(false), "tie_word_embeddings: expected the same"),
            ("/vision_config/hidden_act", json!("quick_gelu"), "vision_config.hidden_act: expected gelu_pytorch_tanh"),
            ("/vision_config/rope_parameters/rope_theta", json!(5e6), "rope_theta: expected 10000, got 5000000"),
        ] {
            let (parent, key) = place.rsplit_once('/').unwrap();
            let error = with(&|file| file.pointer_mut(parent).unwrap()[key] = value.clone()).unwrap_err().to_string();
            assert!(error.contains("config.json") && error.contains(words), "{place}: {error}");
        }
    }

    #[test]
    fn the_forms_of_transformers_4_and_5_are_one_config() {
        let new = with(&|_| ()).unwrap();
        let old = with(&|file| {
            let text = &mut file["text_config"];
            text["rope_theta"] = json!(5_000_000);
            text["rope_scaling"] =
                json!({"mrope_interleaved": true, "mrope_section": [4, 2, 2], "rope_type": "default"});
            text["use_sliding_window"] = json!(false);
            text["sliding_window"] = json!(4096);
            text.as_object_mut().unwrap().remove("rope_parameters");
            file.as_object_mut().unwrap().remove("tie_word_embeddings");
        })
        .unwrap();
        let of = |config: &Config| (config.text_config.theta(), config.text_config.rope().unwrap().mrope_section);
        assert_eq!(of(&new), (Some(5e6), [4, 2, 2]));
        assert_eq!(of(&old), of(&new));
        assert!(old.tie_word_embeddings, "what text_config alone says counts");
    }
}
