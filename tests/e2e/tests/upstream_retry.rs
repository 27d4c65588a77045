//! Failures of HIMDS: how often it is asked again, with which key, and what the caller is told.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::collections::HashSet;

use arcbroker_e2e::{Setup, World, eventually};

const VAULT: &str = "https%3A%2F%2Fvault.azure.net";
const STORAGE: &str = "https%3A%2F%2Fstorage.azure.com%2F";

async fn anything() -> World {
    World::with(Setup {
        policy: World::anything(),
        ..Setup::default()
    })
    .await
}

fn seconds(answer: &arcbroker_e2e::Answer) -> Option<u64> {
    answer
        .header("retry-after")
        .map(|text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn u09_u10_every_attempt_has_a_challenge_and_a_key_of_its_own() {
    let world = anything().await;
    // Fault, attempts, the answer in the end.
    for (number, (fault, attempts, status)) in [
        ("second-challenge", 2, 502),
        ("second-challenge:1", 2, 200),
        ("second-status=401", 2, 502),
        ("key-rotated", 2, 502),
        ("key-rotated:1", 2, 200),
        ("second-status=500:1", 2, 200),
        ("second-status=503:2", 3, 200),
        ("second-status=502", 4, 503),
        ("disconnected:1", 2, 200),
        ("second-status=403", 2, 403),
        ("second-status=404:1", 2, 200),
        ("second-status=400", 1, 400),
        ("second-status=405", 1, 400),
        ("second-status=204", 2, 502),
        ("second-status=500,1", 1, 503),
        ("second-status=503,1", 1, 503),
        ("second-close:1", 2, 200),
        ("second-reset:1", 2, 200),
        ("second-close", 2, 503),
        ("second-reset", 2, 503),
        ("second-cut", 2, 503),
        ("second-length-lie", 2, 503),
        ("second-chunked-lie", 2, 503),
        ("second-http09", 2, 503),
    ]
    .into_iter()
    .enumerate()
    {
        let resource = format!("https%3A%2F%2Fcase-{number}.example");
        world.recover().await;
        world.simulator().clear_journal();
        world.fault(fault);
        let answer = world.token(&resource).await;
        world.simulator().clear_faults();
        let what = format!("{fault}: {answer:?}\n{:?}", world.asked());
        assert_eq!(answer.status, status, "{what}");
        assert_eq!(seconds(&answer).is_some(), status == 503, "{what}");
        let (asked, with_key) = (world.asked(), world.with_key());
        assert_eq!(with_key.len(), attempts, "{what}");
        assert_eq!(asked.len(), 2 * attempts, "{what}");
        for pair in asked.chunks(2) {
            assert_eq!(pair[0].connection, pair[1].connection, "{what}");
        }
        if !fault.starts_with("key-rotated") {
            let keys: HashSet<_> = with_key.iter().map(|entry| entry.key.clone()).collect();
            assert_eq!(keys.len(), attempts, "a key was used twice: {what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hu3_failures_before_the_challenge_have_their_documented_answers() {
    let world = anything().await;
    for (number, (fault, attempts, status)) in [
        ("first-status=503:2", 3, 200),
        ("first-status=400", 1, 400),
        ("first-status=403", 2, 403),
        ("first-status=404", 2, 403),
        ("first-status=408:1", 2, 200),
        ("first-status=500:1", 2, 200),
        ("first-status=204", 2, 502),
        ("first-close:1", 2, 200),
        ("first-reset:1", 2, 200),
        ("first-close", 2, 503),
        ("first-reset", 2, 503),
        ("first-cut", 2, 503),
        ("first-length-lie", 2, 503),
        ("first-chunked-lie", 2, 503),
        ("first-http09", 2, 503),
        ("huge-header", 2, 503),
    ]
    .into_iter()
    .enumerate()
    {
        let resource = format!("https%3A%2F%2Fcase-{number}.example");
        world.recover().await;
        world.simulator().clear_journal();
        world.fault(fault);
        let answer = world.token(&resource).await;
        world.simulator().clear_faults();
        let what = format!("{fault}: {answer:?}\n{:?}", world.asked());
        assert_eq!(answer.status, status, "{what}");
        assert_eq!(seconds(&answer).is_some(), status == 503, "{what}");
        let first = world.asked().len() - world.with_key().len();
        assert_eq!(first, attempts, "{what}");
    }
    // These never get as far as a request.
    world.fault("reset-on-accept");
    let answer = world.token("https%3A%2F%2Freset.example").await;
    assert_eq!(
        (answer.status, seconds(&answer).is_some()),
        (503, true),
        "{answer:?}"
    );
    world.simulator().clear_faults();
    assert_eq!(
        world
            .token("https%3A%2F%2Freset-after.example")
            .await
            .status,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn u10_an_upstream_that_starts_is_waited_for() {
    let world = World::start().await;
    // The daemon looks for HIMDS once by itself; that must not use up what is meant for us.
    eventually("the daemon has found HIMDS", || async {
        world.status().await.upstream.last_success_at.is_some()
    })
    .await;
    world.fault("starting:2");
    assert_eq!(
        world.token(VAULT).await.status,
        200,
        "{}",
        world.daemon.log()
    );
    assert_eq!(world.asked().len(), 4);

    world.fault("starting=1");
    let answer = world.token(STORAGE).await;
    assert_eq!(
        (answer.status, answer.error().as_str()),
        (503, "service_unavailable")
    );
    assert_eq!(seconds(&answer), Some(1), "{answer:?}");
    world.simulator().clear_faults();
    eventually("it has started", || async {
        world.token(STORAGE).await.status == 200
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t39_i17_nothing_is_asked_before_a_retry_after_is_over() {
    let world = World::start().await;
    world.fault("second-throttle=2:1");
    let first = world.token(VAULT).await;
    assert_eq!((first.status, seconds(&first)), (503, Some(2)), "{first:?}");
    let asked = world.asked().len();
    let again = world.token(VAULT).await;
    assert_eq!(again.status, 503);
    assert!(matches!(seconds(&again), Some(1..=2)), "{again:?}");
    assert_eq!(world.asked().len(), asked, "it was asked again at once");

    // HIMDS spoke for itself: nothing else is asked for either.
    let other = world.token(STORAGE).await;
    assert_eq!(
        (other.status, world.asked().len()),
        (503, asked),
        "{other:?}"
    );
    assert_eq!(
        world
            .get("/metadata/identity/info?api-version=2018-02-01")
            .await
            .status,
        503
    );
    assert!(
        world
            .simulator()
            .journal()
            .iter()
            .all(|entry| !entry.path.ends_with("/info"))
    );

    eventually("the time is over", || async {
        world.token(VAULT).await.status == 200
    })
    .await;
    let times: Vec<_> = world.asked().iter().map(|entry| entry.time_ms).collect();
    assert_eq!(times.len(), asked + 2);
    assert!(
        times[asked] - times[asked - 1] >= 2_000,
        "asked too early: {times:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn t39_a_retry_after_is_clamped_or_ignored() {
    let mut world = anything().await;
    for (fault, expected) in [
        ("throttle=0", 1),
        ("throttle=301", 300),
        ("throttle=99999999999999999999999999", 300),
        ("throttle", 10),
        ("throttle=-5", 10),
        ("throttle=soon", 10),
        ("throttle=Wed, 21 Oct 2099 07:28:00 GMT", 10),
        ("first-status=503,100000", 300),
    ] {
        world.fault(&format!("{fault}:*"));
        let answer = world.token(VAULT).await;
        let told = (answer.status, seconds(&answer));
        assert_eq!(told, (503, Some(expected)), "{fault}: {answer:?}");
        world.simulator().clear_faults();
        // A daemon that remembers none of it.
        world.restart_daemon().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hu3_a_hang_is_broken_off_and_tried_again() {
    let world = World::start().await;
    world.fault("first-hang:1");
    assert_eq!(
        world.token(VAULT).await.status,
        200,
        "{}",
        world.daemon.log()
    );
    assert_eq!(world.asked().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn i9_whoever_waits_is_told_within_twenty_seconds() {
    let mut world = World::start().await;
    world.fault("first-hang");
    let answers = tokio::join!(world.token(VAULT), world.token(STORAGE), world.token(VAULT));
    for answer in [&answers.0, &answers.1, &answers.2] {
        assert_eq!(
            (answer.status, answer.error().as_str()),
            (503, "service_unavailable")
        );
        assert!(seconds(answer).is_some(), "{answer:?}");
    }
    // By the daemon's own clock: how fast the test comes to read an answer is not its doing.
    let records = world.audit();
    assert_eq!(records.len(), 3);
    for record in records {
        assert!(record["ms"].as_u64().unwrap() < 21_000, "{record}");
    }
    assert!(world.daemon.is_running());
    world.simulator().clear_faults();
    eventually("all is well again", || async {
        world.token(VAULT).await.status == 200
    })
    .await;
}
