//! Options of all primitives: nothing is created, symbolic links are followed, and shared files are
//! written in place.

use std::time::Duration;

use flockwork::{Error, ErrorKind, Options};

use crate::support::names_in;

#[track_caller]
fn assert_missing<T: std::fmt::Debug>(outcome: Result<T, Error>) {
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.hint().is_some(), "{error:?}");
}

#[test]
fn without_create_nothing_is_created_and_the_error_says_so() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().create(false);
    for path in [dir.path().join("it"), dir.path().join("a/b/it")] {
        assert_missing(options.open_lock(&path));
        assert_missing(options.open_rwlock(&path));
        assert_missing(options.open_semaphore(&path, 2));
        assert_missing(options.open_shared_file(&path));
        let once = options.open_once(&path).unwrap();
        assert!(!once.is_done().unwrap());
        assert_missing(once.call_once(|| -> Result<(), Error> { unreachable!() }));
        assert_missing(once.reset());
        let event = options.open_event(&path).unwrap();
        assert!(!event.is_set().unwrap());
        assert!(event.try_consume().unwrap_err().is_would_block());
    }
    let event = options.open_event(dir.path().join("a/b/it")).unwrap();
    assert_missing(event.set());
    assert_missing(event.set_with("x"));
    assert_missing(event.set_new("x"));
    assert_missing(event.set_while_alive("x"));
    assert_eq!(names_in(dir.path()), [""; 0]);

    // The lock file of consumers is created by a handle that may create it.
    let path = dir.path().join("ready");
    let event = options.open_event(&path).unwrap();
    event.set_with("x").unwrap();
    assert_missing(event.try_consume());
    assert_eq!(names_in(dir.path()), ["ready"]);
    assert_eq!(Options::new().open_event(&path).unwrap().consume().unwrap(), b"x");
    event.set_with("y").unwrap();
    assert_eq!(event.try_consume().unwrap(), b"y");
}

#[test]
fn without_create_existing_files_are_used_until_they_are_gone() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let options = Options::new().create(false);

    drop(Options::new().open_lock(at("lock")).unwrap());
    let lock = options.open_lock(at("lock")).unwrap();
    drop(lock.lock().unwrap());
    drop(lock.lock_timeout(Duration::from_secs(100)).unwrap());

    // A lock file that another program created has no turnstile.
    std::fs::write(at("rwlock"), "").unwrap();
    assert_missing(options.open_rwlock(at("rwlock")));
    drop(Options::new().open_rwlock(at("rwlock")).unwrap());
    let rwlock = options.open_rwlock(at("rwlock")).unwrap();
    drop(rwlock.read().unwrap());
    drop(rwlock.write().unwrap());

    std::fs::write(at("file"), "data").unwrap();
    let file = options.open_shared_file(at("file")).unwrap();
    assert_eq!(file.read().unwrap(), b"data");
    assert_missing(file.write("new"));
    assert_missing(file.lock_shared());
    drop(Options::new().open_shared_file(at("file")).unwrap().lock_shared().unwrap());
    file.write("new").unwrap();
    assert_eq!(file.read().unwrap(), b"new");
    std::fs::remove_file(at("file")).unwrap();
    assert_missing(file.write("newer"));
    assert_missing(file.update(|contents| {
        contents.push(b'x');
        Ok::<_, Error>(())
    }));
    assert!(!at("file").exists());

    // Windows keeps the name of an open file.
    if cfg!(unix) {
        std::fs::remove_file(at("lock")).unwrap();
        assert_missing(lock.lock());
        assert_missing(lock.try_lock());
        assert_missing(lock.lock_timeout(Duration::from_secs(100)));
        assert!(!at("lock").exists());
    }
}

#[test]
fn without_create_a_semaphore_needs_its_directory() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sem");
    let options = Options::new().create(false);

    std::fs::create_dir(&path).unwrap();
    assert_missing(options.open_semaphore(&path, 2));
    assert_eq!(names_in(&path), [""; 0]);

    drop(flockwork::Semaphore::open(&path, 70).unwrap());
    let error = options.open_semaphore(&path, 2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CapacityMismatch, "{error}");
    let semaphore = options.open_semaphore(&path, 70).unwrap();
    // Only 64 slot files exist, and the others are created when they are needed.
    let all = semaphore.acquire_many(70).unwrap();
    assert_eq!(all.slots().len(), 70);
    assert!(semaphore.try_acquire().unwrap_err().is_would_block());
    drop(all);
    semaphore.set_capacity(80).unwrap();

    // Windows keeps the names of open files.
    if cfg!(unix) {
        let held = semaphore.acquire().unwrap();
        assert!(held.still_held().unwrap());
        std::fs::remove_dir_all(&path).unwrap();
        assert!(!held.still_held().unwrap());
        drop(held);
        // A handle checks the directory now and then, and a wait checks it at once.
        let waiting = (0..2000).find_map(|_| semaphore.try_acquire().err());
        assert_missing(waiting.map_or(Ok(()), Err));
        assert_missing(semaphore.acquire_many(80));
        assert_missing(semaphore.acquire_many_timeout(80, Duration::from_secs(100)));
        assert_missing(semaphore.set_capacity(90));
        assert_missing(semaphore.available_permits());
        assert_missing(semaphore.capacity());
        assert!(!path.exists());
        drop(flockwork::Semaphore::open(&path, 3).unwrap());
        let all = semaphore.acquire_many(3).unwrap();
        assert_eq!(all.slots(), [0, 1, 2]);

        // Two waiters: the second finds the directory missing when the first gives up.
        crate::support::running::scope(|scope| {
            let wait = || semaphore.acquire_timeout(Duration::from_secs(100));
            let waiters = [scope.spawn(wait), scope.spawn(wait)];
            crate::support::until_blocked(&path.join("gate"), 1);
            // A waiter may restore files while a directory is removed file by file.
            std::fs::rename(&path, dir.path().join("moved")).unwrap();
            for waiter in waiters {
                assert_missing(waiter.join().unwrap());
            }
        });
        assert!(!path.exists());
        drop(all);
        assert!(!path.exists());
    }
}

