//! Tokens by identity and resource: fetched once for all who wait, refreshed before they end.
//!
//! The cache never decides who may have a token: it takes a [`Grant`]. A fetch is a task of its
//! own, so that a client that goes away neither cancels it nor starts another. moka bounds the
//! number of slots; freshness is judged here against the injected [`Clock`], because moka's own
//! cannot be controlled.

use std::collections::HashMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arcbroker_policy::{Grant, Identity, Resource};
use moka::policy::EvictionPolicy;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::chance::Chance;
use crate::clock::{Clock, Now};
use crate::deposits::Deposits;
use crate::flight::Fetcher;
use crate::lock::lock;
use crate::manager::Kept;
use crate::principals::{Principals, Standing};
use crate::slot::{Plan, Slot, View, Wish};
use crate::token::{AccessToken, Class, FetchError, Key, TokenSource, Wanted};
use crate::turns::{Turns, Urgency};

/// Half of a life is taken times a number from this range, so that keys that were fetched together
/// part.
const JITTER: RangeInclusive<f64> = 0.9..=1.1;
/// Requests that wait for one key; each holds a connection as well.
const WAITERS: usize = 1024;
/// Between two looks of a retry, whatever the clocks say.
const LEAST_PAUSE: Duration = Duration::from_millis(10);

/// Bounds of the cache.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Slots that are kept; the least recently used one goes first.
    pub slots: u64,
    /// A resource that nobody asked for in this time is not refreshed any more.
    pub interest: Duration,
    /// The longest that a request waits.
    pub patience: Duration,
    /// A fetch that has taken this long does not try again.
    pub fetch: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            slots: 256,
            interest: Duration::from_hours(24),
            patience: Duration::from_secs(20),
            // Longer than an upstream that is being updated takes.
            fetch: Duration::from_secs(90),
        }
    }
}

/// A token, and how it was had.
#[derive(Debug)]
pub struct Acquired {
    /// The token.
    pub token: Arc<AccessToken>,
    /// Whether it was there, or had to be waited for.
    pub from: From,
}

/// How a token was had.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum From {
    /// It was there.
    Cache,
    /// The request waited for a fetch.
    Fetch,
    /// The request waited for a better one, and none came in time.
    Stale,
}

/// Tokens by identity and resource.
#[derive(Debug)]
pub struct TokenCache<S>(Arc<Shared<S>>);

struct Shared<S> {
    fetcher: Arc<Fetcher<S>>,
    principals: Principals,
    deposits: Arc<Deposits>,
    options: Options,
    slots: moka::sync::Cache<Key, Arc<Entry>>,
    /// Slots with a fetch under way: moka may evict them, and they must not be made anew.
    flying: Mutex<HashMap<Key, Arc<Entry>>>,
}

#[derive(Debug)]
struct Entry {
    state: Mutex<State>,
    /// For those who wait.
    room: Semaphore,
}

#[derive(Debug, Default)]
struct State {
    slot: Slot,
    flight: Option<Flight>,
    /// A task sleeps until the next try.
    retrying: bool,
}

#[derive(Clone, Debug)]
struct Flight {
    landing: watch::Receiver<Landing>,
    urgency: Arc<Urgency>,
}

/// `None` while the fetch runs.
type Landing = Option<Result<(), FetchError>>;

/// One slot for `status`.
#[derive(Debug)]
pub struct Report {
    /// What it is kept under.
    pub key: Key,
    /// What it holds.
    pub view: View,
    /// Whether a fetch runs.
    pub flying: bool,
    /// Whether it is kept fresh.
    pub wanted: bool,
}

impl<S: TokenSource> TokenCache<S> {
    /// An empty cache. It must be used inside a tokio runtime.
    pub fn new(
        source: S,
        turns: Arc<Turns>,
        clock: Clock,
        chance: Chance,
        deposits: Deposits,
        options: Options,
    ) -> Self {
        let deposits = Arc::new(deposits);
        let held = Arc::clone(&deposits);
        let slots = moka::sync::Cache::builder()
            .max_capacity(options.slots)
            .eviction_policy(EvictionPolicy::lru())
            .eviction_listener(move |key: Arc<Key>, _, why| {
                if why.was_evicted() {
                    held.withdraw(&key);
                }
            })
            .build();
        let fetcher = Fetcher {
            source,
            turns,
            clock,
            chance,
            limit: options.fetch,
        };
        Self(Arc::new(Shared {
            fetcher: Arc::new(fetcher),
            principals: Principals::default(),
            deposits,
            options,
            slots,
            flying: Mutex::default(),
        }))
    }

