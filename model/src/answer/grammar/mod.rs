//! Constrained decoding: at every step, the tokens with which the text can still become an answer.
//!
//! The form of an answer ([`crate::chain`]) is a regular language, compiled once to an automaton over bytes. What no
//! automaton sees, that nine numbers are a rotation, [`rotation`] adds number by number. An answer written under both
//! parses, if it is not cut off.

mod rotation;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use geometry::WINDOW;
use regex_automata::dfa::{Automaton, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::{primitives::StateID, start, syntax};
use regex_automata::{Anchored, MatchKind};

use crate::answer::chain::POINTS;
use crate::answer::prompt::Mode;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// Longest prose of a step, bytes.
pub const MAX_PROSE: usize = 240;

/// The grammar of one kind of answer for one tokenizer.
pub struct Grammar {
    automaton: dense::DFA<Vec<u32>>,
    start: StateID,
    /// (text, id), sorted by text; tokens that no answer holds are left out.
    tokens: Vec<(Vec<u8>, u32)>,
    /// Where in that list an id is.
    index: HashMap<u32, usize>,
    end: u32,
    /// Tokens allowed in a state, once asked for.
    allowed: Mutex<HashMap<StateID, Arc<Vec<u32>>>>,
}

impl std::fmt::Debug for Grammar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grammar").field("tokens", &self.tokens.len()).finish_non_exhaustive()
    }
}

/// Where in the grammar a text is.
#[derive(Debug, Clone)]
pub struct Place {
    state: StateID,
    /// The line being written, where it is one of the final block.
    line: Option<Vec<u8>>,
    /// The end of the text, long enough to see that block open.
    tail: Vec<u8>,
}

/// Opens the final block.
const POSES: &[u8] = b"<poses>\n";

impl Grammar {
    /// Compiles the grammar of `mode`'s answers.
    ///
    /// # Errors
    /// A tokenizer that can't spell it.
    pub fn new(tokenizer: &Tokenizer, vocabulary: usize, mode: Mode) -> Result<Self> {
        let fail = |message: String| Error::Input {
            what: "grammar",
            expected: "a pattern that the tokenizer can spell".to_owned(),
            got: message,
        };
        let automaton = dense::Builder::new()
            .configure(
                dense::Config::new().match_kind(MatchKind::All).start_kind(regex_automata::dfa::StartKind::Anchored),
            )
            .syntax(syntax::Config::new().unicode(false).utf8(false))
            .thompson(thompson::Config::new().shrink(true))
            .build(&pattern(mode))
            .map_err(|e| fail(e.to_string()))?;
        let start =
            automaton.start_state(&start::Config::new().anchored(Anchored::Yes)).map_err(|e| fail(e.to_string()))?;
        let mut tokens = Vec::new();
        for id in (0..vocabulary as u32).filter(|id| *id != tokenizer.end) {
            let Ok(text) = tokenizer.decode(&[id]) else { continue };
            // Special tokens are names, not text.
            if !text.is_empty() && text.is_ascii() && !(text.starts_with("<|") && text.ends_with("|>")) {
                tokens.push((text.into_bytes(), id));
            }
        }
        tokens.sort();
        let index = tokens.iter().enumerate().map(|(i, (_, id))| (*id, i)).collect();
        let grammar = Self { automaton, start, tokens, index, end: tokenizer.end, allowed: Mutex::default() };
        if grammar.candidates(grammar.start).is_empty() {
            return Err(fail("no token begins an answer".to_owned()));
        }
        Ok(grammar)
    }

    /// The beginning of an answer.
    pub fn start(&self) -> Place {
        Place { state: self.start, line: None, tail: Vec::new() }
    }

    /// Ids that may come next, ascending; never empty for a place that was reached through allowed tokens, as long as
    /// the tokenizer has every single character.
    pub fn allowed(&self, place: &Place) -> Arc<Vec<u32>> {
        let all = self.by_form(place);
        if place.line.is_none() {
            return all;
        }
        Arc::new(all.iter().copied().filter(|id| self.fits(place, *id)).collect())
    }

    /// Ids that have the form of what may come next, ascending: those of [`Self::allowed`], and numbers with which a rotation
    /// becomes none.
    pub(super) fn by_form(&self, place: &Place) -> Arc<Vec<u32>> {
        self.candidates(place.state)
    }

    /// Whether one of these leaves a rotation possible. To ask it of the likeliest takes a thousandth of asking it of all.
    pub(super) fn fits(&self, place: &Place, id: u32) -> bool {
        let (Some(line), Some(text)) = (&place.line, self.text(id)) else { return true };
        rotation::may_become_a_pose(&[line, text].concat())
    }

