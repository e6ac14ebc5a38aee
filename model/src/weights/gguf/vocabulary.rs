//! The vocabulary inside a GGUF file: llama.cpp's keys for what `tokenizer.json` says, both ways.

use std::path::Path;

use candle_core::quantized::gguf_file::Value;
use serde_json::{Map, json};

use super::Pair;
use crate::answer::chat::{self, Template};
use crate::json::{LONGEST_VOCABULARY, read_json_within};
use crate::qwen3_vl::config::Config;
use crate::tokenizer::{IMAGE_PAD, VIDEO_PAD, VISION_END, VISION_START};
use crate::{Error, Result};

/// How Qwen2 and its heirs cut text into words before byte pairs are merged; `qwen2` in llama.cpp.
const WORDS: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const TEMPLATE: &str = "tokenizer.chat_template";

// Types of llama.cpp's tokens.
const NORMAL: i64 = 1;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

impl Pair {
    /// The vocabulary of the file, for folders without a `tokenizer.json`.
    ///
    /// Rows of the embedding that stand for no token (`[PAD151935]`, unused) are left out: no text is spelled with them.
    ///
    /// # Errors
    /// A file without one, or with another than the byte-level BPE of Qwen2.
    pub fn tokenizer(&self) -> Result<tokenizers::Tokenizer> {
        let file = &self.text;
        for (key, expected) in [("tokenizer.ggml.model", "gpt2"), ("tokenizer.ggml.pre", "qwen2")] {
            let got = file.text(key)?;
            if got != expected {
                return Err(file.wrong(format!("{key}: expected {expected}, got {got}")));
            }
        }
        for key in ["add_bos_token", "add_eos_token", "add_space_prefix"].map(|key| format!("tokenizer.ggml.{key}")) {
            if let Some(Value::Bool(true)) = file.content.metadata.get(&key) {
                return Err(file.wrong(format!("{key}: expected false, got true")));
            }
        }
        let list = |key: &str| match file.value(key)? {
            Value::Array(all) => Ok(all),
            other => Err(file.wrong(format!("{key}: expected a list, got {other:?}"))),
        };
        let (tokens, types) = (list("tokenizer.ggml.tokens")?, list("tokenizer.ggml.token_type")?);
        if tokens.len() != types.len() {
            let lengths = format!("expected {} as there are tokens, got {}", tokens.len(), types.len());
            return Err(file.wrong(format!("tokenizer.ggml.token_type: {lengths}")));
        }
        let (mut vocab, mut added) = (Map::new(), Vec::new());
        for (id, (token, kind)) in tokens.iter().zip(types).enumerate() {
            let (Value::String(token), Ok(kind)) = (token, kind.to_i32().map(i64::from)) else {
                return Err(file.wrong(format!("tokenizer.ggml.tokens: {id} is no text with a type")));
            };
            match kind {
                NORMAL => drop(vocab.insert(token.clone(), json!(id))),
                CONTROL | USER_DEFINED => added.push(json!({
                    "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": kind == CONTROL,
                })),
                _ => {}
            }
        }
        let merges = list("tokenizer.ggml.merges")?.iter().map(|merge| match merge {
            Value::String(merge) => Ok(json!(merge)),
            other => Err(file.wrong(format!("tokenizer.ggml.merges: expected texts, got {other:?}"))),
        });
        let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
        let words = json!({"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Isolated", "invert": false});
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
            "normalizer": {"type": "NFC"},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [words, bytes]},
            "post_processor": null, "decoder": bytes,
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                "vocab": vocab, "merges": merges.collect::<Result<Vec<_>>>()?,
            },
        });
        serde_json::from_value(tokenizer).map_err(|e| file.wrong(format!("tokenizer: {e}")))
    }

    /// The chat template of the file, where it has one.
    ///
    /// # Errors
    /// One that is no Jinja.
    pub fn template(&self) -> Result<Option<Template>> {
        match self.text.content.metadata.get(TEMPLATE) {
            Some(Value::String(source)) => Template::new(source.clone(), &self.text.path).map(Some),
            _ => Ok(None),
        }
    }

    /// Ids of the tokens around images: from the file's vocabulary, or the folder's config.json where it has none.
    pub(super) fn special_tokens(&self, dir: &Path) -> Result<[u32; 4]> {
        let Some(Value::Array(tokens)) = self.text.content.metadata.get("tokenizer.ggml.tokens") else {
            let config = Config::from_dir(dir)?;
            return Ok([
                config.image_token_id,
                config.video_token_id,
                config.vision_start_token_id,
                config.vision_end_token_id,
            ]);
        };
        let id = |wanted: &str| {
            let found = tokens.iter().position(|t| matches!(t, Value::String(t) if t == wanted));
            found.map(|i| i as u32).ok_or_else(|| self.text.wrong(format!("tokenizer.ggml.tokens: no {wanted}")))
        };
        Ok([id(IMAGE_PAD)?, id(VIDEO_PAD)?, id(VISION_START)?, id(VISION_END)?])
    }
}

