//! Gradient checkpointing gives the gradients that training without it gives, bit for bit.

use model::checkpoint::Checkpoints;

use crate::reference::{logits, loss, trainable};

#[test]
fn gradients_are_equal_bit_for_bit() {
    let (model, variables) = trainable();
    let data = variables.data().lock().unwrap();
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
