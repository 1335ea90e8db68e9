//! Who holds what lies at a path, for those who only look: nothing is opened as a primitive, made or locked. Names `error`,
//! `holder` and `slot` (absolute paths).

use std::path::Path;

use crate::error::{Error, Result};
use crate::holder::{self, Holder};
use crate::slot::absolute;

/// Who holds what lies at `path`, as far as that is known: of a [`Lock`](crate::Lock) or [`RwLock`](crate::RwLock) the one
/// who holds it, or all who share it; of a [`Semaphore`](crate::Semaphore) one entry for each slot that is held, in the order
/// of their [numbers](Holder::slot). Takes nothing, makes nothing and delays nobody.
///
/// Empty where nothing is there, where nobody holds it, and where somebody holds it of whom nothing is known: see
/// [`Lock::holder`](crate::Lock::holder) for what is known of whom. (A [`Once`](crate::Once) and a
/// [`SharedFile`](crate::SharedFile) at `P` are locked at `P.lock`.)
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// let path = dir.path().join("a.lock");
/// assert!(flockwork::holders(&path)?.is_empty());
/// assert!(!path.exists());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`Error::Io`] if there is a record that cannot be read, or the path cannot be made absolute.
pub fn holders(path: impl AsRef<Path>) -> Result<Vec<Holder>> {
    let path = absolute(path.as_ref())?;
    holder::find(&path, true).map_err(|source| Error::io("find the holders of", &path, source))
}
