//! Frames in, five poses out: the model as the node and the evaluation use it.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use geometry::{Intrinsics, WINDOW, WindowTrajectory};
use image::RgbImage;

use crate::answer::budget::{self, Budget};
use crate::answer::chain::{self, ParseError};
use crate::answer::chat::{Message, Template};
use crate::answer::decode::{Decoding, Ended, Prefilled, Sampling, Written, decode, decode_filled};
use crate::answer::fill::{Fill, Filler, Part};
use crate::answer::generation;
use crate::answer::grammar::Grammar;
use crate::answer::measured::Measured;
use crate::answer::prefix::{Prefix, Token};
use crate::answer::prompt::{self, Mode, Prompt};
use crate::answer::speculate::Drafted;
use crate::lora::Lora;
use crate::memory::cache_bytes;
use crate::nn::Kernels;
use crate::pose_head::{NotFinite, PoseHead, WindowPoses};
use crate::qwen3_vl::processor::Grid;
use crate::qwen3_vl::processor::{Patches, Processor};
use crate::qwen3_vl::text::KvCache;
use crate::qwen3_vl::{Embedded, Qwen3Vl};
use crate::tokenizer::{IM_START, IMAGE_PAD, Room, Tokenizer, VIDEO_PAD, VISION_END, VISION_START};
use crate::weights::gguf::Pair;
use crate::{Error, Result};

/// Tokens that are written to know how long one takes.
const PROBED: usize = 8;

/// A checkpoint with all that it needs to answer.
#[derive(Debug)]
pub struct EgoModel {
    model: Qwen3Vl,
    tokenizer: Tokenizer,
    processor: Processor,
    device: Device,
    /// Tokens that only a prompt may hold.
    banned: Vec<u32>,
    /// Tokens that end an answer.
    ends: [u32; 2],
    /// Of the full chain and of the answer alone, once asked for.
    grammars: [OnceLock<Arc<Grammar>>; 2],
    /// Tokens of their longest, likewise.
    needed: [OnceLock<usize>; 2],
    /// The last answer of each, likewise: what the next one is read ahead by.
    last: [Mutex<Arc<Vec<u32>>>; 2],
    /// What prompts begin with. None where the weights may change.
    prefix: Option<Prefix>,
}

/// One image as the decoder reads it.
#[derive(Debug, Clone)]
pub struct ImageEmbedding {
    tokens: Tensor,         // [n, d]
    deepstack: Vec<Tensor>, // [n, d] each
    grid: Grid,
}

/// One frame as the decoder reads it. Frames do not depend on their neighbours: overlapping windows share them.
#[derive(Debug, Clone)]
pub struct FrameEmbedding {
    image: ImageEmbedding,
    intrinsics: Intrinsics,
}

/// How to answer.
#[derive(Debug, Clone)]
pub struct AnswerOptions {
    /// How much reasoning to write.
    pub mode: Mode,
    /// After which an unfinished answer is given up.
    pub max_tokens: Budget,
    /// Set from outside to give up at the next token.
    pub stop: Option<Arc<AtomicBool>>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Whether only what follows the grammar of answers may be written.
    pub constrained: bool,
    /// What the program writes; where that is anything, answers follow their grammar.
    pub fill: Fill,
    /// What was measured of the window, for [`Fill::Measured`]; without it that is [`Fill::Arithmetic`].
    pub measured: Option<Arc<Measured>>,
    /// Whether likely tokens are read ahead ([`crate::answer::speculate`]) where the likeliest are taken.
    pub speculate: bool,
}

impl Default for AnswerOptions {
    fn default() -> Self {
        Self {
            mode: Mode::AnswerOnly,
            max_tokens: Budget::Auto,
            stop: None,
            sampling: Sampling::GREEDY,
            constrained: false,
            fill: Fill::None,
            measured: None,
            speculate: true,
        }
    }
}

