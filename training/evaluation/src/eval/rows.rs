//! The model alone, the program alone, and both together on the same windows, by stratum: what each is worth to the
//! other.
//!
//! `both` must not be worse than the better of the two anywhere. Which of them is the better is told from the same
//! windows, stratum by stratum and column by column, so that the comparison is a little hard on `both`.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail};
use geometry::metrics::{Interval, Statistic};
use geometry::{Summary, WindowErrors};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::calibration::Sigmas;
use super::compare::Difference;
use super::estimator::{Estimator, constant_velocity, three};
use super::figures::{digits, shown_or_dash};
use super::strata::{Members, grouped};
use super::{BOOTSTRAP_SEED, Done, Known, Origin, Outcome, Settings, Unreadable, done, finish, parted, read};
use training_data::json::write_json;
use training_data::{WindowSource, parse_source};

/// The rows of each table, in their order.
const NAMES: [&str; 5] = ["model alone", "program alone", "both", "identity", "constant velocity"];
const MODEL: usize = 0;
const PROGRAM: usize = 1;
const BOTH: usize = 2;

/// The estimator whose poses are refined.
pub(super) struct Judged {
    /// It alone.
    pub model: Estimator,
    /// What is believed of its errors.
    pub sigmas: Sigmas,
    /// Whether the refined poses are what the run is about, and not the estimator's.
    pub headline: bool,
}

/// The rows of a run: `rows.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rows {
    /// What the model is.
    pub estimator: String,
    /// Text of the source of windows.
    pub data: String,
    /// Windows, the same in all rows.
    pub windows: usize,
    /// All windows, then every stratum that has one.
    pub groups: Vec<Group>,
    /// Seed of the intervals.
    pub seed: u64,
}

/// One table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// `all`, a stratum, or `synth:` and a stratum of the generator.
    pub stratum: String,
    /// What it is.
    pub definition: String,
    /// Windows in it.
    pub windows: usize,
    /// Model, program, both, identity, constant velocity.
    pub rows: Vec<Row>,
    /// Both, less the better of model and program.
    pub versus: Versus,
}

/// One row: an estimator on the windows of a stratum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Which.
    pub name: String,
    /// Share of the windows with poses.
    pub answered: Option<Interval>,
    /// Median rotation error of the answered windows, degrees.
    pub rre_deg: Option<Interval>,
    /// Median direction error of the answered windows that move, degrees.
    pub tde_deg: Option<Interval>,
    /// Over all windows; one without an answer is a miss.
    pub auc_10: Option<Interval>,
    /// The same up to 30 degrees.
    pub auc_30: Option<Interval>,
}

/// Both against the better of the two, column by column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Versus {
    /// Rotation error, degrees.
    pub rre_deg: Against,
    /// Direction error, degrees.
    pub tde_deg: Against,
    /// AUC@10 of each window.
    pub auc_10: Against,
    /// AUC@30 of each window.
    pub auc_30: Against,
}

/// Both less the better of the two in one column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Against {
    /// Which of the two is the better: the smaller median error, the larger mean AUC. The program where they are even;
    /// `None` where neither has a value.
    pub better: Option<String>,
    /// Windows that both sides have a value of.
    pub pairs: usize,
    /// Both less the better: the median of errors, the mean of AUCs, with the interval of a paired bootstrap.
    pub difference: Option<Interval>,
    /// What the interval says.
    pub mark: Mark,
}

/// What an interval of a difference says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// Both is better, and zero is outside the interval.
    Better,
    /// Both is worse, and zero is outside the interval.
    Worse,
    /// Zero is inside, or there is nothing to compare.
    Even,
}

impl Mark {
    fn new(difference: Option<&Interval>, less: bool) -> Self {
        match difference {
            Some(interval) if interval.low > 0.0 => [Self::Better, Self::Worse][usize::from(less)],
            Some(interval) if interval.high < 0.0 => [Self::Worse, Self::Better][usize::from(less)],
            _ => Self::Even,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Better => " **better**",
            Self::Worse => " **WORSE**",
            Self::Even => "",
        }
    }
}

