//! Signals on Unix: one thread receives and forwards them; the main thread starts the command and
//! waits for its end.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal, raise};
use rustix::process::Pid;

use super::source::{Received, Source};
use super::{CANCEL, LOSS_CHECKS, LossCheck};
#[cfg(any(target_os = "linux", target_os = "android"))]
use crate::deadlock::parent_of;
use crate::exit::{Exit, Failure, Outcome};
use crate::job::{Job, exit_of};
use crate::thread;

/// How long this process may take to release what it holds after a signal has ended its wait.
const END_AFTER: Duration = Duration::from_secs(1);

/// The signal that has ended the wait of this process, or zero.
static ENDED_BY: AtomicI32 = AtomicI32::new(0);

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

/// How long a command may run after SIGTERM.
const KILL_AFTER: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy)]
enum CommandState {
    /// The command has not been started.
    NotStarted,
    Running(Pid),
    /// The command has ended, and its pid may belong to another process.
    Ended,
}

/// The state that the two threads share.
struct Shared {
    command: Mutex<CommandState>,
    source: Source,
    /// SIGTSTP was forwarded, and the command has not been seen to stop since.
    stop_pending: AtomicBool,
    /// SIGTSTP has stopped the command, but this process has not received the signal yet.
    has_stopped: AtomicBool,
    /// The terminal has sent SIGINT.
    is_interrupted: AtomicBool,
    /// The command was ended because it ran for too long.
    has_timed_out: AtomicBool,
    /// The command was ended because its lock was lost.
    has_lost: AtomicBool,
}

pub(crate) struct Signals {
    shared: Arc<Shared>,
    set: SigSet,
    /// The flags that the handlers set. Empty if there are no handlers.
    caught: Vec<(Signal, Arc<AtomicBool>)>,
    max_run: Option<Duration>,
    loss_check: Option<LossCheck>,
}

impl Signals {
    /// Must be called before any thread is started: threads inherit the blocked signals.
    pub(crate) fn install() -> Result<Self, Failure> {
        let failed = |why: &dyn std::fmt::Display| {
            Failure::new(Exit::System, format!("could not handle signals: {why}"))
        };
        let ignored = ignored();
        let is_forwarded = |signal: &Signal| ignored.is_none_or(|mask| mask & bit(*signal) == 0);
        let forwarded: Vec<_> = FORWARDED.into_iter().filter(is_forwarded).collect();
        let set: SigSet = forwarded.iter().copied().collect();
        set.thread_block().map_err(|error| failed(&error))?;
        // If the ignored signals are unknown, no handlers are installed: a signal with a handler is
        // no longer ignored, not even in the command.
        let mut caught = Vec::new();
        for signal in forwarded.into_iter().filter(|_| ignored.is_some()) {
            let flag = Arc::new(AtomicBool::new(false));
            signal_hook::flag::register(signal as i32, Arc::clone(&flag))
                .map_err(|error| failed(&error))?;
            caught.push((signal, flag));
        }
        // With SIGCHLD ignored, the exit status of a child would be discarded.
        let flag = Arc::default();
        signal_hook::flag::register(signal_hook::consts::SIGCHLD, flag)
            .map_err(|error| failed(&error))?;
        let shared = Arc::new(Shared {
            command: Mutex::new(CommandState::NotStarted),
            source: Source::new(set).map_err(|error| failed(&error))?,
            stop_pending: AtomicBool::new(false),
            has_stopped: AtomicBool::new(false),
            is_interrupted: AtomicBool::new(false),
            has_timed_out: AtomicBool::new(false),
            has_lost: AtomicBool::new(false),
        });
        let receiver = Arc::clone(&shared);
        let has_handlers = !caught.is_empty();
        thread::start("flockwork-signals", move || receiver.receive_all(set, has_handlers))
            .map_err(|error| failed(&error))?;
        Ok(Self { shared, set, caught, max_run: None, loss_check: None })
    }

    /// Sets the time after which a running command is ended.
    pub(crate) fn max_run(self, max_run: Option<Duration>) -> Self {
        Self { max_run, ..self }
    }

    /// Makes a running command end when the check returns `true`.
    pub(crate) fn end_on_loss(self, check: Option<LossCheck>) -> Self {
        Self { loss_check: check, ..self }
    }

    /// Starts the command and waits for its end.
    pub(crate) fn run(&self, job: &Job) -> Outcome {
        let child = self.start(job)?;
        self.finish(child)
    }

