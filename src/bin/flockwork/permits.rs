//! The option `-j`: a number of permits, which may be relative to the number of processors, as in
//! GNU sem.

use std::num::NonZeroU32;

/// A number of permits as it was written. Its value may depend on the number of processors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum PermitCount {
    Fixed(u32),
    /// The number of processors plus this.
    Relative(i64),
    /// This share of the processors.
    Percent(f64),
}

/// Parses `4`, `+1`, `-1` or `50%`.
pub(crate) fn parse(text: &str) -> Result<PermitCount, String> {
    let invalid =
        || "expected a number such as 4, or 50%, +1 or -1 relative to the processors".to_string();
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(percent) = text.strip_suffix('%') {
        let is_number = percent.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let percent: f64 = percent.parse().ok().filter(|_| is_number).ok_or_else(invalid)?;
        return Ok(PermitCount::Percent(percent));
    }
    if let Some(digits) = text.strip_prefix(['+', '-']) {
        if !is_digits(digits) {
            return Err(invalid());
        }
        let difference: i64 = text.parse().map_err(|_| invalid())?;
        return Ok(PermitCount::Relative(difference));
    }
    if !is_digits(text) {
        return Err(invalid());
    }
    match text.parse() {
        Ok(count) => Ok(PermitCount::Fixed(count)),
        Err(_) => Err("exceeds the maximum number of permits".into()),
    }
}

impl PermitCount {
    /// The number of permits for that number of processors: at least one, unless it is a fixed 0.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "clamped first; a float's cast saturates"
    )]
    pub(crate) fn for_processors(self, processors: NonZeroU32) -> u32 {
        let processors = processors.get();
        match self {
            Self::Fixed(count) => count,
            Self::Relative(difference) => i64::from(processors)
                .saturating_add(difference)
                .clamp(1, i64::from(u32::MAX)) as u32,
            Self::Percent(percent) => ((f64::from(processors) * percent / 100.0) as u32).max(1),
        }
    }

    /// The number of permits for the processors that this process may use.
    pub(crate) fn on_this_machine(self) -> u32 {
        if let Self::Fixed(count) = self {
            return count; // counting the processors would read three files of the cgroup
        }
        let processors = std::thread::available_parallelism().ok();
        let processors = processors.and_then(|count| NonZeroU32::try_from(count).ok());
        self.for_processors(processors.unwrap_or(NonZeroU32::MIN))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq};

    use super::*;

    #[test]
    fn counts_are_read_as_gnu_sem_reads_them() {
        limit!();
        let eight = NonZeroU32::new(8).unwrap();
        for (text, count) in [
            ("0", 0),
            ("1", 1),
            ("4", 4),
            ("+1", 9),
            ("+0", 8),
            ("-1", 7),
            ("-7", 1),
            ("-8", 1),
            ("-99", 1),
            ("50%", 4),
            ("100%", 8),
            ("150%", 12),
            ("12.5%", 1),
            ("0%", 1),
            ("1%", 1),
        ] {
            assert_eq!(parse(text).unwrap().for_processors(eight), count, "{text}");
        }
    }

    #[test]
    fn invalid_counts_are_rejected() {
        limit!();
        for text in [
            "",
            "x",
            "+",
            "-",
            "%",
            "+x",
            "1.5",
            "99999999999",
            "5%%",
            "1e3%",
            "--1",
            "+-1",
            " 1",
            "nan%",
            "inf%",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

        #[test]
        fn accepted_counts_have_the_value_that_was_written(count in any::<i64>(), processors in 1..=512_u32) {
            limit!();
            let on = |text: String| parse(&text).ok().map(|count| i64::from(count.for_processors(NonZeroU32::new(processors).unwrap())));
            let own = i64::from(processors);
            let fixed = u32::try_from(count).ok();
            prop_assert_eq!(on(count.unsigned_abs().to_string()), u32::try_from(count.unsigned_abs()).ok().map(i64::from));
            prop_assert!(count < 0 || on(count.to_string()) == fixed.map(i64::from));
            let wanted = own.saturating_add(count).clamp(1, i64::from(u32::MAX));
            prop_assert_eq!(on(format!("{count:+}")), Some(wanted));
            let percent = count.unsigned_abs() % 100_000;
            let share = i64::try_from(u64::from(processors) * percent / 100).unwrap().max(1);
            prop_assert_eq!(on(format!("{percent}%")), Some(share));
        }

        #[test]
        fn arbitrary_text_is_rejected_or_a_valid_count(text in any::<String>(), nearly in "[ +-]{0,2}[0-9]{0,22}[.]?[0-9]{0,3}[%e ]{0,2}") {
            limit!();
            for text in [text, nearly] {
                let Ok(count) = parse(&text) else { continue };
                prop_assert!(text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.%".contains(&byte)), "{:?}", text);
                let has_permits = count.for_processors(NonZeroU32::MIN) > 0 && count.for_processors(NonZeroU32::MAX) > 0;
                prop_assert!(has_permits || count == PermitCount::Fixed(0), "{:?}", text);
            }
        }
    }
}
