//! Safetensors files in memory maps, of which a tensor's pages are let go when it has been read: a model that is loaded
//! is held once, not twice.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use candle_core::safetensors::Load;
use candle_core::{DType, Device, Error as CandleError, Shape, Tensor, bail};
use candle_nn::Init;
use candle_nn::var_builder::SimpleBackend;
use memmap2::Mmap;
use safetensors::tensor::{Metadata, SafeTensors, TensorView};

use super::mapping::forget;
use crate::{Error, Result};

/// One file.
struct Mapped {
    path: PathBuf,
    map: Mmap,
    metadata: Metadata,
    /// Where the tensors begin.
    start: usize,
}

/// The files of a checkpoint.
pub(super) struct Safetensors(Vec<Mapped>);

impl Safetensors {
    /// Maps files and reads their headers.
    ///
    /// # Errors
    /// A file that is missing or is not safetensors.
    pub(super) fn open(files: &[PathBuf]) -> Result<Self> {
        files.iter().map(|path| Mapped::open(path)).collect::<Result<_>>().map(Self)
    }

    /// Names tensors that are not among those that are read.
    pub(super) fn warn_of_others(&self, read: &BTreeSet<String>) {
        for file in &self.0 {
            for tensor in file.metadata.offset_keys().iter().filter(|tensor| !read.contains(*tensor)) {
                tracing::warn!(
                    "{}: {tensor} is read by no layer here: what it changes is left out",
                    file.path.display()
                );
            }
        }
    }

    fn find(&self, name: &str) -> Option<&Mapped> {
        self.0.iter().find(|file| file.metadata.info(name).is_some())
    }

    /// A tensor as it is stored.
    ///
    /// # Errors
    /// One that is missing, or of a type that candle lacks.
    pub(super) fn load(&self, name: &str, device: &Device) -> candle_core::Result<Tensor> {
        match self.find(name) {
            Some(file) => file.load(name, device),
            None => Err(CandleError::CannotFindTensor { path: name.to_owned() }.bt()),
        }
    }
}

impl Mapped {
    fn open(path: &Path) -> Result<Self> {
        let io = |source| Error::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        // SAFETY: the map is read-only; a checkpoint that is rewritten under a running process is the one hazard, and
        // the reason why weights are replaced by renaming folders, never in place.
        #[expect(unsafe_code, reason = "memory maps are unsafe by their nature")]
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        let (header, metadata) = SafeTensors::read_metadata(&map)
            .map_err(|e| Error::Weights { path: path.to_owned(), source: CandleError::wrap(e) })?;
        // Behind the header's length, 8 bytes, and the header.
        Ok(Self { path: path.to_owned(), map, metadata, start: 8 + header })
    }

    fn load(&self, name: &str, device: &Device) -> candle_core::Result<Tensor> {
        let at_fault = |e: CandleError| e.context(format!("{}: {name}", self.path.display()));
        let Some(info) = self.metadata.info(name) else { bail!("{}: no {name}", self.path.display()) };
        let (first, last) = (self.start + info.data_offsets.0, self.start + info.data_offsets.1);
        let Some(bytes) = self.map.get(first..last) else {
            bail!("{}: {name} reaches beyond the file", self.path.display())
        };
        let view =
            TensorView::new(info.dtype, info.shape.clone(), bytes).map_err(CandleError::wrap).map_err(at_fault)?;
        let tensor = view.load(device).map_err(at_fault)?;
        forget(&self.map, first..last);
        Ok(tensor)
    }
}

impl SimpleBackend for Safetensors {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        let tensor = self.get_unchecked(name, dtype, device)?;
        if tensor.shape() != &shape {
            let (msg, got) = (format!("shape mismatch for {name}"), tensor.shape().clone());
            return Err(CandleError::UnexpectedShape { msg, expected: shape, got }.bt());
        }
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        self.load(name, device)?.to_dtype(dtype)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.find(name).is_some()
    }
}
