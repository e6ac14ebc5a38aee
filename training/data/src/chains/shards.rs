//! Shards in the WebDataset layout: a tar file in which the files of a sample lie next to one another and share the
//! name up to the first dot. Any loader that knows WebDataset reads them, and so does [`read`], also where they were packed
//! again: names may begin with `./`, folders stand between the files, and the files of a sample need not be neighbours.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use super::manifest::{Manifest, Shard};
use crate::digest::{hex, of_file};
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
        Ok(Written { samples: self.keys, bytes, sha256: hex(&hash.finalize()) })
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

/// Whether a shard is the one that a manifest lists: its samples, size and hash.
///
/// # Errors
/// Says what it is instead.
pub fn check(path: &Path, listed: &Shard) -> Result<()> {
    compared(path, 0, listed).map(drop)
}

/// The samples of a shard that is the one that a manifest lists, and its hash.
fn compared(path: &Path, number: u32, listed: &Shard) -> Result<(Vec<Place>, String)> {
    let samples = scan(path, number)?;
    let (got, expected) = (samples.len() as u64, listed.samples);
    let first = samples.first().map_or_else(String::new, |first| format!(", the first of them {}", first.key));
    let place = path.display();
    ensure!(expected == got, "{place}: expected {expected} samples, as manifest.json says, got {got}{first}");
    let Some(expected) = &listed.sha256 else {
        tracing::warn!("{place}: not compared with what was made, since manifest.json has no sha256 of it");
        return Ok((samples, of_file(path)?));
    };
    let (size, bytes) = (std::fs::metadata(path).with_context(|| place.to_string())?.len(), listed.bytes);
    ensure!(bytes == size, "{place}: expected {bytes} bytes, as manifest.json says, got {size}");
    let got = of_file(path)?;
    ensure!(*expected == got, "{place}: expected SHA-256 {expected}, as manifest.json says, got {got}");
    Ok((samples, got))
}

/// What tells that a file is no longer the one that was looked at: its number, size and time of change.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen([u64; 2], [i64; 2]);

impl Seen {
    fn of(file: &File) -> std::io::Result<Self> {
        let about = file.metadata()?;
        Ok(Self([about.ino(), about.len()], [about.mtime(), about.mtime_nsec()]))
    }
}

/// Where every sample of a folder of shards lies, so that they can be read in any order.
pub struct Index {
    shards: Vec<(PathBuf, Seen)>,
    samples: Vec<Place>,
    sha256: String,
    sources: Vec<String>,
}

impl Index {
    /// Reads all shards that the folder's `manifest.json` names, and compares them with it, once. An entry without
    /// `sha256` is of a shard that was packed again: a warning says that it was not compared.
    ///
    /// # Errors
    /// A folder whose shards are not all made yet, a shard that is missing, no tar, or another than was made.
    pub fn open(dir: &Path) -> Result<Self> {
        let manifest: Manifest =
            read_file(&dir.join("manifest.json")).context("expected the folder of a finished `training chains`")?;
        let (shards, samples, sources) = (Vec::new(), Vec::new(), manifest.sources);
        let (mut index, mut hash) = (Self { shards, samples, sha256: String::new(), sources }, Sha256::new());
        tracing::info!(folder = %dir.display(), shards = manifest.shards.len(), "comparing shards with their hashes");
        for shard in manifest.shards {
            let path = dir.join(&shard.file);
            // Before it is read: what changes it meanwhile shows at the next look.
            let seen = File::open(&path).and_then(|file| Seen::of(&file));
            let seen = seen.with_context(|| path.display().to_string())?;
            let number = u32::try_from(index.shards.len()).context("too many shards")?;
            let (samples, sha256) = compared(&path, number, &shard)?;
            hash.update(sha256);
            index.samples.extend(samples);
            index.shards.push((path, seen));
        }
        ensure!(!index.samples.is_empty(), "{}: no sample", dir.display());
        index.sha256 = hex(&hash.finalize());
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
    /// A number out of range, a shard that changed since it was opened or can't be read.
    pub fn read(&self, sample: usize) -> Result<Sample> {
        let place = self.samples.get(sample).with_context(|| format!("sample {sample} of {}", self.len()))?;
        let (path, seen) = &self.shards[place.shard as usize];
        let context = || path.display().to_string();
        let mut file = File::open(path).with_context(context)?;
        let loaded = load(&mut file, place);
        let is_same = Seen::of(&file).with_context(context)? == *seen;
        ensure!(is_same, "{}: the shard has changed since the run opened it", path.display());
        loaded.with_context(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chains::manifest::Counts;
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
        list(dir.path(), Shard { samples, ..listed(bytes) });
        dir
    }

    fn listed(bytes: &[u8]) -> Shard {
        let (file, sha256) = ("chains-000000.tar".to_owned(), Some(crate::digest::of(bytes)));
        Shard { file, samples: 1, bytes: bytes.len() as u64, sha256 }
    }

    /// Writes the manifest of one shard.
    fn list(dir: &Path, shard: Shard) {
        let manifest = Manifest {
            stage: "chains".to_owned(),
            settings: serde_json::Value::Null,
            sources: Vec::new(),
            counts: Counts::default(),
            shards: vec![shard],
        };
        crate::json::write(&dir.join("manifest.json"), &manifest).unwrap();
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

    #[test]
    fn a_shard_that_is_not_what_was_made_is_refused_and_one_that_was_packed_again_is_not_compared() {
        let made = packed(&[("a.json", FILE, "a")]);
        let other = packed(&[("a.json", FILE, "b")]);
        let longer = [made.as_slice(), &[0; 512]].concat();
        for (bytes, says) in
            [(&other, "expected SHA-256 "), (&longer, "expected 2048 bytes, as manifest.json says, got 2560")]
        {
            let dir = folder(bytes, 1);
            list(dir.path(), listed(&made));
            let error = format!("{:#}", Index::open(dir.path()).err().unwrap());
            assert!(error.contains("chains-000000.tar: ") && error.contains(says), "{error}: lacks {says}");
            let read = |dir: &Path| Index::open(dir).map(|index| index.sha256().to_owned()).unwrap();
            list(dir.path(), Shard { sha256: None, ..listed(&made) });
            let packed_again = read(dir.path());
            list(dir.path(), listed(bytes));
            assert_eq!(packed_again, read(dir.path()), "the hash is that of what is read");
        }
    }

    #[test]
    fn a_shard_that_changes_under_a_run_is_refused() {
        let [made, other] = ["a", "b"].map(|content| packed(&[("a.json", FILE, content)]));
        for by_renaming in [false, true] {
            let dir = folder(&made, 1);
            let index = Index::open(dir.path()).unwrap();
            index.read(0).unwrap();
            let (path, beside) = (dir.path().join("chains-000000.tar"), dir.path().join("beside"));
            std::fs::write(if by_renaming { &beside } else { &path }, &other).unwrap();
            if by_renaming {
                std::fs::rename(&beside, &path).unwrap();
            }
            // A change within a tick of the file system's clock would have the same time.
            let later = std::time::SystemTime::now() + std::time::Duration::from_secs(1);
            File::options().append(true).open(&path).unwrap().set_modified(later).unwrap();
            let error = format!("{:#}", index.read(0).unwrap_err());
            assert!(error.contains("chains-000000.tar: the shard has changed since the run opened it"), "{error}");
        }
    }
}
