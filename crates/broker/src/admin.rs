//! What the administrator's socket answers.

use std::sync::Arc;
use std::time::Duration;

use arcbroker_client::wire::{
    DecisionsAnswer, ExplainAnswer, GRANT_PREFIX, GrantsAnswer, SCHEMA, ShadowVerdict,
    TokensAnswer, path,
};
use arcbroker_policy::{Identity, Resource};
use arcbroker_policy_files::load_text;
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::ask::{Malformed, check_frame, named_resource};
use crate::decisions::Decided;
use crate::explain::{Case, explain, shown};
use crate::peer::Peer;
use crate::query::Query;
use crate::record::Outcome;
use crate::refusal;
use crate::reply::{Body, Refusal, json};
use crate::rules::Rules;
use crate::service::Service;
use crate::timed_grants::{self, Request};

const GET: &str = "GET";
const POST: &str = "POST";
const DELETE: &str = "DELETE";

/// Decisions that are shown unless more or fewer are asked for.
const DECISIONS: u32 = 20;

/// How long it is waited for rules to be read and for whom they name; shorter than the client's
/// patience.
const LOADING: Duration = Duration::from_secs(20);

/// Bytes of the longest reason of a grant.
const LONGEST_REASON: usize = 200;

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        refusal::malformed(&malformed)
    }
}

impl Service {
    /// Answers a request on the admin socket.
    pub async fn answer_admin(&self, peer: &Peer, head: &Parts) -> Response<Body> {
        let answered = match head.uri.path() {
            path::STATUS => self.status(head),
            path::DECISIONS => self.decisions(head),
            path::EXPLAIN => self.explain(head),
            path::GRANTS => self.grants(peer, head).await,
            path::FLUSH => self.command(head, |resource| {
                let tokens = self.tokens.flush(resource);
                tracing::info!(tokens, "tokens were dropped by command");
                tokens
            }),
            path::RELOAD => self.reload(head).await,
            path::REFRESH => self.command(head, |resource| self.tokens.refresh(resource)),
            _ => Err(refusal::unknown_path()),
        };
        answered.unwrap_or_else(|refusal| refusal.response(None))
    }

    fn status(&self, head: &Parts) -> Result<Response<Body>, Refusal> {
        read(head, GET)?.finish()?;
        Ok(json(&self.board.status()))
    }

    /// Does something with the tokens for the resource that is named, or with all.
    fn command(
        &self,
        head: &Parts,
        run: impl FnOnce(Option<&Resource>) -> usize,
    ) -> Result<Response<Body>, Refusal> {
        check_frame(head, POST)?;
        let resource = named_resource(head, self.rules.borrow().place.cloud())?;
        Ok(json(&TokensAnswer {
            schema: SCHEMA,
            tokens: run(resource.as_ref()),
        }))
    }

    /// Answers with what is in force after it, also where the files are refused.
    async fn reload(&self, head: &Parts) -> Result<Response<Body>, Refusal> {
        read(head, POST)?.finish()?;
        let reloader = Arc::clone(&self.reloader);
        // Goes on by itself where nobody waits for it any more.
        let done = timeout(
            LOADING,
            tokio::spawn(async move { reloader.reload().await }),
        )
        .await;
        let mut answer = self.rules.borrow().reload_answer();
        if done.is_err() {
            answer.error = Some(format!(
                "it takes longer than {} s to read the policy and to look up whom it names; when that ends, the \
                 policy is replaced",
                LOADING.as_secs()
            ));
        }
        Ok(json(&answer))
    }

    fn decisions(&self, head: &Parts) -> Result<Response<Body>, Refusal> {
        let mut query = read(head, GET)?;
        let most = query.number("last")?.unwrap_or(DECISIONS);
        let outcome = match query.one("outcome")? {
            Some(word) => Some(Outcome::parse(&word).ok_or(Malformed::Value("outcome"))?),
            None => None,
        };
        query.finish()?;
        let decided = self
            .decisions
            .last(usize::try_from(most).unwrap_or(usize::MAX), outcome);
        Ok(json(&DecisionsAnswer {
            schema: SCHEMA,
            decisions: decided.iter().map(shown).collect(),
        }))
    }

    /// Explains a decision of the past by the policy that is in force now, or a made-up one.
    fn explain(&self, head: &Parts) -> Result<Response<Body>, Refusal> {
        let mut query = read(head, POST)?;
        let Some(id) = query.one("id")? else {
            let case = Case::read(&mut query)?;
            query.finish()?;
            let rules = self.rules.borrow().clone();
            let resource = Resource::parse(&case.resource, rules.place.cloud());
            let resource = resource.map_err(Malformed::from)?;
            let identity = case.identity.unwrap_or_else(|| self.identity.clone());
            let answer = self.explained(&rules, &case.caller, &identity, &resource);
            return Ok(json(&answer));
        };
        query.finish()?;
        let decided = self.decisions.find(&id).ok_or_else(unknown_decision)?;
        let rules = self.rules.borrow().clone();
        let Some((identity, resource)) = &decided.asked else {
            return Err(not_judged(&id, &decided));
        };
        let mut answer = self.explained(&rules, &decided.peer.caller, identity, resource);
        answer.decision = Some(shown(&decided));
        Ok(json(&answer))
    }

