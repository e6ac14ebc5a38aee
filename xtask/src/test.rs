//! `cargo xtask test`: everything that must hold, in one command, with a table at the end that leaves no step unsaid.
//! One profile and one target directory for all of it, since most of the time goes into building.

use std::collections::BTreeMap;
use std::fmt;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Error, Result};

use crate::ros2::{self, Env};
use crate::{advisories, breaking, dist, fuzz, install, package, system, workspace};

/// How long each fuzz target runs here: enough to show that it runs, and that nothing is wrong close to its seeds.
const FUZZ_SECONDS: u64 = 10;

/// How names of tests begin that need the shared data, and the reason that they give.
const SHARED: &str = "shared_";
const NEEDS_SHARED: &str = "needs ../shared/data";
/// The same of those that need the program ffmpeg.
const FFMPEG: &str = "ffmpeg_";
const NEEDS_FFMPEG: &str = "needs ffmpeg";

/// Options of the tests.
#[derive(clap::Args)]
pub struct Args {
    /// Leave out the round trips over ROS 2 (they build the node's second transport and need ROS 2 or Python wheels).
    #[arg(long)]
    no_ros: bool,
    /// Do nothing else: what one wants again and again while working on a transport.
    #[arg(long, conflicts_with = "no_ros")]
    only_ros: bool,
}

enum Outcome {
    Passed,
    Failed(Error),
    Skipped(String),
}

struct Step {
    name: &'static str,
    outcome: Outcome,
    took: Duration,
}

/// Runs every step, also after one that failed, and says how each went.
///
/// # Errors
///
/// Never: a failed step is part of the table and of the exit status.
pub fn run(args: &Args) -> Result<ExitCode> {
    let mut steps = Steps::default();
    if !args.only_ros {
        steps.cargo("format", &["fmt", "--all", "--check"]);
        steps.cargo("lints", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]);
        steps.tests();
        steps.shared_data();
        steps.films();
        steps.software_in_the_loop();
        steps.broken();
        steps.advisories();
        steps.package();
        steps.archive();
        steps.fuzz();
        steps.mpi();
    }
    if args.no_ros {
        for name in ["node with r2r", "lints of r2r", "round trip ros2-client", "round trip r2r", "ros2 command line"] {
            steps.skip(name, "--no-ros");
        }
    } else {
        steps.ros();
    }
    Ok(steps.report())
}

#[derive(Default)]
struct Steps {
    done: Vec<Step>,
    /// Tests that were not run, by the reason that they give.
    ignored: BTreeMap<String, usize>,
}

impl Steps {
    fn step<T>(&mut self, name: &'static str, work: impl FnOnce() -> Result<T>) -> Option<T> {
        eprintln!("\n=== {name}");
        let begin = Instant::now();
        let (outcome, value) = match work() {
            Ok(value) => (Outcome::Passed, Some(value)),
            Err(error) => {
                eprintln!("xtask: {error:#}");
                (Outcome::Failed(error), None)
            }
        };
        self.done.push(Step { name, outcome, took: begin.elapsed() });
        value
    }

    fn skip(&mut self, name: &'static str, why: &str) {
        self.done.push(Step { name, outcome: Outcome::Skipped(why.to_owned()), took: Duration::ZERO });
    }

    fn cargo(&mut self, name: &'static str, args: &[&str]) {
        self.step(name, || workspace::run(workspace::cargo().args(args)));
    }

    /// All tests; those that are not run are counted by their reason.
    fn tests(&mut self) {
        let mut ignored: BTreeMap<String, usize> = BTreeMap::new();
        self.step("tests", || {
            let mut cargo = workspace::cargo();
            cargo.args(["test", "--workspace", "--no-fail-fast"]);
            workspace::run_and_read(&mut cargo, |line| {
                if let Some(why) = ignored_because(line).or_else(|| breaking::not_run(line)) {
                    *ignored.entry(why.to_owned()).or_default() += 1;
                }
            })
        });
        self.ignored = ignored;
    }

