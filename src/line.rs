//! A queue of tickets as the engine waits in it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use once_cell::race::OnceBox;

use crate::access::Access;
use crate::file::lock_file::LockFile;
use crate::file::ticket_queue::{Ticket, TicketQueue};
use crate::host_directory::{host_directories, host_directory};
use crate::lock_request::LockRequest;
use crate::process::is_stopped;
use crate::sys::{self, FileId, WatchedFifo};
use crate::wait::{HostQueue, Order};

/// A queue, and how this handle's waiters describe themselves in it.
pub(crate) struct Line {
    pub(crate) tickets: Arc<TicketQueue>,
    pub(crate) label: Option<Arc<str>>,
}

impl Line {
    /// Whether the waiter at the front is known to be stopped.
    pub(crate) fn is_first_stopped(&self) -> bool {
        self.tickets.may_have_waiters()
            && self.tickets.first().is_some_and(|first| is_stopped(&first))
    }
}

/// The queue in which the waiters of one host for one file of a network file system wait on their
/// host (rule 18). It is created when the first of them waits with a handle.
pub(crate) struct HostLine {
    label: Option<Arc<str>>,
    queue: OnceBox<Option<Arc<HostQueue<Line, LockRequest>>>>,
}

impl HostLine {
    pub(crate) fn new(label: Option<Arc<str>>) -> Self {
        Self { label, queue: OnceBox::new() }
    }

    /// The queue for this request; `None` if its file is on a local file system, the user chose an
    /// interval, or this host has no place for a queue.
    pub(crate) fn of(&self, request: &LockRequest) -> Option<&Arc<HostQueue<Line, LockRequest>>> {
        if !request.file.is_network() || request.poll_every.is_some() {
            return None;
        }
        self.queue.get_or_init(|| Box::new(self.open(request.file.latest()))).as_ref()
    }

    fn open(&self, id: FileId) -> Option<Arc<HostQueue<Line, LockRequest>>> {
        let directory = if sys::FIFOS { host_directory()? } else { return None };
        let directory: Arc<Path> = queue_in(&directory, id).into();
        let tickets = TicketQueue::new(Arc::clone(&directory), Access::Private.into());
        let order = Line { tickets: Arc::new(tickets), label: self.label.clone() };
        let open_front = move || {
            let file = LockFile::open(&directory.join("front"), Access::Private).ok()?;
            Some(LockRequest::alone(file))
        };
        Some(Arc::new(HostQueue::new(Arc::new(order), open_front)))
    }
}

/// The queues of this host that exist for a file of a network file system, for a process that only
/// lists the waiters.
pub(crate) fn host_queues(id: FileId) -> Vec<PathBuf> {
    let queues = host_directories().into_iter().map(|directory| queue_in(&directory, id));
    queues.filter(|queue| queue.is_dir()).collect()
}

fn queue_in(host_directory: &Path, id: FileId) -> PathBuf {
    host_directory.join(format!("{}.queue", id.name()))
}

impl Order for Line {
    type Ticket = Ticket;

    fn may_have_waiters(&self) -> bool {
        self.tickets.may_have_waiters()
    }

    fn refuses_a_try(&self) -> bool {
        self.tickets.may_have_waiters()
            && self.tickets.first().is_some_and(|first| !is_stopped(&first))
    }

    fn join(&self) -> Option<Ticket> {
        self.tickets.join(self.label.as_deref())
    }

    fn ahead(&self, ticket: &mut Ticket, thorough: bool) -> io::Result<Option<Arc<WatchedFifo>>> {
        if thorough {
            ticket.look_again();
        }
        ticket.ahead()
    }
}
