//! MCAP files as they are found: from first to last byte, without their index, so that a file whose writer was killed is
//! read as far as it goes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use geometry::Stamp;
use mcap::records::{Record, op};
use mcap::sans_io::{LinearReadEvent, LinearReader, LinearReaderOptions};
use mcap::{MAGIC, McapError, parse_record};

use super::message::{Kind, decode_input};
use super::{Error, reason};
use crate::config::UseFixed;
use crate::message::Input;
use crate::transport::Topics;

/// Largest record or chunk, unpacked: a forged length must not take all memory.
const MAX_BYTES: usize = 256 << 20;
/// Bytes in front of a record: what it is and its length.
const HEAD: usize = 9;
/// Bytes in a chunk around its records and the name of its compression.
const CHUNK_HEAD: u64 = 40;

/// A topic of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Channel {
    topic: String,
    /// The name of its type.
    schema: String,
    /// How its messages are encoded; `cdr` where ROS 2 wrote them.
    encoding: String,
}

/// Where a file cannot be read any further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot be read from byte {offset} on: {reason}")]
pub struct Damage {
    /// The first byte of the record that is broken.
    pub offset: u64,
    /// What is wrong with it.
    pub reason: String,
}

/// What a file holds, as far as it can be read.
#[derive(Debug)]
pub struct Recording {
    path: PathBuf,
    /// With their messages.
    channels: BTreeMap<Channel, u64>,
    damage: Option<Damage>,
}

/// The topics of a recording that the node plays.
#[derive(Debug)]
pub struct Camera<'a> {
    path: &'a Path,
    image: &'a Channel,
    info: Option<&'a Channel>,
    /// The odometry that gives the scale.
    reference: Option<&'a Channel>,
    images: u64,
}

impl Recording {
    /// Goes through a file once. One that ends in the middle is opened as far as it goes: see [`Recording::damage`].
    ///
    /// # Errors
    ///
    /// [`Error::Io`] and [`Error::NotMcap`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let mut channels: BTreeMap<Channel, u64> = BTreeMap::new();
        let damage = scan(path, |message| {
            match channels.get_mut(message.channel) {
                Some(messages) => *messages += 1,
                None => {
                    channels.insert(message.channel.clone(), 1);
                }
            }
            Ok::<(), Error>(())
        })?;
        Ok(Self { path: path.to_owned(), channels, damage })
    }

    /// Why messages may be missing at its end.
    pub fn damage(&self) -> Option<&Damage> {
        self.damage.as_ref()
    }

    /// The topics that the config names, or else the only ones of their types; without CameraInfo where the config's
    /// intrinsics always count. The odometry that gives the scale goes by its name alone: the node's own is of its type.
    ///
    /// # Errors
    ///
    /// [`Error::NoImages`], [`Error::Ambiguous`], and [`Error::Encoding`].
    pub fn camera(&self, topics: &Topics, use_fixed: UseFixed) -> Result<Camera<'_>, Error> {
        let is_image = |kind: Kind| matches!(kind, Kind::Image | Kind::CompressedImage);
        let image = self.choose(is_image, "topics.image", &topics.image)?.ok_or_else(|| self.no_images())?;
        let info = match use_fixed {
            UseFixed::Always => None,
            UseFixed::Never | UseFixed::UntilCameraInfo => {
                self.choose(|kind| kind == Kind::CameraInfo, "topics.camera_info", &topics.camera_info)?
            }
        };
        let reference = match &topics.reference_odometry {
            None => None,
            Some(name) => self.named(name, Kind::ReferenceOdometry)?,
        };
        Ok(Camera { path: &self.path, image, info, reference, images: self.channels[image] })
    }

    fn choose(
        &self,
        is_wanted: impl Fn(Kind) -> bool,
        key: &'static str,
        wanted: &str,
    ) -> Result<Option<&Channel>, Error> {
        let fitting: Vec<&Channel> =
            self.channels.keys().filter(|channel| Kind::of_type(&channel.schema).is_some_and(&is_wanted)).collect();
        let named = fitting.iter().find(|channel| channel.topic == wanted);
        let only = fitting.first().filter(|_| fitting.len() == 1);
        let Some(&chosen) = named.or(only) else {
            if fitting.is_empty() {
                return Ok(None);
            }
            let names: Vec<&str> = fitting.iter().map(|channel| channel.topic.as_str()).collect();
            let (path, wanted) = (self.path.clone(), wanted.to_owned());
            return Err(Error::Ambiguous { path, key, wanted, got: names.join(", ") });
        };
        self.readable(chosen).map(Some)
    }

    /// The topic of this name, where its messages are of this kind's type.
    fn named(&self, name: &str, kind: Kind) -> Result<Option<&Channel>, Error> {
        let has_type =
            |channel: &Channel| Kind::of_type(&channel.schema).map(Kind::type_name) == Some(kind.type_name());
        let found = self.channels.keys().find(|channel| channel.topic == name && has_type(channel));
        found.map(|channel| self.readable(channel)).transpose()
    }

    fn readable<'a>(&self, channel: &'a Channel) -> Result<&'a Channel, Error> {
        if channel.encoding == "cdr" {
            Ok(channel)
        } else {
            let (topic, got) = (channel.topic.clone(), channel.encoding.clone());
            Err(Error::Encoding { path: self.path.clone(), topic, got })
        }
    }

    fn no_images(&self) -> Error {
        let mut got: Vec<String> = self.channels.keys().map(|c| format!("{} of {}", c.topic, c.schema)).collect();
        if got.is_empty() {
            got.push("no messages".to_owned());
        }
        got.extend(self.damage.iter().map(|damage| format!("a file that {damage}")));
        Error::NoImages { path: self.path.clone(), got: got.join(", ") }
    }
}

