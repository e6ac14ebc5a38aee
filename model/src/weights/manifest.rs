//! What the manifest beside a folder of weights says of them to whoever runs them.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Name of the file.
pub const FILE: &str = "manifest.json";

/// How far the lengths that weights say are off, as `log(said / true)`: `training eval` measures it, and
/// `--record` writes it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScaleErrors {
    /// Standard deviation among the windows of a film: it averages out.
    pub noise: f64,
    /// Root mean square of the films' medians, as they would be of many windows: it does not.
    pub bias: f64,
}

#[derive(Deserialize)]
struct Part {
    scale: Option<ScaleErrors>,
}

impl ScaleErrors {
    /// What the manifest in this folder says; `None` where there is no manifest, or it says nothing.
    ///
    /// # Errors
    /// [`Error::Json`] for a manifest that is not one, [`Error::Config`] for errors that are no standard deviations.
    pub fn of(folder: &Path) -> Result<Option<Self>, Error> {
        let path = folder.join(FILE);
        if !path.is_file() {
            return Ok(None);
        }
        let part: Part = crate::json::read_json(&path)?;
        let is_good = |errors: &Self| [errors.noise, errors.bias].iter().all(|v| v.is_finite() && *v > 0.0);
        match part.scale {
            Some(errors) if !is_good(&errors) => Err(Error::Config {
                key: "scale of manifest.json",
                expected: "noise and bias, finite numbers above 0".to_owned(),
                got: format!("{errors:?}"),
            }),
            errors => Ok(errors),
        }
    }
}
