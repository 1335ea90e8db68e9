//! Behavior that exists on Windows alone: share modes, mandatory locks, names that are not files,
//! forms of a path, attributes. A test says so where the directory or the system lacks a feature.
//! No test sends Ctrl-C or Ctrl-Break, because `GenerateConsoleCtrlEvent` needs unsafe code.

use std::fs::File;
use std::os::windows::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flockwork::{Error, ErrorKind, Event, Lock, Once, Options, RwLock, Semaphore, SharedFile};

use crate::peer::Way::{Async, Block, Timeout, Try};
use crate::peer::lock::Call;
use crate::peer::{Peer, Request, event, label, semaphore};
use crate::support::failure::in_full;
use crate::support::{left_out, names_in};

/// Windows share modes.
const READ: u32 = 1;
const WRITE: u32 = 2;
const DELETE: u32 = 4;

fn dirs() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.lock");
    (dir, path)
}

/// Opens a file as another program does, with this share mode.
#[track_caller]
fn shared(path: &Path, mode: u32) -> File {
    File::options().read(true).share_mode(mode).open(path).unwrap()
}

fn literal(path: &Path) -> PathBuf {
    format!(r"\\?\{}", path.display()).into()
}

fn upper(path: &Path) -> PathBuf {
    path.with_file_name(path.file_name().unwrap().to_ascii_uppercase())
}

#[test]
fn an_open_lock_file_cannot_be_removed_renamed_or_replaced() {
    limit!();
    let (dir, path) = dirs();
    let other = dir.path().join("b");
    let lock = Lock::open(&path).unwrap();
    for held in [None, Some(lock.lock().unwrap())] {
        assert!(std::fs::remove_file(&path).is_err());
        assert!(std::fs::rename(&path, &other).is_err());
        std::fs::write(&other, "").unwrap();
        assert!(std::fs::rename(&other, &path).is_err());
        std::fs::remove_file(&other).unwrap();
        drop(held);
    }
    drop(lock);
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn started_programs_inherit_no_lock_file() {
    limit!();
    let (_dir, path) = dirs();
    let lock = Lock::open(&path).unwrap();
    let held = lock.lock().unwrap();
    let mut started = Peer::start();
    started.expect(Request::CountDescriptors, 0); // The program runs.
    drop((held, lock));
    std::fs::remove_file(&path).unwrap();
}

/// A virus scanner or a backup opens files like this.
#[test]
fn a_brief_exclusive_open_is_waited_for() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let [path, pool, data] = ["a.lock", "pool", "data"].map(|name| dir.path().join(name));
    std::fs::write(&path, "").unwrap();
    assert_waits_for(&path, || Lock::open(&path).is_ok());
    assert_waits_for(&path, || flockwork::inspect(&path).is_ok_and(|status| !status.is_held()));
    drop(Semaphore::open(&pool, 1).unwrap().acquire().unwrap());
    assert_waits_for(&pool.join("capacity"), || Semaphore::open(&pool, 1).is_ok());
    assert_waits_for(&pool.join("slot.0"), || {
        Semaphore::open(&pool, 1).is_ok_and(|semaphore| semaphore.try_acquire().is_ok())
    });
    let event = Event::open(dir.path().join("ready")).unwrap();
    event.set_with(b"x").unwrap();
    assert_waits_for(event.path(), || event.payload().is_ok());
    assert_waits_for(event.path(), || event.try_consume().is_ok() && event.set_with(b"x").is_ok());
    assert_waits_for(event.path(), || event.clear().is_ok() && event.set_with(b"x").is_ok());
    let file = SharedFile::open(&data).unwrap();
    file.write(b"x").unwrap();
    assert_waits_for(&data, || file.read().is_ok());
    assert_waits_for(&data, || file.write(b"y").is_ok());
    // A killed writer leaves this file.
    let left = dir.path().join("data.flock.new");
    let leave = || std::fs::write(&left, "left").is_ok();
    assert!(leave());
    assert_waits_for(&left, || file.write(b"z").is_ok() && leave());
}

/// The wait may take long on a busy machine, so one of several attempts has to succeed.
#[track_caller]
fn assert_waits_for(path: &Path, call: impl Fn() -> bool + Sync) {
    let is_done = (0..5).any(|_| {
        let scanner = shared(path, 0);
        let (send, begins) = std::sync::mpsc::channel();
        crate::support::running::scope(|scope| {
            let opening = scope.spawn(|| {
                send.send(()).unwrap();
                call()
            });
            begins.recv().unwrap();
            std::thread::sleep(Duration::from_millis(30));
            drop(scanner);
            opening.join().unwrap()
        })
    });
    assert!(is_done, "{}", path.display());
}

