//! Consuming an event: exactly one consumer gets each setting, whichever consumers are killed and
//! whenever.

use std::collections::BTreeSet;
use std::time::Duration;

use flockwork::{ErrorKind, Event};

use crate::event::dirs;
use crate::peer::Way::{Async, Block, Timeout, Try};
use crate::peer::event::{Call, peer};
use crate::peer::{Answer, LATE_BACKSTOP, Peer};
use crate::support::{eventually, until_watching};

#[test]
fn consuming_clears_the_event() {
    limit!();
    let (dir, path) = dirs();
    let event = Event::open(&path).unwrap();
    assert!(event.try_consume().unwrap_err().is_would_block());
    let count = || std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(count(), 0, "a consumer that finds no event creates nothing");
    event.set_with(b"one").unwrap();
    assert_eq!(event.try_consume().unwrap(), b"one");
    assert!(!event.is_set().unwrap());
    event.set().unwrap();
    assert_eq!(event.consume().unwrap(), b"");
    event.set_with(b"two").unwrap();
    assert_eq!(event.consume_timeout(Duration::ZERO).unwrap(), b"two");
    event.set_with(b"three").unwrap();
    let past = std::time::Instant::now();
    assert_eq!(event.consume_deadline(past).unwrap(), b"three");
    assert!(event.try_consume().unwrap_err().is_would_block());
    let big = crate::peer::event::whole(4 << 20, b'b');
    event.set_with(&big).unwrap();
    assert!(event.consume().unwrap() == big);
    assert_eq!(count(), 1, "only the lock file is left");
}

#[test]
fn each_payload_wakes_one_waiting_consumer() {
    limit!();
    let (dir, path) = dirs();
    let event = Event::open(&path).unwrap();
    let mut peers: Vec<Peer> = (0..5).map(|_| peer(&path, LATE_BACKSTOP)).collect();
    for (peer, way) in peers.iter_mut().zip([Block, Async, Timeout(1_000_000)].iter().cycle()) {
        peer.begin(Call::Consume(*way));
    }
    for peer in &peers {
        until_watching(peer.id(), dir.path());
    }
    let mut got = BTreeSet::new();
    for number in 0..5 {
        event.set_with(format!("setting {number}").as_bytes()).unwrap();
        event.wait_cleared().unwrap();
        let mut answer = None;
        eventually("a peer has consumed it", || {
            answer = peers.iter_mut().find_map(Peer::has_answered);
            answer.is_some()
        });
        got.insert(answer.unwrap().unwrap());
        assert!(peers.iter_mut().all(Peer::is_silent));
    }
    assert_eq!(got, (0..5).map(|number| format!("setting {number}")).collect());
}

/// Consumers are killed at random moments. A killed consumer may lose the payload that it had
/// taken, and no other.
fn storm(settings: u32, kills: bool, steals: bool) {
    let (dir, path) = dirs();
    let event = Event::open(&path).unwrap();
    let log = dir.path().join("log");
    std::fs::write(&log, "").unwrap();
    let start = || {
        let mut peer = peer(&path, LATE_BACKSTOP);
        peer.begin(Call::ConsumeAll(log.clone()));
        peer
    };
    let mut peers: Vec<Peer> = (0..4).map(|_| start()).collect();
    let mut killed = 0_u32;
    for number in 0..settings {
        assert!(event.set_with(number.to_string().as_bytes()).unwrap());
        if steals {
            let _ = std::fs::remove_file(dir.path().join("ready.flock"));
        }
        if kills && number % 5 == 4 {
            let victim = usize::try_from(killed).unwrap() % peers.len();
            let delay = Duration::from_micros(u64::from(number) * 37 % 900);
            std::thread::sleep(delay);
            peers[victim].kill();
            peers[victim] = start();
            killed += 1;
        }
        event.wait_cleared_timeout(Duration::from_secs(100)).unwrap();
    }
    // A payload that a dead consumer had taken and not returned comes before the last one.
    event.set_with(b"end").unwrap();
    for peer in &mut peers {
        peer.finish();
    }
    let text = std::fs::read_to_string(&log).unwrap();
    let mut numbers: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
    numbers.sort_unstable();
    let count = numbers.len();
    numbers.dedup();
    assert_eq!(numbers.len(), count, "a payload was consumed twice");
    let lost = settings - u32::try_from(count).unwrap();
    assert!(lost <= killed, "{lost} of {settings} were lost, {killed} consumers were killed");
}

