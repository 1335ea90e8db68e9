//! Calls on a network file system whose server does not respond keep their limits, and what they
//! gave up leaves nothing held.

use std::time::{Duration, Instant};

use flockwork::{
    Barrier, Cancel, Error, Event, Lock, Once, Options, RwLock, Semaphore, SharedFile, inspect,
};

use crate::fuse::{Mount, responded};
use crate::peer::SLOW_SERVER;
use crate::support::{alone, eventually, threads};

const SERVER_TIMEOUT: Duration = Duration::from_millis(200);
const TIMEOUT: Duration = Duration::from_millis(100);
/// A busy machine runs a thread late. A call that waits for the server would never return.
const SLACK: Duration = Duration::from_secs(20);

type Call<'a> = (&'a str, Duration, Box<dyn FnOnce() -> Result<(), Error> + 'a>);

fn call<'a, T>(
    name: &'a str,
    limit: Duration,
    call: impl FnOnce() -> Result<T, Error> + 'a,
) -> Call<'a> {
    (name, limit, Box::new(move || call().map(drop)))
}

/// Runs the calls. Each of them must time out within its limit.
#[track_caller]
fn expect_time_outs(calls: Vec<Call<'_>>) {
    let mut messages = Vec::new();
    for (name, limit, call) in calls {
        let start = Instant::now();
        let result = call();
        let elapsed = start.elapsed();
        println!("{name}: {} ms late", elapsed.saturating_sub(limit).as_millis());
        let error = result.expect_err(name);
        assert!(error.is_timed_out(), "{name}: {error}");
        messages.push(format!("{name}: {error}"));
        assert!(elapsed < limit + SLACK, "{name}: {elapsed:?}");
    }
    assert_not_responding(&messages);
}

/// The server of a wait seems slow if the helper that asks it begins after the deadline, which
/// happens to some on a busy machine.
#[track_caller]
fn assert_not_responding(messages: &[String]) {
    let says = |text: &str| messages.iter().filter(|message| message.contains(text)).count();
    let (not_responding, slow) = (says("did not respond"), says("was slow"));
    assert_eq!(not_responding + slow, messages.len(), "{messages:#?}");
    assert!(not_responding >= slow, "{messages:#?}");
}

fn options() -> Options {
    Options::new().server_timeout(SERVER_TIMEOUT)
}

#[test]
fn locks_on_a_hanging_mount_keep_their_limits() {
    limit!();
    alone("hanging_mounts::locks_on_a_hanging_mount_keep_their_limits", || {
        let Some(mut mount) = Mount::start() else { return };
        let (path, both) = (mount.at("a.lock"), mount.at("b.lock"));
        let lock = responded(|| options().open_lock(&path));
        let rwlock = responded(|| options().open_rwlock(&both));
        let held = responded(|| options().label("held").open_lock(mount.at("held.lock")));
        let (guard, dropped) = (held.lock().unwrap(), lock.lock().unwrap());
        let (writing, reading) = {
            let open = |name| responded(|| options().open_rwlock(mount.at(name)));
            (open("w.lock").write().unwrap(), open("r.lock").read().unwrap())
        };
        mount.hang();
        let calls = vec![
            call("Lock::try_lock", SERVER_TIMEOUT, || lock.try_lock()),
            call("Lock::lock_timeout", TIMEOUT, || lock.lock_timeout(TIMEOUT)),
            call("Lock::lock_timeout zero", Duration::ZERO, || lock.lock_timeout(Duration::ZERO)),
            call("Lock::lock_deadline", TIMEOUT, || lock.lock_deadline(Instant::now() + TIMEOUT)),
            call("Lock::holders", SERVER_TIMEOUT, || lock.holders()),
            call("Options::open_lock", SERVER_TIMEOUT, || options().open_lock(mount.at("new"))),
            call("RwLock::try_read", SERVER_TIMEOUT, || rwlock.try_read()),
            call("RwLock::try_write", SERVER_TIMEOUT, || rwlock.try_write()),
            call("RwLock::read_timeout", TIMEOUT, || rwlock.read_timeout(TIMEOUT)),
            call("RwLock::write_timeout", TIMEOUT, || rwlock.write_timeout(TIMEOUT)),
            call("RwLock::holders", SERVER_TIMEOUT, || rwlock.holders()),
            call("Options::open_rwlock", SERVER_TIMEOUT, || options().open_rwlock(mount.at("new"))),
            call("LockGuard::still_held", SERVER_TIMEOUT, || guard.still_held()),
            call("LockGuard::fencing_token", SERVER_TIMEOUT, || guard.fencing_token()),
            call("RwLockReadGuard::still_held", SERVER_TIMEOUT, || reading.still_held()),
            call("inspect", Duration::from_secs(1), || inspect(&path)),
        ];
        expect_time_outs(calls);
        let calls = vec![
            call("LockGuard::unlock", SERVER_TIMEOUT, || guard.unlock()),
            call("RwLockWriteGuard::downgrade", SERVER_TIMEOUT, || writing.downgrade()),
            call("RwLockReadGuard::unlock", SERVER_TIMEOUT, || reading.unlock()),
        ];
        expect_time_outs(calls);
        let start = Instant::now();
        drop(dropped);
        assert!(start.elapsed() < SERVER_TIMEOUT + SLACK);
        mount.resume();
        for name in ["a.lock", "held.lock", "new"] {
            eventually(name, || responded(|| Lock::open(mount.at(name))).try_lock().is_ok());
        }
        for name in ["b.lock", "w.lock", "r.lock"] {
            eventually(name, || responded(|| RwLock::open(mount.at(name))).try_write().is_ok());
        }
    });
}

