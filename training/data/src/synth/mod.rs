//! Synthetic windows with exact poses and depth: rooms and table tops, filmed by a hand.
//!
//! Everything follows from `(config, seed, index)`; nothing depends on time, threads or the machine's random numbers.
//! (Poses and tone curves use the platform's `sin` and `powf`, which may differ in the last bit between C libraries.)
//!
//! World frame: z up, metres, the floor at z = 0. Cameras are optical (x right, y down, z forward). Integer pixel
//! coordinates are pixel centres: the ray through pixel (u, v) is `((u - cx) / fx, (v - cy) / fy, 1)`.
//! The image is a sensor with square pixels (4:3 by default) stretched to the size that the caller asks for, as the
//! image processor stretches real frames: fx and fy differ where the size is not of the sensor's shape.
//!
//! A [`Stratum`] makes it hard, or easy, in one way that is known, for judging an odometry; [`SynthFilm`] renders a long
//! film frame by frame. Both are opt-in: what the default generator draws stays as it is, to the bit.
//!
//! What it leaves out: mirrors, glass, cast shadows (contact shade only), moving things, rolling shutter, motion blur
//! (but in its stratum), lens distortion, JPEG artefacts.

mod course;
mod draw;
mod film;
mod layout;
mod material;
mod motion;
mod noise;
mod plan;
mod render;
mod scene;
mod sensor;
mod sheet;
mod solid;
#[cfg(test)]
mod strata_tests;
mod stratum;
mod surfaces;
#[cfg(test)]
mod tests;
mod texture;
mod things;
mod vec3;

pub use film::{SynthFilm, SynthFrame};
pub use motion::MotionKind;
pub use sheet::{contact_sheet, stratum_sheet};
pub use stratum::Stratum;

use geometry::{Camera, Intrinsics, Transform, WINDOW, World};
use image::RgbImage;
use motion::Pose;
use nalgebra::{Isometry3, Rotation3, Translation3, UnitQuaternion};
use plan::plan;
use serde::{Deserialize, Serialize};

/// What a window shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SceneKind {
    /// A furnished room, 0.6 to 6 m away.
    Room,
    /// Things of 3 to 26 cm on a table, 0.3 to 1.8 m away.
    TableTop,
}

/// A setting out of bounds.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("synth: {field}: expected {expected}, got {got}")]
pub struct ConfigError {
    /// The setting.
    pub field: &'static str,
    /// Its bounds.
    pub expected: &'static str,
    /// Its value.
    pub got: String,
}

/// [`SynthConfig`] as it is written, before any check.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Raw {
    room_share: f64,
    horizontal_fov_deg: [f64; 2],
    principal_jitter: f64,
    sensor_aspects: Vec<f64>,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            room_share: 0.5,
            horizontal_fov_deg: [45.0, 80.0],
            principal_jitter: 0.04,
            sensor_aspects: vec![4.0 / 3.0],
        }
    }
}

/// What is drawn from. Motions, textures and lights are not settings: a change of them is another generator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Raw")]
pub struct SynthConfig {
    room_share: f64,
    horizontal_fov_deg: [f64; 2],
    principal_jitter: f64,
    sensor_aspects: Vec<f64>,
}

impl TryFrom<Raw> for SynthConfig {
    type Error = ConfigError;

    fn try_from(raw: Raw) -> Result<Self, ConfigError> {
        let check = |fine: bool, field, expected, got: String| {
            if fine { Ok(()) } else { Err(ConfigError { field, expected, got }) }
        };
        let [low, high] = raw.horizontal_fov_deg;
        check((0.0..=1.0).contains(&raw.room_share), "room_share", "0 to 1", raw.room_share.to_string())?;
        check(
            low >= 20.0 && low <= high && high <= 100.0,
            "horizontal_fov_deg",
            "20 <= low <= high <= 100",
            format!("{low}, {high}"),
        )?;
        check(
            (0.0..=0.1).contains(&raw.principal_jitter),
            "principal_jitter",
            "0 to 0.1",
            raw.principal_jitter.to_string(),
        )?;
        let shapes = !raw.sensor_aspects.is_empty() && raw.sensor_aspects.iter().all(|a| (0.4..=2.5).contains(a));
        check(shapes, "sensor_aspects", "one or more, each 0.4 to 2.5", format!("{:?}", raw.sensor_aspects))?;
        Ok(Self {
            room_share: raw.room_share,
            horizontal_fov_deg: raw.horizontal_fov_deg,
            principal_jitter: raw.principal_jitter,
            sensor_aspects: raw.sensor_aspects,
        })
    }
}

impl Default for SynthConfig {
    fn default() -> Self {
        let Raw { room_share, horizontal_fov_deg, principal_jitter, sensor_aspects } = Raw::default();
        Self { room_share, horizontal_fov_deg, principal_jitter, sensor_aspects }
    }
}

/// Five frames with everything that is known of them.
#[derive(Debug, Clone)]
pub struct SynthWindow {
    /// Frames of the size asked for.
    pub images: [RgbImage; WINDOW],
    /// Z-depth in metres per pixel, row-major; never absent.
    pub depth: [Vec<f32>; WINDOW],
    /// Camera of these images.
    pub intrinsics: Intrinsics,
    /// True poses, metres.
    pub world_from_camera: [Transform<World, Camera>; WINDOW],
    /// What is shown.
    pub kind: SceneKind,
    /// How the camera moves.
    pub motion: MotionKind,
    /// Median z-depth of frame 0, metres.
    pub median_depth: f64,
}

