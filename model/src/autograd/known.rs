//! Outputs of custom operations that were computed before the operation is entered in the graph.

use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, CudaStorage, Result, Shape, Storage, Tensor, bail};

/// An output, given once and then forgotten: the graph keeps the copy that it makes of it.
pub(crate) struct Known(Mutex<Option<Tensor>>);

impl Known {
    pub(crate) fn new(y: Tensor) -> Self {
        Self(Mutex::new(Some(y)))
    }

    fn take(&self) -> Result<(Storage, Shape)> {
        let Some(y) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            bail!("an output that was given already")
        };
        let (storage, layout) = y.storage_and_layout();
        Ok((storage.try_clone(layout)?, y.shape().clone()))
    }

    pub(crate) fn cpu(&self) -> Result<(CpuStorage, Shape)> {
        match self.take()? {
            (Storage::Cpu(storage), shape) => Ok((storage, shape)),
            _ => bail!("expected an output on the CPU"),
        }
    }

    pub(crate) fn cuda(&self) -> Result<(CudaStorage, Shape)> {
        match self.take()? {
            (Storage::Cuda(storage), shape) => Ok((storage, shape)),
            _ => bail!("expected an output on a CUDA device"),
        }
    }
}
