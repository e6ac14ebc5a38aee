//! A recorded sequence on disk: `sequence.json`, `frames/%06d.jpg|jpeg|png` and perhaps `depth/%06d.png` (16-bit,
//! millimetres).
//!
//! ```json
//! {"name": "desk", "width": 640, "height": 480, "metric": true, "num_frames": 50, "timestamps": null,
//!  "intrinsics": {"fx": 525.0, "fy": 525.0, "cx": 319.5, "cy": 239.5}, "pose_convention": "camera_to_world",
//!  "camera_axes": "opencv (x right, y down, z forward)", "poses": [[1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]]}
//! ```
//! A pose is a 4x4 matrix, row after row; times are seconds. Without poses, what is said of them may be missing too.
//! `"scene"` and `"url"` say what the film is of, other keys where it comes from; those that would make the camera or the
//! poses other than they are read are refused. Other conventions are refused, not guessed.

use std::path::{Path, PathBuf};

use geometry::metrics::SceneScale;
use geometry::{Camera, Intrinsics, Stamp, Transform, WINDOW, WindowTrajectory, World};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Time between frames of a sequence that has no stamps.
pub const DEFAULT_PERIOD_NANOS: i64 = 100_000_000;

const FILE: &str = "sequence.json";

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
    /// `sequence.json` is no JSON of that form.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A key has a value that cannot be right.
    #[error("{}: {field}: expected {expected}, got {got}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The key.
        field: &'static str,
        /// Its bounds.
        expected: String,
        /// Its value.
        got: String,
    },
    /// The camera matrix is not one.
    #[error("{}: {source}", path.display())]
    Intrinsics {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: geometry::Error,
    },
    /// A pose is not a rigid transform.
    #[error("{}: pose of frame {index}: {source}", path.display())]
    Pose {
        /// The file.
        path: PathBuf,
        /// The frame.
        index: usize,
        /// What is wrong.
        source: geometry::Error,
    },
    /// A frame has no image.
    #[error("{}: frame {index}: expected {index:06}.jpg, .jpeg or .png, got no such file", path.display())]
    MissingFrame {
        /// The folder.
        path: PathBuf,
        /// The frame.
        index: usize,
    },
}

/// Frames of one camera, with ground truth where it is known.
#[derive(Debug, Clone)]
pub struct Sequence {
    /// Its folder.
    pub directory: PathBuf,
    /// Its name.
    pub name: String,
    /// What it was filmed in, where that is said.
    pub scene: Option<String>,
    /// The video that it was cut from, where that is said.
    pub url: Option<String>,
    /// Of all frames, pixels.
    pub intrinsics: Intrinsics,
    /// Files of the frames, in the order of time.
    pub frames: Vec<PathBuf>,
    /// Times of exposure, rising; made up at 10 Hz where the recording has none.
    pub stamps: Vec<Stamp>,
    /// One a frame, scene units.
    pub world_from_camera: Option<Vec<Transform<World, Camera>>>,
    /// What a scene unit is.
    pub scale: SceneScale,
}

/// Keys that would change the rays, the poses or the depth, if they were read; where they say no ([`is_zero`]), they pass.
static REFUSED: [&str; 20] = [
    "applied_scale",
    "applied_transform",
    "camera_model",
    "depth_factor",
    "depth_scale",
    "depth_unit_scale_factor",
    "dist_coeffs",
    "distortion",
    "distortion_coefficients",
    "distortion_model",
    "distortion_params",
    "extrinsics",
    "integer_depth_scale",
    "is_fisheye",
    "k1",
    "k2",
    "lens",
    "p1",
    "p2",
    "pose_scale",
];