#[test]
fn permits_on_a_hanging_mount_keep_their_limits() {
    limit!();
    alone("hanging_mounts::permits_on_a_hanging_mount_keep_their_limits", || {
        let Some(mut mount) = Mount::start() else { return };
        let pool = responded(|| options().open_semaphore(mount.at("pool"), 4));
        let mut permit = pool.acquire_many(2).unwrap();
        let dropped = pool.acquire().unwrap();
        let barrier = responded(|| options().open_barrier(mount.at("barrier"), 2));
        mount.hang();
        let at = mount.at("new");
        let calls = vec![
            call("Semaphore::try_acquire", SERVER_TIMEOUT, || pool.try_acquire()),
            call("Semaphore::acquire_timeout", TIMEOUT, || pool.acquire_timeout(TIMEOUT)),
            call("Semaphore::available_permits", SERVER_TIMEOUT, || pool.available_permits()),
            call("Semaphore::capacity", SERVER_TIMEOUT, || pool.capacity()),
            call("Semaphore::set_capacity", SERVER_TIMEOUT, || pool.set_capacity(4)),
            call("Semaphore::holders", SERVER_TIMEOUT, || pool.holders()),
            call("Options::open_semaphore", SERVER_TIMEOUT, || options().open_semaphore(&at, 4)),
            call("Permit::still_held", SERVER_TIMEOUT, || permit.still_held()),
            call("Permit::fencing_token", SERVER_TIMEOUT, || permit.fencing_token()),
            call("Barrier::try_wait", SERVER_TIMEOUT, || barrier.try_wait()),
            call("Barrier::wait_timeout", TIMEOUT, || barrier.wait_timeout(TIMEOUT)),
            call("Barrier::waiting", SERVER_TIMEOUT, || barrier.waiting()),
            call("Barrier::is_broken", SERVER_TIMEOUT, || barrier.is_broken()),
            call("Barrier::abort", SERVER_TIMEOUT, || barrier.abort()),
            call("Options::open_barrier", SERVER_TIMEOUT, || options().open_barrier(&at, 4)),
        ];
        expect_time_outs(calls);
        // A call that was given up has the permit.
        assert!(permit.split(1).unwrap_err().to_string().contains("waits for its server"));
        expect_time_outs(vec![call("Permit::release", SERVER_TIMEOUT, || permit.release())]);
        drop(dropped);
        mount.resume();
        let pool = responded(|| Semaphore::open_existing(mount.at("pool")));
        eventually("all permits are free", || pool.try_acquire_many(4).is_ok());
        let barrier = responded(|| Barrier::open(mount.at("barrier"), 2));
        eventually("no participant waits", || responded(|| barrier.waiting()) == 0);
    });
}

