//! Looks from outside whether anything is held: with bare flock(2) on the files, and with what `/proc` shows.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use crate::things::{THINGS, What};

/// The lock on that file, if it can be had. It is given back when the file is closed.
pub(crate) fn take(path: &Path) -> io::Result<Option<File>> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        // What nobody ever used nobody can hold.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return File::open("/dev/null").map(Some);
        }
        Err(error) => return Err(error),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// All files whose lock is what somebody could hold.
fn lock_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for thing in THINGS.iter().filter(|thing| !thing.is_in_the_yard) {
        let path = directory.join(thing.path);
        let beside = |suffix: &str| directory.join(format!("{}{suffix}", thing.path));
        match thing.what {
            What::Lock => files.push(path),
            What::RwLock => files.extend([path, beside(".gate")]),
            What::Semaphore(_) | What::Elastic => {
                let permits: u32 = fs::read_to_string(path.join("capacity"))?
                    .trim()
                    .parse()
                    .map_err(io::Error::other)?;
                files.extend((0..permits).map(|slot| path.join(format!("slot.{slot}"))));
                files.extend([path.join("gate"), path.join("waiters")]);
            }
            What::Flag | What::Mailbox | What::Loose | What::Once => files.push(beside(".flock")),
            What::SharedFile => files.extend([beside(".flock"), beside(".flock.gate")]),
        }
    }
    files.push(directory.join(crate::things::SENDERS));
    Ok(files)
}

/// Nobody does anything: all locks are to be had, all at once. How many are not, after a while: a helper that nobody
/// waits for any more may still be on its way.
pub(crate) fn lost(directory: &Path, patience: Duration) -> io::Result<u64> {
    let start = Instant::now();
    loop {
        let mut held = Vec::new();
        let mut missing = Vec::new();
        for path in lock_files(directory)? {
            match take(&path)? {
                Some(file) => held.push(file),
                None => missing.push(path),
            }
        }
        if missing.is_empty() {
            return Ok(0);
        }
        if start.elapsed() > patience {
            eprintln!("nobody has these, and they are not to be had: {missing:?}");
            eprintln!("{}", fs::read_to_string("/proc/locks")?);
            return Ok(missing.len() as u64);
        }
        drop(held);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What each thread of a process is at.
pub(crate) fn threads_of(pid: u64) -> String {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return "it is gone".into() };
    let of_task = |task: PathBuf| {
        let read = |name: &str| {
            fs::read_to_string(task.join(name)).unwrap_or_default().trim().replace('\n', " < ")
        };
        let state =
            read("status").split(" < ").find(|line| line.starts_with("State")).map(String::from);
        format!(
            "  {} {}: {} {} {}",
            read("comm"),
            state.unwrap_or_default(),
            read("wchan"),
            read("syscall"),
            read("stack")
        )
    };
    tasks.flatten().map(|task| of_task(task.path())).collect::<Vec<_>>().join("\n")
}
