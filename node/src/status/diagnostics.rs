//! The state of the node in one level, one sentence and all its counters.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use geometry::Stamp;

use crate::ros::lifecycle::State;
use crate::ros::message::{DiagnosticLevel, DiagnosticsMessage};
use crate::ros::transport::graph::{CAMERA_INFO, FOLLOWED, IMAGE, REFERENCE, Remark};
use crate::status::counters::{Fate, Snapshot};
use crate::status::host;
use crate::trust::state::Status;
use crate::trust::tracking::Tracking;
use odometry::scale::Source;

/// Reports that a verdict looks back over: a model that takes seconds answers nothing in most of them.
const LOOK_BACK: usize = 10;

/// Further from the images' stamps than any transport is late.
const STAMPS_APART_SECONDS: f64 = 10.0;

/// Causes that a healthy node on a healthy camera does not count.
const ABNORMAL: [Fate; 13] = [
    Fate::QueueFull,
    Fate::NoCameraInfo,
    Fate::CameraInfoInvalid,
    Fate::CameraInfoMismatch,
    Fate::Repeated,
    Fate::Backward,
    Fate::Ahead,
    Fate::GapReset,
    Fate::ClockReset,
    Fate::CameraChanged,
    Fate::BrokenWindow,
    Fate::Decode,
    Fate::Blank,
];

/// Causes for which a camera that is set up wrongly loses every image.
const REFUSED: [Fate; 9] = [
    Fate::NoCameraInfo,
    Fate::CameraInfoInvalid,
    Fate::CameraInfoMismatch,
    Fate::Repeated,
    Fate::Backward,
    Fate::Ahead,
    Fate::BrokenWindow,
    Fate::Decode,
    Fate::Blank,
];

/// Turns counters into reports; keeps the last few to tell what is going on from what once happened.
#[derive(Debug)]
pub struct Reporter {
    image_topic: String,
    silent_after: Duration,
    started: Instant,
    past: VecDeque<Snapshot>,
}

impl Reporter {
    /// Before the first report.
    pub fn new(image_topic: String, silent_after: Duration, started: Instant) -> Self {
        Self { image_topic, silent_after, started, past: VecDeque::from([Snapshot::default()]) }
    }

    /// Calls a camera stale that is silent for longer than this from now on.
    pub fn set_silent_after(&mut self, silent_after: Duration) {
        self.silent_after = silent_after;
    }

    /// The report of `snapshot` as it was at `now`; `stamp` is the same moment on the clock of the messages.
    pub fn report(&mut self, stamp: Stamp, now: Instant, snapshot: Snapshot) -> DiagnosticsMessage {
        let (mut level, mut message) = self.verdict(now, &snapshot);
        if snapshot.lifecycle == State::Active {
            // Whatever the verdict is, these may be why. What others do not hear is for the log and the values.
            let told = snapshot.graph.iter().filter(|remark| self.matters(remark, now, &snapshot));
            for reason in told.map(ToString::to_string).chain(snapshot.doubts.values().cloned()) {
                if level == DiagnosticLevel::Ok {
                    level = DiagnosticLevel::Warn;
                }
                message.push_str(&format!("; {reason}"));
            }
            for apart in stamps_apart(&snapshot) {
                if level == DiagnosticLevel::Ok {
                    level = DiagnosticLevel::Warn;
                }
                message.push_str(&format!("; {apart}"));
            }
        }
        // Whatever else there is: answers of such a model are not to be believed.
        if let Some(changed) = &snapshot.weights_changed {
            level = DiagnosticLevel::Error;
            message = format!("{changed}; {message}");
        }
        let report = message_of(stamp, level, message, &snapshot);
        if self.past.len() == LOOK_BACK {
            self.past.pop_front();
        }
        self.past.push_back(snapshot);
        report
    }

    /// How long no image has come.
    fn silence(&self, now: Instant, snapshot: &Snapshot) -> Duration {
        now.saturating_duration_since(snapshot.last_image.unwrap_or(self.started))
    }

