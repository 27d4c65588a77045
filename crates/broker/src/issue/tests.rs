use arcbroker_policy::{Cloud, Resource};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::*;

const WALL: u64 = 1_000;

fn key(identity: Identity) -> Key {
    Key {
        identity,
        resource: Resource::parse("https://vault.azure.net", Cloud::Public).unwrap(),
    }
}

fn read(body: &Value) -> Result<Issue, IssueError> {
    decode(
        body.to_string().as_bytes(),
        &key(Identity::System),
        Kind::Himds,
        WALL,
    )
}

fn good() -> Value {
    json!({
        "access_token": "a.token.of.twenty.bytes", "refresh_token": "", "expires_in": "85458",
        "expires_on": "90000", "not_before": "700", "resource": "https://vault.azure.net", "token_type": "Bearer",
    })
}

fn with(field: &str, value: Value) -> Value {
    let mut body = good();
    body[field] = value;
    body
}

fn without(fields: &[&str]) -> Value {
    let mut body = good();
    for field in fields {
        body.as_object_mut().unwrap().remove(*field);
    }
    body
}

#[test]
fn what_himds_sends_is_read() {
    let issue = read(&good()).unwrap();
    assert_eq!(
        (
            issue.expires_on,
            issue.expires_in,
            issue.not_before.as_str()
        ),
        (90_000, Some(85_458), "700")
    );
}

#[test]
fn u14_expires_on_counts_and_expires_in_stands_in() {
    assert_eq!(
        read(&without(&["expires_on"])).unwrap().expires_on,
        WALL + 85_458
    );
    assert_eq!(read(&without(&["expires_in"])).unwrap().expires_on, 90_000);
    assert!(matches!(
        read(&without(&["expires_in", "expires_on"])),
        Err(IssueError::NoExpiry)
    ));
}

#[test]
fn u15_an_expiry_may_be_a_number_but_nothing_else() {
    assert_eq!(
        read(&with("expires_on", json!(90_000))).unwrap().expires_on,
        90_000
    );
    for bad in [
        json!("tomorrow"),
        json!("-1"),
        json!(-1),
        json!(1.5),
        json!("1e9"),
        json!(true),
        json!(["1"]),
    ] {
        assert!(read(&with("expires_on", bad.clone())).is_err(), "{bad}");
    }
}

#[test]
fn old_agents_leave_fields_empty() {
    let issue = read(&with("not_before", json!(""))).unwrap();
    assert_eq!(issue.not_before, "");
    assert!(read(&with("resource", json!(""))).is_ok());
}

#[test]
fn a_token_for_something_else_is_refused() {
    assert!(matches!(
        read(&with("resource", json!("https://vault.azure.net/"))),
        Err(IssueError::Resource)
    ));
    assert!(matches!(
        read(&with("token_type", json!("pop"))),
        Err(IssueError::Kind)
    ));
    for bad in [
        "",
        "short",
        "has a space in the middle",
        "has\u{e9}accents-in-the-middle",
        r#"has"quotes-in-the-middle"#,
    ] {
        assert!(
            matches!(
                read(&with("access_token", json!(bad))),
                Err(IssueError::Token)
            ),
            "{bad}"
        );
    }
}

#[test]
fn u12_a_user_assigned_identity_must_be_confirmed() {
    let id = "11111111-2222-3333-4444-555555555555";
    let identity: Identity = format!("client-id:{id}").parse().unwrap();
    let read = |body: Value| {
        decode(
            body.to_string().as_bytes(),
            &key(identity.clone()),
            Kind::Himds,
            WALL,
        )
    };
    assert!(matches!(read(good()), Err(IssueError::Identity)));
    assert!(matches!(
        read(with("client_id", json!("other"))),
        Err(IssueError::Identity)
    ));
    assert_eq!(
        read(with("client_id", json!(id)))
            .unwrap()
            .client_id
            .as_deref(),
        Some(id)
    );
}

