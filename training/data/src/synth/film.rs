//! A film whose frames are rendered one by one, each when it is asked for.

use super::draw::{Draw, Stream};
use super::plan::{Plan, Points, plan, time_of};
use super::render::{Eye, Light};
use super::sensor::Sensor;
use super::{MotionKind, SceneKind, Stratum, SynthConfig, transform};
use geometry::{Camera, Intrinsics, Transform, World};
use image::RgbImage;

/// Longest way of a point between two of the pictures that are averaged to blur, pixels: below it, edges show no steps.
const BLUR_STEP: f64 = 1.0;
/// Fewest and most pictures before the middle that are averaged, and as many after it.
const PICTURES_A_SIDE: (usize, usize) = (4, 10);

/// A frame of a film.
#[derive(Debug, Clone)]
pub struct SynthFrame {
    /// Of the size asked for.
    pub image: RgbImage,
    /// Z-depth in metres per pixel, row-major; never absent. That of the middle of the exposure.
    pub depth: Vec<f32>,
}

/// A film without its pictures: a frame follows from `(config, stratum, seed, index, frames)` and its number, in
/// whatever order frames are asked for.
pub struct SynthFilm {
    pub(super) plan: Plan,
    pub(super) sensor: Sensor,
    stratum: Option<Stratum>,
    /// Where the sequence of gains begins, for the stratum of exposures.
    phase: f64,
    seed: u64,
    index: u64,
    size: (u32, u32),
}

impl SynthFilm {
    /// Draws scene and path, and renders frame 0 for the camera to set its exposure by. The path is another one than
    /// that of a film with another number of frames, where it needed another start.
    ///
    /// # Panics
    /// Where `size` (width, height) is below 8 x 8 pixels.
    pub fn new(
        config: &SynthConfig,
        stratum: Option<Stratum>,
        seed: u64,
        index: u64,
        frames: usize,
        size: (u32, u32),
    ) -> Self {
        Self::begun(config, stratum, seed, index, frames, size).0
    }

    /// [`Self::new`], and the light of frame 0.
    pub(super) fn begun(
        config: &SynthConfig,
        stratum: Option<Stratum>,
        seed: u64,
        index: u64,
        frames: usize,
        size: (u32, u32),
    ) -> (Self, Light) {
        let plan = plan(config, stratum, seed, index, frames.max(1), size);
        let light = light(&plan, 0);
        let sensor = sensor(stratum, seed, index, &light);
        let phase = Draw::new(seed, index, Stream::Exposure, u64::MAX).unit();
        (Self { plan, sensor, stratum, phase, seed, index, size }, light)
    }

    /// How many frames it has: at least one.
    pub fn frames(&self) -> usize {
        self.plan.poses.len()
    }

    /// Camera of its images.
    pub fn intrinsics(&self) -> &Intrinsics {
        &self.plan.intrinsics
    }

    /// True poses, metres; those of the middle of the exposures.
    pub fn world_from_camera(&self) -> Vec<Transform<World, Camera>> {
        self.plan.poses.iter().map(transform).collect()
    }

    /// What is shown.
    pub fn kind(&self) -> SceneKind {
        self.plan.kind
    }

    /// How the camera moves.
    pub fn motion(&self) -> MotionKind {
        self.plan.motion
    }

    /// Median z-depth of frame 0 on a coarse grid, metres.
    pub fn median_depth(&self) -> f64 {
        self.plan.median_depth
    }

    /// How many times the camera's usual exposure a frame has: 1 but in the stratum of exposures.
    pub fn gain(&self, frame: usize) -> f64 {
        if self.stratum != Some(Stratum::Exposure) {
            return 1.0;
        }
        // Steps of the golden ratio leave at least 0.38 of the range between neighbours.
        let golden = 0.5 * (5.0f64.sqrt() - 1.0);
        let place = (self.phase + frame as f64 * golden).fract();
        let jitter = Draw::new(self.seed, self.index, Stream::Exposure, frame as u64).range(-0.08, 0.08);
        (2.0 * (place + jitter).clamp(0.0, 1.0) - 1.0).exp2()
    }

    /// Renders a frame.
    ///
    /// # Panics
    /// Beyond the last frame.
    pub fn frame(&self, frame: usize) -> SynthFrame {
        self.developed(frame, light(&self.plan, frame))
    }

    /// A frame of this light.
    pub(super) fn developed(&self, frame: usize, light: Light) -> SynthFrame {
        let image = self.sensor.expose(light.colour, self.size, frame as u32, self.gain(frame) as f32);
        SynthFrame { image, depth: light.depth }
    }
}

/// What reaches the sensor while the shutter is open.
fn light(plan: &Plan, frame: usize) -> Light {
    let mut light = Eye::new(&plan.poses[frame], &plan.intrinsics).render(&plan.scene, true);
    if plan.exposure > 0.0 {
        let at = |share: f64| plan.course.at(time_of(frame) + share * plan.exposure);
        let flow = Points::new(&plan.scene, &plan.poses[frame], &plan.intrinsics);
        let flow = flow.flow(&at(-0.5), &at(0.5), &plan.intrinsics);
        let longest = flow[flow.len() * 9 / 10];
        // As many before the middle as after it.
        let side = ((longest / BLUR_STEP) as usize / 2 + 1).clamp(PICTURES_A_SIDE.0, PICTURES_A_SIDE.1);
        let count = 2 * side + 1;
        for place in (0..count).filter(|&place| place != side) {
            // Within a pixel the pictures are spread over its area: edges along the motion stay smooth.
            let spread = |step: f64| (0.5 + place as f64 * step).fract() - 0.5;
            let mut intrinsics = plan.intrinsics;
            intrinsics.cx += spread(0.754_877_666);
            intrinsics.cy += spread(0.569_840_291);
            let share = (place as f64 - side as f64) / count as f64;
            let other = Eye::new(&at(share), &intrinsics).render(&plan.scene, false);
            for (sum, colour) in light.colour.iter_mut().zip(other.colour) {
                *sum = *sum + colour;
            }
        }
        for sum in &mut light.colour {
            *sum = *sum * (1.0 / count as f32);
        }
    }
    light
}

/// A camera that exposes for this frame 0.
fn sensor(stratum: Option<Stratum>, seed: u64, index: u64, first: &Light) -> Sensor {
    let (mut sum, mut count) = (0.0, 0.0);
    for colour in first.colour.iter().step_by(7) {
        sum += colour.luminance();
        count += 1.0;
    }
    let sensor = Sensor::random(&mut Draw::new(seed, index, Stream::Sensor, 0), sum / count);
    let mut draw = Draw::new(seed, index, Stream::Stratum, 1);
    match stratum {
        Some(Stratum::Dark) => {
            let (level, noise) = (draw.range32(14.0, 26.0), draw.range32(2.0, 5.0));
            sensor.darkened(&first.colour, level).noisy(noise)
        }
        Some(Stratum::Noise) => sensor.noisy(draw.range32(8.0, 20.0)),
        Some(Stratum::Still) => sensor.noisy(draw.range32(1.5, 5.0)).flickering(draw.range32(0.01, 0.04)),
        Some(Stratum::NoTexture) => {
            let noise = sensor.noise().max(1.0);
            sensor.noisy(noise)
        }
        _ => sensor,
    }
}
