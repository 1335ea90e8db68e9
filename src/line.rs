//! A queue of tickets as the engine waits in it.

use std::io;
use std::sync::Arc;

use crate::file::ticket_queue::{Ticket, TicketQueue};
use crate::process::is_stopped;
use crate::sys::WatchedFifo;
use crate::wait::Order;

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
