//! The invariants, by the numbers that `docs/simulation.md` explains.

use std::fmt;

/// What must hold at every step.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Invariant {
    /// Upstream is called when there is a reason, and once for all who wait.
    I1,
    /// One conversation for each key, two in all.
    I2,
    /// No token with less than 60 s left.
    I3,
    /// No token with less than 5 min left where a better one could be had.
    I4,
    /// The token that ends last of those received.
    I5,
    /// `expires_in` is what is left.
    I6,
    /// A token only for the resource, the identity and the generation that was asked for.
    I7,
    /// The record is written before the token leaves.
    I8,
    /// Each request has one answer, within 21 s, unless its client went away.
    I9,
    /// A client that goes away changes nothing for upstream.
    I10,
    /// No more than five calls, and five a second.
    I11,
    /// Nobody waits while all is well.
    I12,
    /// A valid token is served whatever upstream does.
    I13,
    /// All is fresh 40 s after upstream recovered.
    I14,
    /// One attempt in each period of the breaker.
    I15,
    /// A failure is not remembered for longer than its class says.
    I16,
    /// A Retry-After is obeyed, for every key.
    I17,
    /// No panic, and no busy loop, whatever the clocks do.
    I18,
    /// No more entries than there may be.
    I20,
    /// What is forbidden costs upstream nothing.
    I21,
    /// The same request has the same decision.
    I22,
    /// No secret to a stranger.
    I24,
    /// The audit log is whole.
    I26,
    /// The same token again is asked for once a minute at most.
    I30,
    /// No token of an identity that is gone.
    I31,
    /// Refreshes are spread around half of a life.
    Jitter,
}

/// An invariant that did not hold.
#[derive(Clone, Debug)]
pub struct Breach {
    /// Which.
    pub invariant: Invariant,
    /// What was seen.
    pub what: String,
}

/// What a check says.
pub type Check = Result<(), Breach>;

impl Invariant {
    /// Breaks unless something holds.
    pub fn demand(self, holds: bool, what: impl FnOnce() -> String) -> Check {
        if holds {
            return Ok(());
        }
        Err(Breach {
            invariant: self,
            what: what(),
        })
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}
