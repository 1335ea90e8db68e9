//! A second process: this test binary again, which does what it is told line by line on its standard
//! input and answers on its standard output. So a test is a dialogue, and needs no sleeps.

pub(crate) mod event;
pub(crate) mod rwlock;
pub(crate) mod semaphore;
pub(crate) mod shared_file;

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use flockwork::{Error, Lock, LockGuard, Options};

use crate::limit;
use crate::support::running::{Running, Start as _};

const ROLE: &str = "FLOCKWORK_IT_PEER";
/// How much sooner than the test's time limit a peer that does not answer is an error.
const MARGIN: Duration = Duration::from_secs(10);

pub(crate) struct Peer {
    child: Running,
    input: Option<ChildStdin>,
    answers: Receiver<String>,
}

impl Peer {
    pub(crate) fn start() -> Self {
        Self::start_as(Command::new(std::env::current_exe().unwrap()))
    }

    /// A peer that has opened `path` as its lock.
    pub(crate) fn with_lock(path: &Path) -> Self {
        let mut peer = Self::start();
        peer.expect(&format!("open\t{}", path.display()), "ok");
        peer
    }

    /// `command` ends with the program to run (a wrapper and this binary, or this binary alone).
    pub(crate) fn start_as(mut command: Command) -> Self {
        command.args(["peer::entry", "--exact", "--nocapture", "--test-threads=1"]).env(ROLE, "1");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // It ends on its own, should this process be killed.
        if let Some(remaining) = limit::remaining() {
            command.env(limit::SECONDS, (remaining.as_secs() + 60).to_string());
        }
        let mut child = command.start();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (send, answers) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // libtest writes "test peer::entry ... " before it without a line's end.
                if let Some((_, answer)) = line.split_once("peer: ") {
                    let _ = send.send(answer.to_string());
                }
            }
        });
        let input = child.stdin.take();
        Self { child, input, answers }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Tells it to open something, with these settings besides (see [`options`]) if there are any.
    pub(crate) fn open(&mut self, what: &str, settings: &str) {
        let settings = if settings.is_empty() { String::new() } else { format!("\t{settings}") };
        self.expect(&format!("{what}{settings}"), "ok");
    }

    pub(crate) fn tell(&mut self, command: &str) {
        writeln!(self.input.as_mut().unwrap(), "{command}").unwrap();
    }

    pub(crate) fn answer(&mut self) -> String {
        let answer = self.answer_or_death();
        answer.unwrap_or_else(|| panic!("peer {} has ended", self.id()))
    }

    /// `None`: it has ended instead.
    pub(crate) fn answer_or_death(&mut self) -> Option<String> {
        // Work that takes a second takes minutes on a busy machine.
        let patience = limit::remaining().unwrap_or(limit::LIMIT).saturating_sub(MARGIN);
        match self.answers.recv_timeout(patience) {
            Ok(answer) => Some(answer),
            Err(RecvTimeoutError::Timeout) => panic!("peer {} does not answer", self.id()),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    /// What it has said so far and was not listened to.
    pub(crate) fn has_answered(&mut self) -> Option<String> {
        self.answers.try_recv().ok()
    }

    pub(crate) fn ask(&mut self, command: &str) -> String {
        self.tell(command);
        self.answer()
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, command: &str, answer: &str) {
        assert_eq!(self.ask(command), answer, "to {command:?}");
    }

    /// What it may or may not have said when this was asked for.
    pub(crate) fn is_silent(&mut self) -> bool {
        self.has_answered().is_none()
    }

    /// SIGKILL, or `TerminateProcess`; returns when it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.input.take()); // it ends at the end of its input
        if !std::thread::panicking() {
            let _ = self.child.wait();
        } // else it is killed
    }
}

/// Where the second process begins. In the first one it is a test that has nothing to do.
#[test]
fn entry() {
    limit!();
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let mut state = State::default();
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split('\t').collect();
        say(&state.obey(&words));
    }
    std::process::exit(0);
}

pub(crate) fn say(answer: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "peer: {}", answer.replace('\n', " ")).unwrap();
    out.flush().unwrap();
}

