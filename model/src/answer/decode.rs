//! Writing an answer token by token: greedy or sampled, free or under a grammar, one or several at once.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{DType, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::answer::fill::{Draft, Filler, Part, Run};
use crate::answer::grammar::Grammar;
use crate::answer::speculate::{Drafted, Form, Reader};
use crate::qwen3_vl::text::{KvCache, last};
use crate::qwen3_vl::{Embedded, Qwen3Vl};
use crate::{Error, Result};

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0 takes the likeliest token; above, probabilities are `softmax(logits / temperature)`.
    pub temperature: f64,
    /// Only the likeliest tokens that make up this much probability are drawn from; 1 for all.
    pub top_p: f64,
    /// Answer k of several draws from the stream of `seed + k`.
    pub seed: u64,
}

impl Sampling {
    /// The likeliest token, always.
    pub const GREEDY: Self = Self { temperature: 0.0, top_p: 1.0, seed: 0 };

    /// # Errors
    /// A temperature below 0 or a `top_p` outside 0 to 1.
    pub fn check(&self) -> Result<()> {
        let fine = self.temperature >= 0.0 && self.temperature.is_finite() && self.top_p > 0.0 && self.top_p <= 1.0;
        if !fine {
            return Err(Error::Input {
                what: "sampling",
                expected: "temperature at least 0, top_p over 0 and at most 1".to_owned(),
                got: format!("{}, {}", self.temperature, self.top_p),
            });
        }
        Ok(())
    }

    /// Chooses one of the logits by its number; nothing where they are not numbers or allow nothing, so that an answer ends
    /// instead of being made up.
    fn choose(&self, logits: &[f32], rng: &mut ChaCha8Rng) -> Option<u32> {
        if logits.iter().any(|v| v.is_nan()) {
            return None;
        }
        let (best, &most) = logits.iter().enumerate().rev().max_by(|a, b| a.1.total_cmp(b.1))?;
        if !most.is_finite() {
            return None;
        }
        if self.temperature <= 0.0 {
            return Some(best as u32);
        }
        let weight = |v: f32| (f64::from(v - most) / self.temperature).exp();
        let mut drawn: Vec<(u32, f64)> = (0u32..).zip(logits).map(|(id, v)| (id, weight(*v))).collect();
        drawn.retain(|(_, w)| *w > 0.0);
        if self.top_p < 1.0 {
            drawn.sort_by(|a, b| b.1.total_cmp(&a.1));
            let enough = self.top_p * drawn.iter().map(|(_, w)| w).sum::<f64>();
            let sums = drawn.iter().scan(0.0, |sum, (_, w)| Some(std::mem::replace(sum, *sum + w)));
            let kept = sums.take_while(|before| *before < enough).count();
            drawn.truncate(kept.max(1));
        }
        let total: f64 = drawn.iter().map(|(_, w)| w).sum();
        let mut left = rng.random::<f64>() * total;
        let hit = drawn.iter().find(|(_, w)| {
            left -= w;
            left < 0.0
        });
        hit.or(drawn.last()).map(|(id, _)| *id)
    }
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With the token that ends a turn.
    Stop,
    /// At the limit.
    Length,
    /// From outside.
    Cancelled,
    /// No token could be chosen: the logits were not numbers, or the grammar left none.
    NoToken,
}

/// One answer as tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Ids, without the one that ends the turn.
    pub ids: Vec<u32>,
    /// How many of them the program wrote, so that the model went through them in fewer passes and chose none.
    pub filled: usize,
    /// Where these are, in order, among `ids` and the `end` behind them, which the program may have written too.
    pub runs: Vec<Range<usize>>,
    /// The parts of a chain that it wrote.
    pub by_program: Vec<Part>,
    /// Passes of the model behind the prompt.
    pub passes: usize,
    /// What was read ahead, and came true.
    pub drafted: Drafted,
    /// Why there are no more.
    pub ended: Ended,
    /// The one that ended the turn, where one did.
    pub end: Option<u32>,
}

impl Written {
    fn new() -> Self {
        Self {
            ids: Vec::new(),
            filled: 0,
            runs: Vec::new(),
            by_program: Vec::new(),
            passes: 0,
            drafted: Drafted::default(),
            ended: Ended::Length,
            end: None,
        }
    }
}

