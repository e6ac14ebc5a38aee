//! The stage `windows`: a list of windows for estimators that are programs of their own, such as
//! `training/baselines/classical.py`. What they write, `eval --estimator tum:FOLDER` judges.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::json::write_json;
use crate::{WindowSample, parse_source};

/// Writes `windows.json` to `out`: id, intrinsics, stamps in seconds, and the files of the five frames of each window;
/// frames that are not files, or are of a synthetic window, are written to `out/frames` first.
///
/// # Errors
/// A source that can't be read, a folder that can't be written. Windows that can't be read are listed under
/// `unreadable`.
pub fn run(source: &str, out: &Path) -> Result<Value> {
    let windows = parse_source(source)?;
    let folder = out.join("frames");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let (mut listed, mut unreadable) = (Vec::new(), Vec::new());
    for index in 0..windows.len() {
        match windows.sample(index) {
            Ok(sample) => listed.push(entry(&sample, &folder)?),
            Err(error) => unreadable.push(json!({"index": index, "error": error.to_string()})),
        }
    }
    let list = json!({"data": source, "windows": listed, "unreadable": unreadable});
    write_json(&out.join("windows.json"), &list)?;
    Ok(list)
}

fn entry(sample: &WindowSample, folder: &Path) -> Result<Value> {
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
    let k = &sample.intrinsics;
    Ok(json!({
        "id": sample.id, "metric": sample.metric, "frames": frames,
        "intrinsics": {"fx": k.fx, "fy": k.fy, "cx": k.cx, "cy": k.cy, "width": k.width, "height": k.height},
        "stamps": sample.stamps.map(|stamp| stamp.as_seconds_f64()),
    }))
}
