//! Tools that several tests use: waiting for a condition, running a test in its own process, and
//! reading the state of the system.

pub(crate) mod failure;
pub(crate) mod running;
// Linux only: strace.
#[cfg(target_os = "linux")]
pub(crate) mod strace;
// Unix only: user ids.
#[cfg(unix)]
pub(crate) mod unprivileged;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Waits until `condition` is true. The test fails after two minutes.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(120), "never happened: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Counts up to `most`. A busy machine does fewer rounds: none begins after the given time.
pub(crate) fn rounds(most: u32, time: Duration) -> impl Iterator<Item = u32> {
    let start = Instant::now();
    (0..most).take_while(move |_| start.elapsed() < time)
}

/// Waits until at least this many requests for a lock on `path` are blocked in the kernel. Only
/// Linux shows them; on other systems this is a pause, and the test proves less.
#[track_caller]
pub(crate) fn until_blocked(path: &Path, requests: usize) {
    if cfg!(target_os = "linux") {
        eventually(&format!("{requests} blocked"), || blocked(path) >= requests);
    } else {
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Waits until that process holds the lock on `path`. On systems other than Linux this is a pause.
#[track_caller]
pub(crate) fn until_held(path: &Path, pid: u32) {
    if cfg!(target_os = "linux") {
        let pid = format!(" {pid} ");
        eventually(&format!("{} held", path.display()), || {
            kernel_locks(path).iter().any(|line| !line.contains("->") && line.contains(&pid))
        });
    } else {
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Returns the number of requests for a lock on `path` that are blocked in the kernel or wait with
/// a ticket: for a gate those behind the one that has passed it, for a slot the leader.
pub(crate) fn blocked(path: &Path) -> usize {
    let locks = kernel_locks(path);
    let blocked = locks.iter().filter(|line| line.contains("->")).count();
    let name = path.file_name().unwrap().to_str().unwrap();
    let tickets = match name.strip_suffix(".gate") {
        Some(lock) => tickets(&path.with_file_name(format!("{lock}.queue"))),
        None => tickets(&path.with_file_name("queue")),
    };
    if name.ends_with("gate") {
        // The first ticket is that of the waiter that has passed the gate, or is about to. A list
        // that is read while locks change can lack its lock.
        return blocked + tickets.saturating_sub(1);
    }
    blocked + if name.starts_with("slot.") { tickets.min(1) } else { 0 }
}

/// Returns how many processes and threads have a ticket in that queue. A place that was claimed has
/// a FIFO with a writer, and a ticket only when its number is there (T1, T3).
#[cfg(target_os = "linux")]
pub(crate) fn tickets(queue: &Path) -> usize {
    use std::io::Read as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let Ok(table) = std::fs::read(queue.join("tickets")) else { return 0 };
    let has_writer = |place: usize| {
        #[allow(clippy::cast_possible_wrap, reason = "open(2) takes an int, and the flag fits")]
        let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let path = queue.join(place.to_string());
        let fifo = std::fs::File::options().read(true).custom_flags(flags).open(path);
        fifo.is_ok_and(|mut fifo| {
            fifo.read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
        })
    };
    let numbers = table.get(24..).unwrap_or_default().chunks(40).map(|entry| {
        let number = entry.first_chunk().copied().unwrap_or_default();
        u64::from_le_bytes(number)
    });
    let taken = numbers.enumerate().filter(|(_, number)| ![0, u64::MAX].contains(number));
    taken.filter(|(place, _)| has_writer(*place)).count()
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn tickets(_queue: &Path) -> usize {
    0
}

/// Returns the lines of `/proc/locks` about `path`.
#[cfg(target_os = "linux")]
fn kernel_locks(path: &Path) -> Vec<String> {
    use std::os::linux::fs::MetadataExt as _;
    let Ok(metadata) = std::fs::metadata(path) else { return Vec::new() };
    let (major, minor) =
        (rustix::fs::major(metadata.st_dev()), rustix::fs::minor(metadata.st_dev()));
    let id = format!(" {major:02x}:{minor:02x}:{} ", metadata.st_ino());
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    locks.lines().filter(|line| line.contains(&id)).map(String::from).collect()
}

#[cfg(not(target_os = "linux"))]
fn kernel_locks(_path: &Path) -> Vec<String> {
    Vec::new()
}

/// Returns the number of descriptors that this process has open, or zero if the system does not
/// show it.
pub(crate) fn descriptors() -> usize {
    if !cfg!(target_os = "linux") {
        return 0; // Wine lists the descriptors of its own server.
    }
    std::fs::read_dir("/proc/self/fd").map_or(0, |open| open.count() - 1)
}

/// Returns the flags of an open file in octal digits, as in open(2).
#[cfg(target_os = "linux")]
pub(crate) fn flags_of(path: &Path) -> String {
    for open in std::fs::read_dir("/proc/self/fd").unwrap().flatten() {
        if std::fs::read_link(open.path()).is_ok_and(|to| to == path) {
            let info = Path::new("/proc/self/fdinfo").join(open.file_name());
            let info = std::fs::read_to_string(info).unwrap();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
            return flags.expect("proc(5)").trim().to_string();
        }
    }
    format!("{} is not open", path.display())
}

pub(crate) fn threads() -> usize {
    if !cfg!(target_os = "linux") {
        return 0;
    }
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

/// Returns how often the threads of a process have gone to sleep.
#[cfg(target_os = "linux")]
pub(crate) fn sleeps(pid: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of_task = |task: std::path::PathBuf| {
        let status = std::fs::read_to_string(task.join("status")).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches"));
        line.map_or(0, |line| line.split_whitespace().nth(1).unwrap().parse().unwrap())
    };
    tasks.map(|task| of_task(task.unwrap().path())).sum()
}

/// Asserts that processes settle: in one of several periods of three seconds, the threads of each
/// process wake at most this often a second. On a busy machine the first period may include the
/// beginning of a wait.
#[cfg(target_os = "linux")]
#[track_caller]
pub(crate) fn assert_sleep(processes: &[(u32, f64)]) {
    let mut left = processes.to_vec();
    for _ in 0..10 {
        let (before, start) = (left.clone(), Instant::now());
        let woken: Vec<u64> = before.iter().map(|(pid, _)| sleeps(*pid)).collect();
        std::thread::sleep(Duration::from_secs(3));
        left.clear();
        for ((pid, most), woken) in before.into_iter().zip(woken) {
            #[allow(clippy::cast_precision_loss, reason = "a handful")]
            let rate = (sleeps(pid) - woken) as f64 / start.elapsed().as_secs_f64();
            if rate > most {
                left.push((pid, most));
            }
        }
        if left.is_empty() {
            return;
        }
    }
    panic!("of {processes:?}, these wake more often: {left:?}");
}

/// Returns the files that a process has open.
#[cfg(target_os = "linux")]
pub(crate) fn open_files(pid: u32) -> Vec<std::path::PathBuf> {
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    descriptors.filter_map(|it| std::fs::read_link(it.ok()?.path()).ok()).collect()
}

/// Returns the inotify instances of a process, each with the inodes that it watches.
#[cfg(target_os = "linux")]
pub(crate) fn watches(pid: u32) -> Vec<Vec<u64>> {
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let mut instances = Vec::new();
    for descriptor in descriptors.flatten() {
        let target = std::fs::read_link(descriptor.path()).unwrap_or_default();
        if !target.to_string_lossy().contains("inotify") {
            continue;
        }
        let info = format!("/proc/{pid}/fdinfo/{}", descriptor.file_name().to_string_lossy());
        // "inotify wd:1 ino:1234 sdev:fe00000 mask:..."
        let info = std::fs::read_to_string(info).unwrap_or_default();
        let inode = |line: &str| line.split(" ino:").nth(1)?.split(' ').next().map(String::from);
        let inodes = info.lines().filter_map(inode);
        instances.push(inodes.map(|inode| u64::from_str_radix(&inode, 16).unwrap()).collect());
    }
    instances
}

/// Waits until that process watches the directory. On systems other than Linux, and if flockwork
/// watches nothing, this is a pause.
#[track_caller]
pub(crate) fn until_watching(pid: u32, directory: &Path) {
    #[cfg(all(target_os = "linux", feature = "watch"))]
    eventually(&format!("{} watched", directory.display()), || {
        use std::os::linux::fs::MetadataExt as _;
        let inode = std::fs::metadata(directory).unwrap().st_ino();
        watches(pid).iter().flatten().any(|watched| *watched == inode)
    });
    #[cfg(not(all(target_os = "linux", feature = "watch")))]
    {
        let _ = (pid, directory);
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Runs `body` as a test in its own process, in which no other test opens files or starts
/// threads. `name` is the test's full name.
#[track_caller]
pub(crate) fn alone(name: &str, body: impl FnOnce()) {
    alone_under(Command::new(std::env::current_exe().unwrap()), name, body);
}

/// Runs `body` in the same way under a wrapper. `command` ends with the program to run.
#[track_caller]
pub(crate) fn alone_under(mut command: Command, name: &str, body: impl FnOnce()) {
    const ALONE: &str = "FLOCKWORK_IT_ALONE";
    if std::env::var(ALONE).is_ok_and(|alone| alone == name) {
        return body();
    }
    // The other process has the same limit, and reports what it waits for.
    crate::limit::extend(Duration::from_secs(30));
    let output = command
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(ALONE, name)
        .env_remove(crate::limit::TIMES) // This process measures it.
        .output()
        .unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{name} in its own process: {}\n{text}", output.status);
    assert!(text.contains("1 passed"), "{name} is not the name of a test:\n{text}");
}

/// Returns whether a program runs here. If not, prints that a test is left out.
#[cfg(target_os = "linux")]
pub(crate) fn has(program: &str, arguments: &[&str]) -> bool {
    let found =
        Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success());
    if !found {
        left_out(&format!("`{program} {}` does not run here", arguments.join(" ")));
    }
    found
}

/// Prints which test is left out here. libtest would capture the output of `println` if the test
/// passes.
#[cfg(any(windows, target_os = "linux"))]
pub(crate) fn left_out(what: &str) {
    let line = format!("left out: {what}\n");
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
}

/// Ends a child that was forked without exec. `std::process::exit` would wait forever for a mutex
/// of the standard library if another thread was starting or ending during the fork.
#[cfg(unix)]
pub(crate) fn exit_copy(code: i32) -> ! {
    let mut shell = Command::new("/bin/sh");
    let error = std::os::unix::process::CommandExt::exec(
        shell.args(["-c", "exit $0"]).arg(code.to_string()),
    );
    eprintln!("{shell:?}: {error}");
    std::process::abort()
}

/// Waits until a child that was forked without exec has ended.
#[cfg(unix)]
pub(crate) fn ended(child: i32) -> rustix::process::WaitStatus {
    let child = rustix::process::Pid::from_raw(child);
    rustix::process::waitpid(child, rustix::process::WaitOptions::empty()).unwrap().unwrap().1
}

/// Returns the sorted names of the files in a directory.
pub(crate) fn names_in(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let name = |entry: std::fs::DirEntry| entry.file_name().into_string().unwrap();
    let mut names: Vec<_> = entries.map(|entry| name(entry.unwrap())).collect();
    names.sort();
    names
}

/// Polls a future once. It must still be waiting then.
#[track_caller]
pub(crate) fn assert_waits<T: std::fmt::Debug>(future: impl Future<Output = T>) {
    let polled = futures_lite::future::block_on(futures_lite::future::poll_once(future));
    assert!(polled.is_none(), "{polled:?}");
}

/// Copies a program to `to`, where every user may run it.
///
/// Another process writes the copy. If this process did, a child forked by another test at that
/// moment would inherit the descriptor, and the copy could not be run until the child calls exec
/// (ETXTBSY).
#[cfg(unix)]
pub(crate) fn copy_program(from: impl AsRef<Path>, to: &Path) {
    let mut install = std::process::Command::new("install");
    install.args(["-m", "755"]).arg(from.as_ref()).arg(to);
    assert!(install.status().unwrap().success());
}

/// Lets another process write a script that can be run.
#[cfg(all(feature = "cli", target_os = "linux"))]
pub(crate) fn write_script(path: &Path, text: &str) {
    let source = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(source.path(), text).unwrap();
    copy_program(source.path(), path);
}
