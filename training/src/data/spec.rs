//! One text per source of windows: what `--data` takes.

use super::error::Error;
use super::formats::{Opened, Pictures, Videos, open_all, open_realestate, open_ros2};
use super::source::{SYNTH_SIZE, WindowSource};
use super::windows::{Motion, Spacing};
use crate::synth::SynthConfig;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Frames within which the next frame of a window is looked for where motion spaces them and the source does not say.
const REACH: usize = 48;
const KEYS: &str = "stride=N, every=N, motion=DEGREES, move=UNITS, reach=N, part=FILE:NAME or pose_frame=NAME";
const RE10K_KEYS: &str = "frames=DIR, or videos=DIR with cache=DIR and ffmpeg=PATH, or a key of every recording";

/// Reads the text of a source:
/// * `synth:seed=9001,windows=500[,size=320x240]`: the generator.
/// * `PATH`: a recording in any layout of [`super::formats`], or a folder of recordings, of which those that cannot be
///   read are skipped.
/// * `re10k:POSES,frames=DIR` or `re10k:POSES,videos=DIR[,cache=DIR][,ffmpeg=PATH]`: RealEstate10K, `POSES` a file or a
///   folder of them. Frames lie at `DIR/CLIP/TIMESTAMP.jpg`, or are cut from `DIR/YOUTUBE_ID.mp4` into the cache
///   (`DIR/frames` where it is not given).
///
/// Recordings take `,stride=1`: frames from one frame of a window to the next; or `,motion=DEGREES` and `,move=UNITS`:
/// the next frame is the first that has turned or moved by more, at most `,reach=48` frames on; and `,every=1`: windows
/// start at every n-th frame. No window goes across a hole in a recording. Those of ROS 2 take `,pose_frame=NAME`, the
/// frame that their poses are of ([`open_ros2`]): a `PoseStamped` names only the one that they are in.
///
/// # Errors
/// [`Error::Spec`], and those of opening.
pub fn parse_source(spec: &str) -> Result<WindowSource, Error> {
    let mut parts = spec.split(',').map(str::trim);
    let first = parts.next().unwrap_or_default();
    if let Some(synth) = first.strip_prefix("synth:") {
        return synthetic(spec, std::iter::once(synth).chain(parts));
    }
    let wrong = |expected, got: &str| Error::Spec { spec: spec.to_owned(), expected, got: got.to_owned() };
    let poses = first.strip_prefix("re10k:");
    let keys = if poses.is_some() { RE10K_KEYS } else { KEYS };
    let mut values: BTreeMap<&str, &str> = BTreeMap::new();
    for part in parts {
        let (key, value) = part.split_once('=').ok_or_else(|| wrong(keys, part))?;
        let known = match key {
            "stride" | "every" | "motion" | "move" | "reach" | "part" => true,
            "frames" | "videos" | "cache" | "ffmpeg" => poses.is_some(),
            "pose_frame" => poses.is_none(),
            _ => false,
        };
        if !known || values.insert(key, value).is_some() {
            return Err(wrong(if known { "each key once" } else { keys }, part));
        }
    }
    let count = |key: &str| -> Result<Option<usize>, Error> {
        let parsed = |value: &&str| value.parse().ok().filter(|&n: &usize| n > 0);
        let number = |value: &&str| parsed(value).ok_or_else(|| wrong("a whole number above 0", value));
        values.get(key).map(number).transpose()
    };
    let amount = |key: &str| -> Result<Option<f64>, Error> {
        let parsed = |value: &&str| value.parse().ok().filter(|&x: &f64| x.is_finite() && x > 0.0);
        let number = |value: &&str| parsed(value).ok_or_else(|| wrong("a number above 0", value));
        values.get(key).map(number).transpose()
    };
    let every = count("every")?.unwrap_or(1);
    let spacing = match (count("stride")?, amount("motion")?, amount("move")?, count("reach")?) {
        (stride, None, None, None) => Spacing::Stride(stride.unwrap_or(1)),
        (None, angle_deg, distance, reach) if angle_deg.is_some() || distance.is_some() => {
            Spacing::Motion(Motion { angle_deg, distance, reach: reach.unwrap_or(REACH) })
        }
        _ => return Err(wrong("stride=N, or motion=DEGREES and move=UNITS with reach=N", spec)),
    };
    let of = |opened: Opened, path: &Path| {
        let all = WindowSource::of(opened, spacing, every, path)?;
        let Some(part) = values.get("part") else { return Ok(all) };
        let sources = part_of(part).ok_or_else(|| wrong("FILE:NAME of a part that the stage split wrote", part))?;
        let left = all.only(&sources);
        if left.is_empty() { Err(wrong("a part with windows", part)) } else { Ok(left) }
    };
    let Some(poses) = poses else {
        let path = Path::new(first);
        let opened = match values.get("pose_frame") {
            None => open_all(path),
            Some(&"") => return Err(wrong("the name of a frame for pose_frame", spec)),
            Some(frame) => open_ros2(path, frame),
        };
        return of(opened?, path);
    };
    let folder = |key: &str| values.get(key).map(PathBuf::from);
    let pictures = match (folder("frames"), folder("videos"), folder("cache"), folder("ffmpeg")) {
        (Some(frames), None, None, None) => Pictures::Frames(frames),
        (None, Some(directory), cache, ffmpeg) => Pictures::Videos(Videos {
            cache: cache.unwrap_or_else(|| directory.join("frames")),
            ffmpeg: ffmpeg.unwrap_or_else(|| PathBuf::from("ffmpeg")),
            directory,
        }),
        _ => return Err(wrong("frames=DIR, or videos=DIR with cache=DIR and ffmpeg=PATH", spec)),
    };
    let path = Path::new(poses);
    of(open_realestate(path, &pictures)?, path)
}

