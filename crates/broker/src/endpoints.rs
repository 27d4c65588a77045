//! Serves the endpoints of programs, each as long as its program lives.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Request, Response};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::brief::Party;
use crate::client_end::{ClientEnd, Here};
use crate::clock::Clock;
use crate::desk::Newcomer;
use crate::endpoint::Endpoint;
use crate::enrol::enrol;
use crate::evidence::Observer;
use crate::farewell::Farewell;
use crate::gate::Gate;
use crate::keep;
use crate::loopback::NotAccepted;
use crate::manager::{Kept, Manager};
use crate::off_thread;
use crate::pinned::Exhausted;
use crate::refusal;
use crate::registry::{Place, Registry};
use crate::reply::Body;
use crate::rounds::Rounds;
use crate::server::{Limits, let_in, serve};
use crate::service::Service;
use crate::stray::{Stray, Strayed};
use crate::stream::Stream;
use crate::throttle::{self, Throttle};

/// How long to leave a listener alone that cannot be accepted from.
const PAUSE: Duration = Duration::from_millis(100);
/// Requests in a second of one user that are not a program's own: each is recorded, and a record costs.
const STRAYS: throttle::Options = throttle::Options {
    per_user: 5,
    per_unit: 0,
};

/// What all endpoints share.
#[derive(Debug)]
pub struct Shared {
    /// What answers.
    pub service: Arc<Service>,
    /// How many may be connected.
    pub gate: Arc<Gate>,
    /// What a connection may cost.
    pub limits: Limits,
    /// Whose turn it is.
    pub rounds: Arc<Rounds>,
    /// How many endpoints there are.
    pub registry: Arc<Registry>,
    /// The time.
    pub clock: Clock,
    /// Who holds endpoints for the next daemon.
    pub manager: Manager,
}

/// All endpoints.
#[derive(Debug)]
pub struct Endpoints {
    site: Arc<Site>,
    newcomers: mpsc::UnboundedReceiver<Newcomer>,
    restored: Vec<(Endpoint, Place)>,
    /// What systemd has held and is of no use any more.
    dropped: Vec<(String, Vec<OwnedFd>)>,
}

#[derive(Debug)]
struct Site {
    shared: Shared,
    here: Here,
    strays: Throttle,
}

/// How the serving of an endpoint ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ended {
    /// Its program has ended.
    Gone,
    /// It was misused.
    Sabotaged,
    /// The daemon stops; systemd may hold it for the next one.
    Stopped,
}

impl Endpoints {
    /// None but those that systemd has held.
    ///
    /// # Errors
    ///
    /// When the network namespace of this process cannot be found out.
    pub fn new(
        shared: Shared,
        newcomers: mpsc::UnboundedReceiver<Newcomer>,
        held: Kept,
        observer: &Observer,
    ) -> io::Result<Self> {
        let (mut restored, mut dropped) = (Vec::new(), Vec::new());
        for (name, descriptors) in held {
            let copies = descriptors
                .iter()
                .filter_map(|one| one.try_clone().ok())
                .collect();
            match restore(&name, descriptors, observer, &shared.registry) {
                Some(endpoint) => restored.push(endpoint),
                None => dropped.push((name, copies)),
            }
        }
        Ok(Self {
            restored,
            dropped,
            site: Arc::new(Site {
                shared,
                here: Here::find()?,
                strays: Throttle::new(STRAYS),
            }),
            newcomers,
        })
    }

    /// Serves until `stop` is true, and then until every connection has had its answer.
    ///
    /// # Errors
    ///
    /// None; it ends as servers do.
    pub async fn run(mut self, stop: watch::Receiver<bool>) -> io::Result<()> {
        let mut tasks = JoinSet::new();
        for (endpoint, place) in self.restored {
            tasks.spawn(Arc::clone(&self.site).host(endpoint, place, stop.clone()));
        }
        for (name, descriptors) in self.dropped {
            let site = Arc::clone(&self.site);
            tasks.spawn(async move {
                keep::let_go(&name, &site.shared.manager).await;
                off_thread::close(descriptors);
            });
        }
        let mut stopped = stop.clone();
        loop {
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stop| *stop) => break,
                Some(newcomer) = self.newcomers.recv() => {
                    tasks.spawn(Arc::clone(&self.site).welcome(newcomer, stop.clone()));
                }
                Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
            }
        }
        // Those who still come are told so.
        self.newcomers.close();
        while let Ok(newcomer) = self.newcomers.try_recv() {
            tasks.spawn(Arc::clone(&self.site).welcome(newcomer, stop.clone()));
        }
        let ended = async { while tasks.join_next().await.is_some() {} };
        if timeout(self.site.shared.limits.drain, ended).await.is_err() {
            tracing::warn!("connections to endpoints were still open at the end of the drain");
        }
        Ok(())
    }
}

