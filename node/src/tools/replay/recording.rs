//! A recording through the node: what the camera said then is said again, and what comes out has times of the recording
//! alone. The same file, weights and config make the same messages, byte for byte.
//!
//! A message that comes out is logged at the time of the one that brought it about. Diagnostics come in their rhythm on
//! the clock of the recording, where there is a message to bring one about, and leave out what the machine decides: how
//! long an answer took, memory and heat.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use camera::recording::Entry;
use geometry::{Stamp, WindowTrajectory};

use super::{Error, Inline, Step, evidence, of_film, result};
use crate::config::{OdometrySource, ScaleRules};
use crate::pipeline::Settings;
use crate::publish;
use crate::ros::message::{Input, Output};
use crate::ros::transport::topics::Topics;
use crate::solve::estimator::Estimator;
use crate::solve::solver::Answered;
use crate::status::counters::Snapshot;
use crate::status::diagnostics::Reporter;
use crate::status::host;
use crate::tools::recording::{self, Camera, entry_of_input, entry_of_output};
use crate::tools::report::{Evidence, FilmPose, WindowResult};
use camera::decode::{DecodeError, inspect};
use camera::message::ImageMessage;
use camera::optics::UseFixed;

/// The node that a recording is played to.
#[derive(Debug, Clone, Copy)]
pub struct Node<'a> {
    /// As in the pipeline; the queue is not used.
    pub settings: &'a Settings,
    /// Its topics by their absolute names, and its own, which diagnostics bear.
    pub topics: &'a Topics,
    /// Set from outside to end the replay with [`Error::Stopped`].
    pub stop: &'a AtomicBool,
    /// Whether images and CameraInfo are handed out too, in front of what they bring about: the one recording then has all.
    pub echoes: bool,
}

/// What a replay came to.
#[derive(Debug)]
pub struct Played {
    /// The answers and the counters.
    pub evidence: Evidence,
    /// What was wrong with the recording, in sentences.
    pub notes: Vec<String>,
}

/// Plays what `camera` said to a node, hands every message that comes out to `out`, and tells `each` of every answer.
///
/// # Errors
///
/// [`Error::Recording`] for a file that cannot be read, images that the node does not read, and errors of `out`;
/// [`Error::Model`] and [`Error::Stopped`].
pub fn replay<E: Estimator>(
    camera: &Camera<'_>,
    estimator: Option<E>,
    node: Node<'_>,
    mut out: impl FnMut(&Entry) -> Result<(), recording::Error>,
    mut each: impl FnMut(&Answered),
) -> Result<Played, Error> {
    let Node { settings, topics, stop, echoes } = node;
    let mut teller = Teller {
        settings,
        emit: |said: Said<'_>, time| {
            let entry = match said {
                Said::In(input) => Some(entry_of_input(input, topics, time)),
                Said::Out(output) => entry_of_output(output, topics, time),
            };
            entry.map_or(Ok(()), |entry| out(&entry))
        },
        each: &mut each,
        seen: Seen::default(),
        windows: Vec::new(),
        odometry: Vec::new(),
    };
    let mut inline = Inline::new(estimator, &settings.camera, settings.scale, settings);
    let mut reports: Option<Reports> = None;
    camera.play(|time, input| {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        let reports = reports.get_or_insert_with(|| Reports::new(camera, settings, time));
        if reports.are_due(time) {
            (teller.emit)(Said::Out(&reports.report(time, inline.stats.snapshot())), time)?;
        }
        if let Ok(input) = &input
            && echoes
        {
            (teller.emit)(Said::In(input), time)?;
        }
        let step = match input {
            Err(reason) => {
                teller.seen.unreadable(reason);
                return Ok(());
            }
            Ok(Input::CameraInfo(info)) => {
                inline.ingest.camera_info(&info);
                return Ok(());
            }
            Ok(Input::Odometry(odometry)) => {
                inline.reference.take(&odometry, &inline.stats);
                return Ok(());
            }
            Ok(Input::Followed(odometry)) => inline.followed(&odometry, stop)?,
            Ok(Input::Image(image)) => {
                teller.seen.look_at(camera, &image)?;
                teller.seen.image(image.stamp);
                inline.image(image, reports.instant(time), stop)?
            }
        };
        teller.tell(step, time)
    })?;
    let end = reports.as_ref().map(|reports| reports.latest).unwrap_or_default();
    if let Some(reason) = teller.seen.no_picture() {
        return Err(camera.refuse(reason).into());
    }
    teller.tell(inline.rest(stop)?, end)?;
    let (counts, moments) = inline.finish();
    if let Some(reports) = &mut reports {
        (teller.emit)(Said::Out(&reports.report(end, counts.clone())), end)?;
    }
    let notes = teller.seen.notes(camera, settings);
    Ok(Played { evidence: evidence(&counts, moments, teller.windows, teller.odometry), notes })
}

