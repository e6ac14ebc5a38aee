//! The whole model: token embedding, vision tower, decoder, head.

pub mod config;
pub mod processor;
pub mod text;
pub mod vision;

use std::path::Path;

use candle_core::{DType, Device, Module, Tensor};

use crate::nn::{Kernels, Linear, Matrix};
use crate::qwen3_vl::config::Config;
use crate::qwen3_vl::processor::Grid;
use crate::qwen3_vl::text::{Decoder, DecoderInput, KvCache, Position, embedding};
use crate::qwen3_vl::vision::VisionTower;
use crate::weights::loader::Loader;
use crate::{Error, Result};

/// Path of the output matrix.
const HEAD: &str = "lm_head";

/// Qwen3-VL.
#[derive(Debug, Clone)]
pub struct Qwen3Vl {
    visual: VisionTower,
    embed_tokens: Matrix,
    dtype: DType,
    device: Device,
    decoder: Decoder,
    head: Linear,
    config: Config,
}

/// One piece of a sequence, in the order in which the decoder reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment<'a> {
    /// Token ids.
    Text(&'a [u32]),
    /// The tokens of the next image; the grid is in patches.
    Image(Grid),
}

/// Token embeddings and what must be added after the first layers.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// `[b, t, d]`
    pub embeddings: Tensor,
    /// `[b, t, d]` each, zero at text.
    pub deepstack: Vec<Tensor>,
}

impl Embedded {
    /// Without the first tokens, which a cache holds already.
    ///
    /// # Errors
    /// More tokens than there are.
    pub fn behind(&self, tokens: usize) -> Result<Self> {
        let rest = |x: &Tensor| x.narrow(1, tokens, x.dim(1)?.saturating_sub(tokens))?.contiguous();
        let deepstack = self.deepstack.iter().map(rest).collect::<candle_core::Result<Vec<_>>>()?;
        Ok(Self { embeddings: rest(&self.embeddings)?, deepstack })
    }
}

impl Qwen3Vl {
    /// Loads a checkpoint folder: `config.json` and safetensors, or a pair of GGUF files.
    ///
    /// # Errors
    /// A file that is missing, a tensor that is missing or has another shape.
    pub fn load(dir: &Path, kernels: Kernels, dtype: DType, device: &Device) -> Result<Self> {
        let (config, loader) = crate::weights::open(dir, dtype, device)?;
        Self::new(&config, kernels, loader).map_err(|error| match error {
            Error::Tensor(source) => Error::Weights { path: dir.to_owned(), source },
            other => other,
        })
    }

