//! How waiters notice an event: after any change to its directories, with one watcher for the
//! process, and where nothing can be watched.

use std::path::Path;
use std::time::Duration;

use flockwork::Event;
#[cfg(feature = "watch")]
use flockwork::Options;
#[cfg(all(target_os = "linux", feature = "watch"))]
use futures_lite::future::block_on;

use crate::event::dirs;
use crate::peer::LATE_BACKSTOP;
#[cfg(target_os = "linux")]
use crate::peer::Peer;
#[cfg(feature = "watch")]
use crate::peer::Setting;
use crate::peer::Way::{Async, Block};
use crate::peer::event::{Call, peer};
#[cfg(unix)]
use crate::support::alone;
#[cfg(target_os = "linux")]
use crate::support::{assert_waits, descriptors, threads};
use crate::support::{eventually, until_watching};

/// Checks that a waiter notices the event after its parent directories were removed, moved or
/// replaced, and the event was then set at the same path.
fn notices_event_after(what: &str, change: impl Fn(&Path)) {
    let (dir, _) = dirs();
    let path = dir.path().join("a/b/ready");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut other = peer(&path, LATE_BACKSTOP);
    for round in 0..if cfg!(windows) { 6 } else { 30 } {
        other.begin(Call::Wait(Block));
        if round % 3 > 0 {
            until_watching(other.id(), path.parent().unwrap());
        }
        change(dir.path());
        assert!(other.is_silent(), "{what} {round}");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        if round % 2 > 0 {
            until_watching(other.id(), path.parent().unwrap());
        }
        std::fs::write(&path, what).unwrap();
        other.finish();
        other.expect(Call::Payload, what);
        std::fs::remove_file(&path).unwrap();
    }
}

// Unix only: Wine keeps a watched directory after its removal, and notifies no process.
#[cfg(unix)]
#[test]
fn a_recreated_directory_is_watched() {
    limit!();
    notices_event_after("removed", |dir| std::fs::remove_dir(dir.join("a/b")).unwrap());
}

// Unix only: Wine keeps a watched directory after its removal, and notifies no process.
#[cfg(unix)]
#[test]
fn a_wait_survives_removal_of_its_parent_directory() {
    limit!();
    notices_event_after("removed", |dir| std::fs::remove_dir_all(dir.join("a")).unwrap());
}

#[test]
fn a_wait_survives_a_move_of_its_directory() {
    limit!();
    notices_event_after("moved", |dir| {
        let aside = tempfile::tempdir_in(dir).unwrap();
        std::fs::rename(dir.join("a/b"), aside.path().join("c")).unwrap();
    });
}

// Unix only: Windows does not rename a directory onto another.
#[cfg(unix)]
#[test]
fn a_wait_survives_replacement_of_its_directory() {
    limit!();
    notices_event_after("replaced", |dir| {
        std::fs::create_dir(dir.join("a/new")).unwrap();
        std::fs::rename(dir.join("a/new"), dir.join("a/b")).unwrap();
    });
}

// Unix only: Wine creates no symbolic links or junctions.
#[cfg(unix)]
#[test]
fn a_wait_survives_its_directory_becoming_a_link() {
    limit!();
    notices_event_after("linked", |dir| {
        let place = dir.join("a/b");
        let elsewhere = dir.join("elsewhere");
        let _ = std::fs::create_dir(&elsewhere);
        if std::fs::symlink_metadata(&place).unwrap().is_symlink() {
            std::fs::remove_file(&place).unwrap();
        } else {
            std::fs::remove_dir(&place).unwrap();
        }
        std::os::unix::fs::symlink(&elsewhere, &place).unwrap();
    });
}

/// Returns another path to the directory `own`.
#[cfg(unix)]
fn another_path(own: &Path) -> std::path::PathBuf {
    let link = own.with_file_name("link");
    std::os::unix::fs::symlink(own, &link).unwrap();
    link
}

#[cfg(not(unix))]
fn another_path(own: &Path) -> std::path::PathBuf {
    own.with_file_name("OWN")
}

