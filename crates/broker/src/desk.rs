//! Where callers ask for endpoints: the part of it that is HTTP.

use std::sync::Arc;

use arcbroker_client::wire::{ENDPOINT_PROTOCOL, Lifetime};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::http::request::Parts;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode};
use tokio::sync::mpsc;

use crate::ask::{Malformed, check_frame};
use crate::off_thread;
use crate::peer::Watched;
use crate::query::Query;
use crate::refusal;
use crate::registry::{Place, Registry};
use crate::reply::{Body, raw_json};
use crate::server::Visitor;

/// A caller that is about to get an endpoint.
#[derive(Debug)]
pub struct Newcomer {
    /// Its connection, once that is upgraded.
    pub upgrade: OnUpgrade,
    /// Who it is.
    pub caller: Arc<Watched>,
    /// For how long.
    pub lifetime: Lifetime,
    /// Its place among the endpoints.
    pub place: Place,
}

/// Takes requests for endpoints.
#[derive(Debug)]
pub struct Desk {
    registry: Arc<Registry>,
    newcomers: mpsc::UnboundedSender<Newcomer>,
}

impl Desk {
    /// One that hands callers on; of them, there are no more than the registry has places.
    pub fn new(registry: Arc<Registry>) -> (Self, mpsc::UnboundedReceiver<Newcomer>) {
        let (newcomers, received) = mpsc::unbounded_channel();
        let desk = Self {
            registry,
            newcomers,
        };
        (desk, received)
    }

    /// Answers one request: with a 101, and then the connection is not HTTP any more.
    pub fn answer(&self, visitor: Visitor<'_>, request: Request<Incoming>) -> Response<Body> {
        let (mut head, _) = request.into_parts();
        let lifetime = match read(&head) {
            Ok(lifetime) => lifetime,
            Err(malformed) => return refusal::malformed(&malformed).response(None),
        };
        if off_thread::is_behind() {
            return refusal::closing().response(None);
        }
        let place = match self.registry.place(&visitor.peer.caller) {
            Ok(place) => place,
            Err(why) => return refusal::no_place(why).response(None),
        };
        // Hyper puts it there for whoever asks for an upgrade.
        let Some(upgrade) = head.extensions.remove::<OnUpgrade>() else {
            return refusal::malformed(&Malformed::Upgrade).response(None);
        };
        let newcomer = Newcomer {
            upgrade,
            caller: Arc::clone(visitor.watched),
            lifetime,
            place,
        };
        if self.newcomers.send(newcomer).is_err() {
            return refusal::stopping().response(None);
        }
        switching()
    }
}

fn read(head: &Parts) -> Result<Lifetime, Malformed> {
    const LIFETIME: &str = "lifetime";
    check_frame(head, "GET")?;
    let protocol = head.headers.get(UPGRADE);
    if protocol.is_none_or(|protocol| protocol != ENDPOINT_PROTOCOL) {
        return Err(Malformed::Upgrade);
    }
    let mut query = Query::parse(head.uri.query())?;
    let lifetime = match query.one(LIFETIME)? {
        Some(word) => Lifetime::parse(&word).ok_or(Malformed::Value(LIFETIME))?,
        None => Lifetime::default(),
    };
    query.finish()?;
    Ok(lifetime)
}

fn switching() -> Response<Body> {
    let mut response = raw_json(Default::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.clear();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(ENDPOINT_PROTOCOL));
    response
}
