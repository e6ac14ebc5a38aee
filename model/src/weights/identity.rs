//! By what a pose head knows the weights that it was trained beside.
//!
//! The identity of weights is a hash of the name, type and shape of each tensor and of bytes spread over it, 16 KiB of
//! each at most: a node reads a few megabytes of some gigabytes when it starts. Training moves whole tensors, so samples
//! show it; a few numbers changed on purpose may go unseen. Names of folders, and which file holds a tensor, are no part
//! of it.
//!
//! An export has the bytes of another type, yet is the same model. It states the identity of what it was made of in the
//! metadata of its files, and that is its own: the heads go on knowing it, also where they lie beside an adapter and the
//! weights alone were quantized. Weights that another program converted have an identity of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::{SafeTensorError, SafeTensors};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::digest::{KEY, digest, hex, united};
use super::folder::files;
use super::gguf::Pair;
use crate::json::read_json;
use crate::lora::{self, LoraConfig};
use crate::{Error, Result};

/// Identity of the weights in a folder, safetensors or GGUF, with the LoRA adapter of another beside them where there is
/// one: 32 hexadecimal digits.
///
/// # Errors
/// A file that is missing or broken.
pub fn identity(weights: &Path, adapter: Option<&Path>) -> Result<String> {
    let base = match Pair::find(weights)? {
        Some(pair) => pair.identity()?,
        None => of_safetensors(&files(weights)?)?,
    };
    with_adapter(base, adapter)
}

/// That of weights whose own is `base`, with an adapter beside them.
pub(super) fn with_adapter(base: String, adapter: Option<&Path>) -> Result<String> {
    let Some(adapter) = adapter else { return Ok(base) };
    let change = of_safetensors(&[adapter.join(lora::WEIGHTS)])?;
    let c: LoraConfig = read_json(&adapter.join(lora::CONFIG))?;
    // What the change is multiplied by; all else of the config shows in the tensors, or says where they come from.
    let scale = json!([c.r, c.lora_alpha, c.rank_pattern, c.alpha_pattern, c.use_rslora]);
    Ok(hex(&Sha256::digest(format!("{base} {change} {scale}"))))
}

