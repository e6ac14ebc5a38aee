//! The shapes that the published checkpoints differ in, against the reference (`make_shapes.py`): tied and untied
//! heads, one and three deepstack layers, five images of different sizes, prompts beyond one block of the cache.
//! Weights and inputs are made from their names on both sides.

use candle_core::{DType, Device, IndexOp, Tensor};
use candle_nn::{VarBuilder, VarMap};
use model::autograd::recompute::Recomputation;
use model::nn::Kernels;
use model::qwen3_vl::config::{Rope, TextConfig, VisionConfig};
use model::qwen3_vl::processor::Grid;
use model::qwen3_vl::text::{DecoderInput, Position, Tapped};
use model::qwen3_vl::{Embedded, positions};
use model::weights::parameters;
use model::{Config, Qwen3Vl};

use crate::reference::{close, difference, golden, ids, segments};

const VOCABULARY: usize = 128;
const IMAGE_PAD: u32 = 120;
const GRIDS: [(usize, usize); 5] = [(4, 6), (6, 4), (2, 10), (8, 2), (4, 8)];

/// Uniform in [-1, 1) from splitmix64 over the name's FNV-1a hash plus the index.
fn noise(name: &str, count: usize) -> Vec<f32> {
    let hash = |seed: u64, byte: u8| (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325, hash);
    let draw = |i: u64| {
        let mut z = seed.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        ((z >> 40) as f64 / f64::from(1 << 23) - 1.0) as f32
    };
    (1..=count as u64).map(draw).collect()
}

/// The weight that both sides know by its name.
pub fn weight(name: &str, dims: &[usize]) -> Tensor {
    let values = Tensor::from_vec(noise(name, dims.iter().product()), dims, &Device::Cpu).unwrap();
    let scaled = if name.ends_with("bias") {
        values * 0.25
    } else if dims.len() == 1 {
        (values * 0.5).unwrap() + 1.0
    } else if name.contains("embed") && dims.len() == 2 {
        values * 0.5
    } else {
        values * f64::from(2.0 / (dims[1..].iter().product::<usize>() as f32).sqrt())
    };
    scaled.unwrap()
}

struct Case {
    name: &'static str,
    tied: bool,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    vision_heads: usize,
    depth: usize,
    deepstack: &'static [usize],
}

const CASES: [Case; 3] = [
    Case {
        name: "tied3",
        tied: true,
        layers: 5,
        heads: 4,
        kv_heads: 2,
        vision_heads: 4,
        depth: 5,
        deepstack: &[1, 2, 4],
    },
    Case {
        name: "untied3",
        tied: false,
        layers: 4,
        heads: 6,
        kv_heads: 2,
        vision_heads: 8,
        depth: 4,
        deepstack: &[0, 1, 3],
    },
    Case { name: "tied1", tied: true, layers: 2, heads: 3, kv_heads: 3, vision_heads: 2, depth: 2, deepstack: &[1] },
];

impl Case {
    fn config(&self) -> Config {
        Config {
            architectures: Vec::new(),
            model_type: "qwen3_vl".to_owned(),
            text_config: TextConfig {
                hidden_size: 48,
                intermediate_size: 80,
                num_hidden_layers: self.layers,
                num_attention_heads: self.heads,
                num_key_value_heads: self.kv_heads,
                head_dim: 16,
                vocab_size: VOCABULARY,
                rms_norm_eps: 1e-6,
                max_position_embeddings: 4096,
                rope_theta: Some(5e6),
                rope_scaling: Some(Rope {
                    mrope_section: [4, 2, 2],
                    rope_theta: None,
                    mrope_interleaved: true,
                    rope_type: "default".to_owned(),
                }),
                rope_parameters: None,
            },
            vision_config: VisionConfig {
                depth: self.depth,
                hidden_size: 32,
                intermediate_size: 72,
                num_heads: self.vision_heads,
                in_channels: 3,
                patch_size: 16,
                spatial_merge_size: 2,
                temporal_patch_size: 2,
                out_hidden_size: 48,
                num_position_embeddings: 49,
                deepstack_visual_indexes: self.deepstack.to_vec(),
            },
            image_token_id: IMAGE_PAD,
            video_token_id: 121,
            vision_start_token_id: 122,
            vision_end_token_id: 123,
            tie_word_embeddings: self.tied,
        }
    }