#[derive(Default)]
struct State {
    permits: crate::peer::semaphore::State,
    markers: crate::peer::event::State,
    readers: crate::peer::rwlock::State,
    calls: crate::peer::shared_file::State,
    lock: Option<Lock>,
    guard: Option<LockGuard>,
    more: HashMap<String, Lock>,
}

impl State {
    fn obey(&mut self, words: &[&str]) -> String {
        match *words {
            ["open", path, ref settings @ ..] => match options(settings).open_lock(path) {
                Ok(lock) => {
                    self.lock = Some(lock);
                    "ok".into()
                }
                Err(error) => complaint(&error),
            },
            ["open-more", name, path] => match Lock::open(path) {
                Ok(lock) => {
                    self.more.insert(name.into(), lock);
                    "ok".into()
                }
                Err(error) => complaint(&error),
            },
            ["lock"] => self.hold(Lock::lock),
            ["try"] => self.hold(Lock::try_lock),
            ["timeout", ms] => {
                let timeout = Duration::from_millis(ms.parse().unwrap());
                self.hold(|lock| lock.lock_timeout(timeout))
            }
            ["async"] => self.hold(|lock| futures_lite::future::block_on(lock.lock_async())),
            ["unlock"] => match self.guard.take().unwrap().unlock() {
                Ok(()) => "ok".into(),
                Err(error) => complaint(&error),
            },
            ["drop"] => {
                self.guard = None;
                "ok".into()
            }
            ["abandoned"] => self.guard.as_ref().unwrap().abandoned().to_string(),
            ["holder"] => match self.lock().holder() {
                Ok(Some(holder)) => holder.to_string(),
                Ok(None) => "nobody".into(),
                Err(error) => complaint(&error),
            },
            ["is-held", path] => told(flockwork::is_held(path).map(|is_held| is_held.to_string())),
            ["is-held-at-once", path, times] => held_at_once(path, times.parse().unwrap()),
            ["held-slots", path] => {
                told(flockwork::held_slots(path).map(|slots| format!("{slots:?}")))
            }
            ["holders", path] => told(flockwork::holders(path).map(|holders| {
                holders.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
            })),
            ["path"] => self.lock().path().display().to_string(),
            ["chdir", path] => {
                std::env::set_current_dir(path).unwrap();
                "ok".into()
            }
            // Adds one to the number in a file, so many times, under the lock.
            ["count", file, times, way] => {
                for _ in 0..times.parse().unwrap() {
                    let guard = match way {
                        "lock" => self.lock().lock(),
                        "timeout" => self.lock().lock_timeout(Duration::from_secs(100)),
                        _ => futures_lite::future::block_on(self.lock().lock_async()),
                    };
                    let _guard = match guard {
                        Ok(guard) => guard,
                        Err(error) => return complaint(&error),
                    };
                    let number: u64 = std::fs::read_to_string(file).unwrap().parse().unwrap();
                    std::fs::write(file, (number + 1).to_string()).unwrap();
                }
                "ok".into()
            }
            // Another than the one that was started, where a wrapper starts it.
            ["pid"] => std::process::id().to_string(),
            ["descriptors"] => crate::support::descriptors().to_string(),
            #[cfg(target_os = "linux")]
            ["flags", path] => crate::support::flags_of(Path::new(path)),
            ["sem", ref words @ ..] => self.permits.obey(words),
            ["event", ref words @ ..] => self.markers.obey(words),
            ["rw", ref words @ ..] => self.readers.obey(words),
            ["once", ref words @ ..] => self.calls.once(words),
            ["file", ref words @ ..] => self.calls.file(words),
            #[cfg(unix)]
            ["plant", at, victim, until] => {
                crate::hostile::fixtures::plant_until(at.as_ref(), victim.as_ref(), until.as_ref())
            }
            #[cfg(unix)]
            ["fork", what] => self.fork(what),
            _ => format!("what is {words:?}?"),
        }
    }

