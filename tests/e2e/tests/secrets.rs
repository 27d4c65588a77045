//! Canaries: after a round with every kind of failure, at the most talkative log level, no secret
//! is found in anything that the daemon wrote.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::fs;

use arcbroker_e2e::{Setup, User, World};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Faults of the answer that holds the token, and of the challenge: each has its own error message.
const FAULTS: [&str; 24] = [
    "body-garbage",
    "body-truncated",
    "body-html",
    "body-array",
    "body-trailing",
    "body-duplicate-keys",
    "body-nan",
    "no-expiry",
    "expires-on=soon",
    "expired",
    "wrong-resource",
    "not-bearer",
    "no-access-token",
    "non-ascii-access-token",
    "crlf-access-token",
    "second-http09",
    "second-cut",
    "second-chunked-lie",
    "second-length-lie",
    "second-status=403",
    "second-challenge",
    "direct-token",
    "huge-header",
    "quoted-realm",
];

/// HIMDS's next key, known to the test: a challenge of its own, whose key the next ones repeat.
async fn plant_key(world: &World) -> String {
    world.simulator().set_fault("same-key".parse().unwrap());
    let mut himds = TcpStream::connect(world.simulator().address())
        .await
        .unwrap();
    let request = "GET /metadata/identity/oauth2/token?api-version=2020-06-01&resource=https%3A%2F%2Fx HTTP/1.1\r\n\
                   Host: localhost\r\nMetadata: true\r\nConnection: close\r\n\r\n";
    himds.write_all(request.as_bytes()).await.unwrap();
    let mut challenge = String::new();
    himds.read_to_string(&mut challenge).await.unwrap();
    let path = challenge
        .split("Basic realm=")
        .nth(1)
        .unwrap()
        .lines()
        .next()
        .unwrap();
    fs::read_to_string(path).unwrap()
}

/// Everything that the daemon wrote or says.
async fn everything(world: &World) -> String {
    let mut said = world.daemon.log();
    said.push_str(&fs::read_to_string(world.path("log.d/audit.jsonl")).unwrap());
    said.push_str(&world.admin("/v1/status").await.body);
    for target in [
        "/v1/whoami",
        "/v1/health",
        "/metadata/instance?api-version=2021-02-01",
    ] {
        said.push_str(&world.get(target).await.body);
    }
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn i9_no_token_and_no_key_is_in_anything_that_the_daemon_writes() {
    let uid = User::current().uid;
    let policy =
        format!("version = 1\n[[rule]]\nname = \"all\"\nuser = {uid}\nresources = [\"*\"]\n");
    let world = World::with(Setup {
        policy,
        ..Setup::default()
    })
    .await;
    let key = plant_key(&world).await;
    assert!(key.len() >= 32, "{}", key.len());

    let issued = world.token("https%3A%2F%2Fvault.azure.net").await.json();
    let token = issued["access_token"].as_str().unwrap();
    let mut refused = String::new();
    for (number, fault) in FAULTS.iter().enumerate() {
        world.simulator().set_fault(fault.parse().unwrap());
        let answer = world
            .token(&format!("https%3A%2F%2Fcase{number}.example"))
            .await;
        assert!(
            [400, 403, 502, 503].contains(&answer.status),
            "{fault}: {answer:?}"
        );
        refused.push_str(&answer.body);
        world
            .simulator()
            .clear_fault(fault.split('=').next().unwrap());
        world.recover().await;
    }
    let last = world.token("https%3A%2F%2Flast.example").await;
    assert_eq!(last.status, 200, "nothing of it lasts: {last:?}");

    let said = everything(&world).await + &refused;
    for (number, fault) in FAULTS.iter().enumerate() {
        assert!(
            world
                .daemon
                .log()
                .contains(&format!("https://case{number}.example")),
            "{fault} was not logged"
        );
    }
    let (payload, signature) = (
        token.split('.').nth(1).unwrap(),
        token.split('.').nth(2).unwrap(),
    );
    for (what, secret) in [
        ("token", token),
        ("payload", payload),
        ("signature", signature),
        ("key", &key),
        ("any JWT", "eyJ"),
    ] {
        let at = said.find(secret);
        assert_eq!(
            at,
            None,
            "{what}: ...{}",
            &said[at.unwrap_or(0).saturating_sub(300)..][..300.min(said.len())]
        );
    }
    let journal = world.simulator().journal();
    let keys: Vec<_> = journal
        .iter()
        .filter_map(|entry| entry.key.as_deref())
        .collect();
    assert!(
        keys.iter().filter(|name| **name == keys[0]).count() > 20,
        "the planted key was the one in use"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_the_arguments_or_the_environment_of_the_daemon_or_left_in_a_file() {
    let world = World::start().await;
    let token = world.token("https%3A%2F%2Fvault.azure.net").await.json()["access_token"]
        .as_str()
        .unwrap()
        .to_owned();
    for name in ["cmdline", "environ"] {
        let text = fs::read(format!("/proc/{}/{name}", world.daemon.pid())).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&text).contains("eyJ"), "{name}");
    }
    let mut files = vec![world.path("")];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else if path.is_file() {
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            assert!(
                !text.contains(token.rsplit('.').next().unwrap()),
                "{}",
                path.display()
            );
        }
    }
}
