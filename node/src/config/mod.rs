//! The node's settings: TOML to a raw struct to [`Config`], the only form that the rest of the node sees.
//!
//! Architecture Invariant: whoever holds a [`Config`] need not check it again. Numbers are in range, names are names
//! that ROS takes, and the weights path is absolute or relative to the working directory. Whether the folder exists is
//! not a matter of the config; loading says so.

use std::path::{Path, PathBuf};
use std::time::Duration;

use geometry::{Intrinsics, WINDOW};
use model::Mode;

use crate::transport::{Kind, Topics};

mod raw;
mod validate;

/// Why a config cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("config {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is not TOML, a key is unknown or missing, or a value has the wrong type.
    #[error("config {}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what, from the TOML reader.
        message: String,
    },
    /// An override does not fit the file.
    #[error("config {}, override `{key}={value}`: {message}", path.display())]
    Override {
        /// The file that it was laid over.
        path: PathBuf,
        /// Dotted key.
        key: String,
        /// The value as given.
        value: String,
        /// What is wrong.
        message: String,
    },
    /// A value is of the right type but cannot be used.
    #[error("config {}: `{key}`: expected {expected}, got {got}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// Dotted key.
        key: &'static str,
        /// What would be right.
        expected: String,
        /// What is there.
        got: String,
    },
}

/// When and how windows are cut from the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowRules {
    /// Frames from one member of a window to the next.
    pub stride: u32,
    /// Frames from the start of one window to the start of the next.
    pub hop: u32,
    /// Longest time between neighbouring frames of the stream.
    pub max_gap: Duration,
}

impl WindowRules {
    /// Frames that two neighbouring windows share. Without any, the odometry cannot join them.
    pub fn shared_frames(&self) -> u32 {
        let members = WINDOW as u32;
        if self.hop.is_multiple_of(self.stride) { members.saturating_sub(self.hop / self.stride) } else { 0 }
    }
}

/// What is loaded, where, and how it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelConfig {
    /// Folder of the weights.
    pub weights: PathBuf,
    /// Folder of a LoRA adapter to put beside them.
    pub adapter: Option<PathBuf>,
    /// Where it runs: `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// How much it says.
    pub mode: Mode,
    /// Longest answer.
    pub max_tokens: usize,
    /// Whether the model may only write what follows the grammar of answers.
    pub constrained: bool,
}

/// When the config's own intrinsics stand in for CameraInfo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UseFixed {
    /// Only CameraInfo counts.
    Never,
    /// Until the first CameraInfo.
    UntilCameraInfo,
    /// CameraInfo is ignored.
    Always,
}

/// Intrinsics of the config.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FixedCamera {
    /// When they count.
    pub use_fixed: UseFixed,
    /// What they are.
    pub intrinsics: Intrinsics,
}

/// The bounds beyond which an answer is not believed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sanity {
    /// Between neighbouring frames of a window.
    pub max_step_metres: f64,
    /// Between neighbouring frames of a window.
    pub max_step_radians: f64,
}

/// Standard deviations of the odometry; constants, not calibrated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Covariance {
    /// Of x, y and z each.
    pub position_stddev_metres: f64,
    /// About x, y and z each.
    pub rotation_stddev_radians: f64,
}

/// Rhythm of the diagnostics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiagnosticsConfig {
    /// Between two reports.
    pub period: Duration,
    /// A camera silent for longer is stale.
    pub silent_after: Duration,
}

/// Everything that the node can be told, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Which transport carries the topics.
    pub transport: Kind,
    /// Names and policies of the topics.
    pub topics: Topics,
    /// frame_id of the odometry.
    pub odom_frame: String,
    /// The window buffer's rules.
    pub window: WindowRules,
    /// The model.
    pub model: ModelConfig,
    /// Intrinsics without CameraInfo.
    pub camera: FixedCamera,
    /// What answers are refused.
    pub sanity: Sanity,
    /// What the odometry claims about itself.
    pub covariance: Covariance,
    /// The reports.
    pub diagnostics: DiagnosticsConfig,
}

impl Config {
    /// Reads `path` with `overrides` laid over it, each a dotted key and a value in TOML; a bare word counts as a string.
    pub fn load(path: &Path, overrides: &[(String, String)]) -> Result<Config, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Config::parse(&text, path, overrides)
    }

    /// As [`Config::load`], from the text of a file that stands at `path`.
    pub fn parse(text: &str, path: &Path, overrides: &[(String, String)]) -> Result<Config, Error> {
        let syntax = |message: String| Error::Syntax { path: path.to_owned(), message };
        // The text itself first: its errors carry line and column, those of the merged table do not.
        let mut raw: raw::Raw = toml::from_str(text).map_err(|e| syntax(e.to_string().trim_end().to_owned()))?;
        if !overrides.is_empty() {
            let mut table: toml::Table = toml::from_str(text).map_err(|e| syntax(e.to_string()))?;
            for (key, value) in overrides {
                let refuse = |message: String| Error::Override {
                    path: path.to_owned(),
                    key: key.clone(),
                    value: value.clone(),
                    message,
                };
                lay_over(&mut table, key, value).map_err(refuse)?;
                raw = toml::Value::Table(table.clone())
                    .try_into()
                    .map_err(|e: toml::de::Error| refuse(e.to_string().trim_end().replace('\n', " ")))?;
            }
        }
        validate::config(raw, path)
    }
}

/// Puts `value` at the dotted `key`, which must be there already.
fn lay_over(table: &mut toml::Table, key: &str, value: &str) -> Result<(), String> {
    let (section, name) = key.split_once('.').ok_or_else(|| {
        let sections: Vec<&str> = table.keys().map(String::as_str).collect();
        format!("expected section.key with a section of {}", sections.join(", "))
    })?;
    let sections: Vec<String> = table.keys().cloned().collect();
    let Some(toml::Value::Table(inner)) = table.get_mut(section) else {
        return Err(format!("unknown section `{section}`, expected one of {}", sections.join(", ")));
    };
    let Some(old) = inner.get(name) else {
        let names: Vec<&str> = inner.keys().map(String::as_str).collect();
        return Err(format!("unknown key `{name}` in `{section}`, expected one of {}", names.join(", ")));
    };
    let read = toml::from_str::<toml::Table>(&format!("v = {value}")).ok().and_then(|mut t| t.remove("v"));
    let new = match (old, read) {
        (toml::Value::String(_), Some(toml::Value::String(s))) => toml::Value::String(s),
        (toml::Value::String(_), _) | (_, None) => toml::Value::String(value.to_owned()),
        (_, Some(v)) => v,
    };
    inner.insert(name.to_owned(), new);
    Ok(())
}

#[cfg(test)]
mod tests;