/// What a decoding run needs beside the network.
#[derive(Debug, Clone, Copy)]
pub struct Decoding<'a> {
    /// Most tokens of an answer.
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// What answers may be; anything without.
    pub grammar: Option<&'a Grammar>,
    /// Ids that are never written.
    pub banned: &'a [u32],
    /// Ids that end an answer.
    pub ends: &'a [u32],
    /// Set from outside to give up at the next token.
    pub stop: Option<&'a Arc<AtomicBool>>,
    /// The answer before, which tells what is likely to come next (empty where there was none), so that it is read ahead
    /// ([`crate::answer::speculate`]); `None` for no reading ahead. Drawn answers, and several in one batch, have none.
    pub earlier: Option<&'a [u32]>,
    /// Tokens to take in place of those that are chosen, the one that ends them among them: what writing a text costs, whatever
    /// the weights would have said. All else is computed as without it.
    pub script: Option<&'a [u32]>,
}

impl Decoding<'_> {
    fn is_stopped(&self) -> bool {
        self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed))
    }

    /// Reads one answer of this kind behind a prompt.
    fn reader<'m>(&self, model: &'m Qwen3Vl, prompt: (KvCache, Tensor, u32)) -> Reader<'m> {
        Reader::new(model, prompt, self.earlier.filter(|_| self.sampling.temperature <= 0.0))
    }

    /// Tokens that an answer may have behind the one that comes next.
    fn room(&self, line: &Line<'_>) -> usize {
        self.max_tokens.saturating_sub(line.written.ids.len() + 1)
    }
}

/// Of a vocabulary, the share whose logits are computed one by one.
const FEW: usize = 4;

struct Line<'a> {
    written: Written,
    done: bool,
    place: Form<'a>,
    rng: ChaCha8Rng,
}

/// A prompt that was read.
#[derive(Debug)]
pub struct Prefilled {
    /// Its hidden states `[1, t, d]`; the last is read.
    pub hidden: Tensor,
    /// Its keys and values.
    pub cache: KvCache,
    /// Place of the first token behind it, on all axes.
    pub next: u32,
    /// How many of its tokens an earlier prompt began with, so that they were not read again.
    pub reused: usize,
}

/// Writes `n` answers behind a prompt, which is kept once for all of them.
///
/// # Errors
/// Settings out of bounds, a cache that is full.
pub fn decode(model: &Qwen3Vl, prompt: Prefilled, n: usize, decoding: &Decoding<'_>) -> Result<Vec<Written>> {
    decode_with(model, prompt, n, decoding, &mut |_, _| ControlFlow::Continue(()))
}

/// [`decode`] that shows every token as it is written: `seen` gets the number of its answer and its id, and may end that
/// answer behind it ([`Ended::Cancelled`]).
///
/// # Errors
/// As [`decode`].
pub fn decode_with(
    model: &Qwen3Vl,
    prompt: Prefilled,
    n: usize,
    decoding: &Decoding<'_>,
    seen: &mut dyn FnMut(usize, u32) -> ControlFlow<()>,
) -> Result<Vec<Written>> {
    decoding.sampling.check()?;
    if n == 1 {
        return Ok(vec![alone(model, prompt, decoding, seen)?]);
    }
    let seed = decoding.sampling.seed;
    let mut lines: Vec<Line<'_>> =
        (0..n as u64).map(|k| Line::new(decoding, decoding.grammar, seed.wrapping_add(k))).collect();
    let Prefilled { hidden, cache, next, .. } = prompt;
    let mut cache = cache.branch()?;
    let mut hidden = last(&hidden)?.broadcast_as((n, model.config().text_config.hidden_size))?.contiguous()?;
    for step in 0..decoding.max_tokens as u32 {
        if decoding.is_stopped() {
            lines.iter_mut().filter(|l| !l.done).for_each(|l| l.written.ended = Ended::Cancelled);
            break;
        }
        let choices = choices(model, &hidden, lines.iter().map(|line| line.allowed(decoding)))?;
        let mut tokens = Vec::with_capacity(n);
        for (k, (line, choice)) in lines.iter_mut().zip(choices).enumerate() {
            let id = line.write(choice, decoding);
            line.cancel_if(id.is_some_and(|id| seen(k, id).is_break()));
            tokens.push(id.unwrap_or(0));
        }
        if lines.iter().all(|line| line.done) {
            break;
        }
        // Answers that have ended go along with a token that nobody reads.
        let embeddings = model.embed(&Tensor::new(tokens, model.device())?)?.unsqueeze(1)?;
        let embedded = Embedded { embeddings, deepstack: Vec::new() };
        hidden = last(&model.decode(&embedded, &vec![[next + step; 3]; n], Some(&mut cache))?)?;
        lines.iter_mut().filter(|line| !line.done).for_each(|line| line.written.passes += 1);
    }
    Ok(lines.into_iter().map(|line| line.written).collect())
}

