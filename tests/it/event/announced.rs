//! Announcements: settings that end with their process, however it ends, and `wait_payload`.

#[cfg(unix)]
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use flockwork::{Error, ErrorKind, Event, Holder, inspect};
use futures_lite::future::block_on;
#[cfg(unix)]
use rustix::process::{Pid, Signal, kill_process};

use crate::event::dirs;
use crate::peer::Way::{Async, Block, Deadline, Timeout, Try};
use crate::peer::event::{Call, peer};
use crate::peer::{LATE_BACKSTOP, Peer, Setting, Way};
use crate::support::{names_in, until_watching};

/// Linux reports the end of a process. Elsewhere a waiter notices it at its next check.
const SETTINGS: &[Setting] = if cfg!(target_os = "linux") { LATE_BACKSTOP } else { &[] };

/// Starts a process that announces the event.
fn announcer(path: &Path, payload: &str) -> Peer {
    let mut announcer = peer(path, &[]);
    announcer.run(Call::Announce(payload.into()));
    announcer
}

/// Leaves the file of a process that announced the event and was killed.
fn leave_stale(path: &Path, payload: &str) {
    announcer(path, payload).kill();
    assert!(path.exists(), "a killed process removes nothing");
}

#[track_caller]
fn assert_cleared(event: &Event) {
    assert!(!event.is_set().unwrap());
    assert_eq!(event.payload().unwrap(), None);
    assert!(event.try_wait().unwrap_err().is_would_block());
    assert!(event.try_wait_payload().unwrap_err().is_would_block());
    assert!(event.wait_timeout(Duration::ZERO).unwrap_err().is_timed_out());
    event.wait_cleared().unwrap();
    event.try_wait_cleared().unwrap();
    let status = inspect(event.path()).unwrap();
    assert!(!status.is_set() && !status.is_held(), "{status:?}");
}

#[track_caller]
fn assert_announced(event: &Event, payload: &str) {
    assert!(event.is_set().unwrap());
    assert_eq!(event.payload().unwrap().unwrap(), payload.as_bytes());
    event.wait().unwrap();
    assert_eq!(event.wait_payload().unwrap(), payload.as_bytes());
    assert!(event.try_wait_cleared().unwrap_err().is_would_block());
    let status = inspect(event.path()).unwrap();
    assert!(status.is_set() && status.is_held(), "{status:?}");
    assert_eq!(std::fs::read(event.path()).unwrap(), payload.as_bytes());
}

