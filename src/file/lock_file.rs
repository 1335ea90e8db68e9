//! One lock file. It is locked and checked (rule 2), kept open between acquisitions (rule 6) and
//! released (rule 4). Nothing here waits with a deadline.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::access::{Access, Creation};
use crate::error::{Error, Operation, Result};
use crate::file::open::{OpenFile, Purpose, Spares, open, open_beside};
use crate::fork_safe::{ForkSafe, MutexGuard};
use crate::host_directory::host_directory;
use crate::paths::absolute;
use crate::sys::{self, FileId, HeldFifo, Mode, RemoteLocks, Retries};

/// A file that can be locked, named by its path.
#[derive(Debug)]
pub(crate) struct LockFile {
    path: Arc<Path>,
    /// The name by which all waiters of this process refer to it.
    common_name: Arc<Path>,
    /// A second name (a hard link) from which the file is restored. It is for a file that must not
    /// be created again while another process may hold the old one (rule S2).
    spare: Option<Box<Path>>,
    creation: Creation,
    purpose: Purpose,
    network: bool,
    /// Whether a request that is blocked in the kernel is granted soon after the release.
    are_grants_prompt: bool,
    is_one_blocked: bool,
    /// Whether it is still to be checked that the file system forwards the lock to its server.
    is_unchecked: AtomicBool,
    /// The identity of the file when it was opened.
    opened: FileId,
    files: ForkSafe<Files>,
}

/// The descriptors of a lock file that are not in a guard. An acquisition takes one out for itself.
/// Two guards never share an open file description: the release of one would free the other's lock,
/// since flock(2) does not count, and on Windows a second call would hang behind a blocked one.
#[derive(Debug)]
struct Files {
    /// At most one descriptor is kept.
    idle: Option<OpenFile>,
    /// How many descriptors blocked helpers have. While there are any, none is kept here, so that a
    /// handle costs one descriptor, however many waits have given up.
    borrowed: usize,
    /// The file that the path named when this process last checked it.
    latest: Option<FileId>,
    /// The right to be blocked in the kernel, for the next helper.
    blocking: Option<FileLock>,
}

impl Files {
    /// A forked process starts without descriptors and helpers of its parent.
    const NONE: Self = Self { idle: None, borrowed: 0, latest: None, blocking: None };

    /// Keeps the descriptor if none is kept yet, and closes it otherwise. On a network file system
    /// one is kept also beside those of helpers, since each waiter tries once a second.
    fn return_file(mut this: MutexGuard<'_, Self>, open: OpenFile, is_network: bool) {
        if this.idle.is_none() && (is_network || this.borrowed == 0) {
            this.idle = Some(open);
            return;
        }
        drop(this); // closing a file can take a while
        drop(open);
    }
}

/// What a caller that opens many files of one directory need not find out for each of them.
#[derive(Default)]
pub(crate) struct Siblings {
    spares: Spares,
    is_network: Option<bool>,
}

impl LockFile {
    /// Opens the file, or creates it and its missing parent directories if that is allowed.
    pub(crate) fn open(path: &Path, creation: impl Into<Creation>) -> Result<Arc<Self>> {
        let siblings = &mut Siblings::default();
        Self::open_for(absolute(path)?, None, siblings, creation.into(), Purpose::Locking)
    }

    /// Like [`open`](Self::open), but closing the file is an event in its directory.
    pub(crate) fn open_noticed(path: &Path, creation: Creation) -> Result<Arc<Self>> {
        let siblings = &mut Siblings::default();
        Self::open_for(absolute(path)?, None, siblings, creation, Purpose::Writing)
    }

    /// Like [`open_noticed`](Self::open_noticed), but the file also gets the name `spare`. If
    /// `path`, which is absolute, is missing or names another file, it is made to name the file at
    /// `spare` again.
    pub(crate) fn open_kept(
        path: Arc<Path>,
        spare: Box<Path>,
        siblings: &mut Siblings,
        creation: Creation,
    ) -> Result<Arc<Self>> {
        Self::open_for(path, Some(spare), siblings, creation, Purpose::Writing)
    }