    /// Builds the model on tensors at hand; with a trainable builder, missing ones are initialised.
    ///
    /// # Errors
    /// A tensor that is missing or has another shape.
    pub fn new<'a>(config: &Config, kernels: Kernels, loader: impl Into<Loader<'a>>) -> Result<Self> {
        let loader = loader.into();
        let root = loader.pp("model");
        let c = &config.text_config;
        let embed_tokens = embedding(c, &root.pp("language_model"))?;
        let head = if config.tie_word_embeddings {
            Linear::from_parts(HEAD, embed_tokens.clone(), None)
        } else {
            Linear::new(c.hidden_size, c.vocab_size, false, &loader.pp(HEAD))?
        };
        Ok(Self {
            visual: VisionTower::new(&config.vision_config, kernels, &root.pp("visual"))?,
            decoder: Decoder::new(c, kernels, &root.pp("language_model"))?,
            device: head.device(),
            dtype: loader.dtype(),
            embed_tokens,
            head,
            config: config.clone(),
        })
    }

    /// The same weights with fast kernels and without graphs: a trainer answers with what it trains.
    #[must_use]
    pub fn for_inference(&self) -> Self {
        let mut model = self.clone();
        model.visual.set_kernels(Kernels::Fused);
        model.decoder.set_kernels(Kernels::Fused);
        model.linears_mut().into_iter().for_each(Linear::detach);
        model
    }

    /// Every linear layer that an adapter may sit beside: a head that is the embedding is none.
    pub fn linears_mut(&mut self) -> Vec<&mut Linear> {
        let head = (!self.config.tie_word_embeddings).then_some(&mut self.head);
        self.visual.linears_mut().chain(self.decoder.linears_mut()).chain(head).collect()
    }

    /// The vision tower.
    pub fn visual(&self) -> &VisionTower {
        &self.visual
    }

    /// The decoder.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// Where the weights lie.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Type of the activations.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// What the model was built from.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// An empty cache for at most `limit` tokens.
    pub fn cache(&self, limit: usize) -> KvCache {
        KvCache::new(self.decoder.depth(), limit.min(self.config.text_config.max_position_embeddings))
    }

    /// Token ids to embeddings.
    ///
    /// # Shapes
    /// `ids` `[n]` -> `[n, d]`
    ///
    /// # Errors
    /// An id outside the vocabulary.
    pub fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        Ok(self.embed_tokens.rows(ids, self.dtype)?)
    }

    /// Puts text and image tokens into one batch of sequences.
    ///
    /// `ids` holds `b * t` token ids, image placeholders included; the k-th placeholder takes the k-th row of
    /// `images`, whose rows follow the order of the batch.
    ///
    /// # Shapes
    /// `images` and each of `deepstack` `[placeholders, d]`
    ///
    /// # Errors
    /// Another number of placeholders than image rows.
    pub fn embed_batch(&self, ids: &[u32], b: usize, images: &Tensor, deepstack: &[Tensor]) -> Result<Embedded> {
        let device = &self.device;
        let rows = images.dim(0)?;
        let d = self.config.text_config.hidden_size;
        let t = ids.len() / b.max(1);
        let placeholders = ids.iter().filter(|&&id| id == self.config.image_token_id).count();
        if placeholders != rows || ids.len() != b * t {
            return Err(Error::Input {
                what: "image placeholders",
                expected: rows.to_string(),
                got: placeholders.to_string(),
            });
        }
        // One table of text rows followed by image rows, one gather: exact, and every operation has a gradient.
        let mut next_image = ids.len() as u32;
        let mut next_feature = 1u32;
        let (mut gather, mut features) = (Vec::with_capacity(ids.len()), Vec::with_capacity(ids.len()));
        for (i, &id) in ids.iter().enumerate() {
            if id == self.config.image_token_id {
                gather.push(next_image);
                features.push(next_feature);
                next_image += 1;
                next_feature += 1;
            } else {
                gather.push(i as u32);
                features.push(0);
            }
        }
        let text = self.embed(&Tensor::new(ids, device)?)?;
        let table = Tensor::cat(&[&text, images], 0)?;
        let embeddings = table.index_select(&Tensor::new(gather, device)?, 0)?.reshape((b, t, d))?;
        let features = Tensor::new(features, device)?;
        let zero = Tensor::zeros((1, d), embeddings.dtype(), device)?;
        let deepstack = deepstack
            .iter()
            .map(|rows| Ok(Tensor::cat(&[&zero, rows], 0)?.index_select(&features, 0)?.reshape((b, t, d))?))
            .collect::<Result<Vec<_>>>()?;
        Ok(Embedded { embeddings, deepstack })
    }

    /// Hidden states to logits. Outside of a graph a quantized head gives them in f32, whatever the activations are: bf16 has so few
    /// digits that several tokens would be equally likely.
    ///
    /// # Shapes
    /// `[.., d] -> [.., vocab]`
    ///
    /// # Errors
    /// Another width than the model's.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        match self.head.matrix() {
            Matrix::Quantized(_) if !hidden.track_op() => Ok(self.head.forward(&hidden.to_dtype(DType::F32)?)?),
            _ => Ok(self.head.forward(hidden)?),
        }
    }

    /// The logits of some ids for one hidden state, in f32; the same numbers as [`Self::logits`]' up to the rounding of 16 bits and of
    /// quantized matrices, whose integer kernels round the hidden state too.
    ///
    /// # Shapes
    /// `[1, d] -> [ids]`
    ///
    /// # Errors
    /// An id outside the vocabulary, another width than the model's.
    pub fn logits_of(&self, hidden: &Tensor, ids: &[u32]) -> Result<Vec<f32>> {
        let rows = self.head.rows(&Tensor::new(ids, &self.device)?, DType::F32)?;
        Ok(rows.forward(&hidden.to_dtype(DType::F32)?)?.flatten_all()?.to_vec1()?)
    }

    /// Decoder pass; see [`Decoder::forward`].
    ///
    /// # Errors
    /// As [`Decoder::forward`].
    pub fn decode(&self, embedded: &Embedded, positions: &[Position], cache: Option<&mut KvCache>) -> Result<Tensor> {
        self.decoder.forward(DecoderInput {
            embeddings: embedded.embeddings.clone(),
            positions,
            deepstack: &embedded.deepstack,
            cache,
            recomputation: None,
        })
    }
}

/// Places of a sequence: text counts on all three axes, an image stands still in time and counts its rows and columns,
/// and text goes on after the larger of them.
pub fn positions(segments: &[Segment<'_>], merge: usize) -> Vec<Position> {
    let mut places = Vec::new();
    let mut next = 0u32;
    for segment in segments {
        match segment {
            Segment::Text(ids) => {
                places.extend((0..ids.len() as u32).map(|i| [next + i; 3]));
                next += ids.len() as u32;
            }
            Segment::Image(grid) => {
                let (rows, columns) = ((grid.height / merge) as u32, (grid.width / merge) as u32);
                for row in 0..rows {
                    places.extend((0..columns).map(|column| [next, next + row, next + column]));
                }
                next += rows.max(columns);
            }
        }
    }
    places
}
