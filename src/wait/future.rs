//! Waiting as a future, independent of any runtime.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::Waiter;
use super::hooks::{HookedWait, WaitHooks};
use super::reactor::Registration;
use super::timer::Alarm;
use crate::error::Result;

/// A wait as a future. Dropping it gives up the wait: a lock that it was granted and has not taken
/// goes to the next waiter (rule Q4).
#[must_use = "a future does nothing unless it is polled"]
pub(crate) struct Acquire<W> {
    wait: HookedWait<W>,
    alarm: Alarm,
    signals: Registration,
}

impl<W: Waiter> Acquire<W> {
    pub(crate) fn new(waiter: W, hooks: Option<WaitHooks>) -> Self {
        Self {
            wait: HookedWait::new(waiter, hooks),
            alarm: Alarm::default(),
            signals: Registration::default(),
        }
    }
}

impl<W: Waiter> Future for Acquire<W> {
    type Output = Result<W::Held>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let polled = this.wait.poll(context.waker());
        if polled.is_pending() {
            this.signals.set(this.wait.sources(), context.waker());
        } else {
            this.signals.cancel();
        }
        match this.wait.next_tick().filter(|_| polled.is_pending()) {
            Some(at) => this.alarm.set(at, context.waker()),
            None => this.alarm.cancel(),
        }
        polled
    }
}
