//! Every system call fails once: each public operation runs while each of its system calls fails.
//! Afterwards this process checks all locks with plain `flock(2)`.
//!
//! `cargo test` tries a part of the faults, always the same. `FLOCKWORK_FAULTS=all` tries all of
//! them, and `FLOCKWORK_WRITE_FAULTS=1` then rewrites the table in `docs/RELIABILITY.md`.

mod attempt;
mod child;
#[cfg(feature = "cli")]
mod command;
mod limits;
mod operations;
mod report;

use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::sync::Mutex;

use self::attempt::{Fault, Manner, Outcome, Tried, attempt, counted};
use self::operations::{Failed, Operation, all, state_with};
use self::report::Report;

/// The child starts here. In an ordinary run this test does nothing.
#[test]
fn entry() {
    limit!();
    if let Ok(role) = std::env::var(child::ROLE) {
        child::run(&role);
    }
}

/// The system calls that fail, and the errors that each of them may return.
const CALLS: &[(&str, &[&str])] = &[
    ("flock", &["ENOLCK", "EINTR", "EIO", "EAGAIN", "EACCES"]),
    ("openat", &["EMFILE", "ENOSPC", "EACCES", "ENFILE", "EIO", "EINTR", "ENOMEM"]),
    ("open", &["EMFILE", "ENOSPC", "EACCES", "ENFILE", "EIO", "EINTR", "ENOMEM"]),
    ("rename", &["EIO", "ENOSPC", "EACCES"]),
    ("renameat", &["EIO", "ENOSPC", "EACCES"]),
    ("renameat2", &["ENOSPC", "EIO", "EACCES", "EPERM", "ENOSYS", "EINVAL", "EOPNOTSUPP"]),
    ("link", &["EIO", "ENOSPC", "EACCES"]),
    ("linkat", &["EIO", "ENOSPC", "EACCES"]),
    ("unlink", &["EACCES", "EIO"]),
    ("unlinkat", &["EACCES", "EIO"]),
    ("mkdir", &["ENOSPC", "EACCES", "EIO"]),
    ("mkdirat", &["ENOSPC", "EACCES", "EIO"]),
    ("write", &["ENOSPC", "EIO", "EINTR"]),
    ("pwrite64", &["ENOSPC", "EIO", "EINTR"]),
    ("ftruncate", &["EIO", "ENOSPC", "EINTR"]),
    ("fchmod", &["EIO", "EACCES", "EPERM", "ENOSYS", "EINVAL", "EOPNOTSUPP"]),
    ("fchmodat", &["EIO", "EACCES"]),
    ("chmod", &["EIO", "EACCES"]),
    ("fsync", &["EIO", "ENOSPC", "EPERM", "ENOSYS", "EINVAL", "EOPNOTSUPP"]),
    ("fdatasync", &["EIO", "ENOSPC", "EPERM", "ENOSYS", "EINVAL", "EOPNOTSUPP"]),
    ("utimensat", &["EIO", "EPERM", "ENOSYS"]),
    ("syncfs", &["EIO", "ENOSPC", "EPERM", "ENOSYS", "EINVAL", "EOPNOTSUPP"]),
    ("inotify_init1", &["EMFILE", "ENFILE", "ENOMEM"]),
    ("inotify_add_watch", &["ENOSPC", "EACCES", "ENOMEM"]),
    ("epoll_create1", &["EMFILE", "ENFILE", "ENOMEM"]),
    ("epoll_ctl", &["ENOSPC", "ENOMEM"]),
    ("eventfd2", &["EMFILE", "ENFILE", "ENOMEM"]),
    ("clone3", &["EAGAIN", "ENOMEM"]),
    ("clone", &["EAGAIN", "ENOMEM"]),
    ("statx", &["EACCES", "EIO", "ENOMEM"]),
    ("newfstatat", &["EIO", "EACCES", "ENOMEM"]),
    ("stat", &["EIO", "EACCES", "ENOMEM"]),
    ("lstat", &["EIO", "EACCES", "ENOMEM"]),
    ("fstat", &["EIO", "ENOMEM"]),
    ("faccessat2", &["EIO", "EACCES", "EPERM", "ENOSYS", "EINVAL", "EOPNOTSUPP"]),
    ("lgetxattr", &["EIO", "ENOMEM", "EPERM", "ENOSYS", "EOPNOTSUPP"]),
    ("llistxattr", &["EIO", "ENOMEM", "EPERM", "ENOSYS", "EOPNOTSUPP"]),
    ("fsetxattr", &["EIO", "ENOSPC", "EPERM", "ENOSYS", "EOPNOTSUPP"]),
    ("fremovexattr", &["EIO", "ENOSPC", "EPERM", "ENOSYS", "EOPNOTSUPP"]),
    ("statfs", &["EIO", "ENOMEM"]),
    ("fstatfs", &["EIO", "ENOMEM"]),
    ("read", &["EIO", "EINTR"]),
    ("getdents64", &["EIO", "ENOMEM"]),
    ("lseek", &["EIO"]),
    ("readlink", &["EACCES", "ENOMEM"]),
];

