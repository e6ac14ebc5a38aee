//! The container (<https://mcap.dev/spec>): records one after the other, some of them in chunks. What messages say is
//! for [`super::message`].

use ::mcap::read::parse_record;
use ::mcap::records::{Record, op};
use ::mcap::sans_io::{LinearReadEvent, LinearReader, LinearReaderOptions};
use ::mcap::{MAGIC, McapError, McapResult};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Largest record or chunk, unpacked: a broken length must not take all memory.
const MAX_BYTES: usize = 1 << 30;
/// Bytes in front of a record: what it is and its length.
const HEAD: u64 = 9;
/// Bytes in a chunk around its records and the name of its compression.
const CHUNK_HEAD: u64 = 40;

/// A message in CDR, and where it is.
pub(super) struct Message<'a> {
    /// The name of its type, such as `sensor_msgs/msg/Image`.
    pub schema: &'a str,
    pub topic: &'a str,
    /// The byte at which its record begins, or the chunk around it.
    pub offset: u64,
    /// How many messages there are before it in the chunk.
    pub number: usize,
    pub data: &'a [u8],
}

pub(super) fn is_mcap(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "mcap")
}

/// Goes through the messages in CDR of a file, in its order.
pub(super) fn scan(path: &Path, mut each: impl FnMut(&Message<'_>)) -> McapResult<()> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    check_magic(&mut file, size)?;
    let mut schemas: BTreeMap<u16, String> = BTreeMap::new();
    // By id: the schema's name, and the topic.
    let mut channels: BTreeMap<u16, (String, String)> = BTreeMap::new();
    let mut offset = MAGIC.len() as u64;
    loop {
        let (opcode, length) = head(&mut file, offset, size)?;
        if matches!(opcode, op::DATA_END | op::FOOTER) {
            return Ok(());
        }
        if matches!(opcode, op::SCHEMA | op::CHANNEL | op::MESSAGE | op::CHUNK) {
            let bytes = record(&mut file, offset, size)?;
            let mut number = 0;
            unpack(&bytes, |opcode, data| {
                if !matches!(opcode, op::SCHEMA | op::CHANNEL | op::MESSAGE) {
                    return Ok(());
                }
                match parse_record(opcode, data)? {
                    Record::Schema { header, .. } => drop(schemas.insert(header.id, header.name)),
                    Record::Channel(channel) if channel.message_encoding == "cdr" => {
                        if let Some(schema) = schemas.get(&channel.schema_id) {
                            channels.insert(channel.id, (schema.clone(), channel.topic));
                        }
                    }
                    Record::Message { header, data } => {
                        if let Some((schema, topic)) = channels.get(&header.channel_id) {
                            each(&Message { schema, topic, offset, number, data: &data });
                        }
                        number += 1;
                    }
                    _ => {}
                }
                Ok(())
            })?;
        }
        offset += HEAD + length;
    }
}

/// Reads one message again, by its [`Message::offset`] and [`Message::number`].
pub(in crate::data) fn read_message(path: &Path, offset: u64, number: usize) -> McapResult<Vec<u8>> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    let bytes = record(&mut file, offset, size)?;
    let (mut at, mut found) = (0, None);
    unpack(&bytes, |opcode, data| {
        if opcode == op::MESSAGE {
            if at == number
                && let Record::Message { data, .. } = parse_record(opcode, data)?
            {
                found = Some(data.into_owned());
            }
            at += 1;
        }
        Ok(())
    })?;
    found.ok_or(McapError::BadIndex)
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
