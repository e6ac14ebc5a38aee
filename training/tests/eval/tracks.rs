//! Tracked points as an estimator: refusals, their own covariances, refinement of another's poses, and whole films.

use std::path::Path;

use geometry::Stamp;
use model::answer::fill::Fill;
use odometry::window::Motion;
use odometry::{Grey, Picture};
use serde_json::{Value, json};
use training_data::synth::{self, Stratum, SynthConfig};
use training_evaluation::eval::{self, Adjusted, Args, Estimator, FilmReport, Mark, Rows, Settings};

use super::{answers, args, filed, read, run, tum_of, write_tum};

/// A report without what depends on the clock.
fn timeless(mut report: Value) -> Value {
    report["latency_ms_median"] = Value::Null;
    report
}

fn adjusted(report: &Value) -> Adjusted {
    serde_json::from_value(report.clone()).unwrap()
}

/// The node's config that ships.
fn node_config() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/node.toml")
}

#[test]
fn windows_that_show_nothing_are_refused_by_reason_and_are_a_result() {
    let dir = tempfile::tempdir().unwrap();
    let data = "synth:seed=4,windows=4,size=160x120,stratum=no_texture";
    let report = run("tracks", data, dir.path());
    let refused: usize = adjusted(&report).refusals.values().sum();
    assert!(refused >= 3, "{:?}", report["refusals"]);
    assert_eq!(json!(4 - refused), report["summary"]["parsed"], "who is refused has no poses");
    assert!(report["errors"].is_null(), "no endpoint has failed");
    let tables = std::fs::read_to_string(dir.path().join("tables.md")).unwrap();
    assert!(tables.contains("tell no poses, by reason") && tables.contains("synth:no_texture"), "{tables}");
    let lines = answers(dir.path());
    let named = lines.iter().filter(|line| line["refusal"].is_string() && line["parsed"] == false).count();
    assert_eq!(named, refused);
    assert!(lines[0]["strata"].as_array().unwrap().contains(&json!("synth:no_texture")), "{}", lines[0]);
    let other = run("identity", data, &dir.path().join("identity"));
    assert_eq!((&other["refusals"], &other["own_covariance"]), (&json!({}), &Value::Null));
}

#[test]
fn tracks_say_how_sure_they_are_and_the_same_on_any_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    let data = "synth:seed=4,windows=8,size=320x240,stratum=texture";
    let settings = Settings { up_to_scale: true, ..Settings::new("tracks", data) };
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let out = dir.path().join(threads.to_string());
        filed(&pool.install(|| eval::run_with(&Estimator::named("tracks").unwrap(), &settings, &out)).unwrap(), &out)
    };
    let (one, four) = (on(1), on(4));
    assert_eq!(timeless(one.clone()), timeless(four));
    let found = adjusted(&one);
    let own = found.own_covariance.unwrap();
    assert!(own.windows >= 7 && own.windows == found.carried.values().sum::<usize>(), "{own:?} {:?}", found.carried);
    // A covariance that is wrong by a unit or an order of its unknowns is wrong by orders of magnitude.
    let nees = own.coverage.nees.value;
    assert!((0.3..100.0).contains(&nees) && own.coverage.within_95.value > 0.3, "{own:?}");
    assert!(found.invented_translation.is_none(), "no camera stays");
    let tables = std::fs::read_to_string(dir.path().join("1/tables.md")).unwrap();
    assert!(tables.contains("| the answers' own |"), "{tables}");
}

/// Surfaces that are seen at a slant change their shape as the camera turns, and edges move by steps: these three were
/// taken for motions of a thousandth of the depth.
#[test]
fn a_turn_before_slanted_surfaces_is_no_motion() {
    for index in [26, 27, 39] {
        let (config, stratum) = (SynthConfig::default(), Some(Stratum::Rotation));
        let window = synth::window_of(&config, stratum, 77, index, (640, 480));
        let pictures = std::array::from_fn(|k| {
            let grey = Grey::from_rgb(640, 480, window.images[k].as_raw()).unwrap();
            Picture::new(Stamp::from_nanos(33_000_000 * (k as i64 + 1)), &window.intrinsics, &grey).unwrap()
        });
        let solved = odometry::window::solve(&pictures, None).unwrap().unwrap();
        assert_eq!(solved.motion, Motion::Turned, "{index}: {:?}", solved.trajectory);
    }
}

#[test]
fn translations_of_cameras_that_stay_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    for stratum in ["rotation", "still"] {
        let data = format!("synth:seed=4,windows=6,size=320x240,stratum={stratum}");
        let report = run("tracks", &data, &dir.path().join(stratum));
        let invented = adjusted(&report).invented_translation.unwrap();
        assert_eq!(invented.still_windows, 6, "{stratum}");
        // Steps of edges are twice as large on pictures that are worked on at twice their size: one in six is known.
        assert!(invented.answered >= 4 && invented.invented <= 1, "{stratum}: {invented:?}");
        let tables = std::fs::read_to_string(dir.path().join(stratum).join("tables.md")).unwrap();
        assert!(tables.contains("Invented translations:"), "{tables}");
    }
}

