//! A time limit for each test, whose first line is `limit!();`. When a test exceeds its limit, a
//! watchdog thread prints what each thread waits for, kills the processes that the tests started,
//! and ends the process.

use std::cell::Cell;
use std::fmt::Write as _;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The default limit of a test. The slowest test takes 10 s on two idle cores, and 100 s when 30
/// processes compete for them.
pub(crate) const LIMIT: Duration = Duration::from_secs(300);

/// The threads of a panicked test have this long to end.
pub(crate) const AFTER_A_PANIC: Duration = Duration::from_secs(30);

/// The exit code of a process that the watchdog ends, which is also that of timeout(1).
pub(crate) const CODE: i32 = 124;

/// The limit of every test in seconds, which replaces their own limits. Zero means no limit, for
/// debuggers and emulators.
pub(crate) const SECONDS: &str = "FLOCKWORK_TEST_LIMIT";

/// A file to which each test appends its duration in seconds. `ci/slowest.sh` reads it.
pub(crate) const TIMES: &str = "FLOCKWORK_TEST_TIMES";

/// Limits the time of the test or function that begins with it to five minutes, or to the given
/// time.
macro_rules! limit {
    () => {
        limit!($crate::limit::LIMIT);
    };
    ($limit:expr) => {
        let _limit = $crate::limit::Limit::start(std::any::type_name_of_val(&|| ()), $limit);
    };
}

/// A running test. Dropping this value ends the limit.
pub(crate) struct Limit {
    number: u64,
    process: u32,
}

struct Test {
    number: u64,
    name: &'static str,
    start: Instant,
    /// `None` means no limit.
    end: Option<Instant>,
}

struct Watched {
    tests: Vec<Test>,
    /// The number of tests that have begun so far.
    begun: u64,
    /// The process that has a watchdog. A forked child has none.
    process: u32,
    /// The messages of the last panics. libtest captures them until the test has ended.
    panics: Vec<String>,
}

static WATCHED: Mutex<Watched> =
    Mutex::new(Watched { tests: Vec::new(), begun: 0, process: 0, panics: Vec::new() });
static CHANGED: Condvar = Condvar::new();

thread_local! {
    /// The test that runs in this thread.
    static CURRENT: Cell<Option<u64>> = const { Cell::new(None) };
}

fn watched() -> MutexGuard<'static, Watched> {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Limit {
    /// Starts the limit of a function. `place` is the name of a closure in that function.
    pub(crate) fn start(place: &'static str, limit: Duration) -> Self {
        let function = place.split("::{{closure}}").next().unwrap_or(place);
        let name = function.split_once("::").map_or(function, |(_crate, name)| name);
        let seconds = std::env::var(SECONDS).ok().and_then(|seconds| seconds.parse().ok());
        let limit = seconds.map_or(limit, Duration::from_secs);
        let start = Instant::now();
        let end = if limit.is_zero() { None } else { start.checked_add(limit) };
        let process = std::process::id();
        let mut watched = watched();
        if watched.process != process {
            // Some tests start peers that cannot create threads.
            let watchdog = std::thread::Builder::new().name("limit".into()).spawn(watch);
            if watchdog.is_ok() {
                watched.process = process;
                let hook = std::panic::take_hook();
                std::panic::set_hook(Box::new(move |panic| {
                    remember(panic, process);
                    hook(panic);
                }));
            }
        }
        watched.begun += 1;
        let number = watched.begun;
        watched.tests.push(Test { number, name, start, end });
        drop(watched);
        CURRENT.set(Some(number));
        CHANGED.notify_all();
        Self { number, process }
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        CURRENT.set(None);
        // A forked child has a copy of the parent's test on its stack, and the mutex may stay
        // locked forever.
        if self.process != std::process::id() {
            return;
        }
        let mut watched = watched();
        let place = watched.tests.iter().position(|test| test.number == self.number);
        let test = place.map(|place| watched.tests.swap_remove(place));
        drop(watched);
        if let (Some(test), Ok(file)) = (test, std::env::var(TIMES)) {
            let line = format!("{:.3} {}\n", test.start.elapsed().as_secs_f64(), test.name);
            let file = std::fs::File::options().append(true).create(true).open(file);
            let _ = file.and_then(|mut file| std::io::Write::write_all(&mut file, line.as_bytes()));
        }
    }
}

/// Changes the end of the test that runs in this thread.
fn change(change: impl FnOnce(Instant) -> Instant) {
    let Some(number) = CURRENT.get() else { return };
    let mut watched = watched();
    if let Some(test) = watched.tests.iter_mut().find(|test| test.number == number) {
        test.end = test.end.map(change);
    }
    drop(watched);
    CHANGED.notify_all();
}

/// Returns the test that runs in this thread, for [`join`].
pub(crate) fn current() -> Option<u64> {
    CURRENT.get()
}

/// Makes this thread part of that test.
pub(crate) fn join(test: Option<u64>) {
    CURRENT.set(test);
}

/// Extends the limit of the test that runs in this thread.
pub(crate) fn extend(by: Duration) {
    change(|end| end + by);
}

