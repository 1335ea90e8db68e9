//! The time from a release in one process until the acquisition returns in another process that was
//! blocked until then, for a lock and for a semaphore with one permit.

#[path = "common/clock.rs"]
mod clock;
mod common;
#[path = "common/hand_off.rs"]
mod hand_off;
#[allow(dead_code, reason = "another bench uses the rest")]
#[path = "common/peer.rs"]
mod peer;

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use common::{Extent, Target, bare, named_lock, open, print_table};
use flockwork::{Lock, LockGuard, Semaphore};
use futures_lite::future::block_on;
use hand_off::{Handle, Method, ROUNDS, Release, contend, measure};
use named_lock::NamedLock;

/// A timeout that never passes.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The environment variable with the directory of the lock files. Set only for the contender.
const DIRECTORY: &str = "FLOCKWORK_BENCH_HANDOFF";

const BARE: &str = "bare flock, blocked";
const SEMAPHORE: &str = "flockwork semaphore, 1 permit";
/// The minimum for a lock on a path, which must check that the path still names the locked file.
const BARE_WITH_STAT: &str = "bare flock, blocked, then stat";

/// For waits in which the caller itself blocks in the kernel.
const AS_BARE: &[Target] = &[Target { baseline: BARE, at_most: 1.1 }];
/// For waits in which a helper thread blocks in the kernel and notifies the caller.
const BY_HELPER: &[Target] = &[Target { baseline: BARE, at_most: 3.0 }];

fn main() {
    let extent = Extent::from_args();
    if let Some(dir) = std::env::var_os(DIRECTORY) {
        contend(&methods(Path::new(&dir)));
    } else if extent != Extent::List {
        let dir = tempfile::tempdir().expect("create a temporary directory");
        let rows = measure(&methods(dir.path()), (DIRECTORY, dir.path()), &[], extent);
        let title = format!(
            "Release to acquisition in another process ({} rounds, interleaved)",
            extent.times(ROUNDS)
        );
        print_table(&title, &rows, &[BARE, BARE_WITH_STAT]);
    }
}

/// The methods in the same order in both processes.
fn methods(dir: &Path) -> Vec<Method<Way>> {
    let new = |name: &'static str, targets, open: &dyn Fn(&Path) -> Way| {
        let path = dir.join(name);
        Method { name, targets, handle: open(&path), path }
    };
    let flockwork = |name, targets, wait: Wait| {
        let open = |path: &Path| Lock::open(path).expect("open a flockwork lock");
        new(name, targets, &|path| Way::Flockwork(open(path), wait))
    };
    vec![
        new(BARE, &[], &|path| Way::Bare(open(path), None)),
        new(BARE_WITH_STAT, &[], &|path| Way::Bare(open(path), Some(bare::Stat::of(path)))),
        flockwork("flockwork lock", AS_BARE, Lock::lock),
        flockwork("flockwork lock_timeout", BY_HELPER, |lock| lock.lock_timeout(TIMEOUT)),
        flockwork("flockwork lock_async", BY_HELPER, |lock| block_on(lock.lock_async())),
        Method {
            // The waiter holds the gate while it waits for a slot.
            path: dir.join(SEMAPHORE).join("gate"),
            ..new(SEMAPHORE, BY_HELPER, &|path| {
                Way::Semaphore(Semaphore::open(path, 1).expect("open a semaphore"))
            })
        },
        new("named-lock", &[], &|path| Way::Named(named_lock(path))),
    ]
}

type Wait = fn(&Lock) -> flockwork::Result<LockGuard>;

enum Way {
    Bare(File, Option<bare::Stat>),
    Flockwork(Lock, Wait),
    Semaphore(Semaphore),
    Named(NamedLock),
}

impl Handle for Way {
    fn hold(&self) -> Release<'_> {
        match self {
            Self::Bare(file, _) => {
                assert!(bare::try_lock(file), "the lock is free");
                Box::new(|| bare::unlock(file))
            }
            Self::Flockwork(lock, _) => {
                let guard = lock.try_lock().expect("the lock is free");
                Box::new(|| guard.unlock().expect("unlock"))
            }
            Self::Semaphore(semaphore) => {
                let permit = semaphore.try_acquire().expect("the lock is free");
                Box::new(|| permit.release().expect("release"))
            }
            Self::Named(lock) => {
                let guard = lock.try_lock().expect("the lock is free");
                Box::new(|| drop(guard))
            }
        }
    }

    fn wait(&self) -> Release<'_> {
        match self {
            Self::Bare(file, stat) => {
                bare::lock(file);
                if let Some(stat) = stat {
                    stat.call();
                }
                Box::new(|| bare::unlock(file))
            }
            Self::Flockwork(lock, wait) => {
                let guard = wait(lock).expect("lock");
                Box::new(|| guard.unlock().expect("unlock"))
            }
            Self::Semaphore(semaphore) => {
                let permit = semaphore.acquire().expect("acquire");
                Box::new(|| permit.release().expect("release"))
            }
            Self::Named(lock) => {
                let guard = lock.lock().expect("lock");
                Box::new(|| drop(guard))
            }
        }
    }
}
