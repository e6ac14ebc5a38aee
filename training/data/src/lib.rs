//! Where windows come from: recorded sequences on disk and the synthetic generator, behind one type.
//!
//! Conventions of data sets end here: what leaves this module is `world_from_camera` with optical camera axes, pixels
//! whose integer coordinates are their centres, z-depth in metres (scene units where a sequence is not metric). Each
//! layout's own conventions are converted in its reader under [`formats`], and nowhere else.

mod error;
mod films;
pub mod formats;
mod order;
mod picture;
mod pixels;
mod sequence;
mod source;
mod spec;
mod split;
mod windows;

pub use error::Error;
pub use films::{Film, FilmFrame, FilmSource};
pub use formats::{Opened, Skipped};
pub use order::Order;
pub use picture::Image;
pub use sequence::{DepthFile, Frame, Sequence};
pub use source::{SYNTH_SIZE, WindowSample, WindowSource};
pub use spec::parse_source;
pub use split::{Part, PartSize, SplitConfig, split};
pub use windows::{Motion, Spacing};
