//! A film with poses: what every reader in [`super::formats`] makes, whatever its layout on disk.

use super::error::Error;
use super::picture::Image;
use camera::optics::Optics;
use geometry::{Camera, Intrinsics, Stamp, Transform, World};
use std::path::{Path, PathBuf};

/// One frame of a sequence: its pose in memory, its pictures on disk.
#[derive(Debug, Clone)]
pub struct Frame {
    /// When: as recorded, or made up at a steady rate where the layout has no times.
    pub stamp: Stamp,
    /// Camera to world, optical camera axes; scene units.
    pub world_from_camera: Transform<World, Camera>,
    /// Where the image is.
    pub image: Image,
    /// The depth image; [`Sequence::load_depth`] takes one that is not there for none.
    pub depth: Option<DepthFile>,
    /// Whether frames are missing between the one before and this one: no window goes across.
    pub gap_before: bool,
}

/// A 16-bit grey PNG of z-depth; 0 where there is no value.
#[derive(Debug, Clone)]
pub struct DepthFile {
    /// The file.
    pub path: PathBuf,
    /// Depth of one step, scene units (metres where the sequence is metric).
    pub units_per_step: f32,
    /// Whether a size other than the image's is brought to the image's grid (nearest value) or is an error.
    pub resample: bool,
}

/// A recorded sequence of one camera: poses and camera in memory, pictures on disk.
#[derive(Debug, Clone)]
pub struct Sequence {
    /// The folder or file that was opened.
    pub(super) path: PathBuf,
    pub(super) name: String,
    pub(super) source: String,
    pub(super) optics: Optics,
    pub(super) metric: bool,
    /// What the poses are of, where the layout leaves a choice.
    pub(super) truth: Option<String>,
    pub(super) frames: Vec<Frame>,
}

impl Sequence {
    /// The folder or file that was opened.
    pub fn directory(&self) -> &Path {
        &self.path
    }

    /// Its name: of the folder, the clip, or as the format says.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The video or scene that it is of: what a split must not cut. Its name, where the format knows no better.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// How many frames there are.
    pub fn frames(&self) -> usize {
        self.frames.len()
    }

    /// Frame `index`.
    ///
    /// # Errors
    /// [`Error::Index`].
    pub fn frame(&self, index: usize) -> Result<&Frame, Error> {
        self.frames.get(index).ok_or_else(|| Error::Index {
            path: self.path.clone(),
            expected: self.frames() as u64,
            got: index as u64,
        })
    }

    /// Camera of the images as they are loaded, pixels; integer coordinates are pixel centres.
    pub fn intrinsics(&self) -> &Intrinsics {
        &self.optics.intrinsics
    }

    /// Whether scene units are metres.
    pub fn metric(&self) -> bool {
        self.metric
    }

    /// Whose word the poses are, where the layout leaves a choice: the topic, or the transforms, of a recording of ROS 2.
    pub fn truth(&self) -> Option<&str> {
        self.truth.as_deref()
    }

    /// Pose of frame `index`, scene units.
    ///
    /// # Errors
    /// [`Error::Index`].
    pub fn world_from_camera(&self, index: usize) -> Result<Transform<World, Camera>, Error> {
        self.frame(index).map(|frame| frame.world_from_camera)
    }

    /// Time of every frame: that of the recording, or 0.1 s a frame from 0 where it has none.
    pub fn stamps(&self) -> Vec<Stamp> {
        self.frames.iter().map(|frame| frame.stamp).collect()
    }
}

#[cfg(test)]
#[path = "sequence_tests.rs"]
pub(super) mod tests;
