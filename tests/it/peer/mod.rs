//! Peers: other processes that run this test binary, execute requests from their standard input and
//! answer on their standard output. A test is a dialogue with them and needs no sleeps.

// This module comes first because it defines a macro.
#[macro_use]
pub(crate) mod line;

pub(crate) mod barrier;
pub(crate) mod event;
pub(crate) mod lock;
pub(crate) mod once;
pub(crate) mod rwlock;
pub(crate) mod semaphore;
pub(crate) mod shared_file;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use flockwork::{Error, ErrorKind, Holder, Options, inspect};

use self::line::Words as _;
use crate::limit;
use crate::support::failure::{Failure, in_full};
use crate::support::running::{Running, Start as _};

const ROLE: &str = "FLOCKWORK_IT_PEER";
/// A peer must answer this long before the test's time limit.
const MARGIN: Duration = Duration::from_secs(10);

pub(crate) struct Peer {
    child: Running,
    input: Option<ChildStdin>,
    answers: Receiver<Answer>,
    /// Whether the child is strace, which leaves the program running when it is killed, and stopped
    /// if it was stopped.
    is_traced: bool,
}

impl Peer {
    pub(crate) fn start() -> Self {
        Self::start_as(Command::new(std::env::current_exe().unwrap()))
    }

    /// Starts a peer through `command`, which ends with the program to run (a wrapper and this
    /// binary, or this binary alone).
    pub(crate) fn start_as(mut command: Command) -> Self {
        command.args(["peer::entry", "--exact", "--nocapture", "--test-threads=1"]).env(ROLE, "1");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // The peer is ended by its own limit if this process is killed.
        if let Some(remaining) = limit::remaining() {
            command.env(limit::SECONDS, (remaining.as_secs() + 60).to_string());
        }
        let is_traced = command.get_program() == "strace";
        let mut child = command.start();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (send, answers) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // libtest writes "test peer::entry ... " without a line end first.
                if let Some((_, answer)) = line.split_once("peer: ") {
                    let _ = send.send(Answer::from_line(answer));
                }
            }
        });
        let input = child.stdin.take();
        Self { child, input, answers, is_traced }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a request. The answer comes later.
    pub(crate) fn begin(&mut self, request: impl Into<Request>) {
        writeln!(self.input.as_mut().unwrap(), "{}", request.into().to_line()).unwrap();
    }

    /// Waits for the answer to the request.
    pub(crate) fn answer(&mut self) -> Answer {
        let answer = self.answer_or_death();
        answer.unwrap_or_else(|| panic!("peer {} has ended", self.id()))
    }

    /// Returns the answer, or `None` if the peer has ended instead.
    pub(crate) fn answer_or_death(&mut self) -> Option<Answer> {
        // Work of a second takes minutes on a busy machine.
        let timeout = limit::remaining().unwrap_or(limit::LIMIT).saturating_sub(MARGIN);
        match self.answers.recv_timeout(timeout) {
            Ok(answer) => Some(answer),
            Err(RecvTimeoutError::Timeout) => panic!("peer {} does not answer", self.id()),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    /// Returns an answer that has already arrived.
    pub(crate) fn has_answered(&mut self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }

    pub(crate) fn is_silent(&mut self) -> bool {
        self.has_answered().is_none()
    }

    /// Waits for the answer, which must be a success, and returns its value.
    #[track_caller]
    pub(crate) fn finish(&mut self) -> String {
        let answer = self.answer();
        answer.unwrap_or_else(|error| panic!("peer {}: {error}", self.id()))
    }

    pub(crate) fn ask(&mut self, request: impl Into<Request>) -> Answer {
        self.begin(request);
        self.answer()
    }

    /// Sends a request that must succeed.
    #[track_caller]
    pub(crate) fn run(&mut self, request: impl Into<Request>) -> String {
        let request = request.into();
        let answer = self.ask(request.clone());
        answer.unwrap_or_else(|error| panic!("{request:?}: {error}"))
    }

    /// Sends a request that must return this value.
    #[track_caller]
    pub(crate) fn expect(&mut self, request: impl Into<Request>, value: impl std::fmt::Display) {
        let request = request.into();
        assert_eq!(self.run(request.clone()), value.to_string(), "{request:?}");
    }

    /// Sends a request that must fail. Returns the error: its kind, a colon and its message.
    #[track_caller]
    pub(crate) fn expect_error(&mut self, request: impl Into<Request>) -> String {
        let request = request.into();
        let answer = self.ask(request.clone());
        answer.expect_err(&format!("{request:?}"))
    }

    #[track_caller]
    pub(crate) fn expect_would_block(&mut self, request: impl Into<Request>) {
        let error = self.expect_error(request);
        assert!(error.starts_with("would-block: "), "{error}");
    }

    #[track_caller]
    pub(crate) fn expect_timed_out(&mut self, request: impl Into<Request>) {
        let error = self.expect_error(request);
        assert!(error.starts_with("timed-out: "), "{error}");
    }

    /// Kills the peer with SIGKILL or `TerminateProcess`, and waits until it has ended.
    pub(crate) fn kill(&mut self) {
        self.kill_traced();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn kill_traced(&self) {
        #[cfg(target_os = "linux")]
        if self.is_traced {
            let children = format!("/proc/{0}/task/{0}/children", self.id());
            let children = std::fs::read_to_string(children).unwrap_or_default();
            for pid in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
                let pid = rustix::process::Pid::from_raw(pid).unwrap();
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = self.is_traced;
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.kill_traced();
        }
        drop(self.input.take()); // The peer ends at the end of its input.
        if !std::thread::panicking() {
            let _ = self.child.wait();
        } // Dropping the child kills it otherwise.
    }
}

/// A peer starts here. In an ordinary run this test does nothing.
#[test]
fn entry() {
    limit!();
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let mut state = State::default();
    for line in std::io::stdin().lines() {
        send_answer(&state.obey(Request::from_line(&line.unwrap())));
    }
    std::process::exit(0);
}

/// Sends an answer that reports progress, before the last one.
pub(crate) fn report(text: &str) {
    send_answer(&Ok(text.into()));
}

fn send_answer(answer: &Answer) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "peer: {}", answer.to_line().replace('\n', " ")).unwrap();
    out.flush().unwrap();
}

