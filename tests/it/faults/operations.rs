//! Every public operation as a child runs it: the preparation, the operation itself, and what it
//! holds or changes if it succeeds.

mod barriers;

use std::any::Any;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flockwork::{
    Access, Announcement, Barrier, BarrierWaitResult, Error, Event, Lock, Once, Options, RwLock,
    Semaphore, SharedFile, Status, inspect,
};
use futures_lite::future::block_on;

/// Longer than the harness waits for an answer.
const LONG: Duration = Duration::from_secs(600);

/// The handles and guards of a child.
pub(super) struct Kit {
    dir: PathBuf,
    lock: Option<Lock>,
    rwlock: Option<RwLock>,
    semaphore: Option<Semaphore>,
    event: Option<Event>,
    once: Option<Once>,
    file: Option<SharedFile>,
    barrier: Option<Barrier>,
    /// Whether another participant of the barrier has been marked as arrived.
    is_marked: bool,
    /// Guards that the operation releases.
    prepared: Vec<Box<dyn Any>>,
    held: Vec<Box<dyn Any>>,
    /// Whether an operation that times out in the first run waits for its success instead.
    pub(super) is_patient: bool,
}

pub(super) type Answer = Result<String, Error>;

impl Kit {
    pub(super) fn new(dir: PathBuf) -> Self {
        let (prepared, held) = (Vec::new(), Vec::new());
        Self {
            dir,
            lock: None,
            rwlock: None,
            semaphore: None,
            event: None,
            once: None,
            file: None,
            barrier: None,
            is_marked: false,
            prepared,
            held,
            is_patient: false,
        }
    }

    pub(super) fn release(&mut self) {
        self.prepared.clear();
        self.held.clear();
    }

    fn short(&self) -> Duration {
        if self.is_patient { LONG } else { Duration::from_millis(30) }
    }

    fn it(&self) -> PathBuf {
        self.dir.join("it")
    }

    fn keep<T: Any>(&mut self, guard: Result<T, Error>) -> Answer {
        self.held.push(Box::new(guard?));
        Ok("held".into())
    }

    fn opened<T>(
        &mut self,
        opened: Result<T, Error>,
        into: fn(&mut Self) -> &mut Option<T>,
    ) -> Answer {
        *into(self) = Some(opened?);
        Ok("open".into())
    }

    fn prepared<T: Any>(&mut self) -> T {
        *self.prepared.pop().unwrap().downcast::<T>().unwrap()
    }

    fn lock(&self) -> Lock {
        self.lock.clone().unwrap()
    }

    fn rwlock(&self) -> RwLock {
        self.rwlock.clone().unwrap()
    }

    fn semaphore(&self) -> Semaphore {
        self.semaphore.clone().unwrap()
    }

    fn event(&self) -> Event {
        self.event.clone().unwrap()
    }

    fn once(&self) -> Once {
        self.once.clone().unwrap()
    }

    fn file(&self) -> SharedFile {
        self.file.clone().unwrap()
    }

    fn open_lock(&mut self, options: &Options) {
        let path = self.it();
        self.lock.get_or_insert_with(|| options.open_lock(path).unwrap());
    }

    fn open_rwlock(&mut self, options: &Options) {
        let path = self.it();
        self.rwlock.get_or_insert_with(|| options.open_rwlock(path).unwrap());
    }

    /// Opens the semaphore and creates all of its slots.
    fn open_semaphore(&mut self, options: &Options, permits: u32) {
        let path = self.it();
        let semaphore =
            self.semaphore.get_or_insert_with(|| options.open_semaphore(path, permits).unwrap());
        drop(semaphore.acquire_many(semaphore.capacity().unwrap()).unwrap());
    }

    fn open_event(&mut self) {
        let path = self.it();
        self.event.get_or_insert_with(|| Event::open(path).unwrap());
    }

    fn open_once(&mut self, options: &Options) {
        let path = self.it();
        self.once.get_or_insert_with(|| options.open_once(path).unwrap());
    }

    fn open_file(&mut self, options: &Options) {
        let path = self.it();
        let file = self.file.get_or_insert_with(|| options.open_shared_file(path).unwrap());
        drop(file.lock_exclusive().unwrap()); // Creates and opens its lock files.
        std::fs::write(self.it(), "old").unwrap();
    }
}

/// The actions of another process during the operation: the harness, which uses plain `flock(2)`
/// and plain files.
#[derive(Clone, Copy)]
pub(super) enum Meanwhile {
    Nothing,
    /// Holds these files (exclusively if `true`), and releases them when the operation waits.
    Held(&'static [(&'static str, bool)]),
    /// Holds these files, and releases them when the operation has ended.
    HeldToTheEnd(&'static [(&'static str, bool)]),
    /// Creates a directory and renames a file to this name when the operation waits.
    Creates(&'static str),
    Removes(&'static str),
    /// Renames the first of these when the operation waits as a participant of a barrier.
    Renames(&'static str, &'static str),
}

/// The changes that a failed operation may have made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Failed {
    /// No change, except that lock files may exist.
    Nothing,
    /// All changes or none.
    AllOrNothing,
    /// The barrier may be broken as well.
    Broken,
    /// The same, or the announcement of a dead process is removed and nothing else is changed.
    NothingOrCleared,
}

