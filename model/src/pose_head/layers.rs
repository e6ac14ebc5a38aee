//! What heads are made of. Every operation has a gradient.

use std::collections::HashMap;

use candle_core::Tensor;
use candle_nn::{Init, VarBuilder};

use crate::Result;

/// Independent Gaussians, one a coordinate.
#[derive(Debug, Clone)]
pub struct Gaussian {
    /// `[n, k]`
    pub mean: Tensor,
    /// `[n, k]`, within its bounds.
    pub log_variance: Tensor,
}

impl Gaussian {
    /// Of a head's output: k means, then k log variances, which are clamped to `bounds`.
    ///
    /// # Shapes
    /// `output` `[n, 2k]`
    ///
    /// # Errors
    /// A tensor operation's.
    pub fn of(output: &Tensor, bounds: [f64; 2]) -> Result<Self> {
        let k = output.dim(1)? / 2;
        let log_variance = output.narrow(1, k, k)?.clamp(bounds[0], bounds[1])?;
        Ok(Self { mean: output.narrow(1, 0, k)?, log_variance })
    }
}

/// Two layers with a GELU between them, in f32.
#[derive(Debug, Clone)]
pub struct Mlp {
    inner: Layer,
    outer: Layer,
}

#[derive(Debug, Clone)]
struct Layer {
    weight: Tensor, // [out, in]
    bias: Tensor,   // [out]
}

impl Mlp {
    /// `sizes`: input, inner layer, output. Below `fc1` and `fc2`; with a trainable builder, missing tensors are zero.
    ///
    /// # Errors
    /// A tensor that is missing or has another shape.
    pub fn new(sizes: [usize; 3], vb: &VarBuilder<'_>) -> Result<Self> {
        Ok(Self {
            inner: Layer::new(sizes[0], sizes[1], &vb.pp("fc1"))?,
            outer: Layer::new(sizes[1], sizes[2], &vb.pp("fc2"))?,
        })
    }

    /// # Shapes
    /// `hidden` `[n, input]` of any type -> `[n, output]`
    ///
    /// # Errors
    /// Another width than the input's.
    pub fn forward(&self, hidden: &Tensor) -> Result<Tensor> {
        let hidden = hidden.to_dtype(self.inner.weight.dtype())?;
        self.outer.forward(&self.inner.forward(&hidden)?.gelu_erf()?)
    }

    /// Its tensors by their names below `prefix`.
    pub(super) fn collect(&self, prefix: &str, tensors: &mut HashMap<String, Tensor>) {
        for (layer, name) in [(&self.inner, "fc1"), (&self.outer, "fc2")] {
            tensors.insert(format!("{prefix}.{name}.weight"), layer.weight.clone());
            tensors.insert(format!("{prefix}.{name}.bias"), layer.bias.clone());
        }
    }
}

impl Layer {
    fn new(input: usize, output: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        Ok(Self {
            weight: vb.get_with_hints((output, input), "weight", Init::Const(0.0))?,
            bias: vb.get_with_hints(output, "bias", Init::Const(0.0))?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.matmul(&self.weight.t()?)?.broadcast_add(&self.bias)?)
    }
}
