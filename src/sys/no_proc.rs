//! The part of [`super`] about processes, for systems that do not show them.

use super::{FileId, Numbering, Owner, Process};

/// Whether process numbers are valid only within a pid namespace. Here they mean the same to all
/// processes of the machine.
pub(crate) const PID_NAMESPACES: bool = false;

pub(crate) fn this_process() -> Process {
    Process { pid: std::process::id(), started: None, numbering: Numbering::Unknown, boot: None }
}

/// The mounts of network file systems, which the system does not show here.
#[derive(Debug)]
pub(crate) struct NetworkMounts;

impl NetworkMounts {
    pub(crate) fn read() -> Option<Self> {
        None
    }

    pub(crate) fn has(&self, _path: &std::path::Path) -> bool {
        false
    }
}

pub(crate) fn started(_listed: u32) -> Option<u64> {
    None
}

pub(crate) fn has_ended(_process: &Process) -> bool {
    false
}

pub(crate) fn lock_owners(_files: &[FileId], _thorough: bool) -> std::io::Result<Vec<Owner>> {
    Ok(Vec::new())
}

pub(crate) fn lock_waiters(_files: &[FileId]) -> std::io::Result<Vec<Owner>> {
    Ok(Vec::new())
}

pub(crate) fn has_open(_process: &Process, _file: FileId, _written: FileId) -> bool {
    false
}

pub(crate) fn inheritors(_files: &[FileId]) -> Vec<Owner> {
    Vec::new()
}

pub(crate) fn locked_in_list(_files: &[FileId]) -> std::io::Result<Option<Vec<FileId>>> {
    Ok(None)
}

pub(crate) fn lists_locks(_path: &std::path::Path) -> bool {
    false
}

pub(crate) fn is_stopped(_pid: u32) -> bool {
    false
}

pub(crate) fn command_of(_pid: u32) -> Option<Vec<String>> {
    None
}

/// Nothing shows here how a mount treats locks.
pub(crate) fn check_mount(_file: &std::fs::File) -> std::io::Result<super::RemoteLocks> {
    Ok(super::RemoteLocks::default())
}

pub(crate) fn check_forwarded(_file: &std::fs::File) -> std::io::Result<()> {
    Ok(())
}

/// Nothing shows here that a server has dropped a lock.
pub(crate) fn has_lost_lock(
    _path: &std::path::Path,
    _file: &std::fs::File,
    _mode: super::Mode,
) -> std::io::Result<bool> {
    Ok(false)
}

pub(crate) fn means_lost(_error: &std::io::Error) -> bool {
    false
}