    /// Whether what the graph tells may be why poses do not come out: a fault always is, who publishes only where the node
    /// waits for it.
    fn matters(&self, remark: &Remark, now: Instant, snapshot: &Snapshot) -> bool {
        let has_waited = now.saturating_duration_since(self.started) > self.silent_after;
        match remark.waits_for() {
            None => remark.is_fault(),
            Some(IMAGE) => self.silence(now, snapshot) > self.silent_after,
            Some(CAMERA_INFO) => snapshot.camera_infos_received == 0 && snapshot.fate(Fate::NoCameraInfo) > 0,
            Some(REFERENCE) => has_waited && snapshot.odometry_received == 0,
            Some(FOLLOWED) => has_waited && snapshot.followed_received == 0,
            Some(_) => false,
        }
    }

    fn verdict(&self, now: Instant, snapshot: &Snapshot) -> (DiagnosticLevel, String) {
        if snapshot.lifecycle != State::Active {
            return idle(snapshot);
        }
        let silence = self.silence(now, snapshot);
        if silence > self.silent_after {
            let since = if snapshot.last_image.is_some() { "for" } else { "since the start," };
            let message = format!("no image on {} {since} {:.0} s", self.image_topic, silence.as_secs_f64());
            return (DiagnosticLevel::Stale, message);
        }
        let before = self.past.front().expect("there is always one");
        let problem = || snapshot.last_problem.as_deref().unwrap_or("unknown");
        let since = |fate: Fate| snapshot.fate(fate) - before.fate(fate);
        let refused: u64 = REFUSED.map(since).iter().sum();
        let (received, pending) = (snapshot.frames_received - before.frames_received, snapshot.frames_pending);
        // Those that wait may be refused yet; that they are as many as the others says that they will not be.
        if refused > pending && refused + pending >= received {
            return (DiagnosticLevel::Error, format!("every image is refused: {}", problem()));
        }
        if snapshot.status == Status::Lost {
            return (DiagnosticLevel::Error, format!("LOST, nothing comes out: {}", snapshot.status_reason));
        }
        let answered = snapshot.windows_answered - before.windows_answered;
        let unparsed = snapshot.answers_unparsed - before.answers_unparsed;
        if answered > 0 && unparsed == answered {
            return (DiagnosticLevel::Error, format!("no answer can be used: {}", problem()));
        }
        let mut found = Vec::new();
        if snapshot.status == Status::Degraded {
            found.push(format!("DEGRADED: {}", snapshot.status_reason));
        }
        let abnormal = ABNORMAL.into_iter().filter(|fate| since(*fate) > 0);
        found.extend(abnormal.map(|fate| format!("{} +{}", fate.counter(), since(fate))));
        for (name, new) in [
            ("answers_unparsed", unparsed),
            ("odometry_refused", snapshot.odometry_refused - before.odometry_refused),
            ("followed_refused", snapshot.followed_refused - before.followed_refused),
            ("outputs_dropped", snapshot.outputs_dropped - before.outputs_dropped),
        ] {
            if new > 0 {
                found.push(format!("{name} +{new}"));
            }
        }
        if !found.is_empty() {
            let last = snapshot.last_problem.as_deref().map(|p| format!("; last: {p}")).unwrap_or_default();
            return (DiagnosticLevel::Warn, format!("{}{last}", found.join(", ")));
        }
        let superseded = snapshot.windows_superseded - before.windows_superseded;
        if answered == 0 && superseded > 0 && self.past.len() == LOOK_BACK {
            let message = format!("the model is busy with one window while {superseded} others gave way");
            return (DiagnosticLevel::Warn, message);
        }
        match snapshot.latency() {
            None if snapshot.windows_answered == 0 => (DiagnosticLevel::Ok, "waiting for the first answer".to_owned()),
            None => (DiagnosticLevel::Ok, format!("{} windows answered", snapshot.windows_answered)),
            Some((median, _)) => {
                let message = format!("{} windows answered, {} ms each", snapshot.windows_answered, median.as_millis());
                (DiagnosticLevel::Ok, message)
            }
        }
    }
}

/// Inputs whose stamps cannot meet the images'.
fn stamps_apart(snapshot: &Snapshot) -> Vec<String> {
    let Some(image) = snapshot.last_stamp else { return Vec::new() };
    let inputs = [(REFERENCE, snapshot.odometry_stamp), (FOLLOWED, snapshot.followed_stamp)];
    let apart = inputs.into_iter().filter_map(|(key, stamp)| {
        let seconds = (stamp?.nanos as f64 - image.nanos as f64) / 1e9;
        let side = if seconds > 0.0 { "ahead of" } else { "behind" };
        (seconds.abs() > STAMPS_APART_SECONDS).then(|| {
            format!(
                "the newest stamp of {key} is {:.0} s {side} the images': it has stopped, or goes by another clock \
                 (use_sim_time of one of the two)",
                seconds.abs()
            )
        })
    });
    apart.collect()
}

