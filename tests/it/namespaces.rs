//! Pid namespaces: `/proc/locks` lists only the locks that processes of its own namespace acquired,
//! and the same pid means another process in each namespace.

use std::path::Path;
use std::process::Command;

use flockwork::{Holder, Lock, Options, RwLock, Semaphore, inspect};

use crate::peer::Way::{Block, Timeout, Try};
use crate::peer::lock::{Call, InChild};
use crate::peer::{Peer, Request, label, rwlock, semaphore};
use crate::support::{eventually, has};

/// Commands that run a program in its own pid namespace. The first also mounts a `/proc` for it, as
/// containers have one.
const NAMESPACES: &[&[&str]] = &[
    &["--fork", "--pid", "--mount-proc"],
    &["--fork", "--pid"],
    &["--user", "--map-root-user", "--fork", "--pid"],
    &["--user", "--map-root-user", "--fork", "--pid", "--mount-proc"],
];

/// Returns the commands that work on this machine.
fn namespaces() -> impl Iterator<Item = &'static [&'static str]> {
    NAMESPACES.iter().copied().filter(|namespace| has("unshare", &[*namespace, &["true"]].concat()))
}

/// Returns a command that runs a program in its own namespace. Arguments are added to the program.
fn within(namespace: &[&str], program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("unshare");
    command.args(namespace).arg(program);
    command
}

fn peer_in(namespace: &[&str]) -> Peer {
    Peer::start_as(within(namespace, std::env::current_exe().unwrap()))
}

fn open_labelled(peer: &mut Peer, path: &Path, name: &str) {
    peer.open_lock(path, &[label(name)]);
}

#[test]
fn is_held_sees_holders_in_other_pid_namespaces() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let (lock, rw) = (Lock::open(&path).unwrap(), RwLock::open(&path).unwrap());
    for namespace in namespaces() {
        let mut peer = peer_in(namespace);
        let mut expect = |is_held| peer.expect(Request::IsHeld(path.clone()), is_held);
        expect(false);
        let held = lock.lock().unwrap();
        expect(true);
        held.unlock().unwrap();
        expect(false);
        let reading = [rw.read().unwrap(), rw.read().unwrap()];
        expect(true);
        drop(reading);
        expect(false);
        // Conversely, this process sees what is held inside the namespace.
        peer.open_lock(&path, &[]);
        peer.lock();
        assert!(inspect(&path).unwrap().is_held());
        peer.unlock();
        assert!(!inspect(&path).unwrap().is_held());
    }
}

#[test]
fn concurrent_inspections_do_not_report_each_other() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    Lock::open(&path).unwrap();
    for namespace in namespaces() {
        peer_in(namespace).expect(Request::CountIsHeld(path.clone(), 500), 0);
    }
}

#[test]
fn held_slots_sees_holders_in_other_pid_namespaces() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pool");
    let pool = Semaphore::open(&path, 3).unwrap();
    drop(pool.acquire_many(3).unwrap());
    for namespace in namespaces() {
        let mut peer = peer_in(namespace);
        peer.expect(Request::HeldSlots(path.clone()), "[]");
        let permits = [pool.acquire().unwrap(), pool.acquire().unwrap()];
        let mut slots: Vec<u32> =
            permits.iter().flat_map(|permit| permit.slots().to_vec()).collect();
        slots.sort_unstable();
        peer.expect(Request::HeldSlots(path.clone()), format!("{slots:?}"));
        drop(permits);
        peer.expect(Request::HeldSlots(path.clone()), "[]");
        peer.open_semaphore(&path, 3, &[]);
        let held = peer.run(semaphore::Call::Acquire(1, Block));
        assert_eq!(held, inspect(&path).unwrap().held_slots()[0].to_string());
        peer.run(semaphore::Call::Release);
        assert!(inspect(&path).unwrap().held_slots().is_empty());
    }
}

