//! What is wrong with a CameraInfo.

use std::fmt::Display;

/// What is wrong with a field of a CameraInfo.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: expected {expected}, got {got}")]
pub struct InfoError {
    field: String,
    expected: String,
    got: String,
}

impl InfoError {
    pub(crate) fn new(field: impl Into<String>, expected: impl Into<String>, got: impl Display) -> Self {
        Self { field: field.into(), expected: expected.into(), got: got.to_string() }
    }
}
