//! The evaluation on estimators whose errors are known beforehand, through the files that it reads and writes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use geometry::{Stamp, Stamped, Transform, WindowTrajectory, tum};
use image::{Rgb, RgbImage};
use model::chain;
use nalgebra::{Isometry3, Vector3};
use serde_json::{Value, json};
use training::data::{WindowSample, parse_source};
use training::eval::{self, Args, CompareArgs, Estimator, Settings};
use training::synth;

/// Six windows, of which the cheapest that show anything.
const DATA: &str = "synth:seed=5,windows=6,size=64x48";

fn samples(data: &str) -> Vec<WindowSample> {
    let source = parse_source(data).unwrap();
    (0..source.len()).map(|index| source.sample(index).unwrap()).collect()
}

/// A file for each window, with the stamps of its frames or with 0 to 4 seconds.
fn write_tum(folder: &Path, data: &str, counted: bool, change: impl Fn(&WindowTrajectory) -> WindowTrajectory) {
    std::fs::create_dir_all(folder).unwrap();
    for sample in samples(data) {
        let poses = change(&sample.ground_truth).anchor_from_camera;
        let stamp = |i: usize| if counted { Stamp::from_nanos(i as i64 * 1_000_000_000) } else { sample.stamps[i] };
        let poses: Vec<_> = poses.iter().enumerate().map(|(i, &value)| Stamped { stamp: stamp(i), value }).collect();
        tum::write(&folder.join(format!("{}.tum", sample.id)), &poses).unwrap();
    }
}

fn run(name: &str, data: &str, out: &Path) -> Value {
    eval::run(&Estimator::named(name).unwrap(), name, data, out).unwrap()
}

fn tum_of(folder: &Path) -> String {
    format!("tum:{}", folder.display())
}

fn args(estimator: &str, data: &str, out: &Path) -> Args {
    Args {
        weights: None,
        estimator: Some(estimator.to_owned()),
        data: data.to_owned(),
        mode: model::Mode::AnswerOnly,
        adapter: None,
        constrained: false,
        record: false,
        max_tokens: 8,
        up_to_scale: false,
        reversed: false,
        covariance: None,
        concurrency: 4,
        explain: false,
        out: out.to_path_buf(),
    }
}