#[test]
fn nothing_is_consumed_twice_and_nothing_is_lost() {
    limit!();
    storm(if cfg!(windows) { 40 } else { 600 }, false, false);
}

#[test]
fn a_killed_consumer_loses_at_most_one_payload() {
    limit!(4 * crate::limit::LIMIT); // it starts 80 processes, one after the other
    storm(if cfg!(windows) { 40 } else { 400 }, true, false);
}

/// On Windows, two processes that rename or remove one file may both succeed.
#[test]
fn exactly_one_of_many_concurrent_tries_gets_each_setting() {
    limit!();
    let (_dir, path) = dirs();
    let event = Event::open(&path).unwrap();
    let mut peers: Vec<Peer> = (0..4).map(|_| peer(&path, &[])).collect();
    for number in 0..if cfg!(windows) { 40 } else { 400 } {
        let payload = format!("setting {number}");
        event.set_with(payload.as_bytes()).unwrap();
        for peer in &mut peers {
            peer.begin(Call::Consume(Try));
        }
        let answers: Vec<Answer> = peers.iter_mut().map(Peer::answer).collect();
        let is_loser =
            |answer: &&Answer| matches!(answer, Err(error) if error.starts_with("would-block: "));
        let winners = answers.iter().flatten().filter(|got| **got == payload).count();
        let losers = answers.iter().filter(is_loser).count();
        assert_eq!((winners, losers), (1, 3), "{answers:?}");
        assert!(!event.is_set().unwrap());
    }
}

/// Removing the lock file splits the lock, but no setting is delivered twice. (Windows does not
/// remove an open lock file.)
#[test]
fn nothing_is_consumed_twice_when_the_lock_file_is_removed() {
    limit!();
    storm(if cfg!(windows) { 40 } else { 3000 }, false, true);
}

