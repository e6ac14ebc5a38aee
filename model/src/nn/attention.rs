//! Attention of grouped queries over keys that may partly be shared by the sequences of a batch.

use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp3, DType, Layout, Shape, Tensor};

use crate::Result;
use crate::autograd::{dot, exp, fused, sum, wide};

#[cfg(target_arch = "x86_64")]
mod bf16;
mod blocks;
#[cfg(feature = "flash-attn")]
mod flash;
mod graph;
mod rows;

use rows::{Parts, Rows};

/// Queries whose scores are held at a time outside of a graph, where there is no kernel of ours: an 8B's scores of a prompt of
/// five frames, in f32 as they are summed, are a third of a gigabyte a copy, and there are several.
const QUERIES: usize = 256;

/// Keys and values, `[b, kv, s, e]` each.
#[derive(Debug, Clone)]
pub struct KeyValues {
    /// Of the tokens that all sequences begin with, `[1, kv, s, e]`.
    pub shared: Option<(Tensor, Tensor)>,
    /// Of each sequence's own tokens behind those.
    pub own: (Tensor, Tensor),
}

impl KeyValues {
    /// Without the last `n` tokens.
    fn without_last(&self, n: usize) -> Result<Self> {
        let kept = |x: &Tensor| x.narrow(2, 0, x.dim(2)? - n);
        Ok(Self { shared: self.shared.clone(), own: (kept(&self.own.0)?, kept(&self.own.1)?) })
    }
}

/// `softmax(q k^T / sqrt(e)) v`; where `causal`, the t queries are the last of the s tokens. Each key head serves h / kv
/// query heads, without being copied for them. In a graph, scores of more than 64 MiB in f32 are not kept: the way back computes
/// them again, some queries at a time.
///
/// # Shapes
/// q `[b, h, t, e]` -> `[b, t, h * e]`
///
/// # Errors
/// Shapes that do not fit each other.
pub fn attention(q: &Tensor, kv: &KeyValues, causal: bool) -> Result<Tensor> {
    attention_of(q, kv, causal, false)
}

/// [`attention`], for which numbers may be rounded to bf16 where that is faster: in layers whose matrices are rounded more coarsely.
///
/// # Errors
/// As [`attention`].
pub fn attention_rounding(q: &Tensor, kv: &KeyValues, causal: bool) -> Result<Tensor> {
    attention_of(q, kv, causal, true)
}

