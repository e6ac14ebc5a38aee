//! Conversations as tokens, and the question that every stage asks in the same words: training, evaluation and the node.

use geometry::{Intrinsics, WINDOW};

use crate::answer::chat::{Message, Part, images};
use crate::qwen3_vl::processor::Grid;
use crate::qwen3_vl::text::Position;
use crate::qwen3_vl::{Segment, positions};
use crate::tokenizer::{IM_END, IM_START, IMAGE_PAD, Room, Tokenizer, VIDEO_PAD, VISION_END, VISION_START};
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

impl Mode {
    /// As configs have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::FullChain => "full_chain",
            Self::AnswerOnly => "answer_only",
        }
    }
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

/// The text of the question, whose images stand behind their labels: camera, label, image, label, image, ..., task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wording {
    /// The intrinsics, on a line.
    pub camera: String,
    /// What stands right before the image of each frame.
    pub labels: [String; WINDOW],
    /// What is asked for.
    pub task: String,
}

impl Wording {
    /// `intrinsics` are those of the images as the model gets them, their size among them.
    pub fn new(mode: Mode, intrinsics: &Intrinsics) -> Self {
        let Intrinsics { fx, fy, cx, cy, width, height } = intrinsics;
        let task = match mode {
            Mode::FullChain => "\nReason in five steps, then give the poses of the five frames.",
            Mode::AnswerOnly => "\nGive the poses of the five frames.",
        };
        Self {
            camera: format!("fx {fx:.1} fy {fy:.1} cx {cx:.1} cy {cy:.1} size {width} {height}\n"),
            labels: std::array::from_fn(|frame| format!("Frame {frame}: ")),
            task: task.to_owned(),
        }
    }

    /// What stands before, between and behind the images.
    fn texts(&self) -> Vec<String> {
        let Self { camera, labels, task } = self;
        let mut texts = labels.to_vec();
        texts[0].insert_str(0, camera);
        texts.push(task.clone());
        texts
    }
}

/// What a turn asks about a window, where it is word for word a [`Wording`] with its images, however its texts are cut: which
/// answer, and with the camera of the numbers in it, as the question rounds it. `None` for any other turn.
pub fn asked(turn: &Message) -> Option<(Mode, Intrinsics)> {
    let mut texts = vec![String::new()];
    for part in &turn.parts {
        match part {
            Part::Text(text) => texts.last_mut()?.push_str(text),
            Part::Image => texts.push(String::new()),
        }
    }
    let words: Vec<&str> = texts[0].lines().next()?.split(' ').collect();
    let ["fx", fx, "fy", fy, "cx", cx, "cy", cy, "size", width, height] = words[..] else { return None };
    let number = |text: &str| text.parse::<f64>().ok();
    let (width, height) = (width.parse().ok()?, height.parse().ok()?);
    let camera = Intrinsics::new(number(fx)?, number(fy)?, number(cx)?, number(cy)?, width, height).ok()?;
    let modes = [Mode::FullChain, Mode::AnswerOnly];
    modes.into_iter().find(|mode| Wording::new(*mode, &camera).texts() == texts).map(|mode| (mode, camera))
}

/// Tokens that the chat format is made of: in a text they would be another turn, or an image that is not there.
const RESERVED: [&str; 6] = [IM_START, IM_END, VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD];

/// Qwen's chat format.
fn plain(messages: &[Message]) -> String {
    let mut spelled = String::new();
    for message in messages {
        spelled.extend([IM_START, message.role.name(), "\n"]);
        for part in &message.parts {
            match part {
                Part::Text(text) => spelled.push_str(text),
                Part::Image => spelled.extend([VISION_START, IMAGE_PAD, VISION_END]),
            }
        }
        spelled.extend([IM_END, "\n"]);
    }
    spelled.extend([IM_START, "assistant\n"]);
    spelled
}

/// Asks for the poses of five frames.
///
/// `intrinsics` are those of the grid that the model sees ([`crate::qwen3_vl::processor::Patches::intrinsics`]).
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
    let Wording { camera, labels, task } = Wording::new(mode, intrinsics);
    let mut parts = vec![Part::Text(camera)];
    for label in labels {
        parts.extend([Part::Text(label), Part::Image]);
    }
    parts.push(Part::Text(task));
    chat(tokenizer, image_token, merge, &[Message::user(parts)], grids)
}

/// A conversation up to where the model's answer begins, as the checkpoint's own template spells it; without one, in
/// Qwen's chat format. `grids` are those of its images, in order, of any sizes.
///
/// # Errors
/// Another number of images than grids, a text that holds a token which only the format may write, a template that
/// fails.
pub fn chat(
    tokenizer: &Tokenizer,
    image_token: u32,
    merge: usize,
    messages: &[Message],
    grids: &[Grid],
) -> Result<Prompt> {
    chat_within(tokenizer, image_token, merge, messages, grids, &Room { tokens: usize::MAX, gone: &|| false })
}

