//! Shards in the WebDataset layout: a tar file in which the files of a sample lie next to one another and share the
//! name up to the first dot. Any loader that knows WebDataset reads them, and so does [`read`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use super::manifest::Manifest;
use crate::json::read as read_file;

/// A shard being written: nobody sees it under its name before it is whole and on the disk.
pub struct Writer {
    path: PathBuf,
    part: PathBuf,
    archive: tar::Builder<Hashed<BufWriter<File>>>,
    keys: usize,
}

/// What a shard holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Samples.
    pub samples: usize,
    /// Size of the file.
    pub bytes: u64,
    /// Of the file, hexadecimal.
    pub sha256: String,
}

impl Writer {
    /// Begins a shard, over whatever a killed process left.
    ///
    /// # Errors
    /// A file that can't be created.
    pub fn create(path: &Path) -> Result<Self> {
        let part = path.with_extension("tar.part");
        let file = File::create(&part).with_context(|| part.display().to_string())?;
        let hashed = Hashed { inner: BufWriter::new(file), hash: Sha256::new(), bytes: 0 };
        let archive = tar::Builder::new(hashed);
        Ok(Self { path: path.to_owned(), part, archive, keys: 0 })
    }

    /// Adds a sample: its key, and (extension, content) of its files. Dots of the key become underscores, since the
    /// first dot ends it.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn add(&mut self, key: &str, files: &[(&str, &[u8])]) -> Result<()> {
        let key = key.replace(['.', '/'], "_");
        for (extension, content) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            // No clock, no owner: the same samples make the same bytes.
            header.set_mtime(0);
            self.archive
                .append_data(&mut header, format!("{key}.{extension}"), *content)
                .with_context(|| self.part.display().to_string())?;
        }
        self.keys += 1;
        Ok(())
    }

    /// Ends the shard and gives it its name.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn finish(self) -> Result<Written> {
        let place = || self.part.display().to_string();
        let hashed = self.archive.into_inner().with_context(place)?;
        let Hashed { inner, hash, bytes } = hashed;
        let file = inner.into_inner().map_err(std::io::IntoInnerError::into_error).with_context(place)?;
        file.sync_all().with_context(place)?;
        std::fs::rename(&self.part, &self.path).with_context(|| self.path.display().to_string())?;
        let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Written { samples: self.keys, bytes, sha256 })
    }
}

/// Counts and hashes what goes through.
struct Hashed<W> {
    inner: W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(data)?;
        self.hash.update(&data[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// A sample as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Its key.
    pub key: String,
    /// Content by extension, such as `json` or `0.png`.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// Hands every sample of a shard to `each`, in the order of the file.
///
/// # Errors
/// A file that can't be read or is no tar, and the first error of `each`.
pub fn read(path: &Path, each: impl FnMut(Sample) -> Result<()>) -> Result<()> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    samples(BufReader::new(file), path, each)
}

fn samples(from: impl Read, path: &Path, mut each: impl FnMut(Sample) -> Result<()>) -> Result<()> {
    let place = || path.display().to_string();
    let mut archive = tar::Archive::new(from);
    let mut current: Option<Sample> = None;
    for entry in archive.entries().with_context(place)? {
        let mut entry = entry.with_context(place)?;
        let name = entry.path().with_context(place)?.to_string_lossy().into_owned();
        let split = name.split_once('.');
        ensure!(split.is_some(), "{}: expected KEY.EXTENSION, got {name}", place());
        let (key, extension) = split.unwrap_or_default();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).with_context(place)?;
        match &mut current {
            Some(sample) if sample.key == key => drop(sample.files.insert(extension.to_owned(), content)),
            _ => {
                let files = BTreeMap::from([(extension.to_owned(), content)]);
                if let Some(done) = current.replace(Sample { key: key.to_owned(), files }) {
                    each(done)?;
                }
            }
        }
    }
    current.map_or(Ok(()), each)
}

/// Where every sample of a folder of shards lies, so that they can be read in any order.
pub struct Index {
    shards: Vec<PathBuf>,
    samples: Vec<Place>,
    sha256: String,
    sources: Vec<String>,
}

struct Place {
    shard: u32,
    start: u64,
    bytes: u64,
    /// Extension and size of each file.
    files: Vec<(String, u64)>,
}

impl Index {
    /// Reads the headers of all shards that the folder's `manifest.json` names.
    ///
    /// # Errors
    /// A folder whose shards are not all made yet, a shard that is missing, cut short or no tar.
    pub fn open(dir: &Path) -> Result<Self> {
        let manifest: Manifest =
            read_file(&dir.join("manifest.json")).context("expected the folder of a finished `training chains`")?;
        let (shards, samples, sources) = (Vec::new(), Vec::new(), manifest.sources);
        let (mut index, mut hash) = (Self { shards, samples, sha256: String::new(), sources }, Sha256::new());
        for shard in manifest.shards {
            hash.update(&shard.sha256);
            let file = dir.join(&shard.file);
            let before = index.samples.len();
            index.scan(&file)?;
            let (got, expected) = ((index.samples.len() - before) as u64, shard.samples);
            ensure!(expected == got, "{}: expected {expected} samples, got {got}", file.display());
            index.shards.push(file);
        }
        ensure!(!index.samples.is_empty(), "{}: no sample", dir.display());
        index.sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(index)
    }

