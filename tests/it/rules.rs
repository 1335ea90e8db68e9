//! The rules for files on disk (`docs/PROTOCOL.md`, rules 1 to 9), each with a test that fails when the
//! rule is broken.

use std::path::Path;

use flockwork::{Error, Lock};

use crate::peer::Peer;
use crate::support::until_blocked;

// ------------------------------------------------------------------------------- rule 1: opening

#[test]
fn content_is_never_touched() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    std::fs::write(&path, "precious").unwrap();
    let before = std::fs::metadata(&path).unwrap().modified().unwrap();
    let lock = Lock::open(&path).unwrap();
    drop(lock.lock().unwrap());
    drop(lock.try_lock().unwrap());
    drop(futures_lite::future::block_on(lock.lock_async()).unwrap());
    drop(lock);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), before);
}

#[test]
fn missing_parent_directories_are_made() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/c/d.lock");
    drop(Lock::open(&path).unwrap().lock().unwrap());
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
}

#[track_caller]
fn assert_not_regular(path: &Path, what: &str) {
    match Lock::open(path) {
        Err(Error::NotRegularFile { path: told, found, .. }) => {
            assert_eq!((&*told, found), (path, what));
        }
        other => panic!("{}: {other:?}", path.display()),
    }
}

#[test]
fn a_directory_is_refused() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    assert_not_regular(dir.path(), "a directory");
}

// Unix only: symbolic links, FIFOs, devices, mode bits. `windows` has what there is on Windows.
#[cfg(unix)]
mod on_unix {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
    use std::process::Command;

    use flockwork::{Access, Options};

    use super::*;
    use crate::running::Start as _;

