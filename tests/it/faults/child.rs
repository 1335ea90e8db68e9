//! The child that does one operation, as it is told line by line, and says what came of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::process::{Resource, getrlimit, setrlimit};

use flockwork::ErrorKind;

use crate::peer::line::Words as _;
use crate::support::failure::in_full;

use super::operations::{Answer, Kit, Operation, all};

/// The name of the operation, a slash, and the directory in which it is done.
pub(super) const ROLE: &str = "FLOCKWORK_IT_FAULT";
/// What it says begins with this.
pub(super) const SAYS: &str = "fault: ";

sendable! {
    /// What the child is told to do.
    #[derive(PartialEq)]
    enum Order {
        Go,
        // As many calls in this thread that a fault meant for another one is spent.
        GoAndSpend(call: String, times: usize),
        // With a lower limit, and this much room below it.
        GoWithLimit(resource: String, room: u64),
        // What it holds.
        Drop,
        Prepare,
        // Once more, without a fault.
        ActAgain,
    }
}

sendable! {
    /// What the child says.
    enum Said {
        // The number of the thread that does the operation.
        Ready(thread: String),
        Ok(answer: String),
        // The number is 0 where the system gave none.
        Err(kind: String, number: i32, text: String),
        Panicked,
        Done,
    }
}

/// A link that nobody has: to read it marks in a list of system calls where the operation begins and ends.
pub(super) const MARK: &str = "/flockwork-it-mark";

fn say(what: &Said) {
    let line = format!("{SAYS}{}\n", what.to_line().replace('\n', " "));
    let line = std::io::IoSlice::new(line.as_bytes());
    rustix::io::writev(std::io::stdout(), &[line]).unwrap();
}

/// Not by `read`, and what is said not by `write`: those are the operation's, and are counted.
fn hear() -> Option<String> {
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
    let _ = rustix::process::set_ptracer(rustix::process::PTracer::Any); // where Yama asks for it
    let operation = all().into_iter().find(|operation| operation.name == name).unwrap();
    let mut kit = Kit::new(dir.clone());
    (operation.prepare)(&mut kit);
    let thread = std::fs::read_link("/proc/thread-self").unwrap();
    say(&Said::Ready(thread.file_name().unwrap().to_string_lossy().into_owned()));
    while let Some(line) = hear() {
        match Order::from_line(&line) {
            Order::Go => {
                mark();
                let done = act(&operation, &mut kit);
                mark();
                say(&done);
            }
            Order::GoAndSpend(call, times) => {
                (0..times).for_each(|_| spend(&call, &dir));
                let done = act(&operation, &mut kit);
                say(&done);
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
                say(&done);
            }
            Order::Drop => {
                kit.let_go();
                say(&Said::Done);
            }
            Order::Prepare => {
                (operation.prepare)(&mut kit);
                say(&Said::Done);
            }
            Order::ActAgain => {
                kit.is_patient = true;
                say(&act(&operation, &mut kit));
            }
        }
    }
    std::process::exit(0)
}

fn highest_descriptor() -> u64 {
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    let open: Vec<u64> =
        open.filter_map(|open| open.unwrap().file_name().to_str()?.parse().ok()).collect();
    // The listing's own is the last, and closed by now.
    open.into_iter()
        .filter(|open| Path::new(&format!("/proc/self/fd/{open}")).exists())
        .max()
        .unwrap()
}

fn act(operation: &Operation, kit: &mut Kit) -> Said {
    let told = |answer: Answer| match answer {
        Ok(answer) => Said::Ok(answer),
        Err(error) => {
            let kind = match error.kind() {
                ErrorKind::WouldBlock => "would-block",
                ErrorKind::TimedOut => "timed-out",
                ErrorKind::Unsupported | ErrorKind::NotFound | ErrorKind::Io => "refused",
                _ => "other",
            };
            let number = error.io_error().and_then(std::io::Error::raw_os_error);
            Said::Err(kind.into(), number.unwrap_or_default(), in_full(&error))
        }
    };
    let done = catch_unwind(AssertUnwindSafe(|| told((operation.act)(kit))));
    done.unwrap_or(Said::Panicked)
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
        _ => panic!("how to spend {call}?"),
    }
}
