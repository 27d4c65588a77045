//! A connection to upstream: whether it is held by whom it should be, and one question at a time.
//!
//! No redirect is followed, and nothing is asked before it is known who will read it.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderValue};
use hyper::http::request::Builder;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::time::{sleep, timeout};

use crate::dial::{Connector, DialError, Opened, Owner};
use crate::owners::Owners;

/// How long an answer may take that needs no more than upstream itself.
pub const LOCAL: Duration = Duration::from_secs(10);
/// How long a token may take: upstream asks Entra, perhaps through a proxy.
pub const REMOTE: Duration = Duration::from_secs(30);

/// How long the listener may take to accept: only then it is known who it is.
const ACCEPT: Duration = Duration::from_secs(10);
/// Between two looks: twice as long each time, because a listener that is busy may be for long.
const ACCEPT_POLL: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(100));
/// Bytes of the longest response head.
const MAX_HEAD: usize = 16 * 1024;
/// Bytes of the longest response body; a token is a tenth of it.
const MAX_BODY: usize = 64 * 1024;

/// One connection.
pub struct Link {
    sender: SendRequest<Empty<Bytes>>,
    address: SocketAddr,
    owner: Owner,
}

impl Link {
    /// Connects, and waits until it is known that one of `owners` holds the other end: nobody else
    /// is told anything.
    ///
    /// # Errors
    ///
    /// [`DialError`].
    pub async fn dial(
        connector: &Connector,
        address: SocketAddr,
        owners: &Owners,
    ) -> Result<Self, DialError> {
        let link = Self::connect(connector, address).await?;
        let (mut pause, longest) = ACCEPT_POLL;
        let attested = async {
            loop {
                let attested = link.attest(owners);
                // It may be a user that was made, or made anew, since the names were looked up.
                let is_stranger = matches!(attested, Err(DialError::Owner { .. }));
                if is_stranger && owners.look_again().await {
                    continue;
                }
                if attested? {
                    return Ok(());
                }
                if link.sender.is_closed() {
                    return Err(DialError::Closed(address));
                }
                sleep(pause).await;
                pause = (2 * pause).min(longest);
            }
        };
        let limit = ACCEPT;
        timeout(limit, attested)
            .await
            .map_err(|_| DialError::Slow { address, limit })??;
        Ok(link)
    }

    /// Connects to what no process of this machine holds.
    ///
    /// # Errors
    ///
    /// [`DialError`].
    pub async fn connect(connector: &Connector, address: SocketAddr) -> Result<Self, DialError> {
        let Opened { stream, owner } = connector.open(address).await?;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|source| DialError::Http { address, source })?;
        // It ends with the sender; what goes wrong on it is told to the request that runs.
        tokio::spawn(async { connection.await.unwrap_or_default() });
        Ok(Self {
            sender,
            address,
            owner,
        })
    }

    /// Whether the other end is held by one of `owners`; false when nobody holds it (any more).
    ///
    /// # Errors
    ///
    /// When somebody else holds it, or the kernel does not say.
    pub fn attest(&self, owners: &Owners) -> Result<bool, DialError> {
        let address = self.address;
        match (self.owner)() {
            Ok(Some(uid)) if owners.contains(uid) => Ok(true),
            Ok(Some(uid)) => Err(DialError::Owner { address, uid }),
            Ok(None) => Ok(false),
            Err(source) => Err(DialError::UnknownOwner { address, source }),
        }
    }

    /// Whether another request may be sent.
    pub async fn is_open(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }

    /// Sends a GET with the headers that upstream wants, and reads the whole answer.
    ///
    /// # Errors
    ///
    /// `Slow` when no whole answer is there within `limit`, `TooLarge`, or `Http`.
    pub async fn get(
        &mut self,
        target: &str,
        authorization: Option<&HeaderValue>,
        limit: Duration,
    ) -> Result<Response<Bytes>, DialError> {
        let address = self.address;
        let http = |source| DialError::Http { address, source };
        let too_large = || DialError::TooLarge {
            address,
            limit: MAX_BODY,
        };
        let request = request(target, address, authorization);
        let exchange = async {
            let sent = self.sender.try_send_request(request).await;
            let (head, body) = sent
                .map_err(|mut error| match error.take_message() {
                    // It is given back, so no byte of it has left.
                    Some(_) => DialError::Closed(address),
                    None => http(error.into_error()),
                })?
                .into_parts();
            let body = Limited::new(body, MAX_BODY)
                .collect()
                .await
                .map_err(|error| {
                    if error.is::<LengthLimitError>() {
                        return too_large();
                    }
                    match error.downcast::<hyper::Error>() {
                        Ok(source) => http(*source),
                        Err(_) => too_large(),
                    }
                })?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        timeout(limit, exchange)
            .await
            .map_err(|_| DialError::Slow { address, limit })?
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

fn request(
    target: &str,
    address: SocketAddr,
    authorization: Option<&HeaderValue>,
) -> Request<Empty<Bytes>> {
    let mut request = Builder::new()
        .method(Method::GET)
        .uri(target)
        .header(header::HOST, host(address))
        .header(
            header::USER_AGENT,
            concat!("arcbroker/", env!("CARGO_PKG_VERSION")),
        )
        .header("metadata", "true")
        .body(Empty::new())
        // The target is made of constants and percent-encoded text: it always parses.
        .unwrap_or_default();
    if let Some(value) = authorization {
        request
            .headers_mut()
            .insert(header::AUTHORIZATION, value.clone());
    }
    request
}

/// The port of http is left out, as every client does.
fn host(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(v4) if v4.port() == 80 => v4.ip().to_string(),
        SocketAddr::V6(v6) if v6.port() == 80 => format!("[{}]", v6.ip()),
        _ => address.to_string(),
    }
}

#[cfg(test)]
mod tests;
