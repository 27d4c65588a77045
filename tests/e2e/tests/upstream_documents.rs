//! Documents about the machine: passed through, and asked for once for all.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use arcbroker_e2e::{World, eventually};
use himds_sim::Machine;

const VAULT: &str = "https%3A%2F%2Fvault.azure.net";
const INSTANCE: &str = "/metadata/instance?api-version=2020-06-01";
const INFO: &str = "/metadata/identity/info?api-version=2018-02-01";

/// A world whose daemon has already looked for HIMDS by itself, which it does once.
async fn settled() -> World {
    let world = World::start().await;
    eventually("the daemon has found HIMDS", || async {
        world.status().await.upstream.last_success_at.is_some()
    })
    .await;
    world
}

fn asked(world: &World, path: &str) -> usize {
    let journal = world.simulator().journal();
    journal.iter().filter(|entry| entry.path == path).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn b26_the_instance_is_told_as_upstream_tells_it_and_asked_for_once() {
    let world = settled().await;
    let many = (0..30).map(|_| world.get(INSTANCE));
    let mut answers = Vec::new();
    for answer in many {
        answers.push(answer.await);
    }
    for answer in &answers {
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.body, answers[0].body);
    }
    let compute = &answers[0].json()["compute"];
    assert_eq!(compute["name"], Machine::default().name.as_str());
    assert!(
        compute["resourceId"]
            .as_str()
            .unwrap()
            .contains("Microsoft.HybridCompute/machines")
    );
    assert_eq!(asked(&world, "/metadata/instance"), 1);
    let journal = world.simulator().journal();
    assert_eq!(journal[0].parameter("api-version"), Some("2020-06-01"));
    assert_eq!(journal[0].header("metadata"), Some("true"));
    assert_eq!(
        world.simulator().challenges(),
        0,
        "no token is needed for it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn b26_the_instance_has_the_same_rules_as_a_token() {
    let world = settled().await;
    let before = asked(&world, "/metadata/instance");
    assert_eq!(world.get_with(INSTANCE, &[]).await.status, 400);
    let forwarded = ["Metadata: true", "X-Forwarded-For: 1.2.3.4"];
    assert_eq!(world.get_with(INSTANCE, &forwarded).await.status, 400);
    assert_eq!(
        world
            .get("/metadata/instance?api-version=1999-01-01")
            .await
            .status,
        400
    );
    assert_eq!(world.get("/metadata/instance").await.status, 400);
    assert_eq!(asked(&world, "/metadata/instance"), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn b27_the_tenant_is_told_from_the_token_where_himds_does_not_tell_it() {
    let world = settled().await;
    let unknown = world.get(INFO).await;
    assert_eq!(
        (unknown.status, unknown.error().as_str()),
        (404, "not_found"),
        "{unknown:?}"
    );
    assert_eq!(world.token(VAULT).await.status, 200);
    let known = world.get(INFO).await;
    assert_eq!(known.status, 200, "{known:?}");
    assert_eq!(
        known.json()["tenantId"],
        Machine::default().tenant_id.as_str()
    );
    assert_eq!(
        asked(&world, "/metadata/identity/info"),
        1,
        "the failure is remembered"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn b27_the_tenant_is_passed_on_where_himds_tells_it() {
    let world = settled().await;
    world.fault("himds-identity-info");
    for _ in 0..10 {
        let answer = world.get(INFO).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(
            answer.json()["tenantId"],
            Machine::default().tenant_id.as_str()
        );
    }
    assert_eq!(asked(&world, "/metadata/identity/info"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn b26_failures_have_the_answers_that_tokens_have() {
    // In force from the start, so that the daemon's own look does not succeed.
    let world = World::with(arcbroker_e2e::Setup {
        simulator: |options| options.faults.push("instance-status=500".parse().unwrap()),
        ..Default::default()
    })
    .await;
    for (fault, status) in [
        ("instance-status=500", 503),
        ("instance-status=404", 404),
        ("instance-status=302", 502),
        ("instance-status=429,1", 503),
    ] {
        world.fault(fault);
        // A failure is remembered for two seconds.
        eventually(fault, || async {
            world.get(INSTANCE).await.status == status
        })
        .await;
    }
    world.simulator().clear_faults();
    eventually("all is well again", || async {
        world.get(INSTANCE).await.status == 200
    })
    .await;
    assert_eq!(world.token(VAULT).await.status, 200);
}
