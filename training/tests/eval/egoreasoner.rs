//! The tables of EgoReasoner against those that a program in Python made of the same runs, and of runs as `eval` writes them.

use std::path::{Path, PathBuf};

use training_evaluation::eval::{TablesArgs, egoreasoner};

use super::{DATA, median, run, tum_of, write_tum};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/egoreasoner")
}

fn tables(runs: &[String], steps: &[String], out: &Path) -> anyhow::Result<String> {
    egoreasoner(&TablesArgs { runs: runs.to_vec(), steps: steps.to_vec(), out: out.to_path_buf() })
}

fn of_fixtures(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| fixtures().join(name).display().to_string()).collect()
}

#[test]
fn four_runs_make_the_tables_and_the_four_panels_of_the_paper() {
    let dir = tempfile::tempdir().unwrap();
    let text = tables(&of_fixtures(&["base", "api", "sft", "grpo"]), &[], dir.path()).unwrap();
    let golden = std::fs::read_to_string(fixtures().join("egoreasoner.md")).unwrap();
    for (got, expected) in text.lines().zip(golden.lines()) {
        assert_eq!(got, expected);
    }
    assert_eq!(text, golden);
    assert_eq!(std::fs::read_to_string(dir.path().join("egoreasoner.md")).unwrap(), golden);
    let picture = image::open(dir.path().join("figure2.png")).unwrap().into_rgb8();
    let (width, height) = picture.dimensions();
    for (k, colour) in [[213, 94, 0], [0, 114, 178], [0, 158, 115], [120, 120, 120]].into_iter().enumerate() {
        for (left, top) in [(0, 0), (width / 2, 0), (0, height / 2), (width / 2, height / 2)] {
            let part = image::imageops::crop_imm(&picture, left, top, width / 2, height / 2).to_image();
            let seen = part.pixels().filter(|pixel| pixel.0 == colour).count();
            assert!(seen > 40, "run {k} in the panel at {left}, {top}: {seen} pixels");
        }
    }
}

#[test]
fn what_eval_writes_is_what_the_tables_say() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    write_tum(&at("files"), DATA, false, |truth| *truth);
    std::fs::remove_file(at("files").join("synth-5-0.tum")).unwrap();
    let still = run("identity", DATA, &at("still"));
    run(&tum_of(&at("files")), DATA, &at("truth"));
    let runs = [format!("never moves={}", at("still").display()), at("truth").display().to_string()];
    let text = tables(&runs, &[], &at("out")).unwrap();
    let row = |part: &str, heading: &str| {
        let part = text.split(part).nth(1).unwrap_or_else(|| panic!("{part}: {text}"));
        part.lines().find(|line| line.contains(heading)).unwrap_or_else(|| panic!("{heading}: {text}")).to_owned()
    };
    assert!(row("### All 6 windows", "| | unit |").contains("| never moves | truth |"), "{text}");
    assert!(row("### All 6 windows", "| parse |").contains("0.8333"), "{text}");
    let shown = match median(&still, "rre_deg") {
        large if large >= 1.0 => format!("{large:.2} ["),
        small => format!("{small:.4} ["),
    };
    assert!(row("### All 6 windows", "| RRE, median |").contains(&shown), "{shown}: {text}");
    assert!(row("### The 5 windows", "| RRE, median |").contains("**0.0000 [0.0000, 0.0000]**"), "{text}");
    // A camera that never moves finds no direction.
    assert!(row("### All 6 windows", "| TDE <= 15 deg").contains("| 0.0000 [0.0000, 0.0000] |"), "{text}");
    assert!(row("### The 5 windows", "| TDE <= 15 deg").contains("**1.00 [1.00, 1.00]**"), "{text}");
    assert!(row("## Table 2", "| S1: parse |").ends_with("| - | - |"), "no chains: {text}");
}

#[test]
fn runs_that_do_not_go_together_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let error = |runs: &[String], steps: &[String]| format!("{:#}", tables(runs, steps, &out).unwrap_err());
    let twice = error(&of_fixtures(&["sft", "sft"]), &[]);
    assert!(twice.contains("expected runs of other names (NAME=FOLDER), got two called sft"), "{twice}");
    let many: Vec<String> = (0..9).map(|k| format!("{k}={}", fixtures().join("sft").display())).collect();
    assert!(error(&many, &[]).contains("expected at most 8 runs, got 9"));
    let copy = |name: &str, change: fn(&str) -> String| {
        let folder = dir.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::copy(fixtures().join("sft/report.json"), folder.join("report.json")).unwrap();
        let lines = std::fs::read_to_string(fixtures().join("sft/answers.jsonl")).unwrap();
        std::fs::write(folder.join("answers.jsonl"), change(&lines)).unwrap();
        folder.display().to_string()
    };
    let old = copy("old", |lines| lines.replace(", \"moving_pairs\": 4", ""));
    let told = error(&[old], &[]);
    assert!(told.contains("old/answers.jsonl: window film-s1-0: expected ate and moving_pairs"), "{told}");
    let others = copy("others", |lines| lines.replace("film-s1-3", "film-s1-9"));
    let told = error(&[of_fixtures(&["base"]).remove(0), others.clone()], &[]);
    assert!(told.contains("expected the same windows") && told.contains("lacks 1 of the other's 8"), "{told}");
    // Table 2 may be of windows of its own.
    let text = tables(&of_fixtures(&["base", "sft"]), std::slice::from_ref(&others), &out).unwrap();
    assert!(text.split("## Table 2").nth(1).unwrap().contains("| | unit | others |"), "{text}");
    assert!(error(&of_fixtures(&["nowhere"]), &[]).contains("nowhere/report.json"));
}
