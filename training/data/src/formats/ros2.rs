//! Recordings of ROS 2: an MCAP file, or the folder of a rosbag2. One sequence a topic of images, and one for each
//! calibration that its CameraInfo has in turn; topics are told by the types of their messages. What an image is, and
//! which intrinsics it has once it is rectified, is [`camera`]'s, as on the robot.
//!
//! A pose is that of a body, in metres: the one that was asked for, or else the one which its message names
//! (`child_frame_id`, or `frame_id` of a `PoseStamped`, with covariance or without, which has no other). Transforms of
//! `/tf_static` and `/tf` lead from there to the frame of the images; without any, a body whose message calls it an optical
//! frame is taken for the camera. Where no other topic has poses, those of the images' frame in the one that all of `/tf` hangs on are taken. What our own node
//! said is no truth, unless it is asked for: weights that are judged by it are judged by themselves.
//!
//! Pictures stay in the file: a frame keeps the place of its message, and the chunk is read again when the picture is.

mod cameras;
mod poses;

use super::{Opened, Skipped, name_of};
use crate::error::Error;
use crate::picture::Image;
use crate::sequence::{Frame, Sequence};
use camera::cdr::decode;
use camera::decode::{DecodeError, SampleStream, inspect};
use camera::error::InfoError;
use camera::info::Images;
use camera::message::{CameraInfoMessage, ImageMessage};
use camera::optics::Optics;
use camera::plausible::doubts;
use camera::recording::{Damage, Message, bag, scan};
use camera::rectify::CameraModel;
use camera::ros::{self, Bytes, Header, Type};
use camera::transforms::{Track, Transforms};
use geometry::{Camera, Stamp, Transform, World};
use nalgebra::{Isometry3, Vector3};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use poses::Poses;

/// What a recording does not say of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ros2Options {
    /// The frame that poses are of, whatever their messages say.
    pub pose_frame: Option<String>,
    /// The topic of the poses, where there are several, or where they are our own node's.
    pub pose_topic: Option<String>,
    /// The frame in which transforms that move say where the camera is; the one that all others hang on without it.
    pub world_frame: Option<String>,
    /// The topic of the images; all without it.
    pub image_topic: Option<String>,
    /// The topic of CameraInfo, where it is not known by its namespace.
    pub info_topic: Option<String>,
    /// Whether images are rectified already; raw where that is not said, and not doubtful.
    pub images: Option<Images>,
}

pub(super) fn fits(path: &Path) -> bool {
    bag::is_recording(path)
}

pub(super) fn open(path: &Path, options: &Ros2Options) -> Result<Opened, Error> {
    let mut stem = name_of(path);
    if path.is_file() {
        stem = Path::new(&stem).file_stem().map_or(stem.clone(), |stem| stem.to_string_lossy().into_owned());
    }
    let mut recording = Recording { options: options.clone(), ..Recording::default() };
    let mut opened = Opened::default();
    let (mut first, mut broken) = (None, None);
    let bag = bag::open(path)?;
    for file in &bag.files {
        let damage = scan(file, |message| {
            recording.take(file, message);
            Ok::<(), Error>(())
        })?;
        if let Some(damage) = damage {
            opened.skipped.push(skipped(&damage));
            broken = broken.or(Some(damage));
            // Nobody knows how long it was until the next file.
            recording.lost.extend(recording.films.keys().cloned());
        }
    }
    opened.skipped.extend(bag.missing(&recording.read).iter().map(skipped));
    recording.choose(path)?;
    recording.name_frames(path);
    for (topic, film) in &recording.films {
        match recording.sequences(path, &stem, topic, film) {
            Ok(found) => {
                opened.sequences.extend(found.sequences);
                opened.skipped.extend(found.skipped);
            }
            Err(error) => {
                opened.skipped.push(Skipped { what: format!("{stem}: {topic}"), why: error.to_string() });
                first = first.or(Some(error));
            }
        }
    }
    if opened.sequences.is_empty() {
        let expected = "a topic of sensor_msgs/msg/Image or CompressedImage in CDR".to_owned();
        let missing = || Error::Missing { path: path.to_path_buf(), expected };
        return Err(first.or(broken.map(Error::Damage)).unwrap_or_else(missing));
    }
    for (topic, count) in &recording.broken {
        let what = format!("{stem}: {count} messages of {topic}");
        opened.skipped.push(Skipped { what, why: "they are not what their type says".to_owned() });
    }
    Ok(opened)
}

