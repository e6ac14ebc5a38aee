//! Recordings of ROS 2: an MCAP file (<https://mcap.dev/spec>), or the folder of a rosbag2, of `metadata.yaml` and MCAP
//! files. One sequence a topic of images; topics are told by the types of their messages.
//!
//! A pose is that of the body which its message names (`child_frame_id`, or `frame_id` of a `PoseStamped`), in metres.
//! Static transforms lead from there to the frame of the images; without any, a body that is called an optical frame is
//! taken for the camera. Camera matrices are ROS's, which are OpenCV's: from the centre of the first pixel.
//!
//! Pictures stay in the file: a frame's path is `FILE.mcap/OFFSET.NUMBER.TYPE`, the message `NUMBER` of the record at
//! byte `OFFSET`, and its chunk is read again when the picture is.

use super::{Opened, Skipped, entries, name_of};
use crate::data::error::Error;
use crate::data::sequence::{Frame, Sequence};
use ::mcap::read::parse_record;
use ::mcap::records::{Record, op};
use ::mcap::sans_io::{LinearReadEvent, LinearReader, LinearReaderOptions};
use ::mcap::{MAGIC, McapError, McapResult};
use byteorder::{BigEndian, LittleEndian};
use geometry::{Camera, Intrinsics, Stamp, Stamped, Transform, World};
use image::RgbImage;
use nalgebra::{Isometry3, Vector3};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Farthest that the two poses around an image may be apart.
const MAX_NANOS: i64 = 100_000_000;
/// Largest record or chunk, unpacked: a broken length must not take all memory.
const MAX_BYTES: usize = 1 << 30;
/// Bytes in front of a record: what it is and its length.
const HEAD: u64 = 9;
/// Bytes in a chunk around its records and the name of its compression.
const CHUNK_HEAD: u64 = 40;

pub(super) fn fits(path: &Path) -> bool {
    is_mcap(path) && path.is_file() || path.join("metadata.yaml").is_file()
}

pub(super) fn open(path: &Path) -> Result<Opened, Error> {
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
    let mut recording = Recording::default();
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

fn is_mcap(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "mcap")
}

/// Types of messages that matter; of two with poses, the first is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    PoseStamped,
    Odometry,
    TransformStamped,
    TfMessage,
    Image,
    CompressedImage,
    CameraInfo,
}

impl Kind {
    fn of(schema: &str) -> Option<Self> {
        match schema {
            "geometry_msgs/msg/PoseStamped" => Some(Self::PoseStamped),
            "nav_msgs/msg/Odometry" => Some(Self::Odometry),
            "geometry_msgs/msg/TransformStamped" => Some(Self::TransformStamped),
            "tf2_msgs/msg/TFMessage" => Some(Self::TfMessage),
            "sensor_msgs/msg/Image" => Some(Self::Image),
            "sensor_msgs/msg/CompressedImage" => Some(Self::CompressedImage),
            "sensor_msgs/msg/CameraInfo" => Some(Self::CameraInfo),
            _ => None,
        }
    }
}

// Messages as far as they are read: the order of fields is that of the bytes, and what follows the last is left.

#[derive(Deserialize)]
struct Time {
    sec: i32,
    nanosec: u32,
}

#[derive(Deserialize)]
struct Header {
    stamp: Time,
    frame_id: String,
}

impl Header {
    fn stamp(&self) -> Stamp {
        Stamp::from_sec_nanosec(self.stamp.sec, self.stamp.nanosec)
    }
}

#[derive(Deserialize)]
struct ImageHead {
    header: Header,
    _height: u32,
    _width: u32,
    encoding: String,
}

#[derive(Deserialize)]
struct Image<'a> {
    _header: Header,
    height: u32,
    width: u32,
    encoding: String,
    _is_bigendian: u8,
    step: u32,
    data: &'a [u8],
}

#[derive(Deserialize)]
struct CompressedHead {
    header: Header,
    format: String,
}

#[derive(Deserialize)]
struct CompressedImage<'a> {
    _header: Header,
    _format: String,
    data: &'a [u8],
}

#[derive(Deserialize)]
struct CameraInfo {
    _header: Header,
    height: u32,
    width: u32,
    _distortion_model: String,
    d: Vec<f64>,
    k: [f64; 9],
}

impl CameraInfo {
    fn same(&self, other: &Self) -> bool {
        (self.height, self.width, &self.d, &self.k) == (other.height, other.width, &other.d, &other.k)
    }
}

/// `geometry_msgs/Pose` or `Transform`.
#[derive(Deserialize)]
struct Pose {
    position: [f64; 3],
    orientation_xyzw: [f64; 4],
}

