//! Linux: what the mount table (`/proc/self/mountinfo`, proc(5)) says about the file system of a
//! file: whether a FUSE is local, and whether locks reach the server of a network file system.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{fstat, major, minor};

use crate::sorted_map::SortedMap;
use crate::sys::RemoteLocks;

/// FUSE file systems whose files are only on this host, and that leave locks to the kernel. Any
/// other FUSE counts as a network file system.
const LOCAL_FUSE: &[&str] = &[
    "fuseblk",
    "fuse.bindfs",
    "fuse.cryfs",
    "fuse.encfs",
    "fuse.fuse-overlayfs",
    "fuse.gocryptfs",
    "fuse.mergerfs",
    "fuse.ntfs-3g",
    "fuse.securefs",
    "fuse.unionfs",
];

/// FUSE file systems that forward locks to a server, unless an option of the mount forbids it,
/// which the kernel does not show.
const FORWARDING_FUSE: &[&str] = &["fuse.ceph-fuse", "fuse.glusterfs", "fuse.juicefs", "fuse.mfs"];

/// The beginning of the source of a `MooseFS` mount, whose type is plain `fuse`. The mount table
/// escapes the number sign.
const MOOSEFS: &str = r"mfs\043";

/// Other file systems of which a blocked request for a lock was seen to be granted within
/// milliseconds of the release. `NFSv4.0` is not one of them: its clients try again after a pause
/// of up to 30 seconds (`nfs4_retry_setlk_simple` in Linux's `fs/nfs/nfs4proc.c`), and later
/// versions are notified (`nfs4_retry_setlk`, `CB_NOTIFY_LOCK`).
const PROMPT: &[&str] = &["ceph", "cifs", "smb3"];
const PROMPT_NFS: &[&str] = &["vers=4.1", "vers=4.2"];

/// A FUSE client that does not answer for 42 seconds if two blocked requests are interrupted at the
/// same moment, for example because both processes are killed (seen with `GlusterFS` 10.3 and
/// flock(1) in 2 of 2 series of at most 12 trials; with one request it was not seen).
const ONE_BLOCKED: &str = "fuse.glusterfs";

/// The options with which a mount keeps locks to this host, by its type without a version.
const LOCAL_LOCKS: &[(&str, &[&str])] = &[
    ("nfs", &["nolock", "local_lock=flock", "local_lock=all"]),
    ("cifs", &["nobrl"]),
    ("smb3", &["nobrl"]),
    ("lustre", &["localflock"]),
    ("ocfs2", &["localflocks"]),
    ("gfs2", &["localflocks"]),
    ("afs", &["flock=local"]),
];

/// The types of network file systems, and of one that mounts others when a path is used. A FUSE
/// counts as one unless its type is that of a local one.
const NETWORK_TYPES: &[&str] = &[
    "9p", "acfs", "afs", "autofs", "beegfs", "ceph", "cifs", "coda", "fuse", "gfs2", "gpfs",
    "ibrix", "kafs", "lustre", "ncpfs", "nfs", "ocfs2", "panfs", "prl_fs", "smb3", "smbfs", "snfs",
    "vboxsf", "virtiofs", "vmhgfs", "vxfs",
];

/// Where file systems are mounted, if one of them is a network file system.
#[derive(Debug)]
pub(crate) struct NetworkMounts {
    /// Each mount point, and whether what is mounted there last is a network file system.
    mounts: SortedMap<PathBuf, bool>,
}

impl NetworkMounts {
    /// Asks only the kernel of this host.
    pub(crate) fn read() -> Option<Self> {
        Self::of(&table()?)
    }

