//! Smooth hand-held camera paths. Time is counted in windows: 0 is a window's first frame, 1 its fifth, and a longer
//! sequence goes on from there. Every channel is bounded, so a path of any length stays near where it began.

use super::SceneKind;
use super::draw::Draw;
use nalgebra::{Matrix3, Vector3};
use std::f64::consts::TAU;

/// How the camera moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MotionKind {
    /// Sideways and up or down around a point that stays in view.
    Orbit,
    /// Forward or backward, swaying and slowly turning.
    Walk,
    /// Left, right, up or down with the gaze ahead.
    Slide,
    /// Mostly turning: pan and tilt.
    Pan,
    /// Anything smooth in six degrees of freedom.
    Free,
    /// Nearly at rest.
    Still,
}

impl MotionKind {
    pub(super) fn random(draw: &mut Draw, kind: SceneKind) -> Self {
        let weights = match kind {
            SceneKind::TableTop => [0.45, 0.10, 0.15, 0.10, 0.15, 0.05],
            SceneKind::Room => [0.15, 0.27, 0.18, 0.17, 0.18, 0.05],
        };
        [Self::Orbit, Self::Walk, Self::Slide, Self::Pan, Self::Free, Self::Still][draw.weighted(&weights)]
    }
}

/// A camera's place and axes in the world (z up, metres): right, down, forward are its x, y, z.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pose {
    pub position: Vector3<f64>,
    /// Columns right, down, forward: `world_from_camera`.
    pub rotation: Matrix3<f64>,
}

/// A slow wave with value 0 at time 0 and 1 at time 1.
#[derive(Debug, Clone, Copy)]
struct Wave {
    frequency: f64,
    phase: f64,
    scale: f64,
}

impl Wave {
    fn random(draw: &mut Draw) -> Self {
        let (frequency, phase) = (draw.range(0.08, 0.2), draw.range(-0.8, 0.4));
        let rise = (TAU * frequency + phase).sin() - phase.sin();
        Self { frequency, phase, scale: 1.0 / rise }
    }

    fn at(&self, time: f64) -> f64 {
        self.scale * ((TAU * self.frequency * time + self.phase).sin() - self.phase.sin())
    }
}

/// Tremor of the hand: two quicker waves.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tremor([(f64, f64, f64); 2]);

impl Tremor {
    pub fn random(draw: &mut Draw, amplitude: f64) -> Self {
        Self([0; 2].map(|_| (amplitude * draw.normal() * 0.7, draw.range(0.5, 2.4), draw.range(0.0, TAU))))
    }

    pub fn at(&self, time: f64) -> f64 {
        self.0.iter().map(|(a, f, p)| a * (TAU * f * time + p).sin()).sum()
    }
}

/// Where the camera begins and what it looks at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    pub position: Vector3<f64>,
    pub target: Vector3<f64>,
}

/// A path: waves in position and angles, with the gaze held on a point where the motion is an orbit.
pub(super) struct Path {
    start: Vector3<f64>,
    shift: Vector3<f64>,
    position_waves: [Wave; 3],
    position_tremor: [Tremor; 3],
    /// Yaw about the vertical (0 along +x, to the left), pitch up, roll clockwise; radians.
    angles: [f64; 3],
    turns: [f64; 3],
    angle_waves: [Wave; 3],
    angle_tremor: [Tremor; 3],
    /// Held point, for an orbit.
    gaze: Option<Vector3<f64>>,
}

pub(super) fn look(direction: &Vector3<f64>) -> (f64, f64) {
    (direction.y.atan2(direction.x), direction.z.atan2(direction.xy().norm()))
}

/// Columns right, down, forward of a camera with this yaw, pitch and roll.
pub(super) fn axes(yaw: f64, pitch: f64, roll: f64) -> Matrix3<f64> {
    let forward = Vector3::new(pitch.cos() * yaw.cos(), pitch.cos() * yaw.sin(), pitch.sin());
    let right = Vector3::new(yaw.sin(), -yaw.cos(), 0.0);
    let down = forward.cross(&right);
    let turned_right = right * roll.cos() + down * roll.sin();
    let turned_down = down * roll.cos() - right * roll.sin();
    Matrix3::from_columns(&[turned_right, turned_down, forward])
}

