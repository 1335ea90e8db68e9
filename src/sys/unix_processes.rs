//! Unix: which process this is, and what the system tells of others (`/proc` on Linux).
//! May name rustix, forkguard, the file of Unix beside this one and std.

use std::fs;
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::os::unix::fs::MetadataExt as _;

use super::super::Owner;
use super::FileId;

/// A mark of the process in which it was made. `fork` copies handles and guards, and both copies then
/// share the open file descriptions and so the locks: the copy must neither free nor use them (rule 4).
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    /// Counts forks by `pthread_atfork(3)`, so a look costs a load. Not told of a bare clone(2).
    Counted(forkguard::atfork::Guard),
    /// Where no handler could be registered (no memory): asks the kernel each time.
    Asked(u32),
}

impl Origin {
    pub(crate) fn here() -> Self {
        match forkguard::atfork::Guard::try_new() {
            Ok(guard) => Self::Counted(guard),
            Err(_) => Self::Asked(std::process::id()),
        }
    }

    pub(crate) fn is_here(&self) -> bool {
        match self {
            Self::Counted(guard) => !guard.clone().detected_fork(),
            Self::Asked(id) => *id == std::process::id(),
        }
    }
}

/// Linux reads `CLOCK_MONOTONIC_COARSE` in a quarter of the time of the exact clock: `clock_gettime(2)`.
pub(crate) fn coarse_milliseconds() -> u64 {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
        #[allow(
            clippy::cast_sign_loss,
            clippy::cast_lossless,
            reason = "time since boot, a c_long"
        )]
        {
            now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
        }
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    super::super::milliseconds()
}

pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The processes that hold a lock on one of these files, as far as the system tells: on Linux by
/// `/proc/locks` (proc(5)); elsewhere it does not.
///
/// The process is the one that took the lock; or, should it have died, one that has inherited it. Within a namespace
/// of processes the list does not show what a dead one took, so with `thorough` it is looked for what is inherited
/// where nothing is listed. Nothing is listed where the file system shows another device number than stat(2) does
/// (btrfs subvolumes, overlayfs).
pub(crate) fn lock_owners(files: &[FileId], thorough: bool) -> std::io::Result<Vec<Owner>> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if !files.is_empty() {
        let mut owners = Vec::new();
        // A lock that others' locks move within the list between two reads can be passed over; so what was
        // not seen is looked for once more.
        for _ in 0..3 {
            let locks = kernel_locks()?;
            let listed = locks.lines().filter_map(flock_owner);
            owners.extend(listed.filter(|owner| files.contains(&owner.file)));
            if !owners.is_empty() {
                break;
            }
        }
        let (alive, dead): (Vec<_>, Vec<_>) =
            owners.into_iter().partition(|owner| is_running(owner.pid) && still_has(owner));
        owners = alive;
        let mut open: Vec<_> = dead.iter().map(|owner| owner.file).collect();
        if thorough && !lists_dead_takers() {
            open.extend(files.iter().filter(|file| !owners.iter().any(|o| o.file == **file)));
        }
        if !open.is_empty() {
            owners.extend(inheritors(&open));
        }
        return Ok(owners);
    }
    let _ = (files, thorough);
    Ok(Vec::new())
}

/// Who has a lock on one of these files that another process took: `lock:` lines in `/proc/PID/fdinfo/N` (proc(5)), of the
/// processes that this one may look at. Of several that have one lock the eldest, by its number.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn inheritors(files: &[FileId]) -> Vec<Owner> {
    let mut pids: Vec<u32> = numbers("/proc").collect();
    pids.sort_unstable();
    let mut found: Vec<(u32, Owner)> = Vec::new();
    for pid in pids {
        for (taker, lock) in locks_had_by(pid, files) {
            let is_new = |(other, owner): &(u32, Owner)| *other != taker || owner.file != lock.file;
            if found.iter().all(is_new) {
                found.push((taker, lock));
            }
        }
    }
    found.into_iter().map(|(_, owner)| owner).collect()
}

/// The locks on these files that a process has, each with who took it.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn locks_had_by(pid: u32, files: &[FileId]) -> Vec<(u32, Owner)> {
    let mut found = Vec::new();
    for descriptor in numbers(&format!("/proc/{pid}/fdinfo")) {
        let Some(file) = file_of(pid, descriptor).filter(|file| files.contains(file)) else {
            continue;
        };
        let info = fs::read(format!("/proc/{pid}/fdinfo/{descriptor}")).unwrap_or_default();
        let info = String::from_utf8_lossy(&info);
        let locks = info.lines().filter_map(|line| line.strip_prefix("lock:").and_then(flock));
        found.extend(locks.map(|(taker, lock)| (taker, Owner { file, pid, ..lock })));
    }
    found
}

