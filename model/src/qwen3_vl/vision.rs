//! The vision tower: patches of one image in, tokens for the decoder out.
//!
//! Frames are encoded as images, each on its own, so that a frame's tokens do not depend on its neighbours and can be
//! cached. Patches come in merge-block order: the four patches of a 2x2 block follow each other, so that the merger is
//! a reshape.

use candle_core::{Device, IndexOp, Module, Tensor};
use candle_nn::Init;

use crate::nn::{Kernels, KeyValues, LayerNorm, Linear, Matrix, Rotary, attention, attention_rounding};
use crate::qwen3_vl::config::LAYER_NORM_EPS;
use crate::qwen3_vl::config::VisionConfig;
use crate::qwen3_vl::processor::Grid;
use crate::weights::loader::Loader;
use crate::{Error, Result};

const ROPE_THETA: f32 = 10_000.0;

/// What the tower says of a batch of images.
#[derive(Debug, Clone)]
pub struct VisionOutput {
    /// `[b, n, d]`: tokens that replace the image placeholders.
    pub tokens: Tensor,
    /// `[b, n, d]` each: added to the decoder's hidden states after its layer k.
    pub deepstack: Vec<Tensor>,
}

#[derive(Debug, Clone)]
struct Block {
    norm1: LayerNorm,
    norm2: LayerNorm,
    qkv: Linear,
    proj: Linear,
    fc1: Linear,
    fc2: Linear,
    heads: usize,
    kernels: Kernels,
}

impl Block {
    fn new(c: &VisionConfig, kernels: Kernels, vb: &Loader<'_>) -> Result<Self> {
        let (d, ffn) = (c.hidden_size, c.intermediate_size);
        Ok(Self {
            norm1: LayerNorm::new(d, LAYER_NORM_EPS, kernels, &vb.pp("norm1"))?,
            norm2: LayerNorm::new(d, LAYER_NORM_EPS, kernels, &vb.pp("norm2"))?,
            qkv: Linear::new(d, 3 * d, true, &vb.pp("attn").pp("qkv"))?,
            proj: Linear::new(d, d, true, &vb.pp("attn").pp("proj"))?,
            fc1: Linear::new(d, ffn, true, &vb.pp("mlp").pp("linear_fc1"))?,
            fc2: Linear::new(ffn, d, true, &vb.pp("mlp").pp("linear_fc2"))?,
            heads: c.num_heads,
            kernels,
        })
    }

    fn forward(&self, x: &Tensor, rotary: &Rotary) -> Result<Tensor> {
        let (b, n, d) = x.dims3()?;
        let qkv = self.qkv.forward(&self.norm1.forward(x)?)?;
        let qkv = qkv.reshape((b, n, 3, self.heads, d / self.heads))?.permute((2, 0, 3, 1, 4))?; // [3, b, h, n, e]
        let q = rotary.apply(&qkv.i(0)?, self.kernels)?;
        let k = rotary.apply(&qkv.i(1)?, self.kernels)?;
        let kv = KeyValues { shared: None, own: (k, qkv.i(2)?.contiguous()?) };
        let attention = if matches!(self.qkv.matrix(), Matrix::Quantized(_)) { attention_rounding } else { attention };
        let x = (x + self.proj.forward(&attention(&q, &kv, false)?)?)?;
        let mlp = self.fc2.forward(&crate::autograd::gelu(&self.fc1.forward(&self.norm2.forward(&x)?)?)?)?;
        Ok((x + mlp)?)
    }
}

/// Joins each square of patches into one token of the decoder's width.
#[derive(Debug, Clone)]
struct PatchMerger {
    norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    block: usize,
    norm_after_merge: bool,
}

