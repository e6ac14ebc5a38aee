//! How the cost of a model grows: with frames, with the tokens of a prompt, and with answers that are written at once.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use geometry::{Intrinsics, WINDOW};
use image::RgbImage;
use model::answer::decode::{Decoding, Prefilled, Sampling, decode};
use model::nn::Kernels;
use model::qwen3_vl::{Embedded, Segment, positions};
use model::{Processor, Qwen3Vl};
use plotters::prelude::SeriesLabelPosition;
use serde_json::{Value, json};

use super::model::weights;
use super::{decimals, median, peak_mib, rounded};
use crate::curves::{COLOURS, Frame, Line, chart, picture};

/// Words around the images of a prompt, tokens.
const WORDS: usize = 16;
/// Tokens of prompts.
const PROMPTS: [usize; 5] = [128, 256, 512, 1024, 2048];
/// Answers at once, behind a prompt of `BEHIND` tokens.
const ANSWERS: [usize; 4] = [1, 2, 4, 8];
const BEHIND: usize = 256;
/// Tokens of each answer.
const WRITTEN: usize = 16;
/// Pixels of the plot (width, height).
const SIZE: (u32, u32) = (900, 560);

/// What to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct Scaling {
    /// nano, 2b, 4b or 8b; all but nano with random weights, under target/bench.
    #[arg(long)]
    pub shape: String,
    /// As for model.
    #[arg(long)]
    pub quant: Option<String>,
    /// How often each row is timed; medians are told.
    #[arg(long, default_value_t = 3)]
    pub runs: usize,
    /// PNG file of a plot: the time of each row over that of the first of its kind.
    #[arg(long)]
    pub plot: Option<PathBuf>,
    #[arg(long, default_value_t = 2)]
    pub threads: usize,
}

/// Text tokens that stand for no image in any of the shapes.
fn words(count: usize) -> Vec<u32> {
    (0..count as u32).map(|i| 8 + i * 7 % 400).collect()
}

struct Bench<'a> {
    model: &'a Qwen3Vl,
    runs: usize,
}

impl Bench<'_> {
    /// The median time of what `run` does, seconds.
    fn time(&self, mut run: impl FnMut() -> Result<()>) -> Result<f64> {
        let mut seconds = Vec::with_capacity(self.runs);
        for _ in 0..self.runs {
            let begin = Instant::now();
            run()?;
            seconds.push(begin.elapsed().as_secs_f64());
        }
        Ok(median(seconds))
    }

    /// A prompt of words, read.
    fn prompt(&self, tokens: usize, behind: usize) -> Result<Prefilled> {
        let ids = words(tokens);
        let places = positions(&[Segment::Text(&ids)], self.model.config().vision_config.spatial_merge_size);
        let embeddings = self.model.embed(&Tensor::new(ids.as_slice(), self.model.device())?)?.unsqueeze(0)?;
        let mut cache = self.model.cache(tokens + behind);
        let embedded = Embedded { embeddings, deepstack: Vec::new() };
        let hidden = self.model.decode(&embedded, &places, Some(&mut cache))?;
        Ok(Prefilled { hidden, cache, next: tokens as u32, reused: 0 })
    }

    /// Writes `n` answers behind a prompt; the time of the prompt is none of it.
    fn answers(&self, tokens: usize, n: usize) -> Result<f64> {
        let decoding = Decoding {
            max_tokens: WRITTEN,
            sampling: Sampling::GREEDY,
            grammar: None,
            banned: &[],
            ends: &[],
            stop: None,
            earlier: None,
            script: None,
        };
        let mut seconds = Vec::with_capacity(self.runs);
        for _ in 0..self.runs {
            let prompt = self.prompt(tokens, WRITTEN)?;
            let begin = Instant::now();
            decode(self.model, prompt, n, &decoding)?;
            seconds.push(begin.elapsed().as_secs_f64());
        }
        Ok(median(seconds))
    }

    /// Encodes `n` frames and reads a prompt of them: seconds of both, and its tokens.
    fn frames(&self, processor: &Processor, n: usize) -> Result<(f64, f64, usize)> {
        let image =
            RgbImage::from_fn(640, 480, |x, y| image::Rgb([(x / 3) as u8, (y / 2) as u8, ((x * y) / 997) as u8]));
        let intrinsics = Intrinsics::new(500.0, 500.0, 319.5, 239.5, 640, 480)?;
        let (config, device) = (self.model.config(), self.model.device());
        let mut outputs = Vec::new();
        let mut grid = None;
        let encode_s = self.time(|| {
            outputs.clear();
            for _ in 0..n {
                let patches = processor.patches(&image, &intrinsics, device)?;
                outputs.push(self.model.visual().forward(&patches.values.unsqueeze(0)?, patches.grid)?);
                grid = Some(patches.grid);
            }
            Ok(())
        })?;
        let grid = grid.context("a frame was encoded")?;
        let merge = config.vision_config.spatial_merge_size;
        let text = words(WORDS);
        let (mut segments, mut ids) = (Vec::new(), Vec::new());
        for _ in 0..n {
            segments.extend([Segment::Text(&text), Segment::Image(grid)]);
            ids.extend(&text);
            ids.extend(std::iter::repeat_n(config.image_token_id, grid.patches() / merge.pow(2)));
        }
        let places = positions(&segments, merge);
        let tokens = Tensor::cat(&outputs.iter().map(|output| &output.tokens).collect::<Vec<_>>(), 1)?.squeeze(0)?;
        let depth = config.vision_config.deepstack_visual_indexes.len();
        let deepstack = (0..depth)
            .map(|k| Tensor::cat(&outputs.iter().map(|output| &output.deepstack[k]).collect::<Vec<_>>(), 1)?.squeeze(0))
            .collect::<candle_core::Result<Vec<_>>>()?;
        let prefill_s = self.time(|| {
            let embedded = self.model.embed_batch(&ids, 1, &tokens, &deepstack)?;
            self.model.decode(&embedded, &places, Some(&mut self.model.cache(ids.len())))?;
            Ok(())
        })?;
        Ok((encode_s, prefill_s, ids.len()))
    }
}

