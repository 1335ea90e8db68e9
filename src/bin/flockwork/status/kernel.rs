//! What Linux shows of processes and their locks in `/proc` (proc(5)), beyond what the library
//! needs: locks of fcntl(2), lock files that were removed, and everything that a user holds.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::process::Process;
use crate::holder_text::command_words;
use crate::{as_flock, process_stat};

#[derive(Clone)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) is_own: bool,
}

/// The user with whose rights a process runs.
pub(super) fn user_of(pid: u32) -> Option<User> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let id: u32 = line.split_ascii_whitespace().nth(1)?.parse().ok()?;
    let is_own = id == rustix::process::geteuid().as_raw();
    let known = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(id)).ok().flatten();
    Some(User { name: known.map_or_else(|| id.to_string(), |user| user.name), is_own })
}

/// When a process was started.
pub(super) fn start_of(pid: u32) -> Option<SystemTime> {
    /// The unit of times in `/proc`, which is the same on all architectures that Rust supports
    /// (`USER_HZ` in Linux's `include/asm-generic/param.h`).
    const TICKS: f64 = 100.0;
    let ticks: f64 = process_stat::field(pid, process_stat::START)?.parse().ok()?;
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split(' ').next()?.parse().ok()?;
    let age = Duration::try_from_secs_f64((uptime - ticks / TICKS).max(0.0)).ok()?;
    SystemTime::now().checked_sub(age)
}

/// The device and the inode of a file.
type FileId = (u64, u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Flock,
    /// A lock of fcntl(2) that belongs to a process.
    Posix,
    /// A lock of fcntl(2) that belongs to an open file.
    OpenFile,
}

/// A line of `/proc/locks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct KernelLock {
    kind: Kind,
    is_waiting: bool,
    is_shared: bool,
    /// The process that took it. `None`: it belongs to no process.
    pid: Option<u32>,
    file: FileId,
}

impl KernelLock {
    /// Parses a line such as `7: -> FLOCK  ADVISORY  WRITE 4242 08:01:1337 0 EOF`.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace().skip(1).peekable();
        let is_waiting = words.next_if_eq(&"->").is_some();
        let kind = match words.next()? {
            "FLOCK" => Kind::Flock,
            "POSIX" => Kind::Posix,
            "OFDLCK" => Kind::OpenFile,
            _ => return None,
        };
        let is_shared = words.nth(1)? == "READ";
        let pid = words.next()?.parse().ok().filter(|pid| *pid != 0);
        let mut file = words.next()?.split(':');
        let major = u32::from_str_radix(file.next()?, 16).ok()?;
        let minor = u32::from_str_radix(file.next()?, 16).ok()?;
        let inode = file.next()?.parse().ok()?;
        let file = (rustix::fs::makedev(major, minor), inode);
        Some(Self { kind, is_waiting, is_shared, pid, file })
    }
}

/// An open file of a process.
struct OpenFile {
    pid: u32,
    descriptor: u32,
    /// The path at which it was opened.
    path: PathBuf,
    is_removed: bool,
}

impl OpenFile {
    /// `AT_STATX_DONT_SYNC` asks no server of a network file system, which may be gone.
    fn id(&self) -> Option<FileId> {
        use rustix::fs::{AtFlags, CWD, StatxFlags, makedev, statx};
        /// `linux/fcntl.h`. rustix does not name it on Android.
        const FROM_MEMORY: AtFlags = AtFlags::from_bits_retain(0x4000);
        let path = format!("/proc/{}/fd/{}", self.pid, self.descriptor);
        let found = statx(CWD, path, FROM_MEMORY, StatxFlags::INO).ok()?;
        Some((makedev(found.stx_dev_major, found.stx_dev_minor), found.stx_ino))
    }

