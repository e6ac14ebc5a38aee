//! Reading ahead: tokens that are likely to come next are read together with the last one that was written, and where the model then
//! chooses them, no pass is needed for what follows (Leviathan et al. 2023, section 2; drafts by prompt lookup in place of a small
//! model). Neighbouring windows are answered alike, so drafts are looked up in the last window's text, in the answer itself, and in
//! the grammar where that leaves one token.
//!
//! What is chosen is chosen by the model from the same hidden states, so that greedy answers are those without drafts, but for the
//! rounding in which a pass over several tokens differs from one a token: with quantized matrices two tokens that are equally likely
//! within it may be told apart otherwise. Drawn answers are not drafted for.

use std::cmp::Reverse;

use candle_core::{DType, Tensor};

use super::grammar::{Grammar, Place};
use crate::Result;
use crate::qwen3_vl::text::{KvCache, Position};
use crate::qwen3_vl::{Embedded, Qwen3Vl};

/// Most tokens of a draft: so many rows cost a product hardly more than one, since its matrix is read once for all.
const MOST: usize = 8;
/// Tokens before a place that are compared.
const LONGEST: usize = 8;
/// As many of them must be equal.
const SHORTEST: usize = 2;
/// As many equal tokens is it worth that a place goes on where the earlier text was: behind a number that is another, what follows
/// is what followed, though nothing before it is equal. Each draft that was wrong from its first token takes one off.
const ALONGSIDE: usize = 5;

/// What drafts came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drafted {
    /// Tokens that were read ahead.
    pub tokens: usize,
    /// How many of them were then written.
    pub accepted: usize,
    /// Passes of the model that were not needed for that: with those that were, as many as without drafts.
    pub saved: usize,
}

/// Where in a grammar an answer is, if it has one.
pub(super) type Form<'a> = Option<(&'a Grammar, Place)>;

/// The model over one answer as it grows.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    model: &'a Qwen3Vl,
    cache: KvCache,
    /// Tokens of the cache before the answer.
    prompt: usize,
    /// Place of the answer's first token.
    next: u32,
    /// Tokens of the answer that the cache holds: written ones, and behind them drafted ones.
    held: Vec<u32>,
    /// How much of the answer is written.
    written: usize,
    /// What the model makes of the answer as long as it was at the last pass, and of each drafted token behind, `[1 + drafted, d]`.
    hidden: Tensor,
    /// That length.
    from: usize,
    /// Their logits, once asked for.
    logits: Option<Vec<Vec<f32>>>,
    lookup: Option<Lookup>,
    passes: usize,
    drafted: Drafted,
}

impl<'a> Reader<'a> {
    /// Behind a prompt, by its cache, its last hidden state `[1, d]` and the place of the token that follows; drafts are looked up in
    /// `earlier`, where they are wanted.
    pub fn new(model: &'a Qwen3Vl, (cache, hidden, next): (KvCache, Tensor, u32), earlier: Option<&[u32]>) -> Self {
        Self {
            model,
            prompt: cache.tokens(),
            cache,
            next,
            held: Vec::new(),
            written: 0,
            hidden,
            from: 0,
            logits: None,
            lookup: earlier.map(Lookup::new),
            passes: 0,
            drafted: Drafted::default(),
        }
    }

