//! `SharedFile` between processes and threads: no reader sees a partial write, no update is lost,
//! and no other file changes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use flockwork::{Error, ErrorKind, FileReadGuard, FileWriteGuard, Options, SharedFile};
use futures_lite::future::block_on;

use crate::peer::Way::{Async, Block, Timeout, Try};
use crate::peer::shared_file::{Call, Change, Through, peer};
use crate::peer::{Peer, Way};
use crate::support::failure::Failure;
use crate::support::{eventually, until_blocked};

fn files() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.json");
    (dir, path)
}

/// Returns the names in the directory, except that of the queue, which the first waiter creates.
fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.strip_suffix(".queue").is_none());
    names.sort();
    names
}

/// Returns the lock file of the shared file at `path`.
fn lock_of(path: &Path) -> PathBuf {
    path.with_file_name("data.json.flock")
}

/// A change that succeeds.
#[expect(clippy::unnecessary_wraps, reason = "as a closure of `update`")]
fn append(contents: &mut Vec<u8>, text: &str) -> Result<(), Error> {
    contents.extend(text.as_bytes());
    Ok(())
}

const AT_REST: [&str; 3] = ["data.json", "data.json.flock", "data.json.flock.gate"];

#[test]
fn written_contents_are_read_in_every_form() {
    limit!();
    let (dir, path) = files();
    let file = SharedFile::open(&path).unwrap();
    assert_eq!(file.path(), path);
    for error in [file.read().unwrap_err(), file.read_to_string().unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(error.path(), path);
        assert!(error.io_error().unwrap().raw_os_error().is_some(), "{error}");
    }
    assert!(!path.exists());
    file.update(|contents| {
        assert_eq!(contents, b"");
        *contents = b"one".to_vec();
        Ok::<_, Error>(())
    })
    .unwrap();
    assert_eq!(file.read_to_string().unwrap(), "one");
    assert_eq!(names(dir.path()), AT_REST);
    let (second, later) =
        (Duration::from_secs(100), std::time::Instant::now() + Duration::from_secs(100));
    file.write("two").unwrap();
    assert_eq!(file.lock_shared_timeout(second).unwrap().read().unwrap(), b"two");
    file.try_lock_exclusive().unwrap().replace(b"three").unwrap();
    assert_eq!(file.try_lock_shared().unwrap().read().unwrap(), b"three");
    file.lock_exclusive_timeout(second).unwrap().replace(vec![b'4']).unwrap();
    assert_eq!(file.lock_shared_timeout(second).unwrap().read_to_string().unwrap(), "4");
    file.lock_exclusive_deadline(later).unwrap().replace("5").unwrap();
    assert_eq!(file.lock_shared_deadline(later).unwrap().read_to_string().unwrap(), "5");
    block_on(file.write_async("6")).unwrap();
    assert_eq!(block_on(file.lock_shared_async()).unwrap().read().unwrap(), b"6");
    let length = block_on(file.update_async(|contents| {
        contents.push(b'7');
        Ok::<_, Error>(contents.len())
    }));
    assert_eq!((length.unwrap(), file.read_to_string().unwrap().as_str()), (2, "67"));
    file.write("").unwrap();
    assert_eq!(file.read().unwrap(), b"");
    let large = vec![7; 5_000_000];
    file.write(&large).unwrap();
    assert_eq!(file.read().unwrap(), large);
    file.write(b"\xff\xfe").unwrap();
    let error = file.read_to_string().unwrap_err();
    assert_eq!(error.io_error().unwrap().kind(), std::io::ErrorKind::InvalidData);
    assert!(error.to_string().contains("data.json"), "{error}");
    assert_eq!(names(dir.path()), AT_REST);
}

#[test]
fn each_form_waits_or_fails_without_a_change() {
    limit!();
    let (_dir, path) = files();
    let file = SharedFile::open(&path).unwrap();
    file.write("old").unwrap();
    let mut other = peer(&path, &[]);
    let writing = file.lock_exclusive().unwrap();
    for (way, complaint) in
        [(Try, "would-block"), (Timeout(0), "timed-out"), (Timeout(20), "timed-out")]
    {
        for call in [
            Call::ReadLocked(way),
            Call::Write("new".into(), way),
            Call::Update(Change::Append("new".into()), way),
        ] {
            let error = other.expect_error(call.clone());
            assert!(error.starts_with(complaint), "{call:?}: {error}");
        }
    }
    drop(writing);
    for way in Way::WAITING {
        for call in [Call::ReadLocked(way), Call::Update(Change::Append("x".into()), way)] {
            let writing = file.lock_exclusive().unwrap();
            other.begin(call);
            until_blocked(&lock_of(&path), 1);
            assert!(other.is_silent());
            drop(writing);
            let answer = other.finish();
            assert!(answer.is_empty() || answer.starts_with("old"), "{answer}");
        }
    }
    assert_eq!(file.read_to_string().unwrap(), "oldxxxx");
    // Readers share the file, and exclude writers.
    let _reading = file.lock_shared().unwrap();
    other.expect(Call::ReadLocked(Try), "oldxxxx");
    other.expect_would_block(Call::Update(Change::Append("new".into()), Try));
}

