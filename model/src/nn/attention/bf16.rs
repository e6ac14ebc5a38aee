//! [`Block`](super::blocks)s in products of bf16, which some processors with AVX-512 have at twice the pace of f32. Queries, keys, values and
//! weights are rounded to 8 bits, sums are in f32: for layers whose matrices are rounded more coarsely than that.

#![expect(unsafe_code, reason = "the processor's own instructions")]

use std::arch::x86_64::{
    __m256bh, __m512bh, __m512i, _mm512_cvtneps_pbh, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_set1_epi32, _mm512_setzero_ps, _mm512_storeu_ps,
};

use candle_core::{CpuStorage, CustomOp3, Layout, Shape};

use super::blocks::weigh;
use super::rows::{Parts, Rows};
use crate::nn::shared::Shared;

/// Columns of a panel: two registers of sixteen.
const COLUMNS: usize = 32;
/// Queries at once: 24 registers of sums.
const ROWS: usize = 12;

/// Queries for which a head is laid out.
const SHARE: usize = 512;

/// Two numbers of a row, side by side.
type Pair = u32;

/// Whether the processor has such products.
pub(super) fn is_there() -> bool {
    std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512bw")
        && std::arch::is_x86_feature_detected!("avx512bf16")
}

/// `softmax(q k^T / sqrt(e)) v` in products of bf16 on the CPU, `[b, h, t, e] -> [b, t, h * e]`.
pub(super) struct Rounded {
    /// Whether the t queries are the last of the s tokens, and see none behind them.
    pub causal: bool,
}

impl CustomOp3 for Rounded {
    fn name(&self) -> &'static str {
        "attention-in-bf16"
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
        let Parts { b, h, t, .. } = parts;
        let shares = t.div_ceil(SHARE);
        let mut out = parts.empty();
        let to = Shared::new(&mut out);
        candle_core::utils::barrier_pool().execute_chunked(b * h * shares, |range| {
            for unit in range {
                let (batch, head, first) = (unit / (h * shares), unit / shares % h, unit % shares * SHARE);
                let end = t.min(first + SHARE);
                let laid_out = Head::new(parts.keys, parts.values, (batch, parts.of(head)), parts.seen(end - 1));
                let queries = (first..end).map(|query| parts.queries.row(batch, head, query));
                let write = |row: usize, values: &[f32]| {
                    // SAFETY: these queries of this head are one thread's alone.
                    unsafe {
                        let to = to.at(parts.place(batch, head, first + row));
                        std::ptr::copy_nonoverlapping(values.as_ptr(), to, values.len());
                    }
                };
                laid_out.attend(queries, |row| parts.seen(first + row), write);
            }
        });
        Ok((CpuStorage::F32(out), parts.shape()))
    }
}

/// Keys and values of one head, laid out for products.
struct Head {
    /// For each 32 keys: each pair of their numbers, key beside key.
    keys: Vec<[Pair; COLUMNS]>,
    /// For each 32 numbers of values: each pair of values, number beside number.
    values: Vec<[Pair; COLUMNS]>,
    tokens: usize,
    width: usize,
}

/// To nearest; halfway to even.
#[inline(always)]
fn round(v: f32) -> u32 {
    let bits = v.to_bits();
    let rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    // What is no number might be rounded to one.
    if v.is_nan() { 0x7fc0 } else { rounded }
}

#[inline(always)]
fn pair(low: f32, high: f32) -> Pair {
    round(low) | round(high) << 16
}

impl Head {
    /// The first `tokens` keys and values of a head; where rows or tokens end within a pair or a panel, zeros do.
    fn new(keys: Rows<'_>, values: Rows<'_>, (batch, head): (usize, usize), tokens: usize) -> Self {
        let width = keys.width;
        let (inner, pairs) = (width.div_ceil(2), tokens.div_ceil(2));
        let panels = |length: usize, pairs: usize| vec![[0 as Pair; COLUMNS]; length.div_ceil(COLUMNS) * pairs];
        let (mut of_keys, mut of_values) = (panels(tokens, inner), panels(width, pairs));
        for (panel, tiles) in of_keys.chunks_exact_mut(inner).enumerate() {
            for k in 0..COLUMNS.min(tokens - panel * COLUMNS) {
                let key = keys.row(batch, head, panel * COLUMNS + k);
                for (two, tile) in key.chunks(2).zip(&mut *tiles) {
                    tile[k] = pair(two[0], two.get(1).copied().unwrap_or(0.0));
                }
            }
        }
        let none = vec![0f32; width];
        for at in 0..pairs {
            let low = values.row(batch, head, 2 * at);
            let high = if 2 * at + 1 < tokens { values.row(batch, head, 2 * at + 1) } else { &none };
            for (panel, (low, high)) in low.chunks(COLUMNS).zip(high.chunks(COLUMNS)).enumerate() {
                let tile = &mut of_values[panel * pairs + at];
                tile.iter_mut().zip(low.iter().zip(high)).for_each(|(to, (low, high))| *to = pair(*low, *high));
            }
        }
        Self { keys: of_keys, values: of_values, tokens, width }
    }