fn compare(a: &Path, b: &Path, out: Option<PathBuf>) -> anyhow::Result<eval::Comparison> {
    eval::compare(&CompareArgs { a: a.to_path_buf(), b: b.to_path_buf(), out })
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A value as it is after writing and reading.
fn written(value: &impl serde::Serialize) -> Value {
    serde_json::from_str(&serde_json::to_string(value).unwrap()).unwrap()
}

/// The lines of answers.jsonl.
fn answers(out: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(out.join("answers.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn median(report: &Value, name: &str) -> f64 {
    report["summary"][name]["median"]["value"].as_f64().unwrap()
}

fn stratum(report: &Value, name: &str) -> u64 {
    let rows = report["strata"].as_array().unwrap();
    rows.iter().find(|row| row["stratum"] == name).map_or(0, |row| row["windows"].as_u64().unwrap())
}

/// A recorded sequence of these images and camera-to-world poses, without times and depth.
fn record(folder: &Path, images: &[RgbImage], poses: &[Isometry3<f64>]) {
    std::fs::create_dir_all(folder.join("frames")).unwrap();
    for (i, image) in images.iter().enumerate() {
        image.save(folder.join(format!("frames/{i:06}.png"))).unwrap();
    }
    let matrix = |pose: &Isometry3<f64>| {
        let pose: Transform<geometry::World, geometry::Camera> = Transform::from_isometry(*pose);
        pose.to_matrix_row_major().to_vec()
    };
    let text = json!({
        "name": "film", "width": 64, "height": 48, "metric": true, "num_frames": poses.len(), "timestamps": null,
        "intrinsics": {"fx": 60.0, "fy": 60.0, "cx": 31.5, "cy": 23.5},
        "pose_convention": "camera_to_world", "camera_axes": "opencv (x right, y down, z forward)",
        "poses": poses.iter().map(matrix).collect::<Vec<_>>(),
    });
    std::fs::write(folder.join("sequence.json"), text.to_string()).unwrap();
}

/// Seven frames, three windows.
fn film(folder: &Path) -> synth::SynthSequence {
    let film = synth::sequence(3, 5, 7, (64, 48));
    let poses: Vec<_> = film.world_from_camera.iter().map(|pose| *pose.isometry()).collect();
    record(folder, &film.images, &poses);
    film
}

#[test]
fn the_truth_in_tum_files_has_no_errors() {
    let dir = tempfile::tempdir().unwrap();
    let (stamped, out) = (dir.path().join("stamped"), dir.path().join("out"));
    write_tum(&stamped, DATA, false, |truth| *truth);
    let times: serde_json::Map<String, Value> =
        samples(DATA).iter().zip(1..).map(|(s, ms)| (s.id.clone(), json!({"ms": ms}))).collect();
    std::fs::write(stamped.join("report.json"), json!({"windows_detail": times}).to_string()).unwrap();
    let counted = dir.path().join("counted");
    write_tum(&counted, DATA, true, |truth| *truth);
    // The third is what the first run wrote.
    for (folder, out) in
        [(&stamped, &out), (&counted, &dir.path().join("b")), (&out.join("tum"), &dir.path().join("c"))]
    {
        let report = run(&tum_of(folder), DATA, out);
        assert_eq!((&report["summary"]["windows"], &report["summary"]["parsed"]), (&json!(6), &json!(6)));
        assert_eq!((&report["final_parse"], &report["scale"]), (&json!(1.0), &json!("as given")));
        assert!(report["summary"]["auc_5"]["value"].as_f64().unwrap() > 0.999, "{report:#}");
        let lines = answers(out);
        assert!(lines.iter().all(|line| line["rre_deg"].as_f64().unwrap() < 1e-5), "{lines:#?}");
        let tde: Vec<f64> = lines.iter().filter_map(|line| line["tde_deg"].as_f64()).collect();
        assert!(!tde.is_empty() && tde.iter().all(|tde| *tde < 1e-5), "{tde:?}");
        assert_eq!(report["tde_within_15"]["low"], 1.0);
        assert_eq!(report["identity_tde_within_15"]["high"], 0.0, "who never moves finds no direction");
    }
    let report = read(&out.join("report.json"));
    let latency = report["latency_ms_median"].as_f64().unwrap();
    assert!((latency - 4.0).abs() < 1e-9, "the upper middle of 1 to 6 ms, got {latency}");
    assert!(read(&dir.path().join("b/report.json"))["latency_ms_median"].is_null(), "nobody said how long it took");
}

#[test]
fn what_a_paper_needs_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let report = run("constant-velocity", DATA, dir.path());
    let tables = std::fs::read_to_string(dir.path().join("tables.md")).unwrap();
    for heading in ["Table 1", "| RRE |", "| TDE |", "AUC@30", "ATE, Sim(3)", "Table 2", "Strata", "texture_"] {
        assert!(tables.contains(heading), "{heading}: {tables}");
    }
    let shown = match median(&report, "rte_rel") {
        large if large >= 1.0 => format!("{large:.2}"),
        small => format!("{small:.4}"),
    };
    assert!(tables.contains(&shown), "{shown} is not in {tables}");
    assert_eq!(read(&dir.path().join("report.json")), written(&report));
    let picture = image::open(dir.path().join("errors.png")).unwrap().into_rgb8();
    let colours: std::collections::HashSet<_> = picture.pixels().map(|pixel| pixel.0).collect();
    assert!(colours.contains(&[213, 94, 0]) && colours.contains(&[0, 114, 178]), "both curves");
    for (sample, line) in samples(DATA).iter().zip(answers(dir.path())) {
        assert_eq!((&line["id"], &line["parsed"]), (&json!(sample.id), &json!(true)));
        assert_eq!(line["strata"].as_array().unwrap().len(), 4, "{line}");
        let truth = dir.path().join(format!("tum/{}.gt.tum", sample.id));
        let truth = tum::read::<geometry::Anchor, geometry::Camera>(&truth).unwrap();
        let stamps: Vec<_> = truth.iter().map(|pose| pose.stamp).collect();
        assert_eq!(stamps, sample.stamps);
        let last = sample.ground_truth.anchor_from_camera[4];
        assert!((truth[4].value.translation() - last.translation()).norm() < 1e-12);
    }
}

#[test]
fn a_scale_is_forgiven_where_that_was_asked_for_and_said() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("three");
    write_tum(&folder, DATA, false, |truth| truth.scaled(3.0));
    let name = tum_of(&folder);
    let given = run(&name, DATA, &dir.path().join("given"));
    assert!((median(&given, "mag_log") - 3.0f64.ln()).abs() < 1e-9 && (median(&given, "rte_rel") - 2.0).abs() < 1e-9);
    assert_eq!((&given["scale"], &given["scale_not_positive"]), (&json!("as given"), &Value::Null));
    let settings = Settings { up_to_scale: true, ..Settings::new(&name, DATA) };
    let out = dir.path().join("aligned");
    let aligned = eval::run_with(&Estimator::named(&name).unwrap(), &settings, &out).unwrap();
    assert_eq!((&aligned["scale"], &aligned["scale_not_positive"]), (&json!("aligned"), &json!(0)));
    for column in ["rte_rel", "rte_abs", "mag_log", "ate"] {
        assert!(median(&aligned, column) < 1e-9, "{column}: {aligned:#}");
    }
    assert!((median(&aligned, "tde_deg") - median(&given, "tde_deg")).abs() < 1e-9, "directions have no scale");
    assert!(std::fs::read_to_string(out.join("tables.md")).unwrap().contains("multiplied by one factor"));
}

#[test]
fn a_missing_file_is_a_miss_and_a_broken_one_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, out) = (dir.path().join("tum"), dir.path().join("out"));
    write_tum(&folder, DATA, false, |truth| *truth);
    let name = tum_of(&folder);
    run(&name, DATA, &out);
    std::fs::remove_file(folder.join("synth-5-2.tum")).unwrap();
    let report = run(&name, DATA, &out);
    let share = report["final_parse"].as_f64().unwrap();
    assert!((share - 5.0 / 6.0).abs() < 1e-12, "{share}");
    assert_eq!((&report["summary"]["windows"], &report["summary"]["parsed"]), (&json!(6), &json!(5)));
    let auc = report["summary"]["auc_30"]["value"].as_f64().unwrap();
    assert!((auc - 5.0 / 6.0).abs() < 1e-6, "a window without an answer is ten misses: {auc}");
    let missed = answers(&out).into_iter().find(|line| line["id"] == "synth-5-2").unwrap();
    assert_eq!((&missed["parsed"], &missed["rre_deg"]), (&json!(false), &Value::Null));
    assert!(!out.join("tum/synth-5-2.tum").exists(), "the earlier run's answer is none of this one's");
    assert!(out.join("tum/synth-5-2.gt.tum").is_file() && out.join("tum/synth-5-1.tum").is_file());

    let path = folder.join("synth-5-3.tum");
    let text = std::fs::read_to_string(&path).unwrap();
    for (broken, part) in [
        (text.lines().take(4).collect::<Vec<_>>().join("\n"), "expected 5 poses, got 3"),
        (text.replace("0.", "x."), "a timestamp"),
        ("7 0 0 0 0 0 0 1\n".repeat(5), "stamps"),
    ] {
        std::fs::write(&path, broken).unwrap();
        let error = format!("{:#}", eval::run(&Estimator::named(&name).unwrap(), &name, DATA, &out).unwrap_err());
        assert!(error.contains(part) && error.contains("synth-5-3.tum"), "{error}");
    }
    for name in [tum_of(&dir.path().join("nothing")), "answers:/nowhere".to_owned(), "orb-slam".to_owned()] {
        assert!(Estimator::named(&name).is_err(), "{name}");
    }
}

