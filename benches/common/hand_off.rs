//! Measures the time from a release in one process until the acquisition returns in another process
//! that was blocked until then.
//!
//! The other process, the contender, is this program again. It receives the index of a method on
//! its stdin, waits, reads the clock as soon as it has acquired the lock, releases it and prints
//! the time. Both processes read the same clock. The methods take turns, so that other work on the
//! machine affects all of them alike. Criterion would run one method after the other.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::now;
use crate::common::{Extent, Row, Target};
use crate::peer::{Peer, exit_after};

pub(crate) const ROUNDS: usize = 1000;

/// The time for a blocked contender to fall asleep.
const SETTLING: Duration = Duration::from_micros(200);

/// The contender exits after this time even if its parent has not stopped it.
const LIMIT: Duration = Duration::from_secs(600);

/// A way to wait, with a lock that only this method uses. Each process has its own handle.
pub(crate) struct Method<H> {
    pub(crate) name: &'static str,
    pub(crate) targets: &'static [Target],
    /// The file that a waiter blocks on, or that it holds while it waits.
    pub(crate) path: PathBuf,
    pub(crate) handle: H,
}

pub(crate) trait Handle {
    /// Acquires the lock without waiting, since it is free between rounds.
    fn hold(&self) -> Release<'_>;
    /// Waits until the lock is acquired.
    fn wait(&self) -> Release<'_>;
}

pub(crate) type Release<'a> = Box<dyn FnOnce() + 'a>;

/// Measures all methods. The contender finds its role in the environment variable, and must call
/// [`contend`] with the same methods in the same order.
pub(crate) fn measure<H: Handle>(
    methods: &[Method<H>],
    (variable, role): (&str, impl AsRef<OsStr>),
    arguments: &[&dyn AsRef<OsStr>],
    extent: Extent,
) -> Vec<Row> {
    let mut contender = Peer::start_this_program(variable, role, arguments);
    let rounds = extent.times(ROUNDS);
    let mut times = vec![Vec::with_capacity(rounds); methods.len()];
    for _ in 0..rounds {
        for (index, (method, times)) in methods.iter().zip(&mut times).enumerate() {
            times.push(hand_off(&mut contender, index, method));
        }
    }
    contender.stop();
    let row = |(method, times): (&Method<H>, _)| Row::new(method.name, method.targets, times);
    methods.iter().zip(times).map(row).collect()
}

/// Measures one hand-off to the contender.
fn hand_off<H: Handle>(contender: &mut Peer, index: usize, method: &Method<H>) -> Duration {
    let release = method.handle.hold();
    contender.send(&index.to_string());
    await_blocked(&method.path);
    std::thread::sleep(SETTLING);

    let released = now();
    release();

    let acquired = contender.receive().trim().parse().expect("the contender's time");
    Duration::from_nanos(acquired).saturating_sub(released)
}

/// The main function of the contender.
pub(crate) fn contend<H: Handle>(methods: &[Method<H>]) {
    exit_after(LIMIT);
    for line in std::io::stdin().lines() {
        let index: usize = line.expect("read from the parent").parse().expect("a method's index");
        let release = methods[index].handle.wait();
        let acquired = now();
        release();
        println!("{}", acquired.as_nanos());
    }
}

/// Returns when another process waits: it is blocked on the file, or holds it while it waits for
/// something else, as a semaphore's waiter holds the gate. `/proc/locks` shows both, blocked
/// requests with an arrow: `1: -> FLOCK  ADVISORY  WRITE 4711 fe:00:131 0 EOF`.
#[cfg(target_os = "linux")]
fn await_blocked(path: &Path) {
    use std::os::unix::fs::MetadataExt as _;

    let inode = std::fs::metadata(path).expect("look up the lock file").ino();
    let file = format!(":{inode} ");
    let own = format!(" {} ", std::process::id());
    let waits = || {
        let locks = std::fs::read_to_string("/proc/locks").expect("read /proc/locks");
        locks.lines().any(|line| line.contains(&file) && !line.contains(&own))
    };
    for _ in 0..100_000 {
        if waits() {
            return;
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    panic!("the contender does not wait at {}", path.display());
}

#[cfg(not(target_os = "linux"))]
fn await_blocked(_path: &Path) {
    std::thread::sleep(Duration::from_millis(2));
}