/// Keys beyond these are notes on where the data come from, but for [`REFUSED`].
#[derive(Deserialize)]
struct Raw {
    name: String,
    scene: Option<String>,
    url: Option<String>,
    width: u32,
    height: u32,
    intrinsics: RawIntrinsics,
    num_frames: usize,
    metric: Option<bool>,
    timestamps: Option<Vec<f64>>,
    /// 4x4 row-major; `None` stands for a NaN, which JSON does not have.
    poses: Option<Vec<Vec<Option<f64>>>>,
    pose_convention: Option<String>,
    camera_axes: Option<String>,
    depth_unit: Option<String>,
    #[serde(flatten)]
    notes: Map<String, Value>,
}

/// Nothing else, such as a lens: it would be read over.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawIntrinsics {
    fx: f64,
    fy: f64,
    cx: f64,
    cy: f64,
}

/// Whether a folder has a `sequence.json`.
pub fn is_sequence(directory: &Path) -> bool {
    directory.join(FILE).is_file()
}

impl Sequence {
    /// Reads `directory/sequence.json`; the frames themselves are found and not opened.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub fn load(directory: &Path) -> Result<Self, Error> {
        let path = directory.join(FILE);
        let text = std::fs::read_to_string(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
        let raw: Raw = parse(&text).map_err(|source| Error::Json { path: path.clone(), source })?;
        for field in REFUSED {
            if let Some(got) = raw.notes.get(field).filter(|value| !is_zero(value)) {
                let expected = "nothing (images are of a pinhole, and poses as they are)";
                return Err(wrong(&path, field, expected, got.to_string()));
            }
        }
        if let Some(unit) =
            raw.depth_unit.as_deref().filter(|unit| !unit.starts_with("mm") && !unit.starts_with("milli"))
        {
            return Err(wrong(&path, "depth_unit", "mm", unit));
        }
        let RawIntrinsics { fx, fy, cx, cy } = raw.intrinsics;
        let intrinsics = Intrinsics::new(fx, fy, cx, cy, raw.width, raw.height)
            .and_then(Intrinsics::plausible)
            .map_err(|source| Error::Intrinsics { path: path.clone(), source })?;
        let world_from_camera = match &raw.poses {
            None => None,
            Some(poses) => {
                let (convention, axes) = (raw.pose_convention.as_deref(), raw.camera_axes.as_deref());
                if convention != Some("camera_to_world") {
                    return Err(wrong(&path, "pose_convention", "camera_to_world", convention.unwrap_or("nothing")));
                }
                // A note on what the axes are may follow.
                if !axes.is_some_and(|axes| axes.starts_with("opencv")) {
                    return Err(wrong(&path, "camera_axes", "opencv", axes.unwrap_or("nothing")));
                }
                if raw.metric.is_none() {
                    return Err(wrong(&path, "metric", "whether poses are in metres: true or false", "nothing"));
                }
                if poses.len() != raw.num_frames {
                    let got = format!("{} with {} poses", raw.num_frames, poses.len());
                    return Err(wrong(&path, "num_frames", "the number of poses", got));
                }
                Some(
                    poses
                        .iter()
                        .enumerate()
                        .map(|(index, pose)| rigid(&path, index, pose))
                        .collect::<Result<_, _>>()?,
                )
            }
        };
        // Before a stamp is made for each of num_frames, which may be any number.
        let frames = (0..raw.num_frames).map(|index| frame(directory, index)).collect::<Result<_, _>>()?;
        let stamps = stamps(&path, raw.timestamps.as_deref(), raw.num_frames)?;
        let scale = SceneScale { metric: raw.metric.unwrap_or(false), median_depth: None };
        let Raw { name, scene, url, .. } = raw;
        let directory = directory.to_owned();
        Ok(Self { directory, name, scene, url, intrinsics, frames, stamps, world_from_camera, scale })
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

/// JSON in which Python wrote NaN and Infinity, which are none. They become nulls, so that an error can name the pose.
///
/// # Errors
///
/// What is wrong with the text as it stands.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    serde_json::from_str(text).or_else(|error| {
        let repaired = text.replace("-Infinity", "null").replace("Infinity", "null").replace("NaN", "null");
        serde_json::from_str(&repaired).map_err(|_| error)
    })
}

