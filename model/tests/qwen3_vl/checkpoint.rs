//! Gradient checkpointing gives the gradients that training without it gives, bit for bit.

use candle_core::{DType, Device};
use candle_nn::{VarBuilder, VarMap};
use model::checkpoint::Checkpoints;
use model::nn::Kernels;
use model::{Config, Qwen3Vl};

use crate::reference::{fixtures, logits, loss};

#[test]
fn gradients_are_equal_bit_for_bit() {
    let config = Config::from_dir(&fixtures().join("tiny")).unwrap();
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let model = Qwen3Vl::new(&config, Kernels::Differentiable, vb).unwrap();
    let weights = candle_core::safetensors::load(fixtures().join("tiny/model.safetensors"), &Device::Cpu).unwrap();
    let data = variables.data().lock().unwrap();
    for (name, var) in data.iter() {
        var.set(&weights[name]).unwrap();
    }
    let plain = loss(&logits(&model, None)).backward().unwrap();
    let checkpoints = Checkpoints::new();
    let store = loss(&logits(&model, Some(&checkpoints))).backward().unwrap();
    let bits = |t: &candle_core::Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let mut inside = 0;
    for (name, var) in data.iter() {
        let got = checkpoints.gradient(&store, var).unwrap().unwrap_or_else(|| panic!("{name}: no gradient"));
        assert_eq!(bits(&got), bits(plain.get(var).unwrap()), "{name}");
        inside += usize::from(store.get(var).is_none());
    }
    assert!(inside >= 3 * 11, "the layers were not checkpointed: {inside}");
}
