//! Linux: finds out whether the server of a network file system has dropped a lock (rule 16).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

use super::super::{Mode, retry_eintr, try_lock, unlock};
use super::file_system::{Protocol, protocol_of};
use super::{identity, options};

/// Whether the error of a call on a locked file of a network file system means that the lock is
/// gone.
///
/// * EIO: an NFS client does not read or write under a lock whose lease has expired
///   (`nfs4_copy_lock_stateid` in Linux's `fs/nfs/nfs4state.c`).
/// * EBADFD: a `GlusterFS` client does not use a descriptor again that had a lock when the
///   connection broke.
/// * ENOTCONN, ESHUTDOWN: a FUSE client has ended or has lost its server.
/// * ESTALE: the server does not know the file any more.
pub(crate) fn means_lost(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::IO | Errno::BADFD | Errno::NOTCONN | Errno::SHUTDOWN | Errno::STALE)
    )
}

/// Whether the server has dropped the lock in this mode of an open file, which `path` names, on a
/// network file system. `false` also where nothing shows it (SMB, 9P and others).
pub(crate) fn has_lost_lock(path: &Path, file: &File, mode: Mode) -> io::Result<bool> {
    let lost = |error: io::Error| if means_lost(&error) { Ok(true) } else { Err(error) };
    if let Err(error) = ask_server(file) {
        return lost(error);
    }
    match protocol_of(file)? {
        Protocol::Fuse | Protocol::Ceph => {}
        // An NFS client refuses a second descriptor by its own list, without asking the server. The
        // server has checked the lock with the read. Other clients refuse a lock that they have.
        Protocol::Other => return Ok(false),
    }
    let second = match options().write(true).open(path).or_else(|_| options().open(path)) {
        Ok(second) if identity(&second)? == identity(file)? => second,
        Ok(_) => return Ok(false), // the path names another file, which the caller checks
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return lost(error),
    };
    // A lock that conflicts with this one is granted only if no process has this one.
    let conflicting = match mode {
        Mode::Exclusive => Mode::Shared,
        Mode::Shared => Mode::Exclusive,
    };
    match try_lock(&second, conflicting) {
        Ok(true) => return unlock(&second).map(|()| true),
        Ok(false) => {}
        Err(error) => return lost(error),
    }
    // A process has the lock. If it is another one, the server refuses this open file.
    match try_lock(file, mode) {
        Ok(is_held) => Ok(!is_held),
        Err(error) => lost(error),
    }
}

/// Makes the client ask the server about the open file: reads one byte without the cache. The
/// contents do not matter. The flag stays, since nothing else is read through the file, and two
/// threads could otherwise reset it for each other.
fn ask_server(file: &File) -> io::Result<()> {
    let flags = fcntl_getfl(file)?;
    if !flags.contains(OFlags::DIRECT) {
        let _ = fcntl_setfl(file, flags | OFlags::DIRECT); // some file systems do not have it
    }
    let read = || retry_eintr(|| file.read_at(&mut [0], 0));
    match read() {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => {
            fcntl_setfl(file, flags - OFlags::DIRECT)?;
            read()?;
        }
        asked => drop(asked?),
    }
    // A FUSE may answer a read behind the end of the file without asking.
    file.metadata().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The part of the probe that does not depend on a server.
    #[test]
    fn a_lock_is_lost_if_another_process_can_have_it() {
        limit!();
        let file = tempfile::NamedTempFile::new().unwrap();
        let (held, other) = (file.reopen().unwrap(), file.reopen().unwrap());
        ask_server(&held).unwrap();
        assert!(try_lock(&held, Mode::Exclusive).unwrap());
        assert!(!has_lost_lock(file.path(), &held, Mode::Exclusive).unwrap());
        unlock(&held).unwrap();
        assert!(try_lock(&other, Mode::Exclusive).unwrap());
        assert!(means_lost(&Errno::BADFD.into()) && !means_lost(&Errno::ACCESS.into()));
    }
}
