//! The two thin ends of the node. Both serve the same topics, types and QoS; everything between is sans-io.
//!
//! Architecture Invariant: a transport converts types and moves them. It decodes nothing, decides nothing, and keeps nothing
//! but what it must say again where it joins anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError};

use crate::ros::call::Call;
use crate::ros::message::{Input, Output};
use crate::supervision::Watch;

pub(crate) mod error;
pub mod graph;
pub(crate) mod kind;
mod names;
mod params_file;
pub mod qos;
#[cfg(feature = "ros")]
pub mod r2r;
pub mod ros2_client;
pub mod ros_args;
pub(crate) mod topics;
pub(crate) mod wire;

pub use error::Error;
use graph::Remark;
pub use kind::Kind;
pub use topics::Topics;
pub(crate) use topics::{KEEP_LAST, PARAMETER_EVENTS, TF, TF_STATIC, TRANSITION_EVENT};

/// How often a transport's threads look whether they are to end, while there is nothing to publish and nothing comes. What
/// comes wakes them at once.
const STOP_POLL: Duration = Duration::from_millis(50);

/// How often a transport looks which ends others have in the graph.
const GRAPH_PERIOD: Duration = Duration::from_secs(1);

/// How long a transport stays after its last message, so that a reliable reader can still ask for it again.
const LINGER: Duration = Duration::from_millis(200);

/// Variance of a twist that nobody measured, on the diagonal of Odometry's twist: far from zero, which a filter would
/// take for certainty.
const TWIST_VARIANCE: f64 = 1e6;

/// Runs the node's ends until [`Ends::stop`] is set or the sender of [`Ends::output`] hangs up.
///
/// # Errors
///
/// [`Error`] where the backend does not start, and after that where it cannot go on: somebody has to start the node anew.
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

/// What the graph tells of the node's topics before it runs. Others get `patience` to be discovered; where publishers of all
/// that the node listens to are there before, nobody waits.
///
/// # Errors
///
/// [`Error`] where the backend does not start.
pub fn look(kind: Kind, topics: &Topics, patience: Duration) -> Result<Vec<Remark>, Error> {
    match kind {
        Kind::Ros2Client => ros2_client::look(topics, patience),
        #[cfg(feature = "ros")]
        Kind::R2r => r2r::look(topics, patience),
        #[cfg(not(feature = "ros"))]
        Kind::R2r => Err(Error::NotCompiledIn { kind }),
    }
}

/// What `others` tell of the node's ends, asked until all that it listens to is published or `patience` is over.
fn look_until(
    topics: &Topics,
    patience: Duration,
    mut others: impl FnMut(&[qos::Endpoint]) -> Vec<qos::Endpoint>,
) -> Result<Vec<Remark>, Error> {
    let ours = topics.endpoints()?;
    let begun = Instant::now();
    loop {
        let remarks = graph::remarks(&ours, &others(&ours));
        let is_waiting = remarks.iter().any(|remark| matches!(remark, Remark::Alone { .. }));
        if !is_waiting || begun.elapsed() >= patience {
            return Ok(remarks);
        }
        std::thread::sleep(STOP_POLL);
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

/// What a transport is run with.
pub struct Ends {
    /// Takes every input at once; never blocks, since the pipeline behind it drops and counts.
    pub input: Box<dyn Fn(Input) + Send + Sync>,
    /// Takes every request at once; the answer may come much later, from another thread.
    pub call: Box<dyn Fn(Call) + Send + Sync>,
    /// Takes, each second, all that the graph tells of the node's topics.
    pub graph: Box<dyn Fn(Vec<Remark>) + Send + Sync>,
    /// What to publish; the transport returns when the sender hangs up.
    pub output: Receiver<Output>,
    /// Set to true from outside (a signal) to make the transport return.
    pub stop: Arc<AtomicBool>,
    /// Over the threads of the transport, which last until then.
    pub watch: Watch,
}

/// Hands every output to `publish` until told to stop, then what is still queued, then gives reliable readers a
/// moment to ask again for what they missed. Where the sender hangs up before anybody said stop, the node has failed. Where
/// `is_whole` no longer holds, it returns false at once, and what is queued stays so.
fn publish_until_stopped(
    output: &Receiver<Output>,
    stop: &AtomicBool,
    watch: &Watch,
    is_whole: impl Fn() -> bool,
    mut publish: impl FnMut(Output),
) -> bool {
    let mut last_published = None;
    let mut publish = |output| {
        publish(output);
        last_published = Some(Instant::now());
    };
    loop {
        if stop.load(Ordering::Relaxed) {
            output.try_iter().for_each(&mut publish);
            break;
        }
        if !is_whole() {
            return false;
        }
        match output.recv_timeout(STOP_POLL) {
            Ok(output) => publish(output),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                watch.note("the pipeline", "nothing more comes out of it");
                break;
            }
        }
        watch.pass();
    }
    watch.stopping();
    if let Some(left) = last_published.and_then(|at| LINGER.checked_sub(at.elapsed())) {
        std::thread::sleep(left);
    }
    true
}

/// `status.name` of what the node called `full_name` says of `what`: the convention is `node: what`, and the namespace tells
/// nodes of one name apart.
fn status_name(full_name: &str, what: &str) -> String {
    format!("{}: {what}", full_name.trim_start_matches('/'))
}

/// What the status of the scale is about.
const SCALE: &str = "scale";
/// What the diagnostics are about.
const TRAJECTORY: &str = "trajectory";

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::time::{Duration, Instant};

    use crossbeam::channel::bounded;

    use super::{SCALE, TRAJECTORY, publish_until_stopped, status_name};
    use crate::ros::message::Output;
    use crate::supervision::Watch;

    fn panics() {
        panic!("no socket");
    }

    fn lasts() {
        std::thread::sleep(Duration::from_millis(300));
    }

    #[test]
    fn a_transport_whose_thread_panics_or_whose_pipeline_is_gone_returns_within_two_seconds_and_the_node_knows() {
        let run = |output: &crossbeam::channel::Receiver<Output>, work: fn()| {
            let stop = Arc::new(AtomicBool::new(false));
            let watch = Watch::new(Arc::clone(&stop));
            let begun = Instant::now();
            std::thread::scope(|scope| {
                let over = &watch;
                scope.spawn(move || over.over("images", work));
                publish_until_stopped(output, &stop, &watch, || true, |_| {});
            });
            assert!(begun.elapsed() < Duration::from_secs(2));
            watch.check().unwrap_err().thread
        };
        let (pipeline, output) = bounded(1);
        assert_eq!(run(&output, panics), "images");
        drop(pipeline);
        assert_eq!(run(&output, lasts), "the pipeline");
    }

    #[test]
    fn nodes_of_one_name_under_two_namespaces_have_two_diagnostics() {
        for (full_name, what, told) in [
            ("/egoreasoner", TRAJECTORY, "egoreasoner: trajectory"),
            ("/robot1/egoreasoner", TRAJECTORY, "robot1/egoreasoner: trajectory"),
            ("/robot2/egoreasoner", SCALE, "robot2/egoreasoner: scale"),
        ] {
            assert_eq!(status_name(full_name, what), told);
        }
    }
}