    fn scan(&mut self, path: &Path) -> Result<()> {
        let place = || path.display().to_string();
        let shard = u32::try_from(self.shards.len()).context("too many shards")?;
        let mut archive = tar::Archive::new(BufReader::new(File::open(path).with_context(place)?));
        let mut last = None;
        for entry in archive.entries_with_seek().with_context(place)? {
            let entry = entry.with_context(place)?;
            let name = entry.path().with_context(place)?.to_string_lossy().into_owned();
            let (key, extension) = name.split_once('.').with_context(|| format!("{}: {name}", place()))?;
            let (start, size) = (entry.raw_header_position(), entry.size());
            // Contents end at a multiple of 512 bytes.
            let end = entry.raw_file_position() + size.next_multiple_of(512);
            if last.as_deref() != Some(key) {
                self.samples.push(Place { shard, start, bytes: 0, files: Vec::new() });
                last = Some(key.to_owned());
            }
            if let Some(sample) = self.samples.last_mut() {
                sample.bytes = end - sample.start;
                sample.files.push((extension.to_owned(), size));
            }
        }
        Ok(())
    }

    /// Samples.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there are none; an index that could be opened has some.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// The videos or scenes of the windows, sorted.
    pub fn sources(&self) -> &[String] {
        &self.sources
    }

    /// Of the hashes of all shards.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Bytes of a sample's file; 0 where it has none of that name.
    pub fn size(&self, sample: usize, extension: &str) -> usize {
        let files = self.samples.get(sample).map(|s| s.files.as_slice()).unwrap_or_default();
        files.iter().find(|(name, _)| name == extension).map_or(0, |(_, size)| *size as usize)
    }

    /// A sample by its number.
    ///
    /// # Errors
    /// A number out of range, a shard that changed or can't be read.
    pub fn read(&self, sample: usize) -> Result<Sample> {
        let place = self.samples.get(sample).with_context(|| format!("sample {sample} of {}", self.len()))?;
        let path = &self.shards[place.shard as usize];
        let context = || path.display().to_string();
        let mut file = File::open(path).with_context(context)?;
        file.seek(SeekFrom::Start(place.start)).with_context(context)?;
        let mut bytes = vec![0; place.bytes as usize];
        file.read_exact(&mut bytes).with_context(context)?;
        let mut found = None;
        samples(bytes.as_slice(), path, |sample| {
            found = Some(sample);
            Ok(())
        })?;
        found.with_context(|| format!("{}: sample {sample}", path.display()))
    }
}
