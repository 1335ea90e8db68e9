//! Errors of the system: each one becomes a typed error that names the path and the operation, and
//! leaves nothing behind.

use std::process::Command;

use flockwork::{Error, Lock};

use crate::peer::Way::Timeout;
use crate::peer::lock::Call;
use crate::peer::{Peer, Request};
use crate::support::unprivileged::unprivileged;

fn dirs() -> (tempfile::TempDir, std::path::PathBuf) {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::Builder::new()
        .permissions(std::fs::Permissions::from_mode(0o755))
        .tempdir()
        .unwrap();
    let path = dir.path().join("a.lock");
    (dir, path)
}

#[track_caller]
fn assert_io(path: &std::path::Path, operation: &str) -> Error {
    let error = Lock::open(path).unwrap_err();
    assert_eq!(error.path(), path);
    assert!(error.to_string().starts_with(&format!("could not {operation} `")), "{error}");
    assert_eq!(
        error.operation().map(|operation| operation.to_string()).as_deref(),
        Some(operation)
    );
    error
}

#[test]
fn a_name_that_is_too_long_is_a_clear_error() {
    limit!();
    let (dir, _) = dirs();
    let error = assert_io(&dir.path().join("x".repeat(256)), "look up");
    assert_eq!(
        error.io_error().unwrap().raw_os_error(),
        Some(rustix::io::Errno::NAMETOOLONG.raw_os_error())
    );
    let long = dir.path().join("y/".repeat(3000));
    assert!(Lock::open(long.join("z")).is_err());
    // A name too long for the record's suffix is locked without a record.
    let tight = dir.path().join("z".repeat(255));
    let lock = flockwork::Options::new().label("x").open_lock(&tight).unwrap();
    let held = lock.lock().unwrap();
    assert!(!held.was_abandoned());
    assert!(lock.try_lock().unwrap_err().to_string().contains("busy"));
}

#[test]
fn a_parent_that_is_a_file_is_an_error() {
    limit!();
    let (dir, path) = dirs();
    std::fs::write(&path, "").unwrap();
    let error = assert_io(&path.join("b.lock"), "look up");
    assert_eq!(error.io_error().unwrap().kind(), std::io::ErrorKind::NotADirectory);
    drop(dir);
}

#[test]
fn empty_and_impossible_paths_are_errors() {
    limit!();
    for path in ["", "a\0b"] {
        let error = Lock::open(path).unwrap_err();
        assert_eq!(
            error.io_error().unwrap().kind(),
            std::io::ErrorKind::InvalidInput,
            "{path:?}: {error}"
        );
    }
    let (dir, path) = dirs();
    assert!(Lock::open(path.join("")).is_err(), "a path with a slash at its end");
    assert!(Lock::open(dir.path().join("..")).is_err());
}

#[test]
fn paths_that_are_not_utf8_are_locked() {
    limit!();
    use std::os::unix::ffi::OsStrExt as _;
    let (dir, _) = dirs();
    let path = dir.path().join(std::ffi::OsStr::from_bytes(b"\xff\xfe.lock"));
    let lock = match Lock::open(&path) {
        Ok(lock) => lock,
        // Some file systems (APFS, ZFS with utf8only) reject such names.
        Err(error) if error.to_string().starts_with("could not create") => return,
        Err(error) => panic!("{error}"),
    };
    let _held = lock.lock().unwrap();
    let error = lock.try_lock().unwrap_err();
    assert_eq!(error.path(), path);
    assert!(!error.to_string().is_empty());
}

#[test]
fn a_directory_that_is_closed_to_the_user_is_an_error() {
    limit!();
    use std::os::unix::fs::PermissionsExt as _;
    let (dir, path) = dirs();
    let closed = dir.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::write(&path, "").unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o555)).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).unwrap();
    let mut peer = unprivileged();
    for (path, operation, advice) in [
        (closed.join("a.lock"), "create", "must be able to write to the directory"),
        (closed.join("b/a.lock"), "create the parent directory of", "write to the directory"),
        (path, "open", "must be able to read the file"),
    ] {
        let before = peer.run(Request::CountDescriptors);
        let answer = peer.expect_error(Call::Open(path.clone(), vec![]));
        let expected = format!("PermissionDenied: could not {operation} `{}`", path.display());
        assert!(answer.starts_with(&expected), "{answer}");
        assert!(answer.contains(advice), "{answer}");
        peer.expect(Request::CountDescriptors, &before);
    }
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn running_out_of_descriptors_is_an_error_without_a_leak() {
    limit!();
    let (_dir, path) = dirs();
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -n 24 && exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap());
    let mut peer = Peer::start_as(command);
    peer.open_lock(&path, &[]);
    let mut opened = 0;
    let failed = loop {
        let path = path.with_extension(format!("lock.{opened}"));
        if let Err(error) = peer.ask(Call::OpenAlso(path)) {
            break error;
        }
        opened += 1;
        assert!(opened < 100);
    };
    assert!(failed.contains("could not ") && failed.contains(".lock."), "{failed}");
    assert!(failed.contains("ulimit -n"), "{failed}");
    // Nothing was leaked, and calls that need no new descriptor work. A second acquisition would
    // need one.
    peer.lock();
    peer.unlock();
    // A wait uses the descriptor that the handle keeps, so it works, too.
    let lock = Lock::open(&path).unwrap();
    let held = lock.lock().unwrap();
    peer.begin(Call::Acquire(Timeout(100_000)));
    crate::support::until_blocked(&path, 1);
    drop(held);
    peer.finish();
}

