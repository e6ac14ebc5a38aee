//! What chains cost, and that what is written is what is read.

use std::time::{Duration, Instant};

use anyhow::Result;
use geometry::{WINDOW, WindowTrajectory};
use model::Processor;
use model::answer::chain;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::{peak_mib, rounded};
use training_data::chains::shards::Writer;
use training_data::chains::write::sample_files;
use training_data::chains::{self, DepthMap};
use training_data::parse_source;

/// Most that a pose may move through its text: degrees and scene units.
const BOUNDS: (f64, f64) = (0.05, 1e-3);

/// What to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct Data {
    /// Windows with depth; the default's are small, so that most of the time is not rendering.
    #[arg(long, default_value = "synth:seed=1,windows=1000,size=160x96")]
    pub data: String,
    /// Chains of each window, of other points and prose.
    #[arg(long, default_value_t = 1)]
    pub chains: u64,
}

/// Makes chains on one core and times each part apart.
///
/// # Errors
/// A source that can't be read, a shard that can't be written.
pub fn data(options: &Data) -> Result<Value> {
    let windows = parse_source(&options.data)?;
    let processor = Processor::with_pixel_limits(4096, 1 << 24);
    let dir = std::env::temp_dir().join(format!("egoreasoner-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let mut writer = Writer::create(&dir.join("bench.tar"))?;
    let [mut sampling, mut making, mut texts, mut packing] = [Duration::ZERO; 4];
    let timed = |sum: &mut Duration, begin: Instant| *sum += begin.elapsed();
    let (mut made, mut rejected, mut kept, mut worst) = (0u64, 0u64, 0u64, (0f64, 0f64));
    for index in 0..windows.len() {
        let begin = Instant::now();
        let sample = windows.sample(index)?;
        timed(&mut sampling, begin);
        let Some(depth) = &sample.depth else { continue };
        let maps = DepthMap::window(depth, sample.intrinsics.width, sample.metric);
        for repeat in 0..options.chains {
            let mut rng = ChaCha8Rng::seed_from_u64(index.rotate_left(32) ^ repeat);
            let begin = Instant::now();
            let chain = chains::chain(&sample.ground_truth, &sample.intrinsics, &maps, &mut rng);
            timed(&mut making, begin);
            let Ok(chain) = chain else {
                rejected += 1;
                continue;
            };
            made += 1;
            let begin = Instant::now();
            let parsed = chain::parse(&chain::write(&chain));
            timed(&mut texts, begin);
            if let (true, Ok(read)) = (parsed.steps() == [true; 5], &parsed.trajectory) {
                let moved = moved(&sample.ground_truth, read);
                worst = (worst.0.max(moved.0), worst.1.max(moved.1));
                kept += u64::from(moved.0 <= BOUNDS.0 && moved.1 <= BOUNDS.1);
            }
            if repeat == 0 {
                let begin = Instant::now();
                let frames = sample.images.iter().map(|image| processor.resized(image, &sample.intrinsics));
                let frames = frames.collect::<model::Result<Vec<_>>>()?;
                let files = sample_files(&sample, &frames, &chain, None)?;
                let files: Vec<(&str, &[u8])> = files.iter().map(|(e, c)| (*e, c.as_slice())).collect();
                writer.add(&sample.id, &files)?;
                timed(&mut packing, begin);
            }
        }
    }
    let begin = Instant::now();
    let written = writer.finish()?;
    timed(&mut packing, begin);
    std::fs::remove_dir_all(&dir)?;
    let per_s = |n: u64, time: Duration| rounded(n as f64 / time.as_secs_f64().max(1e-9));
    Ok(json!({
        "data": options.data, "windows": windows.len(), "chains": made, "rejected": rejected,
        "round_trip": kept, "worst_deg": worst.0, "worst_units": worst.1,
        "windows_rendered_or_decoded_per_s": per_s(windows.len(), sampling),
        "chains_per_s": per_s(made, making), "written_and_parsed_per_s": per_s(made, texts),
        "shard_mib_per_s": rounded(written.bytes as f64 / f64::from(1 << 20) / packing.as_secs_f64().max(1e-9)),
        "peak_mib": rounded(peak_mib()?),
    }))
}

/// Largest difference of two trajectories: rotation in degrees, translation in scene units.
fn moved(a: &WindowTrajectory, b: &WindowTrajectory) -> (f64, f64) {
    (0..WINDOW).fold((0f64, 0f64), |worst, i| {
        let (a, b) = (&a.anchor_from_camera()[i], &b.anchor_from_camera()[i]);
        let degrees = a.rotation().angle_to(&b.rotation()).to_degrees();
        (worst.0.max(degrees), worst.1.max((a.translation() - b.translation()).norm()))
    })
}
