//! Checks with flock(2) and through `/proc` whether anything is held.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use crate::primitives::{PRIMITIVES, PrimitiveKind};

/// Tries to lock a file. The lock is released when the file is closed.
pub(crate) fn try_lock(path: &Path) -> io::Result<Option<File>> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        // A file that was never created cannot be locked.
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

/// Returns all files that a process could hold locked.
fn lock_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for primitive in PRIMITIVES.iter().filter(|primitive| !primitive.is_tampered_with) {
        let path = directory.join(primitive.path);
        let beside = |suffix: &str| directory.join(format!("{}{suffix}", primitive.path));
        match primitive.kind {
            PrimitiveKind::Lock => files.push(path),
            PrimitiveKind::RwLock => files.extend([path, beside(".gate")]),
            PrimitiveKind::Semaphore(_) | PrimitiveKind::Elastic => {
                let permits: u32 = fs::read_to_string(path.join("capacity"))?
                    .trim()
                    .parse()
                    .map_err(io::Error::other)?;
                files.extend((0..permits).map(|slot| path.join(format!("slot.{slot}"))));
                files.extend([path.join("gate"), path.join("waiters")]);
            }
            PrimitiveKind::Flag
            | PrimitiveKind::Mailbox
            | PrimitiveKind::AnyUse
            | PrimitiveKind::Once => files.push(beside(".flock")),
            PrimitiveKind::Barrier(parties) => {
                files.extend((0..parties).map(|number| path.join(format!("participant.{number}"))));
                files.push(path.join("setup"));
            }
            PrimitiveKind::SharedFile => files.extend([beside(".flock"), beside(".flock.gate")]),
        }
    }
    files.push(directory.join(crate::primitives::SENDER_LOCK));
    Ok(files)
}

/// Counts the locks that are held although all processes are paused. It retries until `patience`
/// has passed, because a helper thread whose waiter has given up may still be releasing a lock.
pub(crate) fn count_lost(directory: &Path, patience: Duration) -> io::Result<u64> {
    let start = Instant::now();
    loop {
        let mut locked = Vec::new();
        let mut lost = Vec::new();
        for path in lock_files(directory)? {
            match try_lock(&path)? {
                Some(file) => locked.push(file),
                None => lost.push(path),
            }
        }
        if lost.is_empty() {
            return Ok(0);
        }
        if start.elapsed() > patience {
            eprintln!("no process holds these locks, but they are not available: {lost:?}");
            eprintln!("{}", fs::read_to_string("/proc/locks")?);
            return Ok(lost.len() as u64);
        }
        drop(locked);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Describes what each thread of a process is doing.
pub(crate) fn threads_of(pid: u64) -> String {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return "the process has ended".into();
    };
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
