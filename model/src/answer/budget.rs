//! How many tokens an answer may have: as many as the longest one of its mode needs with the tokenizer at hand, which no constant
//! can say. With a tokenizer that has each digit apart, as Qwen's, five poses take twice what they take with `nano`'s.

use std::fmt;
use std::str::FromStr;

use geometry::WINDOW;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::chain::POINTS;
use super::grammar::MAX_PROSE;
use super::prompt::Mode;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// What the prose of an answer is like; tokens of other prose are as long in the mean.
const PROSE: &str = "The camera moves forward and turns slightly to the left (about 12.3 degrees), since points near the \
    border slide outwards while those on the far wall hardly move at all. ";
/// Digits to fill numbers with, so that no pair of them is a token that others have not.
const DIGITS: &[u8] = b"8314926705";

/// Tokens after which an answer is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Budget {
    /// As many as its mode needs: [`needed`].
    #[default]
    Auto,
    /// So many.
    Tokens(usize),
}

impl Budget {
    /// In tokens, for answers of `mode`, the longest of which takes `needed`.
    ///
    /// # Errors
    /// [`Error::Input`] where it is less.
    pub fn tokens(self, needed: usize, mode: Mode) -> Result<usize> {
        match self {
            Self::Auto => Ok(needed),
            Self::Tokens(given) if given >= needed => Ok(given),
            Self::Tokens(given) => Err(Error::Input {
                what: "max_tokens",
                expected: format!(
                    "\"auto\", or at least {needed}, which the longest answer of mode {} takes with this tokenizer",
                    mode.name()
                ),
                got: given.to_string(),
            }),
        }
    }
}

/// Tokens of the longest answer of a mode, with the one that ends it.
///
/// # Errors
/// A tokenizer that can't spell it.
pub fn needed(tokenizer: &Tokenizer, mode: Mode) -> Result<usize> {
    Ok(tokenizer.encode(&longest(mode))?.len() + 1)
}

/// A longest answer, as [`crate::answer::chain`] writes it: prose of [`MAX_PROSE`] bytes, pixels of a grid of up to four digits,
/// points of up to two before the point and poses of up to three, every number below zero that may be.
pub fn longest(mode: Mode) -> String {
    let mut digits = DIGITS.iter().cycle().map(|digit| char::from(*digit));
    let mut number = |form: &str| -> String {
        form.chars().map(|c| if c == '9' { digits.next().unwrap_or(c) } else { c }).collect()
    };
    let mut text = String::new();
    if mode == Mode::FullChain {
        let prose: String = PROSE.chars().cycle().take(MAX_PROSE).collect();
        for (step, form, parting) in
            [(1, " 9999.9 9999.9", " |"), (2, " 0.9999", ""), (3, " -99.9999 -99.9999 99.9999", " |")]
        {
            text.push_str(&format!("<step{step}>\n{prose}\n"));
            for point in 0..POINTS {
                let groups: Vec<String> = (0..WINDOW).map(|_| number(form)).collect();
                text.push_str(&format!("p{point}{}\n", groups.join(parting)));
            }
            text.push_str(&format!("</step{step}>\n"));
        }
        text.push_str(&format!("<step4>\n{prose}\n"));
        (1..WINDOW).for_each(|pose| text.push_str(&pose_line(pose, &mut number)));
        text.push_str(&format!("</step4>\n<step5>\n{prose}\n</step5>\n"));
    }
    text.push_str("<poses>\n0 R 1.000000 0.000000 0.000000 0.000000 1.000000 0.000000 0.000000 0.000000 1.000000");
    text.push_str(" t 0.000000 0.000000 0.000000\n");
    (1..WINDOW).for_each(|pose| text.push_str(&pose_line(pose, &mut number)));
    text.push_str("</poses>");
    text
}

fn pose_line(pose: usize, number: &mut impl FnMut(&str) -> String) -> String {
    format!("{pose} R{} t{}\n", number(&" -0.999999".repeat(9)), number(&" -999.999999".repeat(3)))
}

impl FromStr for Budget {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match (text, text.parse()) {
            ("auto", _) => Ok(Self::Auto),
            (_, Ok(tokens)) if tokens > 0 => Ok(Self::Tokens(tokens)),
            _ => Err(format!("expected \"auto\" or a whole number above 0, got {text:?}")),
        }
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Tokens(tokens) => tokens.fmt(f),
        }
    }
}

/// As it is written: `"auto"` or a number.
impl Serialize for Budget {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Tokens(tokens) => serializer.serialize_u64(*tokens as u64),
        }
    }
}

impl<'de> Deserialize<'de> for Budget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected \"auto\" or a whole number above 0")]
        enum Form {
            Number(u64),
            Text(String),
        }
        let text = match Form::deserialize(deserializer)? {
            Form::Number(number) => number.to_string(),
            Form::Text(text) => text,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Budget, longest, needed};
    use crate::answer::chain;
    use crate::answer::prompt::Mode;
    use crate::tokenizer::Tokenizer;

    fn tokenizer(at: &str) -> Tokenizer {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(at).join("tokenizer.json");
        Tokenizer::new(tokenizers::Tokenizer::from_file(path).unwrap()).unwrap()
    }

    #[test]
    fn the_longest_answers_have_their_form() {
        let full = chain::parse(&longest(Mode::FullChain));
        assert_eq!(full.steps(), [true; 5]);
        // The numbers are long, and no rotations.
        for mode in [Mode::FullChain, Mode::AnswerOnly] {
            assert!(chain::stated_poses(&longest(mode)).is_ok());
        }
    }

    #[test]
    fn a_budget_is_the_tokenizers_and_one_too_low_is_refused_by_both_numbers() {
        let qwen = tokenizer("../tests/fixtures/qwen3vl/converted");
        let nano = tokenizer("weights/nano");
        let [answer, full] = [Mode::AnswerOnly, Mode::FullChain].map(|mode| needed(&qwen, mode).unwrap());
        // Five poses of which each number is short take 560, a true full chain 2,375 to 2,434.
        assert!((560..800).contains(&answer) && (2434..3500).contains(&full), "{answer} {full}");
        assert!(needed(&nano, Mode::AnswerOnly).unwrap() < answer);
        assert_eq!(Budget::Auto.tokens(full, Mode::FullChain).unwrap(), full);
        assert_eq!(Budget::Tokens(5000).tokens(full, Mode::FullChain).unwrap(), 5000);
        let refused = Budget::Tokens(400).tokens(answer, Mode::AnswerOnly).unwrap_err().to_string();
        for part in ["max_tokens", "400", &answer.to_string(), "answer_only"] {
            assert!(refused.contains(part), "{part}: {refused}");
        }
    }

    #[test]
    fn a_budget_is_a_word_or_a_number() {
        assert_eq!("auto".parse(), Ok(Budget::Auto));
        assert_eq!("2500".parse(), Ok(Budget::Tokens(2500)));
        for text in ["", "0", "-3", "all", "2.5"] {
            assert!(text.parse::<Budget>().unwrap_err().contains("\"auto\" or a whole number"), "{text}");
        }
        for (json, budget) in [("\"auto\"", Budget::Auto), ("7", Budget::Tokens(7)), ("\"7\"", Budget::Tokens(7))] {
            assert_eq!(serde_json::from_str::<Budget>(json).unwrap(), budget);
        }
        assert!(serde_json::from_str::<Budget>("0").is_err() && serde_json::from_str::<Budget>("1.5").is_err());
        assert_eq!(serde_json::to_string(&[Budget::Auto, Budget::Tokens(7)]).unwrap(), "[\"auto\",7]");
    }
}
