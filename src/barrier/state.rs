//! The state of a barrier, which is the name of one file in its directory. A rename changes it in
//! one step, and of several processes that change the same state exactly one succeeds (rules B1 and
//! B2).

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::MAX_PARTIES;
use crate::access::Access;
use crate::error::{Error, Operation, Result};
use crate::file::lock_file::LockFile;
use crate::sys::{self, FileKind, Mode};

/// The lock file of the process that creates the barrier.
pub(super) const SETUP: &str = "setup";
/// A reading of the directory may miss a file that another process renames meanwhile, or list it
/// twice. It is repeated this many times.
const MAX_READINGS: u32 = 64;

/// How far the current generation has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Participants arrive.
    Open,
    /// All have arrived, and the leader runs its action.
    Full,
    /// A participant died or gave up.
    Broken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    pub(super) phase: Phase,
    pub(super) parties: u32,
    pub(super) generation: u64,
}

impl State {
    pub(super) fn with(self, phase: Phase) -> Self {
        Self { phase, ..self }
    }

    /// The state after this generation has ended. `None`: there are no more numbers.
    pub(super) fn next(self) -> Option<Self> {
        let generation = self.generation.checked_add(1)?;
        Some(Self { phase: Phase::Open, generation, ..self })
    }

    fn name(self) -> String {
        let phase = match self.phase {
            Phase::Open => "open",
            Phase::Full => "full",
            Phase::Broken => "broken",
        };
        format!("{phase}.{}.{}", self.parties, self.generation)
    }

    fn parse(name: &OsStr) -> Option<Self> {
        let mut parts = name.to_str()?.split('.');
        let phase = match parts.next()? {
            "open" => Phase::Open,
            "full" => Phase::Full,
            "broken" => Phase::Broken,
            _ => return None,
        };
        let parties = parts.next()?.parse().ok()?;
        let generation = parts.next()?.parse().ok()?;
        let state = Self { phase, parties, generation };
        // A name with a sign or a leading zero is not one that flockwork writes.
        let is_own = (1..=MAX_PARTIES).contains(&parties) && state.name() == name.to_str()?;
        is_own.then_some(state)
    }
}

/// The state of the barrier in `directory`. `None`: there is no barrier.
pub(crate) fn read(directory: &Arc<Path>) -> Result<Option<State>> {
    let mut found = None;
    for reading in 0..MAX_READINGS {
        if reading > 0 {
            std::thread::yield_now();
        }
        let entries = match sys::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            entries => entries.map_err(|source| Error::io(Operation::List, directory, source))?,
        };
        let mut states = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|source| Error::io(Operation::List, directory, source))?;
            states.extend(State::parse(&entry.file_name()));
        }
        found = states.first().copied();
        if let [state] = *states {
            return Ok(Some(state));
        }
    }
    if found.is_none() {
        return Ok(None);
    }
    let hint = "remove the barrier's directory while it is not in use";
    Err(Error::corrupt(directory, "it has several states", hint))
}

/// The same, for a caller that knows an earlier state. Usually the state is that one or one of
/// those that may follow. Then the directory is not opened, which the watches of all waiters would
/// report. Not for a network file system, where only a listing is current.
pub(super) fn read_after(directory: &Arc<Path>, known: State) -> Result<Option<State>> {
    let ended = [Phase::Broken, Phase::Full].map(|phase| Some(known.with(phase)));
    let following = [Some(known), known.next()].into_iter().chain(ended).flatten();
    for candidate in following {
        if exists(directory, candidate)? {
            return Ok(Some(candidate));
        }
    }
    read(directory)
}

fn exists(directory: &Arc<Path>, state: State) -> Result<bool> {
    let kind = sys::file_kind(&directory.join(state.name()));
    let kind = kind.map_err(|source| Error::io(Operation::LookUp, directory, source))?;
    Ok(kind != FileKind::Nothing)
}

