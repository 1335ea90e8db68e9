//! Events across processes and threads: setting, clearing, waiting in each form, payloads, and
//! errors.

mod announced;
mod consume;
mod kinds;
mod new;
// Linux only: a server in user space is mounted.
#[cfg(target_os = "linux")]
mod shared_poll;
mod watch;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flockwork::{Error, ErrorKind, Event, Options};
use futures_lite::future::block_on;

use crate::peer::Way::{Async, Block, Timeout};
use crate::peer::event::{Call, is_whole, peer, whole};
use crate::peer::{LATE_BACKSTOP, Peer, Request};
use crate::support::failure::in_full;
use crate::support::{assert_waits, until_watching};

pub(crate) fn dirs() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ready");
    (dir, path)
}

const LONG: Duration = Duration::from_secs(1000);

#[test]
fn it_is_set_exactly_while_the_file_exists() {
    limit!();
    let (_dir, path) = dirs();
    let event = Event::open(&path).unwrap();
    assert!(!event.is_set().unwrap());
    assert_eq!(event.payload().unwrap(), None);
    assert!(!path.exists(), "opening sets nothing");

    assert!(event.set().unwrap());
    assert!(event.is_set().unwrap() && path.is_file());
    assert_eq!(event.payload().unwrap(), Some(vec![]));
    assert!(!event.set().unwrap());

    assert!(!event.set_with(b"one").unwrap());
    assert!(!event.set_with(b"three").unwrap());
    assert!(!event.set().unwrap(), "the payload stays");
    assert_eq!(event.payload().unwrap().unwrap(), b"three");
    assert_eq!(std::fs::read(&path).unwrap(), b"three");

    assert!(event.clear().unwrap());
    assert!(!event.clear().unwrap());
    assert!(!event.is_set().unwrap() && !path.exists());

    assert!(event.set_with(b"").unwrap());
    assert_eq!(event.payload().unwrap(), Some(vec![]));
    let names: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().collect();
    assert_eq!(names.len(), 1, "other files remain: {names:?}");
    assert_eq!(event.path(), path);
}

#[test]
fn handles_and_futures_can_be_sent_to_other_threads() {
    limit!();
    fn is_free<T: Send + 'static>(_: &T) {}
    fn is_shared<T: Send + Sync + 'static>(_: &T) {}
    let (_dir, path) = dirs();
    let event = Event::open(&path).unwrap();
    is_shared(&event);
    is_free(&event.wait_async());
    is_free(&event.wait_cleared_async());
    is_free(&event.consume_async());
    is_free(&event.wait_payload_async());
    is_free(&Event::wait_any_async([&event]));
    is_free(&Event::wait_all_async([event.clone()]));
    drop(Event::wait_all_async(&[&event]));
    drop(Event::wait_all_async(vec![event.clone()]));
}

#[test]
fn a_wait_for_the_current_state_returns_immediately() {
    limit!();
    let (_dir, path) = dirs();
    let event = Event::open(&path).unwrap();
    event.wait_cleared().unwrap();
    event.wait_cleared_timeout(Duration::ZERO).unwrap();
    event.wait_cleared_deadline(Instant::now()).unwrap();
    block_on(event.wait_cleared_async()).unwrap();
    event.set().unwrap();
    event.wait().unwrap();
    event.wait_timeout(Duration::ZERO).unwrap();
    event.wait_deadline(Instant::now()).unwrap();
    block_on(event.wait_async()).unwrap();
}