/// The errors of one row, window by window.
type Column = Vec<Option<WindowErrors>>;

impl Rows {
    /// `groups` are places in `columns`, which are those of model, program, both, identity and constant velocity.
    fn new(settings: &Settings<'_>, columns: &[Column; 5], groups: &[Members]) -> Self {
        let windows = columns[MODEL].len();
        let all =
            Members { name: "all".to_owned(), definition: "every window".to_owned(), members: (0..windows).collect() };
        let group = |group: &Members| {
            let own: [Column; 5] =
                columns.each_ref().map(|column| group.members.iter().map(|&k| column[k].clone()).collect());
            Group {
                stratum: group.name.clone(),
                definition: group.definition.clone(),
                windows: group.members.len(),
                rows: NAMES.iter().zip(&own).map(|(name, column)| Row::new(name, column)).collect(),
                versus: Versus::new(&own),
            }
        };
        Self {
            estimator: settings.label.to_owned(),
            data: settings.source.to_owned(),
            windows,
            groups: std::iter::once(&all).chain(groups).map(group).collect(),
            seed: BOOTSTRAP_SEED,
        }
    }

    /// The tables in Markdown.
    pub fn markdown(&self) -> String {
        // Writing to a String cannot fail.
        let mut text = String::new();
        let _ = writeln!(
            text,
            "# Model, program and both: {} on {}\n\n{} windows, the same in all rows. Medians over answered windows, AUC over \
             all; brackets are 95 % bootstrap intervals over windows. The last row of each table is `both` less the better of \
             model and program in that column, window by window: a median of errors, a mean of AUCs. It is marked where zero is \
             outside the interval.",
            self.estimator, self.data, self.windows
        );
        let marked: Vec<&Group> = self.groups.iter().filter(|group| group.versus.is_worse()).collect();
        let _ = match marked.is_empty() {
            true => writeln!(text, "\n`both` is significantly worse than the better of the two nowhere."),
            false => {
                let names = marked.iter().map(|group| group.stratum.as_str()).collect::<Vec<_>>().join(", ");
                writeln!(text, "\n**`both` is significantly worse than the better of the two in: {names}.**")
            }
        };
        for group in &self.groups {
            let _ = writeln!(text, "\n## {}: {} windows\n{}.\n", group.stratum, group.windows, group.definition);
            text.push_str(
                "| | answered | RRE, deg | TDE, deg | AUC@10 | AUC@30 |\n| --- | --- | --- | --- | --- | --- |\n",
            );
            for row in &group.rows {
                let cells = [&row.answered, &row.rre_deg, &row.tde_deg, &row.auc_10, &row.auc_30];
                let cells = cells.map(|cell| shown_or_dash(cell.as_ref())).join(" | ");
                let _ = writeln!(text, "| {} | {cells} |", row.name);
            }
            let Versus { rre_deg, tde_deg, auc_10, auc_30 } = &group.versus;
            let cells = [rre_deg, tde_deg, auc_10, auc_30].map(Against::text).join(" | ");
            let _ = writeln!(text, "| both - better | | {cells} |");
        }
        text
    }
}

impl Row {
    fn new(name: &str, column: &Column) -> Self {
        let summary = Summary::new(column, BOOTSTRAP_SEED);
        let answered: Vec<f64> = column.iter().map(|errors| f64::from(u8::from(errors.is_some()))).collect();
        Self {
            name: name.to_owned(),
            answered: Statistic::new(&answered, BOOTSTRAP_SEED).mean,
            rre_deg: summary.rre_deg.median,
            tde_deg: summary.tde_deg.median,
            auc_10: summary.auc_10,
            auc_30: summary.auc_30,
        }
    }
}

