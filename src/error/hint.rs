//! Advice on errors of the system whose own text gives none.

use std::io;

use super::Operation;
use crate::sys;

/// The advice after `operation` failed because of `source`.
pub(super) fn of(operation: Operation, source: &io::Error) -> Option<&'static str> {
    if let Some(hint) = sys::hint_of(source) {
        return Some(hint);
    }
    Some(match source.kind() {
        io::ErrorKind::PermissionDenied => permission(operation),
        io::ErrorKind::InvalidData => "read it as bytes, or check which program writes it",
        io::ErrorKind::ReadOnlyFilesystem if operation.changes_directory() => {
            "choose a path on a writable file system"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "choose a path on a writable file system, or a lock file that already exists"
        }
        io::ErrorKind::StorageFull => "free some space or choose another file system",
        io::ErrorKind::QuotaExceeded => "free some of your quota or choose another file system",
        io::ErrorKind::InvalidInput if operation == Operation::Resolve => "give the path of a file",
        io::ErrorKind::NotFound if operation == Operation::Resolve => {
            "change to a directory that exists, or give an absolute path"
        }
        io::ErrorKind::NotFound if operation == Operation::Read => {
            "check that a program has written it, and that none has removed it"
        }
        io::ErrorKind::NotFound
            if matches!(
                operation,
                Operation::Open | Operation::Create | Operation::Set | Operation::Write
            ) =>
        {
            "check the path, or open it with `Options::create(true)`"
        }
        io::ErrorKind::NotADirectory => {
            "check which part of the path is a file instead of a directory"
        }
        io::ErrorKind::IsADirectory => "give the path of a file, without a slash at its end",
        _ => return sys::advice(source),
    })
}

fn permission(operation: Operation) -> &'static str {
    match operation {
        Operation::Open | Operation::ReadPayload | Operation::Read => {
            "this user must be able to read the file (its creator can permit it with `Options::access`)"
        }
        Operation::Write => {
            "this user must be able to write to the file and to its directory (their creator can permit it with `Options::access`)"
        }
        Operation::LookUp => {
            "this user must be able to enter every directory of the path (their creator can permit it with `Options::access`)"
        }
        Operation::Lock => "check whether a sandbox or security policy denies locks on the file",
        _ if operation.creates() => {
            "this user must be able to write to the directory (its creator can permit it with `Options::access`)"
        }
        _ if operation.changes_directory() => {
            "this user must be able to write to the directory, and must own the file if the directory is \
             sticky, as `/tmp` is"
        }
        _ => "check the owners and modes of the file and its directory",
    }
}
