//! Qwen3-VL for camera geometry: vision tower, decoder, image processor, tokenizer, chain text and decoding.
//!
//! No ROS and no data sets here. Tensor shapes in docs use: b batch, t tokens of a sequence, s tokens in the cache,
//! n tokens or patches of an image, d width of the decoder, h heads, e width of a head.
//!
//! # Example
//! ```no_run
//! use std::path::Path;
//!
//! use geometry::Intrinsics;
//! use image::RgbImage;
//! use model::{AnswerOptions, Device, EgoModel, FrameEmbedding};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = EgoModel::load(Path::new("model/weights/nano"), &Device::Cpu)?;
//! let camera = Intrinsics::new(615.0, 615.0, 319.5, 239.5, 640, 480)?;
//! let mut frames: Vec<FrameEmbedding> = Vec::new();
//! for _ in 0..5 {
//!     frames.push(model.encode(&model.preprocess(&RgbImage::new(640, 480), &camera)?)?);
//! }
//! let frames: Vec<&FrameEmbedding> = frames.iter().collect();
//! // What makes no sense is a value: `trajectory` is then an error, and `text` says what was written.
//! let answer = model.answer(&frames, &AnswerOptions::default())?;
//! println!("{}: {:?}", answer.text, answer.trajectory);
//! # Ok(())
//! # }
//! ```
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
