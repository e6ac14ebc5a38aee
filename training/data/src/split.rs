//! Which videos and scenes are for what. Neighbouring clips of one video show the same rooms, so no source is in two parts.
//! A part is counted in sources, all of whose windows it takes, or in windows, of which each source gives a few.

use super::error::Error;
use super::formats::Skipped;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The parts that sources are split into.
///
/// ```toml
/// [[split]]
/// name = "chain_holdout"
/// windows = 60
/// per_source = 1
/// [[split]]
/// name = "sft"
/// windows = 62_774
/// clips = 30_642
/// per_clip = 3
/// [[split]]
/// name = "other"
/// share = 1.0
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitConfig {
    /// Counts and windows are taken first, in this order; shares are of what they leave.
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
    /// The windows that it has of them, by their ids; all where there is no list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub windows: Option<Vec<String>>,
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
    /// A share of the sources that the counts and windows leave, above 0; all shares together at most 1.
    Share(f64),
    /// So many windows.
    Windows(WindowCount),
}

/// A part that is counted in windows. Its clips give as many each, as far as they have them: one of each first, then a
/// second, and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowCount {
    /// Windows, above 0.
    pub windows: usize,
    /// Clips that give at least one, no more than `windows`; as few sources as it takes where it is not said.
    pub clips: Option<usize>,
    /// The most that a clip gives, above 0. One of the two caps there must be.
    pub per_clip: Option<usize>,
    /// The most that all clips of a source give, above 0.
    pub per_source: Option<usize>,
}

/// A part as it is written.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPart {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    share: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    windows: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    clips: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    per_clip: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    per_source: Option<usize>,
}

impl TryFrom<RawPart> for Part {
    type Error = String;

    fn try_from(raw: RawPart) -> Result<Self, String> {
        let size = raw.size().ok_or_else(|| {
            format!(
                "split {:?}: expected a count above 0, a share in (0, 1], or windows above 0 with per_clip, per_source or \
                 both above 0 and clips from 1 to windows, got {raw:?}",
                raw.name
            )
        })?;
        Ok(Self { name: raw.name, size })
    }
}

impl RawPart {
    /// `None` where the keys do not go together.
    fn size(&self) -> Option<PartSize> {
        let Self { count, share, windows, clips, per_clip, per_source, .. } = *self;
        let counted = WindowCount { windows: windows.unwrap_or(0), clips, per_clip, per_source };
        let caps = [per_clip, per_source];
        let is_plain = clips.is_none() && caps.iter().all(Option::is_none);
        match (count, share, windows) {
            (Some(count), None, None) if is_plain && count > 0 => Some(PartSize::Count(count)),
            (None, Some(share), None) if is_plain && share > 0.0 && share <= 1.0 => Some(PartSize::Share(share)),
            (None, None, Some(windows)) => {
                let capped = caps.iter().any(Option::is_some) && caps.iter().flatten().all(|cap| *cap > 0);
                let clipped = clips.is_none_or(|clips| (1..=windows).contains(&clips));
                (windows > 0 && capped && clipped).then_some(PartSize::Windows(counted))
            }
            _ => None,
        }
    }
}

impl From<Part> for RawPart {
    fn from(Part { name, size }: Part) -> Self {
        match size {
            PartSize::Count(count) => Self { name, count: Some(count), ..Self::default() },
            PartSize::Share(share) => Self { name, share: Some(share), ..Self::default() },
            PartSize::Windows(WindowCount { windows, clips, per_clip, per_source }) => {
                Self { name, windows: Some(windows), clips, per_clip, per_source, ..Self::default() }
            }
        }
    }
}

/// A clip as it is dealt out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clip<'a> {
    /// The video or scene that it is of.
    pub source: &'a str,
    /// Its name, another for each clip.
    pub name: &'a str,
    /// Its windows.
    pub windows: usize,
}

/// What a part was given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Given {
    /// Videos and scenes, sorted.
    pub sources: Vec<String>,
    /// Of a part that is counted in windows: the numbers of these among the windows of their clip, rising, by the clip's
    /// name.
    pub windows: Option<BTreeMap<String, Vec<usize>>>,
}

/// Clips by their source, both in the order in which they are dealt out.
type BySource<'a> = Vec<(&'a str, Vec<Clip<'a>>)>;

