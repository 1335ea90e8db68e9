//! One round: something is picked, a way of waiting, and what is done with it.

use std::time::{Duration, Instant};

use flockwork::{Error, Lock, Once, Options, RwLock, Semaphore, SharedFile};

use crate::dice::Dice;
use crate::events;
use crate::fate::Step;
use crate::payload;
use crate::record::Kind;
use crate::things::{self, Breakage, ELASTIC, Handle, THINGS, What};
use crate::ways::{Got, Meant, Way, call, half, settle, take};
use crate::worker::Actor;

pub(crate) const SHARED: u64 = 0;
pub(crate) const EXCLUSIVE: u64 = 1;
/// In the yard all must be had again within this, once nobody meddles any more.
const AT_PEACE: Duration = Duration::from_secs(45);

pub(crate) fn one(actor: &mut Actor<'_>) {
    let process = actor.process;
    let purpose = [process.number, process.generation, actor.thread].map(u64::from);
    let [number, generation, thread] = purpose;
    let mut dice = Dice::of(process.arguments.seed, &[3, number, generation, thread, actor.round]);
    let thing = process.arguments.only.unwrap_or_else(|| things::pick(&mut dice));
    let way = Way::pick(&mut dice);
    let dice = &mut dice;
    match &process.handles[thing] {
        Handle::Lock(lock) => locked(actor, thing, lock, way, dice),
        Handle::RwLock(lock) => read_or_written(actor, thing, lock, way, dice),
        Handle::Semaphore(semaphore) => permitted(actor, thing, semaphore, way, dice),
        Handle::Once(once) => done_once(actor, thing, once, way, dice),
        Handle::SharedFile(file) => shared(actor, thing, file, way, dice),
        Handle::Event(event) => match THINGS[thing].what {
            What::Flag => events::flag(actor, thing, event, way, dice),
            What::Mailbox => events::mailbox(actor, thing, event, way, dice),
            _ => events::loose(actor, thing, event, way, dice),
        },
    }
}

impl Actor<'_> {
    /// What was wanted was not had: how that came, and whether it may come.
    pub(crate) fn went_without<G>(&self, thing: usize, got: Got<G>, scarcity: u64) {
        match got {
            Got::Had(_) => self.tell(Kind::Had, thing, 0, 0),
            Got::GaveUp(why) => self.tell(Kind::GaveUp, thing, why as u64, 0),
            Got::Meant => self.tell(Kind::GaveUp, thing, 3, 0),
            Got::Failed(error) => self.failed(thing, &error, scarcity),
        }
    }

    /// In the yard any typed error may come; elsewhere the one that says that there are no more descriptors, while
    /// there are none.
    pub(crate) fn failed(&self, thing: usize, error: &Error, scarcity: u64) {
        let number = error.raw_os_error();
        let is_scarce = number == Some(rustix::io::Errno::MFILE.raw_os_error())
            && self.process.was_scarce_since(scarcity);
        if is_scarce || THINGS[thing].is_in_the_yard {
            let number = number.and_then(|number| u64::try_from(number).ok()).unwrap_or(0);
            self.tell(Kind::Failed, thing, number, 0);
        } else {
            self.wrong(thing, &format!("unexpected: {error}"));
        }
    }

    pub(crate) fn wants(&self, thing: usize, way: Way, what: u64) -> u64 {
        let way = match way {
            Way::Try => 0,
            Way::Timeout(_) | Way::Deadline(_) => 1,
            Way::Plain | Way::Awaited => 2,
            Way::Dropped(..) => 3,
        };
        let scarcity = self.process.scarcity();
        self.tell(Kind::Wants, thing, way, what);
        self.step(Step::Before);
        scarcity
    }

    fn enters(&self, thing: usize, how: u64) {
        self.tell(Kind::Entered, thing, how, 0);
        self.step(Step::Inside);
    }

    fn leaves(&self, thing: usize, value: u64) {
        self.tell(Kind::Left, thing, 0, value);
        self.step(Step::Leaving);
    }

    fn released(&self, thing: usize, released: Result<(), Error>, scarcity: u64) {
        if let Err(error) = released {
            self.failed(thing, &error, scarcity);
        }
    }
}

