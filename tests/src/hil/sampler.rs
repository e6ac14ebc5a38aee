//! What the node takes of the machine, over time.

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::process::{Usage, usage_of};

/// Between two samples.
const PERIOD: Duration = Duration::from_millis(500);

/// Before the end of the warm-up, the time whose highest sample is what later ones are held against: memory breathes with
/// every window, and one sample may be taken in either half of a breath.
const LAST_OF_WARM_UP: f64 = 10.0;

const THERMAL: &str = "/sys/class/thermal";

/// One look.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Sample {
    /// Since the first image was due.
    pub seconds: f64,
    pub resident_mib: f64,
    /// All that the process took since its start.
    pub cpu_seconds: f64,
    /// The hottest zone of the machine, where there is one.
    pub temperature_celsius: Option<f64>,
}

impl Sample {
    fn new(since: Instant, usage: Usage) -> Self {
        Self {
            seconds: since.elapsed().as_secs_f64(),
            resident_mib: usage.resident_mib,
            cpu_seconds: usage.cpu.as_secs_f64(),
            temperature_celsius: hottest(Path::new(THERMAL)),
        }
    }
}

/// Looks at a process until told to stop, or until it has ended.
pub struct Sampler {
    stop: Sender<()>,
    thread: JoinHandle<Vec<Sample>>,
}

impl Sampler {
    pub fn start(process: u32) -> Self {
        let (stop, stopped) = channel();
        let begun = Instant::now();
        let thread = std::thread::spawn(move || {
            let mut samples = Vec::new();
            while let Ok(usage) = usage_of(process) {
                samples.push(Sample::new(begun, usage));
                if stopped.recv_timeout(PERIOD) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
            samples
        });
        Self { stop, thread }
    }

    /// What was seen.
    pub fn stop(self) -> Vec<Sample> {
        let _ = self.stop.send(()); // it may have ended with the process
        self.thread.join().unwrap_or_default()
    }
}

/// Share of one core, in percent, between two looks.
pub fn cpu_percent(from: Duration, to: Duration, wall: Duration) -> Option<f64> {
    (!wall.is_zero()).then(|| 100.0 * to.saturating_sub(from).as_secs_f64() / wall.as_secs_f64())
}

/// MiB by which the memory grew: its highest after the warm-up less its highest in the last ten seconds of that. `None`
/// where one of the two has no samples.
pub fn growth_mib(samples: &[Sample], warm_up_seconds: f64) -> Option<f64> {
    let highest = |from: f64, to: f64| {
        let within = samples.iter().filter(|sample| sample.seconds >= from && sample.seconds < to);
        within.map(|sample| sample.resident_mib).reduce(f64::max)
    };
    let before = highest(warm_up_seconds - LAST_OF_WARM_UP, warm_up_seconds)?;
    Some(highest(warm_up_seconds, f64::INFINITY)? - before)
}

/// The value that `share` of the values do not pass (nearest rank); `None` without values.
pub fn percentile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

/// The hottest of the kernel's thermal zones, degrees Celsius. Zones that are switched off cannot be read, or say something
/// far below freezing.
fn hottest(zones: &Path) -> Option<f64> {
    let zones = std::fs::read_dir(zones).ok()?.flatten();
    let celsius = zones.filter_map(|zone| {
        let text = std::fs::read_to_string(zone.path().join("temp")).ok()?;
        Some(text.trim().parse::<f64>().ok()? / 1000.0)
    });
    celsius.filter(|t| *t > -100.0).reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Sample, cpu_percent, growth_mib, hottest, percentile};

    fn samples(mib: impl Fn(f64) -> f64) -> Vec<Sample> {
        let at = |i: u32| {
            let seconds = f64::from(i);
            Sample { seconds, resident_mib: mib(seconds), cpu_seconds: 0.0, temperature_celsius: None }
        };
        (0..120).map(at).collect()
    }

    #[test]
    fn growth_is_of_what_comes_after_the_warm_up() {
        let near = |got: Option<f64>, expected: f64| {
            assert!(got.is_some_and(|got| (got - expected).abs() < 1e-9), "{got:?}, not {expected}");
        };
        // What is loaded at the start does not count, nor what was freed since.
        near(growth_mib(&samples(|t| if t < 40.0 { 900.0 } else { 100.0 }), 60.0), 0.0);
        near(growth_mib(&samples(|t| 100.0 + t), 60.0), 60.0);
        near(growth_mib(&samples(|t| if t < 60.0 { 100.0 } else { 93.0 }), 60.0), -7.0);
        // One high sample is as high as many.
        near(growth_mib(&samples(|t| if (t - 90.0).abs() < 0.5 { 105.0 } else { 100.0 }), 60.0), 5.0);
        assert_eq!(growth_mib(&samples(|_| 1.0), 120.0), None, "nothing after it");
        assert_eq!(growth_mib(&samples(|_| 1.0), 0.0), None, "nothing before it");
    }

    #[test]
    fn percentiles_are_values_that_were_there() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        for (share, expected) in [(0.95, 95.0), (0.5, 50.0), (1.0, 100.0), (0.0, 1.0)] {
            assert_eq!(percentile(&values, share), Some(expected));
        }
        assert_eq!(percentile(&[7.0], 0.95), Some(7.0));
        assert_eq!(percentile(&[], 0.95), None);
    }

    #[test]
    fn a_share_of_a_core_may_pass_one_core() {
        let seconds = Duration::from_secs;
        assert_eq!(cpu_percent(seconds(1), seconds(4), seconds(2)), Some(150.0));
        assert_eq!(cpu_percent(seconds(1), seconds(4), seconds(0)), None);
    }

    #[test]
    fn the_hottest_zone_counts_and_those_that_are_off_do_not() {
        let zones = tempfile::tempdir().unwrap();
        assert_eq!(hottest(zones.path()), None);
        for (name, temperature) in [("a", "41500\n"), ("b", "39000\n"), ("c", "-256000\n"), ("d", "")] {
            std::fs::create_dir(zones.path().join(name)).unwrap();
            std::fs::write(zones.path().join(name).join("temp"), temperature).unwrap();
        }
        std::fs::create_dir(zones.path().join("cooling_device0")).unwrap();
        assert_eq!(hottest(zones.path()), Some(41.5));
        assert_eq!(hottest(&zones.path().join("none")), None);
    }
}
