//! A connection to a service on loopback, and whether it is held by whom it should be.
//!
//! No proxy, no name lookup, no redirect: the address is a literal from the configuration.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderValue};
use hyper::http::request::Builder;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::owner::owner;

const CONNECT: Duration = Duration::from_secs(1);
/// How long the listener may take to accept: only then it is known who it is.
const ACCEPT: Duration = Duration::from_secs(10);
const ACCEPT_POLL: Duration = Duration::from_millis(1);
/// Bytes of the longest response head.
const MAX_HEAD: usize = 16 * 1024;
/// Bytes of the longest response body; a token is a tenth of it.
const MAX_BODY: usize = 64 * 1024;

/// One connection.
#[derive(Debug)]
pub struct Link {
    sender: SendRequest<Empty<Bytes>>,
    ours: SocketAddr,
    theirs: SocketAddr,
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Nobody listens.
    #[error("nobody listens on {0}: is himdsd running?")]
    Down(SocketAddr),
    /// The kernel connected us to ourselves: nobody listens on a port of the ephemeral range.
    #[error("nobody listens on {0}: the connection came back to the broker itself")]
    ToItself(SocketAddr),
    /// Accepted and closed.
    #[error("{0} closed the connection before it was asked anything")]
    Closed(SocketAddr),
    /// Somebody else holds the port.
    #[error(
        "{address} is held by uid {uid}, which is neither root nor himds; nothing was sent to it"
    )]
    Owner {
        /// The endpoint.
        address: SocketAddr,
        /// Who holds it.
        uid: u32,
    },
    /// Who holds the port cannot be known.
    #[error("who holds {address} cannot be told: {source}")]
    UnknownOwner {
        /// The endpoint.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Connecting failed otherwise.
    #[error("{address} cannot be reached: {source}")]
    Connect {
        /// The endpoint.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// It took too long.
    #[error("{address} gave no answer within {} s", .limit.as_secs())]
    Slow {
        /// The endpoint.
        address: SocketAddr,
        /// The limit that was passed.
        limit: Duration,
    },
    /// Not HTTP, or broken off.
    #[error("{address} broke off or did not speak HTTP: {source}")]
    Http {
        /// The endpoint.
        address: SocketAddr,
        /// Why.
        source: hyper::Error,
    },
    /// The body is longer than any answer can be.
    #[error("{0} sent more than {MAX_BODY} bytes")]
    TooLarge(SocketAddr),
}

impl Link {
    /// Connects, and waits until it is known that one of `owners` holds the other end: nobody else
    /// is told anything.
    ///
    /// # Errors
    ///
    /// [`DialError`].
    pub async fn dial(address: SocketAddr, owners: &[u32]) -> Result<Self, DialError> {
        let link = Self::connect(address).await?;
        let attested = async {
            while !link.attest(owners)? {
                if link.sender.is_closed() {
                    return Err(DialError::Closed(address));
                }
                sleep(ACCEPT_POLL).await;
            }
            Ok(())
        };
        let limit = ACCEPT;
        timeout(limit, attested)
            .await
            .map_err(|_| DialError::Slow { address, limit })??;
        Ok(link)
    }

    async fn connect(address: SocketAddr) -> Result<Self, DialError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::ConnectionRefused => DialError::Down(address),
            _ => DialError::Connect { address, source },
        };
        let stream = timeout(CONNECT, TcpStream::connect(address))
            .await
            .map_err(|_| DialError::Slow {
                address,
                limit: CONNECT,
            })?
            .map_err(failed)?;
        let (ours, theirs) = (
            stream.local_addr().map_err(failed)?,
            stream.peer_addr().map_err(failed)?,
        );
        if ours == theirs {
            return Err(DialError::ToItself(address));
        }
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|source| DialError::Http { address, source })?;
        // It ends with the sender; what goes wrong on it is told to the request that runs.
        tokio::spawn(async { connection.await.unwrap_or_default() });
        Ok(Self {
            sender,
            ours,
            theirs,
        })
    }

    /// Whether the other end is held by one of `owners`; false when nobody holds it (any more).
    ///
    /// # Errors
    ///
    /// When somebody else holds it, or the kernel does not say.
    pub fn attest(&self, owners: &[u32]) -> Result<bool, DialError> {
        let address = self.theirs;
        match owner(self.ours, self.theirs) {
            Ok(Some(uid)) if owners.contains(&uid) => Ok(true),
            Ok(Some(uid)) => Err(DialError::Owner { address, uid }),
            Ok(None) => Ok(false),
            Err(source) => Err(DialError::UnknownOwner { address, source }),
        }
    }

    /// Whether another request may be sent.
    pub async fn is_open(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }

    /// Sends a GET with the headers that HIMDS wants, and reads the whole answer.
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
        let address = self.theirs;
        let http = |source| DialError::Http { address, source };
        let request = request(target, address, authorization);
        let exchange = async {
            let (head, body) = self
                .sender
                .send_request(request)
                .await
                .map_err(http)?
                .into_parts();
            let body = Limited::new(body, MAX_BODY)
                .collect()
                .await
                .map_err(|error| {
                    if error.is::<LengthLimitError>() {
                        return DialError::TooLarge(address);
                    }
                    match error.downcast::<hyper::Error>() {
                        Ok(source) => http(*source),
                        Err(_) => DialError::TooLarge(address),
                    }
                })?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        timeout(limit, exchange)
            .await
            .map_err(|_| DialError::Slow { address, limit })?
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
        .header(header::HOST, address.to_string())
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
