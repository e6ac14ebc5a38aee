//! Recordings of ROS 2: an MCAP file, or the folder of a rosbag2, of `metadata.yaml` and MCAP files. One sequence a topic
//! of images; topics are told by the types of their messages.
//!
//! A pose is that of a body, in metres: the one that was asked for, or else the one which its message names
//! (`child_frame_id`, or `frame_id` of a `PoseStamped`, which has no other). Static transforms lead from there to the
//! frame of the images; without any, a body whose message calls it an optical frame is taken for the camera. Camera
//! matrices are ROS's, which are OpenCV's: from the centre of the first pixel.
//!
//! Pictures stay in the file: a frame keeps the place of its message, and the chunk is read again when the picture is.

mod file;
mod message;
mod mounts;

pub(in crate::data) use file::read_message;
pub(in crate::data) use message::{Picture, picture};

use super::{Opened, Skipped, entries, name_of};
use crate::data::error::Error;
use crate::data::picture::Image;
use crate::data::sequence::{Frame, Sequence};
use ::mcap::McapResult;
use file::{Message, is_mcap};
use geometry::{Intrinsics, Stamp, Stamped, Transform};
use message::{CameraInfo, CompressedHead, Header, ImageHead, Kind, PoseStamped, TfMessage, TransformStamped, decode};
use mounts::Mounts;
use nalgebra::Isometry3;
use std::collections::BTreeMap;
use std::path::Path;

/// Farthest that the two poses around an image may be apart.
const MAX_NANOS: i64 = 100_000_000;

pub(super) fn fits(path: &Path) -> bool {
    is_mcap(path) && path.is_file() || path.join("metadata.yaml").is_file()
}

/// `pose_frame` is the frame that poses are of, whatever their messages say.
pub(super) fn open(path: &Path, pose_frame: Option<&str>) -> Result<Opened, Error> {
    let missing = |expected: &str| Error::Missing { path: path.to_path_buf(), expected: expected.to_owned() };
    let mut files = vec![path.to_path_buf()];
    let mut stem = name_of(path);
    if path.is_dir() {
        files = entries(path)?.into_iter().filter(|file| is_mcap(file)).collect();
    } else {
        stem = Path::new(&stem).file_stem().map_or(stem.clone(), |stem| stem.to_string_lossy().into_owned());
    }
    if files.is_empty() {
        return Err(missing("MCAP files beside metadata.yaml (`ros2 bag convert` makes them of others)"));
    }
    let mut recording = Recording { pose_frame: pose_frame.map(str::to_owned), ..Recording::default() };
    for file in &files {
        recording.scan(file).map_err(|source| Error::Recording { path: file.clone(), source })?;
    }
    let mut opened = Opened::default();
    let mut first = None;
    for (topic, film) in &recording.films {
        match recording.sequence(path, &stem, topic, film) {
            Ok(sequence) => {
                let (total, left) = (film.shots.len(), sequence.frames.len());
                if left < total {
                    let what = format!("{}: {} of {total} frames", sequence.name, total - left);
                    let why = "no poses around them that are at most 0.1 s apart".to_owned();
                    opened.skipped.push(Skipped { what, why });
                }
                opened.sequences.push(sequence);
            }
            Err(error) => {
                opened.skipped.push(Skipped { what: format!("{stem}: {topic}"), why: error.to_string() });
                first = first.or(Some(error));
            }
        }
    }
    if opened.sequences.is_empty() {
        return Err(first.unwrap_or_else(|| missing("a topic of sensor_msgs/msg/Image or CompressedImage in CDR")));
    }
    for (topic, count) in &recording.broken {
        let what = format!("{stem}: {count} messages of {topic}");
        opened.skipped.push(Skipped { what, why: "they are not what their type says".to_owned() });
    }
    Ok(opened)
}

/// The images of a topic.
struct Film {
    kind: Kind,
    frame_id: String,
    /// The first encoding that is not read.
    strange: Option<String>,
    /// When and where in the files, and whether one was lost before it.
    shots: Vec<(Stamp, Image, bool)>,
}

/// Poses of one body.
#[derive(Default)]
struct Track {
    body: String,
    poses: Vec<Stamped<Isometry3<f64>>>,
}

/// What the files hold, but for pixels. All maps are by topic.
#[derive(Default)]
struct Recording {
    /// The frame that poses are of, where that was said.
    pose_frame: Option<String>,
    films: BTreeMap<String, Film>,
    /// The first of each topic, and whether another was different.
    cameras: BTreeMap<String, (CameraInfo, bool)>,
    tracks: BTreeMap<(Kind, String), Track>,
    mounts: Mounts,
    broken: BTreeMap<String, usize>,
    /// Topics in which the last image was broken.
    lost: BTreeMap<String, bool>,
}

