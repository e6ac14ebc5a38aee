//! Tensor names of llama.cpp's `qwen3vl` (text) and `clip` (mmproj) architectures, from those of the checkpoint.

use crate::qwen3_vl::config::Config;

/// Which of the two files holds a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The decoder.
    Text,
    /// The vision tower and its mergers.
    Vision,
}

/// The name under which a tensor of the checkpoint is stored; nothing for a name that is not Qwen3-VL's.
///
/// The patch embedding is stored as two tensors, `v.patch_embd.weight` and `v.patch_embd.weight.1`, one per frame of
/// the temporal pair; the name of the first stands for both.
pub fn stored(name: &str, config: &Config) -> Option<(Part, String)> {
    if let Some(rest) = name.strip_prefix("model.language_model.") {
        return Some((Part::Text, text(rest)?));
    }
    if let Some(rest) = name.strip_prefix("model.visual.") {
        return Some((Part::Vision, vision(rest, config)?));
    }
    (name == "lm_head.weight").then(|| (Part::Text, "output.weight".to_owned()))
}

fn text(name: &str) -> Option<String> {
    match name {
        "embed_tokens.weight" => return Some("token_embd.weight".to_owned()),
        "norm.weight" => return Some("output_norm.weight".to_owned()),
        _ => {}
    }
    let (number, rest) = name.strip_prefix("layers.")?.split_once('.')?;
    let stored = match rest.strip_suffix(".weight")? {
        "input_layernorm" => "attn_norm",
        "post_attention_layernorm" => "ffn_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        _ => return None,
    };
    Some(format!("blk.{number}.{stored}.weight"))
}

fn vision(name: &str, config: &Config) -> Option<String> {
    let (module, parameter) = name.rsplit_once('.')?;
    let stored = match module {
        "patch_embed.proj" => "v.patch_embd".to_owned(),
        "pos_embed" => "v.position_embd".to_owned(),
        "merger.norm" => "v.post_ln".to_owned(),
        "merger.linear_fc1" => "mm.0".to_owned(),
        "merger.linear_fc2" => "mm.2".to_owned(),
        _ => {
            if let Some(rest) = module.strip_prefix("deepstack_merger_list.") {
                // Stored under the number of the block that the merger reads, not its own.
                let (number, part) = rest.split_once('.')?;
                let block = config.vision_config.deepstack_visual_indexes.get(number.parse::<usize>().ok()?)?;
                let part = match part {
                    "norm" => "norm",
                    "linear_fc1" => "fc1",
                    "linear_fc2" => "fc2",
                    _ => return None,
                };
                format!("v.deepstack.{block}.{part}")
            } else {
                let (number, part) = module.strip_prefix("blocks.")?.split_once('.')?;
                let part = match part {
                    "norm1" => "ln1",
                    "norm2" => "ln2",
                    "attn.qkv" => "attn_qkv",
                    "attn.proj" => "attn_out",
                    "mlp.linear_fc1" => "ffn_up",
                    "mlp.linear_fc2" => "ffn_down",
                    _ => return None,
                };
                format!("v.blk.{number}.{part}")
            }
        }
    };
    Some(format!("{stored}.{parameter}"))
}
