//! One lockable file: opened by rule 1, locked, checked by rule 2, kept open between acquisitions
//! by rule 6, released by rule 4. Knows files and knows no time.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::access::Access;
use crate::error::{Error, Result};
use crate::fork_safe::{ForkSafe, MutexGuard};
use crate::paths::{absolute, create_parents};
use crate::sys::{self, Directory, FileId, Mode, Origin, Retries};

/// A file that can be locked, named by its path.
#[derive(Debug)]
pub(crate) struct LockFile {
    path: Arc<Path>,
    /// By which those who wait for it in this process know each other.
    common_name: Arc<Path>,
    /// A second name (a hard link) that the file is given, to be restored from: for a file that must not
    /// be made anew while somebody may hold the old one (rule S2).
    spare: Option<Box<Path>>,
    access: Access,
    purpose: Purpose,
    network: bool,
    /// Which file it was when it was opened.
    opened: FileId,
    files: ForkSafe<Files>,
}

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Locking,
    /// To be written to; or, on Linux, so that its closing is an event: inotify has two kinds of close, and
    /// notify 8.2 asks for that of a descriptor that may write (inotify.rs, `add_single_watch`). The head of a
    /// semaphore learns of the death of a holder by it (rule S7).
    Writing,
}

impl Purpose {
    fn open(self, path: &Path) -> io::Result<File> {
        match self {
            Self::Locking => sys::open_to_lock(path),
            Self::Writing => sys::open_existing(path),
        }
    }

    fn create(self, path: &Path, access: Access) -> io::Result<File> {
        match self {
            Self::Locking => sys::create_to_lock(path, access.bits()),
            Self::Writing => sys::create_new(path, access.bits()),
        }
    }
}

/// The descriptors of a slot that are not in a guard. An acquisition takes one out and has it to
/// itself: two guards never share an open file description, or one's release would free the other's
/// lock (flock(2) does not count), and on Windows a second call would hang behind a blocked one.
#[derive(Debug)]
struct Files {
    /// At most one is kept.
    idle: Option<OpenFile>,
    /// How many a waiting helper has. While it is blocked no other is kept in its place, so that a
    /// handle costs one descriptor, however often somebody gave up waiting.
    lent: usize,
    /// What the path was last seen to name by this process, if it has looked.
    latest: Option<FileId>,
}

#[derive(Debug)]
struct OpenFile {
    /// Taken out when it is closed.
    file: Option<File>,
    id: FileId,
    /// It has its second name.
    is_kept: bool,
    origin: Origin,
}

const OPEN: &str = "only closing takes it, and that is the end";

impl OpenFile {
    fn file(&self) -> &File {
        self.file.as_ref().expect(OPEN)
    }
}

impl Drop for OpenFile {
    /// Rule 4. `fork` copies the table of descriptors first and the memory later (`copy_process` in `kernel/fork.c`), so in a
    /// copy what another thread opened in between has a number that is nobody's, or by now somebody else's: that is not to
    /// be closed.
    fn drop(&mut self) {
        if self.origin.is_here() {
            return;
        }
        if let Some(file) = self.file.take() {
            if !sys::identity(&file).is_ok_and(|id| id == self.id) {
                std::mem::forget(file);
            }
        }
    }
}

impl Files {
    /// A process that was forked has none of the other's descriptors, nor of its helpers.
    const NONE: Self = Self { idle: None, lent: 0, latest: None };

    /// Keeps a descriptor where none is kept yet.
    fn keep(mut this: MutexGuard<'_, Self>, open: OpenFile) {
        if this.idle.is_none() && this.lent == 0 {
            this.idle = Some(open);
            return;
        }
        drop(this); // closing a file can take a while
        drop(open);
    }
}

impl LockFile {
    /// Opens the file, or makes it (and its missing parent directories).
    pub(crate) fn open(path: &Path, access: Access) -> Result<Arc<Self>> {
        Self::open_for(path, None, access, Purpose::Locking)
    }

    /// The same, but the closing of the file is an event in its directory, and it also gets the name `spare`. If
    /// `path` is missing, or names another file, it is made to name that one again.
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
        drop(files.lock()); // it is this process's from now on
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

    /// Whether a wait in the kernel must not be trusted here: an NFS client sleeps up to 30 seconds in
    /// it (design, section 3).
    pub(crate) fn is_network(&self) -> bool {
        self.network
    }

