//! Signals that reach the command through us. They are blocked in all our threads from the first on, and one thread takes
//! them in: while nothing runs yet it lets them do what they do to any program; afterwards it passes them on.
//!
//! What is ignored stays ignored, by us and by the command: it may run under nohup(1), or in the background of a script.
//!
//! A program that is started inherits what is blocked, so while it is started nothing is, in the thread that does it. What
//! comes in at that moment is caught by handlers, and passed on afterwards.

#[cfg(unix)]
pub(crate) use on_unix::Signals;

#[cfg(not(unix))]
pub(crate) use elsewhere::Signals;

#[cfg(unix)]
mod on_unix {
    use std::fs::File;
    use std::io::{BufRead as _, BufReader};
    use std::process::Child;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

    use nix::sys::signal::{SigSet, Signal, raise};
    use rustix::process::Pid;

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

    pub(crate) struct Signals {
        stage: Arc<Mutex<Stage>>,
        set: SigSet,
        /// What the handlers caught. Empty where there are none.
        caught: Vec<(Signal, Arc<AtomicBool>)>,
    }

    impl Signals {
        /// To be called before any thread is started: they inherit what is blocked.
        pub(crate) fn take() -> Result<Self, Failure> {
            let failed = |why: &dyn std::fmt::Display| {
                Failure::new(Exit::System, format!("cannot watch for signals: {why}"))
            };
            let ignored = ignored();
            let is_ours = |signal: &Signal| {
                ignored.is_none_or(|mask| mask & (1 << (*signal as i32 - 1)) == 0)
            };
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
            let stage = Arc::new(Mutex::new(Stage::Waiting));
            let shared = Arc::clone(&stage);
            let source = Source::new(set).map_err(|error| failed(&error))?;
            let has_handlers = !caught.is_empty();
            std::thread::Builder::new()
                .name("flockwork-signals".into())
                .spawn(move || listen(&source, set, has_handlers, &shared))
                .map_err(|error| failed(&error))?;
            Ok(Self { stage, set, caught })
        }

        /// Runs it to its end.
        pub(crate) fn run(&self, job: &Job) -> Outcome {
            let child = self.start(job)?;
            self.finish(child)
        }

        /// What comes in meanwhile is for the command: it waits for this mutex.
        pub(crate) fn start(&self, job: &Job) -> Result<Child, Failure> {
            let mut stage = lock(&self.stage);
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
                    take_in(*signal, false, true, stage);
                }
            }
        }

        pub(crate) fn finish(&self, mut child: Child) -> Outcome {
            let stage = *lock(&self.stage);
            if let Stage::Running(pid) = stage {
                until_ended(pid);
            }
            *lock(&self.stage) = Stage::Ended;
            let status = child.wait().map_err(|error| {
                Failure::new(Exit::System, format!("cannot learn how the command ended: {error}"))
            })?;
            Ok(exit_of(status))
        }
    }

    /// Its number is its own until it has been asked for, and this does not ask.
    #[cfg(not(target_os = "openbsd"))]
    fn until_ended(pid: Pid) {
        use rustix::process::{WaitId, WaitIdOptions, waitid};
        let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while waitid(WaitId::Pid(pid), ended).is_err_and(|error| error == rustix::io::Errno::INTR) {
        }
    }

    /// rustix has no `waitid` there: a signal that comes at the very end may meet a number that is nobody's any more.
    #[cfg(target_os = "openbsd")]
    fn until_ended(_pid: Pid) {}

    fn lock(stage: &Mutex<Stage>) -> MutexGuard<'_, Stage> {
        stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn listen(source: &Source, set: SigSet, has_handlers: bool, stage: &Mutex<Stage>) {
        while let Next::Signal(signal, is_terminals) = source.next(set) {
            // While the command is being started, it may not be there to get it from the terminal.
            let (stage, is_terminals) = match stage.try_lock() {
                Ok(stage) => (stage, is_terminals),
                Err(_) => (lock(stage), false),
            };
            take_in(signal, is_terminals, has_handlers, *stage);
        }
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn listen(source: &Source, set: SigSet, has_handlers: bool, stage: &Mutex<Stage>) {
        while source.wait() {
            // Held on to: the command's number is its own for as long. And from before it is taken: what came before the
            // command was started must not be taken for something that it has got as well.
            let stage = lock(stage);
            match source.next(set) {
                Next::Signal(signal, is_terminals) => {
                    take_in(signal, is_terminals, has_handlers, *stage);
                }
                Next::Nothing => {}
                Next::End => return,
            }
        }
    }

    fn take_in(signal: Signal, is_terminals: bool, has_handlers: bool, stage: Stage) {
        match stage {
            Stage::Waiting => undergo(signal, has_handlers),
            Stage::Running(pid) => {
                // What the terminal says it says to all of the group that it listens to.
                let has_it_already = is_terminals && is_in_our_group(pid);
                if !has_it_already {
                    let _ = rustix::process::kill_process(pid, rustix_signal(signal));
                }
                if signal == Signal::SIGTSTP {
                    // Who watches us sees that the command has stopped.
                    let _ = raise(Signal::SIGSTOP);
                }
            }
            Stage::Ended => {}
        }
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

    fn rustix_signal(signal: Signal) -> rustix::process::Signal {
        use rustix::process::Signal as S;
        match signal {
            Signal::SIGINT => S::INT,
            Signal::SIGHUP => S::HUP,
            Signal::SIGQUIT => S::QUIT,
            Signal::SIGUSR1 => S::USR1,
            Signal::SIGUSR2 => S::USR2,
            Signal::SIGCONT => S::CONT,
            Signal::SIGTSTP => S::TSTP,
            _ => S::TERM,
        }
    }

    enum Next {
        /// With whether the terminal sent it.
        Signal(Signal, bool),
        /// Somebody else had it.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        Nothing,
        End,
    }

    /// Where the signals come from.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    struct Source(nix::sys::signalfd::SignalFd);

    #[cfg(any(target_os = "linux", target_os = "android"))]
    impl Source {
        fn new(set: SigSet) -> nix::Result<Self> {
            use nix::sys::signalfd::{SfdFlags, SignalFd};
            let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
            SignalFd::with_flags(&set, flags).map(Self)
        }

        /// Until there may be one.
        fn wait(&self) -> bool {
            use rustix::event::{PollFd, PollFlags, poll};
            loop {
                match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], None) {
                    Ok(_) => return true,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(_) => return false,
                }
            }
        }

        fn next(&self, _set: SigSet) -> Next {
            /// `SI_KERNEL`: sent by no process (sigaction(2)).
            const BY_THE_KERNEL: i32 = 0x80;
            match self.0.read_signal() {
                Ok(Some(info)) => {
                    let number = i32::try_from(info.ssi_signo).ok();
                    let signal = number.and_then(|number| Signal::try_from(number).ok());
                    signal.map_or(Next::End, |signal| {
                        Next::Signal(signal, info.ssi_code == BY_THE_KERNEL)
                    })
                }
                Ok(None) | Err(nix::errno::Errno::EINTR) => Next::Nothing,
                Err(_) => Next::End,
            }
        }
    }

    /// Other systems do not say who sent a signal, without code that is not checked. What can come from the terminal, while
    /// it listens to our group, is taken to.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    struct Source;

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    impl Source {
        #[expect(clippy::unnecessary_wraps, reason = "the other's signature")]
        fn new(_set: SigSet) -> nix::Result<Self> {
            Ok(Self)
        }

        #[expect(clippy::unused_self, reason = "the other's signature")]
        fn next(&self, set: SigSet) -> Next {
            let Ok(signal) = set.wait() else { return Next::End };
            let can_be = matches!(signal, Signal::SIGINT | Signal::SIGQUIT | Signal::SIGTSTP);
            let group = || {
                let terminal = std::fs::File::open("/dev/tty").ok()?;
                rustix::termios::tcgetpgrp(terminal).ok()
            };
            Next::Signal(signal, can_be && group() == Some(rustix::process::getpgrp()))
        }
    }
}

