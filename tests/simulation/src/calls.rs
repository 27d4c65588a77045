//! What upstream is burdened with: the invariants of conversations, as upstream sees them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::fault::{Class, Fault, RetryAfter, Stage};
use crate::invariant::{Check, Invariant};
use crate::timeline::Moment;

/// Calls a second, and at once.
const RATE: u32 = 5;
/// Conversations at one time.
const CONVERSATIONS: usize = 2;
/// Failures in a row that open the breaker.
const FAILURES: u32 = 5;
/// The breaker's first period and its longest, less a fifth of jitter.
const FIRST: Duration = Duration::from_millis(800);
const LONGEST: Duration = Duration::from_secs(24);
/// How long upstream may simply not be up yet.
const BOOT: Duration = Duration::from_mins(10);
/// How long the daemon must wait for an answer before it may leave.
const PATIENCE: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(30)];
/// What is assumed where upstream throttles without saying for how long.
const THROTTLED: Duration = Duration::from_secs(10);

/// All conversations, and what follows from them for the next ones.
#[derive(Debug, Default)]
pub struct Calls {
    open: BTreeMap<u64, Talk>,
    /// What upstream closed after the challenge, and the daemon goes on with over another connection.
    continued: VecDeque<Talk>,
    bucket: Bucket,
    quiet: Span,
    breaker: Breaker,
    /// Upstream has worked since the start.
    seen: bool,
    /// How many there were.
    count: u64,
}

/// One conversation.
#[derive(Clone, Debug)]
pub struct Talk {
    /// When the daemon connected.
    pub begun: Moment,
    /// What upstream does to it.
    pub fault: Option<Fault>,
    /// The key of the cache, once it is known.
    pub key: Option<usize>,
    /// The generation of that key at the connect.
    pub generation: u64,
    /// Upstream's own cache is to be passed by.
    pub bypass: bool,
    /// The request that is being answered, and since when.
    heard: Option<(Stage, Moment)>,
    /// It has cost the daemon a turn.
    counted: bool,
    /// It is the attempt of a period of the breaker.
    probe: bool,
}

/// A time by the boot clock.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    from: Duration,
    until: Duration,
}

/// Five, and five a second: counts that fit through it fit through every window of T seconds with
/// 5 T + 5.
#[derive(Debug, Default)]
struct Bucket {
    taken: f64,
    at: Duration,
}

#[derive(Debug, Default)]
struct Breaker {
    /// When it closed last.
    closed: Option<Duration>,
    row: u32,
    /// Since when, and the shortest time until the next attempt.
    open: Option<(Duration, Duration)>,
}

impl Calls {
    /// The daemon connects.
    pub fn begin(&mut self, conversation: u64, begun: Moment, fault: Option<Fault>) {
        let fresh = Talk {
            begun,
            fault,
            key: None,
            generation: 0,
            bypass: false,
            heard: None,
            counted: false,
            probe: false,
        };
        let talk = self.continued.pop_front().map_or(fresh, |before| Talk {
            begun,
            fault,
            ..before
        });
        self.open.insert(conversation, talk);
    }

    /// A conversation under way.
    pub fn talk(&mut self, conversation: u64) -> Option<&mut Talk> {
        self.open.get_mut(&conversation)
    }

    /// It costs a turn: it asks for something, or will never get to ask. I11, I15, I17.
    pub fn count(&mut self, conversation: u64) -> Check {
        let Some(talk) = self.open.get_mut(&conversation) else {
            return Ok(());
        };
        if std::mem::replace(&mut talk.counted, true) {
            return Ok(());
        }
        self.count += 1;
        let boot = talk.begun.now.boot;
        let quiet = self.quiet;
        Invariant::I17.demand(boot <= quiet.from || boot >= quiet.until, || {
            format!(
                "upstream is called {:?} before a Retry-After ends",
                quiet.until - boot
            )
        })?;
        talk.probe = self.breaker.check(boot)?;
        self.bucket.take(boot)
    }

    /// How many turns were taken so far.
    pub fn counted(&self) -> u64 {
        self.count
    }

