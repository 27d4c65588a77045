//! How many fetches may begin: a token bucket over the boot clock.
//!
//! Callers choose resources, and each new one costs HIMDS a conversation. The bucket keeps made-up
//! resources from becoming load.

use std::time::Duration;

/// A bucket that holds one second's worth.
#[derive(Debug)]
pub struct Pace {
    gap: Duration,
    room: Duration,
    /// Since boot: when the bucket will be full again.
    full_at: Duration,
}

impl Pace {
    /// At most `per_second` on average, and as many at once.
    pub fn new(per_second: u32) -> Self {
        let gap = Duration::from_secs(1) / per_second.max(1);
        Self {
            gap,
            room: gap * per_second.max(1),
            full_at: Duration::ZERO,
        }
    }

    /// Takes one out at `now` since boot.
    ///
    /// # Errors
    ///
    /// How long to wait, when there is none.
    pub fn take(&mut self, now: Duration) -> Result<(), Duration> {
        let full_at = self.full_at.max(now) + self.gap;
        match full_at.saturating_sub(now).checked_sub(self.room) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => {
                self.full_at = full_at;
                Ok(())
            }
        }
    }

    /// Takes one out, also where there is none: others wait the longer.
    pub fn take_anyway(&mut self, now: Duration) {
        self.full_at = self.full_at.max(now) + self.gap;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn i11_in_any_time_there_are_no_more_than_five_and_five_a_second() {
        let mut pace = Pace::new(5);
        let taken = (0..10_000)
            .filter(|&millis| pace.take(at(millis)).is_ok())
            .count();
        assert_eq!(taken, 5 + 49);
    }

    #[test]
    fn who_comes_too_early_is_told_how_long_to_wait() {
        let mut pace = Pace::new(2);
        assert_eq!(pace.take(at(0)), Ok(()));
        assert_eq!(pace.take(at(0)), Ok(()));
        assert_eq!(pace.take(at(100)), Err(at(400)));
        assert_eq!(pace.take(at(500)), Ok(()));
    }

    #[test]
    fn what_is_taken_anyway_is_missing_later() {
        let mut pace = Pace::new(1);
        pace.take_anyway(at(0));
        pace.take_anyway(at(0));
        assert_eq!(pace.take(at(1_500)), Err(at(500)));
        assert_eq!(pace.take(at(2_000)), Ok(()));
    }
}
