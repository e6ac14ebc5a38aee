//! The odometry in metres from the poses of another program, up to scale or not: its steps, with a scale that is named and has
//! a variance. No picture is looked at.
//!
//! A published pose is never changed and never rescaled, as in [`crate::fused`]. Where the other program falls silent for too
//! long, or its pose jumps further than any camera is thrown, it has lost its way and begun anew: a segment begins where
//! the camera was seen last, and the jump is not taken for motion.

use std::collections::VecDeque;

use geometry::{Camera, Stamp, Transform, WINDOW, WindowTrajectory, World};
use nalgebra::{Isometry3, Matrix3, Matrix6, Point3, Vector3};

use crate::Error;
use crate::fused::{Answer, Carried, Fix, of_stddevs};
use crate::metric::Metric;
use crate::scale::{Biases, Scale, Source};
use crate::unscaled::UpToScale;

/// Poses that are remembered for windows of late: a minute of 200 a second.
const REMEMBERED: usize = 12_000;
/// What a unit is taken for, metres as a logarithm, as long as nothing tells it: programs that see no scale choose it
/// so that what they see is some units away.
const TYPICAL_LOG: f64 = 0.0;
const TYPICAL_SIGMA: f64 = 1.0;
/// Noise of what poses that are metres already say of their unit.
const METRIC_NOISE: f64 = 0.001;
/// Changes of velocity that no camera goes through: three times the weight of what it sits on, m/s², and of what turns it, rad/s².
const MOST_ACCELERATION: f64 = 30.0;
const MOST_TURN_ACCELERATION: f64 = 100.0;
/// A shorter step is judged as one of so long, seconds: poses at the rate of an IMU are corrected at that of pictures.
const LEAST_SECONDS: f64 = 0.05;
/// Standard deviations by which a scale may be smaller than it is believed to be, when a way is called a jump.
const SCALE_CAUTION: f64 = 2.0;
/// Where the other program does not say how sure it is: standard deviations that grow with the way, and what they begin with,
/// as of a common visual odometry.
const GUESSED_DRIFT: f64 = 0.02;
const GUESSED_METRES: f64 = 0.005;
const GUESSED_RADIANS: f64 = 0.01;
const GUESSED_RADIANS_A_METRE: f64 = 0.02;

/// What the odometry goes by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Whether the poses are metres already.
    pub is_metric: bool,
    /// What the readings of a source share.
    pub biases: Biases,
    /// Standard deviation of the logarithm of a length that the model says of a window.
    pub model_noise: f64,
    /// A way of the odometry that gives the scale says nothing of it where it is shorter, metres.
    pub least_motion_metres: f64,
    /// What a break adds to standard deviations, metres and radians.
    pub break_stddev: (f64, f64),
    /// A longer silence is a break, nanoseconds.
    pub most_gap_nanos: i64,
    /// How long a way is kept back, at first, until a source has told the scale, nanoseconds; 0 where none is to come.
    pub patience_nanos: i64,
}

/// A pose as the other program has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Pose {
    /// When.
    pub stamp: Stamp,
    /// Where the camera is, in the other program's frame and unit.
    pub world_from_camera: Transform<World, Camera>,
    /// Of the position and of a turn about fixed axes, in that frame and unit; `None` where it does not say.
    pub covariance: Option<Matrix6<f64>>,
}

/// The odometry.
#[derive(Debug)]
pub struct Followed {
    options: Options,
    /// Of the other program's unit.
    metric: Metric,
    last: Option<Last>,
    /// Breaks.
    segment: u32,
    /// What breaks have added.
    broken: Matrix6<f64>,
    /// Of this segment.
    poses: VecDeque<(Stamp, Transform<World, Camera>)>,
}

/// The newest pose.
#[derive(Clone, Debug)]
struct Last {
    stamp: Stamp,
    theirs: Isometry3<f64>,
    ours: Isometry3<f64>,
    /// Of the step that led to it, their unit and radians in a second.
    velocity: Option<(Vector3<f64>, Vector3<f64>)>,
    /// Length of this segment, metres.
    way: f64,
}

impl Followed {
    /// Before the first pose.
    pub fn new(options: Options) -> Self {
        let mut followed = Self {
            options,
            metric: Metric::new(options.biases),
            last: None,
            segment: 0,
            broken: Matrix6::zeros(),
            poses: VecDeque::new(),
        };
        followed.begin_unit();
        followed
    }

