//! Why a decision is what it is, for the administrator.

use arcbroker_client::wire::{Decision, ExplainAnswer, Explained, RuleExamined, SCHEMA};
use arcbroker_policy::{Caller, Examined, Identity, Policy, Resource, Unit};

use crate::ask::Malformed;
use crate::decisions::Decided;
use crate::query::Query;

/// Rules that are shown: of thousands, those that fail for least.
const SHOWN: usize = 20;

/// A request as it is explained: of the past, or made up.
#[derive(Clone, Debug)]
pub struct Case {
    /// Who asks.
    pub caller: Caller,
    /// As whom; `None` for the identity of the configuration.
    pub identity: Option<Identity>,
    /// For what, as it was written.
    pub resource: String,
}

impl Case {
    /// Reads one from parameters: `uid`, `gid`, `group` (any number), `unit`, `container`,
    /// `identity` and `resource`.
    ///
    /// # Errors
    ///
    /// [`Malformed`].
    pub fn read(query: &mut Query<'_>) -> Result<Self, Malformed> {
        let uid = query.number("uid")?.ok_or(Malformed::Missing("uid"))?;
        let gid = query.number("gid")?.ok_or(Malformed::Missing("gid"))?;
        let groups = query.all("group");
        let groups = groups.iter().map(|group| group.parse());
        let groups = groups
            .collect::<Result<_, _>>()
            .map_err(|_| Malformed::Value("group"))?;
        let unit = match query.one("unit")? {
            Some(name) => Some(Unit::parse(&name).map_err(|_| Malformed::Value("unit"))?),
            None => None,
        };
        let container = match query.one("container")?.as_deref() {
            None | Some("false") => Some(false),
            Some("true") => Some(true),
            Some("unknown") => None,
            Some(_) => return Err(Malformed::Value("container")),
        };
        let identity = match query.one("identity")? {
            Some(text) => Some(text.parse::<Identity>()?),
            None => None,
        };
        let resource = query
            .one("resource")?
            .ok_or(Malformed::Missing("resource"))?;
        Ok(Self {
            caller: Caller {
                unit,
                container,
                ..Caller::new(uid, gid, groups)
            },
            identity,
            resource: resource.into_owned(),
        })
    }
}

/// What the policy says of it, and why.
pub fn explain(
    policy: &Policy,
    caller: &Caller,
    identity: &Identity,
    resource: &Resource,
) -> ExplainAnswer {
    let explanation = policy.explain(caller, identity, resource);
    let total = explanation.rules.len();
    let mut rules = explanation.rules;
    // A stable sort: of those that fail for as much, the first in the files comes first.
    rules.sort_by_key(|rule| rule.failed.len());
    rules.truncate(SHOWN);
    let (allowance, denial) = match explanation.outcome {
        Ok(allowance) => (Some(allowance), None),
        Err(denial) => (None, Some(denial)),
    };
    ExplainAnswer {
        schema: SCHEMA,
        allowed: allowance.is_some(),
        rule: allowance
            .as_ref()
            .map(|allowance| allowance.rule.to_string()),
        bypass_cache: allowance.is_some_and(|allowance| allowance.may_bypass_cache),
        denial: denial.map(|denial| denial.as_str().to_owned()),
        explained: Explained {
            uid: caller.uid,
            gid: caller.gid,
            groups: caller.groups.clone(),
            unit: caller.unit.as_ref().map(ToString::to_string),
            container: caller.container,
            identity: identity.to_string(),
            resource: resource.to_string(),
        },
        policy: policy.hash().to_owned(),
        rules: rules.iter().map(examined).collect(),
        rules_total: total,
        grant: None,
        shadow: None,
        decision: None,
    }
}

fn examined(rule: &Examined) -> RuleExamined {
    RuleExamined {
        rule: rule.rule.to_string(),
        file: rule.file.to_string(),
        line: rule.line,
        failed: rule.failed.iter().map(ToString::to_string).collect(),
        bypass_cache: rule.bypass_cache,
    }
}

/// A decision as it is shown.
pub fn shown(decided: &Decided) -> Decision {
    let (peer, asked) = (&decided.peer, decided.asked.as_ref());
    Decision {
        id: decided.id.to_string(),
        at: decided.at.as_secs(),
        outcome: decided.outcome.as_str().to_owned(),
        uid: peer.caller.uid,
        user: peer.user.as_deref().map(str::to_owned),
        gid: peer.caller.gid,
        groups: peer.caller.groups.clone(),
        pid: peer.pid,
        unit: peer.caller.unit.as_ref().map(ToString::to_string),
        invocation: peer.invocation.as_deref().map(str::to_owned),
        container: peer.caller.container,
        identity: asked.map(|(identity, _)| identity.to_string()),
        resource: asked.map(|(_, resource)| resource.to_string()),
        rule: decided.rule.clone(),
        policy: decided.policy.clone(),
        ms: u64::try_from(decided.took.as_millis()).unwrap_or(u64::MAX),
        endpoint: peer.endpoint.map(|endpoint| endpoint.to_string()),
        stray: decided.stray.map(|stray| stray.why.as_str().to_owned()),
    }
}