#[test]
fn setting_an_event_wakes_all_waiters_in_all_processes() {
    limit!();
    let (dir, path) = dirs();
    let event = Options::new().backstop(LONG).open_event(&path).unwrap();
    let mut peers: Vec<Peer> = (0..6).map(|_| peer(&path, LATE_BACKSTOP)).collect();
    for _ in 0..5 {
        for (peer, way) in peers.iter_mut().zip([Block, Async, Timeout(1_000_000)].iter().cycle()) {
            peer.begin(Call::Wait(*way));
        }
        for peer in &peers {
            until_watching(peer.id(), dir.path());
        }
        crate::support::running::scope(|scope| {
            let _wake = crate::support::running::on_panic(|| drop(event.set()));
            let here: Vec<_> = (0..4)
                .map(|number| {
                    let event = &event;
                    scope.spawn(move || match number % 4 {
                        0 => event.wait(),
                        1 => block_on(event.wait_async()),
                        2 => event.wait_timeout(Duration::MAX),
                        _ => event.wait_deadline(Instant::now() + LONG),
                    })
                })
                .collect();
            until_watching(std::process::id(), dir.path());
            assert!(peers.iter_mut().all(Peer::is_silent));
            assert!(event.set().unwrap());
            for waiter in here {
                waiter.join().unwrap().unwrap();
            }
        });
        for peer in &mut peers {
            peer.finish();
        }
        for (peer, way) in peers.iter_mut().zip([Block, Async, Timeout(1_000_000)].iter().cycle()) {
            peer.begin(Call::WaitCleared(*way));
        }
        for peer in &peers {
            until_watching(peer.id(), dir.path());
        }
        assert!(event.clear().unwrap());
        for peer in &mut peers {
            peer.finish();
        }
    }
}

/// The backstop is very long, so that a lost notification shows as a round that does not end.
#[test]
fn two_processes_lose_no_notification_in_thousands_of_rounds() {
    limit!();
    let (dir, there) = dirs();
    let back = dir.path().join("back");
    let options = if cfg!(windows) { Options::new() } else { Options::new().backstop(LONG) };
    let rounds = if cfg!(windows) { 50 } else { 2000 };
    let (there, back) = (options.open_event(there).unwrap(), options.open_event(back).unwrap());
    for way in [Block, Timeout(1_000_000), Async] {
        let mut other = peer(there.path(), LATE_BACKSTOP);
        other.open_event(back.path(), LATE_BACKSTOP);
        other.begin(Call::PassOn(rounds, way));
        for round in 0..rounds {
            assert!(there.set().unwrap());
            back.wait_timeout(LONG / 10).unwrap_or_else(|error| panic!("{way:?} {round}: {error}"));
            assert!(back.clear().unwrap());
        }
        other.finish();
    }
}

#[test]
fn every_waiting_process_notices_every_change() {
    limit!();
    let (_dir, path) = dirs();
    let event = Event::open(&path).unwrap();
    let mut peers: Vec<Peer> = (0..4).map(|_| peer(&path, LATE_BACKSTOP)).collect();
    let rounds = if cfg!(windows) { 20 } else { 700 };
    for (peer, way) in peers.iter_mut().zip([Block, Timeout(1_000_000), Async, Block]) {
        peer.begin(Call::Follow(rounds, way));
    }
    for round in 0..rounds {
        let payload = if round % 16 == 0 { &b"an occasional payload"[..] } else { b"" };
        assert!(if payload.is_empty() { event.set() } else { event.set_with(payload) }.unwrap());
        for peer in &mut peers {
            assert_eq!(peer.finish(), "set", "round {round}");
        }
        assert!(event.clear().unwrap());
        for peer in &mut peers {
            assert_eq!(peer.finish(), "cleared", "round {round}");
        }
    }
    for peer in &mut peers {
        peer.finish();
    }
}