#[test]
fn events_on_a_hanging_mount_keep_their_limits() {
    limit!();
    alone("hanging_mounts::events_on_a_hanging_mount_keep_their_limits", || {
        let Some(mut mount) = Mount::start() else { return };
        let open = |name| responded(|| options().open_event(mount.at(name)));
        let (event, set, once) = (open("event"), open("set"), mount.at("once"));
        responded(|| set.set_with("payload"));
        let announced = open("announced");
        let announced = responded(|| announced.set_while_alive(""));
        let once = responded(|| options().open_once(&once));
        let file = responded(|| options().open_shared_file(mount.at("file")));
        let fails = || -> Result<(), Error> { panic!("the work must not run") };
        mount.hang();
        let at = mount.at("new");
        let calls = vec![
            call("Event::is_set", SERVER_TIMEOUT, || event.is_set()),
            call("Event::payload", SERVER_TIMEOUT, || set.payload()),
            call("Event::try_wait", SERVER_TIMEOUT, || event.try_wait()),
            call("Event::wait_timeout", TIMEOUT, || event.wait_timeout(TIMEOUT)),
            call("Event::wait_cleared_timeout", TIMEOUT, || set.wait_cleared_timeout(TIMEOUT)),
            call("Event::try_consume", SERVER_TIMEOUT, || set.try_consume()),
            call("Event::consume_timeout", TIMEOUT, || set.consume_timeout(TIMEOUT)),
            call("Event::wait_any_timeout", TIMEOUT, || {
                Event::wait_any_timeout([&event, &set], TIMEOUT)
            }),
            call("Event::set", SERVER_TIMEOUT, || set.set()),
            call("Event::clear", SERVER_TIMEOUT, || event.clear()),
            call("Options::open_event", SERVER_TIMEOUT, || options().open_event(&at)),
            call("Announcement::still_set", SERVER_TIMEOUT, || announced.still_set()),
            call("Once::is_done", SERVER_TIMEOUT, || once.is_done()),
            call("Once::try_call_once", SERVER_TIMEOUT, || once.try_call_once(fails)),
            call("Once::call_once_timeout", TIMEOUT, || once.call_once_timeout(TIMEOUT, fails)),
            call("Once::reset_timeout", TIMEOUT, || once.reset_timeout(TIMEOUT)),
            call("Once::wait_timeout", TIMEOUT, || once.wait_timeout(TIMEOUT)),
            call("Options::open_once", SERVER_TIMEOUT, || options().open_once(&at)),
            call("SharedFile::try_lock_shared", SERVER_TIMEOUT, || file.try_lock_shared()),
            call("SharedFile::lock_exclusive_timeout", TIMEOUT, || {
                file.lock_exclusive_timeout(TIMEOUT)
            }),
            call("SharedFile::holders", SERVER_TIMEOUT, || file.holders()),
            call("Options::open_shared_file", SERVER_TIMEOUT, || options().open_shared_file(&at)),
        ];
        expect_time_outs(calls);
        let withdraw = call("Announcement::withdraw", SERVER_TIMEOUT, || announced.withdraw());
        expect_time_outs(vec![withdraw]);
        mount.resume();
        let announced = responded(|| Event::open(mount.at("announced")));
        eventually("the announcement is withdrawn", || !responded(|| announced.is_set()));
        let once = responded(|| Once::open(mount.at("once")));
        assert!(responded(|| once.call_once(|| Ok::<_, Error>(()))));
        let file = responded(|| SharedFile::open(mount.at("file")));
        eventually("the file is not locked", || file.try_lock_exclusive().is_ok());
    });
}

