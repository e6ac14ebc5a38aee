//! What this machine can do at most: bytes of memory that it moves and products that it computes in a second. A token that is
//! written reads all weights once, a prompt is products, so these are what speeds are held against.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Result, ensure};
use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{Device, Module, Tensor};
use serde_json::{Value, json};

use super::{decimals, rounded};

/// Words of each of two buffers: 512 MiB, far beyond any cache.
const WORDS: usize = 64 << 20;
/// Side of the square matrices that are multiplied.
const SIDE: usize = 2048;
/// How often each is timed; the best counts, since what disturbs only slows down.
const RUNS: usize = 5;

/// What to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct Roofs {
    /// In place of it, the table for Jetsons that is computed from published figures, as Markdown.
    #[arg(long)]
    pub published: bool,
    /// Memory is measured with 1 to so many threads, products with all of them.
    #[arg(long, default_value_t = 2)]
    pub threads: usize,
}

/// Copies and sums buffers, multiplies matrices in f32 and by the integer kernels of `Q8_0`.
///
/// # Errors
/// A tensor operation's.
pub fn roofs(options: &Roofs) -> Result<Value> {
    ensure!(options.threads > 0, "--threads: expected at least 1, got 0");
    let memory: Vec<Value> = {
        let (from, mut to) = (vec![1u64; WORDS], vec![2u64; WORDS]);
        let gb_per_s = |bytes: usize, seconds: f64| rounded(bytes as f64 / seconds / 1e9);
        let row = |threads| {
            let copy = gb_per_s(2 * size_of_val(from.as_slice()), best(|| copy(&from, &mut to, threads)));
            let read = gb_per_s(size_of_val(from.as_slice()), best(|| read(&from, threads)));
            json!({"threads": threads, "read_gb_per_s": read, "copy_gb_per_s": copy})
        };
        (1..=options.threads).map(row).collect()
    };
    let device = Device::Cpu;
    let [x, w] = [(); 2].map(|()| Tensor::rand(-1f32, 1f32, (SIDE, SIDE), &device));
    let (x, w) = (x?, w?);
    let blocks = QMatMul::from_qtensor(QTensor::quantize(&w, GgmlDType::Q8_0)?)?;
    let operations = 2.0 * (SIDE as f64).powi(3);
    let product = |of: &dyn Fn() -> candle_core::Result<Tensor>| -> Result<f64> {
        of()?;
        let mut failed = None;
        let seconds = best(|| failed = black_box(of()).err());
        failed.map_or_else(|| Ok(rounded(operations / seconds / 1e9)), |error| Err(error.into()))
    };
    let (f32s, q8_0) = (product(&|| x.matmul(&w.t()?))?, product(&|| blocks.forward(&x))?);
    Ok(json!({
        "threads": options.threads, "buffer_mib": (WORDS * size_of::<u64>()) >> 20, "memory": memory,
        "product": {
            "side": SIDE, "threads": options.threads, "f32_gop_per_s": f32s, "q8_0_gop_per_s": q8_0,
            "q8_0_over_f32": decimals(q8_0 / f32s, 2),
        },
    }))
}

/// The shortest time of a few, seconds.
fn best(mut run: impl FnMut()) -> f64 {
    let timed = |_| {
        let begin = Instant::now();
        run();
        begin.elapsed().as_secs_f64()
    };
    (0..RUNS).map(timed).fold(f64::INFINITY, f64::min)
}

/// A part for each thread.
fn copy(from: &[u64], to: &mut [u64], threads: usize) {
    let part = from.len().div_ceil(threads);
    std::thread::scope(|scope| {
        for (to, from) in to.chunks_mut(part).zip(from.chunks(part)) {
            scope.spawn(move || to.copy_from_slice(from));
        }
    });
    black_box(to);
}

fn read(from: &[u64], threads: usize) {
    let part = from.len().div_ceil(threads);
    std::thread::scope(|scope| {
        for from in from.chunks(part) {
            scope.spawn(move || black_box(from.iter().fold(0u64, |sum, word| sum.wrapping_add(*word))));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_a_buffer_is_copied_whatever_the_threads() {
        let from: Vec<u64> = (0..1001).collect();
        for threads in [1, 2, 3, 7] {
            let mut to = vec![0; from.len()];
            copy(&from, &mut to, threads);
            assert_eq!(to, from, "{threads}");
            read(&from, threads);
        }
    }
}
