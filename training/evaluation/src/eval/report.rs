//! The figures of a run: as JSON, as the tables that a paper prints, and as the lines that a person reads first.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use geometry::metrics::{Interval, Statistic, bootstrap};
use geometry::{Summary, WINDOW, WindowErrors};
use model::Mode;
use serde::{Deserialize, Serialize};

use super::calibration::{Calibration, pose_errors};
use super::coverage::Coverage;
use super::figures::{Adjusted, digits, or_dash, shown, shown_or_dash};
use super::scale::ScaleFigures;
use super::steps::StepSummary;
use super::{BOOTSTRAP_SEED, Estimator, Origin, Outcome, Settings, StepErrors, steps, strata};
use training_data::Skipped;

/// At which scale translations were judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scale {
    /// The estimate's own.
    #[serde(rename = "as given")]
    AsGiven,
    /// Multiplied by one least-squares factor a window to the truth.
    #[serde(rename = "aligned")]
    Aligned,
}

/// A window that the source could not give.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreadable {
    /// Its number in the source.
    pub index: u64,
    /// Why.
    pub error: String,
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreadableWindows {
    /// How many.
    pub count: usize,
    /// In their order.
    pub windows: Vec<Unreadable>,
}

/// A part of a recording that no window was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedPart {
    /// A file or folder, or how many frames of a sequence.
    pub what: String,
    /// Why.
    pub why: String,
}

/// The figures of a stratum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StratumRow {
    /// Its label.
    pub stratum: String,
    /// Which windows are in it.
    pub definition: String,
    /// How many.
    pub windows: usize,
    /// Share of them with poses.
    pub parse: Option<Interval>,
    /// Median rotation error, degrees.
    pub rre_deg: Option<Interval>,
    /// Median direction error, degrees.
    pub tde_deg: Option<Interval>,
    /// Windows with a direction.
    pub tde_windows: usize,
    /// Area under the curve up to 30 degrees.
    pub auc_30: Option<Interval>,
}

/// How far the answers backwards are from those forwards, turned around.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reversed {
    /// Windows that were asked.
    pub windows: usize,
    /// Windows whose both answers parse.
    pub both_parsed: usize,
    /// Rotation that is left, degrees.
    pub rotation_deg: Statistic,
    /// Direction that is left, degrees.
    pub direction_deg: Statistic,
}

/// Requests that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failures {
    /// Windows without an answer for that.
    pub count: usize,
    /// By what was said.
    pub texts: BTreeMap<String, usize>,
}

/// The model that was asked over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Its name there.
    pub model: String,
    /// What was asked for.
    pub mode: Mode,
    /// Longest answer.
    pub max_tokens: usize,
    /// Whether the form of the answer was explained, the five steps with it where they were asked for.
    pub explained: bool,
}

/// `report.json`: all figures of a run. What is not known is null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What was judged.
    pub estimator: String,
    /// The text of the source of windows.
    pub data: String,
    /// At which scale.
    pub scale: Scale,
    /// Where translations were aligned: windows whose estimate goes the wrong way at any scale.
    pub scale_not_positive: Option<usize>,
    /// Windows that are in no figure.
    pub unreadable: UnreadableWindows,
    /// Recordings, or frames of them, that no window was made of.
    pub skipped: Vec<SkippedPart>,
    /// Whose word the true poses are, where recordings leave a choice: topics, or transforms.
    #[serde(default)]
    pub truth: Vec<String>,
    /// Whether the answers were written under the grammar.
    pub constrained_decoding: bool,
    /// Share of the windows whose answer parses.
    pub final_parse: f64,
    /// The same of what the grammar would let through.
    pub final_parse_constrained: f64,
    /// Share of the windows with poses to judge.
    pub parsed: Option<Interval>,
    /// Share of the windows in which each of the five steps parses; of chains alone.
    pub step_parse: Option<[f64; 5]>,
    /// Time of an answer, milliseconds.
    pub latency_ms_median: Option<f64>,
    /// Errors of the poses.
    pub summary: Summary,
    /// Share of the moving pairs whose direction is within 15 degrees.
    pub tde_within_15: Option<Interval>,
    /// What a camera that never moves would get.
    pub identity: Summary,
    /// The same.
    pub identity_tde_within_15: Option<Interval>,
    /// Errors of the steps of chains.
    pub step_errors: Option<StepSummary>,
    /// What covariance the errors support.
    pub calibration: Option<Calibration>,
    /// How far lengths are off, where films are long enough to tell.
    #[serde(default)]
    pub scale_errors: Option<ScaleFigures>,
    /// A row for each stratum that has a window.
    pub strata: Vec<StratumRow>,
    /// Where windows were asked for backwards too.
    pub reversed: Option<Reversed>,
    /// Of an endpoint: the requests that failed.
    pub errors: Option<Failures>,
    /// The endpoint.
    pub endpoint: Option<Asked>,
    /// Of answers that were adjusted from pictures.
    #[serde(flatten)]
    pub adjusted: Adjusted,
}

