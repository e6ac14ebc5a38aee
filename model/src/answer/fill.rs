//! What the program writes of an answer, in place of the model: whatever the grammar leaves no choice in, the arithmetic of a
//! chain, and what was measured of the window. Such runs go through the model in one batch and are never sampled.
//!
//! A run is spelled as the tokenizer spells a whole answer, so that where the model would have written the same the tokens are the
//! same, and trained weights see what they were trained on. Where a run may join with what the model writes next, its last
//! token is left to the model.

use std::str::FromStr;

use geometry::Intrinsics;

use super::chain;
use super::grammar::{Grammar, Place};
use super::measured::Measured;
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
    /// That, the points of step 1, and the final poses in the unit of the model's depths, where they were measured.
    Measured,
}

/// A part of a chain that the program wrote: it is no evidence of what the model sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The pixels of step 1.
    Points,
    /// Step 3.
    BackProjection,
    /// Step 4.
    Alignment,
    /// The final poses.
    Poses,
}

impl Part {
    /// As statuses and reports have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Points => "step1",
            Self::BackProjection => "step3",
            Self::Alignment => "step4",
            Self::Poses => "poses",
        }
    }
}

/// Tokens that must come next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Run {
    /// The tokens; none where the model is to choose.
    pub ids: Vec<u32>,
    /// The part of the chain that they belong to, beside what the grammar determines.
    pub part: Option<Part>,
}

impl Fill {
    /// As configs have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Arithmetic => "arithmetic",
            Self::Measured => "measured",
        }
    }
}

impl FromStr for Fill {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "arithmetic" => Ok(Self::Arithmetic),
            "measured" => Ok(Self::Measured),
            other => Err(format!("expected none, arithmetic or measured, got {other}")),
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
    measured: Option<&'a Measured>,
}

impl<'a> Filler<'a> {
    /// For answers of a grammar about frames of a camera, and what was measured of them.
    pub fn new(
        grammar: &'a Grammar,
        tokenizer: &'a Tokenizer,
        camera: Intrinsics,
        measured: Option<&'a Measured>,
    ) -> Self {
        Self { grammar, tokenizer, camera, measured }
    }

    /// That of its answers.
    pub fn grammar(&self) -> &'a Grammar {
        self.grammar
    }

    /// What must come next.
    ///
    /// # Errors
    /// A tokenizer that can't spell it.
    pub fn next(&self, draft: &Draft) -> Result<Run> {
        let (mut part, mut run) =
            self.known(&draft.text).map_or((None, String::new()), |(part, run)| (Some(part), run));
        let mut behind = self.grammar.advance_by(&draft.place, run.as_bytes());
        if self.grammar.is_lost(&behind) {
            // Numbers that are too long for an answer: the model is to say shorter ones.
            run.clear();
            part = None;
            behind = draft.place.clone();
        }
        let (determined, behind) = self.grammar.determined(&behind);
        run.push_str(&determined);
        if run.is_empty() {
            return Ok(Run::default());
        }
        let Some((start, own)) = draft.line() else { return Ok(Run::default()) };
        let line = &draft.text[start..];
        // Another spelling than the tokenizer's goes on as it began.
        if !line.is_empty() && self.tokenizer.encode(line)? != own {
            return Ok(Run::default());
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
        let ids = spelled.strip_prefix(own).map(<[u32]>::to_vec).unwrap_or_default();
        Ok(Run { part: part.filter(|_| !ids.is_empty()), ids })
    }

    /// The rest of the numbers of a part that the program knows, where a text ends behind the prose of it or among them.
    fn known(&self, text: &str) -> Option<(Part, String)> {
        let mut out = String::new();
        let (part, written) = if let Some(written) = numbers(text, "step1") {
            chain::write_pixels(&mut out, &self.measured?.pixels(&self.camera));
            out.push_str("</step1>\n");
            (Part::Points, written)
        } else if let Some(written) = numbers(text, "step3") {
            let points = chain::back_projected(&chain::pixels(text).ok()?, &chain::depths(text).ok()?, &self.camera);
            chain::write_points(&mut out, &points);
            out.push_str("</step3>\n");
            (Part::BackProjection, written)
        } else if let Some(written) = numbers(text, "step4") {
            let poses = chain::aligned(&chain::points(text).ok()?).ok()?;
            chain::write_relative(&mut out, &poses);
            out.push_str("</step4>\n");
            (Part::Alignment, written)
        } else {
            let written = &text[text.rfind(POSES)? + POSES.len()..];
            let poses = self.measured?.scaled(&chain::depths(text).ok()?)?;
            out.push_str(chain::write_poses(&poses).strip_prefix(POSES)?);
            (Part::Poses, written)
        };
        let rest = out.strip_prefix(written)?;
        (!rest.is_empty()).then(|| (part, rest.to_owned()))
    }
}

/// Opens the final block.
const POSES: &str = "<poses>\n";

/// What is written behind the one line of prose of a block that is open.
fn numbers<'a>(text: &'a str, block: &str) -> Option<&'a str> {
    let inside = &text[text.rfind(&format!("<{block}>\n"))? + block.len() + 3..];
    let (prose, written) = inside.split_once('\n')?;
    (!prose.is_empty() && !written.contains('<')).then_some(written)
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
