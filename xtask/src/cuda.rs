//! `cargo xtask cuda -- COMMAND`: runs a command, such as `cargo build --features cuda`, with a CUDA toolkit: the
//! machine's, or one put together from Python wheels under target/cuda where the machine's does not know the GPU. No GPU and
//! no driver are needed to build.
//!
//! The wheels lack what a toolkit's folder has beside its files; it is added here:
//!
//! * `lib64` with unversioned names of the libraries, which linkers ask for;
//! * a stub of libcuda, which only a driver brings: made from the declarations in cuda.h.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// Every wheel, pinned.
const PINS: &str = include_str!("cuda_wheels.txt");
/// Compute capabilities that the node is built for: Orin, Hopper, Thor. The last is called so from CUDA 13.0 on; 12.8 and 12.9 called
/// it 101.
const CAPABILITIES: [&str; 3] = ["87", "90", "110"];

/// Options of `cargo xtask cuda`.
#[derive(clap::Args)]
pub struct Args {
    /// Compute capability to compile for: 87 (Orin), 90 (Hopper) or 110 (Thor); one a build.
    #[arg(long, default_value = "87")]
    capability: String,
    /// What to run.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Runs the command with a toolkit.
///
/// # Errors
///
/// Another capability, or a toolkit that can't be had.
pub fn run(args: &Args) -> Result<ExitCode> {
    let capability = args.capability.as_str();
    if !CAPABILITIES.contains(&capability) {
        bail!("--capability: expected one of {}, got {capability}", CAPABILITIES.join(", "));
    }
    let toolkit = toolkit(capability)?;
    eprintln!("xtask: CUDA toolkit {}, compute capability {capability}", toolkit.display());
    let Some((program, arguments)) = args.command.split_first() else { bail!("nothing to run") };
    let mut command = Command::new(program);
    command.args(arguments).current_dir(workspace::root()).env("CUDA_COMPUTE_CAP", capability);
    command.env("CUDA_HOME", &toolkit).env("CUDA_PATH", &toolkit);
    let before = |variable: &str, first: &[PathBuf]| -> Result<OsString> {
        let old = std::env::var_os(variable).unwrap_or_default();
        let all = first.iter().cloned().chain(std::env::split_paths(&old).filter(|p| !p.as_os_str().is_empty()));
        Ok(std::env::join_paths(all)?)
    };
    let libraries = [toolkit.join("lib64"), toolkit.join("lib64/stubs")];
    command.env("PATH", before("PATH", &[toolkit.join("bin")])?);
    command.env("LIBRARY_PATH", before("LIBRARY_PATH", &libraries)?);
    // The stub is for linking: a program that runs must find the driver's own.
    command.env("LD_LIBRARY_PATH", before("LD_LIBRARY_PATH", &libraries[..1])?);
    eprintln!("$ {}", workspace::shown(&command));
    let status = command.status().with_context(|| format!("cannot start {}", program.display()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A toolkit that compiles for a capability: the machine's, else one of wheels.
fn toolkit(capability: &str) -> Result<PathBuf> {
    if let Some(own) = machine() {
        let codes = codes(&own)?;
        if knows(&codes, capability) {
            return Ok(own);
        }
        eprintln!("xtask: {}, so wheels are used", refusal(&own, &codes, capability));
    }
    let toolkit = wheels()?;
    let codes = codes(&toolkit)?;
    if !knows(&codes, capability) {
        bail!("{}", refusal(&toolkit, &codes, capability));
    }
    Ok(toolkit)
}

/// The GPUs that a toolkit compiles for, one a line: `sm_87`.
fn codes(toolkit: &Path) -> Result<String> {
    let nvcc = toolkit.join("bin/nvcc");
    let listed = Command::new(&nvcc).arg("--list-gpu-code").output();
    let listed = listed.with_context(|| format!("cannot start {}", nvcc.display()))?;
    if !listed.status.success() {
        bail!("{} --list-gpu-code failed: {}", nvcc.display(), String::from_utf8_lossy(&listed.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&listed.stdout).into_owned())
}

/// Whether a capability is among them.
fn knows(codes: &str, capability: &str) -> bool {
    codes.lines().any(|code| code.trim().strip_prefix("sm_") == Some(capability))
}

/// Why a toolkit will not do.
fn refusal(toolkit: &Path, codes: &str, capability: &str) -> String {
    let known = codes.split_whitespace().collect::<Vec<_>>().join(", ");
    let why = match capability {
        "110" => ": a Thor is sm_110 from CUDA 13.0 on",
        _ => "",
    };
    format!("{} does not compile for --capability {capability}, only for {known}{why}", toolkit.display())
}

/// The toolkit that this machine has.
fn machine() -> Option<PathBuf> {
    let named = ["CUDA_HOME", "CUDA_PATH"].iter().filter_map(std::env::var_os).map(PathBuf::from);
    named.chain([PathBuf::from("/usr/local/cuda")]).find(|dir| dir.join("bin/nvcc").is_file())
}

/// A toolkit of wheels; made on first use. The stamp is written last, so that half of one is made again.
fn wheels() -> Result<PathBuf> {
    let folder = workspace::target().join("cuda");
    fs::create_dir_all(&folder)?;
    let lock = File::create(folder.join("lock"))?;
    lock.lock().context("cannot lock the toolkit under target/")?;
    let (toolkit, stamp) = (folder.join("toolkit"), folder.join("stamp"));
    if fs::read_to_string(&stamp).ok().as_deref() != Some(PINS) {
        eprintln!("xtask: no CUDA toolkit on this machine; assembling one from wheels, once");
        for old in [&toolkit, &folder.join("wheels")] {
            if old.exists() {
                fs::remove_dir_all(old)?;
            }
        }
        assemble(&folder, &toolkit)?;
        fs::write(&stamp, PINS)?;
    }
    drop(lock);
    Ok(toolkit)
}

fn assemble(folder: &Path, toolkit: &Path) -> Result<()> {
    let (pins, site) = (folder.join("pins.txt"), folder.join("wheels"));
    fs::write(&pins, PINS)?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"]);
    pip.arg("--target").arg(&site).arg("--requirement").arg(&pins);
    workspace::run(&mut pip).context(
        "the wheels could not be installed (are python3 with pip and the package index there?); install CUDA instead",
    )?;
    let wheels = site.join("nvidia/cu13");
    fs::create_dir_all(toolkit)?;
    for part in ["bin", "include", "nvvm"] {
        symlink(wheels.join(part), toolkit.join(part)).with_context(|| format!("the wheels have no {part}"))?;
    }
    let libraries = toolkit.join("lib64");
    fs::create_dir_all(libraries.join("stubs"))?;
    symlink("lib64", toolkit.join("lib"))?;
    for entry in fs::read_dir(wheels.join("lib")).context("the wheels have no lib")? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some((base, _)) = name.split_once(".so") else { continue };
        for link in BTreeSet::from([name.clone(), format!("{base}.so")]) {
            let place = libraries.join(link);
            if !place.exists() {
                symlink(&path, place)?;
            }
        }
    }
    stub(&toolkit.join("include/cuda.h"), &libraries.join("stubs"))
}

/// A libcuda that links and does nothing: every function of cuda.h, each an error.
fn stub(header: &Path, folder: &Path) -> Result<()> {
    let text = fs::read_to_string(header).with_context(|| header.display().to_string())?;
    let source = folder.join("libcuda.c");
    fs::write(&source, stub_source(&text))?;
    let library = folder.join("libcuda.so.1");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-w", "-Wl,-soname,libcuda.so.1", "-o"]).arg(&library).arg(&source);
    workspace::run(&mut compiler).context("a C compiler is needed for the stub of libcuda")?;
    Ok(symlink("libcuda.so.1", folder.join("libcuda.so"))?)
}

/// One function for each name that begins with `cu` and a capital, as called or as renamed by a macro (`_v2`).
fn stub_source(header: &str) -> String {
    let words = header.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let is_function =
        |w: &&str| w.strip_prefix("cu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()));
    let names: BTreeSet<&str> = words.filter(is_function).collect();
    let mut source = String::new();
    for name in names {
        let _ = writeln!(source, "int {name}(void) {{ return 999; }}"); // CUDA_ERROR_UNKNOWN
    }
    source
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toolkit_that_does_not_know_the_gpu_is_refused_with_what_it_knows() {
        let old = "sm_87\nsm_89\nsm_90\nsm_90a\nsm_100\nsm_101\nsm_120\n";
        let new = "sm_75\nsm_87\nsm_90\nsm_100\nsm_110\nsm_120\n";
        for capability in CAPABILITIES {
            assert_eq!((knows(old, capability), knows(new, capability)), (capability != "110", true), "{capability}");
        }
        assert!(!knows("sm_1100\nsm_11\ncompute_110\n", "110"));
        let message = refusal(Path::new("/usr/local/cuda"), "sm_90\nsm_101\n", "110");
        let expected = "/usr/local/cuda does not compile for --capability 110, only for sm_90, sm_101: a Thor is sm_110 from CUDA 13.0 on";
        assert_eq!(message, expected);
    }

    #[test]
    fn the_stub_has_every_function_and_nothing_else() {
        let header = "#define cuMemAlloc cuMemAlloc_v2\nCUresult CUDAAPI cuInit(unsigned int Flags);\ntypedef int CUdevice;\ncuda_h";
        let source = stub_source(header);
        let names: Vec<&str> = source.lines().filter_map(|l| l.strip_prefix("int ")?.split('(').next()).collect();
        assert_eq!(names, ["cuInit", "cuMemAlloc", "cuMemAlloc_v2"]);
    }
}
