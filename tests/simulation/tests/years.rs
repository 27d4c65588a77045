//! Machine-years in the test suite, and the proof that a seed is all it takes to see one again.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use arcbroker_simulation::campaign::{Campaign, YEAR};
use arcbroker_simulation::event::SHOWN;
use arcbroker_simulation::world::{Outcome, Setup};
use tokio::runtime::{Builder, Runtime};

const MONTH: Duration = Duration::from_hours(24 * 30);

fn runtime() -> Runtime {
    let mut runtime = Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap()
}

/// A run in which every invariant held.
fn run(setup: Setup) -> Outcome {
    let outcome = setup.run(&runtime());
    demand_whole(&outcome);
    outcome
}

fn demand_whole(outcome: &Outcome) {
    if let Some(broken) = &outcome.broken {
        let events = broken.events.join("\n  ");
        let seed = outcome.seed;
        panic!(
            "INVARIANT BROKEN {}\n  {events}\nseed {seed}, {}; again with: simulate --seed {seed}",
            broken.breach, broken.at
        );
    }
}

#[test]
fn every_invariant_holds_at_every_step_of_twenty_machine_years() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let campaign = Campaign {
        // Among them 46, which once found a defect.
        first: 31,
        seeds: 20,
        length: YEAR,
        go_on: false,
        shown: SHOWN,
        threads,
    };
    let result = campaign.run(runtime);
    result.broken.iter().for_each(demand_whole);
    assert!(result.figures.issued > 1_000_000, "it ran to its end");
}

#[test]
fn the_same_seed_is_the_same_run_and_another_one_is_another() {
    let digest = |seed| run(Setup::new(seed, MONTH)).digest;
    assert_eq!(digest(7), digest(7));
    assert_ne!(digest(7), digest(8));
}

#[test]
fn ticks_that_are_left_out_would_have_done_nothing() {
    for seed in [3, 7] {
        let sparse = run(Setup::new(seed, MONTH));
        let mut setup = Setup::new(seed, MONTH);
        setup.every_tick = true;
        let full = run(setup);
        assert_eq!(sparse.digest, full.digest, "seed {seed}");
        assert!(
            sparse.figures.ticks < full.figures.ticks / 2,
            "{} of {} ticks were run",
            sparse.figures.ticks,
            full.figures.ticks
        );
    }
}

#[test]
fn i10_clients_that_go_away_change_nothing_for_himds_and_for_those_that_stay() {
    for seed in [3, 7] {
        let leaving = run(Setup::new(seed, MONTH));
        let mut setup = Setup::new(seed, MONTH);
        setup.patient = true;
        let patient = run(setup);
        assert!(leaving.figures.hung_up > 0 && patient.figures.hung_up == 0);
        assert_eq!(leaving.digests, patient.digests, "seed {seed}");
    }
}