impl Recording {
    fn scan(&mut self, path: &Path) -> McapResult<()> {
        file::scan(path, |message| {
            let Some(kind) = Kind::of(message.schema) else { return };
            if self.message(kind, path, message).is_none() {
                *self.broken.entry(message.topic.to_owned()).or_default() += 1;
                self.lost.insert(message.topic.to_owned(), true);
            }
        })
    }

    /// `None` where the message is not what its type says.
    fn message(&mut self, kind: Kind, path: &Path, message: &Message<'_>) -> Option<()> {
        let Message { topic, data, .. } = *message;
        let place = |compressed| Image::Recorded {
            file: path.to_path_buf(),
            offset: message.offset,
            number: message.number,
            compressed,
        };
        match kind {
            Kind::Image => {
                let image: ImageHead = decode(data)?;
                let strange = (!image.known()).then_some(image.encoding);
                self.shot(kind, topic, image.header, strange, place(false));
            }
            Kind::CompressedImage => {
                let image: CompressedHead = decode(data)?;
                let strange = (!image.known()).then_some(image.format);
                self.shot(kind, topic, image.header, strange, place(true));
            }
            Kind::CameraInfo => {
                let info: CameraInfo = decode(data)?;
                match self.cameras.get_mut(topic) {
                    Some((first, changed)) => *changed |= !first.same(&info),
                    None => drop(self.cameras.insert(topic.to_owned(), (info, false))),
                }
            }
            Kind::PoseStamped => {
                let PoseStamped { header, pose } = decode(data)?;
                let stamp = header.stamp();
                self.pose(kind, topic.to_owned(), stamp, header.frame_id, pose.isometry()?);
            }
            Kind::Odometry => {
                let TransformStamped { header, child_frame_id, transform } = decode(data)?;
                self.pose(kind, topic.to_owned(), header.stamp(), child_frame_id, transform.isometry()?);
            }
            Kind::TransformStamped => self.transform(topic, decode(data)?)?,
            Kind::TfMessage => {
                let TfMessage { transforms } = decode(data)?;
                for transform in transforms {
                    self.transform(topic, transform)?;
                }
            }
        }
        Some(())
    }

    fn shot(&mut self, kind: Kind, topic: &str, header: Header, strange: Option<String>, image: Image) {
        let lost = self.lost.remove(topic).unwrap_or(false);
        let stamp = header.stamp();
        let new = || Film { kind, frame_id: header.frame_id, strange: None, shots: Vec::new() };
        let film = self.films.entry(topic.to_owned()).or_insert_with(new);
        film.strange = film.strange.take().or(strange);
        film.shots.push((stamp, image, lost));
    }

    fn transform(&mut self, topic: &str, message: TransformStamped) -> Option<()> {
        let TransformStamped { header, child_frame_id, transform } = message;
        let isometry = transform.isometry()?;
        if topic.ends_with("tf_static") {
            self.mounts.insert(&header.frame_id, &child_frame_id, isometry);
        } else {
            let name = format!("{topic} ({} to {child_frame_id})", header.frame_id);
            self.pose(Kind::TransformStamped, name, header.stamp(), child_frame_id, isometry);
        }
        Some(())
    }

    fn pose(&mut self, kind: Kind, name: String, stamp: Stamp, body: String, value: Isometry3<f64>) {
        let track = self.tracks.entry((kind, name)).or_default();
        track.body = body;
        track.poses.push(Stamped { stamp, value });
    }

