//! Attention of grouped queries over keys that may partly be shared by the sequences of a batch.

use candle_core::Tensor;

use crate::Result;

/// Keys and values, `[b, kv, s, e]` each.
#[derive(Debug, Clone)]
pub struct KeyValues {
    /// Of the tokens that all sequences begin with, `[1, kv, s, e]`.
    pub shared: Option<(Tensor, Tensor)>,
    /// Of each sequence's own tokens behind those.
    pub own: (Tensor, Tensor),
}

/// `softmax(q k^T / sqrt(e)) v`; where `causal`, the t queries are the last of the s tokens. Each key head serves h / kv
/// query heads, without being copied for them.
///
/// # Shapes
/// q `[b, h, t, e]` -> `[b, t, h * e]`
///
/// # Errors
/// Shapes that do not fit each other.
pub fn attention(q: &Tensor, kv: &KeyValues, causal: bool) -> Result<Tensor> {
    let (b, h, t, e) = q.dims4()?;
    let heads = kv.own.0.dim(1)?;
    let rows = h / heads * t;
    let q = q.contiguous()?.reshape((b, heads, rows, e))?;
    let own = q.matmul(&kv.own.0.t()?)?; // [b, kv, rows, s]
    let scores = match &kv.shared {
        Some((keys, _)) => Tensor::cat(&[part(&join(&q)?.matmul(&keys.t()?)?, b)?, own], 3)?,
        None => own,
    };
    let s = scores.dim(3)?;
    let weights = crate::autograd::softmax(&scores.reshape((b, h, t, s))?, 1.0 / (e as f64).sqrt(), causal)?;
    let weights = weights.reshape((b, heads, rows, s))?;
    let mixed = match &kv.shared {
        Some((_, values)) => {
            let first = values.dim(2)?;
            let shared = join(&weights.narrow(3, 0, first)?)?.matmul(values)?;
            (part(&shared, b)? + weights.narrow(3, first, s - first)?.contiguous()?.matmul(&kv.own.1)?)?
        }
        None => weights.matmul(&kv.own.1)?,
    };
    Ok(mixed.reshape((b, h, t, e))?.transpose(1, 2)?.reshape((b, t, h * e))?)
}

/// Rows of all sequences under one another, `[b, kv, r, c] -> [1, kv, b * r, c]`: one product with what they share.
fn join(x: &Tensor) -> Result<Tensor> {
    let (b, heads, rows, columns) = x.dims4()?;
    Ok(x.transpose(0, 1)?.reshape((1, heads, b * rows, columns))?)
}

/// The way back, `[1, kv, b * r, c] -> [b, kv, r, c]`.
fn part(x: &Tensor, b: usize) -> Result<Tensor> {
    let (_, heads, rows, columns) = x.dims4()?;
    Ok(x.reshape((heads, b, rows / b, columns))?.transpose(0, 1)?.contiguous()?)
}
