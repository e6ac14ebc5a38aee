//! A model whose features are judged: its weights, an adapter beside them, and the correspondence heads that were trained with it.

use std::path::Path;

use anyhow::{Context, Result};
use candle_core::{DType, Device};
use model::lora::Lora;
use model::nn::Kernels;
use model::tokenizer::Tokenizer;
use model::{Config, Processor, Qwen3Vl};

use super::head::Heads;
use super::pixels::sized;
use crate::sft::example::Builder;

/// A model with what its prompts are built with.
pub struct Judged {
    /// The model, its adapter attached.
    pub model: Qwen3Vl,
    /// The heads beside the adapter, or beside the weights; nothing where there are none.
    pub heads: Option<Heads>,
    config: Config,
    tokenizer: Tokenizer,
    processor: Processor,
}

impl Judged {
    /// For frames of `size` (width, height), or as the checkpoint's processor makes them.
    ///
    /// # Errors
    /// Weights, an adapter or heads that can't be read, a size of no whole tokens.
    pub fn open(weights: &Path, adapter: Option<&Path>, size: Option<(u32, u32)>, device: &Device) -> Result<Self> {
        let dtype = if device.is_cpu() { DType::F32 } else { DType::BF16 };
        let (config, loader) = model::weights::open(weights, dtype, device)?;
        let mut model = Qwen3Vl::new(&config, Kernels::Fused, loader)?;
        if let Some(adapter) = adapter {
            Lora::load(adapter, dtype, device)?.attach(&mut model)?;
        }
        let heads = Heads::stored(adapter.unwrap_or(weights), config.text_config.hidden_size, device)?;
        let tokenizer = Tokenizer::from_dir(weights, &config)?;
        let own = Processor::from_dir(weights, &config.vision_config)?;
        let processor = sized(&own, size).context("--size")?;
        Ok(Self { model, heads, config, tokenizer, processor })
    }

    /// What builds its prompts.
    pub fn builder(&self) -> Builder<'_> {
        Builder { tokenizer: &self.tokenizer, processor: &self.processor, config: &self.config }
    }
}