impl Versus {
    fn new(columns: &[Column; 5]) -> Self {
        let of = |value: &dyn Fn(&WindowErrors) -> Option<f64>| -> [Vec<Option<f64>>; 3] {
            [MODEL, PROGRAM, BOTH].map(|k| columns[k].iter().map(|errors| value(errors.as_ref()?)).collect())
        };
        // A window without an answer is ten misses.
        let auc = |threshold: f64| -> [Vec<Option<f64>>; 3] {
            let one = |errors: &Option<WindowErrors>| Some(errors.as_ref().map_or(0.0, |e| e.auc(threshold)));
            [MODEL, PROGRAM, BOTH].map(|k| columns[k].iter().map(one).collect())
        };
        Self {
            rre_deg: Against::new(&of(&|errors| Some(errors.rre_deg)), true),
            tde_deg: Against::new(&of(&|errors| errors.tde_deg), true),
            auc_10: Against::new(&auc(10.0), false),
            auc_30: Against::new(&auc(30.0), false),
        }
    }

    fn is_worse(&self) -> bool {
        [&self.rre_deg, &self.tde_deg, &self.auc_10, &self.auc_30].iter().any(|one| one.mark == Mark::Worse)
    }
}

impl Against {
    /// Of model, program and both; `less` where the smaller is the better, which is judged by medians, and else by means.
    fn new(columns: &[Vec<Option<f64>>; 3], less: bool) -> Self {
        let middle = |k: usize| {
            let values: Vec<f64> = columns[k].iter().copied().flatten().collect();
            let Statistic { median, mean, .. } = Statistic::new(&values, BOOTSTRAP_SEED);
            Some(if less { median?.value } else { -mean?.value })
        };
        let better = match (middle(MODEL), middle(PROGRAM)) {
            (None, None) => None,
            (Some(model), Some(program)) if model < program => Some(MODEL),
            (Some(_), None) => Some(MODEL),
            _ => Some(PROGRAM),
        };
        let Some(better) = better else {
            return Self { better: None, pairs: 0, difference: None, mark: Mark::Even };
        };
        let pairs: Vec<_> = columns[BOTH].iter().copied().zip(columns[better].iter().copied()).collect();
        let Difference { pairs, median, mean, .. } = Difference::new(&pairs, less);
        let difference = if less { median } else { mean };
        Self { better: Some(NAMES[better].to_owned()), pairs, mark: Mark::new(difference.as_ref(), less), difference }
    }

    fn text(&self) -> String {
        let (Some(Interval { value, low, high }), Some(better)) = (&self.difference, &self.better) else {
            return "-".to_owned();
        };
        let signed = |value: f64| format!("{}{}", if value >= 0.0 { "+" } else { "" }, digits(value));
        let better = better.trim_end_matches(" alone");
        format!("{} [{}, {}] ({better}){}", signed(*value), signed(*low), signed(*high), self.mark.text())
    }
}

/// What three estimators and two floors make of a window.
struct Judgement {
    three: [Outcome; 3],
    constant_velocity: WindowErrors,
}

