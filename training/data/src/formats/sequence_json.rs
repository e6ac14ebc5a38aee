//! Our own layout ([`camera::sequence`]), with depth where `depth/%06d.png` has it (16-bit, millimetres).

use super::{Opened, realestate};
use crate::error::Error;
use crate::picture::Image;
use crate::sequence::{DepthFile, Frame, Sequence};
use camera::optics::Optics;
use camera::sequence as files;
use std::path::Path;

/// Depth of one step of a 16-bit depth image.
const METRES_PER_STEP: f32 = 1e-3;

pub(super) fn fits(path: &Path) -> bool {
    files::is_sequence(path)
}

pub(super) fn open(directory: &Path) -> Result<Opened, Error> {
    Ok(Opened { sequences: vec![read(directory)?], skipped: Vec::new() })
}

/// What a split must not cut is `"scene"`, or the video of `"url"`, or the name.
fn read(directory: &Path) -> Result<Sequence, Error> {
    let files::Sequence { name, scene, url, intrinsics, frames, stamps, world_from_camera, scale, .. } =
        files::Sequence::load(directory)?;
    let path = directory.to_path_buf();
    let Some(poses) = world_from_camera else {
        let (field, expected) = ("poses", "one a frame: windows are judged by them".to_owned());
        return Err(Error::Field { path: path.join("sequence.json"), field, expected, got: "null".to_owned() });
    };
    let depth = |index: usize| {
        let path = directory.join(format!("depth/{index:06}.png"));
        Some(DepthFile { path, units_per_step: METRES_PER_STEP, resample: false })
    };
    let frame = |(index, ((image, stamp), world_from_camera))| {
        let image = Image::File(image);
        Frame { stamp, world_from_camera, image, depth: depth(index), gap_before: false }
    };
    let frames = frames.into_iter().zip(stamps).zip(poses).enumerate().map(frame).collect();
    let source = scene.or_else(|| realestate::video_id(&url?)).unwrap_or_else(|| name.clone());
    let (optics, metric) = (Optics::pinhole(intrinsics), scale.metric);
    Ok(Sequence { path, name, source, optics, metric, truth: None, frames })
}

impl Sequence {
    /// Reads a folder with a `sequence.json`; other layouts are [`super::open`]'s. No image is decoded yet.
    ///
    /// # Errors
    /// [`Error::Sequence`], and [`Error::Field`] where there are no poses.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, Error> {
        read(directory.as_ref())
    }
}
