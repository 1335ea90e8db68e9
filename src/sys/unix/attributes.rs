//! Unix: the attributes that a new file takes over from the one it replaces: owner, group and mode,
//! and on Linux access lists and extended attributes.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{Gid, Uid, fchown};
use rustix::io::Errno;

use self::extended::Extended;
use super::{is_unavailable, options, set_mode};

/// Whether the effective user and group may write to the file: faccessat2(2), if that is available
/// (rule 13).
fn may_write(path: &Path) -> io::Result<()> {
    use rustix::fs::{Access, AtFlags, CWD, accessat};
    let ask = |flags| match accessat(CWD, path, Access::WRITE_OK, flags) {
        // The file is a running program, which does not prevent its replacement.
        Err(Errno::TXTBSY) => Ok(()),
        answer => answer.map_err(io::Error::from),
    };
    // access(2) checks the real user and group.
    let is_other = {
        use rustix::process::{getegid, geteuid, getgid, getuid};
        getuid() != geteuid() || getgid() != getegid()
    };
    match ask(AS_WHO_WRITES) {
        Err(error) if is_unavailable(&error) && !is_other => ask(AtFlags::empty()),
        Err(error) if is_unavailable(&error) => match options().write(true).open(path) {
            Err(error) if Errno::from_io_error(&error) != Some(Errno::TXTBSY) => Err(error),
            _ => Ok(()),
        },
        answer => answer,
    }
}

/// Android has no such flag, and no programs whose effective user differs from the real one.
#[cfg(not(target_os = "android"))]
const AS_WHO_WRITES: rustix::fs::AtFlags = rustix::fs::AtFlags::EACCESS;
#[cfg(target_os = "android")]
const AS_WHO_WRITES: rustix::fs::AtFlags = rustix::fs::AtFlags::empty();

/// The attributes that a new file takes over from the one it replaces.
pub(crate) struct KeptAttributes {
    owner: (u32, u32),
    mode: u32,
    extended: Extended,
}

impl KeptAttributes {
    /// Reads the attributes; `None` if there is no file yet. A user who may not write to the file
    /// may not replace it either, even if the directory would permit it. The rights are queried
    /// rather than tried, since opening a file for writing and closing it is an event for watchers.
    pub(crate) fn of(path: &Path) -> io::Result<Option<Self>> {
        match may_write(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            answer => answer?,
        }
        let found = fs::symlink_metadata(path)?;
        if !found.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        let (owner, mode) = ((found.uid(), found.gid()), found.mode() & 0o7777);
        Ok(Some(Self { owner, mode, extended: Extended::of(path)? }))
    }

    /// Sets the attributes of a file that no other user may open yet. A user who is not permitted
    /// to give the file away owns it from then on. No user gets new rights: if the group cannot be
    /// kept, the members of the new one get no more than other users had, and set-ID bits are
    /// dropped, as chown(2) does anyway (rule F5).
    pub(crate) fn restore(&self, file: &File) -> io::Result<()> {
        let found = file.metadata()?;
        let (uid, gid) = self.owner;
        // The group is set before the mode, which applies to its members, and the owner last, since
        // only the owner may change the mode.
        let has_group = found.gid() == gid || fchown(file, None, Some(Gid::from_raw(gid))).is_ok();
        self.extended.copy_attributes(file);
        let of_others = self.mode & 0o007;
        let for_group = self.extended.group_bits(self.mode >> 3 & 0o007, file)
            & if has_group { 0o007 } else { of_others };
        let mode = self.mode & 0o707 | for_group << 3;
        match set_mode(file, mode) {
            // Other users get fewer rights than before, and never more (rule 13).
            Err(error) if is_unavailable(&error) && found.mode() & 0o777 & !mode == 0 => {}
            set => set?,
        }
        let has_list = self.extended.restore_list(file, has_group);
        let has_owner = found.uid() == uid || fchown(file, Some(Uid::from_raw(uid)), None).is_ok();
        if has_group && has_owner && self.mode > 0o777 {
            // With an access list the group's bits of the mode are its mask.
            let mode = if has_list { self.mode } else { self.mode & 0o7000 | mode };
            let _ = file.set_permissions(Permissions::from_mode(mode));
        }
        Ok(())
    }
}

/// The access list and the extended attributes of a file on Linux (rule F5).
#[cfg(any(target_os = "linux", target_os = "android"))]
mod extended {
    use std::ffi::{CStr, CString};
    use std::fs::File;
    use std::io;
    use std::path::Path;

    use rustix::fs::{XattrFlags, fremovexattr, fsetxattr, lgetxattr, llistxattr};
    use rustix::io::Errno;

    use super::is_unavailable;

    /// The kernel's limit for the names and for a value (xattr(7), "limits.h": `XATTR_LIST_MAX`,
    /// `XATTR_SIZE_MAX`).
    const MAX_BYTES: usize = 65536;
    const ACCESS_LIST: &str = "system.posix_acl_access";
    /// The attributes that the kernel derives from the contents, or removes when they change.
    const OF_CONTENTS: [&str; 3] = ["security.capability", "security.evm", "security.ima"];

    /// The access list and the extended attributes of a file.
    pub(super) struct Extended {
        list: List,
        attributes: Vec<(CString, Vec<u8>)>,
    }

    enum List {
        /// There is no list: the mode has all rights.
        None,
        Known(AccessList),
        /// There may be a list, and it cannot be read.
        Unknown,
    }

    /// Returns the bytes that `call` writes into its buffer: first a small one, and if that is too
    /// small, the largest.
    fn fetched(call: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
        let mut small = [0; 256];
        match call(&mut small) {
            Ok(length) => Ok(small[..length].to_vec()),
            Err(Errno::RANGE) => {
                let mut large = vec![0; MAX_BYTES];
                let length = call(&mut large)?;
                large.truncate(length);
                Ok(large)
            }
            Err(error) => Err(error),
        }
    }

