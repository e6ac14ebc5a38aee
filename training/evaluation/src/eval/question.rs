//! How an endpoint is asked for a window.

use anyhow::Result;
use geometry::WindowTrajectory;
use model::Mode;
use model::answer::budget::{self, Budget};
use model::answer::chain;
use model::answer::prompt::Wording;

use training_data::WindowSample;
use training_data::endpoint::Part;

/// How an endpoint is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// What for.
    pub mode: Mode,
    /// After which an answer is given up.
    pub max_tokens: Budget,
    /// Say which form the answer has: for models that were not trained on it. Poses alone.
    pub explain: bool,
}

impl Question {
    /// Tokens after which an answer is given up. Of a model whose tokenizer is not at hand it is known that no token is shorter
    /// than a byte.
    pub(super) fn most_tokens(&self) -> usize {
        match self.max_tokens {
            Budget::Auto => budget::longest(self.mode).len(),
            Budget::Tokens(tokens) => tokens,
        }
    }
}

impl Default for Question {
    fn default() -> Self {
        Self { mode: Mode::AnswerOnly, max_tokens: Budget::Auto, explain: false }
    }
}

/// The question of the images as they are stored.
pub(super) fn parts(question: &Question, sample: &WindowSample) -> Result<Vec<Part>> {
    let Wording { camera, labels, mut task } = Wording::new(question.mode, &sample.intrinsics);
    let mut parts = vec![Part::Text(camera)];
    for (label, image) in labels.into_iter().zip(&sample.images) {
        parts.extend([Part::Text(label), Part::image(image)?]);
    }
    if question.explain {
        task.push_str(EXPLANATION);
        task.push_str(&chain::write_poses(&WindowTrajectory::identity()));
    }
    parts.push(Part::Text(task));
    Ok(parts)
}

/// The form of an answer, for a model that does not know it.
const EXPLANATION: &str = "
One moving camera took them, in this order; fx, fy, cx and cy are its intrinsics in pixels. Line i of the answer is the \
pose of camera i in camera 0 (x right, y down, z forward, metres): its number, R and the nine numbers of the rotation \
matrix row by row, t and the three of the translation, so that a point X of camera i is R X + t in camera 0. Six \
decimals, no exponents. Line 0 is the identity. Answer with nothing but that block. It would be this one for a camera \
that never moves:
";
