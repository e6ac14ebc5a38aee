//! Quantized blocks that stay in the file's memory map.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use candle_core::quantized::{GgmlDType, GgmlType, QuantizedType, k_quants};
use candle_core::{CpuStorage, Result, bail};
use half::f16;
use memmap2::Mmap;

/// Blocks of type `T` in a map.
pub(super) struct Mapped<T> {
    map: Arc<Mmap>,
    range: Range<usize>,
    blocks: PhantomData<T>,
}

impl<T: GgmlType> Mapped<T> {
    /// `range` must lie in the map, hold whole blocks and begin where a block may begin.
    pub(super) fn new(map: Arc<Mmap>, range: Range<usize>) -> Result<Self> {
        let Some(bytes) = map.get(range.clone()) else { bail!("bytes {range:?} of a file of {}", map.len()) };
        if !bytes.len().is_multiple_of(size_of::<T>()) || !bytes.as_ptr().cast::<T>().is_aligned() {
            bail!("{} bytes at {}: not whole, aligned blocks of {:?}", bytes.len(), range.start, T::DTYPE);
        }
        Ok(Self { map, range, blocks: PhantomData })
    }

    fn blocks(&self) -> &[T] {
        let bytes = &self.map[self.range.clone()];
        // SAFETY: blocks are plain numbers, any bytes are a valid one; length and alignment were checked in `new`.
        #[expect(unsafe_code, reason = "a view of bytes as blocks")]
        unsafe {
            std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / size_of::<T>())
        }
    }
}

impl<T: GgmlType> QuantizedType for Mapped<T> {
    fn dtype(&self) -> GgmlDType {
        T::DTYPE
    }

    fn matmul_t(&self, mkn: (usize, usize, usize), lhs: &[f32], dst: &mut [f32]) -> Result<()> {
        k_quants::matmul(mkn, lhs, self.blocks(), dst)
    }

    fn matmul_t_f16(&self, mkn: (usize, usize, usize), lhs: &[f16], dst: &mut [f16]) -> Result<()> {
        k_quants::matmul_f16(mkn, lhs, self.blocks(), dst)
    }

    fn embedding(&self, ids: &[u32], rows: usize, hidden: usize) -> Result<CpuStorage> {
        let per_row = hidden / T::BLCK_SIZE;
        let blocks = self.blocks();
        let mut out = vec![0f32; ids.len() * hidden];
        for (&id, out) in ids.iter().zip(out.chunks_exact_mut(hidden)) {
            let row = id as usize;
            match blocks.get(row * per_row..(row + 1) * per_row) {
                Some(blocks) if row < rows => T::to_float(blocks, out),
                _ => bail!("row {row} of a matrix of {rows}"),
            }
        }
        Ok(CpuStorage::F32(out))
    }

    fn dequantize(&self, elements: usize) -> Result<CpuStorage> {
        let mut out = vec![0f32; elements];
        T::to_float(self.blocks(), &mut out);
        Ok(CpuStorage::F32(out))
    }

    fn storage_size_in_bytes(&self) -> usize {
        self.range.len()
    }

    fn as_ptr(&self) -> *const u8 {
        self.map[self.range.clone()].as_ptr()
    }

    fn block_size(&self) -> usize {
        T::BLCK_SIZE
    }

    fn from_float(&mut self, _: &[f32]) {
        unreachable!("a file's map is read-only, and nothing quantizes into one");
    }

    fn from_float_imatrix(&mut self, _: &[f32], _: &[f32], _: usize) {
        unreachable!("a file's map is read-only, and nothing quantizes into one");
    }

    fn size(&self) -> usize {
        self.range.len()
    }
}
