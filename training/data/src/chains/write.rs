//! The stage `chains`: a source of windows in, shards of frames, prompts and responses out.
//!
//! Window `i` always goes to shard `i / per_shard`, so that shards can be made by any number of threads, processes and
//! machines (`--shard i/n`), and again after a kill: a shard is there whole, with a JSON file beside it, or not at all. One
//! that has changed since is made again.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use geometry::{Intrinsics, WINDOW};
use image::{ImageFormat, RgbImage};
use indicatif::{ProgressBar, ProgressStyle};
use model::Processor;
use model::answer::chain;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde_json::{Value, json};

use super::depth::{DepthSource, Known};
use super::manifest::{Counts, Manifest, Shard, ShardNote};
use super::rewrite::Rewriter;
use super::shards::{Writer, Written, check};
use super::{DepthMap, chain as make};
use crate::json::{read, read_json, write, write_json};
use crate::{WindowSample, WindowSource, parse_source, pixels};

/// What there is of a folder of shards, once all are there.
const MANIFEST: &str = "manifest.json";
/// Prose that is the program's own, in the settings.
const TEMPLATES: &str = "templates";

/// What to make, and how.
#[derive(Debug, Clone, clap::Args)]
pub struct Chains {
    /// Windows, as for eval.
    #[arg(long)]
    pub data: String,
    /// Folder of the shards and manifest.json; shards that are there already are kept.
    #[arg(long)]
    pub out: PathBuf,
    /// Seed of the choice of points and of the prose.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Most pixels of a frame after resizing.
    #[arg(long, default_value_t = 20_480)]
    pub max_pixels: u64,
    /// Windows a shard.
    #[arg(long, default_value_t = 256)]
    pub per_shard: u64,
    /// This process's part of the shards, as I/N with I from 0: for job arrays and several machines.
    #[arg(long, default_value = "0/1")]
    pub shard: Part,
    /// Threads; as many as there are cores without it.
    #[arg(long)]
    pub workers: Option<usize>,
    /// Depth of windows that have none: model.safetensors of Depth Anything 3 SMALL, or its folder.
    #[arg(long)]
    pub depth_weights: Option<PathBuf>,
    /// Longest side that the depth network sees.
    #[arg(long, default_value_t = crate::depth::LONGEST_SIDE)]
    pub depth_side: usize,
    /// Where the depth network runs: cpu, cuda or cuda:N.
    #[arg(long, default_value = "cpu")]
    pub depth_device: String,
    /// Windows are left out where the network's depth of one frame is off what the poses make of another's by more than
    /// this share, at half of the points.
    #[arg(long, default_value_t = super::depth::MAX_RESIDUAL)]
    pub max_residual: f64,
    /// Have a vision-language model write the prose: URL[#MODEL] of an OpenAI-compatible endpoint, as
    /// http://127.0.0.1:8000/v1#qwen; its key is read from OPENAI_API_KEY.
    #[arg(long)]
    pub prose_url: Option<String>,
    /// Folder of the endpoint's answers, which are not asked for again; OUT/prose-cache without it.
    #[arg(long, requires = "prose_url")]
    pub prose_cache: Option<PathBuf>,
}

/// Part `index` of `count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// From 0.
    pub index: u64,
    /// At least 1.
    pub count: u64,
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match parsed {
            Some((index, count)) if index < count => Ok(Self { index, count }),
            _ => Err(format!("expected I/N with I from 0 to N - 1, got {text}")),
        }
    }
}

/// What a run did.
#[derive(Debug, Clone)]
pub struct Report {
    /// Of all shards that are there, this process's and others'.
    pub counts: Counts,
    /// Shards that are there, and how many there will be.
    pub shards: (u64, u64),
    /// Shards that this process wrote now.
    pub made: u64,
    /// How many of these, since what was there was not what had been made.
    pub again: u64,
}

