//! What people type: `ros2 launch`, `ros2 lifecycle`, `ros2 param`, `ros2 topic echo`, `ros2 service call`, from the install
//! space and with each transport. `cargo xtask test` runs it where there is a `ros2` command line, and says so where not.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tests::process::{PATIENCE, Place, Running, from_environment};
use tests::root;

const NODE: &str = "/egoreasoner";
/// The tool's daemon would outlive the test; without it, so many seconds to discover the graph.
const DIRECT: [&str; 3] = ["--no-daemon", "--spin-time", "3"];

#[test]
fn ros2_client_is_launched_and_led_by_the_ros2_tool() {
    // All parameters at once do not fit its datagrams (docs/interface.md).
    launched_and_led("ros2-client", false);
}

#[test]
fn r2r_is_launched_and_led_by_the_ros2_tool() {
    launched_and_led("r2r", true);
}

/// A person's shell.
struct Shell {
    place: Place,
    prefixes: std::ffi::OsString,
}

impl Shell {
    fn new(name: &str) -> Self {
        let place = Place::new(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
        let sourced = std::env::var_os("AMENT_PREFIX_PATH").unwrap_or_default();
        let installed = from_environment("EGOREASONER_PREFIX");
        let prefixes = std::iter::once(installed).chain(std::env::split_paths(&sourced));
        Self { place, prefixes: std::env::join_paths(prefixes).expect("paths without colons") }
    }

    /// `ros2 ...`, given up after a minute.
    fn command(&self, line: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["60", "ros2"]).args(line).stdin(Stdio::null());
        command.env("AMENT_PREFIX_PATH", &self.prefixes).env("NO_COLOR", "1");
        self.place.put_in_domain(&mut command);
        command
    }

    /// What `ros2 ...` says, errors included.
    fn ros2(&self, line: &[&str]) -> String {
        let done = self.command(line).output().expect("timeout can be started");
        [done.stdout, done.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat()
    }

    /// The same without the daemon.
    fn direct(&self, line: &[&str]) -> String {
        self.ros2(&[&line[..2], &DIRECT, &line[2..]].concat())
    }

    fn expect(&self, line: &[&str], wanted: &str) {
        let said = self.direct(line);
        assert!(said.contains(wanted), "`ros2 {}`: expected `{wanted}`, got:\n{said}", line.join(" "));
    }
}

fn launched_and_led(transport: &str, lists_parameters: bool) {
    let shell = Shell::new(&format!("ros_{transport}_tool"));
    assert_eq!(shell.ros2(&["pkg", "executables", "egoreasoner"]).trim(), "egoreasoner egoreasoner_node");
    let arguments = shell.ros2(&["launch", "-s", "egoreasoner", "egoreasoner.launch.py"]);
    assert!(arguments.contains("'image_topic'") && arguments.contains("camera topic"), "{arguments}");

    let mut launch = launched(&shell, transport);
    for (transition, state) in [("configure", "inactive [2]"), ("activate", "active [3]")] {
        shell.expect(&["lifecycle", "set", NODE, transition], "Transitioning successful");
        shell.expect(&["lifecycle", "get", NODE], state);
    }
    parameters(&shell, lists_parameters);
    trajectory(&shell);
    let reset = shell.ros2(&["service", "call", "/egoreasoner/reset", "std_srvs/srv/Trigger"]);
    assert!(reset.contains("success=True"), "{reset}");
    shell.expect(&["lifecycle", "set", NODE, "shutdown"], "Transitioning successful");
    launch.interrupt(2 * PATIENCE).unwrap_or_else(|e| panic!("{e}; launch said:\n{}", shell.place.log()));
    assert!(shell.place.log().contains("process has finished cleanly"), "{}", shell.place.log());

    // Ctrl-C alone is handed on by launch; after SIGTERM the node sees that launch is gone.
    let mut launch = launched(&shell, transport);
    let node = child_of(launch.id()).expect("launch has started the node");
    launch.stop(2 * PATIENCE).unwrap_or_else(|e| panic!("{e}; launch said:\n{}", shell.place.log()));
    let begun = Instant::now();
    while Path::new(&format!("/proc/{node}")).is_dir() {
        assert!(begun.elapsed() < PATIENCE, "the node outlives launch, which said:\n{}", shell.place.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// `ros2 launch` with a node that waits to be configured.
fn launched(shell: &Shell, transport: &str) -> Running {
    let mut launch = Command::new("ros2");
    launch.args(["launch", "egoreasoner", "egoreasoner.launch.py", "autostart:=false"]);
    launch.arg(format!("transport:={transport}")).env("AMENT_PREFIX_PATH", &shell.prefixes).env("NO_COLOR", "1");
    shell.place.put_in_domain(&mut launch);
    let file = File::create(shell.place.log_path()).expect("the log can be written");
    launch.stdin(Stdio::null()).stderr(file.try_clone().expect("a file")).stdout(file);
    let launch = Running::new(launch.spawn().expect("ros2 launch starts"));
    let begun = Instant::now();
    while !shell.direct(&["lifecycle", "get", NODE]).contains("unconfigured [1]") {
        assert!(begun.elapsed() < Duration::from_secs(60), "no node; launch said:\n{}", shell.place.log());
    }
    launch
}

/// The process that another has started, by whichever of its threads.
fn child_of(parent: u32) -> Option<u32> {
    let threads = std::fs::read_dir(format!("/proc/{parent}/task")).ok()?;
    let children = threads.flatten().filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    children.collect::<String>().split_whitespace().next()?.parse().ok()
}

fn parameters(shell: &Shell, lists_them: bool) {
    if lists_them {
        shell.expect(&["param", "list", NODE], "trust.lost_after_millis");
    }
    shell.expect(&["param", "describe", NODE, "trust.lost_after_millis"], "Min value: 1");
    shell.expect(&["param", "set", NODE, "trust.lost_after_millis", "7000"], "Set parameter successful");
    shell.expect(&["param", "get", NODE, "trust.lost_after_millis"], "Integer value is: 7000");
    shell.expect(&["param", "set", NODE, "topics.image", "/elsewhere"], "is read when the node starts");
}

/// `ros2 topic echo` beside an rclpy camera.
fn trajectory(shell: &Shell) {
    shell.expect(&["topic", "type", "/ego/trajectory"], "nav_msgs/msg/Path");
    let mut echo = shell.command(&["topic", "echo", "--no-daemon", "--spin-time", "3", "--once", "/ego/trajectory"]);
    let echo = echo.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("timeout can be started");
    let mut camera = Command::new(from_environment("EGOREASONER_PYTHON"));
    shell.place.put_in_domain(&mut camera);
    camera.arg(root().join("tests/ros/counterpart.py")).arg("--out").arg(shell.place.folder.join("seen.json"));
    camera.arg("--frames").arg(root().join("tests/data/amazon_box/frames"));
    camera.args(["--best-effort", "--settle", "5", "--rate", "3", "--count", "14"]);
    let status = camera.status().expect("the camera starts");
    assert!(status.success(), "camera: {status}; launch said:\n{}", shell.place.log());
    let said = echo.wait_with_output().expect("a child can be waited for");
    let text = String::from_utf8_lossy(&said.stdout);
    let poses = text.matches("- header:").count();
    assert_eq!(poses, 5, "{text}{}", String::from_utf8_lossy(&said.stderr));
}
