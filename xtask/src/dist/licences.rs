//! The licences of all that is linked into `node` and `training`: what `cargo metadata` says each crate is under, and the
//! texts that lie in its source. Crates that only build, test or generate at build time are left out; those whose
//! procedural macros write a part of the programs are not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::workspace;

/// The programs of an archive.
const PROGRAMS: [&str; 2] = ["node", "training"];
/// How names of files with licences begin, in small letters.
const BEGINNINGS: [&str; 5] = ["licen", "copying", "copyright", "notice", "unlicense"];
/// What is called so and is none.
const SOURCES: [&str; 9] = ["rs", "c", "h", "py", "sh", "json", "toml", "yml", "html"];
/// Folders inside a crate that are searched, such as `c_src/mimalloc/v2`.
const DEPTH: usize = 3;
/// Folders of which nothing is linked; the command lines beside a library of C may have licences of their own (lz4's GPL).
const PASSED_OVER: [&str; 6] = ["tests", "benches", "examples", "target", "programs", "contrib"];

/// The MIT licence, for crates that are under it and bring no text.
const MIT: &str = "\
Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation
files (the \"Software\"), to deal in the Software without restriction, including without limitation the rights to use, copy,
modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the
Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED \"AS IS\", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE,
ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.";

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    license_file: Option<PathBuf>,
    #[serde(default)]
    authors: Vec<String>,
    repository: Option<String>,
    /// `None` where it is of this workspace.
    source: Option<String>,
    manifest_path: PathBuf,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    /// `None` where it is linked, else `build` or `dev`.
    kind: Option<String>,
}

/// All licences of an archive for `triple`, as one text.
///
/// # Errors
///
/// Where `cargo metadata` fails, and a crate whose licence has no text.
pub fn of(triple: &str) -> Result<String> {
    let mut cargo = workspace::cargo();
    cargo.args(["metadata", "--format-version", "1", "--locked", "--filter-platform", triple]);
    let metadata: Metadata = serde_json::from_str(&workspace::output(&mut cargo)?).context("cargo metadata")?;
    let apache = fs::read_to_string(workspace::root().join("LICENSE")).context("LICENSE")?;
    list(&linked(&metadata), &apache)
}

/// The crates of others that the programs are linked with, by name.
fn linked(metadata: &Metadata) -> Vec<&Package> {
    let packages: BTreeMap<&str, &Package> = metadata.packages.iter().map(|p| (p.id.as_str(), p)).collect();
    let nodes: BTreeMap<&str, &Node> = metadata.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    let is_program = |package: &&Package| package.source.is_none() && PROGRAMS.contains(&package.name.as_str());
    let mut open: Vec<&str> = metadata.packages.iter().filter(is_program).map(|p| p.id.as_str()).collect();
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    while let Some(id) = open.pop() {
        if seen.insert(id) {
            let deps = nodes.get(id).into_iter().flat_map(|node| &node.deps);
            let is_linked = |dep: &&Dependency| dep.dep_kinds.iter().any(|kind| kind.kind.is_none());
            open.extend(deps.filter(is_linked).map(|dep| dep.pkg.as_str()));
        }
    }
    let foreign = seen.into_iter().filter_map(|id| packages.get(id).copied()).filter(|p| p.source.is_some());
    let mut found: Vec<&Package> = foreign.collect();
    found.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    found
}

/// The crates with the numbers of their texts, and behind them each text once.
fn list(packages: &[&Package], apache: &str) -> Result<String> {
    // Writing to a String cannot fail.
    let (mut numbers, mut texts): (BTreeMap<String, usize>, Vec<String>) = (BTreeMap::new(), Vec::new());
    let mut page = String::from(
        "What EgoReasoner's programs are linked with, what each of it is under, and the numbers of the texts below.\n\n",
    );
    for package in packages {
        let mut own = BTreeSet::new();
        for text in texts_of(package, apache)? {
            let next = texts.len() + 1;
            let number = *numbers.entry(text.clone()).or_insert(next);
            if number == next {
                texts.push(text);
            }
            own.insert(number);
        }
        let own: Vec<String> = own.iter().map(ToString::to_string).collect();
        let Package { name, version, .. } = package;
        let licence = package.license.as_deref().unwrap_or("its own licence");
        let _ = writeln!(page, "{name} {version}: {licence}; texts {}", own.join(", "));
        for more in package.authors.iter().chain(&package.repository) {
            let _ = writeln!(page, "    {more}");
        }
    }
    for (number, text) in (1..).zip(&texts) {
        let _ = write!(page, "\n---- text {number} ----\n\n{text}\n");
    }
    Ok(page)
}

/// The texts in a crate's source; where it has none, those of the licences that it names.
fn texts_of(package: &Package, apache: &str) -> Result<Vec<String>> {
    let folder = package.manifest_path.parent().context("a manifest lies in a folder")?;
    let mut files = BTreeSet::new();
    search(folder, DEPTH, &mut files)?;
    files.extend(package.license_file.iter().map(|file| folder.join(file)).filter(|file| file.is_file()));
    if files.is_empty() {
        return standard(package, apache);
    }
    let read = |file: &PathBuf| -> Result<String> {
        let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let text = String::from_utf8_lossy(&bytes).replace("\r\n", "\n");
        Ok(text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n").trim_matches('\n').to_owned())
    };
    files.iter().map(read).collect()
}

/// Finds files with licences, `depth` folders down. A COPYING beside a LICENSE is the other half of a choice.
fn search(folder: &Path, depth: usize, found: &mut BTreeSet<PathBuf>) -> Result<()> {
    let mut here: Vec<(String, PathBuf)> = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        if path.is_dir() {
            if depth > 0 && !PASSED_OVER.contains(&name.as_str()) {
                search(&path, depth - 1, found)?;
            }
        } else if is_licence(&name) || folder.file_name().is_some_and(|f| f.eq_ignore_ascii_case("LICENSES")) {
            here.push((name, path));
        }
    }
    let has_licence = here.iter().any(|(name, _)| name.starts_with("licen"));
    found.extend(here.into_iter().filter(|(name, _)| !(has_licence && name.starts_with("copying"))).map(|(_, p)| p));
    Ok(())
}

