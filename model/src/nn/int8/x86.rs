//! The products themselves.

#![expect(unsafe_code, reason = "the processor's own instructions, and outputs that threads fill in columns")]

use std::arch::x86_64::{
    __m512i, _CMP_UNORD_Q, _mm_storeu_si128, _mm256_loadu_si256, _mm512_abs_ps, _mm512_add_epi32, _mm512_and_si512,
    _mm512_cmp_ps_mask, _mm512_cvtepi16_epi32, _mm512_cvtepi32_epi8, _mm512_cvtepi32_ps, _mm512_cvtph_ps,
    _mm512_cvtps_epi32, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_fnmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_max_ps, _mm512_mul_ps, _mm512_reduce_add_epi32, _mm512_reduce_max_ps, _mm512_set1_epi8, _mm512_set1_epi32,
    _mm512_set1_ps, _mm512_setzero_ps, _mm512_slli_epi32, _mm512_srli_epi16, _mm512_storeu_ps,
};
use std::mem::MaybeUninit;

use half::f16;

use super::layout::{BLOCK, COLUMNS, Tile};
use crate::nn::shared::Shared;

/// Rows that meet a tile at once: twelve registers of sums, and as many of bytes' sums.
const ROWS: usize = 6;
/// Rows that one thread takes at once.
const SHARE: usize = 20 * ROWS;

/// Rows as bytes, each number 128 too large; for each 32 of them a scale, and what they add up to.
struct Bytes {
    numbers: Vec<u8>,
    scales: Vec<f32>,
    sums: Vec<f32>,
}

/// Fills `out`, `rows * outputs` numbers.
pub(super) fn product<const N: usize, const M: usize>(
    tiles: &[Tile<N, M>],
    bias: Option<&[f32]>,
    x: &[f32],
    [rows, blocks, outputs]: [usize; 3],
    out: &mut [MaybeUninit<f32>],
) {
    assert_eq!((x.len(), out.len()), (rows * blocks * BLOCK, rows * outputs));
    let pool = candle_core::utils::barrier_pool();
    let scales = vec![0.0; rows * blocks];
    let mut bytes = Bytes { numbers: vec![0; x.len()], sums: scales.clone(), scales };
    let numbers = Shared::new(&mut bytes.numbers);
    let (scales, sums) = (Shared::new(&mut bytes.scales), Shared::new(&mut bytes.sums));
    pool.execute_chunked(rows, |range| {
        for row in range {
            let x = &x[row * blocks * BLOCK..(row + 1) * blocks * BLOCK];
            // SAFETY: each row is one thread's alone; the processor was asked when the matrix was packed.
            unsafe {
                let numbers = std::slice::from_raw_parts_mut(numbers.at(row * x.len()), x.len());
                let part = |of: &Shared<'_, f32>| std::slice::from_raw_parts_mut(of.at(row * blocks), blocks);
                quantize(x, numbers, part(&scales), part(&sums));
            }
        }
    });
    let out = Shared::new(out);
    let shares = rows.div_ceil(SHARE);
    pool.execute_chunked(outputs / COLUMNS * shares, |range| {
        for unit in range {
            let (panel, first) = (unit / shares, unit % shares * SHARE);
            let tiles = &tiles[panel * blocks..(panel + 1) * blocks];
            let bias = bias.map(|bias| &bias[panel * COLUMNS..(panel + 1) * COLUMNS]);
            let mut row = first;
            let end = rows.min(first + SHARE);
            while row < end {
                // SAFETY: these rows of these columns are one thread's alone, and lie inside `out`.
                unsafe {
                    let to = out.at(row * outputs + panel * COLUMNS).cast::<f32>();
                    let some = match end - row {
                        1 => some::<1, N, M>,
                        2 => some::<2, N, M>,
                        3 => some::<3, N, M>,
                        4 => some::<4, N, M>,
                        5 => some::<5, N, M>,
                        _ => some::<ROWS, N, M>,
                    };
                    some(tiles, bias, &bytes, row, to, outputs);
                }
                row += ROWS;
            }
        }
    });
}