/// What a longest answer takes on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Tokens that are read, images among them.
    pub prompt: usize,
    /// Tokens that are written: [`EgoModel::needed`].
    pub answer: usize,
    /// Time of the reading.
    pub reading: Duration,
    /// Time of a token that is written.
    pub token: Duration,
}

/// What the model wrote, and what it means.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The text as decoded.
    pub text: String,
    /// The final poses, where the text holds them.
    pub trajectory: Result<WindowTrajectory, ParseError>,
    /// The tokens of the text.
    pub ids: Vec<u32>,
    /// How many of them the program wrote.
    pub filled: usize,
    /// Where these are, as [`Written::runs`] has it.
    pub runs: Vec<Range<usize>>,
    /// The parts of a chain that it wrote, in order.
    pub by_program: Vec<Part>,
    /// Passes of the model behind the prompt.
    pub passes: usize,
    /// What was read ahead, and came true.
    pub drafted: Drafted,
    /// Tokens of the prompt that an earlier one had begun with, so that they were not read again.
    pub reused: usize,
    /// Why there are no more.
    pub ended: Ended,
    /// The token that ended it, where one did.
    pub end: Option<u32>,
}

impl EgoModel {
    /// Loads a checkpoint folder: config.json, model.safetensors, tokenizer.json, preprocessor_config.json or
    /// processor_config.json; or GGUF files.
    ///
    /// # Errors
    /// Any of them missing, broken, or in disagreement with another.
    pub fn load(dir: &Path, device: &Device) -> Result<Self> {
        Self::load_adapted(dir, None, device)
    }

    /// [`Self::load`] with a LoRA adapter folder beside the weights, merged into those that are not quantized.
    ///
    /// # Errors
    /// As [`Self::load`], and an adapter that does not fit.
    pub fn load_adapted(dir: &Path, adapter: Option<&Path>, device: &Device) -> Result<Self> {
        let dtype = if device.is_cpu() { DType::F32 } else { DType::BF16 };
        let mut model = Qwen3Vl::load(dir, Kernels::Fused, dtype, device)?;
        if let Some(adapter) = adapter {
            Lora::load(adapter, dtype, device)?.attach(&mut model)?;
            for linear in model.linears_mut() {
                if matches!(linear.matrix(), crate::nn::Matrix::Dense(_)) {
                    linear.merge()?;
                }
            }
        }
        // GGUF files may stand alone; JSON files beside them come first.
        let pair = Pair::find(dir)?;
        let lacks = |name: &str| !dir.join(name).is_file();
        let tokenizer = match &pair {
            Some(pair) if lacks("tokenizer.json") => {
                let template = match Template::from_dir(dir)? {
                    Some(template) => Some(template),
                    None => pair.template()?,
                };
                Tokenizer::checked(pair.tokenizer()?, dir, model.config())?.with_template(template)
            }
            _ => Tokenizer::from_dir(dir, model.config())?,
        };
        let vision = &model.config().vision_config;
        let processor = match (Processor::of_dir(dir, vision)?, &pair) {
            (Some(processor), _) => processor,
            (None, Some(pair)) => pair.processor()?,
            (None, None) => Processor::from_dir(dir, vision)?,
        };
        generation::check(dir, &tokenizer)?;
        let model = Self::new(model, tokenizer, processor, device)?;
        Ok(Self { prefix: Some(Prefix::default()), ..model })
    }

    /// From parts at hand. Their weights may change: each prompt is read from its first token on.
    ///
    /// # Errors
    /// A tensor operation's.
    pub fn new(model: Qwen3Vl, tokenizer: Tokenizer, processor: Processor, device: &Device) -> Result<Self> {
        let banned = [IMAGE_PAD, VIDEO_PAD, VISION_START, VISION_END, IM_START];
        // Rows of the embedding that stand for no token can't be read back either.
        let unused = (0..model.config().text_config.vocab_size as u32).filter(|id| tokenizer.token(*id).is_none());
        let banned = banned.iter().filter_map(|token| tokenizer.id(token)).chain(unused).collect();
        let (grammars, needed) = ([OnceLock::new(), OnceLock::new()], [OnceLock::new(), OnceLock::new()]);
        let ends = [tokenizer.end, tokenizer.pad];
        let (last, device) = (Default::default(), device.clone());
        Ok(Self { model, tokenizer, processor, device, banned, ends, grammars, needed, last, prefix: None })
    }

