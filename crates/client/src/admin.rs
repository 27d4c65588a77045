//! What only the admin socket answers: decisions, their reasons, and rules for a while.

use std::time::Duration;

use crate::{
    Client, Error,
    client::understood,
    token::push_encoded,
    wire::{Decision, DecisionsAnswer, ExplainAnswer, GrantsAnswer, TimedGrant, path},
};

/// A request that nobody has made.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Case {
    /// User id of who asks.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// The service or scope of the system that it runs in.
    pub unit: Option<String>,
    /// Whether it is in a container.
    pub container: bool,
    /// As the policy writes it; none is the broker's default.
    pub identity: Option<String>,
    /// A URI or a short name.
    pub resource: String,
}

impl Client {
    /// The last decisions, the newest first; with this outcome, or with any.
    pub async fn decisions(
        &self,
        last: u32,
        outcome: Option<&str>,
    ) -> Result<Vec<Decision>, Error> {
        let mut target = Target::new(path::DECISIONS);
        target.add("last", &last.to_string());
        if let Some(outcome) = outcome {
            target.add("outcome", outcome);
        }
        let answer: DecisionsAnswer = self.transport.get(&target.text).await?;
        understood(answer.schema).map(|()| answer.decisions)
    }

    /// Why a request was decided as it was, by the policy that is in force now.
    pub async fn explain(&self, request_id: &str) -> Result<ExplainAnswer, Error> {
        let mut target = Target::new(path::EXPLAIN);
        target.add("id", request_id);
        self.explained(&target).await
    }

    /// How a request would be decided, and why.
    pub async fn explain_case(&self, case: &Case) -> Result<ExplainAnswer, Error> {
        let mut target = Target::new(path::EXPLAIN);
        target.add("uid", &case.uid.to_string());
        target.add("gid", &case.gid.to_string());
        for group in &case.groups {
            target.add("group", &group.to_string());
        }
        if let Some(unit) = &case.unit {
            target.add("unit", unit);
        }
        target.add("container", &case.container.to_string());
        if let Some(identity) = &case.identity {
            target.add("identity", identity);
        }
        target.add("resource", &case.resource);
        self.explained(&target).await
    }

    /// All rules for a while that have not ended.
    pub async fn grants(&self) -> Result<Vec<TimedGrant>, Error> {
        let answer: GrantsAnswer = self.transport.get(path::GRANTS).await?;
        understood(answer.schema).map(|()| answer.grants)
    }

    /// Puts a rule in force for a while; `rule` is a policy file with this one rule, whose name begins
    /// with `grant: `.
    pub async fn give(
        &self,
        rule: &str,
        time: Duration,
        reason: &str,
    ) -> Result<TimedGrant, Error> {
        let mut target = Target::new(path::GRANTS);
        target.add("rule", rule);
        target.add("seconds", &time.as_secs().to_string());
        target.add("reason", reason);
        one(self.transport.post_once(&target.text).await?)
    }

    /// Ends one before its time.
    pub async fn end_grant(&self, number: u64) -> Result<TimedGrant, Error> {
        let mut target = Target::new(path::GRANTS);
        target.add("number", &number.to_string());
        one(self.transport.delete(&target.text).await?)
    }

    async fn explained(&self, target: &Target) -> Result<ExplainAnswer, Error> {
        let answer: ExplainAnswer = self.transport.post(&target.text).await?;
        understood(answer.schema).map(|()| answer)
    }
}

fn one(answer: GrantsAnswer) -> Result<TimedGrant, Error> {
    understood(answer.schema)?;
    let mut grants = answer.grants.into_iter();
    grants
        .next()
        .ok_or(Error::Protocol("it names no grant where it must name one"))
}

/// A path and its parameters.
struct Target {
    text: String,
}

impl Target {
    fn new(path: &str) -> Self {
        Self {
            text: path.to_owned(),
        }
    }

    fn add(&mut self, name: &str, value: &str) {
        let separator = if self.text.contains('?') { '&' } else { '?' };
        self.text.push(separator);
        self.text.push_str(name);
        self.text.push('=');
        push_encoded(&mut self.text, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_encoded_so_that_they_stay_one_value() {
        let mut target = Target::new("/v1/explain");
        target.add("unit", r"a\x2d b&uid=0.service");
        target.add("resource", "https://a/?b=c#d");
        assert_eq!(
            target.text,
            "/v1/explain?unit=a%5Cx2d%20b%26uid%3D0.service&resource=https%3A%2F%2Fa%2F%3Fb%3Dc%23d"
        );
    }
}