/// The entries of a directory that are numbers.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn numbers(directory: &str) -> impl Iterator<Item = u32> + use<> {
    let entries = super::super::read_dir(directory.as_ref()).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Which file a descriptor of a process is, by its path: to read in `fdinfo` has it open for a moment, and a close by its
/// owner would free nothing meanwhile. Asks no server for it, which may be gone.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn file_of(pid: u32, descriptor: u32) -> Option<FileId> {
    use rustix::fs::{AtFlags, CWD, StatxFlags, makedev, statx};
    /// `AT_STATX_DONT_SYNC` (`linux/fcntl.h`), which rustix does not name on Android.
    const FROM_MEMORY: AtFlags = AtFlags::from_bits_retain(0x4000);
    let path = format!("/proc/{pid}/fd/{descriptor}");
    let found = statx(CWD, path, FROM_MEMORY, StatxFlags::INO).ok()?;
    let device = makedev(found.stx_dev_major, found.stx_dev_minor);
    Some(FileId { device, inode: found.stx_ino })
}

/// Whether it has it still: this process may have left what it took to those who inherited it. (Of others it is not asked: a look
/// into their descriptors has them open for a moment.)
#[cfg(any(target_os = "linux", target_os = "android"))]
fn still_has(owner: &Owner) -> bool {
    owner.pid != std::process::id() || !locks_had_by(owner.pid, &[owner.file]).is_empty()
}

/// Whether the list shows what dead processes took: it does where numbers of processes mean what the kernel means by them,
/// in the first of all namespaces (`PROC_PID_INIT_INO` in `include/linux/proc_ns.h`).
#[cfg(any(target_os = "linux", target_os = "android"))]
fn lists_dead_takers() -> bool {
    const FIRST: u64 = 0xEFFF_FFFC;
    fs::metadata("/proc/self/ns/pid").is_ok_and(|namespace| namespace.ino() == FIRST)
}

/// Whether there is such a process, and not just what is left of a dead one until its parent asks. Linux only.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn is_running(pid: u32) -> bool {
    match state_of(pid) {
        Ok(state) => !matches!(state, Some(b'Z' | b'X')),
        // Hidden from this user (the mount option `hidepid`), perhaps.
        Err(error) => error.kind() != std::io::ErrorKind::NotFound || hides_processes(),
    }
}

/// Whether this user cannot see the processes of others, the first of all among them.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn hides_processes() -> bool {
    !std::path::Path::new("/proc/1/stat").exists()
}

/// The state of a process, a letter (proc(5)): its second word is the program's name in parentheses, which may hold some itself.
fn state_of(pid: u32) -> std::io::Result<Option<u8>> {
    let stat = fs::read(format!("/proc/{pid}/stat"))?;
    let end = stat.iter().rposition(|byte| *byte == b')');
    Ok(end.and_then(|end| stat.get(end + 2)).copied())
}

/// `/proc/locks`, in as few reads as can be: the kernel makes as many lines as a read has room for (up to
/// a page), and finds its place in the list anew for the next. `fs::read_to_string` begins with a read of
/// 32 bytes. Nothing where there is none, or this user may not read it.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn kernel_locks() -> std::io::Result<String> {
    use std::io::ErrorKind;
    let mut file = match fs::File::open("/proc/locks") {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {
            return Ok(String::new());
        }
        opened => opened?,
    };
    let mut bytes = Vec::new();
    let mut page = vec![0; 64 * 1024];
    loop {
        match super::super::through_signals(|| std::io::Read::read(&mut file, &mut page))? {
            0 => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
            read => bytes.extend_from_slice(&page[..read]),
        }
    }
}

/// The file and the owner in a line of `/proc/locks` such as `7: FLOCK  ADVISORY  WRITE 4242 08:01:1337 0 EOF`.
/// A waiting request has `->` as its second word. The owner is 0 where it cannot be seen from this
/// process's namespace.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn flock_owner(line: &str) -> Option<Owner> {
    let (owner, lock) = flock(line)?;
    (owner != 0).then_some(lock)
}

/// The same, with the owner as it stands there.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn flock(line: &str) -> Option<(u32, Owner)> {
    let mut words = line.split_ascii_whitespace().skip(1);
    if words.next() != Some("FLOCK") {
        return None;
    }
    let is_shared = words.nth(1)? == "READ";
    let owner: u32 = words.next()?.parse().ok()?;
    let mut id = words.next()?.split(':');
    let major = u32::from_str_radix(id.next()?, 16).ok()?;
    let minor = u32::from_str_radix(id.next()?, 16).ok()?;
    let inode: u64 = id.next()?.parse().ok()?;
    let device = rustix::fs::makedev(major, minor);
    let file = FileId { device, inode };
    Some((owner, Owner { file, pid: owner, is_shared }))
}

