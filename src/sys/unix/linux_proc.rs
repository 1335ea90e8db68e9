//! Linux: what `/proc` shows of processes and their locks (proc(5)).

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use super::super::{Numbering, Owner, Process};
use super::FileId;
use crate::sorted_map::insert_by_key;

/// Whether process numbers are valid only within a pid namespace. There may be many
/// (`pid_namespaces(7)`).
pub(crate) const PID_NAMESPACES: bool = true;

// ------------------------------------------------------------------------------------- processes

pub(crate) fn this_process() -> Process {
    Process {
        pid: std::process::id(),
        started: Stat::of("self").ok().and_then(|stat| stat.started),
        numbering: namespace_of("self").map_or(Numbering::Unknown, Numbering::Namespace),
        boot: boot(),
    }
}

/// Whether `process`, whose number belongs to the calling process's namespace, has ended: the
/// number is free, or another process has it by now. A child may have inherited its descriptors.
pub(crate) fn has_ended(process: &Process) -> bool {
    let stat = Stat::of(process.pid);
    let now = stat.as_ref().ok().and_then(|stat| stat.started);
    let is_another = process.started.zip(now).is_some_and(|(then, now)| then != now);
    (is_another || !is_of_running(process.pid, &stat)) && lists_own_numbers()
}

/// Whether `/proc` was mounted in this process's pid namespace.
fn lists_own_numbers() -> bool {
    let own = std::process::id();
    self_number() == Some(own) && matches!(*numbers_of("self"), [] | [_])
}

/// The number of this process in `/proc`, if that is mounted in its pid namespace or one above.
fn self_number() -> Option<u32> {
    fs::read_link("/proc/self").ok()?.to_str()?.parse().ok()
}

/// The numbers of a process in the namespace of `/proc`, and in each one below it down to the
/// process's own (`NSpid`, since Linux 4.1).
fn numbers_of(process: &str) -> Vec<u32> {
    let status = fs::read(format!("/proc/{process}/status")).unwrap_or_default();
    let status = String::from_utf8_lossy(&status);
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let numbers = line.unwrap_or_default().split_ascii_whitespace();
    numbers.filter_map(|number| number.parse().ok()).collect()
}

/// The pid namespace of a process. The system does not show it for other users' processes.
fn namespace_of(process: &str) -> Option<u64> {
    fs::metadata(format!("/proc/{process}/ns/pid")).ok().map(|namespace| namespace.ino())
}

/// Identifies the machine and its boot. (`systemd-nspawn` and LXC give each container a different
/// identifier.)
fn boot() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(boot.trim().to_string())
}

/// When a process in `/proc` was started, in clock ticks since the boot.
pub(crate) fn started(listed: u32) -> Option<u64> {
    Stat::of(listed).ok()?.started
}

/// The values of a process in `/proc/PID/stat`.
struct Stat {
    /// A letter.
    state: Option<u8>,
    started: Option<u64>,
}

impl Stat {
    /// Parses the file. The second word is the program's name in parentheses, and may itself
    /// contain spaces and parentheses.
    fn of(process: impl std::fmt::Display) -> io::Result<Self> {
        let stat = fs::read(format!("/proc/{process}/stat"))?;
        let name_end =
            stat.iter().rposition(|byte| *byte == b')').map_or(stat.len(), |end| end + 1);
        let rest = String::from_utf8_lossy(&stat[name_end..]);
        let mut words = rest.split_ascii_whitespace();
        let state = words.next().and_then(|state| state.bytes().next());
        Ok(Self { state, started: words.nth(18).and_then(|ticks| ticks.parse().ok()) })
    }
}

/// Whether the process is in `/proc`, and is not a zombie that its parent has not reaped.
fn is_running(pid: u32) -> bool {
    is_of_running(pid, &Stat::of(pid))
}

fn is_of_running(pid: u32, stat: &io::Result<Stat>) -> bool {
    match stat {
        // The first thread may have ended before the others.
        Ok(Stat { state: Some(b'Z'), .. }) => numbers(&format!("/proc/{pid}/task")).count() > 1,
        Ok(stat) => stat.state != Some(b'X'),
        // The process may be hidden from this user (the mount option `hidepid`).
        Err(error) => error.kind() != io::ErrorKind::NotFound || hides_processes(),
    }
}

/// Whether this user cannot see other users' processes, such as process 1.
fn hides_processes() -> bool {
    !std::path::Path::new("/proc/1/stat").exists()
}

