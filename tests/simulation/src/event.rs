//! What happens in a run: the last events for a reader, and a digest of them all.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use crate::fault::{Class, Fault};
use crate::timeline::{Moment, Shift};

/// How many events are shown when an invariant breaks, unless told otherwise.
pub const SHOWN: usize = 40;

/// One event. Numbers are those of requests, conversations, keys and tokens of the run.
#[derive(Clone, Debug, Hash)]
pub enum Event {
    /// A client asks.
    Asked {
        /// Its number.
        request: u64,
        /// What for.
        what: crate::client::Kind,
    },
    /// It has its answer.
    Answered {
        /// Its number.
        request: u64,
        /// The status.
        status: u16,
        /// The word of an error, or nothing.
        error: String,
        /// How long it waited.
        waited: Duration,
        /// The token and the seconds that it has left.
        token: Option<(u64, u64)>,
    },
    /// It went away before.
    HungUp {
        /// Its number.
        request: u64,
    },
    /// The daemon connects to upstream.
    Connected {
        /// The conversation.
        conversation: u64,
        /// What upstream will do to it.
        fault: Option<Fault>,
    },
    /// It asks for a token or a document.
    Called {
        /// The conversation.
        conversation: u64,
        /// The key of the cache; none for a document.
        key: Option<usize>,
        /// Upstream's own cache is to be passed by.
        bypass: bool,
    },
    /// It sends a challenge key.
    Keyed {
        /// The conversation.
        conversation: u64,
    },
    /// The conversation is over.
    Ended {
        /// The conversation.
        conversation: u64,
        /// With what.
        result: Ended,
    },
    /// A fault begins to happen.
    FaultBegins(Fault),
    /// It does not happen any more.
    FaultEnds(Fault),
    /// Upstream is up for the first time.
    Up,
    /// The wall clock is set.
    WallSet(Shift),
    /// The machine was asleep.
    Slept(Duration),
    /// The machine was connected anew: an identity is another principal now.
    NewPrincipal(u64),
    /// The policy was replaced; whether it allows what it usually does.
    NewPolicy(bool),
    /// The audit directory is gone, or back.
    AuditGone(bool),
    /// The audit file was rotated.
    Rotated,
    /// The administrator dropped all tokens.
    Flushed,
    /// The administrator wants all tokens refreshed.
    RefreshWanted,
}

/// How a conversation ended.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Ended {
    /// A token was given.
    Token(u64),
    /// A document was given.
    Document,
    /// It failed, for upstream's part, like this.
    Failed(Class),
    /// Upstream closed the connection after the challenge: the daemon goes on over another one.
    Continues,
    /// The daemon left.
    Left,
}

/// A record of events.
#[derive(Debug)]
pub struct Trace {
    shown: usize,
    last: VecDeque<(Moment, Event)>,
    count: u64,
    digest: u64,
    /// Of the events of one moment. Those who wait for the same fetch are woken in an order that
    /// tokio draws; so the order within a moment is left out.
    moment: (Duration, u64),
}

impl Trace {
    /// Keeps so many events for a reader.
    pub fn new(shown: usize) -> Self {
        Self {
            shown: shown.max(1),
            last: VecDeque::new(),
            count: 0,
            digest: 0,
            moment: (Duration::ZERO, 0),
        }
    }

    /// Adds an event.
    pub fn add(&mut self, at: Moment, event: Event) {
        if self.moment.0 != at.awake {
            self.digest = self.digest();
            self.moment = (at.awake, 0);
        }
        let mut hasher = Fnv::default();
        (at.awake, at.now.boot, at.now.wall).hash(&mut hasher);
        event.hash(&mut hasher);
        self.moment.1 = self.moment.1.wrapping_add(hasher.finish());
        self.count += 1;
        if self.last.len() == self.shown {
            self.last.pop_front();
        }
        self.last.push_back((at, event));
    }

    /// A digest of all events so far.
    pub fn digest(&self) -> u64 {
        let mut hasher = Fnv::default();
        (self.digest, self.moment.1).hash(&mut hasher);
        hasher.finish()
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The last ones, as lines.
    pub fn tail(&self) -> Vec<String> {
        self.last
            .iter()
            .map(|(at, event)| format!("{at} {event:?}"))
            .collect()
    }
}

impl fmt::Display for Moment {
    /// Days and time of day since the start of the run, awake.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.awake.as_secs(), self.awake.subsec_millis());
        let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
        let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
        write!(
            f,
            "day {days} {hours:02}:{minutes:02}:{seconds:02}.{millis:03}"
        )
    }
}

impl Event {
    /// Whether upstream sees it.
    pub fn is_upstream(&self) -> bool {
        matches!(
            self,
            Self::Connected { .. } | Self::Called { .. } | Self::Keyed { .. } | Self::Ended { .. }
        )
    }
}

/// A digest of anything.
pub fn digest(of: &impl Hash) -> u64 {
    let mut hasher = Fnv::default();
    of.hash(&mut hasher);
    hasher.finish()
}

/// FNV-1a: its results do not change with the version of Rust, as those of std's hasher may.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
