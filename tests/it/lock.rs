//! `Lock` between processes and threads: exclusion, waiting, release and death of a holder.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use flockwork::{ErrorKind, Lock, LockGuard, Options, RwLock, Semaphore, SharedFile};

use crate::peer::Way::{Async, Block, Timeout, Try};
use crate::peer::lock::Call;
use crate::peer::{Peer, Request, Way};
use crate::support::{eventually, until_blocked};

fn assert_would_block(lock: &Lock) {
    assert!(lock.try_lock().unwrap_err().is_would_block());
}

#[test]
fn a_guard_excludes_another_process_until_it_is_released() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let lock = Lock::open(&path).unwrap();
    let mut peer = Peer::with_lock(&path);

    let guard = lock.lock().unwrap();
    peer.expect_would_block(Call::Acquire(Try));
    guard.unlock().unwrap();
    peer.run(Call::Acquire(Try));
    assert_would_block(&lock);
    peer.run(Call::DropGuard);
    drop(lock.try_lock().unwrap());
}

#[test]
fn a_guard_excludes_threads_with_the_same_or_another_handle() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let lock = Lock::open(dir.path().join("a.lock")).unwrap();
    let another = Lock::open(lock.path()).unwrap();
    let guard = lock.lock().unwrap();
    crate::support::running::scope(|scope| {
        scope.spawn(|| assert_would_block(&lock));
        scope.spawn(|| assert_would_block(&lock.clone()));
        scope.spawn(|| assert_would_block(&another));
    });
    drop(guard);
    drop(another.try_lock().unwrap());
}

#[test]
fn a_guard_outlives_its_handle_and_can_be_dropped_by_any_thread() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let guard = Lock::open(&path).unwrap().lock().unwrap();
    let another = Lock::open(&path).unwrap();
    assert_eq!(guard.path(), path);
    assert_would_block(&another);
    std::thread::spawn(move || drop(guard)).join().unwrap();
    drop(another.try_lock().unwrap());
}

#[test]
fn handles_and_guards_can_be_sent_and_shared() {
    limit!();
    fn is<T: Send + Sync + 'static>() {}
    fn is_a_future<T: Send + 'static>(_: T) {}
    is::<Lock>();
    is::<LockGuard>();
    is::<flockwork::Error>();
    is::<flockwork::Options>();
    let dir = tempfile::tempdir().unwrap();
    is_a_future(Lock::open(dir.path().join("a.lock")).unwrap().lock_async());
}

#[test]
fn eight_processes_add_to_one_number_and_lose_nothing() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let (path, file) = (dir.path().join("a.lock"), dir.path().join("number"));
    std::fs::write(&file, "0").unwrap();
    let mut peers: Vec<Peer> = (0..8).map(|_| Peer::with_lock(&path)).collect();
    let ways = [Block, Timeout(100_000), Async];
    for (peer, way) in peers.iter_mut().zip(ways.iter().cycle()) {
        peer.begin(Call::Count(file.clone(), 200, *way));
    }
    for peer in &mut peers {
        peer.finish();
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "1600");
}

/// Checks that a waiter acquires the lock when the holder releases it.
fn is_handed_over(way: Way, release: impl Fn(&mut Peer)) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let mut holder = Peer::with_lock(&path);
    let mut waiter = Peer::with_lock(&path);
    holder.lock();
    waiter.begin(Call::Acquire(way));
    until_blocked(&path, 1);
    assert!(waiter.is_silent());
    release(&mut holder);
    waiter.finish();
}

#[test]
fn a_release_wakes_a_waiter_of_every_form() {
    limit!();
    for way in [Block, Timeout(100_000), Async] {
        is_handed_over(way, Peer::unlock);
        is_handed_over(way, |holder| drop(holder.run(Call::DropGuard)));
    }
}

#[test]
fn a_killed_holder_releases_to_a_waiter_of_every_form() {
    limit!();
    for way in [Block, Timeout(100_000), Async] {
        is_handed_over(way, Peer::kill);
    }
}

#[test]
fn a_killed_waiter_blocks_no_other_waiter() {
    limit!();
    for way in [Block, Timeout(100_000), Async] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        let mut holder = Peer::with_lock(&path);
        let mut killed = Peer::with_lock(&path);
        let mut waiter = Peer::with_lock(&path);
        holder.lock();
        killed.begin(Call::Acquire(way));
        until_blocked(&path, 1);
        waiter.begin(Call::Acquire(way));
        until_blocked(&path, 2);
        killed.kill();
        assert!(waiter.is_silent());
        holder.unlock();
        waiter.finish();
    }
}

