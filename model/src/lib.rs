//! Qwen3-VL for camera geometry: vision tower, decoder, image processor, tokenizer, chain text and decoding.
//!
//! No ROS and no data sets here. Tensor shapes in docs use: b batch, t tokens of a sequence, s tokens in the cache,
//! n tokens or patches of an image, d width of the decoder, h heads, e width of a head.
#![deny(missing_docs)]

pub mod autograd;
pub mod chain;
pub mod chat;
pub mod config;
pub mod decode;
mod ego;
mod error;
pub mod grammar;
mod json;
pub mod lora;
pub mod memory;
pub mod nn;
pub mod pose_head;
pub mod processor;
pub mod prompt;
pub mod qwen3_vl;
pub mod recompute;
pub mod text;
pub mod tokenizer;
pub mod vision;
pub mod weights;

pub use candle_core::Device;
pub use config::Config;
pub use ego::{Answer, AnswerOptions, EgoModel, FrameEmbedding, ImageEmbedding, device};
pub use error::{Error, Result};
pub use pose_head::PoseHead;
pub use processor::{Patches, Processor};
pub use prompt::Mode;
pub use qwen3_vl::Qwen3Vl;
