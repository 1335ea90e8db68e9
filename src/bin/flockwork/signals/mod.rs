//! Forwards signals to the command.
//!
//! The signals are blocked in all threads, and one thread receives them. Before the command runs
//! they end the wait, and this process releases what it holds before it dies by the signal; from
//! then on they are forwarded. Ignored signals stay ignored,
//! even in the command, which may run under nohup(1) or in the background of a script.
//!
//! A child inherits the blocked signals, so the thread that starts the command unblocks them at
//! that moment. Handlers record the signals that arrive while they are unblocked, and these are
//! forwarded afterwards.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use flockwork::Cancel;

#[cfg(unix)]
mod source;
#[cfg(unix)]
mod unix;

#[cfg(not(unix))]
mod non_unix;

#[cfg(unix)]
pub(crate) use self::unix::{Signals, die_by_signal, end_on_signals, end_wait_on_signals};

#[cfg(not(unix))]
pub(crate) use self::non_unix::{Signals, die_by_signal, end_on_signals, end_wait_on_signals};

/// Whether a lock that is held for the running command was lost.
pub(crate) type LossCheck = Arc<dyn Fn() -> bool + Send + Sync>;

/// How often a running command's lock is checked.
const LOSS_CHECKS: Duration = Duration::from_secs(1);

/// Set if a wait of this process can be cancelled.
static CANCEL: OnceLock<Cancel> = OnceLock::new();

/// The token of all waits, which a signal cancels after [`Signals::install`].
pub(crate) fn cancel() -> &'static Cancel {
    CANCEL.get_or_init(Cancel::new)
}
