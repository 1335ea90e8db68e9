//! Unix: `open(2)` flags, error numbers, device and inode numbers, what is written aside.

use std::fs::{self, File, FileType, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{
    FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::{Bits, FileKind, Mode};

/// Whether there are locks on this platform at all.
pub(crate) const SUPPORTED: bool = true;

/// inotify loses nothing but what it says it lost: this is for what nobody thought of.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) const BACKSTOP: Duration = Duration::from_secs(1);
/// FSEvents: begins late, loses what is queued when a watch is added, and takes 30 to 120 ms
/// (notify#993, libuv#626).
#[cfg(target_vendor = "apple")]
pub(crate) const BACKSTOP: Duration = Duration::from_millis(20);
/// kqueue has no event for a close, so the death of a holder is seen only by looking.
#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
pub(crate) const BACKSTOP: Duration = Duration::from_millis(100);

/// A second lock by the same descriptor takes the place of the first.
pub(super) const LOCKS_STACK: bool = false;

/// A locked file can be read and written by everybody.
pub(super) const LOCKS_ARE_MANDATORY: bool = false;

/// Whether [`FileId`] tells one file from another.
pub(crate) const FILES_HAVE_NUMBERS: bool = true;

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use self::linux_proc::{
    PID_NAMESPACES, command_of, has_ended, inheritors, is_stopped, lock_owners, locked_in_list,
    started, this_process,
};
pub(crate) use self::processes::{Origin, coarse_milliseconds, host_name};
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) use super::no_proc::{
    PID_NAMESPACES, command_of, has_ended, inheritors, is_stopped, lists_locks, lock_owners,
    locked_in_list, started, this_process,
};

pub(super) use self::attributes::KeptAttributes;

pub(crate) use self::directories::{
    create_directories, hold_directory, sync_directory, sync_everything, sync_file,
};

mod attributes;
mod directories;
#[cfg(any(
    target_os = "linux",
    target_os = "android",
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "openbsd"
))]
mod file_system;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux_proc;
mod processes;

#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_vendor = "apple",
    target_os = "freebsd",
    target_os = "openbsd"
)))]
mod file_system {
    use super::{File, Path};

    pub(super) fn is_network_file(_file: &File) -> Option<bool> {
        None
    }

    pub(super) fn is_network_directory(_directory: &Path) -> Option<bool> {
        None
    }
}

// ---------------------------------------------------------------------------------------- opening

/// Rule 1. `O_NOFOLLOW`: a planted symlink must not lead us to another's file. `O_NONBLOCK`:
/// opening a planted FIFO must not hang (it says nothing about locks). `O_NOCTTY`: a terminal must
/// not become ours. std adds `O_CLOEXEC`. Never `O_TRUNC`, never `O_APPEND`.
const FLAGS: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

fn options() -> OpenOptions {
    with_flags(FLAGS)
}

fn with_flags(flags: OFlags) -> OpenOptions {
    let mut options = OpenOptions::new();
    #[allow(clippy::cast_possible_wrap, reason = "open(2) takes an int, and all flags fit in it")]
    options.read(true).custom_flags(flags.bits() as i32);
    options
}

/// For a new file, with `O_EXCL`. open(2) can create a file for a descriptor that only reads, and
/// std cannot.
fn creating(writes: bool) -> OpenOptions {
    if writes {
        let mut options = options();
        options.write(true).create_new(true);
        return options;
    }
    with_flags(FLAGS.union(OFlags::CREATE).union(OFlags::EXCL))
}

/// To read and write; only to read where writing is refused: the file system is read-only, the file
/// belongs to another user, or is a program that runs.
pub(crate) fn open_existing(path: &Path) -> io::Result<File> {
    match options().write(true).open(path) {
        // What refused writing says more than what refuses reading as well.
        Err(error) if refuses_writing(&error) => options().open(path).map_err(|_| error),
        other => other,
    }
}

fn refuses_writing(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::ACCESS | Errno::ROFS | Errno::PERM | Errno::TXTBSY)
    )
}

/// Only to read: flock(2) needs no more on a local file system, and a program that a process has
/// open for writing cannot be run (ETXTBSY). An NFS client grants an exclusive lock only on a
/// descriptor that may write (flock(2), "NFS details"), so on a network file system, and where the
/// system does not tell which are such, the file is opened to read and write.
pub(crate) fn open_to_lock(path: &Path) -> io::Result<File> {
    let reading = options().open(path)?;
    if file_system::is_network_file(&reading) == Some(false) {
        return Ok(reading);
    }
    match options().write(true).open(path) {
        Err(error) if refuses_writing(&error) => Ok(reading),
        other => other,
    }
}