    /// The place behind one more token.
    pub fn advance(&self, place: &Place, id: u32) -> Place {
        self.advance_by(place, self.text(id).unwrap_or_default())
    }

    fn step(&self, place: &mut Place, byte: u8) {
        place.state = self.automaton.next_state(place.state, byte);
        if place.tail.len() == POSES.len() {
            place.tail.remove(0);
        }
        place.tail.push(byte);
        match &mut place.line {
            Some(line) if byte == b'\n' => line.clear(),
            Some(line) => line.push(byte),
            None if place.tail.ends_with(POSES) => place.line = Some(Vec::new()),
            None => {}
        }
    }

    /// The place behind some text.
    pub(super) fn advance_by(&self, place: &Place, text: &[u8]) -> Place {
        let mut next = place.clone();
        text.iter().for_each(|byte| self.step(&mut next, *byte));
        next
    }

    /// The text in which there is no choice from here, and the place behind it.
    pub(super) fn determined(&self, place: &Place) -> (String, Place) {
        let (mut text, mut next) = (String::new(), place.clone());
        while let ([byte], false) = (self.bytes(&next).as_slice(), self.may_end(&next)) {
            text.push(char::from(*byte));
            self.step(&mut next, *byte);
        }
        (text, next)
    }

    /// The bytes that may come next.
    pub(super) fn bytes(&self, place: &Place) -> Vec<u8> {
        let is_live = |byte: &u8| {
            let next = self.automaton.next_state(place.state, *byte);
            // A match is seen one byte late, when there is already too much text.
            !self.automaton.is_dead_state(next) && !self.automaton.is_match_state(next)
        };
        (0..128).filter(is_live).collect()
    }

    /// Whether an answer may end here.
    pub(super) fn may_end(&self, place: &Place) -> bool {
        self.automaton.is_match_state(self.automaton.next_eoi_state(place.state))
    }

    /// Whether no answer begins so.
    pub(super) fn is_lost(&self, place: &Place) -> bool {
        self.automaton.is_dead_state(place.state) || (self.bytes(place).is_empty() && !self.may_end(place))
    }

    /// Of a token that an answer may hold.
    pub(super) fn text(&self, id: u32) -> Option<&[u8]> {
        self.index.get(&id).map(|&i| self.tokens[i].0.as_slice())
    }

    /// What the automaton allows in a state.
    fn candidates(&self, state: StateID) -> Arc<Vec<u32>> {
        let mut known = self.allowed.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(state).or_insert_with(|| Arc::new(self.walk(state))).clone()
    }

    fn walk(&self, state: StateID) -> Vec<u32> {
        let mut ids = Vec::new();
        // States along the text of the token before: neighbours in the list share most of it.
        let mut path: Vec<StateID> = Vec::new();
        let mut previous: &[u8] = &[];
        let mut dead: Option<usize> = None;
        for (text, id) in &self.tokens {
            let common = previous.iter().zip(text).take_while(|(a, b)| a == b).count();
            previous = text;
            if dead.is_some_and(|length| common >= length) {
                continue;
            }
            dead = None;
            path.truncate(common);
            while path.len() < text.len() {
                let here = path.last().copied().unwrap_or(state);
                let next = self.automaton.next_state(here, text[path.len()]);
                path.push(next);
                // A match is seen one byte late, when there is already too much text.
                if self.automaton.is_dead_state(next) || self.automaton.is_match_state(next) {
                    dead = Some(path.len());
                    break;
                }
            }
            if dead.is_none() {
                ids.push(*id);
            }
        }
        if self.automaton.is_match_state(self.automaton.next_eoi_state(state)) {
            ids.push(self.end);
        }
        ids.sort_unstable();
        ids
    }
}

