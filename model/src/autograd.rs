//! Fused kernels that keep the graph.
//!
//! candle's composites of softmax and RMSNorm are right but allocate five tensors a call, forward and backward; on a
//! CPU that costs more than the matrix products of a small model. These do one pass each. Only f32 on the CPU takes
//! them; everything else falls back to the composites.

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, D, DType, Layout, Result, Shape, Storage, Tensor, bail,
};

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

/// `softmax(scale * x)` over the last dimension of `[.., t, s]`, with a gradient. Where `causal`, row i of the t last
/// of s tokens sees no token behind it.
pub fn softmax(x: &Tensor, scale: f64, causal: bool) -> Result<Tensor> {
    if fused(x) {
        return x.contiguous()?.apply_op1(Softmax { scale: scale as f32, causal });
    }
    // In f32 whatever comes in, as the reference does: sums of many small shares are lost in bf16.
    let (t, s) = (x.dim(D::Minus2)?, x.dim(D::Minus1)?);
    let scaled = (x.to_dtype(DType::F32)? * scale)?;
    let shares = if !causal || t == 1 {
        candle_nn::ops::softmax(&scaled, D::Minus1)?
    } else {
        let mut mask = vec![0f32; t * s];
        for (row, values) in mask.chunks_exact_mut(s).enumerate() {
            values[s - t + row + 1..].fill(f32::NEG_INFINITY);
        }
        let mask = Tensor::from_vec(mask, (t, s), x.device())?;
        candle_nn::ops::softmax(&scaled.broadcast_add(&mask)?, D::Minus1)?
    };
    shares.to_dtype(x.dtype())
}

#[derive(Clone, Copy)]
struct Softmax {
    scale: f32,
    causal: bool,
}

impl Softmax {
    /// Rows of a `[.., t, s]` tensor with the number of columns that each sees.
    fn seen(self, layout: &Layout) -> (usize, impl Fn(usize) -> usize) {
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
        for (i, (row, out)) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)).enumerate() {
            let (row, out) = (&row[..seen(i)], &mut out[..seen(i)]);
            let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max) * self.scale;
            for (o, &v) in out.iter_mut().zip(row) {
                *o = exp(v * self.scale - max);
            }
            let inverse = 1.0 / sum(out);
            out.iter_mut().for_each(|o| *o *= inverse);
        }
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
        let rows = y.chunks_exact(width).zip(grad.chunks_exact(width));
        for (i, ((y, g), out)) in rows.zip(out.chunks_exact_mut(width)).enumerate() {
            let n = seen(i);
            let dot = dot(&y[..n], &g[..n]);
            for ((o, &y), &g) in out[..n].iter_mut().zip(y).zip(g) {
                *o = self.0.scale * y * (g - dot);
            }
        }
        Ok((CpuStorage::F32(out), y_layout.shape().clone()))
    }
}

/// RMSNorm over the last dimension, with gradients for the input and the weight.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    if fused(x) {
        // The norm without its weight is a function of one tensor; the product gives the weight its gradient.
        x.contiguous()?.apply_op1(Normalise { eps, centre: false })?.broadcast_mul(weight)
    } else {
        candle_nn::ops::rms_norm_slow(x, weight, eps)
    }
}

/// LayerNorm over the last dimension, with gradients for the input, the weight and the bias.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
    if fused(x) {
        let normalised = x.contiguous()?.apply_op1(Normalise { eps, centre: true })?;
        normalised.broadcast_mul(weight)?.broadcast_add(bias)
    } else {
        candle_nn::ops::layer_norm_slow(x, weight, bias, eps)
    }
}

/// `y = (x - m) / sqrt(mean((x - m)^2) + eps)` with `m` the mean where centred, else 0.
#[derive(Clone, Copy)]
struct Normalise {
    eps: f32,
    centre: bool,
}

impl Normalise {
    /// Mean and inverse deviation of a row.
    fn moments(self, row: &[f32]) -> (f32, f32) {
        let n = row.len() as f32;
        let mean = if self.centre { sum(row) / n } else { 0.0 };
        let variance = dot(row, row) / n - mean * mean;
        (mean, 1.0 / (variance + self.eps).sqrt())
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
        for (row, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let (mean, scale) = self.moments(row);
            for (o, &v) in out.iter_mut().zip(row) {
                *o = (v - mean) * scale;
            }
        }
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, arg: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(arg.contiguous()?.apply_op2_no_bwd(&grad.contiguous()?, &NormaliseBackward(*self))?))
    }
}

