//! From frames to words and back: the prompt, the chain of five steps, its grammar, and decoding.

pub mod budget;
pub mod chain;
pub mod chat;
pub mod decode;
pub mod fill;
pub(crate) mod generation;
pub mod grammar;
pub mod measured;
pub(crate) mod prefix;
pub mod prompt;
pub mod speculate;
