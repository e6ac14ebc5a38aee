//! `cargo xtask`: the set-up and the checks that need only cargo, so that a fresh clone has one way to everything.
//!
//! Leaves out what the product does: that is in `node` and `training`.

mod advisories;
mod breaking;
mod cuda;
mod demo;
mod dist;
mod fuzz;
mod install;
mod package;
mod ros2;
mod system;
mod test;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Set-up, checks and the demonstration of EgoReasoner.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Play the bundled sequence to a separately started node over the real wire, and compare with the ground truth.
    Demo(demo::Args),
    /// Format, lints, tests, advisories, training by several ranks, and the round trips over ROS 2 with both transports.
    Test(test::Args),
    /// Feed the decoders of camera topics and the parser of answers with inputs that coverage guides.
    Fuzz(fuzz::Args),
    /// Kill runs, fill disks and damage files, and see that nothing is lost or believed.
    Break(breaking::Args),
    /// Run a command in the sourced ROS 2, or else in a jazzy made of Python wheels under target/.
    Ros2(ros2::Args),
    /// Run a command with a CUDA toolkit: the machine's, or one assembled from Python wheels under target/.
    Cuda(cuda::Args),
    /// Write the ROS 2 package `egoreasoner` as colcon would install it, without colcon.
    Install(install::Args),
    /// Pack the node and the trainer with all that they need, for machines without cargo.
    Dist(dist::Args),
}

fn main() -> ExitCode {
    let result: Result<ExitCode> = match Cli::parse().verb {
        Verb::Demo(args) => demo::run(&args),
        Verb::Test(args) => test::run(&args),
        Verb::Fuzz(args) => fuzz::run(&args),
        Verb::Break(args) => breaking::run(&args),
        Verb::Ros2(args) => ros2::run(&args),
        Verb::Cuda(args) => cuda::run(&args),
        Verb::Install(args) => install::run(&args),
        Verb::Dist(args) => dist::run(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
