//! The `Barrier`: a directory with one lock file for each participant, and a file whose name is the
//! state.

mod participants;
mod state;
mod status;
mod wait;

use std::fmt;
use std::future::Future;
use std::io;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use self::participants::notify_callers;
use self::participants::{ARRIVED, Mark, Participants, marks_in};
use self::state::{Phase, State};
pub(crate) use self::status::read_status;
use self::wait::{BarrierWait, Turn, try_now};
use crate::access::{Access, Creation};
use crate::error::{Error, ErrorKind, Obstacle, Operation, Result};
use crate::file::lock_file::LockFile;
use crate::lock_request;
use crate::options::Options;
use crate::paths::{absolute, resolved};
use crate::sys::{self, FileKind, Mode, Retries};
use crate::wait::{
    Acquire, Limit, Outcome, Server, WaitHooks, WakeStrategy, WatchTarget, check_cancelled,
    note_progress, open, wait_here,
};

/// Each participant has a file, and a waiting process has all of them open.
const MAX_PARTIES: u32 = 4096;
/// How often a step begins again because another process has changed the state meanwhile.
const MAX_CHANGES: u32 = 1000;

/// A point at which N participants, in any processes and threads, wait for each other.
///
/// A call of [`wait`](Self::wait) blocks until N calls are waiting. Then all of them return, and
/// exactly one of them is the leader. The barrier is usable again at once: each group of
/// N calls is a *generation*, numbered from 0.
///
/// If a participant dies while it waits, even by SIGKILL, the barrier is *broken*: all other calls
/// of that generation fail with an error of kind [`Broken`](crate::ErrorKind::Broken) instead of
/// waiting forever, and so do all later calls until a process calls [`reset`](Self::reset). The
/// same happens if a wait times out or fails, if its future is dropped, or if a process calls
/// [`abort`](Self::abort). The semantics are those of Python's `multiprocessing.Barrier`.
///
/// A participant is a call, not a process: a program that calls `wait` from two threads counts
/// twice. Any process may call, and the number N is stored on disk.
///
/// A `Barrier` is a cheap handle: clone it, share it between threads and keep it.
///
/// # Examples
///
/// Three workers finish one step before any of them begins the next:
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("steps");
/// use flockwork::Barrier;
///
/// let worker = |name: &'static str| {
///     let step = Barrier::open(&path, 3).unwrap(); // in each process
///     move || -> flockwork::Result<()> {
///         for _ in 0..2 {
///             // ... the work of one step ...
///             if step.wait()?.is_leader() {
///                 println!("{name} was the last to finish");
///             }
///         }
///         Ok(())
///     }
/// };
/// let workers = ["a", "b", "c"].map(|name| std::thread::spawn(worker(name)));
/// for worker in workers {
///     worker.join().unwrap()?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A participant that gives up breaks the barrier for all of them:
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// use std::time::Duration;
/// use flockwork::{Barrier, ErrorKind};
///
/// let barrier = Barrier::open(dir.path().join("start"), 2)?;
/// assert!(barrier.wait_timeout(Duration::from_millis(10)).unwrap_err().is_timed_out());
/// assert_eq!(barrier.wait().unwrap_err().kind(), ErrorKind::Broken);
/// barrier.reset()?;
/// assert!(!barrier.is_broken()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Fairness
///
/// All participants are notified at once and return in no particular order. The leader is usually
/// the one that arrived last. If more than N callers use the barrier, any N of them make up a
/// generation, and the others wait for the next one.
///
/// # Caveats
///
/// * A process that dies before it has arrived does not break the barrier. Wait with a timeout if a
///   participant may never arrive.
/// * A participant that is stopped (SIGSTOP) is not dead: the others wait for it. If it is stopped
///   after the generation has ended and before its call returns, its place is taken until then.
/// * [`reset`](Self::reset) does not wait until the participants of the broken generation have
///   returned. Call it once they have. Otherwise a late caller joins the new generation.
/// * A child created by `fork` during a wait keeps the participant alive until the child has called
///   exec or ended.
/// * Do not remove the directory while the barrier is in use: all waiters fail with
///   [`Broken`](crate::ErrorKind::Broken).
///
/// # Errors
///
/// Opening and waiting return an [`Error`] of one of these kinds:
///
/// * [`Broken`](crate::ErrorKind::Broken) if the barrier is broken.
/// * [`CapacityMismatch`](crate::ErrorKind::CapacityMismatch) if the barrier exists with another
///   number of participants.
/// * [`InvalidPermits`](crate::ErrorKind::InvalidPermits) if the number of participants is 0 or
///   more than 4096.
/// * [`NotRegularFile`](crate::ErrorKind::NotRegularFile) if the path names something other than a
///   barrier's directory, for example a file or a semaphore.
/// * [`Corrupt`](crate::ErrorKind::Corrupt) if another program has changed the directory.
/// * [`Unsupported`](crate::ErrorKind::Unsupported) if the platform or the file system has no
///   locks.
/// * [`Io`](crate::ErrorKind::Io) if the system refuses the operation, for example because a file
///   cannot be created. A call that fails so after it has arrived breaks the barrier.
///
/// # Platform-specific behavior
///
/// * Linux: waiters are notified of arrivals, of a broken barrier and of the death of a participant
///   through inotify. If the user has no inotify instance left, they poll every 1 to 50
///   milliseconds.
/// * macOS, BSD, Windows: no event reports a death. Waiters notice it when they check, every 20 to
///   100 milliseconds.
/// * illumos and network file systems (NFS, SMB, FUSE and others): waiters poll every 1 to 50
///   milliseconds. Without the feature `watch` they do so on every system.
#[derive(Clone)]
pub struct Barrier {
    inner: Arc<Inner>,
}