/// What is missing, as it is told.
fn skipped(damage: &Damage) -> Skipped {
    Skipped { what: damage.path().display().to_string(), why: format!("{damage}; what can be read is used") }
}

/// The images of a topic.
struct Film {
    message_type: Type,
    frame_id: String,
    /// What is wrong with the images, where none is of an encoding that is read.
    strange: Option<DecodeError>,
    samples: SampleStream,
    shots: Vec<Shot>,
}

/// An image, without its pixels.
struct Shot {
    stamp: Stamp,
    image: Image,
    /// Whether one before it was broken.
    lost: bool,
    /// How many messages there are before it.
    number: usize,
}

/// A calibration, from a message on.
struct Calibration {
    model: Result<CameraModel, InfoError>,
    frame_id: String,
    /// How many messages there are before it.
    number: usize,
}

/// Poses of one body.
#[derive(Default)]
struct Body {
    name: String,
    /// The frame that they are in.
    world: String,
    track: Track,
    /// Whether our node has said them.
    own: bool,
}

impl Body {
    fn take(&mut self, (world, name): (String, String), stamp: Stamp, pose: Isometry3<f64>) {
        (self.world, self.name) = (world, name);
        self.track.insert(stamp, pose);
    }
}

/// What the files hold, but for pixels. All maps are by topic.
#[derive(Default)]
struct Recording {
    options: Ros2Options,
    /// Messages so far.
    number: usize,
    /// Those of each topic, whether they are of use or not.
    read: BTreeMap<String, u64>,
    films: BTreeMap<String, Film>,
    /// Those of each topic that differ from the one before.
    calibrations: BTreeMap<String, Vec<Calibration>>,
    bodies: BTreeMap<(Type, String), Body>,
    transforms: Transforms,
    /// Topics of the transforms that move.
    moving: BTreeSet<String>,
    broken: BTreeMap<String, usize>,
    /// Topics of images of which some were lost after the last.
    lost: BTreeSet<String>,
}

impl Recording {
    fn take(&mut self, path: &Path, message: &Message<'_>) {
        self.number += 1;
        match self.read.get_mut(&message.channel.topic) {
            Some(read) => *read += 1,
            None => drop(self.read.insert(message.channel.topic.clone(), 1)),
        }
        let Some(message_type) = message.channel.message_type().filter(|_| message.channel.is_cdr()) else { return };
        if self.message(message_type, path, message).is_none() {
            let topic = &message.channel.topic;
            *self.broken.entry(topic.clone()).or_default() += 1;
            self.lost.insert(topic.clone());
        }
    }

    /// `None` where the message is not what its type says.
    fn message(&mut self, message_type: Type, path: &Path, message: &Message<'_>) -> Option<()> {
        let (topic, data) = (message.channel.topic.as_str(), message.data);
        match message_type {
            Type::Image => {
                let image: ros::Image<String, &Bytes> = decode(data).ok()?;
                self.shot(message_type, image.header, path, message);
            }
            Type::CompressedImage => {
                let image: ros::CompressedImage<String, &Bytes> = decode(data).ok()?;
                self.shot(message_type, image.header, path, message);
            }
            Type::CameraInfo => {
                let info = CameraInfoMessage::from(decode::<ros::CameraInfo>(data).ok()?);
                let model = CameraModel::new(&info, self.options.images.unwrap_or(Images::Raw));
                let known = self.calibrations.entry(topic.to_owned()).or_default();
                if known.last().is_none_or(|last| last.model != model) {
                    if model.is_ok() {
                        for doubt in doubts(&info, self.options.images.unwrap_or(Images::Raw)) {
                            tracing::warn!("{}: the camera of {topic} is hard to believe: {doubt}", path.display());
                        }
                    }
                    known.push(Calibration { model, frame_id: info.frame_id, number: self.number });
                }
            }
            Type::PoseStamped | Type::PoseWithCovarianceStamped => {
                let (header, pose) = if message_type == Type::PoseStamped {
                    let ros::PoseStamped { header, pose } = decode(data).ok()?;
                    (header, pose)
                } else {
                    let ros::PoseWithCovarianceStamped { header, pose } = decode(data).ok()?;
                    (header, pose.pose)
                };
                let (pose, stamp) = (isometry(&pose)?, header.stamp());
                let body = self.body(message_type, topic.to_owned());
                body.own = message.channel.is_own();
                body.take((header.frame_id.clone(), header.frame_id), stamp, pose);
            }
            Type::Odometry => {
                let ros::Odometry { header, child_frame_id, pose, .. } = decode(data).ok()?;
                let (pose, stamp) = (isometry(&pose.pose)?, header.stamp());
                let body = self.body(message_type, topic.to_owned());
                body.own = message.channel.is_own();
                body.take((header.frame_id, child_frame_id), stamp, pose);
            }
            Type::TransformStamped => self.transform(message_type, topic, decode(data).ok()?)?,
            Type::TfMessage => {
                let ros::TfMessage { transforms } = decode(data).ok()?;
                for transform in transforms {
                    self.transform(message_type, topic, transform)?;
                }
            }
            Type::Path | Type::DiagnosticArray => {}
        }
        Some(())
    }

