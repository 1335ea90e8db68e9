//! Waiting for permits in turn. All waiters queue for the turnstile, which is a lock (the gate
//! file), and only its holder, the leader, gathers slots and is notified of releases. So the
//! turnstile decides the order, and one release wakes one waiter, however many wait (rules S4 to
//! S9).

use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::Inner;
use super::batch::Batch;
use super::notifications::Announcement;
use super::slots::{Gathering, Slots};
use crate::error::Result;
use crate::file::lock_file::FileLock;
use crate::lock_request::{Coordinator, LockRequest, QUEUES};
use crate::sys::Mode;
use crate::wait::{Check, EventLoop, QueuedWaiter, Target, Waiter, now};

/// How long a queued waiter waits at most before it checks the slots itself: the leader may have
/// been stopped by SIGSTOP (rule S8).
const QUEUED_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A request for N permits of a semaphore together.
pub(super) struct PermitRequest {
    pub(super) semaphore: Arc<Inner>,
    pub(super) permits: u32,
}

impl PermitRequest {
    fn take(&self) -> Result<Option<Batch>> {
        self.semaphore.take(self.permits, true)
    }

    fn gather(
        &self,
        gathered: &mut Batch,
        announcement: &mut Announcement,
        check: LeaderCheck,
    ) -> Result<Check<Batch>> {
        let slots = &self.semaphore.slots;
        if check.thorough {
            slots.refresh()?;
        }
        let relies = announcement.renew(check.thorough);
        let in_kernel = slots.has_only_one()?;
        if check.is_blocked_for_only_slot && in_kernel {
            return Ok(Check::NotYet { relies, in_kernel });
        }
        let how = Gathering { check_taken: true, check_refused: check.thorough, is_leader: true };
        if slots.gather(gathered, self.permits, how)? {
            return Ok(Check::Ready(std::mem::replace(gathered, slots.nothing())));
        }
        Ok(Check::NotYet { relies, in_kernel: slots.has_only_one()? })
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
}

/// One waiter, from joining the queue until it has its permits.
pub(super) struct QueuedAcquire {
    request: PermitRequest,
    /// Whether it is a future, which its executor may stop polling at any moment.
    is_future: bool,
    stage: Stage,
}

enum Stage {
    New,
    Queueing(Queueing),
    Leader(Box<Leader>),
    /// The wait has ended: acquired, failed or given up.
    Done,
}

struct Queueing {
    gate: QueuedWaiter<LockRequest>,
    announcement: Announcement,
    check_at: Instant,
}

/// The fields are dropped in this order: the slots first, so that the next leader finds them free.
struct Leader {
    one: Option<QueuedWaiter<LockRequest>>,
    gathered: Batch,
    events: EventLoop,
    announcement: Announcement,
    gate: FileLock,
}

impl QueuedAcquire {
    pub(super) fn new(request: PermitRequest) -> Self {
        Self { request, is_future: false, stage: Stage::New }
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
                Stage::Queueing(queueing) => {
                    match queueing.gate.poll(waker) {
                        Poll::Ready(Ok(gate)) => self.advance(gate),
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending if queueing.check_at > now() => return Poll::Pending,
                        // The leader may be stopped (S8).
                        Poll::Pending => match self.request.take() {
                            Ok(None) => queueing.check_at = check_at(&self.request.semaphore),
                            Ok(Some(got)) => return Poll::Ready(Ok(got)),
                            Err(error) => return Poll::Ready(Err(error)),
                        },
                    }
                }
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
        if !others {
            if let Some(got) = semaphore.take_if_unwanted(*permits)? {
                return Ok(Some(got));
            }
        }
        self.stage = Stage::Queueing(Queueing {
            // Announced before it queues: no new caller passes it from now on (S5).
            announcement: semaphore.slots.announce(),
            gate: QueuedWaiter::new(&QUEUES, Arc::clone(gate)),
            check_at: check_at(semaphore),
        });
        Ok(None)
    }

    /// Becomes the leader.
    fn advance(&mut self, gate: FileLock) {
        if let Stage::Queueing(queueing) = std::mem::replace(&mut self.stage, Stage::Done) {
            let semaphore = &self.request.semaphore;
            self.stage = Stage::Leader(Box::new(Leader {
                one: None,
                gathered: semaphore.slots.nothing(),
                events: EventLoop::new(semaphore.wake_strategy.clone()),
                announcement: queueing.announcement,
                gate,
            }));
        }
    }
}

/// The time at which a queued waiter checks the slots itself.
fn check_at(semaphore: &Inner) -> Instant {
    let (now, span) = (now(), semaphore.wake_strategy.backstop.unwrap_or(QUEUED_CHECK_INTERVAL));
    now.checked_add(span).unwrap_or(now + QUEUED_CHECK_INTERVAL)
}

impl Leader {
    /// Returns `None` if the gate file was replaced, so that the waiter must queue again.
    fn poll(
        &mut self,
        request: &PermitRequest,
        is_future: bool,
        waker: &Waker,
    ) -> Poll<Result<Option<Batch>>> {
        let semaphore = &request.semaphore;
        loop {
            let Self { one, gathered, events, announcement, gate } = self;
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
                let check = LeaderCheck { thorough, is_blocked_for_only_slot: one.is_some() };
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
                [gate, Some(queueing.check_at)].into_iter().flatten().min()
            }
            Stage::Leader(leader) => leader.next_tick(),
            Stage::New | Stage::Done => None,
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
                    let check = LeaderCheck { thorough: true, is_blocked_for_only_slot: false };
                    self.request.gather(gathered, announcement, check)?.ready()
                }
            }
            Stage::Queueing(_) => self.request.take()?,
            Stage::New | Stage::Done => None,
        };
        self.stage = Stage::Done;
        Ok(result)
    }
}
