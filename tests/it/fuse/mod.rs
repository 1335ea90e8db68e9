//! A file system of its own for a test: a server in another process keeps its files in memory, and
//! hangs when the test asks for that. flockwork takes it for a network file system.

mod server;
mod store;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use crate::limit;
use crate::support::left_out;
use crate::support::running::{Running, Start as _};

/// The directory to mount on, for a process that is a server.
const ROLE: &str = "FLOCKWORK_IT_FUSE";

/// The type of the file system.
const KIND: &str = "FLOCKWORK_IT_FUSE_TYPE";
/// A type that flockwork does not know, and takes for a network file system.
pub(crate) const UNKNOWN: &str = "fuse.flockwork-test";

/// A mounted file system. Dropping it ends the server, and each request that it has not answered
/// fails then. So it is dropped before the processes that use it.
pub(crate) struct Mount {
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    server: Running,
    directory: tempfile::TempDir,
}

impl Mount {
    /// Returns `None` where the file system cannot be mounted, and says so.
    pub(crate) fn start() -> Option<Self> {
        Self::start_as(UNKNOWN)
    }

    /// Mounts a file system of that type.
    pub(crate) fn start_as(kind: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new("/dev/fuse").exists() {
            left_out("a file system of a test's own needs root and /dev/fuse");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["fuse::entry", "--exact", "--nocapture", "--test-threads=1"]);
        command
            .env(ROLE, directory.path())
            .env(KIND, kind)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        command.env(limit::SECONDS, "0"); // It ends with its input.
        let mut server = command.start();
        let (input, output) = (server.stdin.take(), server.stdout.take().unwrap());
        let mut mount = Self { input, output: BufReader::new(output), server, directory };
        let started = mount.answer();
        if started != "mounted" {
            left_out(&format!("a file system of a test's own: {started}"));
            return None;
        }
        Some(mount)
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Makes the server read all requests and answer none.
    pub(crate) fn hang(&mut self) {
        self.ask("hang");
    }

    /// Makes the server answer again, the withheld requests first.
    pub(crate) fn resume(&mut self) {
        self.ask("resume");
    }

    /// Makes the server drop all locks, as one does whose clients were cut off for too long.
    pub(crate) fn forget_locks(&mut self) {
        self.ask("forget");
    }

    /// Returns how many requests the server has read.
    pub(crate) fn operations(&mut self) -> u64 {
        self.ask("count").parse().unwrap()
    }

    fn ask(&mut self, request: &str) -> String {
        writeln!(self.input.as_mut().unwrap(), "{request}").unwrap();
        self.answer()
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "the server has ended");
            // libtest writes "test fuse::entry ... " without a line end first.
            if let Some((_, answer)) = line.split_once("fuse: ") {
                return answer.trim_end().to_string();
            }
        }
    }
}

/// Repeats a call while the server responds, which a busy machine may slow down.
pub(crate) fn responded<T>(call: impl Fn() -> flockwork::Result<T>) -> T {
    loop {
        match call() {
            Err(error) if error.is_timed_out() => {}
            result => return result.unwrap(),
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.server.wait();
    }
}

/// A server starts here. In an ordinary run this test does nothing.
#[test]
fn entry() {
    limit!();
    if let Some(directory) = std::env::var_os(ROLE) {
        server::run(Path::new(&directory), &std::env::var(KIND).unwrap());
        std::process::exit(0);
    }
}

#[test]
fn the_file_system_of_a_test_works() {
    limit!();
    let Some(mut mount) = Mount::start() else { return };
    let directory = mount.at("a/b");
    std::fs::create_dir_all(&directory).unwrap();
    let (file, other) = (directory.join("file"), directory.join("other"));
    std::fs::write(&file, "text").unwrap();
    std::fs::hard_link(&file, &other).unwrap();
    std::fs::write(&other, "longer text").unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "longer text");
    std::fs::rename(&other, directory.join("third")).unwrap();
    assert_eq!(crate::support::names_in(&directory), ["file", "third"]);
    std::fs::remove_file(&file).unwrap();
    assert!(!file.exists() && std::fs::remove_dir(&directory).is_err());
    assert!(mount.operations() > 10);
}

#[test]
fn the_file_system_of_a_test_forwards_locks() {
    limit!();
    let Some(mount) = Mount::start() else { return };
    let patient = flockwork::Options::new().server_timeout(crate::peer::SLOW_SERVER);
    let lock = patient.open_lock(mount.at("a.lock")).unwrap();
    let held = lock.lock().unwrap();
    assert!(held.still_held().unwrap());
    assert!(lock.try_lock().unwrap_err().is_would_block());
    let file = std::fs::File::open(mount.at("a.lock")).unwrap();
    let blocked = std::thread::spawn(move || {
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
    });
    held.unlock().unwrap();
    blocked.join().unwrap();
    // A FUSE learns of the closing of a file a moment later.
    crate::support::eventually("the file is unlocked", || lock.try_lock().is_ok());
}

/// A request that the server has read cannot be interrupted. It ends with the server.
#[test]
fn a_hanging_file_system_of_a_test_resumes() {
    limit!();
    let Some(mut mount) = Mount::start() else { return };
    std::fs::write(mount.at("file"), "text").unwrap();
    for is_resumed in [true, false] {
        mount.hang();
        let (path, before) = (mount.at("file"), mount.operations());
        let reader = std::thread::spawn(move || std::fs::read_to_string(path));
        crate::support::eventually("a request waits", || mount.operations() > before);
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(!reader.is_finished());
        if is_resumed {
            mount.resume();
            assert_eq!(reader.join().unwrap().unwrap(), "text");
        } else {
            drop(mount);
            reader.join().unwrap().unwrap_err();
            break;
        }
    }
}