/// Two containers share a host name, and in each of them the holder is the first process.
#[test]
fn a_holder_in_another_pid_namespace_is_not_this_process() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let own = dir.path().join("own.lock");
    let lock = Lock::open(&path).unwrap();
    for namespace in namespaces() {
        let (mut holding, mut other) = (peer_in(namespace), peer_in(namespace));
        open_labelled(&mut holding, &path, "theirs");
        holding.lock();
        let questions = |peer: &mut Peer| {
            open_labelled(peer, &path, "ours");
            let errors = [Try, Timeout(1)].map(|way| peer.expect_error(Call::Acquire(way)));
            let mut answers =
                vec![peer.run(Call::Holder), peer.run(Request::Holders(path.clone()))];
            answers.extend(errors);
            answers
        };
        for answer in questions(&mut other) {
            assert!(
                answer.contains("\"theirs\", process 1 in another pid namespace ("),
                "{answer}"
            );
            assert!(!answer.contains("this process"), "{answer}");
        }
        let holder = lock.holders().unwrap().remove(0);
        assert!(holder.to_string().contains("process 1 in another pid namespace ("), "{holder}");
        assert!(!holder.same_pid_namespace() && !holder.is_this_process(), "{holder:?}");
        assert_ne!(holder.pid_namespace(), None);
        // A holder still recognizes its own locks.
        open_labelled(&mut other, &own, "ours");
        other.lock();
        let answer = other.run(Request::Holders(own.clone()));
        assert!(
            answer.starts_with("\"ours\", process 1 (") && answer.contains("), this process"),
            "{answer}"
        );
    }
}

#[test]
fn a_holder_outside_the_namespace_has_no_local_pid() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let _held = Lock::open(&path).unwrap().lock().unwrap();
    for namespace in namespaces() {
        let answer = peer_in(namespace).run(Request::Holders(path.clone()));
        // If `/proc` belongs to another namespace, the pid is valid in that namespace.
        let numbered = format!("process {} in another pid namespace (", std::process::id());
        let is_unknown = namespace.contains(&"--mount-proc") && answer.is_empty();
        assert!(is_unknown || answer.starts_with(&numbered), "{namespace:?}: {answer}");
    }
}

/// The namespace of both processes has no separate `/proc`, so `/proc` lists other pids for them.
#[test]
fn a_holder_in_the_same_namespace_is_named_by_its_pid_there() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    if !has("flock", &["--version"]) {
        return;
    }
    Lock::open(&path).unwrap();
    let ready = dir.path().join("ready");
    let script = r#"flock "$0" sh -c 'echo > "$0"; exec sleep 1000' "$1" & shift; exec "$@""#;
    for namespace in namespaces().filter(|namespace| !namespace.contains(&"--mount-proc")) {
        let mut command = within(namespace, "sh");
        command.args(["-c", script]).args([&path, &ready]).arg(std::env::current_exe().unwrap());
        let mut peer = Peer::start_as(command);
        eventually("flock(1) holds the lock", || ready.exists());
        // The shell, which became the peer, is the first process of the namespace; flock(1) is the
        // second.
        let answer = peer.run(Request::Holders(path.clone()));
        assert!(answer.starts_with("process 2 (flock "), "{namespace:?}: {answer}");
        // All processes of a namespace end with its first process.
        drop(peer);
        eventually("the namespace is gone", || !inspect(&path).unwrap().is_held());
        std::fs::remove_file(&ready).unwrap();
    }
}

/// Outside its namespace a reader has two pids: one in its record and another one in the system's
/// list.
#[test]
fn a_reader_in_another_pid_namespace_is_named_once() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    for namespace in namespaces() {
        let mut peers = [peer_in(namespace), peer_in(namespace)];
        for (peer, settings) in peers.iter_mut().zip([&[label("report")][..], &[]]) {
            peer.open_rwlock(&path, settings);
            peer.run(rwlock::Call::Read(Block));
        }
        let status = inspect(&path).unwrap();
        let found = status.holders();
        let labels: Vec<_> = found.iter().map(Holder::label).collect();
        assert_eq!(labels, [Some("report"), None], "{found:?}");
        assert_eq!((found[0].pid(), found[0].same_pid_namespace()), (1, false), "{found:?}");
        assert!(found[1].same_pid_namespace() && found[1].pid() != 1, "{found:?}");
    }
}

/// The record of the same file was written on another machine, or on this one before the last boot,
/// when devices had other numbers.
#[test]
fn a_death_before_the_last_boot_is_reported() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let record = dir.path().join("a.lock.holder");
    for (boot, is_told) in [(Some("an-earlier-one"), true), (None, false)] {
        let mut killed = Peer::start();
        open_labelled(&mut killed, &path, "killed");
        killed.lock();
        killed.kill();
        let text = std::fs::read_to_string(&record).unwrap();
        let renumbered = |line: &str| match (line.split_once(' '), boot) {
            (Some(("file", id)), _) => format!("file 7{id}\n"),
            (Some(("boot", _)), Some(boot)) => format!("boot {boot}\n"),
            _ => format!("{line}\n"),
        };
        std::fs::write(&record, text.lines().map(renumbered).collect::<String>()).unwrap();
        assert_eq!(Lock::open(&path).unwrap().lock().unwrap().was_abandoned(), is_told, "{text}");
    }
}