    /// Which file the path was last seen to name.
    pub(crate) fn latest(&self) -> FileId {
        self.files().latest.unwrap_or(self.opened)
    }

    /// Takes the lock if nobody is in the way.
    ///
    /// A refusal is only believed of a file that the path still names: the one that we have open may
    /// have been replaced since, and its lock says nothing about the lock that the path stands for.
    pub(crate) fn try_take(self: &Arc<Self>, mode: Mode) -> Result<Option<FileLock>> {
        self.try_take_checking(mode, || true, true)
    }

    /// The same, but a refusal is believed unchecked where `check_refusal` says so. A lock that is *taken* is
    /// checked without `check_taken` as well, unless the file is kept by a second name: then nobody makes
    /// another in its place.
    pub(crate) fn try_take_checking(
        self: &Arc<Self>,
        mode: Mode,
        check_refusal: impl Fn() -> bool,
        check_taken: bool,
    ) -> Result<Option<FileLock>> {
        let mut retries = Retries::new();
        while retries.again() {
            // The kept descriptor stays where it is, and the mutex is held around the call, which does
            // not block: a refused try costs little more than the system call.
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
                    let is_sure = open.is_kept && !check_taken;
                    let locked = self.locked(open);
                    if is_sure || self.still_names(id)? {
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
                        Files::keep(files, open);
                    }
                    return Ok(None);
                }
                Err(source) => return Err(self.lock_error(source)),
            }
        }
        Err(self.replaced_too_often())
    }

    /// Blocks in the kernel until the lock is had. Nothing ends this early, so only a caller without a
    /// deadline may come here.
    ///
    /// No wake-up is lost: the kernel queues us, and a holder that lets go or dies grants it on. When
    /// the file is replaced while we wait, we learn it when the old file's holder lets go, and queue
    /// again at the new file (rule 2).
    pub(crate) fn take(self: &Arc<Self>, mode: Mode) -> Result<FileLock> {
        let mut retries = Retries::new();
        while retries.again() {
            let open = self.take_file()?;
            // The kept descriptor may be one of a file that was replaced long ago, and whose holder may
            // hold it for ever.
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

    /// For a helper thread, which waits for one file: what it blocks for. `None` if the path names
    /// another file. Whoever gets the lock from the helper checks it by [`is_valid`](Self::is_valid).
    pub(crate) fn request(
        self: &Arc<Self>,
        id: FileId,
        mode: Mode,
    ) -> Result<Option<BlockingLock>> {
        let lent = Lent::new(self);
        let open = self.take_file()?;
        if open.id != id {
            return Ok(None);
        }
        Ok(Some(BlockingLock { open: Some(open), mode, lent }))
    }

    /// Whether it could be taken at this moment; takes it for half a microsecond.
    pub(crate) fn is_free(&self, mode: Mode) -> Result<bool> {
        let open = self.take_file()?;
        let is_free = sys::try_lock(open.file(), mode).map_err(|source| self.lock_error(source))?;
        if is_free {
            sys::unlock(open.file()).map_err(|source| Error::io("unlock", &self.path, source))?;
        }
        Files::keep(self.files(), open);
        Ok(is_free)
    }

    /// Whether all who hold it are known, and were stopped (SIGSTOP).
    pub(crate) fn has_stopped_holder(&self) -> bool {
        let owners = sys::lock_owners(&[self.latest()], false).unwrap_or_default();
        !owners.is_empty() && owners.iter().all(|owner| sys::is_stopped(owner.listed))
    }

    fn block(self: &Arc<Self>, mode: Mode, open: OpenFile) -> Result<FileLock> {
        sys::lock(open.file(), mode).map_err(|source| self.lock_error(source))?;
        Ok(self.locked(open))
    }

    fn locked(self: &Arc<Self>, open: OpenFile) -> FileLock {
        FileLock {
            slot: Arc::clone(self),
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
        // Nothing in here panics half-way, so what a panicking thread left is whole.
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
                // Without asking whether that is needed: it is known by now.
                let purpose = if self.network { Purpose::Writing } else { self.purpose };
                let open = open(&self.path, self.spare.as_deref(), self.access, purpose)?;
                self.files().latest = Some(open.id);
                Ok(open)
            }
        }
    }

    /// Rule 2: whether the path still names that file.
    pub(crate) fn still_names(&self, id: FileId) -> Result<bool> {
        sys::names(&self.path, id).map_err(|source| Error::io("look up", &self.path, source))
    }

    fn lock_error(&self, source: io::Error) -> Error {
        if sys::locks_unsupported(&source) {
            return Error::Unsupported { path: Arc::clone(&self.path), source };
        }
        Error::io("lock", &self.path, source)
    }

    fn replaced_too_often(&self) -> Error {
        let source = io::Error::other(
            "the file was replaced each time between opening and locking it: \
             let no program remove or replace it",
        );
        Error::io("lock", &self.path, source)
    }
}

