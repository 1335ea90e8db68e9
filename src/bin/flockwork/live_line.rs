//! The line on a terminal that shows the progress of a wait and is erased at its end. At most one
//! process draws on a terminal, and only while it is in the terminal's foreground process group.

use std::fs::File;
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};

use console::Term;

/// Where the progress of a wait is to be shown now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// On lines that stay: the standard error is a file, a pipe or a terminal without a cursor.
    Lines,
    /// On the live line of a terminal with this many columns.
    Live(usize),
    /// Nowhere: another process shows its progress on this terminal, or this process is in the
    /// background.
    Nowhere,
}

/// The state of the live line of this process.
struct LiveLine {
    is_drawn: bool,
    /// The terminal, locked by flock(2), so that this process alone draws.
    claim: Option<File>,
}

static LINE: Mutex<LiveLine> = Mutex::new(LiveLine { is_drawn: false, claim: None });

fn line() -> MutexGuard<'static, LiveLine> {
    LINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Determines where to show the progress, and claims the terminal if there is one.
pub(crate) fn place() -> Place {
    if !std::io::stderr().is_terminal() {
        return Place::Lines;
    }
    let mut line = line();
    match is_in_foreground() {
        Some(true) => {}
        Some(false) => {
            // The shell has continued this process in the background.
            line.claim = None;
            return Place::Nowhere;
        }
        None => return Place::Lines,
    }
    if line.claim.is_none() {
        match claim() {
            Claim::Locked(terminal) => line.claim = Some(terminal),
            Claim::Busy => return Place::Nowhere,
            Claim::Unsupported => {}
        }
    }
    if is_dumb() {
        return Place::Lines;
    }
    let (_, columns) = Term::stderr().size();
    Place::Live(columns.into())
}

/// Draws the line. A text in the last column would move the cursor to the next line, so `text` has
/// fewer columns than the terminal.
pub(crate) fn draw(text: &str) {
    let mut line = line();
    line.is_drawn = true;
    let _ = std::io::stderr().write_all(format!("\r\x1b[2K{text}").as_bytes());
}

/// Erases the line, and permits other processes to draw. No line is drawn while the returned value
/// exists.
#[must_use]
pub(crate) fn erase() -> impl Drop {
    let mut line = line();
    if std::mem::take(&mut line.is_drawn) {
        let _ = Term::stderr().clear_line();
    }
    line.claim = None;
    line
}

/// Whether the terminal has no cursor that can be moved, or is not known to have one.
pub(crate) fn is_dumb() -> bool {
    let term = std::env::var_os("TERM");
    term.map_or(cfg!(unix), |term| term.is_empty() || term == "dumb")
}

/// The result of claiming the terminal.
#[cfg_attr(
    not(all(unix, not(target_os = "solaris"))),
    expect(dead_code, reason = "no terminal can be locked here")
)]
enum Claim {
    Locked(File),
    /// Another process has claimed it.
    Busy,
    Unsupported,
}

/// Whether this process is in the foreground process group of the terminal. `None` if the terminal
/// does not control it.
#[cfg(unix)]
fn is_in_foreground() -> Option<bool> {
    let group = rustix::termios::tcgetpgrp(std::io::stderr()).ok()?;
    Some(group == rustix::process::getpgrp())
}

#[cfg(not(unix))]
fn is_in_foreground() -> Option<bool> {
    Some(true)
}

#[cfg(all(unix, not(target_os = "solaris")))]
fn claim() -> Claim {
    use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
    // The standard error is open in other processes too, which would share a lock on it.
    let name = if cfg!(target_os = "linux") {
        Ok(c"/proc/self/fd/2".into())
    } else {
        rustix::termios::ttyname(std::io::stderr(), Vec::new())
    };
    let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(terminal) = name.and_then(|name| open(name, flags, Mode::empty())) else {
        return Claim::Unsupported;
    };
    match flock(&terminal, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Claim::Locked(terminal.into()),
        Err(rustix::io::Errno::WOULDBLOCK) => Claim::Busy,
        Err(_) => Claim::Unsupported,
    }
}

#[cfg(not(all(unix, not(target_os = "solaris"))))]
fn claim() -> Claim {
    Claim::Unsupported
}