/// Whether a value says no: null, false, zeros.
pub fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(is) => !is,
        Value::Number(number) => number.as_f64().is_some_and(|number| number.abs() < f64::MIN_POSITIVE),
        Value::Array(values) => values.iter().all(is_zero),
        Value::String(_) | Value::Object(_) => false,
    }
}

fn wrong(path: &Path, field: &'static str, expected: &str, got: impl Into<String>) -> Error {
    Error::Field { path: path.to_owned(), field, expected: expected.to_owned(), got: got.into() }
}

fn stamps(path: &Path, seconds: Option<&[f64]>, frames: usize) -> Result<Vec<Stamp>, Error> {
    let Some(seconds) = seconds else {
        return Ok((0..frames as i64).map(|i| Stamp::from_nanos(i * DEFAULT_PERIOD_NANOS)).collect());
    };
    if seconds.len() != frames {
        return Err(wrong(path, "timestamps", "one for each of num_frames", format!("{} times", seconds.len())));
    }
    let stamps: Vec<Stamp> = seconds.iter().map(|&seconds| Stamp::from_seconds_f64(seconds)).collect();
    let is_finite = seconds.iter().all(|seconds| seconds.is_finite());
    match stamps.windows(2).position(|pair| pair[0] >= pair[1]) {
        None if is_finite => Ok(stamps),
        None => Err(wrong(path, "timestamps", "seconds", "a number that is not finite")),
        Some(at) => {
            let got = format!("{} behind {} at frame {}", seconds[at + 1], seconds[at], at + 1);
            Err(wrong(path, "timestamps", "rising times", got))
        }
    }
}

fn rigid(path: &Path, index: usize, pose: &[Option<f64>]) -> Result<Transform<World, Camera>, Error> {
    let numbers: Vec<f64> = pose.iter().map(|x| x.unwrap_or(f64::NAN)).collect();
    let matrix = <&[f64; 16]>::try_from(numbers.as_slice())
        .map_err(|_| wrong(path, "poses", "16 numbers a pose", format!("{} in pose {index}", numbers.len())))?;
    Transform::from_matrix_row_major(matrix).map_err(|source| Error::Pose { path: path.to_owned(), index, source })
}

fn frame(directory: &Path, index: usize) -> Result<PathBuf, Error> {
    let folder = directory.join("frames");
    let names = ["jpg", "jpeg", "png"].map(|extension| folder.join(format!("{index:06}.{extension}")));
    names.into_iter().find(|path| path.is_file()).ok_or(Error::MissingFrame { path: folder, index })
}

#[cfg(test)]
mod tests {
    use super::{Error, Sequence};

