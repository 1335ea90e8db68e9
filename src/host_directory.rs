//! The directory in which the processes of one user and host leave each other small files, for
//! example to agree on which of them asks the server of a network file system.

use std::path::{Path, PathBuf};

use crate::sys;

/// Where systemd and others create a directory for each user who is logged in.
const RUNTIME_DIRECTORIES: &str = "/run/user";
const NAME: &str = "flockwork";

/// The directory of this user on this host, which is created if it does not exist. `None` if there
/// is none that no other user can write to. Other processes of the user may get another one, or
/// none: nothing but the load of a server may depend on it (rule 18).
pub(crate) fn host_directory() -> Option<PathBuf> {
    let user = sys::user_number()?;
    let runtime = Path::new(RUNTIME_DIRECTORIES).join(user.to_string());
    within(&runtime, &std::env::temp_dir(), user)
}

/// The directories of this user on this host that exist. Each process uses one of them.
pub(crate) fn host_directories() -> Vec<PathBuf> {
    let Some(user) = sys::user_number() else { return Vec::new() };
    let runtime = Path::new(RUNTIME_DIRECTORIES).join(user.to_string());
    existing(&runtime, &std::env::temp_dir(), user)
}

fn existing(runtime: &Path, temporary: &Path, user: u32) -> Vec<PathBuf> {
    let in_runtime = sys::is_private_directory(runtime).then(|| runtime.join(NAME));
    let in_temporary = sys::protects_names(temporary).then(|| of_user(temporary, user));
    let both = [in_runtime, in_temporary].into_iter().flatten();
    both.filter(|directory| sys::is_private_directory(directory)).collect()
}

fn of_user(temporary: &Path, user: u32) -> PathBuf {
    temporary.join(format!("{NAME}-{user}"))
}

/// The directory `flockwork` in `runtime` if that is private, or else `flockwork-USER` in
/// `temporary`.
fn within(runtime: &Path, temporary: &Path, user: u32) -> Option<PathBuf> {
    if sys::is_private_directory(runtime) {
        if let Some(own) = private(runtime.join(NAME)) {
            return Some(own);
        }
    }
    if !sys::protects_names(temporary) {
        return None;
    }
    private(of_user(temporary, user))
}

/// The directory at `path`, which is created if nothing has that name. `None` if the name belongs
/// to another user's directory, or to anything else.
fn private(path: PathBuf) -> Option<PathBuf> {
    // A failure is either that it exists, or seen by the check.
    let _ = sys::create_private_directory(&path);
    sys::is_private_directory(&path).then_some(path)
}

