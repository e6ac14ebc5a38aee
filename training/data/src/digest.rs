//! SHA-256 of texts and files, hexadecimal: what tells whether they are still what was written.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};

/// Of bytes.
pub fn of(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Of a file.
///
/// # Errors
/// A file that can't be read.
pub fn of_file(path: &Path) -> Result<String> {
    let read = || File::open(path).and_then(|mut file| of_stream(&mut file));
    read().with_context(|| path.display().to_string())
}

/// Of what is left to read.
///
/// # Errors
/// The reader's.
pub fn of_stream(stream: &mut impl Read) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    std::io::copy(stream, &mut hash)?;
    Ok(hex(&hash.finalize()))
}

/// A hash as it is written.
pub fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_hash_of_its_bytes() {
        // FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(of(b"abc"), abc);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "abc").unwrap();
        assert_eq!(of_file(&dir.path().join("a")).unwrap(), abc);
        let error = format!("{:#}", of_file(&dir.path().join("b")).unwrap_err());
        assert!(error.contains("/b: "), "{error}");
    }
}
