//! The program: its ready line, its signals, its control socket, its complaints.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::{
    collections::HashSet,
    io::{BufRead as _, BufReader, Read as _},
    net::{Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Output, Stdio},
    sync::Arc,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rsa::{
    BoxedUint, Pkcs1v15Sign, PublicKey,
    sha2::{Digest as _, Sha256},
};
use serde_json::{Value, json};
use support::{
    Answer, Connection, METADATA, TOKEN, VAULT, claims, decode, mode, request, token_target,
};
use tempfile::TempDir;
use tokio::net::UnixStream;

/// The running program. It is killed when a test fails.
struct Program {
    child: Child,
    stdout: BufReader<ChildStdout>,
    address: SocketAddr,
    dir: Arc<TempDir>,
}

fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_himds-sim"));
    command.current_dir(dir).stdin(Stdio::null());
    command
}

impl Program {
    /// Starts it with its tokens directory and control socket in a directory of its own.
    fn start(args: &[&str]) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), args)
    }

    fn start_in(dir: Arc<TempDir>, args: &[&str]) -> Self {
        let mut command = command(dir.path());
        command
            .args([
                "--listen",
                "127.0.0.1:0",
                "--tokens-dir",
                "tokens",
                "--control",
                "control.sock",
            ])
            .args(args);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let address = line
            .strip_prefix("http://127.0.0.1:")
            .and_then(|port| port.strip_suffix('\n'));
        let port: u16 = address
            .and_then(|port| port.parse().ok())
            .unwrap_or_else(|| panic!("ready line {line:?}"));
        Self {
            child,
            stdout,
            address: ([127, 0, 0, 1], port).into(),
            dir,
        }
    }

    async fn get(&self, target: &str, headers: &[(&str, &str)]) -> Answer {
        request(self.address, "GET", target, headers).await.unwrap()
    }

    async fn token(&self) -> Answer {
        let key = self.get(&token_target(""), &[METADATA]).await.key();
        self.get(
            &token_target(""),
            &[METADATA, ("Authorization", &format!("Basic {key}"))],
        )
        .await
    }

    fn control_socket(&self) -> PathBuf {
        self.dir.path().join("control.sock")
    }

    async fn control(&self, method: &str, target: &str, body: &str) -> Answer {
        let stream = UnixStream::connect(self.control_socket()).await.unwrap();
        Connection::over(stream)
            .request_with_body(method, target, &[], body)
            .await
            .unwrap()
    }

    /// Sends a signal; gives the exit code and whatever was printed after the ready line.
    fn end(&mut self, signal: Signal) -> (Option<i32>, String) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It is gone already where the test ended it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(args: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    command(dir.path()).args(args).output().unwrap()
}

#[tokio::test]
async fn it_serves_and_ends_cleanly_on_a_signal() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut program = Program::start(&[]);
        let challenge = program.get(&token_target(""), &[METADATA]).await;
        assert_eq!(
            challenge.realm().parent().unwrap(),
            program.dir.path().join("tokens"),
            "a relative path is made absolute"
        );
        assert!(challenge.realm().exists() && program.control_socket().exists());
        assert_eq!(program.token().await.status, 200);
        assert_eq!(program.end(signal), (Some(0), String::new()));
        assert!(
            !challenge.realm().exists(),
            "leftover key files are removed"
        );
        assert!(!program.control_socket().exists());
    }
}

#[tokio::test]
async fn its_tokens_are_signed_with_the_published_key() {
    let program = Program::start(&[
        "--lifetime",
        "90s",
        "--tenant",
        "my-tenant",
        "--machine",
        "my-machine",
    ]);
    let configuration = program.get("/.well-known/openid-configuration", &[]).await;
    let jwks_path = configuration
        .text("jwks_uri")
        .replace(&format!("http://{}", program.address), "");
    let key = program.get(&jwks_path, &[]).await.json()["keys"][0].clone();
    let answer = program.token().await;
    let jwt = answer.text("access_token");

    let parts: Vec<&str> = jwt.split('.').collect();
    let header: Value = serde_json::from_slice(&decode(parts[0])).unwrap();
    assert_eq!(
        header,
        json!({ "typ": "JWT", "alg": "RS256", "x5t": key["kid"], "kid": key["kid"] })
    );
    let number =
        |field: &str| BoxedUint::from_be_slice_vartime(&decode(key[field].as_str().unwrap()));
    let public = PublicKey::new(number("n"), number("e")).unwrap();
    let verify = |signed: &str| {
        let digest = Sha256::digest(signed.as_bytes());
        public.verify(Pkcs1v15Sign::new::<Sha256>(), &digest, &decode(parts[2]))
    };
    verify(&format!("{}.{}", parts[0], parts[1])).unwrap();
    verify(&format!("{}.{}x", parts[0], parts[1])).unwrap_err();

    let claims = claims(&jwt);
    assert_eq!(
        claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(),
        90
    );
    assert_eq!(claims["iss"], "https://sts.windows.net/my-tenant/");
    assert!(
        claims["xms_mirid"]
            .as_str()
            .unwrap()
            .ends_with("/machines/my-machine")
    );
}

