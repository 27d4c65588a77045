//! What clients are told: the invariants of answers, and of calls as far as they follow from them.

use std::time::Duration;

use crate::client::{Kind, MALFORMED, Order, Reply, TokenReply, Wish};
use crate::event::Event;
use crate::holding::{AGAIN, HARD, Held, INTEREST, SOFT};
use crate::invariant::{Check, Invariant};
use crate::keys::{KEYS, REVOCABLE};
use crate::observer::{Asked, Seen};
use crate::timeline::{Moment, Shift};

/// The longest that a request may take: the deadline of 20 s and one more.
const LONGEST_WAIT: Duration = Duration::from_secs(21);
/// When all must be fresh after upstream recovered, and after anything else that takes a refresh.
pub const SETTLED: Duration = Duration::from_secs(40);
/// The same where upstream said that the request itself is wrong: that is remembered for a minute.
const SETTLED_PERMANENT: Duration = Duration::from_secs(64);
/// A life shorter than this gives no time for the usual rules.
const SHORT_LIVED: Duration = Duration::from_mins(10);
/// A word for a denial by policy, which upstream's own refusal must not be taken for.
const DENIED: &str = "access_denied";

/// Refreshes of which one must come early, and what early means; the first may at 0.45.
const ENOUGH: u32 = 50;
const SOON: f64 = 0.48;

impl Seen {
    /// A client asks.
    pub fn asked(&mut self, order: &Order) {
        self.figures.requests += 1;
        let at = self.note(Event::Asked {
            request: order.number,
            what: order.kind,
        });
        let mut asked = Asked {
            kind: order.kind,
            at,
            policy_whole: self.policy.whole,
            good: None,
            generation: 0,
            warm: false,
            calm: None,
            better: None,
            wanted: None,
            must_not_wait: false,
            clocks: self.health.clocks(),
        };
        if let Kind::Token(key, wish) = order.kind
            && self.is_allowed(key)
        {
            asked.calm = self.calm(key, at);
            asked.better = self.better(key, at);
            let holding = &mut self.keys[key];
            asked.good = holding.good(at.now).copied();
            asked.generation = holding.generation;
            asked.warm = holding.warm;
            holding.ask(at.now.boot);
            asked.wanted = holding
                .wanted_since
                .map(|since| at.now.boot.saturating_sub(since));
            holding.wished |= wish != Wish::Nothing;
            if wish == Wish::Another {
                holding.refused = holding.certain().map(|held| held.token);
            }
            asked.must_not_wait = self.must_not_wait(key, &asked);
        }
        self.requests.insert(order.number, asked);
        let check = self.check_oldest(at);
        self.check(check);
    }

    /// Its client went away. `written` is the number of audit records by then.
    pub fn hung_up(&mut self, order: &Order, written: u64) {
        let number = order.number;
        self.figures.hung_up += 1;
        self.note(Event::HungUp { request: number });
        if let Some(asked) = self.requests.remove(&number) {
            let check = self.check_record(asked.kind, written);
            self.check(check);
        }
    }

    /// It has its answer. `written` is the number of audit records by then.
    pub fn answered(&mut self, order: &Order, reply: &Reply, written: u64) {
        let number = order.number;
        let token = reply.token.as_ref().map(|token| {
            let left = token.expires_in.parse().unwrap_or(u64::MAX);
            (token_number(&token.access_token), left)
        });
        let waited = self.requests.get(&number).map_or(Duration::ZERO, |asked| {
            self.timeline.moment().awake - asked.at.awake
        });
        let at = self.note(Event::Answered {
            request: number,
            status: reply.status,
            error: reply.error.clone(),
            waited,
            token,
        });
        let Some(asked) = self.requests.remove(&number) else {
            let check = Invariant::I9.demand(false, || format!("request {number} has two answers"));
            return self.check(check);
        };
        self.count(reply, waited);
        if order.patience.is_none() {
            self.stayed(number, reply.status, token, waited);
        }
        let checks = [
            Invariant::I9.demand(waited <= LONGEST_WAIT, || {
                format!("request {number} took {waited:?}")
            }),
            self.check_record(asked.kind, written),
            Self::check_decision(&asked, reply),
            self.check_answer(&asked, reply, waited, at),
        ];
        for check in checks {
            self.check(check);
        }
    }

