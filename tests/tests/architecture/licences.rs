//! What the dependencies may be: deny.toml, as `cargo deny check bans licenses sources` reads it, on every machine.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;
use spdx::{Expression, ParseMode};

use super::root;

fn words(value: &toml::Value) -> BTreeSet<String> {
    value.as_array().into_iter().flatten().filter_map(|word| Some(word.as_str()?.to_owned())).collect()
}

/// What deny.toml says, as far as it is held here.
struct Rules {
    allow: BTreeSet<String>,
    /// Licences of single crates beside these.
    exceptions: Vec<(String, BTreeSet<String>)>,
    banned: BTreeSet<String>,
}

impl Rules {
    fn read() -> Self {
        let text = std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml");
        let deny: toml::Table = text.parse().expect("TOML");
        let name = |table: &toml::Value| table["crate"].as_str().expect("a name").to_owned();
        let tables = |value: Option<&toml::Value>| value.and_then(|v| v.as_array()).cloned().unwrap_or_default();
        let exceptions = tables(deny["licenses"].get("exceptions"));
        Self {
            allow: words(&deny["licenses"]["allow"]),
            exceptions: exceptions.iter().map(|table| (name(table), words(&table["allow"]))).collect(),
            banned: tables(deny["bans"].get("deny")).iter().map(name).collect(),
        }
    }

    /// What is wrong with a package of `cargo metadata`.
    fn fault(&self, package: &Value) -> Option<String> {
        let name = package["name"].as_str()?;
        if self.banned.contains(name) {
            return Some("is banned".to_owned());
        }
        // Those of the workspace have no source.
        let source = package["source"].as_str()?;
        if !source.starts_with("registry+") {
            return Some(format!("comes from {source}, not from a registry"));
        }
        let Some(licence) = package["license"].as_str() else { return Some("names no licence".to_owned()) };
        let own = self.exceptions.iter().filter(|(of, _)| of == name).flat_map(|(_, allow)| allow);
        let allowed: BTreeSet<&String> = self.allow.iter().chain(own).collect();
        match Expression::parse_mode(licence, ParseMode::LAX) {
            Err(error) => Some(format!("{licence}: {error}")),
            Ok(expression) if expression.evaluate(|wanted| allowed.contains(&wanted.to_string())) => None,
            Ok(_) => Some(format!("is under {licence}")),
        }
    }
}

fn metadata() -> Value {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version", "1", "--all-features", "--locked"]).current_dir(root());
    let output = cargo.output().expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn dependencies_are_what_deny_toml_allows() {
    let (rules, metadata) = (Rules::read(), metadata());
    let packages = metadata["packages"].as_array().expect("packages");
    assert!(packages.len() > 300, "{} packages", packages.len());
    let fault = |package: &Value| Some(format!("{} {}\n", package["name"], rules.fault(package)?));
    let faults: String = packages.iter().filter_map(fault).collect();
    assert!(faults.is_empty(), "{faults}");
}

#[test]
fn yanked_crates_are_refused_and_no_advisory_is_passed_over() {
    let text = std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml");
    let deny: toml::Table = text.parse().expect("TOML");
    let advisories = deny["advisories"].as_table().expect("a table");
    assert_eq!(advisories.get("yanked").and_then(toml::Value::as_str), Some("deny"));
    assert_eq!(advisories.get("ignore"), None, "each that is passed over is a hole: give its reason here");
}

#[test]
fn what_is_not_allowed_is_named() {
    let rules = Rules::read();
    let package = |name: &str, licence: &str, source: &str| serde_json::json!({"name": name, "license": licence, "source": source});
    let registry = "registry+https://github.com/rust-lang/crates.io-index";
    for (name, licence, source, part) in [
        ("a", "GPL-3.0-only", registry, Some("is under GPL-3.0-only")),
        ("a", "GPL-3.0-only OR MIT", registry, None),
        ("a", "MIT AND GPL-3.0-only", registry, Some("is under")),
        ("a", "MIT/Apache-2.0", registry, None),
        ("a", "Apache-2.0 WITH LLVM-exception", registry, None),
        ("a", "no licence", registry, Some("no licence:")),
        ("a", "NCSA", registry, Some("is under NCSA")),
        ("libfuzzer-sys", "NCSA", registry, None),
        ("reqwest", "MIT", registry, Some("is banned")),
        ("a", "MIT", "git+https://example.org/a", Some("not from a registry")),
    ] {
        let fault = rules.fault(&package(name, licence, source));
        assert_eq!(fault.is_some(), part.is_some(), "{name} {licence}: {fault:?}");
        assert!(fault.unwrap_or_default().contains(part.unwrap_or_default()), "{name} {licence}");
    }
}
