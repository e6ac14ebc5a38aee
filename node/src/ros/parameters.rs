//! The config as the parameters of a ROS node: what the parameter services answer, without the services.
//!
//! Architecture Invariant: what a parameter may be is decided by the config's own rules and nowhere else; a set that they
//! refuse changes nothing.

use std::fmt;

use crate::config::keys::{self, Spec, TABLE};
use crate::config::rules::Kind;
use crate::config::{Config, Sheet};

/// A value of `rcl_interfaces/ParameterValue`, as far as this node has such.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// No value: the parameter is not known.
    Unset,
    /// A bool.
    Bool(bool),
    /// An integer.
    Integer(i64),
    /// A double.
    Double(f64),
    /// A string.
    Text(String),
    /// A list of integers; no parameter is one, but a list of doubles may be written so.
    Integers(Vec<i64>),
    /// A list of doubles.
    Doubles(Vec<f64>),
    /// Of a type that no parameter of this node has; its name.
    Foreign(&'static str),
}

impl Value {
    /// The number of its type in `rcl_interfaces/ParameterType`; that of an unset one where this node has no such type.
    #[must_use]
    pub fn type_id(&self) -> u8 {
        match self {
            Self::Unset | Self::Foreign(_) => 0,
            Self::Bool(_) => 1,
            Self::Integer(_) => 2,
            Self::Double(_) => 3,
            Self::Text(_) => 4,
            Self::Integers(_) => 7,
            Self::Doubles(_) => 8,
        }
    }
}

impl fmt::Display for Value {
    /// The name of its type.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unset => "nothing",
            Self::Bool(_) => "a bool",
            Self::Integer(_) => "an integer",
            Self::Double(_) => "a double",
            Self::Text(_) => "a string",
            Self::Integers(_) => "a list of integers",
            Self::Doubles(_) => "a list of doubles",
            Self::Foreign(name) => name,
        })
    }
}

/// What `rcl_interfaces/ParameterDescriptor` says of a parameter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Descriptor {
    /// Its name.
    pub name: String,
    /// The number of its type; 0 where it is not known.
    pub type_id: u8,
    /// What it is.
    pub description: String,
    /// What must hold, in words.
    pub constraints: String,
    /// Whether it is fixed when the node starts.
    pub is_read_only: bool,
    /// Smallest and largest value of an integer.
    pub range: Option<(i64, i64)>,
}

/// What `rcl_interfaces/ListParametersResult` says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// Names of parameters.
    pub names: Vec<String>,
    /// What stands before the last dot in any of them.
    pub prefixes: Vec<String>,
}

/// The parameters of the running node.
#[derive(Debug, Clone)]
pub struct Parameters {
    sheet: Sheet,
}

impl Parameters {
    /// With the values of `sheet`.
    #[must_use]
    pub fn new(sheet: Sheet) -> Self {
        Self { sheet }
    }

    /// The value of a parameter.
    #[must_use]
    pub fn get(&self, name: &str) -> Value {
        let held = keys::spec(name).and_then(|spec| Some((spec.kind, self.sheet.get(spec.key)?)));
        held.and_then(|(kind, value)| of_toml(kind, value)).unwrap_or(Value::Unset)
    }

    /// All, with their values.
    #[must_use]
    pub fn all(&self) -> Vec<(String, Value)> {
        TABLE.iter().map(|spec| (spec.name().to_owned(), self.get(spec.name()))).collect()
    }

    /// The names under any of the `prefixes`, or all where there are none; at most `depth` levels down, 0 for any.
    #[must_use]
    pub fn list(&self, prefixes: &[String], depth: u64) -> Listing {
        let is_near = |rest: &str| depth == 0 || (rest.matches('.').count() as u64) < depth;
        let is_under = |name: &str, prefix: &str| {
            name.strip_prefix(prefix).is_some_and(|rest| (rest.is_empty() || rest.starts_with('.')) && is_near(rest))
        };
        let mut listing = Listing::default();
        for name in TABLE.iter().map(Spec::name) {
            let is_wanted =
                if prefixes.is_empty() { is_near(name) } else { prefixes.iter().any(|prefix| is_under(name, prefix)) };
            if !is_wanted {
                continue;
            }
            listing.names.push(name.to_owned());
            if let Some((prefix, _)) = name.rsplit_once('.').filter(|(p, _)| !listing.prefixes.iter().any(|q| q == p)) {
                listing.prefixes.push(prefix.to_owned());
            }
        }
        listing
    }

