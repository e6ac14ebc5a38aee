//! Every intermediate of the model against the reference implementation on a tiny random checkpoint
//! (`tests/fixtures/qwen3vl/make_qwen3vl.py`), forward and backward.

use candle_core::{Device, IndexOp, Tensor};
use model::Processor;
use model::nn::Kernels;
use model::qwen3_vl::Embedded;
use model::qwen3_vl::text::{DecoderInput, Tapped};

use crate::reference::{
    close, difference, embedded, fixtures, golden, grids, ids, load, logits, loss, places, trainable, vision,
};

#[test]
fn vision_tower_agrees_block_by_block() {
    let reference = golden("vision_golden");
    for kernels in [Kernels::Fused, Kernels::Differentiable] {
        let model = load(kernels);
        let mut seen = 0;
        let (tokens, deepstack) = vision(&model, &reference, &mut |i, x| {
            let name = if i == 0 { "patch_embed_plus_pos".to_owned() } else { format!("block_{}", i - 1) };
            close(&name, &x, &reference[&name]);
            seen += 1;
        });
        assert_eq!(seen, 4);
        close("merger", &tokens, &reference["merger"]);
        for (k, features) in deepstack.iter().enumerate() {
            close("deepstack", features, &reference[&format!("deepstack_{k}")]);
        }
    }
}

#[test]
fn position_embedding_is_interpolated_with_aligned_corners() {
    let reference = golden("vision_golden");
    let model = load(Kernels::Fused);
    let parts: Vec<Tensor> =
        grids(&reference).into_iter().map(|g| model.visual().position_embedding(g).unwrap()).collect();
    close("pos_embed", &Tensor::cat(&parts, 0).unwrap(), &reference["pos_embed"]);
}

#[test]
fn position_ids_agree() {
    let reference = golden("text_golden");
    let model = load(Kernels::Fused);
    let got = places(model.config(), &ids(&reference), &grids(&reference));
    let expected = reference["position_ids"].squeeze(1).unwrap().to_vec2::<i64>().unwrap();
    for (i, place) in got.iter().enumerate() {
        assert_eq!(place.map(i64::from), [expected[0][i], expected[1][i], expected[2][i]], "token {i}");
    }
}

#[test]
fn decoder_agrees_layer_by_layer() {
    let reference = golden("text_golden");
    for kernels in [Kernels::Fused, Kernels::Differentiable] {
        let model = load(kernels);
        let embedded = embedded(&model, &reference);
        close("inputs_embeds", &embedded.embeddings, &reference["inputs_embeds"]);
        let positions = places(model.config(), &ids(&reference), &grids(&reference));
        let mut seen = 0;
        let hidden = model
            .decoder()
            .forward_with(
                DecoderInput {
                    embeddings: embedded.embeddings.clone(),
                    positions: &positions,
                    deepstack: &embedded.deepstack,
                    cache: None,
                    recomputation: None,
                },
                &mut |i, tapped| {
                    let Tapped::Hidden(x) = tapped else { return };
                    let name = if i < 2 { format!("layer_{i}_deepstack") } else { format!("layer_{i}") };
                    close(&name, x, &reference[&name]);
                    seen += 1;
                },
            )
            .unwrap();
        assert_eq!(seen, 3);
        close("final_norm", &hidden, &reference["final_norm"]);
        close("logits", &model.logits(&hidden).unwrap(), &reference["logits"]);
    }
}

#[test]
fn prefill_and_decode_equal_the_full_forward_and_the_reference() {
    let reference = golden("text_golden");
    let model = load(Kernels::Fused);
    let embedded = embedded(&model, &reference);
    let positions = places(model.config(), &ids(&reference), &grids(&reference));
    let mut cache = model.cache(64);
    let mut hidden = model.decode(&embedded, &positions, Some(&mut cache)).unwrap();
    let expected_ids = reference["generated_ids"].flatten_all().unwrap().to_vec1::<i64>().unwrap();
    let mut place = positions.last().unwrap()[0];
    for (step, &expected) in expected_ids.iter().enumerate() {
        let t = hidden.dim(1).unwrap();
        let logits = model.logits(&hidden.i((.., t - 1)).unwrap()).unwrap();
        close("step", &logits, &reference["generated_logits"].i((0, step)).unwrap());
        let token = logits.squeeze(0).unwrap().argmax(0).unwrap().to_scalar::<u32>().unwrap();
        assert_eq!(i64::from(token), expected, "step {step}");
        place += 1;
        let embeddings = model.embed(&Tensor::new(&[token], &Device::Cpu).unwrap()).unwrap().unsqueeze(0).unwrap();
        let next = Embedded { embeddings, deepstack: Vec::new() };
        hidden = model.decode(&next, &[[place; 3]], Some(&mut cache)).unwrap();
    }
    assert_eq!(cache.tokens(), positions.len() + expected_ids.len());
}

