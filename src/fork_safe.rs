//! A mutex and condition variable with a separate value in each process. `fork` copies an ordinary
//! mutex in its current state: if another thread has it locked, it stays locked in the child
//! forever, because that thread does not exist there.

use std::sync::PoisonError;
use std::time::Duration;

use once_cell::race::OnceBox;

pub(crate) use crate::sync::MutexGuard;
use crate::sync::{Condvar, Mutex};
use crate::sys::Origin;

/// A value that each process initializes for itself, and a condition variable for its changes.
pub(crate) struct ForkSafe<T: 'static, C: 'static = ()> {
    /// The process that used this value first. It is not a `OnceLock`: if another thread
    /// initializes one during a fork, the child waits for that thread forever (rule 4).
    origin: OnceBox<Origin>,
    value: Mutex<T>,
    /// Used with `value` alone, since some systems bind a condition variable to one mutex.
    changed: Condvar,
    /// The value of a process that was forked from that one and has used it.
    next: OnceBox<Self>,
    /// The input from which `initial` builds the first value in a forked child.
    context: C,
    initial: fn(&C) -> T,
}

impl<T: std::fmt::Debug, C> std::fmt::Debug for ForkSafe<T, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.value.fmt(f)
    }
}

impl<T> ForkSafe<T> {
    pub(crate) const fn new(value: T, initial: fn(&()) -> T) -> Self {
        Self::with_context(value, (), initial)
    }
}

impl<T, C: Clone> ForkSafe<T, C> {
    pub(crate) const fn with_context(value: T, context: C, initial: fn(&C) -> T) -> Self {
        Self {
            origin: OnceBox::new(),
            value: Mutex::new(value),
            changed: Condvar::new(),
            next: OnceBox::new(),
            context,
            initial,
        }
    }

    fn origin(&self) -> &Origin {
        self.origin.get_or_init(|| Box::new(Origin::here()))
    }

    fn initial_value(&self) -> T {
        (self.initial)(&self.context)
    }

    /// The value that belongs to the calling process.
    fn own(&self) -> &Self {
        let mut this = self;
        while !this.origin().is_here() {
            this = this.next.get_or_init(|| {
                // The parent's value is dropped, unless it was locked at the moment of the fork.
                let stale = this.value.try_lock().ok();
                let stale =
                    stale.map(|mut value| std::mem::replace(&mut *value, self.initial_value()));
                drop(stale); // may run a caller's code, so the mutex is released first (rule Q6)
                Box::new(Self::with_context(
                    self.initial_value(),
                    self.context.clone(),
                    self.initial,
                ))
            });
        }
        this
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.own().value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes one thread that waits for a change.
    pub(crate) fn notify(&self) {
        self.own().changed.notify_one();
    }

    /// Wakes all threads that wait for a change.
    pub(crate) fn notify_all(&self) {
        self.own().changed.notify_all();
    }

    /// Waits for a change, at most `span`. Returns `true` if it timed out.
    pub(crate) fn wait<'a>(
        &'a self,
        guard: MutexGuard<'a, T>,
        span: Duration,
    ) -> (MutexGuard<'a, T>, bool) {
        let waited = self.own().changed.wait_timeout(guard, span);
        let (guard, result) = waited.unwrap_or_else(PoisonError::into_inner);
        (guard, result.timed_out())
    }
}