/// The vocabulary as llama.cpp reads it, where it is a byte-level BPE; else nothing, and `tokenizer.json` beside the file
/// says what the ids mean.
pub(super) fn written(dir: &Path, size: usize) -> Result<Vec<(String, Value)>> {
    let path = dir.join("tokenizer.json");
    let text = |s: &str| Value::String(s.to_owned());
    let key = |k: &str| format!("tokenizer.ggml.{k}");
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let tokenizer: serde_json::Value = read_json_within(&path, LONGEST_VOCABULARY)?;
    if tokenizer["model"]["type"] != "BPE" {
        return Ok(Vec::new());
    }
    let fail = |message: &str| Error::Tokenizer { path: path.clone(), message: message.to_owned() };
    let vocab = tokenizer["model"]["vocab"].as_object().ok_or_else(|| fail("no model.vocab"))?;
    // Types of llama.cpp: 1 normal, 3 control, 4 user defined, 5 unused.
    let mut tokens: Vec<(String, i32)> = (0..size).map(|i| (format!("[PAD{i}]"), 5)).collect();
    let mut set = |id: Option<u64>, token: &str, kind: i32| match id.and_then(|id| tokens.get_mut(id as usize)) {
        Some(slot) => {
            *slot = (token.to_owned(), kind);
            Ok(())
        }
        None => Err(fail(&format!("{token}: its id is none of the {size} of the embedding"))),
    };
    for (token, id) in vocab {
        set(id.as_u64(), token, 1)?;
    }
    let (mut end, mut pad) = (None, None);
    for added in tokenizer["added_tokens"].as_array().into_iter().flatten() {
        let content = added["content"].as_str().ok_or_else(|| fail("an added token without content"))?;
        set(added["id"].as_u64(), content, if added["special"] == true { 3 } else { 4 })?;
        match content {
            crate::tokenizer::IM_END => end = added["id"].as_u64(),
            crate::tokenizer::END_OF_TEXT => pad = added["id"].as_u64(),
            _ => {}
        }
    }
    let merges = tokenizer["model"]["merges"].as_array().ok_or_else(|| fail("no model.merges"))?;
    let merges = merges.iter().map(|merge| match (merge.as_str(), merge.as_array().map(Vec::as_slice)) {
        (Some(line), _) => Ok(text(line)),
        (_, Some([a, b])) => Ok(text(&format!("{} {}", a.as_str().unwrap_or(""), b.as_str().unwrap_or("")))),
        _ => Err(fail("a merge that is no pair")),
    });
    let mut all = vec![
        (key("model"), text("gpt2")),
        (key("pre"), text("qwen2")),
        (key("tokens"), Value::Array(tokens.iter().map(|(t, _)| text(t)).collect())),
        (key("token_type"), Value::Array(tokens.iter().map(|(_, k)| Value::I32(*k)).collect())),
        (key("merges"), Value::Array(merges.collect::<Result<_>>()?)),
        (key("add_bos_token"), Value::Bool(false)),
    ];
    for (name, id) in [("eos_token_id", end), ("padding_token_id", pad)] {
        all.extend(id.map(|id| (key(name), Value::U32(id as u32))));
    }
    all.extend(chat::source(dir)?.map(|(source, _)| (TEMPLATE.to_owned(), text(&source))));
    Ok(all)
}
