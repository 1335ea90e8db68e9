//! The contracts of the public API as a whole: traits, futures, error texts and unchanged updates.

use std::fmt::Debug;
use std::hash::Hash;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::Path;

use flockwork::{
    Access, Announcement, Barrier, BarrierWaitResult, Error, ErrorKind, Event, FileReadGuard,
    FileWriteGuard, Holder, Lock, LockGuard, MergeError, Once, Operation, Options, Permit, RwLock,
    RwLockReadGuard, RwLockWriteGuard, Semaphore, SharedFile, Status, StatusKind,
};

fn is_handle<T>()
where
    T: Clone + Send + Sync + UnwindSafe + RefUnwindSafe + Debug + AsRef<Path> + 'static,
{
}

fn is_guard<T: Send + Sync + Debug + 'static>() {}

fn is_value<T: Clone + Eq + Hash + Debug + Send + Sync + UnwindSafe + 'static>() {}

fn is_future<T: Future + Send + 'static>(_: T) {}

#[test]
fn every_public_type_has_the_traits_of_its_kind() {
    limit!();
    is_handle::<Lock>();
    is_handle::<RwLock>();
    is_handle::<Semaphore>();
    is_handle::<Event>();
    is_handle::<Once>();
    is_handle::<SharedFile>();
    is_handle::<Barrier>();
    is_guard::<LockGuard>();
    is_guard::<RwLockReadGuard>();
    is_guard::<RwLockWriteGuard>();
    is_guard::<Permit>();
    is_guard::<MergeError>();
    is_guard::<FileReadGuard>();
    is_guard::<FileWriteGuard>();
    is_guard::<Announcement>();
    is_guard::<Options>();
    is_guard::<Error>();
    is_value::<Access>();
    is_value::<ErrorKind>();
    is_value::<Operation>();
    is_value::<Holder>();
    is_value::<Status>();
    is_value::<BarrierWaitResult>();
    is_value::<StatusKind>();
    assert!(size_of::<Error>() == size_of::<usize>(), "an error is one pointer");
}

#[test]
fn every_future_can_be_sent_and_borrows_nothing() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let lock = Lock::open(at("lock")).unwrap();
    is_future(lock.lock_async());
    let rwlock = RwLock::open(at("rwlock")).unwrap();
    is_future(rwlock.read_async());
    is_future(rwlock.write_async());
    let semaphore = Semaphore::open(at("semaphore"), 1).unwrap();
    is_future(semaphore.acquire_async());
    is_future(semaphore.acquire_many_async(1));
    let event = Event::open(at("event")).unwrap();
    is_future(event.wait_async());
    is_future(event.wait_cleared_async());
    is_future(event.consume_async());
    is_future(event.wait_payload_async());
    is_future(Event::wait_any_async([&event]));
    is_future(Event::wait_all_async([&event]));
    let once = Once::open(at("once")).unwrap();
    is_future(once.call_once_async(|| async { Ok::<(), Error>(()) }));
    is_future(once.wait_async());
    is_future(once.reset_async());
    is_future(Barrier::open(at("barrier"), 2).unwrap().wait_async());
    let file = SharedFile::open(at("file")).unwrap();
    is_future(file.write_async("x"));
    is_future(file.update_async(|_| Ok::<(), Error>(())));
    is_future(file.lock_shared_async());
    is_future(file.lock_exclusive_async());
}

/// Formatting an error must not fail, wait or make a system call, because a logger may do it
/// anywhere.
#[test]
fn formatting_an_error_performs_no_lookup() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    // Where the system does not list the holders of a lock, its record does.
    let options = Options::new().record_holder(true);
    let lock = options.open_lock(dir.path().join("lock")).unwrap();
    let held = lock.lock().unwrap();
    let failed = lock.try_lock().unwrap_err();
    let text = failed.to_string();
    assert_eq!(text, format!("`{}` is busy", lock.path().display()));
    drop(held);
    assert_eq!(failed.to_string(), text);
    // The first call looks up the holder, which has released the lock by now.
    assert!(failed.holders().is_empty());

    let held = lock.lock().unwrap();
    let late = lock.lock_timeout(std::time::Duration::from_millis(50)).unwrap_err();
    drop(held);
    assert_eq!(late.kind(), ErrorKind::TimedOut);
    assert_eq!(late.holders()[0].pid(), std::process::id());
    assert!(late.to_string().contains("held by "), "{late}");
    assert!(late.waited().is_some_and(|waited| !waited.is_zero()));
    let source = std::error::Error::source(&late);
    assert!(source.is_none(), "formatting contains the holder");
}

/// An update that leaves the contents unchanged does not rewrite the file.
#[test]
fn an_update_that_changes_nothing_writes_nothing() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let file = SharedFile::open(&path).unwrap();
    let unchanged = file.update(|contents| Ok::<usize, Error>(contents.len())).unwrap();
    assert_eq!(unchanged, 0);
    assert!(!path.exists(), "no file is created");
    file.write("abc").unwrap();
    // A write replaces the file at the path, so a second hard link would keep the old file.
    let second_name = dir.path().join("second");
    std::fs::hard_link(&path, &second_name).unwrap();
    assert_eq!(file.update(|contents| Ok::<usize, Error>(contents.len())).unwrap(), 3);
    std::fs::write(&second_name, "abC").unwrap();
    assert_eq!(file.read().unwrap(), b"abC");
    let failed = file.update(|contents| {
        contents.clear();
        Err::<(), _>(std::io::Error::other("no"))
    });
    assert_eq!(failed.unwrap_err().to_string(), "no");
    assert_eq!(file.read().unwrap(), b"abC");
    file.update(|contents| {
        contents.push(b'd');
        Ok::<(), Error>(())
    })
    .unwrap();
    assert_eq!(file.read().unwrap(), b"abCd");
}
