//! Measured numbers against their bounds, as a table for a person.

use std::fmt::Write;

use serde::Serialize;

use super::config::Bounds;
use super::measure::Measured;

/// What a number may be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    Max(f64),
    Min(f64),
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Passed,
    Failed,
    /// It has no bound.
    Unchecked,
}

/// One number.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// Its bound is this with `_max` or `_min`.
    pub name: &'static str,
    pub value: Option<f64>,
    pub bound: Option<Bound>,
    pub verdict: Verdict,
}

impl Check {
    fn new(name: &'static str, value: Option<f64>, bound: Option<Bound>) -> Self {
        // What has a bound but could not be measured has not been shown to keep it; a NaN keeps none.
        let holds = |bound| match (value, bound) {
            (Some(value), Bound::Max(max)) => value <= max,
            (Some(value), Bound::Min(min)) => value >= min,
            (None, _) => false,
        };
        let verdict = match bound.map(holds) {
            None => Verdict::Unchecked,
            Some(true) => Verdict::Passed,
            Some(false) => Verdict::Failed,
        };
        Self { name, value, bound, verdict }
    }

    /// The number beside its bound.
    pub fn finding(&self) -> String {
        let value = self.value.map_or_else(|| "not measured".to_owned(), number);
        match self.bound {
            None => format!("{value}, not checked"),
            Some(Bound::Max(max)) => format!("{value}, at most {}", number(max)),
            Some(Bound::Min(min)) => format!("{value}, at least {}", number(min)),
        }
    }
}

/// Every number that is measured, in the order of a run.
pub fn checks(measured: &Measured, bounds: &Bounds) -> Vec<Check> {
    let max = |name, value, bound: Option<f64>| Check::new(name, value, bound.map(Bound::Max));
    let min = |name, value, bound: Option<f64>| Check::new(name, value, bound.map(Bound::Min));
    let (m, b) = (measured, bounds);
    vec![
        max("startup_seconds", m.startup_seconds, b.startup_seconds_max),
        max("idle_cpu_percent", m.idle_cpu_percent, b.idle_cpu_percent_max),
        max("cpu_percent", m.cpu_percent, b.cpu_percent_max),
        max("resident_mib", m.resident_mib, b.resident_mib_max),
        max("resident_growth_mib", m.resident_growth_mib, b.resident_growth_mib_max),
        max("temperature_celsius", m.temperature_celsius, b.temperature_celsius_max),
        min("images_per_second", m.images_per_second, b.images_per_second_min),
        min("windows_per_second", m.windows_per_second, b.windows_per_second_min),
        max("latency_ms_p50", m.latency_ms_p50, None),
        max("latency_ms_p95", m.latency_ms_p95, b.latency_ms_p95_max),
        max("latency_ms_highest", m.latency_ms_highest, None),
        max("odometry_latency_ms_p50", m.odometry_latency_ms_p50, None),
        max("odometry_latency_ms_p95", m.odometry_latency_ms_p95, b.odometry_latency_ms_p95_max),
        max("odometry_latency_ms_highest", m.odometry_latency_ms_highest, b.odometry_latency_ms_highest_max),
        min("odometry_share", m.odometry_share, b.odometry_share_min),
        min("paths", m.paths, b.paths_min),
        min("parsed_share", m.parsed_share, b.parsed_share_min),
        min("ok_share", m.ok_share, b.ok_share_min),
        max("degraded_share", m.degraded_share, None),
        max("lost_share", m.lost_share, b.lost_share_max),
        max("rotation_error_degrees", m.rotation_error_degrees, b.rotation_error_degrees_max),
        max("translation_error", m.translation_error, b.translation_error_max),
        max("frames_unaccounted", m.frames_unaccounted, b.frames_unaccounted_max),
        max("frames_lost", m.frames_lost, b.frames_lost_max),
        max("exit_seconds", m.exit_seconds, b.exit_seconds_max),
    ]
}

/// A line a check.
pub fn table(checks: &[Check]) -> String {
    checks.iter().fold(String::new(), |mut table, check| {
        let verdict = match check.verdict {
            Verdict::Passed => "passed",
            Verdict::Failed => "FAILED",
            Verdict::Unchecked => "-",
        };
        let _ = writeln!(table, "{verdict:7} {:28} {}", check.name, check.finding()); // a String takes all
        table
    })
}

/// Three decimals at most.
fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::{Bound, Check, Verdict, checks, number, table};
    use crate::hil::config::Bounds;
    use crate::hil::measure::Measured;

    #[test]
    fn a_bound_holds_up_to_itself_and_nothing_keeps_one_that_was_not_measured() {
        let rows = [
            (Some(2.0), Some(Bound::Max(2.0)), Verdict::Passed),
            (Some(2.1), Some(Bound::Max(2.0)), Verdict::Failed),
            (Some(2.0), Some(Bound::Min(2.0)), Verdict::Passed),
            (Some(1.9), Some(Bound::Min(2.0)), Verdict::Failed),
            (Some(f64::NAN), Some(Bound::Max(2.0)), Verdict::Failed),
            (Some(f64::NAN), Some(Bound::Min(2.0)), Verdict::Failed),
            (None, Some(Bound::Max(2.0)), Verdict::Failed),
            (None, Some(Bound::Min(2.0)), Verdict::Failed),
            (Some(2.0), None, Verdict::Unchecked),
            (None, None, Verdict::Unchecked),
        ];
        for (value, bound, expected) in rows {
            assert_eq!(Check::new("x", value, bound).verdict, expected, "{value:?} {bound:?}");
        }
    }

    #[test]
    fn every_bound_is_held_against_its_own_number() {
        let bounds = serde_json::to_value(Bounds::default()).unwrap();
        let keys: Vec<&String> = bounds.as_object().unwrap().keys().collect();
        assert_eq!(keys.len(), 21, "{keys:?}");
        for key in keys {
            let bounds: Bounds = toml::from_str(&format!("{key} = 1.0")).unwrap();
            let checks = checks(&Measured::default(), &bounds);
            let bounded: Vec<String> = checks
                .iter()
                .filter_map(|check| match check.bound? {
                    Bound::Max(_) => Some(format!("{}_max", check.name)),
                    Bound::Min(_) => Some(format!("{}_min", check.name)),
                })
                .collect();
            assert_eq!(bounded, [key.as_str()]);
        }
    }

    #[test]
    fn the_table_says_what_failed_and_what_nobody_asked() {
        let measured = Measured { paths: Some(7.0), lost_share: Some(0.25), ..Measured::default() };
        let bounds = Bounds { paths_min: Some(8.0), startup_seconds_max: Some(30.0), ..Bounds::default() };
        let table = table(&checks(&measured, &bounds));
        let line = |name: &str| table.lines().find(|line| line.contains(&format!(" {name} "))).unwrap();
        assert!(line("paths").starts_with("FAILED") && line("paths").ends_with("7, at least 8"), "{table}");
        assert!(line("lost_share").starts_with('-') && line("lost_share").ends_with("0.25, not checked"), "{table}");
        assert!(line("startup_seconds").starts_with("FAILED"), "{table}");
        assert!(line("startup_seconds").ends_with("not measured, at most 30"), "{table}");
    }

    #[test]
    fn numbers_have_three_decimals_at_most() {
        for (value, expected) in [(2.0, "2"), (0.12345, "0.123"), (1800.0, "1800"), (-0.5, "-0.5")] {
            assert_eq!(number(value), expected);
        }
    }
}
