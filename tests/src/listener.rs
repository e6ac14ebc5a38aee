//! Whoever uses the node's poses: collects what the node publishes, with the moment at which it came.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ::camera::ros::{self, KeyValue};
use anyhow::Result;
use futures::StreamExt;
use futures::executor::block_on;
use futures::future::{AbortHandle, Abortable, ready};
use geometry::Stamp;
use ros2_client::Subscription;
use serde::de::DeserializeOwned;

use crate::camera;
use crate::peer::Peer;

/// Of the listener's histories.
const DEPTH: usize = 100;

/// What is listened to.
#[derive(Debug, Clone)]
pub struct Topics {
    /// The node's name as seen from everywhere; its status is listened to below it, and diagnostics of others are not kept.
    pub node: String,
    /// Absolute.
    pub trajectory: String,
    /// Absolute.
    pub odometry: String,
    /// Absolute.
    pub diagnostics: String,
}

impl Default for Topics {
    /// Those of config/node.toml.
    fn default() -> Self {
        Self {
            node: "/egoreasoner".to_owned(),
            trajectory: "/ego/trajectory".to_owned(),
            odometry: "/ego/odometry".to_owned(),
            diagnostics: "/diagnostics".to_owned(),
        }
    }
}

/// A pose with the stamp and frame of its own header.
#[derive(Debug, Clone, PartialEq)]
pub struct Pose {
    pub stamp: Stamp,
    pub frame_id: String,
    /// Metres.
    pub position: [f64; 3],
    /// Unit quaternion, order x y z w.
    pub orientation_xyzw: [f64; 4],
}

/// A `nav_msgs/Path`: the poses of one window.
#[derive(Debug, Clone)]
pub struct Path {
    pub heard_at: Instant,
    pub stamp: Stamp,
    pub frame_id: String,
    pub poses: Vec<Pose>,
}

/// A `nav_msgs/Odometry`.
#[derive(Debug, Clone)]
pub struct Odometry {
    pub heard_at: Instant,
    pub child_frame_id: String,
    pub pose: Pose,
    /// Rows; order x y z rotation-x rotation-y rotation-z.
    pub covariance: [[f64; 6]; 6],
}

/// The node's entry in a `diagnostic_msgs/DiagnosticArray`, or its status.
#[derive(Debug, Clone)]
pub struct Report {
    pub heard_at: Instant,
    /// A status has none.
    pub stamp: Option<Stamp>,
    /// 0 OK, 1 WARN, 2 ERROR, 3 STALE.
    pub level: u8,
    pub name: String,
    pub message: String,
    pub values: BTreeMap<String, String>,
}

impl Report {
    fn new(status: ros::DiagnosticStatus, stamp: Option<Stamp>) -> Self {
        let ros::DiagnosticStatus { level, name, message, values, .. } = status;
        Self {
            heard_at: Instant::now(),
            stamp,
            level,
            name,
            message,
            values: values.into_iter().map(|KeyValue { key, value }| (key, value)).collect(),
        }
    }

    /// A counter.
    pub fn count(&self, key: &str) -> Option<u64> {
        self.values.get(key)?.parse().ok()
    }

    /// All frames that were not used, whatever the cause; without those that are still pending.
    pub fn frames_dropped(&self) -> u64 {
        self.values.keys().filter(|key| key.starts_with("frames_dropped_")).filter_map(|key| self.count(key)).sum()
    }

    /// Whether every frame that came in is used, posed, dropped or pending; false where one of the counters is missing.
    pub fn accounts_for_every_frame(&self) -> bool {
        self.frames_unaccounted() == Some(0)
    }

    /// By how many the counters of frames do not add up; none where one of them is missing.
    pub fn frames_unaccounted(&self) -> Option<u64> {
        let made = self.count("frames_used")? + self.count("frames_posed")?;
        Some(self.count("frames_received")?.abs_diff(made + self.frames_dropped() + self.count("frames_pending")?))
    }

    /// Whether the node answers, by its own word.
    pub fn is_active(&self) -> bool {
        self.values.get("lifecycle").is_some_and(|state| state == "active")
    }
}

/// All that came, each list in the order of its coming.
#[derive(Debug, Default)]
pub struct Heard {
    pub paths: Vec<Path>,
    pub odometry: Vec<Odometry>,
    pub diagnostics: Vec<Report>,
    pub statuses: Vec<Report>,
    /// What is wrong with messages that are not what their type says.
    pub unreadable: Vec<String>,
}

