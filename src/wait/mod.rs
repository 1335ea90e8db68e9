//! The waiting engine under all primitives. It deals with time, and knows what it waits for only as
//! a [`Target`] or a [`Condition`].
//!
//! Every wait tries, subscribes, tries again, and then waits for a notification, a tick or the
//! deadline. A notification is a hint; the attempt decides. There are four ways to wait:
//!
//! * **Blocked in the kernel, in the calling thread** ([`acquire`] without a deadline and a
//!   callback). No wake-up can be lost: the kernel queues the caller, and grants it the lock when
//!   the holder releases it or dies.
//! * **Queued behind a helper thread** ([`queue`]), with a deadline, as a future, or with a
//!   callback. The helper blocks in the kernel, which combines "try again" and "wait".
//! * **Polling with backoff** ([`backoff`]) where the kernel's queue cannot be relied on, or no
//!   helper can be started.
//! * **Checking a condition** ([`condition`]) that no process holds, such as a marker file, after
//!   each event of a directory ([`event_loop`], [`watch`]).
//!
//! A lock that can be acquired in several modes has a [`turnstile`]: a waiter waits for one lock
//! and then for another, each in one of the first three ways. The leader of a semaphore's queue
//! uses the event loop directly (`src/semaphore/acquire.rs`).
//!
//! On a network file system a helper thread makes the whole wait ([`remote`]), since any of its
//! calls may not return.
//!
//! Threads and futures share one state machine for each way ([`Waiter`]): a thread polls it with a
//! waker that unparks it. `docs/INTERNALS.md` has the rules of this engine (W1 to W9, Q1 to Q9),
//! and shows what happens if any participant dies.

mod backoff;
mod check_sampler;
mod condition;
mod deadline;
mod event_loop;
mod future;
mod hooks;
mod host_wait;
mod kept;
mod order;
mod own_check;
mod queue;
mod queued_waiter;
mod reactor;
mod remote;
mod shared_poll;
mod signal_loop;
mod take_over;
mod target;
mod thread;
mod timer;
mod turnstile;
mod waiter;
mod watch;

pub(crate) use self::check_sampler::CheckSampler;
pub(crate) use self::condition::{Condition, ConditionWait, wait_for};
pub(crate) use self::deadline::Limit;
pub(crate) use self::event_loop::{Check, EventLoop, WakeStrategy};
pub(crate) use self::future::Acquire;
pub(crate) use self::hooks::{WaitCallback, WaitHooks, check_cancelled};
pub(crate) use self::host_wait::{HostQueue, HostWait, TryNow, acquire_on_host, wait_on_host};
pub(crate) use self::kept::Kept;
pub(crate) use self::order::{Order, OrderedWait, Turn};
pub(crate) use self::own_check::OwnCheck;
pub(crate) use self::queue::WaitQueues;
pub(crate) use self::queued_waiter::QueuedWaiter;
pub(crate) use self::remote::{RemoteFuture, Server, leads_to_network, note_progress, open};
pub(crate) use self::shared_poll::PolledTarget;
pub(crate) use self::signal_loop::SignalLoop;
pub(crate) use self::take_over::{is_left, take_over, try_now};
pub(crate) use self::target::Target;
pub(crate) use self::thread::{acquire, wait_here};
use self::thread::{this_thread, wake};
pub(crate) use self::turnstile::{Turnstile, TurnstileWait, attempt_at_front, pass, try_pass};
use self::waiter::{AnyWaiter, Keeper};
pub(crate) use self::waiter::{Outcome, Waiter};
pub(crate) use self::watch::{WatchTarget, is_watchable};

#[cfg(test)]
mod memory;
#[cfg(test)]
mod tests;

#[cfg(all(test, flockwork_shuttle))]
mod schedules;
