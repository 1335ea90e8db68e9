//! The thread that polls one directory for all waiters of its process, and, if it is the poller of
//! its host, for those of other processes.

#![expect(clippy::disallowed_methods, reason = "a thread that sleeps between two listings")]

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::super::backoff::Backoff;
use super::super::deadline::now;
use super::super::queue::STACK;
use super::super::this_thread;
use super::super::watch::{DirListener, WatchTarget};
use super::listing::Listing;
use super::meeting::{Following, Leadership, Meeting, Poller};
use super::registry::{PollUser, registry};
use crate::sync;
use crate::sys::{self, ListedDirectory};

/// How often the poller shows that it lives.
const BEAT: Duration = Duration::from_millis(250);
/// How often other processes check whether it does.
const CHECK: Duration = Duration::from_millis(500);
/// The same where they cannot watch its files, and so read them for news.
const UNWATCHED_CHECK: Duration = Duration::from_millis(20);
/// How often a process that does not poll lists the directory itself (in seconds), in case its
/// listings differ from those of the poller.
const OWN_LISTING: std::ops::Range<u64> = 30..60;
/// How many requests a listing sends to the server.
const REQUESTS: u32 = 2;
/// How often the poller checks whether the path still leads to the directory: after this many of
/// its pauses, and at most once per second.
const PAUSES_PER_PATH_CHECK: u32 = 10;
const MIN_PATH_CHECK: Duration = Duration::from_secs(1);
/// The same for a process that does not poll.
const OWN_PATH_CHECK: Duration = Duration::from_secs(100);
/// How long the thread and the open directory are kept without a waiter.
const POLLER_KEEPALIVE: Duration = Duration::from_millis(500);

/// Starts the thread. Called under the registry's mutex, so the thread finds its entry.
pub(super) fn start(path: &Arc<Path>, thread: u64) -> bool {
    let path = Arc::clone(path);
    sync::start("flockwork-list", STACK, move || {
        let mut end = End { path, thread, has_ended: false };
        // An error is for the waiters, which make their own checks from then on.
        let _ = run(&mut end);
    })
    .is_ok()
}

/// Refuses the waiters that are left when the thread ends, also by a panic.
struct End {
    path: Arc<Path>,
    thread: u64,
    has_ended: bool,
}

impl End {
    /// The waiters, and how many have joined so far. Sets what wakes the thread.
    fn users(&self, waker: &Waker) -> (Vec<Arc<PollUser>>, u64) {
        let mut registry = registry();
        let Some(polled) = registry.directories.get_mut(&self.path) else {
            return (Vec::new(), 0);
        };
        let old = polled.waker.replace(waker.clone());
        let users = polled.users.values().cloned().collect();
        let joined = polled.joined;
        drop(registry);
        drop(old);
        (users, joined)
    }

    /// Ends the thread, if it has no waiter. One that comes later starts another.
    fn end_if_unused(&mut self) -> bool {
        let mut registry = registry();
        let is_unused =
            registry.directories.get(&self.path).is_none_or(|polled| polled.users.is_empty());
        if is_unused {
            registry.directories.remove(&self.path);
            self.has_ended = true;
        }
        is_unused
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let mut registry = registry();
        let is_own =
            registry.directories.get(&self.path).is_some_and(|it| it.thread == self.thread);
        let polled = if is_own { registry.directories.remove(&self.path) } else { None };
        drop(registry);
        if let Some(polled) = polled {
            polled.users.values().for_each(|user| user.refuse());
        }
    }
}

enum Role {
    /// Not decided, or no waiter is left.
    None,
    /// Polls, and shares what it finds if there is a place for that.
    Polls(Option<Leadership>),
    Follows(Box<Following>),
}

struct Thread {
    waker: Waker,
    directory: ListedDirectory,
    /// `None`: the processes of this host do not share what they find.
    meeting: Option<Meeting>,
    role: Role,
    /// Reports news for the role.
    listener: Option<DirListener>,
    backoff: Backoff,
    /// Since when nothing has changed, and no wait has begun.
    quiet_since: Instant,
    /// The version of the last listing of this process.
    listed: Option<u64>,
    next_path_check: Instant,
    next_check: Instant,
    next_own_listing: Instant,
    random: fastrand::Rng,
    joined: u64,
    /// Why the directory cannot be listed.
    failure: Option<io::Error>,
}

