//! Random numbers, and names that no other process uses.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A generator whose numbers differ from those of all other generators in any process.
///
/// fastrand seeds one generator per thread from a clock and the thread's number, and `fork` copies
/// that generator, so that siblings would draw the same numbers. Three parts are mixed in: the
/// process number distinguishes siblings, the time distinguishes processes of one number (in two
/// pid namespaces or on two hosts), and the count distinguishes the generators of one process. The
/// count also serves while a thread ends, when `Rng::new` finds the thread's generator gone and
/// starts from a constant.
pub(crate) fn generator() -> fastrand::Rng {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut generator = fastrand::Rng::new();
    for part in [
        u64::from(std::process::id()),
        now.as_secs(),
        u64::from(now.subsec_nanos()),
        COUNT.fetch_add(1, Ordering::Relaxed),
    ] {
        let seed = generator.u64(..) ^ part;
        generator.seed(seed);
    }
    generator
}

/// A name in the same directory that no other process uses. Callers do not retry after a collision,
/// which takes two equal numbers of 64 bits.
pub(crate) fn unique_beside(path: &Path) -> PathBuf {
    path.with_file_name(format!(".flockwork.{:016x}", generator().u64(..)))
}

/// Whether the name has the form that [`unique_beside`] gives.
pub(crate) fn is_unique_name(name: &str) -> bool {
    name.strip_prefix(".flockwork.")
        .is_some_and(|rest| rest.len() == 16 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

// Unix only: Windows has no fork.
#[cfg(all(test, unix))]
mod tests {
    /// The children of one fork server draw names that differ from each other.
    #[test]
    fn forked_copies_draw_different_names() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let _used = super::unique_beside(dir.path());
        for child in 0..3 {
            match fork::fork().unwrap() {
                fork::Fork::Child => {
                    let name = super::unique_beside(dir.path());
                    let name = name.file_name().unwrap().to_string_lossy();
                    let _ = std::fs::write(dir.path().join(child.to_string()), &*name);
                    // `std::process::exit` would wait forever for a mutex of the standard library
                    // if another thread was starting or ending during the fork.
                    let mut end = std::process::Command::new("true");
                    panic!("{}", std::os::unix::process::CommandExt::exec(&mut end));
                }
                fork::Fork::Parent(child) => {
                    let child = rustix::process::Pid::from_raw(child);
                    let none = rustix::process::WaitOptions::empty();
                    let status = rustix::process::waitpid(child, none).unwrap().unwrap().1;
                    assert_eq!(status.exit_status(), Some(0));
                }
            }
        }
        let name =
            |child: i32| std::fs::read_to_string(dir.path().join(child.to_string())).unwrap();
        assert!((0..3).all(|child| super::is_unique_name(&name(child))));
        assert!(name(0) != name(1) && name(1) != name(2) && name(0) != name(2));
    }

    #[test]
    fn generators_of_one_process_draw_different_numbers() {
        limit!();
        let numbers: std::collections::BTreeSet<_> =
            (0..1000).map(|_| super::generator().u64(..)).collect();
        assert_eq!(numbers.len(), 1000);
    }

    /// The destructor of another thread-local value may wait for a lock when fastrand's value is
    /// gone already.
    #[test]
    fn a_generator_is_available_while_a_thread_ends() {
        limit!();
        struct Draws(std::sync::mpsc::Sender<u64>);
        impl Drop for Draws {
            fn drop(&mut self) {
                self.0.send(super::generator().u64(..)).unwrap();
            }
        }
        thread_local! {
            static DRAWS: std::cell::RefCell<Option<Draws>> = const { std::cell::RefCell::new(None) };
        }
        let (sender, receiver) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || DRAWS.set(Some(Draws(sender))));
        receiver.recv().unwrap();
        thread.join().unwrap();
    }
}
