//! A checkpoint folder with random weights, small enough to load in milliseconds.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Copies the golden tiny model to `dir` and adds a tokenizer that spells everything in bytes.
pub fn tiny_weights(dir: &Path) {
    std::fs::create_dir_all(dir).unwrap();
    for name in ["config.json", "model.safetensors", "preprocessor_config.json"] {
        let from = repository().join("tests/fixtures/qwen3vl/tiny").join(name);
        std::fs::copy(&from, dir.join(name)).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
    }
    std::fs::write(dir.join("tokenizer.json"), tokenizer().to_string()).unwrap();
}

/// Byte-level BPE without merges; special tokens where the tiny model's config has them.
fn tokenizer() -> Value {
    let special = [
        ("<|image_pad|>", 500),
        ("<|video_pad|>", 501),
        ("<|vision_start|>", 502),
        ("<|vision_end|>", 503),
        ("<|im_start|>", 504),
        ("<|im_end|>", 505),
        ("<|endoftext|>", 506),
    ];
    let mut vocabulary = Map::new();
    let mut spare = 256;
    for byte in 0..256_u32 {
        let is_printable = matches!(byte, 33..=126 | 161..=172 | 174..=255);
        let code = if is_printable {
            byte
        } else {
            spare += 1;
            spare - 1
        };
        vocabulary.insert(char::from_u32(code).unwrap().to_string(), json!(byte));
    }
    for (token, id) in special {
        vocabulary.insert(token.to_owned(), json!(id));
    }
    let added: Vec<Value> = special
        .iter()
        .map(|(content, id)| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        })
        .collect();
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": bytes, "post_processor": null, "decoder": bytes,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
                  "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false,
                  "vocab": vocabulary, "merges": []}
    })
}