/// A message of a recording.
enum Said<'a> {
    In(&'a Input),
    Out(&'a Output),
}

/// Hands on what comes out, and keeps it.
struct Teller<'a, Emit> {
    settings: &'a Settings,
    emit: Emit,
    each: &'a mut dyn FnMut(&Answered),
    seen: Seen,
    windows: Vec<WindowResult>,
    odometry: Vec<FilmPose>,
}

impl<Emit: FnMut(Said<'_>, Stamp) -> Result<(), recording::Error>> Teller<'_, Emit> {
    fn tell(&mut self, step: Step, time: Stamp) -> Result<(), Error> {
        for posed in &step.posed {
            let (pose, _) = publish::posed(posed, &self.settings.odom_frame, self.settings.mount.as_ref());
            (self.emit)(Said::Out(&Output::Odometry(pose)), time)?;
            self.odometry.push(of_film(posed, self.seen.place(posed.fix.stamp)));
        }
        for (answered, tracked) in step.answered {
            for output in outputs(&answered, tracked.as_ref(), self.settings) {
                (self.emit)(Said::Out(&output), time)?;
            }
            (self.each)(&answered);
            let frames = answered.stamps.map(|stamp| self.seen.place(stamp));
            self.windows.push(result(frames, *answered, tracked.as_ref()));
        }
        Ok(())
    }
}

/// What the node publishes of an answer.
fn outputs(answered: &Answered, tracked: Option<&WindowTrajectory>, settings: &Settings) -> Vec<Output> {
    let tracked = tracked.map(|tracked| publish::trajectory_of(answered, tracked));
    let trajectory = tracked.or_else(|| publish::trajectory(answered)).map(Output::Trajectory);
    let odometry = if settings.odometry.source == OdometrySource::Model {
        publish::odometry(answered, &settings.odom_frame, settings.mount.as_ref())
    } else {
        // Its poses came with the images.
        Vec::new()
    };
    trajectory.into_iter().chain(odometry.into_iter().map(Output::Odometry)).collect()
}

/// The node's word about itself, on the clock of the recording.
struct Reports {
    reporter: Reporter,
    period_nanos: i64,
    /// Any moment, which `first` stands for.
    start: Instant,
    first: Stamp,
    /// Of the last report.
    last: Stamp,
    /// Of the last message.
    latest: Stamp,
}

impl Reports {
    fn new(camera: &Camera<'_>, settings: &Settings, first: Stamp) -> Self {
        let start = Instant::now();
        let rules = settings.live.diagnostics;
        let reporter = Reporter::new(camera.topic().to_owned(), rules.silent_after, start);
        let period_nanos = i64::try_from(rules.period.as_nanos()).unwrap_or(i64::MAX);
        Self { reporter, period_nanos, start, first, last: first, latest: first }
    }

    /// Also where the recording's clock went back behind the last report.
    fn are_due(&mut self, time: Stamp) -> bool {
        self.latest = time;
        !(0..self.period_nanos).contains(&time.nanos_since(self.last))
    }

    fn report(&mut self, time: Stamp, mut counts: Snapshot) -> Output {
        self.last = time;
        counts.forget_latencies();
        let mut report = self.reporter.report(time, self.instant(time), counts);
        report.values.retain(|(key, _)| !host::is_value(key));
        Output::Diagnostics(report)
    }

    fn instant(&self, time: Stamp) -> Instant {
        let since = u64::try_from(time.nanos_since(self.first)).unwrap_or(0);
        self.start + Duration::from_nanos(since)
    }
}

/// What the messages were like.
#[derive(Default)]
struct Seen {
    /// Of the images, in the order of their coming.
    stamps: Vec<Stamp>,
    /// How many are not newer than the one before, with the place of the first.
    backward: Option<(usize, u64)>,
    /// How many are not what their type says, with what is wrong with the first.
    unreadable: Option<(String, u64)>,
    /// How many of the first are no file that the node reads, with what is wrong with the first.
    no_files: Option<(String, usize)>,
}

impl Seen {
    /// Looks at an image before it is taken, as long as none could be read.
    ///
    /// # Errors
    ///
    /// A camera does not change its encoding: where the first image is of none that the node reads, all are. Of files, the first
    /// may be broken and the others not: see [`Self::no_picture`].
    fn look_at(&mut self, camera: &Camera<'_>, image: &ImageMessage) -> Result<(), recording::Error> {
        if self.no_files.as_ref().map_or(0, |(_, count)| *count) < self.stamps.len() {
            return Ok(());
        }
        match inspect(&image.payload) {
            Err(error @ DecodeError::Encoding { .. }) => Err(camera.refuse(error.to_string())),
            Err(error @ DecodeError::File { .. }) => {
                self.no_files.get_or_insert_with(|| (error.to_string(), 0)).1 += 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// What is wrong with the first image, where not one is a file that the node reads.
    fn no_picture(&self) -> Option<String> {
        let (reason, count) = self.no_files.as_ref()?;
        (*count == self.stamps.len()).then(|| reason.clone())
    }

    fn image(&mut self, stamp: Stamp) {
        if self.stamps.last().is_some_and(|last| stamp <= *last) {
            self.backward.get_or_insert((self.stamps.len(), 0)).1 += 1;
        }
        self.stamps.push(stamp);
    }

    fn unreadable(&mut self, reason: String) {
        self.unreadable.get_or_insert((reason, 0)).1 += 1;
    }

    /// The place among the images of one in the newest window.
    fn place(&self, stamp: Stamp) -> usize {
        self.stamps.iter().rposition(|s| *s == stamp).unwrap_or_default()
    }

    fn notes(&self, camera: &Camera<'_>, settings: &Settings) -> Vec<String> {
        let backward = self.backward.map(|(place, count)| {
            let (before, stamp) = (self.stamps[place - 1], self.stamps[place]);
            format!(
                "{count} images of {} do not come after the one before; the first is image {place} at {} ns, behind {} ns",
                camera.topic(),
                stamp.nanos,
                before.nanos
            )
        });
        let unreadable = self.unreadable.as_ref().map(|(reason, count)| {
            format!("{count} messages are not what their type says and were left out; the first: {reason}")
        });
        let is_silent = camera.info_topic().is_none() && settings.camera.use_fixed != UseFixed::Always;
        let silent = is_silent.then(|| "there is no CameraInfo in the recording".to_owned());
        let is_of_tracks = settings.odometry.source != OdometrySource::Model;
        let is_asked =
            matches!(settings.scale, ScaleRules::Measured { .. }) || (is_of_tracks && !settings.scale_topic.is_empty());
        let is_unscaled = camera.reference_topic().is_none() && is_asked;
        let unscaled = is_unscaled.then(|| "there is no odometry of scale.odometry_topic in the recording".to_owned());
        let is_unled = settings.odometry.source == OdometrySource::Topic && camera.followed_topic().is_none();
        let unled = is_unled.then(|| "there is no odometry of odometry.topic in the recording".to_owned());
        [backward, unreadable, silent, unscaled, unled].into_iter().flatten().collect()
    }
}
