//! A job that waits for what its own ancestor holds would wait forever: the ancestor waits for the
//! job.

use flockwork::Holder;

use crate::exit::{Exit, Failure};
#[cfg(any(target_os = "linux", target_os = "android"))]
use crate::process_stat;

/// The holders that are ancestors of this process.
pub(crate) fn ancestors(holders: &[Holder]) -> Vec<&Holder> {
    if holders.iter().all(|holder| !holder.same_pid_namespace()) {
        return Vec::new();
    }
    let pids = ancestor_pids();
    let is_ancestor =
        |holder: &&Holder| holder.same_pid_namespace() && pids.contains(&holder.pid());
    holders.iter().filter(is_ancestor).collect()
}

/// The error of a wait for these ancestors. It is reentrant if an ancestor holds all that this
/// process asks for.
pub(crate) fn failure(ancestors: &[&Holder], is_reentrant: bool) -> Failure {
    let Some(holder) = ancestors.first() else {
        return Failure::new(Exit::System, "would deadlock");
    };
    let pid = holder.pid();
    let is_parent = ancestor_pids().first() == Some(&pid);
    let whose = if is_parent { "your parent process" } else { "your ancestor, process" };
    let command = holder.command().map(|command| format!(" ({command})")).unwrap_or_default();
    let failure =
        Failure::new(Exit::System, format!("would deadlock: held by {whose} {pid}{command}"));
    if is_reentrant {
        let hint = "use --reentrant to run the command under the lock of that process";
        failure.hint(hint).reentrant()
    } else {
        failure
    }
}

/// The parent of this process, its parent, and so on.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn ancestor_pids() -> Vec<u32> {
    let mut pids = Vec::new();
    let mut pid = std::os::unix::process::parent_id();
    // A pid that is read twice belongs to another process by now.
    while pid > 1 && !pids.contains(&pid) {
        pids.push(pid);
        pid = parent_of(pid).unwrap_or_default();
    }
    pids
}

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn parent_of(pid: u32) -> Option<u32> {
    process_stat::field(pid, process_stat::PARENT)?.parse().ok()
}

/// Other systems show only the parent without a privilege.
#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
pub(crate) fn ancestor_pids() -> Vec<u32> {
    vec![std::os::unix::process::parent_id()]
}

#[cfg(not(unix))]
pub(crate) fn ancestor_pids() -> Vec<u32> {
    Vec::new()
}
