//! From a window to poses: what asks the model, what tracks each image, where the two meet, and in which unit lengths are.

pub mod estimator;
pub mod fusion;
pub(crate) mod held;
pub mod scale;
pub mod solver;
mod topic;
pub mod tracker;
pub mod weights;
