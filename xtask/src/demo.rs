//! `cargo xtask demo`: the main job from end to end, for somebody who has only just cloned the repository.

use std::process::ExitCode;

use anyhow::{Result, bail};

/// Options of the demonstration.
#[derive(clap::Args)]
pub struct Args {}

/// Runs the demonstration.
pub fn run(_args: &Args) -> Result<ExitCode> {
    bail!("the demonstration is not written yet")
}