/// Times 1 to 5 frames, prompts of 128 to 2,048 tokens, and 1 to 8 answers behind one prompt.
///
/// # Errors
/// Weights that are missing or broken, a plot that can't be written.
pub fn scaling(options: &Scaling) -> Result<Value> {
    ensure!(options.runs > 0, "--runs: expected at least 1, got 0");
    let dir = weights(&options.shape, options.quant.as_deref())?;
    let model = Qwen3Vl::load(&dir, Kernels::Fused, DType::F32, &Device::Cpu)?;
    let processor = Processor::from_dir(&dir, &model.config().vision_config)?;
    let bench = Bench { model: &model, runs: options.runs };
    // candle lays some weights out anew when it first meets a prompt.
    bench.prompt(BEHIND, 0)?;
    let (mut rows, mut growth) = (Vec::new(), [Vec::new(), Vec::new(), Vec::new()]);
    for n in 1..=WINDOW {
        let (encode_s, prefill_s, tokens) = bench.frames(&processor, n)?;
        growth[0].push((n as f64, encode_s + prefill_s));
        rows.push(json!({
            "of": "frames", "frames": n, "prompt_tokens": tokens,
            "encode_s": decimals(encode_s, 4), "prefill_s": decimals(prefill_s, 4),
        }));
    }
    for tokens in PROMPTS {
        let prefill_s = bench.time(|| bench.prompt(tokens, 0).map(|_| ()))?;
        let decode_s = bench.answers(tokens, 1)?;
        growth[1].push((tokens as f64, prefill_s));
        rows.push(json!({
            "of": "prompt", "prompt_tokens": tokens, "prefill_s": decimals(prefill_s, 4),
            "prefill_tokens_per_s": rounded(tokens as f64 / prefill_s),
            "decode_tokens_per_s": rounded(WRITTEN as f64 / decode_s),
        }));
    }
    for n in ANSWERS {
        let seconds = bench.answers(BEHIND, n)?;
        growth[2].push((n as f64, seconds));
        rows.push(json!({
            "of": "answers", "answers": n, "prompt_tokens": BEHIND, "tokens_each": WRITTEN,
            "s": decimals(seconds, 4), "tokens_per_s": rounded((n * WRITTEN) as f64 / seconds),
        }));
    }
    if let Some(path) = &options.plot {
        draw(path, &options.shape, &growth)?;
    }
    Ok(json!({
        "shape": options.shape, "quant": options.quant, "threads": options.threads, "device": "cpu", "runs": options.runs,
        "frame": "640x480", "rows": rows, "plot": options.plot, "peak_mib": rounded(peak_mib()?),
    }))
}

/// Times over that of the first of each kind, against how many times as much there is.
fn relative(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let Some(&(x, y)) = points.first() else { return Vec::new() };
    points.iter().map(|point| (point.0 / x, point.1 / y)).collect()
}

fn draw(path: &Path, shape: &str, growth: &[Vec<(f64, f64)>; 3]) -> Result<()> {
    let names = ["frames: encoding and prompt", "prompt, from 128 tokens: reading", "answers at once: writing"];
    let mut lines = Vec::new();
    for ((name, points), colour) in names.into_iter().zip(growth).zip(COLOURS) {
        lines.push(Line { name: name.to_owned(), points: relative(points), colour, dot: 3 });
    }
    let most = |of: fn(&(f64, f64)) -> f64| lines.iter().flat_map(|l| &l.points).map(of).fold(1.0, f64::max);
    let (right, top) = (most(|point| point.0), most(|point| point.1));
    let points = vec![(0.0, 0.0), (right.min(top), right.min(top))];
    lines.push(Line { name: "in proportion".to_owned(), points, colour: COLOURS[3], dot: 0 });
    let title = format!("{shape}: how the cost grows");
    let frame = Frame {
        title: &title,
        x: "times as much",
        y: "times as long",
        bounds: (0.0..1.05 * right, 0.0..1.05 * top),
        legend: SeriesLabelPosition::UpperLeft,
    };
    picture(SIZE, |area| chart(area, frame, &lines))?.save(path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_told_over_the_first_of_its_kind_and_can_be_drawn() {
        let points = [(128.0, 0.5), (256.0, 1.5)];
        assert_eq!(relative(&points), [(1.0, 1.0), (2.0, 3.0)]);
        assert!(relative(&[]).is_empty());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("growth.png");
        draw(&path, "nano", &[points.to_vec(), points.to_vec(), points.to_vec()]).unwrap();
        assert_eq!(image::open(&path).unwrap().to_rgb8().dimensions(), SIZE);
    }
}
