//! The names in a directory, as hashes that processes of different versions agree on.

use std::ffi::{OsStr, OsString};

use super::PolledTarget;

/// The names in a directory at one moment. Of each name there are two hashes: one of its bytes, and
/// one of its lower-case form, since the file system may not distinguish upper from lower case.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listing(Vec<u64>);

/// Two different values, so that a name and a lower-case form never have the same hash.
const EXACT: &[u8] = b"=";
const FOLDED: &[u8] = b"~";
/// FNV-1a, whose hashes are the same in each process and each version.
const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

fn hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let bytes = parts.into_iter().flatten();
    bytes.fold(OFFSET, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
}

fn exact(name: &OsStr) -> u64 {
    hash([EXACT, name.as_encoded_bytes()])
}

fn folded(name: &OsStr) -> u64 {
    hash([FOLDED, name.to_string_lossy().to_lowercase().as_bytes()])
}

impl Listing {
    pub(super) fn of(names: &[OsString]) -> Self {
        let mut hashes: Vec<u64> =
            names.iter().flat_map(|name| [exact(name), folded(name)]).collect();
        hashes.sort_unstable();
        hashes.dedup();
        Self(hashes)
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|hash| hash.to_le_bytes()).collect()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap_or_default());
        let mut hashes: Vec<u64> = bytes.chunks_exact(8).map(number).collect();
        hashes.sort_unstable();
        Self(hashes)
    }

    /// A number that is different for another listing.
    pub(super) fn version(&self) -> u64 {
        let whole = self.0.iter().fold(OFFSET, |whole, hash| (whole ^ hash).wrapping_mul(PRIME));
        whole.max(1)
    }

    fn has(&self, hash: u64) -> bool {
        self.0.binary_search(&hash).is_ok()
    }
}

/// What a waiter waits for.
#[derive(Debug)]
pub(super) struct Interest {
    hashes: Vec<u64>,
    until_absent: bool,
}

impl Interest {
    pub(super) fn of(target: &PolledTarget) -> Self {
        let until_absent = target.until_absent;
        // Names that differ in case may be the same: then the waiter checks once too often.
        let hash = if until_absent { exact } else { folded };
        Self { hashes: target.names.iter().map(|name| hash(name)).collect(), until_absent }
    }

    /// Whether a check after this listing may succeed.
    pub(super) fn may_be_met(&self, listing: &Listing) -> bool {
        self.hashes.iter().any(|hash| listing.has(*hash) != self.until_absent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn interest(names: &[&str], until_absent: bool) -> Interest {
        let names = names.iter().map(OsString::from).collect();
        Interest::of(&PolledTarget { directory: Path::new("d").into(), names, until_absent })
    }

    fn listing(names: &[&str]) -> Listing {
        Listing::of(&names.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn a_listing_meets_the_interest_in_its_names() {
        limit!();
        let (set, cleared) = (interest(&["ready"], false), interest(&["ready"], true));
        let consumed = interest(&["ready", "ready.taken"], false);
        for (names, is_set, is_cleared, is_consumed) in [
            (&[][..], false, true, false),
            (&["other"], false, true, false),
            (&["other", "ready"], true, false, true),
            (&["ready.taken"], false, true, true),
            // On a file system that distinguishes them, both waiters check again.
            (&["READY"], true, true, true),
        ] {
            let listing = listing(names);
            assert_eq!(set.may_be_met(&listing), is_set, "{names:?}");
            assert_eq!(cleared.may_be_met(&listing), is_cleared, "{names:?}");
            assert_eq!(consumed.may_be_met(&listing), is_consumed, "{names:?}");
        }
    }

    #[test]
    fn a_listing_is_read_as_it_was_written() {
        limit!();
        let written = listing(&["a", "b", "C"]);
        let read = Listing::from_bytes(&written.to_bytes());
        assert_eq!(read, written);
        assert_eq!(read.version(), written.version());
        assert_ne!(read.version(), listing(&["a", "b"]).version());
        assert_ne!(listing(&[]).version(), 0);
        for cut in 0..written.to_bytes().len() {
            let _ = Listing::from_bytes(&written.to_bytes()[..cut]);
        }
    }
}