/// Deals sources out to the parts. The order of `clips` is of no account, and no source is in two parts. What counts, windows
/// and shares leave is in none; a source of which a part takes a few windows is in no other.
///
/// # Errors
/// [`Error::Split`]: a name twice, shares above 1 together, or fewer sources (a share of less than one), clips or windows
/// than asked for.
pub fn split(clips: &[Clip<'_>], config: &SplitConfig, seed: u64) -> Result<BTreeMap<String, Given>, Error> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let order = shuffled(clips, &mut random);
    let mut rest = order.as_slice();
    let mut parts = BTreeMap::new();
    for part in &config.parts {
        let (taken, given) = match part.size {
            PartSize::Share(_) => continue,
            PartSize::Count(count) if count > rest.len() => {
                let got = format!("{} of {} left", rest.len(), order.len());
                return Err(wrong(part, format!("{count} sources"), got));
            }
            PartSize::Count(count) => (count, whole(&rest[..count])),
            PartSize::Windows(asked) => counted(part, asked, rest, &mut random)?,
        };
        rest = &rest[taken..];
        insert(&mut parts, part, given)?;
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
        insert(&mut parts, part, whole(&rest[start..end]))?;
        start = end;
    }
    Ok(parts)
}

fn wrong(part: &Part, expected: String, got: String) -> Error {
    Error::Split { name: part.name.clone(), expected, got }
}

fn insert(parts: &mut BTreeMap<String, Given>, part: &Part, given: Given) -> Result<(), Error> {
    match parts.insert(part.name.clone(), given) {
        None => Ok(()),
        Some(_) => Err(wrong(part, "one part of this name".to_owned(), "two".to_owned())),
    }
}

/// The sources in another order for each seed, their clips sorted by name.
fn shuffled<'a>(clips: &[Clip<'a>], random: &mut ChaCha8Rng) -> BySource<'a> {
    let mut sources: BTreeMap<&str, Vec<Clip<'_>>> = BTreeMap::new();
    for clip in clips {
        sources.entry(clip.source).or_default().push(*clip);
    }
    let mut order: BySource<'a> = sources.into_iter().collect();
    order.iter_mut().for_each(|(_, clips)| clips.sort_by_key(|clip| clip.name));
    order.shuffle(random);
    order
}

