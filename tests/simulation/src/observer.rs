//! The observer: it hears of everything that happens, works out what must hold, and keeps the first
//! thing that does not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::calls::Calls;
use crate::client::Kind;
use crate::event::{Ended, Event, Trace, digest};
use crate::fault::{Class, Fault, RetryAfter, Stage};
use crate::figures::Figures;
use crate::health::Health;
use crate::holding::{Held, Holding, INTEREST};
use crate::invariant::{Breach, Check, Invariant};
use crate::keys::{IDENTITIES, KEYS};
use crate::timeline::{Moment, Shift, Timeline};

/// How many tokens that are in no use are remembered.
const REMEMBERED: usize = 500;

/// Where everything is told.
#[derive(Clone, Debug)]
pub struct Observer(Arc<Mutex<Seen>>);

/// What was seen so far, and what follows from it.
#[derive(Debug)]
pub struct Seen {
    pub(crate) timeline: Timeline,
    pub(crate) trace: Trace,
    pub(crate) figures: Figures,
    pub(crate) calls: Calls,
    pub(crate) keys: [Holding; KEYS.len()],
    pub(crate) health: Health,
    pub(crate) requests: BTreeMap<u64, Asked>,
    pub(crate) tokens: BTreeMap<u64, Facts>,
    /// Which principal each identity was in the last token that came, and since when, awake.
    pub(crate) principals: [Option<(u64, Duration)>; IDENTITIES],
    pub(crate) policy: PolicySeen,
    pub(crate) audit_gone: bool,
    /// What upstream would give for each key.
    pub(crate) offers: [Offer; KEYS.len()],
    /// The last conversation in which the daemon could not even say what it was about: how it
    /// failed, and when by the boot clock.
    pub(crate) mute_failure: Option<(Class, Duration)>,
    /// Requests that must have a record by now.
    pub(crate) recorded: u64,
    /// Those that ended while none could be written.
    pub(crate) unrecorded: u64,
    /// Refreshes that nothing disturbed, and the smallest share of a life that was gone at one.
    pub(crate) spread: (u32, f64),
    /// Digests of what upstream saw, and of the answers of clients that stay.
    upstream: Trace,
    stayers: u64,
    broken: Option<Broken>,
    last: Duration,
}

/// Whether the revocable rule is in force.
#[derive(Debug)]
pub struct PolicySeen {
    pub(crate) whole: bool,
}

/// A request under way.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub(crate) kind: Kind,
    pub(crate) at: Moment,
    /// Whether the revocable rule was in force.
    pub(crate) policy_whole: bool,
    /// What had to be handed out when it began.
    pub(crate) good: Option<Held>,
    pub(crate) generation: u64,
    /// Something was received in that generation before.
    pub(crate) warm: bool,
    /// For how long all was well.
    pub(crate) calm: Option<Duration>,
    /// For how long upstream could have given a better token.
    pub(crate) better: Option<Duration>,
    /// For how long somebody has asked at least now and then.
    pub(crate) wanted: Option<Duration>,
    /// A client that asks now must have its token at once.
    pub(crate) must_not_wait: bool,
    /// Clock events so far.
    pub(crate) clocks: u64,
}

/// A token that upstream made.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The key.
    pub key: usize,
    /// The whole text.
    pub text: String,
    /// The principal that it names.
    pub principal: u64,
    /// The end of it, Unix seconds, as the answer and the token itself say; the truth.
    pub expires_on: u64,
    /// Whether the wall clock was behind when the daemon received it.
    pub(crate) wall_behind: bool,
}

/// A token on its way to the daemon.
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    /// Its number.
    pub token: u64,
    /// The `expires_in` of the answer.
    pub expires_in: u64,
}

/// The first invariant that broke.
#[derive(Clone, Debug)]
pub struct Broken {
    /// Which, and what was seen.
    pub breach: Breach,
    /// When.
    pub at: Moment,
    /// The last events up to it.
    pub events: Vec<String>,
    /// What was to be held for each key.
    pub keys: Vec<String>,
}

impl Observer {
    /// Nothing was seen yet.
    pub fn new(timeline: Timeline, shown: usize) -> Self {
        Self(Arc::new(Mutex::new(Seen {
            timeline,
            trace: Trace::new(shown),
            figures: Figures::default(),
            calls: Calls::default(),
            keys: Default::default(),
            health: Health::default(),
            requests: BTreeMap::new(),
            tokens: BTreeMap::new(),
            principals: [None; IDENTITIES],
            policy: PolicySeen { whole: true },
            audit_gone: false,
            offers: Default::default(),
            mute_failure: None,
            recorded: 0,
            unrecorded: 0,
            spread: (0, 1.0),
            upstream: Trace::new(1),
            stayers: 0,
            broken: None,
            last: Duration::ZERO,
        })))
    }

