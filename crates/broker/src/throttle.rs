//! How often a caller may ask, where the configuration says so, and what is said of those who are over
//! a limit.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use arcbroker_policy::Unit;

use crate::brief::{Brief, Party};
use crate::pace::Pace;

/// So many may ask at once, however low the limit.
const FEWEST_AT_ONCE: u32 = 10;
/// Who is over a limit again within this time has not waited as it was told, and its answer does.
const SECOND: Duration = Duration::from_secs(1);
/// How long such an answer is held back: a client that asks again and again costs little.
const HOLD: Duration = Duration::from_millis(100);
/// How often the log says of one caller that it is over one limit.
const NOTICE: Duration = Duration::from_mins(1);

/// Requests in a second; 0 for as many as there are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Of one user.
    pub per_user: u32,
    /// Of one unit.
    pub per_unit: u32,
}

/// A limit that a caller can be over.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Limit {
    /// Connections of one user.
    UserConnections,
    /// Connections of one unit.
    UnitConnections,
    /// Requests of one user.
    UserRequests,
    /// Requests of one unit.
    UnitRequests,
}

/// A request over a limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Throttled {
    /// Which.
    pub limit: Limit,
    /// Until another one may be asked.
    pub wait: Duration,
    /// How long to hold the answer back.
    pub hold: Duration,
}

/// Counts requests.
#[derive(Debug, Default)]
pub struct Throttle {
    options: Options,
    buckets: Mutex<Brief<Who, Bucket>>,
    throttled: AtomicU64,
}

/// When the log last said something of whom.
#[derive(Debug, Default)]
pub struct Notices(Mutex<Brief<(Party, Limit), Duration>>);

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Who {
    User(u32),
    Unit(Unit),
}

/// How long to wait and to hold the answer, where there is no room.
type Step = fn(&mut Bucket, Duration) -> Result<(), (Duration, Duration)>;

#[derive(Debug)]
struct Bucket {
    pace: Pace,
    /// Since boot.
    throttled_at: Option<Duration>,
}

impl Limit {
    /// The key of the configuration that raises it.
    pub fn key(self) -> &'static str {
        match self {
            Self::UserConnections => "connections-per-user",
            Self::UnitConnections => "connections-per-unit",
            Self::UserRequests => "requests-per-second-per-user",
            Self::UnitRequests => "requests-per-second-per-unit",
        }
    }
}

/// What to say to who is over it.
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (who, what) = match self {
            Self::UserConnections => (
                "user",
                "has too many connections to arcbroker open: close some",
            ),
            Self::UnitConnections => (
                "unit",
                "has too many connections to arcbroker open: close some",
            ),
            Self::UserRequests => (
                "user",
                "asks more often than it may: keep tokens, ask again after the time in Retry-After",
            ),
            Self::UnitRequests => (
                "unit",
                "asks more often than it may: keep tokens, ask again after the time in Retry-After",
            ),
        };
        write!(
            f,
            "this {who} {what}, or raise {} under [limits]",
            self.key()
        )
    }
}

impl Throttle {
    /// Everybody begins with the full measure.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            ..Self::default()
        }
    }

    /// Whether everybody may ask as often as they like.
    pub fn is_off(&self) -> bool {
        self.options.per_user == 0 && self.options.per_unit == 0
    }

    /// Lets in one request at `now` since boot.
    ///
    /// # Errors
    ///
    /// When its user or its unit is over its limit; then it counts for neither.
    pub fn take(&self, uid: u32, unit: Option<&Unit>, now: Duration) -> Result<(), Throttled> {
        let Options { per_user, per_unit } = self.options;
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let limits = [
            (Limit::UserRequests, per_user, Some(Who::User(uid))),
            (Limit::UnitRequests, per_unit, unit.cloned().map(Who::Unit)),
        ];
        let limits = limits.map(|(limit, rate, who)| (limit, rate, who.filter(|_| rate > 0)));
        let mut each = |run: Step| {
            for (limit, rate, who) in &limits {
                let Some(who) = who else { continue };
                let matters = |bucket: &Bucket| bucket.matters(now);
                let bucket = buckets.entry(who.clone(), matters, || Bucket::new(*rate));
                run(bucket, now).map_err(|(wait, hold)| Throttled {
                    limit: *limit,
                    wait,
                    hold,
                })?;
            }
            Ok(())
        };
        let taken = each(Bucket::check).and_then(|()| each(Bucket::take));
        if taken.is_err() {
            self.throttled.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    /// Requests over a limit since the start.
    pub fn throttled(&self) -> u64 {
        self.throttled.load(Ordering::Relaxed)
    }
}

impl Notices {
    /// Says in the log that a caller is over a limit, unless that was said less than a minute before `now`
    /// since boot. What is not known of the caller yet is left out.
    pub fn tell(&self, uid: u32, unit: Option<&Unit>, limit: Limit, now: Duration) {
        let party = Party {
            uid,
            unit: unit.cloned(),
        };
        if self.is_due((party, limit), now) {
            tracing::warn!(
                uid,
                unit = unit.map(tracing::field::display),
                limit = limit.key(),
                "a caller is over a limit, and gets 429; this is said once a minute"
            );
        }
    }

    fn is_due(&self, about: (Party, Limit), now: Duration) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |at: &Duration| now.saturating_sub(*at) < NOTICE;
        let mut is_new = false;
        let at = told.entry(about, is_recent, || {
            is_new = true;
            now
        });
        let is_due = is_new || !is_recent(at);
        if is_due {
            *at = now;
        }
        is_due
    }
}

