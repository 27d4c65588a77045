//! Somebody else on HIMDS's port: gets no key, no file is opened for him, and gives no token.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::Stdio;

use arcbroker_e2e::{
    Answer, DAEMON_UID, Relay, Setup, Trace, User, World, binary, eventually, skip_unless_root,
};
use nix::unistd::geteuid;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

const VAULT: &str = "https%3A%2F%2Fvault.azure.net";
const STORAGE: &str = "https%3A%2F%2Fstorage.azure.com%2F";
const ARM: &str = "https%3A%2F%2Fmanagement.azure.com%2F";
const INSTANCE: &str = "/metadata/instance?api-version=2020-06-01";
const SQUATTER: User = User {
    uid: 64_010,
    gid: 64_010,
    groups: &[],
};

/// A world whose broker asks at another endpoint than that of its simulator.
async fn misled(setup: Setup, endpoint: impl FnOnce(&World) -> String) -> World {
    let mut world = World::with(setup).await;
    let (genuine, other) = (world.simulator().endpoint(), endpoint(&world));
    world.reconfigure(&genuine, &other).await;
    world.simulator().clear_journal();
    world
}

async fn assert_refused(world: &World, resource: &str, uid: u32) {
    let answer = world.token(resource).await;
    assert_eq!(answer.status, 502, "{answer:?}\n{}", world.daemon.log());
    assert_eq!(answer.error(), "server_error");
    let status = world.status().await;
    let failure = status.upstream.last_failure.unwrap();
    assert!(failure.contains(&format!("held by uid {uid}")), "{failure}");
    assert!(status.tokens.iter().all(|token| token.expires_on.is_none()));
    let said = answer.body.clone() + &world.said().await;
    assert!(!said.contains("eyJ"), "a token was told");
    assert!(
        !answer.body.contains("uid"),
        "who it is, is for the administrator: {answer:?}"
    );
}

/// himds-sim as another user.
struct Squatter {
    _process: Child,
    endpoint: String,
    control: PathBuf,
}

impl Squatter {
    async fn start(world: &World, fault: &str) -> Self {
        let dir = world.path("squatter");
        fs::create_dir(&dir).unwrap();
        chown(&dir, Some(SQUATTER.uid), Some(SQUATTER.gid)).unwrap();
        let control = dir.join("control");
        let mut process = Command::new("setpriv")
            .args(SQUATTER.setpriv())
            .arg(binary("himds-sim"))
            .arg("--tokens-dir")
            .arg(dir.join("tokens"))
            .arg("--control")
            .arg(&control)
            .args(["--fault", fault])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut endpoint = String::new();
        let mut out = BufReader::new(process.stdout.take().unwrap());
        out.read_line(&mut endpoint).await.unwrap();
        Self {
            _process: process,
            endpoint: endpoint.trim().to_owned(),
            control,
        }
    }