    /// Takes over what was held for this daemon by the one before; gives the number of tokens that can
    /// be handed out.
    pub fn restore(&self, held: Kept) -> usize {
        self.0.restore(held)
    }

    /// The token that was granted.
    ///
    /// # Errors
    ///
    /// The failure of the fetch that this request waited for, or a remembered one.
    pub async fn token(&self, grant: &Grant, wish: Wish) -> Result<Acquired, FetchError> {
        let key = Key {
            identity: grant.identity().clone(),
            resource: grant.resource().clone(),
        };
        let (entry, admitted) = self.0.entry(&key)?;
        let give_up = Instant::now() + self.0.options.patience;
        let first = self
            .0
            .acquire(&key, &entry, admitted, give_up, wish)
            .await?;
        // A fetch that ran already was not sent for another token than the refused one.
        if first.from == From::Fetch && wish.not == Some(first.token.digest()) {
            return self.0.acquire(&key, &entry, false, give_up, wish).await;
        }
        Ok(first)
    }

    /// Refreshes what is due. To be called from time to time: only what failed has timers.
    pub fn sweep(&self) {
        self.0.sweep();
    }

    /// Drops the tokens for this resource, or all; gives their number. What fetches under way bring
    /// is thrown away.
    pub fn flush(&self, resource: Option<&Resource>) -> usize {
        self.0
            .flush(|key| resource.is_none_or(|resource| key.resource == *resource))
    }

    /// Has the tokens for this resource, or all, refreshed now; gives their number.
    pub fn refresh(&self, resource: Option<&Resource>) -> usize {
        let mut count = 0;
        for (key, entry) in &self.0.slots {
            if resource.is_none_or(|resource| key.resource == *resource) {
                entry.lock().slot.refresh();
                count += 1;
            }
        }
        self.0.sweep();
        count
    }

    /// How many tokens can be handed out.
    pub fn count(&self) -> usize {
        self.0.count()
    }

    /// Everything that is kept.
    pub fn reports(&self) -> Vec<Report> {
        let now = self.0.now();
        let report = |(key, entry): (Arc<Key>, Arc<Entry>)| {
            let mut state = entry.lock();
            let view = state.slot.view(now);
            let wanted = now.boot.saturating_sub(view.asked) <= self.0.options.interest;
            Report {
                key: (*key).clone(),
                view,
                flying: state.flight.is_some(),
                wanted,
            }
        };
        let mut reports: Vec<_> = self.0.slots.iter().map(report).collect();
        reports.sort_by_cached_key(|report| order(&report.key));
        reports
    }
}

impl<S> Clone for TokenCache<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: TokenSource> Shared<S> {
    fn now(&self) -> Now {
        self.fetcher.clock.now()
    }

    /// The slot of a key; a new one costs a fetch, and it is said whether that has been let in.
    /// Where there are too many new ones, none is made: it would push out one that is in use.
    fn entry(&self, key: &Key) -> Result<(Arc<Entry>, bool), FetchError> {
        if let Some(entry) = self.slots.get(key) {
            return Ok((entry, false));
        }
        let flying = lock(&self.flying).get(key).map(Arc::clone);
        let admitted = flying.is_none();
        if admitted {
            self.fetcher.turns.admit_new()?;
        }
        let entry = flying.unwrap_or_default();
        self.slots.insert(key.clone(), Arc::clone(&entry));
        // Only here, where a slot is made: moka drops what is over the bound when it is told to.
        self.slots.run_pending_tasks();
        Ok((entry, admitted))
    }

    async fn acquire(
        self: &Arc<Self>,
        key: &Key,
        entry: &Arc<Entry>,
        admitted: bool,
        give_up: Instant,
        wish: Wish,
    ) -> Result<Acquired, FetchError> {
        let patience = give_up.saturating_duration_since(Instant::now());
        match self.plan(key, entry, admitted, patience, wish) {
            (Plan::Serve(token) | Plan::ServeAndRefresh(token), _) => Ok(Acquired {
                token,
                from: From::Cache,
            }),
            (Plan::Refuse(error), _) => Err(error),
            (Plan::Wait(most), flight) => self.wait(entry, flight, most, wish).await,
        }
    }