    /// Resizes and cuts a frame.
    ///
    /// # Errors
    /// Intrinsics of another size than the image's, an image that can't be resized.
    pub fn preprocess(&self, image: &RgbImage, intrinsics: &Intrinsics) -> Result<Patches> {
        self.processor.patches(image, intrinsics, &self.device)
    }

    /// Runs the vision tower on one frame.
    ///
    /// # Errors
    /// Patches of another shape than the tower's.
    pub fn encode(&self, patches: &Patches) -> Result<FrameEmbedding> {
        let image = self.see(&patches.values, patches.grid)?;
        Ok(FrameEmbedding { image, intrinsics: patches.intrinsics })
    }

    /// Resizes and cuts an image whose camera nobody knows, and runs the vision tower on it.
    ///
    /// # Errors
    /// An image that can't be resized.
    pub fn encode_image(&self, image: &RgbImage) -> Result<ImageEmbedding> {
        let (values, grid) = self.processor.image_patches(image, &self.device)?;
        self.see(&values, grid)
    }

    fn see(&self, patches: &Tensor, grid: Grid) -> Result<ImageEmbedding> {
        let output = self.model.visual().forward(&patches.to_dtype(self.model.dtype())?.unsqueeze(0)?, grid)?;
        Ok(ImageEmbedding {
            tokens: output.tokens.squeeze(0)?,
            deepstack: output.deepstack.iter().map(|d| d.squeeze(0)).collect::<candle_core::Result<_>>()?,
            grid,
        })
    }

    /// The grammar of a mode's answers for this tokenizer; compiled when first asked for.
    ///
    /// # Errors
    /// A tokenizer that can't spell it.
    pub fn grammar(&self, mode: Mode) -> Result<Arc<Grammar>> {
        let slot = &self.grammars[usize::from(mode == Mode::AnswerOnly)];
        if let Some(grammar) = slot.get() {
            return Ok(grammar.clone());
        }
        let size = self.model.config().text_config.vocab_size;
        let grammar = Arc::new(Grammar::new(&self.tokenizer, size, mode)?);
        Ok(slot.get_or_init(|| grammar).clone())
    }

    /// Tokens that the longest answer of a mode takes.
    ///
    /// # Errors
    /// A tokenizer that can't spell it.
    pub fn needed(&self, mode: Mode) -> Result<usize> {
        let slot = &self.needed[usize::from(mode == Mode::AnswerOnly)];
        if let Some(needed) = slot.get() {
            return Ok(*needed);
        }
        let needed = budget::needed(&self.tokenizer, mode)?;
        Ok(*slot.get_or_init(|| needed))
    }

    /// What a budget is in tokens, for answers of a mode. Whoever is given one asks at the start: an answer that is cut off has
    /// no poses.
    ///
    /// # Errors
    /// [`Error::Input`] where it is less than the mode needs, with both numbers.
    pub fn budget(&self, budget: Budget, mode: Mode) -> Result<usize> {
        budget.tokens(self.needed(mode)?, mode)
    }

    /// Answers for a window of five frames.
    ///
    /// # Errors
    /// Another number of frames, frames of different cameras, or a prompt longer than the model's context. An answer
    /// that makes no sense is not an error.
    pub fn answer(&self, frames: &[&FrameEmbedding], options: &AnswerOptions) -> Result<Answer> {
        let mut answers = self.answers(frames, options, 1)?;
        answers.pop().ok_or_else(|| Error::Input { what: "answers", expected: "1".to_owned(), got: "0".to_owned() })
    }

