//! Faults that strike instead of an answer, or on its way.

use std::{io, time::Duration};

use himds_sim::{Authorization, Kind, Outcome};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::{
    last, stage_of, strike,
    support::{Connection, DEADLINE, METADATA, TOKEN, VAULT, World, eventually, token_target},
};

const INSTANCE: &str = "/metadata/instance?api-version=2020-06-01";

#[tokio::test]
async fn a_status_comes_instead_of_an_answer() {
    for (fault, stage, status, error) in [
        ("first-status=404", "first", 404, "not_found"),
        ("first-status=410", "first", 410, "server_error"),
        ("second-status=401", "second", 401, "unauthorized_client"),
        ("second-status=503", "second", 503, "service_unavailable"),
        ("throttle=0", "first", 429, "too_many_requests"),
        (
            "second-throttle=1000000000000",
            "second",
            429,
            "too_many_requests",
        ),
    ] {
        let world = World::faulty(fault).await;
        let answer = strike(&world, stage).await.unwrap();
        assert_eq!(
            (answer.status, answer.text("error").as_str()),
            (status, error),
            "{fault}"
        );
        let value = fault
            .split_once("throttle=")
            .map(|(_, value)| value.to_owned());
        assert_eq!(answer.header("retry-after"), value, "{fault}");
        assert_eq!(answer.header("www-authenticate"), None);
    }
}

#[tokio::test]
async fn a_second_request_is_challenged_although_its_key_was_good() {
    let world = World::faulty("second-challenge:1").await;
    let again = world.token().await;
    assert_eq!(
        (again.status, last(&world).authorization),
        (401, Authorization::Matched)
    );
    assert_eq!(world.redeem(&again.key()).await.status, 200);
}

#[tokio::test]
async fn a_redirect_comes_instead_of_an_answer() {
    for (fault, stage, location) in [
        ("redirect", "first", "/redirected"),
        (
            "redirect=http://127.0.0.1:9/:*",
            "first",
            "http://127.0.0.1:9/",
        ),
        ("second-redirect=//evil.example", "second", "//evil.example"),
    ] {
        let world = World::faulty(fault).await;
        let answer = strike(&world, stage).await.unwrap();
        assert_eq!(
            (answer.status, answer.header("location").as_deref()),
            (302, Some(location))
        );
        assert_eq!(last(&world).kind, Kind::Redirect);
    }
}

#[tokio::test]
async fn a_token_comes_without_a_challenge() {
    let world = World::faulty("direct-token").await;
    let answer = world.challenge().await;
    assert_eq!(
        (answer.status, answer.text("resource").as_str()),
        (200, VAULT)
    );
}

#[tokio::test]
async fn an_answer_comes_late() {
    for (fault, stage) in [("first-delay=80", "first"), ("second-delay=80", "second")] {
        let world = World::faulty(fault).await;
        let before = Instant::now();
        strike(&world, stage).await.unwrap();
        assert!(before.elapsed() >= Duration::from_millis(80), "{fault}");
    }
    let world = World::faulty("instance-delay=80").await;
    let before = Instant::now();
    assert_eq!(world.get(INSTANCE, &[METADATA]).await.status, 200);
    assert!(before.elapsed() >= Duration::from_millis(80));
}

