//! `cargo xtask break`: programs that are killed, disks that are full, files that are damaged (`tests/tests/broken`), for as
//! long as one likes. Nothing leaves the machine: where a user may have one, all runs in a network namespace that has a
//! loopback and nothing else.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::workspace;

/// Why `cargo test` alone leaves some of them out.
pub const NEEDS_PROGRAMS: &str = "needs the programs of cargo xtask";
/// How one that cannot be run on this machine says so.
const NOT_RUN: &str = "not run here: ";
/// Runs a command with a loopback and no other network.
const ALONE: [&str; 8] =
    ["--user", "--map-root-user", "--net", "--", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"];

/// Options of `cargo xtask break`.
#[derive(clap::Args)]
pub struct Args {
    /// Time for each of the tests that go through rounds; two go side by side on two cores
    #[arg(long, default_value_t = 300)]
    seconds: u64,
}

/// The long form.
///
/// # Errors
///
/// What cannot be built, and a test that fails.
pub fn run(args: &Args) -> Result<ExitCode> {
    build()?;
    let cargo = tests("--include-ignored");
    let mut command = match workspace::output(Command::new("unshare").args(ALONE).arg("true")) {
        Ok(_) => alone(&cargo),
        Err(error) => {
            eprintln!("xtask: no network namespace of its own, so in this machine's network: {error:#}");
            cargo
        }
    };
    programs(&mut command).env("EGOREASONER_BREAK_SECONDS", args.seconds.to_string());
    let mut left_out = Vec::new();
    let result = workspace::run_and_read(&mut command, |line| left_out.extend(not_run(line).map(str::to_owned)));
    for why in left_out {
        eprintln!("skipped  {why}");
    }
    result.map(|()| ExitCode::SUCCESS)
}

/// The short form of those that `cargo test` has left out, with the programs that it has built; `each` gets every line.
///
/// # Errors
///
/// A test that fails.
pub fn short(each: impl FnMut(&str)) -> Result<()> {
    workspace::run_and_read(programs(&mut tests("--ignored")), each)
}

/// The test that a line says was not run on this machine, and why.
pub fn not_run(line: &str) -> Option<&str> {
    line.split_once(NOT_RUN).map(|(_, why)| why)
}

/// Selected from the whole workspace, so that the dependencies of the other tests serve again.
fn tests(which: &str) -> Command {
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--workspace", "--test", "broken", "--", which]);
    cargo
}

/// Both programs come with tests that start them.
fn build() -> Result<()> {
    let tests = ["--test", "broken", "--test", "recording_cli", "--test", "chains"];
    workspace::run(workspace::cargo().args(["test", "--workspace", "--no-run"]).args(tests))
}

fn programs(command: &mut Command) -> &mut Command {
    let built = workspace::target().join("debug");
    command.env("EGOREASONER_NODE", built.join("node")).env("EGOREASONER_TRAINING", built.join("training"))
}

fn alone(command: &Command) -> Command {
    let mut alone = Command::new("unshare");
    alone.args(ALONE).arg(command.get_program()).args(command.get_args()).current_dir(workspace::root());
    alone
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_this_machine_cannot_run_is_seen_with_its_reason() {
        let line = "not run here: full_disks::a: no mount namespace (unshare: Operation not permitted)";
        assert_eq!(not_run(line), Some("full_disks::a: no mount namespace (unshare: Operation not permitted)"));
        assert_eq!(not_run("test full_disks::a ... ok"), None);
    }

    #[test]
    fn the_tests_give_the_reason_and_the_words_that_are_looked_for() {
        let folder = workspace::root().join("tests/tests/broken");
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect(name);
        for name in ["kills.rs", "full_disks.rs", "damaged_chains.rs"] {
            assert!(read(name).contains(&format!("#[ignore = \"{NEEDS_PROGRAMS}\"]")), "{name}");
        }
        assert!(read("rounds.rs").contains(NOT_RUN));
    }
}