/// Shortens the limit of the test that runs in this thread, because it has panicked.
pub(crate) fn hurry() {
    let soon = Instant::now() + AFTER_A_PANIC;
    change(|end| end.min(soon));
}

/// Returns the remaining time of the test that runs in this thread.
pub(crate) fn remaining() -> Option<Duration> {
    let number = CURRENT.get()?;
    let end = watched().tests.iter().find(|test| test.number == number)?.end?;
    Some(end.saturating_duration_since(Instant::now()))
}

fn remember(panic: &std::panic::PanicHookInfo<'_>, process: u32) {
    if std::process::id() != process {
        return;
    }
    let thread = std::thread::current();
    let mut watched = watched();
    if watched.panics.len() == 10 {
        watched.panics.remove(0);
    }
    watched.panics.push(format!("thread {:?}: {panic}", thread.name().unwrap_or_default()));
}

/// Runs the watchdog.
fn watch() {
    let mut watched = watched();
    loop {
        let now = Instant::now();
        let first = watched.tests.iter().filter_map(|test| test.end).min();
        let Some(end) = first else {
            watched = CHANGED.wait(watched).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        if now < end {
            let woken = CHANGED.wait_timeout(watched, end - now);
            watched = woken.unwrap_or_else(PoisonError::into_inner).0;
            continue;
        }
        let mut report = String::new();
        for test in watched.tests.iter().filter(|test| test.end.is_some_and(|end| end <= now)) {
            let seconds = test.start.elapsed().as_secs_f64();
            let name = test.name;
            let _ =
                writeln!(report, "\n{name} exceeded its time limit: it has run for {seconds:.1} s");
        }
        for panic in &watched.panics {
            let _ = writeln!(report, "panicked before: {panic}");
        }
        // The mutex stays locked. A test that waits for one of the killed processes needs it to
        // end, and must not end as passed.
        let processes = family(std::process::id());
        for process in &processes {
            report.push_str(&describe(*process));
        }
        // libtest would capture the output of `eprint`.
        let _ = std::io::Write::write_all(&mut std::io::stderr(), report.as_bytes());
        processes.into_iter().skip(1).for_each(kill_family);
        std::process::exit(CODE);
    }
}

/// Returns a process and its descendants. On systems other than Linux it returns that process
/// alone, and peers are ended by their own limits.
#[cfg(target_os = "linux")]
fn family(process: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // "1234 (a name) S 1 ...": the name may contain blanks and parentheses.
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split(' ').nth(2)?.parse().ok());
        parents.extend(parent.map(|parent: u32| (process, parent)));
    }
    let mut found = vec![process];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(process, _)| process));
        next += 1;
    }
    found
}

#[cfg(not(target_os = "linux"))]
fn family(process: u32) -> Vec<u32> {
    vec![process]
}

/// Describes what each thread of a process waits for, as far as the system shows it.
#[cfg(target_os = "linux")]
fn describe(process: u32) -> String {
    let proc = std::path::PathBuf::from(format!("/proc/{process}"));
    let read = |path: &std::path::Path| {
        let text = std::fs::read(path).unwrap_or_default();
        String::from_utf8_lossy(&text).replace('\0', " ").trim().to_string()
    };
    let mut text = format!("process {process}: {}\n", read(&proc.join("cmdline")));
    for task in std::fs::read_dir(proc.join("task")).into_iter().flatten().flatten() {
        let task = task.path();
        let [name, place, call] = ["comm", "wchan", "syscall"].map(|file| read(&task.join(file)));
        // "73 0x5 0x2 ...": the first argument is often a descriptor.
        let first = call.split(' ').nth(1).and_then(|word| word.strip_prefix("0x"));
        let descriptor = first.and_then(|word| u32::from_str_radix(word, 16).ok());
        let file = descriptor
            .and_then(|descriptor| std::fs::read_link(proc.join(format!("fd/{descriptor}"))).ok());
        let file = file.map(|file| format!(" on {}", file.display())).unwrap_or_default();
        let thread = task.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let _ = writeln!(text, "    thread {thread} {name}: in {place}, system call {call}{file}");
    }
    text
}

#[cfg(not(target_os = "linux"))]
fn describe(_process: u32) -> String {
    String::new()
}

/// Kills a process and its descendants. A program started by strace, sh or unshare would outlive
/// them.
#[cfg(target_os = "linux")]
pub(crate) fn kill_family(process: u32) {
    use rustix::process::{Pid, Signal, kill_process};
    let send = |process: &u32, signal| {
        let process = i32::try_from(*process).ok().and_then(Pid::from_raw);
        let _ = process.map(|process| kill_process(process, signal));
    };
    // A stopped process cannot start another one.
    let mut stopped = Vec::new();
    loop {
        let new: Vec<u32> =
            family(process).into_iter().filter(|process| !stopped.contains(process)).collect();
        if new.is_empty() {
            break;
        }
        for process in &new {
            send(process, Signal::STOP);
        }
        stopped.extend(new);
    }
    for process in &stopped {
        send(process, Signal::KILL);
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn kill_family(_process: u32) {}
