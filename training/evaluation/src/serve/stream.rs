//! The model as an engine: its answers as text, as soon as a piece of it is certain.

use std::ops::ControlFlow;
use std::sync::Arc;

use geometry::{Intrinsics, Stamp, WINDOW};
use model::answer::decode::{Ended, decode_filled_with, decode_with};
use model::answer::fill::{Fill, Filler};
use model::answer::measured::Measured;
use model::answer::prompt::{self, Prompt};
use model::tokenizer::Room;
use model::{EgoModel, Mode};
use odometry::Grey;

use super::chat::{Reason, Tokens};
use super::queue::{Engine, Event, Reader, Sink};
use super::{Refusal, Request};
use crate::measured;

/// A checkpoint that answers conversations.
#[derive(Debug)]
pub struct ChatModel {
    model: Arc<EgoModel>,
    max_prompt_tokens: usize,
    fill: Fill,
}

impl ChatModel {
    /// Prompts of more than `max_prompt_tokens` are refused, as attention takes memory with the square of them.
    pub fn new(model: EgoModel, max_prompt_tokens: usize) -> Self {
        Self { model: Arc::new(model), max_prompt_tokens, fill: Fill::None }
    }

    /// Lets the program write its part of answers to questions about a window ([`prompt::asked`]), which then follow their
    /// grammar; all others are answered as before.
    ///
    /// # Errors
    /// A tokenizer that can't spell the grammar.
    pub fn filling(self, fill: Fill) -> model::Result<Self> {
        if fill != Fill::None {
            // Compiled before the first request waits for it.
            self.model.grammar(Mode::FullChain)?;
            self.model.grammar(Mode::AnswerOnly)?;
        }
        Ok(Self { fill, ..self })
    }

    /// Tokens of the model's context.
    fn context(&self) -> usize {
        self.model.network().config().text_config.max_position_embeddings
    }

    /// Tokens of the longest prompt that is read.
    fn most(&self) -> usize {
        self.max_prompt_tokens.min(self.context().saturating_sub(1))
    }
}

/// The tokens of a request, at most `most`.
fn tokens(model: &EgoModel, most: usize, request: &Request, gone: &dyn Fn() -> bool) -> Result<Prompt, Refusal> {
    let sizes: Vec<(u32, u32)> = request.images.iter().map(|image| image.size).collect();
    Ok(model.prompt_within(&request.messages, &sizes, &Room { tokens: most, gone })?)
}

/// What tracks say of the window that a question is about; what they can't say is left to the model.
fn tracked(greys: &[Grey], camera: &Intrinsics) -> Option<Arc<Measured>> {
    let first = greys.first()?;
    // On the grid of the images as they came, whichever one the question has its numbers on.
    let camera = camera.rescale(first.width() as u32, first.height() as u32);
    // Times are not in a request, and only their order is asked.
    let stamps: [Stamp; WINDOW] = std::array::from_fn(|frame| Stamp::from_nanos(frame as i64));
    measured::of_greys(greys, &camera, &stamps).unwrap_or_else(|error| {
        tracing::warn!("not measured, the model writes its own points: {error:#}");
        None
    })
}

impl Engine for ChatModel {
    fn reader(&self) -> Option<Arc<Reader>> {
        let (model, most) = (Arc::clone(&self.model), self.most());
        Some(Arc::new(move |request: &Request, gone: &dyn Fn() -> bool| tokens(&model, most, request, gone)))
    }

    fn answer(&self, request: &Request, sink: &Sink) -> Result<Tokens, Refusal> {
        let read = match request.prompt {
            Some(_) => None,
            None => Some(tokens(&self.model, self.most(), request, &|| sink.is_closed())?),
        };
        let Some(prompt) = request.prompt.as_ref().or(read.as_ref()) else {
            return Err(Refusal::internal("the request has no tokens"));
        };
        let tokens = prompt.ids.len();
        let window = request.messages.last().and_then(prompt::asked).filter(|_| self.fill != Fill::None);
        // The images of the last turn, where tracks are to say something of them.
        let looked_at = if window.is_some() && self.fill == Fill::Measured { WINDOW } else { 0 };
        let (mut images, mut greys) = (Vec::with_capacity(request.images.len()), Vec::with_capacity(looked_at));
        for (left, image) in (1..=request.images.len()).rev().zip(&request.images) {
            if sink.is_closed() {
                return Err(Refusal::stopping());
            }
            let pixels = image.decode()?;
            if left <= looked_at {
                greys.extend(measured::grey(&pixels));
            }
            images.push(self.model.encode_image(&pixels)?);
        }
        let max_tokens = request.max_tokens.min(self.context() - tokens);
        let prefilled = self.model.prefill(prompt, &images.iter().collect::<Vec<_>>(), max_tokens)?;
        sink.send(Event::Started { prompt_tokens: tokens });

        let spell = |ids: &[u32]| self.model.tokenizer().decode(ids);
        let mut texts: Vec<Text<'_>> = (0..request.n).map(|_| Text::new(&spell, &request.stop)).collect();
        let mut failed = None;
        let mut seen = |answer: usize, id: u32| {
            if sink.is_closed() {
                return ControlFlow::Break(());
            }
            match texts[answer].push(id) {
                Ok(text) => say(sink, answer, text),
                Err(error) => {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
            }
            if texts[answer].stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let decoding = self.model.decoding(max_tokens, request.sampling);
        let (network, n) = (self.model.network(), request.n);
        let written = match window {
            Some((mode, camera)) => {
                let (grammar, measured) = (self.model.grammar(mode)?, tracked(&greys, &camera));
                let filler = Filler::new(&grammar, self.model.tokenizer(), camera, measured.as_deref());
                decode_filled_with(network, prefilled, n, &decoding, &filler, &mut seen)?
            }
            None => decode_with(network, prefilled, n, &decoding, &mut seen)?,
        };
        if let Some(error) = failed {
            return Err(error.into());
        }
        if sink.is_closed() {
            return Err(Refusal::stopping());
        }
        for (answer, (text, written)) in texts.iter_mut().zip(&written).enumerate() {
            let reason = match written.ended {
                Ended::Length => Reason::Length,
                Ended::NoToken => return Err(Refusal::internal("the model's scores are not numbers")),
                Ended::Stop | Ended::Cancelled => Reason::Stop,
            };
            say(sink, answer, text.finish()?);
            sink.send(Event::Ended { answer, reason });
        }
        Ok(Tokens {
            written: written.iter().map(|written| written.ids.len()).sum(),
            filled: written.iter().map(|written| written.filled).sum(),
        })
    }
}

fn say(sink: &Sink, answer: usize, text: String) {
    if !text.is_empty() {
        sink.send(Event::Text { answer, text });
    }
}

/// The text of one answer as it grows. What it gives out is final: no half of a character, and nothing that may yet turn
/// out to be a stop string.
struct Text<'a> {
    spell: &'a dyn Fn(&[u32]) -> model::Result<String>,
    stops: &'a [String],
    ids: Vec<u32>,
    /// The ids from here to `read` are spelled already. They are spelled again with those behind them, since a token's
    /// spelling may depend on its neighbours; those before are not, or long answers would take the square of their length.
    from: usize,
    read: usize,
    held: String,
    /// A stop string came; it and what is behind it are dropped.
    stopped: bool,
}

impl<'a> Text<'a> {
    fn new(spell: &'a dyn Fn(&[u32]) -> model::Result<String>, stops: &'a [String]) -> Self {
        Self { spell, stops, ids: Vec::new(), from: 0, read: 0, held: String::new(), stopped: false }
    }