struct Inner {
    directory: Arc<Path>,
    creation: Creation,
    participants: Participants,
    wake_strategy: WakeStrategy,
    hooks: Option<WaitHooks>,
    server: Option<Server>,
}

/// The result of passing a [`Barrier`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BarrierWaitResult {
    is_leader: bool,
    generation: u64,
}

impl BarrierWaitResult {
    /// Returns `true` for exactly one participant of each generation.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.is_leader
    }

    /// Returns the number of the generation, which is the same for all its participants.
    ///
    /// The first is 0. Generations that were broken count too.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

impl Inner {
    /// The state of a barrier that is not broken. The barrier is created again if its directory was
    /// removed.
    fn current(&self) -> Result<State> {
        let parties = self.participants.parties();
        let last = self.participants.last_generation();
        let known = last.map(|generation| State { phase: Phase::Open, parties, generation });
        let found = self.read(known)?;
        let current = match found {
            Some(current) => checked(&self.directory, current, parties)?,
            None => establish(&self.directory, parties, self.creation)?,
        };
        match current.phase {
            Phase::Broken => Err(Error::broken(&self.directory)),
            Phase::Open | Phase::Full => Ok(current),
        }
    }

    /// The state, for a caller that knows an earlier one. `None`: there is no barrier.
    fn read(&self, known: Option<State>) -> Result<Option<State>> {
        match known.filter(|_| !self.participants.is_network()) {
            Some(known) => state::read_after(&self.directory, known),
            None => state::read(&self.directory),
        }
    }

    /// The numbers of the files whose holders have arrived in the generation.
    fn arrived(&self, generation: u64) -> Result<Vec<u32>> {
        if self.participants.is_network() {
            return Ok(status::arrived(&self.participants.marks()?, generation));
        }
        let mut arrived = Vec::new();
        for number in 0..self.participants.parties() {
            if self.participants.has_mark(Mark { generation, number })? {
                arrived.push(number);
            }
        }
        Ok(arrived)
    }

    fn is_broken(&self) -> Result<bool> {
        for _ in 0..MAX_CHANGES {
            let Some(current) = state::read(&self.directory)? else { return Ok(false) };
            if current.phase == Phase::Broken {
                return Ok(true);
            }
            let mut has_dead = false;
            for number in self.arrived(current.generation)? {
                has_dead |= !self.participants.is_held(number)?;
            }
            // A participant that is not there any more has died, unless the generation has ended
            // meanwhile.
            if !has_dead {
                return Ok(false);
            }
            let still = state::read(&self.directory)?;
            if still.is_some_and(|still| still.generation == current.generation) {
                return Ok(true);
            }
        }
        Err(self.changed_too_often())
    }