/// For reading only, what others wrote beside the path.
pub(crate) fn open_to_read(path: &Path) -> io::Result<File> {
    options().open(path)
}

pub(crate) fn create_new(path: &Path, bits: Option<Bits>) -> io::Result<File> {
    create(path, bits, true)
}

/// Open as by [`open_to_lock`]: it may become a program.
pub(crate) fn create_to_lock(path: &Path, bits: Option<Bits>) -> io::Result<File> {
    create(path, bits, file_system::is_network_directory(directory_of(path)) != Some(false))
}

/// With `bits`, the file has them from the first moment that it has its name: it is made under
/// another name (crate `tempfile`) and given this one without clobbering. A `chmod` after creation
/// would leave a moment in which other users are refused for ever by a mode that nobody asked for.
fn create(path: &Path, bits: Option<Bits>, writes: bool) -> io::Result<File> {
    let Some(bits) = bits else { return creating(writes).open(path) };
    let made = make(&mut unique(), path, Some(bits), &creating(writes))?;
    match super::atomic_write::persist_new(made, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            // Neither a rename without clobbering nor a second name (exFAT, some FUSE): the plain
            // way.
            let file = creating(writes).mode(bits.file & 0o700).open(path)?;
            set_access(&file, bits.file)?;
            Ok(file)
        }
        named => named,
    }
}

/// Not where that is its mode already: there are file systems that have one mode for all files, and
/// refuse any change.
fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    if file.metadata()?.mode() & 0o7777 == mode {
        return Ok(());
    }
    file.set_permissions(Permissions::from_mode(mode))
}

/// The mode that was asked for: without it other users could be let in, or kept out.
fn set_access(file: &File, mode: u32) -> io::Result<()> {
    set_mode(file, mode).map_err(|error| {
        if !is_unavailable(&error) {
            return error;
        }
        let refused = "its file system cannot set the access that was asked for; choose another file system, or create it \
                       as any other file is created (`Access::Umask`)";
        io::Error::new(error.kind(), refused)
    })
}

/// Rule 13. Whether the kernel, a file system or a sandbox has no such call, or not with these
/// arguments. What such a call is for is done by an older one or left out, where that is possible.
/// (EPERM is what old container runtimes say of calls that they do not know.)
pub(super) fn is_unavailable(error: &io::Error) -> bool {
    // Compared and not matched: OPNOTSUPP and NOTSUP are one number on some systems, two on others.
    [Errno::PERM, Errno::NOSYS, Errno::INVAL, Errno::OPNOTSUPP, Errno::NOTSUP]
        .iter()
        .any(|unavailable| Errno::from_io_error(error).as_ref() == Some(unavailable))
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// As tempfile takes it: any path will do.
pub(super) fn at_any_length(path: &Path) -> &Path {
    path
}

/// A new file in the directory of `path`, under a random name, with the mode that a file created
/// with `bits` has: to be filled and then given the name `path`.
pub(super) fn create_unique(
    path: &Path,
    bits: Option<Bits>,
) -> io::Result<tempfile::NamedTempFile> {
    make(&mut unique(), path, bits, &creating(true))
}

fn unique<'a>() -> tempfile::Builder<'a, 'a> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".flockwork.");
    builder
}

/// The same at `path` itself.
pub(super) fn create_at(path: &Path, bits: Option<Bits>) -> io::Result<tempfile::NamedTempFile> {
    make(exactly(path).rand_bytes(0), path, bits, &creating(true))
}

fn exactly(path: &Path) -> tempfile::Builder<'_, '_> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(path.file_name().unwrap_or_default());
    builder
}

/// A new file at `path` itself, locked for as long as it is open ([`WRITERS_LOCK`]). No other user
/// can open a `private` one until it has its owner and mode ([`KeptAttributes`]).
pub(super) fn create_fixed(
    path: &Path,
    bits: Option<Bits>,
    private: bool,
) -> io::Result<tempfile::NamedTempFile> {
    let made = if private {
        make(exactly(path).rand_bytes(0), path, None, creating(true).mode(PRIVATE))?
    } else {
        create_at(path, bits)?
    };
    // Nobody else has it: somebody who looks whether we live, for a moment, if anybody.
    let _looked = super::try_lock(made.as_file(), Mode::Exclusive)?;
    super::atomic_write::check_still_named(made, path)
}