impl PatchMerger {
    fn new(c: &VisionConfig, norm_after_merge: bool, kernels: Kernels, vb: &Loader<'_>) -> Result<Self> {
        let block = c.spatial_merge_size.pow(2);
        let merged = c.hidden_size * block;
        let norm_width = if norm_after_merge { merged } else { c.hidden_size };
        Ok(Self {
            norm: LayerNorm::new(norm_width, LAYER_NORM_EPS, kernels, &vb.pp("norm"))?,
            fc1: Linear::new(merged, merged, true, &vb.pp("linear_fc1"))?,
            fc2: Linear::new(merged, c.out_hidden_size, true, &vb.pp("linear_fc2"))?,
            block,
            norm_after_merge,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (b, n, d) = x.dims3()?;
        let merged = (b, n / self.block, d * self.block);
        let x = if self.norm_after_merge {
            self.norm.forward(&x.reshape(merged)?)?
        } else {
            self.norm.forward(x)?.reshape(merged)?
        };
        // Exact GELU here, the tanh form in the blocks: as the reference has it.
        Ok(self.fc2.forward(&self.fc1.forward(&x)?.gelu_erf()?)?)
    }
}

/// The tower.
#[derive(Debug, Clone)]
pub struct VisionTower {
    patch_embed: Linear,
    pos_embed: Tensor,
    blocks: Vec<Block>,
    merger: PatchMerger,
    deepstack: Vec<(usize, PatchMerger)>,
    config: VisionConfig,
}

impl VisionTower {
    /// Loads the tensors below `model.visual`.
    ///
    /// # Errors
    /// A tensor that is missing or has another shape.
    pub fn new(config: &VisionConfig, kernels: Kernels, vb: &Loader<'_>) -> Result<Self> {
        let c = config;
        let patch = vb.pp("patch_embed").pp("proj");
        let shape = (c.hidden_size, c.in_channels, c.temporal_patch_size, c.patch_size, c.patch_size);
        let stdev = (1.0 / c.patch_dim() as f64).sqrt();
        let weight = patch.tensor(shape, "weight", Init::Randn { mean: 0.0, stdev })?;
        let bias = patch.tensor(c.hidden_size, "bias", Init::Const(0.0))?;
        // The convolution's stride is its kernel: over flattened patches it is one matrix product.
        let weight = Matrix::Dense(weight.reshape((c.hidden_size, c.patch_dim()))?);
        let patch_embed = Linear::from_parts(patch.prefix(), weight, Some(bias));
        let pos_embed = vb.pp("pos_embed").tensor(
            (c.num_position_embeddings, c.hidden_size),
            "weight",
            Init::Randn { mean: 0.0, stdev: 0.2 },
        )?;
        let blocks =
            (0..c.depth).map(|i| Block::new(c, kernels, &vb.pp("blocks").pp(i))).collect::<Result<Vec<_>>>()?;
        let deepstack = c
            .deepstack_visual_indexes
            .iter()
            .enumerate()
            .map(|(k, &i)| Ok((i, PatchMerger::new(c, true, kernels, &vb.pp("deepstack_merger_list").pp(k))?)))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            patch_embed,
            pos_embed,
            blocks,
            merger: PatchMerger::new(c, false, kernels, &vb.pp("merger"))?,
            deepstack,
            config: c.clone(),
        })
    }

    pub(crate) fn set_kernels(&mut self, kernels: Kernels) {
        for block in &mut self.blocks {
            block.kernels = kernels;
            block.norm1.set_kernels(kernels);
            block.norm2.set_kernels(kernels);
        }
        let mergers = std::iter::once(&mut self.merger).chain(self.deepstack.iter_mut().map(|(_, m)| m));
        mergers.for_each(|merger| merger.norm.set_kernels(kernels));
    }

