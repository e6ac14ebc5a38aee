//! What a window of a sliding film costs with the shipped weights: one new frame is encoded, four come from the node's cache of
//! vision, and the poses are written or read off the pose head.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use geometry::WINDOW;
use model::answer::fill::Fill;
use model::pose_head::PoseHeadConfig;
use model::{AnswerOptions, EgoModel, FrameEmbedding, Mode, PoseHead};
use serde_json::{Value, json};
use training_data::synth::{SynthSequence, sequence};

use super::{decimals, median, peak_mib, rounded};

/// The weights, which ship no heads.
const NANO: &str = "model/weights/nano";
/// As `training situation` makes heads for them (config/training/nano-situation.toml). Their numbers are zeros: what they say
/// is no matter of time.
const HEADS: PoseHeadConfig = PoseHeadConfig {
    full_pose: true,
    hidden: 192,
    unit: 0.25,
    tilt_unit_deg: 10.0,
    log_variance: [-7.0, 5.0],
    bins: 36,
};
/// Seed and size (width, height) of the film.
const FILM: (u64, (u32, u32)) = (1, (160, 96));

/// What to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct Window {
    /// Windows of the film, hop 1.
    #[arg(long, default_value_t = 40)]
    pub windows: usize,
    /// Who writes what of an answer: none or arithmetic, with which answers follow their grammar.
    #[arg(long, default_value = "arithmetic")]
    pub fill: Fill,
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
}

/// Asks about each window of a film; the seconds of each, from its newest image on, and of the encoding of every frame.
fn slide(
    ego: &EgoModel,
    film: &SynthSequence,
    encoding: &mut Vec<f64>,
    ask: &mut dyn FnMut(&[&FrameEmbedding]) -> Result<()>,
) -> Result<Vec<f64>> {
    let (mut cached, mut seconds) = (Vec::new(), Vec::new());
    for image in &film.images {
        let begin = Instant::now();
        cached.push(ego.encode(&ego.preprocess(image, &film.intrinsics)?)?);
        encoding.push(begin.elapsed().as_secs_f64());
        if cached.len() == WINDOW {
            ask(&cached.iter().collect::<Vec<_>>())?;
            seconds.push(begin.elapsed().as_secs_f64());
            cached.remove(0);
        }
    }
    Ok(seconds)
}

/// Slides over a rendered film twice: once with answers that are written, once with the pose head.
///
/// # Errors
/// Weights that are missing or broken.
pub fn window(options: &Window) -> Result<Value> {
    ensure!(options.windows > 0, "--windows: expected at least 1, got 0");
    let device = Device::Cpu;
    let ego = EgoModel::load(Path::new(NANO), &device)?;
    let width = ego.network().config().text_config.hidden_size;
    let head = PoseHead::new(HEADS, width, &VarBuilder::zeros(DType::F32, &device))?;
    let (seed, size) = FILM;
    let film = sequence(seed, 0, options.windows + WINDOW - 1, size);
    let asked =
        AnswerOptions { mode: Mode::AnswerOnly, constrained: true, fill: options.fill, ..AnswerOptions::default() };

    let (mut encoding, mut tokens, mut passes, mut parsed) = (Vec::new(), Vec::new(), Vec::new(), 0);
    let answers = slide(&ego, &film, &mut encoding, &mut |frames| {
        let answer = ego.answer(frames, &asked)?;
        tokens.push(answer.ids.len() as f64);
        passes.push(answer.passes as f64);
        parsed += usize::from(answer.trajectory.is_ok());
        Ok(())
    })?;
    let heads = slide(&ego, &film, &mut encoding, &mut |frames| {
        ego.poses(&head, frames)??;
        Ok(())
    })?;
    let mean = |seconds: &[f64]| seconds.iter().sum::<f64>() / seconds.len() as f64;
    let (answer_mean, head_mean) = (mean(&answers), mean(&heads));
    Ok(json!({
        "shape": "nano", "threads": options.threads, "device": "cpu", "windows": options.windows,
        "film": format!("{}x{}, rendered", size.0, size.1), "encode_frame_ms": decimals(median(encoding) * 1e3, 2),
        "answer_only": {
            "fill": options.fill.name(), "median_ms": decimals(median(answers) * 1e3, 2),
            "mean_ms": decimals(answer_mean * 1e3, 2), "windows_per_s": decimals(1.0 / answer_mean, 1),
            "tokens": median(tokens), "passes": median(passes), "parsed": parsed,
        },
        "pose_head": {
            "numbers": "zeros: the weights ship no heads", "median_ms": decimals(median(heads) * 1e3, 2),
            "mean_ms": decimals(head_mean * 1e3, 2), "windows_per_s": decimals(1.0 / head_mean, 1),
        },
        "peak_mib": rounded(peak_mib()?),
    }))
}