impl Report {
    /// Of a run; `failed` is what was said for windows whose request failed.
    pub(super) fn new(
        estimator: &Estimator,
        settings: &Settings<'_>,
        outcomes: &[Outcome],
        unreadable: &[Unreadable],
        origin: &Origin<'_>,
    ) -> Self {
        let errors: Vec<Option<WindowErrors>> = outcomes.iter().map(|o| o.errors.clone()).collect();
        let still: Vec<Option<WindowErrors>> = outcomes.iter().map(|o| Some(o.still.clone())).collect();
        let step_errors: Vec<StepErrors> = outcomes.iter().map(|o| o.estimate.step_errors.clone()).collect();
        let share = |n: usize| n as f64 / outcomes.len() as f64;
        let parses = |k: usize| share(outcomes.iter().filter(|o| o.estimate.parses[k]).count());
        let step = |k: usize| share(outcomes.iter().filter(|o| o.estimate.steps.is_some_and(|s| s[k])).count());
        let chains = outcomes.iter().any(|o| o.estimate.steps.is_some());
        let mut seconds: Vec<f64> = outcomes.iter().filter_map(|o| o.estimate.seconds).collect();
        seconds.sort_by(f64::total_cmp);
        let errors_of = |o: &Outcome| Some(pose_errors(&o.truth, o.estimate.trajectory.as_ref()?));
        let pose_errors: Vec<_> = outcomes.iter().filter_map(errors_of).collect();
        let backwards = || outcomes.iter().filter(|o| o.factor.is_some_and(|factor| factor <= 0.0)).count();
        let part = |s: &Skipped| SkippedPart { what: s.what.clone(), why: s.why.clone() };
        Self {
            estimator: settings.label.to_owned(),
            data: settings.source.to_owned(),
            scale: if settings.up_to_scale { Scale::Aligned } else { Scale::AsGiven },
            scale_not_positive: settings.up_to_scale.then(backwards),
            unreadable: UnreadableWindows { count: unreadable.len(), windows: unreadable.to_vec() },
            skipped: origin.skipped.iter().map(part).collect(),
            truth: origin.truth.clone(),
            constrained_decoding: estimator.constrained(),
            final_parse: parses(0),
            final_parse_constrained: parses(1),
            parsed: parse_share(outcomes.iter()),
            step_parse: chains.then(|| std::array::from_fn(step)),
            latency_ms_median: seconds.get(seconds.len() / 2).map(|s| s * 1e3),
            summary: Summary::new(&errors, BOOTSTRAP_SEED),
            tde_within_15: found_share(outcomes, false),
            identity: Summary::new(&still, BOOTSTRAP_SEED),
            identity_tde_within_15: found_share(outcomes, true),
            step_errors: steps::summary(&step_errors, BOOTSTRAP_SEED),
            scale_errors: ScaleFigures::new(outcomes),
            calibration: Calibration::new(&pose_errors, settings.sigmas.as_ref(), settings.source, BOOTSTRAP_SEED),
            strata: of_strata(outcomes),
            reversed: settings.reversed.then(|| reversed(outcomes)),
            errors: None,
            endpoint: None,
            adjusted: Adjusted::new(outcomes),
        }
    }
}