#[test]
fn guards_hold_for_longer_work() {
    limit!();
    fn is<T: Send + Sync + 'static>() {}
    is::<SharedFile>();
    is::<FileReadGuard>();
    is::<FileWriteGuard>();
    let (dir, path) = files();
    let file = SharedFile::open(&path).unwrap();
    let mut other = peer(&path, &[]);
    let mut writing = file.lock_exclusive().unwrap();
    assert_eq!(writing.read().unwrap_err().kind(), ErrorKind::NotFound);
    writing.replace("one").unwrap();
    assert_eq!(writing.read_to_string().unwrap(), "one");
    writing.replace("two").unwrap();
    assert_eq!(writing.path(), path);
    other.expect_would_block(Call::ReadLocked(Try));
    let reading = writing.downgrade().unwrap();
    other.expect(Call::ReadLocked(Try), "two");
    other.expect_would_block(Call::Write("three".into(), Try));
    assert_eq!(reading.read().unwrap(), b"two");
    reading.unlock().unwrap();
    other.run(Call::Write("three".into(), Try));
    file.lock_exclusive_timeout(Duration::ZERO).unwrap().unlock().unwrap();
    assert_eq!(block_on(file.lock_shared_async()).unwrap().read_to_string().unwrap(), "three");
    drop(block_on(file.lock_exclusive_async()).unwrap());
    drop(file.try_lock_exclusive().unwrap());
    other.run(Call::LockExclusive);
    assert!(file.try_lock_shared().unwrap_err().is_would_block());
    let soon = std::time::Instant::now() + Duration::from_millis(20);
    assert!(file.lock_shared_deadline(soon).unwrap_err().is_timed_out());
    assert!(file.lock_exclusive_deadline(soon).unwrap_err().is_timed_out());
    assert!(file.lock_shared_timeout(Duration::ZERO).unwrap_err().is_timed_out());
    other.run(Call::Replace("four".into()));
    other.kill();
    assert_eq!(file.read_to_string().unwrap(), "four");
    assert_eq!(names(dir.path()), AT_REST);
}

#[test]
fn an_update_that_fails_or_panics_changes_nothing() {
    limit!();
    let (dir, path) = files();
    let file = SharedFile::open(&path).unwrap();
    let mut other = peer(&path, &[]);
    for _ in 0..2 {
        let before = std::fs::read(&path).ok();
        let failed = file.update(|contents| {
            contents.extend(b"half");
            Err::<(), _>(Failure::Closure(42))
        });
        match failed {
            Err(Failure::Closure(42)) => {}
            other => panic!("{other:?}"),
        }
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _ = file.update(|contents| -> Result<(), Error> {
                contents.extend(b"half");
                panic!("half-way")
            });
        }));
        assert!(panicked.is_err());
        assert!(other.expect_error(Call::Update(Change::Fail, Async)).starts_with("closure"));
        other.begin(Call::Update(Change::Hang, Block));
        assert_eq!(other.finish(), "in the middle");
        other.kill();
        assert_eq!(std::fs::read(&path).ok(), before);
        other = peer(&path, &[]);
        other.run(Call::Update(Change::Append("x".into()), Try));
    }
    assert_eq!(file.read_to_string().unwrap(), "xx");
    assert_eq!(names(dir.path()), AT_REST);
}

fn count(peers: &mut [Peer], directory: &Path, times: u32) {
    for (number, peer) in peers.iter_mut().enumerate() {
        let acknowledged = directory.join(format!("acknowledged.{number}"));
        peer.begin(Call::Count(acknowledged.clone(), times));
    }
}

/// Returns the number of updates that were reported as done to any of the peers.
fn acknowledged(directory: &Path) -> u64 {
    let sizes = names(directory).into_iter().filter(|name| name.starts_with("acknowledged"));
    sizes.map(|name| std::fs::metadata(directory.join(name)).unwrap().len()).sum()
}

#[test]
fn eight_processes_count_without_a_loss() {
    limit!();
    let (dir, path) = files();
    let counts = tempfile::tempdir().unwrap();
    let file = SharedFile::open(&path).unwrap();
    let mut peers: Vec<Peer> = (0..8).map(|_| peer(&path, &[])).collect();
    let times = 100;
    count(&mut peers, counts.path(), times);
    for peer in &mut peers {
        peer.finish();
    }
    assert_eq!(file.read_to_string().unwrap(), (8 * times).to_string());
    assert_eq!(acknowledged(counts.path()), u64::from(8 * times));
    assert_eq!(names(dir.path()), AT_REST);
}

