//! Waiting as a future, of no particular runtime.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::Waiter;
use super::callback::{WaitCallback, WithCallback};
use super::timer::Alarm;
use crate::error::Result;

/// A wait as a future. Dropping it gives up: a lock that it was granted and did not take goes to
/// the next waiter (rule Q4).
#[must_use = "a future does nothing unless it is polled"]
pub(crate) struct Acquire<W> {
    wait: WithCallback<W>,
    alarm: Alarm,
}

impl<W: Waiter> Acquire<W> {
    pub(crate) fn new(waiter: W, notice: Option<WaitCallback>) -> Self {
        Self { wait: WithCallback::new(waiter, notice), alarm: Alarm::default() }
    }
}

impl<W: Waiter> Future for Acquire<W> {
    type Output = Result<W::Held>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let polled = this.wait.poll(context.waker());
        match this.wait.next_tick().filter(|_| polled.is_pending()) {
            Some(at) => this.alarm.set(at, context.waker()),
            None => this.alarm.cancel(),
        }
        polled
    }
}

/// A wait as a future that may have been refused before it began: says so when it is polled.
pub(crate) struct Begun<W>(Option<Result<Acquire<W>>>);

impl<W: Waiter> Begun<W> {
    pub(crate) fn new(begun: Result<Acquire<W>>) -> Self {
        Self(Some(begun))
    }
}

impl<W: Waiter> Future for Begun<W> {
    type Output = Result<W::Held>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Some(Ok(acquire)) => Pin::new(acquire).poll(context),
            refused => match refused.take() {
                Some(Err(error)) => Poll::Ready(Err(error)),
                _ => Poll::Pending,
            },
        }
    }
}

/// A future whose outcome is made into another one when it is there.
#[must_use = "a future does nothing unless it is polled"]
pub(crate) struct Then<F, M> {
    future: F,
    make: Option<M>,
}

impl<F, M> Then<F, M> {
    pub(crate) fn new(future: F, make: M) -> Self {
        Self { future, make: Some(make) }
    }
}

impl<F: Unpin, M> Unpin for Then<F, M> {}

impl<F: Future + Unpin, M: FnOnce(F::Output) -> T, T> Future for Then<F, M> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        if self.make.is_none() {
            return Poll::Pending; // it has ended
        }
        match Pin::new(&mut self.future).poll(context) {
            Poll::Ready(outcome) => match self.make.take() {
                Some(make) => Poll::Ready(make(outcome)),
                None => Poll::Pending,
            },
            Poll::Pending => Poll::Pending,
        }
    }
}