impl Pose {
    fn isometry(&self) -> Option<Isometry3<f64>> {
        let pose = Transform::<World, Camera>::from_xyzw(self.orientation_xyzw, &Vector3::from(self.position));
        pose.ok().map(|pose| *pose.isometry())
    }
}

#[derive(Deserialize)]
struct PoseStamped {
    header: Header,
    pose: Pose,
}

/// Also the beginning of an odometry, whose pose comes first.
#[derive(Deserialize)]
struct TransformStamped {
    header: Header,
    child_frame_id: String,
    transform: Pose,
}

#[derive(Deserialize)]
struct TfMessage {
    transforms: Vec<TransformStamped>,
}

/// A message behind the four bytes that say how it is encoded.
fn decode<'a, T: Deserialize<'a>>(message: &'a [u8]) -> Option<T> {
    let (encapsulation, body) = message.split_at_checked(4)?;
    match encapsulation[..2] {
        [0, 0] => Some(cdr_encoding::from_bytes::<T, BigEndian>(body).ok()?.0),
        [0, 1] => Some(cdr_encoding::from_bytes::<T, LittleEndian>(body).ok()?.0),
        _ => None,
    }
}

/// Channels of a pixel of an encoding, and which of them are red, green and blue.
fn channels(encoding: &str) -> Option<(usize, [usize; 3])> {
    match encoding {
        "rgb8" => Some((3, [0, 1, 2])),
        "bgr8" => Some((3, [2, 1, 0])),
        "rgba8" => Some((4, [0, 1, 2])),
        "bgra8" => Some((4, [2, 1, 0])),
        "mono8" => Some((1, [0, 0, 0])),
        _ => None,
    }
}

/// The images of a topic.
struct Film {
    kind: Kind,
    frame_id: String,
    /// The first encoding that is not read.
    strange: Option<String>,
    /// When and where in the files, and whether one was lost before it.
    shots: Vec<(Stamp, PathBuf, bool)>,
}

/// Poses of one body.
#[derive(Default)]
struct Track {
    body: String,
    poses: Vec<Stamped<Isometry3<f64>>>,
}

/// What the files hold, but for pixels. All maps but `statics` are by topic.
#[derive(Default)]
struct Recording {
    films: BTreeMap<String, Film>,
    /// The first of each topic, and whether another was different.
    cameras: BTreeMap<String, (CameraInfo, bool)>,
    tracks: BTreeMap<(Kind, String), Track>,
    /// By child: its parent, and the transform from the child to it.
    statics: BTreeMap<String, (String, Isometry3<f64>)>,
    broken: BTreeMap<String, usize>,
    /// Topics in which the last image was broken.
    lost: BTreeMap<String, bool>,
}

