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
use hyper::{Request, Response};
use hyper_util::rt::TokioTimer;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep, timeout};

use crate::brief::Party;
use crate::evidence::Observer;
use crate::farewell::Farewell;
use crate::gate::{Gate, Pass};
use crate::listen::Listener;
use crate::names::UserNames;
use crate::peer::{Peer, Watched, refuse_passed};
use crate::pinned::Exhausted;
use crate::refusal;
use crate::reply::{Body, Refusal};
use crate::rounds::{Rounds, Seat};
use crate::stream::{Socket, Stream};

/// Bytes of the longest request head.
const MAX_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 32;
/// How long to leave the listener alone when the process has no file descriptors left.
const PAUSE: Duration = Duration::from_millis(100);
/// Connections that are accepted in a row while there is one caller. Where there are more, it is one: who
/// connects again and again delays nobody by more.
const ACCEPTS: usize = 8;

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
        visitor: Visitor<'_>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Body>> + Send;
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Visitor<'v> {
    /// As seen for this request.
    pub peer: &'v Peer,
    /// To be looked at again.
    pub watched: &'v Arc<Watched>,
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
    /// Whose turn it is.
    pub rounds: Arc<Rounds>,
}

impl<H: Handler> Server<H> {
    /// Serves until `stop` is true, and then until every connection has had its answer.
    ///
    /// # Errors
    ///
    /// When the listener itself is broken.
    pub async fn run(self, stop: watch::Receiver<bool>) -> io::Result<()> {
        refuse_passed(self.listener.socket());
        let mut connections = Connections {
            tasks: JoinSet::new(),
            stop,
        };
        let result = self.accept_all(&mut connections).await;
        let ended = async {
            if result.is_ok() {
                self.accept_rest(&mut connections).await;
            }
            while connections.tasks.join_next().await.is_some() {}
        };
        if timeout(self.limits.drain, ended).await.is_err() {
            tracing::warn!(
                seconds = self.limits.drain.as_secs(),
                "connections were still open at the end of the drain"
            );
        }
        result
    }

