//! How often one fetch tries again, by the kind of failure.
//!
//! Each attempt is a conversation of its own with a challenge of its own: a key is used once.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::clock::Now;
use crate::token::Class;

/// The machine is still starting, and HIMDS with it, for this long after boot.
const BOOT: Duration = Duration::from_mins(10);

/// Pauses are multiplied by a number from this range, so that keys that failed together part.
pub const JITTER: RangeInclusive<f64> = 0.8..=1.2;

/// A second with the jitter.
const BOOTING: Duration = Duration::from_millis(800);

/// Pauses in milliseconds. A refused connection is tried for two seconds in all.
const DOWN: [u64; 3] = [200, 500, 1_000];
const BROKEN: [u64; 1] = [200];
const ONCE: [u64; 1] = [500];
const SERVER: [u64; 3] = [1_000, 2_000, 4_000];
/// An update takes up to 70 s, says the documentation of IMDS.
const UPGRADING: [u64; 7] = [10_000; 7];

/// The pause before the next attempt after `failures` earlier ones; `None` gives up.
///
/// While the machine boots, a missing HIMDS is not a failure but a matter of time.
pub fn pause(class: Class, failures: usize, booting: bool) -> Option<Duration> {
    let pauses: &[u64] = match class {
        Class::Down | Class::Server if booting => return Some(BOOTING),
        Class::Down => &DOWN,
        Class::Broken => &BROKEN,
        Class::StaleKey | Class::Challenge | Class::Refused | Class::Garbage => &ONCE,
        Class::Server => &SERVER,
        Class::Upgrading => &UPGRADING,
        Class::Hostile
        | Class::KeyDenied
        | Class::Permanent
        | Class::UnknownIdentity
        | Class::Throttled
        | Class::Busy
        | Class::Deadline => &[],
    };
    pauses.get(failures).copied().map(Duration::from_millis)
}

/// Whether upstream may simply not be up yet.
pub fn is_booting(now: Now, upstream_seen: bool) -> bool {
    !upstream_seen && now.boot < BOOT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_connection_is_tried_for_about_two_seconds() {
        let pauses: Vec<_> = (0..).map_while(|n| pause(Class::Down, n, false)).collect();
        assert_eq!(
            pauses.iter().sum::<Duration>(),
            Duration::from_millis(1_700)
        );
    }

    #[test]
    fn while_the_machine_boots_the_gap_is_a_second_at_most_without_end() {
        assert!(pause(Class::Down, 1_000, true).unwrap().mul_f64(1.2) <= Duration::from_secs(1));
        let at = |seconds| Now {
            wall: Duration::ZERO,
            boot: Duration::from_secs(seconds),
        };
        assert!(is_booting(at(599), false));
        assert!(!is_booting(at(599), true));
        assert!(!is_booting(at(600), false));
    }

    #[test]
    fn what_cannot_change_by_itself_is_not_tried_again() {
        for class in [
            Class::Hostile,
            Class::KeyDenied,
            Class::Permanent,
            Class::UnknownIdentity,
            Class::Throttled,
        ] {
            assert_eq!(pause(class, 0, false), None, "{class:?}");
        }
    }
}
