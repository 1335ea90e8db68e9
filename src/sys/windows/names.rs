//! Rejects paths that Windows does not resolve to the file that they seem to name, by Microsoft's
//! "Naming Files, Paths, and Namespaces". The check examines only the text, so every platform
//! tests it.

/// In UTF-16 units.
const MAX_NAME_UNITS: usize = 255;
/// The prefix of paths whose names Windows does not change.
const LITERAL: &[u8] = br"\\?\";
const LITERAL_HINT: &str = r"choose another name, or put `\\?\` in front of the full path";
const FILE_HINT: &str = "give the path of a file";

/// A clause that says why a path is rejected, and a hint.
pub(super) type Problem = (String, &'static str);

/// Why `path` must not be opened, or `None` if it names what it seems to. The path is checked as it
/// was given, since the system changes names when it makes a path absolute. The bytes are UTF-8,
/// except for halves of surrogate pairs.
pub(super) fn problem(path: &[u8]) -> Option<Problem> {
    let is_literal = path.starts_with(LITERAL);
    let is_separator = |byte: &u8| *byte == b'\\' || *byte == b'/' && !is_literal;
    let mut names: Vec<&[u8]> = path.split(is_separator).collect();
    let skipped = match *names.as_slice() {
        [b"", b"", b".", ..] => {
            let problem = r"a path that begins with `\\.\` is a device on Windows";
            return Some((problem.into(), r"leave out `\\.\`"));
        }
        [b"", b"", b"?", ..] if !is_literal => {
            let problem = r"the prefix `\\?\` is valid only with backslashes";
            return Some((problem.into(), "write it with backslashes, or leave it out"));
        }
        [b"", b"", b"?", unc, _, share, ..] if is_literal && unc.eq_ignore_ascii_case(b"UNC") => {
            if is_channel(share) {
                return Some(not_a_file(share));
            }
            6
        }
        [b"", b"", b"?", volume, ref rest @ ..] if is_literal => {
            if is_channel(volume) || rest.iter().all(|name| name.is_empty()) {
                return Some(not_a_file(volume));
            }
            4
        }
        [b"", b"", _, share, ..] if !is_literal => {
            if is_channel(share) {
                return Some(not_a_file(share));
            }
            4
        }
        _ => 0,
    };
    names.drain(..skipped);
    if let Some(first) = names.first_mut().filter(|_| skipped == 0) {
        if let [letter, b':', rest @ ..] = *first {
            if letter.is_ascii_alphabetic() {
                *first = rest;
            }
        }
    }
    names.into_iter().find_map(|name| of_name(name, is_literal))
}

fn of_name(name: &[u8], is_literal: bool) -> Option<Problem> {
    if matches!(name, b"" | b"." | b"..") {
        return None;
    }
    let text = String::from_utf8_lossy(name);
    let is_invalid = |byte: &&u8| **byte < 0x20 || br#"<>"|?*/"#.contains(*byte);
    if let Some(byte) = name.iter().find(is_invalid) {
        let what = match char::from(*byte) {
            control if control.is_control() => "a control character".to_string(),
            character => format!("`{character}`"),
        };
        let problem = format!("`{text}` contains {what}, which is invalid on Windows");
        return Some((problem, "leave it out"));
    }
    if let Some((file, _)) = text.split_once(':') {
        let problem = format!("`{text}` is a stream within `{file}` on Windows, not a file");
        return Some((problem, "leave out the `:`"));
    }
    // Each first byte of a character is a unit, and that of a four-byte character is two.
    let units = name.iter().filter(|byte| **byte & 0xC0 != 0x80).count()
        + name.iter().filter(|byte| **byte >= 0xF0).count();
    if units > MAX_NAME_UNITS {
        let problem = format!("a name of {units} characters is too long for Windows");
        return Some((problem, "choose a shorter name"));
    }
    if is_literal {
        return None;
    }
    let kept = text.trim_end_matches(['.', ' ']);
    if kept.len() < text.len() {
        let problem = format!(
            "`{text}` names `{kept}` on Windows, which ignores dots and spaces at the end of a name"
        );
        return Some((problem, "leave out the dots and spaces at the end"));
    }
    let problem = || format!("`{text}` is a device on Windows, not a file");
    is_device(&text).then(|| (problem(), LITERAL_HINT))
}

/// Whether the name is a device. An extension makes no difference: `aux.txt` is `AUX`.
fn is_device(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let base = name.split('.').next().unwrap_or_default().trim_end_matches(' ');
    if matches!(base, "CON" | "PRN" | "AUX" | "NUL") || matches!(&*name, "CONIN$" | "CONOUT$") {
        return true;
    }
    let number = base.strip_prefix("COM").or_else(|| base.strip_prefix("LPT"));
    number.is_some_and(|number| {
        matches!(number.as_bytes(), [b'1'..=b'9']) || matches!(number, "¹" | "²" | "³")
    })
}

/// Named pipes and mailslots look like files of a server or a volume, but reading the metadata of
/// one connects to it.
fn is_channel(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"pipe") || name.eq_ignore_ascii_case(b"mailslot")
}

