//! A quantized matrix, laid out in tiles that some rows meet at once.

use candle_core::quantized::{GgmlDType, QTensor};
use half::f16;

/// Numbers under one scale, of a row as of the matrix.
pub(super) const BLOCK: usize = 32;
/// Columns of a tile: two registers of sixteen.
pub(super) const COLUMNS: usize = 32;

/// Bytes of a block of Q8_0: its scale as f16 and its numbers.
const Q8_0: usize = 2 + BLOCK;
/// Bytes of a block of Q4_K, which is eight of ours: a scale of scales and one of minima as f16, six bits for each of these, and the
/// numbers, of 64 the first 32 in the lower halves of bytes.
const Q4_K: usize = 4 + 12 + 128;

/// 32 numbers of each of 32 columns, in `N` lines of bytes: 8 where each has its own, 4 where two share one. Less a minimum each, or none
/// (`M` = 0).
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub(super) struct Tile<const N: usize, const M: usize> {
    /// Four numbers of a column, then four of the next; behind the last column's, the first's next four. Where two numbers share
    /// a byte, the upper half has those of the next four.
    pub numbers: [[u8; 4 * COLUMNS]; N],
    pub scales: [f16; COLUMNS],
    pub minima: [f16; M],
    /// Minus the sum of a column's numbers: rows are bytes that are 128 too large, since one side of the products has no sign.
    pub sums: [i16; COLUMNS],
}

impl<const N: usize, const M: usize> Tile<N, M> {
    fn empty() -> Self {
        Self {
            numbers: [[0; 4 * COLUMNS]; N],
            scales: [f16::ZERO; COLUMNS],
            minima: [f16::ZERO; M],
            sums: [0; COLUMNS],
        }
    }
}

/// The blocks of the first 32 outputs, of the next 32, ...
#[derive(Debug)]
pub(super) enum Tiles {
    Bytes(Vec<Tile<8, 0>>),
    Halves(Vec<Tile<4, COLUMNS>>),
}

/// A matrix `[out, in]` laid out for these products.
#[derive(Debug)]
pub(in crate::nn) struct Packed {
    pub(super) tiles: Tiles,
    pub blocks: usize,
    pub outputs: usize,
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

/// Whether it has products of whole tiles of bytes (AMX), by which candle multiplies Q4_K. (Ours were not held against those.)
fn has_tiles() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        /// Of leaf 7, by Intel's manual.
        const AMX_INT8: u32 = 1 << 25;
        std::arch::x86_64::__cpuid_count(7, 0).edx & AMX_INT8 != 0
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

impl Packed {
    /// `None` for other processors, other devices and shapes that do not fit tiles.
    pub(super) fn new(w: &QTensor) -> Option<Self> {
        let (outputs, inputs) = w.shape().dims2().ok()?;
        let fits = outputs.is_multiple_of(COLUMNS) && inputs.is_multiple_of(BLOCK) && inputs > 0;
        if !is_there() || !fits || !w.device().is_cpu() || (w.dtype() == GgmlDType::Q4K && has_tiles()) {
            return None;
        }
        let (bytes, blocks) = (w.data().ok()?, inputs / BLOCK);
        let tiles = match w.dtype() {
            GgmlDType::Q8_0 => Tiles::Bytes(laid_out(&bytes, blocks * Q8_0, blocks, |column, block, k, tile| {
                let bytes = &column[block * Q8_0..(block + 1) * Q8_0];
                tile.scales[k] = half_at(bytes, 0);
                for (line, four) in tile.numbers.iter_mut().zip(bytes[2..].chunks_exact(4)) {
                    line[4 * k..4 * (k + 1)].copy_from_slice(four);
                    tile.sums[k] -= four.iter().map(|v| i16::from(v.cast_signed())).sum::<i16>();
                }
            })),
            _ => Tiles::Halves(laid_out(&bytes, blocks / 8 * Q4_K, blocks, |column, block, k, tile| {
                let bytes = &column[block / 8 * Q4_K..(block / 8 + 1) * Q4_K];
                let (scale, minimum) = six_bits(&bytes[4..16], block % 8);
                tile.scales[k] = f16::from_f32(half_at(bytes, 0).to_f32() * f32::from(scale));
                tile.minima[k] = f16::from_f32(half_at(bytes, 2).to_f32() * f32::from(minimum));
                let shared = &bytes[16 + block % 8 / 2 * BLOCK..][..BLOCK];
                let number = |at: usize| shared[at] >> (4 * (block % 2)) & 0xf;
                for (line, numbers) in tile.numbers.iter_mut().enumerate() {
                    for (at, byte) in numbers[4 * k..4 * (k + 1)].iter_mut().enumerate() {
                        let (low, high) = (number(8 * line + at), number(8 * line + 4 + at));
                        *byte = low | high << 4;
                        tile.sums[k] -= i16::from(low + high);
                    }
                }
            })),
        };
        Some(Self { tiles, blocks, outputs })
    }
}

fn half_at(bytes: &[u8], at: usize) -> f16 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// Scale and minimum of one of the eight parts of a block of Q4_K, as ggml has them.
fn six_bits(bytes: &[u8], part: usize) -> (u8, u8) {
    if part < 4 {
        return (bytes[part] & 63, bytes[part + 4] & 63);
    }
    let (low, scale, minimum) = (bytes[part + 4], bytes[part - 4] >> 6, bytes[part] >> 6);
    (low & 0xf | scale << 4, low >> 4 | minimum << 4)
}

/// Tiles of a matrix whose columns (rows, in the file) are `bytes` long each; `fill` writes one block of one of them, as the k-th column
/// of a tile.
fn laid_out<const N: usize, const M: usize>(
    matrix: &[u8],
    bytes: usize,
    blocks: usize,
    fill: impl Fn(&[u8], usize, usize, &mut Tile<N, M>),
) -> Vec<Tile<N, M>> {
    let mut tiles = Vec::with_capacity(matrix.len() / (bytes * COLUMNS) * blocks);
    for columns in matrix.chunks_exact(COLUMNS * bytes) {
        tiles.extend((0..blocks).map(|block| {
            let mut tile = Tile::empty();
            for (k, column) in columns.chunks_exact(bytes).enumerate() {
                fill(column, block, k, &mut tile);
            }
            tile
        }));
    }
    tiles
}
