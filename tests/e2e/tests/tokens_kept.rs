//! Tokens that outlive the daemon, in the hands of whoever starts it again.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use arcbroker_e2e::{World, eventually};
use nix::sys::signal::Signal;

const VAULT: &str = "https%3A%2F%2Fvault.azure.net";
const STORAGE: &str = "https%3A%2F%2Fstorage.azure.com%2F";

/// Names under which tokens are held.
fn held(world: &World) -> Vec<String> {
    world.names_held("token.")
}

async fn tokens(world: &World) -> Vec<String> {
    let mut found = Vec::new();
    for resource in [VAULT, STORAGE] {
        let answer = world.token(resource).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        found.push(answer.json()["access_token"].to_string());
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_answer_after_a_restart_or_a_kill_comes_from_what_was_kept() {
    let world = World::held().await;
    let before = tokens(&world).await;
    eventually("both tokens are held", || async { held(&world).len() == 2 }).await;
    let asked = world.asked().len();
    for signal in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGKILL] {
        world.replace_daemon(signal).await;
        assert_eq!(tokens(&world).await, before, "{signal}");
        let record = world.audit().pop().unwrap();
        assert_eq!(record["cache"], "cache", "{record}");
    }
    assert_eq!(world.asked().len(), asked, "upstream was not asked");
    assert_eq!(held(&world).len(), 2);
    assert!(
        world
            .daemon
            .log()
            .contains("tokens of the daemon before are handed out on")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_needs_no_upstream_at_all() {
    let mut world = World::held().await;
    let before = tokens(&world).await;
    eventually("both tokens are held", || async { held(&world).len() == 2 }).await;
    world.stop_simulator().await;
    world.replace_daemon(Signal::SIGKILL).await;
    assert_eq!(tokens(&world).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_flushed_is_let_go() {
    let world = World::held().await;
    tokens(&world).await;
    eventually("both tokens are held", || async { held(&world).len() == 2 }).await;
    let flushed = world.command("/v1/flush").await;
    assert_eq!(flushed.status, 200, "{flushed:?}");
    let asked = world.asked().len();
    world.replace_daemon(Signal::SIGKILL).await;
    tokens(&world).await;
    assert!(world.asked().len() > asked, "upstream was asked again");
}