    fn sequence(&self, path: &Path, stem: &str, topic: &str, film: &Film) -> Result<Sequence, Error> {
        let field = |field, expected: &str, got: String| Error::Field {
            path: path.to_path_buf(),
            field,
            expected: format!("{expected} ({topic})"),
            got,
        };
        let missing = |expected: String| Error::Missing { path: path.to_path_buf(), expected };
        if let Some(encoding) = &film.strange {
            return Err(field("encoding", "rgb8, bgr8, rgba8, bgra8, mono8, JPEG or PNG", encoding.clone()));
        }
        let (info, changed) =
            self.camera(topic, film.kind).ok_or_else(|| missing(format!("a sensor_msgs/msg/CameraInfo of {topic}")))?;
        if info.d.iter().any(|d| d.is_nan() || d.abs() > 0.0) {
            return Err(field("D", "no distortion: rectify first", format!("{:?}", info.d)));
        }
        if *changed {
            return Err(field("K", "one camera for the whole recording", "CameraInfo that changes".to_owned()));
        }
        let [fx, _, cx, _, fy, cy, ..] = info.k;
        let intrinsics = Intrinsics::new(fx, fy, cx, cy, info.width, info.height)
            .map_err(|source| Error::Intrinsics { path: path.to_path_buf(), source })?;

        let Some(((kind, _), _)) = self.tracks.first_key_value() else {
            let kinds = "PoseStamped, Odometry, TransformStamped or TFMessage";
            return Err(missing(format!("a topic with poses: {kinds}")));
        };
        let tracks: Vec<_> = self.tracks.iter().filter(|((other, _), _)| other == kind).collect();
        let [((_, name), track)] = tracks[..] else {
            let names: Vec<&str> = tracks.iter().map(|((_, name), _)| name.as_str()).collect();
            return Err(field("poses", &format!("one topic of {kind:?}"), names.join(", ")));
        };
        let body = self.pose_frame.as_ref().unwrap_or(&track.body);
        let body_from_camera = self.mount(body, &film.frame_id).ok_or_else(|| {
            let known = self.mounts.bodies(&film.frame_id);
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let expected = format!(
                "poses of the images' frame {:?} or of one with static transforms to it ({known}), named with \
                 pose_frame=NAME where messages name another",
                film.frame_id
            );
            field("pose frame", &expected, format!("{name} of frame {body:?} and no static transform"))
        })?;
        let mut poses = track.poses.clone();
        poses.sort_by_key(|pose| pose.stamp);
        let mut shots: Vec<&(Stamp, Image, bool)> = film.shots.iter().collect();
        shots.sort_by_key(|(stamp, ..)| *stamp);
        let mut frames = Vec::with_capacity(shots.len());
        let mut gap_before = false;
        for (stamp, image, lost) in shots {
            gap_before |= lost;
            if let Some(pose) = interpolated(&poses, *stamp) {
                let world_from_camera = Transform::from_isometry(pose * body_from_camera);
                frames.push(Frame { stamp: *stamp, world_from_camera, image: image.clone(), depth: None, gap_before });
                gap_before = false;
            } else {
                gap_before = true;
            }
        }
        if frames.is_empty() {
            return Err(missing(format!("an image of {topic} between poses of {name} at most 0.1 s apart")));
        }
        // Names become those of files.
        let name = format!("{stem}{}{}", if topic.starts_with('/') { "" } else { "-" }, topic.replace('/', "-"));
        Ok(Sequence { path: path.to_path_buf(), name, source: stem.to_owned(), intrinsics, metric: true, frames })
    }

    /// The camera in the namespace of a topic of images (`NAMESPACE/image/compressed` has one name more), or the only
    /// one.
    fn camera(&self, topic: &str, kind: Kind) -> Option<&(CameraInfo, bool)> {
        let parent = |topic: &str| topic.rsplit_once('/').map(|(namespace, _)| namespace.to_owned());
        let mut namespace = topic.to_owned();
        let levels = if kind == Kind::CompressedImage { 2 } else { 1 };
        for _ in 0..levels {
            let Some(above) = parent(&namespace) else { break };
            namespace = above;
            let mut here = self.cameras.iter().filter(|(name, _)| parent(name).as_ref() == Some(&namespace));
            if let (Some((_, camera)), None) = (here.next(), here.next()) {
                return Some(camera);
            }
        }
        self.cameras.values().next().filter(|_| self.cameras.len() == 1)
    }

    /// The transform from the camera to the body whose poses there are.
    fn mount(&self, body: &str, camera: &str) -> Option<Isometry3<f64>> {
        // A body that was asked for is not guessed at: the images' own frame could have been named as well.
        let taken = || (self.pose_frame.is_none() && body.ends_with("optical_frame")).then(Isometry3::identity);
        self.mounts.body_from_camera(body, camera).or_else(taken)
    }
}

/// The pose at a time, of poses in order: slerp and lerp between the two around it, where they are near enough.
fn interpolated(poses: &[Stamped<Isometry3<f64>>], stamp: Stamp) -> Option<Isometry3<f64>> {
    let after = poses.partition_point(|pose| pose.stamp < stamp);
    let next = poses.get(after)?;
    if next.stamp == stamp {
        return Some(next.value);
    }
    let last = poses.get(after.checked_sub(1)?)?;
    let apart = next.stamp.nanos_since(last.stamp);
    if apart > MAX_NANOS {
        return None;
    }
    let part = stamp.nanos_since(last.stamp) as f64 / apart as f64;
    last.value.try_lerp_slerp(&next.value, part, 1e-9)
}
