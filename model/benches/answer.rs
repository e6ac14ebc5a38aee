//! Times of a frame, of a prompt, of a token behind it, and of the grammar's part of a token.
#![expect(clippy::unwrap_used, reason = "a bench that cannot be set up has nothing to measure")]

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use criterion::{Criterion, criterion_group, criterion_main};
use geometry::{Intrinsics, WindowTrajectory};
use image::{Rgb, RgbImage};
use model::answer::chain;
use model::answer::decode::{Decoding, Prefilled, Sampling, decode};
use model::answer::grammar::{Grammar, Place};
use model::nn::Kernels;
use model::qwen3_vl::Embedded;
use model::weights::{parameters, published};
use model::{EgoModel, Mode, Qwen3Vl};

/// Tokens of a prompt.
const PROMPT: usize = 256;

fn nano() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/nano")
}

/// Ids that stand for no image.
fn words() -> Vec<u32> {
    (0..PROMPT as u32).map(|i| 8 + i * 7 % 400).collect()
}

/// Reads a prompt of words.
fn read(model: &Qwen3Vl, behind: usize) -> Prefilled {
    let places: Vec<[u32; 3]> = (0..PROMPT as u32).map(|i| [i; 3]).collect();
    let embeddings = model.embed(&Tensor::new(words(), model.device()).unwrap()).unwrap().unsqueeze(0).unwrap();
    let mut cache = model.cache(PROMPT + behind);
    let embedded = Embedded { embeddings, deepstack: Vec::new() };
    let hidden = model.decode(&embedded, &places, Some(&mut cache)).unwrap();
    Prefilled { hidden, cache, next: PROMPT as u32, reused: 0 }
}

/// One layer of a 2B and one block of its tower, with random numbers in 32 bits and a small vocabulary.
fn layer_of_2b() -> Qwen3Vl {
    let mut config = published("2b").unwrap();
    (config.text_config.num_hidden_layers, config.text_config.vocab_size) = (1, 512);
    config.vision_config.depth = 1;
    config.vision_config.deepstack_visual_indexes.clear();
    let random = |dims: Vec<usize>| Tensor::rand(-0.03f32, 0.03, dims, &Device::Cpu).unwrap();
    let tensors = parameters(&config).into_iter().map(|(name, dims)| (name, random(dims))).collect();
    Qwen3Vl::new(&config, Kernels::Fused, VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu)).unwrap()
}

fn vision(criterion: &mut Criterion, ego: &EgoModel) {
    for (width, height) in [(160, 96), (640, 480)] {
        let image = RgbImage::from_fn(width, height, |x, y| Rgb([(x / 3) as u8, (y / 2) as u8, (x * y / 997) as u8]));
        let (fx, cx, cy) = (f64::from(width), f64::from(width) / 2.0, f64::from(height) / 2.0);
        let intrinsics = Intrinsics::new(fx, fx, cx, cy, width, height).unwrap();
        criterion.bench_function(&format!("vision/nano, {width}x{height}: resized and cut"), |b| {
            b.iter(|| ego.preprocess(black_box(&image), &intrinsics).unwrap());
        });
        let patches = ego.preprocess(&image, &intrinsics).unwrap();
        criterion.bench_function(&format!("vision/nano, {width}x{height}: encoded"), |b| {
            b.iter(|| ego.encode(black_box(&patches)).unwrap());
        });
    }
}

fn prefill(criterion: &mut Criterion, nano: &Qwen3Vl, layer: &Qwen3Vl) {
    for (name, model) in [("nano", nano), ("one layer of a 2B, f32", layer)] {
        criterion.bench_function(&format!("prefill/{name}, {PROMPT} tokens"), |b| b.iter(|| read(black_box(model), 0)));
    }
}

/// Time of a token that is written, prompts left out.
fn written(model: &Qwen3Vl, decoding: &Decoding<'_>, count: u64) -> Duration {
    let mut total = Duration::ZERO;
    for _ in 0..count {
        let prompt = read(model, decoding.max_tokens);
        let begin = Instant::now();
        let answers = decode(model, prompt, 1, decoding).unwrap();
        total += begin.elapsed() / answers[0].ids.len() as u32;
    }
    total
}

fn token(criterion: &mut Criterion, ego: &EgoModel, layer: &Qwen3Vl) {
    let free = Decoding { banned: &[], ends: &[], ..ego.decoding(16, Sampling::GREEDY) };
    for (name, model) in [("nano", ego.network()), ("one layer of a 2B, f32", layer)] {
        criterion.bench_function(&format!("decode/{name}, a token, all rows of the head"), |b| {
            b.iter_custom(|count| written(model, &free, count));
        });
    }
    // The beginning of an answer.
    let grammar = ego.grammar(Mode::AnswerOnly).unwrap();
    let script = ego.tokenizer().encode(&chain::write_poses(&WindowTrajectory::identity())).unwrap();
    let bound = Decoding { grammar: Some(&grammar), script: Some(&script[..16]), ..free };
    criterion.bench_function("decode/nano, a token, the rows that the grammar allows", |b| {
        b.iter_custom(|count| written(ego.network(), &bound, count));
    });
}

/// Every place of a text.
fn places(grammar: &Grammar, ids: &[u32]) -> Vec<(Place, u32)> {
    let mut place = grammar.start();
    let step = |id: &u32| {
        let next = grammar.advance(&place, *id);
        (std::mem::replace(&mut place, next), *id)
    };
    ids.iter().map(step).collect()
}

fn grammar(criterion: &mut Criterion, ego: &EgoModel) {
    let (tokenizer, vocabulary) = (ego.tokenizer(), ego.network().config().text_config.vocab_size);
    criterion.bench_function("grammar/compiled, full chain", |b| {
        b.iter(|| Grammar::new(tokenizer, vocabulary, Mode::FullChain).unwrap());
    });
    // A chain of the longest form, which meets each kind of place. What may follow in a state is remembered, so that this is what a
    // token costs in all answers but the first.
    let ids = tokenizer.encode(&model::answer::budget::longest(Mode::FullChain)).unwrap();
    let grammar = Grammar::new(tokenizer, vocabulary, Mode::FullChain).unwrap();
    let walk = places(&grammar, &ids);
    criterion.bench_function("grammar/allowed over a chain", |b| {
        b.iter(|| walk.iter().map(|(place, _)| grammar.allowed(black_box(place)).len()).sum::<usize>());
    });
    criterion.bench_function("grammar/advance over a chain", |b| {
        b.iter(|| walk.iter().for_each(|(place, id)| drop(black_box(grammar.advance(place, *id)))));
    });
}

fn benches(criterion: &mut Criterion) {
    let ego = EgoModel::load(&nano(), &Device::Cpu).unwrap();
    let layer = layer_of_2b();
    vision(criterion, &ego);
    prefill(criterion, ego.network(), &layer);
    token(criterion, &ego, &layer);
    grammar(criterion, &ego);
}

criterion_group! {
    name = all;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    targets = benches
}
criterion_main!(all);
