//! What a person sees of a wait: after a second one line on the standard error, on a terminal a live one.

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use flockwork::{Options, Waiting};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::exit::{printable, say, without_advice};

/// So long a wait is nobody's business.
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
        options.on_wait(AFTER, move |waiting| this.show(waiting))
    }

    /// What `-v` says at once of something that somebody has.
    pub(crate) fn refused(&self, why: &flockwork::Error) {
        if self.verbose && !self.shown.said.swap(true, Ordering::Relaxed) {
            say(&format!("{}; waiting", without_advice(why)));
        }
    }

    fn show(&self, waiting: &Waiting) {
        if !std::io::stderr().is_terminal() {
            if !self.shown.said.swap(true, Ordering::Relaxed) {
                say(&waiting.to_string());
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
        bar.set_message(printable(&waiting.to_string()));
        bar.tick();
    }

    /// The wait is over, in whatever way: takes the live line away.
    pub(crate) fn clear(&self) {
        let live = self.shown.live.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(bar) = live {
            bar.finish_and_clear();
        }
    }

    /// It was had.
    pub(crate) fn had(&self, what: &str) {
        self.clear();
        if self.verbose {
            say(&format!("has {what} after {:.6} s", self.begun.elapsed().as_secs_f64()));
        }
    }

    /// Rule 12 of the protocol: what the lock guards may be half-done.
    pub(crate) fn died(&self, died: bool, path: &std::path::Path) {
        if died && self.verbose {
            say(&format!("who held `{}` before died without letting go", path.display()));
        }
    }
}
