//! Why a decision is what it is: every rule, and what in it does not hold.
//!
//! This reads all rules one after the other, where the decision itself looks only at a few; a
//! property test holds the two together.

use std::{fmt, sync::Arc};

use crate::{Caller, Denial, Identity, Policy, Resource, ResourcePattern, index::CompiledRule};

/// A decision with its reasons.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Explanation {
    /// What [`Policy::decide`] says. No token can be had for it: only a grant is good for one.
    pub outcome: Result<Allowance, Denial>,
    /// All rules, in their order.
    pub rules: Vec<Examined>,
}

/// What the rules allow together.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Allowance {
    /// The first rule that allows it.
    pub rule: Arc<str>,
    /// Whether any rule that allows it allows to ask past the cache.
    pub may_bypass_cache: bool,
}

/// One rule, looked at for one request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Examined {
    /// The name of the rule.
    pub rule: Arc<str>,
    /// The file that it is in.
    pub file: Arc<str>,
    /// The line of its name, counted from 1.
    pub line: usize,
    /// What does not hold; a rule where nothing fails allows the request.
    pub failed: Vec<Condition>,
    /// Whether the rule allows to ask past the cache.
    pub bypass_cache: bool,
}

/// Something that a rule asks for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Condition {
    /// The user is another.
    User,
    /// The caller is in none of the groups.
    Group,
    /// The unit is another, or not known.
    Unit,
    /// The rule is for containers and the caller is in none, or the other way round, or it is not known.
    Container,
    /// The identity is another.
    Identity,
    /// The resource is another.
    Resource,
}

/// A decision of the past, judged by this policy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Replayed {
    /// It is allowed, by this rule.
    Allowed(Arc<str>),
    /// It is not.
    Denied(Denial),
    /// It is allowed if the caller was in a group that one of these rules names.
    InGroup(Vec<Arc<str>>),
}

impl Policy {
    /// What [`Policy::decide`] says of this request, and why.
    pub fn explain(
        &self,
        caller: &Caller,
        identity: &Identity,
        resource: &Resource,
    ) -> Explanation {
        let examine = |rule: &CompiledRule| examine(rule, caller, identity, resource);
        let rules: Vec<Examined> = self.index().rules().iter().map(examine).collect();
        let mut allowing = rules
            .iter()
            .filter(|rule| rule.failed.is_empty())
            .peekable();
        let outcome = match allowing.peek() {
            Some(first) => Ok(Allowance {
                rule: Arc::clone(&first.rule),
                may_bypass_cache: allowing.any(|rule| rule.bypass_cache),
            }),
            None if rules.iter().any(Examined::holds_for_caller) => Err(Denial::NoRuleForResource),
            None => Err(Denial::NoRuleForCaller),
        };
        Explanation { outcome, rules }
    }

    /// What this policy says of a request of the past, whose supplementary groups were not written down.
    pub fn replay(&self, caller: &Caller, identity: &Identity, resource: &Resource) -> Replayed {
        let explanation = self.explain(caller, identity, resource);
        let denial = match explanation.outcome {
            Ok(allowance) => return Replayed::Allowed(allowance.rule),
            Err(denial) => denial,
        };
        let only_group = |rule: &&Examined| rule.failed == [Condition::Group];
        let rules = explanation.rules.iter().filter(only_group);
        let rules: Vec<_> = rules.map(|rule| Arc::clone(&rule.rule)).collect();
        if rules.is_empty() {
            Replayed::Denied(denial)
        } else {
            Replayed::InGroup(rules)
        }
    }
}

impl Examined {
    /// Whether the rule holds for the caller, whatever it gives.
    pub fn holds_for_caller(&self) -> bool {
        let of_request = |failed| matches!(failed, &Condition::Identity | &Condition::Resource);
        self.failed.iter().all(of_request)
    }
}

fn examine(
    rule: &CompiledRule,
    caller: &Caller,
    identity: &Identity,
    resource: &Resource,
) -> Examined {
    let conditions = &rule.conditions;
    let gives = rule.resources.iter().any(|pattern| match pattern {
        ResourcePattern::Any => true,
        ResourcePattern::Exact(exact) => exact == resource,
    });
    let checks = [
        (Condition::User, conditions.user_holds(caller)),
        (Condition::Group, conditions.group_holds(caller)),
        (Condition::Unit, conditions.unit_holds(caller)),
        (Condition::Container, conditions.container_holds(caller)),
        (Condition::Identity, rule.identities.contains(identity)),
        (Condition::Resource, gives),
    ];
    let failed = checks.into_iter().filter(|(_, holds)| !holds);
    Examined {
        rule: Arc::clone(&rule.name),
        file: Arc::clone(&rule.place.0),
        line: rule.place.1,
        failed: failed.map(|(condition, _)| condition).collect(),
        bypass_cache: rule.bypass,
    }
}

impl Condition {
    /// The key of the rule that does not hold.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Group => "group",
            Self::Unit => "unit",
            Self::Container => "container",
            Self::Identity => "identity",
            Self::Resource => "resources",
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
