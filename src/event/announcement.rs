//! [`Announcement`]: a setting of an event that ends with its process.

use std::fmt;
use std::path::Path;

use crate::error::Result;
use crate::file::marker::Announced;
use crate::wait::Kept;

/// A setting of an [`Event`](crate::Event) that ends with its process.
///
/// [`Event::set_while_alive`](crate::Event::set_while_alive) returns it. Dropping it clears the
/// event, unless another process has cleared, replaced or consumed this setting before: then it
/// changes nothing.
///
/// # Caveats
///
/// * A child that was created by `fork` without exec has a copy. Dropping the copy clears nothing,
///   and [`withdraw`](Self::withdraw) of the copy is an error. If the original process dies, the
///   event stays set until the copy is dropped, too, or the child calls exec or ends.
/// * [`std::process::exit`] and a `static` drop nothing. The event is cleared all the same, since
///   the process ends.
#[must_use = "if unused, the event is cleared immediately"]
#[clippy::has_significant_drop]
pub struct Announcement {
    pub(super) announced: Kept<Announced>,
}

impl Announcement {
    /// Clears the event like dropping the announcement does, and reports errors.
    ///
    /// If another process has cleared, replaced or consumed this setting before, nothing changes
    /// and the call succeeds.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let ready = flockwork::Event::open(dir.path().join("ready"))?;
    /// let announcement = ready.set_while_alive("40123")?;
    /// announcement.withdraw()?;
    /// assert!(!ready.is_set()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Io`](crate::ErrorKind::Io) if the file cannot be removed, or in a forked copy. Except in
    /// a forked copy, the event is clear nevertheless: its file no longer counts, and the next
    /// call that sets or clears the event removes it.
    pub fn withdraw(self) -> Result<()> {
        self.announced.finish(Announced::withdraw)
    }

    /// Returns `true` while the event still has this setting.
    ///
    /// Returns `false` if another process has cleared, replaced or consumed it, and in a forked
    /// copy.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let ready = flockwork::Event::open(dir.path().join("ready"))?;
    /// let announcement = ready.set_while_alive("40123")?;
    /// assert!(announcement.still_set()?);
    /// ready.set_with("40124")?; // the second server
    /// assert!(!announcement.still_set()?);
    /// drop(announcement);
    /// assert_eq!(ready.payload()?.as_deref(), Some(&b"40124"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Io`](crate::ErrorKind::Io) if the path cannot be looked up.
    pub fn still_set(&self) -> Result<bool> {
        self.announced.ask(Announced::is_current)
    }

    /// Returns the event's absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.announced.get().path()
    }
}

impl fmt::Debug for Announcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Announcement").field("path", &self.path()).finish_non_exhaustive()
    }
}
