//! How the command ends: its exit codes, and the report of a failure.

use std::io::Write as _;

use flockwork::{Error, ErrorKind, Holder, Operation};

use crate::{color, holder_text};

/// The result of a verb.
pub(crate) type Outcome = Result<Exit, Failure>;

/// The exit codes, which follow `sysexits.h` where it has a matching code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The verb succeeded.
    Success,
    /// `event status`: the event is cleared. `event set --new`: the event was already set.
    No,
    /// The command line is invalid (EX_USAGE).
    Usage,
    /// A file is damaged or cannot be locked (EX_DATAERR).
    Data,
    /// A file cannot be opened or read (EX_NOINPUT).
    CannotOpen,
    /// The command cannot be run (EX_UNAVAILABLE).
    CannotRun,
    /// A resource is exhausted, or a system call failed (EX_OSERR).
    System,
    /// A file cannot be created (EX_CANTCREAT).
    CannotCreate,
    /// The timeout passed, or an attempt would have blocked (EX_TEMPFAIL).
    NotInTime,
    /// The lock was lost while the command ran (EX_PROTOCOL).
    Lost,
    /// The command was ended after the time of `--max-run`, as by timeout(1).
    TimedOut,
    /// An interrupt from the terminal ended the command, or a signal ended the wait.
    Interrupted,
    /// The command's exit code, 128 plus the number of the signal that ended it, or the code of
    /// `-E`.
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
            Self::Lost => 76,
            Self::TimedOut => 124,
            Self::Interrupted => 128 + 2,
            Self::Other(code) => code,
        }
    }
}

/// Why a verb failed: the exit code, one clause with the reason, and a hint.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    message: String,
    hint: Option<String>,
    /// The processes that kept a call from succeeding.
    holders: Vec<Holder>,
    is_reentrant: bool,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None, holders: Vec::new(), is_reentrant: false }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Sets the advice, which is printed on a separate line.
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Replaces the exit code.
    pub(crate) fn with_exit(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }

    /// Keeps only the exit code, so that nothing is printed.
    pub(crate) fn silent(self) -> Self {
        Self { message: String::new(), hint: None, ..self }
    }

    /// Adjusts the hint of a wait whose first attempt decided the result.
    pub(crate) fn after_a_wait(self) -> Self {
        let would_block = self.hint.as_deref() == Some(WAIT);
        if would_block { self.hint("try again later, or wait longer") } else { self }
    }

    /// Names the first of the holders in the message.
    pub(crate) fn held_by(self, holders: Vec<Holder>) -> Self {
        let message = match &holders[..] {
            [] => self.message,
            [first, others @ ..] => {
                let text = match others.len() {
                    0 => format!("{}: held by {first}", self.message),
                    more => format!("{}: held by {first}, and {more} more", self.message),
                };
                holder_text::with_job(text, first)
            }
        };
        Self { message, holders, ..self }
    }

    /// The known processes that kept a call from succeeding.
    pub(crate) fn holders(&self) -> &[Holder] {
        &self.holders
    }

    /// Marks the failure as one that `--reentrant` prevents.
    pub(crate) fn reentrant(self) -> Self {
        Self { is_reentrant: true, ..self }
    }

    pub(crate) fn is_reentrant(&self) -> bool {
        self.is_reentrant
    }

    /// The clause without the hint.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn is_not_in_time(&self) -> bool {
        self.exit == Exit::NotInTime
    }

    /// Prints the failure on the standard error: one line, and another for the hint.
    pub(crate) fn report(self) -> Exit {
        self.report_as("flockwork")
    }

    /// The same with another program's name.
    pub(crate) fn report_as(self, name: &str) -> Exit {
        if !self.message.is_empty() {
            let is_colored = color::is_on(&std::io::stderr());
            let (red, cyan, end) =
                if is_colored { ("\x1b[1;31m", "\x1b[36m", "\x1b[0m") } else { ("", "", "") };
            let mut lines = format!("{red}{name}:{end} {}\n", printable(&self.message));
            if let Some(hint) = &self.hint {
                lines = format!("{lines}{cyan}hint:{end} {}\n", printable(hint));
            }
            write_error(&lines);
        }
        self.exit
    }
}

/// Prints a line on the standard error.
pub(crate) fn print_error(message: &str) {
    write_error(&format!("flockwork: {}\n", printable(message)));
}

/// Writes all lines at once, so that those of other processes do not get in between. A failure is
/// ignored, since it could not be reported anywhere.
fn write_error(lines: &str) {
    let _ = std::io::stderr().write_all(lines.as_bytes());
}

