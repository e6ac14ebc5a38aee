//! DINOv2 whose later blocks attend across views, with rotary positions and camera tokens.

use anyhow::{Context, Result};
use candle_core::{D, Device, IndexOp, Module, Tensor};
use candle_nn::{Conv2d, Conv2dConfig, LayerNorm, Linear, VarBuilder, conv2d, layer_norm, linear};

use super::frames::{Taps, cubic};
use super::{Config, PATCH, Tap};

/// Of a block's norms in the backbone; every other norm has torch's default.
const BLOCK_EPS: f64 = 1e-6;
pub(super) const EPS: f64 = 1e-5;
const ROPE_BASE: f32 = 100.0;
/// Queries that attend at a time: five views have 4865 tokens, whose scores would take half a gigabyte.
const QUERIES: usize = 1024;
/// Fewest views among which a reference is chosen.
const CHOICE: usize = 3;
/// The position embedding is stretched as if to this much more than the grid, as DINOv2 was trained.
const POSITION_OFFSET: f64 = 0.1;

/// How the view is chosen that the world is laid into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reference {
    /// The first: the paper's benchmarks.
    First,
    /// The middle one: for films.
    Middle,
    /// The most ordinary one by its class token: the public default.
    SaddleBalanced,
}

impl Reference {
    /// # Shapes
    /// `class` `[s, d]`
    fn choose(self, class: &Tensor) -> Result<usize> {
        let s = class.dim(0)?;
        match self {
            Self::First => return Ok(0),
            Self::Middle => return Ok(s / 2),
            Self::SaddleBalanced => {}
        }
        let norm = class.sqr()?.sum_keepdim(1)?.sqrt()?;
        let unit = class.broadcast_div(&norm)?;
        let similarity = unit.matmul(&unit.t()?)?.sum(1)?;
        let mut score = vec![0f32; s];
        // Each metric between 0 and 1 over the views; wanted is the middle of all. Constants fall out.
        for metric in [similarity, norm.squeeze(1)?, unit.var(1)?] {
            let metric = metric.to_vec1::<f32>()?;
            let low = metric.iter().copied().fold(f32::INFINITY, f32::min);
            let high = metric.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            for (score, value) in score.iter_mut().zip(metric) {
                *score += ((value - low) / (high - low + 1e-8) - 0.5).abs();
            }
        }
        score.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1)).map(|(k, _)| k).context("no views")
    }
}

/// Rotary positions in two dimensions: half of a head turns with the row, half with the column.
pub(super) struct Rotary {
    row: (Tensor, Tensor), // cos, sin: [n, head / 4]
    column: (Tensor, Tensor),
}

impl Rotary {
    fn new(places: &[(usize, usize)], head: usize, device: &Device) -> Result<Self> {
        let quarter = head / 4;
        let table = |axis: &dyn Fn(&(usize, usize)) -> usize| -> Result<(Tensor, Tensor)> {
            let frequency = |i: usize| ROPE_BASE.powf(-((2 * i) as f32) / (head / 2) as f32);
            let angle = |place| (0..quarter).map(move |i| axis(place) as f32 * frequency(i));
            let angles: Vec<f32> = places.iter().flat_map(angle).collect();
            let angles = Tensor::from_vec(angles, (places.len(), quarter), device)?;
            Ok((angles.cos()?, angles.sin()?))
        };
        Ok(Self { row: table(&|place| place.0)?, column: table(&|place| place.1)? })
    }

    /// # Shapes
    /// `[b, h, n, e] -> [b, h, n, e]`
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let half = x.dim(D::Minus1)? / 2;
        let turn = |first: usize, (cos, sin): &(Tensor, Tensor)| {
            candle_nn::rotary_emb::rope(&x.narrow(D::Minus1, first, half)?.contiguous()?, cos, sin)
        };
        Ok(Tensor::cat(&[turn(0, &self.row)?, turn(half, &self.column)?], D::Minus1)?)
    }
}

/// A transformer block as the backbone and the camera encoder have it.
#[derive(Debug, Clone)]
pub(super) struct Block {
    norm1: LayerNorm,
    qkv: Linear,
    query_key: Option<(LayerNorm, LayerNorm)>,
    proj: Linear,
    scale1: Tensor,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    scale2: Tensor,
    heads: usize,
}

impl Block {
    pub(super) fn new(d: usize, heads: usize, eps: f64, query_key: bool, vb: &VarBuilder<'_>) -> Result<Self> {
        let (attn, mlp) = (vb.pp("attn"), vb.pp("mlp"));
        let head = d / heads;
        let pair = || -> Result<_> {
            Ok((layer_norm(head, EPS, attn.pp("q_norm"))?, layer_norm(head, EPS, attn.pp("k_norm"))?))
        };
        Ok(Self {
            norm1: layer_norm(d, eps, vb.pp("norm1"))?,
            qkv: linear(d, 3 * d, attn.pp("qkv"))?,
            query_key: query_key.then(pair).transpose()?,
            proj: linear(d, d, attn.pp("proj"))?,
            scale1: vb.get(d, "ls1.gamma")?,
            norm2: layer_norm(d, eps, vb.pp("norm2"))?,
            fc1: linear(d, 4 * d, mlp.pp("fc1"))?,
            fc2: linear(4 * d, d, mlp.pp("fc2"))?,
            scale2: vb.get(d, "ls2.gamma")?,
            heads,
        })
    }

