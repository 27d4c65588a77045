//! What a server does that is broken, overloaded, or somebody else's.

use std::{
    fs::Permissions,
    io::{ErrorKind, Read},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use crate::support::{Server, Step, answer};
use arcbroker_client::{Client, Error, Owner, wire::MAX_ANSWER};

/// A valid answer of exactly so many bytes.
fn padded(length: usize) -> String {
    let start = r#"{"schema":1,"health":"healthy","padding":""#;
    let padding = "x".repeat(length - start.len() - 2);
    format!("{start}{padding}\"}}")
}

fn chunked(body: &str) -> Vec<u8> {
    let mut bytes = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for chunk in body.as_bytes().chunks(65536) {
        bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
        bytes.extend(chunk);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}

#[tokio::test]
async fn the_longest_answer_is_read_and_one_byte_more_is_not() {
    for encode in [|body: &str| answer(200, "", body), chunked] {
        let server = Server::always(encode(&padded(MAX_ANSWER)));
        server.client().health().await.unwrap();

        let server = Server::always(encode(&padded(MAX_ANSWER + 1)));
        let error = server.client().health().await.unwrap_err();
        assert!(matches!(error, Error::TooLarge), "{error:?}");
    }
}

#[tokio::test]
async fn an_announced_flood_is_refused_before_it_comes() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1099511627776\r\n\r\n";
    let server = Server::always(head.to_vec());
    let error = server.client().health().await.unwrap_err();
    assert!(matches!(error, Error::TooLarge), "{error:?}");
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let head = format!("HTTP/1.1 200 OK\r\nx: {}", "x".repeat(MAX_ANSWER));
    let server = Server::always(head.into_bytes());
    let error = server.client().health().await.unwrap_err();
    assert!(matches!(error, Error::Protocol(_)), "{error:?}");
}

#[tokio::test]
async fn what_is_not_a_broker_is_called_so() {
    for bytes in [
        b"\0\x01\x02 SSH-2.0-not-http\r\n\r\n".to_vec(),
        answer(200, "", "<html>"),
        answer(200, "", "{}"),
        answer(200, "", ""),
        answer(204, "", ""),
        answer(302, "location: http://example.com/\r\n", ""),
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\nconnection: close\r\n\r\n{".to_vec(),
    ] {
        let server = Server::start(vec![vec![Step::Send(bytes.clone())]]);
        let error = server.client().token("arm").await.unwrap_err();
        assert!(
            matches!(error, Error::Protocol(_)),
            "{error:?} for {}",
            bytes.escape_ascii()
        );
        assert_eq!(server.connections(), 1, "for {}", bytes.escape_ascii());
    }
}

#[tokio::test]
async fn a_refusal_without_a_reason_is_still_a_refusal() {
    let server = Server::always(answer(403, "", "no"));
    let error = server.client().token("arm").await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "refused, but not by the policy: status 403 without a reason"
    );
}

#[tokio::test]
async fn a_token_is_not_in_the_error_about_it() {
    let body = r#"{"access_token":"MARKER","token_type":"pop","expires_in":"1","expires_on":"1","resource":"r"}"#;
    for body in [
        body.to_owned(),
        body.replace("\"expires_in\":\"1\"", "\"expires_in\":[]"),
    ] {
        let server = Server::always(answer(200, "", &body));
        let error = server.client().token("arm").await.unwrap_err();
        assert!(!format!("{error:?} {error}").contains("MARKER"));
    }
}

#[tokio::test]
async fn a_silent_server_costs_the_deadline_and_no_more() {
    for step in [
        Step::Hang,
        Step::Send(b"HTTP/1.1 200 OK\r\ncontent-le".to_vec()),
    ] {
        let server = Server::start(vec![vec![step, Step::Hang]]);
        let deadline = Duration::from_millis(200);
        let error = server
            .client()
            .with_deadline(deadline)
            .health()
            .await
            .unwrap_err();
        assert!(
            matches!(error, Error::TooSlow(limit) if limit == deadline),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_server_that_always_hangs_up_is_tried_twice() {
    let server = Server::start(vec![vec![Step::Send(Vec::new())]]);
    let error = server.client().health().await.unwrap_err();
    assert!(
        matches!(&error, Error::Unreachable { source, .. } if source.kind() == ErrorKind::UnexpectedEof),
        "{error:?}"
    );
    assert!(error.is_transient());
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_socket_without_a_server_is_unreachable() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token.sock");
    let kind = async |path: &Path| match Client::new(path).health().await.unwrap_err() {
        Error::Unreachable { source, .. } => source.kind(),
        other => panic!("{other:?}"),
    };
    assert_eq!(kind(&path).await, ErrorKind::NotFound);
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert_eq!(kind(&path).await, ErrorKind::ConnectionRefused);
    assert_eq!(kind(Path::new("")).await, ErrorKind::InvalidInput);
    assert_eq!(
        kind(Path::new(&"x".repeat(200_000))).await,
        ErrorKind::InvalidInput
    );
}

#[tokio::test]
async fn a_full_backlog_is_knocked_at_until_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token.sock");
    let socket = tokio::net::UnixSocket::new_stream().unwrap();
    socket.bind(&path).unwrap();
    let listener = socket.listen(1).unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = tokio::net::UnixStream::connect(&path).await {
        waiting.push(stream);
    }

    let client = Client::new(&path);
    let impatient = client.clone().with_deadline(Duration::from_millis(50));
    let error = impatient.health().await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");

    // The call comes first and finds the backlog full; only then is there a server.
    let (health, _server) = tokio::join!(biased; client.health(), async {
        drop(waiting);
        Server::on(listener, vec![vec![Step::Send(answer(200, "", &padded(100)))]])
    });
    health.unwrap();
}

/// Runs only as root, which alone can start a listener of another user.
#[tokio::test]
async fn a_server_of_another_user_gets_no_request() {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("skipped: only root can start a listener of another user");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
    let path = directory.path().join("token.sock");
    let mut listener = Command::new("setpriv")
        .args([
            "--reuid=65533",
            "--regid=65533",
            "--clear-groups",
            "perl",
            "-MSocket",
            "-e",
        ])
        .arg(LISTEN)
        .arg(&path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = listener.stdout.take().unwrap();
    output.read_exact(&mut [0; 3]).unwrap();

    let error = Client::new(&path).health().await.unwrap_err();
    assert!(
        matches!(&error, Error::WrongOwner { uid: STRANGER, path: named } if *named == path),
        "{error:?}"
    );
    let named = Client::new(&path).with_owner(Owner::from(STRANGER));
    let error = named.health().await.unwrap_err();
    assert!(matches!(error, Error::Protocol(_)), "{error:?}");

    let mut got = String::new();
    output.read_to_string(&mut got).unwrap();
    assert!(got.starts_with("[]\n[GET /v1/health"), "{got}");
    assert!(listener.wait().unwrap().success());
}

/// A user that is neither root nor the owner of anything here.
const STRANGER: u32 = 65533;

/// Prints `up`, then what it gets on two connections; answers the second with what is not HTTP.
const LISTEN: &str = r#"
    $| = 1;
    socket(my $listener, PF_UNIX, SOCK_STREAM, 0) or die;
    bind($listener, pack_sockaddr_un($ARGV[0])) or die;
    listen($listener, 5) or die;
    print "up\n";
    for (1 .. 2) {
        accept(my $peer, $listener) or die;
        my $got = "";
        sysread($peer, $got, 4096);
        print "[$got]\n";
        syswrite($peer, "no http\r\n\r\n") if $got;
    }
"#;