#[test]
fn u18_what_is_not_a_token_answer_is_refused_without_being_shown() {
    for body in [
        "",
        "MARKER",
        "[]",
        "{}",
        r#"{"access_token":7}"#,
        r#"{"access_token":"MARKER.MARKER.MARKER.MA"#,
    ] {
        let error = decode(body.as_bytes(), &key(Identity::System), Kind::Himds, WALL).unwrap_err();
        assert!(
            !format!("{error} {error:?}").contains("MARKER"),
            "{error:?}"
        );
    }
    let twice = r#"{"access_token":"a.token.of.twenty.bytes","access_token":"another.token.of.twenty.b","expires_in":"9"}"#;
    assert!(decode(twice.as_bytes(), &key(Identity::System), Kind::Himds, WALL).is_err());
}

#[test]
fn a_complaint_is_short_and_printable_in_every_dialect() {
    let himds =
        Complaint::decode(br#"{"error":"identity_not_found","error_description":"no\nsuch"}"#);
    assert_eq!(himds.code, "identity_not_found");
    assert_eq!(himds.words, "identity_not_found: no?such");
    assert_eq!(Complaint::decode(br#"{"message":"m"}"#).words, "m");
    let both = Complaint::decode(br#"{"error":"e","error_description":"d","message":"m"}"#);
    assert_eq!(both.words, "e: d");
    assert_eq!(Complaint::decode(b"<html>"), Complaint::default());
    let long = json!({ "error": "x".repeat(500) }).to_string();
    assert_eq!(Complaint::decode(long.as_bytes()).words.len(), MAX_WORDS);
}

/// A token with these claims, of which nobody checks the signature.
fn token_with(claims: &Value) -> String {
    format!("h.{}.signature", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

#[test]
fn u12_imds_confirms_an_identity_by_its_echo_or_by_the_token() {
    let id = "11111111-2222-3333-4444-555555555555";
    let mirid = "/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/n";
    for (identity, echo, claim, named) in [
        (format!("client-id:{id}"), "client_id", "appid", id),
        (format!("object-id:{id}"), "object_id", "oid", id),
        (
            format!("resource-id:{mirid}"),
            "msi_res_id",
            "xms_mirid",
            mirid,
        ),
    ] {
        let key = key(identity.parse().unwrap());
        let read = |kind, echoed: Option<&str>, claimed: Option<&str>| {
            let mut body = good();
            if let Some(echoed) = echoed {
                body[echo] = json!(echoed);
            }
            if let Some(claimed) = claimed {
                body["access_token"] = json!(token_with(&json!({ claim: claimed })));
            }
            decode(body.to_string().as_bytes(), &key, kind, WALL).is_ok()
        };
        let other = Some("other");
        let upper = named.to_uppercase();
        for (echoed, claimed, good) in [
            (Some(named), None, true),
            (Some(upper.as_str()), None, true),
            (Some(named), other, true),
            (other, Some(named), false),
            (None, Some(named), true),
            (None, Some(upper.as_str()), true),
            (Some(""), Some(named), true),
            (None, other, false),
            (None, None, false),
            (Some(""), None, false),
        ] {
            assert_eq!(
                read(Kind::Imds, echoed, claimed),
                good,
                "{echo} {echoed:?}, {claim} {claimed:?}"
            );
        }
        assert!(
            !read(Kind::Himds, None, Some(named)),
            "HIMDS echoes what it has understood"
        );
    }
}

#[test]
fn imds_names_the_client_id_of_any_identity_and_that_is_no_echo_of_another_selector() {
    let id = "11111111-2222-3333-4444-555555555555";
    let key = key(format!("object-id:{id}").parse().unwrap());
    let mut body = with("client_id", json!("99999999-2222-3333-4444-555555555555"));
    body["access_token"] = json!(token_with(&json!({ "oid": id })));
    assert!(decode(body.to_string().as_bytes(), &key, Kind::Imds, WALL).is_ok());
}