impl Camera<'_> {
    /// The topic of the images.
    pub fn topic(&self) -> &str {
        &self.image.topic
    }

    /// The topic of the CameraInfo, where there is one.
    pub fn info_topic(&self) -> Option<&str> {
        self.info.map(|channel| channel.topic.as_str())
    }

    /// The topic of the odometry that gives the scale, where there is one.
    pub fn reference_topic(&self) -> Option<&str> {
        self.reference.map(|channel| channel.topic.as_str())
    }

    /// Images in the file.
    pub fn images(&self) -> u64 {
        self.images
    }

    /// The error of images that the node does not read.
    pub(crate) fn refuse(&self, reason: String) -> Error {
        Error::Images { path: self.path.to_owned(), topic: self.topic().to_owned(), reason }
    }

    /// Hands over what the camera and the odometry said, with the time at which it was heard, in the file's order, which is
    /// that of their coming; a message that is not what its type says, as what is wrong with it.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], and those of `each`, which end it.
    pub fn play<E: From<Error>>(
        &self,
        mut each: impl FnMut(Stamp, Result<Input, String>) -> Result<(), E>,
    ) -> Result<(), E> {
        // What is broken was told when the file was opened.
        scan(self.path, |message| {
            let kind = if Some(message.channel) == self.reference {
                Some(Kind::ReferenceOdometry)
            } else if message.channel == self.image || Some(message.channel) == self.info {
                Kind::of_type(&message.channel.schema)
            } else {
                None
            };
            kind.map_or(Ok(()), |kind| each(message.log_time, decode_input(kind, message.data)))
        })?;
        Ok(())
    }
}

/// A message, and where it is from.
struct Message<'a> {
    channel: &'a Channel,
    log_time: Stamp,
    data: &'a [u8],
}

/// Why a record is not gone through to its end.
enum Stop<E> {
    /// It is broken.
    Damage(McapError),
    /// The caller has had enough.
    Asked(E),
}

impl<E> From<McapError> for Stop<E> {
    fn from(error: McapError) -> Self {
        Self::Damage(error)
    }
}

/// Goes through the messages of a file in its order; returns where it is broken, if it is.
fn scan<E: From<Error>>(path: &Path, mut each: impl FnMut(&Message<'_>) -> Result<(), E>) -> Result<Option<Damage>, E> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    let mut source = Source::new(file, size);
    if !source.begins_well().map_err(io)? {
        return Err(Error::NotMcap { path: path.to_owned() }.into());
    }
    loop {
        let offset = source.offset;
        match source.record(&mut each) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(Stop::Asked(error)) => return Err(error),
            Err(Stop::Damage(error)) => return Ok(Some(Damage { offset, reason: reason(&error) })),
        }
    }
}

/// A file that is being gone through.
struct Source {
    file: BufReader<File>,
    size: u64,
    offset: u64,
    /// Names by id.
    schemas: BTreeMap<u16, String>,
    /// By id.
    channels: BTreeMap<u16, Channel>,
}