#[tokio::test]
async fn a_client_that_does_not_wait_is_noted() {
    let world = World::faulty("first-delay=600000").await;
    let mut connection = Connection::open(world.sim.address()).await.unwrap();
    connection
        .send(format!("GET {TOKEN} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
        .await;
    eventually("the request is read", || !world.sim.journal().is_empty()).await;
    assert_eq!(last(&world).outcome, Outcome::Pending);
    drop(connection);
    eventually("the client's end is noted", || {
        last(&world).outcome == Outcome::Abandoned
    })
    .await;
}

#[tokio::test]
async fn no_answer_ever_comes() {
    let requests = [
        ("first-hang", token_target("")),
        ("second-hang", token_target("")),
        ("instance-hang", INSTANCE.to_owned()),
    ];
    for (fault, target) in requests {
        let world = World::faulty(fault).await;
        let mut connection = asked(&world, stage_of(fault), &target).await;
        eventually("the request hangs", || {
            let last = world.sim.journal().pop();
            last.is_some_and(|entry| entry.outcome == Outcome::Hung)
        })
        .await;
        assert!(is_silent(&mut connection).await, "{fault}");
        assert_eq!(last(&world).outcome, Outcome::Hung);
    }
    let world = World::faulty("never-read").await;
    let mut connection = asked(&world, "first", &token_target("")).await;
    eventually("the connection is accepted", || {
        world.sim.connections() == 1
    })
    .await;
    assert!(is_silent(&mut connection).await);
    assert!(world.sim.journal().is_empty());
    assert_eq!(world.sim.connections(), 1);
}

/// Nothing comes, and the connection stays.
async fn is_silent(connection: &mut Connection<TcpStream>) -> bool {
    timeout(Duration::from_millis(100), connection.answer())
        .await
        .is_err()
}

#[tokio::test]
async fn the_connection_ends_instead_of_an_answer() {
    for (fault, kind, outcome) in [
        ("first-close", io::ErrorKind::UnexpectedEof, Outcome::Closed),
        (
            "second-close",
            io::ErrorKind::UnexpectedEof,
            Outcome::Closed,
        ),
        (
            "first-reset",
            io::ErrorKind::ConnectionReset,
            Outcome::Reset,
        ),
        (
            "second-reset",
            io::ErrorKind::ConnectionReset,
            Outcome::Reset,
        ),
    ] {
        let world = World::faulty(&format!("{fault}:1")).await;
        let error = strike(&world, stage_of(fault)).await.unwrap_err();
        assert_eq!(
            (error.kind(), last(&world).outcome),
            (kind, outcome),
            "{fault}"
        );
        assert_eq!(world.token().await.status, 200);
    }
    let world = World::faulty("reset-on-accept:1").await;
    assert!(world.try_get(&token_target(""), &[METADATA]).await.is_err());
    assert!(world.sim.journal().is_empty());
    assert_eq!(world.token().await.status, 200);
}

#[tokio::test]
async fn the_connection_ends_after_the_challenge() {
    for (fault, announced) in [
        ("close-after-challenge:1", true),
        ("drop-after-challenge:1", false),
    ] {
        let world = World::faulty(fault).await;
        let mut connection = Connection::open(world.sim.address()).await.unwrap();
        let answer = connection
            .request("GET", &token_target(""), &[METADATA])
            .await
            .unwrap();
        assert_eq!(answer.header("connection").is_some(), announced, "{fault}");
        assert!(connection.rest().await.unwrap().is_empty());
        assert_eq!(
            world.redeem(&answer.key()).await.status,
            200,
            "the key is good on another connection"
        );
    }
}

/// A connection on which a request was sent, with a key if `stage` is the second.
async fn asked(world: &World, stage: &str, target: &str) -> Connection<TcpStream> {
    let authorization = match stage {
        "second" => format!("Authorization: Basic {}\r\n", world.challenge().await.key()),
        _ => String::new(),
    };
    let mut connection = Connection::open(world.sim.address()).await.unwrap();
    connection
        .send(
            format!("GET {target} HTTP/1.1\r\nHost: x\r\nMetadata: true\r\n{authorization}\r\n")
                .as_bytes(),
        )
        .await;
    connection
}

/// Everything that comes back for the request that a fault of this stage strikes.
async fn raw(world: &World, stage: &str) -> String {
    let mut connection = asked(world, stage, &token_target("")).await;
    String::from_utf8(connection.rest().await.unwrap()).unwrap()
}

#[tokio::test]
async fn an_answer_has_no_status_line() {
    for (fault, stage) in [("first-http09", "first"), ("second-http09", "second")] {
        let world = World::faulty(fault).await;
        let bytes = raw(&world, stage).await;
        assert!(bytes.starts_with("{\"") && bytes.ends_with('}'), "{bytes}");
        assert_eq!(last(&world).outcome, Outcome::Broken);
    }
}

#[tokio::test]
async fn many_informational_answers_come_first() {
    for (fault, stage, status) in [
        ("first-informational=500", "first", 401),
        ("second-informational=500", "second", 200),
    ] {
        let bytes = raw(&World::faulty(fault).await, stage).await;
        assert_eq!(bytes.matches("HTTP/1.1 100 Continue\r\n\r\n").count(), 500);
        assert!(bytes.contains(&format!("HTTP/1.1 {status} ")), "{bytes}");
    }
}

#[tokio::test]
async fn an_answer_comes_byte_by_byte() {
    for (fault, stage, status) in [
        ("first-trickle=1", "first", 401),
        ("second-trickle=0", "second", 200),
    ] {
        let world = World::faulty(fault).await;
        let before = Instant::now();
        assert_eq!(strike(&world, stage).await.unwrap().status, status);
        assert!(stage == "second" || before.elapsed() >= Duration::from_millis(100));
    }
}

#[tokio::test]
async fn an_answer_is_cut_or_shorter_than_it_says() {
    for fault in [
        "first-cut",
        "second-cut",
        "first-length-lie",
        "second-length-lie",
    ] {
        let world = World::faulty(fault).await;
        let error = strike(&world, stage_of(fault)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{fault}");
    }
}

#[tokio::test]
async fn an_answer_has_wrong_chunks() {
    for fault in ["first-chunked-lie", "second-chunked-lie"] {
        let world = World::faulty(fault).await;
        let key = world.key_if(fault.starts_with("second")).await;
        let stream = TcpStream::connect(world.sim.address()).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let mut request = hyper::Request::get(token_target(""))
            .header("Host", "x")
            .header("Metadata", "true");
        if !key.is_empty() {
            request = request.header("Authorization", format!("Basic {key}"));
        }
        let answer = sender
            .send_request(request.body(Empty::<bytes::Bytes>::new()).unwrap())
            .await
            .unwrap();
        let body = timeout(DEADLINE, answer.into_body().collect())
            .await
            .unwrap();
        assert!(
            body.is_err(),
            "{fault}: a strict client sees that it is broken"
        );
    }
}

#[tokio::test]
async fn instance_metadata_fails_or_is_of_another_machine() {
    let world = World::faulty("instance-status=500:1").await;
    assert_eq!(world.get(INSTANCE, &[METADATA]).await.status, 500);
    let right = world.get(INSTANCE, &[METADATA]).await.json();
    world.fault("instance-other-machine");
    let other = world.get(INSTANCE, &[METADATA]).await.json();
    assert_ne!(
        other["compute"]["resourceId"],
        right["compute"]["resourceId"]
    );
}
