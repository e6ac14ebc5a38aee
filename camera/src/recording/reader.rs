//! MCAP files as they are found (<https://mcap.dev/spec>): from first to last byte, without their index, so that a file
//! whose writer was killed is read as far as it goes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use geometry::Stamp;
use mcap::records::{Record, op};
use mcap::sans_io::{LinearReadEvent, LinearReader, LinearReaderOptions};
use mcap::{MAGIC, McapError, parse_record};

use super::{Error, OWN_MARK, reason};
use crate::ros::Type;

/// Largest record or chunk, unpacked: a forged length must not take all memory.
const MAX_BYTES: usize = 256 << 20;
/// Bytes in front of a record: what it is and its length.
const HEAD: usize = 9;
/// Bytes in a chunk around its records and the name of its compression.
const CHUNK_HEAD: u64 = 40;
/// How what zstd has packed begins; no message in CDR does.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// How a database of sqlite3 begins.
const SQLITE: &[u8] = b"SQLite f";
/// How a bag of ROS 1 begins.
const ROS_1: &[u8] = b"#ROSBAG ";
/// Ends of the names of what our node says, where nobody gave it others: in any namespace.
const OWN: [&str; 2] = ["/ego/odometry", "/ego/pose"];

/// A topic of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Channel {
    /// Its name.
    pub topic: String,
    /// The name of its type.
    pub schema: String,
    /// How its messages are encoded; `cdr` where ROS 2 wrote them.
    pub encoding: String,
    /// Whether the file says that our node has said it ([`super::Writer::own`]).
    pub marked: bool,
}

impl Channel {
    /// The type of its messages, where it is one that is read here, in CDR or not.
    pub fn message_type(&self) -> Option<Type> {
        Type::named(&self.schema)
    }

    /// Whether its messages are in CDR.
    pub fn is_cdr(&self) -> bool {
        self.encoding == "cdr"
    }

    /// Whether our node has said it: its own recordings mark such topics, and of those of others the names that it gives them by
    /// default tell.
    pub fn is_own(&self) -> bool {
        self.marked || OWN.iter().any(|name| self.topic.ends_with(name))
    }
}

/// A message, and where it is from.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Its topic.
    pub channel: &'a Channel,
    /// When it was recorded.
    pub log_time: Stamp,
    /// Where it is, for [`read_at`].
    pub place: Place,
    /// Its bytes.
    pub data: &'a [u8],
}

/// Where a message is in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The byte at which its record begins, or the chunk around it.
    pub offset: u64,
    /// How many messages there are before it in the chunk.
    pub number: usize,
}

/// Where a file cannot be read any further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot be read from byte {offset} on: {reason}")]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// The first byte of the record that is broken.
    pub offset: u64,
    /// What is wrong with it.
    pub reason: String,
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
///
/// # Errors
///
/// [`Error::Io`] and [`Error::NotMcap`], and those of `each`, which end it.
pub fn scan<E: From<Error>>(
    path: &Path,
    mut each: impl FnMut(&Message<'_>) -> Result<(), E>,
) -> Result<Option<Damage>, E> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let mut source = Source::open(path).map_err(io)?;
    let magic = source.magic().map_err(io)?;
    if magic != MAGIC {
        if source.size < MAGIC.len() as u64 {
            // A writer that ended before it had written anything: what other files of the bag have is there.
            let reason = reason(&McapError::UnexpectedEof);
            return Ok(Some(Damage { path: path.to_owned(), offset: 0, reason }));
        }
        return Err(Error::NotMcap { path: path.to_owned(), got: kind(&magic) }.into());
    }
    let mut known = Known::default();
    loop {
        let offset = source.offset;
        let stop = match source.record() {
            Ok(None) => return Ok(None),
            Ok(Some(bytes)) => match known.take(&bytes, offset, &mut each) {
                Ok(()) => continue,
                Err(stop) => stop,
            },
            Err(error) => Stop::Damage(error),
        };
        return match stop {
            Stop::Asked(error) => Err(error),
            Stop::Damage(error) => Ok(Some(Damage { path: path.to_owned(), offset, reason: reason(&error) })),
        };
    }
}

/// Reads one message again, by its [`Message::place`].
///
/// # Errors
///
/// [`Error::Io`], and [`Error::Message`] where the file is another than it was.
pub fn read_at(path: &Path, place: Place) -> Result<Vec<u8>, Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let gone = |error: &McapError| Error::Message { path: path.to_owned(), place, reason: reason(error) };
    let mut source = Source::open(path).map_err(io)?;
    source.seek(place.offset).map_err(io)?;
    let bytes = source.record().map_err(|e| gone(&e))?.ok_or_else(|| gone(&McapError::BadIndex))?;
    let (mut at, mut found) = (0, None);
    let unpacked = unpack(&bytes, |opcode, data| {
        if opcode == op::MESSAGE {
            if at == place.number
                && let Record::Message { data, .. } = parse_record(opcode, data)?
            {
                found = Some(plain_message(&data).into_owned());
            }
            at += 1;
        }
        Ok::<(), McapError>(())
    });
    unpacked.map_err(|e| gone(&e))?;
    found.ok_or_else(|| gone(&McapError::BadIndex))
}

/// A file that is being gone through.
struct Source {
    file: BufReader<File>,
    size: u64,
    offset: u64,
}

