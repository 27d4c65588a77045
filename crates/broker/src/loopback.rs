//! A TCP listener on a loopback address that another process made and passed on.
//!
//! That process may keep the listener as well, and what is set on it holds for both. So nothing that
//! could wait is done with it on the thread that serves everybody: not even an accept, which waits as
//! long as somebody wants it to where `O_NONBLOCK` has been taken away again.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use arcbroker_peer_sys::watch_listener;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Shutdown, SockType, getsockopt, setsockopt, shutdown, sockopt};
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// How long an accept may take of a connection that is there.
const PATIENCE: Duration = Duration::from_millis(250);

/// A listener that was passed, and is what it should be.
#[derive(Debug)]
pub struct Loopback {
    listener: AsyncFd<Arc<TcpListener>>,
    address: SocketAddr,
}

/// Why a descriptor is not served.
#[derive(Debug, thiserror::Error)]
pub enum NotServed {
    /// A file, a pipe …
    #[error("what was passed is not a socket")]
    NotSocket,
    /// Another kind of socket, or one that does not listen.
    #[error("what was passed is not a listening TCP socket")]
    NotListening,
    /// It can be reached from elsewhere.
    #[error("the listener that was passed is on {0}, and only 127.0.0.0/8 and ::1 are served")]
    NotLoopback(SocketAddr),
    /// The kernel's.
    #[error("the listener that was passed cannot be served: {0}")]
    Io(#[from] io::Error),
}

/// Why nothing was accepted.
#[derive(Debug, thiserror::Error)]
pub enum NotAccepted {
    /// Whoever passed it has made the accept wait.
    #[error("the listener was made to wait")]
    Sabotaged,
    /// The kernel's.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Loopback {
    /// Serves a descriptor that was passed, if it is a TCP listener on a loopback address. Must be called
    /// inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`NotServed`].
    pub fn new(passed: OwnedFd) -> Result<Self, NotServed> {
        // The kind first, and by this call: any other may wait for a file system of somebody's own.
        let Ok(kind) = getsockopt(&passed, sockopt::SockType) else {
            close(passed);
            return Err(NotServed::NotSocket);
        };
        let listens = getsockopt(&passed, sockopt::AcceptConn).unwrap_or(false);
        let is_tcp = getsockopt(&passed, sockopt::TcpNoDelay).is_ok();
        if kind != SockType::Stream || !listens || !is_tcp {
            return Err(NotServed::NotListening);
        }
        let listener = TcpListener::from(passed);
        let address = listener.local_addr()?;
        if !address.ip().is_loopback() {
            return Err(NotServed::NotLoopback(address));
        }
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener: watch_listener(Arc::new(listener))?,
            address,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The listener, to be passed on.
    pub fn listener(&self) -> &TcpListener {
        self.listener.get_ref()
    }

    /// Waits for a connection.
    ///
    /// # Errors
    ///
    /// When it cannot be waited for.
    pub async fn ready(&self) -> io::Result<()> {
        loop {
            let mut ready = self.listener.readable().await?;
            if has_connection(self.listener.get_ref()) {
                return Ok(());
            }
            ready.clear_ready();
        }
    }

    /// The connection that was waited for; none where somebody else was faster, or the client is gone. It is
    /// lost if this is not awaited to its end, which comes soon.
    ///
    /// # Errors
    ///
    /// [`NotAccepted`]; once sabotaged, it accepts nothing more.
    pub async fn accept(&self) -> Result<Option<TcpStream>, NotAccepted> {
        match accept(self.listener.get_ref()).await? {
            Ok(stream) => Ok(Some(own(stream)?)),
            Err(error) if is_of_the_moment(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Accepts on another thread, and ends that if it takes long.
async fn accept(
    listener: &Arc<TcpListener>,
) -> Result<io::Result<std::net::TcpStream>, NotAccepted> {
    let other = Arc::clone(listener);
    let accepted = spawn_blocking(move || other.accept().map(|(stream, _)| stream));
    if let Ok(accepted) = timeout(PATIENCE, accepted).await {
        return Ok(accepted.map_err(io::Error::other)?);
    }
    // Wakes the accept.
    shutdown(listener.as_raw_fd(), Shutdown::Both).unwrap_or_default();
    Err(NotAccepted::Sabotaged)
}

fn is_of_the_moment(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
    )
}

fn has_connection(listener: &TcpListener) -> bool {
    let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// What was set on the listener holds for its connections as well: above all, a close must not wait for
/// the other end to read.
fn own(stream: std::net::TcpStream) -> io::Result<TcpStream> {
    let off = libc::linger {
        l_onoff: 0,
        l_linger: 0,
    };
    setsockopt(&stream, sockopt::Linger, &off)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}

/// Closes what may be a file of a file system that never answers: then only a thread of its own waits.
pub fn close(descriptor: OwnedFd) {
    let closed = thread::Builder::new()
        .name("close".to_owned())
        .spawn(move || drop(descriptor));
    if let Err(error) = closed {
        tracing::warn!(%error, "a descriptor that was passed was closed where it may wait");
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::UdpSocket;
    use std::os::unix::net::UnixListener;

    use tokio::io::AsyncReadExt;

    use super::*;

    fn listener(address: &str) -> OwnedFd {
        TcpListener::bind(address).unwrap().into()
    }

    #[tokio::test]
    async fn only_a_tcp_listener_on_a_loopback_address_is_served() {
        for address in ["127.0.0.1:0", "127.8.8.8:0", "[::1]:0"] {
            assert!(Loopback::new(listener(address)).is_ok(), "{address}");
        }
        for address in ["0.0.0.0:0", "[::]:0"] {
            let refused = Loopback::new(listener(address));
            assert!(
                matches!(refused, Err(NotServed::NotLoopback(_))),
                "{address}"
            );
        }
        let dir = tempfile::tempdir().unwrap();
        let listening = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listening.local_addr().unwrap()).unwrap();
        let others: [OwnedFd; 3] = [
            UdpSocket::bind("127.0.0.1:0").unwrap().into(),
            UnixListener::bind(dir.path().join("s")).unwrap().into(),
            client.into(),
        ];
        for other in others {
            assert!(matches!(Loopback::new(other), Err(NotServed::NotListening)));
        }
        let file = std::fs::File::open("/dev/null").unwrap().into();
        assert!(matches!(Loopback::new(file), Err(NotServed::NotSocket)));
    }

    #[tokio::test]
    async fn connections_are_accepted_and_do_not_keep_what_was_set_on_the_listener() {
        let listening = TcpListener::bind("127.0.0.1:0").unwrap();
        let hour = libc::linger {
            l_onoff: 1,
            l_linger: 3600,
        };
        setsockopt(&listening, sockopt::Linger, &hour).unwrap();
        let loopback = Loopback::new(listening.into()).unwrap();
        let mut client = std::net::TcpStream::connect(loopback.address()).unwrap();
        loopback.ready().await.unwrap();
        let mut accepted = loopback.accept().await.unwrap().unwrap();
        let linger = getsockopt(&accepted, sockopt::Linger).unwrap();
        assert_eq!(linger.l_onoff, 0);
        client.write_all(b"x").unwrap();
        assert_eq!(accepted.read_u8().await.unwrap(), b'x');
        assert!(loopback.accept().await.unwrap().is_none());
        assert!(timeout(PATIENCE, loopback.ready()).await.is_err());
    }

    #[tokio::test]
    async fn an_accept_that_is_made_to_wait_ends_and_so_does_its_thread() {
        let waiting = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        assert!(matches!(
            accept(&waiting).await,
            Err(NotAccepted::Sabotaged)
        ));
        // The runtime waits for the thread at its end, and with it the test.
    }
}