    fn open_for(
        path: Arc<Path>,
        spare: Option<Box<Path>>,
        siblings: &mut Siblings,
        creation: Creation,
        purpose: Purpose,
    ) -> Result<Arc<Self>> {
        let file = open_beside(&path, spare.as_deref(), &mut siblings.spares, creation, purpose)?;
        let is_network = &mut siblings.is_network;
        let network = *is_network.get_or_insert_with(|| sys::is_network(&path, file.file()));
        // Once for each handle: a mount that excludes no other host is refused (rule 9).
        let remote = if network {
            sys::check_mount(file.file()).map_err(|source| unshared(&path, source))?
        } else {
            RemoteLocks::default()
        };
        let is_unchecked = AtomicBool::new(remote.is_unchecked);
        let opened = file.id;
        let files = ForkSafe::new(Files { idle: Some(file), ..Files::NONE }, |()| Files::NONE);
        drop(files.lock()); // belongs to this process from now on
        let common_name = sys::common_name(&path);
        Ok(Arc::new(Self {
            path,
            common_name,
            spare,
            creation,
            purpose,
            network,
            are_grants_prompt: !network || remote.are_prompt,
            is_one_blocked: remote.is_one_blocked,
            is_unchecked,
            opened,
            files,
        }))
    }

    pub(crate) fn path(&self) -> &Arc<Path> {
        &self.path
    }

    pub(crate) fn common_name(&self) -> &Arc<Path> {
        &self.common_name
    }

    pub(crate) fn access(&self) -> Access {
        self.creation.access
    }

    /// The options with which files are created beside the locked file.
    pub(crate) fn creation(&self) -> Creation {
        self.creation
    }

    pub(crate) fn is_network(&self) -> bool {
        self.network
    }

    /// Whether a request that is blocked in the kernel is granted soon after the release. An NFS
    /// client may sleep for up to 30 seconds in it.
    pub(crate) fn are_grants_prompt(&self) -> bool {
        self.are_grants_prompt
    }

    /// Whether a helper may block in the kernel now. If only one process of this host may, this one
    /// keeps the right to do so until the next request ends (rule 18).
    pub(crate) fn may_block(&self) -> bool {
        if !self.is_one_blocked {
            return self.are_grants_prompt;
        }
        let lock = || {
            let path = host_directory()?.join("blocked.lock");
            let file = Self::open(&path, Access::Private).ok()?;
            file.try_lock(Mode::Exclusive).ok()?
        };
        let has_right = self.files().blocking.is_some();
        if has_right {
            return true;
        }
        let right = lock();
        let has_right = right.is_some();
        self.files().blocking = right;
        has_right
    }

    /// The file that the path named when that was last checked.
    pub(crate) fn latest(&self) -> FileId {
        self.files().latest.unwrap_or(self.opened)
    }

    /// Acquires the lock if no other process or thread holds it.
    ///
    /// A failed try counts only for a file that the path still names: the open file may have been
    /// replaced, and then its lock is a different one (rule 2).
    pub(crate) fn try_lock(self: &Arc<Self>, mode: Mode) -> Result<Option<FileLock>> {
        self.try_lock_checking(mode, || true, true)
    }

