//! Shards in the WebDataset layout: a tar file in which the files of a sample lie next to one another and share the
//! name up to the first dot. Any loader that knows WebDataset reads them, and so does [`read`], also where they were packed
//! again: names may begin with `./`, folders stand between the files, and the files of a sample need not be neighbours.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write};
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

/// Hands every sample of a shard to `each`, in the order of their first files.
///
/// # Errors
/// A file that can't be read or is no tar, a member that is no part of a sample, and the first error of `each`.
pub fn read(path: &Path, mut each: impl FnMut(Sample) -> Result<()>) -> Result<()> {
    let places = scan(path, 0)?;
    let mut file = File::open(path).with_context(|| path.display().to_string())?;
    for place in &places {
        each(load(&mut file, place).with_context(|| path.display().to_string())?)?;
    }
    Ok(())
}

/// Where the files of a sample lie.
struct Place {
    shard: u32,
    key: String,
    files: Vec<Member>,
}

/// Where one lies.
struct Member {
    extension: String,
    start: u64,
    bytes: u64,
}

/// How a file begins that gzip has compressed.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Finds the samples of a shard by the names of its members.
fn scan(path: &Path, shard: u32) -> Result<Vec<Place>> {
    let place = || path.display().to_string();
    let file = File::open(path).with_context(place)?;
    let length = file.metadata().with_context(place)?.len();
    let mut file = BufReader::new(file);
    let is_compressed = file.fill_buf().with_context(place)?.starts_with(&GZIP);
    ensure!(!is_compressed, "{}: expected a tar as it is, got one that gzip has compressed: gunzip it", place());
    let mut archive = tar::Archive::new(file);
    let (mut samples, mut numbers) = (Vec::<Place>::new(), HashMap::<String, usize>::new());
    for entry in archive.entries_with_seek().with_context(place)? {
        let entry = entry.with_context(place)?;
        let name = entry.path().with_context(place)?.to_string_lossy().into_owned();
        let kind = entry.header().entry_type();
        if kind.is_dir() || kind.is_pax_global_extensions() || is_aside(&name) {
            continue;
        }
        let is_plain = kind.is_file() || kind.is_contiguous();
        ensure!(is_plain, "{}: {name}: expected a file, got a link or another kind of member", place());
        let (key, extension) =
            split(&name).with_context(|| format!("{}: expected KEY.EXTENSION, got {name}", place()))?;
        let extension = extension.to_ascii_lowercase();
        let (start, bytes) = (entry.raw_file_position(), entry.size());
        ensure!(start.saturating_add(bytes) <= length, "{}: {name}: the file ends within it", place());
        let number = *numbers.entry(key.to_owned()).or_insert(samples.len());
        if number == samples.len() {
            samples.push(Place { shard, key: key.to_owned(), files: Vec::new() });
        }
        let files = &mut samples[number].files;
        let is_new = files.iter().all(|file| file.extension != extension);
        ensure!(is_new, "{}: {name}: expected one {extension} of the sample, got two", place());
        files.push(Member { extension, start, bytes });
    }
    Ok(samples)
}

/// Key and extension of a member's name, as WebDataset has them: up to the first dot behind the last slash.
fn split(name: &str) -> Option<(&str, &str)> {
    let name = name.trim_start_matches("./");
    let base = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = base + name[base..].find('.')?;
    Some((&name[..dot], &name[dot + 1..]))
}

/// Whether a member is none of a sample's: WebDataset leaves out hidden files, such as macOS packs beside others, and
/// `__names__`.
fn is_aside(name: &str) -> bool {
    let base = name.rsplit('/').next().unwrap_or(name);
    base.starts_with('.') || (name.starts_with("__") && name.ends_with("__"))
}

fn load(file: &mut File, place: &Place) -> std::io::Result<Sample> {
    let mut files = BTreeMap::new();
    for member in &place.files {
        let mut content = vec![0; member.bytes as usize];
        file.seek(SeekFrom::Start(member.start))?;
        file.read_exact(&mut content)?;
        files.insert(member.extension.clone(), content);
    }
    Ok(Sample { key: place.key.clone(), files })
}

