//! The node as its own process.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use model::memory::Resident;

use crate::root;

/// What a node needs at most from SIGTERM to its end.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Ticks a second of /proc/PID/stat: USER_HZ, which is 100 on every architecture that ROS 2 runs on.
const TICKS_PER_SECOND: u64 = 100;

/// A path that must be in the environment, such as EGOREASONER_NODE.
///
/// # Panics
///
/// Where it is not, with what sets it.
pub fn from_environment(name: &str) -> PathBuf {
    std::env::var_os(name).map(PathBuf::from).unwrap_or_else(|| panic!("{name} is not set; run `cargo xtask test`"))
}

/// Where a test keeps its files, and the domain that it is alone in.
pub struct Place {
    /// Of the files.
    pub folder: PathBuf,
    domain: u16,
}

impl Place {
    /// In a domain of its own: neither that of a robot nearby, nor of another run of this, nor of a test beside it.
    ///
    /// # Panics
    ///
    /// Where the folder cannot be made.
    pub fn new(folder: PathBuf) -> Self {
        static PLACES: AtomicU32 = AtomicU32::new(0);
        let number = std::process::id().wrapping_add(PLACES.fetch_add(1, Ordering::Relaxed));
        Self::in_domain(folder, (number % 100 + 1) as u16)
    }

    /// In a given domain.
    ///
    /// # Panics
    ///
    /// Where the folder cannot be made.
    pub fn in_domain(folder: PathBuf, domain: u16) -> Self {
        std::fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        Self { folder, domain }
    }

    /// The ROS domain.
    pub fn domain(&self) -> u16 {
        self.domain
    }

    /// Puts a process into the domain.
    pub fn put_in_domain(&self, command: &mut Command) {
        command.env("ROS_DOMAIN_ID", self.domain.to_string());
        command.env("FASTRTPS_DEFAULT_PROFILES_FILE", root().join("config/fastdds.xml"));
    }

    /// The command of a node; what it says goes to the log.
    pub fn command(&self, program: &Path, config: &Path) -> Command {
        let mut node = Command::new(program);
        self.put_in_domain(&mut node);
        node.env("NO_COLOR", "1").env_remove("RUST_LOG");
        node.arg("run").arg("--config").arg(config);
        node
    }

    /// The same for the node of the environment with the shipped config.
    ///
    /// # Panics
    ///
    /// Where EGOREASONER_NODE is not in the environment.
    pub fn node(&self, transport: &str) -> Command {
        let mut node = self.command(&from_environment("EGOREASONER_NODE"), &root().join("config/node.toml"));
        node.arg("--set").arg(format!("node.transport={transport}"));
        node
    }

    /// Starts a node with its log in [`Place::log`], which begins anew.
    ///
    /// # Panics
    ///
    /// Where it cannot be started.
    pub fn start(&self, mut node: Command) -> Running {
        let path = self.log_path();
        let log = File::create(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        node.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Running::new(node.spawn().unwrap_or_else(|e| panic!("{}: {e}", node.get_program().display())))
    }

    /// What the node has said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Where that is.
    pub fn log_path(&self) -> PathBuf {
        self.folder.join("node.log")
    }
}

/// What a process takes of the machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// Resident memory.
    pub resident_mib: f64,
    /// Of all its threads, in user mode and in the kernel, since its start.
    pub cpu: Duration,
}

/// A child that does not outlive the test.
pub struct Running(Child);

impl Running {
    /// Of a child that has just been started.
    pub fn new(child: Child) -> Self {
        Self(child)
    }

    /// The id of the process.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// How it ended, where it did.
    ///
    /// # Panics
    ///
    /// Never on Linux: it is our child.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().expect("a child can be waited for")
    }

    /// As a launch system does it: SIGTERM, then wait. The time is from the signal to the end.
    ///
    /// # Errors
    ///
    /// Where it had ended before, or is still there after `patience`.
    pub fn stop(&mut self, patience: Duration) -> Result<(ExitStatus, Duration)> {
        self.end_by("TERM", patience)
    }

    /// As Ctrl-C does it: SIGINT, then wait.
    ///
    /// # Errors
    ///
    /// As [`Self::stop`].
    pub fn interrupt(&mut self, patience: Duration) -> Result<(ExitStatus, Duration)> {
        self.end_by("INT", patience)
    }

    fn end_by(&mut self, signal: &str, patience: Duration) -> Result<(ExitStatus, Duration)> {
        if let Some(status) = self.exited() {
            bail!("it had ended by itself: {status}");
        }
        let begun = Instant::now();
        let kill = Command::new("sh").args(["-c", &format!("kill -{signal} {}", self.id())]).status();
        if !kill.context("sh")?.success() {
            bail!("SIG{signal} could not be sent to process {}", self.id());
        }
        while begun.elapsed() < patience {
            if let Some(status) = self.exited() {
                return Ok((status, begun.elapsed()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("it was still there {patience:?} after SIG{signal}")
    }

    /// What it takes of the machine at this moment.
    ///
    /// # Errors
    ///
    /// Those of [`usage_of`].
    pub fn usage(&self) -> Result<Usage> {
        usage_of(self.id())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it has gone already where all went well
        let _ = self.0.wait();
    }
}

/// What a process takes of the machine at this moment; Linux only.
///
/// # Errors
///
/// Where it has ended.
pub fn usage_of(id: u32) -> Result<Usage> {
    let read = |name: &str| {
        let path = format!("/proc/{id}/{name}");
        std::fs::read_to_string(&path).with_context(|| path.clone()).map(|text| (path, text))
    };
    let (path, status) = read("status")?;
    let held = Resident::parse(&status).with_context(|| format!("{path}: expected VmRSS and VmHWM in kB"))?;
    let (path, stat) = read("stat")?;
    let cpu = cpu_of(&stat).with_context(|| format!("{path}: expected utime and stime"))?;
    Ok(Usage { resident_mib: held.mib, cpu })
}

/// utime and stime of /proc/PID/stat, its fields 14 and 15. Field 2 is the name in brackets, which may hold anything.
fn cpu_of(stat: &str) -> Option<Duration> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let ticks = ticks()? + ticks()?;
    Some(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::{PATIENCE, Running, cpu_of};

    #[test]
    fn time_is_read_as_the_kernel_writes_it() {
        let stat = "42 (a ) name) S 1 42 42 0 -1 4194304 100 0 0 0 250 50 7 7 20 0 5 0 100 1 2";
        assert_eq!(cpu_of(stat), Some(Duration::from_secs(3)));
        assert_eq!(cpu_of("42 (node) S 1 42"), None);
    }

    #[test]
    fn a_child_is_measured_and_ends_on_sigterm_and_only_once() {
        let child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let mut running = Running::new(child);
        assert!(running.usage().unwrap().resident_mib > 0.0);
        assert_eq!(running.exited(), None);
        let (status, _) = running.stop(PATIENCE).unwrap();
        assert!(!status.success(), "sleep does not handle the signal");
        assert!(running.usage().is_err());
        let again = running.stop(PATIENCE).unwrap_err().to_string();
        assert!(again.contains("ended by itself"), "{again}");
    }
}
