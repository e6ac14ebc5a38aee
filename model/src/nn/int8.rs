//! Products of several rows with a matrix in Q8_0 or Q4_K, by the dot products of bytes that processors with AVX-512 VNNI have.
//!
//! candle's own are made for four rows and sixteen columns at a time, keep their sums in memory, and take only rows of a multiple of 256
//! numbers. Here six rows meet 32 columns, so that what is read of the matrix is used six times, and all sums stay in registers.

use std::sync::OnceLock;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, bail};

#[cfg(target_arch = "x86_64")]
use layout::Tiles;
use layout::{BLOCK, Packed};

mod layout;
#[cfg(target_arch = "x86_64")]
mod x86;

/// Lies beside a quantized matrix, made at its first use.
#[derive(Debug, Default)]
pub(super) struct Packing(OnceLock<Option<Packed>>);

impl Packing {
    /// The layout of a matrix, where these products are for it.
    pub(super) fn get(&self, w: &QTensor) -> Option<&Packed> {
        if !matches!(w.dtype(), GgmlDType::Q8_0 | GgmlDType::Q4K) {
            return None;
        }
        self.0.get_or_init(|| Packed::new(w)).as_ref()
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
        {
            let (x, sizes, out) = (&x[start..end], [rows, blocks, outputs], out.spare_capacity_mut());
            match &self.matrix.tiles {
                Tiles::Bytes(tiles) => x86::product(tiles, self.bias, x, sizes, out),
                Tiles::Halves(tiles) => x86::product(tiles, self.bias, x, sizes, out),
            }
        }
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

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::*;
    use crate::nn::Matrix;

    /// Of widths that candle has no tiles for, and numbers of rows that leave some over.
    #[test]
    fn several_rows_times_bytes_are_within_their_rounding_of_the_exact_product() -> Result<()> {
        let random = |dims: (usize, usize)| Tensor::randn(0f32, 1.0, dims, &Device::Cpu);
        let bytes = [(32, 32), (96, 64), (1152, 32), (256, 96), (64, 33)].map(|shape| (GgmlDType::Q8_0, shape));
        let halves = [(256, 32), (1024, 96), (2304, 32), (512, 33)].map(|shape| (GgmlDType::Q4K, shape));
        for (kind, (inputs, outputs)) in bytes.into_iter().chain(halves) {
            let matrix = Matrix::from(QTensor::quantize(&random((outputs, inputs))?, kind)?);
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
                    assert!(apart < 0.06 * (inputs as f32).sqrt(), "{kind:?} {inputs} {outputs} {rows}: {apart}");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn a_row_with_what_is_no_number_comes_to_none_and_its_neighbours_do_not_notice() -> Result<()> {
        let w = Tensor::randn(0f32, 1.0, (32, 64), &Device::Cpu)?;
        let matrix = QTensor::quantize(&w, GgmlDType::Q8_0)?;
        if Packed::new(&matrix).is_none() {
            return Ok(()); // candle's products, which take what is no number for one
        }
        let matrix = Matrix::from(matrix);
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
