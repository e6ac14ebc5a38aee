//! What training and evaluation stand on: windows and films ([`source`](WindowSource), of recordings on disk and of the
//! generator [`synth`]), their [`depth`], the [`chains`] that are written of them in the words of [`prose`], and the
//! [`stage`]s that need no model.
//!
//! Conventions of data sets end here: what leaves this module is `world_from_camera` with optical camera axes, pixels
//! whose integer coordinates are their centres, z-depth in metres (scene units where a sequence is not metric). Each
//! layout's own conventions are converted in its reader under [`formats`], and nowhere else.

pub mod chains;
pub mod depth;
pub mod digest;
pub mod endpoint;
mod error;
mod films;
pub mod formats;
pub mod json;
mod order;
mod picture;
mod pixels;
pub mod prose;
pub mod random;
mod sequence;
mod source;
mod spec;
mod split;
pub mod stage;
pub mod synth;
pub mod vocabulary;
mod windows;

pub use error::Error;
pub use films::{Film, FilmFrame, FilmSource};
pub use formats::{Opened, Skipped};
pub use order::Order;
pub use picture::Image;
pub use sequence::{DepthFile, Frame, Sequence};
pub use source::{SYNTH_SIZE, WindowSample, WindowSource, synth_source};
pub use spec::parse_source;
pub use split::{Clip, Dealt, Given, Hashed, Part, PartSize, SplitConfig, SplitFile, WindowCount, split};
pub use windows::{Motion, Spacing};
