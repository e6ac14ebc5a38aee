//! The fast clock: each image in, a pose out, without waiting for the model.
//!
//! Architecture Invariant: no clock is read here and no thread is here. What the model says comes in between two images,
//! through [`Tracker::take`], and the same images and answers in the same order give the same poses.

use std::sync::Arc;
use std::time::Duration;

use geometry::{Stamp, WINDOW, WindowTrajectory};
use model::weights::manifest::ScaleErrors;
use odometry::agreement::{self, Agreement};
use odometry::fused::{Answer, Carried, Fix, Fused, Options};
use odometry::stream::TrackedWindow;
use odometry::{Grey, Picture};

use super::scale::Reference;
use super::scale::value::Scale;
use crate::config::{CheckRules, OdometryRules, OdometrySource, TrustRules};
use crate::status::counters::{Fate, Stats};
use crate::trust::tracking::Tracking;
use crate::window::frame::Frame;
use crate::window::{Accepted, Restart, View};

/// How long the first way is kept back until a source has told the scale.
const PATIENCE_NANOS: i64 = 1_000_000_000;

/// A pose that comes out.
#[derive(Debug, Clone)]
pub struct Posed {
    /// The pose.
    pub fix: Fix,
    /// The camera.
    pub view: View,
}

/// A window as the tracks have it, and metres for their unit when it was complete.
#[derive(Debug, Clone)]
pub struct Tracked {
    window: TrackedWindow,
    metres: Option<f64>,
}

impl Tracked {
    /// The poses in metres, as far as a scale is known; `None` where the poses have a unit of their own.
    pub fn trajectory(&self) -> Option<WindowTrajectory> {
        let metres = self.metres.filter(|_| self.window.unit.is_some())?;
        Some(self.window.trajectory.scaled(metres))
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
    /// Whether there is a model.
    pub has_model: bool,
}

/// Poses the images of one camera in the order in which they come.
#[derive(Debug)]
pub struct Tracker {
    rules: OdometryRules,
    fused: Fused,
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
    frame_id: Option<Arc<str>>,
}

impl Tracker {
    /// Before the first image; `None` where the odometry is the model's.
    pub fn new(given: Given<'_>, stats: Arc<Stats>) -> Option<Self> {
        let Given { rules, trust, reference, has_model } = given;
        if rules.source == OdometrySource::Model {
            return None;
        }
        // The model takes its time, and the first path must not wait for it.
        let is_told_soon = reference.is_some() || rules.camera_height.is_some();
        let has_source = is_told_soon || (rules.is_model_metric && has_model);
        let options = Options {
            camera_height: rules.camera_height,
            least_motion_metres: rules.least_motion_metres,
            break_stddev: (
                trust.covariance.break_position_stddev_metres,
                trust.covariance.break_rotation_stddev_radians,
            ),
            patience_nanos: if is_told_soon { PATIENCE_NANOS } else { 0 },
            ..Options::default()
        };
        stats.update(|s| {
            s.by_tracks = Some(Tracking { has_source, carried: Carried::Tracks, ..Tracking::default() });
            s.scale = if has_source { Scale::Unknown } else { Scale::Arbitrary };
        });
        Some(Self {
            rules: *rules,
            fused: Fused::new(options),
            reference,
            stats,
            has_source,
            is_lost: false,
            breaks: 0,
            patience: has_model.then_some(trust.status.lost_after),
            answered: None,
            failed: None,
            frame_id: None,
        })
    }

    /// Begins anew at the origin.
    pub fn reset(&mut self) {
        self.fused.reset();
        self.is_lost = false;
        self.stats.update(|s| s.odometry_breaks = u64::from(self.fused.segment() + self.breaks));
    }

    /// Takes the next frame of the stream; the pose is `None` where nothing may come out.
    pub fn frame<F>(&mut self, accepted: &Accepted<Arc<Frame<F>>>, least_contrast: f64) -> Option<Posed> {
        let is_other = self.frame_id.as_ref().is_some_and(|known| *known != accepted.view.frame_id);
        if accepted.restart == Some(Restart::ClockWentBack) || is_other {
            self.fused.cut();
        }
        self.frame_id = Some(Arc::clone(&accepted.view.frame_id));
        // A picture that cannot be read is one that did not come.
        let pixels = accepted.frame.pixels(least_contrast).ok()?;
        let picture = picture(accepted.stamp, &accepted.view, &pixels.image);
        let fix = picture.and_then(|picture| {
            let position = |stamp: Stamp| self.reference.as_ref()?.position(stamp);
            self.fused.push(picture, &position).map_err(|e| e.to_string())
        });
        let fix = match fix {
            Ok(fix) => fix,
            Err(reason) => {
                self.stats.update(|s| s.last_problem = Some(format!("the tracks refuse an image: {reason}")));
                return None;
            }
        };
        let coasting = Duration::from_nanos(u64::try_from(fix.coasting_nanos).unwrap_or(0));
        let lost = fix.carried == Carried::Nothing && coasting > self.rules.most_coast;
        if self.is_lost && !lost {
            // Behind LOST the counter has grown, also where the tracks know where they are.
            self.breaks += 1;
        }
        self.is_lost = lost;
        let breaks = u64::from(fix.segment + self.breaks);
        let held_off = self.fused.scale().held_off();
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
        if lost {
            return None;
        }
        if pixels.blank.is_none() {
            accepted.frame.note(Fate::Posed);
        }
        Some(Posed { fix, view: accepted.view.clone() })
    }

    /// A window of late as the tracks have it.
    pub fn tracked(&self, stamps: &[Stamp; WINDOW]) -> Option<Tracked> {
        let window = self.fused.tracked(stamps)?;
        Some(Tracked { window, metres: self.fused.metres() })
    }

    /// Takes what the other clock has to say.
    pub fn take(&mut self, told: Told) {
        match told {
            Told::Loaded(errors) => {
                self.failed = None;
                // Of weights that do not say, nothing is expected.
                let (noise, bias) = errors.map_or((1.0, 1.0), |errors| (errors.noise, errors.bias));
                self.fused.set_model_errors(noise, bias);
            }
            Told::Answered(answer) => {
                // A motion has a length: without metres it is of no use either.
                if self.rules.source == OdometrySource::Fused && self.rules.is_model_metric {
                    self.fused.take(&answer);
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
    let agreement = agreement::compare(said, &tracked.window);
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
        agreement: agreement.map(|(agreement, tracked)| (agreement, tracked.window.unit)),
    }
}

fn picture(stamp: Stamp, view: &View, image: &image::RgbImage) -> Result<Picture, String> {
    let grey = Grey::from_rgb(image.width() as usize, image.height() as usize, image.as_raw());
    grey.and_then(|grey| Picture::new(stamp, &view.intrinsics, &grey)).map_err(|e| e.to_string())
}
