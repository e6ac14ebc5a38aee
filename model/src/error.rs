//! What can go wrong between a checkpoint folder and an answer.

use std::path::PathBuf;

/// Errors of the model crate. A bad answer of the model is not one of them: it is a value
/// ([`crate::answer::chain::ParseError`]).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the checkpoint folder is missing or can't be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A JSON file of the checkpoint folder does not say what it must.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A tensor is missing, or has another shape than the config asks for.
    #[error("{}: {source}", path.display())]
    Weights {
        /// The folder.
        path: PathBuf,
        /// Names the tensor, what was expected and got.
        source: candle_core::Error,
    },
    /// The config asks for something impossible.
    #[error("config: {key}: expected {expected}, got {got}")]
    Config {
        /// Dotted key.
        key: &'static str,
        /// What it must be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// A file asks for what is not computed here.
    #[error("{}: {key}: expected {expected}, got {got}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Dotted key.
        key: String,
        /// What it must be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// A GGUF file is broken, or is not Qwen3-VL's.
    #[error("{}: {message}", path.display())]
    Gguf {
        /// The file, or the folder that should hold it.
        path: PathBuf,
        /// What was expected and got.
        message: String,
    },
    /// An adapter does not fit the model.
    #[error("adapter: {module}: expected {expected}, got {got}")]
    Adapter {
        /// Path of the module, or the key of adapter_config.json.
        module: String,
        /// What it must be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// A pose head can't be used.
    #[error("{}: {what}: expected {expected}, got {got}", path.display())]
    PoseHead {
        /// The file.
        path: PathBuf,
        /// The key or the tensor.
        what: String,
        /// What it must be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// tokenizer.json can't be read or used.
    #[error("{}: {message}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// An input of the wrong kind.
    #[error("{what}: expected {expected}, got {got}")]
    Input {
        /// Which argument.
        what: &'static str,
        /// What it must be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// A prompt of more tokens than there is room for.
    #[error("text: expected at most {most} tokens, got at least {least}")]
    TooLong {
        /// The room.
        most: usize,
        /// As many it has by what is known when it is refused.
        least: usize,
    },
    /// Whoever asked for a prompt waits for it no more.
    #[error("given up: nobody waits for it")]
    GivenUp,
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// A pose or camera was refused.
    #[error(transparent)]
    Geometry(#[from] geometry::Error),
}

/// Result of the model crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
