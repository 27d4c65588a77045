//! What a well-behaved broker answers.

use std::time::Duration;

use crate::support::{Server, Step, answer, token};
use arcbroker_client::{Error, Identity, TokenRequest, blocking, wire::Health};

#[tokio::test]
async fn a_token_is_asked_for_as_himds_would_be_and_handed_over() {
    let server = Server::always(token("MARKER"));
    let token = server
        .client()
        .token("https://vault.azure.net")
        .await
        .unwrap();
    assert_eq!(token.secret.reveal(), "MARKER");
    assert_eq!(token.expires_on, 1_700_003_599);
    assert_eq!(token.expires_in, Duration::from_secs(3599));
    assert_eq!(token.resource, "https://vault.azure.net");

    let head = server.requests().remove(0);
    assert!(head.starts_with(
        "GET /metadata/identity/oauth2/token?api-version=2020-06-01&resource=https%3A%2F%2Fvault.azure.net HTTP/1.1\r\n"
    ));
    assert!(head.contains("\r\nmetadata: true\r\n"));
    assert!(head.contains("\r\nhost: localhost\r\n"));
}

#[tokio::test]
async fn an_identity_travels_with_the_request() {
    let server = Server::always(token("T"));
    let request = TokenRequest::new("arm").with_identity(Identity::ObjectId("o-1".into()));
    server.client().token(request).await.unwrap();
    assert!(server.requests()[0].contains("&resource=arm&object_id=o-1 "));
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let server = Server::always(token("T"));
    let client = server.client();
    for _ in 0..5 {
        client.token("arm").await.unwrap();
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_is_replaced_without_an_error() {
    // Each connection is closed after its first answer, though the answer does not say so.
    let server = Server::start(vec![vec![Step::Send(token("T"))]]);
    let client = server.client();
    for _ in 0..5 {
        client.token("arm").await.unwrap();
    }
    assert_eq!(server.connections(), 5);
}

#[tokio::test]
async fn a_request_that_a_leaving_broker_read_and_dropped_is_sent_once_more() {
    let read_and_leave = vec![Step::Send(token("T")), Step::Send(Vec::new())];
    let server = Server::start(vec![read_and_leave, vec![Step::Send(token("T2"))]]);
    let client = server.client();
    client.token("arm").await.unwrap();
    let token = client.token("arm").await.unwrap();
    assert_eq!(token.secret.reveal(), "T2");
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn a_denial_is_typed_and_carries_what_the_broker_says() {
    let body = r#"{"error":"access_denied","error_description":"no rule","statusCode":403,"message":"no rule","request_id":"7f","schema":1}"#;
    let server = Server::always(answer(403, "", body));
    let error = server.client().token("arm").await.unwrap_err();
    assert!(
        matches!(&error, Error::Denied { description, request_id }
            if description == "no rule" && request_id.as_deref() == Some("7f")),
        "{error:?}"
    );
    assert!(!error.is_transient());
}

#[tokio::test]
async fn a_refusal_by_himds_is_no_denial_of_the_policy() {
    let body = r#"{"error":"forbidden","error_description":"HIMDS refused to give the token: no","request_id":"7f"}"#;
    let server = Server::always(answer(403, "", body));
    let error = server.client().token("arm").await.unwrap_err();
    assert!(
        matches!(&error, Error::Refused { description, request_id }
            if description == "HIMDS refused to give the token: no" && request_id.as_deref() == Some("7f")),
        "{error:?}"
    );
    assert!(!error.is_transient());
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn an_outage_is_typed_with_its_bounded_pause() {
    let body = r#"{"error":"temporarily_unavailable","error_description":"HIMDS is down"}"#;
    for (status, header, seconds) in [
        (503, "retry-after: 7\r\n", Some(7)),
        (503, "retry-after: 86400\r\n", Some(300)),
        (503, "retry-after: tomorrow\r\n", None),
        (429, "retry-after: 2\r\n", Some(2)),
        (500, "", None),
    ] {
        let server = Server::always(answer(status, header, body));
        let error = server.client().token("arm").await.unwrap_err();
        assert!(
            matches!(&error, Error::Unavailable { retry_after, description, .. }
                if *retry_after == seconds.map(Duration::from_secs) && description == "HIMDS is down"),
            "{error:?}"
        );
        assert!(error.is_transient());
    }
}

#[tokio::test]
async fn a_malformed_request_is_not_repeated() {
    let body = r#"{"error":"invalid_resource","error_description":"no such name"}"#;
    let server = Server::always(answer(400, "", body));
    let error = server.client().token("keyvualt").await.unwrap_err();
    assert!(
        matches!(&error, Error::BadRequest { description, request_id: None } if description == "no such name"),
        "{error:?}"
    );
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn keys_of_a_newer_broker_are_ignored_and_another_schema_is_not() {
    let server = Server::always(answer(
        200,
        "",
        r#"{"schema":1,"health":"degraded","mood":"good"}"#,
    ));
    let health = server.client().health().await.unwrap();
    assert_eq!(health.health, Health::Degraded);

    let server = Server::always(answer(200, "", r#"{"schema":2,"health":"healthy"}"#));
    let error = server.client().health().await.unwrap_err();
    assert!(error.to_string().contains("schema"), "{error}");
}

#[tokio::test]
async fn whoami_lists_what_the_caller_may_have() {
    let body = r#"{"schema":1,"uid":7,"user":null,"gid":8,"groups":[8],"pid":9,"resources":[{"resource":"*","identity":"system","rule":"all"}]}"#;
    let server = Server::always(answer(200, "", body));
    let answer = server.client().whoami().await.unwrap();
    assert_eq!((answer.uid, answer.gid, answer.pid), (7, 8, Some(9)));
    assert_eq!(answer.resources[0].rule, "all");
    assert!(server.requests()[0].starts_with("GET /v1/whoami HTTP/1.1\r\n"));
}

#[tokio::test]
async fn the_instance_is_what_upstream_says() {
    let server = Server::always(answer(200, "", r#"{"compute":{"name":"m"}}"#));
    let instance = server.client().instance().await.unwrap();
    assert_eq!(instance["compute"]["name"], "m");
    let asked = "GET /metadata/instance?api-version=2020-06-01 HTTP/1.1\r\n";
    assert!(server.requests()[0].starts_with(asked));
}

#[test]
fn the_blocking_client_survives_connections_closed_while_nobody_looked() {
    let serving = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let server = serving.block_on(async { Server::start(vec![vec![Step::Send(token("T"))]]) });
    let client = blocking::Client::new(&server.path).unwrap();
    for _ in 0..5 {
        assert_eq!(client.token("arm").unwrap().secret.reveal(), "T");
    }
}

#[tokio::test]
async fn the_blocking_client_says_so_when_it_is_used_in_async_code() {
    let client = blocking::Client::new("/nonexistent/token.sock").unwrap();
    assert!(matches!(client.token("arm"), Err(Error::InsideRuntime)));
}
