//! What was heard and seen, as numbers.

use std::time::{Duration, Instant};

use camera::sequence::Sequence;
use geometry::{Stamp, Transform, WINDOW, WindowErrors, WindowTrajectory};
use nalgebra::Vector3;
use serde::Serialize;

use super::sampler::{Sample, cpu_percent, growth_mib, percentile};
use super::source::Played;
use crate::listener::{Heard, Path, Report};

/// The numbers of a run; what could not be measured is null.
#[derive(Debug, Default, Serialize)]
pub struct Measured {
    /// From the start of the process to its word that it is active.
    pub startup_seconds: Option<f64>,
    /// Of one core, active and without a camera.
    pub idle_cpu_percent: Option<f64>,
    /// The same with it.
    pub cpu_percent: Option<f64>,
    /// Highest.
    pub resident_mib: Option<f64>,
    /// After the warm-up.
    pub resident_growth_mib: Option<f64>,
    /// Highest of the machine.
    pub temperature_celsius: Option<f64>,
    /// That the node received.
    pub images_per_second: Option<f64>,
    /// That the model answered.
    pub windows_per_second: Option<f64>,
    /// From the stamp of a window's last image to its Path, by this machine's clock.
    pub latency_ms_p50: Option<f64>,
    pub latency_ms_p95: Option<f64>,
    pub latency_ms_highest: Option<f64>,
    /// From an image's stamp to its Odometry.
    pub odometry_latency_ms_p50: Option<f64>,
    pub odometry_latency_ms_p95: Option<f64>,
    pub odometry_latency_ms_highest: Option<f64>,
    /// Odometry messages for an image that was sent.
    pub odometry_share: Option<f64>,
    pub paths: Option<f64>,
    /// Of the answers.
    pub parsed_share: Option<f64>,
    /// Of the reports while images came.
    pub ok_share: Option<f64>,
    pub degraded_share: Option<f64>,
    pub lost_share: Option<f64>,
    /// Median over windows of the mean over frame 0 to i, as everywhere in this repository.
    pub rotation_error_degrees: Option<f64>,
    /// The same, in the sequence's unit.
    pub translation_error: Option<f64>,
    /// The most by which the node's counters did not add up, in any report and in its last words.
    pub frames_unaccounted: Option<f64>,
    /// Images that were sent reliably and never came.
    pub frames_lost: Option<f64>,
    /// From SIGTERM to an exit status of 0.
    pub exit_seconds: Option<f64>,
}

/// When images came: of the listener's clock, and of the stamps'.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    pub begun: Instant,
    /// The same moment on the clock of the stamps.
    pub begun_stamp: Stamp,
    pub ended: Instant,
}

/// The node's last line before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastWords {
    pub received: u64,
    pub used: u64,
    pub posed: u64,
    pub dropped: u64,
}

impl LastWords {
    /// Finds them in the log.
    pub fn of_log(log: &str) -> Option<Self> {
        let line = log.lines().rev().find(|line| line.contains("frames_received="))?;
        let logged = |name: &str| {
            let value = line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            value?.parse::<u64>().ok()
        };
        Some(Self {
            received: logged("frames_received")?,
            used: logged("frames_used")?,
            posed: logged("frames_posed")?,
            dropped: logged("frames_dropped")?,
        })
    }
}

impl Measured {
    /// What the machine gave, `samples` from the first image on.
    pub fn machine(&mut self, samples: &[Sample], warm_up_seconds: f64) {
        self.resident_mib = samples.iter().map(|sample| sample.resident_mib).reduce(f64::max);
        self.resident_growth_mib = growth_mib(samples, warm_up_seconds);
        self.temperature_celsius = samples.iter().filter_map(|sample| sample.temperature_celsius).reduce(f64::max);
        if let [first, .., last] = samples {
            let of = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default();
            let wall = of(last.seconds - first.seconds);
            self.cpu_percent = cpu_percent(of(first.cpu_seconds), of(last.cpu_seconds), wall);
        }
    }