    /// Looks at what was seen.
    pub fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first invariant that broke, if any did.
    pub fn broken(&self) -> Option<Broken> {
        self.lock().broken.clone()
    }
}

impl Seen {
    /// Something happened. What holds at the end of a moment is checked when the next one begins.
    pub fn note(&mut self, event: Event) -> Moment {
        let moment = self.timeline.moment();
        if moment.awake != self.last {
            self.last = moment.awake;
            let check = self.calls.check_overlap();
            self.check(check);
        }
        if self.broken.is_none() {
            if event.is_upstream() {
                self.upstream.add(moment, event.clone());
            }
            self.trace.add(moment, event);
        }
        moment
    }

    /// A client that would have stayed in any case has its answer.
    pub(crate) fn stayed(
        &mut self,
        request: u64,
        status: u16,
        token: Option<(u64, u64)>,
        waited: Duration,
    ) {
        let digest = digest(&(request, status, token, waited));
        self.stayers = self.stayers.wrapping_add(digest);
    }

    /// Digests of what upstream saw, and of the answers of clients that stay: whether others go
    /// away must change neither.
    pub fn digests(&self) -> (u64, u64) {
        (self.upstream.digest(), self.stayers)
    }

    /// Whether somebody has asked for this key so lately that it is kept fresh for a while yet.
    pub fn is_wanted(&self, key: usize) -> bool {
        let boot = self.timeline.moment().now.boot;
        let asked = self.keys[key].asked;
        asked.is_some_and(|asked| boot.saturating_sub(asked) < INTEREST / 2)
    }

