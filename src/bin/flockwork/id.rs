//! `--id NAME`: the path of a named semaphore. It is in a private directory of the user, so that no
//! other user can interfere.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::exit::{Exit, Failure};

/// Creates the directory of the semaphore if it is missing, and checks that only this user can
/// write to it.
pub(crate) fn create_directory(name: &OsStr) -> Result<(), Failure> {
    let (_, directory) = locate(name)?;
    create_private(&directory).map_err(|why| {
        let directory = directory.display();
        Failure::new(
            Exit::CannotCreate,
            format!("could not use the directory `{directory}` for --id: {why}"),
        )
        .hint("set XDG_RUNTIME_DIR to a private directory, or use PATH instead of --id")
    })
}

/// The path of the semaphore with that name.
pub(crate) fn path(name: &OsStr) -> Result<PathBuf, Failure> {
    locate(name).map(|(path, _)| path)
}

/// The names of all semaphores of this user.
pub(crate) fn names() -> Vec<String> {
    let entries = std::fs::read_dir(runtime_directory()).into_iter().flatten().flatten();
    let name = |entry: std::fs::DirEntry| {
        let is_semaphore = entry.path().join("capacity").is_file();
        decoded(entry.file_name().to_str()?).filter(|_| is_semaphore)
    };
    let mut names: Vec<_> = entries.filter_map(name).collect();
    names.sort();
    names
}

/// The path and its directory.
fn locate(name: &OsStr) -> Result<(PathBuf, PathBuf), Failure> {
    if name.is_empty() {
        return Err(
            Failure::usage("the NAME of --id is empty").hint("give a name, as in --id build")
        );
    }
    let directory = runtime_directory();
    Ok((directory.join(encoded(name)), directory))
}

/// Encodes a name as a file name: a byte other than a letter, digit, `-`, `_` or `.` becomes `%`
/// and two hexadecimal digits, so every name is valid and different names stay different. Windows
/// ignores case and final dots, and reserves names such as `con`.
pub(crate) fn encoded(name: &OsStr) -> String {
    encoded_for(name, cfg!(windows))
}

fn encoded_for(name: &OsStr, is_windows: bool) -> String {
    use std::fmt::Write as _;
    let mut out = String::from(if is_windows { "id-" } else { "" });
    let bytes = name.as_encoded_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        let is_plain = match byte {
            b'.' => at > 0 && (at + 1 < bytes.len() || !is_windows),
            b'A'..=b'Z' => !is_windows,
            _ => byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'),
        };
        if is_plain {
            out.push(char::from(*byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// The name that was encoded as this file name.
fn decoded(file: &str) -> Option<String> {
    let mut parts = file.strip_prefix(if cfg!(windows) { "id-" } else { "" })?.split('%');
    let mut name = parts.next()?.as_bytes().to_vec();
    for part in parts {
        name.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        name.extend(&part.as_bytes()[2..]);
    }
    Some(String::from_utf8_lossy(&name).into_owned())
}

/// `$XDG_RUNTIME_DIR/flockwork`, or a directory of this user in the one for temporary files.
fn runtime_directory() -> PathBuf {
    let variable = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    match variable.filter(|directory| directory.is_absolute()) {
        Some(directory) => directory.join("flockwork"),
        None => fallback(),
    }
}

#[cfg(unix)]
fn fallback() -> PathBuf {
    let user = rustix::process::geteuid().as_raw();
    std::env::temp_dir().join(format!("flockwork-{user}"))
}

/// `%TEMP%` belongs to the user.
#[cfg(not(unix))]
fn fallback() -> PathBuf {
    std::env::temp_dir().join("flockwork")
}

/// Creates the directory for this user alone, or checks that it is: another user may have created
/// it in `/tmp` first.
#[cfg(unix)]
fn create_private(directory: &Path) -> Result<(), String> {
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
    match std::fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(error.to_string());
        }
        _ => {}
    }
    let found = std::fs::symlink_metadata(directory).map_err(|error| error.to_string())?;
    if !found.is_dir() {
        return Err("it is not a directory".into());
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(format!("it belongs to user {}", found.uid()));
    }
    if found.mode() & 0o022 != 0 {
        return Err("other users may write to it".into());
    }
    Ok(())
}

#[cfg(not(unix))]
fn create_private(directory: &Path) -> Result<(), String> {
    std::fs::create_dir_all(directory).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_distinct_valid_file_names() {
        limit!();
        for (name, file) in [
            ("cc", "cc"),
            ("my-job_1.x", "my-job_1.x"),
            ("..", "%2E."),
            (".", "%2E"),
            ("a/b", "a%2Fb"),
            ("a%2Fb", "a%252Fb"),
            ("ä ", "%C3%A4%20"),
        ] {
            assert_eq!(encoded_for(OsStr::new(name), false), file);
            assert!(cfg!(windows) || decoded(file).as_deref() == Some(name), "{file}");
        }
        assert_eq!((decoded("a%"), decoded("a%zz")), (None, None));
        for (name, file) in [
            ("cc", "id-cc"),
            ("Cc", "id-%43c"),
            ("con", "id-con"),
            ("a.b.", "id-a.b%2E"),
            (".", "id-%2E"),
        ] {
            assert_eq!(encoded_for(OsStr::new(name), true), file);
        }
    }
}