/// `dx = s * (dy - mean(dy) - y * mean(dy * y))`, the first mean only where centred.
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
        let mut out = vec![0f32; x.len()];
        let rows = x.chunks_exact(width).zip(grad.chunks_exact(width));
        for ((x, g), out) in rows.zip(out.chunks_exact_mut(width)) {
            let (mean, s) = self.0.moments(x);
            let sum_g = sum(g);
            let along = (dot(x, g) - mean * sum_g) * s / n;
            let mean_g = if self.0.centre { sum_g / n } else { 0.0 };
            for ((o, &x), &g) in out.iter_mut().zip(x).zip(g) {
                *o = s * (g - mean_g - (x - mean) * s * along);
            }
        }
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }
}

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
        let out = gate.iter().zip(up).map(|(&g, &u)| g * sigmoid(g) * u).collect();
        Ok((CpuStorage::F32(out), g_layout.shape().clone()))
    }

    fn bwd(&self, gate: &Tensor, up: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (gate, up, grad) = (gate.contiguous()?, up.contiguous()?, grad.contiguous()?);
        let d_up = gate.apply_op2_no_bwd(&grad, &SiluTimes)?;
        let d_gate = gate.apply_op3_no_bwd(&up, &grad, &SwiGluGate)?;
        Ok((Some(d_gate), Some(d_up)))
    }
}

/// `silu(gate) * grad`
struct SiluTimes;

impl CustomOp2 for SiluTimes {
    fn name(&self) -> &'static str {
        "silu-times"
    }

    fn cpu_fwd(
        &self,
        g: &CpuStorage,
        g_layout: &Layout,
        d: &CpuStorage,
        d_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        SwiGlu.cpu_fwd(g, g_layout, d, d_layout)
    }
}

/// `grad * up * s * (1 + gate * (1 - s))` with s the sigmoid of the gate.
struct SwiGluGate;

impl CustomOp3 for SwiGluGate {
    fn name(&self) -> &'static str {
        "swiglu-gate"
    }

    fn cpu_fwd(
        &self,
        g: &CpuStorage,
        g_layout: &Layout,
        u: &CpuStorage,
        u_layout: &Layout,
        d: &CpuStorage,
        d_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (gate, up, grad) = (slice(g, g_layout)?, slice(u, u_layout)?, slice(d, d_layout)?);
        let both = gate.iter().zip(up).zip(grad);
        let out = both
            .map(|((&g, &u), &d)| {
                let s = sigmoid(g);
                d * u * s * (1.0 + g * (1.0 - s))
            })
            .collect();
        Ok((CpuStorage::F32(out), g_layout.shape().clone()))
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
        let out = slice(storage, layout)?.iter().map(|&x| x * Self::sigmoid(x)).collect();
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
        let out = x
            .iter()
            .zip(grad)
            .map(|(&x, &d)| {
                let s = Gelu::sigmoid(x);
                let inner = 2.0 * Gelu::SQRT_2_OVER_PI * (1.0 + 3.0 * Gelu::CUBIC * x * x);
                d * (s + x * s * (1.0 - s) * inner)
            })
            .collect();
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }
}

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
        let (cos_storage, cos_layout) = self.cos.storage_and_layout();
        let (sin_storage, sin_layout) = self.sin.storage_and_layout();
        let (Storage::Cpu(cos), Storage::Cpu(sin)) = (&*cos_storage, &*sin_storage) else { bail!("expected the CPU") };
        let (cos, sin) = (slice(cos, cos_layout)?, slice(sin, sin_layout)?);
        let half = e / 2;
        let mut out = vec![0f32; x.len()];
        for (i, (x, out)) in x.chunks_exact(e).zip(out.chunks_exact_mut(e)).enumerate() {
            let row = (i / (h * t) * t + i % t) * half;
            let (cos, sin) = (&cos[row..row + half], &sin[row..row + half]);
            let (a, b) = x.split_at(half);
            let (first, second) = out.split_at_mut(half);
            for k in 0..half {
                first[k] = a[k] * cos[k] - b[k] * sin[k];
                second[k] = b[k] * cos[k] + a[k] * sin[k];
            }
        }
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    /// A rotation's transpose turns the other way.
    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let back = Rope { cos: self.cos.clone(), sin: self.sin.neg()? };
        Ok(Some(grad.contiguous()?.apply_op1_no_bwd(&back)?))
    }
}

fn sigmoid(x: f32) -> f32 {
    let e = exp(-x.abs());
    let s = 1.0 / (1.0 + e);
    if x >= 0.0 { s } else { e * s }
}

/// Sum in eight lanes, which vectorises where a running sum may not.
fn sum(x: &[f32]) -> f32 {
    let (chunks, rest) = x.as_chunks::<8>();
    let mut lanes = [0f32; 8];
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(l, v)| *l += v);
    }
    lanes.iter().sum::<f32>() + rest.iter().sum::<f32>()
}

/// Dot product in eight lanes.
fn dot(x: &[f32], y: &[f32]) -> f32 {
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
mod tests;
