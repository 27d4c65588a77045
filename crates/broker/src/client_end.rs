//! Who holds the client's end of a connection to a loopback address.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;

use arcbroker_peer_sys::network_namespace;
use nix::errno::Errno;
use tokio::net::TcpStream;

use crate::owner::{Holder, holder};

/// The network namespace of this process, to tell whether a connection is in it.
#[derive(Clone, Copy, Debug)]
pub struct Here(Option<u64>);

/// What is known of the client's end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ClientEnd {
    /// Somebody of this network namespace.
    Held(Holder),
    /// It is in another network namespace, where nobody else is seen: whoever can reach it is in there.
    Elsewhere,
    /// Nobody holds it any more.
    Gone,
}

impl Here {
    /// Found out by a socket of our own; unknown before Linux 5.14.
    pub fn find() -> io::Result<Self> {
        let own = UnixDatagram::unbound()?;
        match network_namespace(own.as_fd()) {
            Ok(number) => Ok(Self(Some(number))),
            Err(Errno::ENOPROTOOPT) => Ok(Self(None)),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Whether a socket is in it; none where the kernel does not tell.
    fn has(self, socket: &impl AsFd) -> Option<bool> {
        Some(network_namespace(socket.as_fd()).ok()? == self.0?)
    }
}

impl ClientEnd {
    /// Looks at the other end of a connection that has been accepted.
    ///
    /// # Errors
    ///
    /// The kernel's: then nobody can be told apart.
    pub fn of(stream: &TcpStream, here: Here) -> io::Result<Self> {
        let is_here = here.has(stream);
        if is_here == Some(false) {
            return Ok(Self::Elsewhere);
        }
        let (Ok(ours), Ok(theirs)) = (stream.local_addr(), stream.peer_addr()) else {
            return Ok(Self::Gone);
        };
        Ok(match (holder(ours, theirs)?, is_here) {
            (Some(holder), _) => Self::Held(holder),
            (None, Some(true)) => Self::Gone,
            // It may be elsewhere, and the kernel is too old to say so.
            (None, _) => Self::Elsewhere,
        })
    }
}

#[cfg(test)]
mod tests {
    use nix::unistd::geteuid;

    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_client_of_this_namespace_is_known_by_its_user_until_it_is_gone() {
        let here = Here::find().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        server.set_nonblocking(true).unwrap();
        let server = TcpStream::from_std(server).unwrap();
        let end = ClientEnd::of(&server, here).unwrap();
        assert!(
            matches!(end, ClientEnd::Held(holder) if holder.uid == geteuid().as_raw()),
            "{end:?}"
        );
        let elsewhere = ClientEnd::of(&server, Here(here.0.map(|number| number + 1))).unwrap();
        assert!(here.0.is_none() || elsewhere == ClientEnd::Elsewhere);
        drop(client);
        server.readable().await.unwrap();
        assert_eq!(
            ClientEnd::of(&server, Here(here.0)).unwrap() == ClientEnd::Gone,
            here.0.is_some()
        );
    }
}
