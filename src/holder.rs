//! A process that holds a primitive: what is known about it, and how it is displayed.

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::printable::{command_line, printable, tenths};
use crate::process::{HostProcess, this_process};
use crate::sys::{self, Numbering, Owner, Process};

/// A process that holds a lock or a permit, or waits for one, as far as it is known.
///
/// A process that opened its primitive with a [`label`](crate::Options::label) or
/// [`record_holder`](crate::Options::record_holder) leaves a record, from which all fields are
/// known. For any other holder, Linux provides the process ID and the command. Other systems
/// provide nothing, so such a holder is not listed.
///
/// The command line, label and host name come from other processes and are not trustworthy. Control
/// characters in them are escaped, so they can be printed on a terminal.
///
/// The [`Display`](fmt::Display) text contains what is known, such as `"nightly build", process
/// 4242 (make all), for 3.2 s`. The alternate form (`{:#}`) shows only the process, as in `process
/// 4242 (make all)`.
///
/// # Examples
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// let options = flockwork::Options::new().label("nightly build");
/// let lock = options.open_lock(dir.path().join("build.lock"))?;
/// let _held = lock.lock()?;
///
/// let holders = lock.holders()?;
/// assert_eq!(holders[0].pid(), std::process::id());
/// assert_eq!(holders[0].label(), Some("nightly build"));
/// println!("held by {}", holders[0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// With the feature `serde`, a holder is serialized with the fields `pid`, `pid_namespace`, `host`,
/// `command`, `label`, `since`, `slot` and `shared`, and further ones that identify the process.
/// A holder that was received from another host is displayed and compared as such.
///
/// # Caveats
///
/// * A record proves nothing. Any program that may write to the directory can claim any process,
///   command and label. Do not send a signal or grant access because of one.
/// * A holder may have released the lock by the time it is returned.
///
/// # Platform-specific behavior
///
/// * Linux: [`pid_namespace`](Self::pid_namespace) is known, and
///   [`is_this_process`](Self::is_this_process) also compares the boot and the start time of the
///   process.
/// * Other systems: a holder is known only from its record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Holder {
    pub(crate) process: HostProcess,
    pub(crate) command: Option<String>,
    pub(crate) label: Option<String>,
    pub(crate) since: Option<SystemTime>,
    pub(crate) slot: Option<u32>,
    pub(crate) is_shared: bool,
}

impl Holder {
    /// Returns the process ID.
    ///
    /// The caller can use the ID only if [`same_pid_namespace`](Self::same_pid_namespace) returns
    /// `true`. Otherwise the same ID may belong to another process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.identity.pid
    }

    /// Returns `true` if [`pid`](Self::pid) is valid in the calling process's pid namespace.
    ///
    /// The caller can then use the ID to signal the holder or to look it up. Returns `false` for a
    /// holder in another container, and if the namespace is not known.
    #[must_use]
    pub fn same_pid_namespace(&self) -> bool {
        self.process.same_pid_namespace()
    }

    /// Returns the inode of the holder's pid namespace, as `lsns` shows it. Known on Linux only.
    #[must_use]
    pub fn pid_namespace(&self) -> Option<u64> {
        match self.process.identity.numbering {
            Numbering::Namespace(inode) => Some(inode),
            Numbering::Other | Numbering::Unknown => None,
        }
    }

    /// Returns the name of the host on which the holder runs. Empty if the system has no name.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.process.host
    }

    /// Returns the holder's command line, with words quoted as for a shell where necessary.
    #[must_use]
    pub fn command(&self) -> Option<&str> {
        self.command.as_deref()
    }

    /// Returns the [`label`](crate::Options::label) that the holder set.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// Returns the time at which the process acquired the lock or permit, by its own host's clock.
    ///
    /// For a [waiter](crate::Status::waiters), it is the time at which the process began to wait.
    #[must_use]
    pub fn since(&self) -> Option<SystemTime> {
        self.since
    }

    /// Returns the semaphore slot that the process holds, or `None` for a lock.
    ///
    /// Slots are numbered from 0. For a [`Barrier`](crate::Barrier), it is the number of the
    /// participant.
    #[must_use]
    pub fn slot(&self) -> Option<u32> {
        self.slot
    }

    /// Returns `true` if the process holds a shared (read) lock.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Returns `true` if the holder is the calling process.
    ///
    /// Compares the process ID and the host and, if the system shows them (Linux), also the pid
    /// namespace, the boot and the start time of the process.
    #[must_use]
    pub fn is_this_process(&self) -> bool {
        self.process.is_this_process()
    }

    pub(crate) fn of_this_process(label: Option<&str>) -> Self {
        let command: Vec<_> =
            std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
        Self {
            process: HostProcess::this(),
            command: Some(command_line(&command)).filter(|text| !text.is_empty()),
            label: label.map(printable),
            since: Some(SystemTime::now()),
            slot: None,
            is_shared: false,
        }
    }

    /// Returns what the system knows about a holder that left no record.
    pub(crate) fn of_owner(owner: &Owner) -> Self {
        Self {
            process: HostProcess::of_owner(owner),
            command: sys::command_of(owner.listed).map(|words| command_line(&words)),
            label: None,
            since: None,
            slot: None,
            is_shared: owner.is_shared,
        }
    }

    /// Returns a process that waits in a queue of tickets, with how many nanoseconds it has waited.
    pub(crate) fn queued(process: Process, waited: u64, label: Option<String>) -> Self {
        // Another process may have the number by now, or in this pid namespace.
        let is_listed = process.started.is_some()
            && sys::started(process.pid) == process.started
            && process.numbering == this_process().numbering;
        let words = is_listed.then(|| sys::command_of(process.pid)).flatten();
        Self {
            process: HostProcess { identity: process, host: printable(&sys::host_name()) },
            command: words.map(|words| command_line(&words)),
            label,
            since: SystemTime::now().checked_sub(Duration::from_nanos(waited)),
            slot: None,
            is_shared: false,
        }
    }

    /// Returns this holder as that of one slot of a semaphore, or of one participant's file, which
    /// is never shared.
    pub(crate) fn in_slot(self, slot: u32) -> Self {
        Self { slot: Some(slot), is_shared: false, ..self }
    }

    /// Returns this holder as one of several that share a lock.
    pub(crate) fn shared(self) -> Self {
        Self { is_shared: true, ..self }
    }

    /// Returns the process that inherited the lock, as the holder of that lock.
    pub(crate) fn inherited_by(self, inheritor: &Owner) -> Self {
        let Self { process, command, .. } = Self::of_owner(inheritor);
        Self { process, command, ..self }
    }
}