    /// The SHA-256 of the token that a client of this key has.
    pub fn held_digest(&self, key: usize) -> Option<String> {
        use sha2::Digest as _;
        let facts = self.facts(self.keys[key].certain()?.token)?;
        let digest = sha2::Sha256::digest(facts.text.as_bytes());
        Some(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Keeps the first breach.
    pub fn check(&mut self, check: Check) {
        if let (Err(breach), None) = (check, &self.broken) {
            self.broken = Some(Broken {
                breach,
                at: self.timeline.moment(),
                events: self.trace.tail(),
                keys: self.keys.iter().map(|key| format!("{key:?}")).collect(),
            });
        }
    }

    /// Upstream is up for the first time.
    pub fn up(&mut self) {
        let at = self.note(Event::Up);
        self.health.up(at.awake);
    }

    /// A fault begins, or ends.
    pub fn fault(&mut self, fault: Fault, begins: bool) {
        let event = if begins {
            self.figures.faults += 1;
            Event::FaultBegins(fault)
        } else {
            Event::FaultEnds(fault)
        };
        let at = self.note(event);
        self.health.fault(begins, at.awake);
    }

    /// The wall clock is about to be set. What has ended by now is dropped, and stays so, whatever
    /// it would have left by the new clock.
    pub fn wall_changes(&mut self) {
        let now = self.timeline.moment().now;
        for holding in &mut self.keys {
            holding.drop_ended(now);
        }
    }

    /// The wall clock was set; `sane` is false where tokens cannot be judged any more.
    pub fn wall_set(&mut self, to: Shift, sane: bool) {
        self.figures.clock_steps += 1;
        let at = self.note(Event::WallSet(to));
        self.health.clock(Some(sane), at.awake);
    }

    /// The machine was asleep.
    pub fn slept(&mut self, time: Duration) {
        self.figures.suspends += 1;
        let at = self.note(Event::Slept(time));
        self.health.clock(None, at.awake);
    }

    /// An identity is another principal now: the daemon will notice with the next token.
    pub fn new_principal(&mut self, principal: u64) {
        self.figures.identity_changes += 1;
        self.note(Event::NewPrincipal(principal));
    }

    /// The policy was replaced.
    pub fn new_policy(&mut self, whole: bool) {
        self.note(Event::NewPolicy(whole));
        self.policy.whole = whole;
    }

    /// The audit directory is gone, or back.
    pub fn audit(&mut self, gone: bool) {
        self.note(Event::AuditGone(gone));
        self.audit_gone = gone;
    }

    /// The daemon connects.
    pub fn connected(&mut self, conversation: u64, fault: Option<Fault>) {
        self.figures.connects += 1;
        let at = self.note(Event::Connected {
            conversation,
            fault,
        });
        self.calls.begin(conversation, at, fault);
        if fault.is_some_and(Fault::is_mute) {
            // Without effect where it goes on with what another connection began.
            let check = self.calls.count(conversation);
            self.check(check);
        }
    }

    /// A request without a key came: the call for a token, or for a document.
    pub fn called(&mut self, conversation: u64, key: Option<usize>, bypass: bool) {
        self.figures.calls += 1;
        let at = self.note(Event::Called {
            conversation,
            key,
            bypass,
        });
        let check = self.calls.count(conversation);
        self.check(check);
        self.calls.hear(conversation, Stage::Challenge, at);
        let generation = key.map_or(0, |key| self.keys[key].generation);
        if let Some(talk) = self.calls.talk(conversation) {
            (talk.key, talk.bypass, talk.generation) = (key, bypass, generation);
        }
        if let Some(key) = key {
            let check = self.check_call(key, bypass, at);
            self.check(check);
            if let Some(gone) = self.keys[key].undisturbed(at.now) {
                self.spread = (self.spread.0 + 1, self.spread.1.min(gone));
            }
            let holding = &mut self.keys[key];
            holding.talking = Some(conversation);
            holding.commanded = false;
            holding.wished &= !bypass;
        }
    }

    /// A request with a key came.
    pub fn keyed(&mut self, conversation: u64, key: usize) {
        let at = self.note(Event::Keyed { conversation });
        self.calls.hear(conversation, Stage::Token, at);
        let generation = self.keys[key].generation;
        if let Some(talk) = self.calls.talk(conversation)
            && talk.key != Some(key)
        {
            // Over another connection than the challenge, while other conversations did the same.
            (talk.key, talk.generation) = (Some(key), generation);
        }
    }

    /// A stranger was told something. I24.
    pub fn stranger_heard(&mut self, conversation: u64, what: &str) {
        let check = Invariant::I24.demand(false, || {
            format!("in conversation {conversation}, somebody else than HIMDS was sent {what}")
        });
        self.check(check);
    }

    /// Upstream was asked for what no client may have. I21.
    pub fn called_for_forbidden(&mut self, target: &str) {
        let check = Invariant::I21.demand(false, || format!("upstream was asked for {target}"));
        self.check(check);
    }

    /// The daemon left while upstream was at work.
    pub fn left(&mut self, conversation: u64, class: Option<Class>) {
        let at = self.timeline.moment();
        let check = self.calls.leave(conversation, at);
        self.check(check);
        match class {
            Some(class) => self.failed(conversation, class, RetryAfter(None)),
            None => self.gone(conversation, Ended::Left),
        }
    }

    /// A conversation ended without a result of upstream's making.
    pub fn gone(&mut self, conversation: u64, how: Ended) {
        if let Some(talk) = self.calls.forget(conversation, how == Ended::Continues) {
            self.note(Event::Ended {
                conversation,
                result: how,
            });
            self.hang_up_key(talk.key, conversation);
        }
    }

    /// It failed.
    pub fn failed(&mut self, conversation: u64, class: Class, after: RetryAfter) {
        if self.calls.talk(conversation).is_none() {
            return;
        }
        let at = self.note(Event::Ended {
            conversation,
            result: Ended::Failed(class),
        });
        self.figures.failed_calls += 1;
        let told = self.calls.told(class, after, at);
        let Some(talk) = self.calls.end(conversation, Some(class), at) else {
            return;
        };
        self.hang_up_key(talk.key, conversation);
        if talk.fault.is_some_and(Fault::is_mute) {
            self.mute_failure = Some((class, at.now.boot));
        }
        if let Some(key) = talk.key {
            let holding = &mut self.keys[key];
            holding.failed = Some((class, at.now.boot));
            holding.quiet_until = holding.quiet_until.max(told.unwrap_or_default());
        }
    }

    /// A document was given.
    pub fn documented(&mut self, conversation: u64) {
        let at = self.note(Event::Ended {
            conversation,
            result: Ended::Document,
        });
        self.calls.end(conversation, None, at);
    }

    /// The administrator dropped all tokens; `flying` are the keys with a fetch under way.
    pub fn flushed(&mut self, flying: [bool; KEYS.len()]) {
        self.figures.commands += 1;
        let at = self.note(Event::Flushed);
        for (holding, flying) in self.keys.iter_mut().zip(flying) {
            holding.forget(flying, at);
        }
    }

    /// The administrator wants all tokens refreshed.
    pub fn refresh_wanted(&mut self) {
        self.figures.commands += 1;
        self.note(Event::RefreshWanted);
        for holding in &mut self.keys {
            holding.commanded = true;
            holding.bypassed = None;
        }
    }

    /// A token was given.
    pub fn delivered(&mut self, conversation: u64, delivery: Delivery) {
        let at = self.note(Event::Ended {
            conversation,
            result: Ended::Token(delivery.token),
        });
        self.figures.tokens += 1;
        let behind = matches!(self.timeline.wall(), Shift::Behind(by) if !by.is_zero());
        let Some(facts) = self.tokens.get_mut(&delivery.token) else {
            return;
        };
        facts.wall_behind = behind;
        let (key, principal, expires_on) = (facts.key, facts.principal, facts.expires_on);
        let lifetime = Duration::from_secs(expires_on)
            .saturating_sub(at.now.wall)
            .min(Duration::from_secs(delivery.expires_in));
        if lifetime < crate::holding::HARD {
            // It is of no use, and is not taken.
            self.failed(conversation, Class::Garbage, RetryAfter(None));
            return;
        }
        let Some(talk) = self.calls.end(conversation, None, at) else {
            return;
        };
        self.hang_up_key(talk.key, conversation);
        if talk.bypass {
            self.keys[key].bypassed = Some(at.now.boot);
        }
        let held = Held {
            token: delivery.token,
            ends: arcbroker_broker::clock::Now {
                wall: Duration::from_secs(expires_on),
                boot: at.now.boot + lifetime,
            },
            lifetime,
            got: at,
            again: None,
        };
        if talk.generation == self.keys[key].generation {
            self.learn_principal(key, principal, at);
            let generation = self.keys[key].generation;
            self.keys[key].receive(held, generation, talk.bypass);
        } else {
            self.keys[key].failed = None;
        }
    }

    fn hang_up_key(&mut self, key: Option<usize>, conversation: u64) {
        if let Some(key) = key
            && self.keys[key].talking == Some(conversation)
        {
            self.keys[key].talking = None;
        }
    }

    /// An identity that is another principal than before: nothing from before is of use. I31.
    fn learn_principal(&mut self, key: usize, principal: u64, at: Moment) {
        let identity = KEYS[key].identity();
        let before = self.principals[identity].replace((principal, at.awake));
        match before {
            Some((before, since)) if before == principal => {
                self.principals[identity] = Some((principal, since));
            }
            Some(_) => {
                for (other, holding) in self.keys.iter_mut().enumerate() {
                    if KEYS[other].identity() == identity {
                        // It may also wait for its turn, which cannot be seen from here.
                        holding.forget(other != key, at);
                    }
                }
            }
            None => {}
        }
    }
}

/// What upstream would give for a key.
#[derive(Clone, Copy, Debug, Default)]
pub struct Offer {
    /// What is in its cache.
    pub kept: Option<u64>,
    /// It gives that until this much is left.
    pub renews_below: Duration,
    /// Its cache can be passed by.
    pub can_be_bypassed: bool,
}

impl Facts {
    /// A token that the daemon does not have yet.
    pub fn new(key: usize, text: String, principal: u64, expires_on: u64) -> Self {
        Self {
            key,
            text,
            principal,
            expires_on,
            wall_behind: false,
        }
    }
}

impl Seen {
    /// A token was made.
    pub fn minted(&mut self, number: u64, facts: Facts) {
        self.tokens.insert(number, facts);
        if self.tokens.len() > 2 * REMEMBERED {
            self.forget_old_tokens(number);
        }
    }

    fn forget_old_tokens(&mut self, newest: u64) {
        let held = self
            .keys
            .iter()
            .flat_map(|holding| holding.states.iter().flatten().chain(&holding.before));
        let mut used: Vec<_> = held.map(|held| held.token).collect();
        used.extend(self.offers.iter().filter_map(|offer| offer.kept));
        let is_new = |number: u64| number + REMEMBERED as u64 > newest;
        self.tokens
            .retain(|number, _| is_new(*number) || used.contains(number));
    }

    /// What is known of a token.
    pub fn facts(&self, number: u64) -> Option<&Facts> {
        self.tokens.get(&number)
    }
}
