//! MCAP files as they are found (<https://mcap.dev/spec>): from first to last byte, so that a file whose writer was killed is
//! read as far as it goes. Their index is not needed, but believed where it says that something is missing.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use geometry::Stamp;
use mcap::records::{Record, op};
use mcap::sans_io::{LinearReadEvent, LinearReader, LinearReaderOptions};
use mcap::{MAGIC, McapError, parse_record};

use super::ending::{Ending, Wrong};
use super::source::{HEAD, Head, MAX_BYTES, Source};
use super::{Error, OWN_MARK, reason};
use crate::ros::Type;

/// What a chunk or a message may unpack to, however little it takes packed: a blank picture of 4K in 16 bits is less.
const FREE_BYTES: u64 = 64 << 20;
/// How many times its packed size it may unpack to beyond that. Pictures do not; a file that is made to fill the memory does.
const RATIO: u64 = 1024;
/// Longest name of a topic, a type or an encoding: names are kept, so they must not take what a chunk may.
const MAX_NAME: usize = 1024;
/// Bytes in a chunk around its records and the name of its compression.
const CHUNK_HEAD: u64 = 40;
/// Where a chunk has the checksum of its records, from its own head on.
const CHUNK_SUM: usize = HEAD + 24;
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

/// What is missing of a recording.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// A file cannot be read any further.
    #[error("cannot be read from byte {offset} on: {reason}")]
    Broken {
        /// The file.
        path: PathBuf,
        /// The first byte of the record that is broken.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// All of it can be read, but less is there than it says of itself.
    #[error("counts {expected} messages{}, and {got} can be read", of(topic))]
    Missing {
        /// The file that counts: an MCAP file, or the metadata.yaml of a bag.
        path: PathBuf,
        /// Whose messages; those of all topics without it.
        topic: Option<String>,
        /// How many it says that there are.
        expected: u64,
        /// How many there are.
        got: u64,
    },
}

impl Damage {
    /// The file that is told of.
    pub fn path(&self) -> &Path {
        match self {
            Self::Broken { path, .. } | Self::Missing { path, .. } => path,
        }
    }
}

fn of(topic: &Option<String>) -> String {
    topic.as_ref().map(|topic| format!(" of {topic}")).unwrap_or_default()
}

/// Why a record is not gone through to its end.
enum Stop<E> {
    /// It is broken.
    Damage(Wrong),
    /// The caller has had enough.
    Asked(E),
}

impl<E> From<McapError> for Stop<E> {
    fn from(error: McapError) -> Self {
        Self::Damage(error.into())
    }
}

impl<E> From<Wrong> for Stop<E> {
    fn from(wrong: Wrong) -> Self {
        Self::Damage(wrong)
    }
}

/// Goes through the messages of a file in its order, up to where it is broken, if it is; returns that, or how many messages
/// it lacks by its own count.
///
/// # Errors
///
/// [`Error::Io`] and [`Error::NotMcap`], and those of `each`, which end it.
pub fn scan<E: From<Error>>(
    path: &Path,
    mut each: impl FnMut(&Message<'_>) -> Result<(), E>,
) -> Result<Option<Damage>, E> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let broken = |offset, reason| Ok(Some(Damage::Broken { path: path.to_owned(), offset, reason }));
    let mut source = Source::open(path).map_err(io)?;
    let ending = Ending::find(&mut source);
    source.seek(0).map_err(io)?;
    let magic = source.magic().map_err(io)?;
    if magic != MAGIC {
        if source.size < MAGIC.len() as u64 {
            // A writer that ended before it had written anything: what other files of the bag have is there.
            return broken(0, reason(&McapError::UnexpectedEof));
        }
        return Err(Error::NotMcap { path: path.to_owned(), got: kind(&magic) }.into());
    }
    let mut walk = Walk { ending, known: Known::default(), last: op::HEADER, is_loose: false };
    loop {
        let offset = source.offset;
        match walk.step(&mut source, &mut each) {
            Ok(true) => {}
            Ok(false) => return Ok(walk.missing(path)),
            Err(Stop::Asked(error)) => return Err(error),
            Err(Stop::Damage(wrong)) => return broken(offset, wrong.to_string()),
        }
    }
}

