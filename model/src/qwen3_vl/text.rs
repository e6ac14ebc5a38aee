//! The decoder: grouped-query attention with normalised queries and keys, interleaved M-RoPE, SwiGLU.

use candle_core::{DType, Device, IndexOp, Module, Tensor};
use candle_nn::Init;

use crate::autograd::recompute::Recomputation;
use crate::nn::{Kernels, KeyValues, Linear, Matrix, RmsNorm, Rotary, attention};
use crate::qwen3_vl::config::TextConfig;
use crate::weights::loader::Loader;
use crate::{Error, Result};

/// Place of one token: time, height, width. The three are equal for text.
pub type Position = [u32; 3];

/// Keys and values of every layer so far. Memory is taken as tokens come, up to a limit that is an error, not a crash.
#[derive(Debug)]
pub struct KvCache {
    /// What the sequences of a batch begin with, [1, kv, s, e] each.
    shared: Vec<Option<(Tensor, Tensor)>>,
    /// What each goes on with, [b, kv, s, e] each, room for more behind s.
    own: Vec<Option<(Tensor, Tensor)>>,
    prefix: usize,
    tokens: usize,
    limit: usize,
}

impl KvCache {
    /// An empty cache for `layers` layers and at most `limit` tokens.
    pub fn new(layers: usize, limit: usize) -> Self {
        Self { shared: vec![None; layers], own: vec![None; layers], prefix: 0, tokens: 0, limit }
    }

    /// Tokens held of each sequence.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Layers that it is for.
    pub fn layers(&self) -> usize {
        self.own.len()
    }

    /// Begins with the first tokens of another cache, in memory of its own and no more than they take.
    ///
    /// # Errors
    /// A cache that holds something already; another one of other layers, of fewer tokens or of several sequences.
    pub fn begin(&mut self, other: &Self, tokens: usize) -> Result<()> {
        let fits = self.tokens == 0 && other.prefix == 0 && self.layers() == other.layers();
        if !fits || tokens > other.tokens.min(self.limit) {
            return Err(Error::Input {
                what: "cache",
                expected: format!("an empty one, and one sequence of at least {tokens} tokens"),
                got: format!("{} and {} tokens", self.tokens, other.tokens),
            });
        }
        if tokens > 0 {
            let held = |x: &Tensor| x.narrow(2, 0, tokens)?.force_contiguous();
            let own = other.own.iter().map(|part| match part {
                Some((k, v)) => Ok(Some((held(k)?, held(v)?))),
                None => Ok(None),
            });
            self.own = own.collect::<Result<_>>()?;
            self.tokens = tokens;
        }
        Ok(())
    }

    /// Forgets all but the first tokens: what was read of a draft that did not come true.
    ///
    /// # Errors
    /// Fewer tokens than the sequences of a branch share.
    pub fn truncate(&mut self, tokens: usize) -> Result<()> {
        if tokens < self.prefix {
            return Err(Error::Input {
                what: "cache",
                expected: format!("at least the {} tokens that its sequences share", self.prefix),
                got: tokens.to_string(),
            });
        }
        self.tokens = self.tokens.min(tokens);
        Ok(())
    }

    /// A copy that goes its own way. (A clone would share the buffers, and write into them.)
    ///
    /// # Errors
    /// A tensor operation's.
    pub fn try_clone(&self) -> Result<Self> {
        let own = self.own.iter().map(|part| match part {
            Some((k, v)) => Ok(Some((k.copy()?, v.copy()?))),
            None => Ok(None),
        });
        let own = own.collect::<Result<_>>()?;
        Ok(Self { shared: self.shared.clone(), own, prefix: self.prefix, tokens: self.tokens, limit: self.limit })
    }

    /// A cache for any number of sequences that all begin with what this one holds. That part is kept once.
    ///
    /// # Errors
    /// A cache of several sequences, or one that was branched already.
    pub fn branch(&self) -> Result<Self> {
        let width = |part: &Option<(Tensor, Tensor)>| part.as_ref().map_or(1, |(k, _)| k.dims()[0]);
        if self.prefix > 0 || self.own.iter().any(|part| width(part) != 1) {
            return Err(Error::Input {
                what: "cache",
                expected: "one sequence".to_owned(),
                got: "several, or the branch of another".to_owned(),
            });
        }
        let held = |x: &Tensor| x.narrow(2, 0, self.tokens);
        let shared = self.own.iter().map(|part| match part {
            Some((k, v)) => Ok(Some((held(k)?, held(v)?))),
            None => Ok(None),
        });
        Ok(Self {
            shared: shared.collect::<Result<_>>()?,
            own: vec![None; self.own.len()],
            prefix: self.tokens,
            tokens: self.tokens,
            limit: self.limit,
        })
    }

