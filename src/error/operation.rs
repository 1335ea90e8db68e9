//! The operations that an error names.

use std::fmt;

/// The operation that failed: see [`Error::operation`](crate::Error::operation).
///
/// Its `Display` text completes "could not ... `path`".
///
/// ```
/// use flockwork::{Lock, Operation};
///
/// let error = Lock::open("").unwrap_err();
/// assert_eq!(error.operation(), Some(Operation::Resolve));
/// assert_eq!(Operation::ReadPayload.to_string(), "read the payload of");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Making the path absolute.
    Resolve,
    /// Reading a file's metadata.
    LookUp,
    /// Listing a directory.
    List,
    /// Opening a file.
    Open,
    /// Creating a file.
    Create,
    /// Creating the parent directory of a file.
    CreateParent,
    /// Giving a removed file its name again.
    Restore,
    /// Reading a file.
    Read,
    /// Reading a file as UTF-8.
    ReadText,
    /// Reading the payload of an event.
    ReadPayload,
    /// Writing a file.
    Write,
    /// Syncing a directory.
    Sync,
    /// Locking a file.
    Lock,
    /// Checking whether the server of a network file system still grants a lock.
    CheckLock,
    /// Unlocking a file.
    Unlock,
    /// Turning an exclusive lock into a shared one.
    Downgrade,
    /// Making a lock inheritable by child processes.
    Inherit,
    /// Acquiring permits of a semaphore.
    Acquire,
    /// Releasing permits of a semaphore.
    Release,
    /// Splitting a permit of a semaphore.
    Split,
    /// Merging permits of a semaphore.
    Merge,
    /// Changing the capacity of a semaphore.
    SetCapacity,
    /// Setting an event.
    Set,
    /// Clearing an event.
    Clear,
    /// Consuming an event.
    Consume,
    /// Waiting for any of several events.
    WaitAny,
    /// Recording that the task of a `Once` is done.
    MarkDone,
    /// Changing the state of a barrier.
    ChangeState,
    /// Finding the holders of a lock or semaphore.
    FindHolders,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::LookUp => "look up",
            Self::List => "list",
            Self::Open => "open",
            Self::Create => "create",
            Self::CreateParent => "create the parent directory of",
            Self::Restore => "restore",
            Self::Read => "read",
            Self::ReadText => "read the text of",
            Self::ReadPayload => "read the payload of",
            Self::Write => "write",
            Self::Sync => "sync the directory of",
            Self::Lock => "lock",
            Self::CheckLock => "check the lock of",
            Self::Unlock => "unlock",
            Self::Downgrade => "downgrade",
            Self::Inherit => "let child processes inherit",
            Self::Acquire => "acquire a permit of",
            Self::Release => "release",
            Self::Split => "split a permit of",
            Self::Merge => "merge permits of",
            Self::SetCapacity => "set the capacity of",
            Self::Set => "set",
            Self::Clear => "clear",
            Self::Consume => "consume",
            Self::WaitAny => "wait for any of several events",
            Self::MarkDone => "record the completion of",
            Self::ChangeState => "change the state of",
            Self::FindHolders => "find the holders of",
        }
    }

    /// Whether it creates a file or a directory.
    pub(super) fn creates(self) -> bool {
        matches!(self, Self::Create | Self::CreateParent)
    }

    /// Whether it creates, replaces or removes an entry of an existing directory.
    pub(super) fn changes_directory(self) -> bool {
        matches!(self, Self::Set | Self::Clear | Self::Consume | Self::Write | Self::ChangeState)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