    /// Like [`try_lock`](Self::try_lock), but after a failed try the path is checked only if
    /// `check_refusal` returns `true`. An acquired lock is checked if `check_taken`, or if the file
    /// has no second name: with one, no process creates another file in its place.
    pub(crate) fn try_lock_checking(
        self: &Arc<Self>,
        mode: Mode,
        check_refusal: impl Fn() -> bool,
        check_taken: bool,
    ) -> Result<Option<FileLock>> {
        let mut retries = Retries::new();
        while retries.again() {
            // The kept descriptor stays in place, and the mutex is held during the call, which does
            // not block. So a failed try costs little more than the system call.
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
                    self.check_forwarded(&locked)?;
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
                        Files::return_file(files, open, self.network);
                    }
                    return Ok(None);
                }
                Err(source) => return Err(self.lock_error(source)),
            }
        }
        Err(self.replaced_too_often())
    }

    /// Blocks in the kernel until the lock is acquired. Nothing can end this early, so it is only
    /// for callers without a deadline.
    ///
    /// No wake-up is lost: the kernel queues the caller, and grants it the lock when the holder
    /// releases it or dies. If the file is replaced during the wait, the caller notices when the
    /// holder of the old file releases it, and queues again for the new file (rule 2).
    pub(crate) fn lock(self: &Arc<Self>, mode: Mode) -> Result<FileLock> {
        let mut retries = Retries::new();
        while retries.again() {
            let open = self.take_file()?;
            // The kept descriptor may be of a file that was replaced and that its holder may never
            // release.
            if !self.still_names(open.id)? {
                continue;
            }
            let locked = self.block(mode, open)?;
            self.check_forwarded(&locked)?;
            if self.is_valid(&locked)? {
                return Ok(locked);
            }
            locked.discard();
        }
        Err(self.replaced_too_often())
    }

    /// A request for which a helper thread blocks. `None` if the path no longer names the file
    /// `id`. The waiter that is granted the lock checks it with [`is_valid`](Self::is_valid).
    pub(crate) fn request(
        self: &Arc<Self>,
        id: FileId,
        mode: Mode,
    ) -> Result<Option<BlockingLock>> {
        let right = self.files().blocking.take();
        let borrowed = BorrowedFile::new(self);
        let open = self.take_file()?;
        if open.id != id {
            return Ok(None);
        }
        Ok(Some(BlockingLock { open: Some(open), mode, borrowed, _right: right }))
    }

    /// Whether the lock is free at this moment. The check holds it for half a microsecond.
    pub(crate) fn is_free(&self, mode: Mode) -> Result<bool> {
        let open = self.take_file()?;
        let is_free = sys::try_lock(open.file(), mode).map_err(|source| self.lock_error(source))?;
        if is_free {
            sys::unlock(open.file())
                .map_err(|source| Error::io(Operation::Unlock, &self.path, source))?;
        }
        Files::return_file(self.files(), open, self.network);
        Ok(is_free)
    }

    /// Whether all holders are known, and are stopped (SIGSTOP). On a network file system the
    /// holders are not known: the list of this host has only its own processes.
    pub(crate) fn has_stopped_holder(&self) -> bool {
        if self.network {
            return false;
        }
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
            signal: None,
        }
    }

    /// Fails if the file system has left the lock to the kernel of this host. This is checked once
    /// for each handle, and only where the mount table does not show it.
    pub(crate) fn check_forwarded(&self, locked: &FileLock) -> Result<()> {
        if !self.is_unchecked.load(Ordering::Relaxed) {
            return Ok(());
        }
        sys::check_forwarded(locked.open().file())
            .map_err(|source| unshared(&self.path, source))?;
        self.is_unchecked.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the path still names the locked file (rule 2).
    pub(crate) fn is_valid(&self, locked: &FileLock) -> Result<bool> {
        self.still_names(locked.id())
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        // No code panics between two changes of this state, so a thread that panics leaves it
        // consistent.
        self.files.lock()
    }

    /// Returns the kept descriptor, or a new one. A descriptor inherited by a fork is closed and
    /// not used, since its lock would be shared with the parent (rule 4).
    fn take_file(&self) -> Result<OpenFile> {
        let idle = {
            let mut files = self.files();
            files.idle.take()
        };
        match idle {
            Some(open) if open.origin.is_here() => Ok(open),
            other => {
                drop(other);
                // On a network file system a lock needs a descriptor that may write (rule 1).
                let purpose = if self.network { Purpose::Writing } else { self.purpose };
                let open = open(&self.path, self.spare.as_deref(), self.creation, purpose)?;
                self.files().latest = Some(open.id);
                Ok(open)
            }
        }
    }

    /// Whether the path still names that file (rule 2).
    pub(crate) fn still_names(&self, id: FileId) -> Result<bool> {
        sys::names(&self.path, id)
            .map_err(|source| Error::io(Operation::LookUp, &self.path, source))
    }

    /// Whether the second name is that of this file.
    fn is_spare(&self, id: FileId) -> Result<bool> {
        let Some(spare) = &self.spare else { return Ok(false) };
        sys::names(spare, id).map_err(|source| Error::io(Operation::LookUp, &self.path, source))
    }

    fn lock_error(&self, source: io::Error) -> Error {
        if sys::locks_unsupported(&source) {
            return Error::unsupported(&self.path, source);
        }
        Error::io(Operation::Lock, &self.path, source)
    }

    fn unlock_error(&self, source: io::Error) -> Error {
        if self.network && sys::means_lost(&source) {
            return Error::lost(&self.path);
        }
        Error::io(Operation::Unlock, &self.path, source)
    }

    fn replaced_too_often(&self) -> Error {
        let source = sys::explained(
            io::ErrorKind::Other,
            "another program replaced the file each time before it was locked",
            "check that no program removes or replaces it",
        );
        Error::io(Operation::Lock, &self.path, source)
    }
}

