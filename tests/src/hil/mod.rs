//! The node on a bench: its own process, real topics, images at their real pace, a real accelerator where there is one; what
//! comes of it is measured and held against bounds. The same suite runs in software (`tests/sil.toml`), shorter and with
//! wide bounds, so that the bench itself is tested where there is no device.
//!
//! Architecture Invariant: a number that has a bound and could not be measured has failed.

pub mod check;
pub mod config;
pub mod junit;
pub mod measure;
mod sampler;
mod source;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use node::ros::transport::Topics;
use serde::Serialize;

use crate::camera::{self, Camera};
use crate::listener::{self, Heard, Listener};
use crate::process::{PATIENCE, Place, Running};
use crate::root;
use config::{Config, Source as SourceConfig};
use measure::{LastWords, Measured, Span};
use sampler::{Sample, Sampler, cpu_percent};
use source::Source;

/// Between the word that the node is active and the look at what it does when nothing comes; and between the match with the
/// camera and the first image, since the node's side of that cannot be seen.
const SETTLE: Duration = Duration::from_secs(1);

/// The node has nothing more to say when its reports have been the same for so long.
const QUIET: Duration = Duration::from_secs(3);

/// Of the camera's histories.
const DEPTH: usize = 10;

/// What is left of a run.
#[derive(Debug, Serialize)]
pub struct Outcome {
    pub measured: Measured,
    /// Images that were sent.
    pub sent: u64,
    /// The node's last report.
    pub counters: BTreeMap<String, String>,
    pub samples: Vec<Sample>,
    /// How the node ended.
    pub exit: String,
    /// What is wrong with messages that could not be read.
    pub unreadable: Vec<String>,
}

/// Runs the node as `config` says and measures it.
///
/// # Errors
///
/// Where it does not start, does not become active in its time, or ends by itself; its log is then in the folder of
/// `report`.
pub fn run(config: &Config, program: &Path) -> Result<Outcome> {
    let node_config = root().join(&config.node.config);
    let told = node::config::Config::load(&node_config, &config.node.overrides())?;
    let topics = told.topics.resolved()?;
    let source = Source::open(&config.source, &topics, told.camera.use_fixed)?;
    let folder = root().join(&config.report.folder);
    let place = match u16::try_from(config.node.domain_id) {
        Ok(domain) => Place::in_domain(folder, domain),
        Err(_) => Place::new(folder),
    };
    ensure!(program.is_file(), "{}: expected the node's program", program.display());
    let listener = Listener::start(place.domain(), &listened(&topics))?;
    let mut command = place.command(program, &node_config);
    for set in &config.node.set {
        command.arg("--set").arg(set);
    }
    let begun = Instant::now();
    let bench = Bench { config, topics, source, listener, place };
    let node = bench.place.start(command);
    let outcome = bench.measure(node, begun);
    outcome.with_context(|| format!("the node's log is {}", bench.place.log_path().display()))
}

/// All that stands around the node.
struct Bench<'a> {
    config: &'a Config,
    topics: Topics,
    source: Source,
    listener: Listener,
    place: Place,
}