// Linux only: strace injects the errors.
#[cfg(target_os = "linux")]
mod injected {
    use super::*;
    use crate::peer::Way::{Async, Block, Try};
    use crate::peer::once::Work;
    use crate::peer::shared_file::Change;
    use crate::peer::{event, label, once, rwlock, semaphore, shared_file};
    use crate::support::strace::{NFS, injected, strace};
    use crate::support::{eventually, has};

    fn open(peer: &mut Peer, path: &std::path::Path) {
        peer.open_lock(path, &[]);
    }

    #[test]
    fn a_file_system_without_locks_is_an_error_and_never_a_lock() {
        limit!();
        for errno in ["ENOSYS", "EOPNOTSUPP"] {
            let (_dir, path) = dirs();
            let Some(mut peer) = injected(&path, &format!("flock:error={errno}")) else {
                return;
            };
            open(&mut peer, &path);
            for way in [Try, Block, Timeout(100_000), Async] {
                let answer = peer.expect_error(Call::Acquire(way));
                assert!(answer.starts_with("unsupported: "), "{way:?}: {answer}");
                assert!(answer.contains(&path.display().to_string()), "{answer}");
            }
            drop(Lock::open(&path).unwrap().try_lock().unwrap());
        }
    }

    #[test]
    fn a_denied_lock_is_an_error_in_each_form_and_leaves_nothing() {
        limit!();
        for (errno, way) in
            [("ENOLCK", Try), ("ENOLCK", Block), ("ENOLCK", Timeout(100_000)), ("EIO", Async)]
        {
            let (_dir, path) = dirs();
            let Some(mut peer) = injected(&path, &format!("flock:error={errno}:when=1")) else {
                return;
            };
            open(&mut peer, &path);
            let before = peer.run(Request::CountDescriptors);
            let answer = peer.expect_error(Call::Acquire(way));
            assert!(answer.contains(": could not lock `"), "{way:?}: {answer}");
            // The failed descriptor is closed, and the next call opens a new one.
            peer.run(Call::Acquire(way));
            peer.unlock();
            peer.expect(Request::CountDescriptors, &before);
        }
    }

    #[test]
    fn a_failed_unlock_is_reported_and_still_frees_the_lock() {
        limit!();
        let (_dir, path) = dirs();
        let Some(mut peer) = injected(&path, "flock:error=EIO:when=2") else { return };
        open(&mut peer, &path);
        peer.run(Call::Acquire(Try));
        let answer = peer.expect_error(Call::Unlock);
        assert!(answer.contains("could not unlock"), "{answer}");
        drop(Lock::open(&path).unwrap().try_lock().unwrap());
        peer.run(Call::Acquire(Try));
    }

    #[test]
    fn a_full_disk_is_a_clear_error() {
        limit!();
        let (_dir, path) = dirs();
        let Some(mut peer) = injected(&path, "openat:error=ENOSPC:when=1") else { return };
        let before = peer.run(Request::CountDescriptors);
        let answer = peer.expect_error(Call::Open(path.clone(), vec![]));
        assert!(answer.starts_with("StorageFull: could not create `"), "{answer}");
        peer.expect(Request::CountDescriptors, &before);
        open(&mut peer, &path);
    }

    #[test]
    fn a_spurious_eexist_is_tried_again() {
        limit!();
        let (_dir, path) = dirs();
        let Some(mut peer) = injected(&path, "openat:error=EEXIST:when=1") else { return };
        open(&mut peer, &path);
        peer.lock();
    }

    #[test]
    fn on_a_network_file_system_eacces_from_a_try_means_busy() {
        limit!();
        let (_dir, path) = dirs();
        let inject = format!("flock:error=EACCES:when=1;{NFS}");
        let Some(mut peer) = injected(&path, &inject) else { return };
        open(&mut peer, &path);
        let answer = peer.expect_error(Call::Acquire(Try));
        assert!(answer.starts_with("would-block"), "{answer}");
        // strace counts the calls of each thread, and another helper may make this one.
        eventually("the lock is acquired", || peer.ask(Call::Acquire(Try)).is_ok());
    }

