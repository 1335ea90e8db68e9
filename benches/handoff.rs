//! From the release in one process to the acquisition returning in another that was blocked meanwhile: a lock, and
//! a semaphore of one.

#[path = "common/clock.rs"]
mod clock;
mod common;
#[path = "common/hand_off.rs"]
mod hand_off;
#[allow(dead_code, reason = "another bench asks for more")]
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
        contend(&methods(Path::new(&dir)));
    } else if extent != Extent::List {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let rows = measure(&methods(dir.path()), (DIRECTORY, dir.path()), &[], extent);
        let title = format!(
            "Release to acquisition in another process ({} rounds, interleaved)",
            extent.times(ROUNDS)
        );
        print_table(&title, &rows, &[BARE, BARE_WITH_STAT]);
    }
}

/// The same in both processes, in the same order.
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
            // It is its slot that a waiter blocks on.
            path: dir.join(SEMAPHORE).join("slot.0"),
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
                assert!(bare::try_lock(file), "nobody has it");
                Box::new(|| bare::unlock(file))
            }
            Self::Flockwork(lock, _) => {
                let guard = lock.try_lock().expect("nobody has it");
                Box::new(|| guard.unlock().expect("unlock"))
            }
            Self::Semaphore(semaphore) => {
                let permit = semaphore.try_acquire().expect("nobody has it");
                Box::new(|| permit.release().expect("release"))
            }
            Self::Named(lock) => {
                let guard = lock.try_lock().expect("nobody has it");
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
