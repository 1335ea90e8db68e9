//! A token by which a program ends its waits from outside.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::task::Waker;

use crate::fork_safe::ForkSafe;

/// A token that ends waits from another thread, for example when the user presses Ctrl-C.
///
/// [`Options::cancel`](crate::Options::cancel) gives it to a handle. [`cancel`](Self::cancel) then
/// ends every wait of that handle within a millisecond, in every form: blocking, timed and async.
/// Each returns an error of kind [`Cancelled`](crate::ErrorKind::Cancelled). Until then a wait
/// keeps its place in the queue, which a loop of short timeouts does not, and afterwards it holds
/// nothing.
///
/// Clones are the same token, and one token may serve any number of handles. A token stays
/// cancelled: later waits of its handles fail immediately, even if they would not have to wait.
/// The `try_` forms ignore it, and so do locks that are held already. Work that the program does
/// under a lock can check [`is_cancelled`](Self::is_cancelled).
///
/// # Examples
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("build.lock");
/// use flockwork::{Cancel, Lock, Options};
///
/// let held = Lock::open(&path)?.lock()?;
///
/// let cancel = Cancel::new();
/// let lock = Options::new().cancel(&cancel).open_lock(&path)?;
/// std::thread::spawn(move || cancel.cancel()); // a Ctrl-C handler, for example
/// assert!(lock.lock().unwrap_err().is_cancelled());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Caveats
///
/// * `cancel` takes a mutex and calls wakers, so a signal handler in the sense of `sigaction` must
///   not call it. A handler of the `ctrlc` crate, or a thread that reads signals, may.
/// * A copy that `fork` makes of the token is a separate one.
#[derive(Clone, Default)]
pub struct Cancel {
    shared: Arc<Shared>,
}

struct Shared {
    is_cancelled: AtomicBool,
    waits: ForkSafe<Waits>,
}

impl Default for Shared {
    fn default() -> Self {
        let waits = ForkSafe::new(Waits::default(), |()| Waits::default());
        Self { is_cancelled: AtomicBool::new(false), waits }
    }
}

/// The waits to wake.
#[derive(Default)]
struct Waits {
    latest: u64,
    wakers: Vec<(u64, Waker)>,
}

impl Cancel {
    /// Creates a token that is not cancelled.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends all waits of the handles that have this token.
    pub fn cancel(&self) {
        self.shared.is_cancelled.store(true, Ordering::SeqCst);
        // A wait that registers after this finds the flag.
        fence(Ordering::SeqCst);
        let wakers = std::mem::take(&mut self.shared.waits.lock().wakers);
        for (_, waker) in wakers {
            // A waker that panics must not keep the others from being called.
            let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
    }

    /// Returns whether [`cancel`](Self::cancel) was called.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.shared.is_cancelled.load(Ordering::SeqCst)
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancel").field("is_cancelled", &self.is_cancelled()).finish_non_exhaustive()
    }
}

/// The tokens that end one wait.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cancels(Vec<Cancel>);

impl Cancels {
    pub(crate) fn add(&mut self, token: &Cancel) {
        if !self.0.iter().any(|known| known.is(token)) {
            self.0.push(token.clone());
        }
    }

    pub(crate) fn extend(&mut self, others: &Self) {
        others.0.iter().for_each(|token| self.add(token));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.iter().any(Cancel::is_cancelled)
    }
}

/// A wait that tokens may end. Dropping it withdraws its waker.
#[derive(Debug, Default)]
pub(crate) struct CancelRegistration {
    cancels: Cancels,
    /// The number of the wait at each token, and its waker.
    registered: Option<(Vec<u64>, Waker)>,
}

impl CancelRegistration {
    pub(crate) fn new(cancels: Cancels) -> Self {
        Self { cancels, registered: None }
    }

    /// Whether any token may end the wait.
    pub(crate) fn is_needed(&self) -> bool {
        !self.cancels.is_empty()
    }

    /// Registers the waker, and returns whether the wait was cancelled. No cancellation is lost:
    /// the waker is registered before the flag is read.
    pub(crate) fn is_cancelled(&mut self, waker: &Waker) -> bool {
        let is_known = |(_, known): &(Vec<u64>, Waker)| known.will_wake(waker);
        if self.is_needed() && !self.registered.as_ref().is_some_and(is_known) {
            self.withdraw();
            let register = |token: &Cancel| {
                let mut waits = token.shared.waits.lock();
                waits.latest += 1;
                let number = waits.latest;
                waits.wakers.push((number, waker.clone()));
                number
            };
            let numbers = self.cancels.0.iter().map(register).collect();
            self.registered = Some((numbers, waker.clone()));
            fence(Ordering::SeqCst);
        }
        self.cancels.is_cancelled()
    }

    fn withdraw(&mut self) {
        let Some((numbers, _)) = self.registered.take() else { return };
        for (token, number) in self.cancels.0.iter().zip(numbers) {
            let mut waits = token.shared.waits.lock();
            let withdrawn = waits.wakers.iter().position(|(known, _)| *known == number);
            let withdrawn = withdrawn.map(|index| waits.wakers.swap_remove(index));
            drop(waits);
            drop(withdrawn); // a waker may run code when it is dropped
        }
    }
}

impl Drop for CancelRegistration {
    fn drop(&mut self) {
        self.withdraw();
    }
}
