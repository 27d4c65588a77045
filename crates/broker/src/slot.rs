//! One slot of the cache as a pure state machine: what a request does, given what is there.
//!
//! A slot holds a token, or a remembered failure, or both: a failure beside a valid token delays
//! the next refresh and takes nothing away. A token only gives way to one that ends later, unless
//! it is known to be of no use any more.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Now;
use crate::digest::Digest;
use crate::hold::hold;
use crate::token::{AccessToken, FetchError};

mod snapshot;

pub use snapshot::Snapshot;

/// With less than this left, a request waits for a better token where one may be had: clients with
/// caches of their own do not keep such a token, and would ask again for every call.
pub const SOFT_FLOOR: Duration = Duration::from_mins(5);

/// A token with less than this left is not handed out: it may end before it is used.
pub const HARD_FLOOR: Duration = Duration::from_mins(1);

/// The gap between refreshes when upstream keeps giving the same token.
const SAME_AGAIN: Duration = Duration::from_mins(1);

/// Two expiries closer than this belong to the same token.
const SAME_EXPIRY: Duration = Duration::from_secs(5);

/// Upstream is not asked past its own cache more often than this for one key.
const BYPASS_GAP: Duration = Duration::from_mins(1);

/// With this left or less, upstream's own cache is passed by if it gave the same token again.
const LITTLE_LEFT: Duration = Duration::from_mins(10);

/// A step of the wall clock against the boot clock that makes the life of a token doubtful.
const STEP: Duration = Duration::from_mins(2);

/// One slot.
#[derive(Debug, Default)]
pub struct Slot {
    token: Option<Held>,
    failure: Option<Failure>,
    /// Since boot: when somebody last asked.
    asked: Duration,
    /// There was a token before, so that there can be one again.
    had_token: bool,
    /// Goes up when everything that upstream said before is of no use any more.
    generation: u64,
    /// The token that a resource refused: the next one replaces it, whenever it ends.
    refused: Option<Digest>,
    /// Somebody wants one that upstream has not kept.
    bypass_wanted: bool,
    /// Since boot: when upstream was last asked past its own cache.
    bypassed: Option<Duration>,
}

/// A token and when to replace it.
#[derive(Debug)]
struct Held {
    token: Arc<AccessToken>,
    /// It is due once this much or less is left.
    refresh_below: Duration,
    /// Since boot: not to be refreshed before.
    hold_until: Duration,
    /// By how much the wall is ahead of the boot clock, as it was when the token was judged.
    lead: Lead,
    /// Upstream gave it more than once.
    same_again: bool,
    /// The administrator wants it refreshed.
    due_now: bool,
}

/// A remembered failure.
#[derive(Debug)]
struct Failure {
    error: FetchError,
    /// In a row.
    count: u32,
    /// Since boot: a request is told of it until then.
    hold_until: Duration,
    /// Since boot: without a request, nothing is tried before.
    retry_at: Duration,
}

/// What a request wants besides a token.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Wish {
    /// Not this one: a resource has refused it.
    pub not: Option<Digest>,
    /// One that upstream has not kept.
    pub bypass: bool,
}

/// What to do for one request.
#[derive(Debug)]
pub enum Plan {
    /// Hand out the token.
    Serve(Arc<AccessToken>),
    /// Hand out the token, and have it refreshed behind the request.
    ServeAndRefresh(Arc<AccessToken>),
    /// Fetch, or join the fetch that runs. Then hand out what there is.
    Wait(Duration),
    /// Repeat the failure.
    Refuse(FetchError),
}

/// What a fetch is to bring, as it was when it began.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Errand {
    /// Whether upstream is asked past its own cache.
    pub bypass: bool,
    generation: u64,
}

/// For `status`.
#[derive(Debug)]
pub struct View {
    /// The token, unless it has expired.
    pub token: Option<Arc<AccessToken>>,
    /// The last failure, unless a fetch has succeeded since.
    pub failure: Option<FetchError>,
    /// Until the next refresh.
    pub refresh_in: Option<Duration>,
    /// Since boot: when somebody last asked.
    pub asked: Duration,
    /// Whether there was a token before.
    pub had_token: bool,
}