/// An operation succeeds without these calls if the system does not support them.
const OPTIONAL: &[&str] = &[
    "renameat2",
    "fsync",
    "fdatasync",
    "syncfs",
    "faccessat2",
    "lgetxattr",
    "llistxattr",
    "fsetxattr",
    "fremovexattr",
];
/// Writing a shared file succeeds without this call, too, and then grants fewer permissions.
const OPTIONAL_FOR_FILES: &str = "fchmod";

fn is_optional(operation: &str, fault: &Fault) -> bool {
    let Fault::Caller { call, error, .. } = fault else { return false };
    let is_unavailable = ["EPERM", "ENOSYS", "EINVAL", "EOPNOTSUPP"].contains(error);
    let of_files = call == OPTIONAL_FOR_FILES && operation.starts_with("SharedFile::");
    is_unavailable && (OPTIONAL.contains(&call.as_str()) || of_files)
}

/// The number of occurrences of a frequent call that are tested.
const MOST: usize = 12;
const WORKERS: usize = 4;

fn is_all() -> bool {
    std::env::var("FLOCKWORK_FAULTS").is_ok_and(|which| which == "all")
}

fn listed() -> &'static str {
    static LISTED: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    LISTED.get_or_init(|| {
        let calls = CALLS.iter().map(|(call, _)| format!("?{call}"));
        calls.chain(["readlink".into()]).collect::<Vec<_>>().join(",")
    })
}

/// Returns the faults to inject into an operation whose calls are known.
fn plan(operation: &Operation, plain: &Tried) -> Vec<Fault> {
    let (own, others) = counted(plain);
    let mut faults = Vec::new();
    for (call, errors) in CALLS {
        for (_, before, within) in own.iter().filter(|(made, _, _)| made == call) {
            for when in before + 1..=before + (*within).min(MOST) {
                faults.extend(errors.iter().map(|error| Fault::Caller {
                    call: (*call).into(),
                    error,
                    when,
                }));
            }
        }
        for (_, _, times) in others.iter().filter(|(made, ..)| made == call) {
            let most = (*times).min(MOST);
            // The thread that runs the operation makes these calls first, so that none of its own
            // calls fails.
            let is_own = own.iter().any(|(made, _, _)| made == call);
            let spend = if is_own { most } else { 0 };
            for when in 1..=most {
                faults.extend(errors.iter().map(|error| Fault::Helpers {
                    call: (*call).into(),
                    error,
                    when,
                    spend,
                }));
            }
        }
    }
    // The lock of a dead process's announcement: EAGAIN would mean that the process lives.
    let is_alive = |fault: &Fault| match fault {
        Fault::Caller { call, error, .. } => call == "flock" && *error == "EAGAIN",
        _ => false,
    };
    faults.retain(|fault| operation.failed != Failed::NothingOrCleared || !is_alive(fault));
    if is_all() {
        return faults;
    }
    let key = |fault: &Fault| match fault {
        Fault::Caller { call, when, .. } => (call.clone(), false, *when),
        Fault::Helpers { call, when, .. } => (call.clone(), true, *when),
        _ => unreachable!("planned"),
    };
    let is_fixed = |fault: &Fault| match fault {
        Fault::Caller { call, error, .. } => FIXED.contains(&(operation.name, call, error)),
        _ => false,
    };
    let mut part: Vec<_> = faults.iter().filter(|fault| is_fixed(fault)).cloned().collect();
    part.extend(a_part_of(operation.name, &faults, key));
    part
}