/// Marks a new file as being written, for as long as it is open. `None`: another process looked at
/// it before that, took it for one that a killed writer left, and removes it. Where there are no
/// locks no process can tell, and the file is ours.
pub(super) fn mark_in_use(
    made: tempfile::NamedTempFile,
    path: &Path,
) -> io::Result<Option<tempfile::NamedTempFile>> {
    let is_locked = super::try_lock(made.as_file(), Mode::Exclusive).unwrap_or(true);
    if is_locked && names(path, identity(made.as_file())?)? {
        return Ok(Some(made));
    }
    let _ = made.keep(); // its name is not ours to remove
    Ok(None)
}

/// Ends that, as soon as the file has its name: the descriptor of a forked copy would keep it
/// locked.
pub(super) fn unmark(file: &File) {
    let _ = super::unlock(file);
}

/// Removes a file that no process writes, and returns whether it is gone. While it is locked here
/// no process can mark it.
pub(super) fn remove_if_left(path: &Path) -> bool {
    let remove = || -> io::Result<bool> {
        if file_kind(path)? != FileKind::File {
            return Ok(false);
        }
        let file = open_to_lock(path)?;
        // Something else may have taken its place since.
        if !file.metadata()?.is_file() || !super::try_lock(&file, Mode::Exclusive)? {
            return Ok(false);
        }
        let is_gone = names(path, identity(&file)?)? && fs::remove_file(path).is_ok();
        super::unlock(&file)?;
        Ok(is_gone)
    };
    remove().unwrap_or(false)
}

const PRIVATE: u32 = 0o600;

/// Who writes a file aside has it locked meanwhile, so that it is seen whether they live.
pub(super) const WRITERS_LOCK: bool = true;

/// Without `bits` as any other file: 0666, of which open(2) takes what the umask says.
fn make(
    builder: &mut tempfile::Builder<'_, '_>,
    path: &Path,
    bits: Option<Bits>,
    options: &OpenOptions,
) -> io::Result<tempfile::NamedTempFile> {
    // tempfile adds its own path to the system's error, and keeps nothing of that but its kind.
    let mut refused = None;
    let mut options = options.clone();
    if bits.is_some() {
        options.mode(PRIVATE);
    }
    let open = |path: &Path| options.open(path).inspect_err(|error| refused = error.raw_os_error());
    let made = builder.make_in(directory_of(path), open);
    let made = made.map_err(|error| refused.map_or(error, io::Error::from_raw_os_error))?;
    if let Some(bits) = bits {
        // fchmod, for which the umask does not count; the umask itself is the process's and not
        // ours.
        set_access(made.as_file(), bits.file)?;
    }
    Ok(made)
}

/// Why a file could not be replaced, in words where the system's are misleading: rename(2) says
/// EPERM in a directory with the sticky bit, unless the user owns the file or that directory.
pub(super) fn not_replaced(path: &Path, error: io::Error) -> io::Error {
    let is_sticky = || fs::metadata(directory_of(path)).is_ok_and(|it| it.mode() & 0o1000 != 0);
    if Errno::from_io_error(&error) == Some(Errno::PERM) && is_sticky() {
        return io::Error::new(
            error.kind(),
            "only the owner of a file may replace it in a directory with the sticky bit, as `/tmp` is; \
             choose a directory without it, or let the owner write",
        );
    }
    error
}

/// Nothing stands in the way of a rename here; on Windows a reader does.
pub(crate) fn through_readers<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    call()
}

/// Linux and Apple refuse where something has the new name; elsewhere, and where the file system
/// does not know how, it is replaced.
pub(crate) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    {
        let (here, flags) = (rustix::fs::CWD, rustix::fs::RenameFlags::NOREPLACE);
        match rustix::fs::renameat_with(here, from, here, to, flags) {
            Err(error) if is_unavailable(&error.into()) => {}
            renamed => return renamed.map_err(Into::into),
        }
    }
    fs::rename(from, to)
}

/// Frees the name at once, also where somebody has the file open.
pub(crate) fn remove_at_once(path: &Path) -> io::Result<()> {
    fs::remove_file(path)
}

/// One `lstat`, without more of std around it: this is what a look at an event costs.
pub(crate) fn file_kind(path: &Path) -> io::Result<FileKind> {
    match rustix::fs::lstat(path) {
        Ok(stat) => {
            let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
            Ok(FileKind::of(kind == rustix::fs::FileType::RegularFile))
        }
        // A part of the path that is a file has no file in it.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::STALE) => Ok(FileKind::Nothing),
        Err(error) => Err(error.into()),
    }
}

