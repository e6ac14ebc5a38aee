//! What a fault of the camera, of the model or of the way between them comes to: each test does one thing wrong to a whole
//! pipeline and states the fate of every frame and window, what the node says of itself, and what it publishes. No path
//! spans the two sides of a fault, and the odometry jumps only where its reset counter has grown. Faults that the wire has
//! a part in are in `ros_faults.rs`.

#![expect(clippy::unwrap_used, reason = "a test")]

mod answers;
mod case;
#[path = "../../../node/tests/common/mod.rs"]
mod common;
mod control;
mod film;
mod frames;
mod images;
#[expect(dead_code, reason = "the node's own tests use the rest")]
#[path = "../../../node/tests/rig/mod.rs"]
mod rig;
mod scale;
mod stamps;
