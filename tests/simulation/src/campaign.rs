//! Many runs, on as many threads as there are processors.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::event::digest;
use crate::figures::Figures;
use crate::world::{Outcome, Setup};

/// 365 days.
pub const YEAR: Duration = Duration::from_hours(24 * 365);

/// Seeds from `first` on, so many, each for so long.
#[derive(Clone, Copy, Debug)]
pub struct Campaign {
    /// The first seed.
    pub first: u64,
    /// How many.
    pub seeds: u64,
    /// How long each is run.
    pub length: Duration,
    /// Go on after an invariant broke.
    pub go_on: bool,
    /// How many events to keep for a reader.
    pub shown: usize,
    /// How many at one time.
    pub threads: usize,
}

/// What came of all.
#[derive(Debug)]
pub struct Result {
    /// What was run.
    pub figures: Figures,
    /// A digest of the digests of all runs, in the order of their seeds.
    pub digest: u64,
    /// The runs in which an invariant broke, by their seeds.
    pub broken: Vec<Outcome>,
}

impl Campaign {
    /// Runs them all, or until an invariant breaks. `runtime` makes one of a single thread with
    /// paused time.
    pub fn run(&self, runtime: impl Fn() -> Runtime + Sync) -> Result {
        let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let outcomes = Mutex::new(BTreeMap::new());
        thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= self.seeds {
                            break;
                        }
                        let mut setup = Setup::new(self.first + number, self.length);
                        setup.shown = self.shown;
                        let outcome = setup.run(&runtime());
                        let ends = outcome.broken.is_some() && !self.go_on;
                        stop.fetch_or(ends, Ordering::Relaxed);
                        outcomes
                            .lock()
                            .expect("no run panics")
                            .insert(number, outcome);
                    }
                });
            }
        });
        let outcomes = outcomes.into_inner().expect("no run panics");
        let digests: Vec<_> = outcomes.values().map(|outcome| outcome.digest).collect();
        Result {
            figures: outcomes.values().map(|outcome| outcome.figures).sum(),
            digest: digest(&digests),
            broken: outcomes
                .into_values()
                .filter(|outcome| outcome.broken.is_some())
                .collect(),
        }
    }
}
