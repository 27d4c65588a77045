//! What it costs to know a caller: `cargo bench -p arcbroker-broker`.
//!
//! A connection of a process that has been seen within the last second, one of a process that has not,
//! and what each request on a kept connection adds.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark fails by panicking, and its macros make public items"
)]

use std::hint::black_box;
use std::time::Duration;

use arcbroker_broker::ability::{Ability, Options};
use arcbroker_broker::clock::{Clock, Now};
use arcbroker_broker::evidence::Observer;
use arcbroker_broker::peer::{Peer, Watched};
use criterion::{Criterion, criterion_group, criterion_main};
use tokio::net::UnixStream;

fn observer(clock: Clock) -> Observer {
    let ability = Ability::probe(Options {
        proc: "/proc".into(),
        cgroup: "/sys/fs/cgroup".into(),
        units: "/run/systemd/units".into(),
    });
    Observer::new(ability, clock)
}

/// A clock that stands still, and one on which each look is a day after the one before.
fn clocks() -> [Clock; 2] {
    let still = Clock::from_fn(|| Now {
        wall: Duration::ZERO,
        boot: Duration::ZERO,
    });
    let days = std::sync::atomic::AtomicU64::new(0);
    let hasty = Clock::from_fn(move || {
        let day = days.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Now {
            wall: Duration::ZERO,
            boot: Duration::from_hours(24) * u32::try_from(day).unwrap_or(u32::MAX),
        }
    });
    [still, hasty]
}

fn callers(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (ours, _theirs) = runtime.block_on(async { UnixStream::pair().unwrap() });
    let [still, hasty] = clocks();
    let (known, unknown) = (observer(still), observer(hasty));
    let mut group = criterion.benchmark_group("callers");
    group.bench_function("numbers alone", |bench| {
        bench.iter(|| Peer::of(black_box(&ours)).unwrap());
    });
    for (what, observer) in [("known", &known), ("unknown", &unknown)] {
        group.bench_function(format!("connection of a process that is {what}"), |bench| {
            bench.iter(|| {
                Watched::new(&ours, Peer::of(black_box(&ours)).unwrap(), observer).unwrap()
            });
        });
    }
    let watched = Watched::new(&ours, Peer::of(&ours).unwrap(), &known).unwrap();
    group.bench_function("request within a second", |bench| {
        bench.iter(|| black_box(&watched).now());
    });
    let watched = Watched::new(&ours, Peer::of(&ours).unwrap(), &unknown).unwrap();
    group.bench_function("request after a second", |bench| {
        bench.iter(|| black_box(&watched).now());
    });
    group.finish();
}

criterion_group!(benches, callers);
criterion_main!(benches);