    fn shot(&mut self, message_type: Type, header: Header, path: &Path, message: &Message<'_>) {
        let topic = &message.channel.topic;
        let lost = self.lost.remove(topic);
        let stamp = header.stamp();
        let film = self.films.entry(topic.clone()).or_insert_with(|| Film {
            message_type,
            frame_id: header.frame_id,
            strange: None,
            samples: SampleStream::default(),
            shots: Vec::new(),
        });
        let whole = whole(message_type, message.data).ok();
        // A camera does not change its encoding: where the first image is of none that is read, all are. But one file may be
        // broken, and the next not.
        if film.shots.is_empty() || matches!(film.strange, Some(DecodeError::File { .. })) {
            film.strange = whole.as_ref().and_then(|image| inspect(&image.payload).err());
        }
        let range = whole.map(|image| film.samples.take(&image.payload)).unwrap_or_default();
        let image = Image::Recorded { file: path.to_path_buf(), place: message.place, message_type, range };
        film.shots.push(Shot { stamp, image, lost, number: self.number });
    }

    fn transform(&mut self, message_type: Type, topic: &str, message: ros::TransformStamped) -> Option<()> {
        let ros::TransformStamped { header, child_frame_id, transform } = message;
        let isometry = isometry(&transform)?;
        if topic.ends_with("tf_static") {
            self.transforms.insert_static(&header.frame_id, &child_frame_id, isometry);
        } else if message_type == Type::TfMessage {
            self.moving.insert(topic.to_owned());
            self.transforms.insert(&header.frame_id, &child_frame_id, header.stamp(), isometry);
        } else {
            let name = format!("{topic} ({} to {child_frame_id})", header.frame_id);
            let stamp = header.stamp();
            self.body(message_type, name).take((header.frame_id, child_frame_id), stamp, isometry);
        }
        Some(())
    }

    fn body(&mut self, message_type: Type, name: String) -> &mut Body {
        self.bodies.entry((message_type, name)).or_default()
    }

    /// Leaves what was asked for, once all is known.
    fn choose(&mut self, path: &Path) -> Result<(), Error> {
        if let Some(world) = &self.options.world_frame {
            self.transforms.keep_ways_to(world);
        }
        let Some(asked) = &self.options.image_topic else { return Ok(()) };
        if !self.films.contains_key(asked) {
            let names: Vec<&str> = self.films.keys().map(String::as_str).collect();
            let expected = "a topic of sensor_msgs/msg/Image or CompressedImage in CDR".to_owned();
            return Err(field(path, "image_topic", expected, format!("{asked}; there are {}", listed(&names))));
        }
        self.films.retain(|topic, _| topic == asked);
        Ok(())
    }

