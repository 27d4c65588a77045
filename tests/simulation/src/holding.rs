//! What the daemon must hold for one key, worked out from what upstream gave it and from the rules
//! of the documents alone.

use std::time::Duration;

use arcbroker_broker::clock::Now;

use crate::fault::Class;
use crate::timeline::Moment;

/// With less left, a request waits for a better token where one may be had.
pub const SOFT: Duration = Duration::from_mins(5);
/// With less left, a token is not handed out.
pub const HARD: Duration = Duration::from_mins(1);
/// Two expiries closer than this are the same token.
const SAME: Duration = Duration::from_secs(5);
/// After the same token again, the next attempt is not before.
pub const AGAIN: Duration = Duration::from_mins(1);
/// A token is refreshed when half of its life is gone, give or take a tenth.
const HALF: (f64, f64) = (0.45, 0.55);
/// A key that nobody asked for in this time is not refreshed.
pub const INTEREST: Duration = Duration::from_hours(24);
/// A step of the wall clock that makes the life of a token doubtful.
const STEP: Duration = Duration::from_mins(2);

/// A token as the daemon received it.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// Its number.
    pub token: u64,
    /// Where each clock says that it ends.
    pub ends: Now,
    /// What was left when it came.
    pub lifetime: Duration,
    /// When it came.
    pub got: Moment,
    /// By the boot clock: when upstream gave it, or a worse one, again; and by how much the wall was
    /// ahead then.
    pub again: Option<(Duration, Lead)>,
}

/// One key.
#[derive(Clone, Debug)]
pub struct Holding {
    /// Goes up when everything before is of no use any more.
    pub generation: u64,
    /// What may be held: one thing, unless the rules leave more than one open. An answer shows
    /// which it is.
    pub states: Vec<Option<Held>>,
    /// What was held until the last change: for requests of the same moment, and of before a flush.
    pub before: Vec<Held>,
    /// Awake: when the last change was.
    pub changed: Duration,
    /// The token that a client does not want any more.
    pub refused: Option<u64>,
    /// A fetch ran at the last flush, so that what comes next is `perhaps`.
    pub flying_at_flush: bool,
    /// Something was received since the last flush.
    pub warm: bool,
    /// Something was received at all.
    pub ever: bool,
    /// Awake: when all was forgotten last.
    pub forgot: Duration,
    /// The conversation that runs.
    pub talking: Option<u64>,
    /// How the last one failed, and when by the boot clock; nothing after a success.
    pub failed: Option<(Class, Duration)>,
    /// A flush or a command since the last call: it may be called although all is well.
    pub commanded: bool,
    /// A client wants another token, and upstream has not been asked for one past its cache since.
    pub wished: bool,
    /// By the boot clock: when a client last asked.
    pub asked: Option<Duration>,
    /// By the boot clock: since when somebody asks at least once in the time for which keys are kept
    /// fresh.
    pub wanted_since: Option<Duration>,
    /// By the boot clock: upstream wants no call for this key before.
    pub quiet_until: Duration,
    /// By the boot clock: when upstream was last asked past its own cache.
    pub bypassed: Option<Duration>,
}

/// By how much the wall clock is ahead of the boot clock, or behind.
#[derive(Clone, Copy, Debug)]
pub struct Lead(Duration, Duration);

/// Lives of which a sweep's half a minute is a small part.
const LONG: Duration = Duration::from_mins(30);

impl Lead {
    /// At this moment.
    pub fn of(now: Now) -> Self {
        Self(
            now.wall.saturating_sub(now.boot),
            now.boot.saturating_sub(now.wall),
        )
    }

    /// Whether the wall clock was set by much since.
    pub fn differs(self, now: Now) -> bool {
        let other = Self::of(now);
        self.0.abs_diff(other.0) + self.1.abs_diff(other.1) > STEP
    }
}

impl Held {
    /// What is left, by the stricter clock.
    pub fn left(&self, now: Now) -> Duration {
        let wall = self.ends.wall.saturating_sub(now.wall);
        wall.min(self.ends.boot.saturating_sub(now.boot))
    }

    /// Whether so much of its life is gone that it may be refreshed; the earliest moment.
    fn may_be_refreshed(&self, now: Now) -> bool {
        let least = self.lifetime.mul_f64(1.0 - HALF.0).max(SOFT);
        self.left(now) <= least || Lead::of(self.got.now).differs(now)
    }

    /// For how long it should have been refreshed by now, at the latest moment of the rule.
    fn overdue(&self, now: Now) -> Option<Duration> {
        self.lifetime
            .mul_f64(1.0 - HALF.1)
            .checked_sub(self.left(now))
    }
}

