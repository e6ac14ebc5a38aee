//! `generation_config.json` of a checkpoint: how its authors decode.
//!
//! Answers here are decoded as whoever asks says, the node's greedily: of the file's temperature and its like nothing is taken.
//! What else it asks for is not done either, and is named when the model is loaded.

use std::path::Path;

use serde_json::{Map, Value};

use crate::Result;
use crate::foreign::{Keys, Only, short};
use crate::json::read_json;
use crate::tokenizer::Tokenizer;

static KEYS: Keys = Keys {
    known: &[
        "_from_model_config",
        "bos_token_id",
        "cache_config",
        "cache_implementation",
        // Which token ends an answer; checked by itself.
        "eos_token_id",
        "max_length",
        "max_new_tokens",
        "pad_token_id",
        "transformers_version",
        "use_cache",
        // How tokens are drawn, where whoever asks wants that.
        "do_sample",
        "min_p",
        "temperature",
        "top_k",
        "top_p",
        // Of methods that are switched on by other keys.
        "assistant_confidence_threshold",
        "early_stopping",
        "encoder_repetition_penalty",
        "epsilon_cutoff",
        "eta_cutoff",
        "num_assistant_tokens",
        "num_assistant_tokens_schedule",
        "target_lookbehind",
        "assistant_lookbehind",
    ],
    only: &[
        ("bad_words_ids", Only::Off),
        ("begin_suppress_tokens", Only::Off),
        ("constraints", Only::Off),
        ("diversity_penalty", Only::Off),
        ("exponential_decay_length_penalty", Only::Off),
        ("force_words_ids", Only::Off),
        ("forced_bos_token_id", Only::Off),
        ("forced_eos_token_id", Only::Off),
        ("guidance_scale", Only::Number(1.0)),
        ("length_penalty", Only::Number(1.0)),
        ("min_length", Only::Off),
        ("min_new_tokens", Only::Off),
        ("no_repeat_ngram_size", Only::Off),
        ("encoder_no_repeat_ngram_size", Only::Off),
        ("num_beam_groups", Only::Number(1.0)),
        ("num_beams", Only::Number(1.0)),
        ("num_return_sequences", Only::Number(1.0)),
        ("penalty_alpha", Only::Off),
        ("presence_penalty", Only::Off),
        ("frequency_penalty", Only::Off),
        ("remove_invalid_values", Only::Off),
        ("renormalize_logits", Only::Off),
        ("repetition_penalty", Only::Number(1.0)),
        ("sequence_bias", Only::Off),
        ("stop_strings", Only::Off),
        ("suppress_tokens", Only::Off),
        ("token_healing", Only::Off),
        ("typical_p", Only::Number(1.0)),
        ("watermarking_config", Only::Off),
    ],
};

/// Warns of what the file of a folder asks for and is not done, where there is one.
///
/// # Errors
/// A file that is broken.
pub(crate) fn check(dir: &Path, tokenizer: &Tokenizer) -> Result<()> {
    let path = dir.join("generation_config.json");
    if !path.is_file() {
        return Ok(());
    }
    for what in ignored(&read_json(&path)?, [tokenizer.end, tokenizer.pad]) {
        tracing::warn!("{}: {what}: not followed, answers are decoded without it", path.display());
    }
    Ok(())
}

/// What a file asks for and is not done; `ends` are the tokens that end an answer here.
fn ignored(file: &Map<String, Value>, ends: [u32; 2]) -> Vec<String> {
    let refused = KEYS.refused(file).map(|refused| format!("{} is {}", refused.key, refused.got));
    let unknown = KEYS.unknown(file).map(|(key, value)| format!("{key} is {}", short(value)));
    let stated = match file.get("eos_token_id") {
        Some(Value::Array(all)) => all.as_slice(),
        Some(one) if !one.is_null() => std::slice::from_ref(one),
        _ => &[],
    };
    let is_end = |id: &&Value| ends.iter().any(|end| id.as_u64() == Some(u64::from(*end)));
    let other = stated.iter().find(|id| !is_end(id)).map(|id| format!("eos_token_id holds {id}"));
    refused.chain(unknown).chain(other).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_generation_config_asks_for_and_is_not_done_is_named() {
        let named = |file: Value| ignored(file.as_object().unwrap(), [151_645, 151_643]);
        // That of the published checkpoints.
        let published = json!({
            "bos_token_id": 151_643, "pad_token_id": 151_643, "do_sample": true, "eos_token_id": [151_645, 151_643],
            "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.0, "temperature": 0.7, "transformers_version": "4.56.0",
        });
        assert!(named(published.clone()).is_empty(), "{:?}", named(published));
        for (file, expected) in [
            (json!({"repetition_penalty": 1.05}), "repetition_penalty is 1.05"),
            (json!({"no_repeat_ngram_size": 3}), "no_repeat_ngram_size is 3"),
            (json!({"bad_words_ids": [[5]]}), "bad_words_ids is [[5]]"),
            (json!({"suppress_tokens": [7, 8]}), "suppress_tokens is [7,8]"),
            (json!({"num_beams": 4}), "num_beams is 4"),
            (json!({"new_penalty": 2}), "new_penalty is 2"),
            (json!({"eos_token_id": 9}), "eos_token_id holds 9"),
        ] {
            assert_eq!(named(file), [expected]);
        }
    }
}
