//! The tables and the figure of EgoReasoner (section 4), of runs of `eval` side by side: Table 1 on all windows and on those that
//! every run's answers parse in, Figure 2 on the latter, and Table 2 step by step.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use geometry::metrics::{Interval, Statistic, TDE_FOUND_DEG};
use serde::Deserialize;

use super::BOOTSTRAP_SEED;
use super::compare::{lines, same_windows};
use super::figures::shown;
use super::files::JudgedLine;
use super::plot::{Errors, Panel, distributions};
use super::report::Scale;
use super::steps::StepSummary;
use crate::curves::COLOURS;
use training_data::json::{read, write_whole};

/// The arguments of the verb `tables egoreasoner`.
#[derive(Debug, Clone, clap::Args)]
pub struct TablesArgs {
    /// Output folders of eval on the same windows, a column each: FOLDER, or NAME=FOLDER to have it called so. The paper's
    /// Table 1 has four: the base model, a model behind an API, SFT, SFT and GRPO.
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<String>,
    /// The columns of Table 2, where chains were judged on other windows (--mode full_chain); the same runs without it.
    #[arg(long, num_args = 1.., value_name = "RUN")]
    pub steps: Vec<String>,
    /// Folder of egoreasoner.md and figure2.png.
    #[arg(long, default_value = "runs/tables")]
    pub out: PathBuf,
}

/// What is read of a run's `report.json`.
#[derive(Debug, Deserialize)]
struct Heading {
    estimator: String,
    data: String,
    scale: Scale,
    constrained_decoding: bool,
    step_errors: Option<StepSummary>,
}

/// A column.
struct Run {
    name: String,
    folder: PathBuf,
    heading: Heading,
    windows: BTreeMap<String, JudgedLine>,
}

/// Which of two figures is the better one.
#[derive(Clone, Copy)]
enum Better {
    Less,
    More,
}

/// A figure of every run.
struct Row {
    heading: String,
    unit: &'static str,
    better: Better,
    cells: Vec<Option<Interval>>,
}

type Value = fn(&JudgedLine) -> Option<f64>;
type Pick = fn(&Statistic) -> Option<Interval>;
const MEDIAN: Pick = |statistic| statistic.median;
const MEAN: Pick = |statistic| statistic.mean;

/// Rows of Table 1 that are of poses: heading, unit.
const POSES: [(&str, &str, Value, Pick); 10] = [
    ("ATE, SE(3), median", "scene units", |line| line.ate, MEDIAN),
    ("ATE, Sim(3), median", "scene units", |line| line.ate_sim3, MEDIAN),
    ("RRE, median", "deg", |line| line.rre_deg, MEDIAN),
    ("RRE, mean", "deg", |line| line.rre_deg, MEAN),
    ("RTE, absolute, median", "scene units", |line| line.rte_abs, MEDIAN),
    ("RTE, relative, median", "of the true length", |line| line.rte_rel, MEDIAN),
    ("RTE, log of lengths, median", "", |line| line.mag_log, MEDIAN),
    ("RTE, absolute, mean", "scene units", |line| line.rte_abs, MEAN),
    ("TDE, median", "deg", |line| line.tde_deg, MEDIAN),
    ("TDE, mean", "deg", |line| line.tde_deg, MEAN),
];

/// Panels of Figure 2: title, unit, where the axis ends at the earliest.
const PANELS: [(&str, &str, Value, f64); 4] = [
    ("rotation error", "RRE, deg", |line| line.rre_deg, 1.0),
    ("translation error", "RTE, scene units", |line| line.rte_abs, 1e-3),
    ("trajectory error after SE(3)", "ATE, scene units", |line| line.ate, 1e-3),
    ("direction error of windows that move", "TDE, deg", |line| line.tde_deg, 180.0),
];

type StepValue = fn(&StepSummary) -> Option<Interval>;

