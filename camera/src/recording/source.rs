//! A file as records, one after the other: what each is and how long, of which nothing is believed that the file's own size
//! refutes.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use crc32fast::Hasher;
use mcap::{MAGIC, McapError};

/// Largest record or chunk, unpacked: a forged length must not take all memory.
pub(super) const MAX_BYTES: usize = 256 << 20;
/// Bytes in front of a record: what it is and its length.
pub(super) const HEAD: usize = 9;

/// What stands in front of a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    /// The byte at which it begins.
    pub offset: u64,
    /// What the record is.
    pub opcode: u8,
    /// Bytes behind the head; they are in the file.
    pub length: u64,
}

impl Head {
    /// The first byte behind the record.
    pub fn end(&self) -> u64 {
        self.offset + HEAD as u64 + self.length
    }

    fn bytes(&self) -> [u8; HEAD] {
        let mut bytes = [self.opcode; HEAD];
        bytes[1..].copy_from_slice(&self.length.to_le_bytes());
        bytes
    }
}

/// A file that is being gone through.
pub(super) struct Source {
    file: BufReader<File>,
    /// Bytes of the file when it was opened.
    pub size: u64,
    /// Where the next record begins.
    pub offset: u64,
    /// Of what was read since the last [`Source::seek`].
    sum: Hasher,
}

impl Source {
    /// At the file's beginning.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { file: BufReader::new(file), size, offset: 0, sum: Hasher::new() })
    }

    /// Goes on at a byte.
    pub fn seek(&mut self, offset: u64) -> std::io::Result<()> {
        self.offset = self.file.seek(SeekFrom::Start(offset))?;
        self.sum = Hasher::new();
        Ok(())
    }

    /// The CRC-32 of what was read since the last [`Source::seek`], whole records.
    pub fn sum(&self) -> Hasher {
        self.sum.clone()
    }

    /// The bytes by which a file is known at both of its ends, or fewer where it has no more.
    pub fn magic(&mut self) -> std::io::Result<Vec<u8>> {
        let mut magic = Vec::with_capacity(MAGIC.len());
        self.file.by_ref().take(MAGIC.len() as u64).read_to_end(&mut magic)?;
        self.offset += magic.len() as u64;
        self.sum.update(&magic);
        Ok(magic)
    }

    /// What the next record is; [`Source::body`] or [`Source::skip`] comes next.
    pub fn head(&mut self) -> Result<Head, McapError> {
        let mut bytes = [0; HEAD];
        self.file.read_exact(&mut bytes).map_err(cut)?;
        let [opcode, length @ ..] = bytes;
        let head = Head { offset: self.offset, opcode, length: u64::from_le_bytes(length) };
        if head.length > self.size.saturating_sub(self.offset + HEAD as u64) {
            return Err(McapError::UnexpectedEof);
        }
        Ok(head)
    }

    /// The record with its head.
    pub fn body(&mut self, head: &Head) -> Result<Vec<u8>, McapError> {
        let size = usize::try_from(head.length).unwrap_or(usize::MAX);
        if size > MAX_BYTES {
            return Err(McapError::RecordTooLarge { opcode: head.opcode, len: head.length });
        }
        let mut bytes = Vec::with_capacity(HEAD + size);
        bytes.extend(head.bytes());
        bytes.resize(HEAD + size, 0);
        self.file.read_exact(&mut bytes[HEAD..]).map_err(cut)?;
        self.sum.update(&bytes);
        self.offset = head.end();
        Ok(bytes)
    }

    /// Leaves the record out, but for the checksum.
    pub fn skip(&mut self, head: &Head) -> Result<(), McapError> {
        self.sum.update(&head.bytes());
        let mut left = head.length;
        while left > 0 {
            let buffer = self.file.fill_buf().map_err(McapError::Io)?;
            if buffer.is_empty() {
                return Err(McapError::UnexpectedEof);
            }
            let taken = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.sum.update(&buffer[..taken]);
            self.file.consume(taken);
            left -= taken as u64;
        }
        self.offset = head.end();
        Ok(())
    }
}

/// A file that became shorter, or ends in the head of a record.
fn cut(error: std::io::Error) -> McapError {
    if error.kind() == std::io::ErrorKind::UnexpectedEof { McapError::UnexpectedEof } else { McapError::Io(error) }
}