#[test]
fn an_announcement_is_set_until_it_is_dropped() {
    limit!();
    let (dir, path) = dirs();
    let event = Event::open(&path).unwrap();
    for payload in ["", "40123"] {
        let announcement = event.set_while_alive(payload).unwrap();
        assert_announced(&event, payload);
        assert!(announcement.still_set().unwrap());
        assert_eq!(announcement.path(), path);
        drop(announcement);
        assert_cleared(&event);

        let announcement = event.set_while_alive(payload).unwrap();
        assert_announced(&event, payload);
        announcement.withdraw().unwrap();
        assert_cleared(&event);
    }
    assert_eq!(names_in(dir.path()), [""; 0]);
    // Missing directories are created, and other kinds of files are left unchanged.
    let deep = Event::open(dir.path().join("a/b/ready")).unwrap();
    let announcement = deep.set_while_alive("x").unwrap();
    assert_announced(&deep, "x");
    drop(announcement);
    std::fs::create_dir(&path).unwrap();
    let error = event.set_while_alive("x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRegularFile, "{error}");
}

#[test]
fn the_event_of_a_killed_process_is_clear() {
    limit!();
    let (_dir, path) = dirs();
    let event = Event::open(&path).unwrap();
    let mut announcer = announcer(&path, "40123");
    assert_announced(&event, "40123");
    // The system shows the process, except on Windows.
    if cfg!(target_os = "linux") {
        let status = inspect(&path).unwrap();
        let pids: Vec<_> = status.holders().iter().map(Holder::pid).collect();
        assert_eq!(pids, [announcer.id()]);
    }
    announcer.kill();
    assert_cleared(&event);
    assert!(event.try_consume().unwrap_err().is_would_block());
    assert!(!path.exists(), "a consumer removes what the dead process left");
}

/// The backstop is very long, so that a lost notification shows as a wait that does not end.
#[test]
fn a_killed_process_wakes_all_waiters_for_cleared() {
    limit!();
    let (dir, path) = dirs();
    for _ in 0..3 {
        let mut announcer = announcer(&path, "40123");
        let mut waiters: Vec<_> = Way::WAITING
            .map(|way| {
                let mut waiter = peer(&path, SETTINGS);
                waiter.begin(Call::WaitCleared(way));
                waiter
            })
            .into();
        for waiter in &mut waiters {
            until_watching(waiter.id(), dir.path());
            assert!(waiter.is_silent());
        }
        announcer.kill();
        for waiter in &mut waiters {
            waiter.finish();
        }
    }
}

#[test]
fn an_announcement_that_is_dropped_wakes_all_waiters() {
    limit!();
    let (dir, path) = dirs();
    for call in [Call::DropAnnouncement, Call::Withdraw] {
        let mut announcer = announcer(&path, "40123");
        let mut waiter = peer(&path, SETTINGS);
        waiter.begin(Call::WaitCleared(Block));
        until_watching(waiter.id(), dir.path());
        announcer.run(call);
        waiter.finish();
        waiter.begin(Call::WaitPayload(Block));
        announcer.run(Call::Announce("40124".into()));
        assert_eq!(waiter.finish(), "40124");
        announcer.kill();
    }
}

#[test]
fn each_call_that_sets_replaces_what_a_dead_process_left() {
    limit!();
    let (dir, path) = dirs();
    let event = Event::open(&path).unwrap();
    let stale = || leave_stale(&path, "dead");

    stale();
    assert!(event.set().unwrap(), "it was clear");
    assert_eq!(event.payload().unwrap().unwrap(), b"");
    assert!(event.clear().unwrap());
    stale();
    assert!(event.set_with("new").unwrap());
    assert_eq!(event.consume().unwrap(), b"new");
    stale();
    assert!(event.set_new("newer").unwrap());
    assert_eq!(event.payload().unwrap().unwrap(), b"newer");
    assert!(event.clear().unwrap());
    stale();
    let announcement = event.set_while_alive("newest").unwrap();
    assert_announced(&event, "newest");
    drop(announcement);
    stale();
    assert!(!event.clear().unwrap(), "it was clear");
    assert!(!path.exists());
    assert_eq!(names_in(dir.path()), ["ready.flock"], "only the consumers' lock file is left");
}

#[test]
fn waiters_ignore_what_a_dead_process_left() {
    limit!();
    let (dir, path) = dirs();
    for way in Way::WAITING {
        leave_stale(&path, "dead");
        let mut waiter = peer(&path, SETTINGS);
        waiter.begin(Call::WaitPayload(way));
        let mut consumer = peer(&path, SETTINGS);
        until_watching(waiter.id(), dir.path());
        assert!(waiter.is_silent());
        let alive = announcer(&path, "alive");
        assert_eq!(waiter.finish(), "alive");
        drop(alive);
        leave_stale(&path, "dead");
        consumer.begin(Call::Consume(way));
        until_watching(consumer.id(), dir.path());
        assert!(consumer.is_silent());
        Event::open(&path).unwrap().set_with("alive").unwrap();
        assert_eq!(consumer.finish(), "alive");
    }
}

/// Each check locks the file for a moment.
#[test]
fn checks_at_the_same_time_all_find_that_a_process_died() {
    limit!();
    let (_dir, path) = dirs();
    leave_stale(&path, "40123");
    let event = Event::open(&path).unwrap();
    crate::support::running::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..2000 {
                    assert!(!event.is_set().unwrap());
                    assert!(!inspect(&path).unwrap().is_set());
                }
            });
        }
    });
}

#[test]
fn exactly_one_of_many_callers_replaces_a_dead_setting() {
    limit!();
    let (_dir, path) = dirs();
    let event = Event::open(&path).unwrap();
    let mark = std::time::UNIX_EPOCH + Duration::from_secs(1_097_623_926);
    for round in 0..200 {
        // What a killed process leaves, without starting one (rule E8).
        std::fs::File::create(&path).unwrap().set_modified(mark).unwrap();
        let barrier = std::sync::Barrier::new(8);
        let set = crate::support::running::scope(|scope| {
            let callers: Vec<_> = (0..8)
                .map(|caller| {
                    let (event, barrier) = (&event, &barrier);
                    scope.spawn(move || {
                        barrier.wait();
                        let is_first = if caller % 2 == 0 {
                            event.set_new(format!("{round}.{caller}"))
                        } else {
                            event.set_with(format!("{round}.{caller}"))
                        };
                        is_first.unwrap()
                    })
                })
                .collect();
            callers.into_iter().map(|caller| caller.join().unwrap()).collect::<Vec<bool>>()
        });
        assert_eq!(set.iter().filter(|is_first| **is_first).count(), 1, "{set:?}");
        assert!(event.clear().unwrap());
    }
}

