//! Tokens by identity and resource: fetched once for all who wait, refreshed before they end.
//!
//! The cache never decides who may have a token: it takes a [`Grant`]. A fetch is a task of its
//! own, so that a client that goes away neither cancels it nor starts another. moka bounds the
//! number of slots; freshness is judged here against the injected [`Clock`], because moka's own
//! cannot be controlled.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arcbroker_policy::{Grant, Resource};
use moka::policy::EvictionPolicy;
use tokio::time::Instant;

use crate::chance::Chance;
use crate::clock::{Clock, Now};
use crate::deposits::Deposits;
use crate::flight::Fetcher;
use crate::lock::lock;
use crate::manager::Kept;
use crate::principals::Principals;
use crate::slot::{Plan, View, Wish};
use crate::token::{AccessToken, Class, FetchError, Key, TokenSource};
use crate::turns::Turns;

mod background;
mod entry;

use entry::{Entry, Flight, WAITERS};

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
            // Without it, the first look at all keys makes room for thousands, and every later one goes through it.
            .initial_capacity(64)
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
