//! Products of several rows with a matrix in Q8_0, by the dot products of bytes that processors with AVX-512 VNNI have.
//!
//! candle's own are made for four rows and sixteen columns at a time, and only where the rows are multiples of 256 numbers. Here six
//! rows meet 32 columns, so that what is read of the matrix is used six times, and all sums stay in registers.

use std::sync::OnceLock;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, bail};
use half::f16;

/// Numbers under one scale, of a row as of the matrix.
const BLOCK: usize = 32;
/// Bytes of a block of Q8_0: its scale as f16 and its numbers.
const BYTES: usize = 2 + BLOCK;
/// Columns of a tile: two registers of sixteen.
const COLUMNS: usize = 32;
/// Rows that meet a tile at once: twelve registers of sums, and as many of bytes' sums.
const ROWS: usize = 6;
/// Rows that one thread takes at once.
const SHARE: usize = 20 * ROWS;

/// 32 numbers of each of 32 columns.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
struct Tile {
    /// Four numbers of a column, then four of the next; behind the last column's, the first's next four.
    numbers: [[i8; 4 * COLUMNS]; BLOCK / 4],
    scales: [f16; COLUMNS],
    /// Minus the sum of a column's numbers: rows are bytes that are 128 too large, since one side of the products has no sign.
    sums: [i16; COLUMNS],
}

/// A matrix `[out, in]` laid out for these products.
#[derive(Debug)]
pub(super) struct Packed {
    /// The blocks of the first 32 outputs, of the next 32, ...
    tiles: Vec<Tile>,
    blocks: usize,
    outputs: usize,
}

/// Lies beside a quantized matrix, made at its first use.
#[derive(Debug, Default)]
pub(super) struct Packing(OnceLock<Option<Packed>>);

impl Packing {
    /// The layout of a matrix, where these products are for it.
    pub(super) fn get(&self, w: &QTensor) -> Option<&Packed> {
        if w.dtype() != GgmlDType::Q8_0 {
            return None;
        }
        self.0.get_or_init(|| Packed::new(w)).as_ref()
    }
}

/// Whether the processor has such products.
fn is_there() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("avx512f")
            && std::arch::is_x86_feature_detected!("avx512bw")
            && std::arch::is_x86_feature_detected!("avx512vnni")
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

impl Packed {
    /// `None` for other processors, other devices and shapes that do not fit tiles.
    fn new(w: &QTensor) -> Option<Self> {
        let (outputs, inputs) = w.shape().dims2().ok()?;
        let fits = outputs.is_multiple_of(COLUMNS) && inputs.is_multiple_of(BLOCK) && inputs > 0;
        if !is_there() || !fits || !w.device().is_cpu() {
            return None;
        }
        let bytes = w.data().ok()?;
        let blocks = inputs / BLOCK;
        let mut tiles = Vec::with_capacity(outputs / COLUMNS * blocks);
        for columns in bytes.chunks_exact(COLUMNS * blocks * BYTES) {
            tiles.extend((0..blocks).map(|block| {
                let mut tile =
                    Tile { numbers: [[0; 4 * COLUMNS]; BLOCK / 4], scales: [f16::ZERO; COLUMNS], sums: [0; COLUMNS] };
                for (k, column) in columns.chunks_exact(blocks * BYTES).enumerate() {
                    let column = &column[block * BYTES..(block + 1) * BYTES];
                    tile.scales[k] = f16::from_le_bytes([column[0], column[1]]);
                    for (numbers, four) in tile.numbers.iter_mut().zip(column[2..].chunks_exact(4)) {
                        for (to, from) in numbers[4 * k..].iter_mut().zip(four) {
                            *to = from.cast_signed();
                            tile.sums[k] -= i16::from(*to);
                        }
                    }
                }
                tile
            }));
        }
        Some(Self { tiles, blocks, outputs })
    }
}

/// `x W^T + bias`.
pub(super) struct Product<'a> {
    pub matrix: &'a Packed,
    /// `[out]`
    pub bias: Option<&'a [f32]>,
}

impl CustomOp1 for Product<'_> {
    fn name(&self) -> &'static str {
        "product-of-bytes"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (CpuStorage::F32(x), Some((start, end))) = (x, layout.contiguous_offsets()) else {
            bail!("product of bytes: expected contiguous f32 on the CPU")
        };
        let Packed { blocks, outputs, .. } = *self.matrix;
        let (rows, width) = layout.shape().dims2()?;
        if width != blocks * BLOCK {
            bail!("product with a matrix: expected rows of {}, got {width}", blocks * BLOCK);
        }
        let mut out = Vec::with_capacity(rows * outputs);
        #[cfg(target_arch = "x86_64")]
        x86::product(self, &x[start..end], rows, out.spare_capacity_mut());
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (&x[start..end], self.bias);
        // SAFETY: all of them were written. (On other processors no matrix is packed.)
        #[expect(unsafe_code, reason = "numbers that are written once are not set to zero before")]
        unsafe {
            out.set_len(rows * outputs);
        }
        Ok((CpuStorage::F32(out), (rows, outputs).into()))
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "the processor's own instructions, and outputs that threads fill in columns")]
mod x86 {
    use std::arch::x86_64::{
        _CMP_UNORD_Q, _mm_storeu_si128, _mm256_loadu_si256, _mm512_abs_ps, _mm512_add_epi32, _mm512_cmp_ps_mask,
        _mm512_cvtepi16_epi32, _mm512_cvtepi32_epi8, _mm512_cvtepi32_ps, _mm512_cvtph_ps, _mm512_cvtps_epi32,
        _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_max_ps, _mm512_mul_ps,
        _mm512_reduce_max_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_slli_epi32,
        _mm512_storeu_ps,
    };
    use std::mem::MaybeUninit;

