//! `cargo xtask fuzz`: libFuzzer on what the node reads from outside (`tests/fuzz`), guided by coverage, with the pinned
//! stable compiler.
//!
//! The workspace's crates are built with counters, by a wrapper around rustc, and what they stand on is taken as `cargo test`
//! has built it. So coverage ends where others' crates begin: the JPEG and PNG decoders are seen from outside. Whoever has
//! a nightly compiler and cargo-fuzz sees into them too: `cargo fuzz run --fuzz-dir tests/fuzz --features libfuzzer TARGET`.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// Longest input, bytes: more than a frame of the seeds' size needs, little enough for thousands a second.
const MAX_LENGTH: u32 = 65536;
/// An input that takes longer, or a target that grows larger, has failed; each target sets closer bounds of its own.
const TIMEOUT_SECONDS: u32 = 10;
const MEMORY_MIB: u32 = 1024;

/// Options of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub struct Args {
    /// Names of targets, as under tests/fuzz/targets [default: all, one after the other]
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// Time for each
    #[arg(long, default_value_t = 3600)]
    seconds: u64,
}

/// Fuzzes the targets that were named.
///
/// # Errors
///
/// A target that is not known or cannot be built, and an input that makes one fail.
pub fn run(args: &Args) -> Result<ExitCode> {
    require_compiler()?;
    let known = targets()?;
    if let Some(unknown) = args.targets.iter().find(|name| !known.contains(name)) {
        bail!("no fuzz target {unknown}; expected one of {}", known.join(", "));
    }
    campaign(if args.targets.is_empty() { &known } else { &args.targets }, args.seconds)?;
    Ok(ExitCode::SUCCESS)
}

/// Fuzzes every target.
///
/// # Errors
///
/// A target that cannot be built, and an input that makes one fail.
pub fn all(seconds: u64) -> Result<()> {
    campaign(&targets()?, seconds)
}

/// Makes sure of a C++ compiler, which libFuzzer is built with.
///
/// # Errors
///
/// Where there is none.
pub fn require_compiler() -> Result<()> {
    let compiler = std::env::var_os("CXX").unwrap_or_else(|| "c++".into());
    workspace::output(Command::new(compiler).arg("--version")).context("libFuzzer needs a C++ compiler")?;
    Ok(())
}

fn campaign(targets: &[String], seconds: u64) -> Result<()> {
    let fuzz = workspace::root().join("tests/fuzz");
    let mut cargo = workspace::cargo();
    // Selected from the whole workspace, so that the dependencies of the tests serve again.
    cargo
        .args(["build", "--workspace", "--features", "fuzz/libfuzzer"])
        .env("RUSTC_WORKSPACE_WRAPPER", fuzz.join("rustc.sh"));
    for target in targets {
        cargo.args(["--bin", target]);
    }
    workspace::run(&mut cargo)?;
    for target in targets {
        let folder = workspace::target().join("fuzz").join(target);
        let corpus = folder.join("corpus");
        std::fs::create_dir_all(&corpus).with_context(|| corpus.display().to_string())?;
        let program = workspace::target().join("debug").join(target);
        let mut fuzzer = Command::new(&program);
        // What is new goes into the first folder.
        fuzzer.arg(&corpus).arg(fuzz.join("seeds").join(target));
        fuzzer.args([
            format!("-artifact_prefix={}/", folder.display()),
            format!("-max_total_time={seconds}"),
            format!("-max_len={MAX_LENGTH}"),
            format!("-timeout={TIMEOUT_SECONDS}"),
            format!("-rss_limit_mb={MEMORY_MIB}"),
            "-verbosity=0".to_owned(),
            "-print_final_stats=1".to_owned(),
        ]);
        let failed = || format!("the input is in {}; again: {} FILE", folder.display(), program.display());
        workspace::run(&mut fuzzer).with_context(failed)?;
    }
    Ok(())
}

/// The names of all targets.
fn targets() -> Result<Vec<String>> {
    let folder = workspace::root().join("tests/fuzz/targets");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let name = entry?.file_name();
        if let Some(stem) = Path::new(&name).file_stem() {
            names.push(stem.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_a_program_with_seeds() {
        let fuzz = workspace::root().join("tests/fuzz");
        let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).expect("a manifest");
        let targets = targets().expect("a folder of targets");
        assert!(!targets.is_empty());
        for name in targets {
            assert!(manifest.contains(&format!("name = \"{name}\"\npath = \"targets/{name}.rs\"\n")), "{name}");
            assert!(fuzz.join("seeds").join(&name).is_dir(), "{name}");
        }
    }
}
