//! One body for every device and number type: the tower, a prompt, greedy decoding, quantized products and gradients
//! against the reference's f32 on a CPU. A build with `--features cuda` runs it on the first GPU as well and fails
//! where there is none; one with `flash-attn` takes its kernels there.

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, IndexOp, Tensor};
use candle_nn::{VarBuilder, VarMap};
use geometry::{Intrinsics, WINDOW};
use model::answer::prompt::{self, Mode};
use model::nn::{Kernels, KeyValues, Matrix, attention};
use model::qwen3_vl::Embedded;
use model::tokenizer::Tokenizer;
use model::{Config, Processor, Qwen3Vl};

use crate::reference::{fixtures, golden, grids, ids, loss, places};

/// What a tiny random model leaves of bf16's 8 bits: the reference's own bf16 logits are 1.8e-2 off its f32. Trained weights
/// are kinder ([`nano`]).
const BF16: f32 = 3e-2;

#[test]
fn the_cpu_in_f32() {
    agrees(&Device::Cpu, DType::F32, 1e-4);
}

#[test]
fn the_cpu_in_bf16() {
    agrees(&Device::Cpu, DType::BF16, BF16);
}

#[test]
fn trained_weights_in_bf16() {
    let error = difference(&nano(&Device::Cpu, DType::BF16), &nano(&Device::Cpu, DType::F32));
    assert!(error < 2e-2, "relative difference {error}");
}

#[cfg(feature = "cuda")]
#[test]
fn trained_weights_on_a_gpu() {
    let gpu = model::device("cuda").unwrap();
    for (dtype, tolerance) in [(DType::F32, 2e-3), (DType::BF16, 2e-2)] {
        let error = difference(&nano(&gpu, dtype), &nano(&Device::Cpu, dtype));
        assert!(error < tolerance, "{dtype:?}: relative difference {error}");
    }
}

#[cfg(feature = "cuda")]
#[test]
fn a_gpu_in_f32() {
    agrees(&model::device("cuda").unwrap(), DType::F32, 2e-3);
}

#[cfg(feature = "cuda")]
#[test]
fn a_gpu_in_bf16() {
    agrees(&model::device("cuda").unwrap(), DType::BF16, BF16);
}

/// Logits of the shipped weights behind every token of a prompt with five real frames.
fn nano(device: &Device, dtype: DType) -> Tensor {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = root.join("weights/nano");
    let model = Qwen3Vl::load(&dir, Kernels::Fused, dtype, device).unwrap();
    let vision = &model.config().vision_config;
    let (processor, merge) = (Processor::from_dir(&dir, vision).unwrap(), vision.spatial_merge_size);
    let tokenizer = Tokenizer::from_dir(&dir, model.config()).unwrap();
    let camera = Intrinsics::new(615.2, 615.2, 298.4, 247.5, 640, 480).unwrap();
    let frames: Vec<_> = (0..WINDOW)
        .map(|i| {
            let path = root.join(format!("../tests/data/amazon_box/frames/{i:06}.jpg"));
            processor.patches(&image::open(path).unwrap().to_rgb8(), &camera, device).unwrap()
        })
        .collect();
    let (grids, seen) = ([frames[0].grid; WINDOW], frames[0].intrinsics);
    let image = model.config().image_token_id;
    let prompt = prompt::window(&tokenizer, image, merge, Mode::AnswerOnly, &seen, &grids).unwrap();
    let patches = Tensor::stack(&frames.iter().map(|f| &f.values).collect::<Vec<_>>(), 0).unwrap();
    let tower = model.visual().forward(&patches.to_dtype(dtype).unwrap(), frames[0].grid).unwrap();
    let deepstack: Vec<_> = tower.deepstack.iter().map(|d| d.flatten_to(1).unwrap()).collect();
    let embedded = model.embed_batch(&prompt.ids, 1, &tower.tokens.flatten_to(1).unwrap(), &deepstack).unwrap();
    let logits = model.logits(&model.decode(&embedded, &prompt.positions, None).unwrap()).unwrap();
    logits.to_device(&Device::Cpu).unwrap().to_dtype(DType::F32).unwrap()
}

/// Norm of the difference relative to the norm.
fn difference(got: &Tensor, expected: &Tensor) -> f32 {
    let norm = |t: &Tensor| t.sqr().unwrap().sum_all().unwrap().sqrt().unwrap().to_scalar::<f32>().unwrap();
    norm(&(got.reshape(expected.shape()).unwrap() - expected).unwrap()) / norm(expected)
}

