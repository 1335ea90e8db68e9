//! Waiting for any of several things, in turn: everybody queues at a gate, which is a lock, and only its
//! holder, the head, looks for what is wanted and hears of it. So the order is the gate's, and one
//! release wakes one waiter, however many wait (rules S4 to S9).

use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::deadline::now;
use super::line::InLine;
use super::queue::Lines;
use super::watching::{Means, Seen, Watching};
use super::{Target, Waiter};
use crate::error::Result;

/// Rule S8. How long who stands in the queue waits at most before looking for itself: the head may have been
/// stopped (SIGSTOP).
const PATIENCE: Duration = Duration::from_secs(1);

/// What can be waited for at a gate.
pub(crate) trait Pool: Send + Sync + 'static {
    type Gate: Target;
    /// What the head has gathered so far. Dropping it gives it back.
    type Gathered: Send;
    /// Says that somebody waits, for as long as it is kept.
    type Presence: Send;
    type Held: Send;

    fn gate(&self) -> &Arc<Self::Gate>;
    fn means(&self) -> &Means;
    /// Takes what is wanted if it is there and nobody waits for it.
    fn take_if_unwanted(&self) -> Result<Option<Self::Held>>;
    /// Takes what is wanted if it is there, all of it or nothing, whoever else waits.
    fn take(&self) -> Result<Option<Self::Held>>;
    /// Lets everybody who could give it know that somebody waits (S5).
    fn announce(&self) -> Self::Presence;
    fn nothing(&self) -> Self::Gathered;
    /// As the head: takes what is there, until that is all that is wanted.
    fn gather(
        &self,
        gathered: &mut Self::Gathered,
        presence: &mut Self::Presence,
        look: Look,
    ) -> Result<Seen<Self::Held>>;
    /// Whether what is held is still the gate, or has been replaced.
    fn is_gate(&self, gate: &<Self::Gate as Target>::Held) -> Result<bool>;
    /// Where there is only one thing that could be had: a lock, to be waited for in the kernel.
    fn only_one(&self) -> Option<Arc<Self::Gate>>;
    /// Makes that lock what was wanted. `None`: there is more than one by now.
    fn adopt(&self, one: <Self::Gate as Target>::Held) -> Result<Option<Self::Held>>;
}

/// How the head looks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    /// Also at what no event tells.
    pub(crate) thorough: bool,
    /// Not at the only one: a helper is waiting for it.
    pub(crate) one_is_waited_for: bool,
}

type GateHeld<P> = <<P as Pool>::Gate as Target>::Held;

/// Waits for its turn.
pub(crate) struct Turn<P: Pool> {
    lines: &'static Lines<P::Gate>,
    pool: Arc<P>,
    /// It may be set aside by its executor at any moment.
    is_future: bool,
    stage: Stage<P>,
}

enum Stage<P: Pool> {
    New,
    Queueing(Queueing<P>),
    Head(Box<Head<P>>),
    /// Over: had, failed or given up.
    Done,
}

struct Queueing<P: Pool> {
    gate: InLine<P::Gate>,
    presence: P::Presence,
    look_at: Instant,
}

/// Given back in this order: what was gathered first, so that the next head finds it.
struct Head<P: Pool> {
    one: Option<InLine<P::Gate>>,
    gathered: P::Gathered,
    watching: Watching,
    presence: P::Presence,
    gate: GateHeld<P>,
}

impl<P: Pool> Unpin for Turn<P> {}

impl<P: Pool> Turn<P> {
    pub(crate) fn new(lines: &'static Lines<P::Gate>, pool: Arc<P>) -> Self {
        Self { lines, pool, is_future: false, stage: Stage::New }
    }

    pub(crate) fn future(self) -> Self {
        Self { is_future: true, ..self }
    }