/// Writes this process's share of the shards, `chains-000000.tar` with `chains-000000.json` beside each, and
/// `manifest.json` once all are there.
///
/// # Errors
/// A source that can't be read, a folder that can't be written or holds shards of other settings, not one window that
/// gives a chain. Single windows that can't be read are counted.
pub fn run(options: &Chains) -> Result<Report> {
    ensure!(options.per_shard > 0, "--per-shard: expected at least 1");
    let windows = parse_source(&options.data)?;
    let cache = || options.prose_cache.clone().unwrap_or_else(|| options.out.join("prose-cache"));
    let prose =
        options.prose_url.as_deref().map(|url| Rewriter::new(url, cache()).context("--prose-url")).transpose()?;
    let device = model::device(&options.depth_device).context("--depth-device")?;
    let stage = Stage {
        processor: Processor::with_pixel_limits(options.max_pixels.min(4096), options.max_pixels),
        depth: DepthSource::new(options.depth_weights.as_deref(), options.depth_side, options.max_residual, &device)?,
        windows,
        prose,
        options,
    };
    std::fs::create_dir_all(&options.out).with_context(|| options.out.display().to_string())?;
    let settings = stage.settings();
    keep(&options.out.join("settings.json"), &settings)?;
    let count = stage.windows.len().div_ceil(options.per_shard);
    let mine: Vec<u64> = (0..count).filter(|k| k % options.shard.count == options.shard.index).collect();
    let workers = match options.workers {
        Some(workers) => workers,
        None => std::thread::available_parallelism()?.get(),
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(workers.max(1)).build()?;
    // A manifest that is damaged is as good as none: it is written anew.
    let listed = read::<Manifest>(&options.out.join(MANIFEST)).map(|manifest| manifest.shards).unwrap_or_default();
    let look = |&k: &u64| stage.find(k, listed.get(k as usize));
    let found: Vec<Found> = pool.install(|| mine.par_iter().with_max_len(1).map(look).collect());
    let missing = mine.iter().zip(&found).filter(|(_, found)| **found != Found::Made);
    let todo: Vec<u64> = missing.map(|(&k, _)| k).collect();
    let again = found.iter().filter(|found| **found == Found::Changed).count() as u64;
    let progress = Progress::new(todo.iter().map(|&k| stage.range(k).count() as u64).sum());
    // Each thread holds one window: memory does not grow with their number.
    pool.install(|| todo.par_iter().with_max_len(1).try_for_each(|&k| stage.shard(k, &progress)))?;
    progress.bar.finish();

    let mut counts = Counts::default();
    let mut shards = Vec::new();
    for k in 0..count {
        let Ok((of_shard, shard)) = stage.noted(k) else { continue };
        counts.add(&of_shard);
        shards.push(shard);
    }
    let report = Report { shards: (shards.len() as u64, count), made: todo.len() as u64, again, counts };
    if report.shards.0 == count {
        let c = &report.counts;
        ensure!(
            c.written > 0,
            "{}: no window gives a chain ({} without depth, {} of inconsistent depth, {} rejected, {} unreadable{})",
            options.data,
            c.without_depth,
            c.inconsistent_depth,
            c.rejected,
            c.unreadable.len(),
            c.unreadable.first().map(|why| format!(": {why}")).unwrap_or_default()
        );
        let (stage, sources) = ("chains".to_owned(), stage.windows.sources());
        let manifest = Manifest { stage, settings, sources, counts: c.clone(), shards };
        write(&options.out.join(MANIFEST), &manifest)?;
    }
    Ok(report)
}

/// Writes the settings of a run, or compares them with those that the shards at hand were made with.
fn keep(path: &Path, settings: &Value) -> Result<()> {
    if !path.is_file() {
        let part = path.with_extension("json.part");
        write_json(&part, settings)?;
        return std::fs::rename(&part, path).with_context(|| path.display().to_string());
    }
    let old = read_json(path)?;
    for (key, value) in settings.as_object().into_iter().flatten() {
        // Settings that do not name the prose are from when there were templates alone.
        let before = match old.get(key) {
            None if key == "prose" => json!(TEMPLATES),
            before => before.cloned().unwrap_or_default(),
        };
        if before != *value {
            bail!(
                "{}: {key}: the shards here were made with {before}, now it is {value}; use another --out",
                path.display()
            );
        }
    }
    Ok(())
}

struct Stage<'a> {
    options: &'a Chains,
    windows: WindowSource,
    processor: Processor,
    depth: DepthSource,
    prose: Option<Rewriter>,
}

