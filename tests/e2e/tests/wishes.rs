//! Who knows that a token is of no use: a caller whom a resource refused, an administrator, and a
//! machine that has become another.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use arcbroker_client::{AccessToken, TokenRequest};
use arcbroker_e2e::{Answer, Setup, World, eventually};
use himds_sim::{AgentVersion, Options};
use nix::unistd::geteuid;

const VAULT: &str = "https%3A%2F%2Fvault.azure.net";
const RESOURCE: &str = "https://vault.azure.net";

async fn ask_instead_of(world: &World, refused: &AccessToken) -> AccessToken {
    let request = TokenRequest::new(RESOURCE).instead_of(refused);
    world.client().token(request).await.unwrap()
}

fn bypasses(world: &World) -> usize {
    let is_bypass = |(name, value): &(String, String)| name == "bypass_cache" && value == "true";
    let asked = world.with_key();
    asked
        .iter()
        .filter(|entry| entry.query.iter().any(is_bypass))
        .count()
}

async fn bypassing(world: &World) -> Answer {
    world.token(&format!("{VAULT}&bypass_cache=true")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn b20_b21_a_refused_token_is_replaced_once_and_its_digest_then_costs_nothing() {
    let world = World::start().await;
    let refused = world.client().token(RESOURCE).await.unwrap();
    let better = ask_instead_of(&world, &refused).await;
    assert_ne!(better.secret, refused.secret);
    assert_eq!((world.simulator().tokens(), bypasses(&world)), (2, 1));
    assert_eq!(ask_instead_of(&world, &refused).await.secret, better.secret);
    let others = world.client().token(RESOURCE).await.unwrap();
    assert_eq!(others.secret, better.secret);
    assert_eq!(world.simulator().tokens(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn b20_an_agent_that_keeps_its_token_is_not_asked_again_and_again() {
    let old: fn(&mut Options) = |options| options.agent_version = AgentVersion::new(1, 65);
    let world = World::with(Setup {
        simulator: old,
        ..Setup::default()
    })
    .await;
    let refused = world.client().token(RESOURCE).await.unwrap();
    for _ in 0..20 {
        let again = ask_instead_of(&world, &refused).await;
        assert_eq!(again.secret, refused.secret);
    }
    assert_eq!((world.simulator().tokens(), bypasses(&world)), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_digest_is_refused_and_xms_cc_is_let_pass() {
    let world = World::start().await;
    for digest in ["", "abc", &"g".repeat(64)] {
        let answer = world
            .token(&format!("{VAULT}&token_sha256_to_refresh={digest}"))
            .await;
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(answer.body.contains("64 hex digits"), "{answer:?}");
    }
    let digest = "0".repeat(64);
    let twice =
        format!("{VAULT}&token_sha256_to_refresh={digest}&token_sha256_to_refresh={digest}");
    assert_eq!(world.token(&twice).await.status, 400);
    let answer = world
        .token(&format!(
            "{VAULT}&xms_cc=cp1&token_sha256_to_refresh={digest}"
        ))
        .await;
    assert_eq!(answer.status, 200, "B23: {answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn b22_the_cache_is_passed_by_only_where_a_rule_gives_leave_and_once_a_minute() {
    let uid = geteuid();
    let rule = |leave: bool| {
        format!(
            "version = 1\n[[rule]]\nname = \"test\"\nuser = {uid}\nresources = [\"keyvault\"]\nbypass-cache = {leave}\n"
        )
    };
    for (leave, tokens) in [(false, 1), (true, 2)] {
        let world = World::with(Setup {
            policy: rule(leave),
            ..Setup::default()
        })
        .await;
        let first = world.token(VAULT).await.json();
        for _ in 0..5 {
            let answer = bypassing(&world).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(
                answer.json()["access_token"] != first["access_token"],
                leave
            );
        }
        assert_eq!(world.simulator().tokens(), tokens);
        assert_eq!(bypasses(&world), tokens - 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_and_a_refresh_are_for_post_on_the_admin_socket_alone() {
    let world = World::start().await;
    let first = world.token(VAULT).await.json();
    for target in ["/v1/flush", "/v1/refresh"] {
        let answer = world.get(target).await;
        assert_eq!(answer.status, 404, "not for callers: {answer:?}");
        let answer = world.admin(target).await;
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, Some("POST")),
            "{answer:?}"
        );
    }
    assert_eq!(
        world.command("/v1/status").await.header("allow"),
        Some("GET")
    );
    let answer = world.command("/v1/flush?resource=keyvlt").await;
    assert_eq!(answer.status, 400, "{answer:?}");

    let answer = world.command("/v1/refresh?resource=keyvault").await;
    assert_eq!(answer.body, r#"{"schema":1,"tokens":1}"#);
    eventually("the token is another one", || async {
        world.token(VAULT).await.json()["access_token"] != first["access_token"]
    })
    .await;

    let second = world.token(VAULT).await.json();
    world.fault("fresh-token");
    assert_eq!(
        world.command("/v1/flush").await.body,
        r#"{"schema":1,"tokens":1}"#
    );
    let third = world.token(VAULT).await.json();
    assert_ne!(second["access_token"], third["access_token"]);
    let waited = world.audit().pop().unwrap();
    assert_eq!(waited["cache"], "fetch");
}

#[tokio::test(flavor = "multi_thread")]
async fn t40_i31_when_the_machine_becomes_another_no_token_of_before_is_served() {
    let world = World::start().await;
    let storage = "https%3A%2F%2Fstorage.azure.com%2F";
    world.token(VAULT).await;
    let before = world.token(storage).await.json();
    world.fault("other-identity");
    world
        .command(&format!("/v1/refresh?resource={VAULT}"))
        .await;
    eventually("the change is noticed", || async {
        world.daemon.log().contains("tokens of another identity")
    })
    .await;
    let after = world.token(storage).await.json();
    assert_ne!(before["access_token"], after["access_token"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn i13_an_outage_is_invisible_to_those_with_a_token() {
    let mut world = World::start().await;
    let first = world.token(VAULT).await.json();
    world.stop_simulator().await;
    // Due, as after half of its life: every request finds a refresh that fails.
    world.command("/v1/refresh").await;
    let mut asked = 0;
    let until = tokio::time::Instant::now() + Duration::from_secs(3);
    // Many requests, however slow the machine is.
    while tokio::time::Instant::now() < until || asked <= 100 {
        let answer = world.token(VAULT).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["access_token"], first["access_token"]);
        asked += 1;
    }
    let records = world.audit();
    assert!(
        records[1..].iter().all(|record| record["cache"] == "cache"),
        "nobody waited"
    );
    let status = world.status().await;
    assert!(
        status.upstream.token_requests < 30,
        "{}",
        status.upstream.token_requests
    );
}
