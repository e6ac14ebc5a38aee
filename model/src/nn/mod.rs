//! The few layers that both towers share.
//!
//! candle's fused kernels (`softmax_last_dim`, `rms_norm`, `rope`, the fast path of `LayerNorm`) return tensors without
//! a graph: a backward pass through them succeeds and simply has no gradient below. [`Kernels`] chooses between them and
//! their differentiable twins once, when the model is built.

use candle_core::{DType, Device, Module, Tensor};
use candle_nn::Init;

use crate::Result;
use crate::weights::loader::Loader;
pub use attention::{KeyValues, attention, attention_rounding};
pub use dropout::Dropout;
pub use linear::{Adapter, Linear};
pub use matrix::{Matrix, Quantized};

mod attention;
mod dropout;
mod few_rows;
mod int8;
mod linear;
pub(crate) mod matrix;
mod shared;

/// Which kernels the layers call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernels {
    /// Fast, without gradients.
    Fused,
    /// Every operation has a backward.
    Differentiable,
}

/// LayerNorm with weight and bias over the last dimension.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f32,
    kernels: Kernels,
}

impl LayerNorm {
    /// Loads `weight` and `bias`, `[width]` each.
    pub fn new(width: usize, eps: f32, kernels: Kernels, vb: &Loader<'_>) -> Result<Self> {
        let weight = vb.tensor(width, "weight", Init::Const(1.0))?;
        let bias = vb.tensor(width, "bias", Init::Const(0.0))?;
        Ok(Self { weight, bias, eps, kernels })
    }

    pub(crate) fn set_kernels(&mut self, kernels: Kernels) {
        self.kernels = kernels;
    }
}

impl Module for LayerNorm {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        match self.kernels {
            Kernels::Fused => candle_nn::ops::layer_norm(&x.contiguous()?, &self.weight, &self.bias, self.eps),
            Kernels::Differentiable => crate::autograd::layer_norm(x, &self.weight, &self.bias, self.eps),
        }
    }
}

/// RMSNorm over the last dimension.
#[derive(Debug, Clone)]
pub struct RmsNorm {
    weight: Tensor,
    eps: f32,
    kernels: Kernels,
}

impl RmsNorm {
    /// Loads `weight`, `[width]`.
    pub fn new(width: usize, eps: f64, kernels: Kernels, vb: &Loader<'_>) -> Result<Self> {
        let weight = vb.tensor(width, "weight", Init::Const(1.0))?;
        Ok(Self { weight, eps: eps as f32, kernels })
    }

    pub(crate) fn set_kernels(&mut self, kernels: Kernels) {
        self.kernels = kernels;
    }
}

impl Module for RmsNorm {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        match self.kernels {
            Kernels::Fused => candle_nn::ops::rms_norm(&x.contiguous()?, &self.weight, self.eps),
            Kernels::Differentiable => crate::autograd::rms_norm(x, &self.weight, self.eps),
        }
    }
}

/// Cosine and sine tables of a rotary embedding, one row a token.
#[derive(Debug, Clone)]
pub struct Rotary {
    cos: Tensor, // [b, t, head_dim / 2]
    sin: Tensor,
}

impl Rotary {
    /// From the angles of every token.
    ///
    /// # Shapes
    /// `angles`: `batch * tokens * half` values, radians
    pub fn new(angles: &[f32], batch: usize, tokens: usize, dtype: DType, device: &Device) -> Result<Self> {
        let half = angles.len() / (batch * tokens).max(1);
        let table = |f: fn(f32) -> f32| -> Result<Tensor> {
            let values: Vec<f32> = angles.iter().map(|&a| f(a)).collect();
            Ok(Tensor::from_vec(values, (batch, tokens, half), device)?.to_dtype(dtype)?)
        };
        Ok(Self { cos: table(f32::cos)?, sin: table(f32::sin)? })
    }

    /// Rotates the two halves of every head against each other.
    ///
    /// # Shapes
    /// `[b, h, t, head_dim] -> [b, h, t, head_dim]`
    pub fn apply(&self, x: &Tensor, kernels: Kernels) -> Result<Tensor> {
        Ok(match kernels {
            Kernels::Fused => candle_nn::rotary_emb::rope(&x.contiguous()?, &self.cos, &self.sin)?,
            Kernels::Differentiable => crate::autograd::rope(x, &self.cos, &self.sin)?,
        })
    }
}
