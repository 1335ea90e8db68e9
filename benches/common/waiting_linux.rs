//! Waiting on Linux: the minimum for a wait for a file, and the state of a waiting process.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use crate::common::bare::Stat;

/// The name of the baseline [`await_file`].
pub(crate) const BARE: &str = "bare inotify reader";

/// Waits for a file with a separate inotify instance. The waiting thread reads it and checks the
/// file after each event. Closing the instance is not a part of the wait, so it is returned.
pub(crate) fn await_file(stat: &Stat, directory: &Path) -> OwnedFd {
    let inotify = inotify::init(CreateFlags::CLOEXEC).expect("an inotify instance");
    let what = WatchFlags::CREATE | WatchFlags::MOVED_TO;
    inotify::add_watch(&inotify, directory, what).expect("watch a directory");
    let mut events = [0_u8; 4096];
    while !stat.exists() {
        rustix::io::read(&inotify, &mut events).expect("read inotify's events");
    }
    inotify
}

/// Whether a process watches a directory with inotify.
pub(crate) fn watches(process: u32, directory: &Path) -> bool {
    let inode = fs::metadata(directory).expect("look up a directory").ino();
    let inode = format!(" ino:{inode:x} ");
    let is_its = |line: &str| line.starts_with("inotify wd:") && line.contains(&inode);
    // A descriptor may be closed after its directory entry has been read.
    let descriptors = entries(&format!("/proc/{process}/fdinfo"));
    descriptors.filter_map(|path| fs::read_to_string(path).ok()).any(|it| it.lines().any(is_its))
}

/// Whether all threads of a process are asleep.
pub(crate) fn is_asleep(process: u32) -> bool {
    let is_awake = |thread: std::path::PathBuf| {
        let stat = fs::read_to_string(thread.join("stat")).unwrap_or_default();
        // The format is `4711 (name) S 1 ...`, and the name may contain any characters.
        stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.starts_with(" S"))
    };
    !entries(&format!("/proc/{process}/task")).any(is_awake)
}

/// The number of voluntary context switches of a process's current threads.
pub(crate) fn switches(process: u32) -> usize {
    let of_thread = |thread: std::path::PathBuf| {
        let status = fs::read_to_string(thread.join("status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
    };
    entries(&format!("/proc/{process}/task")).map(of_thread).sum()
}

/// The resident memory of this process in bytes, from its page tables. `VmRSS` is inexact by up to
/// 64 pages.
pub(crate) fn resident() -> usize {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").expect("read the memory map");
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:")).expect("a line for it");
    let kilobytes: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kilobytes * 1024
}

fn entries(directory: &str) -> impl Iterator<Item = std::path::PathBuf> + use<> {
    let entries = fs::read_dir(directory).expect("list a directory of a process");
    entries.filter_map(|entry| Some(entry.ok()?.path()))
}
