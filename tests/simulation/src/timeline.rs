//! The clocks of the simulated machine, and the true time that only the simulation knows.
//!
//! Awake time is tokio's paused clock: timers count it, and it jumps to the next timer whenever
//! nothing can run. A suspend moves the boot clock and the true time, but no timer. The wall clock
//! is the true time and an error that the plan changes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arcbroker_broker::clock::{Clock, Now};
use tokio::time::Instant;

/// When the machine is switched on: the beginning of 2026, and not on a whole second, so that what
/// is rounded shows.
const SWITCHED_ON: Duration = Duration::new(1_767_225_600, 123_456_789);

/// A program that asks for the time so often within one moment is in a loop.
const READS_AT_ONCE: u64 = 1_000_000;

/// The clocks.
#[derive(Clone, Debug)]
pub struct Timeline(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    start: Instant,
    hands: Mutex<Hands>,
    /// Awake milliseconds of the last reading, and how many there were in that one.
    last: AtomicU64,
    reads: AtomicU64,
}

#[derive(Debug)]
struct Hands {
    /// The boot clock at the start of the run.
    booted: Duration,
    asleep: Duration,
    wall: Shift,
}

/// How far the wall clock is from the true time.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Shift {
    /// So much later than it should.
    Ahead(Duration),
    /// So much earlier.
    Behind(Duration),
}

/// One moment by all clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Since the start of the run, time asleep left out.
    pub awake: Duration,
    /// What the daemon sees.
    pub now: Now,
    /// Unix time as it really is.
    pub truth: Duration,
}

impl Timeline {
    /// A machine that has been up for `booted`. Must be called inside a runtime with paused time.
    pub fn new(booted: Duration) -> Self {
        Self(Arc::new(Inner {
            start: Instant::now(),
            hands: Mutex::new(Hands {
                booted,
                asleep: Duration::ZERO,
                wall: Shift::RIGHT,
            }),
            last: AtomicU64::new(0),
            reads: AtomicU64::new(0),
        }))
    }

    /// This moment.
    pub fn moment(&self) -> Moment {
        let awake = self.0.start.elapsed();
        let hands = self.0.lock();
        let passed = awake + hands.asleep;
        let truth = SWITCHED_ON + passed;
        Moment {
            awake,
            now: Now {
                wall: hands.wall.apply(truth),
                boot: hands.booted + passed,
            },
            truth,
        }
    }

    /// The clock for the daemon.
    pub fn clock(&self) -> Clock {
        let timeline = self.clone();
        Clock::from_fn(move || {
            let moment = timeline.moment();
            timeline.0.count_read(moment.awake);
            moment.now
        })
    }

    /// tokio's name for a time since the start.
    pub fn instant(&self, awake: Duration) -> Instant {
        self.0.start + awake
    }

    /// How long it was asleep so far.
    pub fn asleep(&self) -> Duration {
        self.0.lock().asleep
    }

    /// How wrong the wall clock is.
    pub fn wall(&self) -> Shift {
        self.0.lock().wall
    }

    /// Sets the wall clock to be so wrong.
    pub fn set_wall(&self, wall: Shift) {
        self.0.lock().wall = wall;
    }

    /// Time passes, and no timer knows of it.
    pub fn suspend(&self, time: Duration) {
        self.0.lock().asleep += time;
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Hands> {
        self.hands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A loop that never lets time pass would make the simulation hang: it ends in a panic instead.
    fn count_read(&self, awake: Duration) {
        let millis = u64::try_from(awake.as_millis()).unwrap_or(u64::MAX);
        if self.last.swap(millis, Ordering::Relaxed) != millis {
            self.reads.store(0, Ordering::Relaxed);
        }
        let reads = self.reads.fetch_add(1, Ordering::Relaxed);
        assert!(reads < READS_AT_ONCE, "a loop that lets no time pass");
    }
}

impl Shift {
    /// The wall clock is right.
    pub const RIGHT: Self = Self::Ahead(Duration::ZERO);

    /// The wall clock when it is really `truth`; it does not go below 1970.
    pub fn apply(self, truth: Duration) -> Duration {
        match self {
            Self::Ahead(by) => truth + by,
            Self::Behind(by) => truth.saturating_sub(by),
        }
    }

    /// How far off.
    pub fn size(self) -> Duration {
        match self {
            Self::Ahead(by) | Self::Behind(by) => by,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_suspend_moves_both_clocks_and_no_timer_and_a_step_only_the_wall() {
        let hour = Duration::from_hours(1);
        let timeline = Timeline::new(hour);
        let before = timeline.moment();
        tokio::time::sleep(hour).await;
        timeline.suspend(hour);
        timeline.set_wall(Shift::Behind(3 * hour));
        let after = timeline.moment();
        assert_eq!(after.awake, hour);
        assert_eq!(after.now.boot, 3 * hour);
        assert_eq!(after.truth, before.truth + 2 * hour);
        assert_eq!(after.now.wall, before.now.wall - hour);
    }
}
