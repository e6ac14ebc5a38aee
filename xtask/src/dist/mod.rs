//! `cargo xtask dist`: a tar archive for people who have no cargo: the node and the trainer in the install space of
//! `cargo xtask install`, a sequence to try them on, and the licences of all that they are linked with.
//!
//! The node in it has the transport that needs no ROS 2, and no CUDA: those are built where they run (docs/jetson.md,
//! containers/). What its programs ask of a system is glibc, at least that of the machine that built them.

mod licences;
mod platform;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use self::platform::Target;
use crate::install::{PACKAGE, copy, copy_tree, install};
use crate::{demo, workspace};

/// Of the workspace, and so of the archive.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Programs under `bin/`; not `node`, which is another program on most machines.
const NODE: &str = "egoreasoner_node";
const TRAINING: &str = "egoreasoner_training";
/// The sequence that is in the archive.
const EXAMPLE: &str = "examples/amazon_box";
/// Licences of crates, and of Rust's standard library.
const LICENCES: &str = "THIRD_PARTY_LICENSES.txt";
const STANDARD_LIBRARY: &str = "RUST_STANDARD_LIBRARY.html";
/// ROS domain of the check: not the default, so that a robot on the same network is not disturbed.
const DOMAIN: &str = "88";

/// Options of `cargo xtask dist`.
#[derive(clap::Args)]
pub struct Args {
    /// What the programs are for, as rustc calls it [default: this machine]
    #[arg(long, value_name = "TRIPLE")]
    target: Option<String>,
    /// Where the archive and its SHA-256 go
    #[arg(long, value_name = "DIR", default_value = "target/dist")]
    out: PathBuf,
    /// Take `node` and `training` out of this folder in place of building them, for example target/debug
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Unpack the archive elsewhere, and run the doctor and a replay there without cargo
    #[arg(long)]
    check: bool,
}

/// Makes an archive.
///
/// # Errors
///
/// What cannot be built, read or written, and a check that fails.
pub fn run(args: &Args) -> Result<ExitCode> {
    let target = Target::new(args.target.as_deref())?;
    if args.check {
        target.require_emulator()?; // before the minutes that the build takes
    }
    let programs = match &args.from {
        Some(folder) => workspace::root().join(folder),
        None => build(&target)?,
    };
    let archive = pack(&target, &programs, &workspace::root().join(&args.out))?;
    if args.check {
        check(&target, &archive)?;
    }
    eprintln!("xtask: {} is written", archive.display());
    Ok(ExitCode::SUCCESS)
}

/// An archive of the programs that the tests have built for this machine, unpacked and run.
///
/// # Errors
///
/// As [`run`].
pub fn check_tested() -> Result<()> {
    let target = Target::new(None)?;
    let archive = pack(&target, &workspace::target().join("debug"), &workspace::target().join("dist/tested"))?;
    check(&target, &archive)
}

/// Builds both programs, and says where they are.
fn build(target: &Target) -> Result<PathBuf> {
    target.require_compilers()?;
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--release", "--locked", "--package", "node", "--package", "training"]);
    target.apply(&mut cargo);
    workspace::run(&mut cargo)?;
    Ok(target.built())
}

/// Writes the archive of `programs` and its SHA-256 into `out`.
fn pack(target: &Target, programs: &Path, out: &Path) -> Result<PathBuf> {
    let name = format!("{PACKAGE}-{VERSION}-{}", target.triple());
    let stage = out.join("stage");
    remove(&stage)?;
    lay_out(target, programs, &stage.join(&name))?;
    // For the Debian package too, which cargo-deb makes (node/Cargo.toml).
    copy(&stage.join(&name).join(LICENCES), &out.join(LICENCES))?;
    let file = format!("{name}.tar.gz");
    let (archive, fresh) = (out.join(&file), out.join(format!(".{file}.{}", std::process::id())));
    // The same files make the same bytes, whoever packs them and when.
    let mut tar = Command::new("tar");
    tar.args(["--create", "--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mode=u=rwX,go=rX"]);
    tar.arg(format!("--mtime=@{}", date())).arg("--use-compress-program=gzip -n");
    tar.arg("--file").arg(&fresh).arg("--directory").arg(&stage).arg(&name);
    workspace::run(&mut tar)?;
    fs::rename(&fresh, &archive).with_context(|| archive.display().to_string())?;
    remove(&stage)?;
    let sum = workspace::output(Command::new("sha256sum").arg(&file).current_dir(out))?;
    let sums = out.join(format!("{file}.sha256"));
    fs::write(&sums, format!("{sum}\n")).with_context(|| sums.display().to_string())?;
    Ok(archive)
}