#[test]
fn a_wait_ends_at_its_deadline_with_a_specific_error() {
    limit!();
    let (_dir, path) = dirs();
    let event = Event::open(&path).unwrap();
    let short = Duration::from_millis(100);
    let is_late = |error: Error, start: Instant, words: &str| {
        assert!(error.is_timed_out(), "{error}");
        assert!(start.elapsed() >= short, "{:?}", start.elapsed());
        assert_eq!(error.path(), path);
        assert!(error.holders().is_empty());
        assert!(in_full(&error).contains(words), "{error}");
    };
    let start = Instant::now();
    let error = event.wait_timeout(short).unwrap_err();
    assert!(format!("{error:?}").contains("kind: TimedOut"), "{error:?}");
    is_late(error, start, "it was not set; wait longer, or check");
    let start = Instant::now();
    is_late(event.wait_deadline(start + short).unwrap_err(), start, "not set");
    let start = Instant::now();
    is_late(
        event.consume_timeout(short).unwrap_err(),
        start,
        "or another process consumed it first",
    );
    event.set().unwrap();
    let start = Instant::now();
    is_late(event.wait_cleared_timeout(short).unwrap_err(), start, "still set");
    let start = Instant::now();
    is_late(event.wait_cleared_deadline(start + short).unwrap_err(), start, "still set");
    for error in [
        event.wait_cleared_timeout(Duration::ZERO).unwrap_err(),
        event.wait_cleared_deadline(Instant::now()).unwrap_err(),
    ] {
        assert!(error.is_timed_out());
        assert!(in_full(&error).contains("ready` is still set; try again later"), "{error}");
    }
    let error = Event::open(path.with_file_name("other")).unwrap().try_consume().unwrap_err();
    assert!(error.is_would_block());
    assert!(in_full(&error).contains("other` is not set; try again later"), "{error}");
}

#[test]
fn exactly_one_of_concurrent_setters_returns_true() {
    limit!();
    let (_dir, path) = dirs();
    let event = Event::open(&path).unwrap();
    for round in 0..100 {
        let barrier = std::sync::Barrier::new(8);
        let first: usize = crate::support::running::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|number| {
                    let (event, barrier) = (&event, &barrier);
                    scope.spawn(move || {
                        barrier.wait();
                        if round % 2 == 0 { event.set() } else { event.set_with([number]) }
                    })
                })
                .collect();
            threads.into_iter().map(|thread| usize::from(thread.join().unwrap().unwrap())).sum()
        });
        assert_eq!(first, 1, "round {round}");
        assert!(event.clear().unwrap());
    }
}

#[test]
fn no_partial_payload_is_read_when_setters_are_killed() {
    limit!();
    let (_dir, path) = dirs();
    let event = Event::open(&path).unwrap();
    let big = whole(8 << 20, b'x');
    event.set_with(&big).unwrap();
    assert!(event.payload().unwrap().unwrap() == big);
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..20 {
        let mut writers: Vec<Peer> = (0..2).map(|_| peer(&path, &[])).collect();
        for (number, writer) in writers.iter_mut().enumerate() {
            writer.begin(Call::SetWholePayloads(round * 7 + number));
            assert_eq!(writer.finish(), "begins");
        }
        let mut read = || {
            let payload = event.payload().unwrap().unwrap();
            assert!(is_whole(&payload), "{} bytes", payload.len());
            seen.insert(payload.len());
            seen.len()
        };
        for _ in 0..50 {
            read();
        }
        // On a slow machine the writers write later.
        crate::support::eventually("it is written", || read() > round + 1);
        for writer in &mut writers {
            writer.kill();
        }
        assert!(is_whole(&event.payload().unwrap().unwrap()));
    }
    assert!(seen.len() > 20, "it was rarely written: {seen:?}");
    event.set_with(b"last").unwrap();
    assert_eq!(written_aside(&path), [""; 0], "temporary files of killed writers remain");
    assert!(event.clear().unwrap());
}

/// Returns the temporary files next to the event, whether their setters are still alive or not.
fn written_aside(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path.parent().unwrap()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(".flockwork")).collect()
}

