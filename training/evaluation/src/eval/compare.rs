//! Two runs on the same windows, window by window: a difference is seen sooner, and an accident for what it is.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use geometry::metrics::{Interval, Statistic};
use serde::{Deserialize, Serialize};

use super::BOOTSTRAP_SEED;
use super::files::{JudgedLine as Line, read_lines};
use training_data::json::{read, write_json};

/// The arguments of the verb `compare`.
#[derive(Debug, Clone, clap::Args)]
pub struct CompareArgs {
    /// Output folder of one eval.
    pub a: PathBuf,
    /// Output folder of another, on the same windows.
    pub b: PathBuf,
    /// Write the comparison as JSON to this file.
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// One of the two runs, as its `report.json` has it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Side {
    /// The folder.
    pub folder: String,
    /// What was judged.
    pub estimator: String,
    /// The text of the source of windows.
    pub data: String,
    /// `as given` or `aligned`.
    pub scale: String,
}

/// One column of the two runs, A minus B.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Windows with a value on both sides: what median and mean are of.
    pub pairs: usize,
    /// Windows with a value on one side at least: what the shares are of.
    pub windows: usize,
    /// Median of the differences; its interval comes from drawing windows, each with both its values.
    pub median: Option<Interval>,
    /// Mean of the differences.
    pub mean: Option<Interval>,
    /// Share of `windows` where A is better; where it alone has a value, it is.
    pub a_better: Option<f64>,
    /// The same of B. What is missing from 1 are ties.
    pub b_better: Option<f64>,
}

/// Two runs side by side.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// One run.
    pub a: Side,
    /// The other.
    pub b: Side,
    /// Windows, the same on both sides.
    pub windows: usize,
    /// Rotation error, degrees.
    pub rre_deg: Difference,
    /// Direction error, degrees; of windows that move.
    pub tde_deg: Difference,
    /// Translation error over the ground truth's length; of windows that move.
    pub rte_rel: Difference,
    /// 1 for a window that parses, 0 for one that does not; more is better.
    pub parse: Difference,
    /// Seed of the intervals.
    pub seed: u64,
}

/// The verb `compare`: paired differences of two runs. Writes them to [`CompareArgs::out`], where that is given.
///
/// # Errors
/// A folder without `report.json` or `answers.jsonl`, or with broken ones; windows that are not the same, with how many
/// each side lacks.
pub fn compare(args: &CompareArgs) -> Result<Comparison> {
    let (a, b) = (lines(&args.a)?, lines(&args.b)?);
    same_windows((&args.a, &a), (&args.b, &b))?;
    // Both maps are in the order of the same ids.
    let rows: Vec<(&Line, &Line)> = a.values().zip(b.values()).collect();
    let column = |value: fn(&Line) -> Option<f64>, less: bool| {
        let pairs: Vec<_> = rows.iter().map(|(a, b)| (value(a), value(b))).collect();
        Difference::new(&pairs, less)
    };
    let comparison = Comparison {
        a: side(&args.a)?,
        b: side(&args.b)?,
        windows: rows.len(),
        rre_deg: column(|line| line.rre_deg, true),
        tde_deg: column(|line| line.tde_deg, true),
        rte_rel: column(|line| line.rte_rel, true),
        parse: column(|line| Some(f64::from(u8::from(line.parsed))), false),
        seed: BOOTSTRAP_SEED,
    };
    if let Some(path) = &args.out {
        write_json(path, &serde_json::to_value(&comparison)?)?;
    }
    Ok(comparison)
}

/// Two runs must be of the same windows.
///
/// # Errors
/// How many windows each lacks.
pub(super) fn same_windows(
    (folder_a, a): (&Path, &BTreeMap<String, Line>),
    (folder_b, b): (&Path, &BTreeMap<String, Line>),
) -> Result<()> {
    let lacking = |there: &BTreeMap<String, Line>, here: &BTreeMap<String, Line>| {
        there.keys().filter(|id| !here.contains_key(*id)).count()
    };
    let (a_lacks, b_lacks) = (lacking(b, a), lacking(a, b));
    ensure!(
        a_lacks == 0 && b_lacks == 0,
        "expected the same windows: {} lacks {a_lacks} of the other's {}, {} lacks {b_lacks} of {}",
        folder_a.display(),
        b.len(),
        folder_b.display(),
        a.len()
    );
    Ok(())
}