fn run(end: &mut End) -> io::Result<()> {
    let directory = ListedDirectory::open(&end.path)?;
    let start = now();
    let mut thread = Thread {
        waker: this_thread(),
        meeting: directory.key().and_then(|key| Meeting::of(&key)),
        directory,
        role: Role::None,
        listener: None,
        backoff: Backoff::new(None),
        quiet_since: start,
        listed: None,
        next_path_check: start,
        next_check: start,
        next_own_listing: start,
        random: sys::generator(),
        joined: 0,
        failure: None,
    };
    let mut unused_since = None;
    loop {
        let (users, joined) = end.users(&thread.waker);
        if users.is_empty() {
            let since = *unused_since.get_or_insert_with(now);
            thread.resign();
            let left = POLLER_KEEPALIVE.saturating_sub(now().saturating_duration_since(since));
            if left.is_zero() && end.end_if_unused() {
                return Ok(());
            }
            std::thread::park_timeout(left);
            continue;
        }
        unused_since = None;
        let has_joined = std::mem::replace(&mut thread.joined, joined) != joined;
        let stepped = thread.step(&users, has_joined);
        if stepped.is_err() {
            thread.resign();
        }
        std::thread::park_timeout(stepped?);
    }
}

impl Thread {
    /// Lets another process poll.
    fn resign(&mut self) {
        self.listener = None;
        if let (Role::Polls(Some(leadership)), Some(meeting)) =
            (std::mem::replace(&mut self.role, Role::None), &self.meeting)
        {
            leadership.resign(meeting);
        }
    }

    /// Returns how long to sleep.
    fn step(&mut self, users: &[Arc<PollUser>], has_joined: bool) -> io::Result<Duration> {
        if matches!(self.role, Role::None) {
            self.take_role(false);
        }
        let stepped = match self.role {
            Role::Follows(_) => self.follow(users, has_joined),
            Role::None | Role::Polls(_) => return self.poll(users, has_joined),
        };
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        Ok(stepped.unwrap_or_else(|_| {
            // The files of the host cannot be used.
            self.poll_alone();
            Duration::ZERO
        }))
    }

    fn poll_alone(&mut self) {
        (self.meeting, self.listener, self.role) = (None, None, Role::Polls(None));
        self.start_again();
    }

    fn start_again(&mut self) {
        (self.quiet_since, self.listed) = (now(), None);
        self.backoff.reset();
        self.backoff.check_now();
    }

    /// Becomes the poller of this host, or follows the one that there is.
    fn take_role(&mut self, replaces: bool) {
        let Some(meeting) = &self.meeting else { return self.poll_alone() };
        let (role, name) = match meeting.lead(replaces) {
            Ok(Some(leadership)) => (Role::Polls(Some(leadership)), meeting.wanted_name()),
            Ok(None) => (Role::Follows(Box::default()), meeting.state_name()),
            Err(_) => return self.poll_alone(),
        };
        let target =
            WatchTarget { directory: Arc::clone(&meeting.directory), names: Some([name].into()) };
        let is_poller = matches!(role, Role::Polls(_));
        self.role = role;
        self.listener = Some(DirListener::new(target));
        self.start_again();
        self.next_check = now();
        self.next_own_listing = self.next_check + self.own_listing();
        self.next_path_check =
            self.next_check + if is_poller { MIN_PATH_CHECK } else { OWN_PATH_CHECK };
    }

    fn own_listing(&mut self) -> Duration {
        Duration::from_millis(self.random.u64(OWN_LISTING.start * 1000..OWN_LISTING.end * 1000))
    }

    /// Subscribes to the news, and returns whether there are any.
    fn has_news(&mut self) -> bool {
        let Some(listener) = &mut self.listener else { return false };
        listener.register(&self.waker);
        listener.update(false, &self.waker);
        listener.take_events().0
    }

    fn is_notified(&self) -> bool {
        self.listener.as_ref().is_some_and(DirListener::is_up)
    }

