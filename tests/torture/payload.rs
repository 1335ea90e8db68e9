//! File contents that show whether they are complete: all bytes follow from a number.

use crate::rng::Rng;

pub(crate) fn make(number: u64) -> Vec<u8> {
    let length = usize::try_from(number % 5000).unwrap_or(0);
    let mut bytes = vec![0; 8 + length];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    Rng::for_purpose(number, &[]).fill(&mut bytes[8..]);
    bytes
}

/// Returns the number of a payload, zero if it is empty, or `None` if it is incomplete.
pub(crate) fn number(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() {
        return Some(0);
    }
    let number = u64::from_le_bytes(*bytes.first_chunk()?);
    (make(number) == bytes).then_some(number)
}
