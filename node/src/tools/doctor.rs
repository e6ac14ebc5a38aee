//! `node doctor`: what would keep the node from running, and what to do about it, before a robot depends on it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use camera::optics::UseFixed;
use camera::plausible::doubts_of_pinhole;
use geometry::Intrinsics;
use image::{Rgb, RgbImage};
use model::Mode;
use model::answer::budget::{self, Budget};
use model::memory::{Footprint, Resident};
use model::weights::gguf::Recipe;

use crate::config::{self, Ask, Config, ModelConfig};
use crate::ros::transport::graph::{CAMERA_INFO, Remark};
use crate::ros::transport::{self, Kind};
use crate::solve::estimator::{EgoEstimator, Error, Estimator, missing_files, missing_heads};

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub name: &'static str,
    /// What was found, or what is wrong.
    pub result: Result<String, Problem>,
}

/// What is wrong, and what helps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub remedy: String,
    /// Whether the node would run all the same: what is missing may come yet.
    pub may_pass: bool,
}

impl Finding {
    /// Whether the node would not run, or not pose a single image.
    #[must_use]
    pub fn is_fault(&self) -> bool {
        self.result.as_ref().is_err_and(|problem| !problem.may_pass)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.result {
            Ok(what) => write!(f, "OK    {:<12}{what}", self.name),
            Err(problem) => {
                let word = if problem.may_pass { "WARN" } else { "FAIL" };
                write!(f, "{word}  {:<12}{}\n      {:<12}-> {}", self.name, problem.what, "", problem.remedy)
            }
        }
    }
}

/// Looks at everything; a check that needs what an earlier one found wrong is left out.
pub fn examine(config_path: &Path, config: Result<Config, config::Error>) -> Vec<Finding> {
    let config = match config {
        Ok(config) => config,
        Err(e) => {
            let remedy = "correct the file, or name another with --config; config/node.toml explains every key";
            return vec![fail("config", e.to_string(), remedy)];
        }
    };
    let mut findings = vec![ok("config", config_path.display().to_string())];
    findings.push(transport_of(&config));
    findings.extend(ros(&config));
    findings.extend(graph(&config));
    findings.push(windows(&config));
    findings.extend((config.camera.use_fixed != UseFixed::Never).then(|| intrinsics(&config.camera.intrinsics)));
    let Some(model) = &config.model else {
        findings.push(ok("weights", "none: the tracks alone"));
        return findings;
    };
    let device = device(&model.device);
    let files = weights(&model.weights);
    let heads = (model.mode == Ask::PoseHead).then(|| pose_head(model));
    findings.extend(memory(model));
    let can_load = [&device, &files].into_iter().chain(&heads).all(|finding| finding.result.is_ok());
    findings.extend([device, files]);
    findings.extend(heads);
    if can_load {
        findings.extend(answers(model));
    }
    findings
}

fn ok(name: &'static str, what: impl Into<String>) -> Finding {
    Finding { name, result: Ok(what.into()) }
}

fn fail(name: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { name, result: Err(Problem { what: what.into(), remedy: remedy.into(), may_pass: false }) }
}

fn warn(name: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { name, result: Err(Problem { what: what.into(), remedy: remedy.into(), may_pass: true }) }
}

/// How long others get to be discovered.
const GRAPH_PATIENCE: Duration = Duration::from_secs(2);

/// Who publishes what the node listens to, and whether it would hear it.
fn graph(config: &Config) -> Vec<Finding> {
    const NAME: &str = "graph";
    match transport::look(config.transport, &config.topics, GRAPH_PATIENCE) {
        Ok(remarks) => {
            let needs_camera_info = config.camera.use_fixed == UseFixed::Never;
            let is_asked = |remark: &&Remark| needs_camera_info || remark.waits_for() != Some(CAMERA_INFO);
            remarks.iter().filter(is_asked).map(remarked).collect()
        }
        // The transport or the domain is wrong, which has been said, or the network, which has not.
        Err(transport::Error::NotCompiledIn { .. } | transport::Error::DomainId { .. }) => Vec::new(),
        Err(e) => vec![fail(NAME, e.to_string(), "the node could not join it either: mend this first")],
    }
}

fn remarked(remark: &Remark) -> Finding {
    const NAME: &str = "graph";
    match remark {
        Remark::Qos(_) | Remark::Type { .. } => fail(NAME, remark.what(), remark.remedy()),
        // What there is not may come; what is kept comes to who asks; who else publishes may be this node, running.
        Remark::Alone { .. } | Remark::Kept { .. } | Remark::Shared { .. } => {
            warn(NAME, remark.what(), remark.remedy())
        }
        Remark::Fitting { topic, key, publishers } => {
            ok(NAME, format!("{topic} ({key}) is published ({publishers}), of the right type and QoS"))
        }
    }
}

