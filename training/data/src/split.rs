//! Which videos and scenes are for what. Neighbouring clips of one video show the same rooms, so a part takes all of a
//! source or nothing of it.

use super::error::Error;
use super::formats::Skipped;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The parts that sources are split into.
///
/// ```toml
/// [[split]]
/// name = "chain_holdout"
/// count = 60
/// [[split]]
/// name = "sft"
/// share = 0.9
/// [[split]]
/// name = "rl"
/// share = 0.1
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitConfig {
    /// Counts are taken first, in this order; shares are of what they leave.
    #[serde(rename = "split")]
    pub parts: Vec<Part>,
}

/// What the stage `split` writes, and `part=FILE:NAME` reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SplitFile {
    /// `split`.
    #[serde(default)]
    pub stage: String,
    /// The text of the source.
    #[serde(default)]
    pub data: String,
    /// Settings of the stage, which are compared and never looked into.
    #[serde(default)]
    pub config: Value,
    /// Who went where, by the parts' names.
    pub parts: BTreeMap<String, Dealt>,
    /// Parts of the source that could not be read.
    #[serde(default)]
    pub skipped: Vec<Skipped>,
}

/// What went into a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dealt {
    /// Videos and scenes.
    pub sources: Vec<String>,
    /// Their sequences.
    #[serde(default)]
    pub sequences: Vec<Hashed>,
    /// Images of all of them.
    #[serde(default)]
    pub frames: usize,
}

/// A sequence, so that a later set can be compared with this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hashed {
    /// Its name.
    pub name: String,
    /// Of the camera and the poses, hexadecimal.
    pub sha256: String,
}

/// One part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawPart", into = "RawPart")]
pub struct Part {
    /// Its name, unique.
    pub name: String,
    /// How much goes into it.
    pub size: PartSize,
}

/// How much goes into a part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PartSize {
    /// So many sources, above 0.
    Count(usize),
    /// A share of the sources that the counts leave, above 0; all shares together at most 1.
    Share(f64),
}

/// A part as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPart {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    share: Option<f64>,
}

impl TryFrom<RawPart> for Part {
    type Error = String;

    fn try_from(raw: RawPart) -> Result<Self, String> {
        let size = match (raw.count, raw.share) {
            (Some(count), None) if count > 0 => PartSize::Count(count),
            (None, Some(share)) if share > 0.0 && share <= 1.0 => PartSize::Share(share),
            (count, share) => {
                let expected = "a count above 0 or a share in (0, 1]";
                return Err(format!("split {:?}: expected {expected}, got count {count:?}, share {share:?}", raw.name));
            }
        };
        Ok(Self { name: raw.name, size })
    }
}

impl From<Part> for RawPart {
    fn from(part: Part) -> Self {
        let (count, share) = match part.size {
            PartSize::Count(count) => (Some(count), None),
            PartSize::Share(share) => (None, Some(share)),
        };
        Self { name: part.name, count, share }
    }
}

