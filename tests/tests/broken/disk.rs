//! A disk of a few pages: a tmpfs in a mount namespace of the test's own.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};

use crate::rounds::not_run_here;

/// The name of the test that is inside of its namespace.
const INSIDE: &str = "EGOREASONER_BREAK_INSIDE";
/// Enough for all that is written here.
const ROOMY: &str = "remount,size=256m";
/// Memory comes in pages.
pub const PAGE: u64 = 4096;

/// A file system that is full when one wants it to be.
pub struct Disk(tempfile::TempDir);

/// Runs the body of a test with a small disk: in a process of its own, which may mount one. Where no user may have namespaces,
/// that is said and nothing is run. `test` is the name by which the harness knows it.
pub fn on_small_disk(test: &str, body: impl FnOnce(&Disk)) {
    if std::env::var_os(INSIDE).is_some_and(|inside| inside == test) {
        return body(&Disk::mount());
    }
    let place = tempfile::tempdir().unwrap();
    let probe = namespace().args(["mount", "-t", "tmpfs", "tmpfs"]).arg(place.path()).output();
    let why = match probe {
        Ok(Output { status, .. }) if status.success() => None,
        Ok(Output { stderr, .. }) => Some(String::from_utf8_lossy(&stderr).trim().to_owned()),
        Err(error) => Some(format!("unshare: {error}")),
    };
    if let Some(why) = why {
        return not_run_here(test, &format!("no mount namespace ({why})"));
    }
    let mut again = namespace();
    again.arg(std::env::current_exe().unwrap()).env(INSIDE, test);
    let Output { status, stdout, stderr } =
        again.args([test, "--exact", "--include-ignored", "--nocapture"]).output().unwrap();
    let said = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(status.success() && said.contains("1 passed"), "{test}: {status}: {said}");
}

fn namespace() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "--"]);
    command
}

impl Disk {
    fn mount() -> Self {
        let disk = Self(tempfile::tempdir().unwrap());
        mount(&["-t", "tmpfs", "-o", "size=256m", "tmpfs"], disk.path());
        disk
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all away and leaves room for this many bytes, at least a page.
    pub fn empty(&self, bytes: u64) {
        for entry in std::fs::read_dir(self.path()).unwrap() {
            let path = entry.unwrap().path();
            let gone = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            gone.unwrap();
        }
        let size = bytes.div_ceil(PAGE).max(1) * PAGE;
        mount(&["-o", &format!("remount,size={size}")], self.path());
    }

    /// Takes what room there is.
    pub fn fill(&self) {
        let mut filler = std::fs::File::create(self.path().join("filler")).unwrap();
        while filler.write_all(&[0; PAGE as usize]).is_ok() {}
    }

    /// Somebody has made room.
    pub fn grow(&self) {
        mount(&["-o", ROOMY], self.path());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).status(); // it goes with the namespace otherwise
    }
}

fn mount(arguments: &[&str], place: &Path) {
    let status = Command::new("mount").args(arguments).arg(place).status().unwrap();
    assert!(status.success(), "mount {arguments:?} {}: {status}", place.display());
}
