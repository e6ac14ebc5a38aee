//! What the program writes of an answer, in place of the model: whatever the grammar leaves no choice in, and the arithmetic of a
//! chain. Such runs go through the model in one batch and are never sampled.
//!
//! A run is spelled as the tokenizer spells a whole answer, so that where the model would have written the same the tokens are the
//! same, and trained weights see what they were trained on. Where a run may join with what the model writes next, its last
//! token is left to the model.

use std::fmt::Write as _;
use std::str::FromStr;

use geometry::Intrinsics;

use super::chain;
use super::grammar::{Grammar, Place};
use crate::Result;
use crate::tokenizer::Tokenizer;

/// Bytes that may follow a run of which each is tried; of more, one of a kind.
const FEW: usize = 16;

/// Who fills what (design of the chain).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fill {
    /// The model writes every token.
    #[default]
    None,
    /// What the grammar determines; and steps 3 and 4, from the points and depths that the model has written.
    Arithmetic,
}

impl Fill {
    /// As configs have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Arithmetic => "arithmetic",
        }
    }
}

impl FromStr for Fill {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "arithmetic" => Ok(Self::Arithmetic),
            other => Err(format!("expected none or arithmetic, got {other}")),
        }
    }
}

/// An answer as far as it is written.
#[derive(Debug, Clone)]
pub struct Draft {
    text: String,
    ids: Vec<u32>,
    /// Where in the text each token ends.
    ends: Vec<usize>,
    place: Place,
}

impl Draft {
    /// Nothing yet.
    pub fn new(grammar: &Grammar) -> Self {
        Self { text: String::new(), ids: Vec::new(), ends: Vec::new(), place: grammar.start() }
    }

    /// Adds a token that the grammar allows.
    pub fn push(&mut self, grammar: &Grammar, id: u32) {
        self.place = grammar.advance(&self.place, id);
        self.text.push_str(&String::from_utf8_lossy(grammar.text(id).unwrap_or_default()));
        self.ids.push(id);
        self.ends.push(self.text.len());
    }

    /// Where in the grammar it is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Where its last line begins, and that line's tokens; `None` where one of them began in the line before.
    fn line(&self) -> Option<(usize, &[u32])> {
        let start = self.text.rfind('\n').map_or(0, |at| at + 1);
        let first = self.ends.partition_point(|end| *end <= start);
        let begins = if first == 0 { 0 } else { self.ends[first - 1] };
        (begins == start).then(|| (start, &self.ids[first..]))
    }
}

/// Writes what the model need not.
#[derive(Debug, Clone, Copy)]
pub struct Filler<'a> {
    grammar: &'a Grammar,
    tokenizer: &'a Tokenizer,
    /// Of the grid that the model sees.
    camera: Intrinsics,
}

impl<'a> Filler<'a> {
    /// For answers of a grammar about frames of a camera.
    pub fn new(grammar: &'a Grammar, tokenizer: &'a Tokenizer, camera: Intrinsics) -> Self {
        Self { grammar, tokenizer, camera }
    }

    /// That of its answers.
    pub fn grammar(&self) -> &'a Grammar {
        self.grammar
    }

    /// The tokens that must come next; none where the model is to choose.
    ///
    /// # Errors
    /// A tokenizer that can't spell them.
    pub fn next(&self, draft: &Draft) -> Result<Vec<u32>> {
        let mut run = self.arithmetic(&draft.text).unwrap_or_default();
        let mut behind = self.grammar.advance_by(&draft.place, run.as_bytes());
        if self.grammar.is_lost(&behind) {
            // Numbers that are too long for an answer: the model is to say shorter ones.
            run.clear();
            behind = draft.place.clone();
        }
        let (determined, behind) = self.grammar.determined(&behind);
        run.push_str(&determined);
        if run.is_empty() {
            return Ok(Vec::new());
        }
        let Some((start, own)) = draft.line() else { return Ok(Vec::new()) };
        let line = &draft.text[start..];
        // Another spelling than the tokenizer's goes on as it began.
        if !line.is_empty() && self.tokenizer.encode(line)? != own {
            return Ok(Vec::new());
        }
        let mut spelled: Option<Vec<u32>> = None;
        for next in one_of_a_kind(&self.grammar.bytes(&behind)) {
            let ids = self.tokenizer.encode(&format!("{line}{run}{next}"))?;
            spelled = Some(match spelled {
                None => ids,
                Some(known) => known.into_iter().zip(ids).take_while(|(a, b)| a == b).map(|(a, _)| a).collect(),
            });
        }
        let spelled = match spelled {
            Some(spelled) => spelled,
            // The answer ends with it.
            None => self.tokenizer.encode(&format!("{line}{run}"))?,
        };
        Ok(spelled.strip_prefix(own).map(<[u32]>::to_vec).unwrap_or_default())
    }

    /// The numbers of step 3 or 4, where a text ends behind the prose of one of them.
    fn arithmetic(&self, text: &str) -> Option<String> {
        let mut out = String::new();
        if is_behind_prose(text, "<step3>\n") {
            let points = chain::back_projected(&chain::pixels(text).ok()?, &chain::depths(text).ok()?, &self.camera);
            chain::write_points(&mut out, &points);
            let _ = writeln!(out, "</step3>");
        } else if is_behind_prose(text, "<step4>\n") {
            let poses = chain::aligned(&chain::points(text).ok()?).ok()?;
            chain::write_relative(&mut out, &poses);
            let _ = writeln!(out, "</step4>");
        }
        (!out.is_empty()).then_some(out)
    }
}

/// Whether a block was opened and one line of it is written.
fn is_behind_prose(text: &str, open: &str) -> bool {
    text.rfind(open).is_some_and(|at| {
        let inside = &text[at + open.len()..];
        inside.len() > 1 && inside.find('\n') == Some(inside.len() - 1)
    })
}

/// All of a few bytes, and of more one of each kind that tokenizers know.
fn one_of_a_kind(bytes: &[u8]) -> Vec<char> {
    let kind = |byte: &u8| match byte {
        b'0'..=b'9' => 0,
        b'a'..=b'z' => 1,
        b'A'..=b'Z' => 2,
        b' ' => 3,
        b'\n' => 4,
        _ => 5,
    };
    let mut chosen: Vec<u8> = Vec::new();
    for byte in bytes {
        if bytes.len() <= FEW || !chosen.iter().any(|known| kind(known) == kind(byte)) {
            chosen.push(*byte);
        }
    }
    chosen.into_iter().map(char::from).collect()
}