/// Twelve setters run at a time, so that the first of them are done while others still write.
#[test]
fn setting_an_event_removes_files_of_killed_setters() {
    limit!();
    for set in [Call::Set, Call::SetWith("payload".into())] {
        let (dir, path) = dirs();
        for number in 0..5000 {
            std::fs::write(dir.path().join(number.to_string()), "").unwrap();
        }
        let count = if cfg!(windows) { 3 } else { 12 };
        let mut setters: Vec<Peer> = (0..count).map(|_| peer(&path, &[])).collect();
        for (number, setter) in setters.iter_mut().enumerate() {
            setter.begin(Call::SetWholePayloads(number));
            assert_eq!(setter.finish(), "begins");
        }
        // A fast setter is killed while it writes; all of them are killed eventually.
        while let Some(mut setter) = setters.pop() {
            std::thread::sleep(Duration::from_micros(300 * setters.len() as u64));
            setter.kill();
        }
        let _ = std::fs::remove_file(&path);
        let mut other = peer(&path, &[]);
        other.expect(set.clone(), true);
        assert_eq!(written_aside(&path), [""; 0], "{set:?}");
    }
}

#[test]
fn files_that_are_not_regular_are_rejected_and_left_alone() {
    limit!();
    let (dir, path) = dirs();
    let event = Event::open(&path).unwrap();
    let check = |words: &str| {
        let before = format!("{:?}", std::fs::symlink_metadata(&path).unwrap().file_type());
        let errors = [
            Event::open(&path).map(drop).unwrap_err(),
            event.set().map(drop).unwrap_err(),
            event.set_with(b"x").map(drop).unwrap_err(),
            event.clear().map(drop).unwrap_err(),
            event.is_set().map(drop).unwrap_err(),
            event.payload().map(drop).unwrap_err(),
            event.wait().unwrap_err(),
            event.wait_timeout(LONG).unwrap_err(),
            event.wait_cleared().unwrap_err(),
            event.consume().map(drop).unwrap_err(),
            event.try_consume().map(drop).unwrap_err(),
            block_on(event.wait_async()).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::NotRegularFile, "{error}");
            assert_eq!(error.path(), path);
            assert!(error.to_string().contains(words), "{error}");
        }
        let after = format!("{:?}", std::fs::symlink_metadata(&path).unwrap().file_type());
        assert_eq!(before, after);
    };
    std::fs::create_dir(&path).unwrap();
    check("is a directory");
    std::fs::remove_dir(&path).unwrap();
    #[cfg(unix)]
    {
        let elsewhere = dir.path().join("elsewhere");
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        check("is a symbolic link");
        assert!(!elsewhere.exists());
        std::fs::write(&elsewhere, "theirs").unwrap();
        check("is a symbolic link");
        assert_eq!(std::fs::read(&elsewhere).unwrap(), b"theirs");
        std::fs::remove_file(&path).unwrap();
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        #[cfg(not(target_vendor = "apple"))]
        {
            let kind = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0).unwrap();
            check("is a FIFO");
        }
        let _ = mode;
    }
    drop(dir);
}

#[test]
fn a_non_regular_file_at_the_path_ends_a_wait_with_an_error() {
    limit!();
    let (dir, path) = dirs();
    let mut other = peer(&path, LATE_BACKSTOP);
    other.begin(Call::Wait(Block));
    until_watching(other.id(), dir.path());
    std::fs::create_dir(&path).unwrap();
    let error = other.answer().unwrap_err();
    assert!(error.starts_with("not-regular: ") && error.contains("a directory"), "{error}");
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, "the event works again").unwrap();
    other.run(Call::Wait(Block));
}

