//! The decision.

use std::{collections::BTreeSet, fmt, sync::Arc};

use crate::{Caller, Identity, Resource, ResourcePattern, index::Index, rule_set};

/// Who may have which token. Immutable; a reload makes a new one.
#[derive(Clone, Debug)]
pub struct Policy {
    index: Index,
    hash: Arc<str>,
}

/// Proof that a caller may have tokens for one resource with one identity.
///
/// Only [`Policy::decide`] makes one, and whoever hands out tokens asks for one:
///
/// ```compile_fail,E0451
/// # use arcbroker_policy::{Grant, Identity, Resource};
/// let resource = Resource::exact("https://vault.azure.net").unwrap();
/// let grant = Grant { identity: Identity::System, resource, rule: "mine".into(), bypass: true };
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use = "a grant that is not used is a token that is not handed out"]
pub struct Grant {
    identity: Identity,
    resource: Resource,
    rule: Arc<str>,
    bypass: bool,
}

/// Why a caller may not have a token: for the log, and never for the caller.
///
/// It does not tell a resource that others may have from one that does not exist.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Denial {
    /// No rule holds for the caller.
    NoRuleForCaller,
    /// Rules hold for the caller, but none gives this resource with this identity.
    NoRuleForResource,
}

/// Something that a caller may have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Allowed {
    /// The resource, or any.
    pub resource: ResourcePattern,
    /// The identity that the token is for.
    pub identity: Identity,
    /// The first rule that says so.
    pub rule: Arc<str>,
}

impl Policy {
    pub(crate) fn new(index: Index, hash: Arc<str>) -> Self {
        Self { index, hash }
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    /// The policy of no files: it denies everything.
    pub fn empty() -> Self {
        Self {
            index: Index::default(),
            hash: rule_set::hash(&[]),
        }
    }

    /// Whether the caller may have tokens for the resource with this identity.
    ///
    /// Denied unless a rule allows it, for uid 0 like for everyone. The first rule that allows it, in
    /// the order of the files, is the one that the grant names. Texts are compared byte by byte.
    pub fn decide(
        &self,
        caller: &Caller,
        identity: &Identity,
        resource: &Resource,
    ) -> Result<Grant, Denial> {
        match self.index.verdict(caller, identity, resource) {
            Some(verdict) => Ok(Grant {
                identity: identity.clone(),
                resource: resource.clone(),
                rule: Arc::clone(&verdict.first.name),
                bypass: verdict.bypass,
            }),
            None if self.index.names(caller) => Err(Denial::NoRuleForResource),
            None => Err(Denial::NoRuleForCaller),
        }
    }

    /// Everything that the caller may have, each resource and identity once, in the order of the rules.
    pub fn allowed(&self, caller: &Caller) -> Vec<Allowed> {
        let mut seen = BTreeSet::new();
        let mut allowed = Vec::new();
        for rule in self
            .index
            .rules()
            .iter()
            .filter(|rule| rule.conditions.hold(caller))
        {
            for identity in &rule.identities {
                let new = rule
                    .resources
                    .iter()
                    .filter(|resource| seen.insert((*resource, identity)));
                allowed.extend(new.map(|resource| Allowed {
                    resource: resource.clone(),
                    identity: identity.clone(),
                    rule: Arc::clone(&rule.name),
                }));
            }
        }
        allowed
    }

    /// The first 12 hexadecimal digits of the SHA-256 of the files' names and contents.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The names of the rules, in their order.
    pub fn rule_names(&self) -> impl Iterator<Item = &str> {
        self.index.rules().iter().map(|rule| &*rule.name)
    }

    /// How many rules there are.
    pub fn rules(&self) -> usize {
        self.index.rules().len()
    }
}

impl Grant {
    /// The identity that the token is for.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The resource that the token is for.
    pub fn resource(&self) -> &Resource {
        &self.resource
    }

    /// The name of the rule that allowed it.
    pub fn rule(&self) -> &str {
        &self.rule
    }

    /// Whether a new token may be asked for while the kept one is good.
    ///
    /// True where any rule that gives the caller this resource with this identity says
    /// `bypass-cache = true`, not only the one that [`Grant::rule`] names.
    pub fn may_bypass_cache(&self) -> bool {
        self.bypass
    }
}

impl Denial {
    /// A word for it, for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoRuleForCaller => "no-rule-for-caller",
            Self::NoRuleForResource => "no-rule-for-resource",
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRuleForCaller => "no rule holds for this caller",
            Self::NoRuleForResource => "no rule gives this caller this resource with this identity",
        })
    }
}

impl std::error::Error for Denial {}
