//! Ten builds need a toolchain that must be unpacked once, and the first of them is killed halfway.
//!
//! Another build finds what the killed one left, removes it and unpacks the toolchain. The other
//! builds wait until that is done. An editor also needs the toolchain, but only waits for a build
//! to unpack it. The program starts itself again for each process.
//!
//! ```text
//! cargo run --example toolchain
//! ```

use std::error::Error;
use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use flockwork::{Once, Options};

const BUILDS: usize = 10;
const FILES: usize = 40;

/// The editor's first timeout, which passes before the toolchain can be unpacked.
const SHORT_TIMEOUT: Duration = Duration::from_millis(50);
/// The editor's second timeout. It is long because a busy disk may be slow: see [`Options::fsync`].
const TIMEOUT: Duration = Duration::from_secs(300);
/// A process that reports nothing for this long is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(2 * TIMEOUT.as_secs());

const BUILD: &str = "build";
const EDITOR: &str = "editor";

// The words of their reports.
const NEEDS: &str = "needs";
const UNPACKS: &str = "unpacks";
const HALFWAY: &str = "halfway";
const UNPACKED: &str = "unpacked";
const TOO_EARLY: &str = "too-early";
const FOUND: &str = "found";

// What the parent sends to a build that it does not kill.
const CONTINUE: &str = "continue";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        [] => demo(),
        [BUILD, name, directory] => build(name, Path::new(directory)).map(|()| true),
        [EDITOR, _, directory] => edit(Path::new(directory)).map(|()| true),
        _ => {
            eprintln!("usage: toolchain");
            return ExitCode::from(64);
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

// ----------------------------------------------------------------------- the builds and the editor

fn build(name: &str, directory: &Path) -> Result<(), Box<dyn Error>> {
    let toolchain = toolchain_in(directory);
    let unpacked = Options::new()
        .label(name) // shown to the parent by `holders`
        .fsync(true) // after a loss of power "unpacked" still implies that the files exist
        .open_once(marker_in(directory))?;

    report(NEEDS, "");
    let unpacked_here = unpacked.call_once(|| unpack(&toolchain))?;
    let word = if unpacked_here { UNPACKED } else { FOUND };
    report(word, &Files::of(&toolchain)?.to_string());
    Ok(())
}

/// Unpacks the toolchain. A build may be killed at any moment, so this first removes what an
/// earlier build may have left.
fn unpack(toolchain: &Path) -> io::Result<()> {
    report(UNPACKS, &Files::of(toolchain)?.to_string());
    if toolchain.exists() {
        std::fs::remove_dir_all(toolchain)?;
    }
    std::fs::create_dir(toolchain)?;
    for number in 0..FILES {
        let (path, text) = (path_of(toolchain, number), text_of(number));
        if number == FILES / 2 {
            std::fs::write(&path, &text[..text.len() / 2])?;
            pause_halfway()?;
        }
        std::fs::write(&path, text)?;
    }
    Ok(())
}

/// Waits until the parent sends [`CONTINUE`], so that the parent can kill a build at exactly this
/// point.
fn pause_halfway() -> io::Result<()> {
    report(HALFWAY, "");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    if answer.trim_end() == CONTINUE { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Waits for the toolchain, which an editor cannot unpack.
fn edit(directory: &Path) -> Result<(), Box<dyn Error>> {
    let unpacked = Once::open(marker_in(directory))?;
    match unpacked.wait_timeout(SHORT_TIMEOUT) {
        Err(error) if error.is_timed_out() => {
            report(TOO_EARLY, &error.to_string());
            unpacked.wait_timeout(TIMEOUT)?;
        }
        result => result?,
    }
    report(FOUND, &Files::of(&toolchain_in(directory))?.to_string());
    Ok(())
}

/// Prints `WORD DETAILS`, which the parent shows and checks.
fn report(word: &str, details: &str) {
    println!("{word} {details}");
}

// ----------------------------------------------------------------------------------- the toolchain

fn toolchain_in(directory: &Path) -> PathBuf {
    directory.join("toolchain")
}

/// The file that exists when the toolchain is complete.
fn marker_in(directory: &Path) -> PathBuf {
    directory.join("toolchain.unpacked")
}

fn path_of(toolchain: &Path, number: usize) -> PathBuf {
    toolchain.join(format!("file-{number}"))
}

fn text_of(number: usize) -> String {
    format!("This is file {number} of the toolchain.\n").repeat(100)
}

/// The number of files of a toolchain.
#[derive(PartialEq, Eq)]
struct Files {
    complete: usize,
    incomplete: usize,
}

impl Files {
    const NONE: Self = Self { complete: 0, incomplete: 0 };
    const HALF: Self = Self { complete: FILES / 2, incomplete: 1 };
    const ALL: Self = Self { complete: FILES, incomplete: 0 };

    /// Reads every file.
    fn of(toolchain: &Path) -> io::Result<Self> {
        let found = match std::fs::read_dir(toolchain) {
            Ok(entries) => entries.count(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        let is_complete = |number: &usize| {
            let text = std::fs::read_to_string(path_of(toolchain, *number));
            text.is_ok_and(|text| text == text_of(*number))
        };
        let complete = (0..FILES).filter(is_complete).count();
        Ok(Self { complete, incomplete: found.saturating_sub(complete) })
    }
}

impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} complete files and {} incomplete", self.complete, self.incomplete)
    }
}

// -------------------------------------------------------------------------------------- the parent

/// Starts the processes, kills the first build that unpacks, shows the reports and checks them.
fn demo() -> Result<bool, Box<dyn Error>> {
    println!(
        "{BUILDS} builds need a toolchain of {FILES} files. The first build that unpacks it is killed \
         halfway.\n"
    );
    let directory = tempfile::Builder::new().prefix("flockwork-example-").tempdir()?;
    let unpacked = Once::open(marker_in(directory.path()))?;

    let (sender, lines) = mpsc::channel();
    let mut transcript = Transcript { start: Instant::now(), lines, reports: Vec::new() };
    let mut processes = Vec::new();
    for number in 0..BUILDS {
        processes.push(Process::start(number, BUILD, directory.path(), sender.clone())?);
    }
    while transcript.processes(NEEDS).len() < BUILDS || transcript.processes(HALFWAY).is_empty() {
        transcript.receive()?.ok_or("no build unpacks the toolchain")?;
    }
    // From here on no process continues until the parent says so.
    processes.push(Process::start(BUILDS, EDITOR, directory.path(), sender)?);
    while transcript.processes(TOO_EARLY).is_empty() && transcript.processes(FOUND).is_empty() {
        transcript.receive()?.ok_or("the editor does not wait")?;
    }
    let [killed] = transcript.processes(HALFWAY)[..] else {
        return Err("two builds unpack it at once".into());
    };
    let holder = unpacked.holders()?.pop().ok_or("the build that unpacks it is unknown")?;
    let is_named =
        holder.label() == Some(&*name(killed)) && holder.pid() == processes[killed].child.id();
    transcript.show("main", &format!("finds the holder: {holder}"));
    transcript.show("main", &format!("kills {}", name(killed)));
    processes[killed].kill()?;

    let mut was_done_early = unpacked.is_done()?;
    while let Some((number, word)) = transcript.receive()? {
        if word == HALFWAY {
            was_done_early |= unpacked.is_done()?;
            processes[number].send(CONTINUE)?;
        }
    }
    let mut succeeded = unpacked.is_done()? && !was_done_early && is_named;
    for (number, process) in processes.iter_mut().enumerate() {
        succeeded &= process.child.wait()?.success() == (number != killed);
    }

    drop(unpacked); // Windows does not remove open files
    directory.close()?;
    Ok(transcript.check(killed, succeeded))
}

fn name(number: usize) -> String {
    if number < BUILDS { format!("build {}", number + 1) } else { EDITOR.into() }
}

/// A process that is killed when this is dropped, so that it does not outlive the parent.
struct Process {
    child: Child,
    input: ChildStdin,
}

impl Process {
    fn start(
        number: usize,
        role: &str,
        directory: &Path,
        sender: Sender<(usize, String)>,
    ) -> Result<Self, Box<dyn Error>> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([role, &name(number)])
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (input, output) = (child.stdin.take().ok_or("no pipe")?, child.stdout.take());
        std::thread::spawn(move || {
            for line in output.map(BufReader::new).into_iter().flat_map(BufRead::lines) {
                let _ = line.map(|line| sender.send((number, line)));
            }
        });
        Ok(Self { child, input })
    }

    fn send(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.input, "{line}")
    }

    /// Kills the process (by SIGKILL on Unix), so it cannot clean up.
    fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both calls fail if the process has already exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The reports of all processes so far.
struct Transcript {
    start: Instant,
    lines: Receiver<(usize, String)>,
    reports: Vec<Report>,
}

struct Report {
    process: usize,
    word: String,
    details: String,
}

impl Report {
    fn text(&self) -> String {
        let details = &self.details;
        match &*self.word {
            NEEDS => "needs the toolchain".into(),
            UNPACKS if *details == Files::NONE.to_string() => "unpacks it".into(),
            UNPACKS => format!("finds {details}, removes them and unpacks it"),
            HALFWAY => "is halfway".into(),
            UNPACKED => format!("has unpacked it: {details}"),
            TOO_EARLY => format!("is too early ({details})"),
            FOUND => format!("finds it unpacked: {details}"),
            word => format!("{word} {details}"),
        }
    }
}

impl Transcript {
    fn show(&self, process: &str, text: &str) {
        println!("{:5.2} s  {process} {text}", self.start.elapsed().as_secs_f64());
    }

    /// Waits for the next report, shows it and returns its process and word. Returns `None` when
    /// all processes have exited.
    fn receive(&mut self) -> Result<Option<(usize, String)>, Box<dyn Error>> {
        let (process, line) = match self.lines.recv_timeout(STUCK_AFTER) {
            Ok(received) => received,
            Err(RecvTimeoutError::Timeout) => return Err("a process is stuck".into()),
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
        };
        let (word, details) = line.split_once(' ').ok_or("an incomplete report")?;
        let report = Report { process, word: word.into(), details: details.into() };
        self.show(&name(process), &report.text());
        self.reports.push(report);
        Ok(Some((process, word.into())))
    }

    /// The processes that have reported this word, in the order of their reports.
    fn processes(&self, word: &str) -> Vec<usize> {
        let reports = self.reports.iter().filter(|report| report.word == word);
        reports.map(|report| report.process).collect()
    }

    /// Checks that exactly two builds began to unpack, the second one with what the first one had
    /// left; that only the second one completed the work; and that each process that was not killed
    /// found the whole toolchain.
    fn check(&self, killed: usize, succeeded: bool) -> bool {
        let (began, completed) = (self.processes(UNPACKS), self.processes(UNPACKED));
        let began_with = self.reports.iter().filter(|report| report.word == UNPACKS);
        let began_with: Vec<&str> = began_with.map(|report| &*report.details).collect();
        let found = self.processes(FOUND).into_iter().filter(|process| *process < BUILDS).count();
        let complete = self.reports.iter().filter(|report| {
            [UNPACKED, FOUND].contains(&&*report.word) && report.details == Files::ALL.to_string()
        });
        let complete = complete.count();
        let is_right = succeeded
            && completed.len() == 1
            && began == [killed, completed[0]]
            && began_with == [Files::NONE.to_string(), Files::HALF.to_string()]
            && found == BUILDS - 2
            && self.processes(TOO_EARLY) == [BUILDS]
            && complete == BUILDS; // all builds but the killed one, and the editor
        println!();
        if is_right {
            println!("{} was killed halfway.", name(killed));
            println!("{} unpacked the toolchain, and no other build did.", name(completed[0]));
            println!("{found} builds and the editor found it unpacked.");
            println!("Each of these {complete} processes found all {FILES} files.");
        } else {
            println!(
                "FAILED: {} builds began to unpack it, {} completed it, {found} found it unpacked, \
                 {complete} of {BUILDS} processes found all files; other checks passed: {succeeded}.",
                began.len(),
                completed.len()
            );
        }
        is_right
    }
}
