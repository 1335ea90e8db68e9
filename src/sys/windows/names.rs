//! Finds paths that Windows takes for another file than the one they seem to name, by the rules of
//! Microsoft's "Naming Files, Paths, and Namespaces". Only the text of a path is examined, so this
//! is tested on every platform.

/// The maximum length of a name in units of UTF-16.
const LONGEST: usize = 255;
/// The prefix of paths to which the rules for names do not apply.
const LITERAL: &[u8] = br"\\?\";
const HOW: &str = r"choose another name, or put `\\?\` in front of the full path";

/// Why `path` must not be opened; `None` if it names the file that it seems to name. `path` is the
/// caller's, before the system makes it absolute, which already changes names. The bytes are UTF-8,
/// except for halves of surrogate pairs.
pub(super) fn problem(path: &[u8]) -> Option<String> {
    let is_literal = path.starts_with(LITERAL);
    let is_separator = |byte: &u8| *byte == b'\\' || *byte == b'/' && !is_literal;
    let mut names: Vec<&[u8]> = path.split(is_separator).collect();
    let skipped = match *names.as_slice() {
        [b"", b"", b".", ..] => {
            return Some(r"what begins with `\\.\` is a device on Windows; leave that out".into());
        }
        [b"", b"", b"?", ..] if !is_literal => {
            return Some(
                r"Windows wants `\\?\` with backslashes; write it so, or leave it out".into(),
            );
        }
        [b"", b"", b"?", unc, _, share, ..] if is_literal && unc.eq_ignore_ascii_case(b"UNC") => {
            if is_channel(share) {
                return Some(no_file(share));
            }
            6
        }
        [b"", b"", b"?", volume, ref rest @ ..] if is_literal => {
            if is_channel(volume) || rest.iter().all(|name| name.is_empty()) {
                return Some(no_file(volume));
            }
            4
        }
        [b"", b"", _, share, ..] if !is_literal => {
            if is_channel(share) {
                return Some(no_file(share));
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

fn of_name(name: &[u8], is_literal: bool) -> Option<String> {
    if matches!(name, b"" | b"." | b"..") {
        return None;
    }
    let text = String::from_utf8_lossy(name);
    let impossible = |byte: &&u8| **byte < 0x20 || br#"<>"|?*/"#.contains(*byte);
    if let Some(byte) = name.iter().find(impossible) {
        let what = match char::from(*byte) {
            control if control.is_control() => "a control character".to_string(),
            character => format!("`{character}`"),
        };
        return Some(format!("`{text}` holds {what}, which no name can on Windows; leave it out"));
    }
    if let Some((file, _)) = text.split_once(':') {
        return Some(format!(
            "on Windows `{text}` is not a file, but a stream within `{file}`; leave the `:` out"
        ));
    }
    // A character has one unit, or two if its UTF-8 form has four bytes: count the first bytes of
    // all characters, and those of four-byte forms again.
    let units = name.iter().filter(|byte| **byte & 0xC0 != 0x80).count()
        + name.iter().filter(|byte| **byte >= 0xF0).count();
    if units > LONGEST {
        return Some(format!(
            "a name of {units} characters is too long for Windows; choose a shorter one"
        ));
    }
    if is_literal {
        return None;
    }
    let kept = text.trim_end_matches(['.', ' ']);
    if kept.len() < text.len() {
        return Some(format!(
            "Windows leaves out the dots and spaces at the end of `{text}`, and takes it for `{kept}`; leave them out as well"
        ));
    }
    is_device(&text).then(|| format!("`{text}` is a device on Windows, and not a file; {HOW}"))
}

/// Whether the name is a device, also with an extension: `aux.txt` is `AUX`.
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

/// Named pipes and mailslots look like files of a server or a volume. Examining one connects to it.
fn is_channel(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"pipe") || name.eq_ignore_ascii_case(b"mailslot")
}

fn no_file(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    format!("`{name}` leads to no file on Windows; give the path of a file")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_refused(path: &str, says: &str) {
        let problem = problem(path.as_bytes());
        let problem = problem.unwrap_or_else(|| panic!("{path} was accepted"));
        assert!(problem.contains(says), "{path}: {problem}");
    }

    #[track_caller]
    fn assert_accepted(path: &str) {
        assert_eq!(problem(path.as_bytes()), None, "{path}");
    }

    #[test]
    fn devices_are_refused_in_any_case_and_with_any_extension() {
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
                assert_refused(&name, "is a device");
                assert_refused(&name, r"`\\?\`");
            }
            assert_accepted(&format!(r"\\?\C:\a\{name}"));
            assert_accepted(&format!("a{name}"));
            assert_accepted(&format!("{name}x"));
            assert_accepted(&format!("a.{name}"));
        }
        assert_refused("conin$", "is a device");
        assert_refused(r"a\CONOUT$", "is a device");
        for name in ["COM", "COM0", "LPT10", "COM¹¹", "conin$.txt", "CONSOLE", "nul_", "null"] {
            assert_accepted(name);
        }
    }

    #[test]
    fn names_that_end_in_dots_or_spaces_are_refused() {
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
            assert_refused(path, "Windows leaves out");
            assert_refused(path, &format!("takes it for {instead}"));
        }
        for path in
            [r"\\?\C:\a.lock.", r"\\?\C:\a \b", ".a", " a", "a .b", ".", "..", r"..\.\a", "a/"]
        {
            assert_accepted(path);
        }
    }

    #[test]
    fn streams_and_invalid_characters_are_refused() {
        limit!();
        for path in ["ab:c", r"C:\a:b", r"C:a:b", "a/b:c:$DATA", r"\\?\C:\a:b", "1:b"] {
            assert_refused(path, "a stream within");
        }
        for bad in ['<', '>', '"', '|', '?', '*'] {
            for path in [format!("a{bad}b"), format!(r"C:\{bad}\b"), format!(r"\\?\C:\a{bad}")] {
                assert_refused(&path, &format!("holds `{bad}`"));
            }
        }
        assert_refused("a\nb", "a control character");
        assert_refused(r"\\?\C:\a/b", "holds `/`");
        assert_refused(r"\??\C:\a", "holds `?`");
        assert_refused("//?/C:/a", "with backslashes");
        assert_accepted("a'b{}[]^~#%&$!@ä漢");
        // Half of a surrogate pair.
        assert_eq!(problem(b"a\xed\xa0\x80b"), None);
        assert!(problem(b"a\xed\xa0\x80b.").is_some());
    }

    #[test]
    fn a_name_has_at_most_255_units_of_utf_16() {
        limit!();
        for character in ["x", "ä", "漢"] {
            assert_accepted(&format!("a/{}/b", character.repeat(255)));
            assert_refused(&format!("a/{}/b", character.repeat(256)), "shorter");
            assert_refused(&format!(r"\\?\C:\{}", character.repeat(256)), "shorter");
        }
        assert_accepted(&"🦀".repeat(127));
        assert_refused(&"🦀".repeat(128), "256 characters");
    }

    #[test]
    fn path_prefixes_are_not_checked_as_names() {
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
            assert_refused(path, "is a device");
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
            assert_refused(path, "leads to no file");
        }
    }
}