impl fmt::Display for Holder {
    /// The alternate form (`{:#}`) shows only the process, without the label, the mode and the
    /// time.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            if let Some(label) = &self.label {
                write!(f, "\"{label}\", ")?;
            }
        }
        write!(f, "process {}{}", self.pid(), self.process.number_remark())?;
        if let Some(command) = &self.command {
            write!(f, " ({command})")?;
        }
        if !self.process.host.is_empty() && !self.process.is_on_this_host() {
            write!(f, " on {}", self.process.host)?;
        }
        if f.alternate() {
            return Ok(());
        }
        if self.is_this_process() {
            f.write_str(", this process")?;
        }
        if self.is_shared {
            f.write_str(", shared")?;
        }
        match self.since.and_then(|at| SystemTime::now().duration_since(at).ok()) {
            Some(held) => write!(f, ", for {} s", tenths(held)),
            None => Ok(()),
        }
    }
}

// Only Linux shows a process's pid namespace, start time and boot.
#[cfg(all(test, any(target_os = "linux", target_os = "android")))]
mod tests {
    use super::*;

    /// A change to this process's holder, how it is then displayed, whether its process ID is valid
    /// here, and whether it is this process.
    type Case<'a> = (&'a dyn Fn(&mut Holder), &'a str, bool, bool);

    #[test]
    fn this_process_is_recognized_by_its_whole_identity() {
        limit!();
        let own = Holder::of_this_process(None);
        let Process { numbering: Numbering::Namespace(inode), started: Some(started), .. } =
            own.process.identity
        else {
            panic!("{:?}", own.process)
        };
        let boot = || Some("another".to_string());
        let (other, unknown) = (Numbering::Namespace(inode + 1), Numbering::Unknown);
        let number = format!("process {}", std::process::id());
        let bare = Process {
            pid: std::process::id(),
            numbering: Numbering::Unknown,
            started: None,
            boot: None,
        };
        let bare = HostProcess { identity: bare, host: String::new() };
        let of = |change: &dyn Fn(&mut Holder)| {
            let mut holder = Holder { command: None, ..own.clone() };
            change(&mut holder);
            assert!(format!("{holder}").contains(&format!("{holder:#}")), "{holder}");
            (format!("{holder:#}"), holder.same_pid_namespace(), holder.is_this_process())
        };
        let another = " in another pid namespace";
        let cases: &[Case<'_>] = &[
            (&|_| {}, "", true, true),
            (&|h| h.process.identity.started = Some(started + 1), "", true, false),
            (&|h| h.process.identity.started = None, "", true, false),
            (&|h| h.process.identity.numbering = other, another, false, false),
            (&|h| h.process.identity.numbering = Numbering::Other, another, false, false),
            (
                &|h| h.process.identity.numbering = unknown,
                " in an unknown pid namespace",
                false,
                false,
            ),
            (&|h| h.process.identity.boot = boot(), another, false, false),
            (&|h| h.process.identity.boot = None, " in an unknown pid namespace", false, false),
            (&|h| h.process.host = "box".into(), " on box", false, false),
            (&|h| h.process = bare.clone(), " in an unknown pid namespace", false, false),
        ];
        for (change, place, same, this) in cases {
            assert_eq!(of(change), (format!("{number}{place}"), *same, *this));
        }
        let in_a_container = of(&|h| {
            h.process.host = "box".into();
            h.process.identity.numbering = other;
        });
        assert_eq!(in_a_container.0, format!("{number} in another pid namespace on box"));
        let on_another_machine = of(&|h| {
            h.process.host = "box".into();
            h.process.identity.boot = boot();
        });
        assert_eq!(on_another_machine.0, format!("{number} on box"));
    }
}
