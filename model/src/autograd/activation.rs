//! Functions of single numbers inside the feed-forward layers.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{CHUNK, exp, fused, parallel, rows, slice, with};

/// `silu(gate) * up`, with gradients for both.
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    if fused(gate) { gate.contiguous()?.apply_op2(&up.contiguous()?, SwiGlu) } else { gate.silu()? * up }
}

struct SwiGlu;

impl CustomOp2 for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(
        &self,
        g: &CpuStorage,
        g_layout: &Layout,
        u: &CpuStorage,
        u_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (gate, up) = (slice(g, g_layout)?, slice(u, u_layout)?);
        let mut out = vec![0f32; gate.len()];
        rows(&mut out, CHUNK, |at, out| {
            for ((o, &g), &u) in out.iter_mut().zip(&gate[at..]).zip(&up[at..]) {
                *o = g * sigmoid(g) * u;
            }
        });
        Ok((CpuStorage::F32(out), g_layout.shape().clone()))
    }

    fn bwd(&self, gate: &Tensor, up: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (gate, up, grad) = (gate.contiguous()?, up.contiguous()?, grad.contiguous()?);
        let mut d_gate = vec![0f32; gate.elem_count()];
        let mut d_up = vec![0f32; gate.elem_count()];
        with(&gate, |g| with(&up, |u| with(&grad, |d| back((g, u, d), &mut d_gate, &mut d_up))))???;
        let tensor = |values: Vec<f32>| Tensor::from_vec(values, gate.shape(), gate.device());
        Ok((Some(tensor(d_gate)?), Some(tensor(d_up)?)))
    }
}

/// `d u s (1 + g (1 - s))` and `d g s` with s the sigmoid of g.
fn back((gate, up, grad): (&[f32], &[f32], &[f32]), d_gate: &mut [f32], d_up: &mut [f32]) {
    let numbers = d_gate.len();
    let chunk = |(i, (d_gate, d_up)): (usize, (&mut [f32], &mut [f32]))| {
        let range = i * CHUNK..i * CHUNK + d_gate.len();
        let inputs = gate[range.clone()].iter().zip(&up[range.clone()]).zip(&grad[range]);
        for (((&g, &u), &d), (dg, du)) in inputs.zip(d_gate.iter_mut().zip(d_up)) {
            let s = sigmoid(g);
            *dg = d * u * s * (1.0 + g * (1.0 - s));
            *du = d * g * s;
        }
    };
    if parallel(numbers) {
        d_gate.par_chunks_mut(CHUNK).zip(d_up.par_chunks_mut(CHUNK)).enumerate().for_each(chunk);
    } else {
        d_gate.chunks_mut(CHUNK).zip(d_up.chunks_mut(CHUNK)).enumerate().for_each(chunk);
    }
}

/// GELU in its tanh form, with a gradient.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    if fused(x) { x.contiguous()?.apply_op1(Gelu) } else { x.gelu() }
}

/// `x * sigmoid(2 u)` with `u = sqrt(2 / pi) (x + 0.044715 x^3)`, which is the tanh form.
struct Gelu;

impl Gelu {
    const SQRT_2_OVER_PI: f32 = 0.797_884_6;
    const CUBIC: f32 = 0.044_715;

    fn sigmoid(x: f32) -> f32 {
        sigmoid(2.0 * Self::SQRT_2_OVER_PI * (x + Self::CUBIC * x * x * x))
    }
}

impl CustomOp1 for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice(storage, layout)?;
        let mut out = vec![0f32; x.len()];
        rows(&mut out, CHUNK, |at, out| {
            for (o, &x) in out.iter_mut().zip(&x[at..]) {
                *o = x * Self::sigmoid(x);
            }
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, arg: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(arg.contiguous()?.apply_op2_no_bwd(&grad.contiguous()?, &GeluBackward)?))
    }
}

struct GeluBackward;

impl CustomOp2 for GeluBackward {
    fn name(&self) -> &'static str {
        "gelu-backward"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        d: &CpuStorage,
        d_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, grad) = (slice(x, x_layout)?, slice(d, d_layout)?);
        let mut out = vec![0f32; x.len()];
        rows(&mut out, CHUNK, |at, out| {
            for ((o, &x), &d) in out.iter_mut().zip(&x[at..]).zip(&grad[at..]) {
                let s = Gelu::sigmoid(x);
                let inner = 2.0 * Gelu::SQRT_2_OVER_PI * (1.0 + 3.0 * Gelu::CUBIC * x * x);
                *o = d * (s + x * s * (1.0 - s) * inner);
            }
        });
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }
}

fn sigmoid(x: f32) -> f32 {
    let e = exp(-x.abs());
    let s = 1.0 / (1.0 + e);
    if x >= 0.0 { s } else { e * s }
}