    impl Extended {
        pub(super) fn of(path: &Path) -> io::Result<Self> {
            let list = match fetched(|buffer| lgetxattr(path, ACCESS_LIST, buffer)) {
                Ok(bytes) => AccessList::parse(bytes).map_or(List::Unknown, List::Known),
                Err(error) if is_absent(error) => List::None,
                Err(error) if is_unavailable(&error.into()) => List::Unknown,
                Err(error) => return Err(error.into()),
            };
            let names = fetched(|buffer| llistxattr(path, buffer)).unwrap_or_default();
            let names = names.split_inclusive(|byte| *byte == 0);
            let names = names.filter_map(|name| CStr::from_bytes_with_nul(name).ok());
            let value = |name: &CStr| fetched(|buffer| lgetxattr(path, name, buffer)).ok();
            let copied = names.filter(|name| is_copied(name));
            let attributes =
                copied.filter_map(|name| Some((name.to_owned(), value(name)?))).collect();
            Ok(Self { list, attributes })
        }

        /// Copies the attributes that this user may set. `file` belongs to this user, and no other
        /// user may open it.
        pub(super) fn copy_attributes(&self, file: &File) {
            for (name, value) in &self.attributes {
                let _ = fsetxattr(file, name.as_c_str(), value, XattrFlags::empty());
            }
        }

        /// The rights of the group for `file`, which does not have its list yet. `bits` are the
        /// group's bits of the old file's mode; if that file has a list, they are its mask and not
        /// the group's rights. A list that `file` has inherited from its directory is removed.
        pub(super) fn group_bits(&self, bits: u32, file: &File) -> u32 {
            let inherits = match fremovexattr(file, ACCESS_LIST) {
                Ok(()) => false,
                Err(error) => !is_absent(error),
            };
            match &self.list {
                // The bits would be the mask of the inherited list.
                _ if inherits => 0,
                List::None => bits,
                List::Known(list) => bits & list.group_bits(),
                List::Unknown => 0,
            }
        }

        /// Copies the list to `file`, and returns whether that has it now. Without the group of the
        /// old file, the list gives the new file's group no more rights than other users.
        pub(super) fn restore_list(&self, file: &File, has_group: bool) -> bool {
            let List::Known(list) = &self.list else { return false };
            let bytes = if has_group { list.bytes.clone() } else { list.for_another_group() };
            fsetxattr(file, ACCESS_LIST, &bytes, XattrFlags::empty()).is_ok()
        }
    }

    /// Whether the error means that the file system has no such attributes, or the file has none.
    fn is_absent(error: Errno) -> bool {
        [Errno::NODATA, Errno::OPNOTSUPP, Errno::NOTSUP, Errno::NOSYS].contains(&error)
    }

    fn is_copied(name: &CStr) -> bool {
        let name = name.to_bytes();
        (name.starts_with(b"user.") || name.starts_with(b"security."))
            && OF_CONTENTS.iter().all(|other| name != other.as_bytes())
    }

    /// An access list in the kernel's format (`linux/posix_acl_xattr.h`): the version in four
    /// bytes, then entries of eight, all little-endian.
    struct AccessList {
        bytes: Vec<u8>,
    }

    impl AccessList {
        const VERSION: [u8; 4] = [2, 0, 0, 0];
        const GROUP_OBJ: u8 = 0x04;
        const MASK: u8 = 0x10;
        const OTHER: u8 = 0x20;

        fn parse(bytes: Vec<u8>) -> Option<Self> {
            let is_whole = bytes.strip_prefix(&Self::VERSION)?.len() % 8 == 0;
            let list = Self { bytes };
            let has_all =
                [Self::GROUP_OBJ, Self::OTHER].iter().all(|tag| list.bits(*tag).is_some());
            (is_whole && has_all).then_some(list)
        }

        fn bits(&self, tag: u8) -> Option<u8> {
            let mut entries = self.bytes[Self::VERSION.len()..].chunks_exact(8);
            entries.find(|entry| entry[..2] == [tag, 0]).map(|entry| entry[2] & 0o007)
        }

        fn group_bits(&self) -> u32 {
            let all = 0o007;
            let group =
                self.bits(Self::GROUP_OBJ).unwrap_or(0) & self.bits(Self::MASK).unwrap_or(all);
            group.into()
        }

        fn for_another_group(&self) -> Vec<u8> {
            let others = self.bits(Self::OTHER).unwrap_or(0);
            let mut bytes = self.bytes.clone();
            for entry in bytes[Self::VERSION.len()..].chunks_exact_mut(8) {
                if entry[..2] == [Self::GROUP_OBJ, 0] {
                    entry[2] &= others;
                }
            }
            bytes
        }
    }
}

/// On other systems access lists and attributes are not taken over.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod extended {
    use std::fs::File;
    use std::io;
    use std::path::Path;

    pub(super) struct Extended;

    impl Extended {
        #[allow(clippy::unnecessary_wraps, reason = "Linux asks, which can fail")]
        pub(super) fn of(_path: &Path) -> io::Result<Self> {
            Ok(Self)
        }

        #[allow(clippy::unused_self, reason = "as on Linux")]
        pub(super) fn copy_attributes(&self, _file: &File) {}

        #[allow(clippy::unused_self, reason = "as on Linux")]
        pub(super) fn group_bits(&self, bits: u32, _file: &File) -> u32 {
            bits
        }

        #[allow(clippy::unused_self, reason = "as on Linux")]
        pub(super) fn restore_list(&self, _file: &File, _has_group: bool) -> bool {
            false
        }
    }
}