    /// The short form of `cargo xtask break`, with the programs that the tests have built.
    fn broken(&mut self) {
        let mut left_out = Vec::new();
        self.step("kills, full disks, damage", || {
            breaking::short(|line| left_out.extend(breaking::not_run(line).map(str::to_owned)))
        });
        self.ignored.remove(breaking::NEEDS_PROGRAMS);
        for why in left_out {
            *self.ignored.entry(why).or_default() += 1;
        }
    }

    /// What is known against our dependencies.
    fn advisories(&mut self) {
        const NAME: &str = "advisories";
        match advisories::require() {
            Ok(program) => {
                self.step(NAME, || advisories::check(&program));
            }
            Err(error) => self.skip(NAME, &format!("{error:#}")),
        }
    }

    /// Tests of films that may not be in the repository, where they are beside it.
    fn shared_data(&mut self) {
        const NAME: &str = "tests on shared data";
        if workspace::root().join("../shared/data").is_dir() {
            self.cargo(NAME, &["test", "--workspace", "--no-fail-fast", "--", "--ignored", SHARED]);
            self.ignored.remove(NEEDS_SHARED);
        } else {
            self.skip(NAME, "there is no ../shared/data");
        }
    }

    /// Films through ffmpeg itself, where there is one.
    fn films(&mut self) {
        const NAME: &str = "films through ffmpeg";
        if Command::new("ffmpeg").arg("-version").output().is_ok_and(|output| output.status.success()) {
            self.cargo(NAME, &["test", "--workspace", "--test", "film", "--", "--ignored", FFMPEG]);
            self.ignored.remove(NEEDS_FFMPEG);
        } else {
            self.skip(NAME, "there is no ffmpeg (on Debian: apt-get install ffmpeg)");
        }
    }

    /// The bench of tests/sil.toml around the node that the tests have built. Selected from the whole workspace, so that
    /// their dependencies serve again.
    fn software_in_the_loop(&mut self) {
        self.step("software in the loop", || {
            let mut cargo = workspace::cargo();
            cargo.args(["test", "--workspace", "--test", "hil"]);
            workspace::run(cargo.env("EGOREASONER_NODE", workspace::target().join("debug/node")))
        });
    }

    /// The files of the ROS 2 package that no test in Rust can read.
    fn package(&mut self) {
        const NAME: &str = "files of the ROS package";
        match package::require_python() {
            Ok(()) => {
                self.step(NAME, package::check);
            }
            Err(error) => self.skip(NAME, &format!("{error:#}")),
        }
    }

    /// What people without cargo get, from the programs that the tests have built.
    fn archive(&mut self) {
        self.step("archive without cargo", dist::check_tested);
    }

    /// Every fuzz target.
    fn fuzz(&mut self) {
        const NAME: &str = "fuzz targets";
        match fuzz::require_compiler() {
            Ok(()) => {
                self.step(NAME, || fuzz::all(FUZZ_SECONDS));
            }
            Err(error) => self.skip(NAME, &format!("{error:#}")),
        }
    }

    /// Training by several ranks. Selected from the whole workspace, so that the dependencies of the tests serve again.
    fn mpi(&mut self) {
        const LINTS: &str = "lints of mpi";
        const RANKS: &str = "ranks over MPI";
        match system::require_open_mpi() {
            Ok(()) => {
                let feature = ["--workspace", "--features", "training/mpi"];
                self.cargo(LINTS, &[&["clippy"][..], &feature, &["--lib", "--bins", "--", "-D", "warnings"]].concat());
                self.cargo(RANKS, &[&["test"][..], &feature, &["--test", "mpi"]].concat());
            }
            Err(error) => {
                for name in [LINTS, RANKS] {
                    self.skip(name, &format!("{error:#}"));
                }
            }
        }
    }