/// Whether a file of this name, in small letters, holds a licence.
fn is_licence(name: &str) -> bool {
    let is_source = name.rsplit_once('.').is_some_and(|(_, extension)| SOURCES.contains(&extension));
    !is_source && BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
}

/// The plain texts of the licences among which a crate without any lets one choose.
fn standard(package: &Package, apache: &str) -> Result<Vec<String>> {
    let expression = package.license.as_deref().unwrap_or_default();
    let choices = expression.split('/').flat_map(|part| part.split(" OR ")).map(str::trim);
    let text = |licence: &str| match licence {
        "MIT" => Some(format!("Copyright (c) {}\n\n{MIT}", holders(package))),
        "Apache-2.0" => Some(apache.trim_matches('\n').to_owned()),
        _ => None,
    };
    let texts: Vec<String> = choices.filter_map(text).collect();
    if texts.is_empty() {
        let Package { name, version, .. } = package;
        bail!("{name} {version} brings no text of its licence, and there is none here of {expression}");
    }
    Ok(texts)
}

fn holders(package: &Package) -> String {
    if package.authors.is_empty() { format!("the authors of {}", package.name) } else { package.authors.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dist::platform::Target;

    fn package(folder: &Path, licence: &str) -> Package {
        Package {
            id: "a 1".to_owned(),
            name: "a".to_owned(),
            version: "1.0.0".to_owned(),
            license: Some(licence.to_owned()),
            license_file: None,
            authors: vec!["Ada".to_owned()],
            repository: Some("https://example.org/a".to_owned()),
            source: Some("registry".to_owned()),
            manifest_path: folder.join("Cargo.toml"),
        }
    }

    fn scratch(name: &str) -> PathBuf {
        let folder = workspace::target().join(format!("xtask-licences-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("scratch can be written");
        folder
    }

    #[test]
    fn everything_that_is_linked_has_a_text_and_nothing_else_is_named() {
        let target = Target::new(None).expect("rustc");
        let page = of(target.triple()).expect("cargo metadata, and a text for every crate");
        let (crates, texts) = page.split_once("\n---- text 1 ----\n").expect("texts");
        let names: BTreeSet<&str> = crates
            .lines()
            .filter(|line| !line.starts_with(' '))
            .filter_map(|line| Some(line.split_once(": ")?.0.split_once(' ')?.0))
            .collect();
        // Of each program one, a procedural macro, vendored C, one that brings no text.
        for name in ["ros2-client", "indicatif", "serde_derive", "zstd-sys", "mcap"] {
            assert!(names.contains(name), "{name} is missing from {names:?}");
        }
        // Only tests, benches, fuzzing and build scripts have these; and ours are ours.
        for name in ["criterion", "proptest", "spdx", "libfuzzer-sys", "cc", "geometry"] {
            assert!(!names.contains(name), "{name} is in no program");
        }
        assert!(texts.contains("Permission is hereby granted") && texts.contains("TERMS AND CONDITIONS FOR USE"));
        assert!(!texts.contains("GNU GENERAL PUBLIC LICENSE"), "the half of a choice that was not taken");
    }

    #[test]
    fn texts_in_a_source_are_found_and_given_once() {
        let folder = scratch("found");
        for (file, text) in [
            ("LICENSE-MIT", "one \r\n"),
            ("COPYING", "the other half of a choice"),
            ("vendored/c/NOTICE", "two\n"),
            ("license.rs", "mod license;"),
            ("tests/LICENSE", "of a test"),
            ("vendored/programs/COPYING", "of a command line"),
        ] {
            let path = folder.join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("scratch can be written");
            fs::write(path, text).expect("scratch can be written");
        }
        let one = package(&folder, "MIT");
        let page = list(&[&one, &one], "").expect("texts");
        assert_eq!(page.matches("a 1.0.0: MIT; texts 1, 2\n    Ada\n    https://example.org/a\n").count(), 2);
        assert!(page.ends_with("\n---- text 1 ----\n\none\n\n---- text 2 ----\n\ntwo\n"), "{page}");
        fs::remove_dir_all(folder).expect("scratch can be removed");
    }

    #[test]
    fn a_crate_without_a_text_gets_that_of_its_licence_or_is_named() {
        let folder = scratch("none");
        for (licence, expected) in [("MIT", 1), ("MIT/Apache-2.0", 2), ("Zlib OR Apache-2.0", 1)] {
            let texts = texts_of(&package(&folder, licence), "the text of Apache").expect("a text");
            assert_eq!(texts.len(), expected, "{licence}");
            assert_eq!(
                texts[0].starts_with("Copyright (c) Ada\n\nPermission"),
                licence.starts_with("MIT"),
                "{licence}"
            );
        }
        // Both halves are wanted, and one of them is not here.
        let why = texts_of(&package(&folder, "MIT AND ISC"), "").expect_err("no text").to_string();
        assert_eq!(why, "a 1.0.0 brings no text of its licence, and there is none here of MIT AND ISC");
        fs::remove_dir_all(folder).expect("scratch can be removed");
    }
}
