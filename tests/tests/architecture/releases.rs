//! What a release is made of: one version wherever one is named, and a Debian package of files that are there.

use std::path::Path;

use super::{manifest, root};

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// What stands between the first `begin` and the `end` behind it.
fn between<'a>(text: &'a str, begin: &str, end: &str) -> Option<&'a str> {
    Some(text.split_once(begin)?.1.split_once(end)?.0)
}

#[test]
fn every_file_that_names_the_version_names_the_same() {
    let workspace = manifest(".");
    let version = workspace["workspace"]["package"]["version"].as_str().expect("a version");
    let pixi: toml::Table = text("pixi.toml").parse().expect("TOML");
    assert_eq!(pixi["workspace"]["version"].as_str(), Some(version), "pixi.toml");
    assert_eq!(between(&text("launch/package.xml"), "<version>", "</version>"), Some(version), "launch/package.xml");
    assert_eq!(between(&text("CHANGELOG.md"), "\n## [", "]"), Some(version), "CHANGELOG.md");
}

#[test]
fn the_debian_package_is_of_files_that_are_there() {
    let node = manifest("node");
    let deb = &node["package"]["metadata"]["deb"];
    let assets = deb["assets"].as_array().expect("assets");
    let mut places = Vec::new();
    for asset in assets {
        let words: Vec<&str> = asset.as_array().into_iter().flatten().filter_map(|word| word.as_str()).collect();
        let &[source, place, mode] = &words[..] else { panic!("expected source, place and mode, got {asset}") };
        assert_eq!(mode, if place.contains("/bin/") { "755" } else { "644" }, "{place}");
        places.push(place);
        // What cargo and `cargo xtask dist` make.
        if source.starts_with("target/") || source.starts_with("../target/dist/") {
            continue;
        }
        let source = root().join("node").join(source);
        let file = source.strip_prefix(root()).unwrap_or(&source).display().to_string();
        let is_there = match source.file_name() {
            Some(name) if name == "*" => source.parent().is_some_and(Path::is_dir),
            _ => source.is_file(),
        };
        assert!(is_there, "{file}");
    }
    // The node looks for its config in the prefix around it, and the config for its weights.
    let config = text("config/node.toml");
    let weights = between(&config, "\nweights = \"", "\"").expect("model.weights");
    assert!(places.contains(&"usr/bin/egoreasoner_node") && places.contains(&"usr/share/egoreasoner/config/node.toml"));
    assert!(places.contains(&format!("usr/share/egoreasoner/{}/", weights.trim_start_matches("../")).as_str()));
}

#[test]
fn both_services_are_shut_off_alike() {
    let hardening = |unit: &str| {
        let unit = text(unit);
        let lines = unit.lines().map(str::to_owned).skip_while(|line| !line.starts_with("UMask="));
        lines.take_while(|line| !line.starts_with('#')).collect::<Vec<_>>()
    };
    let lines = hardening("launch/systemd/egoreasoner.service");
    assert!(lines.len() > 15, "{lines:?}");
    assert_eq!(hardening("launch/systemd/egoreasoner-node.service"), lines);
}
