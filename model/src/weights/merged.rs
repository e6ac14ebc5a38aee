//! The tensors of a checkpoint with an adapter merged into them, one at a time.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};

use super::digest::KEY;
use super::folder::files;
use super::identity::{of_safetensors, with_adapter};
use super::parameters::parameters;
use super::safetensors::Safetensors;
use crate::lora::Lora;
use crate::qwen3_vl::config::Config;
use crate::qwen3_vl::processor::Processor;
use crate::{Error, Result, output};

/// A checkpoint folder, mapped, and what to add to it.
pub struct Merged {
    dir: PathBuf,
    tensors: Safetensors,
    adapter: Option<Lora>,
    identity: String,
}

impl Merged {
    /// Maps a folder and reads that of the adapter.
    ///
    /// # Errors
    /// A file that is missing or is not safetensors, an adapter that can't be read.
    pub fn open(dir: &Path, adapter: Option<&Path>) -> Result<Self> {
        let files = files(dir)?;
        let tensors = Safetensors::open(&files)?;
        let identity = with_adapter(of_safetensors(&files)?, adapter)?;
        let lora = adapter.map(|adapter| Lora::load(adapter, DType::F32, &Device::Cpu)).transpose()?;
        Ok(Self { dir: dir.to_owned(), tensors, adapter: lora, identity })
    }

    /// The identity of the two, to be stated in what is made of them.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Whether every module of the adapter is one of the model's.
    ///
    /// # Errors
    /// Names the first that is not.
    pub fn check(&self, config: &Config) -> Result<()> {
        let known = parameters(config);
        let known: Vec<&str> = known.iter().filter_map(|(name, _)| name.strip_suffix(".weight")).collect();
        match self.adapter.as_ref().and_then(|lora| lora.names().find(|name| !known.contains(name))) {
            None => Ok(()),
            Some(module) => Err(Error::Adapter {
                module: module.to_owned(),
                expected: "a linear layer of the model".to_owned(),
                got: "none".to_owned(),
            }),
        }
    }

    /// A tensor in f32, by its checkpoint name.
    ///
    /// # Errors
    /// One that is missing, or that the adapter does not fit.
    pub fn load(&self, name: &str) -> Result<Tensor> {
        let tensor = self.tensors.load(name, &Device::Cpu).and_then(|t| t.to_dtype(DType::F32));
        let tensor = tensor.map_err(|source| Error::Weights { path: self.dir.clone(), source })?;
        let (Some(lora), Some(module)) = (&self.adapter, name.strip_suffix(".weight")) else { return Ok(tensor) };
        Ok(match lora.change(module, tensor.dims())? {
            Some(change) => (tensor + change)?,
            None => tensor,
        })
    }
}

/// Writes the checkpoint of `dir` with the adapter of a folder merged into it to `out`, as safetensors of `dtype`, with the
/// JSON files of `dir`. Returns the bytes of the weights.
///
/// # Errors
/// A checkpoint that is missing or broken, an adapter that does not fit it, a file that can't be written.
pub fn merge(dir: &Path, adapter: Option<&Path>, dtype: DType, out: &Path) -> Result<u64> {
    let config = Config::from_dir(dir)?;
    let merged = Merged::open(dir, adapter)?;
    merged.check(&config)?;
    let io = |source| Error::Io { path: out.to_owned(), source };
    std::fs::create_dir_all(out).map_err(io)?;
    let mut tensors = HashMap::new();
    for (name, _) in parameters(&config) {
        tensors.insert(name.clone(), merged.load(&name)?.to_dtype(dtype)?);
    }
    let path = out.join("model.safetensors");
    // With metadata but without a format, transformers would refuse the file.
    let metadata = [("format", "pt"), (KEY, merged.identity())].map(|(key, value)| (key.to_owned(), value.to_owned()));
    output::tensors(&tensors, Some(metadata.into()), &path)?;
    copy_json(dir, out)?;
    Ok(std::fs::metadata(&path).map_err(io)?.len())
}

/// What a checkpoint folder says beside its tensors.
const BESIDE: [&str; 8] = [
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
];

/// Copies the files of a checkpoint folder that say what it holds.
pub(super) fn copy_json(dir: &Path, out: &Path) -> Result<()> {
    for name in BESIDE {
        let (from, to) = (dir.join(name), out.join(name));
        if from.is_file() {
            output::copy(&from, &to)?;
        }
    }
    Ok(())
}

/// Writes `config.json` and `preprocessor_config.json`.
///
/// # Errors
/// A file that can't be written.
pub fn write_config(config: &Config, processor: &Processor, out: &Path) -> Result<()> {
    let json = |path: &Path, text: serde_json::Result<String>| {
        let text = text.map_err(|source| Error::Json { path: path.to_owned(), source })?;
        let io = |source| Error::Io { path: path.to_owned(), source };
        output::replace(path, |part| std::fs::write(part, text + "\n").map_err(io))
    };
    json(&out.join("preprocessor_config.json"), serde_json::to_string_pretty(processor))?;
    json(&out.join("config.json"), serde_json::to_string_pretty(config))
}
