//! `cargo run --release -p training -- <verb>`.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};
use model::{AnswerOptions, Mode, Processor};
use training::eval::{self, Estimator};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(version, about = "Makes and judges the weights of EgoReasoner")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Supervised fine-tuning.
    Sft {
        /// Settings of the run.
        #[arg(long, default_value = "config/training/nano-1-motion.toml")]
        config: PathBuf,
        /// Checkpoint to start from; a new model of the config's shape without it.
        #[arg(long)]
        init: Option<PathBuf>,
        /// Folder of the checkpoint and its manifest.
        #[arg(long)]
        out: PathBuf,
    },
    /// Five-step chains from windows with poses and depth.
    Chains {
        /// As for eval.
        #[arg(long)]
        data: String,
        /// Folder of chains.jsonl, frames and manifest.json.
        #[arg(long)]
        out: PathBuf,
        /// Seed of the choice of points and of the prose.
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Most pixels of a frame after resizing.
        #[arg(long, default_value_t = 20_480)]
        max_pixels: u64,
    },
    /// Judges weights, or an estimator that needs none.
    Eval {
        /// Checkpoint folder.
        #[arg(long, required_unless_present = "estimator")]
        weights: Option<PathBuf>,
        /// identity or constant-velocity, in place of weights.
        #[arg(long, conflicts_with = "weights")]
        estimator: Option<String>,
        /// synth:seed=9001,windows=500, or a folder with a sequence.json, or a folder of such folders.
        #[arg(long)]
        data: String,
        /// answer_only or full_chain.
        #[arg(long, default_value = "answer_only")]
        mode: Mode,
        /// LoRA adapter folder to put beside the weights.
        #[arg(long, requires = "weights")]
        adapter: Option<PathBuf>,
        /// Write only what follows the grammar of answers.
        #[arg(long)]
        constrained: bool,
        /// Tokens after which an answer is given up.
        #[arg(long, default_value_t = 2048)]
        max_tokens: usize,
        /// Folder of report.json and answers.jsonl.
        #[arg(long, default_value = "runs/eval")]
        out: PathBuf,
    },
}

#[expect(clippy::print_stdout, reason = "a command's result")]
fn print_result(text: &str) {
    print!("{text}");
}

fn main() -> Result<()> {
    // candle's matrix products would start as many threads again in each of our workers.
    // SAFETY: nothing else runs yet.
    #[expect(unsafe_code, reason = "candle reads its thread count from the environment alone")]
    if std::env::var_os("RAYON_NUM_THREADS").is_none() {
        unsafe { std::env::set_var("RAYON_NUM_THREADS", "1") };
    }
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match Arguments::parse().verb {
        Verb::Sft { config, init, out } => {
            let config = training::sft::read_config(&config)?;
            training::sft::run(&config, init.as_deref(), &out)
        }
        Verb::Chains { data, out, seed, max_pixels } => {
            let processor = Processor::with_pixel_limits(max_pixels.min(4096), max_pixels);
            let manifest = training::chains::write::run(&data, &processor, seed, &out)?;
            print_result(&format!("{manifest:#}\n"));
            Ok(())
        }
        Verb::Eval { weights, estimator, data, mode, adapter, constrained, max_tokens, out } => {
            let options = AnswerOptions { mode, max_tokens, constrained, ..AnswerOptions::default() };
            let (judged, label) = match (weights, estimator) {
                (Some(dir), _) => (Estimator::weights(&dir, adapter.as_deref(), options)?, dir.display().to_string()),
                (None, Some(name)) => (Estimator::named(&name)?, name),
                (None, None) => anyhow::bail!("expected --weights or --estimator"),
            };
            // Windows run side by side; each is one thread.
            let pool = rayon::ThreadPoolBuilder::new().num_threads(std::thread::available_parallelism()?.get());
            let report = pool.build()?.install(|| eval::run(&judged, &label, &data, &out))?;
            print_result(&eval::table(&report));
            Ok(())
        }
    }
}