/// Judges all windows of a source three times in one go, and writes to `out`:
/// * `model/`, `program/`, `both/`: the files of a run each, for [`super::compare`] too. The program's translations are
///   always multiplied by one factor a window, since it knows no lengths;
/// * `rows.json` and `rows.md`;
/// * the files of a run of what [`Judged::headline`] says.
///
/// # Errors
/// Those of [`super::run_with`].
pub(super) fn run(judged: &Judged, settings: &Settings<'_>, out: &Path) -> Result<Done> {
    let windows = parse_source(settings.source)?;
    if windows.is_empty() {
        bail!("{}: no windows", settings.source);
    }
    let all = (0..windows.len())
        .into_par_iter()
        .map(|index| judge(judged, settings, &windows, index))
        .collect::<Result<Vec<_>>>()?;
    let (all, unreadable) = parted(all);
    let mut constant = Vec::with_capacity(all.len());
    let (mut model, mut program, mut both) = (Vec::new(), Vec::new(), Vec::new());
    for Judgement { three: [a, b, c], constant_velocity } in all {
        constant.push(Some(constant_velocity));
        model.push(a);
        program.push(b);
        both.push(c);
    }
    let refined = format!("{}, refined", settings.label);
    let scaled = Settings { label: "tracks", up_to_scale: true, sigmas: None, ..*settings };
    let of_both = Settings { label: &refined, sigmas: None, ..*settings };
    let origin = Origin { skipped: windows.skipped(), truth: windows.truth() };
    let write = |estimator: &Estimator, settings: &Settings<'_>, outcomes: &[Outcome], out: &Path| {
        finish(estimator, settings, outcomes, &unreadable, &origin, out)
    };
    let asked = write(&judged.model, settings, &model, &out.join("model"))?;
    write(&Estimator::Tracks, &scaled, &program, &out.join("program"))?;
    write(&Estimator::Tracks, &of_both, &both, &out.join("both"))?;
    let mut report = match judged.headline {
        true => write(&Estimator::Tracks, &of_both, &both, out)?,
        false => write(&judged.model, settings, &model, out)?,
    };
    let errors = |outcomes: &[Outcome]| -> Column { outcomes.iter().map(|o| o.errors.clone()).collect() };
    let identity = model.iter().map(|o| Some(o.still.clone())).collect();
    let columns = [errors(&model), errors(&program), errors(&both), identity, constant];
    let rows = Rows::new(settings, &columns, &grouped(&model));
    let path = out.join("rows.md");
    let markdown = rows.markdown();
    std::fs::write(&path, &markdown).with_context(|| path.display().to_string())?;
    write_json(&out.join("rows.json"), &serde_json::to_value(&rows)?)?;
    report.errors = asked.errors;
    let Done { text, complete } = done(&report);
    // The first table is that of all windows.
    let first = markdown.split("\n## ").nth(1).unwrap_or_default();
    Ok(Done { text: format!("{text}\n{first}\nby stratum: {}\n", path.display()), complete })
}

