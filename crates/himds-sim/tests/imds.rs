//! IMDS: the same tokens without a challenge, and other rules.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::time::Duration;

use himds_sim::{HandClock, Machine};
use support::{Answer, METADATA, TOKEN, VAULT, World, claims, eventually, request};

fn target(more: &str) -> String {
    format!("{TOKEN}?api-version=2018-02-01&resource={VAULT}{more}")
}

async fn imds() -> World {
    World::with(|options| options.imds = true).await
}

async fn unlimited() -> World {
    World::with(|options| {
        options.imds = true;
        options.rate_limits = false;
    })
    .await
}

fn assert_invalid(answer: &Answer, description: &str) {
    assert_eq!(
        (answer.status, answer.text("error").as_str()),
        (400, "invalid_request")
    );
    assert_eq!(answer.text("error_description"), description);
}

#[tokio::test]
async fn a_token_comes_without_a_challenge() {
    let world = imds().await;
    let answer = world.get(&target(""), &[METADATA]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.fields(),
        [
            "access_token",
            "refresh_token",
            "expires_in",
            "expires_on",
            "not_before",
            "resource",
            "token_type",
            "ext_expires_in",
            "client_id"
        ]
    );
    assert!(
        answer
            .json()
            .as_object()
            .unwrap()
            .values()
            .all(serde_json::Value::is_string)
    );
    assert_eq!(answer.text("client_id"), Machine::default().client_id);
    let claims = claims(&answer.text("access_token"));
    let id = claims["xms_mirid"].as_str().unwrap();
    assert!(
        id.contains("/providers/Microsoft.Compute/virtualMachines/"),
        "{id}"
    );
    assert!(world.sim.challenges() == 0 && !world.dir.path().join("tokens").exists());
    let again = world.get(&target(""), &[METADATA]).await;
    assert_eq!(again.text("access_token"), answer.text("access_token"));
    let bypassed = world.get(&target("&bypass_cache=true"), &[METADATA]).await;
    assert_ne!(bypassed.text("access_token"), answer.text("access_token"));
}

#[tokio::test]
async fn every_version_since_2018_02_01_has_tokens() {
    let world = unlimited().await;
    let versions = world.get("/metadata/versions", &[]).await.json();
    let versions = versions["apiVersions"].as_array().unwrap();
    assert_eq!(
        (versions.len(), &versions[0], &versions[34]),
        (35, &"2017-03-01".into(), &"2025-04-07".into())
    );
    for version in versions {
        let version = version.as_str().unwrap();
        let answer = world
            .get(
                &format!("{TOKEN}?api-version={version}&resource={VAULT}"),
                &[METADATA],
            )
            .await;
        assert_eq!(
            answer.status,
            if version < "2018-02-01" { 400 } else { 200 },
            "{version}"
        );
    }
}

#[tokio::test]
async fn an_unknown_version_is_answered_with_the_newest_ones() {
    let world = unlimited().await;
    for target in [
        format!("{TOKEN}?resource={VAULT}"),
        format!("{TOKEN}?api-version=2018-02-02&resource={VAULT}"),
    ] {
        let answer = world.get(&target, &[METADATA]).await;
        assert_eq!(answer.status, 400);
        assert!(
            answer
                .text("error")
                .starts_with("Bad request. api-version is invalid")
        );
        assert_eq!(
            answer.json()["newest-versions"],
            serde_json::json!(["2025-04-07", "2024-07-17", "2024-03-15"])
        );
    }
}

#[tokio::test]
async fn what_is_missing_forbidden_or_doubled_is_refused() {
    let world = unlimited().await;
    assert_invalid(
        &world.get(&target(""), &[]).await,
        "Required metadata header not specified",
    );
    let forwarded = [METADATA, ("X-Forwarded-For", "127.0.0.1")];
    assert_invalid(
        &world.get(&target(""), &forwarded).await,
        "The X-Forwarded-For header is not allowed",
    );
    for more in ["&resource=https://other", "&api-version=2018-02-01"] {
        let answer = world.get(&target(more), &[METADATA]).await;
        assert_invalid(&answer, "Duplicate query parameters are not allowed");
    }
    let without = format!("{TOKEN}?api-version=2018-02-01");
    assert_invalid(
        &world.get(&without, &[METADATA]).await,
        "Required query variable 'resource' is missing",
    );
    let posted = request(world.sim.address(), "POST", &target(""), &[METADATA])
        .await
        .unwrap();
    assert_eq!(
        (posted.status, posted.header("allow").as_deref()),
        (405, Some("GET"))
    );
    assert_eq!(world.get("/agentstatus", &[]).await.status, 404);
}

#[tokio::test]
async fn metadata_true_may_be_written_in_any_case() {
    let world = imds().await;
    assert_eq!(
        world.get(&target(""), &[("metadata", "True")]).await.status,
        200
    );
}

#[tokio::test]
async fn a_trailing_slash_makes_no_difference() {
    let world = imds().await;
    let target = target("").replace("token?", "token/?");
    assert_eq!(world.get(&target, &[METADATA]).await.status, 200);
}