impl Default for Holding {
    fn default() -> Self {
        Self {
            generation: 0,
            states: vec![None],
            before: Vec::new(),
            changed: Duration::ZERO,
            refused: None,
            flying_at_flush: false,
            warm: false,
            ever: false,
            forgot: Duration::ZERO,
            talking: None,
            failed: None,
            commanded: false,
            wished: false,
            asked: None,
            wanted_since: None,
            quiet_until: Duration::ZERO,
            bypassed: None,
        }
    }
}

impl Holding {
    /// What must be handed out at this moment, if it still may be; of several possibilities the
    /// one that ends first.
    pub fn good(&self, now: Now) -> Option<&Held> {
        let left = |state: &Option<Held>| state.map_or(Duration::ZERO, |held| held.left(now));
        let least = self.states.iter().min_by_key(|state| left(state))?;
        least.as_ref().filter(|held| held.left(now) >= HARD)
    }

    /// What is held, or was until it ended; nothing where that is not certain.
    pub fn certain(&self) -> Option<&Held> {
        match self.states.as_slice() {
            [held] => held.as_ref(),
            _ => None,
        }
    }

    /// A token came, for a fetch that began in this generation.
    /// `bypass` says that it came past upstream's cache: then what a client refused has been seen to.
    pub fn receive(&mut self, new: Held, began_in: u64, bypass: bool) {
        self.failed = None;
        self.ever = true;
        if began_in < self.generation {
            return;
        }
        self.warm = true;
        let now = new.got.now;
        let before = self.states.clone();
        let mut after = Vec::new();
        if std::mem::take(&mut self.flying_at_flush) {
            // Whether it belongs to a fetch from before the flush cannot be told from outside.
            after.clone_from(&before);
        }
        for state in &before {
            let held = state.filter(|held| held.left(now) >= HARD);
            // The same token again is never better, whatever a clock says that was set meanwhile.
            let same = held.is_some_and(|held| held.token == new.token);
            let worse = held.is_some_and(|held| new.left(now) < held.left(now) + SAME);
            if same || worse {
                let again = Some((now.boot, Lead::of(now)));
                after.push(held.map(|held| Held { again, ..held }));
            }
            let refused = held.is_some_and(|held| self.refused == Some(held.token));
            // A new one that ends at the same time is as good.
            let as_good = bypass && held.is_some_and(|held| new.ends.wall >= held.ends.wall);
            if !same && (!worse || refused || as_good) {
                after.push(Some(new));
            }
        }
        if bypass {
            self.refused = None;
        }
        self.change(after, new.got.awake);
    }

    fn change(&mut self, mut after: Vec<Option<Held>>, awake: Duration) {
        let mut seen = Vec::new();
        after.retain(|state| {
            let what = state.map(|held| (held.token, held.ends));
            let is_new = !seen.contains(&what);
            seen.push(what);
            is_new
        });
        self.before = self.states.iter().flatten().copied().collect();
        self.changed = awake;
        self.states = after;
    }

    /// A client has this token, with so many seconds left: then it is that which is held, if it can
    /// be.
    pub fn show(&mut self, token: u64, left: u64, now: Now) -> Option<Held> {
        let shown = self
            .states
            .iter()
            .flatten()
            .filter(|held| held.token == token);
        let off = |held: &&Held| held.left(now).as_secs().abs_diff(left);
        let best = *shown.min_by_key(off)?;
        // Of the same token at several times, those that fit.
        self.states.retain(|state| {
            state.is_some_and(|held| held.token == token && off(&&held) == off(&&best))
        });
        Some(best)
    }

    /// How long ago the same token came again, if no clock was moved since; the longest ago of what is
    /// possible.
    pub fn again(&self, now: Now) -> Option<Duration> {
        let passed = |state: &Option<Held>| {
            let (at, _) = state
                .as_ref()?
                .again
                .filter(|(_, lead)| !lead.differs(now))?;
            Some(now.boot.saturating_sub(at))
        };
        let all: Option<Vec<_>> = self.states.iter().map(passed).collect();
        all?.into_iter().max()
    }

    /// The wall clock is about to be set: what has ended is dropped, and stays so.
    pub fn drop_ended(&mut self, now: Now) {
        for state in &mut self.states {
            *state = state.filter(|held| held.left(now) >= HARD);
        }
    }

    /// Everything from before is of no use any more.
    pub fn forget(&mut self, flying: bool, at: Moment) {
        self.generation += 1;
        self.forgot = at.awake;
        self.change(vec![None], at.awake);
        self.refused = None;
        self.flying_at_flush = flying;
        self.warm = false;
        self.failed = None;
        self.commanded = true;
    }

