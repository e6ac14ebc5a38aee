//! Fused kernels that keep the graph.
//!
//! candle's composites of softmax and RMSNorm are right but allocate five tensors a call, forward and backward; on a
//! CPU that costs more than the matrix products of a small model. These do one pass each. Only f32 on the CPU takes
//! them; everything else falls back to the composites. Large tensors are shared out among rayon's threads, row by row.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, DType, Device, Layout, Result, Shape, Storage, Tensor, bail};
use rayon::prelude::*;

mod activation;
mod known;
mod norm;
pub mod recompute;
mod rope;

pub use activation::{gelu, swiglu};
pub(crate) use known::Known;
pub use norm::{layer_norm, rms_norm};
pub use rope::rope;

/// Numbers that are worth a thread of their own.
const SHARE: usize = 1 << 15;
/// Numbers that a function of single numbers takes at a time.
const CHUNK: usize = 1 << 12;

fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let CpuStorage::F32(data) = storage else { bail!("expected f32 on the CPU") };
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&data[start..end]),
        None => bail!("expected a contiguous tensor"),
    }
}

/// The numbers of a tensor while `f` reads them.
fn with<T>(x: &Tensor, f: impl FnOnce(&[f32]) -> T) -> Result<T> {
    let (storage, layout) = x.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else { bail!("expected the CPU") };
    Ok(f(slice(storage, layout)?))
}

/// Whether work on so many numbers is worth several threads. A pool of one would make all who come wait for it.
pub fn parallel(numbers: usize) -> bool {
    numbers >= 2 * SHARE && rayon::current_num_threads() > 1
}

/// Calls `f` with each row of `out`, `width` numbers long, and its place in the whole.
pub fn rows(out: &mut [f32], width: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    let width = width.max(1);
    let f = |(i, row): (usize, &mut [f32])| {
        wide(
            #[inline(always)]
            || f(i * width, row),
        );
    };
    if parallel(out.len()) {
        out.par_chunks_mut(width).with_min_len(SHARE.div_ceil(width)).enumerate().for_each(f);
    } else {
        out.chunks_mut(width).enumerate().for_each(f);
    }
}

/// Runs plain loops in the widest registers that the processor has, not in those that all of its kind have.
#[inline(always)]
pub fn wide<T>(f: impl FnOnce() -> T) -> T {
    pulp::Arch::new().dispatch(f)
}

/// Whether there is a kernel of ours for it.
pub(crate) fn fused(x: &Tensor) -> bool {
    x.dtype() == DType::F32 && x.device().is_cpu()
}

/// `softmax(scale * x)` over the last dimension of `[.., t, s]`, with a gradient. Where `causal`, row i of the t last
/// of s tokens sees no token behind it.
pub fn softmax(x: &Tensor, scale: f64, causal: bool) -> Result<Tensor> {
    if fused(x) {
        return x.contiguous()?.apply_op1(Softmax { scale: scale as f32, causal });
    }
    // In f32 whatever comes in, as the reference does: sums of many small shares are lost in bf16.
    let (t, s) = (x.dim(D::Minus2)?, x.dim(D::Minus1)?);
    let scaled = (x.to_dtype(DType::F32)? * scale)?;
    let seen = if !causal || t == 1 { scaled } else { scaled.broadcast_add(&mask(t, s, x.device())?)? };
    // candle's kernel is one launch, and has no way back.
    let shares = if seen.track_op() {
        candle_nn::ops::softmax(&seen, D::Minus1)
    } else {
        candle_nn::ops::softmax_last_dim(&seen)
    };
    shares?.to_dtype(x.dtype())
}

/// `[t, s]`, made where it is used (a prompt's is megabytes, asked for by every layer): 0 where row i of the t last of s tokens
/// sees a token, and minus infinity behind it.
fn mask(t: usize, s: usize, device: &Device) -> Result<Tensor> {
    let row = Tensor::arange((s - t) as u32, s as u32, device)?.unsqueeze(1)?;
    let column = Tensor::arange(0, s as u32, device)?.unsqueeze(0)?;
    let number = |x: f32| Tensor::new(x, device)?.broadcast_as((t, s));
    column.broadcast_gt(&row)?.where_cond(&number(f32::NEG_INFINITY)?, &number(0.0)?)
}

