//! Other processes, which receive lines on their stdin and answer with lines on their stdout. None
//! of them outlives the bench.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// A process that is killed when this is dropped, unless it was stopped before.
pub(crate) struct Peer {
    process: Child,
    /// The process exits when this is closed.
    input: Option<ChildStdin>,
    answers: Option<BufReader<ChildStdout>>,
}

impl Peer {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start another process");
        let input = process.stdin.take();
        let answers = process.stdout.take().map(BufReader::new);
        Self { process, input, answers }
    }

    /// Starts this program again. It finds its role in the environment variable.
    pub(crate) fn start_this_program(
        variable: &str,
        role: impl AsRef<OsStr>,
        arguments: &[&dyn AsRef<OsStr>],
    ) -> Self {
        let program = std::env::current_exe().expect("this program's path");
        Self::start(Command::new(program).env(variable, role).args(arguments))
    }

    #[allow(dead_code, reason = "not every bench examines the process")]
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn send(&mut self, line: &str) {
        let input = self.input.as_mut().expect("not stopped");
        writeln!(input, "{line}").expect("write to another process");
    }

    pub(crate) fn receive(&mut self) -> String {
        let mut answer = String::new();
        let answers = self.answers.as_mut().expect("not taken");
        let length = answers.read_line(&mut answer).expect("read from another process");
        assert!(length > 0, "another process has exited");
        answer
    }

    /// Takes the process's output, so that another thread can read it.
    pub(crate) fn take_answers(&mut self) -> BufReader<ChildStdout> {
        self.answers.take().expect("not taken")
    }

    /// Closes the input, and waits until the process has exited.
    pub(crate) fn stop(mut self) {
        self.input = None;
        assert!(self.process.wait().expect("wait for another process").success());
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Both calls fail if the process has already been waited for.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Makes this process exit after `limit`, even if its parent has died or a thread is stuck.
pub(crate) fn exit_after(limit: Duration) {
    std::thread::spawn(move || {
        std::thread::sleep(limit);
        eprintln!("process {} is stuck and exits", std::process::id());
        std::process::exit(1);
    });
}