#[test]
fn other_processes_may_change_an_announced_event() {
    limit!();
    let (_dir, path) = dirs();
    let event = Event::open(&path).unwrap();
    let mut announcer = peer(&path, &[]);
    let announce = |announcer: &mut Peer| announcer.run(Call::Announce("theirs".into()));

    announce(&mut announcer);
    assert!(!event.set().unwrap());
    assert!(!event.set_new("ours").unwrap());
    announcer.expect(Call::StillSet, true);
    assert_eq!(event.payload().unwrap().unwrap(), b"theirs");

    assert!(!event.set_with("ours").unwrap());
    announcer.expect(Call::StillSet, false);
    announcer.run(Call::Withdraw);
    assert_eq!(event.payload().unwrap().unwrap(), b"ours", "another setting stays");

    announce(&mut announcer);
    assert_announced(&event, "theirs");
    assert!(event.clear().unwrap());
    assert_cleared(&event);
    announcer.expect(Call::StillSet, false);
    announcer.run(Call::DropAnnouncement);

    announce(&mut announcer);
    assert_eq!(event.consume().unwrap(), b"theirs");
    assert_cleared(&event);
    announcer.expect(Call::StillSet, false);
    event.set().unwrap();
    announcer.kill();
    assert!(event.is_set().unwrap(), "a plain setting outlives the process");
}

#[test]
fn the_last_of_two_announcements_counts() {
    limit!();
    let (_dir, path) = dirs();
    let event = Event::open(&path).unwrap();
    let (mut first, mut second) = (announcer(&path, "first"), announcer(&path, "second"));
    assert_announced(&event, "second");
    first.expect(Call::StillSet, false);
    first.run(Call::Withdraw);
    assert_announced(&event, "second");
    first.run(Call::Announce("third".into()));
    second.kill();
    assert_announced(&event, "third");
    first.kill();
    assert_cleared(&event);
}

/// A consumer may have been killed between its renames (rule E4), and the process that announced
/// the setting after that.
#[test]
fn a_dead_setting_that_a_dead_consumer_took_is_not_delivered() {
    limit!();
    let (_dir, path) = dirs();
    let event = Event::open(&path).unwrap();
    let taken = path.with_extension("taken");
    let mut announcer = announcer(&path, "theirs");
    std::fs::rename(&path, &taken).unwrap();
    assert_eq!(event.consume().unwrap(), b"theirs", "its process lives");
    announcer.run(Call::Announce("theirs".into()));
    std::fs::rename(&path, &taken).unwrap();
    announcer.kill();
    assert!(event.try_consume().unwrap_err().is_would_block());
    assert!(!taken.exists());
    leave_stale(&path, "dead");
    std::fs::rename(&path, &taken).unwrap();
    assert!(!event.clear().unwrap());
    leave_stale(&path, "dead");
    std::fs::rename(&path, &taken).unwrap();
    event.set_with("alive").unwrap();
    assert_eq!(event.try_consume().unwrap(), b"alive");
}

/// A program that touches the file or writes to it sets the event.
#[test]
fn touching_an_announced_event_makes_it_stay() {
    limit!();
    let (_dir, path) = dirs();
    let event = Event::open(&path).unwrap();
    leave_stale(&path, "dead");
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(std::time::SystemTime::now()).unwrap();
    drop(file);
    assert_eq!(event.payload().unwrap().unwrap(), b"dead");
}