/// The share of windows with poses to judge.
fn parse_share<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> Option<Interval> {
    let parsed: Vec<f64> = outcomes.map(|o| f64::from(u8::from(o.errors.is_some()))).collect();
    Statistic::new(&parsed, BOOTSTRAP_SEED).mean
}

/// The share of the moving pairs of all windows whose direction was found within 15 degrees, those of unparsed windows
/// being misses. Windows are what is drawn for the interval: pairs of one window go together.
fn found_share(outcomes: &[Outcome], of_identity: bool) -> Option<Interval> {
    let count = |outcome: &Outcome| {
        let errors = if of_identity { Some(&outcome.still) } else { outcome.errors.as_ref() };
        (errors.map_or(0, |errors| errors.tde_found_pairs), WINDOW - 1 - outcome.still.still_pairs)
    };
    let windows: Vec<(usize, usize)> = outcomes.iter().map(count).collect();
    bootstrap(&windows, BOOTSTRAP_SEED, |windows| {
        let (found, moving) = windows.iter().fold((0, 0), |sum, window| (sum.0 + window.0, sum.1 + window.1));
        (moving > 0).then(|| found as f64 / moving as f64)
    })
}

/// A row for each stratum that has a window.
fn of_strata(outcomes: &[Outcome]) -> Vec<StratumRow> {
    let row = |group: strata::Members| {
        let members: Vec<&Outcome> = group.members.iter().map(|&k| &outcomes[k]).collect();
        let errors: Vec<Option<WindowErrors>> = members.iter().map(|o| o.errors.clone()).collect();
        let summary = Summary::new(&errors, BOOTSTRAP_SEED);
        StratumRow {
            stratum: group.name.to_owned(),
            definition: group.definition.to_owned(),
            windows: members.len(),
            parse: parse_share(members.iter().copied()),
            rre_deg: summary.rre_deg.median,
            tde_deg: summary.tde_deg.median,
            tde_windows: summary.tde_deg.count,
            auc_30: summary.auc_30,
        }
    };
    strata::grouped(outcomes).into_iter().map(row).collect()
}

/// How far the answers backwards are from those forwards, turned around.
fn reversed(outcomes: &[Outcome]) -> Reversed {
    let residuals: Vec<&WindowErrors> = outcomes.iter().filter_map(|o| o.residual.as_ref()).collect();
    let rotation: Vec<f64> = residuals.iter().map(|e| e.rre_deg).collect();
    let direction: Vec<f64> = residuals.iter().filter_map(|e| e.tde_deg).collect();
    Reversed {
        windows: outcomes.len(),
        both_parsed: residuals.len(),
        rotation_deg: Statistic::new(&rotation, BOOTSTRAP_SEED),
        direction_deg: Statistic::new(&direction, BOOTSTRAP_SEED),
    }
}

type Column = fn(&Summary) -> &Statistic;

/// Columns of Table 1 with a median and a mean: heading, unit.
const COLUMNS: [(Column, &str, &str); 7] = [
    (|s| &s.rre_deg, "RRE", "deg"),
    (|s| &s.rte_abs, "RTE, absolute", "scene units"),
    (|s| &s.rte_rel, "RTE, relative", "of the true length"),
    (|s| &s.mag_log, "RTE, log of lengths", ""),
    (|s| &s.tde_deg, "TDE", "deg"),
    (|s| &s.ate, "ATE, SE(3)", "scene units"),
    (|s| &s.ate_sim3, "ATE, Sim(3)", "scene units"),
];

type StepColumn = fn(&StepSummary) -> &Statistic;

