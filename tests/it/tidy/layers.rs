//! The layers of the source files: the modules that each file may name, and its greatest length.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{assert_none, code, source_files};

/// The modules that each file may name, from the bottom up: modules below it, and none on the same
/// level or above. Each file of `src/file` counts as a separate module, since some use others.
const LAYERS: &[(&str, &[&str])] = &[
    ("sorted_map.rs", &[]),
    ("sync.rs", &[]),
    ("trace.rs", &[]),
    ("sys/mod.rs", &[]),
    ("sys/flock.rs", &[]),
    ("sys/atomic_write.rs", &[]),
    ("sys/announcement.rs", &[]),
    ("sys/random.rs", &[]),
    ("sys/explained.rs", &[]),
    ("sys/unix/mod.rs", &[]),
    ("sys/unix/announcement.rs", &["sys"]),
    ("sys/unix/directories.rs", &[]),
    ("sys/unix/fifo.rs", &[]),
    ("sys/unix/attributes.rs", &[]),
    ("sys/unix/processes.rs", &[]),
    ("sys/unix/linux_proc.rs", &["sorted_map"]),
    ("sys/unix/lost_locks.rs", &[]),
    ("sys/unix/mounts.rs", &["sorted_map", "sys"]),
    ("sys/no_private_directory.rs", &[]),
    ("sys/no_proc.rs", &[]),
    ("sys/unix/no_file_system.rs", &[]),
    ("sys/no_fifo.rs", &[]),
    ("sys/unix/file_system.rs", &[]),
    ("sys/windows/mod.rs", &[]),
    ("sys/windows/names.rs", &[]),
    ("sys/unsupported.rs", &[]),
    ("fork_safe.rs", &["sync", "sys"]),
    ("cancel.rs", &["fork_safe"]),
    ("host_directory.rs", &["sys"]),
    ("access.rs", &["sys"]),
    ("printable.rs", &[]),
    ("process.rs", &["fork_safe", "printable", "sys"]),
    ("holder.rs", &["printable", "process", "sys"]),
    ("record/mod.rs", &["access", "holder", "sys"]),
    ("record/claims.rs", &["holder", "sorted_map", "sys"]),
    ("record/find.rs", &["holder", "sorted_map", "sys"]),
    ("record/format.rs", &["holder", "printable", "process", "sys"]),
    ("record/location.rs", &["holder", "sys"]),
    ("record/sharers.rs", &["holder", "sorted_map", "sys"]),
    ("record/slot_files.rs", &["sys"]),
    ("options.rs", &["access", "cancel", "error", "holder", "printable", "record"]),
    ("error/mod.rs", &["holder", "printable", "sys"]),
    ("error/contention.rs", &["holder", "record"]),
    ("error/hint.rs", &["sys"]),
    ("error/operation.rs", &[]),
    ("holders.rs", &["error", "holder", "record", "wait"]),
    ("paths.rs", &["access", "error", "sys"]),
    ("file/mod.rs", &[]),
    ("file/durability.rs", &[]),
    ("file/regular.rs", &["error", "sys"]),
    ("file/open.rs", &["access", "error", "paths", "sys"]),
    (
        "file/lock_file.rs",
        &["access", "error", "file::open", "fork_safe", "host_directory", "paths", "sys"],
    ),
    (
        "file/ticket_queue.rs",
        &["access", "error", "file::open", "fork_safe", "printable", "process", "sys"],
    ),
    ("file/fence.rs", &["access", "error", "file::lock_file", "sys"]),
    (
        "file/guard.rs",
        &["error", "file::fence", "file::lock_file", "options", "record", "sys", "trace"],
    ),
    ("file/data_file.rs", &["error", "options", "paths", "sys"]),
    ("file/marker/mod.rs", &["access", "error", "file::lock_file", "paths", "sys"]),
    ("file/marker/announce.rs", &["error", "file::open", "sys", "trace"]),
    ("file/marker/change.rs", &["error", "paths", "sys"]),
    ("file/marker/consume.rs", &["error", "sys"]),
    ("wait/mod.rs", &[]),
    ("wait/deadline.rs", &[]),
    ("wait/check_sampler.rs", &["sys"]),
    ("wait/backoff.rs", &["sys"]),
    ("wait/timer.rs", &["fork_safe", "sync", "sys"]),
    ("wait/target.rs", &["error"]),
    ("wait/waiter.rs", &["error", "sys", "trace"]),
    ("wait/hooks.rs", &["cancel", "error", "sys", "trace"]),
    ("wait/thread.rs", &["error", "sys"]),
    ("wait/future.rs", &["error"]),
    ("wait/order.rs", &["sys"]),
    ("wait/host_wait.rs", &["error", "sys", "trace"]),
    ("wait/own_check.rs", &[]),
    ("wait/signal_loop.rs", &["error", "sys"]),
    ("wait/reactor.rs", &["fork_safe", "sorted_map", "sync", "sys"]),
    (
        "wait/remote.rs",
        &[
            "cancel",
            "error",
            "fork_safe",
            "options",
            "record",
            "sorted_map",
            "sync",
            "sys",
            "trace",
        ],
    ),
    ("wait/kept.rs", &["error"]),
    ("wait/queue.rs", &["error", "fork_safe", "sorted_map", "sync", "sys"]),
    ("wait/queued_waiter.rs", &["error", "trace"]),
    ("wait/take_over.rs", &["error"]),
    ("wait/turnstile.rs", &["error", "sys", "trace"]),
    ("wait/watch/mod.rs", &[]),
    ("wait/watch/registry.rs", &["fork_safe", "sorted_map", "sys"]),
    ("wait/watch/watcher.rs", &["sorted_map", "sync", "sys", "trace"]),
    ("wait/watch/listener.rs", &["sys", "wait"]),
    ("wait/watch/unwatched.rs", &["wait"]),
    ("wait/shared_poll/mod.rs", &[]),
    ("wait/shared_poll/listing.rs", &[]),
    ("wait/shared_poll/registry.rs", &["fork_safe", "sorted_map", "sys"]),
    ("wait/shared_poll/listener.rs", &["wait"]),
    ("wait/shared_poll/meeting.rs", &["host_directory", "process", "sys"]),
    ("wait/shared_poll/poller.rs", &["sync", "sys"]),
    ("wait/event_loop.rs", &["error", "sys", "trace"]),
    ("wait/condition.rs", &["error", "trace"]),
    ("wait/memory.rs", &["error", "sync"]),
    ("wait/tests.rs", &["error", "sys"]),
    ("wait/schedules.rs", &["sync"]),
    ("lock_request.rs", &["error", "file::lock_file", "options", "sys", "wait"]),
    (
        "line.rs",
        &[
            "access",
            "file::lock_file",
            "file::ticket_queue",
            "host_directory",
            "lock_request",
            "process",
            "sys",
            "wait",
        ],
    ),
    ("waiter_list.rs", &["file::ticket_queue", "holder", "line", "record", "sorted_map", "sys"]),
    ("lock.rs", PRIMITIVE),
    ("rwlock/mod.rs", PRIMITIVE),
    (
        "rwlock/gate.rs",
        &["error", "file::lock_file", "line", "lock_request", "sys", "trace", "wait"],
    ),
    ("rwlock/guards.rs", &["error", "file::guard", "wait"]),
    ("semaphore/mod.rs", PRIMITIVE),
    (
        "semaphore/permit.rs",
        &["access", "error", "file::fence", "options", "record", "sys", "trace", "wait"],
    ),
    (
        "semaphore/acquire.rs",
        &[
            "error",
            "file::lock_file",
            "file::ticket_queue",
            "line",
            "lock_request",
            "sys",
            "trace",
            "wait",
        ],
    ),
    ("semaphore/capacity.rs", &["access", "error", "file::lock_file", "record", "sys"]),
    ("semaphore/notifications.rs", &["fork_safe", "sys"]),
    ("semaphore/signals.rs", &["access", "file::lock_file", "sys"]),
    ("semaphore/shared_flags.rs", &["access", "error", "file::open", "sys"]),
    ("semaphore/waiters.rs", &["error", "fork_safe", "file::lock_file", "sys"]),
    (
        "semaphore/table.rs",
        &["access", "error", "file::lock_file", "file::ticket_queue", "record", "sys", "wait"],
    ),
    ("semaphore/batch.rs", &["error", "file::lock_file"]),
    (
        "semaphore/slots.rs",
        &[
            "access",
            "error",
            "file::lock_file",
            "file::ticket_queue",
            "fork_safe",
            "paths",
            "record",
            "sys",
            "wait",
        ],
    ),
    (
        "barrier/mod.rs",
        &["access", "error", "file::lock_file", "lock_request", "options", "paths", "sys", "wait"],
    ),
    (
        "barrier/participants.rs",
        &["access", "error", "file::lock_file", "file::open", "fork_safe", "record", "sys", "wait"],
    ),
    ("barrier/state.rs", &["access", "error", "file::lock_file", "sys"]),
    ("barrier/status.rs", &["error"]),
    ("barrier/wait.rs", &["error", "trace", "wait"]),
    ("event/mod.rs", &["cancel", "error", "file::marker", "options", "paths", "wait"]),
    ("event/announcement.rs", &["error", "file::marker", "wait"]),
    ("event/seen.rs", &[]),
    ("event/wait.rs", &["cancel", "error", "file::marker", "options", "wait"]),
    (
        "shared_file/mod.rs",
        &[
            "error",
            "file::data_file",
            "holder",
            "holders",
            "options",
            "paths",
            "rwlock",
            "sys",
            "wait",
        ],
    ),
    ("shared_file/guards.rs", &["error", "file::data_file", "rwlock"]),
    (
        "once.rs",
        &[
            "error",
            "event",
            "file::durability",
            "holder",
            "holders",
            "lock",
            "options",
            "paths",
            "sys",
            "wait",
        ],
    ),
    (
        "inspect.rs",
        &[
            "barrier",
            "error",
            "file::open",
            "fork_safe",
            "holder",
            "holders",
            "paths",
            "record",
            "rwlock",
            "semaphore",
            "options",
            "sys",
            "wait",
            "waiter_list",
        ],
    ),
    ("serialized.rs", &["holder", "inspect", "printable", "process", "sys"]),
    ("lib.rs", &[]),
];