    #[test]
    fn a_symlink_is_refused_and_left_and_its_target_too() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        std::fs::write(&target, "theirs").unwrap();
        symlink(&target, &link).unwrap();
        assert_not_regular(&link, "a symbolic link");
        std::fs::remove_file(&target).unwrap();
        assert_not_regular(&link, "a symbolic link");
        assert!(!target.exists(), "made through a dangling link");
        assert_eq!(std::fs::read_link(&link).unwrap(), target);
    }

    #[test]
    fn a_symlink_that_takes_the_place_of_the_file_is_refused_by_the_next_acquisition() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("a.lock"), dir.path().join("moved"));
        let lock = Lock::open(&path).unwrap();
        std::fs::rename(&path, &moved).unwrap();
        symlink(&moved, &path).unwrap();
        for outcome in [lock.try_lock(), lock.lock()] {
            assert!(matches!(outcome, Err(Error::NotRegularFile { .. })), "{outcome:?}");
        }
    }

    #[test]
    fn symlinked_parents_are_followed_and_lead_to_the_same_lock() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        std::fs::create_dir(&real).unwrap();
        symlink(&real, &link).unwrap();
        let one = Lock::open(real.join("a.lock")).unwrap();
        let two = Lock::open(link.join("a.lock")).unwrap();
        let _held = one.lock().unwrap();
        assert!(two.try_lock().unwrap_err().is_would_block());
    }

    #[test]
    fn a_fifo_is_refused_at_once_and_nobody_behind_it_notices() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        // A reader that is blocked in its open would be let through by our opening it.
        let mut reader = Command::new("cat").arg(&fifo).start();
        assert_not_regular(&fifo, "a FIFO");
        assert!(reader.try_wait().unwrap().is_none(), "the reader was let through");
        reader.kill().unwrap();
        reader.wait().unwrap();
        assert!(std::fs::symlink_metadata(&fifo).unwrap().file_type().is_fifo());
    }

    #[test]
    fn a_device_and_a_socket_are_refused() {
        limit!();
        assert_not_regular(Path::new("/dev/null"), "a device");
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert_not_regular(&socket, "a socket");
    }

    #[test]
    fn what_is_created_has_the_access_that_was_asked_for_whatever_the_umask() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o7777;
        for (access, file, directory) in [
            (Access::Private, 0o600, 0o700),
            (Access::Group, 0o660, 0o770),
            (Access::Everyone, 0o666, 0o777),
        ] {
            let parent = dir.path().join(format!("{access:?}"));
            let path = parent.join("inner/a.lock");
            let lock = Options::new().access(access).label("x").open_lock(&path).unwrap();
            let _held = lock.lock().unwrap();
            assert_eq!(mode(&path), file, "{access:?}");
            assert_eq!(mode(&parent), directory, "{access:?}");
            assert_eq!(mode(&parent.join("inner")), directory, "{access:?}");
            assert_eq!(mode(&parent.join("inner/a.lock.holder")), file, "{access:?}");
            let left: Vec<_> = std::fs::read_dir(parent.join("inner")).unwrap().collect();
            assert_eq!(left.len(), 2, "{left:?}");
        }
        // A directory under one that hands its group down does so too.
        let shared = dir.path().join("shared");
        std::fs::create_dir(&shared).unwrap();
        std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o2770)).unwrap();
        drop(Options::new().access(Access::Group).open_lock(shared.join("sub/a.lock")).unwrap());
        assert_eq!(mode(&shared.join("sub")), 0o2770);

        let plain = dir.path().join("plain");
        std::fs::write(&plain, "").unwrap();
        let path = dir.path().join("a.lock");
        drop(Lock::open(&path).unwrap());
        assert_eq!(mode(&path), mode(&plain));
        // What exists keeps its mode.
        std::fs::set_permissions(&plain, std::fs::Permissions::from_mode(0o640)).unwrap();
        drop(Options::new().access(Access::Everyone).open_lock(&plain).unwrap());
        assert_eq!(mode(&plain), 0o640);
    }

    #[test]
    fn a_file_that_can_only_be_read_is_locked() {
        limit!();
        // The superuser may write to any file, so another user has to ask.
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = dir.path().join("a.lock");
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o444)).unwrap();
        let mut peer = crate::refusals::unprivileged();
        peer.expect(&format!("open\t{}", path.display()), "ok");
        peer.expect("lock", "held");
        assert!(Lock::open(&path).unwrap().try_lock().unwrap_err().is_would_block());
        peer.expect("unlock", "ok");
        peer.expect("timeout\t100000", "held");
    }

    /// Made, copied and run by other processes, so that no fork of another test has a descriptor of ours.
    #[test]
    fn a_program_that_is_locked_can_be_run() {
        limit!();
        for access in [Access::Umask, Access::Private] {
            for is_there in [true, false] {
                let dir = tempfile::tempdir().unwrap();
                let path = dir.path().join("program");
                let install = || {
                    let script = "cp \"$(command -v sh)\" \"$1\" && chmod 755 \"$1\"";
                    let mut copy = Command::new("sh");
                    copy.args(["-c", script, "sh"]).arg(&path);
                    assert!(copy.status().unwrap().success());
                };
                if is_there {
                    install();
                }
                let lock = Options::new().access(access).open_lock(&path).unwrap();
                let held = lock.lock().unwrap();
                if !is_there {
                    install(); // into the file that was created as a lock
                }
                let ran = Command::new(&path).args(["-c", "exit 7"]).status();
                assert_eq!(ran.map_err(|error| error.to_string()).unwrap().code(), Some(7));
                assert!(lock.try_lock().unwrap_err().is_would_block());
                drop(held);
            }
        }
    }

    // Linux only: reads `/proc/PID/fdinfo`, and what fstatfs says is changed by strace.
    #[cfg(target_os = "linux")]
    #[test]
    fn only_on_a_network_file_system_lock_files_are_opened_to_write() {
        limit!();
        // Nothing that matters is refused to the first; the second asks and gets no answer.
        for (inject, access_mode) in
            [("fsync:error=EIO", 0), ("fstatfs:error=EPERM", 2), (crate::refusals::NFS, 2)]
        {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a.lock");
            std::fs::write(&path, "").unwrap();
            let Some(mut peer) = crate::refusals::strace(&[], inject) else { return };
            peer.expect(&format!("open\t{}", path.display()), "ok");
            peer.expect("lock", "held");
            let flags = peer.ask(&format!("flags\t{}", path.display()));
            let flags = u32::from_str_radix(&flags, 8).unwrap();
            assert_eq!(flags & 3, access_mode, "{inject}: {flags:o}");
        }
    }

    // Linux only: reads `/proc/self/fd`.
    #[cfg(target_os = "linux")]
    #[test]
    fn descriptors_are_closed_on_exec() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        let lock = Lock::open(&path).unwrap();
        let _held = lock.lock().unwrap();
        let listing = Command::new("ls").args(["-l", "/proc/self/fd"]).output().unwrap();
        let listing = String::from_utf8_lossy(&listing.stdout).into_owned();
        assert!(!listing.contains("a.lock"), "{listing}");
    }
}

