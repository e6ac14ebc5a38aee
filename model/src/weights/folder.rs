//! What a checkpoint folder holds.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use candle_nn::VarBuilder;

use super::gguf;
use super::loader::Loader;
use super::parameters::parameters;
use super::safetensors::Safetensors;
use crate::foreign::{folder, refuse_pointer};
use crate::json::read_json;
use crate::qwen3_vl::config::Config;
use crate::{Error, Result};

const INDEX: &str = "model.safetensors.index.json";

/// The safetensors files of a folder: `model.safetensors`, or those that `model.safetensors.index.json` names.
///
/// # Errors
/// Neither is there, or one that the index names is not.
pub fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    folder(dir)?;
    let index = dir.join(INDEX);
    let files: Vec<PathBuf> = if index.is_file() {
        let index: Index = read_json(&index)?;
        let names: BTreeSet<String> = index.weight_map.into_values().collect();
        names.into_iter().map(|name| dir.join(name)).collect()
    } else {
        vec![dir.join("model.safetensors")]
    };
    for path in &files {
        std::fs::metadata(path).map_err(|source| Error::Io { path: path.clone(), source: explained(dir, source) })?;
        refuse_pointer(path)?;
    }
    Ok(files)
}

/// Why a folder has no `model.safetensors`, where what it holds says so.
fn explained(dir: &Path, source: std::io::Error) -> std::io::Error {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let names: BTreeSet<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let pickle = names.iter().find(|name| name.starts_with("pytorch_model") && name.ends_with(".bin"));
    let part = names.iter().find(|name| name.contains("-of-") && name.ends_with(".safetensors"));
    let message = match (pickle, part) {
        (_, Some(part)) if !names.contains(INDEX) => {
            format!("not there; {part} is a part of it, but {INDEX} is missing")
        }
        (Some(pickle), _) => format!("not there; {pickle} is a pickle, which is not read: save it as safetensors"),
        _ => return source,
    };
    std::io::Error::new(source.kind(), message)
}

/// Refuses the folder of an adapter where that of its base is wanted.
fn refuse_adapter(dir: &Path) -> Result<()> {
    let config = dir.join("config.json");
    if config.is_file() || !dir.join("adapter_config.json").is_file() {
        return Ok(());
    }
    let message = "not there; the folder holds an adapter: name it as the adapter, and its base as the weights";
    let source = std::io::Error::new(std::io::ErrorKind::NotFound, message);
    Err(Error::Io { path: config, source })
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
        None => refuse_adapter(dir).and_then(|()| Config::from_dir(dir)),
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
    refuse_adapter(dir)?;
    let config = Config::from_dir(dir)?;
    let source = Safetensors::open(&files(dir)?)?;
    // A head of its own beside a tied one is the embedding once more.
    let tensors = parameters(&config).into_iter().map(|(name, _)| name);
    source.warn_of_others(&tensors.chain(["lm_head.weight".to_owned()]).collect());
    Ok((config, VarBuilder::from_backend(Box::new(source), dtype, device.clone()).into()))
}
