//! Machine-years in the test suite, and the proof that a seed is all it takes to see one again.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use arcbroker_simulation::campaign::{Campaign, Result, YEAR};
use arcbroker_simulation::event::SHOWN;
use tokio::runtime::{Builder, Runtime};

fn runtime() -> Runtime {
    let mut runtime = Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap()
}

fn run(first: u64, seeds: u64, length: Duration) -> Result {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let campaign = Campaign {
        first,
        seeds,
        length,
        shown: SHOWN,
        threads,
    };
    campaign.run(runtime)
}

#[test]
fn every_invariant_holds_at_every_step_of_twenty_machine_years() {
    let result = run(1, 20, YEAR);
    if let Some(outcome) = &result.broken {
        let broken = outcome.broken.as_ref().unwrap();
        let events = broken.events.join("\n  ");
        let seed = outcome.seed;
        panic!(
            "INVARIANT BROKEN {}\n  {events}\nseed {seed}, {}; again with: simulate --seed {seed}",
            broken.breach, broken.at
        );
    }
    assert!(result.figures.issued > 1_000_000, "it ran to its end");
}

#[test]
fn the_same_seed_is_the_same_run_and_another_one_is_another() {
    let month = Duration::from_hours(24 * 30);
    let digest = |seed| {
        let result = run(seed, 1, month);
        assert!(result.broken.is_none(), "seed {seed}");
        result.digest
    };
    assert_eq!(digest(7), digest(7));
    assert_ne!(digest(7), digest(8));
}
