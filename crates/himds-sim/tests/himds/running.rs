//! The simulator as a thing that runs: many clients, its journal, its start and its end.

use himds_sim::{Authorization, Kind, Outcome};

use crate::support::{self, METADATA, TOKEN, VAULT, World, mode, request, token_target};

#[tokio::test]
async fn the_journal_tells_everything_but_the_secrets() {
    let world = World::new().await;
    let target = token_target("&client_id=&x=a%20b");
    let challenge = world
        .get(
            &target,
            &[METADATA, ("Client-Id", "test"), ("Cookie", "c=1")],
        )
        .await;
    let key = challenge.key();
    world.redeem(&key).await;
    let entries = world.sim.journal();
    let [first, second] = entries.as_slice() else {
        panic!("{entries:?}")
    };
    assert_eq!((first.sequence, second.sequence), (1, 2));
    assert_eq!((first.connection, second.connection), (1, 2));
    assert_eq!((first.method.as_str(), first.path.as_str()), ("GET", TOKEN));
    assert_eq!(
        (first.parameter("resource"), first.parameter("x")),
        (Some(VAULT), Some("a b"))
    );
    assert_eq!(
        (first.header("metadata"), first.header("client-id")),
        (Some("true"), Some("test"))
    );
    assert_eq!(
        (first.status, first.kind, first.outcome),
        (Some(401), Kind::Challenge, Outcome::Answered)
    );
    assert_eq!((second.status, second.kind), (Some(200), Kind::Token));
    assert_eq!(
        (first.authorization, second.authorization),
        (Authorization::Absent, Authorization::Matched)
    );
    let file = challenge
        .realm()
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        (first.key.as_ref(), second.key.as_ref()),
        (Some(&file), Some(&file))
    );
    let text = serde_json::to_string(&entries).unwrap();
    assert!(!text.contains(&key) && !text.contains("c=1"), "{text}");
    world.sim.clear_journal();
    assert!(world.sim.journal().is_empty());
    world.challenge().await;
    assert_eq!(world.sim.journal()[0].sequence, 3);
}

#[tokio::test]
async fn a_connection_serves_both_requests() {
    let world = World::new().await;
    let mut connection = support::Connection::open(world.sim.address())
        .await
        .unwrap();
    let key = connection
        .request("GET", &token_target(""), &[METADATA])
        .await
        .unwrap()
        .key();
    let headers = [METADATA, ("Authorization", &format!("Basic {key}"))];
    assert_eq!(
        connection
            .request("GET", &token_target(""), &headers)
            .await
            .unwrap()
            .status,
        200
    );
    assert_eq!(world.sim.connections(), 1);
}

#[tokio::test]
async fn garbage_on_one_connection_does_not_disturb_the_others() {
    let world = World::new().await;
    for garbage in [&b"\0\x01\x02 not http\r\n\r\n"[..], b"GET", b""] {
        let mut connection = support::Connection::open(world.sim.address())
            .await
            .unwrap();
        connection.send(garbage).await;
    }
    assert_eq!(world.token().await.status, 200);
}

#[tokio::test]
async fn a_stopped_simulator_frees_its_port_and_removes_its_keys() {
    let world = World::new().await;
    let path = world.challenge().await.realm();
    let mut open = support::Connection::open(world.sim.address())
        .await
        .unwrap();
    open.request("GET", "/agentstatus", &[]).await.unwrap();
    let options = himds_sim::Options {
        listen: world.sim.address(),
        ..world.sim.options().clone()
    };
    world.sim.stop().await;
    assert!(!path.exists());
    assert!(open.rest().await.unwrap().is_empty());
    let again = himds_sim::Simulator::start(options).await.unwrap();
    let address = again.address();
    drop(again);
    let refused = request(address, "GET", "/agentstatus", &[])
        .await
        .unwrap_err();
    assert_eq!(
        refused.kind(),
        std::io::ErrorKind::ConnectionRefused,
        "a drop frees the port at once"
    );
}

#[tokio::test]
async fn a_user_of_the_key_files_is_named_or_the_start_fails() {
    let dir = tempfile::tempdir().unwrap();
    let options = himds_sim::Options {
        key_owner: Some("no such user".to_owned()),
        ..himds_sim::Options::new(dir.path().join("tokens"))
    };
    let error = himds_sim::Simulator::start(options)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("there is no user `no such user`"), "{error}");
}

#[tokio::test]
async fn key_files_have_the_wanted_owner_and_mode() {
    use std::os::unix::fs::MetadataExt as _;
    let me = nix::unistd::geteuid();
    // Root gives its files to somebody else, anyone else only to himself.
    let owner = if me.is_root() { 65_534 } else { me.as_raw() };
    let world = World::with(|options| {
        options.key_owner = Some(owner.to_string());
        options.key_mode = 0o400;
    })
    .await;
    let path = world.challenge().await.realm();
    assert_eq!(
        (path.metadata().unwrap().uid(), mode(&path)),
        (owner, 0o400)
    );
}