#[test]
fn a_long_exclusive_open_is_reported() {
    limit!();
    let (dir, path) = dirs();
    let event = Event::open(dir.path().join("ready")).unwrap();
    event.set_with(b"x").unwrap();
    let data = SharedFile::open(dir.path().join("data")).unwrap();
    data.write(b"y").unwrap();
    std::fs::write(&path, "").unwrap();
    let others = [&path, event.path(), data.path()].map(|path| shared(path, 0));
    let pool = dir.path().join("pool");
    drop(Semaphore::open(&pool, 1).unwrap());
    let _scanned = shared(&pool.join("capacity"), 0);
    let errors = [
        Semaphore::open(&pool, 1).unwrap_err(),
        flockwork::inspect(&path).unwrap_err(),
        Lock::open(&path).unwrap_err(),
        event.payload().unwrap_err(),
        event.try_consume().unwrap_err(),
        event.clear().unwrap_err(),
        data.read().unwrap_err(),
        data.write(b"z").unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Io, "{error:?}");
        let words = in_full(&error);
        let number = error.io_error().unwrap().raw_os_error();
        if number == Some(32) {
            assert!(words.contains("close the program that has the file open"), "{words}");
        } else {
            // A rename fails with "access denied" instead.
            assert_eq!(number, Some(5), "{words}");
        }
    }
    drop(others);
    assert_eq!(event.try_consume().unwrap(), b"x");
    assert_eq!(data.read().unwrap(), b"y");
}

/// Other processes cannot read a locked range. Files that they must be able to read are never
/// locked.
#[test]
fn files_that_must_be_readable_are_never_locked() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let [own, pool, data, once] = ["own", "pool", "data", "once"].map(|name| dir.path().join(name));
    let options = Options::new().label("label");
    let lock = options.open_lock(own.join("a.lock")).unwrap();
    std::fs::write(lock.path(), "theirs").unwrap();
    let held = lock.lock().unwrap();
    assert_eq!(std::fs::read(lock.path()).unwrap_err().raw_os_error(), Some(33));
    std::fs::read(own.join("a.lock.holder")).unwrap();
    let semaphore = options.open_semaphore(&pool, 2).unwrap();
    let _permits = semaphore.acquire_many(2).unwrap();
    assert!(semaphore.try_acquire().unwrap_err().is_would_block());
    for name in ["capacity", "holders/slot.0", "holders/slot.1"] {
        assert!(!std::fs::read(pool.join(name)).unwrap().is_empty(), "{name}");
    }
    for name in ["queued", "resized"] {
        std::fs::read(pool.join(name)).unwrap();
    }
    let file = options.open_shared_file(data.join("f")).unwrap();
    file.write(b"data").unwrap();
    let mut writing = file.lock_exclusive().unwrap();
    writing.replace(b"more").unwrap();
    assert_eq!(std::fs::read(data.join("f")).unwrap(), b"more");
    let done = options.open_once(once.join("o")).unwrap();
    let ran = done.call_once(|| {
        assert!(!Once::open(once.join("o")).unwrap().is_done().unwrap());
        assert!(flockwork::inspect(once.join("o.flock")).unwrap().is_held());
        Ok::<_, Error>(())
    });
    assert!(ran.unwrap());
    drop(held);
    assert_eq!(std::fs::read(lock.path()).unwrap(), b"theirs");
}

/// The next holder may find the record of a dying process like this.
#[test]
fn a_death_is_reported_while_the_record_is_still_locked() {
    limit!();
    let (dir, path) = dirs();
    let mut killed = Peer::start();
    killed.open_lock(&path, &[label("killed")]);
    killed.lock();
    killed.kill();
    let _pinned = shared(&dir.path().join("a.lock.holder"), READ | DELETE);
    assert!(Lock::open(&path).unwrap().lock().unwrap().was_abandoned());
}

#[test]
fn a_release_that_cannot_remove_its_record_is_not_a_death() {
    limit!();
    let (dir, path) = dirs();
    let record = dir.path().join("a.lock.holder");
    let lock = Options::new().label("first").open_lock(&path).unwrap();
    let held = lock.lock().unwrap();
    let reader = shared(&record, READ | WRITE);
    drop(held);
    assert!(record.exists());
    assert_eq!(lock.holders().unwrap(), []);
    assert!(!Lock::open(&path).unwrap().lock().unwrap().was_abandoned());
    drop(reader);
    let held = Options::new().label("next").open_lock(&path).unwrap().lock().unwrap();
    assert!(!held.was_abandoned());
    assert_eq!(lock.holders().unwrap().remove(0).label(), Some("next"));
    drop(held);
    assert!(!record.exists());
}