    /// A request has come whole.
    pub fn hear(&mut self, conversation: u64, stage: Stage, at: Moment) {
        if let Some(talk) = self.open.get_mut(&conversation) {
            talk.heard = Some((stage, at));
        }
    }

    /// The daemon left while upstream was at work. It may once it has waited long enough. I10.
    pub fn leave(&mut self, conversation: u64, at: Moment) -> Check {
        let Some((stage, heard)) = self.open.get(&conversation).and_then(|talk| talk.heard) else {
            return Ok(());
        };
        let waited = at.awake.saturating_sub(heard.awake);
        Invariant::I10.demand(waited >= PATIENCE[stage as usize], || {
            format!("the daemon broke off conversation {conversation} after {waited:?}")
        })
    }

    /// It is over. `class` says how it failed, if it did.
    pub fn end(&mut self, conversation: u64, class: Option<Class>, at: Moment) -> Option<Talk> {
        let talk = self.open.remove(&conversation)?;
        let booting = !self.seen && at.now.boot < BOOT;
        match class {
            Some(class) if class.is_ill() && !(booting && class != Class::Broken) => {
                self.breaker.ill(talk.probe, at.now.boot);
            }
            Some(class) if !class.is_well() => self.breaker.unknown(talk.probe, at.now.boot),
            _ => {
                self.breaker.well(at.now.boot);
                self.seen = true;
            }
        }
        Some(talk)
    }

    /// It ends without having said anything about upstream; or it goes on over another connection.
    pub fn forget(&mut self, conversation: u64, continues: bool) -> Option<Talk> {
        let talk = self.open.remove(&conversation)?;
        if continues {
            self.continued.push_back(talk.clone());
        }
        Some(talk)
    }

    /// What an answer said about coming back: until when, by the boot clock, and whether it was
    /// about all requests.
    pub fn told(&mut self, class: Class, after: RetryAfter, at: Moment) -> Option<Duration> {
        let throttled = (class == Class::Throttled).then_some(THROTTLED);
        let until = at.now.boot + after.means().or(throttled)?;
        if class.speaks_for_all() && until > self.quiet.until {
            self.quiet = Span {
                from: at.now.boot,
                until,
            };
        }
        Some(until)
    }

    /// Until when, by the boot clock, upstream wants no calls at all.
    pub fn quiet_until(&self) -> Duration {
        self.quiet.until
    }

    /// Whether the breaker is open, or was so lately that what it refused is still remembered.
    pub fn is_shut(&self, boot: Duration) -> bool {
        let lately = |closed| boot <= closed + Class::Broken.remembered();
        self.breaker.open.is_some() || self.breaker.closed.is_some_and(lately)
    }

    /// What is under way at the end of a moment, when everything that can happen in it has: what
    /// ends in the moment in which the next one begins is no overlap. I2.
    pub fn check_overlap(&self) -> Check {
        Invariant::I2.demand(self.open.len() <= CONVERSATIONS, || {
            format!("{} conversations at one time", self.open.len())
        })?;
        let mut keys: Vec<_> = self.open.values().filter_map(|talk| talk.key).collect();
        keys.sort_unstable();
        let twice = keys.windows(2).find(|pair| pair[0] == pair[1]);
        Invariant::I2.demand(twice.is_none(), || {
            format!(
                "two conversations for key {}",
                twice.map_or(0, |pair| pair[0])
            )
        })
    }
}

impl Bucket {
    fn take(&mut self, now: Duration) -> Check {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.taken = (self.taken - passed * f64::from(RATE)).max(0.0) + 1.0;
        // A thousandth for what is lost in floating point.
        Invariant::I11.demand(self.taken <= f64::from(RATE) + 0.001, || {
            format!("more than {RATE} calls and {RATE} a second")
        })
    }
}

impl Breaker {
    /// Whether a call that begins now is the attempt of a period. I15.
    fn check(&self, boot: Duration) -> Result<bool, crate::invariant::Breach> {
        let Some((since, shortest)) = self.open else {
            return Ok(false);
        };
        if boot <= since {
            // It began before, or in the same moment.
            return Ok(false);
        }
        Invariant::I15.demand(boot >= since + shortest, || {
            format!(
                "upstream is called {:?} after the last attempt failed, and {shortest:?} is the least",
                boot - since
            )
        })?;
        Ok(true)
    }

