//! One text per source of windows: what `--data` takes.

use super::error::Error;
use super::formats::{Opened, Pictures, Ros2Options, Videos, open_all, open_realestate, open_ros2};
use super::json::read;
use super::source::{SYNTH_SIZE, WindowSource};
use super::split::{Dealt, SplitFile};
use super::windows::{Motion, Spacing};
use crate::synth::{Stratum, SynthConfig};
use camera::info::Images;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Frames within which the next frame of a window is looked for where motion spaces them and the source does not say.
const REACH: usize = 48;
const KEYS: &str = "stride=N, period_millis=N, every=N, motion=DEGREES, move=UNITS, reach=N, part=FILE:NAME, or of ROS 2 pose_topic=NAME, pose_frame=NAME, world_frame=NAME, image_topic=NAME, info_topic=NAME, images=rectified";
const RE10K_KEYS: &str = "frames=DIR, or videos=DIR with cache=DIR and ffmpeg=PATH, or a key of every recording";
const FILM_KEYS: &str = "part=FILE:NAME, or of ROS 2 pose_topic=NAME, pose_frame=NAME, world_frame=NAME, image_topic=NAME, info_topic=NAME, images=rectified";
const RE10K_FILM_KEYS: &str = "frames=DIR, or videos=DIR with cache=DIR and ffmpeg=PATH, or part=FILE:NAME";

/// Reads the text of a source:
/// * `synth:seed=9001,windows=500[,size=320x240][,stratum=NAME]`: the generator, or a [`Stratum`] of it.
/// * `PATH`: a recording in any layout of [`super::formats`], or a folder of recordings, of which those that cannot be
///   read are skipped.
/// * `re10k:POSES,frames=DIR` or `re10k:POSES,videos=DIR[,cache=DIR][,ffmpeg=PATH]`: RealEstate10K, `POSES` a file or a
///   folder of them. Frames lie at `DIR/CLIP/TIMESTAMP.jpg`, or are cut from `DIR/YOUTUBE_ID.mp4` into the cache
///   (`DIR/frames` where it is not given).
///
/// Recordings take `,stride=1`: frames from one frame of a window to the next, of all or of those alone that are about
/// `,period_millis=250` apart; or `,motion=DEGREES` and `,move=UNITS`: the next frame is the first that has turned or moved by
/// more, at most `,reach=48` frames on; and `,every=1`: windows start at every n-th frame that counts.
/// No window goes across a hole in a recording. Those of ROS 2 take `,pose_frame=NAME`, the frame that their poses are of ([`Ros2Options`]): a `PoseStamped` names only the one that they are in;
/// `,pose_topic=NAME` where several have poses, or those of our own node are asked for; `,world_frame=NAME`, the frame in which
/// `/tf` says where the camera is; `,image_topic=NAME` and `,info_topic=NAME` where there are several; and `,images=rectified`
/// where the topic's images are so already.
///
/// # Errors
/// [`Error::Spec`], and those of opening.
pub fn parse_source(spec: &str) -> Result<WindowSource, Error> {
    if let Some(keys) = synth_keys(spec) {
        return synthetic(spec, keys);
    }
    let keys = Keys::of(spec, &["stride", "period_millis", "every", "motion", "move", "reach"], KEYS, RE10K_KEYS)?;
    let count = |key: &str| -> Result<Option<usize>, Error> {
        let parsed = |value: &&str| value.parse().ok().filter(|&n: &usize| n > 0);
        let number = |value: &&str| parsed(value).ok_or_else(|| keys.wrong("a whole number above 0", value));
        keys.values.get(key).map(number).transpose()
    };
    let amount = |key: &str| -> Result<Option<f64>, Error> {
        let parsed = |value: &&str| value.parse().ok().filter(|&x: &f64| x.is_finite() && x > 0.0);
        let number = |value: &&str| parsed(value).ok_or_else(|| keys.wrong("a number above 0", value));
        keys.values.get(key).map(number).transpose()
    };
    let every = count("every")?.unwrap_or(1);
    let period = count("period_millis")?.map(|millis| Duration::from_millis(millis as u64));
    let spacing = match (period, count("stride")?, amount("motion")?, amount("move")?, count("reach")?) {
        (None, stride, None, None, None) => Spacing::Stride(stride.unwrap_or(1)),
        (Some(period), stride, None, None, None) => Spacing::Paced { period, stride: stride.unwrap_or(1) },
        (None, None, angle_deg, distance, reach) if angle_deg.is_some() || distance.is_some() => {
            Spacing::Motion(Motion { angle_deg, distance, reach: reach.unwrap_or(REACH) })
        }
        _ => {
            return Err(keys.wrong("period_millis=N and stride=N, or motion=DEGREES and move=UNITS with reach=N", spec));
        }
    };
    let all = WindowSource::of(keys.open()?.told(), spacing, every, keys.path)?;
    let Some(part) = keys.values.get("part") else { return Ok(all) };
    let Dealt { sources, windows: listed, .. } = keys.dealt(part)?;
    let mut left = all.only(&sources);
    if let Some(listed) = &listed {
        left = left.only_windows(&listed.iter().map(String::as_str).collect::<BTreeSet<_>>());
        let (got, asked) = (left.len(), listed.len() as u64);
        if got != asked {
            let expected = "every window that the part lists (the same data, stride, period_millis, every, motion and move as \
                            split was given)";
            return Err(keys.wrong(expected, &format!("{got} of {asked} of {part}")));
        }
    }
    if left.is_empty() { Err(keys.wrong("a part with windows", part)) } else { Ok(left) }
}