/// A longer stretch of such a film: four steps are one window.
#[derive(Debug, Clone)]
pub struct SynthSequence {
    /// Frames of the size asked for.
    pub images: Vec<RgbImage>,
    /// Z-depth in metres per pixel and frame, row-major.
    pub depth: Vec<Vec<f32>>,
    /// Camera of these images.
    pub intrinsics: Intrinsics,
    /// True poses, metres.
    pub world_from_camera: Vec<Transform<World, Camera>>,
    /// What is shown.
    pub kind: SceneKind,
    /// How the camera moves.
    pub motion: MotionKind,
    /// Median z-depth of frame 0, metres.
    pub median_depth: f64,
}

/// Poses without pictures: what [`window`] would show, for the cost of a few hundred rays.
#[derive(Debug, Clone)]
pub struct SynthPoses {
    /// True poses, metres.
    pub world_from_camera: Vec<Transform<World, Camera>>,
    /// Camera of an image of the size asked for.
    pub intrinsics: Intrinsics,
    /// What is shown.
    pub kind: SceneKind,
    /// How the camera moves.
    pub motion: MotionKind,
    /// Median z-depth of frame 0 on a coarse grid, metres.
    pub median_depth: f64,
}

fn transform(pose: &Pose) -> Transform<World, Camera> {
    let rotation = UnitQuaternion::from_rotation_matrix(&Rotation3::from_matrix_unchecked(pose.rotation));
    Transform::from_isometry_unchecked(Isometry3::from_parts(Translation3::from(pose.position), rotation))
}

fn median(depth: &[f32]) -> f64 {
    let mut depth = depth.to_vec();
    let middle = depth.len() / 2;
    f64::from(*depth.select_nth_unstable_by(middle, f32::total_cmp).1)
}

/// Window `index` of the stream `seed`, of the default generator.
///
/// # Panics
/// Where `size` (width, height) is below 8 x 8 pixels.
pub fn window(seed: u64, index: u64, size: (u32, u32)) -> SynthWindow {
    window_with(&SynthConfig::default(), seed, index, size)
}

/// [`window`] with settings.
///
/// # Panics
/// As [`window`].
pub fn window_with(config: &SynthConfig, seed: u64, index: u64, size: (u32, u32)) -> SynthWindow {
    window_of(config, None, seed, index, size)
}

/// A window of a stratum; without one, [`window_with`].
///
/// # Panics
/// As [`window`].
pub fn window_of(
    config: &SynthConfig,
    stratum: Option<Stratum>,
    seed: u64,
    index: u64,
    size: (u32, u32),
) -> SynthWindow {
    let (film, first) = SynthFilm::begun(config, stratum, seed, index, WINDOW, size);
    let mut first = Some(first);
    let mut frames = [0, 1, 2, 3, 4].map(|i| match first.take() {
        Some(light) => film.developed(i, light),
        None => film.frame(i),
    });
    SynthWindow {
        images: std::array::from_fn(|i| std::mem::take(&mut frames[i].image)),
        median_depth: median(&frames[0].depth),
        depth: frames.map(|frame| frame.depth),
        intrinsics: film.plan.intrinsics,
        world_from_camera: std::array::from_fn(|i| transform(&film.plan.poses[i])),
        kind: film.plan.kind,
        motion: film.plan.motion,
    }
}

/// A film of `frames` frames, of the default generator. It is another one than [`window`]'s of the same index where the
/// longer path needed another start.
///
/// # Panics
/// As [`window`].
pub fn sequence(seed: u64, index: u64, frames: usize, size: (u32, u32)) -> SynthSequence {
    sequence_with(&SynthConfig::default(), None, seed, index, frames, size)
}

/// A film of a stratum, with settings; without a stratum, of the same generator as [`sequence`]. [`SynthFilm`] is the
/// same film frame by frame.
///
/// # Panics
/// As [`window`].
pub fn sequence_with(
    config: &SynthConfig,
    stratum: Option<Stratum>,
    seed: u64,
    index: u64,
    frames: usize,
    size: (u32, u32),
) -> SynthSequence {
    let (film, first) = SynthFilm::begun(config, stratum, seed, index, frames, size);
    let (mut images, mut depth) = (Vec::with_capacity(frames), Vec::with_capacity(frames));
    let mut first = Some(first);
    for number in 0..frames {
        let frame = match first.take() {
            Some(light) => film.developed(number, light),
            None => film.frame(number),
        };
        images.push(frame.image);
        depth.push(frame.depth);
    }
    SynthSequence {
        median_depth: depth.first().map_or(film.plan.median_depth, |first: &Vec<f32>| median(first)),
        images,
        depth,
        intrinsics: film.plan.intrinsics,
        world_from_camera: film.plan.poses.iter().take(frames).map(transform).collect(),
        kind: film.plan.kind,
        motion: film.plan.motion,
    }
}

/// The poses of [`window`] (with `frames` 5) or [`sequence`], nothing rendered.
///
/// # Panics
/// As [`window`].
pub fn poses(seed: u64, index: u64, frames: usize, size: (u32, u32)) -> SynthPoses {
    let plan = plan(&SynthConfig::default(), None, seed, index, frames.max(1), size);
    SynthPoses {
        world_from_camera: plan.poses.iter().take(frames).map(transform).collect(),
        intrinsics: plan.intrinsics,
        kind: plan.kind,
        motion: plan.motion,
        median_depth: plan.median_depth,
    }
}