#[test]
fn invalid_event_paths_are_rejected() {
    limit!();
    let (dir, path) = dirs();
    for bad in ["", "a\0b"] {
        let error = Event::open(bad).unwrap_err();
        assert_eq!(
            error.io_error().unwrap().kind(),
            std::io::ErrorKind::InvalidInput,
            "{bad:?}: {error}"
        );
        assert_eq!(error.hint(), Some("give the path of a file"), "{error}");
    }
    for bad in [path.join(""), dir.path().join(".."), dir.path().to_path_buf()] {
        let error = Event::open(&bad).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotRegularFile, "{}: {error}", bad.display());
    }
    std::fs::write(&path, "").unwrap();
    let below = path.join("below");
    // Windows says "path not found", and the event then fails to create a directory.
    let error = Event::open(&below).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    // A file that replaced the directory contains no event.
    let later = Event::open(dir.path().join("later/ready")).unwrap();
    std::fs::write(dir.path().join("later"), "").unwrap();
    assert!(!later.is_set().unwrap());
    assert_eq!(later.set().unwrap_err().kind(), ErrorKind::Io);
    // Windows finds no such file, and returns an error when the event is set.
    let long = Event::open(dir.path().join("x".repeat(256)));
    assert!(long.and_then(|event| event.set()).is_err());
    let none: [&Event; 0] = [];
    let error = Event::wait_any(none).unwrap_err();
    assert_eq!(error.io_error().unwrap().kind(), std::io::ErrorKind::InvalidInput, "{error}");
    assert!(block_on(Event::wait_any_async(none)).is_err());
    Event::wait_all(none).unwrap();
}

#[test]
fn only_setting_an_event_creates_its_directory() {
    limit!();
    let (dir, _) = dirs();
    let path = dir.path().join("a/b/ready");
    let short = Duration::from_millis(10);
    let event = Event::open(&path).unwrap();
    for payload in [None, Some(b"x")] {
        assert!(!event.is_set().unwrap());
        assert!(!event.clear().unwrap());
        assert_eq!(event.payload().unwrap(), None);
        assert!(event.try_consume().unwrap_err().is_would_block());
        assert!(event.consume_timeout(short).unwrap_err().is_timed_out());
        assert!(event.wait_timeout(short).unwrap_err().is_timed_out());
        assert!(Event::wait_any_timeout([&event], short).unwrap_err().is_timed_out());
        assert_waits(event.wait_async());
        event.wait_cleared().unwrap();
        let _ = event.is_event_driven();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(payload.map_or_else(|| event.set(), |payload| event.set_with(payload)).unwrap());
        event.wait().unwrap();
        std::fs::remove_dir_all(dir.path().join("a")).unwrap();
    }
}

/// A link such as `current -> releases/7` may exist before its target.
// Unix only: Wine creates no symbolic links.
#[cfg(unix)]
#[test]
fn a_dangling_parent_link_counts_as_missing() {
    limit!();
    let (dir, _) = dirs();
    let (current, target) = (dir.path().join("current"), dir.path().join("releases/7"));
    std::os::unix::fs::symlink("releases/7", &current).unwrap();
    let path = current.join("ready");
    let once = flockwork::Once::open(&path).unwrap();
    let file = flockwork::SharedFile::open(&path).unwrap();
    for arrives in [true, false] {
        let mut other = peer(&path, &[]);
        other.expect(Call::IsSet, false);
        assert!(!once.is_done().unwrap());
        assert_eq!(file.read().unwrap_err().kind(), ErrorKind::NotFound);
        let event = Event::open(&path).unwrap();
        for error in [
            event.set().unwrap_err(),
            event.set_with(b"x").unwrap_err(),
            flockwork::Lock::open(&path).unwrap_err(),
            file.write("x").unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
            assert!(error.to_string().contains("does not exist"), "{error}");
        }
        other.begin(Call::Wait(Block));
        until_watching(other.id(), dir.path());
        assert!(other.is_silent());
        if arrives {
            std::fs::create_dir_all(&target).unwrap();
        } else {
            std::fs::create_dir(dir.path().join("8")).unwrap();
            std::fs::remove_file(&current).unwrap();
            std::os::unix::fs::symlink("8", &current).unwrap();
        }
        std::fs::write(&path, "").unwrap();
        other.finish();
        let _ = std::fs::remove_dir_all(dir.path().join("releases"));
    }
}