fn judge(
    judged: &Judged,
    settings: &Settings<'_>,
    windows: &WindowSource,
    index: u64,
) -> Result<Result<Judgement, Unreadable>> {
    let sample = match read(windows, index) {
        Ok(sample) => sample,
        Err(window) => return Ok(Err(window)),
    };
    let answers = three(&judged.model, &judged.sigmas, &sample).with_context(|| sample.id.clone())?;
    let known = Known::new(&sample, windows.stratum());
    let constant_velocity = WindowErrors::new(&known.truth, &constant_velocity(&known.truth), known.scale);
    let three = [
        known.judged(answers.model, settings.up_to_scale),
        known.judged(answers.program, true),
        known.judged(answers.both, settings.up_to_scale),
    ];
    Ok(Ok(Judgement { three, constant_velocity }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use geometry::{SceneScale, Transform, WINDOW, WindowTrajectory};
    use nalgebra::{Isometry3, Vector3};

    /// Windows that move along z and whose answer turns by so many degrees about y too much in every frame.
    fn column(degrees: impl Fn(usize) -> Option<f64>) -> Column {
        let moved = |turn: f64| {
            let mut window = WindowTrajectory::identity();
            for i in 1..WINDOW {
                let t = Vector3::new(0.0, 0.0, 0.1 * i as f64);
                window.later_mut()[i - 1] =
                    Transform::from_isometry_unchecked(Isometry3::new(t, Vector3::new(0.0, turn.to_radians(), 0.0)));
            }
            window
        };
        let scale = SceneScale { metric: true, median_depth: None };
        (0..40).map(|k| Some(WindowErrors::new(&moved(0.0), &moved(degrees(k)?), scale))).collect()
    }

    fn rows(model: Column, program: Column, both: Column) -> Rows {
        let columns = [model, program, both, column(|_| Some(20.0)), column(|_| Some(10.0))];
        let half = Members { name: "half".into(), definition: "the first".into(), members: (0..20).collect() };
        Rows::new(&Settings::new("a model", "a test"), &columns, &[half])
    }

    /// A little different in each window.
    fn about(degrees: f64) -> impl Fn(usize) -> Option<f64> {
        move |k| Some(degrees + 0.01 * (k % 7) as f64)
    }

    #[test]
    fn the_winner_of_each_stratum_is_found_and_both_is_held_against_it() {
        // In the first half the program is the better, in the second the model; both takes the better, less a bit.
        let better = |k: usize| if k < 20 { (4.0, 1.0) } else { (2.0, 5.0) };
        let wins = rows(
            column(|k| about(better(k).0)(k)),
            column(|k| about(better(k).1)(k)),
            column(|k| about(better(k).0.min(better(k).1) - 0.5)(k)),
        );
        let [all, half] = wins.groups.as_slice() else { panic!("two groups") };
        assert_eq!((all.stratum.as_str(), all.windows, half.windows), ("all", 40, 20));
        let names: Vec<&str> = half.rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, NAMES);
        assert!((half.rows[1].rre_deg.unwrap().value - 1.03).abs() < 1e-6, "{half:?}");
        assert!((half.rows[3].rre_deg.unwrap().value - 20.0).abs() < 1e-6);
        let against = &half.versus.rre_deg;
        assert_eq!((against.better.as_deref(), against.mark, against.pairs), (Some("program alone"), Mark::Better, 20));
        assert!((against.difference.unwrap().value + 0.5).abs() < 1e-6, "{against:?}");
        assert_eq!(half.versus.auc_10.mark, Mark::Better);
        assert!(!wins.markdown().contains("WORSE") && wins.markdown().contains("**better**"), "{}", wins.markdown());
        // What is as good as the better is neither.
        let same = rows(column(about(3.0)), column(about(1.0)), column(about(1.0)));
        assert_eq!(same.groups[0].versus.rre_deg.mark, Mark::Even);
        // The mean of the two is worse than the better of them, although better than the model.
        let mean = rows(column(about(3.0)), column(about(1.0)), column(about(2.0)));
        let versus = &mean.groups[0].versus;
        assert_eq!(
            (versus.rre_deg.mark, versus.auc_10.mark, versus.auc_30.mark),
            (Mark::Worse, Mark::Worse, Mark::Worse)
        );
        assert!(mean.markdown().contains("worse than the better of the two in: all, half"), "{}", mean.markdown());
    }

    #[test]
    fn windows_without_an_answer_are_misses() {
        // The program is precise where it answers, a quarter of the windows.
        let few = column(|k| (k % 4 == 0).then_some(0.1));
        let got = rows(column(about(3.0)), few.clone(), few);
        let all = &got.groups[0];
        assert!((all.rows[1].answered.unwrap().value - 0.25).abs() < 1e-12, "{all:?}");
        assert_eq!(all.versus.rre_deg.better.as_deref(), Some("program alone"));
        assert_eq!((all.versus.rre_deg.pairs, all.versus.rre_deg.mark), (10, Mark::Even));
        // Over all windows it is not, and who answers no more than it is worse than the model.
        assert_eq!(all.versus.auc_30.better.as_deref(), Some("model alone"));
        assert_eq!((all.versus.auc_30.pairs, all.versus.auc_30.mark), (40, Mark::Worse));
        let none = rows(column(|_| None), column(|_| None), column(|_| None));
        let against = &none.groups[0].versus.tde_deg;
        assert_eq!((against.better.as_deref(), against.mark), (None, Mark::Even));
        assert!(none.markdown().contains("| both - better | | - | - |"), "{}", none.markdown());
    }
}
