//! Files that other programs write: their keys, and the folders that they lie in.
//!
//! Keys known to change nothing pass; those that ask for what is not computed here are refused by name; all others are
//! named in a warning. What is read over in silence makes a model that answers otherwise than it was trained to.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value};

use crate::{Error, Result};

/// Longest value that is printed whole.
const SHORT: usize = 80;

/// What the value of a key must be. `null` is no value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Only {
    /// `false`, 0 or an empty one.
    Off,
    /// `true`.
    On,
    /// A number.
    Number(f64),
    /// One of some words.
    Word(&'static [&'static str]),
}

impl Only {
    fn holds(self, value: &Value) -> bool {
        match self {
            _ if value.is_null() => true,
            Self::Off => is_off(value),
            Self::On => value == &Value::Bool(true),
            Self::Number(expected) => value.as_f64().is_some_and(|got| (got - expected).abs() <= 1e-4 * expected.abs()),
            Self::Word(all) => value.as_str().is_some_and(|got| all.contains(&got)),
        }
    }

    /// In words, for a value that it is not.
    fn expected(self, value: &Value) -> String {
        match self {
            Self::Off if value.is_boolean() => "false".to_owned(),
            Self::Off if value.is_number() => "0 or nothing".to_owned(),
            Self::Off => "nothing".to_owned(),
            Self::On => "true".to_owned(),
            Self::Number(expected) => expected.to_string(),
            Self::Word(all) => all.join(" or "),
        }
    }
}

/// Whether a value switches nothing on.
pub(crate) fn is_off(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.is_empty(),
    }
}

/// A value as an error prints it: a text without quotes, all else as JSON, cut where it is long.
pub(crate) fn short(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match text.char_indices().nth(SHORT) {
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text,
    }
}

/// What is known of the keys of an object.
#[derive(Debug)]
pub(crate) struct Keys {
    /// Keys that are read, and those that change nothing of an answer.
    pub(crate) known: &'static [&'static str],
    /// Keys that change nothing at one value.
    pub(crate) only: &'static [(&'static str, Only)],
}

/// A key whose value asks for what is not computed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// The key.
    pub(crate) key: &'static str,
    /// What it must be.
    pub(crate) expected: String,
    /// What it is.
    pub(crate) got: String,
}

impl Keys {
    /// Keys of an object whose values ask for what is not computed.
    pub(crate) fn refused<'a>(&'a self, object: &'a Map<String, Value>) -> impl Iterator<Item = Refused> + 'a {
        self.only.iter().filter_map(move |&(key, only)| {
            let value = object.get(key).filter(|value| !only.holds(value))?;
            Some(Refused { key, expected: only.expected(value), got: short(value) })
        })
    }

    /// Keys of an object that nothing is known of and that switch something on.
    pub(crate) fn unknown<'a>(&'a self, object: &'a Map<String, Value>) -> impl Iterator<Item = (&'a str, &'a Value)> {
        object.iter().map(|(key, value)| (key.as_str(), value)).filter(move |(key, value)| {
            !is_off(value) && !self.known.contains(key) && !self.only.iter().any(|(other, _)| other == key)
        })
    }

    /// Refuses and warns as the module says, of an object in a file; `place` stands before its keys in messages.
    ///
    /// # Errors
    /// [`Error::Key`] with the first key that asks for what is not computed.
    pub(crate) fn check(&self, path: &Path, place: &str, object: &Map<String, Value>) -> Result<()> {
        if let Some(Refused { key, expected, got }) = self.refused(object).next() {
            return Err(Error::Key { path: path.to_owned(), key: format!("{place}{key}"), expected, got });
        }
        for (key, value) in self.unknown(object) {
            let (file, value) = (path.display(), short(value));
            tracing::warn!(
                "{file}: {place}{key} is {value}: a key that is not known here, and not followed; where it changes what \
                 the model computes, the answers are not the model's"
            );
        }
        Ok(())
    }
}

/// Refuses a file where its folder is wanted.
///
/// # Errors
/// [`Error::Io`] that names the folder.
pub(crate) fn folder(dir: &Path) -> Result<()> {
    if !dir.is_file() {
        return Ok(());
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let message = format!("expected a folder, got a file: name the folder that holds it, {}", parent.display());
    let source = std::io::Error::new(std::io::ErrorKind::NotADirectory, message);
    Err(Error::Io { path: dir.to_owned(), source })
}

/// Refuses what Git leaves in place of a large file that was not fetched.
///
/// # Errors
/// [`Error::Io`] that names the command which fetches it, and where the file can't be opened.
pub(crate) fn refuse_pointer(path: &Path) -> Result<()> {
    const BEGIN: &[u8] = b"version https://git-lfs";
    let io = |source| Error::Io { path: path.to_owned(), source };
    let mut begin = [0u8; BEGIN.len()];
    let is_whole = File::open(path).map_err(io)?.read_exact(&mut begin).is_ok();
    if is_whole && begin.as_slice() == BEGIN {
        let message = "a pointer of Git LFS, not the file itself: run `git lfs pull` in its folder";
        return Err(io(std::io::Error::new(std::io::ErrorKind::InvalidData, message)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const KEYS: Keys = Keys {
        known: &["width"],
        only: &[
            ("act", Only::Word(&["silu"])),
            ("bias", Only::Off),
            ("scale", Only::Number(1.0)),
            ("causal", Only::On),
        ],
    };

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_key_that_asks_for_other_arithmetic_is_refused_by_name() {
        let plain = object(json!({"width": 3, "act": "silu", "bias": false, "scale": 1, "causal": null, "new": null}));
        assert_eq!((KEYS.refused(&plain).count(), KEYS.unknown(&plain).count()), (0, 0));
        for (key, value, expected) in [
            ("act", json!("gelu"), "silu"),
            ("bias", json!(true), "false"),
            ("bias", json!([1]), "nothing"),
            ("scale", json!(1.5), "1"),
            ("causal", json!(false), "true"),
        ] {
            let mut object = plain.clone();
            object.insert(key.to_owned(), value.clone());
            let error = KEYS.check(Path::new("some.json"), "part.", &object).unwrap_err().to_string();
            assert_eq!(error, format!("some.json: part.{key}: expected {expected}, got {}", short(&value)));
        }
    }

    #[test]
    fn a_key_that_nothing_is_known_of_is_named() {
        let object = object(json!({"width": 3, "new_scale": 0.5, "new_flag": false, "new_list": []}));
        let names: Vec<&str> = KEYS.unknown(&object).map(|(key, _)| key).collect();
        assert_eq!(names, ["new_scale"]);
    }
}