// ----------------------------------------------------------- rule 2: the path names what is locked

/// The ways in which a lock file leaves its path.
// Unix only: Windows removes and renames no lock file that is open (rule 7).
#[cfg(unix)]
mod replaced {
    use super::*;
    use crate::support::assert_waits;

    const WAYS: [fn(&Path); 4] = [
        |path| std::fs::remove_file(path).unwrap(),
        |path| std::fs::rename(path, path.with_extension("moved")).unwrap(),
        |path| {
            let new = path.with_extension("new");
            std::fs::write(&new, "").unwrap();
            std::fs::rename(&new, path).unwrap();
        },
        // The file itself has its one link still: only a look at the whole path tells.
        |path| {
            let parent = path.parent().unwrap();
            let elsewhere = tempfile::tempdir_in(parent.parent().unwrap()).unwrap().keep();
            std::fs::rename(parent, elsewhere.join("moved")).unwrap();
        },
    ];

    fn in_each_way(test: impl Fn(&Path, fn(&Path)) + Sync) {
        crate::running::share(WAYS.len(), &WAYS, |way| {
            let dir = tempfile::tempdir().unwrap();
            let parent = dir.path().join("parent");
            std::fs::create_dir(&parent).unwrap();
            test(&parent.join("a.lock"), *way);
        });
    }

    #[test]
    fn the_next_acquirer_locks_what_the_path_names() {
        limit!();
        in_each_way(|path, replace| {
            let lock = Lock::open(path).unwrap();
            drop(lock.lock().unwrap());
            replace(path);
            let held = lock.try_lock().unwrap();
            assert!(Lock::open(path).unwrap().try_lock().unwrap_err().is_would_block());
            drop(held);
            replace(path);
            let _held = lock.lock().unwrap();
            assert!(Lock::open(path).unwrap().try_lock().unwrap_err().is_would_block());
        });
    }

    /// Also where a wait for something else is on, so that it does not begin with a try.
    #[test]
    fn the_next_acquirer_does_not_wait_for_the_holder_of_what_was_replaced() {
        limit!();
        in_each_way(|path, replace| {
            let other = Lock::open(path.with_extension("other")).unwrap();
            let _held = other.lock().unwrap();
            let mut waiting = other.lock_async();
            assert_waits(&mut waiting);
            let lock = Lock::open(path).unwrap();
            let mut holder = Peer::with_lock(path);
            for acquire in [
                (|lock| lock.lock()) as fn(&Lock) -> _,
                |lock| lock.lock_timeout(std::time::Duration::MAX),
                |lock| futures_lite::future::block_on(lock.lock_async()),
            ] {
                holder.expect("lock", "held");
                replace(path);
                drop(acquire(&lock).unwrap());
                holder.expect("unlock", "ok");
            }
        });
    }

    #[test]
    fn a_refusal_by_a_file_that_the_path_names_no_more_is_not_believed() {
        limit!();
        in_each_way(|path, replace| {
            let lock = Lock::open(path).unwrap();
            let mut holder = Peer::with_lock(path);
            holder.expect("lock", "held");
            assert!(lock.try_lock().unwrap_err().is_would_block());
            replace(path);
            drop(lock.try_lock().unwrap());
        });
    }