    /// Begins anew at the origin, which is a break.
    pub fn reset(&mut self) {
        *self = Self { segment: self.segment + 1, ..Self::new(self.options) };
    }

    /// Begins anew where the camera is, which is a break: the next stamp may be any, of any clock and in any unit.
    pub fn cut(&mut self) {
        if self.last.is_none() {
            return;
        }
        self.metric.cut();
        self.begin_segment();
    }

    /// How many breaks there were.
    pub fn segment(&self) -> u32 {
        self.segment
    }

    /// When the newest pose of this segment was.
    pub fn newest(&self) -> Option<Stamp> {
        self.poses.back().map(|(stamp, _)| *stamp)
    }

    /// Metres for a unit, as the last step was made.
    pub fn metres(&self) -> Option<f64> {
        self.metric.metres()
    }

    /// Takes the model's lengths for as wrong as this from now on: the noise of a window, and what windows share.
    pub fn set_model_errors(&mut self, noise: f64, bias: f64) {
        self.options.model_noise = noise;
        self.options.biases.0[Source::Model as usize] = bias;
        self.metric.scale.set_biases(self.options.biases);
    }

    /// What is known of the scale, and which sources are held off.
    pub fn scale(&self) -> &Scale {
        &self.metric.scale
    }

    /// The poses at five stamps, in the unit of this segment; `None` where they are not all known.
    pub fn tracked(&self, stamps: &[Stamp; WINDOW]) -> Option<UpToScale> {
        let mut poses = [Transform::identity(); WINDOW];
        for (pose, stamp) in poses.iter_mut().zip(stamps) {
            *pose = self.at(*stamp)?;
        }
        Some(UpToScale::new(WindowTrajectory::from_world(&poses)))
    }

    /// Between the poses before and behind it.
    fn at(&self, stamp: Stamp) -> Option<Transform<World, Camera>> {
        let next = self.poses.partition_point(|(known, _)| *known < stamp);
        let (after, there) = self.poses.get(next)?;
        if *after == stamp {
            return Some(*there);
        }
        let (before, here) = self.poses.get(next.checked_sub(1)?)?;
        let share = stamp.nanos_since(*before) as f64 / after.nanos_since(*before) as f64;
        let between = here.isometry().try_lerp_slerp(there.isometry(), share, 1e-9)?;
        Some(Transform::from_isometry_unchecked(between))
    }

    /// The next pose. `position` is where the odometry that gives the scale had the camera at a stamp, metres.
    ///
    /// # Errors
    /// [`Error::PoseStamp`] where it is not newer than the last.
    pub fn push(&mut self, pose: &Pose, position: &dyn Fn(Stamp) -> Option<Point3<f64>>) -> Result<Fix, Error> {
        let theirs = *pose.world_from_camera.isometry();
        if let Some(last) = &self.last {
            let (last_nanos, got_nanos) = (last.stamp.nanos, pose.stamp.nanos);
            if got_nanos <= last_nanos && !self.poses.is_empty() {
                return Err(Error::PoseStamp { last_nanos, got_nanos });
            }
            let is_silence = pose.stamp.nanos_since(last.stamp) > self.options.most_gap_nanos;
            if !self.poses.is_empty() && (is_silence || self.is_jump(last, &theirs, pose.stamp)) {
                self.begin_segment();
            }
        }
        if self.poses.len() == REMEMBERED {
            self.poses.pop_front();
        }
        let is_first = self.poses.is_empty();
        self.poses.push_back((pose.stamp, pose.world_from_camera));
        self.metric.pass(pose.stamp, theirs.translation.vector);
        self.metric.measure(position, self.options.least_motion_metres);
        let scale = self.metric.choose();
        let (metres, sigma) = scale.map_or((1.0, TYPICAL_SIGMA), |scale| (scale.metres(), scale.sigma));
        let fix = |ours: Isometry3<f64>, covariance: Matrix6<f64>, segment: u32| Fix {
            stamp: pose.stamp,
            odom_from_camera: Transform::from_isometry_unchecked(ours).renormalized(),
            covariance,
            carried: match scale {
                Some(scale) if scale.source == Some(Source::Model) => Carried::Both,
                _ => Carried::Topic,
            },
            coasting_nanos: 0,
            segment,
            points: 0,
            scale,
        };
        let Some(last) = self.last.as_ref().filter(|_| !is_first) else {
            // The first camera is the origin; behind a break it is where it was seen last.
            let ours = self.last.as_ref().map_or_else(Isometry3::identity, |last| last.ours);
            self.last = Some(Last { stamp: pose.stamp, theirs, ours, velocity: None, way: 0.0 });
            return Ok(fix(ours, self.covariance(pose, &ours, (metres, 0.0)), self.segment));
        };
        let mut step = last.theirs.inverse() * theirs;
        let seconds = pose.stamp.nanos_since(last.stamp) as f64 * 1e-9;
        let velocity =
            (last.theirs.rotation * step.translation.vector / seconds, step.rotation.scaled_axis() / seconds);
        step.translation.vector *= metres;
        if self.metric.is_to_wait(pose.stamp, sigma, self.options.patience_nanos) {
            // It turns, and stays where it was: the way is told once its length is known.
            let mut ours = last.ours * step;
            ours.translation = last.ours.translation;
            let held = last.ours.rotation * step.translation.vector * (1.0 + sigma);
            let covariance = self.covariance(pose, &ours, (metres, last.way)) + of_stddevs(held.norm(), 0.0);
            return Ok(fix(ours, covariance, self.segment));
        }
        let ours = last.ours * step;
        let moved = ours.translation.vector - last.ours.translation.vector;
        let way = last.way + moved.norm();
        self.metric.step(&moved, scale.as_ref());
        self.last = Some(Last { stamp: pose.stamp, theirs, ours, velocity: Some(velocity), way });
        Ok(fix(ours, self.covariance(pose, &ours, (metres, way)), self.segment))
    }

