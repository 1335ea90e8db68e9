//! Signals that reach the command through us. They are blocked in all our threads from the first on, and one thread takes
//! them in: while nothing runs yet it lets them do what they do to any program; afterwards it passes them on.
//!
//! What is ignored stays ignored, by us and by the command: it may run under nohup(1), or in the background of a script.
//!
//! A program that is started inherits what is blocked, so while it is started nothing is, in the thread that does it. What
//! comes in at that moment is caught by handlers, and passed on afterwards.

#[cfg(unix)]
mod source;
#[cfg(unix)]
mod unix;

#[cfg(not(unix))]
mod elsewhere;

#[cfg(unix)]
pub(crate) use self::unix::{Signals, end_when_told, interrupt};

#[cfg(not(unix))]
pub(crate) use self::elsewhere::{Signals, end_when_told, interrupt};