    /// Its locks.
    fn locks(&self) -> Vec<KernelLock> {
        let path = format!("/proc/{}/fdinfo/{}", self.pid, self.descriptor);
        let info = fs::read_to_string(path).unwrap_or_default();
        let lines = info.lines().filter_map(|line| line.strip_prefix("lock:"));
        lines.filter_map(KernelLock::parse).collect()
    }
}

fn numbers(directory: &str) -> impl Iterator<Item = u32> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The open regular files and FIFOs of a process that this user may inspect.
fn open_files(pid: u32) -> impl Iterator<Item = OpenFile> {
    let file = move |descriptor| {
        let path = fs::read_link(format!("/proc/{pid}/fd/{descriptor}")).ok()?;
        let outside = ["/dev", "/proc", "/sys"];
        if !path.is_absolute() || outside.iter().any(|directory| path.starts_with(directory)) {
            return None;
        }
        let (path, is_removed) =
            match path.to_str().and_then(|path| path.strip_suffix(" (deleted)")) {
                Some(removed) => (removed.into(), true),
                None => (path, false),
            };
        Some(OpenFile { pid, descriptor, path, is_removed })
    };
    numbers(&format!("/proc/{pid}/fd")).filter_map(file)
}

/// The locks of all processes, or those of this pid namespace. Empty if they cannot be read.
pub(super) struct LockList(Vec<KernelLock>);

/// The locks of fcntl(2) on a file.
#[derive(Default)]
pub(super) struct FcntlLocks {
    pub(super) holders: Vec<Process>,
    pub(super) waiters: Vec<Process>,
}

impl LockList {
    pub(super) fn read() -> Self {
        // The numbers would be those of another pid namespace.
        let own = fs::read_link("/proc/self").ok();
        if own.as_deref() != Some(Path::new(&std::process::id().to_string())) {
            return Self(Vec::new());
        }
        let list = read_at_once("/proc/locks").unwrap_or_default();
        Self(list.lines().filter_map(KernelLock::parse).collect())
    }