/// The producer renames a complete directory to its final name, which must not exist before.
#[test]
fn a_waiter_lets_the_producer_rename_a_directory_into_place() {
    limit!();
    let (dir, _) = dirs();
    let stage = dir.path().join("stage");
    let calls = [Block, Timeout(100_000), Async].map(Call::Wait).into_iter();
    for (number, call) in calls.chain([Call::Consume(Block)]).enumerate() {
        let out = dir.path().join(format!("out{number}"));
        let mut other = peer(&out.join("ready"), LATE_BACKSTOP);
        other.begin(call);
        until_watching(other.id(), dir.path());
        std::fs::create_dir(&stage).unwrap();
        std::fs::write(stage.join("ready"), "ok").unwrap();
        std::fs::rename(&stage, &out).unwrap();
        other.finish();
    }
}

#[test]
fn the_first_setter_creates_missing_parents() {
    limit!();
    let (dir, _) = dirs();
    for round in 0..if cfg!(windows) { 20 } else { 200 } {
        let path = dir.path().join(round.to_string()).join("a/b/c/ready");
        let event = Event::open(&path).unwrap();
        let barrier = std::sync::Barrier::new(4);
        crate::support::running::scope(|scope| {
            for number in 0..4 {
                let (event, barrier, path) = (&event, &barrier, &path);
                scope.spawn(move || {
                    barrier.wait();
                    match number {
                        0 => drop(event.set().unwrap()),
                        1 => drop(event.set_with(b"x").unwrap()),
                        2 => drop(flockwork::Lock::open(path.with_file_name("lock")).unwrap()),
                        _ => drop(Event::open(path.with_file_name("other")).unwrap()),
                    }
                });
            }
        });
    }
}

/// The name leaves no room for the suffix of a taken payload.
#[test]
fn a_long_name_can_be_set_and_cleared() {
    limit!();
    let (dir, _) = dirs();
    let event = Event::open(dir.path().join("x".repeat(255))).unwrap();
    assert!(event.set().unwrap());
    assert!(event.clear().unwrap());
    assert!(event.try_consume().unwrap_err().is_would_block());
    event.set_with(b"x").unwrap();
    let error = event.try_consume().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert_eq!(event.payload().unwrap().unwrap(), b"x");
}

#[test]
fn a_relative_path_is_resolved_when_the_event_is_opened() {
    limit!();
    let (dir, path) = dirs();
    let mut other = Peer::start();
    other.run(Request::SetCurrentDir(dir.path().into()));
    other.open_event(Path::new("ready"), &[]);
    let elsewhere = tempfile::tempdir().unwrap();
    other.run(Request::SetCurrentDir(elsewhere.path().into()));
    other.expect(Call::SetWith("hello".into()), true);
    assert_eq!(std::fs::read(&path).unwrap(), b"hello");
    other.run(Request::SetCurrentDir("..".into())); // Windows keeps it otherwise.
}

#[test]
fn the_callback_names_an_event_that_is_not_set() {
    limit!();
    use std::sync::Mutex;
    let (dir, _) = dirs();
    let seen = std::sync::Arc::new(Mutex::new(Vec::new()));
    let options = Options::new().on_wait(Duration::from_millis(1), Duration::from_millis(1), {
        let seen = std::sync::Arc::clone(&seen);
        move |waiting| {
            let path = waiting.path().file_name().unwrap().to_string_lossy().into_owned();
            let text = waiting.to_string();
            let others = text.split("` ").nth(1).unwrap().split("for ").next().unwrap().to_string();
            seen.lock().unwrap().push((path, others));
        }
    });
    let events =
        ["a", "b", "c", "d"].map(|name| options.open_event(dir.path().join(name)).unwrap());
    for set in [0, 2] {
        events[set].set().unwrap();
    }
    let is_called = {
        let seen = std::sync::Arc::clone(&seen);
        move || !seen.lock().unwrap().is_empty()
    };
    let seen = || std::mem::take(&mut *seen.lock().unwrap());
    let is_all = |seen: Vec<(String, String)>, path: &str, others: &str| {
        let wanted = (path.to_string(), others.to_string());
        assert!(!seen.is_empty() && seen.iter().all(|seen| *seen == wanted), "{seen:?}");
    };
    let short = Duration::from_millis(200);
    assert!(Event::wait_all_timeout(&events, short).unwrap_err().is_timed_out());
    is_all(seen(), "b", "and 1 other ");
    assert!(Event::wait_any_timeout([&events[3], &events[1]], short).unwrap_err().is_timed_out());
    is_all(seen(), "d", "or 1 other ");
    assert!(events[2].wait_cleared_timeout(short).unwrap_err().is_timed_out());
    is_all(seen(), "c", "");
    let setting = events[3].clone();
    std::thread::spawn(move || {
        crate::support::eventually("the callback is called", is_called);
        setting.set().unwrap();
    });
    block_on(Event::wait_all_async([&events[0], &events[3]])).unwrap();
    is_all(seen(), "d", "");
}

