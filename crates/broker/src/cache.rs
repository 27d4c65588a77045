//! Tokens by identity and resource: fetched once for all who wait, refreshed before they end.
//!
//! The cache never decides who may have a token: it takes a [`Grant`]. A fetch is a task of its
//! own, so that a client that goes away neither cancels it nor starts another. moka bounds the
//! number of slots; freshness is judged here against the injected [`Clock`], because moka's own
//! cannot be controlled.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arcbroker_policy::Grant;
use moka::policy::EvictionPolicy;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::clock::Clock;
use crate::pace::Pace;
use crate::retry;
use crate::slot::{HARD_FLOOR, Plan, Slot, View};
use crate::token::{AccessToken, Class, FetchError, Key, TokenSource};

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
    /// Fetches for new tokens that may begin in a second, on average.
    pub fetches_per_second: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            slots: 256,
            interest: Duration::from_hours(24),
            patience: Duration::from_secs(20),
            fetch: Duration::from_mins(1),
            fetches_per_second: 5,
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
}

/// Tokens by identity and resource.
#[derive(Debug)]
pub struct TokenCache<S>(Arc<Shared<S>>);

struct Shared<S> {
    source: S,
    clock: Clock,
    options: Options,
    slots: moka::sync::Cache<Key, Arc<Entry>>,
    /// Slots with a fetch under way: moka may evict them, and they must not be made anew.
    flying: Mutex<HashMap<Key, Arc<Entry>>>,
    upstream_seen: AtomicBool,
    pace: Mutex<Pace>,
}

#[derive(Debug, Default)]
struct Entry(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    slot: Slot,
    flight: Option<watch::Receiver<Landing>>,
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
    pub fn new(source: S, clock: Clock, options: Options) -> Self {
        let slots = moka::sync::Cache::builder()
            .max_capacity(options.slots)
            .eviction_policy(EvictionPolicy::lru())
            .build();
        Self(Arc::new(Shared {
            source,
            clock,
            slots,
            flying: Mutex::default(),
            upstream_seen: AtomicBool::new(false),
            pace: Mutex::new(Pace::new(options.fetches_per_second)),
            options,
        }))
    }

    /// The token that was granted.
    ///
    /// # Errors
    ///
    /// The failure of the fetch that this request waited for, or a remembered one.
    pub async fn token(&self, grant: &Grant) -> Result<Acquired, FetchError> {
        let key = Key {
            identity: grant.identity().clone(),
            resource: grant.resource().clone(),
        };
        let (entry, paid) = self.0.entry(&key)?;
        let (plan, landing) = self.0.plan(&key, &entry, paid);
        match plan {
            Plan::Serve(token) | Plan::ServeAndRefresh(token) => Ok(Acquired {
                token,
                from: From::Cache,
            }),
            Plan::Refuse(error) => Err(error),
            Plan::Wait(most) => self.0.wait(&entry, landing, most).await,
        }
    }

    /// Refreshes what is due. To be called every 30 s: it is the only timer of the cache.
    pub fn sweep(&self) {
        let now = self.0.clock.now();
        for (key, entry) in &self.0.slots {
            let mut state = entry.lock();
            if state.flight.is_none() && state.slot.is_due(now, self.0.options.interest) {
                lock(&self.0.pace).take_anyway(now.boot);
                self.0.take_off(&key, &entry, &mut state);
            }
        }
    }

    /// Everything that is kept.
    pub fn reports(&self) -> Vec<Report> {
        let now = self.0.clock.now();
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
        self.0.slots.iter().map(report).collect()
    }
}

impl<S> Clone for TokenCache<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: TokenSource> Shared<S> {
    /// The slot of a key; a new one costs a fetch, and it is said whether that is paid for. Where
    /// there are too many new ones, none is made: it would push out one that is in use.
    fn entry(&self, key: &Key) -> Result<(Arc<Entry>, bool), FetchError> {
        if let Some(entry) = self.slots.get(key) {
            return Ok((entry, false));
        }
        let flying = lock(&self.flying).get(key).map(Arc::clone);
        let paid = flying.is_none();
        if paid {
            lock(&self.pace)
                .take(self.clock.now().boot)
                .map_err(too_many)?;
        }
        let entry = flying.unwrap_or_default();
        self.slots.insert(key.clone(), Arc::clone(&entry));
        // Only here, where a slot is made: moka drops what is over the bound when it is told to.
        self.slots.run_pending_tasks();
        Ok((entry, paid))
    }