    fn abort(&self) -> Result<()> {
        for _ in 0..MAX_CHANGES {
            let current = match self.current() {
                Err(error) if error.kind() == ErrorKind::Broken => return Ok(()),
                current => current?,
            };
            if state::break_generation(&self.directory, current)? {
                return Ok(());
            }
        }
        Err(self.changed_too_often())
    }

    /// Ends the current generation as broken if it has participants, and begins the next one
    /// (rule B6).
    fn reset(&self) -> Result<()> {
        for _ in 0..MAX_CHANGES {
            let Some(current) = state::read(&self.directory)? else { return Ok(()) };
            match current.phase {
                Phase::Open if self.arrived(current.generation)?.is_empty() => return Ok(()),
                Phase::Open | Phase::Full => {
                    state::break_generation(&self.directory, current)?;
                }
                Phase::Broken => {
                    self.remove_reset_marks()?;
                    state::mark_reset(&self.directory, current.generation, self.creation.bits())?;
                    let next = current.next().ok_or_else(|| self.no_more_generations())?;
                    // If this fails, another process has reset it.
                    state::change(&self.directory, current, next)?;
                    return Ok(());
                }
            }
        }
        Err(self.changed_too_often())
    }

    /// Removes the marks of reset generations whose participants have all left: each file that is
    /// locked has a mark of a later generation. A caller that locks one later reads a later state
    /// (rule B6).
    fn remove_reset_marks(&self) -> Result<()> {
        let reset = state::reset_generations(&self.directory)?;
        if reset.is_empty() {
            return Ok(());
        }
        let marks = self.participants.marks()?;
        let mut oldest = u64::MAX;
        for number in 0..self.participants.parties() {
            if self.participants.is_held(number)? {
                let own = marks.iter().filter(|mark| mark.number == number);
                oldest = oldest.min(own.map(|mark| mark.generation).max().unwrap_or(0));
            }
        }
        for generation in reset.into_iter().filter(|generation| *generation < oldest) {
            state::remove_reset_mark(&self.directory, generation);
        }
        Ok(())
    }

    fn waiting(&self) -> Result<u32> {
        let current = state::read(&self.directory)?;
        let Some(current) = current.filter(|current| current.phase != Phase::Broken) else {
            return Ok(0);
        };
        let mut waiting = 0;
        for number in self.arrived(current.generation)? {
            waiting += u32::from(self.participants.is_held(number)?);
            note_progress();
        }
        Ok(waiting)
    }

    fn no_more_generations(&self) -> Error {
        let hint = "remove the barrier's directory while it is not in use";
        Error::corrupt(&self.directory, "its generation is the largest number", hint)
    }

    fn changed_too_often(&self) -> Error {
        let source = io::Error::other("its state changed during each attempt");
        Error::io(Operation::ChangeState, &self.directory, source)
    }
}

impl Barrier {
    /// Opens the barrier for `parties` participants at `path`, or creates it.
    ///
    /// The number is stored on disk: opening with another one is an error. Missing parent
    /// directories are created. How paths are resolved is described in [Paths](crate#paths).
    ///
    /// # Errors
    ///
    /// See [the errors of `Barrier`](Self#errors).
    pub fn open(path: impl AsRef<Path>, parties: u32) -> Result<Self> {
        Options::new().open_barrier(path, parties)
    }

    // ------------------------------------------------------------------------------------ wait

    /// Blocks the current thread until all participants have arrived.
    ///
    /// # Errors
    ///
    /// [`Broken`](crate::ErrorKind::Broken) if the barrier is broken, or breaks during the wait;
    /// otherwise see [the errors of `Barrier`](Self#errors).
    pub fn wait(&self) -> Result<BarrierWaitResult> {
        self.pass(Limit::Never)
    }