/// [`decode_with`] of one answer.
fn alone(
    model: &Qwen3Vl,
    prompt: Prefilled,
    decoding: &Decoding<'_>,
    seen: &mut dyn FnMut(usize, u32) -> ControlFlow<()>,
) -> Result<Written> {
    let mut line = Line::new(decoding, decoding.grammar, decoding.sampling.seed);
    let mut reader = decoding.reader(model, (prompt.cache, last(&prompt.hidden)?, prompt.next));
    while !line.done {
        if decoding.is_stopped() {
            line.written.ended = Ended::Cancelled;
            break;
        }
        reader.read(&line.written.ids, &line.place, decoding.room(&line))?;
        let choice = choice(model, &mut reader, line.allowed(decoding))?;
        let id = line.write(choice, decoding);
        line.cancel_if(id.is_some_and(|id| seen(0, id).is_break()));
    }
    (line.written.passes, line.written.drafted) = reader.work();
    Ok(line.written)
}

/// [`decode`] of answers of which `filler` writes what it can, one after the other. They keep its grammar, whether or not
/// `decoding` has one.
///
/// # Errors
/// As [`decode`], and a tokenizer that can't spell what is filled in.
pub fn decode_filled(
    model: &Qwen3Vl,
    prompt: Prefilled,
    n: usize,
    decoding: &Decoding<'_>,
    filler: &Filler<'_>,
) -> Result<Vec<Written>> {
    decode_filled_with(model, prompt, n, decoding, filler, &mut |_, _| ControlFlow::Continue(()))
}

/// [`decode_filled`] that shows every token as it is written, as [`decode_with`] does: those of a run one by one.
///
/// # Errors
/// As [`decode_filled`].
pub fn decode_filled_with(
    model: &Qwen3Vl,
    prompt: Prefilled,
    n: usize,
    decoding: &Decoding<'_>,
    filler: &Filler<'_>,
    seen: &mut dyn FnMut(usize, u32) -> ControlFlow<()>,
) -> Result<Vec<Written>> {
    decoding.sampling.check()?;
    let Prefilled { hidden, cache, next, .. } = prompt;
    let first = last(&hidden)?;
    let mut written = Vec::with_capacity(n);
    for k in 1..n as u64 {
        let mut seen = |id| seen(k as usize, id);
        written.push(filled(model, (cache.branch()?, first.clone(), next), k, decoding, filler, &mut seen)?);
    }
    if n > 0 {
        // The first goes on with the cache itself, so that one alone needs no branch.
        written.insert(0, filled(model, (cache, first, next), 0, decoding, filler, &mut |id| seen(0, id))?);
    }
    Ok(written)
}

/// Answer `k` of several.
fn filled(
    model: &Qwen3Vl,
    prompt: (KvCache, Tensor, u32),
    k: u64,
    decoding: &Decoding<'_>,
    filler: &Filler<'_>,
    seen: &mut dyn FnMut(u32) -> ControlFlow<()>,
) -> Result<Written> {
    let grammar = filler.grammar();
    let mut draft = Draft::new(grammar);
    let mut line = Line::new(decoding, Some(grammar), decoding.sampling.seed.wrapping_add(k));
    let mut reader = decoding.reader(model, prompt);
    while !line.done {
        if decoding.is_stopped() {
            line.written.ended = Ended::Cancelled;
            break;
        }
        let Run { ids: mut run, part } = filler.next(&draft)?;
        if let ([only], true) = (grammar.by_form(draft.place()).as_slice(), run.is_empty()) {
            if decoding.ends.contains(only) {
                let at = line.written.ids.len();
                line.written.runs.push(at..at + 1);
                (line.written.ended, line.written.end) = (Ended::Stop, Some(*only));
                break;
            }
            run.push(*only);
        }
        if !run.is_empty() {
            let begin = line.written.ids.len();
            run.truncate(decoding.max_tokens - begin);
            let unwanted = run.iter().position(|id| seen(*id).is_break());
            if let Some(last) = unwanted {
                run.truncate(last + 1);
            }
            run.iter().for_each(|id| draft.push(grammar, *id));
            let by_program = &mut line.written.by_program;
            by_program.extend(part.filter(|part| !by_program.contains(part)));
            line.place = Some((grammar, draft.place().clone()));
            line.written.filled += run.len();
            line.written.runs.push(begin..begin + run.len());
            line.written.ids.extend(&run);
            line.done = line.written.ids.len() >= decoding.max_tokens;
            line.cancel_if(unwanted.is_some());
            continue;
        }
        reader.read(&line.written.ids, &line.place, decoding.room(&line))?;
        let choice = choice(model, &mut reader, line.allowed(decoding))?;
        if let Some(id) = line.write(choice, decoding) {
            draft.push(grammar, id);
            line.cancel_if(seen(id).is_break());
        }
    }
    (line.written.passes, line.written.drafted) = reader.work();
    Ok(line.written)
}