impl Bucket {
    fn new(rate: u32) -> Self {
        let gap = SECOND / rate.max(1);
        Self {
            pace: Pace::every(gap, rate.max(FEWEST_AT_ONCE)),
            throttled_at: None,
        }
    }

    fn matters(&self, now: Duration) -> bool {
        !self.pace.is_full(now) || self.was_throttled(now)
    }

    fn was_throttled(&self, now: Duration) -> bool {
        self.throttled_at
            .is_some_and(|at| now.saturating_sub(at) < SECOND)
    }

    /// How long to wait and to hold the answer, when there is no room for one more.
    fn check(&mut self, now: Duration) -> Result<(), (Duration, Duration)> {
        self.pace.check(now).map_err(|wait| {
            let hold = if self.was_throttled(now) {
                HOLD
            } else {
                Duration::ZERO
            };
            self.throttled_at = Some(now);
            (wait, hold)
        })
    }

    fn take(&mut self, now: Duration) -> Result<(), (Duration, Duration)> {
        self.pace.take(now).map_err(|wait| (wait, HOLD))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let throttle = Throttle::new(Options::default());
        assert!(throttle.is_off());
        assert!((0..100_000).all(|_| throttle.take(1, None, at(0)).is_ok()));
        assert_eq!(throttle.throttled(), 0);
    }

    #[test]
    fn one_user_has_a_second_s_worth_at_once_and_takes_none_from_another() {
        let throttle = Throttle::new(Options {
            per_user: 100,
            per_unit: 0,
        });
        let taken = |uid, millis| throttle.take(uid, None, at(millis));
        assert_eq!((0..200).filter(|_| taken(1, 0).is_ok()).count(), 100);
        let Throttled { limit, wait, .. } = taken(1, 4).unwrap_err();
        assert_eq!((limit, wait), (Limit::UserRequests, at(6)));
        assert!(taken(1, 10).is_ok());
        assert!(taken(2, 10).is_ok());
        assert_eq!(throttle.throttled(), 101);
    }

    #[test]
    fn ten_may_be_asked_at_once_however_low_the_limit() {
        let throttle = Throttle::new(Options {
            per_user: 1,
            per_unit: 0,
        });
        let taken = |millis| throttle.take(1, None, at(millis)).is_ok();
        assert_eq!((0..20).filter(|_| taken(0)).count(), 10);
        assert!(!taken(999));
        assert!(taken(1000));
    }

    #[test]
    fn the_users_of_one_unit_share_its_measure_and_lose_nothing_of_their_own() {
        let throttle = Throttle::new(Options {
            per_user: 11,
            per_unit: 10,
        });
        let unit = Unit::parse("web.service").unwrap();
        let taken = |uid, unit| throttle.take(uid, unit, at(0));
        for uid in 0..10 {
            assert!(taken(uid, Some(&unit)).is_ok());
        }
        for _ in 0..20 {
            let limit = taken(1, Some(&unit)).unwrap_err().limit;
            assert_eq!(limit, Limit::UnitRequests);
        }
        // Ten of eleven are left: what was refused does not count.
        assert_eq!((0..20).filter(|_| taken(1, None).is_ok()).count(), 10);
    }

    #[test]
    fn who_does_not_wait_has_its_answer_held_back() {
        let throttle = Throttle::new(Options {
            per_user: 10,
            per_unit: 0,
        });
        let hold = |millis| throttle.take(1, None, at(millis)).unwrap_err().hold;
        assert!((0..10).all(|_| throttle.take(1, None, at(0)).is_ok()));
        assert_eq!((hold(0), hold(0), hold(99)), (Duration::ZERO, HOLD, HOLD));
    }

    #[test]
    fn the_log_says_it_once_a_minute_for_each_caller_and_limit() {
        let notices = Notices::default();
        let due = |uid, limit, seconds| {
            notices.is_due(
                (Party { uid, unit: None }, limit),
                Duration::from_secs(seconds),
            )
        };
        assert!(due(1, Limit::UserRequests, 5));
        assert!(!due(1, Limit::UserRequests, 64));
        assert!(due(1, Limit::UserConnections, 64));
        assert!(due(2, Limit::UserRequests, 64));
        assert!(due(1, Limit::UserRequests, 65));
    }
}
