//! Unix: determines which file systems are served by another host, if the system shows that.

use std::fs::File;
use std::path::Path;

use rustix::fs::{Stat, StatFs, fstat, fstatfs, stat, statfs};

/// Whether the file is on a network file system; `None` if the system does not show that.
pub(super) fn is_network_file(file: &File) -> Option<bool> {
    fstatfs(file).ok().map(|fs| is_remote(&fs) && !is_local_fuse(&fs, || fstat(file)))
}

/// Whether the directory is on a network file system; `None` if the system does not show that.
pub(super) fn is_network_directory(directory: &Path) -> Option<bool> {
    statfs(directory).ok().map(|fs| is_remote(&fs) && !is_local_fuse(&fs, || stat(directory)))
}

/// Whether it is a FUSE that is known to be local. The mount table is read only for a FUSE.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn is_local_fuse(fs: &StatFs, stat: impl FnOnce() -> rustix::io::Result<Stat>) -> bool {
    magic(fs) == FUSE && stat().is_ok_and(|stat| super::mounts::is_local_fuse(stat.st_dev))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn is_local_fuse(_fs: &StatFs, _stat: impl FnOnce() -> rustix::io::Result<Stat>) -> bool {
    false
}

/// Whether something is mounted at the path itself. Linux shows that since 5.8 (statx(2)); `false`
/// where it is not known.
pub(super) fn is_mount_point(path: &Path) -> bool {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};

        statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty())
            .is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = path;
        false
    }
}

/// Whether it is on a FUSE.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn is_fuse(file: &File) -> bool {
    fstatfs(file).is_ok_and(|fs| magic(&fs) == FUSE)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn is_fuse(_file: &File) -> bool {
    false
}

/// The file systems whose clients show a lost lock in different ways.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Fuse,
    Ceph,
    Other,
}

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn protocol_of(file: &File) -> std::io::Result<Protocol> {
    Ok(match magic(&fstatfs(file)?) {
        FUSE => Protocol::Fuse,
        CEPH => Protocol::Ceph,
        _ => Protocol::Other,
    })
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn is_remote(fs: &StatFs) -> bool {
    NETWORK.contains(&magic(fs))
}

/// Whether only this host can lock files there, and the kernel lists the locks with the numbers
/// that stat(2) returns.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn is_listed(path: &Path) -> bool {
    const OVERLAYFS: u32 = 0x794c_7630;
    const BTRFS: u32 = 0x9123_683e;
    statfs(path).is_ok_and(|fs| !is_remote(&fs) && ![OVERLAYFS, BTRFS].contains(&magic(&fs)))
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::unnecessary_cast,
    trivial_numeric_casts,
    reason = "f_type is a signed or an unsigned word; the magic numbers have 32 bits"
)]
fn magic(fs: &StatFs) -> u32 {
    fs.f_type as u32
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[allow(
    clippy::cast_lossless,
    clippy::unnecessary_cast,
    trivial_numeric_casts,
    reason = "f_flags has another width on each system"
)]
fn is_remote(fs: &StatFs) -> bool {
    const MNT_LOCAL: u64 = 0x1000; // <sys/mount.h> of all three
    fs.f_flags as u64 & MNT_LOCAL == 0
}

/// FUSE and virtiofs.
#[cfg(any(target_os = "linux", target_os = "android"))]
const FUSE: u32 = 0x6573_5546;

#[cfg(any(target_os = "linux", target_os = "android"))]
const CEPH: u32 = 0x00C3_6400;

#[cfg(any(target_os = "linux", target_os = "android"))]
const NETWORK: &[u32] = &[
    0x0000_6969, // nfs
    0x0000_517B, // smb
    0xFF53_4D42, // cifs
    0xFE53_4D42, // smb2
    FUSE,
    CEPH,
    0x0102_1997, // 9p
    0x5346_414F, // afs
    0x6B41_4653, // kafs
    0x7375_7245, // coda
    0x0000_564C, // ncp
    0x0116_1970, // gfs2
    0x7461_636F, // ocfs2
    0x4750_4653, // gpfs
    0x0BD0_0BD0, // lustre
    0x1983_0326, // beegfs
    0x0131_11A8, // ibrix
    0xAAD7_AAEA, // panfs
    0xBEEF_DEAD, // snfs
    0x6163_6673, // acfs
    0xA501_FCF5, // vxfs
    0x786F_4256, // vboxsf
    0xBACB_ACBC, // vmhgfs
    0x7C7C_6673, // prl_fs
];
