//! Texts of answers, judged again, and the model that gives them.

use model::answer::budget::Budget;
use model::answer::chain;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use training::student::{Shape, Student};
use training_evaluation::eval::{self, Args, Estimator, Settings};

use super::{DATA, args, median, read, run, samples};

/// The parts of a report that do not name the run.
fn nameless(mut report: Value) -> Value {
    for key in ["estimator", "latency_ms_median"] {
        report.as_object_mut().unwrap().remove(key);
    }
    report
}

#[test]
fn answers_are_judged_again_from_their_texts() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    // Of six windows: three answers, one that is cut short, one without a text, one without a line.
    let lines = samples(DATA).iter().take(5).enumerate().fold(String::new(), |lines, (i, sample)| {
        let text = chain::write_poses(&sample.ground_truth);
        let answer = match i {
            1 => json!(text[..text.len() / 2]),
            2 => Value::Null,
            _ => json!(text),
        };
        format!("{lines}{}\n", json!({"id": sample.id, "answer": answer}))
    });
    std::fs::write(at("theirs.jsonl"), &lines).unwrap();
    let first = run(&format!("answers:{}", at("theirs.jsonl").display()), DATA, &at("first"));
    assert_eq!((&first["summary"]["parsed"], &first["final_parse"]), (&json!(3), &json!(0.5)));
    assert!(median(&first, "rre_deg") < 1e-3 && median(&first, "rte_abs") < 1e-5, "{first:#}");
    assert!(first["step_parse"].is_null() && first["latency_ms_median"].is_null());
    let second = run(&format!("answers:{}/answers.jsonl", at("first").display()), DATA, &at("second"));
    assert_eq!(nameless(first), nameless(second));
    std::fs::write(at("twice.jsonl"), format!("{lines}{lines}")).unwrap();
    let error = Estimator::named(&format!("answers:{}", at("twice.jsonl").display())).err().unwrap().to_string();
    assert!(error.contains("two lines of window synth-5-0"), "{error}");
}

#[test]
fn a_chain_read_again_has_the_errors_of_its_steps_where_its_pixels_are_known() {
    let dir = tempfile::tempdir().unwrap();
    let data = "synth:seed=11,windows=6,size=160x96";
    let mut lines = [String::new(), String::new()];
    let mut chains = 0;
    for (index, sample) in (0..).zip(samples(data)) {
        let depth = sample.depth.as_ref().unwrap();
        let maps = training_data::chains::DepthMap::window(depth, 160, sample.metric);
        let mut rng = ChaCha8Rng::seed_from_u64(index);
        let Ok(chain) = training_data::chains::chain(&sample.ground_truth, &sample.intrinsics, &maps, &mut rng) else {
            continue;
        };
        chains += 1;
        let answer = chain::write(&chain);
        lines[0] += &format!("{}\n", json!({"id": sample.id, "answer": answer, "grid": [160, 96]}));
        lines[1] += &format!("{}\n", json!({"id": sample.id, "answer": answer}));
    }
    assert!(chains >= 3, "{chains}");
    let [with, without] = lines.map(|lines| {
        let path = dir.path().join("answers.jsonl");
        std::fs::write(&path, lines).unwrap();
        run(&format!("answers:{}", path.display()), data, &dir.path().join("out"))
    });
    let share = f64::from(chains) / 6.0;
    for report in [&with, &without] {
        let parse: Vec<f64> = report["step_parse"].as_array().unwrap().iter().filter_map(Value::as_f64).collect();
        assert!(parse.len() == 5 && parse.iter().all(|p| (p - share).abs() < 1e-12), "{parse:?}");
    }
    let epipolar = with["step_errors"]["epipolar_px"]["median"]["value"].as_f64().unwrap();
    assert!(epipolar < 0.1, "{epipolar}");
    assert!(without["step_errors"].is_null(), "nobody knows which pixels these are");
}

#[test]
fn weights_answer_backwards_too_and_their_answers_are_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    // Heads as nano has them, each of them narrow.
    let shape = Shape { heads: 4, kv_heads: 2, vision_heads: 4, deepstack: vec![1], ..Shape::tiny() };
    Student::new(&shape, 0).unwrap().save(&at("weights")).unwrap();
    let data = "synth:seed=5,windows=2,size=64x48";
    let args = Args {
        weights: Some(at("weights")),
        estimator: None,
        constrained: true,
        reversed: true,
        // Weights that were never trained spell character by character.
        max_tokens: Budget::Tokens(800),
        ..args("", data, &at("first"))
    };
    assert!(eval::main(&args).unwrap().complete);
    let first = read(&at("first/report.json"));
    assert_eq!((&first["constrained_decoding"], &first["final_parse_constrained"]), (&json!(true), &json!(1.0)));
    assert_eq!((&first["reversed"]["windows"], &first["reversed"]["both_parsed"]), (&json!(2), &json!(2)));
    assert_eq!(first["reversed"]["rotation_deg"]["count"], 2);
    assert!(first["latency_ms_median"].as_f64().unwrap() > 0.0);
    assert!(std::fs::read_to_string(at("first/tables.md")).unwrap().contains("## Backwards"));
    let name = format!("answers:{}/answers.jsonl", at("first").display());
    run(&name, data, &at("second"));
    let mut second = read(&at("second/report.json"));
    assert!(second["reversed"].is_null(), "answers backwards are not written down");
    second["reversed"] = first["reversed"].clone();
    assert_eq!(nameless(first), nameless(second));
    let settings = Settings { reversed: true, ..Settings::new("identity", data) };
    assert!(eval::run_with(&Estimator::Identity, &settings, &at("third")).is_err());
}

#[test]
fn a_device_that_is_none_is_refused_by_its_option() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |device: &str| {
        let weights = Some(dir.path().join("weights"));
        let base = args("", "synth:seed=5,windows=1,size=64x48", &dir.path().join("out"));
        format!("{:#}", eval::main(&Args { weights, estimator: None, device: device.to_owned(), ..base }).unwrap_err())
    };
    assert_eq!(refused("abacus"), "--device: device: expected cpu, cuda or cuda:N, got abacus");
    if cfg!(not(feature = "cuda")) {
        let error = refused("cuda");
        assert!(error.contains("--device") && error.contains("built without the feature cuda, got cuda"), "{error}");
    }
}
