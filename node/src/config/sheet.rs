//! A config as the table that it is written as: what overrides are laid over, and what parameters are read from and set in.

use std::path::{Path, PathBuf};

use super::keys::Raw;
use super::{Config, Error, validate};

/// The table behind a [`Config`]. It holds all keys and no other, and its values are those of a config that was accepted.
#[derive(Debug, Clone)]
pub struct Sheet {
    path: PathBuf,
    table: toml::Table,
}

impl Config {
    /// Reads `path` with `overrides` laid over it, each a dotted key and a value in TOML; a bare word counts as a string.
    ///
    /// # Errors
    ///
    /// [`Error`] names the file and the key.
    pub fn load(path: &Path, overrides: &[(String, String)]) -> Result<Config, Error> {
        Sheet::load(path, overrides).map(|(_, config)| config)
    }

    /// As [`Config::load`], from the text of a file that stands at `path`.
    ///
    /// # Errors
    ///
    /// [`Error`] names the file and the key.
    pub fn parse(text: &str, path: &Path, overrides: &[(String, String)]) -> Result<Config, Error> {
        Sheet::parse(text, path, overrides).map(|(_, config)| config)
    }
}

impl Sheet {
    /// As [`Config::load`], with the table.
    ///
    /// # Errors
    ///
    /// [`Error`] names the file and the key.
    pub fn load(path: &Path, overrides: &[(String, String)]) -> Result<(Self, Config), Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path, overrides)
    }

    /// As [`Config::parse`], with the table.
    ///
    /// # Errors
    ///
    /// [`Error`] names the file and the key.
    pub fn parse(text: &str, path: &Path, overrides: &[(String, String)]) -> Result<(Self, Config), Error> {
        let syntax = |message: String| Error::Syntax { path: path.to_owned(), message };
        // The text itself first: its errors carry line and column, those of the merged table do not.
        let mut raw: Raw = toml::from_str(text).map_err(|e| syntax(e.to_string().trim_end().to_owned()))?;
        let mut table: toml::Table = toml::from_str(text).map_err(|e| syntax(e.to_string()))?;
        for (key, value) in overrides {
            let refuse = |message: String| Error::Override {
                path: path.to_owned(),
                key: key.clone(),
                value: value.clone(),
                message,
            };
            lay_over(&mut table, key, value).map_err(refuse)?;
            raw = raw_of(&table).map_err(refuse)?;
        }
        let config = validate::config(raw, path)?;
        Ok((Self { path: path.to_owned(), table }, config))
    }

    /// The value at a dotted key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&toml::Value> {
        let (section, name) = key.split_once('.')?;
        self.table.get(section)?.get(name)
    }

    /// This table with other values at some of its keys, all of which must be keys of it, and the config that it makes.
    ///
    /// # Errors
    ///
    /// [`Error`] where the values do not make a config; this table is as it was.
    pub fn with(&self, changes: &[(&str, toml::Value)]) -> Result<(Self, Config), Error> {
        let syntax = |message: String| Error::Syntax { path: self.path.clone(), message };
        let mut table = self.table.clone();
        for (key, value) in changes {
            let place = key.split_once('.').and_then(|(section, name)| table.get_mut(section)?.get_mut(name));
            *place.ok_or_else(|| syntax(format!("unknown key `{key}`")))? = value.clone();
        }
        let config = validate::config(raw_of(&table).map_err(syntax)?, &self.path)?;
        Ok((Self { path: self.path.clone(), table }, config))
    }
}

fn raw_of(table: &toml::Table) -> Result<Raw, String> {
    let raw = toml::Value::Table(table.clone()).try_into();
    raw.map_err(|e: toml::de::Error| e.to_string().trim_end().replace('\n', " "))
}

/// Puts `value` at the dotted `key`, which must be there already.
fn lay_over(table: &mut toml::Table, key: &str, value: &str) -> Result<(), String> {
    let (section, name) = key.split_once('.').ok_or_else(|| {
        let sections: Vec<&str> = table.keys().map(String::as_str).collect();
        format!("expected section.key with a section of {}", sections.join(", "))
    })?;
    let sections: Vec<String> = table.keys().cloned().collect();
    let Some(toml::Value::Table(inner)) = table.get_mut(section) else {
        return Err(format!("unknown section `{section}`, expected one of {}", sections.join(", ")));
    };
    let Some(old) = inner.get(name) else {
        let names: Vec<&str> = inner.keys().map(String::as_str).collect();
        return Err(format!("unknown key `{name}` in `{section}`, expected one of {}", names.join(", ")));
    };
    let read = toml::from_str::<toml::Table>(&format!("v = {value}")).ok().filter(|read| read.len() == 1);
    let read = read.and_then(|mut read| read.remove("v"));
    let lines = value.trim().lines().count();
    if read.is_none() && lines > 1 {
        // What stands in the others would be forgotten, or be a part of a name.
        return Err(format!("expected one value, got {lines} lines"));
    }
    let new = match (old, read) {
        (toml::Value::String(_), Some(toml::Value::String(s))) => toml::Value::String(s),
        (toml::Value::String(_), _) | (_, None) => toml::Value::String(value.to_owned()),
        (_, Some(v)) => v,
    };
    inner.insert(name.to_owned(), new);
    Ok(())
}
