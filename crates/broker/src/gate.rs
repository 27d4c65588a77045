//! How many may be connected: all together, each user alone, and each unit alone; and how often they
//! may ask.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arcbroker_client::wire::ConnectionCounts;
use arcbroker_policy::Unit;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::clock::Clock;
use crate::peer::Peer;
use crate::throttle::{self, Limit, Notices, Throttle, Throttled};

/// How many may be told at one time that there is no room for them.
const FAREWELLS: usize = 64;

/// The limits.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Connections in all.
    pub all: usize,
    /// Connections of one user.
    pub per_user: usize,
    /// Connections of one unit.
    pub per_unit: usize,
    /// Requests.
    pub requests: throttle::Options,
}

/// Counts connections and requests.
#[derive(Debug)]
pub struct Gate {
    options: Options,
    clock: Clock,
    all: Arc<Semaphore>,
    farewells: Arc<Semaphore>,
    open: Mutex<Open>,
    refused: AtomicU64,
    throttle: Throttle,
    notices: Notices,
}

/// Connections, each counted for its user and its unit.
#[derive(Debug, Default)]
struct Open {
    users: HashMap<u32, usize>,
    units: HashMap<Unit, usize>,
}

/// A connection that is counted until it is dropped.
#[derive(Debug)]
pub struct Pass {
    gate: Arc<Gate>,
    uid: u32,
    unit: Option<Unit>,
    _place: OwnedSemaphorePermit,
}

impl Gate {
    /// Nobody is connected.
    pub fn new(options: Options, clock: Clock) -> Self {
        Self {
            options,
            clock,
            all: Arc::new(Semaphore::new(options.all)),
            farewells: Arc::new(Semaphore::new(FAREWELLS)),
            open: Mutex::default(),
            refused: AtomicU64::new(0),
            throttle: Throttle::new(options.requests),
            notices: Notices::default(),
        }
    }

    /// A place for the next connection, whoever it is; waits until there is one.
    pub async fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.all).acquire_owned().await.ok()
    }

    /// Lets one user in.
    ///
    /// # Errors
    ///
    /// When the user has too many connections.
    pub fn admit(self: &Arc<Self>, place: OwnedSemaphorePermit, uid: u32) -> Result<Pass, Limit> {
        if !enter(&mut self.open().users, uid, self.options.per_user) {
            return Err(self.refuse(uid, None, Limit::UserConnections));
        }
        Ok(Pass {
            gate: Arc::clone(self),
            uid,
            unit: None,
            _place: place,
        })
    }

    /// Lets one request in.
    ///
    /// # Errors
    ///
    /// When the user or the unit asks too often.
    pub fn ask(&self, peer: &Peer) -> Result<(), Throttled> {
        if self.throttle.is_off() {
            return Ok(());
        }
        let (caller, now) = (&peer.caller, self.clock.now().boot);
        let (uid, unit) = (caller.uid, caller.unit.as_ref());
        let taken = self.throttle.take(uid, unit, now);
        if let Err(throttled) = &taken {
            self.notices.tell(uid, unit, throttled.limit, now);
        }
        taken
    }

    /// A place to be told in that there is none, as long as only a few are told at a time.
    pub fn farewell(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.farewells).try_acquire_owned().ok()
    }

    /// For `status`.
    pub fn counts(&self) -> ConnectionCounts {
        let open = self.open().users.values().map(|&open| open as u64).sum();
        ConnectionCounts {
            open,
            refused: self.refused.load(Ordering::Relaxed),
            endpoints: 0,
        }
    }

    /// Requests over a limit since the start, for `status`.
    pub fn throttled(&self) -> u64 {
        self.throttle.throttled()
    }

    fn refuse(&self, uid: u32, unit: Option<&Unit>, limit: Limit) -> Limit {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.notices.tell(uid, unit, limit, self.clock.now().boot);
        limit
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass {
    /// Counts the connection for its unit as well, now that it is known.
    ///
    /// # Errors
    ///
    /// When the unit has too many connections.
    pub fn enter(mut self, unit: Option<&Unit>) -> Result<Self, Limit> {
        if let Some(unit) = unit {
            let most = self.gate.options.per_unit;
            if !enter(&mut self.gate.open().units, unit.clone(), most) {
                return Err(self
                    .gate
                    .refuse(self.uid, Some(unit), Limit::UnitConnections));
            }
            self.unit = Some(unit.clone());
        }
        Ok(self)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut open = self.gate.open();
        leave(&mut open.users, &self.uid);
        if let Some(unit) = &self.unit {
            leave(&mut open.units, unit);
        }
    }
}

fn enter<K: Eq + Hash>(open: &mut HashMap<K, usize>, who: K, most: usize) -> bool {
    let open = open.entry(who).or_default();
    let has_room = *open < most;
    *open += usize::from(has_room);
    has_room
}

fn leave<K: Eq + Hash>(open: &mut HashMap<K, usize>, who: &K) {
    if let Some(left) = open.get_mut(who) {
        *left -= 1;
        if *left == 0 {
            open.remove(who);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(all: usize, per_user: usize, per_unit: usize) -> Arc<Gate> {
        let options = Options {
            all,
            per_user,
            per_unit,
            requests: throttle::Options::default(),
        };
        Arc::new(Gate::new(options, Clock::system()))
    }

    #[tokio::test]
    async fn t23_one_user_cannot_take_the_places_of_another() {
        let gate = gate(8, 2, 8);
        let enter = async |uid| gate.admit(gate.place().await.unwrap(), uid);
        let held = [enter(1).await.unwrap(), enter(1).await.unwrap()];
        assert_eq!(enter(1).await.unwrap_err(), Limit::UserConnections);
        let other = enter(2).await.unwrap();
        assert_eq!(
            gate.counts(),
            ConnectionCounts {
                open: 3,
                refused: 1,
                endpoints: 0
            }
        );
        drop(held);
        assert!(enter(1).await.is_ok());
        drop(other);
        assert_eq!(gate.counts().open, 0);
        assert!(gate.open().users.is_empty());
    }

    /// What is logged, as text.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_user_over_its_connections_is_named_in_the_log_once() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone());
        let _guard = tracing::subscriber::set_default(subscriber.with_ansi(false).finish());
        let gate = gate(8, 1, 8);
        let enter = async || gate.admit(gate.place().await.unwrap(), 64_101);
        let _held = enter().await.unwrap();
        assert!(log.0.lock().unwrap().is_empty());
        for _ in 0..3 {
            assert_eq!(enter().await.unwrap_err(), Limit::UserConnections);
        }
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        for part in ["WARN", "uid=64101", "connections-per-user", "gets 429"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[tokio::test]
    async fn t23_one_unit_cannot_take_the_places_of_another_whatever_its_users() {
        let gate = gate(8, 8, 2);
        let (web, batch) = (
            Unit::parse("web.service").unwrap(),
            Unit::parse("batch.service").unwrap(),
        );
        let enter = async |uid, unit| {
            let pass = gate.admit(gate.place().await.unwrap(), uid)?;
            pass.enter(Some(unit))
        };
        let held = [enter(1, &web).await.unwrap(), enter(2, &web).await.unwrap()];
        assert_eq!(enter(3, &web).await.unwrap_err(), Limit::UnitConnections);
        let other = enter(1, &batch).await.unwrap();
        assert_eq!(gate.counts().open, 3, "who is turned away is not counted");
        drop(held);
        assert!(enter(3, &web).await.is_ok());
        drop(other);
        let open = gate.open();
        assert!(open.users.is_empty() && open.units.is_empty());
    }
}
