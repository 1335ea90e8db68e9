//! Rules for the language of comments, documents and messages, and for the form of comments.

use std::path::PathBuf;

use super::{assert_none, files_below, place, root, rust_directories, text};

/// The width at which comments wrap.
const COLUMNS: usize = 100;

/// Phrases of the private dialect, and what to write instead. A phrase is a sequence of words and
/// punctuation marks, in which `|` separates alternatives; a last word with `!` must not follow.
/// Here the words of a phrase are never next to each other, so this file needs no exception.
const BANNED: &[(&[&str], &str)] = &[
    (&["is|are|be|been|was|were", "had"], "acquired, available"),
    (&["let|lets|letting", "go"], "release"),
    (&["give|gives|gave|given|giving", "back"], "release, return"),
    (&["in", "vain"], "failed"),
    (&["by", "itself|themselves"], "on its own"),
    (&[concat!("a", "new")], "again"),
    (&[concat!("like", "wise")], "also"),
    (&[concat!("be", "sides"), ".|,|;|:|)"], "also"),
    (&[concat!("some", "body")], "another process"),
    (&[concat!("no", "body")], "no process"),
    (&[concat!("every", "body")], "all processes"),
    (&[concat!("who", "ever")], "any process that"),
    (&["so", "many|long", "!that|as"], "N, for this time"),
    (&["wait|waits", "for", "itself"], "deadlocks"),
    (&["cannot", "be", "meant"], "is invalid"),
    (&["make|makes", "no", "sense"], "is invalid"),
    (&["brought", "to", "the|a", "disk"], "synced"),
    (&["is|are|be|been|was|were", "told"], "is notified, receives"),
    (&[concat!("loo", "ks"), "!up|like"], "checks"),
    (&[concat!("te", "lls")], "returns, reports, notifies"),
    (&[concat!("he", "ars")], "is notified"),
    (&[concat!("ri", "ngs")], "notifies"),
    (&["time", "-", "out|outs"], "timeout"),
];

/// Returns all files with prose.
fn prose_files() -> Vec<PathBuf> {
    let directories = rust_directories().into_iter().chain(["docs", "ci"]);
    let present = directories.filter(|directory| root().join(directory).exists());
    let mut files: Vec<_> = present
        .flat_map(|directory| files_below(directory, &["rs", "md", "pml", "sh", "py", "toml"]))
        .collect();
    files.extend(["README.md", "SECURITY.md", "CHANGELOG.md"].map(|name| root().join(name)));
    files
}

fn rust_files() -> Vec<PathBuf> {
    rust_directories().into_iter().flat_map(|directory| files_below(directory, &["rs"])).collect()
}

/// Returns the words of a text in lower case, and its punctuation marks, each with the index of its
/// line. It skips the marks of comments and lists, so that a phrase may continue on the next line.
fn tokens(text: &str) -> Vec<(String, usize)> {
    let is_of_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut tokens: Vec<(String, usize)> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start().trim_start_matches(['/', '!', '#', '*', '>']);
        let mut is_in_word = false;
        for c in line.chars() {
            match tokens.last_mut() {
                Some((word, _)) if is_in_word && is_of_word(c) => word.extend(c.to_lowercase()),
                _ if c.is_whitespace() => {}
                _ => tokens.push((c.to_lowercase().collect(), index)),
            }
            is_in_word = is_of_word(c);
        }
    }
    tokens
}

/// Returns the indexes of the lines on which a phrase begins.
fn occurrences(phrase: &[&str], tokens: &[(String, usize)]) -> Vec<usize> {
    let matches = |at: usize| {
        phrase.iter().enumerate().all(|(offset, word)| {
            let found = tokens.get(at + offset).map(|(word, _)| word.as_str());
            match word.strip_prefix('!') {
                Some(words) => found.is_none_or(|found| words.split('|').all(|word| word != found)),
                None => found.is_some_and(|found| word.split('|').any(|word| word == found)),
            }
        })
    };
    (0..tokens.len()).filter(|at| matches(*at)).map(|at| tokens[at].1).collect()
}

