//! Rules for a while: they lie over the policy, and end by themselves.
//!
//! They are kept in memory alone. A restart ends them: who was to have something for half an hour
//! has it for no longer, and may have it for less.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arcbroker_client::wire::TimedGrant;
use arcbroker_policy::{Allowed, Caller, Grant, Identity, Policy, Resource};

use crate::clock::Now;
use crate::lock::lock;

/// So many at one time; each is looked at for whoever has no rule.
const MOST: usize = 64;

/// The longest.
pub const LONGEST: Duration = Duration::from_hours(24);

/// All that have not ended.
#[derive(Debug, Default)]
pub struct TimedGrants(Mutex<Given>);

#[derive(Debug, Default)]
struct Given {
    last: u64,
    grants: Vec<Timed>,
}

#[derive(Clone, Debug)]
struct Timed {
    number: u64,
    policy: Arc<Policy>,
    rule: String,
    by: String,
    reason: String,
    given: Now,
    /// Since boot: a step of the wall clock makes it neither longer nor shorter.
    ends: Duration,
}

/// What somebody asks for.
#[derive(Debug)]
pub struct Request {
    /// With one rule.
    pub policy: Policy,
    /// The text of that rule.
    pub rule: String,
    /// Who gives it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// For how long.
    pub time: Duration,
}

/// There are as many as there may be.
#[derive(Debug, thiserror::Error)]
#[error("there are {MOST} grants already: end one with arcbroker grant --end NUMBER")]
pub struct TooMany;

impl TimedGrants {
    /// Gives it from now on.
    ///
    /// # Errors
    ///
    /// [`TooMany`].
    pub fn give(&self, request: Request, now: Now) -> Result<TimedGrant, TooMany> {
        let mut given = self.alive(now);
        if given.grants.len() >= MOST {
            return Err(TooMany);
        }
        given.last += 1;
        let timed = Timed {
            number: given.last,
            policy: Arc::new(request.policy),
            rule: request.rule,
            by: request.by,
            reason: request.reason,
            given: now,
            ends: now.boot + request.time,
        };
        let shown = timed.shown(now);
        given.grants.push(timed);
        Ok(shown)
    }

    /// Ends one before its time; none has this number if nothing is returned.
    pub fn end(&self, number: u64, now: Now) -> Option<TimedGrant> {
        let mut given = self.alive(now);
        let place = given
            .grants
            .iter()
            .position(|timed| timed.number == number)?;
        Some(given.grants.remove(place).shown(now))
    }

    /// All that have not ended, the oldest first.
    pub fn list(&self, now: Now) -> Vec<TimedGrant> {
        let given = self.alive(now);
        given.grants.iter().map(|timed| timed.shown(now)).collect()
    }

    /// What one of them gives.
    pub fn decide(
        &self,
        caller: &Caller,
        identity: &Identity,
        resource: &Resource,
        now: Now,
    ) -> Option<Grant> {
        let given = self.alive(now);
        let mut grants = given.grants.iter();
        grants.find_map(|timed| timed.policy.decide(caller, identity, resource).ok())
    }

    /// Everything that they give this caller.
    pub fn allowed(&self, caller: &Caller, now: Now) -> Vec<Allowed> {
        let given = self.alive(now);
        let grants = given.grants.iter();
        grants
            .flat_map(|timed| timed.policy.allowed(caller))
            .collect()
    }

    /// Without those that have ended.
    fn alive(&self, now: Now) -> MutexGuard<'_, Given> {
        let mut given = lock(&self.0);
        given.grants.retain(|timed| {
            let lives = now.boot < timed.ends;
            if !lives {
                tracing::info!(number = timed.number, reason = %timed.reason, "a grant has ended");
            }
            lives
        });
        given
    }
}

impl Timed {
    fn shown(&self, now: Now) -> TimedGrant {
        let left = self.ends.saturating_sub(now.boot);
        TimedGrant {
            number: self.number,
            rule: self.rule.clone(),
            reason: self.reason.clone(),
            granted_by: self.by.clone(),
            granted_at: self.given.wall.as_secs(),
            ends_at: (now.wall + left).as_secs(),
            remaining_seconds: left.as_secs(),
        }
    }
}

#[cfg(test)]
mod tests {
    use arcbroker_policy::{Accounts, Cloud, Diagnostics, RuleSet, SourceFile};

    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    fn at(seconds: u64) -> Now {
        Now {
            wall: Duration::from_secs(1_000_000 + seconds),
            boot: Duration::from_secs(seconds),
        }
    }

    fn request(uid: u32, time: Duration) -> Request {
        let rule = format!(
            "version = 1\n[[rule]]\nname = \"grant: x\"\nuser = {uid}\nresources = \"https://a\"\n"
        );
        let file = SourceFile {
            name: "grant".into(),
            bytes: rule.clone().into(),
        };
        let mut diagnostics = Diagnostics::new();
        let rules = RuleSet::parse(&[file], Cloud::Public, &mut diagnostics).unwrap();
        Request {
            policy: rules.compile(&Accounts::default(), &mut diagnostics),
            rule,
            by: "root".into(),
            reason: "on call".into(),
            time,
        }
    }

    fn gives(grants: &TimedGrants, uid: u32, now: Now) -> bool {
        let caller = Caller::new(uid, uid, vec![]);
        let resource = Resource::exact("https://a").unwrap();
        let grant = grants.decide(&caller, &Identity::System, &resource, now);
        grant.is_some_and(|grant| grant.rule() == "grant: x")
    }

    #[test]
    fn it_ends_by_the_boot_clock_alone() {
        let grants = TimedGrants::default();
        let shown = grants.give(request(7, MINUTE), at(100)).unwrap();
        assert_eq!((shown.ends_at, shown.remaining_seconds), (1_000_160, 60));
        let stepped = |boot| Now {
            wall: Duration::ZERO,
            boot: Duration::from_secs(boot),
        };
        assert!(gives(&grants, 7, stepped(159)));
        assert!(!gives(&grants, 8, at(101)));
        assert!(!gives(&grants, 7, at(160)));
        assert!(grants.list(at(160)).is_empty());
    }

    #[test]
    fn it_can_be_ended_and_its_number_is_not_used_again() {
        let grants = TimedGrants::default();
        let first = grants.give(request(7, MINUTE), at(0)).unwrap().number;
        assert!(grants.end(first + 1, at(1)).is_none());
        assert_eq!(grants.end(first, at(1)).unwrap().number, first);
        assert!(!gives(&grants, 7, at(2)));
        assert_eq!(grants.give(request(7, MINUTE), at(2)).unwrap().number, 2);
    }

    #[test]
    fn there_is_a_bound_and_those_that_have_ended_make_room() {
        let grants = TimedGrants::default();
        for uid in 0..MOST {
            let uid = u32::try_from(uid).unwrap();
            grants.give(request(uid, MINUTE), at(0)).unwrap();
        }
        assert!(grants.give(request(7, MINUTE), at(59)).is_err());
        assert!(grants.give(request(7, MINUTE), at(60)).is_ok());
    }
}
