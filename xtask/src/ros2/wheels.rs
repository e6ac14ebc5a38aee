//! A ROS 2 jazzy of Python wheels under target/ros2, for machines without one. The virtual environment is an ament
//! prefix as it is; what the wheels lack for linking r2r against them is added here:
//!
//! * `librmw_implementation.so`: the wheels' rcl links Fast DDS's rmw directly, r2r asks for the usual name;
//! * the library path: the wheels' own run paths point to where they were built;
//! * libpython in the node: the wheels' rcl pulls in the Python type support.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::MESSAGE_PACKAGES;
use crate::{system, workspace};

pub const DISTRO: &str = "jazzy";

/// Every wheel, pinned.
const PINS: &str = include_str!("../../jazzy.txt");

/// Pythons that these wheels exist for, best first: the first is what ROS 2's own tools are tested with here.
const PYTHONS: [&str; 2] = ["3.11", "3.12"];

const RMW: &str = "rmw_fastrtps_cpp";

/// Where the wheels are, or will be.
pub fn prefix() -> PathBuf {
    workspace::target().join("ros2").join(DISTRO)
}

/// Installs the wheels under `prefix` unless they are there, and returns the variables of that ROS 2.
///
/// The stamp is written last and holds the pins: after a kill in the middle, or a change of the pins, all of it is made
/// again. Whoever comes second waits for the first.
pub fn install(prefix: &Path) -> Result<Vec<(&'static str, OsString)>> {
    let folder = prefix.parent().context("the prefix has a parent")?;
    fs::create_dir_all(folder)?;
    fs::write(folder.join("COLCON_IGNORE"), "")?; // or colcon takes every example in the wheels for a package
    let lock = File::create(folder.join(format!("{DISTRO}.lock")))?;
    lock.lock().context("cannot lock the ROS 2 under target/")?;
    let stamp = prefix.join("egoreasoner.stamp");
    if fs::read_to_string(&stamp).ok().as_deref() != Some(PINS) {
        eprintln!("xtask: no ROS 2 is sourced; installing {DISTRO} from wheels, once, into {}", prefix.display());
        if prefix.exists() {
            fs::remove_dir_all(prefix)?;
        }
        create(prefix)?;
        fs::write(&stamp, PINS)?;
    }
    drop(lock);
    variables(prefix)
}

fn create(prefix: &Path) -> Result<()> {
    let python = find_python()?;
    workspace::run(Command::new(python).args(["-m", "venv"]).arg(prefix))?;
    let pins = prefix.join("pins.txt");
    fs::write(&pins, PINS)?;
    let mut pip = Command::new(prefix.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    pip.args(["--no-deps", "--only-binary", ":all:", "--requirement"]).arg(&pins);
    workspace::run(&mut pip).context(
        "the wheels could not be installed (is the package index reachable, and is this x86_64 Linux?); \
         source a ROS 2 instead",
    )?;
    let rmw = prefix.join("lib").join(format!("lib{RMW}.so"));
    std::os::unix::fs::symlink(rmw, prefix.join("lib/librmw_implementation.so"))?;
    Ok(())
}

/// A Python of a fitting version that can make virtual environments with pip in them.
fn find_python() -> Result<String> {
    const PROBE: &str = "import ensurepip, venv, sys; print('%d.%d' % sys.version_info[:2])";
    let names = PYTHONS.iter().map(|version| format!("python{version}")).chain(["python3".to_owned()]);
    for name in names {
        let version = workspace::output(Command::new(&name).args(["-c", PROBE]));
        if version.is_ok_and(|version| PYTHONS.contains(&version.as_str())) {
            return Ok(name);
        }
    }
    bail!(
        "no ROS 2 is sourced, and the wheels of {DISTRO} need Python {} with venv and pip \
         (on Debian: apt-get install python3-venv)",
        PYTHONS.join(" or ")
    )
}

fn variables(prefix: &Path) -> Result<Vec<(&'static str, OsString)>> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([prefix.join("bin")].into_iter().chain(std::env::split_paths(&path)))?;
    let libraries = std::env::join_paths(library_folders(prefix)?)?;
    Ok(vec![
        ("ROS_VERSION", "2".into()),
        ("ROS_DISTRO", DISTRO.into()),
        ("RMW_IMPLEMENTATION", RMW.into()),
        ("AMENT_PREFIX_PATH", ament_prefix_path(prefix)?),
        ("IDL_PACKAGE_FILTER", MESSAGE_PACKAGES.into()),
        ("LD_LIBRARY_PATH", libraries),
        // Spares the wheels' Python a second start, in which it would set the variable above.
        ("_ROS_WHEELS_BOOTSTRAP_COMPLETE", "1".into()),
        ("VIRTUAL_ENV", prefix.into()),
        ("PATH", path),
    ])
}

/// The wheels under whatever the user has overlaid on them, so that `ros2 -- COMMAND` sees an installed package.
fn ament_prefix_path(prefix: &Path) -> Result<OsString> {
    let existing = std::env::var_os("AMENT_PREFIX_PATH").unwrap_or_default();
    let overlays: Vec<PathBuf> =
        std::env::split_paths(&existing).filter(|path| path.join("share/egoreasoner").exists()).collect();
    Ok(std::env::join_paths(overlays.iter().map(PathBuf::as_path).chain([prefix]))?)
}

fn library_folders(prefix: &Path) -> Result<Vec<PathBuf>> {
    let mut folders = vec![prefix.join("lib")];
    let mut bundled: Vec<PathBuf> = fs::read_dir(site_packages(prefix)?)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("ros_") && name.ends_with(".libs")
        })
        .collect();
    bundled.sort();
    folders.extend(bundled);
    Ok(folders)
}

fn site_packages(prefix: &Path) -> Result<PathBuf> {
    PYTHONS
        .iter()
        .map(|version| prefix.join(format!("lib/python{version}/site-packages")))
        .find(|path| path.exists())
        .with_context(|| format!("{} has no site-packages", prefix.display()))
}

/// What the node needs at its last link so that it runs with no variable set: libpython, and run paths (the old kind,
/// which libraries of libraries inherit).
pub fn link_args(prefix: &Path) -> Result<Vec<String>> {
    const PROBE: &str = "import sys, sysconfig; v = sys.version_info; \
                         print('libpython%d.%d.so.1.0' % v[:2]); print(sysconfig.get_config_var('LIBDIR'))";
    let mut python = Command::new(prefix.join("bin/python"));
    let probed = workspace::output(python.args(["-c", PROBE]))?;
    let (name, beside) = probed.split_once('\n').context("Python names its library and its folder")?;
    let find = || system::find_libpython(name, Path::new(beside));
    let python_folder = match find() {
        Some(folder) => folder,
        None => {
            let package = name.trim_end_matches(".so.1.0");
            system::install(&[package], "the r2r transport on wheels links libpython")?;
            find().with_context(|| format!("{name} is still not to be found"))?
        }
    };
    let mut folders = library_folders(prefix)?;
    folders.push(python_folder.clone());
    let run_path = std::env::join_paths(folders)?.to_string_lossy().into_owned();
    let linker = [
        format!("-L{}", python_folder.display()),
        "-Wl,--no-as-needed".to_owned(),
        format!("-l:{name}"),
        "-Wl,--disable-new-dtags".to_owned(),
        format!("-Wl,-rpath,{run_path}"),
    ];
    Ok(linker.into_iter().flat_map(|arg| ["-C".to_owned(), format!("link-arg={arg}")]).collect())
}
