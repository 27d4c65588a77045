//! How many may be connected: all together, and each user alone.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arcbroker_client::wire::ConnectionCounts;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many may be told at one time that there is no room for them.
const FAREWELLS: usize = 64;

/// Counts connections.
#[derive(Debug)]
pub struct Gate {
    all: Arc<Semaphore>,
    farewells: Arc<Semaphore>,
    per_user: usize,
    users: Mutex<HashMap<u32, usize>>,
    refused: AtomicU64,
}

/// A connection that is counted until it is dropped.
#[derive(Debug)]
pub struct Pass {
    gate: Arc<Gate>,
    uid: u32,
    _place: OwnedSemaphorePermit,
}

impl Gate {
    /// At most `all` connections, and at most `per_user` of one user, so that none takes them all.
    pub fn new(all: usize, per_user: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all)),
            farewells: Arc::new(Semaphore::new(FAREWELLS)),
            per_user,
            users: Mutex::default(),
            refused: AtomicU64::new(0),
        }
    }

    /// A place for the next connection, whoever it is; waits until there is one.
    pub async fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.all).acquire_owned().await.ok()
    }

    /// Lets one user in, or not.
    pub fn admit(self: &Arc<Self>, place: OwnedSemaphorePermit, uid: u32) -> Option<Pass> {
        let mut users = self.users();
        let open = users.entry(uid).or_default();
        if *open >= self.per_user {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        *open += 1;
        Some(Pass {
            gate: Arc::clone(self),
            uid,
            _place: place,
        })
    }

    /// A place to be told in that there is none, as long as only a few are told at a time.
    pub fn farewell(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.farewells).try_acquire_owned().ok()
    }

    /// For `status`.
    pub fn counts(&self) -> ConnectionCounts {
        let open = self.users().values().map(|&open| open as u64).sum();
        ConnectionCounts {
            open,
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    fn users(&self) -> MutexGuard<'_, HashMap<u32, usize>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut users = self.gate.users();
        if let Some(open) = users.get_mut(&self.uid) {
            *open -= 1;
            if *open == 0 {
                users.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn t23_one_user_cannot_take_the_places_of_another() {
        let gate = Arc::new(Gate::new(8, 2));
        let enter = async |uid| gate.admit(gate.place().await.unwrap(), uid);
        let held = [enter(1).await.unwrap(), enter(1).await.unwrap()];
        assert!(enter(1).await.is_none());
        let other = enter(2).await.unwrap();
        assert_eq!(
            gate.counts(),
            ConnectionCounts {
                open: 3,
                refused: 1
            }
        );
        drop(held);
        assert!(enter(1).await.is_some());
        drop(other);
        assert_eq!(gate.counts().open, 0);
        assert!(gate.users().is_empty());
    }
}