    /// `n` answers for one window; they share the prompt's cache. Greedy ones are all the same.
    ///
    /// # Errors
    /// As [`Self::answer`].
    pub fn answers(&self, frames: &[&FrameEmbedding], options: &AnswerOptions, n: usize) -> Result<Vec<Answer>> {
        let (prompt, images) = self.question(frames, options.mode)?;
        // One that is too short for the mode was the caller's choice.
        let max_tokens = match options.max_tokens {
            Budget::Auto => self.needed(options.mode)?,
            Budget::Tokens(tokens) => tokens,
        };
        let context = self.model.config().text_config.max_position_embeddings;
        let max_tokens = max_tokens.min(context.saturating_sub(prompt.ids.len()));
        let grammar = if options.constrained { Some(self.grammar(options.mode)?) } else { None };
        let last = &self.last[usize::from(options.mode == Mode::AnswerOnly)];
        let earlier = options.speculate.then(|| last.lock().unwrap_or_else(PoisonError::into_inner).clone());
        let decoding = Decoding {
            grammar: grammar.as_deref(),
            stop: options.stop.as_ref(),
            earlier: earlier.as_ref().map(|ids| ids.as_slice()),
            ..self.decoding(max_tokens, options.sampling)
        };
        let prefilled = self.prefill(&prompt, &images, max_tokens)?;
        let reused = prefilled.reused;
        let written = match (options.fill, frames.first()) {
            (Fill::Arithmetic | Fill::Measured, Some(first)) => {
                let grammar = self.grammar(options.mode)?;
                let measured = options.measured.as_deref().filter(|_| options.fill == Fill::Measured);
                let filler = Filler::new(&grammar, &self.tokenizer, first.intrinsics, measured);
                decode_filled(&self.model, prefilled, n, &decoding, &filler)?
            }
            _ => decode(&self.model, prefilled, n, &decoding)?,
        };
        if let [Written { ids, ended: Ended::Stop | Ended::Length, .. }] = written.as_slice() {
            *last.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(ids.clone());
        }
        written
            .into_iter()
            .map(|written| {
                let text = self.tokenizer.decode(&written.ids)?;
                let trajectory = chain::parse_poses(&text);
                let Written { ids, filled, runs, by_program, passes, drafted, ended, end } = written;
                Ok(Answer { text, trajectory, ids, filled, runs, by_program, passes, drafted, reused, ended, end })
            })
            .collect()
    }

    /// What a longest answer for a window takes, by reading it and writing a few tokens.
    ///
    /// # Errors
    /// As [`Self::answer`].
    pub fn cost(&self, frames: &[&FrameEmbedding], mode: Mode) -> Result<Cost> {
        let (prompt, images) = self.question(frames, mode)?;
        let begun = Instant::now();
        let prefilled = self.read(&prompt, &images, self.model.cache(prompt.ids.len() + PROBED))?;
        let reading = begun.elapsed();
        let begun = Instant::now();
        // Whatever it says, it goes on.
        let decoding = Decoding { ends: &[], ..self.decoding(PROBED, Sampling::GREEDY) };
        let written = decode(&self.model, prefilled, 1, &decoding)?.first().map_or(0, |written| written.ids.len());
        let token = begun.elapsed() / u32::try_from(written.max(1)).unwrap_or(u32::MAX);
        Ok(Cost { prompt: prompt.ids.len(), answer: self.needed(mode)?, reading, token })
    }

    /// Poses of a window of five frames by its pose head: one pass, nothing is written.
    ///
    /// # Errors
    /// As [`Self::answer`], and a head of a model of another width. Heads whose outputs are no numbers are not an error:
    /// they state no poses, and that is the inner result.
    pub fn poses(&self, head: &PoseHead, frames: &[&FrameEmbedding]) -> Result<Result<WindowPoses, NotFinite>> {
        let (prompt, images) = self.question(frames, Mode::AnswerOnly)?;
        head.ask(&self.model, &prompt, &self.embedded(&prompt, &images)?)
    }

