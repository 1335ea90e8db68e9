//! One try: a child, what goes wrong for it, and what is asked of the system afterwards.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use crate::peer::line::Words as _;

use super::child::{MARK, Order, ROLE, SAYS, Said};
use super::operations::{Meanwhile, Operation, state_of, state_with};

/// Who takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    Nothing,
    /// Nothing: all system calls are listed.
    Listed(&'static str),
    /// That call of the thread that does the operation.
    Caller {
        call: String,
        error: &'static str,
        when: usize,
    },
    /// That call of each other thread.
    Helpers {
        call: String,
        error: &'static str,
        when: usize,
        spend: usize,
    },
    /// A limit of this process.
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
            Self::Limit { resource, room } => write!(f, "limit of {resource}, room for {room}"),
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
    /// By this signal.
    Killed(i32),
}

impl Outcome {
    fn of(said: Said) -> Self {
        match said {
            Said::Ok(answer) => Self::Ok(answer),
            Said::Err(kind, number, text) => {
                Self::Err { kind, number: (number != 0).then_some(number), text }
            }
            _ => Self::Panic,
        }
    }

    pub(super) fn is_ok(&self) -> bool {
        matches!(self, Self::Ok(_))
    }
}

/// What came of a try.
#[derive(Debug)]
pub(super) struct Tried {
    /// Whether the fault happened at all.
    pub(super) is_reached: bool,
    pub(super) outcome: Outcome,
    pub(super) before: Vec<String>,
    pub(super) after: Vec<String>,
    /// What the other process made, before the operation did anything with it.
    pub(super) made: Option<Vec<String>>,
    /// What is wrong with it.
    pub(super) problems: Vec<String>,
    /// The calls of the thread that did it, and the most of any other thread.
    pub(super) log: String,
    pub(super) thread: String,
    pub(super) line: String,
}

/// How a child is started.
#[derive(Clone, Copy, Default)]
pub(super) struct Manner<'a> {
    /// A wrapper.
    pub(super) through: &'a [&'a str],
    /// Another copy of this binary, as somebody who is no superuser.
    pub(super) unprivileged: Option<&'a Path>,
}

