//! Runs machine-years, and prints what was run, or the first invariant that broke.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a tool for a terminal, and nothing but a test"
)]

use std::process::ExitCode;
use std::time::Duration;

use arcbroker_simulation::campaign::{Campaign, Result, YEAR};
use arcbroker_simulation::event::SHOWN;
use arcbroker_simulation::world::Outcome;
use clap::Parser;
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

/// Simulates the daemon over machine-years: drawn faults, and every invariant of
/// docs/simulation.md checked at each step.
#[derive(Parser)]
struct Args {
    /// How many machine-years: one for each seed.
    #[arg(long, default_value_t = 20)]
    years: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Only this seed.
    #[arg(long, conflicts_with_all = ["years", "from"])]
    seed: Option<u64>,
    /// Days of each run, instead of a year.
    #[arg(long)]
    days: Option<u64>,
    /// Go on after an invariant broke, and show what broke with each seed.
    #[arg(long)]
    all: bool,
    /// How many of the last events to show when an invariant breaks.
    #[arg(long, default_value_t = SHOWN)]
    events: usize,
    /// Runs at one time; as many as processors unless told otherwise.
    #[arg(long)]
    threads: Option<usize>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let campaign = Campaign {
        first: args.seed.unwrap_or(args.from),
        seeds: args.seed.map_or(args.years, |_| 1),
        length: args
            .days
            .map_or(YEAR, |days| Duration::from_hours(24 * days)),
        go_on: args.all,
        shown: args.events,
        threads: args.threads.unwrap_or(processors),
    };
    let start = Instant::now();
    let result = campaign.run(runtime);
    print(&campaign, &result, start.elapsed());
    for outcome in &result.broken {
        explain(outcome, args.days);
    }
    if result.broken.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O can be made")
}

fn print(campaign: &Campaign, result: &Result, took: Duration) {
    let last = campaign.first + campaign.seeds - 1;
    let days = result.figures.seconds / 86_400;
    println!(
        "seeds {} to {last}: {} machine-years and {} days in {:.1} s",
        campaign.first,
        days / 365,
        days % 365,
        took.as_secs_f64()
    );
    for (name, count) in result.figures.lines() {
        println!("{count:>12} {name}");
    }
    println!("trace {:016x}", result.digest);
}

fn explain(outcome: &Outcome, days: Option<u64>) {
    let Some(broken) = &outcome.broken else {
        return;
    };
    println!("\nThe last events before it:");
    for event in &broken.events {
        println!("  {event}");
    }
    println!("\nWhat was to be held for each key:");
    for key in &broken.keys {
        println!("  {key}");
    }
    let days = days.map_or_else(String::new, |days| format!(" --days {days}"));
    println!("\nINVARIANT BROKEN {}", broken.breach);
    println!(
        "  seed {}, {}; again with: simulate --seed {}{days}",
        outcome.seed, broken.at, outcome.seed
    );
}
