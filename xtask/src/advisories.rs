//! Advisories on what we stand on, and crates that were yanked: `cargo deny check advisories`, with deny.toml. They come from
//! a database on the network; without it there is nothing to check, and that is no failure.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// Where cargo-deny reads advisories.
const DATABASE: &str = "https://github.com/rustsec/advisory-db";
/// Seconds that it has to answer.
const PATIENCE: &str = "10";
/// Of cargo-deny, where the machine has none and one is built under target/, once.
const VERSION: &str = "0.20.2";

/// Makes sure of the database and of cargo-deny, which is built only where the database answers.
///
/// # Errors
///
/// Says which of them cannot be had.
pub fn require() -> Result<PathBuf> {
    reach(DATABASE)?;
    let home = workspace::target().join("cargo-deny");
    let own = home.join("bin/cargo-deny");
    let is_there = |program: &Path| workspace::output(Command::new(program).arg("--version")).ok();
    let machine = PathBuf::from("cargo-deny");
    if is_there(&machine).is_some() {
        return Ok(machine);
    }
    if is_there(&own).is_none_or(|version| !version.ends_with(VERSION)) {
        let mut cargo = workspace::cargo();
        cargo.args(["install", "--locked", "--version", VERSION, "--root"]).arg(&home).arg("cargo-deny");
        workspace::run(&mut cargo).context("cargo-deny could not be built")?;
    }
    Ok(own)
}

/// Holds Cargo.lock against the advisories.
///
/// # Errors
///
/// A crate that deny.toml does not accept.
pub fn check(program: &Path) -> Result<()> {
    workspace::run(Command::new(program).args(["check", "advisories"]).current_dir(workspace::root()))
}

/// Whether a repository answers, within the time it has.
fn reach(database: &str) -> Result<()> {
    let mut git = Command::new("timeout");
    git.args([PATIENCE, "git", "ls-remote", "--exit-code", database, "HEAD"]);
    git.env("GIT_TERMINAL_PROMPT", "0").stdin(Stdio::null());
    if let Err(error) = workspace::output(&mut git) {
        eprintln!("xtask: {error:#}");
        bail!("the advisory database {database} cannot be reached");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::reach;

    #[test]
    fn a_database_that_does_not_answer_is_a_reason_in_one_line() {
        // Nobody listens at port 1 of this machine.
        for database in ["https://127.0.0.1:1/advisory-db", "file:///nowhere/advisory-db"] {
            let why = reach(database).unwrap_err().to_string();
            assert_eq!(why, format!("the advisory database {database} cannot be reached"));
        }
    }
}