/// Rows of Table 2 behind the parse of their step, counted from 1: heading, unit, which is better.
const STEPS: [(usize, &str, &str, Better, StepValue); 14] = [
    (1, "printed pixels outside the picture", "share", Better::Less, |s| s.outside),
    (1, "distance from the epipolar line, mean", "px", Better::Less, |s| s.epipolar_px.mean),
    (1, "distance from the epipolar line, median", "px", Better::Less, |s| s.epipolar_px.median),
    (2, "depth within 10 %", "share", Better::More, |s| s.depth_within_10),
    (2, "depth, mean", "relative", Better::Less, |s| s.depth_abs_rel.mean),
    (2, "depth, median", "relative", Better::Less, |s| s.depth_abs_rel.median),
    (3, "point within 10 %", "share", Better::More, |s| s.point_within_10),
    (3, "point, mean", "relative", Better::Less, |s| s.point_rel.mean),
    (3, "point, median", "relative", Better::Less, |s| s.point_rel.median),
    (4, "RTE as printed, absolute, mean", "scene units", Better::Less, |s| s.printed_rte_abs.mean),
    (4, "RTE as printed, relative, mean", "of the true length", Better::Less, |s| s.printed_rte_rel.mean),
    (4, "RTE from its own points, absolute, mean", "scene units", Better::Less, |s| s.own_rte_abs.mean),
    (4, "RTE from its own points, relative, mean", "of the true length", Better::Less, |s| s.own_rte_rel.mean),
    (4, "RRE as printed, median", "deg", Better::Less, |s| s.printed_rre_deg.median),
];

/// The verb `tables egoreasoner`: writes both tables as Markdown and the figure, and gives the Markdown.
///
/// # Errors
/// A folder that is none of `eval`'s, or of an eval that did not write all that is needed; runs on other windows; two runs of
/// one name, or more than there are colours; a file that can't be written.
pub fn egoreasoner(args: &TablesArgs) -> Result<String> {
    let runs = opened(&args.runs)?;
    let chains = if args.steps.is_empty() { None } else { Some(opened(&args.steps)?) };
    let common = common(&runs);
    let text = markdown(&runs, chains.as_deref().unwrap_or(&runs), &common);
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    write_whole(&args.out.join("egoreasoner.md"), text.as_bytes())?;
    distributions(&args.out.join("figure2.png"), (2, 2), &panels(&runs, &common))?;
    Ok(text)
}

/// Reads runs of the same windows.
fn opened(texts: &[String]) -> Result<Vec<Run>> {
    ensure!(texts.len() <= COLOURS.len(), "expected at most {} runs, got {}", COLOURS.len(), texts.len());
    let runs = texts.iter().map(|text| open(text)).collect::<Result<Vec<Run>>>()?;
    let mut names = BTreeSet::new();
    for run in &runs {
        ensure!(names.insert(&run.name), "expected runs of other names (NAME=FOLDER), got two called {}", run.name);
        same_windows((&runs[0].folder, &runs[0].windows), (&run.folder, &run.windows))?;
    }
    Ok(runs)
}

fn open(text: &str) -> Result<Run> {
    let (name, folder) = named(text);
    let heading: Heading = read(&folder.join("report.json"))?;
    let windows = lines(&folder)?;
    for (id, line) in &windows {
        let is_whole = line.moving_pairs.is_some() && (!line.parsed || line.ate.is_some());
        ensure!(
            is_whole,
            "{}: window {id}: expected ate and moving_pairs, got a line of an older eval: run it again",
            folder.join("answers.jsonl").display()
        );
    }
    Ok(Run { name, folder, heading, windows })
}

/// `NAME=FOLDER`, or the name of the folder.
fn named(text: &str) -> (String, PathBuf) {
    let whole = Path::new(text);
    match text.split_once('=') {
        Some((name, folder)) if !whole.is_dir() => (name.to_owned(), PathBuf::from(folder)),
        _ => {
            let name = whole.file_name().map_or_else(|| text.to_owned(), |name| name.to_string_lossy().into_owned());
            (name, whole.to_path_buf())
        }
    }
}

/// The windows that parse in every run.
fn common(runs: &[Run]) -> BTreeSet<String> {
    let parsed = |run: &Run| -> BTreeSet<String> {
        run.windows.iter().filter(|(_, line)| line.parsed).map(|(id, _)| id.clone()).collect()
    };
    let mut all = runs.iter().map(parsed);
    let first = all.next().unwrap_or_default();
    all.fold(first, |common, of_run| common.intersection(&of_run).cloned().collect())
}

