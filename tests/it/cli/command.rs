//! The command `flockwork` as the tests of this directory run it.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::running::{Running, Start as _};

/// The command, in a directory. With no signal ignored: tests that run in the background of a script begin with some that are.
pub(crate) fn flockwork(dir: &Path) -> Command {
    let mut command = Command::new("env");
    command.arg("--default-signal").arg(env!("CARGO_BIN_EXE_flockwork"));
    command.current_dir(dir).stdin(Stdio::null()).env("XDG_RUNTIME_DIR", dir);
    command
}

/// What a run came to.
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

    /// It says so on one line, without a panic.
    #[track_caller]
    pub(crate) fn says(&self, what: &str) {
        assert_eq!(self.err.lines().count(), 1, "{}", self.err);
        assert!(self.err.starts_with("flockwork: ") && self.err.contains(what), "{}", self.err);
        assert!(!self.err.contains("panicked") && !self.err.contains("Error {"), "{}", self.err);
    }
}

pub(crate) fn run(dir: &Path, words: impl IntoIterator<Item: AsRef<OsStr>>) -> Ran {
    Ran::of(flockwork(dir).args(words))
}

/// A `flockwork` whose job runs until its input ends. It is running already.
pub(crate) struct Holding(pub(crate) Running);

impl Holding {
    /// `words` end where the command begins.
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