    /// The locks of fcntl(2) on the file at `path`, for which another kind of lock may be held.
    pub(super) fn fcntl(&self, path: &Path, is_held: bool) -> FcntlLocks {
        let Some(found) = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file) else {
            return FcntlLocks::default();
        };
        let id = (found.dev(), found.ino());
        let is_fcntl = |lock: &&KernelLock| lock.kind != Kind::Flock && lock.file == id;
        let mut locks: Vec<_> = self.0.iter().filter(is_fcntl).copied().collect();
        // A process may have locked several ranges.
        let mut known = Vec::new();
        locks.retain(|lock| {
            let is_new = !known.contains(lock);
            known.push(*lock);
            is_new
        });
        // GlusterFS and an NFS server keep both kinds in one list, so that a lock of flock(2) is a
        // conflict there too.
        let may_conflict = is_held && flockwork::_command::leads_to_network(path);
        if !may_conflict && !locks.iter().any(|lock| !lock.is_waiting) {
            // The list has no locks of other containers, and its numbers of devices are not those
            // of stat(2) on some file systems. The kernel reports a conflict all the same.
            let conflict = as_flock::fcntl_conflict(path);
            locks.extend(conflict.map(|conflict| KernelLock {
                kind: if conflict.pid.is_some() { Kind::Posix } else { Kind::OpenFile },
                is_waiting: false,
                is_shared: conflict.is_shared,
                pid: conflict.pid,
                file: id,
            }));
        }
        let mut found = FcntlLocks::default();
        for lock in locks {
            let pid = lock.pid.or_else(|| {
                (lock.kind == Kind::OpenFile && !lock.is_waiting).then(|| owner_of_open_file(id))?
            });
            let process = Process::listed(pid, lock.is_shared, true);
            if lock.is_waiting { &mut found.waiters } else { &mut found.holders }.push(process);
        }
        found
    }

    /// The processes whose open file was removed from `path` and is still locked. For a semaphore,
    /// the files are in that directory.
    pub(super) fn removed(&self, path: &Path) -> Vec<Process> {
        let mut found: Vec<Process> = Vec::new();
        let Some(path) = absolute(path) else { return found };
        let is_of_path = |file: &OpenFile| {
            file.is_removed
                && (file.path == path
                    || file.path.parent() == Some(&path) && has_prefix(&file.path, "slot."))
        };
        for pid in self.lockers() {
            for file in open_files(pid).filter(is_of_path) {
                let id = file.id();
                let lock = self.0.iter().find(|lock| {
                    lock.kind == Kind::Flock && !lock.is_waiting && Some(lock.file) == id
                });
                if let Some(lock) = lock.filter(|_| found.iter().all(|it| it.pid != Some(pid))) {
                    found.push(Process::listed(Some(pid), lock.is_shared, false));
                }
            }
        }
        // A job that has inherited the lock is not shown beside the process that acquired it.
        let takers: Vec<_> = self.0.iter().filter_map(|lock| lock.pid).collect();
        let is_taker = |process: &Process| process.pid.is_some_and(|pid| takers.contains(&pid));
        if found.iter().any(is_taker) {
            found.retain(is_taker);
        }
        found
    }

    /// The processes that may have a listed lock: those that took one, or all if one of them has
    /// ended, since another process may have inherited its lock.
    fn lockers(&self) -> Vec<u32> {
        let locks = self.0.iter().filter(|lock| lock.kind == Kind::Flock);
        let mut pids: Vec<_> = locks.filter_map(|lock| lock.pid).collect();
        pids.sort_unstable();
        pids.dedup();
        if pids.iter().all(|pid| Path::new(&format!("/proc/{pid}")).exists()) {
            return pids;
        }
        numbers("/proc").collect()
    }

    /// The paths of everything that a process of this user holds or waits for by flockwork.
    pub(super) fn paths_of_user(&self) -> Vec<PathBuf> {
        let (own, user) = (std::process::id(), rustix::process::geteuid().as_raw());
        let is_own = |pid: &u32| {
            *pid != own
                && fs::metadata(format!("/proc/{pid}")).is_ok_and(|found| found.uid() == user)
        };
        let mut paths: Vec<PathBuf> = Vec::new();
        // The directories whose server does not respond, which is asked once about each.
        let mut silent = Vec::new();
        for pid in numbers("/proc").filter(is_own) {
            let runs_flockwork = command_words(pid).is_some_and(|words| is_flockwork(&words));
            let own_files = open_files(pid).filter_map(|file| {
                if is_of_host_directory(&file.path) {
                    return Some((queued_for(&file)?, true));
                }
                self.is_in_use(&file).then_some((file.path, runs_flockwork))
            });
            for (file, is_own) in own_files {
                let Some(path) = responding(&mut silent, &file, is_own) else { continue };
                if let Err(at) = paths.binary_search(&path) {
                    paths.insert(at, path);
                }
            }
        }
        paths
    }

    /// Whether the file is locked, or is one of a queue.
    fn is_in_use(&self, file: &OpenFile) -> bool {
        if has_suffix(file.path.parent().unwrap_or(&file.path), ".queue") {
            return true;
        }
        let id = file.id();
        self.0.iter().any(|lock| lock.kind != Kind::Posix && Some(lock.file) == id)
    }
}

/// The same as [`primitive_of`]. If a file server does not respond, it is the file itself, whose
/// status reports that.
fn responding(silent: &mut Vec<PathBuf>, file: &Path, runs_flockwork: bool) -> Option<PathBuf> {
    let directory = file.parent()?;
    if silent.iter().any(|it| it == directory) {
        return Some(file.into());
    }
    let found = flockwork::_command::ask(file, move |file| primitive_of(file, runs_flockwork));
    found.unwrap_or_else(|_| {
        silent.push(directory.into());
        Some(file.into())
    })
}

