//! Where the camera is at any time: a hand's path, or the large steps of the stratum `fast`. Time is counted in windows.

use super::draw::Draw;
use super::motion::{MotionKind, Path, Pose, Start, Tremor, axes, look};
use geometry::WINDOW;
use nalgebra::Vector3;
use std::f64::consts::TAU;

/// A camera's way.
pub(super) enum Course {
    Hand(Box<Path>),
    Quick(Box<Quick>),
}

impl Course {
    pub fn at(&self, time: f64) -> Pose {
        match self {
            Self::Hand(path) => path.at(time),
            Self::Quick(quick) => quick.at(time * (WINDOW - 1) as f64),
        }
    }
}

/// Steps of one size a frame, forth and back, so that a film of any length stays where it began.
pub(super) struct Quick {
    start: Start,
    /// Yaw and pitch past the target, and roll; radians.
    aside: [f64; 3],
    stride: Stride,
    /// Frames until it turns back.
    leg: f64,
    position_tremor: [Tremor; 3],
    angle_tremor: [Tremor; 3],
}

/// A step from frame to frame.
enum Stride {
    /// Radians about the vertical, on the spot.
    Pan(f64),
    /// Radians about the vertical through the target, which stays in view.
    Orbit(f64),
    /// Metres, with the gaze ahead.
    Slide(Vector3<f64>),
}

impl Quick {
    /// `motion` is a pan, an orbit, or else a slide; `median_depth` is that of the first frame, metres.
    pub fn random(draw: &mut Draw, motion: MotionKind, start: Start, median_depth: f64) -> Self {
        let aside = [0.08 * draw.normal(), 0.08 * draw.normal(), (0.045 * draw.normal()).clamp(-0.15, 0.15)];
        let turn = draw.sign() * draw.range(9.0, 18.0).to_radians();
        let (stride, leg) = match motion {
            MotionKind::Pan => (Stride::Pan(turn), draw.count(4, 10)),
            MotionKind::Orbit => (Stride::Orbit(turn), draw.count(4, 6)),
            _ => {
                let (yaw, pitch) = look(&(start.target - start.position));
                let view = axes(yaw, pitch, 0.0);
                let (around, ahead) = (draw.range(0.0, TAU), draw.range(-0.5, 0.5));
                // Rather sideways than up and down, as people and robots go.
                let direction = view.column(0) * around.cos() + view.column(1) * (0.6 * around.sin());
                let direction = direction.normalize() + view.column(2) * ahead;
                let metres = draw.range(0.18, 0.34) * median_depth;
                (Stride::Slide(direction.normalize() * metres), draw.count(2, 4))
            }
        };
        Self {
            start,
            aside,
            stride,
            leg: leg as f64,
            position_tremor: [0; 3].map(|_| Tremor::random(draw, 0.004 * median_depth)),
            angle_tremor: [0; 3].map(|_| Tremor::random(draw, 0.003)),
        }
    }

    fn at(&self, frame: f64) -> Pose {
        let within = frame.rem_euclid(2.0 * self.leg);
        let steps = within.min(2.0 * self.leg - within);
        let Start { position, target } = self.start;
        let out = position - target;
        let (place, mut yaw) = match self.stride {
            Stride::Pan(turn) => (position, steps * turn),
            Stride::Orbit(turn) => {
                let (sin, cos) = (steps * turn).sin_cos();
                (target + Vector3::new(cos * out.x - sin * out.y, sin * out.x + cos * out.y, out.z), steps * turn)
            }
            Stride::Slide(step) => (position + step * steps, 0.0),
        };
        let time = frame / (WINDOW - 1) as f64;
        let (ahead, pitch) = look(&-out);
        yaw += ahead;
        let mut angles = [yaw + self.aside[0], pitch + self.aside[1], self.aside[2]];
        for (angle, tremor) in angles.iter_mut().zip(&self.angle_tremor) {
            *angle += tremor.at(time);
        }
        let shake = Vector3::from_fn(|i, _| self.position_tremor[i].at(time));
        Pose { position: place + shake, rotation: axes(angles[0], angles[1].clamp(-1.45, 1.45), angles[2]) }
    }
}
