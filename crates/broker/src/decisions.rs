//! The last decisions, kept in memory for whoever asks why.
//!
//! Requests that got no token are kept apart, so that a busy caller with tokens does not push them
//! out.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use arcbroker_policy::{Identity, Resource};

use crate::lock::lock;
use crate::peer::Peer;
use crate::record::{Outcome, RequestId};
use crate::stray::Strayed;

/// Decisions of each of the two kinds that are kept.
const KEPT: usize = 256;

/// One decision and all that it was made from.
#[derive(Clone, Debug)]
pub struct Decided {
    /// Since 1970.
    pub at: Duration,
    /// The number that the client was told.
    pub id: RequestId,
    /// How it ended.
    pub outcome: Outcome,
    /// Who asked, as far as it was known then.
    pub peer: Peer,
    /// What for, where that could be read.
    pub asked: Option<(Identity, Resource)>,
    /// The rule that allowed it.
    pub rule: Option<String>,
    /// Why it is not the peer who asked on the peer's endpoint.
    pub stray: Option<Strayed>,
    /// Hash of the policy that was asked.
    pub policy: String,
    /// How long the answer took.
    pub took: Duration,
}

/// The last decisions.
#[derive(Debug, Default)]
pub struct Decisions(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    issued: VecDeque<Decided>,
    others: VecDeque<Decided>,
}

impl Decisions {
    /// Keeps one; the oldest of its kind makes room.
    pub fn keep(&self, decided: Decided) {
        let mut kept = lock(&self.0);
        let queue = match decided.outcome {
            Outcome::Issued => &mut kept.issued,
            _ => &mut kept.others,
        };
        if queue.len() >= KEPT {
            queue.pop_front();
        }
        queue.push_back(decided);
    }

    /// The one with this number, if it is still kept.
    pub fn find(&self, id: &str) -> Option<Decided> {
        let kept = lock(&self.0);
        let mut all = kept.issued.iter().chain(&kept.others);
        all.find(|decided| decided.id.to_string() == id).cloned()
    }

    /// The last ones, with this outcome or with any, the newest first.
    pub fn last(&self, most: usize, outcome: Option<Outcome>) -> Vec<Decided> {
        let kept = lock(&self.0);
        let all = kept.issued.iter().chain(&kept.others);
        let mut found: Vec<_> = all
            .filter(|decided| outcome.is_none_or(|outcome| decided.outcome == outcome))
            .collect();
        found.sort_by_key(|decided| std::cmp::Reverse(decided.id.number));
        found.into_iter().take(most).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use arcbroker_policy::Caller;

    use super::*;

    fn decided(number: u64, outcome: Outcome) -> Decided {
        Decided {
            at: Duration::ZERO,
            id: RequestId { run: 1, number },
            outcome,
            peer: Peer {
                caller: Caller::new(1, 1, vec![]),
                user: None,
                pid: None,
                invocation: None,
                endpoint: None,
            },
            asked: None,
            rule: None,
            stray: None,
            policy: String::new(),
            took: Duration::ZERO,
        }
    }

    fn numbers(found: &[Decided]) -> Vec<u64> {
        found.iter().map(|decided| decided.id.number).collect()
    }

    #[test]
    fn a_denial_outlives_any_number_of_tokens() {
        let decisions = Decisions::default();
        decisions.keep(decided(1, Outcome::Denied));
        for number in 2..2000 {
            decisions.keep(decided(number, Outcome::Issued));
        }
        assert_eq!(numbers(&decisions.last(9, Some(Outcome::Denied))), [1]);
        assert_eq!(numbers(&decisions.last(3, None)), [1999, 1998, 1997]);
        assert_eq!(decisions.last(5000, None).len(), KEPT + 1);
        assert!(decisions.find("00000001-1").is_some());
        assert!(decisions.find("00000001-2").is_none(), "it made room");
        assert!(decisions.find("00000002-1").is_none(), "of another run");
    }
}