    /// Reads what is new of the answer `text`, unless a draft was just that; at most `room` tokens are drafted behind it.
    ///
    /// # Errors
    /// A cache that is full.
    pub fn read(&mut self, text: &[u32], form: &Form<'_>, room: usize) -> Result<()> {
        let new = &text[self.written..];
        if new.is_empty() {
            return Ok(());
        }
        let held = self.held.iter().zip(text).take_while(|(held, id)| held == id).count();
        self.drafted.accepted += held - self.written;
        self.written = text.len();
        if let Some(lookup) = &mut self.lookup {
            lookup.push(new);
        }
        if held == text.len() {
            self.drafted.saved += 1;
            return Ok(());
        }
        let mut unread = text[held..].to_vec();
        let before = unread.len() - 1;
        if let Some(lookup) = &mut self.lookup {
            lookup.learn(held - self.from, self.held.len() - self.from);
            unread.extend(lookup.draft(form, room));
        }
        let rows = unread.len() - before;
        self.cache.truncate(self.prompt + held)?;
        self.held.truncate(held);
        let embeddings = self.model.embed(&Tensor::new(unread.as_slice(), self.model.device())?)?.unsqueeze(0)?;
        let places: Vec<Position> = (0..unread.len()).map(|k| [self.next + (held + k) as u32; 3]).collect();
        let embedded = Embedded { embeddings, deepstack: Vec::new() };
        let hidden = self.model.decode(&embedded, &places, Some(&mut self.cache))?.squeeze(0)?; // [t, d]
        self.hidden = hidden.narrow(0, before, rows)?;
        self.from = text.len();
        self.logits = None;
        self.held.extend(unread);
        self.passes += 1;
        self.drafted.tokens += rows - 1;
        Ok(())
    }

    /// What the model makes of the answer as far as it was read, `[1, d]`.
    ///
    /// # Errors
    /// A tensor operation's.
    pub fn hidden(&self) -> Result<Tensor> {
        Ok(self.hidden.narrow(0, self.written - self.from, 1)?)
    }

    /// The logits of that over the whole vocabulary. Those of the drafts are computed with them, in one product.
    ///
    /// # Errors
    /// A tensor operation's.
    pub fn logits(&mut self) -> Result<Vec<f32>> {
        let all = match self.logits.take() {
            Some(all) => all,
            None => self.model.logits(&self.hidden)?.to_dtype(DType::F32)?.to_vec2::<f32>()?,
        };
        let row = all[self.written - self.from].clone();
        self.logits = Some(all);
        Ok(row)
    }

    /// Passes of the model, and what drafts came to.
    pub fn work(&self) -> (usize, Drafted) {
        (self.passes, self.drafted)
    }
}

/// Where drafts come from.
#[derive(Debug)]
struct Lookup {
    /// An earlier text, and the one that is being written behind it.
    texts: Vec<u32>,
    /// Where that begins.
    own: usize,
    /// Where the earlier text goes on beside the one that is being written.
    alongside: usize,
    /// Drafts in a row that were wrong from their first token.
    misses: usize,
    /// Most tokens of the next draft.
    most: usize,
}

impl Lookup {
    fn new(earlier: &[u32]) -> Self {
        Self { texts: earlier.to_vec(), own: earlier.len(), alongside: 0, misses: 0, most: MOST }
    }

    /// Takes what was written.
    fn push(&mut self, new: &[u32]) {
        self.texts.extend(new);
        self.alongside += new.len();
    }

    /// Takes that so many tokens of the last draft came true. Where few do, shorter ones lose less.
    fn learn(&mut self, accepted: usize, drafted: usize) {
        if drafted > 0 {
            self.misses = if accepted == 0 { self.misses + 1 } else { 0 };
            self.most = if accepted == drafted { MOST } else { (2 * accepted).clamp(2, MOST) };
        }
    }

    /// What is likely to come next, at most `room` tokens. Under a grammar it is what the grammar allows.
    fn draft(&mut self, form: &Form<'_>, room: usize) -> Vec<u32> {
        let mut form = form.clone();
        let mut at = self.place(&form);
        let mut drafted = Vec::new();
        while drafted.len() < room.min(self.most) {
            let looked_up = at.and_then(|at| self.texts.get(at).copied());
            let Some(id) = sole(&form).or(looked_up).filter(|id| may_follow(&form, *id)) else { break };
            if let Some((grammar, place)) = &mut form {
                *place = grammar.advance(place, id);
            }
            drafted.push(id);
            at = at.map(|at| at + 1);
        }
        drafted
    }