/// Where every sample of a folder of shards lies, so that they can be read in any order.
pub struct Index {
    shards: Vec<PathBuf>,
    samples: Vec<Place>,
    sha256: String,
    sources: Vec<String>,
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
            let samples = scan(&file, u32::try_from(index.shards.len()).context("too many shards")?)?;
            let (got, expected) = (samples.len() as u64, shard.samples);
            let first = samples.first().map_or_else(String::new, |first| format!(", the first of them {}", first.key));
            let place = file.display();
            ensure!(expected == got, "{place}: expected {expected} samples, as manifest.json says, got {got}{first}");
            index.samples.extend(samples);
            index.shards.push(file);
        }
        ensure!(!index.samples.is_empty(), "{}: no sample", dir.display());
        index.sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(index)
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
        files.iter().find(|file| file.extension == extension).map_or(0, |file| file.bytes as usize)
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
        load(&mut file, place).with_context(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chains::manifest::{Counts, Shard};
    use tar::EntryType;

    /// A tar of these members as they are named; a name before a `|` is a PAX header's.
    fn packed(members: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        let mut add = |name: &str, kind: EntryType, content: &str| {
            let mut header = tar::Header::new_ustar();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(kind);
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_mtime(0);
            header.set_cksum();
            archive.append(&header, content.as_bytes()).unwrap();
        };
        for &(name, kind, content) in members {
            let (long, short) = name.split_once('|').unwrap_or(("", name));
            if !long.is_empty() {
                // Length, which counts itself, and the key.
                let length = "00 path=\n".len() + long.len();
                add("x", EntryType::XHeader, &format!("{length} path={long}\n"));
            }
            add(short, kind, content);
        }
        archive.into_inner().unwrap()
    }

    /// A folder of one shard, whose manifest speaks of so many samples.
    fn folder(bytes: &[u8], samples: u64) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("chains-000000.tar"), bytes).unwrap();
        let shard = Shard { file: "chains-000000.tar".to_owned(), samples, bytes: 0, sha256: String::new() };
        let manifest = Manifest {
            stage: "chains".to_owned(),
            settings: serde_json::Value::Null,
            sources: Vec::new(),
            counts: Counts::default(),
            shards: vec![shard],
        };
        crate::json::write(&dir.path().join("manifest.json"), &manifest).unwrap();
        dir
    }

    const FILE: EntryType = EntryType::Regular;

    #[test]
    fn shards_that_were_packed_again_are_read_as_webdataset_reads_them() {
        let bytes = packed(&[
            ("./", EntryType::Directory, ""),
            ("pax", EntryType::XGlobalHeader, "18 comment=packed\n"),
            ("./b.json", FILE, "b"),
            ("./a.0.png", FILE, "a0"),
            ("./._a.0.png", FILE, "of macOS"),
            ("__index__", FILE, "aside"),
            ("./b.0.PNG", FILE, "b0"),
            ("./a.json|cut.js", FILE, "a"),
            ("./part.1/", EntryType::Directory, ""),
            ("./part.1/a.json", FILE, "another a"),
        ]);
        let dir = folder(&bytes, 3);
        let index = Index::open(dir.path()).unwrap();
        let sample = |key: &str, files: &[(&str, &str)]| Sample {
            key: key.to_owned(),
            files: files.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect(),
        };
        let expected = [
            sample("b", &[("json", "b"), ("0.png", "b0")]),
            sample("a", &[("0.png", "a0"), ("json", "a")]),
            sample("part.1/a", &[("json", "another a")]),
        ];
        let got: Vec<Sample> = (0..index.len()).map(|number| index.read(number).unwrap()).collect();
        assert_eq!(got, expected);
        assert_eq!((index.size(1, "0.png"), index.size(1, "txt")), (2, 0));
        let mut streamed = Vec::new();
        read(&dir.path().join("chains-000000.tar"), |sample| {
            streamed.push(sample);
            Ok(())
        })
        .unwrap();
        assert_eq!(streamed, expected);
    }

    #[test]
    fn a_member_that_is_no_part_of_a_sample_is_named() {
        let whole = packed(&[("a.json", FILE, "a"), ("b.json", FILE, "b")]);
        for (bytes, says) in [
            (packed(&[("./README", FILE, "")]), "expected KEY.EXTENSION, got ./README"),
            (packed(&[("./a.json", EntryType::Symlink, "")]), "./a.json: expected a file, got a link"),
            (packed(&[("a.json", FILE, "a"), ("./a.JSON", FILE, "a")]), "./a.JSON: expected one json of the sample"),
            (whole[..1024 + 512].to_vec(), "b.json: the file ends within it"),
            (whole, "expected 1 samples, as manifest.json says, got 2, the first of them a"),
            ([&GZIP[..], &[8, 0, 0, 0]].concat(), "gunzip it"),
        ] {
            let dir = folder(&bytes, 1);
            let error = format!("{:#}", Index::open(dir.path()).err().unwrap());
            assert!(error.contains("chains-000000.tar: ") && error.contains(says), "{error}: lacks {says}");
        }
    }
}
