//! The primitives that all workers use, and how a worker opens them.

use std::time::Duration;

use flockwork::{Barrier, Event, Lock, Once, Options, RwLock, Semaphore, SharedFile};

use crate::rng::Rng;

pub(crate) const WORKERS: u32 = 8;
/// The threads of each worker.
pub(crate) const THREADS: u32 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PrimitiveKind {
    Lock,
    RwLock,
    /// A semaphore with this number of permits.
    Semaphore(u32),
    /// A semaphore that is resized again and again, within `ELASTIC_CAPACITY`.
    Elastic,
    /// An event that the monitor sets and clears.
    Flag,
    /// An event whose every payload is consumed exactly once.
    Mailbox,
    /// An event that all workers set, clear, consume and read.
    AnyUse,
    Once,
    SharedFile,
    /// A barrier for this number of participants.
    Barrier(u32),
}

/// The participants of the barrier that is not tampered with.
pub(crate) const BARRIER_PARTIES: u32 = 3;
pub(crate) const ELASTIC_CAPACITY: std::ops::RangeInclusive<u32> = 2..=5;

#[derive(Debug)]
pub(crate) struct Primitive {
    pub(crate) path: &'static str,
    pub(crate) kind: PrimitiveKind,
    /// The files are removed and replaced while they are in use, so old and new holders may
    /// overlap. Each call only has to return success or a typed error, and later calls must work.
    pub(crate) is_tampered_with: bool,
    /// How often it is picked, relative to the others.
    weight: u64,
}

const fn primitive(path: &'static str, kind: PrimitiveKind, weight: u64) -> Primitive {
    Primitive { path, kind, is_tampered_with: false, weight }
}

const fn tampered_with(path: &'static str, kind: PrimitiveKind) -> Primitive {
    Primitive { path, kind, is_tampered_with: true, weight: 1 }
}

pub(crate) const PRIMITIVES: &[Primitive] = &[
    primitive("lock.a", PrimitiveKind::Lock, 5),
    primitive("lock.b", PrimitiveKind::Lock, 4),
    primitive("rwlock.a", PrimitiveKind::RwLock, 5),
    primitive("rwlock.b", PrimitiveKind::RwLock, 4),
    primitive("three", PrimitiveKind::Semaphore(3), 6),
    primitive("one", PrimitiveKind::Semaphore(1), 4),
    primitive("elastic", PrimitiveKind::Elastic, 3),
    primitive("flag", PrimitiveKind::Flag, 2),
    primitive("mailbox", PrimitiveKind::Mailbox, 5),
    primitive("loose", PrimitiveKind::AnyUse, 2),
    primitive("once", PrimitiveKind::Once, 4),
    primitive("shared", PrimitiveKind::SharedFile, 5),
    primitive("barrier", PrimitiveKind::Barrier(BARRIER_PARTIES), 8),
    tampered_with("tampered/lock", PrimitiveKind::Lock),
    tampered_with("tampered/rwlock", PrimitiveKind::RwLock),
    tampered_with("tampered/semaphore", PrimitiveKind::Semaphore(2)),
    tampered_with("tampered/deep/er/event", PrimitiveKind::AnyUse),
    tampered_with("tampered/once", PrimitiveKind::Once),
    tampered_with("tampered/shared", PrimitiveKind::SharedFile),
    tampered_with("tampered/barrier", PrimitiveKind::Barrier(2)),
];

/// The lock that the senders to the mailbox hold, so that none overwrites another one's payload.
pub(crate) const SENDER_LOCK: &str = "mailbox.senders";

/// Picks a primitive by weight and returns its index.
pub(crate) fn pick(rng: &mut Rng) -> usize {
    let all = PRIMITIVES.iter().map(|primitive| primitive.weight).sum();
    let mut left = rng.below(all);
    for (index, primitive) in PRIMITIVES.iter().enumerate() {
        match left.checked_sub(primitive.weight) {
            Some(rest) => left = rest,
            None => return index,
        }
    }
    0
}

/// Returns the index of the first primitive of that kind.
pub(crate) fn position(kind: PrimitiveKind) -> usize {
    PRIMITIVES.iter().position(|primitive| primitive.kind == kind).unwrap_or(0)
}

/// An open primitive.
pub(crate) enum Handle {
    Lock(Lock),
    RwLock(RwLock),
    Semaphore(Semaphore),
    Event(Event),
    Once(Once),
    SharedFile(SharedFile),
    Barrier(Barrier),
}

impl Handle {
    /// Opens a primitive with random options: a label, polling, or a backstop of an hour, so that a
    /// lost notification is detected instead of repaired within a second.
    pub(crate) fn open(
        directory: &std::path::Path,
        primitive: &Primitive,
        rng: &mut Rng,
    ) -> flockwork::Result<Self> {
        let default = Options::new();
        let options = match rng.below(10) {
            0 => default.label("torture"),
            1 => default.poll_interval(Duration::from_millis(2)),
            2..=5 if !primitive.is_tampered_with => default.backstop(Duration::from_secs(3600)),
            _ => default,
        };
        let path = directory.join(primitive.path);
        Ok(match primitive.kind {
            PrimitiveKind::Lock => Self::Lock(options.open_lock(path)?),
            PrimitiveKind::RwLock => Self::RwLock(options.open_rwlock(path)?),
            PrimitiveKind::Semaphore(permits) => {
                Self::Semaphore(options.open_semaphore(path, permits)?)
            }
            PrimitiveKind::Elastic => Self::Semaphore(options.open_existing_semaphore(path)?),
            PrimitiveKind::Flag | PrimitiveKind::Mailbox | PrimitiveKind::AnyUse => {
                Self::Event(options.open_event(path)?)
            }
            PrimitiveKind::Once => Self::Once(options.open_once(path)?),
            PrimitiveKind::SharedFile => Self::SharedFile(options.open_shared_file(path)?),
            PrimitiveKind::Barrier(parties) => Self::Barrier(options.open_barrier(path, parties)?),
        })
    }
}