/// Checks for each primitive that a holder at one path excludes this process and another one at the
/// other path.
#[track_caller]
fn assert_the_same(one: &Path, other: &Path) {
    let said = format!("{} and {}", one.display(), other.display());
    let lock = Lock::open(one).unwrap();
    let mut peer = Peer::with_lock(other);
    let held = lock.lock().unwrap();
    assert!(Lock::open(other).unwrap().try_lock().unwrap_err().is_would_block(), "{said}");
    peer.expect_would_block(Call::Acquire(Try));
    assert!(flockwork::inspect(other).unwrap().is_held());
    peer.begin(Call::Acquire(Timeout(100_000)));
    drop(held);
    peer.finish();
    assert!(lock.try_lock().unwrap_err().is_would_block(), "{said}");
    peer.unlock();
    drop((lock, peer));
    std::fs::remove_file(one).unwrap();

    let rw = RwLock::open(one).unwrap();
    let reading = rw.read().unwrap();
    let same = RwLock::open(other).unwrap();
    drop(same.try_read().unwrap());
    assert!(same.try_write().unwrap_err().is_would_block(), "{said}");
    drop((reading, rw, same));
    std::fs::remove_file(one).unwrap();

    let semaphore = Semaphore::open(one, 2).unwrap();
    let mut peer = crate::peer::semaphore::peer(other, 2, &[]);
    let permits = semaphore.acquire_many(2).unwrap();
    peer.expect_would_block(semaphore::Call::Acquire(1, Try));
    assert_eq!(flockwork::inspect(other).unwrap().held_slots(), [0, 1]);
    peer.begin(semaphore::Call::Acquire(1, Block));
    drop(permits);
    peer.finish();
    assert_eq!(semaphore.available_permits().unwrap(), 1, "{said}");
    drop((semaphore, peer));
    std::fs::remove_dir_all(one).unwrap();

    let event = Event::open(one).unwrap();
    let mut peer = crate::peer::event::peer(other, &[]);
    for way in [Block, Async] {
        peer.begin(event::Call::Wait(way));
        assert!(event.set_with(b"x").unwrap());
        peer.finish();
        peer.expect(event::Call::Consume(Block), "x");
        assert!(!event.is_set().unwrap(), "{said}");
    }
    drop((event, peer));

    let done = Once::open(one).unwrap();
    assert!(done.call_once(|| Ok::<_, Error>(())).unwrap());
    assert!(Once::open(other).unwrap().is_done().unwrap(), "{said}");
    assert!(Once::open(other).unwrap().reset().unwrap());
    drop(done);

    let file = SharedFile::open(one).unwrap();
    file.write(b"data").unwrap();
    let same = SharedFile::open(other).unwrap();
    assert_eq!(same.read().unwrap(), b"data", "{said}");
    let writing = file.lock_exclusive().unwrap();
    assert!(same.try_lock_shared().unwrap_err().is_would_block(), "{said}");
    drop(writing);
    same.update(|contents| Ok::<_, Error>(contents.push(b'!'))).unwrap();
    assert_eq!(file.read().unwrap(), b"data!");
    drop((file, same));
    std::fs::remove_file(one).unwrap();
}

#[test]
fn upper_and_lower_case_are_the_same() {
    limit!();
    let (_dir, path) = dirs();
    assert_the_same(&path, &upper(&path));
}

#[test]
fn a_path_behind_the_literal_prefix_is_the_same() {
    limit!();
    let (_dir, path) = dirs();
    assert_the_same(&path, &literal(&path));
    assert_the_same(&literal(&path), &path);
}

#[test]
fn slashes_and_backslashes_are_equivalent() {
    limit!();
    let (dir, path) = dirs();
    let other = path.to_str().unwrap().replace('\\', "/");
    assert_the_same(&path, Path::new(&other));
    assert_the_same(&path, &dir.path().join("x/../a.lock"));
}

