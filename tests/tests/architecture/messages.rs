//! docs/troubleshooting.md against the sources: the words in its tables are still said by a program.
//!
//! What a user reads is a template with values in it: a phrase is split at `…`, and its parts are looked for in the sources,
//! whose placeholders (`{name}`, `{:.1}`) are `…` there too. Comments and tests say nothing to a user and are left out, and
//! so are tables whose first column is not `words`: exit statuses, and what other programs say.

use std::path::Path;

use super::root;

const PAGE: &str = "docs/troubleshooting.md";

/// Where the words that a user may meet are written.
const FOLDERS: [&str; 8] =
    ["camera/src", "geometry/src", "odometry/src", "model/src", "node/src", "training", "xtask/src", "launch"];

/// Shorter parts are found anywhere; one of them counts only where a phrase has nothing longer.
const LEAST_CHARS: usize = 8;

/// A row of the page: its line, counted from 1, and its cells.
type Row = (usize, Vec<String>);

/// The text of a source as its strings are read; `comment` begins a line that is none.
fn as_said(source: &str, comment: &str) -> String {
    let code = source.split("\nmod tests {").next().unwrap_or_default();
    let lines: Vec<&str> = code.lines().filter(|line| !line.trim_start().starts_with(comment)).collect();
    let text = lines.join("\n");
    // A string goes on behind a backslash at the end of its line, without the indent of the next.
    let joined: String =
        text.split("\\\n").enumerate().map(|(k, part)| if k == 0 { part } else { part.trim_start() }).collect();
    with_gaps(&joined.replace("\\\"", "\""))
}

/// The same with `…` for each placeholder; braces with blanks or quotes in them are code.
fn with_gaps(text: &str) -> String {
    let mut gapped = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, inside)) = rest.split_once('{') {
        gapped.push_str(before);
        let end = inside.find(|c: char| matches!(c, '{' | '}' | '"') || c.is_whitespace());
        match end.and_then(|end| inside[end..].strip_prefix('}')) {
            Some(behind) => {
                gapped.push('…');
                rest = behind;
            }
            None => {
                gapped.push('{');
                rest = inside;
            }
        }
    }
    gapped.push_str(rest);
    gapped
}

/// Every source of Rust and Python below `folder`, as it is said.
fn read(folder: &Path, found: &mut Vec<String>) {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for entry in entries {
        let path = entry.unwrap_or_else(|e| panic!("{}: {e}", folder.display())).path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let comment = match path.extension().and_then(|extension| extension.to_str()) {
            _ if ["tests", "benches", "target"].contains(&name.as_str()) => continue,
            Some("rs") => "//",
            Some("py") => "#",
            _ if path.is_dir() => {
                read(&path, found);
                continue;
            }
            _ => continue,
        };
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        found.push(as_said(&text, comment));
    }
}

fn cells(line: &str) -> Vec<String> {
    let line = line.replace("\\|", "\0");
    line.trim().trim_matches('|').split('|').map(|cell| cell.trim().replace('\0', "|")).collect()
}

/// The rows of the tables whose first column is `words`.
fn rows(page: &str) -> Vec<Row> {
    let (mut is_ours, mut rows) = (false, Vec::new());
    for (number, line) in page.lines().enumerate() {
        let cells = cells(line);
        if !line.starts_with('|') {
            is_ours = false;
        } else if cells[0] == "words" {
            is_ours = true;
        } else if is_ours && !cells[0].starts_with("---") {
            rows.push((number + 1, cells));
        }
    }
    rows
}

/// What of a phrase is looked for.
fn parts(phrase: &str) -> Vec<&str> {
    let all = || phrase.split('…').map(str::trim).filter(|part| !part.is_empty());
    let long: Vec<&str> = all().filter(|part| part.chars().count() >= LEAST_CHARS).collect();
    if long.is_empty() { all().max_by_key(|part| part.len()).into_iter().collect() } else { long }
}

/// What is wrong with the rows, one line each.
fn faults(rows: &[Row], sources: &[String]) -> Vec<String> {
    let mut faults = Vec::new();
    for (line, cells) in rows {
        if cells.len() != 3 || cells.iter().any(String::is_empty) {
            faults.push(format!("line {line}: expected words, a cause and a cure, got {cells:?}"));
        }
        let phrases: Vec<&str> = cells[0].split('`').skip(1).step_by(2).collect();
        if phrases.is_empty() {
            faults.push(format!("line {line}: expected words in backticks, got {}", cells[0]));
        }
        for phrase in phrases {
            let parts = parts(phrase);
            if parts.is_empty() {
                faults.push(format!("line {line}: `{phrase}`: expected words beside the places of values"));
            }
            for part in parts {
                if !sources.iter().any(|source| source.contains(part)) {
                    faults.push(format!("line {line}: `{phrase}`: nothing says `{part}`"));
                }
            }
        }
    }
    faults
}

#[test]
fn the_words_of_troubleshooting_are_still_said() {
    let page = std::fs::read_to_string(root().join(PAGE)).unwrap_or_else(|e| panic!("{PAGE}: {e}"));
    let rows = rows(&page);
    assert!(!rows.is_empty(), "{PAGE}: expected tables that begin with `| words |`, got none");
    let mut sources = Vec::new();
    FOLDERS.iter().for_each(|folder| read(&root().join(folder), &mut sources));
    let faults = faults(&rows, &sources);
    assert!(faults.is_empty(), "{PAGE}, against {}:\n{}", FOLDERS.join(", "), faults.join("\n"));
}

#[test]
fn words_are_found_across_values_escapes_and_lines_and_others_are_named() {
    let source = r#"
        // a comment of ours
        format!(
            "{topic}: expected \"raw\" or \
             \"rectified\", got {got:?}"
        )
mod tests {
    "words of a test"
}"#;
    let source = as_said(source, "//");
    let faults = |words: &str| {
        let page = format!("| words | cause | cure |\n| --- | --- | --- |\n| {words} | a | b |\n");
        faults(&rows(&page), std::slice::from_ref(&source))
    };
    assert_eq!(faults("`…: expected \"raw\" or \"rectified\", got …`"), Vec::<String>::new());
    for words in ["`a comment of ours`", "`words of a test`", "`…: expected \"blue\", got …`", "`…`", "no backticks"]
    {
        let found = faults(words);
        assert!(matches!(&found[..], [fault] if fault.starts_with("line 3: ")), "{words}: {found:?}");
    }
}
