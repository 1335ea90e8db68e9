//! System errors with a text and a hint of flockwork's own. The hint is kept apart, so that the
//! text stays one clause.

use std::borrow::Cow;
use std::io;

/// Why a call failed, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct Explained {
    text: Cow<'static, str>,
    hint: &'static str,
}

/// An error with this text, and a hint that [`hint_of`] finds again.
pub(crate) fn explained(
    kind: io::ErrorKind,
    text: impl Into<Cow<'static, str>>,
    hint: &'static str,
) -> io::Error {
    io::Error::new(kind, Explained { text: text.into(), hint })
}

/// The hint of an error that [`explained`] made.
pub(crate) fn hint_of(error: &io::Error) -> Option<&'static str> {
    error.get_ref()?.downcast_ref::<Explained>().map(|explained| explained.hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_is_apart_from_the_text() {
        limit!();
        let error = explained(io::ErrorKind::NotFound, "the file is gone", "create it");
        assert_eq!(
            (error.kind(), &*error.to_string()),
            (io::ErrorKind::NotFound, "the file is gone")
        );
        assert_eq!(hint_of(&error), Some("create it"));
        assert_eq!(hint_of(&io::Error::other("a plain error")), None);
    }
}
