//! The progress of a wait: a live line on a terminal, or else lines on the standard error at
//! growing intervals.

use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use flockwork::{Holder, Options};

use crate::exit::{Failure, print_error, printable};
use crate::holder_text::HolderText;
use crate::live_line::{self, Place};
use crate::thread;
use crate::wait_text::WaitText;

/// A shorter wait prints nothing. The live line is drawn at this interval.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);

/// The columns that stay free at the end of the live line: the terminal prints `^C` there, and must
/// not continue on the next line.
const ECHO: usize = 3;

/// The times at which a line is printed if there is no live line. After the last of them, a line is
/// printed every hour.
const LINES_AT: [Duration; 4] = [
    Duration::from_secs(60),
    Duration::from_secs(5 * 60),
    Duration::from_secs(15 * 60),
    Duration::from_secs(60 * 60),
];

/// Prints the progress of one wait. The callback that the library calls during the wait has a
/// clone.
#[derive(Clone)]
pub(crate) struct Progress {
    /// The path or name of the primitive, as the user typed it.
    subject: Arc<str>,
    timeout: Option<Duration>,
    quiet: bool,
    verbose: bool,
    start: Instant,
    /// How long the wait must have lasted for a live line.
    delay: Duration,
    /// How long the wait must have lasted for the next line.
    next_line: Arc<Mutex<Duration>>,
}

impl Progress {
    pub(crate) fn new(
        subject: &str,
        timeout: Option<Duration>,
        quiet: bool,
        verbose: bool,
    ) -> Self {
        Self {
            subject: subject.into(),
            timeout,
            quiet,
            verbose,
            start: Instant::now(),
            delay: INTERVAL,
            next_line: Arc::new(Mutex::new(INTERVAL)),
        }
    }

    /// The same wait with another subject.
    pub(crate) fn of(&self, subject: &str) -> Self {
        Self { subject: subject.into(), ..self.clone() }
    }

    /// The same, but unless `-v` is given, nothing is printed before this time.
    pub(crate) fn after(mut self, delay: Duration) -> Self {
        if !self.verbose {
            self.delay = delay;
            *self.next_line.lock().unwrap_or_else(PoisonError::into_inner) = delay;
        }
        self
    }

    pub(crate) fn attach(&self, options: Options) -> Options {
        let subject = self.subject.to_string();
        self.attach_subject(options, move || Some(subject.clone()))
    }

    /// The same with a subject that changes during the wait; `None` prints nothing.
    pub(crate) fn attach_subject(
        &self,
        options: Options,
        subject: impl Fn() -> Option<String> + Send + Sync + 'static,
    ) -> Options {
        if self.quiet {
            return options;
        }
        let this = self.clone();
        options.on_wait(INTERVAL, INTERVAL, move |waiting| {
            this.show(|| Some((subject()?, waiting.holders())));
        })
    }

    /// With `-v`, prints before the wait why the first attempt failed.
    pub(crate) fn would_block(&self, failure: &Failure) {
        if self.verbose {
            print_error(&format!("{}; waiting", failure.message()));
            *self.next_line.lock().unwrap_or_else(PoisonError::into_inner) = LINES_AT[0];
        }
    }

    /// Shows the progress of a wait that calls nothing back.
    pub(crate) fn show_while<T>(&self, wait: impl FnOnce() -> T) -> T {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let this = self.clone();
        let show = move || {
            // The sender is dropped at the end of the wait.
            while receiver.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                if !this.quiet {
                    this.show(|| Some((this.subject.to_string(), Vec::new())));
                }
            }
        };
        let thread = thread::start("flockwork-progress", show);
        let result = wait();
        drop(sender);
        if let Ok(thread) = thread {
            let _ = thread.join();
        }
        result
    }

    /// Shows the progress of a wait that looks up the holders itself.
    pub(crate) fn show_holders(&self, holders: &[Holder]) {
        if !self.quiet {
            self.show(|| Some((self.subject.to_string(), holders.to_vec())));
        }
    }

    /// Shows the subject and the holders, which are looked up only if they are shown.
    fn show(&self, look_up: impl FnOnce() -> Option<(String, Vec<Holder>)>) {
        let elapsed = self.start.elapsed();
        // After the timeout the wait ends at any moment, and says so.
        if elapsed < self.delay || self.timeout.is_some_and(|timeout| elapsed >= timeout) {
            return;
        }
        let place = live_line::place();
        if place == Place::Nowhere || place == Place::Lines && !self.is_line_due(elapsed) {
            return;
        }
        let Some((subject, holders)) = look_up() else { return };
        let holders = holders.iter().map(HolderText::of).collect();
        let text = WaitText { subject, elapsed, timeout: self.timeout, holders };
        match place {
            Place::Live(columns) => {
                live_line::draw(&printable(&text.fit(columns.saturating_sub(ECHO))));
            }
            _ => print_error(&text.full()),
        }
    }

    fn is_line_due(&self, elapsed: Duration) -> bool {
        let mut next = self.next_line.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = elapsed >= *next;
        if is_due {
            *next = line_after(elapsed);
        }
        is_due
    }

    /// With `-v`, prints the outcome of a wait and how long it took.
    pub(crate) fn ended(&self, outcome: &str) {
        drop(live_line::erase());
        if self.verbose {
            print_error(&format!("{outcome} after {} s", seconds(self.waited())));
        }
    }

    /// How long the verb has waited so far.
    pub(crate) fn waited(&self) -> Duration {
        self.start.elapsed()
    }

    /// With `-v`, prints that the last holder died, since it may have left a change unfinished
    /// (rule 12).
    pub(crate) fn previous_holder_died(&self, died: bool, path: &std::path::Path) {
        if died && self.verbose {
            print_error(&format!(
                "the last holder of `{}` died or was cut off before it released it",
                path.display()
            ));
        }
    }
}

/// The time of the line that follows one printed after `elapsed`.
fn line_after(elapsed: Duration) -> Duration {
    let listed = LINES_AT.into_iter().find(|at| *at > elapsed);
    listed.unwrap_or(elapsed + LINES_AT[LINES_AT.len() - 1])
}

/// Seconds with three decimals below one second, and one above.
pub(crate) fn seconds(duration: Duration) -> String {
    // Without floating-point numbers, whose formatting would make the program 13 kB larger.
    if duration < Duration::from_secs(1) {
        return format!("0.{:03}", duration.subsec_millis());
    }
    format!("{}.{}", duration.as_secs(), duration.subsec_millis() / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_printed_at_growing_intervals() {
        limit!();
        let mut minutes = Vec::new();
        let mut elapsed = INTERVAL;
        for _ in 0..6 {
            elapsed = line_after(elapsed);
            minutes.push(elapsed.as_secs() / 60);
        }
        assert_eq!(minutes, [1, 5, 15, 60, 120, 180]);
        let progress = Progress::new("f", None, false, false);
        assert!(!progress.is_line_due(Duration::from_millis(999)));
        assert!(progress.is_line_due(INTERVAL));
        assert!(!progress.is_line_due(Duration::from_secs(59)));
        assert!(progress.is_line_due(Duration::from_secs(61)));
        let late = progress.after(Duration::from_secs(10));
        assert!(!late.is_line_due(Duration::from_secs(9)) && late.is_line_due(LINES_AT[0]));
    }
}
