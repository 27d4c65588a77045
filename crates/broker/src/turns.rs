//! When upstream may be talked to: so many conversations at a time, so many a second, not while it
//! wants to be left alone, and not while it does not work.
//!
//! Refreshes that nobody waits for share one conversation, so that a request that does wait finds
//! another one free.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::sleep;

use crate::breaker::{Breaker, Entry, Verdict};
use crate::chance::Chance;
use crate::clock::{Clock, Now};
use crate::pace::Pace;
use crate::retry;
use crate::token::{Class, FetchError};

/// What upstream is burdened with.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Conversations at one time.
    pub conversations: usize,
    /// Conversations that may begin in a second, on average and at once; and, counted apart,
    /// resources that are asked for the first time.
    pub per_second: u32,
}

/// The turns of everything that asks upstream.
#[derive(Debug)]
pub struct Turns {
    clock: Clock,
    chance: Chance,
    conversations: Semaphore,
    background: Semaphore,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    calls: Pace,
    new_keys: Pace,
    breaker: Breaker,
    /// The failure that it opened for.
    why: Option<FetchError>,
    /// Since boot: what asked to be left alone is left alone, and not only by the key that it told.
    quiet_until: Duration,
    /// It has worked since the start.
    seen: bool,
    /// The breaker has closed, and nobody has looked after what was held up since.
    recovered: bool,
}

/// Whether somebody waits for a fetch: one that began in the background can become urgent.
#[derive(Debug)]
pub struct Urgency(watch::Sender<bool>);

/// One conversation. Dropped without an end, it says nothing about upstream.
#[derive(Debug)]
pub struct Turn<'t> {
    turns: &'t Turns,
    entry: Entry,
    told: bool,
    _places: (SemaphorePermit<'t>, Option<SemaphorePermit<'t>>),
}

/// For `status`.
#[derive(Debug)]
pub struct View {
    /// Failures in a row, where they are so many that upstream is left alone.
    pub failures: Option<u32>,
    /// Until it may be asked again.
    pub shut_for: Option<Duration>,
}

enum Begin {
    Now(Entry),
    Later(Duration),
}

impl Urgency {
    /// Whether somebody waits from the start.
    pub fn new(urgent: bool) -> Arc<Self> {
        Arc::new(Self(watch::Sender::new(urgent)))
    }

    /// Somebody waits now.
    pub fn raise(&self) {
        self.0.send_replace(true);
    }

    async fn raised(&self) {
        // It cannot be closed: this holds the sender.
        self.0
            .subscribe()
            .wait_for(|urgent| *urgent)
            .await
            .map(drop)
            .unwrap_or_default();
    }
}

impl Turns {
    /// Everything is open.
    pub fn new(options: Options, clock: Clock, chance: Chance) -> Self {
        Self {
            clock,
            chance,
            conversations: Semaphore::new(options.conversations),
            background: Semaphore::new(1),
            state: Mutex::new(State {
                calls: Pace::new(options.per_second),
                new_keys: Pace::new(options.per_second),
                breaker: Breaker::default(),
                why: None,
                quiet_until: Duration::ZERO,
                seen: false,
                recovered: false,
            }),
        }
    }

    /// Whether a conversation could begin at this moment, were there a place.
    ///
    /// # Errors
    ///
    /// Why it could not, and for how long.
    pub fn check(&self) -> Result<(), FetchError> {
        self.lock().check(self.clock.now().boot)
    }

    /// Lets in something that upstream was never asked for: callers choose resources, and made-up
    /// ones must not become load.
    ///
    /// # Errors
    ///
    /// When there are too many, or [`Turns::check`] fails.
    pub fn admit_new(&self) -> Result<(), FetchError> {
        let now = self.clock.now().boot;
        let mut state = self.lock();
        state.check(now)?;
        state.new_keys.take(now).map_err(too_many)
    }