/// Changes the state. `false`: it is not `from` any more.
///
/// Where two processes could rename the same name, they do so one after the other (rule B2).
pub(super) fn change(directory: &Arc<Path>, from: State, to: State) -> Result<bool> {
    let exists = || exists(directory, from);
    let mut _alone = None;
    if !sys::RENAMES_COMPARE_NAMES || sys::is_network_directory(directory) {
        if !exists()? {
            return Ok(false);
        }
        let setup = LockFile::open(&directory.join(SETUP), Access::default())?;
        _alone = Some(setup.lock(Mode::Exclusive)?);
        if !exists()? {
            return Ok(false);
        }
    }
    match sys::rename_new(&directory.join(from.name()), &directory.join(to.name())) {
        Ok(()) => Ok(true),
        // A client of a network file system may show a name that another host has changed, for as
        // long as it caches it. Only the new name shows then that the change was made.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) =>
        {
            Ok(false)
        }
        Err(source) => Err(Error::io(Operation::ChangeState, directory, source)),
    }
}

/// Creates the first state. Only for a process that holds the lock `setup`, and while there is
/// none.
pub(super) fn create(directory: &Arc<Path>, state: State, bits: Option<sys::Bits>) -> Result<()> {
    let created = sys::create_new(&directory.join(state.name()), bits);
    created.map(drop).map_err(|source| Error::io(Operation::Create, directory, source))
}

/// Ends the generation of `state` as broken, unless it has ended. Returns whether this call did.
pub(super) fn break_generation(directory: &Arc<Path>, state: State) -> Result<bool> {
    let broken = state.with(Phase::Broken);
    // An open generation may become full, and a full one never becomes open again.
    Ok(change(directory, state.with(Phase::Open), broken)?
        || change(directory, state.with(Phase::Full), broken)?)
}

// ------------------------------------------------------------------------------- reset generations

fn reset_mark(directory: &Path, generation: u64) -> PathBuf {
    directory.join(format!("reset.{generation}"))
}

/// Whether the generation, which has ended, was broken and reset (rule B6).
pub(super) fn was_reset(directory: &Arc<Path>, generation: u64) -> Result<bool> {
    let kind = sys::file_kind(&reset_mark(directory, generation));
    let kind = kind.map_err(|source| Error::io(Operation::LookUp, directory, source))?;
    Ok(kind != FileKind::Nothing)
}

/// Records that a broken generation is being reset.
pub(super) fn mark_reset(
    directory: &Arc<Path>,
    generation: u64,
    bits: Option<sys::Bits>,
) -> Result<()> {
    match sys::create_new(&reset_mark(directory, generation), bits) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(Error::io(Operation::ChangeState, directory, error))
        }
        _ => Ok(()),
    }
}

/// The generations that were reset and whose marks still exist.
pub(super) fn reset_generations(directory: &Arc<Path>) -> Result<Vec<u64>> {
    let failed = |source| Error::io(Operation::List, directory, source);
    let mut found = Vec::new();
    for entry in sys::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("reset."));
        found.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    Ok(found)
}

pub(super) fn remove_reset_mark(directory: &Arc<Path>, generation: u64) {
    let _ = std::fs::remove_file(reset_mark(directory, generation));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_another_process_has_made_is_not_made_again() {
        limit!();
        let dir = tempfile::tempdir().unwrap();
        let directory: Arc<Path> = dir.path().into();
        let open = State { phase: Phase::Open, parties: 2, generation: 7 };
        let (full, next) = (open.with(Phase::Full), open.next().unwrap());
        create(&directory, open, None).unwrap();
        assert!(change(&directory, open, full).unwrap());
        assert!(!change(&directory, open, full).unwrap());
        assert!(change(&directory, full, next).unwrap());
        // As a client with a cache shows it: the old name as well as the new one.
        create(&directory, full, None).unwrap();
        assert!(!change(&directory, full, next).unwrap());
        assert!(exists(&directory, next).unwrap());
    }

    #[test]
    fn a_state_is_read_from_the_name_that_it_has() {
        limit!();
        for phase in [Phase::Open, Phase::Full, Phase::Broken] {
            let state = State { phase, parties: 3, generation: u64::MAX };
            assert_eq!(State::parse(OsStr::new(&state.name())), Some(state));
            assert_eq!(state.next(), None);
        }
        for name in [
            "open",
            "open.3",
            "open.3.",
            "open.03.1",
            "open.+3.1",
            "open.0.1",
            "open.3.1.1",
            "open.4097.1",
            "Open.3.1",
        ] {
            assert_eq!(State::parse(OsStr::new(name)), None, "{name}");
        }
    }
}