    use super::{BLOCK, COLUMNS, Packed, Product, ROWS, SHARE, Tile};

    /// Rows as bytes, each number 128 too large, and a scale for each 32 of them.
    struct Bytes {
        numbers: Vec<u8>,
        scales: Vec<f32>,
    }

    /// Fills `out`, `rows * outputs` numbers.
    pub(super) fn product(product: &Product<'_>, x: &[f32], rows: usize, out: &mut [MaybeUninit<f32>]) {
        let Packed { blocks, outputs, .. } = *product.matrix;
        assert_eq!((x.len(), out.len()), (rows * blocks * BLOCK, rows * outputs));
        let pool = candle_core::utils::barrier_pool();
        let mut bytes = Bytes { numbers: vec![0; x.len()], scales: vec![0.0; rows * blocks] };
        let to = (Shared(bytes.numbers.as_mut_ptr()), Shared(bytes.scales.as_mut_ptr()));
        pool.execute_chunked(rows, |range| {
            for row in range {
                let x = &x[row * blocks * BLOCK..(row + 1) * blocks * BLOCK];
                // SAFETY: each row is one thread's alone; the processor was asked when the matrix was packed.
                unsafe {
                    let numbers = std::slice::from_raw_parts_mut(to.0.at(row * x.len()), x.len());
                    let scales = std::slice::from_raw_parts_mut(to.1.at(row * blocks), blocks);
                    quantize(x, numbers, scales);
                }
            }
        });
        let out = Shared(out.as_mut_ptr().cast::<f32>());
        let shares = rows.div_ceil(SHARE);
        pool.execute_chunked(outputs / COLUMNS * shares, |range| {
            for unit in range {
                let (panel, first) = (unit / shares, unit % shares * SHARE);
                let tiles = &product.matrix.tiles[panel * blocks..(panel + 1) * blocks];
                let bias = product.bias.map(|bias| &bias[panel * COLUMNS..(panel + 1) * COLUMNS]);
                let mut row = first;
                let end = rows.min(first + SHARE);
                while row < end {
                    // SAFETY: these rows of these columns are one thread's alone, and lie inside `out`.
                    unsafe {
                        let to = out.at(row * outputs + panel * COLUMNS);
                        let numbers = &bytes.numbers[row * blocks * BLOCK..];
                        let scales = &bytes.scales[row * blocks..];
                        match end - row {
                            1 => some::<1>(tiles, bias, numbers, scales, to, outputs),
                            2 => some::<2>(tiles, bias, numbers, scales, to, outputs),
                            3 => some::<3>(tiles, bias, numbers, scales, to, outputs),
                            4 => some::<4>(tiles, bias, numbers, scales, to, outputs),
                            5 => some::<5>(tiles, bias, numbers, scales, to, outputs),
                            _ => some::<ROWS>(tiles, bias, numbers, scales, to, outputs),
                        }
                    }
                    row += ROWS;
                }
            }
        });
    }

    /// A pointer that threads share, of which each writes other numbers.
    struct Shared<T>(*mut T);

    // SAFETY: as said there.
    unsafe impl<T> Sync for Shared<T> {}

    impl<T> Shared<T> {
        /// SAFETY: inside what it points to.
        unsafe fn at(&self, offset: usize) -> *mut T {
            // SAFETY: the caller's.
            unsafe { self.0.add(offset) }
        }
    }

