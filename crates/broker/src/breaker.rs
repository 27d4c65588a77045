//! Whether upstream is worth asking: after a row of failures it is left alone, and tried from time
//! to time.
//!
//! Open, it lets one attempt through in each period; the period doubles while attempts fail. Valid
//! tokens are served all the while: the breaker is only about who would have to wait in vain.

use std::time::Duration;

/// Failures in a row that open it.
const FAILURES: u32 = 5;
/// The first period, and the longest.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
/// What those who ask during an attempt are told to wait.
const DURING_PROBE: Duration = Duration::from_secs(1);

/// What an attempt says about upstream as a whole.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It works, whatever it said to this one request.
    Well,
    /// It does not work.
    Ill,
    /// Nothing.
    Unknown,
}

/// How an attempt begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Entry {
    /// Upstream works as far as is known.
    Usual,
    /// The one attempt of this period.
    Probe,
}

/// The breaker. All times are since boot.
#[derive(Debug, Default)]
pub struct Breaker {
    /// In a row.
    failures: u32,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    period: Duration,
    until: Duration,
    probing: bool,
}

impl Breaker {
    /// How long it stays shut; `None` when an attempt may begin.
    pub fn shut_for(&self, now: Duration) -> Option<Duration> {
        let open = self.open.as_ref()?;
        let left = open.until.saturating_sub(now);
        if open.probing {
            return Some(left.max(DURING_PROBE));
        }
        (!left.is_zero()).then_some(left)
    }

    /// Begins an attempt.
    ///
    /// # Errors
    ///
    /// How long it stays shut.
    pub fn enter(&mut self, now: Duration) -> Result<Entry, Duration> {
        if let Some(shut) = self.shut_for(now) {
            return Err(shut);
        }
        match &mut self.open {
            Some(open) => {
                open.probing = true;
                Ok(Entry::Probe)
            }
            None => Ok(Entry::Usual),
        }
    }

    /// Ends an attempt. `jitter` is between 0.8 and 1.2. True when this opened or closed it.
    pub fn leave(&mut self, entry: Entry, verdict: Verdict, now: Duration, jitter: f64) -> bool {
        let was_open = self.open.is_some();
        match (verdict, entry) {
            (Verdict::Well, _) => *self = Self::default(),
            (Verdict::Ill | Verdict::Unknown, Entry::Probe) => self.lengthen(now, jitter),
            // What began before it opened says nothing new.
            (Verdict::Ill, Entry::Usual) if !was_open => {
                self.failures = self.failures.saturating_add(1);
                if self.failures >= FAILURES {
                    self.lengthen(now, jitter);
                }
            }
            (Verdict::Ill | Verdict::Unknown, Entry::Usual) => {}
        }
        was_open != self.open.is_some()
    }

    /// Failures in a row, for `status`.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether upstream is left alone but for one attempt in each period.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    fn lengthen(&mut self, now: Duration, jitter: f64) {
        let period = match &self.open {
            Some(open) => (open.period * 2).min(LONGEST),
            None => FIRST,
        };
        self.open = Some(Open {
            period,
            until: now + period.mul_f64(jitter),
            probing: false,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn fail(breaker: &mut Breaker, now: Duration) {
        let entry = breaker.enter(now).unwrap();
        breaker.leave(entry, Verdict::Ill, now, 1.0);
    }

    fn opened() -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..FAILURES {
            fail(&mut breaker, at(0));
        }
        breaker
    }

    #[test]
    fn five_failures_in_a_row_open_it_and_four_do_not() {
        let mut breaker = Breaker::default();
        for _ in 0..3 {
            for _ in 0..4 {
                fail(&mut breaker, at(0));
            }
            assert_eq!(breaker.shut_for(at(0)), None);
            assert!(!breaker.leave(Entry::Usual, Verdict::Well, at(0), 1.0));
        }
        assert_eq!(opened().shut_for(at(0)), Some(FIRST));
    }

    #[test]
    fn i15_while_open_exactly_one_attempt_begins_in_each_period() {
        let mut breaker = opened();
        assert_eq!(breaker.enter(at(999)), Err(at(1)));
        assert_eq!(breaker.enter(at(1000)), Ok(Entry::Probe));
        assert_eq!(breaker.enter(at(1500)), Err(DURING_PROBE));
        assert!(!breaker.leave(Entry::Probe, Verdict::Ill, at(1600), 1.0));
        assert_eq!(breaker.shut_for(at(1600)), Some(at(2000)));
        assert_eq!(breaker.enter(at(3600)), Ok(Entry::Probe));
        assert!(breaker.leave(Entry::Probe, Verdict::Well, at(3600), 1.0));
        assert_eq!(breaker.enter(at(3600)), Ok(Entry::Usual));
    }

    #[test]
    fn the_period_doubles_up_to_half_a_minute_and_begins_anew_after_a_success() {
        let mut breaker = opened();
        let mut now = at(0);
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            let period = Duration::from_secs(seconds);
            assert_eq!(breaker.shut_for(now), Some(period));
            now += period;
            fail(&mut breaker, now);
        }
        breaker.leave(Entry::Usual, Verdict::Well, now, 1.0);
        for _ in 0..FAILURES {
            fail(&mut breaker, now);
        }
        assert_eq!(breaker.shut_for(now), Some(FIRST));
    }

    #[test]
    fn what_says_nothing_neither_opens_nor_closes_it() {
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            breaker.leave(Entry::Usual, Verdict::Unknown, at(0), 1.0);
        }
        assert_eq!(breaker.shut_for(at(0)), None);
        let mut breaker = opened();
        assert_eq!(breaker.enter(at(1000)), Ok(Entry::Probe));
        breaker.leave(Entry::Probe, Verdict::Unknown, at(1000), 1.0);
        assert_eq!(breaker.shut_for(at(1000)), Some(at(2000)));
    }

    #[test]
    fn an_attempt_from_before_it_opened_can_close_it_but_not_prolong_it() {
        let mut breaker = opened();
        breaker.leave(Entry::Usual, Verdict::Ill, at(500), 1.0);
        assert_eq!(breaker.shut_for(at(500)), Some(at(500)));
        assert!(breaker.leave(Entry::Usual, Verdict::Well, at(600), 1.0));
        assert_eq!(breaker.shut_for(at(600)), None);
    }
}