/// The pattern of an answer, as [`crate::chain`] writes and parses it. Numbers are no longer than they need to be.
fn pattern(mode: Mode) -> String {
    let mut out = String::new();
    if mode == Mode::FullChain {
        let prose = format!(r"[ -;=?-~]{{1,{MAX_PROSE}}}\n");
        let pixel = r" -?[0-9]{1,4}\.[0-9]";
        let depth = r" (?:[0-9]{1,4}\.[0-9]{1,3}|[0-9]{4}|0\.[0-9]{4,6})";
        let metres = r" -?[0-9]{1,3}\.[0-9]{4}";
        let six = r" -?[0-9]{1,3}\.[0-9]{6}";
        let mut points = |step: usize, group: String, separator: &str| {
            let _ = write!(out, r"<step{step}>\n{prose}");
            for p in 0..POINTS {
                let _ = write!(out, "p{p}{}\\n", [group.as_str(); WINDOW].join(separator));
            }
            let _ = write!(out, r"</step{step}>\n");
        };
        points(1, pixel.repeat(2), r" \|");
        points(2, depth.to_owned(), "");
        points(3, metres.repeat(3), r" \|");
        let _ = write!(out, r"<step4>\n{prose}");
        for i in 1..WINDOW {
            let _ = write!(out, r"{i} R{} t{}\n", six.repeat(9), six.repeat(3));
        }
        let _ = write!(out, r"</step4>\n<step5>\n{prose}</step5>\n");
    }
    let (one, zero) = (r" 1\.0{6}", r" 0\.0{6}");
    let identity = [one, zero, zero, zero, one, zero, zero, zero, one].concat();
    let _ = write!(out, r"<poses>\n0 R{identity} t{}\n", zero.repeat(3));
    let (entry, metres) = (r" -?[01]\.[0-9]{6}", r" -?[0-9]{1,3}\.[0-9]{6}");
    for i in 1..WINDOW {
        let _ = write!(out, r"{i} R{} t{}\n", entry.repeat(9), metres.repeat(3));
    }
    out.push_str("</poses>");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every token that an answer can be spelled with, plus some that it can't.
    fn tokenizer() -> Tokenizer {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/nano");
        let config = crate::Config::from_dir(&dir).unwrap();
        Tokenizer::from_dir(&dir, &config).unwrap()
    }

    /// Byte-level pairs of Qwen's kind, where every digit is a token of its own.
    fn byte_level() -> Tokenizer {
        let path =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/qwen3vl/converted/tokenizer.json");
        Tokenizer::new(tokenizers::Tokenizer::from_file(path).unwrap()).unwrap()
    }

    fn spelled(grammar: &Grammar, tokenizer: &Tokenizer, text: &str) -> Option<Place> {
        let mut place = grammar.start();
        for id in tokenizer.encode(text).unwrap() {
            if !grammar.allowed(&place).contains(&id) {
                return None;
            }
            place = grammar.advance(&place, id);
        }
        Some(place)
    }

    const POSE_0: &str = "<poses>\n0 R 1.000000 0.000000 0.000000 0.000000 1.000000 0.000000 0.000000 0.000000 1.000000 t 0.000000 0.000000 0.000000\n";

    #[test]
    fn an_answer_is_allowed_and_ends_where_it_must() {
        let tokenizer = tokenizer();
        let grammar = Grammar::new(&tokenizer, 1 << 16, Mode::AnswerOnly).unwrap();
        let text = crate::answer::chain::write_poses(&geometry::WindowTrajectory::identity());
        let place = spelled(&grammar, &tokenizer, &text).expect("an answer is allowed");
        assert_eq!(*grammar.allowed(&place), [tokenizer.end]);
        let half = spelled(&grammar, &tokenizer, POSE_0).unwrap();
        assert!(!grammar.allowed(&half).contains(&tokenizer.end));
    }

    #[test]
    fn what_would_not_parse_is_not_allowed() {
        let tokenizer = tokenizer();
        let grammar = Grammar::new(&tokenizer, 1 << 16, Mode::AnswerOnly).unwrap();
        for text in [
            "the camera",
            "<poses>\n1 R",
            "<poses>\n0 R 0.500000",
            &format!("{POSE_0}1 R 0.500000 0.900000"),
            &format!("{POSE_0}1 R 0.000000 1.000000 0.000000 0.000000 1.000000"),
        ] {
            assert!(spelled(&grammar, &tokenizer, text).is_none(), "{text}");
        }
    }

    #[test]
    fn every_random_walk_through_the_grammar_parses() {
        use rand::{Rng, SeedableRng};
        let (nano, byte_level) = (tokenizer(), byte_level());
        let each = [&nano, &byte_level].into_iter().flat_map(|t| [(t, Mode::AnswerOnly), (t, Mode::FullChain)]);
        for (tokenizer, mode) in each {
            let grammar = Grammar::new(tokenizer, 1 << 16, mode).unwrap();
            for seed in 0..12 {
                let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
                let (mut place, mut ids) = (grammar.start(), Vec::new());
                loop {
                    let allowed = grammar.allowed(&place);
                    assert!(!allowed.is_empty(), "stuck behind {:?}", tokenizer.decode(&ids));
                    let id = allowed[rng.random_range(0..allowed.len())];
                    if id == tokenizer.end {
                        break;
                    }
                    place = grammar.advance(&place, id);
                    ids.push(id);
                    assert!(ids.len() < 4000);
                }
                let text = tokenizer.decode(&ids).unwrap();
                let parsed = crate::answer::chain::parse(&text);
                assert!(parsed.trajectory.is_ok(), "seed {seed}: {:?}\n{text}", parsed.trajectory);
                assert!(mode == Mode::AnswerOnly || parsed.steps() == [true; 5], "{text}");
            }
        }
    }
}