/// What is no number makes its block's scale none, and so everything that it is part of.
#[target_feature(enable = "avx512f,avx512bw")]
fn quantize(x: &[f32], numbers: &mut [u8], scales: &mut [f32], sums: &mut [f32]) {
    let zero = _mm512_set1_epi32(128);
    let numbers = numbers.as_chunks_mut().0.iter_mut();
    for (((x, numbers), scale), sum) in x.as_chunks::<BLOCK>().0.iter().zip(numbers).zip(scales).zip(sums) {
        let numbers: &mut [u8; BLOCK] = numbers;
        // SAFETY: `BLOCK` numbers each.
        unsafe {
            let (low, high) = (_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(x.as_ptr().add(16)));
            let most = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(low), _mm512_abs_ps(high)));
            let is_none = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(low, high) != 0;
            *scale = if is_none { f32::NAN } else { most / 127.0 };
            let inverse = _mm512_set1_ps(if most > 0.0 { 127.0 / most } else { 0.0 });
            let rounded = [low, high].map(|part| _mm512_cvtps_epi32(_mm512_mul_ps(part, inverse)));
            *sum = *scale * _mm512_reduce_add_epi32(_mm512_add_epi32(rounded[0], rounded[1])) as f32;
            for (k, rounded) in rounded.into_iter().enumerate() {
                let bytes = _mm512_cvtepi32_epi8(_mm512_add_epi32(rounded, zero));
                _mm_storeu_si128(numbers.as_mut_ptr().add(16 * k).cast(), bytes);
            }
        }
    }
}

/// `R` rows from `first` on, times the columns of a panel.
///
/// SAFETY: AVX-512 with VNNI; `to` has room for the columns of `R` rows that are `stride` numbers apart.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn some<const R: usize, const N: usize, const M: usize>(
    tiles: &[Tile<N, M>],
    bias: Option<&[f32]>,
    rows: &Bytes,
    first: usize,
    to: *mut f32,
    stride: usize,
) {
    let blocks = tiles.len();
    let of_blocks = first * blocks..(first + R) * blocks;
    let (scales, sums_of_rows) = (&rows.scales[of_blocks.clone()], &rows.sums[of_blocks]);
    let numbers = &rows.numbers[first * blocks * BLOCK..(first + R) * blocks * BLOCK];
    // SAFETY: all that is read lies in these, and the caller's.
    unsafe {
        let start = match bias {
            Some(bias) => [_mm512_loadu_ps(bias.as_ptr()), _mm512_loadu_ps(bias.as_ptr().add(16))],
            None => [_mm512_setzero_ps(); 2],
        };
        let mut sums = [start; R];
        let lower = _mm512_set1_epi8(0xf);
        for (block, tile) in tiles.iter().enumerate() {
            let offset = |k: usize| {
                let sums = _mm256_loadu_si256(tile.sums.as_ptr().add(16 * k).cast());
                _mm512_slli_epi32::<7>(_mm512_cvtepi16_epi32(sums))
            };
            let mut whole = [[offset(0), offset(1)]; R];
            let row = numbers.as_ptr().add(block * BLOCK);
            let mut four = |at: usize, low: __m512i, high: __m512i| {
                for (r, whole) in whole.iter_mut().enumerate() {
                    let x = row.add(r * blocks * BLOCK + 4 * at).cast::<i32>().read_unaligned();
                    let x = _mm512_set1_epi32(x);
                    whole[0] = _mm512_dpbusd_epi32(whole[0], x, low);
                    whole[1] = _mm512_dpbusd_epi32(whole[1], x, high);
                }
            };
            for (line, bytes) in tile.numbers.iter().enumerate() {
                let low = _mm512_loadu_si512(bytes.as_ptr().cast());
                let high = _mm512_loadu_si512(bytes.as_ptr().add(64).cast());
                if N * 4 == BLOCK {
                    four(line, low, high);
                } else {
                    let upper = |both| _mm512_and_si512(_mm512_srli_epi16::<4>(both), lower);
                    four(2 * line, _mm512_and_si512(low, lower), _mm512_and_si512(high, lower));
                    four(2 * line + 1, upper(low), upper(high));
                }
            }
            let halves = |of: &[f16], k: usize| _mm512_cvtph_ps(_mm256_loadu_si256(of.as_ptr().add(16 * k).cast()));
            let scale = [halves(&tile.scales, 0), halves(&tile.scales, 1)];
            for (r, (sums, whole)) in sums.iter_mut().zip(&whole).enumerate() {
                let of_row = _mm512_set1_ps(*scales.get_unchecked(r * blocks + block));
                for k in 0..2 {
                    let both = _mm512_mul_ps(scale[k], of_row);
                    sums[k] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole[k]), both, sums[k]);
                }
            }
            if M > 0 {
                let minimum = [halves(&tile.minima, 0), halves(&tile.minima, 1)];
                for (r, sums) in sums.iter_mut().enumerate() {
                    let of_row = _mm512_set1_ps(*sums_of_rows.get_unchecked(r * blocks + block));
                    for k in 0..2 {
                        sums[k] = _mm512_fnmadd_ps(minimum[k], of_row, sums[k]);
                    }
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            _mm512_storeu_ps(to.add(r * stride), sums[0]);
            _mm512_storeu_ps(to.add(r * stride + 16), sums[1]);
        }
    }
}