    /// What the node published while `sent` images came; `before` is its report before them.
    pub fn heard(&mut self, heard: &Heard, span: Span, before: Option<&Report>, sent: u64) {
        let seconds = span.ended.duration_since(span.begun).as_secs_f64();
        let since = |key: &str| {
            let last = heard.diagnostics.last()?.count(key)?;
            Some(last.saturating_sub(before.and_then(|report| report.count(key)).unwrap_or(0)) as f64)
        };
        self.images_per_second = since("frames_received").map(|n| n / seconds);
        self.windows_per_second = since("windows_answered").map(|n| n / seconds);
        let answers = since("windows_answered").filter(|n| *n > 0.0);
        self.parsed_share = answers.zip(since("answers_unparsed")).map(|(all, bad)| 1.0 - bad / all);

        let paths: Vec<&Path> = heard.paths.iter().filter(|path| path.heard_at >= span.begun).collect();
        self.paths = Some(paths.len() as f64);
        let of_path = |path: &&Path| latency_ms(path.heard_at, path.poses.last()?.stamp, span);
        let latencies: Vec<f64> = paths.iter().filter_map(of_path).collect();
        self.latency_ms_p50 = percentile(&latencies, 0.5);
        self.latency_ms_p95 = percentile(&latencies, 0.95);
        self.latency_ms_highest = percentile(&latencies, 1.0);

        let odometry = heard.odometry.iter().filter(|odometry| odometry.heard_at >= span.begun);
        let latencies: Vec<f64> =
            odometry.filter_map(|odometry| latency_ms(odometry.heard_at, odometry.pose.stamp, span)).collect();
        self.odometry_latency_ms_p50 = percentile(&latencies, 0.5);
        self.odometry_latency_ms_p95 = percentile(&latencies, 0.95);
        self.odometry_latency_ms_highest = percentile(&latencies, 1.0);
        self.odometry_share = (sent > 0).then(|| latencies.len() as f64 / sent as f64);

        let during = |report: &&Report| report.heard_at >= span.begun && report.heard_at <= span.ended;
        let reports: Vec<&Report> = heard.diagnostics.iter().filter(during).collect();
        let share = |status: &str| {
            let count = reports.iter().filter(|r| r.values.get("status").is_some_and(|s| s == status)).count();
            (!reports.is_empty()).then(|| count as f64 / reports.len() as f64)
        };
        self.ok_share = share("OK");
        self.degraded_share = share("DEGRADED");
        self.lost_share = share("LOST");
    }

    /// Poses against the ground truth of what was played.
    pub fn accuracy(&mut self, paths: &[Path], sequence: &Sequence, played: &Played) {
        let errors: Vec<WindowErrors> = paths.iter().filter_map(|path| errors_of(path, sequence, played)).collect();
        let median = |of: fn(&WindowErrors) -> f64| percentile(&errors.iter().map(of).collect::<Vec<_>>(), 0.5);
        self.rotation_error_degrees = median(|errors| errors.rre_deg);
        self.translation_error = median(|errors| errors.rte_abs);
    }

    /// Whether every frame has its fate; `sent` is what a reliable camera published.
    pub fn frames(&mut self, reports: &[Report], last_words: Option<LastWords>, sent: Option<u64>) {
        // The node's last words alone say that nothing is pending any more: without them nothing was shown.
        let Some(last) = last_words else { return };
        let missing = reports.iter().filter_map(Report::frames_unaccounted);
        let at_the_end = last.received.abs_diff(last.used + last.posed + last.dropped);
        self.frames_unaccounted = Some(missing.fold(at_the_end, u64::max) as f64);
        self.frames_lost = sent.map(|sent| sent.abs_diff(last.received) as f64);
    }
}

/// From a stamp to when what bears it was heard.
fn latency_ms(heard_at: Instant, stamp: Stamp, span: Span) -> Option<f64> {
    let since = heard_at.checked_duration_since(span.begun)?;
    let taken = stamp.nanos_since(span.begun_stamp) as f64;
    Some(since.as_secs_f64() * 1e3 - taken / 1e6)
}

