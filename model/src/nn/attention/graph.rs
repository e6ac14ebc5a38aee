//! [`attention`](super::attention) of many queries in a graph: their scores are forgotten on the way forward and computed again on the
//! way back, some queries at a time (Dao et al. 2022, "FlashAttention", section 3.1). What is kept grows with the tokens, not with
//! their square.

use std::ops::RangeInclusive;

use candle_core::{CpuStorage, CudaStorage, CustomOp3, DType, Layout, Result, Shape, Tensor};

use crate::autograd::{Known, softmax};

/// Scores of all heads that are kept in a graph, and that the way back holds at a time: 64 MiB in f32, of which it has six copies
/// at most (scores, weights, their gradients on the way).
const SCORES: usize = 1 << 24;
/// Queries whose scores these are; of fewer the products read keys and values too often.
const QUERIES: RangeInclusive<usize> = 16..=256;

/// Queries of a block, where the scores of `t` queries and `s` keys in `heads` heads (of all sequences) are too many to keep.
pub(super) fn queries(heads: usize, t: usize, s: usize) -> Option<usize> {
    (heads * t * s > SCORES).then(|| (SCORES / (heads * s)).clamp(*QUERIES.start(), *QUERIES.end()))
}

/// Enters `y`, the attention of these queries, keys and values, into their graph; the way back takes `queries` at a time.
///
/// # Shapes
/// q `[b, h, t, e]`, keys and values `[b, kv, s, e]`, y `[b, t, h * e]` -> y
///
/// # Errors
/// A tensor operation's.
pub(super) fn enter(
    q: &Tensor,
    (keys, values): &(Tensor, Tensor),
    y: Tensor,
    causal: bool,
    queries: usize,
) -> Result<Tensor> {
    q.apply_op3(keys, values, Blocked { y: Known::new(y), causal, queries })
}

struct Blocked {
    y: Known,
    causal: bool,
    /// Of a block.
    queries: usize,
}