#[test]
fn no_text_uses_a_phrase_of_the_private_dialect() {
    limit!();
    let dialect = tokens(concat!("//! It is\n//! had, and lets", " go."));
    assert_eq!(occurrences(BANNED[0].0, &dialect), [0]);
    assert_eq!(occurrences(BANNED[1].0, &dialect), [1]);
    assert_eq!(occurrences(&["so", "many", "!that"], &tokens("so many that")), [0; 0]);
    let mut findings = Vec::new();
    for path in prose_files() {
        let tokens = tokens(&text(&path));
        for (phrase, instead) in BANNED {
            let lines = occurrences(phrase, &tokens).into_iter();
            findings.extend(lines.map(|index| {
                format!("{}: {} (instead: {instead})", place(&path, index), phrase.join(" "))
            }));
        }
    }
    assert_none("plain English has another word for these (STYLE.md)", &findings);
}

/// Whether a line begins a sentence with a subject clause such as "who asks" or "what is missing".
fn has_headless_sentence(line: &str) -> bool {
    ["Who ", "What "].into_iter().any(|start| {
        line.match_indices(start).any(|(at, _)| {
            let before = &line[..at];
            let begins = before.ends_with(". ") || !before.contains(|c: char| is_word_char(c));
            let rest = &line[at + start.len()..];
            let end = rest.find(|c: char| !is_word_char(c)).unwrap_or(rest.len());
            let (verb, after) = rest.split_at(end);
            begins && verb.ends_with('s') && (after.is_empty() || after.starts_with(' '))
        })
    })
}

fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[test]
fn every_sentence_names_its_subject() {
    limit!();
    for start in ["//! ", "    * ", "It ends. "] {
        assert!(has_headless_sentence(&format!("{start}Who asks is first.")), "{start}");
    }
    assert!(!has_headless_sentence("// A process asks who holds it. What a caller may do."));
    let mut findings = Vec::new();
    for path in prose_files() {
        for (index, line) in text(&path).lines().enumerate() {
            if has_headless_sentence(line) {
                findings.push(format!("{}: {}", place(&path, index), line.trim()));
            }
        }
    }
    assert_none("a sentence begins with its subject, not with a relative clause", &findings);
}

/// Returns the text of a line that is a comment.
fn comment(line: &str) -> Option<&str> {
    let text = line.trim_start().strip_prefix("//")?;
    Some(text.trim_start_matches(['/', '!']).trim())
}

/// Returns the text of a comment after code on the same line.
fn trailing_comment(line: &str) -> Option<&str> {
    Some(line.split_once(" // ").filter(|_| comment(line).is_none())?.1.trim())
}

/// Whether a line cannot become shorter, because one word of its comment is too long for any line.
fn is_unbreakable(line: &str) -> bool {
    let indentation = line.len() - line.trim_start().len();
    let longest = line.split_whitespace().map(|word| word.chars().count()).max().unwrap_or(0);
    indentation + "/// ".len() + longest > COLUMNS
}

#[test]
fn comments_wrap_at_100_columns() {
    limit!();
    let mut findings = Vec::new();
    for path in rust_files() {
        for (index, line) in text(&path).lines().enumerate() {
            let has_comment = comment(line).or_else(|| trailing_comment(line)).is_some();
            if has_comment && line.chars().count() > COLUMNS && !is_unbreakable(line) {
                findings.push(place(&path, index));
            }
        }
    }
    assert_none("comments wrap at 100 columns", &findings);
}

/// Splits the name of a rule, such as S8 or 4, from the beginning of a text.
fn split_rule(text: &str, may_be_number: bool) -> Option<&str> {
    let (name, after) = match text.find(|c: char| !c.is_ascii_alphanumeric()) {
        Some(end) => text.split_at(end),
        None => (text, ""),
    };
    let digits = match name.strip_prefix(['E', 'F', 'O', 'Q', 'R', 'S', 'W']) {
        Some(digits) => digits,
        None if may_be_number => name,
        None => return None,
    };
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then_some(after)
}

/// Whether a comment is only a list of rules, such as "Rules 4 and S8", or has one as its first
/// sentence.
fn begins_with_rule(comment: &str) -> bool {
    let named = comment.strip_prefix("Rules ").or_else(|| comment.strip_prefix("Rule "));
    let Some(mut after) = split_rule(named.unwrap_or(comment), named.is_some()) else {
        return false;
    };
    while let Some(next) = [", ", " and ", " to "]
        .iter()
        .find_map(|joint| split_rule(after.strip_prefix(joint)?, named.is_some()))
    {
        after = next;
    }
    after.is_empty() || after.starts_with(['.', ',', ':'])
}

