//! One attempt: starts a child, injects a fault into it, and checks the files and locks afterwards.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use crate::peer::line::Words as _;

use super::child::{MARK, Order, PREFIX, ROLE, Reply};
use super::operations::{Meanwhile, Operation, state_of, state_with};

/// A child that takes longer hangs.
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);

/// The fault of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    Nothing,
    /// No fault; the attempt lists all system calls.
    Listed(&'static str),
    /// A system call fails in the thread that runs the operation.
    Caller {
        call: String,
        error: &'static str,
        when: usize,
    },
    /// A system call fails in each other thread.
    Helpers {
        call: String,
        error: &'static str,
        when: usize,
        spend: usize,
    },
    /// A resource limit of the child is reached.
    Limit {
        resource: &'static str,
        room: u64,
    },
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing | Self::Listed(_) => f.write_str("nothing"),
            Self::Caller { call, error, when } => write!(f, "{call}:error={error}:when={when}"),
            Self::Helpers { call, error, when, .. } => {
                write!(f, "{call}:error={error}:when={when} of helper threads")
            }
            Self::Limit { resource, room } => {
                write!(f, "limit of {resource}, with room for {room}")
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Ok(String),
    Err {
        kind: String,
        number: Option<i32>,
        text: String,
    },
    Panic,
    /// The signal that killed the child.
    Killed(i32),
}

impl Outcome {
    fn of(reply: Reply) -> Self {
        match reply {
            Reply::Ok(answer) => Self::Ok(answer),
            Reply::Err(kind, number, text) => {
                Self::Err { kind, number: (number != 0).then_some(number), text }
            }
            _ => Self::Panic,
        }
    }

    pub(super) fn is_ok(&self) -> bool {
        matches!(self, Self::Ok(_))
    }
}

/// The result of an attempt.
#[derive(Debug)]
pub(super) struct Tried {
    /// Whether the fault occurred at all.
    pub(super) is_reached: bool,
    pub(super) outcome: Outcome,
    pub(super) before: Vec<String>,
    pub(super) after: Vec<String>,
    /// What the other process created, as it was before the operation changed it.
    pub(super) created: Option<Vec<String>>,
    /// Everything that was wrong.
    pub(super) problems: Vec<String>,
    /// The trace, the id of the thread that ran the operation, and the line of the fault.
    pub(super) log: String,
    pub(super) thread: String,
    pub(super) line: String,
}

/// How to start a child.
#[derive(Clone, Copy, Default)]
pub(super) struct Manner<'a> {
    /// A command that runs the child, with its arguments.
    pub(super) through: &'a [&'a str],
    /// A copy of this binary, which an ordinary user runs instead.
    pub(super) unprivileged: Option<&'a Path>,
}

struct Running {
    child: Child,
    input: Option<ChildStdin>,
    reply: Receiver<Reply>,
}

