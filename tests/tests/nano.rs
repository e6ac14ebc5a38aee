//! The shipped weights do what docs/runs.md says of them, on windows that they were not trained on: bounds, not figures,
//! since these are few windows. `training eval` on many gives the figures.

use std::path::{Path, PathBuf};

use geometry::metrics::{Interval, Statistic};
use model::Mode;
use model::answer::budget::Budget;
use model::answer::decode::Sampling;
use model::answer::fill::Fill;
use model::weights::manifest::Manifest;
use model::{Answer, AnswerOptions, Device, EgoModel, FrameEmbedding};
use training_evaluation::eval::{self, Estimator, Report};

/// What git may hold of weights, all together.
const MAX_BYTES: u64 = 16 << 20;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn nano() -> PathBuf {
    root().join("model/weights/nano")
}

fn options() -> AnswerOptions {
    AnswerOptions::default()
}

fn evaluate(estimator: &Estimator, data: &str) -> Report {
    let out = tempfile::tempdir().expect("a temporary folder");
    eval::run(estimator, "test", data, out.path()).expect("the windows can be read")
}

fn median(statistic: &Statistic) -> f64 {
    statistic.median.expect("a figure").value
}

#[test]
fn nano_is_small_and_tells_how_it_was_made() {
    let files = std::fs::read_dir(nano()).expect("model/weights/nano");
    let bytes: u64 = files.map(|f| f.and_then(|f| f.metadata()).map_or(0, |m| m.len())).sum();
    assert!(bytes <= MAX_BYTES, "{bytes} bytes");
    let manifest = manifest();
    assert!(manifest.parameters.is_some() && manifest.stages.len() == 3 && !manifest.measured.is_empty());
}

/// What nano must show, on windows of a seed that it never saw.
#[test]
fn nano_beats_a_still_camera_on_synthetic_windows() {
    let data = "synth:seed=9004,windows=120";
    let weights = Estimator::weights(&nano(), None, &Device::Cpu, options()).expect("nano loads");
    let (ours, still) = (evaluate(&weights, data), evaluate(&Estimator::Identity, data));
    assert!(ours.final_parse >= 0.95, "{}", ours.final_parse);
    assert!(ours.final_parse_constrained >= 1.0, "under the grammar every answer parses");
    assert!(median(&ours.summary.rre_deg) < 0.8 * median(&still.summary.rre_deg), "{ours:?}");
    assert!(median(&ours.summary.tde_deg) < 70.0, "{ours:?}");
    assert!((median(&still.summary.tde_deg) - 90.0).abs() < 1e-9, "no direction counts as 90 degrees");
}

fn manifest() -> Manifest {
    Manifest::of(&nano()).expect("a manifest that can be read").expect("a manifest")
}

/// The value of a figure that was measured.
fn said(interval: Option<&Interval>) -> f64 {
    interval.expect("a figure").value
}

/// Sixty of the five hundred windows that the manifest is about, measured again: their median may be off by a third.
#[test]
fn the_manifest_tells_what_was_measured_on_many() {
    let manifest = manifest();
    let measured = &manifest.measured["synth:seed=9001,windows=500"];
    assert_eq!(measured.windows, 500);
    let weights = Estimator::weights(&nano(), None, &Device::Cpu, options()).expect("nano loads");
    let sample = evaluate(&weights, "synth:seed=9001,windows=60");
    let (parse, got) = (measured.final_parse, sample.final_parse);
    assert!((parse - got).abs() < 0.05, "parse: said {parse}, got {got}");
    for (name, told, got) in [
        ("rre_deg", &measured.rre_deg_median, &sample.summary.rre_deg),
        ("tde_deg", &measured.tde_deg_median, &sample.summary.tde_deg),
    ] {
        let (told, got) = (said(told.as_ref()), median(got));
        assert!((got / told).ln().abs() < 0.3, "{name}: said {told}, got {got}");
    }
}

/// On real frames nano turns hardly better than a camera that never moves: no worse, and as its manifest says.
#[test]
fn nano_answers_on_real_frames() {
    let manifest = manifest();
    let measured = &manifest.measured["tests/data/amazon_box"];
    let data = root().join("tests/data/amazon_box").display().to_string();
    let weights = Estimator::weights(&nano(), None, &Device::Cpu, options()).expect("nano loads");
    let (ours, still) = (evaluate(&weights, &data), evaluate(&Estimator::Identity, &data));
    assert_eq!(measured.windows, ours.summary.windows);
    assert!(ours.final_parse >= 0.95, "{}", ours.final_parse);
    let (own, identity) = (median(&ours.summary.rre_deg), median(&still.summary.rre_deg));
    assert!(own < 1.05 * identity, "{own} deg, a camera that never moves {identity}");
    let told = said(measured.rre_deg_median.as_ref());
    assert!((own / told - 1.0).abs() < 0.05, "rotation: said {told}, got {own}");
}

