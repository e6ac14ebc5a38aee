//! The odometry in metres: the stream's poses, a scale that is named and has a variance, and what the model says where the
//! tracks say nothing.
//!
//! A published pose is never changed and never rescaled: what becomes known of the scale later goes into the steps that
//! come later. Where a source is to be expected, the first way is kept back for a moment until it has spoken. So that a path does not change its measure for nothing, its scale changes only where what is known of it says that
//! it must: where the two are further apart than a standard deviation of what is well known, or two of what is hardly known. Where tracks are lost the last motion goes on,
//! the model's where it has said one since, and the covariance grows; a pose that then comes back further off than that
//! allows begins a segment, so that a jump is never taken for motion.

use std::collections::VecDeque;

use geometry::{Camera, Odom, Stamp, Transform, WINDOW, WindowTrajectory};
use nalgebra::{Isometry3, Matrix3, Matrix6, Point2, Point3, Translation3, Unit, UnitQuaternion, Vector3};

use crate::agreement::Agreement;
use crate::ground;
use crate::metric::Metric;
use crate::scale::{Belief, Biases, Scale, Source};
use crate::stream::{Basis, Pose, Stream, TrackedWindow};
use crate::{Error, Picture, stream};

/// What scenes are like: their median depth, metres, and the standard deviation of its logarithm.
const TYPICAL_DEPTH: f64 = 2.5;
const TYPICAL_SIGMA: f64 = 1.0;
/// Keyframes whose covariance is remembered.
const MARKS: usize = 32;
/// Standard deviation of a motion that is taken to go on: of its length and its angle, and what any step adds, of the typical
/// depth and radians.
const GUESSED: f64 = 0.5;
const GUESSED_METRES: f64 = 0.002;
const GUESSED_RADIANS: f64 = 0.004;
/// Of the first pose, which is the origin: no filter takes a variance of 0.
const ORIGIN_METRES: f64 = 1e-4;
const ORIGIN_RADIANS: f64 = 1e-4;
/// Standard deviations that a pose may come back from where it was taken to be before that is a break.
const MOST_OFF: f64 = 3.0;
/// How long a motion that the model has said is taken to go on, nanoseconds.
const SAID_FOR_NANOS: i64 = 2_000_000_000;

/// How the camera stands over the ground.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CameraHeight {
    /// Over the ground, metres.
    pub metres: f64,
    /// Where down is, in the camera's frame, on even ground.
    pub down: Unit<Vector3<f64>>,
}

/// What the odometry goes by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// The tracks.
    pub stream: stream::Options,
    /// What the readings of a source share.
    pub biases: Biases,
    /// Standard deviation of the logarithm of a length that the model says of a window.
    pub model_noise: f64,
    /// How high the camera is, where that is known.
    pub camera_height: Option<CameraHeight>,
    /// A way of the other odometry that is shorter says nothing of the scale, metres.
    pub least_motion_metres: f64,
    /// What a break adds to standard deviations, metres and radians.
    pub break_stddev: (f64, f64),
    /// How long a way is kept back, at first, until a source has told the scale, nanoseconds; 0 where none is to come.
    pub patience_nanos: i64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            stream: stream::Options::default(),
            biases: Biases::default(),
            model_noise: 1.0,
            camera_height: None,
            least_motion_metres: 0.05,
            break_stddev: (1.0, 30_f64.to_radians()),
            patience_nanos: 0,
        }
    }
}

/// What a pose stands on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Carried {
    /// The tracks; metres, if any, by another odometry or the camera's height.
    Tracks,
    /// The motion that the model said last, going on.
    Model,
    /// The tracks, or the poses of another program, with metres by the model.
    Both,
    /// The poses of another program ([`crate::followed`]); metres, if any, by itself or another odometry.
    Topic,
    /// The last motion, going on: neither knows better.
    #[default]
    Nothing,
}

impl Carried {
    /// As it is reported.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tracks => "tracks",
            Self::Model => "model",
            Self::Both => "both",
            Self::Topic => "topic",
            Self::Nothing => "nothing",
        }
    }
}

/// The pose of one frame, in metres as far as the scale is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Fix {
    /// When.
    pub stamp: Stamp,
    /// Where the camera is; the frame begins at the first picture.
    pub odom_from_camera: Transform<Odom, Camera>,
    /// Of the position and of a turn about fixed axes, in the axes of the odometry's frame; metres and radians.
    pub covariance: Matrix6<f64>,
    /// What it stands on.
    pub carried: Carried,
    /// Nanoseconds since tracks last carried a pose.
    pub coasting_nanos: i64,
    /// How many breaks the odometry has had.
    pub segment: u32,
    /// Points of known depth that the frame sees.
    pub points: usize,
    /// Metres for a unit of the tracks: what the steps are made with, and how far that may be off; `None` as long as
    /// nothing has moved enough for a depth.
    pub scale: Option<Belief>,
}

