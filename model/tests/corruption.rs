//! Files with random damage: an error or a model, never a panic, and never much more memory than the file.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{DType, Device};
use model::lora::Lora;
use model::nn::Kernels;
use model::tokenizer::Tokenizer;
use model::weights::gguf::{Recipe, export};
use model::{Config, Processor, Qwen3Vl};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Most that a damaged file may cost beyond its own size.
const LIMIT: usize = 64 << 20;

/// Counts what is held, and the most that was.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator with two counters beside it.
#[expect(unsafe_code, reason = "an allocator is unsafe by its nature")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn damage(bytes: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut out = bytes.to_vec();
    // Headers are where damage does more than change a number.
    let near = out.len().min(16 << 10);
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(0..near.min(out.len()).max(1));
        let end = (at + rng.random_range(1..16)).min(out.len());
        match rng.random_range(0..6) {
            0 => out.truncate(rng.random_range(0..out.len())),
            1 => out[at] ^= 1 << rng.random_range(0..8),
            2 => out[at..end].fill(0xff),
            3 => out[at..end].fill(b'9'),
            4 => drop(out.drain(at..end)),
            _ => out.splice(at..at, (0..rng.random_range(1..9)).map(|_| b'7')).for_each(drop),
        }
        if out.len() < 2 {
            break;
        }
    }
    out
}

/// Reads 500 damaged copies of a file in a folder; returns how many were errors.
fn survive(dir: &Path, file: &str, seed: u64, read: &dyn Fn() -> Result<(), model::Error>) -> usize {
    let path = dir.join(file);
    let whole = std::fs::read(&path).unwrap();
    read().unwrap();
    let mut errors = 0;
    for round in 0..500 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed * 1000 + round);
        let broken = damage(&whole, &mut rng);
        std::fs::write(&path, &broken).unwrap();
        let before = HELD.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(read));
        let outcome = outcome.unwrap_or_else(|_| panic!("{file}: round {round} panics"));
        let taken = PEAK.load(Ordering::Relaxed).saturating_sub(before);
        assert!(taken < broken.len() + LIMIT, "{file}: round {round} takes {taken} bytes for {}", broken.len());
        if let Err(error) = outcome {
            assert!(!error.to_string().is_empty());
            errors += 1;
        }
    }
    std::fs::write(&path, &whole).unwrap();
    errors
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/qwen3vl").join(name)
}

fn copy(from: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    dir
}

// One test: the counters are the process's.
#[test]
fn damaged_files_are_errors_and_nothing_worse() {
    let load = |dir: &Path| Qwen3Vl::load(dir, Kernels::Fused, DType::F32, &Device::Cpu).map(|_| ());

    let dir = copy(&fixture("tiny"));
    let read = || load(dir.path());
    assert!(survive(dir.path(), "model.safetensors", 1, &read) > 300);
    let read = || {
        let config = Config::from_dir(dir.path())?;
        Processor::from_dir(dir.path(), &config.vision_config)?;
        load(dir.path())
    };
    assert!(survive(dir.path(), "config.json", 2, &read) > 200);
    survive(dir.path(), "preprocessor_config.json", 3, &read);

    let gguf = tempfile::tempdir().unwrap();
    export(&fixture("tiny"), None, Recipe::Q8_0, gguf.path()).unwrap();
    let read = || load(gguf.path());
    assert!(survive(gguf.path(), "model.gguf", 4, &read) > 300);
    assert!(survive(gguf.path(), "mmproj.gguf", 5, &read) > 300);

    let nano = copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/nano"));
    let config = Config::from_dir(nano.path()).unwrap();
    let read = || Tokenizer::from_dir(nano.path(), &config).map(|_| ());
    assert!(survive(nano.path(), "tokenizer.json", 6, &read) > 200);

    let adapter = copy(&fixture("adapter"));
    let read = || Lora::load(adapter.path(), DType::F32, &Device::Cpu).map(|_| ());
    assert!(survive(adapter.path(), "adapter_model.safetensors", 7, &read) > 200);
    survive(adapter.path(), "adapter_config.json", 8, &read);
}
