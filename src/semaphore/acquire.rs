//! Waiting for permits in turn. All waiters queue for the turnstile, which is a lock (the gate
//! file), and only its holder, the leader, gathers slots and is notified of releases. So the
//! turnstile decides the order, and one release wakes one waiter, however many wait (rules S4 to
//! S9).

use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Instant;

use super::Inner;
use super::batch::Batch;
use super::notifications::Announcement;
use super::signals::Watched;
use super::slots::{Gathering, Slots};
use crate::error::Result;
use crate::file::lock_file::FileLock;
use crate::file::ticket_queue::Ticket;
use crate::line::Line;
use crate::lock_request::{Coordinator, LockRequest, QUEUES};
use crate::sys::{Mode, WatchedFifo};
use crate::trace::PollReason;
use crate::wait::{
    Check, EventLoop, OrderedWait, OwnCheck, QueuedWaiter, SignalLoop, Target, Turn, Waiter,
    WakeStrategy, attempt_at_front,
};

/// A request for N permits of a semaphore together.
pub(super) struct PermitRequest {
    pub(super) semaphore: Arc<Inner>,
    pub(super) permits: u32,
}

impl PermitRequest {
    fn take(&self) -> Result<Option<Batch>> {
        self.semaphore.take(self.permits, true)
    }

    /// For a waiter that is not the leader: takes permits that no leader takes (S8).
    fn take_after(&self, check: &mut OwnCheck) -> Result<Option<Batch>> {
        let taken = self.take()?;
        let is_confirmed = check.confirms(taken.is_some());
        Ok(taken.filter(|_| is_confirmed))
    }

    fn gather(
        &self,
        gathered: &mut Batch,
        announcement: &mut Option<Announcement>,
        check: LeaderCheck,
    ) -> Result<Check<Batch>> {
        let slots = &self.semaphore.slots;
        if check.thorough {
            slots.refresh()?;
        }
        // Without an announcement FIFOs report all that happens.
        let relies = announcement.as_mut().is_none_or(|it| it.renew(check.thorough));
        let in_kernel = !check.has_signals && slots.has_only_one()?;
        if check.is_blocked_for_only_slot && in_kernel {
            return Ok(Check::NotYet { relies, in_kernel });
        }
        let how = Gathering { check_taken: true, check_refused: check.thorough, is_leader: true };
        if slots.gather(gathered, self.permits, how)? {
            return Ok(Check::Ready(std::mem::replace(gathered, slots.nothing())));
        }
        Ok(Check::NotYet { relies, in_kernel: !check.has_signals && slots.has_only_one()? })
    }
}

impl Inner {
    /// The only slot as a lock, if the semaphore has no other slot (S9).
    pub(super) fn only_slot(&self) -> Option<Arc<LockRequest>> {
        let file = self.slots.has_only_one().ok()?.then(|| self.slots.slot(0))?.ok()?;
        let poll_every = self.wake_strategy.poll_every;
        let coordinator = Some(Box::new(OnlySlot(Arc::clone(&self.slots))) as Box<dyn Coordinator>);
        Some(Arc::new(LockRequest { file, mode: Mode::Exclusive, poll_every, coordinator }))
    }
}

/// The turnstile of a semaphore's queue (S4).
pub(super) struct Gate(pub(super) Arc<Slots>);

impl Coordinator for Gate {
    fn others_wait(&self) -> bool {
        self.0.others_wait()
    }

    fn was_given_back(&self) {} // the kernel wakes the next waiter
}

/// The only slot, for which the leader waits in the kernel (S9).
struct OnlySlot(Arc<Slots>);

impl Coordinator for OnlySlot {
    fn others_wait(&self) -> bool {
        false // only the leader waits for it
    }

    /// There may be other slots by now, and a leader that watches the directory instead has found
    /// this one held.
    fn was_given_back(&self) {
        self.0.notify_recheck();
    }
}

/// How the leader checks the slots.
#[derive(Debug, Clone, Copy)]
struct LeaderCheck {
    /// Whether to check also for changes that no event reports.
    thorough: bool,
    /// Whether to skip the only slot, since a helper waits for it.
    is_blocked_for_only_slot: bool,
    /// The FIFOs of the slots report everything.
    has_signals: bool,
}

/// One waiter, from joining the queue until it has its permits.
pub(super) struct QueuedAcquire {
    request: PermitRequest,
    /// Whether it is a future, which its executor may stop polling at any moment.
    is_future: bool,
    has_tried: bool,
    stage: Stage,
}

enum Stage {
    New,
    Ordered(Ordered),
    Queueing(Queueing),
    Leader(Box<Leader>),
    /// The wait has ended: acquired, failed or given up.
    Done,
}

