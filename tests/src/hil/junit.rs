//! JUnit XML, as CI systems read it: one suite, one case a check. A number without a bound is a case that was skipped.

use std::fmt::Write;

use super::check::{Check, Verdict};

/// A run that came to its end; `seconds` is how long it took.
pub fn of_checks(suite: &str, seconds: f64, checks: &[Check]) -> String {
    let of = |verdict| checks.iter().filter(|check| check.verdict == verdict).count();
    let mut cases = String::new();
    for check in checks {
        let finding = escaped(&check.finding());
        let inside = match check.verdict {
            Verdict::Passed => format!("<system-out>{finding}</system-out>"),
            Verdict::Failed => format!("<failure message=\"{finding}\"/>"),
            Verdict::Unchecked => format!("<skipped message=\"{finding}\"/>"),
        };
        case(&mut cases, suite, check.name, &inside);
    }
    let counts = format!(
        "tests=\"{}\" failures=\"{}\" errors=\"0\" skipped=\"{}\"",
        checks.len(),
        of(Verdict::Failed),
        of(Verdict::Unchecked)
    );
    document(suite, seconds, &counts, &cases)
}

/// A run that did not.
pub fn of_error(suite: &str, seconds: f64, error: &str) -> String {
    let mut cases = String::new();
    case(&mut cases, suite, "run", &format!("<error message=\"{}\"/>", escaped(error)));
    document(suite, seconds, "tests=\"1\" failures=\"0\" errors=\"1\" skipped=\"0\"", &cases)
}

fn case(cases: &mut String, suite: &str, name: &str, inside: &str) {
    let (suite, name) = (escaped(suite), escaped(name));
    let _ = writeln!(cases, "    <testcase classname=\"{suite}\" name=\"{name}\">{inside}</testcase>"); // a String takes all
}

fn document(suite: &str, seconds: f64, counts: &str, cases: &str) -> String {
    let suite = escaped(suite);
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  \
         <testsuite name=\"{suite}\" time=\"{seconds:.3}\" {counts}>\n{cases}  </testsuite>\n</testsuites>\n"
    )
}

/// Text as it may stand in an attribute or between tags. Control characters cannot stand in XML 1.0 at all, and line breaks
/// would not survive in an attribute.
fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            '\n' => out.push_str("&#10;"),
            '\t' => out.push_str("&#9;"),
            '\u{FFFE}' | '\u{FFFF}' => out.push('\u{FFFD}'),
            c if c.is_control() => out.push('\u{FFFD}'),
            c => out.push(c),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::{escaped, of_checks, of_error};
    use crate::hil::check::{Bound, Check, Verdict};

    #[test]
    fn what_has_a_meaning_in_xml_loses_it() {
        let text = "a<b> & \"c\" 'd'\n\u{1b}[31m\u{0}é";
        assert_eq!(escaped(text), "a&lt;b&gt; &amp; &quot;c&quot; &apos;d&apos;&#10;\u{FFFD}[31m\u{FFFD}é");
    }

    #[test]
    fn a_case_a_check_with_its_verdict() {
        let check = |name, value, bound, verdict| Check { name, value, bound, verdict };
        let checks = [
            check("good", Some(1.0), Some(Bound::Max(2.0)), Verdict::Passed),
            check("bad", Some(3.0), Some(Bound::Max(2.0)), Verdict::Failed),
            check("free", Some(3.5), None, Verdict::Unchecked),
        ];
        let expected = "\
<?xml version=\"1.0\" encoding=\"UTF-8\"?>
<testsuites>
  <testsuite name=\"a&amp;b\" time=\"1.500\" tests=\"3\" failures=\"1\" errors=\"0\" skipped=\"1\">
    <testcase classname=\"a&amp;b\" name=\"good\"><system-out>1, at most 2</system-out></testcase>
    <testcase classname=\"a&amp;b\" name=\"bad\"><failure message=\"3, at most 2\"/></testcase>
    <testcase classname=\"a&amp;b\" name=\"free\"><skipped message=\"3.5, not checked\"/></testcase>
  </testsuite>
</testsuites>
";
        assert_eq!(of_checks("a&b", 1.5, &checks), expected);
    }

    #[test]
    fn a_run_that_broke_off_is_an_error_and_no_check() {
        let xml = of_error("hil", 0.0, "the node ended: <exit 1>");
        assert!(
            xml.contains("errors=\"1\"") && xml.contains("<error message=\"the node ended: &lt;exit 1&gt;\"/>"),
            "{xml}"
        );
    }
}