#[tokio::test]
async fn the_instance_metadata_name_the_cloud_of_the_command_line() {
    for (arguments, cloud) in [
        (&[][..], "AzurePublicCloud"),
        (
            &["--cloud", "AzureUSGovernmentCloud"][..],
            "AzureUSGovernmentCloud",
        ),
        (&["--imds", "--cloud", "AzureChinaCloud"], "AzureChinaCloud"),
    ] {
        let program = Program::start(arguments);
        let path = "/metadata/instance?api-version=2020-06-01";
        let instance = program.get(path, &[("metadata", "true")]).await.json();
        assert_eq!(instance["compute"]["azEnvironment"], cloud);
    }
}

#[tokio::test]
async fn faults_are_set_listed_and_cleared_through_the_control_socket() {
    let program = Program::start(&["--fault", "starting=1:1", "--fault", "key-mode=0600"]);
    assert_eq!(mode(&program.control_socket()), 0o600);
    assert_eq!(
        program.get(&token_target(""), &[METADATA]).await.status,
        503
    );

    let wish = r#"{"name": "second-delay", "value": 1, "count": 7}"#;
    let answer = program.control("PUT", "/fault", wish).await;
    let expected = json!([
        { "name": "key-mode", "value": "0600", "count": null },
        { "name": "second-delay", "value": "1", "count": 7 },
    ]);
    assert_eq!((answer.status, answer.json()), (200, expected));
    assert_eq!(program.token().await.status, 200);
    assert_eq!(
        program.control("GET", "/faults", "").await.json()[1]["count"],
        6
    );

    assert_eq!(
        program
            .control("DELETE", "/fault?name=key-mode", "")
            .await
            .json()[0]["name"],
        "second-delay"
    );
    let answer = program
        .control("DELETE", "/fault", r#"{"name": "second-delay"}"#)
        .await;
    assert_eq!(answer.json(), json!([]));
    program
        .control(
            "PUT",
            "/fault",
            r#"{"name": "first-status", "value": "500"}"#,
        )
        .await;
    program.control("DELETE", "/fault", "").await;
    assert_eq!(program.token().await.status, 200);
}

#[tokio::test]
async fn a_wish_that_cannot_be_granted_is_explained() {
    let program = Program::start(&[]);
    for (method, target, body, status, says) in [
        (
            "PUT",
            "/fault",
            r#"{"name": "sneeze"}"#,
            400,
            "there is no fault `sneeze`; there are: reset-on-accept",
        ),
        (
            "PUT",
            "/fault",
            r#"{"name": "first-delay"}"#,
            400,
            "write first-delay=N",
        ),
        (
            "PUT",
            "/fault",
            r#"{"name": "first-delay", "value": []}"#,
            400,
            "must be a string or a number",
        ),
        (
            "PUT",
            "/fault",
            r#"{"name": "first-hang", "count": 0}"#,
            400,
            "`count` must be at least 1",
        ),
        (
            "PUT",
            "/fault",
            r#"{"name": "first-hang", "counts": 1}"#,
            400,
            "unknown field `counts`",
        ),
        ("PUT", "/fault", "starting", 400, "the body is not"),
        (
            "DELETE",
            "/fault?name=sneeze",
            "",
            400,
            "there is no fault `sneeze`",
        ),
        ("POST", "/fault", "", 405, "write GET, PUT or DELETE"),
        ("GET", "/", "", 404, "there are only"),
    ] {
        let answer = program.control(method, target, body).await;
        let error = answer.text("error");
        assert!(
            answer.status == status && error.contains(says),
            "{method} {target} {body}: {error}"
        );
    }
    assert_eq!(
        program.control("GET", "/faults", "").await.json(),
        json!([])
    );
}

#[tokio::test]
async fn the_journal_is_read_and_forgotten_through_the_control_socket() {
    let program = Program::start(&[]);
    program.token().await;
    let journal = program.control("GET", "/journal", "").await.json();
    let entries = journal.as_array().unwrap();
    assert_eq!(entries.len(), 2);
    let second = &entries[1];
    for (field, value) in [
        ("sequence", json!(2)),
        ("connection", json!(2)),
        ("method", json!("GET")),
        ("path", json!(TOKEN)),
        (
            "query",
            json!([["api-version", "2020-06-01"], ["resource", VAULT]]),
        ),
        (
            "headers",
            json!([["host", "localhost"], ["metadata", "true"]]),
        ),
        ("authorization", json!("matched")),
        ("status", json!(200)),
        ("kind", json!("token")),
        ("key", entries[0]["key"].clone()),
        ("faults", json!([])),
        ("outcome", json!("answered")),
    ] {
        assert_eq!(second[field], value, "{field}");
    }
    assert!(second["time_ms"].as_u64().unwrap() > 1_700_000_000_000);
    assert_eq!(program.control("DELETE", "/journal", "").await.status, 200);
    assert_eq!(
        program.control("GET", "/journal", "").await.json(),
        json!([])
    );
}

#[tokio::test]
async fn five_hundred_clients_are_served_at_once() {
    let program = Program::start(&[]);
    let mut connections = Vec::new();
    for _ in 0..500 {
        connections.push(Connection::open(program.address).await.unwrap());
    }
    for connection in &mut connections {
        let answer = connection
            .request("GET", &token_target(""), &[METADATA])
            .await
            .unwrap();
        assert_eq!(answer.status, 401);
    }
    let journal = program.control("GET", "/journal", "").await.json();
    let numbers: HashSet<u64> = journal
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["connection"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers.len(), 500);
}

#[tokio::test]
async fn it_also_listens_on_the_second_loopback_address() {
    let program = Program::start(&["--ipv6"]);
    let there = (Ipv6Addr::LOCALHOST, program.address.port()).into();
    assert_eq!(
        request(there, "GET", "/agentstatus", &[])
            .await
            .unwrap()
            .status,
        200
    );
}

#[tokio::test]
async fn it_is_imds_or_an_old_agent_when_told_to() {
    let imds = Program::start(&[
        "--imds",
        "--no-rate-limits",
        "--user-identity",
        "me,my-object",
    ]);
    let target = format!("{TOKEN}?api-version=2018-02-01&resource={VAULT}&client_id=me");
    let answer = imds.get(&target, &[METADATA]).await;
    assert_eq!(claims(&answer.text("access_token"))["oid"], "my-object");

    let without_keys = run(&["--imds", "--listen", "192.0.2.1:1"]);
    let error = String::from_utf8(without_keys.stderr).unwrap();
    assert!(
        error.contains("cannot listen on 192.0.2.1:1"),
        "no tokens directory is asked for: {error}"
    );

    let old = Program::start(&[
        "--agent-version",
        "1.0",
        "--renew-at-remaining",
        "1s",
        "--key-lifetime",
        "2m",
    ]);
    assert_eq!(old.token().await.text("not_before"), "");
}

#[tokio::test]
async fn a_control_socket_left_behind_makes_room_and_a_live_one_does_not() {
    let mut first = Program::start(&[]);
    let socket = first.control_socket();
    let tokens = first.dir.path().join("second");
    let args = [
        "--tokens-dir",
        tokens.to_str().unwrap(),
        "--control",
        socket.to_str().unwrap(),
    ];
    let refused = run(&args);
    assert_eq!(refused.status.code(), Some(1));
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(
        error.starts_with("himds-sim: the control socket ") && error.contains("in use"),
        "{error}"
    );

    assert_eq!(first.end(Signal::SIGKILL).0, None);
    assert!(socket.exists());
    let second = Program::start_in(Arc::clone(&first.dir), &[]);
    assert_eq!(
        second.control("GET", "/faults", "").await.status,
        200,
        "the second answers there"
    );
}

#[test]
fn a_wrong_command_line_is_explained_with_status_2() {
    for (args, says) in [
        (&[][..], "--tokens-dir <DIR>"),
        (
            &["--tokens-dir", "t", "--lifetime", "soon"],
            "write a time from 1s",
        ),
        (
            &["--tokens-dir", "t", "--key-mode", "rw"],
            "write permission bits in octal",
        ),
        (
            &["--tokens-dir", "t", "--agent-version", "new"],
            "write one like 1.67",
        ),
        (
            &["--tokens-dir", "t", "--user-identity", ","],
            "has an empty part",
        ),
        (
            &["--tokens-dir", "t", "--fault", "sneeze"],
            "there is no fault `sneeze`; there are: ",
        ),
        (
            &["--tokens-dir", "t", "--fault", "first-delay=x"],
            "write first-delay=N",
        ),
        (&["--tokens-dir", "t", "--no-rate-limits"], "--imds"),
        (&["--tokens-dir", "t", "--listen", "localhost"], "--listen"),
    ] {
        let output = run(args);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(error.contains(says), "{args:?}: {error}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn what_keeps_it_from_running_is_explained_with_status_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (args, says) in [
        (
            &["--tokens-dir", "t", "--listen", &address][..],
            format!("cannot listen on {address}"),
        ),
        (
            &["--tokens-dir", "/proc/nowhere"],
            "the tokens directory /proc/nowhere: cannot be made".to_owned(),
        ),
        (
            &["--tokens-dir", "t\nt"],
            "its name cannot stand in a header".to_owned(),
        ),
        (
            &["--tokens-dir", "t", "--key-owner", "no such user"],
            "there is no user `no such user`".to_owned(),
        ),
        (
            &["--tokens-dir", "t", "--control", "/proc/nowhere/c"],
            "the control socket /proc/nowhere/c".to_owned(),
        ),
    ] {
        let output = run(args);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(
            error.starts_with("himds-sim: ") && error.contains(&says),
            "{args:?}: {error}"
        );
        assert!(output.stdout.is_empty(), "no ready line");
    }
}

#[test]
fn the_faults_are_listed_without_anything_else() {
    let output = run(&["--list-faults"]);
    assert!(output.status.success());
    let list = String::from_utf8(output.stdout).unwrap();
    assert_eq!(list.lines().count(), himds_sim::fault_table().count());
    assert!(list.starts_with("reset-on-accept "), "{list}");
}
