//! What an archive is made for: the machine's own target, or one that a cross compiler of Debian builds for. Those are
//! run by qemu's user mode.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{system, workspace};

/// Targets that are not the machine's own.
static OTHERS: [Other; 2] = [
    Other {
        triple: "x86_64-unknown-linux-gnu",
        tools: "x86_64-linux-gnu",
        packages: ["gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross"],
        emulator: "qemu-x86_64",
    },
    Other {
        triple: "aarch64-unknown-linux-gnu",
        tools: "aarch64-linux-gnu",
        packages: ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
        emulator: "qemu-aarch64",
    },
];

struct Other {
    triple: &'static str,
    /// How names of its compiler and binutils begin, and the folder of its libraries under /usr.
    tools: &'static str,
    /// Debian's packages of them.
    packages: [&'static str; 2],
    /// Runs its programs here.
    emulator: &'static str,
}

/// The target of an archive.
pub struct Target {
    triple: String,
    /// `None` where it is the machine's own.
    other: Option<&'static Other>,
}

impl Target {
    /// The target that was asked for, else the machine's own.
    ///
    /// # Errors
    ///
    /// One that nothing is known of, and a rustc that does not run.
    pub fn new(asked: Option<&str>) -> Result<Self> {
        let host = host()?;
        match asked.filter(|triple| *triple != host) {
            None => Ok(Self { triple: host, other: None }),
            Some(triple) => Ok(Self { triple: triple.to_owned(), other: Some(named(triple)?) }),
        }
    }

    /// As rustc calls it.
    pub fn triple(&self) -> &str {
        &self.triple
    }

    /// Makes sure of what it is built with.
    ///
    /// # Errors
    ///
    /// Names the standard library or the compiler that is missing.
    pub fn require_compilers(&self) -> Result<()> {
        let Some(other) = self.other else { return Ok(()) };
        let libraries = workspace::output(rustc().args(["--print", "target-libdir", "--target", &self.triple]))?;
        if !Path::new(&libraries).is_dir() {
            bail!("Rust has no standard library for {0} here: run `rustup target add {0}`", self.triple);
        }
        if workspace::output(Command::new(other.compiler()).arg("--version")).is_ok() {
            return Ok(());
        }
        system::install(&other.packages, &format!("building for {} needs {}", self.triple, other.compiler()))
    }

    /// Makes sure of what runs its programs here.
    ///
    /// # Errors
    ///
    /// Where that is absent and cannot be installed.
    pub fn require_emulator(&self) -> Result<()> {
        let Some(other) = self.other else { return Ok(()) };
        if workspace::output(Command::new(other.emulator).arg("--version")).is_ok() {
            return Ok(());
        }
        system::install(&["qemu-user"], &format!("running programs for {} needs {}", self.triple, other.emulator))
    }

    /// Has `cargo` build for it; a compiler that the environment names stays.
    pub fn apply(&self, cargo: &mut Command) {
        let Some(other) = self.other else { return };
        let name = self.triple.replace('-', "_");
        for variable in [format!("CARGO_TARGET_{}_LINKER", name.to_uppercase()), format!("CC_{name}")] {
            if std::env::var_os(&variable).is_none() {
                cargo.env(variable, other.compiler());
            }
        }
        cargo.args(["--target", &self.triple]);
    }

    /// Where cargo puts its programs in the release profile.
    pub fn built(&self) -> PathBuf {
        let target = workspace::target();
        let folder = if self.other.is_some() { target.join(&self.triple) } else { target };
        folder.join("release")
    }

    /// Takes debug information out of files.
    pub fn strip(&self) -> Command {
        match self.other {
            Some(other) => Command::new(format!("{}-strip", other.tools)),
            None => Command::new("strip"),
        }
    }

    /// A command that runs one of its programs here.
    pub fn command(&self, program: &Path) -> Command {
        let Some(other) = self.other else { return Command::new(program) };
        let mut command = Command::new(other.emulator);
        command.arg("-L").arg(Path::new("/usr").join(other.tools)).arg(program);
        command
    }
}

impl Other {
    fn compiler(&self) -> String {
        format!("{}-gcc", self.tools)
    }
}

/// The licences of the standard library, which is linked into every program; rustup's toolchains bring the page, those of
/// distributions need not.
///
/// # Errors
///
/// A rustc that does not run.
pub fn standard_library_notice() -> Result<Option<PathBuf>> {
    let sysroot = PathBuf::from(workspace::output(rustc().args(["--print", "sysroot"]))?);
    Ok(Some(sysroot.join("share/doc/rust/COPYRIGHT-library.html")).filter(|page| page.is_file()))
}

fn named(triple: &str) -> Result<&'static Other> {
    let all: Vec<&str> = OTHERS.iter().map(|other| other.triple).collect();
    let known = OTHERS.iter().find(|other| other.triple == triple);
    known.with_context(|| format!("--target: expected one of {}, got {triple}", all.join(", ")))
}

fn host() -> Result<String> {
    let version = workspace::output(rustc().arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

/// The rustc of the workspace's toolchain.
fn rustc() -> Command {
    let mut command = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    command.current_dir(workspace::root());
    command
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn a_target_that_is_not_known_is_refused_with_those_that_are() {
        let why = Target::new(Some("armv7-unknown-linux-gnueabihf")).err().expect("no such target").to_string();
        let known = "x86_64-unknown-linux-gnu, aarch64-unknown-linux-gnu";
        assert_eq!(why, format!("--target: expected one of {known}, got armv7-unknown-linux-gnueabihf"));
    }

    #[test]
    fn a_foreign_target_is_built_by_its_own_compiler_and_run_by_its_emulator() {
        let triple = "aarch64-unknown-linux-gnu";
        let target = Target { triple: triple.to_owned(), other: Some(named(triple).expect("known")) };
        let mut cargo = Command::new("cargo");
        target.apply(&mut cargo);
        let set = |name: &str| {
            std::env::var_os(name).is_some()
                || cargo.get_envs().any(|set| set == (OsStr::new(name), Some(OsStr::new("aarch64-linux-gnu-gcc"))))
        };
        assert!(set("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER") && set("CC_aarch64_unknown_linux_gnu"));
        assert_eq!(workspace::shown(&cargo), format!("cargo --target {triple}"));
        assert!(target.built().ends_with(format!("{triple}/release")));
        assert_eq!(
            workspace::shown(&target.command(Path::new("bin/node"))),
            "qemu-aarch64 -L /usr/aarch64-linux-gnu bin/node"
        );
        assert_eq!(target.strip().get_program(), "aarch64-linux-gnu-strip");
    }

    #[test]
    fn the_machines_own_target_is_built_and_run_plainly() {
        let own = Target::new(None).expect("rustc");
        let again = Target::new(Some(own.triple())).expect("rustc");
        for target in [own, again] {
            let mut cargo = Command::new("cargo");
            target.apply(&mut cargo);
            assert_eq!(workspace::shown(&cargo), "cargo");
            assert_eq!(workspace::shown(&target.command(Path::new("bin/node"))), "node");
            target.require_compilers().expect("nothing beside what built this test");
        }
    }
}