/// The modules that the primitives with a lock file use.
const PRIMITIVE: &[&str] = &[
    "access",
    "error",
    "file::guard",
    "file::lock_file",
    "file::ticket_queue",
    "holder",
    "holders",
    "line",
    "lock_request",
    "options",
    "paths",
    "sys",
    "wait",
];

/// The files of the command have no layers, and see only the public part of the library.
const COMMAND: &str = "bin/";

/// Names that only these files may contain.
const RESERVED: &[(&str, &[&str])] = &[
    ("fs4", &["sys/flock.rs"]),
    (
        "rustix",
        &[
            "sys/unix/mod.rs",
            "sys/unix/announcement.rs",
            "sys/unix/directories.rs",
            "sys/unix/fifo.rs",
            "sys/unix/attributes.rs",
            "sys/unix/processes.rs",
            "sys/unix/file_system.rs",
            "sys/unix/linux_proc.rs",
            "sys/unix/lost_locks.rs",
            "sys/unix/mounts.rs",
        ],
    ),
    ("forkguard", &["sys/unix/processes.rs"]),
    // A fork while another thread initializes one makes the copy wait forever (rule 4). The copy of
    // a guard does not initialize one.
    ("OnceLock", &["file/guard.rs"]),
    ("LazyLock", &[]),
    (
        "tempfile",
        &["sys/unix/mod.rs", "sys/windows/mod.rs", "sys/unsupported.rs", "sys/atomic_write.rs"],
    ),
    (
        "std::os",
        &[
            "sys/unix/mod.rs",
            "sys/unix/directories.rs",
            "sys/unix/fifo.rs",
            "sys/unix/attributes.rs",
            "sys/unix/linux_proc.rs",
            "sys/unix/lost_locks.rs",
            "sys/unix/mounts.rs",
            "sys/windows/mod.rs",
        ],
    ),
    (
        "cfg(",
        &[
            "lib.rs",
            // It has the feature `testing`.
            "options.rs",
            "sync.rs",
            "trace.rs",
            "wait/watch/mod.rs",
            "sys/mod.rs",
            "sys/unix/mod.rs",
            "sys/unix/directories.rs",
            "sys/unix/attributes.rs",
            "sys/unix/processes.rs",
            "sys/unix/file_system.rs",
        ],
    ),
    ("fastrand", &["sys/random.rs", "wait/backoff.rs", "wait/shared_poll/poller.rs"]),
    ("notify::", &["wait/watch/watcher.rs"]),
    ("tracing::", &["trace.rs"]),
    ("serde::", &["serialized.rs"]),
    ("shuttle::", &["sync.rs", "wait/schedules.rs"]),
];