/// Faults that have exposed errors. They are tried in each run.
const FIXED: &[(&str, &str, &str)] = &[
    ("Event::consume", "newfstatat", "EIO"),
    ("Event::consume", "fstat", "EIO"),
    ("inspect", "openat", "EMFILE"),
    ("inspect", "newfstatat", "EIO"),
    ("inspect", "read", "EIO"),
    ("inspect, of a semaphore", "openat", "EMFILE"),
    ("inspect, of a semaphore", "statx", "EIO"),
    ("RwLock::holders", "statx", "EIO"),
    ("RwLock::holders", "openat", "EINTR"),
    ("Once::holders", "open", "EINTR"),
    ("Semaphore::open", "openat", "EINTR"),
    ("RwLockReadGuard::unlock, with a label", "ftruncate", "EIO"),
    ("Event::set_with", "fdatasync", "EINVAL"),
    ("Event::consume", "renameat2", "EPERM"),
    ("Event::clear, after a process died", "newfstatat", "ENOMEM"),
    ("Event::clear, after a process died", "unlink", "EIO"),
    ("Event::set_while_alive", "utimensat", "EPERM"),
    ("SharedFile::write", "fchmod", "EPERM"),
    ("SharedFile::write", "faccessat2", "EPERM"),
    ("SharedFile::write, with fsync", "fsync", "EOPNOTSUPP"),
    ("Once::call_once, with fsync", "fsync", "ENOSYS"),
    ("Once::call_once, with fsync", "syncfs", "ENOSYS"),
];

/// Selects one in five occurrences of each call, and one error for each. Consecutive `faults` with
/// the same key are one occurrence.
fn a_part_of<F: Clone, K: PartialEq + Hash>(
    name: &str,
    faults: &[F],
    key: impl Fn(&F) -> K,
) -> Vec<F> {
    let mut part = Vec::new();
    for of_one in faults.chunk_by(|one, other| key(one) == key(other)) {
        let mut hasher = DefaultHasher::new();
        (name, key(&of_one[0])).hash(&mut hasher);
        let (hash, errors) = (hasher.finish(), of_one.len() as u64);
        if hash / errors % 5 == 0 {
            part.push(of_one[usize::try_from(hash % errors).unwrap()].clone());
        }
    }
    part
}

/// Writes a table into the document if all faults were tried and `FLOCKWORK_WRITE_FAULTS` is set.
fn written(name: &str, text: impl Fn() -> String) {
    let is_wanted = std::env::var_os("FLOCKWORK_WRITE_FAULTS").is_some();
    if is_all() && is_wanted && std::env::var_os("FLOCKWORK_FAULTS_OF").is_none() {
        report::write(name, &text());
    }
}

/// Work that several threads share, and its results.
struct Sharing<W> {
    work: Mutex<Vec<W>>,
    report: Mutex<Report>,
    failures: Mutex<Vec<String>>,
}

impl<W: Send> Sharing<W> {
    fn new(work: impl Iterator<Item = W>) -> Self {
        let mut work: Vec<_> = work.collect();
        work.reverse();
        Self { work: work.into(), report: Mutex::default(), failures: Mutex::default() }
    }

    fn run(&self, each: impl Fn(&W) + Sync) {
        let next = || self.work.lock().unwrap().pop();
        crate::support::running::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(|| {
                    while let Some(work) = next() {
                        each(&work);
                    }
                });
            }
        });
    }

    fn fail(&self, failure: String) {
        self.failures.lock().unwrap().push(failure);
    }

    fn note(
        &self,
        place: usize,
        name: &str,
        call: &str,
        outcome: &Outcome,
        problems: &[String],
        how: impl Fn() -> String,
    ) {
        let is_bad = !problems.is_empty();
        self.report.lock().unwrap().add(place, name, call, outcome, is_bad);
        if is_bad {
            self.fail(format!("{name}, {}\n    {}", how(), problems.join("\n    ")));
        }
    }

    fn end(self, name: &str) {
        let report = self.report.into_inner().unwrap();
        written(name, || format!("{}\n{}", report::platform(), report.table()));
        let failures = self.failures.into_inner().unwrap();
        assert!(failures.is_empty(), "{} problems:\n{}", failures.len(), failures.join("\n"));
    }
}

