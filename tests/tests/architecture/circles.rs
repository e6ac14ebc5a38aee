//! Files of a crate that name each other in a circle: none of them can be read, moved or tested without the others.
//!
//! An arrow goes from a file to the one that defines what it names by a path from `crate` or `super`; what another hands
//! on with `pub use` is the definer's. Tests inside a file are left out, and so is the crate's root, which only hands on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::root;

/// A module's path below the crate's root.
type Module = Vec<String>;

/// The code of a file without comments and without the tests at its end.
fn code(text: &str) -> String {
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let code: Vec<&str> = lines.collect();
    let is_test = |k: &usize| code[*k].trim() == "#[cfg(test)]" && code.get(k + 1).is_some_and(|l| l.ends_with('{'));
    let end = (0..code.len()).find(is_test).unwrap_or(code.len());
    code[..end].join("\n")
}

/// Every `.rs` file below `folder` by its module.
fn files(folder: &Path, at: &Module, found: &mut BTreeMap<Module, String>) {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let below = |name: &str| at.iter().cloned().chain([name.to_owned()]).collect::<Module>();
        if path.is_dir() {
            files(&path, &below(&name), found);
        } else if path.extension().is_some_and(|e| e == "rs") && !name.contains("tests") {
            let module = if name == "mod" || name == "lib" { at.clone() } else { below(&name) };
            found.insert(module, code(&std::fs::read_to_string(&path).expect("a file of text")));
        }
    }
}

/// The paths of a tree such as `a::{b, c::{d, e as f}}`.
fn paths(tree: &str) -> Vec<Vec<String>> {
    let tree = tree.trim();
    let Some((head, rest)) = tree.split_once('{') else {
        let name = tree.split(" as ").next().unwrap_or_default().trim();
        return vec![name.split("::").map(|part| part.trim().to_owned()).collect()];
    };
    let inside = rest.rsplit_once('}').map_or(rest, |(inside, _)| inside);
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (k, c) in inside.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&inside[start..k]);
                start = k + 1;
            }
            _ => (),
        }
    }
    parts.push(&inside[start..]);
    let whole = parts.into_iter().filter(|part| !part.trim().is_empty()).map(|part| format!("{head}{}", part.trim()));
    whole.flat_map(|path| paths(&path)).collect()
}

/// What the `use` statements of a file name: of itself, and to hand on; and the rest of its text.
fn uses(text: &str) -> (Vec<Vec<String>>, Vec<Vec<String>>, String) {
    let (mut own, mut handed, mut rest) = (Vec::new(), Vec::new(), String::new());
    let mut left = text;
    while let Some(at) = left.find("use ") {
        let is_word = left[..at].chars().next_back().is_none_or(|c| c.is_whitespace());
        let Some(end) = left[at..].find(';').filter(|_| is_word) else {
            rest.push_str(&left[..at + 4]);
            left = &left[at + 4..];
            continue;
        };
        let line = left[..at].rsplit('\n').next().unwrap_or_default().trim();
        let found = paths(&left[at + 4..at + end].replace('\n', " "));
        if line.starts_with("pub") {
            handed.extend(found);
        } else {
            own.extend(found);
        }
        rest.push_str(&left[..at]);
        left = &left[at + end..];
    }
    rest.push_str(left);
    (own, handed, rest)
}

/// Paths from `crate` or `super` in the text of a file.
fn inline(text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for start in ["crate::", "super::"] {
        for (at, _) in text.match_indices(start) {
            let is_whole = text[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':');
            let path = text[at..].split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').next();
            if let Some(path) = path.filter(|_| is_whole) {
                found.push(path.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect());
            }
        }
    }
    found
}

struct Crate {
    texts: BTreeMap<Module, String>,
    handed: BTreeMap<Module, Vec<Vec<String>>>,
}

impl Crate {
    fn read(folder: &Path) -> Self {
        let mut texts = BTreeMap::new();
        files(folder, &Vec::new(), &mut texts);
        let handed = texts.iter().map(|(module, text)| (module.clone(), uses(text).1)).collect();
        Self { texts, handed }
    }