impl Run {
    /// Its windows, or those of a set.
    fn lines<'a>(&'a self, of: Option<&'a BTreeSet<String>>) -> Vec<&'a JudgedLine> {
        self.windows.values().filter(|line| of.is_none_or(|of| of.contains(&line.id))).collect()
    }

    /// The share of windows in which a step parses, counted from 1; `None` where the run has no chains.
    fn step_parse(&self, step: usize) -> Option<Interval> {
        let is_chains = self.windows.values().any(|line| line.steps.is_some());
        let parses = |line: &JudgedLine| line.steps.is_some_and(|steps| steps[step - 1]);
        share(self.windows.values().map(parses)).filter(|_| is_chains)
    }

    fn final_parse(&self) -> Option<Interval> {
        share(self.windows.values().map(|line| line.parsed))
    }
}

fn share(hits: impl Iterator<Item = bool>) -> Option<Interval> {
    let hits: Vec<f64> = hits.map(|hit| f64::from(u8::from(hit))).collect();
    Statistic::new(&hits, BOOTSTRAP_SEED).mean
}

fn column(lines: &[&JudgedLine], value: Value) -> Statistic {
    let values: Vec<f64> = lines.iter().filter_map(|line| value(line)).collect();
    Statistic::new(&values, BOOTSTRAP_SEED)
}

fn moves(line: &JudgedLine) -> bool {
    line.moving_pairs.is_some_and(|pairs| pairs > 0)
}

/// The share of the windows that move whose direction error, the mean of the window's ways, is at most 15 degrees; a window
/// without poses is a miss.
fn direction_found(lines: &[&JudgedLine]) -> Option<Interval> {
    let found = |line: &&JudgedLine| line.tde_deg.is_some_and(|tde| tde <= TDE_FOUND_DEG);
    share(lines.iter().filter(|line| moves(line)).map(found))
}

fn panels(runs: &[Run], common: &BTreeSet<String>) -> Vec<Panel> {
    let panel = |(title, unit, value, least): (&'static str, &'static str, Value, f64)| {
        let errors = |(run, colour): (&Run, _)| {
            let values = run.lines(Some(common)).into_iter().filter_map(value).collect();
            Errors { name: run.name.clone(), colour, values }
        };
        let curves: Vec<Errors> = runs.iter().zip(COLOURS).map(errors).collect();
        // Which windows have a direction is the truth's word: the same of every run.
        let windows = curves.first().map_or(0, |curve| curve.values.len());
        Panel { title, unit, least, windows, curves }
    };
    PANELS.map(panel).into()
}

fn markdown(runs: &[Run], chains: &[Run], common: &BTreeSet<String>) -> String {
    let mut text =
        "# EgoReasoner: Tables 1 and 2\n\nBrackets: 95 % bootstrap intervals over windows (of step errors, over \
                    values). Bold: the best of a row.\n"
            .to_owned();
    let all = runs.first().map_or(0, |run| run.windows.len());
    text.push_str("\n## Table 1\n");
    of_runs(&mut text, runs);
    let _ = writeln!(
        text,
        "\n### All {all} windows\nErrors are of the windows that parse in the run; one that does not is a miss in both shares."
    );
    table(&mut text, runs, &pose_rows(runs, None));
    let _ = writeln!(text, "\n### The {} windows that parse in every run\nFigure 2 is of these.", common.len());
    table(&mut text, runs, &pose_rows(runs, Some(common)));
    let windows = chains.first().map_or(0, |run| run.windows.len());
    let _ = writeln!(
        text,
        "\n## Table 2\n{windows} windows, each step judged apart from the others. A depth or point at a pixel outside the \
         picture has no true value: it is a miss in the shares, and in no mean or median."
    );
    of_runs(&mut text, chains);
    text.push('\n');
    table(&mut text, chains, &step_rows(chains));
    text
}