/// Puts everything at its place below `folder`.
fn lay_out(target: &Target, programs: &Path, folder: &Path) -> Result<()> {
    let root = workspace::root();
    install(&programs.join("node"), folder)?;
    let (library, links) = (folder.join("lib").join(PACKAGE), folder.join("bin"));
    copy(&programs.join("training"), &library.join(TRAINING))?;
    fs::create_dir_all(&links).with_context(|| links.display().to_string())?;
    for program in [NODE, TRAINING] {
        workspace::run(target.strip().arg("--strip-debug").arg(library.join(program)))?;
        symlink(Path::new("../lib").join(PACKAGE).join(program), links.join(program))?;
    }
    copy_tree(&root.join("tests/data/amazon_box"), &folder.join(EXAMPLE))?;
    for file in ["LICENSE", "CHANGELOG.md"] {
        copy(&root.join(file), &folder.join(file))?;
    }
    match platform::standard_library_notice()? {
        Some(page) => copy(&page, &folder.join(STANDARD_LIBRARY))?,
        None => eprintln!("xtask: this Rust comes without a page of its library's licences; take one of rustup's"),
    }
    fs::write(folder.join(LICENCES), licences::of(target.triple())?)?;
    fs::write(folder.join("README.txt"), readme(target))?;
    Ok(())
}

/// What one does with an unpacked archive.
fn readme(target: &Target) -> String {
    format!(
        "EgoReasoner {VERSION} for {}

    bin/{NODE} doctor                 what would keep the node from running
    bin/{NODE} replay {EXAMPLE} --out replay
    bin/{NODE} --set topics.image=/cam/image --set topics.camera_info=/cam/camera_info
    bin/{TRAINING} --help

The node speaks DDS itself and needs no ROS 2. Every key that --set knows is in share/{PACKAGE}/config/node.toml.
As a service: share/{PACKAGE}/systemd/{PACKAGE}-node.service. Beside a sourced ROS 2:

    source setup.bash && ros2 launch {PACKAGE} {PACKAGE}.launch.py transport:=ros2-client

The weights in share/{PACKAGE}/model are for trying things out; do not steer by them.

LICENSE is EgoReasoner's, {LICENCES} of what is linked in, {STANDARD_LIBRARY} of Rust's own
library, and {EXAMPLE}/LICENSE of the frames.
",
        target.triple()
    )
}

/// Seconds since 1970 that all files get: those of the commit, unless the environment says others.
fn date() -> String {
    std::env::var("SOURCE_DATE_EPOCH").unwrap_or_else(|_| {
        let mut git = Command::new("git");
        git.args(["log", "-1", "--format=%ct"]).current_dir(workspace::root());
        workspace::output(&mut git).unwrap_or_else(|_| "0".to_owned())
    })
}

/// Unpacks an archive in a folder of its own, and runs its programs there.
fn check(target: &Target, archive: &Path) -> Result<()> {
    let folder = std::env::temp_dir().join(format!("{PACKAGE}-dist-{}", std::process::id()));
    remove(&folder)?;
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    check_in(target, archive, &folder).with_context(|| format!("the archive is unpacked in {}", folder.display()))?;
    remove(&folder)
}