    /// Passes the barrier without waiting, if all other participants have arrived.
    ///
    /// Otherwise the call takes no part, and the barrier does not break.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let barrier = flockwork::Barrier::open(dir.path().join("start"), 2)?;
    /// assert!(barrier.try_wait().unwrap_err().is_would_block());
    /// assert_eq!(barrier.waiting()?, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](crate::ErrorKind::WouldBlock) if another participant has not arrived;
    /// otherwise as for [`wait`](Self::wait).
    pub fn try_wait(&self) -> Result<BarrierWaitResult> {
        self.ask(|inner| match try_now(inner)? {
            Some(turn) => finish(turn),
            None => Err(Error::would_block_for(&inner.directory, Obstacle::NotComplete)),
        })
    }

    /// Waits at most `timeout` until all participants have arrived.
    ///
    /// If the time runs out, the barrier is broken. A zero timeout breaks it unless all other
    /// participants have arrived. A timeout too large for [`Instant`] waits forever. (A call that
    /// could not take part because more callers than participants use the barrier breaks nothing.)
    ///
    /// # Errors
    ///
    /// [`TimedOut`](crate::ErrorKind::TimedOut) if a participant had not arrived before the
    /// timeout; otherwise as for [`wait`](Self::wait).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<BarrierWaitResult> {
        self.pass(Limit::After(timeout))
    }

    /// Waits until `deadline` for all participants to arrive.
    ///
    /// If the deadline passes, the barrier is broken: see [`wait_timeout`](Self::wait_timeout).
    ///
    /// # Errors
    ///
    /// [`TimedOut`](crate::ErrorKind::TimedOut) if a participant had not arrived before the
    /// deadline; otherwise as for [`wait`](Self::wait).
    pub fn wait_deadline(&self, deadline: Instant) -> Result<BarrierWaitResult> {
        self.pass(Limit::At(deadline))
    }

    /// Waits asynchronously until all participants have arrived.
    ///
    /// The future follows the [rules of all futures](crate#futures). It arrives when it is first
    /// polled. If it is dropped after that and before the others have arrived, the barrier is
    /// broken.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # futures_lite::future::block_on(async {
    /// let barrier = flockwork::Barrier::open(dir.path().join("start"), 2)?;
    /// let (a, b) = futures_lite::future::zip(barrier.wait_async(), barrier.wait_async()).await;
    /// assert!(a?.is_leader() != b?.is_leader());
    /// # Ok::<(), flockwork::Error>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`wait`](Self::wait).
    pub fn wait_async(&self) -> impl Future<Output = Result<BarrierWaitResult>> + Send + use<> {
        let inner = Arc::clone(&self.inner);
        async move {
            let wait = |inner: &Arc<Inner>, limit, hooks: Option<&_>| {
                finish(turn(inner, limit, hooks, false)?)
            };
            let (server, hooks) = (inner.server.as_ref(), inner.hooks.as_ref());
            if let Some(waiting) = Server::future_about(server, &inner, hooks, wait) {
                return waiting.await;
            }
            let waiter = BarrierWait::new(&inner, false);
            finish(Acquire::new(waiter, inner.hooks.clone()).await?)
        }
    }

    /// Waits like [`wait`](Self::wait), and the leader runs `action` before the others proceed.
    ///
    /// Each participant passes an action, and exactly one of them runs. If it fails or panics, or
    /// the leader dies, the barrier is broken. It is also broken if another participant gives up
    /// while the action runs. The leader's call then returns
    /// [`Broken`](crate::ErrorKind::Broken), although its action has run.
    ///
    /// `E` is the error type of the action, and [`Error`] must convert into it. If the compiler
    /// cannot infer the type, annotate the closure: `|| -> std::io::Result<()> { ... }`.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let barrier = flockwork::Barrier::open(dir.path().join("step"), 1)?;
    /// let result = dir.path().join("result");
    /// let passed = barrier.wait_with(|| std::fs::write(&result, "merged"))?;
    /// assert!(passed.is_leader() && result.exists());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// * The error that `action` returned. The barrier is broken then.
    /// * An [`Error`] as for [`wait`](Self::wait).
    pub fn wait_with<E: From<Error>>(
        &self,
        action: impl FnOnce() -> Result<(), E>,
    ) -> Result<BarrierWaitResult, E> {
        match self.turn(Limit::Never, true)? {
            Turn::Passed(passed) => Ok(passed),
            Turn::Elected(participation) => {
                action()?;
                Ok(participation.release()?)
            }
        }
    }

    // ----------------------------------------------------------------------------------- state

    /// Breaks the barrier.
    ///
    /// All participants that wait, and all later callers, fail with
    /// [`Broken`](crate::ErrorKind::Broken) until a process [resets](Self::reset) it.
    ///
    /// # Errors
    ///
    /// See [the errors of `Barrier`](Self#errors). A barrier that is broken already is not an
    /// error.
    pub fn abort(&self) -> Result<()> {
        self.ask(|inner| inner.abort())
    }

    /// Makes a broken barrier usable again.
    ///
    /// Participants that wait at this moment fail with [`Broken`](crate::ErrorKind::Broken), and a
    /// new generation begins. If the barrier is not broken and has no participants, nothing
    /// changes.
    ///
    /// # Errors
    ///
    /// See [the errors of `Barrier`](Self#errors).
    pub fn reset(&self) -> Result<()> {
        self.ask(|inner| inner.reset())
    }

    /// Returns whether the barrier is broken at this moment.
    ///
    /// # Errors
    ///
    /// See [the errors of `Barrier`](Self#errors).
    pub fn is_broken(&self) -> Result<bool> {
        self.ask(|inner| inner.is_broken())
    }

    /// Returns how many participants of the current generation have arrived and wait.
    ///
    /// It is 0 if the barrier is broken.
    ///
    /// # Errors
    ///
    /// See [the errors of `Barrier`](Self#errors).
    pub fn waiting(&self) -> Result<u32> {
        self.ask(|inner| inner.waiting())
    }

    /// Returns the number of participants that pass the barrier together.
    #[must_use]
    pub fn parties(&self) -> u32 {
        self.inner.participants.parties()
    }

    /// Returns the absolute path of the barrier.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.directory
    }

    fn pass(&self, limit: Limit) -> Result<BarrierWaitResult> {
        finish(self.turn(limit, false)?)
    }

    fn turn(&self, limit: Limit, has_action: bool) -> Result<Turn> {
        let (server, hooks) = (self.inner.server.as_ref(), self.inner.hooks.as_ref());
        Server::wait_about(server, &self.inner, limit, hooks, move |inner, limit, hooks| {
            turn(inner, limit, hooks, has_action)
        })
    }

    fn ask<T: Send + Sync + 'static>(&self, call: fn(&Arc<Inner>) -> Result<T>) -> Result<T> {
        Server::ask_about(self.inner.server.as_ref(), &self.inner, call)
    }
}

