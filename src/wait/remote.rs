//! Calls that need the server of a network file system, which may not respond: a helper thread
//! makes the call, and the caller waits for the result until its own limit (rules W6 to W9).

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::deadline::{Deadline, Limit};
use super::hooks::{WaitHooks, check_cancelled, must_return};
use super::{Acquire, Outcome, Waiter, wait_here, wake};
use crate::cancel::{Cancel, Cancels};
use crate::error::{Error, FindHolders, Obstacle, Result};
use crate::fork_safe::{ForkSafe, MutexGuard};
use crate::options::Options;
use crate::record;
use crate::sorted_map::SortedMap;
use crate::sync::{self, Mutex};
use crate::sys::{self, NetworkMounts, Origin};
use crate::trace::PollReason;

/// How long after a wait's own deadline its result may arrive: the last try of a wait asks the
/// server.
const GRACE: Duration = Duration::from_millis(250);
/// How long a cancelled wait may take to release what it has, so that the caller finds it free.
const SETTLE: Duration = Duration::from_millis(50);
/// How long dropping a guard waits at most, since nothing can end that.
const MAX_DROP: Duration = Duration::from_secs(10);
/// How long a lookup of holders takes at most.
const LOOKUP: Duration = Duration::from_millis(200);
/// The number of helpers that no caller waits for any more, and of helpers that futures have.
const MAX_ABANDONED: usize = 64;
const MAX_FUTURES: usize = 64;
const KEEPALIVE: Duration = Duration::from_secs(1);
const STACK: usize = 512 * 1024;

/// What a call returns. It is boxed so that the code which waits for it is compiled once.
type Answer = Box<dyn Any + Send + Sync>;
type Call = Box<dyn FnOnce() -> Result<Answer> + Send>;
type Wait = Box<dyn FnOnce(Limit, Option<&WaitHooks>) -> Result<Answer> + Send>;

fn boxed<T: Send + Sync + 'static>(value: T) -> Answer {
    Box::new(value)
}

fn unboxed<T: 'static>(answer: Answer) -> T {
    *answer.downcast().unwrap_or_else(|_| unreachable!("the caller made the call"))
}

/// The server of the network file system that a handle's path is on.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    path: Arc<Path>,
    timeout: Duration,
}

impl Server {
    /// `None` if the path is on a local file system: neither the mount table nor the handle, once
    /// it was opened, shows a network file system.
    pub(crate) fn of(options: &Options, path: &Arc<Path>, is_network: bool) -> Option<Self> {
        let is_remote = is_network || is_helper() && leads_to_network(path);
        is_remote.then(|| Self { path: Arc::clone(path), timeout: options.server_timeout })
    }

    /// The same server, which is given less time.
    fn within(&self, most: Duration) -> Self {
        Self { path: Arc::clone(&self.path), timeout: self.timeout.min(most) }
    }

    /// Finds the holders of a path in a time that does not matter to a wait: for a callback, which
    /// runs in the waiting thread, and for errors, whose holders are looked up when they are asked
    /// for.
    pub(crate) fn finder(&self) -> FindHolders {
        let server = self.within(LOOKUP);
        Arc::new(move |path| {
            let path = Arc::clone(path);
            server.ask(move || Ok(record::find(&path, true))).ok()?.ok()
        })
    }

