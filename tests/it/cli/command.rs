//! Runs the command `flockwork` for the tests of this directory.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::running::{Running, Start as _};

/// The command in a directory, with no ignored signals: tests that run in the background of a
/// script inherit some. A string of `-c` is run by the same shell everywhere, not by the user's.
pub(crate) fn flockwork(dir: &Path) -> Command {
    let mut command = Command::new("env");
    command.arg("--default-signal").arg(env!("CARGO_BIN_EXE_flockwork"));
    command.current_dir(dir).stdin(Stdio::null());
    command.env("FLOCKWORK_ID_DIR", dir.join("flockwork")).env("SHELL", "/bin/sh");
    command
}

/// The result of a run.
#[derive(Debug, PartialEq)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    #[track_caller]
    pub(crate) fn expect(self, code: i32, out: &str) -> Self {
        assert_eq!((self.code, &*self.out), (Some(code), out), "{self:?}");
        self
    }

    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    /// Asserts that the standard error is an error, perhaps with a hint, and contains `expected`.
    /// In `expected`, "; " separates the two.
    #[track_caller]
    pub(crate) fn assert_error(&self, expected: &str) {
        let (message, hint) = self.message_and_hint();
        assert!(message.starts_with("flockwork: "), "{}", self.err);
        let joined = if hint.is_empty() { message.into() } else { format!("{message}; {hint}") };
        assert!(joined.contains(expected), "{}", self.err);
        assert!(!joined.contains("panicked") && !joined.contains("Error {"), "{}", self.err);
    }

    /// The line of an error and its hint, which may be empty.
    #[track_caller]
    pub(crate) fn message_and_hint(&self) -> (&str, &str) {
        let lines: Vec<_> = self.err.lines().collect();
        match *lines {
            [message] => (message, ""),
            [message, hint] => match hint.strip_prefix("hint: ") {
                Some(hint) => (message, hint),
                None => panic!("two lines without a hint: {}", self.err),
            },
            _ => panic!("{} lines: {}", lines.len(), self.err),
        }
    }

    /// The lines of the standard error that are not hints.
    pub(crate) fn lines(&self) -> Vec<&str> {
        self.err.lines().filter(|line| !line.starts_with("hint: ")).collect()
    }
}

pub(crate) fn run(dir: &Path, words: impl IntoIterator<Item: AsRef<OsStr>>) -> Ran {
    Ran::of(flockwork(dir).args(words))
}

/// A `flockwork` whose job has started, and runs until its input ends.
pub(crate) struct Holding(pub(crate) Running);

impl Holding {
    /// `words` are those before the command.
    pub(crate) fn start(dir: &Path, words: &[&str]) -> Self {
        Self::of(flockwork(dir).args(words).args(["sh", "-c", "echo runs; exec cat"]))
    }

    pub(crate) fn of(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).start();
        let mut line = [0; 5];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
        assert_eq!(&line, b"runs\n");
        Self(child)
    }

    pub(crate) fn end(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}