/// Deals sources out to the parts: sorted names of each. Repeated names count once, the order of `sources` is of no
/// account, and no source is in two parts. What counts and shares leave is in none.
///
/// # Errors
/// [`Error::Split`]: a name twice, shares above 1 together, or fewer sources than asked for (a share of less than one).
pub fn split(sources: &[String], config: &SplitConfig, seed: u64) -> Result<BTreeMap<String, Vec<String>>, Error> {
    let wrong = |part: &Part, expected: String, got: String| Error::Split { name: part.name.clone(), expected, got };
    let unique: BTreeSet<&String> = sources.iter().collect();
    let mut order: Vec<&String> = unique.into_iter().collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));

    let mut rest = order.as_slice();
    let mut ranges: BTreeMap<&str, &[&String]> = BTreeMap::new();
    for part in &config.parts {
        let PartSize::Count(count) = part.size else { continue };
        let Some((taken, left)) = rest.split_at_checked(count) else {
            let got = format!("{} of {} left", rest.len(), order.len());
            return Err(wrong(part, format!("{count} sources"), got));
        };
        rest = left;
        if ranges.insert(&part.name, taken).is_some() {
            return Err(wrong(part, "one part of this name".to_owned(), "two".to_owned()));
        }
    }
    // Bounds are rounded from running sums, so that no source is lost between two parts.
    let (mut sum, mut start) = (0.0, 0);
    for part in &config.parts {
        let PartSize::Share(share) = part.size else { continue };
        sum += share;
        if sum > 1.0 + 1e-9 {
            return Err(wrong(part, "shares of 1 or less together".to_owned(), sum.to_string()));
        }
        let end = ((sum * rest.len() as f64).round() as usize).min(rest.len());
        if end <= start {
            let got = format!("a share of {share} of {}", rest.len());
            return Err(wrong(part, "at least one source".to_owned(), got));
        }
        if ranges.insert(&part.name, &rest[start..end]).is_some() {
            return Err(wrong(part, "one part of this name".to_owned(), "two".to_owned()));
        }
        start = end;
    }
    let sorted = |taken: &[&String]| {
        let mut names: Vec<String> = taken.iter().map(|name| (*name).clone()).collect();
        names.sort();
        names
    };
    Ok(ranges.into_iter().map(|(name, taken)| (name.to_owned(), sorted(taken))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("video-{n}")).collect()
    }

    fn config(text: &str) -> SplitConfig {
        toml::from_str(text).unwrap()
    }

    const FOUR: &str = r#"
        split = [
            { name = "chain_holdout", count = 6 },
            { name = "sft", share = 0.6 },
            { name = "comparison_holdout", count = 20 },
            { name = "rl", share = 0.4 },
        ]
    "#;

    proptest! {
        #[test]
        fn no_source_is_in_two_parts(count in 30_usize..200, seed in any::<u64>()) {
            let parts = split(&names(count), &config(FOUR), seed).unwrap();
            let all: Vec<&String> = parts.values().flatten().collect();
            let unique: BTreeSet<&String> = all.iter().copied().collect();
            prop_assert_eq!(all.len(), count);
            prop_assert_eq!(unique.len(), count);
            prop_assert_eq!((parts["chain_holdout"].len(), parts["comparison_holdout"].len()), (6, 20));
            let share = parts["sft"].len() as f64 - 0.6 * (count - 26) as f64;
            prop_assert!(share.abs() <= 0.5);
        }
    }

    #[test]
    fn the_same_sources_and_seed_give_the_same_parts() {
        let sources = names(90);
        let mut turned: Vec<String> = sources.iter().rev().cloned().collect();
        turned.extend_from_slice(&sources[..40]);
        let parts = split(&sources, &config(FOUR), 7).unwrap();
        assert_eq!(parts, split(&turned, &config(FOUR), 7).unwrap());
        assert_ne!(parts, split(&sources, &config(FOUR), 8).unwrap());
        let kept = config("[[split]]\nname = \"a\"\nshare = 0.5\n");
        assert_eq!(split(&sources, &kept, 7).unwrap()["a"].len(), 45, "what no part asks for is in none");
        assert_eq!(kept, config(&toml::to_string(&kept).unwrap()));
    }

    #[test]
    fn what_cannot_be_split_says_why() {
        let error = |text: &str, count| split(&names(count), &config(text), 0).unwrap_err().to_string();
        let text = error(FOUR, 25);
        assert!(
            text.contains("comparison_holdout") && text.contains("20 sources") && text.contains("19 of 25"),
            "{text}"
        );
        assert!(error(FOUR, 26).contains("at least one source"));
        let twice = "split = [{ name = \"a\", count = 1 }, { name = \"a\", share = 0.5 }]";
        assert!(error(twice, 9).contains("one part of this name"));
        let over = "split = [{ name = \"a\", share = 0.7 }, { name = \"b\", share = 0.5 }]";
        assert!(error(over, 9).contains("1 or less"));
        for bad in ["count = 0", "share = 1.5", "share = nan", "", "count = 1\nshare = 0.5", "cuont = 1"] {
            let got = toml::from_str::<SplitConfig>(&format!("[[split]]\nname = \"a\"\n{bad}\n"));
            assert!(got.is_err(), "{bad}");
        }
    }
}