    fn step(&mut self, waker: &Waker) -> Poll<Result<P::Held>> {
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
                        Poll::Pending if queueing.look_at > now() => return Poll::Pending,
                        // S8. The head may be stopped.
                        Poll::Pending => match self.pool.take() {
                            Ok(None) => queueing.look_at = look_at(&*self.pool),
                            Ok(Some(got)) => return Poll::Ready(Ok(got)),
                            Err(error) => return Poll::Ready(Err(error)),
                        },
                    }
                }
                Stage::Head(head) => {
                    match head.poll(self.lines, &*self.pool, self.is_future, waker) {
                        Poll::Ready(Ok(None)) => self.stage = Stage::New,
                        Poll::Ready(Ok(Some(got))) => return Poll::Ready(Ok(got)),
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => return Poll::Pending,
                    }
                }
                Stage::Done => return Poll::Pending,
            }
        }
    }

    /// Takes what is wanted, or stands in the queue.
    fn arrive(&mut self) -> Result<Option<P::Held>> {
        // Within the process, those who wait already are first.
        let gate = self.pool.gate();
        let others = !self.lines.is_empty() && self.lines.has(&gate.key());
        if !others {
            if let Some(got) = self.pool.take_if_unwanted()? {
                return Ok(Some(got));
            }
        }
        self.stage = Stage::Queueing(Queueing {
            // S5. Before standing there: from now on nobody passes us.
            presence: self.pool.announce(),
            gate: InLine::new(self.lines, Arc::clone(gate)),
            look_at: look_at(&*self.pool),
        });
        Ok(None)
    }

    /// From the queue to its head.
    fn advance(&mut self, gate: GateHeld<P>) {
        if let Stage::Queueing(queueing) = std::mem::replace(&mut self.stage, Stage::Done) {
            self.stage = Stage::Head(Box::new(Head {
                one: None,
                gathered: self.pool.nothing(),
                watching: Watching::new(self.pool.means().clone()),
                presence: queueing.presence,
                gate,
            }));
        }
    }
}

/// When who stands in the queue looks for itself.
fn look_at<P: Pool>(pool: &P) -> Instant {
    let (now, span) = (now(), pool.means().backstop.unwrap_or(PATIENCE));
    now.checked_add(span).unwrap_or(now + PATIENCE)
}

impl<P: Pool> Head<P> {
    /// `None`: the gate is another one by now, and it must be queued for again.
    fn poll(
        &mut self,
        lines: &'static Lines<P::Gate>,
        pool: &P,
        is_future: bool,
        waker: &Waker,
    ) -> Poll<Result<Option<P::Held>>> {
        loop {
            let Self { one, gathered, watching, presence, gate } = self;
            let polled = watching.poll(waker, |thorough| {
                if thorough && !pool.is_gate(gate)? {
                    return Ok(Seen::Had(None));
                }
                // What is there may be what our own helper got meanwhile.
                if let Some(Poll::Ready(locked)) = one.as_mut().map(|one| one.poll(waker)) {
                    *one = None;
                    if let Some(got) = pool.adopt(locked?)? {
                        return Ok(Seen::Had(Some(got)));
                    }
                }
                let look = Look { thorough, one_is_waited_for: one.is_some() };
                Ok(pool.gather(gathered, presence, look)?.map(Some))
            });
            if polled.is_ready() {
                return polled;
            }
            // S9. The only one is waited for in the kernel as well, which is ten times as fast.
            match (pool.only_one(), &mut *one) {
                (Some(target), None) => *one = Some(InLine::new(lines, target).brief(is_future)),
                (None, Some(_)) => *one = None,
                _ => {}
            }
            match one.as_mut().map(|one| one.poll(waker)) {
                None | Some(Poll::Pending) => return Poll::Pending,
                Some(Poll::Ready(Err(error))) => return Poll::Ready(Err(error)),
                Some(Poll::Ready(Ok(locked))) => {
                    *one = None;
                    if let Some(got) = pool.adopt(locked)? {
                        return Poll::Ready(Ok(Some(got)));
                    }
                    watching.look_again();
                }
            }
        }
    }

    fn next_tick(&self) -> Option<Instant> {
        let one = self.one.as_ref().and_then(Waiter::next_tick);
        [one, self.watching.next_tick()].into_iter().flatten().min()
    }
}

impl<P: Pool> Waiter for Turn<P> {
    type Held = P::Held;

    fn poll(&mut self, waker: &Waker) -> Poll<Result<P::Held>> {
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
                [gate, Some(queueing.look_at)].into_iter().flatten().min()
            }
            Stage::Head(head) => head.next_tick(),
            Stage::New | Stage::Done => None,
        }
    }

    /// W2. Looks once more, and leaves.
    fn last_chance(&mut self) -> Result<Option<P::Held>> {
        let result = match &mut self.stage {
            Stage::Head(head) => {
                let Head { one, gathered, presence, .. } = &mut **head;
                let locked = one.as_mut().map_or(Ok(None), Waiter::last_chance)?;
                let adopted = locked.map(|locked| self.pool.adopt(locked)).transpose()?.flatten();
                if adopted.is_some() {
                    adopted
                } else {
                    let look = Look { thorough: true, one_is_waited_for: false };
                    self.pool.gather(gathered, presence, look)?.had()
                }
            }
            Stage::Queueing(_) => self.pool.take()?,
            Stage::New | Stage::Done => None,
        };
        self.stage = Stage::Done;
        Ok(result)
    }
}
