//! One slot of the cache with the fetch that is under way for it.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::lock::lock;
use crate::slot::Slot;
use crate::token::FetchError;
use crate::turns::Urgency;

/// Requests that wait for one key; each holds a connection as well.
pub(super) const WAITERS: usize = 1024;

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) state: Mutex<State>,
    /// For those who wait.
    pub(super) room: Semaphore,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) slot: Slot,
    pub(super) flight: Option<Flight>,
    /// A task sleeps until the next try.
    pub(super) retrying: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Flight {
    pub(super) landing: watch::Receiver<Landing>,
    pub(super) urgency: Arc<Urgency>,
}

/// `None` while the fetch runs.
pub(super) type Landing = Option<Result<(), FetchError>>;

impl Flight {
    /// What it brought, unless that took too long.
    pub(super) async fn land(mut self, most: Duration) -> Landing {
        let landed = timeout(most, self.landing.wait_for(Option::is_some)).await;
        landed.ok()?.ok()?.clone()
    }
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            room: Semaphore::new(WAITERS),
        }
    }
}

impl Entry {
    pub(super) fn around(slot: Slot) -> Self {
        let state = State {
            slot,
            ..State::default()
        };
        Self {
            state: Mutex::new(state),
            ..Self::default()
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}