/// The error for a mount that keeps locks to this host.
fn unshared(path: &Arc<Path>, source: io::Error) -> Error {
    if source.kind() == io::ErrorKind::Unsupported {
        return Error::unsupported(path, source);
    }
    Error::io(Operation::LookUp, path, source)
}

/// Counts a descriptor as borrowed while a helper is blocked on it.
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
    /// Taken out when the lock is granted.
    open: Option<OpenFile>,
    mode: Mode,
    borrowed: BorrowedFile,
    /// The right to be blocked in the kernel, where only one process of a host may be.
    _right: Option<FileLock>,
}

impl BlockingLock {
    fn file(&self) -> &File {
        self.open.as_ref().expect("only a grant takes it, and that consumes `self`").file()
    }

    /// Blocks in the kernel until the lock is granted.
    pub(crate) fn block(&self) -> Result<()> {
        sys::lock(self.file(), self.mode).map_err(|source| self.borrowed.0.lock_error(source))
    }

    /// Whether the lock has been granted, or can be granted at this moment. The try is made on the
    /// same open file description, so a lock that this has already does not block it (Q7).
    pub(crate) fn is_granted(&self) -> bool {
        sys::try_lock_again(self.file(), self.mode).unwrap_or(false)
    }

    pub(crate) fn granted(mut self) -> FileLock {
        let open = self.open.take().expect("only this takes it");
        self.borrowed.0.file_lock(open)
    }
}

impl Drop for BlockingLock {
    /// A try may have acquired the lock through the request although the helper did not. It is
    /// unlocked here, since a close alone would leave it with any forked child (rule 4).
    fn drop(&mut self) {
        if let Some(open) = self.open.take().filter(|open| open.origin.is_here()) {
            let _ = sys::unlock(open.file());
        }
    }
}

/// A held lock. Dropping it releases the lock, only in the process that acquired it.
#[derive(Debug)]
pub(crate) struct FileLock {
    file: Arc<LockFile>,
    /// Taken out when released.
    open: Option<OpenFile>,
    /// Whether programs that were started since the acquisition may hold the lock as well.
    is_inherited: bool,
    /// Whether the file was unlocked already; the descriptor is still to be kept or closed.
    is_unlocked: bool,
    /// Closed after the lock was released, which is a signal to a waiter.
    signal: Option<HeldFifo>,
}

impl FileLock {
    /// The identity of the locked file.
    pub(crate) fn id(&self) -> FileId {
        self.open().id
    }

    /// The name by which all waiters of this process refer to the file.
    pub(crate) fn common_name(&self) -> &Arc<Path> {
        self.file.common_name()
    }

    fn open(&self) -> &OpenFile {
        self.open.as_ref().expect("only a release takes it, and that consumes `self`")
    }

