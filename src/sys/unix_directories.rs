//! Unix: directories, how they are made, held and brought to the disk. May name rustix, the file of Unix beside this one
//! and std.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::Bits;

/// The names in it. Some file systems know of no such thing (EINVAL), and keep names in order by themselves.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    let directory = File::open(directory)?;
    match super::super::through_signals(|| directory.sync_all()) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => Ok(()),
        synced => synced,
    }
}

/// All that any process has written so far. Linux waits for that (sync(2), "Notes"), and reports errors only of the
/// file system that it is asked about (syncfs(2)): that of `directory`. Elsewhere it may go on after this.
pub(crate) fn sync_everything(directory: &Path) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let directory = File::open(directory)?;
        super::super::through_signals(|| Ok(rustix::fs::syncfs(&directory)?))?;
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = directory;
    rustix::fs::sync();
    Ok(())
}

/// `/proc/self/fd/N` leads to what is open there, wherever it is by now (proc(5)).
pub(crate) fn hold_directory(path: &Path) -> io::Result<Option<(File, PathBuf)>> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use std::os::fd::AsRawFd as _;
        // To open only the name asks for no right to read it.
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
    // Outermost first. Only what this call makes gets the bits.
    let missing: Vec<&Path> =
        path.ancestors().take_while(|p| !p.as_os_str().is_empty() && !p.exists()).collect();
    for directory in missing.into_iter().rev() {
        match DirBuilder::new().mode(0o700).create(directory) {
            Ok(()) => {
                // A directory under one with the set-group-ID bit has that bit too, and must keep it.
                let wanted = |found: fs::Metadata| {
                    Permissions::from_mode(bits.directory | found.permissions().mode() & 0o2000)
                };
                match open_directory(directory, OFlags::empty()) {
                    Ok(made) => made.set_permissions(wanted(made.metadata()?))?,
                    // The umask leaves not even its owner the right to read it.
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                        fs::set_permissions(directory, wanted(fs::symlink_metadata(directory)?))?;
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

/// The very directory, and not what a symbolic link leads to that somebody put in its place.
fn open_directory(path: &Path, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || rustix::fs::open(path, flags, rustix::fs::Mode::empty());
    Ok(rustix::io::retry_on_intr(open)?.into())
}