/// A payload that a call takes after it was given up would be lost.
#[test]
fn a_payload_that_comes_too_late_is_set_again() {
    limit!();
    alone("hanging_mounts::a_payload_that_comes_too_late_is_set_again", || {
        let Some(mut mount) = Mount::start() else { return };
        let event = responded(|| options().open_event(mount.at("event")));
        for _ in 0..5 {
            responded(|| event.set_with("payload"));
            mount.hang();
            assert!(event.try_consume().unwrap_err().is_timed_out());
            mount.resume();
            let patient = responded(|| Event::open(mount.at("event")));
            let payload = patient.consume_timeout(Duration::from_secs(60)).unwrap();
            assert_eq!(payload, b"payload");
        }
    });
}

#[test]
fn many_calls_on_a_hanging_mount_start_few_threads() {
    limit!();
    alone("hanging_mounts::many_calls_on_a_hanging_mount_start_few_threads", || {
        let Some(mut mount) = Mount::start() else { return };
        let path = mount.at("a.lock");
        let impatient = Options::new().server_timeout(Duration::from_millis(1));
        let lock = impatient.open_lock(&path).unwrap_or_else(|_| responded(|| Lock::open(&path)));
        let quick = responded(|| impatient.open_lock(&path));
        drop(lock);
        let before = threads();
        mount.hang();
        for _ in 0..1000 {
            assert!(quick.try_lock().unwrap_err().is_timed_out());
        }
        let more = threads() - before;
        assert!((1..=70).contains(&more), "{more} threads more");
        mount.resume();
        let lock = responded(|| Lock::open(&path));
        eventually("nothing is held", || lock.try_lock().is_ok());
        eventually("the threads end", || threads() <= before + 2);
    });
}

#[test]
fn a_token_ends_waits_and_opening_on_a_hanging_mount() {
    limit!();
    alone("hanging_mounts::a_token_ends_waits_and_opening_on_a_hanging_mount", || {
        let Some(mut mount) = Mount::start() else { return };
        let path = mount.at("a.lock");
        let token = Cancel::new();
        let patient = Options::new().server_timeout(Duration::MAX).cancel(&token);
        let lock = responded(|| patient.open_lock(&path));
        mount.hang();
        let (opening, other) = (patient.clone(), mount.at("b.lock"));
        let waits = [
            std::thread::spawn(move || lock.lock().map(drop)),
            std::thread::spawn(move || opening.open_lock(other).map(drop)),
        ];
        std::thread::sleep(Duration::from_millis(100));
        assert!(waits.iter().all(|wait| !wait.is_finished()));
        token.cancel();
        for wait in waits {
            assert!(wait.join().unwrap().unwrap_err().is_cancelled());
        }
        mount.resume();
        let lock = responded(|| Lock::open(&path));
        eventually("nothing is held", || lock.try_lock().is_ok());
    });
}

/// The callback runs in the waiting thread.
#[test]
fn lookups_of_holders_do_not_delay_a_wait() {
    limit!();
    alone("hanging_mounts::lookups_of_holders_do_not_delay_a_wait", || {
        let Some(mut mount) = Mount::start() else { return };
        let path = mount.at("a.lock");
        let held = responded(|| Options::new().label("holder").open_lock(&path));
        let held = held.lock().unwrap();
        let second = Duration::from_secs(1);
        let waiting = options().on_wait(Duration::from_millis(10), second, |waiting| {
            assert!(waiting.to_string().starts_with("waiting for"));
        });
        let waiting = responded(|| waiting.open_lock(&path));
        // On a busy machine the server may respond too late for the try or for the lookup.
        let refuse = || loop {
            let error = waiting.try_lock().unwrap_err();
            if error.is_would_block() {
                break error;
            }
        };
        eventually("the holder is found", || {
            refuse().holders().first().is_some_and(|holder| holder.label() == Some("holder"))
        });
        let refused = refuse();
        let reporting = options().on_wait(TIMEOUT, TIMEOUT, |_| ());
        let open = |name| responded(|| reporting.open_event(mount.at(name)));
        let events = [open("one"), open("two")];
        mount.hang();
        assert_eq!(refused.holders().len(), 0);
        expect_time_outs(vec![
            call("Lock::lock_timeout", TIMEOUT, || waiting.lock_timeout(TIMEOUT)),
            call("Event::wait_all_timeout", 3 * TIMEOUT, || {
                Event::wait_all_timeout(&events, 3 * TIMEOUT)
            }),
        ]);
        mount.resume();
        held.unlock().unwrap();
        eventually("nothing is held", || waiting.try_lock().is_ok());
    });
}

