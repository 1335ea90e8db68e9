//! The capacity of a semaphore. It is a file in the semaphore's directory that is created once and
//! replaced by a resize. It is validated whenever it is read, since any program may have written to
//! it (rules S1 and S3).

use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::signals::create_signals;
use super::slots::Slots;
use super::table::{create_files, create_slots, created_at_once};
use crate::access::Access;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::file::lock_file::LockFile;
use crate::record;
use crate::sys::{self, FileId, Mode, Retries};

/// Each slot is a file, and a waiting process has all of them open.
pub(super) const MAX_PERMITS: u32 = 4096;
/// The longest text of a capacity that is read.
const MAX_BYTES: u64 = 32;

/// The capacity of a paused semaphore: no permit is granted until another one is set (S3).
pub(super) const PAUSED: u32 = 0;

pub(super) fn check_permits(directory: &Arc<Path>, requested: u32, most: u32) -> Result<()> {
    if (1..=most).contains(&requested) {
        return Ok(());
    }
    Err(Error::invalid_permits(directory, most, requested))
}

/// Checks a request for that number of permits. While the semaphore is paused, the capacity that
/// it will have is not known.
pub(super) fn check_requested(directory: &Arc<Path>, requested: u32, capacity: u32) -> Result<()> {
    let most = if capacity == PAUSED { MAX_PERMITS } else { capacity };
    check_permits(directory, requested, most)
}

pub(super) fn text(permits: u32) -> String {
    format!("{permits}\n")
}

/// The capacity of the semaphore, which is created with `permits` if it is missing (S1).
pub(super) fn establish(
    directory: &Arc<Path>,
    permits: Option<u32>,
    access: Access,
) -> Result<u32> {
    let path: Arc<Path> = directory.join("capacity").into();
    let mut retries = Retries::new();
    while retries.again() {
        match std::fs::symlink_metadata(directory) {
            Ok(found) if !found.is_dir() => {
                return Err(Error::not_a_directory(directory, sys::describe(found.file_type())));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io(Operation::LookUp, directory, error));
            }
            _ => {}
        }
        match (read(&path), permits) {
            (Err(error), _)
                if error.kind() == ErrorKind::NotFound
                    && record::has_participants(directory).unwrap_or(false) =>
            {
                return Err(Error::not_a_semaphore(directory, "a barrier's directory"));
            }
            (Err(error), Some(permits)) if error.kind() == ErrorKind::NotFound => {
                sys::create_directories(directory, access.bits())
                    .map_err(|source| Error::io(Operation::Create, directory, source))?;
                match create_files(directory, permits, access) {
                    // The directory has been removed in the meantime.
                    Err(error) if error.kind() == ErrorKind::NotFound && !directory.exists() => {
                        continue;
                    }
                    created => created?,
                }
                match sys::write_new(&path, text(permits).as_bytes(), access.bits()) {
                    Ok(()) => return Ok(permits),
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(error)
                        if error.kind() == io::ErrorKind::NotFound && !directory.exists() => {}
                    Err(source) => return Err(Error::io(Operation::Create, &path, source)),
                }
            }
            (Err(error), None) if error.kind() == ErrorKind::NotFound => {
                let source = sys::explained(
                    io::ErrorKind::NotFound,
                    "there is no semaphore",
                    "create it first, by opening it with a number of permits",
                );
                return Err(Error::io(Operation::Open, directory, source));
            }
            (other, _) => return other,
        }
    }
    let source = io::Error::other("another program removed it each time before it could be read");
    Err(Error::io(Operation::Open, &path, source))
}

/// The capacity of the semaphore in `directory`. An error of the kind `NotFound` means that there
/// is no semaphore.
pub(crate) fn read_in(directory: &Path) -> Result<u32> {
    read(&directory.join("capacity").into())
}

pub(super) fn read(path: &Arc<Path>) -> Result<u32> {
    let failed = |source| Error::io(Operation::Read, path, source);
    let found = std::fs::symlink_metadata(path).map_err(failed)?;
    if !found.is_file() {
        return Err(Error::not_regular(path, sys::describe(found.file_type())));
    }
    let contents = sys::through_replacements(|| {
        let file = sys::through_readers(|| sys::open_to_read(path))?;
        if !file.metadata().map_err(sys::of_open_file)?.is_file() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(sys::of_open_file)?;
        Ok(Some(bytes))
    });
    let Some(bytes) = contents.map_err(failed)? else {
        return Err(Error::not_regular(path, "a special file"));
    };
    parse(&bytes).ok_or_else(|| {
        let shown =
            String::from_utf8_lossy(&bytes[..bytes.len().min(16)]).escape_debug().to_string();
        let problem = format!(
            "it begins with \"{shown}\" instead of a number of permits (0 to {MAX_PERMITS})"
        );
        let hint =
            "write the number into it, or remove the semaphore's directory while it is not in use";
        Error::corrupt(path, problem, hint)
    })
}