/// The value that a request returned, as text, or the kind of the error, a colon and its message.
pub(crate) type Answer = Result<String, String>;

sendable! {
    /// A request to a peer.
    enum Request {
        Lock(call: lock::Call),
        RwLock(call: rwlock::Call),
        Semaphore(call: semaphore::Call),
        Event(call: event::Call),
        Once(call: once::Call),
        SharedFile(call: shared_file::Call),
        Barrier(call: barrier::Call),
        IsHeld(path: PathBuf),
        // Counts how often it is reported as held, in `times` calls by each of four threads.
        CountIsHeld(path: PathBuf, times: usize),
        HeldSlots(path: PathBuf),
        Holders(path: PathBuf),
        SetCurrentDir(path: PathBuf),
        // If a wrapper starts the peer, this is not the pid of the started program.
        ProcessId,
        CountDescriptors,
        #[cfg(target_os = "linux")]
        OpenFlags(path: PathBuf),
        #[cfg(unix)]
        SwapForLinks(at: PathBuf, victim: PathBuf, until: PathBuf),
    }
}

/// Converts the calls of each primitive into requests.
macro_rules! calls {
    ($($primitive:ident: $module:ident),+) => {$(
        impl From<$module::Call> for Request {
            fn from(call: $module::Call) -> Self {
                Self::$primitive(call)
            }
        }
    )+};
}

calls!(
    Lock: lock, RwLock: rwlock, Semaphore: semaphore,
    Event: event, Once: once, SharedFile: shared_file, Barrier: barrier
);

sendable! {
    /// The five forms of a call. Times are in milliseconds.
    #[derive(Copy, PartialEq)]
    enum Way {
        Block,
        Try,
        Timeout(milliseconds: u64),
        Deadline(milliseconds: u64),
        Async,
    }
}

impl Way {
    /// The forms that wait.
    pub(crate) const WAITING: [Self; 4] =
        [Self::Block, Self::Timeout(100_000), Self::Deadline(100_000), Self::Async];
}

sendable! {
    /// A setting of [`Options`].
    enum Setting {
        Label(label: String),
        BackstopSeconds(seconds: u64),
        Fsync,
        PollMilliseconds(milliseconds: u64),
        ServerTimeoutSeconds(seconds: u64),
        AnyFileType,
    }
}

/// Returns the setting of a label.
pub(crate) fn label(label: &str) -> Setting {
    Setting::Label(label.into())
}

/// A backstop so late that a lost notification shows as a wait that does not end. Windows' file
/// system events are not reliable enough (`docs/PLATFORMS.md`).
pub(crate) const LATE_BACKSTOP: &[Setting] =
    if cfg!(windows) { &[] } else { &[Setting::BackstopSeconds(1000)] };

/// How long a server of a test that responds may take on a busy machine.
pub(crate) const SLOW_SERVER: Duration = Duration::from_secs(60);

