//! One lockable file: locked, checked by rule 2, kept open between acquisitions by rule 6, released
//! by rule 4. Nothing here knows time.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::access::Access;
use crate::error::{Error, Operation, Result};
use crate::file::open::{OpenFile, Purpose, open};
use crate::fork_safe::{ForkSafe, MutexGuard};
use crate::paths::absolute;
use crate::sys::{self, FileId, Mode, Retries};

/// A file that can be locked, named by its path.
#[derive(Debug)]
pub(crate) struct LockFile {
    path: Arc<Path>,
    /// The name that all waiters of this process have for it.
    common_name: Arc<Path>,
    /// A second name (a hard link) from which the file is restored, for a file that must not be
    /// created again while another process may hold the old one (rule S2).
    spare: Option<Box<Path>>,
    access: Access,
    purpose: Purpose,
    network: bool,
    /// Which file it was when it was opened.
    opened: FileId,
    files: ForkSafe<Files>,
}

/// The descriptors of a lock file that are not in a guard. An acquisition takes one out for itself:
/// two guards never share an open file description, since one's release would free the other's lock
/// (flock(2) does not count), and on Windows a second call would hang behind a blocked one.
#[derive(Debug)]
struct Files {
    /// At most one is kept.
    idle: Option<OpenFile>,
    /// How many descriptors blocked helpers have. Meanwhile none is kept here, so that a handle
    /// costs one descriptor, however many waits have given up.
    borrowed: usize,
    /// The file that the path named when this process last checked it.
    latest: Option<FileId>,
}

impl Files {
    /// A process that was forked has none of the other's descriptors, nor of its helpers.
    const NONE: Self = Self { idle: None, borrowed: 0, latest: None };

    /// Keeps a descriptor where none is kept yet.
    fn return_file(mut this: MutexGuard<'_, Self>, open: OpenFile) {
        if this.idle.is_none() && this.borrowed == 0 {
            this.idle = Some(open);
            return;
        }
        drop(this); // closing a file can take a while
        drop(open);
    }
}

impl LockFile {
    /// Opens the file, or creates it and its missing parent directories.
    pub(crate) fn open(path: &Path, access: Access) -> Result<Arc<Self>> {
        Self::open_for(path, None, access, Purpose::Locking)
    }

    /// The same, but the closing of the file is an event in its directory, and the file also gets
    /// the name `spare`. If `path` is missing, or names another file, it is made to name the
    /// spare's again.
    pub(crate) fn open_kept(
        path: &Path,
        spare: Option<Box<Path>>,
        access: Access,
    ) -> Result<Arc<Self>> {
        Self::open_for(path, spare, access, Purpose::Writing)
    }

    fn open_for(
        path: &Path,
        spare: Option<Box<Path>>,
        access: Access,
        purpose: Purpose,
    ) -> Result<Arc<Self>> {
        let path = absolute(path)?;
        let file = open(&path, spare.as_deref(), access, purpose)?;
        let network = sys::is_network(&path, file.file());
        let opened = file.id;
        let files = ForkSafe::new(Files { idle: Some(file), ..Files::NONE }, |()| Files::NONE);
        drop(files.lock()); // belongs to this process from now on
        let common_name = sys::common_name(&path);
        Ok(Arc::new(Self { path, common_name, spare, access, purpose, network, opened, files }))
    }

    pub(crate) fn path(&self) -> &Arc<Path> {
        &self.path
    }

    pub(crate) fn common_name(&self) -> &Arc<Path> {
        &self.common_name
    }

    pub(crate) fn access(&self) -> Access {
        self.access
    }

    /// Whether a wait in the kernel must not be trusted here: an NFS client sleeps up to 30 seconds
    /// in it.
    pub(crate) fn is_network(&self) -> bool {
        self.network
    }

    /// Which file the path was last seen to name.
    pub(crate) fn latest(&self) -> FileId {
        self.files().latest.unwrap_or(self.opened)
    }

