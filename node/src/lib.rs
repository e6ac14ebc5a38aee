//! The ROS 2 node: a camera topic in, poses on `/ego/trajectory` out.
//!
//! The way of a frame: [`transport`] in, [`ingest`] (cheap checks, intrinsics, [`window`]s), [`solver`] (decode, encode,
//! answer), [`scale`], [`trust`] (check, stitch, believe or not), [`publish`], transport out. [`pipeline`] puts threads
//! between; [`replay`] puts none. A [`recording`] is what came in and went out, in a file. What other nodes ask ([`call`]:
//! [`parameters`], [`lifecycle`], a reset) goes from the transport to the pipeline.
//!
//! Architecture Invariant: only [`pipeline`] and what writes a [`recording`] have threads and clocks, and only
//! [`transport`] and [`recording`] know of ROS. All else is a value or a struct with `push`, and is tested as such.

pub mod call;
pub mod config;
pub mod diagnostics;
pub mod doctor;
pub mod estimator;
pub mod frame;
pub mod ingest;
pub mod lifecycle;
pub mod machine;
pub mod message;
pub mod parameters;
pub mod pipeline;
mod plot;
pub mod publish;
pub mod recording;
pub mod replay;
pub mod report;
pub mod scale;
pub mod solver;
pub mod stats;
pub mod transport;
pub mod trust;
pub mod window;