    /// Takes what the model has said of a window: its lengths are a reading of the scale. Whether it is to be believed is the
    /// caller's to decide.
    pub fn take(&mut self, answer: &Answer) {
        if let Some((agreement, unit)) = &answer.agreement
            && let Some(log) = agreement.log_scale.filter(|_| *unit == Some(self.segment))
        {
            self.metric.scale.take(Source::Model, log, self.options.model_noise);
        }
    }

    /// What is known of a unit before anything has moved: a program that begins anew may choose another one, if any.
    fn begin_unit(&mut self) {
        let log = self.metric.scale.belief().map_or(TYPICAL_LOG, |known| known.log);
        self.metric.forget();
        if self.options.is_metric {
            self.metric.scale.take(Source::Topic, 0.0, METRIC_NOISE);
        } else {
            self.metric.scale.expect(log, TYPICAL_SIGMA);
        }
    }

    fn begin_segment(&mut self) {
        self.segment += 1;
        self.begin_unit();
        self.poses.clear();
        let (metres, radians) = self.options.break_stddev;
        self.broken += of_stddevs(metres, radians);
    }

    /// Whether the velocity changes as that of no camera does.
    fn is_jump(&self, last: &Last, theirs: &Isometry3<f64>, stamp: Stamp) -> bool {
        let seconds = stamp.nanos_since(last.stamp) as f64 * 1e-9;
        let Some(scale) = self.metric.scale.belief() else { return false };
        let metres = (scale.log - SCALE_CAUTION * scale.sigma).exp();
        let step = last.theirs.inverse() * theirs;
        let (before, turned_before) = last.velocity.unwrap_or_else(|| (Vector3::zeros(), Vector3::zeros()));
        let way = last.theirs.rotation * step.translation.vector - before * seconds;
        let turn = step.rotation.scaled_axis() - turned_before * seconds;
        let time = seconds.max(LEAST_SECONDS);
        way.norm() * metres > MOST_ACCELERATION * time * time || turn.norm() > MOST_TURN_ACCELERATION * time * time
    }

    /// In our axes and metres: the other program's, what a wrong scale adds, and breaks.
    fn covariance(&self, pose: &Pose, ours: &Isometry3<f64>, (metres, way): (f64, f64)) -> Matrix6<f64> {
        let own = match &pose.covariance {
            Some(theirs) => {
                let turn: Matrix3<f64> =
                    (ours.rotation * pose.world_from_camera.rotation().inverse()).to_rotation_matrix().into_inner();
                let mut both = Matrix6::zeros();
                both.fixed_view_mut::<3, 3>(0, 0).copy_from(&(turn * metres));
                both.fixed_view_mut::<3, 3>(3, 3).copy_from(&turn);
                both * theirs * both.transpose()
            }
            None => of_stddevs(GUESSED_METRES + GUESSED_DRIFT * way, GUESSED_RADIANS + GUESSED_RADIANS_A_METRE * way),
        };
        let mut covariance = own + self.broken;
        let mut positions = covariance.fixed_view_mut::<3, 3>(0, 0);
        positions += self.metric.covariance();
        covariance
    }
}
