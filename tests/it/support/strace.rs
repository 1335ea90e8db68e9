//! Peers under strace, whose system calls fail, take long or stop the process.

use std::process::Command;

use crate::peer::{Answer, Peer};

/// Replaces the result of fstatfs(2) with the magic number of NFS.
pub(crate) const NFS: &str = "fstatfs:poke_exit=@arg2=6969000000000000";

/// Starts a peer whose system calls on `path` fail or take long, as `strace -e inject=` specifies.
/// Without strace, prints so and returns `None`.
pub(crate) fn injected(path: &std::path::Path, inject: &str) -> Option<Peer> {
    strace(&["-P".as_ref(), path.as_os_str()], inject)
}

/// Returns the pid of the process that the peer's strace runs.
pub(crate) fn traced(peer: &Peer) -> u32 {
    let children = format!("/proc/{0}/task/{0}/children", peer.id());
    let mut pid = None;
    crate::support::eventually("the program runs", || {
        let children = std::fs::read_to_string(&children).unwrap_or_default();
        pid = children.split_whitespace().next().map(|pid| pid.parse().unwrap());
        pid.is_some()
    });
    pid.unwrap()
}

/// Waits until a peer has stopped that `inject` stops (`CALL:signal=STOP:when=1`). strace also
/// stops it for a moment at each system call.
pub(crate) fn until_stopped(peer: &Peer) {
    let tasks = format!("/proc/{}/task", traced(peer));
    let is_stopped = |task: std::fs::DirEntry| {
        let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        status.contains("State:\tt") || status.contains("State:\tT")
    };
    let mut times = 0;
    crate::support::eventually("the peer has stopped", || {
        let stopped = std::fs::read_dir(&tasks).unwrap().flatten().all(is_stopped);
        times = if stopped { times + 1 } else { 0 };
        times == 20
    });
}

/// Continues a stopped peer until it answers, because it may not have stopped yet, and returns the
/// answer.
pub(crate) fn answer_of_stopped(peer: &mut Peer) -> Answer {
    let pid = rustix::process::Pid::from_raw(traced(peer).try_into().unwrap()).unwrap();
    let mut answer = None;
    crate::support::eventually("the peer continues", || {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::CONT);
        answer = peer.has_answered();
        answer.is_some()
    });
    answer.unwrap()
}

/// Starts a peer under strace with arguments other than a path.
pub(crate) fn strace(arguments: &[&std::ffi::OsStr], inject: &str) -> Option<Peer> {
    if !crate::support::has("strace", &["-V"]) {
        return None;
    }
    // A semicolon separates several faults.
    let injects: Vec<&str> = inject.split(';').collect();
    let calls: Vec<&str> = injects.iter().map(|it| it.split(':').next().unwrap()).collect();
    let mut command = Command::new("strace");
    command
        .args(["-f", "-qq", "-o", "/dev/null"])
        .args(arguments)
        .args(["-e", &format!("trace={}", calls.join(","))])
        .args(injects.iter().flat_map(|it| ["-e".to_string(), format!("inject={it}")]))
        .arg(std::env::current_exe().unwrap());
    Some(Peer::start_as(command))
}

/// Joins the two lines that strace writes of a call during which another thread makes a call. The
/// joined line is placed where the call ends.
pub(crate) fn whole_calls(log: &str) -> String {
    let mut started = std::collections::BTreeMap::new();
    let mut whole = String::new();
    for line in log.lines() {
        let thread = line.split(' ').next().unwrap();
        if let Some(start) = line.strip_suffix(" <unfinished ...>") {
            started.insert(thread, start);
            continue;
        }
        let end = line.split_once(" resumed>").filter(|(before, _)| before.contains("<... "));
        match end.and_then(|(_, end)| Some((started.remove(thread)?, end))) {
            Some((start, end)) => whole.extend([start, end]),
            None => whole.push_str(line),
        }
        whole.push('\n');
    }
    whole
}

#[test]
fn calls_that_strace_splits_are_joined() {
    limit!();
    let log = "7 openat(AT_FDCWD, \"a\", O_PATH <unfinished ...>\n8 close(3) = 0\n\
               7 <... openat resumed>) = 3\n8 stat(\"b\" <unfinished ...>\n9 +++ exited +++\n";
    let whole = "8 close(3) = 0\n7 openat(AT_FDCWD, \"a\", O_PATH) = 3\n9 +++ exited +++\n";
    assert_eq!(whole_calls(log), whole);
}
