//! A value that each process has for itself, with a condition to wait for its changes. `fork`
//! copies a mutex as it is at that moment, perhaps locked by a thread that the copy does not have:
//! nobody would ever unlock it there.

use std::sync::PoisonError;
use std::time::Duration;

use once_cell::race::OnceBox;

pub(crate) use crate::sync::MutexGuard;
use crate::sync::{Condvar, Mutex};
use crate::sys::Origin;

pub(crate) struct ForkSafe<T: 'static, C: 'static = ()> {
    /// The process that used it first. No `OnceLock`: a fork while another thread fills one leaves
    /// the copy to wait for that thread, which it does not have (rule 4).
    origin: OnceBox<Origin>,
    value: Mutex<T>,
    /// Of that mutex alone: some systems know only conditions that belong to one.
    changed: Condvar,
    /// Of the process that was forked from that one, and used it.
    next: OnceBox<Self>,
    /// Builds the value with which a copy begins, from the context.
    context: C,
    anew: fn(&C) -> T,
}

impl<T: std::fmt::Debug, C> std::fmt::Debug for ForkSafe<T, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.value.fmt(f)
    }
}

impl<T> ForkSafe<T> {
    pub(crate) const fn new(value: T, anew: fn(&()) -> T) -> Self {
        Self::with_context(value, (), anew)
    }
}

impl<T, C: Clone> ForkSafe<T, C> {
    pub(crate) const fn with_context(value: T, context: C, anew: fn(&C) -> T) -> Self {
        Self {
            origin: OnceBox::new(),
            value: Mutex::new(value),
            changed: Condvar::new(),
            next: OnceBox::new(),
            context,
            anew,
        }
    }

    fn origin(&self) -> &Origin {
        self.origin.get_or_init(|| Box::new(Origin::here()))
    }

    fn begun(&self) -> T {
        (self.anew)(&self.context)
    }

    fn own(&self) -> &Self {
        let mut this = self;
        while !this.origin().is_here() {
            this = this.next.get_or_init(|| {
                // What is left of the other process's is let go, unless it was locked when it was
                // copied.
                let stale = this.value.try_lock().ok();
                let stale = stale.map(|mut value| std::mem::replace(&mut *value, self.begun()));
                drop(stale); // somebody else's code, perhaps: the mutex is free again (Q6)
                Box::new(Self::with_context(self.begun(), self.context.clone(), self.anew))
            });
        }
        this
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.own().value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the one thread that waits for a change.
    pub(crate) fn notify(&self) {
        self.own().changed.notify_one();
    }

    /// Wakes all threads that wait for a change.
    pub(crate) fn notify_all(&self) {
        self.own().changed.notify_all();
    }

    /// Waits for a change, or so long: then `true`.
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
