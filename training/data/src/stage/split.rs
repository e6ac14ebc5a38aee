//! The stage `split`: which videos and scenes are for training and which are never seen before the evaluation.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::digest::hex;
use crate::json::write;
use crate::{Dealt, Hashed, Part, Sequence, SplitConfig, SplitFile, WindowSource, parse_source, split};

/// Settings of the stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Seed of the order in which sources are dealt out.
    pub seed: u64,
    /// The parts.
    #[serde(rename = "split")]
    pub parts: Vec<Part>,
}

/// Reads a config.
///
/// # Errors
/// A file that is missing or not as it should be.
pub fn read_config(path: &Path) -> Result<Config> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    toml::from_str(&text).with_context(|| path.display().to_string())
}

/// Deals out the sources of recordings and writes who went where, with a hash of each sequence's poses and camera, so
/// that a later set can be compared with this one. Gives one line a part.
///
/// # Errors
/// A source without videos or scenes, fewer of them than the config asks for, a file that can't be written.
pub fn run(source: &str, config: &Path, out: &Path) -> Result<String> {
    let settings = read_config(config)?;
    let windows = parse_source(source)?;
    let WindowSource::Recorded { sequences, skipped, .. } = &windows else {
        anyhow::bail!("--data: expected recordings, got {source}");
    };
    let sources: Vec<String> = sequences.iter().map(|s| s.source().to_owned()).collect();
    let dealt = split(&sources, &SplitConfig { parts: settings.parts.clone() }, settings.seed)?;
    let (mut parts, mut lines) = (BTreeMap::new(), String::new());
    for (name, sources) in &dealt {
        let of_part: Vec<_> = sequences.iter().filter(|s| sources.iter().any(|source| source == s.source())).collect();
        let hashed = |s: &&Sequence| Hashed { name: s.name().to_owned(), sha256: hash(s) };
        let frames: usize = of_part.iter().map(|s| s.frames()).sum();
        writeln!(lines, "{name}: {} sources, {} sequences, {frames} frames", sources.len(), of_part.len())?;
        let sequences = of_part.iter().map(hashed).collect();
        parts.insert(name.clone(), Dealt { sources: sources.clone(), sequences, frames });
    }
    ensure!(!parts.is_empty(), "{}: expected at least one [[split]]", config.display());
    let (stage, config) = ("split".to_owned(), serde_json::to_value(&settings)?);
    write(out, &SplitFile { stage, data: source.to_owned(), config, parts, skipped: skipped.clone() })?;
    Ok(lines)
}

/// Of the camera and the poses.
fn hash(sequence: &Sequence) -> String {
    let mut hash = Sha256::new();
    let k = sequence.intrinsics();
    for number in [k.fx, k.fy, k.cx, k.cy] {
        hash.update(number.to_le_bytes());
    }
    for index in 0..sequence.frames() {
        if let Ok(pose) = sequence.world_from_camera(index) {
            pose.to_matrix_row_major().iter().for_each(|number| hash.update(number.to_le_bytes()));
        }
    }
    hex(&hash.finalize())
}
