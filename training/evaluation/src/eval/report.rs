//! The figures of a run: as JSON, as the tables that a paper prints, and as the lines that a person reads first.

use std::fmt::Write as _;

use geometry::metrics::{BOOTSTRAP_RESAMPLES, Interval, Statistic};
use geometry::{Summary, WINDOW, WindowErrors};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use serde_json::{Value, json};

use super::calibration::{Calibration, pose_errors};
use super::coverage::Coverage;
use super::figures::{Adjusted, digits, shown};
use super::{BOOTSTRAP_SEED, Estimator, Outcome, Settings, StepErrors, Unreadable, steps, strata};
use training_data::Skipped;

/// The report of a run.
pub(super) fn new(
    estimator: &Estimator,
    settings: &Settings<'_>,
    outcomes: &[Outcome],
    unreadable: &[Unreadable],
    skipped: &[Skipped],
) -> Value {
    let errors: Vec<Option<WindowErrors>> = outcomes.iter().map(|o| o.errors.clone()).collect();
    let still: Vec<Option<WindowErrors>> = outcomes.iter().map(|o| Some(o.still.clone())).collect();
    let step_errors: Vec<StepErrors> = outcomes.iter().map(|o| o.estimate.step_errors.clone()).collect();
    let share = |n: usize| n as f64 / outcomes.len() as f64;
    let parses = |k: usize| share(outcomes.iter().filter(|o| o.estimate.parses[k]).count());
    let step = |k: usize| share(outcomes.iter().filter(|o| o.estimate.steps.is_some_and(|s| s[k])).count());
    let chains = outcomes.iter().any(|o| o.estimate.steps.is_some());
    let mut seconds: Vec<f64> = outcomes.iter().filter_map(|o| o.estimate.seconds).collect();
    seconds.sort_by(f64::total_cmp);
    let unreadable: Vec<Value> = unreadable.iter().map(|w| json!({"index": w.index, "error": w.error})).collect();
    let errors_of = |o: &Outcome| Some(pose_errors(&o.truth, o.estimate.trajectory.as_ref()?));
    let pose_errors: Vec<_> = outcomes.iter().filter_map(errors_of).collect();
    let mut report = json!({
        "estimator": settings.label,
        "data": settings.source,
        "scale": if settings.up_to_scale { "aligned" } else { "as given" },
        // Windows whose estimate goes the wrong way at any scale.
        "scale_not_positive": settings.up_to_scale.then(|| {
            outcomes.iter().filter(|o| o.factor.is_some_and(|factor| factor <= 0.0)).count()
        }),
        "unreadable": {"count": unreadable.len(), "windows": unreadable},
        // Recordings, or frames of them, that no window was made of.
        "skipped": skipped.iter().map(|s| json!({"what": s.what, "why": s.why})).collect::<Vec<_>>(),
        "constrained_decoding": estimator.constrained(),
        "final_parse": parses(0),
        "final_parse_constrained": parses(1),
        "parsed": parse_share(outcomes.iter()),
        "step_parse": chains.then(|| (0..5).map(step).collect::<Vec<_>>()),
        "latency_ms_median": seconds.get(seconds.len() / 2).map(|s| s * 1e3),
        "summary": Summary::new(&errors, BOOTSTRAP_SEED),
        "tde_within_15": found_share(outcomes, false),
        "identity": Summary::new(&still, BOOTSTRAP_SEED),
        "identity_tde_within_15": found_share(outcomes, true),
        "step_errors": steps::summary(&step_errors, BOOTSTRAP_SEED),
        "calibration": Calibration::new(&pose_errors, settings.sigmas.as_ref(), settings.source, BOOTSTRAP_SEED),
        "strata": of_strata(outcomes),
        "reversed": settings.reversed.then(|| reversed(outcomes)),
    });
    Adjusted::new(outcomes).write_into(&mut report);
    report
}

/// The share of windows with poses to judge.
fn parse_share<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> Option<Interval> {
    let parsed: Vec<f64> = outcomes.map(|o| f64::from(u8::from(o.errors.is_some()))).collect();
    Statistic::new(&parsed, BOOTSTRAP_SEED).mean
}