/// inotify has one watch for a directory, whatever path was used to add it.
#[test]
fn two_paths_to_one_directory_are_watched_independently() {
    limit!();
    let (dir, _) = dirs();
    let own = dir.path().join("own");
    std::fs::create_dir(&own).unwrap();
    let link = another_path(&own);
    let options = crate::peer::options(LATE_BACKSTOP);
    let first = options.open_event(own.join("ready")).unwrap();
    let second = options.open_event(link.join("ready")).unwrap();
    let long = Duration::from_secs(100);
    for round in 0..if cfg!(windows) { 6 } else { 20 } {
        let (stays, goes) = if round % 2 == 0 { (&first, &second) } else { (&second, &first) };
        crate::support::running::scope(|scope| {
            let _wake = crate::support::running::on_panic(|| drop(first.set()));
            let waiters = [stays, goes, stays].map(|event| {
                let waiter = scope.spawn(move || event.wait_timeout(long));
                until_watching(std::process::id(), &own);
                waiter
            });
            if round % 3 == 0 {
                // The last wait through the second path ends, and its watch is removed.
                assert!(goes.wait_timeout(Duration::from_millis(1)).unwrap_err().is_timed_out());
                std::thread::sleep(Duration::from_millis(40));
            }
            first.set().unwrap();
            for waiter in waiters {
                waiter.join().unwrap().unwrap();
            }
        });
        first.clear().unwrap();
    }
}

/// notify loses its watches below a directory that is moved.
// Unix only: Windows does not move a directory that has an open, and so a watched, one below it.
#[cfg(unix)]
#[test]
fn a_directory_whose_parent_is_moved_and_restored_is_watched() {
    limit!();
    let (dir, _) = dirs();
    let paths = ["x", "a/x", "a/b/ready"].map(|name| dir.path().join(name));
    std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
    let mut other = peer(&paths[2], LATE_BACKSTOP);
    other.open_event(&paths[1], LATE_BACKSTOP);
    other.open_event(&paths[0], LATE_BACKSTOP);
    for _ in 0..20 {
        other.begin(Call::WaitAny(Block));
        for path in &paths {
            until_watching(other.id(), path.parent().unwrap());
        }
        std::fs::rename(dir.path().join("a"), dir.path().join("away")).unwrap();
        std::fs::rename(dir.path().join("away"), dir.path().join("a")).unwrap();
        std::thread::sleep(Duration::from_millis(5));
        std::fs::write(&paths[2], "").unwrap();
        assert_eq!(other.finish(), "0");
        std::fs::remove_file(&paths[2]).unwrap();
    }
}

/// A waiter notices a change without a file system event at its next periodic check.
#[test]
fn a_moved_ancestor_directory_is_noticed_within_the_backstop() {
    limit!();
    let (dir, _) = dirs();
    let path = dir.path().join("a/b/ready");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut other = peer(&path, &[]);
    for round in 0..2 {
        other.begin(Call::Wait(Block));
        until_watching(other.id(), path.parent().unwrap());
        let moved = std::fs::rename(dir.path().join("a"), dir.path().join(round.to_string()));
        // Windows does not move a directory that has an open one below it, but Wine does.
        assert!(moved.is_ok() || cfg!(windows), "{moved:?}");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "").unwrap();
        other.finish();
        std::fs::remove_file(&path).unwrap();
    }
}

