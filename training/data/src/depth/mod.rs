//! Depth Anything 3 SMALL (Lin et al. 2025, arXiv 2511.10647): depth, confidence, poses and intrinsics of a few frames
//! in one pass, from the published weights (`depth-anything/DA3-SMALL`, Apache-2.0). Float32, inference only.
//!
//! Depth is z-depth in a unit of the window's own. Where poses are given the network reads them, and depth comes back
//! in their unit. Left out: poses from the ray map, Gaussians, the metric and mono models.

mod backbone;
mod camera;
mod frames;
mod head;

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device, IndexOp, Tensor};
use candle_nn::VarBuilder;
use geometry::{Anchor, Camera, Intrinsics, Transform, World};
use image::RgbImage;
use serde::{Deserialize, Serialize};

pub use backbone::Reference;
pub use camera::{ENCODING, decode, encode, scale};
pub use frames::{LONGEST_SIDE, PATCH, processed, resized};

/// Shown intermediate tensors by name, for comparisons with the public implementation.
pub type Tap<'a> = dyn FnMut(&str, &Tensor) + 'a;

/// Sizes of a Depth Anything 3 of DA3-SMALL's kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Side of the square that the position embedding was trained on, pixels.
    pub image_size: usize,
    /// Width of a token.
    pub embed_dim: usize,
    /// Blocks.
    pub depth: usize,
    /// Heads of a block.
    pub num_heads: usize,
    /// Blocks that the heads read, four.
    pub out_layers: Vec<usize>,
    /// First block after the camera tokens came in; from here on the odd ones attend across views.
    pub alt_start: usize,
    /// First block that normalizes queries and keys.
    pub qknorm_start: usize,
    /// First block with rotary positions.
    pub rope_start: usize,
    /// Channels of the fusion chains.
    pub features: usize,
    /// Channels of the four levels before.
    pub out_channels: Vec<usize>,
    /// Heads of the camera encoder.
    pub camera_heads: usize,
}

impl Config {
    /// DA3-SMALL: 34.3 million parameters.
    pub fn small() -> Self {
        Self {
            image_size: 518,
            embed_dim: 384,
            depth: 12,
            num_heads: 6,
            out_layers: vec![5, 7, 9, 11],
            alt_start: 4,
            qknorm_start: 4,
            rope_start: 4,
            features: 64,
            out_channels: vec![48, 96, 192, 384],
            camera_heads: 16,
        }
    }
}

/// A camera that is known before.
#[derive(Debug, Clone, Copy)]
pub struct Given {
    /// Pose, in any world.
    pub world_from_camera: Transform<World, Camera>,
    /// Of the frame as it is handed over.
    pub intrinsics: Intrinsics,
}

/// What the network says of one frame.
#[derive(Debug, Clone)]
pub struct View {
    /// z-depth of each pixel, row after row.
    pub depth: Vec<f32>,
    /// How sure, at least 1; only comparable within a window.
    pub confidence: Vec<f32>,
    /// Pose: the given one, or the predicted in the window's own world, near the reference camera.
    pub world_from_camera: Transform<World, Camera>,
    /// Of the depth map, whose size is in it.
    pub intrinsics: Intrinsics,
}

/// What the network says of a window.
#[derive(Debug, Clone)]
pub struct Prediction {
    /// One a frame.
    pub views: Vec<View>,
    /// Units of the network in one unit of the given poses; depth is divided by it already.
    pub scale: Option<f64>,
}

impl Prediction {
    /// Poses relative to frame 0, whatever the network chose as its world.
    pub fn anchored(&self) -> Vec<Transform<Anchor, Camera>> {
        let Some(first) = self.views.first() else { return Vec::new() };
        let first = first.world_from_camera.inverse();
        self.views.iter().map(|view| (first * view.world_from_camera).relabel()).collect()
    }
}

/// The network's outputs before anything is made of them.
#[derive(Debug, Clone)]
pub struct Raw {
    /// `[s, h, w]`
    pub depth: Tensor,
    /// `[s, h, w]`
    pub confidence: Tensor,
    /// `[s, 9]`: see [`decode`].
    pub encodings: Tensor,
    /// The view that the world was laid into.
    pub reference: usize,
}

/// The network.
#[derive(Debug, Clone)]
pub struct DepthAnything {
    backbone: backbone::Backbone,
    head: head::Head,
    encoder: camera::Encoder,
    decoder: camera::Decoder,
    /// Longest side that frames are resized to; less is faster and coarser.
    pub longest_side: usize,
    /// How the reference view is chosen where there are three or more and no poses.
    pub reference: Reference,
}

impl DepthAnything {
    /// Reads DA3-SMALL from its folder, or from `model.safetensors` itself.
    ///
    /// # Errors
    /// A file that can't be read; a tensor that is missing or has another shape.
    pub fn load(path: &Path, device: &Device) -> Result<Self> {
        let file = if path.is_dir() { path.join("model.safetensors") } else { path.to_owned() };
        let read = || -> Result<Self> {
            let vb = VarBuilder::from_buffered_safetensors(std::fs::read(&file)?, DType::F32, device)?;
            Self::new(&Config::small(), vb.pp("model"))
        };
        read().with_context(|| file.display().to_string())
    }

