//! How the command ends: exit codes, and the one line that says why.

use std::io::Write as _;

use flockwork::Error;

/// How a verb ended, or failed.
pub(crate) type Outcome = Result<Exit, Failure>;

/// The exit codes, those of `sysexits.h` where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All is as it was asked for.
    Success,
    /// `event status`: it is not set. `event set --new`: it is.
    No,
    /// The command line is invalid (EX_USAGE).
    Usage,
    /// Something at the path is damaged, or cannot be locked (EX_DATAERR).
    Data,
    /// Something cannot be opened or looked at (EX_NOINPUT).
    CannotOpen,
    /// The command cannot be run (EX_UNAVAILABLE).
    CannotRun,
    /// The system has no more of something, or cannot do it (EX_OSERR).
    System,
    /// Something cannot be created (EX_CANTCREAT).
    CannotCreate,
    /// The time is over, or it is not available at once (EX_TEMPFAIL).
    NotInTime,
    /// The terminal interrupted the command, which ended by that.
    Interrupted,
    /// The command's own; 128 and the signal's number where that ended it. Or what `-E` asked for.
    Other(i32),
}

impl Exit {
    pub(crate) fn code(self) -> i32 {
        match self {
            Self::Success => 0,
            Self::No => 1,
            Self::Usage => 64,
            Self::Data => 65,
            Self::CannotOpen => 66,
            Self::CannotRun => 69,
            Self::System => 71,
            Self::CannotCreate => 73,
            Self::NotInTime => 75,
            Self::Interrupted => 128 + 2,
            Self::Other(code) => code,
        }
    }
}

/// Why a verb failed: the exit code, one clause that says why, and what to do about it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    message: String,
    hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// With what to do about it.
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The same with another code.
    pub(crate) fn with_exit(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }

    /// Ends with the same code and says nothing.
    pub(crate) fn silent(self) -> Self {
        Self { message: String::new(), hint: None, ..self }
    }

    /// The same of a wait whose time was over before it began.
    pub(crate) fn after_a_wait(self) -> Self {
        let is_at_once = self.hint.as_deref() == Some(WAIT);
        if is_at_once { self.hint("try again later, or wait longer") } else { self }
    }

    /// The clause without the hint.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn is_not_in_time(&self) -> bool {
        self.exit == Exit::NotInTime
    }

    /// Says it, on one line of the standard error.
    pub(crate) fn report(self) -> Exit {
        self.report_as("flockwork")
    }

    /// The same in the name of another program.
    pub(crate) fn report_as(self, name: &str) -> Exit {
        match &self.hint {
            _ if self.message.is_empty() => {}
            Some(hint) => say_as(name, &format!("{}; {hint}", self.message)),
            None => say_as(name, &self.message),
        }
        self.exit
    }
}

/// A line on the standard error. Where that is closed there is nobody to tell.
pub(crate) fn say(message: &str) {
    say_as("flockwork", message);
}

fn say_as(name: &str, message: &str) {
    let line = format!("{name}: {}\n", printable(message));
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Without control characters: a file's name may hold some, and they are not for the terminal.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if is_printable(character) {
            out.push(character);
        } else {
            out.extend(character.escape_default());
        }
    }
    out
}