pub(super) struct Operation {
    pub(super) name: &'static str,
    pub(super) prepare: fn(&mut Kit),
    pub(super) act: fn(&mut Kit) -> Answer,
    pub(super) meanwhile: Meanwhile,
    /// The files that are locked after success, and whether exclusively. `slot` stands for one
    /// slot.
    pub(super) holds: &'static [(&'static str, bool)],
    /// The files that the child locks before the operation and keeps locked afterwards.
    pub(super) keeps: &'static [(&'static str, bool)],
    pub(super) failed: Failed,
    /// An answer that contains less information and is valid, too.
    pub(super) at_least: Option<&'static str>,
}

fn operation(name: &'static str, prepare: fn(&mut Kit), act: fn(&mut Kit) -> Answer) -> Operation {
    let (meanwhile, failed) = (Meanwhile::Nothing, Failed::AllOrNothing);
    Operation { name, prepare, act, meanwhile, holds: &[], keeps: &[], failed, at_least: None }
}

impl Operation {
    fn holds(self, holds: &'static [(&'static str, bool)]) -> Self {
        Self { holds, ..self }
    }

    fn keeps(self, keeps: &'static [(&'static str, bool)]) -> Self {
        Self { keeps, ..self }
    }

    fn against(self, meanwhile: Meanwhile) -> Self {
        Self { meanwhile, ..self }
    }

    fn at_least(self, at_least: &'static str) -> Self {
        Self { at_least: Some(at_least), ..self }
    }

    fn all_or(self, failed: Failed) -> Self {
        Self { failed, ..self }
    }
}

const IT: &[(&str, bool)] = &[("it", true)];
const IT_SHARED: &[(&str, bool)] = &[("it", false)];
const GATE: &[(&str, bool)] = &[("it.gate", true)];
const LOCK: &[(&str, bool)] = &[("it.flock", true)];
const LOCK_SHARED: &[(&str, bool)] = &[("it.flock", false)];
const SLOT: &[(&str, bool)] = &[("slot", true)];
const TWO_SLOTS: &[(&str, bool)] = &[("slot", true), ("slot", true)];
const BOTH_SLOTS: &[(&str, bool)] = &[("it/slot.0", true), ("it/slot.1", true)];
const ONLY_SLOT: &[(&str, bool)] = &[("it/slot.0", true)];

fn plain() -> Options {
    Options::new()
}

fn labelled() -> Options {
    Options::new().label("holder")
}

fn synced() -> Options {
    Options::new().fsync(true)
}

fn lock(kit: &mut Kit) {
    kit.open_lock(&plain());
}

fn labelled_lock(kit: &mut Kit) {
    kit.open_lock(&labelled());
}

fn rwlock(kit: &mut Kit) {
    kit.open_rwlock(&plain());
}

fn labelled_rwlock(kit: &mut Kit) {
    kit.open_rwlock(&labelled());
}

fn two_permits(kit: &mut Kit) {
    kit.open_semaphore(&plain(), 2);
}

fn one_permit(kit: &mut Kit) {
    kit.open_semaphore(&plain(), 1);
}

fn event(kit: &mut Kit) {
    kit.open_event();
}

fn cleared(kit: &mut Kit) {
    kit.open_event();
    kit.event().clear().unwrap();
}

/// Opens an event in a directory that does not exist.
fn without_directory(kit: &mut Kit) {
    let path = kit.dir.join("new/er/it");
    kit.event.get_or_insert_with(|| Event::open(path).unwrap());
    let _ = std::fs::remove_dir_all(kit.dir.join("new"));
}

fn set(kit: &mut Kit) {
    cleared(kit);
    kit.event().set_with(b"payload").unwrap();
}

fn announced(kit: &mut Kit) {
    cleared(kit);
    kit.prepared.push(Box::new(kit.event().set_while_alive("payload").unwrap()));
}

/// Leaves what a killed process that announced the event leaves (rule E8).
fn stale(kit: &mut Kit) {
    cleared(kit);
    let mark = std::time::UNIX_EPOCH + Duration::from_secs(1_097_623_926);
    std::fs::File::create(kit.it()).unwrap().set_modified(mark).unwrap();
}

fn once(kit: &mut Kit) {
    kit.open_once(&plain());
    kit.once().reset().unwrap();
}

fn synced_once(kit: &mut Kit) {
    kit.open_once(&synced());
    kit.once().reset().unwrap();
}

fn done(kit: &mut Kit) {
    once(kit);
    kit.once().call_once(|| Ok::<_, Error>(())).unwrap();
}

fn file(kit: &mut Kit) {
    kit.open_file(&plain());
}

fn synced_file(kit: &mut Kit) {
    kit.open_file(&synced());
}

