//! What a request asks for, read from its target and headers alone.
//!
//! Strict where Microsoft's services are strict: these rules keep a browser, a proxy or a confused
//! program from getting a token that it did not mean to ask for.

use std::borrow::Cow;

use arcbroker_policy::{Cloud, Identity, IdentityError, Resource, ResourceError};
use hyper::header::{self, HeaderMap};
use hyper::http::request::Parts;
use hyper::{Method, Version};
use percent_encoding::percent_decode_str;

/// Bytes of the longest query.
const MAX_QUERY: usize = 2048;

/// Every version of IMDS and HIMDS: what an SDK sends is accepted, a typing error is not.
const API_VERSIONS: &[&str] = &[
    "2017-03-01",
    "2017-04-02",
    "2017-08-01",
    "2017-10-01",
    "2017-12-01",
    "2018-02-01",
    "2018-04-02",
    "2018-10-01",
    "2019-02-01",
    "2019-03-11",
    "2019-04-30",
    "2019-06-01",
    "2019-06-04",
    "2019-08-01",
    "2019-08-15",
    "2019-11-01",
    "2020-06-01",
    "2020-07-15",
    "2020-09-01",
    "2020-10-01",
    "2020-12-01",
    "2021-01-01",
    "2021-02-01",
    "2021-03-01",
    "2021-05-01",
    "2021-10-01",
    "2021-11-01",
    "2021-11-15",
    "2021-12-13",
    "2023-07-01",
    "2023-11-15",
    "2024-03-15",
    "2024-07-17",
    "2025-04-07",
];

/// What to use instead of an api-version that is not known.
pub const NEWEST_VERSIONS: [&str; 3] = ["2021-02-01", "2020-06-01", "2019-11-01"];

/// A request for a token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ask {
    /// Whose token; `None` for that of the configuration.
    pub identity: Option<Identity>,
    /// For what.
    pub resource: Resource,
}

/// Why a request cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// HTTP/1.0 or older.
    #[error("only HTTP/1.1 is served here")]
    Version,
    /// No `Host`, or several.
    #[error("a request needs exactly one Host header")]
    Host,
    /// A body, or the promise of one.
    #[error("a request must not have a body")]
    Body,
    /// Not a GET.
    #[error("only GET is served here")]
    Method,
    /// It went through a proxy.
    #[error("a request with X-Forwarded-For has come through a proxy, and is refused")]
    Forwarded,
    /// The words are those of IMDS: SDKs look for them.
    #[error("Required metadata header not specified")]
    Metadata,
    /// The query is too long or not encoded as it should be.
    #[error("the query is longer than {MAX_QUERY} bytes or not percent-encoded UTF-8")]
    Query,
    /// One parameter, two values.
    #[error("the parameter `{0}` is given more than once")]
    Repeated(&'static str),
    /// The words are those of IMDS.
    #[error("Bad request. api-version is invalid or was not specified in the request. Supported are {}", NEWEST_VERSIONS.join(" "))]
    ApiVersion,
    /// No resource.
    #[error(
        "the parameter `resource` is missing: name the resource that the token is for, for example resource=https%3A%2F%2Fvault.azure.net"
    )]
    NoResource,
    /// Not a resource.
    #[error("`resource`: {0}")]
    Resource(#[from] ResourceError),
    /// Two ways to name an identity at once.
    #[error("`client_id`, `object_id` and `msi_res_id` exclude each other: give one of them")]
    Selectors,
    /// Not an identity.
    #[error("the identity: {0}")]
    Identity(#[from] IdentityError),
}

/// What holds for every request on every socket.
///
/// # Errors
///
/// [`Malformed`]; the connection cannot be trusted any more then.
pub fn check_frame(head: &Parts) -> Result<(), Malformed> {
    if head.version != Version::HTTP_11 {
        return Err(Malformed::Version);
    }
    if head.headers.get_all(header::HOST).iter().count() != 1 {
        return Err(Malformed::Host);
    }
    if head.method != Method::GET {
        return Err(Malformed::Method);
    }
    let lengths = head.headers.get_all(header::CONTENT_LENGTH);
    if head.headers.contains_key(header::TRANSFER_ENCODING)
        || lengths.iter().any(|length| length != "0")
    {
        return Err(Malformed::Body);
    }
    Ok(())
}

/// What holds for every request to the metadata paths: the parameters, if so.
///
/// # Errors
///
/// [`Malformed`].
pub fn check_metadata(head: &Parts) -> Result<Parameters<'_>, Malformed> {
    if head.headers.contains_key("x-forwarded-for") {
        return Err(Malformed::Forwarded);
    }
    if !asks_for_metadata(&head.headers) {
        return Err(Malformed::Metadata);
    }
    let parameters = Parameters::parse(head.uri.query().unwrap_or_default())?;
    let version = parameters.api_version.as_deref();
    if version.is_some_and(|version| API_VERSIONS.contains(&version)) {
        Ok(parameters)
    } else {
        Err(Malformed::ApiVersion)
    }
}