#[test]
fn windows_take_their_poses_from_one_file_of_a_whole_trajectory() {
    let dir = tempfile::tempdir().unwrap();
    let (data, path) = (dir.path().join("film"), dir.path().join("film.tum"));
    let film = film(&data);
    let data = data.display().to_string();
    let frame_stamps: Vec<Stamp> = {
        let samples = samples(&data);
        let all = samples.iter().flat_map(|s| std::iter::zip(s.frame_indices, s.stamps));
        let by_frame: std::collections::BTreeMap<usize, Stamp> = all.collect();
        by_frame.into_values().collect()
    };
    let gap = frame_stamps[1].nanos - frame_stamps[0].nanos;
    // A tracker's clock is off by up to 0.4 of the gap between frames, its world is another, its file in any order.
    let world = Transform::from_isometry(Isometry3::new(Vector3::new(5.0, -2.0, 1.0), Vector3::new(0.3, 2.0, -0.4)));
    let mut poses: Vec<Stamped<Transform<geometry::World, geometry::Camera>>> =
        std::iter::zip(&frame_stamps, &film.world_from_camera)
            .zip([0.4, -0.4, 0.3, 0.0, -0.1, 0.4, -0.2])
            .map(|((stamp, &pose), late)| Stamped {
                stamp: Stamp::from_nanos(stamp.nanos + (late * gap as f64) as i64),
                value: world * pose,
            })
            .collect();
    poses.reverse();
    let name = format!("tum:{}", path.display());
    tum::write(&path, &poses).unwrap();
    let whole = run(&name, &data, &dir.path().join("whole"));
    assert_eq!((&whole["summary"]["parsed"], &whole["summary"]["windows"]), (&json!(3), &json!(3)));
    assert!(median(&whole, "rre_deg") < 1e-5 && median(&whole, "rte_abs") < 1e-9, "{whole:#}");
    // Without the last frame, and with frame 5 too late to be its own: the first window alone is left.
    poses.remove(0);
    poses[0].stamp.nanos = frame_stamps[5].nanos + gap * 6 / 10;
    tum::write(&path, &poses).unwrap();
    let lost = run(&name, &data, &dir.path().join("lost"));
    let parsed: Vec<bool> = answers(&dir.path().join("lost")).iter().map(|l| l["parsed"] == true).collect();
    assert_eq!(parsed, [true, false, false]);
    assert_eq!(lost["summary"]["windows"], 3);
}