#[test]
fn killed_processes_lose_no_finished_update() {
    limit!();
    let (dir, path) = files();
    let file = SharedFile::open(&path).unwrap();
    let counts = tempfile::tempdir().unwrap();
    let mut peers: Vec<Peer> = (0..6).map(|_| peer(&path, &[])).collect();
    count(&mut peers, counts.path(), 100_000);
    let mut killed = 0;
    let mut last = 0;
    while !peers.is_empty() {
        let now: u64 = loop {
            match file.read_to_string() {
                Ok(number) => break number.parse().expect("a complete number"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
            }
        };
        assert!(now >= last, "{now} after {last}");
        last = now;
        if acknowledged(counts.path()) > 40 * (killed + 1) {
            peers.remove(0).kill();
            killed += 1;
        }
    }
    let (number, done) = (file.read_to_string().unwrap(), acknowledged(counts.path()));
    let number: u64 = number.parse().unwrap();
    // Each killed process may have died between the update and its own note of it.
    assert!((done..=done + killed).contains(&number), "{number}, but {done} updates returned");
    file.write(number.to_string()).unwrap();
    assert_eq!(names(dir.path()), AT_REST);
}

#[test]
fn readers_see_no_partial_write_when_writers_are_killed() {
    limit!();
    let (dir, path) = files();
    let until = tempfile::tempdir().unwrap();
    let end = until.path().join("end");
    let file = SharedFile::open(&path).unwrap();
    file.write(vec![b'a'; 100_000]).unwrap();
    let mut readers: Vec<Peer> = (0..2).map(|_| peer(&path, &[])).collect();
    for (reader, through) in readers.iter_mut().zip([Through::Library, Through::System]) {
        reader.begin(Call::ReadUntil(end.clone(), through));
    }
    let mut letters = (b'b'..=b'y').cycle();
    let mut rounds = 0;
    let begun = std::time::Instant::now();
    eventually("each reader has read, and many writers were killed", || {
        let mut writer = peer(&path, &[]);
        let letter = char::from(letters.next().unwrap());
        let contents = letter.to_string().repeat(200_000);
        writer.begin(Call::Write(contents.clone(), Block));
        std::thread::sleep(Duration::from_micros(150 * (rounds % 20)));
        writer.kill();
        rounds += 1;
        let has_read = |reader: &Peer| until.path().join(format!("end.{}", reader.id())).exists();
        // A busy machine does fewer rounds.
        let is_slow = cfg!(windows) || begun.elapsed() > Duration::from_secs(20);
        rounds >= if is_slow { 10 } else { 40 } && readers.iter().all(has_read)
    });
    std::fs::write(&end, "").unwrap();
    for reader in &mut readers {
        reader.finish();
    }
    file.write("z").unwrap();
    assert_eq!(names(dir.path()), AT_REST);
}

#[test]
fn the_next_writer_removes_only_what_a_killed_writer_left() {
    limit!();
    let (dir, path) = files();
    let file = SharedFile::open(&path).unwrap();
    file.write("old").unwrap();
    let neighbours = [
        "data.json.new",
        "data.json.flock.new.mine",
        ".data.json.flock.new",
        ".flockwork.abcdef",
        "data.lock.new",
    ];
    for name in neighbours {
        std::fs::write(dir.path().join(name), "mine").unwrap();
    }
    let left = dir.path().join("data.json.flock.new");
    std::fs::write(&left, "half a wri").unwrap();
    assert_eq!(file.read_to_string().unwrap(), "old");
    assert!(left.exists(), "a read removes no file");
    file.write("new").unwrap();
    assert_eq!(file.read_to_string().unwrap(), "new");
    assert!(!left.exists());
    for name in neighbours {
        assert_eq!(std::fs::read_to_string(dir.path().join(name)).unwrap(), "mine");
    }
    std::fs::create_dir(&left).unwrap();
    let error = file.write("newer").unwrap_err();
    assert!(error.to_string().contains("not a regular file"), "{error}");
    assert_eq!(file.read_to_string().unwrap(), "new");
    std::fs::remove_dir(&left).unwrap();
    file.write("newer").unwrap();
}

#[test]
fn files_that_are_not_regular_are_rejected_and_unchanged() {
    limit!();
    let (dir, path) = files();
    std::fs::create_dir(&path).unwrap();
    let error = SharedFile::open(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRegularFile, "{error}");
    std::fs::remove_dir(&path).unwrap();
    let file = SharedFile::open(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    for error in [
        file.read().unwrap_err(),
        file.write("x").unwrap_err(),
        file.update(|_| Ok::<(), Error>(())).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotRegularFile, "{error}");
        assert_eq!(error.path(), path);
    }
    assert!(path.is_dir());
    assert_eq!(names(dir.path()), AT_REST);
}

#[test]
fn the_path_of_a_directory_is_rejected_and_nothing_created() {
    limit!();
    let (dir, path) = files();
    for path in [path.join(""), dir.path().join("..")] {
        let error = SharedFile::open(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotRegularFile, "{error}");
        let error = flockwork::Once::open(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotRegularFile, "{error}");
    }
    assert_eq!(names(dir.path()), [""; 0]);
}

#[test]
fn reading_never_waits_and_needs_no_lock_file() {
    limit!();
    let (dir, path) = files();
    std::fs::write(&path, "plain").unwrap();
    let file = SharedFile::open(&path).unwrap();
    assert_eq!(file.read_to_string().unwrap(), "plain");
    assert_eq!(file.read().unwrap(), b"plain");
    assert_eq!(names(dir.path()), ["data.json"]);
    let mut other = peer(&path, &[]);
    let mut writing = file.lock_exclusive().unwrap();
    other.expect(Call::Read, "plain");
    writing.replace("new").unwrap();
    other.expect(Call::Read, "new");
}

#[test]
fn opening_and_reading_create_no_directory() {
    limit!();
    let (dir, _) = files();
    let file = SharedFile::open(dir.path().join("out/er/data")).unwrap();
    for error in [file.read().unwrap_err(), file.read_to_string().unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
    assert_eq!(names(dir.path()), [""; 0]);
    file.update(|contents| append(contents, "x")).unwrap();
    assert_eq!(file.read().unwrap(), b"x");
}

#[test]
fn on_wait_names_the_holder_of_the_lock() {
    limit!();
    let (_dir, path) = files();
    let file = Options::new().label("importer").open_shared_file(&path).unwrap();
    let plain = SharedFile::open(&path).unwrap();
    let writing = file.lock_exclusive().unwrap();
    assert_eq!(plain.holders().unwrap()[0].label(), Some("importer"));
    let error = plain.try_lock_shared().unwrap_err();
    assert_eq!((error.path(), error.holders()[0].label()), (&*path, Some("importer")));
    drop(writing);
    let _reading = file.lock_shared().unwrap();
    let error = plain.lock_exclusive_timeout(Duration::from_millis(1)).unwrap_err();
    assert!(error.to_string().contains("\"importer\""), "{error}");
    assert_eq!(error.path(), path);
    assert_eq!(error.holders()[0].label(), Some("importer"));
}

// Unix only: owners, mode bits, links, forks, and removal of open lock files.
#[cfg(unix)]
mod owners_and_links {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_write_keeps_the_mode_and_a_new_file_has_the_requested_one() {
        limit!();
        let (dir, path) = files();
        let file = SharedFile::open(&path).unwrap();
        file.write("x").unwrap();
        let plain = dir.path().join("plain");
        std::fs::write(&plain, "x").unwrap();
        assert_eq!(mode(&path), mode(&plain), "the umask applies");
        for kept in [0o600, 0o640, 0o664, 0o666, 0o755, 0o604] {
            set_mode(&path, kept);
            file.write("y").unwrap();
            assert_eq!(mode(&path), kept);
            file.update(|contents| append(contents, "z")).unwrap();
            assert_eq!(mode(&path), kept);
        }
        for (access, bits) in
            [(flockwork::Access::Private, 0o600), (flockwork::Access::Everyone, 0o666)]
        {
            let path = dir.path().join(format!("{access:?}"));
            let file = Options::new().access(access).open_shared_file(&path).unwrap();
            file.write("x").unwrap();
            assert_eq!(mode(&path), bits);
            assert_eq!(mode(&dir.path().join(format!("{access:?}.flock"))), bits);
            set_mode(&path, 0o640);
            file.write("y").unwrap();
            assert_eq!(mode(&path), 0o640, "an existing file keeps its mode");
        }
    }

    /// The superuser may change the owner of a file.
    #[test]
    fn the_owner_and_the_group_are_kept_where_that_is_permitted() {
        limit!();
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let (_dir, path) = files();
        let file = SharedFile::open(&path).unwrap();
        file.write("x").unwrap();
        std::os::unix::fs::chown(&path, Some(1234), Some(4321)).unwrap();
        set_mode(&path, 0o640);
        file.write("y").unwrap();
        let found = std::fs::metadata(&path).unwrap();
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (1234, 4321, 0o640));
    }

    #[test]
    fn a_writer_who_cannot_chown_owns_it_with_no_wider_group_access() {
        limit!();
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let (dir, path) = files();
        set_mode(dir.path(), 0o777);
        std::fs::write(&path, "x").unwrap();
        set_mode(&path, 0o666);
        let mut other = crate::support::unprivileged::unprivileged();
        other.open_shared_file(&path, &[]);
        other.run(Call::Write("y".into(), Block));
        let found = std::fs::metadata(&path).unwrap();
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (65534, 65534, 0o666));
        // Members of group 0 could write, and members of the new file's group could not.
        std::os::unix::fs::chown(&path, Some(65534), Some(0)).unwrap();
        set_mode(&path, 0o4774);
        other.run(Call::Write("z".into(), Block));
        let found = std::fs::metadata(&path).unwrap();
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (65534, 65534, 0o744));
    }

    #[test]
    fn a_file_that_is_not_writable_is_not_replaced() {
        limit!();
        let (dir, path) = files();
        set_mode(dir.path(), 0o777);
        let file = Options::new().access(flockwork::Access::Everyone).open_shared_file(&path);
        let file = file.unwrap();
        file.write("theirs").unwrap();
        set_mode(&path, 0o444);
        let mut other = crate::support::unprivileged::unprivileged();
        other.open_shared_file(&path, &[]);
        other.expect(Call::Read, "theirs");
        let answer = other.expect_error(Call::Write("mine".into(), Block));
        assert!(answer.starts_with("PermissionDenied: could not write `"), "{answer}");
        assert_eq!(file.read_to_string().unwrap(), "theirs");
        // A write also fails if the directory does not permit creating a file.
        set_mode(&path, 0o666);
        set_mode(dir.path(), 0o755);
        let answer = other.expect_error(Call::Write("mine".into(), Block));
        assert!(answer.starts_with("PermissionDenied: could not write `"), "{answer}");
        assert!(answer.contains("must be able to write to"), "{answer}");
        assert_eq!(file.read_to_string().unwrap(), "theirs");
        assert_eq!(names(dir.path()), AT_REST);
    }

    /// The writer was killed before its file had the mode of the existing one, so no other user may
    /// open it.
    #[test]
    fn leftovers_of_another_users_killed_writer_are_removed() {
        limit!();
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let (dir, path) = files();
        set_mode(dir.path(), 0o777);
        let file = Options::new().access(flockwork::Access::Everyone).open_shared_file(&path);
        file.unwrap().write("old").unwrap();
        let aside = dir.path().join("data.json.flock.new");
        std::fs::write(&aside, "half").unwrap();
        set_mode(&aside, 0o600);
        let mut other = crate::support::unprivileged::unprivileged();
        other.open_shared_file(&path, &[]);
        other.run(Call::Write("new".into(), Block));
        assert_eq!(names(dir.path()), AT_REST);
        // In a sticky directory the other user may not remove it.
        std::os::unix::fs::chown(&path, Some(0), Some(0)).unwrap();
        std::fs::write(&aside, "half").unwrap();
        set_mode(&aside, 0o600);
        set_mode(dir.path(), 0o1777);
        let answer = other.expect_error(Call::Write("newer".into(), Block));
        assert!(answer.contains("the temporary file of a killed writer"), "{answer}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
    }

    #[test]
    fn a_symbolic_link_is_never_replaced_and_never_followed() {
        limit!();
        let (dir, path) = files();
        let target = dir.path().join("target");
        std::fs::write(&target, "theirs").unwrap();
        for to in [target.clone(), dir.path().join("nothing")] {
            std::os::unix::fs::symlink(&to, &path).unwrap();
            let error = SharedFile::open(&path).unwrap_err();
            assert!(error.to_string().contains("a symbolic link"), "{error}");
            std::fs::remove_file(&path).unwrap();
        }
        let file = SharedFile::open(&path).unwrap();
        file.write("ours").unwrap();
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        for error in [file.read().unwrap_err(), file.write("x").unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::NotRegularFile, "{error}");
        }
        assert!(file.update(|contents| append(contents, "x")).is_err());
        assert_eq!(std::fs::read_link(&path).unwrap(), target);
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "theirs");
        // Symbolic links in parent directories are followed.
        let real = dir.path().join("real");
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, dir.path().join("link")).unwrap();
        SharedFile::open(dir.path().join("link/data")).unwrap().write("x").unwrap();
        assert_eq!(std::fs::read_to_string(real.join("data")).unwrap(), "x");
    }

    #[test]
    fn a_link_or_fifo_at_the_temporary_name_is_not_opened() {
        limit!();
        let (dir, path) = files();
        let (aside, target) = (dir.path().join("data.json.flock.new"), dir.path().join("target"));
        let file = SharedFile::open(&path).unwrap();
        std::fs::write(&target, "theirs").unwrap();
        std::os::unix::fs::symlink(&target, &aside).unwrap();
        assert!(file.write("x").is_err());
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "theirs");
        assert_eq!(std::fs::read_link(&aside).unwrap(), target);
        std::fs::remove_file(&aside).unwrap();
        let made = std::process::Command::new("mkfifo").args([&aside, &path]).status().unwrap();
        assert!(made.success());
        assert!(file.write("x").is_err());
        assert!(file.read().is_err());
        assert!(SharedFile::open(&path).is_err());
    }

    #[test]
    fn a_forked_copy_of_a_guard_writes_nothing() {
        limit!();
        let (_dir, path) = files();
        let mut parent = peer(&path, &[]);
        parent.run(Call::LockExclusive);
        parent.run(Call::Replace("parent".into()));
        parent.expect(Call::ReplaceInFork("child".into()), 0);
        parent.run(Call::DropGuard);
        assert_eq!(SharedFile::open(&path).unwrap().read_to_string().unwrap(), "parent");
    }

    #[test]
    fn a_write_without_exclusive_access_is_detected() {
        limit!();
        let (dir, path) = files();
        let file = SharedFile::open(&path).unwrap();
        file.write("old").unwrap();
        // Another writer, whose lock file was removed, is in the middle of a write.
        let aside = dir.path().join("data.json.flock.new");
        let other = std::fs::File::create(&aside).unwrap();
        fs4::FileExt::lock(&other).unwrap();
        let error = file.write("new").unwrap_err();
        assert!(error.to_string().contains("without holding its lock"), "{error}");
        assert!(aside.exists());
        assert_eq!(file.read_to_string().unwrap(), "old");
        drop(other);
        file.write("new").unwrap();
        assert_eq!(names(dir.path()), AT_REST);
    }

    /// The kernel drops the locks of a dying process one after the other, and that of its temporary
    /// file last.
    // Linux only: `/proc` shows that the writer has the file open.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_lock_holder_waits_for_a_dying_writers_temporary_file() {
        limit!();
        let (dir, path) = files();
        let file = SharedFile::open(&path).unwrap();
        let aside = dir.path().join("data.json.flock.new");
        let open = || {
            let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
            open.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to == aside)).count()
        };
        eventually("a writer has waited for long enough", || {
            let dying = std::fs::File::create(&aside).unwrap();
            fs4::FileExt::lock(&dying).unwrap();
            let file = file.clone();
            let writer = std::thread::spawn(move || {
                let begun = std::time::Instant::now();
                (file.write("new"), begun.elapsed())
            });
            // The writer has found the leftover, and opened it to check whether it is locked.
            eventually("the leftover is opened", || open() == 2 || writer.is_finished());
            drop(dying);
            let (written, waited) = writer.join().unwrap();
            // On a busy machine this thread may run when the writer has given up.
            assert!(written.is_ok() || waited > Duration::from_secs(2), "{written:?}");
            written.is_ok()
        });
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(names(dir.path()), AT_REST);
    }

    #[test]
    fn a_removed_parent_directory_is_recreated() {
        limit!();
        let (dir, _) = files();
        let path = dir.path().join("deep/data.json");
        let file = SharedFile::open(&path).unwrap();
        file.write("x").unwrap();
        std::fs::remove_dir_all(dir.path().join("deep")).unwrap();
        assert_eq!(file.read().unwrap_err().kind(), ErrorKind::NotFound);
        assert!(!dir.path().join("deep").exists(), "a read created the file again");
        file.write("y").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "y");
    }
}