    /// A client asks.
    pub fn ask(&mut self, boot: Duration) {
        let lately = |asked| boot.saturating_sub(asked) <= INTEREST;
        if !self.asked.is_some_and(lately) {
            self.wanted_since = Some(boot);
        }
        self.asked = Some(boot);
    }

    /// Whether there is a reason to call upstream for this key.
    pub fn is_call_due(&self, now: Now) -> bool {
        let due = |state: &Option<Held>| {
            state.is_none_or(|held| {
                let doubtful = held.again.is_some_and(|(_, lead)| lead.differs(now));
                doubtful || held.left(now) < HARD || held.may_be_refreshed(now)
            })
        };
        self.commanded || self.wished || self.failed.is_some() || self.states.iter().any(due)
    }

    /// What share of its life is gone of a token that nothing but its age can have due.
    pub fn undisturbed(&self, now: Now) -> Option<f64> {
        let [Some(held)] = self.states.as_slice() else {
            return None;
        };
        let is_disturbed = self.commanded
            || self.wished
            || self.failed.is_some()
            || held.again.is_some()
            || Lead::of(held.got.now).differs(now);
        let gone = 1.0 - held.left(now).as_secs_f64() / held.lifetime.as_secs_f64();
        (!is_disturbed && held.lifetime >= LONG).then_some(gone)
    }

    /// For how long there has been no token.
    pub fn absent(&self, at: Moment) -> Option<Duration> {
        let [state] = self.states.as_slice() else {
            return None;
        };
        let Some(held) = state else {
            return at.awake.checked_sub(self.changed.max(self.forgot));
        };
        let past = |end: Duration, now: Duration| (now + HARD).checked_sub(end);
        past(held.ends.wall, at.now.wall).max(past(held.ends.boot, at.now.boot))
    }

    /// How long the refresh is late, by the most generous reading: nothing came although it was due,
    /// and although half of what was left when the same token came again is gone as well.
    pub fn late(&self, now: Now) -> Option<Duration> {
        let held = self.certain().filter(|held| held.left(now) >= HARD)?;
        let since = held.overdue(now)?;
        let Some((at, _)) = held.again.filter(|(_, lead)| !lead.differs(now)) else {
            return Some(since);
        };
        let passed = now.boot.saturating_sub(at);
        let left_then = held.ends.boot.saturating_sub(at);
        passed
            .checked_sub((left_then / 2).max(AGAIN))
            .map(|late| late.min(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        let time = Duration::from_secs(seconds);
        Moment {
            awake: time,
            now: Now {
                wall: Duration::from_secs(1_000_000) + time,
                boot: time,
            },
            truth: Duration::from_secs(1_000_000) + time,
        }
    }

    fn token(token: u64, got: u64, lifetime: u64) -> Held {
        let (got, lifetime) = (at(got), Duration::from_secs(lifetime));
        Held {
            token,
            ends: Now {
                wall: got.now.wall + lifetime,
                boot: got.now.boot + lifetime,
            },
            lifetime,
            got,
            again: None,
        }
    }

    #[test]
    fn the_one_that_ends_later_is_held_and_the_same_one_again_is_not_new() {
        let mut key = Holding::default();
        key.receive(token(1, 0, 3600), 0, false);
        key.receive(token(2, 10, 3000), 0, false);
        assert_eq!(key.certain().unwrap().token, 1);
        assert!(key.again(at(10).now).is_some());
        key.receive(token(3, 20, 3600), 0, false);
        assert_eq!(key.certain().unwrap().token, 3);
        assert_eq!(
            key.good(at(20 + 3600 - 59).now).map(|held| held.token),
            None
        );
    }

    #[test]
    fn what_was_asked_for_before_a_flush_is_not_held_after_it() {
        let mut key = Holding::default();
        key.receive(token(1, 0, 3600), 0, false);
        key.forget(false, at(5));
        key.receive(token(2, 10, 3600), 0, false);
        assert!(key.certain().is_none());
        key.receive(token(3, 10, 3600), 1, false);
        assert_eq!(key.certain().unwrap().token, 3);
    }

    #[test]
    fn a_refresh_is_due_from_45_and_late_from_55_hundredths_of_the_life() {
        let mut key = Holding::default();
        key.receive(token(1, 0, 10_000), 0, false);
        assert!(!key.is_call_due(at(4_499).now));
        assert!(key.is_call_due(at(4_500).now));
        assert_eq!(key.late(at(5_499).now), None);
        assert_eq!(key.late(at(5_510).now), Some(Duration::from_secs(10)));
    }
}
