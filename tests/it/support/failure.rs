//! Errors as tests look at them: that of a closure apart from flockwork's, and all that one says.

use flockwork::Error;

/// Why a call that runs a closure failed.
#[derive(Debug)]
pub(crate) enum Failure<E> {
    /// The closure returned this.
    Closure(E),
    /// The closure did not run, or what it did could not be kept.
    Flockwork(Error),
}

impl<E> From<Error> for Failure<E> {
    fn from(error: Error) -> Self {
        Self::Flockwork(error)
    }
}

/// The text of an error, with the holders that a refused attempt met and with the hint.
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