/// An endpoint that systemd has held, if it is one still.
fn restore(
    name: &str,
    descriptors: Vec<OwnedFd>,
    observer: &Observer,
    registry: &Arc<Registry>,
) -> Option<(Endpoint, Place)> {
    let restored = keep::restore(name.to_owned(), descriptors, observer);
    let placed = restored
        .map_err(|error| error.to_string())
        .and_then(|endpoint| {
            let caller = &endpoint.registrant.registered().caller;
            let place = registry.place(caller).map_err(|error| error.to_string())?;
            Ok((endpoint, place))
        });
    match placed {
        Ok((endpoint, place)) => {
            tracing::info!(name, address = %endpoint.loopback.address(), "an endpoint is served again");
            Some((endpoint, place))
        }
        Err(why) => {
            tracing::warn!(name, why, "an endpoint that systemd held is let go");
            None
        }
    }
}

impl Site {
    /// Makes an endpoint, and serves it.
    async fn welcome(self: Arc<Self>, newcomer: Newcomer, stop: watch::Receiver<bool>) {
        let Newcomer {
            upgrade,
            caller,
            lifetime,
            place,
        } = newcomer;
        let uid = caller.uid();
        let offer = match enrol(upgrade, &caller, lifetime).await {
            Ok(offer) => offer,
            Err(error) => {
                if !error.is_hostile() {
                    return tracing::debug!(uid, %error, "a caller got no endpoint");
                }
                self.shared.registry.ban(&caller.now().caller);
                return tracing::error!(uid, %error, "a caller got no endpoint, and callers like it get none any more");
            }
        };
        // Before its caller knows of it: an endpoint that is known outlives the daemon.
        if let Err(error) = keep::keep(&offer.endpoint, &self.shared.manager) {
            tracing::warn!(%error, "systemd could not be asked to hold an endpoint: it ends with this daemon");
        }
        let (endpoint, told) = offer.accept().await;
        match told {
            Ok(()) => self.host(endpoint, place, stop).await,
            Err(error) => {
                tracing::debug!(uid, %error, "a caller went away before it had its endpoint");
                keep::let_go(&endpoint.name, &self.shared.manager).await;
            }
        }
    }

    /// Serves an endpoint until it ends.
    async fn host(self: Arc<Self>, endpoint: Endpoint, place: Place, stop: watch::Receiver<bool>) {
        let endpoint = Arc::new(endpoint);
        let peer = Arc::clone(endpoint.registrant.registered());
        let (uid, address) = (peer.caller.uid, endpoint.loopback.address());
        tracing::debug!(uid, pid = peer.pid, %address, lifetime = %endpoint.registrant.lifetime(), "an endpoint is served");
        let ended = self.serve(&endpoint, stop).await;
        match ended {
            Ended::Stopped => return,
            Ended::Gone => tracing::debug!(uid, %address, "an endpoint has ended with its program"),
            Ended::Sabotaged => {
                self.shared.registry.ban(&peer.caller);
                tracing::error!(
                    uid,
                    %address,
                    "a program has manipulated the listener of its endpoint: programs like it get none until the next start"
                );
            }
        }
        keep::let_go(&endpoint.name, &self.shared.manager).await;
        drop(place);
    }