    /// Starts the command. A signal that arrives during the start waits for the mutex and is then
    /// forwarded.
    pub(crate) fn start(&self, job: &Job) -> Result<Child, Failure> {
        let mut command = self.shared.command();
        let _ = self.set.thread_unblock();
        // These signals arrived before the start of the command, so the terminal did not send them
        // to it.
        self.handle_caught(*command);
        if let Some(failure) = ended() {
            return Err(failure);
        }
        crate::front::has_waited();
        let spawned = job.spawn();
        let _ = self.set.thread_block();
        let pid = spawned.as_ref().ok().and_then(|child| i32::try_from(child.id()).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            *command = CommandState::Running(pid);
        }
        self.handle_caught(*command);
        if let (Ok(_), Some(time)) = (&spawned, self.max_run) {
            self.end_after(time)?;
        }
        if let (Ok(_), Some(check)) = (&spawned, &self.loss_check) {
            self.end_when_lost(Arc::clone(check))?;
        }
        spawned
    }

    /// Replaces this process by the command; returns only if that fails.
    pub(crate) fn exec(&self, job: &Job) -> Failure {
        let _ = self.set.thread_unblock();
        self.handle_caught(CommandState::NotStarted);
        ended().unwrap_or_else(|| job.exec())
    }

    /// Starts a thread that ends the command after this time. It ends with this process.
    fn end_after(&self, time: Duration) -> Result<(), Failure> {
        let shared = Arc::clone(&self.shared);
        let end = move || {
            std::thread::sleep(time);
            let time = humantime::format_duration(time);
            shared.end_running(&shared.has_timed_out, &format!("the command has run for {time}"));
        };
        let thread = thread::start("flockwork-max-run", end);
        thread.map(drop).map_err(|error| {
            Failure::new(Exit::System, format!("could not limit the time of the command: {error}"))
        })
    }

    /// Starts a thread that ends the command when its lock is lost. It ends with this process.
    fn end_when_lost(&self, is_lost: LossCheck) -> Result<(), Failure> {
        let shared = Arc::clone(&self.shared);
        let end = move || {
            while !is_lost() {
                std::thread::sleep(LOSS_CHECKS);
            }
            shared.end_running(&shared.has_lost, "the lock was lost");
        };
        let thread = thread::start("flockwork-loss", end);
        thread.map(drop).map_err(|error| {
            Failure::new(Exit::System, format!("could not watch the lock: {error}"))
        })
    }

    fn handle_caught(&self, command: CommandState) {
        for (signal, flag) in &self.caught {
            if flag.swap(false, Ordering::SeqCst) {
                // The terminal may have sent the signal; a handler cannot find that out.
                let is_int = *signal == Signal::SIGINT;
                self.shared.is_interrupted.fetch_or(is_int, Ordering::SeqCst);
                self.shared.handle(*signal, false, true, command);
            }
        }
    }

    pub(crate) fn finish(&self, mut child: Child) -> Outcome {
        let command = *self.shared.command();
        if let CommandState::Running(pid) = command {
            self.shared.wait_until_exited(pid);
        }
        let mut command = self.shared.command();
        *command = CommandState::Ended;
        let status = child.wait().map_err(|error| {
            Failure::new(
                Exit::System,
                format!("could not get the exit status of the command: {error}"),
            )
        })?;
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        if signal == Some(Signal::SIGINT as i32) && self.shared.was_interrupted(self.set) {
            return Ok(Exit::Interrupted);
        }
        drop(command);
        if self.shared.has_lost.load(Ordering::SeqCst) {
            return Ok(Exit::Lost);
        }
        if self.shared.has_timed_out.load(Ordering::SeqCst) {
            return Ok(Exit::TimedOut);
        }
        Ok(exit_of(status))
    }
}

impl Shared {
    fn command(&self) -> MutexGuard<'_, CommandState> {
        self.command.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the command and its descendants, if it is running, for a reason that `why` records.
    /// Descendants would otherwise keep the lock that they have inherited.
    fn end_running(&self, why: &AtomicBool, reason: &str) {
        self.signal_running(why, &[Signal::SIGTERM, Signal::SIGCONT], || {
            crate::exit::print_error(&format!("{reason}; ending the command"));
        });
        std::thread::sleep(KILL_AFTER);
        self.signal_running(why, &[Signal::SIGKILL], || ());
    }