    fn of(table: &str) -> Option<Self> {
        let (mut mounts, mut has_one) = (SortedMap::new(), false);
        for line in table.lines() {
            let Some((mount, file_system)) = line.split_once(" - ") else { continue };
            let (Some(point), Some(kind)) =
                (mount.split(' ').nth(4).map(unescaped), file_system.split(' ').next())
            else {
                continue;
            };
            let is_fuse = kind.starts_with("fuse.") && !LOCAL_FUSE.contains(&kind);
            let kind = kind.strip_suffix('4').unwrap_or(kind); // NFSv4 has its own type
            let is_network = is_fuse || NETWORK_TYPES.contains(&kind);
            // Many systems have some that no lock is on.
            let is_of_system = ["/proc", "/sys", "/dev"].iter().any(|it| point.starts_with(it));
            has_one |= is_network && !is_of_system;
            mounts.insert(point, is_network);
        }
        has_one.then_some(Self { mounts })
    }

    /// Whether a path, or a symbolic link in it, leads to a network file system. Nothing is
    /// examined that is on one.
    pub(crate) fn has(&self, path: &Path) -> bool {
        const MAX_LINKS: u32 = 40;
        let Ok(path) = std::path::absolute(path) else { return false };
        let mut links = 0;
        let mut rest: Vec<OsString> = components(&path);
        let mut reached = PathBuf::from("/");
        if self.mounts.get(&reached).is_some_and(|is_network| *is_network) {
            return true;
        }
        while let Some(name) = rest.pop() {
            if name == ".." {
                reached.pop();
                continue;
            }
            reached.push(name);
            if self.mounts.get(&reached).is_some_and(|is_network| *is_network) {
                return true;
            }
            if let Ok(target) = fs::read_link(&reached) {
                links += 1;
                if links > MAX_LINKS {
                    return false;
                }
                reached.pop();
                if target.is_absolute() {
                    reached = PathBuf::from("/");
                }
                rest.extend(components(&target));
            }
        }
        false
    }
}