    /// Attention of rows of queries `[width]` each, of which each sees the first `seen(row)` tokens; `write` gets each row with what
    /// it comes to, `[width]`.
    fn attend<'q>(
        &self,
        queries: impl ExactSizeIterator<Item = &'q [f32]>,
        seen: impl Fn(usize) -> usize,
        mut write: impl FnMut(usize, &[f32]),
    ) {
        let Self { tokens, width, .. } = *self;
        let (inner, pairs) = (width.div_ceil(2), tokens.div_ceil(2));
        let padded = tokens.next_multiple_of(COLUMNS);
        let mut scores = vec![0f32; ROWS * padded];
        let mut weights = vec![0 as Pair; ROWS * padded / 2];
        let mut rounded = vec![0 as Pair; ROWS * inner];
        let mut out = vec![0f32; ROWS * width.next_multiple_of(COLUMNS)];
        let scale = 1.0 / (width as f32).sqrt();
        let mut queries = queries.enumerate();
        loop {
            let block = queries.by_ref().take(ROWS);
            let (mut first, mut count) = (0, 0);
            for (row, query) in block {
                first = if count == 0 { row } else { first };
                for (two, to) in query.chunks(2).zip(&mut rounded[count * inner..]) {
                    *to = pair(two[0] * scale, two.get(1).map_or(0.0, |v| v * scale));
                }
                count += 1;
            }
            if count == 0 {
                return;
            }
            // SAFETY: `is_there` was asked; all `ROWS` rows are there, those behind `count` with numbers of earlier queries.
            unsafe {
                for (panel, tiles) in self.keys.chunks_exact(inner).enumerate() {
                    some(&rounded, inner, tiles, &mut scores[panel * COLUMNS..], padded);
                }
                let mut sums = [1f32; ROWS];
                for (row, sum) in sums.iter_mut().enumerate().take(count) {
                    let scores = &mut scores[row * padded..(row + 1) * padded];
                    *sum = weigh_and_round(scores, seen(first + row), &mut weights[row * padded / 2..]);
                }
                let apart = width.next_multiple_of(COLUMNS);
                for (panel, tiles) in self.values.chunks_exact(pairs).enumerate() {
                    some(&weights, padded / 2, tiles, &mut out[panel * COLUMNS..], apart);
                }
                for row in 0..count {
                    let out = &mut out[row * apart..row * apart + width];
                    let inverse = 1.0 / sums[row];
                    out.iter_mut().for_each(|v| *v *= inverse);
                    write(first + row, out);
                }
            }
        }
    }
}

/// `ROWS` rows of pairs, `apart` from one another, times the columns of a panel, into as many rows that are `stride` numbers apart.
///
/// SAFETY: AVX-512 with bf16.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn some(rows: &[Pair], apart: usize, tiles: &[[Pair; COLUMNS]], to: &mut [f32], stride: usize) {
    assert!(rows.len() >= (ROWS - 1) * apart + tiles.len() && to.len() >= (ROWS - 1) * stride + COLUMNS);
    // SAFETY: asserted.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
        for (k, tile) in tiles.iter().enumerate() {
            let load =
                |at: usize| std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(tile[at..].as_ptr().cast()));
            let (low, high) = (load(0), load(16));
            for (r, sums) in sums.iter_mut().enumerate() {
                let pair = _mm512_set1_epi32((*rows.get_unchecked(r * apart + k)).cast_signed());
                let pair = std::mem::transmute::<__m512i, __m512bh>(pair);
                sums[0] = _mm512_dpbf16_ps(sums[0], pair, low);
                sums[1] = _mm512_dpbf16_ps(sums[1], pair, high);
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            _mm512_storeu_ps(to.as_mut_ptr().add(r * stride), sums[0]);
            _mm512_storeu_ps(to.as_mut_ptr().add(r * stride + 16), sums[1]);
        }
    }
}

/// The first `seen` scores of a row become weights, the others none. Returns what they add up to.
///
/// SAFETY: AVX-512 with bf16.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn weigh_and_round(scores: &mut [f32], seen: usize, weights: &mut [Pair]) -> f32 {
    let (shown, rest) = scores.split_at_mut(seen);
    let sum = weigh(shown);
    rest.fill(0.0);
    assert!(scores.len().is_multiple_of(COLUMNS) && weights.len() >= scores.len() / 2);
    for (scores, to) in scores.as_chunks::<16>().0.iter().zip(weights.as_chunks_mut::<8>().0) {
        // SAFETY: sixteen numbers, and as many halves.
        unsafe {
            let rounded = _mm512_cvtneps_pbh(_mm512_loadu_ps(scores.as_ptr()));
            to.as_mut_ptr().cast::<__m256bh>().write_unaligned(rounded);
        }
    }
    sum
}
