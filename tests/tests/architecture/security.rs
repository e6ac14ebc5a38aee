//! SECURITY.md against the sources: each bound in it names a test, and that test is there.

use super::root;

/// What is wrong with the rows of bounds, one line each.
fn faults(page: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut rows = 0;
    for line in page.lines().skip_while(|line| !line.starts_with("| from |")).skip(2) {
        if !line.starts_with('|') {
            break;
        }
        rows += 1;
        let tests = line.trim_end_matches([' ', '|']).rsplit(" | ").next().unwrap_or_default();
        let (mut source, mut named) = (String::new(), 0);
        for word in tests.split('`').skip(1).step_by(2) {
            if word.ends_with(".rs") {
                source = std::fs::read_to_string(root().join(word)).unwrap_or_default();
            } else if source.contains(&format!("fn {word}(")) {
                named += 1;
            } else {
                faults.push(format!("no test `{word}`: {line}"));
            }
        }
        if named == 0 {
            faults.push(format!("no test at all: {line}"));
        }
    }
    if rows == 0 {
        faults.push("no row of bounds".to_owned());
    }
    faults
}

#[test]
fn every_bound_of_security_has_its_test() {
    let page = std::fs::read_to_string(root().join("SECURITY.md")).unwrap();
    assert_eq!(faults(&page), Vec::<String>::new());
}

#[test]
fn a_bound_without_its_test_is_named() {
    let row = |tests: &str| format!("| from | held by |\n| --- | --- |\n| a | {tests} |\n");
    let known = "`tests/tests/architecture/security.rs` `a_bound_without_its_test_is_named`";
    assert_eq!(faults(&row(known)), Vec::<String>::new());
    for tests in ["`tests/tests/architecture/security.rs` `nobody`", "`nowhere.rs` `faults`", "none"] {
        assert!(!faults(&row(tests)).is_empty(), "{tests}");
    }
    assert!(!faults("nothing").is_empty());
}