/// The parent directory does not exist, and the waiter may not create it.
// Unix only: becomes another user, and sets mode bits.
#[cfg(unix)]
#[test]
fn a_user_without_write_permission_can_wait() {
    limit!();
    use crate::peer::Way::Try;
    use std::os::unix::fs::PermissionsExt as _;
    let (dir, _) = dirs();
    let set_mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    set_mode(dir.path(), 0o755);
    let path = dir.path().join("later/ready");
    let mut other = crate::support::unprivileged::unprivileged();
    other.open_event(&path, LATE_BACKSTOP);
    let event = Event::open(dir.path().join("now")).unwrap();
    other.expect(Call::IsSet, false);
    other.begin(Call::Wait(Block));
    std::thread::sleep(Duration::from_millis(30));
    assert!(other.is_silent());
    let later = Event::open(&path).unwrap();
    later.set_with(b"hello").unwrap();
    other.finish();
    other.expect(Call::Payload, "hello");
    if rustix::process::geteuid().is_root() {
        for call in [Call::Clear, Call::Consume(Block), Call::Consume(Try)] {
            let answer = other.expect_error(call.clone());
            assert!(answer.starts_with("PermissionDenied: could not "), "{call:?}: {answer}");
            assert!(answer.contains("must be able to write to the directory"), "{answer}");
        }
        assert_eq!(later.payload().unwrap().unwrap(), b"hello");
        // A directory that a user may enter but not read cannot be watched.
        set_mode(path.parent().unwrap(), 0o711);
        later.clear().unwrap();
        let mut other = crate::support::unprivileged::unprivileged(); // The first may still watch.
        other.open_event(&path, LATE_BACKSTOP);
        other.expect(Call::IsEventDriven, false);
        other.begin(Call::Wait(Block));
        later.set_with(b"again").unwrap();
        other.finish();
        // A payload that may not be read is not consumed.
        set_mode(path.parent().unwrap(), 0o777);
        set_mode(&path, 0o600);
        let answer = other.expect_error(Call::Consume(Try));
        assert!(answer.starts_with("PermissionDenied: could not read the payload of"), "{answer}");
        assert!(event.try_consume().is_err());
        assert_eq!(later.consume().unwrap(), b"again");
    }
}

/// A fork copies the waiters' mutexes as they are, but not the threads that may have locked them.
// Unix only: Windows has no fork.
#[cfg(unix)]
#[test]
fn a_process_forked_during_waits_can_wait() {
    limit!();
    alone("event::watch::a_process_forked_during_waits_can_wait", || {
        let (dir, path) = dirs();
        let event = Event::open(&path).unwrap();
        let is_over = std::sync::atomic::AtomicBool::new(false);
        crate::support::running::scope(|scope| {
            let _end = crate::support::running::on_drop(|| {
                is_over.store(true, std::sync::atomic::Ordering::Relaxed);
            });
            for number in 0..2 {
                let (event, is_over) = (&event, &is_over);
                let busy = Event::open(dir.path().join(number.to_string())).unwrap();
                scope.spawn(move || {
                    while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                        busy.set().unwrap();
                        let _ = event.wait_timeout(Duration::from_micros(50));
                        busy.clear().unwrap();
                    }
                });
            }
            for _ in 0..150 {
                match fork::fork().unwrap() {
                    fork::Fork::Parent(child) => {
                        let child = rustix::process::Pid::from_raw(child).unwrap();
                        let mut code = None;
                        eventually("the child ends", || {
                            let options = rustix::process::WaitOptions::NOHANG;
                            let ended = rustix::process::waitpid(Some(child), options).unwrap();
                            code = ended.and_then(|(_, status)| status.exit_status());
                            code.is_some()
                        });
                        assert_eq!(code, Some(0));
                    }
                    fork::Fork::Child => {
                        let waited = event.wait_timeout(Duration::from_millis(2));
                        let is_right = waited.is_err_and(|error| error.is_timed_out());
                        crate::support::exit_copy(i32::from(!is_right));
                    }
                }
            }
        });
    });
}

#[cfg(feature = "watch")]
#[test]
fn waits_are_event_driven_where_the_system_supports_it() {
    limit!();
    let (_dir, path) = dirs();
    let event = Event::open(&path).unwrap();
    eventually("an inotify instance is free", || event.is_event_driven());
    let polling = Options::new().poll_interval(Duration::from_millis(2)).open_event(&path).unwrap();
    assert!(!polling.is_event_driven());
    let mut other = peer(&path, &[Setting::PollMilliseconds(2)]);
    for (call, is_set) in
        [(Call::Wait(Block), true), (Call::WaitCleared(Block), false), (Call::Wait(Async), true)]
    {
        other.begin(call);
        if is_set { event.set() } else { event.clear() }.unwrap();
        other.finish();
    }
    other.expect(Call::Consume(Block), "");
}

