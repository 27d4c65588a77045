//! What it costs to know a caller, and to decide: `cargo bench -p arcbroker-broker`.
//!
//! A connection of a process that has been seen within the last second, one of a process that has not,
//! and what each request on a kept connection adds. Then all that decides about such a request: who it
//! is, 100 rules of which the last one holds, and the line of its record.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark fails by panicking, and its macros make public items"
)]

use std::hint::black_box;
use std::time::Duration;

use arcbroker_broker::ability::{Ability, Options};
use arcbroker_broker::audit::{self, AuditLog};
use arcbroker_broker::clock::{Clock, Now};
use arcbroker_broker::evidence::Observer;
use arcbroker_broker::peer::{Peer, Watched};
use arcbroker_broker::record::{Drafts, Outcome, Record, TokenFacts};
use arcbroker_policy::{
    Accounts, Cloud, Diagnostics, Identity, Policy, Resource, RuleSet, SourceFile,
};
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

fn hundred_rules(uid: u32) -> Policy {
    let rule = |number: u32| {
        let user = if number == 99 { uid } else { 100_000 + number };
        format!(
            "[[rule]]\nname = \"rule {number}\"\nuser = {user}\nresources = [\"keyvault\", \"storage\"]\n"
        )
    };
    let rules: String = (0..100).map(rule).collect();
    let file = SourceFile {
        name: "bench.toml".to_owned(),
        bytes: format!("version = 1\n{rules}").into_bytes(),
    };
    let mut diagnostics = Diagnostics::new();
    let rules = RuleSet::parse(&[file], Cloud::Public, &mut diagnostics).unwrap();
    rules.compile(&Accounts::default(), &mut diagnostics)
}

fn deciding(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (ours, _theirs) = runtime.block_on(async { UnixStream::pair().unwrap() });
    let [still, _] = clocks();
    let watched = Watched::new(&ours, Peer::of(&ours).unwrap(), &observer(still)).unwrap();
    let policy = hundred_rules(watched.uid());
    let resource = Resource::exact("https://vault.azure.net").unwrap();
    let (clock, identity) = (Clock::system(), Identity::System);
    let run = AuditLog::open(&NOWHERE, clock.clone()).unwrap();
    let mut drafts = Drafts::default();
    criterion.bench_function("deciding about one request", |bench| {
        bench.iter(|| {
            let peer = watched.now();
            let grant = policy.decide(&peer.caller, &identity, &resource).unwrap();
            let record = Record {
                outcome: Outcome::Issued,
                id: run.next_id(),
                caller: &peer.caller,
                user: Some("backup"),
                pid: peer.pid,
                invocation: peer.invocation.as_deref(),
                endpoint: None,
                stray: None,
                identity: Some(grant.identity()),
                resource: Some(grant.resource().as_str()),
                rule: Some(grant.rule()),
                policy: policy.hash(),
                cache: Some("cache"),
                took: Duration::from_millis(1),
                token: Some(TokenFacts {
                    expires_on: 1_795_562_349,
                    uti: Some("HeT_jFjUKujPVDTj7fSzFg"),
                    sha256: "74787541180e",
                }),
            };
            drafts.push(black_box(&record), &clock);
            if drafts.bytes() > 64 * 1024 {
                drafts = Drafts::default();
            }
        });
    });
}

const NOWHERE: audit::Options = audit::Options {
    file: None,
    journal: None,
    required: false,
};

criterion_group!(benches, callers, deciding);
criterion_main!(benches);
