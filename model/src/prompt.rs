//! The question that every stage asks in the same words: training, evaluation and the node.

use geometry::{Intrinsics, WINDOW};

use crate::qwen3_vl::{Segment, positions};
use crate::text::Position;
use crate::tokenizer::{IM_END, IM_START, Tokenizer, VISION_END, VISION_START};
use crate::vision::Grid;
use crate::{Error, Result};

/// How much of its reasoning the model is asked to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// All five steps, then the poses.
    FullChain,
    /// The poses straight away.
    AnswerOnly,
}

impl std::str::FromStr for Mode {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "full_chain" => Ok(Self::FullChain),
            "answer_only" => Ok(Self::AnswerOnly),
            other => Err(format!("expected full_chain or answer_only, got {other}")),
        }
    }
}

/// A tokenized question: ids with image placeholders in place, and the place of every token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// Token ids.
    pub ids: Vec<u32>,
    /// M-RoPE places, one a token.
    pub positions: Vec<Position>,
    /// The place of the first token of the answer.
    pub next: u32,
}

/// Asks for the poses of five frames.
///
/// `intrinsics` are those of the grid that the model sees ([`crate::processor::Patches::intrinsics`]).
///
/// # Errors
/// Another number of frames than five.
pub fn window(
    tokenizer: &Tokenizer,
    image_token: u32,
    merge: usize,
    mode: Mode,
    intrinsics: &Intrinsics,
    grids: &[Grid],
) -> Result<Prompt> {
    if grids.len() != WINDOW {
        return Err(Error::Input { what: "frames", expected: WINDOW.to_string(), got: grids.len().to_string() });
    }
    let k = intrinsics;
    let head = format!(
        "{IM_START}user\nfx {:.1} fy {:.1} cx {:.1} cy {:.1} size {} {}\n",
        k.fx, k.fy, k.cx, k.cy, k.width, k.height
    );
    let question = match mode {
        Mode::FullChain => "Reason in five steps, then give the poses of the five frames.",
        Mode::AnswerOnly => "Give the poses of the five frames.",
    };
    let tail = format!("\n{question}{IM_END}\n{IM_START}assistant\n");
    let opening = tokenizer.encode(VISION_START)?;
    let closing = tokenizer.encode(VISION_END)?;
    let mut texts = Vec::with_capacity(WINDOW + 1);
    let mut text = tokenizer.encode(&head)?;
    for i in 0..WINDOW {
        text.extend(tokenizer.encode(&format!("Frame {i}: "))?);
        text.extend(&opening);
        texts.push(std::mem::take(&mut text));
        text.extend(&closing);
    }
    text.extend(tokenizer.encode(&tail)?);
    texts.push(text);

    let mut segments = Vec::with_capacity(2 * WINDOW + 1);
    let mut ids = Vec::new();
    for (i, text) in texts.iter().enumerate() {
        segments.push(Segment::Text(text));
        ids.extend(text);
        if let Some(&grid) = grids.get(i) {
            segments.push(Segment::Image(grid));
            ids.extend(std::iter::repeat_n(image_token, grid.patches() / merge.pow(2)));
        }
    }
    let positions = positions(&segments, merge);
    let next = positions.last().map_or(0, |p| p[0] + 1);
    Ok(Prompt { ids, positions, next })
}