    fn ros(&mut self) {
        let built = self.step("node with r2r", || {
            let env = ros2::environment()?;
            eprintln!("xtask: {env}");
            let node = ros2::build_node(&env, false)?;
            Ok((env, node))
        });
        match &built {
            Some((env, _)) => {
                self.step("lints of r2r", || {
                    let mut cargo = workspace::cargo();
                    env.apply(&mut cargo);
                    cargo.args(["clippy", "-p", "node", "-p", "tests", "--features", "ros", "--all-targets"]);
                    cargo.args(["--", "-D", "warnings"]);
                    workspace::run(&mut cargo)
                });
            }
            None => self.skip("lints of r2r", "the node with r2r was not built"),
        }
        const TOOL: &str = "ros2 command line";
        let suites = [("round trip ros2-client", "ros2_client_"), ("round trip r2r", "r2r_")];
        for (name, filter) in suites {
            match &built {
                Some((env, node)) => {
                    let files = ["ros_roundtrip", "ros_lifecycle", "ros_faults"];
                    self.step(name, || workspace::run(ros_tests(env, &files, filter).env("EGOREASONER_NODE", node)));
                }
                None => self.skip(name, "the node with r2r was not built"),
            }
        }
        match &built {
            Some((env, node)) if workspace::output(env.command("ros2").arg("--help")).is_ok() => {
                self.step(TOOL, || {
                    let prefix = workspace::target().join("ros2/install");
                    install::install(node, &prefix)?;
                    let mut cargo = ros_tests(env, &["ros_tool"], "");
                    workspace::run(cargo.env("EGOREASONER_NODE", node).env("EGOREASONER_PREFIX", prefix))
                });
            }
            Some((env, _)) => self.skip(TOOL, &format!("{env} has no `ros2`: source one that has it")),
            None => self.skip(TOOL, "the node with r2r was not built"),
        }
    }

    fn report(&self) -> ExitCode {
        eprintln!();
        for step in &self.done {
            eprintln!("{step}");
        }
        for (why, count) in &self.ignored {
            eprintln!("skipped  {:24}            {why}", format!("{count} of the tests"));
        }
        let failed = self.done.iter().any(|step| matches!(step.outcome, Outcome::Failed(_)));
        if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

/// Why a test was not run, where a line of the tests' harness says so.
fn ignored_because(line: &str) -> Option<&str> {
    let (_, outcome) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let why = outcome.strip_prefix("ignored")?;
    Some(why.strip_prefix(", ").unwrap_or("no reason given"))
}

/// Tests over the wire whose names begin with `filter`, told where the counterparts' Python is.
fn ros_tests(env: &Env, files: &[&str], filter: &str) -> Command {
    let mut cargo = workspace::cargo();
    env.apply(&mut cargo);
    cargo.env("EGOREASONER_PYTHON", env.python().get_program());
    // Selected from the whole workspace, so that what the tests stand on serves again.
    cargo.args(["test", "--workspace", "--features", "tests/ros"]);
    files.iter().for_each(|file| {
        cargo.args(["--test", file]);
    });
    cargo.args(["--", "--nocapture", "--test-threads", "1", filter]);
    cargo
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let took = self.took.as_secs_f64();
        match &self.outcome {
            Outcome::Passed => write!(f, "passed   {:24} {took:7.1} s", self.name),
            Outcome::Failed(error) => write!(f, "FAILED   {:24} {took:7.1} s  {error:#}", self.name),
            Outcome::Skipped(why) => write!(f, "skipped  {:24}            {why}", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ignored_because;

    #[test]
    fn a_test_that_was_not_run_is_seen_with_its_reason() {
        for (line, why) in [
            ("test a::b ... ignored, needs a GPU", Some("needs a GPU")),
            ("test a::b ... ignored", Some("no reason given")),
            ("test a::b ... ok", None),
            ("test result: ok. 3 passed; 0 failed; 1 ignored", None),
            ("a word that is ... ignored", None),
        ] {
            assert_eq!(ignored_because(line), why, "{line}");
        }
    }
}
