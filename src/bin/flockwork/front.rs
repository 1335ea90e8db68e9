//! A process in front of this one, if a path is on a network file system whose server may not
//! respond. A process that waits for such a server may not be able to end, not even by SIGKILL
//! (Linux's `fs/fuse/dev.c`, `request_wait_answer`). So the front examines no path. It starts the
//! same command line again, forwards signals to it, and ends in its place.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use flockwork::_command::{has_network_mounts, leads_to_network};
use nix::sys::signal::{SigSet, SigmaskHow};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::args::{Cli, Verb};
use crate::event::EventVerb;
use crate::exit::{Exit, Failure, Outcome};
use crate::job::Job;
use crate::progress::seconds;
use crate::signals::Signals;
use crate::thread;
use crate::wait_args::{Limit, WaitArgs};

/// The variable with the descriptors of the two pipes and the front's process number.
const BEHIND: &str = "FLOCKWORK_BEHIND";
/// How long after its deadline a wait may take to return from the library.
const GRACE: Duration = Duration::from_millis(300);
/// How long `-n` may take.
const NOW: Duration = Duration::from_secs(1);
/// How long the process behind may take to end after it has said that it ends.
const END_AFTER: Duration = Duration::from_millis(50);
/// How long it may take to say so after a signal. It does within little more than a second, when it
/// has closed its output. If it were killed before and could not end, its output would stay open.
const SIGNAL_AFTER: Duration = Duration::from_secs(5);

/// The pipe to the front, in the process behind it.
static PIPE: OnceLock<File> = OnceLock::new();
/// Whether the command line waits.
static WAITS: AtomicBool = AtomicBool::new(false);
/// A pipe with one byte, in both processes. The thread that reads the byte decides how the wait
/// ends: it was successful, its time is over, or a signal ends it. So no command runs beside an end
/// by the other two.
static DECISION: OnceLock<File> = OnceLock::new();
/// Whether the process behind has decided that its wait is over.
static HAS_WAITED: AtomicBool = AtomicBool::new(false);
/// In the front, the process behind it.
static PROCESS_BEHIND: OnceLock<Pid> = OnceLock::new();
/// How the front ends. It is set before the process behind is killed, whose own end then says
/// nothing.
static ENDING: OnceLock<Ending> = OnceLock::new();

#[derive(Debug, Clone, Copy)]
enum Ending {
    Exits(i32),
    Dies(i32),
}

/// A message to the front: its kind, and the exit code or the number of the signal.
type Message = [u8; 5];
const EXITS: u8 = b'x';
const DIES: u8 = b'd';

/// Runs the command line in a process behind this one, if a path needs that. `None`: this process
/// is to run it.
pub(crate) fn run(cli: &Cli, words: &[OsString]) -> Option<Outcome> {
    let (paths, wait) = paths_and_wait(cli)?;
    let first = paths.iter().find(|path| leads_to_network(path));
    if first.is_none() && !(shows_all(cli) && has_network_mounts()) {
        return None;
    }
    if be_behind() {
        if let (Some(wait), Some(first)) = (wait, first) {
            end_at_deadline(*wait, first);
        }
        return None;
    }
    let (program, front) = (std::env::current_exe().ok()?, std::process::id());
    let (reading, writing) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).ok()?;
    let decision = new_decision().ok()?;
    let inherited = [writing, decision.try_clone().ok()?.into()];
    let _ = DECISION.set(decision);
    let [messages, decision] = inherited.each_ref().map(AsRawFd::as_raw_fd);
    let front = format!("{messages}:{decision}:{front}");
    let command = [program.into_os_string()].into_iter().chain(words[1..].iter().cloned());
    let command: Vec<_> = command.collect();
    let job = Job::new(&command).ok()?.with_environment(BEHIND, front);
    Some(run_behind(&job, reading, inherited))
}

/// Whether the command line shows everything that this user holds, anywhere.
fn shows_all(cli: &Cli) -> bool {
    matches!(&cli.verb, Verb::Status(arguments) if arguments.paths.is_empty())
}

