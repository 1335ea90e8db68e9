//! What an acquisition or a wait met in its way: its holders, or an event that is not set.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use once_cell::race::OnceBox;

use crate::holder::Holder;
use crate::record;

/// What was in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Obstacle {
    Held,
    NotSet,
    StillSet,
    NotConsumed,
    /// The event is set, and another process has the lock that consumers take turns by.
    BeingConsumed,
    /// The task of a `Once` is not done.
    NotDone,
}

impl Obstacle {
    /// As it is at this moment.
    fn now(self) -> &'static str {
        match self {
            Self::Held => "is busy",
            Self::NotSet | Self::NotConsumed => "is not set",
            Self::StillSet => "is still set",
            Self::NotDone => "is not done",
            Self::BeingConsumed => "is being consumed by another process",
        }
    }

    /// As it was during a wait.
    fn during_wait(self) -> &'static str {
        match self {
            Self::Held => "it was busy",
            Self::NotSet => "it was not set",
            Self::StillSet => "it was still set",
            Self::NotDone => "it was not done",
            Self::NotConsumed => "it was not set, or others consumed it first",
            Self::BeingConsumed => "it is set, but another process is consuming it",
        }
    }

    fn has_holders(self) -> bool {
        matches!(self, Self::Held | Self::NotDone)
    }
}

/// An obstacle, with the processes behind it. Those are looked up once.
#[derive(Debug)]
pub(super) struct Contention {
    obstacle: Obstacle,
    /// How many more events were waited for and are missing.
    others: usize,
    /// What the holders hold, where that is not the error's own path.
    locked: Option<Arc<Path>>,
    holders: OnceBox<Vec<Holder>>,
    /// The first process that waits for readers to leave.
    in_front: Option<Box<Holder>>,
}

impl Contention {
    pub(super) fn new(obstacle: Obstacle, others: usize) -> Self {
        Self { obstacle, others, locked: None, holders: OnceBox::new(), in_front: None }
    }

    pub(super) fn set_locked(&mut self, locked: Arc<Path>) {
        self.locked.get_or_insert(locked);
    }

    /// The holders, looked up by the first call.
    pub(super) fn holders(&self, path: &Path) -> &[Holder] {
        if !self.obstacle.has_holders() {
            return &[];
        }
        let locked = self.locked.as_deref().unwrap_or(path);
        self.holders.get_or_init(|| Box::new(record::find(locked, true).unwrap_or_default()))
    }

    /// Looks up, besides the holders, who waits at the gate in front of readers: readers keep no
    /// reader out, so that process is in the way.
    pub(super) fn look_behind(&mut self, path: &Path, gate: &Path) {
        if self.holders(path).iter().all(Holder::is_shared) {
            let waiting = record::find(gate, false).unwrap_or_default();
            self.in_front = waiting.into_iter().next().map(Box::new);
        }
    }

    fn found(&self) -> &[Holder] {
        self.holders.get().map_or(&[], Vec::as_slice)
    }

    fn is_own(&self) -> bool {
        self.found().iter().any(Holder::is_this_process)
    }

    /// Writes what `path` is at this moment, with the holders that have been looked up.
    pub(super) fn write_now(&self, f: &mut fmt::Formatter<'_>, path: &Path) -> fmt::Result {
        let (path, now) = (path.display(), self.obstacle.now());
        if self.others > 0 {
            let plural = if self.others == 1 { "" } else { "s" };
            let are = now.replacen("is ", "are ", 1);
            return write!(f, "`{path}` and {} other{plural} {are}", self.others);
        }
        match self.found() {
            [holder, ..] if self.obstacle == Obstacle::NotDone => {
                write!(f, "`{path}` is being done by {holder}")
            }
            _ => write!(f, "`{path}` {now}"),
        }
    }

    /// Writes the same with the holders, which have been looked up.
    pub(super) fn write_now_with_holders(
        &self,
        f: &mut fmt::Formatter<'_>,
        path: &Path,
    ) -> fmt::Result {
        self.write_now(f, path)?;
        if self.obstacle == Obstacle::Held { write!(f, ": {}", self.held_by()) } else { Ok(()) }
    }

    /// Writes why a wait ended without success.
    pub(super) fn write_reason(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = self.obstacle.during_wait();
        match (self.obstacle, self.found(), self.others) {
            (Obstacle::Held, ..) => f.write_str(&self.held_by()),
            (Obstacle::NotDone, [holder, ..], _) => {
                write!(f, "{reason}, and is being done by {holder}")
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
        match &self.in_front {
            Some(first) => format!("{held}, and waited for by {first}"),
            None => held,
        }
    }

    /// What to do after a call that did not wait.
    pub(super) fn hint_at_once(&self) -> &'static str {
        if self.is_own() {
            return "release this process's own guard first, or use a call that waits if another thread holds it";
        }
        "try again later, or use a call that waits"
    }

    /// What to do after a wait that timed out.
    pub(super) fn hint_in_time(&self) -> &'static str {
        match self.obstacle {
            Obstacle::Held if self.is_own() => {
                "release this process's own guard first, or wait longer if another thread holds it"
            }
            Obstacle::Held => "wait longer, or see what the holder is doing",
            Obstacle::StillSet => {
                "wait longer, or see whether the program that should clear it is running"
            }
            Obstacle::BeingConsumed => "wait longer, or see which process holds the lock beside it",
            Obstacle::NotSet | Obstacle::NotConsumed => {
                "wait longer, or see whether the program that should set it is running"
            }
            Obstacle::NotDone if self.found().is_empty() => {
                "wait longer, or see whether a program that does it is running"
            }
            Obstacle::NotDone => "wait longer, or see what that process is doing",
        }
    }
}
