//! The linear layer: a matrix that may be trained, frozen or quantized, and a low-rank adapter beside it.

use candle_core::{DType, Device, Module, Tensor};
use candle_nn::Init;

use super::Dropout;
use super::matrix::{Adapted, Matrix};
use crate::Result;
use crate::weights::loader::Loader;

/// A low-rank change of a matrix: `W + scale * B A` (LoRA, Hu et al. 2021, eq. 3).
#[derive(Debug, Clone)]
pub struct Adapter {
    /// `[rank, in]`
    pub a: Tensor,
    /// `[out, rank]`
    pub b: Tensor,
    /// alpha / rank, or alpha / sqrt(rank) where rank-stabilised.
    pub scale: f64,
    /// Share of the input that A does not see while training, see [`Dropout`].
    pub dropout: f64,
}

impl Adapter {
    /// `scale * B A` `[out, in]`, in f32: small changes of large weights are below bf16's resolution until added up.
    ///
    /// # Errors
    /// Halves of different rank.
    pub fn change(&self) -> candle_core::Result<Tensor> {
        self.b.to_dtype(DType::F32)?.matmul(&self.a.to_dtype(DType::F32)?)? * self.scale
    }
}

/// `y = x W^T + bias + scale * (x A^T) B^T`.
#[derive(Debug, Clone)]
pub struct Linear {
    name: String,
    matrix: Matrix,
    bias: Option<Tensor>,
    adapter: Option<Adapter>,
}

impl Linear {
    /// Loads `weight` `[out, in]` and, where asked for, `bias` `[out]`.
    pub fn new(input: usize, output: usize, bias: bool, vb: &Loader<'_>) -> Result<Self> {
        let stdev = (1.0 / input as f64).sqrt().min(0.06);
        let matrix = vb.matrix((output, input), "weight", Init::Randn { mean: 0.0, stdev })?;
        let bias = if bias { Some(vb.tensor(output, "bias", Init::Const(0.0))?) } else { None };
        Ok(Self { name: vb.prefix(), matrix, bias, adapter: None })
    }

    /// The same map with matrix `[out, in]` and, where there is one, bias `[out]` at hand.
    pub fn from_parts(name: impl Into<String>, matrix: Matrix, bias: Option<Tensor>) -> Self {
        Self { name: name.into(), matrix, bias, adapter: None }
    }

    /// Path of the module in the checkpoint, such as `model.language_model.layers.0.self_attn.q_proj`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The matrix, without any adapter.
    pub fn matrix(&self) -> &Matrix {
        &self.matrix
    }

    /// The adapter, where there is one.
    pub fn adapter(&self) -> Option<&Adapter> {
        self.adapter.as_ref()
    }

    /// Puts an adapter beside the matrix, in place of an earlier one.
    ///
    /// # Errors
    /// An adapter of another shape.
    pub fn adapt(&mut self, adapter: Adapter) -> Result<()> {
        let (output, input) = self.matrix.dims()?;
        let rank = adapter.a.dim(0)?;
        for (part, tensor, expected) in [("lora_A", &adapter.a, (rank, input)), ("lora_B", &adapter.b, (output, rank))]
        {
            if tensor.dims() != [expected.0, expected.1] {
                return Err(crate::Error::Adapter {
                    module: self.name.clone(),
                    expected: format!("{part} of [{}, {}]", expected.0, expected.1),
                    got: format!("{:?}", tensor.dims()),
                });
            }
        }
        self.adapter = Some(adapter);
        Ok(())
    }

    /// Takes the adapter away.
    pub fn unadapt(&mut self) {
        self.adapter = None;
    }

    /// The same map to some of its outputs, by number `[n]`, for inputs of type `dtype`.
    ///
    /// # Errors
    /// A number outside the matrix.
    pub fn rows(&self, ids: &Tensor, dtype: DType) -> candle_core::Result<Self> {
        let pick = |t: &Tensor| t.index_select(ids, 0)?.to_dtype(dtype);
        let adapter = match &self.adapter {
            Some(adapter) => Some(Adapter { b: pick(&adapter.b)?, ..adapter.clone() }),
            None => None,
        };
        Ok(Self {
            name: self.name.clone(),
            matrix: Matrix::Dense(self.matrix.rows(ids, dtype)?.to_dtype(dtype)?),
            bias: self.bias.as_ref().map(pick).transpose()?,
            adapter,
        })
    }

    /// Leaves every graph: the numbers stay those of the variables, also when these change.
    pub(crate) fn detach(&mut self) {
        if let Matrix::Dense(w) = &mut self.matrix {
            *w = w.detach();
        }
        self.bias = self.bias.as_ref().map(Tensor::detach);
        if let Some(adapter) = &mut self.adapter {
            (adapter.a, adapter.b, adapter.dropout) = (adapter.a.detach(), adapter.b.detach(), 0.0);
        }
    }