fn transport_of(config: &Config) -> Finding {
    let kind = config.transport;
    if transport::is_compiled_in(kind) {
        let t = &config.topics;
        let form = if t.image_compressed { "CompressedImage" } else { "Image" };
        // Names that are none are for the transport to refuse.
        let [image, info, out] =
            [&t.image, &t.camera_info, &t.trajectory].map(|name| t.resolve(name).unwrap_or_else(|_| name.clone()));
        ok("transport", format!("{kind}: {image} ({form}) and {info} -> {out}"))
    } else {
        fail(
            "transport",
            format!("{kind} is not in this binary"),
            "build with `--features ros` where ROS 2 is sourced, or set node.transport = \"ros2-client\"",
        )
    }
}

/// The environment variables that decide whom the node hears.
fn ros(config: &Config) -> Vec<Finding> {
    let variable = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let domain = variable("ROS_DOMAIN_ID");
    let is_domain = |v: &str| v.trim().parse::<u16>().is_ok_and(|n| n <= 232);
    let mut findings = Vec::new();
    findings.push(match (config.topics.domain_id, domain) {
        (Some(id), _) => ok("domain", format!("{id}, from node.domain_id")),
        (None, None) => ok("domain", "0, since ROS_DOMAIN_ID is not set"),
        (None, Some(v)) if is_domain(&v) => ok("domain", format!("{v}, from ROS_DOMAIN_ID")),
        (None, Some(v)) => fail(
            "domain",
            format!("ROS_DOMAIN_ID: expected 0 to 232, got `{v}`"),
            "export ROS_DOMAIN_ID=0, or unset it",
        ),
    });
    let distro = variable("ROS_DISTRO");
    findings.push(match (config.transport, distro) {
        (Kind::R2r, None) => fail(
            "ros",
            "ROS_DISTRO is not set",
            "source /opt/ros/<distro>/setup.bash, or set node.transport = \"ros2-client\"",
        ),
        (Kind::Ros2Client, None) => ok("ros", "not sourced, and not needed"),
        (_, Some(distro)) => {
            let rmw = variable("RMW_IMPLEMENTATION").unwrap_or_else(|| "default rmw".to_owned());
            ok("ros", format!("{distro}, {rmw}"))
        }
    });
    findings
}

fn windows(config: &Config) -> Finding {
    let rules = &config.window;
    let shared = match rules.shared_frames() {
        0 => "no frame, so that the odometry breaks at each of them".to_owned(),
        1 => "1 frame".to_owned(),
        n => format!("{n} frames"),
    };
    let pace = match rules.period.as_millis() {
        0 => String::new(),
        millis => format!(" of frames {millis} ms apart"),
    };
    ok("windows", format!("stride {}, hop {}{pace}: neighbours share {shared}", rules.stride, rules.hop))
}

/// Of the config, where they count.
fn intrinsics(k: &Intrinsics) -> Finding {
    let doubts: Vec<String> = doubts_of_pinhole(k).iter().map(ToString::to_string).collect();
    if doubts.is_empty() {
        let Intrinsics { fx, fy, cx, cy, width, height } = k;
        ok("camera", format!("fx {fx}, fy {fy}, principal point ({cx}, {cy}) of {width} x {height} pixels"))
    } else {
        let remedy = "correct [camera]: width, height, fx, fy, cx and cy are pixels of one and the same image";
        warn("camera", doubts.join("; "), remedy)
    }
}

fn device(name: &str) -> Finding {
    match model::device(name) {
        Ok(_) => ok("device", name),
        Err(e) => fail(
            "device",
            e.to_string(),
            "set model.device = \"cpu\", or build with `--features cuda` on a machine with a GPU",
        ),
    }
}

fn weights(dir: &Path) -> Finding {
    let remedy = "set model.weights to a folder that holds them; relative paths start at the config file";
    if dir.is_file() {
        return fail("weights", format!("{} is a file, and the folder that holds it is wanted", dir.display()), remedy);
    }
    if !dir.is_dir() {
        return fail("weights", format!("{} is not a folder", dir.display()), remedy);
    }
    let missing = missing_files(dir);
    if missing.is_empty() {
        ok("weights", dir.display().to_string())
    } else {
        fail("weights", format!("{} lacks {}", dir.display(), missing.join(", ")), remedy)
    }
}

fn pose_head(config: &ModelConfig) -> Finding {
    const NAME: &str = "pose head";
    let missing: Vec<String> = missing_heads(config).iter().map(|path| path.display().to_string()).collect();
    if missing.is_empty() {
        return ok(NAME, "its files are there");
    }
    let remedy = "take the weights or the adapter of a `training situation`, or set model.mode = \"answer_only\"";
    fail(NAME, format!("{}: no such file", missing.join(", ")), remedy)
}

/// Memory kept for the system, the camera and the rest of a robot's software.
const RESERVE_GIB: f64 = 4.0;
/// Prompt words and answer of a window, tokens.
const TEXT_TOKENS: usize = 300;

