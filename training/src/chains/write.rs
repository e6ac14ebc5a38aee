//! The stage `chains`: a source of windows in, a folder of prompts and responses out.

use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use geometry::{Intrinsics, WINDOW};
use image::imageops::FilterType;
use model::{Processor, chain};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::{DepthMap, chain as make};
use crate::data::{WindowSample, parse_source};
use crate::nano::write_json;

/// Writes `chains.jsonl` (one window a line), `frames/*.png` and `manifest.json`.
///
/// Windows without depth, or in which too few points can be followed, are counted and left out.
///
/// # Errors
/// A source that can't be read, a folder that can't be written, not one window that gives a chain.
pub fn run(source: &str, processor: &Processor, seed: u64, out: &Path) -> Result<Value> {
    let windows = parse_source(source)?;
    let frames = out.join("frames");
    std::fs::create_dir_all(&frames).with_context(|| frames.display().to_string())?;
    let path = out.join("chains.jsonl");
    let mut lines = BufWriter::new(std::fs::File::create(&path).with_context(|| path.display().to_string())?);
    let (mut written, mut without_depth, mut rejected) = (0u64, 0u64, 0u64);
    for i in 0..windows.len() {
        let sample = windows.sample(i)?;
        let (width, height) = processor.target_size(sample.intrinsics.width, sample.intrinsics.height)?;
        let intrinsics = sample.intrinsics.rescale(width, height);
        let Some(depth) = depth_at(&sample, &intrinsics) else {
            without_depth += 1;
            continue;
        };
        let maps = depth.each_ref().map(|values| DepthMap { values, width: width as usize });
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ i.rotate_left(32));
        let Ok(chain) = make(&sample.ground_truth, &intrinsics, &maps, &mut rng) else {
            rejected += 1;
            continue;
        };
        let mut names = Vec::with_capacity(WINDOW);
        for (image, frame) in sample.images.iter().zip(0..) {
            let name = format!("{}-{frame}.png", sample.id);
            let resized = image::imageops::resize(image, width, height, FilterType::CatmullRom);
            resized.save(frames.join(&name)).with_context(|| name.clone())?;
            names.push(name);
        }
        let line = json!({
            "id": sample.id, "frames": names, "intrinsics": intrinsics, "metric": sample.metric,
            "response": chain::write(&chain), "answer": chain::write_poses(&sample.ground_truth),
        });
        writeln!(lines, "{line}")?;
        written += 1;
    }
    lines.flush()?;
    ensure!(written > 0, "{source}: no window gives a chain ({without_depth} without depth, {rejected} rejected)");
    let manifest = json!({
        "stage": "chains", "data": source, "seed": seed, "windows": windows.len(), "written": written,
        "without_depth": without_depth, "rejected": rejected, "processor": processor,
    });
    write_json(&out.join("manifest.json"), &manifest)?;
    Ok(manifest)
}

/// Depth of every frame on the model's pixel grid: the nearest value, since a mean of two surfaces is on neither.
fn depth_at(sample: &WindowSample, grid: &Intrinsics) -> Option<[Vec<f32>; WINDOW]> {
    let depth = sample.depth.as_ref()?;
    let (w, h) = (sample.intrinsics.width as usize, sample.intrinsics.height as usize);
    let place = |i: usize, from: usize, to: usize| ((2 * i + 1) * to / (2 * from)).min(to - 1);
    Some(depth.each_ref().map(|values| {
        let rows = (0..grid.height as usize).map(|y| place(y, grid.height as usize, h));
        rows.flat_map(|y| (0..grid.width as usize).map(move |x| values[y * w + place(x, grid.width as usize, w)]))
            .collect()
    }))
}