// Linux only: counts descriptors, threads and watches through `/proc`.
#[cfg(all(target_os = "linux", feature = "watch"))]
#[test]
fn a_thousand_waiters_share_one_watcher_and_leave_nothing() {
    limit!();
    alone("event::watch::a_thousand_waiters_share_one_watcher_and_leave_nothing", || {
        let (dir, _) = dirs();
        let own = std::process::id();
        let events: Vec<Event> = (0..50)
            .map(|number| {
                let path = dir.path().join(format!("{}/{number}", number % 5));
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                Options::new().backstop(Duration::from_secs(1000)).open_event(path).unwrap()
            })
            .collect();
        let (threads_before, descriptors_before) = (threads(), descriptors());
        for round in 0..3 {
            let mut futures: Vec<_> =
                (0..1000).map(|number| Box::pin(events[number % 50].wait_async())).collect();
            for future in &mut futures {
                assert_waits(future);
            }
            eventually("all directories are watched", || {
                crate::support::watches(own).iter().map(Vec::len).collect::<Vec<_>>() == [5]
            });
            assert!(
                threads() <= threads_before + 3,
                "more than the hub, notify and the timer: {}",
                threads()
            );
            if round == 1 {
                for event in &events {
                    event.set().unwrap();
                }
                for future in &mut futures {
                    block_on(future).unwrap();
                }
                for event in &events {
                    event.clear().unwrap();
                }
            }
            // The waits for the events of four directories are dropped.
            let last: Vec<_> =
                futures.into_iter().enumerate().filter(|(n, _)| n % 5 == 0).collect();
            if round != 1 {
                eventually("the other directories are closed", || {
                    crate::support::watches(own).iter().map(Vec::len).sum::<usize>() == 1
                });
            }
            drop(last);
            eventually("everything is closed", || {
                threads() == threads_before && descriptors() == descriptors_before
            });
        }
    });
}

// Linux only: counts descriptors and threads through `/proc`.
#[cfg(target_os = "linux")]
#[test]
fn ten_thousand_waits_and_dropped_futures_leave_nothing() {
    limit!();
    alone("event::watch::ten_thousand_waits_and_dropped_futures_leave_nothing", || {
        let (_dir, path) = dirs();
        let event = Event::open(&path).unwrap();
        let before = (threads(), descriptors());
        for number in 0..10_000 {
            if number % 2 == 0 {
                assert_waits(event.wait_async());
            } else {
                let short = Duration::from_micros(number / 100);
                assert!(event.wait_timeout(short).unwrap_err().is_timed_out());
            }
        }
        assert!(threads() <= before.0 + 3);
        eventually("everything is closed", || (threads(), descriptors()) == before);
    });
}

// Linux only: counts wake-ups through `/proc`.
#[cfg(all(target_os = "linux", feature = "watch"))]
#[test]
fn an_idle_waiter_wakes_at_most_once_a_second() {
    limit!();
    use crate::peer::Way::Timeout;
    let (dir, _) = dirs();
    // Each waiter has a periodic check, and a future has a timer that wakes its thread.
    let calls = [
        ("timeout", Call::Wait(Timeout(1_000_000)), 1.4),
        ("future", Call::Wait(Async), 2.4),
        ("consume", Call::Consume(Block), 1.4),
    ];
    let mut waiters = calls.map(|(name, call, most)| {
        let path = dir.path().join(name);
        let mut other = peer(&path, &[]);
        other.begin(call);
        until_watching(other.id(), dir.path());
        (other, most, path)
    });
    std::thread::sleep(Duration::from_millis(300));
    crate::support::assert_sleep(&waiters.each_ref().map(|(other, most, _)| (other.id(), *most)));
    for (other, _, path) in &mut waiters {
        std::fs::write(path, "").unwrap();
        assert_eq!(other.finish(), "");
    }
}

