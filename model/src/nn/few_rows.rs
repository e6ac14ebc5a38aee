//! Products of a few rows with a matrix of plain numbers, as tokens that are read ahead ask for: the general product lays the whole
//! matrix out anew each time, which for a few rows is most of its work.

use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};
use pulp::{Arch, Simd, WithSimd};

/// Most rows: for many, the general product makes up for laying the matrix out (where they meet was not measured).
const MOST: usize = 48;
/// Rows and columns that meet at once: so many sums stay in registers.
const ROWS: usize = 4;
const COLUMNS: usize = 2;
/// Products that are worth a thread.
const SHARE: usize = 1 << 20;

/// `x W^T` in f32 on the CPU, outside of a graph.
pub(super) struct FewRows;

impl FewRows {
    /// Whether it is for these: x `[rows, in]`, w `[out, in]`.
    pub fn is_for(x: &Tensor, w: &Tensor) -> bool {
        let is_plain = |t: &Tensor| t.dtype() == DType::F32 && t.device().is_cpu() && t.is_contiguous();
        x.dims().first().is_some_and(|rows| (2..=MOST).contains(rows)) && is_plain(x) && is_plain(w)
    }
}

impl CustomOp2 for FewRows {
    fn name(&self) -> &'static str {
        "product-of-few-rows"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (CpuStorage::F32(x), CpuStorage::F32(w)) = (x, w) else { bail!("product of few rows: expected f32") };
        let ((rows, width), (outputs, expected)) = (x_layout.shape().dims2()?, w_layout.shape().dims2()?);
        if width != expected {
            bail!("product with a matrix: expected rows of {expected}, got {width}");
        }
        let (Some((x_at, x_end)), Some((w_at, w_end))) = (x_layout.contiguous_offsets(), w_layout.contiguous_offsets())
        else {
            bail!("product of few rows: expected contiguous tensors")
        };
        let (x, w) = (&x[x_at..x_end], &w[w_at..w_end]);
        // Column after column, so that each thread fills in a part of its own.
        let mut columns = vec![0f32; rows * outputs];
        let threads = rayon::current_num_threads().min((rows * outputs * width).div_ceil(SHARE));
        let share = outputs.div_ceil(threads).next_multiple_of(COLUMNS);
        let parts: Vec<_> = columns.chunks_mut(share * rows).zip(w.chunks(share * width)).map(Mutex::new).collect();
        let fill = |part: &Mutex<(&mut [f32], &[f32])>| {
            let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
            let (out, w) = &mut *part;
            Arch::new().dispatch(Part { x, w, rows, width, out });
        };
        if let [part] = &parts[..] {
            fill(part);
        } else {
            candle_core::utils::barrier_pool().execute_chunked(parts.len(), |range| parts[range].iter().for_each(fill));
        }
        let mut out = vec![0f32; rows * outputs];
        for (column, numbers) in columns.chunks_exact(rows).enumerate() {
            numbers.iter().enumerate().for_each(|(row, v)| out[row * outputs + column] = *v);
        }
        Ok((CpuStorage::F32(out), (rows, outputs).into()))
    }
}

/// A part of a product.
struct Part<'a> {
    x: &'a [f32],
    w: &'a [f32],
    rows: usize,
    width: usize,
    /// The numbers of all rows for a column, then for the next.
    out: &'a mut [f32],
}

impl WithSimd for Part<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, w, rows, width, out } = self;
        for (out, w) in out.chunks_mut(rows * COLUMNS).zip(w.chunks(width * COLUMNS)) {
            // Where rows or columns end, the last stands in for those that are missing.
            let of_w = |column: usize| &w[column.min(w.len() / width - 1) * width..][..width];
            let w: [_; COLUMNS] = std::array::from_fn(|column| S::as_simd_f32s(of_w(column)));
            for first in (0..rows).step_by(ROWS) {
                let of_x = |row: usize| &x[(first + row).min(rows - 1) * width..][..width];
                let x: [_; ROWS] = std::array::from_fn(|row| S::as_simd_f32s(of_x(row)));
                let mut sums = [[simd.splat_f32s(0.0); COLUMNS]; ROWS];
                for k in 0..w[0].0.len() {
                    for r in 0..ROWS {
                        for c in 0..COLUMNS {
                            sums[r][c] = simd.mul_add_f32s(x[r].0[k], w[c].0[k], sums[r][c]);
                        }
                    }
                }
                for (c, out) in out.chunks_exact_mut(rows).enumerate() {
                    for (r, out) in out[first..].iter_mut().take(ROWS).enumerate() {
                        let rest = x[r].1.iter().zip(w[c].1).map(|(x, w)| x * w).sum::<f32>();
                        *out = simd.reduce_sum_f32s(sums[r][c]) + rest;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::nn::Matrix;

    #[test]
    fn a_few_rows_come_to_what_the_general_product_says() -> Result<()> {
        for (rows, inputs, outputs) in
            [(2, 16, 2), (3, 37, 5), (9, 256, 1000), (16, 768, 1), (48, 300, 64), (5, 1, 7), (8, 1024, 999)]
        {
            let x = Tensor::randn(0f32, 1.0, (rows, inputs), &Device::Cpu)?;
            let w = Tensor::randn(0f32, 1.0, (outputs, inputs), &Device::Cpu)?;
            assert!(FewRows::is_for(&x, &w));
            let (got, exact) = (Matrix::Dense(w.clone()).product(&x)?, x.matmul(&w.t()?)?);
            assert_eq!(got.dims(), [rows, outputs]);
            let apart = (got - exact)?.abs()?.max_all()?.to_scalar::<f32>()?;
            assert!(apart < 1e-5 * inputs as f32, "{rows} {inputs} {outputs}: {apart}");
        }
        let w = Matrix::Dense(Tensor::zeros((4, 12), DType::F32, &Device::Cpu)?);
        let error = w.product(&Tensor::zeros((3, 11), DType::F32, &Device::Cpu)?).err();
        assert!(error.is_some_and(|e| e.to_string().contains("expected rows of 12, got 11")));
        Ok(())
    }
}
