//! The invariants of docs/architecture.md that manifests and `use` statements can show, what dependencies may be, and
//! that the words of docs/troubleshooting.md are still said, the tests of SECURITY.md still there, and one version named in all
//! files of a release.

mod circles;
mod licences;
mod messages;
mod releases;
mod security;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn manifest(krate: &str) -> toml::Table {
    let path = root().join(krate).join("Cargo.toml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.parse().unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn dependencies(krate: &str) -> BTreeSet<String> {
    let manifest = manifest(krate);
    manifest["dependencies"].as_table().map(|t| t.keys().cloned().collect()).unwrap_or_default()
}

/// Crates of this workspace that a crate stands on.
fn ours(krate: &str) -> BTreeSet<String> {
    let members = BTreeSet::from(
        [
            "geometry",
            "camera",
            "odometry",
            "model",
            "node",
            "training",
            "training-data",
            "training-evaluation",
            "tests",
            "xtask",
        ]
        .map(str::to_owned),
    );
    dependencies(krate).intersection(&members).cloned().collect()
}

#[test]
fn crates_stand_on_each_other_as_the_architecture_says() {
    let doc = std::fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    for (krate, expected, sentence) in [
        ("geometry", &[][..], "Architecture Invariant: `geometry` knows none of the other crates"),
        ("camera", &["geometry"], "Architecture Invariant: `camera` stands on `geometry` alone"),
        ("odometry", &["geometry"], "Architecture Invariant: `odometry` stands on `geometry` alone"),
        ("model", &["geometry"], "Architecture Invariant: `model` stands on `geometry` alone"),
        (
            "node",
            &["camera", "geometry", "model", "odometry"],
            "Architecture Invariant: `node` and `training` never see each other",
        ),
        (
            "training/data",
            &["camera", "geometry", "model"],
            "Architecture Invariant: `training/data` knows neither of the other two",
        ),
        (
            "training/evaluation",
            &["geometry", "model", "odometry", "training-data"],
            "Architecture Invariant: `training/data` knows neither of the other two",
        ),
        (
            "training",
            &["geometry", "model", "training-data", "training-evaluation"],
            "Architecture Invariant: `node` and `training` never see each other",
        ),
        ("xtask", &[], "Architecture Invariant: `xtask` links none of the other crates"),
    ] {
        assert_eq!(ours(krate), expected.iter().map(|s| (*s).to_owned()).collect(), "{krate}");
        assert!(doc.contains(sentence), "docs/architecture.md lacks: {sentence}");
    }
}

#[test]
fn what_must_stay_out_of_a_crate_stays_out() {
    for (krate, banned) in [
        ("geometry", &["candle-core", "candle-nn", "image", "tokio", "r2r", "ros2-client"][..]),
        ("camera", &["candle-core", "rayon", "tracing", "r2r", "ros2-client"]),
        ("odometry", &["candle-core", "image", "rayon", "tracing", "r2r", "ros2-client"]),
        ("model", &["r2r", "ros2-client", "clap", "anyhow"]),
        ("node", &["candle-core", "candle-nn", "rayon", "cdr-encoding", "plotters", "dejavu"]),
        ("training", &["r2r", "ros2-client", "mcap", "cdr-encoding", "plotters", "tokio"]),
        ("training/data", &["r2r", "ros2-client", "mcap", "cdr-encoding", "plotters", "tokio"]),
        ("training/evaluation", &["r2r", "ros2-client", "mcap", "cdr-encoding"]),
        ("xtask", &["candle-core", "candle-nn"]),
    ] {
        let found: Vec<String> = dependencies(krate).into_iter().filter(|d| banned.contains(&d.as_str())).collect();
        assert!(found.is_empty(), "{krate} must not depend on {found:?}");
    }
}

#[test]
fn ros_and_cuda_are_choices() {
    for (krate, feature) in [("node", "ros"), ("node", "cuda"), ("model", "cuda"), ("training", "cuda")] {
        let manifest = manifest(krate);
        let features = manifest["features"].as_table().unwrap();
        assert!(features.contains_key(feature), "{krate}: no feature {feature}");
        let default = features.get("default").and_then(|d| d.as_array()).cloned().unwrap_or_default();
        assert!(default.is_empty(), "{krate}: {default:?} on by default");
    }
}

#[test]
fn every_dependency_says_why_it_is_there() {
    let text = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let section = text.split("[workspace.dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    let mut said = false;
    for line in section.lines() {
        if line.starts_with('#') {
            said = true;
        } else if line.trim().is_empty() {
            said = false;
        } else if line.contains(" = ") {
            assert!(said, "no reason above: {line}");
        }
    }
}
