//! [`Access`]: the permissions of files and directories that are created.

use crate::sys::Bits;

/// Whether missing files and directories are created, and with which permissions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Creation {
    pub(crate) access: Access,
    pub(crate) files: bool,
    pub(crate) directories: bool,
}

impl Creation {
    pub(crate) fn bits(self) -> Option<Bits> {
        self.access.bits()
    }
}

impl From<Access> for Creation {
    fn from(access: Access) -> Self {
        Self { access, files: true, directories: true }
    }
}

/// The permissions of the files and directories that flockwork creates.
///
/// A user who may *read* a lock file can hold the lock, shared or exclusively, for any length of
/// time and so block all other users. [`Private`](Self::Private) and [`Group`](Self::Group) keep
/// other users of the machine out.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("build.lock");
/// use flockwork::{Access, Options};
///
/// let lock = Options::new().access(Access::Private).open_lock(&path)?;
/// # #[cfg(unix)] {
/// # use std::os::unix::fs::PermissionsExt;
/// assert_eq!(path.metadata()?.permissions().mode() & 0o777, 0o600);
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// With the feature `serde`, a variant is serialized as its name in lower case, such as `"group"`.
///
/// # Platform-specific behavior
///
/// The setting selects Unix mode bits. On Windows it has no effect: files and directories inherit
/// the access list of the directory in which they are created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum Access {
    /// The usual permissions of a new file, limited by the umask of the process.
    #[default]
    Umask,
    /// Only the owner: files 0600, directories 0700.
    Private,
    /// The owner and the group: files 0660, directories 0770.
    ///
    /// The group is that of the creator, or that of the directory if its set-group-ID bit is set.
    Group,
    /// All users: files 0666, directories 0777.
    ///
    /// A user who may write to the directory can remove the lock file.
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