impl Bench<'_> {
    fn measure(&self, mut node: Running, begun: Instant) -> Result<Outcome> {
        let run = &self.config.run;
        let mut measured = Measured::default();
        self.wait_for_active(&mut node)?;
        measured.startup_seconds = Some(begun.elapsed().as_secs_f64());
        measured.idle_cpu_percent = self.idle(&node)?;

        let camera = self.camera()?;
        let before = self.listener.heard().diagnostics.last().cloned();
        let sampler = Sampler::start(node.id());
        let (begun, begun_stamp) = (Instant::now(), source::now());
        let played = self.source.play(camera.as_ref(), seconds(run.play_seconds), || still_there(&mut node))?;
        let span = Span { begun, begun_stamp, ended: Instant::now() };
        let samples = sampler.stop();
        self.drain(&mut node)?;

        let stopped = node.stop(PATIENCE);
        // It may have ended well, only too late or with a wrong status: what was measured is measured.
        let exit = match stopped {
            Ok((status, took)) => {
                measured.exit_seconds = status.success().then_some(took.as_secs_f64());
                status.to_string()
            }
            Err(error) => format!("{error:#}"),
        };
        measured.machine(&samples, run.warm_up_seconds);
        let heard = self.listener.heard();
        measured.heard(&heard, span, before.as_ref(), played.images);
        if let Source::Frames(frames) = &self.source {
            measured.accuracy(&heard.paths, &frames.sequence, &played);
        }
        let sent = (camera.is_some() && self.topics.image_reliable).then_some(played.images);
        measured.frames(&heard.diagnostics, LastWords::of_log(&self.place.log()), sent);
        let counters = heard.diagnostics.last().map(|report| report.values.clone()).unwrap_or_default();
        let unreadable = heard.unreadable.clone();
        Ok(Outcome { measured, sent: played.images, counters, samples, exit, unreadable })
    }

    fn wait_for_active(&self, node: &mut Running) -> Result<()> {
        let limit = seconds(self.config.run.start_seconds);
        let begun = Instant::now();
        while begun.elapsed() < limit {
            still_there(node)?;
            let is_active = |heard: &Heard| heard.diagnostics.last().is_some_and(listener::Report::is_active);
            if self.listener.wait_until(Duration::from_millis(100), is_active) {
                return Ok(());
            }
        }
        bail!("the node was not active after {limit:?}")
    }

    /// What the node takes of a core while no image comes; `None` where that is not asked for.
    fn idle(&self, node: &Running) -> Result<Option<f64>> {
        let time = seconds(self.config.run.idle_seconds);
        if time.is_zero() {
            return Ok(None);
        }
        std::thread::sleep(SETTLE);
        let (begun, from) = (Instant::now(), node.usage()?.cpu);
        std::thread::sleep(time);
        Ok(cpu_percent(from, node.usage()?.cpu, begun.elapsed()))
    }

    /// Joins the graph only now: an idle node is one that no camera talks to.
    fn camera(&self) -> Result<Option<Camera>> {
        if matches!(self.config.source, SourceConfig::Live {}) {
            return Ok(None);
        }
        let topics = camera::Topics {
            image: self.topics.image.clone(),
            camera_info: self.topics.camera_info.clone(),
            compressed: self.topics.image_compressed,
            qos: if self.topics.image_reliable { camera::reliable(DEPTH) } else { camera::sensor_data(DEPTH) },
        };
        let camera = Camera::start(self.place.domain(), &topics)?;
        let patience = seconds(self.config.run.start_seconds);
        ensure!(camera.wait_for_listener(patience), "the node did not listen to the camera within {patience:?}");
        std::thread::sleep(SETTLE);
        Ok(Some(camera))
    }

    /// Waits until the counters of the node stand still: images and answers that were on their way have come.
    fn drain(&self, node: &mut Running) -> Result<()> {
        let limit = seconds(self.config.run.drain_seconds);
        let begun = Instant::now();
        let counts = |heard: &Heard| {
            let last = heard.diagnostics.last()?;
            Some(["frames_received", "frames_pending", "windows_answered"].map(|key| last.count(key)))
        };
        let mut seen = (None, Instant::now());
        while begun.elapsed() < limit && seen.1.elapsed() < QUIET {
            still_there(node)?;
            std::thread::sleep(Duration::from_millis(100));
            let now = counts(&self.listener.heard());
            if now != seen.0 {
                seen = (now, Instant::now());
            }
        }
        Ok(())
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).expect("the config was checked")
}

fn still_there(node: &mut Running) -> Result<()> {
    match node.exited() {
        Some(status) => bail!("the node ended by itself: {status}"),
        None => Ok(()),
    }
}

fn listened(topics: &Topics) -> listener::Topics {
    listener::Topics {
        node: format!("{}/{}", topics.namespace.trim_end_matches('/'), topics.node_name),
        trajectory: topics.trajectory.clone(),
        odometry: topics.odometry.clone(),
        diagnostics: topics.diagnostics.clone(),
    }
}

/// The node's program: of the environment, or else of the config; relative to the repository's root.
pub fn program(config: &Config) -> PathBuf {
    let named = std::env::var_os("EGOREASONER_NODE").map(PathBuf::from);
    root().join(named.as_ref().unwrap_or(&config.node.program))
}
