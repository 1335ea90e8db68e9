//! Two waiters and an event, as in the tutorial on Python's `multiprocessing.Event`: one waits until the event is
//! set, the other for two seconds at most, and the main process sets it after three. They are real processes:
//! this program again. It shows from what the waiters report that the one gave up in time and the other was let
//! through.
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

/// How long the second waiter waits.
const TIMEOUT: Duration = Duration::from_secs(2);
/// When the event is set.
const SET_AFTER: Duration = Duration::from_secs(3);
/// Something is wrong with a waiter that says nothing for so long.
const PATIENCE: Duration = Duration::from_secs(30);

// What a waiter reports.
const WAITS: &str = "waits";
const GOES_ON: &str = "goes-on";
const GIVES_UP: &str = "gives-up";
const GIVES_UP_EARLY: &str = "gives-up-early";

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

// --------------------------------------------------------------------------------------- the waiters

/// Python's `event.wait()`.
fn wait(path: &Path) -> Result<(), Box<dyn Error>> {
    let event = Event::open(path)?;
    say(WAITS, "waits for the event, without limit");
    event.wait()?;
    say(GOES_ON, &format!("goes on, is_set: {}", event.is_set()?));
    Ok(())
}

/// Python's `event.wait(2)`. That it was in vain is an error value here, which nobody can overlook.
fn wait_for_two_seconds(path: &Path) -> Result<(), Box<dyn Error>> {
    let event = Event::open(path)?;
    say(WAITS, "waits for it, for two seconds");
    let start = Instant::now();
    match event.wait_timeout(TIMEOUT) {
        Ok(()) => say(GOES_ON, &format!("goes on, is_set: {}", event.is_set()?)),
        Err(error) if error.is_timed_out() => {
            let word = if start.elapsed() < TIMEOUT { GIVES_UP_EARLY } else { GIVES_UP };
            say(word, &format!("gave up, is_set: {} ({error})", event.is_set()?));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// `WORD TIME TEXT`: what the parent judges by, when, and what it shows. The time is that of the one clock that
/// all processes of the system can compare, even though somebody might set it in these three seconds.
fn say(word: &str, text: &str) {
    println!("{word} {} {text}", clock().as_nanos());
}

fn clock() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

// --------------------------------------------------------------------------------------- the parent

/// Starts the waiters, sets the event, shows what happens, and judges it.
fn tutorial() -> Result<bool, Box<dyn Error>> {
    println!("Two processes wait for an event, and the main process sets it.\n");
    let directory = tempfile::Builder::new().prefix("flockwork-example-").tempdir()?;
    let path = directory.path().join("event");
    let event = Event::open(&path)?;

    let (sender, lines) = mpsc::channel();
    let mut story = Story { start: clock(), lines, said: Vec::new() };
    let mut waiters = Vec::new();
    for number in 1..=2 {
        waiters.push(Waiter::start(number, &path, sender.clone())?);
    }
    drop(sender);

    // After three seconds. On a machine so busy that the second still waits then, after it has given up.
    while (story.find(1, WAITS).is_none() || story.end(2).is_none()) && story.goes_on()? {}
    loop {
        let left = SET_AFTER.saturating_sub(story.now());
        if left.is_zero() || story.hear(left)? == Heard::TheEnd {
            break;
        }
    }
    let set_at = story.now();
    show(set_at, "main sets the event");
    event.set()?;

    while story.goes_on()? {}
    let mut all_well = true;
    for waiter in &mut waiters {
        all_well &= waiter.0.wait()?.success();
    }
    directory.close()?;
    Ok(story.judge(set_at) && all_well)
}

fn show(time: Duration, text: &str) {
    println!("{:5.2} s  {text}", time.as_secs_f64());
}

/// Does not outlive the parent, also if that fails.
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
        // Both fail for one that has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the waiters have said.
struct Story {
    start: Duration,
    lines: Receiver<(usize, String)>,
    said: Vec<Said>,
}

struct Said {
    waiter: usize,
    word: String,
    /// Since the start.
    time: Duration,
    text: String,
}

#[derive(PartialEq, Eq)]
enum Heard {
    ALine,
    Nothing,
    /// All waiters have closed their output.
    TheEnd,
}

impl Story {
    fn now(&self) -> Duration {
        clock().saturating_sub(self.start)
    }

    /// Waits for the next line, and shows it.
    fn hear(&mut self, at_most: Duration) -> Result<Heard, Box<dyn Error>> {
        let (waiter, line) = match self.lines.recv_timeout(at_most) {
            Ok(said) => said,
            Err(RecvTimeoutError::Timeout) => return Ok(Heard::Nothing),
            Err(RecvTimeoutError::Disconnected) => return Ok(Heard::TheEnd),
        };
        let mut words = line.splitn(3, ' ');
        let mut next = || words.next().ok_or("half a line").map(str::to_string);
        let (word, time, text) = (next()?, next()?, next()?);
        let time = Duration::from_nanos(time.parse()?).saturating_sub(self.start);
        show(time, &format!("waiter {waiter} {text}"));
        self.said.push(Said { waiter, word, time, text });
        Ok(Heard::ALine)
    }

    /// Waits for the next line as long as it takes. False when there will be none.
    fn goes_on(&mut self) -> Result<bool, Box<dyn Error>> {
        match self.hear(PATIENCE)? {
            Heard::ALine => Ok(true),
            Heard::Nothing => Err("a waiter is stuck".into()),
            Heard::TheEnd => Ok(false),
        }
    }

    fn find(&self, waiter: usize, word: &str) -> Option<&Said> {
        self.said.iter().find(|said| said.waiter == waiter && said.word == word)
    }

    /// How the wait of that waiter ended.
    fn end(&self, waiter: usize) -> Option<&Said> {
        self.said.iter().find(|said| said.waiter == waiter && said.word != WAITS)
    }

    /// Whether the second waiter gave up when its time was over and before the event was set, and the first was let
    /// through, and not before that. How much later anything was says more about the machine.
    fn judge(&self, set_at: Duration) -> bool {
        let is_first_well = self.end(1).is_some_and(|end| {
            end.word == GOES_ON && end.time >= set_at && end.text.contains("is_set: true")
        });
        let is_second_well = self.end(2).is_some_and(|end| {
            end.word == GIVES_UP && end.time <= set_at && end.text.contains("is_set: false")
        });
        println!();
        match (is_first_well, is_second_well) {
            (true, true) => {
                println!("Waiter 2 gave up in time, and waiter 1 went on when the event was set.");
            }
            (false, _) => println!("FAILED: waiter 1 did not wait until the event was set."),
            (true, false) => println!("FAILED: waiter 2 did not wait for two seconds and give up."),
        }
        is_first_well && is_second_well
    }
}
