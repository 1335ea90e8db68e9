//! Waits for a blocking call until a deadline, without polling. The call runs in a thread, which
//! may stay blocked after the deadline until the process ends.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::Attempt;
use crate::exit::{Exit, Failure};
use crate::thread;

/// Whether `blocking` has returned before the deadline.
pub(super) fn run_until(
    deadline: Instant,
    blocking: impl FnOnce() + Send + 'static,
) -> Result<bool, Failure> {
    let (at_work, receiver) = channel::<()>();
    let run = move || {
        blocking();
        drop(at_work);
    };
    thread::start("flock-wait", run).map_err(|error| {
        Failure::new(Exit::System, format!("cannot set up timer: {}", reason(&error)))
    })?;
    let waited = receiver.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    Ok(waited != Err(RecvTimeoutError::Timeout))
}

/// Locks in a thread of this process. The end of the process releases a lock that is granted after
/// the deadline.
pub(super) fn lock(
    deadline: Option<Instant>,
    blocking: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> Result<io::Result<Attempt>, Failure> {
    let Some(deadline) = deadline else { return Ok(blocking().map(|()| Attempt::Acquired)) };
    let result = Arc::new(OnceLock::new());
    let locked = Arc::clone(&result);
    let has_ended = run_until(deadline, move || {
        let _ = locked.set(blocking());
    })?;
    Ok(match Arc::into_inner(result).and_then(OnceLock::into_inner) {
        Some(locked) if has_ended => locked.map(|()| Attempt::Acquired),
        _ => Ok(Attempt::WouldBlock),
    })
}

/// The message of strerror(3).
pub(super) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_string()
}