    /// Waits for a turn.
    ///
    /// # Errors
    ///
    /// As [`Turns::check`]: nothing waits for upstream to recover.
    pub async fn enter(&self, urgency: &Urgency) -> Result<Turn<'_>, FetchError> {
        self.check()?;
        let background = tokio::select! {
            biased;
            () = urgency.raised() => None,
            place = self.background.acquire() => Some(place.map_err(|_| stopping())?),
        };
        let place = self.conversations.acquire().await.map_err(|_| stopping())?;
        loop {
            let begin = self.lock().begin(self.clock.now().boot)?;
            match begin {
                Begin::Later(wait) => sleep(wait).await,
                Begin::Now(entry) => {
                    return Ok(Turn {
                        turns: self,
                        entry,
                        told: false,
                        _places: (place, background),
                    });
                }
            }
        }
    }

    /// True once after each recovery: what was held up is to be looked after.
    pub fn take_recovery(&self) -> bool {
        std::mem::take(&mut self.lock().recovered)
    }

    /// Whether upstream may simply not be up yet.
    pub fn is_booting(&self) -> bool {
        retry::is_booting(self.clock.now(), self.lock().seen)
    }

    /// What `status` shows.
    pub fn view(&self) -> View {
        let now = self.clock.now().boot;
        let state = self.lock();
        let failures = state.breaker.failures();
        View {
            failures: state.breaker.is_open().then_some(failures),
            shut_for: state.breaker.shut_for(now).max(state.quiet_for(now)),
        }
    }

    /// Ends a conversation, of which `judge` says what it means.
    fn end(&self, entry: Entry, judge: impl FnOnce(&mut State, Now) -> Verdict) {
        let (now, jitter) = (self.clock.now(), self.chance.between(&retry::JITTER));
        let mut state = self.lock();
        let verdict = judge(&mut state, now);
        state.seen |= verdict == Verdict::Well;
        if !state.breaker.leave(entry, verdict, now.boot, jitter) {
            return;
        }
        if state.breaker.is_open() {
            let failures = state.breaker.failures();
            tracing::warn!(
                failures,
                "upstream does not work: it is only tried from time to time"
            );
        } else {
            state.recovered = true;
            tracing::info!("upstream works again");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves it as it was: every change is complete in itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// Ends the conversation with what came of it.
    pub fn end<T>(mut self, result: &Result<T, FetchError>) {
        self.told = true;
        self.turns.end(self.entry, |state, now| match result {
            Ok(_) => Verdict::Well,
            Err(error) => state.learn(error, now),
        });
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.told {
            self.turns.end(self.entry, |_, _| Verdict::Unknown);
        }
    }
}

impl State {
    fn quiet_for(&self, now: Duration) -> Option<Duration> {
        self.quiet_until
            .checked_sub(now)
            .filter(|left| !left.is_zero())
    }

    fn check(&self, now: Duration) -> Result<(), FetchError> {
        if let Some(left) = self.quiet_for(now) {
            return Err(quiet(left));
        }
        match self.breaker.shut_for(now) {
            Some(left) => Err(self.shut(left)),
            None => Ok(()),
        }
    }

    fn begin(&mut self, now: Duration) -> Result<Begin, FetchError> {
        self.check(now)?;
        if let Err(wait) = self.calls.take(now) {
            return Ok(Begin::Later(wait));
        }
        let entry = self.breaker.enter(now).map_err(|left| self.shut(left))?;
        Ok(Begin::Now(entry))
    }

    fn learn(&mut self, error: &FetchError, now: Now) -> Verdict {
        let of_all = matches!(
            error.class,
            Class::Server | Class::Throttled | Class::Upgrading
        );
        if let Some(wait) = error.retry_after.filter(|_| of_all) {
            self.quiet_until = self.quiet_until.max(now.boot + wait);
        }
        let verdict = verdict(error.class, retry::is_booting(now, self.seen));
        if verdict == Verdict::Ill {
            self.why = Some(error.clone());
        }
        verdict
    }

    /// The failure that it opened for, with what is left of the wait.
    fn shut(&self, left: Duration) -> FetchError {
        let why = self
            .why
            .clone()
            .unwrap_or_else(|| FetchError::new(Class::Broken, "upstream does not work"));
        FetchError {
            retry_after: Some(left),
            ..why
        }
    }
}

/// While the machine boots, an upstream that is not up is not broken.
fn verdict(class: Class, booting: bool) -> Verdict {
    match class {
        Class::Down | Class::Server if booting => Verdict::Unknown,
        Class::Down | Class::Broken | Class::Server => Verdict::Ill,
        Class::Hostile | Class::Upgrading | Class::Busy | Class::Deadline => Verdict::Unknown,
        Class::StaleKey
        | Class::Challenge
        | Class::KeyDenied
        | Class::Permanent
        | Class::UnknownIdentity
        | Class::Refused
        | Class::Throttled
        | Class::Garbage => Verdict::Well,
    }
}

fn quiet(left: Duration) -> FetchError {
    FetchError {
        retry_after: Some(left),
        ..FetchError::new(
            Class::Throttled,
            format!(
                "upstream was not asked: it wants no request for another {} s",
                left.as_secs()
            ),
        )
    }
}

/// A surplus of new resources: no slot remembers it, and upstream never hears of it.
fn too_many(wait: Duration) -> FetchError {
    FetchError {
        retry_after: Some(wait),
        ..FetchError::new(
            Class::Busy,
            "more new tokens are asked for than upstream is asked for in a second",
        )
    }
}

fn stopping() -> FetchError {
    FetchError::new(Class::Broken, "the broker is stopping")
}

#[cfg(test)]
mod tests;
