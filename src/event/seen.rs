//! What a wait for events has found.

use std::sync::Arc;

use super::Inner;

/// What a wait has found. One type for all waits lets the code that waits be compiled once.
#[derive(Default)]
pub(super) struct Seen {
    index: usize,
    payload: Vec<u8>,
    /// The event that was consumed. If the caller has given up by then, the payload is set again,
    /// unless a new one was set meanwhile.
    consumed: Option<Arc<Inner>>,
}

impl Seen {
    /// The event with this index.
    pub(super) fn event(index: usize) -> Self {
        Self { index, payload: Vec::new(), consumed: None }
    }

    pub(super) fn payload(payload: Vec<u8>) -> Self {
        Self { index: 0, payload, consumed: None }
    }

    pub(super) fn consumed(event: &Arc<Inner>, payload: Vec<u8>) -> Self {
        Self { index: 0, payload, consumed: Some(Arc::clone(event)) }
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        if let Some(event) = self.consumed.take() {
            let _ = event.marker.set_new(&self.payload);
        }
    }
}

impl From<Seen> for () {
    fn from(_seen: Seen) {}
}

impl From<Seen> for usize {
    fn from(seen: Seen) -> Self {
        seen.index
    }
}

impl From<Seen> for Vec<u8> {
    fn from(mut seen: Seen) -> Self {
        seen.consumed = None;
        std::mem::take(&mut seen.payload)
    }
}