fn not_a_file(name: &[u8]) -> Problem {
    let name = String::from_utf8_lossy(name);
    (format!("`{name}` does not name a file on Windows"), FILE_HINT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_rejected(path: &str, expected: &str) {
        let problem = problem(path.as_bytes());
        let (problem, hint) = problem.unwrap_or_else(|| panic!("{path} was accepted"));
        let text = format!("{problem}; {hint}");
        assert!(text.contains(expected), "{path}: {text}");
    }

    #[track_caller]
    fn assert_accepted(path: &str) {
        assert_eq!(problem(path.as_bytes()), None, "{path}");
    }

    #[test]
    fn devices_are_rejected_in_any_case_and_with_any_extension() {
        limit!();
        let numbered = ["COM", "LPT"].into_iter().flat_map(|kind| {
            ["1", "2", "3", "4", "5", "6", "7", "8", "9", "¹", "²", "³"]
                .map(|number| format!("{kind}{number}"))
        });
        let others = ["CON", "PRN", "AUX", "NUL"].map(String::from);
        for name in numbered.chain(others) {
            for name in [
                name.clone(),
                name.to_lowercase(),
                format!("{name}.txt"),
                format!("{name} .a.b"),
                format!(r"C:\a\{name}"),
                format!("C:{name}"),
                format!(r"\\server\share\{name}\b.lock"),
                format!("a/{name}/b.lock"),
            ] {
                assert_rejected(&name, "is a device");
                assert_rejected(&name, r"`\\?\`");
            }
            assert_accepted(&format!(r"\\?\C:\a\{name}"));
            assert_accepted(&format!("a{name}"));
            assert_accepted(&format!("{name}x"));
            assert_accepted(&format!("a.{name}"));
        }
        assert_rejected("conin$", "is a device");
        assert_rejected(r"a\CONOUT$", "is a device");
        for name in ["COM", "COM0", "LPT10", "COM¹¹", "conin$.txt", "CONSOLE", "nul_", "null"] {
            assert_accepted(name);
        }
    }

    #[test]
    fn trailing_dots_and_spaces_are_rejected() {
        limit!();
        for (path, instead) in [
            ("a.lock.", "`a.lock`"),
            ("a.lock ", "`a.lock`"),
            ("a. . .", "`a`"),
            (r"C:\a \b", "`a`"),
            ("a./b", "`a`"),
            ("...", "``"),
            (" ", "``"),
        ] {
            assert_rejected(path, "ignores dots and spaces");
            assert_rejected(path, &format!("names {instead} on Windows"));
        }
        for path in
            [r"\\?\C:\a.lock.", r"\\?\C:\a \b", ".a", " a", "a .b", ".", "..", r"..\.\a", "a/"]
        {
            assert_accepted(path);
        }
    }

    #[test]
    fn streams_and_invalid_characters_are_rejected() {
        limit!();
        for path in ["ab:c", r"C:\a:b", r"C:a:b", "a/b:c:$DATA", r"\\?\C:\a:b", "1:b"] {
            assert_rejected(path, "a stream within");
        }
        for bad in ['<', '>', '"', '|', '?', '*'] {
            for path in [format!("a{bad}b"), format!(r"C:\{bad}\b"), format!(r"\\?\C:\a{bad}")] {
                assert_rejected(&path, &format!("contains `{bad}`"));
            }
        }
        assert_rejected("a\nb", "a control character");
        assert_rejected(r"\\?\C:\a/b", "contains `/`");
        assert_rejected(r"\??\C:\a", "contains `?`");
        assert_rejected("//?/C:/a", "with backslashes");
        assert_accepted("a'b{}[]^~#%&$!@ä漢");
        // The name contains half of a surrogate pair.
        assert_eq!(problem(b"a\xed\xa0\x80b"), None);
        assert!(problem(b"a\xed\xa0\x80b.").is_some());
    }

    #[test]
    fn a_name_has_at_most_255_units_of_utf_16() {
        limit!();
        for character in ["x", "ä", "漢"] {
            assert_accepted(&format!("a/{}/b", character.repeat(255)));
            assert_rejected(&format!("a/{}/b", character.repeat(256)), "shorter");
            assert_rejected(&format!(r"\\?\C:\{}", character.repeat(256)), "shorter");
        }
        assert_accepted(&"🦀".repeat(127));
        assert_rejected(&"🦀".repeat(128), "256 characters");
    }

    #[test]
    fn prefixes_are_not_checked_as_names() {
        limit!();
        for path in [
            r"C:\a",
            "c:/a",
            "C:a",
            r"\a",
            r"\\server\share\a",
            r"\\server\c$\a",
            "//server/share/a",
            r"\\?\C:\a",
            r"\\?\UNC\server\share\a",
            r"\\?\Volume{b75e2c83-0000-0000-0000-602f00000000}\a",
            "",
            r"pipe\a",
        ] {
            assert_accepted(path);
        }
        for path in [r"\\.\C:\a", r"\\.\NUL", "//./pipe/a", r"\\.\PhysicalDrive0"] {
            assert_rejected(path, "is a device");
        }
        for path in [
            r"\\server\pipe\a",
            r"\\server\MAILSLOT\a",
            r"\\?\pipe\a",
            r"\\?\UNC\server\pipe\a",
            r"\\?\NUL",
            r"\\?\C:",
            r"\\?\C:\",
        ] {
            assert_rejected(path, "does not name a file");
        }
    }
}
