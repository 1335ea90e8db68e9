//! Who may use the files and directories that are created.

use crate::sys::Bits;

/// Who may use the files and directories that flockwork creates.
///
/// Whoever may *read* a lock file can hold the lock, shared or exclusively, for as long as they like, and so stop the
/// others. Against other users of the machine there is `Private` or `Group`.
///
/// # Platform-specific behaviour
///
/// Mode bits, so Unix only. On Windows what is created inherits the access list of its directory,
/// whatever is said here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Access {
    /// As any new file: the process's umask decides.
    #[default]
    Umask,
    /// The owner alone: files 0600, directories 0700.
    Private,
    /// The owner and the group (the creator's, or the directory's if its set-group-ID bit says so): files
    /// 0660, directories 0770.
    Group,
    /// Everybody: files 0666, directories 0777. Whoever may write to the directory can remove the lock.
    Everyone,
}

impl Access {
    pub(crate) fn bits(self) -> Option<Bits> {
        match self {
            Self::Umask => None,
            Self::Private => Some(Bits { file: 0o600, directory: 0o700 }),
            Self::Group => Some(Bits { file: 0o660, directory: 0o770 }),
            Self::Everyone => Some(Bits { file: 0o666, directory: 0o777 }),
        }
    }
}