/// The paths that a command line names, and how long it waits. `None` for a command line that
/// replaces this process or leaves one in the background.
fn paths_and_wait(cli: &Cli) -> Option<(Vec<PathBuf>, Option<&WaitArgs>)> {
    let one = |words: &[OsString]| words.first().map(PathBuf::from).into_iter().collect();
    Some(match &cli.verb {
        Verb::Lock(arguments) if !arguments.no_fork => {
            let end = arguments.words.iter().position(|word| word == "--").unwrap_or(1);
            let paths = arguments.words.iter().take(end.max(1)).map(PathBuf::from).collect();
            (paths, Some(&arguments.wait))
        }
        Verb::Sem(arguments) if !arguments.bg && arguments.id.is_none() => {
            (one(&arguments.words), Some(&arguments.wait).filter(|_| !arguments.only_resizes()))
        }
        Verb::Once(arguments) => (one(&arguments.words), Some(&arguments.wait)),
        Verb::Event(event) => match &event.verb {
            EventVerb::Wait(arguments) => (arguments.paths.clone(), Some(&arguments.wait)),
            EventVerb::Clear { paths } => (paths.clone(), None),
            EventVerb::Status { path } => (vec![path.clone()], None),
            EventVerb::Set(arguments) if arguments.pid.is_none() => {
                (vec![arguments.path.clone()], None)
            }
            EventVerb::Set(_) => return None,
        },
        Verb::Status(arguments) => (arguments.paths.clone(), None),
        _ => return None,
    })
}

/// A pipe with one byte and no writer, so that no read of it waits.
fn new_decision() -> std::io::Result<File> {
    let (reading, writing) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    File::from(writing).write_all(b"1")?;
    Ok(reading.into())
}

/// Whether no thread has decided how the wait ends.
fn is_undecided() -> bool {
    DECISION.get().is_some_and(|decision| events(decision, Duration::ZERO).contains(PollFlags::IN))
}

/// Whether it is this call that decides how the wait ends.
fn decide() -> bool {
    DECISION.get().is_some_and(|mut decision| matches!(decision.read(&mut [0]), Ok(1)))
}

// --------------------------------------------------------------------------- the process behind it

/// Whether this process is behind a front, with which it then ends. A variable that a job has
/// inherited names another process than its parent.
fn be_behind() -> bool {
    let Some(value) = std::env::var_os(BEHIND) else { return false };
    let numbers = value.to_str().unwrap_or_default().split(':').map(str::parse);
    let numbers: Vec<i32> = numbers.map_while(Result::ok).collect();
    let [messages, decision, front] = numbers[..] else { return false };
    let parent = rustix::process::getppid().map_or(0, |parent| parent.as_raw_nonzero().get());
    if front != parent {
        return false;
    }
    // The new descriptors are not inherited by the command.
    let reopen = |options: &mut OpenOptions, descriptor: i32| {
        let file = options.open(format!("/proc/self/fd/{descriptor}"));
        let _ = nix::unistd::close(descriptor);
        file
    };
    let pipe = reopen(File::options().write(true), messages);
    // Without the flag, this would wait for a writer.
    let nonblock = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let decision = reopen(File::options().read(true).custom_flags(nonblock), decision);
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    decision.is_ok_and(|decision| DECISION.set(decision).is_ok())
        && pipe.is_ok_and(|pipe| PIPE.set(pipe).is_ok())
}

/// Whether this process is behind a front.
pub(crate) fn is_behind() -> bool {
    PIPE.get().is_some()
}

/// The time that the library gives the server, if this process has a front: no limit, since the
/// deadline of a wait and signals end this process, and the end of a job waits until the server
/// says whether the lock was lost.
pub(crate) fn server_timeout() -> Option<Duration> {
    (is_behind() && WAITS.load(Ordering::SeqCst)).then_some(Duration::MAX)
}

/// Starts a thread that ends this process when the wait should have ended, although the main thread
/// waits for the server.
fn end_at_deadline(wait: WaitArgs, path: &Path) {
    let start = Instant::now();
    WAITS.store(true, Ordering::SeqCst);
    let deadline = match wait.limit() {
        Limit::Now => start + NOW,
        Limit::At(deadline) => deadline,
        Limit::Never => return,
    };
    let path = path.display().to_string();
    let end = move || {
        std::thread::sleep((deadline + GRACE).saturating_duration_since(Instant::now()));
        if !decide() {
            return;
        }
        if std::io::stderr().is_terminal() {
            let _ = std::io::stderr().write_all(b"\r\x1b[K"); // the live line
        }
        let waited = seconds(start.elapsed());
        let text = format!(
            "timed out after {waited} s waiting for `{path}`: the server of its file system did \
             not respond"
        );
        let failure = Failure::new(Exit::NotInTime, text);
        let code = wait.adjust(failure.hint("check the network and the file server")).report();
        report(EXITS, code.code());
        std::process::exit(code.code())
    };
    // The thread that receives signals is started later, and the other threads block them.
    let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK);
    let _ = thread::start("flockwork-deadline", end);
    if let Ok(mask) = mask {
        let _ = mask.thread_set_mask();
    }
}