    fn load(json: &str) -> Result<Sequence, Error> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("frames")).unwrap();
        for name in ["000000.jpg", "000001.png"] {
            std::fs::write(dir.path().join("frames").join(name), "").unwrap();
        }
        std::fs::write(dir.path().join("sequence.json"), json).unwrap();
        Sequence::load(dir.path())
    }

    fn json(poses: &str, extra: &str) -> String {
        format!(
            r#"{{"name": "s", "width": 64, "height": 48, "num_frames": 2, "camera_axes": "opencv (x right)",
            "intrinsics": {{"fx": 50, "fy": 50, "cx": 32, "cy": 24}}, "poses": {poses}, {extra}}}"#
        )
    }

    const CAMERA_TO_WORLD: &str = r#""pose_convention": "camera_to_world", "timestamps": null, "metric": true"#;
    const POSES: &str = "[[1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1], [1,0,0,3, 0,1,0,0, 0,0,1,0, 0,0,0,1]]";

    #[test]
    fn a_sequence_without_stamps_is_at_ten_hertz() {
        let sequence = load(&json(POSES, CAMERA_TO_WORLD)).unwrap();
        assert_eq!(sequence.stamps.iter().map(|s| s.nanos).collect::<Vec<_>>(), [0, 100_000_000]);
        assert!(sequence.frames[0].ends_with("frames/000000.jpg") && sequence.frames[1].ends_with("frames/000001.png"));
        let truth = sequence.ground_truth([0, 0, 0, 0, 1]).unwrap();
        assert_eq!(truth.anchor_from_camera()[4].translation().x.to_bits(), 3.0_f64.to_bits());
        assert!(sequence.ground_truth([0, 0, 0, 0, 2]).is_none());
    }

    #[test]
    fn a_sequence_without_poses_has_no_ground_truth() {
        let notes =
            r#""timestamps": [1.5, 1.75], "depth_unit": "mm, 16-bit PNG", "licence": "CC0", "distortion": [0, 0.0]"#;
        let sequence = load(&json("null", notes)).unwrap();
        assert!(sequence.ground_truth([0, 0, 0, 0, 1]).is_none());
        assert_eq!(sequence.stamps[1].nanos, 1_750_000_000);
    }

    #[test]
    fn other_conventions_and_broken_files_are_refused() {
        let nan = POSES.replace("[1,0,0,3", "[1,0,0,NaN");
        let rows = [
            (json(POSES, r#""pose_convention": "world_to_camera""#), "expected camera_to_world"),
            (json(POSES, r#""pose_convention": "camera_to_world_inverse""#), "got camera_to_world_inverse"),
            (json(POSES, r#""metric": true"#), "pose_convention: expected camera_to_world, got nothing"),
            (json(POSES, CAMERA_TO_WORLD).replace("opencv", "opengl"), "expected opencv"),
            (json(POSES, r#""pose_convention": "camera_to_world""#), "metric: expected whether"),
            (json("[]", CAMERA_TO_WORLD), "num_frames: expected the number of poses, got 2 with 0 poses"),
            (json("[[1], [1]]", CAMERA_TO_WORLD), "16 numbers a pose, got 1 in pose 0"),
            (json("null", r#""timestamps": [1.0]"#), "timestamps: expected one for each of num_frames, got 1 times"),
            (json("null", r#""timestamps": [2.0, 2.0]"#), "rising times, got 2 behind 2 at frame 1"),
            (json("null", r#""timestamps": null"#).replace(r#""cx""#, r#""k1": 0.1, "cx""#), "k1"),
            (json("null", r#""distortion": [0.1, 0]"#), "distortion: expected nothing (images are of a pinhole"),
            (json("null", r#""applied_scale": 0.5"#), "applied_scale: expected nothing"),
            (json("null", r#""depth_unit": "m""#), "depth_unit: expected mm, got m"),
            (
                json("null", r#""timestamps": null"#).replace(r#""cx": 32"#, r#""cx": 60"#),
                "cx: expected a principal point",
            ),
            (json("null", r#""timestamps": null"#).replace(r#""fx": 50"#, r#""fx": 0.78"#), "or in other units"),
            (json("null", r#""timestamps": null"#).replace(r#""num_frames": 2"#, r#""num_frames": 3"#), "000002.jpg"),
            (
                json("null", r#""timestamps": null"#)
                    .replace(r#""num_frames": 2"#, r#""num_frames": 1000000000000000"#),
                "000002.jpg",
            ),
            (json(&POSES.replace("[1,0,0,3", "[2,0,0,3"), CAMERA_TO_WORLD), "pose of frame 1"),
            (json(&nan, CAMERA_TO_WORLD), "pose of frame 1"),
            (json(POSES, CAMERA_TO_WORLD).replace(r#""fx": 50"#, r#""fx": 0"#), "fx"),
            ("{".to_owned(), "EOF"),
        ];
        for (text, wanted) in rows {
            let error = load(&text).unwrap_err();
            let message = error.to_string();
            let place = if matches!(error, Error::MissingFrame { .. }) { "frames" } else { "sequence.json" };
            assert!(message.contains(wanted) && message.contains(place), "`{wanted}`: {message}");
        }
        let nowhere = Sequence::load(std::path::Path::new("/nowhere")).unwrap_err().to_string();
        assert!(nowhere.contains("/nowhere/sequence.json"), "{nowhere}");
    }
}
