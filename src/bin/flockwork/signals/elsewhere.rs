//! Where there are no signals: Ctrl-C and Ctrl-Break of the console, and a job object.

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
            Failure::new(Exit::System, format!("could not {what}: {why}"))
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
            Failure::new(Exit::System, format!("could not learn how the command ended: {error}"))
        })?;
        Ok(exit_of(status))
    }
}

#[cfg(windows)]
impl Drop for Signals {
    /// An orderly end, whatever the verb came to: what the command left running goes on, and this process, which is in the job
    /// as well, ends by itself and not by closing it.
    fn drop(&mut self) {
        let _ = self.job.set_extended_limit_info(&win32job::ExtendedLimitInfo::new());
    }
}

/// There a process that handles no signals ends by them.
#[expect(clippy::unnecessary_wraps, reason = "the other's signature")]
pub(crate) fn end_when_told() -> Result<(), Failure> {
    Ok(())
}

/// There a code is all that tells it.
pub(crate) fn interrupt() {}