/// Counts a descriptor as lent for as long as a helper is blocked on it.
#[derive(Debug)]
struct Lent(Arc<LockFile>);

impl Lent {
    fn new(slot: &Arc<LockFile>) -> Self {
        slot.files().lent += 1;
        Self(Arc::clone(slot))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut files = self.0.files();
        files.lent = files.lent.saturating_sub(1);
    }
}

/// A lock that a helper thread waits for.
#[derive(Debug)]
pub(crate) struct BlockingLock {
    /// Taken out when it is granted.
    open: Option<OpenFile>,
    mode: Mode,
    lent: Lent,
}

impl BlockingLock {
    fn file(&self) -> &File {
        self.open.as_ref().expect("only a grant takes it, and that consumes `self`").file()
    }

    /// Blocks in the kernel until it is granted.
    pub(crate) fn block(&self) -> Result<()> {
        sys::lock(self.file(), self.mode).map_err(|source| self.lent.0.lock_error(source))
    }

    /// Whether it has been granted, or can be at this moment. For the same open file, so a lock that it
    /// has already is no obstacle (Q7).
    pub(crate) fn is_granted(&self) -> bool {
        sys::try_lock_again(self.file(), self.mode).unwrap_or(false)
    }

    pub(crate) fn granted(mut self) -> FileLock {
        let slot = &self.lent.0;
        slot.locked(self.open.take().expect("only this takes it"))
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

/// A lock that is held: released when dropped, in the process that took it and in no other.
#[derive(Debug)]
pub(crate) struct FileLock {
    slot: Arc<LockFile>,
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

    /// Rule R4. From exclusive to shared, with nobody in between; not for a forked copy. `None`: somebody was in between after all. Then,
    /// and after an error, nothing is held.
    pub(crate) fn share(self) -> Result<Option<Self>> {
        let failed = |source| Error::io("downgrade", &self.slot.path, source);
        let is_shared = sys::downgrade(self.open().file()).map_err(failed)?;
        Ok(is_shared.then_some(self))
    }

    /// Rule 4. From now on the programs that this process starts hold it as well, and a release leaves it to them.
    pub(crate) fn make_inheritable(&mut self) -> Result<()> {
        let failed =
            |source| Error::io("let programs that are started inherit", &self.slot.path, source);
        sys::let_inherit(self.open().file()).map_err(failed)?;
        self.is_inherited = true;
        Ok(())
    }

    /// Unlocks, and keeps the descriptor for the next time where none is kept yet.
    pub(crate) fn release(mut self) -> Result<()> {
        self.unlock()
    }

    /// Unlocks and does nothing else, for a caller that may not be kept waiting. Only for what was not
    /// inherited by other programs.
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
        // Rule 4: a forked copy shares the lock with the process that took it, and only closes.
        let Some(open) = self.open.take().filter(|open| open.origin.is_here()) else {
            return Ok(());
        };
        if self.is_inherited {
            return Ok(()); // closed: the kernel drops the lock when nobody has it open any more
        }
        // Unlock, then close or keep: a close alone leaves the lock with any child that was forked
        // meanwhile and has not reached its exec yet. Should unlocking fail, the file is closed.
        if !self.is_unlocked {
            sys::unlock(open.file())
                .map_err(|source| Error::io("unlock", &self.slot.path, source))?;
        }
        Files::keep(self.slot.files(), open);
        Ok(())
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        let _ = self.unlock();
    }
}

/// Rule 1. Looks before it opens, because opening a device or a FIFO does things to it; opens without
/// following or blocking, because what is there may have changed since; and looks again at what was
/// opened.
fn open(
    path: &Arc<Path>,
    spare: Option<&Path>,
    access: Access,
    purpose: Purpose,
) -> Result<OpenFile> {
    // Where a symbolic link has the place of their directory, a second name would be made, or found, elsewhere.
    let held = spare.and_then(Path::parent).and_then(|directory| own_directory(directory, access));
    let spare = held.as_ref().zip(spare.and_then(Path::file_name));
    let spare = spare.map(|(held, name)| held.path().join(name));
    let spare = spare.as_deref();
    let failed = |operation| move |source| Error::io(operation, path, source);
    let opened = |file: File| {
        let id = sys::identity(&file).map_err(failed("examine"))?;
        Ok(OpenFile { file: Some(file), id, is_kept: false, origin: Origin::here() })
    };
    // `None`: the path named another file than the one to be kept.
    let kept = |file: File| {
        let mut open = opened(file)?;
        let Some(spare) = spare else { return Ok(Some(open)) };
        let kept = keep(path, open.id, spare).map_err(failed("restore"))?;
        Ok(kept.map(|is_kept| {
            open.is_kept = is_kept;
            open
        }))
    };
    let mut retries = Retries::new();
    while retries.again() {
        match std::fs::symlink_metadata(path) {
            Ok(found) if found.is_file() => match purpose.open(path) {
                Ok(file) => {
                    let found = file.metadata().map_err(failed("examine"))?;
                    if !found.is_file() {
                        return Err(not_regular(path, found.file_type()));
                    }
                    if let Some(open) = kept(file)? {
                        return Ok(open);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {} // removed meanwhile
                Err(error) => match std::fs::symlink_metadata(path) {
                    // Something else took its place meanwhile; O_NOFOLLOW says ELOOP, EMLINK or EFTYPE.
                    Ok(found) if !found.is_file() => {
                        return Err(not_regular(path, found.file_type()));
                    }
                    _ => return Err(failed("open")(error)),
                },
            },
            Ok(found) => return Err(not_regular(path, found.file_type())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match spare.map(|spare| std::fs::hard_link(spare, path)) {
                    Some(Ok(())) => continue,
                    Some(Err(error)) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                    Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(failed("restore")(error));
                    }
                    _ => {} // it was never there
                }
                match purpose.create(path, access) {
                    Ok(file) => {
                        if let Some(open) = kept(file)? {
                            return Ok(open);
                        }
                    }
                    // Rule 9: somebody else made it first, or a file system says so for no reason.
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        create_parents(path, access, failed("create")(error), &retries)?;
                    }
                    Err(error) => return Err(failed("create")(error)),
                }
            }
            Err(error) => return Err(failed("look up")(error)),
        }
    }
    let source = io::Error::other("it was removed each time between making and opening it");
    Err(failed("open")(source))
}

/// Made if it is missing. `None`: it cannot be had.
fn own_directory(path: &Path, access: Access) -> Option<Directory> {
    match Directory::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            sys::create_directories(path, access.bits()).ok()?;
            Directory::open(path).ok()
        }
        opened => opened.ok(),
    }
}