/// What the model has said of a window.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Of its pictures.
    pub stamps: [Stamp; WINDOW],
    /// Its poses, in metres.
    pub trajectory: WindowTrajectory,
    /// Standard deviations of the last pose, of each axis: metres and radians.
    pub stddev: (f64, f64),
    /// How it stands to the tracks, where there were any, and in which segment's unit.
    pub agreement: Option<(Agreement, Option<u32>)>,
}

/// The odometry.
#[derive(Debug)]
pub struct Fused {
    options: Options,
    stream: Stream,
    /// Of the stream's unit.
    metric: Metric,
    /// What was published last.
    last: Option<Known>,
    /// The last frame that the tracks carried, and where it is for the stream.
    reference: Option<(Isometry3<f64>, Known)>,
    /// Breaks, and those of the stream that are among them.
    segment: u32,
    stream_segment: u32,
    /// Keyframes of late.
    marks: VecDeque<Known>,
    said: Option<Said>,
}

/// A pose that was published, with its covariance but for the scale's share.
#[derive(Clone, Debug)]
struct Known {
    stamp: Stamp,
    pose: Isometry3<f64>,
    covariance: Matrix6<f64>,
}

/// A motion in a second, in the camera's frame, and how sure.
#[derive(Clone, Copy, Debug)]
struct Said {
    until: Stamp,
    way: Vector3<f64>,
    turn: Vector3<f64>,
    stddev: (f64, f64),
}

