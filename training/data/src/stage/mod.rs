//! Stages that need no model: one module and one verb each.

pub mod split;
pub mod windows;