struct Running {
    child: Child,
    input: Option<ChildStdin>,
    said: Receiver<Said>,
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
        let (send, said) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // libtest writes "test faults::entry ... " before it without a line's end.
                if let Some((_, what)) = line.split_once(SAYS) {
                    let _ = send.send(Said::from_line(what));
                }
            }
        });
        let input = child.stdin.take();
        Self { child, input, said }
    }

    fn tell(&mut self, order: &Order) {
        let _ = writeln!(self.input.as_mut().unwrap(), "{}", order.to_line());
    }

    fn listen(&mut self) -> Result<Said, String> {
        use std::sync::mpsc::RecvTimeoutError;
        match self.said.recv_timeout(PATIENCE) {
            Ok(said) => Ok(said),
            Err(RecvTimeoutError::Timeout) => Err(format!("hangs\n{}", self.dump())),
            Err(RecvTimeoutError::Disconnected) => Err("ended".into()),
        }
    }

    fn ask(&mut self, order: &Order) -> Result<Said, String> {
        self.tell(order);
        self.listen().map_err(|problem| format!("at {order:?} it {problem}"))
    }

    fn tasks(&self) -> Vec<PathBuf> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id()));
        tasks.map(|tasks| tasks.flatten().map(|task| task.path()).collect()).unwrap_or_default()
    }

    /// What each of its threads does.
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

    /// How often its threads have gone to sleep and been woken; `None` if any of them runs, or is stopped.
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

    /// Until it has said something, or all of its threads sleep for a while. Whether it has not said anything.
    fn until_it_waits(&mut self, heard: &mut Option<Said>) -> bool {
        let start = Instant::now();
        let (mut before, mut calm) = (None, 0);
        while start.elapsed() < Duration::from_millis(400) {
            match self.said.recv_timeout(Duration::from_millis(2)) {
                Ok(said) => {
                    *heard = Some(said);
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

/// strace on a child, until it lets go.
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
        // What it says later is in nobody's way.
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

/// A bare lock of another open file than any of the child's.
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

fn let_go(file: &File) {
    // Explicitly: another test may be forking a child, which has it too until its exec.
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

/// What is locked in there, as anybody sees it who asks the kernel, and whether exclusively. Records are only looked at
/// where nothing should be locked: who holds has theirs locked as well.
fn locked_below(dir: &Path, with_records: bool) -> Vec<(String, bool)> {
    let mut locked = Vec::new();
    for path in files_below(dir) {
        let name = path.strip_prefix(dir).unwrap().to_string_lossy().into_owned();
        // A second name of a slot.
        if name.contains("/.slots/") || !with_records && is_record(&name) {
            continue;
        }
        if let Some(file) = bare(&path, true) {
            let_go(&file);
        } else if let Some(file) = bare(&path, false) {
            let_go(&file);
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

/// Nothing is locked in there, in the end.
#[cfg(feature = "cli")]
pub(super) fn locks_below(dir: &Path) -> Result<(), String> {
    judge_locks(dir, &[])
}

/// Until exactly this is locked.
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
            return Err(format!("locked (true: exclusively) is {locked:?}, and not {wanted:?}"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn do_deed(meanwhile: Meanwhile, root: &Path) {
    let dir = root.join("d");
    match meanwhile {
        Meanwhile::Makes(name) => {
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
        made: None,
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
        tried.problems.push(format!("it said: {stderr}"));
    }
    tried
}

/// Whether anything panicked. Of notify's panics `src/wait/watch/watcher.rs` makes up for those in the one thread that calls it, and
/// all that comes of them is what std says about them.
fn has_panicked(stderr: &str) -> bool {
    let of_others =
        |line: &&str| !line.contains("thread 'flockwork-watch'") || !line.contains("/notify-8.");
    stderr.contains("abort")
        || stderr.lines().filter(|line| line.contains("panicked at")).any(|line| of_others(&line))
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
    let ready = child.listen().map_err(|problem| format!("while it prepared it {problem}"))?;
    let Said::Ready(thread) = ready else { return Err(format!("it said {ready:?}")) };
    tried.thread = thread;
    tried.before = state_of(&dir);
    if let Meanwhile::Makes(name) = operation.meanwhile {
        tried.made = Some(state_with(name, "payload"));
    }
    let mut obstacles = Vec::new();
    if let Meanwhile::Held(files) | Meanwhile::HeldToTheEnd(files) = operation.meanwhile {
        for (file, exclusive) in files {
            obstacles.push(bare(&dir.join(file), *exclusive).expect("an obstacle"));
        }
    }
    let log = root.join("log");
    let tracer = Tracer::attach(&tried.thread, fault, &log)?;
    child.tell(&match fault {
        Fault::Helpers { call, spend, .. } => Order::GoAndSpend(call.clone(), *spend),
        Fault::Limit { resource, room } => Order::GoWithLimit(resource.to_string(), *room),
        _ => Order::Go,
    });
    let mut heard = None;
    match operation.meanwhile {
        Meanwhile::Nothing | Meanwhile::HeldToTheEnd(_) => {}
        _ if child.until_it_waits(&mut heard) => {
            obstacles.drain(..).for_each(|file| let_go(&file));
            do_deed(operation.meanwhile, root);
        }
        _ => {}
    }
    let said = heard.map_or_else(|| child.listen(), Ok);
    drop(tracer);
    obstacles.drain(..).for_each(|file| let_go(&file));
    read_log(fault, &log, tried);
    tried.outcome = match said {
        Ok(said) => Outcome::of(said),
        Err(problem) if problem == "ended" => {
            its_end(child, &dir, tried)?;
            return its_heir(operation, manner, root);
        }
        Err(problem) => return Err(format!("it {problem}\n{}", tried.log)),
    };
    tried.after = state_of(&dir);
    let mut expected = operation.keeps.to_vec();
    if tried.outcome.is_ok() {
        expected.extend(operation.holds);
    }
    judge_locks(&dir, &expected).map_err(|problem| format!("afterwards {problem}"))?;
    child.ask(&Order::Drop)?;
    judge_locks(&dir, &[]).map_err(|problem| format!("when all is dropped {problem}"))?;
    // The next call.
    child.ask(&Order::Prepare).map_err(|problem| format!("before the next call {problem}"))?;
    child.tell(&Order::ActAgain);
    do_deed(operation.meanwhile, root);
    let next = child.listen().map_err(|problem| format!("at the next call it {problem}"))?;
    if !matches!(next, Said::Ok(_)) {
        return Err(format!("the next call: {next:?}"));
    }
    let expected = [operation.keeps, operation.holds].concat();
    judge_locks(&dir, &expected).map_err(|problem| format!("after the next call {problem}"))?;
    child.ask(&Order::Drop)?;
    judge_locks(&dir, &[]).map_err(|problem| format!("when all is dropped again {problem}"))?;
    drop(child.input.take());
    let status = child.child.wait().map_err(|error| error.to_string())?;
    if !status.success() {
        return Err(format!("it ended by {status}"));
    }
    let is_left = |path: &PathBuf| {
        let name = path.strip_prefix(&dir).unwrap().to_string_lossy();
        if is_record(&name) {
            // One that could not be removed says that nobody holds.
            return std::fs::read_to_string(path).is_ok_and(|text| text.lines().count() != 1);
        }
        let aside = [".flockwork.", ".flock.new", ".holder.new", ".taken", ".again"];
        aside.iter().any(|aside| name.contains(aside))
    };
    let left: Vec<_> = files_below(&dir).into_iter().filter(is_left).collect();
    // What could not be removed is there.
    let is_removal = matches!(fault, Fault::Caller { call, .. } if call.starts_with("unlink"));
    if !left.is_empty() && !is_removal {
        return Err(format!("there is left {left:?}"));
    }
    Ok(())
}

/// It died of it: what it held is free.
fn its_end(mut child: Running, dir: &Path, tried: &mut Tried) -> Result<(), String> {
    use std::os::unix::process::ExitStatusExt as _;
    let status = child.child.wait().map_err(|error| error.to_string())?;
    let Some(signal) = status.signal() else { return Err(format!("it ended by {status}")) };
    tried.outcome = Outcome::Killed(signal);
    tried.after = state_of(dir);
    judge_locks(dir, &[]).map_err(|problem| format!("when it is dead {problem}"))
}

/// And another process does the same.
fn its_heir(operation: &Operation, manner: Manner<'_>, root: &Path) -> Result<(), String> {
    let mut child = Running::start(operation, root, manner);
    child.listen().map_err(|problem| format!("the next one, preparing, {problem}"))?;
    child.tell(&Order::ActAgain);
    do_deed(operation.meanwhile, root);
    let next = child.listen().map_err(|problem| format!("the next one {problem}"))?;
    if let Said::Ok(_) = next { Ok(()) } else { Err(format!("the next one: {next:?}")) }
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

/// System calls, each with how often it was made before what matters, and within it.
pub(super) type Calls = Vec<(String, usize, usize)>;

/// Of a listed run: how often each call was made by the thread that did the operation, before it and in it, and by that of
/// the others which made it most often.
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
            continue; // "<... flock resumed>", "+++ exited"
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
