//! Waiting for a limited time, in one blocking call and without a poll: it is made in a thread, and whoever started that
//! waits for its answer. Past the deadline the thread stays where it is.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Instant;

use super::Taken;
use crate::exit::{Exit, Failure};

/// What `blocking` comes to by then. If it goes on, it goes on until this process ends.
pub(super) fn by<T: Send + 'static>(
    deadline: Instant,
    blocking: impl FnOnce() -> T + Send + 'static,
) -> Result<Option<T>, Failure> {
    let (done, answer) = channel();
    std::thread::Builder::new()
        .name("flock-wait".into())
        .spawn(move || {
            let _ = done.send(blocking());
        })
        .map_err(|error| {
            Failure::new(Exit::System, format!("cannot set up timer: {}", reason(&error)))
        })?;
    match answer.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Ok(answer) => Ok(Some(answer)),
        Err(RecvTimeoutError::Timeout) => Ok(None),
        Err(RecvTimeoutError::Disconnected) => unreachable!("it answers, or the process has ended"),
    }
}

/// A lock for which a thread of ours may block: its late grant ends with the process.
pub(super) fn lock(
    deadline: Option<Instant>,
    blocking: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> Result<io::Result<Taken>, Failure> {
    let answer = match deadline {
        None => Some(blocking()),
        Some(deadline) => by(deadline, blocking)?,
    };
    Ok(answer.map_or(Ok(Taken::Busy), |had| had.map(|()| Taken::Had)))
}

/// As strerror(3) has it.
pub(super) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_string()
}
