//! One request over the socket: within a deadline, with a bounded answer, typed when it fails.

use std::{
    error::Error as StdError, io, iter, os::unix::ffi::OsStrExt, path::Path, sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body as _, Incoming},
    header::{HOST, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT},
};
use hyper_util::{
    client::legacy::{Client as HttpClient, Error as HttpError},
    rt::{TokioExecutor, TokioIo},
};
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use zeroize::Zeroizing;

use crate::{
    Error,
    connect::{Connector, Fault, Owner},
    wire::{ACCESS_DENIED, ErrorAnswer, MAX_ANSWER},
};

/// The way to one socket.
#[derive(Clone, Debug)]
pub(crate) struct Transport {
    path: Arc<Path>,
    deadline: Duration,
    owner: Option<Owner>,
    /// Keeps connections open for the next request.
    kept: HttpClient<Connector, Empty<Bytes>>,
    /// Makes a connection for each request: for the second try, which must not meet another
    /// connection of a broker that has gone.
    fresh: HttpClient<Connector, Empty<Bytes>>,
}

impl Transport {
    pub(crate) fn new(path: Arc<Path>, owner: Option<Owner>, deadline: Duration) -> Self {
        let connector = Connector {
            path: Arc::clone(&path),
            owner,
            patience: deadline,
        };
        let mut http = HttpClient::builder(TokioExecutor::new());
        http.pool_idle_timeout(KEEP)
            .http1_max_buf_size(MAX_HEAD)
            .retry_canceled_requests(false);
        Self {
            path,
            deadline,
            owner,
            kept: http.build(connector.clone()),
            fresh: http.pool_max_idle_per_host(0).build(connector),
        }
    }

    pub(crate) fn with_owner(&self, owner: Owner) -> Self {
        Self::new(Arc::clone(&self.path), Some(owner), self.deadline)
    }

    pub(crate) fn with_deadline(&self, deadline: Duration) -> Self {
        Self::new(Arc::clone(&self.path), self.owner, deadline)
    }

    /// `target` is a path and query of visible ASCII.
    pub(crate) async fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, Error> {
        self.send(&Method::GET, target).await
    }

    /// The same for a command; like a GET, it may arrive twice.
    pub(crate) async fn post<T: DeserializeOwned>(&self, target: &str) -> Result<T, Error> {
        self.send(&Method::POST, target).await
    }

    /// The same for a command that must not arrive twice.
    pub(crate) async fn post_once<T: DeserializeOwned>(&self, target: &str) -> Result<T, Error> {
        self.send_once(&Method::POST, target).await
    }

    /// The same for what is to end; a second time, there is nothing to end.
    pub(crate) async fn delete<T: DeserializeOwned>(&self, target: &str) -> Result<T, Error> {
        self.send_once(&Method::DELETE, target).await
    }

    async fn send_once<T: DeserializeOwned>(
        &self,
        method: &Method,
        target: &str,
    ) -> Result<T, Error> {
        let exchange = async {
            let uri = self.address(target)?;
            let response = self.fresh.request(request(method, uri)).await;
            Answer::read(response.map_err(|error| self.failure(&error))?).await
        };
        self.within_deadline(exchange).await?.decode()
    }

    async fn send<T: DeserializeOwned>(&self, method: &Method, target: &str) -> Result<T, Error> {
        let exchange = self.exchange(method, target);
        self.within_deadline(exchange).await?.decode()
    }

    async fn exchange(&self, method: &Method, target: &str) -> Result<Answer, Error> {
        let uri = self.address(target)?;
        let response = match self.kept.request(request(method, uri.clone())).await {
            Err(error) if hung_up(&error) => self.fresh.request(request(method, uri)).await,
            done => done,
        };
        Answer::read(response.map_err(|error| self.failure(&error))?).await
    }

    /// A connection of its own.
    pub(crate) async fn connect(&self) -> Result<TokioIo<UnixStream>, Error> {
        let connector = Connector {
            path: Arc::clone(&self.path),
            owner: self.owner,
            patience: self.deadline,
        };
        let connected = connector.connect().await;
        connected.map_err(|fault| fault.to_error(&self.path))
    }

    /// Lets all of it take no longer than a call may.
    pub(crate) async fn within_deadline<T>(
        &self,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        tokio::time::timeout(self.deadline, call)
            .await
            .unwrap_or(Err(Error::TooSlow(self.deadline)))
    }

    /// The connection ended before there was an answer.
    pub(crate) fn hung_up(&self) -> Error {
        Error::Unreachable {
            path: self.path.to_path_buf(),
            source: io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "it closed the connection without an answer",
            ),
        }
    }

    fn address(&self, target: &str) -> Result<hyper::Uri, Error> {
        // hyperlocal panics on what hyper cannot parse, so what could make it so is kept out.
        let name = self.path.as_os_str().as_bytes();
        if name.is_empty() || name.len() > MAX_PATH {
            return Err(Error::Unreachable {
                path: self.path.to_path_buf(),
                source: io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "a socket's path has 1 to 107 bytes",
                ),
            });
        }
        Ok(hyperlocal::Uri::new(&self.path, target).into())
    }

    fn failure(&self, error: &HttpError) -> Error {
        if let Some(fault) = causes(error).find_map(|cause| cause.downcast_ref::<Fault>()) {
            return fault.to_error(&self.path);
        }
        if hung_up(error) {
            return self.hung_up();
        }
        Error::Protocol("it is not HTTP")
    }
}

