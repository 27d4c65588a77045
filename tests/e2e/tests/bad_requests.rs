//! Requests that no SDK sends: each is refused with words that help, and none does any harm.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use arcbroker_e2e::{Answer, World, eventually};
use tokio::process::Command;
use tokio::time::{Instant, sleep};

const TOKEN: &str = "/metadata/identity/oauth2/token";
const GOOD: &str =
    "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net";
const HEAD: &str = "HTTP/1.1\r\nHost: localhost\r\nMetadata: true\r\nConnection: close\r\n";

/// A request whose every byte is in the hands of the test.
fn get(target: &str) -> String {
    format!("GET {target} {HEAD}\r\n")
}

/// The error as a client sees it, in both dialects.
fn description(answer: &Answer) -> String {
    let body = answer.json();
    assert_eq!(body["error_description"], body["message"], "{body}");
    assert_eq!(body["statusCode"], answer.status, "{body}");
    body["error_description"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn b02_b03_metadata_must_be_asked_for_directly() {
    let world = World::start().await;
    let metadata = "Required metadata header not specified";
    let cases: [(&[&str], &str); 6] = [
        (&[], metadata),
        (&["Metadata: false"], metadata),
        (&["Metadata: "], metadata),
        (&["Metadata: true", "Metadata: true"], metadata),
        (
            &["Metadata: true", "X-Forwarded-For: 127.0.0.1"],
            "X-Forwarded-For",
        ),
        (&["Metadata: true", "x-forwarded-for:"], "X-Forwarded-For"),
    ];
    for (headers, words) in &cases {
        let answer = world.get_with(GOOD, headers).await;
        assert_eq!(
            (answer.status, answer.json()["error"].as_str()),
            (400, Some("invalid_request")),
            "{headers:?}"
        );
        assert!(
            description(&answer).contains(words),
            "{headers:?}: {answer:?}"
        );
    }
    assert_eq!(world.audit().len(), cases.len());
    assert!(
        world
            .audit()
            .iter()
            .all(|record| record["outcome"] == "malformed" && record["resource"].is_null())
    );
    assert_eq!(world.simulator().token_requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn b04_b05_b06_b07_a_query_says_one_thing_once() {
    let world = World::start().await;
    let version = "api-version=2018-02-01";
    let vault = "resource=https%3A%2F%2Fvault.azure.net";
    let id = "00001111-aaaa-2222-bbbb-3333cccc4444";
    for (query, words) in [
        (vault.to_owned(), "api-version"),
        (format!("api-version=2018-02-30&{vault}"), "api-version"),
        (format!("api-version=&{vault}"), "api-version"),
        (version.to_owned(), "`resource` is missing"),
        (format!("{version}&resource="), "`resource` is missing"),
        (
            format!("{version}&{vault}&{vault}"),
            "`resource` is given more than once",
        ),
        (
            format!("{version}&{vault}&%72esource=x"),
            "`resource` is given more than once",
        ),
        (
            format!("{version}&{vault}&{version}"),
            "`api-version` is given more than once",
        ),
        (
            format!("{version}&{vault}&client_id={id}&object_id={id}"),
            "exclude each other",
        ),
        (
            format!("{version}&{vault}&client_id={id}&mi_res_id=/subscriptions/x"),
            "exclude each other",
        ),
        (
            format!("{version}&{vault}&msi_res_id=a&mi_res_id=b"),
            "`msi_res_id` is given more than once",
        ),
        (format!("{version}&{vault}&client_id=me"), "identity"),
        (
            format!("{version}&resource=https%3A%2F%2Fvault.azure.net%2F.default"),
            ".default",
        ),
        (format!("{version}&resource=%zz"), "percent-encoded"),
        (format!("{version}&resource=%ff"), "percent-encoded"),
        (format!("{version}&resource=a%0d%0ab"), "resource"),
        (
            format!("{version}&resource={}", "a".repeat(3000)),
            "longer than",
        ),
    ] {
        let answer = world.get(&format!("{TOKEN}?{query}")).await;
        assert_eq!(
            (answer.status, answer.json()["error"].as_str()),
            (400, Some("invalid_request")),
            "{query}: {answer:?}"
        );
        assert!(description(&answer).contains(words), "{query}: {answer:?}");
        let versions = answer.json().get("newest-versions").is_some();
        assert_eq!(versions, words == "api-version", "{query}");
    }
    assert_eq!(world.simulator().token_requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn b08_only_get_is_served() {
    let world = World::start().await;
    for target in [
        GOOD,
        "/metadata/instance?api-version=2018-02-01",
        "/v1/health",
    ] {
        for method in ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "get"] {
            let answer = Answer::parse(
                &world
                    .raw(get(target).replacen("GET", method, 1).as_bytes())
                    .await,
            );
            assert_eq!(
                (answer.status, answer.header("allow")),
                (405, Some("GET")),
                "{method} {target}: {answer:?}"
            );
            assert_eq!(answer.body.is_empty(), method == "HEAD");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_not_framed_as_they_should_be_are_refused_and_the_connection_ends() {
    let world = World::start().await;
    let good = get(GOOD).replace("Connection: close\r\n", "");
    let with = |line: &str| good.replace("\r\n\r\n", &format!("\r\n{line}\r\n\r\n"));
    for (what, request) in [
        ("HTTP/1.0", good.replace("HTTP/1.1", "HTTP/1.0")),
        ("no Host", good.replace("Host: localhost\r\n", "")),
        ("two Hosts", with("Host: localhost")),
        ("a body", with("Content-Length: 5") + "hello"),
        ("a promised body", with("Content-Length: 5")),
        (
            "a chunked body",
            with("Transfer-Encoding: chunked") + "5\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "a body and a second request in it",
            with(&format!("Content-Length: {}", good.len())) + &good,
        ),
        (
            "two lengths",
            with("Content-Length: 0\r\nContent-Length: 5") + "hello",
        ),
        ("a length that is no number", with("Content-Length: -1")),
        (
            "a length and chunks",
            with("Content-Length: 0\r\nTransfer-Encoding: chunked") + "0\r\n\r\n",
        ),
        ("a space in a name", with("X y: 1")),
        ("a folded line", with("X: 1\r\n folded")),
        (
            "binary garbage",
            "\x16\x03\x01\x02\0\x01\0\u{1}\u{fc}\u{3}\u{3}\r\n\r\n".to_owned(),
        ),
    ] {
        // Read until the daemon closes: there is one answer, and it is not a token.
        let answers = Answer::parse_all(&world.raw(request.as_bytes()).await);
        assert_eq!(
            answers
                .iter()
                .map(|answer| answer.status)
                .collect::<Vec<_>>(),
            [400],
            "{what}: {answers:?}"
        );
    }
    assert_eq!(world.simulator().token_requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn b30_an_oversized_head_is_refused_in_words_that_the_client_hears() {
    let world = World::start().await;
    let filler = |lines: usize, length: usize| {
        let line = |number| format!("X-{number}: {}\r\n", "a".repeat(length));
        let lines = (0..lines).map(line).collect::<Vec<_>>().concat();
        format!("GET {GOOD} {HEAD}{lines}\r\n")
    };
    assert_eq!(
        Answer::parse(&world.raw(filler(20, 600).as_bytes()).await).status,
        200
    );
    for (lines, length) in [(1, 17_000), (30, 1_000), (40, 1), (1, 150_000)] {
        let answer = Answer::parse(&world.raw(filler(lines, length).as_bytes()).await);
        assert_eq!(answer.status, 431, "{lines} x {length}: {answer:?}");
    }
    // A real client, which gives up when it cannot send.
    let output = Command::new("curl")
        .args([
            "--silent",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
            "--unix-socket",
        ])
        .arg(world.token_socket())
        .args([
            "--header",
            &format!("X: {}", "a".repeat(90_000)),
            &format!("http://localhost{GOOD}"),
        ])
        .output();
    let output = output.await.unwrap();
    assert_eq!(
        (output.status.code(), output.stdout),
        (Some(0), b"431".to_vec())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_their_order() {
    let world = World::start().await;
    let open = |target: &str| get(target).replace("Connection: close\r\n", "");
    let requests = [
        open(GOOD),
        open("/v1/whoami"),
        open(TOKEN),
        open("/nowhere"),
        get(GOOD),
    ]
    .concat();
    let answers = Answer::parse_all(&world.raw(requests.as_bytes()).await);
    assert_eq!(
        answers
            .iter()
            .map(|answer| answer.status)
            .collect::<Vec<_>>(),
        [200, 200, 400, 404, 200]
    );
    assert!(answers[1].json().get("uid").is_some());
    assert_eq!(
        answers[0].json()["access_token"],
        answers[4].json()["access_token"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn b30_slow_and_silent_connections_are_cut_after_five_seconds() {
    let world = World::start().await;
    // Each begins before the daemon's own time does, which is then no longer than ours.
    let silent = async {
        let (began, connection) = (Instant::now(), world.connect().await);
        assert!(connection.rest().await.is_empty());
        began.elapsed()
    };
    let half = async {
        let (began, mut connection) = (Instant::now(), world.connect().await);
        connection
            .send(b"GET /metadata HTTP/1.1\r\nHost:")
            .await
            .unwrap();
        connection.rest().await;
        began.elapsed()
    };
    let dribble = async {
        let (began, mut connection) = (Instant::now(), world.connect().await);
        // A byte now and then must not buy more time.
        for byte in get(GOOD).bytes().cycle() {
            sleep(Duration::from_millis(200)).await;
            if connection.send(&[byte]).await.is_err() {
                break;
            }
        }
        began.elapsed()
    };
    let kept = async {
        let mut connection = world.connect().await;
        let began = Instant::now();
        assert_eq!(connection.get("/v1/health").await.status, 200);
        connection.rest().await;
        began.elapsed()
    };
    let (silent, half, dribble, kept) = tokio::join!(silent, half, dribble, kept);
    for (what, took) in [
        ("silent", silent),
        ("half", half),
        ("dribble", dribble),
        ("kept", kept),
    ] {
        assert!(
            (Duration::from_secs(4)..Duration::from_secs(12)).contains(&took),
            "{what}: {took:?}"
        );
    }
    eventually("nothing of them is left", || async {
        world.status().await.connections.open == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t24_nothing_that_one_client_sends_disturbs_another() {
    let mut world = World::start().await;
    let mut kept = world.connect().await;
    assert_eq!(kept.get(GOOD).await.status, 200);
    for garbage in [
        b"".to_vec(),
        b"\0".repeat(70_000),
        b"\xff\xfe\xfd".repeat(1000),
        b"\r\n".repeat(40_000),
        b"GET ".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"GET http://[::1 HTTP/1.1\r\n\r\n".to_vec(),
        [
            b"GET /".to_vec(),
            b"a".repeat(100_000),
            b" HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        ]
        .concat(),
        [
            b"GET / HTTP/1.1\r\nHost: ".to_vec(),
            b"\x80".repeat(100),
            b"\r\n\r\n".to_vec(),
        ]
        .concat(),
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n".to_vec(),
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n"
            .to_vec(),
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n".to_vec(),
    ] {
        let mut other = world.connect().await;
        // The daemon may have had enough before all is sent.
        other.send(&garbage).await.unwrap_or_default();
        drop(other);
        let mut other = world.connect().await;
        other.send(&garbage).await.unwrap_or_default();
        let answer = kept.get(GOOD).await;
        assert_eq!(
            answer.status,
            200,
            "after {:?}",
            &garbage[..garbage.len().min(20)]
        );
    }
    assert!(world.daemon.is_running(), "{}", world.daemon.log());
    assert!(
        !world.daemon.log().contains("panic"),
        "{}",
        world.daemon.log()
    );
}
