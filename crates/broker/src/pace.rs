//! How many fetches may begin: a token bucket over the boot clock.
//!
//! Callers choose resources, and each new one costs HIMDS a conversation. The bucket keeps made-up
//! resources from becoming load.

use std::time::Duration;

/// A bucket.
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
        let burst = per_second.max(1);
        Self::every(Duration::from_secs(1) / burst, burst)
    }

    /// One for each `gap` on average, and `burst` at once.
    pub fn every(gap: Duration, burst: u32) -> Self {
        Self {
            gap,
            room: gap * burst,
            full_at: Duration::ZERO,
        }
    }

    /// Takes one out at `now` since boot.
    ///
    /// # Errors
    ///
    /// How long to wait, when there is none.
    pub fn take(&mut self, now: Duration) -> Result<(), Duration> {
        self.full_at = self.after_one(now)?;
        Ok(())
    }

    /// Whether one could be taken out at `now` since boot.
    ///
    /// # Errors
    ///
    /// As [`Pace::take`].
    pub fn check(&self, now: Duration) -> Result<(), Duration> {
        self.after_one(now).map(drop)
    }

    /// Whether it is as if nothing had ever been taken out.
    pub fn is_full(&self, now: Duration) -> bool {
        self.full_at <= now
    }

    fn after_one(&self, now: Duration) -> Result<Duration, Duration> {
        let full_at = self.full_at.max(now) + self.gap;
        match full_at.saturating_sub(now).checked_sub(self.room) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => Ok(full_at),
        }
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
}
