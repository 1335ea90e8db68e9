//! Errors in the form that tests use: an error that distinguishes a closure's from flockwork's, and
//! the full text of an error.

use flockwork::Error;

/// The reason why a call that runs a closure failed.
#[derive(Debug)]
pub(crate) enum Failure<E> {
    /// The closure returned this error.
    Closure(E),
    /// The closure did not run, or its changes could not be stored.
    Flockwork(Error),
}

impl<E> From<Error> for Failure<E> {
    fn from(error: Error) -> Self {
        Self::Flockwork(error)
    }
}

/// Formats an error with the holders that a failed try found, and with its hint.
pub(crate) fn in_full(error: &Error) -> String {
    let mut text = error.to_string();
    if error.is_would_block() && !error.holders().is_empty() {
        let holders: Vec<_> = error.holders().iter().map(ToString::to_string).collect();
        text = format!("{text}: held by {}", holders.join("; "));
    }
    match error.hint() {
        Some(hint) => format!("{text}; {hint}"),
        None => text,
    }
}
