//! How a connection to upstream is made, as a value: by TCP, or as a simulation would have it.
//!
//! No proxy, no name lookup: the address is a literal from the configuration.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::owner::holder;

/// How long it may take until there is a connection.
const CONNECT: Duration = Duration::from_secs(1);

/// Makes connections.
#[derive(Clone)]
pub struct Connector(Arc<dyn Fn(SocketAddr) -> Opening + Send + Sync>);

/// A connection that is being made.
type Opening = Pin<Box<dyn Future<Output = Result<Opened, DialError>> + Send>>;

/// Who holds the other end; `None` while nobody does, and once it is closed.
pub type Owner = Box<dyn Fn() -> io::Result<Option<u32>> + Send + Sync>;

/// A connection that has been made.
pub struct Opened {
    /// What is written to and read from.
    pub stream: Box<dyn Wire>,
    /// Who holds the other end at the moment of the call: a user id.
    pub owner: Owner,
}

/// Both directions of a connection.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Nobody listens.
    #[error("nobody listens on {0}")]
    Down(SocketAddr),
    /// The kernel connected us to ourselves: nobody listens on a port of the ephemeral range.
    #[error("nobody listens on {0}: the connection came back to the broker itself")]
    ToItself(SocketAddr),
    /// Accepted and closed.
    #[error("{0} closed the connection before it was asked anything")]
    Closed(SocketAddr),
    /// Somebody else holds the port.
    #[error(
        "{address} is held by uid {uid}, whom `owners` in the configuration does not name; nothing was sent to it"
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
    #[error("{address} sent more than {limit} bytes")]
    TooLarge {
        /// The endpoint.
        address: SocketAddr,
        /// The limit that was passed, in bytes.
        limit: usize,
    },
}

impl Connector {
    /// By TCP, where the kernel says who holds the other end.
    pub fn tcp() -> Self {
        Self::from_fn(connect)
    }

    /// However the function does it.
    pub fn from_fn<F>(connect: impl Fn(SocketAddr) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Opened, DialError>> + Send + 'static,
    {
        Self(Arc::new(move |address| Box::pin(connect(address))))
    }

    /// Makes a connection.
    ///
    /// # Errors
    ///
    /// `Slow` when there is none within a second; else as the way of connecting has them, which
    /// are `Down`, `ToItself` and `Connect` for TCP.
    pub async fn open(&self, address: SocketAddr) -> Result<Opened, DialError> {
        let limit = CONNECT;
        timeout(limit, (self.0)(address))
            .await
            .map_err(|_| DialError::Slow { address, limit })?
    }
}

async fn connect(address: SocketAddr) -> Result<Opened, DialError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::ConnectionRefused => DialError::Down(address),
        _ => DialError::Connect { address, source },
    };
    let stream = TcpStream::connect(address).await.map_err(failed)?;
    let (ours, theirs) = (
        stream.local_addr().map_err(failed)?,
        stream.peer_addr().map_err(failed)?,
    );
    if ours == theirs {
        return Err(DialError::ToItself(address));
    }
    Ok(Opened {
        stream: Box::new(stream),
        owner: Box::new(move || Ok(holder(ours, theirs)?.map(|holder| holder.uid))),
    })
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opened")
    }
}