/// Whether the file is one by which the processes of this host take turns at a file server (rule 18
/// of `docs/PROTOCOL.md`), and not a primitive's.
fn is_of_host_directory(file: &Path) -> bool {
    let is_host_directory = |directory: &Path| {
        let name = directory.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name == "flockwork" || name.starts_with("flockwork-")
    };
    let Some(directory) = file.parent() else { return false };
    let is_blocked = file.file_name().is_some_and(|name| name == "blocked.lock");
    if is_blocked && is_host_directory(directory) {
        return true;
    }
    let name = directory.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_of_hosts = name.starts_with(".events.") || id_of_queue(directory).is_some();
    is_of_hosts && directory.parent().is_some_and(is_host_directory)
}

/// The file whose waiters are in a queue of the host directory, `DEVICE-INODE.queue`.
fn id_of_queue(queue: &Path) -> Option<FileId> {
    let name = queue.file_name()?.to_str()?.strip_suffix(".queue")?;
    let (device, inode) = name.split_once('-')?;
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    Some((number(device)?, number(inode)?))
}

/// The path of the file for which a process has a place in a queue of the host directory. The
/// process has that file open as well.
fn queued_for(place: &OpenFile) -> Option<PathBuf> {
    let id = id_of_queue(place.path.parent()?)?;
    open_files(place.pid).find(|file| file.id() == Some(id)).map(|file| file.path)
}

/// Whether a command line is that of this program, under any of its names.
fn is_flockwork(words: &[std::ffi::OsString]) -> bool {
    let program = words.first().and_then(|word| Path::new(word).file_name());
    program.is_some_and(|name| name == "flockwork")
}

/// The path of the primitive to which an open file belongs. `None`: it is another program's.
fn primitive_of(file: &Path, runs_flockwork: bool) -> Option<PathBuf> {
    let directory = file.parent()?;
    let name = file.file_name()?.to_str().unwrap_or_default();
    let is_semaphore = |directory: &Path| directory.join("capacity").exists();
    let is_number = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    if is_number || name.starts_with("slot.") || matches!(name, "gate" | "waiters" | "tickets") {
        // The directory above that of the file, for `holders`, `queue` and `.slots`.
        let directories = file.ancestors().skip(1).take(2);
        if let Some(directory) = directories.into_iter().find(|it| is_semaphore(it)) {
            return Some(directory.into());
        }
    }
    if directory.file_name().is_some_and(|it| it == "jobs") {
        // The files of the command's jobs.
        if let Some(semaphore) = directory.parent().filter(|it| is_semaphore(it)) {
            return Some(semaphore.into());
        }
    }
    if name.starts_with("participant.") {
        return Some(directory.into());
    }
    for suffix in [".queue", ".holders"] {
        if let Some(path) = without_suffix(directory, suffix) {
            return Some(without_sidecar(path));
        }
    }
    for suffix in [".holder", ".gate", ".flock"] {
        if let Some(path) = without_suffix(file, suffix) {
            return Some(without_sidecar(path));
        }
    }
    let record = |suffix: &str| {
        let mut record = file.as_os_str().to_os_string();
        record.push(suffix);
        Path::new(&record).exists()
    };
    (runs_flockwork || record(".holder") || record(".holders")).then(|| file.into())
}

/// The path of a `once`, a data file or an event whose lock is beside it.
fn without_sidecar(path: PathBuf) -> PathBuf {
    without_suffix(&path, ".flock").unwrap_or(path)
}

fn without_suffix(path: &Path, suffix: &str) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?.strip_suffix(suffix)?;
    (!name.is_empty()).then(|| path.with_file_name(name))
}

fn has_suffix(path: &Path, suffix: &str) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(suffix.as_bytes())
}

fn has_prefix(path: &Path, prefix: &str) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.as_encoded_bytes().starts_with(prefix.as_bytes())
}

/// The path as the kernel shows it, without symbolic links in its directory.
fn absolute(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    let parent = path.parent()?.canonicalize().ok()?;
    Some(parent.join(path.file_name()?))
}