/// The record names the process that acquired the lock and has ended, as that of a daemon does.
#[test]
fn a_child_that_inherited_a_dead_holders_lock_is_named() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    let lock = Lock::open(&path).unwrap();
    let mut parent = Peer::start();
    open_labelled(&mut parent, &path, "daemon");
    parent.lock();
    let child: u32 = parent.run(Call::Fork(InChild::Stay)).parse().unwrap();
    assert_eq!(lock.holders().unwrap().remove(0).pid(), parent.id());
    parent.kill();
    let holder = lock.holders().unwrap().remove(0);
    assert_eq!((holder.pid(), holder.label()), (child, Some("daemon")));
    assert!(holder.since().is_some() && !holder.is_this_process());
    let child = rustix::process::Pid::from_raw(i32::try_from(child).unwrap()).unwrap();
    rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
    eventually("the process has ended", || !inspect(&path).unwrap().is_held());
    let labelled = Options::new().label("next").open_lock(&path).unwrap();
    assert!(labelled.lock().unwrap().was_abandoned());
}

/// The list names the dead process that acquired the lock, and this user may not inspect the
/// process that inherited it.
#[test]
fn is_held_sees_a_lock_that_a_hidden_process_inherited() {
    limit!();
    if !rustix::process::geteuid().is_root() {
        return crate::support::left_out("locks that another user's process inherited: not root");
    }
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(dir.path(), Some(65534), Some(65534)).unwrap();
    let path = dir.path().join("a.lock");
    let mut taker = Peer::with_lock(&path);
    taker.lock();
    let heir: i32 = taker.run(Call::Fork(InChild::Stay)).parse().unwrap();
    taker.kill();
    let mut other = crate::support::unprivileged::unprivileged();
    other.expect(Request::Holders(path.clone()), "");
    other.expect(Request::IsHeld(path.clone()), true);
    let heir = rustix::process::Pid::from_raw(heir).unwrap();
    rustix::process::kill_process(heir, rustix::process::Signal::KILL).unwrap();
    eventually("the process has ended", || other.run(Request::IsHeld(path.clone())) == "false");
}

#[cfg(feature = "cli")]
mod command {
    use serde_json::{Value, json};

    use super::*;
    use crate::cli::command::{Holding, Ran};

    fn status(namespace: &[&str], words: &[&str], dir: &Path) -> String {
        let mut command = within(namespace, env!("CARGO_BIN_EXE_flockwork"));
        let ran = Ran::of(command.arg("status").args(words).current_dir(dir));
        assert_eq!((ran.code, &*ran.err), (Some(0), ""), "{ran:?}");
        ran.out
    }

    #[test]
    fn status_shows_holders_in_other_pid_namespaces() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        for namespace in namespaces() {
            let json = |path| -> Value {
                let text = status(namespace, &["--json", path], dir);
                serde_json::from_str::<Vec<Value>>(&text).unwrap().remove(0)
            };
            for hold in [&["lock", "--no-record", "f"][..], &["lock", "-s", "--no-record", "f"]] {
                let holding = Holding::start(dir, hold);
                assert_eq!(json("f")["held"], true, "{namespace:?} {hold:?}");
                assert!(!status(namespace, &["f"], dir).contains("free"));
                holding.end();
                assert_eq!(json("f")["held"], false, "{namespace:?}");
            }
            let holding = Holding::start(dir, &["sem", "-j", "3", "s"]);
            let seen = json("s");
            assert_eq!(seen["held"], true, "{namespace:?}: {seen}");
            assert_eq!(seen["available"], 2, "{namespace:?}: {seen}");
            holding.end();
            assert_eq!(json("s")["held"], false, "{namespace:?}");
        }
    }

    #[test]
    fn status_shows_whether_the_pid_is_valid_here() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        for namespace in namespaces() {
            let holding = Holding::start(dir, &["lock", "--label", "import", "f"]);
            let text = status(namespace, &["f"], dir);
            let place = format!("process {} in another pid namespace (", holding.0.id());
            assert!(text.contains(&place), "{text}");
            let seen = status(namespace, &["--json", "f"], dir);
            let holder = &serde_json::from_str::<Value>(&seen).unwrap()[0]["holders"][0];
            assert_eq!(holder["pid"], holding.0.id());
            assert_eq!(holder["same_pid_namespace"], false);
            assert!(holder["pid_namespace"].is_u64(), "{holder}");
            let here = crate::cli::command::run(dir, ["status", "--json", "f"]).out;
            let here = &serde_json::from_str::<Value>(&here).unwrap()[0]["holders"][0];
            assert_eq!(here["same_pid_namespace"], json!(true));
            holding.end();
        }
    }
}
