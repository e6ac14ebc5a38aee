//! The fast clock: each image in, a pose out, without waiting for the model.
//!
//! Its poses are those of tracked points, or those of another program's topic ([`super::topic`]); then images only tell what
//! time it is.
//!
//! Architecture Invariant: no clock is read here and no thread is here. What the model says comes in between two images,
//! through [`Tracker::take`], and the same messages and answers in the same order give the same poses.

use std::sync::Arc;
use std::time::Duration;

use geometry::{Stamp, WINDOW, WindowTrajectory};
use model::answer::measured::Measured;
use model::weights::manifest::ScaleErrors;
use nalgebra::{Point2, Point3};
use odometry::agreement::{self, Agreement};
use odometry::followed::{self, Followed};
use odometry::fused::{Answer, Carried, Fix, Fused, Options};
use odometry::scale::{Biases, Source};
use odometry::stream::TrackedWindow;
use odometry::{Grey, Picture, UpToScale};

use super::scale::Reference;
use super::scale::value::Scale;
use super::topic;
use crate::config::{CheckRules, Mount, OdometryRules, OdometrySource, TrustRules};
use crate::ros::message::OdometryMessage;
use crate::status::counters::{Fate, Stats};
use crate::trust::tracking::Tracking;
use crate::window::frame::Frame;
use crate::window::{Accepted, Restart, View};

/// How long the first way is kept back until a source has told the scale.
const PATIENCE_NANOS: i64 = 1_000_000_000;
/// How long a window waits for the other program's poses of its images.
const WINDOW_PATIENCE_NANOS: i64 = 1_000_000_000;

/// A pose that comes out.
#[derive(Debug, Clone)]
pub struct Posed {
    /// The pose.
    pub fix: Fix,
    /// The camera.
    pub view: View,
}

/// A window as the fast clock has it, and metres for its unit when it was complete.
#[derive(Debug, Clone)]
pub struct Tracked {
    window: Known,
    metres: Option<f64>,
}

/// By what it is known.
#[derive(Debug, Clone)]
enum Known {
    Tracks(TrackedWindow),
    /// The poses of another program, and the segment whose unit they are in.
    Topic(UpToScale, u32),
}

impl Tracked {
    /// The poses in metres, as far as a scale is known; `None` where the poses have a unit of their own.
    pub fn trajectory(&self) -> Option<WindowTrajectory> {
        let poses = match &self.window {
            Known::Tracks(window) => &window.trajectory,
            Known::Topic(trajectory, _) => trajectory,
        };
        let metres = self.metres.filter(|_| self.unit().is_some())?;
        Some(poses.in_metres(metres))
    }

    /// The points and the poses of the window, where there are points with depths.
    pub fn measured(&self) -> Option<Measured> {
        let Known::Tracks(window) = &self.window else { return None };
        Measured::choose(&window.tracks.in_all(&window.camera), window.trajectory.shape())
    }

    fn unit(&self) -> Option<u32> {
        match &self.window {
            Known::Tracks(window) => window.unit,
            Known::Topic(_, segment) => Some(*segment),
        }
    }

    fn compare(&self, said: &WindowTrajectory) -> Agreement {
        match &self.window {
            Known::Tracks(window) => agreement::compare(said, window),
            Known::Topic(trajectory, _) => agreement::compare_followed(said, trajectory),
        }
    }
}

/// What the fast clock is told by the other.
#[derive(Debug, Clone)]
pub enum Told {
    /// The model is loaded, and this is how far its lengths are off.
    Loaded(Option<ScaleErrors>),
    /// It has answered, and the answer does not contradict the tracks.
    Answered(Box<Answer>),
    /// It has failed and is gone, and why.
    Failed(String),
}

/// What a tracker is made of.
#[derive(Debug)]
pub struct Given<'a> {
    /// How the odometry is made.
    pub rules: &'a OdometryRules,
    /// What is made of answers.
    pub trust: &'a TrustRules,
    /// The odometry that gives the scale, where one does.
    pub reference: Option<Arc<Reference>>,
    /// How the camera sits on the robot.
    pub mount: Option<Mount>,
    /// Whether there is a model.
    pub has_model: bool,
}

/// Poses the images of one camera in the order in which they come.
#[derive(Debug)]
pub struct Tracker {
    rules: OdometryRules,
    clock: Clock,
    mount: Option<Mount>,
    reference: Option<Arc<Reference>>,
    stats: Arc<Stats>,
    /// Whether anything is to tell the scale.
    has_source: bool,
    /// Nothing came out for the last frame, since nothing told the motion.
    is_lost: bool,
    /// Breaks behind which the tracks themselves saw none.
    breaks: u32,
    /// How long a model may take for an answer, where there is one.
    patience: Option<Duration>,
    /// Answers when they last became more, and the frame behind that.
    answered: Option<(u64, Stamp)>,
    /// Why the model is gone.
    failed: Option<String>,
    /// Of the first and of the newest image, and the camera that took that one.
    first: Option<Stamp>,
    newest: Option<(Stamp, View)>,
    /// The newest image when the other program last told a pose.
    heard: Option<Stamp>,
}

