//! Gradient checkpointing gives the gradients that training without it gives, bit for bit.

use candle_core::{DType, Device, Tensor, Var};
use model::autograd::recompute::Recomputation;
use model::lora::{Lora, Site};
use model::nn::{Dropout, Kernels};

use crate::reference::{fixtures, load, logits, loss, trainable};

#[test]
fn gradients_are_equal_bit_for_bit() {
    let (model, variables) = trainable();
    let data = variables.data().lock().unwrap();
    let plain = loss(&logits(&model, None)).backward().unwrap();
    let recomputation = Recomputation::new(data.values().map(|v| v.as_tensor()));
    let store = loss(&logits(&model, Some(&recomputation))).backward().unwrap();
    let bits = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let mut inside = 0;
    for (name, var) in data.iter() {
        let got = recomputation.gradient(&store, var).unwrap().unwrap_or_else(|| panic!("{name}: no gradient"));
        assert_eq!(bits(&got), bits(plain.get(var).unwrap()), "{name}");
        inside += usize::from(store.get(var).is_none());
    }
    assert!(inside >= 3 * 11, "the layers were not checkpointed: {inside}");
}

/// A layer that runs again on the way back must drop what it dropped on the way forward.
#[test]
fn dropout_of_adapters_is_drawn_alike_on_the_way_back_and_only_inside_a_step() {
    let stored = Lora::load(&fixtures().join("adapter"), DType::F32, &Device::Cpu).unwrap();
    let mut config = stored.config().clone();
    config.lora_dropout = 0.3;
    let mut model = load(Kernels::Differentiable);
    let mut vars: Vec<Var> = Vec::new();
    let mut make = |site: &Site<'_>| {
        let mut var = |rows: usize, columns: usize| {
            let values = (0..rows * columns).map(|i| (0.7 * i as f32 + rows as f32).sin() * 0.2).collect::<Vec<_>>();
            vars.push(Var::from_vec(values, (rows, columns), &Device::Cpu)?);
            Ok::<_, model::Error>(vars[vars.len() - 1].as_tensor().clone())
        };
        Ok((var(site.rank, site.input)?, var(site.output, site.rank)?))
    };
    Lora::add(config, &mut model, &mut make).unwrap();
    let bits = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let gradients = |recomputation: Option<&Recomputation>, seed: u64| {
        let _step = Dropout::with_seed(seed);
        let store = loss(&logits(&model, recomputation)).backward().unwrap();
        let none = Recomputation::new([]);
        let all = recomputation.unwrap_or(&none);
        vars.iter().map(|v| bits(&all.gradient(&store, v).unwrap().unwrap())).collect::<Vec<_>>()
    };
    let plain = gradients(None, 7);
    // But for rounding: what is not yet part of a graph goes by other kernels. Other elements make other gradients altogether.
    let apart = |other: &[Vec<f32>]| {
        let both = plain.iter().flatten().zip(other.iter().flatten());
        both.map(|(a, b)| (a - b).abs()).fold(0f32, f32::max)
    };
    let again = apart(&gradients(Some(&Recomputation::new(vars.iter().map(|v| v.as_tensor()))), 7));
    assert!(again < 1e-4, "{again}");
    let another = apart(&gradients(None, 8));
    assert!(another > 0.1, "another step drops other elements: {another}");

    let inside = {
        let _step = Dropout::with_seed(7);
        bits(&logits(&model, None))
    };
    let outside = bits(&logits(&model, None));
    assert_ne!(inside, outside);
    assert_eq!(outside, bits(&logits(&model, None)), "nothing is dropped outside of a step");
}