#[test]
fn each_file_names_only_modules_below_it() {
    limit!();
    let layers: BTreeMap<_, _> = LAYERS.iter().copied().collect();
    let mut findings = Vec::new();
    for (name, path) in source_files().into_iter().filter(|(name, _)| !name.starts_with(COMMAND)) {
        let Some(allowed) = layers.get(name.as_str()) else {
            findings.push(format!("src/{name} has no layer"));
            continue;
        };
        let identifier = |text: &str| -> String {
            text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
        };
        for rest in code(&path).split("crate::").skip(1) {
            let mut module = identifier(rest);
            if let Some(rest) = rest.strip_prefix("file::") {
                module = format!("file::{}", identifier(rest));
            }
            if !allowed.contains(&module.as_str()) {
                findings.push(format!("src/{name} names crate::{module}"));
            }
        }
    }
    let names: Vec<_> = source_files().into_iter().map(|(name, _)| name).collect();
    for (name, _) in LAYERS {
        if !names.iter().any(|other| other == name) {
            findings.push(format!("src/{name} does not exist"));
        }
    }
    assert_none("a file may name only the modules of its layer", &findings);
}

/// Returns the module of a file: its directory, or for `src/file` the file within it.
fn module_of(name: &str) -> String {
    let mut parts = name.trim_end_matches(".rs").split('/');
    match (parts.next(), parts.next()) {
        (Some("file"), Some(part)) if part != "mod" => format!("file::{part}"),
        (first, _) => first.unwrap_or_default().to_string(),
    }
}