/// What nano says of depths has no unit, so that the poses stay its own.
#[test]
fn the_points_of_a_chain_that_is_filled_with_what_was_measured_lie_on_the_lines_of_the_truth() {
    let dir = tempfile::tempdir().unwrap();
    let data = "synth:seed=4,windows=3,size=320x240,stratum=texture";
    let epipolar = |fill| {
        let asked = Args {
            weights: Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/weights/nano")),
            estimator: None,
            mode: model::Mode::FullChain,
            fill,
            ..args("", data, dir.path())
        };
        assert!(eval::main(&asked).unwrap().complete);
        let report = read(&dir.path().join("report.json"));
        assert_eq!(report["final_parse_constrained"], 1.0, "{report:#}");
        let text = answers(dir.path())[0]["answer"].as_str().unwrap().to_owned();
        assert_eq!(model::answer::chain::parse(&text).steps(), [true; 5], "{text}");
        report["step_errors"]["epipolar_px"]["median"]["value"].as_f64().unwrap_or_else(|| panic!("{report:#}"))
    };
    let (own, measured) = (epipolar(Fill::Arithmetic), epipolar(Fill::Measured));
    assert!(measured < 0.3 && own > 3.0, "{measured} of {own} px");
}

#[test]
fn three_rows_stand_beside_each_other_on_the_same_windows() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let data = "synth:seed=4,windows=6,size=320x240,stratum=texture";
    // A model that turns by 3 degrees too much in every frame, and is asked once.
    write_tum(&at("files"), data, false, |truth| {
        let mut window = *truth;
        for pose in window.later_mut() {
            let turn = nalgebra::Isometry3::rotation(nalgebra::Vector3::new(0.0, 3.0f64.to_radians(), 0.0));
            *pose = geometry::Transform::from_isometry_unchecked(pose.isometry() * turn);
        }
        window
    });
    let mut asked =
        Args { covariance: Some(node_config()), refine: true, ..args(&tum_of(&at("files")), data, &at("out")) };
    let done = eval::main(&asked).unwrap();
    assert!(done.complete && done.text.contains("both - better"), "{}", done.text);
    let rows: Rows = serde_json::from_value(read(&at("out/rows.json"))).unwrap();
    let all = &rows.groups[0];
    let rre: Vec<f64> = all.rows.iter().map(|row| row.rre_deg.unwrap().value).collect();
    assert!((rre[0] - 3.0).abs() < 1e-3, "the model is wrong by what was asked for: {rre:?}");
    assert!(rre[1] < 0.5 && rre[2] < 1.0, "the program is not, and holds its own against the model: {rre:?}");
    assert!(rre[3] > rre[1], "{rre:?}");
    assert_eq!((all.versus.rre_deg.better.as_deref(), all.windows), (Some("program alone"), 6));
    let names: Vec<&str> = rows.groups.iter().map(|group| group.stratum.as_str()).collect();
    assert!(names.contains(&"all") && names.contains(&"synth:texture") && names.contains(&"sharp"), "{names:?}");
    let last = rows.groups.last().unwrap();
    assert_eq!((last.stratum.as_str(), &last.rows), ("synth:texture", &all.rows));
    assert!(rows.groups.iter().all(|group| group.versus.auc_30.mark != Mark::Worse || group.windows > 1));
    // Each row is a run of its own, and what the run is about is the refined one.
    for (folder, estimator) in [("model", "tum:"), ("program", "tracks"), ("both", "refined"), ("", "refined")] {
        let report = read(&at("out").join(folder).join("report.json"));
        assert!(report["estimator"].as_str().unwrap().contains(estimator), "{folder}: {}", report["estimator"]);
        assert_eq!(report["summary"]["windows"], 6, "{folder}");
    }
    let compared = eval::CompareArgs { a: at("out/both"), b: at("out/model"), out: None };
    assert!(eval::compare(&compared).unwrap().rre_deg.median.unwrap().high < 0.0);
    assert!(std::fs::read_to_string(at("out/rows.md")).unwrap().contains("| constant velocity |"));
    // With --rows the run is about the model.
    (asked.refine, asked.rows, asked.out) = (false, true, at("rows"));
    eval::main(&asked).unwrap();
    assert!(read(&at("rows/report.json"))["estimator"].as_str().unwrap().starts_with("tum:"));
    asked.covariance = None;
    let error = format!("{:#}", eval::main(&asked).unwrap_err());
    assert!(error.contains("--covariance"), "{error}");
}

#[test]
fn a_film_is_followed_from_its_first_frame_to_its_last() {
    let dir = tempfile::tempdir().unwrap();
    let data = "synth:seed=3,films=1,frames=30,size=320x240,stratum=texture";
    let asked = Args { film: true, ..args("tracks", data, dir.path()) };
    let done = eval::main(&asked).unwrap();
    assert!(done.complete && done.text.contains("synth-texture-3-0"), "{}", done.text);
    let report: FilmReport = serde_json::from_value(read(&dir.path().join("report.json"))).unwrap();
    let film = &report.films[0];
    assert_eq!((film.frames, report.windows.windows), (30, 26));
    assert!(film.path.with_pose.unwrap() > 0.8, "{film:?}");
    // One who stands still is off by the spread of the whole path.
    let (own, still) = (film.path.ate_sim3_over_path.unwrap(), film.path.ate_still_over_path.unwrap());
    assert!(own < 0.3 * still, "{film:?}");
    assert!(report.windows.answered.unwrap().value > 0.8 && report.windows.rre_deg.unwrap().value < 1.0, "{report:?}");
    let error = eval::main(&Args { film: true, ..args("identity", data, dir.path()) }).unwrap_err();
    assert!(error.to_string().contains("--film: expected --estimator tracks"), "{error}");
}
