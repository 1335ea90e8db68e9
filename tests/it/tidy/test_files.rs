//! Rules for the tests: names, time limits, reasons for omissions, and how they start processes.

use super::{assert_none, files_below, place, text};

/// A check that finds fewer tests than this overlooks some.
const FEWEST_TESTS: usize = 450;

/// A test that does not run on every system says why, on one line above its `cfg`.
#[test]
fn each_platform_specific_test_gives_its_reason() {
    limit!();
    let (mut seen, mut findings) = (0, Vec::new());
    for path in files_below("tests/it", &["rs"]) {
        let text = text(&path);
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (index, line) in lines.iter().enumerate() {
            let is_of_a_platform =
                ["unix", "windows", "target_"].iter().any(|word| line.contains(word));
            if !line.starts_with("#[cfg(") || !is_of_a_platform {
                continue;
            }
            let rest = &lines[index + 1..];
            let attributes = rest.iter().take_while(|line| line.starts_with("#[")).count();
            if !rest[attributes].starts_with("mod ") && !rest[..attributes].contains(&"#[test]") {
                continue;
            }
            seen += 1;
            let reason = index.checked_sub(1).map_or("", |above| lines[above]);
            let has_reason = ["// Unix only: ", "// Linux only: ", "// Windows only: "]
                .iter()
                .any(|start| reason.strip_prefix(start).is_some_and(|why| why.ends_with('.')));
            if !has_reason {
                findings.push(place(&path, index));
            }
        }
    }
    assert!(seen > 50, "only {seen} tests were found");
    assert_none("a reason such as `// Unix only: Windows has no fork.` comes first", &findings);
}

/// A hanging test is then reported and ended (`tests/it/limit.rs`).
#[test]
fn each_test_begins_with_its_time_limit() {
    limit!();
    let (mut seen, mut findings) = (0, Vec::new());
    for directory in ["src", "tests/it"] {
        for path in files_below(directory, &["rs"]) {
            let text = text(&path);
            // A string such as this one contains a backslash instead of a line end.
            for (at, _) in text.match_indices("#[test]\n") {
                let body = text[at..].split_once(" {\n").unwrap().1.trim_start();
                if !body.starts_with("limit!(") {
                    findings.push(place(&path, text[..at].lines().count()));
                }
                seen += 1;
            }
        }
    }
    assert!(seen > FEWEST_TESTS, "only {seen} tests were found");
    assert_none("a test begins with `limit!();`", &findings);
}

/// Returns the names of the tests in a file.
fn test_names(text: &str) -> impl Iterator<Item = &str> {
    let below = text.split("#[test]\n").skip(1);
    below.filter_map(|rest| rest.split_once("fn ")?.1.split('(').next())
}

#[test]
fn test_names_have_at_most_60_characters() {
    limit!();
    let (mut seen, mut findings) = (0, Vec::new());
    for path in files_below("tests/it", &["rs"]) {
        for name in test_names(&text(&path)) {
            if name.len() > 60 {
                findings.push(format!("{}: {name}", super::name(&path)));
            }
            seen += 1;
        }
    }
    assert!(seen > FEWEST_TESTS, "only {seen} tests were found");
    assert_none("the name of a test has at most 60 characters", &findings);
}

#[test]
fn test_names_name_their_subject() {
    limit!();
    let mut findings = Vec::new();
    for path in ["src", "tests/it"].into_iter().flat_map(|root| files_below(root, &["rs"])) {
        let text = text(&path);
        let headless =
            test_names(&text).filter(|name| name.starts_with("who_") || name.starts_with("what_"));
        findings.extend(headless.map(|name| format!("{}: {name}", super::name(&path))));
    }
    assert_none("the name of a test states a behavior, with its subject", &findings);
}

/// The messages between processes of the tests are typed (`sendable!` in `tests/it/peer/line.rs`).
#[test]
fn only_one_file_writes_lines_with_tabs() {
    limit!();
    let tab = concat!("\\", "t");
    let (mut seen, mut findings) = (0, Vec::new());
    for path in files_below("tests/it", &["rs"]) {
        // Files in `/proc` have a tab after a colon.
        let text = text(&path).replace(&format!(":{tab}"), ":");
        let with_tab = text.lines().enumerate().filter(|(_, line)| line.contains(tab));
        let places: Vec<_> = with_tab.map(|(index, _)| place(&path, index)).collect();
        if path.ends_with("peer/line.rs") {
            seen += usize::from(!places.is_empty());
        } else {
            findings.extend(places);
        }
    }
    assert_eq!(seen, 1, "no tab was found where it belongs");
    assert_none("messages are sent with `sendable!`", &findings);
}

/// A test that panics would otherwise wait forever, or leave a process behind
/// (`tests/it/support/running.rs`).
#[test]
fn tests_start_processes_and_scopes_that_end_when_they_panic() {
    limit!();
    let calls = [concat!("thread::", "scope("), concat!(".spawn", "()")];
    // The first file defines the replacements; the second kills its child and its tracer itself.
    let exempt = ["support/running.rs", "faults/attempt.rs"];
    let mut findings = Vec::new();
    for path in files_below("tests/it", &["rs"]) {
        if exempt.iter().any(|name| path.ends_with(name)) {
            continue;
        }
        for (index, line) in text(&path).lines().enumerate() {
            if calls.iter().any(|call| line.contains(call)) {
                findings.push(format!("{}: {}", place(&path, index), line.trim()));
            }
        }
    }
    assert_none("use `scope` and `start` of `crate::support::running`", &findings);
}