#[test]
fn a_run_does_not_differ_from_itself_and_the_truth_is_better_than_standing_still() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    write_tum(&at("files"), DATA, false, |truth| *truth);
    run(&tum_of(&at("files")), DATA, &at("truth"));
    run("identity", DATA, &at("still"));
    let same = compare(&at("still"), &at("still"), None).unwrap();
    for column in [&same.rre_deg, &same.tde_deg, &same.rte_rel, &same.parse] {
        let (median, mean) = (column.median.unwrap(), column.mean.unwrap());
        for value in [median.low, median.value, median.high, mean.low, mean.value, mean.high] {
            assert!(value.abs() < 1e-12, "{column:?}");
        }
        assert_eq!((column.a_better, column.b_better), (Some(0.0), Some(0.0)));
    }
    assert_eq!((same.windows, same.rre_deg.pairs, same.parse.pairs), (6, 6, 6));

    let out = at("compare.json");
    let better = compare(&at("truth"), &at("still"), Some(out.clone())).unwrap();
    for column in [&better.rre_deg, &better.tde_deg, &better.rte_rel] {
        assert!(column.median.unwrap().high < 0.0 && column.mean.unwrap().high < 0.0, "{column:?}");
        assert_eq!((column.a_better, column.b_better), (Some(1.0), Some(0.0)));
    }
    assert!((better.tde_deg.median.unwrap().value + 90.0).abs() < 1e-4, "{better}");
    assert_eq!(read(&out)["tde_deg"], written(&better.tde_deg));
    assert_eq!(read(&out)["b"]["estimator"], "identity");
    let text = better.to_string();
    assert!(text.contains("| TDE, deg |") && text.contains("A: tum:"), "{text}");
    let worse = compare(&at("still"), &at("truth"), None).unwrap();
    assert!(worse.rre_deg.median.unwrap().low > 0.0 && worse.rre_deg.b_better == Some(1.0), "{worse}");
}

