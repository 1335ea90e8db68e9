//! The cost of an uncontended lock, and of a `try_lock` that would block.
//!
//! Criterion measures one contender after the other. After that the contenders take turns in small
//! batches, so that other work on the machine affects all of them alike, and each is compared with
//! the bare system calls of the same run.

mod common;
#[path = "common/contender.rs"]
mod contender;
#[path = "common/cycle.rs"]
mod cycle;

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use common::{Extent, Target, bare, named_lock, open, print_table};
use contender::{Contender, interleave};
use criterion::Criterion;
use flockwork::{Lock, LockGuard};
use futures_lite::future::block_on;
use tempfile::TempDir;

const ROUNDS: usize = 2000;
/// The number of cycles of one contender before it is the turn of the next.
const BATCH: usize = 32;

/// A timeout that never passes.
const TIMEOUT: Duration = Duration::from_secs(60);

const BARE: &str = "bare flock+unlock, open descriptor";
const BARE_WITH_STAT: &str = "bare flock+stat+unlock, open descriptor";
const BARE_PER_USE: &str = "bare open+flock+close";
const BARE_WOULD_BLOCK: &str = "bare flock(LOCK_EX|LOCK_NB)";

const CYCLE_TARGETS: &[Target] = &[
    Target { baseline: BARE_WITH_STAT, at_most: 1.25 },
    Target { baseline: BARE_PER_USE, at_most: 0.5 },
];
const TRY_TARGETS: &[Target] = &[Target { baseline: BARE_WOULD_BLOCK, at_most: 1.5 }];

fn main() {
    let dir = tempfile::tempdir().expect("create a temporary directory");
    run_criterion(dir.path());

    let extent = Extent::from_args();
    if extent != Extent::List {
        compare(dir.path(), extent);
        if let Some(dir) = directory_in_memory() {
            compare(dir.path(), extent);
        }
    }
}

/// A directory on a file system without a disk, if there is one.
fn directory_in_memory() -> Option<TempDir> {
    if cfg!(target_os = "linux") { tempfile::tempdir_in("/dev/shm").ok() } else { None }
}

// -------------------------------------------------------------------------------------- contenders

/// Contenders that each acquire and release a lock on a separate file.
fn uncontended(dir: &Path) -> Vec<Contender> {
    let path = |name: &str| dir.join(name);
    let flockwork = |name, acquire: fn(&Lock) -> flockwork::Result<LockGuard>| {
        Contender::new(name, CYCLE_TARGETS, flockwork_cycle(&path(name), acquire))
    };
    let mut contenders = vec![
        Contender::new(BARE, &[], bare_cycle(&path("bare"))),
        Contender::new(BARE_WITH_STAT, &[], bare_cycle_with_stat(&path("bare_with_stat"))),
        Contender::new(BARE_PER_USE, &[], bare_cycle_per_use(&path("bare_per_use"))),
        flockwork("flockwork try_lock", Lock::try_lock),
        flockwork("flockwork lock", Lock::lock),
        flockwork("flockwork lock_timeout", |lock| lock.lock_timeout(TIMEOUT)),
        flockwork("flockwork lock_async", |lock| block_on(lock.lock_async())),
        Contender::new("fs4", &[], fs4_cycle(&path("fs4"))),
        Contender::new("fd-lock", &[], fd_lock_cycle(&path("fd-lock"))),
        Contender::new("named-lock", &[], named_lock_cycle(&path("named-lock"))),
        Contender::new("fslock", &[], fslock_cycle(&path("fslock"))),
    ];
    contenders
        .extend(std_cycle(&path("std")).map(|cycle| Contender::new("std File::lock", &[], cycle)));
    contenders
}

fn bare_cycle(path: &Path) -> impl FnMut() + 'static {
    let file = open(path);
    move || {
        bare::lock(&file);
        bare::unlock(&file);
    }
}

/// The minimum for a lock on a path, which must check that the path still names the locked file.
fn bare_cycle_with_stat(path: &Path) -> impl FnMut() + 'static {
    let file = open(path);
    let stat = bare::Stat::of(path);
    move || {
        bare::lock(&file);
        stat.call();
        bare::unlock(&file);
    }
}

fn bare_cycle_per_use(path: &Path) -> impl FnMut() + 'static {
    let path = path.to_owned();
    move || {
        let file = open(&path);
        bare::lock(&file);
        drop(file);
    }
}

