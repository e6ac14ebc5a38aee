//! The suite on a bench, or its software twin. See docs/testing.md, "Hardware in the loop".
//!
//! ```text
//! cargo test -p tests --features hil --test hil -- --config tests/hil.toml
//! ```
//!
//! Without the harness of `cargo test`, which takes no arguments of a test's own; what that harness is told by those who
//! run all tests (filters, `--nocapture`) is understood as far as it must be.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::hil::check::{Verdict, checks, table};
use tests::hil::config::Config;
use tests::hil::{Outcome, junit, program, run};
use tests::root;

/// What runs where no config is named.
const DEFAULT: &str = if cfg!(feature = "hil") { "tests/hil.toml" } else { "tests/sil.toml" };

/// Flags of `cargo test`'s harness that a value follows, and those that stand alone.
const WITH_VALUE: [&str; 7] = ["--test-threads", "--skip", "--format", "--color", "--logfile", "--shuffle-seed", "-Z"];
const ALONE: [&str; 10] = [
    "--nocapture",
    "--no-capture",
    "--show-output",
    "--exact",
    "--quiet",
    "-q",
    "--include-ignored",
    "--ignored",
    "--report-time",
    "--shuffle",
];

fn main() -> ExitCode {
    match try_main() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("hil: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What this binary was told.
#[derive(Default)]
struct Args {
    config: Option<PathBuf>,
    list: bool,
    /// Names of tests: those of others are not for us.
    filters: Vec<String>,
}

impl Args {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let mut parsed = Self::default();
        while let Some(arg) = args.next() {
            if arg == "--config" {
                parsed.config = Some(args.next().context("--config: expected a file")?.into());
            } else if let Some(path) = arg.strip_prefix("--config=") {
                parsed.config = Some(path.into());
            } else if arg == "--list" {
                parsed.list = true;
            } else if WITH_VALUE.contains(&arg.as_str()) {
                args.next();
            } else if !arg.starts_with('-') {
                parsed.filters.push(arg);
            } else {
                let name = arg.split('=').next().unwrap_or_default();
                ensure!(ALONE.contains(&name) || WITH_VALUE.contains(&name), "{arg}: expected --config FILE");
            }
        }
        Ok(parsed)
    }
}

#[expect(clippy::print_stdout, reason = "the command's result")]
fn try_main() -> Result<ExitCode> {
    let args = Args::parse(std::env::args().skip(1))?;
    let is_meant = args.filters.is_empty() || args.filters.iter().any(|filter| "hil".contains(filter.as_str()));
    if args.list {
        println!("hil: test");
        return Ok(ExitCode::SUCCESS);
    }
    if args.config.is_none() && !is_meant {
        println!("hil: not run: tests are selected by {:?}", args.filters);
        return Ok(ExitCode::SUCCESS);
    }
    let path = located(args.config.as_deref().unwrap_or(Path::new(DEFAULT)));
    let config = Config::load(&path)?;
    println!("hil: {} by {}, {} s", config.name, path.display(), config.run.play_seconds);
    let begun = Instant::now();
    let outcome = run(&config, &program(&config));
    let seconds = begun.elapsed().as_secs_f64();
    match outcome {
        Ok(outcome) => judge(&config, &outcome, seconds),
        Err(error) => {
            write(&root().join(&config.report.junit), &junit::of_error(&config.name, seconds, &format!("{error:#}")))?;
            Err(error)
        }
    }
}

/// As it is named here, where cargo runs tests of a package in its own folder, or from the root of the repository.
fn located(path: &Path) -> PathBuf {
    if path.is_file() { path.to_owned() } else { root().join(path) }
}

#[expect(clippy::print_stdout, reason = "the command's result")]
fn judge(config: &Config, outcome: &Outcome, seconds: f64) -> Result<ExitCode> {
    let checks = checks(&outcome.measured, &config.bounds);
    let (junit, json) = (root().join(&config.report.junit), root().join(&config.report.json));
    write(&junit, &junit::of_checks(&config.name, seconds, &checks))?;
    let report = json!({"name": config.name, "seconds": seconds, "checks": checks, "run": outcome});
    write(&json, &(serde_json::to_string_pretty(&report)? + "\n"))?;
    print!("{}", table(&checks));
    println!("the node's end: {}", outcome.exit);
    println!("written: {}, {}", junit.display(), json.display());
    for problem in &outcome.unreadable {
        println!("a message could not be read: {problem}");
    }
    let failed = checks.iter().filter(|check| check.verdict == Verdict::Failed).count();
    println!("hil: {failed} of {} checks failed", checks.len());
    Ok(if failed == 0 && outcome.unreadable.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    std::fs::write(path, text).with_context(|| path.display().to_string())
}
