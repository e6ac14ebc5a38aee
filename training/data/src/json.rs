//! JSON files.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A JSON file, with its name in the error.
pub fn read_json(path: &Path) -> Result<Value> {
    read(path)
}

/// Pretty JSON with a newline at its end, as [`write_whole`].
pub fn write_json(path: &Path, value: &Value) -> Result<()> {
    write_whole(path, format!("{value:#}\n").as_bytes())
}

/// A file that is there whole or not at all: on a full disk, the one that was there before.
///
/// # Errors
/// A file that can't be written.
pub fn write_whole(path: &Path, content: &[u8]) -> Result<()> {
    let mut part = path.as_os_str().to_owned();
    // Processes that share a folder may end together.
    part.push(format!(".{}.part", std::process::id()));
    let written = std::fs::write(&part, content).and_then(|()| std::fs::rename(&part, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&part); // it may never have been begun
    }
    written.with_context(|| path.display().to_string())
}

/// A JSON file of this form, with its name in the error.
///
/// # Errors
/// A file that can't be read, a key that is missing or of another type.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read(path).with_context(|| path.display().to_string())?;
    serde_json::from_slice(&text).with_context(|| path.display().to_string())
}

/// As [`write_json`].
///
/// # Errors
/// A file that can't be written.
pub fn write<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    write_json(path, &serde_json::to_value(value)?)
}