/// A file that is written to and not locked, opened or created by the same rule.
pub(crate) fn open_plain(path: &Arc<Path>, access: Access) -> Result<(File, FileId)> {
    let mut open = open(path, None, access, Purpose::Writing)?;
    let file = open.file.take().expect(OPEN);
    Ok((file, open.id))
}

/// Makes `path`, which names the file `id`, and `spare` name the same file: whether they do. Without hard links
/// (FAT, some FUSE) there is no second name. `None`: another file had the path, and it has to be opened again.
fn keep(path: &Path, id: FileId, spare: &Path) -> io::Result<Option<bool>> {
    match sys::path_identity(spare) {
        Ok(kept) if kept == id => Ok(Some(true)),
        // Somebody put another file in the place of ours, which may be locked. Ours keeps its second name all
        // the time; it gets a third one, which then takes the path's place.
        Ok(_) => {
            let third = sys::beside(spare, ".again");
            let renamed = match std::fs::hard_link(spare, &third) {
                Ok(()) => std::fs::rename(&third, path),
                Err(error) => Err(error),
            };
            // What is left of it: where two were the same already, or of somebody who died here.
            let _ = std::fs::remove_file(&third);
            match renamed {
                // Somebody else does the same.
                Err(error)
                    if !matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists
                    ) =>
                {
                    Err(error)
                }
                _ => Ok(None),
            }
        }
        Err(_) => {
            let _ = std::fs::hard_link(path, spare);
            Ok(Some(sys::path_identity(spare).is_ok_and(|kept| kept == id)))
        }
    }
}

pub(crate) fn not_regular(path: &Arc<Path>, kind: std::fs::FileType) -> Error {
    Error::not_regular(path, sys::describe(kind))
}
