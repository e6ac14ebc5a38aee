//! Messages into an MCAP file, chunk by chunk.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use geometry::Stamp;
use mcap::records::MessageHeader;
use mcap::write::NoSeek;
use mcap::{Compression, McapError, McapResult, WriteOptions};

use super::{Entry, Error, OWN_MARK, reason, schema};

/// Bytes of messages after which a chunk is closed: what a kill loses at most, and what waits in memory for it.
const CHUNK_BYTES: usize = 4 << 20;
/// The fastest one of zstd: a camera's pixels still shrink, and JPEGs pass through.
const LEVEL: u32 = 1;

/// Writes a recording. The same entries make the same bytes.
pub struct Writer<W: Write> {
    // Chunks are made in memory and written at once: nothing that is in the file is ever changed.
    mcap: mcap::Writer<NoSeek<W>>,
    /// Id of each topic's channel, and the number of its last message.
    channels: BTreeMap<String, (u16, u32)>,
    /// Topics that are marked as the node's own.
    own: Vec<String>,
    open: Open,
    written: u64,
}

/// What is in the chunk that is not closed yet.
#[derive(Default)]
struct Open {
    bytes: usize,
    messages: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a file.
    ///
    /// # Errors
    ///
    /// Those of `sink`.
    pub fn new(sink: W) -> McapResult<Self> {
        let options = WriteOptions::new()
            .profile("ros2")
            .library(concat!("egoreasoner ", env!("CARGO_PKG_VERSION")))
            .compression(Some(Compression::Zstd))
            .compression_level(LEVEL)
            // In the calling thread: no other is started, and bytes do not depend on how many cores there are.
            .compression_threads(0)
            .chunk_size(None)
            .disable_seeking(true);
        let mut mcap = options.create(NoSeek::new(sink))?;
        mcap.flush()?;
        Ok(Self { mcap, channels: BTreeMap::new(), own: Vec::new(), open: Open::default(), written: 0 })
    }

    /// Marks topics as what our node says itself, whatever they are called: nobody takes them for the truth later
    /// ([`super::Channel::is_own`]). Before the first message.
    #[must_use]
    pub fn own(mut self, topics: impl IntoIterator<Item = String>) -> Self {
        self.own.extend(topics);
        self
    }

    /// Adds a message to the open chunk, and closes it where that is enough.
    ///
    /// # Errors
    ///
    /// Those of the sink, after which nothing more can be written: [`Writer::open_messages`] are lost.
    pub fn write(&mut self, entry: &Entry) -> McapResult<()> {
        self.open.messages += 1;
        let header = self.header(entry)?;
        self.mcap.write_to_known_channel(&header, &entry.data)?;
        self.open.bytes += entry.data.len();
        if self.open.bytes >= CHUNK_BYTES { self.flush() } else { Ok(()) }
    }

    /// Closes the open chunk, if there is one, and hands it to the system.
    ///
    /// # Errors
    ///
    /// As [`Writer::write`].
    pub fn flush(&mut self) -> McapResult<()> {
        if self.open.messages > 0 {
            self.mcap.flush()?;
            self.written += self.open.messages;
            self.open = Open::default();
        }
        Ok(())
    }

    /// Closes the open chunk, ends the file with its index, and returns the sink.
    ///
    /// # Errors
    ///
    /// As [`Writer::write`].
    pub fn finish(mut self) -> McapResult<W> {
        self.mcap.finish()?;
        Ok(self.mcap.into_inner().into_inner())
    }

    /// Messages in closed chunks.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Messages in the open chunk.
    pub fn open_messages(&self) -> u64 {
        self.open.messages
    }

    fn header(&mut self, entry: &Entry) -> McapResult<MessageHeader> {
        let (channel_id, sequence) = match self.channels.get_mut(&entry.topic) {
            Some((id, last)) => {
                *last = last.wrapping_add(1);
                (*id, *last)
            }
            None => (self.add_channel(entry)?, 0),
        };
        let (log_time, publish_time) = (nanos(entry.log_time), nanos(entry.publish_time));
        Ok(MessageHeader { channel_id, sequence, log_time, publish_time })
    }

    fn add_channel(&mut self, entry: &Entry) -> McapResult<u16> {
        let name = entry.message_type.name();
        let schema = self.mcap.add_schema(name, "ros2msg", schema::full_text(name).as_bytes())?;
        let is_own = self.own.contains(&entry.topic);
        let metadata: BTreeMap<String, String> =
            is_own.then(|| (OWN_MARK.to_owned(), "output".to_owned())).into_iter().collect();
        let id = self.mcap.add_channel(schema, &entry.topic, "cdr", &metadata)?;
        self.channels.insert(entry.topic.clone(), (id, 0));
        Ok(id)
    }
}

/// Times before the epoch are not in the format.
fn nanos(time: Stamp) -> u64 {
    u64::try_from(time.nanos).unwrap_or(0)
}

/// A recording on disk, written as fast as the disk takes it, under `PATH.part` until it is whole.
pub struct FileWriter {
    path: PathBuf,
    part: PathBuf,
    writer: Writer<BufWriter<File>>,
}

impl FileWriter {
    /// Begins a file; it takes its place, and that of one that may be there, with [`FileWriter::finish`].
    ///
    /// # Errors
    ///
    /// [`Error::Io`] and [`Error::Write`].
    pub fn create(path: &Path) -> Result<Self, Error> {
        let (path, part) = (path.to_owned(), beside(path));
        let sink = match File::create(&part) {
            Ok(file) => BufWriter::new(file),
            Err(source) => return Err(Error::Io { path, source }),
        };
        match Writer::new(sink) {
            Ok(writer) => Ok(Self { path, part, writer }),
            Err(error) => Err(failed(&path, &error, 0, 0)),
        }
    }

    /// As [`Writer::own`].
    #[must_use]
    pub fn own(self, topics: impl IntoIterator<Item = String>) -> Self {
        Self { writer: self.writer.own(topics), ..self }
    }

    /// Adds a message.
    ///
    /// # Errors
    ///
    /// [`Error::Write`], after which nothing more can be written.
    pub fn write(&mut self, entry: &Entry) -> Result<(), Error> {
        let result = self.writer.write(entry);
        result.map_err(|error| failed(&self.path, &error, self.writer.written(), self.writer.open_messages()))
    }

    /// Ends the file, gives it its name, and returns where it is.
    ///
    /// # Errors
    ///
    /// [`Error::Write`] and [`Error::Io`].
    pub fn finish(self) -> Result<PathBuf, Error> {
        let Self { path, part, writer } = self;
        let (written, open) = (writer.written(), writer.open_messages());
        match writer.finish() {
            Ok(_) => match std::fs::rename(part, &path) {
                Ok(()) => Ok(path),
                Err(source) => Err(Error::Io { path, source }),
            },
            Err(error) => Err(failed(&path, &error, written, open)),
        }
    }
}

/// Where a file is until it is whole; what is none, such as a pipe, is written where it is.
fn beside(path: &Path) -> PathBuf {
    if path.exists() && !path.is_file() {
        return path.to_owned();
    }
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    part.into()
}

fn failed(path: &Path, error: &McapError, written: u64, lost: u64) -> Error {
    Error::Write { path: path.to_owned(), reason: reason(error), written, lost }
}
