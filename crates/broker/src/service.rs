//! What each path answers. One request takes one line: read, authorize, acquire, audit, respond.

use std::sync::Arc;
use std::time::Duration;

use arcbroker_client::wire::{Allowed, HealthAnswer, SCHEMA, WhoamiAnswer, path};
use arcbroker_policy::{Cloud, Denial, Grant, Identity, Policy, Resource};
use arcbroker_policy_files::Options;
use bytes::Bytes;
use hyper::Response;
use hyper::http::request::Parts;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::ask::{Ask, Dialect, Malformed, check_frame, check_metadata};
use crate::audit::AuditLog;
use crate::bypass::Bypasses;
use crate::cache::{Acquired, TokenCache};
use crate::clock::Clock;
use crate::decisions::Decisions;
use crate::documents::Documents;
use crate::endpoint::Door;
use crate::peer::Peer;
use crate::place::Place;
use crate::record::Outcome;
use crate::refusal;
use crate::reply::{Body, Refusal, json, raw_json};
use crate::rules::{Reloader, Rules};
use crate::shadow::Judged;
use crate::slot::{HARD_FLOOR, Wish};
use crate::status::StatusBoard;
use crate::stray::Strayed;
use crate::timed_grants::TimedGrants;
use crate::token::{Class, FetchError};
use crate::upstream::Upstream;
use crate::visit::Visit;

const GET: &str = "GET";

/// How long a request may go on waiting for a token once the daemon is told to stop; shorter than
/// the drain.
const LAST_WAIT: Duration = Duration::from_secs(10);

/// Everything that answers a request.
#[derive(Debug)]
pub struct Service {
    /// Where tokens are.
    pub tokens: TokenCache<Arc<Upstream>>,
    /// Rules for a while.
    pub timed_grants: Arc<TimedGrants>,
    /// The last decisions.
    pub decisions: Decisions,
    /// Who may have upstream asked past its cache, and how often.
    pub bypasses: Bypasses,
    /// Where documents are.
    pub documents: Documents,
    /// Who may have what.
    pub rules: watch::Receiver<Arc<Rules>>,
    /// What replaces that.
    pub reloader: Arc<Reloader>,
    /// Where decisions are recorded.
    pub audit: Arc<AuditLog>,
    /// Health and status.
    pub board: Arc<StatusBoard>,
    /// The time.
    pub clock: Clock,
    /// True once the daemon is told to stop.
    pub stopped: watch::Receiver<bool>,
    /// Whose token a request without a selector gets.
    pub identity: Identity,
    /// How rules are read.
    pub policy: Options,
}

/// A request for a token, and in whose words it is.
type Request<'r> = (&'r Parts, Dialect);

/// What a request for a token came to, before it is recorded.
type Decision = Result<Acquired, (Outcome, Refusal)>;

impl Service {
    /// Answers a request on the token socket.
    pub async fn answer(&self, peer: &Peer, head: &Parts) -> Response<Body> {
        self.answer_at(peer, head, head.uri.path()).await
    }

    /// Answers a program's own request on its endpoint.
    pub async fn answer_through(
        &self,
        peer: &Peer,
        head: &Parts,
        door: Door<'_>,
    ) -> Response<Body> {
        match door {
            Door::AppService => self.token(peer, head, Dialect::AppService).await,
            Door::Metadata(path) => self.answer_at(peer, head, path).await,
        }
    }

    /// Answers somebody else's request on it.
    pub async fn answer_stray(&self, owner: &Peer, stray: Strayed) -> Response<Body> {
        let rules = Arc::clone(&self.rules.borrow());
        let log = (&*self.audit, &self.decisions);
        let mut visit = Visit::begin(log, &self.clock, owner, rules.policy.hash());
        let id = visit.id();
        visit.strayed(stray);
        if let Err(error) = visit.close(Outcome::Denied, None).await {
            tracing::error!(%error, "a request that is not the program's own could not be recorded");
        }
        refusal::stray(stray.why).response(Some(id))
    }

    async fn answer_at(&self, peer: &Peer, head: &Parts, path: &str) -> Response<Body> {
        if path.strip_suffix('/').unwrap_or(path) == path::TOKEN {
            return self.token(peer, head, Dialect::Metadata).await;
        }
        if let Err(malformed) = check_frame(head, GET) {
            return refusal::malformed(&malformed).response(None);
        }
        match path {
            path::INSTANCE | path::IDENTITY_INFO => self.document(head, path).await,
            path::WHOAMI => self.whoami(peer),
            path::HEALTH => json(&HealthAnswer {
                schema: SCHEMA,
                health: self.board.health().0,
            }),
            _ => refusal::unknown_path().response(None),
        }
    }