/// The names of a path, the last one first.
fn components(path: &Path) -> Vec<OsString> {
    let name = |component| match component {
        Component::Normal(name) => Some(name.to_os_string()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().rev().filter_map(name).collect()
}

/// A path in the mount table, which has blanks and backslashes as three octal digits.
fn unescaped(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let digits = after.get(..3).filter(|_| *first == b'\\');
        let code = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(code) = code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            bytes.push(code);
            rest = &after[3..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    OsString::from_vec(bytes).into()
}

/// A line of the mount table.
#[derive(Debug, PartialEq, Eq)]
struct Mount<'a> {
    kind: &'a str,
    source: &'a str,
    /// The options of the file system.
    options: &'a str,
}

impl<'a> Mount<'a> {
    /// The mount of the file system with this device number. All mounts of one file system have the
    /// same type, source and options.
    fn of_device(table: &'a str, device: u64) -> Option<Self> {
        let wanted = format!("{}:{}", major(device), minor(device));
        table.lines().find_map(|line| {
            let (mount, file_system) = line.split_once(" - ")?;
            let mut words = file_system.split(' ');
            let is_wanted = mount.split(' ').nth(2)? == wanted;
            let mount = Self {
                kind: words.next()?,
                source: words.next()?,
                options: words.next().unwrap_or_default(),
            };
            is_wanted.then_some(mount)
        })
    }

    fn is_local_fuse(&self) -> bool {
        LOCAL_FUSE.contains(&self.kind)
    }

    fn forwards_locks(&self) -> bool {
        FORWARDING_FUSE.contains(&self.kind)
            || self.kind == "fuse" && self.source.starts_with(MOOSEFS)
    }

    fn grants_promptly(&self) -> bool {
        self.forwards_locks()
            || PROMPT.contains(&self.kind)
            || self.kind.strip_suffix('4') == Some("nfs") && self.has_option(PROMPT_NFS).is_some()
    }

    /// The option that keeps locks to this host.
    fn local_locks(&self) -> Option<&'static str> {
        let kind = self.kind.strip_suffix('4').unwrap_or(self.kind); // NFSv4 has its own type
        let (_, options) = LOCAL_LOCKS.iter().find(|(known, _)| *known == kind)?;
        self.has_option(options)
    }

    /// The first of these options that the mount has.
    fn has_option(&self, options: &[&'static str]) -> Option<&'static str> {
        options.iter().copied().find(|option| self.options.split(',').any(|has| has == *option))
    }
}

/// The mount table. It is read when a lock file is opened, and only on a network file system or a
/// FUSE.
fn table() -> Option<String> {
    fs::read("/proc/self/mountinfo").ok().map(|it| String::from_utf8_lossy(&it).into_owned())
}

/// Whether the FUSE file system with this device number is known to be local.
pub(super) fn is_local_fuse(device: u64) -> bool {
    table().is_some_and(|table| {
        Mount::of_device(&table, device).is_some_and(|mount| mount.is_local_fuse())
    })
}

/// Fails if the mount keeps locks to this host.
pub(crate) fn check_mount(file: &File) -> io::Result<RemoteLocks> {
    let table = table().unwrap_or_default();
    let found = Mount::of_device(&table, fstat(file)?.st_dev);
    match found.as_ref().and_then(Mount::local_locks) {
        Some(option) => Err(super::super::explained(
            io::ErrorKind::Unsupported,
            format!("it is mounted with `{option}`, so its locks exclude no other host"),
            "mount it without this option, or choose a path on a local file system",
        )),
        None => Ok(RemoteLocks {
            is_unchecked: found.as_ref().is_some_and(Mount::forwards_locks),
            are_prompt: found.as_ref().is_some_and(Mount::grants_promptly),
            is_one_blocked: found.is_some_and(|mount| mount.kind == ONE_BLOCKED),
        }),
    }
}

/// Fails if the kernel itself has the lock of this locked file: the file system has not forwarded
/// it. A FUSE that forwards locks leaves none in the kernel (`fuse_setlk` and `fuse_file_flock` in
/// Linux's `fs/fuse/file.c`), and the kernel lists its own in `fdinfo`.
pub(crate) fn check_forwarded(file: &File) -> io::Result<()> {
    let info = format!("/proc/self/fdinfo/{}", file.as_fd().as_raw_fd());
    let info = fs::read_to_string(info).unwrap_or_default();
    if !info.lines().any(|line| line.starts_with("lock:") && line.contains("FLOCK")) {
        return Ok(());
    }
    Err(super::super::explained(
        io::ErrorKind::Unsupported,
        "it is mounted without locks on its server, so they exclude no other host",
        "mount it with locks (MooseFS: without `mfsnobsdlocks`), or choose a path on a local file \
         system",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = r"21 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda rw
25 16 0:22 / /mnt/a rw,relatime - nfs4 10.0.0.1:/ rw,vers=4.2,hard,local_lock=none,addr=10.0.0.1
26 16 0:23 / /mnt/b rw,relatime shared:7 master:1 - nfs4 10.0.0.1:/ rw,vers=4.2,local_lock=flock
27 16 0:24 / /mnt/c rw - nfs 10.0.0.1:/x rw,vers=3,nolock,local_lock=all
28 16 0:25 / /mnt/d rw - nfs 10.0.0.1:/x rw,vers=3,local_lock=posix
55 27 0:41 / /mnt/e rw,nosuid - fuse mfs\04310.0.0.1:9421 rw,user_id=0,allow_other
56 27 0:42 / /mnt/f\040g rw - fuse.glusterfs 10.0.0.1:shv rw
57 27 0:43 / /mnt/h rw - fuse.gocryptfs /home/x rw
58 27 0:44 / /mnt/i rw - fuseblk /dev/sdb1 rw
59 27 0:45 / /mnt/j rw - fuse.sshfs host: rw
60 27 0:46 / /mnt/k rw - cifs //host/x rw,vers=3.1.1,nobrl
61 27 0:47 / /mnt/l rw - fuse something rw
";

    fn mount(minor: u32) -> Mount<'static> {
        Mount::of_device(TABLE, rustix::fs::makedev(0, minor)).unwrap()
    }

    #[test]
    fn a_mount_with_local_locks_is_found_by_its_options() {
        limit!();
        let options = [22, 23, 24, 25, 41, 42, 46].map(|minor| mount(minor).local_locks());
        let wanted =
            [None, Some("local_lock=flock"), Some("nolock"), None, None, None, Some("nobrl")];
        assert_eq!(options, wanted);
        assert_eq!(Mount::of_device(TABLE, rustix::fs::makedev(254, 1)).unwrap().kind, "ext4");
        assert_eq!(Mount::of_device(TABLE, rustix::fs::makedev(254, 2)), None);
        for cut in 0..TABLE.len() {
            let _ = Mount::of_device(&TABLE[..cut], rustix::fs::makedev(0, 46));
        }
    }

    #[test]
    fn an_unknown_fuse_counts_as_a_network_file_system() {
        limit!();
        let local = [41, 42, 43, 44, 45, 47].map(|minor| mount(minor).is_local_fuse());
        assert_eq!(local, [false, false, true, true, false, false]);
        let prompt = [22, 24, 25, 41, 42, 45, 46].map(|minor| mount(minor).grants_promptly());
        assert_eq!(prompt, [true, false, false, true, true, false, true]);
        let forwarding = [41, 42, 43, 44, 45, 47].map(|minor| mount(minor).forwards_locks());
        assert_eq!(forwarding, [true, true, false, false, false, false]);
    }

    #[test]
    fn a_path_leads_to_the_mount_that_is_nearest() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(dir.join("local/remote/over")).unwrap();
        for (link, target) in [("link", "local/remote"), ("local/up", "../local/remote/x")] {
            std::os::unix::fs::symlink(target, dir.join(link)).unwrap();
        }
        std::os::unix::fs::symlink("loop", dir.join("loop")).unwrap();
        let root = dir.display();
        let table = format!(
            "21 1 254:1 / / rw - ext4 /dev/vda rw\n22 21 0:30 / {root}/local/remote rw - nfs4 a:/ rw\n\
             23 22 0:31 / {root}/local/remote/over rw - tmpfs tmpfs rw\n\
             24 21 0:32 / {root}/a\\040b rw shared:1 - fuse.sshfs a: rw\n"
        );
        let mounts = NetworkMounts::of(&table).unwrap();
        // The way to a local file system below leads through the network file system.
        let remote = ["local/remote", "local/remote/over/x", "link", "link/x", "local/up", "a b/c"];
        assert_eq!(remote.map(|path| mounts.has(&dir.join(path))), [true; 6]);
        let local = ["", "local", "local/remotely", "loop/x", "a", "link2"];
        assert_eq!(local.map(|path| mounts.has(&dir.join(path))), [false; 6]);
        assert!(mounts.has(&dir.join("x/../local/remote/x")));
        let hidden = format!("{table}25 22 0:33 / {root}/local/remote rw - tmpfs tmpfs rw\n");
        assert!(!NetworkMounts::of(&hidden).unwrap().has(&dir.join("link/x")));
        assert!(NetworkMounts::of("21 1 254:1 / / rw - ext4 /dev/vda rw\n").is_none());
    }

    /// A FUSE that forwards locks has none in the kernel; this file system is local.
    #[test]
    fn a_lock_that_only_the_kernel_has_is_recognized() {
        limit!();
        let file = tempfile::tempfile().unwrap();
        assert_eq!(check_mount(&file).unwrap(), RemoteLocks::default());
        check_forwarded(&file).unwrap();
        assert!(crate::sys::try_lock(&file, crate::sys::Mode::Exclusive).unwrap());
        let refused = check_forwarded(&file).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
        crate::sys::unlock(&file).unwrap();
        check_forwarded(&file).unwrap();
    }
}
