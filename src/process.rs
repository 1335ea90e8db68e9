//! Identifies a process among all that ever ran on any host, and determines whether it has ended.

use std::sync::Arc;

use crate::fork_safe::ForkSafe;
use crate::printable::printable;
use crate::sys::{self, Numbering, Owner, Process};

/// The identity of a process, unique across hosts, boots and reused process IDs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct HostProcess {
    pub(crate) identity: Process,
    /// Empty if the system has no name.
    pub(crate) host: String,
}

impl HostProcess {
    pub(crate) fn this() -> Self {
        Self { identity: Process::clone(&this_process()), host: printable(&sys::host_name()) }
    }

    /// The process that the system lists as the owner of a lock.
    pub(crate) fn of_owner(owner: &Owner) -> Self {
        let here = this_process();
        let identity = Process {
            pid: owner.pid.unwrap_or(owner.listed),
            numbering: owner.pid.map_or(Numbering::Other, |_| here.numbering),
            started: sys::started(owner.listed),
            boot: here.boot.clone(),
        };
        Self { identity, host: printable(&sys::host_name()) }
    }

    /// Whether its process ID identifies it in the calling process's pid namespace.
    pub(crate) fn same_pid_namespace(&self) -> bool {
        let here = this_process();
        let is_same = match self.identity.numbering {
            Numbering::Unknown => !sys::PID_NAMESPACES,
            Numbering::Other => false,
            own @ Numbering::Namespace(_) => own == here.numbering,
        };
        is_same && self.identity.boot == here.boot && self.is_on_this_host()
    }

    pub(crate) fn is_this_process(&self) -> bool {
        let here = this_process();
        let is_same = self.identity.pid == here.pid && self.identity.started == here.started;
        is_same && self.same_pid_namespace()
    }

    pub(crate) fn is_on_this_host(&self) -> bool {
        self.host == printable(&sys::host_name())
    }

    /// Whether the process is known to have ended. This is never known of a process in another pid
    /// namespace.
    pub(crate) fn has_ended(&self) -> bool {
        self.same_pid_namespace() && sys::has_ended(&self.identity)
    }

    /// The remark to show after the process ID if the calling process cannot use the ID.
    pub(crate) fn number_remark(&self) -> &'static str {
        const ANOTHER: &str = " in another pid namespace";
        const UNKNOWN: &str = " in an unknown pid namespace";
        let here = this_process();
        let boots = self.identity.boot.as_ref().zip(here.boot.as_ref());
        let same_boot = boots.map(|(its, own)| its == own);
        let names_host = !self.host.is_empty() && !self.is_on_this_host();
        if self.same_pid_namespace() || same_boot != Some(true) && names_host {
            return "";
        }
        match (same_boot, self.identity.numbering, here.numbering) {
            (Some(false), ..) | (_, Numbering::Other, _) => ANOTHER,
            (_, Numbering::Namespace(its), Numbering::Namespace(own)) if its != own => ANOTHER,
            // The host was renamed since then, or has another name in a container.
            (Some(true), Numbering::Namespace(_), Numbering::Namespace(_)) => "",
            _ => UNKNOWN,
        }
    }
}

/// Whether the process, which ran since this system was started, is known to be stopped (SIGSTOP).
/// That is never known of one in another pid namespace.
pub(crate) fn is_stopped(process: &Process) -> bool {
    is_in_this_namespace(process)
        && sys::started(process.pid) == process.started
        && sys::is_stopped(process.pid)
}

/// Whether such a process is known to have ended.
pub(crate) fn has_ended(process: &Process) -> bool {
    is_in_this_namespace(process) && sys::has_ended(process)
}

fn is_in_this_namespace(process: &Process) -> bool {
    process.numbering == this_process().numbering
        && (process.numbering != Numbering::Unknown || !sys::PID_NAMESPACES)
}

/// The calling process. The result is cached, since querying the system takes some 50 microseconds.
pub(crate) fn this_process() -> Arc<Process> {
    static KNOWN: ForkSafe<Option<Arc<Process>>> = ForkSafe::new(None, |()| None);
    if let Some(known) = &*KNOWN.lock() {
        return Arc::clone(known);
    }
    let here = sys::this_process();
    let is_whole = here.started.is_some() && here.numbering != Numbering::Unknown;
    let here = Arc::new(Process { boot: here.boot.as_deref().map(printable), ..here });
    // An incomplete identity is not cached, since `/proc` may be mounted later.
    if is_whole || !sys::PID_NAMESPACES {
        *KNOWN.lock() = Some(Arc::clone(&here));
    }
    here
}
