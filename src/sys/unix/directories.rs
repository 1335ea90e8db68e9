//! Unix: directories, how they are created, held and synced.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::super::retry_eintr;
use super::{Bits, is_unavailable, set_access};

/// The names in it. `false`: they cannot be synced here.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<bool> {
    match File::open(directory) {
        // This user may create a file there, and may not list it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
        directory => sync_file(&directory?),
    }
}

/// `false`: the file system, or a sandbox, has no such call.
pub(crate) fn sync_file(file: &File) -> io::Result<bool> {
    let sync = |call: &dyn Fn() -> io::Result<()>| match retry_eintr(call) {
        Err(error) if is_unavailable(&error) => Ok(false),
        synced => synced.map(|()| true),
    };
    let is_synced = sync(&|| file.sync_all())?;
    if cfg!(target_vendor = "apple") && !is_synced {
        // std asks for F_FULLFSYNC there, which some file systems do not know (fcntl(2)).
        return sync(&|| Ok(rustix::fs::fsync(file)?));
    }
    Ok(is_synced)
}

/// All that any process has written so far. Linux waits for that (sync(2), "Notes"), and reports
/// errors only of the file system that it is asked about (syncfs(2)): that of `directory`. `false`
/// elsewhere, where it may go on after this.
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
                // A directory under one with the set-group-ID bit has that bit too, and must keep
                // it.
                let wanted =
                    |found: fs::Metadata| bits.directory | found.permissions().mode() & 0o2000;
                match open_directory(directory, OFlags::empty()) {
                    Ok(made) => set_access(&made, wanted(made.metadata()?))?,
                    // The umask leaves not even its owner the right to read it.
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

/// The very directory, and not what a symbolic link leads to that somebody put in its place.
fn open_directory(path: &Path, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || rustix::fs::open(path, flags, rustix::fs::Mode::empty());
    Ok(rustix::io::retry_on_intr(open)?.into())
}
