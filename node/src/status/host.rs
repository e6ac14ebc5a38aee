//! What the system tells of the machine that the node runs on: the process's memory, how hot the machine
//! is, and whether it takes the log. Where it
//! does not tell, nothing is said.
//!
//! Architecture Invariant: two replays of one recording must agree, so nothing of this reaches their reports: see
//! [`is_value`].

use std::path::Path;

use model::memory::Resident;
use model::process::lines_lost;

/// Linux's thermal zones, one folder each.
const THERMAL: &str = "/sys/class/thermal";
/// What sensors that are off or broken report is at or below this.
const ABSOLUTE_ZERO_CELSIUS: f64 = -273.15;

/// The hottest place of the machine.
#[derive(Debug, Clone, PartialEq)]
struct Hottest {
    /// The kernel's name for it, such as `x86_pkg_temp` or `gpu-thermal`.
    zone: String,
    celsius: f64,
}

/// The values of a report that are about the machine.
pub fn values() -> Vec<(String, String)> {
    let mut values = Vec::new();
    if let Some(Resident { mib: now, highest_mib: max }) = Resident::of_self() {
        values.push(("node_rss_mib".to_owned(), format!("{now:.1}")));
        values.push(("node_rss_mib_max".to_owned(), format!("{max:.1}")));
    }
    if let Some(Hottest { zone, celsius }) = hottest(Path::new(THERMAL)) {
        values.push(("temperature_celsius".to_owned(), format!("{celsius:.1}")));
        values.push(("temperature_zone".to_owned(), zone));
    }
    let lost = lines_lost();
    if lost > 0 {
        values.push(("log_lines_lost".to_owned(), lost.to_string()));
    }
    values
}

/// Whether a value of a report is one of [`values`].
pub fn is_value(key: &str) -> bool {
    key.starts_with("node_rss_mib") || key.starts_with("temperature_") || key == "log_lines_lost"
}

/// The hottest of the zones in a folder such as [`THERMAL`]; a zone that cannot be read is passed over, as one is whose
/// hardware sleeps. A handful of files that the kernel answers from memory or a sensor's register.
fn hottest(thermal: &Path) -> Option<Hottest> {
    let zones = std::fs::read_dir(thermal).ok()?.flatten().map(|entry| entry.path());
    let zones = zones.filter(|path| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("thermal_zone"))
    });
    let read = |path: &Path| {
        let millis: f64 = std::fs::read_to_string(path.join("temp")).ok()?.trim().parse().ok()?;
        let zone = std::fs::read_to_string(path.join("type")).ok()?.trim().to_owned();
        Some(Hottest { zone, celsius: millis / 1e3 }).filter(|hottest| hottest.celsius > ABSOLUTE_ZERO_CELSIUS)
    };
    // Of equally hot ones always the same, in whatever order the folder lists them.
    zones
        .filter_map(|path| read(&path))
        .max_by(|a, b| a.celsius.total_cmp(&b.celsius).then_with(|| b.zone.cmp(&a.zone)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Hottest, hottest, is_value, values};

    fn zone(thermal: &Path, name: &str, kind: &str, temp: &str) {
        let zone = thermal.join(name);
        std::fs::create_dir_all(&zone).unwrap();
        std::fs::write(zone.join("type"), format!("{kind}\n")).unwrap();
        std::fs::write(zone.join("temp"), temp).unwrap();
    }

    #[test]
    fn the_hottest_zone_that_can_be_read_counts() {
        let dir = tempfile::tempdir().unwrap();
        let thermal = dir.path();
        assert_eq!(hottest(&thermal.join("none")), None);
        assert_eq!(hottest(thermal), None);
        zone(thermal, "thermal_zone0", "cv0-thermal", "-256000\n");
        zone(thermal, "thermal_zone1", "pmic", "-274000\n");
        assert_eq!(hottest(thermal).map(|hottest| hottest.zone).as_deref(), Some("cv0-thermal"), "cold, but said");
        zone(thermal, "thermal_zone2", "cpu-thermal", "48125\n");
        zone(thermal, "thermal_zone10", "gpu-thermal", "51500\n");
        // Hotter, but no zone, no number, or without a name.
        zone(thermal, "cooling_device0", "fan", "90000\n");
        zone(thermal, "thermal_zone3", "soc", "hot\n");
        zone(thermal, "thermal_zone4", "tj", "nan\n");
        zone(thermal, "thermal_zone5", "tj", "95000\n");
        std::fs::remove_file(thermal.join("thermal_zone5/type")).unwrap();
        std::fs::create_dir(thermal.join("thermal_zone6")).unwrap();
        let expected = Hottest { zone: "gpu-thermal".to_owned(), celsius: 51.5 };
        assert_eq!(hottest(thermal), Some(expected.clone()));
        zone(thermal, "thermal_zone7", "other", "51500\n");
        assert_eq!(hottest(thermal), Some(expected), "the first by name of two that are equally hot");
    }

    #[test]
    fn values_of_the_machine_are_known_as_such() {
        assert!(values().iter().all(|(key, _)| is_value(key)));
        assert!(!is_value("latency_ms_median") && !is_value("frames_used"));
    }
}
