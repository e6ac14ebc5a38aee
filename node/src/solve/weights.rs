//! Whether the files that a model was loaded from are still what they were. Those of GGUF are read as the model answers: one that
//! is cut meanwhile ends the process, and bytes that are altered in place are answered with. A file that is put in the place of
//! another by renaming it leaves the other as it was, and is no change.

use std::fs::{File, Metadata};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Kinds of files that weights are in.
const KINDS: [&str; 2] = ["gguf", "safetensors"];

/// Files of weights, held open.
#[derive(Debug, Default)]
pub struct Weights(Vec<Held>);

#[derive(Debug)]
struct Held {
    path: PathBuf,
    file: File,
    then: State,
}

/// What a change shows by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    bytes: u64,
    modified: Option<SystemTime>,
}

impl From<Metadata> for State {
    fn from(metadata: Metadata) -> Self {
        Self { bytes: metadata.len(), modified: metadata.modified().ok() }
    }
}

impl Weights {
    /// Those in folders, as they are now. What cannot be opened is for whoever reads it to tell.
    pub fn of<'a>(folders: impl Iterator<Item = &'a Path>) -> Self {
        let entries = folders.filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
        let paths = entries.map(|entry| entry.path());
        let of_weights = paths.filter(|path| KINDS.iter().any(|kind| path.extension().is_some_and(|e| e == *kind)));
        let mut held: Vec<Held> = of_weights.filter_map(Held::open).collect();
        held.sort_by(|a, b| a.path.cmp(&b.path));
        Self(held)
    }

    /// What has become of the first of them that is not as it was, in a sentence.
    pub fn changed(&self) -> Option<String> {
        self.0.iter().find_map(Held::changed)
    }
}

impl Held {
    fn open(path: PathBuf) -> Option<Self> {
        let file = File::open(&path).ok()?;
        let then = file.metadata().ok()?.into();
        Some(Self { path, file, then })
    }

    fn changed(&self) -> Option<String> {
        // Of the file that was opened, whatever the path leads to by now.
        let now = State::from(self.file.metadata().ok()?);
        let path = self.path.display();
        if now.bytes != self.then.bytes {
            let (expected, got) = (self.then.bytes, now.bytes);
            return Some(format!(
                "{path}: expected the {expected} bytes that the model was loaded from, got {got}: weights are replaced by \
                 renaming alone; start the node again"
            ));
        }
        (now != self.then).then(|| {
            format!(
                "{path}: expected the file that the model was loaded from, got one that was written to since: weights are \
                 replaced by renaming alone; start the node again"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;
    use std::time::{Duration, SystemTime};

    use super::Weights;

    #[test]
    fn files_that_are_cut_or_written_to_are_told_and_those_that_give_way_to_another_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let [model, other] = ["model.gguf", "other.gguf.part"].map(|name| dir.path().join(name));
        std::fs::write(&model, [7_u8; 64]).unwrap();
        std::fs::write(dir.path().join("config.json"), "{}").unwrap();
        let open = || Weights::of([dir.path()].into_iter());
        let weights = open();
        assert_eq!(weights.0.len(), 1, "{weights:?}");
        std::fs::write(dir.path().join("config.json"), "{ }").unwrap();
        assert_eq!(weights.changed(), None);

        std::fs::write(&other, [8_u8; 32]).unwrap();
        std::fs::rename(&other, &model).unwrap();
        assert_eq!(weights.changed(), None, "the old file is as it was");

        let weights = open();
        File::options().write(true).open(&model).unwrap().set_len(16).unwrap();
        let told = weights.changed().unwrap();
        assert!(told.contains("model.gguf: expected the 32 bytes that") && told.contains("got 16"), "{told}");

        let weights = open();
        let mut file = File::options().write(true).open(&model).unwrap();
        file.write_all(&[9]).unwrap();
        // Whatever the clock of the file system ticks in.
        file.set_modified(SystemTime::now() + Duration::from_secs(2)).unwrap();
        let told = weights.changed().unwrap();
        assert!(told.contains("model.gguf") && told.contains("written to since"), "{told}");
    }
}
