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
//! What it leaves out: mirrors, glass, cast shadows (contact shade only), moving things, rolling shutter, motion blur,
//! lens distortion, JPEG artefacts.

mod draw;
mod layout;
mod material;
mod motion;
mod noise;
mod render;
mod scene;
mod sensor;
mod sheet;
mod solid;
#[cfg(test)]
mod tests;
mod texture;
mod things;
mod vec3;

pub use motion::MotionKind;
pub use sheet::contact_sheet;

use draw::{Draw, Stream};
use geometry::{Camera, Intrinsics, Transform, WINDOW, World};
use image::RgbImage;
use layout::layout;
use motion::{Path, Pose, start};
use nalgebra::{Isometry3, Rotation3, Translation3, UnitQuaternion, Vector3};
use render::{Eye, Light};
use scene::Scene;
use sensor::Sensor;
use serde::{Deserialize, Serialize};
use vec3::v3;

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

/// A scene with a path through it that keeps clear of everything.
struct Plan {
    scene: Scene,
    kind: SceneKind,
    motion: MotionKind,
    poses: Vec<Pose>,
    intrinsics: Intrinsics,
    median_depth: f64,
}

/// Nearest that the camera may come to a surface, metres: z-depths stay above 0.1 m at the widest field of view.
const CLEARANCE: f32 = 0.17;
/// Draws of camera and path before the scene is drawn anew.
const PATHS_PER_SCENE: u64 = 6;

fn camera(config: &SynthConfig, draw: &mut Draw, size: (u32, u32)) -> Intrinsics {
    assert!(size.0 >= 8 && size.1 >= 8, "synthetic images have at least 8 x 8 pixels, got {size:?}");
    let (width, height) = (f64::from(size.0), f64::from(size.1));
    let half_fov = 0.5 * draw.range(config.horizontal_fov_deg[0], config.horizontal_fov_deg[1]).to_radians();
    let aspect = draw.pick(&config.sensor_aspects);
    // The angle is that of a 4:3 sensor's width: a portrait sensor has it along its long side.
    let focal_in_widths = 0.5 / half_fov.tan() / if aspect < 1.0 { aspect } else { 1.0 };
    let jitter = config.principal_jitter;
    let (dx, dy) = (draw.range(-jitter, jitter), draw.range(-jitter, jitter));
    Intrinsics {
        fx: width * focal_in_widths,
        fy: height * aspect * focal_in_widths,
        cx: 0.5 * (width - 1.0) + dx * width,
        cy: 0.5 * (height - 1.0) + dy * height,
        width: size.0,
        height: size.1,
    }
}

/// Median depth of the first pose, where the camera keeps clear and sees something in every frame.
fn survey(scene: &Scene, kind: SceneKind, poses: &[Pose], intrinsics: &Intrinsics) -> Option<f64> {
    let (least, most) = match kind {
        SceneKind::TableTop => (0.3, 1.8),
        SceneKind::Room => (0.6, 6.0),
    };
    let clear = |pose: &Pose| {
        let p = v3(pose.position.x as f32, pose.position.y as f32, pose.position.z as f32);
        let room = [(p.x, scene.room.x), (p.y, scene.room.y), (p.z, scene.room.z)];
        room.iter().all(|&(at, size)| at > CLEARANCE && at < size - CLEARANCE)
            && scene.solids.iter().all(|solid| solid.distance(p) > CLEARANCE)
    };
    if !poses.iter().all(clear) {
        return None;
    }
    let mut first = None;
    for pose in poses.iter().step_by(2) {
        let (depths, bare) = Eye::new(pose, intrinsics).survey(scene);
        let median = f64::from(depths[depths.len() / 2]);
        if median < least || median > most || bare > 0.75 {
            return None;
        }
        first.get_or_insert(median);
    }
    first
}

