//! What a full chain costs where the model writes all of it, and where the program fills in what it knows: one true chain of a
//! rendered window, written token for token by the node's own decoding, so that the text is the same both times.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device};
use geometry::Intrinsics;
use model::answer::chain;
use model::answer::decode::{Decoding, Ended, Sampling, Written, decode, decode_filled};
use model::answer::fill::{Fill, Filler};
use model::answer::grammar::Grammar;
use model::answer::measured::Measured;
use model::answer::speculate::Drafted;
use model::nn::Kernels;
use model::tokenizer::Tokenizer;
use model::{EgoModel, FrameEmbedding, Mode, Processor, Qwen3Vl};
use nalgebra::Point2;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use training_data::chains::write::on_grid;
use training_data::chains::{self, DepthMap};
use training_data::{WindowSample, parse_source};

use super::model::weights;
use super::{decimals, median, peak_mib, rounded};

/// What to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct Chain {
    /// nano, 2b, 4b or 8b; all but nano with random weights, under target/bench.
    #[arg(long)]
    pub shape: String,
    /// As for model.
    #[arg(long)]
    pub quant: Option<String>,
    /// arithmetic or measured.
    #[arg(long, default_value = "measured")]
    pub fill: Fill,
    /// Windows with depth, of which the first that gives a chain is taken; without it rendered ones, of 160x96 pixels for nano and
    /// 640x480 for others.
    #[arg(long)]
    pub data: Option<String>,
    /// tokenizer.json for random weights, which have none of their own. The default's splits numbers as Qwen's does.
    #[arg(long, default_value = "tests/fixtures/qwen3vl/converted/tokenizer.json")]
    pub tokenizer: PathBuf,
    /// Reads ahead from the chain of the window before, whose prose is drawn alike: for --data with a window for each frame of a film.
    #[arg(long)]
    pub speculate: bool,
    /// How often each way is timed, in turn; medians are told.
    #[arg(long, default_value_t = 1)]
    pub runs: usize,
    #[arg(long, default_value_t = 2)]
    pub threads: usize,
}

/// A window and its true chain on the grid that the model sees.
struct Window {
    sample: WindowSample,
    camera: Intrinsics,
    text: String,
    /// What tracks would measure if they made no errors: then the program writes what the chain has.
    measured: Measured,
}

impl Window {
    /// The first of a source that gives a chain and moves, and the window before it where that is to give one too.
    fn first(data: &str, processor: &Processor, with_earlier: bool) -> Result<(Option<Self>, Self)> {
        let windows = parse_source(data)?;
        let mut earlier = None;
        for index in 0..windows.len() {
            let Some(window) = Self::of(windows.sample(index)?, processor)? else {
                earlier = None;
                continue;
            };
            if !with_earlier || earlier.is_some() {
                return Ok((earlier, window));
            }
            earlier = Some(window);
        }
        anyhow::bail!("--data: {data}: no window gives a chain")
    }

    fn of(sample: WindowSample, processor: &Processor) -> Result<Option<Self>> {
        let Some(depth) = &sample.depth else { return Ok(None) };
        let (_, camera) = processor.resized(&sample.images[0], &sample.intrinsics)?;
        let depth = on_grid(depth, &sample.intrinsics, &camera);
        let maps = DepthMap::window(&depth, camera.width, sample.metric);
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let Ok(made) = chains::chain(&sample.ground_truth, &camera, &maps, &mut rng) else { return Ok(None) };
        let place = |pixel: Point2<f64>| camera.back_project(&pixel, 1.0).xy();
        let measured = Measured {
            places: made.tracks.each_ref().map(|track| track.pixels.map(place)),
            depths: made.tracks.each_ref().map(|track| track.depths),
            trajectory: made.trajectory,
        };
        let is_scaled = measured.scaled(&measured.depths).is_some();
        Ok(is_scaled.then(|| Self { camera, text: chain::write(&made), measured, sample }))
    }
}

/// The model with a tokenizer: its own, or for random weights another's.
fn open(options: &Chain) -> Result<EgoModel> {
    let dir = weights(&options.shape, options.quant.as_deref())?;
    let device = Device::Cpu;
    if options.shape == "nano" {
        return Ok(EgoModel::load(&dir, &device)?);
    }
    let network = Qwen3Vl::load(&dir, Kernels::Fused, DType::F32, &device)?;
    let processor = Processor::from_dir(&dir, &network.config().vision_config)?;
    Ok(EgoModel::new(network, Tokenizer::from_file(&options.tokenizer)?, processor, &device)?)
}

/// Walks through the grammar once: it remembers what may follow each of its states, and the first to ask would pay for it.
fn warm(grammar: &Grammar, ids: &[u32]) {
    let mut place = grammar.start();
    for id in ids {
        grammar.allowed(&place);
        place = grammar.advance(&place, *id);
    }
}

