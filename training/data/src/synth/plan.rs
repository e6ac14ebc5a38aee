//! A scene with a path through it that keeps clear of everything, and that is what a stratum asks for.

use super::course::{Course, Quick};
use super::draw::{Draw, Stream};
use super::layout::{Layout, layout};
use super::motion::{MotionKind, Path, Pose, Start, start};
use super::render::Eye;
use super::scene::{ROOM, Scene};
use super::surfaces::{Facing, enrich, facing, weaken};
use super::vec3::{V3, v3};
use super::{SceneKind, Stratum, SynthConfig};
use geometry::{Intrinsics, WINDOW};
use nalgebra::{Point2, Point3, Vector3};

/// Everything that is drawn before the first picture.
pub(super) struct Plan {
    pub scene: Scene,
    pub kind: SceneKind,
    pub motion: MotionKind,
    pub course: Course,
    pub poses: Vec<Pose>,
    pub intrinsics: Intrinsics,
    /// Of the first frame, on a coarse grid, metres.
    pub median_depth: f64,
    /// How long the shutter is open, windows; 0 for no blur.
    pub exposure: f64,
}

/// Nearest that the camera may come to a surface, metres: z-depths stay above 0.1 m at the widest field of view.
const CLEARANCE: f32 = 0.17;
/// Draws of camera and path before the scene is drawn anew.
const PATHS_PER_SCENE: u64 = 6;
/// How much larger motions are where they are to blur: at the usual ones half of all windows would be thrown away.
const QUICKER: f64 = 1.5;
/// Width of the image, pixels, that lengths of blur are given for.
const BLUR_WIDTH: f64 = 640.0;

/// Time of a frame, windows.
pub(super) fn time_of(frame: usize) -> f64 {
    frame as f64 / (WINDOW - 1) as f64
}

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

fn is_clear(scene: &Scene, pose: &Pose) -> bool {
    let p = v3(pose.position.x as f32, pose.position.y as f32, pose.position.z as f32);
    let room = [(p.x, scene.room.x), (p.y, scene.room.y), (p.z, scene.room.z)];
    room.iter().all(|&(at, size)| at > CLEARANCE && at < size - CLEARANCE)
        && scene.solids.iter().all(|solid| solid.distance(p) > CLEARANCE)
}

/// Median depth of the first pose, where the camera keeps clear and sees something in every frame: one bare surface may
/// take up to `most_bare` of a view.
fn survey(scene: &Scene, kind: SceneKind, poses: &[Pose], intrinsics: &Intrinsics, most_bare: f32) -> Option<f64> {
    let (least, most) = match kind {
        SceneKind::TableTop => (0.3, 1.8),
        SceneKind::Room => (0.6, 6.0),
    };
    if !poses.iter().all(|pose| is_clear(scene, pose)) {
        return None;
    }
    let mut first = None;
    for pose in poses.iter().step_by(2) {
        let (depths, bare) = Eye::new(pose, intrinsics).survey(scene);
        let median = f64::from(depths[depths.len() / 2]);
        if median < least || median > most || bare > most_bare {
            return None;
        }
        first.get_or_insert(median);
    }
    first
}

/// What may be where a camera begins.
enum Stage {
    /// A scene with points in it that are worth looking at.
    Furnished(Scene, Vec<Vector3<f64>>),
    /// A plane.
    Facing(Facing),
}

impl Stage {
    fn random(seed: u64, index: u64, scene_number: u64, kind: SceneKind, stratum: Option<Stratum>) -> Self {
        let mut draw = Draw::new(seed, index, Stream::Scene, scene_number);
        if let Some(Stratum::Plane | Stratum::NoTexture) = stratum {
            return Self::Facing(facing(&mut draw, kind, stratum == Some(Stratum::Plane)));
        }
        let Layout { mut scene, targets } = layout(&mut draw, kind);
        match stratum {
            Some(Stratum::LowTexture) => weaken(&mut draw, &mut scene, kind),
            Some(Stratum::Texture) => enrich(&mut draw, &mut scene),
            _ => {}
        }
        let wide = |v: V3| Vector3::new(f64::from(v.x), f64::from(v.y), f64::from(v.z));
        Self::Furnished(scene, targets.into_iter().map(wide).collect())
    }

    fn scene(&self) -> &Scene {
        match self {
            Self::Furnished(scene, _) => scene,
            Self::Facing(facing) => &facing.scene,
        }
    }

    fn start(&self, draw: &mut Draw, kind: SceneKind) -> Option<Start> {
        match self {
            Self::Furnished(scene, targets) => {
                let V3 { x, y, z } = scene.room;
                start(draw, kind, Vector3::new(f64::from(x), f64::from(y), f64::from(z)), targets)
            }
            Self::Facing(facing) => Some(facing.start),
        }
    }
}

