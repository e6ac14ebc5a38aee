//! The reference implementation's inputs and outputs, and how to run the model on the former.

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use model::autograd::recompute::Recomputation;
use model::nn::Kernels;
use model::qwen3_vl::processor::Grid;
use model::qwen3_vl::text::{DecoderInput, Position};
use model::qwen3_vl::{Embedded, Segment, positions};
use model::{Config, Qwen3Vl};

pub type Golden = HashMap<String, Tensor>;

/// Largest difference relative to the largest value.
pub const TOLERANCE: f32 = 1e-4;

pub fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/qwen3vl")
}

pub fn golden(name: &str) -> Golden {
    candle_core::safetensors::load(fixtures().join(format!("{name}.safetensors")), &Device::Cpu).unwrap()
}

pub fn load(kernels: Kernels) -> Qwen3Vl {
    Qwen3Vl::load(&fixtures().join("tiny"), kernels, DType::F32, &Device::Cpu).unwrap()
}

pub fn difference(got: &Tensor, expected: &Tensor) -> f32 {
    let got = got.reshape(expected.shape()).unwrap();
    let max = |t: Tensor| t.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    max((got - expected).unwrap()) / max(expected.clone())
}

#[track_caller]
pub fn close(name: &str, got: &Tensor, expected: &Tensor) {
    let error = difference(got, expected);
    assert!(error < TOLERANCE, "{name}: relative difference {error}");
}

pub fn grids(golden: &Golden) -> Vec<Grid> {
    let rows = golden["image_grid_thw"].to_vec2::<i64>().unwrap();
    rows.iter().map(|r| Grid { height: r[1] as usize, width: r[2] as usize }).collect()
}

pub fn ids(golden: &Golden) -> Vec<u32> {
    golden["input_ids"].flatten_all().unwrap().to_vec1::<i64>().unwrap().iter().map(|&id| id as u32).collect()
}

/// A prompt's pieces, from its ids and the grids of its images.
pub fn segments<'a>(ids: &'a [u32], grids: &[Grid], image: u32, merge: usize) -> Vec<Segment<'a>> {
    let mut grids = grids.iter();
    let mut segments = Vec::new();
    let mut rest = ids;
    while !rest.is_empty() {
        let text = rest.iter().position(|&id| id == image).unwrap_or(rest.len());
        segments.push(Segment::Text(&rest[..text]));
        rest = &rest[text..];
        if !rest.is_empty() {
            let grid = *grids.next().unwrap();
            segments.push(Segment::Image(grid));
            rest = &rest[grid.patches() / merge.pow(2)..];
        }
    }
    segments
}

/// Places of the fixture's prompt, derived from its ids and grids.
pub fn places(config: &Config, ids: &[u32], grids: &[Grid]) -> Vec<Position> {
    let merge = config.vision_config.spatial_merge_size;
    positions(&segments(ids, grids, config.image_token_id, merge), merge)
}

/// Runs the tower on each image of the fixture and joins the outputs.
pub fn vision(model: &Qwen3Vl, vision: &Golden, tap: &mut dyn FnMut(usize, Tensor)) -> (Tensor, Vec<Tensor>) {
    let mut first = 0;
    let (mut tokens, mut deepstack) = (Vec::new(), vec![Vec::new(); 2]);
    let mut taps: HashMap<usize, Vec<Tensor>> = HashMap::new();
    for grid in grids(vision) {
        let patches = vision["pixel_values"].narrow(0, first, grid.patches()).unwrap().unsqueeze(0).unwrap();
        first += grid.patches();
        let output = model
            .visual()
            .forward_with(&patches, grid, &mut |i, x| taps.entry(i).or_default().push(x.squeeze(0).unwrap()))
            .unwrap();
        tokens.push(output.tokens.squeeze(0).unwrap());
        for (all, one) in deepstack.iter_mut().zip(output.deepstack) {
            all.push(one.squeeze(0).unwrap());
        }
    }
    let join = |parts: Vec<Tensor>| Tensor::cat(&parts, 0).unwrap();
    for (i, parts) in taps {
        tap(i, join(parts));
    }
    (join(tokens), deepstack.into_iter().map(join).collect())
}

pub fn embedded(model: &Qwen3Vl, text: &Golden) -> Embedded {
    let (tokens, deepstack) = vision(model, &golden("vision_golden"), &mut |_, _| {});
    model.embed_batch(&ids(text), 1, &tokens, &deepstack).unwrap()
}

/// The same checkpoint as variables.
pub fn trainable() -> (Qwen3Vl, VarMap) {
    let config = Config::from_dir(&fixtures().join("tiny")).unwrap();
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let model = Qwen3Vl::new(&config, Kernels::Differentiable, vb).unwrap();
    let weights = candle_core::safetensors::load(fixtures().join("tiny/model.safetensors"), &Device::Cpu).unwrap();
    let data = variables.data().lock().unwrap();
    assert_eq!(data.len(), weights.len());
    for (name, var) in data.iter() {
        var.set(&weights[name]).unwrap();
    }
    drop(data);
    (model, variables)
}

/// Logits `[t, vocab]` of the fixture's prompt.
pub fn logits(model: &Qwen3Vl, recomputation: Option<&Recomputation>) -> Tensor {
    let text = golden("text_golden");
    let embedded = embedded(model, &text);
    let positions = places(model.config(), &ids(&text), &grids(&text));
    let input = DecoderInput {
        embeddings: embedded.embeddings,
        positions: &positions,
        deepstack: &embedded.deepstack,
        cache: None,
        recomputation,
    };
    model.logits(&model.decoder().forward(input).unwrap()).unwrap().squeeze(0).unwrap()
}

/// The reference's loss on those logits.
pub fn loss(logits: &Tensor) -> Tensor {
    let text = golden("text_golden");
    let labels = text["labels"].flatten_all().unwrap().to_vec1::<i64>().unwrap();
    let (rows, targets): (Vec<u32>, Vec<u32>) = labels
        .iter()
        .enumerate()
        .skip(1)
        .filter(|(_, label)| **label >= 0)
        .map(|(i, label)| (i as u32 - 1, *label as u32))
        .unzip();
    let logits = logits.index_select(&Tensor::new(rows, &Device::Cpu).unwrap(), 0).unwrap();
    candle_nn::loss::cross_entropy(&logits, &Tensor::new(targets, &Device::Cpu).unwrap()).unwrap()
}