pub(crate) fn options(settings: &[Setting]) -> Options {
    let options = Options::new().server_timeout(SLOW_SERVER);
    settings.iter().fold(options, |options, setting| match setting {
        Setting::Label(label) => options.label(label),
        Setting::BackstopSeconds(seconds) => options.backstop(Duration::from_secs(*seconds)),
        Setting::Fsync => options.fsync(true),
        Setting::PollMilliseconds(ms) => options.poll_interval(Duration::from_millis(*ms)),
        Setting::ServerTimeoutSeconds(s) => options.server_timeout(Duration::from_secs(*s)),
        Setting::AnyFileType => options.any_file_type(true),
    })
}

#[derive(Default)]
struct State {
    lock: lock::State,
    rwlock: rwlock::State,
    semaphore: semaphore::State,
    event: event::State,
    once: once::State,
    shared_file: shared_file::State,
    barrier: barrier::State,
}

impl State {
    fn obey(&mut self, request: Request) -> Answer {
        match request {
            Request::Lock(call) => self.lock.obey(call),
            Request::RwLock(call) => self.rwlock.obey(call),
            Request::Semaphore(call) => self.semaphore.obey(call),
            Request::Event(call) => self.event.obey(call),
            Request::Once(call) => self.once.obey(call),
            Request::SharedFile(call) => self.shared_file.obey(call),
            Request::Barrier(call) => self.barrier.obey(call),
            Request::IsHeld(path) => text(inspect(path).map(|status| status.is_held())),
            Request::CountIsHeld(path, times) => Ok(count_is_held(&path, times).to_string()),
            Request::HeldSlots(path) => {
                text(inspect(path).map(|status| format!("{:?}", status.held_slots())))
            }
            Request::Holders(path) => {
                text(inspect(path).map(|status| describe_holders(status.holders())))
            }
            Request::SetCurrentDir(path) => {
                std::env::set_current_dir(path).unwrap();
                Ok(String::new())
            }
            Request::ProcessId => Ok(std::process::id().to_string()),
            Request::CountDescriptors => Ok(crate::support::descriptors().to_string()),
            #[cfg(target_os = "linux")]
            Request::OpenFlags(path) => Ok(crate::support::flags_of(&path)),
            #[cfg(unix)]
            Request::SwapForLinks(at, victim, until) => {
                Ok(crate::hostile::fixtures::plant_until(&at, &victim, &until))
            }
        }
    }
}

fn count_is_held(path: &Path, times: usize) -> usize {
    let ask = || (0..times).filter(|_| inspect(path).unwrap().is_held()).count();
    crate::support::running::scope(|scope| {
        let threads = [(); 4].map(|()| scope.spawn(ask));
        threads.map(|thread| thread.join().unwrap()).iter().sum()
    })
}

/// Formats the holders.
fn describe_holders(holders: &[Holder]) -> String {
    holders.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Returns the answer for a call that returns a value.
fn text<T: ToString>(outcome: Result<T, Error>) -> Answer {
    outcome.map(|value| value.to_string()).map_err(|error| describe(&error))
}

/// Returns the answer for a call that returns holders.
fn held_by(holders: Result<Vec<Holder>, Error>) -> Answer {
    text(holders.map(|holders| match holders.as_slice() {
        [] => "none".into(),
        holders => describe_holders(holders),
    }))
}

/// Returns the answer for a call that returns nothing.
fn done(outcome: Result<(), Error>) -> Answer {
    text(outcome.map(|()| ""))
}

/// Returns the answer for a call that runs a closure.
fn called<T: ToString>(outcome: Result<T, Failure<String>>) -> Answer {
    match outcome {
        Ok(value) => Ok(value.to_string()),
        Err(Failure::Closure(error)) => Err(format!("closure: {error}")),
        Err(Failure::Flockwork(error)) => Err(describe(&error)),
    }
}

/// Formats an error for the answer: its kind and its full text.
fn describe(error: &Error) -> String {
    let kind = match (error.kind(), error.io_error()) {
        (ErrorKind::WouldBlock, _) => "would-block".to_string(),
        (ErrorKind::TimedOut, _) => "timed-out".to_string(),
        (ErrorKind::NotRegularFile, _) => "not-regular".to_string(),
        (ErrorKind::Unsupported, _) => "unsupported".to_string(),
        (ErrorKind::CapacityMismatch, _) => "mismatch".to_string(),
        (ErrorKind::InvalidPermits, _) => "invalid".to_string(),
        (ErrorKind::Broken, _) => "broken".to_string(),
        (ErrorKind::Corrupt, _) => "corrupt".to_string(),
        (ErrorKind::NotFound | ErrorKind::Io, Some(source)) => format!("{:?}", source.kind()),
        (other, _) => format!("{other:?}"),
    };
    format!("{kind}: {}", in_full(error))
}