    /// One step of the process that polls.
    fn poll(&mut self, users: &[Arc<PollUser>], has_joined: bool) -> io::Result<Duration> {
        let _ = self.has_news();
        let (meeting, role) = (self.meeting.as_ref(), &mut self.role);
        let mut shared = match role {
            Role::Polls(leadership) => meeting.zip(leadership.as_mut()),
            Role::None | Role::Follows(_) => None,
        };
        let has_new_waiter =
            shared.as_mut().is_some_and(|(meeting, it)| it.has_new_waiter(meeting));
        if has_joined || has_new_waiter {
            self.quiet_since = now();
            self.backoff.check_now();
        }
        if has_joined {
            self.backoff.reset();
        }
        let is_time = self.backoff.next() <= now();
        let is_poller = match &mut shared {
            Some((meeting, it)) => {
                if is_time {
                    it.begin(meeting)
                } else {
                    it.show_life(meeting)
                }
            }
            None => Ok(true),
        };
        match is_poller {
            Ok(true) => {}
            // Another process has taken over while this one was stopped.
            Ok(false) => {
                self.role = Role::None;
                return Ok(Duration::ZERO);
            }
            Err(_) => {
                self.poll_alone();
                return Ok(Duration::ZERO);
            }
        }
        if is_time {
            let listing = self.list()?;
            let version = listing.version();
            let meeting = self.meeting.as_ref();
            let published = match &mut self.role {
                Role::Polls(Some(leadership)) => {
                    meeting.map_or(Ok(()), |meeting| leadership.end(meeting, &listing, version))
                }
                Role::None | Role::Follows(_) | Role::Polls(None) => Ok(()),
            };
            for user in users {
                user.accept();
                user.compare(&listing, version);
            }
            if published.is_err() {
                self.resign();
                self.poll_alone();
            }
            let now = now();
            self.backoff.set_network(now.saturating_duration_since(self.quiet_since), REQUESTS);
            self.backoff.advance();
        }
        Ok(self.backoff.next().saturating_duration_since(now()).min(BEAT))
    }

    /// Lists the directory. Fails if the path leads to another one by now, or to none.
    fn list(&mut self) -> io::Result<Listing> {
        let listing = Listing::of(&self.directory.names()?);
        let version = listing.version();
        let has_changed = self.listed.replace(version).is_some_and(|known| known != version);
        let now = now();
        if has_changed {
            self.quiet_since = now;
        }
        if self.next_path_check <= now || has_changed {
            if !self.directory.is_at_its_path() {
                return Err(io::ErrorKind::NotFound.into());
            }
            let pause = match self.role {
                Role::Follows(_) => OWN_PATH_CHECK,
                Role::None | Role::Polls(_) => {
                    (self.backoff.pause() * PAUSES_PER_PATH_CHECK).max(MIN_PATH_CHECK)
                }
            };
            self.next_path_check = now + pause;
        }
        Ok(listing)
    }

    /// One step of a process in which another one of this host polls.
    fn follow(&mut self, users: &[Arc<PollUser>], has_joined: bool) -> io::Result<Duration> {
        let has_news = self.has_news();
        let is_notified = self.is_notified();
        let Some(meeting) = &self.meeting else { return Err(io::ErrorKind::NotFound.into()) };
        if has_joined {
            meeting.announce_waiter()?;
        }
        let now = now();
        if has_news || has_joined || self.next_check <= now {
            let Role::Follows(following) = &mut self.role else { return Ok(Duration::ZERO) };
            match following.observe(meeting, now)? {
                Poller::Alive { is_new } => {
                    let listing = following.listing.as_ref().filter(|_| is_new);
                    for user in users {
                        user.accept();
                        if let Some(listing) = listing {
                            user.compare(listing, listing.version());
                        }
                    }
                }
                Poller::Missing => {
                    self.take_role(false);
                    return Ok(Duration::ZERO);
                }
                Poller::Lifeless => {
                    self.take_role(true);
                    return Ok(Duration::ZERO);
                }
            }
            self.next_check = now + if is_notified { CHECK } else { UNWATCHED_CHECK };
        }
        if self.next_own_listing <= now {
            self.next_own_listing = now + self.own_listing();
            match self.list() {
                Ok(listing) => {
                    let version = listing.version();
                    for user in users {
                        user.compare(&listing, version);
                    }
                }
                Err(failure) => self.failure = Some(failure),
            }
        }
        Ok(self.next_check.saturating_duration_since(now))
    }
}
