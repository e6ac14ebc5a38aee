//! What a bench is told: `tests/sil.toml`, `tests/soak.toml` and `tests/hil.toml` say what each key means. A key that is
//! not known is an error, and so is one that is missing, but for bounds: what has none is measured all the same.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// A whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Of the suite, in its reports.
    pub name: String,
    pub node: Node,
    pub source: Source,
    pub run: Run,
    pub bounds: Bounds,
    pub report: Report,
}

/// The process under test.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its program; EGOREASONER_NODE goes before it.
    pub program: PathBuf,
    pub config: PathBuf,
    /// `KEY=VALUE` each.
    pub set: Vec<String>,
    /// -1: one of its own.
    pub domain_id: i16,
}

/// Where images come from.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Source {
    /// Frames with ground truth, forwards and backwards in turn.
    Sequence {
        /// With sequence.json and frames/.
        path: PathBuf,
        rate_hz: f64,
        /// Pixels; both 0: as the files are.
        width: u32,
        height: u32,
    },
    /// An MCAP file at its own pace, over and over.
    Recording { path: PathBuf },
    /// The device's own camera: nothing is published.
    Live {},
}

/// Times, in seconds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    pub start_seconds: f64,
    pub idle_seconds: f64,
    pub play_seconds: f64,
    pub warm_up_seconds: f64,
    pub drain_seconds: f64,
}

/// Limits; see [`super::check`] for what they are held against.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    pub startup_seconds_max: Option<f64>,
    pub idle_cpu_percent_max: Option<f64>,
    pub cpu_percent_max: Option<f64>,
    pub resident_mib_max: Option<f64>,
    pub resident_growth_mib_max: Option<f64>,
    pub temperature_celsius_max: Option<f64>,
    pub images_per_second_min: Option<f64>,
    pub windows_per_second_min: Option<f64>,
    pub latency_ms_p95_max: Option<f64>,
    pub odometry_latency_ms_p95_max: Option<f64>,
    pub odometry_latency_ms_highest_max: Option<f64>,
    pub odometry_share_min: Option<f64>,
    pub paths_min: Option<f64>,
    pub parsed_share_min: Option<f64>,
    pub ok_share_min: Option<f64>,
    pub lost_share_max: Option<f64>,
    pub rotation_error_degrees_max: Option<f64>,
    pub translation_error_max: Option<f64>,
    pub frames_unaccounted_max: Option<f64>,
    pub frames_lost_max: Option<f64>,
    pub exit_seconds_max: Option<f64>,
}

/// Files that are written, relative to the repository's root.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    pub junit: PathBuf,
    pub json: PathBuf,
    /// Of the node's log.
    pub folder: PathBuf,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// What is wrong, with the file and the key.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> Result<Self> {
        let config: Self = toml::from_str(text)?;
        let run = &config.run;
        for (key, seconds) in [
            ("run.start_seconds", run.start_seconds),
            ("run.idle_seconds", run.idle_seconds),
            ("run.play_seconds", run.play_seconds),
            ("run.warm_up_seconds", run.warm_up_seconds),
            ("run.drain_seconds", run.drain_seconds),
        ] {
            let is_time = Duration::try_from_secs_f64(seconds).is_ok();
            ensure!(is_time, "{key}: expected seconds from 0 on, got {seconds}");
        }
        ensure!(run.play_seconds > 0.0, "run.play_seconds: expected more than 0");
        ensure!(
            (-1..=232).contains(&config.node.domain_id),
            "node.domain_id: expected -1 to 232, got {}",
            config.node.domain_id
        );
        for set in &config.node.set {
            ensure!(set.contains('='), "node.set: expected KEY=VALUE, got {set:?}");
        }
        match config.source {
            Source::Sequence { rate_hz, width, height, .. } => {
                ensure!(rate_hz > 0.0 && rate_hz.is_finite(), "source.rate_hz: expected more than 0, got {rate_hz}");
                ensure!((width == 0) == (height == 0), "source.width and height: expected both or neither to be 0");
            }
            Source::Recording { .. } => {}
            Source::Live {} => {
                ensure!(config.node.domain_id >= 0, "node.domain_id: expected that of the live camera, got -1");
            }
        }
        Ok(config)
    }
}

impl Node {
    /// The overrides as the node's config takes them.
    pub fn overrides(&self) -> Vec<(String, String)> {
        let pairs = self.set.iter().filter_map(|set| set.split_once('='));
        pairs.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Config, Source};
    use crate::root;

    const SHIPPED: [&str; 3] = ["sil.toml", "soak.toml", "hil.toml"];

    fn text(name: &str) -> String {
        std::fs::read_to_string(root().join("tests").join(name)).unwrap()
    }

    #[test]
    fn the_shipped_files_are_read_and_so_is_what_they_tell_the_node() {
        for name in SHIPPED {
            let config = Config::load(&root().join("tests").join(name)).unwrap();
            let shipped = root().join(&config.node.config);
            node::config::Config::load(&shipped, &config.node.overrides()).unwrap_or_else(|e| panic!("{name}: {e}"));
            if let Source::Sequence { path, .. } = &config.source {
                assert!(root().join(path).join("sequence.json").is_file(), "{name}");
            }
        }
    }

    #[test]
    fn mistakes_are_named_with_their_key() {
        let rows = [
            ("[bounds]\n", "[bounds]\nlatency_max = 1\n", "latency_max"),
            ("[run]\n", "[run]\nminutes = 1\n", "minutes"),
            ("kind = \"sequence\"", "kind = \"sequence\"\nrate = 3.0", "rate"),
            ("kind = \"sequence\"", "kind = \"camera\"", "camera"),
            ("idle_seconds = ", "idle_seconds = -", "run.idle_seconds"),
            ("domain_id = -1", "domain_id = 233", "node.domain_id"),
            ("rate_hz = ", "rate_hz = -", "source.rate_hz"),
            ("width = 640", "width = 0", "source.width"),
            ("set = [", "set = [\"window.stride\", ", "window.stride"),
            ("name = \"sil\"\n", "", "name"),
        ];
        let good = text("sil.toml");
        for (from, to, wanted) in rows {
            assert!(good.contains(from), "{from}");
            let message = format!("{:#}", Config::parse(&good.replace(from, to)).unwrap_err());
            assert!(message.contains(wanted), "{wanted}: {message}");
        }
    }

    #[test]
    fn a_live_camera_has_a_domain() {
        let live = |domain: &str| {
            let text = text("sil.toml").replace("domain_id = -1", domain);
            let (before, rest) = text.split_once("[source]").unwrap();
            let (_, after) = rest.split_once("[run]").unwrap();
            Config::parse(&format!("{before}[source]\nkind = \"live\"\n[run]{after}"))
        };
        assert!(live("domain_id = 0").is_ok());
        assert!(format!("{:#}", live("domain_id = -1").unwrap_err()).contains("node.domain_id"));
    }
}
