//! `--id NAME`: the path of a named semaphore. It is in a private directory of the user, so that no
//! other user can interfere, and the same for all processes of the user.

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
        .hint("use PATH instead of --id, or set FLOCKWORK_ID_DIR to a private directory")
    })
}

/// The path of the semaphore with that name.
pub(crate) fn path(name: &OsStr) -> Result<PathBuf, Failure> {
    locate(name).map(|(path, _)| path)
}

/// The names of all semaphores of this user.
pub(crate) fn names() -> Vec<String> {
    let entries = std::fs::read_dir(directory().path).into_iter().flatten().flatten();
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
    let directory = directory().path;
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

/// The directory of this user's semaphores.
struct Directory {
    path: PathBuf,
    /// It is neither in the user's home directory nor in one for application data, so a program
    /// that cleans temporary directories may remove old files in it.
    may_be_cleaned: bool,
}

/// The directory depends only on the user, since cron, sudo and ssh have different variables, and
/// `XDG_RUNTIME_DIR` is removed when the user logs out. Only `FLOCKWORK_ID_DIR` overrides it.
fn directory() -> Directory {
    let variable = std::env::var_os("FLOCKWORK_ID_DIR").map(PathBuf::from);
    if let Some(path) = variable.filter(|path| path.is_absolute()) {
        return Directory { path, may_be_cleaned: true };
    }
    match of_user() {
        Some(path) => Directory { path, may_be_cleaned: false },
        None => Directory { path: fallback(), may_be_cleaned: true },
    }
}

/// `~/.local/state/flockwork`, where the home directory is that of the password database. `None` if
/// this user has no home directory on a local file system, as is common for users of services.
#[cfg(unix)]
fn of_user() -> Option<PathBuf> {
    use rustix::fs::{Access, access};
    use std::os::unix::fs::MetadataExt as _;
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::effective()).ok()??;
    let path = user.dir.join(".local/state/flockwork");
    let found = std::fs::metadata(&user.dir).ok()?;
    let is_own = user.dir.is_absolute() && found.is_dir() && found.uid() == user.uid.as_raw();
    let is_usable =
        || path.is_dir() || access(&user.dir, Access::WRITE_OK | Access::EXEC_OK).is_ok();
    (is_own && is_usable() && !is_shared_by_hosts(&user.dir)).then_some(path)
}

/// Whether the directory is on a network file system, where a semaphore would limit the jobs of all
/// hosts together.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn is_shared_by_hosts(directory: &Path) -> bool {
    /// statfs(2): NFS, SMB, CIFS, SMB2, AFS, Coda, Ceph, Lustre, GPFS and GFS2.
    const NETWORK: [i128; 10] = [
        0x6969,
        0x517b,
        0xff53_4d42,
        0xfe53_4d42,
        0x5346_414f,
        0x7375_7245,
        0x00c3_6400,
        0x0bd0_0bd0,
        0x4750_4653,
        0x0116_1970,
    ];
    // The type of the number depends on the architecture, and may be signed.
    let is_network = |kind: i128| NETWORK.contains(&(kind & 0xffff_ffff));
    rustix::fs::statfs(directory).is_ok_and(|found| is_network(i128::from(found.f_type)))
}

#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
fn is_shared_by_hosts(_directory: &Path) -> bool {
    false
}

/// The directory of an application's local data, which does not depend on variables.
#[cfg(windows)]
fn of_user() -> Option<PathBuf> {
    let folder = known_folders::KnownFolder::LocalAppData;
    Some(known_folders::get_known_folder_path(folder)?.join("flockwork"))
}

#[cfg(not(any(unix, windows)))]
fn of_user() -> Option<PathBuf> {
    None
}

/// A directory of this user that stays when the system is restarted.
#[cfg(unix)]
fn fallback() -> PathBuf {
    let user = rustix::process::geteuid().as_raw();
    let parent = Path::new("/var/tmp");
    let parent = if parent.is_dir() { parent } else { Path::new("/tmp") };
    parent.join(format!("flockwork-{user}"))
}

#[cfg(not(unix))]
fn fallback() -> PathBuf {
    std::env::temp_dir().join("flockwork")
}

/// Keeps the files of the semaphore from programs that remove old files from temporary directories:
/// marks them as used today, and sets their sticky bit, for which systemd-tmpfiles skips a file.
pub(crate) fn protect(name: &OsStr) {
    let directory = directory();
    if directory.may_be_cleaned {
        protect_semaphore(&directory.path.join(encoded(name)));
    }
}

#[cfg(unix)]
fn protect_semaphore(path: &Path) {
    if !is_protected(&path.join("capacity")) {
        protect_all(path, 0);
    }
}

/// Whether the file was marked today.
#[cfg(unix)]
fn is_protected(file: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);
    std::fs::symlink_metadata(file).is_ok_and(|found| {
        let age = found.modified().map(|time| time.elapsed().unwrap_or_default());
        found.mode() & STICKY != 0 && age.is_ok_and(|age| age < DAY)
    })
}

#[cfg(unix)]
const STICKY: u32 = 0o1000;

/// Marks a directory and the files in it. A failure is ignored: the file may be gone, and some
/// systems set the bit only for directories.
#[cfg(unix)]
fn protect_all(path: &Path, depth: u32) {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, utimensat};
    use std::os::unix::fs::PermissionsExt as _;
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let now = Timestamps { last_access: now, last_modification: now };
    let Ok(found) = std::fs::symlink_metadata(path) else { return };
    let _ = utimensat(CWD, path, &now, AtFlags::SYMLINK_NOFOLLOW);
    if !found.is_dir() && !found.is_symlink() {
        let mode = found.permissions().mode() | STICKY;
        let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
    }
    if found.is_dir() && depth < 2 {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries.for_each(|entry| protect_all(&entry.path(), depth + 1));
    }
}

/// Other systems have no sticky bit.
#[cfg(not(unix))]
fn protect_semaphore(_path: &Path) {}

/// Creates the directory for this user alone, or checks that it is: another user may have created
/// it in `/var/tmp` first.
#[cfg(unix)]
fn create_private(directory: &Path) -> Result<(), String> {
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
    if let Some(parent) = directory.parent() {
        std::fs::create_dir_all(parent).map_err(|error| error.to_string())?;
    }
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
