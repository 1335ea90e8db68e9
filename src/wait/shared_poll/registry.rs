//! The waiters of each polled directory, shared by the waiters and the threads that poll. Nothing
//! here reads a directory.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use super::super::wake;
use super::PolledTarget;
use super::listing::{Interest, Listing};
use super::poller;
use crate::fork_safe::{ForkSafe, MutexGuard};
use crate::sorted_map::SortedMap;
use crate::sys::Origin;

/// The directories that have a thread.
#[derive(Default)]
pub(super) struct PollRegistry {
    pub(super) directories: SortedMap<Arc<Path>, PolledDir>,
}

/// A directory, which has a thread.
#[derive(Default)]
pub(super) struct PolledDir {
    /// The number of its thread.
    pub(super) thread: u64,
    pub(super) users: SortedMap<u64, Arc<PollUser>>,
    /// Wakes the thread.
    pub(super) waker: Option<Waker>,
    /// How many waiters have joined.
    pub(super) joined: u64,
}

static REGISTRY: ForkSafe<PollRegistry> =
    ForkSafe::new(PollRegistry { directories: SortedMap::new() }, |()| PollRegistry {
        directories: SortedMap::new(),
    });
/// The next number of a subscription or a thread. It is not reset in a forked copy.
static NUMBERS: AtomicU64 = AtomicU64::new(1);
/// A process has at most this many threads that poll. Further waiters poll themselves.
const MAX_THREADS: usize = 64;
/// The maximum number of listings that a waiter does not check after, see [`PollUser::compare`].
const MAX_SKIPPED: u32 = 31;

pub(super) fn registry() -> MutexGuard<'static, PollRegistry> {
    REGISTRY.lock()
}

pub(super) fn next_number() -> u64 {
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

/// Whether a thread polls for a waiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// A thread was asked to, and has not listed the directory yet.
    Requested,
    Yes,
    No,
}

/// One waiter, as the thread sees it.
pub(super) struct PollUser {
    interest: Interest,
    /// Counts the reasons to check.
    hints: AtomicU64,
    inner: Mutex<Inner>,
}

struct Inner {
    answer: Answer,
    waker: Option<Waker>,
    /// The version of the listing that disagreed with the waiter last.
    version: u64,
    /// How many listings of that version to skip, and how many were.
    skips: u32,
    skipped: u32,
}

impl PollUser {
    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts first and wakes last. So a waiter that reads the count after registering its waker
    /// sees the hint or is woken (W1).
    fn notify(&self, mut inner: std::sync::MutexGuard<'_, Inner>) {
        self.hints.fetch_add(1, Ordering::SeqCst);
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            wake(waker);
        }
    }

    fn answer(&self, answer: Answer) {
        let mut inner = self.inner();
        if inner.answer != answer {
            inner.answer = answer;
            self.notify(inner);
        }
    }

    /// The thread polls for this waiter from now on.
    pub(super) fn accept(&self) {
        self.answer(Answer::Yes);
    }

    /// No thread polls for this waiter any more.
    pub(super) fn refuse(&self) {
        self.answer(Answer::No);
    }

    /// Makes the waiter check, if a check after this listing may succeed.
    ///
    /// The listing is compared with what the waiter waits for and not with the listing before it:
    /// a change between two listings that another change reverts would otherwise hide that the
    /// waiter's own check came between the two (rule E9). If the check fails although the listing
    /// stays the same (one of several names is there), the waiter skips the next listing, then 3,
    /// 7, 15 and 31.
    pub(super) fn compare(&self, listing: &Listing, version: u64) {
        let may_be_met = self.interest.may_be_met(listing);
        let mut inner = self.inner();
        if !may_be_met || inner.version != version {
            (inner.version, inner.skips, inner.skipped) = (version, 0, 0);
        }
        if !may_be_met {
            return;
        }
        if inner.skipped < inner.skips {
            inner.skipped += 1;
            return;
        }
        inner.skips = (inner.skips * 2 + 1).min(MAX_SKIPPED);
        inner.skipped = 0;
        self.notify(inner);
    }
}

/// A waiter of a directory, which ends when dropped.
pub(super) struct Subscription {
    number: u64,
    directory: Arc<Path>,
    user: Arc<PollUser>,
    /// Where it was created: in a forked copy no thread polls for it.
    origin: Origin,
}

impl Subscription {
    /// Returns immediately. The waiter is notified when the answer is known.
    pub(super) fn new(target: &PolledTarget) -> Self {
        let inner = Inner { answer: Answer::No, waker: None, version: 0, skips: 0, skipped: 0 };
        let user = PollUser {
            interest: Interest::of(target),
            hints: AtomicU64::new(0),
            inner: Mutex::new(inner),
        };
        let this = Self {
            number: next_number(),
            directory: Arc::clone(&target.directory),
            user: Arc::new(user),
            origin: Origin::here(),
        };
        this.request();
        this
    }