/// Opens the recordings that a text names, whole.
pub(super) fn recorded_films(spec: &str) -> Result<Opened, Error> {
    let keys = Keys::of(spec, &[], FILM_KEYS, RE10K_FILM_KEYS)?;
    let mut opened = keys.open()?.told();
    if let Some(part) = keys.values.get("part") {
        let Dealt { sources, .. } = keys.dealt(part)?;
        opened.sequences.retain(|sequence| sources.iter().any(|source| source == sequence.source()));
        if opened.sequences.is_empty() {
            return Err(keys.wrong("a part with recordings", part));
        }
    }
    Ok(opened)
}

/// The text of a source of recordings, taken apart.
struct Keys<'a> {
    spec: &'a str,
    /// The recordings, or the text files of RealEstate10K.
    path: &'a Path,
    realestate: bool,
    values: BTreeMap<&'a str, &'a str>,
}

impl<'a> Keys<'a> {
    /// `own` are keys beside those that open a recording; `expected` and `expected_re10k` are what an error lists.
    fn of(spec: &'a str, own: &[&str], expected: &'static str, expected_re10k: &'static str) -> Result<Self, Error> {
        let mut parts = spec.split(',').map(str::trim);
        let first = parts.next().unwrap_or_default();
        let poses = first.strip_prefix("re10k:");
        let expected = if poses.is_some() { expected_re10k } else { expected };
        let path = Path::new(poses.unwrap_or(first));
        let mut keys = Self { spec, path, realestate: poses.is_some(), values: BTreeMap::new() };
        for part in parts {
            let (key, value) = part.split_once('=').ok_or_else(|| keys.wrong(expected, part))?;
            let known = match key {
                "part" => true,
                "frames" | "videos" | "cache" | "ffmpeg" => keys.realestate,
                "pose_frame" | "pose_topic" | "world_frame" | "image_topic" | "info_topic" | "images" => {
                    !keys.realestate
                }
                _ => own.contains(&key),
            };
            if !known || keys.values.insert(key, value).is_some() {
                return Err(keys.wrong(if known { "each key once" } else { expected }, part));
            }
        }
        Ok(keys)
    }

    fn wrong(&self, expected: &'static str, got: &str) -> Error {
        Error::Spec { spec: self.spec.to_owned(), expected, got: got.to_owned() }
    }

    /// What can be read, and in the log what is hard to believe of its cameras.
    fn open(&self) -> Result<Opened, Error> {
        let mut opened = self.opened()?;
        for sequence in &mut opened.sequences {
            sequence.find_sample_ranges();
            sequence.doubts().iter().for_each(|doubt| tracing::warn!("{doubt}"));
        }
        Ok(opened)
    }

