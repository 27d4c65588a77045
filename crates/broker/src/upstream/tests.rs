use arcbroker_policy::{Cloud, Resource};

use super::*;

fn answer(status: u16, retry_after: Option<&str>, body: &'static str) -> FetchError {
    let mut response = Response::builder().status(status);
    if let Some(value) = retry_after {
        response = response.header(RETRY_AFTER, value);
    }
    refusal(&response.body(Bytes::from_static(body.as_bytes())).unwrap()).into()
}

#[test]
fn the_request_names_exactly_what_is_asked_for() {
    let resource = Resource::parse("https://vault.azure.net", Cloud::Public).unwrap();
    let target = |identity: Identity| {
        let key = Key {
            identity,
            resource: resource.clone(),
        };
        target(&Wanted { key, bypass: false })
    };
    let plain = "/metadata/identity/oauth2/token?api-version=2020-06-01&resource=https%3A%2F%2Fvault.azure.net";
    assert_eq!(target(Identity::System), plain);
    let id = "resource-id:/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/n";
    assert!(
        target(id.parse().unwrap())
            .starts_with(&format!("{plain}&msi_res_id=%2Fsubscriptions%2Fs%2F")),
        "U13"
    );
}

#[test]
fn a_status_has_a_class() {
    for (status, class) in [
        (400, Class::Permanent),
        (403, Class::Refused),
        (404, Class::Refused),
        (405, Class::Permanent),
        (408, Class::Server),
        (410, Class::Upgrading),
        (429, Class::Throttled),
        (500, Class::Server),
        (503, Class::Server),
        (301, Class::Garbage),
        (204, Class::Garbage),
    ] {
        assert_eq!(answer(status, None, "").class, class, "{status}");
    }
    assert_eq!(
        answer(404, None, r#"{"error":"identity_not_found"}"#).class,
        Class::UnknownIdentity
    );
}

#[test]
fn t39_retry_after_is_clamped_and_only_seconds_count() {
    for (text, seconds) in [
        ("0", Some(1)),
        ("7", Some(7)),
        (" 7 ", Some(7)),
        ("301", Some(300)),
        ("1000000000000", Some(300)),
        ("99999999999999999999999", Some(300)),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
    ] {
        assert_eq!(
            answer(503, Some(text), "").retry_after,
            seconds.map(Duration::from_secs),
            "{text}"
        );
    }
    assert_eq!(answer(429, None, "").retry_after, Some(THROTTLED));
    assert_eq!(answer(500, None, "").retry_after, None);
}

#[test]
fn upstreams_own_words_are_kept_apart_from_ours() {
    let error = answer(
        400,
        None,
        r#"{"error":"invalid_resource","error_description":"AADSTS500011"}"#,
    );
    assert_eq!(
        error.upstream.as_deref(),
        Some("invalid_resource: AADSTS500011")
    );
    assert_eq!(
        &*error.detail,
        "HIMDS answered 400 Bad Request: invalid_resource: AADSTS500011"
    );
}
