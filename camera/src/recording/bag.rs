//! The folder of a rosbag2: `metadata.yaml` and the files that it names, in the order in which they were written. Names
//! do not tell that order: `drive_10.mcap` sorts before `drive_2.mcap`.

use std::path::{Path, PathBuf};

use saphyr::{LoadableYamlNode, Yaml};

use super::Error;

const METADATA: &str = "metadata.yaml";
const INFORMATION: &str = "rosbag2_bagfile_information";

/// Whether a path is a bag's folder, or a file called `.mcap`.
pub fn is_recording(path: &Path) -> bool {
    path.join(METADATA).is_file() || path.is_file() && path.extension().is_some_and(|extension| extension == "mcap")
}

/// The MCAP files of a recording in the order of their messages: the file itself, or those that a bag's `metadata.yaml`
/// lists.
///
/// # Errors
///
/// [`Error::Io`], and [`Error::Bag`] for what is no list, another storage than MCAP, compression by rosbag2 itself, and
/// files that are not there.
pub fn files(path: &Path) -> Result<Vec<PathBuf>, Error> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let metadata = path.join(METADATA);
    let text = std::fs::read_to_string(&metadata).map_err(|source| Error::Io { path: metadata.clone(), source })?;
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
    let compression = word("compression_mode");
    if !compression.is_empty() && !compression.eq_ignore_ascii_case("none") {
        let expected = "none (`ros2 bag convert` unpacks it; chunks that MCAP itself compresses are read)";
        return Err(wrong("compression_mode", expected, compression.to_owned()));
    }
    let listed = information.as_mapping_get("relative_file_paths").and_then(Yaml::as_sequence);
    let names: Option<Vec<&str>> = listed.and_then(|names| names.iter().map(Yaml::as_str).collect());
    let names = names.filter(|names| !names.is_empty());
    let names = names.ok_or_else(|| wrong("relative_file_paths", "a list of MCAP files", "none".to_owned()))?;
    names
        .into_iter()
        .map(|name| {
            // Old versions name the folder too.
            let bare = Path::new(name).file_name().map(|file| path.join(file));
            let places = std::iter::once(path.join(name)).chain(bare);
            places
                .into_iter()
                .find(|place| place.is_file())
                .ok_or_else(|| wrong("relative_file_paths", "files that are there", format!("{name:?}, which is not")))
        })
        .collect()
}