    fn count(&mut self, reply: &Reply, waited: Duration) {
        let figures = &mut self.figures;
        figures.waited += u64::from(!waited.is_zero());
        match (reply.status, &reply.token) {
            (200, Some(_)) => figures.issued += 1,
            (403, _) if reply.error == DENIED => figures.denied += 1,
            _ => {}
        }
    }

    fn is_allowed(&self, key: usize) -> bool {
        key != REVOCABLE || self.policy.whole
    }

    /// For how long all has been well; `None` while something is not, or a Retry-After runs.
    pub(crate) fn calm(&self, key: usize, at: Moment) -> Option<Duration> {
        let quiet_until = self.calls.quiet_until().max(self.keys[key].quiet_until);
        let quiet_over = at.now.boot.checked_sub(quiet_until)?;
        Some(self.health.calm(at.awake)?.min(quiet_over))
    }

    /// For how long upstream could have given a better token for this key than the one held.
    pub(crate) fn better(&self, key: usize, at: Moment) -> Option<Duration> {
        let holding = &self.keys[key];
        let Some(held) = holding.certain() else {
            return Some(Duration::MAX);
        };
        let offer = &self.offers[key];
        if offer.kept != Some(held.token) {
            return Some(Duration::MAX);
        }
        let mut renews_below = offer.renews_below;
        if offer.can_be_bypassed && held.again.is_some() {
            renews_below = renews_below.max(SHORT_LIVED);
        }
        renews_below.checked_sub(held.ends.wall.saturating_sub(at.now.wall))
    }

    /// How long after upstream recovered this key must be fresh.
    pub(crate) fn settled(&self, key: usize) -> Duration {
        use crate::fault::Class;
        match self.keys[key].failed {
            Some((Class::Permanent, _)) => SETTLED_PERMANENT,
            _ => SETTLED,
        }
    }

    fn check_oldest(&self, at: Moment) -> Check {
        let Some((number, asked)) = self.requests.first_key_value() else {
            return Ok(());
        };
        Invariant::I9.demand(at.awake - asked.at.awake <= LONGEST_WAIT, || {
            format!("request {number} of {} has no answer yet", asked.at)
        })
    }

    /// Each request for a token has a record by the time that its answer leaves. I8.
    fn check_record(&mut self, kind: Kind, written: u64) -> Check {
        let is_recorded = matches!(
            kind,
            Kind::Token(..) | Kind::Forbidden(_) | Kind::Malformed(_)
        );
        if !is_recorded {
            return Ok(());
        }
        if self.audit_gone {
            self.unrecorded += 1;
            return Ok(());
        }
        self.recorded += 1;
        let recorded = self.recorded;
        Invariant::I8.demand(written >= recorded, || {
            format!("{recorded} requests are over, and {written} records written")
        })
    }

    /// The decision follows from the policy and the caller alone. I22.
    fn check_decision(asked: &Asked, reply: &Reply) -> Check {
        let is_denied = reply.status == 403 && reply.error == DENIED;
        let holds = match asked.kind {
            Kind::Forbidden(_) => is_denied,
            Kind::Malformed(which) => reply.status == MALFORMED[which],
            Kind::Token(REVOCABLE, _) if !asked.policy_whole => is_denied,
            Kind::Token(..) => !is_denied && matches!(reply.status, 200 | 400 | 403 | 502 | 503),
            Kind::Document(_) => matches!(reply.status, 200 | 400 | 403 | 404 | 502 | 503),
            Kind::Whoami | Kind::Health => reply.status == 200,
        };
        Invariant::I22.demand(holds && reply.is_json, || {
            format!(
                "{:?} is answered with {} {}",
                asked.kind, reply.status, reply.error
            )
        })
    }