    /// What is to be known about a parameter.
    #[must_use]
    pub fn describe(&self, name: &str) -> Descriptor {
        let Some(spec) = keys::spec(name) else {
            return Descriptor { name: name.to_owned(), ..Descriptor::default() };
        };
        Descriptor {
            name: name.to_owned(),
            type_id: self.get(name).type_id(),
            description: spec.description.to_owned(),
            constraints: spec.rule.words(),
            is_read_only: !spec.is_live,
            range: spec.range(),
        }
    }

    /// Sets all of these, or none of them; returns the config that they make.
    ///
    /// # Errors
    ///
    /// Why not, for the person who asked.
    pub fn set(&mut self, changes: &[(String, Value)]) -> Result<Config, String> {
        let mut values = Vec::with_capacity(changes.len());
        for (name, value) in changes {
            let spec = keys::spec(name).ok_or_else(|| format!("`{name}` is not a parameter of this node"))?;
            if !spec.is_live {
                return Err(format!(
                    "`{name}` is read when the node starts: set it in the config file, on the command line or in the \
                     launch file"
                ));
            }
            let value = to_toml(spec.kind, value).ok_or_else(|| {
                let expected = match spec.kind {
                    Kind::Bool => "a bool",
                    Kind::Integer => "an integer",
                    Kind::Double => "a double",
                    Kind::Text => "a string",
                    Kind::Doubles => "a list of doubles",
                };
                format!("`{name}`: expected {expected}, got {value}")
            })?;
            values.push((spec.key, value));
        }
        let (sheet, config) = self.sheet.with(&values).map_err(|e| e.to_string())?;
        self.sheet = sheet;
        Ok(config)
    }
}

/// What the config holds, as a value of the parameter's type; a file may write doubles as whole numbers.
fn of_toml(kind: Kind, value: &toml::Value) -> Option<Value> {
    let double = |value: &toml::Value| value.as_float().or_else(|| value.as_integer().map(|n| n as f64));
    match kind {
        Kind::Bool => value.as_bool().map(Value::Bool),
        Kind::Integer => value.as_integer().map(Value::Integer),
        Kind::Double => double(value).map(Value::Double),
        // A number may stand for its text.
        Kind::Text => match value {
            toml::Value::Integer(number) => Some(Value::Text(number.to_string())),
            _ => value.as_str().map(|text| Value::Text(text.to_owned())),
        },
        Kind::Doubles => value.as_array()?.iter().map(double).collect::<Option<_>>().map(Value::Doubles),
    }
}

/// The value for the config; `None` where its type is another. `ros2 param set` makes an integer of `5`.
fn to_toml(kind: Kind, value: &Value) -> Option<toml::Value> {
    let list = |values: &mut dyn Iterator<Item = f64>| toml::Value::Array(values.map(toml::Value::Float).collect());
    match (kind, value) {
        (Kind::Bool, Value::Bool(value)) => Some(toml::Value::Boolean(*value)),
        (Kind::Integer, Value::Integer(value)) => Some(toml::Value::Integer(*value)),
        (Kind::Double, Value::Double(value)) => Some(toml::Value::Float(*value)),
        (Kind::Double, Value::Integer(value)) => Some(toml::Value::Float(*value as f64)),
        (Kind::Text, Value::Text(value)) => Some(toml::Value::String(value.clone())),
        (Kind::Doubles, Value::Doubles(values)) => Some(list(&mut values.iter().copied())),
        (Kind::Doubles, Value::Integers(values)) => Some(list(&mut values.iter().map(|n| *n as f64))),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
