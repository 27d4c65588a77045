//! An endpoint of its own for one program: App Service's way to ask for tokens, on a loopback address.
//!
//! Whoever can reach the address may ask; an answer gets who has the secret, is the user who
//! registered, and is no browser's page. Of the secret only its digest is kept, so that comparing takes
//! the same time whatever is compared.

use std::net::SocketAddr;

use hyper::header::{self, HeaderMap};
use hyper::http::request::Parts;

use crate::client_end::ClientEnd;
use crate::digest::Digest;
use crate::loopback::Loopback;
use crate::registrant::Registrant;
use crate::stray::Stray;

/// Where SDKs that take it for App Service ask.
pub const APP_SERVICE_PATH: &str = "/msi/token";
/// The header with the secret.
const SECRET_HEADER: &str = "x-identity-header";

/// An endpoint that is served.
#[derive(Debug)]
pub struct Endpoint {
    /// What systemd keeps it under.
    pub name: String,
    /// Where it listens.
    pub loopback: Loopback,
    /// Of the secret.
    pub secret: Digest,
    /// Whom it was made for.
    pub registrant: Registrant,
}

/// What a request of the program itself is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Door<'h> {
    /// A token, in the words of App Service.
    AppService,
    /// This path, as on the socket.
    Metadata(&'h str),
}

impl Endpoint {
    /// What a request is for, once it is sure whose it is.
    ///
    /// # Errors
    ///
    /// Why it is not the program's own.
    pub fn examine<'h>(&self, head: &'h Parts, end: ClientEnd) -> Result<Door<'h>, Stray> {
        let door = examine(head, self.loopback.address(), self.secret)?;
        self.registrant.expects(end)?;
        Ok(door)
    }
}

fn examine(head: &Parts, address: SocketAddr, secret: Digest) -> Result<Door<'_>, Stray> {
    let headers = &head.headers;
    if head.uri.authority().is_some() || !is_addressed(headers, address) {
        return Err(Stray::Host);
    }
    let is_of_a_page = |name: &header::HeaderName| {
        *name == header::ORIGIN || name.as_str().starts_with("sec-fetch-")
    };
    if headers.keys().any(is_of_a_page) {
        return Err(Stray::Browser);
    }
    if headers.contains_key("x-forwarded-for") {
        return Err(Stray::Proxy);
    }
    let path = head.uri.path();
    if has_secret(headers, secret) {
        let is_app_service = path.strip_suffix('/').unwrap_or(path) == APP_SERVICE_PATH;
        return Ok(if is_app_service {
            Door::AppService
        } else {
            Door::Metadata(path)
        });
    }
    // For programs that can be given an address and no header.
    let rest = path.strip_prefix('/').unwrap_or(path);
    let (first, _) = rest.split_once('/').ok_or(Stray::Secret)?;
    if Digest::of(first.as_bytes()) != secret {
        return Err(Stray::Secret);
    }
    rest.get(first.len()..)
        .map(Door::Metadata)
        .ok_or(Stray::Secret)
}

/// Whether the one Host is this address: a page whose name leads here says its own name.
fn is_addressed(headers: &HeaderMap, address: SocketAddr) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let port = address.port();
    let names = [
        address.to_string(),
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        format!("[::1]:{port}"),
    ];
    names.iter().any(|name| host == name)
}

fn has_secret(headers: &HeaderMap, secret: Digest) -> bool {
    let mut values = headers.get_all(SECRET_HEADER).iter();
    let first = values
        .next()
        .is_some_and(|value| Digest::of(value.as_bytes()) == secret);
    first && values.next().is_none()
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    const SECRET: &str = "5ec2e7";

    fn examined(target: &str, headers: &[(&str, &str)]) -> Result<String, Stray> {
        let mut request = Request::get(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let address = "127.0.0.1:4141".parse().unwrap();
        let door = examine(&head, address, Digest::of(SECRET.as_bytes()))?;
        Ok(match door {
            Door::AppService => "app service".to_owned(),
            Door::Metadata(path) => path.to_owned(),
        })
    }

    const HOST: (&str, &str) = ("Host", "127.0.0.1:4141");
    const WITH: (&str, &str) = ("X-IDENTITY-HEADER", SECRET);

    #[test]
    fn a01_the_secret_opens_as_a_header_or_as_the_first_part_of_the_path() {
        for (target, headers, expected) in [
            ("/msi/token?resource=r", vec![HOST, WITH], Ok("app service")),
            ("/msi/token/", vec![HOST, WITH], Ok("app service")),
            (
                "/metadata/instance",
                vec![HOST, WITH],
                Ok("/metadata/instance"),
            ),
            (
                "/5ec2e7/metadata/identity/oauth2/token?a=b",
                vec![HOST],
                Ok("/metadata/identity/oauth2/token"),
            ),
            ("/5ec2e7/", vec![HOST], Ok("/")),
            ("/5ec2e7", vec![HOST], Err(Stray::Secret)),
            ("/", vec![HOST], Err(Stray::Secret)),
            ("/msi/token", vec![HOST], Err(Stray::Secret)),
            (
                "/msi/token",
                vec![HOST, ("X-IDENTITY-HEADER", "5ec2e8")],
                Err(Stray::Secret),
            ),
            (
                "/msi/token",
                vec![HOST, ("X-IDENTITY-HEADER", "")],
                Err(Stray::Secret),
            ),
            (
                "/msi/token",
                vec![HOST, ("X-IDENTITY-HEADER", "5EC2E7")],
                Err(Stray::Secret),
            ),
            ("/msi/token", vec![HOST, WITH, WITH], Err(Stray::Secret)),
            ("/5EC2E7/metadata/instance", vec![HOST], Err(Stray::Secret)),
            ("//5ec2e7/metadata/instance", vec![HOST], Err(Stray::Secret)),
        ] {
            assert_eq!(
                examined(target, &headers),
                expected.map(str::to_owned),
                "{target} {headers:?}"
            );
        }
    }

    #[test]
    fn a08_only_the_address_itself_is_a_host() {
        for host in ["127.0.0.1:4141", "localhost:4141", "[::1]:4141"] {
            assert!(
                examined("/msi/token", &[("Host", host), WITH]).is_ok(),
                "{host}"
            );
        }
        for host in [
            "127.0.0.1",
            "127.0.0.1:4142",
            "evil.example:4141",
            "LOCALHOST:4141",
            "",
        ] {
            let refused = examined("/msi/token", &[("Host", host), WITH]);
            assert_eq!(refused, Err(Stray::Host), "{host}");
        }
        assert_eq!(examined("/msi/token", &[WITH]), Err(Stray::Host));
        assert_eq!(
            examined("/msi/token", &[HOST, HOST, WITH]),
            Err(Stray::Host)
        );
        let whole = examined("http://127.0.0.1:4141/msi/token", &[HOST, WITH]);
        assert_eq!(whole, Err(Stray::Host), "as a proxy is asked");
    }

    #[test]
    fn t10_a_page_and_a_proxy_are_known_by_their_headers_whatever_else_is_right() {
        for (name, stray) in [
            ("Origin", Stray::Browser),
            ("Sec-Fetch-Site", Stray::Browser),
            ("Sec-Fetch-Mode", Stray::Browser),
            ("X-Forwarded-For", Stray::Proxy),
        ] {
            let refused = examined("/msi/token", &[HOST, WITH, (name, "null")]);
            assert_eq!(refused, Err(stray), "{name}");
        }
    }
}