    /// What is no number makes its block's scale none, and so everything that it is part of.
    #[target_feature(enable = "avx512f,avx512bw")]
    fn quantize(x: &[f32], numbers: &mut [u8], scales: &mut [f32]) {
        let zero = _mm512_set1_epi32(128);
        for ((x, numbers), scale) in x.as_chunks::<BLOCK>().0.iter().zip(numbers.as_chunks_mut().0).zip(scales) {
            let numbers: &mut [u8; BLOCK] = numbers;
            // SAFETY: `BLOCK` numbers each.
            unsafe {
                let (low, high) = (_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(x.as_ptr().add(16)));
                let most = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(low), _mm512_abs_ps(high)));
                let is_none = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(low, high) != 0;
                *scale = if is_none { f32::NAN } else { most / 127.0 };
                let inverse = _mm512_set1_ps(if most > 0.0 { 127.0 / most } else { 0.0 });
                for (k, part) in [low, high].into_iter().enumerate() {
                    let rounded = _mm512_add_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(part, inverse)), zero);
                    _mm_storeu_si128(numbers.as_mut_ptr().add(16 * k).cast(), _mm512_cvtepi32_epi8(rounded));
                }
            }
        }
    }

    /// `R` rows times the columns of a panel.
    ///
    /// SAFETY: AVX-512 with VNNI; `numbers` and `scales` hold `R` rows, `to` has room for the columns of `R` rows that are
    /// `stride` numbers apart.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn some<const R: usize>(
        tiles: &[Tile],
        bias: Option<&[f32]>,
        numbers: &[u8],
        scales: &[f32],
        to: *mut f32,
        stride: usize,
    ) {
        let blocks = tiles.len();
        assert!(numbers.len() >= R * blocks * BLOCK && scales.len() >= R * blocks);
        // SAFETY: asserted, and the caller's.
        unsafe {
            let start = match bias {
                Some(bias) => [_mm512_loadu_ps(bias.as_ptr()), _mm512_loadu_ps(bias.as_ptr().add(16))],
                None => [_mm512_setzero_ps(); 2],
            };
            let mut sums = [start; R];
            for (block, tile) in tiles.iter().enumerate() {
                let offset = |k: usize| {
                    let sums = _mm256_loadu_si256(tile.sums.as_ptr().add(16 * k).cast());
                    _mm512_slli_epi32::<7>(_mm512_cvtepi16_epi32(sums))
                };
                let mut whole = [[offset(0), offset(1)]; R];
                let row = numbers.as_ptr().add(block * BLOCK);
                for (four, columns) in tile.numbers.iter().enumerate() {
                    let low = _mm512_loadu_si512(columns.as_ptr().cast());
                    let high = _mm512_loadu_si512(columns.as_ptr().add(64).cast());
                    for (r, whole) in whole.iter_mut().enumerate() {
                        let x = row.add(r * blocks * BLOCK + 4 * four).cast::<i32>().read_unaligned();
                        let x = _mm512_set1_epi32(x);
                        whole[0] = _mm512_dpbusd_epi32(whole[0], x, low);
                        whole[1] = _mm512_dpbusd_epi32(whole[1], x, high);
                    }
                }
                let scale = |k: usize| _mm512_cvtph_ps(_mm256_loadu_si256(tile.scales.as_ptr().add(16 * k).cast()));
                let scale = [scale(0), scale(1)];
                for r in 0..R {
                    let of_row = _mm512_set1_ps(*scales.get_unchecked(r * blocks + block));
                    for k in 0..2 {
                        let both = _mm512_mul_ps(scale[k], of_row);
                        sums[r][k] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole[r][k]), both, sums[r][k]);
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                _mm512_storeu_ps(to.add(r * stride), sums[0]);
                _mm512_storeu_ps(to.add(r * stride + 16), sums[1]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::*;
    use crate::nn::Matrix;

    /// Of widths that candle has no tiles for, and numbers of rows that leave some over.
    #[test]
    fn several_rows_times_bytes_are_within_their_rounding_of_the_exact_product() -> Result<()> {
        let random = |dims: (usize, usize)| Tensor::randn(0f32, 1.0, dims, &Device::Cpu);
        for (inputs, outputs) in [(32, 32), (96, 64), (1152, 32), (256, 96), (64, 33)] {
            let matrix = Matrix::from(QTensor::quantize(&random((outputs, inputs))?, GgmlDType::Q8_0)?);
            let dense = matrix.dense(DType::F32)?;
            let bias = Tensor::randn(0f32, 9.0, outputs, &Device::Cpu)?;
            for rows in [2, 5, 6, 7, 127, 250] {
                let x = random((rows, inputs))?;
                let exact = x.matmul(&dense.t()?)?;
                for (got, exact) in [
                    (matrix.product(&x)?, exact.clone()),
                    (matrix.product_plus(&x, Some(&bias))?, exact.broadcast_add(&bias)?),
                ] {
                    let apart = (got - exact)?.abs()?.max_all()?.to_scalar::<f32>()?;
                    // Half a step of a row's 32 numbers is a hundredth of one of them; inputs add up by chance.
                    assert!(apart < 0.06 * (inputs as f32).sqrt(), "{inputs} {outputs} {rows}: {apart}");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn a_row_with_what_is_no_number_comes_to_none_and_its_neighbours_do_not_notice() -> Result<()> {
        let w = Tensor::randn(0f32, 1.0, (32, 64), &Device::Cpu)?;
        let matrix = Matrix::from(QTensor::quantize(&w, GgmlDType::Q8_0)?);
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = vec![0.5f32; 3 * 64];
            x[64 + 40] = bad;
            let y = matrix.product(&Tensor::from_vec(x, (3, 64), &Device::Cpu)?)?.to_vec2::<f32>()?;
            assert!(y[1].iter().all(|v| !v.is_finite()), "{bad}: {:?}", y[1]);
            assert!(y[0].iter().chain(&y[2]).all(|v| v.is_finite()));
        }
        let zeros = matrix.product(&Tensor::zeros((2, 64), DType::F32, &Device::Cpu)?)?;
        assert!(zeros.to_vec2::<f32>()?.iter().flatten().all(|v| v.to_bits() == 0));
        Ok(())
    }
}
