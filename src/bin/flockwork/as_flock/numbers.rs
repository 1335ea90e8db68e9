//! Parses the numbers on flock(1)'s command line.

use std::ffi::OsStr;
use std::num::{IntErrorKind, ParseIntError};
use std::time::Duration;

use super::request::Wait;
use crate::exit::Failure;

/// Seconds with fractions, as strtod(3) reads them, except hexadecimal numbers. Zero is the same as
/// `-n`.
pub(super) fn timeout(value: &OsStr) -> Result<Wait, Failure> {
    let text = value.to_string_lossy();
    let Ok(seconds) = trim_start(&text).parse::<f64>() else {
        return Err(Failure::usage(format!("invalid timeout value: '{text}'")));
    };
    let micros = (seconds.fract() * 1e6).trunc();
    if seconds.trunc() == 0.0 && micros == 0.0 {
        return Ok(Wait::Never);
    }
    Ok(Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|span| i64::try_from(span.as_secs()).is_ok())
        .map_or(Wait::Impossible, Wait::Until))
}

pub(super) fn exit_code(value: &OsStr) -> Result<i32, Failure> {
    match integer(value, "invalid exit code")? {
        code @ 0..=255 => Ok(code),
        _ => Err(Failure::usage("exit code out of range (expected 0 to 255)")),
    }
}

pub(super) fn descriptor(value: &OsStr) -> Result<i32, Failure> {
    integer(value, "bad file descriptor")
}

/// The number of `--fd`, which must not be negative.
pub(super) fn open_descriptor(value: &OsStr) -> Result<i32, Failure> {
    match descriptor(value)? {
        number @ 0.. => Ok(number),
        number => Err(Failure::usage(format!("bad file descriptor: '{number}'"))),
    }
}

fn integer(value: &OsStr, message: &str) -> Result<i32, Failure> {
    let text = value.to_string_lossy();
    trim_start(&text).parse().map_err(|error: ParseIntError| {
        let why = match error.kind() {
            IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => {
                ": Numerical result out of range"
            }
            _ => "",
        };
        Failure::usage(format!("{message}: '{text}'{why}"))
    })
}

/// A number of bytes, with a unit: K or KiB, M or MiB, ... (powers of 1024), KB, MB, ... (powers of
/// 1000). As with strtoumax(3) it may have a sign, and is octal after `0` and hexadecimal after
/// `0x`.
pub(super) fn size(value: &OsStr, option: &str) -> Result<i64, Failure> {
    let text = value.to_string_lossy();
    parse_size(trim_start(&text)).ok_or_else(|| {
        Failure::usage(format!("{option}: '{text}' is not a number of bytes"))
            .hint("give a number such as 4096, 4K (units of 1024) or 4KB (units of 1000)")
    })
}

/// A number beyond `i64` becomes negative, and the system rejects it, as with flock(1).
fn parse_size(text: &str) -> Option<i64> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let (digits, radix) = match text.strip_prefix('0') {
        Some(rest) if rest.starts_with(['x', 'X']) => (&rest[1..], 16),
        Some(rest) if rest.starts_with(|digit: char| digit.is_ascii_digit()) => (rest, 8),
        _ => (text, 10),
    };
    let end = digits.find(|digit: char| !digit.is_digit(radix)).unwrap_or(digits.len());
    let (number, unit) = digits.split_at(end);
    let number = u64::from_str_radix(number, radix).ok()?;
    let Some(letter) = unit.chars().next() else { return Some(as_signed(number)) };
    let power = "KMGTPE".find(letter.to_ascii_uppercase())?;
    let base: u64 = match &unit[1..] {
        "" | "iB" => 1024,
        "B" => 1000,
        _ => return None,
    };
    let bytes = number.checked_mul(base.checked_pow(u32::try_from(power + 1).ok()?)?)?;
    Some(as_signed(bytes))
}

