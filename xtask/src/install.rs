//! `cargo xtask install`: the install space of the ROS 2 package `egoreasoner`, the same files at the same places as
//! `launch/CMakeLists.txt` puts them, for people without colcon.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::{ros2, workspace};

/// The ROS 2 package.
pub const PACKAGE: &str = "egoreasoner";

/// Folders of the repository, and their places under share/egoreasoner.
pub const SHARED: [(&str, &str); 9] = [
    ("launch/launch", "launch"),
    ("launch/rviz", "rviz"),
    ("launch/foxglove", "foxglove"),
    ("launch/robot_localization", "robot_localization"),
    ("launch/nav2", "nav2"),
    ("launch/security", "security"),
    ("launch/systemd", "systemd"),
    ("config", "config"),
    (WEIGHTS, WEIGHTS),
];

/// The weights that are installed, where the config looks for them.
const WEIGHTS: &str = "model/weights/nano";

/// Options of the installation.
#[derive(clap::Args)]
pub struct Args {
    /// Folder to install into; made if it is absent.
    #[arg(long)]
    prefix: PathBuf,
    /// Install the unoptimized node, which builds faster.
    #[arg(long)]
    debug: bool,
    /// Install this node in place of building one, for example one with CUDA.
    #[arg(long, value_name = "FILE", conflicts_with = "debug")]
    node: Option<PathBuf>,
}

/// Builds the node against ROS 2, unless there is one, and installs it.
///
/// # Errors
///
/// Where the node cannot be built or the prefix cannot be written.
pub fn run(args: &Args) -> Result<ExitCode> {
    require_weights()?; // before the minutes that the build takes
    let node = match &args.node {
        Some(node) => node.clone(),
        None => ros2::build_node(&ros2::environment()?, !args.debug)?,
    };
    let prefix = std::path::absolute(&args.prefix)?;
    install(&node, &prefix)?;
    eprintln!(
        "xtask: installed {PACKAGE}; next: source {}/setup.bash && ros2 launch {PACKAGE} {PACKAGE}.launch.py",
        prefix.display()
    );
    Ok(ExitCode::SUCCESS)
}

/// Writes the install space with `node` as its executable.
///
/// # Errors
///
/// Where something to install is absent or the prefix cannot be written.
pub fn install(node: &Path, prefix: &Path) -> Result<()> {
    let root = workspace::root();
    let share = prefix.join("share").join(PACKAGE);
    require_weights()?;
    let index = prefix.join("share/ament_index/resource_index/packages");
    fs::create_dir_all(&index)?;
    fs::write(index.join(PACKAGE), "")?;
    for (from, to) in SHARED {
        copy_tree(&root.join(from), &share.join(to))?;
    }
    copy(&root.join("launch/package.xml"), &share.join("package.xml"))?;
    let executables = prefix.join("lib").join(PACKAGE);
    copy(node, &executables.join("egoreasoner_node"))?;
    fs::write(prefix.join("setup.bash"), SETUP)?;
    Ok(())
}

fn require_weights() -> Result<()> {
    let weights = workspace::root().join(WEIGHTS);
    if !weights.is_dir() {
        bail!("{} is absent; it is part of the repository", weights.display());
    }
    Ok(())
}

/// What colcon's setup.bash would add to the ROS 2 that is already sourced.
const SETUP: &str = r#"# Adds this folder to the sourced ROS 2.
_egoreasoner_prefix="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
export AMENT_PREFIX_PATH="$_egoreasoner_prefix${AMENT_PREFIX_PATH:+:$AMENT_PREFIX_PATH}"
unset _egoreasoner_prefix
"#;

/// Copies all files below a folder, but Python's caches.
///
/// # Errors
///
/// What cannot be read or written.
pub fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        if name == "__pycache__" {
            continue;
        }
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &to.join(&name))?;
        } else {
            copy(&entry.path(), &to.join(&name))?;
        }
    }
    Ok(())
}

/// Copies a file over what is there. Removed first: a node that runs from there keeps its own.
///
/// # Errors
///
/// What cannot be read or written.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().context("a file to write has a folder")?)?;
    if to.exists() {
        fs::remove_file(to)?;
    }
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_are_copied_over_what_is_there_without_caches() {
        let scratch = workspace::target().join(format!("xtask-install-test-{}", std::process::id()));
        let (from, to) = (scratch.join("from"), scratch.join("to"));
        fs::create_dir_all(from.join("inner/__pycache__")).expect("scratch can be written");
        fs::create_dir_all(&to).expect("scratch can be written");
        for (file, text) in [("a", "new"), ("inner/b", "b"), ("inner/__pycache__/c", "c")] {
            fs::write(from.join(file), text).expect("scratch can be written");
        }
        fs::write(to.join("a"), "old").expect("scratch can be written");
        copy_tree(&from, &to).expect("the tree is complete");
        assert_eq!(fs::read_to_string(to.join("a")).ok().as_deref(), Some("new"));
        assert!(to.join("inner/b").exists() && !to.join("inner/__pycache__").exists());
        fs::remove_dir_all(scratch).expect("scratch can be removed");
    }

    #[test]
    fn the_install_space_holds_what_the_launch_file_looks_for() {
        let scratch = workspace::target().join(format!("xtask-install-space-{}", std::process::id()));
        fs::create_dir_all(&scratch).expect("scratch can be written");
        let node = scratch.join("node");
        fs::write(&node, "#!/bin/sh\n").expect("scratch can be written");
        let prefix = scratch.join("prefix");
        install(&node, &prefix).expect("everything to install is there");
        let share = prefix.join("share").join(PACKAGE);
        for path in [
            prefix.join("share/ament_index/resource_index/packages").join(PACKAGE),
            prefix.join("lib").join(PACKAGE).join("egoreasoner_node"),
            prefix.join("setup.bash"),
            share.join("package.xml"),
        ] {
            assert!(path.is_file(), "{}", path.display());
        }
        for (_, to) in SHARED {
            assert!(share.join(to).is_dir(), "{to}");
        }
        // The installed config names its weights relative to itself.
        let config = fs::read_to_string(share.join("config/node.toml")).expect("a text");
        let weights = config.lines().find_map(|l| l.strip_prefix("weights = ")).expect("weights").trim_matches('"');
        assert!(share.join("config").join(weights).join("model.safetensors").is_file(), "{weights}");
        fs::remove_dir_all(scratch).expect("scratch can be removed");
    }
}