    /// Makes a call that has no deadline of its own.
    pub(crate) fn ask<T: Send + Sync + 'static>(
        &self,
        call: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.call(Box::new(|| call().map(boxed)), Kind::Question, None).map(unboxed)
    }

    /// Makes a call about `subject`. Without a server this thread makes it.
    pub(crate) fn ask_about<S: Clone + Send + 'static, T: Send + Sync + 'static>(
        server: Option<&Self>,
        subject: &S,
        call: impl FnOnce(&S) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let Some(server) = server else { return call(subject) };
        let subject = subject.clone();
        server.ask(move || call(&subject))
    }

    /// Completes a release whose result no caller gets.
    pub(super) fn drop_later(&self, release: impl FnOnce() + Send + 'static) {
        let release = move || {
            release();
            Ok(boxed(()))
        };
        let _ = self.within(MAX_DROP).call(Box::new(release), Kind::Release, None);
    }

    /// Makes a call that is completed later if the server does not respond in time.
    pub(crate) fn finish<T: Send + Sync + 'static>(
        &self,
        call: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.call(Box::new(|| call().map(boxed)), Kind::Release, None).map(unboxed)
    }

    fn call(&self, call: Call, kind: Kind, hooks: Option<&WaitHooks>) -> Result<Answer> {
        if is_helper() {
            return call();
        }
        check_cancelled(hooks)?;
        let mut call = RemoteCall::start(self, kind, None, call);
        let start = Deadline::after(Duration::ZERO).start();
        loop {
            let progress = call.shared.progress();
            let deadline = Deadline::after(self.timeout);
            let waited = wait_here(Borrowed(&mut call), deadline, hooks);
            match waited.map_err(|error| self.finding(error))? {
                Outcome::Held(result) => return Ok(result),
                Outcome::TimedOut(_) if call.shared.progress() != progress => {}
                Outcome::TimedOut(_) => {
                    let waited = super::deadline::now().saturating_duration_since(start);
                    return Err(self.not_responding(waited, kind));
                }
            }
        }
    }

    /// Waits, with a deadline or a callback or a token. `wait` gets the limit and the hooks of the
    /// wait that the helper makes. A wait without any of these stays in this thread.
    pub(crate) fn wait<T: Send + Sync + 'static>(
        &self,
        limit: Limit,
        hooks: Option<&WaitHooks>,
        wait: impl FnOnce(Limit, Option<&WaitHooks>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.wait_for_answer(limit, hooks, Box::new(|limit, hooks| wait(limit, hooks).map(boxed)))
            .map(unboxed)
    }

    /// Waits for `subject`. Without a server this thread makes the wait.
    pub(crate) fn wait_about<S: Clone + Send + 'static, T: Send + Sync + 'static>(
        server: Option<&Self>,
        subject: &S,
        limit: Limit,
        hooks: Option<&WaitHooks>,
        wait: impl FnOnce(&S, Limit, Option<&WaitHooks>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let Some(server) = server else { return wait(subject, limit, hooks) };
        let subject = subject.clone();
        server.wait(limit, hooks, move |limit, hooks| wait(&subject, limit, hooks))
    }

    fn wait_for_answer(
        &self,
        limit: Limit,
        hooks: Option<&WaitHooks>,
        wait: Wait,
    ) -> Result<Answer> {
        let deadline = limit.deadline();
        if is_helper() || (deadline.is_never() && !must_return(hooks)) {
            return wait(limit, hooks);
        }
        check_cancelled(hooks)?;
        let deadline = deadline.begun();
        let start = deadline.start();
        let mut call = self.start_wait(Limit::By(deadline), wait);
        let mut outcome = wait_here(Borrowed(&mut call), deadline, hooks);
        let progress = call.shared.progress();
        if matches!(outcome, Ok(Outcome::TimedOut(_))) {
            // The helper makes the last requests of the wait. The callback has had its time.
            let ending = hooks.map(|hooks| WaitHooks { callback: None, ..hooks.clone() });
            outcome = wait_here(Borrowed(&mut call), deadline.later(GRACE), ending.as_ref());
        }
        match outcome {
            Ok(Outcome::Held(held)) => Ok(held),
            Ok(Outcome::TimedOut(_)) => {
                let waited = super::deadline::now().saturating_duration_since(start);
                if call.shared.progress() == progress {
                    return Err(self.not_responding(waited, Kind::Question));
                }
                let error = Error::timed_out_for(&self.path, waited, Obstacle::Slow, 0);
                Err(error.finding(self.finder()))
            }
            Err(error) => {
                if error.is_cancelled() {
                    call.token.cancel();
                    let settled = Deadline::after(SETTLE);
                    drop(wait_here(Borrowed(&mut call), settled, None));
                }
                Err(error)
            }
        }
    }

    /// The same as a future, which does not block its executor. `None` if too many futures wait in
    /// this way: the caller then polls in its executor's thread.
    pub(crate) fn future<T: Send + Sync + 'static>(
        &self,
        hooks: Option<&WaitHooks>,
        wait: impl FnOnce(Limit, Option<&WaitHooks>) -> Result<T> + Send + 'static,
    ) -> Option<RemoteFuture<T>> {
        if is_helper() {
            return None;
        }
        let place = FuturePlace::take()?;
        let wait = |limit: Limit, hooks: Option<&WaitHooks>| {
            let _place = place;
            wait(limit, hooks).map(boxed)
        };
        let call = self.start_wait(Limit::Never, Box::new(wait));
        Some(RemoteFuture { answer: Acquire::new(call, hooks.cloned()), result: PhantomData })
    }

    /// The wait for `subject` as a future. `None` also without a server.
    pub(crate) fn future_about<S: Clone + Send + 'static, T: Send + Sync + 'static>(
        server: Option<&Self>,
        subject: &S,
        hooks: Option<&WaitHooks>,
        wait: impl FnOnce(&S, Limit, Option<&WaitHooks>) -> Result<T> + Send + 'static,
    ) -> Option<RemoteFuture<T>> {
        let (server, subject) = (server?, subject.clone());
        server.future(hooks, move |limit, hooks| wait(&subject, limit, hooks))
    }

    fn start_wait(&self, limit: Limit, wait: Wait) -> RemoteCall {
        let token = Cancel::new();
        let mut cancels = Cancels::default();
        cancels.add(&token);
        let hooks = WaitHooks { path: Arc::clone(&self.path), callback: None, cancels };
        let call = Box::new(move || wait(limit, Some(&hooks)));
        RemoteCall::start(self, Kind::Question, Some(token), call)
    }

    /// The error of a call that did not wait has no holders yet.
    fn finding(&self, error: Error) -> Error {
        if error.is_would_block() { error.finding(self.finder()) } else { error }
    }

    fn not_responding(&self, waited: Duration, kind: Kind) -> Error {
        let obstacle = match kind {
            Kind::Question => Obstacle::NotResponding,
            Kind::Release => Obstacle::NotReleased,
        };
        Error::timed_out_for(&self.path, waited, obstacle, 0)
    }
}

