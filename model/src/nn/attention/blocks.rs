//! [`attention`](super::attention) of many queries, some of one head at a time: their scores never leave a core's cache, keys behind
//! the last of causal queries are not looked at, and queries, keys and values are read where they lie.

use candle_core::{CpuStorage, CustomOp3, Layout, Shape};
use gemm::{Parallelism, gemm};

use super::Rows;
#[cfg(target_arch = "x86_64")]
use super::bf16::Head;
use crate::autograd::{exp, wide};

/// Scores that are held at a time.
const SCORES: usize = 1 << 16;
/// Most queries whose scores these are; of fewer the products read keys and values too often.
const QUERIES: std::ops::RangeInclusive<usize> = 16..=96;

/// `softmax(q k^T / sqrt(e)) v` in f32 on the CPU, `[b, h, t, e] -> [b, t, h * e]`.
pub(super) struct Blocks {
    /// Whether the t queries are the last of the s tokens, and see none behind them.
    pub causal: bool,
    /// Whether numbers may be rounded to bf16 for it.
    pub rounds: bool,
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
        let (b, h, t, e) = q_layout.shape().dims4()?;
        let (_, heads, s, _) = k_layout.shape().dims4()?;
        if v_layout.dims() != k_layout.dims()
            || k_layout.dims()[0] != b
            || k_layout.dims()[3] != e
            || (self.causal && s < t)
        {
            candle_core::bail!("attention: queries {:?}, keys {:?}, values {:?}", q_layout, k_layout, v_layout);
        }
        let (queries, keys, values) = (Rows::new(q, q_layout)?, Rows::new(k, k_layout)?, Rows::new(v, v_layout)?);
        let seen = |query: usize| if self.causal { s - t + query + 1 } else { s };
        #[cfg(target_arch = "x86_64")]
        if self.rounds && super::bf16::is_there() {
            return Ok((rounded(queries, keys, values, (b, h, heads, t, s), seen), (b, t, h * e).into()));
        }
        let step = (SCORES / s).clamp(*QUERIES.start(), *QUERIES.end());
        let blocks = t.div_ceil(step);
        let mut out = vec![0f32; b * t * h * e];
        let to = Shared(out.as_mut_ptr());
        candle_core::utils::barrier_pool().execute_chunked(b * h * blocks, |range| {
            let mut scores = vec![0f32; step * s];
            for unit in range {
                let (batch, head, first) = (unit / (h * blocks), unit / blocks % h, unit % blocks * step);
                let count = step.min(t - first);
                let seen = seen(first + count - 1);
                let place = (batch, head / (h / heads));
                let block = Block {
                    queries: queries.matrix(batch, head, first),
                    keys: keys.matrix(place.0, place.1, 0),
                    values: values.matrix(place.0, place.1, 0),
                    count,
                    width: e,
                    seen,
                    hidden: if self.causal { count - 1 } else { 0 },
                };
                // SAFETY: these queries of this head are one thread's alone.
                #[expect(unsafe_code, reason = "threads fill in the columns of different heads")]
                unsafe {
                    block.fill(&mut scores, to.at(((batch * t + first) * h + head) * e), h * e);
                }
            }
        });
        Ok((CpuStorage::F32(out), (b, t, h * e).into()))
    }
}

/// In products of bf16.
#[cfg(target_arch = "x86_64")]
fn rounded(
    queries: Rows<'_>,
    keys: Rows<'_>,
    values: Rows<'_>,
    (b, h, heads, t, s): (usize, usize, usize, usize, usize),
    seen: impl Fn(usize) -> usize + Sync,
) -> CpuStorage {
    /// Queries for which a head is laid out.
    const SHARE: usize = 512;
    let (e, shares) = (queries.width, t.div_ceil(SHARE));
    let mut out = vec![0f32; b * t * h * e];
    let to = Shared(out.as_mut_ptr());
    candle_core::utils::barrier_pool().execute_chunked(b * h * shares, |range| {
        for unit in range {
            let (batch, head, first) = (unit / (h * shares), unit / shares % h, unit % shares * SHARE);
            let count = SHARE.min(t - first);
            let laid_out = Head::new(keys, values, (batch, head / (h / heads)), seen(first + count - 1).min(s));
            let queries = (first..first + count).map(|query| queries.row(batch, head, query));
            let write = |row: usize, values: &[f32]| {
                // SAFETY: these queries of this head are one thread's alone.
                #[expect(unsafe_code, reason = "threads fill in the columns of different heads")]
                unsafe {
                    let to = to.at(((batch * t + first + row) * h + head) * e);
                    std::ptr::copy_nonoverlapping(values.as_ptr(), to, values.len());
                }
            };
            laid_out.attend(queries, |row| seen(first + row), write);
        }
    });
    CpuStorage::F32(out)
}

/// A pointer that threads share, of which each writes other numbers.
struct Shared(*mut f32);

// SAFETY: as said there.
#[expect(unsafe_code, reason = "threads write different numbers")]
unsafe impl Sync for Shared {}

impl Shared {
    /// SAFETY: inside what it points to.
    #[expect(unsafe_code, reason = "of a number of numbers")]
    unsafe fn at(&self, offset: usize) -> *mut f32 {
        // SAFETY: the caller's.
        unsafe { self.0.add(offset) }
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