/// Reads one message again, by its [`Message::place`].
///
/// # Errors
///
/// [`Error::Io`], and [`Error::Message`] where the file is another than it was.
pub fn read_at(path: &Path, place: Place) -> Result<Vec<u8>, Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let mut source = Source::open(path).map_err(io)?;
    source.seek(place.offset).map_err(io)?;
    let found = message_at(&mut source, place.number).and_then(|found| found.ok_or(McapError::BadIndex.into()));
    found.map_err(|wrong| Error::Message { path: path.to_owned(), place, reason: wrong.to_string() })
}

/// The message of a number in the chunk that comes next, or the one that is no chunk.
fn message_at(source: &mut Source, number: usize) -> Result<Option<Vec<u8>>, Wrong> {
    let head = source.head()?;
    if !matches!(head.opcode, op::MESSAGE | op::CHUNK) {
        return Ok(None);
    }
    let bytes = source.body(&head)?;
    let (mut at, most) = (0, most_unpacked(bytes.len() as u64));
    // What is behind it may be broken.
    let read = unpack(&bytes, |opcode, data| {
        if opcode != op::MESSAGE {
            return Ok(());
        }
        if at < number {
            at += 1;
            return Ok(());
        }
        match parse_record(opcode, data)? {
            Record::Message { data, .. } => Err(Stop::Asked(plain_message(&data, most).into_owned())),
            _ => Ok(()),
        }
    });
    match read {
        Ok(()) => Ok(None),
        Err(Stop::Asked(found)) => Ok(Some(found)),
        Err(Stop::Damage(wrong)) => Err(wrong),
    }
}

/// What must hold of the records of a file in their order.
struct Walk {
    /// Where the file is whole there.
    ending: Option<Ending>,
    known: Known,
    /// What the record before was.
    last: u8,
    /// Whether there was a message outside of chunks.
    is_loose: bool,
}