/// What poses.
#[derive(Debug)]
enum Clock {
    Tracks(Box<Fused>),
    /// With the frame that the other program's poses are in.
    Topic(Box<Followed>, Option<String>),
}

impl Clock {
    fn segment(&self) -> u32 {
        match self {
            Self::Tracks(fused) => fused.segment(),
            Self::Topic(followed, _) => followed.segment(),
        }
    }

    fn cut(&mut self) {
        match self {
            Self::Tracks(fused) => fused.cut(),
            Self::Topic(followed, _) => followed.cut(),
        }
    }

    fn held_off(&self) -> Vec<(Source, String)> {
        match self {
            Self::Tracks(fused) => fused.scale().held_off(),
            Self::Topic(followed, _) => followed.scale().held_off(),
        }
    }
}

impl Tracker {
    /// Before the first image; `None` where the odometry is the model's.
    pub fn new(given: Given<'_>, stats: Arc<Stats>) -> Option<Self> {
        let Given { rules, trust, reference, mount, has_model } = given;
        if rules.source == OdometrySource::Model {
            return None;
        }
        // The model takes its time, and the first path must not wait for it.
        let is_told_soon = reference.is_some() || rules.camera_height.is_some();
        let is_topic = rules.source == OdometrySource::Topic;
        let has_source = is_told_soon || (is_topic && rules.is_topic_metric) || (rules.is_model_metric && has_model);
        let break_stddev =
            (trust.covariance.break_position_stddev_metres, trust.covariance.break_rotation_stddev_radians);
        let patience_nanos = if is_told_soon { PATIENCE_NANOS } else { 0 };
        let clock = if is_topic {
            let options = followed::Options {
                is_metric: rules.is_topic_metric,
                biases: Biases::default(),
                model_noise: 1.0,
                least_motion_metres: rules.least_motion_metres,
                break_stddev,
                most_gap_nanos: i64::try_from(rules.most_coast.as_nanos()).unwrap_or(i64::MAX),
                patience_nanos,
            };
            Clock::Topic(Box::new(Followed::new(options)), None)
        } else {
            let options = Options {
                camera_height: rules.camera_height,
                least_motion_metres: rules.least_motion_metres,
                break_stddev,
                patience_nanos,
                ..Options::default()
            };
            Clock::Tracks(Box::new(Fused::new(options)))
        };
        let carried = if is_topic { Carried::Topic } else { Carried::Tracks };
        stats.update(|s| {
            s.by_tracks = Some(Tracking { has_source, carried, ..Tracking::default() });
            s.scale = if has_source { Scale::Unknown } else { Scale::Arbitrary };
        });
        Some(Self {
            rules: *rules,
            clock,
            mount,
            reference,
            stats,
            has_source,
            is_lost: false,
            breaks: 0,
            patience: has_model.then_some(trust.status.lost_after),
            answered: None,
            failed: None,
            first: None,
            newest: None,
            heard: None,
        })
    }

    /// Begins anew at the origin.
    pub fn reset(&mut self) {
        match &mut self.clock {
            Clock::Tracks(fused) => fused.reset(),
            Clock::Topic(followed, frame_id) => {
                followed.reset();
                *frame_id = None;
            }
        }
        self.is_lost = false;
        (self.first, self.heard) = (None, None);
        self.stats.update(|s| s.odometry_breaks = u64::from(self.clock.segment() + self.breaks));
    }

    /// Takes the next frame of the stream; the pose is `None` where nothing may come out, or comes with a message of its own.
    pub fn frame<F>(&mut self, accepted: &Accepted<Arc<Frame<F>>>, least_contrast: f64) -> Option<Posed> {
        let Accepted { stamp, view, restart, frame } = accepted;
        let is_other = self.newest.as_ref().is_some_and(|(_, known)| known.frame_id != view.frame_id);
        if *restart == Some(Restart::ClockWentBack) || is_other {
            self.clock.cut();
            (self.first, self.heard) = (None, None);
        }
        self.first.get_or_insert(*stamp);
        self.newest = Some((*stamp, view.clone()));
        let Clock::Tracks(fused) = &mut self.clock else {
            frame.note(if self.is_heard(*stamp) { Fate::Posed } else { Fate::Unposed });
            return None;
        };
        // A picture that cannot be read is one that did not come.
        let pixels = frame.pixels(least_contrast).ok()?;
        let reference = self.reference.as_deref();
        let fix = picture(*stamp, view, &pixels.image)
            .and_then(|picture| fused.push(picture, &|at| position(reference, at)).map_err(|e| e.to_string()));
        let fix = match fix {
            Ok(fix) => fix,
            Err(reason) => {
                self.stats.update(|s| s.last_problem = Some(format!("the tracks refuse an image: {reason}")));
                return None;
            }
        };
        let posed = self.tell(fix, view.clone());
        if posed.is_none() {
            frame.note(Fate::Unposed);
        } else if pixels.blank.is_none() {
            frame.note(Fate::Posed);
        }
        posed
    }

