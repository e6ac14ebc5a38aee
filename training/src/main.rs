//! `cargo run --release -p training -- <verb>`.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

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
        #[arg(long, default_value = "config/training/sft.toml")]
        config: PathBuf,
        /// Checkpoint to start from; a new model of the config's shape without it.
        #[arg(long)]
        init: Option<PathBuf>,
        /// Folder of the checkpoint and its manifest.
        #[arg(long)]
        out: PathBuf,
    },
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
    }
}
