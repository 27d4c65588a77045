//! Durations as people write and read them.

use std::time::Duration;

/// Reads `30s`, `10m` or `1h`.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "" if !number.is_empty() => {
            return Err(format!(
                "a unit is missing: write {text}s, {text}m or {text}h"
            ));
        }
        _ => return Err("write a number and s, m or h, such as 30s".to_owned()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "write a number and s, m or h, such as 30s".to_owned())?;
    match number.checked_mul(seconds) {
        Some(seconds) if seconds <= LONGEST => Ok(Duration::from_secs(seconds)),
        _ => Err("a year is the longest".to_owned()),
    }
}

/// The two largest units that matter, rounded down.
pub(crate) fn human(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// How long ago `then` was, both in Unix seconds; clocks that are set make the future possible.
pub(crate) fn ago(then: u64, now: u64) -> String {
    match now.checked_sub(then) {
        Some(0) => "just now".to_owned(),
        Some(past) => format!("{} ago", human(past)),
        None => format!("{} from now, says the clock", human(then - now)),
    }
}

/// Seconds; also keeps sums with the present within what clocks can hold.
const LONGEST: u64 = 366 * 86400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_number_and_a_unit() {
        for (text, seconds) in [("30s", 30), ("10m", 600), ("1h", 3600), ("0s", 0)] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in [
            "",
            "s",
            "30",
            "-1s",
            "1.5h",
            "1h30m",
            "30 s",
            "1d",
            "99999999999999999999s",
            "9999999h",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(
            parse("30").unwrap_err(),
            "a unit is missing: write 30s, 30m or 30h"
        );
    }

    #[test]
    fn a_duration_is_told_in_its_two_largest_units() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3599, "59 min"),
            (3600, "1 h 0 min"),
            (86399, "23 h 59 min"),
            (90000, "1 d 1 h"),
        ] {
            assert_eq!(human(seconds), text);
        }
    }

    #[test]
    fn a_clock_that_was_set_back_is_no_reason_to_fail() {
        assert_eq!(ago(100, 100), "just now");
        assert_eq!(ago(40, 100), "1 min ago");
        assert_eq!(ago(160, 100), "1 min from now, says the clock");
    }
}
