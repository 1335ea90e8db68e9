//! Times as people read them: the local time of day, with the date if it is another day, and how
//! long ago that was.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::holder_text::coarse;

/// `since 14:03:22 (4m)`.
pub(super) fn since(time: SystemTime) -> String {
    let now = SystemTime::now();
    let zone = TimeZone::system();
    let Some((then, today)) = local(time, &zone).zip(local(now, &zone)) else {
        return "since an unknown time".into();
    };
    let age = coarse(now.duration_since(time).unwrap_or(Duration::ZERO));
    format!("since {} ({age})", written(then, today))
}

fn local(time: SystemTime, zone: &TimeZone) -> Option<DateTime> {
    Some(zone.to_datetime(Timestamp::try_from(time).ok()?))
}

fn written(then: DateTime, today: DateTime) -> String {
    let (hour, minute, second) = (then.hour(), then.minute(), then.second());
    let clock = format!("{hour:02}:{minute:02}:{second:02}");
    if then.date() == today.date() {
        return clock;
    }
    let (year, month, day) = (then.year(), then.month(), then.day());
    format!("{year:04}-{month:02}-{day:02} {clock}")
}

/// The time in RFC 3339, in UTC with milliseconds. `None` if it has no date: humantime panics for
/// times that it cannot represent.
pub(super) fn rfc3339(time: SystemTime) -> Option<String> {
    const YEAR_10000: u64 = 253_402_300_800;
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    (since.as_secs() < YEAR_10000).then(|| humantime::format_rfc3339_millis(time).to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, any, prop_assert};

    use super::*;

    #[test]
    fn times_are_local_and_have_a_date_on_other_days() {
        limit!();
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let written = |then, now| {
            super::written(local(at(then), &zone).unwrap(), local(at(now), &zone).unwrap())
        };
        let evening = 1_795_721_138; // 19:25:38 UTC on 26 November 2026
        assert_eq!(written(evening, evening + 60), "20:25:38");
        assert_eq!(written(evening, evening + 20_000), "2026-11-26 20:25:38");
    }

    proptest::proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) })]

        #[test]
        fn any_time_can_be_formatted(seconds in any::<u64>()) {
            limit!();
            let Some(time) = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)) else { return Ok(()) };
            prop_assert!(rfc3339(time).is_none_or(|text| !text.is_empty()));
            prop_assert!(since(time).starts_with("since "));
        }
    }
}