    /// From tensors below the published files' `model.`.
    ///
    /// # Errors
    /// A tensor that is missing or has another shape; a config that contradicts itself.
    pub fn new(config: &Config, vb: VarBuilder<'_>) -> Result<Self> {
        let c = config;
        let [a, b, e, f] = c.out_layers[..] else { bail!("out_layers: expected four, got {}", c.out_layers.len()) };
        ensure!(a < b && b < e && e < f && f < c.depth, "out_layers: {:?} of {} blocks", c.out_layers, c.depth);
        for (heads, part) in [(c.num_heads, 4), (c.camera_heads, 1)] {
            let fits = heads > 0 && c.embed_dim.is_multiple_of(part * heads);
            ensure!(fits, "embed_dim: expected a multiple of {part} x {heads} heads, got {}", c.embed_dim);
        }
        ensure!(c.image_size >= PATCH, "image_size: expected {PATCH} or more, got {}", c.image_size);
        Ok(Self {
            backbone: backbone::Backbone::new(c, &vb.pp("backbone").pp("pretrained"))?,
            head: head::Head::new(c, &vb.pp("head"))?,
            encoder: camera::Encoder::new(c, &vb.pp("cam_enc"))?,
            decoder: camera::Decoder::new(2 * c.embed_dim, &vb.pp("cam_dec"))?,
            longest_side: LONGEST_SIDE,
            reference: Reference::SaddleBalanced,
        })
    }

    /// Depth and cameras of frames of one size, jointly.
    ///
    /// # Errors
    /// No frames, or of different sizes; poses of which no scale can be had; a network that says what is no number.
    pub fn infer(&self, frames: &[RgbImage], given: Option<&[Given]>) -> Result<Prediction> {
        let pixels = processed(frames, self.longest_side, self.backbone.device())?;
        let (_, _, height, width) = pixels.dims4()?;
        let size = (u32::try_from(height)?, u32::try_from(width)?);
        let given: Option<Vec<Given>> = given.map(|given| {
            let rescale = |g: &Given| Given { intrinsics: g.intrinsics.rescale(size.1, size.0), ..*g };
            given.iter().map(rescale).collect()
        });
        let raw = self.forward(&pixels, given.as_deref(), &mut |_, _| {})?;
        let cameras = raw.encodings.to_vec2::<f32>()?;
        let cameras = cameras.iter().map(|encoding| decode(encoding, size.0, size.1)).collect::<Result<Vec<_>>>()?;
        let scale = given.as_deref().map(|given| scale(given, &cameras)).transpose()?;
        let depth = if let Some(scale) = scale { (raw.depth / scale)? } else { raw.depth };
        let view = |k: usize| -> Result<View> {
            let (world_from_camera, intrinsics) =
                given.as_ref().map_or(cameras[k], |given| (given[k].world_from_camera, given[k].intrinsics));
            Ok(View {
                depth: depth.i(k)?.flatten_all()?.to_vec1()?,
                confidence: raw.confidence.i(k)?.flatten_all()?.to_vec1()?,
                world_from_camera,
                intrinsics,
            })
        };
        Ok(Prediction { views: (0..cameras.len()).map(view).collect::<Result<_>>()?, scale })
    }

    /// The network alone.
    ///
    /// # Shapes
    /// `pixels` `[s, 3, h, w]`, normalized, sides multiples of [`PATCH`]; intrinsics of `given` belong to that size
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward(&self, pixels: &Tensor, given: Option<&[Given]>, tap: &mut Tap<'_>) -> Result<Raw> {
        let (s, channels, height, width) = pixels.dims4()?;
        ensure!(
            s > 0 && channels == 3 && height.is_multiple_of(PATCH) && width.is_multiple_of(PATCH) && height * width > 0,
            "pixels: expected [s, 3, {PATCH} m, {PATCH} n], got {:?}",
            pixels.dims()
        );
        let tokens = match given {
            Some(given) => {
                ensure!(given.len() == s, "given cameras: expected {s}, got {}", given.len());
                let encodings = encode(given).concat();
                let encodings = Tensor::from_vec(encodings, (s, ENCODING), pixels.device())?;
                Some(self.encoder.forward(&encodings, tap)?)
            }
            None => None,
        };
        let seen = self.backbone.forward(pixels, tokens.as_ref(), self.reference, tap)?;
        let encodings = self.decoder.forward(&seen.camera)?;
        tap("pose_encoding", &encodings);
        // One view at a time: all five gain nothing but memory.
        let mut maps = Vec::with_capacity(s);
        for k in 0..s {
            let features = seen.features.iter().map(|f| f.narrow(0, k, 1)).collect::<candle_core::Result<Vec<_>>>()?;
            maps.push(self.head.forward(&features, (height, width), tap)?);
        }
        let (depth, confidence): (Vec<_>, Vec<_>) = maps.into_iter().unzip();
        Ok(Raw {
            depth: Tensor::cat(&depth, 0)?,
            confidence: Tensor::cat(&confidence, 0)?,
            encodings,
            reference: seen.reference,
        })
    }

    /// The second answer of the head, which the public API only uses for its slower poses: eight by eight rays a patch
    /// (direction and origin in the world), `[s, 8 h / 14, 8 w / 14, 6]`, and their confidence `[s, ..]`.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn rays(&self, pixels: &Tensor, tap: &mut Tap<'_>) -> Result<(Tensor, Tensor)> {
        let (_, _, height, width) = pixels.dims4()?;
        let seen = self.backbone.forward(pixels, None, self.reference, &mut |_, _| {})?;
        self.head.rays(&seen.features, (height, width), tap)
    }
}
