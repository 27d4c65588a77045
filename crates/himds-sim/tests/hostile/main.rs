//! HIMDS as it should not be: every fault, and that it does what its name says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod challenge;
mod connection;
mod key_file;
#[path = "../support/mod.rs"]
mod support;
mod token;

use std::io;

use himds_sim::{Entry, Fault, fault_table};
use support::{Answer, METADATA, World, token_target};

fn last(world: &World) -> Entry {
    world.sim.journal().pop().unwrap()
}

/// Sends the request that a fault of this stage strikes.
async fn strike(world: &World, stage: &str) -> io::Result<Answer> {
    if stage == "first" {
        return world.try_get(&token_target(""), &[METADATA]).await;
    }
    let key = world.challenge().await.key();
    world
        .try_get(
            &token_target(""),
            &[METADATA, ("Authorization", &format!("Basic {key}"))],
        )
        .await
}

fn stage_of(fault: &str) -> &str {
    fault.split('-').next().unwrap()
}

#[test]
fn every_fault_has_a_test() {
    let tests = [
        include_str!("challenge.rs"),
        include_str!("key_file.rs"),
        include_str!("connection.rs"),
        include_str!("token.rs"),
        include_str!("../himds/service.rs"),
    ]
    .concat();
    let is_tested = |name: &str| {
        ["\"", "=", ":"]
            .iter()
            .any(|end| tests.contains(&format!("\"{name}{end}")))
    };
    let untested: Vec<_> = fault_table()
        .map(|spec| spec.name)
        .filter(|name| !is_tested(name))
        .collect();
    assert!(untested.is_empty(), "{untested:?}");
}

#[test]
fn the_readme_lists_exactly_the_faults_that_there_are() {
    let rows: Vec<&str> = include_str!("../../README.md")
        .split_once("| Fault |")
        .unwrap()
        .1
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    let expected: Vec<String> = fault_table()
        .map(|spec| {
            format!(
                "| `{}` | `{}` | {} | {} |",
                spec.name, spec.takes, spec.stage, spec.about
            )
            .replace("`` ", "")
        })
        .collect();
    assert_eq!(
        rows,
        expected,
        "write the table anew:\n{}",
        expected.join("\n")
    );
}

#[tokio::test]
async fn a_counted_fault_strikes_only_requests_of_its_stage() {
    let world = World::faulty("second-status=503,9:2").await;
    assert_eq!(world.challenge().await.status, 401);
    for _ in 0..2 {
        let answer = world.token().await;
        assert_eq!(
            (answer.status, answer.header("retry-after").as_deref()),
            (503, Some("9"))
        );
        assert_eq!(last(&world).faults, ["second-status"]);
    }
    assert_eq!(world.token().await.status, 200);
}

#[tokio::test]
async fn faults_come_one_by_one_and_go_by_name() {
    let world = World::new().await;
    world
        .sim
        .set_fault(Fault::new("first-status", Some("500")).unwrap().times(2));
    world
        .sim
        .set_fault(Fault::new("disconnected", None).unwrap());
    world.sim.clear_fault("first-status");
    assert_eq!(
        world.token().await.status,
        500,
        "only the second request is struck"
    );
    assert_eq!(last(&world).faults, ["disconnected"]);
}
