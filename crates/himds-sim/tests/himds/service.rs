//! H14 to H17, H24 to H26 and H29: the other paths, and a service that does not serve.

use std::net::Ipv6Addr;

use himds_sim::Machine;

use crate::{
    assert_lists_versions,
    support::{METADATA, World, request, token_target},
};

const INSTANCE: &str = "/metadata/instance?api-version=2020-06-01";

#[tokio::test]
async fn h14_instance_metadata_needs_no_key() {
    let world = World::new().await;
    let answer = world.get(INSTANCE, &[METADATA]).await;
    assert_eq!(answer.status, 200);
    let id = answer.json()["compute"]["resourceId"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        id.contains("/providers/Microsoft.HybridCompute/machines/"),
        "{id}"
    );
    assert_eq!(answer.json()["network"], serde_json::json!({}));
    let compute = world
        .get(
            "/metadata/instance/compute?api-version=2019-03-11",
            &[METADATA],
        )
        .await;
    assert_eq!(compute.json(), answer.json()["compute"]);
}

#[tokio::test]
async fn h15_instance_metadata_needs_the_metadata_header_and_a_version() {
    let world = World::new().await;
    assert_eq!(world.get(INSTANCE, &[]).await.status, 400);
    assert_lists_versions(&world.get("/metadata/instance", &[METADATA]).await);
}

#[tokio::test]
async fn h16_the_status_of_the_agent_needs_no_header() {
    let world = World::new().await;
    let answer = world.get("/agentstatus", &[]).await;
    assert_eq!(
        (answer.status, answer.text("status").as_str()),
        (200, "Connected")
    );
}

#[tokio::test]
async fn h17_an_unknown_path_is_not_found() {
    let world = World::new().await;
    for path in [
        "/",
        "/metadata",
        "/metadata/identity/info",
        "/metadata/versions",
        "/metadata/instances",
        "/x",
    ] {
        assert_eq!(world.get(path, &[METADATA]).await.status, 404, "{path}");
    }
    world.fault("himds-identity-info");
    let info = world
        .get(
            "/metadata/identity/info?api-version=2020-06-01",
            &[METADATA],
        )
        .await;
    assert_eq!(info.text("tenantId"), Machine::default().tenant_id);
}

#[tokio::test]
async fn h24_while_starting_everything_is_unavailable() {
    let world = World::faulty("starting=5:2").await;
    let answer = world.challenge().await;
    assert_eq!(
        (answer.status, answer.text("error").as_str()),
        (503, "service_unavailable")
    );
    assert_eq!(answer.header("retry-after").as_deref(), Some("5"));
    assert_eq!(world.get(INSTANCE, &[METADATA]).await.status, 503);
    assert!(world.key_files().is_empty());
    assert_eq!(
        world.token().await.status,
        200,
        "two requests were struck, and no more"
    );
    world.fault("starting");
    assert_eq!(world.challenge().await.header("retry-after"), None);
}

#[tokio::test]
async fn h25_while_disconnected_there_are_challenges_and_metadata_but_no_tokens() {
    let world = World::faulty("disconnected").await;
    let answer = world.token().await;
    assert_eq!(
        (answer.status, answer.text("error").as_str()),
        (500, "server_error")
    );
    assert_eq!(world.get(INSTANCE, &[METADATA]).await.status, 200);
    world.fault("disconnected=503");
    assert_eq!(world.token().await.status, 503);
    world.sim.clear_faults();
    assert_eq!(world.token().await.status, 200);
}

#[tokio::test]
async fn h26_the_second_listener_is_a_switch() {
    let with = World::with(|options| options.ipv6 = true).await;
    let there = (Ipv6Addr::LOCALHOST, with.sim.address().port()).into();
    assert_eq!(
        request(there, "GET", &token_target(""), &[METADATA])
            .await
            .unwrap()
            .status,
        401
    );

    let without = World::new().await;
    let there = (Ipv6Addr::LOCALHOST, without.sim.address().port()).into();
    let refused = request(there, "GET", &token_target(""), &[METADATA])
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn h29_the_throttle_says_when_to_come_back() {
    let world = World::faulty("throttle=7:1").await;
    let answer = world.challenge().await;
    assert_eq!(
        (answer.status, answer.text("error").as_str()),
        (429, "too_many_requests")
    );
    assert_eq!(answer.header("retry-after").as_deref(), Some("7"));
    assert_eq!(world.challenge().await.header("retry-after"), None);
}
