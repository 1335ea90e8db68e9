//! Locks between unrelated programs, keyed by a path in the file system.

mod sys;

mod slot;
mod wait;

mod error;
mod holder;
mod options;

mod lock;

pub use error::{Error, HeldBy, Result};
pub use holder::Holder;
pub use lock::{Lock, LockGuard};
pub use options::{Access, Options, Waiting};