    fn opened(&self) -> Result<Opened, Error> {
        if !self.realestate {
            let options = self.ros2()?;
            return if options == Ros2Options::default() {
                open_all(self.path)
            } else {
                open_ros2(self.path, &options)
            };
        }
        let folder = |key: &str| self.values.get(key).map(PathBuf::from);
        let pictures = match (folder("frames"), folder("videos"), folder("cache"), folder("ffmpeg")) {
            (Some(frames), None, None, None) => Pictures::Frames(frames),
            (None, Some(directory), cache, ffmpeg) => Pictures::Videos(Videos {
                cache: cache.unwrap_or_else(|| directory.join("frames")),
                ffmpeg: ffmpeg.unwrap_or_else(|| PathBuf::from("ffmpeg")),
                directory,
            }),
            _ => return Err(self.wrong("frames=DIR, or videos=DIR with cache=DIR and ffmpeg=PATH", self.spec)),
        };
        open_realestate(self.path, &pictures)
    }

    /// What the text says of recordings of ROS 2.
    fn ros2(&self) -> Result<Ros2Options, Error> {
        let name = |key: &str, expected: &'static str| match self.values.get(key) {
            Some(&"") => Err(self.wrong(expected, self.spec)),
            value => Ok(value.map(|value| (*value).to_owned())),
        };
        let images = match self.values.get("images") {
            None => None,
            Some(&"raw") => Some(Images::Raw),
            Some(&"rectified") => Some(Images::Rectified),
            Some(other) => return Err(self.wrong("raw or rectified for images", other)),
        };
        Ok(Ros2Options {
            pose_frame: name("pose_frame", "the name of a frame for pose_frame")?,
            pose_topic: name("pose_topic", "the name of a topic for pose_topic")?,
            world_frame: name("world_frame", "the name of a frame for world_frame")?,
            image_topic: name("image_topic", "the name of a topic for image_topic")?,
            info_topic: name("info_topic", "the name of a topic for info_topic")?,
            images,
        })
    }

    /// What went into the part `FILE:NAME`.
    fn dealt(&self, part: &str) -> Result<Dealt, Error> {
        part_of(part).ok_or_else(|| self.wrong("FILE:NAME of a part that the stage split wrote", part))
    }
}

/// A part: `FILE:NAME`, of a file that the stage `split` wrote.
fn part_of(text: &str) -> Option<Dealt> {
    let (file, name) = text.rsplit_once(':')?;
    let mut split: SplitFile = read(Path::new(file)).ok()?;
    split.parts.remove(name)
}

/// The keys of a text that begins with `synth:`, or none where it does not.
pub(super) fn synth_keys(spec: &str) -> Option<impl Iterator<Item = &str>> {
    Some(spec.trim_start().strip_prefix("synth:")?.split(',').map(str::trim))
}

/// What a text says of the generator; `counts` are the values of keys that the caller names.
pub(super) struct SynthSpec<const N: usize> {
    pub seed: u64,
    pub size: (u32, u32),
    pub stratum: Option<Stratum>,
    pub counts: [Option<u64>; N],
}

impl<const N: usize> SynthSpec<N> {
    /// `expected` is what an error lists for an unknown key.
    pub fn parse<'a>(
        spec: &str,
        parts: impl Iterator<Item = &'a str>,
        count_keys: [&str; N],
        expected: &'static str,
    ) -> Result<Self, Error> {
        let wrong = |expected, got: &str| Error::Spec { spec: spec.to_owned(), expected, got: got.to_owned() };
        let (mut seed, mut size, mut stratum, mut counts) = (None, SYNTH_SIZE, None, [None; N]);
        for part in parts {
            let (key, value) = part.split_once('=').ok_or_else(|| wrong(expected, part))?;
            match key {
                "seed" => seed = Some(value.parse().map_err(|_| wrong("a whole number for seed", value))?),
                "size" => {
                    let sides = value.split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
                    let good = |&(w, h): &(u32, u32)| (8..=4096).contains(&w) && (8..=4096).contains(&h);
                    size = sides.filter(good).ok_or_else(|| wrong("WIDTHxHEIGHT, each 8 to 4096", value))?;
                }
                "stratum" => stratum = Some(Stratum::named(value).ok_or_else(|| wrong(Stratum::NAMES, value))?),
                _ => {
                    let place = count_keys.iter().position(|&other| other == key);
                    let place = place.ok_or_else(|| wrong(expected, part))?;
                    counts[place] = Some(value.parse().map_err(|_| wrong("a whole number of them", part))?);
                }
            }
        }
        let seed = seed.ok_or_else(|| wrong("seed=N", spec))?;
        Ok(Self { seed, size, stratum, counts: counts.map(|count| count.filter(|&n| n > 0)) })
    }
}