impl Slot {
    /// What a request does now. `patience` is the longest that it can wait.
    pub fn plan(&mut self, now: Now, flying: bool, patience: Duration, wish: Wish) -> Plan {
        self.asked = now.boot;
        self.expire(now);
        let held_off = self.held_off(now);
        let Some(held) = &self.token else {
            return match &self.failure {
                Some(failure) if held_off && !flying => Plan::Refuse(failure.shifted(now)),
                _ => Plan::Wait(patience),
            };
        };
        let (remaining, is_due) = (held.token.remaining(now), held.is_due(now));
        let token = Arc::clone(&held.token);
        if let Some(plan) = self.grant_wish(now, &token, patience, wish) {
            return plan;
        }
        if !is_due || (held_off && !flying) {
            Plan::Serve(token)
        } else if remaining < SOFT_FLOOR {
            Plan::Wait(patience.min(remaining.saturating_sub(HARD_FLOOR)))
        } else if flying {
            Plan::Serve(token)
        } else {
            Plan::ServeAndRefresh(token)
        }
    }

    /// Whether the sweep should fetch: due, or lost in an outage; wanted within `interest`; and not
    /// held off.
    pub fn is_due(&mut self, now: Now, interest: Duration) -> bool {
        self.retry_in(now, interest)
            .is_some_and(|pause| pause.is_zero())
    }

    /// How long until a fetch may be tried without a request; `None` where none is needed.
    pub fn retry_in(&mut self, now: Now, interest: Duration) -> Option<Duration> {
        let retry_at = self.failure.as_ref().map(|failure| failure.retry_at);
        let at = self.hold_until(now).max(retry_at.unwrap_or_default());
        self.needs_fetch(now, interest)
            .then(|| at.saturating_sub(now.boot))
    }

    /// What is left of the token, or nothing: who has least comes first.
    pub fn remaining(&self, now: Now) -> Duration {
        self.token
            .as_ref()
            .map_or(Duration::ZERO, |held| held.token.remaining(now))
    }

    /// What a fetch that begins now is to bring.
    pub fn errand(&self, now: Now) -> Errand {
        let kept_too_long = self
            .token
            .as_ref()
            .is_some_and(|held| held.same_again && held.token.remaining(now) <= LITTLE_LEFT);
        Errand {
            bypass: (self.refused.is_some() || self.bypass_wanted || kept_too_long)
                && self.may_bypass(now),
            generation: self.generation,
        }
    }

    /// Whether what the fetch brings is still of use.
    pub fn expects(&self, errand: Errand) -> bool {
        errand.generation == self.generation
    }

    /// The token, if it may still be handed out.
    pub fn token(&mut self, now: Now) -> Option<Arc<AccessToken>> {
        self.expire(now);
        self.token.as_ref().map(|held| Arc::clone(&held.token))
    }

    /// Takes what a fetch brought. `jitter` is between 0.9 and 1.1.
    pub fn land(
        &mut self,
        errand: Errand,
        result: Result<AccessToken, FetchError>,
        now: Now,
        jitter: f64,
    ) {
        if errand.bypass {
            self.note_bypass(result.as_ref().err(), now);
        }
        match result {
            Ok(token) => self.land_token(token, errand, now, jitter),
            Err(error) => self.land_failure(error, now, jitter),
        }
    }

    /// Drops everything; what a fetch under way brings is of no use any more.
    pub fn flush(&mut self) {
        self.token = None;
        self.failure = None;
        self.refused = None;
        self.bypass_wanted = false;
        self.generation += 1;
    }

    /// Makes the token due at once, whatever held it off, and has upstream asked past its cache:
    /// who gives this command knows of something that is not in the tokens of before.
    pub fn refresh(&mut self) {
        self.failure = None;
        self.bypass_wanted = true;
        self.bypassed = None;
        if let Some(held) = &mut self.token {
            held.due_now = true;
            held.hold_until = Duration::ZERO;
        }
    }

