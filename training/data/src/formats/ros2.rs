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
use camera::recording::{Message, bag, scan};
use camera::rectify::CameraModel;
use camera::ros::{self, Bytes, Header, Type};
use camera::transforms::{Missing, Track, Transforms, plain};
use geometry::{Camera, Stamp, Transform, World};
use nalgebra::{Isometry3, Vector3};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Farthest that the two poses around an image may be apart.
const MAX_NANOS: i64 = 100_000_000;
/// That, in words.
const REACH: &str = "within 0.1 s from one to the next";
/// How near two poses are that are the same, metres or radians: they were written as f64.
const SAME: f64 = 1e-6;

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
    for file in bag::files(path)? {
        let damage = scan(&file, |message| {
            recording.take(&file, message);
            Ok::<(), Error>(())
        })?;
        if let Some(damage) = damage {
            let why = format!("{damage}; what is before is used");
            opened.skipped.push(Skipped { what: file.display().to_string(), why });
            broken = broken.or(Some(damage));
            // Nobody knows how long it was until the next file.
            recording.lost.extend(recording.films.keys().cloned());
        }
    }
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

/// Where the poses of a topic of images come from.
enum Poses<'a> {
    /// Those of a body, and what leads from there to the camera: the transform, where it is the same at all times.
    Body { name: &'a str, body: &'a str, track: &'a Track, mount: Option<Isometry3<f64>> },
    /// The transforms alone: from the camera to the frame that all hang on.
    Transforms { world: &'a str, camera: &'a str },
}