fn text(bytes: Result<Vec<u8>, Error>) -> Answer {
    bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn said<T: ToString>(answer: Result<T, Error>) -> Answer {
    answer.map(|answer| answer.to_string())
}

fn ok(answer: Result<(), Error>) -> Answer {
    answer.map(|()| "ok".into())
}

fn of_status(status: Result<Status, Error>) -> Answer {
    status.map(|status| format!("{}, {}", status.is_held(), status.holders().len()))
}

#[expect(clippy::unnecessary_wraps, reason = "as a closure of `update`")]
fn longer(contents: &mut Vec<u8>) -> Result<(), Error> {
    contents.extend(b"er");
    Ok(())
}

pub(super) fn all() -> Vec<Operation> {
    let mut all = locks();
    all.extend(rwlocks());
    all.extend(semaphores());
    all.extend(permits());
    all.extend(waits_for_permits());
    all.extend(events());
    all.extend(announcements());
    all.extend(onces());
    all.extend(files());
    all.extend(barriers::barriers());
    all.extend(with_options());
    all
}

fn locks() -> Vec<Operation> {
    use Meanwhile::{Held, HeldToTheEnd};
    let nothing: fn(&mut Kit) = |_| {};
    vec![
        operation("Lock::open", nothing, |kit| {
            kit.opened(Lock::open(kit.it()), |kit| &mut kit.lock)
        }),
        operation("Lock::open, in new directories", nothing, |kit| {
            kit.opened(Lock::open(kit.dir.join("new/er/it")), |kit| &mut kit.lock)
        }),
        operation("Lock::open, with an access", nothing, |kit| {
            let options = plain().access(Access::Private);
            kit.opened(options.open_lock(kit.it()), |kit| &mut kit.lock)
        }),
        operation("Lock::open, of an old file", lock, |kit| {
            kit.opened(Lock::open(kit.it()), |kit| &mut kit.lock)
        }),
        operation("Lock::lock", lock, |kit| kit.keep(kit.lock().lock())).holds(IT),
        operation("Lock::try_lock", lock, |kit| kit.keep(kit.lock().try_lock())).holds(IT),
        operation("Lock::lock_timeout", lock, |kit| kit.keep(kit.lock().lock_timeout(LONG)))
            .holds(IT),
        operation("Lock::lock_async", lock, |kit| kit.keep(block_on(kit.lock().lock_async())))
            .holds(IT),
        operation("Lock::lock, with a label", labelled_lock, |kit| kit.keep(kit.lock().lock()))
            .holds(IT),
        operation(
            "Lock::lock, to be inherited",
            |kit| kit.open_lock(&plain().inherit(true)),
            |kit| kit.keep(kit.lock().lock()),
        )
        .holds(IT),
        operation("LockGuard::unlock", hold_lock, |kit| {
            ok(kit.prepared::<flockwork::LockGuard>().unlock())
        }),
        operation("LockGuard::unlock, with a label", hold_labelled_lock, |kit| {
            ok(kit.prepared::<flockwork::LockGuard>().unlock())
        }),
        operation("LockGuard, dropped", hold_labelled_lock, |kit| {
            drop(kit.prepared::<flockwork::LockGuard>());
            Ok("ok".into())
        }),
        operation("LockGuard::was_abandoned", hold_lock, |kit| {
            let guard: flockwork::LockGuard = kit.prepared();
            let abandoned = guard.was_abandoned();
            kit.held.push(Box::new(guard));
            Ok(abandoned.to_string())
        })
        .holds(IT),
        operation("Lock::holders, of a record", hold_labelled_lock, |kit| {
            let holders = kit.lock().holders()?;
            let holder = holders.first();
            Ok(holder.map_or("none", |it| it.label().unwrap_or("a process")).to_string())
        })
        .keeps(IT)
        .at_least("a process"),
        operation("Lock::holders, without a record", hold_lock, |kit| {
            Ok(kit.lock().holders()?.len().to_string())
        })
        .keeps(IT),
        operation("inspect", hold_lock, |kit| of_status(inspect(kit.it()))).keeps(IT),
        operation("inspect, with a label", hold_labelled_lock, |kit| of_status(inspect(kit.it())))
            .keeps(IT),
        operation("Lock::lock, waiting", lock, |kit| kit.keep(kit.lock().lock()))
            .holds(IT)
            .against(Held(IT)),
        operation("Lock::lock, waiting with a label", labelled_lock, |kit| {
            kit.keep(kit.lock().lock())
        })
        .holds(IT)
        .against(Held(IT)),
        operation("Lock::lock, waiting with a callback", noticed_lock, |kit| {
            kit.keep(kit.lock().lock())
        })
        .holds(IT)
        .against(Held(IT)),
        operation("Lock::lock_timeout, waiting", lock, |kit| {
            kit.keep(kit.lock().lock_timeout(LONG))
        })
        .holds(IT)
        .against(Held(IT)),
        operation("Lock::lock_async, waiting", lock, |kit| {
            kit.keep(block_on(kit.lock().lock_async()))
        })
        .holds(IT)
        .against(Held(IT)),
        operation("Lock::try_lock, while it is held", lock, |kit| kit.keep(kit.lock().try_lock()))
            .holds(IT)
            .against(HeldToTheEnd(IT)),
        operation("Lock::lock_timeout, timed out", lock, |kit| {
            kit.keep(kit.lock().lock_timeout(kit.short()))
        })
        .holds(IT)
        .against(HeldToTheEnd(IT)),
    ]
}

fn noticed_lock(kit: &mut Kit) {
    kit.open_lock(&plain().on_wait(
        Duration::from_millis(1),
        Duration::from_millis(1),
        |waiting| drop(waiting.to_string()),
    ));
}

fn hold_lock(kit: &mut Kit) {
    lock(kit);
    kit.prepared.push(Box::new(kit.lock().lock().unwrap()));
}

fn hold_labelled_lock(kit: &mut Kit) {
    labelled_lock(kit);
    kit.prepared.push(Box::new(kit.lock().lock().unwrap()));
}

fn rwlocks() -> Vec<Operation> {
    use Meanwhile::{Held, HeldToTheEnd};
    type Reads = flockwork::RwLockReadGuard;
    type Writes = flockwork::RwLockWriteGuard;
    vec![
        operation(
            "RwLock::open",
            |_| {},
            |kit| kit.opened(RwLock::open(kit.it()), |kit| &mut kit.rwlock),
        ),
        operation("RwLock::read", rwlock, |kit| kit.keep(kit.rwlock().read())).holds(IT_SHARED),
        operation("RwLock::write", rwlock, |kit| kit.keep(kit.rwlock().write())).holds(IT),
        operation("RwLock::try_read", rwlock, |kit| kit.keep(kit.rwlock().try_read()))
            .holds(IT_SHARED),
        operation("RwLock::try_write", rwlock, |kit| kit.keep(kit.rwlock().try_write())).holds(IT),
        operation("RwLock::read_timeout", rwlock, |kit| kit.keep(kit.rwlock().read_timeout(LONG)))
            .holds(IT_SHARED),
        operation("RwLock::write_timeout", rwlock, |kit| {
            kit.keep(kit.rwlock().write_timeout(LONG))
        })
        .holds(IT),
        operation("RwLock::read_async", rwlock, |kit| {
            kit.keep(block_on(kit.rwlock().read_async()))
        })
        .holds(IT_SHARED),
        operation("RwLock::write_async", rwlock, |kit| {
            kit.keep(block_on(kit.rwlock().write_async()))
        })
        .holds(IT),
        operation("RwLock::read, with a label", labelled_rwlock, |kit| {
            kit.keep(kit.rwlock().read())
        })
        .holds(IT_SHARED),
        operation("RwLock::write, with a label", labelled_rwlock, |kit| {
            kit.keep(kit.rwlock().write())
        })
        .holds(IT),
        operation("RwLockWriteGuard::downgrade", hold_written, |kit| {
            let downgraded = kit.prepared::<Writes>().downgrade();
            kit.keep(downgraded)
        })
        .holds(IT_SHARED),
        operation("RwLockWriteGuard::downgrade, with a label", hold_labelled_written, |kit| {
            let downgraded = kit.prepared::<Writes>().downgrade();
            kit.keep(downgraded)
        })
        .holds(IT_SHARED),
        operation("RwLockWriteGuard::unlock", hold_written, |kit| {
            ok(kit.prepared::<Writes>().unlock())
        }),
        operation(
            "RwLockReadGuard::unlock, with a label",
            |kit| {
                labelled_rwlock(kit);
                kit.prepared.push(Box::new(kit.rwlock().read().unwrap()));
            },
            |kit| ok(kit.prepared::<Reads>().unlock()),
        ),
        operation(
            "RwLock::holders",
            |kit| {
                labelled_rwlock(kit);
                kit.prepared.push(Box::new(kit.rwlock().read().unwrap()));
                kit.prepared.push(Box::new(kit.rwlock().read().unwrap()));
            },
            |kit| Ok(kit.rwlock().holders()?.len().to_string()),
        )
        .keeps(IT_SHARED)
        .at_least("1"),
        operation("RwLock::read, waiting", rwlock, |kit| kit.keep(kit.rwlock().read()))
            .holds(IT_SHARED)
            .against(Held(IT)),
        operation("RwLock::write, waiting", rwlock, |kit| kit.keep(kit.rwlock().write()))
            .holds(IT)
            .against(Held(IT_SHARED)),
        operation("RwLock::read_timeout, waiting", rwlock, |kit| {
            kit.keep(kit.rwlock().read_timeout(LONG))
        })
        .holds(IT_SHARED)
        .against(Held(IT)),
        operation("RwLock::write_timeout, waiting", rwlock, |kit| {
            kit.keep(kit.rwlock().write_timeout(LONG))
        })
        .holds(IT)
        .against(Held(IT)),
        operation("RwLock::write_timeout, waiting at the turnstile", rwlock, |kit| {
            kit.keep(kit.rwlock().write_timeout(LONG))
        })
        .holds(IT)
        .against(Held(GATE)),
        operation("RwLock::write_async, waiting", rwlock, |kit| {
            kit.keep(block_on(kit.rwlock().write_async()))
        })
        .holds(IT)
        .against(Held(IT)),
        operation("RwLock::try_write, while it is held", rwlock, |kit| {
            kit.keep(kit.rwlock().try_write())
        })
        .holds(IT)
        .against(HeldToTheEnd(IT_SHARED)),
    ]
}

fn hold_written(kit: &mut Kit) {
    rwlock(kit);
    kit.prepared.push(Box::new(kit.rwlock().write().unwrap()));
}

fn hold_labelled_written(kit: &mut Kit) {
    labelled_rwlock(kit);
    kit.prepared.push(Box::new(kit.rwlock().write().unwrap()));
}

fn semaphores() -> Vec<Operation> {
    vec![
        operation(
            "Semaphore::open",
            |_| {},
            |kit| kit.opened(Semaphore::open(kit.it(), 2), |kit| &mut kit.semaphore),
        ),
        operation(
            "Semaphore::open, with an access",
            |_| {},
            |kit| {
                let options = plain().access(Access::Group);
                kit.opened(options.open_semaphore(kit.it(), 2), |kit| &mut kit.semaphore)
            },
        ),
        operation("Semaphore::open_existing", two_permits, |kit| {
            kit.opened(Semaphore::open_existing(kit.it()), |kit| &mut kit.semaphore)
        }),
        operation(
            "Semaphore::acquire, for the first time",
            |kit| {
                kit.semaphore
                    .get_or_insert_with(|| Semaphore::open(kit.dir.join("it"), 2).unwrap());
            },
            |kit| kit.keep(kit.semaphore().acquire()),
        )
        .holds(SLOT),
        operation("Semaphore::acquire", two_permits, |kit| kit.keep(kit.semaphore().acquire()))
            .holds(SLOT),
        operation("Semaphore::acquire_many", two_permits, |kit| {
            kit.keep(kit.semaphore().acquire_many(2))
        })
        .holds(TWO_SLOTS),
        operation("Semaphore::try_acquire", two_permits, |kit| {
            kit.keep(kit.semaphore().try_acquire())
        })
        .holds(SLOT),
        operation("Semaphore::acquire_timeout", two_permits, |kit| {
            kit.keep(kit.semaphore().acquire_timeout(LONG))
        })
        .holds(SLOT),
        operation("Semaphore::acquire_async", two_permits, |kit| {
            kit.keep(block_on(kit.semaphore().acquire_async()))
        })
        .holds(SLOT),
        operation(
            "Semaphore::acquire, with a label",
            |kit| {
                kit.open_semaphore(&labelled(), 2);
            },
            |kit| kit.keep(kit.semaphore().acquire()),
        )
        .holds(SLOT),
    ]
}

fn permits() -> Vec<Operation> {
    use Meanwhile::HeldToTheEnd;
    type Permit = flockwork::Permit;
    vec![
        operation(
            "Permit::release",
            |kit| {
                two_permits(kit);
                kit.prepared.push(Box::new(kit.semaphore().acquire_many(2).unwrap()));
            },
            |kit| ok(kit.prepared::<Permit>().release()),
        ),
        operation(
            "Permit::release, with a waiter",
            |kit| {
                two_permits(kit);
                kit.prepared.push(Box::new(kit.semaphore().acquire_many(2).unwrap()));
                std::fs::write(kit.dir.join("it/queued"), "x").unwrap();
            },
            |kit| ok(kit.prepared::<Permit>().release()),
        )
        .against(HeldToTheEnd(&[("it/waiters", false)])),
        operation(
            "Permit, dropped, with a label",
            |kit| {
                kit.open_semaphore(&labelled(), 2);
                kit.prepared.push(Box::new(kit.semaphore().acquire().unwrap()));
            },
            |kit| {
                drop(kit.prepared::<Permit>());
                Ok("ok".into())
            },
        ),
        operation("Semaphore::set_capacity, to more", resizable, |kit| {
            ok(kit.semaphore().set_capacity(3))
        }),
        operation("Semaphore::set_capacity, to fewer", resizable, |kit| {
            ok(kit.semaphore().set_capacity(1))
        }),
        operation(
            "Semaphore::holders",
            |kit| {
                kit.open_semaphore(&labelled(), 2);
                kit.prepared.push(Box::new(kit.semaphore().acquire_many(2).unwrap()));
            },
            |kit| Ok(kit.semaphore().holders()?.len().to_string()),
        )
        .keeps(TWO_SLOTS),
        operation(
            "inspect, of a semaphore",
            |kit| {
                two_permits(kit);
                kit.prepared.push(Box::new(kit.semaphore().acquire().unwrap()));
            },
            |kit| inspect(kit.it()).map(|status| format!("{:?}", status.held_slots())),
        )
        .keeps(SLOT),
        operation(
            "Semaphore::available_permits",
            |kit| {
                two_permits(kit);
                kit.prepared.push(Box::new(kit.semaphore().acquire().unwrap()));
            },
            |kit| said(kit.semaphore().available_permits()),
        )
        .keeps(SLOT)
        .at_least("0"),
        operation("Semaphore::capacity", two_permits, |kit| said(kit.semaphore().capacity())),
    ]
}

fn waits_for_permits() -> Vec<Operation> {
    use Meanwhile::{Held, HeldToTheEnd};
    vec![
        operation("Semaphore::acquire, waiting", two_permits, |kit| {
            kit.keep(kit.semaphore().acquire())
        })
        .holds(SLOT)
        .against(Held(BOTH_SLOTS)),
        operation("Semaphore::acquire_many, waiting", two_permits, |kit| {
            kit.keep(kit.semaphore().acquire_many(2))
        })
        .holds(TWO_SLOTS)
        .against(Held(ONLY_SLOT)),
        operation("Semaphore::acquire_timeout, waiting", two_permits, |kit| {
            kit.keep(kit.semaphore().acquire_timeout(LONG))
        })
        .holds(SLOT)
        .against(Held(BOTH_SLOTS)),
        operation("Semaphore::acquire_async, waiting", two_permits, |kit| {
            kit.keep(block_on(kit.semaphore().acquire_async()))
        })
        .holds(SLOT)
        .against(Held(BOTH_SLOTS)),
        operation("Semaphore::acquire_timeout, in the queue", two_permits, |kit| {
            kit.keep(kit.semaphore().acquire_timeout(LONG))
        })
        .holds(SLOT)
        .against(Held(&[("it/slot.0", true), ("it/slot.1", true), ("it/gate", true)])),
        operation("Semaphore::acquire_timeout, of one permit", one_permit, |kit| {
            kit.keep(kit.semaphore().acquire_timeout(LONG))
        })
        .holds(SLOT)
        .against(Held(ONLY_SLOT)),
        operation("Semaphore::try_acquire, with no permit free", two_permits, |kit| {
            kit.keep(kit.semaphore().try_acquire())
        })
        .holds(SLOT)
        .against(HeldToTheEnd(BOTH_SLOTS)),
    ]
}

fn resizable(kit: &mut Kit) {
    let path = kit.it();
    let semaphore = kit.semaphore.get_or_insert_with(|| Semaphore::open(path, 2).unwrap());
    semaphore.set_capacity(2).unwrap();
    drop(semaphore.acquire_many(2).unwrap());
}

fn events() -> Vec<Operation> {
    use Meanwhile::{Creates, Held, Removes};
    vec![
        operation(
            "Event::open, in a missing directory",
            |_| {},
            |kit| kit.opened(Event::open(kit.dir.join("new/er/it")), |kit| &mut kit.event),
        ),
        operation("Event::set, in new directories", without_directory, |kit| {
            said(kit.event().set())
        })
        .all_or(Failed::Nothing),
        operation("Event::set", cleared, |kit| said(kit.event().set())).all_or(Failed::Nothing),
        operation("Event::set_with", cleared, |kit| said(kit.event().set_with(b"payload")))
            .all_or(Failed::Nothing),
        operation("Event::set_with, when it is set", set, |kit| {
            said(kit.event().set_with(b"another"))
        })
        .all_or(Failed::Nothing),
        operation("Event::set_new", cleared, |kit| said(kit.event().set_new("payload")))
            .all_or(Failed::Nothing),
        operation("Event::set_new, while it is set", set, |kit| {
            said(kit.event().set_new("another"))
        }),
        operation("Event::clear", set, |kit| said(kit.event().clear())).all_or(Failed::Nothing),
        operation("Event::is_set", set, |kit| said(kit.event().is_set())),
        operation("Event::payload", set, |kit| {
            text(kit.event().payload().map(Option::unwrap_or_default))
        }),
        operation("Event::wait", set, |kit| ok(kit.event().wait())),
        operation("Event::wait_timeout, timed out", cleared, |kit| {
            // The wait is expected to time out.
            match kit.event().wait_timeout(Duration::from_millis(30)) {
                Err(error) if error.is_timed_out() => Ok("timed out".into()),
                other => ok(other),
            }
        }),
        operation("Event::try_consume", set, |kit| text(kit.event().try_consume()))
            .all_or(Failed::Nothing),
        operation("Event::consume", set, |kit| text(kit.event().consume())).all_or(Failed::Nothing),
        operation(
            "Event::consume, after a consumer died",
            |kit| {
                set(kit);
                std::fs::rename(kit.it(), kit.dir.join("it.taken")).unwrap();
            },
            |kit| text(kit.event().consume()),
        )
        .all_or(Failed::Nothing),
        operation("Event::wait, waiting", cleared, |kit| ok(kit.event().wait()))
            .against(Creates("it")),
        operation("Event::wait_timeout, waiting", cleared, |kit| {
            ok(kit.event().wait_timeout(LONG))
        })
        .against(Creates("it")),
        operation("Event::wait_async, waiting", cleared, |kit| {
            ok(block_on(kit.event().wait_async()))
        })
        .against(Creates("it")),
        operation(
            "Event::wait, for a directory",
            |kit| {
                if !kit.dir.join("new/er/it").exists() {
                    without_directory(kit);
                }
            },
            |kit| ok(kit.event().wait()),
        )
        .against(Creates("new/er/it")),
        operation("Event::wait_cleared, waiting", set, |kit| ok(kit.event().wait_cleared()))
            .against(Removes("it")),
        operation("Event::wait_any, waiting", cleared, |kit| {
            let other = Event::open(kit.dir.join("other"))?;
            said(Event::wait_any([&other, &kit.event()]))
        })
        .against(Creates("it")),
        operation("Event::consume, waiting", cleared, |kit| text(kit.event().consume()))
            .against(Creates("it"))
            .all_or(Failed::Nothing),
        operation("Event::consume_async, waiting", cleared, |kit| {
            text(block_on(kit.event().consume_async()))
        })
        .against(Creates("it"))
        .all_or(Failed::Nothing),
        operation(
            "Event::consume, waiting for its turn",
            |kit| {
                event(kit);
                // The first consumer creates the lock file.
                kit.event().set().unwrap();
                kit.event().consume().unwrap();
                set(kit);
            },
            |kit| text(kit.event().consume()),
        )
        .against(Held(LOCK))
        .all_or(Failed::Nothing),
    ]
}

fn announcements() -> Vec<Operation> {
    vec![
        operation("Event::set_while_alive", cleared, |kit| {
            kit.keep(kit.event().set_while_alive("payload"))
        })
        .holds(IT),
        operation("Event::set_while_alive, when it is set", set, |kit| {
            kit.keep(kit.event().set_while_alive("another"))
        })
        .holds(IT),
        operation("Event::set_while_alive, after a process died", stale, |kit| {
            kit.keep(kit.event().set_while_alive("payload"))
        })
        .holds(IT)
        .all_or(Failed::NothingOrCleared),
        operation("Event::set_new, after a process died", stale, |kit| {
            said(kit.event().set_new("payload"))
        })
        .all_or(Failed::NothingOrCleared),
        operation("Event::clear, after a process died", stale, |kit| said(kit.event().clear()))
            .all_or(Failed::NothingOrCleared),
        operation("Event::is_set, after a process died", stale, |kit| said(kit.event().is_set()))
            .all_or(Failed::NothingOrCleared),
        operation("Event::is_set, announced", announced, |kit| said(kit.event().is_set()))
            .keeps(IT),
        operation("Announcement::withdraw", announced, |kit| {
            ok(kit.prepared::<Announcement>().withdraw())
        }),
        operation("Event::wait_payload", set, |kit| text(kit.event().wait_payload())),
    ]
}

fn onces() -> Vec<Operation> {
    use Meanwhile::{Creates, Held};
    vec![
        operation(
            "Once::open",
            |_| {},
            |kit| kit.opened(Once::open(kit.it()), |kit| &mut kit.once),
        ),
        operation("Once::call_once", once, |kit| said(kit.once().call_once(|| Ok(())))),
        operation("Once::call_once, with fsync", synced_once, |kit| {
            said(kit.once().call_once(|| Ok(())))
        }),
        operation("Once::try_call_once", once, |kit| said(kit.once().try_call_once(|| Ok(())))),
        operation("Once::call_once_async", once, |kit| {
            said(block_on(kit.once().call_once_async(|| async { Ok(()) })))
        }),
        operation("Once::call_once, when it is done", done, |kit| {
            said(kit.once().call_once(|| Ok(())))
        }),
        operation("Once::is_done", done, |kit| said(kit.once().is_done())),
        operation("Once::reset", done, |kit| said(kit.once().reset())),
        operation(
            "Once::reset, with fsync",
            |kit| {
                synced_once(kit);
                kit.once().call_once(|| Ok::<_, Error>(())).unwrap();
            },
            |kit| said(kit.once().reset()),
        ),
        operation("Once::holders", once, |kit| Ok(kit.once().holders()?.len().to_string())),
        operation("Once::wait, waiting", once, |kit| ok(kit.once().wait())).against(Creates("it")),
        operation("Once::call_once, waiting", once, |kit| said(kit.once().call_once(|| Ok(()))))
            .against(Held(LOCK)),
        operation("Once::call_once_timeout, waiting", once, |kit| {
            said(kit.once().call_once_timeout(LONG, || Ok(())))
        })
        .against(Held(LOCK)),
    ]
}

fn files() -> Vec<Operation> {
    use Meanwhile::Held;
    vec![
        operation(
            "SharedFile::open",
            |_| {},
            |kit| kit.opened(SharedFile::open(kit.it()), |kit| &mut kit.file),
        ),
        operation(
            "SharedFile::lock_shared, the first time",
            |kit| {
                let path = kit.it();
                kit.file = Some(SharedFile::open(path).unwrap());
            },
            |kit| kit.keep(kit.file().lock_shared()),
        )
        .holds(LOCK_SHARED),
        operation(
            "SharedFile::write, with fsync, in new directories",
            |kit| {
                let path = kit.dir.join("new/er/it");
                kit.file.get_or_insert_with(|| synced().open_shared_file(path).unwrap());
            },
            |kit| ok(kit.file().write("new")),
        ),
        operation("SharedFile::read", file, |kit| text(kit.file().read())),
        operation("SharedFile::write", file, |kit| ok(kit.file().write("new")))
            .all_or(Failed::Nothing),
        operation(
            "SharedFile::write, of a file with attributes",
            |kit| {
                file(kit);
                let flags = rustix::fs::XattrFlags::empty();
                // On file systems without attributes this is the same as the previous operation.
                let _ = rustix::fs::lsetxattr(kit.it(), "user.origin", b"somewhere", flags);
            },
            |kit| ok(kit.file().write("new")),
        )
        .all_or(Failed::Nothing),
        operation(
            "SharedFile::write, of a new file",
            |kit| {
                file(kit);
                std::fs::remove_file(kit.it()).unwrap();
            },
            |kit| ok(kit.file().write("new")),
        )
        .all_or(Failed::Nothing),
        operation("SharedFile::write, with fsync", synced_file, |kit| ok(kit.file().write("new"))),
        operation("SharedFile::update", file, |kit| ok(kit.file().update(longer)))
            .all_or(Failed::Nothing),
        operation("SharedFile::update, with fsync", synced_file, |kit| {
            ok(kit.file().update(longer))
        }),
        operation("SharedFile::update_async", file, |kit| {
            ok(block_on(kit.file().update_async(longer)))
        })
        .all_or(Failed::Nothing),
        operation("SharedFile::lock_shared", file, |kit| kit.keep(kit.file().lock_shared()))
            .holds(LOCK_SHARED),
        operation("SharedFile::lock_exclusive", file, |kit| kit.keep(kit.file().lock_exclusive()))
            .holds(LOCK),
        operation(
            "FileWriteGuard::downgrade",
            |kit| {
                file(kit);
                kit.prepared.push(Box::new(kit.file().lock_exclusive().unwrap()));
            },
            |kit| {
                let downgraded = kit.prepared::<flockwork::FileWriteGuard>().downgrade();
                kit.keep(downgraded)
            },
        )
        .holds(LOCK_SHARED),
        operation("SharedFile::read, while another process writes", file, |kit| {
            text(kit.file().read())
        })
        .against(Meanwhile::HeldToTheEnd(LOCK)),
        operation("SharedFile::lock_shared, waiting", file, |kit| {
            kit.keep(kit.file().lock_shared())
        })
        .holds(LOCK_SHARED)
        .against(Held(LOCK)),
        operation("SharedFile::update, waiting", file, |kit| ok(kit.file().update(longer)))
            .against(Held(LOCK_SHARED))
            .all_or(Failed::Nothing),
        operation("FileWriteGuard::update, after a wait", file, |kit| {
            ok(kit.file().lock_exclusive_timeout(LONG)?.update(longer))
        })
        .against(Held(LOCK))
        .all_or(Failed::Nothing),
    ]
}

/// Operations of handles that were opened with options, and checks of guards.
fn with_options() -> Vec<Operation> {
    vec![
        operation("LockGuard::still_held", hold_lock, |kit| {
            let guard: flockwork::LockGuard = kit.prepared();
            let is_held = guard.still_held();
            kit.held.push(Box::new(guard));
            said(is_held)
        })
        .keeps(IT),
        operation(
            "Lock::open, through a link",
            |kit| {
                let _ = std::os::unix::fs::symlink("it", kit.dir.join("link"));
            },
            |kit| {
                let options = plain().follow_symlinks(true);
                kit.opened(options.open_lock(kit.dir.join("link")), |kit| &mut kit.lock)
            },
        ),
        operation("Semaphore::open, without create", two_permits, |kit| {
            let options = plain().create(false);
            kit.opened(options.open_semaphore(kit.it(), 2), |kit| &mut kit.semaphore)
        }),
        operation(
            "Permit::still_held",
            |kit| {
                two_permits(kit);
                kit.prepared.push(Box::new(kit.semaphore().acquire().unwrap()));
            },
            |kit| {
                let permit: flockwork::Permit = kit.prepared();
                let is_held = permit.still_held();
                kit.held.push(Box::new(permit));
                said(is_held)
            },
        )
        .keeps(SLOT),
        operation(
            "SharedFile::write, in place, with fsync",
            |kit| kit.open_file(&synced().write_in_place(true)),
            |kit| ok(kit.file().write("new")),
        ),
    ]
}

const STATE: [&str; 11] = [
    "it",
    "it/capacity",
    "new/er/it",
    "it/open.1.0",
    "it/full.1.0",
    "it/broken.1.0",
    "it/open.1.1",
    "it/open.2.0",
    "it/full.2.0",
    "it/broken.2.0",
    "it/open.2.1",
];

fn state(of: impl Fn(&str) -> Option<Vec<u8>>) -> Vec<String> {
    let text = |name| of(name).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    STATE.iter().map(|name| format!("{name}: {:?}", text(name))).collect()
}

/// Returns the state of the directory as far as other processes depend on it.
pub(super) fn state_of(dir: &Path) -> Vec<String> {
    let read = |name: &str| std::fs::read(dir.join(name)).ok();
    // A payload that was taken and not delivered can still be consumed (rule E4).
    state(|name| read(name).or_else(|| read(&format!("{name}.taken"))))
}

/// Returns the state of a directory that contains this file alone.
pub(super) fn state_with(name: &str, contents: &str) -> Vec<String> {
    state(|other| (other == name).then(|| contents.into()))
}
