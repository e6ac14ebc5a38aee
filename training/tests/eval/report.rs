//! What a run leaves behind: figures, tables, strata, and the names of what could not be read.

use geometry::tum;
use image::{Rgb, RgbImage};
use nalgebra::{Isometry3, Vector3};
use serde_json::{Value, json};
use training_evaluation::eval;

use super::{DATA, answers, args, film, median, read, record, run, samples, written};

fn typed(report: &Value) -> eval::Report {
    serde_json::from_value(report.clone()).unwrap()
}

fn stratum(report: &Value, name: &str) -> u64 {
    let rows = report["strata"].as_array().unwrap();
    rows.iter().find(|row| row["stratum"] == name).map_or(0, |row| row["windows"].as_u64().unwrap())
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
        let last = sample.ground_truth.anchor_from_camera()[4];
        assert!((truth[4].value.translation() - last.translation()).norm() < 1e-12);
    }
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
    std::fs::write(&manifest, r#"{"stages": [], "notes": "mine"}"#).unwrap();
    eval::record(&typed(&report), &manifest).unwrap();
    assert_eq!(read(&manifest)["notes"], "mine", "what somebody else wrote there stays");
    let measured = &read(&manifest)["measured"][DATA];
    assert_eq!((&measured["windows"], &measured["unreadable"]), (&json!(6), &json!(0)));
    assert_eq!(measured["tde_deg_median"]["value"], 90.0);
    assert_eq!(report["summary"]["seed"], 0);
    let table = eval::table(&typed(&report));
    assert!(table.contains("rre_deg"), "{table}");
}
