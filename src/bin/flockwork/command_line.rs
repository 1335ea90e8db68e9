//! `PATH [--] COMMAND [ARG]...`, which ends the command line of most verbs. Options may also stand
//! between PATH and COMMAND.

use std::ffi::OsString;
use std::path::Path;

use crate::exit::{Exit, Failure};
use crate::holder_text::quoted;
use crate::job::Job;

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

/// The same for a verb that accepts several paths, which end at `--`.
pub(crate) fn paths_and_rest<'a>(
    verb: &str,
    words: &'a [OsString],
    no_path: &str,
) -> Result<(&'a [OsString], &'a [OsString]), Failure> {
    path_and_rest(verb, words, no_path)?;
    let separator = words.iter().position(|word| word == "--").unwrap_or(1);
    let (paths, rest) = words.split_at(separator.max(1));
    // The user may have meant one path and a command with the argument `--`.
    let is_program = |path: &&OsString| {
        is_program_instead(Path::new(path))
            || Path::new(path).is_file()
                && Job::new(&[(*path).clone()]).is_ok_and(|job| job.check().is_ok())
    };
    if let Some(program) = paths.get(1).filter(is_program) {
        let (name, line) = (program.to_string_lossy(), quoted(words[1..].iter()));
        let path = quoted(words[..1].iter());
        let problem = format!("`{name}` before `--` is a path, but it is a program");
        return Err(usage(verb, &problem).hint(format!(
            "to run it, use `flockwork {verb} {path} -- {line}`; as a path, name it first"
        )));
    }
    if paths.iter().any(|path| path.is_empty()) {
        return Err(usage(verb, "PATH is empty"));
    }
    if let Some(option) = paths.iter().skip(1).find(|path| is_option(path)) {
        let option = option.to_string_lossy();
        return Err(usage(verb, &format!("unexpected option `{option}` among several paths"))
            .hint("put options before the paths, and `--` before COMMAND"));
    }
    Ok((paths, rest))
}

fn is_option(word: &OsString) -> bool {
    word.as_encoded_bytes().starts_with(b"-") && word != "-"
}

/// The command to run: `shell`, which is the STRING of `-c`, or the words that follow the path.
pub(crate) fn job(
    verb: &str,
    rest: &[OsString],
    shell: Option<&OsString>,
) -> Result<Option<Job>, Failure> {
    let words = match rest {
        [separator, words @ ..] if separator == "--" => words,
        words => words,
    };
    match (shell, words) {
        (Some(string), []) => Ok(Some(Job::shell(string))),
        (Some(_), _) => Err(usage(verb, "-c STRING cannot be used with COMMAND")),
        (None, []) => Ok(None),
        (None, words) => Job::new(words).map(Some),
    }
}

/// The error of a verb that has a path and no command.
pub(crate) fn command_missing(verb: &str, path: &Path) -> Failure {
    let failure = usage(verb, "COMMAND is missing");
    let name = path.display();
    if path.to_str().is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit())) {
        return failure.hint(format!(
            "to lock descriptor {name} for a shell, use `flock {name}`: flock(1), or this program \
             under the name `flock`"
        ));
    }
    if is_program_instead(path) {
        return failure.hint(format!(
            "`{name}` was taken as PATH; give a path first, as in `flockwork {verb} PATH {name}`"
        ));
    }
    failure
}

/// Checks that the command can be found before a file is created at `path`. If something exists
/// there, the command may be missing until the holder of the lock has created it.
pub(crate) fn check(verb: &str, path: &Path, job: &Job) -> Result<(), Failure> {
    // The main thread does not examine a path on a network file system.
    if crate::front::is_behind() || std::fs::symlink_metadata(path).is_ok() {
        return Ok(());
    }
    job.check().map_err(|failure| {
        if failure.exit != Exit::CannotRun || !is_program_instead(path) {
            return failure;
        }
        let (name, program) = (path.display(), job.program().to_string_lossy());
        let line = quoted([path.as_os_str().to_os_string()].iter().chain(job.words()));
        failure.hint(format!(
            "`{name}` was taken as PATH and `{program}` as COMMAND; give a path first, as in \
             `flockwork {verb} PATH {line}`"
        ))
    })
}

/// Whether a path is the name of a program and of no file, so that the user probably meant the
/// program.
fn is_program_instead(path: &Path) -> bool {
    let name = path.as_os_str();
    !name.as_encoded_bytes().contains(&b'/')
        && std::fs::symlink_metadata(path).is_err()
        && Job::new(&[name.to_os_string()]).is_ok_and(|job| job.check().is_ok())
}

/// A usage error with a pointer to the verb's help.
pub(crate) fn usage(verb: &str, problem: &str) -> Failure {
    Failure::usage(format!("{verb}: {problem}")).hint(format!("see `flockwork {verb} --help`"))
}
