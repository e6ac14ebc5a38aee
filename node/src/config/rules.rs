//! What a value of the config must hold by itself. What keys owe each other is checked where the whole is made of them.

use std::fmt::Display;
use std::path::Path;

use geometry::WINDOW;
use model::answer::budget::Budget;

use super::Error;

/// What a parameter holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// true or false.
    Bool,
    /// A whole number.
    Integer,
    /// A number; whole ones are taken for it.
    Double,
    /// A string.
    Text,
    /// A list of numbers.
    Doubles,
}

/// What must hold of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// Nothing.
    Any,
    /// In words: something that another part of the program, or another key, decides.
    Said(&'static str),
    /// A whole number from the first to the second.
    Range(i64, i64),
    /// A finite number above 0.
    Positive,
    /// A finite number, this or more.
    AtLeast(f64),
    /// As many finite numbers above 0 as a window has frames behind its first, none less than the one before it.
    Growing,
    /// Three finite numbers.
    Triple,
    /// One of these.
    Choice(&'static [&'static str]),
    /// A ROS topic name.
    Topic,
    /// A ROS node name.
    NodeName,
    /// A ROS namespace.
    Namespace,
    /// A frame's name.
    Frame,
    /// The same, or nothing.
    FrameOrNothing,
    /// A device that the model may run on.
    Device,
}

impl Rule {
    /// In words; empty where there is none, or where the range says all.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Any | Self::Range(..) => String::new(),
            other => other.expected(),
        }
    }

    /// What an error says was expected.
    pub(super) fn expected(&self) -> String {
        match self {
            Self::Any => "anything".to_owned(),
            Self::Said(words) => (*words).to_owned(),
            Self::Range(least, most) => format!("a whole number from {least} to {most}"),
            Self::Positive => "a finite number above 0".to_owned(),
            Self::AtLeast(least) => format!("a finite number, {least} or more"),
            Self::Growing => {
                format!("{} finite numbers above 0, none less than the one before it", WINDOW - 1)
            }
            Self::Triple => "3 finite numbers".to_owned(),
            Self::Choice(names) => {
                let names: Vec<String> = names.iter().map(|name| quoted(name)).collect();
                format!("one of {}", names.join(", "))
            }
            Self::Topic => "a ROS topic name such as /camera/image_raw".to_owned(),
            Self::NodeName => "a ROS node name (letters, digits, underscores)".to_owned(),
            Self::Namespace => "\"/\" or a name such as /robot1".to_owned(),
            Self::Frame => "a frame name without leading slash or spaces".to_owned(),
            Self::FrameOrNothing => "a frame name without leading slash or spaces, or nothing".to_owned(),
            Self::Device => "cpu, cuda or cuda:N".to_owned(),
        }
    }

    /// Whether a text holds it.
    pub(super) fn allows(&self, text: &str) -> bool {
        match self {
            Self::Choice(names) => names.contains(&text),
            Self::Topic => {
                let body = text.strip_prefix("~/").or_else(|| text.strip_prefix('/')).unwrap_or(text);
                body.split('/').all(is_name)
            }
            Self::NodeName => is_name(text),
            Self::Namespace => text == "/" || text.strip_prefix('/').is_some_and(|body| body.split('/').all(is_name)),
            Self::Frame => !text.is_empty() && !text.starts_with('/') && !text.contains(char::is_whitespace),
            Self::FrameOrNothing => text.is_empty() || Self::Frame.allows(text),
            Self::Device => {
                let is_gpu = |n: &str| n.parse::<u16>().is_ok();
                text == "cpu" || text == "cuda" || text.strip_prefix("cuda:").is_some_and(is_gpu)
            }
            _ => true,
        }
    }
}

/// A type of values.
pub(super) trait Holds {
    /// Its name.
    const KIND: Kind;

    /// Whether a value holds a rule.
    fn keeps(&self, rule: &Rule) -> bool;

    /// As errors show it.
    fn shown(&self) -> String;
}

impl Holds for bool {
    const KIND: Kind = Kind::Bool;

    fn keeps(&self, _: &Rule) -> bool {
        true
    }

    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Holds for i64 {
    const KIND: Kind = Kind::Integer;

    fn keeps(&self, rule: &Rule) -> bool {
        match rule {
            Rule::Range(least, most) => (least..=most).contains(&self),
            _ => true,
        }
    }

    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Holds for f64 {
    const KIND: Kind = Kind::Double;

    fn keeps(&self, rule: &Rule) -> bool {
        match rule {
            Rule::Positive => self.is_finite() && *self > 0.0,
            Rule::AtLeast(least) => self.is_finite() && self >= least,
            _ => true,
        }
    }

    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Holds for String {
    const KIND: Kind = Kind::Text;

    fn keeps(&self, rule: &Rule) -> bool {
        rule.allows(self)
    }

    fn shown(&self) -> String {
        quoted(self)
    }
}

/// Written as a word or a number, as a parameter it is a string.
impl Holds for Budget {
    const KIND: Kind = Kind::Text;

    fn keeps(&self, _: &Rule) -> bool {
        true
    }

    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Holds for Vec<f64> {
    const KIND: Kind = Kind::Doubles;

    fn keeps(&self, rule: &Rule) -> bool {
        let is_finite = self.iter().all(|value| value.is_finite());
        match rule {
            Rule::Growing => is_finite && self.len() == WINDOW - 1 && self.is_sorted() && self[0] > 0.0,
            Rule::Triple => is_finite && self.len() == 3,
            _ => true,
        }
    }

    fn shown(&self) -> String {
        format!("{self:?}")
    }
}

/// Makes errors that name the file.
pub(super) struct Check<'a> {
    pub(super) path: &'a Path,
}

impl Check<'_> {
    pub(super) fn error(&self, key: &'static str, expected: impl Into<String>, got: &dyn Display) -> Error {
        Error::Value { path: self.path.to_owned(), key, expected: expected.into(), got: got.to_string() }
    }

    /// Holds a value against a rule.
    pub(super) fn holds<T: Holds>(&self, key: &'static str, rule: &Rule, value: &T) -> Result<(), Error> {
        if value.keeps(rule) { Ok(()) } else { Err(self.error(key, rule.expected(), &value.shown())) }
    }
}

pub(super) fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

/// A single segment of a ROS name.
fn is_name(segment: &str) -> bool {
    let mut chars = segment.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}