impl Running {
    fn start(operation: &Operation, root: &Path, manner: Manner<'_>) -> Self {
        use std::os::unix::process::CommandExt as _;
        let own = std::env::current_exe().unwrap();
        let binary = manner.unprivileged.unwrap_or(&own);
        let mut command = match manner.through {
            [] => Command::new(binary),
            [wrapper, arguments @ ..] => {
                let mut command = Command::new(wrapper);
                command.args(arguments).arg(binary);
                command
            }
        };
        if manner.unprivileged.is_some() && rustix::process::geteuid().is_root() {
            command.uid(65534).gid(65534);
        }
        command
            .args(["faults::entry", "--exact", "--nocapture", "--test-threads=1"])
            .env(ROLE, format!("{}{}", operation.name, root.join("d").display()))
            .env_remove("RUST_BACKTRACE")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(root.join("stderr")).unwrap());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (send, reply) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // libtest writes "test faults::entry ... " without a line end first.
                if let Some((_, reply)) = line.split_once(PREFIX) {
                    let _ = send.send(Reply::from_line(reply));
                }
            }
        });
        let input = child.stdin.take();
        Self { child, input, reply }
    }

    fn send(&mut self, order: &Order) {
        let _ = writeln!(self.input.as_mut().unwrap(), "{}", order.to_line());
    }

    fn receive(&mut self) -> Result<Reply, String> {
        use std::sync::mpsc::RecvTimeoutError;
        match self.reply.recv_timeout(REPLY_TIMEOUT) {
            Ok(reply) => Ok(reply),
            Err(RecvTimeoutError::Timeout) => Err(format!("hangs\n{}", self.dump())),
            Err(RecvTimeoutError::Disconnected) => Err("ended".into()),
        }
    }

    fn ask(&mut self, order: &Order) -> Result<Reply, String> {
        self.send(order);
        self.receive().map_err(|problem| format!("the child {problem} at {order:?}"))
    }

    fn tasks(&self) -> Vec<PathBuf> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id()));
        tasks.map(|tasks| tasks.flatten().map(|task| task.path()).collect()).unwrap_or_default()
    }

    /// Describes what each thread of the child does.
    fn dump(&self) -> String {
        use std::fmt::Write as _;
        let mut dump = String::new();
        for task in self.tasks() {
            for file in ["comm", "wchan", "syscall", "stack"] {
                let found = std::fs::read_to_string(task.join(file)).unwrap_or_default();
                let _ = writeln!(dump, "{}/{file}: {}", task.display(), found.trim());
            }
        }
        dump
    }

    /// Returns how many context switches the child's threads had, or `None` if any of them runs or
    /// is stopped.
    fn is_asleep(&self) -> Option<u64> {
        let mut switches = 0;
        for task in self.tasks() {
            let status = std::fs::read_to_string(task.join("status")).ok()?;
            let value = |name: &str| {
                let line = status.lines().find(|line| line.starts_with(name))?;
                line.split_whitespace().nth(1).map(String::from)
            };
            if value("State:")? != "S" {
                return None;
            }
            for name in ["voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"] {
                switches += value(name)?.parse::<u64>().ok()?;
            }
        }
        Some(switches)
    }

    /// Waits until the child has answered, or all of its threads have slept for a while. Returns
    /// whether it has not answered.
    fn until_it_waits(&mut self, early_reply: &mut Option<Reply>) -> bool {
        let start = Instant::now();
        let (mut before, mut calm) = (None, 0);
        while start.elapsed() < Duration::from_millis(400) {
            match self.reply.recv_timeout(Duration::from_millis(2)) {
                Ok(reply) => {
                    *early_reply = Some(reply);
                    return false;
                }
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return false,
                Err(_) => {}
            }
            let now = self.is_asleep();
            calm = if now.is_some() && now == before { calm + 1 } else { 0 };
            before = now;
            if calm == 4 {
                break;
            }
        }
        true
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An strace process, attached to a child until this value is dropped.
struct Tracer {
    strace: Child,
}

impl Tracer {
    fn attach(thread: &str, fault: &Fault, log: &Path) -> Result<Option<Self>, String> {
        let mut command = Command::new("strace");
        command.arg("-o").arg(log).args(["-p", thread]);
        match fault {
            Fault::Listed(calls) => {
                command.args(["-f", "-e", &format!("trace={calls}"), "-e", "signal=none"]);
            }
            Fault::Caller { call, error, when } => {
                command.args(["-e", &format!("trace={call}"), "-e", "signal=none"]);
                command.args(["-e", &format!("inject={call}:error={error}:when={when}")]);
            }
            Fault::Helpers { call, error, when, .. } => {
                command.args(["-f", "-e", &format!("trace={call}"), "-e", "signal=none"]);
                command.args(["-e", &format!("inject={call}:error={error}:when={when}")]);
            }
            Fault::Nothing | Fault::Limit { .. } => return Ok(None),
        }
        let mut strace = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut lines = BufReader::new(strace.stderr.take().unwrap()).lines();
        loop {
            match lines.next() {
                Some(Ok(line)) if line.contains("attached") => break,
                Some(Ok(line)) if line.contains("WARNING") => {}
                line => {
                    let _ = strace.kill();
                    let _ = strace.wait();
                    return Err(format!("strace: {line:?}"));
                }
            }
        }
        // The pipe is drained, so that strace never blocks on it.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Some(Self { strace }))
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.strace);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.strace.wait();
    }
}

