//! A target for the engine's own tests: a lock in memory, so that a test can bring about each
//! moment of a hand-over.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::Target;
use crate::error::{Operation, Result};
use crate::sync::{Condvar, Mutex};

/// A lock in memory. `block` waits on a condition; `refuse` and `panic` make it fail instead.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) state: Arc<(Mutex<Contents>, Condvar)>,
    pub(super) attempts: AtomicUsize,
    /// A lock of an earlier generation is no longer valid.
    pub(super) generation: AtomicUsize,
    /// The interval of a waiter's own tries.
    pub(super) backstop: Option<Duration>,
}

#[derive(Default)]
pub(super) struct Contents {
    pub(super) is_held: bool,
    /// The request that was granted the lock, if it was a request.
    pub(super) owner: Option<usize>,
    pub(super) requests: usize,
    /// Whether helpers wait before they prepare a request.
    pub(super) is_slow: bool,
    pub(super) fault: Option<&'static str>,
    /// Whether a blocked request stays asleep when the lock becomes free.
    pub(super) sleeps_on: bool,
}

/// A held lock with its generation, or [`FREED`].
pub(super) struct Held(Arc<(Mutex<Contents>, Condvar)>, pub(super) usize);

const FREED: usize = usize::MAX;

/// A request with its number, or [`FREED`] once it has become a [`Held`].
pub(super) struct Request(Arc<(Mutex<Contents>, Condvar)>, usize);

impl Drop for Request {
    fn drop(&mut self) {
        let mut contents = self.0.0.lock().unwrap();
        if contents.owner == Some(self.1) {
            (contents.is_held, contents.owner) = (false, None);
            drop(contents);
            self.0.1.notify_all();
        }
    }
}

impl Held {
    fn free(&mut self) {
        if std::mem::replace(&mut self.1, FREED) != FREED {
            let mut contents = self.0.0.lock().unwrap();
            (contents.is_held, contents.owner) = (false, None);
            drop(contents);
            self.0.1.notify_all();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.free();
    }
}

impl Memory {
    pub(super) fn fail(&self, how: &'static str) {
        self.state.0.lock().unwrap().fault = Some(how);
        self.state.1.notify_all();
    }

    pub(super) fn is_held(&self) -> bool {
        self.state.0.lock().unwrap().is_held
    }
}

impl Target for Memory {
    type Key = usize;
    type Held = Held;
    type Request = Request;

    fn key(&self) -> usize {
        Arc::as_ptr(&self.state) as usize
    }

    fn is_current(&self, _key: &usize) -> Result<bool> {
        Ok(true)
    }

    fn attempt(&self) -> Result<Option<Held>> {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        let mut contents = self.state.0.lock().unwrap();
        let was_held = std::mem::replace(&mut contents.is_held, true);
        let generation = self.generation.load(Ordering::SeqCst);
        Ok((!was_held).then(|| Held(Arc::clone(&self.state), generation)))
    }

    fn is_valid(&self, held: &Held) -> Result<bool> {
        Ok(held.1 == self.generation.load(Ordering::SeqCst))
    }

    fn block_here(&self) -> Result<Held> {
        let request = self.prepare(&self.key())?.expect("not replaced");
        self.block(&request)?;
        Ok(self.granted(request))
    }

    fn prepare(&self, _key: &usize) -> Result<Option<Request>> {
        let mut contents = self.state.0.lock().unwrap();
        while contents.is_slow {
            contents = self.state.1.wait(contents).unwrap();
        }
        if contents.fault == Some("replaced") {
            contents.fault = None;
            return Ok(None);
        }
        contents.requests += 1;
        Ok(Some(Request(Arc::clone(&self.state), contents.requests)))
    }

    fn block(&self, request: &Request) -> Result<()> {
        let mut contents = self.state.0.lock().unwrap();
        // Another thread may have acquired it through the request (Q7).
        while contents.owner != Some(request.1)
            && (contents.is_held || contents.sleeps_on)
            && !matches!(contents.fault, Some("panic" | "refuse"))
        {
            contents = self.state.1.wait(contents).unwrap();
        }
        match contents.fault.filter(|fault| *fault != "replaced") {
            Some(fault) if contents.owner != Some(request.1) => {
                contents.fault = None;
                if fault == "panic" {
                    drop(contents);
                    panic!("the target's own");
                }
                let path = std::path::Path::new("memory").into();
                Err(crate::error::Error::io(
                    Operation::Lock,
                    &path,
                    std::io::ErrorKind::OutOfMemory.into(),
                ))
            }
            _ => {
                contents.is_held = true;
                contents.owner = Some(request.1);
                Ok(())
            }
        }
    }

    fn is_granted(&self, request: &Request) -> bool {
        let mut contents = self.state.0.lock().unwrap();
        if !contents.is_held {
            contents.is_held = true;
            contents.owner = Some(request.1);
        }
        self.state.1.notify_all();
        contents.owner == Some(request.1)
    }

    fn granted(&self, mut request: Request) -> Held {
        request.1 = FREED;
        Held(Arc::clone(&self.state), self.generation.load(Ordering::SeqCst))
    }

    fn rival(&self, _key: &usize) -> Option<usize> {
        None
    }

    fn release(&self, held: &mut Held) {
        held.free();
    }

    fn must_poll(&self) -> bool {
        false
    }

    fn poll_every(&self) -> Option<Duration> {
        None
    }

    fn backstop(&self) -> Option<Duration> {
        self.backstop
    }
}
