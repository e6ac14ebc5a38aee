//! The node as its own process, for the tests against rclpy.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A node after SIGTERM has this long.
const PATIENCE: Duration = Duration::from_secs(5);

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the repository")
}

pub fn from_environment(name: &str) -> PathBuf {
    std::env::var_os(name).map(PathBuf::from).unwrap_or_else(|| panic!("{name} is not set; run `cargo xtask test`"))
}

/// Where a test keeps its files, and the domain that it is alone in.
pub struct Place {
    pub folder: PathBuf,
    domain: String,
}

impl Place {
    pub fn new(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&folder).expect("the target directory can be written");
        // Neither a robot nearby nor another run of this.
        Self { folder, domain: (std::process::id() % 100 + 1).to_string() }
    }

    pub fn put_in_domain(&self, command: &mut Command) {
        command.env("ROS_DOMAIN_ID", &self.domain);
        command.env("FASTRTPS_DEFAULT_PROFILES_FILE", root().join("config/fastdds.xml"));
    }

    /// The command of a node; what it says goes to the log.
    pub fn node(&self, transport: &str) -> Command {
        let mut node = Command::new(from_environment("EGOREASONER_NODE"));
        self.put_in_domain(&mut node);
        node.env("NO_COLOR", "1").env_remove("RUST_LOG");
        node.arg("run").arg("--config").arg(root().join("config/node.toml"));
        node.arg("--set").arg(format!("node.transport={transport}"));
        node
    }

    pub fn start(&self, mut node: Command) -> Running {
        let log = File::create(self.log_path()).expect("the log can be written");
        node.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Running(node.spawn().expect("the node starts"))
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join("node.log")
    }
}

/// A child that does not outlive the test.
pub struct Running(pub Child);

impl Running {
    /// As a launch system does it: SIGTERM, then wait.
    pub fn stop(&mut self) -> ExitStatus {
        let kill = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.0.id())]).status();
        assert!(kill.is_ok_and(|status| status.success()), "the node had gone already");
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            if let Some(status) = self.0.try_wait().expect("the child can be waited for") {
                return status;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the node was still there {PATIENCE:?} after SIGTERM");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it has gone already where all went well
        let _ = self.0.wait();
    }
}
