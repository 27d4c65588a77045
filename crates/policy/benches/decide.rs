//! What a decision costs with 10 rules and with 10,000: `cargo bench -p arcbroker-policy`.
//!
//! The figures of both stand side by side; the second should be at most twice the first.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark fails by panicking, and its macros make public items"
)]

use std::{fmt::Write as _, hint::black_box};

use arcbroker_policy::{
    Accounts, Caller, Cloud, Diagnostics, Identity, Policy, Resource, RuleSet, SourceFile, Unit,
};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

const FEW: u32 = 10;
const MANY: u32 = 10_000;

/// Rules by user, group, unit and template in turn; two in five also name something that they share.
fn policy(rules: u32) -> Policy {
    // A file has at most 256 KiB.
    let files: Vec<u32> = (0..rules).step_by(1000).collect();
    let files: Vec<SourceFile> = files
        .into_iter()
        .map(|first| {
            let mut text = "version = 1\n".to_owned();
            for n in first..rules.min(first + 1000) {
                let subject = match n % 5 {
                    0 => format!("user = {}", 1000 + n),
                    1 => format!("group = {}", 1000 + n),
                    2 => format!("unit = 'job-{n}.service'"),
                    3 => format!("unit = 'job-{n}@*.service'\nuser = 34"),
                    _ => format!("user = {}\ngroup = 100", 1000 + n),
                };
                let resources = "['keyvault', 'https://storage.azure.com/']";
                write!(
                    text,
                    "[[rule]]\nname = 'r{n}'\n{subject}\nresources = {resources}\n"
                )
                .unwrap();
            }
            SourceFile {
                name: format!("{first}.toml"),
                bytes: text.into_bytes(),
            }
        })
        .collect();
    let mut diagnostics = Diagnostics::new();
    let rules = RuleSet::parse(&files, Cloud::Public, &mut diagnostics);
    rules
        .unwrap()
        .compile(&Accounts::default(), &mut diagnostics)
}

/// A caller with eight groups that no rule names, and one that many do.
fn caller(uid: u32, unit: Option<&str>) -> Caller {
    Caller {
        unit: unit.map(|unit| Unit::parse(unit).unwrap()),
        ..Caller::new(uid, uid, (1..9).chain([100]).collect())
    }
}

fn decide(criterion: &mut Criterion) {
    let vault = Resource::exact("https://vault.azure.net").unwrap();
    let other = Resource::exact("https://other.example").unwrap();
    let mut group = criterion.benchmark_group("decide");
    let policies = [(FEW, policy(FEW)), (MANY, policy(MANY))];
    for (what, who, resource) in [
        ("by user", caller(1005, None), &vault),
        ("by unit", caller(5, Some("job-7.service")), &vault),
        ("by template", caller(34, Some("job-8@x.service")), &vault),
        ("by user and group", caller(1009, None), &vault),
        ("denied, no rule", caller(5, Some("nobody.service")), &vault),
        ("denied, another resource", caller(1009, None), &other),
    ] {
        for (rules, policy) in &policies {
            group.bench_with_input(BenchmarkId::new(what, rules), policy, |bench, policy| {
                bench.iter(|| {
                    policy.decide(black_box(&who), &Identity::System, black_box(resource))
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, decide);
criterion_main!(benches);
