//! Depth of recordings that have none, from Depth Anything 3, told the poses.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use geometry::Intrinsics;
use image::RgbImage;
use serde::{Deserialize, Serialize};
use training_data::depth::{DepthAnything, Given, View};

/// `[data.depth]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DepthConfig {
    /// `model.safetensors` of Depth Anything 3 SMALL, or its folder.
    pub weights: PathBuf,
    /// Longest side that the network sees, pixels.
    pub side: usize,
    /// Pixels of which the network is not surer than this have no depth; it says at least 1.
    pub confidence: f32,
    /// Where it runs: cpu, cuda or cuda:N.
    #[serde(default = "cpu")]
    pub device: String,
}

fn cpu() -> String {
    "cpu".to_owned()
}

impl DepthConfig {
    /// # Errors
    /// A key out of bounds, with its name.
    pub fn check(&self) -> Result<()> {
        ensure!(self.side > 0, "data.depth.side: expected at least 1");
        Ok(())
    }
}

/// Z-depth of some frames, row-major, scene units, 0 where there is none.
#[derive(Debug, Clone)]
pub struct Maps {
    /// Of each frame.
    pub depth: Vec<Vec<f32>>,
    /// Camera of the maps: the field of view of the frames, perhaps on another grid.
    pub intrinsics: Intrinsics,
}

impl Maps {
    /// One of the maps on the grid of another camera of the same view, by its nearest pixels: a mean of two surfaces is on neither.
    pub fn on(&self, frame: usize, camera: &Intrinsics) -> Vec<f32> {
        let from = &self.intrinsics;
        let nearest =
            |i: u32, to: u32, from: u32| ((2 * u64::from(i) + 1) * u64::from(from) / (2 * u64::from(to))) as usize;
        let at = |(y, x): (u32, u32)| {
            let (row, column) = (nearest(y, camera.height, from.height), nearest(x, camera.width, from.width));
            self.depth[frame].get(row * from.width as usize + column).copied().unwrap_or(0.0)
        };
        (0..camera.height).flat_map(|y| (0..camera.width).map(move |x| (y, x))).map(at).collect()
    }
}

/// The network.
pub struct DepthEstimator {
    network: DepthAnything,
    /// Pixels of which the network is less sure have no depth.
    confidence: f32,
}

impl DepthEstimator {
    /// # Errors
    /// Weights that can't be read, a device that is not there.
    pub fn open(config: &DepthConfig) -> Result<Self> {
        let device = model::device(&config.device).context("data.depth.device")?;
        let mut network = DepthAnything::load(&config.weights, &device)?;
        network.longest_side = config.side;
        Ok(Self { network, confidence: config.confidence })
    }

    /// Depth of all frames. A camera that only turned gives the network no scale: then there is none.
    pub fn maps(&self, images: &[RgbImage], given: &[Given]) -> Option<Maps> {
        match self.network.infer(images, Some(given)) {
            Ok(prediction) => {
                let intrinsics = prediction.views.first()?.intrinsics;
                let sure = |(depth, confidence): (f32, f32)| if confidence > self.confidence { depth } else { 0.0 };
                let map = |view: View| -> Vec<f32> { view.depth.into_iter().zip(view.confidence).map(sure).collect() };
                Some(Maps { depth: prediction.views.into_iter().map(map).collect(), intrinsics })
            }
            Err(error) => {
                tracing::debug!("no depth of a set: {error:#}");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_brought_to_another_grid_by_its_nearest_pixels() {
        let camera = |width, height| Intrinsics::new(4.0, 4.0, 1.0, 1.0, width, height).unwrap();
        let maps = Maps { depth: vec![vec![1.0, 2.0, 3.0, 4.0]], intrinsics: camera(2, 2) };
        assert_eq!(maps.on(0, &camera(2, 2)), maps.depth[0]);
        assert_eq!(maps.on(0, &camera(4, 2)), [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0]);
        let wide = Maps { depth: vec![(0..6).map(|v| v as f32).collect()], intrinsics: camera(6, 1) };
        assert_eq!(wide.on(0, &camera(2, 1)), [1.0, 4.0]);
    }

    #[test]
    fn weights_that_are_not_there_are_named() {
        let config =
            DepthConfig { weights: "nowhere/DA3".into(), side: 252, confidence: 1.0, device: "cpu".to_owned() };
        let error = DepthEstimator::open(&config).err().map(|error| format!("{error:#}")).unwrap();
        assert!(error.contains("nowhere/DA3"), "{error}");
        assert!(DepthConfig { side: 0, ..config }.check().unwrap_err().to_string().contains("data.depth.side"));
    }
}