    /// Adds the adapter to the matrix. A quantized matrix becomes a dense one: rounding it again would undo what the
    /// adapter learned.
    ///
    /// # Errors
    /// A tensor operation's.
    pub fn merge(&mut self) -> Result<()> {
        let Some(adapter) = self.adapter.take() else { return Ok(()) };
        let dtype = match &self.matrix {
            Matrix::Dense(w) => w.dtype(),
            Matrix::Quantized(_) => adapter.a.dtype(),
        };
        self.matrix = Matrix::Dense((self.matrix.dense(DType::F32)? + adapter.change()?)?.to_dtype(dtype)?.detach());
        Ok(())
    }

    /// `x W^T + scale * (x A^T) B^T`, `[rows, in] -> [rows, out]`.
    fn adapted(&self, x: &Tensor, adapter: &Adapter) -> candle_core::Result<Tensor> {
        let seen = Dropout::apply(&self.name, adapter.dropout, x)?;
        // Trained in f32 beside weights in bf16.
        let (a, b) = (adapter.a.to_dtype(x.dtype())?, adapter.b.to_dtype(x.dtype())?);
        if seen.id() == x.id() && a.track_op() && b.track_op() && !self.matrix.is_trained() {
            let kernel = Adapted { matrix: self.matrix.clone(), scale: adapter.scale };
            return x.contiguous()?.apply_op3(&a, &b, kernel);
        }
        let low = Matrix::Dense(a).product(&seen)?;
        self.matrix.product(x)? + (Matrix::Dense(b).product(&low)? * adapter.scale)?
    }

    /// Where the matrix lies.
    pub fn device(&self) -> Device {
        match &self.matrix {
            Matrix::Dense(w) => w.device().clone(),
            Matrix::Quantized(w) => w.device(),
        }
    }
}

impl Module for Linear {
    /// # Shapes
    /// `[.., in] -> [.., out]`
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        // One flat matmul: candle copies the weight for every batch entry otherwise.
        let (output, input) = self.matrix.dims()?;
        let mut shape = x.dims().to_vec();
        let rows = x.elem_count() / input.max(1);
        let x = x.reshape((rows, input))?;
        let y = match (&self.adapter, &self.bias) {
            (None, bias) => self.matrix.product_plus(&x, bias.as_ref())?,
            (Some(adapter), None) => self.adapted(&x, adapter)?,
            (Some(adapter), Some(bias)) => self.adapted(&x, adapter)?.broadcast_add(bias)?,
        };
        if let Some(last) = shape.last_mut() {
            *last = output;
        }
        y.reshape(shape)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Result, Var, bail};

    use super::*;

    /// Value and gradients of x, A and B where the adapter is one node with its matrix, against operations apart.
    #[test]
    fn an_adapter_as_one_node_agrees_with_its_operations() -> Result<()> {
        let random = |dims: (usize, usize)| Var::randn(0f32, 1.0, dims, &Device::Cpu);
        let (x, a, b) = (random((7, 12))?, random((3, 12))?, random((9, 3))?);
        let w = Tensor::randn(0f32, 1.0, (9, 12), &Device::Cpu)?;
        let adapter = Adapter { a: a.as_tensor().clone(), b: b.as_tensor().clone(), scale: 0.7, dropout: 0.0 };
        let mut linear = Linear::from_parts("l", Matrix::Dense(w.clone()), None);
        linear.adapt(adapter).map_err(candle_core::Error::wrap)?;
        let got = linear.forward(x.as_tensor())?;
        let expected = (x.matmul(&w.t()?)? + (x.matmul(&a.t()?)?.matmul(&b.t()?)? * 0.7)?)?;
        let far = |a: &Tensor, b: &Tensor| (a - b)?.abs()?.max_all()?.to_scalar::<f32>();
        assert!(far(&got, &expected)? < 1e-4);
        let (got, expected) = (got.sqr()?.sum_all()?.backward()?, expected.sqr()?.sum_all()?.backward()?);
        for var in [&x, &a, &b] {
            let (Some(got), Some(expected)) = (got.get(var), expected.get(var)) else { bail!("no gradient") };
            assert!(far(got, expected)? < 2e-3 * expected.abs()?.max_all()?.to_scalar::<f32>()?);
        }
        Ok(())
    }

    #[test]
    fn an_input_of_another_width_is_an_error() -> Result<()> {
        let w = Matrix::Dense(Tensor::zeros((9, 12), DType::F32, &Device::Cpu)?);
        let x = Var::zeros((7, 11), DType::F32, &Device::Cpu)?;
        let error = w.product(x.as_tensor()).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains("expected rows of 12, got 11"), "{error}");
        Ok(())
    }
}