/// Compares the result of an operation under a fault with its result without one.
fn judge(operation: &Operation, fault: &Fault, plain: &Tried, tried: &Tried) -> Vec<String> {
    let mut problems = tried.problems.clone();
    match &tried.outcome {
        Outcome::Ok(answer) => {
            if tried.outcome != plain.outcome && operation.at_least != Some(answer) {
                problems.push(format!("the answer is {answer:?}, not {:?}", plain.outcome));
            }
            if tried.after != plain.after {
                problems.push(format!(
                    "the directory contains {:?}, not {:?}",
                    tried.after, plain.after
                ));
            }
        }
        Outcome::Err { text, .. } if is_optional(operation.name, fault) => {
            problems.push(format!("the call is optional: {text}"));
        }
        Outcome::Err { kind, text, .. } => {
            let is_before = tried.after.is_empty()
                || tried.after == tried.before
                || plain.created.as_ref() == Some(&tried.after)
                || operation.failed == Failed::Broken && is_broken(&tried.after)
                || may_be_cleared(operation, tried);
            if !is_before && (operation.failed == Failed::Nothing || tried.after != plain.after) {
                problems.push(format!("the failed operation left {:?}", tried.after));
            }
            if let Some(problem) = judge_text(operation, fault, plain, kind, text) {
                problems.push(format!("{problem}: {kind}: {text}"));
            }
        }
        Outcome::Panic => problems.push("a panic".into()),
        Outcome::Killed(signal) => problems.push(format!("killed by signal {signal}")),
    }
    problems
}

/// Whether the state of the directory is that of a broken barrier.
fn is_broken(state: &[String]) -> bool {
    let one = |name: &str| state_with(name, "");
    state == one("it/broken.1.0") || state == one("it/broken.2.0")
}

/// Whether only the file of the event is missing, which did not count, and the operation may have
/// removed it.
fn may_be_cleared(operation: &Operation, tried: &Tried) -> bool {
    let before = tried.before.iter().map(|file| file.replace("it: Some(\"\")", "it: None"));
    operation.failed == Failed::NothingOrCleared && before.eq(tried.after.iter().cloned())
}

fn judge_text(
    operation: &Operation,
    fault: &Fault,
    plain: &Tried,
    kind: &str,
    text: &str,
) -> Option<&'static str> {
    if !text.contains("/d/") || !text.contains('`') {
        return Some("an error without a path");
    }
    let is_expected =
        matches!(&plain.outcome, Outcome::Err { kind: expected, .. } if expected == kind);
    match (kind, fault) {
        _ if is_expected => None,
        ("timed-out", _) => Some("an unexpected timeout"),
        // A try returns that the lock is held.
        ("would-block", Fault::Caller { call, error: "EAGAIN", .. }) if call == "flock" => {
            let tries = operation.name.contains("try_") || operation.name.contains("downgrade");
            (!tries).then_some("would block, although it waits")
        }
        ("would-block", _) => Some("an unexpected would-block error"),
        (
            "failed",
            Fault::Caller { error: "EINTR", .. } | Fault::Helpers { error: "EINTR", .. },
        ) => Some("a signal ended the operation"),
        _ if !text.starts_with("could not ") && !text.contains("cannot be locked") => {
            Some("the error does not name the operation")
        }
        (_, Fault::Caller { error, .. } | Fault::Helpers { error, .. })
            if *error != "EAGAIN" && !text.contains("; ") =>
        {
            Some("the error has no hint")
        }
        _ => None,
    }
}

/// Some systems permit tracing only child processes.
fn can_trace() -> bool {
    if !crate::support::has("strace", &["-V"]) {
        return false;
    }
    let first = attempt(&all()[0], &Fault::Listed(listed()), Manner::default());
    let refusal = first.problems.iter().find(|problem| problem.starts_with("strace: "));
    if let Some(refusal) = refusal {
        crate::support::left_out(refusal);
    }
    refusal.is_none()
}

#[test]
fn each_failed_system_call_is_an_error_or_compensated_for() {
    limit!(4 * crate::limit::LIMIT); // it starts thousands of processes
    if !can_trace() {
        return;
    }
    let only = std::env::var("FLOCKWORK_FAULTS_OF").unwrap_or_default();
    let operations = all().into_iter().enumerate();
    let sharing = Sharing::new(operations.filter(|(_, operation)| operation.name.contains(&only)));
    sharing.run(|(place, operation)| {
        let plain = attempt(operation, &Fault::Listed(listed()), Manner::default());
        if !plain.problems.is_empty() {
            return sharing.fail(format!("{}: {plain:#?}", operation.name));
        }
        for fault in plan(operation, &plain) {
            let tried = attempt(operation, &fault, Manner::default());
            let problems = judge(operation, &fault, &plain, &tried);
            if !tried.is_reached && problems.is_empty() {
                continue;
            }
            let (Fault::Caller { call, .. } | Fault::Helpers { call, .. }) = &fault else {
                continue;
            };
            sharing.note(*place, operation.name, call, &tried.outcome, &problems, || {
                format!("{fault}\n    {}\n    {:?}", tried.line, tried.outcome)
            });
        }
    });
    sharing.end("operations");
}
