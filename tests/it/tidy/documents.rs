//! Rules for the documents and for references to them.

use super::{assert_none, files_below, name, place, root, rust_directories, source_files, text};

#[test]
fn each_rust_file_begins_with_a_description() {
    limit!();
    let files =
        rust_directories().into_iter().flat_map(|directory| files_below(directory, &["rs"]));
    let without = files.filter(|path| !text(path).starts_with("//! "));
    let findings: Vec<_> = without.map(|path| name(&path)).collect();
    assert_none("a file begins with `//! ` and a description", &findings);
}

#[test]
fn no_text_names_this_machine_or_has_trailing_white_space() {
    limit!();
    let machines = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("artifac", "tory")];
    let mut files = Vec::new();
    for directory in rust_directories().into_iter().chain(["docs"]) {
        files.extend(files_below(directory, &["rs", "md", "toml"]));
    }
    files.extend(["README.md", "CHANGELOG.md", "Cargo.toml"].map(|name| root().join(name)));
    let mut findings = Vec::new();
    for path in files {
        for (index, line) in text(&path).lines().enumerate() {
            if line.trim_end() != line {
                findings.push(format!("{}: trailing white space", place(&path, index)));
            }
            if let Some(machine) = machines.iter().find(|machine| line.contains(**machine)) {
                findings.push(format!("{}: {machine}", place(&path, index)));
            }
        }
    }
    assert_none("no text names this machine or has trailing white space", &findings);
}

#[test]
fn the_changelog_lists_this_version_or_is_unreleased() {
    limit!();
    let changelog = text(&root().join("CHANGELOG.md"));
    let released = format!("## [{}]", env!("CARGO_PKG_VERSION"));
    assert!(changelog.contains("## [Unreleased]") || changelog.contains(&released));
    assert!(changelog.matches(&released).count() <= 1);
}

/// Every rule that a comment cites is defined once.
#[test]
fn cited_rules_are_defined_once_in_the_documents() {
    limit!();
    let documents: String = files_below("docs", &["md"]).iter().map(|path| text(path)).collect();
    let exists = |rule: &str| documents.matches(&format!("**{rule}.**")).count() == 1;
    let mut findings = Vec::new();
    for (_, path) in source_files() {
        for (index, line) in text(&path).lines().enumerate() {
            let words = line.split(|c: char| !c.is_alphanumeric());
            let named = words.filter(|word| is_rule_name(word)).map(String::from);
            let numbered = line
                .split("ule ")
                .skip(1)
                .map(|rest| -> String { rest.chars().take_while(char::is_ascii_digit).collect() });
            let cited = named.chain(numbered.filter(|number| !number.is_empty()));
            let missing = cited.filter(|rule| !exists(rule));
            findings.extend(missing.map(|rule| format!("{}: rule {rule}", place(&path, index))));
        }
    }
    assert_none("every cited rule is defined once in docs", &findings);
}

/// Whether a word is the name of a rule, such as S8.
fn is_rule_name(word: &str) -> bool {
    word.len() >= 2
        && matches!(word.as_bytes()[0], b'B' | b'E' | b'F' | b'O' | b'Q' | b'R' | b'S' | b'W')
        && word[1..].bytes().all(|b| b.is_ascii_digit())
}

/// Documents that are pages of the crate's documentation as well, where a link to a file of the
/// repository leads nowhere.
#[test]
fn documents_in_rustdoc_have_no_relative_links() {
    limit!();
    let library = text(&root().join("src/lib.rs"));
    let module = library.split_once("pub mod _documentation").unwrap().1;
    let module = module.split_once("\n}\n").unwrap().0;
    let included = module.split("include_str!(\"../").skip(1);
    let included: Vec<&str> = included.map(|rest| rest.split_once('"').unwrap().0).collect();
    assert!(included.len() >= 5, "{included:?}");
    let mut findings = Vec::new();
    for document in included.into_iter().map(|document| root().join(document)) {
        for (index, line) in text(&document).lines().enumerate() {
            let targets = line.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0));
            let dead = targets
                .filter(|target| !target.starts_with("https://") && !target.starts_with('#'));
            findings.extend(dead.map(|target| format!("{}: {target}", place(&document, index))));
        }
    }
    assert_none("a document in rustdoc links only to pages and its own headings", &findings);
}