fn plan(config: &SynthConfig, seed: u64, index: u64, frames: usize, size: (u32, u32)) -> Plan {
    let intrinsics = camera(config, &mut Draw::new(seed, index, Stream::Camera, 0), size);
    // Drawn once, not per attempt: what is easier to place must not become more frequent.
    let mut draw = Draw::new(seed, index, Stream::Motion, u64::MAX);
    let kind = if draw.chance(config.room_share) { SceneKind::Room } else { SceneKind::TableTop };
    let motion = MotionKind::random(&mut draw, kind);
    let mut scene_number = 0;
    loop {
        let world = layout(&mut Draw::new(seed, index, Stream::Scene, scene_number), kind);
        let wide = |v: vec3::V3| Vector3::new(f64::from(v.x), f64::from(v.y), f64::from(v.z));
        let targets: Vec<_> = world.targets.iter().copied().map(wide).collect();
        for attempt in 0..PATHS_PER_SCENE {
            let mut draw = Draw::new(seed, index, Stream::Motion, scene_number * PATHS_PER_SCENE + attempt);
            let Some(start) = start(&mut draw, kind, wide(world.scene.room), &targets) else {
                continue;
            };
            let path = Path::random(&mut draw, kind, motion, start);
            let poses: Vec<_> = (0..frames).map(|frame| path.at(frame as f64 / (WINDOW - 1) as f64)).collect();
            if let Some(median_depth) = survey(&world.scene, kind, &poses, &intrinsics) {
                return Plan { scene: world.scene, kind, motion, poses, intrinsics, median_depth };
            }
        }
        scene_number += 1;
    }
}

fn transform(pose: &Pose) -> Transform<World, Camera> {
    let rotation = UnitQuaternion::from_rotation_matrix(&Rotation3::from_matrix_unchecked(pose.rotation));
    Transform::from_isometry(Isometry3::from_parts(Translation3::from(pose.position), rotation))
}

fn exposed(seed: u64, index: u64, first: &Light) -> Sensor {
    let (mut sum, mut count) = (0.0, 0.0);
    for colour in first.colour.iter().step_by(7) {
        sum += colour.luminance();
        count += 1.0;
    }
    Sensor::random(&mut Draw::new(seed, index, Stream::Sensor, 0), sum / count)
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
    let plan = plan(config, seed, index, WINDOW, size);
    let mut light: [Light; WINDOW] =
        std::array::from_fn(|i| Eye::new(&plan.poses[i], &plan.intrinsics).render(&plan.scene));
    let sensor = exposed(seed, index, &light[0]);
    let images = std::array::from_fn(|i| sensor.expose(std::mem::take(&mut light[i].colour), size, i as u32));
    let median_depth = median(&light[0].depth);
    SynthWindow {
        images,
        depth: light.map(|light| light.depth),
        intrinsics: plan.intrinsics,
        world_from_camera: std::array::from_fn(|i| transform(&plan.poses[i])),
        kind: plan.kind,
        motion: plan.motion,
        median_depth,
    }
}

/// A film of `frames` frames, of the default generator. It is another one than [`window`]'s of the same index where the
/// longer path needed another start.
///
/// # Panics
/// As [`window`].
pub fn sequence(seed: u64, index: u64, frames: usize, size: (u32, u32)) -> SynthSequence {
    let plan = plan(&SynthConfig::default(), seed, index, frames.max(1), size);
    let mut sensor = None;
    let (mut images, mut depth) = (Vec::with_capacity(frames), Vec::with_capacity(frames));
    for (number, pose) in plan.poses.iter().take(frames).enumerate() {
        let light = Eye::new(pose, &plan.intrinsics).render(&plan.scene);
        let sensor = sensor.get_or_insert_with(|| exposed(seed, index, &light));
        images.push(sensor.expose(light.colour, size, number as u32));
        depth.push(light.depth);
    }
    SynthSequence {
        median_depth: depth.first().map_or(plan.median_depth, |first: &Vec<f32>| median(first)),
        images,
        depth,
        intrinsics: plan.intrinsics,
        world_from_camera: plan.poses.iter().take(frames).map(transform).collect(),
        kind: plan.kind,
        motion: plan.motion,
    }
}

/// The poses of [`window`] (with `frames` 5) or [`sequence`], nothing rendered.
///
/// # Panics
/// As [`window`].
pub fn poses(seed: u64, index: u64, frames: usize, size: (u32, u32)) -> SynthPoses {
    let plan = plan(&SynthConfig::default(), seed, index, frames.max(1), size);
    SynthPoses {
        world_from_camera: plan.poses.iter().take(frames).map(transform).collect(),
        intrinsics: plan.intrinsics,
        kind: plan.kind,
        motion: plan.motion,
        median_depth: plan.median_depth,
    }
}