#[test]
fn a_full_cache_is_an_error() {
    let reference = golden("text_golden");
    let model = load(Kernels::Fused);
    let embedded = embedded(&model, &reference);
    let positions = places(model.config(), &ids(&reference), &grids(&reference));
    let error = model.decode(&embedded, &positions, Some(&mut model.cache(36))).unwrap_err().to_string();
    assert!(error.contains("at most 36") && error.contains("37"), "{error}");
}

#[test]
fn loss_and_every_gradient_agree() {
    let (text, grads) = (golden("text_golden"), golden("grads_golden"));
    let (model, variables) = trainable();
    let data = variables.data().lock().unwrap();
    let loss = loss(&logits(&model, None));
    close("loss", &loss.reshape(1).unwrap(), &text["loss"]);
    let store = loss.backward().unwrap();
    let mut checked = 0;
    for (name, expected) in &grads {
        let gradient = |weight: &str| store.get(&data[weight]).unwrap_or_else(|| panic!("{weight}: no gradient"));
        if let Some(weight) = name.strip_prefix("grad_norm.") {
            let norm = gradient(weight).sqr().unwrap().sum_all().unwrap().sqrt().unwrap().reshape(1).unwrap();
            assert!(difference(&norm, expected) < 1e-3, "{name}");
        } else if let Some(rest) = name.strip_prefix("grad.rows_") {
            let (rows, weight) = rest.split_once('.').unwrap();
            let (first, end) = rows.split_once('_').unwrap();
            let (first, end): (usize, usize) = (first.parse().unwrap(), end.parse().unwrap());
            let got = gradient(weight).narrow(0, first, end - first).unwrap();
            assert!(difference(&got, expected) < 1e-3, "{name}: {}", difference(&got, expected));
        } else {
            let weight = name.strip_prefix("grad.").unwrap();
            let error = difference(gradient(weight), expected);
            assert!(error < 1e-3, "{name}: {error}");
        }
        checked += 1;
    }
    assert!(checked > 100, "{checked}");
}

#[test]
fn images_are_resized_and_cut_as_the_reference_does() {
    let reference = golden("processor");
    let dir = fixtures();
    let text = std::fs::read_to_string(dir.join("tiny/preprocessor_config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    config["size"] = serde_json::json!({"shortest_edge": 2400, "longest_edge": 6144});
    config.as_object_mut().unwrap().remove("min_pixels");
    config.as_object_mut().unwrap().remove("max_pixels");
    let processor: Processor = serde_json::from_value(config).unwrap();
    let mut first = 0;
    for (name, expected_grid) in ["even", "large", "small"].into_iter().zip(grids(&reference)) {
        let image = image::open(dir.join(format!("images/{name}.png"))).unwrap().to_rgb8();
        let (w, h) = image.dimensions();
        let k = geometry::Intrinsics::new(100.0, 100.0, 40.0, 30.0, w, h).unwrap();
        let patches = processor.patches(&image, &k, &Device::Cpu).unwrap();
        assert_eq!(patches.grid, expected_grid, "{name}");
        let expected = reference["pil.pixel_values"].narrow(0, first, expected_grid.patches()).unwrap();
        first += expected_grid.patches();
        let levels = ((patches.values - expected).unwrap() * 127.5).unwrap().abs().unwrap();
        let max = levels.max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(max < 1.01, "{name}: {max} levels");
        let mean = levels.mean_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(mean < 0.01, "{name}: {mean} levels on average");
    }
}
