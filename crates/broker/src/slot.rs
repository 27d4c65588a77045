//! One slot of the cache as a pure state machine: what a request does, given what is there.
//!
//! A slot holds a token, or a remembered failure, or both: a failure beside a valid token delays
//! the next refresh and takes nothing away.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Now;
use crate::token::{AccessToken, Class, FetchError};

/// With less than this left, a request waits for a better token where one may be had: clients with
/// caches of their own do not keep such a token, and would ask again for every call.
pub const SOFT_FLOOR: Duration = Duration::from_mins(5);

/// A token with less than this left is not handed out: it may end before it is used.
pub const HARD_FLOOR: Duration = Duration::from_mins(1);

/// The gap between refreshes when upstream keeps giving the same token.
const SAME_AGAIN: Duration = Duration::from_mins(1);

/// The longest gap between attempts to refresh a valid token.
const REFRESH_GAP: Duration = Duration::from_secs(30);

/// Two expiries closer than this belong to the same token.
const SAME_EXPIRY: Duration = Duration::from_secs(5);

/// One slot.
#[derive(Debug, Default)]
pub struct Slot {
    token: Option<Held>,
    failure: Option<Failure>,
    /// Since boot: when somebody last asked.
    asked: Duration,
    /// There was a token before, so that there can be one again.
    had_token: bool,
}

/// A token and when to replace it.
#[derive(Debug)]
struct Held {
    token: Arc<AccessToken>,
    /// It is due once this much or less is left.
    refresh_below: Duration,
    /// Since boot: not to be refreshed before.
    hold_until: Duration,
}

/// A remembered failure.
#[derive(Debug)]
struct Failure {
    error: FetchError,
    /// In a row.
    count: u32,
    /// Since boot: not to be tried before.
    hold_until: Duration,
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
    pub fn plan(&mut self, now: Now, flying: bool, patience: Duration) -> Plan {
        self.asked = now.boot;
        self.expire(now);
        let held_off = self.held_off(now);
        let Some(held) = &self.token else {
            return match &self.failure {
                Some(failure) if held_off && !flying => Plan::Refuse(failure.shifted(now)),
                _ => Plan::Wait(patience),
            };
        };
        let remaining = held.token.remaining(now);
        let token = Arc::clone(&held.token);
        if remaining > held.refresh_below || (held_off && !flying) {
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
        self.expire(now);
        let wanted = now.boot.saturating_sub(self.asked) <= interest;
        let due = match &self.token {
            Some(held) => held.token.remaining(now) <= held.refresh_below,
            None => self.had_token,
        };
        wanted && due && !self.held_off(now)
    }

    /// The token, if it may still be handed out.
    pub fn token(&mut self, now: Now) -> Option<Arc<AccessToken>> {
        self.expire(now);
        self.token.as_ref().map(|held| Arc::clone(&held.token))
    }

    /// Takes what a fetch brought. `jitter` is between 0.9 and 1.1.
    pub fn land(&mut self, result: Result<AccessToken, FetchError>, now: Now, jitter: f64) {
        match result {
            Ok(token) => self.land_token(token, now, jitter),
            Err(error) => self.land_failure(error, now, jitter),
        }
    }

    /// What `status` shows.
    pub fn view(&mut self, now: Now) -> View {
        let token = self.token(now);
        let refresh_in = self.token.as_ref().map(|held| {
            let due = held.token.remaining(now).saturating_sub(held.refresh_below);
            due.max(self.hold_until().saturating_sub(now.boot))
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

    /// A token never gets worse: one that ends sooner does not replace one that ends later.
    fn land_token(&mut self, token: AccessToken, now: Now, jitter: f64) {
        self.failure = None;
        let remaining = token.remaining(now);
        if let Some(held) = &mut self.token
            && remaining < held.token.remaining(now) + SAME_EXPIRY
        {
            held.hold_until = now.boot + (held.token.remaining(now) / 2).max(SAME_AGAIN);
            return;
        }
        let lifetime = token.lifetime();
        let half = lifetime.saturating_sub(lifetime.mul_f64(0.5 * jitter));
        // One that is below the floor from the start is the best that upstream has.
        let refresh_below = if lifetime > SOFT_FLOOR {
            half.max(SOFT_FLOOR)
        } else {
            half
        };
        self.had_token = true;
        self.token = Some(Held {
            token: Arc::new(token),
            refresh_below,
            hold_until: Duration::ZERO,
        });
    }

    fn land_failure(&mut self, error: FetchError, now: Now, jitter: f64) {
        let count = self
            .failure
            .as_ref()
            .map_or(1, |failure| failure.count.saturating_add(1));
        // What upstream asked for is kept to the second.
        let hold = error
            .retry_after
            .unwrap_or_else(|| hold(error.class, count, self.token.is_some()).mul_f64(jitter));
        self.failure = Some(Failure {
            error,
            count,
            hold_until: now.boot + hold,
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
        now.boot < self.hold_until()
    }

    fn hold_until(&self) -> Duration {
        let token = self
            .token
            .as_ref()
            .map_or(Duration::ZERO, |held| held.hold_until);
        token.max(
            self.failure
                .as_ref()
                .map_or(Duration::ZERO, |failure| failure.hold_until),
        )
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

/// How long a failure is remembered: `docs/architecture.md` has the table.
///
/// Beside a valid token the gap doubles with each failure, because nobody waits for the refresh.
fn hold(class: Class, count: u32, has_token: bool) -> Duration {
    let base = Duration::from_secs(match class {
        Class::Down | Class::Busy | Class::Deadline => 1,
        Class::Broken | Class::Server => 2,
        Class::Hostile | Class::StaleKey => 5,
        Class::Challenge
        | Class::KeyDenied
        | Class::Upgrading
        | Class::Garbage
        | Class::Throttled => 10,
        Class::Refused | Class::UnknownIdentity => 30,
        Class::Permanent => 60,
    });
    if has_token {
        base.max((base * 2_u32.saturating_pow(count.min(6) - 1)).min(REFRESH_GAP))
    } else {
        base
    }
}

#[cfg(test)]
mod tests;