/// Waits in the calling thread.
fn turn(
    inner: &Arc<Inner>,
    limit: Limit,
    hooks: Option<&WaitHooks>,
    has_action: bool,
) -> Result<Turn> {
    check_cancelled(hooks)?;
    let mut wait = BarrierWait::new(inner, has_action);
    if let Some(turn) = wait.check_once()? {
        return Ok(turn);
    }
    let deadline = limit.deadline();
    let outcome = if let Some(waited) = deadline.waited_if_over() {
        wait.give_up()?.map_or(Outcome::TimedOut(waited), Outcome::Held)
    } else {
        wait_here(wait, deadline, hooks)?
    };
    match outcome {
        Outcome::Held(turn) => Ok(turn),
        Outcome::TimedOut(waited) => {
            Err(Error::timed_out_for(&inner.directory, waited, Obstacle::NotComplete, 0))
        }
    }
}

/// Ends a call without an action.
fn finish(turn: Turn) -> Result<BarrierWaitResult> {
    match turn {
        Turn::Passed(passed) => Ok(passed),
        Turn::Elected(participation) => participation.release(),
    }
}

fn checked(directory: &Arc<Path>, current: State, parties: u32) -> Result<State> {
    if current.parties == parties {
        return Ok(current);
    }
    Err(Error::parties_mismatch(directory, current.parties, parties))
}

