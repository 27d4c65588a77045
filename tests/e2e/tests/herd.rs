//! Many clients at once: one conversation with HIMDS, and everybody gets what came of it.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::path::PathBuf;
use std::time::Duration;

use arcbroker_e2e::{Answer, Connection, Setup, World, eventually};
use himds_sim::Options;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::task::JoinSet;

const TARGET: &str =
    "/metadata/identity/oauth2/token?api-version=2019-11-01&resource=https%3A%2F%2Fvault.azure.net";
const CLIENTS: usize = 500;

/// HIMDS is slow enough that all clients have asked before it answers.
fn slow(options: &mut Options) {
    options.faults.push("first-delay=8000:1".parse().unwrap());
}

/// Each client has a socket, and so has the test beside it.
fn raise_open_files() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
}

/// One request on a connection of its own.
async fn ask(socket: PathBuf) -> Answer {
    Connection::open(&socket).await.get(TARGET).await
}

async fn ask_together(world: &World, clients: usize) -> Vec<Answer> {
    let mut asking = JoinSet::new();
    for _ in 0..clients {
        asking.spawn(ask(world.token_socket()));
    }
    asking.join_all().await
}

#[tokio::test(flavor = "multi_thread")]
async fn b15_five_hundred_clients_on_a_cold_cache_share_one_challenge_and_one_token() {
    raise_open_files();
    let world = World::with(Setup {
        simulator: slow,
        ..Setup::default()
    })
    .await;
    let answers = ask_together(&world, CLIENTS).await;
    let first = answers[0].json();
    for answer in &answers {
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["access_token"], first["access_token"]);
        assert_eq!(answer.json()["expires_on"], first["expires_on"]);
    }
    let simulator = world.simulator();
    assert_eq!(
        (
            simulator.challenges(),
            simulator.token_requests(),
            simulator.tokens()
        ),
        (1, 2, 1)
    );
    let records = world.audit();
    assert_eq!(records.len(), CLIENTS);
    assert!(
        records
            .iter()
            .all(|record| record["outcome"] == "issued" && record["cache"] == "fetch"),
        "all of them waited"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn b15_the_same_through_the_client_crate() {
    raise_open_files();
    let world = World::with(Setup {
        simulator: slow,
        ..Setup::default()
    })
    .await;
    let mut asking = JoinSet::new();
    for _ in 0..CLIENTS {
        // A client of its own has a connection of its own.
        let client = world.client();
        asking.spawn(async move { client.token("https://vault.azure.net").await });
    }
    let tokens: Vec<_> = asking
        .join_all()
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert_eq!(tokens.len(), CLIENTS);
    assert!(
        tokens
            .iter()
            .all(|token| token.secret == tokens[0].secret
                && token.expires_on == tokens[0].expires_on)
    );
    assert_eq!(
        (
            world.simulator().challenges(),
            world.simulator().token_requests()
        ),
        (1, 2)
    );
    assert_eq!(world.audit().len(), CLIENTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn b15_one_failure_of_upstream_is_the_answer_to_all_who_wait() {
    let faults = |options: &mut Options| {
        slow(options);
        // Final: it is not tried again, and remembered for those who come late.
        options.faults.push("second-status=400:1".parse().unwrap());
    };
    let world = World::with(Setup {
        simulator: faults,
        ..Setup::default()
    })
    .await;
    let answers = ask_together(&world, 100).await;
    let words = answers[0].json()["error_description"].clone();
    for answer in &answers {
        assert_eq!(
            (answer.status, answer.json()["error"].as_str()),
            (400, Some("invalid_request")),
            "{answer:?}"
        );
        assert_eq!(answer.json()["error_description"], words);
    }
    assert_eq!(
        (
            world.simulator().challenges(),
            world.simulator().token_requests()
        ),
        (1, 2)
    );
    assert!(
        world
            .audit()
            .iter()
            .all(|record| record["outcome"] == "unavailable")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_hang_up_take_nothing_from_those_who_wait() {
    let world = World::with(Setup {
        simulator: slow,
        ..Setup::default()
    })
    .await;
    let mut impatient = Vec::new();
    for _ in 0..20 {
        let mut connection = world.connect().await;
        connection.ask(TARGET).await;
        impatient.push(connection);
    }
    eventually("the fetch runs", || async {
        world.simulator().token_requests() == 1
    })
    .await;
    let patient = tokio::spawn(ask(world.token_socket()));
    drop(impatient);
    assert_eq!(patient.await.unwrap().status, 200);
    assert_eq!(
        (
            world.simulator().challenges(),
            world.simulator().token_requests()
        ),
        (1, 2)
    );
    let outcomes: Vec<_> = world
        .audit()
        .iter()
        .map(|record| record["outcome"].clone())
        .collect();
    // Who went before the daemon had read the request has no record: nothing was decided for them.
    assert!((2..=21).contains(&outcomes.len()), "{outcomes:?}");
    assert_eq!(
        outcomes
            .iter()
            .filter(|outcome| *outcome == "issued")
            .count(),
        1,
        "{outcomes:?}"
    );
    assert!(
        outcomes
            .iter()
            .all(|outcome| *outcome == "issued" || *outcome == "abandoned"),
        "{outcomes:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn b30_a_thousand_idle_connections_do_not_disturb_others() {
    raise_open_files();
    let world = World::start().await;
    assert_eq!(ask(world.token_socket()).await.status, 200);
    let mut idle = JoinSet::new();
    for _ in 0..1000 {
        let socket = world.token_socket();
        idle.spawn(async move { Connection::open(&socket).await });
    }
    let idle = idle.join_all().await;
    assert_eq!(idle.len(), 1000);
    for answer in ask_together(&world, 20).await {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_eq!(world.status().await.connections.refused, 0);
    drop(idle);
    eventually("they are forgotten", || async {
        world.status().await.connections.open == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_house_makes_newcomers_wait_and_loses_none() {
    let limits = vec![("limits", "connections = 3".to_owned())];
    let world = World::with(Setup {
        config: limits,
        ..Setup::default()
    })
    .await;
    let idle: [Connection; 3] = [
        world.connect().await,
        world.connect().await,
        world.connect().await,
    ];
    let waiting = tokio::spawn(ask(world.token_socket()));
    // Where there is room, an answer takes a few milliseconds; silent connections are cut after 5 s.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!waiting.is_finished(), "there was room for a fourth");
    drop(idle);
    assert_eq!(waiting.await.unwrap().status, 200);
}