// Linux only: the superuser sets access lists and extended attributes of other users' files.
#[cfg(target_os = "linux")]
mod access_lists {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::os::unix::process::CommandExt as _;

    use rustix::fs::{XattrFlags, lgetxattr, lsetxattr};

    use super::*;

    const ACCESS: &str = "system.posix_acl_access";
    const DEFAULT: &str = "system.posix_acl_default";
    const NO_ID: u32 = u32::MAX;

    /// Encodes entries as in `linux/posix_acl_xattr.h`: a tag, the permissions and an id.
    fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0];
        for (tag, rights, id) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(rights.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    }

    const OWNER: u16 = 0x01;
    const USER: u16 = 0x02;
    const GROUP: u16 = 0x04;
    const MASK: u16 = 0x10;
    const OTHER: u16 = 0x20;

    /// User 1000 may read and write; group 4321 and all other users may do nothing.
    fn without_group() -> Vec<u8> {
        let (rw, mask) = ([(OWNER, 6, NO_ID), (USER, 6, 1000)], (MASK, 6, NO_ID));
        list(&[rw[0], rw[1], (GROUP, 0, NO_ID), mask, (OTHER, 0, NO_ID)])
    }

    fn list_of(path: &Path) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 4096];
        let length = lgetxattr(path, ACCESS, &mut buffer[..]).ok()?;
        buffer.truncate(length);
        Some(buffer)
    }

    /// Creates a file of that group with this list, in a directory where any user may create files.
    /// Prints why and returns `None` if that is not possible.
    fn listed(list: &[u8]) -> Option<(tempfile::TempDir, PathBuf)> {
        if !rustix::process::geteuid().is_root() {
            crate::support::left_out("only the superuser can give files to other groups");
            return None;
        }
        let (dir, path) = files();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        std::fs::write(&path, "old").unwrap();
        std::os::unix::fs::chown(&path, None, Some(4321)).unwrap();
        if let Err(error) = lsetxattr(&path, ACCESS, list, XattrFlags::empty()) {
            crate::support::left_out(&format!("no access lists here: {error}"));
            return None;
        }
        Some((dir, path))
    }

    fn may_read(path: &Path, uid: u32, gid: u32) -> bool {
        let mut cat = std::process::Command::new("cat");
        cat.arg(path).uid(uid).gid(gid).stderr(std::process::Stdio::null());
        cat.output().unwrap().status.success()
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn an_access_list_is_kept_and_the_group_gains_nothing() {
        limit!();
        let Some((_dir, path)) = listed(&without_group()) else { return };
        assert!(may_read(&path, 1000, 1000) && !may_read(&path, 2000, 4321));
        let file = SharedFile::open(&path).unwrap();
        for _ in 0..2 {
            file.write("new").unwrap();
            assert_eq!(list_of(&path), Some(without_group()));
            assert!(may_read(&path, 1000, 1000), "no access list remains");
            assert!(!may_read(&path, 2000, 4321), "the group has the mask's permissions");
            assert_eq!((mode(&path), std::fs::metadata(&path).unwrap().gid()), (0o660, 4321));
        }
    }

    /// The writer then owns the file, and so does its group.
    #[test]
    fn an_access_list_is_kept_when_the_group_cannot_be() {
        limit!();
        let rights = |group| {
            list(&[
                (OWNER, 6, NO_ID),
                (USER, 6, 1000),
                (USER, 6, 65534),
                (GROUP, group, NO_ID),
                (MASK, 6, NO_ID),
                (OTHER, 0, NO_ID),
            ])
        };
        let Some((_dir, path)) = listed(&rights(6)) else { return };
        let mut other = crate::support::unprivileged::unprivileged();
        other.open_shared_file(&path, &[]);
        other.run(Call::Write("new".into(), Block));
        let found = std::fs::metadata(&path).unwrap();
        assert_eq!((found.uid(), found.gid()), (65534, 65534));
        assert_eq!(list_of(&path), Some(rights(0)));
        assert!(may_read(&path, 1000, 1000));
        assert!(!may_read(&path, 2000, 65534), "the new group has more permissions than others");
    }

    #[test]
    fn where_a_list_cannot_be_copied_the_group_has_its_own_rights() {
        limit!();
        for (call, group, expected) in [
            ("fsetxattr:error=EOPNOTSUPP", 4, 0o640),
            ("fsetxattr:error=EPERM", 0, 0o600),
            ("lgetxattr:error=EPERM", 4, 0o600),
        ] {
            let rights = list(&[
                (OWNER, 6, NO_ID),
                (USER, 6, 1000),
                (GROUP, group, NO_ID),
                (MASK, 6, NO_ID),
                (OTHER, 0, NO_ID),
            ]);
            let Some((_dir, path)) = listed(&rights) else { return };
            assert_eq!(mode(&path), 0o660);
            let Some(mut writer) = crate::support::strace::strace(&[], call) else { return };
            writer.open_shared_file(&path, &[]);
            writer.run(Call::Write("new".into(), Block));
            assert_eq!((mode(&path), list_of(&path)), (expected, None), "{call}");
        }
    }

    #[test]
    fn an_inherited_access_list_grants_no_extra_rights() {
        limit!();
        for call in ["fsync:error=EIO", "fremovexattr:error=EPERM"] {
            let Some((dir, path)) = listed(&without_group()) else { return };
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, "old").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
            lsetxattr(dir.path(), DEFAULT, &without_group(), XattrFlags::empty()).unwrap();
            assert!(!may_read(&path, 1000, 1000));
            // The error that strace injects matters only in the second case.
            let Some(mut writer) = crate::support::strace::strace(&[], call) else { return };
            writer.open_shared_file(&path, &[]);
            writer.run(Call::Write("new".into(), Block));
            assert!(!may_read(&path, 1000, 1000), "{call}");
            assert_eq!(mode(&path) & !0o640, 0, "{call}");
        }
    }

    #[test]
    fn extended_attributes_are_kept_where_that_is_permitted() {
        limit!();
        let Some((_dir, path)) = listed(&without_group()) else { return };
        let attributes = [
            ("user.origin", &b"somewhere"[..]),
            ("user.empty", b""),
            ("user.long", &[7; 1000]),
            ("security.flockwork", b"label"),
        ];
        for (name, value) in attributes {
            lsetxattr(&path, name, value, XattrFlags::empty()).unwrap();
        }
        // The kernel removes this attribute whenever the contents change.
        let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        lsetxattr(&path, "security.capability", &capability, XattrFlags::empty()).unwrap();
        let file = SharedFile::open(&path).unwrap();
        let kept = |name: &str| {
            let mut buffer = [0; 2000];
            let length = lgetxattr(&path, name, &mut buffer[..]).ok()?;
            Some(buffer[..length].to_vec())
        };
        file.write("new").unwrap();
        for (name, value) in attributes {
            assert_eq!(kept(name).as_deref(), Some(value), "{name}");
        }
        assert_eq!(kept("security.capability"), None);
        // A user who may not set some attributes still keeps the rest.
        let rights = list(&[
            (OWNER, 6, NO_ID),
            (USER, 6, 65534),
            (GROUP, 0, NO_ID),
            (MASK, 6, NO_ID),
            (OTHER, 0, NO_ID),
        ]);
        lsetxattr(&path, ACCESS, &rights, XattrFlags::empty()).unwrap();
        let mut other = crate::support::unprivileged::unprivileged();
        other.open_shared_file(&path, &[]);
        // The lock files belong to the superuser, but other users can read them.
        other.run(Call::Write("newer".into(), Block));
        assert_eq!(kept("user.origin").as_deref(), Some(&b"somewhere"[..]));
        assert_eq!(kept("security.flockwork"), None);
    }
}

