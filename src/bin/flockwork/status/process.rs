//! A process that holds or waits, as `status` shows it.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use flockwork::Holder;
use serde_json::{Value, json};

use super::{clock, kernel};
use crate::exit::printable;
use crate::{holder_text, parse};

#[derive(Debug, Clone)]
pub(super) struct Process {
    /// `None`: the system does not show it.
    pub(super) pid: Option<u32>,
    /// As the library shows the process: the pid, and what is known of the namespace and the host.
    name: String,
    pub(super) command: Option<String>,
    /// The command, or if that is flockwork, the job that it runs.
    job: Option<String>,
    label: Option<String>,
    /// The user, if that is not the one who asks.
    other_user: Option<String>,
    user: Option<String>,
    pub(super) since: Option<SystemTime>,
    pub(super) slot: Option<u32>,
    pub(super) is_shared: bool,
    /// Whether the lock is one of fcntl(2).
    pub(super) is_fcntl: bool,
    pid_namespace: Option<u64>,
    same_pid_namespace: bool,
    host: Option<String>,
}

/// Whether both are shown alike. The time since which a process waits is computed from its duration
/// each time, and differs a little.
impl PartialEq for Process {
    fn eq(&self, other: &Self) -> bool {
        const TOLERANCE: Duration = Duration::from_secs(2);
        let is_near = match (self.since, other.since) {
            (Some(one), Some(other)) => {
                one.duration_since(other).unwrap_or_else(|error| error.duration()) < TOLERANCE
            }
            (one, other) => one == other,
        };
        let without_time = |process: &Self| Self { since: None, ..process.clone() }.json();
        is_near && self.name == other.name && without_time(self) == without_time(other)
    }
}

impl Process {
    /// A process that the library knows.
    pub(super) fn holder(holder: &Holder) -> Self {
        let job = holder_text::job_of(holder).map(|job| job.line());
        let name = format!("{holder:#}");
        let command = holder.command().map(|command| format!(" ({command})")).unwrap_or_default();
        let is_here = holder.same_pid_namespace();
        let user = kernel::user_of(holder.pid()).filter(|_| is_here);
        Self {
            pid: Some(holder.pid()),
            name: name.replacen(&command, "", 1),
            command: holder.command().map(String::from),
            job,
            label: holder.label().map(String::from),
            other_user: user.clone().filter(|user| !user.is_own).map(|user| user.name),
            user: user.map(|user| user.name),
            since: holder.since(),
            slot: holder.slot(),
            is_shared: holder.is_shared(),
            is_fcntl: false,
            pid_namespace: holder.pid_namespace(),
            same_pid_namespace: is_here,
            host: Some(holder.host().to_string()),
        }
    }

    /// A process that waits. The system does not show the label of a process that waits in the
    /// kernel, nor since when it waits, but flockwork and flock(1) do little before.
    pub(super) fn waiter(waiter: &Holder) -> Self {
        let mut shown = Self::holder(waiter);
        if shown.since.is_some() || !shown.same_pid_namespace {
            return shown;
        }
        if let Some(words) = holder_text::command_words(waiter.pid()) {
            if parse::job(&words).is_some() {
                shown.since = kernel::start_of(waiter.pid());
            }
            let label = parse::label(&words);
            shown.label = label.map(|label| printable(&label.to_string_lossy()));
        }
        shown
    }

    /// A process that the kernel lists by its pid in this process's namespace.
    pub(super) fn listed(pid: Option<u32>, is_shared: bool, is_fcntl: bool) -> Self {
        let words = pid.and_then(holder_text::command_words);
        let command = words.as_ref().map(|words| holder_text::quoted(words.iter()));
        let user = pid.and_then(kernel::user_of);
        Self {
            pid,
            name: pid.map_or("an unknown process".into(), |pid| format!("process {pid}")),
            command,
            job: words.map(|words| holder_text::job_in(words).line()),
            label: None,
            other_user: user.clone().filter(|user| !user.is_own).map(|user| user.name),
            user: user.map(|user| user.name),
            since: None,
            slot: None,
            is_shared,
            is_fcntl,
            pid_namespace: None,
            same_pid_namespace: pid.is_some(),
            host: None,
        }
    }

    /// Whether both hold a permit since the same moment.
    pub(super) fn is_same_holder(&self, other: &Self) -> bool {
        *self == Self { slot: self.slot, ..other.clone() }
    }

    /// `process 4242 (tar cf backup.tar data), "nightly backup", since 14:03:22 (4m)`.
    pub(super) fn text(&self) -> String {
        self.text_with("")
    }

    /// The same of a process that acquired its lock at that time, and has lost it since.
    pub(super) fn text_of_lost(&self) -> String {
        self.text_with("held ")
    }

    fn text_with(&self, before_time: &str) -> String {
        let mut text = match &self.job {
            // The host follows the command.
            Some(job) => match self.name.split_once(" on ") {
                Some((process, host)) => format!("{process} ({job}) on {host}"),
                None => format!("{} ({job})", self.name),
            },
            None => self.name.clone(),
        };
        if let Some(user) = &self.other_user {
            let _ = write!(text, " of user {user}");
        }
        if let Some(label) = &self.label {
            let _ = write!(text, ", \"{label}\"");
        }
        if self.is_fcntl {
            text.push_str(", by fcntl(2)");
        }
        if let Some(since) = self.since {
            let _ = write!(text, ", {before_time}{}", clock::since(since));
        }
        printable(&text)
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "pid": self.pid,
            "pid_namespace": self.pid_namespace,
            "same_pid_namespace": self.same_pid_namespace,
            "host": self.host,
            "user": self.user,
            "command": self.command,
            "label": self.label,
            "since": self.since.and_then(clock::rfc3339),
            "slot": self.slot,
            "shared": self.is_shared,
            "fcntl": self.is_fcntl,
        })
    }
}