/// The process with the lowest number that has a lock of fcntl(2) which belongs to an open file.
fn owner_of_open_file(file: FileId) -> Option<u32> {
    let mut pids: Vec<_> = numbers("/proc").collect();
    pids.sort_unstable();
    let has_lock = |open: &OpenFile| {
        open.id() == Some(file) && open.locks().iter().any(|lock| lock.kind == Kind::OpenFile)
    };
    pids.into_iter().find(|pid| open_files(*pid).any(|open| has_lock(&open)))
}

/// Reads a file of `/proc` into a large buffer, since each read of the list of locks blocks all
/// locking on the machine for a moment.
fn read_at_once(path: &str) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::with_capacity(64 * 1024);
    fs::File::open(path)?.read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_list_of_locks_are_parsed() {
        limit!();
        let file = (rustix::fs::makedev(0xfe, 1), 77);
        let lock = |kind, is_waiting, is_shared, pid| KernelLock {
            kind,
            is_waiting,
            is_shared,
            pid,
            file,
        };
        for (line, expected) in [
            (
                "1: FLOCK  ADVISORY  WRITE 42 fe:01:77 0 EOF",
                lock(Kind::Flock, false, false, Some(42)),
            ),
            (
                "1: -> FLOCK  ADVISORY  READ 42 fe:01:77 0 EOF",
                lock(Kind::Flock, true, true, Some(42)),
            ),
            (
                "2: POSIX  ADVISORY  WRITE 42 fe:01:77 0 0",
                lock(Kind::Posix, false, false, Some(42)),
            ),
            (
                "\t1: OFDLCK ADVISORY  WRITE -1 fe:01:77 0 EOF",
                lock(Kind::OpenFile, false, false, None),
            ),
        ] {
            assert_eq!(KernelLock::parse(line), Some(expected), "{line}");
        }
        for line in ["", "1:", "1: LEASE  ACTIVE    READ  42 fe:01:77 0 EOF", "1: FLOCK A W 1 fe"] {
            assert_eq!(KernelLock::parse(line), None, "{line}");
        }
    }

    #[test]
    fn the_primitive_of_a_file_is_found() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("s/queue")).unwrap();
        for file in ["s/capacity", "l", "l.holder", "other"] {
            fs::write(at(file), "").unwrap();
        }
        for (file, primitive) in [
            ("s/slot.0", Some("s")),
            ("s/waiters", Some("s")),
            ("s/queue/3", Some("s")),
            ("s/jobs/@7.0000beef", Some("s")),
            ("l", Some("l")),
            ("l.holder", Some("l")),
            ("l.gate", Some("l")),
            ("l.queue/3", Some("l")),
            ("l.holders/slot.x", Some("l")),
            ("o.flock", Some("o")),
            ("o.flock.gate", Some("o")),
            ("b/participant.0", Some("b")),
            ("other", None),
        ] {
            assert_eq!(primitive_of(&at(file), false), primitive.map(at), "{file}");
        }
        assert_eq!(primitive_of(&at("other"), true), Some(at("other")));
    }

    #[test]
    fn files_of_the_host_directory_are_no_primitives() {
        limit!();
        for (file, is_of_it) in [
            ("/run/user/1/flockwork/2f-1a.queue/3", true),
            ("/tmp/flockwork-1/2f-1a.queue/front", true),
            ("/tmp/flockwork-1/.events.1.lock/47.3", true),
            ("/tmp/flockwork-1/blocked.lock", true),
            ("/tmp/flockwork-1/build/slot.0", false),
            ("/tmp/flockwork-1/build/queue/3", false),
            ("/tmp/flockwork-1/build.queue/3", false),
            ("/tmp/2f-1a.queue/3", false),
            ("/tmp/blocked.lock", false),
        ] {
            assert_eq!(is_of_host_directory(Path::new(file)), is_of_it, "{file}");
        }
        assert_eq!(id_of_queue(Path::new("/tmp/2f-1a.queue")), Some((0x2f, 0x1a)));
    }
}
