//! JSON files, with their names in errors.

use std::fs::File;
use std::io::{Error as IoError, ErrorKind, Read as _};
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::{Error, Result};

/// Bytes of the longest file that says how a model is made: an index of tensors has some hundred thousand.
const LONGEST: u64 = 16 << 20;
/// Bytes of the longest vocabulary: those of today have up to 40 million.
pub(crate) const LONGEST_VOCABULARY: u64 = 128 << 20;

/// Reads a JSON file with its name in the error.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    read_json_within(path, LONGEST)
}

/// The same of a file of at most `most` bytes.
pub(crate) fn read_json_within<T: DeserializeOwned>(path: &Path, most: u64) -> Result<T> {
    let text = read_within(path, most)?;
    serde_json::from_slice(&text).map_err(|source| Error::Json { path: path.to_owned(), source })
}

/// Reads a file of at most `most` bytes; of a longer one not more than that is read.
pub(crate) fn read_within(path: &Path, most: u64) -> Result<Vec<u8>> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(most + 1).read_to_end(&mut bytes)).map_err(io)?;
    if bytes.len() as u64 > most {
        let message = format!("expected a file of at most {most} bytes, got more");
        return Err(io(IoError::new(ErrorKind::InvalidData, message)));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_to_its_limit_and_not_beyond() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[1, 2]").unwrap();
        assert_eq!(read_json_within::<Vec<u32>>(file.path(), 6).unwrap(), [1, 2]);
        let error = read_json_within::<Vec<u32>>(file.path(), 5).unwrap_err().to_string();
        assert!(error.ends_with("expected a file of at most 5 bytes, got more"), "{error}");
        // One of gigabytes that takes no room on the disk.
        file.as_file().set_len(1 << 34).unwrap();
        let error = read_json::<serde_json::Value>(file.path()).unwrap_err().to_string();
        assert!(error.contains("at most 16777216 bytes"), "{error}");
    }
}