/// The windows of a run by their ids.
///
/// # Errors
/// A folder without `answers.jsonl`, or with one that is broken, empty or has two lines of one window.
pub(super) fn lines(folder: &Path) -> Result<BTreeMap<String, Line>> {
    let path = folder.join("answers.jsonl");
    let lines = read_lines::<Line>(&path)?;
    let count = lines.len();
    let lines: BTreeMap<_, _> = lines.into_iter().map(|line| (line.id.clone(), line)).collect();
    ensure!(lines.len() == count, "{}: two lines of one window", path.display());
    ensure!(count > 0, "{}: no windows", path.display());
    Ok(lines)
}

/// The beginning of `report.json`.
#[derive(Debug, Deserialize)]
struct Heading {
    estimator: String,
    data: String,
    scale: String,
}

fn side(folder: &Path) -> Result<Side> {
    let Heading { estimator, data, scale } = read(&folder.join("report.json"))?;
    Ok(Side { folder: folder.display().to_string(), estimator, data, scale })
}

impl Difference {
    /// Of the values of each window; `less` where the smaller is the better.
    pub(super) fn new(pairs: &[(Option<f64>, Option<f64>)], less: bool) -> Self {
        let (mut a_better, mut b_better, mut windows) = (0usize, 0usize, 0usize);
        let mut differences = Vec::new();
        for pair in pairs {
            let (a, b) = match *pair {
                (None, None) => continue,
                (Some(a), Some(b)) => {
                    differences.push(a - b);
                    if less { (a < b, b < a) } else { (a > b, b > a) }
                }
                (a, b) => (a.is_some(), b.is_some()),
            };
            windows += 1;
            a_better += usize::from(a);
            b_better += usize::from(b);
        }
        let Statistic { count, median, mean } = Statistic::new(&differences, BOOTSTRAP_SEED);
        let share = |n: usize| (windows > 0).then(|| n as f64 / windows as f64);
        Self { pairs: count, windows, median, mean, a_better: share(a_better), b_better: share(b_better) }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, side) in [("A", &self.a), ("B", &self.b)] {
            writeln!(f, "{name}: {} on {} ({}), {}", side.estimator, side.data, side.scale, side.folder)?;
        }
        if self.a.scale != self.b.scale {
            writeln!(f, "the scales differ: rte_rel does not compare")?;
        }
        writeln!(f, "{} windows; A - B with 95 % intervals of a paired bootstrap\n", self.windows)?;
        writeln!(f, "| | windows | pairs | median A - B | mean A - B | A better | B better |")?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- | --- |")?;
        let interval = |interval: &Option<Interval>| match interval {
            Some(Interval { value, low, high }) => format!("{value:+.4} [{low:+.4}, {high:+.4}]"),
            None => "-".to_owned(),
        };
        let share = |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{share:.3}"));
        for (name, column) in [
            ("RRE, deg", &self.rre_deg),
            ("TDE, deg", &self.tde_deg),
            ("RTE, relative", &self.rte_rel),
            ("parse", &self.parse),
        ] {
            let Difference { pairs, windows, median, mean, a_better, b_better } = column;
            let (median, mean) = (interval(median), interval(mean));
            let (a, b) = (share(*a_better), share(*b_better));
            writeln!(f, "| {name} | {windows} | {pairs} | {median} | {mean} | {a} | {b} |")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Difference;

    #[test]
    fn a_window_that_one_side_alone_answers_counts_for_it() {
        let pairs = [
            (Some(1.0), Some(2.0)),
            (Some(5.0), Some(2.0)),
            (Some(2.0), Some(2.0)),
            (Some(9.0), None),
            (None, None),
            (Some(1.0), Some(4.0)),
        ];
        let less = Difference::new(&pairs, true);
        assert_eq!((less.pairs, less.windows), (4, 5));
        assert_eq!((less.a_better, less.b_better), (Some(0.6), Some(0.2)));
        assert!((less.mean.unwrap().value + 0.25).abs() < 1e-12 && (less.median.unwrap().value + 0.5).abs() < 1e-12);
        let more = Difference::new(&pairs, false);
        assert_eq!((more.a_better, more.b_better), (Some(0.4), Some(0.4)));
        let none = Difference::new(&[(None, None)], true);
        assert_eq!((none.windows, none.a_better, none.median), (0, None, None));
    }
}
