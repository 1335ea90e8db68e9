//! A value of which each process has its own, with a condition to wait for its changes. `fork`
//! copies a mutex as it is at that moment, perhaps locked by a thread that the copy does not have:
//! no thread would ever unlock it there.

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
    /// For that mutex alone: on some systems a condition belongs to one mutex.
    changed: Condvar,
    /// The value of the process that was forked from that one, and used it.
    next: OnceBox<Self>,
    /// Builds the value with which a forked copy begins, from the context.
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

    fn own(&self) -> &Self {
        let mut this = self;
        while !this.origin().is_here() {
            this = this.next.get_or_init(|| {
                // The other process's value is dropped, unless it was locked when it was copied.
                let stale = this.value.try_lock().ok();
                let stale =
                    stale.map(|mut value| std::mem::replace(&mut *value, self.initial_value()));
                drop(stale); // perhaps a caller's code: the mutex is free again (Q6)
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

    /// Wakes the one thread that waits for a change.
    pub(crate) fn notify(&self) {
        self.own().changed.notify_one();
    }

    /// Wakes all threads that wait for a change.
    pub(crate) fn notify_all(&self) {
        self.own().changed.notify_all();
    }

    /// Waits for a change, at most `span`. Returns `true` when that has passed.
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