/// A node that is not active has nothing to say of the camera.
fn idle(snapshot: &Snapshot) -> (DiagnosticLevel, String) {
    let state = snapshot.lifecycle;
    match snapshot.lifecycle_problem.as_str() {
        "" => (DiagnosticLevel::Ok, format!("{state}, nothing comes out")),
        problem => (DiagnosticLevel::Error, format!("{state}, nothing comes out: {problem}")),
    }
}

/// What is known of the scale.
pub fn scale(stamp: Stamp, tracking: &Tracking) -> DiagnosticsMessage {
    let held_off: Vec<&str> = tracking.held_off.iter().map(|(_, why)| why.as_str()).collect();
    let source = tracking.scale.and_then(|scale| scale.source).map_or("none", Source::name);
    let (level, message) = match tracking.scale {
        Some(scale) if scale.source.is_some() => {
            (DiagnosticLevel::Ok, format!("metres by {source}, to {:.1} %", 100.0 * scale.sigma))
        }
        _ => (DiagnosticLevel::Warn, "nothing tells the scale: lengths are a guess".to_owned()),
    };
    let mut values = vec![("source".to_owned(), source.to_owned())];
    if let Some(scale) = tracking.scale {
        values.push(("metres_per_unit".to_owned(), format!("{:.4}", scale.metres())));
        values.push(("log_stddev".to_owned(), format!("{:.3}", scale.sigma)));
    }
    values.push(("held_off".to_owned(), held_off.join("; ")));
    DiagnosticsMessage { stamp, level, message, values }
}

/// Values of a report that say how far its poses can be trusted.
const STATUS_VALUES: [&str; 18] = [
    "lifecycle",
    "status",
    "status_reason",
    "scale",
    "scale_source",
    "scale_log_stddev",
    "carried",
    "answer_by_program",
    "tracks_points",
    "tracks_rotation_degrees",
    "tracks_direction_degrees",
    "windows_compared",
    "windows_contradicted",
    "checks",
    "stated_stddev_metres",
    "odometry_breaks",
    "windows_answered",
    "latency_ms_median",
];

/// What of a report is for the consumers of poses rather than for those who look after the node.
pub fn status(report: &DiagnosticsMessage) -> DiagnosticsMessage {
    let is_status = |name: &str| STATUS_VALUES.contains(&name) || name.starts_with("residual_");
    let values = report.values.iter().filter(|(name, _)| is_status(name)).cloned().collect();
    DiagnosticsMessage { stamp: report.stamp, level: report.level, message: report.message.clone(), values }
}

/// The last report of a node that cannot go on.
pub fn failure(stamp: Stamp, reason: &str, snapshot: &Snapshot) -> DiagnosticsMessage {
    message_of(stamp, DiagnosticLevel::Error, format!("the node stops: {reason}"), snapshot)
}