/// Errors of the steps: step (from 1), heading, and name and unit for a line.
const STEPS: [(usize, StepColumn, &str, &str, &str); 9] = [
    (1, |s| &s.epipolar_px, "distance from the epipolar line, px", "epipolar_px", "step 1, px"),
    (2, |s| &s.depth_abs_rel, "depth, relative", "depth_abs_rel", "step 2"),
    (3, |s| &s.point_rel, "point, relative", "point_rel", "step 3"),
    (4, |s| &s.own_rre_deg, "rotation from its own points, deg", "own_rre_deg", "step 4 from its own points, deg"),
    (4, |s| &s.own_rte_abs, "translation from its own points, scene units", "own_rte_abs", "the same, scene units"),
    (4, |s| &s.own_rte_rel, "the same, of the true length", "own_rte_rel", "the same, of the true length"),
    (4, |s| &s.printed_rre_deg, "rotation as printed, deg", "printed_rre_deg", "step 4 as printed, deg"),
    (4, |s| &s.printed_rte_abs, "translation as printed, scene units", "printed_rte_abs", "the same, scene units"),
    (4, |s| &s.printed_rte_rel, "the same, of the true length", "printed_rte_rel", "the same, of the true length"),
];

/// The tables of a report in Markdown: headline, steps of chains, strata, and backwards where that was asked for.
pub fn tables(report: &Report) -> String {
    let mut text = String::new();
    let (summary, identity) = (&report.summary, &report.identity);
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "# {} on {}\n\n{} windows, translations {}. Brackets: 95 % bootstrap intervals over windows. Errors are of the \
         poses of frames 1 to 4 in frame 0, averaged within a window.\nA window that does not parse has no error and \
         is a miss in every share and AUC. Still pairs ({} of {}) have no direction and no relative length.",
        report.estimator,
        report.data,
        summary.windows,
        match report.scale {
            Scale::Aligned => "multiplied by one factor a window to fit the truth",
            Scale::AsGiven => "as given",
        },
        summary.still_pairs,
        summary.pairs,
    );
    if report.unreadable.count != 0 {
        let _ = writeln!(text, "\n**{} windows could not be read** and are in no table.", report.unreadable.count);
        for Unreadable { index, error } in &report.unreadable.windows {
            let _ = writeln!(text, "- {index}: {error}");
        }
    }
    if !report.skipped.is_empty() {
        let _ = writeln!(text, "\nOf the recordings, {} parts were skipped (see report.json).", report.skipped.len());
    }
    if !report.truth.is_empty() {
        let _ = writeln!(text, "\nThe true poses are those of {}.", report.truth.join(", "));
    }
    text.push_str("\n## Table 1: headline\n| | unit | windows | median | mean | a camera that never moves |\n");
    text.push_str("| --- | --- | --- | --- | --- | --- |\n");
    let whole = Interval { value: 1.0, low: 1.0, high: 1.0 };
    for (heading, ours, still) in [
        ("parse", &report.parsed, &Some(whole)),
        ("TDE <= 15 deg, of moving pairs", &report.tde_within_15, &report.identity_tde_within_15),
        ("AUC@5", &summary.auc_5, &identity.auc_5),
        ("AUC@10", &summary.auc_10, &identity.auc_10),
        ("AUC@30", &summary.auc_30, &identity.auc_30),
    ] {
        let (ours, still) = (shown_or_dash(ours.as_ref()), shown_or_dash(still.as_ref()));
        let _ = writeln!(text, "| {heading} | share | {} | | {ours} | {still} |", summary.windows);
    }
    for (column, heading, unit) in COLUMNS {
        let (ours, still) = (column(summary), shown_or_dash(column(identity).median.as_ref()));
        let (median, mean) = (shown_or_dash(ours.median.as_ref()), shown_or_dash(ours.mean.as_ref()));
        let _ = writeln!(text, "| {heading} | {unit} | {} | {median} | {mean} | {still} |", ours.count);
    }
    let _ = writeln!(
        text,
        "\nThe last column is a share or a median. final_parse: {} without and {} with the grammar; this run: {}.",
        digits(report.final_parse),
        digits(report.final_parse_constrained),
        if report.constrained_decoding { "with" } else { "without" },
    );
    report.adjusted.sentences(&mut text);
    covariance_table(report, &mut text);
    steps_table(report, &mut text);
    strata_table(report, &mut text);
    if let Some(backwards) = &report.reversed {
        let _ = writeln!(
            text,
            "\n## Backwards\nThe same windows in reverse order: both answers parse in {} of {}. What is left of one \
             behind the other, median: rotation {} deg, direction {} deg.",
            backwards.both_parsed,
            backwards.windows,
            shown_or_dash(backwards.rotation_deg.median.as_ref()),
            shown_or_dash(backwards.direction_deg.median.as_ref()),
        );
    }
    text
}