    /// What `status` shows.
    pub fn view(&mut self, now: Now) -> View {
        let token = self.token(now);
        let refresh_in = self.token.as_ref().map(|held| {
            let due = if held.is_due(now) {
                Duration::ZERO
            } else {
                held.token.remaining(now).saturating_sub(held.refresh_below)
            };
            due.max(self.hold_until(now).saturating_sub(now.boot))
        });
        let failure = self.failure.as_ref().map(|failure| failure.error.clone());
        View {
            token,
            failure,
            refresh_in,
            asked: self.asked,
            had_token: self.had_token,
        }
    }

    /// A wish that upstream can still be asked for. Who knows that the token is of no use gets none
    /// rather than that one; who only wants a new one gets what there is in the end.
    fn grant_wish(
        &mut self,
        now: Now,
        token: &AccessToken,
        patience: Duration,
        wish: Wish,
    ) -> Option<Plan> {
        let refused = wish.not == Some(token.digest());
        if !(refused || wish.bypass) || !self.may_bypass(now) {
            return None;
        }
        if refused && let Some(failure) = self.failure.as_ref().filter(|_| self.held_off(now)) {
            return Some(Plan::Refuse(failure.shifted(now)));
        }
        self.bypass_wanted |= wish.bypass;
        if refused {
            self.refused = wish.not;
            return Some(Plan::Wait(patience));
        }
        let usable = token.remaining(now).saturating_sub(HARD_FLOOR);
        Some(Plan::Wait(patience.min(usable)))
    }

    /// Where upstream does not work it was not asked past its cache, and will be. Where it refused,
    /// it may have been because of that: the next fetch goes without.
    fn note_bypass(&mut self, failure: Option<&FetchError>, now: Now) {
        self.bypass_wanted = false;
        if failure.is_none_or(|error| !error.class.is_outage()) {
            self.bypassed = Some(now.boot);
        }
        if failure.is_some_and(|error| !error.class.is_outage()) {
            self.refused = None;
        }
    }

    fn may_bypass(&self, now: Now) -> bool {
        self.bypassed
            .is_none_or(|at| now.boot.saturating_sub(at) >= BYPASS_GAP)
    }

    fn needs_fetch(&mut self, now: Now, interest: Duration) -> bool {
        self.expire(now);
        let wanted = now.boot.saturating_sub(self.asked) <= interest;
        let due = match &self.token {
            Some(held) => held.is_due(now),
            None => self.had_token,
        };
        wanted && due
    }

    /// A token never gets worse: one that ends sooner does not replace one that ends later.
    fn land_token(&mut self, token: AccessToken, errand: Errand, now: Now, jitter: f64) {
        self.failure = None;
        self.had_token = true;
        if let Some(held) = &mut self.token
            && !held.gives_way(&token, errand.bypass, self.refused, now)
        {
            held.keep(errand.bypass, now);
            if errand.bypass {
                // Upstream has no other: to ask again would be a loop.
                self.refused = None;
            }
            return;
        }
        self.refused = None;
        self.token = Some(Held::new(token, now, jitter));
    }

    fn land_failure(&mut self, error: FetchError, now: Now, jitter: f64) {
        let count = self
            .failure
            .as_ref()
            .map_or(1, |failure| failure.count.saturating_add(1));
        let left = self.remaining(now);
        // Those who failed together part, and none of them is held up for longer than the class of
        // the failure says, unless upstream asked for it.
        let gap =
            |unhurried| hold(error.class, count, unhurried).mul_f64(1.0 - (jitter - 1.0).abs());
        // Where requests begin to wait for a better token, they are not held up for long.
        let usual = gap(left > SOFT_FLOOR);
        // Where there is none left, it is requests that are in a hurry.
        let alone = gap(left > SOFT_FLOOR || left.is_zero());
        let (hold, retry) = match error.retry_after {
            Some(asked) if error.class.is_outage() => (asked, asked),
            // To come back at once does not make a request better that is wrong.
            Some(asked) => (asked.max(usual), asked.max(alone)),
            None => (usual, alone),
        };
        self.failure = Some(Failure {
            error,
            count,
            hold_until: now.boot + hold,
            retry_at: now.boot + retry,
        });
    }