    fn check_answer(
        &mut self,
        asked: &Asked,
        reply: &Reply,
        waited: Duration,
        at: Moment,
    ) -> Check {
        let Kind::Token(key, wish) = asked.kind else {
            return Ok(());
        };
        if key == REVOCABLE && !asked.policy_whole {
            return Ok(());
        }
        match &reply.token {
            Some(token) => self.check_token(key, asked, token, at)?,
            None if self.audit_gone => return Ok(()),
            None if wish == Wish::Nothing => self.check_refusal(key, reply, waited, at)?,
            None => {}
        }
        if wish != Wish::Nothing {
            let holding = &mut self.keys[key];
            holding.wished &= holding.talking.is_some();
            return Ok(());
        }
        self.check_service(key, asked, reply, waited)?;
        self.check_late(key, asked, at)
    }

    /// The token is one for what was asked, the best there is, and lives as long as is said. I3, I5,
    /// I6, I7, I31.
    fn check_token(&mut self, key: usize, asked: &Asked, token: &TokenReply, at: Moment) -> Check {
        let number = token_number(&token.access_token);
        let facts = self.tokens.get(&number);
        let facts = facts.filter(|facts| facts.text == token.access_token && facts.key == key);
        let echoes = token.resource == KEYS[key].resource
            && token.client_id.as_deref() == KEYS[key].client_id;
        Invariant::I7.demand(facts.is_some() && echoes, || {
            format!("token {number} is not one for key {key}")
        })?;
        Invariant::I8.demand(!self.audit_gone, || {
            "a token left while no record could be written".to_owned()
        })?;
        let Some(facts) = facts.cloned() else {
            return Ok(());
        };
        let principal = self.principals[KEYS[key].identity()];
        let is_gone =
            principal.is_some_and(|(known, since)| known != facts.principal && since < at.awake);
        Invariant::I31.demand(!is_gone, || {
            format!("token {number} names a principal that is gone")
        })?;
        let said = token.expires_in.parse().unwrap_or(u64::MAX);
        let held = self.check_best(key, (number, said), asked, at)?;
        let left = held.left(at.now);
        Invariant::I3.demand(left >= HARD, || format!("token {number} has {left:?} left"))?;
        Invariant::I6.demand(token.expires_in == left.as_secs().to_string(), || {
            format!("expires_in is {} and {left:?} is left", token.expires_in)
        })?;
        // Where the wall clock is behind, now and when the token came, nobody on the machine can
        // know the truth.
        let behind = |wall| matches!(wall, Shift::Behind(by) if !by.is_zero());
        let truth = Duration::from_secs(facts.expires_on + 1).saturating_sub(at.truth);
        let knowable = !(behind(self.timeline.wall()) && facts.wall_behind);
        Invariant::I6.demand(!knowable || left.as_secs() <= truth.as_secs(), || {
            format!("{left:?} is said to be left, and {truth:?} is the truth")
        })?;
        self.check_better(key, asked, &held, left, at)
    }

    /// The token that ends last of those of this generation. I5, I7.
    fn check_best(
        &mut self,
        key: usize,
        (number, left): (u64, u64),
        asked: &Asked,
        at: Moment,
    ) -> Result<Held, crate::invariant::Breach> {
        let holding = &mut self.keys[key];
        if let Some(held) = holding.show(number, left, at.now) {
            return Ok(held);
        }
        let is_older = asked.generation < holding.generation || holding.changed == at.awake;
        match holding.before.iter().find(|before| before.token == number) {
            Some(before) if is_older => Ok(*before),
            _ => Err(crate::invariant::Breach {
                invariant: match holding.good(at.now) {
                    Some(_) => Invariant::I5,
                    None => Invariant::I7,
                },
                what: format!("token {number} is handed out for key {key}, and is not to be held"),
            }),
        }
    }

    /// A token that ends soon is only handed out where no better one could be had. I4.
    fn check_better(
        &self,
        key: usize,
        asked: &Asked,
        held: &Held,
        left: Duration,
        at: Moment,
    ) -> Check {
        if left >= SOFT || !self.is_settled(key, asked) {
            return Ok(());
        }
        let age = at.now.boot.saturating_sub(held.got.now.boot);
        let young = held.lifetime < SHORT_LIVED && age < held.lifetime.mul_f64(0.55) + SETTLED;
        let again = self.keys[key].again(at.now);
        let asked_lately = again.is_some_and(|passed| passed < AGAIN + Duration::from_secs(2));
        Invariant::I4.demand(young || asked_lately, || {
            format!(
                "token {} has {left:?} left, and upstream would give a better one",
                held.token
            )
        })
    }

