//! What was tried when the system refused it.

use std::fmt;

/// What a call tried when it failed: see [`Error::operation`](crate::Error::operation).
///
/// The text completes the sentence "could not ... `path`".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Make the path absolute.
    Resolve,
    /// Look at a file's metadata.
    LookUp,
    /// List a directory.
    List,
    /// Open a file.
    Open,
    /// Create a file.
    Create,
    /// Create the directory that a file lies in.
    CreateParent,
    /// Give a file the name back that it has lost.
    Restore,
    /// Read a file.
    Read,
    /// Read a file as UTF-8.
    ReadText,
    /// Read what an event carries.
    ReadPayload,
    /// Write a file.
    Write,
    /// Write a directory's entries to the disk.
    Sync,
    /// Lock a file.
    Lock,
    /// Unlock a file.
    Unlock,
    /// Turn an exclusive lock into a shared one.
    Downgrade,
    /// Let child processes inherit a lock.
    Inherit,
    /// Acquire a permit of a semaphore.
    Acquire,
    /// Release a permit of a semaphore.
    Release,
    /// Change the capacity of a semaphore.
    SetCapacity,
    /// Set an event.
    Set,
    /// Clear an event.
    Clear,
    /// Consume the setting of an event.
    Consume,
    /// Wait for one of several events.
    WaitAny,
    /// Record that a task is done.
    MarkDone,
    /// Find out which processes hold something.
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
            Self::ReadText => "read as text",
            Self::ReadPayload => "read the payload of",
            Self::Write => "write",
            Self::Sync => "sync the directory of",
            Self::Lock => "lock",
            Self::Unlock => "unlock",
            Self::Downgrade => "downgrade",
            Self::Inherit => "let child processes inherit",
            Self::Acquire => "acquire a permit of",
            Self::Release => "release",
            Self::SetCapacity => "set the capacity of",
            Self::Set => "set",
            Self::Clear => "clear",
            Self::Consume => "consume",
            Self::WaitAny => "wait for any event",
            Self::MarkDone => "record as done",
            Self::FindHolders => "find the holders of",
        }
    }

    /// Whether it creates a file or a directory.
    pub(super) fn creates(self) -> bool {
        matches!(self, Self::Create | Self::CreateParent)
    }

    /// Whether it changes what lies in a directory that exists.
    pub(super) fn changes_directory(self) -> bool {
        matches!(self, Self::Set | Self::Clear | Self::Consume | Self::Write)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
