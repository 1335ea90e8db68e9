//! Lists the processes that wait for a path, for [`inspect`](crate::inspect()): those that queue in
//! the kernel, and those that have a ticket.

use std::io;
use std::path::Path;

use crate::file::ticket_queue::{QueuedProcess, waiters_in};
use crate::holder::Holder;
use crate::record;
use crate::sys;

/// The processes that wait, in order: first those whose requests for one of the files `locked` wait
/// in the kernel, then those in the queue of tickets, and then those that wait for the `gate`
/// without a ticket.
///
/// A process at the front of the queue keeps its ticket while it waits in the kernel, and is listed
/// once.
pub(crate) fn waiters(locked: &[&Path], queue: &Path, gate: &Path) -> io::Result<Vec<Holder>> {
    let mut files = Vec::new();
    for path in locked.iter().chain([&gate]) {
        files.extend(record::identity_of(path)?.map(|id| (id, path == &gate)));
    }
    // The tickets are read first, so that a process that comes to the front meanwhile is found in
    // the kernel's list too, and not missed.
    let mut tickets: Vec<_> = waiters_in(queue).into_iter().map(Some).collect();
    let ids: Vec<_> = files.iter().map(|(id, _)| *id).collect();
    let (mut waiters, mut at_gate) = (Vec::new(), Vec::new());
    for owner in sys::lock_waiters(&ids)? {
        let is_at_gate = files.contains(&(owner.file, true));
        let is_own = |ticket: &QueuedProcess| Some(ticket.process.pid) == owner.pid;
        let own = tickets.iter_mut().find(|ticket| ticket.as_ref().is_some_and(is_own));
        let waiter = match own.and_then(Option::take) {
            Some(ticket) => described(ticket),
            None if is_at_gate => {
                at_gate.push(Holder::of_owner(&owner));
                continue;
            }
            None => Holder::of_owner(&owner),
        };
        waiters.push(Holder { is_shared: owner.is_shared && !is_at_gate, ..waiter });
    }
    waiters.extend(tickets.into_iter().flatten().map(described));
    waiters.extend(at_gate);
    Ok(waiters)
}

fn described(ticket: QueuedProcess) -> Holder {
    Holder::queued(ticket.process, ticket.waited, ticket.label)
}