/// A whole answer.
pub(crate) struct Answer {
    status: StatusCode,
    retry_after: Option<Duration>,
    body: Zeroizing<Vec<u8>>,
}

impl Answer {
    pub(crate) async fn read(response: Response<Incoming>) -> Result<Self, Error> {
        let (head, mut body) = response.into_parts();
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if announced > MAX_ANSWER {
            return Err(Error::TooLarge);
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(announced));
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Error::Protocol("it ends before its end"))?;
            let data = frame.data_ref().map_or(&[][..], |data| data);
            if bytes.len() + data.len() > MAX_ANSWER {
                return Err(Error::TooLarge);
            }
            bytes.extend_from_slice(data);
        }
        Ok(Self {
            status: head.status,
            retry_after: retry_after(&head.headers),
            body: bytes,
        })
    }

    pub(crate) fn decode<T: DeserializeOwned>(self) -> Result<T, Error> {
        match self.status.as_u16() {
            200 => serde_json::from_slice(&self.body)
                .map_err(|_| Error::Protocol("its content is not what was asked for")),
            400..600 => Err(self.refusal()),
            _ => Err(Error::Protocol(
                "it has a status that the broker does not use",
            )),
        }
    }

    fn refusal(self) -> Error {
        let (error, description, request_id) =
            match serde_json::from_slice::<ErrorAnswer>(&self.body) {
                Ok(answer) => (answer.error, answer.error_description, answer.request_id),
                Err(_) => (
                    String::new(),
                    format!("status {} without a reason", self.status.as_u16()),
                    None,
                ),
            };
        match self.status {
            StatusCode::FORBIDDEN if error == ACCESS_DENIED => Error::Denied {
                description,
                request_id,
            },
            StatusCode::FORBIDDEN => Error::Refused {
                description,
                request_id,
            },
            StatusCode::TOO_MANY_REQUESTS => self.unavailable(description, request_id),
            status if status.is_server_error() => self.unavailable(description, request_id),
            _ => Error::BadRequest {
                description,
                request_id,
            },
        }
    }

    fn unavailable(&self, description: String, request_id: Option<String>) -> Error {
        Error::Unavailable {
            retry_after: self.retry_after,
            description,
            request_id,
        }
    }
}

pub(crate) fn request(method: &Method, uri: hyper::Uri) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.method_mut() = method.clone();
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    // The authority of the address is the encoded path of the socket: not a name to send.
    headers.insert(HOST, HeaderValue::from_static("localhost"));
    headers.insert("metadata", HeaderValue::from_static("true"));
    headers.insert(
        USER_AGENT,
        HeaderValue::from_static(concat!("arcbroker-client/", env!("CARGO_PKG_VERSION"))),
    );
    request
}

/// Seconds only: a date would be judged by two clocks. Clamped, so that no server can make a
/// client wait for ever, or not at all.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds = text.parse().unwrap_or(MAX_RETRY_AFTER);
    Some(Duration::from_secs(seconds.clamp(1, MAX_RETRY_AFTER)))
}

/// Whether the connection ended before there was an answer.
fn hung_up(error: &HttpError) -> bool {
    !error.is_connect()
        && causes(error).any(|cause| {
            if let Some(error) = cause.downcast_ref::<hyper::Error>() {
                return error.is_incomplete_message() || error.is_canceled() || error.is_closed();
            }
            cause.downcast_ref::<io::Error>().is_some_and(|error| {
                matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                )
            })
        })
}

fn causes<'a>(error: &'a HttpError) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    iter::successors(error.source(), |cause| (*cause).source())
}

/// How long an idle connection is kept.
const KEEP: Duration = Duration::from_secs(30);

/// Bytes of the longest head of an answer.
const MAX_HEAD: usize = 16 * 1024;

/// Bytes of the longest path that fits into a `sockaddr_un`.
const MAX_PATH: usize = 107;

/// Seconds.
const MAX_RETRY_AFTER: u64 = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_takes_seconds_and_is_clamped() {
        for (text, seconds) in [
            ("0", Some(1)),
            ("7", Some(7)),
            ("301", Some(300)),
            ("99999999999999999999999", Some(300)),
            ("", None),
            ("-1", None),
            ("+5", None),
            ("1.5", None),
            ("Fri, 31 Dec 1999 23:59:59 GMT", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(text));
            assert_eq!(
                retry_after(&headers),
                seconds.map(Duration::from_secs),
                "{text}"
            );
        }
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
