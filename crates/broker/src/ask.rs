//! What a request asks for, read from its target and headers alone.
//!
//! Strict where Microsoft's services are strict: these rules keep a browser, a proxy or a confused
//! program from getting a token that it did not mean to ask for.

use std::borrow::Cow;

use arcbroker_client::wire::ENDPOINT_PROTOCOL;
use arcbroker_policy::{Cloud, Identity, IdentityError, Resource, ResourceError};
use hyper::Version;
use hyper::header::{self, HeaderMap};
use hyper::http::request::Parts;
use percent_encoding::percent_decode_str;

use crate::digest::Digest;
use crate::slot::Wish;

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

/// Those of App Service in which a secret is sent as it is here.
const APP_SERVICE_VERSIONS: &[&str] = &["2019-08-01", "2025-03-30"];

/// What to use instead of another one of App Service.
pub const NEWEST_APP_SERVICE_VERSIONS: [&str; 1] = ["2019-08-01"];

/// What to use instead of an api-version that is not known.
pub const NEWEST_VERSIONS: [&str; 3] = ["2021-02-01", "2020-06-01", "2019-11-01"];

/// In whose words a token is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Dialect {
    /// Those of IMDS and HIMDS.
    Metadata,
    /// Those of App Service, with the secret checked already.
    AppService,
}

/// A request for a token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ask {
    /// Whose token; `None` for that of the configuration.
    pub identity: Option<Identity>,
    /// For what.
    pub resource: Resource,
    /// What is wrong with the token that it has.
    pub wish: Wish,
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
    /// Another method than the one that the path is served with.
    #[error("only {0} is served here")]
    Method(&'static str),
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
    /// Another version, or none.
    #[error("api-version {} of App Service is served here, and the request has another one or none", NEWEST_APP_SERVICE_VERSIONS.join(" "))]
    AppServiceVersion,
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
    /// Not a digest.
    #[error(
        "`token_sha256_to_refresh` is not a SHA-256: give the 64 hex digits of the digest of the token that was refused"
    )]
    Digest,
    /// A parameter that must be there.
    #[error("the parameter `{0}` is missing")]
    Missing(&'static str),
    /// A parameter with a value that means nothing.
    #[error("the parameter `{0}` has a value that it cannot have")]
    Value(&'static str),
    /// A parameter that is not known here.
    #[error("there is no parameter `{0}` here")]
    Unknown(String),
    /// No upgrade, or another one.
    #[error("this path is for an upgrade to {ENDPOINT_PROTOCOL}: `arcbroker exec` asks for it")]
    Upgrade,
    /// Not an identity.
    #[error("the identity: {0}")]
    Identity(#[from] IdentityError),
}

/// What holds for every request on every socket.
///
/// # Errors
///
/// [`Malformed`]; the connection cannot be trusted any more then.
pub fn check_frame(head: &Parts, method: &'static str) -> Result<(), Malformed> {
    if head.version != Version::HTTP_11 {
        return Err(Malformed::Version);
    }
    if head.headers.get_all(header::HOST).iter().count() != 1 {
        return Err(Malformed::Host);
    }
    if head.method != method {
        return Err(Malformed::Method(method));
    }
    let lengths = head.headers.get_all(header::CONTENT_LENGTH);
    if head.headers.contains_key(header::TRANSFER_ENCODING)
        || lengths.iter().any(|length| length != "0")
    {
        return Err(Malformed::Body);
    }
    Ok(())
}

/// The resource that an administrator names, or none.
///
/// # Errors
///
/// [`Malformed`].
pub fn named_resource(head: &Parts, cloud: Cloud) -> Result<Option<Resource>, Malformed> {
    let query = head.uri.query().unwrap_or_default();
    let parameters = Parameters::parse(query, Dialect::Metadata)?;
    let named = parameters
        .resource
        .map(|text| Resource::parse(&text, cloud));
    Ok(named.transpose()?)
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
    let query = head.uri.query().unwrap_or_default();
    Parameters::parse(query, Dialect::Metadata)?.demand_version(API_VERSIONS, Malformed::ApiVersion)
}

impl Dialect {
    /// The parameters of a request in these words.
    ///
    /// # Errors
    ///
    /// [`Malformed`].
    pub fn parameters(self, head: &Parts) -> Result<Parameters<'_>, Malformed> {
        match self {
            Self::Metadata => check_metadata(head),
            Self::AppService => {
                let parameters = Parameters::parse(head.uri.query().unwrap_or_default(), self)?;
                parameters.demand_version(APP_SERVICE_VERSIONS, Malformed::AppServiceVersion)
            }
        }
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
        let wish = Wish {
            not: match parameters.refused {
                Some(text) => Some(Digest::parse(&text).ok_or(Malformed::Digest)?),
                None => None,
            },
            bypass: parameters.bypass.as_deref() == Some("true"),
        };
        Ok(Self {
            identity,
            resource,
            wish,
        })
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
    refused: Option<Cow<'q, str>>,
    bypass: Option<Cow<'q, str>>,
}

impl<'q> Parameters<'q> {
    fn demand_version(self, known: &[&str], otherwise: Malformed) -> Result<Self, Malformed> {
        let version = self.api_version.as_deref();
        if version.is_some_and(|version| known.contains(&version)) {
            Ok(self)
        } else {
            Err(otherwise)
        }
    }

    fn parse(query: &'q str, dialect: Dialect) -> Result<Self, Malformed> {
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
                "principal_id" if dialect == Dialect::AppService => {
                    (&mut found.object_id, "object_id")
                }
                // IMDS knows the one, SDKs for App Service send the other.
                "msi_res_id" | "mi_res_id" => (&mut found.resource_id, "msi_res_id"),
                "token_sha256_to_refresh" => (&mut found.refused, "token_sha256_to_refresh"),
                "bypass_cache" => (&mut found.bypass, "bypass_cache"),
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
pub(crate) fn decode(text: &str) -> Result<Cow<'_, str>, Malformed> {
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
mod tests;
