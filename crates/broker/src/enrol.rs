//! How a caller gets an endpoint of its own: it passes its listener, and is told the secret.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use arcbroker_client::Secret;
use arcbroker_client::wire::{EndpointAnswer, Lifetime, READY, SCHEMA};
use arcbroker_peer_sys::{allow_descriptors, receive};
use hyper::StatusCode;
use hyper::upgrade::OnUpgrade;
use nix::errno::Errno;
use rand::TryRng as _;
use rand::rngs::SysRng;
use serde::Serialize;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::digest::Digest;
use crate::endpoint::Endpoint;
use crate::loopback::{self, Loopback, NotServed};
use crate::peer::Watched;
use crate::pinned::Exhausted;
use crate::refusal::UNAVAILABLE;
use crate::registrant::{NoRegistrant, Registrant};
use crate::reply::Refusal;
use crate::stream::Stream;

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of a secret.
const SECRET: usize = 32;
/// Bytes of the number that makes a name.
const NAME: usize = 8;

/// Why a caller gets no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum NotEnrolled {
    /// It did not do what was agreed.
    #[error("the exchange was broken off: {0}")]
    Broken(&'static str),
    /// It passed something that may harm the broker.
    #[error("{0}")]
    Hostile(NotServed),
    /// It passed something else than it should.
    #[error("{0}")]
    NotServed(NotServed),
    /// It cannot be watched.
    #[error("{0}")]
    NoRegistrant(#[from] NoRegistrant),
    /// The connection, or the kernel.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// An endpoint that its caller does not know of yet.
#[derive(Debug)]
pub struct Offer {
    /// To be served.
    pub endpoint: Endpoint,
    secret: Secret,
    stream: Stream<UnixStream>,
}

/// Asks a caller for its listener, and makes an endpoint of it.
///
/// # Errors
///
/// [`NotEnrolled`]; the caller has been told.
pub async fn enrol(
    upgrade: OnUpgrade,
    caller: &Watched,
    lifetime: Lifetime,
) -> Result<Offer, NotEnrolled> {
    let upgraded = timeout(PATIENCE, upgrade).await;
    let upgraded = upgraded
        .map_err(|_| NotEnrolled::Broken("the connection was not upgraded in time"))?
        .map_err(io::Error::other)?;
    let parts = upgraded
        .downcast::<Stream<UnixStream>>()
        .map_err(|_| NotEnrolled::Broken("the connection is not one of the socket"))?;
    let mut stream = parts.io;
    if !parts.read_buf.is_empty() {
        return Err(NotEnrolled::Broken("the client did not wait for its turn"));
    }
    match prepare(stream.socket(), caller, lifetime).await {
        Ok((endpoint, secret)) => Ok(Offer {
            endpoint,
            secret,
            stream,
        }),
        Err(error) => {
            let told = tell(stream.socket(), &error.refusal().answer(None)).await;
            told.unwrap_or_default();
            Err(error)
        }
    }
}

impl Offer {
    /// Tells the caller, and gives what is to be served.
    ///
    /// # Errors
    ///
    /// When the caller is gone.
    pub async fn accept(mut self) -> io::Result<Endpoint> {
        let answer = EndpointAnswer {
            schema: SCHEMA,
            address: self.endpoint.loopback.address(),
            secret: self.secret,
        };
        tell(self.stream.socket(), &answer).await?;
        Ok(self.endpoint)
    }
}

async fn prepare(
    stream: &mut UnixStream,
    caller: &Watched,
    lifetime: Lifetime,
) -> Result<(Endpoint, Secret), NotEnrolled> {
    let passed = timeout(PATIENCE, receive_listener(stream)).await;
    let passed = passed.map_err(|_| NotEnrolled::Broken("no listener came in time"))??;
    let loopback = Loopback::new(passed).map_err(|error| match error {
        NotServed::NotSocket => NotEnrolled::Hostile(error),
        other => NotEnrolled::NotServed(other),
    })?;
    let registrant = Registrant::new(caller, lifetime, loopback.address())?;
    let secret = random_hex::<SECRET>()?;
    let endpoint = Endpoint {
        name: format!("endpoint.{}", *random_hex::<NAME>()?),
        loopback,
        secret: Digest::of(secret.as_bytes()),
        registrant,
    };
    Ok((endpoint, Secret::from(String::clone(&secret))))
}

/// From here on, and on this connection alone, descriptors are taken.
async fn receive_listener(stream: &mut UnixStream) -> Result<OwnedFd, NotEnrolled> {
    match allow_descriptors(stream.as_fd()) {
        Ok(()) | Err(Errno::ENOPROTOOPT) => {}
        Err(errno) => return Err(NotEnrolled::Io(errno.into())),
    }
    stream.write_all(READY.as_bytes()).await?;
    let mut byte = [0];
    let received = stream.async_io(Interest::READABLE, || {
        receive(stream.as_fd(), &mut byte).map_err(io::Error::from)
    });
    let (_, passed) = received.await?;
    let mut passed = passed.into_iter();
    match (passed.next(), passed.next()) {
        (Some(one), None) => Ok(one),
        (one, other) => {
            for descriptor in one.into_iter().chain(other).chain(passed) {
                loopback::close(descriptor);
            }
            Err(NotEnrolled::Broken("exactly one descriptor is taken"))
        }
    }
}

async fn tell(stream: &mut UnixStream, answer: &impl Serialize) -> io::Result<()> {
    let mut line = Zeroizing::new(serde_json::to_vec(answer)?);
    line.push(b'\n');
    timeout(PATIENCE, stream.write_all(&line))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

fn random_hex<const N: usize>() -> io::Result<Zeroizing<String>> {
    let mut bytes = Zeroizing::new([0_u8; N]);
    SysRng
        .try_fill_bytes(bytes.as_mut_slice())
        .map_err(io::Error::other)?;
    // Sized in advance: a string that grows leaves its former self behind.
    let mut text = Zeroizing::new(String::with_capacity(2 * N));
    for byte in *bytes {
        for digit in [byte >> 4, byte & 0xf] {
            text.extend(char::from_digit(digit.into(), 16));
        }
    }
    Ok(text)
}

impl NotEnrolled {
    fn refusal(&self) -> Refusal {
        let is_ours = matches!(
            self,
            Self::Io(_) | Self::NoRegistrant(NoRegistrant::Exhausted(Exhausted))
        );
        let (status, error) = if is_ours {
            (StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE)
        } else {
            (StatusCode::BAD_REQUEST, "invalid_request")
        };
        Refusal::new(status, error, self.to_string())
    }
}
