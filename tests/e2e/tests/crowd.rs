//! Crowds on a cold cache: HIMDS is asked for each resource once, two at a time, and no faster than
//! the configuration says.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use arcbroker_e2e::{Connection, Setup, World, eventually};
use himds_sim::Options;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::task::JoinSet;
use tokio::time::Instant;

const VAULT: &str = "https%3A%2F%2Fvault.azure.net";

fn target(resource: &str) -> String {
    format!("/metadata/identity/oauth2/token?api-version=2019-11-01&resource={resource}")
}

/// Each client has a socket, and so has the test beside it.
fn raise_open_files() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
}

/// Slow enough that all clients have asked before it answers; `cache` in the records proves it.
fn slow(options: &mut Options) {
    options.faults.push("first-delay=8000:1".parse().unwrap());
}

fn issued_from(world: &World, cache: &str) -> usize {
    let records = world.audit();
    records
        .iter()
        .filter(|record| record["outcome"] == "issued" && record["cache"] == cache)
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_ten_thousand_cold_requests_cost_one_challenge_and_one_token_request() {
    const CONNECTIONS: usize = 1000;
    raise_open_files();
    let world = World::with(Setup {
        simulator: slow,
        ..Setup::default()
    })
    .await;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut connection = world.connect().await;
        for _ in 0..10 {
            connection.ask(&target(VAULT)).await;
        }
        connections.push(connection);
    }
    let mut first = None;
    for connection in &mut connections {
        for _ in 0..10 {
            let answer = connection.answer().await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let token = answer.json()["access_token"].clone();
            assert_eq!(*first.get_or_insert(token.clone()), token);
        }
    }
    let simulator = world.simulator();
    let asked = (
        simulator.challenges(),
        simulator.token_requests(),
        simulator.tokens(),
    );
    assert_eq!(asked, (1, 2, 1), "one challenge, and its answer");
    assert_eq!(
        issued_from(&world, "fetch"),
        CONNECTIONS,
        "all of them waited"
    );
    assert_eq!(issued_from(&world, "cache"), 9 * CONNECTIONS);
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_two_hundred_resources_for_a_hundred_clients_cost_two_hundred_conversations_two_at_a_time()
 {
    const RESOURCES: usize = 200;
    let delayed: fn(&mut Options) = |options| {
        options.faults.push("second-delay=20".parse().unwrap());
    };
    let world = World::with(Setup {
        policy: World::anything(),
        simulator: delayed,
        ..Setup::default()
    })
    .await;
    let mut clients = JoinSet::new();
    for client in 0..100 {
        let socket = world.token_socket();
        clients.spawn(async move {
            let mut connection = Connection::open(&socket).await;
            let mut failed = Vec::new();
            // Each begins elsewhere, so that all are asked for at once.
            for number in (0..RESOURCES).map(|number| (number + 2 * client) % RESOURCES) {
                let resource = format!("https%3A%2F%2Fr{number}.example");
                let answer = connection.get(&target(&resource)).await;
                if answer.status != 200 {
                    failed.push(answer);
                }
            }
            failed
        });
    }
    let failed: Vec<_> = clients.join_all().await.into_iter().flatten().collect();
    assert!(
        failed.is_empty(),
        "{} failed: {:?}",
        failed.len(),
        failed[0]
    );
    let simulator = world.simulator();
    assert_eq!(simulator.tokens(), RESOURCES);
    assert_eq!(simulator.challenges(), RESOURCES);
    assert_eq!(simulator.most_at_once(), 2);
    assert_eq!(world.audit().len(), 100 * RESOURCES);
}

#[tokio::test(flavor = "multi_thread")]
async fn i11_with_the_default_bucket_the_surplus_is_told_when_to_come_back_and_costs_no_call() {
    let mut world = World::with(Setup {
        policy: World::anything(),
        ..Setup::default()
    })
    .await;
    world
        .reconfigure("fetches-per-second = 1000", "fetches-per-second = 5")
        .await;
    let began = Instant::now();
    let mut asking = JoinSet::new();
    for number in 0..200 {
        let socket = world.token_socket();
        asking.spawn(async move {
            let target = target(&format!("https%3A%2F%2Fr{number}.example"));
            Connection::open(&socket).await.get(&target).await
        });
    }
    let answers = asking.join_all().await;
    // A fifth of a second for each that the bucket has gained meanwhile.
    let gained = usize::try_from(began.elapsed().as_millis() / 200).unwrap();
    let (served, refused): (Vec<_>, Vec<_>) =
        answers.iter().partition(|answer| answer.status == 200);
    assert!(
        (5..=5 + gained).contains(&served.len()),
        "{} and {gained}",
        served.len()
    );
    assert!(!refused.is_empty());
    for answer in &refused {
        assert_eq!(answer.status, 503, "{answer:?}");
        assert_eq!(answer.header("retry-after"), Some("1"), "{answer:?}");
    }
    assert_eq!(world.simulator().tokens(), served.len());
    assert_eq!(world.simulator().challenges(), served.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn i10_a_thousand_leaders_that_hang_up_change_no_count_and_nobody_elses_answer() {
    raise_open_files();
    let world = World::with(Setup {
        simulator: slow,
        ..Setup::default()
    })
    .await;
    let mut leaders = Vec::new();
    for _ in 0..1000 {
        let mut connection = world.connect().await;
        connection.ask(&target(VAULT)).await;
        leaders.push(connection);
    }
    eventually("the fetch runs", || async {
        world.simulator().token_requests() == 1
    })
    .await;
    let mut patient = world.connect().await;
    patient.ask(&target(VAULT)).await;
    drop(leaders);
    let answer = patient.answer().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let simulator = world.simulator();
    assert_eq!((simulator.challenges(), simulator.tokens()), (1, 1));
    eventually("those who hung up are forgotten", || async {
        world.status().await.connections.open <= 2
    })
    .await;
    assert_eq!(issued_from(&world, "fetch"), 1);
    assert!(!world.daemon.log().contains("defect"));
    let next = world.token(VAULT).await;
    assert_eq!(next.json()["access_token"], answer.json()["access_token"]);
    tokio::time::timeout(Duration::from_secs(5), world.status())
        .await
        .unwrap();
}
