//! What a checkpoint folder holds.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use candle_nn::VarBuilder;

use super::gguf;
use super::loader::Loader;
use super::safetensors::Safetensors;
use crate::json::read_json;
use crate::qwen3_vl::config::Config;
use crate::{Error, Result};

/// The safetensors files of a folder: `model.safetensors`, or those that `model.safetensors.index.json` names.
///
/// # Errors
/// Neither is there, or one that the index names is not.
pub fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let index = dir.join("model.safetensors.index.json");
    let files: Vec<PathBuf> = if index.is_file() {
        let index: Index = read_json(&index)?;
        let names: BTreeSet<String> = index.weight_map.into_values().collect();
        names.into_iter().map(|name| dir.join(name)).collect()
    } else {
        vec![dir.join("model.safetensors")]
    };
    for path in &files {
        std::fs::metadata(path).map_err(|source| Error::Io { path: path.clone(), source })?;
    }
    Ok(files)
}

/// Maps the weights of a folder, to be converted to `dtype` as layers ask for them.
///
/// # Errors
/// A file that is missing or is not safetensors.
pub fn builder(dir: &Path, dtype: DType, device: &Device) -> Result<VarBuilder<'static>> {
    let source = Safetensors::open(&files(dir)?)?;
    Ok(VarBuilder::from_backend(Box::new(source), dtype, device.clone()))
}

/// Config of a folder, whichever its format is.
///
/// # Errors
/// A file that is missing or broken.
pub fn config(dir: &Path) -> Result<Config> {
    match gguf::Pair::find(dir)? {
        Some(pair) => pair.config(dir),
        None => Config::from_dir(dir),
    }
}

/// Config and weights of a folder: GGUF where it holds `*.gguf` files, else safetensors with their `config.json`.
///
/// # Errors
/// A file that is missing or broken.
pub fn open(dir: &Path, dtype: DType, device: &Device) -> Result<(Config, Loader<'static>)> {
    if let Some(pair) = gguf::Pair::find(dir)? {
        let config = pair.config(dir)?;
        return Ok((config.clone(), Loader::gguf(pair, config, dtype, device)));
    }
    Ok((Config::from_dir(dir)?, builder(dir, dtype, device)?.into()))
}