#[test]
fn a_share_of_this_machine_is_the_same() {
    limit!();
    let (_dir, path) = dirs();
    let text = path.to_str().unwrap();
    let (drive, rest) = text.split_once(r":\").unwrap();
    std::fs::write(&path, "").unwrap();
    for start in [r"\\localhost\", r"\\?\UNC\localhost\"] {
        let share = PathBuf::from(format!(r"{start}{drive}$\{rest}"));
        if !share.exists() {
            left_out(r"\\localhost has no shares of the drives that this user may use");
            return;
        }
        assert_the_same(&path, &share);
        std::fs::write(&path, "").unwrap();
    }
}

#[test]
fn paths_of_any_length_work() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let mut path = dir.path().to_path_buf();
    for number in 0..12 {
        path.push(format!("{number:030}"));
    }
    path.push("a.lock");
    assert!(path.as_os_str().len() > 300);
    assert_the_same(&path, &literal(&path));
    let labelled = Options::new().label("far away").open_lock(&path).unwrap();
    let held = labelled.lock().unwrap();
    assert_eq!(labelled.holders().unwrap().remove(0).label(), Some("far away"));
    drop(held);
}

/// Returns the errors of each primitive, and of an inspection, for a path.
fn refusals(path: &Path) -> Vec<Error> {
    vec![
        Lock::open(path).unwrap_err(),
        RwLock::open(path).unwrap_err(),
        Semaphore::open(path, 1).unwrap_err(),
        Semaphore::open_existing(path).unwrap_err(),
        Event::open(path).unwrap_err(),
        Once::open(path).unwrap_err(),
        SharedFile::open(path).unwrap_err(),
        flockwork::inspect(path).unwrap_err(),
    ]
}

#[test]
fn invalid_names_are_rejected_with_a_hint() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("there"), "theirs").unwrap();
    for (name, says) in [
        ("CON", "device"),
        ("nul", "device"),
        ("COM1", "device"),
        ("aux.txt", "device"),
        ("LPT9.lock", "device"),
        ("com\u{b9}", "device"),
        ("CONIN$", "device"),
        (r"prn\a.lock", "device"),
        ("there.", "names `there` on Windows"),
        ("there ", "names `there` on Windows"),
        ("...", "ignores dots and spaces"),
        (r"sub.\a.lock", "names `sub` on Windows"),
        ("there:stream", "stream within `there`"),
        ("there::$DATA", "stream within `there`"),
        ("a<b", "contains `<`"),
        ("a>b", "contains `>`"),
        ("a\"b", "contains `\"`"),
        ("a|b", "contains `|`"),
        ("a?b", "contains `?`"),
        ("a*b", "contains `*`"),
        ("a\u{1}b", "control character"),
    ] {
        let path = PathBuf::from(format!(r"{}\{name}", dir.path().display()));
        for error in refusals(&path) {
            assert_eq!(error.kind(), ErrorKind::Io, "{name}: {error:?}");
            assert_eq!(
                error.io_error().unwrap().kind(),
                std::io::ErrorKind::InvalidInput,
                "{name}: {error}"
            );
            assert_eq!(error.path(), path);
            let words = in_full(&error);
            assert!(words.starts_with("could not resolve `"), "{words}");
            assert!(words.contains(says), "{words}");
            assert!(words.contains("leave") || words.contains("choose"), "no hint: {words}");
        }
    }
    for path in [r"\\.\pipe\flockwork", r"\\localhost\pipe\flockwork", r"\\.\NUL", "nul"] {
        for error in refusals(Path::new(path)) {
            assert!(error.to_string().starts_with("could not resolve `"), "{error}");
        }
    }
    assert_eq!(names_in(dir.path()), ["there"]);
    assert_eq!(std::fs::read(dir.path().join("there")).unwrap(), b"theirs");
}

#[test]
fn reserved_names_work_behind_the_literal_prefix() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    for name in ["con", "aux.txt", "a.lock."] {
        let path = literal(&dir.path().join("x")).with_file_name(name);
        let lock = Options::new().label("x").open_lock(&path).unwrap();
        let held = lock.lock().unwrap();
        Peer::with_lock(&path).expect_would_block(Call::Acquire(Try));
        assert!(names_in(dir.path()).iter().any(|found| found == name));
        drop((held, lock));
        std::fs::remove_file(&path).unwrap();
    }
    assert_eq!(names_in(dir.path()).len(), 0);
}

