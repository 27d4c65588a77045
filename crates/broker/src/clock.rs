//! Time, by two clocks at once: the wall can be set, and the monotonic one sleeps with the machine.
//!
//! A token's life is judged by the stricter of the wall and `CLOCK_BOOTTIME`, which counts time
//! asleep and cannot be set. Nothing else in the daemon asks the system for the time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// One moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Now {
    /// Since the Unix epoch, by a clock that may be wrong or be set.
    pub wall: Duration,
    /// Since boot, time asleep included.
    pub boot: Duration,
}

/// Where the time comes from.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Now + Send + Sync>);

impl Clock {
    /// The clocks of this machine.
    pub fn system() -> Self {
        Self::from_fn(|| Now {
            wall: read(ClockId::CLOCK_REALTIME),
            boot: read(ClockId::CLOCK_BOOTTIME),
        })
    }

    /// Whatever the function says.
    pub fn from_fn(now: impl Fn() -> Now + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// This moment.
    pub fn now(&self) -> Now {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// `clock_gettime` fails only for clocks that do not exist, and these two always do. Were it to
/// fail, the end of time is the safe answer: every token has expired.
fn read(clock: ClockId) -> Duration {
    clock_gettime(clock).map_or(Duration::MAX, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clocks_run_forward() {
        let clock = Clock::system();
        let (first, second) = (clock.now(), clock.now());
        assert!(first.boot <= second.boot);
        assert!(first.wall > Duration::from_hours(24 * 365 * 50));
        assert!(first.boot < first.wall);
    }
}