impl Walk {
    /// Takes the next record; false where it was the last of the messages.
    fn step<E>(
        &mut self,
        source: &mut Source,
        each: &mut impl FnMut(&Message<'_>) -> Result<(), E>,
    ) -> Result<bool, Stop<E>> {
        let head = source.head()?;
        self.check(&head)?;
        match head.opcode {
            op::DATA_END => {
                self.end(source, &head)?;
                return Ok(false);
            }
            op::SCHEMA | op::CHANNEL | op::MESSAGE | op::CHUNK => {
                let bytes = source.body(&head)?;
                self.known.take(&bytes, head.offset, each)?;
            }
            op::MESSAGE_INDEX => check_entries(&source.body(&head)?[HEAD..])?,
            _ => source.skip(&head)?,
        }
        self.is_loose |= head.opcode == op::MESSAGE;
        self.last = head.opcode;
        Ok(true)
    }

    /// Whether a record has its place in front of the end of the messages. A byte makes a chunk any other kind; what is left
    /// out is therefore only what is known to be no chunk.
    fn check(&self, head: &Head) -> Result<(), Wrong> {
        if let Some(ending) = &self.ending {
            ending.check(head)?;
        }
        let is_expected = match head.opcode {
            op::HEADER => head.offset == MAGIC.len() as u64,
            op::SCHEMA | op::CHANNEL | op::MESSAGE | op::CHUNK | op::ATTACHMENT | op::METADATA | op::DATA_END => true,
            op::MESSAGE_INDEX => matches!(self.last, op::CHUNK | op::MESSAGE_INDEX),
            // These belong behind the messages.
            op::FOOTER
            | op::CHUNK_INDEX
            | op::ATTACHMENT_INDEX
            | op::STATISTICS
            | op::METADATA_INDEX
            | op::SUMMARY_OFFSET => false,
            // Writers may have kinds of their own.
            _ => self.ending.as_ref().is_some_and(Ending::lists_chunks) && !self.is_loose,
        };
        if is_expected { Ok(()) } else { Err(Wrong::Kind(head.opcode)) }
    }

    /// The record that ends the messages: whether the file ends behind it, and what was read is what was written.
    fn end(&self, source: &mut Source, head: &Head) -> Result<(), Wrong> {
        let ending = self.ending.as_ref().filter(|ending| ending.is_data_end(head)).ok_or(Wrong::End)?;
        let calculated = source.sum().finalize();
        let record = source.body(head)?;
        let Record::DataEnd(end) = parse_record(head.opcode, &record[HEAD..])? else { return Err(Wrong::End) };
        let saved = end.data_section_crc;
        // Where messages are missing, that says more.
        if saved != 0 && saved != calculated && ending.messages.is_none_or(|messages| messages <= self.known.messages) {
            return Err(Wrong::Sum { saved, calculated });
        }
        Ok(())
    }

    /// What the file says of itself, once all is read, held against that.
    fn missing(self, path: &Path) -> Option<Damage> {
        let (path, ending, got) = (path.to_owned(), self.ending?, self.known.messages);
        if let Some((offset, error)) = ending.damage {
            return Some(Damage::Broken { path, offset, reason: reason(&error) });
        }
        let expected = ending.messages.filter(|expected| *expected > got)?;
        Some(Damage::Missing { path, topic: None, expected, got })
    }
}

/// Whether a record is an index of messages: its entries fill it.
fn check_entries(data: &[u8]) -> Result<(), Wrong> {
    let Some((expected, entries)) = data.get(2..).and_then(|data| data.split_first_chunk::<4>()) else {
        return Err(McapError::UnexpectedEof.into());
    };
    let (expected, got) = (u32::from_le_bytes(*expected), entries.len() as u64);
    if u64::from(expected) == got { Ok(()) } else { Err(Wrong::Entries { expected, got }) }
}

/// What the records before said.
#[derive(Default)]
struct Known {
    /// Names by id.
    schemas: BTreeMap<u16, String>,
    /// By id.
    channels: BTreeMap<u16, Channel>,
    /// How many there were.
    messages: u64,
}

impl Known {
    /// Takes the record, or the records of the chunk, that begin at `offset`.
    fn take<E>(
        &mut self,
        bytes: &[u8],
        offset: u64,
        each: &mut impl FnMut(&Message<'_>) -> Result<(), E>,
    ) -> Result<(), Stop<E>> {
        // In a chunk that its checksum proves, a kind of which nothing is known is the writer's own.
        let is_proven = bytes[0] == op::CHUNK && bytes.get(CHUNK_SUM..CHUNK_SUM + 4).is_some_and(|sum| sum != [0; 4]);
        let (mut number, most) = (0, most_unpacked(bytes.len() as u64));
        unpack(bytes, |opcode, data| {
            if !matches!(opcode, op::SCHEMA | op::CHANNEL | op::MESSAGE) {
                return if is_proven { Ok(()) } else { Err(Wrong::Kind(opcode).into()) };
            }
            check_texts(opcode, data)?;
            match parse_record(opcode, data)? {
                Record::Schema { header, .. } => self.schema(header.id, header.name)?,
                Record::Channel(channel) => self.channel(channel)?,
                Record::Message { header, data } => {
                    let unknown = McapError::UnknownChannel(header.sequence, header.channel_id);
                    let channel = self.channels.get(&header.channel_id).ok_or(unknown)?;
                    let log_time = Stamp::from_nanos(i64::try_from(header.log_time).unwrap_or(i64::MAX));
                    let place = Place { offset, number };
                    let data = plain_message(&data, most);
                    each(&Message { channel, log_time, place, data: &data }).map_err(Stop::Asked)?;
                    number += 1;
                    self.messages += 1;
                }
                _ => {}
            }
            Ok(())
        })
    }

    /// A file says the same each time that it says it; what differs is another record whose kind was changed.
    fn schema(&mut self, id: u16, name: String) -> Result<(), Wrong> {
        check_name(&name)?;
        let known = self.schemas.entry(id).or_insert_with(|| name.clone());
        if *known == name { Ok(()) } else { Err(McapError::ConflictingSchemas(name).into()) }
    }

    fn channel(&mut self, said: mcap::records::Channel) -> Result<(), Wrong> {
        let schema = match said.schema_id {
            0 => String::new(),
            id => {
                let unknown = || McapError::UnknownSchema(said.topic.clone(), id);
                self.schemas.get(&id).cloned().ok_or_else(unknown)?
            }
        };
        check_name(&said.topic)?;
        check_name(&said.message_encoding)?;
        let marked = said.metadata.contains_key(OWN_MARK);
        let channel = Channel { topic: said.topic, schema, encoding: said.message_encoding, marked };
        let known = self.channels.entry(said.id).or_insert_with(|| channel.clone());
        if *known == channel { Ok(()) } else { Err(McapError::ConflictingChannels(channel.topic).into()) }
    }
}

fn check_name(name: &str) -> Result<(), Wrong> {
    if name.len() <= MAX_NAME { Ok(()) } else { Err(Wrong::Name { most: MAX_NAME, got: name.len() }) }
}

/// Whether the texts in a record are within it: the library makes room for what they say of their length, up to four
/// gigabytes, before it looks whether they are there.
fn check_texts(opcode: u8, data: &[u8]) -> Result<(), Wrong> {
    // Bytes in front of the texts, how many there are, and whether a map of texts follows.
    let (numbers, texts, has_map) = match opcode {
        op::SCHEMA => (2, 2, false),
        op::CHANNEL => (4, 2, true),
        op::CHUNK => (28, 1, false),
        _ => return Ok(()),
    };
    let map = (0..texts).try_fold(data.get(numbers..).unwrap_or_default(), |rest, _| behind_text(rest));
    let is_whole = map.is_some_and(|rest| !has_map || is_map(rest));
    if is_whole { Ok(()) } else { Err(Wrong::Text(data.len())) }
}

/// What is behind a text, whose length comes first.
fn behind_text(data: &[u8]) -> Option<&[u8]> {
    let (length, rest) = data.split_first_chunk::<4>()?;
    rest.get(u32::from_le_bytes(*length) as usize..)
}

/// Whether there are as many bytes of pairs of texts as are said first.
fn is_map(data: &[u8]) -> bool {
    let pairs =
        data.split_first_chunk::<4>().and_then(|(length, rest)| rest.get(..u32::from_le_bytes(*length) as usize));
    let Some(mut pairs) = pairs else { return false };
    while !pairs.is_empty() {
        match behind_text(pairs).and_then(behind_text) {
            Some(rest) => pairs = rest,
            None => return false,
        }
    }
    true
}

/// Goes through the records in a chunk, or the one that is no chunk; `bytes` begin with its head.
fn unpack<E: From<McapError> + From<Wrong>>(
    mut bytes: &[u8],
    mut each: impl FnMut(u8, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let options = LinearReaderOptions::default()
        .with_skip_start_magic(true)
        .with_skip_end_magic(true)
        .with_prevalidate_chunk_crcs(true)
        .with_record_length_limit(size_unpacked(bytes)?);
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

/// The bytes that a record takes, unpacked. What a chunk says of that is judged before anything is unpacked: the library makes
/// room for all of it at once. It also counts on a chunk's records being all that it holds.
fn size_unpacked(bytes: &[u8]) -> Result<usize, Wrong> {
    let data = &bytes[HEAD..];
    if bytes[0] != op::CHUNK {
        return Ok(data.len());
    }
    check_texts(op::CHUNK, data)?;
    let Record::Chunk { header, .. } = parse_record(op::CHUNK, data)? else { return Ok(data.len()) };
    let packed = (data.len() as u64).saturating_sub(CHUNK_HEAD + header.compression.len() as u64);
    if header.compressed_size != packed {
        return Err(McapError::BadChunkLength { header: header.compressed_size, available: packed }.into());
    }
    let most = if header.compression.is_empty() { packed } else { most_unpacked(packed) };
    let got = header.uncompressed_size;
    if got > most {
        return Err(Wrong::Unpacked { most, packed, got });
    }
    Ok(usize::try_from(got).unwrap_or(usize::MAX).max(data.len()))
}

/// What so many packed bytes may unpack to: those of a record of the file, also where what is in it is packed once more.
fn most_unpacked(packed: u64) -> u64 {
    packed.saturating_mul(RATIO).saturating_add(FREE_BYTES).min(MAX_BYTES as u64)
}

/// A message as it was before rosbag2 packed it (`--compression-mode message`). One that cannot be unpacked, or unpacks to more
/// than `most` bytes, stays as it is, and so is not what its type says.
fn plain_message(data: &[u8], most: u64) -> Cow<'_, [u8]> {
    if !data.starts_with(&ZSTD) {
        return Cow::Borrowed(data);
    }
    let mut plain = Vec::new();
    // What a frame says of its own size is not believed.
    let unpacked = zstd::Decoder::with_buffer(data).and_then(|decoder| decoder.take(most + 1).read_to_end(&mut plain));
    if unpacked.is_ok_and(|size| size as u64 <= most) { Cow::Owned(plain) } else { Cow::Borrowed(data) }
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