    /// Takes a pose of the other program, where one is followed; `None` where nothing may come out.
    pub fn followed(&mut self, message: &OdometryMessage) -> Option<Posed> {
        let Clock::Topic(followed, frame_id) = &mut self.clock else { return None };
        self.stats.update(|s| s.followed_received += 1);
        // Before there is a camera there is nothing to pose.
        let (newest, view) = self.newest.clone()?;
        if frame_id.as_ref().is_some_and(|known| *known != message.frame_id) {
            followed.cut();
        }
        *frame_id = Some(message.frame_id.clone());
        if followed.newest().is_some_and(|newest| message.pose.stamp.nanos_since(newest) < -PATIENCE_NANOS) {
            followed.cut();
        }
        let reference = self.reference.as_deref();
        let fix = topic::pose(message, &view.frame_id, self.mount.as_ref())
            .and_then(|pose| followed.push(&pose, &|at| position(reference, at)).map_err(|e| e.to_string()));
        match fix {
            Ok(fix) => {
                self.heard = Some(newest);
                self.tell(fix, view)
            }
            Err(reason) => {
                let nanos = message.pose.stamp.nanos;
                self.stats.update(|s| {
                    s.followed_refused += 1;
                    s.odometry_problem = Some(format!("pose of odometry.topic at {nanos} ns: {reason}"));
                });
                None
            }
        }
    }

    /// Counts what has become of a pose, and what carries it; `None` where it may not come out.
    fn tell(&mut self, fix: Fix, view: View) -> Option<Posed> {
        let coasting = Duration::from_nanos(u64::try_from(fix.coasting_nanos).unwrap_or(0));
        let lost = fix.carried == Carried::Nothing && coasting > self.rules.most_coast;
        // Behind LOST the counter has grown, also where the fast clock knows where it is.
        self.breaks += u32::from(self.is_lost && !lost);
        self.is_lost = lost;
        let breaks = u64::from(fix.segment + self.breaks);
        let held_off = self.clock.held_off();
        let model = self.model_problem(fix.stamp);
        self.stats.update(|s| {
            s.odometry_breaks = breaks;
            s.poses_withheld += u64::from(lost);
            s.poses_published += u64::from(!lost);
            let is_coasted = matches!(fix.carried, Carried::Model | Carried::Nothing);
            s.poses_coasted += u64::from(!lost && is_coasted);
            s.scale = match fix.scale {
                Some(scale) if self.has_source && scale.source.is_some() => Scale::Measured(scale.metres()),
                _ if self.has_source => Scale::Unknown,
                _ => Scale::Arbitrary,
            };
            s.by_tracks = Some(Tracking {
                carried: fix.carried,
                points: fix.points,
                lost_for: lost.then_some(coasting),
                scale: fix.scale,
                held_off,
                has_source: self.has_source,
                model,
            });
            s.settle();
        });
        (!lost).then_some(Posed { fix, view })
    }

    /// Whether the other program tells where the camera is, as of an image.
    fn is_heard(&mut self, stamp: Stamp) -> bool {
        let since = self.heard.or(self.first).unwrap_or(stamp);
        let silent = Duration::from_nanos(u64::try_from(stamp.nanos_since(since)).unwrap_or(0));
        let lost = silent > self.rules.most_coast;
        self.is_lost |= lost;
        let model = self.model_problem(stamp);
        self.stats.update(|s| {
            s.poses_withheld += u64::from(lost);
            if let Some(tracking) = &mut s.by_tracks {
                tracking.lost_for = lost.then_some(silent);
                tracking.model = model;
            }
            s.settle();
        });
        !lost && self.heard.is_some()
    }

    /// Whether all is known of images up to this stamp that will be: a window may go to the model.
    pub fn is_settled(&self, stamp: Stamp) -> bool {
        let Clock::Topic(followed, _) = &self.clock else { return true };
        let is_known = followed.newest().is_some_and(|newest| newest >= stamp);
        let waited = self.newest.as_ref().map_or(0, |(newest, _)| newest.nanos_since(stamp));
        is_known || !(0..=WINDOW_PATIENCE_NANOS).contains(&waited)
    }

