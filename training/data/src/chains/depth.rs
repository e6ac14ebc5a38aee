//! Where the depth of a window comes from, and whether an estimate of it agrees with the poses.

use std::path::Path;

use anyhow::Result;
use candle_core::Device;
use geometry::{Intrinsics, WINDOW};
use nalgebra::Point2;
use serde_json::{Value, json};

use super::DepthMap;
use crate::WindowSample;
use crate::depth::{DepthAnything, Given};

/// Windows are left out where half of the points that two frames share differ in depth by more than this share, unless
/// another is asked for.
pub const MAX_RESIDUAL: f64 = 0.1;
/// Pixels from one compared point to the next.
const STEP: usize = 8;
/// Fewest points that say anything.
const MIN_POINTS: usize = 50;

/// What gives depth.
pub enum DepthSource {
    /// The recording, and nothing where it has none.
    Recorded,
    /// Depth Anything 3 where the recording has none.
    Network {
        /// The network.
        network: Box<DepthAnything>,
        /// What manifests call it.
        name: String,
        /// Windows whose residual is larger are left out.
        max_residual: f64,
    },
}

/// Depth of a window.
pub enum Known<'a> {
    /// As recorded, on the grid of the images.
    Recorded(&'a [Vec<f32>; WINDOW]),
    /// Of the network, scaled to the poses.
    Estimated {
        /// One a frame, row-major.
        depth: [Vec<f32>; WINDOW],
        /// Of the depth maps.
        intrinsics: Intrinsics,
        /// See [`residual`].
        residual: f64,
    },
    /// Of the network, but against the poses.
    Inconsistent {
        /// See [`residual`].
        residual: f64,
    },
    /// None.
    Nothing,
}

impl DepthSource {
    /// With the weights of Depth Anything 3 SMALL on a device, or without; `side` is the longest side that it sees, pixels.
    ///
    /// # Errors
    /// A file that is missing or broken.
    pub fn new(weights: Option<&Path>, side: usize, max_residual: f64, device: &Device) -> Result<Self> {
        let Some(path) = weights else { return Ok(Self::Recorded) };
        let mut network = DepthAnything::load(path, device)?;
        network.longest_side = side;
        Ok(Self::Network { network: Box::new(network), name: path.display().to_string(), max_residual })
    }

    /// For a manifest.
    pub fn describe(&self) -> Value {
        match self {
            Self::Recorded => json!("recorded"),
            Self::Network { network, name, max_residual } => {
                json!({"weights": name, "longest_side": network.longest_side, "max_residual": max_residual})
            }
        }
    }

    /// Depth of a window, recorded where it is.
    ///
    /// # Errors
    /// A network that fails on the window's frames.
    pub fn of<'a>(&self, sample: &'a WindowSample) -> Result<Known<'a>> {
        let (network, max_residual) = match (self, &sample.depth) {
            (_, Some(depth)) => return Ok(Known::Recorded(depth)),
            (Self::Recorded, None) => return Ok(Known::Nothing),
            (Self::Network { network, max_residual, .. }, None) => (network, *max_residual),
        };
        let given = sample
            .ground_truth
            .anchor_from_camera()
            .map(|pose| Given { world_from_camera: pose.relabel(), intrinsics: sample.intrinsics });
        // A camera that only turned gives the network's depth no scale.
        let Ok(prediction) = network.infer(&sample.images, Some(&given)) else { return Ok(Known::Nothing) };
        let intrinsics = prediction.views[0].intrinsics;
        let mut views = prediction.views.into_iter();
        let depth: [Vec<f32>; WINDOW] = std::array::from_fn(|_| views.next().map(|v| v.depth).unwrap_or_default());
        Ok(match residual(&depth, &intrinsics, sample) {
            Some(residual) if residual <= max_residual => Known::Estimated { depth, intrinsics, residual },
            residual => Known::Inconsistent { residual: residual.unwrap_or(f64::INFINITY) },
        })
    }
}

/// Median over the points of frame 0 that another frame sees of `|d - d'| / d'`: the depth that they have there by the
/// poses against the depth that the other frame's own map says. Nothing where too few are seen.
pub fn residual(depth: &[Vec<f32>; WINDOW], intrinsics: &Intrinsics, sample: &WindowSample) -> Option<f64> {
    let maps = DepthMap::window(depth, intrinsics.width, sample.metric);
    let mut errors = Vec::new();
    for i in 1..WINDOW {
        let camera_from_anchor = sample.ground_truth.anchor_from_camera()[i].inverse();
        for y in (0..intrinsics.height as usize).step_by(STEP) {
            for x in (0..intrinsics.width as usize).step_by(STEP) {
                let pixel = Point2::new(x as f64, y as f64);
                let Some(near) = maps[0].at(&pixel) else { continue };
                let point = camera_from_anchor.transform_point(&intrinsics.back_project(&pixel, near));
                let Some(place) = intrinsics.project(&point).filter(|p| intrinsics.contains(p)) else { continue };
                errors.extend(maps[i].at(&place).map(|seen| (point.z - seen).abs() / seen));
            }
        }
    }
    if errors.len() < MIN_POINTS {
        return None;
    }
    let middle = errors.len() / 2;
    Some(*errors.select_nth_unstable_by(middle, f64::total_cmp).1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse_source;

    #[test]
    fn true_depth_agrees_with_the_poses_and_wrong_depth_does_not() {
        let sample = parse_source("synth:seed=3,windows=1,size=160x96").unwrap().sample(0).unwrap();
        let depth = sample.depth.clone().unwrap();
        let of = |depth: &[Vec<f32>; WINDOW]| residual(depth, &sample.intrinsics, &sample).unwrap();
        assert!(of(&depth) < 0.01, "{}", of(&depth));
        let mut wrong = depth.clone();
        wrong[1..].iter_mut().flatten().for_each(|d| *d *= 1.3);
        assert!(of(&wrong) > MAX_RESIDUAL, "{}", of(&wrong));
        let empty: [Vec<f32>; WINDOW] = depth.each_ref().map(|d| vec![0.0; d.len()]);
        assert_eq!(residual(&empty, &sample.intrinsics, &sample), None);
    }

    #[test]
    fn recorded_depth_comes_first_and_without_a_network_there_is_no_other() {
        let mut sample = parse_source("synth:seed=3,windows=1,size=64x48").unwrap().sample(0).unwrap();
        assert!(matches!(DepthSource::Recorded.of(&sample).unwrap(), Known::Recorded(_)));
        sample.depth = None;
        assert!(matches!(DepthSource::Recorded.of(&sample).unwrap(), Known::Nothing));
        let missing = Path::new("/nonexistent.safetensors");
        let missing = DepthSource::new(Some(missing), 252, MAX_RESIDUAL, &Device::Cpu).err().unwrap();
        assert!(format!("{missing:#}").contains("nonexistent.safetensors"));
    }
}