impl Fused {
    /// Before the first picture.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            stream: Stream::new(options.stream),
            metric: Metric::new(options.biases),
            last: None,
            reference: None,
            segment: 0,
            stream_segment: 0,
            marks: VecDeque::new(),
            said: None,
        }
    }

    /// Begins anew at the origin, which is a break.
    pub fn reset(&mut self) {
        *self = Self { segment: self.segment + 1, ..Self::new(self.options) };
    }

    /// Begins anew where the camera is, which is a break: the next stamp may be any, of any camera.
    pub fn cut(&mut self) {
        if self.last.is_none() {
            return;
        }
        self.stream = Stream::new(self.options.stream);
        self.metric.cut();
        // Stamps of before cannot be compared.
        (self.stream_segment, self.said) = (0, None);
        self.begin_segment();
    }

    /// How many breaks there were.
    pub fn segment(&self) -> u32 {
        self.segment
    }

    /// Metres for a unit of the tracks, as the last step was made; `None` before there is a depth.
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

    /// As [`Stream::seen`].
    pub fn seen(&self) -> &[(u64, Point2<f64>)] {
        self.stream.seen()
    }

    /// Five of the last pictures as the tracks have them.
    pub fn tracked(&self, stamps: &[Stamp; WINDOW]) -> Option<TrackedWindow> {
        self.stream.tracked(stamps)
    }

    /// The pose of the next picture. `position` is where another odometry had the camera at a stamp, metres.
    ///
    /// # Errors
    /// As [`Stream::push`].
    pub fn push(&mut self, picture: Picture, position: &dyn Fn(Stamp) -> Option<Point3<f64>>) -> Result<Fix, Error> {
        let pose = self.stream.push(picture)?;
        if pose.segment != self.stream_segment {
            self.stream_segment = pose.segment;
            self.metric.begin_segment();
            self.begin_segment();
        }
        if let (false, Some(depth)) = (self.metric.scale.is_expected(), self.stream.median_depth()) {
            self.metric.scale.expect((TYPICAL_DEPTH / depth).ln(), TYPICAL_SIGMA);
        }
        self.measure(&pose, position);
        let scale = self.metric.choose();
        let (known, carried) = self.place(&pose, scale.as_ref());
        let coasting_nanos = self.reference.as_ref().map_or(0, |(_, at)| pose.stamp.nanos_since(at.stamp));
        let mut covariance = known.covariance;
        let mut positions = covariance.fixed_view_mut::<3, 3>(0, 0);
        positions += self.metric.covariance();
        let fix = Fix {
            stamp: pose.stamp,
            odom_from_camera: Transform::from_isometry_unchecked(known.pose).renormalized(),
            covariance,
            carried,
            coasting_nanos,
            segment: self.segment,
            points: pose.points,
            scale,
        };
        if pose.is_keyframe || self.marks.is_empty() {
            if self.marks.len() == MARKS {
                self.marks.pop_front();
            }
            self.marks.push_back(known.clone());
        }
        self.last = Some(known);
        Ok(fix)
    }

    /// Takes what the model has said of a window: its lengths are a reading of the scale, and its motion is what goes on where
    /// tracks are lost. Whether it is to be believed is the caller's to decide.
    pub fn take(&mut self, answer: &Answer) {
        if let Some((agreement, unit)) = &answer.agreement
            && let Some(log) = agreement.log_scale.filter(|_| *unit == Some(self.stream_segment))
        {
            self.metric.scale.take(Source::Model, log, self.options.model_noise);
        }
        let seconds = answer.stamps[WINDOW - 1].nanos_since(answer.stamps[0]) as f64 * 1e-9;
        if seconds > 0.0 && self.said.is_none_or(|said| said.until < answer.stamps[WINDOW - 1]) {
            let end = &answer.trajectory.anchor_from_camera()[WINDOW - 1];
            self.said = Some(Said {
                until: answer.stamps[WINDOW - 1],
                // Of the camera at the end, whose axes the next steps begin with.
                way: end.rotation().inverse() * end.translation() / seconds,
                turn: end.rotation().scaled_axis() / seconds,
                stddev: (answer.stddev.0 / seconds, answer.stddev.1 / seconds),
            });
        }
    }

    fn begin_segment(&mut self) {
        self.segment += 1;
        self.reference = None;
        self.marks.clear();
        if let Some(last) = &mut self.last {
            let (metres, radians) = self.options.break_stddev;
            for axis in 0..3 {
                last.covariance[(axis, axis)] += metres * metres;
                last.covariance[(axis + 3, axis + 3)] += radians * radians;
            }
            self.marks.push_back(last.clone());
        }
    }

    /// Readings of the scale that a frame brings.
    fn measure(&mut self, pose: &Pose, position: &dyn Fn(Stamp) -> Option<Point3<f64>>) {
        for revised in self.stream.take_revised() {
            self.metric.pass(revised.stamp, revised.value.translation());
        }
        if pose.basis != Basis::Tracks {
            return;
        }
        // The frame that began the map is among the revised.
        self.metric.pass(pose.stamp, pose.odom_from_camera.translation());
        self.metric.measure(position, self.options.least_motion_metres);
        // Frames between keyframes tell the same again.
        let is_news = pose.is_keyframe || !self.metric.scale.has_read(Source::CameraHeight);
        if let Some(height) = self.options.camera_height.filter(|_| is_news)
            && let Some(ground) = ground::find(&self.stream.points_in_camera(), &height.down)
        {
            self.metric.scale.take(Source::CameraHeight, (height.metres / ground.height).ln(), ground.sigma);
        }
    }

    /// Where the frame is, its covariance but for the scale's share, and on what that stands.
    fn place(&mut self, pose: &Pose, scale: Option<&Belief>) -> (Known, Carried) {
        let here = *pose.odom_from_camera.isometry();
        if pose.basis == Basis::Motion {
            return self.coasted(pose);
        }
        let before = self.last.clone();
        let start = before.clone().unwrap_or_else(|| Known {
            stamp: pose.stamp,
            pose: Isometry3::identity(),
            covariance: Matrix6::zeros(),
        });
        // Before there is a map its unit is a depth, which may as well be larger.
        let unknown = TYPICAL_DEPTH * TYPICAL_SIGMA.exp();
        let (metres, sigma) = scale.map_or((unknown, 0.0), |scale| (scale.metres(), scale.sigma));
        let (there, known) = self.reference.take().unwrap_or_else(|| (here, start.clone()));
        let mut step = there.inverse() * here;
        step.translation.vector *= metres;
        if self.metric.is_to_wait(pose.stamp, sigma, self.options.patience_nanos) {
            // It turns, and stays where it was: that far it may be off.
            let way = step.translation.vector.norm() * (1.0 + sigma);
            step.translation.vector.fill(0.0);
            let covariance = known.covariance + of_step(&pose.covariance, &known.pose, metres) + of_stddevs(way, 0.0);
            let placed = Known { stamp: pose.stamp, pose: known.pose * step, covariance };
            self.reference = Some((there, Known { stamp: pose.stamp, ..known }));
            return (placed, Carried::Tracks);
        }
        let placed = known.pose * step;
        let moved_by = placed.translation.vector - known.pose.translation.vector;
        self.metric.step(&moved_by, scale);
        let mark = self.marks.iter().rev().find(|mark| mark.stamp <= pose.reference).unwrap_or(&known);
        let covariance = if before.is_none() {
            // The first camera is the origin.
            of_stddevs(ORIGIN_METRES, ORIGIN_RADIANS)
        } else {
            moved(mark, &placed) + of_step(&pose.covariance, &placed, metres)
        };
        if let Some(before) = before.filter(|before| before.stamp > known.stamp) {
            // It is back after a motion that was taken to go on.
            let off = (placed.translation.vector - before.pose.translation.vector).norm();
            let of_scale = self.metric.covariance().trace();
            let allowed = MOST_OFF * (before.covariance.fixed_view::<3, 3>(0, 0).trace() + of_scale).sqrt();
            let turned = placed.rotation.angle_to(&before.pose.rotation);
            let may_turn = MOST_OFF * before.covariance.fixed_view::<3, 3>(3, 3).trace().sqrt();
            if off > allowed || turned > may_turn {
                self.segment += 1;
            }
        }
        let placed = Known { stamp: pose.stamp, pose: placed, covariance };
        self.reference = Some((here, placed.clone()));
        let is_by_model = scale.is_some_and(|scale| scale.source == Some(Source::Model));
        (placed, if is_by_model { Carried::Both } else { Carried::Tracks })
    }

    /// A frame that the tracks say nothing of: the motion goes on.
    fn coasted(&mut self, pose: &Pose) -> (Known, Carried) {
        let Some(last) = self.last.clone() else {
            let (metres, radians) = self.options.break_stddev;
            let covariance = of_stddevs(metres, radians);
            return (Known { stamp: pose.stamp, pose: Isometry3::identity(), covariance }, Carried::Nothing);
        };
        let seconds = pose.stamp.nanos_since(last.stamp) as f64 * 1e-9;
        let since = self.reference.as_ref().map(|(_, known)| known.stamp);
        // What it said of the time since tracks were lost, in part at least.
        let said = self.said.filter(|said| {
            since.is_none_or(|since| said.until > since) && pose.stamp.nanos_since(said.until) < SAID_FOR_NANOS
        });
        let (step, stddev, carried) = match said {
            Some(said) => {
                let step = Isometry3::from_parts(
                    Translation3::from(said.way * seconds),
                    UnitQuaternion::from_scaled_axis(said.turn * seconds),
                );
                (step, (said.stddev.0 * seconds, said.stddev.1 * seconds), Carried::Model)
            }
            None => {
                let step = self.motion(&last, seconds);
                let way = GUESSED * step.translation.vector.norm() + GUESSED_METRES * TYPICAL_DEPTH;
                (step, (way, GUESSED * step.rotation.angle() + GUESSED_RADIANS), Carried::Nothing)
            }
        };
        let placed = last.pose * step;
        let covariance = moved(&last, &placed) + of_stddevs(stddev.0, stddev.1);
        (Known { stamp: pose.stamp, pose: placed, covariance }, carried)
    }

    /// The last motion that the tracks told, going on for so long.
    fn motion(&self, last: &Known, seconds: f64) -> Isometry3<f64> {
        let mut tracked = self.marks.iter().rev().filter(|mark| mark.stamp < last.stamp);
        let Some((from, to)) = tracked.next().zip(self.reference.as_ref().map(|(_, known)| known)) else {
            return Isometry3::identity();
        };
        let time = to.stamp.nanos_since(from.stamp) as f64 * 1e-9;
        if time <= 0.0 {
            return Isometry3::identity();
        }
        let step = from.pose.inverse() * to.pose;
        let share = (seconds / time).min(1.0);
        Isometry3::from_parts(
            Translation3::from(step.rotation.inverse() * step.translation.vector * share),
            UnitQuaternion::from_scaled_axis(step.rotation.scaled_axis() * share),
        )
    }
}

