//! Checkpoint folders: safetensors in the Hugging Face layout, or GGUF as llama.cpp writes it.

mod digest;
pub(crate) mod folder;
pub mod gguf;
mod identity;
pub(crate) mod loader;
pub mod manifest;
mod mapping;
mod merged;
mod parameters;
mod safetensors;

pub use folder::{builder, config, files, open};
pub use identity::identity;
pub use loader::Loader;
pub use merged::{Merged, merge, write_config};
pub use parameters::{parameters, published};