/// Opens something at `path`. Before the mount table was read nothing touches the path: if it is on
/// a network file system, a helper does.
pub(crate) fn open<T: Send + Sync + 'static>(
    options: &Options,
    path: &Path,
    open: impl FnOnce(&Options, &Path) -> Result<T> + Send + 'static,
) -> Result<T> {
    if is_helper() || !leads_to_network(path) {
        return open(options, path);
    }
    let path: Arc<Path> = path.into();
    let server = Server { path: Arc::clone(&path), timeout: options.server_timeout };
    let whole = options.whole.as_ref().unwrap_or(&path);
    let hooks = WaitHooks::new(Arc::clone(whole), None, options.cancels.clone());
    let options = options.clone();
    let call = Box::new(move || open(&options, &path).map(boxed));
    server.call(call, Kind::Question, hooks.as_ref()).map(unboxed)
}

/// The mounts of network file systems, and when they were read.
struct Mounts {
    read_at: Option<u64>,
    mounts: Option<Arc<NetworkMounts>>,
}

impl Mounts {
    const NONE: Self = Self { read_at: None, mounts: None };
}

/// Reading the mount table takes longer than opening a file, so it is read at most once a second.
static MOUNTS: ForkSafe<Mounts> = ForkSafe::new(Mounts::NONE, |()| Mounts::NONE);
const MOUNTS_VALID: u64 = 1000;

/// Whether the path is on a network file system, found out without asking its server.
pub(crate) fn leads_to_network(path: &Path) -> bool {
    let now = sys::coarse_milliseconds();
    let mut known = MOUNTS.lock();
    let is_new = |read_at: u64| now.saturating_sub(read_at) < MOUNTS_VALID;
    if !known.read_at.is_some_and(is_new) {
        known.mounts = NetworkMounts::read().map(Arc::new);
        known.read_at = Some(now);
    }
    let mounts = known.mounts.clone();
    drop(known);
    mounts.is_some_and(|mounts| mounts.has(path))
}

/// Notes that the server has responded to a part of a call, so that the time for the next part
/// begins.
pub(crate) fn note_progress() {
    PROGRESS.with_borrow(|progress| {
        if let Some(progress) = progress {
            progress.fetch_add(1, Ordering::Relaxed);
        }
    });
}

/// Decides about a call whose caller has given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It is not begun, and its result is dropped.
    Question,
    /// It is made all the same.
    Release,
}

// ------------------------------------------------------------------------------------------- calls