/// What the columns are.
fn of_runs(text: &mut String, runs: &[Run]) {
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "| column | estimator | data | translations | under the grammar |\n| --- | --- | --- | --- | --- |"
    );
    for Run { name, heading, .. } in runs {
        let Heading { estimator, data, scale, constrained_decoding, .. } = heading;
        let scale = match scale {
            Scale::AsGiven => "as given",
            Scale::Aligned => "one factor a window to fit the truth",
        };
        let grammar = if *constrained_decoding { "yes" } else { "no" };
        let _ = writeln!(text, "| {name} | {estimator} | {data} | {scale} | {grammar} |");
    }
}

fn pose_rows(runs: &[Run], of: Option<&BTreeSet<String>>) -> Vec<Row> {
    let lines: Vec<Vec<&JudgedLine>> = runs.iter().map(|run| run.lines(of)).collect();
    let mut rows = Vec::new();
    if of.is_none() {
        let cells = runs.iter().map(Run::final_parse).collect();
        rows.push(Row { heading: "parse".to_owned(), unit: "share", better: Better::More, cells });
    }
    rows.extend(POSES.map(|(heading, unit, value, pick)| {
        let cells = lines.iter().map(|lines| pick(&column(lines, value))).collect();
        Row { heading: heading.to_owned(), unit, better: Better::Less, cells }
    }));
    let moving = lines.first().map_or(0, |lines| lines.iter().filter(|line| moves(line)).count());
    let heading = format!("TDE <= 15 deg, of {moving} windows that move");
    let cells = lines.iter().map(|lines| direction_found(lines)).collect();
    rows.push(Row { heading, unit: "share", better: Better::More, cells });
    rows
}

fn step_rows(runs: &[Run]) -> Vec<Row> {
    let row = |heading: String, unit, better, cells| Row { heading, unit, better, cells };
    let mut rows = Vec::new();
    for step in 1..=4 {
        let parse = runs.iter().map(|run| run.step_parse(step)).collect();
        rows.push(row(format!("S{step}: parse"), "share", Better::More, parse));
        for (_, heading, unit, better, value) in STEPS.into_iter().filter(|(of, ..)| *of == step) {
            let cells = runs.iter().map(|run| value(run.heading.step_errors.as_ref()?)).collect();
            rows.push(row(format!("S{step}: {heading}"), unit, better, cells));
        }
    }
    let summary = runs.iter().map(|run| run.step_parse(5)).collect();
    rows.push(row("S5: parse of the summary".to_owned(), "share", Better::More, summary));
    let poses = runs.iter().map(Run::final_parse).collect();
    rows.push(row("S5: parse of the poses".to_owned(), "share", Better::More, poses));
    let of_poses: [(&str, &str, Value); 3] = [
        ("RRE, median", "deg", |line| line.rre_deg),
        ("RTE, absolute, median", "scene units", |line| line.rte_abs),
        ("RTE, relative, median", "of the true length", |line| line.rte_rel),
    ];
    for (heading, unit, value) in of_poses {
        let cells = runs.iter().map(|run| column(&run.lines(None), value).median).collect();
        rows.push(row(format!("S5: {heading}"), unit, Better::Less, cells));
    }
    rows
}

fn table(text: &mut String, runs: &[Run], rows: &[Row]) {
    let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
    let _ = writeln!(text, "| | unit | {} |\n| --- | --- |{}", names.join(" | "), " --- |".repeat(names.len()));
    for Row { heading, unit, better, cells } in rows {
        let best = best(*better, cells);
        let cell = |cell: &Option<Interval>| match cell {
            None => "-".to_owned(),
            Some(interval) if best.is_some_and(|best| interval.value.total_cmp(&best).is_eq()) => {
                format!("**{}**", shown(interval))
            }
            Some(interval) => shown(interval),
        };
        let cells: Vec<String> = cells.iter().map(cell).collect();
        let _ = writeln!(text, "| {heading} | {unit} | {} |", cells.join(" | "));
    }
}

/// The best value of a row with two or more of them.
fn best(better: Better, cells: &[Option<Interval>]) -> Option<f64> {
    let values: Vec<f64> = cells.iter().flatten().map(|interval| interval.value).collect();
    let of = |pick: fn(f64, f64) -> f64| values.iter().copied().reduce(pick).filter(|_| values.len() > 1);
    match better {
        Better::Less => of(f64::min),
        Better::More => of(f64::max),
    }
}