/// Mostly for no time at all.
pub(crate) fn hold(dice: &mut Dice) {
    match dice.below(20) {
        0..=11 => {}
        12..=13 => std::thread::yield_now(),
        14..=18 => std::thread::sleep(dice.micros(200)),
        _ => std::thread::sleep(dice.micros(3000)),
    }
}

fn locked(actor: &Actor<'_>, thing: usize, lock: &Lock, way: Way, dice: &mut Dice) {
    if actor.process.is_broken(Breakage::Wake) && is_the_lost_one(actor) {
        actor.wants(thing, Way::Plain, 0);
        loop {
            std::thread::park();
        }
    }
    assert!(!(actor.process.is_broken(Breakage::Crash) && is_the_lost_one(actor)), "as wanted");
    let scarcity = actor.wants(thing, way, 0);
    if actor.process.is_broken(Breakage::Lock) && dice.one_in(8) {
        actor.enters(thing, EXCLUSIVE);
        hold(dice);
        actor.leaves(thing, 0);
        return;
    }
    match take!(way, lock, [lock try_lock lock_timeout lock_deadline lock_async]) {
        Got::Had(guard) => {
            actor.enters(thing, EXCLUSIVE);
            hold(dice);
            let _abandoned = guard.abandoned();
            actor.leaves(thing, 0);
            if dice.one_in(2) {
                drop(guard);
            } else {
                actor.released(thing, guard.unlock(), scarcity);
            }
        }
        other => actor.went_without(thing, other, scarcity),
    }
    if dice.one_in(50) {
        let scarcity = actor.process.scarcity();
        if let Err(error) = lock.holder() {
            actor.failed(thing, &error, scarcity);
        }
    }
}

fn is_the_lost_one(actor: &Actor<'_>) -> bool {
    actor.process.number == 0 && actor.thread == 1 && actor.round > 20
}

fn read_or_written(actor: &Actor<'_>, thing: usize, lock: &RwLock, way: Way, dice: &mut Dice) {
    let is_write = dice.one_in(2);
    let scarcity = actor.wants(thing, way, u64::from(is_write));
    if !is_write || (actor.process.is_broken(Breakage::RwLock) && dice.one_in(4)) {
        let how = if is_write { EXCLUSIVE } else { SHARED };
        match take!(way, lock, [read try_read read_timeout read_deadline read_async]) {
            Got::Had(guard) => {
                actor.enters(thing, how);
                hold(dice);
                actor.leaves(thing, 0);
                actor.released(thing, guard.unlock(), scarcity);
            }
            other => actor.went_without(thing, other, scarcity),
        }
        return;
    }
    match take!(way, lock, [write try_write write_timeout write_deadline write_async]) {
        Got::Had(guard) => {
            actor.enters(thing, EXCLUSIVE);
            hold(dice);
            if !dice.one_in(3) {
                actor.leaves(thing, 0);
                return drop(guard);
            }
            actor.tell(Kind::Downgrades, thing, 0, 0);
            match guard.downgrade() {
                Ok(guard) => {
                    actor.step(Step::Inside);
                    hold(dice);
                    actor.leaves(thing, 0);
                    drop(guard);
                }
                Err(error) => {
                    actor.leaves(thing, 0);
                    actor.failed(thing, &error, scarcity);
                }
            }
        }
        other => actor.went_without(thing, other, scarcity),
    }
}

fn permitted(actor: &Actor<'_>, thing: usize, semaphore: &Semaphore, way: Way, dice: &mut Dice) {
    let (most, is_elastic) = match THINGS[thing].what {
        What::Semaphore(most) => (most, false),
        _ => (*ELASTIC.start(), true),
    };
    if is_elastic && dice.one_in(30) {
        return resize(actor, thing, semaphore, dice);
    }
    let many =
        if dice.one_in(3) { 1 + u32::try_from(dice.below(most.into())).unwrap_or(0) } else { 1 };
    let scarcity = actor.wants(thing, way, many.into());
    if actor.process.is_broken(Breakage::Semaphore) && dice.one_in(8) {
        actor.enters(thing, 1);
        hold(dice);
        return actor.leaves(thing, 0);
    }
    let got = take!(
        way,
        semaphore,
        [acquire_many try_acquire_many acquire_many_timeout acquire_many_deadline acquire_many_async]
        many
    );
    match got {
        Got::Had(permit) => {
            let slots = permit.slots().iter().map(|slot| 1_u64 << slot).sum();
            actor.enters(thing, slots);
            hold(dice);
            actor.leaves(thing, 0);
            if dice.one_in(2) {
                drop(permit);
            } else {
                actor.released(thing, permit.release(), scarcity);
            }
        }
        other => actor.went_without(thing, other, scarcity),
    }
}

