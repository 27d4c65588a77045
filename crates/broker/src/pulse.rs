//! Whether the daemon does what it is for, as the service manager hears it.

use std::sync::{Arc, Mutex};

use arcbroker_client::wire::Health;
use arcbroker_client::wire::path::HEALTH;
use arcbroker_policy::Caller;
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use nix::unistd::{getegid, geteuid};

use crate::brief::Party;
use crate::lock::lock;
use crate::manager::Manager;
use crate::peer::Peer;
use crate::rounds::Rounds;
use crate::service::Service;

/// Tells the service manager how the daemon is.
#[derive(Debug)]
pub struct Pulse {
    service: Arc<Service>,
    rounds: Arc<Rounds>,
    manager: Manager,
    /// The line that was told last: systemd tells it to others each time.
    told: Mutex<String>,
}

impl Pulse {
    /// Of this service, whose requests have their turns in these rounds.
    pub fn new(service: Arc<Service>, rounds: Arc<Rounds>, manager: Manager) -> Self {
        Self {
            service,
            rounds,
            manager,
            told: Mutex::default(),
        }
    }

    /// Requests are answered, by the policy that is in force.
    pub fn ready(&self) {
        let line = self.line();
        self.manager.ready(&line);
        *lock(&self.told) = line;
    }

    /// It has become known which cloud the machine is in: the next daemon need not ask.
    pub fn settled(&self) {
        let place = self.service.rules.borrow().place.clone();
        place.keep(&self.manager, &self.service.board.upstream.source());
    }

    /// A new policy is taken up.
    pub fn reloading(&self) {
        self.manager.reloading();
    }

    /// No request is accepted any more.
    pub fn stopping(&self) {
        self.manager.stopping();
    }

    /// Asks as callers do, and says so once there is an answer. Where the event loop or the turns of
    /// callers stand still there is none: then nothing is said, and the watchdog has the daemon replaced.
    pub async fn beat(&self) {
        let status = self.ask().await;
        if status == StatusCode::OK {
            self.manager.alive();
        } else {
            tracing::error!(%status, "the daemon does not answer its own request");
        }
        self.tell();
    }

    /// Says how the daemon is, if that has changed.
    pub fn tell(&self) {
        let line = self.line();
        let mut told = lock(&self.told);
        if *told != line {
            self.manager.status(&line);
            *told = line;
        }
    }

    /// One request, in its turn among those of callers.
    async fn ask(&self) -> StatusCode {
        let peer = own();
        let seat = self.rounds.seat(Party::of(&peer.caller));
        let answered = Arc::clone(&seat).pace(async {
            let _begun = seat.begin().await;
            let mut request = Request::new(());
            *request.uri_mut() = Uri::from_static(HEALTH);
            request
                .headers_mut()
                .insert(HOST, HeaderValue::from_static("localhost"));
            let (head, ()) = request.into_parts();
            self.service.answer(&peer, &head).await.status()
        });
        answered.await
    }

    /// Health in one line, which stays the same as long as nothing changes.
    fn line(&self) -> String {
        let (health, _) = self.service.board.health();
        line(health, self.service.tokens.count())
    }
}

/// This process as a caller.
fn own() -> Peer {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    Peer {
        caller: Caller::new(uid, gid, vec![gid]),
        user: None,
        pid: None,
        invocation: None,
        endpoint: None,
    }
}

fn word(health: Health) -> &'static str {
    match health {
        Health::Healthy => "healthy",
        Health::Degraded => "degraded",
        Health::Starting => "starting",
        Health::Failing => "failing",
    }
}

/// Every user can read it: why something is wrong, and for which resource, is for administrators.
fn line(health: Health, tokens: usize) -> String {
    let tokens = match tokens {
        1 => "1 token".to_owned(),
        count => format!("{count} tokens"),
    };
    match health {
        Health::Healthy => format!("healthy: {tokens}"),
        other => format!("{}: {tokens}; sudo arcbroker status says why", word(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_it_is_and_not_for_whom() {
        assert_eq!(line(Health::Healthy, 1), "healthy: 1 token");
        assert_eq!(
            line(Health::Degraded, 0),
            "degraded: 0 tokens; sudo arcbroker status says why"
        );
    }
}
