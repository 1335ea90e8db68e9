//! From the release in one process to the acquisition returning in another that was blocked meanwhile.
//!
//! This program starts itself a second time as the contender and tells it over its stdin which method's
//! turn it is. The contender waits, takes the time as soon as it has the lock, releases, and answers with
//! that time. Both read one clock of the system. The methods take turns, so that what else the machine
//! does hits all of them alike. Not with criterion: it would run one after the other.

#![allow(clippy::disallowed_methods, reason = "compares with what the crate itself must not call")]

#[path = "common/clock.rs"]
mod clock;
mod common;
#[allow(dead_code, reason = "another bench asks for more")]
#[path = "common/peer.rs"]
mod peer;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clock::now;
use common::{Extent, Row, Target, bare, named_lock, open, print_table};
use flockwork::{Lock, LockGuard, Permit, Semaphore};
use futures_lite::future::block_on;
use named_lock::{NamedLock, NamedLockGuard};
use peer::Peer;

const ROUNDS: usize = 1000;

/// For the contender, once it is blocked, to be fast asleep.
const SETTLING: Duration = Duration::from_micros(200);

/// Long enough never to end.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Where the lock files are. Set for the contender only.
const DIRECTORY: &str = "FLOCKWORK_BENCH_HANDOFF";

const BARE: &str = "bare flock, blocked";
const SEMAPHORE: &str = "flockwork semaphore of one";
/// The least that a lock on a path can do: whoever got it must see that the path still names it.
const BARE_WITH_STAT: &str = "bare flock, blocked, then stat";

/// Blocks in the kernel itself.
const AS_BARE: &[Target] = &[Target { baseline: BARE, at_most: 1.1 }];
/// A helper thread blocks in its stead, and wakes it.
const BY_HELPER: &[Target] = &[Target { baseline: BARE, at_most: 3.0 }];

fn main() {
    let extent = Extent::from_args();
    if let Some(dir) = std::env::var_os(DIRECTORY) {
        contend(Path::new(&dir));
    } else if extent != Extent::List {
        measure(extent);
    }
}

fn measure(extent: Extent) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let methods = Method::all(dir.path());
    let mut contender = Peer::start_this_program(DIRECTORY, dir.path(), &[]);
    let rounds = extent.times(ROUNDS);
    let mut times = vec![Vec::with_capacity(rounds); methods.len()];
    for _ in 0..rounds {
        for (index, (method, times)) in methods.iter().zip(&mut times).enumerate() {
            times.push(hand_off(&mut contender, index, method));
        }
    }
    contender.stop();

    let row = |(method, times): (&Method, _)| Row::new(method.name, method.targets, times);
    let rows: Vec<Row> = methods.iter().zip(times).map(row).collect();
    let title = format!("Release to acquisition in another process ({rounds} rounds, interleaved)");
    print_table(&title, &rows, &[BARE, BARE_WITH_STAT]);
}

// ------------------------------------------------------------------------------------- two processes

/// One round: how long from here to there.
fn hand_off(contender: &mut Peer, index: usize, method: &Method) -> Duration {
    let held = method.handle.hold();
    contender.tell(&index.to_string());
    await_blocked(&method.path);
    std::thread::sleep(SETTLING);

    let released = now();
    held.release();

    let acquired = contender.hear().trim().parse().expect("the contender's time");
    Duration::from_nanos(acquired).saturating_sub(released)
}

/// The contender's `main`.
fn contend(dir: &Path) {
    let methods = Method::all(dir);
    for order in std::io::stdin().lines() {
        let index: usize = order.expect("hear the order").parse().expect("a method's index");
        let held = methods[index].handle.wait();
        let acquired = now();
        held.release();
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

// ------------------------------------------------------------------------------------------- methods

/// A way to wait, and a lock of its own to wait for, as either process has it.
struct Method {
    name: &'static str,
    targets: &'static [Target],
    path: PathBuf,
    handle: Handle,
}

impl Method {
    /// The same in both processes, in the same order.
    fn all(dir: &Path) -> Vec<Self> {
        let new = |name: &'static str, targets, open: &dyn Fn(&Path) -> Handle| {
            let path = dir.join(name);
            Self { name, targets, handle: open(&path), path }
        };
        let flockwork = |name, targets, wait: Wait| {
            let open = |path: &Path| Lock::open(path).expect("open a flockwork lock");
            new(name, targets, &|path| Handle::Flockwork(open(path), wait))
        };
        vec![
            new(BARE, &[], &|path| Handle::Bare(open(path), None)),
            new(BARE_WITH_STAT, &[], &|path| Handle::Bare(open(path), Some(bare::Stat::of(path)))),
            flockwork("flockwork lock", AS_BARE, Lock::lock),
            flockwork("flockwork lock_timeout", BY_HELPER, |lock| lock.lock_timeout(TIMEOUT)),
            flockwork("flockwork lock_async", BY_HELPER, |lock| block_on(lock.lock_async())),
            Self {
                // It is its slot that a waiter blocks on.
                path: dir.join(SEMAPHORE).join("slot.0"),
                ..new(SEMAPHORE, BY_HELPER, &|path| {
                    Handle::Semaphore(Semaphore::open(path, 1).expect("open a semaphore"))
                })
            },
            new("named-lock", &[], &|path| Handle::Named(named_lock(path))),
        ]
    }
}

type Wait = fn(&Lock) -> flockwork::Result<LockGuard>;

enum Handle {
    Bare(File, Option<bare::Stat>),
    Flockwork(Lock, Wait),
    Semaphore(Semaphore),
    Named(NamedLock),
}

impl Handle {
    /// Takes it at once: between rounds nobody has it.
    fn hold(&self) -> Held<'_> {
        match self {
            Self::Bare(file, _) => {
                assert!(bare::try_lock(file), "nobody has it");
                Held::Bare(file)
            }
            Self::Flockwork(lock, _) => Held::Flockwork(lock.try_lock().expect("nobody has it")),
            Self::Semaphore(semaphore) => {
                Held::Permit(semaphore.try_acquire().expect("nobody has it"))
            }
            Self::Named(lock) => Held::Named(lock.try_lock().expect("nobody has it")),
        }
    }

    /// Takes it when it is to be had.
    fn wait(&self) -> Held<'_> {
        match self {
            Self::Bare(file, stat) => {
                bare::lock(file);
                if let Some(stat) = stat {
                    stat.call();
                }
                Held::Bare(file)
            }
            Self::Flockwork(lock, wait) => Held::Flockwork(wait(lock).expect("lock")),
            Self::Semaphore(semaphore) => Held::Permit(semaphore.acquire().expect("acquire")),
            Self::Named(lock) => Held::Named(lock.lock().expect("lock")),
        }
    }
}

enum Held<'a> {
    Bare(&'a File),
    Flockwork(LockGuard),
    Permit(Permit),
    Named(NamedLockGuard),
}

impl Held<'_> {
    fn release(self) {
        match self {
            Self::Bare(file) => bare::unlock(file),
            Self::Flockwork(guard) => guard.unlock().expect("unlock"),
            Self::Permit(permit) => permit.release().expect("release"),
            Self::Named(guard) => drop(guard),
        }
    }
}
