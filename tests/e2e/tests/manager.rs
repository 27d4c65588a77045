//! What the service manager hears of the daemon.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::os::unix::net::UnixDatagram;

use arcbroker_e2e::{Setup, World, eventually, freeze, holder};
use nix::sys::signal::{Signal, kill};

/// With a watchdog that wants to hear something every so many microseconds.
async fn watched(microseconds: u32) -> World {
    let mut wrapper = holder();
    wrapper.extend(["env".to_owned(), format!("WATCHDOG_USEC={microseconds}")]);
    World::with(Setup {
        wrapper,
        ..Setup::default()
    })
    .await
}

/// One line for each message.
fn heard(world: &World) -> Vec<String> {
    let heard = fs::read_to_string(world.path("held.heard")).unwrap_or_default();
    heard.lines().map(str::to_owned).collect()
}

async fn hears(world: &World, what: &str) {
    eventually(what, || async {
        heard(world).iter().any(|line| line.contains(what))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_hears_of_the_start_of_health_of_reloads_and_of_the_end() {
    let world = watched(300_000).await;
    hears(&world, "READY=1 STATUS=").await;
    assert_eq!(world.token("keyvault").await.status, 200);
    hears(&world, "STATUS=healthy: 1 token").await;
    let lines = heard(&world).len();
    let daemon = world.daemon_pid().await;
    kill(daemon, Signal::SIGHUP).unwrap();
    let since = || heard(&world).split_off(lines);
    eventually("the reload is over", || async {
        let since = since();
        let begun = since
            .iter()
            .position(|line| line.starts_with("RELOADING=1 MONOTONIC_USEC="));
        let over = since.iter().rposition(|line| line.starts_with("READY=1"));
        begun.is_some() && over > begun
    })
    .await;
    kill(daemon, Signal::SIGTERM).unwrap();
    hears(&world, "STOPPING=1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watchdog_is_fed_as_often_as_it_wants_and_not_by_a_daemon_that_hangs() {
    let world = watched(300_000).await;
    let fed = || {
        let lines = heard(&world);
        lines.iter().filter(|line| *line == "WATCHDOG=1").count()
    };
    eventually("it is fed again and again", || async { fed() > 3 }).await;
    let daemon = world.daemon_pid().await;
    freeze(daemon).await;
    // Behind all that it had said before.
    let manager = UnixDatagram::unbound().unwrap();
    manager
        .send_to(b"STOPPED=1", world.path("held.notify"))
        .unwrap();
    hears(&world, "STOPPED=1").await;
    let before = fed();
    // Ten times what it is fed in.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(fed(), before);
    kill(daemon, Signal::SIGCONT).unwrap();
    eventually("it is fed again", || async { fed() > before + 2 }).await;
}
