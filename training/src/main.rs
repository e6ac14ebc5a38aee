//! `cargo run --release -p training -- <verb>`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use candle_core::DType;
use clap::{Parser, Subcommand};
use model::pose_head;
use model::process::{self, Unwritten, print as print_result};
use model::weights;
use model::weights::gguf::Recipe;
use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use training::trainer::{Finished, Job};
use training_data::chains::write;
use training_evaluation::eval;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(version, about = "Makes and judges the weights of EgoReasoner")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

/// What every stage is told.
#[derive(clap::Args)]
struct Stage {
    /// Settings of the run.
    #[arg(long)]
    config: PathBuf,
    /// Folder of the run: the model, its heads, its manifest, checkpoints, curves, rollouts.
    #[arg(long)]
    out: PathBuf,
    /// Go on from the newest checkpoint in OUT.
    #[arg(long)]
    resume: bool,
}

/// A stage that can make a model anew.
#[derive(clap::Args)]
struct FromAnything {
    #[command(flatten)]
    stage: Stage,
    /// Checkpoint to start from; a new model of the config's shape without it.
    #[arg(long)]
    init: Option<PathBuf>,
}

/// A stage that goes on from another.
#[derive(clap::Args)]
struct FromCheckpoint {
    #[command(flatten)]
    stage: Stage,
    /// Checkpoint to start from.
    #[arg(long)]
    init: PathBuf,
}

#[derive(Subcommand)]
enum Verb {
    /// Supervised fine-tuning.
    Sft(FromAnything),
    /// One of nano's three stages of supervised fine-tuning, from nothing or a stage before.
    Nano(FromAnything),
    /// Reinforcement learning on the geometry of the answers (GRPO).
    Grpo(FromCheckpoint),
    /// Correspondence heads on the decoder's layers (GASP), dropped at export.
    Gasp {
        #[command(flatten)]
        run: FromCheckpoint,
        /// One run for each combination of values, and a table of them: "lora.r=16,64;gasp.layers=all,1-2".
        #[arg(long)]
        sweep: Option<String>,
    },
    /// What queries and keys of each layer know of correspondence.
    Analyse(training::gasp::analyse::Args),
    /// GASP's own evaluation: points followed through the frames of held-out sequences by every layer, models beside each other.
    Tracks(training::gasp::tracks::Args),
    /// Layout of the scene and situation of the camera (Loc3R-VLM), and the pose head of the fast mode.
    Situation(FromAnything),
    /// Five-step chains from windows with poses and depth, as shards in the WebDataset layout.
    Chains(write::Chains),
    /// Lists windows for estimators that are programs of their own.
    Windows {
        /// As for eval.
        #[arg(long)]
        data: String,
        /// Folder of windows.json, and of the frames that are no files yet.
        #[arg(long)]
        out: PathBuf,
    },
    /// Deals the videos and scenes of recordings out to parts: training, hold-outs.
    Split {
        /// As for eval.
        #[arg(long)]
        data: String,
        /// Parts and their sizes.
        #[arg(long, default_value = "config/training/split.toml")]
        config: PathBuf,
        /// File of the result; `--data ...,part=FILE:NAME` reads one part.
        #[arg(long)]
        out: PathBuf,
    },
    /// Merges an adapter into its base and writes what the node loads, the pose head of `situation` among it.
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
    Eval(eval::Args),
    /// Answers OpenAI's chat completions over HTTP, for the harnesses of public benchmarks.
    Serve(training_evaluation::serve::Args),
    /// Paired differences of two runs of eval on the same windows, A minus B.
    Compare(eval::CompareArgs),
    /// The tables and figures of a paper, of runs of eval side by side.
    Tables {
        #[command(subcommand)]
        of: Tables,
    },
}

#[derive(Subcommand)]
enum Tables {
    /// Table 1 on all windows and on those that every run parses in, Figure 2, and Table 2.
    Egoreasoner(eval::TablesArgs),
}