impl Source {
    fn new(file: File, size: u64) -> Self {
        Self { file: BufReader::new(file), size, offset: 0, schemas: BTreeMap::new(), channels: BTreeMap::new() }
    }

    fn begins_well(&mut self) -> std::io::Result<bool> {
        let mut magic = Vec::with_capacity(MAGIC.len());
        self.file.by_ref().take(MAGIC.len() as u64).read_to_end(&mut magic)?;
        self.offset = magic.len() as u64;
        Ok(magic == MAGIC)
    }

    /// Goes through the next record; false where the messages end.
    fn record<E>(&mut self, each: &mut impl FnMut(&Message<'_>) -> Result<(), E>) -> Result<bool, Stop<E>> {
        let mut head = [0; HEAD];
        self.file.read_exact(&mut head).map_err(cut)?;
        let [opcode, length @ ..] = head;
        let length = u64::from_le_bytes(length);
        let body = self.offset + HEAD as u64;
        if length > self.size.saturating_sub(body) {
            return Err(McapError::UnexpectedEof.into());
        }
        match opcode {
            op::DATA_END | op::FOOTER => return Ok(false),
            op::SCHEMA | op::CHANNEL | op::MESSAGE | op::CHUNK => {
                let size = usize::try_from(length).unwrap_or(usize::MAX);
                if size > MAX_BYTES {
                    return Err(McapError::RecordTooLarge { opcode, len: length }.into());
                }
                let mut bytes = head.to_vec();
                bytes.resize(HEAD + size, 0);
                self.file.read_exact(&mut bytes[HEAD..]).map_err(cut)?;
                check_chunk(opcode, &bytes[HEAD..])?;
                self.unpack(&bytes, each)?;
            }
            _ => {
                let skip = i64::try_from(length).map_err(|_| McapError::UnexpectedEof)?;
                self.file.seek_relative(skip).map_err(McapError::Io)?;
            }
        }
        self.offset = body + length;
        Ok(true)
    }

    /// Goes through the records in a chunk, or the one that is no chunk; `bytes` begin with its head.
    fn unpack<E>(
        &mut self,
        mut bytes: &[u8],
        each: &mut impl FnMut(&Message<'_>) -> Result<(), E>,
    ) -> Result<(), Stop<E>> {
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
                LinearReadEvent::Record { data, opcode } => self.take(opcode, data, each)?,
            }
        }
        Ok(())
    }

    fn take<E>(
        &mut self,
        opcode: u8,
        data: &[u8],
        each: &mut impl FnMut(&Message<'_>) -> Result<(), E>,
    ) -> Result<(), Stop<E>> {
        if !matches!(opcode, op::SCHEMA | op::CHANNEL | op::MESSAGE) {
            return Ok(());
        }
        match parse_record(opcode, data)? {
            Record::Schema { header, .. } => drop(self.schemas.insert(header.id, header.name)),
            Record::Channel(channel) => {
                let schema = self.schemas.get(&channel.schema_id).cloned().unwrap_or_default();
                let read = Channel { topic: channel.topic, schema, encoding: channel.message_encoding };
                self.channels.insert(channel.id, read);
            }
            Record::Message { header, data } => {
                if let Some(channel) = self.channels.get(&header.channel_id) {
                    let log_time = Stamp::from_nanos(i64::try_from(header.log_time).unwrap_or(i64::MAX));
                    each(&Message { channel, log_time, data: &data }).map_err(Stop::Asked)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// A file that became shorter, or ends in the head of a record.
fn cut(error: std::io::Error) -> McapError {
    if error.kind() == std::io::ErrorKind::UnexpectedEof { McapError::UnexpectedEof } else { McapError::Io(error) }
}

/// The library counts on a chunk's records being all that it holds.
fn check_chunk(opcode: u8, data: &[u8]) -> Result<(), McapError> {
    if opcode == op::CHUNK
        && let Record::Chunk { header, .. } = parse_record(opcode, data)?
    {
        let available = (data.len() as u64).saturating_sub(CHUNK_HEAD + header.compression.len() as u64);
        if header.compressed_size != available {
            return Err(McapError::BadChunkLength { header: header.compressed_size, available });
        }
    }
    Ok(())
}
