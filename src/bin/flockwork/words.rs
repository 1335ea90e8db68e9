//! `PATH [--] COMMAND [ARG]...`, with which the command lines of most verbs end. Options stop at the first of these words.

use std::ffi::OsString;
use std::path::Path;

use crate::exit::Failure;

/// The path, and what comes after it. `nameless` says what is missing where there is none.
pub(crate) fn path_and_rest<'a>(
    verb: &str,
    words: &'a [OsString],
    nameless: &str,
) -> Result<(&'a Path, &'a [OsString]), Failure> {
    match words.split_first() {
        Some((path, _)) if path.is_empty() => Err(usage(verb, "the path is empty")),
        Some((path, rest)) => Ok((Path::new(path), rest)),
        None => Err(usage(verb, nameless)),
    }
}

/// The words of the command, which may be none. One that looks like an option is taken for one in the wrong place, but for
/// those behind `--`.
pub(crate) fn command<'a>(verb: &str, rest: &'a [OsString]) -> Result<&'a [OsString], Failure> {
    match rest {
        [dashes, words @ ..] if dashes == "--" => Ok(words),
        [word, ..] if word.as_encoded_bytes().starts_with(b"-") => {
            let word = word.to_string_lossy();
            Err(usage(
                verb,
                &format!(
                    "`{word}` stands where the command begins; put options first, or `--` before a command of that name"
                ),
            ))
        }
        words => Ok(words),
    }
}

pub(crate) fn usage(verb: &str, what: &str) -> Failure {
    Failure::usage(format!("{verb}: {what}; see `flockwork {verb} --help`"))
}