    /// What this request does, and the fetch that it waits for; starts one where none runs.
    fn plan(
        self: &Arc<Self>,
        key: &Key,
        entry: &Arc<Entry>,
        paid: bool,
    ) -> (Plan, Option<watch::Receiver<Landing>>) {
        let mut state = entry.lock();
        let (now, flying) = (self.clock.now(), state.flight.is_some());
        let plan = state.slot.plan(now, flying, self.options.patience);
        if flying || matches!(plan, Plan::Serve(_) | Plan::Refuse(_)) {
            return (plan, state.flight.clone());
        }
        let turn = if paid {
            Ok(())
        } else {
            lock(&self.pace).take(now.boot)
        };
        match (turn, state.slot.token(now)) {
            (Ok(()), _) => {
                self.take_off(key, entry, &mut state);
                (plan, state.flight.clone())
            }
            // The next request or the sweep will see to it.
            (Err(_), Some(token)) => (Plan::Serve(token), None),
            (Err(wait), None) => (Plan::Refuse(too_many(wait)), None),
        }
    }

    /// Waits for the fetch, then gives what there is by then: also an old token, if it still lives.
    async fn wait(
        &self,
        entry: &Entry,
        landing: Option<watch::Receiver<Landing>>,
        most: Duration,
    ) -> Result<Acquired, FetchError> {
        let landed = match landing {
            Some(mut landing) => timeout(most, async move {
                landing
                    .wait_for(Option::is_some)
                    .await
                    .ok()
                    .and_then(|landed| landed.clone())
            })
            .await
            .ok()
            .flatten(),
            None => None,
        };
        if let Some(token) = entry.lock().slot.token(self.clock.now()) {
            return Ok(Acquired {
                token,
                from: From::Fetch,
            });
        }
        match landed {
            Some(Err(error)) => Err(error),
            Some(Ok(())) => Err(too_short()),
            None => Err(FetchError::new(
                Class::Deadline,
                format!(
                    "upstream gave no token within {} s; the broker goes on trying",
                    most.as_secs()
                ),
            )),
        }
    }

    /// Starts the fetch in a task of its own.
    fn take_off(self: &Arc<Self>, key: &Key, entry: &Arc<Entry>, state: &mut State) {
        let (tell, landing) = watch::channel(None);
        state.flight = Some(landing);
        lock(&self.flying).insert(key.clone(), Arc::clone(entry));
        let (shared, key, entry) = (Arc::clone(self), key.clone(), Arc::clone(entry));
        tokio::spawn(async move {
            let result = shared.fly(&key).await;
            let told = result.as_ref().map(|_| ()).map_err(FetchError::clone);
            let mut state = entry.lock();
            if let Err(error) = &told {
                tracing::warn!(resource = %key.resource, identity = %key.identity, %error, "no token from upstream");
            }
            state
                .slot
                .land(result, shared.clock.now(), rand::random_range(0.9..=1.1));
            state.flight = None;
            drop(state);
            lock(&shared.flying).remove(&key);
            tell.send_replace(Some(told));
        });
    }

    /// One fetch with its retries. A panic in it is a failure like others.
    async fn fly(self: &Arc<Self>, key: &Key) -> Result<AccessToken, FetchError> {
        let (shared, key) = (Arc::clone(self), key.clone());
        let fetch = tokio::spawn(async move { shared.attempts(&key).await });
        // What a panic says may quote what it stumbled over.
        fetch.await.unwrap_or_else(|_| {
            let detail = "the fetch ended unexpectedly; this is a defect of arcbroker";
            Err(FetchError::new(Class::Broken, detail))
        })
    }

    async fn attempts(&self, key: &Key) -> Result<AccessToken, FetchError> {
        let give_up = Instant::now() + self.options.fetch;
        let mut failures = 0;
        loop {
            let error = match self.source.fetch(key).await {
                Ok(token) if token.remaining(self.clock.now()) >= HARD_FLOOR => {
                    self.upstream_seen.store(true, Ordering::Relaxed);
                    return Ok(token);
                }
                Ok(_) => too_short(),
                Err(error) => error,
            };
            let booting =
                retry::is_booting(self.clock.now(), self.upstream_seen.load(Ordering::Relaxed));
            // What asked to be left alone is left alone: the slot remembers for how long.
            let Some(pause) = retry::pause(error.class, failures, booting)
                .map(|pause| pause.mul_f64(rand::random_range(0.8..=1.2)))
                .filter(|&pause| error.retry_after.is_none() && Instant::now() + pause < give_up)
            else {
                return Err(error);
            };
            failures += 1;
            sleep(pause).await;
            lock(&self.pace).take_anyway(self.clock.now().boot);
        }
    }
}

impl Entry {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }
}

impl<S> fmt::Debug for Shared<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// A surplus of new resources: no slot remembers it, and upstream never hears of it.
fn too_many(wait: Duration) -> FetchError {
    FetchError {
        retry_after: Some(wait),
        ..FetchError::new(
            Class::Busy,
            "more new tokens are asked for than HIMDS is asked for in a second",
        )
    }
}

/// A failure like others, so that it is remembered and upstream is not asked for every request.
fn too_short() -> FetchError {
    FetchError::new(
        Class::Garbage,
        "upstream gave a token that had less than a minute left: compare the clocks",
    )
}

/// A panic elsewhere leaves a slot as it was: every change of one is a single assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