    /// Takes a token and gives out what is certain now.
    fn push(&mut self, id: u32) -> model::Result<String> {
        self.ids.push(id);
        self.grow(false)?;
        Ok(self.release(false))
    }

    /// What is left once no more tokens come.
    fn finish(&mut self) -> model::Result<String> {
        if self.stopped {
            return Ok(String::new());
        }
        self.grow(true)?;
        Ok(self.release(true))
    }

    /// Spells the new tokens, unless they end within a character and more may come.
    fn grow(&mut self, last: bool) -> model::Result<()> {
        let before = (self.spell)(&self.ids[self.from..self.read])?;
        let with = (self.spell)(&self.ids[self.from..])?;
        let cut = with.ends_with(char::REPLACEMENT_CHARACTER) && !last;
        if !cut && let Some(new) = with.get(before.len()..) {
            self.held.push_str(new);
            (self.from, self.read) = (self.read, self.ids.len());
        }
        Ok(())
    }

    fn release(&mut self, last: bool) -> String {
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.stopped = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        // The longest end that a stop string begins with.
        let begun = |stop: &String| {
            let mut lengths = stop.char_indices().map(|(length, _)| length).rev();
            lengths.find(|length| self.held.ends_with(&stop[..*length])).unwrap_or(0)
        };
        let kept = if last { 0 } else { self.stops.iter().map(begun).max().unwrap_or(0) };
        let rest = self.held.split_off(self.held.len() - kept);
        std::mem::replace(&mut self.held, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A token a byte.
    fn bytes(ids: &[u32]) -> model::Result<String> {
        let bytes: Vec<u8> = ids.iter().map(|id| *id as u8).collect();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The pieces that come out, and whether a stop string ended them.
    fn pieces(tokens: &[u8], stops: &[&str]) -> (Vec<String>, bool) {
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
        let mut text = Text::new(&bytes, &stops);
        let mut pieces = Vec::new();
        for token in tokens {
            pieces.push(text.push(u32::from(*token)).unwrap());
            if text.stopped {
                break;
            }
        }
        pieces.push(text.finish().unwrap());
        pieces.retain(|piece| !piece.is_empty());
        (pieces, text.stopped)
    }

    #[test]
    fn characters_come_out_whole_and_nothing_is_lost() {
        assert_eq!(pieces("aé→😀b".as_bytes(), &[]).0, ["a", "é", "→", "😀", "b"]);
        // Half a character at the end is what the whole text would show; one in the middle too.
        assert_eq!(pieces(b"ab\xe2\x86", &[]).0, ["a", "b", "\u{fffd}"]);
        assert_eq!(pieces(b"a\xe2\x86b", &[]).0.concat(), "a\u{fffd}b");
        // A character that looks like a missing one is a character.
        assert_eq!(pieces("a\u{fffd}b".as_bytes(), &[]).0.concat(), "a\u{fffd}b");
    }

    #[test]
    fn a_stop_string_is_never_seen_and_what_only_begins_like_one_is() {
        let (got, stopped) = pieces(b"one, two. three", &[". t"]);
        assert!(stopped);
        assert_eq!(got.concat(), "one, two");
        let (got, stopped) = pieces(b"a. b.. t", &[". t"]);
        assert!(stopped);
        assert_eq!(got.concat(), "a. b.");
        // Held until it is certain, and given out at the end.
        assert_eq!(pieces(b"a. ", &[". t"]), (vec!["a".to_owned(), ". ".to_owned()], false));
        // The first to come wins, and one that follows itself is found.
        assert_eq!(pieces(b"xxabcd", &["cd", "bc"]).0.concat(), "xxa");
        assert_eq!(pieces(b"aabaac", &["aac"]).0.concat(), "aab");
        assert_eq!(pieces("weiß nicht".as_bytes(), &["ß"]).0.concat(), "wei");
        assert_eq!(pieces(b"stop", &["stop"]).0.concat(), "");
    }
}
