//! A process that holds something: what is known of it, and how it is shown.

use std::fmt;
use std::time::SystemTime;

use crate::printable::printable;
use crate::process::HostProcess;
use crate::sys::{self, Numbering, Owner};

/// A process that holds something.
///
/// Which of this is known depends on what the holder left. One that was opened with a
/// [`label`](crate::Options::label) or [`record_holder`](crate::Options::record_holder) wrote
/// all of it; of others Linux tells the process and its command.
///
/// What others wrote is untrusted text: control characters come out escaped, so that it can be shown
/// on a terminal.
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
    /// Its process number. The caller can use the number only where
    /// [`same_pid_namespace`](Self::same_pid_namespace) is `true`; elsewhere it may belong to
    /// another process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.identity.pid
    }

    /// Whether [`pid`](Self::pid) is the number by which the calling process knows it, to signal it or to look it up:
    /// both run in one pid namespace of one host. `false` between containers, and where that is not known.
    #[must_use]
    pub fn same_pid_namespace(&self) -> bool {
        self.process.same_pid_namespace()
    }

    /// The pid namespace in which the process number counts, as the inode that `lsns` shows. Linux only.
    #[must_use]
    pub fn pid_namespace(&self) -> Option<u64> {
        match self.process.identity.numbering {
            Numbering::Namespace(inode) => Some(inode),
            Numbering::Other | Numbering::Unknown => None,
        }
    }

    /// The host it runs on; empty where the system has no name.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.process.host
    }

    /// Its command line.
    #[must_use]
    pub fn command(&self) -> Option<&str> {
        self.command.as_deref()
    }

    /// The [`label`](crate::Options::label) it gave.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// When it got the lock, by its own host's clock.
    #[must_use]
    pub fn since(&self) -> Option<SystemTime> {
        self.since
    }

    /// Which slot of a semaphore it holds, from 0 on; `None` for what has no slots.
    #[must_use]
    pub fn slot(&self) -> Option<u32> {
        self.slot
    }

    /// Whether it shares what it holds: a reader's lock.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Whether it is the calling process. Where the system shows them (Linux), the pid namespace,
    /// the boot and the time at which the process was started are compared as well as the number
    /// and the host.
    #[must_use]
    pub fn is_this_process(&self) -> bool {
        self.process.is_this_process()
    }

    pub(crate) fn of_this_process(label: Option<&str>) -> Self {
        let command: Vec<_> =
            std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
        Self {
            process: HostProcess::this(),
            command: Some(printable(&command.join(" "))).filter(|text| !text.is_empty()),
            label: label.map(printable),
            since: Some(SystemTime::now()),
            slot: None,
            is_shared: false,
        }
    }

    /// What the system tells of a process that left no record.
    pub(crate) fn of_owner(owner: &Owner) -> Self {
        Self {
            process: HostProcess::of_owner(owner),
            command: sys::command_of(owner.listed).as_deref().map(printable),
            label: None,
            since: None,
            slot: None,
            is_shared: owner.is_shared,
        }
    }

    /// As the holder of one slot of a semaphore, which is never shared.
    pub(crate) fn in_slot(self, slot: u32) -> Self {
        Self { slot: Some(slot), is_shared: false, ..self }
    }

    /// As one of those who share a lock.
    pub(crate) fn shared(self) -> Self {
        Self { is_shared: true, ..self }
    }

    /// The same lock, held by another process that has inherited it.
    pub(crate) fn inherited_by(self, inheritor: &Owner) -> Self {
        let Self { process, command, .. } = Self::of_owner(inheritor);
        Self { process, command, ..self }
    }
}

impl fmt::Display for Holder {
    /// The alternate form (`{:#}`) is the process alone, without the label, the mode and the time.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            if let Some(label) = &self.label {
                write!(f, "\"{label}\", ")?;
            }
            if self.is_this_process() {
                f.write_str("this very process, ")?;
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
        if self.is_shared {
            f.write_str(", to read")?;
        }
        match self.since.and_then(|at| SystemTime::now().duration_since(at).ok()) {
            Some(held) => write!(f, ", for {:.1} s", held.as_secs_f64()),
            None => Ok(()),
        }
    }
}

// Linux only: no other system shows the pid namespace, the time of the start and the boot.
#[cfg(all(test, any(target_os = "linux", target_os = "android")))]
mod tests {
    use super::*;
    use crate::sys::Process;

    /// What is changed of the own process; how it is shown then, whether its number counts here, and whether it is this one.
    type Case<'a> = (&'a dyn Fn(&mut Holder), &'a str, bool, bool);

    #[test]
    fn this_process_is_told_by_all_that_a_record_has() {
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