    /// Acquires the lock if no other process or thread holds it.
    ///
    /// A refusal counts only for a file that the path still names: the open file may have been
    /// replaced since, and its lock says nothing about the lock that the path stands for.
    pub(crate) fn try_lock(self: &Arc<Self>, mode: Mode) -> Result<Option<FileLock>> {
        self.try_lock_checking(mode, || true, true)
    }

    /// The same, but a refusal is checked only if `check_refusal` returns `true`. A lock that was
    /// acquired is checked if `check_taken`, or if the file has no second name: with one, no
    /// process creates another file in its place.
    pub(crate) fn try_lock_checking(
        self: &Arc<Self>,
        mode: Mode,
        check_refusal: impl Fn() -> bool,
        check_taken: bool,
    ) -> Result<Option<FileLock>> {
        let mut retries = Retries::new();
        while retries.again() {
            // The kept descriptor stays where it is, and the mutex is held around the call, which
            // does not block: a refused try costs little more than the system call.
            let mut files = self.files();
            let mut own = None;
            if !files.idle.as_ref().is_some_and(|open| open.origin.is_here()) {
                drop(files);
                own = Some(self.take_file()?);
                files = self.files();
            }
            let Some(open) = own.as_ref().or(files.idle.as_ref()) else { continue };
            let id = open.id;
            match sys::try_lock(open.file(), mode) {
                Ok(true) => {
                    let Some(open) = own.or_else(|| files.idle.take()) else { continue };
                    drop(files);
                    let needs_no_check = open.is_kept && !check_taken;
                    let locked = self.file_lock(open);
                    if needs_no_check || self.still_names(id)? {
                        return Ok(Some(locked));
                    }
                    locked.discard();
                }
                Ok(false) => {
                    if check_refusal() {
                        drop(files);
                        let refused = self.still_names(id)?;
                        files = self.files();
                        if !refused {
                            files.idle.take_if(|open| open.id == id);
                            continue;
                        }
                        files.latest = Some(id);
                    }
                    if let Some(open) = own {
                        Files::return_file(files, open);
                    }
                    return Ok(None);
                }
                Err(source) => return Err(self.lock_error(source)),
            }
        }
        Err(self.replaced_too_often())
    }

    /// Blocks in the kernel until the lock is acquired. Nothing ends this early, so it is only for
    /// callers without a deadline.
    ///
    /// No wake-up is lost: the kernel queues the caller, and grants it the lock when the holder
    /// releases it or dies. If the file is replaced meanwhile, the caller learns that when the old
    /// file's holder releases it, and queues again at the new file (rule 2).
    pub(crate) fn lock(self: &Arc<Self>, mode: Mode) -> Result<FileLock> {
        let mut retries = Retries::new();
        while retries.again() {
            let open = self.take_file()?;
            // The kept descriptor may be of a file that was replaced, and whose holder may hold it
            // for ever.
            if !self.still_names(open.id)? {
                continue;
            }
            let locked = self.block(mode, open)?;
            if self.is_valid(&locked)? {
                return Ok(locked);
            }
            locked.discard();
        }
        Err(self.replaced_too_often())
    }

    /// What a helper thread blocks for, which waits for one file. `None` if the path names another
    /// file. The waiter that is granted the lock checks it by [`is_valid`](Self::is_valid).
    pub(crate) fn request(
        self: &Arc<Self>,
        id: FileId,
        mode: Mode,
    ) -> Result<Option<BlockingLock>> {
        let borrowed = BorrowedFile::new(self);
        let open = self.take_file()?;
        if open.id != id {
            return Ok(None);
        }
        Ok(Some(BlockingLock { open: Some(open), mode, borrowed }))
    }