impl Source {
    fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { file: BufReader::new(file), size, offset: 0 })
    }

    fn seek(&mut self, offset: u64) -> std::io::Result<()> {
        self.offset = self.file.seek(SeekFrom::Start(offset))?;
        Ok(())
    }

    /// The first bytes, by which a file is known.
    fn magic(&mut self) -> std::io::Result<Vec<u8>> {
        let mut magic = Vec::with_capacity(MAGIC.len());
        self.file.by_ref().take(MAGIC.len() as u64).read_to_end(&mut magic)?;
        self.offset = magic.len() as u64;
        Ok(magic)
    }

    /// The next record with its head, empty for one that holds no messages; none where the messages end.
    fn record(&mut self) -> Result<Option<Vec<u8>>, McapError> {
        let mut head = [0; HEAD];
        self.file.read_exact(&mut head).map_err(cut)?;
        let [opcode, length @ ..] = head;
        let length = u64::from_le_bytes(length);
        let body = self.offset + HEAD as u64;
        if length > self.size.saturating_sub(body) {
            return Err(McapError::UnexpectedEof);
        }
        let mut bytes = Vec::new();
        match opcode {
            op::DATA_END | op::FOOTER => return Ok(None),
            op::SCHEMA | op::CHANNEL | op::MESSAGE | op::CHUNK => {
                let size = usize::try_from(length).unwrap_or(usize::MAX);
                if size > MAX_BYTES {
                    return Err(McapError::RecordTooLarge { opcode, len: length });
                }
                bytes.extend(head);
                bytes.resize(HEAD + size, 0);
                self.file.read_exact(&mut bytes[HEAD..]).map_err(cut)?;
                check_chunk(opcode, &bytes[HEAD..])?;
            }
            _ => {
                let skip = i64::try_from(length).map_err(|_| McapError::UnexpectedEof)?;
                self.file.seek_relative(skip).map_err(McapError::Io)?;
            }
        }
        self.offset = body + length;
        Ok(Some(bytes))
    }
}

/// What the records before said.
#[derive(Default)]
struct Known {
    /// Names by id.
    schemas: BTreeMap<u16, String>,
    /// By id.
    channels: BTreeMap<u16, Channel>,
}

impl Known {
    /// Takes the record, or the records of the chunk, that begin at `offset`.
    fn take<E>(
        &mut self,
        bytes: &[u8],
        offset: u64,
        each: &mut impl FnMut(&Message<'_>) -> Result<(), E>,
    ) -> Result<(), Stop<E>> {
        let mut number = 0;
        unpack(bytes, |opcode, data| {
            if !matches!(opcode, op::SCHEMA | op::CHANNEL | op::MESSAGE) {
                return Ok(());
            }
            match parse_record(opcode, data)? {
                Record::Schema { header, .. } => drop(self.schemas.insert(header.id, header.name)),
                Record::Channel(channel) => {
                    let schema = self.schemas.get(&channel.schema_id).cloned().unwrap_or_default();
                    let marked = channel.metadata.contains_key(OWN_MARK);
                    let read = Channel { topic: channel.topic, schema, encoding: channel.message_encoding, marked };
                    self.channels.insert(channel.id, read);
                }
                Record::Message { header, data } => {
                    let unknown = McapError::UnknownChannel(header.sequence, header.channel_id);
                    let channel = self.channels.get(&header.channel_id).ok_or(unknown)?;
                    let log_time = Stamp::from_nanos(i64::try_from(header.log_time).unwrap_or(i64::MAX));
                    let place = Place { offset, number };
                    let data = plain_message(&data);
                    each(&Message { channel, log_time, place, data: &data }).map_err(Stop::Asked)?;
                    number += 1;
                }
                _ => {}
            }
            Ok(())
        })
    }
}

/// Goes through the records in a chunk, or the one that is no chunk; `bytes` begin with its head.
fn unpack<E: From<McapError>>(mut bytes: &[u8], mut each: impl FnMut(u8, &[u8]) -> Result<(), E>) -> Result<(), E> {
    if bytes.is_empty() {
        return Ok(());
    }
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

/// A message as it was before rosbag2 packed it (`--compression-mode message`). One that cannot be unpacked stays as it is, and
/// so is not what its type says.
fn plain_message(data: &[u8]) -> Cow<'_, [u8]> {
    if !data.starts_with(&ZSTD) {
        return Cow::Borrowed(data);
    }
    let mut plain = Vec::new();
    // What a frame says of its own size is not believed.
    let unpacked =
        zstd::Decoder::with_buffer(data).and_then(|decoder| decoder.take(MAX_BYTES as u64).read_to_end(&mut plain));
    if unpacked.is_ok() { Cow::Owned(plain) } else { Cow::Borrowed(data) }
}

/// What a file is that does not begin as MCAP, and what makes it one.
fn kind(magic: &[u8]) -> &'static str {
    if magic.starts_with(SQLITE) {
        "a bag of sqlite3, of which `ros2 bag convert` makes one of MCAP"
    } else if magic.starts_with(ROS_1) {
        "a bag of ROS 1, of which `rosbags-convert` makes one of ROS 2"
    } else if magic.starts_with(&ZSTD) {
        "one that zstd has packed, which `zstd -d` unpacks"
    } else {
        "one of another kind"
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
