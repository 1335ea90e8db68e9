//! Signals on Unix: one thread takes them in, the main one starts the command and waits for its end.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::signal::{SigSet, Signal, raise};
use rustix::process::Pid;

use super::source::{Next, Source};
use crate::exit::{Exit, Failure, Outcome};
use crate::job::{Job, exit_of};

const FORWARDED: [Signal; 8] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGCONT,
    Signal::SIGTSTP,
];

#[derive(Debug, Clone, Copy)]
enum Stage {
    /// Nothing runs yet.
    Waiting,
    Running(Pid),
    /// It has ended, and its number may be another's.
    Ended,
}

/// What the thread that takes signals in shares with the one that waits for the command.
struct Watch {
    stage: Mutex<Stage>,
    source: Source,
    /// The command has been told to stop (TSTP), and it has not been seen to.
    is_to_stop: AtomicBool,
    /// It has stopped by that, and we do not know yet who told it.
    has_stopped: AtomicBool,
    /// The terminal has interrupted it (INT).
    is_interrupted: AtomicBool,
}

pub(crate) struct Signals {
    watch: Arc<Watch>,
    set: SigSet,
    /// What the handlers caught. Empty where there are none.
    caught: Vec<(Signal, Arc<AtomicBool>)>,
}

impl Signals {
    /// To be called before any thread is started: they inherit what is blocked.
    pub(crate) fn take() -> Result<Self, Failure> {
        let failed = |why: &dyn std::fmt::Display| {
            Failure::new(Exit::System, format!("could not watch for signals: {why}"))
        };
        let ignored = ignored();
        let is_ours =
            |signal: &Signal| ignored.is_none_or(|mask| mask & (1 << (*signal as i32 - 1)) == 0);
        let ours: Vec<_> = FORWARDED.into_iter().filter(is_ours).collect();
        let set: SigSet = ours.iter().copied().collect();
        set.thread_block().map_err(|error| failed(&error))?;
        // Not where it is not known what is ignored: a handler would end that, for the command as well.
        let mut caught = Vec::new();
        for signal in ours.into_iter().filter(|_| ignored.is_some()) {
            let flag = Arc::new(AtomicBool::new(false));
            signal_hook::flag::register(signal as i32, Arc::clone(&flag))
                .map_err(|error| failed(&error))?;
            caught.push((signal, flag));
        }
        // Where it is ignored, nobody learns how a child ended.
        let seen = Arc::default();
        signal_hook::flag::register(signal_hook::consts::SIGCHLD, seen)
            .map_err(|error| failed(&error))?;
        let watch = Arc::new(Watch {
            stage: Mutex::new(Stage::Waiting),
            source: Source::new(set).map_err(|error| failed(&error))?,
            is_to_stop: AtomicBool::new(false),
            has_stopped: AtomicBool::new(false),
            is_interrupted: AtomicBool::new(false),
        });
        let shared = Arc::clone(&watch);
        let has_handlers = !caught.is_empty();
        std::thread::Builder::new()
            .name("flockwork-signals".into())
            .spawn(move || shared.listen(set, has_handlers))
            .map_err(|error| failed(&error))?;
        Ok(Self { watch, set, caught })
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, job: &Job) -> Outcome {
        let child = self.start(job)?;
        self.finish(child)
    }

    /// What comes in meanwhile is for the command: it waits for this mutex.
    pub(crate) fn start(&self, job: &Job) -> Result<Child, Failure> {
        let mut stage = self.watch.stage();
        let _ = self.set.thread_unblock();
        // What waited came while nothing ran: the command could not get it from the terminal.
        self.take_in_caught(*stage);
        let spawned = job.spawn();
        let _ = self.set.thread_block();
        let pid = spawned.as_ref().ok().and_then(|child| i32::try_from(child.id()).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            *stage = Stage::Running(pid);
        }
        self.take_in_caught(*stage);
        spawned
    }

    fn take_in_caught(&self, stage: Stage) {
        for (signal, flag) in &self.caught {
            if flag.swap(false, Ordering::SeqCst) {
                // The terminal's, perhaps: a handler is not told.
                let is_int = *signal == Signal::SIGINT;
                self.watch.is_interrupted.fetch_or(is_int, Ordering::SeqCst);
                self.watch.take_in(*signal, false, true, stage);
            }
        }
    }