// Linux only: strace injects signals and errors.
#[cfg(target_os = "linux")]
mod injected {
    use super::*;
    use crate::peer::{Request, Setting};
    use crate::support::strace::{answer_of_stopped, injected, strace};

    /// The system calls of a write, in order.
    const STEPS: [&str; 6] = ["openat", "flock", "write", "fchmod", "fsync", RENAME];
    const RENAME: &str = "rename,renameat,renameat2";

    /// The next writer recovers. (A writer killed after the last step leaves the new contents and
    /// no other file.)
    #[test]
    fn a_writer_that_is_killed_before_any_step_leaves_the_old() {
        limit!();
        for step in STEPS {
            let (dir, path) = files();
            SharedFile::open(&path).unwrap().write("old").unwrap();
            let aside = dir.path().join("data.json.flock.new");
            let Some(mut writer) = injected(&aside, &format!("{step}:signal=KILL:when=1")) else {
                return;
            };
            writer.open_shared_file(&path, &[Setting::Fsync]);
            writer.begin(Call::Write("new".into(), Block));
            assert_eq!(writer.answer_or_death(), None, "killed at {step}");
            let file = SharedFile::open(&path).unwrap();
            // The signal arrives before the call.
            assert_eq!(file.read_to_string().unwrap(), "old", "{step}");
            assert_eq!(aside.exists(), step != "openat", "{step}");
            file.update(|contents| append(contents, "er")).unwrap();
            assert_eq!(file.read_to_string().unwrap(), "older");
            assert_eq!(names(dir.path()), AT_REST);
        }
    }

