//! Cameras into tokens and out of them.
//!
//! Both ways a camera is nine numbers: translation, quaternion (x, y, z, w) and field of view (vertical, horizontal,
//! radians) of camera-to-world, although the public API speaks of world-to-camera. The principal point is the middle of
//! the image.

use anyhow::{Context, Result, ensure};
use candle_core::{Module, Tensor};
use candle_nn::{LayerNorm, Linear, VarBuilder, layer_norm, linear};
use geometry::{Camera, Intrinsics, Transform, World};
use nalgebra::{Isometry3, Point3, Quaternion, Translation3, UnitQuaternion, Vector3};

use super::backbone::{Block, EPS};
use super::{Config, Given, Tap};

/// Numbers of a camera.
pub const ENCODING: usize = 9;
const TRUNK: usize = 4;
/// Least median distance that given cameras are brought to one by, in their unit.
const LEAST_DISTANCE: f64 = 0.1;
const LEAST_TANGENT: f64 = 1e-6;

/// What the encoder reads of given cameras: relative to the first, and with a median distance of one.
pub fn encode(given: &[Given]) -> Vec<[f32; ENCODING]> {
    let Some(first) = given.first() else { return Vec::new() };
    let first = first.world_from_camera.isometry().inverse();
    let relative: Vec<Isometry3<f64>> = given.iter().map(|g| first * g.world_from_camera.isometry()).collect();
    let mut distances: Vec<f64> = relative.iter().map(|pose| pose.translation.vector.norm()).collect();
    distances.sort_by(f64::total_cmp);
    let unit = distances[(distances.len() - 1) / 2].max(LEAST_DISTANCE); // torch's median: the lower one
    relative
        .iter()
        .zip(given)
        .map(|(pose, Given { intrinsics, .. })| {
            let [x, y, z]: [f64; 3] = (pose.translation.vector / unit).into();
            let [i, j, k, w]: [f64; 4] = pose.rotation.coords.into();
            let sign = if w < 0.0 { -1.0 } else { 1.0 };
            let fov = |side: u32, focal: f64| 2.0 * (f64::from(side) / 2.0 / focal).atan();
            let (vertical, horizontal) = (fov(intrinsics.height, intrinsics.fy), fov(intrinsics.width, intrinsics.fx));
            [x, y, z, sign * i, sign * j, sign * k, sign * w, vertical, horizontal].map(|value| value as f32)
        })
        .collect()
}

/// The camera that nine numbers stand for.
///
/// # Errors
/// Another count, no number, or a quaternion of zero.
pub fn decode(encoding: &[f32], height: u32, width: u32) -> Result<(Transform<World, Camera>, Intrinsics)> {
    let encoding: [f32; ENCODING] = encoding.try_into().context("encoding of a camera")?;
    let [x, y, z, i, j, k, w, vertical, horizontal] = encoding.map(f64::from);
    let rotation = UnitQuaternion::try_new(Quaternion::new(w, i, j, k), f64::from(f32::MIN_POSITIVE));
    let rotation = rotation.filter(|_| encoding.iter().all(|value| value.is_finite()));
    let rotation = rotation.with_context(|| format!("no camera: {encoding:?}"))?;
    let pose = Isometry3::from_parts(Translation3::from(Vector3::new(x, y, z)), rotation);
    let focal = |side: u32, fov: f64| f64::from(side) / 2.0 / (fov / 2.0).tan().max(LEAST_TANGENT);
    // The middle of the image, counted from the first pixel's centre.
    let middle = |side: u32| f64::from(side) / 2.0 - 0.5;
    let (fx, fy) = (focal(width, horizontal), focal(height, vertical));
    let intrinsics = Intrinsics::new(fx, fy, middle(width), middle(height), width, height)?;
    Ok((Transform::from_isometry_unchecked(pose), intrinsics))
}