impl CustomOp3 for Blocked {
    fn name(&self) -> &'static str {
        "attention-in-a-graph"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.y.cpu()
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.y.cuda()
    }

    /// With weights P of the queries Q of a block, and dY what comes back to them: dV = P^T dY, dP = dY V^T,
    /// dS = P (dP - rowsum(dY Y)) / sqrt(e), dQ = dS K, dK = dS^T Q. Sums over blocks are in f32 at least.
    fn bwd(
        &self,
        q: &Tensor,
        keys: &Tensor,
        values: &Tensor,
        y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let ((b, h, t, e), (_, heads, s, _)) = (q.dims4()?, keys.dims4()?);
        let (dtype, scale) = (q.dtype(), 1.0 / (e as f64).sqrt());
        let wide = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
        let by_head = |x: &Tensor| x.detach().reshape((b, t, h, e))?.transpose(1, 2); // [b, h, t, e]
        let (q, y, grad) = (q.detach(), by_head(y)?, by_head(grad)?);
        let (all_keys, all_values) = (keys.detach().contiguous()?, values.detach().contiguous()?);
        let mut of_queries = Vec::with_capacity(t.div_ceil(self.queries));
        let mut of_keys = Tensor::zeros((b, heads, s, e), wide, q.device())?;
        let mut of_values = of_keys.zeros_like()?;
        for first in (0..t).step_by(self.queries) {
            let count = self.queries.min(t - first);
            // Keys behind the block's last query are seen by none of it.
            let seen = if self.causal { s - t + first + count } else { s };
            let rows = h / heads * count;
            let block = |x: &Tensor| x.narrow(2, first, count)?.contiguous()?.reshape((b, heads, rows, e));
            let (q, y, grad) = (block(&q)?, block(&y)?, block(&grad)?);
            let (keys, values) = (all_keys.narrow(2, 0, seen)?, all_values.narrow(2, 0, seen)?);
            let scores = q.matmul(&keys.t()?)?.reshape((b, h, count, seen))?;
            let weights = softmax(&scores, scale, self.causal)?.reshape((b, heads, rows, seen))?;
            drop(scores);
            let all = |x: Tensor| x.to_dtype(wide)?.pad_with_zeros(2, 0, s - seen);
            of_values = (of_values + all(weights.t()?.matmul(&grad)?)?)?;
            let along = (grad.to_dtype(wide)? * y.to_dtype(wide)?)?.sum_keepdim(3)?; // [b, kv, rows, 1]
            let of_weights = grad.matmul(&values.t()?)?.to_dtype(wide)?.broadcast_sub(&along)?;
            let of_scores = ((of_weights * weights.to_dtype(wide)?)? * scale)?.to_dtype(dtype)?; // [b, kv, rows, seen]
            of_queries.push(of_scores.matmul(&keys)?.reshape((b, h, count, e))?);
            of_keys = (of_keys + all(of_scores.t()?.matmul(&q)?)?)?;
        }
        let of_queries = Tensor::cat(&of_queries, 2)?;
        Ok((Some(of_queries), Some(of_keys.to_dtype(dtype)?), Some(of_values.to_dtype(dtype)?)))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::nn::{KeyValues, attention};

    /// Numbers that no two places share.
    fn numbers(dims: [usize; 4], phase: f32) -> Tensor {
        let count: usize = dims.iter().product();
        let values: Vec<f32> = (0..count).map(|i| 1.5 * (0.7 * (i % 9973) as f32 + phase).sin()).collect();
        Tensor::from_vec(values, dims.as_slice(), &Device::Cpu).unwrap()
    }

    /// Batch, heads of queries and of keys, queries, keys, width.
    type Shapes = (usize, usize, usize, usize, usize, usize);

    fn variables((b, h, kv, t, s, e): Shapes, dtype: DType) -> [Var; 3] {
        let of = |dims, phase| Var::from_tensor(&numbers(dims, phase).to_dtype(dtype).unwrap()).unwrap();
        [of([b, h, t, e], 0.0), of([b, kv, s, e], 1.0), of([b, kv, s, e], 2.0)]
    }

    fn key_values([_, keys, values]: &[Var; 3]) -> KeyValues {
        KeyValues { shared: None, own: (keys.as_tensor().clone(), values.as_tensor().clone()) }
    }

    /// What comes out, and the gradients of queries, keys and values, as f32.
    fn both_ways(variables: &[Var; 3], y: Tensor) -> Vec<Tensor> {
        let (b, t, width) = y.dims3().unwrap();
        let asked = numbers([b, t, width, 1], 3.0).squeeze(3).unwrap().to_dtype(y.dtype()).unwrap();
        let store = (&y * asked).unwrap().sum_all().unwrap().backward().unwrap();
        let gradients = variables.iter().map(|var| store.get(var.as_tensor()).unwrap().clone());
        std::iter::once(y.detach()).chain(gradients).map(|x| x.to_dtype(DType::F32).unwrap()).collect()
    }

    fn largest(x: &Tensor) -> f32 {
        x.abs().unwrap().max_all().unwrap().to_scalar().unwrap()
    }

    /// Queries that blocks do not divide, grouped heads, a batch, keys from before the queries, with a mask and without; in f32 and
    /// where there is no kernel of ours.
    #[test]
    fn gradients_in_blocks_agree_with_those_of_all_scores_at_once() {
        let shapes: [(Shapes, bool); 6] = [
            ((1, 4, 2, 37, 37, 16), true),
            ((2, 6, 2, 33, 50, 8), true),
            ((1, 3, 3, 65, 65, 5), false),
            ((2, 4, 1, 17, 129, 24), false),
            ((1, 2, 1, 1, 9, 3), true),
            ((3, 2, 2, 20, 20, 7), true),
        ];
        for (shapes, causal) in shapes {
            for dtype in [DType::F32, DType::F64] {
                let variables = variables(shapes, dtype);
                let kv = key_values(&variables);
                let expected = both_ways(&variables, attention(&variables[0], &kv, causal).unwrap());
                for queries in [1, 7, 16, 200] {
                    let constant = KeyValues { shared: None, own: (kv.own.0.detach(), kv.own.1.detach()) };
                    let y = attention(&variables[0].detach(), &constant, causal).unwrap();
                    let entered = enter(&variables[0], &kv.own, y, causal, queries).unwrap();
                    let got = both_ways(&variables, entered);
                    for (part, (got, expected)) in ["y", "q", "keys", "values"].iter().zip(got.iter().zip(&expected)) {
                        assert_eq!(got.dims(), expected.dims());
                        let apart = largest(&(got - expected).unwrap());
                        let scale = 1.0 + largest(expected);
                        assert!(apart < 2e-4 * scale, "{shapes:?} {dtype:?}, {queries} at a time: {part}: {apart}");
                    }
                }
            }
        }
    }

    /// Numbers of the tensors that the way back is given.
    fn kept(shapes: Shapes) -> usize {
        let variables = variables(shapes, DType::F32);
        let y = attention(&variables[0], &key_values(&variables), true).unwrap();
        y.sorted_nodes().iter().map(|node| node.elem_count()).sum()
    }

    #[test]
    fn what_a_graph_keeps_of_many_queries_is_queries_keys_values_and_what_comes_out() {
        let (few, many) = (200, 2100);
        assert!(kept((1, 4, 2, few, few, 4)) > 4 * few * few, "of few queries, the scores");
        assert_eq!(queries(4, few, few), None);
        assert_eq!(kept((1, 4, 2, many, many, 4)), 2 * (4 + 2) * many * 4, "of many, nothing of that size");
        // 24 frames of 24 x 24 tokens and as many words as they have, in the 8B: 32 heads of 128 and 8 of keys.
        let tokens = 24 * 24 * 24 + 400;
        let block = queries(32, tokens, tokens).unwrap() * 32 * tokens;
        let kept = 2 * (32 + 8) * tokens * 128;
        let mebibytes = |numbers: usize| numbers * 4 / (1 << 20);
        assert!(mebibytes(6 * block) <= 384 && mebibytes(kept) <= 560, "{} {}", mebibytes(block), mebibytes(kept));
        assert!(mebibytes(32 * tokens * tokens) > 24_000, "and this a copy, in one layer, without blocks");
    }
}