// Unix only: signals.
#[cfg(unix)]
#[test]
fn a_stopped_process_keeps_its_event_set() {
    limit!();
    let (_dir, path) = dirs();
    let event = Event::open(&path).unwrap();
    let mut announcer = announcer(&path, "40123");
    let pid = Pid::from_raw(announcer.id().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    assert_announced(&event, "40123");
    announcer.kill();
    assert_cleared(&event);
}

// Unix only: fork.
#[cfg(unix)]
#[test]
fn a_forked_copy_of_an_announcement_clears_nothing() {
    limit!();
    let (_dir, path) = dirs();
    let event = Event::open(&path).unwrap();
    let mut announcer = announcer(&path, "40123");
    announcer.expect(Call::DropInFork, 0);
    announcer.expect(Call::StillSet, true);
    assert_announced(&event, "40123");
    announcer.kill();
    assert_cleared(&event);
}

// Unix only: fork.
#[cfg(unix)]
#[test]
fn a_forked_copy_keeps_the_event_set_until_it_ends() {
    limit!();
    let (dir, path) = dirs();
    let event = Event::open(&path).unwrap();
    for keeps in [false, true] {
        let mut announcer = announcer(&path, "40123");
        let child: i32 = announcer.run(Call::Fork(keeps)).parse().unwrap();
        let child = Pid::from_raw(child).unwrap();
        let parent = Pid::from_raw(announcer.id().try_into().unwrap()).unwrap();
        kill_process(parent, Signal::KILL).unwrap();
        if keeps {
            crate::support::eventually("the parent ended", || {
                inspect(&path).unwrap().holders().iter().all(|it| it.pid() != announcer.id())
            });
            assert!(event.is_set().unwrap());
            let mut waiter = peer(&path, SETTINGS);
            waiter.begin(Call::WaitCleared(Block));
            until_watching(waiter.id(), dir.path());
            assert!(waiter.is_silent());
            kill_process(child, Signal::KILL).unwrap();
            waiter.finish();
        } else {
            event.wait_cleared().unwrap();
            kill_process(child, Signal::KILL).unwrap();
        }
        announcer.kill();
        assert_cleared(&event);
    }
}

/// The directory may belong to another user by then, and a child may have the file open.
// Unix only: modes.
#[cfg(unix)]
#[test]
fn an_announcement_that_cannot_be_removed_no_longer_counts() {
    limit!();
    let (dir, path) = dirs();
    let mode = |mode| std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode));
    let event = Event::open(&path).unwrap();
    let mut other = crate::support::unprivileged::unprivileged();
    for call in [Call::Withdraw, Call::DropAnnouncement] {
        mode(0o777).unwrap();
        other.open_event(&path, &[]);
        other.run(Call::Announce("40123".into()));
        let child: i32 = other.run(Call::Fork(true)).parse().unwrap();
        mode(0o555).unwrap();
        match call {
            Call::Withdraw => {
                let error = other.expect_error(call);
                assert!(error.starts_with("PermissionDenied: could not clear"), "{error}");
            }
            call => assert_eq!(other.run(call), ""),
        }
        assert!(path.exists());
        assert_cleared(&event);
        other.expect(Call::IsSet, false);
        other.expect_would_block(Call::Consume(Try));
        let error = other.expect_error(Call::Set);
        assert!(error.starts_with("PermissionDenied: could not set"), "{error}");
        kill_process(Pid::from_raw(child).unwrap(), Signal::KILL).unwrap();
    }
    mode(0o777).unwrap();
    other.expect(Call::Set, true);
}

#[test]
fn every_form_of_wait_payload_returns_the_payload() {
    limit!();
    let (_dir, path) = dirs();
    let event = Event::open(&path).unwrap();
    let refused = |error: Error, words: &str| {
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(error.path(), path);
    };
    refused(event.try_wait_payload().unwrap_err(), "is not set");
    let short = Duration::from_millis(100);
    refused(event.wait_payload_timeout(short).unwrap_err(), "it was not set");
    refused(event.wait_payload_deadline(Instant::now() + short).unwrap_err(), "not set");
    for payload in ["", "40123"] {
        event.set_with(payload).unwrap();
        assert_eq!(event.wait_payload().unwrap(), payload.as_bytes());
        assert_eq!(event.try_wait_payload().unwrap(), payload.as_bytes());
        assert_eq!(event.wait_payload_timeout(Duration::ZERO).unwrap(), payload.as_bytes());
        assert_eq!(event.wait_payload_deadline(Instant::now()).unwrap(), payload.as_bytes());
        assert_eq!(block_on(event.wait_payload_async()).unwrap(), payload.as_bytes());
    }
    event.clear().unwrap();
    let mut waiter = peer(&path, &[]);
    waiter.expect_would_block(Call::WaitPayload(Try));
    for way in [Block, Async, Timeout(1_000_000), Deadline(1_000_000)] {
        waiter.begin(Call::WaitPayload(way));
        event.set_with("40124").unwrap();
        assert_eq!(waiter.finish(), "40124");
        event.clear().unwrap();
    }
}

/// `wait` and then `payload` would find the event cleared in between.
#[test]
fn wait_payload_never_misses_the_payload_of_its_setting() {
    limit!();
    let (_dir, path) = dirs();
    let event = Event::open(&path).unwrap();
    let mut waiter = peer(&path, &[]);
    for round in 0..200 {
        let payload = format!("payload {round}");
        waiter.begin(Call::WaitPayload(Way::WAITING[round % 4]));
        let answer = loop {
            event.set_with(&payload).unwrap();
            event.clear().unwrap();
            if let Some(answer) = waiter.has_answered() {
                break answer;
            }
        };
        assert_eq!(answer, Ok(payload));
    }
}