    /// What it was asked, by its own word.
    async fn journal(&self) -> Vec<Value> {
        let mut stream = UnixStream::connect(&self.control).await.unwrap();
        let request = b"GET /journal HTTP/1.1\r\nHost: sim\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        Answer::parse(&answer).json().as_array().unwrap().clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t6_i24_a_squatter_is_sent_no_key_and_no_file_is_opened_for_him() {
    let test = "t6_i24_a_squatter_is_sent_no_key_and_no_file_is_opened_for_him";
    if skip_unless_root(test) {
        return;
    }
    let trace = Trace::new(test);
    let setup = Setup {
        wrapper: trace.wrapper(),
        ..Setup::default()
    };
    let mut world = World::with(setup).await;
    // For a start, one that is genuine: what is looked for below is there to be seen.
    assert_eq!(world.token(VAULT).await.status, 200);
    let genuine = world.asked()[0].key.clone().unwrap();
    // A good key file in the right place, with the right owner: only who asks for it is wrong.
    let key = world.path("tokens/CANARY.key");
    fs::write(&key, "CANARY-CONTENT").unwrap();
    let squatter = Squatter::start(&world, &format!("realm={}", key.display())).await;
    world
        .reconfigure(&world.simulator().endpoint(), &squatter.endpoint)
        .await;

    for resource in [VAULT, STORAGE, ARM] {
        assert_refused(&world, resource, SQUATTER.uid).await;
    }
    let document = world.get(INSTANCE).await;
    assert_eq!(document.status, 502, "{document:?}");
    let journal = squatter.journal().await;
    assert!(journal.is_empty(), "it was asked: {journal:?}");
    assert!(!world.said().await.contains("CANARY"));
    if let Some(opened) = trace.calls(&mut world).await {
        assert!(opened.contains(&genuine), "the trace shows no key at all");
        assert!(!opened.contains("CANARY"), "the key file was opened");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t6_relay_squatter_gets_nothing() {
    let test = "t6_relay_squatter_gets_nothing";
    if skip_unless_root(test) {
        return;
    }
    let trace = Trace::new(test);
    let setup = Setup {
        wrapper: trace.wrapper(),
        ..Setup::default()
    };
    let mut relay = None;
    let mut world = misled(setup, |world| {
        let genuine = world.simulator().address();
        relay
            .insert(Relay::start(genuine, SQUATTER.uid, SQUATTER.uid))
            .endpoint()
    })
    .await;
    let relay = relay.unwrap();
    assert_refused(&world, VAULT, SQUATTER.uid).await;
    assert_eq!(world.get(INSTANCE).await.status, 502);

    assert!(world.asked().is_empty(), "{:?}", world.asked());
    let heard = relay.heard();
    assert_eq!(heard, "", "nothing was asked of it");
    assert!(
        !heard.to_ascii_lowercase().contains("authorization"),
        "{heard}"
    );
    if let Some(opened) = trace.calls(&mut world).await {
        assert!(
            opened.contains("broker.toml") && !opened.contains(".key"),
            "a key file was opened"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t6_listener_passed_between_uids() {
    if skip_unless_root("t6_listener_passed_between_uids") {
        return;
    }
    let mut relay = None;
    let world = misled(Setup::default(), |world| {
        let genuine = world.simulator().address();
        relay
            .insert(Relay::start(genuine, 0, SQUATTER.uid))
            .endpoint()
    })
    .await;
    let relay = relay.unwrap();
    // Root made the listener; it is who accepts that counts.
    assert_refused(&world, VAULT, SQUATTER.uid).await;
    assert!(!relay.heard().to_ascii_lowercase().contains("authorization"));
    // The very same bytes are good when root accepts: the owner alone made the difference.
    relay.accept_as(0);
    assert_eq!(
        world.token(STORAGE).await.status,
        200,
        "{}",
        world.daemon.log()
    );
    assert!(relay.heard().to_ascii_lowercase().contains("authorization"));
}

#[tokio::test(flavor = "multi_thread")]
async fn t6_the_owner_is_asked_again_when_the_connection_changes() {
    if skip_unless_root("t6_the_owner_is_asked_again_when_the_connection_changes") {
        return;
    }
    let mut relay = None;
    let world = misled(Setup::default(), |world| {
        let genuine = world.simulator().address();
        relay.insert(Relay::start(genuine, 0, 0)).endpoint()
    })
    .await;
    let relay = relay.unwrap();
    // The daemon connects by itself as well, until HIMDS has answered once.
    eventually("the daemon has found HIMDS", || async {
        world.status().await.upstream.last_success_at.is_some()
    })
    .await;
    // The first connection is root's, and is closed after the challenge; the second is not.
    world.fault("close-after-challenge");
    relay.accept_in_turn(&[0, SQUATTER.uid]);
    let answer = world.token(VAULT).await;
    assert_eq!(answer.status, 502, "{answer:?}");
    assert_eq!(world.asked().len(), 1, "it is not tried again");
    assert!(world.with_key().is_empty());
    assert!(!relay.heard().to_ascii_lowercase().contains("authorization"));
    let failure = world.status().await.upstream.last_failure.unwrap();
    assert!(
        failure.contains(&format!("held by uid {}", SQUATTER.uid)),
        "{failure}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hu4_only_the_owners_of_the_configuration_are_believed() {
    // Root is not believed where the configuration does not say so, nor is the daemon's own user.
    let mut world = World::start().await;
    let me = geteuid().as_raw();
    let other = if me == DAEMON_UID { 0 } else { DAEMON_UID };
    let upstream = format!("/tokens\"\nowners = [{me}]");
    world
        .reconfigure(
            &upstream,
            &upstream.replace(&format!("[{me}]"), &format!("[{other}]")),
        )
        .await;
    world.simulator().clear_journal();
    assert_refused(&world, VAULT, me).await;
    assert!(world.asked().is_empty());
}
