//! Where layers get their tensors from, whatever the file is.

use std::sync::Arc;

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};

use super::gguf::Pair;
use crate::Result;
use crate::nn::matrix::Matrix;
use crate::qwen3_vl::config::Config;

/// Tensors by the names of the Hugging Face checkpoint.
#[derive(Clone)]
pub struct Loader<'a> {
    tensors: VarBuilder<'a>,
    gguf: Option<Arc<Source>>,
}

impl<'a> From<VarBuilder<'a>> for Loader<'a> {
    fn from(tensors: VarBuilder<'a>) -> Self {
        Self { tensors, gguf: None }
    }
}

impl Loader<'static> {
    /// Tensors of a pair of GGUF files.
    pub(super) fn gguf(pair: Pair, config: Config, dtype: DType, device: &Device) -> Self {
        let source = Arc::new(Source { pair, config });
        let tensors = VarBuilder::from_backend(Box::new(Shared(source.clone())), dtype, device.clone());
        Self { tensors, gguf: Some(source) }
    }
}

impl Loader<'_> {
    /// The tensors below `name`.
    #[must_use]
    pub fn pp(&self, name: impl ToString) -> Self {
        Self { tensors: self.tensors.pp(name), gguf: self.gguf.clone() }
    }

    /// Path so far.
    pub fn prefix(&self) -> String {
        self.tensors.prefix()
    }

    /// Type of the numbers that are not quantized.
    pub fn dtype(&self) -> DType {
        self.tensors.dtype()
    }

    /// A tensor of numbers.
    ///
    /// # Errors
    /// One that is missing or has another shape.
    pub fn tensor(&self, shape: impl Into<Shape>, name: &str, init: Init) -> Result<Tensor> {
        Ok(self.tensors.get_with_hints(shape, name, init)?)
    }

    /// A matrix `[out, in]`, quantized where the file has it so.
    ///
    /// # Errors
    /// One that is missing or has another shape.
    pub fn matrix(&self, shape: (usize, usize), name: &str, init: Init) -> Result<Matrix> {
        if let Some(source) = &self.gguf {
            let path = self.tensors.pp(name).prefix();
            if let Some(matrix) = source.pair.matrix(&source.config, &path, shape, self.tensors.device())? {
                return Ok(Matrix::Quantized(matrix));
            }
        }
        Ok(Matrix::Dense(self.tensor(shape, name, init)?))
    }
}

/// What a GGUF loader reads.
struct Source {
    pair: Pair,
    config: Config,
}

/// The part of a GGUF pair that is plain numbers, as candle wants to read it.
struct Shared(Arc<Source>);

impl SimpleBackend for Shared {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        let tensor = self.get_unchecked(name, dtype, device)?;
        if tensor.shape() != &shape {
            candle_core::bail!("{name}: expected {shape:?}, got {:?}", tensor.shape());
        }
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        self.0.pair.tensor(&self.0.config, name, device).map_err(candle_core::Error::wrap)?.to_dtype(dtype)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.pair.contains(&self.0.config, name)
    }
}