    fn well(&mut self, boot: Duration) {
        if self.open.take().is_some() {
            self.closed = Some(boot);
        }
        self.row = 0;
    }

    fn ill(&mut self, probe: bool, boot: Duration) {
        if self.open.is_some() {
            // What began before it opened says nothing new.
            self.unknown(probe, boot);
            return;
        }
        self.row += 1;
        if self.row >= FAILURES {
            self.open = Some((boot, FIRST));
        }
    }

    fn unknown(&mut self, probe: bool, boot: Duration) {
        if let Some((since, shortest)) = &mut self.open
            && probe
        {
            *since = boot;
            *shortest = (*shortest * 2).min(LONGEST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        let time = Duration::from_millis(millis);
        Moment {
            awake: time,
            now: arcbroker_broker::clock::Now {
                wall: time,
                boot: BOOT + time,
            },
            truth: time,
        }
    }

    fn call(calls: &mut Calls, conversation: u64, millis: u64) -> Check {
        calls.begin(conversation, at(millis), None);
        calls.count(conversation)
    }

    fn fail(calls: &mut Calls, conversation: u64, millis: u64) -> Check {
        call(calls, conversation, millis)?;
        calls.end(conversation, Some(Class::Down), at(millis));
        Ok(())
    }

    fn broken(check: &Check) -> Invariant {
        check.as_ref().unwrap_err().invariant
    }

    #[test]
    fn i11_breaks_with_the_sixth_call_at_once() {
        let mut calls = Calls::default();
        for conversation in 0..5 {
            call(&mut calls, conversation, 0).unwrap();
        }
        assert_eq!(broken(&call(&mut calls, 5, 190)), Invariant::I11);
        let mut calls = Calls::default();
        for conversation in 0..50 {
            call(&mut calls, conversation, conversation * 200).unwrap();
        }
    }

    #[test]
    fn i2_breaks_with_the_third_conversation_and_with_the_second_of_a_key() {
        let mut calls = Calls::default();
        for conversation in 0..2 {
            call(&mut calls, conversation, 0).unwrap();
        }
        calls.check_overlap().unwrap();
        for conversation in 0..2 {
            calls.talk(conversation).unwrap().key = Some(1);
        }
        assert_eq!(broken(&calls.check_overlap()), Invariant::I2);
        calls.end(0, None, at(1));
        calls.check_overlap().unwrap();
        for conversation in 2..4 {
            call(&mut calls, conversation, 0).unwrap();
        }
        assert_eq!(broken(&calls.check_overlap()), Invariant::I2);
    }

    #[test]
    fn i15_breaks_with_a_call_too_early_and_the_time_doubles() {
        let opened = || {
            let mut calls = Calls::default();
            for conversation in 0..5 {
                fail(&mut calls, conversation, 0).unwrap();
            }
            calls
        };
        assert_eq!(broken(&fail(&mut opened(), 9, 799)), Invariant::I15);
        let mut calls = opened();
        fail(&mut calls, 9, 800).unwrap();
        assert_eq!(broken(&fail(&mut calls, 10, 800 + 1599)), Invariant::I15);
    }

    #[test]
    fn i17_breaks_with_any_call_before_a_retry_after_ends() {
        let mut calls = Calls::default();
        call(&mut calls, 0, 0).unwrap();
        calls.told(Class::Throttled, RetryAfter(None), at(0));
        calls.end(0, Some(Class::Throttled), at(0));
        assert_eq!(broken(&call(&mut calls, 1, 9_999)), Invariant::I17);
        call(&mut calls, 2, 10_000).unwrap();
    }

    #[test]
    fn i10_breaks_when_the_daemon_leaves_early() {
        let mut calls = Calls::default();
        call(&mut calls, 0, 0).unwrap();
        calls.hear(0, Stage::Challenge, at(0));
        assert_eq!(broken(&calls.leave(0, at(9_999))), Invariant::I10);
        calls.leave(0, at(10_000)).unwrap();
    }
}