/// The share of the moving pairs of all windows whose direction was found within 15 degrees, those of unparsed windows
/// being misses. Windows are what is drawn for the interval: pairs of one window go together.
fn found_share(outcomes: &[Outcome], of_identity: bool) -> Option<Interval> {
    fn share(windows: impl Iterator<Item = (usize, usize)>) -> Option<f64> {
        let (found, moving) = windows.fold((0, 0), |sum, window| (sum.0 + window.0, sum.1 + window.1));
        (moving > 0).then(|| found as f64 / moving as f64)
    }
    let count = |outcome: &Outcome| {
        let errors = if of_identity { Some(&outcome.still) } else { outcome.errors.as_ref() };
        (errors.map_or(0, |errors| errors.tde_found_pairs), WINDOW - 1 - outcome.still.still_pairs)
    };
    let windows: Vec<(usize, usize)> = outcomes.iter().map(count).collect();
    let value = share(windows.iter().copied())?;
    let mut random = ChaCha8Rng::seed_from_u64(BOOTSTRAP_SEED);
    let mut draw = || windows[random.random_range(0..windows.len() as u64) as usize];
    let mut shares: Vec<f64> =
        (0..BOOTSTRAP_RESAMPLES).filter_map(|_| share((0..windows.len()).map(|_| draw()))).collect();
    shares.sort_by(f64::total_cmp);
    let quantile = |q: f64| shares.get(((shares.len().max(1) - 1) as f64 * q).round() as usize).copied();
    Some(Interval { value, low: quantile(0.025)?, high: quantile(0.975)? })
}

/// A row for each stratum that has a window.
fn of_strata(outcomes: &[Outcome]) -> Vec<Value> {
    let row = |group: strata::Members| {
        let members: Vec<&Outcome> = group.members.iter().map(|&k| &outcomes[k]).collect();
        let errors: Vec<Option<WindowErrors>> = members.iter().map(|o| o.errors.clone()).collect();
        let summary = Summary::new(&errors, BOOTSTRAP_SEED);
        json!({
            "stratum": group.name,
            "definition": group.definition,
            "windows": members.len(),
            "parse": parse_share(members.iter().copied()),
            "rre_deg": summary.rre_deg.median,
            "tde_deg": summary.tde_deg.median,
            "tde_windows": summary.tde_deg.count,
            "auc_30": summary.auc_30,
        })
    };
    strata::grouped(outcomes).into_iter().map(row).collect()
}

/// How far the answers backwards are from those forwards, turned around.
fn reversed(outcomes: &[Outcome]) -> Value {
    let residuals: Vec<&WindowErrors> = outcomes.iter().filter_map(|o| o.residual.as_ref()).collect();
    let rotation: Vec<f64> = residuals.iter().map(|e| e.rre_deg).collect();
    let direction: Vec<f64> = residuals.iter().filter_map(|e| e.tde_deg).collect();
    json!({
        "windows": outcomes.len(),
        "both_parsed": residuals.len(),
        "rotation_deg": Statistic::new(&rotation, BOOTSTRAP_SEED),
        "direction_deg": Statistic::new(&direction, BOOTSTRAP_SEED),
    })
}

/// A number with as many digits as a table has room for.
fn figure(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), digits)
}

/// `value [low, high]`, or a dash.
fn interval(value: &Value) -> String {
    if value["value"].is_null() {
        return "-".to_owned();
    }
    format!("{} [{}, {}]", figure(&value["value"]), figure(&value["low"]), figure(&value["high"]))
}

/// Columns of Table 1 with a median and a mean: key, heading, unit.
const COLUMNS: [(&str, &str, &str); 7] = [
    ("rre_deg", "RRE", "deg"),
    ("rte_abs", "RTE, absolute", "scene units"),
    ("rte_rel", "RTE, relative", "of the true length"),
    ("mag_log", "RTE, log of lengths", ""),
    ("tde_deg", "TDE", "deg"),
    ("ate", "ATE, SE(3)", "scene units"),
    ("ate_sim3", "ATE, Sim(3)", "scene units"),
];

/// Errors of the steps: step (from 1), key, heading.
const STEPS: [(usize, &str, &str); 5] = [
    (1, "epipolar_px", "distance from the epipolar line, px"),
    (2, "depth_abs_rel", "depth, relative"),
    (3, "point_rel", "point, relative"),
    (4, "own_rre_deg", "rotation from its own points, deg"),
    (4, "printed_rre_deg", "rotation as printed, deg"),
];

