//! `cargo xtask demo`: the main job from end to end, for somebody who has only just cloned the repository. A separately
//! started node hears the bundled real frames over the real wire from another ROS 2 implementation (rclpy), and what it
//! answers is compared with the ground truth. Then the same frames are replayed in process, for a page to look at: what comes
//! over the wire has neither pictures nor tracks.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{ros2, workspace};

/// Paths that a run must bring back to count as one.
const MIN_PATHS: u64 = 8;
/// A node after SIGTERM has this long.
const PATIENCE: Duration = Duration::from_secs(5);
/// Not the default, so that a robot on the same network is not disturbed.
const DOMAIN: &str = "87";

/// Options of the demonstration.
#[derive(clap::Args)]
pub struct Args {
    /// Folder with sequence.json and frames/
    #[arg(long, value_name = "DIR", default_value = "tests/data/amazon_box")]
    sequence: PathBuf,
    /// Weights, as `model.weights` of config/node.toml
    #[arg(long, value_name = "DIR", default_value = "model/weights/nano")]
    weights: PathBuf,
    /// Frames a second
    #[arg(long, default_value_t = 4.0)]
    rate: f64,
    /// Where trajectory.tum, trajectory.svg, report.json and page.html go
    #[arg(long, value_name = "DIR", default_value = "target/demo")]
    out: PathBuf,
}

/// Runs the demonstration.
///
/// # Errors
/// Where something can't be built, set up or started, or too few Paths come back.
pub fn run(args: &Args) -> Result<ExitCode> {
    let root = workspace::root();
    let (sequence, weights, out) = (root.join(&args.sequence), root.join(&args.weights), root.join(&args.out));
    let camera = Camera::read(&sequence)?;
    std::fs::create_dir_all(&out).with_context(|| out.display().to_string())?;
    let env = ros2::environment()?;
    eprintln!("xtask: {env} plays the camera; the node needs no ROS");
    workspace::run(workspace::cargo().args(["build", "--release", "--package", "node"]))?;
    let program = workspace::target().join("release/node");

    let received = out.join("received.json");
    let log = out.join("node.log");
    let mut node = Node::start(&program, &weights, &log)?;
    let mut player = env.python();
    player.arg(root.join("tests/ros/counterpart.py")).env("ROS_DOMAIN_ID", DOMAIN);
    player.arg("--out").arg(&received).arg("--frames").arg(sequence.join("frames")).arg("--k").args(camera.k);
    player.args(["--count", &camera.frames.to_string(), "--rate", &args.rate.to_string()]);
    let played = workspace::run(&mut player);
    let stopped = node.stop();
    played.with_context(|| format!("the node's log is {}", log.display()))?;
    stopped?;

    let mut report = Command::new(&program);
    report.arg("report").arg("--received").arg(&received).arg("--sequence").arg(&sequence).arg("--out").arg(&out);
    workspace::run(&mut report)?;
    check(&out.join("report.json"), camera.frames)?;

    let page = out.join("page.html");
    let mut replay = Command::new(&program);
    replay.arg("--config").arg(config()).arg("--set").arg(weights_key(&weights));
    replay.arg("replay").arg(&sequence).arg("--out").arg(out.join("replay")).arg("--report").arg(&page);
    workspace::run(&mut replay)?;
    ensure!(page.is_file(), "expected a page at {}, got none", page.display());
    eprintln!(
        "xtask: the same frames in process, with tracks and the model's words: open {} in a browser",
        page.display()
    );
    Ok(ExitCode::SUCCESS)
}

fn config() -> PathBuf {
    workspace::root().join("config/node.toml")
}

fn weights_key(weights: &Path) -> String {
    format!("model.weights={}", weights.display())
}

/// What the player must be told of the sequence.
struct Camera {
    frames: u64,
    k: [String; 4],
}

impl Camera {
    fn read(sequence: &Path) -> Result<Self> {
        let path = sequence.join("sequence.json");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let json: Value = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        let k = ["fx", "fy", "cx", "cy"].map(|key| json["intrinsics"][key].as_f64());
        let (Some(frames), [Some(fx), Some(fy), Some(cx), Some(cy)]) = (json["num_frames"].as_u64(), k) else {
            bail!("{}: expected num_frames and intrinsics with fx, fy, cx, cy", path.display());
        };
        Ok(Self { frames, k: [fx, fy, cx, cy].map(|v| v.to_string()) })
    }
}

/// The node as its own process.
struct Node(Child);

impl Node {
    fn start(program: &Path, weights: &Path, log: &Path) -> Result<Self> {
        let file = std::fs::File::create(log).with_context(|| log.display().to_string())?;
        let mut command = Command::new(program);
        command.arg("--config").arg(config()).arg("--set").arg(weights_key(weights));
        // The wire loses nothing, so that every frame can be accounted for.
        command.args(["--set", "topics.image_reliability=reliable", "run"]);
        command.env("ROS_DOMAIN_ID", DOMAIN).stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        eprintln!("$ {}", workspace::shown(&command));
        Ok(Self(command.spawn().with_context(|| format!("cannot start {}", program.display()))?))
    }

    /// SIGTERM, as a launch system would.
    fn stop(&mut self) -> Result<()> {
        if let Some(status) = self.0.try_wait()? {
            bail!("the node ended by itself: {status}");
        }
        workspace::output(Command::new("sh").args(["-c", &format!("kill {}", self.0.id())]))?;
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            if let Some(status) = self.0.try_wait()? {
                ensure!(status.success(), "the node ended with {status}");
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("the node did not end within {} s of SIGTERM", PATIENCE.as_secs())
    }
}

impl Drop for Node {
    /// Nothing is left behind where the run fails half way.
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// A run that brought nothing back must not look like one that did.
///
/// # Errors
///
/// A report that cannot be read, and one with too few Paths or without a pose for each of `frames`.
pub fn check(report: &Path, frames: u64) -> Result<()> {
    let text = std::fs::read_to_string(report).with_context(|| report.display().to_string())?;
    let json: Value = serde_json::from_str(&text)?;
    let paths = json["paths_received"].as_u64().unwrap_or(0);
    ensure!(paths >= MIN_PATHS, "expected at least {MIN_PATHS} Paths, got {paths}");
    let poses = json["poses_per_path"].as_u64();
    ensure!(poses == Some(5), "expected five poses a Path, got {}", json["poses_per_path"]);
    let odometry = json["odometry"]["poses"].as_u64().unwrap_or(0);
    ensure!(odometry == frames, "expected an odometry for each of {frames} images, got {odometry}");
    Ok(())
}
