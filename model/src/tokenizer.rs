//! `tokenizer.json`, and the special tokens that the prompt is made of.

use std::panic::catch_unwind;
use std::path::Path;

use serde_json::{Map, Value};

use crate::answer::chat::Template;
use crate::foreign::{Keys, Only, Refused, refuse_pointer};
use crate::json::{LONGEST_VOCABULARY, read_json, read_within};
use crate::qwen3_vl::config::Config;
use crate::{Error, Result};

/// Opens a chat turn.
pub const IM_START: &str = "<|im_start|>";
/// Closes a chat turn; the end of every answer.
pub const IM_END: &str = "<|im_end|>";
/// Opens an image.
pub const VISION_START: &str = "<|vision_start|>";
/// Closes an image.
pub const VISION_END: &str = "<|vision_end|>";
/// Stands where an image's embeddings go.
pub const IMAGE_PAD: &str = "<|image_pad|>";
/// Stands where a video's embeddings go.
pub const VIDEO_PAD: &str = "<|video_pad|>";
/// End of text and padding.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// Keys of `tokenizer_config.json` that would spell a prompt with other tokens than `tokenizer.json` alone. Of its many others
/// none does.
const KEYS: Keys = Keys {
    known: &[],
    only: &[
        ("add_bos_token", Only::Off),
        ("add_eos_token", Only::Off),
        ("add_prefix_space", Only::Off),
        ("do_lower_case", Only::Off),
        ("split_special_tokens", Only::Off),
    ],
};

/// Bytes that are tokenized at once where a text may be too long.
const PIECE: usize = 64 << 10;
/// The pieces of a text may have this many times its tokens before it is taken for too long: a word that is cut has more of them.
const SLACK: usize = 2;
/// NFC writes at most this many bytes as one (three jamo as one syllable).
const NORMALIZED: usize = 3;

/// What a prompt may take.
#[derive(Clone, Copy)]
pub struct Room<'a> {
    /// Most tokens.
    pub tokens: usize,
    /// Whether nobody waits for it any more.
    pub gone: &'a dyn Fn() -> bool,
}

impl Room<'_> {
    /// Refuses a prompt that has at least so many tokens.
    ///
    /// # Errors
    /// [`Error::TooLong`] with both numbers.
    pub fn check(&self, least: usize) -> Result<()> {
        if least > self.tokens { Err(Error::TooLong { most: self.tokens, least }) } else { Ok(()) }
    }
}

/// Text to ids and back.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    template: Option<Template>,
    /// Bytes of the longest text that one token may stand for.
    longest: usize,
    /// Id of [`IM_END`].
    pub end: u32,
    /// Id of [`END_OF_TEXT`].
    pub pad: u32,
}

impl Tokenizer {
    /// Reads `dir/tokenizer.json`, and the chat template where there is one, and checks the special tokens against the
    /// model's config.
    ///
    /// # Errors
    /// A file that is missing or broken, a special token that is missing or has another id.
    pub fn from_dir(dir: &Path, config: &Config) -> Result<Self> {
        let path = dir.join("tokenizer.json");
        let inner = read(&path)?;
        let beside = dir.join("tokenizer_config.json");
        if beside.is_file() {
            let stated: Map<String, Value> = read_json(&beside)?;
            if let Some(Refused { key, expected, got }) = KEYS.refused(&stated).next() {
                return Err(Error::Key { path: beside, key: key.to_owned(), expected, got });
            }
        }
        Ok(Self::checked(inner, &path, config)?.with_template(Template::from_dir(dir)?))
    }

    /// Reads a `tokenizer.json` alone; its special tokens are compared with no model's.
    ///
    /// # Errors
    /// A file that is missing or broken, a special token that is missing.
    pub fn from_file(path: &Path) -> Result<Self> {
        let fail = |message: String| Error::Tokenizer { path: path.to_owned(), message };
        Self::new(read(path)?).map_err(fail)
    }

