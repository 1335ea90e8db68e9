//! What they fight for, and what can be broken on purpose.

use std::time::Duration;

use flockwork::{Event, Lock, Once, Options, RwLock, Semaphore, SharedFile};

use crate::dice::Dice;

pub(crate) const WORKERS: u32 = 8;
/// Of each worker.
pub(crate) const THREADS: u32 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Lock,
    RwLock,
    /// With so many permits.
    Semaphore(u32),
    /// With `ELASTIC` permits: resized again and again.
    Elastic,
    /// Set and cleared by the witness.
    Flag,
    /// Each setting is consumed by exactly one.
    Mailbox,
    /// Set, cleared, consumed and looked at by all.
    Loose,
    Once,
    SharedFile,
}

pub(crate) const ELASTIC: std::ops::RangeInclusive<u32> = 2..=5;

#[derive(Debug)]
pub(crate) struct Thing {
    pub(crate) path: &'static str,
    pub(crate) what: What,
    /// Its files are removed and replaced while they are in use. Then old and new holders may meet: nothing is
    /// promised but that each call comes back with success or a typed error, and that the next one works.
    pub(crate) is_in_the_yard: bool,
    /// How often it is picked.
    weight: u64,
}

const fn thing(path: &'static str, what: What, weight: u64) -> Thing {
    Thing { path, what, is_in_the_yard: false, weight }
}

const fn in_the_yard(path: &'static str, what: What) -> Thing {
    Thing { path, what, is_in_the_yard: true, weight: 1 }
}

pub(crate) const THINGS: &[Thing] = &[
    thing("lock.a", What::Lock, 5),
    thing("lock.b", What::Lock, 4),
    thing("rwlock.a", What::RwLock, 5),
    thing("rwlock.b", What::RwLock, 4),
    thing("three", What::Semaphore(3), 6),
    thing("one", What::Semaphore(1), 4),
    thing("elastic", What::Elastic, 3),
    thing("flag", What::Flag, 2),
    thing("mailbox", What::Mailbox, 5),
    thing("loose", What::Loose, 2),
    thing("once", What::Once, 4),
    thing("shared", What::SharedFile, 5),
    in_the_yard("yard/lock", What::Lock),
    in_the_yard("yard/rwlock", What::RwLock),
    in_the_yard("yard/semaphore", What::Semaphore(2)),
    in_the_yard("yard/deep/er/event", What::Loose),
    in_the_yard("yard/once", What::Once),
    in_the_yard("yard/shared", What::SharedFile),
];

/// The lock of those who set the mailbox, each of whom wants to be heard.
pub(crate) const SENDERS: &str = "mailbox.senders";

pub(crate) fn pick(dice: &mut Dice) -> usize {
    let all = THINGS.iter().map(|thing| thing.weight).sum();
    let mut left = dice.below(all);
    for (at, thing) in THINGS.iter().enumerate() {
        match left.checked_sub(thing.weight) {
            Some(less) => left = less,
            None => return at,
        }
    }
    0
}

pub(crate) fn position(what: What) -> usize {
    THINGS.iter().position(|thing| thing.what == what).unwrap_or(0)
}

/// A thing, opened.
pub(crate) enum Handle {
    Lock(Lock),
    RwLock(RwLock),
    Semaphore(Semaphore),
    Event(Event),
    Once(Once),
    SharedFile(SharedFile),
}

impl Handle {
    /// With the settings that chance picks: a label, polling, or no backstop, so that a wake-up that is lost is not
    /// made up for within a second but is found.
    pub(crate) fn open(
        directory: &std::path::Path,
        thing: &Thing,
        dice: &mut Dice,
    ) -> flockwork::Result<Self> {
        let plain = Options::new();
        let options = match dice.below(10) {
            0 => plain.label("torture"),
            1 => plain.poll_every(Duration::from_millis(2)),
            2..=5 if !thing.is_in_the_yard => plain.backstop(Duration::from_secs(3600)),
            _ => plain,
        };
        let path = directory.join(thing.path);
        Ok(match thing.what {
            What::Lock => Self::Lock(options.open_lock(path)?),
            What::RwLock => Self::RwLock(options.open_rwlock(path)?),
            What::Semaphore(permits) => Self::Semaphore(options.open_semaphore(path, permits)?),
            What::Elastic => Self::Semaphore(options.open_existing_semaphore(path)?),
            What::Flag | What::Mailbox | What::Loose => Self::Event(options.open_event(path)?),
            What::Once => Self::Once(options.open_once(path)?),
            What::SharedFile => Self::SharedFile(options.open_shared_file(path)?),
        })
    }
}

/// What can be broken on purpose, to see that it is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Breakage {
    /// They go in without the lock, write with a reader's, go in without a permit.
    Lock,
    RwLock,
    Semaphore,
    /// It is done while somebody does it.
    Once,
    /// Somebody writes the shared file without its lock.
    LostUpdate,
    /// Half of a shared file is written.
    Tear,
    /// What was consumed is put back.
    Event,
    /// A capacity is said to be smaller than it is.
    Capacity,
    /// A permit is never given back.
    Permit,
    /// Somebody waits for what is free.
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