#[test]
fn a_shared_file_written_in_place_stays_the_same_file() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let file = Options::new().write_in_place(true).fsync(true).open_shared_file(&path).unwrap();
    file.write("the first contents").unwrap();
    let second_name = dir.path().join("second");
    std::fs::hard_link(&path, &second_name).unwrap();
    for contents in ["short", "", "longer than the first contents"] {
        file.write(contents).unwrap();
        assert_eq!(file.read_to_string().unwrap(), contents);
        assert_eq!(std::fs::read_to_string(&second_name).unwrap(), contents);
    }
    file.update(|contents| {
        contents.truncate(6);
        Ok::<_, Error>(())
    })
    .unwrap();
    assert_eq!(std::fs::read(&second_name).unwrap(), b"longer");
    let mut names = names_in(dir.path());
    names.retain(|name| name != "file.flock.queue"); // it exists where waiters have tickets
    assert_eq!(names, ["file", "file.flock", "file.flock.gate", "second"]);
    // A handle without the option replaces the file.
    flockwork::SharedFile::open(&path).unwrap().write("another file").unwrap();
    assert_eq!(std::fs::read(&second_name).unwrap(), b"longer");
}

// Unix only: the tests create symbolic links.
#[cfg(unix)]
mod links {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::peer::lock::Call;
    use crate::peer::{Peer, shared_file};

    #[test]
    fn a_followed_link_leads_to_the_same_primitive() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("real")).unwrap();
        // Relative and through another link; the target does not exist yet.
        symlink("second", at("link")).unwrap();
        symlink("real/it", at("second")).unwrap();
        let target = at("real/it");
        let options = Options::new().follow_symlinks(true);

        let refused = Options::new().open_lock(at("link")).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NotRegularFile, "{refused}");
        let lock = options.open_lock(at("link")).unwrap();
        assert_eq!(lock.path(), target);
        let mut other = Peer::start();
        other.run(Call::Open(target.clone(), Vec::new()));
        let guard = lock.lock().unwrap();
        other.expect_would_block(Call::Acquire(crate::peer::Way::Try));
        drop(guard);

        let file = options.open_shared_file(at("link")).unwrap();
        file.write("new").unwrap();
        let mut other = shared_file::peer(&target, &[]);
        other.expect(shared_file::Call::Read, "new");
        let _writing = file.lock_exclusive().unwrap();
        other.expect_would_block(shared_file::Call::ReadLocked(crate::peer::Way::Try));
        assert!(at("link").is_symlink() && at("second").is_symlink());
        assert_eq!(names_in(dir.path()), ["link", "real", "second"]);

        std::fs::remove_file(&target).unwrap();
        let event = options.open_event(at("link")).unwrap();
        event.set_with("payload").unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"payload");
        assert!(options.open_once(at("link")).unwrap().is_done().unwrap());
        drop(options.open_rwlock(at("link")).unwrap().try_read().unwrap());
        std::fs::remove_file(&target).unwrap();
        let semaphore = options.open_semaphore(at("link/"), 1).unwrap();
        assert_eq!(semaphore.path(), target);
        let _permit = semaphore.acquire().unwrap();
        let mut other = crate::peer::semaphore::peer(&target, 1, &[]);
        other.expect_would_block(crate::peer::semaphore::Call::Acquire(1, crate::peer::Way::Try));
        let refused = Options::new().open_semaphore(at("link"), 1).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NotRegularFile, "{refused}");
        std::fs::remove_dir_all(&target).unwrap();
        std::fs::write(&target, "").unwrap();
        assert_eq!(options.open_lock(&target).unwrap().path(), target, "it is no link");
    }

    /// A link at the name of a lock file beside the target was planted by another user.
    #[test]
    fn only_the_link_at_the_path_itself_is_followed() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        symlink(at("file"), at("link")).unwrap();
        std::fs::write(at("victim"), "theirs").unwrap();
        let options = Options::new().follow_symlinks(true);
        for sidecar in ["file.flock", "file.flock.gate"] {
            symlink(at("victim"), at(sidecar)).unwrap();
            let file = options.open_shared_file(at("link")).unwrap();
            let error = file.write("new").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotRegularFile, "{error}");
            std::fs::remove_file(at(sidecar)).unwrap();
        }
        symlink(at("loop"), at("loop")).unwrap();
        let error = options.open_shared_file(at("loop")).unwrap_err();
        assert!(error.to_string().contains("too many symbolic links"), "{error}");
        assert_eq!(std::fs::read(at("victim")).unwrap(), b"theirs");
    }

    #[test]
    fn a_link_that_is_changed_later_has_no_effect() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        symlink("one", at("link")).unwrap();
        let file = Options::new().follow_symlinks(true).open_shared_file(at("link")).unwrap();
        std::fs::remove_file(at("link")).unwrap();
        symlink("two", at("link")).unwrap();
        file.write("new").unwrap();
        assert!(at("one").exists() && !at("two").exists());
    }
}
