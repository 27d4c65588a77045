//! How long a token is kept. What needs half of a token's life to pass is tested where time can be
//! made to: in the tests of the cache.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use arcbroker_e2e::{Answer, Setup, World, eventually};
use himds_sim::AgentVersion;

const VAULT: &str = "https%3A%2F%2Fvault.azure.net";
const STORAGE: &str = "https%3A%2F%2Fstorage.azure.com%2F";
const ARM: &str = "https%3A%2F%2Fmanagement.azure.com%2F";

fn number(answer: &Answer, field: &str) -> u64 {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()[field].as_str().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn u14_u15_numbers_and_texts_and_one_of_both_ends_are_understood() {
    let world = World::with(Setup {
        policy: World::anything(),
        ..Setup::default()
    })
    .await;
    for (case, fault) in [
        "expires-on-number",
        "only-expires-in",
        "only-expires-on",
        "expires-on=4000000000",
    ]
    .into_iter()
    .enumerate()
    {
        world.fault(fault);
        let answer = world
            .token(&format!("https%3A%2F%2Fcase-{case}.example"))
            .await;
        world.simulator().clear_faults();
        let left = number(&answer, "expires_in");
        assert!((86_390..=86_400).contains(&left), "{fault}: {answer:?}");
        let token = &world.status().await.tokens;
        assert!(token.iter().all(|token| token.state != "failed"), "{fault}");
        // Every value is text, whatever upstream wrote.
        assert!(
            answer
                .json()
                .as_object()
                .unwrap()
                .values()
                .all(serde_json::Value::is_string)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn h27_old_agents_leave_things_out() {
    let world = World::with(Setup {
        simulator: |options| options.agent_version = AgentVersion::new(1, 0),
        ..Setup::default()
    })
    .await;
    let answer = world.token(VAULT).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["resource"], "https://vault.azure.net");
    assert_eq!(answer.json()["not_before"], "");
}

#[tokio::test(flavor = "multi_thread")]
async fn b14_i5_a_token_that_lives_is_asked_for_once() {
    for lifetime in [
        |options: &mut himds_sim::Options| options.lifetime = Duration::from_secs(90),
        |options: &mut himds_sim::Options| options.lifetime = Duration::from_mins(4),
        |options: &mut himds_sim::Options| options.lifetime = Duration::from_mins(10),
        |options: &mut himds_sim::Options| options.lifetime = Duration::from_hours(24),
    ] {
        let world = World::with(Setup {
            simulator: lifetime,
            ..Setup::default()
        })
        .await;
        let first = world.token(VAULT).await;
        for _ in 0..50 {
            let again = world.token(VAULT).await;
            assert_eq!(again.json()["access_token"], first.json()["access_token"]);
            assert_eq!(number(&again, "expires_on"), number(&first, "expires_on"));
            assert!(number(&again, "expires_in") <= number(&first, "expires_in"));
        }
        assert_eq!(world.asked().len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i3_a_token_with_less_than_a_minute_is_not_handed_out_and_causes_no_loop() {
    let world = World::with(Setup {
        simulator: |options| options.lifetime = Duration::from_secs(50),
        ..Setup::default()
    })
    .await;
    for _ in 0..50 {
        let answer = world.token(VAULT).await;
        assert_eq!(
            (answer.status, answer.error().as_str()),
            (502, "server_error"),
            "{answer:?}"
        );
    }
    assert_eq!(
        world.asked().len(),
        4,
        "two tries, and then it is remembered"
    );
    let status = world.status().await;
    assert!(status.tokens.iter().all(|token| token.expires_on.is_none()));
    let failure = status.tokens[0].last_failure.clone().unwrap();
    assert!(failure.contains("less than a minute"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn b17_i3_i5_a_token_that_runs_out_is_replaced_before_it_has_less_than_a_minute() {
    let world = World::start().await;
    world.fault("short-lifetime=63:1");
    let short = world.token(VAULT).await;
    assert!(
        (60..=63).contains(&number(&short, "expires_in")),
        "{short:?}"
    );
    let end = std::cell::Cell::new(number(&short, "expires_on"));
    let refused = std::cell::Cell::new(0);
    eventually("it is replaced", || async {
        let answer = world.token(VAULT).await;
        // Its last minute may begin while it is recorded that it is handed out: then it is not.
        if answer.status == 503 {
            assert_eq!(answer.error(), "service_unavailable", "{answer:?}");
            refused.set(refused.get() + 1);
            return false;
        }
        assert!(number(&answer, "expires_in") >= 60, "{answer:?}");
        let expires_on = number(&answer, "expires_on");
        assert!(
            expires_on >= end.get(),
            "a token ended sooner than the one before"
        );
        end.set(expires_on);
        number(&answer, "expires_in") > 63
    })
    .await;
    assert!(refused.get() <= 1, "{}", refused.get());
    assert_eq!(world.asked().len(), 4, "one fetch for each token");
}

#[tokio::test(flavor = "multi_thread")]
async fn i3_a_token_that_ran_out_is_not_handed_out_though_upstream_is_away() {
    let mut world = World::start().await;
    world.fault("short-lifetime=65:1");
    assert_eq!(world.token(VAULT).await.status, 200);
    assert_eq!(world.token(STORAGE).await.status, 200);
    world.stop_simulator().await;
    eventually("it has run out", || async {
        let answer = world.token(VAULT).await;
        assert!(
            answer.status == 503 || number(&answer, "expires_in") >= 60,
            "{answer:?}"
        );
        answer.status == 503
    })
    .await;
    let status = world.status().await;
    let held = status
        .tokens
        .iter()
        .filter(|token| token.expires_on.is_some());
    assert_eq!(held.count(), 1, "{status:?}");
    assert_eq!(
        world.token(STORAGE).await.status,
        200,
        "the other one lives"
    );
    assert_eq!(world.token(ARM).await.status, 503);
}