/// Everything that the node and the trainer ask of a device, within `tolerance`.
fn agrees(device: &Device, dtype: DType, tolerance: f32) {
    let (text, vision) = (golden("text_golden"), golden("vision_golden"));
    let home = |t: &Tensor| t.to_device(&Device::Cpu).unwrap().to_dtype(DType::F32).unwrap();
    let close = |name: &str, got: &Tensor, expected: &Tensor| {
        let error = difference(&home(got), expected);
        assert!(error < tolerance, "{device:?} {dtype:?} {name}: relative difference {error}");
    };
    let model = Qwen3Vl::load(&fixtures().join("tiny"), Kernels::Fused, dtype, device).unwrap();
    let embedded = run_tower(&model, device, dtype);
    close("merger", &embedded.0, &vision["merger"]);
    for (k, features) in embedded.1.iter().enumerate() {
        close("deepstack", features, &vision[&format!("deepstack_{k}")]);
    }
    let prompt = |model: &Qwen3Vl, tower: &(Tensor, Vec<Tensor>)| {
        (
            model.embed_batch(&ids(&text), 1, &tower.0, &tower.1).unwrap(),
            places(model.config(), &ids(&text), &grids(&text)),
        )
    };
    let (input, positions) = prompt(&model, &embedded);
    let mut cache = model.cache(64);
    let mut hidden = model.decode(&input, &positions, Some(&mut cache)).unwrap();
    close("logits", &model.logits(&hidden).unwrap(), &text["logits"]);
    // The reference's own tokens, so that a near tie does not lead elsewhere.
    let written = text["generated_ids"].flatten_all().unwrap().to_vec1::<i64>().unwrap();
    let mut place = positions.last().unwrap()[0];
    for (step, &token) in written.iter().enumerate() {
        let t = hidden.dim(1).unwrap();
        let logits = model.logits(&hidden.i((.., t - 1)).unwrap()).unwrap();
        close(&format!("step {step}"), &logits, &text["generated_logits"].i((0, step)).unwrap());
        place += 1;
        let embeddings = model.embed(&Tensor::new(&[token as u32], device).unwrap()).unwrap().unsqueeze(0).unwrap();
        let next = Embedded { embeddings, deepstack: Vec::new() };
        hidden = model.decode(&next, &[[place; 3]], Some(&mut cache)).unwrap();
    }

    // Training: loss and gradients.
    let variables = VarMap::new();
    let config = Config::from_dir(&fixtures().join("tiny")).unwrap();
    let trained =
        Qwen3Vl::new(&config, Kernels::Differentiable, VarBuilder::from_varmap(&variables, dtype, device)).unwrap();
    let weights = candle_core::safetensors::load(fixtures().join("tiny/model.safetensors"), device).unwrap();
    let data = variables.data().lock().unwrap();
    for (name, var) in data.iter() {
        var.set(&weights[name].to_dtype(dtype).unwrap()).unwrap();
    }
    let tower = run_tower(&trained, device, dtype);
    let (input, positions) = prompt(&trained, &tower);
    let logits = trained.logits(&trained.decode(&input, &positions, None).unwrap()).unwrap().squeeze(0).unwrap();
    let loss = loss(&logits.to_dtype(DType::F32).unwrap());
    close("loss", &loss.reshape(1).unwrap(), &text["loss"]);
    let store = loss.backward().unwrap();
    let mut checked = 0;
    for (name, expected) in &golden("grads_golden") {
        if let Some(weight) = name.strip_prefix("grad_norm.") {
            let gradient = store.get(&data[weight]).unwrap_or_else(|| panic!("{weight}: no gradient"));
            let norm = home(gradient).sqr().unwrap().sum_all().unwrap().sqrt().unwrap().reshape(1).unwrap();
            // Gradients add up what the layers above rounded.
            let error = difference(&norm, expected);
            assert!(error < 10.0 * tolerance, "{device:?} {dtype:?} {name}: {error}");
            checked += 1;
        }
    }
    assert_eq!(checked, 92);

    quantized(device, dtype, tolerance);
    attends(device, dtype, tolerance);
}

