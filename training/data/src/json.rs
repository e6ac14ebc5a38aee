//! JSON files.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// A JSON file, with its name in the error.
pub fn read_json(path: &Path) -> Result<Value> {
    let text = std::fs::read(path).with_context(|| path.display().to_string())?;
    serde_json::from_slice(&text).with_context(|| path.display().to_string())
}

/// Pretty JSON with a newline at its end.
pub fn write_json(path: &Path, value: &Value) -> Result<()> {
    std::fs::write(path, format!("{value:#}\n")).with_context(|| path.display().to_string())
}
