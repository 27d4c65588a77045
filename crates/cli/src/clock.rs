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
}
