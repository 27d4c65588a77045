//! HIMDS is away: what is there is served, what is not is refused with advice, and nothing has to
//! be done when it is back.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use arcbroker_client::wire::Health;
use arcbroker_e2e::{World, eventually};

const VAULT: &str = "https%3A%2F%2Fvault.azure.net";
const STORAGE: &str = "https%3A%2F%2Fstorage.azure.com%2F";

#[tokio::test(flavor = "multi_thread")]
async fn b19_without_himds_a_cached_token_is_served_and_others_are_refused_with_advice() {
    let mut world = World::start().await;
    let before = world.token(VAULT).await.json();
    world.stop_simulator().await;

    let cached = world.token(VAULT).await;
    assert_eq!(cached.status, 200, "{cached:?}");
    assert_eq!(cached.json()["access_token"], before["access_token"]);

    let tries = world.status().await.upstream.token_requests;
    let refused = world.token(STORAGE).await;
    assert_eq!(
        (refused.status, refused.json()["error"].as_str()),
        (503, Some("service_unavailable")),
        "{refused:?}"
    );
    assert!(
        refused
            .header("retry-after")
            .unwrap()
            .parse::<u64>()
            .unwrap()
            >= 1,
        "{refused:?}"
    );
    let words = refused.json()["error_description"]
        .as_str()
        .unwrap()
        .to_owned();
    for part in [
        "HIMDS does not answer",
        "systemctl status himdsd",
        "arcbroker status",
    ] {
        assert!(words.contains(part), "{part}: {words}");
    }
    let record = world.audit().pop().unwrap();
    assert_eq!(record["outcome"], "unavailable");
    assert_eq!(refused.json()["request_id"], record["id"]);

    let status = world.status().await;
    assert_eq!(status.health, Health::Failing);
    assert!(
        status.reasons[0].contains("https://storage.azure.com/"),
        "{:?}",
        status.reasons
    );
    assert!(status.upstream.last_failure.is_some());
    assert_eq!(
        status.upstream.token_requests - tries,
        4,
        "so many are made within two seconds, and no more"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn service_resumes_by_itself_when_himds_is_back() {
    let mut world = World::start().await;
    assert_eq!(world.token(VAULT).await.status, 200);
    world.stop_simulator().await;
    assert_eq!(world.token(STORAGE).await.status, 503);
    world.start_simulator().await;
    eventually("tokens are served again", || async {
        world.token(STORAGE).await.status == 200
    })
    .await;
    assert_eq!(world.status().await.health, Health::Healthy);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_remembered_so_that_clients_cannot_hammer_himds() {
    let world = World::start().await;
    world.simulator().set_fault("throttle=30".parse().unwrap());
    for _ in 0..20 {
        let refused = world.token(VAULT).await;
        assert_eq!(refused.status, 503, "{refused:?}");
        let after: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=40).contains(&after), "{after}");
    }
    assert_eq!(world.simulator().token_requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn b17_a_token_with_less_than_five_minutes_is_not_served_where_a_fresh_one_can_be_had() {
    let world = World::start().await;
    // Two seconds above the floor, as HIMDS's own cache may give it.
    world
        .simulator()
        .set_fault("short-lifetime=302:1".parse().unwrap());
    let short = world.token(VAULT).await.json();
    let left = |token: &serde_json::Value| {
        token["expires_in"]
            .as_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    assert!((295..=302).contains(&left(&short)), "{}", left(&short));
    eventually("there is a fresh token", || async {
        let token = world.token(VAULT).await.json();
        assert!(left(&token) >= 299, "{}", left(&token));
        token["access_token"] != short["access_token"]
    })
    .await;
    assert_eq!(world.simulator().tokens(), 2);
}
