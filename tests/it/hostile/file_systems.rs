//! File systems that return errors: full disks, no free inodes, read-only mounts, quotas, no
//! `/proc`. Each test mounts them in its own namespace.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use flockwork::{Error, Event, Lock, Options, Semaphore, SharedFile};

use crate::hostile::fixtures::{KINDS, Kind, exercise, snapshot};
use crate::peer::Way::Block;
use crate::peer::lock::Call;
use crate::peer::shared_file;
use crate::support::{alone_under, has};

pub(super) const WHERE: &str = "FLOCKWORK_IT_WHERE";

pub(super) fn place() -> PathBuf {
    std::env::var_os(WHERE).unwrap().into()
}

/// Runs `body` as the test `name` in a process with its own mounts, which `script` creates at `$1`.
/// If that is not permitted, prints that the test is left out.
fn mounted(name: &str, script: &str, body: impl FnOnce()) {
    if std::env::var_os(WHERE).is_some() {
        return body();
    }
    let user: &[&str] = if rustix::process::geteuid().is_root() { &["-m"] } else { &["-Urm"] };
    if !has("unshare", &[user, &["true"]].concat()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let try_it = format!("set -e; {script}");
    let mut attempt = Command::new("unshare");
    attempt.args(user).args(["sh", "-c", &try_it, "sh"]).arg(dir.path());
    let tried = attempt.output().unwrap();
    if !tried.status.success() {
        let why = String::from_utf8_lossy(&tried.stderr).trim().to_string();
        let line = format!("left out: {name}: {why}\n");
        let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
        return;
    }
    let mut command = Command::new("unshare");
    command.args(user).args(["sh", "-c", &format!("{try_it}\nshift; exec \"$@\""), "sh"]);
    command.arg(dir.path()).arg(std::env::current_exe().unwrap()).env(WHERE, dir.path());
    alone_under(command, name, body);
}

/// Asserts that an error has one of these kinds and names the path.
#[track_caller]
pub(super) fn assert_says(step: &str, error: &Error, kinds: &[std::io::ErrorKind]) {
    assert!(kinds.contains(&error.io_error().unwrap().kind()), "{step}: {error:?}");
    assert!(error.to_string().contains(&place().display().to_string()), "{step}: {error}");
}

fn fill(file: &Path) {
    use std::io::Write as _;
    let mut filler = std::fs::File::options().create(true).append(true).open(file).unwrap();
    while filler.write_all(&[7; 1024]).is_ok() {}
    while filler.write_all(&[7]).is_ok() {}
}

#[test]
fn a_full_disk_fails_only_calls_that_need_room() {
    limit!();
    const NAME: &str = "hostile::file_systems::a_full_disk_fails_only_calls_that_need_room";
    mounted(NAME, "mount -t tmpfs -o size=64k none \"$1\"", || {
        let dir = place();
        let file = SharedFile::open(dir.join("data")).unwrap();
        file.write("old").unwrap();
        let event = Event::open(dir.join("event")).unwrap();
        event.set_with(b"old").unwrap();
        let pool = Semaphore::open(dir.join("pool"), 2).unwrap();
        drop(pool.acquire_many(2).unwrap());
        fill(&dir.join("filler"));

        let full = [std::io::ErrorKind::StorageFull];
        assert_says("write", &file.write("new, and longer").unwrap_err(), &full);
        assert_eq!(file.read().unwrap(), b"old");
        assert!(!dir.join("data.lock.new").exists());
        assert_says("set_with", &event.set_with(b"new").unwrap_err(), &full);
        assert_eq!(event.payload().unwrap().unwrap(), b"old");
        assert_eq!(event.try_consume().unwrap(), b"old");
        fill(&dir.join("filler")); // The calls above have freed some room.
        let again = Semaphore::open(dir.join("other"), 2).unwrap_err();
        assert_says("a new semaphore", &again, &full);
        assert!(!dir.join("other/capacity").exists());
        let held = pool.acquire_many(2).unwrap();
        assert!(pool.acquire_timeout(Duration::from_millis(20)).unwrap_err().is_timed_out());
        assert_says("resize", &pool.set_capacity(3).unwrap_err(), &full);
        drop(held);
        assert_eq!(pool.available_permits().unwrap(), 2);
        // A record is optional: the lock is acquired even if there is no room for the record.
        let lock = Options::new().label("no room").open_lock(dir.join("lock")).unwrap();
        let held = lock.lock().unwrap();
        assert!(lock.holders().unwrap().iter().all(|holder| holder.label().is_none()));
        drop(held);
        for left in
            std::fs::read_dir(&dir).unwrap().chain(std::fs::read_dir(dir.join("pool")).unwrap())
        {
            let name = left.unwrap().file_name();
            let name = name.to_string_lossy();
            assert!(!name.starts_with(".flockwork") && !name.ends_with(".new"), "{name} remains");
        }
    });
}

#[test]
fn without_inodes_existing_files_work_and_waiters_are_woken() {
    limit!();
    const NAME: &str =
        "hostile::file_systems::without_inodes_existing_files_work_and_waiters_are_woken";
    mounted(NAME, "mount -t tmpfs -o size=1m,nr_inodes=64 none \"$1\"", || {
        let dir = place();
        for kind in [Kind::Lock, Kind::RwLock, Kind::Semaphore] {
            for (step, outcome) in exercise(kind, &dir.join(format!("{kind:?}"))) {
                assert!(outcome.is_ok(), "{kind:?}, {step}: {outcome:?}");
            }
        }
        crate::semaphore::without_fifos(&dir.join("Semaphore"));
        for number in 0.. {
            if std::fs::write(dir.join(format!("filler{number}")), "").is_err() {
                break;
            }
        }
        let full = [std::io::ErrorKind::StorageFull];
        for kind in KINDS {
            let path = dir.join(format!("{kind:?}"));
            for (step, outcome) in exercise(*kind, &path) {
                let Err(error) = outcome else { continue };
                assert_says(step, &error, &full);
                let is_there = matches!(kind, Kind::Lock | Kind::RwLock);
                assert!(!is_there, "{kind:?}, {step}: {error}");
            }
            for (step, outcome) in exercise(*kind, &dir.join(format!("new{kind:?}"))) {
                if let Err(error) = outcome {
                    assert_says(step, &error, &full);
                }
            }
        }
        // The directory cannot be changed, so the release notifies through the length of `queued`
        // (rule S7).
        let pool = Options::new().backstop(Duration::from_secs(1000));
        let pool = pool.open_existing_semaphore(dir.join("Semaphore")).unwrap();
        let both = pool.acquire_many(2).unwrap();
        crate::support::running::scope(|scope| {
            let waiter = scope.spawn(|| pool.acquire().map(drop));
            crate::support::until_held(&dir.join("Semaphore/gate"), std::process::id());
            crate::support::until_watching(std::process::id(), &dir.join("Semaphore"));
            drop(both);
            waiter.join().unwrap().unwrap();
        });
        assert!(std::fs::symlink_metadata(dir.join("Semaphore/poke")).is_err());
    });
}

#[test]
fn a_read_only_mount_allows_only_locks_on_existing_files() {
    limit!();
    const NAME: &str =
        "hostile::file_systems::a_read_only_mount_allows_only_locks_on_existing_files";
    // The files must exist before the mount becomes read-only, so the body creates them through a
    // second mount of the same directory.
    mounted(
        NAME,
        "mount --bind \"$1\" \"$1\"; mkdir -p \"$1/rw\" \"$1/ro\"; mount --bind \"$1/rw\" \"$1/ro\"; mount -o remount,bind,ro \"$1/ro\"",
        || {
            let (rw, ro) = (place().join("rw"), place().join("ro"));
            for kind in KINDS {
                let name = format!("{kind:?}");
                for (step, outcome) in exercise(*kind, &rw.join(&name)) {
                    assert!(outcome.is_ok(), "{kind:?}, {step}: {outcome:?}");
                }
            }
            Event::open(rw.join("Event")).unwrap().set_with(b"payload").unwrap();
            std::fs::write(rw.join("gateless"), "").unwrap();
            std::fs::write(rw.join("lockless"), "data").unwrap();
            let before = snapshot(&rw);
            // The second error comes from a file that was opened for reading and must grow.
            let failed =
                [std::io::ErrorKind::ReadOnlyFilesystem, std::io::ErrorKind::PermissionDenied];
            for kind in KINDS {
                for path in [ro.join(format!("{kind:?}")), ro.join(format!("new/{kind:?}"))] {
                    for (step, outcome) in exercise(*kind, &path) {
                        let Err(error) = outcome else { continue };
                        assert_says(step, &error, &failed);
                        let is_there = !path.starts_with(ro.join("new"));
                        let only_locks = matches!(kind, Kind::Lock | Kind::RwLock)
                            || *kind == Kind::Semaphore && !["grow", "shrink"].contains(&step);
                        assert!(!(is_there && only_locks), "{kind:?}, {step}: {error}");
                    }
                }
            }
            assert_eq!(
                Event::open(ro.join("Event")).unwrap().payload().unwrap().unwrap(),
                b"payload"
            );
            assert_eq!(SharedFile::open(ro.join("SharedFile")).unwrap().read().unwrap(), b"again");
            // A shared lock and a read need neither a gate file nor a lock file.
            let gateless = flockwork::RwLock::open(ro.join("gateless")).unwrap();
            let reading = (gateless.read().unwrap(), gateless.try_read().unwrap());
            assert!(gateless.try_write().unwrap_err().is_would_block());
            assert!(gateless.write_timeout(Duration::from_millis(5)).unwrap_err().is_timed_out());
            let other = Lock::open(rw.join("gateless")).unwrap();
            assert!(other.try_lock().unwrap_err().is_would_block());
            drop(reading);
            let writing = gateless.write_timeout(Duration::from_secs(100)).unwrap();
            drop(writing.downgrade().unwrap());
            let file = SharedFile::open(ro.join("lockless")).unwrap();
            assert_eq!(file.read_to_string().unwrap(), "data");
            #[cfg(feature = "cli")]
            for verb in [&["lock", "-s"][..], &["lock", "-x"], &["lock"]] {
                let words = verb.iter().chain(&["gateless", "echo", "ran"]);
                crate::cli::command::run(&ro, words).expect(0, "ran\n");
            }
            // A lock acquired through one mount excludes callers that use the other mount.
            let held = Lock::open(ro.join("Lock")).unwrap().lock().unwrap();
            assert!(Lock::open(rw.join("Lock")).unwrap().try_lock().unwrap_err().is_would_block());
            drop(held);
            assert_eq!(snapshot(&rw), before);
        },
    );
}

/// In a container, a volume for a single file is such a mount point.
#[test]
fn a_mount_point_is_not_replaced_and_the_error_says_why() {
    limit!();
    const NAME: &str =
        "hostile::file_systems::a_mount_point_is_not_replaced_and_the_error_says_why";
    let script = "for f in data event; do echo old > \"$1/$f.source\"; : > \"$1/$f\"; \
                  mount --bind \"$1/$f.source\" \"$1/$f\"; done";
    mounted(NAME, script, || {
        let dir = place();
        let file = SharedFile::open(dir.join("data")).unwrap();
        assert_eq!(file.read().unwrap(), b"old\n");
        let event = Event::open(dir.join("event")).unwrap();
        event.wait().unwrap();
        for (step, error) in [
            ("write", file.write("new").unwrap_err()),
            ("clear", event.clear().unwrap_err()),
            ("set_with", event.set_with(b"new").unwrap_err()),
            ("consume", event.try_consume().unwrap_err()),
            ("set_while_alive", event.set_while_alive("new").unwrap_err()),
        ] {
            assert_says(step, &error, &[std::io::ErrorKind::ResourceBusy]);
            assert!(
                error
                    .to_string()
                    .ends_with("it is a mount point, which cannot be replaced or removed"),
                "{step}: {error}"
            );
            assert!(error.hint().unwrap().contains("mount its directory"), "{step}: {error}");
        }
        assert_eq!(file.read().unwrap(), b"old\n");
        assert_eq!(event.payload().unwrap().unwrap(), b"old\n");
        let in_place =
            Options::new().write_in_place(true).open_shared_file(dir.join("data")).unwrap();
        in_place.write("new").unwrap();
        assert_eq!(file.read().unwrap(), b"new");
        assert_eq!(std::fs::read(dir.join("data.source")).unwrap(), b"new");
        drop(Lock::open(dir.join("data")).unwrap().lock().unwrap());
        let mut left: Vec<_> = std::fs::read_dir(&dir).unwrap().flatten().collect();
        left.retain(|it| {
            let name = it.file_name().into_string().unwrap();
            [".flockwork", ".new", ".taken"].iter().any(|part| name.contains(part))
        });
        assert!(left.is_empty(), "{left:?}");
    });
}

#[test]
fn an_edquot_error_mentions_the_quota() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p");
    let inject = "openat:error=EDQUOT:when=1";
    let Some(mut peer) = crate::support::strace::injected(&path, inject) else { return };
    let answer = peer.expect_error(Call::Open(path.clone(), vec![]));
    assert!(answer.starts_with("QuotaExceeded: could not create `"), "{answer}");
    assert!(answer.contains("free some of your quota"), "{answer}");
    peer.open_lock(&path, &[]);
}