    /// Wraps a tokenizer that was read from `path` and checks it against the model's config.
    ///
    /// # Errors
    /// A special token that is missing or has another id.
    pub fn checked(inner: tokenizers::Tokenizer, path: &Path, config: &Config) -> Result<Self> {
        let fail = |message: String| Error::Tokenizer { path: path.to_owned(), message };
        let tokenizer = Self::new(inner).map_err(fail)?;
        for (token, expected) in [
            (IMAGE_PAD, config.image_token_id),
            (VISION_START, config.vision_start_token_id),
            (VISION_END, config.vision_end_token_id),
        ] {
            let got = tokenizer.inner.token_to_id(token);
            if got != Some(expected) {
                return Err(fail(format!("{token}: the config says id {expected}, the tokenizer {got:?}")));
            }
        }
        let added = tokenizer.inner.encode_fast("", true).map_err(|e| fail(e.to_string()))?;
        if !added.is_empty() {
            let tokens = added.get_ids().iter().filter_map(|id| tokenizer.token(*id)).collect::<Vec<_>>().join(", ");
            let expected = "expected one that adds no token to a text";
            return Err(fail(format!("post_processor: {expected}, got one that adds {tokens}")));
        }
        let size = tokenizer.inner.get_vocab_size(true);
        if size > config.text_config.vocab_size {
            return Err(fail(format!(
                "{size} tokens, but text_config.vocab_size is {}",
                config.text_config.vocab_size
            )));
        }
        Ok(tokenizer)
    }

    /// The same with another chat template.
    #[must_use]
    pub fn with_template(self, template: Option<Template>) -> Self {
        Self { template, ..self }
    }

    /// Wraps a tokenizer at hand.
    ///
    /// # Errors
    /// Names the special token that it lacks.
    pub fn new(mut inner: tokenizers::Tokenizer) -> Result<Self, String> {
        // Left in the file by whoever trained last; transformers sets them anew for each text.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| e.to_string())?;
        let id = |token: &str| inner.token_to_id(token).ok_or_else(|| format!("no token {token}"));
        let (end, pad) = (id(IM_END)?, id(END_OF_TEXT)?);
        id(IM_START)?;
        // A vocabulary spells bytes as characters, so that its texts are no longer than its tokens.
        let spelled = inner.get_vocab(true).keys().map(String::len).max().unwrap_or(1).max(1);
        let longest = if inner.get_normalizer().is_some() { NORMALIZED * spelled } else { spelled };
        Ok(Self { inner, template: None, longest, end, pad })
    }

    /// Ids of a text; special tokens in it count as such.
    ///
    /// # Errors
    /// The tokenizer's own.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, false).map_err(|e| Error::Input {
            what: "text",
            expected: "something that can be tokenized".to_owned(),
            got: e.to_string(),
        })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Tokens that a text of so many bytes has at least: no token stands for more than the longest of the vocabulary.
    pub fn least_tokens(&self, bytes: usize) -> usize {
        bytes.div_ceil(self.longest)
    }

    /// [`Self::encode`] of a text that may be too long. Such a one is refused by its bytes, or else by the tokens of its
    /// pieces, of which one is held at a time: tokenized as a whole, it takes a hundred times its own memory.
    ///
    /// # Errors
    /// [`Error::TooLong`], [`Error::GivenUp`], and the tokenizer's own.
    pub fn encode_within(&self, text: &str, room: &Room<'_>) -> Result<Vec<u32>> {
        room.check(self.least_tokens(text.len()))?;
        if text.len() > PIECE.max(room.tokens) {
            self.count(text, room)?;
        }
        self.encode(text)
    }

    /// Counts the tokens of a text in pieces.
    fn count(&self, text: &str, room: &Room<'_>) -> Result<()> {
        let (mut counted, mut rest) = (0, text);
        while !rest.is_empty() {
            if (room.gone)() {
                return Err(Error::GivenUp);
            }
            let (piece, behind) = rest.split_at(rest.floor_char_boundary(PIECE));
            counted += self.encode(piece)?.len();
            room.check(counted / SLACK)?;
            rest = behind;
        }
        Ok(())
    }

    /// Text of ids, special tokens included.
    ///
    /// # Errors
    /// The tokenizer's own.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner.decode(ids, false).map_err(|e| Error::Input {
            what: "token ids",
            expected: "ids of the vocabulary".to_owned(),
            got: e.to_string(),
        })
    }

    /// The checkpoint's chat template, where it has one.
    pub fn template(&self) -> Option<&Template> {
        self.template.as_ref()
    }

    /// Id of one token.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token of an id, as the vocabulary spells it.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }
}