#[test]
fn a_side_without_an_answer_loses_the_window() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    write_tum(&at("files"), DATA, false, |truth| *truth);
    std::fs::remove_file(at("files").join("synth-5-0.tum")).unwrap();
    run(&tum_of(&at("files")), DATA, &at("truth"));
    run("identity", DATA, &at("still"));
    let got = compare(&at("truth"), &at("still"), None).unwrap();
    assert_eq!((got.rre_deg.pairs, got.rre_deg.windows), (5, 6));
    assert_eq!((got.parse.a_better, got.parse.b_better.map(|b| b > 0.16 && b < 0.17)), (Some(0.0), Some(true)));
    assert!(got.rre_deg.b_better > Some(0.16), "{got}");
}

#[test]
fn different_windows_do_not_compare() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    run("identity", DATA, &at("six"));
    run("identity", "synth:seed=5,windows=4,size=64x48", &at("four"));
    run("identity", "synth:seed=6,windows=3,size=64x48", &at("others"));
    let error = |a: &str, b: &str| compare(&at(a), &at(b), None).unwrap_err().to_string();
    let fewer = error("six", "four");
    assert!(fewer.contains("lacks 0 of the other's 4") && fewer.contains("lacks 2 of 6"), "{fewer}");
    let none = error("four", "others");
    assert!(none.contains("lacks 3 of the other's 3") && none.contains("lacks 4 of 4"), "{none}");
    assert!(compare(&at("six"), &at("nowhere"), None).is_err());
}

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
    use rand::SeedableRng;
    let dir = tempfile::tempdir().unwrap();
    let data = "synth:seed=11,windows=6,size=160x96";
    let mut lines = [String::new(), String::new()];
    let mut chains = 0;
    for (index, sample) in (0..).zip(samples(data)) {
        let depth = sample.depth.as_ref().unwrap();
        let maps = training::chains::DepthMap::window(depth, 160, sample.metric);
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(index);
        let Ok(chain) = training::chains::chain(&sample.ground_truth, &sample.intrinsics, &maps, &mut rng) else {
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
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/training/nano-2-poses.toml");
    let shape = training::nano::Shape {
        hidden_size: 48,
        layers: 2,
        intermediate_size: 64,
        vision_hidden_size: 32,
        vision_depth: 2,
        vision_intermediate_size: 32,
        min_pixels: 1024,
        max_pixels: 3 * 1024,
        ..training::sft::read_config(&config).unwrap().shape.unwrap()
    };
    training::student::Student::new(&shape, 0).unwrap().save(&at("weights")).unwrap();
    let data = "synth:seed=5,windows=2,size=64x48";
    let args = Args {
        weights: Some(at("weights")),
        estimator: None,
        constrained: true,
        reversed: true,
        max_tokens: 800,
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
fn strata_tell_what_a_window_is() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    // A camera that turns two degrees a frame in front of a grey wall.
    let wall: [RgbImage; 6] = std::array::from_fn(|_| RgbImage::from_pixel(64, 48, Rgb([128; 3])));
    let turning = |degrees: f64| -> [Isometry3<f64>; 6] {
        std::array::from_fn(|i| Isometry3::rotation(Vector3::new(0.0, degrees.to_radians() * i as f64, 0.0)))
    };
    record(&at("turning"), &wall, &turning(2.0));
    let report = run("identity", &at("turning").display().to_string(), &at("a"));
    for (name, windows) in
        [("rotation_only", 2), ("near_still", 0), ("moving", 0), ("texture_low", 2), ("texture_high", 0), ("blur", 2)]
    {
        assert_eq!(stratum(&report, name), windows, "{name}: {report:#}");
    }
    assert_eq!(stratum(&report, "parallax_unknown"), 2, "no depth");
    let rows = report["strata"].as_array().unwrap();
    let row = rows.iter().find(|row| row["stratum"] == "rotation_only").unwrap();
    let rre = row["rre_deg"]["value"].as_f64().unwrap();
    assert!((rre - 5.0).abs() < 1e-6, "2, 4, 6 and 8 degrees, got {rre}");
    assert!(row["tde_deg"].is_null() && row["tde_windows"] == 0 && row["parse"]["value"] == 1.0, "{row:#}");
    // The same, hardly turning; and a film of a room, with things on its walls.
    record(&at("resting"), &wall, &turning(0.1));
    assert_eq!(stratum(&run("identity", &at("resting").display().to_string(), &at("b")), "near_still"), 2);
    let synthetic = run("identity", DATA, &at("c"));
    assert!(stratum(&synthetic, "texture_high") >= 1 && stratum(&synthetic, "moving") >= 3, "{synthetic:#}");
    assert_eq!(stratum(&synthetic, "parallax_unknown"), 0, "synthetic depth is known");
    for group in [["texture_low", "texture_high", ""], ["parallax_low", "parallax_medium", "parallax_high"]] {
        assert_eq!(group.map(|name| stratum(&synthetic, name)).iter().sum::<u64>(), 6, "{group:?}");
    }
}

#[test]
fn windows_that_cannot_be_read_are_named_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    film(&at("film"));
    let data = at("film").display().to_string();
    assert!(eval::main(&args("identity", &data, &at("whole"))).unwrap().complete);
    let path = at("film").join("frames/000001.png");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    // Frame 1 is in two of the three windows.
    let done = eval::main(&args("identity", &data, &at("out"))).unwrap();
    assert!(!done.complete && done.text.contains("2 windows could not be read"), "{}", done.text);
    let report = read(&at("out/report.json"));
    assert_eq!((&report["unreadable"]["count"], &report["summary"]["windows"]), (&json!(2), &json!(1)));
    for (k, window) in report["unreadable"]["windows"].as_array().unwrap().iter().enumerate() {
        assert!(window["index"] == k && window["error"].as_str().unwrap().contains("000001.png"), "{window}");
    }
    assert!(std::fs::read_to_string(at("out/tables.md")).unwrap().contains("000001.png"));
    assert_eq!(answers(&at("out")).len(), 1);
    // Not one window left is no result.
    std::fs::write(at("film").join("frames/000003.png"), b"no image").unwrap();
    let error = format!("{:#}", eval::main(&args("identity", &data, &at("out"))).unwrap_err());
    assert!(error.contains("not one of 3 windows"), "{error}");
}

#[test]
fn a_report_goes_into_a_manifest_as_before() {
    let dir = tempfile::tempdir().unwrap();
    let report = run("identity", DATA, dir.path());
    let manifest = dir.path().join("manifest.json");
    std::fs::write(&manifest, r#"{"stages": []}"#).unwrap();
    eval::record(&report, &manifest).unwrap();
    let measured = &read(&manifest)["measured"][DATA];
    assert_eq!((&measured["windows"], &measured["unreadable"]), (&json!(6), &json!(0)));
    assert_eq!(measured["tde_deg_median"]["value"], 90.0);
    assert_eq!(report["summary"]["seed"], 0);
    assert!(eval::table(&report).contains("rre_deg"), "{}", eval::table(&report));
}
