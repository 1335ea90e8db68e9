//! Unix: creates, holds and syncs directories.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::super::retry_eintr;
use super::{Bits, FileId, is_unavailable, set_access};

/// Syncs the names in the directory. `false`: they cannot be synced here (rule 13).
pub(crate) fn sync_directory(directory: &Path) -> io::Result<bool> {
    match File::open(directory) {
        // This user may create a file in the directory but not list it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
        directory => sync_file(&directory?),
    }
}

/// Syncs the file. `false`: the file system or a sandbox does not support that (rule 13).
pub(crate) fn sync_file(file: &File) -> io::Result<bool> {
    let sync = |call: &dyn Fn() -> io::Result<()>| match retry_eintr(call) {
        Err(error) if is_unavailable(&error) => Ok(false),
        synced => synced.map(|()| true),
    };
    let is_synced = sync(&|| file.sync_all())?;
    if cfg!(target_vendor = "apple") && !is_synced {
        // std uses F_FULLFSYNC there, which some file systems do not support (fcntl(2)).
        return sync(&|| Ok(rustix::fs::fsync(file)?));
    }
    Ok(is_synced)
}

/// Syncs all that any process has written so far. Linux waits until that is done (sync(2),
/// "Notes"), and reports errors only of the file system that is passed to syncfs(2), which is that
/// of `directory`. `false` on other systems, where writing may continue after this call.
pub(crate) fn sync_everything(directory: &Path) -> io::Result<bool> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let synced = File::open(directory)
            .and_then(|directory| retry_eintr(|| Ok(rustix::fs::syncfs(&directory)?)));
        match synced {
            // sync(2) does the same, and reports no errors.
            Err(error)
                if is_unavailable(&error) || error.kind() == io::ErrorKind::PermissionDenied => {}
            synced => synced?,
        }
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = directory;
    rustix::fs::sync();
    Ok(cfg!(any(target_os = "linux", target_os = "android")))
}

/// Holds the directory open. `/proc/self/fd/N` leads to the open directory, even if it was moved
/// (proc(5), rule S10).
pub(crate) fn hold_directory(path: &Path) -> io::Result<Option<(File, PathBuf)>> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use std::os::fd::AsRawFd as _;
        // Opening with `O_PATH` needs no right to read the directory.
        let file = open_directory(path, OFlags::PATH)?;
        let within = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        Ok(within.is_dir().then_some((file, within)))
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = path;
        Ok(None)
    }
}