/// Whether a listed process was stopped by a signal or a debugger.
pub(crate) fn is_stopped(pid: u32) -> bool {
    matches!(Stat::of(pid), Ok(Stat { state: Some(b'T' | b't'), .. }))
}

/// The words of the command line of a listed process.
pub(crate) fn command_of(pid: u32) -> Option<Vec<String>> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    // A process that sets its own title pads it with zero bytes.
    let used = line.len() - line.iter().rev().take_while(|byte| **byte == 0).count();
    let words = line[..used].split(|&byte| byte == 0);
    let words: Vec<_> = words.map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    (used > 0).then_some(words)
}

// ----------------------------------------------------------------------------------------- locks

/// Whether `/proc/locks` lists the locks of all processes. It does so in the initial pid namespace.
/// In any other, it omits locks that were taken by processes outside that namespace, or by dead
/// ones (`PROC_PID_INIT_INO` in `include/linux/proc_ns.h`; `locks_show` in `fs/locks.c`). If the
/// namespace cannot be determined, the answer is no.
pub(crate) fn lists_all() -> bool {
    const FIRST: u64 = 0xEFFF_FFFC;
    namespace_of("self") == Some(FIRST)
}

/// The files among `files` that the list shows as locked by any process. `None` if the list cannot
/// be read, or may omit a lock on another of these files.
pub(crate) fn locked_in_list(files: &[FileId]) -> io::Result<Option<Vec<FileId>>> {
    let listed = listed(files, 1)?.filter(|listed| listed.is_complete);
    Ok(listed.map(|listed| listed.locks.into_iter().map(|lock| lock.file).collect()))
}

/// The processes that hold a lock on one of these files, as far as `/proc/locks` shows them.
///
/// The process is the one that took the lock or, if it died, one that inherited it. If the list
/// omits locks that dead processes took, `thorough` searches for inherited locks on the files that
/// have no listed lock. No lock is found if the file system shows another device number than
/// stat(2) returns (btrfs subvolumes, some overlays).
pub(crate) fn lock_owners(files: &[FileId], thorough: bool) -> io::Result<Vec<Owner>> {
    let listed = listed(files, 3)?;
    let is_read = listed.is_some();
    let taken = listed.into_iter().flat_map(|listed| listed.locks);
    let taken = taken.filter(|lock| lock.process != 0);
    let (mut locks, dead): (Vec<_>, Vec<_>) =
        taken.partition(|lock| is_running(lock.process) && still_has(lock));
    let mut open: Vec<_> = dead.iter().map(|lock| lock.file).collect();
    if thorough && !(is_read && lists_all()) {
        open.extend(files.iter().filter(|file| !locks.iter().any(|lock| lock.file == **file)));
    }
    if !open.is_empty() {
        locks.extend(inherited(&open));
    }
    Ok(owners(locks))
}

/// The processes whose requests wait for a lock on one of these files, in the order in which the
/// kernel lists them: it grants the requests of each file in that order. A shared request may be
/// granted earlier. A long list, which is read in pieces, may miss some, so it is read several
/// times.
pub(crate) fn lock_waiters(files: &[FileId]) -> io::Result<Vec<Owner>> {
    let mut most: Vec<Lock> = Vec::new();
    for _ in 0..READINGS {
        let Some((list, is_whole)) = kernel_locks()? else { break };
        let requests = list.lines().filter_map(waiting_flock);
        let requests = requests.filter(|lock| lock.process != 0 && files.contains(&lock.file));
        let mut waiting: Vec<Lock> = Vec::new();
        for lock in requests {
            // A line of a long list may have been read twice.
            if is_whole || !waiting.contains(&lock) {
                waiting.push(lock);
            }
        }
        if waiting.len() > most.len() {
            most = waiting;
        }
        if is_whole {
            break;
        }
    }
    let mut ordered = Vec::new();
    for lock in most {
        insert_by_key(&mut ordered, lock, |it| files.iter().position(|file| *file == it.file));
    }
    Ok(owners(ordered))
}

/// How often a long list of waiters is read.
const READINGS: u32 = 3;

/// The processes that have a lock on one of these files open, among those that this user may
/// inspect. This works on any file system, but takes a few milliseconds.
pub(crate) fn inheritors(files: &[FileId]) -> Vec<Owner> {
    owners(inherited(files))
}

