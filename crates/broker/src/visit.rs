//! One request for a token and its audit record: written once, however the request ends.

use std::time::Duration;

use arcbroker_policy::{Grant, Identity, Resource};

use crate::audit::{AuditError, AuditLog};
use crate::cache::{Acquired, From};
use crate::clock::Clock;
use crate::decisions::{Decided, Decisions};
use crate::peer::Peer;
use crate::record::{Outcome, Record, RequestId, TokenFacts};
use crate::stray::Strayed;

/// A request under way. Dropped before it is closed, it is recorded as abandoned.
#[derive(Debug)]
pub struct Visit<'a> {
    audit: &'a AuditLog,
    decisions: &'a Decisions,
    clock: &'a Clock,
    peer: &'a Peer,
    policy: &'a str,
    id: RequestId,
    /// Since boot.
    began: Duration,
    asked: Option<(Identity, Resource)>,
    grant: Option<Grant>,
    stray: Option<Strayed>,
    /// How, once that is known.
    ended: Option<Outcome>,
}

impl<'a> Visit<'a> {
    /// Begins; `policy` is the hash of the policy that will be asked.
    pub fn begin(
        (audit, decisions): (&'a AuditLog, &'a Decisions),
        clock: &'a Clock,
        peer: &'a Peer,
        policy: &'a str,
    ) -> Self {
        let (id, began) = (audit.next_id(), clock.now().boot);
        Self {
            audit,
            decisions,
            clock,
            peer,
            policy,
            id,
            began,
            asked: None,
            grant: None,
            stray: None,
            ended: None,
        }
    }

    /// The number of this request.
    pub fn id(&self) -> RequestId {
        self.id
    }

    /// It is known what was asked for.
    pub fn asked(&mut self, identity: &Identity, resource: &Resource) {
        self.asked = Some((identity.clone(), resource.clone()));
    }

    /// It was allowed.
    pub fn granted(&mut self, grant: &Grant) {
        self.grant = Some(grant.clone());
    }

    /// It is not the peer's own.
    pub fn strayed(&mut self, stray: Strayed) {
        self.stray = Some(stray);
    }

    /// Records the end.
    ///
    /// # Errors
    ///
    /// When the record is required and cannot be written: then nothing may be handed out.
    pub async fn close(
        mut self,
        outcome: Outcome,
        acquired: Option<&Acquired>,
    ) -> Result<(), AuditError> {
        self.ended = Some(outcome);
        let recorded = self.audit.record(&self.record(outcome, acquired)).await;
        if recorded.is_err() && outcome == Outcome::Issued {
            self.ended = Some(Outcome::Unavailable);
        }
        recorded
    }

    fn keep(&mut self, outcome: Outcome) {
        let now = self.clock.now();
        self.decisions.keep(Decided {
            at: now.wall,
            id: self.id,
            outcome,
            peer: self.peer.clone(),
            asked: self.asked.take(),
            rule: self.grant.as_ref().map(|grant| grant.rule().to_owned()),
            stray: self.stray,
            policy: self.policy.to_owned(),
            took: now.boot.saturating_sub(self.began),
        });
    }

    fn record<'r>(&'r self, outcome: Outcome, acquired: Option<&'r Acquired>) -> Record<'r> {
        Record {
            outcome,
            id: self.id,
            caller: &self.peer.caller,
            user: self.peer.user.as_deref(),
            pid: self.peer.pid,
            invocation: self.peer.invocation.as_deref(),
            identity: self.asked.as_ref().map(|(identity, _)| identity),
            resource: self.asked.as_ref().map(|(_, resource)| resource.as_str()),
            rule: self.grant.as_ref().map(Grant::rule),
            policy: self.policy,
            cache: acquired.map(|acquired| match acquired.from {
                From::Cache => "cache",
                From::Fetch => "fetch",
                From::Stale => "stale",
            }),
            took: self.clock.now().boot.saturating_sub(self.began),
            token: acquired.map(|acquired| TokenFacts {
                expires_on: acquired.token.expires_on(),
                uti: acquired.token.claims().uti.as_deref(),
                sha256: acquired.token.digest_text(),
            }),
            endpoint: self.peer.endpoint,
            stray: self.stray,
        }
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        let outcome = self.ended.unwrap_or_else(|| {
            self.audit
                .record_now(&self.record(Outcome::Abandoned, None));
            Outcome::Abandoned
        });
        self.keep(outcome);
    }
}