    /// # Shapes
    /// `[b, n, d] -> [b, n, d]`
    pub(super) fn forward(&self, x: &Tensor, rotary: Option<&Rotary>) -> Result<Tensor> {
        let x = (x + self.attention(&self.norm1.forward(x)?, rotary)?.broadcast_mul(&self.scale1)?)?;
        let hidden = self.fc1.forward(&self.norm2.forward(&x)?)?.gelu_erf()?;
        Ok((&x + self.fc2.forward(&hidden)?.broadcast_mul(&self.scale2)?)?)
    }

    fn attention(&self, x: &Tensor, rotary: Option<&Rotary>) -> Result<Tensor> {
        let (b, n, d) = x.dims3()?;
        let e = d / self.heads;
        let qkv = self.qkv.forward(x)?.reshape((b, n, 3, self.heads, e))?.permute((2, 0, 3, 1, 4))?; // [3, b, h, n, e]
        let (mut q, mut k, v) = (qkv.i(0)?.contiguous()?, qkv.i(1)?.contiguous()?, qkv.i(2)?.contiguous()?);
        if let Some((query, key)) = &self.query_key {
            (q, k) = (query.forward(&q)?, key.forward(&k)?);
        }
        if let Some(rotary) = rotary {
            (q, k) = (rotary.apply(&q)?, rotary.apply(&k)?);
        }
        let keys = (k.t()?.contiguous()? / (e as f64).sqrt())?;
        let part = |first: usize| {
            let q = q.narrow(2, first, QUERIES.min(n - first))?.contiguous()?;
            candle_nn::ops::softmax_last_dim(&q.matmul(&keys)?)?.matmul(&v)
        };
        let parts = (0..n).step_by(QUERIES).map(part).collect::<candle_core::Result<Vec<_>>>()?;
        let mixed = Tensor::cat(&parts, 2)?.transpose(1, 2)?.reshape((b, n, d))?;
        Ok(self.proj.forward(&mixed)?)
    }
}

/// What the backbone hands to the heads, views in the order of the input.
pub(super) struct Seen {
    /// Four of `[s, patches, 2 d]`.
    pub(super) features: Vec<Tensor>,
    /// `[s, 2 d]`, not normalized.
    pub(super) camera: Tensor,
    /// The view that got the reference's token.
    pub(super) reference: usize,
}

#[derive(Debug, Clone)]
pub(super) struct Backbone {
    config: Config,
    patch_embed: Conv2d,
    class: Tensor,     // [1, 1, d]
    camera: Tensor,    // [1, 2, d]: of the reference, of the others
    positions: Tensor, // [1, 1 + side^2, d]
    blocks: Vec<Block>,
    norm: LayerNorm,
}

impl Backbone {
    pub(super) fn new(config: &Config, vb: &VarBuilder<'_>) -> Result<Self> {
        let c = config;
        let (d, side) = (c.embed_dim, c.image_size / PATCH);
        let stride = Conv2dConfig { stride: PATCH, ..Default::default() };
        let block = |i| Block::new(d, c.num_heads, BLOCK_EPS, i >= c.qknorm_start, &vb.pp("blocks").pp(i));
        Ok(Self {
            patch_embed: conv2d(3, d, PATCH, stride, vb.pp("patch_embed").pp("proj"))?,
            class: vb.get((1, 1, d), "cls_token")?,
            camera: vb.get((1, 2, d), "camera_token")?,
            positions: vb.get((1, 1 + side * side, d), "pos_embed")?,
            blocks: (0..c.depth).map(block).collect::<Result<_>>()?,
            norm: layer_norm(d, EPS, vb.pp("norm"))?,
            config: c.clone(),
        })
    }

    pub(super) fn device(&self) -> &Device {
        self.class.device()
    }