    fn lock(&self) -> &Lock {
        self.lock.as_ref().expect("open comes first")
    }

    fn hold(&mut self, acquire: impl FnOnce(&Lock) -> Result<LockGuard, Error>) -> String {
        assert!(self.guard.is_none(), "drop comes first");
        match acquire(self.lock()) {
            Ok(guard) => {
                self.guard = Some(guard);
                "held".into()
            }
            Err(error) => complaint(&error),
        }
    }

    /// Forks without exec. The child does `what`, and ends when this process's other end of the pipe does.
    #[cfg(unix)]
    fn fork(&mut self, what: &str) -> String {
        match fork::fork().unwrap() {
            fork::Fork::Parent(child) => {
                if what == "stay" || what == "hold" {
                    return child.to_string();
                }
                format!("child {}", crate::support::ended(child).exit_status().unwrap())
            }
            fork::Fork::Child => {
                let code = match what {
                    "drop" => {
                        drop(self.guard.take());
                        0
                    }
                    "unlock" => i32::from(self.guard.take().unwrap().unlock().is_ok()),
                    // The handle came along, and must not be taken for the parent's own.
                    "try" => match self.lock().try_lock() {
                        Err(error) if error.is_would_block() => 0,
                        Err(_) => 1,
                        Ok(_) => 2,
                    },
                    "timeout" => match self.lock().lock_timeout(Duration::from_millis(20)) {
                        Err(error) if error.is_timed_out() => 0,
                        Err(_) => 1,
                        Ok(_) => 2,
                    },
                    "cycle" => match self.lock().try_lock() {
                        Ok(guard) => i32::from(guard.unlock().is_err()),
                        Err(_) => 2,
                    },
                    _ => {
                        if what == "hold" {
                            self.guard = Some(self.lock().try_lock().unwrap());
                            say("the child holds");
                        }
                        std::thread::sleep(limit::LIMIT);
                        3
                    }
                };
                std::process::exit(code)
            }
        }
    }
}

/// How often it is reported as held, of `times` calls by each of four threads.
fn held_at_once(path: &str, times: u32) -> String {
    let ask = || (0..times).filter(|_| flockwork::is_held(path).unwrap()).count();
    crate::support::running::scope(|scope| {
        let threads = [(); 4].map(|()| scope.spawn(ask));
        threads.map(|thread| thread.join().unwrap()).iter().sum::<usize>().to_string()
    })
}

pub(crate) fn options(settings: &[&str]) -> Options {
    settings.iter().fold(Options::new(), |options, setting| match setting.split_once('=') {
        Some(("label", label)) => options.label(label),
        Some(("backstop", seconds)) => {
            options.backstop(Duration::from_secs(seconds.parse().unwrap()))
        }
        Some(("fsync", yes)) => options.fsync(yes == "yes"),
        Some(("poll", ms)) => options.poll_every(Duration::from_millis(ms.parse().unwrap())),
        None if setting.is_empty() => options,
        None if *setting == "any-type" => options.any_file_type(true),
        _ => panic!("what is {setting}?"),
    })
}

/// A span in a command.
pub(crate) fn milliseconds(word: &str) -> Duration {
    Duration::from_millis(word.parse().unwrap())
}

/// What was done, or why it was not.
pub(crate) fn told(outcome: Result<String, Error>) -> String {
    outcome.unwrap_or_else(|error| complaint(&error))
}

/// An error as a test can tell it: its kind, and then its words.
pub(crate) fn complaint(error: &Error) -> String {
    let kind = match error {
        Error::WouldBlock { .. } => "would-block".to_string(),
        Error::TimedOut { .. } => "timed-out".to_string(),
        Error::NotRegularFile { .. } => "not-regular".to_string(),
        Error::Unsupported { .. } => "unsupported".to_string(),
        Error::CapacityMismatch { .. } => "mismatch".to_string(),
        Error::InvalidPermits { .. } => "invalid".to_string(),
        Error::Corrupt { .. } => "corrupt".to_string(),
        other => format!("{:?}", other.kind()),
    };
    format!("{kind}: {error}")
}