// Unix only: elsewhere no such directory is used.
#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::slice;

    type Plant<'a> = (&'a str, Box<dyn Fn() + 'a>);

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Returns a directory that contains `runtime`, private, and `temporary` with the sticky bit.
    fn directories() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (runtime, temporary) = (dir.path().join("runtime"), dir.path().join("temporary"));
        for (path, mode) in [(&runtime, 0o700), (&temporary, 0o1777)] {
            std::fs::create_dir(path).unwrap();
            set_mode(path, mode);
        }
        (dir, runtime, temporary)
    }

    #[test]
    fn the_runtime_directory_comes_first() {
        limit!();
        let (_dir, runtime, temporary) = directories();
        let user = sys::user_number().unwrap();
        let fallback = temporary.join(format!("flockwork-{user}"));
        assert_eq!(existing(&runtime, &temporary, user), Vec::<PathBuf>::new());
        for _ in 0..2 {
            let found = within(&runtime, &temporary, user).unwrap();
            assert_eq!(found, runtime.join("flockwork"));
            let metadata = found.symlink_metadata().unwrap();
            assert_eq!((metadata.mode() & 0o777, metadata.uid()), (0o700, user));
        }
        assert!(!fallback.exists());
        for mode in [0o755, 0o770, 0o500] {
            set_mode(&runtime, mode);
            assert_eq!(within(&runtime, &temporary, user), Some(fallback.clone()), "{mode:o}");
        }
        assert_eq!(fallback.symlink_metadata().unwrap().mode() & 0o777, 0o700);
        assert_eq!(existing(&runtime, &temporary, user), slice::from_ref(&fallback));
        set_mode(&runtime, 0o700);
        let both = [runtime.join("flockwork"), fallback.clone()];
        assert_eq!(existing(&runtime, &temporary, user), both);
        set_mode(&runtime.join("flockwork"), 0o777);
        assert_eq!(within(&runtime, &temporary, user), Some(fallback.clone()));
        assert_eq!(existing(&runtime, &temporary, user), slice::from_ref(&fallback));
        std::fs::remove_dir_all(&runtime).unwrap();
        assert_eq!(within(&runtime, &temporary, user), Some(fallback.clone()));
        // A link to a private directory may be changed at any time.
        let (_other, elsewhere, _) = directories();
        std::os::unix::fs::symlink(&elsewhere, &runtime).unwrap();
        assert_eq!(within(&runtime, &temporary, user), Some(fallback));
        assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
    }

    #[test]
    fn a_planted_name_is_neither_used_nor_changed() {
        limit!();
        let (dir, _, temporary) = directories();
        let (missing, target) = (dir.path().join("missing"), dir.path().join("target"));
        std::fs::create_dir(&target).unwrap();
        set_mode(&target, 0o700);
        let user = sys::user_number().unwrap();
        let own = temporary.join(format!("flockwork-{user}"));
        let mut plants: Vec<Plant<'_>> = vec![
            ("a link", Box::new(|| std::os::unix::fs::symlink(&target, &own).unwrap())),
            ("a dangling link", Box::new(|| std::os::unix::fs::symlink("no", &own).unwrap())),
            ("a file", Box::new(|| std::fs::write(&own, "theirs").unwrap())),
            (
                "a public directory",
                Box::new(|| {
                    std::fs::create_dir(&own).unwrap();
                    set_mode(&own, 0o777);
                }),
            ),
            (
                "a directory of its group",
                Box::new(|| {
                    std::fs::create_dir(&own).unwrap();
                    set_mode(&own, 0o750);
                }),
            ),
        ];
        if rustix::process::geteuid().is_root() {
            plants.push((
                "another user's directory",
                Box::new(|| {
                    std::fs::create_dir(&own).unwrap();
                    set_mode(&own, 0o700);
                    std::os::unix::fs::chown(&own, Some(65534), None).unwrap();
                }),
            ));
        }
        for (what, plant) in plants {
            plant();
            let before = own.symlink_metadata().unwrap();
            assert_eq!(within(&missing, &temporary, user), None, "{what}");
            let after = own.symlink_metadata().unwrap();
            let state = |it: std::fs::Metadata| (it.ino(), it.mode(), it.uid(), it.len());
            assert_eq!(state(before), state(after), "{what}");
            let is_directory = own.symlink_metadata().unwrap().is_dir();
            let remove: fn(&Path) -> _ = if is_directory {
                |it| std::fs::remove_dir(it)
            } else {
                |it| std::fs::remove_file(it)
            };
            remove(&own).unwrap();
        }
        assert_eq!(std::fs::read_dir(&target).unwrap().count(), 0);
        assert_eq!(within(&missing, &temporary, user), Some(own));
    }

    #[test]
    fn a_directory_whose_names_others_may_change_is_not_used() {
        limit!();
        let (dir, _, temporary) = directories();
        let missing = dir.path().join("missing");
        let user = sys::user_number().unwrap();
        for (mode, is_used) in [(0o777, false), (0o775, false), (0o1777, true), (0o755, true)] {
            set_mode(&temporary, mode);
            assert_eq!(within(&missing, &temporary, user).is_some(), is_used, "{mode:o}");
        }
        assert_eq!(within(&missing, &missing, user), None);
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&temporary, Some(65534), None).unwrap();
            assert_eq!(within(&missing, &temporary, user), None, "its owner may rename it");
        }
        // Nothing can be created there.
        assert_eq!(within(&missing, Path::new("/proc"), user), None);
    }
}
