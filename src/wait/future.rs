//! Waiting as a future, independent of any runtime.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::hooks::{HookedWait, WaitHooks};
use super::reactor::Registration;
use super::timer::Alarm;
use super::{AnyWaiter, Keeper, Waiter};
use crate::error::Result;

/// A wait as a future. Dropping it gives up the wait: a lock that it was granted and has not taken
/// goes to the next waiter (rule Q4).
#[must_use = "a future does nothing unless it is polled"]
pub(crate) struct Acquire<W: Waiter> {
    waiter: Keeper<W>,
    any: AnyAcquire,
}

/// The part that does not depend on the kind of waiter.
struct AnyAcquire {
    wait: HookedWait,
    alarm: Alarm,
    signals: Registration,
}

impl<W: Waiter> Acquire<W> {
    pub(crate) fn new(waiter: W, hooks: Option<WaitHooks>) -> Self {
        let (alarm, signals) = (Alarm::default(), Registration::default());
        let any = AnyAcquire { wait: HookedWait::new(hooks), alarm, signals };
        Self { waiter: Keeper::new(waiter), any }
    }
}

impl<W: Waiter> Future for Acquire<W> {
    type Output = Result<W::Held>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        match (this.any.poll(&mut this.waiter, context.waker()), this.waiter.held.take()) {
            (Poll::Ready(Err(error)), _) => Poll::Ready(Err(error)),
            (Poll::Ready(Ok(())), Some(held)) => Poll::Ready(Ok(held)),
            _ => Poll::Pending,
        }
    }
}

impl AnyAcquire {
    fn poll(&mut self, waiter: &mut dyn AnyWaiter, waker: &Waker) -> Poll<Result<()>> {
        let polled = self.wait.poll(waiter, waker);
        if polled.is_pending() {
            self.signals.set(waiter.sources(), waker);
        } else {
            self.signals.cancel();
        }
        match self.wait.next_tick(waiter).filter(|_| polled.is_pending()) {
            Some(at) => self.alarm.set(at, waker),
            None => self.alarm.cancel(),
        }
        polled
    }
}
