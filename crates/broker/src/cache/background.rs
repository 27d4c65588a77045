//! What goes on behind requests: fetches, sweeps, retries, and what is dropped.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use arcbroker_policy::Identity;
use tokio::sync::watch;
use tokio::time::sleep;

use super::entry::{Entry, Flight, State};
use super::{Shared, order};
use crate::lock::lock;
use crate::manager::Kept;
use crate::principals::Standing;
use crate::token::{FetchError, Key, TokenSource, Wanted};
use crate::turns::Urgency;

/// Half of a life is taken times a number from this range, so that keys that were fetched together
/// part.
const JITTER: RangeInclusive<f64> = 0.9..=1.1;
/// Between two looks of a retry, whatever the clocks say.
const LEAST_PAUSE: Duration = Duration::from_millis(10);

impl<S: TokenSource> Shared<S> {
    /// Starts the fetch in a task of its own.
    pub(super) fn take_off(
        self: &Arc<Self>,
        key: &Key,
        entry: &Arc<Entry>,
        state: &mut State,
        urgent: bool,
    ) {
        let (tell, landing) = watch::channel(None);
        let urgency = Urgency::new(urgent);
        state.flight = Some(Flight {
            landing,
            urgency: Arc::clone(&urgency),
        });
        lock(&self.flying).insert(key.clone(), Arc::clone(entry));
        let (shared, key, entry) = (Arc::clone(self), key.clone(), Arc::clone(entry));
        tokio::spawn(async move {
            let told = shared.fly(&key, &entry, &urgency).await;
            lock(&shared.flying).remove(&key);
            let landed = told.is_ok();
            tell.send_replace(Some(told));
            if !landed {
                shared.retry(&key, &entry).await;
            } else if shared.fetcher.turns.take_recovery() {
                shared.sweep();
            }
        });
    }

    /// Fetches until something lands that is still of use: a flush meanwhile makes it worthless.
    async fn fly(
        &self,
        key: &Key,
        entry: &Entry,
        urgency: &Arc<Urgency>,
    ) -> Result<(), FetchError> {
        loop {
            let errand = entry.lock().slot.errand(self.now());
            let changes = self.principals.changes(&key.identity);
            let wanted = Wanted {
                key: key.clone(),
                bypass: errand.bypass,
            };
            let result = self.fetcher.fetch(wanted, Arc::clone(urgency)).await;
            let told = result.as_ref().map(|_| ()).map_err(FetchError::clone);
            if let Err(error) = &told {
                tracing::warn!(resource = %key.resource, identity = %key.identity, %error, "no token from upstream");
            }
            let standing = result.as_ref().ok().map(|token| {
                self.principals
                    .learn(&key.identity, token.claims(), changes)
            });
            if standing == Some(Standing::Another) {
                self.forget(&key.identity);
            }
            let mut state = entry.lock();
            let is_worthless = match standing {
                Some(Standing::Same) => !state.slot.expects(errand),
                Some(Standing::Former) => true,
                Some(Standing::Another) | None => false,
            };
            if is_worthless {
                continue;
            }
            let jitter = self.fetcher.chance.between(&JITTER);
            state.slot.land(errand, result, self.now(), jitter);
            state.flight = None;
            if told.is_ok() && self.slots.contains_key(key) {
                self.deposits.put(key, &state.slot);
            }
            return told;
        }
    }

    /// The machine is somebody else now: what it was given before is not its own any more.
    fn forget(&self, identity: &Identity) {
        let dropped = self.flush(|key| key.identity == *identity);
        tracing::warn!(%identity, dropped, "upstream gives tokens of another identity than before: those from before were dropped");
    }

    pub(super) fn flush(&self, is_meant: impl Fn(&Key) -> bool) -> usize {
        // Also those that moka has evicted while they are fetched.
        let mut entries: HashMap<Key, Arc<Entry>> = lock(&self.flying).clone();
        entries.extend(
            self.slots
                .iter()
                .map(|(key, entry)| ((*key).clone(), entry)),
        );
        let meant = entries.iter().filter(|(key, _)| is_meant(key));
        meant.map(|(key, entry)| self.empty(key, entry)).count()
    }

    fn empty(&self, key: &Key, entry: &Entry) {
        let mut state = entry.lock();
        state.slot.flush();
        if self.slots.contains_key(key) {
            self.deposits.put(key, &state.slot);
        }
    }

    pub(super) fn restore(&self, held: Kept) -> usize {
        for (key, mut slot) in self.deposits.take(held) {
            let changes = self.principals.changes(&key.identity);
            if let Some(token) = slot.token(self.now()) {
                let standing = self
                    .principals
                    .learn(&key.identity, token.claims(), changes);
                if standing == Standing::Another {
                    self.forget(&key.identity);
                }
            }
            self.slots.insert(key, Arc::new(Entry::around(slot)));
        }
        self.slots.run_pending_tasks();
        self.count()
    }

    pub(super) fn count(&self) -> usize {
        let now = self.now();
        let usable = |entry: &Arc<Entry>| entry.lock().slot.token(now).is_some();
        self.slots.iter().filter(|(_, entry)| usable(entry)).count()
    }

    pub(super) fn sweep(self: &Arc<Self>) {
        let now = self.now();
        let is_open = self.fetcher.turns.check().is_ok();
        let mut slots: Vec<_> = self.slots.iter().collect();
        // Who has least left comes first; and always in the same order.
        slots.sort_by_cached_key(|(key, entry)| (entry.lock().slot.remaining(now), order(key)));
        for (key, entry) in slots {
            if is_open {
                self.take_off_if_due(&key, &entry);
            } else if entry.lock().slot.is_due(now, self.options.interest) {
                let shared = Arc::clone(self);
                tokio::spawn(async move { shared.retry(&key, &entry).await });
            }
        }
    }

    fn take_off_if_due(self: &Arc<Self>, key: &Key, entry: &Arc<Entry>) {
        let mut state = entry.lock();
        let now = self.now();
        if state.flight.is_none() && state.slot.is_due(now, self.options.interest) {
            self.take_off(key, entry, &mut state, false);
        }
    }

    /// Tries as soon as that may be done: the next sweep may be half a minute away.
    async fn retry(self: Arc<Self>, key: &Key, entry: &Arc<Entry>) {
        while let Some(pause) = self.next_try(entry) {
            sleep(pause.max(LEAST_PAUSE)).await;
            entry.lock().retrying = false;
            if !self.slots.contains_key(key) {
                return;
            }
            if self.fetcher.turns.check().is_ok() {
                self.take_off_if_due(key, entry);
            }
        }
    }

    /// When to try again; `None` where that is not needed, or somebody else's affair.
    fn next_try(&self, entry: &Entry) -> Option<Duration> {
        let mut state = entry.lock();
        if state.retrying || state.flight.is_some() {
            return None;
        }
        let hold = state.slot.retry_in(self.now(), self.options.interest)?;
        state.retrying = true;
        let shut = self
            .fetcher
            .turns
            .check()
            .err()
            .and_then(|error| error.retry_after);
        Some(hold.max(shut.unwrap_or_default()))
    }
}