    #[test]
    fn a_write_that_fails_at_any_step_keeps_the_old_contents() {
        limit!();
        for step in STEPS {
            for errno in ["EIO", "ENOSPC"] {
                let (dir, path) = files();
                SharedFile::open(&path).unwrap().write("old").unwrap();
                let aside = dir.path().join("data.json.flock.new");
                let Some(mut writer) = injected(&aside, &format!("{step}:error={errno}:when=1"))
                else {
                    return;
                };
                writer.open_shared_file(&path, &[Setting::Fsync]);
                writer.expect(Call::ReadLocked(Block), "old"); // Keeps its lock file open.
                let descriptors = writer.run(Request::CountDescriptors);
                let answer = writer.expect_error(Call::Write("new".into(), Block));
                assert!(answer.contains("could not write `"), "{step}: {answer}");
                assert!(answer.contains("data.json`"), "{step}: {answer}");
                writer.expect(Call::Read, "old");
                assert_eq!(names(dir.path()), AT_REST, "{step}");
                writer.run(Call::Write("new".into(), Block));
                writer.expect(Call::Read, "new");
                writer.expect(Request::CountDescriptors, &descriptors);
            }
        }
    }

    /// exFAT and some FUSE file systems have one mode for all files, and old container runtimes
    /// fail unknown calls with EPERM.
    #[test]
    fn a_write_works_without_unsupported_system_calls() {
        limit!();
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        for errno in ["EPERM", "ENOSYS", "EINVAL", "EOPNOTSUPP"] {
            let (dir, path) = files();
            let calls = ["fchmod", "faccessat2", "renameat2", "fsync", "fdatasync"];
            let inject: Vec<_> = calls.iter().map(|call| format!("{call}:error={errno}")).collect();
            let Some(mut writer) = strace(&[], &inject.join(";")) else { return };
            writer.open_shared_file(&path, &[Setting::Fsync]);
            writer.run(Call::Write("one".into(), Block));
            writer.expect(Call::IsDurable, false);
            writer.run(Call::Write("two".into(), Block));
            writer.expect(Call::Read, "two");
            // A file that cannot have the mode of the old one grants other users no additional
            // permissions.
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
            writer.run(Call::Write("three".into(), Block));
            assert_eq!(mode(&path) & !0o640, 0, "{:o}", mode(&path));
            writer.expect(Call::Read, "three");
            assert_eq!(names(dir.path()), AT_REST);
        }
        let (_dir, path) = files();
        let mut writer = peer(&path, &[Setting::Fsync]);
        writer.run(Call::Write("one".into(), Block));
        writer.expect(Call::IsDurable, true);
    }