/// How large the errors are frame by frame, and whether covariances say so.
fn covariance_table(report: &Report, text: &mut String) {
    let Some(calibration) = &report.calibration else { return };
    text.push_str("\n## Covariance\nNEES of six degrees of freedom is 6 where a covariance is right, more where it is too sure.\n");
    text.push_str("| | NEES | within 68 % | within 95 % |\n| --- | --- | --- | --- |\n");
    let own = report.adjusted.own_covariance.as_ref();
    for (coverage, heading) in [
        (calibration.given_coverage.as_ref(), "given"),
        (Some(&calibration.supported_coverage), "what these windows support"),
        (own.map(|own| &own.coverage), "the answers' own"),
    ] {
        if let Some(Coverage { nees, within_68, within_95, .. }) = coverage {
            let _ = writeln!(text, "| {heading} | {} | {} | {} |", shown(nees), shown(within_68), shown(within_95));
        }
    }
    if let Some(own) = own {
        let frames = own.coverage.nees_of_frame.each_ref().map(shown).join(", ");
        let _ = writeln!(
            text,
            "\nOf {} windows, {} of them a turn without a translation, judged by its rotation (three degrees of freedom, \
             brought to six). NEES of frames 1 to 4: {frames}; median {}.",
            own.windows,
            own.turned,
            digits(own.nees_median)
        );
    }
    let _ = writeln!(text, "\n```toml\n{}```", calibration.toml);
}

fn steps_table(report: &Report, text: &mut String) {
    text.push_str("\n## Table 2: steps of the chain\n");
    let Some(parse) = &report.step_parse else {
        text.push_str("No chains in these answers.\n");
        return;
    };
    text.push_str("| step | parse | error | values | median | mean |\n| --- | --- | --- | --- | --- | --- |\n");
    for (step, column, heading, ..) in STEPS {
        let errors = report.step_errors.as_ref().map(column);
        let (parse, count) = (digits(parse[step - 1]), errors.map_or(0, |errors| errors.count));
        let median = shown_or_dash(errors.and_then(|errors| errors.median.as_ref()));
        let mean = shown_or_dash(errors.and_then(|errors| errors.mean.as_ref()));
        let _ = writeln!(text, "| {step} | {parse} | {heading} | {count} | {median} | {mean} |");
    }
    let _ = writeln!(text, "| 5 | {} | (prose) | | | |", digits(parse[4]));
    let (parse, summary) = (or_dash(report.parsed.map(|parsed| parsed.value)), &report.summary);
    for (errors, heading) in [
        (&summary.rre_deg, "rotation, deg"),
        (&summary.rte_abs, "translation, scene units"),
        (&summary.rte_rel, "translation, of the true length"),
    ] {
        let [median, mean] = [&errors.median, &errors.mean].map(|interval| shown_or_dash(interval.as_ref()));
        let _ = writeln!(text, "| poses | {parse} | {heading} | {} | {median} | {mean} |", errors.count);
    }
    if let Some(errors) = &report.step_errors {
        let [outside, depth, point] = [&errors.outside, &errors.depth_within_10, &errors.point_within_10]
            .map(|interval| shown_or_dash(interval.as_ref()));
        let _ = writeln!(
            text,
            "\nOf {} printed pixels, outside the picture: {outside}. They have no depth to be judged by and are misses: depths \
             within 10 %: {depth}; points within 10 %: {point}.",
            errors.points
        );
    }
}

