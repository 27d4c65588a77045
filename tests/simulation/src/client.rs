//! What clients ask, and what they are told.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use arcbroker_broker::peer::Peer;
use arcbroker_broker::reply::Body;
use arcbroker_broker::service::Service;
use arcbroker_client::wire::path;
use arcbroker_policy::Caller;
use hyper::body::Body as _;
use hyper::http::request::{Builder, Parts};
use hyper::{Method, Request, Response, Version};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use crate::keys::{FORBIDDEN, KEYS};

/// What a request is about.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    /// A token for a key, by the user who may have it.
    Token(usize, Wish),
    /// A token that the user may not have.
    Forbidden(usize),
    /// Not a request that can be judged.
    Malformed(usize),
    /// The instance metadata, or the identity info.
    Document(bool),
    /// How the broker sees the caller.
    Whoami,
    /// Health in one word.
    Health,
}

/// What a client wants besides a token.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Wish {
    /// Nothing.
    Nothing,
    /// Not the token that it has: a resource refused it.
    Another,
    /// One that upstream has not kept.
    Bypass,
}

/// A request that is about to be made.
#[derive(Clone, Debug)]
pub struct Order {
    /// Its number.
    pub number: u64,
    /// What it is about.
    pub kind: Kind,
    /// After this time the client goes away.
    pub patience: Option<Duration>,
    /// The SHA-256 of the token that it has, as hex digits.
    pub has: Option<String>,
}

/// An answer as its client reads it.
#[derive(Debug, Default)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The `error` of a refusal.
    pub error: String,
    /// The token of a 200.
    pub token: Option<TokenReply>,
    /// Whether the document is whole.
    pub is_json: bool,
}

/// The parts of a token's answer that are checked.
#[derive(Debug, Deserialize)]
pub struct TokenReply {
    /// The token.
    pub access_token: String,
    /// Seconds.
    pub expires_in: String,
    /// The resource.
    pub resource: String,
    /// The client id of a user-assigned identity.
    #[serde(default)]
    pub client_id: Option<String>,
}

#[derive(Deserialize)]
struct ErrorReply {
    error: String,
}

/// Malformed requests and the status that each gets.
pub const MALFORMED: [u16; 11] = [400, 405, 400, 400, 400, 400, 400, 400, 400, 400, 405];

impl Order {
    /// Asks, and reads the answer.
    pub async fn ask(&self, service: &Service) -> Reply {
        let peer = peer(self.uid());
        let response = service.answer(&peer, &self.head()).await;
        read(response, matches!(self.kind, Kind::Token(..))).await
    }

    fn uid(&self) -> u32 {
        match self.kind {
            Kind::Token(key, _) => KEYS[key].uid,
            Kind::Forbidden(which) => FORBIDDEN[which].0,
            _ => KEYS[0].uid,
        }
    }

    fn head(&self) -> Parts {
        match self.kind {
            Kind::Token(key, wish) => {
                let mut target = target(KEYS[key].client_id, KEYS[key].resource);
                match (wish, &self.has) {
                    (Wish::Another, Some(digest)) => {
                        target += &format!("&xms_cc=cp1&token_sha256_to_refresh={digest}");
                    }
                    (Wish::Bypass, _) => target += "&bypass_cache=true",
                    _ => {}
                }
                parts(metadata(&target))
            }
            Kind::Forbidden(which) => {
                let (_, client_id, resource) = FORBIDDEN[which];
                parts(metadata(&target(client_id, resource)))
            }
            Kind::Malformed(which) => parts(malformed(which)),
            Kind::Document(info) => {
                let path = if info {
                    path::IDENTITY_INFO
                } else {
                    path::INSTANCE
                };
                parts(metadata(&format!("{path}?api-version=2020-06-01")))
            }
            Kind::Whoami => parts(plain(path::WHOAMI)),
            Kind::Health => parts(plain(path::HEALTH)),
        }
    }
}

fn peer(uid: u32) -> Peer {
    Peer {
        caller: Caller::new(uid, uid, vec![uid]),
        user: None,
        pid: None,
        invocation: None,
        endpoint: None,
    }
}

fn target(client_id: Option<&str>, resource: &str) -> String {
    let resource = utf8_percent_encode(resource, NON_ALPHANUMERIC);
    let selector = client_id.map_or_else(String::new, |id| format!("&client_id={id}"));
    format!(
        "{}?api-version=2020-06-01&resource={resource}{selector}",
        path::TOKEN
    )
}

fn plain(target: &str) -> Builder {
    Request::builder().uri(target).header("host", "localhost")
}

fn metadata(target: &str) -> Builder {
    plain(target).header("metadata", "true")
}

fn malformed(which: usize) -> Builder {
    let good = target(None, KEYS[0].resource);
    match which {
        0 => plain(&good),
        1 => metadata(&good).method(Method::POST),
        2 => metadata(&good).version(Version::HTTP_10),
        3 => metadata(&good).header("content-length", "5"),
        4 => metadata(&good).header("host", "elsewhere"),
        5 => metadata(&good).header("x-forwarded-for", "10.0.0.1"),
        6 => metadata(&format!(
            "{good}&resource=https%3A%2F%2Fgraph.microsoft.com"
        )),
        7 => metadata(&good.replace("2020-06-01", "2020-06-31")),
        8 => metadata(&format!("{good}%2F.default")),
        9 => metadata(&format!("{}?api-version=2020-06-01", path::TOKEN)),
        _ => metadata(&good).method(Method::HEAD),
    }
}

fn parts(request: Builder) -> Parts {
    request
        .body(())
        .expect("it is made of constants")
        .into_parts()
        .0
}

async fn read(response: Response<Body>, is_token: bool) -> Reply {
    let (head, mut body) = response.into_parts();
    let mut text = Vec::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let Ok(frame) = frame;
        text.extend_from_slice(&frame.into_data().unwrap_or_default());
    }
    let mut reply = Reply {
        status: head.status.as_u16(),
        ..Reply::default()
    };
    if reply.status != 200 {
        let error = serde_json::from_slice::<ErrorReply>(&text);
        reply.is_json = error.is_ok();
        reply.error = error.map(|error| error.error).unwrap_or_default();
    } else if is_token {
        reply.token = serde_json::from_slice(&text).ok();
        reply.is_json = reply.token.is_some();
    } else {
        reply.is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&text).is_ok();
    }
    reply
}