    /// All that can be fresh is, if all has been well for long enough. I14.
    pub fn check_fresh(&mut self) {
        let at = self.timeline.moment();
        for key in 0..KEYS.len() {
            let check = self.check_key_fresh(key, at);
            self.check(check);
        }
    }

    fn check_key_fresh(&self, key: usize, at: Moment) -> Check {
        let (holding, settled) = (&self.keys[key], self.settled(key));
        let calm = self.calm(key, at).is_some_and(|calm| calm >= settled);
        let ago = |then| at.now.boot.saturating_sub(then);
        let wanted = holding.asked.is_some_and(|asked| ago(asked) + settled <= INTEREST)
            // Who came back a moment ago waits for a fetch.
            && holding.wanted_since.is_some_and(|since| ago(since) >= settled);
        let forgot_lately = at.awake < holding.forgot + settled;
        let short = holding.certain().is_some_and(|held| {
            let age = at.now.boot.saturating_sub(held.got.now.boot);
            held.lifetime < SHORT_LIVED && age < held.lifetime + SETTLED
        });
        if !calm || !wanted || !holding.ever || forgot_lately || short {
            return Ok(());
        }
        let absent = holding.absent(at).unwrap_or_default();
        Invariant::I14.demand(absent <= settled, || {
            format!(
                "all has been well for {:?}, and key {key} has had no token for {absent:?}",
                self.calm(key, at)
            )
        })?;
        let late = holding.late(at.now).unwrap_or_default();
        let better = self.better(key, at).is_some_and(|better| better >= settled);
        Invariant::I14.demand(!better || late <= settled, || {
            format!("the refresh of key {key} is {late:?} late")
        })
    }

    /// At the end: no request is left, and each that is over has a record. I9, I26.
    pub fn check_end(&mut self, chain: &crate::records::Chain) {
        let left = self.requests.len();
        let check = Invariant::I9.demand(left == 0, || format!("{left} requests without an end"));
        self.check(check);
        let outcome = |name: &str| chain.outcomes.get(name).copied().unwrap_or_default();
        let check = Invariant::I26.demand(chain.count() == self.recorded, || {
            format!("{} records of {} requests", chain.count(), self.recorded)
        });
        self.check(check);
        let (issued, denied) = (outcome("issued"), outcome("denied"));
        let figures = self.figures;
        let check = Invariant::I26.demand(
            issued >= figures.issued && denied + self.unrecorded >= figures.denied,
            || {
                format!(
                    "{issued} issued and {denied} denied in the records, {} and {} in fact",
                    figures.issued, figures.denied
                )
            },
        );
        self.check(check);
        let (refreshes, soonest) = self.spread;
        let check = Invariant::Jitter.demand(refreshes < ENOUGH || soonest < SOON, || {
            format!("none of {refreshes} refreshes came before {soonest} of a life")
        });
        self.check(check);
        self.figures.malformed = outcome("malformed");
        self.figures.unavailable = outcome("unavailable");
    }

    /// All is well since long enough, somebody asks from time to time, and upstream has something
    /// better than what is held.
    fn is_settled(&self, key: usize, asked: &Asked) -> bool {
        let settled = self.settled(key);
        asked.calm.is_some_and(|calm| calm >= settled)
            && asked.better.is_some_and(|better| better >= settled)
            && asked.wanted.is_some_and(|wanted| wanted >= settled)
    }