/// Identity of the tensors in files.
pub(super) fn of_safetensors(paths: &[PathBuf]) -> Result<String> {
    let (mut stated, mut tensors) = (BTreeSet::new(), BTreeMap::new());
    for path in paths {
        let io = |source| Error::Io { path: path.clone(), source };
        let broken = |source: SafeTensorError| Error::Weights { path: path.clone(), source: source.into() };
        let file = File::open(path).map_err(io)?;
        // SAFETY: read-only; see `weights::safetensors`.
        #[expect(unsafe_code, reason = "memory maps are unsafe by their nature")]
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        let (_, header) = SafeTensors::read_metadata(&map).map_err(broken)?;
        stated.insert(header.metadata().as_ref().and_then(|keys| keys.get(KEY)).cloned());
        let views = SafeTensors::deserialize(&map).map_err(broken)?;
        tensors.extend(views.iter().map(|(name, t)| (name.to_owned(), digest(t.dtype(), t.shape(), t.data()))));
    }
    Ok(united(&stated, &tensors))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use candle_core::{DType, Device, Tensor};

    use super::*;
    use crate::weights::gguf::{self, Recipe};
    use crate::weights::merge;

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/qwen3vl").join(name)
    }

    fn tensors() -> HashMap<String, Tensor> {
        candle_core::safetensors::load(fixture("tiny").join("model.safetensors"), &Device::Cpu).unwrap()
    }

    #[test]
    fn it_is_of_the_tensors_and_not_of_their_files() {
        let whole = identity(&fixture("tiny"), None).unwrap();
        // Heads on disk hold on to it, whatever becomes of the names that other crates print for types.
        assert_eq!(whole, "973788207db52cc251a0b0eb7a1a956d");
        let dir = tempfile::tempdir().unwrap();
        let (mut files, mut weight_map) = ([HashMap::new(), HashMap::new()], BTreeMap::new());
        for (i, (name, tensor)) in tensors().into_iter().enumerate() {
            weight_map.insert(name.clone(), format!("{}.safetensors", i % 2));
            files[i % 2].insert(name, tensor);
        }
        for (i, tensors) in files.iter().enumerate() {
            candle_core::safetensors::save(tensors, dir.path().join(format!("{i}.safetensors"))).unwrap();
        }
        let index = json!({"weight_map": weight_map}).to_string();
        std::fs::write(dir.path().join("model.safetensors.index.json"), index).unwrap();
        assert_eq!(identity(dir.path(), None).unwrap(), whole);

        std::fs::remove_file(dir.path().join("1.safetensors")).unwrap();
        let error = identity(dir.path(), None).unwrap_err().to_string();
        assert!(error.contains("1.safetensors"), "{error}");
    }

    #[test]
    fn any_tensor_that_is_trained_gives_another() {
        let (whole, dir) = (identity(&fixture("tiny"), None).unwrap(), tempfile::tempdir().unwrap());
        let changed = |change: &dyn Fn(&mut HashMap<String, Tensor>)| {
            let mut tensors = tensors();
            change(&mut tensors);
            candle_core::safetensors::save(&tensors, dir.path().join("model.safetensors")).unwrap();
            identity(dir.path(), None).unwrap()
        };
        assert_eq!(changed(&|_| ()), whole, "written again as it was");
        for name in tensors().keys() {
            let moved = |all: &mut HashMap<String, Tensor>| {
                let tensor = all.get_mut(name).unwrap();
                *tensor = tensor.affine(1.01, 0.01).unwrap();
            };
            assert_ne!(changed(&moved), whole, "{name}");
        }
        let renamed = |all: &mut HashMap<String, Tensor>| {
            let tensor = all.remove("model.language_model.norm.weight").unwrap();
            all.insert("norm.weight".to_owned(), tensor);
        };
        assert_ne!(changed(&renamed), whole);

        // Of a long tensor, pieces from its beginning to the last sixteenth.
        let mut bytes = vec![0u8; 1 << 20];
        let zeros = digest("F16", &[1 << 19], &bytes);
        assert_ne!(digest("BF16", &[1 << 19], &bytes), zeros);
        assert_ne!(digest("F16", &[1 << 10, 1 << 9], &bytes), zeros);
        bytes[15 << 16] = 1;
        assert_ne!(digest("F16", &[1 << 19], &bytes), zeros);
    }

    #[test]
    fn an_export_keeps_that_of_what_it_was_made_of() {
        let (tiny, adapter) = (fixture("tiny"), fixture("adapter"));
        let mut seen = BTreeSet::new();
        for adapter in [None, Some(adapter.as_path())] {
            let whole = identity(&tiny, adapter).unwrap();
            let [plain, quantized, again] = [(); 3].map(|()| tempfile::tempdir().unwrap());
            merge(&tiny, adapter, DType::BF16, plain.path()).unwrap();
            gguf::export(&tiny, adapter, Recipe::Q4KM, quantized.path()).unwrap();
            gguf::export(plain.path(), None, Recipe::F16, again.path()).unwrap();
            for dir in [&plain, &quantized, &again] {
                assert_eq!(identity(dir.path(), None).unwrap(), whole);
            }
            // A vision tower of other weights.
            if adapter.is_some() {
                let other = tempfile::tempdir().unwrap();
                gguf::export(&tiny, None, Recipe::Q4KM, other.path()).unwrap();
                std::fs::copy(other.path().join("mmproj.gguf"), quantized.path().join("mmproj.gguf")).unwrap();
                assert_ne!(identity(quantized.path(), None).unwrap(), whole);
            }
            // Trained on: the metadata do not outlive the weights.
            let path = plain.path().join("model.safetensors");
            let tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
            candle_core::safetensors::save(&tensors, &path).unwrap();
            let own = identity(plain.path(), None).unwrap();
            assert_ne!(own, whole);
            assert!(seen.insert(whole) && seen.insert(own));
        }
    }

    #[test]
    fn an_adapter_counts_by_its_tensors_and_its_scale() {
        let (tiny, dir) = (fixture("tiny"), tempfile::tempdir().unwrap());
        std::fs::copy(fixture("adapter").join(lora::WEIGHTS), dir.path().join(lora::WEIGHTS)).unwrap();
        let config: serde_json::Value = read_json(&fixture("adapter").join(lora::CONFIG)).unwrap();
        let with = |key: &str, value: serde_json::Value| {
            let mut config = config.clone();
            config[key] = value;
            std::fs::write(dir.path().join(lora::CONFIG), config.to_string()).unwrap();
            identity(&tiny, Some(dir.path())).unwrap()
        };
        let whole = identity(&tiny, Some(&fixture("adapter"))).unwrap();
        assert_eq!(with("base_model_name_or_path", json!("elsewhere")), whole);
        assert_ne!(with("lora_alpha", json!(9)), whole);
        let path = dir.path().join(lora::WEIGHTS);
        let tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
        let tensors: HashMap<String, Tensor> =
            tensors.into_iter().map(|(name, tensor)| (name, tensor.affine(1.01, 0.0).unwrap())).collect();
        candle_core::safetensors::save(&tensors, &path).unwrap();
        assert_ne!(with("lora_alpha", config["lora_alpha"].clone()), whole);
    }
}
