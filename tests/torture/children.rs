//! Child processes of the coordinator: starts them, announces phases to them, and stops and kills
//! workers.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::Sender;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process};

use crate::AnyResult;
use crate::arguments::Arguments;
use crate::faults::{self, FaultAction};
use crate::phase::{self, Phase};
use crate::record::{Kind, Log, Record};

/// The running children and the phase that was announced to them.
pub(crate) struct Children {
    pub(crate) phase: (u64, Phase),
    pub(crate) stdins: BTreeMap<u32, ChildStdin>,
    /// The pids of the workers that have not been reaped.
    pub(crate) workers: BTreeMap<u32, Pid>,
}

/// A report from one of the coordinator's threads.
pub(crate) enum Message {
    /// A line of the monitor.
    Line(String),
    /// An unexpected end of a child, or an error.
    Failed(String),
    MonitorEnded,
}

pub(crate) fn start(
    arguments: &Arguments,
    role: &[String],
) -> AnyResult<(Child, ChildStdin, BufReader<std::process::ChildStdout>)> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(role)
        .args(arguments.to_words())
        .arg("--directory")
        .arg(&arguments.directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdin = child.stdin.take().ok_or("no stdin")?;
    let stdout = child.stdout.take().ok_or("no stdout")?;
    Ok((child, stdin, BufReader::new(stdout)))
}

pub(crate) fn lock(children: &Mutex<Children>) -> MutexGuard<'_, Children> {
    children.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Announces the current phase and all later ones to a child.
pub(crate) fn register_stdin(children: &Mutex<Children>, number: u32, mut stdin: ChildStdin) {
    let mut children = lock(children);
    let (phase_number, phase) = children.phase;
    // An error means that the child has ended, which its supervisor detects.
    let _ = stdin.write_all(phase::to_line(phase_number, phase).as_bytes());
    children.stdins.insert(number, stdin);
}

/// Forwards the monitor's lines to the coordinator, and prints its report.
pub(crate) fn forward_output(
    lines: BufReader<std::process::ChildStdout>,
    sender: Sender<Message>,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        for line in lines.lines().map_while(Result::ok) {
            if line.starts_with('@') {
                let _ = sender.send(Message::Line(line));
            } else {
                println!("{line}");
            }
        }
        let _ = sender.send(Message::MonitorEnded);
    })
}

/// Starts a worker again whenever it has ended, until the last phase.
pub(crate) fn supervise(
    arguments: &Arguments,
    worker: u32,
    children: &Mutex<Children>,
    log: &Log,
    sender: &Sender<Message>,
) -> AnyResult<()> {
    for generation in 0.. {
        let role = ["worker".into(), worker.to_string(), generation.to_string()];
        let (mut child, stdin, lines) = start(arguments, &role)?;
        let pid = Pid::from_child(&child);
        lock(children).workers.insert(worker, pid);
        register_stdin(children, worker, stdin);
        let faults = faults::schedule(arguments, worker, generation);
        let record = |kind| log.write(Record::of(kind, worker, generation));
        for line in lines.lines().map_while(Result::ok) {
            match faults[line.parse::<usize>()?].action {
                FaultAction::Kill { delay } => {
                    std::thread::sleep(delay);
                    record(Kind::Ending);
                    kill_process(pid, Signal::KILL)?;
                }
                FaultAction::Stop { delay, span } => {
                    std::thread::sleep(delay);
                    record(Kind::Stopped);
                    kill_process(pid, Signal::STOP)?;
                    std::thread::sleep(span);
                    kill_process(pid, Signal::CONT)?;
                    record(Kind::Continued);
                }
                FaultAction::KillSelf | FaultAction::Exit => {}
            }
        }
        lock(children).workers.remove(&worker);
        let status = child.wait()?;
        record(Kind::Exited);
        let is_last_phase = lock(children).phase.1 == Phase::End;
        let is_killed = status.signal() == Some(Signal::KILL.as_raw());
        let exits = faults.last().is_some_and(|fault| fault.action == FaultAction::Exit);
        if !is_killed && !(status.success() && (is_last_phase || exits)) {
            let message = format!("worker {worker}.{generation} ended unexpectedly: {status}");
            let _ = sender.send(Message::Failed(message));
            return Ok(());
        }
        if is_last_phase {
            return Ok(());
        }
    }
    Ok(())
}
