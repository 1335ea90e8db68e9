//! The progress of a wait: a line on the standard error after a second, which a terminal shows
//! live.

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use flockwork::Options;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::exit::{Failure, print_error, printable};

/// A shorter wait prints nothing.
const DELAY: Duration = Duration::from_secs(1);

/// Prints the progress of one wait. The callback that the library calls during the wait has a
/// clone.
#[derive(Clone)]
pub(crate) struct Progress {
    output: Arc<Output>,
    quiet: bool,
    verbose: bool,
    start: Instant,
}

#[derive(Default)]
struct Output {
    has_printed: AtomicBool,
    live_line: Mutex<Option<ProgressBar>>,
}

impl Progress {
    pub(crate) fn new(quiet: bool, verbose: bool) -> Self {
        Self { output: Arc::default(), quiet, verbose, start: Instant::now() }
    }

    pub(crate) fn attach(&self, options: Options) -> Options {
        if self.quiet {
            return options;
        }
        let this = self.clone();
        options.on_wait(DELAY, DELAY, move |waiting| this.show(&waiting.to_string()))
    }

    /// The same with a line that `text` returns; `None` prints nothing.
    pub(crate) fn attach_text(
        &self,
        options: Options,
        text: impl Fn() -> Option<String> + Send + Sync + 'static,
    ) -> Options {
        if self.quiet {
            return options;
        }
        let this = self.clone();
        options.on_wait(DELAY, DELAY, move |_| {
            if let Some(text) = text() {
                this.show(&text);
            }
        })
    }

    /// With `-v`, prints before the wait why the first attempt failed.
    pub(crate) fn would_block(&self, failure: &Failure) {
        if self.verbose && !self.output.has_printed.swap(true, Ordering::Relaxed) {
            print_error(&format!("{}; waiting", failure.message()));
        }
    }

    fn show(&self, waiting: &str) {
        if !std::io::stderr().is_terminal() {
            if !self.output.has_printed.swap(true, Ordering::Relaxed) {
                print_error(waiting);
            }
            return;
        }
        let mut live = self.output.live_line.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = live.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{spinner} flockwork: {wide_msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar
        });
        bar.set_message(printable(waiting));
        bar.tick();
    }

    /// Removes the live line at the end of a wait.
    pub(crate) fn clear(&self) {
        let live = self.output.live_line.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(bar) = live {
            bar.finish_and_clear();
        }
    }

    /// With `-v`, prints the outcome of a wait and how long it took.
    pub(crate) fn ended(&self, outcome: &str) {
        self.clear();
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
                "the last holder of `{}` died without releasing it",
                path.display()
            ));
        }
    }
}

/// Seconds with three decimals below one second, and one above.
pub(crate) fn seconds(duration: Duration) -> String {
    let digits = if duration < Duration::from_secs(1) { 3 } else { 1 };
    format!("{:.digits$}", duration.as_secs_f64())
}
