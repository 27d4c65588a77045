//! A connection to the socket, checked for its owner before anything is sent.
//!
//! `hyperlocal::UnixConnector` keeps its stream to itself, so that the credentials of the server
//! cannot be read from it. This connector takes its place beneath the same client; the addresses
//! are still those of `hyperlocal::Uri`.

use std::{
    io,
    path::Path,
    pin::Pin,
    str::FromStr,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::Uri;
use hyper_util::rt::TokioIo;
use nix::{
    sys::socket::{getsockopt, sockopt::PeerCredentials},
    unistd::{Uid, User},
};
use tokio::net::UnixStream;
use tower_service::Service;

use crate::Error;

/// The environment variable that names an [`Owner`].
pub const OWNER_VARIABLE: &str = "ARCBROKER_SOCKET_OWNER";

/// A user who may serve the socket, besides root and the user of this process.
///
/// Needed where root has another number, as in a rootless container (65534).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Owner(u32);

impl From<u32> for Owner {
    fn from(uid: u32) -> Self {
        Self(uid)
    }
}

/// A user id, or the name of a user of this system.
impl FromStr for Owner {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if let Ok(uid) = text.parse() {
            return Ok(Self(uid));
        }
        match User::from_name(text) {
            Ok(Some(user)) => Ok(Self(user.uid.as_raw())),
            Ok(None) | Err(_) => Err(Error::UnknownOwner(text.to_owned())),
        }
    }
}

/// Makes checked connections to one socket.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    pub(crate) path: Arc<Path>,
    pub(crate) owner: Option<Owner>,
    /// How long a full backlog is knocked at.
    pub(crate) patience: Duration,
}

impl Connector {
    pub(crate) async fn connect(self) -> Result<TokioIo<UnixStream>, Fault> {
        let stream = tokio::time::timeout(self.patience, knock(&self.path))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(Fault::Unreachable)?;
        let credentials = getsockopt(&stream, PeerCredentials)
            .map_err(|errno| Fault::Unreachable(errno.into()))?;
        if !self.believes(credentials.uid()) {
            return Err(Fault::WrongOwner(credentials.uid()));
        }
        Ok(TokioIo::new(stream))
    }

    fn believes(&self, uid: u32) -> bool {
        uid == 0 || uid == Uid::effective().as_raw() || self.owner == Some(Owner(uid))
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<UnixStream>;
    type Error = Fault;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("cannot connect")]
    Unreachable(#[source] io::Error),
    #[error("served by uid {0}")]
    WrongOwner(u32),
}

impl Fault {
    /// The client hands out errors by reference only, and an [`io::Error`] cannot be cloned.
    pub(crate) fn to_error(&self, path: &Path) -> Error {
        let path = path.to_owned();
        match self {
            Self::Unreachable(source) => Error::Unreachable {
                path,
                source: match source.raw_os_error() {
                    Some(code) => io::Error::from_raw_os_error(code),
                    None => io::Error::new(source.kind(), source.to_string()),
                },
            },
            Self::WrongOwner(uid) => Error::WrongOwner { path, uid: *uid },
        }
    }
}

/// A Unix socket with a full backlog refuses at once instead of letting the caller wait.
async fn knock(path: &Path) -> io::Result<UnixStream> {
    let mut pause = SHORTEST_PAUSE;
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return done,
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_a_number_or_a_name_of_this_system() {
        assert_eq!("65534".parse::<Owner>().unwrap(), Owner(65534));
        assert_eq!("root".parse::<Owner>().unwrap(), Owner(0));
        assert!(matches!(
            "no-such-user-here".parse::<Owner>(),
            Err(Error::UnknownOwner(name)) if name == "no-such-user-here"
        ));
    }

    #[test]
    fn only_root_oneself_and_the_named_owner_are_believed() {
        let me = Uid::effective().as_raw();
        let stranger = me + 4711;
        let mut connector = Connector {
            path: Path::new("/s").into(),
            owner: None,
            patience: Duration::ZERO,
        };
        assert!(connector.believes(0));
        assert!(connector.believes(me));
        assert!(!connector.believes(stranger));
        connector.owner = Some(Owner(stranger));
        assert!(connector.believes(stranger));
        assert!(!connector.believes(stranger + 1));
    }
}
