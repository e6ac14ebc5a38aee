//! The pipeline that makes the weights: data, chains, SFT, evaluation. One module and one verb a stage; stages talk
//! through folders with a `manifest.json`, never through memory.

pub mod batch;
pub mod bench;
mod depth;
pub mod gasp;
pub mod grpo;
pub mod nano;
pub mod parallel;
pub mod sft;
pub mod situation;
pub mod student;
pub mod trainer;
