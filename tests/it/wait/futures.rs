//! `lock_async` under two runtimes: the same tests run on tokio and on smol.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use flockwork::Lock;

use crate::peer::Peer;
use crate::peer::Way::Try;
use crate::peer::lock::Call;
use crate::support::until_blocked;

/// The functions of a runtime that the tests need.
trait Runtime: 'static {
    fn run<T>(body: impl Future<Output = T>) -> T;
    fn spawn<T: Send + 'static>(
        body: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = T> + Send;
    /// Returns `None`, and drops the future, if the time has passed.
    fn limit<T: Send>(
        time: Duration,
        body: impl Future<Output = T> + Send,
    ) -> impl Future<Output = Option<T>> + Send;
}

struct Tokio;

impl Runtime for Tokio {
    fn run<T>(body: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_time()
            .build()
            .unwrap()
            .block_on(body)
    }

    async fn spawn<T: Send + 'static>(body: impl Future<Output = T> + Send + 'static) -> T {
        tokio::spawn(body).await.unwrap()
    }

    async fn limit<T: Send>(time: Duration, body: impl Future<Output = T> + Send) -> Option<T> {
        tokio::time::timeout(time, body).await.ok()
    }
}

struct Smol;

impl Runtime for Smol {
    fn run<T>(body: impl Future<Output = T>) -> T {
        smol::block_on(body)
    }

    fn spawn<T: Send + 'static>(
        body: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = T> + Send {
        smol::spawn(body)
    }

    async fn limit<T: Send>(time: Duration, body: impl Future<Output = T> + Send) -> Option<T> {
        let late = async {
            smol::Timer::after(time).await;
            None
        };
        futures_lite::future::or(async { Some(body.await) }, late).await
    }
}

fn a_wait_is_granted_by_another_process<R: Runtime>() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let mut peer = Peer::with_lock(&path);
    peer.lock();
    let lock = Lock::open(&path).unwrap();
    R::run(async {
        let wait = R::spawn(lock.lock_async());
        let release = R::spawn(async move {
            until_blocked(&path, 1);
            peer.unlock();
            peer
        });
        let (guard, mut peer) = futures_lite::future::zip(wait, release).await;
        let guard = guard.unwrap();
        peer.expect_would_block(Call::Acquire(Try));
        guard.unlock().unwrap();
        peer.run(Call::Acquire(Try));
    });
}

fn the_runtimes_timeout_drops_the_wait_and_leaves_the_lock<R: Runtime>() {
    let dir = tempfile::tempdir().unwrap();
    let lock = Lock::open(dir.path().join("a.lock")).unwrap();
    let held = lock.lock().unwrap();
    R::run(async {
        for _ in 0..20 {
            assert!(R::limit(Duration::from_millis(2), lock.lock_async()).await.is_none());
        }
        drop(held);
        let guard = R::limit(Duration::from_secs(100), lock.lock_async()).await.unwrap().unwrap();
        assert!(lock.try_lock().unwrap_err().is_would_block());
        drop(guard);
        drop(R::limit(Duration::from_secs(100), lock.lock_async()).await.unwrap().unwrap());
    });
}

/// Half of the futures are dropped before, at and after their grants; the other half acquires, one
/// at a time.
fn half_of_a_crowd_is_dropped_and_the_other_half_is_served<R: Runtime>() {
    let dir = tempfile::tempdir().unwrap();
    let lock = Lock::open(dir.path().join("a.lock")).unwrap();
    let held = lock.lock().unwrap();
    let inside = Arc::new(AtomicUsize::new(0));
    R::run(async {
        let mut crowd = Vec::new();
        let mut leavers = Vec::new();
        for number in 0..200_u64 {
            let (lock, inside) = (lock.clone(), Arc::clone(&inside));
            if number % 2 == 0 {
                let limit = Duration::from_micros(number * 50);
                leavers.push(R::spawn(async move {
                    let granted = R::limit(limit, lock.lock_async()).await;
                    drop(granted.map(Result::unwrap));
                }));
            } else {
                crowd.push(R::spawn(async move {
                    let guard = lock.lock_async().await.unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
                    drop(guard);
                }));
            }
        }
        // Futures that were never polled count as well.
        let unpolled: Vec<_> = (0..10).map(|_| lock.lock_async()).collect();
        drop(held);
        for task in leavers.into_iter().collect::<Vec<_>>() {
            task.await;
        }
        for task in crowd {
            task.await;
        }
        drop(unpolled);
        drop(lock.lock_async().await.unwrap());
    });
    drop(lock.lock_timeout(Duration::from_secs(100)).unwrap());
}

fn many_tasks_take_turns<R: Runtime>() {
    let dir = tempfile::tempdir().unwrap();
    let lock = Lock::open(dir.path().join("a.lock")).unwrap();
    let total = Arc::new(AtomicUsize::new(0));
    R::run(async {
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let (lock, total) = (lock.clone(), Arc::clone(&total));
                R::spawn(async move {
                    for _ in 0..20 {
                        let guard = lock.lock_async().await.unwrap();
                        // The increment is deliberately not atomic; the lock protects it.
                        let seen = total.load(Ordering::Relaxed);
                        futures_lite::future::yield_now().await;
                        total.store(seen + 1, Ordering::Relaxed);
                        drop(guard);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await;
        }
    });
    assert_eq!(total.load(Ordering::Relaxed), 1000);
}

macro_rules! under {
    ($runtime:ident: $module:ident: $($test:ident)*) => {
        mod $module {
            $(#[test]
            fn $test() {
                limit!();
                super::$test::<super::$runtime>();
            })*
        }
    };
}

under!(Tokio: tokio_runtime:
    a_wait_is_granted_by_another_process
    the_runtimes_timeout_drops_the_wait_and_leaves_the_lock
    half_of_a_crowd_is_dropped_and_the_other_half_is_served
    many_tasks_take_turns);
under!(Smol: smol_runtime:
    a_wait_is_granted_by_another_process
    the_runtimes_timeout_drops_the_wait_and_leaves_the_lock
    half_of_a_crowd_is_dropped_and_the_other_half_is_served
    many_tasks_take_turns);
