//! Accepts connections, serves each in a task of its own, and ends without losing one.
//!
//! hyperlocal's server serves one connection at a time and ends at the first garbage; this one is
//! written on hyper itself. Nothing that a peer does ends the loop or another peer's connection.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioTimer;
use nix::errno::Errno;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep, timeout};

use crate::evidence::Observer;
use crate::gate::Gate;
use crate::listen::Listener;
use crate::names::UserNames;
use crate::peer::{Peer, Watched, refuse_passed};
use crate::pinned::Exhausted;
use crate::reply::Body;
use crate::stream::Stream;

/// Bytes of the longest request head.
const MAX_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 32;
/// How long to leave the listener alone when the process has no file descriptors left.
const PAUSE: Duration = Duration::from_millis(100);
/// For a peer to send its request, so that it can be told that there is no room for it.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a connection may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the first moment, or the end of the request before, to the end of a request's head.
    pub head: Duration,
    /// For a peer to read its answer.
    pub stall: Duration,
    /// For all connections to end once the daemon is told to stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(5),
            stall: Duration::from_secs(20),
            drain: Duration::from_secs(15),
        }
    }
}

/// Answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request; its body, if any, has been refused or is empty.
    fn handle(
        &self,
        peer: &Peer,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Body>> + Send;
}

/// A listener with everything that its connections share.
#[derive(Debug)]
pub struct Server<H> {
    /// Where peers connect.
    pub listener: Listener,
    /// What answers them.
    pub handler: Arc<H>,
    /// How many may be connected.
    pub gate: Arc<Gate>,
    /// What each may cost.
    pub limits: Limits,
    /// Names of users, for display.
    pub names: UserNames,
    /// Looks at the processes of peers.
    pub observer: Observer,
}

impl<H: Handler> Server<H> {
    /// Serves until `stop` is true, and then until every connection has had its answer.
    ///
    /// # Errors
    ///
    /// When the listener itself is broken.
    pub async fn run(self, mut stop: watch::Receiver<bool>) -> io::Result<()> {
        refuse_passed(self.listener.socket());
        let mut connections = JoinSet::new();
        let result = loop {
            let accepted = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break Ok(()),
                accepted = self.accept() => accepted,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            };
            match accepted {
                Ok((place, stream)) => {
                    self.spawn(&mut connections, place, stream, &stop);
                    // Also where connections come so fast that the branch above is never reached.
                    while connections.try_join_next().is_some() {}
                }
                Err(error) if is_of_the_peer(&error) => {}
                Err(error) if is_of_resources(&error) => {
                    tracing::warn!(%error, "no connection can be accepted for the moment");
                    sleep(PAUSE).await;
                }
                Err(error) => break Err(error),
            }
        };
        let ended = async {
            if result.is_ok() {
                self.accept_rest(&mut connections, &stop).await;
            }
            while connections.join_next().await.is_some() {}
        };
        if timeout(self.limits.drain, ended).await.is_err() {
            tracing::warn!(
                seconds = self.limits.drain.as_secs(),
                "connections were still open at the end of the drain"
            );
        }
        result
    }

    async fn accept(&self) -> io::Result<(OwnedSemaphorePermit, UnixStream)> {
        let place = self
            .gate
            .place()
            .await
            .ok_or_else(|| io::Error::other("the gate is closed"))?;
        let (stream, _) = self.listener.socket().accept().await?;
        Ok((place, stream))
    }

    /// Peers that had connected before the daemon was told to stop are served as well, where no
    /// one else will do it: systemd keeps its own listener and gives it to the next daemon.
    async fn accept_rest(&self, connections: &mut JoinSet<()>, stop: &watch::Receiver<bool>) {
        if !self.listener.retire() {
            return;
        }
        // Lets the runtime look at the listener once more.
        yield_now().await;
        while let Some(place) = self.gate.place().await
            && let Some(stream) = accept_now(self.listener.socket())
        {
            self.spawn(connections, place, stream, stop);
        }
    }

    fn spawn(
        &self,
        connections: &mut JoinSet<()>,
        place: OwnedSemaphorePermit,
        stream: UnixStream,
        stop: &watch::Receiver<bool>,
    ) {
        let peer = match Peer::of(&stream) {
            Ok(peer) => peer,
            Err(error) => {
                tracing::warn!(%error, "a peer without credentials was turned away");
                return;
            }
        };
        let Some(pass) = self.gate.admit(place, peer.caller.uid) else {
            tracing::debug!(
                uid = peer.caller.uid,
                "a connection over the limit of its user was turned away"
            );
            self.bid_farewell(connections, stream, Farewell::Crowd);
            return;
        };
        let mut peer = match Watched::new(&stream, peer, &self.observer) {
            Ok(peer) => peer,
            Err(error) => {
                tracing::warn!(%error, "a peer was turned away");
                self.bid_farewell(connections, stream, Farewell::Exhausted);
                return;
            }
        };
        let (handler, limits, names, stop) = (
            Arc::clone(&self.handler),
            self.limits,
            self.names.clone(),
            stop.clone(),
        );
        connections.spawn(async move {
            // Until a peer says something, it costs little more than its file descriptor.
            if timeout(limits.head, stream.readable())
                .await
                .is_ok_and(|said| said.is_ok())
            {
                peer.name(names.name(peer.uid()).await);
                serve(stream, &peer, &*handler, limits, stop).await;
            }
            drop(pass);
        });
    }

    fn bid_farewell(&self, connections: &mut JoinSet<()>, stream: UnixStream, why: Farewell) {
        if let Some(farewell) = self.gate.farewell() {
            connections.spawn(async move {
                turn_away(stream, why).await;
                drop(farewell);
            });
        }
    }
}