    /// # Shapes
    /// `pixels` `[s, 3, h, w]`, `cameras` `[s, d]`
    pub(super) fn forward(
        &self,
        pixels: &Tensor,
        cameras: Option<&Tensor>,
        strategy: Reference,
        tap: &mut Tap<'_>,
    ) -> Result<Seen> {
        let c = &self.config;
        let (s, _, height, width) = pixels.dims4()?;
        let (rows, columns) = (height / PATCH, width / PATCH);
        let (n, d, head) = (1 + rows * columns, c.embed_dim, c.embed_dim / c.num_heads);
        let device = pixels.device();
        let class = std::iter::once((0, 0));
        let grid = (0..rows * columns).map(|i| (1 + i / columns, 1 + i % columns));
        let within = Rotary::new(&class.clone().chain(grid).collect::<Vec<_>>(), head, device)?;
        // Across views patches have one place only: no row or column, but still another place than the camera token.
        let flat: Vec<_> = class.chain(std::iter::repeat_n((1, 1), n - 1)).collect();
        let across = Rotary::new(&flat.repeat(s), head, device)?;

        let mut x = self.tokens(pixels, tap)?;
        let mut local = x.clone();
        let mut reference = 0;
        let mut features = Vec::with_capacity(c.out_layers.len());
        let mut camera = None;
        for (i, block) in self.blocks.iter().enumerate() {
            if i + 1 == c.alt_start && s >= CHOICE && cameras.is_none() {
                reference = strategy.choose(&x.i((.., 0))?)?;
                let order = std::iter::once(reference).chain((0..s).filter(|&k| k != reference));
                x = x.index_select(&index(order, device)?, 0)?;
            }
            if i == c.alt_start {
                let first = match cameras {
                    Some(cameras) => cameras.unsqueeze(1)?,
                    None => {
                        let row = |k: usize| usize::from(k > 0);
                        self.camera.squeeze(0)?.index_select(&index((0..s).map(row), device)?, 0)?.unsqueeze(1)?
                    }
                };
                x = Tensor::cat(&[first, x.narrow(1, 1, n - 1)?.contiguous()?], 1)?;
            }
            let turned = i >= c.rope_start;
            if i >= c.alt_start && i % 2 == 1 {
                x = block.forward(&x.reshape((1, s * n, d))?, turned.then_some(&across))?.reshape((s, n, d))?;
            } else {
                x = block.forward(&x, turned.then_some(&within))?;
                local = x.clone();
            }
            tap(&format!("block_{i}"), &x);
            if c.out_layers.contains(&i) {
                // Back to the order of the input: who was before the reference moved one place back.
                let place = |k: usize| if k == reference { 0 } else { k + usize::from(k < reference) };
                let back = index((0..s).map(place), device)?;
                let (local, x) = (local.index_select(&back, 0)?, x.index_select(&back, 0)?);
                camera = Some(Tensor::cat(&[local.i((.., 0))?, x.i((.., 0))?], 1)?.contiguous()?);
                let patches = |x: &Tensor| x.narrow(1, 1, n - 1)?.contiguous();
                // The final norm is for the second half alone.
                let feature = Tensor::cat(&[patches(&local)?, self.norm.forward(&patches(&x)?)?], 2)?;
                tap(&format!("feature_{}", features.len()), &feature);
                features.push(feature);
            }
        }
        let camera = camera.context("no layer is read")?;
        tap("camera", &camera);
        Ok(Seen { features, camera, reference })
    }

    /// `[s, 3, h, w] -> [s, 1 + patches, d]`
    fn tokens(&self, pixels: &Tensor, tap: &mut Tap<'_>) -> Result<Tensor> {
        let (s, _, height, width) = pixels.dims4()?;
        let x = self.patch_embed.forward(pixels)?.flatten_from(2)?.transpose(1, 2)?.contiguous()?;
        tap("patch_embed", &x);
        let class = self.class.broadcast_as((s, 1, self.config.embed_dim))?;
        let x = Tensor::cat(&[class, x], 1)?.broadcast_add(&self.positions(height / PATCH, width / PATCH)?)?;
        tap("tokens", &x);
        Ok(x)
    }

    /// The learned grid stretched to `rows` x `columns`, bicubic, and the class token's in front: `[1, n, d]`.
    fn positions(&self, rows: usize, columns: usize) -> Result<Tensor> {
        let (side, d) = (self.config.image_size / PATCH, self.config.embed_dim);
        if rows == side && columns == side {
            return Ok(self.positions.clone());
        }
        let stretch = |n: usize| -> Result<Tensor> {
            let taps = cubic(side, n, side as f64 / (n as f64 + POSITION_OFFSET));
            matrix(&taps, side, self.device())
        };
        let grid = self.positions.narrow(1, 1, side * side)?.contiguous()?;
        let grid = stretch(rows)?.matmul(&grid.reshape((side, side * d))?)?.reshape((rows, side, d))?;
        let grid = stretch(columns)?.unsqueeze(0)?.broadcast_matmul(&grid)?.reshape((1, rows * columns, d))?;
        Ok(Tensor::cat(&[self.positions.narrow(1, 0, 1)?, grid], 1)?)
    }
}

/// Weighted sums as a matrix `[out, input]`.
fn matrix(taps: &[Taps], input: usize, device: &Device) -> Result<Tensor> {
    let mut values = vec![0f32; taps.len() * input];
    for (row, taps) in values.chunks_mut(input).zip(taps) {
        for &(column, weight) in taps {
            row[column] += weight;
        }
    }
    Ok(Tensor::from_vec(values, (taps.len(), input), device)?)
}

fn index(order: impl Iterator<Item = usize>, device: &Device) -> Result<Tensor> {
    Ok(Tensor::new(order.map(|k| k as u32).collect::<Vec<_>>(), device)?)
}
