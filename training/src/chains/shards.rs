//! Shards in the WebDataset layout: a tar file in which the files of a sample lie next to one another and share the
//! name up to the first dot. Any loader that knows WebDataset reads them, and so does [`read`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read as _, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

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
pub fn read(path: &Path, mut each: impl FnMut(Sample) -> Result<()>) -> Result<()> {
    let place = || path.display().to_string();
    let mut archive = tar::Archive::new(BufReader::new(File::open(path).with_context(place)?));
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
