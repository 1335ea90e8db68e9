//! Why a call that runs a closure failed: the closure's error, or flockwork's.

use std::io;

use crate::error::Error;

/// Why a call that runs a closure failed: the closure failed, or flockwork did.
///
/// Known as [`OnceError`] and [`UpdateError`]. With [`flatten`](Self::flatten) it becomes the closure's own error type, for
/// `?` in functions that return `Box<dyn Error>`, `anyhow::Error`, `std::io::Error` or an enum of one's own.
///
/// The text is that of the error within; what a closure returned has no path in it unless the closure puts it there.
#[derive(Debug, thiserror::Error)]
pub enum CallError<E> {
    /// What the closure returned. Of a [`SharedFile`](crate::SharedFile) nothing was changed; a [`Once`](crate::Once) is
    /// not done, and what its closure did is left as it is.
    #[error(transparent)]
    Closure(E),
    /// Flockwork's own: the closure did not run, or what it did could not be kept.
    #[error(transparent)]
    Flockwork(Error),
}

/// Why [`Once::call_once`](crate::Once::call_once) failed.
pub type OnceError<E> = CallError<E>;

/// Why [`SharedFile::update`](crate::SharedFile::update) failed.
pub type UpdateError<E> = CallError<E>;

impl<E> CallError<E> {
    /// One error type for both: the closure's, into which flockwork's converts.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// use std::error::Error;
    /// use flockwork::{CallError, Once};
    ///
    /// fn unpack() -> Result<(), Box<dyn Error>> {
    ///     Ok(())
    /// }
    ///
    /// fn prepare(unpacked: &Once) -> Result<bool, Box<dyn Error>> {
    ///     Ok(unpacked.call_once(unpack).map_err(CallError::flatten)?)
    /// }
    /// # assert!(prepare(&Once::open(dir.path().join("unpacked"))?)?);
    /// # Ok::<(), Box<dyn Error>>(())
    /// ```
    #[must_use]
    pub fn flatten(self) -> E
    where
        E: From<Error>,
    {
        match self {
            Self::Closure(error) => error,
            Self::Flockwork(error) => error.into(),
        }
    }

    /// Flockwork's own error, if it is one.
    #[must_use]
    pub fn flockwork(&self) -> Option<&Error> {
        match self {
            Self::Closure(_) => None,
            Self::Flockwork(error) => Some(error),
        }
    }

    /// What the closure returned, if that is why it failed.
    #[must_use]
    pub fn into_closure(self) -> Option<E> {
        match self {
            Self::Closure(error) => Some(error),
            Self::Flockwork(_) => None,
        }
    }

    /// Whether another process or thread held it at that moment ([`Error::WouldBlock`]).
    #[must_use]
    pub fn is_would_block(&self) -> bool {
        self.flockwork().is_some_and(Error::is_would_block)
    }

    /// Whether the time ran out ([`Error::TimedOut`]).
    #[must_use]
    pub fn is_timed_out(&self) -> bool {
        self.flockwork().is_some_and(Error::is_timed_out)
    }
}

impl From<CallError<io::Error>> for io::Error {
    fn from(error: CallError<io::Error>) -> Self {
        error.flatten()
    }
}
