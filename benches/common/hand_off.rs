//! From the release in one process to the acquisition returning in another that was blocked meanwhile.
//!
//! The other process is this program again, told over its stdin which method's turn it is. It waits, takes the
//! time as soon as it has the lock, releases, and answers with that time. Both read one clock of the system.
//! The methods take turns, so that what else the machine does hits all of them alike. Not with criterion: it
//! would run one after the other.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::now;
use crate::common::{Extent, Row, Target};
use crate::peer::{Peer, end_after};

pub(crate) const ROUNDS: usize = 1000;

/// For the contender, once it is blocked, to be fast asleep.
const SETTLING: Duration = Duration::from_micros(200);

/// The contender ends then, should nobody have ended it before.
const LIMIT: Duration = Duration::from_secs(600);

/// A way to wait, and a lock of its own to wait for, as either process has it.
pub(crate) struct Method<H> {
    pub(crate) name: &'static str,
    pub(crate) targets: &'static [Target],
    /// The file that a waiter blocks on.
    pub(crate) path: PathBuf,
    pub(crate) handle: H,
}

pub(crate) trait Handle {
    /// Takes it at once: between rounds nobody has it.
    fn hold(&self) -> Release<'_>;
    /// Takes it when it is to be had.
    fn wait(&self) -> Release<'_>;
}

pub(crate) type Release<'a> = Box<dyn FnOnce() + 'a>;

/// The rows of all methods. The contender finds its role in that variable, and must [`contend`] with the same
/// methods in the same order.
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

/// One round: how long from here to there.
fn hand_off<H: Handle>(contender: &mut Peer, index: usize, method: &Method<H>) -> Duration {
    let release = method.handle.hold();
    contender.tell(&index.to_string());
    await_blocked(&method.path);
    std::thread::sleep(SETTLING);

    let released = now();
    release();

    let acquired = contender.hear().trim().parse().expect("the contender's time");
    Duration::from_nanos(acquired).saturating_sub(released)
}

/// The contender's `main`.
pub(crate) fn contend<H: Handle>(methods: &[Method<H>]) {
    end_after(LIMIT);
    for order in std::io::stdin().lines() {
        let index: usize = order.expect("hear the order").parse().expect("a method's index");
        let release = methods[index].handle.wait();
        let acquired = now();
        release();
        println!("{}", acquired.as_nanos());
    }
}

/// Returns when somebody is blocked on that file. The kernel's list of locks shows them with an arrow:
/// `1: -> FLOCK  ADVISORY  WRITE 4711 fe:00:131 0 EOF`.
#[cfg(target_os = "linux")]
fn await_blocked(path: &Path) {
    use std::os::unix::fs::MetadataExt as _;

    let inode = std::fs::metadata(path).expect("look up the lock file").ino();
    let file = format!(":{inode} ");
    let is_blocked = || {
        let locks = std::fs::read_to_string("/proc/locks").expect("read /proc/locks");
        locks.lines().any(|line| line.contains("->") && line.contains(&file))
    };
    for _ in 0..100_000 {
        if is_blocked() {
            return;
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    panic!("the contender does not block on {}", path.display());
}

#[cfg(not(target_os = "linux"))]
fn await_blocked(_path: &Path) {
    std::thread::sleep(Duration::from_millis(2));
}