/// Nothing that a terminal obeys, and no mark that turns the direction of text round.
pub(crate) fn is_printable(character: char) -> bool {
    !character.is_control()
        && !matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// What to do about a semaphore's path that is none.
pub(crate) const NAME_FIRST: &str =
    "name the semaphore before the command, by a path or by --id NAME";

/// What to do after a verb that did not wait.
pub(crate) const WAIT: &str = "try again later, or let it wait (without -n, or with -w SECS)";

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match &error {
            Error::WouldBlock { .. } | Error::TimedOut { .. } => Exit::NotInTime,
            Error::CapacityMismatch { .. } | Error::InvalidPermits { .. } => Exit::Usage,
            Error::Corrupt { .. } => Exit::Data,
            Error::NotRegularFile { .. } => Exit::CannotOpen,
            Error::Io { operation, source, .. } => of_io(operation, source),
            _ => Exit::System,
        };
        let hint = match &error {
            Error::WouldBlock { .. } => Some(WAIT.into()),
            Error::TimedOut { waited, .. } if waited.is_zero() => Some(WAIT.into()),
            Error::CapacityMismatch { stored, .. } => {
                Some(format!("use -j {stored}, leave -j out, or change it for all with --resize"))
            }
            Error::NotRegularFile { wanted: "a directory", .. } => Some(NAME_FIRST.into()),
            // The library names its functions, which have other names here.
            _ => error.hint().map(|hint| hint.replace("`Options::access`", "--access")),
        };
        let text = error.to_string();
        let clause = error.hint().and_then(|hint| text.strip_suffix(&format!("; {hint}")));
        Self { exit, message: clause.unwrap_or(&text).into(), hint }
    }
}

/// By what was tried, but for what the system has no more of.
fn of_io(operation: &str, source: &std::io::Error) -> Exit {
    use std::io::ErrorKind::{
        InvalidInput, NotADirectory, OutOfMemory, ReadOnlyFilesystem, StorageFull,
    };
    if is_exhausted(source) || source.kind() == OutOfMemory {
        return Exit::System;
    }
    let makes = ["create", "set", "restore", "resize"];
    match source.kind() {
        ReadOnlyFilesystem | StorageFull => Exit::CannotCreate,
        InvalidInput => Exit::Usage,
        NotADirectory => Exit::CannotOpen,
        _ if makes.iter().any(|verb| operation.starts_with(verb)) => Exit::CannotCreate,
        _ if ["lock", "unlock", "downgrade", "let"]
            .iter()
            .any(|verb| operation.starts_with(verb)) =>
        {
            Exit::System
        }
        _ => Exit::CannotOpen,
    }
}

/// Whether the process or the system has no more descriptors.
pub(crate) fn is_exhausted(error: &std::io::Error) -> bool {
    #[cfg(unix)]
    return matches!(
        rustix::io::Errno::from_io_error(error),
        Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE)
    );
    #[cfg(not(unix))]
    return error.raw_os_error() == Some(4); // ERROR_TOO_MANY_OPEN_FILES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_are_those_that_the_manual_names() {
        limit!();
        let codes = [
            (Exit::Success, 0),
            (Exit::No, 1),
            (Exit::Usage, 64),
            (Exit::Data, 65),
            (Exit::CannotOpen, 66),
            (Exit::CannotRun, 69),
            (Exit::System, 71),
            (Exit::CannotCreate, 73),
            (Exit::NotInTime, 75),
            (Exit::Interrupted, 130),
            (Exit::Other(143), 143),
        ];
        for (exit, code) in codes {
            assert_eq!(exit.code(), code, "{exit:?}");
        }
    }

    #[test]
    fn a_message_is_one_line_without_control_characters() {
        limit!();
        let shown = printable("a\nb\u{1b}[2Jc\u{202e}d");
        assert!(!shown.chars().any(|c| c.is_control() || c == '\u{202e}'), "{shown}");
        assert_eq!(printable("plain täxt"), "plain täxt");
    }

    #[test]
    fn what_went_wrong_decides_the_code() {
        limit!();
        use std::io::{Error, ErrorKind};
        let of = |operation, kind: ErrorKind| of_io(operation, &Error::from(kind));
        assert_eq!(of("open", ErrorKind::PermissionDenied), Exit::CannotOpen);
        assert_eq!(of("create", ErrorKind::PermissionDenied), Exit::CannotCreate);
        assert_eq!(of("write", ErrorKind::StorageFull), Exit::CannotCreate);
        assert_eq!(of("lock", ErrorKind::Other), Exit::System);
        #[cfg(unix)]
        assert_eq!(of_io("create", &rustix::io::Errno::MFILE.into()), Exit::System);
    }
}