#[derive(Default)]
struct Shared {
    heard: Mutex<Heard>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Heard> {
        // Lists only grow: whoever died while holding them leaves nothing half done.
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Heard)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

/// Listens until it is dropped.
pub struct Listener {
    shared: Arc<Shared>,
    readers: Vec<(AbortHandle, JoinHandle<()>)>,
    _peer: Peer,
}

impl Listener {
    /// Joins the graph.
    ///
    /// # Errors
    ///
    /// A name that is none, or a network that cannot be opened.
    pub fn start(domain: u16, topics: &Topics) -> Result<Self> {
        let mut peer = Peer::join(domain, "listener_of_the_test")?;
        let shared: Arc<Shared> = Arc::default();
        let qos = camera::reliable(DEPTH);
        let paths: Subscription<ros::Path> = peer.subscription(&topics.trajectory, "nav_msgs", "Path", &qos)?;
        let odometry: Subscription<ros::Odometry> =
            peer.subscription(&topics.odometry, "nav_msgs", "Odometry", &qos)?;
        let diagnostics: Subscription<ros::DiagnosticArray> =
            peer.subscription(&topics.diagnostics, "diagnostic_msgs", "DiagnosticArray", &qos)?;
        let status = format!("{}/status", topics.node);
        let statuses: Subscription<ros::DiagnosticStatus> =
            peer.subscription(&status, "diagnostic_msgs", "DiagnosticStatus", &qos)?;
        let ours = format!("{}: ", topics.node.trim_start_matches('/'));
        let readers = vec![
            read(paths, Arc::clone(&shared), |heard, path| heard.paths.push(path_of(path))),
            read(odometry, Arc::clone(&shared), |heard, odometry| heard.odometry.push(odometry_of(odometry))),
            read(diagnostics, Arc::clone(&shared), move |heard, array| {
                let stamp = array.header.stamp();
                let ours = array.status.into_iter().filter(|status| status.name.starts_with(&ours));
                heard.diagnostics.extend(ours.map(|status| Report::new(status, Some(stamp))));
            }),
            read(statuses, Arc::clone(&shared), |heard, status| heard.statuses.push(Report::new(status, None))),
        ];
        Ok(Self { shared, readers, _peer: peer })
    }

    /// What came so far; nothing is added while it is held.
    pub fn heard(&self) -> MutexGuard<'_, Heard> {
        self.shared.lock()
    }

    /// The first answer of `look`, which is asked again after each message; none where `timeout` passes without one.
    pub fn wait_for<T>(&self, timeout: Duration, mut look: impl FnMut(&Heard) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + timeout;
        let mut heard = self.shared.lock();
        loop {
            if let Some(found) = look(&heard) {
                return Some(found);
            }
            let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            (heard, _) = self.shared.changed.wait_timeout(heard, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether `holds` did within `timeout`.
    pub fn wait_until(&self, timeout: Duration, mut holds: impl FnMut(&Heard) -> bool) -> bool {
        self.wait_for(timeout, |heard| holds(heard).then_some(())).is_some()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.readers.iter().for_each(|(abort, _)| abort.abort());
        for (_, thread) in self.readers.drain(..) {
            let _ = thread.join(); // its panic has been printed
        }
    }
}

/// Hands every message of `subscription` to `put`, in a thread of its own.
fn read<Wire: DeserializeOwned + Send + Sync + 'static>(
    subscription: Subscription<Wire>,
    shared: Arc<Shared>,
    put: impl Fn(&mut Heard, Wire) + Send + 'static,
) -> (AbortHandle, JoinHandle<()>) {
    let (abort, registration) = AbortHandle::new_pair();
    let thread = std::thread::spawn(move || {
        let messages = subscription.async_stream().for_each(|message| {
            shared.change(|heard| match message {
                Ok((message, _)) => put(heard, message),
                Err(error) => heard.unreadable.push(error.to_string()),
            });
            ready(())
        });
        // Aborted is the one way out: the stream itself does not end.
        let _ = block_on(Abortable::new(messages, registration));
    });
    (abort, thread)
}

fn pose_of(header: ros::Header, pose: ros::Pose) -> Pose {
    let ros::Pose { position, orientation_xyzw } = pose;
    Pose { stamp: header.stamp(), frame_id: header.frame_id, position, orientation_xyzw }
}

fn path_of(path: ros::Path) -> Path {
    let poses = path.poses.into_iter().map(|stamped| pose_of(stamped.header, stamped.pose)).collect();
    Path { heard_at: Instant::now(), stamp: path.header.stamp(), frame_id: path.header.frame_id, poses }
}

fn odometry_of(odometry: ros::Odometry) -> Odometry {
    let ros::Odometry { header, child_frame_id, pose, .. } = odometry;
    let covariance = pose.covariance;
    Odometry { heard_at: Instant::now(), child_frame_id, pose: pose_of(header, pose.pose), covariance }
}

#[cfg(test)]
mod tests {
    use super::Report;
    use ::camera::ros::{DiagnosticStatus, KeyValue};

    fn report(values: &[(&str, &str)]) -> Report {
        let value = |(key, value): &(&str, &str)| KeyValue { key: (*key).to_owned(), value: (*value).to_owned() };
        let (name, message, hardware_id) = ("n: t".to_owned(), String::new(), String::new());
        let values = values.iter().map(value).collect();
        Report::new(DiagnosticStatus { level: 0, name, message, hardware_id, values }, None)
    }

    #[test]
    fn a_frame_that_nobody_counts_is_noticed() {
        let counts = |received, used| {
            let values = [
                ("frames_received", received),
                ("frames_used", used),
                ("frames_posed", "0"),
                ("frames_pending", "2"),
                ("frames_dropped_decode", "1"),
                ("frames_dropped_superseded", "3"),
                ("windows_answered", "9"),
            ];
            report(&values).accounts_for_every_frame()
        };
        assert!(counts("10", "4"));
        assert!(!counts("11", "4"));
        assert!(!counts("10", "many"));
        assert!(!report(&[]).accounts_for_every_frame());
    }

    #[test]
    fn a_node_is_active_by_its_own_word_alone() {
        assert!(report(&[("lifecycle", "active")]).is_active());
        assert!(!report(&[("lifecycle", "activating")]).is_active());
        assert!(!report(&[]).is_active());
    }
}