impl Stage<'_> {
    /// All that decides what is in the shards.
    fn settings(&self) -> Value {
        json!({
            "version": env!("CARGO_PKG_VERSION"), "data": self.options.data, "windows": self.windows.len(),
            "seed": self.options.seed, "per_shard": self.options.per_shard, "processor": self.processor,
            "depth": self.depth.describe(), "nearest_depth": {"metres": super::MIN_DEPTH_METRES, "else_of_median": super::MIN_DEPTH_SHARE},
            "prose": self.prose.as_ref().map_or_else(|| json!(TEMPLATES), Rewriter::describe),
        })
    }

    fn path(&self, shard: u64, extension: &str) -> PathBuf {
        self.options.out.join(format!("chains-{shard:06}.{extension}"))
    }

    fn range(&self, shard: u64) -> std::ops::Range<u64> {
        let first = shard * self.options.per_shard;
        first..(first + self.options.per_shard).min(self.windows.len())
    }

    /// What the note beside a shard says of it, where a file of that size is there.
    fn noted(&self, k: u64) -> Result<(Counts, Shard)> {
        let note: ShardNote = read(&self.path(k, "json"))?;
        let (path, bytes) = (self.path(k, "tar"), note.bytes);
        let size = std::fs::metadata(&path).with_context(|| path.display().to_string())?.len();
        ensure!(size == bytes, "{}: expected {bytes} bytes, as were written, got {size}", path.display());
        let (file, samples) = (format!("chains-{k:06}.tar"), note.counts.written);
        Ok((note.counts, Shard { file, samples, bytes, sha256: Some(note.sha256) }))
    }

    /// Whether a shard is there as it was made: its size, and where a manifest lists it its hash as well.
    fn find(&self, k: u64, listed: Option<&Shard>) -> Found {
        if listed.is_none() && !self.path(k, "json").exists() {
            return Found::Nothing;
        }
        let is_made = || -> Result<()> {
            let (_, shard) = self.noted(k)?;
            let Some(listed) = listed else { return Ok(()) };
            let note = self.path(k, "json");
            ensure!(*listed == shard, "{}: expected what {MANIFEST} says of {}", note.display(), listed.file);
            check(&self.path(k, "tar"), listed)
        };
        match is_made() {
            Ok(()) => Found::Made,
            Err(error) => {
                tracing::warn!("{error:#}: the shard is made again");
                Found::Changed
            }
        }
    }

    fn shard(&self, k: u64, progress: &Progress) -> Result<()> {
        let mut writer = Writer::create(&self.path(k, "tar"))?;
        let mut counts = Counts::default();
        for index in self.range(k) {
            counts.windows += 1;
            match self.window(index)? {
                Outcome::Chain { id, files, fallback } => {
                    let files: Vec<(&str, &[u8])> = files.iter().map(|(e, c)| (*e, c.as_slice())).collect();
                    writer.add(&id, &files)?;
                    counts.written += 1;
                    counts.prose_fallback += u64::from(fallback);
                }
                Outcome::WithoutDepth => counts.without_depth += 1,
                Outcome::InconsistentDepth => counts.inconsistent_depth += 1,
                Outcome::Rejected => counts.rejected += 1,
                Outcome::Unreadable(why) => {
                    tracing::warn!(window = index, why, "left out");
                    counts.unreadable.push(why);
                }
            }
            progress.advance();
        }
        let Written { bytes, sha256, .. } = writer.finish()?;
        let (part, whole) = (self.path(k, "json.part"), self.path(k, "json"));
        write(&part, &ShardNote { counts, bytes, sha256 })?;
        std::fs::rename(&part, &whole).with_context(|| whole.display().to_string())
    }

    fn window(&self, index: u64) -> Result<Outcome> {
        let sample = match self.windows.sample(index) {
            Ok(sample) => sample,
            Err(error) => return Ok(Outcome::Unreadable(error.to_string())),
        };
        let mut frames = Vec::with_capacity(WINDOW);
        for image in &sample.images {
            frames.push(self.processor.resized(image, &sample.intrinsics)?);
        }
        let grid = frames[0].1;
        let (depth, residual) = match self.depth.of(&sample)? {
            Known::Recorded(depth) => (on_grid(depth, &sample.intrinsics, &grid), None),
            Known::Estimated { depth, intrinsics, residual } => (on_grid(&depth, &intrinsics, &grid), Some(residual)),
            Known::Inconsistent { .. } => return Ok(Outcome::InconsistentDepth),
            Known::Nothing => return Ok(Outcome::WithoutDepth),
        };
        let maps = DepthMap::window(&depth, grid.width, sample.metric);
        let seed = self.options.seed ^ index.rotate_left(32);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let Ok(mut made) = make(&sample.ground_truth, &grid, &maps, &mut rng) else { return Ok(Outcome::Rejected) };
        let mut fallback = false;
        if let Some(prose) = &self.prose {
            match prose.rewrite(&sample, &made.prose, seed).with_context(|| format!("prose of {}", sample.id))? {
                Some(texts) => made.prose = texts,
                None => fallback = true,
            }
        }
        let files = sample_files(&sample, &frames, &made, residual)?;
        Ok(Outcome::Chain { id: sample.id, files, fallback })
    }
}

