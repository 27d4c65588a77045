//! One record for each request for a token, whatever became of it, and none of them holds a secret.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::fs;

use arcbroker_client::wire::Health;
use arcbroker_e2e::{Setup, SmallDisk, User, World, eventually, skip, skip_unless_root};
use himds_sim::Outcome;
use nix::sys::signal::Signal;
use serde_json::Value;

const TARGET: &str =
    "/metadata/identity/oauth2/token?api-version=2019-11-01&resource=https%3A%2F%2Fvault.azure.net";
const VAULT: &str = "https%3A%2F%2Fvault.azure.net";
const KEYS: [&str; 22] = [
    "schema",
    "time",
    "seq",
    "prev",
    "id",
    "outcome",
    "uid",
    "gid",
    "user",
    "pid",
    "unit",
    "invocation",
    "container",
    "identity",
    "resource",
    "rule",
    "policy",
    "cache",
    "ms",
    "expires_on",
    "uti",
    "token_sha256",
];

fn text(record: &Value, key: &str) -> String {
    record[key].as_str().unwrap_or_default().to_owned()
}

/// Waits until this many token requests are under way at HIMDS, without an answer.
async fn until_himds_is_asked(world: &World, times: usize) {
    eventually("HIMDS is asked", || async {
        let journal = world.simulator().journal();
        journal
            .iter()
            .filter(|entry| {
                entry.parameter("resource").is_some() && entry.outcome == Outcome::Pending
            })
            .count()
            == times
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_outcome_is_recorded_once_with_what_is_known_about_it() {
    let world = World::start().await;
    let issued = world.token(VAULT).await.json();
    world.token(VAULT).await;
    let denied = world
        .token("https%3A%2F%2Fgraph.microsoft.com%2F")
        .await
        .json();
    let malformed = world.get_with(TARGET, &[]).await.json();
    world
        .simulator()
        .set_fault("first-status=400".parse().unwrap());
    let unavailable = world
        .token("https%3A%2F%2Fstorage.azure.com%2F")
        .await
        .json();
    world.get_with("/v1/whoami", &[]).await;
    world.get("/metadata/instance?api-version=2021-02-01").await;

    let records = world.audit();
    let outcomes: Vec<_> = records
        .iter()
        .map(|record| (text(record, "outcome"), text(record, "cache")))
        .collect();
    let expected = [
        ("issued", "fetch"),
        ("issued", "cache"),
        ("denied", ""),
        ("malformed", ""),
        ("unavailable", ""),
    ];
    assert_eq!(
        outcomes,
        expected.map(|(outcome, cache)| (outcome.to_owned(), cache.to_owned()))
    );
    for (record, answer) in records[2..].iter().zip([&denied, &malformed, &unavailable]) {
        assert_eq!(record["id"], answer["request_id"]);
        assert_eq!(
            (&record["token_sha256"], &record["expires_on"]),
            (&Value::Null, &Value::Null),
            "{record}"
        );
    }
    let (first, me, status) = (&records[0], User::current(), world.status().await);
    assert_eq!(
        (first["uid"].as_u64(), first["gid"].as_u64()),
        (Some(me.uid.into()), Some(me.gid.into()))
    );
    assert_eq!(first["pid"], std::process::id());
    assert_eq!(
        (text(first, "identity"), text(first, "resource")),
        ("system".into(), "https://vault.azure.net".into())
    );
    assert_eq!(
        (text(first, "rule"), text(first, "policy")),
        ("test".into(), status.policy.hash)
    );
    assert_eq!(text(first, "expires_on"), "", "it is a number");
    assert_eq!(
        first["expires_on"].as_u64().unwrap().to_string(),
        issued["expires_on"].as_str().unwrap()
    );
    assert_eq!(first["token_sha256"].as_str().unwrap().len(), 12);
    assert_eq!(
        (&records[1]["uti"], &records[1]["token_sha256"]),
        (&first["uti"], &first["token_sha256"])
    );
    assert_eq!(records[2]["rule"], Value::Null);
    assert_eq!(records[3]["resource"], Value::Null);
    assert_eq!(text(&records[4], "rule"), "test");
    assert_eq!(status.requests.issued, 2);
    assert_eq!(status.audit.sequence, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_lines_with_the_same_keys_in_the_same_order_and_a_number_each() {
    let world = World::start().await;
    for _ in 0..3 {
        world.token(VAULT).await;
        world.get_with(TARGET, &[]).await;
    }
    let lines = fs::read_to_string(world.path("log.d/audit.jsonl")).unwrap();
    for line in lines.lines() {
        let places: Vec<_> = KEYS
            .iter()
            .map(|key| line.find(&format!("\"{key}\":")))
            .collect();
        assert!(
            places.iter().all(Option::is_some) && places.is_sorted(),
            "{line}"
        );
    }
    let numbers: Vec<_> = world
        .audit()
        .iter()
        .map(|record| record["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
    assert_eq!(world.audit()[0]["prev"], "");
    assert!(
        world.audit()[1..]
            .iter()
            .all(|record| text(record, "prev").len() == 32)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_is_there_before_a_byte_of_the_token() {
    let world = World::start().await;
    let mut connection = world.connect().await;
    for seq in 1..=20 {
        connection.ask(TARGET).await;
        connection.answered().await;
        let last = world
            .audit()
            .pop()
            .expect("the answer is there, and so is its record");
        assert_eq!(
            (last["seq"].as_u64(), text(&last, "outcome")),
            (Some(seq), "issued".to_owned())
        );
        let token = text(&connection.answer().await.json(), "access_token");
        let file = fs::read_to_string(world.path("log.d/audit.jsonl")).unwrap();
        assert!(!token.is_empty() && !file.contains(&token));
        assert!(!file.contains(token.rsplit('.').next().unwrap()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_leaves_a_record_and_a_token_for_the_next() {
    let world = World::start().await;
    world
        .simulator()
        .set_fault("first-delay=2000:1".parse().unwrap());
    let mut connection = world.connect().await;
    connection.ask(TARGET).await;
    until_himds_is_asked(&world, 1).await;
    assert!(world.audit().is_empty());
    drop(connection);
    eventually("it is recorded", || async { !world.audit().is_empty() }).await;
    let records = world.audit();
    assert_eq!(text(&records[0], "outcome"), "abandoned");
    assert_eq!(
        (text(&records[0], "resource"), text(&records[0], "rule")),
        ("https://vault.azure.net".into(), "test".into())
    );
    assert_eq!(records[0]["token_sha256"], Value::Null);

    assert_eq!(world.token(VAULT).await.status, 200);
    assert_eq!(
        world.simulator().challenges(),
        1,
        "the fetch went on without its client"
    );
    assert_eq!(world.audit().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_file_is_followed_and_the_numbers_go_on() {
    let world = World::start().await;
    world.token(VAULT).await;
    let (file, old) = (
        world.path("log.d/audit.jsonl"),
        world.path("log.d/audit.jsonl.1"),
    );
    fs::rename(&file, &old).unwrap();
    world.daemon.signal(Signal::SIGHUP);
    eventually("there is a new file", || async { file.exists() }).await;
    world.token(VAULT).await;
    let records = world.audit();
    assert_eq!((records.len(), records[0]["seq"].as_u64()), (1, Some(2)));
    assert_eq!(fs::read_to_string(old).unwrap().lines().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_on_the_size_of_files_is_a_full_disk_and_not_the_end() {
    const LIMIT: usize = 16 * 1024;
    let wrapper = ["prlimit".to_owned(), format!("--fsize={LIMIT}")].to_vec();
    let mut world = World::with(Setup {
        wrapper,
        ..Setup::default()
    })
    .await;
    world.daemon.signal(Signal::SIGTERM);
    world.daemon.wait().await;
    // One record that reaches the limit to the byte: the next write gets nowhere.
    let line = |pad: usize| format!("{{\"seq\":1,\"pad\":\"{}\"}}\n", "x".repeat(pad));
    fs::write(world.path("log.d/audit.jsonl"), line(LIMIT - line(0).len())).unwrap();
    world.start_daemon().await;
    for _ in 0..3 {
        let refused = world.token(VAULT).await;
        assert_eq!(refused.status, 503, "{refused:?}");
    }
    assert!(world.daemon.is_running());
    assert_eq!(world.audit().len(), 1);
    let why = world.status().await.audit.error.unwrap();
    assert!(why.contains("File too large"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t28_on_a_full_disk_no_token_leaves_and_status_says_why() {
    const NAME: &str = "t28_on_a_full_disk_no_token_leaves_and_status_says_why";
    if skip_unless_root(NAME) {
        return;
    }
    let world = World::start().await;
    assert_eq!(world.token(VAULT).await.status, 200);
    let Some(disk) = SmallDisk::mount(&world.path("log.d")) else {
        skip(NAME, "nothing can be mounted here");
        return;
    };
    disk.fill();
    world.daemon.signal(Signal::SIGHUP);
    eventually("the new file is open", || async {
        world.path("log.d/audit.jsonl").exists()
    })
    .await;

    for _ in 0..3 {
        let refused = world.token(VAULT).await;
        assert_eq!(
            (refused.status, refused.header("retry-after")),
            (503, Some("2")),
            "{refused:?}"
        );
        assert!(
            !refused.body.contains("access_token") && !refused.body.contains("eyJ"),
            "{refused:?}"
        );
        assert!(
            text(&refused.json(), "message").contains("could not be recorded"),
            "{refused:?}"
        );
    }
    let status = world.status().await;
    assert_eq!(status.health, Health::Failing);
    let why = status.audit.error.unwrap();
    assert!(
        why.contains("audit.jsonl") && why.contains("No space left on device"),
        "{why}"
    );
    assert_eq!(world.audit(), [] as [Value; 0], "no half of a line is left");

    disk.make_room();
    assert_eq!(world.token(VAULT).await.status, 200);
    assert_eq!(world.status().await.audit.error, None);
    assert_eq!(
        world.audit()[0]["seq"],
        2,
        "the numbers go on without a gap"
    );
}
