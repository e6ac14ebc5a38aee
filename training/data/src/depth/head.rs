//! The dual DPT: four levels of features into a depth map, and by a chain of its own into a ray map.

use anyhow::{Context, Result, ensure};
use candle_core::{Device, IndexOp, Module, Tensor};
use candle_nn::{
    Conv2d, Conv2dConfig, ConvTranspose2d, ConvTranspose2dConfig, LayerNorm, VarBuilder, conv_transpose2d, conv2d,
    conv2d_no_bias, layer_norm,
};

use super::backbone::EPS;
use super::{Config, PATCH, Tap};

/// Channels before the last convolution.
const LAST: usize = 32;
const DEPTH: usize = 2; // and confidence
const RAY: usize = 7; // direction, origin, confidence
/// Weight of the sine positions, and their base.
const POSITION_RATIO: f64 = 0.1;
const POSITION_BASE: f32 = 100.0;

fn same(input: usize, output: usize, vb: VarBuilder<'_>) -> candle_core::Result<Conv2d> {
    conv2d(input, output, 3, Conv2dConfig { padding: 1, ..Default::default() }, vb)
}

fn up(channels: usize, times: usize, vb: VarBuilder<'_>) -> candle_core::Result<ConvTranspose2d> {
    conv_transpose2d(channels, channels, times, ConvTranspose2dConfig { stride: times, ..Default::default() }, vb)
}

/// Two convolutions beside the identity.
#[derive(Debug, Clone)]
struct Residual(Conv2d, Conv2d);

impl Residual {
    fn new(features: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        Ok(Self(same(features, features, vb.pp("conv1"))?, same(features, features, vb.pp("conv2"))?))
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok((self.1.forward(&self.0.forward(&x.relu()?)?.relu()?)? + x)?)
    }
}

/// Joins a level with the coarser ones and brings them to the next size.
#[derive(Debug, Clone)]
struct Fusion {
    lateral: Option<Residual>,
    own: Residual,
    out: Conv2d,
}

impl Fusion {
    fn new(features: usize, lateral: bool, vb: &VarBuilder<'_>) -> Result<Self> {
        let lateral = lateral.then(|| Residual::new(features, &vb.pp("resConfUnit1"))).transpose()?;
        let own = Residual::new(features, &vb.pp("resConfUnit2"))?;
        Ok(Self { lateral, own, out: conv2d(features, features, 1, Conv2dConfig::default(), vb.pp("out_conv"))? })
    }

    fn forward(&self, coarser: Option<&Tensor>, level: &Tensor, (h, w): (usize, usize)) -> Result<Tensor> {
        let x = match (coarser, &self.lateral) {
            (Some(coarser), Some(lateral)) => (coarser + lateral.forward(level)?)?,
            _ => level.clone(),
        };
        Ok(self.out.forward(&self.own.forward(&x)?.upsample_bilinear2d(h, w, true)?)?)
    }
}

/// From the four levels to one map.
#[derive(Debug, Clone)]
struct Chain {
    fusions: Vec<Fusion>, // finest first
    neck: Vec<Conv2d>,
    hidden: Conv2d,
    norm: Option<LayerNorm>,
    out: Conv2d,
}

impl Chain {
    fn depth(features: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let out = vb.pp("output_conv2");
        Ok(Self {
            fusions: Self::fusions(features, "", vb)?,
            neck: vec![same(features, features / 2, vb.pp("output_conv1"))?],
            hidden: same(features / 2, LAST, out.pp(0))?,
            norm: None,
            out: conv2d(LAST, DEPTH, 1, Conv2dConfig::default(), out.pp(2))?,
        })
    }

    fn ray(features: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let (neck, out) = (vb.pp("output_conv1_aux").pp(3), vb.pp("output_conv2_aux"));
        // Five convolutions in a row, narrow and wide by turns. The coarser levels' outputs are never computed.
        let width = |i: usize| if i.is_multiple_of(2) { features } else { features / 2 };
        Ok(Self {
            fusions: Self::fusions(features, "_aux", vb)?,
            neck: (0..5).map(|i| same(width(i), width(i + 1), neck.pp(i))).collect::<candle_core::Result<_>>()?,
            hidden: same(features / 2, LAST, out.pp(3).pp(0))?,
            // One norm serves all levels; the file has it under the first.
            norm: Some(layer_norm(LAST, EPS, out.pp(0).pp(2))?),
            out: conv2d(LAST, RAY, 1, Conv2dConfig::default(), out.pp(3).pp(5))?,
        })
    }

    fn fusions(features: usize, suffix: &str, vb: &VarBuilder<'_>) -> Result<Vec<Fusion>> {
        (1..=4).map(|k| Fusion::new(features, k < 4, &vb.pp(format!("refinenet{k}{suffix}")))).collect()
    }

    /// All levels at twice the finest one's size.
    fn fuse(&self, levels: &[Tensor]) -> Result<Tensor> {
        let mut x: Option<Tensor> = None;
        for k in (0..levels.len()).rev() {
            let (_, _, h, w) = levels[k.saturating_sub(1)].dims4()?;
            let size = if k == 0 { (2 * h, 2 * w) } else { (h, w) };
            x = Some(self.fusions[k].forward(x.as_ref(), &levels[k], size)?);
        }
        let x = x.context("no levels")?;
        Ok(self.neck.iter().try_fold(x, |x, conv| conv.forward(&x))?)
    }

    fn answer(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = self.hidden.forward(x)?;
        if let Some(norm) = &self.norm {
            let last = x.permute((0, 2, 3, 1))?.contiguous()?;
            x = norm.forward(&last)?.permute((0, 3, 1, 2))?.contiguous()?;
        }
        Ok(self.out.forward(&x.relu()?)?)
    }
}