/// tmpfs has quotas since Linux 6.6 if they are built in. They do not apply to the superuser.
#[test]
fn exceeding_a_real_quota_is_a_clear_error() {
    limit!();
    const NAME: &str = "hostile::file_systems::exceeding_a_real_quota_is_a_clear_error";
    if !rustix::process::geteuid().is_root() || !has("setpriv", &["--version"]) {
        return;
    }
    let script = "mount -t tmpfs -o usrquota,usrquota_inode_hardlimit=12,usrquota_block_hardlimit=16k none \"$1\"; chmod 1777 \"$1\"";
    mounted(NAME, script, || {
        let mut user = crate::support::unprivileged::unprivileged();
        let dir = place();
        for number in 0..20 {
            let path = dir.join(format!("lock{number}"));
            if let Err(answer) = user.ask(Call::Open(path, vec![])) {
                let expected = format!("QuotaExceeded: could not create `{}", dir.display());
                assert!(
                    answer.starts_with(&expected) && answer.contains("free some of your quota"),
                    "{answer}"
                );
                assert!(number > 5, "{answer}");
                std::fs::remove_file(dir.join("lock0")).unwrap();
                std::fs::remove_file(dir.join("lock1")).unwrap();
                std::fs::remove_file(dir.join("lock2")).unwrap();
                user.open_shared_file(&dir.join("data"), &[]);
                let long = "x".repeat(100_000);
                let answer = user.expect_error(shared_file::Call::Write(long.clone(), Block));
                assert!(answer.starts_with("QuotaExceeded: could not write"), "{answer}");
                user.run(shared_file::Call::Write("short".into(), Block));
                return;
            }
        }
        panic!("no quota was exceeded");
    });
}

