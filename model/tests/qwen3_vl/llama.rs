//! GGUF files of every type, wide enough for K-quants, with what this implementation makes of them: here they are
//! compared with each other, and `tests/fixtures/qwen3vl/check_gguf.py` compares llama.cpp with them.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use model::nn::Kernels;
use model::qwen3_vl::Embedded;
use model::weights::gguf::{Header, Recipe, write};
use model::weights::{parameters, write_config};
use model::{Config, Processor, Qwen3Vl};

use crate::reference::{difference, fixtures};
use crate::shapes::weight;

const PROMPT: usize = 40;
const GREEDY: usize = 16;

/// The tiny checkpoint's config, widened to whole K-quant blocks.
fn config() -> Config {
    let mut config = Config::from_dir(&fixtures().join("tiny")).unwrap();
    let text = &mut config.text_config;
    text.hidden_size = 256;
    text.intermediate_size = 512;
    text.num_attention_heads = 8;
    text.num_key_value_heads = 4;
    text.head_dim = 32;
    text.num_hidden_layers = 4;
    text.rope_scaling.iter_mut().chain(&mut text.rope_parameters).for_each(|rope| rope.mrope_section = [8, 4, 4]);
    config.vision_config.out_hidden_size = 256;
    config.vision_config.hidden_size = 64;
    config.check().unwrap();
    config
}

fn folder(recipe: Recipe) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("gguf_for_llama").join(recipe.to_string())
}

fn written(recipe: Recipe) -> Qwen3Vl {
    let (config, dir) = (config(), folder(recipe));
    std::fs::create_dir_all(&dir).unwrap();
    let processor = Processor::with_pixel_limits(1024, 1 << 20);
    let header = Header { config: &config, processor: &processor, vocabulary: vec![], identity: None };
    write(header, recipe, &dir, &mut |name, dims| Ok(weight(name, dims))).unwrap();
    write_config(&config, &processor, &dir).unwrap();
    Qwen3Vl::load(&dir, Kernels::Fused, DType::F32, &Device::Cpu).unwrap()
}

fn ids() -> Vec<u32> {
    (0..PROMPT as u32).map(|i| 3 + i * 37 % 480).collect()
}

/// Logits `[PROMPT, vocab]` of the prompt, and the likeliest tokens behind it.
fn run(model: &Qwen3Vl) -> (Tensor, Vec<u32>) {
    let mut cache = model.cache(PROMPT + GREEDY);
    let mut step = |ids: &[u32], first: usize| {
        let embeddings = model.embed(&Tensor::new(ids, &Device::Cpu).unwrap()).unwrap().unsqueeze(0).unwrap();
        let places: Vec<[u32; 3]> = (0..ids.len()).map(|i| [(first + i) as u32; 3]).collect();
        let hidden = model.decode(&Embedded { embeddings, deepstack: Vec::new() }, &places, Some(&mut cache)).unwrap();
        model.logits(&hidden).unwrap().squeeze(0).unwrap()
    };
    let likeliest = |logits: &Tensor| {
        let last = logits.narrow(0, logits.dim(0).unwrap() - 1, 1).unwrap().flatten_all().unwrap();
        last.argmax(0).unwrap().to_scalar::<u32>().unwrap()
    };
    let prompt = step(&ids(), 0);
    let mut greedy = vec![likeliest(&prompt)];
    while greedy.len() < GREEDY {
        let logits = step(&greedy[greedy.len() - 1..], PROMPT + greedy.len() - 1);
        greedy.push(likeliest(&logits));
    }
    (prompt, greedy)
}

#[test]
fn every_type_is_as_close_to_the_whole_numbers_as_its_bits_allow() {
    let (exact, greedy) = run(&written(Recipe::F32));
    let mut before = 0.0;
    for (recipe, most) in [
        (Recipe::F32, 1e-6),
        (Recipe::F16, 5e-3),
        (Recipe::Q8_0, 0.05),
        (Recipe::Q6K, 0.12),
        (Recipe::Q5KM, 0.25),
        (Recipe::Q4KM, 0.5),
    ] {
        let (logits, tokens) = run(&written(recipe));
        let error = difference(&logits, &exact);
        assert!(error < most && error >= before, "{recipe}: {error}, the type before {before}");
        before = error;
        if matches!(recipe, Recipe::F32 | Recipe::F16) {
            assert_eq!(tokens, greedy, "{recipe}");
        }
        let ids = Tensor::new(ids(), &Device::Cpu).unwrap();
        let tokens = Tensor::new(tokens, &Device::Cpu).unwrap();
        let all = std::collections::HashMap::from([("ids", ids), ("logits", logits), ("greedy", tokens)]);
        candle_core::safetensors::save(&all, folder(recipe).join("expected.safetensors")).unwrap();
    }
    assert_eq!(parameters(&config()).len(), 4 * 11 + 2 + 3 + 3 * 12 + 6 * 3);
}