/// The tables of a report in Markdown: headline, steps of chains, strata, and backwards where that was asked for.
pub fn tables(report: &Value) -> String {
    let mut text = String::new();
    let summary = &report["summary"];
    let name = |key: &str| report[key].as_str().unwrap_or_default();
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "# {} on {}\n\n{} windows, translations {}. Brackets: 95 % bootstrap intervals over windows. Errors are of the \
         poses of frames 1 to 4 in frame 0, averaged within a window.\nA window that does not parse has no error and \
         is a miss in every share and AUC. Still pairs ({} of {}) have no direction and no relative length.",
        name("estimator"),
        name("data"),
        summary["windows"],
        if report["scale"] == "aligned" { "multiplied by one factor a window to fit the truth" } else { "as given" },
        summary["still_pairs"],
        summary["pairs"],
    );
    if report["unreadable"]["count"] != 0 {
        let _ =
            writeln!(text, "\n**{} windows could not be read** and are in no table.", report["unreadable"]["count"]);
        for window in report["unreadable"]["windows"].as_array().into_iter().flatten() {
            let _ = writeln!(text, "- {}: {}", window["index"], window["error"].as_str().unwrap_or_default());
        }
    }
    if let Some(skipped) = report["skipped"].as_array().filter(|skipped| !skipped.is_empty()) {
        let _ = writeln!(text, "\nOf the recordings, {} parts were skipped (see report.json).", skipped.len());
    }
    text.push_str("\n## Table 1: headline\n| | unit | windows | median | mean | a camera that never moves |\n");
    text.push_str("| --- | --- | --- | --- | --- | --- |\n");
    let mut share = |heading: &str, ours: &Value, identity: &Value| {
        let (windows, ours, identity) = (&summary["windows"], interval(ours), interval(identity));
        let _ = writeln!(text, "| {heading} | share | {windows} | | {ours} | {identity} |");
    };
    share("parse", &report["parsed"], &json!({"value": 1.0, "low": 1.0, "high": 1.0}));
    share("TDE <= 15 deg, of moving pairs", &report["tde_within_15"], &report["identity_tde_within_15"]);
    for (key, heading) in [("auc_5", "AUC@5"), ("auc_10", "AUC@10"), ("auc_30", "AUC@30")] {
        share(heading, &summary[key], &report["identity"][key]);
    }
    for (key, heading, unit) in COLUMNS {
        let (ours, identity) = (&summary[key], interval(&report["identity"][key]["median"]));
        let (median, mean) = (interval(&ours["median"]), interval(&ours["mean"]));
        let _ = writeln!(text, "| {heading} | {unit} | {} | {median} | {mean} | {identity} |", ours["count"]);
    }
    let _ = writeln!(
        text,
        "\nThe last column is a share or a median. final_parse: {} without and {} with the grammar; this run: {}.",
        figure(&report["final_parse"]),
        figure(&report["final_parse_constrained"]),
        if report["constrained_decoding"].as_bool() == Some(true) { "with" } else { "without" },
    );
    // What this program wrote is read again.
    let adjusted = Adjusted::deserialize(report).unwrap_or_default();
    adjusted.sentences(&mut text);
    covariance_table(report, &adjusted, &mut text);
    steps_table(report, &mut text);
    strata_table(report, &mut text);
    let backwards = &report["reversed"];
    if !backwards.is_null() {
        let _ = writeln!(
            text,
            "\n## Backwards\nThe same windows in reverse order: both answers parse in {} of {}. What is left of one \
             behind the other, median: rotation {} deg, direction {} deg.",
            backwards["both_parsed"],
            backwards["windows"],
            interval(&backwards["rotation_deg"]["median"]),
            interval(&backwards["direction_deg"]["median"]),
        );
    }
    text
}

/// How large the errors are frame by frame, and whether covariances say so.
fn covariance_table(report: &Value, adjusted: &Adjusted, text: &mut String) {
    let calibration = &report["calibration"];
    if calibration.is_null() {
        return;
    }
    text.push_str("\n## Covariance\nNEES of six degrees of freedom is 6 where a covariance is right, more where it is too sure.\n");
    text.push_str("| | NEES | within 68 % | within 95 % |\n| --- | --- | --- | --- |\n");
    for (key, heading) in [("given_coverage", "given"), ("supported_coverage", "what these windows support")] {
        let coverage = &calibration[key];
        if !coverage.is_null() {
            let [nees, narrow, wide] = ["nees", "within_68", "within_95"].map(|key| interval(&coverage[key]));
            let _ = writeln!(text, "| {heading} | {nees} | {narrow} | {wide} |");
        }
    }
    if let Some(own) = &adjusted.own_covariance {
        let Coverage { nees, within_68, within_95, nees_of_frame } = &own.coverage;
        let _ = writeln!(text, "| the answers' own | {} | {} | {} |", shown(nees), shown(within_68), shown(within_95));
        let frames = nees_of_frame.each_ref().map(shown).join(", ");
        let _ = writeln!(
            text,
            "\nOf {} windows, {} of them a turn without a translation, judged by its rotation (three degrees of freedom, \
             brought to six). NEES of frames 1 to 4: {frames}; median {}.",
            own.windows,
            own.turned,
            digits(own.nees_median)
        );
    }
    let _ = writeln!(text, "\n```toml\n{}```", calibration["toml"].as_str().unwrap_or_default());
}