pub(crate) fn describe(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "a directory"
    } else if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_block_device() || kind.is_char_device() {
        "a device"
    } else if kind.is_file() {
        "a regular file"
    } else {
        "a special file"
    }
}

// ---------------------------------------------------------------------------------------- locking

/// Rule 9: CIFS says EACCES to a try for "busy" (flock(2), "CIFS details"). On a local file system
/// only a security module says it, and means a denial, which a wait would never see the end of.
pub(super) fn means_busy(file: &File, error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::ACCESS)
        && file_system::is_network_file(file) == Some(true)
}

pub(crate) fn make_inheritable(file: &File) -> io::Result<()> {
    let flags = rustix::io::fcntl_getfd(file)? - rustix::io::FdFlags::CLOEXEC;
    Ok(rustix::io::fcntl_setfd(file, flags)?)
}

pub(crate) fn locks_unsupported(error: &io::Error) -> bool {
    is_unavailable(error) && Errno::from_io_error(error) != Some(Errno::PERM)
}

/// What to do about an error that std has no kind for.
pub(crate) fn advice(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::MFILE | Errno::NFILE) => {
            "; raise the limit on open files (ulimit -n), or hold fewer of them open"
        }
        Some(Errno::NOMEM) => "; the system is out of memory: end something, or try again later",
        Some(Errno::IO) => "; the disk or its file system failed, and the system's log says more",
        Some(Errno::NAMETOOLONG) => "; choose a shorter name",
        Some(Errno::BUSY) => {
            "; a file that is a mount point (as of `mount --bind` or a container's volume) can be read and \
             locked, but not replaced or removed: mount its directory instead"
        }
        Some(Errno::LOOP) => "; the symbolic links in the path lead in a circle",
        Some(Errno::NOTCONN | Errno::STALE | Errno::HOSTDOWN) => {
            "; the server of this file system does not answer: mount it again"
        }
        Some(Errno::NOLCK) => {
            "; the system is out of locks, or the network file system's lock service does not run"
        }
        Some(Errno::BADF) => {
            "; on a network file system the file must be writable for this user to be locked"
        }
        _ => "",
    }
}

/// A name is nothing but a name here.
pub(crate) fn misnamed(_path: &Path) -> Option<io::Error> {
    None
}

/// Files have numbers here, and who waits goes by these.
pub(crate) fn common_name(path: &Arc<Path>) -> Arc<Path> {
    Arc::clone(path)
}

pub(crate) fn is_bad_name(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::NAMETOOLONG)
}

// --------------------------------------------------------------------------------------- identity

/// Device and inode. The number stays taken as long as the file is open, so equal means the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    #[allow(
        clippy::unnecessary_cast,
        clippy::cast_sign_loss,
        clippy::cast_lossless,
        trivial_numeric_casts,
        reason = "st_dev and st_ino have another type on each system"
    )]
    fn of(stat: &rustix::fs::Stat) -> Self {
        Self { device: stat.st_dev as u64, inode: stat.st_ino as u64 }
    }
}

impl std::fmt::Display for FileId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.device, self.inode)
    }
}

/// Which file the path names.
pub(crate) fn path_identity(path: &Path) -> io::Result<FileId> {
    Ok(FileId::of(&rustix::fs::lstat(path)?))
}

pub(crate) fn identity(file: &File) -> io::Result<FileId> {
    Ok(FileId::of(&rustix::fs::fstat(file)?))
}

