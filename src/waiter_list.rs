//! Lists the processes that wait for a path, for [`inspect`](crate::inspect()): those that queue in
//! the kernel, and those that have a ticket.

use std::cmp::Reverse;
use std::io;
use std::path::{Path, PathBuf};

use crate::file::ticket_queue::{QueuedProcess, waiters_in};
use crate::holder::Holder;
use crate::line::host_queues;
use crate::record;
use crate::sorted_map::insert_by_key;
use crate::sys;

/// The processes that wait, in order: first those whose requests for one of the files `locked` wait
/// in the kernel, then those in the queue of tickets, and then those that wait for the `gate`
/// without a ticket. On a network file system, the tickets are those of this host and user for the
/// file `queued` (rule W10).
///
/// A process at the front of the queue keeps its ticket while it waits in the kernel, and is listed
/// once.
pub(crate) fn waiters(
    locked: &Path,
    queued: &Path,
    queue: PathBuf,
    gate: &Path,
) -> io::Result<Vec<Holder>> {
    let mut files = Vec::new();
    for path in [locked, gate] {
        files.extend(record::identity_of(path)?.map(|id| (id, path == gate)));
    }
    let mut directories = vec![queue];
    if queued.parent().is_some_and(sys::is_network_directory) {
        directories.extend(record::identity_of(queued)?.into_iter().flat_map(host_queues));
    }
    // The tickets are read first, so that a process that comes to the front meanwhile is found in
    // the kernel's list too, and not missed.
    let mut tickets = Vec::new();
    for ticket in directories.iter().flat_map(|it| waiters_in(it)) {
        insert_by_key(&mut tickets, ticket, |it| Reverse(it.waited));
    }
    let mut tickets: Vec<_> = tickets.into_iter().map(Some).collect();
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