    /// The model over variables by name.
    fn build(&self, kernels: Kernels) -> (Qwen3Vl, VarMap) {
        let config = self.config();
        let variables = VarMap::new();
        let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
        let model = Qwen3Vl::new(&config, kernels, vb).unwrap();
        let data = variables.data().lock().unwrap();
        let listed = parameters(&config);
        assert_eq!(data.len(), listed.len(), "{}", self.name);
        for (name, dims) in listed {
            data[&name].set(&weight(&name, &dims)).unwrap();
        }
        drop(data);
        (model, variables)
    }
}

fn embedded(model: &Qwen3Vl, ids: &[u32]) -> Embedded {
    let patches: usize = GRIDS.iter().map(|(h, w)| h * w).sum();
    let width = model.config().vision_config.patch_dim();
    let pixels = Tensor::from_vec(noise("pixels", patches * width), (patches, width), &Device::Cpu).unwrap();
    let (mut first, mut tokens) = (0, Vec::new());
    let mut deepstack = vec![Vec::new(); model.config().vision_config.deepstack_visual_indexes.len()];
    for (height, width) in GRIDS {
        let image = pixels.narrow(0, first, height * width).unwrap().unsqueeze(0).unwrap();
        first += height * width;
        let output = model.visual().forward(&image, Grid { height, width }).unwrap();
        tokens.push(output.tokens.squeeze(0).unwrap());
        deepstack.iter_mut().zip(output.deepstack).for_each(|(all, one)| all.push(one.squeeze(0).unwrap()));
    }
    let join = |parts: &Vec<Tensor>| Tensor::cat(parts, 0).unwrap();
    let deepstack: Vec<Tensor> = deepstack.iter().map(join).collect();
    model.embed_batch(ids, 1, &join(&tokens), &deepstack).unwrap()
}

fn places(ids: &[u32]) -> Vec<Position> {
    let grids: Vec<Grid> = GRIDS.iter().map(|&(height, width)| Grid { height, width }).collect();
    positions(&segments(ids, &grids, IMAGE_PAD, 2), 2)
}

#[test]
fn hidden_states_of_every_layer_logits_loss_and_gradients_agree_in_every_shape() {
    for case in &CASES {
        let reference = golden(&format!("shapes_{}", case.name));
        let ids = ids(&reference);
        let places = places(&ids);
        let expected = reference["position_ids"].to_vec2::<i64>().unwrap();
        for (i, place) in places.iter().enumerate() {
            assert_eq!(place.map(i64::from), [expected[0][i], expected[1][i], expected[2][i]], "token {i}");
        }
        let kept = reference["kept"].to_dtype(DType::U32).unwrap();
        let (model, variables) = case.build(Kernels::Differentiable);
        let embedded = embedded(&model, &ids);
        let row = |x: &Tensor| x.squeeze(0).unwrap().index_select(&kept, 0).unwrap();
        close("hidden_0", &row(&embedded.embeddings), &reference["hidden_0"]);
        let mut seen = 0;
        let input = DecoderInput {
            embeddings: embedded.embeddings,
            positions: &places,
            deepstack: &embedded.deepstack,
            cache: None,
            recomputation: None,
        };
        let hidden = model
            .decoder()
            .forward_with(input, &mut |i, tapped| match tapped {
                // What left the last layer is compared behind the norm.
                Tapped::Hidden(x) if i + 1 < case.layers => {
                    let name = format!("hidden_{}", i + 1);
                    close(&format!("{} {name}", case.name), &row(x), &reference[&name]);
                    seen += 1;
                }
                Tapped::Hidden(_) => {}
                Tapped::Attention { query, key, rotated_query, rotated_key } => {
                    let (t, e) = (ids.len(), 16);
                    assert_eq!(query.dims(), [1, case.heads, t, e]);
                    assert_eq!(key.dims(), [1, case.kv_heads, t, e]);
                    // A rotation turns and does not stretch; the token at place 0 stays as it is.
                    for (before, after) in [(query, rotated_query), (key, rotated_key)] {
                        let norm = |x: &Tensor| x.sqr().unwrap().sum(3).unwrap();
                        close("norms", &norm(after), &norm(before));
                        close("first", &after.i((.., .., 0)).unwrap(), &before.i((.., .., 0)).unwrap());
                    }
                }
            })
            .unwrap();
        assert_eq!(seen, case.layers - 1);
        close("final norm", &row(&hidden), &reference[&format!("hidden_{}", case.layers)]);
        let logits = model.logits(&hidden).unwrap().squeeze(0).unwrap();
        close("logits", &logits.index_select(&kept, 0).unwrap(), &reference["logits"]);
        let (rows, targets): (Vec<u32>, Vec<u32>) =
            (1..ids.len()).filter(|&i| ids[i] < IMAGE_PAD).map(|i| (i as u32 - 1, ids[i])).unzip();
        let rows = logits.index_select(&Tensor::new(rows, &Device::Cpu).unwrap(), 0).unwrap();
        let loss = candle_nn::loss::cross_entropy(&rows, &Tensor::new(targets, &Device::Cpu).unwrap()).unwrap();
        close("loss", &loss.reshape(1).unwrap(), &reference["loss"]);
        let store = loss.backward().unwrap();
        let data = variables.data().lock().unwrap();
        let mut checked = 0;
        for (name, expected) in &reference {
            let (got, name) = if let Some(name) = name.strip_prefix("grad_norm.") {
                (store.get(&data[name]).unwrap().sqr().unwrap().sum_all().unwrap().sqrt().unwrap(), name)
            } else if let Some(name) = name.strip_prefix("grad.") {
                (store.get(&data[name]).unwrap().clone(), name)
            } else {
                continue;
            };
            let error = difference(&got, expected);
            assert!(error < 1e-3, "{}: {name}: {error}", case.name);
            checked += 1;
        }
        assert_eq!(checked, data.len() + 4, "{}", case.name);
    }
}

