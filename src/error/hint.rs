//! What to do about a refusal of the system, where its own words do not say it.

use std::io;

use super::Operation;
use crate::sys;

/// What to do after `operation` failed for the reason `source`.
pub(super) fn of(operation: Operation, source: &io::Error) -> Option<&'static str> {
    let hint = match source.kind() {
        // An error of flockwork's own says what to do.
        io::ErrorKind::PermissionDenied if source.get_ref().is_some() => "",
        io::ErrorKind::PermissionDenied => permission(operation),
        io::ErrorKind::InvalidData => "read it as bytes, or see which program writes it",
        io::ErrorKind::ReadOnlyFilesystem if operation.changes_directory() => {
            "choose a path on a file system that can be written to"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "a lock file that exists can be locked there, but none can be created"
        }
        io::ErrorKind::StorageFull => "free some space or choose another file system",
        io::ErrorKind::QuotaExceeded => "free some of your quota or choose another file system",
        io::ErrorKind::InvalidInput if operation == Operation::Resolve => "give the path of a file",
        io::ErrorKind::NotFound if operation == Operation::Resolve => {
            "the current directory is gone"
        }
        io::ErrorKind::NotFound if operation == Operation::Read => {
            "no program has written it yet, or it was removed"
        }
        io::ErrorKind::NotADirectory => "a part of the path that should be a directory is a file",
        io::ErrorKind::IsADirectory => "give the path of a file, without a slash at its end",
        _ => sys::advice(source).trim_start_matches("; "),
    };
    Some(hint).filter(|hint| !hint.is_empty())
}

fn permission(operation: Operation) -> &'static str {
    match operation {
        Operation::Open | Operation::ReadPayload | Operation::Read => {
            "this user must be able to read the file (its creator can permit it by `Options::access`)"
        }
        Operation::Write => {
            "this user must be able to write to the file and to its directory (their creator can permit it by `Options::access`)"
        }
        Operation::LookUp => {
            "this user must be able to enter every directory of the path (their creator can permit it by `Options::access`)"
        }
        Operation::Lock => "a sandbox or security policy does not let this process lock the file",
        _ if operation.creates() => {
            "this user must be able to write to the directory (its creator can permit it by `Options::access`)"
        }
        _ if operation.changes_directory() => {
            "this user must be able to write to the directory, and own the file if that is \
             sticky, as `/tmp` is"
        }
        _ => "check the owners and modes of the file and its directory",
    }
}
