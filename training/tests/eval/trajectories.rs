//! Trajectories that others have written: one file a window, or one of the whole film.

use geometry::{Stamp, Stamped, Transform, tum};
use nalgebra::{Isometry3, Vector3};
use serde_json::{Value, json};
use training_evaluation::eval::{self, Estimator, Settings};

use super::{DATA, answers, filed, film, median, read, run, samples, tum_of, write_tum};

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
    let aligned = filed(&eval::run_with(&Estimator::named(&name).unwrap(), &settings, &out).unwrap(), &out);
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
fn files_that_are_of_other_windows_are_an_error_and_not_misses() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, out) = (dir.path().join("tum"), dir.path().join("out"));
    write_tum(&folder, "synth:seed=6,windows=1,size=64x48", false, |truth| *truth);
    let late: Vec<_> = (0..5)
        .map(|i| Stamped {
            stamp: Stamp::from_nanos(i * 100_000_000 + 1_700_000_000_000_000_000),
            value: Transform::<geometry::World, geometry::Camera>::identity(),
        })
        .collect();
    let (file, lines) = (dir.path().join("late.tum"), dir.path().join("answers.jsonl"));
    tum::write(&file, &late).unwrap();
    std::fs::write(&lines, json!({"id": "synth-6-0", "answer": "<poses>"}).to_string()).unwrap();
    for name in [tum_of(&folder), tum_of(&file), format!("answers:{}", lines.display())] {
        let error = eval::run(&Estimator::named(&name).unwrap(), &name, DATA, &out).unwrap_err().to_string();
        let says =
            format!("{name}: expected answers to the windows of {DATA}, got one to none of 6; the first is called");
        assert!(error.starts_with(&says) && error.contains(" synth-5-0 and is from 0.000 to "), "{error}");
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
    let world =
        Transform::from_isometry_unchecked(Isometry3::new(Vector3::new(5.0, -2.0, 1.0), Vector3::new(0.3, 2.0, -0.4)));
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
