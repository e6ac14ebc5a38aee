//! Matrices as layers hold them, and products with constant ones as nodes of a graph, on storages: an output is made once, in its place.

use std::borrow::Cow;
use std::ops::Deref;
use std::sync::Arc;

use candle_core::backend::BackendStorage;
use candle_core::op::Add;
use candle_core::quantized::k_quants::{self, BlockQ4K, BlockQ8_0};
use candle_core::quantized::{GgmlDType, GgmlType, QTensor};
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp3, DType, Device, Layout, Result, Shape, Storage, Tensor, bail,
};

use super::few_rows::FewRows;
use super::int8::{self, Packing};

/// A matrix `[out, in]`.
#[derive(Debug, Clone)]
pub enum Matrix {
    /// Plain numbers; trained where they are a variable, else constant.
    Dense(Tensor),
    /// Blocks of a GGML type; always constant.
    Quantized(Quantized),
}

/// A matrix in blocks, and what is laid out of them for products of several rows.
#[derive(Debug, Clone)]
pub struct Quantized {
    matrix: Arc<QTensor>,
    packing: Arc<Packing>,
}

impl From<QTensor> for Quantized {
    fn from(matrix: QTensor) -> Self {
        Self { matrix: Arc::new(matrix), packing: Arc::default() }
    }
}

impl From<QTensor> for Matrix {
    fn from(matrix: QTensor) -> Self {
        Self::Quantized(matrix.into())
    }
}

impl Quantized {
    /// Lays out what products of several rows read, where that is not the blocks themselves, so that the first is as fast as the
    /// others. Whether anything was.
    ///
    /// # Errors
    /// A tensor operation's.
    pub(crate) fn lay_out(&self) -> Result<bool> {
        if self.packing.get(self).is_some() {
            return Ok(true);
        }
        if !self.device().is_cpu() || !matches!(self.dtype(), GgmlDType::Q4K | GgmlDType::Q8_0) {
            return Ok(false);
        }
        // candle does it when it first multiplies.
        let (_, input) = self.shape().dims2()?;
        Tensor::zeros((1, input), DType::F32, &Device::Cpu)?.apply_op1_no_bwd(self.matrix.as_ref())?;
        Ok(true)
    }
}

impl Deref for Quantized {
    type Target = QTensor;

    fn deref(&self) -> &QTensor {
        &self.matrix
    }
}

impl Matrix {
    /// (out, in)
    ///
    /// # Errors
    /// A tensor of another rank.
    pub fn dims(&self) -> candle_core::Result<(usize, usize)> {
        match self {
            Self::Dense(w) => w.dims2(),
            Self::Quantized(w) => w.shape().dims2(),
        }
    }

    /// The numbers themselves, as `dtype`.
    ///
    /// # Errors
    /// A tensor operation's.
    pub fn dense(&self, dtype: DType) -> candle_core::Result<Tensor> {
        match self {
            Self::Dense(w) => w.to_dtype(dtype),
            Self::Quantized(w) => w.dequantize(&w.device())?.to_dtype(dtype),
        }
    }

    /// Rows by number, `[n] -> [n, in]`.
    ///
    /// # Errors
    /// A number outside the matrix.
    pub fn rows(&self, ids: &Tensor, dtype: DType) -> candle_core::Result<Tensor> {
        match self {
            Self::Dense(w) => w.index_select(ids, 0),
            Self::Quantized(w) => w.embedding(ids)?.to_dtype(dtype),
        }
    }

    /// `x W^T`, `[rows, in] -> [rows, out]`.
    ///
    /// Where `x` is part of a graph and the matrix is not, the gradient of the matrix is never formed (candle's own
    /// product forms it and keeps it to the end), and a quantized matrix does not cut the graph (candle's `QMatMul`
    /// does). In a graph, quantized matrices are multiplied as the numbers that they stand for, so that gradients are
    /// those of the dequantized model; outside, by the integer kernels.
    ///
    /// # Errors
    /// Another width than the matrix's.
    pub fn product(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.product_plus(x, None)
    }

