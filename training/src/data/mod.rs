//! Where windows come from: recorded sequences on disk and the synthetic generator, behind one type.
//!
//! Conventions of data sets end here: what leaves this module is `world_from_camera` with optical camera axes, pixels
//! whose integer coordinates are their centres, depth in metres (scene units where a sequence is not metric).

mod error;
mod sequence;
mod source;

pub use error::Error;
pub use sequence::Sequence;
pub use source::{SYNTH_SIZE, WindowSample, WindowSource, parse_source};