    /// The writer is stopped before it renames the new file.
    #[test]
    fn a_file_that_appears_during_a_write_is_not_replaced() {
        limit!();
        let (dir, path) = files();
        let aside = dir.path().join("data.json.flock.new");
        let stop = "fsync:signal=STOP:when=1";
        let Some(mut writer) = injected(&aside, stop) else { return };
        writer.open_shared_file(&path, &[Setting::Fsync]);
        writer.begin(Call::Write("new".into(), Block));
        eventually("the new contents are written", || {
            std::fs::metadata(&aside).is_ok_and(|it| it.len() == 3)
        });
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        let answer = answer_of_stopped(&mut writer).unwrap_err();
        assert!(answer.starts_with("not-regular"), "{answer}");
        assert_eq!(std::fs::read_link(&path).unwrap(), Path::new("elsewhere"));
        std::fs::remove_file(&path).unwrap();
        // Another writer that ignores the lock has removed the temporary file, and writes a
        // different one.
        let Some(mut writer) = injected(&aside, stop) else { return };
        writer.open_shared_file(&path, &[Setting::Fsync]);
        writer.begin(Call::Write("new".into(), Block));
        eventually("the new contents are written", || {
            std::fs::metadata(&aside).is_ok_and(|it| it.len() == 3)
        });
        std::fs::remove_file(&aside).unwrap();
        std::fs::write(&aside, "theirs, half").unwrap();
        let answer = answer_of_stopped(&mut writer).unwrap_err();
        assert!(answer.contains("without holding its lock"), "{answer}");
        assert_eq!(std::fs::read_to_string(&aside).unwrap(), "theirs, half");
        assert!(!path.exists());
        writer.run(Call::Write("new".into(), Block));
        assert_eq!(names(dir.path()), AT_REST);
    }

    #[test]
    fn fsync_syncs_the_file_before_its_name_and_then_the_directory() {
        limit!();
        let (dir, path) = files();
        // The second fsync is that of the directory.
        let Some(mut writer) = strace(&[], "fsync:error=EIO:when=2") else { return };
        writer.open_shared_file(&path, &[Setting::Fsync]);
        let answer = writer.expect_error(Call::Write("new".into(), Block));
        assert!(answer.contains("could not write"), "{answer}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        writer.run(Call::Write("newer".into(), Block));
        assert_eq!(names(dir.path()), AT_REST);
        let Some(mut writer) = strace(&[], "fsync,fdatasync:error=EIO") else { return };
        writer.open_shared_file(&path, &[]);
        writer.run(Call::Write("newest".into(), Block));
    }
}
