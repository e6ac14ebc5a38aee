//! The two thin ends of the node. Both serve the same topics, types and QoS; everything between is sans-io.
//!
//! Architecture Invariant: a transport converts types and moves them. It decodes nothing, decides nothing, keeps
//! nothing.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError};
use serde::{Deserialize, Serialize};

use crate::call::Call;
use crate::message::{Input, Output};

mod params_file;
pub mod qos;
#[cfg(feature = "ros")]
pub mod r2r;
pub mod ros2_client;
pub mod ros_args;
pub(crate) mod wire;

use qos::{End, Endpoint, Mismatch, Override, Qos};

/// How often a transport's threads look whether they are to end, while there is nothing to publish and nothing comes. What
/// comes wakes them at once.
const STOP_POLL: Duration = Duration::from_millis(50);

/// How often a transport looks for ends in the graph that the node's own do not hear.
const QOS_PERIOD: Duration = Duration::from_secs(1);

/// Depth of the history of the node's publishers, and of CameraInfo.
const KEEP_LAST: u32 = 10;

/// Transforms that change.
const TF: &str = "/tf";
/// Transforms that do not.
const TF_STATIC: &str = "/tf_static";
/// Changes of the lifecycle's state.
const TRANSITION_EVENT: &str = "~/transition_event";

/// Parameters of all nodes.
const PARAMETER_EVENTS: &str = "/parameter_events";
/// Depth of the history of that topic, as rclcpp has it: a change must not be missed.
const KEEP_PARAMETER_EVENTS: u32 = 1000;

/// How long a transport stays after its last message, so that a reliable reader can still ask for it again.
const LINGER: Duration = Duration::from_millis(200);

/// Variance of a twist that nobody measured, on the diagonal of Odometry's twist: far from zero, which a filter would
/// take for certainty.
const TWIST_VARIANCE: f64 = 1e6;

/// Which backend moves the messages; the same topics, types and QoS either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Pure-Rust DDS; needs no ROS 2 on the machine.
    Ros2Client,
    /// The sourced ROS 2 through rcl: its rmw, its shared memory. Needs the feature `ros`.
    R2r,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ros2Client => "ros2-client",
            Self::R2r => "r2r",
        })
    }
}

/// Why a transport did not start. Once it runs, a message that cannot be moved is logged and skipped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration asks for a backend that this binary lacks.
    #[error(
        "transport \"{kind}\" is not in this binary: build with `--features ros` where ROS 2 is sourced, \
         or set transport = \"ros2-client\""
    )]
    NotCompiledIn {
        /// What was asked for.
        kind: Kind,
    },
    /// A node, namespace or topic name that ROS 2 does not allow.
    #[error("{name:?} is not a ROS 2 name: {reason}")]
    Name {
        /// As configured.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// `ROS_DOMAIN_ID` is not a domain.
    #[error("ROS_DOMAIN_ID is {got:?}, expected a number from 0 to 232")]
    DomainId {
        /// Its value.
        got: String,
    },
    /// rcl reads the domain from the environment alone.
    #[error("domain {expected} is configured but transport \"r2r\" takes it from ROS_DOMAIN_ID, which is {got}")]
    DomainFromEnvironment {
        /// As configured.
        expected: u16,
        /// In the environment.
        got: u16,
    },
    /// The middleware refused.
    #[error("{kind}: cannot {action}: {reason}")]
    Middleware {
        /// Which backend.
        kind: Kind,
        /// What was tried.
        action: String,
        /// In the middleware's words.
        reason: String,
    },
    /// `--ros-args` that cannot be applied.
    #[error(transparent)]
    RosArgs(#[from] ros_args::RosArgsError),
}

/// Runs the node's ends until [`Ends::stop`] is set or the sender of [`Ends::output`] hangs up.
///
/// # Errors
///
/// [`Error`] where the backend does not start; nothing after that.
pub fn run(kind: Kind, topics: &Topics, ends: Ends) -> Result<(), Error> {
    match kind {
        Kind::Ros2Client => ros2_client::run(topics, ends),
        #[cfg(feature = "ros")]
        Kind::R2r => r2r::run(topics, ends),
        #[cfg(not(feature = "ros"))]
        Kind::R2r => {
            drop(ends);
            Err(Error::NotCompiledIn { kind })
        }
    }
}

/// Whether this binary has `kind`.
#[must_use]
pub fn is_compiled_in(kind: Kind) -> bool {
    match kind {
        Kind::Ros2Client => true,
        Kind::R2r => cfg!(feature = "ros"),
    }
}

/// Names and policies of the node's topics. Names are as configured; [`Topics::resolve`] says what they are in the graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Topics {
    /// ROS node name.
    pub node_name: String,
    /// ROS namespace, `/` at the root.
    pub namespace: String,
    /// ROS domain; `None` reads `ROS_DOMAIN_ID`, 0 where that is unset.
    pub domain_id: Option<u16>,
    /// Image topic.
    pub image: String,
    /// Whether `image` carries `sensor_msgs/CompressedImage`.
    pub image_compressed: bool,
    /// Whether the image subscription is reliable; best effort (sensor data) otherwise.
    pub image_reliable: bool,
    /// Depth of the image subscription's history.
    pub image_queue_depth: u32,
    /// CameraInfo topic.
    pub camera_info: String,
    /// Topic of the odometry that gives the scale, where one does.
    pub reference_odometry: Option<String>,
    /// Path topic.
    pub trajectory: String,
    /// Odometry topic.
    pub odometry: String,
    /// Diagnostics topic.
    pub diagnostics: String,
    /// Topic of the answers' text.
    pub reasoning: String,
    /// Topic of the node's status.
    pub status: String,
    /// Rules of the command line, names as seen from everywhere: from, to.
    pub renames: Vec<(String, String)>,
    /// QoS overrides of the command line.
    pub qos: Vec<Override>,
}