#[cfg(not(unix))]
mod elsewhere {
    use std::process::Child;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use crate::exit::{Exit, Failure, Outcome};
    use crate::job::{Job, exit_of};

    /// The console sends Ctrl-C and Ctrl-Break to all that are attached to it: the command ends, and so do we when it has.
    pub(crate) struct Signals {
        runs: Arc<AtomicBool>,
        /// Ends what was started when this process ends, in whatever way: Windows hands no lock on.
        #[cfg(windows)]
        job: win32job::Job,
    }

    impl Signals {
        pub(crate) fn take() -> Result<Self, Failure> {
            let failed = |what: &str, why: &dyn std::fmt::Display| {
                Failure::new(Exit::System, format!("cannot {what}: {why}"))
            };
            let runs = Arc::new(AtomicBool::new(false));
            #[cfg(windows)]
            {
                let shared = Arc::clone(&runs);
                let handler = move || {
                    if !shared.load(Ordering::SeqCst) {
                        std::process::exit(130); // nothing runs yet
                    }
                };
                ctrlc::set_handler(handler).map_err(|why| failed("watch for Ctrl-C", &why))?;
            }
            #[cfg(windows)]
            let job = {
                let mut limits = win32job::ExtendedLimitInfo::new();
                limits.limit_kill_on_job_close();
                let job = win32job::Job::create_with_limit_info(&limits);
                let job = job.map_err(|why| failed("make a job object", &why))?;
                job.assign_current_process().map_err(|why| failed("enter a job object", &why))?;
                job
            };
            let _ = &failed;
            Ok(Self {
                runs,
                #[cfg(windows)]
                job,
            })
        }

        pub(crate) fn run(&self, job: &Job) -> Outcome {
            let child = self.start(job)?;
            self.finish(child)
        }

        pub(crate) fn start(&self, job: &Job) -> Result<Child, Failure> {
            self.runs.store(true, Ordering::SeqCst);
            job.spawn()
        }

        pub(crate) fn finish(&self, mut child: Child) -> Outcome {
            let status = child.wait().map_err(|error| {
                Failure::new(Exit::System, format!("cannot learn how the command ended: {error}"))
            })?;
            // What it left running may go on: an orderly end is none of its business.
            #[cfg(windows)]
            {
                let _ = self.job.set_extended_limit_info(&win32job::ExtendedLimitInfo::new());
            }
            Ok(exit_of(status))
        }
    }
}