/// In the queue of tickets.
struct Ordered {
    wait: OrderedWait<Line>,
    check: OwnCheck,
}

/// Waiting for the gate in the kernel: without a ticket, or as the first of those that have one
/// while a process without a ticket is the leader.
struct Queueing {
    gate: QueuedWaiter<LockRequest>,
    announcement: Option<Announcement>,
    ticket: Option<Ticket>,
    check: OwnCheck,
}

/// The fields are dropped in this order: the slots first, so that the next leader finds them free.
struct Leader {
    one: Option<QueuedWaiter<LockRequest>>,
    gathered: Batch,
    events: Events,
    /// Always there if the leader waits for events of the directory.
    announcement: Option<Announcement>,
    gate: FileLock,
    /// Wakes the next waiter when it is dropped, last.
    _ticket: Option<Ticket>,
}

/// How the leader learns of released slots.
enum Events {
    /// By the FIFOs of the slots.
    Signals(SignalLoop, Arc<Watched>),
    /// By the events of the directory, or by polling.
    Directory(EventLoop),
}

impl Events {
    fn new(semaphore: &Inner) -> Self {
        let backstop = semaphore.wake_strategy.backstop;
        let watched = if semaphore.wake_strategy.poll_every.is_none() {
            semaphore.slots.watch()
        } else {
            None
        };
        if let Some(watched) = watched {
            let signals = SignalLoop::new(watched.fifos().to_vec(), backstop);
            return Self::Signals(signals, watched);
        }
        // A check tries all slots, and checks whether their number has changed.
        let requests = semaphore.slots.table().capacity.saturating_add(1);
        let wake_strategy = semaphore.wake_strategy.clone();
        Self::Directory(EventLoop::new(WakeStrategy { requests, ..wake_strategy }))
    }

    fn next_tick(&self) -> Option<Instant> {
        match self {
            Self::Signals(signals, _) => signals.next_tick(),
            Self::Directory(events) => events.next_tick(),
        }
    }

    fn sources(&self) -> &[Arc<WatchedFifo>] {
        match self {
            Self::Signals(signals, _) => signals.sources(),
            Self::Directory(_) => &[],
        }
    }
}

impl QueuedAcquire {
    pub(super) fn new(request: PermitRequest) -> Self {
        Self { request, is_future: false, has_tried: false, stage: Stage::New }
    }

    /// For a caller that has just been refused.
    pub(super) fn after_a_try(request: PermitRequest) -> Self {
        Self { has_tried: true, ..Self::new(request) }
    }

    pub(super) fn future(self) -> Self {
        Self { is_future: true, ..self }
    }

    fn step(&mut self, waker: &Waker) -> Poll<Result<Batch>> {
        loop {
            match &mut self.stage {
                Stage::New => {
                    if let Some(got) = self.arrive().transpose() {
                        return Poll::Ready(got);
                    }
                }
                Stage::Ordered(ordered) => match ordered.wait.poll() {
                    Poll::Ready(turn) => {
                        let ticket = match turn {
                            Turn::Now(ticket) => Some(ticket),
                            Turn::Unordered => None,
                        };
                        if let Err(error) = self.come_to_gate(ticket) {
                            return Poll::Ready(Err(error));
                        }
                    }
                    Poll::Pending if ordered.check.is_due() => {
                        match self.request.take_after(&mut ordered.check).transpose() {
                            None => return Poll::Pending,
                            Some(got) => return Poll::Ready(got),
                        }
                    }
                    Poll::Pending => return Poll::Pending,
                },
                Stage::Queueing(queueing) => match queueing.gate.poll(waker) {
                    Poll::Ready(Ok(gate)) => self.advance(gate),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending if queueing.check.is_due() => {
                        match self.request.take_after(&mut queueing.check).transpose() {
                            None => return Poll::Pending,
                            Some(got) => return Poll::Ready(got),
                        }
                    }
                    Poll::Pending => return Poll::Pending,
                },
                Stage::Leader(leader) => match leader.poll(&self.request, self.is_future, waker) {
                    Poll::Ready(Ok(None)) => self.stage = Stage::New,
                    Poll::Ready(Ok(Some(got))) => return Poll::Ready(Ok(got)),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                },
                Stage::Done => return Poll::Pending,
            }
        }
    }