/// Sources with all that they have.
fn whole(taken: &[(&str, Vec<Clip<'_>>)]) -> Given {
    let mut sources: Vec<String> = taken.iter().map(|(source, _)| (*source).to_owned()).collect();
    sources.sort();
    Given { sources, windows: None }
}

/// How many of the sources a part that is counted in windows takes, and what of them.
fn counted(
    part: &Part,
    asked: WindowCount,
    rest: &[(&str, Vec<Clip<'_>>)],
    random: &mut ChaCha8Rng,
) -> Result<(usize, Given), Error> {
    let WindowCount { windows, clips, per_clip, per_source } = asked;
    let (per_clip, per_source) = (per_clip.unwrap_or(usize::MAX), per_source.unwrap_or(usize::MAX));
    // Clips that may give a window, with the most that each gives, source by source.
    let (mut taken, mut clip_count, mut offered) = (0, 0, 0);
    let mut offers: Vec<(usize, Clip<'_>, usize)> = Vec::new();
    for (_, of_source) in rest {
        let is_enough = clips.map_or(offered >= windows, |asked| clip_count >= asked);
        if is_enough {
            break;
        }
        let mut of_source: Vec<Clip<'_>> = of_source.iter().filter(|clip| clip.windows > 0).copied().collect();
        of_source.shuffle(random);
        let left = clips.map_or(usize::MAX, |asked| asked - clip_count);
        of_source.truncate(per_source.min(left));
        clip_count += of_source.len();
        let most: usize = of_source.iter().map(|clip| clip.windows.min(per_clip)).sum();
        offered += most.min(per_source);
        offers.extend(of_source.into_iter().map(|clip| (taken, clip, clip.windows.min(per_clip))));
        taken += 1;
    }
    if let Some(asked) = clips.filter(|asked| clip_count < *asked) {
        return Err(wrong(part, format!("{asked} clips with windows"), format!("{clip_count} in the sources left")));
    }
    if offered < windows {
        let got = format!("{offered} in {clip_count} clips of the {taken} sources taken, under the caps");
        return Err(wrong(part, format!("{windows} windows"), got));
    }
    let numbers = dealt(&offers, windows, per_source, taken);
    let (mut sources, mut chosen) = (BTreeSet::new(), BTreeMap::new());
    for ((_, clip, _), number) in offers.iter().zip(numbers).filter(|(_, number)| *number > 0) {
        sources.insert(clip.source.to_owned());
        chosen.insert(clip.name.to_owned(), spread(clip.windows, number, random));
    }
    let given = Given { sources: sources.into_iter().collect(), windows: Some(chosen) };
    Ok((taken, given))
}

/// How many windows each clip gives: one in each round, as long as it has one and its source's cap allows it. `offers` are the
/// place of a clip's source, of `sources`, the clip, and the most that it gives; all together they give enough.
fn dealt(offers: &[(usize, Clip<'_>, usize)], windows: usize, per_source: usize, sources: usize) -> Vec<usize> {
    let (mut numbers, mut of_source, mut left) = (vec![0; offers.len()], vec![0; sources], windows);
    while left > 0 {
        let before = left;
        for ((source, _, most), number) in offers.iter().zip(&mut numbers) {
            if left > 0 && *number < *most && of_source[*source] < per_source {
                *number += 1;
                of_source[*source] += 1;
                left -= 1;
            }
        }
        if left == before {
            break;
        }
    }
    numbers
}

/// `count` of the numbers `0..windows`, evenly apart and rising: neighbouring windows show nearly the same.
fn spread(windows: usize, count: usize, random: &mut ChaCha8Rng) -> Vec<usize> {
    // u64, so that the stream is the same on a machine with 32-bit words.
    let start = random.random_range(0..windows as u64) as usize;
    (0..count).map(|k| (k * windows + start) / count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("video-{n}")).collect()
    }

    /// A clip for each name, of three windows.
    fn clips(names: &[String]) -> Vec<Clip<'_>> {
        names.iter().map(|name| Clip { source: name, name, windows: 3 }).collect()
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
            let parts = split(&clips(&names(count)), &config(FOUR), seed).unwrap();
            let all: Vec<&String> = parts.values().flat_map(|given| &given.sources).collect();
            let unique: BTreeSet<&String> = all.iter().copied().collect();
            prop_assert_eq!(all.len(), count);
            prop_assert_eq!(unique.len(), count);
            let sources = |name: &str| parts[name].sources.len();
            prop_assert_eq!((sources("chain_holdout"), sources("comparison_holdout")), (6, 20));
            let share = sources("sft") as f64 - 0.6 * (count - 26) as f64;
            prop_assert!(share.abs() <= 0.5);
        }
    }

    #[test]
    fn the_same_sources_and_seed_give_the_same_parts() {
        let names = names(90);
        let sources = clips(&names);
        let turned: Vec<Clip<'_>> = sources.iter().rev().copied().collect();
        let parts = split(&sources, &config(FOUR), 7).unwrap();
        assert_eq!(parts, split(&turned, &config(FOUR), 7).unwrap());
        assert_ne!(parts, split(&sources, &config(FOUR), 8).unwrap());
        let kept = config("[[split]]\nname = \"a\"\nshare = 0.5\n");
        let half = split(&sources, &kept, 7).unwrap();
        assert_eq!((half["a"].sources.len(), &half["a"].windows), (45, &None), "what no part asks for is in none");
        assert_eq!(kept, config(&toml::to_string(&kept).unwrap()));
    }

    /// A video of some clips, and the windows of each.
    fn films(videos: usize, clips: usize, windows: impl Fn(usize) -> usize) -> Vec<(String, String, usize)> {
        let film = |n: usize| (format!("video-{}", n / clips), format!("clip-{n}"), windows(n));
        (0..videos * clips).map(film).collect()
    }

    fn of_films(films: &[(String, String, usize)]) -> Vec<Clip<'_>> {
        films.iter().map(|(source, name, windows)| Clip { source, name, windows: *windows }).collect()
    }

    /// Windows, clips and the most of a clip in a part.
    fn sizes(given: &Given) -> (usize, usize, usize) {
        let clips: Vec<usize> = given.windows.iter().flatten().map(|(_, numbers)| numbers.len()).collect();
        (clips.iter().sum(), clips.len(), clips.iter().copied().max().unwrap_or(0))
    }

    /// Section 4.1 of EgoReasoner: 62,834 sequences of 30,702 videos for SFT, 60 of them held out; 74,027 of 13,532 others
    /// for RL, 492 of them trained on and 200 held out.
    #[test]
    fn the_shipped_config_gives_the_sets_of_the_paper_on_fifty_thousand_clips() {
        let shipped: crate::stage::split::Config =
            toml::from_str(include_str!("../../../config/training/split.toml")).unwrap();
        let asked = SplitConfig { parts: shipped.parts };
        // Clips of 6 to 30 windows; one of fifty is too short for any.
        let films = films(10_000, 5, |n| if n % 50 == 0 { 0 } else { 6 + n * 7919 % 25 });
        let clips = of_films(&films);
        let parts = split(&clips, &asked, shipped.seed).unwrap();
        let size = |name: &str| sizes(&parts[name]);
        assert_eq!(
            (size("chain_holdout"), size("comparison_holdout"), size("rl")),
            ((60, 60, 1), (200, 200, 1), (492, 492, 1))
        );
        for name in ["chain_holdout", "comparison_holdout", "rl"] {
            assert_eq!(parts[name].sources.len(), parts[name].windows.as_ref().unwrap().len(), "{name}: one a video");
        }
        assert_eq!((size("sft").0 + 60, size("sft").1 + 60), (62_834, 30_702));
        assert_eq!((size("rl_rest").0 + 200 + 492, size("rl_rest").1 + 200 + 492), (74_027, 13_532));
        assert!(size("sft").2 == 3 && size("rl_rest").2 == 6, "{:?} {:?}", size("sft"), size("rl_rest"));
        // No video is in two parts, and what a clip gives it has, once.
        let mut seen = BTreeSet::new();
        let all: BTreeMap<&str, &Clip<'_>> = clips.iter().map(|clip| (clip.name, clip)).collect();
        for (name, given) in &parts {
            assert!(given.sources.iter().all(|source| seen.insert(source.clone())), "{name}");
            for (clip, numbers) in given.windows.as_ref().unwrap() {
                let Clip { source, windows, .. } = all[clip.as_str()];
                assert!(given.sources.binary_search_by(|s| s.as_str().cmp(source)).is_ok(), "{name}: {clip}");
                assert!(
                    numbers.is_sorted_by(|a, b| a < b) && numbers.iter().all(|n| n < windows),
                    "{clip}: {numbers:?}"
                );
            }
        }
        let turned: Vec<Clip<'_>> = clips.iter().rev().copied().collect();
        assert_eq!(parts, split(&turned, &asked, shipped.seed).unwrap(), "the order is of no account");
        assert_ne!(parts, split(&clips, &asked, shipped.seed + 1).unwrap(), "the seed is");
    }

    #[test]
    fn windows_are_dealt_evenly_under_both_caps_and_lie_apart() {
        let films = films(40, 3, |n| if n % 3 == 0 { 1 } else { 20 });
        let clips = of_films(&films);
        let part = |keys: &str| {
            split(&clips, &config(&format!("[[split]]\nname = \"a\"\n{keys}\n")), 5).map(|mut p| p.remove("a").unwrap())
        };
        // 1, 4 and 4 of each video: 9 times 40.
        let all = part("windows = 360\nper_clip = 4").unwrap();
        assert_eq!((sizes(&all), all.sources.len()), ((360, 120, 4), 40));
        for numbers in all.windows.unwrap().values().filter(|numbers| numbers.len() == 4) {
            assert!(numbers.windows(2).all(|pair| pair[1] - pair[0] == 5), "{numbers:?}");
        }
        let two = part("windows = 50\nper_source = 2").unwrap();
        assert_eq!((sizes(&two), two.sources.len()), ((50, 50, 1), 25));
        let named = part("windows = 100\nclips = 60\nper_clip = 3\nper_source = 5").unwrap();
        assert_eq!((sizes(&named).0, sizes(&named).1), (100, 60));
        let error = |keys: &str| part(keys).unwrap_err().to_string();
        let short = error("windows = 361\nper_clip = 4");
        assert!(short.contains("expected 361 windows") && short.contains("360 in 120 clips"), "{short}");
        let few = error("windows = 500\nclips = 121\nper_clip = 9");
        assert!(few.contains("121 clips with windows") && few.contains("120 in the sources left"), "{few}");
        let capped = error("windows = 41\nper_source = 1");
        assert!(capped.contains("41 windows") && capped.contains("40 in 40 clips"), "{capped}");
    }

    #[test]
    fn a_source_that_gave_a_few_windows_is_in_no_other_part() {
        let films = films(12, 4, |_| 9);
        let text = r#"
            split = [
                { name = "few", windows = 5, per_source = 1 },
                { name = "one", count = 1 },
                { name = "others", share = 1.0 },
            ]
        "#;
        let parts = split(&of_films(&films), &config(text), 2).unwrap();
        let sources = |name: &str| parts[name].sources.len();
        assert_eq!((sources("few"), sources("one"), sources("others")), (5, 1, 6));
        let all: BTreeSet<&String> = parts.values().flat_map(|given| &given.sources).collect();
        assert_eq!(all.len(), 12);
    }

    #[test]
    fn what_cannot_be_split_says_why() {
        let error = |text: &str, count| split(&clips(&names(count)), &config(text), 0).unwrap_err().to_string();
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
        for bad in [
            "count = 0",
            "share = 1.5",
            "share = nan",
            "",
            "count = 1\nshare = 0.5",
            "cuont = 1",
            "windows = 5",
            "windows = 0\nper_clip = 1",
            "windows = 5\nper_source = 0",
            "windows = 5\nper_clip = 1\nclips = 6",
            "windows = 5\nper_clip = 1\nclips = 0",
            "windows = 5\nper_clip = 1\ncount = 5",
            "count = 5\nper_clip = 1",
            "share = 0.5\nclips = 1",
        ] {
            let got = toml::from_str::<SplitConfig>(&format!("[[split]]\nname = \"a\"\n{bad}\n"));
            assert!(got.is_err(), "{bad}");
        }
        let kept = config("[[split]]\nname = \"a\"\nwindows = 5\nclips = 2\nper_clip = 3\n");
        assert_eq!(kept, config(&toml::to_string(&kept).unwrap()));
    }
}