impl Verb {
    /// The stage of training that this is, if it is one.
    fn stage(&self) -> Option<&Stage> {
        match self {
            Self::Sft(args) | Self::Nano(args) | Self::Situation(args) => Some(&args.stage),
            Self::Grpo(args) | Self::Gasp { run: args, .. } => Some(&args.stage),
            _ => None,
        }
    }
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
        /// cpu (f32), or cuda or cuda:N (bf16).
        #[arg(long, default_value = "cpu")]
        device: String,
    },
    /// A full chain written by the model alone, and with what the program fills in: passes and time of both.
    Chain(training_evaluation::bench::Chain),
    /// A window of a sliding film with nano: answers, and the pose head.
    Window(training_evaluation::bench::Window),
    /// How the cost grows with frames, prompt tokens and answers at once.
    Scaling(training_evaluation::bench::Scaling),
    /// Bytes and operations a second of this machine; or what Jetsons could do at most, as published figures have it.
    Roofs(training_evaluation::bench::Roofs),
    /// Speed and memory of training an adapter.
    Train(training::bench::Train),
    /// Chains a second on one core and the round trip of each through its text.
    Data(training_evaluation::bench::Data),
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

/// Set by SIGINT, SIGTERM and SIGHUP.
fn stop() -> Result<Arc<AtomicBool>> {
    process::stop_on_signals().context("cannot listen to signals")
}

/// Leaves the job; a run that was stopped has a status of its own.
fn finish(finished: &Finished, job: &Job, out: &Path) -> Result<ExitCode> {
    job.collective.finish()?;
    Ok(match finished {
        Finished::Done => ExitCode::SUCCESS,
        Finished::Stopped { steps } => {
            tracing::warn!(steps, "stopped; go on with --resume --out {}", out.display());
            ExitCode::from(130)
        }
    })
}

/// Lets the allocator keep what is given back to it: a step asks again for all that the step before it had, and pages that
/// come anew from the kernel are cleared first, which took a fifth of a step.
fn keep_memory() {
    /// `mi_option_purge_delay` of mimalloc.h.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
        // SAFETY: a number in a table of options, before other threads run.
        #[expect(unsafe_code, reason = "a C function")]
        unsafe {
            libmimalloc_sys::mi_option_set(PURGE_DELAY, -1);
        }
    }
}

/// `run.workers` of a config; whatever is wrong with the file is told when it is read.
fn workers(config: &Path) -> Option<i64> {
    let table: toml::Table = std::fs::read_to_string(config).ok()?.parse().ok()?;
    table.get("run")?.get("workers")?.as_integer()
}

/// The level of `RUST_LOG`, else info, to stderr.
fn init_log() {
    let asked = EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    // ureq's own trace shows requests byte by byte, the key of an endpoint among them.
    let keyless = filter_fn(|record| *record.level() != Level::TRACE || !record.target().starts_with("ureq_proto"));
    // Colours are for people, not for journals and files.
    let is_coloured = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    let lines = tracing_subscriber::fmt::layer().with_writer(process::log).with_ansi(is_coloured);
    tracing_subscriber::registry().with(asked).with(keyless).with(lines).init();
}

fn main() -> ExitCode {
    match try_main() {
        Ok(code) => code,
        Err(error) => {
            // A result that nobody reads is no news to anybody; what was made of it is on the disk.
            if !error.downcast_ref::<Unwritten>().is_some_and(Unwritten::is_unread) {
                process::say(&format!("Error: {error:?}"));
            }
            ExitCode::FAILURE
        }
    }
}