fn attention_of(q: &Tensor, kv: &KeyValues, causal: bool, rounds: bool) -> Result<Tensor> {
    let (b, h, t, e) = q.dims4()?;
    let heads = kv.own.0.dim(1)?;
    let plain = |x: &Tensor| x.dtype() == DType::F32 && x.device().is_cpu() && !x.track_op();
    let (keys, values) = &kv.own;
    if kv.shared.is_none() && [q, keys, values].into_iter().all(plain) {
        return Ok(match t {
            1..=FEW => q.apply_op3_no_bwd(keys, values, &FewQueries { causal })?,
            #[cfg(target_arch = "x86_64")]
            _ if rounds && bf16::is_there() => q.apply_op3_no_bwd(keys, values, &bf16::Rounded { causal })?,
            _ => q.apply_op3_no_bwd(keys, values, &blocks::Blocks { causal })?,
        });
    }
    let in_graph = [q, keys, values].into_iter().any(Tensor::track_op);
    if in_graph
        && kv.shared.is_none()
        && let Some(queries) = graph::queries(b * h, t, keys.dim(2)?)
    {
        let constant = KeyValues { shared: None, own: (keys.detach(), values.detach()) };
        let y = attention_of(&q.detach(), &constant, causal, false)?;
        return Ok(graph::enter(q, &kv.own, y, causal, queries)?);
    }
    #[cfg(feature = "flash-attn")]
    if !in_graph
        && kv.shared.is_none()
        && let Some(mixed) = flash::attention(q, &kv.own, causal)?
    {
        return Ok(mixed);
    }
    if t > QUERIES && !in_graph && !fused(q) {
        let part = |first: usize| {
            let rows = QUERIES.min(t - first);
            // Keys behind the block's last query are seen by none of it.
            let behind = if causal { t - first - rows } else { 0 };
            attention(&q.narrow(2, first, rows)?, &kv.without_last(behind)?, causal)
        };
        let parts = (0..t).step_by(QUERIES).map(part).collect::<Result<Vec<_>>>()?;
        return Ok(Tensor::cat(&parts, 1)?);
    }
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

/// Queries that are few enough for [`FewQueries`].
const FEW: usize = 16;

/// [`attention`] of few queries a sequence, as a token at a time asks for it, and what is read ahead: keys and values are read where
/// they lie in the cache, by the threads that multiply the quantized matrices before and behind it (others would wait for these to
/// go to sleep).
struct FewQueries {
    causal: bool,
}

/// Products that are worth those threads, which stay awake for a while behind each call: small models leave them to others.
const SHARED: usize = 1 << 17;

impl CustomOp3 for FewQueries {
    fn name(&self) -> &'static str {
        "attention-of-few-queries"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let parts = Parts::new((q, q_layout), (k, k_layout), (v, v_layout), self.causal)?;
        let Parts { queries, keys, values, b, h, t, s, .. } = parts;
        let e = queries.width;
        let mut out = parts.empty();
        let fill = |i: usize, out: &mut [f32]| {
            let (batch, query, head) = (i / (t * h), i / h % t, i % h);
            let place = (batch, parts.of(head));
            let tokens = parts.seen(query);
            let head = OneHead { query: queries.row(batch, head, query), keys, values, place, tokens };
            wide(
                #[inline(always)]
                || head.fill(out),
            );
        };
        if b * h * t * s * e < SHARED {
            out.chunks_mut(e).enumerate().for_each(|(i, out)| fill(i, out));
        } else {
            let heads: Vec<Mutex<&mut [f32]>> = out.chunks_mut(e).map(Mutex::new).collect();
            candle_core::utils::barrier_pool().execute_chunked(heads.len(), |range| {
                // Each is taken once.
                range.for_each(|i| fill(i, &mut heads[i].lock().unwrap_or_else(PoisonError::into_inner)));
            });
        }
        Ok((CpuStorage::F32(out), parts.shape()))
    }
}

/// One head of one query: `out = sum softmax(q k / sqrt(e)) v`.
#[derive(Clone, Copy)]
struct OneHead<'a> {
    /// `[e]`
    query: &'a [f32],
    keys: Rows<'a>,
    values: Rows<'a>,
    /// Sequence, and head of keys and values.
    place: (usize, usize),
    tokens: usize,
}

