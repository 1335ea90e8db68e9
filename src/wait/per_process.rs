//! A static that each process has for itself. `fork` copies a mutex as it is at that moment, perhaps locked by a
//! thread that the copy does not have: nobody would ever unlock it there. Names `sys` (which tells a copy).

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::sys::Origin;

pub(super) struct PerProcess<T: 'static> {
    /// Whose it is: of the process that used it first.
    origin: OnceLock<Origin>,
    value: Mutex<T>,
    /// Of the process that was forked from that one, and used it.
    next: OnceLock<Box<Self>>,
    /// What a copy begins with.
    anew: fn() -> T,
}

impl<T> PerProcess<T> {
    pub(super) const fn new(value: T, anew: fn() -> T) -> Self {
        Self { origin: OnceLock::new(), value: Mutex::new(value), next: OnceLock::new(), anew }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        let mut this = self;
        while !this.origin.get_or_init(Origin::here).is_here() {
            this = this.next.get_or_init(|| {
                // What is left of the other process's is let go, unless it was locked when it was copied.
                let stale = this.value.try_lock().ok();
                let stale = stale.map(|mut value| std::mem::replace(&mut *value, (self.anew)()));
                drop(stale); // somebody else's code, perhaps: the mutex is free again (Q6)
                Box::new(Self::new((self.anew)(), self.anew))
            });
        }
        this.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