#[test]
fn impossible_paths_are_errors() {
    limit!();
    let (dir, path) = dirs();
    for error in refusals(&dir.path().join("x".repeat(256))) {
        assert_eq!(error.kind(), ErrorKind::Io, "{error:?}");
        assert!(in_full(&error).contains("choose a shorter name"), "{error}");
    }
    for path in ["", "a\0b"] {
        let error = Lock::open(path).unwrap_err();
        assert_eq!(
            error.io_error().unwrap().kind(),
            std::io::ErrorKind::InvalidInput,
            "{path:?}: {error}"
        );
    }
    assert!(Lock::open(path.join("")).is_err(), "a path with a slash at its end");
    assert!(Lock::open(dir.path().join("..")).is_err());
    assert!(Lock::open(r"C:\").is_err());
    std::fs::write(&path, "").unwrap();
    for error in [
        Lock::open(path.join("b.lock")).unwrap_err(),
        Event::open(path.join("b")).unwrap_err(),
        Semaphore::open(path.join("b"), 1).unwrap_err(),
    ] {
        assert_eq!(
            error.io_error().unwrap().kind(),
            std::io::ErrorKind::NotADirectory,
            "{error:?}"
        );
        assert!(in_full(&error).contains("a file instead of a directory"), "{error}");
    }
    assert_eq!(Semaphore::open(&path, 1).unwrap_err().kind(), ErrorKind::NotRegularFile);
    assert_eq!(names_in(dir.path()), ["a.lock"]);
}

#[test]
fn names_that_are_not_unicode_are_accepted() {
    limit!();
    use std::os::windows::ffi::OsStringExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(std::ffi::OsString::from_wide(&[0x61, 0xD800, 0x62]));
    if std::fs::write(&path, "").is_err() {
        left_out("halves of surrogate pairs in names: this file system has none");
        return;
    }
    let lock = Lock::open(&path).unwrap();
    let _held = lock.lock().unwrap();
    let error = Lock::open(&path).unwrap().try_lock().unwrap_err();
    assert!(error.is_would_block());
    assert_eq!(error.path(), path);
    assert!(!error.to_string().is_empty());
}

fn set_read_only(path: &Path, is_read_only: bool) {
    let mut permissions = std::fs::metadata(path).unwrap().permissions();
    permissions.set_readonly(is_read_only);
    std::fs::set_permissions(path, permissions).unwrap();
}

#[test]
fn a_file_that_can_only_be_read_is_locked() {
    limit!();
    let (_dir, path) = dirs();
    std::fs::write(&path, "").unwrap();
    set_read_only(&path, true);
    let lock = Lock::open(&path).unwrap();
    let mut peer = Peer::with_lock(&path);
    peer.lock();
    assert!(lock.try_lock().unwrap_err().is_would_block());
    peer.kill();
    drop(lock.lock_timeout(Duration::from_secs(100)).unwrap());
    drop(lock);
    set_read_only(&path, false);
}

#[test]
fn a_shared_file_that_can_only_be_read_is_not_replaced() {
    limit!();
    let (dir, path) = dirs();
    let file = SharedFile::open(&path).unwrap();
    file.write(b"theirs").unwrap();
    set_read_only(&path, true);
    let error = file.write(b"ours").unwrap_err();
    assert_eq!(error.io_error().unwrap().kind(), std::io::ErrorKind::PermissionDenied, "{error}");
    assert!(in_full(&error).contains("must be able to write"), "{error}");
    assert_eq!(file.read().unwrap(), b"theirs");
    set_read_only(&path, false);
    file.write(b"ours").unwrap();
    assert_eq!(file.read().unwrap(), b"ours");
    assert!(!names_in(dir.path()).contains(&"a.lock.lock.new".to_string()));
}

#[test]
fn links_and_junctions_are_followed_only_in_parent_directories() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let [target, link, real, way] =
        ["target", "link", "real", "way"].map(|name| dir.path().join(name));
    std::fs::write(&target, "theirs").unwrap();
    std::fs::create_dir(&real).unwrap();
    let is_link = |path: &Path| std::fs::symlink_metadata(path).is_ok_and(|at| at.is_symlink());
    let _ = std::os::windows::fs::symlink_file(&target, &link);
    if is_link(&link) {
        for error in [Lock::open(&link).unwrap_err(), Event::open(&link).unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::NotRegularFile, "{error:?}");
            assert!(error.to_string().contains("a symbolic link"), "{error}");
        }
        assert_eq!(std::fs::read(&target).unwrap(), b"theirs");
    } else {
        left_out("symbolic links: this user or system creates none");
    }
    let mut mklink = std::process::Command::new("cmd");
    let _ = mklink.args(["/C", "mklink", "/J"]).arg(&way).arg(&real).output();
    if is_link(&way) {
        assert_eq!(Semaphore::open(&way, 1).unwrap_err().kind(), ErrorKind::NotRegularFile);
        assert_the_same(&real.join("a.lock"), &way.join("a.lock"));
        std::fs::remove_dir(&way).unwrap();
    } else {
        left_out("junctions: this system creates none");
    }
}
