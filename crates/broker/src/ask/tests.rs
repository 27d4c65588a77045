use hyper::Request;

use super::*;

const PATH: &str = "/metadata/identity/oauth2/token";
const VERSION: &str = "api-version=2018-02-01";

fn head(method: &str, target: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn get(query: &str) -> Parts {
    head(
        "GET",
        &format!("{PATH}?{query}"),
        &[("host", "h"), ("metadata", "true")],
    )
}

fn ask(query: &str) -> Result<Ask, Malformed> {
    let head = get(&format!("{VERSION}&{query}"));
    check_frame(&head, "GET")?;
    Ask::parse(check_metadata(&head)?, Cloud::Public)
}

fn resource(query: &str) -> String {
    ask(query).unwrap().resource.to_string()
}

#[test]
fn b01_every_version_in_use_is_accepted() {
    for version in [
        "2018-02-01",
        "2019-08-01",
        "2019-08-15",
        "2019-11-01",
        "2020-06-01",
        "2021-02-01",
    ] {
        assert!(
            check_metadata(&get(&format!("api-version={version}"))).is_ok(),
            "{version}"
        );
    }
}

#[test]
fn b02_b03_metadata_must_be_asked_for_directly() {
    let with = |headers: &[(&str, &str)]| {
        check_metadata(&head("GET", &format!("{PATH}?{VERSION}"), headers)).map(drop)
    };
    assert!(with(&[("Metadata", "True")]).is_ok());
    for headers in [
        &[][..],
        &[("metadata", "false")],
        &[("metadata", "")],
        &[("metadata", "true"), ("metadata", "true")],
    ] {
        let error = with(headers).unwrap_err();
        assert_eq!(error.to_string(), "Required metadata header not specified");
    }
    assert!(matches!(
        with(&[("metadata", "true"), ("x-forwarded-for", "")]),
        Err(Malformed::Forwarded)
    ));
}

#[test]
fn b04_an_unknown_version_is_refused() {
    for query in [
        "",
        "api-version",
        "api-version=",
        "api-version=2018-02-02",
        "api-version=2018-02-01%20",
    ] {
        assert!(
            matches!(check_metadata(&get(query)), Err(Malformed::ApiVersion)),
            "{query}"
        );
    }
}

#[test]
fn b05_b06_a_resource_is_named_once() {
    for query in ["", "resource", "resource=", "Resource=https://x"] {
        assert!(matches!(ask(query), Err(Malformed::NoResource)), "{query}");
    }
    assert!(matches!(
        ask("resource=https://x&resource=https://x"),
        Err(Malformed::Repeated("resource"))
    ));
    assert!(matches!(
        ask("resource=https://x&r%65source=https://y"),
        Err(Malformed::Repeated("resource"))
    ));
    assert!(matches!(
        ask("resource=https://x&api-version=2018-02-01"),
        Err(Malformed::Repeated("api-version"))
    ));
}

#[test]
fn b07_one_identity_at_most() {
    let id = "11111111-2222-3333-4444-555555555555";
    let ask = |query: &str| ask(&format!("resource=https://x&{query}"));
    assert_eq!(
        ask(&format!("client_id={id}")).unwrap().identity,
        Some(Identity::client_id(id).unwrap())
    );
    let arm = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/n";
    for name in ["msi_res_id", "mi_res_id"] {
        assert_eq!(
            ask(&format!("{name}={arm}")).unwrap().identity,
            Some(Identity::resource_id(arm).unwrap())
        );
    }
    assert!(matches!(
        ask(&format!("client_id={id}&object_id={id}")),
        Err(Malformed::Selectors)
    ));
    assert!(matches!(
        ask(&format!("msi_res_id={arm}&mi_res_id={arm}")),
        Err(Malformed::Repeated(_))
    ));
    assert!(matches!(ask("client_id="), Err(Malformed::Identity(_))));
}

#[test]
fn b10_b13_the_resource_is_taken_byte_for_byte_after_one_decoding() {
    assert_eq!(
        resource("resource=https://vault.azure.net"),
        "https://vault.azure.net"
    );
    assert_eq!(
        resource("resource=https%3A%2F%2Fvault.azure.net"),
        "https://vault.azure.net"
    );
    assert_eq!(
        resource("resource=https%3a%2f%2fvault.azure.net%2f"),
        "https://vault.azure.net/"
    );
    assert_eq!(
        resource("resource=https://VAULT.azure.net"),
        "https://VAULT.azure.net"
    );
    assert_eq!(resource("resource=https:%252F%252Fx"), "https:%2F%2Fx");
    assert_eq!(resource("resource=keyvault"), "https://vault.azure.net");
}

#[test]
fn odd_encodings_are_refused() {
    for query in [
        "resource=https://x%",
        "resource=https://x%4",
        "resource=https://x%zz",
        "resource=https://x%ff",
        "%=1",
    ] {
        assert!(matches!(ask(query), Err(Malformed::Query)), "{query}");
    }
    for query in [
        "resource=https://x%00",
        "resource=https://x%0a",
        "resource=https://x+y%20z",
        "resource=https://%d0%b0",
    ] {
        assert!(matches!(ask(query), Err(Malformed::Resource(_))), "{query}");
    }
    let long = format!("resource=https://x&{}", "a".repeat(MAX_QUERY));
    assert!(matches!(ask(&long), Err(Malformed::Query)));
}

#[test]
fn b23_what_means_nothing_to_us_is_ignored() {
    assert_eq!(
        resource("resource=https://x&xms_cc=cp1&authority=a&bypass_cache=true&x=1&x=2&&"),
        "https://x"
    );
}

#[test]
fn b08_b11_a_request_is_a_get_without_a_body() {
    let check = |method, headers: &[_]| check_frame(&head(method, PATH, headers), "GET");
    assert!(
        check(
            "GET",
            &[
                ("host", "h"),
                (
                    "content-type",
                    "application/x-www-form-urlencoded;charset=utf-8"
                )
            ]
        )
        .is_ok()
    );
    assert!(check("GET", &[("host", "h"), ("content-length", "0")]).is_ok());
    for method in ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"] {
        assert!(
            matches!(
                check(method, &[("host", "h")]),
                Err(Malformed::Method("GET"))
            ),
            "{method}"
        );
    }
    assert!(matches!(
        check("GET", &[("host", "h"), ("content-length", "1")]),
        Err(Malformed::Body)
    ));
    assert!(matches!(
        check("GET", &[("host", "h"), ("transfer-encoding", "chunked")]),
        Err(Malformed::Body)
    ));
    assert!(matches!(check("GET", &[]), Err(Malformed::Host)));
    assert!(matches!(
        check("GET", &[("host", "a"), ("host", "b")]),
        Err(Malformed::Host)
    ));
}

#[test]
fn older_http_is_refused() {
    let mut head = get(VERSION);
    head.version = Version::HTTP_10;
    assert!(matches!(check_frame(&head, "GET"), Err(Malformed::Version)));
}