impl Recording {
    fn take(&mut self, path: &Path, message: &Message<'_>) {
        self.number += 1;
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

    /// Images whose header names no frame are of that of their CameraInfo, as on the robot.
    fn name_frames(&mut self, path: &Path) {
        let nameless = self.films.iter().filter(|(_, film)| plain(&film.frame_id).is_empty());
        let found = nameless.filter_map(|(topic, film)| {
            let calibrations = self.calibrations(path, topic, film).ok()?;
            Some((topic.clone(), calibrations.first()?.frame_id.clone()))
        });
        for (topic, frame) in found.collect::<Vec<_>>() {
            tracing::warn!("images of {topic} have no header.frame_id: that of CameraInfo is taken, `{frame}`");
            if let Some(film) = self.films.get_mut(&topic) {
                film.frame_id = frame;
            }
        }
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

    /// # Errors
    /// Why there is none, in words.
    fn world_from_camera(&self, poses: &Poses<'_>, frame_id: &str, stamp: Stamp) -> Result<Isometry3<f64>, String> {
        let transform = |to: &str, from: &str| {
            let found = self.transforms.at(to, from, stamp, MAX_NANOS);
            found.map_err(|missing| format!("{missing} ({REACH})"))
        };
        match poses {
            Poses::Body { name, body, track, mount } => {
                let pose =
                    track.at(stamp, MAX_NANOS).ok_or_else(|| format!("no poses of {name} around it ({REACH})"))?;
                Ok(pose * mount.map_or_else(|| transform(body, frame_id), Ok)?)
            }
            Poses::Transforms { world, camera } => transform(world, camera),
        }
    }

    /// # Errors
    /// Several topics whose transforms move: each may say where the same frame is.
    fn one_tree(&self, path: &Path, topic: &str) -> Result<(), Error> {
        if self.moving.len() < 2 {
            return Ok(());
        }
        let names: Vec<&str> = self.moving.iter().map(String::as_str).collect();
        Err(field(path, "tf", format!("one topic with transforms that move ({topic})"), names.join(", ")))
    }

    fn poses<'a>(&'a self, path: &Path, topic: &str, film: &'a Film) -> Result<Poses<'a>, Error> {
        let asked = self.options.pose_topic.as_deref();
        let is_meant = |name: &str, body: &Body| match asked {
            Some(topic) => name == topic || name.starts_with(&format!("{topic} (")),
            // A single pose is a goal or a first guess.
            None => !body.own && body.track.iter().nth(1).is_some(),
        };
        let fitting: Vec<_> = self.bodies.iter().filter(|((_, name), body)| is_meant(name, body)).collect();
        if let Some(frame) = self.options.world_frame.as_ref().filter(|_| asked.is_some() && !fitting.is_empty()) {
            let expected = format!("nothing where pose_topic names poses of one body ({topic}): it is for /tf");
            return Err(field(path, "world_frame", expected, frame.clone()));
        }
        if fitting.is_empty() || self.options.world_frame.is_some() {
            return self.transformed(path, topic, film);
        }
        let [((_, name), found)] = fitting[..] else {
            let types: BTreeSet<&str> =
                fitting.iter().map(|((of, _), _)| of.name().rsplit('/').next().unwrap_or_default()).collect();
            let types: Vec<&str> = types.into_iter().collect();
            let names: Vec<&str> = fitting.iter().map(|((_, name), _)| name.as_str()).collect();
            let expected = format!("one topic of {} ({topic}), named with pose_topic=NAME", types.join(" or "));
            return Err(field(path, "poses", expected, names.join(", ")));
        };
        let body = self.options.pose_frame.as_ref().unwrap_or(&found.name);
        let no_way = |why: String| {
            let known = self.transforms.connected(&film.frame_id);
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let expected = format!(
                "poses of the images' frame {:?} or of one with transforms to it ({known}), named with pose_frame=NAME \
                 where messages name another ({topic})",
                film.frame_id
            );
            field(path, "pose frame", expected, format!("{name} of frame {body:?}: {why}"))
        };
        // The same at all times, so at any; where it moves, at each image's.
        let mount = match self.transforms.is_static(body, &film.frame_id) {
            Ok(false) => {
                self.one_tree(path, topic)?;
                None
            }
            Ok(true) => self.transforms.at(body, &film.frame_id, Stamp::default(), MAX_NANOS).ok(),
            // A body that was asked for is not guessed at: the images' own frame could have been named as well.
            Err(Missing::Unconnected { .. })
                if self.options.pose_frame.is_none() && body.ends_with("optical_frame") =>
            {
                Some(Isometry3::identity())
            }
            Err(why) => return Err(no_way(why.to_string())),
        };
        Ok(Poses::Body { name, body, track: &found.track, mount })
    }

    /// Poses out of `/tf` alone.
    fn transformed<'a>(&'a self, path: &Path, topic: &str, film: &'a Film) -> Result<Poses<'a>, Error> {
        let none = || Error::Missing { path: path.to_path_buf(), expected: self.lacking(topic, film) };
        let plain = |topic: &str| topic.trim_start_matches('/').to_owned();
        let is_asked = |asked: &String| self.moving.iter().any(|topic| plain(topic) == plain(asked));
        if self.moving.is_empty() || !self.options.pose_topic.as_ref().is_none_or(is_asked) {
            return Err(none());
        }
        self.one_tree(path, topic)?;
        if let Some(frame) = &self.options.pose_frame {
            let expected = format!("nothing where transforms alone say where the images' frame is ({topic})");
            return Err(field(path, "pose_frame", expected, frame.clone()));
        }
        if let Some((said, body)) = self.own_transform().filter(|_| self.options.pose_topic.is_none()) {
            let expected = format!("transforms that our node has not said itself ({topic})");
            let got = format!(
                "{} to {} as {said} has it; pose_topic=/tf (or as it is called) takes them nevertheless",
                body.world, body.name
            );
            return Err(field(path, "tf", expected, got));
        }
        let camera = film.frame_id.as_str();
        let wrong = |why: Missing| {
            let expected = format!("one way up from {camera:?} ({topic}), to the frame that world_frame=NAME names");
            field(path, "tf", expected, why.to_string())
        };
        let world = match &self.options.world_frame {
            Some(world) => world.as_str(),
            None => self.transforms.root(camera).map_err(wrong)?,
        };
        match self.transforms.is_static(world, camera) {
            Ok(false) => Ok(Poses::Transforms { world, camera }),
            Ok(true) => Err(none()),
            Err(Missing::Unconnected { .. }) if self.options.world_frame.is_some() => {
                let frames = self.transforms.connected(camera);
                let expected = format!("a frame with transforms to {camera:?} ({topic}): {}", listed(&frames));
                Err(field(path, "world_frame", expected, world.to_owned()))
            }
            Err(why) => Err(wrong(why)),
        }
    }

    /// What a topic of images has no poses without.
    fn lacking(&self, topic: &str, film: &Film) -> String {
        let kinds = "PoseStamped, Odometry, PoseWithCovarianceStamped, TransformStamped or TFMessage";
        let frame = &film.frame_id;
        let names = |wanted: &dyn Fn(&Body) -> bool| -> Vec<&str> {
            let named = self.bodies.iter().filter(|(_, body)| wanted(body));
            named.map(|((_, name), _)| name.as_str()).collect()
        };
        let expected = match &self.options.pose_topic {
            Some(asked) => {
                let all: Vec<&str> =
                    names(&|_| true).into_iter().chain(self.moving.iter().map(String::as_str)).collect();
                return format!("poses of {asked} ({kinds}); there are {}", listed(&all));
            }
            None if self.moving.is_empty() => format!("a topic with poses: {kinds}"),
            None => format!(
                "a topic with poses: {kinds}; no transforms that move lead to the images' frame {frame:?} ({topic})"
            ),
        };
        let own = names(&|body| body.own);
        if own.is_empty() {
            return expected;
        }
        let own = own.join(", ");
        format!("{expected}, beside {own}, which our node has said itself (pose_topic=NAME takes it nevertheless)")
    }

    /// The body that the node gives poses of, and on which topic, where a transform that moves says the same: it is the node's too.
    fn own_transform(&self) -> Option<(&str, &Body)> {
        let is_same = |body: &Body| {
            let both = body.track.iter().filter_map(|(stamp, pose)| {
                let transform = self.transforms.at(&body.world, &body.name, stamp, 0).ok()?;
                let turn = transform.rotation.angle_to(&pose.rotation);
                Some((transform.translation.vector - pose.translation.vector).norm() < SAME && turn < SAME)
            });
            let both: Vec<bool> = both.collect();
            !both.is_empty() && both.iter().all(|same| *same)
        };
        let own = self.bodies.iter().filter(|(_, body)| body.own && body.world != body.name);
        own.filter(|(_, body)| self.transforms.is_static(&body.world, &body.name) == Ok(false))
            .find(|(_, body)| is_same(body))
            .map(|((_, name), body)| (name.as_str(), body))
    }

    /// Those that were asked for, of the camera in the namespace of a topic of images (`NAMESPACE/image/compressed` has one name
    /// more), or the only ones, where they are not those of another camera.
    fn calibrations(&self, path: &Path, topic: &str, film: &Film) -> Result<&[Calibration], Error> {
        let unknown = || {
            let expected = format!(
                "the sensor_msgs/msg/CameraInfo of {topic}, whose images are of frame {:?}; name it with info_topic=NAME",
                film.frame_id
            );
            let of_frame = |(name, calibrations): (&String, &Vec<Calibration>)| {
                let frame = calibrations.first().map_or("", |first| first.frame_id.as_str());
                format!("{name} of frame {frame:?}")
            };
            let names: Vec<String> = self.calibrations.iter().map(of_frame).collect();
            field(path, "info_topic", expected, listed(&names))
        };
        if let Some(asked) = &self.options.info_topic {
            return self.calibrations.get(asked).map(Vec::as_slice).ok_or_else(unknown);
        }
        let parent = |topic: &str| topic.rsplit_once('/').map(|(namespace, _)| namespace.to_owned());
        let mut namespace = topic.to_owned();
        let levels = if film.message_type == Type::CompressedImage { 2 } else { 1 };
        for _ in 0..levels {
            let Some(above) = parent(&namespace) else { break };
            namespace = above;
            let mut here = self.calibrations.iter().filter(|(name, _)| parent(name).as_ref() == Some(&namespace));
            if let (Some((_, calibrations)), None) = (here.next(), here.next()) {
                return Ok(calibrations);
            }
        }
        let plain = |frame: &str| frame.trim_start_matches('/').to_owned();
        let (images, mut all) = (plain(&film.frame_id), self.calibrations.values());
        let is_of_camera = |calibrations: &&Vec<Calibration>| {
            let mut frames = calibrations.iter().map(|calibration| plain(&calibration.frame_id));
            frames.all(|frame| frame.is_empty() || images.is_empty() || frame == images)
        };
        match (all.next().filter(is_of_camera), all.next()) {
            (Some(only), None) => Ok(only),
            _ => Err(unknown()),
        }
    }

    /// Where a topic is called as image_proc calls what it has rectified, and its CameraInfo says what the lens did, nobody knows
    /// whether that was undone.
    fn check_rectified(&self, path: &Path, topic: &str, calibrations: &[Calibration]) -> Result<(), Error> {
        let mut words = topic.split(|c: char| !c.is_alphanumeric());
        let is_called_so = words.any(|word| matches!(word, "rect" | "rectified"));
        let has_lens = |calibration: &Calibration| !matches!(&calibration.model, Ok(model) if model.lens.is_none());
        if self.options.images.is_some() || !is_called_so || !calibrations.iter().any(has_lens) {
            return Ok(());
        }
        let expected = format!(
            "images=rectified, where the images of {topic} are so as its name says and P is their matrix, or images=raw, where \
             K and D of its CameraInfo are for them"
        );
        Err(field(path, "images", expected, "neither".to_owned()))
    }

    /// What the key `images` has to do with a CameraInfo that cannot be used.
    fn hint(&self) -> &'static str {
        match self.options.images {
            Some(Images::Rectified) => "P was asked for with images=rectified",
            Some(Images::Raw) | None => "of images that are rectified already, say so with images=rectified",
        }
    }
}

impl Poses<'_> {
    /// As errors name them.
    fn name(&self) -> String {
        match self {
            Self::Body { name, .. } => (*name).to_owned(),
            Self::Transforms { world, camera } => format!("/tf ({world} to {camera})"),
        }
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
