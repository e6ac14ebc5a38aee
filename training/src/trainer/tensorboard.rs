//! Event files, as TensorBoard reads them: TFRecord framing around a few protobuf messages, written by hand, since the
//! crates that do it bring a protobuf compiler, old copies of `image`, or years without a release.
//!
//! Field numbers are those of `event.proto`, `summary.proto` and `tensor.proto` of TensorBoard. Leaves out histograms,
//! audio, graphs and reading.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use crc::{CRC_32_ISCSI, Crc};

/// What names of event files begin with; the second in which they were begun follows.
const PREFIX: &str = "events.out.tfevents.";
/// CRC-32C (Castagnoli).
static CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

// Fields of `Event`.
const FILE_VERSION: u32 = 3;
const SUMMARY: u32 = 5;
const SESSION_LOG: u32 = 7;

/// One event file of a run. What was written is in the file after [`EventWriter::flush`], or once this is dropped.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: BufWriter<File>,
}

impl EventWriter {
    /// Begins a run in `dir`, which is made if it is absent. What earlier runs have left there is no longer shown.
    ///
    /// # Errors
    /// A folder or file that can't be written.
    pub fn create(dir: &Path) -> Result<Self> {
        Self::append(dir, 0)
    }

    /// Goes on with a run whose next step is `first_step`: what earlier files hold of it and of later steps is hidden.
    ///
    /// # Errors
    /// A folder or file that can't be written.
    pub fn append(dir: &Path, first_step: u64) -> Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        // TensorBoard reads a folder's files in the order of their names: ours must come last.
        let begun = (now()? as u64).max(newest(dir)?.map_or(0, |newest| newest + 1));
        let path = dir.join(format!("{PREFIX}{begun:010}.egoreasoner"));
        let file = BufWriter::new(File::create_new(&path).with_context(|| path.display().to_string())?);
        let mut writer = Self { path, file };
        writer.event(first_step, FILE_VERSION, b"brain.Event:2")?;
        // SessionLog.status = START, which is 1.
        writer.event(first_step, SESSION_LOG, &Message::default().integer(1, 1).0)?;
        writer.flush()?;
        Ok(writer)
    }

    /// A point of the curve `tag`.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn scalar(&mut self, tag: &str, step: u64, value: f32) -> Result<()> {
        self.summary(step, &Message::default().string(1, tag).float(2, value))
    }

    /// A text; TensorBoard shows it as Markdown.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn text(&mut self, tag: &str, step: u64, text: &str) -> Result<()> {
        const STRING: u64 = 7; // DT_STRING
        const TENSOR: u64 = 2; // DATA_CLASS_TENSOR
        let plugin = Message::default().string(1, "text");
        let metadata = Message::default().message(1, &plugin).integer(4, TENSOR);
        let shape = Message::default().message(2, &Message::default().integer(1, 1)); // [1]
        let tensor = Message::default().integer(1, STRING).message(2, &shape).string(8, text);
        self.summary(step, &Message::default().string(1, tag).message(8, &tensor).message(9, &metadata))
    }

    /// A picture of `width` x `height` pixels: the bytes of a PNG file.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn image_png(&mut self, tag: &str, step: u64, width: u32, height: u32, png: &[u8]) -> Result<()> {
        const RGB: u64 = 3;
        let image = Message::default().integer(1, height.into()).integer(2, width.into()).integer(3, RGB).bytes(4, png);
        self.summary(step, &Message::default().string(1, tag).message(4, &image))
    }

    /// Hands everything over to the file.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn flush(&mut self) -> Result<()> {
        self.file.flush().with_context(|| self.path.display().to_string())
    }

    /// An event with a summary of one value.
    fn summary(&mut self, step: u64, value: &Message) -> Result<()> {
        self.event(step, SUMMARY, &Message::default().message(1, value).0)
    }

    fn event(&mut self, step: u64, field: u32, content: &[u8]) -> Result<()> {
        let record = record(&event(now()?, step, field, content));
        self.file.write_all(&record).with_context(|| self.path.display().to_string())
    }
}

/// Seconds since 1970.
fn now() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_secs_f64())
}

/// When the last event file of a folder was begun, by its name.
fn newest(dir: &Path) -> Result<Option<u64>> {
    let mut newest: Option<u64> = None;
    for entry in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let name = entry.with_context(|| dir.display().to_string())?.file_name();
        let seconds = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('.').next()?.parse().ok());
        newest = newest.max(seconds);
    }
    Ok(newest)
}