/// A wait that a helper makes, as a future. Dropping it gives up.
#[must_use = "a future does nothing unless it is polled"]
pub(crate) struct RemoteFuture<T> {
    answer: Acquire<RemoteCall>,
    result: PhantomData<fn() -> T>,
}

impl<T: 'static> Future for RemoteFuture<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        Pin::new(&mut self.answer).poll(context).map_ok(unboxed)
    }
}

/// A call that a helper makes. Dropping it gives up.
struct RemoteCall {
    shared: Arc<Shared>,
    /// Ends the wait that the helper makes.
    token: Cancel,
    kind: Kind,
    number: u64,
    origin: Origin,
    path: Arc<Path>,
}

struct Shared {
    slot: Mutex<Slot>,
    progress: Arc<AtomicUsize>,
}

struct Slot {
    state: State,
    waker: Option<Waker>,
}

enum State {
    Running,
    Done(std::thread::Result<Result<Answer>>),
    /// The result was taken.
    Taken,
    /// The caller has given up. The helper drops the result.
    Abandoned,
}

impl Shared {
    fn slot(&self) -> sync::MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn progress(&self) -> usize {
        self.progress.load(Ordering::Relaxed)
    }

    /// Makes the call, in the helper.
    fn run(&self, kind: Kind, call: Call) {
        let is_abandoned = matches!(self.slot().state, State::Abandoned);
        if !is_abandoned || kind == Kind::Release {
            PROGRESS.set(Some(Arc::clone(&self.progress)));
            let result = catch_unwind(AssertUnwindSafe(call));
            PROGRESS.set(None);
            let mut slot = self.slot();
            if matches!(slot.state, State::Running) {
                slot.state = State::Done(result);
                let waker = slot.waker.take();
                drop(slot);
                if let Some(waker) = waker {
                    wake(waker);
                }
                return;
            }
            drop(slot);
            // Dropping what was acquired after all releases it. It may take as long as the call.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(result)));
        } else {
            drop(call);
        }
        let mut helpers = HELPERS.lock();
        helpers.abandoned = helpers.abandoned.saturating_sub(1);
    }
}

impl RemoteCall {
    fn start(server: &Server, kind: Kind, token: Option<Cancel>, call: Call) -> Self {
        let slot = Mutex::new(Slot { state: State::Running, waker: None });
        let shared = Arc::new(Shared { slot, progress: Arc::default() });
        let helped = Arc::clone(&shared);
        let number = start(Box::new(move || helped.run(kind, call)));
        let (origin, path) = (Origin::here(), Arc::clone(&server.path));
        Self { shared, token: token.unwrap_or_default(), kind, number, origin, path }
    }

    fn take(slot: &mut Slot) -> Option<std::thread::Result<Result<Answer>>> {
        match std::mem::replace(&mut slot.state, State::Taken) {
            State::Done(result) => Some(result),
            other => {
                slot.state = other;
                None
            }
        }
    }
}

impl Waiter for RemoteCall {
    type Held = Answer;

    fn poll(&mut self, waker: &Waker) -> Poll<Result<Answer>> {
        if !self.origin.is_here() {
            // A forked copy has no helper.
            return Poll::Ready(Err(Error::cancelled(&self.path, Duration::ZERO)));
        }
        let mut slot = self.shared.slot();
        let Some(result) = Self::take(&mut slot) else {
            let replaced = slot.waker.replace(waker.clone());
            drop(slot);
            drop(replaced);
            return Poll::Pending;
        };
        drop(slot);
        Poll::Ready(result.unwrap_or_else(|panic| resume_unwind(panic)))
    }

    fn next_tick(&self) -> Option<Instant> {
        None
    }

    fn polls_because(&self) -> Option<PollReason> {
        None
    }

    fn last_chance(&mut self) -> Result<Option<Answer>> {
        let result = Self::take(&mut self.shared.slot());
        result.map(|result| result.unwrap_or_else(|panic| resume_unwind(panic))).transpose()
    }
}

