//! The processes and threads that a test starts. They end with the test, even if it panics.

#![allow(dead_code, reason = "without the command, and on other systems, fewer tests use this")]

use std::cell::RefCell;
use std::io::Read as _;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::Scope;
use std::time::Duration;

use crate::limit;

thread_local! {
    /// The processes that this thread has started.
    static STARTED: RefCell<Vec<Weak<Mutex<Child>>>> = const { RefCell::new(Vec::new()) };
}

/// A process that is killed, with its descendants, when this value is dropped. It has the methods
/// of [`Child`] that tests use.
#[derive(Debug)]
pub(crate) struct Running {
    child: Arc<Mutex<Child>>,
    pub(crate) stdin: Option<ChildStdin>,
    pub(crate) stdout: Option<ChildStdout>,
    pub(crate) stderr: Option<ChildStderr>,
}

pub(crate) trait Start {
    /// Starts a process like `spawn`. Dropping the returned value kills it.
    fn start(&mut self) -> Running;
}

impl Start for Command {
    #[track_caller]
    fn start(&mut self) -> Running {
        let mut child = self.spawn().unwrap_or_else(|error| panic!("{self:?}: {error}"));
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let child = Arc::new(Mutex::new(child));
        STARTED.with_borrow_mut(|started| {
            started.retain(|child| child.strong_count() > 0);
            started.push(Arc::downgrade(&child));
        });
        Running { child, stdin, stdout, stderr }
    }
}

impl Running {
    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child().id()
    }

    pub(crate) fn kill(&mut self) -> std::io::Result<()> {
        self.child().kill()
    }

    #[cfg(unix)]
    #[track_caller]
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child());
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub(crate) fn try_wait(&mut self) -> std::io::Result<Option<ExitStatus>> {
        self.child().try_wait()
    }

    /// Waits without holding the mutex, so that [`scope`] can kill the process.
    pub(crate) fn wait(&mut self) -> std::io::Result<ExitStatus> {
        drop(self.stdin.take());
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn wait_with_output(mut self) -> std::io::Result<Output> {
        drop(self.stdin.take());
        let stderr = self.stderr.take().map(|mut stderr| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                stderr.read_to_end(&mut bytes).map(|_| bytes)
            })
        });
        let mut output =
            Output { status: ExitStatus::default(), stdout: Vec::new(), stderr: Vec::new() };
        if let Some(mut stdout) = self.stdout.take() {
            stdout.read_to_end(&mut output.stdout)?;
        }
        if let Some(stderr) = stderr {
            output.stderr = stderr.join().unwrap()?;
        }
        output.status = self.wait()?;
        Ok(output)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        end(&mut self.child());
        let _ = self.wait();
    }
}

/// Kills a process and its descendants if it is still running.
fn end(child: &mut Child) {
    if matches!(child.try_wait(), Ok(None)) {
        limit::kill_family(child.id());
        let _ = child.kill(); // Needed on systems other than Linux.
    }
}

/// Works like `std::thread::scope`, but also ends if `body` panics: it then kills the processes
/// that this thread has started, so that a thread waiting for one of their locks acquires it. If a
/// thread waits for anything else, the test's time limit ends the process a moment later.
pub(crate) fn scope<'env, T>(body: impl for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T) -> T {
    std::thread::scope(|scope| {
        let _end = on_panic(|| {
            limit::hurry();
            STARTED.with_borrow(|started| {
                for child in started.iter().filter_map(Weak::upgrade) {
                    end(&mut child.lock().unwrap_or_else(PoisonError::into_inner));
                }
            });
        });
        body(scope)
    })
}

/// Calls `act` with each item, in several threads.
pub(crate) fn share<T: Sync>(threads: usize, items: &[T], act: impl Fn(&T) + Sync) {
    let (next, test) = (AtomicUsize::new(0), limit::current());
    scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                limit::join(test);
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    act(item);
                }
            });
        }
    });
}

/// Returns a value that calls `act` when it is dropped, even in a panic. It ends the threads of a
/// [`scope`] that run until a flag is set.
pub(crate) fn on_drop(act: impl FnMut()) -> impl Drop {
    OnDrop(act)
}

/// Returns a value that calls `act` when a panic drops it. It wakes the waiting threads of a
/// [`scope`].
pub(crate) fn on_panic(mut act: impl FnMut()) -> impl Drop {
    OnDrop(move || {
        if std::thread::panicking() {
            act();
        }
    })
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0();
    }
}