    /// Every linear layer that peft would call one: not the patch embedding, a convolution to it.
    pub(crate) fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        let blocks = self.blocks.iter_mut().flat_map(|b| [&mut b.qkv, &mut b.proj, &mut b.fc1, &mut b.fc2]);
        let mergers = std::iter::once(&mut self.merger).chain(self.deepstack.iter_mut().map(|(_, m)| m));
        blocks.chain(mergers.flat_map(|m| [&mut m.fc1, &mut m.fc2]))
    }

    /// Encodes images of one size.
    ///
    /// # Shapes
    /// `patches` `[b, grid.patches(), patch_dim]` in merge-block order
    ///
    /// # Errors
    /// A grid that is not a multiple of the merge size, or does not agree with `patches`.
    pub fn forward(&self, patches: &Tensor, grid: Grid) -> Result<VisionOutput> {
        self.forward_with(patches, grid, &mut |_, _| {})
    }

    /// [`Self::forward`] that shows the hidden states `[b, n, d]` after the patch embedding (0) and each block (1..).
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn forward_with(
        &self,
        patches: &Tensor,
        grid: Grid,
        tap: &mut dyn FnMut(usize, &Tensor),
    ) -> Result<VisionOutput> {
        let c = &self.config;
        let merge = c.spatial_merge_size;
        let (b, n, patch_dim) = patches.dims3()?;
        if n != grid.patches() || patch_dim != c.patch_dim() || n == 0 {
            return Err(Error::Input {
                what: "patches",
                expected: format!("[b, {}, {}]", grid.patches(), c.patch_dim()),
                got: format!("{:?}", patches.dims()),
            });
        }
        if !grid.height.is_multiple_of(merge) || !grid.width.is_multiple_of(merge) {
            return Err(Error::Input {
                what: "grid",
                expected: format!("multiples of {merge}"),
                got: format!("{}x{}", grid.height, grid.width),
            });
        }
        let x = self.patch_embed.forward(patches)?;
        let mut x = x.broadcast_add(&self.position_embedding(grid)?.unsqueeze(0)?)?;
        tap(0, &x);
        let rotary = self.rotary(grid, b, x.device())?;
        let mut deepstack = Vec::with_capacity(self.deepstack.len());
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x, &rotary)?;
            tap(i + 1, &x);
            if let Some((_, merger)) = self.deepstack.iter().find(|(at, _)| *at == i) {
                deepstack.push(merger.forward(&x)?);
            }
        }
        Ok(VisionOutput { tokens: self.merger.forward(&x)?, deepstack })
    }

    /// The learned grid at the places of `grid`'s patches, bilinear with aligned corners.
    ///
    /// # Shapes
    /// `[grid.patches(), hidden]`, merge-block order
    pub fn position_embedding(&self, grid: Grid) -> Result<Tensor> {
        let side = self.config.position_side();
        let at = |i: usize, n: usize| -> (usize, usize, f32) {
            let x = if n > 1 { i as f32 * (side - 1) as f32 / (n - 1) as f32 } else { 0.0 };
            let low = (x as usize).min(side - 1);
            (low, (low + 1).min(side - 1), x - low as f32)
        };
        let places = grid.positions(self.config.spatial_merge_size);
        let mut corners: [(Vec<u32>, Vec<f32>); 4] = Default::default();
        for &(row, column) in &places {
            let ((r0, r1, dr), (c0, c1, dc)) = (at(row, grid.height), at(column, grid.width));
            let weights = [(1.0 - dr) * (1.0 - dc), (1.0 - dr) * dc, dr * (1.0 - dc), dr * dc];
            for (k, (r, c)) in [(r0, c0), (r0, c1), (r1, c0), (r1, c1)].into_iter().enumerate() {
                corners[k].0.push((r * side + c) as u32);
                corners[k].1.push(weights[k]);
            }
        }
        let device = self.pos_embed.device();
        let mut sum: Option<Tensor> = None;
        for (index, weight) in corners {
            let index = Tensor::new(index, device)?;
            let weight = Tensor::new(weight, device)?.to_dtype(self.pos_embed.dtype())?.unsqueeze(1)?;
            let term = self.pos_embed.index_select(&index, 0)?.broadcast_mul(&weight)?;
            sum = Some(match sum {
                Some(sum) => (sum + term)?,
                None => term,
            });
        }
        sum.ok_or(Error::Input { what: "grid", expected: "patches".to_owned(), got: "none".to_owned() })
    }

    /// Half of a head's frequencies turn with the row, half with the column.
    fn rotary(&self, grid: Grid, batch: usize, device: &Device) -> Result<Rotary> {
        let head_dim = self.config.hidden_size / self.config.num_heads;
        let quarter = head_dim / 4;
        let inverse: Vec<f32> =
            (0..quarter).map(|i| ROPE_THETA.powf(-((2 * i) as f32) / (head_dim / 2) as f32)).collect();
        let places = grid.positions(self.config.spatial_merge_size);
        let mut angles = Vec::with_capacity(batch * places.len() * 2 * quarter);
        for _ in 0..batch {
            for &(row, column) in &places {
                angles.extend(inverse.iter().map(|f| row as f32 * f));
                angles.extend(inverse.iter().map(|f| column as f32 * f));
            }
        }
        Rotary::new(&angles, batch, places.len(), self.pos_embed.dtype(), device)
    }
}