impl Recording {
    fn scan(&mut self, path: &Path) -> McapResult<()> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        check_magic(&mut file, size)?;
        let mut schemas: BTreeMap<u16, Kind> = BTreeMap::new();
        let mut channels: BTreeMap<u16, (Kind, String)> = BTreeMap::new();
        let mut at = MAGIC.len() as u64;
        loop {
            let (opcode, length) = head(&mut file, at, size)?;
            if matches!(opcode, op::DATA_END | op::FOOTER) {
                return Ok(());
            }
            if matches!(opcode, op::SCHEMA | op::CHANNEL | op::MESSAGE | op::CHUNK) {
                let bytes = record(&mut file, at, size)?;
                let mut number = 0_usize;
                unpack(&bytes, |opcode, data| {
                    if !matches!(opcode, op::SCHEMA | op::CHANNEL | op::MESSAGE) {
                        return Ok(());
                    }
                    match parse_record(opcode, data)? {
                        Record::Schema { header, .. } => {
                            if let Some(kind) = Kind::of(&header.name) {
                                schemas.insert(header.id, kind);
                            }
                        }
                        Record::Channel(channel) if channel.message_encoding == "cdr" => {
                            if let Some(kind) = schemas.get(&channel.schema_id) {
                                channels.insert(channel.id, (*kind, channel.topic));
                            }
                        }
                        Record::Message { header, data } => {
                            if let Some((kind, topic)) = channels.get(&header.channel_id) {
                                let place = path.join(format!("{at}.{number}.{kind:?}"));
                                if self.message(*kind, topic, &data, place).is_none() {
                                    *self.broken.entry(topic.clone()).or_default() += 1;
                                    self.lost.insert(topic.clone(), true);
                                }
                            }
                            number += 1;
                        }
                        _ => {}
                    }
                    Ok(())
                })?;
            }
            at += HEAD + length;
        }
    }

    /// `None` where the message is not what its type says.
    fn message(&mut self, kind: Kind, topic: &str, data: &[u8], place: PathBuf) -> Option<()> {
        match kind {
            Kind::Image => {
                let image: ImageHead = decode(data)?;
                let known = channels(&image.encoding).is_some();
                self.shot(kind, topic, image.header, (!known).then_some(image.encoding), place);
            }
            Kind::CompressedImage => {
                let image: CompressedHead = decode(data)?;
                let format = image.format.to_ascii_lowercase();
                let known = ["jpeg", "jpg", "png"].iter().any(|name| format.contains(name));
                let known = known && !format.contains("compresseddepth");
                self.shot(kind, topic, image.header, (!known).then_some(image.format), place);
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

    fn shot(&mut self, kind: Kind, topic: &str, header: Header, strange: Option<String>, place: PathBuf) {
        let lost = self.lost.remove(topic).unwrap_or(false);
        let stamp = header.stamp();
        let new = || Film { kind, frame_id: header.frame_id, strange: None, shots: Vec::new() };
        let film = self.films.entry(topic.to_owned()).or_insert_with(new);
        film.strange = film.strange.take().or(strange);
        film.shots.push((stamp, place, lost));
    }

    fn transform(&mut self, topic: &str, message: TransformStamped) -> Option<()> {
        let TransformStamped { header, child_frame_id, transform } = message;
        let isometry = transform.isometry()?;
        if topic.ends_with("tf_static") {
            let parent = plain(&header.frame_id).to_owned();
            self.statics.insert(plain(&child_frame_id).to_owned(), (parent, isometry));
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
        let body_from_camera = self.mount(&track.body, &film.frame_id).ok_or_else(|| {
            let expected = format!("poses of the images' frame {:?}, or static transforms to it", film.frame_id);
            field("pose frame", &expected, format!("{name} of frame {:?} and no static transform", track.body))
        })?;
        let mut poses = track.poses.clone();
        poses.sort_by_key(|pose| pose.stamp);
        let mut shots: Vec<&(Stamp, PathBuf, bool)> = film.shots.iter().collect();
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
        let (body, camera) = (plain(body), plain(camera));
        let above_camera = self.ancestors(camera);
        let meet = |(name, above_from_body): (&str, Isometry3<f64>)| {
            let (_, above_from_camera) = above_camera.iter().find(|(other, _)| *other == name)?;
            Some(above_from_body.inverse() * above_from_camera)
        };
        let unknown = || body.ends_with("optical_frame").then(Isometry3::identity);
        self.ancestors(body).into_iter().find_map(meet).or_else(unknown)
    }

    /// A frame and those above it, each with the transform from the frame to it.
    fn ancestors<'a>(&'a self, frame: &'a str) -> Vec<(&'a str, Isometry3<f64>)> {
        let mut chain = vec![(frame, Isometry3::identity())];
        let (mut name, mut above_from_frame) = (frame, Isometry3::identity());
        // Not more than there are: a ring of transforms has no end.
        for _ in 0..self.statics.len() {
            let Some((parent, parent_from_child)) = self.statics.get(name) else { break };
            above_from_frame = parent_from_child * above_from_frame;
            name = parent;
            chain.push((name, above_from_frame));
        }
        chain
    }
}

/// Older programs write frames with a slash in front.
fn plain(frame: &str) -> &str {
    frame.trim_start_matches('/')
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

fn check_magic(file: &mut File, size: u64) -> McapResult<()> {
    let mut magic = [0; MAGIC.len()];
    if size < 2 * MAGIC.len() as u64 {
        return Err(McapError::UnexpectedEof);
    }
    file.read_exact(&mut magic)?;
    if magic != *MAGIC {
        return Err(McapError::BadMagic);
    }
    file.seek(SeekFrom::Start(size - MAGIC.len() as u64))?;
    file.read_exact(&mut magic)?;
    if magic == *MAGIC { Ok(()) } else { Err(McapError::UnexpectedEof) }
}

/// What the record at a byte is, and how many bytes follow its head.
fn head(file: &mut File, at: u64, size: u64) -> McapResult<(u8, u64)> {
    let mut head = [0; HEAD as usize];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut head).map_err(|_| McapError::UnexpectedEof)?;
    let [opcode, length @ ..] = head;
    let length = u64::from_le_bytes(length);
    let room = size.saturating_sub(at + HEAD);
    if length > room { Err(McapError::UnexpectedEof) } else { Ok((opcode, length)) }
}

/// The record at a byte, with its head.
fn record(file: &mut File, at: u64, size: u64) -> McapResult<Vec<u8>> {
    let (opcode, len) = head(file, at, size)?;
    if len > MAX_BYTES as u64 {
        return Err(McapError::RecordTooLarge { opcode, len });
    }
    let mut bytes = vec![0; (HEAD + len) as usize];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut bytes)?;
    if opcode == op::CHUNK
        && let Record::Chunk { header, .. } = parse_record(opcode, &bytes[HEAD as usize..])?
    {
        // The library counts on it.
        let available = len.saturating_sub(CHUNK_HEAD + header.compression.len() as u64);
        if header.compressed_size != available {
            return Err(McapError::BadChunkLength { header: header.compressed_size, available });
        }
    }
    Ok(bytes)
}

/// Goes through the records in a chunk, or through the one that is no chunk.
fn unpack(mut bytes: &[u8], mut each: impl FnMut(u8, &[u8]) -> McapResult<()>) -> McapResult<()> {
    let options = LinearReaderOptions::default()
        .with_skip_start_magic(true)
        .with_skip_end_magic(true)
        .with_prevalidate_chunk_crcs(true)
        .with_record_length_limit(MAX_BYTES);
    let mut reader = LinearReader::new_with_options(options);
    while let Some(event) = reader.next_event() {
        match event? {
            LinearReadEvent::ReadRequest(wanted) => {
                let (now, later) = bytes.split_at(wanted.min(bytes.len()));
                reader.insert(now.len()).copy_from_slice(now);
                reader.notify_read(now.len());
                bytes = later;
            }
            LinearReadEvent::Record { data, opcode } => each(opcode, data)?,
        }
    }
    Ok(())
}

/// Where the message of a picture is.
pub(in crate::data) struct Place<'a> {
    file: &'a Path,
    offset: u64,
    number: usize,
    compressed: bool,
}