pub(crate) fn create_directories(path: &Path, bits: Option<Bits>) -> io::Result<()> {
    let Some(bits) = bits else { return fs::create_dir_all(path) };
    // The outermost is created first. Only directories that this call creates get the bits.
    let missing: Vec<&Path> =
        path.ancestors().take_while(|p| !p.as_os_str().is_empty() && !p.exists()).collect();
    for directory in missing.into_iter().rev() {
        match DirBuilder::new().mode(0o700).create(directory) {
            Ok(()) => {
                // A directory in one with the set-group-ID bit gets that bit too, and must keep it.
                let wanted =
                    |found: fs::Metadata| bits.directory | found.permissions().mode() & 0o2000;
                match open_directory(directory, OFlags::empty()) {
                    Ok(created) => set_access(&created, wanted(created.metadata()?))?,
                    // The umask does not give even the owner the right to read it.
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                        let wanted = wanted(fs::symlink_metadata(directory)?);
                        fs::set_permissions(directory, Permissions::from_mode(wanted))?;
                    }
                    Err(error) => return Err(error),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The number of the user whose rights this process has.
#[allow(clippy::unnecessary_wraps, reason = "other systems have none")]
pub(crate) fn user_number() -> Option<u32> {
    Some(rustix::process::geteuid().as_raw())
}

/// Creates a directory that only this user may use.
pub(crate) fn create_private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(PRIVATE_DIRECTORY).create(path)
}

/// Whether the path is a directory on a local file system, and not a symbolic link, that belongs to
/// this user and that no other user may use.
pub(crate) fn is_private_directory(path: &Path) -> bool {
    let is_private = || -> io::Result<bool> {
        let found = open_directory(path, OFlags::empty())?.metadata()?;
        Ok(found.uid() == rustix::process::geteuid().as_raw()
            && found.mode() & 0o777 == PRIVATE_DIRECTORY
            && !super::is_network_directory(path))
    };
    is_private().unwrap_or(false)
}

/// Whether no user but this one and the superuser can rename or remove an entry of this user in the
/// directory, as in one with the sticky bit.
pub(crate) fn protects_names(directory: &Path) -> bool {
    let user = rustix::process::geteuid().as_raw();
    fs::metadata(directory).is_ok_and(|found| {
        [0, user].contains(&found.uid())
            && (found.mode() & 0o022 == 0 || found.mode() & 0o1000 != 0)
    })
}

const PRIVATE_DIRECTORY: u32 = 0o700;

/// A directory of a network file system that is listed again and again, with as few requests to
/// the server as possible.
pub(crate) struct ListedDirectory {
    path: PathBuf,
    id: FileId,
    /// Holds the directory, so that its number is not reused.
    #[allow(dead_code, reason = "read on Linux only")]
    held: File,
    /// Whether the client answers from its cache unless it is made to ask the server.
    caches: bool,
}

impl ListedDirectory {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let held = open_to_list(path)?;
        let id = super::identity(&held)?;
        let caches = !super::file_system::is_fuse(&held);
        Ok(Self { path: path.into(), id, held, caches })
    }

    /// Identifies the directory on this host, while it is open.
    #[allow(clippy::unnecessary_wraps, reason = "other systems have none")]
    pub(crate) fn key(&self) -> Option<String> {
        Some(self.id.to_string().replace(':', "."))
    }

    /// The names in the directory at this moment. A FUSE lists an open directory again with two
    /// requests, and with some ten if it is opened by its path.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(crate) fn names(&mut self) -> io::Result<Vec<OsString>> {
        use std::os::unix::ffi::OsStringExt as _;

        use rustix::fs::{AtFlags, Dir, StatxFlags, statx};

        let mut directory = if self.caches {
            // An NFS client compares the attributes then, and drops what it knows if they differ.
            let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
            match statx(&self.held, "", flags, StatxFlags::MTIME | StatxFlags::CTIME) {
                Ok(_) => Dir::new(self.held.try_clone()?)?,
                // It does the same when the directory is opened.
                Err(_) => Dir::read_from(&self.held)?,
            }
        } else {
            Dir::new(self.held.try_clone()?)?
        };
        directory.rewind();
        let mut names = Vec::new();
        while let Some(entry) = directory.read() {
            names.push(OsString::from_vec(entry?.file_name().to_bytes().to_vec()));
        }
        Ok(names)
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub(crate) fn names(&mut self) -> io::Result<Vec<OsString>> {
        super::super::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name())).collect()
    }

    /// Whether the path still leads to this directory.
    pub(crate) fn is_at_its_path(&self) -> bool {
        let found = if self.caches {
            open_to_list(&self.path).and_then(|file| super::identity(&file))
        } else {
            rustix::fs::stat(&self.path).map(|stat| FileId::of(&stat)).map_err(io::Error::from)
        };
        found.is_ok_and(|id| id == self.id)
    }
}

/// Follows symbolic links, as a path to a file in the directory does.
fn open_to_list(path: &Path) -> io::Result<File> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = || rustix::fs::open(path, flags, rustix::fs::Mode::empty());
    Ok(rustix::io::retry_on_intr(open)?.into())
}

/// Opens the directory itself, and not one that a symbolic link in its place leads to.
fn open_directory(path: &Path, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || rustix::fs::open(path, flags, rustix::fs::Mode::empty());
    Ok(rustix::io::retry_on_intr(open)?.into())
}