/// Escapes control characters, which file names may contain, for the terminal.
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

/// Whether a character is neither a control character nor one that changes the direction of text.
pub(crate) fn is_printable(character: char) -> bool {
    !character.is_control()
        && !matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The hint for a path that is not a semaphore.
pub(crate) const NAME_FIRST: &str =
    "give the semaphore before the command, as PATH or with --id NAME";

/// The hint of a verb that did not wait.
pub(crate) const WAIT: &str = "try again later, or wait (omit -n, or use -w SECS)";

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Exit::NotInTime,
            ErrorKind::CapacityMismatch | ErrorKind::InvalidPermits => Exit::Usage,
            ErrorKind::Corrupt => Exit::Data,
            ErrorKind::NotRegularFile => Exit::CannotOpen,
            ErrorKind::Lost => Exit::Lost,
            // A signal has ended the wait, and then ends this process.
            ErrorKind::Cancelled => return Self::new(Exit::Interrupted, String::new()),
            _ => match (error.operation(), error.io_error()) {
                (Some(operation), Some(source)) => exit_of_io(operation, source),
                _ => Exit::System,
            },
        };
        let has_waited = error.waited().is_some_and(|waited| !waited.is_zero());
        let hint = match (error.kind(), error.capacity()) {
            (ErrorKind::WouldBlock, _) => Some(WAIT.into()),
            (ErrorKind::TimedOut, _) if !has_waited => Some(WAIT.into()),
            (ErrorKind::CapacityMismatch, Some(capacity)) => {
                Some(format!("use -j {capacity}, omit -j, or change the capacity with --resize"))
            }
            // The library's hints name functions.
            (ErrorKind::TimedOut, _) => {
                let function = ", or wait longer with `Options::server_timeout`";
                error.hint().map(|hint| hint.replace(function, ""))
            }
            (ErrorKind::Lost, _) => Some("another host may have run at the same time".into()),
            _ => error.hint().map(|hint| hint.replace("`Options::access`", "--access")),
        };
        let failure = Self::new(exit, text_with_holders(&error));
        Self { hint, holders: error.holders().to_vec(), ..failure }
    }
}

/// The text of an error with its holders, of which the first is described by its job.
fn text_with_holders(error: &Error) -> String {
    // The text of a failed try names them only after they were looked up.
    let holders = error.holders();
    let text = format!("{error:#}");
    match holders {
        [first, ..] => holder_text::with_job(text, first),
        [] => text,
    }
}

/// The exit code depends on the operation, unless a resource is exhausted.
fn exit_of_io(operation: Operation, source: &std::io::Error) -> Exit {
    use std::io::ErrorKind::{
        InvalidInput, NotADirectory, OutOfMemory, ReadOnlyFilesystem, StorageFull,
    };
    if is_exhausted(source) || source.kind() == OutOfMemory {
        return Exit::System;
    }
    let creates = matches!(
        operation,
        Operation::Create
            | Operation::CreateParent
            | Operation::Restore
            | Operation::Set
            | Operation::SetCapacity
    );
    match (source.kind(), operation) {
        (InvalidInput, _) => Exit::Usage,
        (NotADirectory, _) => Exit::CannotOpen,
        (kind, _) if creates || matches!(kind, ReadOnlyFilesystem | StorageFull) => {
            Exit::CannotCreate
        }
        (_, Operation::Lock | Operation::Unlock | Operation::Downgrade | Operation::Inherit) => {
            Exit::System
        }
        _ => Exit::CannotOpen,
    }
}

/// Whether the process or the system has no free descriptors.
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
    fn exit_codes_match_the_help_text() {
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
            (Exit::Lost, 76),
            (Exit::TimedOut, 124),
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
    fn the_cause_decides_the_exit_code() {
        limit!();
        use std::io::{Error, ErrorKind};
        let exit_of = |operation, kind: ErrorKind| exit_of_io(operation, &Error::from(kind));
        assert_eq!(exit_of(Operation::Open, ErrorKind::PermissionDenied), Exit::CannotOpen);
        assert_eq!(exit_of(Operation::Create, ErrorKind::PermissionDenied), Exit::CannotCreate);
        assert_eq!(exit_of(Operation::Write, ErrorKind::StorageFull), Exit::CannotCreate);
        assert_eq!(exit_of(Operation::Lock, ErrorKind::Other), Exit::System);
        #[cfg(unix)]
        assert_eq!(exit_of_io(Operation::Create, &rustix::io::Errno::MFILE.into()), Exit::System);
    }
}