    /// What is asked about the frames of a window, and their images.
    ///
    /// # Errors
    /// Another number of frames, or frames of different cameras.
    pub fn question<'a>(&self, frames: &[&'a FrameEmbedding], mode: Mode) -> Result<(Prompt, Vec<&'a ImageEmbedding>)> {
        let Some(first) = frames.first() else {
            return Err(Error::Input { what: "frames", expected: WINDOW.to_string(), got: "0".to_owned() });
        };
        if frames.iter().any(|f| f.intrinsics != first.intrinsics) {
            return Err(Error::Input {
                what: "frames",
                expected: "one camera and one size".to_owned(),
                got: "several".to_owned(),
            });
        }
        let config = self.model.config();
        let images: Vec<&ImageEmbedding> = frames.iter().map(|f| &f.image).collect();
        let grids: Vec<Grid> = images.iter().map(|image| image.grid).collect();
        let merge = config.vision_config.spatial_merge_size;
        let prompt = prompt::window(&self.tokenizer, config.image_token_id, merge, mode, &first.intrinsics, &grids)?;
        Ok((prompt, images))
    }

    /// The tokens of a conversation; `sizes` (width, height) in pixels are those of its images, in order.
    ///
    /// # Errors
    /// A size that can't be resized, and as [`prompt::chat`].
    pub fn prompt(&self, messages: &[Message], sizes: &[(u32, u32)]) -> Result<Prompt> {
        self.prompt_within(messages, sizes, &Room { tokens: usize::MAX, gone: &|| false })
    }

    /// [`Self::prompt`] of a conversation that may be too long.
    ///
    /// # Errors
    /// As [`Self::prompt`] and [`prompt::chat_within`].
    pub fn prompt_within(&self, messages: &[Message], sizes: &[(u32, u32)], room: &Room<'_>) -> Result<Prompt> {
        let grids =
            sizes.iter().map(|(width, height)| self.processor.grid(*width, *height)).collect::<Result<Vec<_>>>()?;
        let config = self.model.config();
        let merge = config.vision_config.spatial_merge_size;
        prompt::chat_within(&self.tokenizer, config.image_token_id, merge, messages, &grids, room)
    }

    /// Reads a prompt with its images; `max_tokens` may follow. What it begins with is not read again where the last prompt began so
    /// too ([`Prefilled::reused`]).
    ///
    /// # Errors
    /// Other images than the prompt's, or a prompt longer than the model's context.
    pub fn prefill(&self, prompt: &Prompt, images: &[&ImageEmbedding], max_tokens: usize) -> Result<Prefilled> {
        let mut cache = self.model.cache(prompt.ids.len() + max_tokens);
        let Some(prefix) = &self.prefix else { return self.read(prompt, images, cache) };
        let image = self.model.config().image_token_id;
        let mut parts = images.iter().flat_map(|image| std::iter::repeat_n(image.tokens.id(), image.tokens.dims()[0]));
        let tokens = prompt.ids.iter().zip(&prompt.positions).map(|(&id, &place)| {
            let image = if id == image { parts.next() } else { None };
            Token { id, place, image }
        });
        let tokens: Vec<Token> = tokens.collect();
        prefix.begin(&tokens, &mut cache)?;
        let prefilled = self.read(prompt, images, cache)?;
        let token_bytes = cache_bytes(self.model.config(), 1, self.model.dtype().size_in_bytes());
        prefix.keep(tokens, &prefilled.cache, token_bytes)?;
        Ok(prefilled)
    }

    /// Reads what of a prompt a cache does not hold yet.
    fn read(&self, prompt: &Prompt, images: &[&ImageEmbedding], mut cache: KvCache) -> Result<Prefilled> {
        let reused = cache.tokens();
        let embedded = self.embedded(prompt, images)?.behind(reused)?;
        let hidden = self.model.decode(&embedded, &prompt.positions[reused..], Some(&mut cache))?;
        Ok(Prefilled { hidden, cache, next: prompt.next, reused })
    }

    /// A prompt with its images in place.
    fn embedded(&self, prompt: &Prompt, images: &[&ImageEmbedding]) -> Result<Embedded> {
        Ok(match images.first() {
            Some(first) => {
                let tokens = Tensor::cat(&images.iter().map(|image| &image.tokens).collect::<Vec<_>>(), 0)?;
                let deepstack = (0..first.deepstack.len())
                    .map(|k| Tensor::cat(&images.iter().map(|image| &image.deepstack[k]).collect::<Vec<_>>(), 0))
                    .collect::<candle_core::Result<Vec<_>>>()?;
                self.model.embed_batch(&prompt.ids, 1, &tokens, &deepstack)?
            }
            None => {
                let ids = Tensor::new(prompt.ids.as_slice(), &self.device)?;
                Embedded { embeddings: self.model.embed(&ids)?.unsqueeze(0)?, deepstack: Vec::new() }
            }
        })
    }

    /// How to go on behind a prompt: no token that only a prompt may hold, up to the end of the turn.
    pub fn decoding(&self, max_tokens: usize, sampling: Sampling) -> Decoding<'_> {
        let (banned, ends) = (self.banned.as_slice(), self.ends.as_slice());
        Decoding { max_tokens, sampling, grammar: None, banned, ends, stop: None, earlier: None, script: None }
    }

    /// The network.
    pub fn network(&self) -> &Qwen3Vl {
        &self.model
    }

    /// Ids that are never written: tokens that only a prompt may hold, and rows of the embedding that stand for none.
    pub fn banned(&self) -> &[u32] {
        &self.banned
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The image processor.
    pub fn processor(&self) -> &Processor {
        &self.processor
    }
}

