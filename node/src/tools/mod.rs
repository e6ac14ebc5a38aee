//! The verbs beside `run`: recordings, their replay and its report, and what would keep the node from running.

pub mod doctor;
pub mod ending;
pub mod film;
pub mod moments;
pub mod page;
mod plot;
pub mod progress;
pub mod recording;
pub mod replay;
pub mod report;
