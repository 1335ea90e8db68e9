//! What opening a lock file accepts, rejects and creates (rule 1).

use std::path::Path;

use flockwork::{ErrorKind, Lock};

#[test]
fn the_contents_of_a_lock_file_never_change() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    std::fs::write(&path, "precious").unwrap();
    let before = std::fs::metadata(&path).unwrap().modified().unwrap();
    let lock = Lock::open(&path).unwrap();
    drop(lock.lock().unwrap());
    drop(lock.try_lock().unwrap());
    drop(futures_lite::future::block_on(lock.lock_async()).unwrap());
    drop(lock);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), before);
}

#[test]
fn missing_parent_directories_are_created() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/c/d.lock");
    drop(Lock::open(&path).unwrap().lock().unwrap());
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
}

#[track_caller]
fn assert_not_regular(path: &Path, what: &str) {
    let error = Lock::open(path).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::NotRegularFile, path));
    let text = format!("`{}` is {what}, not a regular file", path.display());
    assert_eq!(error.to_string(), text);
}

#[test]
fn a_directory_is_rejected() {
    limit!();
    let dir = tempfile::tempdir().unwrap();
    assert_not_regular(dir.path(), "a directory");
}

// Unix only: symbolic links, FIFOs, devices, mode bits. `windows` tests Windows files.
#[cfg(unix)]
mod on_unix {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
    use std::process::Command;

    use flockwork::{Access, Options};

    use super::*;
    use crate::support::running::Start as _;