/// The frames of one window, encoded.
fn frames(model: &EgoModel, data: &str) -> Vec<FrameEmbedding> {
    let sample = training_data::parse_source(data).expect("a source").sample(0).expect("a window");
    let encode = |image| model.encode(&model.preprocess(image, &sample.intrinsics).expect("pixels")).expect("tokens");
    sample.images.iter().map(encode).collect()
}

#[test]
fn what_the_program_fills_in_is_what_nano_writes() {
    let model = EgoModel::load(&nano(), &Device::Cpu).expect("nano loads");
    let filled = AnswerOptions { fill: Fill::Arithmetic, ..options() };
    for window in 0..3 {
        let frames = frames(&model, &format!("synth:seed={},windows=1", 9003 + window));
        let frames: Vec<_> = frames.iter().collect();
        let answer = |options: &AnswerOptions| model.answer(&frames, options).expect("an answer");
        let (own, with) = (answer(&AnswerOptions { constrained: true, ..options() }), answer(&filled));
        assert_eq!((&with.ids, &with.text, with.ended), (&own.ids, &own.text, own.ended));
        let choices = |answer: &Answer| answer.passes + answer.drafted.saved;
        assert_eq!((own.filled, choices(&own)), (0, own.ids.len()));
        // The identity and the form: no pass for those, and none behind the last token.
        assert!(with.filled > 30 && choices(&with) + with.filled <= own.ids.len() + 1, "{with:?}");
    }
    // Drawn ones too are what each is alone.
    let frames = frames(&model, "synth:seed=9003,windows=1");
    let frames: Vec<_> = frames.iter().collect();
    let sampling = |seed| Sampling { temperature: 1.0, top_p: 0.9, seed };
    let together =
        model.answers(&frames, &AnswerOptions { sampling: sampling(5), ..filled.clone() }, 3).expect("three");
    for (k, answer) in together.iter().enumerate() {
        assert!(answer.trajectory.is_ok(), "{:?}", answer.trajectory);
        let alone = AnswerOptions { sampling: sampling(5 + k as u64), ..filled.clone() };
        assert_eq!(answer.text, model.answer(&frames, &alone).expect("one").text, "answer {k}");
    }
    // Of a chain, all that is arithmetic: whatever nano says before, steps 3 and 4 follow from it.
    let chain = AnswerOptions { mode: Mode::FullChain, max_tokens: Budget::Tokens(4000), ..filled };
    let written = model.answer(&frames, &chain).expect("a chain");
    let parsed = model::answer::chain::parse(&written.text);
    assert_eq!((parsed.steps(), written.trajectory.is_ok()), ([true; 5], true), "{}", written.text);
    assert!(written.filled as f64 > 0.3 * written.ids.len() as f64, "{} of {}", written.filled, written.ids.len());
}

#[test]
fn answers_are_deterministic_and_several_from_one_prompt_are_what_each_is_alone() {
    let model = EgoModel::load(&nano(), &Device::Cpu).expect("nano loads");
    let frames = frames(&model, "synth:seed=9003,windows=1");
    let frames: Vec<_> = frames.iter().collect();
    let alone = |options: &AnswerOptions| model.answer(&frames, options).expect("an answer").text;
    let greedy = options();
    assert_eq!(alone(&greedy), alone(&greedy));
    let sampling = |seed| Sampling { temperature: 1.0, top_p: 0.9, seed };
    let drawn = AnswerOptions { sampling: sampling(5), constrained: true, ..options() };
    let together = model.answers(&frames, &drawn, 3).expect("three answers");
    for (k, answer) in together.iter().enumerate() {
        assert!(
            answer.trajectory.is_ok(),
            "under the grammar every answer parses: {:?}\n{}",
            answer.trajectory,
            answer.text
        );
        let same = AnswerOptions { sampling: sampling(5 + k as u64), ..drawn.clone() };
        assert_eq!(answer.text, alone(&same), "answer {k}");
    }
    assert!(together[0].text != together[1].text, "draws differ");
}