/// The sources of a part: `FILE:NAME`, of a file that the stage `split` wrote.
fn part_of(text: &str) -> Option<Vec<String>> {
    let (file, name) = text.rsplit_once(':')?;
    let split: serde_json::Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    serde_json::from_value(split["parts"][name]["sources"].clone()).ok()
}

fn synthetic<'a>(spec: &str, parts: impl Iterator<Item = &'a str>) -> Result<WindowSource, Error> {
    let wrong = |expected, got: &str| Error::Spec { spec: spec.to_owned(), expected, got: got.to_owned() };
    let (mut seed, mut windows, mut size) = (None, None, SYNTH_SIZE);
    for part in parts {
        match part.split_once('=') {
            Some(("seed", value)) => {
                let number = value.parse();
                seed = Some(number.map_err(|_| wrong("a whole number for seed", value))?);
            }
            Some(("windows", value)) => {
                let number = value.parse();
                windows = Some(number.map_err(|_| wrong("a whole number for windows", value))?);
            }
            Some(("size", value)) => {
                let sides = value.split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
                let good = |&(w, h): &(u32, u32)| (8..=4096).contains(&w) && (8..=4096).contains(&h);
                size = sides.filter(good).ok_or_else(|| wrong("WIDTHxHEIGHT, each 8 to 4096", value))?;
            }
            _ => return Err(wrong("seed=N, windows=N or size=WxH", part)),
        }
    }
    let seed = seed.ok_or_else(|| wrong("seed=N", spec))?;
    let windows = windows.filter(|&n| n > 0).ok_or_else(|| wrong("windows=N with N above 0", spec))?;
    Ok(WindowSource::Synth { seed, windows, size, config: SynthConfig::default() })
}

#[cfg(test)]
mod tests {
    use super::parse_source;
    use geometry::WINDOW;
    use std::path::Path;

    #[test]
    fn motion_spaces_the_frames_of_a_window() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/amazon_box");
        let source = parse_source(&format!("{},motion=3,reach=10,every=2", path.display())).unwrap();
        let sample = source.sample(0).unwrap();
        assert_eq!((sample.id.as_str(), sample.frame_indices), ("amazon_box-m3-0", [0, 5, 7, 9, 11]));
        for i in 1..WINDOW {
            let angle = sample.ground_truth.relative(i - 1, i).rotation().angle().to_degrees();
            assert!(angle > 3.0, "{angle} degrees");
        }
        for (keys, part) in [
            ("motion=3,stride=2", "stride=N, or motion=DEGREES"),
            ("reach=3", "stride=N, or motion=DEGREES"),
            ("motion=-1", "above 0"),
            ("move=x", "above 0"),
            ("every=2,every=3", "once"),
            ("frames=/nowhere", "every=N"),
            ("stride", "every=N"),
            ("pose_frame=", "name of a frame"),
            ("pose_frame=base_link", "a recording of ROS 2"),
            ("motion=170,reach=2", "num_frames"),
        ] {
            let text = parse_source(&format!("{},{keys}", path.display())).unwrap_err().to_string();
            assert!(text.contains(part), "{keys}: {text}");
        }
        let error = parse_source("re10k:/nowhere,pose_frame=base_link").unwrap_err().to_string();
        assert!(error.contains("frames=DIR") && error.contains("pose_frame=base_link"), "{error}");
        for text in ["re10k:/nowhere", "re10k:/nowhere,frames=a,videos=b", "re10k:/nowhere,frames=a,cache=b"] {
            let error = parse_source(text).unwrap_err().to_string();
            assert!(error.contains("frames=DIR, or videos=DIR"), "{error}");
        }
    }
}
