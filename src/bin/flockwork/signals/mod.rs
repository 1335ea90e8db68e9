//! Forwards signals to the command.
//!
//! The signals are blocked in all threads, and one thread receives them: before the command runs
//! they have their default action, and afterwards they are forwarded. Ignored signals stay ignored,
//! also in the command, which may run under nohup(1) or in the background of a script.
//!
//! A child inherits the blocked signals. The thread that starts the command therefore unblocks them
//! meanwhile; handlers record what arrives at that moment, and it is forwarded afterwards.

#[cfg(unix)]
mod source;
#[cfg(unix)]
mod unix;

#[cfg(not(unix))]
mod non_unix;

#[cfg(unix)]
pub(crate) use self::unix::{Signals, die_by_sigint, end_on_signals};

#[cfg(not(unix))]
pub(crate) use self::non_unix::{Signals, die_by_sigint, end_on_signals};
