//! Which service tokens come from, where the configuration leaves that to the daemon.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::time::Duration;

use arcbroker_client::wire::UpstreamStatus;
use arcbroker_e2e::{PATIENCE, Setup, Trace, World, eventually};
use tokio::time::{Instant, sleep};

const VAULT: &str = "https%3A%2F%2Fvault.azure.net";
const STORAGE: &str = "https%3A%2F%2Fstorage.azure.com%2F";
const BINARY: &str = "opt/azcmagent/bin/himds";
const CHASSIS: &str = "sys/class/dmi/id/chassis_asset_tag";
const AZURE: &str = "7783-7084-3265-9085-8269-3286-77\n";

async fn upstream(world: &World) -> UpstreamStatus {
    world.status().await.upstream
}

#[tokio::test(flavor = "multi_thread")]
async fn each_sign_of_the_azure_arc_agent_decides_and_shows() {
    for sign in [
        BINARY,
        "etc/systemd/system/himdsd.service",
        "lib/systemd/system/himdsd.service",
        "usr/lib/systemd/system/himdsd.service",
    ] {
        // Azure VMs can have the agent too, for tests.
        let world = World::with(Setup {
            signs: vec![(sign, ""), (CHASSIS, AZURE)],
            ..Setup::default()
        })
        .await;
        let path = world.path("root").join(sign).display().to_string();
        let reason = format!("the Azure Arc agent is here: {path}");
        let upstream = upstream(&world).await;
        assert_eq!(
            (upstream.kind.as_str(), &upstream.reason),
            ("himds", &reason)
        );
        assert!(world.daemon.log().contains(&path), "it is not logged");
        assert_eq!(world.token(VAULT).await.status, 200);
        assert_eq!(world.simulator().challenges(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_who_listens_on_himdss_port_decides_and_is_asked_nothing() {
    let mut world = World::with(Setup {
        signs: vec![(CHASSIS, AZURE)],
        simulator: |options| options.faults.push("instance-status=500".parse().unwrap()),
        ..Setup::default()
    })
    .await;
    // A daemon looks for a second, and who listens is only seen once he has accepted: a machine that stalls
    // for that long hides him.
    let give_up = Instant::now() + PATIENCE;
    let upstream = loop {
        let upstream = upstream(&world).await;
        if !upstream.reason.contains(CHASSIS) || Instant::now() > give_up {
            break upstream;
        }
        world.restart_daemon().await;
    };
    let listens = format!(
        "an owner of HIMDS's port listens on {}",
        world.simulator().address()
    );
    assert_eq!(
        (upstream.kind.as_str(), &upstream.reason),
        ("himds", &listens)
    );
    for entry in world.simulator().journal() {
        assert_eq!(entry.path, "/metadata/instance", "a look is no request");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chassis_of_an_azure_vm_decides_for_imds() {
    let world = World::with(Setup {
        signs: vec![(CHASSIS, AZURE)],
        simulator: |options| options.imds = true,
        ..Setup::default()
    })
    .await;
    let upstream = upstream(&world).await;
    let path = world.path("root").join(CHASSIS).display().to_string();
    let reason = format!("this is an Azure VM: {path} says so");
    assert_eq!(
        (upstream.kind.as_str(), &upstream.reason),
        ("imds", &reason)
    );
    assert_eq!(world.token(VAULT).await.status, 200);
    assert_eq!(world.simulator().challenges(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_outweighs_every_sign() {
    let world = World::with(Setup {
        kind: "himds",
        signs: vec![(CHASSIS, AZURE)],
        ..Setup::default()
    })
    .await;
    let upstream = upstream(&world).await;
    assert_eq!(
        (upstream.kind.as_str(), upstream.reason.as_str()),
        ("himds", "by configuration")
    );
}

/// The next look is half a minute away.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_installed_later_is_found() {
    let mut world = World::start().await;
    world.stop_simulator().await;
    world.restart_daemon().await;
    let before = upstream(&world).await;
    assert_eq!(before.kind, "himds");
    assert!(before.reason.starts_with("no sign of"), "{}", before.reason);

    let binary = world.path("root").join(BINARY);
    fs::create_dir_all(binary.parent().unwrap()).unwrap();
    fs::write(&binary, "").unwrap();
    let give_up = Instant::now() + Duration::from_secs(90);
    let after = loop {
        let after = upstream(&world).await;
        if after.reason != before.reason {
            break after;
        }
        assert!(Instant::now() < give_up, "it is not found");
        sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(after.kind, "himds");
    assert!(after.reason.contains(BINARY), "{}", after.reason);
    world.start_simulator().await;
    eventually("tokens are given", || async {
        world.token(VAULT).await.status == 200
    })
    .await;
}

/// Whatever is tried out, and whatever fails: where the real IMDS would be is never reached for.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_to_the_address_of_imds_on_an_arc_machine() {
    let test = "nothing_is_sent_to_the_address_of_imds_on_an_arc_machine";
    for signs in [Vec::new(), vec![(BINARY, "")]] {
        let trace = Trace::network(test);
        let mut world = World::with(Setup {
            signs,
            wrapper: trace.wrapper(),
            ..Setup::default()
        })
        .await;
        let config = fs::read_to_string(world.path("broker.toml")).unwrap();
        let line = "imds-endpoint = \"http://127.0.0.1:1\"\n";
        assert!(config.contains(line), "{config}");
        // The default: the real address.
        fs::write(world.path("broker.toml"), config.replace(line, "")).unwrap();
        world.restart_daemon().await;
        assert_eq!(world.token(VAULT).await.status, 200);
        world.stop_simulator().await;
        assert_eq!(world.token(STORAGE).await.status, 503);
        world.restart_daemon().await;
        assert_eq!(world.token(VAULT).await.status, 503);
        if let Some(calls) = trace.calls(&mut world).await {
            let connects = calls.contains("connect(") && calls.contains("inet_addr(\"127.0.0.1\")");
            assert!(connects, "the trace shows no connection at all");
            assert!(!calls.contains("169.254.169.254"), "it was reached for");
        }
    }
}
