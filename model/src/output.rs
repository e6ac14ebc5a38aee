//! Files that are written for others to read: nobody sees half of one under its name, who has the old one open or mapped
//! keeps it, and who may read the new one is what the umask says.

use std::collections::HashMap;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use candle_core::Tensor;

use crate::{Error, Result};

/// Has `write` fill the file `WHOLE.part`, and puts it in its place. What was begun goes where that fails.
///
/// # Errors
/// A file that can't be made, and `write`'s.
pub fn replace(whole: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let mut part = whole.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let io = |source| Error::Io { path: whole.to_owned(), source };
    // What a killed process left would keep its own permissions.
    if let Err(error) = std::fs::remove_file(&part)
        && error.kind() != ErrorKind::NotFound
    {
        return Err(io(error));
    }
    let permissions = File::create_new(&part).and_then(|file| file.metadata()).map_err(io)?.permissions();
    // safetensors writes a temporary file, which its user alone may read, and puts that in our file's place.
    let place =
        || std::fs::set_permissions(&part, permissions).and_then(|()| std::fs::rename(&part, whole)).map_err(io);
    let placed = write(&part).and_then(|()| place());
    if placed.is_err() {
        let _ = std::fs::remove_file(&part); // it may be gone
    }
    placed
}

/// Writes tensors as safetensors, with these keys of its header's metadata where there are any.
///
/// # Errors
/// A file that can't be written.
pub fn tensors(
    tensors: &HashMap<String, Tensor>,
    metadata: Option<HashMap<String, String>>,
    whole: &Path,
) -> Result<()> {
    replace(whole, |part| {
        safetensors::serialize_to_file(tensors, metadata, part)
            .map_err(|source| Error::Weights { path: whole.to_owned(), source: source.into() })
    })
}

/// Copies the content of a file, not its permissions. The two may be one.
///
/// # Errors
/// A file that can't be read or written.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut source = File::open(from).map_err(|source| Error::Io { path: from.to_owned(), source })?;
    replace(to, |part| {
        let copied = File::create(part).and_then(|mut file| std::io::copy(&mut source, &mut file));
        copied.map(drop).map_err(|source| Error::Io { path: to.to_owned(), source })
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use candle_core::{DType, Device};

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_written_may_be_read_by_whom_the_umask_says() {
        let dir = tempfile::tempdir().unwrap();
        let [plain, weights, left, private, copied] =
            ["plain", "w.safetensors", "w.safetensors.part", "private", "copied"].map(|name| dir.path().join(name));
        let all = HashMap::from([("a".to_owned(), Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap())]);
        std::fs::write(&plain, "").unwrap();
        // Nor do the permissions of what was there before, whole or not, or of a copy's source matter.
        for path in [&weights, &left, &private] {
            std::fs::write(path, "before").unwrap();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o400)).unwrap();
        }
        tensors(&all, None, &weights).unwrap();
        copy(&private, &copied).unwrap();
        assert_eq!([mode(&weights), mode(&copied)], [mode(&plain); 2]);
        assert!(!left.exists());
        assert_eq!(candle_core::safetensors::load(&weights, &Device::Cpu).unwrap().len(), 1);
    }

    #[test]
    fn who_has_the_old_file_open_keeps_it_and_a_copy_onto_itself_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, "old").unwrap();
        let open = File::open(&path).unwrap();
        let write = |part: &Path| {
            std::fs::write(part, "newer").unwrap();
            Ok(())
        };
        replace(&path, write).unwrap();
        assert_eq!(std::io::read_to_string(open).unwrap(), "old");
        copy(&path, &path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "newer");
        // What fails to be written leaves what was there.
        let fails = |_: &Path| Err(Error::Input { what: "a", expected: String::new(), got: String::new() });
        replace(&path, fails).unwrap_err();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "newer");
    }
}