fn try_main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let all = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    // candle's matrix products would start as many threads again in each of our workers.
    let threads = match &arguments.verb {
        Verb::Bench { what: Bench::Model { threads, .. } } => *threads,
        Verb::Bench { what: Bench::Chain(chain) } => chain.threads,
        Verb::Bench { what: Bench::Window(window) } => window.threads,
        Verb::Bench { what: Bench::Scaling(scaling) } => scaling.threads,
        Verb::Bench { what: Bench::Roofs(roofs) } => roofs.threads,
        Verb::Bench { what: Bench::Train(train) } => train.threads,
        // One request at a time has them all.
        Verb::Serve(_) | Verb::Analyse(_) => all,
        // So has a worker that is alone.
        verb if verb.stage().is_some_and(|stage| workers(&stage.config) == Some(1)) => all,
        _ => 1,
    };
    if arguments.verb.stage().is_some() || matches!(arguments.verb, Verb::Bench { what: Bench::Train(_) }) {
        keep_memory();
    }
    // SAFETY: nothing else runs yet.
    #[expect(unsafe_code, reason = "candle reads its thread count from the environment alone")]
    if std::env::var_os("RAYON_NUM_THREADS").is_none() {
        unsafe { std::env::set_var("RAYON_NUM_THREADS", threads.to_string()) };
    }
    init_log();
    let done: Result<()> = match arguments.verb {
        Verb::Sft(FromAnything { stage: Stage { config, out, resume }, init }) => {
            let config = training::sft::read_config(&config)?;
            let job = Job::start(&config.run.device, resume, stop()?)?;
            return finish(&training::sft::run(&config, init.as_deref(), &out, &job)?, &job, &out);
        }
        Verb::Nano(FromAnything { stage: Stage { config, out, resume }, init }) => {
            let config = training::nano::config::read_config(&config)?;
            let job = Job::start(&config.run.device, resume, stop()?)?;
            return finish(&training::nano::run(&config, init.as_deref(), &out, &job)?, &job, &out);
        }
        Verb::Grpo(FromCheckpoint { stage: Stage { config, out, resume }, init }) => {
            let config = training::grpo::read_config(&config)?;
            let job = Job::start(&config.run.device, resume, stop()?)?;
            return finish(&training::grpo::run(&config, &init, &out, &job)?, &job, &out);
        }
        Verb::Gasp { run: FromCheckpoint { stage: Stage { config, out, resume }, init }, sweep } => {
            let settings = training::gasp::read_config(&config)?;
            let job = Job::start(&settings.run.device, resume, stop()?)?;
            let (finished, table) = match sweep {
                Some(sweep) => training::gasp::sweep::sweep(&config, &sweep, &init, &out, &job)?,
                None => (training::gasp::run(&settings, &init, &out, &job)?, String::new()),
            };
            let code = finish(&finished, &job, &out)?;
            print_result(&table)?;
            return Ok(code);
        }
        Verb::Analyse(args) => {
            print_result(&training::gasp::analyse::run(&args)?)?;
            Ok(())
        }
        Verb::Tracks(args) => {
            print_result(&training::gasp::tracks::run(&args)?)?;
            Ok(())
        }
        Verb::Situation(FromAnything { stage: Stage { config, out, resume }, init }) => {
            let config = training::situation::read_config(&config)?;
            let job = Job::start(&config.run.device, resume, stop()?)?;
            return finish(&training::situation::run(&config, init.as_deref(), &out, &job)?, &job, &out);
        }
        Verb::Chains(options) => {
            let report = write::run(&options)?;
            let (c, (there, all)) = (&report.counts, report.shards);
            let again = match report.again {
                0 => String::new(),
                again => format!(", {again} of them again, since what was there had changed"),
            };
            print_result(&format!(
                "{}: {there} of {all} shards ({} made now{again}), {} chains of {} windows; {} without depth, {} of \
                 inconsistent depth, {} rejected, {} unreadable\n",
                options.out.display(),
                report.made,
                c.written,
                c.windows,
                c.without_depth,
                c.inconsistent_depth,
                c.rejected,
                c.unreadable.len()
            ))?;
            return Ok(if c.unreadable.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Verb::Windows { data, out } => {
            let list = training_data::stage::windows::run(&data, &out)?;
            let (windows, unreadable) = (list.windows.len(), list.unreadable.len());
            print_result(&format!("{}: {windows} windows, {unreadable} unreadable\n", out.display()))?;
            return Ok(if unreadable == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Verb::Split { data, config, out } => {
            print_result(&training_data::stage::split::run(&data, &config, &out)?)?;
            Ok(())
        }
        Verb::Export { weights, adapter, format, r#type, out } => {
            let heads = pose_head::folder(&weights, adapter.as_deref()).to_owned();
            let bytes = match format {
                Format::Safetensors => {
                    let dtype = match r#type.as_str() {
                        "f32" => DType::F32,
                        "f16" => DType::F16,
                        "bf16" => DType::BF16,
                        other => anyhow::bail!("--type: expected f32, f16 or bf16 for safetensors, got {other}"),
                    };
                    weights::merge(&weights, adapter.as_deref(), dtype, &out)?
                }
                Format::Gguf => {
                    let recipe = r#type.parse::<Recipe>().map_err(|e| anyhow::anyhow!("--type: {e}"))?;
                    let (text, vision) = weights::gguf::export(&weights, adapter.as_deref(), recipe, &out)?;
                    text + vision
                }
            };
            pose_head::copy(&heads, &out)?;
            print_result(&format!("{}: {:.1} MiB\n", out.display(), bytes as f64 / f64::from(1 << 20)))?;
            Ok(())
        }
        Verb::Bench { what: Bench::Model { shape, quant, threads, device } } => {
            let measured = training_evaluation::bench::model(&shape, quant.as_deref(), threads, &device)?;
            print_result(&format!("{measured}\n"))?;
            Ok(())
        }
        Verb::Bench { what: Bench::Chain(chain) } => {
            print_result(&format!("{}\n", training_evaluation::bench::chain(&chain)?))?;
            Ok(())
        }
        Verb::Bench { what: Bench::Window(window) } => {
            print_result(&format!("{}\n", training_evaluation::bench::window(&window)?))?;
            Ok(())
        }
        Verb::Bench { what: Bench::Scaling(scaling) } => {
            print_result(&format!("{}\n", training_evaluation::bench::scaling(&scaling)?))?;
            Ok(())
        }
        Verb::Bench { what: Bench::Roofs(roofs) } if roofs.published => {
            print_result(&training_evaluation::bench::published())?;
            Ok(())
        }
        Verb::Bench { what: Bench::Roofs(roofs) } => {
            print_result(&format!("{}\n", training_evaluation::bench::roofs(&roofs)?))?;
            Ok(())
        }
        Verb::Bench { what: Bench::Train(train) } => {
            print_result(&format!("{}\n", training::bench::train(&train)?))?;
            Ok(())
        }
        Verb::Bench { what: Bench::Data(data) } => {
            print_result(&format!("{}\n", training_evaluation::bench::data(&data)?))?;
            Ok(())
        }
        Verb::Bench { what: Bench::Checkpoint { shape, layers, quant, out } } => {
            training_evaluation::bench::checkpoint(&shape, layers, quant, &out)
        }
        Verb::Eval(args) => {
            let done = eval::main(&args)?;
            print_result(&done.text)?;
            return Ok(done.status());
        }
        Verb::Serve(args) => training_evaluation::serve::main(&args, |url| {
            // Whoever does not read it knows it: a server is there for its clients.
            let _ = print_result(&format!("{url}\n"));
        }),
        Verb::Compare(args) => {
            print_result(&eval::compare(&args)?.to_string())?;
            Ok(())
        }
        Verb::Tables { of: Tables::Egoreasoner(args) } => {
            print_result(&eval::egoreasoner(&args)?)?;
            Ok(())
        }
    };
    done.map(|()| ExitCode::SUCCESS)
}
