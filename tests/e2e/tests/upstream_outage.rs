//! Many callers, callers that go away, and an upstream that is away.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::collections::HashMap;
use std::sync::Arc;

use arcbroker_e2e::{Answer, Setup, World, eventually};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::task::JoinSet;

const VAULT: &str = "https%3A%2F%2Fvault.azure.net";
const STORAGE: &str = "https%3A%2F%2Fstorage.azure.com%2F";

/// The same request from many callers at once.
async fn at_once(world: &Arc<World>, resources: Vec<String>) -> Vec<Answer> {
    let mut callers = JoinSet::new();
    for resource in resources {
        let world = Arc::clone(world);
        callers.spawn(async move { world.token(&resource).await });
    }
    callers.join_all().await
}

/// Asks and goes away without waiting.
async fn hang_up(world: &World, resource: &str) {
    drop(ask(world, resource).await);
}

async fn ask(world: &World, resource: &str) -> UnixStream {
    let mut stream = UnixStream::connect(world.token_socket()).await.unwrap();
    let request = format!(
        "GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource={resource} HTTP/1.1\r\nHost: localhost\r\nMetadata: true\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn b15_i1_a_hundred_callers_at_once_cause_one_conversation() {
    let world = Arc::new(World::start().await);
    world.fault("second-delay=300");
    let answers = at_once(&world, vec![VAULT.to_owned(); 100]).await;
    let first = answers[0].json()["access_token"].clone();
    for answer in &answers {
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["access_token"], first);
    }
    assert_eq!(
        (world.simulator().challenges(), world.simulator().tokens()),
        (1, 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn b15_a_failure_is_shared_and_remembered() {
    let world = Arc::new(World::start().await);
    world.fault("first-delay=300");
    world.fault("second-status=400");
    for answer in at_once(&world, vec![VAULT.to_owned(); 50]).await {
        assert_eq!(
            (answer.status, answer.error().as_str()),
            (400, "invalid_request")
        );
    }
    assert_eq!(world.token(VAULT).await.status, 400);
    assert_eq!(world.asked().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_two_conversations_run_at_most_and_one_for_a_key() {
    let world = World::with(Setup {
        policy: World::anything(),
        ..Setup::default()
    })
    .await;
    let world = Arc::new(world);
    world.fault("first-delay=200");
    let resources =
        (0..8).flat_map(|number| vec![format!("https%3A%2F%2Fcase-{number}.example"); 4]);
    for answer in at_once(&world, resources.collect()).await {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let mut starts = world.asked();
    starts.retain(|entry| entry.header("authorization").is_none() && entry.status == Some(401));
    let mut by_resource: HashMap<_, usize> = HashMap::new();
    for start in &starts {
        *by_resource
            .entry(start.parameter("resource").unwrap().to_owned())
            .or_default() += 1;
    }
    assert_eq!(by_resource.len(), 8);
    assert!(
        by_resource.values().all(|count| *count == 1),
        "{by_resource:?}"
    );
    // Each lasts as long as its first answer is held back, at least.
    for three in starts.windows(3) {
        let apart = three[2].time_ms - three[0].time_ms;
        assert!(apart >= 195, "three conversations at one time: {starts:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i10_callers_who_hang_up_neither_cancel_a_fetch_nor_cause_another() {
    let world = World::start().await;
    world.fault("second-delay=1500");
    // The first one is sure to be served when it leaves; of the others, the daemon may see no more than that they left.
    let first = ask(&world, VAULT).await;
    eventually("a fetch runs", || async { !world.asked().is_empty() }).await;
    drop(first);
    for _ in 1..200 {
        hang_up(&world, VAULT).await;
    }
    let answer = world.token(VAULT).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    eventually("nobody else is connected", || async {
        world.status().await.connections.open <= 1
    })
    .await;
    assert_eq!(world.asked().len(), 2, "one conversation for all");
    assert!(world.status().await.requests.abandoned > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn i10_a_token_that_nobody_waited_for_is_there_for_the_next() {
    let world = World::start().await;
    world.fault("second-delay=300");
    let caller = ask(&world, VAULT).await;
    eventually("a fetch runs", || async { !world.asked().is_empty() }).await;
    drop(caller);
    eventually("the token is there", || async {
        world
            .status()
            .await
            .tokens
            .iter()
            .any(|token| token.expires_on.is_some())
    })
    .await;
    assert_eq!(world.token(VAULT).await.status, 200);
    assert_eq!(world.asked().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn u22_an_outage_takes_no_token_away() {
    let mut world = World::start().await;
    let before = world.token(VAULT).await.json()["access_token"].clone();
    world.stop_simulator().await;
    for _ in 0..10 {
        let answer = world.token(VAULT).await;
        assert_eq!(
            (answer.status, answer.json()["access_token"] == before),
            (200, true)
        );
    }
    // What was not there before is not there now, and says when to come back.
    let none = world.token(STORAGE).await;
    assert_eq!(
        (none.status, none.error().as_str()),
        (503, "service_unavailable"),
        "{none:?}"
    );
    assert!(none.header("retry-after").is_some(), "{none:?}");
    assert!(none.body.contains("systemctl status himdsd"), "{none:?}");
    let status = world.status().await;
    assert!(
        status
            .upstream
            .last_failure
            .unwrap()
            .contains("is himdsd running?")
    );
    assert!(status.outage_budget_seconds.unwrap() > 3600);

    world.start_simulator().await;
    eventually("it recovers by itself", || async {
        world.token(STORAGE).await.status == 200
    })
    .await;
    assert_eq!(world.token(VAULT).await.json()["access_token"], before);
}

#[tokio::test(flavor = "multi_thread")]
async fn u22_an_upstream_that_comes_back_in_time_was_never_away() {
    let mut world = World::start().await;
    assert_eq!(world.token(VAULT).await.status, 200);
    world.stop_simulator().await;
    let socket = world.token_socket();
    let asked = tokio::spawn(async move {
        let mut stream = UnixStream::connect(socket).await.unwrap();
        let request = format!(
            "GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource={STORAGE} HTTP/1.1\r\nHost: localhost\r\nMetadata: true\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer)
            .await
            .unwrap();
        Answer::parse(&answer)
    });
    eventually("it was tried once", || async {
        world.status().await.upstream.token_requests > 1
    })
    .await;
    world.start_simulator().await;
    let answer = asked.await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
}
