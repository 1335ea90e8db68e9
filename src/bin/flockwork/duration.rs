//! Parses durations: seconds with optional fractions, or numbers with a unit.

use std::time::Duration;

/// The longest accepted duration, a hundred years.
const MAX_SECONDS: f64 = 100.0 * 365.25 * 86_400.0;

const EXPECTED: &str =
    "expected a number of seconds such as 10 or 0.5, or units as in 500ms, 5m or 1m30s";

/// Parses `1`, `0.5`, `.5`, `90s`, `1.5m`, `2h`, `1d`, or several numbers with units, such as
/// `1m30s` or `500ms`.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.char_indices().next_back() {
        Some((at, 's')) => (&text[..at], 1.0),
        Some((at, 'm')) => (&text[..at], 60.0),
        Some((at, 'h')) => (&text[..at], 3600.0),
        Some((at, 'd')) => (&text[..at], 86_400.0),
        _ => (text, 1.0),
    };
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let seconds: f64 = match number.parse::<f64>() {
        Ok(seconds) if is_number => seconds * unit,
        _ if number.starts_with('-') => return Err("must not be negative (0 tries once)".into()),
        _ => {
            let time = humantime::parse_duration(text).map_err(|_| EXPECTED)?;
            time.as_secs_f64()
        }
    };
    if seconds > MAX_SECONDS {
        return Err(
            "must be at most a hundred years (omit the option to wait without limit)".into()
        );
    }
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, any, prop_assert};

    use super::*;

    #[test]
    fn fractions_and_units_are_read() {
        limit!();
        for (text, milliseconds) in [
            ("0", 0),
            ("1", 1000),
            ("0.25", 250),
            (".5", 500),
            ("2.", 2000),
            ("3s", 3000),
            ("1.5m", 90_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
            ("500ms", 500),
            ("1m30s", 90_000),
            ("1h 30m", 5_400_000),
            ("1d2h3m4s5ms", 93_784_005),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn invalid_durations_are_rejected() {
        limit!();
        for text in [
            "",
            ".",
            "-1",
            "-0.5",
            "1e3",
            "inf",
            "nan",
            "x",
            "1x",
            "s",
            "--",
            "1e400",
            "٣",
            "é",
            "9999999999999d",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

        #[test]
        fn accepted_durations_have_the_value_that_was_written(
            whole in 0..4_000_000_000_u64,
            millis in 0..1000_u32,
            (unit, length) in proptest::sample::select(vec![("", 1_u64), ("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)]),
        ) {
            limit!();
            let expected = Duration::new(whole, millis * 1_000_000) * u32::try_from(length).unwrap();
            match parse(&format!("{whole}.{millis:03}{unit}")) {
                Ok(read) => {
                    // A float has about fifteen significant digits.
                    let difference = read.abs_diff(expected).as_secs_f64();
                    prop_assert!(difference <= expected.as_secs_f64() * 1e-12 + 1e-9, "{:?} {:?}", read, expected);
                }
                Err(_) => prop_assert!(expected.as_secs_f64() > MAX_SECONDS * 0.999_999, "{:?}", expected),
            }
        }

        #[test]
        fn arbitrary_text_is_rejected_or_a_valid_duration(text in any::<String>(), nearly in "[ +-]?[0-9]{0,20}[.eE]{0,2}[0-9]{0,20}[smhdx ]{0,2}") {
            limit!();
            for text in [text, nearly] {
                let Ok(read) = parse(&text) else { continue };
                prop_assert!(read.as_secs_f64() <= MAX_SECONDS, "{:?}", text);
                prop_assert!(text.bytes().any(|byte| byte.is_ascii_digit()), "{:?}", text);
                prop_assert!(!text.contains(['e', 'E', '+', '-']) || text.contains("sec"), "{:?}", text);
            }
        }
    }
}
