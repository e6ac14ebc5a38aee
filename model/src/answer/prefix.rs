//! What prompts begin with is read once: the tokens before the first image, and whatever two prompts in a row began with, images
//! too, as where one window is asked about in two modes. Windows that slide have another first image each time, so that of them it
//! is the text before the images.
//!
//! Keys and values of a token depend on that token and those before it alone, on the deepstack features of images among them; they
//! are the same for every prompt that begins with these tokens, at these places and with these images. They are kept for as many
//! tokens as came twice, which take `2 * layers * key heads * width of a head` numbers each ([`crate::memory::cache_bytes`]) and
//! [`MOST_BYTES`] at most: all of a prompt, most of which changes from window to window, would be hundreds of megabytes of a
//! large model. Weights that change under their cache, as those of a trainer, must not have one.

use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::TensorId;

use crate::Result;
use crate::qwen3_vl::text::{KvCache, Position};

/// Most that is kept.
pub const MOST_BYTES: u64 = 64 << 20;

/// A token of a prompt, by all that the decoder is given of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// Where it stands.
    pub place: Position,
    /// The image that it is part of, by the tensor of that image's tokens. No other tensor of this process has its number; which
    /// row of it this is follows from the tokens before.
    pub image: Option<TensorId>,
}

/// The last prompt, and the keys and values of its beginning.
#[derive(Debug, Default)]
pub struct Prefix(Mutex<Option<Kept>>);

#[derive(Debug)]
struct Kept {
    prompt: Vec<Token>,
    /// Of its first tokens, as many as are kept.
    cache: KvCache,
}

impl Prefix {
    /// Begins an empty cache with what is kept of the beginning of `prompt`. At least its last token is left to be read, since it
    /// tells what comes next.
    ///
    /// # Errors
    /// A cache that is not empty.
    pub fn begin(&self, prompt: &[Token], cache: &mut KvCache) -> Result<()> {
        let kept = self.kept();
        let Some(Kept { prompt: last, cache: known }) = kept.as_ref() else { return Ok(()) };
        cache.begin(known, common(last, prompt).min(known.tokens()).min(prompt.len().saturating_sub(1)))
    }

    /// Keeps what is worth it of a prompt that `cache` holds, of which a token takes so many bytes.
    ///
    /// # Errors
    /// A cache that does not hold the prompt.
    pub fn keep(&self, prompt: Vec<Token>, cache: &KvCache, token_bytes: u64) -> Result<()> {
        let mut kept = self.kept();
        let text = prompt.iter().position(|token| token.image.is_some()).unwrap_or(prompt.len());
        let again = kept.as_ref().map_or(0, |kept| common(&kept.prompt, &prompt));
        let most = usize::try_from(MOST_BYTES / token_bytes.max(1)).unwrap_or(usize::MAX);
        let tokens = text.max(again).min(most);
        let cache = match kept.take() {
            Some(kept) if tokens <= again && kept.cache.tokens() == tokens => kept.cache,
            _ => {
                let mut own = KvCache::new(cache.layers(), tokens);
                own.begin(cache, tokens)?;
                own
            }
        };
        *kept = Some(Kept { prompt, cache });
        Ok(())
    }

    fn kept(&self) -> MutexGuard<'_, Option<Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tokens that both begin with.
fn common(a: &[Token], b: &[Token]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::*;
    use crate::nn::Kernels;
    use crate::qwen3_vl::{Embedded, Qwen3Vl};

    /// Ten tokens, of which the fourth and fifth are of one image and the seventh and eighth of another.
    fn prompt(images: [&Tensor; 2]) -> Vec<Token> {
        let of = |k: u32| match k {
            3 | 4 => Some(images[0].id()),
            6 | 7 => Some(images[1].id()),
            _ => None,
        };
        (0..10).map(|k| Token { id: if of(k).is_some() { 5 } else { 300 + k }, place: [k; 3], image: of(k) }).collect()
    }

    #[test]
    fn text_is_kept_at_once_images_when_they_came_twice_and_what_changed_is_let_go() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/nano");
        let model = Qwen3Vl::load(&dir, Kernels::Fused, DType::F32, &Device::Cpu).unwrap();
        let read = |prompt: &[Token]| {
            let ids: Vec<u32> = prompt.iter().map(|token| token.id).collect();
            let places: Vec<Position> = prompt.iter().map(|token| token.place).collect();
            let embeddings = model.embed(&Tensor::new(ids, &Device::Cpu).unwrap()).unwrap().unsqueeze(0).unwrap();
            let mut cache = model.cache(20);
            model.decode(&Embedded { embeddings, deepstack: Vec::new() }, &places, Some(&mut cache)).unwrap();
            cache
        };
        let image = |value: f32| Tensor::new(&[value], &Device::Cpu).unwrap();
        let [a, b, c, other] = [0.0, 1.0, 2.0, 0.0].map(image);
        let (prefix, bytes) = (Prefix::default(), 5 * 2 * 2 * 48 * 4);
        let ask = |prompt: &[Token], token_bytes: u64| {
            let mut cache = model.cache(20);
            prefix.begin(prompt, &mut cache).unwrap();
            prefix.keep(prompt.to_vec(), &read(prompt), token_bytes).unwrap();
            cache.tokens()
        };
        let (first, second, third) = (prompt([&a, &b]), prompt([&a, &c]), prompt([&other, &b]));
        assert_eq!(ask(&first, bytes), 0);
        assert_eq!(ask(&second, bytes), 3, "the text, though the image is the same");
        assert_eq!(ask(&first, bytes), 6, "up to the second image, now that the first came twice");
        assert_eq!(ask(&first, bytes), 6);
        assert_eq!(ask(&first, bytes), 9, "all but the last token");
        assert_eq!(ask(&third, bytes), 3, "an image of the same numbers is another image");
        assert_eq!(ask(&third, bytes), 3, "what has changed was let go");
        let mut moved = third;
        moved[2].place = [7; 3];
        assert_eq!(ask(&moved, bytes), 2, "other places are other keys");
        // Never more than the bound.
        assert_eq!(ask(&moved, MOST_BYTES / 2), 3);
        assert_eq!(ask(&moved, MOST_BYTES / 2), 2);
        assert_eq!(ask(&moved[..1], bytes), 0, "one token is all that is left to be read");
    }
}
