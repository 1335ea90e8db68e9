//! Escapes text from other programs so that it is safe to print on a terminal.

use std::time::Duration;

/// Seconds with one decimal. A floating-point number would add the code that formats it, 20 kB, to
/// each program.
pub(crate) fn tenths(span: Duration) -> String {
    let tenths = (span.as_millis() + 50) / 100;
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// The maximum length of a text after escaping.
pub(crate) const MAX_CHARACTERS: usize = 512;

/// Returns the text on one line, with control characters and bidirectional formatting characters
/// escaped, and cut to [`MAX_CHARACTERS`]. Escapes count in their escaped form, so the longest
/// record is shorter than the limit for reading one. Printable text is returned unchanged.
pub(crate) fn printable(text: &str) -> String {
    const CUT: &str = "...";
    let (mut out, mut length, mut fits) = (String::new(), 0, 0);
    for character in text.chars() {
        let hidden = matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if character.is_control() || hidden {
            out.extend(character.escape_default());
            length += character.escape_default().count();
        } else {
            out.push(character);
            length += 1;
        }
        if length + CUT.len() <= MAX_CHARACTERS {
            fits = out.len();
        } else if length > MAX_CHARACTERS {
            out.truncate(fits);
            out.push_str(CUT);
            return out;
        }
    }
    out
}

/// Returns the words of a command as a line of shell, which is printable and may be cut.
pub(crate) fn command_line(words: &[String]) -> String {
    let is_plain = |word: &str| {
        let is_plain = |c: char| c.is_alphanumeric() || "_@%+=:,./-".contains(c);
        !word.is_empty() && word.chars().all(is_plain)
    };
    let quoted = words.iter().map(|word| {
        if is_plain(word) { word.clone() } else { format!("'{}'", word.replace('\'', "'\\''")) }
    });
    printable(&quoted.collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::{
        ProptestConfig, Strategy, any, prop_assert, prop_assert_eq, prop_oneof,
    };

    use super::*;

    /// Arbitrary text, and text with many special characters.
    pub(crate) fn any_text() -> impl Strategy<Value = String> {
        let special = "[\\x00-\\x20\u{7f}-\u{9f}\u{61c}\u{200e}\u{202e}\u{2066}\u{2028} a-c\\\\\"{}.\u{1F600}]{0,700}";
        prop_oneof![any::<String>(), special, "\u{202e}{500,600}", "[^\\x00]{505,520}"]
    }

    pub(crate) fn is_plain(text: &str) -> bool {
        !text.chars().any(|c| c.is_control() || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
    }

    #[test]
    fn a_command_line_is_quoted_as_for_a_shell() {
        limit!();
        for (words, line) in [
            (&["tar", "-cf", "b/\u{e4}.tar"][..], "tar -cf b/\u{e4}.tar"),
            (&["sh", "-c", "echo 'a b' > f"], r"sh -c 'echo '\''a b'\'' > f'"),
            (&["printf", "", "*"], "printf '' '*'"),
            (&["a\nb"], r"'a\nb'"),
            (&[], ""),
        ] {
            let words: Vec<_> = words.iter().map(ToString::to_string).collect();
            assert_eq!(command_line(&words), line);
        }
    }

    proptest::proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

        #[test]
        fn printable_text_is_plain_short_and_stable(text in any_text()) {
            limit!();
            let shown = printable(&text);
            prop_assert!(is_plain(&shown) && shown.chars().count() <= MAX_CHARACTERS, "{:?}", shown);
            prop_assert_eq!(printable(&shown), shown.clone());
            if is_plain(&text) && text.chars().count() <= MAX_CHARACTERS {
                prop_assert_eq!(shown, text);
            }
        }
    }
}