/// Returns a cycle among the layers, if there is one: each module may name the next.
fn cycle(layers: &[(&str, &[&str])]) -> Option<Vec<String>> {
    let mut below: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, allowed) in layers {
        let module = module_of(name);
        let others = allowed.iter().map(ToString::to_string).filter(|other| *other != module);
        below.entry(module.clone()).or_default().extend(others);
    }
    // Modules without a module below them are removed, until only those above a cycle are left.
    while let Some(lowest) = below.iter().find(|(_, below)| below.is_empty()) {
        let lowest = lowest.0.clone();
        below.remove(&lowest);
        for below in below.values_mut() {
            below.remove(&lowest);
        }
    }
    let mut path = vec![below.keys().next()?.clone()];
    loop {
        let next = below[path.last()?].first().expect("unknown names are reported before").clone();
        let start = path.iter().position(|module| *module == next);
        path.push(next);
        if let Some(start) = start {
            return Some(path.split_off(start));
        }
    }
}

#[test]
fn layers_have_no_cycle() {
    limit!();
    let modules: BTreeSet<_> = LAYERS.iter().map(|(name, _)| module_of(name)).collect();
    let mut findings = Vec::new();
    for (name, allowed) in LAYERS {
        let unknown = allowed.iter().filter(|module| !modules.contains(**module));
        findings.extend(unknown.map(|module| format!("src/{name} may name crate::{module}")));
    }
    assert_none("every module in the table exists", &findings);
    assert_eq!(cycle(LAYERS), None);
    let circular: &[(&str, &[&str])] = &[
        ("a.rs", &["b"]),
        ("b/mod.rs", &[]),
        ("b/c.rs", &["b", "file::d"]),
        ("file/d.rs", &["b"]),
    ];
    assert_eq!(cycle(circular), Some(["b", "file::d", "b"].map(String::from).into()));
}

#[test]
fn reserved_names_appear_only_in_their_files() {
    limit!();
    let mut findings = Vec::new();
    for (name, path) in source_files().into_iter().filter(|(name, _)| !name.starts_with(COMMAND)) {
        let code = code(&path);
        for (word, _) in RESERVED.iter().filter(|(_, files)| !files.contains(&name.as_str())) {
            let is_use = |line: &&str| {
                line.contains(word) && !line.contains("crate::") && !line.contains("cfg_attr(")
            };
            findings.extend(code.lines().filter(is_use).map(|line| format!("src/{name}: {line}")));
        }
    }
    assert_none("only some files may contain a reserved name", &findings);
}

#[test]
fn source_files_have_at_most_500_lines_of_code() {
    limit!();
    let lines = |path: &Path| code(path).lines().filter(|line| !line.trim().is_empty()).count();
    let counts = source_files().into_iter().map(|(name, path)| (name, lines(&path)));
    let long = counts.filter(|(_, lines)| *lines > 500);
    let findings: Vec<_> = long.map(|(name, lines)| format!("src/{name}: {lines}")).collect();
    assert_none("a source file has at most 500 lines of code", &findings);
}
