//! Folders of what a program has written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Every file below a folder, by its path in there.
pub fn below(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for entry in std::fs::read_dir(&at).unwrap_or_else(|e| panic!("{}: {e}", at.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_owned();
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// Bytes of all of them.
pub fn size(folder: &Path) -> u64 {
    below(folder).values().map(|bytes| bytes.len() as u64).sum()
}

pub fn copy(from: &Path, to: &Path) {
    for (name, bytes) in below(from) {
        let path = to.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

/// What must be the same however often a program was stopped: tensors, configs, shards; not what holds times.
fn is_exact(name: &Path) -> bool {
    let exact = ["config.json", "preprocessor_config.json", "tokenizer.json"];
    let by_extension = |e: &std::ffi::OsStr| ["safetensors", "gguf", "tar", "mcap"].iter().any(|known| e == *known);
    name.extension().is_some_and(by_extension) || name.file_name().is_some_and(|n| exact.iter().any(|e| n == *e))
}

/// The bytes that are compared: of safetensors the numbers, since its header has metadata in any order.
fn compared<'a>(name: &Path, bytes: &'a [u8]) -> Option<&'a [u8]> {
    if name.extension().is_none_or(|e| e != "safetensors") {
        return Some(bytes);
    }
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    rest.get(usize::try_from(u64::from_le_bytes(*length)).ok()?..)
}

/// Every file with its final name is as in the folder that nobody disturbed, or not there yet.
pub fn assert_whole_or_absent(undisturbed: &Path, got: &Path, what: &str) {
    if !got.is_dir() {
        return;
    }
    let got = below(got);
    for (name, expected) in below(undisturbed).iter().filter(|(name, _)| is_exact(name)) {
        if let Some(bytes) = got.get(name) {
            let is_same = compared(name, bytes) == compared(name, expected);
            assert!(is_same, "{what}: {}: {} bytes in place of {}", name.display(), bytes.len(), expected.len());
        }
    }
}

/// The same, and all of them are there.
pub fn assert_same(undisturbed: &Path, got: &Path, what: &str) {
    let there = below(got);
    let exact: Vec<PathBuf> = below(undisturbed).into_keys().filter(|name| is_exact(name)).collect();
    assert!(!exact.is_empty(), "{what}: nothing to compare");
    for name in exact {
        assert!(there.contains_key(&name), "{what}: {} is missing", name.display());
    }
    assert_whole_or_absent(undisturbed, got, what);
}