    /// [`Self::product`] plus a bias `[out]`, where there is one.
    pub(super) fn product_plus(&self, x: &Tensor, bias: Option<&Tensor>) -> candle_core::Result<Tensor> {
        let y = match self {
            Self::Dense(w) if !w.track_op() && !x.track_op() && FewRows::is_for(x, w) => {
                x.apply_op2_no_bwd(w, &FewRows)?
            }
            Self::Dense(w) if w.track_op() || !x.track_op() => x.matmul(&w.t()?)?,
            Self::Quantized(w) if !x.track_op() => {
                let x = x.contiguous()?;
                let is_plain = |t: &Tensor| t.dtype() == DType::F32 && t.device().is_cpu() && !t.track_op();
                if x.dim(0)? > 1
                    && is_plain(&x)
                    && bias.is_none_or(is_plain)
                    && let Some(matrix) = w.packing.get(w)
                {
                    let bias = bias.map(Tensor::to_vec1).transpose()?;
                    return x.apply_op1_no_bwd(&int8::Product { matrix, bias: bias.as_deref() });
                }
                match w.dtype() {
                    GgmlDType::Q4K => OneRow::<BlockQ4K>::product(w, &x)?,
                    GgmlDType::Q8_0 => OneRow::<BlockQ8_0>::product(w, &x)?,
                    _ => x.apply_op1_no_bwd(w.matrix.as_ref())?,
                }
            }
            _ => x.contiguous()?.apply_op1(Constant(self.clone()))?,
        };
        match bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }

    /// Whether it is trained itself.
    pub(super) fn is_trained(&self) -> bool {
        matches!(self, Self::Dense(w) if w.track_op())
    }
}

/// Product of one row with a matrix in Q4_K or Q8_0, which a token at a time asks for. candle multiplies it by tiles that it lays the
/// matrix out in for prompts: of Q4_K with scales as f32 (6 bits a weight, not 4.5), where reading them is all that it costs; of Q8_0
/// beside those of [`int8`]. (Elsewhere than on x86-64 its tiles are no larger.)
struct OneRow<'a, T>(&'a [T], usize);

impl<'a, T: GgmlType> OneRow<'a, T> {
    /// `x W^T` by this or, for what it is not for, by candle's.
    fn product(w: &'a QTensor, x: &Tensor) -> Result<Tensor> {
        match Self::of(w, x) {
            Some(kernel) => x.apply_op1_no_bwd(&kernel),
            None => x.apply_op1_no_bwd(w),
        }
    }

    fn of(w: &'a QTensor, x: &Tensor) -> Option<Self> {
        let is_one = x.dims().first() == Some(&1) && x.dtype() == DType::F32 && x.device().is_cpu();
        if !cfg!(target_arch = "x86_64") || !is_one || w.dtype() != T::DTYPE || !w.device().is_cpu() {
            return None;
        }
        let Ok(Cow::Borrowed(bytes)) = w.data() else { return None };
        // SAFETY: whole blocks of plain numbers, of which any bits are some; what does not lie on their boundaries is left out.
        #[expect(unsafe_code, reason = "candle shows the blocks of a matrix as bytes alone")]
        let (before, blocks, behind) = unsafe { bytes.align_to::<T>() };
        (before.is_empty() && behind.is_empty()).then_some(Self(blocks, w.shape().dims2().ok()?.0))
    }
}

impl<T: GgmlType> CustomOp1 for OneRow<'_, T> {
    fn name(&self) -> &'static str {
        "product-of-one-row"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (CpuStorage::F32(x), Some((start, end))) = (x, layout.contiguous_offsets()) else {
            bail!("product of one row: expected contiguous f32 on the CPU")
        };
        let (rows, width) = (self.1, end - start);
        if self.0.len() * T::BLCK_SIZE != rows * width {
            bail!("product with a matrix: expected rows of {}, got {width}", self.0.len() * T::BLCK_SIZE / rows);
        }
        let mut out = vec![0f32; rows];
        k_quants::matmul((1, width, rows), &x[start..end], self.0, &mut out)?;
        Ok((CpuStorage::F32(out), (1, rows).into()))
    }
}

/// The numbers of a tensor on one kind of device, and how they lie there.
type Numbers<'a, S> = (&'a S, &'a Layout);

/// `x W^T`, `[rows, in] -> [rows, out]`.
fn times<S: BackendStorage>((x, x_layout): Numbers<'_, S>, (w, w_layout): Numbers<'_, S>) -> Result<S> {
    let ((rows, input), (output, expected)) = (x_layout.shape().dims2()?, w_layout.shape().dims2()?);
    if input != expected {
        bail!("product with a matrix: expected rows of {expected}, got {input}");
    }
    x.matmul(w, (1, rows, output, input), x_layout, &w_layout.transpose(0, 1)?)
}

/// Product with a constant matrix: the way back is the input's alone.
struct Constant(pub Matrix);

impl Constant {
    fn shape(&self, x: &Layout) -> Result<Shape> {
        Ok((x.shape().dims2()?.0, self.0.dims()?.0).into())
    }
}

impl CustomOp1 for Constant {
    fn name(&self) -> &'static str {
        "product-with-constant"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let w = self.0.dense(x.dtype())?;
        let (w, w_layout) = w.storage_and_layout();
        let Storage::Cpu(w) = &*w else { bail!("expected a matrix on the CPU") };
        Ok((times((x, layout), (w, w_layout))?, self.shape(layout)?))
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let w = self.0.dense(x.dtype())?;
        let (w, w_layout) = w.storage_and_layout();
        let Storage::Cuda(w) = &*w else { bail!("expected a matrix on a CUDA device") };
        Ok((times((x, layout), (w, w_layout))?, self.shape(layout)?))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(grad.matmul(&self.0.dense(grad.dtype())?)?))
    }
}

