//! Tokens that outlive the daemon, in the hands of whoever starts it again.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::fs;

use arcbroker_e2e::{Setup, World, eventually, holder};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const VAULT: &str = "https%3A%2F%2Fvault.azure.net";
const STORAGE: &str = "https%3A%2F%2Fstorage.azure.com%2F";

async fn world() -> World {
    World::with(Setup {
        wrapper: holder(),
        ..Setup::default()
    })
    .await
}

/// Names under which tokens are held.
fn held(world: &World) -> Vec<String> {
    let names = fs::read_to_string(world.path("held")).unwrap_or_default();
    let tokens = names.lines().filter(|name| name.starts_with("token."));
    tokens.map(str::to_owned).collect()
}

/// Ends the daemon, and waits for the next one.
async fn replace(world: &World, signal: Signal) {
    let before = world.status().await.pid;
    kill(Pid::from_raw(before.cast_signed()), signal).unwrap();
    eventually("another daemon serves", || async {
        let status = world.admin_client().status().await;
        status.is_ok_and(|status| status.pid != before)
    })
    .await;
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
    let world = world().await;
    let before = tokens(&world).await;
    eventually("both tokens are held", || async { held(&world).len() == 2 }).await;
    let asked = world.asked().len();
    for signal in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGKILL] {
        replace(&world, signal).await;
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
    let mut world = world().await;
    let before = tokens(&world).await;
    eventually("both tokens are held", || async { held(&world).len() == 2 }).await;
    world.stop_simulator().await;
    replace(&world, Signal::SIGKILL).await;
    assert_eq!(tokens(&world).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_flushed_is_let_go() {
    let world = world().await;
    tokens(&world).await;
    eventually("both tokens are held", || async { held(&world).len() == 2 }).await;
    let flushed = world.command("/v1/flush").await;
    assert_eq!(flushed.status, 200, "{flushed:?}");
    let asked = world.asked().len();
    replace(&world, Signal::SIGKILL).await;
    tokens(&world).await;
    assert!(world.asked().len() > asked, "upstream was asked again");
}