#[test]
fn wait_any_and_wait_all_work_across_directories() {
    limit!();
    let (dir, _) = dirs();
    let paths: Vec<PathBuf> =
        (0..3).map(|number| dir.path().join(number.to_string()).join("done")).collect();
    for path in &paths {
        std::fs::create_dir(path.parent().unwrap()).unwrap();
    }
    let events: Vec<Event> = paths.iter().map(|path| Event::open(path).unwrap()).collect();
    let short = Duration::from_millis(100);
    for way in [Block, Async] {
        let mut other = peer(&paths[0], LATE_BACKSTOP);
        other.open_event(&paths[1], LATE_BACKSTOP);
        other.open_event(&paths[2], LATE_BACKSTOP);
        for (number, event) in events.iter().enumerate() {
            other.begin(Call::WaitAny(way));
            for path in &paths {
                until_watching(other.id(), path.parent().unwrap());
            }
            assert!(other.is_silent());
            event.set().unwrap();
            assert_eq!(other.finish(), number.to_string());
            assert_eq!(Event::wait_any(&events).unwrap(), number);
            event.clear().unwrap();
        }
        assert!(Event::wait_any_timeout(&events, short).unwrap_err().is_timed_out());
        other.begin(Call::WaitAll(way));
        for (number, (path, event)) in paths.iter().zip(&events).enumerate() {
            until_watching(other.id(), path.parent().unwrap());
            assert!(other.is_silent());
            let error = Event::wait_all_timeout(&events, short).unwrap_err();
            assert!(error.is_timed_out() && error.path() == path, "{error}");
            let others = 2 - number;
            let words = ["it was not set", "nor was 1 other", "nor were 2 others"][others];
            assert!(error.to_string().ends_with(words), "{error}");
            event.set().unwrap();
        }
        other.finish();
        Event::wait_all_timeout(&events, Duration::ZERO).unwrap();
        assert!(events.iter().all(|event| event.clear().unwrap()));
    }
    // Duplicates are permitted.
    events[0].set().unwrap();
    Event::wait_all([&events[0], &events[0]]).unwrap();
    assert_eq!(Event::wait_any([&events[1], &events[0], &events[0]]).unwrap(), 1);
}

// Unix only: mode bits. On Windows a file inherits the access list of its directory.
#[cfg(unix)]
#[test]
fn created_files_have_the_requested_access() {
    limit!();
    use std::os::unix::fs::PermissionsExt as _;
    let (dir, _) = dirs();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
    for (access, file, directory) in [
        (flockwork::Access::Private, 0o600, 0o700),
        (flockwork::Access::Group, 0o660, 0o770),
        (flockwork::Access::Everyone, 0o666, 0o777),
    ] {
        let path = dir.path().join(format!("{access:?}")).join("ready");
        let event = Options::new().access(access).open_event(&path).unwrap();
        event.set().unwrap();
        assert_eq!(mode(path.parent().unwrap()), directory);
        assert_eq!(mode(&path), file);
        event.set_with(b"x").unwrap();
        assert_eq!(mode(&path), file);
        event.consume().unwrap();
        assert_eq!(mode(&path.with_file_name("ready.flock")), file);
    }
}