    #[test]
    fn a_waiter_for_a_file_that_was_replaced_gets_the_new_one_and_only_alone() {
        limit!();
        in_each_way(|path, replace| {
            for wait in ["lock", "timeout\t100000", "async"] {
                let mut first = Peer::with_lock(path);
                first.expect("lock", "held");
                let mut waiter = Peer::with_lock(path);
                waiter.tell(wait);
                until_blocked(path, 1);
                replace(path);
                let mut second = Peer::with_lock(path);
                second.expect("try", "held");
                // The waiter is granted the old file, and must not take it for the lock.
                first.expect("unlock", "ok");
                until_blocked(path, 1);
                assert_eq!(waiter.has_answered(), None);
                second.expect("unlock", "ok");
                assert_eq!(waiter.answer(), "held");
                assert!(second.ask("try").starts_with("would-block"));
                waiter.expect("unlock", "ok");
            }
        });
    }

    /// A helper that waits for one file must not be taken for one that waits for another.
    #[test]
    fn a_file_that_comes_back_is_waited_for_again() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let (path, aside) = (dir.path().join("a.lock"), dir.path().join("aside"));
        let lock = Lock::open(&path).unwrap();
        let mut first = Peer::with_lock(&path);
        first.expect("lock", "held");
        let long = std::time::Duration::from_secs(100);
        crate::running::scope(|scope| {
            let waiter = scope.spawn(|| lock.lock_timeout(long).map(drop));
            until_blocked(&path, 1);
            std::fs::rename(&path, &aside).unwrap();
            let mut second = Peer::with_lock(&path);
            second.expect("lock", "held");
            first.expect("unlock", "ok"); // the helper is granted the old file, and begins again
            until_blocked(&path, 1);
            std::fs::rename(&aside, &path).unwrap(); // and the old one is back, and free
            drop(lock.lock_timeout(long).unwrap());
            second.expect("unlock", "ok");
            waiter.join().unwrap().unwrap();
        });
    }

    #[test]
    fn a_timed_waiter_for_a_file_that_was_replaced_gets_the_new_one_at_its_deadline() {
        limit!();
        in_each_way(|path, replace| {
            let mut holder = Peer::with_lock(path);
            holder.expect("lock", "held");
            let mut waiter = Peer::with_lock(path);
            waiter.tell("timeout\t6000"); // long enough to replace the file on any machine
            until_blocked(path, 1);
            replace(path);
            assert_eq!(waiter.answer(), "held");
        });
    }

    /// That the path names another file, or none, is what strace makes lstat say.
    // Linux only: what lstat says is changed by strace.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_replaced_900_times_in_a_row_is_locked_after_that() {
        limit!();
        for wait in ["lock", "try"] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a.lock");
            let inject = "newfstatat:error=ENOENT:when=1..900";
            let Some(mut peer) = crate::refusals::injected(&path, inject) else { return };
            peer.expect(&format!("open\t{}", path.display()), "ok");
            peer.expect(wait, "held");
            peer.expect("unlock", "ok");
        }
    }

    // Linux only: what lstat says is changed by strace.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_that_is_always_another_one_is_an_error_in_the_end() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        let inject = "newfstatat:error=ENOENT";
        let Some(mut peer) = crate::refusals::injected(&path, inject) else { return };
        peer.expect(&format!("open\t{}", path.display()), "ok");
        let answer = peer.ask("try");
        assert!(answer.contains("was replaced each time between opening and locking"), "{answer}");
    }

    #[test]
    fn a_file_that_is_replaced_all_the_time_never_has_two_holders() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        let lock = Lock::open(&path).unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        crate::running::scope(|scope| {
            let _end = crate::running::on_drop(|| {
                done.store(true, std::sync::atomic::Ordering::Relaxed);
            });
            // Many times in a row, and then not for a moment: on a busy machine a file that is
            // removed without any pause is replaced at each try.
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    for _ in 0..50 {
                        let _ = std::fs::remove_file(&path);
                        std::thread::yield_now();
                    }
                    std::thread::sleep(std::time::Duration::from_micros(200));
                }
            });
            let mut peer = Peer::with_lock(&path);
            for _ in 0..100 {
                drop(lock.lock().unwrap());
                peer.expect("lock", "held");
                peer.expect("unlock", "ok");
            }
        });
    }
}

