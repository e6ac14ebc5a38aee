//! `tokenizer.json`, and the special tokens that the prompt is made of.

use std::path::Path;

use crate::answer::chat::Template;
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

/// Text to ids and back.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    template: Option<Template>,
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
        let fail = |message: String| Error::Tokenizer { path: path.clone(), message };
        std::fs::metadata(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
        let inner = tokenizers::Tokenizer::from_file(&path).map_err(|e| fail(e.to_string()))?;
        Ok(Self::checked(inner, &path, config)?.with_template(Template::from_dir(dir)?))
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
    pub fn new(inner: tokenizers::Tokenizer) -> Result<Self, String> {
        let id = |token: &str| inner.token_to_id(token).ok_or_else(|| format!("no token {token}"));
        let (end, pad) = (id(IM_END)?, id(END_OF_TEXT)?);
        id(IM_START)?;
        Ok(Self { inner, template: None, end, pad })
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
