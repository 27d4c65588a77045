//! A record in the file or in the journal is enough for a token to leave; in neither, none leaves.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::fs::{self, Permissions};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;

use arcbroker_client::wire::{AuditSink, Health};
use arcbroker_e2e::{Setup, World, eventually};
use nix::sys::signal::Signal;
use serde_json::Value;

const VAULT: &str = "https%3A%2F%2Fvault.azure.net";
/// Bytes that a file may have.
const LIMIT: usize = 16 * 1024;

/// Stands in for journald.
struct Journal(UnixDatagram);

impl Journal {
    fn bind(world: &World) -> Self {
        let path = world.path("journal.sock");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        // The daemon is another user.
        fs::set_permissions(path, Permissions::from_mode(0o666)).unwrap();
        Self(socket)
    }

    /// The entries since the last call.
    fn heard(&self) -> Vec<String> {
        let mut entry = vec![0; 64 * 1024];
        let next = || {
            let length = self.0.recv(&mut entry).ok()?;
            Some(String::from_utf8(entry[..length].to_vec()).unwrap())
        };
        std::iter::from_fn(next).collect()
    }

    /// Takes no more. Dropping it is no end: a child that another test starts at this moment may hold a copy
    /// until its `exec`.
    fn end(self) {
        self.0.shutdown(Shutdown::Both).unwrap();
    }
}

/// The line of the audit file that an entry repeats.
fn line(entry: &str) -> &str {
    entry
        .split("\nARCBROKER_RECORD=")
        .nth(1)
        .unwrap()
        .trim_end()
}

/// A daemon that finds a journal when it starts. A limit on the size of files is its full disk.
async fn with_journal() -> (World, Journal) {
    let wrapper = vec!["prlimit".to_owned(), format!("--fsize={LIMIT}")];
    let mut world = World::with(Setup {
        wrapper,
        ..Setup::default()
    })
    .await;
    let journal = Journal::bind(&world);
    world.restart_daemon().await;
    (world, journal)
}

/// The file reaches its limit to the byte.
fn fill(world: &World) {
    let file = world.path("log.d/audit.jsonl");
    let room = LIMIT - usize::try_from(fs::metadata(&file).map_or(0, |file| file.len())).unwrap();
    let before = fs::read(&file).unwrap_or_default();
    fs::write(&file, [before, vec![b'x'; room]].concat()).unwrap();
}

async fn sink(world: &World, name: &str) -> AuditSink {
    let sinks = world.status().await.audit.sinks;
    sinks.into_iter().find(|sink| sink.name == name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_has_what_the_file_has_and_never_a_token() {
    let (world, journal) = with_journal().await;
    let issued = world.token(VAULT).await.json();
    world.token("https%3A%2F%2Fgraph.microsoft.com%2F").await;
    eventually("both are written", || async {
        sink(&world, "journald").await.state == "ok" && world.audit().len() == 2
    })
    .await;
    let heard = journal.heard();
    let file = fs::read_to_string(world.path("log.d/audit.jsonl")).unwrap();
    let lines: Vec<_> = heard.iter().map(|entry| line(entry)).collect();
    assert_eq!(lines, file.lines().collect::<Vec<_>>());
    assert!(
        heard[0].contains("\nPRIORITY=6\n") && heard[0].contains("\nARCBROKER_OUTCOME=issued\n")
    );
    assert!(
        heard[1].contains("\nPRIORITY=4\n") && heard[1].contains("\nARCBROKER_OUTCOME=denied\n")
    );
    assert!(heard[1].starts_with("MESSAGE=denied: uid "), "{}", heard[1]);
    let token = issued["access_token"].as_str().unwrap();
    let signature = token.rsplit('.').next().unwrap();
    assert!(heard.iter().all(|entry| !entry.contains(signature)));
}

#[tokio::test(flavor = "multi_thread")]
async fn t28_with_one_sink_alive_tokens_are_served_and_status_says_which_fails() {
    let (world, journal) = with_journal().await;
    fill(&world);
    for _ in 0..3 {
        assert_eq!(world.token(VAULT).await.status, 200);
    }
    eventually("the status tells it", || async {
        sink(&world, "file").await.state == "failing"
    })
    .await;
    let (file, status) = (sink(&world, "file").await, world.status().await);
    assert!(file.error.unwrap().contains("File too large"));
    assert_eq!((file.waiting, file.missed), (3, 0));
    assert_eq!(
        (status.health, status.audit.error),
        (Health::Degraded, None)
    );
    assert_eq!(status.audit.sequence, 3);
    assert_eq!(journal.heard().len(), 3);

    // After a rotation there is room, and the file gets what it missed.
    fs::remove_file(world.path("log.d/audit.jsonl")).unwrap();
    world.daemon.signal(Signal::SIGHUP);
    eventually("the file has it", || async {
        sink(&world, "file").await.waiting == 0
    })
    .await;
    let numbers: Vec<_> = world
        .audit()
        .iter()
        .map(|record| record["seq"].clone())
        .collect();
    assert_eq!(numbers, [1, 2, 3].map(Value::from));
}

#[tokio::test(flavor = "multi_thread")]
async fn i8_without_any_sink_no_token_leaves() {
    let (world, journal) = with_journal().await;
    fill(&world);
    journal.end();
    for _ in 0..3 {
        let refused = world.token(VAULT).await;
        assert_eq!(refused.status, 503, "{refused:?}");
        assert!(!refused.body.contains("eyJ"), "{refused:?}");
    }
    let status = world.status().await;
    assert_eq!(status.health, Health::Failing);
    assert!(status.audit.error.unwrap().contains("File too large"));
}