fn flockwork_cycle(
    path: &Path,
    acquire: impl Fn(&Lock) -> flockwork::Result<LockGuard> + 'static,
) -> impl FnMut() + 'static {
    let lock = Lock::open(path).expect("open a flockwork lock");
    move || drop(acquire(&lock).expect("lock"))
}

fn fs4_cycle(path: &Path) -> impl FnMut() + 'static {
    let file = open(path);
    move || {
        fs4::FileExt::lock(&file).expect("lock");
        fs4::FileExt::unlock(&file).expect("unlock");
    }
}

fn fd_lock_cycle(path: &Path) -> impl FnMut() + 'static {
    let mut lock = fd_lock::RwLock::new(open(path));
    move || drop(lock.write().expect("lock"))
}

fn named_lock_cycle(path: &Path) -> impl FnMut() + 'static {
    let lock = named_lock(path);
    move || drop(lock.lock().expect("lock"))
}

fn fslock_cycle(path: &Path) -> impl FnMut() + 'static {
    let mut lock = fslock::LockFile::open(path).expect("open an fslock");
    move || {
        lock.lock().expect("lock");
        lock.unlock().expect("unlock");
    }
}

/// Returns `None` if this version of std has no file locks.
#[expect(clippy::incompatible_msrv, reason = "older versions of std fall back to `NotInStdYet`")]
#[allow(
    unstable_name_collisions,
    reason = "an inherent method takes precedence over `NotInStdYet`"
)]
fn std_cycle(path: &Path) -> Option<impl FnMut() + 'static> {
    let file = open(path);
    if file.lock().is_err_and(|error| error.kind() == io::ErrorKind::Unsupported) {
        return None;
    }
    file.unlock().expect("unlock");
    Some(move || {
        file.lock().expect("lock");
        file.unlock().expect("unlock");
    })
}

/// `File::lock` was added in Rust 1.89, and this package also builds with older versions. Where std
/// has it, its inherent method takes precedence over these.
#[allow(dead_code, reason = "not called since Rust 1.89")]
trait NotInStdYet {
    fn lock(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn unlock(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl NotInStdYet for File {}

/// A held lock, and contenders that try to acquire it.
struct Held {
    contenders: Vec<Contender>,
    _holder: File,
}

impl Held {
    fn new(dir: &Path) -> Self {
        let path = dir.join("held");
        let holder = open(&path);
        bare::lock(&holder);
        let contenders = vec![
            Contender::new(BARE_WOULD_BLOCK, &[], bare_would_block(&path)),
            Contender::new("flockwork try_lock", TRY_TARGETS, flockwork_would_block(&path)),
        ];
        Self { contenders, _holder: holder }
    }
}

fn bare_would_block(path: &Path) -> impl FnMut() + 'static {
    let file = open(path);
    move || assert!(!bare::try_lock(&file), "the lock is held")
}

fn flockwork_would_block(path: &Path) -> impl FnMut() + 'static {
    let lock = Lock::open(path).expect("open a flockwork lock");
    move || {
        let error = lock.try_lock().expect_err("the lock is held");
        assert!(error.is_would_block(), "{error}");
    }
}

// --------------------------------------------------------------------------------------- measuring

fn run_criterion(dir: &Path) {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let mut run = |group: &str, contenders: &mut [Contender]| {
        let mut group = criterion.benchmark_group(group);
        for Contender { name, cycle, .. } in contenders {
            group.bench_function(*name, |bencher| bencher.iter(&mut *cycle));
        }
        group.finish();
    };
    run("uncontended", &mut uncontended(dir));
    run("contended", &mut Held::new(dir).contenders);
    criterion.final_summary();
}

fn compare(dir: &Path, extent: Extent) {
    let rounds = extent.times(ROUNDS);
    let batch = extent.times(BATCH);
    let how = format!("{} ({rounds} rounds of {batch}, interleaved)", dir.display());

    let rows = interleave(uncontended(dir), rounds, batch);
    let title = format!("Uncontended acquire and release in {how}");
    print_table(&title, &rows, &[BARE_WITH_STAT, BARE_PER_USE]);

    let rows = interleave(Held::new(dir).contenders, rounds, batch);
    print_table(&format!("Contended try_lock in {how}"), &rows, &[BARE_WOULD_BLOCK]);
}
