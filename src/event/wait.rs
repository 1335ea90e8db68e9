//! Waits for events: the condition of each wait, how it is checked, and the result of the wait.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::seen::Seen;
use super::{Event, Inner};
use crate::cancel::Cancels;
use crate::error::{Error, Obstacle, Operation, Result};
use crate::file::marker::Consumed;
use crate::options::{OnWait, Waiting};
use crate::wait::{
    Acquire, Check, Condition, ConditionWait, Limit, Outcome, PolledTarget, RemoteFuture, Server,
    WaitCallback, WaitHooks, WakeStrategy, WatchTarget, wait_for,
};

pub(super) type CheckFn = fn(&[Arc<Inner>]) -> Result<Check<Seen>>;

/// A wait for one or more events.
#[derive(Clone)]
pub(super) struct EventWait {
    pub(super) events: Box<[Arc<Inner>]>,
    pub(super) check: CheckFn,
    /// What a timeout error reports.
    pub(super) obstacle: Obstacle,
    /// Whether one of the events is enough.
    pub(super) is_any: bool,
}

/// The index of the first event that is set (or clear, if `is_set` is `false`).
fn first(events: &[Arc<Inner>], is_set: bool) -> Result<Option<usize>> {
    for (index, event) in events.iter().enumerate() {
        if event.marker.is_set()? == is_set {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

pub(super) fn all_set(events: &[Arc<Inner>]) -> Result<Check<Seen>> {
    let unset = first(events, false)?;
    Ok(unset.map_or(Check::Ready(Seen::default()), |_| not_ready(events)))
}

fn any_set(events: &[Arc<Inner>]) -> Result<Check<Seen>> {
    let set = first(events, true)?;
    Ok(set.map_or_else(|| not_ready(events), |index| Check::Ready(Seen::event(index))))
}

pub(super) fn cleared(events: &[Arc<Inner>]) -> Result<Check<Seen>> {
    let set = first(events, true)?;
    Ok(set.map_or(Check::Ready(Seen::default()), |_| not_ready(events)))
}

/// Not ready yet. Some changes are not reported, and then the waiter must poll as well: those of
/// the file that a symbolic link leads to (rule E1), and on a network file system the end of a
/// process that has announced (rule E8).
fn not_ready(events: &[Arc<Inner>]) -> Check<Seen> {
    Check::not_yet(events.iter().all(|event| event.marker.has_events_of_changes()))
}

/// The payload of a setting. It is read in the check that finds the setting.
pub(super) fn with_payload(events: &[Arc<Inner>]) -> Result<Check<Seen>> {
    for event in events {
        if let Some(payload) = event.marker.payload()? {
            return Ok(Check::Ready(Seen::payload(payload)));
        }
    }
    Ok(not_ready(events))
}

/// Consumes the event. While another process consumes it, the waiter must poll: that process may
/// fail or die, and releasing a lock produces no event (rule E5).
pub(super) fn consumed(events: &[Arc<Inner>]) -> Result<Check<Seen>> {
    for event in events {
        match event.marker.consume()? {
            Consumed::Payload(payload) => return Ok(Check::Ready(Seen::consumed(event, payload))),
            Consumed::Nothing => {}
            Consumed::Busy => return Ok(Check::not_yet(false)),
        }
    }
    Ok(not_ready(events))
}

impl EventWait {
    /// A wait for one of them, whose result is its index.
    pub(super) fn any<I>(events: I) -> Result<Self>
    where
        I: IntoIterator,
        I::Item: AsRef<Event>,
    {
        let events = inner(events);
        if events.is_empty() {
            let source =
                std::io::Error::new(std::io::ErrorKind::InvalidInput, "no events were given");
            return Err(Error::io(Operation::WaitAny, &Path::new("").into(), source));
        }
        Ok(Self { events, check: any_set, obstacle: Obstacle::NotSet, is_any: true })
    }

    pub(super) fn all<I>(events: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<Event>,
    {
        Self { events: inner(events), check: all_set, obstacle: Obstacle::NotSet, is_any: false }
    }

    /// The server of the first event that is on a network file system.
    fn server(&self) -> Option<&Server> {
        self.events.iter().find_map(|event| event.server.as_ref())
    }

    /// Checks without waiting.
    pub(super) fn try_now<T: From<Seen>>(self) -> Result<T> {
        match self.server().cloned() {
            Some(server) => server.ask(move || self.try_here()),
            None => self.try_here(),
        }
        .map(T::from)
    }

    fn try_here(&self) -> Result<Seen> {
        match (self.check)(&self.events)? {
            Check::Ready(seen) => Ok(seen),
            Check::NotYet { .. } => {
                Err(Error::would_block_for(self.events[0].marker.path(), self.obstacle))
            }
        }
    }

    pub(super) fn wait<T: From<Seen>>(self, limit: Limit) -> Result<T> {
        let hooks = self.hooks();
        match self.server().cloned() {
            Some(server) => {
                server.wait(limit, hooks.as_ref(), move |limit, hooks| self.wait_here(limit, hooks))
            }
            None => self.wait_here(limit, hooks.as_ref()),
        }
        .map(T::from)
    }

    fn wait_here(self, limit: Limit, hooks: Option<&WaitHooks>) -> Result<Seen> {
        let (events, obstacle): (Box<[Arc<Inner>]>, _) = (self.events.clone(), self.obstacle);
        match wait_for(self, limit, hooks)? {
            Outcome::Held(seen) => Ok(seen),
            Outcome::TimedOut(waited) => Err(timed_out(&events, waited, obstacle)),
        }
    }

    pub(super) fn future<T>(self) -> WaitFuture<T> {
        WaitFuture { stage: FutureStage::New(self), result: PhantomData }
    }

    /// The wait as a future on a network file system, which a helper makes.
    fn remote(&self) -> Option<RemoteFuture<Seen>> {
        let (server, hooks, own) = (self.server()?, self.hooks(), self.clone());
        server.future(hooks.as_ref(), move |limit, hooks| own.wait_here(limit, hooks))
    }

    fn hooks(&self) -> Option<WaitHooks> {
        let on_wait = self.events.iter().find_map(|event| event.on_wait.clone());
        let callback = on_wait.map(|OnWait { after, every, callback }| {
            let (events, obstacle, is_any) = (self.events.clone(), self.obstacle, self.is_any);
            let is_remote = self.server().is_some();
            let call = move |elapsed, is_first| {
                // The calling thread does not ask a server, which may not respond.
                let missing = if is_remote {
                    events.first().map(|first| (first, events.len() - 1))
                } else {
                    missing(&events, obstacle, |event: &Inner| event.marker.seems_set())
                };
                if let Some((first, others)) = missing {
                    let waiting = Waiting::new(first.marker.path(), elapsed, is_first);
                    callback(&waiting.for_events(others, is_any));
                }
            };
            WaitCallback { after, every, call: Arc::new(call) }
        });
        let mut cancels = Cancels::default();
        self.events.iter().for_each(|event| cancels.extend(&event.cancels));
        let path = Arc::clone(self.events.first()?.marker.path());
        WaitHooks::new(path, callback, cancels)
    }
}

fn inner<I>(events: I) -> Box<[Arc<Inner>]>
where
    I: IntoIterator,
    I::Item: AsRef<Event>,
{
    events.into_iter().map(|event| Arc::clone(&event.as_ref().inner)).collect()
}

fn is_set(event: &Inner) -> bool {
    event.marker.is_set().unwrap_or(false)
}

/// The first event that is missing, and the number of further missing events.
fn missing(
    events: &[Arc<Inner>],
    obstacle: Obstacle,
    is_set: impl Fn(&Inner) -> bool,
) -> Option<(&Arc<Inner>, usize)> {
    let mut missing = events.iter().filter(|event| obstacle != Obstacle::NotSet || !is_set(event));
    let first = missing.next()?;
    Some((first, missing.count()))
}

fn timed_out(events: &[Arc<Inner>], waited: Duration, obstacle: Obstacle) -> Error {
    // If no event is missing any more, the error names the first one.
    let named = missing(events, obstacle, is_set).or(events.first().map(|first| (first, 0)));
    let Some((first, others)) = named else {
        return Error::timed_out_for(&Path::new("").into(), waited, obstacle, 0);
    };
    let is_busy = obstacle == Obstacle::NotConsumed && is_set(first);
    let obstacle = if is_busy { Obstacle::BeingConsumed } else { obstacle };
    Error::timed_out_for(first.marker.path(), waited, obstacle, others)
}

impl Condition for EventWait {
    type Held = Seen;

    fn check(&self) -> Result<Check<Seen>> {
        (self.check)(&self.events)
    }

    fn wake_strategy(&self) -> WakeStrategy {
        let (mut places, mut polled) = (Vec::new(), Vec::new());
        for event in &self.events {
            let (marker, directory) = (&event.marker, Arc::clone(event.marker.directory()));
            if marker.refresh_is_network() {
                // Only a consumer needs to know of a marker that was taken and not delivered.
                let count = if self.obstacle == Obstacle::NotConsumed { 2 } else { 1 };
                let names = marker.names().iter().take(count).cloned().collect();
                let until_absent = self.obstacle == Obstacle::StillSet;
                polled.push(PolledTarget { directory, names, until_absent });
            } else {
                places.push(WatchTarget { directory, names: Some(Arc::clone(marker.names())) });
            }
        }
        WakeStrategy {
            must_poll: false,
            polled,
            places,
            requests: 1,
            poll_every: self.events.iter().filter_map(|event| event.poll_every).min(),
            backstop: self.events.iter().filter_map(|event| event.backstop).min(),
            // An announcement no longer counts when the kernel has dropped the lock of its process
            // (rule E8).
            is_unlocking: self.obstacle == Obstacle::StillSet,
        }
    }
}

/// A wait as a future.
pub(super) struct WaitFuture<T> {
    stage: FutureStage,
    result: PhantomData<fn() -> T>,
}

enum FutureStage {
    New(EventWait),
    Here(Box<Acquire<ConditionWait<EventWait>>>),
    Remote(Box<RemoteFuture<Seen>>),
    /// It has returned its result.
    Done,
}

impl FutureStage {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Seen>> {
        if let Self::New(_) = self {
            if let Self::New(wait) = std::mem::replace(self, Self::Done) {
                *self = if let Some(call) = wait.remote() {
                    Self::Remote(Box::new(call))
                } else {
                    let hooks = wait.hooks();
                    Self::Here(Box::new(Acquire::new(ConditionWait::new(wait), hooks)))
                };
            }
        }
        let polled = match self {
            Self::Here(wait) => Pin::new(&mut **wait).poll(context),
            Self::Remote(call) => Pin::new(&mut **call).poll(context),
            Self::New(_) | Self::Done => Poll::Pending,
        };
        if polled.is_ready() {
            *self = Self::Done;
        }
        polled
    }
}

impl<T: From<Seen>> Future for WaitFuture<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        self.stage.poll(context).map_ok(T::from)
    }
}

/// A future that waits for several events.
///
/// [`Event::wait_any_async`] and [`Event::wait_all_async`] return it. It follows the [rule of all
/// futures](crate#futures): it is `Send + 'static`, belongs to no runtime, and is cancelled by
/// dropping it.
///
/// # Examples
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// use flockwork::{Event, EventFuture};
///
/// let done = Event::open(dir.path().join("done"))?;
/// let failed = Event::open(dir.path().join("failed"))?;
/// let outcome: EventFuture<usize> = Event::wait_any_async([&done, &failed]);
/// done.set()?;
/// assert_eq!(futures_lite::future::block_on(outcome)?, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a future does nothing unless it is polled"]
pub struct EventFuture<T>(Pin<Box<dyn Future<Output = Result<T>> + Send>>);

impl<T: 'static> EventFuture<T> {
    pub(super) fn new(wait: Result<EventWait>) -> Self
    where
        T: From<Seen>,
    {
        Self(Box::pin(async move { wait?.future().await }))
    }
}

impl<T> Future for EventFuture<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl<T> fmt::Debug for EventFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventFuture").finish_non_exhaustive()
    }
}
