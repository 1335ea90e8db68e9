//! What a person sees of a wait: after a second one line on the standard error, on a terminal a live one.

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use flockwork::Options;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::exit::{Failure, printable, say};

/// A shorter wait shows nothing.
const AFTER: Duration = Duration::from_secs(1);

/// Shared with the callback of the library, which runs while it waits.
#[derive(Clone)]
pub(crate) struct Progress {
    shown: Arc<Shown>,
    quiet: bool,
    verbose: bool,
    begun: Instant,
}

#[derive(Default)]
struct Shown {
    said: AtomicBool,
    live: Mutex<Option<ProgressBar>>,
}

impl Progress {
    pub(crate) fn new(quiet: bool, verbose: bool) -> Self {
        Self { shown: Arc::default(), quiet, verbose, begun: Instant::now() }
    }

    pub(crate) fn attach(&self, options: Options) -> Options {
        if self.quiet {
            return options;
        }
        let this = self.clone();
        options.on_wait(AFTER, move |waiting| this.show(&waiting.to_string()))
    }

    /// The same, but each line is what `text` returns, if anything.
    pub(crate) fn attach_text(
        &self,
        options: Options,
        text: impl Fn() -> Option<String> + Send + Sync + 'static,
    ) -> Options {
        if self.quiet {
            return options;
        }
        let this = self.clone();
        options.on_wait(AFTER, move |_| {
            if let Some(text) = text() {
                this.show(&text);
            }
        })
    }

    /// What `-v` prints at once about a wait.
    pub(crate) fn refused(&self, why: &Failure) {
        if self.verbose && !self.shown.said.swap(true, Ordering::Relaxed) {
            say(&format!("{}; waiting", why.message()));
        }
    }

    fn show(&self, waiting: &str) {
        if !std::io::stderr().is_terminal() {
            if !self.shown.said.swap(true, Ordering::Relaxed) {
                say(waiting);
            }
            return;
        }
        let mut live = self.shown.live.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = live.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{spinner} flockwork: {wide_msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar
        });
        bar.set_message(printable(waiting));
        bar.tick();
    }

    /// The wait is over, in whatever way: takes the live line away.
    pub(crate) fn clear(&self) {
        let live = self.shown.live.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(bar) = live {
            bar.finish_and_clear();
        }
    }

    /// What `-v` prints at the end of a wait: its outcome, and how long it took.
    pub(crate) fn ended(&self, what: &str) {
        self.clear();
        if self.verbose {
            say(&format!("{what} after {} s", seconds(self.waited())));
        }
    }

    /// How long the verb has waited so far.
    pub(crate) fn waited(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Rule 12 of the protocol: what the lock guards may be half-done.
    pub(crate) fn died(&self, died: bool, path: &std::path::Path) {
        if died && self.verbose {
            say(&format!("the last holder of `{}` died without releasing it", path.display()));
        }
    }
}

/// No more digits than a reader wants.
pub(crate) fn seconds(span: Duration) -> String {
    let digits = if span < Duration::from_secs(1) { 3 } else { 1 };
    format!("{:.digits$}", span.as_secs_f64())
}
