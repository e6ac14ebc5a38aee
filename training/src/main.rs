//! `cargo run --release -p training -- <verb>`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use candle_core::{DType, Device};
use clap::{Parser, Subcommand};
use model::lora::Lora;
use model::weights::gguf::Recipe;
use model::{AnswerOptions, Mode, weights};
use training::chains::write;
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
        #[arg(long)]
        config: PathBuf,
        /// Checkpoint to start from; a new model of the config's shape without it.
        #[arg(long)]
        init: Option<PathBuf>,
        /// Folder of the checkpoint and its manifest.
        #[arg(long)]
        out: PathBuf,
    },
    /// Five-step chains from windows with poses and depth, as shards in the WebDataset layout.
    Chains(write::Chains),
    /// Merges an adapter into its base and writes what the node loads.
    Export {
        /// Checkpoint folder (safetensors).
        #[arg(long)]
        weights: PathBuf,
        /// LoRA adapter folder.
        #[arg(long)]
        adapter: Option<PathBuf>,
        /// safetensors or gguf.
        #[arg(long)]
        format: Format,
        /// Of gguf: f32, f16, q8_0, q6_k, q5_k_m or q4_k_m. Of safetensors: f32, f16 or bf16.
        #[arg(long, default_value = "f16")]
        r#type: String,
        /// Folder of the checkpoint.
        #[arg(long)]
        out: PathBuf,
    },
    /// Measures what a model costs on this machine; one JSON line.
    Bench {
        #[command(subcommand)]
        what: Bench,
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
        /// Write the figures into the manifest.json of the weights.
        #[arg(long, requires = "weights", conflicts_with = "adapter")]
        record: bool,
        /// Tokens after which an answer is given up.
        #[arg(long, default_value_t = 2048)]
        max_tokens: usize,
        /// Folder of report.json and answers.jsonl.
        #[arg(long, default_value = "runs/eval")]
        out: PathBuf,
    },
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
    Safetensors,
    Gguf,
}

#[derive(Subcommand)]
enum Bench {
    /// Speed and memory of encoding, reading a prompt and writing behind it.
    Model {
        /// nano, 2b, 4b or 8b; all but nano with random weights, under target/bench.
        #[arg(long)]
        shape: String,
        /// f16, q8_0, q6_k, q5_k_m or q4_k_m.
        #[arg(long)]
        quant: Option<String>,
        #[arg(long, default_value_t = 2)]
        threads: usize,
    },
    /// Speed and memory of training an adapter.
    Train(training::bench::Train),
    /// Chains a second on one core and the round trip of each through its text.
    Data(training::bench::Data),
    /// Writes a random checkpoint.
    Checkpoint {
        /// 2b, 4b or 8b.
        #[arg(long)]
        shape: String,
        /// First decoder layers alone.
        #[arg(long)]
        layers: Option<usize>,
        /// As for model.
        #[arg(long)]
        quant: Recipe,
        /// Folder of the checkpoint.
        #[arg(long)]
        out: PathBuf,
    },
}

#[expect(clippy::print_stdout, reason = "a command's result")]
fn print_result(text: &str) {
    print!("{text}");
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    // candle's matrix products would start as many threads again in each of our workers.
    let threads = match &arguments.verb {
        Verb::Bench { what: Bench::Model { threads, .. } } => *threads,
        Verb::Bench { what: Bench::Train(train) } => train.threads,
        _ => 1,
    };
    // SAFETY: nothing else runs yet.
    #[expect(unsafe_code, reason = "candle reads its thread count from the environment alone")]
    if std::env::var_os("RAYON_NUM_THREADS").is_none() {
        unsafe { std::env::set_var("RAYON_NUM_THREADS", threads.to_string()) };
    }
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let done: Result<()> = match arguments.verb {
        Verb::Sft { config, init, out } => {
            let config = training::sft::read_config(&config)?;
            training::sft::run(&config, init.as_deref(), &out)
        }
        Verb::Chains(options) => {
            let report = write::run(&options)?;
            let (c, (there, all)) = (&report.counts, report.shards);
            print_result(&format!(
                "{}: {there} of {all} shards ({} made now), {} chains of {} windows; {} without depth, {} of inconsistent \
                 depth, {} rejected, {} unreadable\n",
                options.out.display(),
                report.made,
                c.written,
                c.windows,
                c.without_depth,
                c.inconsistent_depth,
                c.rejected,
                c.unreadable.len()
            ));
            return Ok(if c.unreadable.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Verb::Export { weights, adapter, format, r#type, out } => {
            let adapter = adapter.map(|dir| Lora::load(&dir, DType::F32, &Device::Cpu)).transpose()?;
            let bytes = match format {
                Format::Safetensors => {
                    let dtype = match r#type.as_str() {
                        "f32" => DType::F32,
                        "f16" => DType::F16,
                        "bf16" => DType::BF16,
                        other => anyhow::bail!("--type: expected f32, f16 or bf16 for safetensors, got {other}"),
                    };
                    weights::merge(&weights, adapter.as_ref(), dtype, &out)?
                }
                Format::Gguf => {
                    let recipe = r#type.parse::<Recipe>().map_err(|e| anyhow::anyhow!("--type: {e}"))?;
                    let (text, vision) = weights::gguf::export(&weights, adapter.as_ref(), recipe, &out)?;
                    text + vision
                }
            };
            print_result(&format!("{}: {:.1} MiB\n", out.display(), bytes as f64 / f64::from(1 << 20)));
            Ok(())
        }
        Verb::Bench { what: Bench::Model { shape, quant, threads } } => {
            print_result(&format!("{}\n", training::bench::model(&shape, quant.as_deref(), threads)?));
            Ok(())
        }
        Verb::Bench { what: Bench::Train(train) } => {
            print_result(&format!("{}\n", training::bench::train(&train)?));
            Ok(())
        }
        Verb::Bench { what: Bench::Data(data) } => {
            print_result(&format!("{}\n", training::bench::data(&data)?));
            Ok(())
        }
        Verb::Bench { what: Bench::Checkpoint { shape, layers, quant, out } } => {
            training::bench::checkpoint(&shape, layers, quant, &out)
        }
        Verb::Eval { weights, estimator, data, mode, adapter, constrained, record, max_tokens, out } => {
            let options = AnswerOptions { mode, max_tokens, constrained, ..AnswerOptions::default() };
            let manifest = weights.as_ref().filter(|_| record).map(|dir| dir.join("manifest.json"));
            let (judged, label) = match (weights, estimator) {
                (Some(dir), _) => (Estimator::weights(&dir, adapter.as_deref(), options)?, dir.display().to_string()),
                (None, Some(name)) => (Estimator::named(&name)?, name),
                (None, None) => anyhow::bail!("expected --weights or --estimator"),
            };
            // Windows run side by side; each is one thread.
            let pool = rayon::ThreadPoolBuilder::new().num_threads(std::thread::available_parallelism()?.get());
            let report = pool.build()?.install(|| eval::run(&judged, &label, &data, &out))?;
            if let Some(manifest) = manifest {
                eval::record(&report, &manifest)?;
            }
            print_result(&eval::table(&report));
            Ok(())
        }
    };
    done.map(|()| ExitCode::SUCCESS)
}
