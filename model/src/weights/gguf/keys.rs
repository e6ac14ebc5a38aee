//! What is known of the metadata of llama.cpp's files, and of the types of their tensors.

use std::collections::HashMap;

use candle_core::quantized::gguf_file::Value;
use serde_json::{Map, json};

use crate::foreign::{self, Keys, Only};

/// Keys below `qwen3vl.`.
pub(super) const TEXT: Keys = Keys {
    known: &[
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
        "attention.layer_norm_rms_epsilon",
        "attention.value_length",
        "block_count",
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "n_deepstack_layers",
        "rope.dimension_count",
        "rope.dimension_sections",
        "rope.freq_base",
        // Of a scaling that is refused where it is switched on.
        "rope.scaling.finetuned",
        "rope.scaling.original_context_length",
        "tensor_data_layout",
        "vocab_size",
    ],
    only: &[
        ("attention.causal", Only::On),
        ("attention.clamp_kqv", Only::Off),
        ("attention.max_alibi_bias", Only::Off),
        ("attention.scale", Only::Off),
        ("attention.sliding_window", Only::Off),
        ("attn_logit_softcapping", Only::Off),
        ("embedding_scale", Only::Off),
        ("expert_count", Only::Off),
        ("expert_shared_count", Only::Off),
        ("expert_used_count", Only::Off),
        ("final_logit_softcapping", Only::Off),
        ("logit_scale", Only::Off),
        ("nextn_predict_layers", Only::Off),
        ("pooling_type", Only::Off),
        ("residual_scale", Only::Off),
        ("rope.scale_linear", Only::Number(1.0)),
        ("rope.scaling.attn_factor", Only::Number(1.0)),
        ("rope.scaling.factor", Only::Number(1.0)),
        ("rope.scaling.type", Only::Word(&["none"])),
        ("use_parallel_residual", Only::Off),
    ],
};

/// Keys below `clip.`.
pub(super) const VISION: Keys = Keys {
    known: &[
        "projector_type",
        "vision.attention.head_count",
        "vision.attention.layer_norm_epsilon",
        "vision.block_count",
        "vision.embedding_length",
        "vision.feed_forward_length",
        "vision.image_max_pixels",
        "vision.image_mean",
        "vision.image_min_pixels",
        "vision.image_size",
        "vision.image_std",
        "vision.is_deepstack_layers",
        "vision.patch_size",
        "vision.projection_dim",
        "vision.projector_type",
        "vision.spatial_merge_size",
    ],
    only: &[
        ("has_audio_encoder", Only::Off),
        ("has_llava_projector", Only::Off),
        ("has_text_encoder", Only::Off),
        ("has_vision_encoder", Only::On),
        // The tanh form; without the flag llama.cpp takes another.
        ("use_gelu", Only::On),
        ("use_silu", Only::Off),
        ("vision.feature_layer", Only::Off),
        ("vision.image_crop_resolution", Only::Off),
        ("vision.image_grid_pinpoints", Only::Off),
        ("vision.n_wa_pattern", Only::Off),
        ("vision.wa_layer_indexes", Only::Off),
        ("vision.window_size", Only::Off),
    ],
};

/// The metadata whose keys begin with `prefix`, without it.
pub(super) fn below(prefix: &str, metadata: &HashMap<String, Value>) -> Map<String, serde_json::Value> {
    let inner = metadata.iter().filter_map(|(key, value)| Some((key.strip_prefix(prefix)?.to_owned(), json_of(value))));
    inner.collect()
}

/// A value as an error prints it.
pub(super) fn short(value: &Value) -> String {
    foreign::short(&json_of(value))
}

fn json_of(value: &Value) -> serde_json::Value {
    match value {
        Value::U8(v) => json!(v),
        Value::I8(v) => json!(v),
        Value::U16(v) => json!(v),
        Value::I16(v) => json!(v),
        Value::U32(v) => json!(v),
        Value::I32(v) => json!(v),
        Value::U64(v) => json!(v),
        Value::I64(v) => json!(v),
        Value::F32(v) => json!(v),
        Value::F64(v) => json!(v),
        Value::Bool(v) => json!(v),
        Value::String(v) => json!(v),
        Value::Array(all) => all.iter().map(json_of).collect(),
    }
}

/// What candle says of a file, with the name of a tensor's type in place of its number.
pub(super) fn type_named(message: &str) -> String {
    const BEFORE: &str = "unknown dtype for tensor ";
    let Some((_, rest)) = message.split_once(BEFORE) else { return message.to_owned() };
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    let kind = match digits.parse() {
        Ok(16) => "IQ2_XXS",
        Ok(17) => "IQ2_XS",
        Ok(18) => "IQ3_XXS",
        Ok(19) => "IQ1_S",
        Ok(20) => "IQ4_NL",
        Ok(21) => "IQ3_S",
        Ok(22) => "IQ2_S",
        Ok(23) => "IQ4_XS",
        Ok(24) => "I8",
        Ok(25) => "I16",
        Ok(26) => "I32",
        Ok(27) => "I64",
        Ok(28) => "F64",
        Ok(29) => "IQ1_M",
        Ok(34) => "TQ1_0",
        Ok(35) => "TQ2_0",
        Ok(39) => "MXFP4",
        Ok(40) => "NVFP4",
        _ => return format!("tensors of ggml's type {digits} are not read; {CURE}"),
    };
    format!("tensors of type {kind} are not read; {CURE}")
}

const CURE: &str = "take a file of Q4_K_M, Q5_K_M, Q6_K, Q8_0, F16 or BF16, or make one with llama-quantize";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_that_is_not_read_is_named() {
        let message = type_named("unknown dtype for tensor 23\n   0: backtrace");
        assert!(message.starts_with("tensors of type IQ4_XS are not read; take a file of Q4_K_M"), "{message}");
        assert!(type_named("unknown dtype for tensor 99").contains("ggml's type 99"));
        assert_eq!(type_named("unknown magic 0x0"), "unknown magic 0x0");
    }
}
