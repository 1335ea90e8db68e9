//! Two processes wait for an event, as in the tutorial on Python's `multiprocessing.Event`.
//!
//! The main process sets the event after three seconds. Waiter 1 waits without a limit. Waiter 2
//! waits for at most two seconds and times out. The program starts itself again for each waiter,
//! and checks from their reports that both did what they should.
//!
//! ```text
//! cargo run --example event
//! ```

use std::error::Error;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant, SystemTime};

use flockwork::Event;

/// How long waiter 2 waits.
const TIMEOUT: Duration = Duration::from_secs(2);
/// When the event is set.
const SET_AFTER: Duration = Duration::from_secs(3);
/// A waiter that reports nothing for this long is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(30);

// The words of a waiter's reports.
const WAITS: &str = "waits";
const CONTINUES: &str = "continues";
const TIMES_OUT: &str = "times-out";
const TIMES_OUT_EARLY: &str = "times-out-early";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        [] => tutorial(),
        ["waiter", "1", path] => wait(Path::new(path)).map(|()| true),
        ["waiter", "2", path] => wait_for_two_seconds(Path::new(path)).map(|()| true),
        _ => {
            eprintln!("usage: event");
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

// ------------------------------------------------------------------------------------- the waiters

/// Python's `event.wait()`.
fn wait(path: &Path) -> Result<(), Box<dyn Error>> {
    let event = Event::open(path)?;
    report(WAITS, "waits for the event, without a limit");
    event.wait()?;
    report(CONTINUES, &format!("continues, is_set: {}", event.is_set()?));
    Ok(())
}

/// Python's `event.wait(2)`. A timeout is an error here, so the caller cannot overlook it.
fn wait_for_two_seconds(path: &Path) -> Result<(), Box<dyn Error>> {
    let event = Event::open(path)?;
    report(WAITS, "waits for the event, for at most two seconds");
    let start = Instant::now();
    match event.wait_timeout(TIMEOUT) {
        Ok(()) => report(CONTINUES, &format!("continues, is_set: {}", event.is_set()?)),
        Err(error) if error.is_timed_out() => {
            let word = if start.elapsed() < TIMEOUT { TIMES_OUT_EARLY } else { TIMES_OUT };
            report(word, &format!("timed out, is_set: {} ({error})", event.is_set()?));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Prints `WORD TIME TEXT`. The parent checks the word and the time, and shows the text.
///
/// The time comes from the system's clock, which all processes share.
fn report(word: &str, text: &str) {
    println!("{word} {} {text}", clock().as_nanos());
}

fn clock() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

// -------------------------------------------------------------------------------------- the parent

/// Starts the waiters, sets the event, shows the reports and checks them.
fn tutorial() -> Result<bool, Box<dyn Error>> {
    println!("Two processes wait for an event, and the main process sets it.\n");
    let directory = tempfile::Builder::new().prefix("flockwork-example-").tempdir()?;
    let path = directory.path().join("event");
    let event = Event::open(&path)?;

    let (sender, lines) = mpsc::channel();
    let mut transcript = Transcript { start: clock(), lines, reports: Vec::new() };
    let mut waiters = Vec::new();
    for number in 1..=2 {
        waiters.push(Waiter::start(number, &path, sender.clone())?);
    }
    drop(sender);

    // The event is set after three seconds, or later on a machine so busy that waiter 2 has not
    // timed out by then.
    while (transcript.find(1, WAITS).is_none() || transcript.end(2).is_none())
        && transcript.receive_next()?
    {}
    loop {
        let left = SET_AFTER.saturating_sub(transcript.now());
        if left.is_zero() || transcript.receive(left)? == Received::Closed {
            break;
        }
    }
    let set_at = transcript.now();
    show(set_at, "main sets the event");
    event.set()?;

    while transcript.receive_next()? {}
    let mut succeeded = true;
    for waiter in &mut waiters {
        succeeded &= waiter.0.wait()?.success();
    }
    directory.close()?;
    Ok(transcript.check(set_at) && succeeded)
}

fn show(time: Duration, text: &str) {
    println!("{:5.2} s  {text}", time.as_secs_f64());
}

/// A process that is killed when this is dropped, so that it does not outlive the parent.
struct Waiter(Child);

impl Waiter {
    fn start(number: usize, path: &Path, sender: Sender<(usize, String)>) -> io::Result<Self> {
        let mut waiter = Command::new(std::env::current_exe()?)
            .args(["waiter", &number.to_string()])
            .arg(path)
            .stdout(Stdio::piped())
            .spawn()?;
        let output = waiter.stdout.take();
        std::thread::spawn(move || {
            for line in output.map(BufReader::new).into_iter().flat_map(BufRead::lines) {
                let _ = line.map(|line| sender.send((number, line)));
            }
        });
        Ok(Self(waiter))
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        // Both calls fail if the process has already exited.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The reports of all waiters so far.
struct Transcript {
    start: Duration,
    lines: Receiver<(usize, String)>,
    reports: Vec<Report>,
}

struct Report {
    waiter: usize,
    word: String,
    /// The time since the start.
    time: Duration,
    text: String,
}

#[derive(PartialEq, Eq)]
enum Received {
    Line,
    Nothing,
    /// All waiters have closed their output.
    Closed,
}

impl Transcript {
    fn now(&self) -> Duration {
        clock().saturating_sub(self.start)
    }

    /// Waits for the next report and shows it.
    fn receive(&mut self, timeout: Duration) -> Result<Received, Box<dyn Error>> {
        let (waiter, line) = match self.lines.recv_timeout(timeout) {
            Ok(received) => received,
            Err(RecvTimeoutError::Timeout) => return Ok(Received::Nothing),
            Err(RecvTimeoutError::Disconnected) => return Ok(Received::Closed),
        };
        let mut words = line.splitn(3, ' ');
        let mut next = || words.next().ok_or("an incomplete report").map(str::to_string);
        let (word, time, text) = (next()?, next()?, next()?);
        let time = Duration::from_nanos(time.parse()?).saturating_sub(self.start);
        show(time, &format!("waiter {waiter} {text}"));
        self.reports.push(Report { waiter, word, time, text });
        Ok(Received::Line)
    }

    /// Waits for the next report and shows it. Returns false when all waiters have exited.
    fn receive_next(&mut self) -> Result<bool, Box<dyn Error>> {
        match self.receive(STUCK_AFTER)? {
            Received::Line => Ok(true),
            Received::Nothing => Err("a waiter is stuck".into()),
            Received::Closed => Ok(false),
        }
    }

    fn find(&self, waiter: usize, word: &str) -> Option<&Report> {
        self.reports.iter().find(|report| report.waiter == waiter && report.word == word)
    }

    /// How the wait of this waiter ended.
    fn end(&self, waiter: usize) -> Option<&Report> {
        self.reports.iter().find(|report| report.waiter == waiter && report.word != WAITS)
    }

    /// Checks that waiter 2 timed out, but not too early, before the event was set, and that waiter
    /// 1 continued after that. Upper limits would test the machine and not the event.
    fn check(&self, set_at: Duration) -> bool {
        let first_is_right = self.end(1).is_some_and(|end| {
            end.word == CONTINUES && end.time >= set_at && end.text.contains("is_set: true")
        });
        let second_is_right = self.end(2).is_some_and(|end| {
            end.word == TIMES_OUT && end.time <= set_at && end.text.contains("is_set: false")
        });
        println!();
        match (first_is_right, second_is_right) {
            (true, true) => {
                println!("Waiter 2 timed out, and waiter 1 continued when the event was set.");
            }
            (false, _) => println!("FAILED: waiter 1 did not wait until the event was set."),
            (true, false) => println!("FAILED: waiter 2 did not time out after two seconds."),
        }
        first_is_right && second_is_right
    }
}
