//! Rotary embedding.

use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor};

use super::{fused, rows, slice, with};

/// Rotary embedding of the halves of `x` `[b, h, t, e]` with tables `[b, t, e / 2]`, with a gradient for `x`.
pub fn rope(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    if fused(x) {
        return x.contiguous()?.apply_op1(Rope { cos: cos.clone(), sin: sin.clone() });
    }
    let half = x.dim(D::Minus1)? / 2;
    let (a, b) = (x.narrow(D::Minus1, 0, half)?, x.narrow(D::Minus1, half, half)?);
    let (cos, sin) = (cos.unsqueeze(1)?, sin.unsqueeze(1)?);
    let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
    Tensor::cat(&[first, second], D::Minus1)
}

struct Rope {
    cos: Tensor,
    sin: Tensor,
}

impl CustomOp1 for Rope {
    fn name(&self) -> &'static str {
        "rope"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice(storage, layout)?;
        let (_, h, t, e) = layout.shape().dims4()?;
        let half = e / 2;
        let mut out = vec![0f32; x.len()];
        let mut turn = |cos: &[f32], sin: &[f32]| {
            rows(&mut out, e, |at, out| {
                let i = at / e;
                let row = (i / (h * t) * t + i % t) * half;
                let (cos, sin) = (&cos[row..row + half], &sin[row..row + half]);
                let (a, b) = x[at..at + e].split_at(half);
                let (first, second) = out.split_at_mut(half);
                for k in 0..half {
                    first[k] = a[k] * cos[k] - b[k] * sin[k];
                    second[k] = b[k] * cos[k] + a[k] * sin[k];
                }
            });
        };
        with(&self.cos, |cos| with(&self.sin, |sin| turn(cos, sin)))??;
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    /// A rotation's transpose turns the other way.
    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let back = Rope { cos: self.cos.clone(), sin: self.sin.neg()? };
        Ok(Some(grad.contiguous()?.apply_op1_no_bwd(&back)?))
    }
}
