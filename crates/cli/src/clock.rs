//! The wall clock, to say how long ago something was.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Unix seconds.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where the time comes in; the rest takes it as an argument"
)]
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Now in UTC, for the name of a file: `20261124-180000`.
pub(crate) fn stamp() -> String {
    stamp_of(now())
}

/// A time in UTC: `2026-11-24T18:00:00Z`.
pub(crate) fn text(seconds: u64) -> String {
    // What a peer says may be beyond what can be written.
    match UNIX_EPOCH.checked_add(Duration::from_secs(seconds)) {
        Some(time) if seconds <= LAST => humantime::format_rfc3339_seconds(time).to_string(),
        _ => "the end of time".to_owned(),
    }
}

/// The last second of the year 9999.
const LAST: u64 = 253_402_300_799;

fn stamp_of(seconds: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_secs(seconds);
    let text = humantime::format_rfc3339_seconds(time).to_string();
    text.replace([':', '-', 'Z'], "").replace('T', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_sorts_like_the_time_that_it_names() {
        assert_eq!(stamp_of(1_795_562_349), "20261124-231909");
    }

    #[test]
    fn every_number_is_some_time() {
        assert_eq!(text(1_700_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(text(LAST), "9999-12-31T23:59:59Z");
        for seconds in [LAST + 1, u64::MAX] {
            assert_eq!(text(seconds), "the end of time");
        }
    }
}
