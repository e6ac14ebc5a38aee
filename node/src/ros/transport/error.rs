//! What can be wrong with a transport and with its command line.

use std::path::PathBuf;

use super::kind::Kind;

/// Why a transport did not start, or could not go on. A message that cannot be moved is logged and skipped.
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
    /// An odometry to hear that is the node's own.
    #[error("{key}: expected another odometry than the node's own, {own} (topics.odometry), got \"{topic}\"")]
    OwnOdometry {
        /// The key of the config that names it.
        key: &'static str,
        /// As configured.
        topic: String,
        /// Its name in the graph.
        own: String,
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
    /// Nearly all memory is taken that there is for the process.
    #[error(
        "memory of {of}: expected at most {most_mib} MiB to be taken, got {got_mib}: the node ends before the system ends \
         it, or another"
    )]
    Memory {
        /// Whose it is.
        of: &'static str,
        /// What may be taken, MiB.
        most_mib: u64,
        /// What is taken, MiB.
        got_mib: u64,
    },
    /// `--ros-args` that cannot be applied.
    #[error(transparent)]
    RosArgs(#[from] RosArgsError),
}

/// What is wrong with the `--ros-args` of a command line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RosArgsError {
    /// A flag that ROS 2 does not have.
    #[error("unknown flag {flag:?} after --ros-args")]
    UnknownFlag {
        /// As given.
        flag: String,
    },
    /// The flag stands last.
    #[error("{flag} needs a value")]
    MissingValue {
        /// The flag.
        flag: String,
    },
    /// Not of the form `a:=b`.
    #[error("{flag} {value:?}: expected {expected}")]
    BadRule {
        /// The flag.
        flag: String,
        /// As given.
        value: String,
        /// The form.
        expected: &'static str,
    },
    /// The value of a parameter is not one.
    #[error("{flag} {name}:={value}: {reason}")]
    BadValue {
        /// The flag.
        flag: String,
        /// The parameter.
        name: String,
        /// As given.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of parameters that cannot be used.
    #[error("--params-file {}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}
