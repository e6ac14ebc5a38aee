//! RMSNorm and LayerNorm.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, Layout, Result, Shape, Tensor, bail};

use super::{dot, fused, rows, slice, sum, with};

/// RMSNorm over the last dimension, with gradients for the input and, where it is trained, the weight.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    if !fused(x) {
        return candle_nn::ops::rms_norm_slow(x, weight, eps);
    }
    normalise(x, Normalise { eps, centre: false, weight: None, bias: None }, weight, None)
}

/// LayerNorm over the last dimension, with gradients for the input and, where they are trained, the weight and the bias.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
    if !fused(x) {
        return candle_nn::ops::layer_norm_slow(x, weight, bias, eps);
    }
    normalise(x, Normalise { eps, centre: true, weight: None, bias: None }, weight, Some(bias))
}

/// Constant weights are part of the kernel. Of others the product makes the gradient: candle's would make one of
/// constants too.
fn normalise(x: &Tensor, kernel: Normalise, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let x = x.contiguous()?;
    for part in [Some(weight), bias].into_iter().flatten() {
        if part.dims() != [x.dim(D::Minus1)?] {
            bail!("norm: expected a weight and a bias as wide as the rows of {:?}, got {:?}", x.dims(), part.dims());
        }
    }
    if !weight.track_op() && bias.is_none_or(|bias| !bias.track_op()) {
        return x.apply_op1(Normalise { weight: Some(weight.clone()), bias: bias.cloned(), ..kernel });
    }
    let y = x.apply_op1(kernel)?.broadcast_mul(weight)?;
    bias.map_or(Ok(y.clone()), |bias| y.broadcast_add(bias))
}

/// `y = w (x - m) / sqrt(mean((x - m)^2) + eps) + b` with `m` the mean where centred, else 0; w is 1 and b is 0 where
/// there is none.
#[derive(Clone)]
struct Normalise {
    eps: f32,
    centre: bool,
    weight: Option<Tensor>,
    bias: Option<Tensor>,
}

impl Normalise {
    /// Mean and inverse deviation of a row.
    fn moments(&self, row: &[f32]) -> (f32, f32) {
        let n = row.len() as f32;
        let mean = if self.centre { sum(row) / n } else { 0.0 };
        let variance = dot(row, row) / n - mean * mean;
        (mean, 1.0 / (variance + self.eps).sqrt())
    }
}

/// Calls `f` with the numbers of a tensor, where there is one.
fn maybe<T>(x: Option<&Tensor>, f: impl FnOnce(Option<&[f32]>) -> T) -> Result<T> {
    match x {
        Some(x) => with(x, |values| f(Some(values))),
        None => Ok(f(None)),
    }
}

impl CustomOp1 for Normalise {
    fn name(&self) -> &'static str {
        "normalise"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice(storage, layout)?;
        let width = layout.dims().last().copied().unwrap_or(1);
        let mut out = vec![0f32; x.len()];
        let mut run = |weight: Option<&[f32]>, bias: Option<&[f32]>| {
            rows(&mut out, width, |at, out| {
                let row = &x[at..at + out.len()];
                let (mean, scale) = self.moments(row);
                for (o, &v) in out.iter_mut().zip(row) {
                    *o = (v - mean) * scale;
                }
                if let Some(weight) = weight {
                    out.iter_mut().zip(weight).for_each(|(o, w)| *o *= w);
                }
                if let Some(bias) = bias {
                    out.iter_mut().zip(bias).for_each(|(o, b)| *o += b);
                }
            });
        };
        maybe(self.weight.as_ref(), |weight| maybe(self.bias.as_ref(), |bias| run(weight, bias)))??;
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, arg: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(arg.contiguous()?.apply_op2_no_bwd(&grad.contiguous()?, &NormaliseBackward(self.clone()))?))
    }
}

/// `dx = s (g - mean(g) - y mean(g y))` with `g = w dy` and y the row before weight and bias; the first mean only where
/// centred.
struct NormaliseBackward(Normalise);

impl CustomOp2 for NormaliseBackward {
    fn name(&self) -> &'static str {
        "normalise-backward"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        grad: &CpuStorage,
        grad_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, grad) = (slice(x, x_layout)?, slice(grad, grad_layout)?);
        let width = x_layout.dims().last().copied().unwrap_or(1);
        let n = width as f32;
        let mut out = grad.to_vec();
        let run = |weight: Option<&[f32]>| {
            rows(&mut out, width, |at, g| {
                let x = &x[at..at + g.len()];
                if let Some(weight) = weight {
                    g.iter_mut().zip(weight).for_each(|(g, w)| *g *= w);
                }
                let (mean, s) = self.0.moments(x);
                let sum_g = sum(g);
                let along = (dot(x, g) - mean * sum_g) * s / n;
                let mean_g = if self.0.centre { sum_g / n } else { 0.0 };
                for (g, &x) in g.iter_mut().zip(x) {
                    *g = s * (*g - mean_g - (x - mean) * s * along);
                }
            });
        };
        maybe(self.0.weight.as_ref(), run)?;
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }
}
