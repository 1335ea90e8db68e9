//! The child that runs one operation. It reads orders and prints results, one per line.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::process::{Resource, getrlimit, setrlimit};

use flockwork::ErrorKind;

use crate::peer::line::Words as _;
use crate::support::failure::in_full;

use super::operations::{Answer, Kit, Operation, all};

/// The name of the operation, a slash, and the directory that it uses.
pub(super) const ROLE: &str = "FLOCKWORK_IT_FAULT";
/// The beginning of each line that the child prints.
pub(super) const PREFIX: &str = "fault: ";

sendable! {
    /// An order to the child.
    #[derive(PartialEq)]
    enum Order {
        Go,
        // First makes the call `times` times in this thread, so that the fault hits only other
        // threads.
        GoAndSpend(call: String, times: usize),
        // Lowers the limit, so that this much room is left.
        GoWithLimit(resource: String, room: u64),
        // Drops all guards.
        Drop,
        Prepare,
        // Repeats the operation without a fault.
        ActAgain,
    }
}

sendable! {
    /// An answer of the child.
    enum Reply {
        // The id of the thread that runs the operation.
        Ready(thread: String),
        Ok(answer: String),
        // The number is 0 if the error has no code of the system.
        Err(kind: String, number: i32, text: String),
        Panicked,
        Done,
    }
}

/// A link that does not exist. Reading it marks the beginning and the end of the operation in the
/// list of system calls.
pub(super) const MARK: &str = "/flockwork-it-mark";

fn print_reply(what: &Reply) {
    let line = format!("{PREFIX}{}\n", what.to_line().replace('\n', " "));
    let line = std::io::IoSlice::new(line.as_bytes());
    rustix::io::writev(std::io::stdout(), &[line]).unwrap();
}

/// Reads a line. The child uses neither `read` nor `write` for its own input and output, because
/// those calls of the operation are counted.
fn read_line() -> Option<String> {
    let mut line = Vec::new();
    loop {
        let mut byte = [0];
        let mut buffer = [std::io::IoSliceMut::new(&mut byte)];
        match rustix::io::readv(std::io::stdin(), &mut buffer) {
            Ok(0) => return None,
            Ok(_) if byte == *b"\n" => return Some(String::from_utf8(line).unwrap()),
            Ok(_) => line.extend(byte),
            Err(error) => assert_eq!(error, rustix::io::Errno::INTR),
        }
    }
}

fn mark() {
    let _ = std::fs::read_link(MARK);
}

pub(super) fn run(role: &str) -> ! {
    let (name, dir) = role.split_once('/').unwrap();
    let dir = PathBuf::from(format!("/{dir}"));
    let _ = rustix::process::set_ptracer(rustix::process::PTracer::Any); // Yama requires it.
    let operation = all().into_iter().find(|operation| operation.name == name).unwrap();
    let mut kit = Kit::new(dir.clone());
    (operation.prepare)(&mut kit);
    let thread = std::fs::read_link("/proc/thread-self").unwrap();
    print_reply(&Reply::Ready(thread.file_name().unwrap().to_string_lossy().into_owned()));
    while let Some(line) = read_line() {
        match Order::from_line(&line) {
            Order::Go => {
                mark();
                let done = act(&operation, &mut kit);
                mark();
                print_reply(&done);
            }
            Order::GoAndSpend(call, times) => {
                (0..times).for_each(|_| spend(&call, &dir));
                let done = act(&operation, &mut kit);
                print_reply(&done);
            }
            Order::GoWithLimit(resource, room) => {
                let (resource, at) = match &*resource {
                    "files" => (Resource::Nofile, highest_descriptor() + 1 + room),
                    "threads" => (Resource::Nproc, room),
                    _ => (Resource::Fsize, room),
                };
                let before = getrlimit(resource);
                let mut limit = before;
                limit.current = Some(at);
                setrlimit(resource, limit).unwrap();
                let done = act(&operation, &mut kit);
                setrlimit(resource, before).unwrap();
                print_reply(&done);
            }
            Order::Drop => {
                kit.release();
                print_reply(&Reply::Done);
            }
            Order::Prepare => {
                (operation.prepare)(&mut kit);
                print_reply(&Reply::Done);
            }
            Order::ActAgain => {
                kit.is_patient = true;
                print_reply(&act(&operation, &mut kit));
            }
        }
    }
    std::process::exit(0)
}

fn highest_descriptor() -> u64 {
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    let open: Vec<u64> =
        open.filter_map(|open| open.unwrap().file_name().to_str()?.parse().ok()).collect();
    // The listing's own descriptor is the last, and is closed by now.
    open.into_iter()
        .filter(|open| Path::new(&format!("/proc/self/fd/{open}")).exists())
        .max()
        .unwrap()
}

fn act(operation: &Operation, kit: &mut Kit) -> Reply {
    let to_reply = |answer: Answer| match answer {
        Ok(answer) => Reply::Ok(answer),
        Err(error) => {
            let kind = match error.kind() {
                ErrorKind::WouldBlock => "would-block",
                ErrorKind::TimedOut => "timed-out",
                ErrorKind::Unsupported | ErrorKind::NotFound | ErrorKind::Io => "failed",
                _ => "other",
            };
            let number = error.io_error().and_then(std::io::Error::raw_os_error);
            Reply::Err(kind.into(), number.unwrap_or_default(), in_full(&error))
        }
    };
    let done = catch_unwind(AssertUnwindSafe(|| to_reply((operation.act)(kit))));
    done.unwrap_or(Reply::Panicked)
}

fn spend(call: &str, dir: &Path) {
    use std::io::{Read as _, Seek as _, Write as _};
    let scratch = dir.with_file_name("scratch");
    let file = || std::fs::File::options().read(true).write(true).open(&scratch);
    match call {
        "flock" => {
            let _ = rustix::fs::flock(std::io::stdin(), FlockOperation::NonBlockingUnlock);
        }
        "openat" => drop(file()),
        "newfstatat" => drop(rustix::fs::lstat(&scratch)),
        "statx" => drop(std::fs::symlink_metadata(&scratch)),
        "read" => drop(file().and_then(|mut file| file.read(&mut [0]))),
        "write" => drop(file().and_then(|mut file| file.write(b"x"))),
        "lseek" => drop(file().and_then(|mut file| file.seek(std::io::SeekFrom::End(0)))),
        "readlink" => drop(std::fs::read_link(&scratch)),
        "unlink" => drop(std::fs::remove_file(dir.with_file_name("nothing"))),
        "getdents64" => drop(std::fs::read_dir(dir).map(Iterator::count)),
        "clone3" => {
            drop(std::thread::Builder::new().spawn(|| {}).map(std::thread::JoinHandle::join));
        }
        "statfs" => drop(rustix::fs::statfs(&scratch)),
        "fstat" => drop(rustix::fs::fstat(std::io::stdin())),
        "fstatfs" => drop(rustix::fs::fstatfs(std::io::stdin())),
        _ => panic!("no way to make {call}"),
    }
}