fn check_in(target: &Target, archive: &Path, folder: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--strip-components=1", "--file"]).arg(archive).arg("--directory").arg(folder);
    workspace::run(&mut tar)?;
    // Nothing of cargo's environment, and a PATH on which rustup's is not.
    let run = |program: &str, arguments: &[&str]| {
        let mut command = target.command(&folder.join("bin").join(program));
        command.args(arguments).current_dir(folder).env_clear();
        workspace::run(command.env("PATH", "/usr/bin:/bin").env("ROS_DOMAIN_ID", DOMAIN))
    };
    run(TRAINING, &["--version"])?;
    run(NODE, &["--version"])?;
    run(NODE, &["doctor"])?;
    run(NODE, &["replay", EXAMPLE, "--out", "replay"])?;
    let frames = fs::read_dir(folder.join(EXAMPLE).join("frames"))?.count();
    demo::check(&folder.join("replay/report.json"), frames as u64)
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with two programs that do nothing, in place of ours.
    fn scratch(name: &str) -> PathBuf {
        let folder = workspace::target().join(format!("xtask-dist-{name}-{}", std::process::id()));
        remove(&folder).expect("scratch can be written");
        fs::create_dir_all(&folder).expect("scratch can be written");
        for program in ["node", "training"] {
            fs::copy("/bin/true", folder.join(program)).expect("a program");
        }
        folder
    }

    #[test]
    fn an_archive_holds_what_its_readme_names_and_is_the_same_each_time() {
        let target = Target::new(None).expect("rustc");
        let folder = scratch("pack");
        let out = folder.join("out");
        let archive = pack(&target, &folder, &out).expect("everything to pack is there");
        let first = fs::read(&archive).expect("an archive");
        assert_eq!(pack(&target, &folder, &out).expect("again"), archive);
        assert!(first == fs::read(&archive).expect("an archive"), "the same files made other bytes");
        workspace::output(
            Command::new("sha256sum")
                .args(["--check", "--strict"])
                .current_dir(&out)
                .arg(format!("{}.sha256", archive.file_name().expect("a name").to_string_lossy())),
        )
        .expect("the sum is that of the archive");

        let listed = workspace::output(Command::new("tar").arg("--list").arg("--file").arg(&archive)).expect("a tar");
        let top = format!("{PACKAGE}-{VERSION}-{}/", target.triple());
        let files: Vec<&str> = listed.lines().filter_map(|line| line.strip_prefix(&top)).collect();
        assert_eq!(files.len(), listed.lines().count(), "one folder holds everything");
        for file in [
            "README.txt",
            "LICENSE",
            "CHANGELOG.md",
            LICENCES,
            "setup.bash",
            "bin/egoreasoner_node",
            "bin/egoreasoner_training",
            "lib/egoreasoner/egoreasoner_node",
            "lib/egoreasoner/egoreasoner_training",
            "share/egoreasoner/config/node.toml",
            "share/egoreasoner/launch/egoreasoner.launch.py",
            "share/egoreasoner/systemd/egoreasoner-node.service",
            "share/egoreasoner/model/weights/nano/model.safetensors",
            "examples/amazon_box/sequence.json",
            "examples/amazon_box/LICENSE",
        ] {
            assert!(files.contains(&file), "{file} is not in {files:?}");
        }
        for word in readme(&target).split_whitespace().map(|word| word.trim_end_matches([':', ',', '.'])) {
            if word.starts_with("share/") || word.starts_with("bin/") {
                assert!(files.iter().any(|file| file.trim_end_matches('/') == word), "{word} of README.txt");
            }
        }
        remove(&folder).expect("scratch can be removed");
    }

    #[test]
    fn programs_that_write_nothing_do_not_pass_the_check() {
        let target = Target::new(None).expect("rustc");
        let folder = scratch("check");
        let archive = pack(&target, &folder, &folder.join("out")).expect("everything to pack is there");
        let unpacked = folder.join("unpacked");
        fs::create_dir_all(&unpacked).expect("scratch can be written");
        let why = format!("{:#}", check_in(&target, &archive, &unpacked).expect_err("no replay was written"));
        assert!(why.contains("replay/report.json"), "{why}");
        remove(&folder).expect("scratch can be removed");
    }

    #[test]
    fn a_program_that_is_missing_is_named() {
        let folder = scratch("missing");
        fs::remove_file(folder.join("training")).expect("scratch can be written");
        let target = Target::new(None).expect("rustc");
        let why = format!("{:#}", pack(&target, &folder, &folder.join("out")).expect_err("no trainer"));
        assert!(why.contains("cannot copy") && why.contains("training"), "{why}");
        remove(&folder).expect("scratch can be removed");
    }
}