/// Rule 2: whether `path` still names that file. `lstat`, so that a symlink put in its place does
/// not count. A path that is gone, or whose parents are, names nothing; ESTALE is NFS's word for
/// it.
pub(crate) fn names(path: &Path, id: FileId) -> io::Result<bool> {
    match rustix::fs::lstat(path) {
        Ok(stat) => Ok(FileId::of(&stat) == id),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether nothing but `path` names that file; `None` if the path does not. Looks twice: who wants
/// to be taken for that has to take the other name away for both looks.
pub(crate) fn has_one_name(path: &Path, id: FileId) -> io::Result<Option<bool>> {
    let mut has_one = true;
    for _ in 0..2 {
        match rustix::fs::lstat(path) {
            Ok(stat) if FileId::of(&stat) == id => has_one &= stat.st_nlink == 1,
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::STALE) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Some(has_one))
}

/// Which directory a path leads to. An inode's number is used again, often at once, by the next
/// directory that is made; so with the time at which it was made, where the file system keeps that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DirectoryId {
    id: FileId,
    made: Option<SystemTime>,
}

/// Follows symbolic links, as a watch does.
pub(crate) fn directory_identity(directory: &Path) -> io::Result<DirectoryId> {
    let found = fs::metadata(directory)?;
    if !found.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    let id = FileId { device: found.dev(), inode: found.ino() };
    Ok(DirectoryId { id, made: found.created().ok() })
}

/// Linux: by the magic number, the list of GNU coreutils' `fs-is-local` (what `tail -f` goes by)
/// with 9p added; every FUSE counts, since its kind cannot be told. Apple, FreeBSD, OpenBSD: by
/// `MNT_LOCAL`. Elsewhere nothing is known and "local" is assumed.
pub(crate) fn is_network(_path: &Path, file: &File) -> bool {
    file_system::is_network_file(file) == Some(true)
}

/// Whether [`locked_in_list`] knows if a file there is locked, if it can be read: the list has the
/// locks of all processes and goes by the numbers of stat(2) (not so on btrfs and some overlays),
/// and no other host can have the file locked.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn lists_locks(path: &Path) -> bool {
    file_system::is_listed(path) && linux_proc::lists_all()
}

/// The same of a directory.
pub(crate) fn is_network_directory(directory: &Path) -> bool {
    file_system::is_network_directory(directory) == Some(true)
}

// -------------------------------------------------------------------------------------- publishing

/// A published file that the kernel knows to be alive: its publisher holds an exclusive lock on it,
/// which ends with the process however it ends.
#[derive(Debug)]
pub(crate) struct LivenessLock {
    file: File,
}

impl LivenessLock {
    /// Whether an empty file can be one that was withdrawn.
    pub(crate) const MAY_BE_EMPTY: bool = false;

    /// Puts `contents` at `path` in one step, replacing what is there. It is locked before it
    /// has its name, so no process finds it unlocked while its publisher lives.
    ///
    /// It is written at `aside` first, where nothing may be. Only one process may publish at a path
    /// at a time.
    pub(crate) fn publish(
        path: &Path,
        aside: &Path,
        contents: &[u8],
        bits: Option<Bits>,
    ) -> io::Result<Self> {
        let file = options().write(true).create_new(true).open(aside)?;
        let published = (|| {
            if let Some(bits) = bits {
                set_mode(&file, bits.file)?;
            }
            // Before there is anything to be read: who finds a record asks whether its publisher
            // lives.
            if !super::try_lock(&file, Mode::Exclusive)? {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            io::Write::write_all(&mut &file, contents)?;
            fs::rename(aside, path)?;
            // A holder of a file that was replaced since may publish at the same names.
            if !names(path, identity(&file)?)? {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            Ok(())
        })();
        if let Err(error) = published {
            // Whatever became of it, it must not look as if its publisher had died.
            let _ = file.set_len(0);
            let _ = fs::remove_file(aside);
            if identity(&file).and_then(|id| names(path, id)).unwrap_or(false) {
                let _ = fs::remove_file(path);
            }
            return Err(error);
        }
        Ok(Self { file })
    }

    /// Whether the publisher of this opened file lives. Asked with a shared lock, so that two who
    /// ask at once do not take each other for the publisher.
    pub(crate) fn is_alive(_path: &Path, file: &File) -> bool {
        match super::try_lock(file, Mode::Shared) {
            Ok(true) => {
                let _ = super::unlock(file);
                false
            }
            Ok(false) => true,
            Err(_) => false,
        }
    }

    /// Cuts the file to `length` bytes and takes it away, if it is still the one at the path. Only
    /// for the process that published it.
    pub(crate) fn withdraw(self, path: &Path, length: u64) -> io::Result<()> {
        let cut = self.file.set_len(length);
        if names(path, identity(&self.file)?)? {
            return fs::remove_file(path);
        }
        cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What takes the path's place between the look and the open (rule 1).
    #[test]
    fn an_open_neither_follows_a_symlink_nor_waits_for_a_fifo() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let (target, link, fifo) =
            (dir.path().join("target"), dir.path().join("link"), dir.path().join("fifo"));
        fs::write(&target, "theirs").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(open_existing(&link).is_err());
        assert!(open_to_read(&link).is_err());
        assert!(create_new(&link, None).is_err());
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        assert!(!open_to_read(&fifo).unwrap().metadata().unwrap().is_file());
        let _ = open_existing(&fifo);
    }

    #[test]
    fn a_local_file_system_is_not_taken_for_a_network() {
        limit!();
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(!is_network(file.path(), file.as_file()));
    }
}