/// No number of other files in the directory wakes a waiter.
// Linux only: counts wake-ups through `/proc`.
#[cfg(all(target_os = "linux", feature = "watch"))]
#[test]
fn other_files_do_not_wake_a_waiter() {
    limit!();
    let (dir, path) = dirs();
    let mut other = peer(&path, LATE_BACKSTOP);
    other.begin(Call::Wait(Block));
    until_watching(other.id(), dir.path());
    let waiter = || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", other.id())).unwrap();
        let status = |task: std::io::Result<std::fs::DirEntry>| {
            std::fs::read_to_string(task.unwrap().path().join("status")).unwrap_or_default()
        };
        // The thread that runs the peer has this name; the hub's thread and notify's have other
        // names.
        let status = tasks.map(status).find(|s| s.starts_with("Name:\tpeer::entry"));
        let status = status.expect("libtest gives a test's thread its name");
        let line = status.lines().find(|line| line.starts_with("voluntary")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let mut woken = u64::MAX;
    // On a busy machine the first try may include the beginning of the wait.
    for _ in 0..10 {
        eventually("the waiter sleeps", || {
            let before = waiter();
            std::thread::sleep(Duration::from_millis(100));
            waiter() == before
        });
        let before = waiter();
        for number in 0..2000 {
            let stem = if number % 2 == 0 { "other" } else { "ready" };
            std::fs::write(dir.path().join(format!("{stem}.{}", number % 100)), "x").unwrap();
        }
        woken = waiter() - before;
        if woken <= 5 {
            break;
        }
    }
    assert!(woken <= 5, "{woken} times");
    std::fs::write(&path, "").unwrap();
    other.finish();
}

/// The kernel's queue of events overflows, so the kernel reports `IN_Q_OVERFLOW` and all events are
/// checked.
// Linux only: fills the inotify queue, whose length `/proc` shows.
#[cfg(all(target_os = "linux", feature = "watch"))]
#[test]
fn an_overflow_of_the_systems_queue_is_noticed() {
    limit!();
    let (dir, path) = dirs();
    let limit: usize = std::fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    if limit > 100_000 {
        return; // The limit was raised, so that this would take long.
    }
    let mut other = peer(&path, LATE_BACKSTOP);
    other.begin(Call::Wait(Block));
    until_watching(other.id(), dir.path());
    let pid = rustix::process::Pid::from_raw(other.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    // Each iteration is three events, and the kernel merges two equal events in a row.
    for number in 0..limit / 2 {
        std::fs::write(dir.path().join(format!("other.{}", number % 2)), "x").unwrap();
        std::fs::remove_file(dir.path().join(format!("other.{}", number % 2))).unwrap();
    }
    std::fs::write(&path, "").unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    other.finish();
}

/// A user has 128 inotify instances by default, so some of the processes poll.
// Linux only: exhausts a user's inotify instances; other systems have no such limit.
#[cfg(target_os = "linux")]
#[test]
fn three_hundred_processes_wait_for_one_event_and_all_wake() {
    limit!(4 * crate::limit::LIMIT); // it starts them one after the other
    use std::os::unix::fs::PermissionsExt as _;
    let (dir, path) = dirs();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let event = Event::open(&path).unwrap();
    // The peers run as another user where possible, so that other tests have instances left.
    let mut starter = crate::support::unprivileged::Unprivileged::new();
    let mut peers: Vec<Peer> = (0..300).map(|_| starter.start()).collect();
    for peer in &mut peers {
        peer.begin(Call::Open(path.clone(), LATE_BACKSTOP.into()));
    }
    for (number, peer) in peers.iter_mut().enumerate() {
        peer.finish();
        peer.begin(Call::Wait(Block));
        // One of the peers watches for certain, however late its watching thread starts.
        if number == 0 {
            until_watching(peer.id(), dir.path());
        }
    }
    assert!(peers.iter_mut().all(Peer::is_silent));
    event.set().unwrap();
    for peer in &mut peers {
        peer.finish();
    }
}

// Linux only: strace injects the errors.
#[cfg(target_os = "linux")]
mod scarce {
    use super::*;
    use crate::support::strace::strace;

    /// Checks that every form of wait still ends when the event is set or cleared.
    fn assert_waits_without_events(inject: &str) {
        use crate::peer::Way::Timeout;
        let Some(mut other) = strace(&[], inject) else { return };
        let (_dir, path) = dirs();
        other.open_event(&path, LATE_BACKSTOP);
        other.expect(Call::IsEventDriven, false);
        let event = Event::open(&path).unwrap();
        for call in [
            Call::Wait(Block),
            Call::Wait(Timeout(1_000_000)),
            Call::Wait(Async),
            Call::WaitAny(Block),
            Call::WaitAll(Async),
        ] {
            other.begin(call);
            std::thread::sleep(Duration::from_millis(20));
            assert!(other.is_silent());
            event.set().unwrap();
            other.finish();
            other.begin(Call::WaitCleared(Async));
            event.clear().unwrap();
            other.finish();
        }
        other.expect_timed_out(Call::Wait(Timeout(20)));
        event.set_with(b"x").unwrap();
        other.expect(Call::Consume(Block), "x");
    }

    #[test]
    fn without_an_inotify_instance_waits_are_polled() {
        limit!();
        assert_waits_without_events("inotify_init1,inotify_init:error=EMFILE");
    }

    #[test]
    fn without_a_watch_waits_are_polled() {
        limit!();
        assert_waits_without_events("inotify_add_watch:error=ENOSPC");
    }

    /// notify does not report that its thread has ended. (It panics, and the message appears on
    /// standard error.)
    #[cfg(feature = "watch")]
    #[test]
    fn when_notifys_own_thread_ends_waits_are_polled() {
        limit!();
        for when in 2..5 {
            let inject = format!("epoll_wait,epoll_pwait,epoll_pwait2:error=EBADF:when={when}+");
            let Some(mut other) = strace(&[], &inject) else { return };
            let (_dir, path) = dirs();
            other.open_event(&path, LATE_BACKSTOP);
            for _ in 0..2 {
                other.begin(Call::Wait(Block));
                std::thread::sleep(Duration::from_millis(50));
                assert!(other.is_silent());
                std::fs::write(&path, "").unwrap();
                other.finish();
                std::fs::remove_file(&path).unwrap();
            }
        }
    }

    #[test]
    fn without_threads_waits_are_polled() {
        limit!();
        assert_waits_without_events("clone3,clone:error=EAGAIN");
    }

    /// Waiters read the directory, because `stat` may return a cached result.
    #[test]
    fn on_a_network_file_system_the_directory_is_read() {
        limit!();
        assert_waits_without_events("statfs,fstatfs:poke_exit=@arg2=6969000000000000");
    }

    /// The user may enter the directory (0711), so it can look up single names.
    #[test]
    fn on_a_network_file_system_a_directory_need_not_be_listed() {
        limit!();
        let (dir, path) = dirs();
        let inject = format!("openat:error=EACCES;statfs,{}", crate::support::strace::NFS);
        let Some(mut other) = crate::support::strace::injected(dir.path(), &inject) else { return };
        other.open_event(&path, LATE_BACKSTOP);
        other.expect(Call::IsSet, false);
        other.begin(Call::Wait(Block));
        std::thread::sleep(Duration::from_millis(30));
        assert!(other.is_silent());
        std::fs::write(&path, "payload").unwrap();
        other.finish();
        other.expect(Call::Payload, "payload");
        other.expect(Call::Consume(Block), "payload");
        other.run(Call::WaitCleared(Block));
    }

    /// The waiter adds the watch after ten seconds, and sleeps from then on.
    #[cfg(feature = "watch")]
    #[test]
    fn a_watch_that_failed_is_retried_later() {
        limit!();
        let inject = "inotify_init1,inotify_init:error=EMFILE:when=1";
        let Some(mut other) = strace(&[], inject) else { return };
        let (dir, path) = dirs();
        other.open_event(&path, LATE_BACKSTOP);
        other.begin(Call::Wait(Block));
        until_watching(crate::support::strace::traced(&other), dir.path());
        assert!(other.is_silent());
        std::fs::write(&path, "").unwrap();
        other.finish();
    }
}
