//! `cargo xtask ros2` and the ROS 2 that the other verbs use: the sourced one where there is one, else a jazzy made of
//! Python wheels, so that a machine with nothing but cargo and Python can test against the real thing.

mod wheels;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::{system, workspace};

/// Message packages that r2r makes bindings for: ours, and what they and rcl contain. Others only cost build time.
const MESSAGE_PACKAGES: &str = "std_msgs;builtin_interfaces;geometry_msgs;sensor_msgs;nav_msgs;diagnostic_msgs;\
     rcl_interfaces;unique_identifier_msgs;action_msgs;rosgraph_msgs;service_msgs;type_description_interfaces;\
     lifecycle_msgs;std_srvs;tf2_msgs";

/// What a ROS 2 must have for the node and for its counterpart in the tests.
const NEEDED: [&str; 7] =
    ["rclpy", "sensor_msgs", "nav_msgs", "geometry_msgs", "diagnostic_msgs", "lifecycle_msgs", "std_srvs"];

/// Options of `cargo xtask ros2`.
#[derive(clap::Args)]
pub struct Args {
    /// The command, for example `ros2 topic list` or `python3 tests/ros/counterpart.py --help`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<OsString>,
}

/// Runs the command and exits with its status.
///
/// # Errors
///
/// Where there is no ROS 2 to be had or the command does not start.
pub fn run(args: &Args) -> Result<ExitCode> {
    let env = environment()?;
    let (program, rest) = args.command.split_first().context("no command given")?;
    let status = env.command(program).args(rest).status();
    let status = match status {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && program == "ros2" => {
            bail!("{env} has no `ros2` command line: it is not on the package index; source a ROS 2 that has it")
        }
        status => status.with_context(|| format!("cannot start {}", program.to_string_lossy()))?,
    };
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// A ROS 2 that commands can be run in.
#[derive(Debug, Clone)]
pub struct Env {
    distro: String,
    /// The prefix of the wheels; `None` where ROS 2 was sourced by the user.
    wheels: Option<PathBuf>,
    vars: Vec<(&'static str, OsString)>,
}

impl std::fmt::Display for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let origin = if self.wheels.is_some() { "from wheels" } else { "sourced" };
        write!(f, "ROS 2 {} ({origin})", self.distro)
    }
}

impl Env {
    /// A command in this ROS 2.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        self.apply(&mut command);
        command
    }

    /// The Python that has rclpy.
    pub fn python(&self) -> Command {
        match &self.wheels {
            Some(prefix) => self.command(prefix.join("bin/python")),
            None => self.command("python3"),
        }
    }

    /// Sets this ROS 2's variables on `command`.
    pub fn apply(&self, command: &mut Command) {
        command.envs(self.vars.iter().map(|(name, value)| (name, value)));
    }
}

/// The sourced ROS 2 where it is complete, else the wheels, which are installed on first use.
///
/// # Errors
///
/// Where no Python that has wheels is found, or they cannot be installed.
pub fn environment() -> Result<Env> {
    let prefix = wheels::prefix();
    let sourced = std::env::var_os("AMENT_PREFIX_PATH").unwrap_or_default();
    let prefixes: Vec<PathBuf> = std::env::split_paths(&sourced).filter(|path| !path.as_os_str().is_empty()).collect();
    // Inside `cargo xtask ros2 -- ...` the wheels are what is sourced: they still need the wheels' treatment.
    if let (Ok(distro), false, false) = (std::env::var("ROS_DISTRO"), prefixes.is_empty(), prefixes.contains(&prefix)) {
        let missing = missing_packages(&prefixes);
        if missing.is_empty() {
            return Ok(Env { distro, wheels: None, vars: vec![("IDL_PACKAGE_FILTER", MESSAGE_PACKAGES.into())] });
        }
        eprintln!("xtask: the sourced ROS 2 {distro} lacks {}; using wheels", missing.join(", "));
    }
    let vars = wheels::install(&prefix)?;
    Ok(Env { distro: wheels::DISTRO.to_owned(), wheels: Some(prefix), vars })
}

fn missing_packages(prefixes: &[PathBuf]) -> Vec<&'static str> {
    let has = |package: &str| {
        let marker = Path::new("share/ament_index/resource_index/packages").join(package);
        prefixes.iter().any(|prefix| prefix.join(&marker).exists())
    };
    NEEDED.into_iter().filter(|package| !has(package)).collect()
}

/// Builds the node with both transports, and returns a copy of it that later builds without ROS 2 leave alone.
///
/// # Errors
///
/// Where the build fails, or needs system packages that cannot be installed.
pub fn build_node(env: &Env, release: bool) -> Result<PathBuf> {
    system::require_libclang()?;
    let mut cargo = workspace::cargo();
    env.apply(&mut cargo);
    cargo.args(["rustc", "--package", "node", "--bin", "node", "--features", "ros"]);
    if release {
        cargo.arg("--release");
    }
    if let Some(prefix) = &env.wheels {
        cargo.env("AMENT_PREFIX_PATH", prefix); // without overlays: r2r is built anew whenever this changes
        cargo.arg("--").args(wheels::link_args(prefix)?);
    }
    workspace::run(&mut cargo)?;
    let profile = if release { "release" } else { "debug" };
    let built = workspace::target().join(profile).join("node");
    let folder = workspace::target().join("ros2/bin").join(profile);
    std::fs::create_dir_all(&folder)?;
    let copy = folder.join("egoreasoner_node");
    // Copied beside and renamed: a running node keeps its file, and nobody sees half of one.
    let fresh = folder.join(format!(".egoreasoner_node.{}", std::process::id()));
    std::fs::copy(&built, &fresh).with_context(|| format!("cannot copy {}", built.display()))?;
    std::fs::rename(&fresh, &copy)?;
    Ok(copy)
}
