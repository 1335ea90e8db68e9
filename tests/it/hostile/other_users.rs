//! Other users in the same directory, and an umask that removes all permissions.

use std::path::Path;
use std::process::Command;

use flockwork::{Error, Event, Lock, Options, SharedFile};

use crate::hostile::fixtures::{KINDS, exercise, snapshot};
use crate::peer::Way::{Block, Try};
use crate::peer::lock::Call;
use crate::peer::{event, label, shared_file};
use crate::support::{alone_under, eventually, has};

use super::file_systems::{WHERE, assert_says, place};

/// Returns a command that runs this binary as an ordinary user, since permissions do not apply to
/// the superuser. Prints why and returns `None` if that is not possible.
fn as_unprivileged(dir: &Path) -> Option<Command> {
    let own = std::env::current_exe().unwrap();
    if !rustix::process::geteuid().is_root() {
        return Some(Command::new(own));
    }
    if !has("setpriv", &["--version"]) {
        return None;
    }
    crate::support::copy_program(own, &dir.join("it"));
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(dir.join("it"));
    Some(command)
}

fn public_directory() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o1777)).unwrap();
    dir
}

#[test]
fn a_umask_of_0777_is_an_error_or_overruled_by_access() {
    limit!();
    use std::os::unix::fs::PermissionsExt as _;
    const NAME: &str = "hostile::other_users::a_umask_of_0777_is_an_error_or_overruled_by_access";
    if std::env::var_os(WHERE).is_none() {
        let dir = public_directory();
        let Some(mut command) = as_unprivileged(dir.path()) else { return };
        command.env(WHERE, dir.path());
        return alone_under(command, NAME, || ());
    }
    // The umask applies to the whole process, which runs no other test.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o777));
    let dir = place();
    for kind in KINDS {
        for path in [dir.join(format!("{kind:?}")), dir.join(format!("new{kind:?}/deeper/p"))] {
            for (step, outcome) in exercise(*kind, &path) {
                if let Err(error) = outcome {
                    assert_says(step, &error, &[std::io::ErrorKind::PermissionDenied]);
                }
            }
        }
    }
    for (access, file, directory) in [
        (flockwork::Access::Private, 0o600, 0o700),
        (flockwork::Access::Group, 0o660, 0o770),
        (flockwork::Access::Everyone, 0o666, 0o777),
    ] {
        let options = Options::new().access(access).label("x");
        let below = dir.join(format!("{access:?}"));
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        drop(options.open_lock(below.join("a/lock")).unwrap().lock().unwrap());
        assert_eq!((mode(&below), mode(&below.join("a"))), (directory, directory));
        assert_eq!(mode(&below.join("a/lock")), file);
        let rw = options.open_rwlock(below.join("rw")).unwrap();
        drop((rw.read().unwrap(), rw.read().unwrap()));
        let pool = options.open_semaphore(below.join("pool"), 2).unwrap();
        drop(pool.acquire_many(2).unwrap());
        pool.set_capacity(3).unwrap();
        let event = options.open_event(below.join("event")).unwrap();
        event.set_with(b"x").unwrap();
        event.consume().unwrap();
        options.open_once(below.join("once")).unwrap().call_once(|| Ok::<_, Error>(())).unwrap();
        let data = options.open_shared_file(below.join("data")).unwrap();
        data.write("x").unwrap();
        assert_eq!(mode(&below.join("data")), file);
    }
}

/// The directory is like `/tmp`: every user may create files, and only their owner may remove them.
#[test]
fn in_a_sticky_directory_another_user_can_hold_but_not_mislead() {
    limit!();
    use std::os::unix::fs::PermissionsExt as _;
    if !rustix::process::geteuid().is_root() {
        return; // This needs two users.
    }
    let dir = public_directory();
    let path = |name: &str| dir.path().join(name);
    let mut other = crate::support::unprivileged::unprivileged();
    // A user can lock another user's file if they may read it. Without that permission they are
    // excluded.
    let lock = Lock::open(path("shared")).unwrap();
    other.open_lock(&path("shared"), &[]);
    other.lock();
    assert!(lock.try_lock().unwrap_err().is_would_block());
    // The system's list of locks can lack one while others change.
    eventually("the holder is listed", || {
        lock.holders().unwrap().first().is_some_and(|holder| holder.pid() == other.id())
    });
    other.unlock();
    drop(lock.lock().unwrap());
    let private = Options::new().access(flockwork::Access::Private);
    drop(private.open_lock(path("private")).unwrap());
    let answer = other.expect_error(Call::Open(path("private"), vec![]));
    assert!(answer.starts_with("PermissionDenied: could not open"), "{answer}");
    // The other user's file is used, and keeps its owner and mode.
    other.open_lock(&path("theirs"), &[]);
    let before = snapshot(&path("theirs"));
    drop(private.open_lock(path("theirs")).unwrap().lock().unwrap());
    assert_eq!(snapshot(&path("theirs")), before);
    // The other user sees the event, but cannot clear it.
    Event::open(path("event")).unwrap().set_with(b"x").unwrap();
    std::fs::set_permissions(path("event"), std::fs::Permissions::from_mode(0o644)).unwrap();
    other.open_event(&path("event"), &[]);
    other.expect(event::Call::Payload, "x");
    for change in [event::Call::Clear, event::Call::Consume(Try), event::Call::SetWith("y".into())]
    {
        let is_consume = matches!(change, event::Call::Consume(_));
        let answer = other.expect_error(change.clone());
        assert!(answer.starts_with("PermissionDenied: "), "{change:?}: {answer}");
        let says_why = answer.contains("sticky") || is_consume; // It fails at its lock file.
        assert!(says_why, "{change:?}: {answer}");
    }
    assert_eq!(Event::open(path("event")).unwrap().payload().unwrap().unwrap(), b"x");
    // A user who may only read a shared file does not replace it.
    SharedFile::open(path("data")).unwrap().write("old").unwrap();
    other.open_shared_file(&path("data"), &[]);
    let answer = other.expect_error(shared_file::Call::Write("new".into(), Block));
    assert!(answer.starts_with("PermissionDenied: "), "{answer}");
    other.expect(shared_file::Call::Read, "old");
    // Nor does a user who may write to the file, because the directory does not permit it.
    let everyone = Options::new().access(flockwork::Access::Everyone);
    everyone.open_shared_file(path("common")).unwrap().write("old").unwrap();
    other.open_shared_file(&path("common"), &[]);
    let answer = other.expect_error(shared_file::Call::Write("new".into(), Block));
    assert!(answer.starts_with("PermissionDenied: could not write `"), "{answer}");
    assert!(answer.contains("in a directory with the sticky bit"), "{answer}");
    assert!(!answer.contains("must be able to"), "{answer}");
    other.expect(shared_file::Call::Read, "old");
    assert!(!path("common.flock.new").exists());
    // The records of another user do no harm, and are left alone.
    other.open_lock(&path("shared"), &[label("theirs")]);
    other.lock();
    assert_eq!(lock.holders().unwrap().remove(0).label(), Some("theirs"));
    other.kill();
    assert!(lock.lock().unwrap().was_abandoned());
}
