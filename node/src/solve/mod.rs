//! From a window to poses: what asks the model, and in which unit its lengths are.

pub mod estimator;
pub mod scale;
pub mod solver;
