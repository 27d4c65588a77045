//! What each socket serves beside tokens: who am I, how is it going, and nothing else.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::os::unix::fs::MetadataExt;

use arcbroker_e2e::{DAEMON_UID, SOCKET_GID, Setup, User, World, is_root};

const TARGET: &str =
    "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net";
const VAULT: &str = "https%3A%2F%2Fvault.azure.net";

#[tokio::test(flavor = "multi_thread")]
async fn whoami_tells_a_process_how_it_is_seen_and_what_it_may_have() {
    let world = World::with(policy("[\"keyvault\", \"storage\"]")).await;
    let me = User::current();
    let answer = world.get_with("/v1/whoami", &[]).await.json();
    assert_eq!(
        keys(&answer),
        [
            "container",
            "gid",
            "groups",
            "invocation",
            "pid",
            "resources",
            "schema",
            "uid",
            "unit",
            "user"
        ]
    );
    assert_eq!(
        (answer["uid"].as_u64(), answer["gid"].as_u64()),
        (Some(me.uid.into()), Some(me.gid.into()))
    );
    assert_eq!(answer["pid"], std::process::id());
    let vault = serde_json::json!({ "resource": "https://vault.azure.net", "identity": "system", "rule": "test" });
    assert!(
        answer["resources"].as_array().unwrap().contains(&vault),
        "{answer}"
    );
    assert_eq!(world.audit().len(), 0, "nothing was decided");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_status_say_how_it_goes() {
    let world = World::start().await;
    assert_eq!(world.token(VAULT).await.status, 200);
    let health = world.get_with("/v1/health", &[]).await.json();
    assert_eq!(
        health,
        serde_json::json!({ "schema": 1, "health": "healthy" })
    );

    let status = world.admin("/v1/status").await.json();
    let expected = [
        "audit",
        "connections",
        "health",
        "outage_budget_seconds",
        "pid",
        "policy",
        "reasons",
        "requests",
        "schema",
        "started_at",
        "tokens",
        "upstream",
        "uptime_seconds",
        "version",
    ];
    assert_eq!(keys(&status), expected);
    let token = &status["tokens"][0];
    let expected = [
        "expires_on",
        "identity",
        "last_failure",
        "refresh_in_seconds",
        "remaining_seconds",
        "resource",
        "state",
        "wanted",
    ];
    assert_eq!(keys(token), expected);
    assert_eq!(
        (token["resource"].as_str(), token["state"].as_str()),
        (Some("https://vault.azure.net"), Some("fresh"))
    );
    assert_eq!(status["pid"], world.daemon.pid());
    assert_eq!(
        status["requests"],
        serde_json::json!({"issued": 1, "denied": 0, "malformed": 0, "unavailable": 0, "abandoned": 0, "throttled": 0})
    );
    assert_eq!(status["audit"]["sequence"], 1);
    assert_eq!(status["policy"]["rules"], 1);
    let budget = status["outage_budget_seconds"].as_u64().unwrap();
    assert!((86_000..86_400).contains(&budget), "{budget}");
    assert_eq!(status["upstream"]["endpoint"], world.simulator().endpoint());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_socket_serves_its_own_paths_and_nothing_else() {
    let world = World::start().await;
    for target in [
        "/v1/status",
        "/metrics",
        "/",
        "/metadata",
        "/metadata/identity/oauth2/token/x",
        "/metadata/instance/compute",
    ] {
        let answer = world.get(target).await;
        assert_eq!(
            (answer.status, answer.json()["error"].as_str()),
            (404, Some("not_found")),
            "{target}"
        );
    }
    for target in [
        TARGET,
        "/v1/whoami",
        "/v1/health",
        "/metadata/instance",
        "/",
    ] {
        assert_eq!(world.admin(target).await.status, 404, "{target}");
    }
    assert_eq!(world.simulator().token_requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sockets_have_their_owner_group_and_mode() {
    let world = World::start().await;
    let (uid, gid) = if is_root() {
        (DAEMON_UID, SOCKET_GID)
    } else {
        (User::current().uid, User::current().gid)
    };
    let token = fs::metadata(world.token_socket()).unwrap();
    assert_eq!(
        (token.uid(), token.gid(), token.mode() & 0o7777),
        (uid, gid, 0o660)
    );
    let admin = fs::metadata(world.admin_socket()).unwrap();
    assert_eq!((admin.uid(), admin.mode() & 0o7777), (uid, 0o600));
}

fn keys(object: &serde_json::Value) -> Vec<&str> {
    object
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| key.as_str())
        .collect()
}

fn policy(resources: &str) -> Setup {
    let uid = User::current().uid;
    let policy =
        format!("version = 1\n[[rule]]\nname = \"test\"\nuser = {uid}\nresources = {resources}\n");
    Setup {
        policy,
        ..Setup::default()
    }
}
