//! What the node says of itself: counters, reports, the machine underneath.

pub mod counters;
pub mod diagnostics;
pub mod host;
