//! How a caller gets an endpoint of its own: it passes its listener, and is told the secret.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use arcbroker_client::Secret;
use arcbroker_client::wire::{EndpointAnswer, Lifetime, READY, SCHEMA};
use arcbroker_peer_sys::{allow_descriptors, receive};
use hyper::StatusCode;
use hyper::upgrade::OnUpgrade;
use nix::errno::Errno;
use nix::sys::socket::{Shutdown, getsockopt, shutdown, sockopt};
use rand::TryRng as _;
use rand::rngs::SysRng;
use serde::Serialize;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::digest::Digest;
use crate::endpoint::Endpoint;
use crate::keep::{NAME, PREFIX};
use crate::loopback::{Loopback, NotServed};
use crate::off_thread::{self, Hasty};
use crate::peer::{Watched, refuse_passed};
use crate::pinned::Exhausted;
use crate::refusal::UNAVAILABLE;
use crate::registrant::{NoRegistrant, Registrant};
use crate::reply::Refusal;
use crate::stream::Stream;

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of a secret.
const SECRET: usize = 32;

/// Why a caller gets no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum NotEnrolled {
    /// It did not do what was agreed.
    #[error("the exchange was broken off: {0}")]
    Broken(&'static str),
    /// It passed something that may harm the broker.
    #[error("{0}")]
    Hostile(NotServed),
    /// What it passed made the broker wait.
    #[error("what was passed takes long to receive")]
    HeldUp,
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
    line: Line,
}

/// The connection to a caller, which may have descriptors under way to us: it is not closed on this thread.
#[derive(Debug)]
struct Line(Option<Stream<UnixStream>>);

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
    let mut line = Line(Some(parts.io));
    if !parts.read_buf.is_empty() {
        return Err(NotEnrolled::Broken("the client did not wait for its turn"));
    }
    match prepare(&mut line, caller, lifetime).await {
        Ok((endpoint, secret)) => Ok(Offer {
            endpoint,
            secret,
            line,
        }),
        Err(error) => {
            let told = line.tell(&error.refusal().answer(None)).await;
            told.unwrap_or_default();
            Err(error)
        }
    }
}

impl Offer {
    /// Tells the caller, and gives what is to be served, unless the caller is gone.
    pub async fn accept(mut self) -> (Endpoint, io::Result<()>) {
        let answer = EndpointAnswer {
            schema: SCHEMA,
            address: self.endpoint.loopback.address(),
            secret: self.secret,
        };
        let told = self.line.tell(&answer).await;
        (self.endpoint, told)
    }
}

async fn prepare(
    line: &mut Line,
    caller: &Watched,
    lifetime: Lifetime,
) -> Result<(Endpoint, Secret), NotEnrolled> {
    let asked = timeout(PATIENCE, line.ask()).await;
    asked.map_err(|_| NotEnrolled::Broken("no listener came in time"))??;
    let passed = line.receive_listener().await?;
    let loopback = Loopback::new(passed).map_err(|error| match error {
        NotServed::NotSocket => NotEnrolled::Hostile(error),
        other => NotEnrolled::NotServed(other),
    })?;
    let registrant = Registrant::new(caller, lifetime, loopback.address())?;
    let secret = random_hex::<SECRET>()?;
    let endpoint = Endpoint {
        name: format!("{PREFIX}{}", *random_hex::<NAME>()?),
        loopback,
        secret: Digest::of(secret.as_bytes()),
        registrant,
    };
    Ok((endpoint, Secret::from(String::clone(&secret))))
}

impl Line {
    fn socket(&mut self) -> io::Result<&mut UnixStream> {
        let stream = self.0.as_mut().map(Stream::socket);
        stream.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Asks for the listener, and waits for what comes. From here on, and on this connection alone, descriptors
    /// are taken.
    async fn ask(&mut self) -> io::Result<()> {
        let socket = self.socket()?;
        match allow_descriptors(socket.as_fd()) {
            Ok(()) | Err(Errno::ENOPROTOOPT) => {}
            Err(errno) => return Err(errno.into()),
        }
        socket.write_all(READY.as_bytes()).await?;
        socket.readable().await
    }

    /// On another thread: the kernel closes there what this process has no numbers for.
    async fn receive_listener(&mut self) -> Result<OwnedFd, NotEnrolled> {
        let socket = self.socket()?.as_fd().try_clone_to_owned()?;
        let received = off_thread::run(move || {
            let received = receive(socket.as_fd(), &mut [0]);
            refuse_passed(&socket);
            received
        });
        let received = timeout(PATIENCE, received).await;
        let (_, passed) = received
            .map_err(|_| NotEnrolled::HeldUp)??
            .map_err(io::Error::from)?;
        match <[OwnedFd; 1]>::try_from(passed) {
            Ok([one]) => Ok(one),
            Err(others) => {
                let is_socket = |fd: &OwnedFd| getsockopt(fd, sockopt::SockType).is_ok();
                let are_sockets = others.iter().all(is_socket);
                off_thread::close(others);
                Err(if are_sockets {
                    NotEnrolled::Broken("exactly one descriptor is taken")
                } else {
                    NotEnrolled::Hostile(NotServed::NotSocket)
                })
            }
        }
    }

    async fn tell(&mut self, answer: &impl Serialize) -> io::Result<()> {
        let mut line = Zeroizing::new(serde_json::to_vec(answer)?);
        line.push(b'\n');
        timeout(PATIENCE, self.socket()?.write_all(&line))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(stream) = self.0.take() {
            off_thread::release(Emptied(stream));
        }
    }
}

/// A connection from which all that is under way is taken before it is closed: the kernel would wait for it.
struct Emptied(Stream<UnixStream>);

impl Drop for Emptied {
    fn drop(&mut self) {
        let socket = self.0.socket();
        // Nothing more can be sent, so that this ends.
        if shutdown(socket.as_raw_fd(), Shutdown::Read).is_err() {
            return;
        }
        while let Ok((1.., passed)) = receive(socket.as_fd(), &mut [0; 4096]) {
            passed.into_iter().map(Hasty).for_each(drop);
        }
    }
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
    /// Whether it tried to harm the broker.
    pub fn is_hostile(&self) -> bool {
        matches!(self, Self::Hostile(_) | Self::HeldUp)
    }

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

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

    use super::*;
    use crate::off_thread::tests::lingering;

    #[tokio::test]
    async fn t42_what_is_under_way_does_not_hold_up_the_close() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (socket, _deaf) = lingering();
        for _ in 0..3 {
            let passed = [socket.as_raw_fd()];
            let control = [ControlMessage::ScmRights(&passed)];
            let data = [IoSlice::new(b"l")];
            let theirs = theirs.as_raw_fd();
            sendmsg::<()>(theirs, &data, &control, MsgFlags::empty(), None).unwrap();
        }
        drop(socket);
        // The test would take an hour.
        drop(Emptied(Stream::new(ours, PATIENCE)));
    }
}
