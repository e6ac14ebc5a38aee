//! How a file ends: where its messages do, and what it says of them behind that. Writers end a file so and not otherwise, so
//! what they say there is held against what is found: a byte that makes a chunk something else would hide it in silence.

use std::collections::BTreeMap;

use mcap::records::op;
use mcap::{MAGIC, McapError};

use super::reason;
use super::source::{HEAD, Head, Source};

/// Bytes of the record that ends the messages, without its head: their checksum.
const DATA_END: u64 = 4;
/// Of the last record, without its head: where the summary begins, where its parts are listed, its checksum.
const FOOTER: u64 = 8 + 8 + 4;

/// What is wrong with a record.
#[derive(Debug, thiserror::Error)]
pub(super) enum Wrong {
    /// It cannot be read.
    #[error("{}", reason(_0))]
    Record(#[from] McapError),
    /// It is none that has a place there.
    #[error("expected a record of messages, got one of kind {0:#04x}")]
    Kind(u8),
    /// The file's index says otherwise.
    #[error(
        "expected a chunk of {length} bytes from byte {start} on, as the file's own index says, got a record of kind \
         {kind:#04x} with {got} bytes"
    )]
    Chunk { start: u64, length: u64, kind: u8, got: u64 },
    /// The messages end, and the file does not.
    #[error(
        "the messages end there, but what follows is not the file's own end: expected a summary, a footer and MCAP's last \
         bytes"
    )]
    End,
    /// The file is another than was written, where no other checksum covers it.
    #[error("expected the checksum {saved:#010x} of all that is in front of it, got {calculated:#010x}")]
    Sum { saved: u32, calculated: u32 },
    /// The index of a chunk is something else.
    #[error("expected an index of messages with {expected} bytes of entries, got {got}")]
    Entries { expected: u32, got: u64 },
    /// A text that is longer than what it is in.
    #[error("a text in it is longer than the record of {0} bytes")]
    Text(usize),
    /// A name that is none.
    #[error("expected names of at most {most} bytes, got {got}")]
    Name { most: usize, got: usize },
    /// A chunk that says to be larger than it can be believed to be.
    #[error("expected a chunk that unpacks to at most {most} bytes from {packed}, got one that says {got}")]
    Unpacked { most: u64, packed: u64, got: u64 },
}

/// The end of a file that is whole there.
pub(super) struct Ending {
    /// Where the record begins that ends the messages.
    data_end: u64,
    /// The bytes of each chunk by where it begins, and of the indexes of messages behind it.
    chunks: BTreeMap<u64, (u64, u64)>,
    /// How many messages there are.
    pub messages: Option<u64>,
    /// Where the summary cannot be read, and why: nothing of it is believed then.
    pub damage: Option<(u64, McapError)>,
}

impl Ending {
    /// Looks for it; the source is anywhere after that.
    pub fn find(source: &mut Source) -> Option<Self> {
        let footer = source.size.checked_sub(HEAD as u64 + FOOTER + MAGIC.len() as u64)?;
        let record = expect(source, footer, op::FOOTER, FOOTER)?;
        if source.magic().ok()? != MAGIC {
            return None;
        }
        let summary = match number(&record[HEAD..], 0)? {
            0 => footer,
            start => start,
        };
        let data_end = summary.checked_sub(HEAD as u64 + DATA_END).filter(|_| summary <= footer)?;
        expect(source, data_end, op::DATA_END, DATA_END)?;
        let mut ending = Self { data_end, chunks: BTreeMap::new(), messages: None, damage: None };
        if let Err(error) = ending.read(source, footer, &record) {
            let at = source.offset;
            ending = Self { data_end, chunks: BTreeMap::new(), messages: None, damage: Some((at, error)) };
        }
        Some(ending)
    }

    /// The records between the end of the messages and the footer.
    fn read(&mut self, source: &mut Source, footer: u64, record: &[u8]) -> Result<(), McapError> {
        source.seek(source.offset)?;
        while source.offset < footer {
            let head = source.head()?;
            if head.end() > footer {
                return Err(McapError::UnexpectedEof);
            }
            match head.opcode {
                op::CHUNK_INDEX => {
                    let bytes = source.body(&head)?;
                    let place = (number(&bytes[HEAD..], 16), number(&bytes[HEAD..], 24));
                    let (Some(start), Some(length)) = place else { return Err(McapError::BadIndex) };
                    // Behind a list of so many bytes.
                    let listed =
                        bytes.get(HEAD + 32..HEAD + 36).and_then(|list| list.try_into().ok()).map(u32::from_le_bytes);
                    let indexes = listed
                        .and_then(|listed| number(&bytes[HEAD..], 36 + listed as usize))
                        .ok_or(McapError::BadIndex)?;
                    if start.checked_add(length).is_none_or(|end| end > self.data_end) {
                        return Err(McapError::BadIndex);
                    }
                    self.chunks.insert(start, (length, indexes));
                }
                op::STATISTICS => self.messages = number(&source.body(&head)?[HEAD..], 0),
                _ => source.skip(&head)?,
            }
        }
        // Its checksum is of the footer too, up to itself.
        let (summed, saved) = record.split_at(record.len() - 4);
        let saved = u32::from_le_bytes(saved.try_into().map_err(|_| McapError::BadFooter)?);
        let mut sum = source.sum();
        sum.update(summed);
        let calculated = sum.finalize();
        if saved != 0 && saved != calculated {
            return Err(McapError::BadSummaryCrc { saved, calculated });
        }
        Ok(())
    }

    /// Whether a record is where the index has nothing else.
    pub fn check(&self, head: &Head) -> Result<(), Wrong> {
        if let Some((&start, &(length, indexes))) = self.chunks.range(..head.offset).next_back()
            && (start + length..(start + length).saturating_add(indexes)).contains(&head.offset)
            && head.opcode != op::MESSAGE_INDEX
        {
            return Err(Wrong::Kind(head.opcode));
        }
        let Some((&start, &(length, _))) = self.chunks.range(head.offset..head.end()).next() else { return Ok(()) };
        let got = head.end() - head.offset;
        if head.opcode == op::CHUNK && (start, length) == (head.offset, got) {
            return Ok(());
        }
        Err(Wrong::Chunk { start, length, kind: head.opcode, got })
    }

    /// Whether this is the record that ends the messages.
    pub fn is_data_end(&self, head: &Head) -> bool {
        head.offset == self.data_end
    }

    /// Whether it lists the chunks, so that a record of another kind is known to be none.
    pub fn lists_chunks(&self) -> bool {
        !self.chunks.is_empty()
    }
}

/// The record at a byte, where it is of this kind and length.
fn expect(source: &mut Source, offset: u64, opcode: u8, length: u64) -> Option<Vec<u8>> {
    source.seek(offset).ok()?;
    let head = source.head().ok().filter(|head| head.opcode == opcode && head.length == length)?;
    source.body(&head).ok()
}

/// A number of eight bytes.
fn number(data: &[u8], at: usize) -> Option<u64> {
    data.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}