#[test]
fn threads_of_one_handle_exclude_each_other() {
    limit!();
    let (_dir, path) = dirs();
    let event = Event::open(&path).unwrap();
    for _ in 0..200 {
        event.set_with(b"x").unwrap();
        let barrier = std::sync::Barrier::new(4);
        let got: usize = crate::support::running::scope(|scope| {
            let race = || {
                barrier.wait();
                match event.try_consume() {
                    Ok(payload) => payload.len(),
                    Err(error) => {
                        assert!(error.is_would_block(), "{error}");
                        0
                    }
                }
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(race)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(got, 1);
    }
}

#[test]
fn a_payload_left_by_a_dead_consumer_is_consumed_or_cleared() {
    limit!();
    let (dir, path) = dirs();
    let event = Event::open(&path).unwrap();
    let taken = dir.path().join("ready.taken");
    std::fs::write(&taken, "left").unwrap();
    assert!(!event.is_set().unwrap());
    event.set_with(b"set since").unwrap();
    assert_eq!(event.try_consume().unwrap(), b"left");
    assert_eq!(event.try_consume().unwrap(), b"set since");
    std::fs::write(&taken, "left").unwrap();
    assert!(event.clear().unwrap());
    assert!(event.try_consume().unwrap_err().is_would_block());
    assert!(!taken.exists());
    // A directory at that name is left alone, and the error names it.
    std::fs::create_dir(&taken).unwrap();
    let error = event.try_consume().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRegularFile, "{error}");
    assert_eq!(error.path(), taken);
    assert!(taken.is_dir());
}

/// While another process holds the lock, consumers take nothing, and they retry without a file
/// system event.
#[test]
fn a_stuck_consumer_delays_others_only_until_their_timeouts() {
    limit!();
    let (dir, path) = dirs();
    let event = Event::open(&path).unwrap();
    let lock = flockwork::Lock::open(dir.path().join("ready.flock")).unwrap();
    let held = lock.lock().unwrap();
    event.set_with(b"x").unwrap();
    let error = event.try_consume().unwrap_err();
    assert!(error.is_would_block());
    assert!(error.to_string().contains("` is being consumed by another process"), "{error}");
    let error = event.consume_timeout(Duration::from_millis(100)).unwrap_err();
    assert!(error.is_timed_out());
    assert!(error.to_string().ends_with("another process was consuming it"), "{error}");
    let mut other = peer(&path, LATE_BACKSTOP);
    other.begin(Call::Consume(Block));
    until_watching(other.id(), dir.path());
    assert!(other.is_silent());
    assert!(event.clear().unwrap(), "clearing does not wait for the consumers");
    event.set_with(b"y").unwrap();
    drop(held);
    assert_eq!(other.finish(), "y");
}

// Linux only: strace injects the errors.
#[cfg(target_os = "linux")]
mod injected {
    use super::*;
    use crate::support::strace::strace;

    /// Returns the answer of a consumer under the fault `inject` at that path, or `Err` if the
    /// fault kills it.
    fn consume(
        path: &std::path::Path,
        at: &std::path::Path,
        inject: &str,
    ) -> Option<Result<Answer, Died>> {
        let mut other = strace(&["-P".as_ref(), at.as_os_str()], inject)?;
        other.open_event(path, &[]);
        other.begin(Call::Consume(Try));
        Some(other.answer_or_death().ok_or(Died))
    }

    #[derive(Debug, PartialEq)]
    struct Died;

    #[test]
    fn a_consumer_killed_before_it_takes_the_payload_leaves_it() {
        limit!();
        for (suffix, call) in [
            (".flock", "openat"),
            (".flock", "flock"),
            ("", "openat"),
            ("", "renameat2"),
            (".taken", "openat"),
            (".taken", "read"),
            (".taken", "rename,renameat"),
        ] {
            let (_dir, path) = dirs();
            let event = Event::open(&path).unwrap();
            event.set_with(b"work").unwrap();
            let at = std::path::PathBuf::from(format!("{}{suffix}", path.display()));
            let inject = format!("{call}:signal=KILL:when=1");
            let Some(answer) = consume(&path, &at, &inject) else { return };
            assert_eq!(answer, Err(Died), "no {call} of {suffix} was reached");
            assert_eq!(event.try_consume().unwrap(), b"work", "{call} of {suffix}");
            assert!(event.try_consume().unwrap_err().is_would_block());
        }
    }

    #[test]
    fn a_consume_that_fails_at_any_step_takes_nothing() {
        limit!();
        for (suffix, call, errno) in [
            (".flock", "openat", "EMFILE"),
            (".flock", "flock", "ENOLCK"),
            ("", "openat", "EACCES"),
            ("", "renameat2", "EROFS"),
            (".taken", "openat", "ENFILE"),
            (".taken", "read", "EIO"),
            (".taken", "rename,renameat", "EIO"),
        ] {
            let (_dir, path) = dirs();
            let event = Event::open(&path).unwrap();
            event.set_with(b"work").unwrap();
            let at = std::path::PathBuf::from(format!("{}{suffix}", path.display()));
            let inject = format!("{call}:error={errno}:when=1");
            let Some(answer) = consume(&path, &at, &inject) else { return };
            let answer = answer.expect("the consumer survives").unwrap_err();
            assert!(answer.contains("could not "), "{call} of {suffix}: {answer}");
            assert_eq!(event.try_consume().unwrap(), b"work", "{call} of {suffix}");
        }
    }

    /// A taken payload that cannot be removed is not consumed again.
    #[test]
    fn a_payload_that_cannot_be_removed_is_still_consumed() {
        limit!();
        let inject = "unlink,unlinkat:error=EIO:when=1";
        let Some(mut other) = strace(&[], inject) else { return };
        let (_dir, path) = dirs();
        Event::open(&path).unwrap().set_with(b"work").unwrap();
        other.open_event(&path, &[]);
        other.expect(Call::Consume(Try), "work");
        other.expect_would_block(Call::Consume(Try));
    }
}