    /// A security module answers a confined process like this.
    #[test]
    fn on_a_local_file_system_eacces_is_a_denial_and_ends_each_wait() {
        limit!();
        let (dir, path) = dirs();
        std::fs::write(dir.path().join("set"), "").unwrap();
        let Some(mut peer) = strace(&[], "flock:error=EACCES") else { return };
        open(&mut peer, &path);
        let at = |name: &str| dir.path().join(name);
        peer.open_rwlock(&at("rw"), &[]);
        peer.open_event(&at("set"), &[]);
        peer.open_once(&at("once"), &[]);
        peer.open_shared_file(&at("file"), &[]);
        peer.open_semaphore(&at("sem"), 2, &[]);
        let log = at("log");
        let mut requests: Vec<Request> = Vec::new();
        for way in [Try, Block, Timeout(100_000), Async] {
            requests.push(Call::Acquire(way).into());
            requests.push(semaphore::Call::Acquire(1, way).into());
        }
        for way in [Block, Timeout(100_000), Async] {
            requests.push(rwlock::Call::Read(way).into());
            requests.push(rwlock::Call::Write(way).into());
            requests.push(event::Call::Consume(way).into());
            requests.push(shared_file::Call::Update(Change::Append("x".into()), way).into());
            requests.push(once::Call::Run(log.clone(), Work::Succeed, way).into());
        }
        for request in requests {
            let answer = peer.expect_error(request.clone());
            assert!(answer.contains("PermissionDenied: could not lock `"), "{request:?}: {answer}");
            assert!(answer.contains("security policy"), "{request:?}: {answer}");
        }
        assert!(dir.path().join("set").exists());
    }

    /// Without threads, timed waits and futures poll.
    #[test]
    fn without_threads_waits_poll() {
        limit!();
        for way in [Timeout(100_000), Async] {
            let (_dir, path) = dirs();
            // libtest itself works without threads if it cannot create one.
            let inject = "clone3,clone:error=EAGAIN";
            let Some(mut peer) = strace(&[], inject) else { return };
            open(&mut peer, &path);
            let lock = Lock::open(&path).unwrap();
            let held = lock.lock().unwrap();
            peer.begin(Call::Acquire(way));
            std::thread::sleep(std::time::Duration::from_millis(100));
            assert_eq!(crate::support::blocked(&path), 0, "a thread was created");
            assert!(peer.is_silent());
            drop(held);
            peer.finish();
            assert!(lock.try_lock().unwrap_err().is_would_block());
        }
    }

    /// strace replaces the result of fstatfs with the magic number of NFS. No wait may block in the
    /// kernel, and every form of wait still acquires the lock.
    #[test]
    fn on_a_network_file_system_waits_are_polled() {
        limit!();
        let (_dir, path) = dirs();
        let Some(mut peer) = strace(&[], NFS) else { return };
        open(&mut peer, &path);
        let lock = Lock::open(&path).unwrap();
        for way in [Block, Timeout(100_000), Async] {
            let held = lock.lock().unwrap();
            peer.begin(Call::Acquire(way));
            std::thread::sleep(std::time::Duration::from_millis(100));
            assert_eq!(crate::support::blocked(&path), 0, "{way:?} blocks in the kernel");
            assert!(peer.is_silent());
            drop(held);
            peer.finish();
            peer.unlock();
        }
        let held = lock.lock().unwrap();
        peer.expect_timed_out(Call::Acquire(Timeout(20)));
        drop(held);
        peer.run(Call::Acquire(Timeout(100_000)));
    }

    #[test]
    fn on_a_read_only_file_system_only_existing_files_are_locked() {
        limit!();
        if !has("unshare", &["-m", "true"]) {
            return;
        }
        let script = "mount -t tmpfs none \"$1\" && : > \"$1/a.lock\" && mount -o remount,ro \"$1\" \
                      && shift && exec \"$@\"";
        let (dir, path) = dirs();
        let mut command = Command::new("unshare");
        command
            .args(["-m", "sh", "-c", script, "sh"])
            .arg(dir.path())
            .arg(std::env::current_exe().unwrap());
        let mut peer = Peer::start_as(command);
        peer.open_lock(&path, &[label("no room for a record")]);
        for way in [Try, Block, Timeout(100_000), Async] {
            peer.run(Call::Acquire(way));
            peer.unlock();
        }
        let answer = peer.expect_error(Call::Open(dir.path().join("b.lock"), vec![]));
        assert!(answer.starts_with("ReadOnlyFilesystem: could not create `"), "{answer}");
    }
}