/// The number of a rule follows its sentence in parentheses.
#[test]
fn no_comment_begins_with_the_number_of_a_rule() {
    limit!();
    for bare in ["Rule 4.", "S8", "Rules 4, 6 and S8.", "Rule R3. It waits.", "S7, where"] {
        assert!(begins_with_rule(bare), "{bare}");
    }
    for plain in ["Rules S3 and S4 say so.", "1. First.", "Rules of the road.", "It (rule 4)."] {
        assert!(!begins_with_rule(plain), "{plain}");
    }
    let mut findings = Vec::new();
    for path in rust_files() {
        let mut is_continued = false;
        for (index, line) in text(&path).lines().enumerate() {
            let begins = comment(line).filter(|_| !is_continued).or_else(|| trailing_comment(line));
            is_continued = comment(line).is_some_and(|comment| !comment.is_empty());
            if begins.is_some_and(begins_with_rule) {
                findings.push(format!("{}: {}", place(&path, index), line.trim()));
            }
        }
    }
    assert_none("the number of a rule follows a sentence, in parentheses", &findings);
}

#[test]
fn the_readme_has_at_most_200_lines() {
    limit!();
    let lines = text(&root().join("README.md")).lines().count();
    assert!(lines <= 200, "README.md has {lines} lines");
}

/// A documentation comment of a source file, and the item below it.
struct Documented {
    place: String,
    lines: Vec<String>,
    item: String,
}

fn documented_items() -> Vec<Documented> {
    let mut items = Vec::new();
    for path in files_below("src", &["rs"]) {
        let text = text(&path);
        let mut lines = text.lines().map(str::trim).enumerate().peekable();
        while let Some((index, line)) = lines.next() {
            let Some(first) = line.strip_prefix("///") else { continue };
            let mut comment = vec![first.trim().to_string()];
            while let Some((_, line)) = lines.next_if(|(_, line)| line.starts_with("///")) {
                comment.push(line["///".len()..].trim().to_string());
            }
            let below = lines.clone().map(|(_, line)| line);
            let item = below.skip_while(|line| line.starts_with("#[") || line.starts_with("//"));
            let item = item.take(1).collect();
            items.push(Documented { place: place(&path, index), lines: comment, item });
        }
    }
    items
}

/// Returns a text as it is displayed, without the targets of links.
fn displayed(text: &str) -> String {
    let mut parts = text.split("](");
    let first = parts.next().unwrap_or_default().to_string();
    parts.fold(first, |shown, part| shown + part.split_once(')').map_or(part, |part| part.1))
}

#[test]
fn the_summary_of_a_public_item_has_at_most_100_characters() {
    limit!();
    let items = documented_items();
    let public: Vec<_> = items.iter().filter(|item| item.item.starts_with("pub ")).collect();
    assert!(public.len() > 100, "only {} public items were found", public.len());
    let mut findings = Vec::new();
    for Documented { place, lines, .. } in public {
        let summary: Vec<&str> =
            lines.iter().map(String::as_str).take_while(|line| !line.is_empty()).collect();
        let summary = displayed(&summary.join(" "));
        if summary.chars().count() > 100 {
            findings.push(format!("{place}: {} characters: {summary}", summary.chars().count()));
        }
    }
    assert_none("the summary of a public item has at most 100 characters", &findings);
}

#[test]
fn caveats_have_at_most_five_bullets() {
    limit!();
    let mut findings = Vec::new();
    for Documented { place, lines, .. } in documented_items() {
        let caveats = lines.iter().skip_while(|line| *line != "# Caveats").skip(1);
        let section = caveats.take_while(|line| !line.starts_with("# "));
        let bullets = section.filter(|line| line.starts_with("* ") || line.starts_with("- "));
        let bullets = bullets.count();
        if bullets > 5 {
            findings.push(format!("{place}: {bullets} bullets"));
        }
    }
    assert_none("a list of caveats has at most five bullets", &findings);
}