#[derive(Debug, Clone)]
pub(super) struct Head {
    norm: LayerNorm,
    projects: Vec<Conv2d>,
    up: (ConvTranspose2d, ConvTranspose2d),
    down: Conv2d,
    adapters: Vec<Conv2d>,
    depth: Chain,
    ray: Chain,
}

impl Head {
    pub(super) fn new(config: &Config, vb: &VarBuilder<'_>) -> Result<Self> {
        let (d, features, c) = (2 * config.embed_dim, config.features, &config.out_channels);
        ensure!(c.len() == 4, "out_channels: expected four, got {}", c.len());
        ensure!(c.iter().chain([&(features / 2)]).all(|c| c.is_multiple_of(4)), "channels: not multiples of 4");
        let (projects, resize, scratch) = (vb.pp("projects"), vb.pp("resize_layers"), vb.pp("scratch"));
        let padded = Conv2dConfig { padding: 1, ..Default::default() };
        let halve = Conv2dConfig { stride: 2, ..padded };
        let project = |k: usize| conv2d(d, c[k], 1, Conv2dConfig::default(), projects.pp(k));
        let adapter = |k: usize| conv2d_no_bias(c[k], features, 3, padded, scratch.pp(format!("layer{}_rn", k + 1)));
        Ok(Self {
            norm: layer_norm(d, EPS, vb.pp("norm"))?,
            projects: (0..4).map(project).collect::<candle_core::Result<_>>()?,
            up: (up(c[0], 4, resize.pp(0))?, up(c[1], 2, resize.pp(1))?),
            down: conv2d(c[3], c[3], 3, halve, resize.pp(3))?,
            adapters: (0..4).map(adapter).collect::<candle_core::Result<_>>()?,
            depth: Chain::depth(features, &scratch)?,
            ray: Chain::ray(features, &scratch)?,
        })
    }

    /// Depth and confidence.
    ///
    /// # Shapes
    /// four of `[b, patches, 2 d] -> [b, h, w]` twice
    pub(super) fn forward(
        &self,
        features: &[Tensor],
        (h, w): (usize, usize),
        tap: &mut Tap<'_>,
    ) -> Result<(Tensor, Tensor)> {
        let fused = self.depth.fuse(&self.levels(features, (h, w), tap)?)?;
        tap("fused", &fused);
        let x = self.depth.answer(&positioned(&fused.upsample_bilinear2d(h, w, true)?, (h, w))?)?;
        Ok((x.i((.., 0))?.exp()?, (x.i((.., 1))?.exp()? + 1.0)?))
    }

    /// Rays and confidence.
    ///
    /// # Shapes
    /// four of `[b, patches, 2 d] -> [b, 8 rows, 8 columns, 6]` and without the last dimension
    pub(super) fn rays(
        &self,
        features: &[Tensor],
        (h, w): (usize, usize),
        tap: &mut Tap<'_>,
    ) -> Result<(Tensor, Tensor)> {
        let fused = self.ray.fuse(&self.levels(features, (h, w), &mut |_, _| {})?)?;
        tap("fused_ray", &fused);
        let x = self.ray.answer(&positioned(&fused, (h, w))?)?.permute((0, 2, 3, 1))?;
        Ok((x.i((.., .., .., ..RAY - 1))?, (x.i((.., .., .., RAY - 1))?.exp()? + 1.0)?))
    }

    /// Four, twice, once and half as fine as the patches.
    fn levels(&self, features: &[Tensor], (h, w): (usize, usize), tap: &mut Tap<'_>) -> Result<Vec<Tensor>> {
        let mut levels = Vec::with_capacity(features.len());
        for (k, feature) in features.iter().enumerate() {
            let (b, _, d) = feature.dims3()?;
            let x = self.norm.forward(&feature.contiguous()?)?.transpose(1, 2)?;
            let x = self.projects[k].forward(&x.reshape((b, d, h / PATCH, w / PATCH))?)?;
            let x = positioned(&x, (h, w))?;
            let x = match k {
                0 => self.up.0.forward(&x)?,
                1 => self.up.1.forward(&x)?,
                2 => x,
                _ => self.down.forward(&x)?,
            };
            let level = self.adapters[k].forward(&x)?;
            tap(&format!("level_{k}"), &level);
            levels.push(level);
        }
        Ok(levels)
    }
}

/// Adds sines of each pixel's place in an image of `h` x `w`, whose half diagonal is one; half of the channels go with
/// the column, half with the row.
fn positioned(x: &Tensor, (h, w): (usize, usize)) -> Result<Tensor> {
    let (_, channels, rows, columns) = x.dims4()?;
    let half = channels / 2;
    let diagonal = (h as f32).hypot(w as f32);
    let sines = |n: usize, span: f32, device: &Device| -> Result<Tensor> {
        let place = |i: usize| span * (2 * i + 1) as f32 / n as f32 - span;
        let frequency = |j: usize| POSITION_BASE.powf(-(j as f32) / (half / 2) as f32);
        let angles = (0..half / 2).flat_map(|j| (0..n).map(move |i| place(i) * frequency(j)));
        let angles = Tensor::from_vec(angles.collect::<Vec<_>>(), (half / 2, n), device)?;
        Ok((Tensor::cat(&[angles.sin()?, angles.cos()?], 0)? * POSITION_RATIO)?)
    };
    let across = sines(columns, w as f32 / diagonal, x.device())?.reshape((1, half, 1, columns))?;
    let down = sines(rows, h as f32 / diagonal, x.device())?.reshape((1, half, rows, 1))?;
    let shape = (1, half, rows, columns);
    Ok(x.broadcast_add(&Tensor::cat(&[across.broadcast_as(shape)?, down.broadcast_as(shape)?], 1)?)?)
}
