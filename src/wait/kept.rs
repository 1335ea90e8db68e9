//! A guard or another value whose calls may need the server of a network file system.

#![expect(clippy::disallowed_methods, reason = "waits for calls that share the value")]

use std::sync::Arc;
use std::time::Duration;

use super::Server;
use crate::error::Result;

/// A guard or another value whose calls need the server, if it is on a network file system. On a
/// local one it is the value itself.
pub(crate) struct Kept<T: Send + Sync + 'static>(Place<T>);

enum Place<T> {
    Local(T),
    /// Calls that were given up share the value with the guard.
    Remote(Arc<T>, Server),
    /// Taken out.
    Nowhere,
}

const HERE: &str = "only a call that consumes `self` takes the value out";

impl<T: Send + Sync + 'static> Kept<T> {
    pub(crate) fn new(value: T, server: Option<&Server>) -> Self {
        Self(match server {
            None => Place::Local(value),
            Some(server) => Place::Remote(Arc::new(value), server.clone()),
        })
    }

    /// The value, for what needs no server.
    pub(crate) fn get(&self) -> &T {
        match &self.0 {
            Place::Local(value) => value,
            Place::Remote(value, _) => value,
            Place::Nowhere => unreachable!("{HERE}"),
        }
    }

    pub(crate) fn ask<R: Send + Sync + 'static>(
        &self,
        call: impl FnOnce(&T) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        match &self.0 {
            Place::Local(value) => call(value),
            Place::Remote(value, server) => {
                let value = Arc::clone(value);
                server.ask(move || call(&value))
            }
            Place::Nowhere => unreachable!("{HERE}"),
        }
    }

    /// Takes the value out for a call that consumes it. It is made in any case, if need be later.
    pub(crate) fn finish<R: Send + Sync + 'static>(
        mut self,
        call: impl FnOnce(T) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        match std::mem::replace(&mut self.0, Place::Nowhere) {
            Place::Local(value) => call(value),
            Place::Remote(value, server) => server.finish(move || call(alone(value))),
            Place::Nowhere => unreachable!("{HERE}"),
        }
    }

    /// Changes the value, in this thread. `None` while a call that was given up has it.
    pub(crate) fn change(&mut self) -> Option<&mut T> {
        match &mut self.0 {
            Place::Local(value) => Some(value),
            Place::Remote(value, _) => Arc::get_mut(value),
            Place::Nowhere => unreachable!("{HERE}"),
        }
    }

    /// Takes the value out, or returns `self` while a call that was given up has it.
    pub(crate) fn take_now(mut self) -> std::result::Result<T, Self> {
        match std::mem::replace(&mut self.0, Place::Nowhere) {
            Place::Local(value) => Ok(value),
            Place::Remote(value, server) => Arc::try_unwrap(value).map_err(|shared| {
                self.0 = Place::Remote(shared, server);
                self
            }),
            Place::Nowhere => unreachable!("{HERE}"),
        }
    }

    pub(crate) fn server(&self) -> Option<&Server> {
        match &self.0 {
            Place::Remote(_, server) => Some(server),
            _ => None,
        }
    }
}

/// Waits until the calls that were given up have ended, in a helper.
fn alone<T>(mut value: Arc<T>) -> T {
    loop {
        match Arc::try_unwrap(value) {
            Ok(value) => return value,
            Err(shared) => value = shared,
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl<T: Send + Sync + 'static> Drop for Kept<T> {
    /// Waits at most for the bound. The helper completes the release.
    fn drop(&mut self) {
        if let Place::Remote(value, server) = std::mem::replace(&mut self.0, Place::Nowhere) {
            server.drop_later(move || drop(alone(value)));
        }
    }
}