/// [`chat`] of a conversation that may be too long: it is refused as soon as that is known, by its images and the bytes of its
/// texts first.
///
/// # Errors
/// As [`chat`], [`Error::TooLong`] and [`Error::GivenUp`].
pub fn chat_within(
    tokenizer: &Tokenizer,
    image_token: u32,
    merge: usize,
    messages: &[Message],
    grids: &[Grid],
    room: &Room<'_>,
) -> Result<Prompt> {
    let images = images(messages);
    if images != grids.len() {
        return Err(Error::Input { what: "images", expected: grids.len().to_string(), got: images.to_string() });
    }
    let tokens_of = |grid: &Grid| grid.patches() / merge.pow(2);
    let shown = grids.iter().map(tokens_of).fold(0, usize::saturating_add);
    let said: usize = messages.iter().flat_map(|message| &message.parts).map(Part::bytes).sum();
    room.check(shown.saturating_add(tokenizer.least_tokens(said)))?;
    for part in messages.iter().flat_map(|message| &message.parts) {
        if let Part::Text(text) = part
            && let Some(token) = RESERVED.iter().find(|token| text.contains(**token))
        {
            return Err(Error::Input {
                what: "text",
                expected: "words without tokens of the chat format".to_owned(),
                got: (*token).to_owned(),
            });
        }
    }
    let spelled = match tokenizer.template() {
        Some(template) => template.render(messages, IMAGE_PAD)?,
        None => plain(messages),
    };
    room.check(tokenizer.least_tokens(spelled.len()))?;
    let texts = spelled.split(IMAGE_PAD).map(|text| tokenizer.encode_within(text, room)).collect::<Result<Vec<_>>>()?;
    room.check(texts.iter().map(Vec::len).fold(shown, usize::saturating_add))?;

    let mut segments = Vec::with_capacity(2 * grids.len() + 1);
    let mut ids = Vec::new();
    for (i, text) in texts.iter().enumerate() {
        segments.push(Segment::Text(text));
        ids.extend(text);
        if let Some(&grid) = grids.get(i) {
            segments.push(Segment::Image(grid));
            ids.extend(std::iter::repeat_n(image_token, tokens_of(&grid)));
        }
    }
    let positions = positions(&segments, merge);
    let next = positions.last().map_or(0, |p| p[0] + 1);
    Ok(Prompt { ids, positions, next })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::chat::Role;
    use std::path::Path;

    /// Weights were trained on these very words.
    #[test]
    fn the_wording_is_that_of_the_weights() {
        let k = Intrinsics::new(150.04, 151.26, 80.0, 47.98, 160, 96).unwrap();
        let text = |mode| {
            let Wording { camera, labels, task } = Wording::new(mode, &k);
            format!("{camera}{}[image]{task}", labels.join("[image]"))
        };
        let frames = "fx 150.0 fy 151.3 cx 80.0 cy 48.0 size 160 96\nFrame 0: [image]Frame 1: [image]Frame 2: [image]\
                      Frame 3: [image]Frame 4: [image]\n";
        let tasks = [
            (Mode::FullChain, "Reason in five steps, then give the poses of the five frames."),
            (Mode::AnswerOnly, "Give the poses of the five frames."),
        ];
        for (mode, task) in tasks {
            assert_eq!(text(mode), format!("{frames}{task}"));
        }
    }

    #[test]
    fn a_question_about_a_window_is_known_by_its_words_and_no_other_is() {
        let k = Intrinsics::new(150.04, 151.26, 80.0, 47.98, 160, 96).unwrap();
        let rounded = Intrinsics::new(150.0, 151.3, 80.0, 48.0, 160, 96).unwrap();
        let text = |words: &str| Part::Text(words.to_owned());
        // Texts between images may be one part or several.
        let turn = |mode, end: &str| {
            let Wording { camera, labels, task } = Wording::new(mode, &k);
            let mut parts = vec![text(&camera)];
            labels.iter().for_each(|label| parts.extend([text(label), Part::Image]));
            parts.extend([text(&task), text(end)]);
            parts
        };
        for mode in [Mode::FullChain, Mode::AnswerOnly] {
            assert_eq!(asked(&Message::user(turn(mode, ""))), Some((mode, rounded)));
            let merged: Vec<Part> = std::iter::once(text(&Wording::new(mode, &k).texts()[0]))
                .chain(turn(mode, "").into_iter().skip(2))
                .collect();
            assert_eq!(asked(&Message::user(merged)), Some((mode, rounded)));
            assert_eq!(asked(&Message::user(turn(mode, " Why?"))), None);
            assert_eq!(asked(&Message::user(turn(mode, "").into_iter().skip(1).collect())), None);
        }
        let mut six = turn(Mode::AnswerOnly, "");
        six.push(Part::Image);
        let mut four = turn(Mode::AnswerOnly, "");
        four.retain(|part| *part != text("Frame 4: "));
        let no_camera = Wording {
            camera: "fx 0.0 fy 1.0 cx 2.0 cy 3.0 size 4 5\n".to_owned(),
            ..Wording::new(Mode::AnswerOnly, &k)
        };
        for parts in [six, four, Vec::new(), vec![text("Where are we?")], vec![text(&no_camera.texts()[0])]] {
            assert_eq!(asked(&Message::user(parts)), None);
        }
    }

    #[test]
    fn a_conversation_holds_images_of_several_sizes_where_they_were_said() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/nano");
        let config = crate::Config::from_dir(&dir).unwrap();
        let tokenizer = Tokenizer::from_dir(&dir, &config).unwrap();
        let text = |words: &str| Part::Text(words.to_owned());
        let system = Message { role: Role::System, parts: vec![text("Be brief.")] };
        let user = Message::user(vec![text("a"), Part::Image, text("b"), Part::Image]);
        let (small, wide) = (Grid { height: 2, width: 4 }, Grid { height: 4, width: 6 });
        let ask = |messages: &[Message], grids: &[Grid]| chat(&tokenizer, config.image_token_id, 2, messages, grids);

        let prompt = ask(&[system.clone(), user.clone()], &[small, wide]).unwrap();
        let spelled = tokenizer.decode(&prompt.ids).unwrap();
        assert_eq!(
            spelled,
            format!(
                "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n\
                 a<|vision_start|>{}<|vision_end|>b<|vision_start|>{}<|vision_end|><|im_end|>\n<|im_start|>assistant\n",
                IMAGE_PAD.repeat(2),
                IMAGE_PAD.repeat(6)
            )
        );
        // An image of h by w tokens takes max(h, w) places: 2 and 3 in place of 2 and 6.
        assert_eq!(prompt.positions.len(), prompt.ids.len());
        assert_eq!(prompt.next as usize, prompt.ids.len() - 3);
        let swapped = ask(&[system, user.clone()], &[wide, small]).unwrap();
        assert!(swapped.ids != prompt.ids && swapped.ids.len() == prompt.ids.len());

        let error = ask(&[user], &[small]).unwrap_err().to_string();
        assert!(error.contains("images: expected 1, got 2"), "{error}");
        for token in RESERVED {
            let error = ask(&[Message::user(vec![text(&format!("x{token}y"))])], &[]).unwrap_err().to_string();
            assert!(error.contains(token), "{error}");
        }
    }

    #[test]
    fn a_conversation_that_can_not_fit_is_refused_before_it_is_spelled() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/nano");
        let config = crate::Config::from_dir(&dir).unwrap();
        // Spelling it would fail.
        let template = crate::answer::chat::Template::new("{{ 1 / 0 }}".to_owned(), Path::new("t")).unwrap();
        let plain = Tokenizer::from_dir(&dir, &config).unwrap();
        let tokenizer = plain.clone().with_template(Some(template));
        let turn = |words: &str| [Message::user(vec![Part::Text(words.to_owned()), Part::Image])];
        let ask = |tokenizer: &Tokenizer, words: &str, grid: Grid, tokens: usize| {
            let room = Room { tokens, gone: &|| false };
            chat_within(tokenizer, config.image_token_id, 2, &turn(words), &[grid], &room)
        };
        let (small, huge) = (Grid { height: 2, width: 4 }, Grid { height: 1 << 20, width: 1 << 20 });
        let long = "Where are we? ".repeat(500);
        for (words, grid) in [(long.as_str(), small), ("a", huge)] {
            let refused = ask(&tokenizer, words, grid, 40);
            assert!(matches!(refused, Err(Error::TooLong { most: 40, least: 41.. })), "{words}: {refused:?}");
        }
        // At its own number of tokens it is the prompt that it is without a limit, below that none.
        let whole = chat(&plain, config.image_token_id, 2, &turn("Where?"), &[small]).unwrap();
        assert_eq!(ask(&plain, "Where?", small, whole.ids.len()).unwrap(), whole);
        let refused = ask(&plain, "Where?", small, whole.ids.len() - 1);
        assert!(matches!(refused, Err(Error::TooLong { .. })), "{refused:?}");
    }

    #[test]
    fn a_template_in_qwens_format_asks_what_is_asked_without_one() {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/nano");
        let dir = tempfile::tempdir().unwrap();
        std::fs::copy(from.join("tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
        let config = crate::Config::from_dir(&from).unwrap();
        let k = Intrinsics::new(150.0, 150.0, 80.0, 48.0, 160, 96).unwrap();
        let grids = [Grid { height: 6, width: 10 }; WINDOW];
        let ask = || {
            let tokenizer = Tokenizer::from_dir(dir.path(), &config).unwrap();
            window(&tokenizer, config.image_token_id, 2, Mode::FullChain, &k, &grids).unwrap()
        };
        let plain = ask();
        let template = "<|im_start|>user\n{% for part in messages[0].content %}{% if part.type == 'image' %}\
                        <|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}{% endfor %}\
                        <|im_end|>\n<|im_start|>assistant\n";
        std::fs::write(dir.path().join("chat_template.jinja"), format!("{template}\n")).unwrap();
        assert_eq!(ask(), plain);
        // Another template asks otherwise, and the places follow.
        std::fs::write(dir.path().join("chat_template.jinja"), format!("user user {template}\n")).unwrap();
        let longer = ask();
        assert!(longer.ids.len() > plain.ids.len() && longer.next > plain.next);
    }
}