/// One thread polls all futures. It would not run the last one while another blocks.
#[test]
fn futures_on_a_hanging_mount_do_not_block_their_executor() {
    limit!();
    alone("hanging_mounts::futures_on_a_hanging_mount_do_not_block_their_executor", || {
        let Some(mut mount) = Mount::start() else { return };
        let lock = responded(|| options().open_lock(mount.at("a.lock")));
        let rwlock = responded(|| options().open_rwlock(mount.at("b.lock")));
        let pool = responded(|| options().open_semaphore(mount.at("pool"), 1));
        let event = responded(|| options().open_event(mount.at("event")));
        let barrier = responded(|| options().open_barrier(mount.at("barrier"), 2));
        responded(|| event.set());
        mount.hang();
        let local = tempfile::tempdir().unwrap();
        let local = Lock::open(local.path().join("a.lock")).unwrap();
        futures_lite::future::block_on(async {
            use futures_lite::future::{or, poll_once};
            let mut locking = Box::pin(lock.lock_async());
            let mut waiting = Box::pin(event.wait_async());
            assert!(poll_once(&mut locking).await.is_none());
            assert!(poll_once(&mut waiting).await.is_none());
            assert!(poll_once(rwlock.read_async()).await.is_none());
            assert!(poll_once(pool.acquire_async()).await.is_none());
            assert!(poll_once(barrier.wait_async()).await.is_none());
            let hanging = async {
                let _guard = lock.lock_async().await;
                panic!("acquired on a hanging mount");
            };
            or(hanging, async { drop(local.lock_async().await.unwrap()) }).await;
            mount.resume();
            drop(locking.await.unwrap());
            waiting.await.unwrap();
            drop(pool.acquire_async().await.unwrap());
        });
        eventually("nothing is held", || lock.try_lock().is_ok() && rwlock.try_write().is_ok());
    });
}

/// A wait on a network file system that responds reads as any other.
#[test]
fn waits_on_a_mount_that_responds_end_as_elsewhere() {
    limit!();
    alone("hanging_mounts::waits_on_a_mount_that_responds_end_as_elsewhere", || {
        let Some(mount) = Mount::start() else { return };
        let path = mount.at("a.lock");
        let options = Options::new().label("holder").server_timeout(SLOW_SERVER);
        let lock = options.open_lock(&path).unwrap();
        let held = lock.lock().unwrap();
        // On a busy machine the server may be late for the last request of a wait, or for the
        // lookup of the holders.
        let limit = Duration::from_millis(300);
        let mut errors = (0..200).map(|_| lock.lock_timeout(limit).unwrap_err());
        let error = errors.find(|error| error.to_string().contains("held by \"holder\"")).unwrap();
        assert!(error.is_timed_out(), "{error}");
        assert!(error.waited().unwrap() >= limit);
        assert!(lock.try_lock().unwrap_err().is_would_block());
        let waiting = lock.clone();
        let waiter = std::thread::spawn(move || waiting.lock_timeout(Duration::from_secs(100)));
        std::thread::sleep(Duration::from_millis(50));
        held.unlock().unwrap();
        drop(waiter.join().unwrap().unwrap());
        assert!(lock.try_lock().is_ok());
    });
}

#[cfg(feature = "cli")]
mod command {
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::process::ExitStatusExt as _;
    use std::path::Path;
    use std::process::{Command, Stdio};

    use rustix::process::Signal;

    use super::*;
    use crate::cli::without_progress;
    use crate::support::running::{Running, Start as _};

