//! Five processes share two permits, as in the tutorial on Python's `multiprocessing.Semaphore(2)`.
//!
//! While two workers hold the permits, the other three wait. The program starts itself again for
//! each worker. It draws a timeline of the slots, live if the output is a terminal, and checks from
//! the workers' reports that at most two worked at once.
//!
//! ```text
//! cargo run --example semaphore
//! cargo run --example semaphore | cat     prints plain text
//! ```

use std::error::Error;
use std::io::{BufRead, BufReader, IsTerminal};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, SystemTime};

use flockwork::{Holder, Options, Semaphore};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

const WORKERS: usize = 5;
const PERMITS: u32 = 2;

/// The interval at which the live timeline is drawn.
const TICK: Duration = Duration::from_millis(50);
/// The shortest time that one character of a timeline stands for. It grows with the timeline, which
/// has at most [`MAX_STEPS`] characters.
const STEP: Duration = Duration::from_millis(50);
const MAX_STEPS: u32 = 60;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        [] => tutorial(),
        ["worker", number, path] => worker(number, Path::new(path)).map(|()| true),
        _ => {
            eprintln!("usage: semaphore");
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

// --------------------------------------------------------------------------------------- a worker

/// The main function of a worker process.
///
/// The parent checks what a worker prints, and none of that comes from flockwork. A worker reads
/// the clock after `acquire` has returned, and again before it releases the permit, so it holds the
/// permit for the whole time in between. If three such times overlapped, three workers would really
/// have held permits at once.
fn worker(number: &str, path: &Path) -> Result<(), Box<dyn Error>> {
    let semaphore = Options::new()
        .label(format!("worker {number}"))
        .on_wait(Duration::from_millis(250), Duration::from_millis(250), |waiting| {
            report("still-waits", &describe(&waiting.holders()));
        })
        .open_semaphore(path, PERMITS)?;

    report("waits", "");
    let permit = semaphore.acquire()?;
    let slot = permit.slots()[0];
    report("begins", &slot.to_string());

    std::thread::sleep(Duration::from_millis(500 + 100 * number.parse::<u64>()?));

    report("ends", "");
    permit.release()?;
    Ok(())
}

/// Prints `WORD TIME DETAILS`.
///
/// The reports arrive through five pipes and so in no particular order. The time comes from the
/// system's clock, which all processes share.
fn report(word: &str, details: &str) {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    println!("{word} {} {details}", time.as_nanos());
}

fn describe(holders: &[Holder]) -> String {
    let one = |holder: &Holder| {
        let slot = holder.slot().map_or("?".into(), |slot| slot.to_string());
        format!("slot {slot}: {}", holder.label().unwrap_or("unknown"))
    };
    holders.iter().map(one).collect::<Vec<_>>().join(", ")
}

// -------------------------------------------------------------------------------------- the parent

/// What a worker has reported. Times are since the start.
#[derive(Default)]
struct Reports {
    waits: Option<Duration>,
    begins: Option<Duration>,
    ends: Option<Duration>,
    slot: Option<u32>,
    /// The holders of the permits that it waits for.
    holders: String,
}

/// Starts the workers, shows their reports and checks them.
fn tutorial() -> Result<bool, Box<dyn Error>> {
    println!("{WORKERS} processes share a semaphore of {PERMITS} permits.\n");
    let directory = tempfile::Builder::new().prefix("flockwork-example-").tempdir()?;
    let path = directory.path().join("permits");
    let semaphore = Semaphore::open(&path, PERMITS)?;

    let start = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let (sender, events) = mpsc::channel();
    let mut workers = Vec::new();
    for index in 0..WORKERS {
        let (worker, output) = start_worker(index + 1, &path)?;
        workers.push(worker);
        let sender = sender.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = sender.send((index, line));
            }
        });
    }
    drop(sender);

    let mut reports: [Reports; WORKERS] = Default::default();
    let mut view = if std::io::stdout().is_terminal() { View::live()? } else { View::Plain };
    loop {
        let event = events.recv_timeout(TICK);
        if let Ok((index, line)) = &event {
            let (word, time, details) = reports[*index].add(line, start)?;
            view.show(*index, word, time, details);
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.saturating_sub(start);
        view.draw(&reports, now, &semaphore);
        if let Err(RecvTimeoutError::Disconnected) = event {
            break; // all workers have closed their output
        }
    }
    let mut succeeded = true;
    for worker in &mut workers {
        succeeded &= worker.wait()?.success();
    }
    view.end(&reports);

    drop(semaphore); // Windows does not remove open files
    directory.close()?;
    Ok(check(&reports) && succeeded)
}

fn start_worker(number: usize, path: &Path) -> Result<(Child, ChildStdout), Box<dyn Error>> {
    let mut worker = Command::new(std::env::current_exe()?)
        .args(["worker", &number.to_string()])
        .arg(path)
        .stdout(Stdio::piped())
        .spawn()?;
    let output = worker.stdout.take().ok_or("no pipe")?;
    Ok((worker, output))
}