    async fn token(&self, peer: &Peer, head: &Parts, dialect: Dialect) -> Response<Body> {
        // One snapshot of the policy for the whole request.
        let rules = Arc::clone(&self.rules.borrow());
        let log = (&*self.audit, &self.decisions);
        let mut visit = Visit::begin(log, &self.clock, peer, rules.policy.hash());
        let id = visit.id();
        let decision = self.decide(peer, (head, dialect), &rules, &mut visit).await;
        let outcome = decision
            .as_ref()
            .map_or_else(|(outcome, _)| *outcome, |_| Outcome::Issued);
        // A sink has the record before a byte of the token is on its way out.
        let recorded = visit.close(outcome, decision.as_ref().ok()).await;
        match (decision, recorded) {
            (Ok(acquired), Ok(())) => self
                .hand_out(&acquired)
                .unwrap_or_else(|refusal| refusal.response(Some(id))),
            (Ok(_), Err(error)) => refusal::unrecorded(&error).response(Some(id)),
            (Err((_, refusal)), _) => refusal.response(Some(id)),
        }
    }

    /// Time has passed since the token was acquired: the machine may have slept, or its clock been
    /// set.
    fn hand_out(&self, acquired: &Acquired) -> Result<Response<Body>, Refusal> {
        let now = self.clock.now();
        if acquired.token.remaining(now) < HARD_FLOOR {
            let error = FetchError::new(Class::Deadline, "the token ended while it was recorded");
            return Err(self.unavailable(&error));
        }
        Ok(raw_json(acquired.token.answer(now)))
    }

    async fn decide(
        &self,
        peer: &Peer,
        request: Request<'_>,
        rules: &Rules,
        visit: &mut Visit<'_>,
    ) -> Decision {
        let malformed = |malformed: Malformed| (Outcome::Malformed, refusal::malformed(&malformed));
        let place = self.place(peer, request, rules).await;
        let (identity, resource, mut wish) =
            self.read(request, place.cloud()).map_err(malformed)?;
        visit.asked(&identity, &resource);
        let policy = rules.under(place.cloud());
        let identity = self.meant(peer, policy, identity, &resource).await;
        visit.asked(&identity, &resource);
        let decide = |cloud| {
            let policy = rules.under(cloud);
            policy.decide(&peer.caller, &identity, &resource)
        };
        let decision = decide(place.cloud());
        self.try_shadow(peer, &identity, &resource, rules, &decision);
        let decision = decision.or_else(|denial| {
            let now = self.clock.now();
            let grants = &self.timed_grants;
            let granted = grants.decide(&peer.caller, &identity, &resource, now);
            granted.ok_or(denial)
        });
        let grant = decision.map_err(|denial| {
            // Nobody comes back after a 403, so none is given before it is sure.
            let mut candidates = place.candidates().into_iter();
            if candidates.any(|cloud| decide(cloud).is_ok()) {
                let kind = self.board.upstream.kind();
                return (Outcome::Unavailable, refusal::unknown_cloud(kind));
            }
            tracing::debug!(id = %visit.id(), uid = peer.caller.uid, %denial, "denied");
            let denied = refusal::denied(peer, &identity, &resource, visit.id());
            let (_, dialect) = request;
            if dialect == Dialect::AppService && identity != Identity::System {
                return (Outcome::Denied, refusal::no_such_identity(&denied));
            }
            (Outcome::Denied, denied)
        })?;
        visit.granted(&grant);
        wish.bypass = wish.bypass
            && grant.may_bypass_cache()
            && self.bypasses.take(peer.caller.uid, self.clock.now().boot);
        self.acquire(&grant, wish).await
    }

    /// SDKs send on the client id that they find in `AZURE_CLIENT_ID`. Where that is the machine's own, the
    /// machine's own identity is meant, and a rule for that will do.
    async fn meant(
        &self,
        peer: &Peer,
        policy: &Policy,
        named: Identity,
        resource: &Resource,
    ) -> Identity {
        if named == Identity::System || policy.decide(&peer.caller, &named, resource).is_ok() {
            return named;
        }
        let own = self.board.own_tokens().next();
        let is_own = match own {
            Some(token) => token.claims().name(&named),
            // Only a token tells, and only for what may be had anyway one is fetched. Each connection would carry the room
            // for that, which is hardly ever needed.
            None => match policy.decide(&peer.caller, &Identity::System, resource) {
                Ok(grant) => Box::pin(self.acquire(&grant, Wish::default()))
                    .await
                    .is_ok_and(|acquired| acquired.token.claims().name(&named)),
                Err(_) => false,
            },
        };
        if is_own { Identity::System } else { named }
    }

