//! Fused kernels that keep the graph.
//!
//! candle's composites of softmax and RMSNorm are right but allocate five tensors a call, forward and backward; on a
//! CPU that costs more than the matrix products of a small model. These do one pass each. Only f32 on the CPU takes
//! them; everything else falls back to the composites.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, DType, Layout, Result, Shape, Tensor, bail};

fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let CpuStorage::F32(data) = storage else { bail!("expected f32 on the CPU") };
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&data[start..end]),
        None => bail!("expected a contiguous tensor"),
    }
}

fn fused(x: &Tensor) -> bool {
    x.dtype() == DType::F32 && x.device().is_cpu()
}

/// Softmax over the last dimension, with a gradient.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    if fused(x) { x.contiguous()?.apply_op1(Softmax) } else { candle_nn::ops::softmax(x, D::Minus1) }
}

struct Softmax;

impl CustomOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice(storage, layout)?;
        let width = layout.dims().last().copied().unwrap_or(1);
        let mut out = vec![0f32; x.len()];
        for (row, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut sum = 0f32;
            for (o, &v) in out.iter_mut().zip(row) {
                *o = exp(v - max);
                sum += *o;
            }
            let scale = 1.0 / sum;
            out.iter_mut().for_each(|o| *o *= scale);
        }
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(res.contiguous()?.apply_op2_no_bwd(&grad.contiguous()?, &SoftmaxBackward)?))
    }
}

/// `dx = y * (dy - sum(dy * y))`.
struct SoftmaxBackward;

impl CustomOp2 for SoftmaxBackward {
    fn name(&self) -> &'static str {
        "softmax-backward"
    }

    fn cpu_fwd(
        &self,
        y: &CpuStorage,
        y_layout: &Layout,
        grad: &CpuStorage,
        grad_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (y, grad) = (slice(y, y_layout)?, slice(grad, grad_layout)?);
        let width = y_layout.dims().last().copied().unwrap_or(1);
        let mut out = vec![0f32; y.len()];
        let rows = y.chunks_exact(width).zip(grad.chunks_exact(width));
        for ((y, g), out) in rows.zip(out.chunks_exact_mut(width)) {
            let dot: f32 = y.iter().zip(g).map(|(y, g)| y * g).sum();
            for ((o, &y), &g) in out.iter_mut().zip(y).zip(g) {
                *o = y * (g - dot);
            }
        }
        Ok((CpuStorage::F32(out), y_layout.shape().clone()))
    }
}

/// RMSNorm over the last dimension, with gradients for the input and the weight.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    if fused(x) {
        // The norm without its weight is a function of one tensor; the product below gives the weight its gradient.
        x.contiguous()?.apply_op1(Normalise { eps })?.broadcast_mul(weight)
    } else {
        candle_nn::ops::rms_norm_slow(x, weight, eps)
    }
}

/// `y = x / sqrt(mean(x^2) + eps)`.
struct Normalise {
    eps: f32,
}

impl Normalise {
    fn inverse_rms(&self, row: &[f32]) -> f32 {
        let mean = row.iter().map(|v| v * v).sum::<f32>() / row.len() as f32;
        1.0 / (mean + self.eps).sqrt()
    }
}

impl CustomOp1 for Normalise {
    fn name(&self) -> &'static str {
        "rms-normalise"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice(storage, layout)?;
        let width = layout.dims().last().copied().unwrap_or(1);
        let mut out = vec![0f32; x.len()];
        for (row, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let scale = self.inverse_rms(row);
            for (o, &v) in out.iter_mut().zip(row) {
                *o = v * scale;
            }
        }
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, arg: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let backward = NormaliseBackward(Normalise { eps: self.eps });
        Ok(Some(arg.contiguous()?.apply_op2_no_bwd(&grad.contiguous()?, &backward)?))
    }
}

/// `dx = s * (dy - x * s^2 * mean(dy * x))` with `s` the inverse RMS.
struct NormaliseBackward(Normalise);

impl CustomOp2 for NormaliseBackward {
    fn name(&self) -> &'static str {
        "rms-normalise-backward"
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
        let mut out = vec![0f32; x.len()];
        let rows = x.chunks_exact(width).zip(grad.chunks_exact(width));
        for ((x, g), out) in rows.zip(out.chunks_exact_mut(width)) {
            let s = self.0.inverse_rms(x);
            let dot = x.iter().zip(g).map(|(x, g)| x * g).sum::<f32>() / width as f32;
            for ((o, &x), &g) in out.iter_mut().zip(x).zip(g) {
                *o = s * (g - x * s * s * dot);
            }
        }
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }
}

/// `e^x` for `x <= 0` to about 2e-7 relative, in a form that the compiler can vectorise.
#[inline]
fn exp(x: f32) -> f32 {
    // Not `max`, which would turn NaN into a number.
    let x = if x < -87.0 { -87.0 } else { x };
    // x = (n + r) ln 2 with |r| <= 1/2.
    let scaled = x * std::f32::consts::LOG2_E;
    let n = (scaled - 0.5) as i32;
    let r = (scaled - n as f32) * std::f32::consts::LN_2;
    // Taylor to the seventh order on |r| <= 0.35.
    let p = 1.0 / 5040.0;
    let p = p * r + 1.0 / 720.0;
    let p = p * r + 1.0 / 120.0;
    let p = p * r + 1.0 / 24.0;
    let p = p * r + 1.0 / 6.0;
    let p = p * r + 0.5;
    let p = p * r + 1.0;
    let p = p * r + 1.0;
    f32::from_bits(((n + 127) << 23) as u32) * p
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    /// Both directions against candle's composites.
    fn check(
        fused: impl Fn(&Tensor) -> Result<Tensor>,
        composite: impl Fn(&Tensor) -> Result<Tensor>,
    ) -> Result<()> {
        let x = Var::randn(0f32, 3.0, (4, 5, 33), &Device::Cpu)?;
        let weight = Tensor::randn(0f32, 1.0, (4, 5, 33), &Device::Cpu)?;
        let run = |f: &dyn Fn(&Tensor) -> Result<Tensor>| -> Result<(Tensor, Tensor)> {
            let y = f(x.as_tensor())?;
            let grads = (&y * &weight)?.sum_all()?.backward()?;
            let Some(grad) = grads.get(&x) else { bail!("no gradient") };
            Ok((y, grad.clone()))
        };
        let ((a, da), (b, db)) = (run(&fused)?, run(&composite)?);
        for (got, expected) in [(a, b), (da, db)] {
            let error = (got - expected)?.abs()?.max_all()?.to_scalar::<f32>()?;
            assert!(error < 2e-5, "{error}");
        }
        Ok(())
    }

    #[test]
    fn softmax_agrees_with_the_composite() -> Result<()> {
        check(softmax, |x| candle_nn::ops::softmax(x, D::Minus1))
    }

    #[test]
    fn rms_norm_agrees_with_the_composite() -> Result<()> {
        let w = Tensor::rand(0.5f32, 1.5, 33, &Device::Cpu)?;
        check(|x| rms_norm(x, &w, 1e-6), |x| candle_nn::ops::rms_norm_slow(x, &w, 1e-6))
    }

    #[test]
    fn exp_is_close_over_its_range() {
        for i in 0..8700 {
            let x = -i as f32 * 0.01;
            let (got, expected) = (exp(x), x.exp());
            assert!((got - expected).abs() <= 1e-6 * expected.max(f32::MIN_POSITIVE), "{x}: {got} {expected}");
        }
    }
}