/// The device of a config value or of the option `--device`: `cpu`, `cuda` or `cuda:N`. Threads that share one GPU share one
/// stream of it.
///
/// # Errors
/// Another name, or a GPU that this build or this machine has not.
pub fn device(name: &str) -> Result<Device> {
    let refuse = |expected: &str, got: String| Error::Input { what: "device", expected: expected.to_owned(), got };
    let ordinal = match name {
        "cpu" => return Ok(Device::Cpu),
        "cuda" => Some(0),
        other => other.strip_prefix("cuda:").and_then(|n| n.parse().ok()),
    };
    let Some(ordinal) = ordinal else { return Err(refuse("cpu, cuda or cuda:N", name.to_owned())) };
    if !candle_core::utils::cuda_is_available() {
        return Err(refuse("cpu, since this binary is built without the feature cuda", name.to_owned()));
    }
    gpu(ordinal).map_err(|error| refuse("a GPU that the driver has", format!("{name} ({error})")))
}

/// candle's `new_cuda` gives each thread a stream of its own, and has one scratch buffer for quantized products: of two threads
/// with one model, each would overwrite what the other has not read yet.
fn gpu(ordinal: usize) -> candle_core::Result<Device> {
    let device = Device::new_cuda_with_stream(ordinal)?;
    #[cfg(feature = "cuda")]
    // SAFETY: this stream is the only one that tensors of this device are made, used and freed on, so its order is enough;
    // else two events would be recorded for each argument of each kernel.
    #[expect(unsafe_code, reason = "candle leaves the order of streams to us")]
    unsafe {
        device.as_cuda_device()?.disable_event_tracking();
    }
    Ok(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_none_is_refused_by_name() {
        assert!(device("cpu").unwrap().is_cpu());
        for name in ["", "gpu", "CPU", "cuda:", "cuda:one", "cuda:-1", "cpu:0"] {
            let error = device(name).unwrap_err().to_string();
            assert_eq!(error, format!("device: expected cpu, cuda or cuda:N, got {name}"));
        }
        // Where there is a GPU, none has so many beside it.
        let names: &[&str] = if cfg!(feature = "cuda") { &["cuda:999"] } else { &["cuda", "cuda:0", "cuda:999"] };
        let expected =
            if cfg!(feature = "cuda") { "a GPU that the driver has" } else { "built without the feature cuda" };
        for name in names {
            let error = device(name).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains(&format!("got {name}")), "{error}");
        }
    }
}
