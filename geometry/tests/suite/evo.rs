//! Trajectory errors agree with the public tool evo to 1e-6; `fixtures/make_evo.py` made the numbers.

use std::path::PathBuf;

use geometry::metrics::{Alignment, Pairs, ape, rpe};
use geometry::{Camera, SceneScale, Stamped, Transform, WindowErrors, WindowTrajectory, World, tum};
use serde_json::Value;

const TOLERANCE: f64 = 1e-6;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn read(track: &Value, key: &str) -> Vec<Stamped<Transform<World, Camera>>> {
    tum::read(&fixture(track[key].as_str().unwrap())).unwrap()
}

fn poses(stamped: &[Stamped<Transform<World, Camera>>]) -> Vec<Transform<World, Camera>> {
    stamped.iter().map(|stamped| stamped.value).collect()
}

#[test]
fn the_ate_of_a_window_agrees_with_evo() {
    let text = std::fs::read_to_string(fixture("evo.json")).unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    let track = &golden["trajectories"]["window"];
    let window = |key| {
        let poses: [Transform<World, Camera>; 5] = poses(&read(track, key)).try_into().unwrap();
        WindowTrajectory::from_world(&poses)
    };
    let (truth, estimate) = (window("reference"), window("estimate"));
    let errors = WindowErrors::new(&truth, &estimate, SceneScale::default());
    assert!(!errors.collinear);
    for (alignment, got) in [("se3", errors.ate), ("sim3", errors.ate_sim3)] {
        let cases = track["cases"].as_array().unwrap();
        let case = cases
            .iter()
            .find(|case| case["metric"] == "ape" && case["part"] == "translation" && case["alignment"] == alignment)
            .unwrap();
        let expected = case["rmse"].as_f64().unwrap();
        assert!((got - expected).abs() < TOLERANCE, "{alignment}: {got}, evo has {expected}");
    }
}

#[test]
fn ape_and_rpe_agree_with_evo() {
    let text = std::fs::read_to_string(fixture("evo.json")).unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    let mut compared = 0;
    for (name, track) in golden["trajectories"].as_object().unwrap() {
        let (reference, estimate) = (read(track, "reference"), read(track, "estimate"));
        assert!(reference.iter().zip(&estimate).all(|(a, b)| a.stamp == b.stamp), "{name}: stamps differ");
        let (reference, estimate) = (poses(&reference), poses(&estimate));
        for case in track["cases"].as_array().unwrap() {
            let alignment = match case["alignment"].as_str().unwrap() {
                "none" => Alignment::None,
                "se3" => Alignment::Se3,
                "sim3" => Alignment::Sim3,
                other => panic!("unknown alignment {other}"),
            };
            let delta = case["delta"].as_u64().unwrap() as usize;
            let errors = match (case["metric"].as_str().unwrap(), case["all_pairs"].as_bool()) {
                ("ape", _) => ape(&reference, &estimate, alignment),
                (_, Some(true)) => rpe(&reference, &estimate, alignment, Pairs::All { delta }),
                _ => rpe(&reference, &estimate, alignment, Pairs::Consecutive { delta }),
            }
            .unwrap();
            let got = match case["part"].as_str().unwrap() {
                "translation" => errors.translation,
                _ => errors.rotation_deg,
            };
            assert_eq!(errors.count as u64, case["count"].as_u64().unwrap(), "{name}: {case}");
            for (statistic, got) in [("rmse", got.rmse), ("mean", got.mean), ("median", got.median), ("max", got.max)] {
                let expected = case[statistic].as_f64().unwrap();
                assert!(
                    (got - expected).abs() < TOLERANCE,
                    "{name}: {statistic} is {got}, evo has {expected} in {case}"
                );
                compared += 1;
            }
        }
    }
    // Four trajectories, three alignments, two parts, four calculations, four statistics.
    assert_eq!(compared, 4 * 3 * 2 * 4 * 4);
}
