//! Faults of the answer with a token.

use himds_sim::Machine;

use crate::support::{VAULT, World, claims};

#[tokio::test]
async fn the_body_is_no_token() {
    for (fault, start, end) in [
        ("body-garbage", &b"\xff\xfe"[..], &b"\x01\x00"[..]),
        ("body-truncated", b"{\"access_token\":\"", b""),
        ("body-html", b"<html>", b"</html>"),
        ("body-array", b"[{", b"}]"),
        ("body-trailing", b"{", b"\n<!-- end -->"),
        ("body-nan", b"{", b",\"expires_on\":NaN}"),
    ] {
        let answer = World::faulty(fault).await.token().await;
        assert_eq!(answer.status, 200);
        assert!(
            answer.body.starts_with(start) && answer.body.ends_with(end),
            "{fault}: {answer:?}"
        );
        let is_object = serde_json::from_slice::<serde_json::Value>(&answer.body)
            .is_ok_and(|value| value.is_object());
        assert!(!is_object, "{fault}");
    }
    assert!(
        World::faulty("body-empty")
            .await
            .token()
            .await
            .body
            .is_empty()
    );
    let gzip = World::faulty("body-gzip").await.token().await;
    assert_eq!(gzip.header("content-encoding").as_deref(), Some("gzip"));
    assert_eq!(gzip.text("token_type"), "Bearer");
}

#[tokio::test]
async fn the_body_is_huge_or_ambiguous() {
    for (fault, size) in [("body-huge", 2_097_152), ("body-huge=100000", 100_000)] {
        let huge = World::faulty(fault).await.token().await;
        assert_eq!(huge.body.len(), size);
        assert_eq!(huge.text("resource"), VAULT);
    }
    let twice = World::faulty("body-duplicate-keys").await.token().await;
    let body = String::from_utf8(twice.body).unwrap();
    assert!(
        body.starts_with("{\"access_token\":\"first\",\"access_token\":\"ey"),
        "{body}"
    );
}

#[tokio::test]
async fn the_expiry_is_missing_or_odd() {
    for (fault, expires_in, expires_on) in [
        ("no-expiry", false, false),
        ("only-expires-in", true, false),
        ("only-expires-on", false, true),
        ("expires-on=", false, true),
    ] {
        let fields = World::faulty(fault).await.token().await.fields();
        let has = |name: &str| fields.iter().any(|field| field == name);
        assert_eq!(
            (has("expires_in"), has("expires_on")),
            (expires_in, expires_on),
            "{fault}"
        );
    }
    for text in ["-1", "4294967296", "2026-11-23T00:00:00Z", "soon"] {
        let answer = World::faulty(&format!("expires-on={text}:*"))
            .await
            .token()
            .await;
        assert_eq!(answer.text("expires_on"), text);
    }
    let number = World::faulty("expires-on-number")
        .await
        .token()
        .await
        .json();
    assert!(
        number["expires_on"].is_u64() && number["expires_in"].is_u64(),
        "{number}"
    );
    let float = World::faulty("expires-on-float").await.token().await;
    assert!(
        float.json()["expires_on"].is_f64() && float.json()["expires_in"] == 86400.5,
        "{float:?}"
    );
}

#[tokio::test]
async fn the_token_is_expired_or_short_lived() {
    let world = World::faulty("expired:1").await;
    let answer = world.token().await;
    let claims = claims(&answer.text("access_token"));
    assert_eq!(
        (
            answer.text("expires_in").as_str(),
            answer.text("expires_on")
        ),
        ("0", claims["exp"].to_string())
    );
    assert_eq!(
        world.token().await.text("expires_in"),
        "86400",
        "it was not cached"
    );

    let world = World::faulty("short-lifetime=20:2").await;
    let first = world.token().await;
    assert_eq!(first.text("expires_in"), "20");
    assert_ne!(
        world.token().await.text("access_token"),
        first.text("access_token")
    );
}

#[tokio::test]
async fn the_token_is_for_something_else() {
    let answer = World::faulty("wrong-resource=https://graph.microsoft.com/")
        .await
        .token()
        .await;
    assert_eq!(answer.text("resource"), "https://graph.microsoft.com/");
    assert_eq!(
        claims(&answer.text("access_token"))["aud"],
        "https://graph.microsoft.com/"
    );

    let answer = World::faulty("wrong-audience").await.token().await;
    assert_eq!(answer.text("resource"), VAULT);
    assert_ne!(claims(&answer.text("access_token"))["aud"], VAULT);
}

#[tokio::test]
async fn the_token_is_somebody_elses() {
    let machine = Machine::default();
    let world = World::faulty("other-tenant:1").await;
    let other = claims(&world.token().await.text("access_token"));
    assert_ne!(other["tid"], *machine.tenant_id);
    assert_eq!(other["oid"], *machine.object_id);

    let world = World::faulty("other-identity").await;
    let other = claims(&world.token().await.text("access_token"));
    assert_eq!(other["tid"], *machine.tenant_id);
    assert!(other["oid"] != *machine.object_id && other["appid"] != *machine.client_id);
}

#[tokio::test]
async fn the_access_token_is_odd() {
    for (fault, kind) in [("not-bearer", "PoP"), ("not-bearer=MAC", "MAC")] {
        assert_eq!(
            World::faulty(fault).await.token().await.text("token_type"),
            kind
        );
    }
    assert_eq!(
        World::faulty("empty-access-token")
            .await
            .token()
            .await
            .text("access_token"),
        ""
    );
    let without = World::faulty("no-access-token").await.token().await.json();
    assert!(without.get("access_token").is_none());
    assert!(
        !World::faulty("non-ascii-access-token")
            .await
            .token()
            .await
            .text("access_token")
            .is_ascii()
    );
    let crlf = World::faulty("crlf-access-token")
        .await
        .token()
        .await
        .text("access_token");
    assert!(crlf.ends_with("\r\nX-Injected: yes"));
    for (fault, size) in [
        ("huge-access-token", 1_048_576),
        ("huge-access-token=20000", 20_000),
    ] {
        assert_eq!(
            World::faulty(fault)
                .await
                .token()
                .await
                .text("access_token")
                .len(),
            size
        );
    }
}

#[tokio::test]
async fn the_same_token_comes_again_or_never() {
    let world = World::faulty("same-token").await;
    let first = world.token().await.text("access_token");
    assert_eq!(
        world
            .token_with("&bypass_cache=true")
            .await
            .text("access_token"),
        first
    );
    world.sim.clear_faults();
    world.fault("fresh-token:1");
    let fresh = world.token().await.text("access_token");
    assert_ne!(fresh, first);
    assert_eq!(world.token().await.text("access_token"), fresh);
}

#[tokio::test]
async fn a_user_assigned_identity_is_not_echoed_or_another_is() {
    let client_id = Machine::default().user_identities[0].client_id.clone();
    let more = format!("&client_id={client_id}");
    let silent = World::faulty("no-echo").await.token_with(&more).await;
    assert!(silent.json().get("client_id").is_none());
    assert_ne!(
        World::faulty("other-echo")
            .await
            .token_with(&more)
            .await
            .text("client_id"),
        client_id
    );
    assert_eq!(
        World::faulty("other-echo=me")
            .await
            .token_with(&more)
            .await
            .text("client_id"),
        "me"
    );
    let unasked = World::faulty("other-echo=me").await.token().await;
    assert!(unasked.json().get("client_id").is_none());
}