/// What a stratum asks of the motion, drawn once, not per attempt: what is easier to place must not become more
/// frequent.
struct Demand {
    stratum: Option<Stratum>,
    motion: MotionKind,
    /// Of a camera that only turns: over a window, radians.
    turn: f64,
    exposure: f64,
    most_bare: f32,
}

impl Demand {
    fn new(stratum: Option<Stratum>, draw: &mut Draw, kind: SceneKind, mut motion: MotionKind) -> Self {
        // A camera at rest is a stratum of its own.
        while stratum.is_some() && motion == MotionKind::Still {
            motion = MotionKind::random(draw, kind);
        }
        let turn = (draw.range(2.3f64.ln(), 24.0f64.ln())).exp().to_radians();
        let share = draw.range(1.0 / 3.0, 2.0 / 3.0);
        match stratum {
            Some(Stratum::Rotation) => motion = MotionKind::Pan,
            Some(Stratum::Still) => motion = MotionKind::Still,
            Some(Stratum::Fast) => {
                let weights = match kind {
                    SceneKind::Room => [0.4, 0.2, 0.4],
                    // Beside the table there is no table top.
                    SceneKind::TableTop => [0.0, 0.6, 0.4],
                };
                motion = [MotionKind::Pan, MotionKind::Orbit, MotionKind::Slide][draw.weighted(&weights)];
            }
            _ => {}
        }
        let exposure = if stratum == Some(Stratum::Blur) { share / (WINDOW - 1) as f64 } else { 0.0 };
        let most_bare = match stratum {
            Some(Stratum::Plane | Stratum::NoTexture) => 1.0,
            Some(Stratum::LowTexture) => 0.9,
            _ => 0.75,
        };
        Self { stratum, motion, turn, exposure, most_bare }
    }

    fn course(&self, draw: &mut Draw, kind: SceneKind, start: Start, scene: &Scene, intrinsics: &Intrinsics) -> Course {
        let path = Path::random(draw, kind, self.motion, start);
        let path = match self.stratum {
            Some(Stratum::Fast) => {
                let (depths, _) = Eye::new(&path.resting().at(0.0), intrinsics).survey(scene);
                let median_depth = f64::from(depths[depths.len() / 2]);
                return Course::Quick(Box::new(Quick::random(draw, self.motion, start, median_depth)));
            }
            Some(Stratum::Rotation) => path.turning(self.turn),
            Some(Stratum::Still) => path.resting(),
            Some(Stratum::Blur) => path.quickened(QUICKER),
            _ => path,
        };
        Course::Hand(Box::new(path))
    }

    fn met(&self, stage: &Stage, course: &Course, poses: &[Pose], intrinsics: &Intrinsics) -> bool {
        match self.stratum {
            Some(Stratum::Rotation) => {
                let angle = angle_deg(&poses[0], &poses[poses.len().min(WINDOW) - 1]);
                poses.len() < WINDOW || (2.0..25.0).contains(&angle)
            }
            Some(Stratum::Plane | Stratum::NoTexture) => match stage {
                Stage::Facing(Facing { scene, face, .. }) => poses.iter().all(|pose| {
                    let corners = Eye::new(pose, intrinsics).corners(scene);
                    corners.iter().all(|hit| hit.solid == ROOM && hit.face == *face && hit.t < 8.0)
                }),
                Stage::Furnished(..) => false,
            },
            Some(Stratum::Fast) => {
                let views: Vec<_> = poses.iter().map(|pose| Points::new(stage.scene(), pose, intrinsics)).collect();
                views.windows(2).all(|pair| pair[0].is_large_step(&pair[1], intrinsics))
            }
            Some(Stratum::Blur) => {
                let half = 0.5 * self.exposure;
                let mut lengths = Vec::with_capacity(poses.len());
                for (frame, pose) in poses.iter().enumerate() {
                    let ends = [-half, half].map(|shift| course.at(time_of(frame) + shift));
                    if !ends.iter().all(|end| is_clear(stage.scene(), end)) {
                        return false;
                    }
                    let flow = Points::new(stage.scene(), pose, intrinsics).flow(&ends[0], &ends[1], intrinsics);
                    lengths.push(flow[flow.len() / 2] * BLUR_WIDTH / f64::from(intrinsics.width));
                }
                lengths.sort_by(f64::total_cmp);
                let count = lengths.len();
                lengths[count / 5] > 4.0 && lengths[count / 2] > 8.0 && lengths[count - 1] < 45.0
            }
            _ => true,
        }
    }
}

fn angle_deg(a: &Pose, b: &Pose) -> f64 {
    let cosine = 0.5 * ((a.rotation.transpose() * b.rotation).trace() - 1.0);
    cosine.clamp(-1.0, 1.0).acos().to_degrees()
}