/// Attention as prompts (causal, alone and behind a cache with room), images and single tokens ask for it, in the widths of heads of
/// the published decoders (128) and towers (64, and 72 of the 8B), against all scores at once in f32 on the CPU.
fn attends(device: &Device, dtype: DType, tolerance: f32) {
    for (h, kv, e, t, s, causal) in [
        (4, 2, 128, 300, 300, true),
        (4, 1, 128, 33, 290, true),
        (4, 2, 128, 1, 290, true),
        (3, 3, 64, 320, 320, false),
        (3, 3, 72, 300, 300, false),
    ] {
        // What both read, rounded once.
        let random = |heads: usize, rows: usize| {
            let x = Tensor::randn(0f32, 1.0, (2, heads, rows, e), &Device::Cpu).unwrap();
            x.to_dtype(dtype).unwrap().to_dtype(DType::F32).unwrap()
        };
        let (q, keys, values) = (random(h, t), random(kv, s + 20), random(kv, s + 20));
        let own = |x: &Tensor| x.narrow(2, 0, s).unwrap();
        let every = |x: &Tensor| {
            let x = own(x).unsqueeze(2).unwrap().broadcast_as((2, kv, h / kv, s, e)).unwrap();
            x.reshape((2, h, s, e)).unwrap()
        };
        let scores = (q.matmul(&every(&keys).t().unwrap()).unwrap() / (e as f64).sqrt()).unwrap();
        let hidden = |i: usize| if causal && i % s > s - t + i / s { f32::NEG_INFINITY } else { 0.0 };
        let mask = Tensor::from_vec((0..t * s).map(hidden).collect(), (t, s), &Device::Cpu).unwrap();
        let weights = candle_nn::ops::softmax(&scores.broadcast_add(&mask).unwrap(), 3).unwrap();
        let expected =
            weights.matmul(&every(&values)).unwrap().transpose(1, 2).unwrap().reshape((2, t, h * e)).unwrap();
        let there = |x: &Tensor| x.to_device(device).unwrap().to_dtype(dtype).unwrap();
        let kv = KeyValues { shared: None, own: (own(&there(&keys)), own(&there(&values))) };
        let got = attention(&there(&q), &kv, causal).unwrap();
        let got = got.to_device(&Device::Cpu).unwrap().to_dtype(DType::F32).unwrap();
        let error = difference(&got, &expected);
        assert!(error < tolerance, "{device:?} {dtype:?} {t} queries of {s}, heads of {e}: {error}");
    }
}

/// Tokens and deepstack features of the fixture's images.
fn run_tower(model: &Qwen3Vl, device: &Device, dtype: DType) -> (Tensor, Vec<Tensor>) {
    let vision = golden("vision_golden");
    let (mut first, mut tokens, mut deepstack) = (0, Vec::new(), vec![Vec::new(); 2]);
    for grid in grids(&vision) {
        let patches = vision["pixel_values"].narrow(0, first, grid.patches()).unwrap().unsqueeze(0).unwrap();
        first += grid.patches();
        let patches = patches.to_device(device).unwrap().to_dtype(dtype).unwrap();
        let output = model.visual().forward(&patches, grid).unwrap();
        tokens.push(output.tokens.squeeze(0).unwrap());
        for (all, one) in deepstack.iter_mut().zip(output.deepstack) {
            all.push(one.squeeze(0).unwrap());
        }
    }
    let join = |parts: Vec<Tensor>| Tensor::cat(&parts, 0).unwrap();
    (join(tokens), deepstack.into_iter().map(join).collect())
}

/// Products with quantized matrices, for one row (decoding) and many (a prompt), inside a graph and outside.
fn quantized(device: &Device, dtype: DType, tolerance: f32) {
    let wave = |rows: usize, columns: usize| {
        let values: Vec<f32> =
            (0..rows * columns).map(|i| (0.37 * i as f32).sin() + (0.011 * i as f32).cos()).collect();
        Tensor::from_vec(values, (rows, columns), &Device::Cpu).unwrap()
    };
    for kind in [GgmlDType::Q4K, GgmlDType::Q5K, GgmlDType::Q6K, GgmlDType::Q8_0] {
        let weight = QTensor::quantize(&wave(64, 512), kind).unwrap();
        let dense = weight.dequantize(&Device::Cpu).unwrap();
        let matrix = Matrix::from(on(device, weight));
        for rows in [1, 40] {
            let x = wave(rows, 512);
            let expected = x.matmul(&dense.t().unwrap()).unwrap();
            let at = x.to_device(device).unwrap().to_dtype(dtype).unwrap();
            let home = |t: Tensor| t.to_device(&Device::Cpu).unwrap().to_dtype(DType::F32).unwrap();
            // The integer kernels round the input to 8 bits.
            let error = difference(&home(matrix.product(&at).unwrap()), &expected);
            assert!(error < 2e-2, "{device:?} {dtype:?} {kind:?}, {rows} rows: {error}");
            let var = candle_core::Var::from_tensor(&at).unwrap();
            let y = matrix.product(var.as_tensor()).unwrap();
            let error = difference(&home(y.clone()), &expected);
            assert!(error < tolerance, "{device:?} {dtype:?} {kind:?}, {rows} rows in a graph: {error}");
            let gradient = y.sum_all().unwrap().backward().unwrap();
            let gradient = home(gradient.get(&var).unwrap().clone());
            let ones = Tensor::ones((rows, 64), DType::F32, &Device::Cpu).unwrap();
            let error = difference(&gradient, &ones.matmul(&dense).unwrap());
            assert!(error < tolerance, "{device:?} {dtype:?} {kind:?}, gradient: {error}");
        }
    }
}

/// The same blocks on a device.
fn on(device: &Device, weight: QTensor) -> QTensor {
    let data = weight.data().unwrap();
    let storage = candle_core::quantized::QStorage::from_data(data, device, weight.dtype()).unwrap();
    QTensor::new(storage, weight.shape().clone()).unwrap()
}
