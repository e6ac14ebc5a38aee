//! Two runs side by side, window by window.

use std::path::{Path, PathBuf};

use training_evaluation::eval::{self, CompareArgs};

use super::{DATA, read, run, tum_of, write_tum, written};

fn compare(a: &Path, b: &Path, out: Option<PathBuf>) -> anyhow::Result<eval::Comparison> {
    eval::compare(&CompareArgs { a: a.to_path_buf(), b: b.to_path_buf(), out })
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