    /// A path as seen from the crate's root; `None` where it leads out of the crate.
    fn absolute(&self, from: &Module, path: &[String]) -> Option<Vec<String>> {
        let supers = path.iter().take_while(|part| *part == "super").count();
        match path.first().map(String::as_str) {
            Some("crate") => Some(path[1..].to_vec()),
            Some("self") => Some([from.as_slice(), &path[1..]].concat()),
            Some("super") => Some([&from[..from.len().saturating_sub(supers)], &path[supers..]].concat()),
            Some(first) => {
                let below = [from.as_slice(), &[first.to_owned()]].concat();
                self.texts.contains_key(&below).then(|| [from.as_slice(), path].concat())
            }
            None => None,
        }
    }

    /// The file that defines what a path from the root names.
    fn definer(&self, path: &[String], hops: usize) -> Module {
        let known = (0..=path.len()).rev().find(|k| self.texts.contains_key(&path[..*k])).unwrap_or(0);
        let module = path[..known].to_vec();
        let Some(name) = path.get(known).filter(|_| hops < 8) else { return module };
        for handed in self.handed.get(&module).into_iter().flatten().filter(|handed| handed.last() == Some(name)) {
            if let Some(full) = self.absolute(&module, handed).filter(|full| full != path) {
                return self.definer(&[full.as_slice(), &path[known + 1..]].concat(), hops + 1);
            }
        }
        module
    }

    fn arrows(&self) -> BTreeMap<Module, BTreeMap<Module, BTreeSet<String>>> {
        let mut arrows: BTreeMap<Module, BTreeMap<Module, BTreeSet<String>>> = BTreeMap::new();
        for (module, text) in &self.texts {
            let (own, _, rest) = uses(text);
            for path in own.into_iter().chain(inline(&rest)) {
                if !matches!(path.first().map(String::as_str), Some("crate" | "super")) {
                    continue;
                }
                let Some(full) = self.absolute(module, &path) else { continue };
                let to = self.definer(&full, 0);
                if to != *module && !to.is_empty() {
                    let name = path.last().cloned().unwrap_or_default();
                    arrows.entry(module.clone()).or_default().entry(to).or_default().insert(name);
                }
            }
        }
        arrows
    }

    /// The arrows that are left when files without an arrow, and arrows to them, are taken away again and again.
    fn circles(&self) -> String {
        let mut arrows = self.arrows();
        loop {
            let standing: BTreeSet<Module> = arrows.keys().cloned().collect();
            for own in arrows.values_mut() {
                own.retain(|to, _| standing.contains(to));
            }
            let before = arrows.len();
            arrows.retain(|_, own| !own.is_empty());
            if arrows.len() == before {
                break;
            }
        }
        let lines = arrows.iter().flat_map(|(from, own)| {
            own.iter().map(|(to, names)| format!("{} -> {}: {names:?}\n", from.join("::"), to.join("::")))
        });
        lines.collect()
    }
}

#[test]
fn no_crate_has_a_circle() {
    let mut faults = String::new();
    for krate in [
        "geometry",
        "camera",
        "odometry",
        "model",
        "node",
        "training",
        "training/data",
        "training/evaluation",
        "tests",
        "xtask",
    ] {
        let read = Crate::read(&root().join(krate).join("src"));
        assert!(krate == "tests" || read.arrows().len() > 3, "{krate}: no arrows found");
        let circles = read.circles();
        if !circles.is_empty() {
            faults += &format!("{krate}, circles and what leads to them:\n{circles}");
        }
    }
    assert!(faults.is_empty(), "{faults}");
}

#[test]
fn a_circle_is_seen() {
    let module = |name: &str| vec![name.to_owned()];
    let read = |texts: &[(&str, &str)]| {
        let texts: BTreeMap<Module, String> = texts.iter().map(|(name, text)| (module(name), code(text))).collect();
        let handed = texts.iter().map(|(name, text)| (name.clone(), uses(text).1)).collect();
        Crate { texts, handed }.circles()
    };
    let (a, b) = ("use crate::b::{self, Thing};\n", "fn f() -> crate::a::Other {}\n");
    assert!(!read(&[("a", a), ("b", b)]).is_empty());
    assert!(read(&[("a", a), ("b", "// use crate::a::Other;\n")]).is_empty());
    assert!(read(&[("a", a), ("b", "#[cfg(test)]\nmod tests {\n use crate::a::Other;\n}\n")]).is_empty());
    // Through a face that only hands on.
    assert!(
        !read(&[("a", "use crate::face::Thing;"), ("face", "pub use crate::c::Thing;"), ("c", "use crate::a::X;")])
            .is_empty()
    );
}
