//! ROS at the node's ends: messages in and out, what other nodes ask, parameters, the lifecycle, and the two transports.

pub mod call;
pub mod lifecycle;
pub mod message;
pub mod parameters;
pub mod transport;
