//! Start, reload, stop, crash and start again: no request is lost on the way, and no file is left
//! in the way.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::fs;

use arcbroker_client::wire::Health;
use arcbroker_e2e::{Daemon, World, eventually};
use himds_sim::Outcome;
use nix::sys::signal::Signal;

const VAULT: &str = "https%3A%2F%2Fvault.azure.net";
const GRAPH: &str = "https%3A%2F%2Fgraph.microsoft.com%2F";
const TARGET: &str =
    "/metadata/identity/oauth2/token?api-version=2019-11-01&resource=https%3A%2F%2Fvault.azure.net";

fn rule(resource: &str) -> String {
    let uid = arcbroker_e2e::User::current().uid;
    format!("version = 1\n[[rule]]\nname = \"test\"\nuser = {uid}\nresources = [\"{resource}\"]\n")
}

async fn until_himds_is_asked(world: &World) {
    eventually("HIMDS is asked", || async {
        let journal = world.simulator().journal();
        journal
            .iter()
            .any(|entry| entry.parameter("resource").is_some() && entry.outcome == Outcome::Pending)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i28_requests_under_way_are_answered_before_the_end() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut world = World::start().await;
        world
            .simulator()
            .set_fault("first-delay=2000:1".parse().unwrap());
        let mut waiting = [
            world.connect().await,
            world.connect().await,
            world.connect().await,
        ];
        for connection in &mut waiting {
            connection.ask(TARGET).await;
        }
        until_himds_is_asked(&world).await;
        world.daemon.signal(signal);
        eventually("nobody new can connect", || async {
            !world.token_socket().exists()
        })
        .await;
        for connection in &mut waiting {
            let answer = connection.answer().await;
            assert_eq!(
                answer.status,
                200,
                "{signal}: {answer:?}\n{}",
                world.daemon.log()
            );
        }
        assert_eq!(
            world.daemon.wait().await.code(),
            Some(0),
            "{}",
            world.daemon.log()
        );
        assert!(!world.admin_socket().exists());
        assert_eq!(world.audit().len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i28_who_waits_for_a_silent_upstream_has_an_answer_before_the_end() {
    let mut world = World::start().await;
    world.simulator().set_fault("second-hang".parse().unwrap());
    let (answer, ()) = tokio::join!(world.token("storage"), async {
        eventually("upstream is asked", || async {
            world
                .simulator()
                .journal()
                .iter()
                .any(|entry| entry.faults.contains(&"second-hang"))
        })
        .await;
        world.daemon.signal(Signal::SIGTERM);
    });
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(world.daemon.wait().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn i28_kept_connections_do_not_hold_up_the_end() {
    let mut world = World::start().await;
    let mut kept = world.connect().await;
    assert_eq!(kept.get(TARGET).await.status, 200);
    world.daemon.signal(Signal::SIGTERM);
    assert!(kept.rest().await.is_empty());
    assert_eq!(world.daemon.wait().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_daemon_serves_the_same_clients_and_continues_the_record() {
    let mut world = World::start().await;
    let client = world.client();
    client.token("keyvault").await.unwrap();
    world.restart_daemon().await;
    client.token("keyvault").await.unwrap();
    let numbers: Vec<_> = world
        .audit()
        .iter()
        .map(|record| record["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_puts_a_good_policy_in_force_for_the_next_request() {
    let world = World::start().await;
    let mut kept = world.connect().await;
    assert_eq!(kept.get(TARGET).await.status, 200);
    assert_eq!(world.token(GRAPH).await.status, 403);
    let before = world.status().await.policy.hash;
    world.write_policy(&rule("graph"));
    assert_eq!(
        world.token(GRAPH).await.status,
        403,
        "a file counts when it is loaded"
    );
    world.daemon.signal(Signal::SIGHUP);
    eventually("the new policy is in force", || async {
        world.status().await.policy.hash != before
    })
    .await;
    assert_eq!(world.token(GRAPH).await.status, 200);
    assert_eq!(
        kept.get(TARGET).await.status,
        403,
        "also on a connection from before"
    );
    assert_eq!(
        world.audit().last().unwrap()["policy"],
        world.status().await.policy.hash
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_policy_is_refused_with_its_place_and_the_old_one_stays() {
    let world = World::start().await;
    world.write_policy("version = 1\n[[rule]]\nusr = 1\n");
    world.daemon.signal(Signal::SIGHUP);
    eventually("the reload is refused", || async {
        world.status().await.policy.reload_error.is_some()
    })
    .await;
    let place = format!(
        "{}:3:1: unknown key `usr`",
        world.path("policy.d/test.toml").display()
    );
    let status = world.status().await;
    let told = status.policy.reload_error.unwrap();
    assert!(
        told.contains(&place) && told.contains("did you mean `user`?"),
        "{told}"
    );
    assert!(
        world.daemon.log().contains(&place),
        "{}",
        world.daemon.log()
    );
    assert_eq!((status.health, status.policy.rules), (Health::Degraded, 1));
    assert!(
        status
            .reasons
            .iter()
            .any(|reason| reason.contains("the old policy is in force")),
        "{:?}",
        status.reasons
    );
    assert_eq!(world.token(VAULT).await.status, 200);

    world.write_policy(&rule("keyvault"));
    world.daemon.signal(Signal::SIGHUP);
    eventually("it is mended", || async {
        world.status().await.policy.reload_error.is_none()
    })
    .await;
    assert_eq!(world.token(VAULT).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn i32_a_second_daemon_leaves_the_first_alone() {
    let mut world = World::start().await;
    let log = world.path("second.log");
    let mut second = Daemon::spawn(&world.path("broker.toml"), &log);
    assert_eq!(second.wait().await.code(), Some(69), "{}", second.log());
    let socket = world.token_socket().display().to_string();
    let told = second.log();
    assert!(
        told.contains(&format!(
            "arcbrokerd: {socket}: another arcbrokerd serves this socket"
        )),
        "{told}"
    );
    assert!(told.contains("stop it first"), "{told}");
    assert!(world.daemon.is_running());
    assert_eq!(world.token(VAULT).await.status, 200);
    assert_eq!(world.status().await.pid, world.daemon.pid().cast_unsigned());
}

#[tokio::test(flavor = "multi_thread")]
async fn i32_sockets_that_a_crash_left_behind_are_replaced() {
    let mut world = World::start().await;
    assert_eq!(world.token(VAULT).await.status, 200);
    world.daemon.signal(Signal::SIGKILL);
    world.daemon.wait().await;
    assert!(world.token_socket().exists() && world.admin_socket().exists());
    // A crash may also leave half of a record.
    let file = world.path("log.d/audit.jsonl");
    let torn = fs::read_to_string(&file).unwrap() + "{\"schema\":1,\"ti";
    fs::write(&file, torn).unwrap();

    world.start_daemon().await;
    assert_eq!(world.token(VAULT).await.status, 200);
    let numbers: Vec<_> = world
        .audit()
        .iter()
        .map(|record| record["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_users_process_can_neither_read_nor_trace_the_daemon() {
    let world = World::start().await;
    let process = fs::read_to_string(format!("/proc/{}/status", world.daemon.pid())).unwrap();
    assert!(
        process.contains("NoNewPrivs:\t1") || !arcbroker_e2e::is_root(),
        "{process}"
    );
    let limits = fs::read_to_string(format!("/proc/{}/limits", world.daemon.pid())).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    let owner = std::os::unix::fs::MetadataExt::uid(
        &fs::metadata(format!("/proc/{}/mem", world.daemon.pid())).unwrap(),
    );
    assert_eq!(owner, 0, "a process that is not dumpable belongs to root");
}
