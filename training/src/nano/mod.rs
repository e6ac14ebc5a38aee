//! What helps `nano` along in its three stages of SFT.

pub mod config;
mod objective;

pub use objective::{Nano, run};