    async fn serve(
        self: &Arc<Self>,
        endpoint: &Arc<Endpoint>,
        stop: watch::Receiver<bool>,
    ) -> Ended {
        let mut connections = JoinSet::new();
        let mut stopped = stop.clone();
        let uid = endpoint.registrant.registered().caller.uid;
        loop {
            let place = tokio::select! {
                biased;
                _ = stopped.wait_for(|stop| *stop) => break,
                () = endpoint.registrant.ended() => return Ended::Gone,
                ready = self.ready(endpoint) => ready,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            };
            // Not among the above: what is accepted must not be lost to another of them.
            let accepted = match place {
                Ok(place) => endpoint
                    .loopback
                    .accept()
                    .await
                    .map(|stream| (place, stream)),
                Err(error) => Err(error.into()),
            };
            match accepted {
                Ok((place, Some(stream))) => {
                    let (site, endpoint) = (Arc::clone(self), Arc::clone(endpoint));
                    connections.spawn(site.attend(endpoint, place, stream, stop.clone()));
                }
                Ok((_, None)) => {}
                Err(NotAccepted::Busy) => sleep(PAUSE).await,
                Err(NotAccepted::Sabotaged) => return Ended::Sabotaged,
                Err(NotAccepted::Io(error)) if Exhausted::is_why(&error) => sleep(PAUSE).await,
                Err(NotAccepted::Io(error)) => {
                    tracing::warn!(uid, %error, "an endpoint cannot be accepted from any more");
                    return Ended::Gone;
                }
            }
        }
        while connections.join_next().await.is_some() {}
        Ended::Stopped
    }

    /// Waits until there is a connection, and a place for it.
    async fn ready(&self, endpoint: &Endpoint) -> io::Result<OwnedSemaphorePermit> {
        endpoint.loopback.ready().await?;
        let place = self.shared.gate.place().await;
        place.ok_or_else(|| io::Error::other("the gate is closed"))
    }

    /// Serves one connection to an endpoint.
    async fn attend(
        self: Arc<Self>,
        endpoint: Arc<Endpoint>,
        place: OwnedSemaphorePermit,
        stream: TcpStream,
        stop: watch::Receiver<bool>,
    ) {
        let owner = endpoint.registrant.peer();
        let client = match ClientEnd::of(&stream, self.here) {
            Ok(client) => client,
            Err(error) => {
                return tracing::error!(%error, "it cannot be seen who asks on an endpoint");
            }
        };
        let party = match client {
            ClientEnd::Held(holder) if endpoint.registrant.expects(client).is_err() => Party {
                uid: holder.uid,
                unit: None,
            },
            _ => Party::of(&owner.caller),
        };
        let pass = self.shared.gate.admit(place, party.uid);
        let _pass = match pass.and_then(|pass| pass.enter(party.unit.as_ref())) {
            Ok(pass) => pass,
            Err(limit) => {
                if let Some(_farewell) = self.shared.gate.farewell() {
                    Farewell::Crowd(limit).tell(stream).await;
                }
                return;
            }
        };
        let seat = self.shared.rounds.seat(party);
        let limits = self.shared.limits;
        let connection = async {
            let answer = |request| async {
                let _begun = seat.begin().await;
                self.answer(&endpoint, client, request).await
            };
            if let Err(error) = serve(Stream::new(stream, limits.stall), answer, limits, stop).await
            {
                tracing::debug!(%error, "a connection to an endpoint ended early");
            }
        };
        Arc::clone(&seat).pace(connection).await;
    }

    async fn answer(
        &self,
        endpoint: &Endpoint,
        client: ClientEnd,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let (head, _) = request.into_parts();
        let peer = endpoint.registrant.peer();
        match endpoint.examine(&head, client) {
            Err(stray) => self.turn_away(endpoint, client, stray).await,
            Ok(door) => match let_in(&self.shared.gate, &peer).await {
                Err(refusal) => refusal.response(None),
                Ok(()) => self.shared.service.answer_through(&peer, &head, door).await,
            },
        }
    }

    async fn turn_away(
        &self,
        endpoint: &Endpoint,
        client: ClientEnd,
        stray: Stray,
    ) -> Response<Body> {
        let owner = endpoint.registrant.registered();
        let uid = match client {
            ClientEnd::Held(holder) => Some(holder.uid),
            ClientEnd::Elsewhere | ClientEnd::Gone => None,
        };
        let counted_for = uid.unwrap_or(owner.caller.uid);
        let now = self.shared.clock.now().boot;
        if let Err(throttled) = self.strays.take(counted_for, None, now) {
            return refusal::throttled(&throttled).response(None);
        }
        tracing::warn!(
            endpoint = %endpoint.loopback.address(),
            uid = counted_for,
            reason = stray.as_str(),
            "somebody else than its program asked on an endpoint"
        );
        let stray = Strayed { why: stray, uid };
        self.shared.service.answer_stray(owner, stray).await
    }
}