    fn start(words: &[&str]) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flockwork"));
        command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env("SHELL", "/bin/sh");
        command.start()
    }

    /// The output of the command ends too, although its process may be unable to end.
    #[test]
    fn limits_of_the_command_hold_on_a_hanging_mount() {
        limit!();
        let Some(mut mount) = Mount::start() else { return };
        let at = |name: &str| mount.at(name).to_str().unwrap().to_string();
        let (lock, pool, event, once) = (at("a.lock"), at("pool"), at("event"), at("once"));
        assert!(start(&["lock", &lock, "true"]).wait().unwrap().success());
        mount.hang();
        let mut messages = Vec::new();
        for words in [
            &["lock", "-w", "0.2", &lock, "true"][..],
            &["lock", "-s", "-w", "0.2", &lock, "true"],
            &["lock", "-n", &lock, "true"],
            &["sem", "-j", "2", "-w", "0.2", &pool, "true"],
            &["once", "-w", "0.2", &once, "true"],
            &["event", "wait", "-w", "0.2", &event],
            &["event", "set", &event],
            &["event", "status", &event],
            &["status", &lock],
            &["status", "--json", &pool],
            &["status", "-q", &event],
            &["event", "clear", &event],
            &["event", "wait", "--exists", "-w", "0.2", &event],
            &["event", "wait", "--print", "-w", "0.2", &event],
            &["event", "wait", "--consume", "-w", "0.2", &event],
            &["sem", "--wait", "-w", "0.2", &pool],
            &["sem", "--resize", "-j", "3", &pool],
        ] {
            let (running, began) = (start(words), Instant::now());
            let output = running.wait_with_output().unwrap();
            println!("{words:?}: {:?}", began.elapsed());
            let text = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(75), "{words:?}: {text}");
            messages.push(format!("{words:?}: {text}"));
            assert!(began.elapsed() < SLACK, "{words:?}: {:?}", began.elapsed());
        }
        assert_not_responding(&messages);
        let other_code = ["lock", "-q", "-E", "9", "-w", "0.1", &lock, "true"];
        let output = start(&other_code).wait_with_output().unwrap();
        assert_eq!((output.status.code(), &*output.stderr), (Some(9), &b""[..]));
        mount.resume();
        eventually("nothing is held", || {
            start(&["lock", "-n", &lock, "true"]).wait().unwrap().success()
        });
    }

    #[test]
    fn signals_end_the_command_on_a_hanging_mount() {
        limit!();
        let Some(mut mount) = Mount::start() else { return };
        let at = |name: &str| mount.at(name).to_str().unwrap().to_string();
        let (lock, pool, event, once) = (at("a.lock"), at("pool"), at("event"), at("once"));
        mount.hang();
        for signal in [Signal::TERM, Signal::INT] {
            for words in [
                &["lock", &lock, "true"][..],
                &["lock", "-x", &lock, "true"],
                &["sem", "-j", "2", &pool, "true"],
                &["once", &once, "true"],
                &["event", "wait", &event],
                &["status", &event],
            ] {
                let running = start(words);
                std::thread::sleep(Duration::from_millis(100));
                running.signal(signal);
                let began = Instant::now();
                let output = running.wait_with_output().unwrap();
                println!("{words:?} {signal:?}: {:?}", began.elapsed());
                assert_eq!(output.status.signal(), Some(signal.as_raw()), "{words:?}: {output:?}");
            }
        }
    }

    /// The server responds at the moment at which the wait times out.
    #[test]
    fn a_command_never_runs_if_its_wait_has_timed_out() {
        limit!();
        let Some(mut mount) = Mount::start() else { return };
        let lock = mount.at("a.lock").to_str().unwrap().to_string();
        assert!(start(&["lock", &lock, "true"]).wait().unwrap().success());
        for round in 0..12 {
            let directory = tempfile::tempdir().unwrap();
            let has_run = directory.path().join("has_run");
            let job = format!("sleep 0.1; : > {}", has_run.display());
            mount.hang();
            let running = start(&["lock", "-w", "0.2", "-o", &lock, "-c", &job]);
            // The wait ends 0.3 s after its deadline.
            std::thread::sleep(Duration::from_millis(490 + 5 * round));
            mount.resume();
            let output = running.wait_with_output().unwrap();
            println!("{round}: {:?}", output.status);
            match output.status.code() {
                Some(0) => assert!(has_run.exists(), "{output:?}"),
                code => {
                    assert_eq!(code, Some(75), "{output:?}");
                    std::thread::sleep(Duration::from_millis(300));
                    assert!(!has_run.exists(), "{output:?}");
                }
            }
        }
    }

    #[test]
    fn a_command_on_a_network_file_system_runs_as_elsewhere() {
        limit!();
        let Some(mut mount) = Mount::start() else { return };
        let lock = mount.at("a.lock").to_str().unwrap().to_string();
        let run = |words: &[&str]| start(words).wait_with_output().unwrap();
        let output = run(&["lock", &lock, "-c", "echo out; echo err >&2; exit 7"]);
        assert_eq!(output.status.code(), Some(7), "{output:?}");
        let errors = String::from_utf8_lossy(&output.stderr);
        let errors: String = without_progress(&errors).collect();
        assert_eq!((&*output.stdout, &*errors), (&b"out\n"[..], "err\n"));
        // The command inherits no descriptor of the pipe, and a nested one is independent.
        let nested =
            format!("{} lock -w 100 {lock}.2 ls /proc/self/fd", env!("CARGO_BIN_EXE_flockwork"));
        let output = run(&["lock", "-o", &lock, "-c", &nested]);
        assert!(output.status.success(), "{output:?}");
        let output = run(&["lock", &lock, "-c", "kill -USR1 $$"]);
        assert_eq!(output.status.code(), Some(128 + Signal::USR1.as_raw()), "{output:?}");
        // The limit of the wait does not limit the command, and a signal is forwarded to it.
        let mut byte = [0; 2];
        let flag = tempfile::NamedTempFile::new().unwrap();
        let flagged = format!("while [ -e {} ]; do sleep 0.1; done", flag.path().display());
        let runs_beyond = |limit: u32| {
            let script = format!("echo on; sleep {}; {flagged}; echo end", limit + 1);
            let limit = limit.to_string();
            let mut running = start(&["lock", "-w", &limit, &lock, "-c", &script]);
            let on = std::io::Read::read_exact(running.stdout.as_mut().unwrap(), &mut byte);
            on.map(|()| running).map_err(|error| println!("a limit of {limit} s: {error}"))
        };
        // On a busy machine, the command may take a second to begin.
        let mut running = [1, 5, 25].into_iter().map(runs_beyond).find_map(Result::ok).unwrap();
        assert_eq!(run(&["lock", "-n", &lock, "true"]).status.code(), Some(75));
        drop(flag);
        assert!(running.wait().unwrap().success());
        // Without `exec`, `sleep` may outlive its shell, and hold the lock.
        let mut running = start(&["lock", &lock, "-c", "echo on; exec sleep 1000"]);
        std::io::Read::read_exact(running.stdout.as_mut().unwrap(), &mut byte).unwrap();
        running.signal(Signal::TERM);
        assert_eq!(running.wait().unwrap().code(), Some(128 + Signal::TERM.as_raw()));
        // The server stops while the command runs. The release waits for it, or for a signal.
        for is_ended in [true, false] {
            let flag = tempfile::NamedTempFile::new().unwrap();
            let script =
                format!("echo $$; while [ -e {} ]; do :; done; exit 3", flag.path().display());
            let mut running = start(&["lock", "-w", "100", "-o", &lock, "-c", &script]);
            let mut pid = String::new();
            BufReader::new(running.stdout.as_mut().unwrap()).read_line(&mut pid).unwrap();
            assert!(pid.trim().parse::<u32>().is_ok(), "{pid:?}");
            mount.hang();
            drop(flag);
            let process = Path::new("/proc").join(pid.trim());
            eventually("the command has ended", || !process.exists());
            std::thread::sleep(Duration::from_millis(500));
            assert!(running.try_wait().unwrap().is_none());
            if is_ended {
                running.signal(Signal::TERM);
                assert_eq!(running.wait().unwrap().signal(), Some(Signal::TERM.as_raw()));
                mount.resume();
            } else {
                mount.resume();
                assert_eq!(running.wait().unwrap().code(), Some(3));
            }
        }
    }
}