    pub(crate) fn finish(&self, mut child: Child) -> Outcome {
        let stage = *self.watch.stage();
        if let Stage::Running(pid) = stage {
            self.watch.until_ended(pid);
        }
        let mut stage = self.watch.stage();
        *stage = Stage::Ended;
        let status = child.wait().map_err(|error| {
            Failure::new(Exit::System, format!("could not learn how the command ended: {error}"))
        })?;
        let by = std::os::unix::process::ExitStatusExt::signal(&status);
        if by == Some(Signal::SIGINT as i32) && self.watch.was_interrupted(self.set) {
            return Ok(Exit::Interrupted);
        }
        drop(stage);
        Ok(exit_of(status))
    }
}

impl Watch {
    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its number is its own until it has been asked for, and this does not ask. When it stops because it was told to, so do
    /// we, so that who watches us sees it; a command that does not care for that goes on, and so do we.
    #[cfg(not(target_os = "openbsd"))]
    fn until_ended(&self, pid: Pid) {
        use rustix::process::{WaitId, WaitIdOptions, waitid};
        let stopped = WaitIdOptions::STOPPED;
        let looks = WaitIdOptions::EXITED | stopped | WaitIdOptions::NOWAIT;
        loop {
            let seen = match waitid(WaitId::Pid(pid), looks) {
                Ok(Some(seen)) => seen,
                Err(rustix::io::Errno::INTR) => continue,
                _ => return,
            };
            if !seen.stopped() {
                return;
            }
            let _ = waitid(WaitId::Pid(pid), stopped | WaitIdOptions::NOHANG); // it is seen once
            if is_by_tstp(&seen) {
                let _stage = self.stage(); // whichever of the two threads comes second stops us
                if self.is_to_stop.swap(false, Ordering::SeqCst) {
                    let _ = raise(Signal::SIGSTOP);
                } else {
                    self.has_stopped.store(true, Ordering::SeqCst);
                }
            }
        }
    }

    /// rustix has no `waitid` there: a signal that comes at the very end may meet a number that is nobody's any more, and we
    /// do not stop with the command.
    #[cfg(target_os = "openbsd")]
    fn until_ended(&self, _pid: Pid) {}