    /// Bytes of a token that may not be handed out any more are not kept either.
    fn expire(&mut self, now: Now) {
        if self
            .token
            .as_ref()
            .is_some_and(|held| held.token.remaining(now) < HARD_FLOOR)
        {
            self.token = None;
        }
    }

    fn held_off(&self, now: Now) -> bool {
        now.boot < self.hold_until(now)
    }

    fn hold_until(&self, now: Now) -> Duration {
        let token = self
            .token
            .as_ref()
            .map_or(Duration::ZERO, |held| held.hold_until(now));
        token.max(
            self.failure
                .as_ref()
                .map_or(Duration::ZERO, |failure| failure.hold_until),
        )
    }
}

impl Held {
    fn new(token: AccessToken, now: Now, jitter: f64) -> Self {
        let lifetime = token.lifetime();
        let half = lifetime.saturating_sub(lifetime.mul_f64(0.5 * jitter));
        // One that is below the floor from the start is the best that upstream has.
        let refresh_below = if lifetime > SOFT_FLOOR {
            half.max(SOFT_FLOOR)
        } else {
            half
        };
        Self {
            token: Arc::new(token),
            refresh_below,
            hold_until: Duration::ZERO,
            lead: Lead::of(now),
            same_again: false,
            due_now: false,
        }
    }

    fn is_due(&self, now: Now) -> bool {
        self.due_now
            || self.token.remaining(now) <= self.refresh_below
            || Lead::of(now).differs(self.lead)
    }

    /// A step of the wall clock may have taken most of what was left: then nothing is to wait for.
    fn hold_until(&self, now: Now) -> Duration {
        if Lead::of(now).differs(self.lead) {
            Duration::ZERO
        } else {
            self.hold_until
        }
    }

    /// The same token again is never better: were the wall clock set back, it would seem so.
    fn gives_way(&self, to: &AccessToken, bypass: bool, refused: Option<Digest>, now: Now) -> bool {
        let (old, new) = (self.token.remaining(now), to.remaining(now));
        to.digest() != self.token.digest()
            && (refused == Some(self.token.digest())
                || new >= old + SAME_EXPIRY
                // Somebody wants a new one; but none that ends sooner.
                || (bypass && to.expires_on() >= self.token.expires_on()))
    }

    /// Upstream had nothing better. It may by the time that half of what is left is gone, or when
    /// its cache may be passed by, whichever comes first. Where that was in vain, it is asked again
    /// half-way to when requests begin to wait: they are not to find out that it has a better one.
    fn keep(&mut self, bypass: bool, now: Now) {
        let left = self.token.remaining(now);
        let to_floor = match left.checked_sub(LITTLE_LEFT) {
            Some(gap) if !gap.is_zero() => gap,
            _ if bypass => left.saturating_sub(SOFT_FLOOR) / 2,
            // Its cache may be passed by already, and was not.
            _ => Duration::ZERO,
        };
        let hold = to_floor.min(left / 2);
        self.hold_until = now.boot + hold.max(SAME_AGAIN);
        self.lead = Lead::of(now);
        self.same_again = true;
        self.due_now = false;
    }
}

impl Failure {
    /// The failure as it is told to somebody who asks now: with what is left of the wait.
    fn shifted(&self, now: Now) -> FetchError {
        FetchError {
            retry_after: Some(self.hold_until.saturating_sub(now.boot)),
            ..self.error.clone()
        }
    }
}

/// By how much the wall clock is ahead of the boot clock. It only changes when somebody sets the
/// wall clock, or the machine was restored from a snapshot.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct Lead {
    ahead: Duration,
    behind: Duration,
}

impl Lead {
    fn of(now: Now) -> Self {
        Self {
            ahead: now.wall.saturating_sub(now.boot),
            behind: now.boot.saturating_sub(now.wall),
        }
    }

    fn differs(self, other: Self) -> bool {
        let step = self.ahead.abs_diff(other.ahead) + self.behind.abs_diff(other.behind);
        step > STEP
    }
}

#[cfg(test)]
mod tests;