impl Path {
    pub fn random(draw: &mut Draw, scene: SceneKind, motion: MotionKind, start: Start) -> Self {
        let gaze = start.target - start.position;
        let (yaw, pitch) = look(&gaze);
        // Off the target a little: a person does not centre things.
        let angles =
            [yaw + 0.12 * draw.normal(), pitch + 0.08 * draw.normal(), (0.045 * draw.normal()).clamp(-0.15, 0.15)];
        let view = axes(angles[0], angles[1], 0.0);
        let (right, up, forward) = (view.column(0).into_owned(), -view.column(1), view.column(2).into_owned());

        let (median, low, high) = match scene {
            SceneKind::TableTop => (0.06, 0.02, 0.15),
            SceneKind::Room => (0.2, 0.05, 0.6),
        };
        let walked = draw.log_normal(median, 0.55).clamp(low, high);
        let turned = |draw: &mut Draw, median: f64| draw.log_normal(median, 0.75).clamp(0.3, 25.0).to_radians();
        let (direction, metres, radians) = match motion {
            MotionKind::Orbit => {
                let around = draw.range(0.0, TAU);
                // Rather round the target than over it.
                let d = right * around.cos() + up * (0.6 * around.sin()) + forward * draw.range(-0.4, 0.4);
                (d, walked * 1.15, turned(draw, 1.0))
            }
            MotionKind::Walk => {
                let level = Vector3::new(forward.x, forward.y, 0.0);
                let level = if scene == SceneKind::Room { level } else { forward };
                let d = level.normalize() * draw.sign() + right * draw.range(-0.3, 0.3) + up * draw.range(-0.1, 0.1);
                (d, walked * 1.3, turned(draw, 4.0))
            }
            MotionKind::Slide => {
                let along = if draw.chance(0.7) { right } else { up };
                let d = along * draw.sign()
                    + right * draw.range(-0.3, 0.3)
                    + up * draw.range(-0.3, 0.3)
                    + forward * draw.range(-0.3, 0.3);
                (d, walked, turned(draw, 4.0))
            }
            MotionKind::Pan => (Vector3::from(draw.direction()), walked * 0.5, turned(draw, 13.0)),
            MotionKind::Free => (Vector3::from(draw.direction()), walked, turned(draw, 9.0)),
            MotionKind::Still => {
                (Vector3::from(draw.direction()), draw.range(0.0, 0.004), draw.range(0.0, 0.3).to_radians())
            }
        };
        let metres = if motion == MotionKind::Still { metres } else { metres.clamp(low, high) };
        let plane = match draw.count(0, 2) {
            // Mostly pan, mostly tilt, or both.
            0 => draw.range(-0.3, 0.3),
            1 => TAU / 4.0 + draw.range(-0.3, 0.3),
            _ => draw.range(0.0, TAU),
        };
        let side = draw.sign();
        let roll = 0.25 * draw.normal();
        let turns = [side * radians * plane.cos(), side * radians * plane.sin(), (radians * roll).clamp(-0.09, 0.09)];
        let still = if motion == MotionKind::Still { 0.3 } else { 1.0 };
        let hand = still * draw.range(0.2, 1.0);
        Self {
            start: start.position,
            shift: direction.normalize() * metres,
            position_waves: {
                // One main wave with slightly different companions bends the path.
                let main = Wave::random(draw);
                let other = Wave::random(draw);
                let mut waves = [main; 3];
                waves[draw.count(0, 2)] = other;
                waves
            },
            position_tremor: [0; 3].map(|_| Tremor::random(draw, 0.0015 * hand)),
            angles,
            turns,
            angle_waves: [0; 3].map(|_| Wave::random(draw)),
            angle_tremor: [0; 3].map(|_| Tremor::random(draw, 0.003 * hand)),
            gaze: (motion == MotionKind::Orbit).then_some(start.target),
        }
    }

    /// The path with all its motions so many times as large, but for the tremor.
    pub fn quickened(mut self, factor: f64) -> Self {
        self.shift *= factor;
        self.turns = self.turns.map(|turn| turn * factor);
        self
    }

    /// The turns alone, scaled to about `radians` over a window: the camera's position is the same to the bit at all
    /// times.
    pub fn turning(mut self, radians: f64) -> Self {
        let scale = radians / self.turns[0].hypot(self.turns[1]).max(1e-9);
        self.turns = [self.turns[0] * scale, self.turns[1] * scale, (self.turns[2] * scale).clamp(-0.09, 0.09)];
        self.shift = Vector3::zeros();
        self.position_tremor = Default::default();
        self.gaze = None;
        self
    }

    /// The path at rest: its pose is the same to the bit at all times.
    pub fn resting(mut self) -> Self {
        self = self.turning(0.0);
        self.angle_tremor = Default::default();
        self
    }

    /// Pose at `time`, in windows.
    pub fn at(&self, time: f64) -> Pose {
        let position = Vector3::from_fn(|i, _| {
            self.start[i] + self.shift[i] * self.position_waves[i].at(time) + self.position_tremor[i].at(time)
        });
        let mut angles = self.angles;
        if let Some(target) = self.gaze {
            let (yaw_before, pitch_before) = look(&(target - self.start));
            let (yaw, pitch) = look(&(target - position));
            angles[0] += yaw - yaw_before;
            angles[1] += pitch - pitch_before;
        }
        for (i, angle) in angles.iter_mut().enumerate() {
            *angle += self.turns[i] * self.angle_waves[i].at(time) + self.angle_tremor[i].at(time);
        }
        // Waves of a long path may add up: the camera stays roughly upright.
        Pose { position, rotation: axes(angles[0], angles[1].clamp(-1.45, 1.45), angles[2].clamp(-0.175, 0.175)) }
    }
}

/// A place for the camera and a point to look at, or none where this draw does not work out.
pub(super) fn start(draw: &mut Draw, kind: SceneKind, room: Vector3<f64>, targets: &[Vector3<f64>]) -> Option<Start> {
    let target = targets[draw.count(0, targets.len().checked_sub(1)?)];
    let margin = 0.25;
    let inside = |p: &Vector3<f64>| (0..3).all(|i| p[i] > margin && p[i] < room[i] - margin);
    let position = match kind {
        SceneKind::TableTop => {
            let distance = draw.range(0.4, 1.2);
            let (around, above) = (draw.range(0.0, TAU), draw.range(0.22, 1.1));
            target + Vector3::new(above.cos() * around.cos(), above.cos() * around.sin(), above.sin()) * distance
        }
        SceneKind::Room => {
            let at = |draw: &mut Draw, size: f64| draw.range(0.4, size - 0.4);
            Vector3::new(at(draw, room.x), at(draw, room.y), draw.range(0.9, 1.8))
        }
    };
    let gaze = target - position;
    let usable = match kind {
        SceneKind::TableTop => true,
        SceneKind::Room => gaze.norm() > 1.0 && look(&gaze).1.abs() < 0.6,
    };
    (usable && inside(&position)).then_some(Start { position, target })
}