// -------------------------------------------------------------- rule 3: never locked again in place

/// `flock` on a descriptor that has the lock succeeds, and on Windows it hangs or stacks: so no
/// acquisition may use a descriptor that a guard has.
#[test]
fn a_refused_second_acquisition_neither_shares_nor_loses_the_first() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let lock = Lock::open(&path).unwrap();
    let mut peer = Peer::with_lock(&path);
    let held = lock.lock().unwrap();
    for _ in 0..3 {
        assert!(lock.try_lock().unwrap_err().is_would_block());
        let timeout = std::time::Duration::from_millis(1);
        assert!(lock.lock_timeout(timeout).unwrap_err().is_timed_out());
        assert!(peer.ask("try").starts_with("would-block"));
    }
    drop(held);
    peer.expect("timeout\t100000", "held");
}

// ------------------------------------------------------------------- rule 4: only in its own process

// Unix only: Windows has no fork.
#[cfg(unix)]
mod forked {
    use flockwork::{
        FileReadGuard, FileWriteGuard, LockGuard, Options, Permit, ReadGuard, RwLock, Semaphore,
        SharedFile, WriteGuard,
    };

    use super::*;

    #[test]
    fn a_forked_copy_of_a_guard_frees_nothing() {
        limit!();
        for what in ["drop", "unlock"] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a.lock");
            let mut peer = Peer::start();
            peer.expect(&format!("open\t{}\tlabel=parent", path.display()), "ok");
            peer.expect("lock", "held");
            peer.expect(&format!("fork\t{what}"), "child 0");
            let lock = Lock::open(&path).unwrap();
            let error = lock.try_lock().unwrap_err();
            assert!(error.is_would_block());
            assert_eq!(error.holder().unwrap().label(), Some("parent"), "the record went");
            peer.expect("unlock", "ok");
            drop(lock.try_lock().unwrap());
        }
    }

    /// What a copy of a guard does in a child that is forked without exec: whether `release` fails as it should.
    fn refuses_in_a_fork<G>(guard: G, release: impl FnOnce(G) -> Result<(), Error>) -> Option<G> {
        match fork::fork().unwrap() {
            fork::Fork::Child => {
                let released = release(guard);
                let is_right = matches!(&released, Err(error @ Error::Io { .. })
                    if error.to_string().contains("`fork`") && !error.path().as_os_str().is_empty());
                std::process::exit(if is_right { 0 } else { 7 })
            }
            fork::Fork::Parent(child) => {
                let status = crate::support::ended(child).exit_status();
                (status == Some(0)).then_some(guard)
            }
        }
    }

    #[test]
    fn releasing_a_forked_copy_of_a_guard_is_an_error() {
        limit!();
        crate::support::alone(
            "rules::forked::releasing_a_forked_copy_of_a_guard_is_an_error",
            || {
                let dir = tempfile::tempdir().unwrap();
                let lock =
                    Options::new().label("parent").open_lock(dir.path().join("lock")).unwrap();
                let rw = RwLock::open(dir.path().join("rw")).unwrap();
                let pool = Semaphore::open(dir.path().join("pool"), 3).unwrap();
                let file = SharedFile::open(dir.path().join("file")).unwrap();

                let held = lock.lock().unwrap();
                let held = refuses_in_a_fork(held, LockGuard::unlock).expect("a lock");
                assert!(Lock::open(lock.path()).unwrap().try_lock().unwrap_err().is_would_block());
                assert_eq!(lock.holder().unwrap().unwrap().label(), Some("parent"));
                held.unlock().unwrap();

                let reading =
                    refuses_in_a_fork(rw.read().unwrap(), ReadGuard::unlock).expect("reading");
                assert!(rw.try_write().unwrap_err().is_would_block());
                reading.unlock().unwrap();
                let writing =
                    refuses_in_a_fork(rw.write().unwrap(), WriteGuard::unlock).expect("writing");
                assert!(rw.try_read().unwrap_err().is_would_block());
                writing.unlock().unwrap();

                for permits in [1, 2] {
                    let permit = pool.acquire_many(permits).unwrap();
                    let permit = refuses_in_a_fork(permit, Permit::release).expect("permits");
                    assert_eq!(pool.available_permits().unwrap(), 3 - permits);
                    permit.release().unwrap();
                    assert_eq!(pool.available_permits().unwrap(), 3);
                }

                let reading = file.lock_shared().unwrap();
                let reading = refuses_in_a_fork(reading, FileReadGuard::unlock).expect("a reader");
                reading.unlock().unwrap();
                let writing = file.lock_exclusive().unwrap();
                let writing = refuses_in_a_fork(writing, FileWriteGuard::unlock).expect("a writer");
                assert!(file.try_lock_shared().unwrap_err().is_would_block());
                writing.unlock().unwrap();
            },
        );
    }

    /// It knows nothing of what came after the fork: the record may be that of a holder that lives.
    #[test]
    fn a_forked_copy_of_a_guard_takes_no_record_for_a_dead_ones() {
        limit!();
        crate::support::alone(
            "rules::forked::a_forked_copy_of_a_guard_takes_no_record_for_a_dead_ones",
            || {
                let dir = tempfile::tempdir().unwrap();
                let path = dir.path().join("a.lock");
                let (mut go, told) = std::os::unix::net::UnixStream::pair().unwrap();
                let held = Lock::open(&path).unwrap().lock().unwrap();
                match fork::fork().unwrap() {
                    fork::Fork::Child => {
                        drop(told);
                        let _ = std::io::Read::read(&mut go, &mut [0]);
                        std::process::exit(if held.abandoned() { 7 } else { 0 })
                    }
                    fork::Fork::Parent(child) => {
                        held.unlock().unwrap();
                        let next = Options::new().label("next").open_lock(&path).unwrap();
                        let _next = next.lock().unwrap();
                        drop(told);
                        assert_eq!(crate::support::ended(child).exit_status(), Some(0));
                        assert_eq!(next.holder().unwrap().unwrap().label(), Some("next"));
                    }
                }
            },
        );
    }

    #[test]
    fn a_forked_copy_of_a_handle_is_excluded_as_any_other_process() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        for what in ["try", "timeout"] {
            let mut peer = Peer::with_lock(&path);
            peer.expect("lock", "held");
            // The copied guard stays in the child until it ends, so both refusals are by it or its parent.
            peer.expect(&format!("fork\t{what}"), "child 0");
            peer.expect("unlock", "ok");
            // The kept descriptor is a copy now. What the child locks must be its own.
            peer.expect("fork\tcycle", "child 0");
            peer.expect("try", "held");
        }
    }

    /// `pthread_atfork(3)` waits for a fork under way, so the thread that registers the handler at a first use is often
    /// in the middle of it when the copy is made.
    #[test]
    fn a_fork_during_the_first_use_does_not_hang_the_copy() {
        limit!();
        crate::support::alone(
            "rules::forked::a_fork_during_the_first_use_does_not_hang_the_copy",
            || {
                let dir = tempfile::tempdir().unwrap();
                let [by_thread, by_copy] = ["thread", "copy"].map(|name| dir.path().join(name));
                let takes = |path| Lock::open(path).and_then(|lock| lock.lock()).is_ok();
                for round in 0..300 {
                    // This process has not used the library yet, so each child is at its first use.
                    let fork::Fork::Parent(child) = fork::fork().unwrap() else {
                        let start = std::sync::Barrier::new(2);
                        let status = crate::running::scope(|scope| {
                            scope.spawn(|| {
                                start.wait();
                                takes(&by_thread)
                            });
                            start.wait();
                            match fork::fork().unwrap() {
                                fork::Fork::Child => {
                                    std::process::exit(i32::from(!takes(&by_copy)))
                                }
                                fork::Fork::Parent(copy) => {
                                    crate::support::ended(copy).exit_status()
                                }
                            }
                        });
                        std::process::exit(status.unwrap_or(7))
                    };
                    assert_eq!(
                        crate::support::ended(child).exit_status(),
                        Some(0),
                        "in round {round}"
                    );
                }
            },
        );
    }

    /// The kept descriptor came along, and its lock would be the child's and the parent's at once.
    #[test]
    fn what_a_forked_child_locks_is_locked_for_its_parent_too() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        let mut peer = Peer::with_lock(&path);
        peer.tell("fork\thold");
        let answers = [peer.answer(), peer.answer()];
        assert!(answers.iter().any(|answer| answer == "the child holds"), "{answers:?}");
        let child: i32 = answers.iter().find_map(|answer| answer.parse().ok()).unwrap();
        assert!(peer.ask("try").starts_with("would-block"));
        peer.tell("timeout\t100000");
        until_blocked(&path, 1);
        let child = rustix::process::Pid::from_raw(child).unwrap();
        rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
        assert_eq!(peer.answer(), "held");
    }

    #[test]
    fn a_release_is_one_although_a_forked_child_has_the_descriptor_still() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        let mut peer = Peer::with_lock(&path);
        peer.expect("lock", "held");
        let child: i32 = peer.ask("fork\tstay").parse().unwrap();
        peer.expect("unlock", "ok");
        drop(Lock::open(&path).unwrap().try_lock().unwrap());
        let child = rustix::process::Pid::from_raw(child).unwrap();
        rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
    }
}