/// What there is of a shard.
#[derive(PartialEq, Eq)]
enum Found {
    Made,
    Changed,
    Nothing,
}

enum Outcome {
    Chain {
        id: String,
        files: Files,
        /// Whether the endpoint's prose was of no use.
        fallback: bool,
    },
    WithoutDepth,
    InconsistentDepth,
    Rejected,
    Unreadable(String),
}

/// Extension and content of the files of a sample.
pub type Files = Vec<(&'static str, Vec<u8>)>;

/// The files of a sample: `json` (where from, intrinsics of the frames here, poses), `txt` (the response of a full
/// chain), `poses.txt` (of an answer alone) and the frames, resized for the model, as PNG.
///
/// # Errors
/// A frame that can't be encoded.
pub fn sample_files(
    sample: &WindowSample,
    frames: &[(RgbImage, Intrinsics)],
    made: &chain::Chain,
    depth_residual: Option<f64>,
) -> Result<Files> {
    let poses: Vec<[f64; 16]> =
        sample.ground_truth.anchor_from_camera().iter().map(|p| p.to_matrix_row_major()).collect();
    let about = json!({
        "id": sample.id, "intrinsics": frames.first().map(|f| f.1), "metric": sample.metric,
        "anchor_from_camera": poses, "depth_residual": depth_residual,
    });
    let mut files = vec![
        ("json", about.to_string().into_bytes()),
        ("txt", chain::write(made).into_bytes()),
        ("poses.txt", chain::write_poses(&sample.ground_truth).into_bytes()),
    ];
    for ((frame, _), extension) in frames.iter().zip(["0.png", "1.png", "2.png", "3.png", "4.png"]) {
        let mut bytes = Cursor::new(Vec::new());
        frame.write_to(&mut bytes, ImageFormat::Png).with_context(|| sample.id.clone())?;
        files.push((extension, bytes.into_inner()));
    }
    Ok(files)
}

/// Depth of every frame on the model's pixel grid.
pub fn on_grid(depth: &[Vec<f32>; WINDOW], from: &Intrinsics, grid: &Intrinsics) -> [Vec<f32>; WINDOW] {
    let [from, to] = [from, grid].map(|k| (k.width, k.height));
    depth.each_ref().map(|values| pixels::nearest(values, from, to))
}

/// A bar where somebody looks, a line every ten seconds where a log is kept.
struct Progress {
    bar: ProgressBar,
    begun: Instant,
    logged_s: AtomicU64,
}

impl Progress {
    fn new(windows: u64) -> Self {
        let bar = ProgressBar::new(windows);
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} windows, {per_sec}, {eta} left") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(500));
        Self { bar, begun: Instant::now(), logged_s: AtomicU64::new(0) }
    }

    fn advance(&self) {
        self.bar.inc(1);
        let now = self.begun.elapsed().as_secs();
        let last = self.logged_s.load(Ordering::Relaxed);
        if self.bar.is_hidden()
            && now >= last + 10
            && self.logged_s.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            let (done, all) = (self.bar.position(), self.bar.length().unwrap_or(0));
            let rate = done as f64 / self.begun.elapsed().as_secs_f64();
            let eta_s = (all.saturating_sub(done) as f64 / rate.max(1e-9)) as u64;
            tracing::info!(windows = done, of = all, per_s = format!("{rate:.1}"), eta_s);
        }
    }
}