fn owners(locks: Vec<Lock>) -> Vec<Owner> {
    let numbers = if locks.is_empty() { PidNamespace::Own } else { PidNamespace::of_proc() };
    locks.into_iter().map(|lock| lock.owner(numbers)).collect()
}

/// A lock as the kernel shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lock {
    file: FileId,
    is_shared: bool,
    /// The process that has the lock, by its number in `/proc`.
    process: u32,
}

impl Lock {
    fn owner(self, numbers: PidNamespace) -> Owner {
        let Self { file, is_shared, process } = self;
        Owner { file, is_shared, listed: process, pid: numbers.own(process) }
    }
}

/// The pid namespace of the numbers in `/proc`.
#[derive(Debug, Clone, Copy)]
enum PidNamespace {
    /// The numbers are those of this process's namespace.
    Own,
    /// The numbers are those of another pid namespace: this process has a separate one, for which
    /// no `/proc` is mounted. The value is the inode of this process's namespace, if it is known.
    Others(Option<u64>),
}

impl PidNamespace {
    fn of_proc() -> Self {
        if lists_own_numbers() { Self::Own } else { Self::Others(namespace_of("self")) }
    }

    /// The number of a process in `/proc` in this process's namespace, if it has one.
    fn own(self, listed: u32) -> Option<u32> {
        let Self::Others(own) = self else { return Some(listed) };
        let name = listed.to_string();
        let is_neighbour = own.is_some() && namespace_of(&name) == own;
        numbers_of(&name).pop().filter(|_| is_neighbour)
    }
}

/// The locks that the list shows for some files.
struct KernelLocks {
    locks: Vec<Lock>,
    /// Whether a file without a listed lock is not locked.
    is_complete: bool,
}

/// The locks on these files in the list, which is read up to `tries` times; `None` if it cannot be
/// read. The process is the one that took the lock.
///
/// A long list is read in several pieces. Between two of them, changes by other processes can move
/// a lock within the list, so that it is missed.
fn listed(files: &[FileId], tries: u32) -> io::Result<Option<KernelLocks>> {
    let mut found: Vec<Lock> = Vec::new();
    let mut is_complete = files.is_empty();
    for _ in 0..tries {
        if is_complete {
            break;
        }
        let Some((locks, is_whole)) = kernel_locks()? else { return Ok(None) };
        for lock in locks.lines().filter_map(flock).filter(|lock| files.contains(&lock.file)) {
            if !found.contains(&lock) {
                found.push(lock);
            }
        }
        is_complete =
            is_whole || files.iter().all(|file| found.iter().any(|lock| lock.file == *file));
    }
    Ok(Some(KernelLocks { locks: found, is_complete }))
}

/// The processes that have a lock on one of these files that another process took, found by the
/// `lock:` lines in `/proc/PID/fdinfo/N` of the processes that this user may inspect. If several
/// have the same lock, the one with the lowest number is returned.
fn inherited(files: &[FileId]) -> Vec<Lock> {
    let mut pids: Vec<u32> = numbers("/proc").collect();
    pids.sort_unstable();
    let mut found: Vec<(u32, Lock)> = Vec::new();
    for pid in pids {
        for lock in locks_held_by(pid, files) {
            let taker = lock.process;
            if found.iter().all(|(other, had)| *other != taker || had.file != lock.file) {
                found.push((taker, Lock { process: pid, ..lock }));
            }
        }
    }
    found.into_iter().map(|(_, lock)| lock).collect()
}

/// The locks on these files that a process has open, each with the process that took it.
fn locks_held_by(pid: u32, files: &[FileId]) -> Vec<Lock> {
    let mut found = Vec::new();
    for descriptor in numbers(&format!("/proc/{pid}/fdinfo")) {
        let Some(file) = file_of(pid, descriptor).filter(|file| files.contains(file)) else {
            continue;
        };
        let info = fs::read(format!("/proc/{pid}/fdinfo/{descriptor}")).unwrap_or_default();
        let info = String::from_utf8_lossy(&info);
        let locks = info.lines().filter_map(|line| line.strip_prefix("lock:").and_then(flock));
        found.extend(locks.map(|lock| Lock { file, ..lock }));
    }
    found
}

