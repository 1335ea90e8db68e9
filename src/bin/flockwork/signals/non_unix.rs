//! Handles Ctrl-C and Ctrl-Break on Windows, and puts the command into a job object.

use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[cfg(windows)]
use super::CANCEL;
use super::{LOSS_CHECKS, LossCheck};
use crate::exit::{Exit, Failure, Outcome};
use crate::job::{Job, exit_of};

/// How often a command with a time limit is checked for its end.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How long this process may take to release what it holds after Ctrl-C has ended its wait.
#[cfg(windows)]
const END_AFTER: Duration = Duration::from_secs(1);

/// The console sends Ctrl-C and Ctrl-Break to all attached processes. The command ends, and then
/// this process.
pub(crate) struct Signals {
    is_running: Arc<AtomicBool>,
    /// Ends the command and its children when this process ends, since they do not inherit the lock
    /// on Windows.
    #[cfg(windows)]
    job: win32job::Job,
    max_run: Option<Duration>,
    loss_check: Option<LossCheck>,
}

impl Signals {
    pub(crate) fn install() -> Result<Self, Failure> {
        let failed = |what: &str, why: &dyn std::fmt::Display| {
            Failure::new(Exit::System, format!("could not {what}: {why}"))
        };
        let is_running = Arc::new(AtomicBool::new(false));
        #[cfg(windows)]
        {
            let shared = Arc::clone(&is_running);
            let handler = move || {
                if shared.load(Ordering::SeqCst) {
                    return;
                }
                // The command does not run yet. This process releases what it holds.
                if let Some(cancel) = CANCEL.get() {
                    cancel.cancel();
                    std::thread::sleep(END_AFTER);
                }
                if !shared.load(Ordering::SeqCst) {
                    std::process::exit(Exit::Interrupted.code());
                }
            };
            ctrlc::set_handler(handler).map_err(|why| failed("handle Ctrl-C", &why))?;
        }
        #[cfg(windows)]
        let job = {
            let mut limits = win32job::ExtendedLimitInfo::new();
            limits.limit_kill_on_job_close();
            let job = win32job::Job::create_with_limit_info(&limits);
            let job = job.map_err(|why| failed("create a job object", &why))?;
            job.assign_current_process().map_err(|why| failed("enter a job object", &why))?;
            job
        };
        let _ = &failed;
        Ok(Self {
            is_running,
            #[cfg(windows)]
            job,
            max_run: None,
            loss_check: None,
        })
    }

    /// Sets the time after which a running command is ended.
    pub(crate) fn max_run(mut self, max_run: Option<Duration>) -> Self {
        self.max_run = max_run;
        self
    }

    /// Makes a running command end when the check returns `true`.
    pub(crate) fn end_on_loss(mut self, check: Option<LossCheck>) -> Self {
        self.loss_check = check;
        self
    }

    pub(crate) fn run(&self, job: &Job) -> Outcome {
        let child = self.start(job)?;
        self.finish(child)
    }

    #[expect(clippy::unused_self, reason = "same signature as on Unix")]
    pub(crate) fn exec(&self, _job: &Job) -> Failure {
        Failure::usage("lock: --no-fork is not supported on this system").hint("omit it")
    }

    pub(crate) fn start(&self, job: &Job) -> Result<Child, Failure> {
        #[cfg(windows)]
        if CANCEL.get().is_some_and(flockwork::Cancel::is_cancelled) {
            return Err(Failure::new(Exit::Interrupted, String::new()));
        }
        self.is_running.store(true, Ordering::SeqCst);
        job.spawn()
    }

    pub(crate) fn finish(&self, mut child: Child) -> Outcome {
        let deadline = self.max_run.and_then(|time| Instant::now().checked_add(time));
        let mut next_check = Instant::now();
        while deadline.is_some() || self.loss_check.is_some() {
            if !matches!(child.try_wait(), Ok(None)) {
                break;
            }
            let now = Instant::now();
            let mut ended_for = None;
            if deadline.is_some_and(|deadline| now >= deadline) {
                ended_for = Some(Exit::TimedOut);
            } else if let Some(is_lost) = self.loss_check.as_ref().filter(|_| now >= next_check) {
                next_check = now + LOSS_CHECKS;
                ended_for = is_lost().then_some(Exit::Lost);
            }
            if let Some(exit) = ended_for {
                let _ = child.kill();
                let _ = child.wait();
                return Ok(exit);
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        let status = child.wait().map_err(|error| {
            Failure::new(
                Exit::System,
                format!("could not get the exit status of the command: {error}"),
            )
        })?;
        Ok(exit_of(status))
    }
}

#[cfg(windows)]
impl Drop for Signals {
    /// Removes the limit at a regular end: processes that the command left running continue, and
    /// this process, which is in the job as well, keeps its own exit code.
    fn drop(&mut self) {
        let _ = self.job.set_extended_limit_info(&win32job::ExtendedLimitInfo::new());
    }
}

/// Has no effect, since Ctrl-C ends a process without a handler.
#[expect(clippy::unnecessary_wraps, reason = "same signature as on Unix")]
pub(crate) fn end_on_signals() -> Result<(), Failure> {
    Ok(())
}

/// The same for a verb that waits.
pub(crate) fn end_wait_on_signals() -> Result<(), Failure> {
    end_on_signals()
}

/// Has no effect, since only the exit code reports an interrupt.
pub(crate) fn die_by_signal(_exit: Exit) {}
