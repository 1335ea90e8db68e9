//! Contents that show whether they are whole: all bytes follow from a number.

use crate::dice::Dice;

pub(crate) fn make(number: u64) -> Vec<u8> {
    let length = usize::try_from(number % 5000).unwrap_or(0);
    let mut dice = Dice::of(number, &[]);
    let mut bytes = number.to_le_bytes().to_vec();
    while bytes.len() < 8 + length {
        bytes.extend(dice.next().to_le_bytes());
    }
    bytes.truncate(8 + length);
    bytes
}

/// The number; nothing is a zero. `None`: it is not whole.
pub(crate) fn number(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() {
        return Some(0);
    }
    let number = u64::from_le_bytes(*bytes.first_chunk()?);
    (make(number) == bytes).then_some(number)
}