    /// Whether it could be acquired at this moment. Holds it for half a microsecond.
    pub(crate) fn is_free(&self, mode: Mode) -> Result<bool> {
        let open = self.take_file()?;
        let is_free = sys::try_lock(open.file(), mode).map_err(|source| self.lock_error(source))?;
        if is_free {
            sys::unlock(open.file())
                .map_err(|source| Error::io(Operation::Unlock, &self.path, source))?;
        }
        Files::return_file(self.files(), open);
        Ok(is_free)
    }

    /// Whether all its holders are known, and were stopped (SIGSTOP).
    pub(crate) fn has_stopped_holder(&self) -> bool {
        let owners = sys::lock_owners(&[self.latest()], false).unwrap_or_default();
        !owners.is_empty() && owners.iter().all(|owner| sys::is_stopped(owner.listed))
    }

    fn block(self: &Arc<Self>, mode: Mode, open: OpenFile) -> Result<FileLock> {
        sys::lock(open.file(), mode).map_err(|source| self.lock_error(source))?;
        Ok(self.file_lock(open))
    }

    fn file_lock(self: &Arc<Self>, open: OpenFile) -> FileLock {
        FileLock {
            file: Arc::clone(self),
            open: Some(open),
            is_inherited: false,
            is_unlocked: false,
        }
    }

    /// Rule 2: whether the path still names the file that is locked.
    pub(crate) fn is_valid(&self, locked: &FileLock) -> Result<bool> {
        self.still_names(locked.id())
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        // No code panics between two changes of it, so a panicking thread leaves it whole.
        self.files.lock()
    }

    /// The kept descriptor, or a new one. One that came through a fork is closed and not used: its
    /// lock would be shared with the other process.
    fn take_file(&self) -> Result<OpenFile> {
        let idle = {
            let mut files = self.files();
            files.idle.take()
        };
        match idle {
            Some(open) if open.origin.is_here() => Ok(open),
            other => {
                drop(other);
                // On a network file system a lock needs a descriptor that may write.
                let purpose = if self.network { Purpose::Writing } else { self.purpose };
                let open = open(&self.path, self.spare.as_deref(), self.access, purpose)?;
                self.files().latest = Some(open.id);
                Ok(open)
            }
        }
    }

    /// Rule 2: whether the path still names that file.
    pub(crate) fn still_names(&self, id: FileId) -> Result<bool> {
        sys::names(&self.path, id)
            .map_err(|source| Error::io(Operation::LookUp, &self.path, source))
    }

    fn lock_error(&self, source: io::Error) -> Error {
        if sys::locks_unsupported(&source) {
            return Error::unsupported(&self.path, source);
        }
        Error::io(Operation::Lock, &self.path, source)
    }

    fn replaced_too_often(&self) -> Error {
        let source = io::Error::other(
            "the file was replaced each time between opening and locking it: \
             let no program remove or replace it",
        );
        Error::io(Operation::Lock, &self.path, source)
    }
}

/// Counts a descriptor as borrowed for as long as a helper is blocked on it.
#[derive(Debug)]
struct BorrowedFile(Arc<LockFile>);

impl BorrowedFile {
    fn new(file: &Arc<LockFile>) -> Self {
        file.files().borrowed += 1;
        Self(Arc::clone(file))
    }
}

impl Drop for BorrowedFile {
    fn drop(&mut self) {
        let mut files = self.0.files();
        files.borrowed = files.borrowed.saturating_sub(1);
    }
}

/// A lock that a helper thread waits for.
#[derive(Debug)]
pub(crate) struct BlockingLock {
    /// Taken out when it is granted.
    open: Option<OpenFile>,
    mode: Mode,
    borrowed: BorrowedFile,
}

impl BlockingLock {
    fn file(&self) -> &File {
        self.open.as_ref().expect("only a grant takes it, and that consumes `self`").file()
    }

    /// Blocks in the kernel until it is granted.
    pub(crate) fn block(&self) -> Result<()> {
        sys::lock(self.file(), self.mode).map_err(|source| self.borrowed.0.lock_error(source))
    }