#[test]
fn prefill_in_pieces_and_decoding_equal_one_pass_beyond_one_block_of_the_cache() {
    for case in &CASES {
        let reference = golden(&format!("shapes_{}", case.name));
        let ids = ids(&reference);
        let places = places(&ids);
        let (model, _variables) = case.build(Kernels::Fused);
        let embedded = embedded(&model, &ids);
        let whole = model.decode(&embedded, &places, None).unwrap();
        let mut cache = model.cache(ids.len());
        let mut parts = Vec::new();
        let mut first = 0;
        // 64 tokens fill the cache's first buffer: pieces on both sides of that, then single tokens.
        for length in [60, 10, 130].into_iter().chain(std::iter::repeat_n(1, ids.len() - 200)) {
            let part = |x: &Tensor| x.narrow(1, first, length).unwrap();
            let piece = Embedded {
                embeddings: part(&embedded.embeddings),
                deepstack: embedded.deepstack.iter().map(part).collect(),
            };
            parts.push(model.decode(&piece, &places[first..first + length], Some(&mut cache)).unwrap());
            first += length;
        }
        close(case.name, &Tensor::cat(&parts, 1).unwrap(), &whole);
    }
}

#[test]
fn checkpointing_holds_in_every_shape() {
    for case in &CASES {
        let reference = golden(&format!("shapes_{}", case.name));
        let ids = ids(&reference);
        let places = places(&ids);
        let (model, variables) = case.build(Kernels::Differentiable);
        let run = |recomputation: Option<&Recomputation>| {
            let embedded = embedded(&model, &ids);
            let input = DecoderInput {
                embeddings: embedded.embeddings,
                positions: &places,
                deepstack: &embedded.deepstack,
                cache: None,
                recomputation,
            };
            let hidden = model.decoder().forward(input).unwrap();
            model.logits(&hidden).unwrap().sqr().unwrap().mean_all().unwrap().backward().unwrap()
        };
        let plain = run(None);
        let recomputation = Recomputation::new(variables.data().lock().unwrap().values().map(|v| v.as_tensor()));
        let store = run(Some(&recomputation));
        let bits = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (name, var) in variables.data().lock().unwrap().iter() {
            let got = recomputation.gradient(&store, var).unwrap().unwrap();
            assert_eq!(bits(&got), bits(plain.get(var).unwrap()), "{}: {name}", case.name);
        }
    }
}