    fn signal_running(&self, why: &AtomicBool, signals: &[Signal], report: impl FnOnce()) {
        let command = self.command();
        let CommandState::Running(pid) = *command else { return };
        why.store(true, Ordering::SeqCst);
        report();
        for pid in stopped_tree(pid) {
            for signal in signals {
                send(pid, *signal);
            }
        }
    }

    /// Waits without reaping the command, so its pid stays valid. If SIGTSTP stops the command,
    /// this process stops too, so that its parent notices. If the command ignores the signal, both
    /// continue.
    #[cfg(not(target_os = "openbsd"))]
    fn wait_until_exited(&self, pid: Pid) {
        use rustix::process::{WaitId, WaitIdOptions, waitid};
        let stopped = WaitIdOptions::STOPPED;
        let options = WaitIdOptions::EXITED | stopped | WaitIdOptions::NOWAIT;
        loop {
            let status = match waitid(WaitId::Pid(pid), options) {
                Ok(Some(status)) => status,
                Err(rustix::io::Errno::INTR) => continue,
                _ => return,
            };
            if !status.stopped() {
                return;
            }
            // Consumes the status.
            let _ = waitid(WaitId::Pid(pid), stopped | WaitIdOptions::NOHANG);
            if is_stopped_by_tstp(&status) {
                // The second of the two threads to get here stops this process.
                let _command = self.command();
                if self.stop_pending.swap(false, Ordering::SeqCst) {
                    let _ = raise(Signal::SIGSTOP);
                } else {
                    self.has_stopped.store(true, Ordering::SeqCst);
                }
            }
        }
    }

    /// rustix has no `waitid` for OpenBSD. A signal at the very end may be sent to a pid that now
    /// belongs to another process, and this process does not stop with the command.
    #[cfg(target_os = "openbsd")]
    fn wait_until_exited(&self, _pid: Pid) {}

