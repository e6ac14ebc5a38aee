//! A recorded sequence on disk: `sequence.json` beside `frames/000000.jpg`, ...
//!
//! Poses, where there are any, are camera-to-world with optical camera axes; other conventions are refused, not guessed.

use std::path::{Path, PathBuf};

use geometry::metrics::SceneScale;
use geometry::{Camera, Intrinsics, Stamp, Transform, WINDOW, WindowTrajectory, World};
use serde::Deserialize;

/// Time between frames of a sequence that has no stamps.
const DEFAULT_PERIOD_NANOS: i64 = 100_000_000;

/// Why a folder is not a sequence.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// `sequence.json` does not hold what it must.
    #[error("{}: {message}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What was expected and what is there.
        message: String,
    },
}

/// Frames of one camera, with ground truth where it is known.
#[derive(Debug, Clone)]
pub struct Sequence {
    /// Its name.
    pub name: String,
    /// Of all frames.
    pub intrinsics: Intrinsics,
    /// Files of the frames, in the order of time.
    pub frames: Vec<PathBuf>,
    /// Times of exposure; made up at 10 Hz where the recording has none.
    pub stamps: Vec<Stamp>,
    /// One a frame.
    pub world_from_camera: Option<Vec<Transform<World, Camera>>>,
    /// What a scene unit is.
    pub scale: SceneScale,
}

/// Fields beyond these are notes on where the data come from.
#[derive(Deserialize)]
struct Raw {
    name: String,
    width: u32,
    height: u32,
    intrinsics: RawIntrinsics,
    num_frames: usize,
    #[serde(default)]
    metric: bool,
    timestamps: Option<Vec<f64>>,
    poses: Option<Vec<[f64; 16]>>,
    pose_convention: Option<String>,
    camera_axes: Option<String>,
}

#[derive(Deserialize)]
struct RawIntrinsics {
    fx: f64,
    fy: f64,
    cx: f64,
    cy: f64,
}

impl Sequence {
    /// Reads `dir/sequence.json`; the frames themselves are not opened.
    pub fn load(dir: &Path) -> Result<Self, Error> {
        let path = dir.join("sequence.json");
        let text = std::fs::read_to_string(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
        let wrong = |message: String| Error::Content { path: path.clone(), message };
        let raw: Raw = serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
        let RawIntrinsics { fx, fy, cx, cy } = raw.intrinsics;
        let intrinsics = Intrinsics::new(fx, fy, cx, cy, raw.width, raw.height).map_err(|e| wrong(e.to_string()))?;
        let same_length = |what: &str, got: usize| match got == raw.num_frames {
            true => Ok(()),
            false => Err(wrong(format!("{what}: expected num_frames = {}, got {got}", raw.num_frames))),
        };
        let stamps = match raw.timestamps {
            Some(seconds) => {
                same_length("timestamps", seconds.len())?;
                seconds.into_iter().map(Stamp::from_seconds_f64).collect()
            }
            None => (0..raw.num_frames as i64).map(|i| Stamp::from_nanos(i * DEFAULT_PERIOD_NANOS)).collect(),
        };
        let world_from_camera = match raw.poses {
            None => None,
            Some(poses) => {
                same_length("poses", poses.len())?;
                let convention = raw.pose_convention.as_deref().unwrap_or("nothing");
                if convention != "camera_to_world" {
                    return Err(wrong(format!("pose_convention: expected camera_to_world, got {convention}")));
                }
                let axes = raw.camera_axes.as_deref().unwrap_or("nothing");
                if !axes.starts_with("opencv") {
                    return Err(wrong(format!("camera_axes: expected opencv, got {axes}")));
                }
                let parsed = poses.iter().enumerate().map(|(i, pose)| {
                    Transform::from_matrix_row_major(pose).map_err(|e| wrong(format!("pose {i}: {e}")))
                });
                Some(parsed.collect::<Result<_, _>>()?)
            }
        };
        let frames = (0..raw.num_frames).map(|i| dir.join(format!("frames/{i:06}.jpg"))).collect();
        let scale = SceneScale { metric: raw.metric, median_depth: None };
        Ok(Self { name: raw.name, intrinsics, frames, stamps, world_from_camera, scale })
    }

    /// The true poses of five frames.
    pub fn ground_truth(&self, frames: [usize; WINDOW]) -> Option<WindowTrajectory> {
        let poses = self.world_from_camera.as_ref()?;
        if frames.iter().any(|&i| i >= poses.len()) {
            return None;
        }
        Some(WindowTrajectory::from_world(&frames.map(|i| poses[i])))
    }

    /// `m` or `units`.
    pub fn unit(&self) -> &'static str {
        if self.scale.metric { "m" } else { "scene units" }
    }
}

