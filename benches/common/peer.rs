//! Other processes, told what to do in lines over stdin and answering in lines over stdout. None outlives
//! what it was started for.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// Killed when dropped, unless it was stopped before.
pub(crate) struct Peer {
    process: Child,
    /// Closed to end it.
    orders: Option<ChildStdin>,
    answers: Option<BufReader<ChildStdout>>,
}

impl Peer {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start another process");
        let orders = process.stdin.take();
        let answers = process.stdout.take().map(BufReader::new);
        Self { process, orders, answers }
    }

    /// This program again, which finds its role in that variable, and what goes with it in its arguments.
    pub(crate) fn start_this_program(
        variable: &str,
        role: impl AsRef<OsStr>,
        arguments: &[&dyn AsRef<OsStr>],
    ) -> Self {
        let program = std::env::current_exe().expect("this program's path");
        Self::start(Command::new(program).env(variable, role).args(arguments))
    }

    #[allow(dead_code, reason = "not every bench looks at the process from outside")]
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn tell(&mut self, order: &str) {
        let orders = self.orders.as_mut().expect("not stopped");
        writeln!(orders, "{order}").expect("tell another process");
    }

    pub(crate) fn hear(&mut self) -> String {
        let mut answer = String::new();
        let answers = self.answers.as_mut().expect("not taken");
        let length = answers.read_line(&mut answer).expect("hear another process");
        assert!(length > 0, "another process has ended");
        answer
    }

    /// To be read elsewhere.
    pub(crate) fn take_answers(&mut self) -> BufReader<ChildStdout> {
        self.answers.take().expect("not taken")
    }

    /// Has it end by itself.
    pub(crate) fn stop(mut self) {
        self.orders = None;
        assert!(self.process.wait().expect("await another process").success());
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Both fail for one that has ended and was waited for.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// For the other process: it ends after so long, whatever holds it up and whether its parent lives.
pub(crate) fn end_after(limit: Duration) {
    std::thread::spawn(move || {
        std::thread::sleep(limit);
        eprintln!("process {} is stuck, and ends itself", std::process::id());
        std::process::exit(1);
    });
}