    /// Appends to one layer and returns all of it.
    fn append(&mut self, layer: usize, k: &Tensor, v: &Tensor) -> Result<KeyValues> {
        let (b, heads, t, e) = k.dims4()?;
        let start = self.tokens - self.prefix;
        let end = start + t;
        let grown = |old: Option<&Tensor>, new: &Tensor| -> Result<Tensor> {
            // Doubling, so that a token costs its own bytes on average.
            let room = (end.next_power_of_two().max(64)).min((self.limit - self.prefix).max(end));
            let buffer = match old {
                Some(old) if old.dim(2)? >= end => old.clone(),
                _ => {
                    let buffer = Tensor::zeros((b, heads, room, e), new.dtype(), new.device())?;
                    if let Some(old) = old {
                        buffer.slice_set(&old.narrow(2, 0, start)?.contiguous()?, 2, 0)?;
                    }
                    buffer
                }
            };
            buffer.slice_set(&new.contiguous()?, 2, start)?;
            Ok(buffer)
        };
        let old = self.own[layer].as_ref();
        let keys = grown(old.map(|o| &o.0), k)?;
        let values = grown(old.map(|o| &o.1), v)?;
        let own = (keys.narrow(2, 0, end)?, values.narrow(2, 0, end)?);
        self.own[layer] = Some((keys, values));
        Ok(KeyValues { shared: self.shared[layer].clone(), own })
    }
}

/// What a tap is shown of a layer.
#[derive(Debug, Clone, Copy)]
pub enum Tapped<'a> {
    /// Queries `[b, h, t, e]` and keys `[b, kv, t, e]`, normalised, and the same rotated to their places. Not shown
    /// where the layer is recomputed.
    Attention {
        /// Queries before the rotary embedding.
        query: &'a Tensor,
        /// Keys before it.
        key: &'a Tensor,
        /// Queries behind it.
        rotated_query: &'a Tensor,
        /// Keys behind it.
        rotated_key: &'a Tensor,
    },
    /// The layer's output `[b, t, d]`, deepstack added.
    Hidden(&'a Tensor),
}

#[derive(Debug, Clone)]
struct Layer {
    input_norm: RmsNorm,
    post_norm: RmsNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    q_norm: RmsNorm,
    k_norm: RmsNorm,
    gate: Linear,
    up: Linear,
    down: Linear,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    kernels: Kernels,
}

impl Layer {
    fn new(c: &TextConfig, kernels: Kernels, vb: &Loader<'_>) -> Result<Self> {
        let (d, e, ffn) = (c.hidden_size, c.head_dim, c.intermediate_size);
        let (attn, mlp) = (vb.pp("self_attn"), vb.pp("mlp"));
        let norm = |width, vb: Loader<'_>| RmsNorm::new(width, c.rms_norm_eps, kernels, &vb);
        Ok(Self {
            input_norm: norm(d, vb.pp("input_layernorm"))?,
            post_norm: norm(d, vb.pp("post_attention_layernorm"))?,
            q: Linear::new(d, c.num_attention_heads * e, false, &attn.pp("q_proj"))?,
            k: Linear::new(d, c.num_key_value_heads * e, false, &attn.pp("k_proj"))?,
            v: Linear::new(d, c.num_key_value_heads * e, false, &attn.pp("v_proj"))?,
            o: Linear::new(c.num_attention_heads * e, d, false, &attn.pp("o_proj"))?,
            q_norm: norm(e, attn.pp("q_norm"))?,
            k_norm: norm(e, attn.pp("k_norm"))?,
            gate: Linear::new(d, ffn, false, &mlp.pp("gate_proj"))?,
            up: Linear::new(d, ffn, false, &mlp.pp("up_proj"))?,
            down: Linear::new(ffn, d, false, &mlp.pp("down_proj"))?,
            heads: c.num_attention_heads,
            kv_heads: c.num_key_value_heads,
            head_dim: e,
            kernels,
        })
    }

