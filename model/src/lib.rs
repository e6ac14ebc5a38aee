//! Qwen3-VL for camera geometry: vision tower, decoder, image processor, tokenizer, chain text and decoding.
//!
//! No ROS and no data sets here. Tensor shapes in docs use: b batch, t tokens of a sequence, s tokens in the cache,
//! n tokens or patches of an image, d width of the decoder, h heads, e width of a head.
#![deny(missing_docs)]

pub mod answer;
pub mod autograd;
mod ego;
mod error;
mod foreign;
mod json;
pub mod lora;
pub mod memory;
pub mod nn;
pub mod output;
pub mod pose_head;
pub mod process;
pub mod qwen3_vl;
pub mod tokenizer;
pub mod weights;

pub use answer::prompt::Mode;
pub use candle_core::Device;
pub use ego::{Answer, AnswerOptions, Cost, EgoModel, FrameEmbedding, ImageEmbedding, device};
pub use error::{Error, Result};
pub use pose_head::PoseHead;
pub use qwen3_vl::Qwen3Vl;
pub use qwen3_vl::config::Config;
pub use qwen3_vl::processor::{Patches, Processor};