fn as_signed(number: u64) -> i64 {
    i64::from_ne_bytes(number.to_ne_bytes())
}

/// Removes leading white space, as strtol(3) does.
fn trim_start(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\n', '\u{b}', '\u{c}', '\r'])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq};

    use super::*;

    #[test]
    fn timeouts_are_seconds() {
        limit!();
        let timeout = |text: &str| timeout(OsStr::new(text)).ok();
        for (text, milliseconds) in
            [("5", 5000), (".5", 500), ("5.", 5000), ("+1", 1000), (" 1", 1000), ("1e1", 10_000)]
        {
            let expected = Some(Wait::Until(Duration::from_millis(milliseconds)));
            assert_eq!(timeout(text), expected, "{text}");
        }
        for text in ["0", "0.0", "-0", "0.0000001"] {
            assert_eq!(timeout(text), Some(Wait::Never), "{text}");
        }
        for text in ["-1", "-0.5", "inf", "nan", "1e30"] {
            assert_eq!(timeout(text), Some(Wait::Impossible), "{text}");
        }
        for text in ["", "abc", "5 ", "1,5", "5s"] {
            assert_eq!(timeout(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_have_units() {
        limit!();
        for (text, bytes) in [
            ("0", Some(0)),
            ("12", Some(12)),
            ("1K", Some(1024)),
            ("1k", Some(1024)),
            ("2MiB", Some(2 << 20)),
            ("3KB", Some(3000)),
            ("7E", Some(7 << 60)),
            ("8E", Some(i64::MIN)),
            ("16E", None),
            ("0x10", Some(16)),
            ("0x1fK", Some(31 << 10)),
            ("010", Some(8)),
            ("08", None),
            ("0K", Some(0)),
            ("+7", Some(7)),
            ("0x", None),
            ("-1", None),
            ("", None),
            ("K", None),
            ("1x", None),
            ("1é", None),
        ] {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
    }

    proptest::proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

        #[test]
        fn accepted_numbers_have_the_value_that_was_written(number in any::<i64>(), micros in 1..1_000_000_u32, text in any::<String>()) {
            limit!();
            let as_i32 = i32::try_from(number).ok();
            let written = number.to_string();
            prop_assert_eq!(descriptor(OsStr::new(&written)).ok(), as_i32);
            prop_assert_eq!(exit_code(OsStr::new(&written)).ok(), as_i32.filter(|code| (0..=255).contains(code)));
            prop_assert_eq!(parse_size(&written), Some(number).filter(|number| *number >= 0));
            prop_assert_eq!(parse_size(&format!("{:#x}", number.unsigned_abs())), Some(as_signed(number.unsigned_abs())));
            let seconds = number.unsigned_abs() % 1_000_000;
            let span = Duration::new(seconds, micros * 1000);
            match timeout(OsStr::new(&format!("{seconds}.{micros:06}"))) {
                Ok(Wait::Until(read)) => prop_assert!(read.abs_diff(span) < Duration::from_micros(1), "{:?} {:?}", read, span),
                other => prop_assert!(matches!(other, Ok(Wait::Never)) && span < Duration::from_micros(2), "{:?} {:?}", other, span),
            }
            let text = OsStr::new(&text);
            let _ = (descriptor(text), exit_code(text), size(text, "--start"), timeout(text));
        }

        #[test]
        fn sizes_are_multiples_of_their_unit(number in any::<u32>(), power in 0..6_usize, form in 0..3_usize) {
            limit!();
            let letter = &"KMGTPE"[power..=power];
            let (unit, base) = [("", 1024_i128), ("iB", 1024), ("B", 1000)][form];
            let wanted = i128::from(number) * base.pow(u32::try_from(power).unwrap() + 1);
            let wanted = u64::try_from(wanted).ok().map(as_signed);
            prop_assert_eq!(parse_size(&format!("{number}{letter}{unit}")), wanted);
        }
    }
}
