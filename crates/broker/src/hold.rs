//! How long a failure is remembered, by its kind: `docs/architecture.md` has the table.

use std::time::Duration;

use crate::token::Class;

/// The longest gap between attempts to refresh a token that nobody waits for.
const LONGEST: Duration = Duration::from_secs(30);

/// The time until the next attempt, after `count` failures in a row.
///
/// `unhurried`, beside a token that is good for a while, the gap doubles with each failure: nobody
/// waits for the refresh.
pub fn hold(class: Class, count: u32, unhurried: bool) -> Duration {
    let base = Duration::from_secs(match class {
        Class::Down | Class::Busy | Class::Deadline => 1,
        Class::Broken | Class::Server => 2,
        Class::Hostile | Class::StaleKey => 5,
        Class::Challenge
        | Class::KeyDenied
        | Class::Upgrading
        | Class::Garbage
        | Class::Throttled => 10,
        Class::Refused | Class::UnknownIdentity => 30,
        Class::Permanent => 60,
    });
    if unhurried {
        base.max((base * 2_u32.saturating_pow(count.clamp(1, 6) - 1)).min(LONGEST))
    } else {
        base
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_doubles_up_to_half_a_minute_where_nobody_waits() {
        let gaps = |class, unhurried| {
            (1..=8)
                .map(move |count| hold(class, count, unhurried).as_secs())
                .collect::<Vec<_>>()
        };
        assert_eq!(gaps(Class::Down, true), [1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(gaps(Class::Down, false), [1; 8]);
        assert_eq!(gaps(Class::Permanent, true), [60; 8]);
    }
}