/// Decimal digits and an optional line end.
fn parse(bytes: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(bytes).ok().filter(|_| bytes.len() as u64 <= MAX_BYTES)?;
    let digits = text.trim_end_matches(['\n', '\r']);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|permits| *permits <= MAX_PERMITS)
}

impl Slots {
    /// Changes the capacity to what `new` returns for the current one, one process at a time: the
    /// capacity first, then the flag that it has changed, then the notification (S3). Returns the
    /// new capacity.
    pub(crate) fn change_capacity(&self, new: impl Fn(u32) -> i64) -> Result<u32> {
        self.refresh()?; // creates a missing semaphore again, or returns that it is missing
        let lock = LockFile::open(&self.directory.join("resize"), self.creation)?;
        let lock = lock.lock(Mode::Exclusive)?;
        self.refresh()?;
        let path: Arc<Path> = self.directory.join("capacity").into();
        let failed = |operation| move |source| Error::io(operation, &self.directory, source);
        let known = read(&path)?;
        let requested = new(known);
        let permits = u32::try_from(requested).ok().filter(|permits| *permits <= MAX_PERMITS);
        let Some(permits) = permits else {
            return Err(Error::invalid_capacity(&self.directory, MAX_PERMITS, requested));
        };
        let created = created_at_once(permits, self.is_network());
        create_slots(&self.directory, self.creation, known..created)?;
        create_signals(&self.directory, self.access, known..permits);
        if known != permits {
            sys::replace(&path, text(permits).as_bytes(), self.access.bits())
                .map_err(failed(Operation::SetCapacity))?;
        }
        // This is done even if the capacity had that value already: its writer may have died before
        // it changed the flag.
        let flags = Arc::clone(&self.table().flags);
        flags.next_generation().map_err(failed(Operation::SetCapacity))?;
        drop(lock);
        self.poke(&flags);
        self.signal_change();
        self.refresh()?;
        Ok(permits)
    }
}

/// Identifies the `capacity` file that was read.
pub(super) type Stamp = Option<(FileId, Option<SystemTime>)>;

pub(super) fn stamp(directory: &Path) -> Stamp {
    let path = directory.join("capacity");
    let changed = std::fs::symlink_metadata(&path).ok()?.modified().ok();
    Some((sys::path_identity(&path).ok()?, changed))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, TestCaseError, any, prop_assert_eq};

    use super::*;

    #[test]
    fn a_capacity_is_digits_and_nothing_else() {
        limit!();
        for (text, permits) in
            [("0\n", 0), ("1", 1), ("4\n", 4), ("12\r\n", 12), ("4096\n", 4096), ("0004", 4)]
        {
            assert_eq!(parse(text.as_bytes()), Some(permits), "{text:?}");
        }
        for text in
            ["", "\n", "-1", "+1", " 1", "1 ", "1.0", "0x4", "4097", "99999999999999999999", "١"]
        {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(parse(b"\xff\xfe"), None);
        assert_eq!(parse(&[b'0'; 40]), None);
        assert_eq!(parse(&[0; 8]), None);
    }

    proptest::proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

        #[test]
        fn a_written_capacity_is_read_back(permits in 0..=MAX_PERMITS) {
            limit!();
            prop_assert_eq!(parse(text(permits).as_bytes()), Some(permits));
        }

        #[test]
        fn any_bytes_are_parsed_like_the_reference(bytes in any::<Vec<u8>>()) {
            limit!();
            check(&bytes)?;
        }

        #[test]
        fn nearly_valid_numbers_are_parsed_like_the_reference(text in "[ +-]?0{0,40}[0-9]{0,6}[ x\\x00٣]?[\r\n]{0,3}") {
            limit!();
            check(text.as_bytes())?;
        }
    }

    /// Checks `parse` against a different implementation.
    fn check(bytes: &[u8]) -> Result<(), TestCaseError> {
        let end = bytes.iter().rposition(|byte| !b"\r\n".contains(byte)).map_or(0, |at| at + 1);
        let mut number = Some(0_u64).filter(|_| end > 0 && bytes.len() <= 32);
        for byte in &bytes[..end] {
            let digit = char::from(*byte).to_digit(10).map(u64::from);
            number = number.zip(digit).map(|(number, digit)| number.saturating_mul(10) + digit);
        }
        let wanted = number.filter(|number| *number <= 4096);
        prop_assert_eq!(parse(bytes).map(u64::from), wanted);
        Ok(())
    }
}