    /// Judges it by the shadow policy as well, which is only counted.
    fn try_shadow(
        &self,
        peer: &Peer,
        identity: &Identity,
        resource: &Resource,
        rules: &Rules,
        decision: &Result<Grant, Denial>,
    ) {
        if let Some(shadow) = &rules.shadow
            && rules.place.is_settled()
        {
            let rule = decision.as_ref().ok().map(Grant::rule);
            let judged = Judged {
                peer,
                identity,
                resource,
                rule,
            };
            shadow.judge(judged, self.clock.now());
        }
    }

    /// Where the machine is. While that is not known, a request that every cloud would answer the
    /// same does not wait for it; for another, upstream is asked.
    async fn place(&self, peer: &Peer, request: Request<'_>, rules: &Rules) -> Place {
        let answer = |cloud: &Cloud| {
            let (identity, resource, _) = self.read(request, *cloud).ok()?;
            let decision = rules
                .under(*cloud)
                .decide(&peer.caller, &identity, &resource);
            Some((resource, decision.is_ok()))
        };
        let mut candidates = rules.place.candidates();
        candidates.dedup_by_key(|cloud| answer(cloud));
        if candidates.len() == 1 {
            return rules.place.clone();
        }
        let told = self.documents.place().await;
        told.unwrap_or_else(|| rules.place.clone())
    }

    fn read(
        &self,
        (head, dialect): Request<'_>,
        cloud: Cloud,
    ) -> Result<(Identity, Resource, Wish), Malformed> {
        check_frame(head, GET)?;
        let ask = Ask::parse(dialect.parameters(head)?, cloud)?;
        Ok((
            ask.identity.unwrap_or_else(|| self.identity.clone()),
            ask.resource,
            ask.wish,
        ))
    }

    async fn acquire(&self, grant: &Grant, wish: Wish) -> Decision {
        let token = tokio::select! {
            biased;
            token = self.tokens.token(grant, wish) => token,
            () = self.no_more_waiting() => {
                Err(FetchError::new(Class::Deadline, "the daemon stops, and upstream gave no token in time"))
            }
        };
        token.map_err(|error| (Outcome::Unavailable, self.unavailable(&error)))
    }

    fn unavailable(&self, error: &FetchError) -> Refusal {
        refusal::unavailable(self.board.upstream.kind(), error)
    }

    /// Ends a while after the daemon was told to stop: who waits must have an answer before the end.
    async fn no_more_waiting(&self) {
        if self
            .stopped
            .clone()
            .wait_for(|stopped| *stopped)
            .await
            .is_err()
        {
            std::future::pending::<()>().await;
        }
        sleep(LAST_WAIT).await;
    }

    async fn document(&self, head: &Parts, path: &str) -> Response<Body> {
        if let Err(malformed) = check_metadata(head) {
            return refusal::malformed(&malformed).response(None);
        }
        let document = match path {
            path::INSTANCE => self.documents.get(path::INSTANCE).await,
            _ => self.documents.get(path::IDENTITY_INFO).await,
        };
        match (document, self.board.tenant()) {
            (Ok(document), _) => raw_json([document, Bytes::new(), Bytes::new()]),
            // Upstream need not have this document, but every token names the tenant.
            (Err(_), Some(tenant)) if path == path::IDENTITY_INFO => {
                json(&serde_json::json!({ "tenantId": tenant }))
            }
            (Err(error), _) => {
                refusal::no_document(self.board.upstream.kind(), &error).response(None)
            }
        }
    }

    fn whoami(&self, peer: &Peer) -> Response<Body> {
        let allowed = |allowed: arcbroker_policy::Allowed| Allowed {
            resource: allowed.resource.to_string(),
            identity: allowed.identity.to_string(),
            rule: allowed.rule.to_string(),
        };
        let mut resources = self.rules.borrow().policy.allowed(&peer.caller);
        let now = self.clock.now();
        resources.extend(self.timed_grants.allowed(&peer.caller, now));
        json(&WhoamiAnswer {
            schema: SCHEMA,
            uid: peer.caller.uid,
            user: peer.user.as_deref().map(str::to_owned),
            gid: peer.caller.gid,
            groups: peer.caller.groups.clone(),
            pid: peer.pid,
            unit: peer.caller.unit.as_ref().map(ToString::to_string),
            invocation: peer.invocation.as_deref().map(str::to_owned),
            container: peer.caller.container,
            resources: resources.into_iter().map(allowed).collect(),
        })
    }
}