    /// With the stage in hand: what is not known by now has not been read yet.
    fn was_interrupted(&self, set: SigSet) -> bool {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        while let Next::Signal(signal, is_terminals) = self.source.next(set) {
            self.is_interrupted
                .fetch_or(signal == Signal::SIGINT && is_terminals, Ordering::SeqCst);
        }
        let _ = set;
        self.is_interrupted.load(Ordering::SeqCst)
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn listen(&self, set: SigSet, has_handlers: bool) {
        while let Next::Signal(signal, is_terminals) = self.source.next(set) {
            // While the command is being started, it may not be there to get it from the terminal.
            let (stage, is_terminals) = match self.stage.try_lock() {
                Ok(stage) => (stage, is_terminals),
                Err(_) => (self.stage(), false),
            };
            self.take_in(signal, is_terminals, has_handlers, *stage);
        }
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn listen(&self, set: SigSet, has_handlers: bool) {
        while self.source.wait() {
            // Held on to: the command's number is its own for as long. And from before it is taken: what came before the
            // command was started must not be taken for something that it has got as well.
            let stage = self.stage();
            match self.source.next(set) {
                Next::Signal(signal, is_terminals) => {
                    self.take_in(signal, is_terminals, has_handlers, *stage);
                }
                Next::Nothing => {}
                Next::End => return,
            }
        }
    }

    fn take_in(&self, signal: Signal, is_terminals: bool, has_handlers: bool, stage: Stage) {
        match stage {
            Stage::Waiting => undergo(signal, has_handlers),
            Stage::Running(pid) => {
                // What the terminal says it says to all of the group that it listens to.
                let has_it_already = is_terminals && is_in_our_group(pid);
                match signal {
                    Signal::SIGTSTP if self.has_stopped.swap(false, Ordering::SeqCst) => {
                        let _ = raise(Signal::SIGSTOP);
                    }
                    Signal::SIGTSTP => self.is_to_stop.store(true, Ordering::SeqCst),
                    Signal::SIGCONT => {
                        self.is_to_stop.store(false, Ordering::SeqCst);
                        self.has_stopped.store(false, Ordering::SeqCst);
                    }
                    Signal::SIGINT if is_terminals => {
                        self.is_interrupted.store(true, Ordering::SeqCst);
                    }
                    _ => {}
                }
                let number = rustix::process::Signal::from_named_raw(signal as i32);
                if let Some(number) = number.filter(|_| !has_it_already) {
                    let _ = rustix::process::kill_process(pid, number);
                }
            }
            Stage::Ended => {}
        }
    }
}

#[cfg(not(any(target_os = "openbsd", target_os = "netbsd")))]
fn is_by_tstp(seen: &rustix::process::WaitIdStatus) -> bool {
    seen.stopping_signal() == Some(Signal::SIGTSTP as i32)
}

/// It is not told there.
#[cfg(target_os = "netbsd")]
fn is_by_tstp(_seen: &rustix::process::WaitIdStatus) -> bool {
    true
}

/// For a verb that runs no job. The kernel discards a signal that would end the first process of a pid namespace (a
/// container's), unless the process handles it: there a handler ends it, with the code of a shell. What is ignored stays
/// ignored. A program that takes this process's place does not inherit the handlers.
pub(crate) fn end_when_told() -> Result<(), Failure> {
    if std::process::id() != 1 {
        return Ok(());
    }
    let failed = |why: &dyn std::fmt::Display| {
        Failure::new(Exit::System, format!("could not watch for signals: {why}"))
    };
    let ignored = ignored().unwrap_or_default();
    let ends = |signal: &Signal| {
        !matches!(signal, Signal::SIGCONT | Signal::SIGTSTP)
            && ignored & (1 << (*signal as i32 - 1)) == 0
    };
    let set: SigSet = FORWARDED.into_iter().filter(ends).collect();
    // signal-hook installs its handler before it knows what to do: a signal in between would be lost.
    set.thread_block().map_err(|error| failed(&error))?;
    for signal in &set {
        let (always, code) = (Arc::new(AtomicBool::new(true)), 128 + signal as i32);
        signal_hook::flag::register_conditional_shutdown(signal as i32, code, always)
            .map_err(|error| failed(&error))?;
    }
    set.thread_unblock().map_err(|error| failed(&error))
}

/// Ends this process by the terminal's interruption, as the command was ended: a shell's loop ends by that, and not by a code.
pub(crate) fn interrupt() {
    let _ = signal_hook::low_level::emulate_default_handler(signal_hook::consts::SIGINT);
}

/// What it does to a program that does not care.
fn undergo(signal: Signal, has_handlers: bool) {
    if signal == Signal::SIGCONT {
        return; // done already
    }
    if std::process::id() == 1 && signal != Signal::SIGTSTP {
        // The first process of a container is not ended by what ends others: raised, it does nothing.
        std::process::exit(128 + signal as i32);
    }
    if has_handlers {
        let _ = signal_hook::low_level::emulate_default_handler(signal as i32);
        return; // stopped and continued
    }
    let only: SigSet = [signal].into_iter().collect();
    let _ = raise(signal); // it waits, being blocked
    let _ = only.thread_unblock();
    // Ignored, or stopped and continued.
    let _ = only.thread_block();
}

/// What this process ignores, a bit for each (`SigIgn` in proc(5)). `None`: the system does not tell.
fn ignored() -> Option<u64> {
    if !cfg!(any(target_os = "linux", target_os = "android")) {
        return None;
    }
    // As much at a time as there is: `fs::read` begins with 32 bytes where no size is told.
    let status = BufReader::new(File::open("/proc/self/status").ok()?);
    let mut lines = status.split(b'\n').map_while(Result::ok);
    let mask = lines.find_map(|line| Some(line.strip_prefix(b"SigIgn:")?.to_vec()))?;
    let mask = String::from_utf8(mask).ok()?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

fn is_in_our_group(pid: Pid) -> bool {
    rustix::process::getpgid(Some(pid)).is_ok_and(|group| group == rustix::process::getpgrp())
}
