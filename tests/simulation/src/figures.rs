//! What was run, in numbers.

use std::iter::Sum;
use std::ops::Add;

/// Counts of one run, or of many.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Figures {
    /// Requests for tokens, documents and all else.
    pub requests: u64,
    /// Of them, tokens handed out.
    pub issued: u64,
    /// Requests that waited.
    pub waited: u64,
    /// Denied by policy.
    pub denied: u64,
    /// Not judged.
    pub malformed: u64,
    /// Allowed, but without a token.
    pub unavailable: u64,
    /// Left by their clients.
    pub hung_up: u64,
    /// Connections to upstream.
    pub connects: u64,
    /// Calls for tokens and documents that upstream heard.
    pub calls: u64,
    /// Of them, and of those that were not heard, failures.
    pub failed_calls: u64,
    /// Tokens that upstream gave.
    pub tokens: u64,
    /// Faults.
    pub faults: u64,
    /// Steps of the wall clock.
    pub clock_steps: u64,
    /// Suspends.
    pub suspends: u64,
    /// Identities that became another principal.
    pub identity_changes: u64,
    /// Flushes and refreshes by the administrator.
    pub commands: u64,
    /// Ticks of the daemon that were run.
    pub ticks: u64,
    /// Audit records read back.
    pub records: u64,
    /// Events.
    pub events: u64,
    /// Awake seconds.
    pub seconds: u64,
    /// The most wake-ups of the runtime in one hour.
    pub most_wakes: u64,
    /// The most calls to upstream in one hour.
    pub most_calls: u64,
}

impl Figures {
    /// Each with its name.
    pub fn lines(&self) -> [(&'static str, u64); 21] {
        [
            ("requests", self.requests),
            ("tokens issued", self.issued),
            ("requests that waited", self.waited),
            ("denied", self.denied),
            ("malformed", self.malformed),
            ("without a token", self.unavailable),
            ("clients that went away", self.hung_up),
            ("connections to HIMDS", self.connects),
            ("calls that HIMDS heard", self.calls),
            ("failed conversations", self.failed_calls),
            ("tokens from HIMDS", self.tokens),
            ("faults", self.faults),
            ("clock steps", self.clock_steps),
            ("suspends", self.suspends),
            ("identity changes", self.identity_changes),
            ("flushes and refreshes", self.commands),
            ("ticks that were run", self.ticks),
            ("audit records verified", self.records),
            ("events", self.events),
            ("most wake-ups in an hour", self.most_wakes),
            ("most calls in an hour", self.most_calls),
        ]
    }
}

impl Add for Figures {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            issued: self.issued + other.issued,
            waited: self.waited + other.waited,
            denied: self.denied + other.denied,
            malformed: self.malformed + other.malformed,
            unavailable: self.unavailable + other.unavailable,
            hung_up: self.hung_up + other.hung_up,
            connects: self.connects + other.connects,
            calls: self.calls + other.calls,
            failed_calls: self.failed_calls + other.failed_calls,
            tokens: self.tokens + other.tokens,
            faults: self.faults + other.faults,
            clock_steps: self.clock_steps + other.clock_steps,
            suspends: self.suspends + other.suspends,
            identity_changes: self.identity_changes + other.identity_changes,
            commands: self.commands + other.commands,
            ticks: self.ticks + other.ticks,
            records: self.records + other.records,
            events: self.events + other.events,
            seconds: self.seconds + other.seconds,
            most_wakes: self.most_wakes.max(other.most_wakes),
            most_calls: self.most_calls.max(other.most_calls),
        }
    }
}

impl Sum for Figures {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}
