//! The verbs beside `run`: recordings, their replay and its report, and what would keep the node from running.

pub mod doctor;
mod plot;
pub mod recording;
pub mod replay;
pub mod report;