/// What one of several answers may go on with: a logit for each of `ids`, or for every id there is.
struct Choice {
    ids: Option<Vec<u32>>,
    logits: Vec<f32>,
}

impl Choice {
    /// A few ids, of which alone the logits are computed for a hidden state `[1, d]`.
    fn few(model: &Qwen3Vl, hidden: &Tensor, ids: Vec<u32>) -> Result<Self> {
        let logits = if ids.is_empty() { Vec::new() } else { model.logits_of(hidden, &ids)? };
        Ok(Self { ids: Some(ids), logits })
    }

    /// Of the logits of every id.
    fn of(row: Vec<f32>, ids: Option<Vec<u32>>) -> Self {
        match ids {
            None => Self { ids, logits: row },
            Some(ids) => {
                let logits = ids.iter().map(|id| row.get(*id as usize).copied().unwrap_or(f32::NEG_INFINITY)).collect();
                Self { ids: Some(ids), logits }
            }
        }
    }
}

/// What the one answer of a reader may go on with.
fn choice(model: &Qwen3Vl, reader: &mut Reader<'_>, allowed: Option<Vec<u32>>) -> Result<Choice> {
    match allowed {
        Some(ids) if ids.len() <= model.config().text_config.vocab_size / FEW => {
            Choice::few(model, &reader.hidden()?, ids)
        }
        allowed => Ok(Choice::of(reader.logits()?, allowed)),
    }
}

/// The logits `[n, d]` hidden states give to what n answers may go on with. Where that is little of the vocabulary, the rest of
/// it is not computed: the largest matrix of a small model is read for the sake of a dozen rows.
fn choices(model: &Qwen3Vl, hidden: &Tensor, allowed: impl Iterator<Item = Option<Vec<u32>>>) -> Result<Vec<Choice>> {
    let allowed: Vec<Option<Vec<u32>>> = allowed.collect();
    let vocabulary = model.config().text_config.vocab_size;
    let few = |ids: &Option<Vec<u32>>| ids.as_ref().is_some_and(|ids| ids.len() * allowed.len() <= vocabulary / FEW);
    if allowed.iter().all(few) {
        let each = allowed.into_iter().enumerate();
        return each.map(|(k, ids)| Choice::few(model, &hidden.narrow(0, k, 1)?, ids.unwrap_or_default())).collect();
    }
    let rows = model.logits(hidden)?.to_dtype(DType::F32)?.to_vec2::<f32>()?;
    Ok(rows.into_iter().zip(allowed).map(|(row, ids)| Choice::of(row, ids)).collect())
}