/// Whether a process was stopped by a signal or a debugger. Linux only.
pub(crate) fn is_stopped(pid: u32) -> bool {
    matches!(state_of(pid), Ok(Some(b'T' | b't')))
}

/// The command line of a process, its words joined by spaces. Linux only.
pub(crate) fn command_of(pid: u32) -> Option<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<_> = line
        .split(|&byte| byte == 0)
        .filter(|word| !word.is_empty())
        .map(String::from_utf8_lossy)
        .collect();
    (!words.is_empty()).then(|| words.join(" "))
}

// Linux only: reads lines of `/proc/locks`.
#[cfg(all(test, any(target_os = "linux", target_os = "android")))]
mod tests {
    use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq};

    use super::*;

    #[test]
    fn proc_locks_lines_are_read_and_nonsense_is_passed_over() {
        let id = FileId { device: rustix::fs::makedev(0xfe, 1), inode: 77 };
        let owner =
            |line| flock_owner(line).filter(|owner| owner.file == id).map(|owner| owner.pid);
        let shares = |line| flock_owner(line).unwrap().is_shared;
        assert!(shares("1: FLOCK  ADVISORY  READ 4242 fe:01:77 0 EOF"));
        assert!(!shares("1: FLOCK  ADVISORY  WRITE 4242 fe:01:77 0 EOF"));
        assert_eq!(owner("1: FLOCK  ADVISORY  WRITE 4242 fe:01:77 0 EOF"), Some(4242));
        assert_eq!(owner("1: FLOCK  ADVISORY  READ 4242 fe:01:77 0 EOF"), Some(4242));
        assert_eq!(owner("1: -> FLOCK  ADVISORY  WRITE 4242 fe:01:77 0 EOF"), None);
        assert_eq!(owner("1: POSIX  ADVISORY  WRITE 4242 fe:01:77 0 EOF"), None);
        assert_eq!(owner("1: FLOCK  ADVISORY  WRITE 4242 fe:02:77 0 EOF"), None);
        assert_eq!(owner("1: FLOCK  ADVISORY  WRITE 0 fe:01:77 0 EOF"), None);
        for nonsense in ["", "1:", "1: FLOCK", "1: FLOCK A W x fe:01:77", "1: FLOCK A W 1 fe"] {
            assert_eq!(owner(nonsense), None, "{nonsense:?}");
        }
    }

    proptest::proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

        /// As `fs/locks.c` writes them, in the list and (after `lock:` and a tab) in `fdinfo`.
        #[test]
        fn any_line_of_the_kernels_is_read_as_it_was_meant(
            number in any::<u64>(),
            kind in "FLOCK |POSIX |OFDLCK|LEASE |ACCESS",
            mode in "READ |WRITE|UNLCK|RW   |NONE ",
            owner in -1..=i32::MAX,
            (major, minor, inode) in (0..4096_u32, 0..1_048_576_u32, any::<u64>()),
            waits in any::<bool>(),
        ) {
            let arrow = if waits { "-> " } else { "" };
            let line = format!("{number}: {arrow}{kind} ADVISORY  {mode} {owner} {major:02x}:{minor:02x}:{inode} 0 EOF");
            let file = FileId { device: rustix::fs::makedev(major, minor), inode };
            let pid = u32::try_from(owner).ok().filter(|_| kind == "FLOCK " && !waits);
            let wanted = pid.map(|pid| (pid, Owner { file, pid, is_shared: mode == "READ " }));
            prop_assert_eq!(flock(&line), wanted);
            prop_assert_eq!(flock_owner(&line), wanted.filter(|(pid, _)| *pid != 0).map(|(_, lock)| lock));
            let info = format!("lock:\t{line}");
            prop_assert_eq!(info.strip_prefix("lock:").and_then(flock), wanted);
            // Half of it is nobody's, unless all that counts is there.
            for cut in 0..line.len() {
                let part = flock(&line[..cut]);
                prop_assert!(part.is_none() || part.map(|(_, lock)| lock.file.device) == Some(file.device));
            }
        }

        #[test]
        fn nonsense_is_passed_over(text in any::<String>(), words in "([0-9]+: )?(-> )?(FLOCK|x)?[ 0-9a-fxFL:OCK-]{0,60}") {
            let _ = (flock_owner(&text), flock_owner(&words));
        }
    }
}
