//! What models cost on this machine: one JSON line a run. Shapes beyond nano are random; speed and memory do not
//! depend on what the numbers are.

mod chain;
mod data;
mod jetson;
mod model;
mod roofs;
mod scaling;
mod window;

use std::path::Path;

use ::model::Processor;
use ::model::memory::Resident;
use ::model::weights::gguf::{self, Recipe};
use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub use self::chain::{Chain, chain};
pub use self::data::{Data, data};
pub use self::jetson::published;
pub use self::model::model;
pub use self::roofs::{Roofs, roofs};
pub use self::scaling::{Scaling, scaling};
pub use self::window::{Window, window};

/// Pixel limits of the published preprocessor_config.json.
const PIXELS: (u64, u64) = (65_536, 16_777_216);

/// Writes a random checkpoint of a published shape, or of its first `layers` decoder layers, as a pair of GGUF files.
///
/// # Errors
/// Another shape, or a folder that can't be written.
pub fn checkpoint(shape: &str, layers: Option<usize>, recipe: Recipe, out: &Path) -> Result<()> {
    let mut config =
        ::model::weights::published(shape).with_context(|| format!("--shape: expected 2b, 4b or 8b, got {shape}"))?;
    config.text_config.num_hidden_layers = layers.unwrap_or(config.text_config.num_hidden_layers);
    std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let processor = Processor::with_pixel_limits(PIXELS.0, PIXELS.1);
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut random = |name: &str, dims: &[usize]| {
        if name.ends_with("norm.weight") || name.contains("norm1.weight") || name.contains("norm2.weight") {
            return Ok(Tensor::ones(dims, DType::F32, &Device::Cpu)?);
        }
        // Uniform, of the variance that keeps activations in bounds.
        let width = (3.0 / dims[1..].iter().product::<usize>().max(1) as f32).sqrt().min(0.1);
        let values: Vec<f32> = (0..dims.iter().product()).map(|_| (rng.random::<f32>() * 2.0 - 1.0) * width).collect();
        Ok(Tensor::from_vec(values, dims, &Device::Cpu)?)
    };
    let header = gguf::Header { config: &config, processor: &processor, vocabulary: Vec::new(), identity: None };
    gguf::write(header, recipe, out, &mut random)?;
    ::model::weights::write_config(&config, &processor, out)?;
    Ok(())
}

/// Most memory that this process ever held (Linux).
pub fn peak_mib() -> Result<f64> {
    let held = Resident::of_self().context("/proc/self/status: expected VmRSS and VmHWM")?;
    Ok(held.highest_mib)
}

pub fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// To so many decimals.
fn decimals(value: f64, places: i32) -> f64 {
    let unit = 10f64.powi(places);
    (value * unit).round() / unit
}

/// The middle of some values, the upper one of two; 0 of none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
