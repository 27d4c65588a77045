//! For how long all has been well, so that what only holds then can be demanded.

use std::time::Duration;

/// What the clocks may take longer: I18 gives 60 s after a step where I14 gives 40 s.
const AFTER_CLOCKS: Duration = Duration::from_secs(20);

/// Awake times.
#[derive(Debug)]
pub struct Health {
    up: bool,
    faults: usize,
    wall_sane: bool,
    since: Duration,
    clocks: u64,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            up: false,
            faults: 0,
            wall_sane: true,
            since: Duration::ZERO,
            clocks: 0,
        }
    }
}

impl Health {
    /// Upstream is up.
    pub fn up(&mut self, now: Duration) {
        self.up = true;
        self.since = self.since.max(now);
    }

    /// A fault begins, or ends.
    pub fn fault(&mut self, begins: bool, now: Duration) {
        if begins {
            self.faults += 1;
        } else {
            self.faults = self.faults.saturating_sub(1);
        }
        self.since = self.since.max(now);
    }

    /// A clock was moved; the wall clock is, if it is known, sane now or not.
    pub fn clock(&mut self, wall_sane: Option<bool>, now: Duration) {
        self.clocks += 1;
        self.wall_sane = wall_sane.unwrap_or(self.wall_sane);
        self.since = self.since.max(now + AFTER_CLOCKS);
    }

    /// How often a clock was moved so far.
    pub fn clocks(&self) -> u64 {
        self.clocks
    }

    /// For how long all has been well; `None` while something is not.
    pub fn calm(&self, now: Duration) -> Option<Duration> {
        (self.up && self.faults == 0 && self.wall_sane).then(|| now.checked_sub(self.since))?
    }
}
