//! Speed and memory of encoding, reading a prompt and writing behind it.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use candle_core::{DType, Tensor};
use image::RgbImage;
use model::nn::Kernels;
use model::qwen3_vl::Embedded;
use model::{Processor, Qwen3Vl};
use serde_json::{Value, json};

use super::{peak_mib, rounded};

/// Tokens of the prompt.
const PREFILL: usize = 256;
/// Tokens written behind it.
const DECODE: u32 = 24;

/// Where the weights of a shape lie: nano's own, or a random checkpoint made for it by another process, so that making
/// it is no part of the memory that is measured.
pub(super) fn weights(shape: &str, quant: Option<&str>) -> Result<PathBuf> {
    if shape == "nano" {
        if quant.is_some() {
            bail!("--quant: nano is what it is");
        }
        return Ok(PathBuf::from("model/weights/nano"));
    }
    let quant = quant.unwrap_or("q4_k_m");
    let dir = PathBuf::from(format!("target/bench/{shape}-{quant}"));
    if !dir.join("config.json").is_file() {
        tracing::info!(dir = %dir.display(), "writing a random checkpoint");
        let status = std::process::Command::new(std::env::current_exe()?)
            .args(["bench", "checkpoint", "--shape", shape, "--quant", quant, "--out"])
            .arg(&dir)
            .status()?;
        anyhow::ensure!(status.success(), "the random checkpoint could not be written");
    }
    Ok(dir)
}

/// Loads a model, encodes a 640x480 frame, reads a prompt and writes behind it.
///
/// # Errors
/// Weights that are missing or broken, another device.
pub fn model(shape: &str, quant: Option<&str>, threads: usize, device_name: &str) -> Result<Value> {
    let device = model::device(device_name).context("--device")?;
    let dtype = if device.is_cpu() { DType::F32 } else { DType::BF16 };
    let dir = weights(shape, quant)?;
    let milliseconds = |begin: Instant| begin.elapsed().as_secs_f64() * 1e3;
    let begin = Instant::now();
    let model = Qwen3Vl::load(&dir, Kernels::Fused, dtype, &device)?;
    // A GPU is behind what it was told: the clock is read when it is done.
    device.synchronize()?;
    let load_ms = milliseconds(begin);
    let processor = Processor::from_dir(&dir, &model.config().vision_config)?;

    let image = RgbImage::from_fn(640, 480, |x, y| image::Rgb([(x / 3) as u8, (y / 2) as u8, ((x * y) / 997) as u8]));
    let intrinsics = geometry::Intrinsics::new(500.0, 500.0, 319.5, 239.5, 640, 480)?;
    let mut encode_ms = Vec::new();
    let mut tokens = 0;
    for _ in 0..3 {
        let begin = Instant::now();
        let patches = processor.patches(&image, &intrinsics, &device)?;
        let output = model.visual().forward(&patches.values.to_dtype(dtype)?.unsqueeze(0)?, patches.grid)?;
        tokens = output.tokens.dim(1)?;
        device.synchronize()?;
        encode_ms.push(milliseconds(begin));
    }
    let ids: Vec<u32> = (0..PREFILL as u32).map(|i| 5 + i * 7 % 500).collect();
    let positions: Vec<[u32; 3]> = (0..PREFILL as u32).map(|i| [i; 3]).collect();
    let prefill = |cache: &mut model::qwen3_vl::text::KvCache| -> Result<(Tensor, f64)> {
        let begin = Instant::now();
        let embeddings = model.embed(&Tensor::new(ids.as_slice(), &device)?)?.unsqueeze(0)?;
        let hidden = model.decode(&Embedded { embeddings, deepstack: Vec::new() }, &positions, Some(cache))?;
        let t = hidden.dim(1)?;
        let logits = model.logits(&hidden.narrow(1, t - 1, 1)?)?;
        device.synchronize()?;
        Ok((logits, begin.elapsed().as_secs_f64()))
    };
    // Once to warm up: candle lays weights out anew when it first meets a prompt.
    prefill(&mut model.cache(PREFILL))?;
    let mut cache = model.cache(PREFILL + DECODE as usize);
    let (mut logits, prefill_s) = prefill(&mut cache)?;
    let begin = Instant::now();
    for step in 0..DECODE {
        let token = logits.flatten_all()?.argmax(0)?.to_scalar::<u32>()?;
        let embeddings = model.embed(&Tensor::new(&[token], &device)?)?.unsqueeze(0)?;
        let place = [PREFILL as u32 + step; 3];
        let hidden = model.decode(&Embedded { embeddings, deepstack: Vec::new() }, &[place], Some(&mut cache))?;
        logits = model.logits(&hidden)?;
    }
    device.synchronize()?;
    let decode_s = begin.elapsed().as_secs_f64();
    encode_ms.sort_by(f64::total_cmp);
    Ok(json!({
        "shape": shape, "quant": quant, "threads": threads, "device": device_name,
        "file_mib": rounded(file_mib(&dir)?), "load_ms": rounded(load_ms),
        "encode_640x480_ms": rounded(encode_ms[1]), "tokens_per_frame": tokens,
        "prefill_tokens": PREFILL, "prefill_tokens_per_s": rounded(PREFILL as f64 / prefill_s),
        "decode_tokens_per_s": rounded(f64::from(DECODE) / decode_s),
        "peak_mib": rounded(peak_mib()?),
    }))
}

fn file_mib(dir: &Path) -> Result<f64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "gguf" || e == "safetensors") {
            bytes += path.metadata()?.len();
        }
    }
    Ok(bytes as f64 / f64::from(1 << 20))
}
