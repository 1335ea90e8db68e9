//! `flockwork sem --wait`: waits for the jobs that hold or request permits when it starts.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use flockwork::{Holder, Options, Status, inspect};

use super::group::Group;
use super::jobs;
use crate::exit::{Exit, Failure, Outcome, WAIT};
use crate::progress::{Progress, seconds};
use crate::signals;
use crate::wait_args::{Limit, WaitArgs};

/// How often the slots are checked of holders that have no file in `jobs`: users of the library,
/// and jobs of users who may not create one. The interval grows from the first to the second.
const POLL_INTERVALS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

/// Waits, and then counts the failed jobs of the group.
pub(crate) fn run(wait: &WaitArgs, path: &Path, subject: &str, group: &Group) -> Outcome {
    if !path.try_exists().unwrap_or(true) {
        return Ok(Exit::Success); // the semaphore was never used
    }
    let progress = wait.progress(subject).after(super::DELAY);
    signals::end_wait_on_signals()?;
    let semaphore = Options::new().open_existing_semaphore(path)?;
    super::refuse_deadlock(&semaphore, semaphore.capacity()?, true)?;
    // In this order, a job that acquires a permit in between is in one of the two.
    let files = jobs::list(path);
    let mut slots = Slots::of(&inspect(path)?);
    wait.run(&progress, wait.limit(), |limit| {
        let options = progress.attach(Options::new().create(false));
        for file in &files {
            wait_for_job(&options, file, limit).map_err(|failure| match failure {
                Some(failure) => failure,
                None => in_use(path, &progress, limit),
            })?;
        }
        slots.wait(path, &progress, limit)
    })?;
    progress.ended(&format!("all earlier jobs of `{}` have ended", path.display()));
    let failures = jobs::count_failures(&files, group).min(jobs::MAX_FAILURES);
    let failures = i32::try_from(failures).unwrap_or(i32::MAX);
    Ok(if failures == 0 { Exit::Success } else { Exit::Other(failures) })
}

/// Waits until the file of the job is unlocked. `None` is the error if it is not in time.
fn wait_for_job(options: &Options, file: &PathBuf, limit: Limit) -> Result<(), Option<Failure>> {
    let waited = options.open_lock(file).and_then(|lock| match limit {
        Limit::Now => lock.try_lock(),
        Limit::Never => lock.lock(),
        Limit::At(deadline) => lock.lock_deadline(deadline),
    });
    match waited {
        Ok(_) => Ok(()),
        Err(error) if jobs::is_gone(&error) => Ok(()),
        Err(error) if error.is_would_block() || error.is_timed_out() => Err(None),
        Err(error) => Err(Some(error.into())),
    }
}

/// The error if jobs are still running.
fn in_use(path: &Path, progress: &Progress, limit: Limit) -> Failure {
    let holders = inspect(path).map(|status| status.holders().to_vec()).unwrap_or_default();
    let path = path.display();
    let text = match limit {
        Limit::Now => format!("`{path}` is in use"),
        _ => format!("`{path}` was still in use after {} s", seconds(progress.waited())),
    };
    Failure::new(Exit::NotInTime, text).hint(WAIT).held_by(holders)
}

/// The slots that were held at the start of the wait, and have not been seen free since.
struct Slots {
    held: Vec<(u32, Option<Holder>)>,
    start: SystemTime,
}

impl Slots {
    fn of(status: &Status) -> Self {
        let held = status.held_slots().iter().map(|slot| (*slot, holder_of(*slot, status)));
        Self { held: held.collect(), start: SystemTime::now() }
    }

    /// Forgets the slots that are free, or have another holder than at the start.
    fn update(&mut self, status: &Status) {
        let start = self.start;
        self.held.retain_mut(|(slot, first)| {
            if !status.held_slots().contains(slot) {
                return false;
            }
            match (&first, holder_of(*slot, status)) {
                (_, None) => true,
                (Some(first), Some(holder)) => is_same(first, &holder),
                (None, Some(holder)) => {
                    let is_new = holder.since().is_some_and(|since| since > start);
                    *first = Some(holder);
                    !is_new
                }
            }
        });
    }

    fn wait(&mut self, path: &Path, progress: &Progress, limit: Limit) -> Result<(), Failure> {
        let (mut interval, longest) = POLL_INTERVALS;
        let mut shown = Instant::now();
        loop {
            let status = inspect(path)?;
            self.update(&status);
            if self.held.is_empty() {
                return Ok(());
            }
            let remaining = limit.timeout().unwrap_or(Duration::MAX);
            if remaining.is_zero() {
                return Err(in_use(path, progress, limit));
            }
            if shown.elapsed() >= crate::progress::INTERVAL {
                shown = Instant::now();
                progress.show_holders(status.holders());
            }
            std::thread::sleep(interval.min(remaining));
            interval = (interval * 3 / 2).min(longest);
        }
    }
}

fn holder_of(slot: u32, status: &Status) -> Option<Holder> {
    status.holders().iter().find(|holder| holder.slot() == Some(slot)).cloned()
}

/// Whether the slot was not released between the two. The process may be another one: if the
/// recorded holder has ended, that is a process which inherited the permit.
fn is_same(first: &Holder, later: &Holder) -> bool {
    match (first.since(), later.since()) {
        (Some(first), Some(later)) => first == later,
        _ => first.pid() == later.pid() && first.pid_namespace() == later.pid_namespace(),
    }
}