fn synthetic<'a>(spec: &str, parts: impl Iterator<Item = &'a str>) -> Result<WindowSource, Error> {
    let expected = "seed=N, windows=N, size=WxH or stratum=NAME (films=N and frames=N are for films)";
    let SynthSpec { seed, size, stratum, counts: [windows] } = SynthSpec::parse(spec, parts, ["windows"], expected)?;
    let none = || Error::Spec { spec: spec.to_owned(), expected: "windows=N with N above 0", got: spec.to_owned() };
    Ok(WindowSource::Synth { seed, windows: windows.ok_or_else(none)?, size, config: SynthConfig::default(), stratum })
}

#[cfg(test)]
mod tests {
    use super::parse_source;
    use geometry::WINDOW;
    use std::path::Path;

    #[test]
    fn motion_and_time_space_the_frames_of_a_window() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/amazon_box");
        let source = parse_source(&format!("{},motion=3,reach=10,every=2", path.display())).unwrap();
        let sample = source.sample(0).unwrap();
        assert_eq!((sample.id.as_str(), sample.frame_indices), ("amazon_box-m3-0", [0, 5, 7, 9, 11]));
        for i in 1..WINDOW {
            let angle = sample.ground_truth.relative(i - 1, i).rotation().angle().to_degrees();
            assert!(angle > 3.0, "{angle} degrees");
        }
        for (keys, part) in [
            ("motion=3,stride=2", "stride=N, or motion=DEGREES"),
            ("motion=3,period_millis=250", "period_millis=N and stride=N, or motion=DEGREES"),
            ("period_millis=0", "above 0"),
            ("period_millis=90000", "5 or more that are 90000 ms apart for windows of stride 1"),
            ("reach=3", "stride=N, or motion=DEGREES"),
            ("motion=-1", "above 0"),
            ("move=x", "above 0"),
            ("every=2,every=3", "once"),
            ("frames=/nowhere", "every=N"),
            ("stride", "every=N"),
            ("pose_frame=", "name of a frame"),
            ("pose_frame=base_link", "a recording of ROS 2"),
            ("images=raw", "a recording of ROS 2"),
            ("images=flat", "raw or rectified"),
            ("motion=170,reach=2", "num_frames"),
        ] {
            let text = parse_source(&format!("{},{keys}", path.display())).unwrap_err().to_string();
            assert!(text.contains(part), "{keys}: {text}");
        }
        // Its frames have no times of their own, which is 0.1 s.
        let paced = parse_source(&format!("{},period_millis=200,every=2", path.display())).unwrap();
        let sample = paced.sample(1).unwrap();
        assert_eq!((sample.id.as_str(), sample.frame_indices), ("amazon_box-t200s1-4", [4, 6, 8, 10, 12]));
        let error = parse_source("re10k:/nowhere,pose_frame=base_link").unwrap_err().to_string();
        assert!(error.contains("frames=DIR") && error.contains("pose_frame=base_link"), "{error}");
        for text in ["re10k:/nowhere", "re10k:/nowhere,frames=a,videos=b", "re10k:/nowhere,frames=a,cache=b"] {
            let error = parse_source(text).unwrap_err().to_string();
            assert!(error.contains("frames=DIR, or videos=DIR"), "{error}");
        }
    }
}