/// The state of the barrier, which is created if it is missing (rule B1).
fn establish(directory: &Arc<Path>, parties: u32, creation: Creation) -> Result<State> {
    let mut retries = Retries::new();
    while retries.again() {
        match std::fs::symlink_metadata(directory) {
            Ok(found) if !found.is_dir() => {
                return Err(Error::not_a_barrier(directory, sys::describe(found.file_type())));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io(Operation::LookUp, directory, error));
            }
            _ => {}
        }
        let found = match state::read(directory)? {
            Some(found) => Ok(found),
            None if creation.files => create(directory, parties, creation.access),
            None => {
                let source = io::ErrorKind::NotFound.into();
                return Err(Error::io(Operation::Open, directory, source));
            }
        };
        match found {
            // The directory was removed meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound && !directory.exists() => {}
            found => return checked(directory, found?, parties),
        }
    }
    let source = io::Error::other("another program removed it each time before it could be read");
    Err(Error::io(Operation::Open, directory, source))
}

/// Creates the files and, last, the state. One process at a time does that: a second one would
/// otherwise create a state that the first has changed meanwhile (rule B1).
fn create(directory: &Arc<Path>, parties: u32, access: Access) -> Result<State> {
    let is_semaphore = sys::file_kind(&directory.join("capacity"))
        .is_ok_and(|capacity| capacity != FileKind::Nothing);
    if is_semaphore {
        return Err(Error::not_a_barrier(directory, "a semaphore's directory"));
    }
    sys::create_directories(&directory.join(ARRIVED), access.bits())
        .map_err(|source| Error::io(Operation::Create, directory, source))?;
    let setup = LockFile::open(&directory.join(state::SETUP), access)?;
    let _locked = setup.lock(Mode::Exclusive)?;
    if let Some(found) = state::read(directory)? {
        return Ok(found);
    }
    for number in 0..parties {
        note_progress();
        LockFile::open_noticed(&participants::file(directory, number), access.into())?;
    }
    // If only the state was removed, the marks of earlier generations may still exist.
    let marks = marks_in(directory, u32::MAX)?.into_iter().map(|mark| mark.generation);
    let last = marks.chain(state::reset_generations(directory)?).max();
    let generation = last.map_or(0, |last| last.saturating_add(1));
    let first = State { phase: Phase::Open, parties, generation };
    state::create(directory, first, access.bits())?;
    Ok(first)
}

impl AsRef<Path> for Barrier {
    fn as_ref(&self) -> &Path {
        self.path()
    }
}

// A panic in a callback leaves no state half-changed: all shared state is in files and the kernel.
impl UnwindSafe for Barrier {}
impl RefUnwindSafe for Barrier {}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier")
            .field("path", &self.path())
            .field("parties", &self.parties())
            .finish_non_exhaustive()
    }
}

impl Options {
    /// Opens a [`Barrier`] for `parties` participants at `path` with these settings: see
    /// [`Barrier::open`].
    ///
    /// A barrier has no holder, so [`label`](Self::label), [`record_holder`](Self::record_holder)
    /// and [`inherit`](Self::inherit) have no effect.
    ///
    /// # Errors
    ///
    /// See [the errors of `Barrier`](Barrier#errors).
    pub fn open_barrier(&self, path: impl AsRef<Path>, parties: u32) -> Result<Barrier> {
        open(self, path.as_ref(), move |options, path| options.open_barrier_here(path, parties))
    }

    fn open_barrier_here(&self, path: &Path, parties: u32) -> Result<Barrier> {
        let directory = absolute(&resolved(path, self.follows_links)?)?;
        if !(1..=MAX_PARTIES).contains(&parties) {
            return Err(Error::invalid_parties(&directory, MAX_PARTIES, parties));
        }
        establish(&directory, parties, self.creation())?;
        let must_poll = sys::is_network_directory(&directory);
        let server = Server::of(self, &directory, must_poll);
        let place = WatchTarget { directory: Arc::clone(&directory), names: None };
        let wake_strategy = WakeStrategy {
            places: if must_poll { Vec::new() } else { vec![place] },
            must_poll,
            polled: Vec::new(),
            requests: 1,
            poll_every: self.poll_every,
            backstop: self.backstop,
            is_unlocking: true,
        };
        Ok(Barrier {
            inner: Arc::new(Inner {
                creation: self.creation(),
                participants: Participants::new(&directory, parties, self.access, must_poll),
                wake_strategy,
                hooks: lock_request::hooks(self, &directory, server.as_ref()),
                server,
                directory,
            }),
        })
    }
}