/// `None` for a Path that is not of five images that were played, or has no truth.
fn errors_of(path: &Path, sequence: &Sequence, played: &Played) -> Option<WindowErrors> {
    let mut frames = [0; WINDOW];
    let mut anchor_from_camera = [Transform::identity(); WINDOW];
    if path.poses.len() != WINDOW {
        return None;
    }
    for (i, pose) in path.poses.iter().enumerate() {
        frames[i] = *played.frames.get(&pose.stamp.nanos)?;
        anchor_from_camera[i] = Transform::from_xyzw(pose.orientation_xyzw, &Vector3::from(pose.position)).ok()?;
    }
    let estimate = WindowTrajectory::new(anchor_from_camera).ok()?;
    Some(WindowErrors::new(&sequence.ground_truth(frames)?, &estimate, sequence.scale))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::{Duration, Instant};

    use geometry::Stamp;

    use super::{LastWords, Measured, Span};
    use crate::hil::sampler::Sample;
    use crate::hil::source::Played;
    use crate::listener::{Heard, Path, Pose, Report};
    use crate::root;

    fn report(heard_at: Instant, status: &str, counts: &[(&str, u64)]) -> Report {
        let mut values: BTreeMap<String, String> =
            counts.iter().map(|(key, n)| ((*key).to_owned(), n.to_string())).collect();
        values.insert("status".to_owned(), status.to_owned());
        Report { heard_at, stamp: None, level: 0, name: String::new(), message: String::new(), values }
    }

    /// Five poses, of which the last has this stamp.
    fn path(heard_at: Instant, last_stamp: i64, pose: impl Fn(usize) -> Pose) -> Path {
        let poses = (0..5).map(|i| Pose { stamp: Stamp::from_nanos(last_stamp - 4 + i as i64), ..pose(i) }).collect();
        Path { heard_at, stamp: Stamp::from_nanos(last_stamp - 4), frame_id: String::new(), poses }
    }

    fn still(_: usize) -> Pose {
        Pose {
            stamp: Stamp::default(),
            frame_id: String::new(),
            position: [0.0; 3],
            orientation_xyzw: [0.0, 0.0, 0.0, 1.0],
        }
    }

    fn near(got: Option<f64>, expected: f64) {
        assert!(got.is_some_and(|got| (got - expected).abs() < 1e-6), "{got:?}, not {expected}");
    }

    #[test]
    fn rates_shares_and_latencies_are_of_the_time_of_the_images() {
        let begun = Instant::now();
        let at = |ms: u64| begun + Duration::from_millis(ms);
        let span = Span { begun, begun_stamp: Stamp::from_nanos(1_000_000_000), ended: at(10_000) };
        let counts = |n: u64| [("frames_received", 10 * n), ("windows_answered", 2 * n), ("answers_unparsed", n / 2)];
        let before = report(begun, "OK", &counts(2));
        let mut heard = Heard::default();
        for (ms, status) in [(1000, "OK"), (2000, "OK"), (3000, "LOST"), (4000, "DEGRADED"), (12_000, "LOST")] {
            heard.diagnostics.push(report(at(ms), status, &counts(ms / 1000)));
        }
        for (ms, stamp_ms) in [(500, 100), (700, 200), (1200, 1000)] {
            heard.paths.push(path(at(ms), 1_000_000_000 + stamp_ms * 1_000_000, still));
        }
        let mut m = Measured::default();
        m.heard(&heard, span, Some(&before), 10);
        near(m.images_per_second, 10.0);
        near(m.windows_per_second, 2.0);
        near(m.parsed_share, 0.75);
        near(m.paths, 3.0);
        near(m.latency_ms_p50, 400.0);
        near(m.latency_ms_highest, 500.0);
        near(m.ok_share, 0.5);
        near(m.degraded_share, 0.25);
        near(m.lost_share, 0.25);
    }

    #[test]
    fn a_still_answer_is_wrong_by_what_the_camera_moved() {
        let sequence = camera::sequence::Sequence::load(&root().join("tests/data/amazon_box")).unwrap();
        let mut played = Played::default();
        for i in 0..5 {
            played.frames.insert(96 + i, 10 + i as usize);
        }
        let truth = sequence.ground_truth([10, 11, 12, 13, 14]).unwrap();
        let turned: f64 = truth.anchor_from_camera()[1..].iter().map(|t| t.rotation().angle().to_degrees()).sum();
        let (known, foreign) = (path(Instant::now(), 100, still), path(Instant::now(), 200, still));
        let mut m = Measured::default();
        m.accuracy(&[known, foreign], &sequence, &played);
        near(m.rotation_error_degrees, turned / 4.0);
        assert!(m.translation_error > Some(0.0), "{m:?}");
        let mut none = Measured::default();
        none.accuracy(&[], &sequence, &played);
        assert_eq!(none.rotation_error_degrees, None);
    }

    #[test]
    fn a_frame_without_a_fate_is_found_and_silence_at_the_end_shows_nothing() {
        let counts = |pending: u64| {
            let counts =
                [("frames_received", 20), ("frames_used", 8), ("frames_posed", 2), ("frames_pending", pending)];
            report(Instant::now(), "OK", &[&counts[..], &[("frames_dropped_decode", 3)]].concat())
        };
        let log = "INFO starting\nINFO node: stopped frames_received=20 frames_used=13 frames_posed=2 frames_dropped=5 windows=3\n";
        let last = LastWords::of_log(log).unwrap();
        assert_eq!(last, LastWords { received: 20, used: 13, posed: 2, dropped: 5 });
        let of = |pending, last, sent| {
            let mut m = Measured::default();
            m.frames(&[counts(7), counts(pending)], last, sent);
            (m.frames_unaccounted, m.frames_lost)
        };
        assert_eq!(of(7, Some(last), Some(20)), (Some(0.0), Some(0.0)));
        assert_eq!(of(5, Some(last), Some(22)), (Some(2.0), Some(2.0)));
        assert_eq!(of(7, Some(LastWords { dropped: 4, ..last }), None), (Some(1.0), None));
        assert_eq!(of(7, None, Some(20)), (None, None));
        assert_eq!(LastWords::of_log("INFO starting\n"), None);
    }

    #[test]
    fn the_machine_is_measured_from_the_first_to_the_last_sample() {
        let sample = |seconds, mib, cpu, celsius| Sample {
            seconds,
            resident_mib: mib,
            cpu_seconds: cpu,
            temperature_celsius: celsius,
        };
        let mut m = Measured::default();
        m.machine(
            &[sample(0.0, 90.0, 1.0, None), sample(5.0, 110.0, 3.0, Some(50.0)), sample(10.0, 100.0, 6.0, Some(45.0))],
            5.0,
        );
        near(m.cpu_percent, 50.0);
        near(m.resident_mib, 110.0);
        near(m.resident_growth_mib, 20.0);
        near(m.temperature_celsius, 50.0);
        let mut none = Measured::default();
        none.machine(&[], 5.0);
        assert_eq!((none.cpu_percent, none.resident_mib), (None, None));
    }
}