/// What a transport is run with.
pub struct Ends {
    /// Takes every input at once; never blocks, since the pipeline behind it drops and counts.
    pub input: Box<dyn Fn(Input) + Send + Sync>,
    /// Takes every request at once; the answer may come much later, from another thread.
    pub call: Box<dyn Fn(Call) + Send + Sync>,
    /// Takes, each second, all QoS mismatches that there are.
    pub mismatches: Box<dyn Fn(Vec<Mismatch>) + Send + Sync>,
    /// What to publish; the transport returns when the sender hangs up.
    pub output: Receiver<Output>,
    /// Set to true from outside (a signal) to make the transport return.
    pub stop: Arc<AtomicBool>,
}

/// Hands every output to `publish` until told to stop, then what is still queued, then gives reliable readers a
/// moment to ask again for what they missed.
fn publish_until_stopped(output: &Receiver<Output>, stop: &AtomicBool, mut publish: impl FnMut(Output)) {
    let mut last_published = None;
    let mut publish = |output| {
        publish(output);
        last_published = Some(Instant::now());
    };
    loop {
        match output.recv_timeout(STOP_POLL) {
            Ok(output) => publish(output),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if stop.load(Ordering::Relaxed) {
            output.try_iter().for_each(&mut publish);
            break;
        }
    }
    if let Some(left) = last_published.and_then(|at| LINGER.checked_sub(at.elapsed())) {
        std::thread::sleep(left);
    }
}

impl Topics {
    /// What a name is in the graph: absolute, and renamed by the first rule that matches it.
    ///
    /// # Errors
    ///
    /// [`Error::Name`] for a name that ROS 2 does not allow.
    pub fn resolve(&self, name: &str) -> Result<String, Error> {
        let absolute = ros_args::absolute_name(name, &self.namespace, &self.node_name)?;
        let renamed = self.renames.iter().find(|(from, _)| *from == absolute);
        Ok(renamed.map_or(absolute, |(_, to)| to.clone()))
    }

    /// The same with the names of the graph in place of those that are configured.
    ///
    /// # Errors
    ///
    /// [`Error::Name`] for a name that ROS 2 does not allow.
    pub fn resolved(&self) -> Result<Self, Error> {
        let [image, camera_info, trajectory, odometry, diagnostics, reasoning, status] = self.names();
        Ok(Self {
            image: self.resolve(image)?,
            camera_info: self.resolve(camera_info)?,
            reference_odometry: self.reference_odometry.as_deref().map(|name| self.resolve(name)).transpose()?,
            trajectory: self.resolve(trajectory)?,
            odometry: self.resolve(odometry)?,
            diagnostics: self.resolve(diagnostics)?,
            reasoning: self.resolve(reasoning)?,
            status: self.resolve(status)?,
            renames: Vec::new(),
            ..self.clone()
        })
    }

    /// All names that must be configured.
    fn names(&self) -> [&str; 7] {
        [
            &self.image,
            &self.camera_info,
            &self.trajectory,
            &self.odometry,
            &self.diagnostics,
            &self.reasoning,
            &self.status,
        ]
    }

    /// The policies of a subscription: of the image, of CameraInfo, which comes with the image, and of the odometry that
    /// gives the scale, which is as good with a position less.
    fn sensor_qos(&self, name: &str) -> Result<Qos, Error> {
        let depth = if name == self.image { self.image_queue_depth } else { KEEP_LAST };
        let is_reliable = self.image_reliable && self.reference_odometry.as_deref() != Some(name);
        let qos = Qos { is_reliable, is_transient_local: false, depth };
        Ok(qos::overridden(&self.qos, &self.resolve(name)?, End::Subscription, qos))
    }

    /// The policies of a publisher.
    fn publisher_qos(&self, name: &str) -> Result<Qos, Error> {
        let qos = match name {
            // Whoever comes later must get it: it is not sent again.
            TF_STATIC => Qos { is_reliable: true, is_transient_local: true, depth: 1 },
            PARAMETER_EVENTS => Qos { is_reliable: true, is_transient_local: false, depth: KEEP_PARAMETER_EVENTS },
            _ => Qos { is_reliable: true, is_transient_local: false, depth: KEEP_LAST },
        };
        Ok(qos::overridden(&self.qos, &self.resolve(name)?, End::Publisher, qos))
    }

    /// The node's own ends of topics. Those of services, which cannot be chosen, are left out.
    fn endpoints(&self) -> Result<Vec<Endpoint>, Error> {
        let endpoint = |name: &str, end: End, qos: Qos| -> Result<Endpoint, Error> {
            let Qos { is_reliable, is_transient_local, .. } = qos;
            Ok(Endpoint { topic: self.resolve(name)?, end, is_reliable, is_transient_local })
        };
        let heard = [&self.image, &self.camera_info].into_iter().chain(&self.reference_odometry);
        let said = [&self.trajectory, &self.odometry, &self.diagnostics, &self.reasoning, &self.status];
        let said = said.map(String::as_str).into_iter().chain([TF, TF_STATIC, TRANSITION_EVENT, PARAMETER_EVENTS]);
        let heard = heard.map(|name| endpoint(name, End::Subscription, self.sensor_qos(name)?));
        let said = said.map(|name| endpoint(name, End::Publisher, self.publisher_qos(name)?));
        heard.chain(said).collect()
    }

    /// The configured domain, else `ROS_DOMAIN_ID`, else 0.
    fn domain(&self) -> Result<u16, Error> {
        match self.domain_id {
            Some(id) => Ok(id),
            None => environment_domain(),
        }
    }
}

/// `ROS_DOMAIN_ID`, 0 where it is unset or empty.
fn environment_domain() -> Result<u16, Error> {
    const MAX_DOMAIN: u16 = 232; // the ports of 233 would pass 65535
    match std::env::var("ROS_DOMAIN_ID") {
        Ok(text) if !text.trim().is_empty() => {
            text.trim().parse().ok().filter(|&id| id <= MAX_DOMAIN).ok_or(Error::DomainId { got: text })
        }
        _ => Ok(0),
    }
}

/// `status.name` of the diagnostics: the convention is `node: what`.
fn diagnostic_name(node_name: &str) -> String {
    format!("{node_name}: trajectory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_named_as_in_the_config() {
        for (kind, name) in [(Kind::Ros2Client, "ros2-client"), (Kind::R2r, "r2r")] {
            assert_eq!(kind.to_string(), name);
            assert_eq!(serde_json::from_str::<Kind>(&format!("{name:?}")).ok(), Some(kind));
        }
    }
}
