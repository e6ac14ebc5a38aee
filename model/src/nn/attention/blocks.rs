//! [`attention`](super::attention) of many queries, some of one head at a time: their scores never leave a core's cache, keys behind
//! the last of causal queries are not looked at, and queries, keys and values are read where they lie.

use candle_core::{CpuStorage, CustomOp3, Layout, Shape};
use gemm::{Parallelism, gemm};

use super::rows::Parts;
use crate::autograd::{exp, wide};
use crate::nn::shared::Shared;

/// Scores that are held at a time.
const SCORES: usize = 1 << 16;
/// Most queries whose scores these are; of fewer the products read keys and values too often.
const QUERIES: std::ops::RangeInclusive<usize> = 16..=96;

/// `softmax(q k^T / sqrt(e)) v` in f32 on the CPU, `[b, h, t, e] -> [b, t, h * e]`.
pub(super) struct Blocks {
    /// Whether the t queries are the last of the s tokens, and see none behind them.
    pub causal: bool,
}

impl CustomOp3 for Blocks {
    fn name(&self) -> &'static str {
        "attention-in-blocks"
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
        let Parts { b, h, t, s, .. } = parts;
        let step = (SCORES / s).clamp(*QUERIES.start(), *QUERIES.end());
        let blocks = t.div_ceil(step);
        let mut out = parts.empty();
        let to = Shared::new(&mut out);
        candle_core::utils::barrier_pool().execute_chunked(b * h * blocks, |range| {
            let mut scores = vec![0f32; step * s];
            for unit in range {
                let (batch, head, first) = (unit / (h * blocks), unit / blocks % h, unit % blocks * step);
                let count = step.min(t - first);
                let block = Block {
                    queries: parts.queries.matrix(batch, head, first),
                    keys: parts.keys.matrix(batch, parts.of(head), 0),
                    values: parts.values.matrix(batch, parts.of(head), 0),
                    count,
                    width: parts.queries.width,
                    seen: parts.seen(first + count - 1),
                    hidden: if self.causal { count - 1 } else { 0 },
                };
                // SAFETY: these queries of this head are one thread's alone.
                #[expect(unsafe_code, reason = "threads fill in the columns of different heads")]
                unsafe {
                    block.fill(&mut scores, to.at(parts.place(batch, head, first)), h * block.width);
                }
            }
        });
        Ok((CpuStorage::F32(out), parts.shape()))
    }
}

/// Some queries of one head.
struct Block<'a> {
    /// From the first query, key and value on, and how far apart they are.
    queries: (&'a [f32], usize),
    keys: (&'a [f32], usize),
    values: (&'a [f32], usize),
    /// Queries.
    count: usize,
    /// Numbers of each.
    width: usize,
    /// Keys that the last of them sees, and how many fewer the first does.
    seen: usize,
    hidden: usize,
}

impl Block<'_> {
    /// Writes what the queries come to at `out`, `stride` numbers apart.
    ///
    /// SAFETY: room for them there.
    #[expect(unsafe_code, reason = "the product's own interface")]
    unsafe fn fill(&self, scores: &mut [f32], out: *mut f32, stride: usize) {
        let Self { queries, keys, values, count, width, seen, hidden } = *self;
        let scores = &mut scores[..count * seen];
        let holds = |(numbers, apart): (&[f32], usize), rows: usize| numbers.len() >= (rows - 1) * apart + width;
        assert!(holds(queries, count) && holds(keys, seen) && holds(values, seen));
        let whole = seen as isize;
        let [by_query, by_key, by_value, by_row] = [queries.1, keys.1, values.1, stride].map(|n| n as isize);
        let (q, k, v, to) = (queries.0.as_ptr(), keys.0.as_ptr(), values.0.as_ptr(), scores.as_mut_ptr());
        let none = Parallelism::None;
        let scale = 1.0 / (width as f32).sqrt();
        // SAFETY: `holds`, and the caller's.
        unsafe {
            let (m, n, inner) = (count, seen, width);
            gemm(m, n, inner, to, 1, whole, false, q, 1, by_query, k, by_key, 1, 0.0, scale, false, false, false, none);
        }
        let mut inverse = [0f32; *QUERIES.end()];
        for ((row, scores), inverse) in scores.chunks_exact_mut(seen).enumerate().zip(&mut inverse) {
            let (shown, rest) = scores.split_at_mut(seen - hidden + row.min(hidden));
            *inverse = wide(
                #[inline(always)]
                || 1.0 / weigh(shown),
            );
            rest.fill(0.0);
        }
        // SAFETY: as above.
        unsafe {
            let (m, n, inner) = (count, width, seen);
            gemm(m, n, inner, out, 1, by_row, false, to, 1, whole, v, 1, by_value, 0.0, 1.0, false, false, false, none);
            for (row, inverse) in inverse[..count].iter().enumerate() {
                let row = std::slice::from_raw_parts_mut(out.add(row * stride), width);
                row.iter_mut().for_each(|v| *v *= inverse);
            }
        }
    }
}

/// Scores become weights, which add up to what is returned.
#[inline(always)]
pub(super) fn weigh(scores: &mut [f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (chunks, rest) = scores.as_chunks_mut::<16>();
    for chunk in &*chunks {
        lanes.iter_mut().zip(chunk).for_each(|(most, v)| *most = if *v > *most { *v } else { *most });
    }
    let most = lanes.iter().chain(&*rest).fold(f32::NEG_INFINITY, |most, v| if *v > most { *v } else { most });
    let mut sums = [0f32; 16];
    for chunk in chunks {
        for (v, sum) in chunk.iter_mut().zip(&mut sums) {
            *v = exp(*v - most);
            *sum += *v;
        }
    }
    for (v, sum) in rest.iter_mut().zip(&mut sums) {
        *v = exp(*v - most);
        *sum += *v;
    }
    sums.iter().sum()
}
