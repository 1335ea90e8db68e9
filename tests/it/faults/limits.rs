//! Resource limits of a process, reached at each point of an operation.

use std::path::PathBuf;
use std::sync::Mutex;

use super::attempt::{Fault, Manner, Outcome, attempt};
use super::operations::all;
use super::{Sharing, is_all, judge, may_be_cleared};

const SIGXFSZ: i32 = 25;

/// Copies this binary so that another user can run it, because limits do not apply to the
/// superuser.
fn copied() -> Option<(tempfile::TempDir, PathBuf)> {
    use std::os::unix::fs::PermissionsExt as _;
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let open = std::fs::Permissions::from_mode(0o755);
    let dir = tempfile::Builder::new().permissions(open).tempdir().unwrap();
    let copy = dir.path().join("it");
    crate::support::copy_program(std::env::current_exe().unwrap(), &copy);
    Some((dir, copy))
}

/// The number of successes, typed errors and deaths.
type Counts = [usize; 3];

fn under(
    name: &str,
    faults: &[Fault],
    manner: Manner<'_>,
    is_judged: impl Fn(&Outcome) -> bool + Sync,
) -> Counts {
    let counts = Mutex::new(Counts::default());
    let only = std::env::var("FLOCKWORK_FAULTS_OF").unwrap_or_default();
    let operations = all().into_iter().enumerate().filter(|(_, it)| it.name.contains(&only));
    // Each limit is tried on a different third of the operations.
    let is_tried = |(place, _): &(usize, _)| is_all() || (place + faults.len()) % 3 == 0;
    let sharing = Sharing::new(operations.filter(is_tried));
    sharing.run(|(_, operation)| {
        let plain = attempt(operation, &Fault::Nothing, manner);
        for fault in faults {
            let tried = attempt(operation, fault, manner);
            counts.lock().unwrap()[match &tried.outcome {
                Outcome::Ok(_) => 0,
                Outcome::Err { .. } => 1,
                _ => 2,
            }] += 1;
            let mut problems = judge(operation, fault, &plain, &tried);
            if is_judged(&tried.outcome) {
                let is_half = tried.after != tried.before
                    && tried.after != plain.after
                    && !may_be_cleared(operation, &tried)
                    && (plain.created.is_none() || plain.created.as_ref() != Some(&tried.after));
                problems.clone_from(&tried.problems);
                problems
                    .extend(is_half.then(|| format!("the directory contains {:?}", tried.after)));
            }
            if !problems.is_empty() {
                sharing.fail(format!(
                    "{}, {fault}: {:?}: {problems:?}",
                    operation.name, tried.outcome
                ));
            }
        }
    });
    let counts = counts.into_inner().unwrap();
    let failures = sharing.failures.into_inner().unwrap();
    super::written(name, || {
        let [ok, failed, killed] = counts;
        format!(
            "{} tries: success {ok}, a typed error {failed}, ended by SIGXFSZ {killed}, other {}.",
            ok + failed + killed,
            failures.len()
        )
    });
    assert!(failures.is_empty(), "{} problems:\n{}", failures.len(), failures.join("\n"));
    counts
}

#[test]
fn a_descriptor_limit_is_an_error_or_compensated_for() {
    limit!(4 * crate::limit::LIMIT); // it starts hundreds of processes
    let room = |room| Fault::Limit { resource: "files", room };
    let rooms: Vec<_> = (0..=6).map(room).collect();
    let [ok, failed, _] = under("descriptors", &rooms, Manner::default(), |_| false);
    assert!(ok > 0 && failed > 0, "the limit was never reached, or always");
}

#[test]
fn without_another_thread_each_operation_goes_on() {
    limit!(4 * crate::limit::LIMIT); // it starts hundreds of processes
    let copied = copied();
    let unprivileged = copied.as_ref().map(|(_, copy)| copy.as_path());
    let manner = Manner { unprivileged, ..Manner::default() };
    let limit = [Fault::Limit { resource: "threads", room: 0 }];
    let [ok, ..] = under("threads", &limit, manner, |outcome| {
        assert!(!matches!(outcome, Outcome::Err { kind, .. } if kind == "failed"), "{outcome:?}");
        false
    });
    assert!(ok > 0);
}

/// The kernel then kills the process with SIGXFSZ, as it kills any other process that writes.
#[test]
fn a_file_size_limit_kills_and_leaves_no_partial_write() {
    limit!(4 * crate::limit::LIMIT); // it starts hundreds of processes
    let killed = |outcome: &Outcome| *outcome == Outcome::Killed(SIGXFSZ);
    let limit = [Fault::Limit { resource: "size", room: 0 }];
    let [ok, _, died] = under("size", &limit, Manner::default(), killed);
    assert!(ok > 0 && died > 0, "the limit was never reached, or always");
}

/// Shells, Python and other programs start processes with the signal ignored.
#[test]
fn a_file_size_limit_is_an_error_if_its_signal_is_ignored() {
    limit!(4 * crate::limit::LIMIT); // it starts hundreds of processes
    let through = ["sh", "-c", "trap '' XFSZ && exec \"$0\" \"$@\""];
    let manner = Manner { through: &through, ..Manner::default() };
    let limit = [Fault::Limit { resource: "size", room: 0 }];
    let [ok, failed, _] = under("size-ignored", &limit, manner, |_| false);
    assert!(ok > 0 && failed > 0, "the limit was never reached, or always");
}
