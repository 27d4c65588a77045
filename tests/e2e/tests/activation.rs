//! Sockets that systemd keeps: passed by name, and still there when the daemon has ended.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

use std::process::Command;

use arcbroker_e2e::{Daemon, Setup, World, eventually, is_root};
use nix::sys::signal::Signal;
use tokio::net::UnixStream;

const ACTIVATE: &str = "systemd-socket-activate";

fn is_installed() -> bool {
    let found = Command::new(ACTIVATE).arg("--version").output().is_ok();
    if !found {
        eprintln!("SKIPPED: {ACTIVATE} is not installed (Debian package systemd)");
    }
    found
}

/// systemd's own test program: it listens, and becomes the daemon at the first connection.
async fn activated() -> Option<World> {
    if !is_installed() {
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

/// The one that is not served would be a socket at which callers wait for ever.
#[tokio::test(flavor = "multi_thread")]
async fn two_sockets_of_one_name_are_refused() {
    if !is_installed() {
        return;
    }
    let world = World::start().await;
    let (one, other) = (world.path("one.sock"), world.path("other.sock"));
    let listen = [&one, &other].map(|path| format!("--listen={}", path.display()));
    let wrapper = [ACTIVATE, &listen[0], &listen[1], "--fdname=token:token"];
    let log = world.path("twice.log");
    let mut daemon = Daemon::spawn_through(&wrapper, &world.path("broker.toml"), &log);
    eventually("somebody listens", || async {
        one.exists() && other.exists()
    })
    .await;
    let _caller = UnixStream::connect(&one).await;
    assert_eq!(daemon.wait().await.code(), Some(71));
    let said = daemon.log();
    assert!(said.contains("two are named `token`"), "{said}");
}