    fn forward(
        &self,
        x: &Tensor,
        rotary: &Rotary,
        cache: Option<(&mut KvCache, usize)>,
        tap: &mut dyn FnMut(Tapped<'_>),
    ) -> Result<Tensor> {
        let (b, t, _) = x.dims3()?;
        let h = self.input_norm.forward(x)?;
        let split = |y: Tensor, heads: usize| y.reshape((b, t, heads, self.head_dim)); // [b, t, h, e]
        let query = self.q_norm.forward(&split(self.q.forward(&h)?, self.heads)?)?.transpose(1, 2)?;
        let key = self.k_norm.forward(&split(self.k.forward(&h)?, self.kv_heads)?)?.transpose(1, 2)?;
        let v = split(self.v.forward(&h)?, self.kv_heads)?.transpose(1, 2)?; // [b, kv, t, e]
        let q = rotary.apply(&query, self.kernels)?;
        let k = rotary.apply(&key, self.kernels)?;
        tap(Tapped::Attention { query: &query, key: &key, rotated_query: &q, rotated_key: &k });
        let kv = match cache {
            Some((cache, layer)) => cache.append(layer, &k, &v)?,
            None => KeyValues { shared: None, own: (k, v.contiguous()?) },
        };
        let x = (x + self.o.forward(&attention(&q, &kv, true)?)?)?;
        let h = self.post_norm.forward(&x)?;
        let mlp = self.down.forward(&crate::autograd::swiglu(&self.gate.forward(&h)?, &self.up.forward(&h)?)?)?;
        Ok((x + mlp)?)
    }
}

/// The decoder without its token embedding, which [`crate::Qwen3Vl`] owns.
#[derive(Debug, Clone)]
pub struct Decoder {
    layers: Vec<Layer>,
    norm: RmsNorm,
    config: TextConfig,
    theta: f64,
    section: [usize; 3],
}

/// Input of [`Decoder::forward`].
#[derive(Debug)]
pub struct DecoderInput<'a> {
    /// `[b, t, d]`
    pub embeddings: Tensor,
    /// `b * t` places, row after row.
    pub positions: &'a [Position],
    /// `[b, t, d]` each, zero outside images: added after layer k.
    pub deepstack: &'a [Tensor],
    /// Earlier tokens of the same sequences.
    pub cache: Option<&'a mut KvCache>,
    /// Keeps the inputs of layers in place of all that they compute, for training; not beside a cache.
    pub recomputation: Option<&'a Recomputation>,
}