    /// Acquires the permits, or joins the queue.
    fn arrive(&mut self) -> Result<Option<Batch>> {
        // Waiters of this process go first.
        let PermitRequest { semaphore, permits } = &self.request;
        let gate = &semaphore.gate;
        let others = !QUEUES.is_empty() && QUEUES.has(&gate.key());
        if !others && !std::mem::take(&mut self.has_tried) {
            if let Some(got) = semaphore.take_if_unwanted(*permits)? {
                return Ok(Some(got));
            }
        }
        if semaphore.can_be_ordered() {
            let check_interval = semaphore.wake_strategy.backstop;
            self.stage = Stage::Ordered(Ordered {
                wait: OrderedWait::new(Arc::clone(&semaphore.line), check_interval),
                check: OwnCheck::new(check_interval),
            });
            return Ok(None);
        }
        self.come_to_gate(None)?;
        Ok(None)
    }

    /// Becomes the leader, or waits for that in the kernel.
    fn come_to_gate(&mut self, ticket: Option<Ticket>) -> Result<()> {
        let semaphore = Arc::clone(&self.request.semaphore);
        let gate = &semaphore.gate;
        let queued = if ticket.is_some() {
            if let Some(gate) = attempt_at_front(&**gate)? {
                self.lead(gate, None, ticket);
                return Ok(());
            }
            QueuedWaiter::after_a_try(&QUEUES, Arc::clone(gate))
        } else {
            QueuedWaiter::new(&QUEUES, Arc::clone(gate))
        };
        // Announced before it queues: no new caller passes it from now on (S5).
        let announcement = ticket.is_none().then(|| semaphore.slots.announce());
        let check = OwnCheck::new(semaphore.wake_strategy.backstop);
        self.stage = Stage::Queueing(Queueing { gate: queued, announcement, ticket, check });
        Ok(())
    }

    fn advance(&mut self, gate: FileLock) {
        if let Stage::Queueing(queueing) = std::mem::replace(&mut self.stage, Stage::Done) {
            self.lead(gate, queueing.announcement, queueing.ticket);
        }
    }

    fn lead(&mut self, gate: FileLock, announcement: Option<Announcement>, ticket: Option<Ticket>) {
        let semaphore = &self.request.semaphore;
        let mut leader = Leader {
            one: None,
            gathered: semaphore.slots.nothing(),
            events: Events::new(semaphore),
            announcement,
            gate,
            _ticket: ticket,
        };
        leader.announce(semaphore);
        self.stage = Stage::Leader(Box::new(leader));
    }
}

impl Inner {
    /// Whether waiters may have tickets: not where they poll.
    fn can_be_ordered(&self) -> bool {
        self.wake_strategy.poll_every.is_none() && !self.slots.is_network()
    }
}

impl Leader {
    /// Processes that release cause events of the directory only for a leader that has announced
    /// itself (S6).
    fn announce(&mut self, semaphore: &Inner) {
        if matches!(self.events, Events::Directory(_)) {
            self.announcement.get_or_insert_with(|| semaphore.slots.announce());
        }
    }

    /// Returns `None` if the gate file was replaced, so that the waiter must queue again.
    fn poll(
        &mut self,
        request: &PermitRequest,
        is_future: bool,
        waker: &Waker,
    ) -> Poll<Result<Option<Batch>>> {
        let semaphore = &request.semaphore;
        loop {
            match self.poll_signals(request) {
                None => {}
                Some(Poll::Pending) if !self.are_signals_current(semaphore) => {
                    self.events = Events::new(semaphore);
                    self.announce(semaphore);
                    continue;
                }
                Some(polled) => return polled,
            }
            let Self {
                one, gathered, events: Events::Directory(events), announcement, gate, ..
            } = &mut *self
            else {
                return Poll::Pending; // unreachable: `poll_signals` has returned a result
            };
            let polled = events.poll(waker, |thorough| {
                if thorough && !semaphore.gate.file.is_valid(gate)? {
                    return Ok(Check::Ready(None));
                }
                // This process's helper may have acquired the only slot meanwhile.
                if let Some(Poll::Ready(locked)) = one.as_mut().map(|one| one.poll(waker)) {
                    *one = None;
                    if let Some(got) = semaphore.slots.adopt(0, locked?)? {
                        return Ok(Check::Ready(Some(got)));
                    }
                }
                let check = LeaderCheck {
                    thorough,
                    is_blocked_for_only_slot: one.is_some(),
                    has_signals: false,
                };
                Ok(request.gather(gathered, announcement, check)?.map(Some))
            });
            if polled.is_ready() {
                return polled;
            }
            // The leader also blocks in the kernel for the only slot, which is ten times as fast
            // (S9).
            match (semaphore.only_slot(), &mut *one) {
                (Some(target), None) => {
                    *one = Some(QueuedWaiter::new(&QUEUES, target).brief(is_future));
                }
                (None, Some(_)) => *one = None,
                _ => {}
            }
            match one.as_mut().map(|one| one.poll(waker)) {
                None | Some(Poll::Pending) => return Poll::Pending,
                Some(Poll::Ready(Err(error))) => return Poll::Ready(Err(error)),
                Some(Poll::Ready(Ok(locked))) => {
                    *one = None;
                    if let Some(got) = semaphore.slots.adopt(0, locked)? {
                        return Poll::Ready(Ok(Some(got)));
                    }
                    events.check_again();
                }
            }
        }
    }