/// Without `/proc`, records are the only source of holders, and everything else works as before.
#[test]
fn without_proc_holders_are_known_by_their_records() {
    limit!();
    const NAME: &str = "hostile::file_systems::without_proc_holders_are_known_by_their_records";
    mounted(NAME, "mount -t tmpfs none /proc", || {
        assert!(!Path::new("/proc/self").exists());
        let dir = tempfile::tempdir().unwrap();
        for kind in KINDS {
            for (step, outcome) in exercise(*kind, &dir.path().join(format!("{kind:?}"))) {
                assert!(outcome.is_ok(), "{kind:?}, {step}: {outcome:?}");
            }
        }
        let path = dir.path().join("p");
        let labelled = Options::new().label("known").open_lock(&path).unwrap();
        let held = labelled.lock().unwrap();
        assert_eq!(flockwork::inspect(&path).unwrap().holders()[0].label(), Some("known"));
        assert!(flockwork::inspect(&path).unwrap().is_held());
        drop(held);
        let held = Lock::open(&path).unwrap().lock().unwrap();
        assert!(flockwork::inspect(&path).unwrap().holders().is_empty());
        assert!(flockwork::inspect(&path).unwrap().is_held(), "tried, and would block");
        drop(held);
        assert!(!flockwork::inspect(&path).unwrap().is_held());
    });
}