fn pixel(pose: &Pose, point_in_world: &Vector3<f64>, intrinsics: &Intrinsics) -> Option<Point2<f64>> {
    intrinsics.project(&Point3::from(pose.rotation.transpose() * (point_in_world - pose.position)))
}

/// Points that a camera sees, on a coarse grid.
pub(super) struct Points {
    pose: Pose,
    in_world: Vec<Vector3<f64>>,
    median_depth: f64,
}

impl Points {
    pub fn new(scene: &Scene, pose: &Pose, intrinsics: &Intrinsics) -> Self {
        let eye = Eye::new(pose, intrinsics);
        let mut depths = Vec::new();
        let mut in_world = Vec::new();
        for (u, v, depth) in eye.grid(scene) {
            let ray = intrinsics.back_project(&Point2::new(f64::from(u), f64::from(v)), f64::from(depth));
            in_world.push(pose.position + pose.rotation * ray.coords);
            depths.push(f64::from(depth));
        }
        depths.sort_by(f64::total_cmp);
        Self { pose: *pose, in_world, median_depth: depths[depths.len() / 2] }
    }

    /// Share of them inside another view, whatever may hide them there.
    fn shared(&self, with: &Pose, intrinsics: &Intrinsics) -> f64 {
        let (width, height) = (f64::from(intrinsics.width), f64::from(intrinsics.height));
        let inside = |point: &&Vector3<f64>| {
            pixel(with, point, intrinsics)
                .is_some_and(|p| (-0.5..width - 0.5).contains(&p.x) && (-0.5..height - 0.5).contains(&p.y))
        };
        self.in_world.iter().filter(inside).count() as f64 / self.in_world.len() as f64
    }

    /// Whether the step to another view is one of the stratum `fast`, a little within its bounds.
    fn is_large_step(&self, to: &Self, intrinsics: &Intrinsics) -> bool {
        let angle = angle_deg(&self.pose, &to.pose);
        let share = (to.pose.position - self.pose.position).norm() / self.median_depth;
        let large = angle > 8.3 || share > 0.17;
        let bounded = angle < 19.5 && share < 0.37;
        large && bounded && self.shared(&to.pose, intrinsics) > 0.54 && to.shared(&self.pose, intrinsics) > 0.54
    }

    /// How far they move in the image between two poses, pixels, in ascending order; at least one.
    pub fn flow(&self, from: &Pose, to: &Pose, intrinsics: &Intrinsics) -> Vec<f64> {
        let length =
            |point: &Vector3<f64>| Some((pixel(to, point, intrinsics)? - pixel(from, point, intrinsics)?).norm());
        let mut lengths: Vec<f64> = self.in_world.iter().filter_map(length).collect();
        lengths.sort_by(f64::total_cmp);
        if lengths.is_empty() {
            lengths.push(0.0);
        }
        lengths
    }
}

pub(super) fn plan(
    config: &SynthConfig,
    stratum: Option<Stratum>,
    seed: u64,
    index: u64,
    frames: usize,
    size: (u32, u32),
) -> Plan {
    let intrinsics = camera(config, &mut Draw::new(seed, index, Stream::Camera, 0), size);
    // Drawn once, not per attempt: what is easier to place must not become more frequent.
    let mut draw = Draw::new(seed, index, Stream::Motion, u64::MAX);
    let kind = if draw.chance(config.room_share) { SceneKind::Room } else { SceneKind::TableTop };
    let motion = MotionKind::random(&mut draw, kind);
    let demand = Demand::new(stratum, &mut Draw::new(seed, index, Stream::Stratum, 0), kind, motion);
    let mut scene_number = 0;
    loop {
        let stage = Stage::random(seed, index, scene_number, kind, stratum);
        for attempt in 0..PATHS_PER_SCENE {
            let mut draw = Draw::new(seed, index, Stream::Motion, scene_number * PATHS_PER_SCENE + attempt);
            let Some(start) = stage.start(&mut draw, kind) else {
                continue;
            };
            let course = demand.course(&mut draw, kind, start, stage.scene(), &intrinsics);
            let poses: Vec<_> = (0..frames).map(|frame| course.at(time_of(frame))).collect();
            if let Some(median_depth) = survey(stage.scene(), kind, &poses, &intrinsics, demand.most_bare)
                && demand.met(&stage, &course, &poses, &intrinsics)
            {
                let scene = match stage {
                    Stage::Furnished(scene, _) => scene,
                    Stage::Facing(facing) => facing.scene,
                };
                let (motion, exposure) = (demand.motion, demand.exposure);
                return Plan { scene, kind, motion, course, poses, intrinsics, median_depth, exposure };
            }
        }
        scene_number += 1;
    }
}
