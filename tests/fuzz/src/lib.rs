//! What the node reads from outside, fed with bytes that nobody meant: the bodies of the fuzz targets. Each fails by
//! panicking, and returns whether the input came through to the end, so that a test can tell good seeds from stale ones.
//!
//! Everything is measured: no input may cost more memory than its length justifies. Under libFuzzer (`cargo xtask fuzz`)
//! inputs are guided by coverage; `cargo test` plays the seeds alone.

mod chain;
mod damage;
mod hook;
mod images;
mod memory;
mod reader;
mod recordings;

pub use chain::{chain_text, chain_write};
pub use damage::damaged_image;
pub use images::{camera_info, cdr, compressed_image, raw_image};
pub use recordings::mcap;