    /// The sequences of a topic of images, one for each calibration, and what was left out.
    fn sequences(&self, path: &Path, stem: &str, topic: &str, film: &Film) -> Result<Opened, Error> {
        let missing = |expected: String| Error::Missing { path: path.to_path_buf(), expected };
        if let Some(strange @ (DecodeError::Encoding { .. } | DecodeError::File { .. })) = &film.strange {
            return Err(field(path, "images", format!("an encoding that is read ({topic})"), strange.to_string()));
        }
        let calibrations = self.calibrations(path, topic, film)?;
        self.check_rectified(path, topic, calibrations)?;
        let poses = self.poses(path, topic, film)?;
        // Names become those of files.
        let name = format!("{stem}{}{}", if topic.starts_with('/') { "" } else { "-" }, topic.replace('/', "-"));
        let mut opened = Opened::default();
        let mut unusable = None;
        for (number, calibration) in calibrations.iter().enumerate() {
            let in_force = |shot: &&Shot| {
                let current = calibrations.partition_point(|other| other.number < shot.number).saturating_sub(1);
                current == number
            };
            let mut shots: Vec<&Shot> = film.shots.iter().filter(in_force).collect();
            if shots.is_empty() {
                continue;
            }
            let name = if calibrations.len() > 1 { format!("{name}-{number}") } else { name.clone() };
            let optics = calibration.model.clone().and_then(|model| Optics::new(&model));
            let optics = match optics {
                Ok(optics) => optics,
                Err(source) => {
                    let hint = self.hint();
                    let (path, topic, source) = (path.to_path_buf(), topic.to_owned(), Box::new(source));
                    let error = Error::CameraInfo { path, topic, source, hint };
                    opened.skipped.push(Skipped { what: name, why: error.to_string() });
                    unusable = unusable.or(Some(error));
                    continue;
                }
            };
            shots.sort_by_key(|shot| shot.stamp);
            let total = shots.len();
            // As on the robot: an image at the time of the one before it is another copy, or nobody knows which is when.
            shots.dedup_by_key(|shot| shot.stamp);
            let distinct = shots.len();
            let (frames, why) = self.frames(&poses, film, shots);
            let what = |count: usize| format!("{name}: {count} of {total} frames");
            if distinct < total {
                opened.skipped.push(Skipped { what: what(total - distinct), why: "the stamp of another".to_owned() });
            }
            if let Some(why) = why {
                opened.skipped.push(Skipped { what: what(distinct - frames.len()), why: format!("the first: {why}") });
            }
            if !frames.is_empty() {
                let (path, source, truth) = (path.to_path_buf(), stem.to_owned(), Some(poses.name()));
                opened.sequences.push(Sequence { path, name, source, optics, metric: true, truth, frames });
            }
        }
        if opened.sequences.is_empty() {
            let poses = poses.name();
            let none = || missing(format!("an image of {topic} between poses of {poses} at most 0.1 s apart"));
            return Err(unusable.unwrap_or_else(none));
        }
        Ok(opened)
    }

    /// Frames of the images that have a pose, and why the first of the others has none.
    fn frames(&self, poses: &Poses<'_>, film: &Film, shots: Vec<&Shot>) -> (Vec<Frame>, Option<String>) {
        let mut frames = Vec::with_capacity(shots.len());
        let (mut gap_before, mut why) = (false, None);
        for shot in shots {
            gap_before |= shot.lost;
            match self.world_from_camera(poses, &film.frame_id, shot.stamp) {
                Ok(pose) => {
                    let world_from_camera = Transform::from_isometry_unchecked(pose);
                    let image = shot.image.clone();
                    frames.push(Frame { stamp: shot.stamp, world_from_camera, image, depth: None, gap_before });
                    gap_before = false;
                }
                Err(missing) => {
                    gap_before = true;
                    why = why.or(Some(missing));
                }
            }
        }
        (frames, why)
    }
}

/// A message with an image, in full.
///
/// # Errors
/// What is wrong with it, where it is not what its type says.
pub(crate) fn whole(message_type: Type, data: &[u8]) -> Result<ImageMessage, String> {
    match message_type {
        Type::CompressedImage => decode::<ros::CompressedImage>(data).map(ImageMessage::from),
        _ => decode::<ros::Image>(data).map(ImageMessage::from),
    }
}

/// `None` where it is no rigid transform.
fn isometry(pose: &ros::Pose) -> Option<Isometry3<f64>> {
    let pose = Transform::<World, Camera>::from_xyzw(pose.orientation_xyzw, &Vector3::from(pose.position));
    pose.ok().map(|pose| *pose.isometry())
}

/// Names in a row, or that there is none.
fn listed(names: &[impl AsRef<str>]) -> String {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn field(path: &Path, field: &'static str, expected: String, got: String) -> Error {
    Error::Field { path: path.to_path_buf(), field, expected, got }
}