/// What the weights and a window's cache take, and which Jetson an 8B fits on.
fn memory(model: &ModelConfig) -> Vec<Finding> {
    let gib = |bytes: u64| bytes as f64 / f64::from(1u32 << 30);
    // Before there is a tokenizer: none needs more tokens than bytes.
    let most = match (model.mode, model.max_tokens) {
        (Ask::PoseHead, _) => 0,
        (Ask::Answer(mode), Budget::Auto) => budget::longest(mode).len(),
        (Ask::Answer(_), Budget::Tokens(tokens)) => tokens,
    };
    let mut findings = Vec::new();
    let dir = &model.weights;
    if let Ok(network) = ::model::weights::config(dir) {
        let files: u64 = std::fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let path = entry.path();
                let weights = path.extension().is_some_and(|e| e == "safetensors" || e == "gguf");
                weights.then(|| path.metadata().map_or(0, |m| m.len()))
            })
            .sum();
        let tokens = most + TEXT_TOKENS;
        let cache = ::model::memory::cache_bytes(&network, tokens, 4);
        findings.push(ok(
            "memory",
            format!(
                "{:.2} GiB of weights, {:.2} GiB of cache for {tokens} tokens beside the frames'",
                gib(files),
                gib(cache)
            ),
        ));
    }
    if let Some(large) = ::model::weights::published("8b") {
        let frame = ::model::memory::frame_tokens(&large, 640, 480);
        let tokens = 5 * frame + TEXT_TOKENS + most;
        let rows = [Recipe::Q4KM, Recipe::Q5KM, Recipe::Q8_0, Recipe::F16].map(|recipe| {
            let total = gib(Footprint::new(&large, recipe, tokens).total());
            let fits = [16.0, 32.0, 64.0].map(|all: f64| if total + RESERVE_GIB <= all { "fits" } else { "no" });
            format!("{recipe}: {total:.1} GiB, Jetson 16/32/64 GB {}", fits.join("/"))
        });
        findings
            .push(ok("an 8B", format!("(640x480, {tokens} tokens, {RESERVE_GIB} GiB kept free) {}", rows.join("; "))));
    }
    findings
}

/// Loads the model and lets it answer for a made-up window: slow, and the only check that proves anything. Then what the longest
/// answer of each mode takes here.
fn answers(model: &ModelConfig) -> Vec<Finding> {
    let remedy = "the weights are damaged or of another version: make or fetch them again";
    answered(model).unwrap_or_else(|e| match e {
        Error::Model(e @ ::model::Error::Input { what: "max_tokens", .. }) => {
            let remedy = "set model.max_tokens = \"auto\"";
            vec![fail("answer", e.to_string(), remedy)]
        }
        e => vec![fail("answer", e.to_string(), remedy)],
    })
}

fn answered(model: &ModelConfig) -> Result<Vec<Finding>, Error> {
    let begun = Instant::now();
    let mut estimator = EgoEstimator::load(model, Arc::new(AtomicBool::new(false)))?;
    let loaded = begun.elapsed();
    let (width, height) = (320, 240);
    let intrinsics = Intrinsics::new(300.0, 300.0, 160.0, 120.0, width, height);
    let intrinsics = intrinsics.map_err(|e| Error::Other(e.to_string()))?;
    let begun = Instant::now();
    let mut frames = Vec::new();
    for shift in 0..5 {
        let image = RgbImage::from_fn(width, height, |x, y| {
            let bright = ((x + 4 * shift) / 20 + y / 20) % 2 == 0;
            Rgb(if bright { [200, 180, 160] } else { [40, 60, 80] })
        });
        frames.push(estimator.encode(&image, &intrinsics)?);
    }
    let seen = begun.elapsed() / 5;
    let window = std::array::from_fn(|i| &frames[i]);
    let estimate = estimator.estimate(window)?;
    let parsed = match estimate.trajectory {
        Ok(_) => "parses",
        // Stripes are not a scene: that the model has nothing to say of them breaks nothing.
        Err(_) => "does not parse, on a made-up scene",
    };
    let mib = Resident::of_self().map(|held| format!(", {:.0} MiB", held.highest_mib)).unwrap_or_default();
    let mut findings = vec![ok(
        "answer",
        format!(
            "loaded in {} ms, a window in {} ms, {} tokens, {parsed}{mib}",
            loaded.as_millis(),
            begun.elapsed().as_millis(),
            estimate.tokens
        ),
    )];
    for mode in [Mode::AnswerOnly, Mode::FullChain] {
        let cost = estimator.cost(window, mode)?;
        let seconds = (cost.reading + cost.token * u32::try_from(cost.answer).unwrap_or(u32::MAX)).as_secs_f64();
        let cache = estimator.cache_bytes(cost.prompt + cost.answer) as f64 / f64::from(1u32 << 20);
        findings.push(ok(
            mode.name(),
            format!(
                "at most {} tokens behind {}: {seconds:.2} s beside {:.2} s for each new frame, {cache:.0} MiB of cache",
                cost.answer,
                cost.prompt,
                seen.as_secs_f64()
            ),
        ));
        if mode == Mode::AnswerOnly {
            let reading = cost.reading.as_secs_f64();
            findings.push(ok("pose_head", format!("no token behind {}: {reading:.2} s likewise", cost.prompt)));
        }
    }
    Ok(findings)
}
