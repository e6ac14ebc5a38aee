//! The ROS 2 node: a camera topic in, poses on `/ego/trajectory` out.
//!
//! The way of a frame, room by room: [`ros::transport`] in; [`window`] (cheap checks, intrinsics, five frames); [`solve`]
//! (decode, encode, answer; in which unit); [`trust`] (check, stitch, believe or not); [`publish`]; transport out.
//! [`pipeline`] puts threads between; [`tools::replay`] puts none. [`status`] says how it goes. A [`tools::recording`] is
//! what came in and went out, in a file. [`supervision`] ends the node where a thread of
//! it has ended. What other nodes ask ([`ros::call`]: [`ros::parameters`], [`ros::lifecycle`], a
//! reset) goes from the transport to the pipeline.
//!
//! Architecture Invariant: only [`pipeline`], [`supervision`], [`tools::ending`], [`tools::progress`], [`tools::film`] (whose thread
//! listens to ffmpeg) and what writes a recording have threads and clocks, and only [`ros`] and recordings know of ROS. All else is a value or a struct with `push`, and is tested as such.

pub mod config;
pub mod pipeline;
pub mod publish;
pub mod ros;
pub mod solve;
pub mod status;
pub mod supervision;
pub mod tools;
pub mod trust;
pub mod window;
