//! The few system packages that building against ROS 2 or MPI needs. They are installed only where we are root on a
//! system with apt; everywhere else the user is told which.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::workspace;

/// Debian's names of libclang, with which build scripts read C headers, and of clang's own headers.
const LIBCLANG: [&str; 2] = ["libclang-dev", "clang"];

/// Makes sure of libclang for r2r's build script.
///
/// # Errors
///
/// Where it is absent and cannot be installed.
pub fn require_libclang() -> Result<()> {
    if has_libclang() {
        return Ok(());
    }
    install(&LIBCLANG, "building the r2r transport needs libclang and clang's headers")
}

/// Makes sure of Open MPI, and of libclang for the build script of its bindings.
///
/// # Errors
///
/// Where something is absent and cannot be installed.
pub fn require_open_mpi() -> Result<()> {
    const HEADER: [&str; 5] = ["-fsyntax-only", "-include", "mpi.h", "-xc", "/dev/null"];
    let mut missing = Vec::new();
    if workspace::output(Command::new("mpicc").args(HEADER)).is_err() {
        missing.push("libopenmpi-dev");
    }
    // Others' take other options.
    if !workspace::output(Command::new("mpirun").arg("--version")).is_ok_and(|version| version.contains("Open MPI")) {
        missing.push("openmpi-bin");
    }
    if !has_libclang() {
        missing.extend(LIBCLANG);
    }
    if missing.is_empty() {
        return Ok(());
    }
    install(&missing, "training by several ranks needs Open MPI, and libclang and clang's headers to build against it")
}

fn has_libclang() -> bool {
    if std::env::var_os("LIBCLANG_PATH").is_some() {
        return true;
    }
    let is_libclang = |name: &str| {
        name.starts_with("libclang.so")
            || (name.starts_with("libclang-") && name.contains(".so") && !name.starts_with("libclang-cpp"))
    };
    let mut folders = library_folders();
    folders.extend(
        entries(Path::new("/usr/lib"))
            .filter(|path| path.to_string_lossy().contains("/llvm"))
            .map(|path| path.join("lib")),
    );
    folders
        .iter()
        .flat_map(|folder| entries(folder))
        .any(|path| path.file_name().is_some_and(|name| is_libclang(&name.to_string_lossy())))
}

/// The shared library of CPython `version`: beside the interpreter, or the system's.
pub fn find_libpython(name: &str, beside: &Path) -> Option<PathBuf> {
    let mut folders = vec![beside.to_owned()];
    folders.extend(library_folders());
    folders.into_iter().find(|folder| folder.join(name).exists())
}

fn library_folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = ["/usr/local/lib", "/usr/lib64", "/usr/lib"].map(PathBuf::from).into();
    folders.extend(entries(Path::new("/usr/lib")).filter(|path| path.to_string_lossy().ends_with("-linux-gnu")));
    folders
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// Installs packages where that is ours to do.
///
/// # Errors
///
/// Says which packages are needed, and why, where it is not.
pub fn install(packages: &[&str], why: &str) -> Result<()> {
    let list = packages.join(" ");
    let is_root = workspace::output(Command::new("id").arg("-u")).is_ok_and(|id| id == "0");
    let has_apt = Command::new("apt-get").arg("--version").output().is_ok_and(|output| output.status.success());
    if !is_root || !has_apt {
        bail!("{why}; install the equivalent of `apt-get install {list}`");
    }
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(["install", "--yes", "--no-install-recommends"]);
        command.args(packages);
        command
    };
    if workspace::run(&mut apt()).is_err() {
        // Most often the lists of a fresh image are empty.
        workspace::run(Command::new("apt-get").arg("update"))?;
        workspace::run(&mut apt())?;
    }
    Ok(())
}
