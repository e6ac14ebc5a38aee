//! `pose_head.json` and `pose_head.safetensors`, in the folder of what was trained with the heads: the weights', or the
//! adapter's.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{PoseHead, PoseHeadConfig};
use crate::json::read_json;
use crate::qwen3_vl::Qwen3Vl;
use crate::weights::identity;
use crate::{Error, Result, output};

const CONFIG: &str = "pose_head.json";
const WEIGHTS: &str = "pose_head.safetensors";
/// The files of a pose head.
pub const FILES: [&str; 2] = [CONFIG, WEIGHTS];
/// Of the files and of where the tokens stand: `<Pos>` and `<Ori>` of frames 1 to 4 behind the prompt of `answer_only`.
const VERSION: u32 = 1;
/// Largest width that a file may ask for.
const MOST: usize = 1 << 16;

/// Where the heads of a model lie: beside what was trained with them.
pub fn folder<'a>(weights: &'a Path, adapter: Option<&'a Path>) -> &'a Path {
    adapter.unwrap_or(weights)
}

/// Copies the heads of a folder. Where it has none, what lies in the other is of other weights and goes.
///
/// # Errors
/// A file that can't be copied or removed.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    if from == to {
        return Ok(());
    }
    let has_heads = from.join(CONFIG).is_file();
    for name in FILES {
        let (path, copied) = (from.join(name), to.join(name));
        if has_heads {
            output::copy(&path, &copied)?;
        } else if copied.is_file() {
            std::fs::remove_file(&copied).map_err(|source| Error::Io { path: copied, source })?;
        }
    }
    Ok(())
}

/// `pose_head.json`
#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    /// Identity of the weights that the heads were trained beside; older files do not say it.
    weights: Option<String>,
    #[serde(flatten)]
    config: PoseHeadConfig,
}

impl PoseHead {
    /// Writes the files into the [`folder`] of the weights, or of the adapter beside them, that the heads were trained
    /// with and that must be there; a reader never sees half of one.
    ///
    /// # Errors
    /// Weights that can't be read, a file that can't be written.
    pub fn save(&self, weights: &Path, adapter: Option<&Path>) -> Result<()> {
        let dir = folder(weights, adapter);
        let tokens = [("pos", &self.pos), ("ori", &self.ori), ("frame", &self.frame)];
        let mut tensors: HashMap<String, Tensor> =
            tokens.into_iter().map(|(name, token)| (name.to_owned(), token.clone())).collect();
        self.position.collect("position", &mut tensors);
        self.orientation.collect("orientation", &mut tensors);
        let stored = Stored { version: VERSION, weights: Some(identity(weights, adapter)?), config: self.config };
        output::tensors(&tensors, None, &dir.join(WEIGHTS))?;
        output::replace(&dir.join(CONFIG), |part| {
            let text = serde_json::to_string_pretty(&stored);
            let text = text.map_err(|source| Error::Json { path: part.to_owned(), source })?;
            std::fs::write(part, text + "\n").map_err(|source| Error::Io { path: part.to_owned(), source })
        })
    }

    /// Reads the heads in the [`folder`] of the weights, or of the adapter beside them, that `model` was loaded from.
    ///
    /// # Errors
    /// A file that is missing, broken or of another version, heads that were trained beside other weights or that do not
    /// say a full pose, a tensor that is missing, has another shape, or holds what is no number.
    pub fn load(weights: &Path, adapter: Option<&Path>, model: &Qwen3Vl) -> Result<Self> {
        let dir = folder(weights, adapter);
        let config = read_config(&dir.join(CONFIG), weights, adapter)?;
        let path = dir.join(WEIGHTS);
        let fail = |source| Error::Weights { path: path.clone(), source };
        let tensors = candle_core::safetensors::load(&path, &Device::Cpu).map_err(fail)?;
        for (name, tensor) in &tensors {
            let values = tensor.to_dtype(DType::F32).and_then(|t| t.flatten_all()?.to_vec1::<f32>()).map_err(fail)?;
            if let Some(got) = values.iter().find(|value| !value.is_finite()) {
                let (what, expected) = (name.clone(), "finite numbers".to_owned());
                return Err(Error::PoseHead { path, what, expected, got: got.to_string() });
            }
        }
        let vb = VarBuilder::from_tensors(tensors, DType::F32, model.device());
        Self::new(config, model.config().text_config.hidden_size, &vb).map_err(|error| match error {
            Error::Tensor(source) => fail(source),
            other => other,
        })
    }
}

/// Reads and checks `pose_head.json`. The version comes first: another one may have other keys.
fn read_config(path: &Path, weights: &Path, adapter: Option<&Path>) -> Result<PoseHeadConfig> {
    let refuse = |what: &str, expected: String, got: String| {
        Err(Error::PoseHead { path: path.to_owned(), what: what.to_owned(), expected, got })
    };
    let json: Value = read_json(path)?;
    if json["version"].as_u64() != Some(u64::from(VERSION)) {
        return refuse("version", VERSION.to_string(), json["version"].to_string());
    }
    let Stored { weights: trained_beside, config, .. } =
        serde_json::from_value(json).map_err(|source| Error::Json { path: path.to_owned(), source })?;
    if !config.full_pose {
        // A ground plane alone leaves height, pitch and roll to a guess.
        let expected = "true: heads of the ground plane alone state no pose of six degrees of freedom";
        return refuse("full_pose", expected.to_owned(), "false".to_owned());
    }
    for (key, value) in [("unit", config.unit), ("tilt_unit_deg", config.tilt_unit_deg)] {
        if !(value.is_finite() && value > 0.0) {
            return refuse(key, "a finite number above 0".to_owned(), value.to_string());
        }
    }
    for (key, value, least) in [("hidden", config.hidden, 1), ("bins", config.bins, 4)] {
        if !(least..=MOST).contains(&value) {
            return refuse(key, format!("from {least} to {MOST}"), value.to_string());
        }
    }
    let [low, high] = config.log_variance;
    if low >= high {
        return refuse("log_variance", "the lower bound first".to_owned(), format!("[{low}, {high}]"));
    }
    // Beside other weights the poses would look like any, and mean nothing.
    let Some(expected) = trained_beside else {
        tracing::warn!(file = %path.display(), "the heads do not say which weights they were trained beside");
        return Ok(config);
    };
    let got = identity(weights, adapter)?;
    if got != expected {
        let with = adapter.map(|adapter| format!(" with the adapter {}", adapter.display())).unwrap_or_default();
        let expected = format!("those that the heads were trained beside, {expected}");
        return refuse("weights", expected, format!("{}{with}, {got}", weights.display()));
    }
    Ok(config)
}