    /// The place in both texts before which most is equal to the end of the newer one; of several, the nearest to where the earlier
    /// one goes on. Where much is equal, that is where it goes on.
    fn place(&mut self, form: &Form<'_>) -> Option<usize> {
        let written = &self.texts[self.own..];
        let score = |at: usize| {
            let (end, before) = (written.iter().rev(), self.texts[..at].iter().rev());
            let equal = end.zip(before).take(LONGEST).take_while(|(a, b)| a == b).count();
            let is_alongside = at == self.alongside && at < self.own;
            let worth = if is_alongside { equal.max(ALONGSIDE.saturating_sub(self.misses)) } else { equal };
            (worth, Reverse(at.abs_diff(self.alongside)), at)
        };
        let allowed = form.as_ref().map(|(grammar, place)| grammar.by_form(place));
        let may_follow = |id: &u32| allowed.as_ref().is_none_or(|ids| ids.binary_search(id).is_ok());
        let places = (0..self.texts.len()).map(score).filter(|(worth, ..)| *worth >= SHORTEST);
        let (worth, _, at) = places.filter(|(.., at)| may_follow(&self.texts[*at])).max()?;
        if worth >= ALONGSIDE && at < self.own {
            self.alongside = at;
        }
        Some(at)
    }
}

/// The one token that a grammar leaves.
fn sole(form: &Form<'_>) -> Option<u32> {
    let (grammar, place) = form.as_ref()?;
    match grammar.by_form(place).as_slice() {
        [only] => Some(*only),
        _ => None,
    }
}

/// Whether a token that is not the end may come next.
fn may_follow(form: &Form<'_>, id: u32) -> bool {
    form.as_ref().is_none_or(|(grammar, place)| {
        grammar.text(id).is_some() && grammar.by_form(place).binary_search(&id).is_ok() && grammar.fits(place, id)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is drafted behind a text that is written beside an earlier one.
    fn drafted(earlier: &[u32], written: &[u32]) -> Vec<u32> {
        let mut lookup = Lookup::new(earlier);
        written.iter().for_each(|id| lookup.push(&[*id]));
        lookup.draft(&None, 4)
    }

    #[test]
    fn a_draft_goes_on_where_the_earlier_text_does() {
        let earlier: Vec<u32> = (10..40).collect();
        assert_eq!(drafted(&earlier, &[10, 11, 12]), [13, 14, 15, 16]);
        assert_eq!(drafted(&earlier, &[10, 11, 99]), [13, 14, 15, 16], "behind another token in its place");
        assert_eq!(
            drafted(&earlier, &[10, 12, 13, 14, 15, 16, 17, 18]),
            [19, 20, 21, 22],
            "behind one that is left out"
        );
        assert_eq!(
            drafted(&earlier, &(10..39).collect::<Vec<_>>()),
            [39, 10, 11, 12],
            "its last, then what was written"
        );
    }

    #[test]
    fn without_an_earlier_text_a_draft_is_what_was_written_before() {
        assert_eq!(drafted(&[], &[1, 2, 3, 4, 5, 9, 2, 3]), [4, 5, 9, 2]);
        assert_eq!(drafted(&[], &[1, 2, 3, 4]), [0; 0]);
        // The longer end decides.
        assert_eq!(drafted(&[], &[7, 2, 3, 4, 8, 2, 3, 5, 7, 2, 3]), [4, 8, 2, 3]);
    }

    #[test]
    fn drafts_that_fail_are_shorter_and_are_looked_up_elsewhere() {
        // The same three tokens stand elsewhere, and something else behind them.
        let earlier = [1, 2, 3, 4, 50, 51, 52, 60, 61, 62, 70, 71];
        let mut lookup = Lookup::new(&earlier);
        lookup.push(&[60, 61, 62]);
        assert_eq!(lookup.draft(&None, 1), [4], "it still goes on where it was");
        for _ in 0..3 {
            lookup.learn(0, 1);
        }
        assert_eq!(lookup.draft(&None, 9), [70, 71], "two at most behind failures");
        lookup.learn(2, 2);
        assert_eq!(lookup.most, MOST);
        lookup.learn(2, 8);
        assert_eq!((lookup.most, lookup.misses), (4, 0));
    }
}
