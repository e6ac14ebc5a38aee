//! The stage `split`: which videos and scenes are for training and which are never seen before the evaluation.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::digest::hex;
use crate::json::write;
use crate::source::id;
use crate::{Clip, Dealt, Given, Hashed, Part, Sequence, SplitConfig, SplitFile, WindowSource, parse_source, split};

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

/// Deals out the sources of recordings, or windows of them, and writes what went where, with a hash of each sequence's poses
/// and camera, so that a later set can be compared with this one. Gives one line a part.
///
/// # Errors
/// A source without videos or scenes, fewer of them or of their windows than the config asks for, a file that can't be written.
pub fn run(source: &str, config: &Path, out: &Path) -> Result<String> {
    let settings = read_config(config)?;
    ensure!(!settings.parts.is_empty(), "{}: expected at least one [[split]]", config.display());
    let all = parse_source(source)?;
    let WindowSource::Recorded { sequences, spacing, windows, skipped } = &all else {
        anyhow::bail!("--data: expected recordings, got {source}");
    };
    let mut ids: Vec<Vec<String>> = vec![Vec::new(); sequences.len()];
    for (number, frames) in windows {
        ids[*number].push(id(&sequences[*number], spacing, frames));
    }
    let counted = sequences.iter().zip(&ids);
    let clips: Vec<Clip<'_>> =
        counted.map(|(s, ids)| Clip { source: s.source(), name: s.name(), windows: ids.len() }).collect();
    let dealt = split(&clips, &SplitConfig { parts: settings.parts.clone() }, settings.seed)?;
    let (mut parts, mut lines) = (BTreeMap::new(), String::new());
    for (name, given) in dealt {
        let dealt = of_part(sequences, &ids, given);
        let (sources, sequences, frames) = (dealt.sources.len(), dealt.sequences.len(), dealt.frames);
        write!(lines, "{name}: {sources} sources, {sequences} sequences, {frames} frames")?;
        match &dealt.windows {
            Some(windows) => writeln!(lines, ", {} of their windows", windows.len())?,
            None => writeln!(lines)?,
        }
        parts.insert(name, dealt);
    }
    let (stage, config) = ("split".to_owned(), serde_json::to_value(&settings)?);
    write(out, &SplitFile { stage, data: source.to_owned(), config, parts, skipped: skipped.clone() })?;
    Ok(lines)
}

/// What is written of a part: the sequences that it has windows of, or all of its sources'. `ids` are the windows of each
/// sequence.
fn of_part(sequences: &[Sequence], ids: &[Vec<String>], given: Given) -> Dealt {
    let Given { sources, windows } = given;
    let (mut listed, mut hashed, mut frames) = (Vec::new(), Vec::new(), 0);
    for (sequence, ids) in sequences.iter().zip(ids) {
        match &windows {
            Some(clips) => {
                let Some(numbers) = clips.get(sequence.name()) else { continue };
                listed.extend(numbers.iter().map(|number| ids[*number].clone()));
            }
            None if sources.iter().all(|source| source != sequence.source()) => continue,
            None => (),
        }
        hashed.push(Hashed { name: sequence.name().to_owned(), sha256: hash(sequence) });
        frames += sequence.frames();
    }
    Dealt { sources, sequences: hashed, frames, windows: windows.map(|_| listed) }
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