#[cfg(test)]
mod tests {
    use super::Sequence;

    fn load(json: &str) -> Result<Sequence, super::Error> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("sequence.json"), json).unwrap();
        Sequence::load(dir.path())
    }

    fn json(poses: &str, extra: &str) -> String {
        format!(
            r#"{{"name": "s", "width": 64, "height": 48, "num_frames": 2, "camera_axes": "opencv (x right)",
            "intrinsics": {{"fx": 50, "fy": 50, "cx": 32, "cy": 24}}, "poses": {poses}, {extra}}}"#
        )
    }

    const CAMERA_TO_WORLD: &str = r#""pose_convention": "camera_to_world", "timestamps": null"#;
    const POSES: &str = "[[1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1], [1,0,0,3, 0,1,0,0, 0,0,1,0, 0,0,0,1]]";

    #[test]
    fn a_sequence_without_stamps_is_at_ten_hertz() {
        let sequence = load(&json(POSES, CAMERA_TO_WORLD)).unwrap();
        assert_eq!(sequence.stamps.iter().map(|s| s.nanos).collect::<Vec<_>>(), [0, 100_000_000]);
        assert!(sequence.frames[1].ends_with("frames/000001.jpg"));
        let truth = sequence.ground_truth([0, 0, 0, 0, 1]).unwrap();
        assert_eq!(truth.anchor_from_camera[4].translation().x.to_bits(), 3.0_f64.to_bits());
        assert!(sequence.ground_truth([0, 0, 0, 0, 2]).is_none());
    }

    #[test]
    fn a_sequence_without_poses_has_no_ground_truth() {
        let sequence = load(&json("null", r#""timestamps": [1.5, 1.75]"#)).unwrap();
        assert!(sequence.ground_truth([0, 0, 0, 0, 1]).is_none());
        assert_eq!(sequence.stamps[1].nanos, 1_750_000_000);
    }

    #[test]
    fn other_conventions_and_broken_files_are_refused() {
        let rows = [
            (json(POSES, r#""pose_convention": "world_to_camera""#), "expected camera_to_world"),
            (json(POSES, CAMERA_TO_WORLD).replace("opencv", "opengl"), "expected opencv"),
            (json("[]", CAMERA_TO_WORLD), "poses: expected num_frames = 2, got 0"),
            (json("null", r#""timestamps": [1.0]"#), "timestamps: expected num_frames = 2, got 1"),
            (json(&POSES.replace("[1,0,0,3", "[2,0,0,3"), CAMERA_TO_WORLD), "pose 1"),
            (json(POSES, CAMERA_TO_WORLD).replace(r#""fx": 50"#, r#""fx": 0"#), "fx"),
            ("{".to_owned(), "EOF"),
        ];
        for (text, wanted) in rows {
            let message = load(&text).unwrap_err().to_string();
            assert!(message.contains(wanted) && message.contains("sequence.json"), "`{wanted}`: {message}");
        }
        let nowhere = Sequence::load(std::path::Path::new("/nowhere")).unwrap_err().to_string();
        assert!(nowhere.contains("/nowhere/sequence.json"), "{nowhere}");
    }
}