    /// Reads the remaining signals. The caller has locked the state.
    fn was_interrupted(&self, set: SigSet) -> bool {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        while let Received::Signal(signal, is_from_terminal) = self.source.next(set) {
            self.is_interrupted
                .fetch_or(signal == Signal::SIGINT && is_from_terminal, Ordering::SeqCst);
        }
        let _ = set;
        self.is_interrupted.load(Ordering::SeqCst)
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn receive_all(&self, set: SigSet, has_handlers: bool) {
        while let Received::Signal(signal, is_from_terminal) = self.source.next(set) {
            // While the command is being started, the terminal may not have sent the signal to it.
            let (command, is_from_terminal) = match self.command.try_lock() {
                Ok(command) => (command, is_from_terminal),
                Err(_) => (self.command(), false),
            };
            self.handle(signal, is_from_terminal, has_handlers, *command);
        }
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn receive_all(&self, set: SigSet, has_handlers: bool) {
        while self.source.wait() {
            // The state stays locked while the signal is handled, so that the command's pid stays
            // valid. It is locked before the signal is read, so that a signal from before the start
            // of the command is not taken for one that the command has received.
            let command = self.command();
            match self.source.next(set) {
                Received::Signal(signal, is_from_terminal) => {
                    self.handle(signal, is_from_terminal, has_handlers, *command);
                }
                Received::Nothing => {}
                Received::End => return,
            }
        }
    }

    fn handle(
        &self,
        signal: Signal,
        is_from_terminal: bool,
        has_handlers: bool,
        command: CommandState,
    ) {
        match command {
            CommandState::NotStarted => end_wait(signal, has_handlers),
            CommandState::Running(pid) => {
                // The terminal sends a signal to its whole foreground group.
                let has_received_it = is_from_terminal && is_in_own_group(pid);
                match signal {
                    Signal::SIGTSTP if self.has_stopped.swap(false, Ordering::SeqCst) => {
                        let _ = raise(Signal::SIGSTOP);
                    }
                    Signal::SIGTSTP => self.stop_pending.store(true, Ordering::SeqCst),
                    Signal::SIGCONT => {
                        self.stop_pending.store(false, Ordering::SeqCst);
                        self.has_stopped.store(false, Ordering::SeqCst);
                    }
                    Signal::SIGINT if is_from_terminal => {
                        self.is_interrupted.store(true, Ordering::SeqCst);
                    }
                    _ => {}
                }
                if !has_received_it {
                    send(pid, signal);
                }
                // If the terminal has stopped the command since this process received SIGCONT, the
                // forwarded SIGCONT has continued it again.
                if signal == Signal::SIGCONT && is_pending(Signal::SIGTSTP) {
                    send(pid, Signal::SIGTSTP);
                }
                if ends(signal) {
                    crate::front::has_forwarded(signal as i32);
                }
            }
            // The release may wait for a file server that does not respond.
            CommandState::Ended if crate::front::is_behind() && ends(signal) => {
                end_soon(signal, has_handlers);
            }
            CommandState::Ended => {}
        }
    }
}

#[cfg(not(any(target_os = "openbsd", target_os = "netbsd")))]
fn is_stopped_by_tstp(status: &rustix::process::WaitIdStatus) -> bool {
    status.stopping_signal() == Some(Signal::SIGTSTP as i32)
}

/// NetBSD does not report the signal.
#[cfg(target_os = "netbsd")]
fn is_stopped_by_tstp(_status: &rustix::process::WaitIdStatus) -> bool {
    true
}

/// Handles signals for a verb that waits and runs no command: on a terminal, they erase the live
/// line before their default action.
pub(crate) fn end_wait_on_signals() -> Result<(), Failure> {
    if std::io::IsTerminal::is_terminal(&std::io::stderr()) || crate::front::is_behind() {
        return Signals::install().map(drop);
    }
    end_on_signals()
}

/// In a container, lets signals end a verb that runs no command. The kernel discards unhandled
/// signals to the first process of a pid namespace, so handlers end this process, with the exit
/// code that a shell reports. Ignored signals stay ignored. A program that replaces this process
/// does not inherit the handlers.
pub(crate) fn end_on_signals() -> Result<(), Failure> {
    if crate::front::is_behind() {
        return Signals::install().map(drop);
    }
    if std::process::id() != 1 {
        return Ok(());
    }
    let failed = |why: &dyn std::fmt::Display| {
        Failure::new(Exit::System, format!("could not handle signals: {why}"))
    };
    let ignored = ignored().unwrap_or_default();
    let is_handled = |signal: &Signal| ends(*signal) && ignored & bit(*signal) == 0;
    let set: SigSet = FORWARDED.into_iter().filter(is_handled).collect();
    // signal-hook installs its handler before it registers the action: a signal in between would be
    // lost.
    set.thread_block().map_err(|error| failed(&error))?;
    for signal in &set {
        let (always, code) = (Arc::new(AtomicBool::new(true)), 128 + signal as i32);
        signal_hook::flag::register_conditional_shutdown(signal as i32, code, always)
            .map_err(|error| failed(&error))?;
    }
    set.thread_unblock().map_err(|error| failed(&error))
}

/// The failure of a process whose wait a signal has ended.
fn ended() -> Option<Failure> {
    (ENDED_BY.load(Ordering::SeqCst) != 0).then(|| Failure::new(Exit::Interrupted, String::new()))
}

/// Kills this process with the signal that ended its wait, or with the SIGINT that ended the
/// command. A shell leaves its loop after that signal, but not after an exit code.
pub(crate) fn die_by_signal(exit: Exit) {
    let signal = match ENDED_BY.load(Ordering::SeqCst) {
        0 if exit == Exit::Interrupted => signal_hook::consts::SIGINT,
        0 => return,
        signal => signal,
    };
    exit_as_first_process(signal);
    crate::front::dies(signal);
    let _ = signal_hook::low_level::emulate_default_handler(signal);
}

/// Ends the first process of a container with the code that a shell reports: the kernel discards a
/// signal that such a process raises.
fn exit_as_first_process(signal: i32) {
    if std::process::id() == 1 {
        std::process::exit(128 + signal);
    }
}

/// Ends the wait of this process, which then releases what it holds and dies by the signal. A
/// second signal, or a second without progress, ends the process at once.
fn end_wait(signal: Signal, has_handlers: bool) {
    let Some(cancel) = CANCEL.get().filter(|_| has_handlers && ends(signal)) else {
        return apply_default_action(signal, has_handlers);
    };
    if ENDED_BY.swap(signal as i32, Ordering::SeqCst) != 0 {
        return apply_default_action(signal, has_handlers);
    }
    end_soon(signal, has_handlers);
    cancel.cancel();
}

/// Ends this process by the signal if it has not ended a second later.
fn end_soon(signal: Signal, has_handlers: bool) {
    let end = move || {
        std::thread::sleep(END_AFTER);
        apply_default_action(signal, has_handlers);
    };
    if thread::start("flockwork-end", end).is_err() {
        apply_default_action(signal, has_handlers);
    }
}

/// Whether the default action of the signal ends the process.
fn ends(signal: Signal) -> bool {
    !matches!(signal, Signal::SIGCONT | Signal::SIGTSTP)
}

/// Applies the default action of the signal.
fn apply_default_action(signal: Signal, has_handlers: bool) {
    if signal == Signal::SIGCONT {
        return; // the kernel has continued the process already
    }
    // A stopped process must not leave a line on the terminal either. No line is drawn until this
    // process continues.
    let _line = crate::live_line::erase();
    if signal != Signal::SIGTSTP {
        exit_as_first_process(signal as i32);
        crate::front::dies(signal as i32);
    }
    if has_handlers {
        let _ = signal_hook::low_level::emulate_default_handler(signal as i32);
        return; // the process was stopped and continued
    }
    let only: SigSet = [signal].into_iter().collect();
    let _ = raise(signal); // stays pending while it is blocked
    let _ = only.thread_unblock();
    // The signal was ignored, or the process was stopped and continued.
    let _ = only.thread_block();
}

fn send(pid: Pid, signal: Signal) {
    if let Some(signal) = rustix::process::Signal::from_named_raw(signal as i32) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// The process and its descendants, parents first. All of them are stopped, so that none starts
/// another process that would not receive the signal.
fn stopped_tree(pid: Pid) -> Vec<Pid> {
    let mut stopped: Vec<Pid> = Vec::new();
    loop {
        let tree = [pid].into_iter().chain(descendants(pid));
        let new: Vec<_> = tree.filter(|pid| !stopped.contains(pid)).collect();
        if new.is_empty() {
            return stopped;
        }
        for pid in &new {
            send(*pid, Signal::SIGSTOP);
        }
        stopped.extend(new);
    }
}

/// The descendants of a process whose parents are still running.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn descendants(pid: Pid) -> Vec<Pid> {
    let mut processes: Vec<(i32, i32)> = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some((pid, parent)) = pid.and_then(|pid: u32| Some((pid, parent_of(pid)?))) {
            let number = |number: u32| i32::try_from(number).unwrap_or_default();
            processes.push((number(pid), number(parent)));
        }
    }
    let (mut found, mut next) = (Vec::new(), vec![pid.as_raw_nonzero().get()]);
    while let Some(parent) = next.pop() {
        let first = next.len();
        // Each process is found once, even if the numbers changed while the list was read.
        processes.retain(|(pid, its_parent)| {
            let is_child = *its_parent == parent;
            if is_child {
                next.push(*pid);
            }
            !is_child
        });
        found.extend(next[first..].iter().filter_map(|pid| Pid::from_raw(*pid)));
    }
    found
}

/// Other systems do not list them without a privilege.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn descendants(_pid: Pid) -> Vec<Pid> {
    Vec::new()
}

/// The ignored signals, one bit for each. `None` if the system does not report them.
fn ignored() -> Option<u64> {
    signals_of_status("SigIgn:")
}

/// Whether this process has yet to receive a signal that all its threads block.
fn is_pending(signal: Signal) -> bool {
    signals_of_status("ShdPnd:").is_some_and(|mask| mask & bit(signal) != 0)
}

fn bit(signal: Signal) -> u64 {
    1 << (signal as i32 - 1)
}

/// A line of proc(5)'s `status` that has a bit for each signal.
fn signals_of_status(name: &str) -> Option<u64> {
    if !cfg!(any(target_os = "linux", target_os = "android")) {
        return None;
    }
    // Buffered: `fs::read` would begin with 32 bytes, since the file has no size.
    let status = BufReader::new(File::open("/proc/self/status").ok()?);
    let mut lines = status.split(b'\n').map_while(Result::ok);
    let mask = lines.find_map(|line| Some(line.strip_prefix(name.as_bytes())?.to_vec()))?;
    let mask = String::from_utf8(mask).ok()?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

fn is_in_own_group(pid: Pid) -> bool {
    rustix::process::getpgid(Some(pid)).is_ok_and(|group| group == rustix::process::getpgrp())
}