/// An `Event` of `wall_time` seconds since 1970, with one of its fields set.
fn event(wall_time: f64, step: u64, field: u32, content: &[u8]) -> Vec<u8> {
    Message::default().double(1, wall_time).integer(2, step).bytes(field, content).0
}

/// A TFRecord: length, its checksum, data, its checksum; all little-endian.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked_crc(&length), data, &masked_crc(data)].concat()
}

/// CRC-32C, rotated and shifted, so that data with checksums in them do not end up with one of zero.
fn masked_crc(data: &[u8]) -> [u8; 4] {
    CRC.checksum(data).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// A protobuf message under construction: each field is its number and wire type, then its value.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(mut self, mut value: u64) -> Self {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80); // the low seven bits, and that more follow
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    fn key(self, field: u32, wire_type: u32) -> Self {
        self.varint(((field << 3) | wire_type).into())
    }

    fn integer(self, field: u32, value: u64) -> Self {
        self.key(field, 0).varint(value)
    }

    fn double(self, field: u32, value: f64) -> Self {
        let mut message = self.key(field, 1);
        message.0.extend(value.to_le_bytes());
        message
    }

    fn float(self, field: u32, value: f32) -> Self {
        let mut message = self.key(field, 5);
        message.0.extend(value.to_le_bytes());
        message
    }

    fn bytes(self, field: u32, value: &[u8]) -> Self {
        let mut message = self.key(field, 2).varint(value.len() as u64);
        message.0.extend_from_slice(value);
        message
    }

    fn string(self, field: u32, value: &str) -> Self {
        self.bytes(field, value.as_bytes())
    }

    fn message(self, field: u32, value: &Self) -> Self {
        self.bytes(field, &value.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(CRC.checksum(b"123456789"), 0xe306_9283);
    }

    /// By this, and the event in it the same as TensorBoard 2.21's own `Event(...).SerializeToString()`:
    ///
    /// ```python
    /// def crc32c(data):
    ///     crc = 0xFFFFFFFF
    ///     for byte in data:
    ///         crc ^= byte
    ///         for _ in range(8):
    ///             crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    ///     return crc ^ 0xFFFFFFFF
    /// def masked(data):
    ///     crc = crc32c(data)
    ///     return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
    /// value = b"\x0a\x04loss" + b"\x15" + struct.pack("<f", 0.25)
    /// summary = bytes([0x0a, len(value)]) + value
    /// event = b"\x09" + struct.pack("<d", 1.5) + b"\x10\xac\x02" + bytes([0x2a, len(summary)]) + summary
    /// length = struct.pack("<Q", len(event))
    /// print((length + masked(length) + event + masked(event)).hex(" "))
    /// ```
    #[test]
    fn a_scalar_is_these_bytes() {
        let golden = "1b 00 00 00 00 00 00 00 1a 0d 9e 13 09 00 00 00 00 00 00 f8 3f 10 ac 02 2a 0d 0a 0b 0a 04 6c 6f \
                      73 73 15 00 00 80 3e 99 08 de ed";
        let value = Message::default().string(1, "loss").float(2, 0.25);
        let bytes = record(&event(1.5, 300, SUMMARY, &Message::default().message(1, &value).0));
        let hex: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex.join(" "), golden);
    }

    /// The data of each record, checksums and lengths checked.
    fn records(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let (length, rest) = bytes.split_at(8);
            let (check, rest) = rest.split_at(4);
            assert_eq!(check, masked_crc(length));
            let (data, rest) = rest.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
            let (check, rest) = rest.split_at(4);
            assert_eq!(check, masked_crc(data));
            all.push(data.to_vec());
            bytes = rest;
        }
        all
    }

    fn varint(bytes: &mut &[u8]) -> u64 {
        let end = bytes.iter().position(|b| b & 0x80 == 0).unwrap();
        let (own, rest) = bytes.split_at(end + 1);
        *bytes = rest;
        own.iter().rev().fold(0, |value, b| (value << 7) | u64::from(b & 0x7f))
    }

    /// What a message holds at a path of field numbers; integers as eight bytes.
    fn at(message: &[u8], path: &[u64]) -> Option<Vec<u8>> {
        let Some((field, inner)) = path.split_first() else { return Some(message.to_vec()) };
        let mut rest = message;
        while !rest.is_empty() {
            let key = varint(&mut rest);
            let value = match key & 7 {
                0 => varint(&mut rest).to_le_bytes().to_vec(),
                wire_type => {
                    let length = match wire_type {
                        1 => 8,
                        2 => varint(&mut rest) as usize,
                        5 => 4,
                        other => panic!("wire type {other}"),
                    };
                    let (own, after) = rest.split_at(length);
                    rest = after;
                    own.to_vec()
                }
            };
            if key >> 3 == *field {
                return at(&value, inner);
            }
        }
        None
    }

    fn files(dir: &Path) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        files
    }

    #[test]
    fn what_is_written_can_be_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let png = [0x89, b'P', b'N', b'G'].repeat(50);
        let mut writer = EventWriter::create(&dir.path().join("new/run")).unwrap();
        writer.scalar("loss/text", 1, 2.5).unwrap();
        writer.text("answer", 2, "*cam 1* 0.25 m").unwrap();
        writer.image_png("path", 3, 640, 480, &png).unwrap();
        writer.flush().unwrap();
        let bytes = std::fs::read(&files(&dir.path().join("new/run"))[0]).unwrap();
        let records = records(&bytes);
        let [version, start, scalar, text, image] = &records[..] else { panic!("five records") };

        assert_eq!(at(version, &[3]).unwrap(), b"brain.Event:2");
        assert_eq!(at(start, &[7, 1]).unwrap(), 1u64.to_le_bytes());
        assert_eq!(at(start, &[2]).unwrap(), 0u64.to_le_bytes());
        let wall_time = f64::from_le_bytes(at(scalar, &[1]).unwrap().try_into().unwrap());
        assert!(wall_time > 1.7e9, "{wall_time}");

        assert_eq!(at(scalar, &[2]).unwrap(), 1u64.to_le_bytes());
        assert_eq!(at(scalar, &[5, 1, 1]).unwrap(), b"loss/text");
        assert_eq!(at(scalar, &[5, 1, 2]).unwrap(), 2.5f32.to_le_bytes());

        assert_eq!(at(text, &[2]).unwrap(), 2u64.to_le_bytes());
        assert_eq!(at(text, &[5, 1, 1]).unwrap(), b"answer");
        assert_eq!(at(text, &[5, 1, 8, 1]).unwrap(), 7u64.to_le_bytes());
        assert_eq!(at(text, &[5, 1, 8, 2, 2, 1]).unwrap(), 1u64.to_le_bytes());
        assert_eq!(at(text, &[5, 1, 8, 8]).unwrap(), b"*cam 1* 0.25 m");
        assert_eq!(at(text, &[5, 1, 9, 1, 1]).unwrap(), b"text");

        assert_eq!(at(image, &[5, 1, 4, 1]).unwrap(), 480u64.to_le_bytes());
        assert_eq!(at(image, &[5, 1, 4, 2]).unwrap(), 640u64.to_le_bytes());
        assert_eq!(at(image, &[5, 1, 4, 4]).unwrap(), png);
    }

    #[test]
    fn a_resumed_run_is_a_later_file_that_hides_its_steps() {
        let dir = tempfile::tempdir().unwrap();
        // From a machine whose clock is ahead.
        let ahead = format!("{PREFIX}9000000000.elsewhere");
        std::fs::write(dir.path().join(&ahead), "").unwrap();
        std::fs::write(dir.path().join("manifest.json"), "{}").unwrap();
        for first_step in [40, 70] {
            EventWriter::append(dir.path(), first_step).unwrap();
        }
        let files = files(dir.path());
        let names: Vec<_> = files.iter().map(|p| p.file_name().unwrap().to_str().unwrap()).collect();
        let later = |seconds: u64| format!("{PREFIX}{seconds}.egoreasoner");
        assert_eq!(names, [ahead.as_str(), &later(9_000_000_001), &later(9_000_000_002), "manifest.json"]);
        for (file, first_step) in files[1..3].iter().zip([40u64, 70]) {
            let records = records(&std::fs::read(file).unwrap());
            assert_eq!(at(&records[1], &[7, 1]).unwrap(), 1u64.to_le_bytes());
            assert_eq!(at(&records[1], &[2]).unwrap(), first_step.to_le_bytes());
        }
    }
}