fn steps_table(report: &Value, text: &mut String) {
    text.push_str("\n## Table 2: steps of the chain\n");
    let Some(parse) = report["step_parse"].as_array() else {
        text.push_str("No chains in these answers.\n");
        return;
    };
    text.push_str("| step | parse | error | values | median | mean |\n| --- | --- | --- | --- | --- | --- |\n");
    for (step, key, heading) in STEPS {
        let errors = &report["step_errors"][key];
        let (parse, count) = (figure(&parse[step - 1]), errors["count"].as_u64().unwrap_or(0));
        let (median, mean) = (interval(&errors["median"]), interval(&errors["mean"]));
        let _ = writeln!(text, "| {step} | {parse} | {heading} | {count} | {median} | {mean} |");
    }
    let _ = writeln!(text, "| 5 | {} | (prose) | | | |", figure(&parse[4]));
    let rotation = &report["summary"]["rre_deg"];
    let _ = writeln!(
        text,
        "| poses | {} | rotation, deg | {} | {} | {} |",
        figure(&report["parsed"]["value"]),
        rotation["count"],
        interval(&rotation["median"]),
        interval(&rotation["mean"])
    );
}

fn strata_table(report: &Value, text: &mut String) {
    text.push_str("\n## Strata\nFrom the ground truth and the pixels alone; medians.\n");
    text.push_str("| stratum | windows | parse | RRE, deg | TDE, deg | with a direction | AUC@30 | which |\n");
    text.push_str("| --- | --- | --- | --- | --- | --- | --- | --- |\n");
    for row in report["strata"].as_array().into_iter().flatten() {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            row["stratum"].as_str().unwrap_or_default(),
            row["windows"],
            interval(&row["parse"]),
            interval(&row["rre_deg"]),
            interval(&row["tde_deg"]),
            row["tde_windows"],
            interval(&row["auc_30"]),
            row["definition"].as_str().unwrap_or_default(),
        );
    }
}

/// The figures of a report that a person reads first.
pub fn table(report: &Value) -> String {
    let number =
        |pointer: &str| report.pointer(pointer).and_then(Value::as_f64).map_or("-".to_owned(), |v| format!("{v:.3}"));
    let mut text = format!(
        "{} on {}\n{} windows, final_parse {} ({} under the grammar), {} of {} pairs still\n",
        report["estimator"].as_str().unwrap_or_default(),
        report["data"].as_str().unwrap_or_default(),
        report["summary"]["windows"],
        number("/final_parse"),
        number("/final_parse_constrained"),
        report["summary"]["still_pairs"],
        report["summary"]["pairs"],
    );
    if report["scale"] == "aligned" {
        text.push_str("translations are multiplied by one factor a window to fit the truth\n");
    }
    if report["unreadable"]["count"] != 0 {
        let _ = writeln!(text, "{} windows could not be read", report["unreadable"]["count"]);
    }
    if let Some(parse) = report["step_parse"].as_array() {
        let shares: Vec<String> = parse.iter().map(|v| format!("{:.3}", v.as_f64().unwrap_or(0.0))).collect();
        let _ = writeln!(text, "step_parse {}", shares.join(" "));
    }
    text.push_str("                  median [95 %]                mean [95 %]\n");
    for (table, name, unit) in [
        ("summary", "rre_deg", "deg"),
        ("summary", "tde_deg", "deg"),
        ("summary", "rte_abs", "scene units"),
        ("summary", "rte_rel", ""),
        ("summary", "mag_log", ""),
        ("summary", "ate", "scene units"),
        ("summary", "ate_sim3", "scene units"),
        ("step_errors", "epipolar_px", "step 1, px"),
        ("step_errors", "depth_abs_rel", "step 2"),
        ("step_errors", "point_rel", "step 3"),
        ("step_errors", "own_rre_deg", "step 4 from its own points, deg"),
        ("step_errors", "printed_rre_deg", "step 4 as printed, deg"),
        ("reversed", "rotation_deg", "backwards against forwards, deg"),
        ("reversed", "direction_deg", "backwards against forwards, deg"),
    ] {
        if report[table][name].is_null() {
            continue;
        }
        let of = |what: &str| {
            let part = |part: &str| number(&format!("/{table}/{name}/{what}/{part}"));
            format!("{:>8} [{}, {}]", part("value"), part("low"), part("high"))
        };
        let _ = writeln!(text, "{name:<16} {:<28} {:<28} {unit}", of("median"), of("mean"));
    }
    let _ = writeln!(text, "tde <= 15 deg    {:>8}", number("/summary/tde_within_15_share"));
    for name in ["auc_5", "auc_10", "auc_30"] {
        let part = |part: &str| number(&format!("/summary/{name}/{part}"));
        let _ = writeln!(text, "{name:<16} {:>8} [{}, {}]", part("value"), part("low"), part("high"));
    }
    text
}