impl Drop for RemoteCall {
    fn drop(&mut self) {
        if !self.origin.is_here() {
            return;
        }
        let mut slot = self.shared.slot();
        match std::mem::replace(&mut slot.state, State::Taken) {
            State::Running => slot.state = State::Abandoned,
            other => {
                drop(slot);
                drop(other); // a result that was not taken, which is released here
                return;
            }
        }
        let waker = slot.waker.take();
        // The helper finds the call abandoned only after this, so the number is never too low.
        let mut helpers = HELPERS.lock();
        let job =
            if self.kind == Kind::Question { helpers.jobs.remove(&self.number) } else { None };
        if job.is_none() {
            helpers.abandoned += 1;
        }
        drop(helpers);
        drop(slot);
        drop((job, waker));
        self.token.cancel();
    }
}

/// A call that its caller keeps after the wait.
struct Borrowed<'a>(&'a mut RemoteCall);

impl Waiter for Borrowed<'_> {
    type Held = Answer;

    fn poll(&mut self, waker: &Waker) -> Poll<Result<Answer>> {
        self.0.poll(waker)
    }

    fn next_tick(&self) -> Option<Instant> {
        self.0.next_tick()
    }

    fn polls_because(&self) -> Option<PollReason> {
        self.0.polls_because()
    }

    fn last_chance(&mut self) -> Result<Option<Answer>> {
        self.0.last_chance()
    }
}

// ----------------------------------------------------------------------------------------- helpers

type Job = Box<dyn FnOnce() + Send>;

/// The helper threads of this process.
struct Helpers {
    /// Those that wait for a job.
    idle: usize,
    /// Those that make a call whose caller has given up.
    abandoned: usize,
    futures: usize,
    latest: u64,
    /// The calls that no helper has begun.
    jobs: SortedMap<u64, Job>,
}

impl Helpers {
    const NONE: Self =
        Self { idle: 0, abandoned: 0, futures: 0, latest: 0, jobs: SortedMap::new() };

    fn next_job(&mut self) -> Option<Job> {
        let first = self.jobs.iter().next().map(|(number, _)| *number)?;
        self.jobs.remove(&first)
    }
}

static HELPERS: ForkSafe<Helpers> = ForkSafe::new(Helpers::NONE, |()| Helpers::NONE);

thread_local! {
    static IS_HELPER: Cell<bool> = const { Cell::new(false) };
    /// The progress of the call that this helper makes.
    static PROGRESS: RefCell<Option<Arc<AtomicUsize>>> = const { RefCell::new(None) };
}

/// Whether this thread is a helper. What it calls stays in this thread.
fn is_helper() -> bool {
    IS_HELPER.get()
}

/// Lets a helper run the job. If no helper can be started, this thread runs it.
fn start(job: Job) -> u64 {
    let mut helpers = HELPERS.lock();
    helpers.latest += 1;
    let number = helpers.latest;
    helpers.jobs.insert(number, job);
    if helpers.idle >= helpers.jobs.len() {
        drop(helpers);
        HELPERS.notify();
    } else if helpers.abandoned < MAX_ABANDONED
        && sync::start("flockwork-remote", STACK, run_jobs).is_err()
    {
        let job = helpers.jobs.remove(&number);
        drop(helpers);
        if let Some(job) = job {
            IS_HELPER.set(true);
            job();
            IS_HELPER.set(false);
        }
    }
    // Otherwise the first helper that is free takes the job.
    number
}

fn run_jobs() {
    IS_HELPER.set(true);
    let mut helpers: MutexGuard<'_, Helpers> = HELPERS.lock();
    loop {
        if let Some(job) = helpers.next_job() {
            drop(helpers);
            job();
            helpers = HELPERS.lock();
            continue;
        }
        helpers.idle += 1;
        let (woken, timed_out) = HELPERS.wait(helpers, KEEPALIVE);
        helpers = woken;
        helpers.idle = helpers.idle.saturating_sub(1);
        if timed_out && helpers.jobs.is_empty() {
            return;
        }
    }
}

/// One of the helpers that futures may have.
struct FuturePlace;

impl FuturePlace {
    fn take() -> Option<Self> {
        let mut helpers = HELPERS.lock();
        let is_free = helpers.futures + helpers.abandoned < MAX_FUTURES;
        helpers.futures += usize::from(is_free);
        is_free.then(|| Self) // `then_some` would also create and drop one that is not free
    }
}

impl Drop for FuturePlace {
    fn drop(&mut self) {
        let mut helpers = HELPERS.lock();
        helpers.futures = helpers.futures.saturating_sub(1);
    }
}
