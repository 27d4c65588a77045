//! A TCP listener on a loopback address that another process made and passed on.
//!
//! That process may keep the listener as well, and what is set on it holds for both. So nothing that
//! could wait is done with it on the thread that serves everybody: not even an accept, which waits as
//! long as somebody wants it to where `O_NONBLOCK` has been taken away again.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arcbroker_peer_sys::watch_listener;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Shutdown, SockType, getsockopt, shutdown, sockopt};
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::off_thread::{self, Last, linger_not};

/// How long an accept may take of a connection that is there.
const PATIENCE: Duration = Duration::from_millis(250);

/// A listener that was passed, and is what it should be.
#[derive(Debug)]
pub struct Loopback {
    /// Absent only while it is dropped.
    watched: Option<AsyncFd<Arc<TcpListener>>>,
    listener: Arc<TcpListener>,
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
    /// There is no thread for it at the moment.
    #[error("too many are accepted from at this moment")]
    Busy,
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
        // Whoever refuses it must not close it here.
        let passed = Passed(Some(passed));
        passed.check()?;
        let listener = Arc::new(TcpListener::from(passed.into_inner()));
        let loopback = |address| {
            Ok(Self {
                watched: Some(watch_listener(Arc::clone(&listener))?),
                listener: Arc::clone(&listener),
                address,
            })
        };
        let served = listener.local_addr().map_err(NotServed::Io);
        let served = served.and_then(|address| {
            if !address.ip().is_loopback() {
                return Err(NotServed::NotLoopback(address));
            }
            listener.set_nonblocking(true)?;
            loopback(address)
        });
        if served.is_err() {
            off_thread::release(Last(listener));
        }
        served
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The listener, to be passed on.
    pub fn listener(&self) -> &TcpListener {
        &self.listener
    }

    /// Waits for a connection.
    ///
    /// # Errors
    ///
    /// When it cannot be waited for.
    pub async fn ready(&self) -> io::Result<()> {
        let Some(watched) = &self.watched else {
            return std::future::pending().await;
        };
        loop {
            let mut ready = watched.readable().await?;
            if has_connection(&self.listener) {
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
        match accept(&self.listener).await? {
            Ok(stream) => Ok(Some(own(stream)?)),
            Err(error) if is_of_the_moment(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Accepts on another thread, and ends that if somebody makes it wait.
async fn accept(
    listener: &Arc<TcpListener>,
) -> Result<io::Result<std::net::TcpStream>, NotAccepted> {
    let other = Arc::clone(listener);
    let mut accepted = pin!(off_thread::run(move || other.accept()));
    loop {
        if let Ok(accepted) = timeout(PATIENCE, accepted.as_mut()).await {
            let accepted = accepted.map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => NotAccepted::Busy,
                _ => error.into(),
            })?;
            return Ok(accepted.map(|(stream, _)| stream));
        }
        // A machine that is busy is no reason.
        if !is_nonblocking(listener) {
            // Wakes the accept.
            shutdown(listener.as_raw_fd(), Shutdown::Both).unwrap_or_default();
            return Err(NotAccepted::Sabotaged);
        }
    }
}

fn is_nonblocking(listener: &TcpListener) -> bool {
    let flags = fcntl(listener, FcntlArg::F_GETFL).map(OFlag::from_bits_retain);
    flags.is_ok_and(|flags| flags.contains(OFlag::O_NONBLOCK))
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
    linger_not(&stream)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}

/// What was passed, and must not be closed on this thread.
struct Passed(Option<OwnedFd>);

impl Passed {
    fn check(&self) -> Result<(), NotServed> {
        let Some(passed) = &self.0 else {
            return Err(NotServed::NotSocket);
        };
        // By these calls: others may wait for a file system of somebody's own.
        let kind = getsockopt(passed, sockopt::SockType).map_err(|_| NotServed::NotSocket)?;
        let listens = getsockopt(passed, sockopt::AcceptConn).unwrap_or(false);
        let is_tcp = getsockopt(passed, sockopt::TcpNoDelay).is_ok();
        if kind == SockType::Stream && listens && is_tcp {
            Ok(())
        } else {
            Err(NotServed::NotListening)
        }
    }

    fn into_inner(mut self) -> OwnedFd {
        #[expect(clippy::expect_used, reason = "it is taken here and by the drop alone")]
        self.0.take().expect("it was not dropped")
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        if let Some(passed) = self.0.take() {
            off_thread::close([passed]);
        }
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        // First off the list of what is watched, and then closed elsewhere.
        drop(self.watched.take());
        off_thread::release(Last(Arc::clone(&self.listener)));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::UdpSocket;
    use std::os::unix::net::UnixListener;

    use nix::libc;
    use nix::sys::socket::setsockopt;

    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::off_thread::tests::lingering;

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
        while Arc::strong_count(&waiting) > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn t42_what_waits_when_it_is_closed_holds_up_nobody() {
        let (passed, _deaf) = lingering();
        let runtime = tokio::runtime::Handle::current();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let _entered = runtime.enter();
            tell.send(Loopback::new(passed))
        });
        let refused = told.recv_timeout(Duration::from_secs(30));
        assert!(matches!(refused, Ok(Err(NotServed::NotListening))));
    }
}