impl Reports {
    fn add<'a>(
        &mut self,
        line: &'a str,
        start: Duration,
    ) -> Result<(&'a str, Duration, &'a str), Box<dyn Error>> {
        let mut words = line.splitn(3, ' ');
        let word = words.next().ok_or("no word")?;
        let time = Duration::from_nanos(words.next().ok_or("no time")?.parse()?);
        let time = time.saturating_sub(start);
        let details = words.next().unwrap_or_default();
        match word {
            "waits" => self.waits = Some(time),
            "begins" => (self.begins, self.slot) = (Some(time), Some(details.parse()?)),
            "ends" => self.ends = Some(time),
            _ => self.holders = details.to_string(),
        }
        Ok((word, time, details))
    }

    /// One character for each step until `end`: the slot while the worker holds one, and a dot
    /// while it waits.
    fn timeline(&self, end: Duration) -> String {
        let step = STEP.max(end / MAX_STEPS);
        let steps = end.as_millis().div_ceil(step.as_millis());
        let steps = u32::try_from(steps).unwrap_or(MAX_STEPS);
        let is_past = |event: Option<Duration>, time| event.is_some_and(|at| at <= time);
        let character = |number: u32| {
            let time = (step * number + step / 2).min(end);
            if is_past(self.ends, time) || !is_past(self.waits, time) {
                return ' ';
            }
            let slot = self.slot.filter(|_| is_past(self.begins, time));
            slot.map_or('.', |slot| char::from_digit(slot, 36).unwrap_or('#'))
        };
        (0..steps).map(character).collect()
    }
}

/// Checks that the workers never held more permits than there are, and that no two shared a slot. A
/// worker that ends at the moment at which another one begins has ended before it.
fn check(reports: &[Reports]) -> bool {
    let works = |report: &Reports, time| {
        report.begins.is_some_and(|begins| begins <= time)
            && report.ends.is_none_or(|ends| ends > time)
    };
    let most_at_once = |reports: &[&Reports]| {
        // The number reaches its maximum when a worker begins.
        let begins = reports.iter().filter_map(|report| report.begins);
        begins.map(|time| reports.iter().filter(|r| works(r, time)).count()).max().unwrap_or(0)
    };

    let all: Vec<&Reports> = reports.iter().collect();
    let most = most_at_once(&all);
    let mut is_right = most <= PERMITS as usize && all.iter().all(|report| report.ends.is_some());
    println!();
    for slot in 0..PERMITS {
        let (numbers, users): (Vec<_>, Vec<&Reports>) = (1..)
            .zip(reports)
            .filter(|(_, report)| report.slot == Some(slot))
            .map(|(number, report): (u32, _)| (number.to_string(), report))
            .unzip();
        println!("slot {slot} was held by workers {}", numbers.join(", "));
        is_right &= most_at_once(&users) <= 1;
    }
    if is_right {
        println!(
            "\nAll {WORKERS} workers finished, and at most {PERMITS} worked at once ({most} by their reports)."
        );
    } else {
        println!(
            "\nFAILED: {most} worked at once where {PERMITS} may, or a worker did not finish, or two \
             shared a slot."
        );
    }
    is_right
}

// ---------------------------------------------------------------------------------------- the view

enum View {
    /// One line for the result of `holders`, and one for each worker.
    Live {
        holders: ProgressBar,
        workers: Vec<ProgressBar>,
    },
    Plain,
}

impl View {
    fn live() -> Result<Self, Box<dyn Error>> {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
        let style = ProgressStyle::with_template("{prefix:>9} {wide_msg}")?;
        let new = |prefix: String| {
            let bar = ProgressBar::no_length().with_style(style.clone()).with_prefix(prefix);
            bars.add(bar)
        };
        let holders = new("holders".into());
        let workers = (1..=WORKERS).map(|number| new(format!("worker {number}"))).collect();
        Ok(Self::Live { holders, workers })
    }

    fn show(&self, index: usize, word: &str, time: Duration, details: &str) {
        if !matches!(self, Self::Plain) {
            return;
        }
        let text = match word {
            "begins" => format!("begins on slot {details}"),
            "still-waits" => format!("still waits ({details})"),
            word => word.to_string(),
        };
        println!("{:5.2} s  worker {} {text}", time.as_secs_f64(), index + 1);
    }

    fn draw(&mut self, reports: &[Reports], now: Duration, semaphore: &Semaphore) {
        let Self::Live { holders, workers } = self else { return };
        let text = semaphore.holders().map_or_else(|e| e.to_string(), |found| describe(&found));
        holders.set_message(text);
        for (bar, report) in workers.iter().zip(reports) {
            let is_waiting = report.waits.is_some() && report.begins.is_none();
            let holders = if is_waiting { &*report.holders } else { "" };
            bar.set_message(format!("{} {holders}", report.timeline(now)));
        }
    }

    /// Shows the complete timeline.
    fn end(&mut self, reports: &[Reports]) {
        let end = reports.iter().filter_map(|report| report.ends).max().unwrap_or_default();
        match self {
            Self::Live { holders, workers } => {
                holders.finish_with_message("none");
                for (bar, report) in workers.iter().zip(reports) {
                    bar.finish_with_message(report.timeline(end));
                }
            }
            Self::Plain => {
                println!("\nThe slot of each worker, from 0 to {:.2} s:", end.as_secs_f64());
                for (number, report) in (1..).zip(reports) {
                    let number: u32 = number;
                    println!("worker {number} |{}", report.timeline(end).trim_end());
                }
            }
        }
    }
}