    /// Whether it has been granted, or can be at this moment: of the same open file, so a lock that
    /// it has already is no obstacle (Q7).
    pub(crate) fn is_granted(&self) -> bool {
        sys::try_lock_again(self.file(), self.mode).unwrap_or(false)
    }

    pub(crate) fn granted(mut self) -> FileLock {
        let open = self.open.take().expect("only this takes it");
        self.borrowed.0.file_lock(open)
    }
}

impl Drop for BlockingLock {
    /// A try may have acquired it through the request although the helper did not. A close alone
    /// would leave the lock with a child that was forked meanwhile (rule 4).
    fn drop(&mut self) {
        if let Some(open) = self.open.take().filter(|open| open.origin.is_here()) {
            let _ = sys::unlock(open.file());
        }
    }
}

/// A held lock. Dropping it releases it, in the process that acquired it and in no other.
#[derive(Debug)]
pub(crate) struct FileLock {
    file: Arc<LockFile>,
    /// Taken out when released.
    open: Option<OpenFile>,
    /// Programs that were started meanwhile may hold it as well.
    is_inherited: bool,
    /// It was unlocked, and the descriptor is still to be kept or closed.
    is_unlocked: bool,
}

impl FileLock {
    /// Which file it is.
    pub(crate) fn id(&self) -> FileId {
        self.open().id
    }

    fn open(&self) -> &OpenFile {
        self.open.as_ref().expect("only a release takes it, and that consumes `self`")
    }

    /// Whether it is this process's, and not a copy that `fork` made.
    pub(crate) fn is_here(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.origin.is_here())
    }

    /// From exclusive to shared, without releasing it in between (rule R4). Not for a forked copy.
    /// `None`: another process acquired it in between after all. Then, and after an error, nothing
    /// is held.
    pub(crate) fn share(self) -> Result<Option<Self>> {
        let failed = |source| Error::io(Operation::Downgrade, &self.file.path, source);
        let is_shared = sys::downgrade(self.open().file()).map_err(failed)?;
        Ok(is_shared.then_some(self))
    }

    /// From now on the programs that this process starts hold it as well, and a release leaves it
    /// to them (rule 4).
    pub(crate) fn make_inheritable(&mut self) -> Result<()> {
        let failed = |source| Error::io(Operation::Inherit, &self.file.path, source);
        sys::make_inheritable(self.open().file()).map_err(failed)?;
        self.is_inherited = true;
        Ok(())
    }

    /// Unlocks, and keeps the descriptor for the next time where none is kept yet.
    pub(crate) fn release(mut self) -> Result<()> {
        self.unlock()
    }

    /// Unlocks and does nothing else, for a caller that must not be delayed. Not for a lock that
    /// other programs have inherited.
    pub(crate) fn unlock_in_place(&mut self) {
        let open = self.open.as_ref().filter(|open| open.origin.is_here());
        self.is_unlocked = open.is_some_and(|open| sys::unlock(open.file()).is_ok());
    }

    /// Unlocks, and closes: the path names another file.
    fn discard(mut self) {
        if let Some(open) = self.open.take().filter(|open| open.origin.is_here()) {
            let _ = sys::unlock(open.file());
        }
    }

    fn unlock(&mut self) -> Result<()> {
        // A forked copy shares the lock with the process that acquired it, and only closes (rule
        // 4).
        let Some(open) = self.open.take().filter(|open| open.origin.is_here()) else {
            return Ok(());
        };
        if self.is_inherited {
            return Ok(()); // closed: the kernel drops the lock when no process has it open any more
        }
        // Unlock, then close or keep: a close alone leaves the lock with any child that was forked
        // meanwhile and has not reached its exec yet. Should unlocking fail, the file is closed.
        if !self.is_unlocked {
            sys::unlock(open.file())
                .map_err(|source| Error::io(Operation::Unlock, &self.file.path, source))?;
        }
        Files::return_file(self.file.files(), open);
        Ok(())
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        let _ = self.unlock();
    }
}