fn resize(actor: &Actor<'_>, thing: usize, semaphore: &Semaphore, dice: &mut Dice) {
    let permits = *ELASTIC.start() + u32::try_from(dice.below(4)).unwrap_or(0);
    let is_lie = actor.process.is_broken(Breakage::Capacity) && dice.one_in(2);
    let said = if is_lie { *ELASTIC.start() } else { permits };
    let scarcity = actor.process.scarcity();
    actor.tell(Kind::Resizes, thing, said.into(), 0);
    actor.step(Step::Inside);
    match semaphore.resize(if is_lie { *ELASTIC.end() } else { permits }) {
        Ok(()) => actor.tell(Kind::HasResized, thing, said.into(), 0),
        Err(error) => actor.failed(thing, &error, scarcity),
    }
}

fn done_once(actor: &Actor<'_>, thing: usize, once: &Once, way: Way, dice: &mut Dice) {
    if dice.one_in(3) {
        return reset(actor, thing, once, way);
    }
    let scarcity = actor.wants(thing, way, 0);
    let changes_its_mind = dice.one_in(6);
    let breaks_in = actor.process.is_broken(Breakage::Once) && dice.one_in(2);
    let mut has_run = false;
    let mut work = || {
        has_run = true;
        actor.enters(thing, EXCLUSIVE);
        hold(dice);
        if actor.process.is_broken(Breakage::Once) {
            std::thread::sleep(Duration::from_millis(1));
        }
        // What it does is that the witness is told: no earlier and no later is it done.
        actor.leaves(thing, u64::from(!changes_its_mind));
        if changes_its_mind { Err(Meant) } else { Ok(()) }
    };
    let got = if breaks_in {
        settle(work().map(|()| true).map_err(flockwork::CallError::Closure))
    } else {
        call!(
            way,
            once,
            [call_once try_call_once call_once_timeout call_once_deadline call_once_async]
            work,
            || async { work() }
        )
    };
    match got {
        Got::Had(was_me) if was_me == has_run => actor.tell(Kind::Had, thing, u64::from(was_me), 0),
        Got::Had(_) => {
            actor.wrong(thing, "who has done it was told that others did, or the reverse");
        }
        other => actor.went_without(thing, other, scarcity),
    }
}

fn reset(actor: &Actor<'_>, thing: usize, once: &Once, way: Way) {
    let scarcity = actor.wants(thing, way, 1);
    actor.tell(Kind::Resetting, thing, 0, 0);
    let got = take!(way, once, [reset try_reset reset_timeout reset_deadline reset_async]);
    match got {
        Got::Had(was_done) => actor.tell(Kind::HasReset, thing, u64::from(was_done), 0),
        other => actor.went_without(thing, other, scarcity),
    }
}

fn shared(actor: &mut Actor<'_>, thing: usize, file: &SharedFile, way: Way, dice: &mut Dice) {
    let is_change = dice.one_in(2);
    let scarcity = actor.wants(thing, way, u64::from(is_change));
    if is_change {
        change(actor, thing, file, way, dice, scarcity);
    } else {
        look(actor, thing, file, way, dice, scarcity);
    }
    // In the yard there may be a FIFO, or a file of somebody else's.
    if dice.one_in(4) && !THINGS[thing].is_in_the_yard {
        // As a program does that knows nothing of the lock.
        match std::fs::read(file.path()) {
            Ok(bytes) if payload::number(&bytes).is_none() => actor.wrong(thing, "half a change"),
            _ => {}
        }
    }
}

fn look(
    actor: &Actor<'_>,
    thing: usize,
    file: &SharedFile,
    way: Way,
    dice: &mut Dice,
    scarcity: u64,
) {
    let verbs = take!(
        way,
        file,
        [lock_shared try_lock_shared lock_shared_timeout lock_shared_deadline lock_shared_async]
    );
    match verbs {
        Got::Had(reading) => {
            actor.enters(thing, SHARED);
            hold(dice);
            match reading.read() {
                Ok(bytes) => observe(actor, thing, &bytes),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    observe(actor, thing, &[]);
                }
                Err(error) => actor.failed(thing, &error, scarcity),
            }
            actor.leaves(thing, 0);
            drop(reading);
        }
        other => actor.went_without(thing, other, scarcity),
    }
}