impl<'a> Line<'a> {
    /// Nothing written, of an answer of a grammar if there is one.
    fn new(decoding: &Decoding<'_>, grammar: Option<&'a Grammar>, seed: u64) -> Self {
        Self {
            written: Written::new(),
            done: decoding.max_tokens == 0,
            place: grammar.map(|grammar| (grammar, grammar.start())),
            rng: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    /// What it may go on with under a grammar, ascending; anything without. Where the likeliest alone is taken, [`Self::write`]
    /// asks of that whether it fits.
    fn allowed(&self, decoding: &Decoding<'_>) -> Option<Vec<u32>> {
        let (grammar, place) = self.place.as_ref()?;
        if self.done {
            return Some(Vec::new());
        }
        let is_greedy = decoding.sampling.temperature <= 0.0;
        Some(if is_greedy { grammar.by_form(place) } else { grammar.allowed(place) }.to_vec())
    }

    /// Ends it from outside.
    fn cancel_if(&mut self, is_unwanted: bool) {
        if is_unwanted {
            self.written.ended = Ended::Cancelled;
            self.done = true;
        }
    }

    /// Chooses and takes the next token, or ends.
    fn write(&mut self, choice: Choice, decoding: &Decoding<'_>) -> Option<u32> {
        if self.done {
            return None;
        }
        let Choice { ids, mut logits } = choice;
        for &id in decoding.banned {
            let place = ids.as_ref().map_or(Some(id as usize), |ids| ids.binary_search(&id).ok());
            if let Some(logit) = place.and_then(|place| logits.get_mut(place)) {
                *logit = f32::NEG_INFINITY;
            }
        }
        let chosen = loop {
            let Some(at) = decoding.sampling.choose(&logits, &mut self.rng) else { break None };
            let id = ids.as_ref().map_or(at, |ids| ids[at as usize]);
            if self.place.as_ref().is_none_or(|(grammar, place)| grammar.fits(place, id)) {
                break Some(id);
            }
            logits[at as usize] = f32::NEG_INFINITY;
        };
        let chosen = match decoding.script {
            Some(script) => script.get(self.written.ids.len()).copied(),
            None => chosen,
        };
        let ended = match chosen {
            None => Some(Ended::NoToken),
            Some(id) if decoding.ends.contains(&id) => Some(Ended::Stop),
            Some(_) => None,
        };
        if let Some(ended) = ended {
            (self.written.ended, self.written.end) = (ended, chosen);
            self.done = true;
            return None;
        }
        let id = chosen?;
        if let Some((grammar, place)) = &mut self.place {
            *place = grammar.advance(place, id);
        }
        self.written.ids.push(id);
        self.done = self.written.ids.len() >= decoding.max_tokens;
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::chain;
    use crate::answer::prompt::Mode;
    use crate::nn::Kernels;
    use crate::tokenizer::Tokenizer;
    use candle_core::Device;
    use geometry::{Intrinsics, WindowTrajectory};
    use std::path::{Path, PathBuf};

    const FREE: Decoding<'static> = Decoding {
        max_tokens: 0,
        sampling: Sampling::GREEDY,
        grammar: None,
        banned: &[],
        ends: &[],
        stop: None,
        earlier: None,
        script: None,
    };

    fn nano() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/nano")
    }

    /// A prompt of four tokens, read.
    fn prefilled(model: &Qwen3Vl, limit: usize) -> Prefilled {
        let ids = Tensor::new(&[1u32, 300, 301, 302], &Device::Cpu).unwrap();
        let embeddings = model.embed(&ids).unwrap().unsqueeze(0).unwrap();
        let mut cache = model.cache(limit);
        let places = [[0; 3], [1; 3], [2; 3], [3; 3]];
        let embedded = Embedded { embeddings, deepstack: Vec::new() };
        let hidden = model.decode(&embedded, &places, Some(&mut cache)).unwrap();
        Prefilled { hidden, cache, next: 4, reused: 0 }
    }

    /// Two answers of eight tokens.
    fn write(model: &Qwen3Vl, seen: &mut dyn FnMut(usize, u32) -> ControlFlow<()>) -> Vec<Written> {
        let sampling = Sampling { temperature: 1.0, top_p: 1.0, seed: 5 };
        let decoding = Decoding { max_tokens: 8, sampling, ..FREE };
        decode_with(model, prefilled(model, 64), 2, &decoding, seen).unwrap()
    }

    #[test]
    fn a_text_is_written_as_it_is_given_whether_or_not_the_program_fills_it_in() {
        let config = crate::Config::from_dir(&nano()).unwrap();
        let tokenizer = Tokenizer::from_dir(&nano(), &config).unwrap();
        let model = Qwen3Vl::load(&nano(), Kernels::Fused, DType::F32, &Device::Cpu).unwrap();
        let grammar = Grammar::new(&tokenizer, config.text_config.vocab_size, Mode::AnswerOnly).unwrap();
        let ids = tokenizer.encode(&chain::write_poses(&WindowTrajectory::identity())).unwrap();
        let (script, ends) = ([ids.as_slice(), &[tokenizer.end]].concat(), [tokenizer.end]);
        let decoding =
            Decoding { max_tokens: script.len(), grammar: Some(&grammar), ends: &ends, script: Some(&script), ..FREE };
        let prompt = || prefilled(&model, 4 + script.len());
        let plain = decode(&model, prompt(), 1, &decoding).unwrap().remove(0);
        assert_eq!((&plain.ids, plain.ended, plain.end), (&ids, Ended::Stop, Some(tokenizer.end)));
        assert_eq!((plain.filled, plain.passes), (0, ids.len()));

        let camera = Intrinsics::new(150.0, 150.0, 80.0, 48.0, 160, 96).unwrap();
        let filler = Filler::new(&grammar, &tokenizer, camera, None);
        let filled = decode_filled(&model, prompt(), 1, &decoding, &filler).unwrap().remove(0);
        assert_eq!((&filled.ids, filled.ended), (&ids, Ended::Stop));
        // The identity's line is no choice of the model's, nor are the beginnings of the others.
        assert!(filled.filled > ids.len() / 5 && filled.passes <= ids.len() - filled.filled, "{filled:?}");
        // Without the script, these weights say something else behind this prompt.
        let own = decode(&model, prompt(), 1, &Decoding { script: None, ..decoding }).unwrap().remove(0);
        assert_ne!(own.ids, ids);
    }

    #[test]
    fn tokens_are_shown_as_they_are_written_and_one_of_several_answers_can_be_ended() {
        let model = Qwen3Vl::load(&nano(), Kernels::Fused, DType::F32, &Device::Cpu).unwrap();
        let mut shown = [Vec::new(), Vec::new()];
        let whole = write(&model, &mut |k, id| {
            shown[k].push(id);
            ControlFlow::Continue(())
        });
        for (written, shown) in whole.iter().zip(shown) {
            assert_eq!((&written.ids, written.ended), (&shown, Ended::Length));
            assert_eq!(shown.len(), 8);
        }
        let mut first = 0;
        let cut = write(&model, &mut |k, _| {
            first += usize::from(k == 0);
            if k == 0 && first == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!((&cut[0].ids[..], cut[0].ended), (&whole[0].ids[..3], Ended::Cancelled));
        assert_eq!(cut[1], whole[1], "the other one goes on as it would have");
    }

    fn shares(sampling: Sampling, logits: &[f32]) -> Vec<f64> {
        let mut counts = vec![0.0; logits.len()];
        let mut rng = ChaCha8Rng::seed_from_u64(sampling.seed);
        for _ in 0..20_000 {
            counts[sampling.choose(logits, &mut rng).unwrap() as usize] += 1.0 / 20_000.0;
        }
        counts
    }

    #[test]
    fn tokens_are_drawn_as_often_as_their_probability_says() {
        let logits = [0.0, 2f32.ln(), f32::NEG_INFINITY, 5f32.ln()];
        let got = shares(Sampling { temperature: 1.0, top_p: 1.0, seed: 3 }, &logits);
        for (got, expected) in got.iter().zip([0.125, 0.25, 0.0, 0.625]) {
            assert!((got - expected).abs() < 0.015, "{got} {expected}");
        }
        let sharp = shares(Sampling { temperature: 0.5, top_p: 1.0, seed: 3 }, &logits);
        assert!((sharp[3] - 25.0 / 30.0).abs() < 0.015, "{sharp:?}");
        // 0.625 alone is not 0.7: the second is kept, the first is not.
        let top = shares(Sampling { temperature: 1.0, top_p: 0.7, seed: 3 }, &logits);
        assert!(top[0] == 0.0 && (top[3] - 5.0 / 7.0).abs() < 0.015, "{top:?}");
    }

    #[test]
    fn greedy_takes_the_first_of_the_likeliest_and_nothing_that_is_no_number() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        assert_eq!(Sampling::GREEDY.choose(&[1.0, 3.0, 3.0], &mut rng), Some(1));
        assert_eq!(Sampling::GREEDY.choose(&[1.0, f32::NAN], &mut rng), None);
        assert_eq!(Sampling::GREEDY.choose(&[f32::NEG_INFINITY; 3], &mut rng), None);
        assert!(Sampling { temperature: -1.0, ..Sampling::GREEDY }.check().is_err());
        assert!(Sampling { top_p: 0.0, ..Sampling::GREEDY }.check().is_err());
    }
}