fn strata_table(report: &Report, text: &mut String) {
    text.push_str("\n## Strata\nFrom the ground truth and the pixels alone; medians.\n");
    text.push_str("| stratum | windows | parse | RRE, deg | TDE, deg | with a direction | AUC@30 | which |\n");
    text.push_str("| --- | --- | --- | --- | --- | --- | --- | --- |\n");
    for row in &report.strata {
        let [parse, rre, tde, auc] =
            [&row.parse, &row.rre_deg, &row.tde_deg, &row.auc_30].map(|interval| shown_or_dash(interval.as_ref()));
        let StratumRow { stratum, definition, windows, tde_windows, .. } = row;
        let _ = writeln!(
            text,
            "| {stratum} | {windows} | {parse} | {rre} | {tde} | {tde_windows} | {auc} | {definition} |"
        );
    }
}

/// The figures of a report that a person reads first.
pub fn table(report: &Report) -> String {
    let summary = &report.summary;
    let mut text = format!(
        "{} on {}\n{} windows, final_parse {:.3} ({:.3} under the grammar), {} of {} pairs still\n",
        report.estimator,
        report.data,
        summary.windows,
        report.final_parse,
        report.final_parse_constrained,
        summary.still_pairs,
        summary.pairs,
    );
    if report.scale == Scale::Aligned {
        text.push_str("translations are multiplied by one factor a window to fit the truth\n");
    }
    if report.unreadable.count != 0 {
        let _ = writeln!(text, "{} windows could not be read", report.unreadable.count);
    }
    if !report.truth.is_empty() {
        let _ = writeln!(text, "the true poses are those of {}", report.truth.join(", "));
    }
    if let Some(parse) = &report.step_parse {
        let _ = writeln!(text, "step_parse {}", parse.map(|share| format!("{share:.3}")).join(" "));
    }
    text.push_str("                  median [95 %]                mean [95 %]\n");
    let part = |interval: &Option<Interval>| match interval {
        Some(Interval { value, low, high }) => format!("{:>8} [{low:.3}, {high:.3}]", format!("{value:.3}")),
        None => format!("{:>8} [-, -]", "-"),
    };
    let mut lines: Vec<(&str, &Statistic, &str)> = vec![
        ("rre_deg", &summary.rre_deg, "deg"),
        ("tde_deg", &summary.tde_deg, "deg"),
        ("rte_abs", &summary.rte_abs, "scene units"),
        ("rte_rel", &summary.rte_rel, ""),
        ("mag_log", &summary.mag_log, ""),
        ("ate", &summary.ate, "scene units"),
        ("ate_sim3", &summary.ate_sim3, "scene units"),
    ];
    if let Some(errors) = &report.step_errors {
        lines.extend(STEPS.map(|(_, column, _, name, unit)| (name, column(errors), unit)));
    }
    if let Some(Reversed { rotation_deg, direction_deg, .. }) = &report.reversed {
        lines.push(("rotation_deg", rotation_deg, "backwards against forwards, deg"));
        lines.push(("direction_deg", direction_deg, "backwards against forwards, deg"));
    }
    for (name, statistic, unit) in lines {
        let _ = writeln!(text, "{name:<16} {:<28} {:<28} {unit}", part(&statistic.median), part(&statistic.mean));
    }
    let within = summary.tde_within_15_share.map_or("-".to_owned(), |share| format!("{share:.3}"));
    let _ = writeln!(text, "tde <= 15 deg    {within:>8}");
    for (name, interval) in [("auc_5", &summary.auc_5), ("auc_10", &summary.auc_10), ("auc_30", &summary.auc_30)] {
        let _ = writeln!(text, "{name:<16} {}", part(interval));
    }
    if let Some(ScaleFigures { noise, bias, windows, films }) = &report.scale_errors {
        let _ = writeln!(
            text,
            "scale            log(length said / true): noise of a window {noise:.3}, bias of a film {bias:.3}, by {windows} \
             windows of {films} films"
        );
    }
    text
}
