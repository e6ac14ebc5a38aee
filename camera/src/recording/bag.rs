//! The folder of a rosbag2: `metadata.yaml` and the files that it names, in the order in which they were written. Names
//! do not tell that order: `drive_10.mcap` sorts before `drive_2.mcap`.
//!
//! What rosbag2 compresses itself: messages that it packed one by one are unpacked as they are read, files that it packed as a
//! whole are read once somebody has unpacked them beside the packed ones. Not here: a picture in such a file can only be read
//! behind all that is before it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use saphyr::{LoadableYamlNode, Yaml};

use super::{Damage, Error};

const METADATA: &str = "metadata.yaml";
const INFORMATION: &str = "rosbag2_bagfile_information";
/// What rosbag2 puts behind the name of a file that it packs.
const PACKED: &str = ".zstd";
/// Ends of the names of recordings; those but the first cannot be read, and are told so by name.
const EXTENSIONS: [&str; 4] = ["mcap", "db3", "zstd", "bag"];

/// A recording as it lies on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bag {
    /// Its MCAP files in the order of their messages.
    pub files: Vec<PathBuf>,
    list: PathBuf,
    /// How many messages its list counts, by topic; empty without a list.
    counts: BTreeMap<String, u64>,
}

impl Bag {
    /// The topics of which fewer messages were `read` than its list counts: a file that was cut at the right place, or one that
    /// lies where another belongs, is whole by itself.
    pub fn missing(&self, read: &BTreeMap<String, u64>) -> Vec<Damage> {
        let short = self.counts.iter().filter_map(|(topic, &expected)| {
            let got = read.get(topic).copied().unwrap_or(0);
            let damage = || Damage::Missing { path: self.list.clone(), topic: Some(topic.clone()), expected, got };
            (got < expected).then(damage)
        });
        short.collect()
    }
}

/// Whether a path is a bag's folder, or a file that is called as recordings of ROS are.
pub fn is_recording(path: &Path) -> bool {
    let extension = || path.extension().and_then(|extension| extension.to_str());
    path.join(METADATA).is_file() || path.is_file() && extension().is_some_and(|found| EXTENSIONS.contains(&found))
}

/// A recording: the file itself, or the files that a bag's `metadata.yaml` lists; `path` may be that list too.
///
/// # Errors
///
/// [`Error::Io`], and [`Error::Bag`] for what is no list, another storage than MCAP, compression that is not read, and files
/// that are not there.
pub fn open(path: &Path) -> Result<Bag, Error> {
    let folder = match path.parent() {
        Some(parent) if path.ends_with(METADATA) => parent,
        _ if path.is_dir() => path,
        _ => return Ok(Bag { files: vec![path.to_owned()], list: path.to_owned(), counts: BTreeMap::new() }),
    };
    let metadata = folder.join(METADATA);
    let text = match std::fs::read_to_string(&metadata) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(without_list(folder)),
        Err(source) => return Err(Error::Io { path: metadata, source }),
    };
    let wrong = |field, expected: &str, got: String| Error::Bag {
        path: metadata.clone(),
        field,
        expected: expected.to_owned(),
        got,
    };
    let documents = Yaml::load_from_str(&text).map_err(|e| wrong(INFORMATION, "a mapping in YAML", e.to_string()))?;
    let information = documents.first().and_then(|document| document.as_mapping_get(INFORMATION));
    let information =
        information.ok_or_else(|| wrong(INFORMATION, "what rosbag2 writes at the end", "nothing".to_owned()))?;
    let word = |key: &str| information.as_mapping_get(key).and_then(Yaml::as_str).unwrap_or_default();
    let storage = word("storage_identifier");
    if !matches!(storage, "mcap" | "") {
        let expected = "mcap (`ros2 bag convert` makes it of others)";
        return Err(wrong("storage_identifier", expected, storage.to_owned()));
    }
    let (mode, format) = (word("compression_mode"), word("compression_format"));
    let packed = || {
        let expected = format!(
            "none, messages packed by zstd, or files that `zstd -d {}/*{PACKED}` has unpacked (`ros2 bag convert` makes a bag \
             without compression)",
            folder.display()
        );
        let by = if format.is_empty() { "nothing" } else { format };
        wrong("compression_mode", &expected, format!("{mode} packed by {by}"))
    };
    match mode.to_ascii_lowercase().as_str() {
        // Whether its files are unpacked is seen at each.
        "" | "none" | "file" => {}
        // As they are read.
        "message" if format == "zstd" => {}
        _ => return Err(packed()),
    }
    let listed = information.as_mapping_get("relative_file_paths").and_then(Yaml::as_sequence);
    let names: Option<Vec<&str>> = listed.and_then(|names| names.iter().map(Yaml::as_str).collect());
    let names = names.filter(|names| !names.is_empty());
    let names = names.ok_or_else(|| wrong("relative_file_paths", "a list of MCAP files", "none".to_owned()))?;
    let find = |name: &str| {
        // Old versions name the folder too.
        let bare = Path::new(name).file_name().map(|file| folder.join(file));
        std::iter::once(folder.join(name)).chain(bare).find(|place| place.is_file())
    };
    let files = names
        .into_iter()
        .map(|name| match (find(name.strip_suffix(PACKED).unwrap_or(name)), find(name)) {
            (Some(file), _) => Ok(file),
            (None, Some(_)) => Err(packed()),
            (None, None) => {
                Err(wrong("relative_file_paths", "files that are there", format!("{name:?}, which is not")))
            }
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Bag { files, counts: counts(information), list: metadata })
}

/// How many messages a list counts, by topic; what is no count is left out.
fn counts(information: &Yaml<'_>) -> BTreeMap<String, u64> {
    let topics = information.as_mapping_get("topics_with_message_count").and_then(Yaml::as_sequence);
    let count = |topic: &Yaml<'_>| {
        let name = topic.as_mapping_get("topic_metadata")?.as_mapping_get("name")?.as_str()?.to_owned();
        let messages = topic.as_mapping_get("message_count")?.as_integer()?;
        Some((name, u64::try_from(messages).ok()?))
    };
    topics.into_iter().flatten().filter_map(count).collect()
}

/// A folder without a list: which of its files come first is not known.
fn without_list(folder: &Path) -> Error {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| is_recording(&entry.path()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    Error::Bag {
        path: folder.to_owned(),
        field: METADATA,
        expected: "the list of a rosbag2's files (`ros2 bag reindex` writes it anew), or one recording by its own path"
            .to_owned(),
        got: if names.is_empty() { "none".to_owned() } else { format!("none beside {}", names.join(", ")) },
    }
}
