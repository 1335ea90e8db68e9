//! Fencing tokens: numbers that grow with each acquisition that asks for one (rule 17).

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::lock_file::LockFile;
use super::open::own_directory;
use crate::access::Creation;
use crate::error::{Error, Operation, Result};
use crate::sys::{self, Directory, Mode, Retries};

/// The directory beside a lock file whose only file has the latest token as its name.
const SUFFIX: &str = ".fence";
/// The same directory in the directory of a semaphore.
const IN_DIRECTORY: &str = "fence";
/// The lock file in it, for systems where two processes can rename the same name.
const ALONE: &str = "lock";

/// Where the tokens of a lock file are.
pub(crate) fn beside(path: &Path) -> Arc<Path> {
    sys::beside(path, SUFFIX).into()
}

/// Where the tokens of the semaphore in `directory` are.
pub(crate) fn within(directory: &Path) -> Arc<Path> {
    directory.join(IN_DIRECTORY).into()
}

/// The token of one acquisition; none before it was asked for.
#[derive(Debug, Default)]
pub(crate) struct Token(AtomicU64);

impl Token {
    pub(crate) fn get(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Acquire)).filter(|token| *token != 0)
    }

    /// Keeps the token, unless another thread has just kept one. Returns the one that is kept.
    pub(crate) fn keep(&self, token: u64) -> u64 {
        match self.0.compare_exchange(0, token, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => token,
            Err(kept) => kept,
        }
    }
}

/// Takes the next token from the directory at `path`, which is created if it is missing. A rename
/// takes it, so no two processes get the same, whichever of them holds the lock.
pub(crate) fn take(path: &Arc<Path>, creation: Creation) -> Result<u64> {
    let failed = |operation| move |source| Error::io(operation, path, source);
    let directory = own_directory(path, creation).map_err(failed(Operation::Create))?;
    let mut _alone = None;
    if !sys::RENAMES_COMPARE_NAMES {
        let lock = LockFile::open(&path.join(ALONE), creation)?;
        _alone = Some(lock.lock(Mode::Exclusive)?);
    }
    let at = |token: u64| directory.path().join(token.to_string());
    let mut retries = Retries::new();
    // A reading of the directory may miss a file that is renamed meanwhile.
    let mut readings_without = 0;
    while retries.again() {
        let found = list(&directory).map_err(failed(Operation::List))?;
        let Some(latest) = found.iter().copied().max() else {
            readings_without += 1;
            if readings_without < 16 {
                continue;
            }
            match sys::create_new(&at(0), creation.bits()) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(failed(Operation::Create)(error));
                }
                // The token is not taken from it before the directory is read again: another
                // process may have created and renamed it.
                _ => continue,
            }
        };
        let Some(next) = latest.checked_add(1) else {
            let hint = "remove the directory while no process uses the lock";
            return Err(Error::corrupt(path, "its number cannot grow", hint));
        };
        match sys::rename_new(&at(latest), &at(next)) {
            Ok(()) => {
                for left in found.into_iter().filter(|token| *token < latest) {
                    let _ = std::fs::remove_file(at(left));
                }
                sync(&directory, path)?;
                return Ok(next);
            }
            // Another process has taken this token.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists
                ) || sys::is_stale(&error) => {}
            Err(error) => return Err(failed(Operation::Write)(error)),
        }
    }
    Err(failed(Operation::Write)(io::Error::other("other processes change it all the time")))
}

/// The latest token in the directory at `path`, if there is one.
pub(crate) fn latest(path: &Path) -> Option<u64> {
    list(&Directory::open(path).ok()?).ok()?.into_iter().max()
}

/// Syncs the name of the token, so that a crash of the machine does not bring an earlier one back.
fn sync(directory: &Directory, path: &Arc<Path>) -> Result<()> {
    let synced = sys::sync_directory(directory.path());
    let synced = synced.and_then(|_| path.parent().map_or(Ok(false), sys::sync_directory));
    synced.map(drop).map_err(|source| Error::io(Operation::Sync, path, source))
}

/// The tokens that the directory names. Other names are ignored.
fn list(directory: &Directory) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in sys::read_dir(directory.path())? {
        let name = entry?.file_name();
        let token = name.to_str().and_then(|name| name.parse().ok());
        found.extend(token.filter(|token: &u64| name == *token.to_string()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Access;

    #[test]
    fn a_token_is_one_higher_than_the_latest() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let path = beside(&dir.path().join("a.lock"));
        let take = || take(&path, Creation::from(Access::default()));
        assert_eq!(latest(&path), None);
        assert_eq!([take().unwrap(), take().unwrap(), take().unwrap()], [1, 2, 3]);
        assert_eq!(latest(&path), Some(3));
        // What a killed process or another program left does not count.
        for name in ["1", "2", "03", "x", "+9", "99999999999999999999"] {
            std::fs::write(path.join(name), "").unwrap();
        }
        assert_eq!(take().unwrap(), 4);
        assert!(!path.join("1").exists() && path.join("03").exists());
        std::fs::rename(path.join("4"), path.join(u64::MAX.to_string())).unwrap();
        assert_eq!(take().unwrap_err().kind(), crate::ErrorKind::Corrupt);
    }

    #[test]
    fn no_two_threads_take_the_same_token() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let path = within(dir.path());
        let take = || take(&path, Creation::from(Access::default())).unwrap();
        let mut tokens: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..25).map(|_| take()).collect::<Vec<_>>()))
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        tokens.sort_unstable();
        assert_eq!(tokens, (1..=100).collect::<Vec<_>>());
    }
}