/// The covariance at `known` as it is at `there`: what was turned wrongly moves what lies ahead.
fn moved(known: &Known, there: &Isometry3<f64>) -> Matrix6<f64> {
    let way = there.translation.vector - known.pose.translation.vector;
    let mut lever = Matrix6::identity();
    lever.fixed_view_mut::<3, 3>(0, 3).copy_from(&-way.cross_matrix());
    lever * known.covariance * lever.transpose()
}

/// From a step at the left of `camera_from_odom`, rotation first, in the unit of the tracks, to position and turn in the odometry's axes.
fn of_step(covariance: &Matrix6<f64>, placed: &Isometry3<f64>, metres: f64) -> Matrix6<f64> {
    let rotation: Matrix3<f64> = placed.rotation.to_rotation_matrix().into_inner();
    let mut turned = Matrix6::zeros();
    turned.fixed_view_mut::<3, 3>(0, 3).copy_from(&(rotation * metres));
    turned.fixed_view_mut::<3, 3>(3, 0).copy_from(&rotation);
    turned * covariance * turned.transpose()
}

/// The covariance of the same standard deviations along each axis: positions, then turns.
pub(crate) fn of_stddevs(metres: f64, radians: f64) -> Matrix6<f64> {
    let (t, r) = (metres.powi(2), radians.powi(2));
    Matrix6::from_diagonal(&nalgebra::Vector6::new(t, t, t, r, r, r))
}