#[test]
fn a_timeout_never_ends_early_and_zero_tries_once() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let lock = Lock::open(dir.path().join("a.lock")).unwrap();
    drop(lock.lock_timeout(Duration::ZERO).unwrap());
    drop(lock.lock_deadline(Instant::now().checked_sub(Duration::from_secs(1)).unwrap()).unwrap());
    drop(lock.lock_timeout(Duration::MAX).unwrap());

    let _guard = lock.lock().unwrap();
    for timeout in [0, 1, 30] {
        let timeout = Duration::from_millis(timeout);
        let start = Instant::now();
        let error = lock.lock_timeout(timeout).unwrap_err();
        assert!(error.is_timed_out() && !error.is_would_block());
        assert!(start.elapsed() >= timeout);
        assert!(error.waited().is_some_and(|waited| waited >= timeout), "{:?}", error.waited());
        assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::TimedOut);
    }
    // On a busy machine a part of the time may have passed before the call.
    eventually("a wait until a deadline has lasted 20 ms", || {
        let deadline = Instant::now() + Duration::from_millis(30);
        let error = lock.lock_deadline(deadline).unwrap_err();
        assert_eq!((error.kind(), error.path()), (flockwork::ErrorKind::TimedOut, lock.path()));
        assert!(Instant::now() >= deadline);
        error.waited().unwrap() >= Duration::from_millis(20)
    });
}

#[test]
fn a_timeout_that_no_clock_can_show_waits_for_the_release() {
    limit!();
    is_handed_over(Timeout(u64::MAX), Peer::unlock);
}

#[test]
fn the_path_is_absolute_and_survives_a_directory_change() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().canonicalize().unwrap();
    std::fs::create_dir(real.join("elsewhere")).unwrap();
    let mut peer = Peer::start();
    peer.run(Request::SetCurrentDir(real.clone()));
    peer.open_lock("a.lock".as_ref(), &[]);
    peer.run(Request::SetCurrentDir(real.join("elsewhere")));
    let path = peer.run(Call::LockPath);
    assert!(Path::new(&path).is_absolute(), "{path}");
    peer.lock();
    assert_would_block(&Lock::open(real.join("a.lock")).unwrap());
    assert!(!real.join("elsewhere/a.lock").exists());
    peer.run(Request::SetCurrentDir(std::env::temp_dir()));
}

#[test]
fn threads_of_one_process_never_hold_the_lock_together() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let lock = Lock::open(dir.path().join("a.lock")).unwrap();
    let inside = AtomicUsize::new(0);
    crate::support::running::scope(|scope| {
        for worker in 0..12 {
            let (lock, inside) = (&lock, &inside);
            scope.spawn(move || {
                for turn in 0..100 {
                    let guard = match (worker + turn) % 4 {
                        0 => lock.lock(),
                        1 => lock.lock_timeout(Duration::from_secs(100)),
                        2 => futures_lite::future::block_on(lock.lock_async()),
                        _ => match lock.try_lock() {
                            Err(error) if error.is_would_block() => continue,
                            other => other,
                        },
                    }
                    .unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    std::thread::yield_now();
                    assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
                    drop(guard);
                }
            });
        }
    });
}

#[test]
fn fencing_tokens_grow_with_each_acquisition() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let lock = Lock::open(&path).unwrap();
    let mut peer = Peer::with_lock(&path);
    let mut last = 0;
    for _ in 0..5 {
        let guard = lock.lock().unwrap();
        let token = guard.fencing_token().unwrap();
        assert!(token > last, "{token} after {last}");
        assert_eq!(guard.fencing_token().unwrap(), token);
        guard.unlock().unwrap();
        peer.lock();
        last = peer.run(Call::FencingToken).parse().unwrap();
        assert!(last > token, "{last} after {token}");
        peer.unlock();
    }
    // A write guard of the same path takes its tokens from the same place.
    let guard = RwLock::open(&path).unwrap().write().unwrap();
    assert!(guard.fencing_token().unwrap() > last);
    drop(guard);
    let file = SharedFile::open(dir.path().join("file")).unwrap();
    let tokens = [(); 2].map(|()| file.lock_exclusive().unwrap().fencing_token().unwrap());
    assert_eq!(tokens, [1, 2]);
    let pool = Semaphore::open(dir.path().join("pool"), 2).unwrap();
    let permits = [pool.acquire().unwrap(), pool.acquire().unwrap()];
    let tokens = [1, 0, 1].map(|permit: usize| permits[permit].fencing_token().unwrap());
    assert_eq!(tokens, [1, 2, 1]);
}

#[test]
fn no_token_is_created_where_nothing_may_be_created() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    std::fs::write(&path, "").unwrap();
    let guard = Options::new().create(false).open_lock(&path).unwrap().lock().unwrap();
    let error = guard.fencing_token().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// A holder that has lost its lock must not get a token higher than that of the next one.
// Unix only: on Windows a lock file that is open cannot be replaced.
#[cfg(unix)]
#[test]
fn a_guard_without_its_lock_gets_no_token() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let guard = Lock::open(&path).unwrap().lock().unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(guard.fencing_token().unwrap_err().kind(), ErrorKind::Lost);
}
