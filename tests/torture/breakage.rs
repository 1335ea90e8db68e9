//! The deliberate errors of `--break`, which the monitor must detect.

/// A deliberate error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Breakage {
    /// Threads enter without the lock.
    Lock,
    /// Threads write while they hold a shared lock.
    RwLock,
    /// Threads enter without a permit.
    Semaphore,
    /// Threads run the closure without the `Once`.
    Once,
    /// Threads pass the barrier without waiting.
    Barrier,
    /// Threads write the shared file without its lock.
    LostUpdate,
    /// Threads write an incomplete payload to the shared file.
    Tear,
    /// A consumed event is set again with the same payload.
    Event,
    /// A smaller capacity is recorded than the one that is set.
    Capacity,
    /// A permit is never released.
    Permit,
    /// A thread waits although the lock is free.
    Wake,
    /// A worker panics.
    Crash,
}

impl Breakage {
    const NAMES: &[(&str, Self)] = &[
        ("lock", Self::Lock),
        ("rwlock", Self::RwLock),
        ("semaphore", Self::Semaphore),
        ("once", Self::Once),
        ("barrier", Self::Barrier),
        ("lost-update", Self::LostUpdate),
        ("tear", Self::Tear),
        ("event", Self::Event),
        ("capacity", Self::Capacity),
        ("permit", Self::Permit),
        ("wake", Self::Wake),
        ("crash", Self::Crash),
    ];

    pub(crate) fn named(word: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(name, _)| *name == word).map(|(_, breakage)| *breakage)
    }

    pub(crate) fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, other)| *other == self).map_or("", |(name, _)| *name)
    }
}