fn observe(actor: &Actor<'_>, thing: usize, bytes: &[u8]) {
    match payload::number(bytes) {
        Some(number) => actor.tell(Kind::Observed, thing, 0, number),
        None if THINGS[thing].is_in_the_yard => {}
        None => actor.wrong(thing, "half a change, under the lock"),
    }
}

fn change(
    actor: &mut Actor<'_>,
    thing: usize,
    file: &SharedFile,
    way: Way,
    dice: &mut Dice,
    scarcity: u64,
) {
    let process = actor.process;
    let number = actor.token();
    let changes_its_mind = dice.one_in(6);
    if process.is_broken(Breakage::LostUpdate) && dice.one_in(8) {
        let _ = std::fs::write(file.path(), payload::make(number));
    }
    if process.is_broken(Breakage::Tear) && dice.one_in(8) {
        let bytes = payload::make(number);
        let _ = std::fs::write(file.path(), &bytes[..bytes.len() - 1]);
    }
    let change = |old: Vec<u8>| {
        actor.enters(thing, EXCLUSIVE);
        observe(actor, thing, &old);
        hold(dice);
        actor.leaves(thing, if changes_its_mind { 0 } else { number });
        if changes_its_mind { Err(Meant) } else { Ok(payload::make(number)) }
    };
    let got = call!(
        way,
        file,
        [update try_update update_timeout update_deadline update_async]
        change,
        change
    );
    match got {
        Got::Had(()) => actor.tell(Kind::Changed, thing, 0, number),
        other => actor.went_without(thing, other, scarcity),
    }
}

/// Nobody meddles any more, and what was broken is to work again: by the handles that were there all the time, and by
/// new ones.
pub(crate) fn check_the_yard(actor: &mut Actor<'_>) {
    let process = actor.process;
    let numbered = THINGS.iter().zip(&process.handles).enumerate();
    for (at, (thing, handle)) in numbered.filter(|(_, (thing, _))| thing.is_in_the_yard) {
        let again = match Handle::open(&process.directory, thing, &mut Dice::of(0, &[])) {
            Ok(again) => again,
            Err(error) => {
                actor.wrong(at, &format!("cannot be opened any more: {error}"));
                continue;
            }
        };
        for handle in [handle, &again] {
            if let Err(error) = use_in_peace(handle) {
                actor.wrong(at, &format!("does not work any more: {error}"));
            }
        }
    }
}

fn use_in_peace(handle: &Handle) -> Result<(), Error> {
    match handle {
        Handle::Lock(lock) => lock.lock_timeout(AT_PEACE)?.unlock(),
        Handle::RwLock(lock) => {
            lock.write_timeout(AT_PEACE)?.unlock()?;
            lock.read_timeout(AT_PEACE)?.unlock()
        }
        Handle::Semaphore(semaphore) => semaphore.acquire_many_timeout(2, AT_PEACE)?.release(),
        Handle::Event(event) => {
            let deadline = Instant::now() + AT_PEACE;
            while Instant::now() < deadline {
                event.set()?;
                // Others consume it meanwhile.
                if event.wait_timeout(Duration::from_secs(1)).is_ok() {
                    return Ok(());
                }
            }
            event.wait_timeout(Duration::ZERO)
        }
        Handle::Once(once) => {
            let done: Result<bool, flockwork::OnceError<Error>> =
                once.call_once_timeout(AT_PEACE, || Ok(()));
            done.map(|_| ()).map_err(flockwork::CallError::flatten)
        }
        Handle::SharedFile(file) => {
            let change = |_| Ok::<_, Error>(payload::make(1));
            file.update_timeout(AT_PEACE, change).map_err(flockwork::CallError::flatten)
        }
    }
}

/// One permit of a semaphore is taken, and never given back.
pub(crate) fn leak(directory: &std::path::Path) -> flockwork::Result<()> {
    let semaphore = Options::new().open_existing_semaphore(directory.join("three"))?;
    std::mem::forget(semaphore.acquire()?);
    Ok(())
}