/// Locks a file with plain `flock(2)` on an open file of this process.
fn bare(path: &Path, exclusive: bool) -> Option<File> {
    let file = File::options().read(true).write(true).open(path);
    let file = file.or_else(|_| File::open(path)).ok()?;
    let operation = if exclusive {
        FlockOperation::NonBlockingLockExclusive
    } else {
        FlockOperation::NonBlockingLockShared
    };
    flock(&file, operation).is_ok().then_some(file)
}

fn unlock(file: &File) {
    // Another test may be forking a child, which would keep the descriptor until its exec.
    let _ = flock(file, FlockOperation::Unlock);
}

pub(super) fn files_below(dir: &Path) -> Vec<PathBuf> {
    let (mut files, mut open) = (Vec::new(), vec![dir.to_path_buf()]);
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() { open.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}

/// Returns the files that are locked according to the kernel, and whether exclusively. Records are
/// included only where nothing should be locked, because a holder locks its record, too.
fn locked_below(dir: &Path, with_records: bool) -> Vec<(String, bool)> {
    let mut locked = Vec::new();
    for path in files_below(dir) {
        let name = path.strip_prefix(dir).unwrap().to_string_lossy().into_owned();
        // Slots have a second name there.
        if name.contains("/.slots/") || !with_records && is_record(&name) {
            continue;
        }
        if let Some(file) = bare(&path, true) {
            unlock(&file);
        } else if let Some(file) = bare(&path, false) {
            unlock(&file);
            locked.push((name, false));
        } else if path.exists() {
            locked.push((name, true));
        }
    }
    locked
}

fn is_record(name: &str) -> bool {
    name.ends_with(".holder") || name.contains("holders/")
}

/// Fails unless all files end up unlocked.
#[cfg(feature = "cli")]
pub(super) fn locks_below(dir: &Path) -> Result<(), String> {
    judge_locks(dir, &[])
}

/// Waits until exactly the expected files are locked.
fn judge_locks(dir: &Path, expected: &[(&str, bool)]) -> Result<(), String> {
    let start = Instant::now();
    let mut wanted: Vec<_> =
        expected.iter().map(|(name, how)| ((*name).to_string(), *how)).collect();
    wanted.sort();
    loop {
        let locked = locked_below(dir, expected.is_empty());
        let mut found: Vec<_> = locked
            .iter()
            .map(|(name, how)| {
                let is_slot = wanted.iter().any(|(name, _)| name == "slot");
                let is_slot = is_slot && name.starts_with("it/slot.");
                (if is_slot { "slot".to_string() } else { name.clone() }, *how)
            })
            .collect();
        found.sort();
        if found == wanted {
            return Ok(());
        }
        if start.elapsed() > Duration::from_secs(20) {
            return Err(format!("{locked:?} is locked (true: exclusively), not {wanted:?}"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn act_as_other(meanwhile: Meanwhile, root: &Path) {
    let dir = root.join("d");
    match meanwhile {
        Meanwhile::Creates(name) => {
            let (aside, at) = (root.join("aside"), dir.join(name));
            std::fs::create_dir_all(at.parent().unwrap()).unwrap();
            std::fs::write(&aside, "payload").unwrap();
            std::fs::rename(&aside, &at).unwrap();
        }
        Meanwhile::Removes(name) => drop(std::fs::remove_file(dir.join(name))),
        _ => {}
    }
}

pub(super) fn attempt(operation: &Operation, fault: &Fault, manner: Manner<'_>) -> Tried {
    use std::os::unix::fs::PermissionsExt as _;
    let open = |mode| std::fs::Permissions::from_mode(mode);
    let temp = tempfile::Builder::new().permissions(open(0o755)).tempdir().unwrap();
    let root = temp.path();
    std::fs::create_dir(root.join("d")).unwrap();
    std::fs::set_permissions(root.join("d"), open(0o777)).unwrap();
    std::fs::write(root.join("scratch"), "scratch").unwrap();
    let mut tried = Tried {
        is_reached: false,
        outcome: Outcome::Panic,
        before: Vec::new(),
        after: Vec::new(),
        created: None,
        problems: Vec::new(),
        log: String::new(),
        thread: String::new(),
        line: String::new(),
    };
    if let Err(problem) = carry_out(operation, fault, manner, root, &mut tried) {
        tried.problems.push(problem);
    }
    let stderr = std::fs::read_to_string(root.join("stderr")).unwrap_or_default();
    if has_panicked(&stderr) {
        tried.problems.push(format!("the child printed: {stderr}"));
    }
    tried
}

/// Whether a thread panicked. Panics of notify in the one thread that calls it do not count:
/// `src/wait/watch/watcher.rs` recovers from them, and std prints a message.
fn has_panicked(stderr: &str) -> bool {
    let is_of_other_thread =
        |line: &&str| !line.contains("thread 'flockwork-watch'") || !line.contains("/notify-8.");
    stderr.contains("abort")
        || stderr
            .lines()
            .filter(|line| line.contains("panicked at"))
            .any(|line| is_of_other_thread(&line))
}

fn carry_out(
    operation: &Operation,
    fault: &Fault,
    manner: Manner<'_>,
    root: &Path,
    tried: &mut Tried,
) -> Result<(), String> {
    let dir = root.join("d");
    let mut child = Running::start(operation, root, manner);
    let ready =
        child.receive().map_err(|problem| format!("the child {problem} during its preparation"))?;
    let Reply::Ready(thread) = ready else { return Err(format!("unexpected reply: {ready:?}")) };
    tried.thread = thread;
    tried.before = state_of(&dir);
    if let Meanwhile::Creates(name) = operation.meanwhile {
        tried.created = Some(state_with(name, "payload"));
    }
    let mut other_locks = Vec::new();
    if let Meanwhile::Held(files) | Meanwhile::HeldToTheEnd(files) = operation.meanwhile {
        for (file, exclusive) in files {
            other_locks.push(bare(&dir.join(file), *exclusive).expect("the file is lockable"));
        }
    }
    let log = root.join("log");
    let tracer = Tracer::attach(&tried.thread, fault, &log)?;
    child.send(&match fault {
        Fault::Helpers { call, spend, .. } => Order::GoAndSpend(call.clone(), *spend),
        Fault::Limit { resource, room } => Order::GoWithLimit(resource.to_string(), *room),
        _ => Order::Go,
    });
    let mut early_reply = None;
    match operation.meanwhile {
        Meanwhile::Nothing | Meanwhile::HeldToTheEnd(_) => {}
        Meanwhile::Renames(from, to) => {
            // A participant that has not arrived would wait for the next generation.
            while child.until_it_waits(&mut early_reply)
                && files_below(&dir.join("it/arrived")).is_empty()
            {}
            if early_reply.is_none() {
                let _ = std::fs::rename(dir.join(from), dir.join(to));
            }
        }
        _ if child.until_it_waits(&mut early_reply) => {
            other_locks.drain(..).for_each(|file| unlock(&file));
            act_as_other(operation.meanwhile, root);
        }
        _ => {}
    }
    let reply = early_reply.map_or_else(|| child.receive(), Ok);
    drop(tracer);
    other_locks.drain(..).for_each(|file| unlock(&file));
    read_log(fault, &log, tried);
    tried.outcome = match reply {
        Ok(reply) => Outcome::of(reply),
        Err(problem) if problem == "ended" => {
            check_death(child, &dir, tried)?;
            return check_next_child(operation, manner, root);
        }
        Err(problem) => return Err(format!("the child {problem}\n{}", tried.log)),
    };
    tried.after = state_of(&dir);
    let mut expected = operation.keeps.to_vec();
    if tried.outcome.is_ok() {
        expected.extend(operation.holds);
    }
    judge_locks(&dir, &expected).map_err(|problem| format!("after the operation, {problem}"))?;
    child.ask(&Order::Drop)?;
    judge_locks(&dir, &[]).map_err(|problem| format!("after all guards are dropped, {problem}"))?;
    // The same handle repeats the call.
    child
        .ask(&Order::Prepare)
        .map_err(|problem| format!("the child {problem} before the next call"))?;
    child.send(&Order::ActAgain);
    act_as_other(operation.meanwhile, root);
    let next =
        child.receive().map_err(|problem| format!("the child {problem} at the next call"))?;
    if !matches!(next, Reply::Ok(_)) {
        return Err(format!("the next call: {next:?}"));
    }
    let expected = [operation.keeps, operation.holds].concat();
    judge_locks(&dir, &expected).map_err(|problem| format!("after the next call, {problem}"))?;
    child.ask(&Order::Drop)?;
    judge_locks(&dir, &[])
        .map_err(|problem| format!("after all guards are dropped again, {problem}"))?;
    drop(child.input.take());
    let status = child.child.wait().map_err(|error| error.to_string())?;
    if !status.success() {
        return Err(format!("the child ended with {status}"));
    }
    let is_left = |path: &PathBuf| {
        let name = path.strip_prefix(&dir).unwrap().to_string_lossy();
        if is_record(&name) {
            // A record that could not be removed contains one line, which marks it as released.
            return std::fs::read_to_string(path).is_ok_and(|text| text.lines().count() != 1);
        }
        let aside = [".flockwork.", ".flock.new", ".holder.new", ".taken", ".again"];
        aside.iter().any(|aside| name.contains(aside))
    };
    let left: Vec<_> = files_below(&dir).into_iter().filter(is_left).collect();
    // A file whose removal failed is still there.
    let is_removal = matches!(fault, Fault::Caller { call, .. } if call.starts_with("unlink"));
    if !left.is_empty() && !is_removal {
        return Err(format!("remaining files: {left:?}"));
    }
    Ok(())
}

/// Checks that the fault killed the child, and that its locks are released.
fn check_death(mut child: Running, dir: &Path, tried: &mut Tried) -> Result<(), String> {
    use std::os::unix::process::ExitStatusExt as _;
    let status = child.child.wait().map_err(|error| error.to_string())?;
    let Some(signal) = status.signal() else {
        return Err(format!("the child ended with {status}"));
    };
    tried.outcome = Outcome::Killed(signal);
    tried.after = state_of(dir);
    judge_locks(dir, &[]).map_err(|problem| format!("after the child died, {problem}"))
}

/// Checks that another process can perform the same operation.
fn check_next_child(operation: &Operation, manner: Manner<'_>, root: &Path) -> Result<(), String> {
    let mut child = Running::start(operation, root, manner);
    child
        .receive()
        .map_err(|problem| format!("the next child {problem} during its preparation"))?;
    child.send(&Order::ActAgain);
    act_as_other(operation.meanwhile, root);
    let next = child.receive().map_err(|problem| format!("the next child {problem}"))?;
    if let Reply::Ok(_) = next { Ok(()) } else { Err(format!("the next child: {next:?}")) }
}

fn read_log(fault: &Fault, log: &Path, tried: &mut Tried) {
    tried.log = std::fs::read_to_string(log).unwrap_or_default();
    let is_hit = |line: &&str| match fault {
        Fault::Helpers { .. } => {
            line.contains("(INJECTED)") && !line.starts_with(&format!("{} ", tried.thread))
        }
        _ => line.contains("(INJECTED)"),
    };
    let hit = tried.log.lines().find(is_hit).map(String::from);
    tried.is_reached =
        hit.is_some() || matches!(fault, Fault::Nothing | Fault::Listed(_) | Fault::Limit { .. });
    tried.line = hit.unwrap_or_default();
}

/// System calls, each with its number of occurrences before the operation and within it.
pub(super) type Calls = Vec<(String, usize, usize)>;

/// Counts the calls of a listed run: those of the thread that ran the operation, before it and
/// within it, and those of the other thread that made the call most often.
pub(super) fn counted(tried: &Tried) -> (Calls, Calls) {
    use std::collections::BTreeMap;
    let mut own: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let mut others: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    let mut marks = 0;
    for line in tried.log.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        let Some((call, _)) = rest.split_once('(') else { continue };
        if rest.starts_with('<') || call.contains(' ') {
            continue; // This is "<... flock resumed>" or "+++ exited".
        }
        if thread != tried.thread {
            *others.entry(call.into()).or_default().entry(thread.into()).or_default() += 1;
        } else if rest.contains(MARK) {
            marks += 1;
            own.entry(call.into()).or_default().0 += usize::from(marks == 1);
        } else {
            let count = own.entry(call.into()).or_default();
            match marks {
                0 => count.0 += 1,
                1 => count.1 += 1,
                _ => {}
            }
        }
    }
    let own = own.into_iter().map(|(call, (before, within))| (call, before, within));
    let others =
        others.into_iter().map(|(call, of)| (call, 0, of.into_values().max().unwrap_or(0)));
    (own.filter(|(_, _, within)| *within > 0).collect(), others.collect())
}