fn read(path: &Path) -> Result<tokenizers::Tokenizer> {
    std::fs::metadata(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    refuse_pointer(path)?;
    let bytes = read_within(path, LONGEST_VOCABULARY)?;
    // The library panics at some files that are none.
    let read = catch_unwind(|| tokenizers::Tokenizer::from_bytes(bytes).map_err(|e| e.to_string()));
    let read = read.unwrap_or_else(|_| Err("its reader panicked".to_owned()));
    read.map_err(|message| Error::Tokenizer { path: path.to_owned(), message })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_text_that_can_not_fit_is_refused_by_its_bytes_or_its_first_pieces() {
        let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/nano");
        let tokenizer = Tokenizer::from_dir(&nano, &Config::from_dir(&nano).unwrap()).unwrap();
        for text in ["", "a", "Where are we?", "weiß nicht, 0.123 -17", IMAGE_PAD, &"Frame 3: ".repeat(9)] {
            let ids = tokenizer.encode(text).unwrap();
            assert!(tokenizer.least_tokens(text.len()) <= ids.len(), "{text}");
            let room = Room { tokens: ids.len(), gone: &|| false };
            assert_eq!(tokenizer.encode_within(text, &room).unwrap(), ids, "{text}");
        }
        // `gone` is asked before each piece.
        let pieces = Cell::new(0);
        let gone = || {
            pieces.set(pieces.get() + 1);
            false
        };
        let room = |tokens| Room { tokens, gone: &gone };
        let long = "a ".repeat(PIECE);
        let refused = |text: &str, tokens| tokenizer.encode_within(text, &room(tokens)).unwrap_err();
        assert!(matches!(refused(&long, 99), Error::TooLong { most: 99, least: 100.. }));
        assert_eq!(pieces.get(), 0, "its bytes are enough");
        let fits = tokenizer.least_tokens(long.len());
        assert!(matches!(refused(&long, fits), Error::TooLong { .. }));
        assert_eq!(pieces.get(), 1, "its first piece is enough");
        // What fits is tokenized as a whole, however it is counted.
        let ids = tokenizer.encode(&long).unwrap();
        assert_eq!(tokenizer.encode_within(&long, &room(ids.len())).unwrap(), ids);
        let nobody = Room { tokens: fits, gone: &|| true };
        assert!(matches!(tokenizer.encode_within(&long, &nobody), Err(Error::GivenUp)));
    }

    #[test]
    fn what_would_spell_a_prompt_with_other_tokens_is_refused_by_name() {
        let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/nano");
        let (config, dir) = (Config::from_dir(&nano).unwrap(), tempfile::tempdir().unwrap());
        let file: Value = read_json(&nano.join("tokenizer.json")).unwrap();
        let load = |tokenizer: &Value, beside: &Value| {
            std::fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
            std::fs::write(dir.path().join("tokenizer_config.json"), beside.to_string()).unwrap();
            Tokenizer::from_dir(dir.path(), &config)
        };
        let plain =
            json!({"add_bos_token": false, "add_prefix_space": false, "bos_token": null, "model_max_length": 9});
        let text = format!("{IM_START}user\n{IM_END}");
        let ids = load(&file, &plain).unwrap().encode(&text).unwrap();
        for key in ["add_bos_token", "add_eos_token", "add_prefix_space", "split_special_tokens"] {
            let error = load(&file, &json!({key: true})).unwrap_err().to_string();
            assert!(error.ends_with(&format!("tokenizer_config.json: {key}: expected false, got true")), "{error}");
        }
        // What training leaves behind is no part of the vocabulary.
        let mut trained = file.clone();
        trained["truncation"] = json!({"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0});
        assert_eq!(load(&trained, &plain).unwrap().encode(&text).unwrap(), ids);
        let mut begun = file;
        let id = config.vision_start_token_id;
        begun["post_processor"] = json!({
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": VISION_START, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {VISION_START: {"id": VISION_START, "ids": [id], "tokens": [VISION_START]}},
        });
        let error = load(&begun, &plain).unwrap_err().to_string();
        assert!(error.contains("post_processor") && error.ends_with(VISION_START), "{error}");
    }
}