    /// `None` if the leader waits for the events of the directory.
    fn poll_signals(&mut self, request: &PermitRequest) -> Option<Poll<Result<Option<Batch>>>> {
        let Self {
            gathered, events: Events::Signals(signals, watched), announcement, gate, ..
        } = self
        else {
            return None;
        };
        let semaphore = &request.semaphore;
        Some(signals.poll(|first, thorough| {
            if thorough && !semaphore.gate.file.is_valid(gate)? {
                return Ok(Check::Ready(None));
            }
            if let Some(slot) = first.and_then(|index| watched.slot(index)) {
                semaphore.slots.begin_with(slot);
            }
            if thorough && !watched.is_in_place(semaphore.slots.directory()) {
                semaphore.slots.forget_watched();
            }
            let check =
                LeaderCheck { thorough, is_blocked_for_only_slot: false, has_signals: true };
            Ok(request.gather(gathered, announcement, check)?.map(Some))
        }))
    }

    /// Whether the leader waits for the FIFOs of all slots that it needs now.
    fn are_signals_current(&self, semaphore: &Inner) -> bool {
        match &self.events {
            Events::Signals(_, watched) => semaphore.slots.are_needed(watched),
            Events::Directory(_) => true,
        }
    }

    fn next_tick(&self) -> Option<Instant> {
        let one = self.one.as_ref().and_then(Waiter::next_tick);
        [one, self.events.next_tick()].into_iter().flatten().min()
    }
}

impl Waiter for QueuedAcquire {
    type Held = Batch;

    fn poll(&mut self, waker: &Waker) -> Poll<Result<Batch>> {
        let polled = self.step(waker);
        if polled.is_ready() {
            self.stage = Stage::Done;
        }
        polled
    }

    fn next_tick(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Queueing(queueing) => {
                let gate = queueing.gate.next_tick();
                [gate, Some(queueing.check.at())].into_iter().flatten().min()
            }
            Stage::Ordered(ordered) => {
                let turn = ordered.wait.next_tick();
                [turn, Some(ordered.check.at())].into_iter().flatten().min()
            }
            Stage::Leader(leader) => leader.next_tick(),
            Stage::New | Stage::Done => None,
        }
    }

    fn sources(&self) -> &[Arc<WatchedFifo>] {
        match &self.stage {
            Stage::Leader(leader) => leader.events.sources(),
            Stage::Ordered(ordered) => ordered.wait.sources(),
            Stage::New | Stage::Queueing(_) | Stage::Done => &[],
        }
    }

    fn polls_because(&self) -> Option<PollReason> {
        match &self.stage {
            Stage::Queueing(queueing) => queueing.gate.polls_because(),
            Stage::Leader(leader) => match &leader.events {
                Events::Signals(..) => None,
                Events::Directory(events) => events.polls_because(),
            },
            Stage::New | Stage::Ordered(_) | Stage::Done => None,
        }
    }

    /// Checks once more, and leaves the queue (W2).
    fn last_chance(&mut self) -> Result<Option<Batch>> {
        let result = match &mut self.stage {
            Stage::Leader(leader) => {
                let Leader { one, gathered, announcement, .. } = &mut **leader;
                let locked = one.as_mut().map_or(Ok(None), Waiter::last_chance)?;
                let adopted = locked
                    .map(|locked| self.request.semaphore.slots.adopt(0, locked))
                    .transpose()?
                    .flatten();
                if adopted.is_some() {
                    adopted
                } else {
                    let check = LeaderCheck {
                        thorough: true,
                        is_blocked_for_only_slot: false,
                        has_signals: false,
                    };
                    self.request.gather(gathered, announcement, check)?.ready()
                }
            }
            Stage::Ordered(_) | Stage::Queueing(_) => {
                self.stage = Stage::Done; // its own ticket would refuse the try
                self.request.semaphore.try_take(self.request.permits, true)?
            }
            Stage::New | Stage::Done => None,
        };
        self.stage = Stage::Done;
        Ok(result)
    }
}