impl OneHead<'_> {
    /// Fills `out`, `[e]` zeros.
    #[inline(always)]
    fn fill(self, out: &mut [f32]) {
        let Self { query, keys, values, place: (batch, head), tokens } = self;
        let scale = 1.0 / (query.len() as f32).sqrt();
        let mut weights = vec![0f32; tokens];
        let mut most = f32::NEG_INFINITY;
        for (j, weight) in weights.iter_mut().enumerate() {
            *weight = scale * dot(query, keys.row(batch, head, j));
            most = if *weight > most { *weight } else { most };
        }
        for weight in &mut weights {
            *weight = exp(*weight - most);
        }
        let inverse = 1.0 / sum(&weights);
        for (j, weight) in weights.iter().enumerate() {
            let share = weight * inverse;
            for (o, v) in out.iter_mut().zip(values.row(batch, head, j)) {
                *o += share * v;
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// Many queries at once, in blocks where there is no kernel, against all scores at once: behind a cache with room, over keys
    /// that a batch shares, and where every token sees every other.
    #[test]
    fn attention_in_blocks_agrees_with_all_scores_at_once() -> Result<()> {
        let (h, kv, e) = (4, 2, 16);
        for (b, t, s, first, causal) in [
            (1, 600, 600, 0, true),
            (1, 257, 700, 0, true),
            (2, 512, 520, 0, true),
            (2, 300, 310, 40, true),
            (1, 600, 600, 0, false),
        ] {
            let random =
                |b: usize, heads: usize, rows: usize| Tensor::randn(0f32, 1.0, (b, heads, rows, e), &Device::Cpu);
            let (q, keys, values) = (random(b, h, t)?, random(b, kv, s + 30)?, random(b, kv, s + 30)?);
            let shared = if first > 0 { Some((random(1, kv, first)?, random(1, kv, first)?)) } else { None };
            let own = (keys.narrow(2, 0, s)?, values.narrow(2, 0, s)?);
            let at = |dtype: DType| -> Result<Tensor> {
                let pair = |(k, v): &(Tensor, Tensor)| -> Result<_> { Ok((k.to_dtype(dtype)?, v.to_dtype(dtype)?)) };
                let kv = KeyValues { shared: shared.as_ref().map(pair).transpose()?, own: pair(&own)? };
                Ok(attention(&q.to_dtype(dtype)?, &kv, causal)?.to_dtype(DType::F32)?)
            };
            let (whole, blocks) = (at(DType::F32)?, at(DType::F64)?);
            assert_eq!(blocks.dims(), [b, t, h * e]);
            let error = (whole - blocks)?.abs()?.max_all()?.to_scalar::<f32>()?;
            assert!(error < 1e-4, "{t} of {s}: {error}");
        }
        Ok(())
    }

    /// Against the operations apart, of a cache with room behind what it holds, of one query and of several.
    #[test]
    fn attention_where_keys_lie_agrees_with_its_operations() -> candle_core::Result<()> {
        let rows = [
            (1, 4, 2, 1, 7, 48, true),
            (2, 6, 2, 1, 300, 16, true),
            (1, 8, 8, 1, 900, 64, true),
            (1, 2, 1, 1, 1, 5, true),
            (1, 4, 2, 7, 7, 48, true),
            (2, 6, 2, 40, 300, 16, true),
            (2, 3, 3, 257, 257, 72, false),
            (1, 2, 1, 2, 5000, 8, true),
            (1, 2, 2, 130, 2100, 64, false),
        ];
        for (b, h, kv, t, s, e, causal) in rows {
            let random = |dims: (usize, usize, usize, usize)| Tensor::randn(0f32, 1.0, dims, &Device::Cpu);
            // Queries as they come out of a product, heads inside.
            let q = random((b, t, h, e))?.transpose(1, 2)?;
            let (keys, values) = (random((b, kv, s + 9, e))?, random((b, kv, s + 9, e))?);
            let own = (keys.narrow(2, 0, s)?, values.narrow(2, 0, s)?);
            let each = |x: &Tensor| x.unsqueeze(2)?.broadcast_as((b, kv, h / kv, s, e))?.reshape((b, h, s, e));
            let scores = (q.contiguous()?.matmul(&each(&own.0)?.t()?)? * (1.0 / (e as f64).sqrt()))?;
            let hidden = |i: usize, j: usize| if causal && j > s - t + i { f32::NEG_INFINITY } else { 0.0 };
            let mask: Vec<f32> = (0..t * s).map(|at| hidden(at / s, at % s)).collect();
            let scores = scores.broadcast_add(&Tensor::from_vec(mask, (t, s), &Device::Cpu)?)?;
            let mixed = candle_nn::ops::softmax(&scores, 3)?.matmul(&each(&own.1)?)?;
            let expected = mixed.transpose(1, 2)?.reshape((b, t, h * e))?;
            let kv = KeyValues { shared: None, own };
            // Weights add up to 1, so that an error of 2^-8 each is one of values of up to 5 at most.
            for (rounds, bound) in [(false, 1e-5), (true, 0.03)] {
                let got = attention_of(&q, &kv, causal, rounds).map_err(candle_core::Error::wrap)?;
                assert_eq!(got.dims(), [b, t, h * e]);
                let apart = (got - &expected)?.abs()?.max_all()?.to_scalar::<f32>()?;
                assert!(apart < bound, "{t} {s} {e} {rounds}: {apart}");
            }
        }
        Ok(())
    }
}
