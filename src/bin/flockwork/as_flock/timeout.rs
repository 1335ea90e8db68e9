//! Waits for a blocking call until a deadline, without polling. The call runs in a thread, which
//! may stay blocked after the deadline until the process ends.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Instant;

use super::Attempt;
use crate::exit::{Exit, Failure};

/// The result of `blocking`, or `None` at the deadline.
pub(super) fn run_until<T: Send + 'static>(
    deadline: Instant,
    blocking: impl FnOnce() -> T + Send + 'static,
) -> Result<Option<T>, Failure> {
    let (at_work, receiver) = channel::<()>();
    let thread = std::thread::Builder::new()
        .name("flock-wait".into())
        .spawn(move || {
            let answer = blocking();
            drop(at_work);
            answer
        })
        .map_err(|error| {
            Failure::new(Exit::System, format!("cannot set up timer: {}", reason(&error)))
        })?;
    match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Err(RecvTimeoutError::Timeout) => Ok(None),
        _ => Ok(Some(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))),
    }
}

/// Locks in a thread of this process. The end of the process releases a lock that is granted after
/// the deadline.
pub(super) fn lock(
    deadline: Option<Instant>,
    blocking: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> Result<io::Result<Attempt>, Failure> {
    let result = match deadline {
        None => Some(blocking()),
        Some(deadline) => run_until(deadline, blocking)?,
    };
    Ok(result.map_or(Ok(Attempt::WouldBlock), |locked| locked.map(|()| Attempt::Acquired)))
}

/// The message of strerror(3).
pub(super) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_string()
}