#[derive(Clone, Copy)]
struct Softmax {
    scale: f32,
    causal: bool,
}

impl Softmax {
    /// Rows of a `[.., t, s]` tensor with the number of columns that each sees.
    fn seen(self, layout: &Layout) -> (usize, impl Fn(usize) -> usize + Sync) {
        let dims = layout.dims();
        let s = dims.last().copied().unwrap_or(1);
        let t = dims.iter().rev().nth(1).copied().unwrap_or(1).max(1);
        (s, move |row| if self.causal { (s - t.min(s)) + row % t + 1 } else { s })
    }
}

impl CustomOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice(storage, layout)?;
        let (width, seen) = self.seen(layout);
        let mut out = vec![0f32; x.len()];
        rows(&mut out, width, |at, out| {
            let seen = seen(at / width);
            let (row, out) = (&x[at..at + seen], &mut out[..seen]);
            let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max) * self.scale;
            for (o, &v) in out.iter_mut().zip(row) {
                *o = exp(v * self.scale - max);
            }
            let inverse = 1.0 / sum(out);
            out.iter_mut().for_each(|o| *o *= inverse);
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(res.contiguous()?.apply_op2_no_bwd(&grad.contiguous()?, &SoftmaxBackward(*self))?))
    }
}

/// `dx = scale * y * (dy - sum(dy * y))`.
struct SoftmaxBackward(Softmax);

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
        let (width, seen) = self.0.seen(y_layout);
        let mut out = vec![0f32; y.len()];
        rows(&mut out, width, |at, out| {
            let n = seen(at / width);
            let (y, g) = (&y[at..at + n], &grad[at..at + n]);
            let dot = dot(y, g);
            for ((o, &y), &g) in out[..n].iter_mut().zip(y).zip(g) {
                *o = self.0.scale * y * (g - dot);
            }
        });
        Ok((CpuStorage::F32(out), y_layout.shape().clone()))
    }
}

/// Sum in eight lanes, which vectorises where a running sum may not.
#[inline(always)]
pub fn sum(x: &[f32]) -> f32 {
    let (chunks, rest) = x.as_chunks::<8>();
    let mut lanes = [0f32; 8];
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(l, v)| *l += v);
    }
    lanes.iter().sum::<f32>() + rest.iter().sum::<f32>()
}

/// Dot product in eight lanes.
#[inline(always)]
pub fn dot(x: &[f32], y: &[f32]) -> f32 {
    let ((xs, x_rest), (ys, y_rest)) = (x.as_chunks::<8>(), y.as_chunks::<8>());
    let mut lanes = [0f32; 8];
    for (x, y) in xs.iter().zip(ys) {
        for k in 0..8 {
            lanes[k] += x[k] * y[k];
        }
    }
    lanes.iter().sum::<f32>() + x_rest.iter().zip(y_rest).map(|(x, y)| x * y).sum::<f32>()
}

/// `e^x` for `x <= 0` to 1e-5 relative (1e-6 where it matters, near 0), in a form that the compiler can vectorise.
#[inline]
pub fn exp(x: f32) -> f32 {
    // Not `max`, which would turn NaN into a number.
    let x = if x < -87.0 { -87.0 } else { x };
    // x = (n + r) ln 2 with |r| <= 1/2. Added to this, a small number is rounded, and stands in the lowest bits: casts that saturate
    // are made one by one.
    const ROUND: f32 = 12_582_912.0;
    let scaled = x * std::f32::consts::LOG2_E;
    let rounded = scaled + ROUND;
    let n = rounded.to_bits().wrapping_sub(ROUND.to_bits());
    let r = (scaled - (rounded - ROUND)) * std::f32::consts::LN_2;
    // Taylor to the seventh order on |r| <= 0.35.
    let p = 1.0 / 5040.0;
    let p = p * r + 1.0 / 720.0;
    let p = p * r + 1.0 / 120.0;
    let p = p * r + 1.0 / 24.0;
    let p = p * r + 1.0 / 6.0;
    let p = p * r + 0.5;
    let p = p * r + 1.0;
    let p = p * r + 1.0;
    f32::from_bits(n.wrapping_add(127) << 23) * p
}

#[cfg(test)]
mod tests;