    /// Asks for a thread, also if an earlier one has ended.
    pub(super) fn request(&self) {
        if !self.origin.is_here() {
            return;
        }
        let mut registry = registry();
        if !registry.directories.contains_key(&self.directory) {
            if registry.directories.len() >= MAX_THREADS {
                return;
            }
            let thread = next_number();
            if !poller::start(&self.directory, thread) {
                return;
            }
            let polled = PolledDir { thread, ..PolledDir::default() };
            registry.directories.insert(Arc::clone(&self.directory), polled);
        }
        let polled = registry.directories.get_or_default(Arc::clone(&self.directory));
        self.user.inner().answer = Answer::Requested;
        polled.users.insert(self.number, Arc::clone(&self.user));
        polled.joined += 1;
        let waker = polled.waker.clone();
        drop(registry);
        if let Some(waker) = waker {
            wake(waker);
        }
    }

    /// Sets the waker that is woken from now on.
    pub(super) fn register(&self, waker: &Waker) {
        // In a forked copy a thread that the copy does not have may hold the mutex (rule 4).
        if !self.origin.is_here() {
            return;
        }
        let inner = self.user.inner();
        if inner.waker.as_ref().is_some_and(|old| old.will_wake(waker)) {
            return;
        }
        drop(inner);
        // Cloned and dropped without the mutex (Q6).
        let new = waker.clone();
        let old = self.user.inner().waker.replace(new);
        drop(old);
    }

    pub(super) fn hints(&self) -> u64 {
        self.user.hints.load(Ordering::SeqCst)
    }

    fn has(&self, answer: Answer) -> bool {
        self.origin.is_here() && self.user.inner().answer == answer
    }

    /// Whether a thread polls for it.
    pub(super) fn is_polled(&self) -> bool {
        self.has(Answer::Yes)
    }

    pub(super) fn is_refused(&self) -> bool {
        !self.origin.is_here() || self.has(Answer::No)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if !self.origin.is_here() {
            return;
        }
        let mut registry = registry();
        let (mut user, mut waker) = (None, None);
        if let Some(polled) = registry.directories.get_mut(&self.directory) {
            user = polled.users.remove(&self.number);
            // A thread without waiters stops polling.
            waker = polled.waker.clone().filter(|_| polled.users.is_empty());
        }
        drop(registry);
        drop(user);
        if let Some(waker) = waker {
            wake(waker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    fn user(until_absent: bool) -> PollUser {
        let names = [OsString::from("ready")].into();
        let target = PolledTarget { directory: Path::new("d").into(), names, until_absent };
        PollUser {
            interest: Interest::of(&target),
            hints: AtomicU64::new(0),
            inner: Mutex::new(Inner {
                answer: Answer::Requested,
                waker: None,
                version: 0,
                skips: 0,
                skipped: 0,
            }),
        }
    }

    fn listing(names: &[&str]) -> Listing {
        Listing::of(&names.iter().map(OsString::from).collect::<Vec<_>>())
    }

    /// Compares with each listing, and returns how often the waiter was made to check.
    fn hints(user: &PollUser, listings: &[&Listing]) -> u64 {
        let before = user.hints.load(Ordering::SeqCst);
        for listing in listings {
            user.compare(listing, listing.version());
        }
        user.hints.load(Ordering::SeqCst) - before
    }

    /// The event was cleared and set again between two listings, and the waiter checked in between.
    #[test]
    fn a_change_that_two_equal_listings_hide_is_noticed() {
        limit!();
        let (set, clear) = (&listing(&["other", "ready"]), &listing(&["other"]));
        for (until_absent, before) in [(false, set), (true, clear)] {
            let user = user(until_absent);
            assert_eq!(hints(&user, &[before]), 1, "the first listing after its check");
        }
        let user = user(false);
        assert_eq!(hints(&user, &[clear, clear]), 0);
        assert_eq!(hints(&user, &[set]), 1);
        assert_eq!(hints(&user, &[clear, set, clear, set]), 2);
    }

    /// Otherwise a waiter for two events, of which one is set, would check after each listing.
    #[test]
    fn a_check_that_fails_is_repeated_less_and_less_often() {
        limit!();
        let set = &listing(&["ready"]);
        let user = user(false);
        assert_eq!(hints(&user, &[set; 100]), 7, "listings 1, 3, 7, 15, 31, 63 and 95");
        assert_eq!(hints(&user, &[&listing(&["new", "ready"])]), 1);
    }
}