    #[test]
    fn a_symlink_is_rejected_and_left_alone_with_its_target() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        std::fs::write(&target, "theirs").unwrap();
        symlink(&target, &link).unwrap();
        assert_not_regular(&link, "a symbolic link");
        std::fs::remove_file(&target).unwrap();
        assert_not_regular(&link, "a symbolic link");
        assert!(!target.exists(), "created through a dangling link");
        assert_eq!(std::fs::read_link(&link).unwrap(), target);
    }

    #[test]
    fn the_next_acquisition_rejects_a_file_replaced_by_a_symlink() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("a.lock"), dir.path().join("moved"));
        let lock = Lock::open(&path).unwrap();
        std::fs::rename(&path, &moved).unwrap();
        symlink(&moved, &path).unwrap();
        for outcome in [lock.try_lock(), lock.lock()] {
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::NotRegularFile);
        }
    }

    #[test]
    fn symlinked_parents_are_followed_and_lead_to_the_same_lock() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        std::fs::create_dir(&real).unwrap();
        symlink(&real, &link).unwrap();
        let one = Lock::open(real.join("a.lock")).unwrap();
        let two = Lock::open(link.join("a.lock")).unwrap();
        let _held = one.lock().unwrap();
        assert!(two.try_lock().unwrap_err().is_would_block());
    }

    #[test]
    fn a_fifo_is_rejected_immediately_without_waking_its_reader() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        // Opening the FIFO would wake a reader that is blocked in its own open.
        let mut reader = Command::new("cat").arg(&fifo).start();
        assert_not_regular(&fifo, "a FIFO");
        assert!(reader.try_wait().unwrap().is_none(), "the reader was woken");
        reader.kill().unwrap();
        reader.wait().unwrap();
        assert!(std::fs::symlink_metadata(&fifo).unwrap().file_type().is_fifo());
    }

    #[test]
    fn a_device_and_a_socket_are_rejected() {
        limit!();
        assert_not_regular(Path::new("/dev/null"), "a device");
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert_not_regular(&socket, "a socket");
    }

    #[test]
    fn created_files_have_the_requested_access_despite_the_umask() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o7777;
        for (access, file, directory) in [
            (Access::Private, 0o600, 0o700),
            (Access::Group, 0o660, 0o770),
            (Access::Everyone, 0o666, 0o777),
        ] {
            let parent = dir.path().join(format!("{access:?}"));
            let path = parent.join("inner/a.lock");
            let lock = Options::new().access(access).label("x").open_lock(&path).unwrap();
            let _held = lock.lock().unwrap();
            assert_eq!(mode(&path), file, "{access:?}");
            assert_eq!(mode(&parent), directory, "{access:?}");
            assert_eq!(mode(&parent.join("inner")), directory, "{access:?}");
            assert_eq!(mode(&parent.join("inner/a.lock.holder")), file, "{access:?}");
            let left: Vec<_> = std::fs::read_dir(parent.join("inner")).unwrap().collect();
            assert_eq!(left.len(), 2, "{left:?}");
        }
        // A directory created in one that passes its group on also passes it on.
        let shared = dir.path().join("shared");
        std::fs::create_dir(&shared).unwrap();
        std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o2770)).unwrap();
        drop(Options::new().access(Access::Group).open_lock(shared.join("sub/a.lock")).unwrap());
        assert_eq!(mode(&shared.join("sub")), 0o2770);

        let plain = dir.path().join("plain");
        std::fs::write(&plain, "").unwrap();
        let path = dir.path().join("a.lock");
        drop(Lock::open(&path).unwrap());
        assert_eq!(mode(&path), mode(&plain));
        // An existing file keeps its mode.
        std::fs::set_permissions(&plain, std::fs::Permissions::from_mode(0o640)).unwrap();
        drop(Options::new().access(Access::Everyone).open_lock(&plain).unwrap());
        assert_eq!(mode(&plain), 0o640);
    }

    #[test]
    fn a_file_that_can_only_be_read_is_locked() {
        limit!();
        use crate::peer::Way::Timeout;
        use crate::peer::lock::Call;
        // The superuser may write to any file, so this needs another user.
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = dir.path().join("a.lock");
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o444)).unwrap();
        let mut peer = crate::support::unprivileged::unprivileged();
        peer.open_lock(&path, &[]);
        peer.lock();
        assert!(Lock::open(&path).unwrap().try_lock().unwrap_err().is_would_block());
        peer.unlock();
        peer.run(Call::Acquire(Timeout(100_000)));
    }

    /// Other processes create, copy and run the program, so that no fork of another test inherits
    /// an open descriptor of this process.
    #[test]
    fn a_program_that_is_locked_can_be_run() {
        limit!();
        for access in [Access::Umask, Access::Private] {
            for is_there in [true, false] {
                let dir = tempfile::tempdir().unwrap();
                let path = dir.path().join("program");
                let install = || {
                    let script = "cp \"$(command -v sh)\" \"$1\" && chmod 755 \"$1\"";
                    let mut copy = Command::new("sh");
                    copy.args(["-c", script, "sh"]).arg(&path);
                    assert!(copy.status().unwrap().success());
                };
                if is_there {
                    install();
                }
                let lock = Options::new().access(access).open_lock(&path).unwrap();
                let held = lock.lock().unwrap();
                if !is_there {
                    install(); // Overwrites the file that was created as a lock.
                }
                let ran = Command::new(&path).args(["-c", "exit 7"]).status();
                assert_eq!(ran.map_err(|error| error.to_string()).unwrap().code(), Some(7));
                assert!(lock.try_lock().unwrap_err().is_would_block());
                drop(held);
            }
        }
    }

    // Linux only: reads `/proc/PID/fdinfo`, and strace changes the result of fstatfs.
    #[cfg(target_os = "linux")]
    #[test]
    fn lock_files_are_opened_writable_only_on_network_file_systems() {
        limit!();
        use crate::peer::Request;
        // The first fault does not affect opening; the second leaves the file system unknown.
        for (inject, access_mode) in
            [("fsync:error=EIO", 0), ("fstatfs:error=EPERM", 2), (crate::support::strace::NFS, 2)]
        {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a.lock");
            std::fs::write(&path, "").unwrap();
            let Some(mut peer) = crate::support::strace::strace(&[], inject) else { return };
            peer.open_lock(&path, &[]);
            peer.lock();
            let flags = peer.run(Request::OpenFlags(path.clone()));
            let flags = u32::from_str_radix(&flags, 8).unwrap();
            assert_eq!(flags & 3, access_mode, "{inject}: {flags:o}");
        }
    }

    // Linux only: reads `/proc/self/fd`.
    #[cfg(target_os = "linux")]
    #[test]
    fn descriptors_are_closed_on_exec() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        let lock = Lock::open(&path).unwrap();
        let _held = lock.lock().unwrap();
        let listing = Command::new("ls").args(["-l", "/proc/self/fd"]).output().unwrap();
        let listing = String::from_utf8_lossy(&listing.stdout).into_owned();
        assert!(!listing.contains("a.lock"), "{listing}");
    }
}