#[tokio::test]
async fn a_user_assigned_identity_is_served_and_an_unknown_one_is_not() {
    let world = unlimited().await;
    let identity = Machine::default().user_identities[0].clone();
    for (selector, value) in [
        ("client_id", &identity.client_id),
        ("object_id", &identity.object_id),
        ("msi_res_id", &identity.resource_id),
    ] {
        let answer = world
            .get(&target(&format!("&{selector}={value}")), &[METADATA])
            .await;
        assert_eq!(
            (answer.text(selector), answer.text("client_id")),
            (value.clone(), identity.client_id.clone())
        );
        let claims = claims(&answer.text("access_token"));
        assert_eq!(claims["oid"], *identity.object_id);
        let machine = claims["xms_az_rid"].as_str().unwrap();
        assert!(machine.contains("/Microsoft.Compute/"), "{machine}");
    }
    assert_invalid(
        &world.get(&target("&client_id=nobody"), &[METADATA]).await,
        "Identity not found",
    );
}

#[tokio::test]
async fn instance_metadata_is_that_of_a_virtual_machine() {
    let world = unlimited().await;
    let answer = world
        .get("/metadata/instance?api-version=2021-02-01", &[METADATA])
        .await
        .json();
    let id = answer["compute"]["resourceId"].as_str().unwrap();
    assert!(
        id.contains("/resourceGroups/sim-group/providers/Microsoft.Compute/virtualMachines/"),
        "{id}"
    );
    assert_eq!(
        answer["network"]["interface"][0]["ipv6"]["ipAddress"],
        serde_json::json!([])
    );
    let leaf =
        "/metadata/instance/network/interface/0/macAddress?api-version=2021-02-01&format=text";
    assert_eq!(world.get(leaf, &[METADATA]).await.body, b"0022480A1B2C");
    let nowhere = "/metadata/instance/compute/nothing?api-version=2021-02-01";
    assert_eq!(world.get(nowhere, &[METADATA]).await.status, 404);
    assert_eq!(
        world
            .get("/metadata/instance?api-version=2021-02-01", &[])
            .await
            .status,
        400
    );
}

#[tokio::test]
async fn the_tenant_is_told() {
    let world = imds().await;
    let answer = world
        .get(
            "/metadata/identity/info?api-version=2018-02-01",
            &[METADATA],
        )
        .await;
    assert_eq!(
        answer.json(),
        serde_json::json!({ "tenantId": Machine::default().tenant_id })
    );
}

fn assert_throttled(answer: &Answer) {
    assert_eq!(answer.status, 429);
    let body = r#"{"error":"invalid_request","error_description":"Temporarily throttled, too many requests"}"#;
    assert_eq!(String::from_utf8_lossy(&answer.body), body);
}

#[tokio::test]
async fn more_than_twenty_token_requests_in_a_second_are_throttled() {
    let clock = HandClock::at(1_800_000_000);
    let world = World::with(|options| {
        options.imds = true;
        options.clock = clock.clock();
    })
    .await;
    for _ in 0..20 {
        assert_eq!(world.get(&target(""), &[METADATA]).await.status, 200);
    }
    assert_throttled(&world.get(&target(""), &[METADATA]).await);
    clock.advance(Duration::from_secs(1));
    assert_eq!(world.get(&target(""), &[METADATA]).await.status, 200);

    let instance = "/metadata/instance?api-version=2021-02-01";
    for _ in 0..5 {
        assert_eq!(world.get(instance, &[METADATA]).await.status, 200);
    }
    assert_throttled(&world.get(instance, &[METADATA]).await);
}

#[tokio::test]
async fn more_than_five_token_requests_at_a_time_are_throttled() {
    let world = std::sync::Arc::new(imds().await);
    world.fault("first-delay=600000:5");
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..5 {
        let world = std::sync::Arc::clone(&world);
        waiting.spawn(async move { world.try_get(&target(""), &[METADATA]).await });
    }
    eventually("five requests wait", || world.sim.journal().len() == 5).await;
    assert_throttled(&world.get(&target(""), &[METADATA]).await);
    waiting.shutdown().await;
    eventually("a place is free again", || {
        world
            .sim
            .journal()
            .iter()
            .any(|entry| entry.outcome == himds_sim::Outcome::Abandoned)
    })
    .await;
    assert_eq!(world.get(&target(""), &[METADATA]).await.status, 200);
}

#[tokio::test]
async fn faults_of_the_first_request_strike() {
    let world = unlimited().await;
    world.fault("first-status=410:1");
    assert_eq!(world.get(&target(""), &[METADATA]).await.status, 410);
    world.fault("throttle=3:1");
    let answer = world.get(&target(""), &[METADATA]).await;
    assert_throttled(&answer);
    assert_eq!(answer.header("retry-after").as_deref(), Some("3"));
    world.fault("starting:1");
    assert_eq!(world.get(&target(""), &[METADATA]).await.status, 503);
    world.fault("no-expiry:1");
    assert!(
        world
            .get(&target(""), &[METADATA])
            .await
            .json()
            .get("expires_on")
            .is_none()
    );
    assert_eq!(world.get(&target(""), &[METADATA]).await.status, 200);
}