#[test]
fn on_wait_reports_a_long_wait() {
    limit!();
    let (_dir, path) = dirs();
    let (send, calls) = std::sync::mpsc::channel();
    let event = Options::new()
        .on_wait(Duration::from_millis(5), Duration::from_millis(5), move |waiting| {
            assert!(waiting.holders().is_empty());
            let _ = send.send((waiting.path().to_path_buf(), waiting.to_string()));
        })
        .open_event(&path)
        .unwrap();
    for way in 0..2 {
        crate::support::running::scope(|scope| {
            let _wake = crate::support::running::on_panic(|| drop(event.set()));
            let waiter = scope.spawn(|| match way {
                0 => event.wait(),
                _ => block_on(event.wait_async()),
            });
            for _ in 0..3 {
                let (reported, words) = calls.recv().unwrap();
                assert_eq!(reported, path);
                assert!(words.starts_with("waiting for `"), "{words}");
            }
            event.set().unwrap();
            waiter.join().unwrap().unwrap();
        });
        event.clear().unwrap();
        while calls.try_recv().is_ok() {}
    }
    assert!(calls.try_recv().is_err());
}

// Linux only: strace injects errors and signals.
#[cfg(target_os = "linux")]
mod injected {
    use super::*;
    use crate::support::strace::{NFS, answer_of_stopped, strace};

    #[test]
    fn the_file_of_a_living_setter_is_not_removed() {
        limit!();
        let (_dir, path) = dirs();
        let event = Event::open(&path).unwrap();
        let Some(mut slow) = strace(&[], "fdatasync:signal=STOP:when=1") else { return };
        slow.open_event(&path, &[]);
        slow.begin(Call::SetWith("slow".into()));
        // It locks the file before it writes, and stops before the file gets its name.
        crate::support::eventually("the setter has written", || {
            let contents = |name: &String| std::fs::read(path.with_file_name(name));
            let written = written_aside(&path);
            written.len() == 1 && contents(&written[0]).is_ok_and(|contents| contents == b"slow")
        });
        let living = written_aside(&path);
        let Some(mut killed) = strace(&[], "fdatasync:signal=KILL:when=1") else { return };
        killed.open_event(&path, &[]);
        killed.begin(Call::SetWith("nothing".into()));
        assert_eq!(killed.answer_or_death(), None);
        assert_eq!(written_aside(&path).len(), 2);
        assert!(event.set_with(b"quick").unwrap());
        assert_eq!(written_aside(&path), living);
        let answer = answer_of_stopped(&mut slow);
        assert_eq!(answer, Ok("false".into()), "another setter was first");
        assert_eq!(event.payload().unwrap().unwrap(), b"slow");
        assert_eq!(written_aside(&path), [""; 0]);
    }

    /// The lock on the temporary file ends before the file gets its name, even if a forked copy
    /// shares it.
    #[test]
    fn an_event_that_was_set_is_not_locked() {
        limit!();
        let (_dir, path) = dirs();
        let event = Event::open(&path).unwrap();
        event.set_with(b"x").unwrap();
        assert!(!flockwork::inspect(&path).unwrap().is_held());
        event.set_with(b"y").unwrap();
        assert!(!flockwork::inspect(&path).unwrap().is_held());
    }

    #[test]
    fn payloads_need_no_locks() {
        limit!();
        // The last case is a network file system, where setters lock nothing.
        let network = format!("flock:signal=KILL;statfs,{NFS}");
        for inject in ["flock:error=ENOSYS", "flock:error=ENOLCK", "flock:error=EACCES", &network] {
            let (_dir, path) = dirs();
            let Some(mut other) = strace(&[], inject) else { return };
            other.open_event(&path, &[]);
            for payload in ["one", "two"] {
                other.expect(Call::SetWith(payload.to_string()), payload == "one");
                other.expect(Call::Payload, payload);
            }
            assert_eq!(written_aside(&path), [""; 0], "{inject}");
        }
    }
}