    /// Ends well once the daemon is told to stop.
    async fn accept_all(&self, connections: &mut Connections) -> io::Result<()> {
        let mut stop = connections.stop.clone();
        let mut in_a_row = 0;
        loop {
            let accepted = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
                accepted = self.accept() => accepted,
                Some(_) = connections.tasks.join_next(), if !connections.tasks.is_empty() => continue,
            };
            match accepted {
                Ok((place, stream)) => {
                    self.spawn(connections, place, stream);
                    // Also where connections come so fast that the branch above is never reached.
                    while connections.tasks.try_join_next().is_some() {}
                    in_a_row += 1;
                    if in_a_row >= ACCEPTS || self.rounds.is_shared() {
                        in_a_row = 0;
                        self.rounds.give_way().await;
                    }
                }
                Err(error) if is_of_the_peer(&error) => {}
                Err(error) if Exhausted::is_why(&error) => {
                    tracing::warn!(%error, "no connection can be accepted for the moment");
                    sleep(PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
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
    async fn accept_rest(&self, connections: &mut Connections) {
        if !self.listener.retire() {
            return;
        }
        // Lets the runtime look at the listener once more.
        yield_now().await;
        while let Some(place) = self.gate.place().await
            && let Some(stream) = accept_now(self.listener.socket())
        {
            self.spawn(connections, place, stream);
        }
    }

    fn spawn(
        &self,
        connections: &mut Connections,
        place: OwnedSemaphorePermit,
        stream: UnixStream,
    ) {
        let peer = match Peer::of(&stream) {
            Ok(peer) => peer,
            Err(error) => {
                tracing::warn!(%error, "a peer without credentials was turned away");
                return;
            }
        };
        let uid = peer.caller.uid;
        let (pass, mut peer) = match self.admit(place, &stream, peer) {
            Ok(admitted) => admitted,
            Err(why) => {
                let seat = self.rounds.seat(Party { uid, unit: None });
                self.bid_farewell(connections, &seat, stream, why);
                return;
            }
        };
        let seat = self.rounds.seat(Party::of(&peer.now().caller));
        let (handler, gate) = (Arc::clone(&self.handler), Arc::clone(&self.gate));
        let stop = connections.stop.clone();
        let (limits, names) = (self.limits, self.names.clone());
        connections.tasks.spawn(Arc::clone(&seat).pace(async move {
            // Until a peer says something, it costs little more than its file descriptor.
            if timeout(limits.head, stream.readable())
                .await
                .is_ok_and(|said| said.is_ok())
            {
                peer.name(names.name(peer.uid()).await);
                let attendant = Attendant {
                    handler,
                    gate,
                    peer: Arc::new(peer),
                    seat,
                };
                let uid = attendant.peer.uid();
                let stream = Stream::new(stream, limits.stall);
                let answer = |request| attendant.answer(request);
                if let Err(error) = serve(stream, answer, limits, stop).await {
                    tracing::debug!(uid, %error, "a connection ended early");
                }
            }
            drop(pass);
        }));
    }

    /// Counts a peer and looks at it.
    fn admit(
        &self,
        place: OwnedSemaphorePermit,
        stream: &UnixStream,
        peer: Peer,
    ) -> Result<(Pass, Watched), Farewell> {
        let pass = self.gate.admit(place, peer.caller.uid);
        let pass = pass.map_err(Farewell::Crowd)?;
        let peer = Watched::new(stream, peer, &self.observer).map_err(|error| {
            tracing::warn!(%error, "a peer was turned away");
            Farewell::Exhausted
        })?;
        let pass = pass.enter(peer.now().caller.unit.as_ref());
        Ok((pass.map_err(Farewell::Crowd)?, peer))
    }

    fn bid_farewell(
        &self,
        connections: &mut Connections,
        seat: &Arc<Seat>,
        stream: UnixStream,
        why: Farewell,
    ) {
        if let Some(farewell) = self.gate.farewell() {
            connections.tasks.spawn(Arc::clone(seat).pace(async move {
                why.tell(stream).await;
                drop(farewell);
            }));
        }
    }
}

/// Those who are connected.
struct Connections {
    tasks: JoinSet<()>,
    /// True once the daemon is told to stop.
    stop: watch::Receiver<bool>,
}

/// Answers the requests of one connection.
struct Attendant<H> {
    handler: Arc<H>,
    gate: Arc<Gate>,
    peer: Arc<Watched>,
    seat: Arc<Seat>,
}

impl<H: Handler> Attendant<H> {
    /// Answers one request in its turn, unless its caller asks too often.
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let _begun = self.seat.begin().await;
        let peer = self.peer.now();
        if let Err(refusal) = let_in(&self.gate, &peer).await {
            return refusal.response(None);
        }
        let visitor = Visitor {
            peer: &peer,
            watched: &self.peer,
        };
        self.handler.handle(visitor, request).await
    }
}

/// Lets one request in, unless its caller asks too often.
pub(crate) async fn let_in(gate: &Gate, peer: &Peer) -> Result<(), Refusal> {
    let Err(throttled) = gate.ask(peer) else {
        return Ok(());
    };
    if !throttled.hold.is_zero() {
        sleep(throttled.hold).await;
    }
    Err(refusal::throttled(&throttled))
}

/// Serves one connection. Once the daemon stops, a connection that has had a request is closed
/// after the answer, and one that has had none is given the chance to send one.
///
/// # Errors
///
/// Where it ended otherwise than by agreement.
pub(crate) async fn serve<S: Socket, A: Future<Output = Response<Body>>>(
    stream: Stream<S>,
    answer: impl Fn(Request<Incoming>) -> A,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
) -> hyper::Result<()> {
    let (began, mut has_begun) = watch::channel(false);
    let service = service_fn(|request| {
        began.send_replace(true);
        let answered = answer(request);
        async { Ok::<_, Infallible>(answered.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(stream, service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let may_end = async {
        // An error means that the sender is gone, and then it ends just as well.
        stop.wait_for(|stop| *stop).await.is_ok()
            && has_begun.wait_for(|begun| *begun).await.is_ok()
    };
    tokio::select! {
        result = connection.as_mut() => result,
        _ = may_end => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
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

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    #[test]
    fn accept_errors_have_three_kinds() {
        let error = |errno: Errno| io::Error::from(errno);
        for errno in [Errno::ECONNABORTED, Errno::EINTR] {
            assert!(is_of_the_peer(&error(errno)), "{errno}");
        }
        for errno in [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::ENOBUFS] {
            assert!(Exhausted::is_why(&error(errno)), "{errno}");
        }
        for errno in [Errno::EBADF, Errno::EINVAL, Errno::ENOTSOCK] {
            assert!(
                !is_of_the_peer(&error(errno)) && !Exhausted::is_why(&error(errno)),
                "{errno}"
            );
        }
    }
}
