//! Every normative statement of both standards is accounted for in `docs/mqtt-conformance.md`: by a test that exists, or by
//! a reason.

use std::collections::BTreeMap;
use std::path::Path;

/// The statements of MQTT 3.1.1 (OASIS Standard, 29 October 2014, Appendix B): section, first and last number.
const V3: &[(&str, u16, u16)] = &[
    ("1.5.3", 1, 3),
    ("2.2.2", 1, 2),
    ("2.3.1", 1, 7),
    ("3.1.0", 1, 2),
    ("3.1.2", 1, 24),
    ("3.1.3", 1, 11),
    ("3.1.4", 1, 5),
    ("3.2.0", 1, 1),
    ("3.2.2", 1, 6),
    ("3.3.1", 1, 12),
    ("3.3.2", 1, 3),
    ("3.3.4", 1, 1),
    ("3.3.5", 1, 2),
    ("3.6.1", 1, 1),
    ("3.8.1", 1, 1),
    ("3.8.3", 1, 4),
    ("3.8.4", 1, 6),
    ("3.9.3", 1, 2),
    ("3.10.1", 1, 1),
    ("3.10.3", 1, 2),
    ("3.10.4", 1, 6),
    ("3.12.4", 1, 1),
    ("3.14.1", 1, 1),
    ("3.14.4", 1, 3),
    ("4.1.0", 1, 2),
    ("4.2.0", 1, 1),
    ("4.3.1", 1, 1),
    ("4.3.2", 1, 2),
    ("4.3.3", 1, 2),
    ("4.4.0", 1, 1),
    ("4.5.0", 1, 2),
    ("4.6.0", 1, 6),
    ("4.7.1", 1, 3),
    ("4.7.2", 1, 1),
    ("4.7.3", 1, 4),
    ("4.8.0", 1, 2),
    ("6.0.0", 1, 4),
    ("7.0.0", 1, 2),
    ("7.1.1", 1, 1),
    ("7.1.2", 1, 1),
];

/// The same of MQTT 5.0 (OASIS Standard, 7 March 2019, Appendix B).
const V5: &[(&str, u16, u16)] = &[
    ("1.5.4", 1, 3),
    ("1.5.5", 1, 1),
    ("1.5.7", 1, 1),
    ("2.1.3", 1, 1),
    ("2.2.1", 2, 6),
    ("2.2.2", 1, 1),
    ("3.1.0", 1, 2),
    ("3.1.2", 1, 30),
    ("3.1.3", 1, 12),
    ("3.1.4", 1, 6),
    ("3.2.0", 1, 2),
    ("3.2.2", 1, 22),
    ("3.3.1", 1, 13),
    ("3.3.2", 1, 20),
    ("3.3.4", 1, 10),
    ("3.4.2", 1, 3),
    ("3.5.2", 1, 3),
    ("3.6.1", 1, 1),
    ("3.6.2", 1, 3),
    ("3.7.2", 1, 3),
    ("3.8.1", 1, 1),
    ("3.8.3", 1, 5),
    ("3.8.4", 1, 8),
    ("3.9.2", 1, 2),
    ("3.9.3", 1, 2),
    ("3.10.1", 1, 1),
    ("3.10.3", 1, 2),
    ("3.10.4", 1, 6),
    ("3.11.2", 1, 2),
    ("3.11.3", 1, 2),
    ("3.12.4", 1, 1),
    ("3.14.0", 1, 1),
    ("3.14.1", 1, 1),
    ("3.14.2", 1, 4),
    ("3.14.4", 1, 3),
    ("3.15.1", 1, 1),
    ("3.15.2", 1, 3),
    ("4.1.0", 1, 2),
    ("4.2.0", 1, 1),
    ("4.3.1", 1, 1),
    ("4.3.2", 1, 5),
    ("4.3.3", 1, 13),
    ("4.4.0", 1, 2),
    ("4.5.0", 1, 2),
    ("4.6.0", 1, 6),
    ("4.7.0", 1, 1),
    ("4.7.1", 1, 2),
    ("4.7.2", 1, 1),
    ("4.7.3", 1, 4),
    ("4.8.2", 1, 6),
    ("4.9.0", 1, 3),
    ("4.12.0", 1, 7),
    ("4.12.1", 1, 2),
    ("4.13.1", 1, 1),
    ("4.13.2", 1, 1),
    ("6.0.0", 1, 4),
];

/// The rows of a version's table: statement and what is said of it.
fn rows<'d>(document: &'d str, heading: &str) -> BTreeMap<String, &'d str> {
    let table = document.split(heading).nth(1).expect("the version has a section");
    let table = table.split("\n## ").next().unwrap_or_default();
    let mut rows = BTreeMap::new();
    for line in table.lines().filter(|line| line.starts_with("| MQTT-")) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 2, "{line}");
        assert!(rows.insert(cells[0].to_owned(), cells[1]).is_none(), "{} is there twice", cells[0]);
    }
    rows
}

/// Every function of the crate's sources and tests, as `<file or module>::<name>`.
fn functions() -> Vec<String> {
    fn walk(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
                continue;
            }
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
            let folder = path.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
            let module = if ["mod", "tests", "main"].contains(&&*stem) { folder } else { stem };
            let mut test = false;
            for line in text.lines().map(str::trim_start) {
                if let Some(rest) = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn ")) {
                    if test {
                        found.push(format!("{module}::{}", rest.split('(').next().unwrap_or_default()));
                    }
                    test = false;
                } else if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                    test = true;
                }
            }
        }
    }
    let mut found = Vec::new();
    for part in ["src", "tests"] {
        walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join(part), &mut found);
    }
    found
}

#[test]
fn every_statement_has_a_test_or_a_reason() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/mqtt-conformance.md");
    let document = std::fs::read_to_string(path).unwrap();
    let tests = functions();
    for (heading, statements) in [("## MQTT 3.1.1", V3), ("## MQTT 5.0", V5)] {
        let mut rows = rows(&document, heading);
        for (section, first, last) in statements {
            for number in *first..=*last {
                let statement = format!("MQTT-{section}-{number}");
                let said = rows.remove(&statement).unwrap_or_else(|| panic!("{heading} lacks {statement}"));
                let named: Vec<_> = said.split('`').skip(1).step_by(2).filter(|name| name.contains("::")).collect();
                assert!(!named.is_empty() || said.len() > 20, "{statement} has neither a test nor a reason: {said}");
                for name in named {
                    assert!(
                        tests.iter().any(|test| test == name),
                        "{statement} names {name}, and there is no such test"
                    );
                }
            }
        }
        assert!(rows.is_empty(), "{heading} has statements that are none: {:?}", rows.keys());
    }
}