    /// Whether the lock is this process's, and not a copy that `fork` made.
    pub(crate) fn is_here(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.origin.is_here())
    }

    /// Whether this is not a forked copy, the path still names the locked file (rule 2) or will be
    /// made to name it by the next process that opens it (rule S2), and the server of a network
    /// file system has not dropped the lock (rule 16).
    pub(crate) fn is_current(&self, mode: Mode) -> Result<bool> {
        let is_named =
            self.is_here() && (self.file.is_valid(self)? || self.file.is_spare(self.id())?);
        Ok(is_named && !self.is_lost(mode)?)
    }

    /// Whether the server of a network file system has dropped the lock, as far as it shows that
    /// (rule 16). Local file systems drop no locks.
    pub(crate) fn is_lost(&self, mode: Mode) -> Result<bool> {
        if !self.file.network {
            return Ok(false);
        }
        sys::has_lost_lock(&self.file.path, self.open().file(), mode)
            .map_err(|source| Error::io(Operation::CheckLock, &self.file.path, source))
    }

    pub(crate) fn is_on_network(&self) -> bool {
        self.file.network
    }

    /// Changes the lock from exclusive to shared, without releasing it in between. Not for a forked
    /// copy. `None`: another process acquired it in between after all. Then, and after an error,
    /// nothing is held (rule R4).
    pub(crate) fn share(self) -> Result<Option<Self>> {
        let failed = |source| Error::io(Operation::Downgrade, &self.file.path, source);
        let is_shared = sys::downgrade(self.open().file()).map_err(failed)?;
        Ok(is_shared.then_some(self))
    }

    /// Makes the programs that this process starts from now on inherit the lock, and a release
    /// leaves it to them (rule 4).
    pub(crate) fn make_inheritable(&mut self) -> Result<()> {
        let failed = |source| Error::io(Operation::Inherit, &self.file.path, source);
        sys::make_inheritable(self.open().file()).map_err(failed)?;
        self.is_inherited = true;
        if let Some(signal) = &self.signal {
            signal.make_inheritable().map_err(failed)?;
        }
        Ok(())
    }

    /// Unlocks, and keeps the descriptor for the next acquisition if none is kept yet.
    pub(crate) fn release(mut self) -> Result<()> {
        self.unlock()
    }

    pub(crate) fn has_signal(&self) -> bool {
        self.signal.is_some()
    }

    pub(crate) fn attach_signal(&mut self, signal: HeldFifo) {
        self.signal = Some(signal);
    }

    /// The same as [`release`](Self::release), and returns what is closed after that as a signal.
    pub(crate) fn release_before_signal(mut self) -> (Option<HeldFifo>, Result<()>) {
        let released = self.unlock();
        (self.signal.take(), released)
    }

    pub(crate) fn is_inherited(&self) -> bool {
        self.is_inherited
    }

    /// Unlocks and does nothing else, for a caller that must not be delayed. Not for a lock that
    /// other programs have inherited.
    pub(crate) fn unlock_in_place(&mut self) {
        let open = self.open.as_ref().filter(|open| open.origin.is_here());
        self.is_unlocked = open.is_some_and(|open| sys::unlock(open.file()).is_ok());
    }

    /// Unlocks and closes, since the path names another file.
    fn discard(mut self) {
        if let Some(open) = self.open.take().filter(|open| open.origin.is_here()) {
            let _ = sys::unlock(open.file());
        }
    }

    fn unlock(&mut self) -> Result<()> {
        // A forked copy shares the lock with the process that acquired it, so it only closes
        // (rule 4).
        let Some(open) = self.open.take().filter(|open| open.origin.is_here()) else {
            return Ok(());
        };
        if self.is_inherited {
            return Ok(()); // closed: the kernel drops the lock when no process has the file open
        }
        // Unlock before closing or keeping: a close alone leaves the lock with any child that was
        // forked while it was held and has not yet called exec. If unlocking fails, the file is
        // closed (rule 4).
        if !self.is_unlocked {
            sys::unlock(open.file()).map_err(|source| self.file.unlock_error(source))?;
        }
        Files::return_file(self.file.files(), open, self.file.network);
        Ok(())
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        let _ = self.unlock();
    }
}