fn message_of(stamp: Stamp, level: DiagnosticLevel, message: String, snapshot: &Snapshot) -> DiagnosticsMessage {
    let mut values: Vec<(String, String)> =
        snapshot.counters().into_iter().map(|(name, n)| (name.to_owned(), n.to_string())).collect();
    values.push(("lifecycle".to_owned(), snapshot.lifecycle.to_string()));
    values.push(("status".to_owned(), snapshot.status.to_string()));
    if !snapshot.status_reason.is_empty() {
        values.push(("status_reason".to_owned(), snapshot.status_reason.clone()));
    }
    values.push(("scale".to_owned(), snapshot.scale.to_string()));
    if let Some(tracking) = &snapshot.by_tracks {
        let source = tracking.scale.and_then(|scale| scale.source).map_or("none", Source::name);
        values.push(("scale_source".to_owned(), source.to_owned()));
        values.extend(tracking.scale.map(|scale| ("scale_log_stddev".to_owned(), format!("{:.4}", scale.sigma))));
        values.push(("carried".to_owned(), tracking.carried.name().to_owned()));
        values.push(("tracks_points".to_owned(), tracking.points.to_string()));
    }
    if let Some(agreement) = &snapshot.agreement {
        values.push(("tracks_rotation_degrees".to_owned(), format!("{:.2}", agreement.rotation_deg)));
        let direction = agreement.direction_deg;
        values.extend(direction.map(|angle| ("tracks_direction_degrees".to_owned(), format!("{angle:.1}"))));
        let epipolar = agreement.epipolar_px;
        values.extend(epipolar.map(|px| ("tracks_epipolar_px".to_owned(), format!("{px:.2}"))));
    }
    if let Some(evidence) = &snapshot.evidence {
        values.push(("checks".to_owned(), evidence.checks().join(", ")));
        let residuals = evidence.residuals.iter();
        values.extend(residuals.map(|r| (format!("residual_{}", r.check.name()), format!("{:.3}", r.value))));
        let stated = evidence.stated_stddev_metres;
        values.extend(stated.map(|metres| ("stated_stddev_metres".to_owned(), format!("{metres:.3}"))));
    }
    if let Some((median, max)) = snapshot.latency() {
        values.push(("latency_ms_median".to_owned(), format!("{:.1}", median.as_secs_f64() * 1e3)));
        values.push(("latency_ms_max".to_owned(), format!("{:.1}", max.as_secs_f64() * 1e3)));
    }
    values.extend(host::values());
    let (mismatches, graph): (Vec<&Remark>, Vec<&Remark>) =
        snapshot.graph.iter().partition(|remark| matches!(remark, Remark::Qos(_)));
    for (key, remarks) in [("qos_mismatch", mismatches), ("graph", graph)] {
        if !remarks.is_empty() {
            let told: Vec<String> = remarks.iter().map(ToString::to_string).collect();
            values.push((key.to_owned(), told.join("; ")));
        }
    }
    if snapshot.answer_tokens_filled > 0 {
        let parts = std::iter::once("grammar").chain(snapshot.answer_by_program.iter().copied());
        values.push(("answer_by_program".to_owned(), parts.collect::<Vec<_>>().join(", ")));
    }
    values.extend(snapshot.doubts.iter().map(|(about, words)| (format!("doubt_{about}"), words.clone())));
    values.extend(snapshot.samples.iter().map(|samples| ("image_samples".to_owned(), samples.clone())));
    for (key, problem) in [("last_problem", &snapshot.last_problem), ("odometry_problem", &snapshot.odometry_problem)] {
        let Some(problem) = problem else { continue };
        values.push((key.to_owned(), problem.clone()));
    }
    DiagnosticsMessage { stamp, level, message, values }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use geometry::Stamp;

    use super::{Reporter, failure, status};
    use crate::ros::lifecycle::State;
    use crate::ros::message::DiagnosticLevel;
    use crate::ros::transport::graph::{CAMERA_INFO, FOLLOWED, IMAGE, REFERENCE, Remark};
    use crate::ros::transport::qos::{End, Mismatch};
    use crate::status::counters::{Fate, Stats};
    use crate::trust::checks::{Check, Evidence, Residual};
    use crate::trust::state::Status;

    /// Runs `act` before each report; the last report's level and sentence.
    fn last_of(reports: usize, act: impl Fn(usize, &Arc<Stats>, Instant)) -> (DiagnosticLevel, String) {
        let stats = Stats::new();
        stats.update(|s| s.lifecycle = State::Active);
        let start = Instant::now();
        let mut reporter = Reporter::new("/cam".to_owned(), Duration::from_millis(2500), start);
        let mut last = None;
        for i in 0..reports {
            let now = start + Duration::from_secs(i as u64 + 1);
            act(i, &stats, now);
            last = Some(reporter.report(Stamp::default(), now, stats.snapshot()));
        }
        let last = last.unwrap();
        (last.level, last.message)
    }

    fn end(stats: &Arc<Stats>, now: Instant, fate: Fate) {
        stats.receive(now).note(fate);
    }

    #[test]
    fn a_silent_camera_is_stale() {
        let never = last_of(3, |_, _, _| {});
        assert_eq!(never, (DiagnosticLevel::Stale, "no image on /cam since the start, 3 s".to_owned()));
        let no_more = last_of(5, |i, stats, now| {
            if i == 1 {
                end(stats, now, Fate::Used);
            }
        });
        assert_eq!(no_more, (DiagnosticLevel::Stale, "no image on /cam for 3 s".to_owned()));
    }

    fn mismatch(ours: End) -> Remark {
        let (policy, offered, requested) = ("reliability", "best_effort", "reliable");
        Remark::Qos(Mismatch { topic: "/cam".to_owned(), ours, policy, offered, requested })
    }

    fn alone(key: &'static str, topic: &str) -> Remark {
        let others = vec!["/front/camera_info".to_owned()];
        Remark::Alone { topic: topic.to_owned(), key, expected: "sensor_msgs/msg/CameraInfo".to_owned(), others }
    }

    #[test]
    fn a_camera_info_that_is_waited_for_is_named_with_who_publishes_it() {
        let told = |infos: u64| {
            last_of(3, |_, stats, now| {
                end(stats, now, Fate::NoCameraInfo);
                stats.update(|s| {
                    s.last_problem = Some("no CameraInfo yet".to_owned());
                    s.camera_infos_received = infos;
                    s.graph = vec![alone(CAMERA_INFO, "/camera/camera_info")];
                });
            })
        };
        let (level, message) = told(0);
        assert_eq!(level, DiagnosticLevel::Error);
        for part in
            ["no CameraInfo yet; nobody publishes /camera/camera_info (topics.camera_info)", "/front/camera_info"]
        {
            assert!(message.contains(part), "`{part}` is not in: {message}");
        }
        assert!(!told(1).1.contains("nobody publishes"), "it came");
    }

    #[test]
    fn an_odometry_by_another_clock_than_the_images_is_named() {
        let told = |odometry: i64| {
            last_of(1, |_, stats, now| {
                end(stats, now, Fate::Used);
                stats.update(|s| {
                    s.last_stamp = Some(Stamp::from_nanos(1_700_000_000_000_000_000));
                    s.odometry_stamp = Some(Stamp::from_nanos(odometry));
                });
            })
        };
        let (level, message) = told(40_000_000_000);
        assert_eq!(level, DiagnosticLevel::Warn);
        let words = "the newest stamp of scale.odometry_topic is 1699999960 s behind the images'";
        assert!(message.contains(words) && message.contains("use_sim_time"), "{message}");
        assert_eq!(told(1_700_000_000_300_000_000).0, DiagnosticLevel::Ok, "late by less than it matters");
    }

    #[test]
    fn who_publishes_is_told_of_what_the_node_waits_for_and_of_nothing_else() {
        let fitting = |key, topic: &str| Remark::Fitting { topic: topic.to_owned(), key, publishers: 1 };
        let told = |reports, remark: &Remark, hears: bool| {
            last_of(reports, |_, stats, now| {
                if hears {
                    end(stats, now, Fate::Used);
                }
                stats.update(|s| {
                    s.graph = vec![remark.clone()];
                    (s.odometry_received, s.followed_received) = (u64::from(hears), u64::from(hears));
                });
            })
        };
        let (level, message) = told(4, &fitting(IMAGE, "/cam"), false);
        assert_eq!(level, DiagnosticLevel::Stale);
        assert!(message.contains("since the start, 4 s; /cam (topics.image) has 1 publisher"), "{message}");
        for key in [IMAGE, REFERENCE, FOLLOWED] {
            let remark = alone(key, "/t");
            assert!(told(4, &remark, false).1.contains("nobody publishes /t"), "{key}");
            assert!(!told(4, &remark, true).1.contains("nobody publishes"), "{key}: it comes");
            assert!(!told(1, &remark, false).1.contains("nobody publishes"), "{key}: it may be discovered yet");
        }
        let shared = Remark::Shared { topics: vec!["/ego/odometry".to_owned()] };
        let (level, message) = told(1, &shared, true);
        assert_eq!(level, DiagnosticLevel::Warn);
        assert!(message.contains("another node publishes on /ego/odometry too"), "{message}");
    }

    #[test]
    fn a_camera_that_is_not_heard_is_named_until_it_is_gone() {
        let told = |reports, ours| {
            last_of(reports, |i, stats, _| {
                stats.update(|s| s.graph = if i < 4 { vec![mismatch(ours)] } else { vec![] });
            })
        };
        let reason = mismatch(End::Subscription).to_string();
        assert_eq!(
            told(1, End::Subscription),
            (DiagnosticLevel::Warn, format!("waiting for the first answer; {reason}"))
        );
        let silent = "no image on /cam since the start, 4 s";
        assert_eq!(told(4, End::Subscription), (DiagnosticLevel::Stale, format!("{silent}; {reason}")));
        let silent = "no image on /cam since the start, 5 s";
        assert_eq!(told(5, End::Subscription), (DiagnosticLevel::Stale, silent.to_owned()), "it is gone");
        assert_eq!(told(1, End::Publisher).0, DiagnosticLevel::Ok, "a subscriber's wish is no fault of the node");
        let inactive = last_of(1, |_, stats, _| {
            stats.update(|s| {
                s.lifecycle = State::Inactive;
                s.graph = vec![mismatch(End::Subscription)];
            });
        });
        assert_eq!(inactive.0, DiagnosticLevel::Ok);
    }

    #[test]
    fn weights_that_were_changed_are_an_error_whatever_else_there_is() {
        for state in [State::Active, State::Inactive] {
            let changed = last_of(2, |_, stats, now| {
                end(stats, now, Fate::Used);
                stats.update(|s| {
                    s.lifecycle = state;
                    s.weights_changed = Some("/w/model.gguf: changed".to_owned());
                });
            });
            assert_eq!(changed.0, DiagnosticLevel::Error);
            assert!(changed.1.starts_with("/w/model.gguf: changed; "), "{}", changed.1);
        }
    }

    #[test]
    fn values_name_every_mismatch() {
        let stats = Stats::new();
        let value = || {
            let report = failure(Stamp::default(), "a test", &stats.snapshot());
            report.values.into_iter().find(|(name, _)| name == "qos_mismatch").map(|(_, value)| value)
        };
        assert_eq!(value(), None);
        let [subscription, publisher] = [End::Subscription, End::Publisher].map(mismatch);
        let told = format!("{subscription}; {publisher}");
        stats.update(|s| s.graph = vec![subscription, publisher]);
        assert_eq!(value(), Some(told));
    }

    #[test]
    fn images_that_are_all_refused_are_an_error_with_the_reason() {
        let (level, message) = last_of(2, |_, stats, now| {
            end(stats, now, Fate::NoCameraInfo);
            stats.update(|s| s.last_problem = Some("no CameraInfo yet".to_owned()));
        });
        assert_eq!(level, DiagnosticLevel::Error);
        assert!(message.contains("every image is refused") && message.contains("no CameraInfo yet"), "{message}");
    }

    #[test]
    fn images_of_which_the_last_still_wait_for_their_window_are_all_refused_too() {
        let covered = |reports| {
            last_of(reports, |i, stats, now| {
                if i == 0 {
                    (0..4).for_each(|_| std::mem::forget(stats.receive(now)));
                }
                for fate in [Fate::Blank, Fate::BrokenWindow, Fate::BrokenWindow] {
                    end(stats, now, fate);
                }
                stats.update(|s| s.last_problem = Some("image is black".to_owned()));
            })
        };
        assert_eq!(covered(1).0, DiagnosticLevel::Warn, "four wait behind three");
        assert_eq!(covered(6), (DiagnosticLevel::Error, "every image is refused: image is black".to_owned()));
    }

    #[test]
    fn answers_that_never_parse_are_an_error_and_single_ones_a_warning() {
        let answer = |stats: &Arc<Stats>, now, parsed: bool| {
            end(stats, now, Fate::Used);
            stats.update(|s| {
                s.windows_answered += 1;
                s.answers_unparsed += u64::from(!parsed);
                s.add_latency(Duration::from_millis(20));
            });
        };
        let never = last_of(3, |_, stats, now| answer(stats, now, false));
        assert_eq!(never.0, DiagnosticLevel::Error);
        let once = last_of(3, |i, stats, now| answer(stats, now, i != 0));
        assert_eq!(once.0, DiagnosticLevel::Warn);
        let long_ago = last_of(20, |i, stats, now| answer(stats, now, i != 0));
        assert_eq!(long_ago, (DiagnosticLevel::Ok, "20 windows answered, 20 ms each".to_owned()));
    }

    #[test]
    fn a_node_that_is_lost_says_why_until_it_is_not() {
        let seen = |reports| {
            last_of(reports, |i, stats, now| {
                end(stats, now, Fate::Used);
                stats.update(|s| {
                    s.windows_answered += 1;
                    s.add_latency(Duration::from_millis(20));
                    (s.status, s.status_reason) = match i {
                        0..3 => (Status::Ok, String::new()),
                        3..6 => (Status::Degraded, "2 bad windows".to_owned()),
                        6..9 => (Status::Lost, "3 bad windows".to_owned()),
                        _ => (Status::Ok, String::new()),
                    };
                });
            })
        };
        assert_eq!(seen(3).0, DiagnosticLevel::Ok);
        assert_eq!(seen(6), (DiagnosticLevel::Warn, "DEGRADED: 2 bad windows".to_owned()));
        assert_eq!(seen(9), (DiagnosticLevel::Error, "LOST, nothing comes out: 3 bad windows".to_owned()));
        assert_eq!(seen(10).0, DiagnosticLevel::Ok, "what is over is over");
    }

    #[test]
    fn values_name_the_checks_that_ran_and_what_they_measured() {
        let residual = Residual { check: Check::Epipolar, value: 1.25, ratio: 0.6 };
        let stats = Stats::new();
        stats.update(|s| {
            s.status = Status::Degraded;
            s.status_reason = "2 bad windows".to_owned();
            s.evidence =
                Some(Evidence { residuals: vec![residual], faults: vec![], stated_stddev_metres: Some(0.0254) });
        });
        let report = failure(Stamp::default(), "a test", &stats.snapshot());
        for (key, expected) in [
            ("status", "DEGRADED"),
            ("status_reason", "2 bad windows"),
            ("scale", "metric"),
            ("checks", "parse, rotation, sanity, epipolar"),
            ("residual_epipolar_px", "1.250"),
            ("stated_stddev_metres", "0.025"),
        ] {
            assert!(report.values.contains(&(key.to_owned(), expected.to_owned())), "{key}: {:?}", report.values);
        }
    }

    #[test]
    fn a_node_that_is_not_active_says_so_and_an_error_where_it_failed() {
        let rows = [
            (State::Inactive, "", DiagnosticLevel::Ok, "inactive, nothing comes out"),
            (State::Configuring, "", DiagnosticLevel::Ok, "configuring, nothing comes out"),
            (
                State::Unconfigured,
                "no such file",
                DiagnosticLevel::Error,
                "unconfigured, nothing comes out: no such file",
            ),
        ];
        for (state, problem, level, message) in rows {
            let told = last_of(5, |_, stats, _| {
                stats.update(|s| (s.lifecycle, s.lifecycle_problem) = (state, problem.to_owned()));
            });
            assert_eq!(told, (level, message.to_owned()), "although the camera is silent");
        }
    }

    #[test]
    fn the_status_is_the_report_without_what_only_the_bench_reads() {
        let stats = Stats::new();
        stats.update(|s| {
            s.status = Status::Degraded;
            s.status_reason = "2 bad windows".to_owned();
            s.odometry_breaks = 3;
            let residual = Residual { check: Check::Epipolar, value: 1.25, ratio: 0.6 };
            s.evidence =
                Some(Evidence { residuals: vec![residual], faults: vec![], stated_stddev_metres: Some(0.0254) });
        });
        let report = failure(Stamp::from_nanos(5), "a test", &stats.snapshot());
        let short = status(&report);
        assert_eq!((short.stamp, short.level, &short.message), (report.stamp, report.level, &report.message));
        let names: Vec<&str> = short.values.iter().map(|(name, _)| name.as_str()).collect();
        let expected = [
            "windows_answered",
            "windows_compared",
            "windows_contradicted",
            "odometry_breaks",
            "lifecycle",
            "status",
            "status_reason",
            "scale",
            "checks",
            "residual_epipolar_px",
            "stated_stddev_metres",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_model_that_never_answers_is_noticed() {
        let busy = |reports| {
            last_of(reports, |_, stats, now| {
                end(stats, now, Fate::Superseded);
                stats.update(|s| s.windows_superseded += 1);
            })
        };
        assert_eq!(busy(5).0, DiagnosticLevel::Ok);
        let (level, message) = busy(15);
        assert_eq!(level, DiagnosticLevel::Warn);
        assert!(message.contains("busy"), "{message}");
    }

    #[test]
    fn windows_that_give_way_are_normal_and_late_frames_are_not() {
        let superseded = last_of(3, |_, stats, now| end(stats, now, Fate::Superseded));
        assert_eq!(superseded.0, DiagnosticLevel::Ok);
        let late = last_of(3, |i, stats, now| end(stats, now, if i == 1 { Fate::Backward } else { Fate::Used }));
        assert_eq!(late, (DiagnosticLevel::Warn, "frames_dropped_backward +1".to_owned()));
    }
}
