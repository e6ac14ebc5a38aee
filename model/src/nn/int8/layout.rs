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
/// Bytes of a block of Q6_K, which is eight of ours: the lower four bits of its numbers, the upper two, sixteen scales of a byte and
/// their own as f16.
const Q6_K: usize = 128 + 64 + 16 + 2;
/// Outputs of the largest matrix in Q6_K that is laid out: more has a head alone, of which a token at a time is asked.
const MOST_OUTPUTS: usize = 1 << 16;

/// 32 numbers of each of 32 columns, in `N` lines of bytes: 8 where each has its own, 4 where two share one. They are of `P` parts with
/// a scale each, less a minimum each, or none (`M` = 0).
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub(super) struct Tile<const N: usize, const M: usize, const P: usize> {
    /// Four numbers of a column, then four of the next; behind the last column's, the first's next four. Where two numbers share
    /// a byte, the upper half has those of the next four.
    pub numbers: [[u8; 4 * COLUMNS]; N],
    pub scales: [[f16; COLUMNS]; P],
    pub minima: [f16; M],
    /// Minus the sum of a column's numbers: rows are bytes that are 128 too large, since one side of the products has no sign.
    pub sums: [[i16; COLUMNS]; P],
}

impl<const N: usize, const M: usize, const P: usize> Tile<N, M, P> {
    fn empty() -> Self {
        Self {
            numbers: [[0; 4 * COLUMNS]; N],
            scales: [[f16::ZERO; COLUMNS]; P],
            minima: [f16::ZERO; M],
            sums: [[0; COLUMNS]; P],
        }
    }
}

/// The blocks of the first 32 outputs, of the next 32, ...
#[derive(Debug)]
pub(super) enum Tiles {
    /// Q8_0
    Bytes(Vec<Tile<8, 0, 1>>),
    /// Q4_K
    Halves(Vec<Tile<4, COLUMNS, 1>>),
    /// Q6_K
    Parts(Vec<Tile<8, 0, 2>>),
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

/// Whether it has products of whole tiles of bytes (AMX), by which candle multiplies Q4_K and Q6_K. (Ours were not held against those.)
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
        let is_other = match w.dtype() {
            GgmlDType::Q8_0 => false,
            GgmlDType::Q6K => outputs > MOST_OUTPUTS || has_tiles(),
            _ => has_tiles(),
        };
        if !is_there() || !fits || !w.device().is_cpu() || is_other {
            return None;
        }
        let (bytes, blocks) = (w.data().ok()?, inputs / BLOCK);
        let tiles = match w.dtype() {
            GgmlDType::Q8_0 => Tiles::Bytes(laid_out(&bytes, blocks * Q8_0, blocks, |column, block, k, tile| {
                let bytes = &column[block * Q8_0..(block + 1) * Q8_0];
                tile.scales[0][k] = half_at(bytes, 0);
                for (line, four) in tile.numbers.iter_mut().zip(bytes[2..].chunks_exact(4)) {
                    line[4 * k..4 * (k + 1)].copy_from_slice(four);
                    tile.sums[0][k] -= four.iter().map(|v| i16::from(v.cast_signed())).sum::<i16>();
                }
            })),
            GgmlDType::Q6K => Tiles::Parts(laid_out(&bytes, blocks / 8 * Q6_K, blocks, |column, block, k, tile| {
                let bytes = &column[block / 8 * Q6_K..(block / 8 + 1) * Q6_K];
                let (half, quarter) = (block % 8 / 4, block % 4);
                let (lower, upper) = (&bytes[64 * half + 32 * (quarter % 2)..], &bytes[128 + 32 * half..]);
                for (part, at) in (192 + 8 * half + 2 * quarter..).take(2).enumerate() {
                    tile.scales[part][k] =
                        f16::from_f32(half_at(bytes, 208).to_f32() * f32::from(bytes[at].cast_signed()));
                }
                for at in 0..BLOCK {
                    let low = lower[at] >> (4 * (quarter / 2)) & 0xf;
                    let number = (low | (upper[at] >> (2 * quarter) & 3) << 4).cast_signed() - 32;
                    tile.numbers[at / 4][4 * k + at % 4] = number.cast_unsigned();
                    tile.sums[at / 16][k] -= i16::from(number);
                }
            })),
            _ => Tiles::Halves(laid_out(&bytes, blocks / 8 * Q4_K, blocks, |column, block, k, tile| {
                let bytes = &column[block / 8 * Q4_K..(block / 8 + 1) * Q4_K];
                let (scale, minimum) = six_bits(&bytes[4..16], block % 8);
                tile.scales[0][k] = f16::from_f32(half_at(bytes, 0).to_f32() * f32::from(scale));
                tile.minima[k] = f16::from_f32(half_at(bytes, 2).to_f32() * f32::from(minimum));
                let shared = &bytes[16 + block % 8 / 2 * BLOCK..][..BLOCK];
                let number = |at: usize| shared[at] >> (4 * (block % 2)) & 0xf;
                for (line, numbers) in tile.numbers.iter_mut().enumerate() {
                    for (at, byte) in numbers[4 * k..4 * (k + 1)].iter_mut().enumerate() {
                        let (low, high) = (number(8 * line + at), number(8 * line + 4 + at));
                        *byte = low | high << 4;
                        tile.sums[0][k] -= i16::from(low + high);
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
fn laid_out<const N: usize, const M: usize, const P: usize>(
    matrix: &[u8],
    bytes: usize,
    blocks: usize,
    fill: impl Fn(&[u8], usize, usize, &mut Tile<N, M, P>),
) -> Vec<Tile<N, M, P>> {
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