impl Decoder {
    /// Loads the tensors below `model.language_model`.
    ///
    /// # Errors
    /// A tensor that is missing or has another shape.
    pub fn new(config: &TextConfig, kernels: Kernels, vb: &Loader<'_>) -> Result<Self> {
        let missing = || Error::Config {
            key: "text_config.rope_scaling",
            expected: "mrope_section and rope_theta".to_owned(),
            got: "nothing".to_owned(),
        };
        let layers = (0..config.num_hidden_layers)
            .map(|i| Layer::new(config, kernels, &vb.pp("layers").pp(i)))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            layers,
            norm: RmsNorm::new(config.hidden_size, config.rms_norm_eps, kernels, &vb.pp("norm"))?,
            config: config.clone(),
            theta: config.theta().ok_or_else(missing)?,
            section: config.rope().ok_or_else(missing)?.mrope_section,
        })
    }

    /// Causal forward pass.
    ///
    /// # Shapes
    /// returns `[b, t, d]`, normalised
    ///
    /// # Errors
    /// Positions that do not agree with the embeddings, or a cache that is full.
    pub fn forward(&self, input: DecoderInput<'_>) -> Result<Tensor> {
        self.forward_with(input, &mut |_, _| {})
    }

    /// [`Self::forward`] that shows what happens in every layer.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn forward_with(&self, mut input: DecoderInput<'_>, tap: &mut dyn FnMut(usize, Tapped<'_>)) -> Result<Tensor> {
        let x = self.layers(&mut input, 0..self.layers.len(), tap)?;
        if let Some(cache) = input.cache {
            cache.tokens += x.dim(1)?;
        }
        self.normalise(&x)
    }

    /// The norm behind the last layer.
    ///
    /// # Errors
    /// Another width than the model's.
    pub fn normalise(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.norm.forward(x)?)
    }

    /// Some of the layers, without the norm behind the last: trainers that leave the lower layers alone cut here.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn layers(
        &self,
        input: &mut DecoderInput<'_>,
        range: std::ops::Range<usize>,
        tap: &mut dyn FnMut(usize, Tapped<'_>),
    ) -> Result<Tensor> {
        let DecoderInput { embeddings, positions, deepstack, cache, recomputation } = input;
        let (b, t, _) = embeddings.dims3()?;
        if positions.len() != b * t {
            return Err(Error::Input {
                what: "positions",
                expected: (b * t).to_string(),
                got: positions.len().to_string(),
            });
        }
        if let Some(cache) = cache
            && cache.tokens + t > cache.limit
        {
            return Err(Error::Input {
                what: "sequence",
                expected: format!("at most {} tokens", cache.limit),
                got: (cache.tokens + t).to_string(),
            });
        }
        let rotary = self.rotary(positions, b, t, embeddings.dtype(), embeddings.device())?;
        let mut x = embeddings.clone();
        for i in range {
            let Some(layer) = self.layers.get(i) else { break };
            x = match (*recomputation, cache.as_mut()) {
                (Some(recomputation), None) => {
                    let (layer, rotary) = (layer.clone(), rotary.clone());
                    recomputation.run(&x, move |x| layer.forward(x, &rotary, None, &mut |_| {}))?
                }
                (_, cache) => layer.forward(&x, &rotary, cache.map(|c| (&mut **c, i)), &mut |t| tap(i, t))?,
            };
            if let Some(features) = deepstack.get(i) {
                x = (x + features)?;
            }
            tap(i, Tapped::Hidden(&x));
        }
        Ok(x)
    }

    /// M-RoPE: frequency i turns with height where i mod 3 = 1, with width where i mod 3 = 2, as long as that section
    /// lasts, and with time elsewhere.
    fn rotary(&self, positions: &[Position], b: usize, t: usize, dtype: DType, device: &Device) -> Result<Rotary> {
        let half = self.config.head_dim / 2;
        let mut axis = vec![0usize; half];
        for (dimension, offset) in [(1, 1), (2, 2)] {
            for i in (offset..(self.section[dimension] * 3).min(half)).step_by(3) {
                axis[i] = dimension;
            }
        }
        let inverse: Vec<f32> =
            (0..half).map(|i| self.theta.powf(-((2 * i) as f64) / self.config.head_dim as f64) as f32).collect();
        let mut angles = Vec::with_capacity(positions.len() * half);
        for position in positions {
            angles.extend(axis.iter().zip(&inverse).map(|(&a, f)| position[a] as f32 * f));
        }
        Rotary::new(&angles, b, t, dtype, device)
    }

    pub(crate) fn set_kernels(&mut self, kernels: Kernels) {
        for layer in &mut self.layers {
            layer.kernels = kernels;
            let norms = [&mut layer.input_norm, &mut layer.post_norm, &mut layer.q_norm, &mut layer.k_norm];
            norms.into_iter().for_each(|norm| norm.set_kernels(kernels));
        }
        self.norm.set_kernels(kernels);
    }

    /// Every linear layer.
    pub(crate) fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        self.layers
            .iter_mut()
            .flat_map(|l| [&mut l.q, &mut l.k, &mut l.v, &mut l.o, &mut l.gate, &mut l.up, &mut l.down])
    }

    /// Layers.
    pub fn depth(&self) -> usize {
        self.layers.len()
    }

    /// The query projection of a layer, where there is one of that number.
    pub fn query(&self, layer: usize) -> Option<&Linear> {
        self.layers.get(layer).map(|layer| &layer.q)
    }
}

/// Token embedding `[vocab, d]`.
pub(crate) fn embedding(c: &TextConfig, vb: &Loader<'_>) -> Result<Matrix> {
    let init = Init::Randn { mean: 0.0, stdev: 0.05 };
    vb.pp("embed_tokens").matrix((c.vocab_size, c.hidden_size), "weight", init)
}

/// Last position of every sequence, `[b, t, d] -> [b, d]`.
pub(crate) fn last(x: &Tensor) -> Result<Tensor> {
    let t = x.dim(1)?;
    Ok(x.i((.., t - 1))?.contiguous()?)
}
