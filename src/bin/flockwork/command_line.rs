//! `PATH [--] COMMAND [ARG]...`, which ends the command line of most verbs. Options end at the
//! first of these words.

use std::ffi::OsString;
use std::path::Path;

use crate::exit::Failure;

/// Splits the words into the path and the rest. Without words, the error is `no_path`.
pub(crate) fn path_and_rest<'a>(
    verb: &str,
    words: &'a [OsString],
    no_path: &str,
) -> Result<(&'a Path, &'a [OsString]), Failure> {
    match words.split_first() {
        Some((path, _)) if path.is_empty() => Err(usage(verb, "PATH is empty")),
        Some((path, rest)) => Ok((Path::new(path), rest)),
        None => Err(usage(verb, no_path)),
    }
}

/// The words of the command, if there are any. A first word that looks like an option is an error
/// unless it follows `--`.
pub(crate) fn command<'a>(verb: &str, rest: &'a [OsString]) -> Result<&'a [OsString], Failure> {
    match rest {
        [separator, words @ ..] if separator == "--" => Ok(words),
        [word, ..] if word.as_encoded_bytes().starts_with(b"-") => {
            let word = word.to_string_lossy();
            Err(usage(verb, &format!("unexpected option `{word}` where the command begins"))
                .hint("put options before the path, or `--` before a command that begins with `-`"))
        }
        words => Ok(words),
    }
}

/// A usage error with a pointer to the verb's help.
pub(crate) fn usage(verb: &str, problem: &str) -> Failure {
    Failure::usage(format!("{verb}: {problem}")).hint(format!("see `flockwork {verb} --help`"))
}