/// What such a message holds.
pub(in crate::data) enum Picture {
    Pixels(RgbImage),
    /// The bytes of a JPEG or PNG.
    Encoded(Vec<u8>),
}

impl<'a> Place<'a> {
    /// Of a frame's path; `None` for a picture with a file of its own.
    pub(in crate::data) fn of(path: &'a Path) -> Option<Self> {
        let file = path.parent().filter(|file| is_mcap(file))?;
        let mut parts = path.file_name()?.to_str()?.splitn(3, '.');
        let (offset, number) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let compressed = match parts.next()? {
            "Image" => false,
            "CompressedImage" => true,
            _ => return None,
        };
        Some(Self { file, offset, number, compressed })
    }

    /// Reads it again; `index` is its frame in errors.
    pub(in crate::data) fn read(&self, index: usize) -> Result<Picture, Error> {
        let message = self.message().map_err(|source| Error::Recording { path: self.file.to_path_buf(), source })?;
        let picture = if self.compressed {
            decode::<CompressedImage<'_>>(&message).map(|image| Picture::Encoded(image.data.to_vec()))
        } else {
            decode::<Image<'_>>(&message).and_then(|image| pixels(&image)).map(Picture::Pixels)
        };
        picture.ok_or_else(|| Error::Frame {
            path: self.file.to_path_buf(),
            index,
            expected: "an image with all its rows".to_owned(),
            got: format!("{} bytes that are none, at byte {}", message.len(), self.offset),
        })
    }

    fn message(&self) -> McapResult<Vec<u8>> {
        let mut file = File::open(self.file)?;
        let size = file.metadata()?.len();
        let bytes = record(&mut file, self.offset, size)?;
        let (mut number, mut found) = (0, None);
        unpack(&bytes, |opcode, data| {
            if opcode == op::MESSAGE {
                if number == self.number
                    && let Record::Message { data, .. } = parse_record(opcode, data)?
                {
                    found = Some(data.into_owned());
                }
                number += 1;
            }
            Ok(())
        })?;
        found.ok_or(McapError::BadIndex)
    }
}

/// `None` where rows are missing.
fn pixels(image: &Image<'_>) -> Option<RgbImage> {
    let (channels, [red, green, blue]) = channels(&image.encoding)?;
    let (step, height) = (image.step as usize, image.height as usize);
    let row = (image.width as usize).checked_mul(channels).filter(|row| (1..=step).contains(row))?;
    // Of the last row, the padding may be missing.
    if image.data.len() < step.checked_mul(height.checked_sub(1)?)?.checked_add(row)? {
        return None;
    }
    let rows = image.data.chunks(step).take(height);
    let pixels = rows.flat_map(|line| line[..row].chunks_exact(channels));
    let values = pixels.flat_map(|pixel| [pixel[red], pixel[green], pixel[blue]]).collect();
    RgbImage::from_raw(image.width, image.height, values)
}
