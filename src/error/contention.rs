//! What kept a call from succeeding: the holders of a lock, or the state of an event.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use once_cell::race::OnceBox;

use crate::holder::Holder;
use crate::record;

/// The state that kept a call from succeeding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Obstacle {
    Held,
    NotSet,
    StillSet,
    NotConsumed,
    /// The event is set, and another process holds the lock that serializes consumers.
    BeingConsumed,
    /// The task of a `Once` is not done.
    NotDone,
    /// Not all participants of a barrier have arrived.
    NotComplete,
    /// The capacity of the semaphore is 0.
    Paused,
    /// The server of a network file system did not respond.
    NotResponding,
    /// It responded, and more slowly than the time that a wait has for its last requests.
    Slow,
    /// It has not responded to a release or a change, which a helper thread completes.
    NotReleased,
}

impl Obstacle {
    /// The predicate of the error of a call that does not wait.
    fn now(self) -> &'static str {
        match self {
            Self::Held => "is busy",
            Self::NotSet | Self::NotConsumed => "is not set",
            Self::StillSet => "is still set",
            Self::NotDone => "is not done",
            Self::Paused => "is paused",
            Self::NotComplete => "is waiting for other participants",
            Self::BeingConsumed => "is being consumed by another process",
            Self::Slow => "is on a slow file server",
            Self::NotResponding | Self::NotReleased => "is on a file server that does not respond",
        }
    }

    /// The reason in the error of a wait.
    fn during_wait(self) -> &'static str {
        match self {
            Self::Held => "it was busy",
            Self::NotSet => "it was not set",
            Self::StillSet => "it was still set",
            Self::NotDone => "it was not done",
            Self::Paused => "it was paused",
            Self::NotComplete => "not all participants arrived",
            Self::NotConsumed => "it was not set, or another process consumed it first",
            Self::BeingConsumed => "another process was consuming it",
            Self::NotResponding => "the server of its file system did not respond",
            Self::Slow => "it was not available, and the server of its file system was slow",
            Self::NotReleased => {
                "the server of its file system did not respond, and the release is still under way"
            }
        }
    }

    fn has_holders(self) -> bool {
        matches!(self, Self::Held | Self::NotDone)
    }
}

/// Finds the holders of a path on a network file system, in a limited time.
pub(crate) type FindHolders = Arc<dyn Fn(&Arc<Path>) -> Option<Vec<Holder>> + Send + Sync>;

/// An obstacle and the processes that cause it, which are looked up once.
pub(super) struct Contention {
    obstacle: Obstacle,
    /// How many other events of the wait are not in the state that it waits for.
    others: usize,
    /// The path of the lock that the holders hold, if it is not the error's own path.
    locked: Option<Arc<Path>>,
    /// The turnstile of a reader-writer lock, if the call was a reader's.
    turnstile: Option<Arc<Path>>,
    find: Option<FindHolders>,
    processes: OnceBox<Processes>,
}

impl fmt::Debug for Contention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Contention");
        debug.field("obstacle", &self.obstacle).field("processes", &self.processes);
        debug.finish_non_exhaustive()
    }
}

/// The processes that kept the call from succeeding.
#[derive(Debug)]
struct Processes {
    holders: Vec<Holder>,
    /// The waiting writer that blocks a reader although only readers hold the lock.
    waiter: Option<Holder>,
}

impl Contention {
    pub(super) fn new(obstacle: Obstacle, others: usize) -> Self {
        let (locked, turnstile, find) = (None, None, None);
        Self { obstacle, others, locked, turnstile, find, processes: OnceBox::new() }
    }

    pub(super) fn set_locked(&mut self, locked: Arc<Path>) {
        self.locked.get_or_insert(locked);
    }

    /// Adds the turnstile, in which a waiting process may block the call.
    pub(super) fn behind(mut self, turnstile: Option<&Arc<Path>>) -> Self {
        self.turnstile = turnstile.cloned();
        self
    }

    pub(super) fn find_with(&mut self, find: FindHolders) {
        self.find = Some(find);
    }

    /// The holders, which the first call looks up.
    pub(super) fn holders(&self, path: &Arc<Path>) -> &[Holder] {
        if !self.obstacle.has_holders() {
            return &[];
        }
        let processes = self.processes.get_or_init(|| Box::new(self.look_up(path)));
        &processes.holders
    }

    fn look_up(&self, path: &Arc<Path>) -> Processes {
        let locked = self.locked.as_ref().unwrap_or(path);
        if let Some(find) = &self.find {
            return Processes { holders: find(locked).unwrap_or_default(), waiter: None };
        }
        let holders = record::find(locked, true).unwrap_or_default();
        // Readers do not block a reader, so a waiting writer does.
        let waiter =
            self.turnstile.as_deref().filter(|_| holders.iter().all(Holder::is_shared)).and_then(
                |turnstile| record::find(turnstile, false).unwrap_or_default().into_iter().next(),
            );
        Processes { holders, waiter }
    }