impl Ask {
    /// Reads the parameters of a request for a token.
    ///
    /// # Errors
    ///
    /// [`Malformed`].
    pub fn parse(parameters: Parameters<'_>, cloud: Cloud) -> Result<Self, Malformed> {
        let resource = parameters
            .resource
            .filter(|text| !text.is_empty())
            .ok_or(Malformed::NoResource)?;
        let resource = Resource::parse(&resource, cloud)?;
        let identity = match (
            parameters.client_id,
            parameters.object_id,
            parameters.resource_id,
        ) {
            (None, None, None) => None,
            (Some(id), None, None) => Some(Identity::client_id(&id)?),
            (None, Some(id), None) => Some(Identity::object_id(&id)?),
            (None, None, Some(id)) => Some(Identity::resource_id(&id)?),
            _ => return Err(Malformed::Selectors),
        };
        Ok(Self { identity, resource })
    }
}

/// `true` in any case, once: Microsoft's own samples differ in the case.
fn asks_for_metadata(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all("metadata").iter();
    let first = values
        .next()
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
    first && values.next().is_none()
}

/// The parameters that mean something to us, each at most once. Others are for other services.
#[derive(Debug, Default)]
pub struct Parameters<'q> {
    api_version: Option<Cow<'q, str>>,
    resource: Option<Cow<'q, str>>,
    client_id: Option<Cow<'q, str>>,
    object_id: Option<Cow<'q, str>>,
    resource_id: Option<Cow<'q, str>>,
}

impl<'q> Parameters<'q> {
    fn parse(query: &'q str) -> Result<Self, Malformed> {
        if query.len() > MAX_QUERY {
            return Err(Malformed::Query);
        }
        let mut found = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (value, name) = (decode(value)?, decode(name)?);
            let (slot, name) = match &*name {
                "api-version" => (&mut found.api_version, "api-version"),
                "resource" => (&mut found.resource, "resource"),
                "client_id" => (&mut found.client_id, "client_id"),
                "object_id" => (&mut found.object_id, "object_id"),
                // IMDS knows the one, SDKs for App Service send the other.
                "msi_res_id" | "mi_res_id" => (&mut found.resource_id, "msi_res_id"),
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return Err(Malformed::Repeated(name));
            }
        }
        Ok(found)
    }
}

/// One decoding, and only of what is encoded in full: a second reading must not find another text.
fn decode(text: &str) -> Result<Cow<'_, str>, Malformed> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let whole = |rest: &str| {
        rest.get(..2)
            .is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    if !text.split('%').skip(1).all(whole) {
        return Err(Malformed::Query);
    }
    percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| Malformed::Query)
}

#[cfg(test)]
mod tests {
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
        check_frame(&head)?;
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
        let check = |method, headers: &[_]| check_frame(&head(method, PATH, headers));
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
                matches!(check(method, &[("host", "h")]), Err(Malformed::Method)),
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
        assert!(matches!(check_frame(&head), Err(Malformed::Version)));
    }
}