/// Writes the text once by the model alone and once with what the program fills in, as often as asked for, in turn.
///
/// # Errors
/// Weights or a tokenizer that are missing or broken, a source without a chain, and a text that the program fills in
/// otherwise than it is.
pub fn chain(options: &Chain) -> Result<Value> {
    ensure!(options.fill != Fill::None, "--fill: expected arithmetic or measured, got none");
    ensure!(options.runs > 0, "--runs: expected at least 1, got 0");
    let ego = open(options)?;
    let size = if options.shape == "nano" { "160x96" } else { "640x480" };
    let data = options.data.clone().unwrap_or_else(|| format!("synth:seed=1,windows=20,size={size}"));
    let (earlier, window) = Window::first(&data, ego.processor(), options.speculate)?;
    let Window { sample, camera, text, measured } = window;
    let mut encoding = Vec::new();
    let mut frames = Vec::new();
    for image in &sample.images {
        let begin = Instant::now();
        frames.push(ego.encode(&ego.preprocess(image, &sample.intrinsics)?)?);
        encoding.push(begin.elapsed().as_secs_f64());
    }
    let frames: Vec<&FrameEmbedding> = frames.iter().collect();
    let (prompt, images) = ego.question(&frames, Mode::FullChain)?;
    let tokenizer = ego.tokenizer();
    let ids = tokenizer.encode(&text)?;
    let earlier = earlier.map(|window| tokenizer.encode(&window.text)).transpose()?;
    let script = [ids.as_slice(), &[tokenizer.end]].concat();
    let grammar = ego.grammar(Mode::FullChain)?;
    warm(&grammar, &ids);
    let known = (options.fill == Fill::Measured).then_some(&measured);
    let filler = Filler::new(&grammar, tokenizer, camera, known);
    // Of random weights nearly all rows of the embedding stand for no token; to ban each of them at each token would be another cost
    // than that of weights with their own tokenizer.
    let decoding = Decoding {
        grammar: Some(&grammar),
        script: Some(&script),
        banned: &[],
        ..ego.decoding(script.len(), Sampling::GREEDY)
    };
    let mut reading = Vec::new();
    let mut timed = |filler: Option<&Filler<'_>>| -> Result<(Written, f64)> {
        let begin = Instant::now();
        let prefilled = ego.prefill(&prompt, &images, script.len())?;
        reading.push(begin.elapsed().as_secs_f64());
        let begin = Instant::now();
        let written = match filler {
            Some(filler) => {
                let decoding = Decoding { earlier: earlier.as_deref(), ..decoding };
                decode_filled(ego.network(), prefilled, 1, &decoding, filler)?
            }
            None => decode(ego.network(), prefilled, 1, &decoding)?,
        };
        let seconds = begin.elapsed().as_secs_f64();
        let written = written.into_iter().next().context("one answer was asked for")?;
        let is_same = written.ids == ids && written.ended == Ended::Stop;
        ensure!(is_same, "the program fills in another text: {}", tokenizer.decode(&written.ids)?);
        Ok((written, seconds))
    };
    // candle lays some weights out anew when it first meets a prompt.
    ego.prefill(&prompt, &images, 0)?;
    let (mut plain_s, mut filled_s) = (Vec::new(), Vec::new());
    let (mut passes, mut filled, mut drafted) = ([0; 2], 0, Drafted::default());
    for _ in 0..options.runs {
        let (plain, seconds) = timed(None)?;
        plain_s.push(seconds);
        let (by_both, seconds) = timed(Some(&filler))?;
        filled_s.push(seconds);
        (passes, filled, drafted) = ([plain.passes, by_both.passes], by_both.filled, by_both.drafted);
    }
    let [encode_s, prefill_s, plain_s, filled_s] = [encoding, reading, plain_s, filled_s].map(median);
    let ratio = |beside: f64| decimals((plain_s + beside) / (filled_s + beside), 2);
    let own = options.shape == "nano";
    Ok(json!({
        "shape": options.shape, "quant": options.quant, "threads": options.threads, "device": "cpu", "runs": options.runs,
        "tokenizer": if own { "its own".to_owned() } else { options.tokenizer.display().to_string() },
        "data": data, "window": sample.id, "fill": options.fill.name(),
        "prompt_tokens": prompt.ids.len(), "tokens": ids.len(), "left_to_the_model": ids.len() - filled,
        "encode_frame_s": decimals(encode_s, 3), "prefill_s": decimals(prefill_s, 3),
        "plain": {"passes": passes[0], "s": decimals(plain_s, 3)},
        "filled": {"passes": passes[1], "s": decimals(filled_s, 3), "drafted": drafted.tokens, "accepted": drafted.accepted},
        "ratio": {
            "writing": ratio(0.0), "with_prefill": ratio(prefill_s), "with_prefill_and_a_frame": ratio(prefill_s + encode_s),
        },
        "peak_mib": rounded(peak_mib()?),
    }))
}

#[cfg(test)]
mod tests {
    use model::answer::fill::Draft;

    use super::*;

    /// Both ways, on the shipped weights: the same text, of which little is left to the model.
    #[test]
    fn a_true_chain_is_the_same_text_with_most_of_it_filled_in() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let ego = EgoModel::load(&root.join("model/weights/nano"), &Device::Cpu).unwrap();
        let (_, Window { camera, text, measured, .. }) =
            Window::first("synth:seed=1,windows=20,size=160x96", ego.processor(), false).unwrap();
        assert_eq!(chain::parse(&text).steps(), [true; 5]);
        let other = Tokenizer::from_file(&root.join("tests/fixtures/qwen3vl/converted/tokenizer.json")).unwrap();
        for tokenizer in [ego.tokenizer(), &other] {
            let grammar = Grammar::new(tokenizer, 1 << 16, Mode::FullChain).unwrap();
            let filler = Filler::new(&grammar, tokenizer, camera, Some(&measured));
            let ids = tokenizer.encode(&text).unwrap();
            let (mut draft, mut at, mut left) = (Draft::new(&grammar), 0, 0);
            while at < ids.len() {
                let run = filler.next(&draft).unwrap().ids;
                assert!(ids[at..].starts_with(&run), "{:?}", tokenizer.decode(&run));
                left += usize::from(run.is_empty());
                let next = at + run.len().max(1);
                ids[at..next].iter().for_each(|id| draft.push(&grammar, *id));
                at = next;
            }
            assert!(2 * left < ids.len(), "{left} of {}", ids.len());
        }
    }
}