    /// What this request does, and the fetch that it waits for; starts one where none runs.
    fn plan(
        self: &Arc<Self>,
        key: &Key,
        entry: &Arc<Entry>,
        admitted: bool,
        patience: Duration,
        wish: Wish,
    ) -> (Plan, Option<Flight>) {
        let mut state = entry.lock();
        let (now, flight) = (self.now(), state.flight.clone());
        let plan = state.slot.plan(now, flight.is_some(), patience, wish);
        let urgent = match &plan {
            Plan::Serve(_) | Plan::Refuse(_) => return (plan, None),
            Plan::ServeAndRefresh(_) => false,
            Plan::Wait(_) => true,
        };
        if let Some(flight) = flight {
            flight.urgency.raise();
            return (plan, Some(flight));
        }
        let token = state.slot.token(now);
        let turns = &self.fetcher.turns;
        let let_in = match token {
            _ if admitted => Ok(()),
            Some(_) => turns.check(),
            None => turns.admit_new(),
        };
        match (let_in, token) {
            (Ok(()), _) => {
                self.take_off(key, entry, &mut state, urgent);
                (plan, state.flight.clone())
            }
            (Err(_), Some(token)) if wish.not != Some(token.digest()) => (Plan::Serve(token), None),
            (Err(error), _) => (Plan::Refuse(error), None),
        }
    }

    /// Waits for the fetch, then gives what there is by then: also an old token, if it still lives.
    async fn wait(
        &self,
        entry: &Entry,
        flight: Option<Flight>,
        most: Duration,
        wish: Wish,
    ) -> Result<Acquired, FetchError> {
        let landed = match (entry.room.try_acquire(), flight) {
            (Ok(_place), Some(flight)) => flight.land(most).await,
            (Err(_), _) => Some(Err(crowded())),
            (Ok(_), None) => None,
        };
        let token = entry.lock().slot.token(self.now());
        match (landed, token) {
            (Some(Ok(())), Some(token)) => Ok(Acquired {
                token,
                from: From::Fetch,
            }),
            (_, Some(token)) if wish.not != Some(token.digest()) => Ok(Acquired {
                token,
                from: From::Stale,
            }),
            (Some(Err(error)), _) => Err(error),
            (Some(Ok(())), None) => Err(dropped()),
            (None, _) => Err(too_late(most)),
        }
    }

    /// Starts the fetch in a task of its own.
    fn take_off(self: &Arc<Self>, key: &Key, entry: &Arc<Entry>, state: &mut State, urgent: bool) {
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

    fn flush(&self, is_meant: impl Fn(&Key) -> bool) -> usize {
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

    fn restore(&self, held: Kept) -> usize {
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

    fn count(&self) -> usize {
        let now = self.now();
        let usable = |entry: &Arc<Entry>| entry.lock().slot.token(now).is_some();
        self.slots.iter().filter(|(_, entry)| usable(entry)).count()
    }

    fn sweep(self: &Arc<Self>) {
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

impl Flight {
    /// What it brought, unless that took too long.
    async fn land(mut self, most: Duration) -> Landing {
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
    fn around(slot: Slot) -> Self {
        let state = State {
            slot,
            ..State::default()
        };
        Self {
            state: Mutex::new(state),
            ..Self::default()
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl<S> fmt::Debug for Shared<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// For people, and so that nothing depends on the order of a hash table.
fn order(key: &Key) -> (String, String) {
    (key.resource.to_string(), key.identity.to_string())
}

fn crowded() -> FetchError {
    FetchError {
        retry_after: Some(Duration::from_secs(1)),
        ..FetchError::new(
            Class::Busy,
            format!("{WAITERS} requests wait for this token already"),
        )
    }
}

fn dropped() -> FetchError {
    FetchError::new(
        Class::Deadline,
        "the token was dropped as soon as it had come",
    )
}

fn too_late(most: Duration) -> FetchError {
    FetchError::new(
        Class::Deadline,
        format!(
            "upstream gave no token within {} s; the broker goes on trying",
            most.as_secs()
        ),
    )
}
