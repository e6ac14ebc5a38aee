//! The model on a tiny random checkpoint: parity with the reference, adapters, files, caches.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cache;
mod converted;
mod devices;
mod frozen;
mod gguf;
mod llama;
mod lora;
mod parity;
mod recompute;
mod reference;
mod shapes;