/// Serves one connection. Once the daemon stops, a connection that has had a request is closed
/// after the answer, and one that has had none is given the chance to send one.
async fn serve<H: Handler>(
    stream: UnixStream,
    peer: &Watched,
    handler: &H,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
) {
    let (began, mut has_begun) = watch::channel(false);
    let service = service_fn(|request| {
        began.send_replace(true);
        async { Ok::<_, Infallible>(handler.handle(&peer.now(), request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(Stream::new(stream, limits.stall), service);
    let mut connection = pin!(connection);
    let may_end = async {
        // An error means that the sender is gone, and then it ends just as well.
        stop.wait_for(|stop| *stop).await.is_ok()
            && has_begun.wait_for(|begun| *begun).await.is_ok()
    };
    let result = tokio::select! {
        result = connection.as_mut() => result,
        _ = may_end => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(uid = peer.uid(), %error, "a connection ended early");
    }
}

/// Why a peer is turned away.
#[derive(Clone, Copy, Debug)]
enum Farewell {
    /// Its user has too many connections.
    Crowd,
    /// The broker cannot look at it, and so can judge nobody.
    Exhausted,
}

impl Farewell {
    fn answer(self) -> String {
        let (status, error, description) = match self {
            Self::Crowd => (
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_requests",
                "this user has too many connections to arcbroker open: close some, or raise connections-per-user under \
                 [limits]",
            ),
            Self::Exhausted => (
                StatusCode::SERVICE_UNAVAILABLE,
                "service_unavailable",
                "arcbroker has no file descriptors left to find out who asks. Ask again; an administrator can raise \
                 LimitNOFILE= of its service",
            ),
        };
        let reason = status.canonical_reason().unwrap_or_default();
        let code = status.as_u16();
        let body = format!(
            r#"{{"error":"{error}","error_description":"{description}","statusCode":{code},"message":"{description}","schema":1}}"#
        );
        let length = body.len();
        format!(
            "HTTP/1.1 {code} {reason}\r\ncontent-type: application/json; charset=utf-8\r\nretry-after: 1\r\n\
             connection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    }
}

/// Tells a peer why there is no room for it, once it has asked: a client does not look for an answer to
/// a request that it could not send or has yet to send.
async fn turn_away(mut stream: UnixStream, why: Farewell) {
    let answer = why.answer();
    let told = async {
        let mut request = [0; 1024];
        if stream.read(&mut request).await? > 0 {
            stream.write_all(answer.as_bytes()).await?;
            stream.shutdown().await?;
            while stream.read(&mut request).await? > 0 {}
        }
        io::Result::Ok(())
    };
    if !matches!(timeout(FAREWELL, told).await, Ok(Ok(()))) {
        tracing::debug!("a peer may not have heard why it was turned away");
    }
}

/// One connection that is waiting by now, or none.
fn accept_now(listener: &UnixListener) -> Option<UnixStream> {
    match listener.poll_accept(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok((stream, _))) => Some(stream),
        Poll::Ready(Err(_)) | Poll::Pending => None,
    }
}

/// The peer gave up before it was accepted.
fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
    )
}

/// The process or the system is out of something, and may have it again soon.
fn is_of_resources(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    errno.is_some_and(Exhausted::is)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_farewell_says_when_to_come_back_and_is_as_long_as_it_says() {
        for (why, status) in [(Farewell::Crowd, 429), (Farewell::Exhausted, 503)] {
            let answer = why.answer();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
            assert!(head.contains("\r\nretry-after: 1\r\n"), "{head}");
            assert!(head.ends_with(&format!("content-length: {}", body.len())));
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(body["statusCode"], status);
        }
    }

    #[test]
    fn accept_errors_have_three_kinds() {
        let error = |errno: Errno| io::Error::from(errno);
        for errno in [Errno::ECONNABORTED, Errno::EINTR] {
            assert!(is_of_the_peer(&error(errno)), "{errno}");
        }
        for errno in [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::ENOBUFS] {
            assert!(is_of_resources(&error(errno)), "{errno}");
        }
        for errno in [Errno::EBADF, Errno::EINVAL, Errno::ENOTSOCK] {
            assert!(
                !is_of_the_peer(&error(errno)) && !is_of_resources(&error(errno)),
                "{errno}"
            );
        }
    }
}