    /// Valid tokens are served whatever upstream does, and nobody waits while all is well. I12, I13.
    fn check_service(&self, key: usize, asked: &Asked, reply: &Reply, waited: Duration) -> Check {
        let served = reply.status == 200;
        if let Some(good) = &asked.good {
            let left = good.left(asked.at.now);
            Invariant::I13.demand(left <= SOFT || (served && waited.is_zero()), || {
                format!(
                    "key {key} has a token with {left:?} left, and its client waits {waited:?} for a {}",
                    reply.status
                )
            })?;
            let undisturbed = asked.clocks == self.health.clocks()
                && asked.generation == self.keys[key].generation;
            Invariant::I13.demand(served || !undisturbed, || {
                format!(
                    "key {key} had a token with {left:?} left, and its client gets a {}",
                    reply.status
                )
            })?;
        }
        Invariant::I12.demand(!asked.must_not_wait || (served && waited.is_zero()), || {
            format!(
                "all is well, and a client of key {key} waits {waited:?} for a {}",
                reply.status
            )
        })
    }

    /// All is well and was warm; but for tokens with so short a life that there is no time for a
    /// refresh, and where upstream gave the same one again a moment ago. I12.
    fn must_not_wait(&self, key: usize, asked: &Asked) -> bool {
        let holding = &self.keys[key];
        let short = holding
            .states
            .iter()
            .flatten()
            .any(|held| held.lifetime < SHORT_LIVED);
        let again = holding.again(asked.at.now);
        let again = again.is_some_and(|passed| passed < AGAIN + SETTLED);
        let certain = holding.states.len() == 1;
        asked.warm && certain && !short && !again && self.is_settled(key, asked)
    }

    /// What is due is refreshed. I14.
    fn check_late(&self, key: usize, asked: &Asked, at: Moment) -> Check {
        let late = self.keys[key].late(at.now).unwrap_or_default();
        let holds = !self.is_settled(key, asked) || late <= self.settled(key);
        Invariant::I14.demand(holds, || {
            format!("the refresh of key {key} is {late:?} late")
        })
    }

    /// A client that is refused at once is told of a failure that is still remembered. I16.
    fn check_refusal(&self, key: usize, reply: &Reply, waited: Duration, at: Moment) -> Check {
        if !waited.is_zero()
            || self.calls.is_shut(at.now.boot)
            || self.calls.quiet_until() > at.now.boot
        {
            return Ok(());
        }
        let remembered = |(class, when): (crate::fault::Class, Duration)| {
            at.now.boot <= when + class.remembered()
        };
        let holding = &self.keys[key];
        let holds = holding.quiet_until > at.now.boot
            || holding.failed.is_some_and(remembered)
            || self.mute_failure.is_some_and(remembered);
        Invariant::I16.demand(holds, || {
            format!(
                "a client of key {key} is told {} {} at once, at {:?} since boot; the last failure was {:?}",
                reply.status, reply.error, at.now.boot, holding.failed
            )
        })
    }

    /// Upstream is called when there is a reason. I1, I17, I21, I30.
    pub(crate) fn check_call(&self, key: usize, bypass: bool, at: Moment) -> Check {
        let (holding, now) = (&self.keys[key], at.now);
        Invariant::I21.demand(holding.asked.is_some(), || {
            format!("key {key} is called for, and nobody asked")
        })?;
        let commanded = holding.commanded || holding.wished;
        Invariant::I17.demand(commanded || now.boot >= holding.quiet_until, || {
            format!("key {key} is called for before its Retry-After ends")
        })?;
        let lately = holding.again(now).is_some_and(|passed| passed < AGAIN);
        // A failure since then is tried again, for whoever wanted another one.
        let excused = commanded || holding.failed.is_some();
        let again = lately && holding.good(now).is_some() && !excused;
        Invariant::I30.demand(!again, || {
            format!("key {key} is called for again within {AGAIN:?} of the same token")
        })?;
        let passed = holding.bypassed.map(|when| now.boot.saturating_sub(when));
        Invariant::I30.demand(
            !bypass || passed.is_none_or(|passed| passed >= AGAIN),
            || format!("upstream's cache is passed by for key {key} after {passed:?}"),
        )?;
        Invariant::I1.demand(holding.is_call_due(now), || {
            format!("key {key} is called for without a reason")
        })
    }
}

/// The number that upstream wrote at the end of a token.
pub fn token_number(text: &str) -> u64 {
    let digits = text.rsplit('-').next().unwrap_or_default();
    digits.parse().unwrap_or_default()
}
