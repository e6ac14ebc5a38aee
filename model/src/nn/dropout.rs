//! Dropout (Srivastava et al. 2014) that is the same whenever a layer runs again for the same step, as gradient
//! checkpointing asks for: what is dropped follows from the step's seed and the layer's name alone.

use std::cell::Cell;

use candle_core::{Result, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

thread_local! {
    /// Seed of the step that this thread is training; nothing is dropped where there is none.
    static STEP: Cell<Option<u64>> = const { Cell::new(None) };
}

/// While it lives, layers on this thread drop what their adapters' configs say. It must outlive the backward pass.
#[derive(Debug)]
pub struct Dropout {
    before: Option<u64>,
}

impl Dropout {
    /// Begins a step.
    #[must_use]
    pub fn with_seed(seed: u64) -> Self {
        Self { before: STEP.replace(Some(seed)) }
    }

    /// `x` with a share `p` of its elements set to zero and the rest scaled by `1 / (1 - p)`; `x` outside of a step.
    pub(super) fn apply(layer: &str, p: f64, x: &Tensor) -> Result<Tensor> {
        let Some(seed) = STEP.get().filter(|_| p > 0.0) else { return Ok(x.clone()) };
        // Of a published hash, so that a seed drops the same on every machine and under every compiler.
        let seed = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(layer).finalize();
        let mut rng = ChaCha8Rng::from_seed(seed.into());
        let kept = 1.0 / (1.0 - p);
        let mask: Vec<f32> =
            (0..x.elem_count()).map(|_| if rng.random::<f64>() < p { 0.0 } else { kept as f32 }).collect();
        x * Tensor::from_vec(mask, x.shape(), x.device())?.to_dtype(x.dtype())?
    }
}

impl Drop for Dropout {
    fn drop(&mut self) {
        STEP.set(self.before);
    }
}