    fn found(&self) -> &[Holder] {
        self.processes.get().map_or(&[], |processes| &processes.holders)
    }

    /// Describes the writer that waits ahead of the reader, if there is one.
    fn waited_for_by(&self) -> Option<String> {
        let waiter = self.processes.get()?.waiter.as_ref()?;
        Some(format!("waited for by {waiter}"))
    }

    fn is_own(&self, path: &Arc<Path>) -> bool {
        self.holders(path).iter().any(Holder::is_this_process)
    }

    /// Writes the error of a call that does not wait.
    pub(super) fn write_now(&self, f: &mut fmt::Formatter<'_>, path: &Path) -> fmt::Result {
        let (path, now) = (path.display(), self.obstacle.now());
        if self.others > 0 {
            let plural = if self.others == 1 { "" } else { "s" };
            let are = now.replacen("is ", "are ", 1);
            return write!(f, "`{path}` and {} other{plural} {are}", self.others);
        }
        write!(f, "`{path}` {now}")
    }

    /// Writes the same, with the holders if any were found.
    pub(super) fn write_now_if_known(
        &self,
        f: &mut fmt::Formatter<'_>,
        path: &Path,
    ) -> fmt::Result {
        if self.found().is_empty() {
            return self.write_now(f, path);
        }
        self.write_now_with_holders(f, path)
    }

    /// Writes the same with the holders that were looked up.
    pub(super) fn write_now_with_holders(
        &self,
        f: &mut fmt::Formatter<'_>,
        path: &Path,
    ) -> fmt::Result {
        match (self.obstacle, self.found()) {
            (Obstacle::NotDone, [holder, ..]) => {
                write!(f, "`{}` is being run by {holder}", path.display())
            }
            (Obstacle::Held, _) => {
                self.write_now(f, path)?;
                write!(f, ": {}", self.held_by())
            }
            _ => self.write_now(f, path),
        }
    }

    /// Writes the reason of a timeout.
    pub(super) fn write_reason(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = self.obstacle.during_wait();
        match (self.obstacle, self.found(), self.others) {
            (Obstacle::Held, ..) => f.write_str(&self.held_by()),
            (Obstacle::NotDone, [holder, ..], _) => {
                write!(f, "it is being run by {holder}")
            }
            (.., 0) => f.write_str(reason),
            (.., 1) => write!(f, "{reason}, nor was 1 other"),
            (.., others) => write!(f, "{reason}, nor were {others} others"),
        }
    }

    fn held_by(&self) -> String {
        let held = match self.found() {
            [] => "held by an unknown process".into(),
            [holder] => format!("held by {holder}"),
            [first, others @ ..] => format!("held by {first}, and {} more", others.len()),
        };
        match self.waited_for_by() {
            Some(waited_for) => format!("{held}, and {waited_for}"),
            None => held,
        }
    }

    /// The hint for a call that did not wait.
    pub(super) fn hint_at_once(&self, path: &Arc<Path>) -> &'static str {
        if self.is_own(path) {
            return "release this process's own guard first, or use a call that waits if another thread holds it";
        }
        if self.obstacle == Obstacle::Paused {
            return "raise its capacity with `set_capacity`, or use a call that waits until it is raised";
        }
        "try again later, or use a call that waits"
    }

    /// The hint for a wait that timed out.
    pub(super) fn hint_in_time(&self, path: &Arc<Path>) -> &'static str {
        match self.obstacle {
            Obstacle::Held if self.is_own(path) => {
                "release this process's own guard first, or wait longer if another thread holds it"
            }
            Obstacle::Held => "wait longer, or check what the holder is doing",
            Obstacle::Paused => "wait longer, or raise its capacity with `set_capacity`",
            Obstacle::StillSet => {
                "wait longer, or check that the program that clears it is running"
            }
            Obstacle::BeingConsumed => {
                "wait longer, or check which process holds its `.flock` file"
            }
            Obstacle::NotSet | Obstacle::NotConsumed => {
                "wait longer, or check that the program that sets it is running"
            }
            Obstacle::NotComplete => {
                "wait longer, or check that all participants are running, and call `reset`"
            }
            Obstacle::NotDone if self.found().is_empty() => {
                "wait longer, or check that a program that runs it is running"
            }
            Obstacle::NotDone => "wait longer, or check what that process is doing",
            Obstacle::NotResponding => {
                "check the network and the file server, or wait longer with `Options::server_timeout`"
            }
            Obstacle::Slow => "wait longer, or check what the other processes are doing",
            Obstacle::NotReleased => {
                "check the network and the file server, and keep this process running until then"
            }
        }
    }
}