    fn explained(
        &self,
        rules: &Rules,
        caller: &arcbroker_policy::Caller,
        identity: &Identity,
        resource: &Resource,
    ) -> ExplainAnswer {
        let mut answer = explain(&rules.policy, caller, identity, resource);
        let now = self.clock.now();
        let grant = self.timed_grants.decide(caller, identity, resource, now);
        answer.grant = grant.map(|grant| grant.rule().to_owned());
        let shadow = rules.shadow.as_ref();
        let verdict = shadow.and_then(|shadow| shadow.verdict(caller, identity, resource));
        answer.shadow = verdict.map(|rule| ShadowVerdict {
            allowed: rule.is_some(),
            rule,
        });
        answer
    }

    async fn grants(&self, peer: &Peer, head: &Parts) -> Result<Response<Body>, Refusal> {
        let now = self.clock.now();
        let grants = match head.method.as_str() {
            POST => vec![self.give(peer, head).await?],
            DELETE => {
                let mut query = read(head, DELETE)?;
                let number = query
                    .number("number")?
                    .ok_or(Malformed::Missing("number"))?;
                query.finish()?;
                let ended = self.timed_grants.end(number.into(), now);
                let ended = ended.ok_or_else(|| {
                    Refusal::new(
                        StatusCode::NOT_FOUND,
                        "not_found",
                        format!("there is no grant {number}, or it has ended"),
                    )
                })?;
                tracing::info!(number, reason = %ended.reason, "a grant was ended by command");
                vec![ended]
            }
            _ => {
                read(head, GET)?.finish()?;
                self.timed_grants.list(now)
            }
        };
        Ok(json(&GrantsAnswer {
            schema: SCHEMA,
            grants,
        }))
    }

    /// A rule for a while.
    async fn give(
        &self,
        peer: &Peer,
        head: &Parts,
    ) -> Result<arcbroker_client::wire::TimedGrant, Refusal> {
        let mut query = read(head, POST)?;
        let rule = query.one("rule")?.ok_or(Malformed::Missing("rule"))?;
        let reason = query.one("reason")?.ok_or(Malformed::Missing("reason"))?;
        let seconds = query
            .number("seconds")?
            .ok_or(Malformed::Missing("seconds"))?;
        query.finish()?;
        let time = Duration::from_secs(seconds.into());
        if time.is_zero() || time > timed_grants::LONGEST {
            return Err(Malformed::Value("seconds").into());
        }
        if reason.trim().is_empty() || reason.len() > LONGEST_REASON {
            return Err(Malformed::Value("reason").into());
        }
        let place = self.rules.borrow().place.clone();
        if !place.is_settled() {
            return Err(refusal::unknown_cloud(self.board.upstream.kind()));
        }
        let (options, text) = (self.policy.clone(), rule.to_string());
        let read = move || load_text("grant", text.as_bytes(), &options, place.cloud());
        let loaded = timeout(LOADING, spawn_blocking(read)).await;
        let loaded = loaded.map_err(|_| refusal::slow_names(LOADING))?;
        let policy = loaded
            .unwrap_or_else(|error| Err(format!("reading it ended unexpectedly ({error})")))
            .map_err(|mistakes| {
                Refusal::new(StatusCode::BAD_REQUEST, "invalid_request", mistakes)
            })?;
        let mut names = policy.rule_names();
        let is_one = names
            .next()
            .is_some_and(|name| name.starts_with(GRANT_PREFIX));
        if !is_one || names.next().is_some() {
            return Err(Malformed::Value("rule").into());
        }
        drop(names);
        let by = match &peer.user {
            Some(user) => user.to_string(),
            None => format!("uid {}", peer.caller.uid),
        };
        let request = Request {
            policy,
            rule: rule.into_owned(),
            by,
            reason: reason.into_owned(),
            time,
        };
        let given = self
            .timed_grants
            .give(request, self.clock.now())
            .map_err(|error| {
                Refusal::new(StatusCode::CONFLICT, "too_many_grants", error.to_string())
            })?;
        tracing::warn!(
            number = given.number,
            by = %given.granted_by,
            seconds,
            reason = %given.reason,
            rule = %given.rule,
            "a grant was given"
        );
        Ok(given)
    }
}

fn read<'h>(head: &'h Parts, method: &'static str) -> Result<Query<'h>, Malformed> {
    check_frame(head, method)?;
    Query::parse(head.uri.query())
}

fn not_judged(id: &str, decided: &Decided) -> Refusal {
    let description = match (decided.stray, decided.peer.endpoint) {
        (Some(stray), Some(endpoint)) => format!(
            "request {id} on the endpoint {endpoint} did not come from the program that it was made for ({}), so the \
             policy was not asked",
            stray.why.as_str()
        ),
        _ => format!(
            "request {id} was {}: it named nothing that can be judged",
            decided.outcome.as_str()
        ),
    };
    Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "not_judged", description)
}

fn unknown_decision() -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        "not_found",
        "the daemon does not remember this request: it keeps the last few hundred since its start. The audit log has \
         it; arcbroker why with --user, --unit and the resource judges it anew",
    )
}