/// Product with a constant matrix and the adapter beside it, `x W^T + scale * (x A^T) B^T`, as one node of the graph: it
/// keeps one tensor of the output's size where the operations apart keep four.
pub(super) struct Adapted {
    pub matrix: Matrix,
    pub scale: f64,
}

impl Adapted {
    fn run<S: BackendStorage>(
        &self,
        x: Numbers<'_, S>,
        w: Numbers<'_, S>,
        a: Numbers<'_, S>,
        b: Numbers<'_, S>,
    ) -> Result<(S, Shape)> {
        let (rows, rank, output) = (x.1.shape().dims2()?.0, a.1.shape().dims2()?.0, w.1.shape().dims2()?.0);
        let (low, whole) = (Layout::contiguous((rows, rank)), Layout::contiguous((rows, output)));
        let change = times((&times(x, a)?.affine(&low, self.scale, 0.0)?, &low), b)?;
        Ok((times(x, w)?.binary_impl::<Add>(&change, &whole, &whole)?, whole.shape().clone()))
    }
}

impl CustomOp3 for Adapted {
    fn name(&self) -> &'static str {
        "product-with-adapted"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let w = self.matrix.dense(x.dtype())?;
        let (w, w_layout) = w.storage_and_layout();
        let Storage::Cpu(w) = &*w else { bail!("expected a matrix on the CPU") };
        self.run((x, x_layout), (w, w_layout), (a, a_layout), (b, b_layout))
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        a: &CudaStorage,
        a_layout: &Layout,
        b: &CudaStorage,
        b_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let w = self.matrix.dense(x.dtype())?;
        let (w, w_layout) = w.storage_and_layout();
        let Storage::Cuda(w) = &*w else { bail!("expected a matrix on a CUDA device") };
        self.run((x, x_layout), (w, w_layout), (a, a_layout), (b, b_layout))
    }

    fn bwd(
        &self,
        x: &Tensor,
        a: &Tensor,
        b: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let to_x = x.track_op();
        // What is computed here is no part of a graph.
        let (x, a, b) = (x.detach(), a.detach(), b.detach());
        let low = (grad.matmul(&b)? * self.scale)?; // [rows, rank]
        let d_a = low.t()?.matmul(&x)?;
        let d_b = (grad.t()?.matmul(&x.matmul(&a.t()?)?)? * self.scale)?;
        let d_x = to_x.then(|| grad.matmul(&self.matrix.dense(grad.dtype())?)? + low.matmul(&a)?);
        Ok((d_x.transpose()?, Some(d_a), Some(d_b)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One row goes another way than several: within the rounding of the row they agree.
    #[test]
    fn one_row_times_a_quantized_matrix_is_the_row_of_a_product_of_several() -> Result<()> {
        for dtype in [GgmlDType::Q4K, GgmlDType::Q6K, GgmlDType::Q8_0] {
            for (input, output) in [(256, 16), (512, 7), (2048, 64)] {
                let w = Tensor::randn(0f32, 1.0, (output, input), &Device::Cpu)?;
                let matrix = Matrix::from(QTensor::quantize(&w, dtype)?);
                let x = Tensor::randn(0f32, 1.0, (3, input), &Device::Cpu)?;
                let (several, exact) = (matrix.product(&x)?, x.matmul(&matrix.dense(DType::F32)?.t()?)?);
                for k in 0..3 {
                    let one = matrix.product(&x.narrow(0, k, 1)?)?;
                    assert_eq!(one.dims(), [1, output]);
                    for other in [&several, &exact] {
                        let apart = (one.clone() - other.narrow(0, k, 1)?)?.abs()?.max_all()?.to_scalar::<f32>()?;
                        // A row is rounded by blocks of 256 here and of 32 there: by 0.007 of a number each, so both by 0.01 times
                        // the root, of which this is six. A block in another's place is off by 1.4 times the root of its width.
                        assert!(apart < 0.06 * (input as f32).sqrt(), "{dtype:?} {input} {output}: {apart}");
                    }
                }
            }
        }
        let w = Tensor::zeros((4, 512), DType::F32, &Device::Cpu)?;
        let matrix = Matrix::from(QTensor::quantize(&w, GgmlDType::Q4K)?);
        let error = matrix.product(&Tensor::zeros((1, 256), DType::F32, &Device::Cpu)?).err();
        assert!(error.is_some_and(|e| e.to_string().contains("256")), "a row of another width");
        Ok(())
    }
}