// -------------------------------------------------------------------------- rule 5: through signals

// Linux only: interruptions are injected by strace.
#[cfg(target_os = "linux")]
#[test]
fn an_interrupted_system_call_is_made_again() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    // Each thread's first three calls of flock are interrupted.
    let Some(mut peer) = crate::refusals::injected(&path, "flock:error=EINTR:when=1..3") else {
        return;
    };
    peer.expect(&format!("open\t{}", path.display()), "ok");
    for wait in ["try", "lock", "timeout\t100000", "async"] {
        peer.expect(wait, "held");
        peer.expect("unlock", "ok");
    }
}

// ---------------------------------------------------------- rule 6: descriptors stay open meanwhile

// Linux only: counts descriptors by `/proc`.
#[cfg(target_os = "linux")]
#[test]
fn an_acquisition_opens_nothing_and_leaves_one_descriptor() {
    limit!();
    crate::support::alone("rules::an_acquisition_opens_nothing_and_leaves_one_descriptor", || {
        use crate::support::descriptors;
        use notify::Watcher as _;
        let dir = tempfile::tempdir().unwrap();
        let before = descriptors();
        let lock = Lock::open(dir.path().join("a.lock")).unwrap();
        let cycle = || {
            drop(lock.lock().unwrap());
            drop(lock.try_lock().unwrap());
            drop(lock.lock_timeout(std::time::Duration::from_secs(1)).unwrap());
            drop(futures_lite::future::block_on(lock.lock_async()).unwrap());
        };
        cycle();
        assert_eq!(descriptors(), before + 1);
        let (send, events) = std::sync::mpsc::channel();
        let mut watcher = notify::recommended_watcher(send).unwrap();
        watcher.watch(dir.path(), notify::RecursiveMode::NonRecursive).unwrap();
        (0..100).for_each(|_| cycle());
        // What comes after is seen, so what came before would have been.
        std::fs::write(dir.path().join("last"), "").unwrap();
        let first = events.recv().unwrap().unwrap();
        assert!(first.paths[0].ends_with("last"), "{first:?}");
        drop(watcher);
        drop(lock);
        let left = || descriptors() == before;
        crate::support::eventually("descriptors are closed", left);
    });
}

// ------------------------------------------- rule 8: the kernel frees what a dead process held, late

#[test]
fn of_many_killed_holders_each_lets_the_next_one_in() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let mut holder = Peer::with_lock(&path);
    holder.expect("lock", "held");
    for round in 0..12 {
        let mut next = Peer::with_lock(&path);
        next.tell(["lock", "timeout\t100000", "async"][round % 3]);
        until_blocked(&path, 1);
        holder.kill();
        assert_eq!(next.answer(), "held");
        holder = next;
    }
}