/// Units of the network in one unit of the given cameras.
///
/// The public way is a similarity of the camera centres (Umeyama), which a walk straight ahead does not determine. Then
/// the first camera's orientation, known on both sides, stands in for it.
///
/// # Errors
/// Other counts; cameras that do not move, or that move the other way.
pub fn scale(given: &[Given], predicted: &[(Transform<World, Camera>, Intrinsics)]) -> Result<f64> {
    ensure!(!given.is_empty() && given.len() == predicted.len(), "cameras: {} and {}", given.len(), predicted.len());
    let given: Vec<_> = given.iter().map(|g| g.world_from_camera).collect();
    let predicted: Vec<_> = predicted.iter().map(|(pose, _)| *pose).collect();
    let centres = |poses: &[Transform<World, Camera>]| poses.iter().map(Transform::origin).collect::<Vec<_>>();
    if let Ok(similarity) = geometry::umeyama(&centres(&given), &centres(&predicted)) {
        return Ok(similarity.scale);
    }
    let anchored = |poses: &[Transform<World, Camera>]| -> Vec<Vector3<f64>> {
        let first = poses[0].isometry().inverse();
        centres(poses).iter().map(|centre: &Point3<f64>| (first * centre).coords).collect()
    };
    let (from, to) = (anchored(&given), anchored(&predicted));
    let reach: f64 = from.iter().map(Vector3::norm_squared).sum();
    let scale = from.iter().zip(&to).map(|(from, to)| from.dot(to)).sum::<f64>() / reach;
    ensure!(scale.is_finite() && scale > 0.0, "the given and the predicted cameras share no scale (got {scale})");
    Ok(scale)
}

/// Known cameras as camera tokens.
#[derive(Debug, Clone)]
pub(super) struct Encoder {
    fc1: Linear,
    fc2: Linear,
    token_norm: LayerNorm,
    trunk: Vec<Block>,
    trunk_norm: LayerNorm,
}

impl Encoder {
    pub(super) fn new(config: &Config, vb: &VarBuilder<'_>) -> Result<Self> {
        let (d, branch) = (config.embed_dim, vb.pp("pose_branch"));
        let block = |i| Block::new(d, config.camera_heads, EPS, false, &vb.pp("trunk").pp(i));
        Ok(Self {
            fc1: linear(ENCODING, d / 2, branch.pp("fc1"))?,
            fc2: linear(d / 2, d, branch.pp("fc2"))?,
            token_norm: layer_norm(d, EPS, vb.pp("token_norm"))?,
            trunk: (0..TRUNK).map(block).collect::<Result<_>>()?,
            trunk_norm: layer_norm(d, EPS, vb.pp("trunk_norm"))?,
        })
    }

    /// # Shapes
    /// `[s, 9] -> [s, d]`
    pub(super) fn forward(&self, encodings: &Tensor, tap: &mut Tap<'_>) -> Result<Tensor> {
        let x = self.fc2.forward(&self.fc1.forward(encodings)?.gelu_erf()?)?;
        let mut x = self.token_norm.forward(&x)?.unsqueeze(0)?;
        for (i, block) in self.trunk.iter().enumerate() {
            x = block.forward(&x, None)?;
            tap(&format!("camera_block_{i}"), &x);
        }
        let x = self.trunk_norm.forward(&x)?.squeeze(0)?;
        tap("camera_tokens", &x);
        Ok(x)
    }
}

/// Cameras from the last layer's camera tokens.
#[derive(Debug, Clone)]
pub(super) struct Decoder {
    first: Linear,
    second: Linear,
    translation: Linear,
    rotation: Linear,
    fov: Linear,
}

impl Decoder {
    pub(super) fn new(d: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let backbone = vb.pp("backbone");
        Ok(Self {
            first: linear(d, d, backbone.pp(0))?,
            second: linear(d, d, backbone.pp(2))?,
            translation: linear(d, 3, vb.pp("fc_t"))?,
            rotation: linear(d, 4, vb.pp("fc_qvec"))?,
            fov: linear(d, 2, vb.pp("fc_fov").pp(0))?,
        })
    }

    /// # Shapes
    /// `[s, 2 d] -> [s, 9]`
    pub(super) fn forward(&self, tokens: &Tensor) -> Result<Tensor> {
        let x = self.second.forward(&self.first.forward(tokens)?.relu()?)?.relu()?;
        let fov = self.fov.forward(&x)?.relu()?;
        Ok(Tensor::cat(&[self.translation.forward(&x)?, self.rotation.forward(&x)?, fov], 1)?)
    }
}
