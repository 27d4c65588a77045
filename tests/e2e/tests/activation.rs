//! Sockets that systemd keeps: passed by name, and still there when the daemon has ended.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

use std::process::Command;

use arcbroker_e2e::{Setup, World, is_root};
use nix::sys::signal::Signal;
use tokio::net::UnixStream;

const ACTIVATE: &str = "systemd-socket-activate";

/// systemd's own test program: it listens, and becomes the daemon at the first connection.
async fn activated() -> Option<World> {
    if Command::new(ACTIVATE).arg("--version").output().is_err() {
        eprintln!("SKIPPED: {ACTIVATE} is not installed (Debian package systemd)");
        return None;
    }
    let words = [
        ACTIVATE,
        "--listen={dir}/run/token.sock",
        "--listen={dir}/run/admin.sock",
        "--fdname=token:admin",
    ];
    let wrapper = words.map(str::to_owned).to_vec();
    Some(
        World::with(Setup {
            wrapper,
            ..Setup::default()
        })
        .await,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passed_socket_is_served_and_left_in_its_place() {
    let Some(mut world) = activated().await else {
        return;
    };
    let answer = world.token("keyvault").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(world.status().await.requests.issued, 1);
    if is_root() {
        let owner = std::os::unix::fs::MetadataExt::uid(&world.token_socket().metadata().unwrap());
        assert_eq!(owner, 0, "root's, although the daemon is not root");
    }
    world.daemon.signal(Signal::SIGTERM);
    assert!(world.daemon.wait().await.success());
    assert!(world.token_socket().exists());
    assert!(
        UnixStream::connect(world.token_socket()).await.is_err(),
        "nobody keeps it in this test"
    );
}
