//! The stage `windows`: a list of windows for estimators that are programs of their own, such as
//! `training/baselines/classical.py`. What they write, `eval --estimator tum:FOLDER` judges.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use geometry::{Intrinsics, WINDOW};
use serde::Serialize;

use crate::{WindowSample, json, parse_source};

/// `windows.json`.
#[derive(Debug, Serialize)]
pub struct List {
    /// The source, as it was asked for.
    pub data: String,
    /// The windows.
    pub windows: Vec<Entry>,
    /// Those that can't be read.
    pub unreadable: Vec<Unreadable>,
}

/// A window.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// As in the reports of `eval`.
    pub id: String,
    /// Whether its lengths are metres.
    pub metric: bool,
    /// The files of its frames.
    pub frames: Vec<PathBuf>,
    /// Of all its frames.
    pub intrinsics: Intrinsics,
    /// Seconds.
    pub stamps: [f64; WINDOW],
}

/// A window that can't be read.
#[derive(Debug, Serialize)]
pub struct Unreadable {
    /// Its number in the source.
    pub index: u64,
    /// Why.
    pub error: String,
}

/// Writes `windows.json` to `out`: id, intrinsics, stamps in seconds, and the files of the five frames of each window;
/// frames that are not files, or are of a synthetic window, are written to `out/frames` first.
///
/// # Errors
/// A source that can't be read, a folder that can't be written, not one window that can be read. Single windows that can't are
/// listed under `unreadable`.
pub fn run(source: &str, out: &Path) -> Result<List> {
    let windows = parse_source(source)?;
    let folder = out.join("frames");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let (mut listed, mut unreadable) = (Vec::new(), Vec::new());
    for index in 0..windows.len() {
        match windows.sample(index) {
            Ok(sample) => listed.push(entry(&sample, &folder)?),
            Err(error) => unreadable.push(Unreadable { index, error: error.to_string() }),
        }
    }
    let list = List { data: source.to_owned(), windows: listed, unreadable };
    json::write(&out.join("windows.json"), &list)?;
    if let (true, Some(first)) = (list.windows.is_empty(), list.unreadable.first()) {
        bail!("{source}: not one of {} windows can be read: {}", list.unreadable.len(), first.error);
    }
    Ok(list)
}

fn entry(sample: &WindowSample, folder: &Path) -> Result<Entry> {
    let frames = match &sample.frames {
        Some(files) => files
            .iter()
            .map(|file| std::path::absolute(file).with_context(|| file.display().to_string()))
            .collect::<Result<Vec<_>>>()?,
        None => {
            let mut files = Vec::new();
            for (image, i) in sample.images.iter().zip(0..) {
                let file = std::path::absolute(folder.join(format!("{}-{i}.png", sample.id)))?;
                image.save(&file).with_context(|| file.display().to_string())?;
                files.push(file);
            }
            files
        }
    };
    Ok(Entry {
        id: sample.id.clone(),
        metric: sample.metric,
        frames,
        intrinsics: sample.intrinsics,
        stamps: sample.stamps.map(|stamp| stamp.as_seconds_f64()),
    })
}