    /// Whether its poses are those of tracks, and not another program's.
    pub fn is_by_tracks(&self) -> bool {
        matches!(self.clock, Clock::Tracks(_))
    }

    /// The points that are followed in the newest image: numbers that stay as long as they are followed, and where they are,
    /// normalised; none where another program is followed.
    pub fn seen(&self) -> &[(u64, Point2<f64>)] {
        match &self.clock {
            Clock::Tracks(fused) => fused.seen(),
            Clock::Topic(..) => &[],
        }
    }

    /// A window of late as the fast clock has it.
    pub fn tracked(&self, stamps: &[Stamp; WINDOW]) -> Option<Tracked> {
        match &self.clock {
            Clock::Tracks(fused) => {
                Some(Tracked { window: Known::Tracks(fused.tracked(stamps)?), metres: fused.metres() })
            }
            Clock::Topic(followed, _) => {
                let window = Known::Topic(followed.tracked(stamps)?, followed.segment());
                Some(Tracked { window, metres: followed.metres() })
            }
        }
    }

    /// Takes what the other clock has to say.
    pub fn take(&mut self, told: Told) {
        match told {
            Told::Loaded(errors) => {
                self.failed = None;
                // Of weights that do not say, nothing is expected.
                let (noise, bias) = errors.map_or((1.0, 1.0), |errors| (errors.noise, errors.bias));
                match &mut self.clock {
                    Clock::Tracks(fused) => fused.set_model_errors(noise, bias),
                    Clock::Topic(followed, _) => followed.set_model_errors(noise, bias),
                }
            }
            Told::Answered(answer) => {
                // A motion has a length: without metres it is of no use either.
                if !self.rules.is_model_metric {
                    return;
                }
                match &mut self.clock {
                    Clock::Tracks(fused) => fused.take(&answer),
                    Clock::Topic(followed, _) => followed.take(&answer),
                }
            }
            Told::Failed(reason) => self.failed = Some(reason),
        }
    }

    /// What is wrong with the model, as of a frame.
    fn model_problem(&mut self, stamp: Stamp) -> Option<String> {
        let patience = self.patience?;
        if let Some(reason) = &self.failed {
            return Some(format!("the model has failed: {reason}"));
        }
        let count = self.stats.snapshot().windows_answered;
        let (known, since) = self.answered.get_or_insert((count, stamp));
        if *known != count || stamp < *since {
            (*known, *since) = (count, stamp);
        }
        let silent = Duration::from_nanos(u64::try_from(stamp.nanos_since(*since)).unwrap_or(0));
        (silent > patience).then(|| format!("the model has answered nothing for {} s", silent.as_secs()))
    }
}

/// How an answer stands to the tracks, and why it contradicts them, where it does.
pub fn judge(said: &WindowTrajectory, tracked: &Tracked, rules: &CheckRules) -> (Agreement, Option<String>) {
    let agreement = tracked.compare(said);
    let (rotation, most_rotation) = (agreement.rotation_deg, rules.tracks_rotation_deg);
    let direction = agreement.direction_deg.filter(|direction| *direction > rules.tracks_direction_deg);
    let reason = match direction {
        _ if rotation > most_rotation => Some(format!("turns {rotation:.1} degrees otherwise than the tracks")),
        Some(direction) => Some(format!("moves {direction:.0} degrees away from where the tracks do")),
        None => None,
    };
    (agreement, reason)
}

/// What the fast clock is to take from an answer.
pub fn answer(
    stamps: &[Stamp; WINDOW],
    said: &WindowTrajectory,
    agreement: Option<(Agreement, &Tracked)>,
    trust: &TrustRules,
) -> Answer {
    let stddev = &trust.covariance;
    Answer {
        stamps: *stamps,
        trajectory: *said,
        stddev: (stddev.position_stddev_metres[WINDOW - 2], stddev.rotation_stddev_radians[WINDOW - 2]),
        agreement: agreement.map(|(agreement, tracked)| (agreement, tracked.unit())),
    }
}

fn position(reference: Option<&Reference>, stamp: Stamp) -> Option<Point3<f64>> {
    reference?.position(stamp)
}

fn picture(stamp: Stamp, view: &View, image: &image::RgbImage) -> Result<Picture, String> {
    let grey = Grey::from_rgb(image.width() as usize, image.height() as usize, image.as_raw());
    grey.and_then(|grey| Picture::new(stamp, &view.intrinsics, &grey)).map_err(|e| e.to_string())
}