/// Reports to the front how this process ends.
fn report(kind: u8, number: i32) {
    close_output();
    if let Some(mut pipe) = PIPE.get() {
        let [a, b, c, d] = number.to_le_bytes();
        let _ = pipe.write_all(&[kind, a, b, c, d]);
    }
}

/// Decides that the wait was successful. If it was decided that the wait ends otherwise, this
/// process ends now, and the call does not return.
pub(crate) fn has_waited() {
    if !is_behind() || HAS_WAITED.load(Ordering::SeqCst) {
        return;
    }
    while !decide() {
        std::thread::park();
    }
    HAS_WAITED.store(true, Ordering::SeqCst);
}

/// Reports to the front that this process exits.
pub(crate) fn exits(code: i32) {
    has_waited();
    report(EXITS, code);
}

/// Reports to the front that this process dies by a signal.
pub(crate) fn dies(signal: i32) {
    report(DIES, signal);
}

/// Another process may read until the output ends, and this one may not be able to end.
fn close_output() {
    if is_behind() {
        if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
            let _ = rustix::stdio::dup2_stdin(&null);
            let _ = rustix::stdio::dup2_stdout(&null);
            let _ = rustix::stdio::dup2_stderr(&null);
        }
    }
}

// --------------------------------------------------------------------------------------- the front

fn run_behind(job: &Job, reading: OwnedFd, inherited: [OwnedFd; 2]) -> Outcome {
    let failed = |error: std::io::Error| {
        Failure::new(Exit::System, format!("could not watch the wait: {error}"))
    };
    let signals = Signals::install()?;
    for descriptor in &inherited {
        // This process starts nothing else that could inherit the descriptor.
        let inherits = rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::empty());
        inherits.map_err(|error| failed(error.into()))?;
    }
    let child = signals.start(job)?;
    drop(inherited);
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = PROCESS_BEHIND.set(pid);
    }
    let watch = move || watch(reading.into());
    let started = thread::start("flockwork-front", watch);
    let watching = started.map_err(failed)?;
    let exit = signals.finish(child)?;
    // The last message may still be in the pipe.
    let _ = watching.join();
    match (ENDING.get(), exit) {
        (Some(ending), _) => end(*ending),
        // A signal ended the process before it could handle it.
        (None, Exit::Other(code)) if code > 128 => end(Ending::Dies(code - 128)),
        (None, exit) => Ok(exit),
    }
}

/// Ends this process if the one behind it says that it ends, and cannot.
fn watch(mut pipe: File) {
    let mut message = Message::default();
    // The pipe ends with the process behind.
    while pipe.read_exact(&mut message).is_ok() {
        let [kind, number @ ..] = message;
        let number = i32::from_le_bytes(number);
        let ending = if kind == EXITS { Ending::Exits(number) } else { Ending::Dies(number) };
        let _ = ENDING.set(ending);
        if events(&pipe, END_AFTER).is_empty() {
            end_both(ending);
        }
    }
}

/// Returns what happens on the pipe within this time: it has something to read, or it has ended.
fn events(pipe: &File, time: Duration) -> PollFlags {
    let deadline = Instant::now() + time;
    loop {
        let mut polled = [PollFd::new(pipe, PollFlags::IN)];
        let time = deadline.saturating_duration_since(Instant::now());
        match poll(&mut polled, Timespec::try_from(time).ok().as_ref()) {
            Err(Errno::INTR) => {}
            _ => return polled[0].revents(),
        }
    }
}

/// Called when a signal was forwarded. The process behind may be unable to handle it.
pub(crate) fn has_forwarded(signal: i32) {
    if PROCESS_BEHIND.get().is_none() || !is_undecided() {
        return;
    }
    let end = move || {
        std::thread::sleep(SIGNAL_AFTER);
        if decide() {
            end_both(Ending::Dies(signal));
        }
    };
    let _ = thread::start("flockwork-end", end);
}

/// Ends the process behind and this one.
fn end_both(ending: Ending) -> ! {
    let _ = ENDING.set(ending);
    if let Some(pid) = PROCESS_BEHIND.get() {
        let _ = kill_process(*pid, Signal::KILL);
    }
    end(ending)
}

fn end(ending: Ending) -> ! {
    std::process::exit(match ending {
        Ending::Exits(code) => code,
        Ending::Dies(signal) => {
            let _ = signal_hook::low_level::emulate_default_handler(signal);
            128 + signal
        }
    })
}
