//! The pipeline that makes the weights: data, chains, SFT, evaluation. One module and one verb a stage; stages talk
//! through folders with a `manifest.json`, never through memory.

pub mod batch;
pub mod bench;
pub mod chains;
mod curves;
pub mod data;
pub mod depth;
pub mod endpoint;
pub mod eval;
pub mod gasp;
pub mod grpo;
pub mod nano;
pub mod parallel;
pub mod prose;
pub mod serve;
pub mod sft;
pub mod situation;
pub mod split;
pub mod student;
pub mod synth;
pub mod trainer;
pub mod vocabulary;
pub mod windows;