/// Whether a process, whose number belongs to the calling process's namespace, has one file open,
/// and another one for writing. `false` for a process that this user may not inspect. A process
/// that ends shows no open files from before the first of them is closed (`exit_files` in Linux's
/// `kernel/exit.c`).
pub(crate) fn has_open(process: &Process, file: FileId, written: FileId) -> bool {
    let Process { pid, started: Some(then), .. } = *process else { return false };
    if started(pid) != Some(then) || !lists_own_numbers() {
        return false;
    }
    // The mode of the link is that of the descriptor.
    let is_writable = |descriptor: u32| {
        let link = fs::symlink_metadata(format!("/proc/{pid}/fd/{descriptor}"));
        link.is_ok_and(|link| link.mode() & 0o200 != 0)
    };
    let (mut has_file, mut has_written) = (false, false);
    for descriptor in numbers(&format!("/proc/{pid}/fd")) {
        let found = file_of(pid, descriptor);
        has_file |= found == Some(file);
        has_written |= found == Some(written) && is_writable(descriptor);
    }
    has_file && has_written
}

/// The entries of a directory that are numbers.
fn numbers(directory: &str) -> impl Iterator<Item = u32> + use<> {
    let entries = super::super::read_dir(directory.as_ref()).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The identity of the file of another process's descriptor, by its path. Reading `fdinfo` holds
/// the file open for a moment, in which a close by its owner would release nothing, so only files
/// of interest are read. `AT_STATX_DONT_SYNC` asks no server, which may be gone.
fn file_of(pid: u32, descriptor: u32) -> Option<FileId> {
    use rustix::fs::{AtFlags, CWD, StatxFlags, makedev, statx};
    /// `AT_STATX_DONT_SYNC` (`linux/fcntl.h`), which rustix does not name on Android.
    const FROM_MEMORY: AtFlags = AtFlags::from_bits_retain(0x4000);
    let path = format!("/proc/{pid}/fd/{descriptor}");
    let found = statx(CWD, path, FROM_MEMORY, StatxFlags::INO).ok()?;
    let device = makedev(found.stx_dev_major, found.stx_dev_minor);
    Some(FileId { device, inode: found.stx_ino })
}

/// Whether the process that took the lock still has it: this process may have left its lock to
/// children that inherited it. (Other processes are not checked, since inspecting their descriptors
/// holds the files open for a moment.)
fn still_has(lock: &Lock) -> bool {
    self_number() != Some(lock.process) || !locks_held_by(lock.process, &[lock.file]).is_empty()
}

/// Reads `/proc/locks`, and returns whether that is the whole list as it was at one moment. `None`
/// if the file does not exist, or this user may not read it.
///
/// Each read blocks all locking on the machine for a moment (`locks_start` in `fs/locks.c`), and
/// returns as many lines as fit into the buffer, up to a page: so the buffer is large.
/// `fs::read_to_string` starts with a read of 32 bytes.
///
/// A second read that returns nothing does not prove that the first one returned everything: the
/// list may have become shorter in between. A piece that fills at most half a page ended with the
/// list, since another lock would have fitted (even with some 30 processes that wait for it).
fn kernel_locks() -> io::Result<Option<(String, bool)>> {
    use io::ErrorKind;
    const HALF_A_PAGE: usize = 2048;
    let mut file = match fs::File::open("/proc/locks") {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {
            return Ok(None);
        }
        opened => opened?,
    };
    let (mut bytes, mut pieces) = (Vec::new(), 0);
    let mut page = vec![0; 64 * 1024];
    loop {
        match super::super::retry_eintr(|| io::Read::read(&mut file, &mut page))? {
            0 => {
                let is_whole = pieces <= 1 && bytes.len() <= HALF_A_PAGE;
                return Ok(Some((String::from_utf8_lossy(&bytes).into_owned(), is_whole)));
            }
            read => bytes.extend_from_slice(&page[..read]),
        }
        pieces += 1;
    }
}

/// A lock in a line such as `7: FLOCK  ADVISORY  WRITE 4242 08:01:1337 0 EOF`, with the process
/// that took it. In `fdinfo` the process is 0 if it has no number in `/proc`.
fn flock(line: &str) -> Option<Lock> {
    lock_in(line.split_ascii_whitespace().skip(1))
}

/// A waiting request, in a line with `->` as its second word: the holder's line is above it.
fn waiting_flock(line: &str) -> Option<Lock> {
    let mut words = line.split_ascii_whitespace().skip(1);
    if words.next() != Some("->") {
        return None;
    }
    lock_in(words)
}

fn lock_in<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<Lock> {
    if words.next() != Some("FLOCK") {
        return None;
    }
    let is_shared = words.nth(1)? == "READ";
    let process: u32 = words.next()?.parse().ok()?;
    let mut id = words.next()?.split(':');
    let major = u32::from_str_radix(id.next()?, 16).ok()?;
    let minor = u32::from_str_radix(id.next()?, 16).ok()?;
    let inode: u64 = id.next()?.parse().ok()?;
    let device = rustix::fs::makedev(major, minor);
    Some(Lock { file: FileId { device, inode }, is_shared, process })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq};

    use super::*;

    #[test]
    fn lines_of_proc_locks_are_parsed_and_others_are_ignored() {
        limit!();
        let id = FileId { device: rustix::fs::makedev(0xfe, 1), inode: 77 };
        let owner = |line| flock(line).filter(|lock| lock.file == id).map(|lock| lock.process);
        let shares = |line| flock(line).unwrap().is_shared;
        assert!(shares("1: FLOCK  ADVISORY  READ 4242 fe:01:77 0 EOF"));
        assert!(!shares("1: FLOCK  ADVISORY  WRITE 4242 fe:01:77 0 EOF"));
        assert_eq!(owner("1: FLOCK  ADVISORY  WRITE 4242 fe:01:77 0 EOF"), Some(4242));
        assert_eq!(owner("1: FLOCK  ADVISORY  READ 4242 fe:01:77 0 EOF"), Some(4242));
        let waiting = "1:  -> FLOCK  ADVISORY  WRITE 4242 fe:01:77 0 EOF";
        assert_eq!(owner(waiting), None);
        assert_eq!(
            waiting_flock(waiting),
            Some(Lock { file: id, is_shared: false, process: 4242 })
        );
        assert_eq!(waiting_flock("1: FLOCK  ADVISORY  WRITE 4242 fe:01:77 0 EOF"), None);
        assert_eq!(waiting_flock("1: -> POSIX  ADVISORY  WRITE 4242 fe:01:77 0 EOF"), None);
        assert_eq!(owner("1: POSIX  ADVISORY  WRITE 4242 fe:01:77 0 EOF"), None);
        assert_eq!(owner("1: FLOCK  ADVISORY  WRITE 4242 fe:02:77 0 EOF"), None);
        assert_eq!(owner("1: FLOCK  ADVISORY  WRITE 0 fe:01:77 0 EOF"), Some(0));
        for nonsense in ["", "1:", "1: FLOCK", "1: FLOCK A W x fe:01:77", "1: FLOCK A W 1 fe"] {
            assert_eq!(owner(nonsense), None, "{nonsense:?}");
        }
    }

    proptest::proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

        /// The lines are as `fs/locks.c` writes them, in the list and (after `lock:` and a tab) in
        /// `fdinfo`.
        #[test]
        fn any_line_of_the_kernel_is_parsed_correctly(
            number in any::<u64>(),
            kind in "FLOCK |POSIX |OFDLCK|LEASE |ACCESS",
            mode in "READ |WRITE|UNLCK|RW   |NONE ",
            owner in -1..=i32::MAX,
            (major, minor, inode) in (0..4096_u32, 0..1_048_576_u32, any::<u64>()),
            waits in any::<bool>(),
        ) {
            limit!();
            let arrow = if waits { "-> " } else { "" };
            let line = format!("{number}: {arrow}{kind} ADVISORY  {mode} {owner} {major:02x}:{minor:02x}:{inode} 0 EOF");
            let file = FileId { device: rustix::fs::makedev(major, minor), inode };
            let pid = u32::try_from(owner).ok().filter(|_| kind == "FLOCK ");
            let known = pid.map(|process| Lock { file, process, is_shared: mode == "READ " });
            prop_assert_eq!(waiting_flock(&line), known.filter(|_| waits));
            let wanted = known.filter(|_| !waits);
            prop_assert_eq!(flock(&line), wanted);
            let info = format!("lock:\t{line}");
            prop_assert_eq!(info.strip_prefix("lock:").and_then(flock), wanted);
            // A truncated line is no lock, unless it has all the values that are needed.
            for cut in 0..line.len() {
                let part = flock(&line[..cut]);
                prop_assert!(part.is_none() || part.map(|lock| lock.file.device) == Some(file.device));
            }
        }

        #[test]
        fn invalid_lines_are_ignored(text in any::<String>(), words in "([0-9]+: )?(-> )?(FLOCK|x)?[ 0-9a-fxFL:OCK-]{0,60}") {
            limit!();
            let _ = (flock(&text), flock(&words));
        }
    }
}
